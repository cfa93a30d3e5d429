//! Clients that leave, clients that do not read, and a process that does not.

use std::time::Duration;

use tokio::io::AsyncWriteExt;

use super::*;

#[tokio::test]
async fn a_modern_client_that_leaves_has_cancelled_its_call() {
    let (world, mut process) = up(modern()).await;
    let mut client = world.client().await;
    client.send_with(CALL_HEADS, &modern_call(1)).await;
    let asked = process.hear_of("tools/call").await;
    drop(client);
    let cancelled = process.hear_of("notifications/cancelled").await;
    assert_eq!(cancelled["params"]["requestId"], asked["id"]);

    let mut client = world.client().await;
    client.send_with(CALL_HEADS, &modern_call(2)).await;
    let asked = process.hear_of("tools/call").await;
    // Past the second after which it is a stream.
    client.stream().await;
    drop(client);
    let cancelled = process.hear_of("notifications/cancelled").await;
    assert_eq!(cancelled["params"]["requestId"], asked["id"]);
}

#[tokio::test]
async fn a_legacy_client_that_leaves_has_not_cancelled_its_call() {
    let (world, mut process) = up(legacy()).await;
    let mut client = world.in_session().await;
    let mut other = client.again().await;
    client.send(&call(1)).await;
    let asked = process.hear_of("tools/call").await;
    drop(client);
    other.send(&call(2)).await;
    let next = loop {
        let next = process.hear().await;
        assert_ne!(next["method"], "notifications/cancelled");
        if next["method"] == "tools/call" {
            break next;
        }
    };
    process.answer(&asked, &json!({}));
    process.answer(&next, &json!({}));
    assert_eq!(other.answer().await.1["id"], 2);
}

#[tokio::test]
async fn nothing_is_left_of_clients_that_leave() {
    let (world, mut process) = up(modern()).await;
    for id in 0..50 {
        let mut client = world.client().await;
        client.send_with(CALL_HEADS, &modern_call(id)).await;
        process.hear_of("tools/call").await;
        drop(client);
        process.hear_of("notifications/cancelled").await;
    }
    assert_eq!(world.bridge.in_flight(None), 0);
    assert_eq!(world.bridge.at(None).unwrap().turn(|state, _| state.readers()), 0);
}

#[tokio::test]
async fn a_client_that_does_not_read_does_not_stop_the_others() {
    let (world, mut process) = up(legacy()).await;
    let mut deaf = world.in_session().await;
    let mut client = world.in_session().await;
    deaf.send(&call(1)).await;
    let asked = process.hear_of("tools/call").await;
    let text = "x".repeat(64 << 10);
    let token = &asked["params"]["_meta"]["progressToken"];
    for progress in 0..400 {
        process.say(&json!({"jsonrpc": "2.0", "method": "notifications/progress",
            "params": {"progressToken": token, "progress": progress, "message": text}}));
        if progress % 10 == 0 {
            tokio::task::yield_now().await;
        }
    }
    client.send(&call(2)).await;
    let next = process.hear_of("tools/call").await;
    process.answer(&next, &json!({}));
    assert_eq!(client.answer().await.1["id"], 2);
}

#[tokio::test]
async fn a_process_that_does_not_read_makes_its_clients_wait_and_is_spared_no_message() {
    let mut world =
        world_with(config::Door { max_connections: 256, max_body: 1 << 20, ..limits() }, legacy());
    let mut process = world.attach(None);
    process.open().await;
    world.word("Opened").await;
    let first = world.in_session().await;
    let text = "x".repeat(256 << 10);
    let body = |id: u32| {
        format!(
            r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"name":"t","arguments":{{"x":"{text}"}}}}}}"#
        )
    };
    let mut clients = Vec::new();
    for id in 0..20 {
        let mut client = first.again().await;
        client.send(&body(id)).await;
        clients.push(client);
    }
    // What waits for the process stays with its clients: no more than the wire's own bound is taken.
    let taken = async {
        while world.bridge.in_flight(None) < 4 {
            tokio::task::yield_now().await;
        }
    };
    timeout(LIMIT, taken).await.unwrap();
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
    assert!(world.bridge.in_flight(None) <= 6, "{}", world.bridge.in_flight(None));

    for _ in 0..20 {
        let asked = process.hear_of("tools/call").await;
        process.answer(&asked, &json!({}));
    }
    for (id, client) in clients.iter_mut().enumerate() {
        let (head, body) = client.answer().await;
        assert_eq!((status(&head), &body["id"]), ("200", &id.into()));
    }
}

