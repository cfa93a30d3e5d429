//! Sessions with a process each.

use super::*;

fn isolated() -> Stdio {
    Stdio { era: Era::Legacy, max_sessions: 2, ..Stdio::of(Sessions::Isolated) }
}

/// A session and its process.
async fn begin(world: &mut World) -> (Client, Process) {
    let mut client = world.client().await;
    client.send(&initialize(VERSION)).await;
    let slot = world.word("Wanted").await.slot;
    let mut process = world.attach(slot);
    process.open().await;
    let (head, body) = client.answer().await;
    assert_eq!((status(&head), &body["id"]), ("200", &"open".into()));
    client.session = Some(field(&head, "mcp-session-id").unwrap().to_owned());
    assert_eq!(status(&client.post(&notification("notifications/initialized")).await.0), "202");
    (client, process)
}

#[tokio::test]
async fn every_session_speaks_with_its_own_process() {
    let mut world = world_with(limits(), isolated());
    let (mut one, mut first) = begin(&mut world).await;
    let (mut two, mut second) = begin(&mut world).await;
    assert_ne!(first.slot, second.slot);
    one.send(&call(1)).await;
    two.send(&call(1)).await;
    for (process, name) in [(&mut first, "first"), (&mut second, "second")] {
        let asked = process.hear_of("tools/call").await;
        process.answer(&asked, &json!({"by": name}));
    }
    assert_eq!(one.answer().await.1["result"]["by"], "first");
    assert_eq!(two.answer().await.1["result"]["by"], "second");
}

#[tokio::test]
async fn one_session_too_many_ends_the_oldest() {
    let mut world = world_with(limits(), isolated());
    let (mut one, first) = begin(&mut world).await;
    let (mut two, mut second) = begin(&mut world).await;
    let (_three, _third) = begin(&mut world).await;

    let ended = world.word("Forget").await;
    assert_eq!(ended.slot, first.slot);
    assert_eq!(status(&one.post(&call(1)).await.0), "404");
    two.send(&call(1)).await;
    let asked = second.hear_of("tools/call").await;
    second.answer(&asked, &json!({}));
    assert_eq!(two.answer().await.1["id"], 1);
    assert_eq!(world.bridge.sessions(), 2);
}

#[tokio::test]
async fn a_session_that_is_just_beginning_ends_last_and_its_client_hears_of_it() {
    let mut world = world_with(limits(), isolated());
    let mut one = world.client().await;
    one.send(&initialize(VERSION)).await;
    let waiting = world.word("Wanted").await.slot;
    let (_two, second) = begin(&mut world).await;
    let mut three = world.client().await;
    three.send(&initialize(VERSION)).await;
    assert_eq!(world.word("Forget").await.slot, second.slot);

    let mut four = world.client().await;
    four.send(&initialize(VERSION)).await;
    assert_eq!(world.word("Abandoned").await.slot, waiting, "its process has served nobody");
    let (head, body) = one.answer().await;
    assert_eq!(status(&head), "503");
    assert!(body["error"]["message"].as_str().unwrap().contains("max_sessions"), "{body}");
    assert_eq!(world.bridge.lines().len(), 3);
}

#[tokio::test]
async fn a_session_whose_client_leaves_before_it_begins_is_given_up() {
    let mut world = world_with(limits(), isolated());
    let mut client = world.client().await;
    client.send(&initialize(VERSION)).await;
    let wanted = world.word("Wanted").await.slot;
    drop(client);
    assert_eq!(world.word("Abandoned").await.slot, wanted);

    let mut client = world.client().await;
    client.send(&initialize(VERSION)).await;
    let wanted = world.word("Wanted").await.slot;
    let mut process = world.attach(wanted);
    process.hear_of("initialize").await;
    drop(client);
    assert_eq!(world.word("Abandoned").await.slot, wanted);
    assert_eq!((world.bridge.sessions(), world.bridge.lines().len()), (0, 1));
}

#[tokio::test]
async fn a_process_that_refuses_to_begin_leaves_no_session() {
    let mut world = world_with(limits(), isolated());
    let mut client = world.client().await;
    client.send(&initialize(VERSION)).await;
    let slot = world.word("Wanted").await.slot;
    let mut process = world.attach(slot);
    let asked = process.hear_of("initialize").await;
    process.refuse(&asked, "no");

    let (head, body) = client.answer().await;
    assert_eq!((&body["error"]["message"], field(&head, "mcp-session-id")), (&"no".into(), None));
    assert_eq!(world.word("Abandoned").await.slot, slot);
    assert_eq!(world.bridge.lines().len(), 1);
}

#[tokio::test]
async fn a_deleted_session_leaves_no_line() {
    let mut world = world_with(limits(), isolated());
    let (mut client, process) = begin(&mut world).await;
    let head = client.head("DELETE");
    assert_eq!(status(&client.wires.ask(&format!("{head}\r\n")).await.0), "204");
    assert_eq!(world.word("Forget").await.slot, process.slot);
    assert_eq!(world.bridge.lines().len(), 1);
    assert_eq!(status(&client.post(&call(1)).await.0), "404");
}
