//! What passes a door, and how.

use super::*;

#[tokio::test]
async fn a_request_passes_without_what_is_not_the_processs_business() {
    let mut process = process(
        "HTTP/1.1 202 Accepted\r\nconnection: x-hop\r\nx-hop: 1\r\nkeep-alive: timeout=5\r\nmcp-session-id: s\r\ncontent-length: 2\r\n\r\nhi",
    )
    .await;
    let world = world(settings(), ready(1, process.addr));

    let (head, body) = Line::to(&world)
        .await
        .ask(
            "POST /any/path?q=1 HTTP/1.1\r\nhost: LOCALHOST\r\norigin: http://localhost:6274\r\nauthorization: Bearer x\r\n\
             proxy-authorization: x\r\nconnection: x-mine\r\nx-mine: 1\r\nte: trailers\r\nupgrade: websocket\r\n\
             mcp-method: tools/call\r\naccept-encoding: gzip\r\ncontent-length: 5\r\n\r\nhello",
        )
        .await;

    assert!(
        head.starts_with("http/1.1 202 ") && head.contains("mcp-session-id: s") && body == "hi",
        "{head}"
    );
    assert!(!head.contains("x-hop") && !head.contains("keep-alive"), "{head}");
    let asked = process.asked.recv().await.unwrap();
    assert!(asked.starts_with("post /any/path?q=1 http/1.1\r\n") && asked.ends_with("hello"), "{asked}");
    for part in [
        &format!("host: {}\r\n", process.addr),
        "mcp-method: tools/call",
        "accept-encoding: gzip",
        "origin: ",
    ] {
        assert!(asked.contains(part), "{part} in {asked}");
    }
    for part in ["bearer", "authorization", "x-mine", "connection", "upgrade", "te: "] {
        assert!(!asked.contains(part), "{part} in {asked}");
    }
}

#[tokio::test]
async fn each_event_of_a_stream_arrives_before_the_next_is_made() {
    let (world, listener) = by_hand(settings()).await;
    let mut client = Line::to(&world).await;
    client.say(GET).await;
    let mut process = accept(&listener).await;
    process.until("\r\n\r\n").await.unwrap();
    process
        .say("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        .await;
    client.until("\r\n\r\n").await.unwrap();

    for number in 1..=3 {
        process.say(&format!("9\r\ndata: {number}\n\n\r\n")).await;
        client.until(&format!("data: {number}\n\n")).await.unwrap();
    }
}

#[tokio::test]
async fn a_request_body_is_passed_on_while_it_comes() {
    let (world, listener) = by_hand(settings()).await;
    let mut client = Line::to(&world).await;
    client
        .say("POST /mcp HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n")
        .await;
    let mut process = accept(&listener).await;

    process.until("one").await.unwrap();
    client.say("3\r\ntwo\r\n0\r\n\r\n").await;

    process.until("two").await.unwrap();
    process.say(OK).await;
    assert_eq!(client.message().await.unwrap().1, "ok");
}

#[tokio::test]
async fn a_name_in_the_request_line_that_is_ours_becomes_a_plain_path() {
    let mut process = process(OK).await;
    let world = world(settings(), ready(1, process.addr));

    Line::to(&world).await.ask("GET http://localhost:3456/mcp?x HTTP/1.1\r\nhost: localhost\r\n\r\n").await;

    assert!(process.asked.recv().await.unwrap().starts_with("get /mcp?x http/1.1\r\n"));
}

#[tokio::test]
async fn an_answer_that_breaks_off_breaks_off_for_the_client() {
    let (world, listener) = by_hand(settings()).await;
    let mut client = Line::to(&world).await;
    client.say(GET).await;
    let mut process = accept(&listener).await;
    process.until("\r\n\r\n").await.unwrap();
    process.say("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n").await;
    client.until("one").await.unwrap();

    drop(process);

    assert_eq!(client.until("0\r\n\r\n").await, None);
}

#[tokio::test]
async fn a_client_that_leaves_ends_its_call() {
    let (world, listener) = by_hand(settings()).await;
    for streaming in [false, true] {
        let mut client = Line::to(&world).await;
        client.say(GET).await;
        let mut process = accept(&listener).await;
        process.until("\r\n\r\n").await.unwrap();
        if streaming {
            process.say("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n").await;
            client.until("one").await.unwrap();
        }

        drop(client);

        process.ends().await;
    }
}

#[tokio::test]
async fn a_process_may_answer_before_it_has_read_everything() {
    let (world, listener) = by_hand(settings()).await;
    let mut client = Line::to(&world).await;
    client.say("POST /mcp HTTP/1.1\r\nhost: localhost\r\ncontent-length: 10\r\n\r\nhalf").await;
    let mut process = accept(&listener).await;
    process.until("half").await.unwrap();

    process.say("HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n").await;

    assert!(client.message().await.unwrap().0.starts_with("http/1.1 401 "));
    client.ends().await;
    process.ends().await;
}

#[tokio::test]
async fn answers_without_a_body_leave_the_connection_usable() {
    let process = process("HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n").await;
    let world = world(settings(), ready(1, process.addr));
    let mut client = Line::to(&world).await;

    for _ in 0..3 {
        client.say("HEAD /mcp HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
        assert!(client.until("\r\n\r\n").await.unwrap().contains("content-length: 1000"));
    }

    assert_eq!(process.connections.load(SeqCst), 1);
}

#[tokio::test]
async fn a_stream_that_came_to_its_end_leaves_the_connection_usable() {
    let process = process("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n0\r\n\r\n").await;
    let world = world(settings(), ready(1, process.addr));
    let mut client = Line::to(&world).await;

    for _ in 0..5 {
        client.say(GET).await;
        client.until("0\r\n\r\n").await.unwrap();
    }

    assert_eq!(process.connections.load(SeqCst), 1);
}

#[tokio::test]
async fn one_client_connection_uses_one_connection_to_the_process() {
    let process = process(OK).await;
    let world = world(settings(), ready(1, process.addr));
    let (mut one, mut other) = (Line::to(&world).await, Line::to(&world).await);

    for _ in 0..20 {
        assert_eq!(one.ask(GET).await.1, "ok");
        assert_eq!(other.ask(GET).await.1, "ok");
    }

    assert_eq!(process.connections.load(SeqCst), 2);
}

#[tokio::test]
async fn what_is_not_http_from_a_process_is_not_passed_on() {
    for answer in [
        "SSH-2.0-OpenSSH\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n",
    ] {
        let process = process(answer).await;
        let world = world(settings(), ready(1, process.addr));

        let (head, _) = Line::to(&world).await.ask(GET).await;

        assert!(head.starts_with("http/1.1 502 "), "{head} for {answer}");
    }
}

#[tokio::test]
async fn a_process_that_closes_after_each_answer_costs_nothing_but_connections() {
    let process = process("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok").await;
    let world = world(settings(), ready(1, process.addr));
    let mut client = Line::to(&world).await;

    for _ in 0..5 {
        assert_eq!(client.ask(GET).await.1, "ok");
    }

    assert_eq!(process.connections.load(SeqCst), 5);
}