#[tokio::test]
async fn a_body_that_never_ends_is_given_up_and_its_room_is_free() {
    let limits = config::Door { head_timeout: std::time::Duration::from_millis(100), ..limits() };
    let mut world = world_with(limits, legacy());
    let mut process = world.attach(None);
    process.open().await;
    world.word("Opened").await;
    let mut client = world.client().await;
    let head = client.head("POST");
    client
        .wires
        .say(&format!("{head}content-type: application/json\r\ncontent-length: 100\r\n\r\n{{\"half"))
        .await;
    assert_eq!(status(&client.answer().await.0), "408");
    client.wires.ends().await;
    assert_eq!(world.bridge.collecting.load(Relaxed), 0);
}

#[tokio::test]
async fn a_client_that_leaves_in_the_middle_of_its_message_leaves_nothing() {
    let (world, _process) = up(legacy()).await;
    let mut client = world.client().await;
    let head = client.head("POST");
    client
        .wires
        .say(&format!("{head}content-type: application/json\r\ncontent-length: 100\r\n\r\n{{\"half"))
        .await;
    let taken = async {
        while world.bridge.collecting.load(Relaxed) == 0 {
            tokio::task::yield_now().await;
        }
    };
    timeout(LIMIT, taken).await.unwrap();
    client.wires.stream.shutdown().await.unwrap();
    drop(client);
    let free = async {
        while world.bridge.collecting.load(Relaxed) != 0 {
            tokio::task::yield_now().await;
        }
    };
    timeout(LIMIT, free).await.unwrap();
}

#[tokio::test]
async fn answers_that_clients_do_not_read_are_bounded_however_many_they_are() {
    let (world, mut process) = up_with(config::Door { max_connections: 64, ..limits() }).await;
    let text = "x".repeat(8 << 20);
    let mut deaf = Vec::new();
    for id in 0..12 {
        let mut client = world.in_session().await;
        client.send(&call(id)).await;
        let asked = process.hear_of("tools/call").await;
        process.answer(&asked, &json!({ "text": text }));
        // It is told that there is an answer, and takes it no further.
        client.wires.until("content-length: ").await.expect("an answer");
        deaf.push(client);
    }
    assert!(world.bridge.owed.bytes() <= 64 << 20, "{}", world.bridge.owed.bytes());
    let mut client = world.in_session().await;
    client.send(&call(1)).await;
    let asked = process.hear_of("tools/call").await;
    process.answer(&asked, &json!({ "text": text }));
    assert!(client.answer().await.1["error"]["message"].as_str().unwrap().contains("too much waits"));
    client.send(&call(2)).await;
    let asked = process.hear_of("tools/call").await;
    process.answer(&asked, &json!({}));
    assert!(client.answer().await.1["result"].is_object(), "a small one passes");

    drop(deaf);
    for id in 3.. {
        client.send(&call(id)).await;
        let asked = process.hear_of("tools/call").await;
        process.answer(&asked, &json!({ "text": text }));
        // Each of those who left is noticed by its own connection.
        if client.answer().await.1["result"].is_object() {
            break;
        }
    }
    assert!(world.bridge.owed.bytes() < 9 << 20);
}

#[tokio::test]
async fn a_process_that_asks_and_does_not_read_is_not_answered_without_end() {
    let (world, mut process) = up(legacy()).await;
    let id = "x".repeat(1000);
    for n in 0..10_000 {
        process.say(&json!({"jsonrpc": "2.0", "id": format!("{n}-{id}"), "method": "ping"}));
    }
    let held = world.bridge.at(None).unwrap().turn(|state, _| state.held());
    assert!(held < 2 << 20, "{held}");

    let mut client = world.client().await;
    client.send(&initialize(VERSION)).await;
    let mut answered = 0;
    while answered < 1000 {
        answered += u32::from(process.hear().await["result"].is_object());
    }
    let (_, body) = loop {
        tokio::select! {
            answer = client.answer() => break answer,
            _pong = process.hear() => {}
        }
    };
    assert!(body["result"].is_object(), "when it reads, its clients are served");
}

#[tokio::test]
async fn nothing_is_left_of_sessions_whose_clients_vanish() {
    let (mut world, _process) = up(legacy()).await;
    for _ in 0..20 {
        let mut client = world.in_session().await;
        client.get("").await;
    }
    world.bridge.configure(Stdio { session_idle: Duration::from_millis(1), ..legacy() });
    for _ in 0..20 {
        world.word("Forget").await;
    }
    assert_eq!(world.bridge.sessions(), 0);
    let line = world.bridge.at(None).unwrap();
    assert_eq!(line.turn(|state, _| (state.readers(), state.names.len())), (0, 0));
}
