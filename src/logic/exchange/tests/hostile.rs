//! What one client, or the process itself, does to the other clients of a process.

use super::super::calls::MAX_WAITING;
use super::super::parks::PARKED;
use super::super::turns::{PATIENCE, TURN};
use super::*;

const ASKS: &str = r#"{"jsonrpc":"2.0","id":"q","method":"elicitation/create","params":{}}"#;

/// A process that was seen to ask, and a client of it whose call is in flight.
fn asking() -> (Stage, SessionKey, StreamKey, Value) {
    let mut stage = Stage::legacy();
    let a = stage.client("a", r#"{"elicitation":{}}"#);
    let stream = stage.call(a, "1", "tools/call");
    stage.exchange.turns.asks_back = true;
    let asked = stage.take_sent();
    (stage, a, stream, asked)
}

fn expire(stage: &mut Stage) {
    let at = stage.exchange.deadline().expect("something is to come");
    stage.now = stage.now.max(at);
    stage.exchange.expire(stage.now);
}

#[test]
fn what_a_client_writes_for_a_call_of_its_own_is_never_read_as_anothers() {
    let mut stage = Stage::legacy();
    let (a, b) = (stage.client("a", "{}"), stage.client("b", "{}"));
    stage.call(b, "1", "tools/call");
    let theirs = stage.take_sent()["id"].to_string();
    let long = format!("{theirs}.{}", "0".repeat(1100));
    for meta in [
        format!(r#""_meta":{{"progressToken":{long}}}"#),
        format!(r#""_meta":{{"progressToken":[{theirs}]}}"#),
        format!(r#""_meta":{{"progressToken":7,"ProgressToken":{theirs}}}"#),
        format!(r#""_meta":{{"progre\u017f\u017fTo\u212aen":{theirs}}}"#),
        format!(r#""_Meta":{{"progressToken":{theirs}}}"#),
    ] {
        for from in [From::Session(a), From::Modern] {
            let body =
                format!(r#"{{"jsonrpc":"2.0","id":5,"method":"tools/call","params":{{"name":"t",{meta}}}}}"#);
            let stream = stage.stream(from, &body);
            stage.nothing_sent();
            let (text, last, status) = stage.raw(stream).expect("refused at once");
            assert!(last && status == 400 && text.contains("-32602"), "{meta}: {text}");
        }
    }
    let none = r#"{"jsonrpc":"2.0","id":5,"method":"tools/call","params":{"_meta":{"progressToken":null}}}"#;
    stage.stream(From::Session(a), none);
    assert_eq!(stage.take_sent()["params"]["_meta"]["progressToken"], Value::Null);

    let cancel = |more: &str| {
        format!(r#"{{"jsonrpc":"2.0","method":"notifications/cancelled","params":{{"requestId":5{more}}}}}"#)
    };
    for more in [format!(r#","RequestId":{theirs}"#), format!(r#","reque\u017ftid":{theirs}"#)] {
        stage.post(From::Session(a), &cancel(&more));
        stage.nothing_sent();
    }
    stage.post(From::Session(a), &cancel(&format!(r#","request_id":{theirs},"reason":"r""#)));
    let params = stage.take_sent()["params"].clone();
    assert_eq!(params.as_object().unwrap().keys().collect::<Vec<_>>(), ["reason", "requestId"]);
    assert_ne!(params["requestId"].to_string(), theirs);
}

#[test]
fn what_is_a_request_without_an_id_or_a_notification_with_one_reaches_no_process() {
    for mut stage in [Stage::legacy(), Stage::modern()] {
        let a = stage.client("a", "{}");
        stage.settle();
        stage.sent.clear();
        for from in [From::Session(a), From::Modern] {
            for (id, method) in [
                ("", "tools/call"),
                ("", "initialize"),
                ("", "logging/setLevel"),
                ("", "resources/unsubscribe"),
                ("", "Notifications/cancelled"),
                ("", "com.example/ask"),
                ("", "notifications/Cancelled"),
                ("", "notifications/cancelled\\u0000"),
                ("", "notifications//cancelled"),
                ("", "notifications/../tools/call"),
                ("", "notifications/x"),
                ("\"id\":5,", " Notifications/cancelled"),
                ("\"id\":5,", "notifications/cancelled"),
                ("\"id\":5,", "notifications/progress"),
            ] {
                let body = format!(
                    r#"{{"jsonrpc":"2.0",{id}"method":"{method}","params":{{"requestId":2,"_meta":{{"progressToken":2}}}}}}"#
                );
                match stage.post(from, &body) {
                    Posted::Stream(stream) => {
                        let (text, last, status) = stage.raw(stream).expect("refused at once");
                        assert!(!id.is_empty() && last && status == 400, "{text}");
                    }
                    posted @ (Posted::Accepted | Posted::Refused(_)) => {
                        assert!(id.is_empty() && posted == Posted::Accepted, "{posted:?}");
                    }
                }
                stage.nothing_sent();
            }
        }
        let mine = r#"{"jsonrpc":"2.0","method":"notifications/com.example/x-1","params":{"a":1}}"#;
        stage.post(From::Session(a), mine);
        if stage.exchange.server.as_ref().is_some_and(|server| !server.is_modern) {
            assert_eq!(stage.take_sent().method(), "notifications/com.example/x-1");
        }
        stage.nothing_sent();
    }
}

#[test]
fn a_call_that_is_never_answered_holds_the_others_up_for_a_while_only() {
    let (mut stage, _, stream, stuck) = asking();
    let b = stage.client("b", r#"{"elicitation":{}}"#);
    stage.exchange.dropped(stream, stage.now);
    let waits = stage.call(b, "1", "tools/call");
    stage.nothing_sent();
    let progress = |stage: &mut Stage| {
        stage.line(&format!(
            r#"{{"jsonrpc":"2.0","method":"notifications/progress","params":{{"progressToken":{}}}}}"#,
            stuck["id"]
        ));
    };
    // While something is heard of it, it is its turn.
    stage.now = stage.now + TURN / 2;
    progress(&mut stage);
    let began = stage.now;
    expire(&mut stage);
    assert_eq!(stage.now, began + TURN);
    let asked = stage.take_sent();
    assert_eq!(asked.method(), "tools/call");

    // Whose a question is cannot be told until the one that was given up is answered.
    stage.line(ASKS);
    assert!(stage.take_sent().get("error").is_some());
    stage.answer(&stuck, "{}");
    stage.line(ASKS);
    assert_eq!(stage.next(waits).method(), "elicitation/create");
    stage.answer(&asked, "{}");
    assert!(stage.next(waits).get("result").is_some());
}

#[test]
fn a_client_that_is_asked_something_may_take_longer_and_who_waits_too_long_hears_why() {
    let (mut stage, a, _, _) = asking();
    let b = stage.client("b", "{}");
    let began = stage.now;
    stage.line(ASKS);
    let first = stage.call(b, "1", "tools/call");
    expire(&mut stage);
    assert_eq!(stage.now, began + PARKED);
    assert_eq!(stage.take_sent().method(), "tools/call");

    // Two that hold it by turns, and one that comes never.
    let c = stage.client("c", "{}");
    let last = stage.call(c, "1", "tools/call");
    let waits_since = stage.now;
    let wire = stage.exchange.turns.newest(super::super::turns::Owner::Session(b)).unwrap();
    while stage.now < waits_since + PATIENCE {
        stage.line(&format!(
            r#"{{"jsonrpc":"2.0","method":"notifications/progress","params":{{"progressToken":{wire}}}}}"#
        ));
        stage.now = stage.now + TURN / 2;
        stage.exchange.expire(stage.now);
    }
    let refused = stage.next(last);
    assert!(refused["error"]["message"].as_str().unwrap().contains("was not sent"), "{refused}");
    stage.nothing_sent();
    assert!(stage.raw(first).is_some(), "its progress");
    for session in [a, b, c] {
        stage.exchange.end_session(session);
    }
}

#[test]
fn one_client_leaves_room_in_the_table_for_others_whatever_it_cancels() {
    let mut stage = Stage::legacy();
    let (a, b) = (stage.client("a", "{}"), stage.client("b", "{}"));
    let mut taken = 0;
    loop {
        let stream = stage.call(a, &taken.to_string(), "tools/list");
        if stage.raw(stream).is_some_and(|(text, _, status)| status == 503 && text.contains("too many calls"))
        {
            break;
        }
        taken += 1;
        if taken % 2 == 0 {
            let id = taken - 1;
            stage.post(
                From::Session(a),
                &format!(
                    r#"{{"jsonrpc":"2.0","method":"notifications/cancelled","params":{{"requestId":{id}}}}}"#
                ),
            );
        }
        stage.exchange.deeds();
    }
    assert_eq!(taken, 10_923);
    for id in 0..1000 {
        let stream = stage.call(b, &id.to_string(), "tools/list");
        assert!(stage.raw(stream).is_none(), "{id} is refused");
    }
    assert!(stage.exchange.calls.len() < MAX_CALLS);
    stage.exchange.end_session(a);
    stage.exchange.end_session(b);
    stage.now = stage.now + Duration::from_secs(60);
    stage.exchange.expire(stage.now);
    stage.is_empty();
}

#[test]
fn subscriptions_are_short_and_bounded_for_all_sessions_together() {
    let mut stage = Stage::new(Settings { max_sessions: 64, ..settings() });
    stage.attach_legacy();
    let subscribe = |id: usize, uri: &str| {
        format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"resources/subscribe","params":{{"uri":"{uri}"}}}}"#)
    };
    let mut refused = 0;
    let sessions: Vec<SessionKey> = (0..8).map(|n| stage.client(&n.to_string(), "{}")).collect();
    for (id, session) in sessions.iter().flat_map(|session| (0..256).map(move |id| (id, session))) {
        let uri = format!("{id}{}", "u".repeat(4000));
        let stream = stage.stream(From::Session(*session), &subscribe(id, &uri));
        refused += usize::from(stage.raw(stream).is_some());
        stage.settle();
        while let Some(asked) = stage.sent.pop() {
            stage.answer(&asked, "{}");
        }
    }
    assert!(refused > 800, "{refused}");
    assert!(stage.exchange.listens.wants.bytes() <= 4 << 20);
    let stream = stage.stream(From::Session(sessions[7]), &subscribe(1000, &"u".repeat(5000)));
    assert!(stage.raw(stream).is_some_and(|(text, ..)| text.contains("too long a URI")));
    stage.nothing_sent();
    for session in sessions {
        stage.exchange.end_session(session);
    }
    stage.exchange.lost(stage.now);
    stage.is_empty();
}

#[test]
fn a_modern_process_hears_once_of_all_that_one_message_subscribed_to() {
    let mut stage = Stage::modern();
    let a = stage.client("a", "{}");
    stage.settle();
    stage.sent.clear();
    let all: Vec<String> = (0..64)
        .map(|n| {
            format!(
                r#"{{"jsonrpc":"2.0","id":{n},"method":"resources/subscribe","params":{{"uri":"x:{n}"}}}}"#
            )
        })
        .collect();
    stage.stream(From::Session(a), &format!("[{}]", all.join(",")));
    let listen = stage.take_sent();
    assert_eq!(listen["params"]["notifications"]["resourceSubscriptions"].as_array().unwrap().len(), 64);
    assert_eq!(stage.take_sent().method(), "notifications/cancelled", "the one before it");
    stage.nothing_sent();
}

#[test]
fn what_is_said_to_all_sessions_at_once_is_short_and_not_said_twice() {
    let mut stage = Stage::legacy();
    let streams: Vec<StreamKey> = (0..10)
        .map(|n| {
            let session = stage.client(&n.to_string(), "{}");
            stage.exchange.listen(session, stage.now)
        })
        .collect();
    let padding = "x".repeat(1 << 20);
    for _ in 0..3 {
        stage.line(&format!(
            r#"{{"jsonrpc":"2.0","method":"notifications/tools/list_changed","params":{{"x":"{padding}"}}}}"#
        ));
    }
    assert!(stage.exchange.kept() < 1000, "{}", stage.exchange.kept());
    for stream in streams {
        assert_eq!(stage.next(stream).method(), "notifications/tools/list_changed");
        assert_eq!(stage.raw(stream), None);
    }
}

#[test]
fn the_names_of_what_a_process_asks_count_as_what_is_kept() {
    let mut stage = Stage::modern();
    let a = stage.client("a", r#"{"elicitation":{}}"#);
    stage.settle();
    stage.sent.clear();
    let name = "n".repeat(8 << 20);
    let mut kept = 0;
    for id in 0..10 {
        let stream = stage.call(a, &id.to_string(), "tools/call");
        let asked = stage.take_sent();
        stage.answer(&asked, &format!(
            r#"{{"resultType":"input_required","inputRequests":{{"{name}":{{"method":"elicitation/create"}}}}}}"#
        ));
        kept += usize::from(stage.next(stream).method() == "elicitation/create");
        assert!(stage.exchange.waiting <= MAX_WAITING);
    }
    assert_eq!(kept, 3);
    stage.exchange.end_session(a);
    stage.exchange.lost(stage.now);
    stage.is_empty();
}

#[test]
fn who_got_only_the_beginning_of_the_first_message_gets_it_again() {
    let mut stage = Stage::legacy();
    let a = stage.client("a", "{}");
    let stream = stage.call(a, "1", "tools/call");
    let asked = stage.take_sent();
    stage.line(&format!(
        r#"{{"jsonrpc":"2.0","method":"notifications/progress","params":{{"progressToken":{}}}}}"#,
        asked["id"]
    ));
    let Next::Message { id: Some(id), message: first, .. } = stage.exchange.next(stream) else {
        panic!("progress")
    };
    let prime = stage.exchange.prime(stream).unwrap();
    assert_ne!(prime, id);
    stage.exchange.dropped(stream, stage.now);
    let again = stage.exchange.resume(a, &prime, stage.now).unwrap();
    let Next::Message { message, .. } = stage.exchange.next(again) else { panic!("again") };
    assert_eq!(message, first);
}
