//! What the transport demands of every request.

use super::*;

#[tokio::test]
async fn what_is_no_request_of_this_transport_is_told_so() {
    let (world, _process) = up(legacy()).await;
    let post = "content-type: application/json\r\naccept: application/json, text/event-stream\r\n";
    let list = r#"{"jsonrpc":"2.0","id":7,"method":"tools/list"}"#;
    for (line, headers, body, expected) in [
        ("POST /", post, list, "404"),
        ("GET /other", "", "", "404"),
        ("PUT /mcp", post, list, "405"),
        ("OPTIONS /mcp", "", "", "405"),
        ("HEAD /mcp", "", "", "405"),
        ("GET /mcp", "accept: text/event-stream\r\nmcp-protocol-version: 2026-07-28\r\n", "", "405"),
        ("DELETE /mcp", "mcp-protocol-version: 2026-07-28\r\n", "", "405"),
        ("POST /mcp", "content-type: text/plain\r\naccept: */*\r\n", list, "415"),
        ("POST /mcp", "content-type: application/json\r\naccept: application/json\r\n", list, "406"),
        ("GET /mcp", "accept: text/html\r\nmcp-session-id: x\r\n", "", "406"),
        ("POST /mcp", post, "{\"jsonrpc\"", "400"),
        ("POST /mcp", post, "", "400"),
        ("POST /mcp", post, "[]", "400"),
        ("POST /mcp", post, list, "400"),
        ("GET /mcp", "accept: text/event-stream\r\n", "", "400"),
        ("DELETE /mcp", "", "", "400"),
        ("POST /mcp", &format!("{post}mcp-session-id: unknown\r\n"), list, "404"),
        ("GET /mcp", "accept: text/event-stream\r\nmcp-session-id: unknown\r\n", "", "404"),
        ("DELETE /mcp", "mcp-session-id: unknown\r\n", "", "404"),
    ] {
        let mut client = world.client().await;
        let length = body.len();
        let head = format!("{line} HTTP/1.1\r\nhost: localhost\r\n{headers}content-length: {length}\r\n\r\n");
        client.wires.say(&(head + body)).await;
        let head = client.wires.until("\r\n\r\n").await.unwrap().to_lowercase();
        assert_eq!(status(&head), expected, "{line} {headers} {body}");
        assert!(head.contains("content-type: application/json"), "{head}");
        let allow = if headers.contains("2026") { "post" } else { "get, post, delete" };
        assert_eq!(field(&head, "allow"), (expected == "405").then_some(allow), "{line}");
    }
}

