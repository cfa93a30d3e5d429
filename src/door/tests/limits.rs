//! What a door refuses, and where it stops.

use super::*;

#[tokio::test]
async fn foreign_names_are_refused_and_the_process_hears_nothing() {
    let process = process(OK).await;
    let world = world(settings(), ready(1, process.addr));

    for (request, status) in [
        ("GET / HTTP/1.1\r\nhost: evil.example\r\n\r\n", 403),
        ("GET / HTTP/1.1\r\nhost: localhost\r\norigin: http://evil.example\r\n\r\n", 403),
        ("GET / HTTP/1.1\r\nhost: localhost\r\norigin: null\r\n\r\n", 403),
        (
            "GET / HTTP/1.1\r\nhost: localhost\r\norigin: http://localhost\r\norigin: http://evil.example\r\n\r\n",
            403,
        ),
        ("GET http://evil.example/ HTTP/1.1\r\nhost: localhost\r\n\r\n", 403),
        ("GET / HTTP/1.1\r\n\r\n", 400),
        ("GET / HTTP/1.0\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nhost: localhost\r\nhost: evil.example\r\n\r\n", 400),
        ("CONNECT localhost:1 HTTP/1.1\r\nhost: localhost:1\r\n\r\n", 400),
    ] {
        let (head, body) = Line::to(&world).await.ask(request).await;
        let status_line = format!(" {status} ");
        assert!(head.contains(&status_line) && head.contains("application/json"), "{request} {head}");
        assert!(
            body.starts_with(r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32000,"message":"#),
            "{body}"
        );
    }
    assert_eq!(process.connections.load(SeqCst), 0);
}

#[tokio::test]
async fn an_endless_body_is_refused_at_the_limit() {
    let (world, listener) = by_hand(settings()).await;
    let mut client = Line::to(&world).await;
    client.say("POST /mcp HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n").await;
    let (mut reading, mut writing) = client.stream.into_split();
    let chunk = format!("2000\r\n{}\r\n", "x".repeat(0x2000));
    let sender = tokio::spawn(async move {
        let mut sent = 0u64;
        while sent < 10 << 30 && writing.write_all(chunk.as_bytes()).await.is_ok() {
            sent += 0x2000;
        }
        sent
    });
    let mut process = accept(&listener).await;
    let mut arrived = Vec::new();
    timeout(LIMIT, process.stream.read_to_end(&mut arrived)).await.unwrap().unwrap_or(0);

    let mut answer = vec![0; 12];
    timeout(LIMIT, reading.read_exact(&mut answer)).await.unwrap().unwrap();
    drop((reading, process));

    assert_eq!(answer, b"HTTP/1.1 413");
    assert!(arrived.len() < 70 * 1024, "{}", arrived.len());
    assert!(timeout(LIMIT, sender).await.unwrap().unwrap() < 64 << 20);
}

#[tokio::test]
async fn a_body_that_says_it_is_too_large_is_refused_before_it_comes() {
    let process = process(OK).await;
    let world = world(settings(), ready(1, process.addr));

    let request = "POST /mcp HTTP/1.1\r\nhost: localhost\r\nexpect: 100-continue\r\ncontent-length: 10000000000\r\n\r\n";
    let mut client = Line::to(&world).await;
    let (head, _) = client.ask(request).await;

    assert!(head.starts_with("http/1.1 413 ") && head.contains("connection: close"), "{head}");
    client.ends().await;
    assert_eq!(process.connections.load(SeqCst), 0);
}

#[tokio::test]
async fn a_body_that_stops_coming_is_given_up() {
    let (world, listener) =
        by_hand(config::Door { head_timeout: Duration::from_millis(100), ..settings() }).await;
    let mut client = Line::to(&world).await;
    client.say("POST /mcp HTTP/1.1\r\nhost: localhost\r\ncontent-length: 10\r\n\r\nhalf").await;
    let mut process = accept(&listener).await;

    process.ends().await;

    assert!(client.message().await.unwrap().0.starts_with("http/1.1 408 "));
}

#[tokio::test]
async fn a_client_that_says_nothing_or_too_little_is_shown_out() {
    let world = world(config::Door { head_timeout: Duration::from_millis(50), ..settings() }, Route::Waiting);

    for start in ["", "GET / HT", "GET / HTTP/1.1\r\nhost: localhost\r\nx-slow: "] {
        let mut client = Line::to(&world).await;
        client.say(start).await;
        client.ends().await;
    }
}

#[tokio::test]
async fn garbage_is_answered_and_harms_nobody() {
    let process = process(OK).await;
    let world = world(settings(), ready(1, process.addr));
    let mut honest = Line::to(&world).await;
    assert_eq!(honest.ask(GET).await.1, "ok");
    let large = format!("GET / HTTP/1.1\r\nhost: localhost\r\nx: {}\r\n\r\n", "x".repeat(100_000));
    let many = format!("GET / HTTP/1.1\r\nhost: localhost\r\n{}\r\n", "x: y\r\n".repeat(1000));

    for (garbage, status) in [
        ("\x16\x03\x01\x02\x00\x01\r\n\r\n", "400"),
        ("GET / HTTP/1.1\r\nhost: localhost\r\nno colon here\r\n\r\n", "400"),
        ("GET / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n", "400"),
        ("GET / HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: gzip\r\n\r\n", "400"),
        (&large, "431"),
        (&many, "431"),
    ] {
        let mut client = Line::to(&world).await;
        client.stream.write_all(garbage.as_bytes()).await.unwrap();
        let head = client.until("\r\n").await.unwrap_or_default();
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head} for {garbage:.40}");
    }

    assert_eq!(honest.ask(GET).await.1, "ok");
}

