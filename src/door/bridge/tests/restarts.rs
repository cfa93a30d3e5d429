//! A process that is not there yet, not there any more, or not well.

use std::time::Duration;

use super::*;
use crate::model::config::Health;

#[tokio::test]
async fn a_request_waits_for_the_process_and_is_refused_when_it_does_not_come() {
    let wait = Duration::from_millis(150);
    let world = world_with(config::Door { wait, ..limits() }, legacy());
    let mut client = world.client().await;

    let (head, body) = client.post(&initialize(VERSION)).await;
    assert_eq!((status(&head), field(&head, "retry-after"), &body["id"]), ("503", Some("5"), &"open".into()));
    assert_eq!(world.bridge.sessions(), 0);

    let mut world = world_with(limits(), legacy());
    let mut client = world.client().await;
    client.send(&initialize(VERSION)).await;
    let mut process = world.attach(None);
    process.open().await;
    let (head, body) = client.answer().await;
    assert_eq!((status(&head), &body["id"]), ("200", &"open".into()));
    assert!(field(&head, "mcp-session-id").is_some());
}

#[tokio::test]
async fn who_waits_hears_at_once_that_no_process_will_come() {
    let world = world_with(limits(), legacy());
    let mut client = world.client().await;
    client.send(&initialize(VERSION)).await;
    let mut other = world.client().await;
    world.bridge.close(Some("alice has stopped it".to_owned()));

    let (head, body) = client.answer().await;
    assert_eq!((status(&head), field(&head, "retry-after")), ("503", Some("60")));
    assert_eq!(body["error"]["message"], "alice has stopped it");
    assert_eq!(status(&other.post(&initialize(VERSION)).await.0), "503");
}

#[tokio::test]
async fn a_call_in_flight_is_answered_when_its_process_ends_and_the_session_goes_on() {
    let (mut world, mut process) = up(legacy()).await;
    let mut client = world.in_session().await;
    client.send(&call(1)).await;
    process.hear_of("tools/call").await;
    process.die();

    let (head, body) = client.answer().await;
    assert_eq!((status(&head), &body["id"], &body["error"]["code"]), ("200", &1.into(), &(-32000).into()));
    client.send(&call(2)).await;
    let mut next = world.attach(None);
    next.open().await;
    let asked = next.hear_of("tools/call").await;
    next.answer(&asked, &json!({"again": true}));
    assert_eq!(client.answer().await.1["result"]["again"], true);
}

#[tokio::test]
async fn a_late_word_of_an_earlier_run_is_nobodys() {
    let (mut world, mut first) = up(legacy()).await;
    let mut client = world.in_session().await;
    client.send(&call(1)).await;
    let asked = first.hear_of("tools/call").await;
    let mut second = world.attach(None);
    second.open().await;
    assert_eq!(client.answer().await.1["error"]["code"], -32000);
    first.answer(&asked, &json!({"late": true}));
    first.die();
    client.send(&call(2)).await;
    let asked = second.hear_of("tools/call").await;
    second.answer(&asked, &json!({"late": false}));
    assert_eq!(client.answer().await.1["result"]["late"], false);
}

#[tokio::test]
async fn a_process_that_is_to_end_answers_what_it_has_and_gets_nothing_new() {
    let (mut world, mut process) = up(legacy()).await;
    let mut client = world.in_session().await;
    let mut other = client.again().await;
    client.send(&call(1)).await;
    let asked = process.hear_of("tools/call").await;
    world.bridge.drain(None);
    other.send(&call(2)).await;
    process.answer(&asked, &json!({}));
    assert_eq!(client.answer().await.1["id"], 1);
    let Said::Drained(run) = world.word("Drained").await.what else { panic!("drained") };
    assert_eq!(run, process.run);

    process.die();
    let mut next = world.attach(None);
    next.open().await;
    let asked = next.hear_of("tools/call").await;
    next.answer(&asked, &json!({}));
    assert_eq!(other.answer().await.1["id"], 2);
}

#[tokio::test]
async fn a_process_that_answers_nothing_is_called_sick_and_one_that_answers_is_not() {
    let health = Health { every: Duration::from_secs(30), timeout: Duration::from_secs(10) };
    let (mut world, mut process) = up(Stdio { health: Some(health), ..legacy() }).await;
    let line = world.bridge.at(None).unwrap();
    line.turn(|state, now| state.tick(now + Duration::from_secs(31)));
    let asked = process.hear_of("ping").await;
    process.answer(&asked, &json!({}));
    world.word("Healthy").await;

    line.turn(|state, now| state.tick(now + Duration::from_secs(31)));
    process.hear_of("ping").await;
    line.turn(|state, now| state.tick(now + Duration::from_secs(42)));
    let Said::Sick(run, why) = world.word("Sick").await.what else { panic!("sick") };
    assert_eq!((run, why.as_str()), (process.run, "did not answer a health check for 10s"));
}

#[tokio::test]
async fn a_session_of_an_earlier_daemon_is_known() {
    let mut world = world_with(limits(), legacy());
    let record = SessionRecord {
        id: "0123456789abcdef0123456789abcdef".to_owned(),
        version: VERSION.to_owned(),
        initialize: json!({"protocolVersion": VERSION, "capabilities": {}, "clientInfo": {"name": "c", "version": "1"}})
            .to_string(),
        level: None,
        subscriptions: Vec::new(),
    };
    let id = record.id.clone();
    world.bridge.restore(SessionName::new(7), record);
    let mut process = world.attach(None);
    process.open().await;
    let mut client = world.client().await;
    client.session = Some(id);
    client.send(&call(1)).await;
    let asked = process.hear_of("tools/call").await;
    process.answer(&asked, &json!({}));
    assert_eq!(client.answer().await.1["id"], 1);
}