#[tokio::test]
async fn a_header_that_repeats_an_argument_says_the_same() {
    let (world, mut process) = up(modern()).await;
    let body = modern_call(1).replace(r#""name":"t","arguments":{}"#, r#""name":"m","arguments":{"a":"b"}"#);
    let heads = CALL_HEADS.replace("mcp-name: t", "mcp-name: m");
    let mut client = world.client().await;
    client.send_with(&format!("{heads}mcp-param-a: b\r\n"), &body).await;
    let asked = process.hear_of("tools/call").await;
    process.answer(&asked, &json!({"resultType": "complete"}));
    assert_eq!(status(&client.answer().await.0), "200");
    for wrong in ["", "mcp-param-a: c\r\n", "mcp-param-a: b\r\nmcp-param-a: b\r\n"] {
        client.send_with(&format!("{heads}{wrong}"), &body).await;
        let (head, body) = client.answer().await;
        assert_eq!((status(&head), &body["error"]["code"]), ("400", &json!(-32020)), "{wrong}");
    }
}

#[tokio::test]
async fn a_client_that_likes_streams_better_gets_one_and_an_error_keeps_its_status() {
    const EVENTS: &str = "accept: text/event-stream, application/json\r\n";
    let (world, mut process) = up(modern()).await;
    let mut client = world.client().await;
    let length = modern_call(1).len();
    let request = format!(
        "POST /mcp HTTP/1.1\r\nhost: localhost\r\n{EVENTS}{CALL_HEADS}content-type: application/json\r\ncontent-length: {length}\r\n\r\n"
    );
    client.wires.say(&(request.clone() + &modern_call(1))).await;
    let asked = process.hear_of("tools/call").await;
    process.answer(&asked, &json!({"resultType": "complete"}));
    assert_eq!(status(&client.stream().await), "200");
    assert_eq!(client.data().await["id"], 1);

    let mut client = world.client().await;
    client.wires.say(&(request + &modern_call(2))).await;
    let asked = process.hear_of("tools/call").await;
    process.say(&json!({"jsonrpc": "2.0", "id": asked["id"], "error": {"code": -32601, "message": "m"}}));
    let (head, body) = client.answer().await;
    assert_eq!((status(&head), &body["id"]), ("404", &json!(2)));
}

#[tokio::test]
async fn a_session_has_a_name_nobody_guesses_and_ends_when_its_client_says_so() {
    let (mut world, _process) = up(legacy()).await;
    let (mut one, two) = (world.in_session().await, world.in_session().await);
    let (id, other) = (one.session.clone().unwrap(), two.session.clone().unwrap());
    assert!(id.len() >= 32 && id != other && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{id}");
    let Said::Remember(name) = world.word("Remember").await.what else { panic!("remember") };
    let record = world.bridge.record(name).unwrap();
    assert_eq!((record.id, record.version.as_str()), (id.clone(), VERSION));
    assert_eq!(world.bridge.sessions(), 2);

    let head = one.head("DELETE");
    let (head, _) = one.wires.ask(&format!("{head}\r\n")).await;

    assert_eq!(status(&head), "204");
    let Said::Forget(forgotten) = world.word("Forget").await.what else { panic!("forget") };
    assert_eq!((forgotten, world.bridge.record(name)), (name, None));
    let (head, body) = one.post(&call(5)).await;
    assert_eq!((status(&head), &body["id"]), ("404", &5.into()));
    assert_eq!(world.bridge.sessions(), 1);
}

#[tokio::test]
async fn that_a_session_changed_is_said_once_until_its_record_is_asked_for() {
    let (mut world, mut process) = up(legacy()).await;
    let mut client = world.in_session().await;
    let Said::Remember(name) = world.word("Remember").await.what else { panic!("remember") };
    let level = |level: &str| {
        json!({"jsonrpc": "2.0", "id": 3, "method": "logging/setLevel", "params": {"level": level}})
            .to_string()
    };
    world.bridge.record(name).unwrap();
    let mut words = 0;
    for n in 0..6 {
        client.send(&level(["info", "debug"][n % 2])).await;
        let asked = process.hear_of("logging/setLevel").await;
        process.answer(&asked, &json!({}));
        assert_eq!(status(&client.answer().await.0), "200");
        while let Ok(word) = world.words.try_recv() {
            words += usize::from(matches!(word.what, Said::Remember(_)));
        }
    }
    assert_eq!(words, 1);
    assert_eq!(world.bridge.record(name).unwrap().level.as_deref(), Some("debug"));
}

#[tokio::test]
async fn a_refusal_has_the_id_of_its_request_where_it_has_one() {
    let (world, _process) = up(legacy()).await;
    let mut client = world.in_session().await;
    client.session = Some("unknown".to_owned());
    let mut bytes = String::new();
    for id in ["12345678901234567890", "\"\\u0041\"", "-1.50"] {
        let body = format!(r#"{{"jsonrpc":"2.0","method":"tools/list","id":{id}}}"#);
        client.send(&body).await;
        let (head, body) = client.wires.message().await.unwrap();
        assert_eq!(status(&head), "404");
        assert!(body.contains(&format!("\"id\":{id}")), "{body}");
        bytes.push_str(&body);
    }
    assert!(!bytes.contains("unknown"));
}

#[tokio::test]
async fn a_message_that_is_too_large_is_refused_whether_it_says_so_or_not() {
    let stdio = Stdio { max_message: 64 << 10, ..legacy() };
    let (world, mut process) = up(stdio).await;
    let mut client = world.in_session().await;
    process.hear_of("notifications/initialized").await;
    let large =
        format!(r#"{{"jsonrpc":"2.0","id":1,"method":"m","params":{{"x":"{}"}}}}"#, "x".repeat(64 << 10));

    let mut other = client.again().await;
    assert_eq!(status(&other.post(&large).await.0), "413");
    let mut other = client.again().await;
    let head = other.head("POST");
    other
        .wires
        .say(&format!("{head}content-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"))
        .await;
    other.wires.say(&format!("{:x}\r\n{large}\r\n", large.len())).await;
    assert_eq!(status(&other.answer().await.0), "413");
    // The bound is on what is kept, not only on what one client sends.
    let piece = "x".repeat(60 << 10);
    let mut crowd = Vec::new();
    for _ in 0..4 {
        let mut one = client.again().await;
        let head = one.head("POST");
        let length = 64 << 10;
        let head = format!("{head}content-type: application/json\r\ncontent-length: {length}\r\n\r\n");
        one.wires.say(&(head + &piece)).await;
        crowd.push(one);
    }
    let crowded = async {
        loop {
            let mut one = client.again().await;
            let body = format!(r#"{{"jsonrpc":"2.0","method":"m","params":{{"x":"{piece}"}}}}"#);
            if status(&one.post(&body).await.0) == "503" {
                return;
            }
        }
    };
    timeout(LIMIT, crowded).await.unwrap();
    drop(crowd);
    let freed = async { while status(&client.post(&notification("notifications/x")).await.0) != "202" {} };
    timeout(LIMIT, freed).await.unwrap();
}

#[tokio::test]
async fn who_looks_for_an_answer_only_after_all_was_said_hears_that_it_was_too_large() {
    let limits = config::Door { max_body: 32 << 20, ..limits() };
    let stdio = Stdio { max_message: 64 << 10, ..legacy() };
    let (world, _process) = up_in(world_with(limits, stdio)).await;
    let client = world.in_session().await;
    let large =
        format!(r#"{{"jsonrpc":"2.0","id":1,"method":"m","params":{{"x":"{}"}}}}"#, "x".repeat(16 << 20));
    let length = large.len();
    for said in [
        format!("content-length: {length}\r\n\r\n{large}"),
        format!("transfer-encoding: chunked\r\n\r\n{length:x}\r\n{large}\r\n0\r\n\r\n"),
    ] {
        let mut other = client.again().await;
        let head = other.head("POST");
        other.wires.say(&format!("{head}content-type: application/json\r\n{said}")).await;
        let (head, body) = other.answer().await;
        assert_eq!(status(&head), "413");
        assert!(body["error"]["message"].as_str().unwrap().contains("max_message"), "{body}");
    }
    // And who waits to be told to go on is not waited for.
    let mut other = client.again().await;
    let head = other.head("POST");
    let more = format!("content-type: application/json\r\nexpect: 100-continue\r\ncontent-length: {length}");
    other.wires.say(&format!("{head}{more}\r\n\r\n")).await;
    assert_eq!(status(&other.answer().await.0), "413");
}

#[tokio::test]
async fn a_page_of_another_site_reaches_no_session() {
    let (world, _process) = up(legacy()).await;
    let mut client = world.in_session().await;
    client.send_with("origin: http://evil.example\r\n", &call(1)).await;
    assert_eq!(status(&client.answer().await.0), "403");
}