#[tokio::test]
async fn a_connection_too_many_is_told_so_and_the_rest_go_on() {
    let process = process(OK).await;
    let world = world(config::Door { max_connections: 2, ..settings() }, ready(1, process.addr));
    let (mut one, mut two) = (Line::to(&world).await, Line::to(&world).await);
    assert_eq!(one.ask(GET).await.1, "ok");
    assert_eq!(two.ask(GET).await.1, "ok");

    let (head, body) = Line::to(&world).await.ask(GET).await;

    assert!(head.starts_with("http/1.1 503 ") && body.contains("too many connections"), "{head}");
    assert_eq!(one.ask(GET).await.1, "ok");
    drop(two);
    // The place is free as soon as the door has seen that the other one left.
    let next = async {
        loop {
            if Line::to(&world).await.ask(GET).await.1 == "ok" {
                return;
            }
        }
    };
    timeout(LIMIT, next).await.unwrap();
}

#[tokio::test]
async fn a_dropped_door_is_closed_with_all_its_connections() {
    let (world, listener) = by_hand(settings()).await;
    let addr = world.door.addr();
    let mut client = Line::to(&world).await;
    client.say(GET).await;
    let mut process = accept(&listener).await;

    drop(world);

    // Whoever the port is given to now gets it, and does not wait for the connections to end.
    assert_eq!(socket::listener_at(addr).unwrap(), None);
    client.ends().await;
    process.ends().await;
}

#[tokio::test]
async fn a_door_that_everybody_has_left_has_no_task_and_is_answered_again() {
    let process = process(OK).await;
    let world = world(settings(), ready(1, process.addr));
    for _ in 0..3 {
        let (mut one, mut two) = (Line::to(&world).await, Line::to(&world).await);
        assert_eq!(one.ask(GET).await.1, "ok");
        assert_eq!(two.ask(GET).await.1, "ok");
        drop((one, two));

        let left = async {
            while world.door.post.is_attended() {
                tokio::task::yield_now().await;
            }
        };
        timeout(LIMIT, left).await.unwrap();
    }
}

#[tokio::test]
async fn settings_hold_for_connections_that_come_after_them() {
    let process = process(OK).await;
    let world = world(settings(), ready(1, process.addr));
    let hosts = vec!["mcp.example.org".to_owned()];
    let changed = config::Door { hosts, ..settings() };
    let listen = IpAddr::from([127, 0, 0, 1]);
    world.settings.send(Arc::new(Settings { limits: changed, listen })).unwrap();

    let request = "GET / HTTP/1.1\r\nhost: mcp.example.org\r\norigin: https://mcp.example.org\r\n\r\n";
    assert_eq!(Line::to(&world).await.ask(request).await.1, "ok");
}
