//! Answers as they come: at once, piece by piece, and again.

use std::time::Duration;

use super::*;

#[tokio::test]
async fn a_call_answered_soon_is_answered_as_json_byte_for_byte() {
    let (world, mut process) = up(legacy()).await;
    let mut client = world.in_session().await;
    client.send(&call(1)).await;
    let asked = process.hear_of("tools/call").await;
    process.answer(&asked, &json!({"content": [{"type": "text", "text": "hi"}], "unknown": 1.50}));
    let (head, body) = client.answer().await;

    assert_eq!((status(&head), &body["id"]), ("200", &1.into()));
    assert_eq!(body["result"]["unknown"], 1.5);
    assert_eq!(field(&head, "content-type"), Some("application/json"));
    assert_ne!(asked["id"], 1);
}

#[tokio::test]
async fn what_comes_before_the_answer_makes_it_a_stream_that_can_be_resumed() {
    let (world, mut process) = up(legacy()).await;
    let mut client = world.in_session().await;
    client.send(&call(1)).await;
    let asked = process.hear_of("tools/call").await;
    process.progress(&asked, 1);

    client.stream().await;
    let first = client.chunk().await.unwrap();
    let prime: Vec<_> = first.lines().take(3).collect();
    assert!(
        prime[0].starts_with("id: ") && prime[1] == "retry: 1000" && prime[2].trim() == "data:",
        "{first}"
    );
    let id = first.lines().filter_map(|line| line.strip_prefix("id: ")).next_back().unwrap().to_owned();
    assert!(first.contains(r#""progressToken":"tok""#), "{first}");
    // It breaks off here, and the call goes on.
    let mut resumed = client.again().await;
    drop(client);
    process.progress(&asked, 2);
    process.answer(&asked, &json!({"content": []}));
    resumed.get(&format!("last-event-id: {id}\r\n")).await;

    assert_eq!(resumed.data().await["params"]["progress"], 2);
    let (_, answer) = resumed.event().await.unwrap();
    assert_eq!((&answer["id"], &answer["result"]), (&1.into(), &json!({"content": []})));
    assert_eq!(resumed.event().await, None);
    let mut stranger = world.in_session().await;
    let head = stranger.head("GET");
    stranger.wires.say(&format!("{head}last-event-id: {id}\r\n\r\n")).await;
    assert_eq!(status(&stranger.answer().await.0), "400");
}

#[tokio::test]
async fn a_call_that_takes_long_becomes_a_stream_that_is_shown_alive() {
    let (world, mut process) = up(legacy()).await;
    let mut client = world.in_session().await;
    client.send(&call(1)).await;
    let asked = process.hear_of("tools/call").await;
    client.stream().await;
    assert!(client.chunk().await.unwrap().starts_with("id: "));

    let line = world.bridge.at(None).unwrap();
    line.turn(|state, now| state.tick(now + Duration::from_secs(21)));
    assert_eq!(client.wires.until("\n\n").await.unwrap(), "3\r\n:\n\n");
    assert_eq!(client.wires.until("\r\n").await.unwrap(), "\r\n");
    process.answer(&asked, &json!({}));

    assert_eq!(client.data().await["result"], json!({}));
    assert_eq!(client.event().await, None);
    let resting = line.turn(|state, now| {
        let later = now + Duration::from_secs(60);
        state.tick(later);
        state.deadline().is_none_or(|at| at > later + Duration::from_secs(60))
    });
    assert!(resting, "nothing is left to be kept alive");
}

#[tokio::test]
async fn an_idle_session_that_listens_costs_no_wake_up() {
    let (world, process) = up(legacy()).await;
    let mut client = world.in_session().await;
    client.get("").await;
    let soonest = world.bridge.at(None).unwrap().turn(|state, now| state.deadline().map(|at| at.since(now)));
    assert!(soonest.is_none_or(|wait| wait.as_secs() > 3600), "{soonest:?}");

    process.say(&json!({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}));
    assert_eq!(client.data().await["method"], "notifications/tools/list_changed");
    let mut again = client.again().await;
    again.get("").await;
    // One stream per session: the earlier one ends.
    assert_eq!(client.event().await, None);
    process.say(&json!({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}));
    assert_eq!(again.data().await["method"], "notifications/tools/list_changed");
}

#[tokio::test]
async fn only_clients_that_know_what_it_is_for_get_an_event_without_data() {
    let (world, mut process) = up(legacy()).await;
    let mut client = world.client().await;
    let (head, _) = client.post(&initialize("2025-06-18")).await;
    client.session = field(&head, "mcp-session-id").map(str::to_owned);
    client.send(&call(1)).await;
    let asked = process.hear_of("tools/call").await;
    process.progress(&asked, 1);
    client.stream().await;

    let first = client.chunk().await.unwrap();
    assert!(!first.contains("retry") && first.contains("progress"), "{first}");
}

#[tokio::test]
async fn a_line_with_a_break_in_it_stays_one_event() {
    let (world, mut process) = up(legacy()).await;
    let mut client = world.in_session().await;
    client.send(&call(1)).await;
    let asked = process.hear_of("tools/call").await;
    process.progress(&asked, 1);
    client.stream().await;
    client.data().await;
    let id = &asked["id"];
    let line = format!("{{\"jsonrpc\":\"2.0\",\r\"id\":{id},\r \"result\":{{\"a\":\r1}}}}\r");
    assert!(world.bridge.line(None, process.run, line.as_bytes()));
    assert_eq!(client.data().await["result"]["a"], 1);
}

#[tokio::test]
async fn clients_of_one_process_never_see_what_is_another_ones() {
    let (world, mut process) = up(legacy()).await;
    let mut clients = Vec::new();
    for _ in 0..8 {
        clients.push(world.in_session().await);
    }
    for client in &mut clients {
        client.send(&call(1)).await;
    }
    for _ in 0..8 {
        let asked = process.hear_of("tools/call").await;
        process.answer(&asked, &json!({"mine": asked["id"]}));
    }
    let mut seen = std::collections::BTreeSet::new();
    for client in &mut clients {
        let (_, body) = client.answer().await;
        assert_eq!(body["id"], 1);
        assert!(seen.insert(body["result"]["mine"].to_string()));
    }
}
