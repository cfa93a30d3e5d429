//! What a user's clients and process can make us keep.

use super::super::bounds::{MAX_ALL, MAX_OWN, SMALL, TOO_MUCH};
use super::*;

const MEGABYTE: usize = 1 << 20;

fn text(bytes: usize) -> String {
    format!("\"{}\"", "x".repeat(bytes))
}

#[test]
fn what_clients_do_not_read_is_bounded_for_all_of_them_together() {
    let mut stage = Stage::legacy();
    let sessions: Vec<SessionKey> = (0..10).map(|n| stage.client(&n.to_string(), "{}")).collect();
    let mut calls = 0;
    let mut answer = |stage: &mut Stage, n: usize, bytes| {
        calls += 1;
        let id = calls.to_string();
        let stream = match n % 2 {
            0 => stage.call(sessions[n / 2 % 10], &id, "tools/call"),
            _ => stage.modern_call(&id, "tools/call", ""),
        };
        let asked = stage.take_sent();
        stage.answer(&asked, &text(bytes));
        stream
    };
    let large: Vec<StreamKey> = (0..20).map(|n| answer(&mut stage, n, 8 * MEGABYTE)).collect();
    let (fits, dropped) = large.split_at(MAX_ALL / (8 * MEGABYTE) - 1);
    for stream in dropped {
        let (text, last, _) = stage.raw(*stream).expect("answered");
        assert!(last && text.contains(TOO_MUCH) && text.contains("\"id\":"), "{text}");
    }
    for n in 0..20 {
        let stream = answer(&mut stage, n, SMALL / 2);
        assert!(stage.next(stream).get("result").is_some(), "small ones wait in any case");
    }

    // Taken is not read.
    let mut owed = 0;
    for stream in fits {
        owed += stage.raw(*stream).expect("answered").0.len();
    }
    stage.exchange.owe(owed);
    let stream = answer(&mut stage, 0, 8 * MEGABYTE);
    assert!(stage.raw(stream).unwrap().0.contains(TOO_MUCH));
    stage.exchange.owe(0);
    let stream = answer(&mut stage, 0, 8 * MEGABYTE);
    assert!(stage.next(stream).get("result").is_some());
    // One that is longer than all that is allowed passes alone.
    let stream = answer(&mut stage, 1, MAX_ALL + MEGABYTE);
    assert!(stage.next(stream).get("result").is_some());
    for session in sessions {
        stage.exchange.end_session(session);
    }
    stage.is_empty();
}

#[test]
fn what_a_process_announces_is_bounded_for_all_sessions_together() {
    let mut stage = Stage::new(Settings { max_sessions: 200, ..settings() });
    stage.attach_legacy();
    let streams: Vec<StreamKey> = (0..200)
        .map(|n| {
            let session = stage.client(&n.to_string(), "{}");
            stage.exchange.listen(session, stage.now)
        })
        .collect();
    for n in 0..12 {
        let padding = text(100_000);
        stage.line(&format!(
            r#"{{"jsonrpc":"2.0","method":"notifications/message","params":{{"n":{n},"x":{padding}}}}}"#
        ));
    }
    let mut bytes = 0;
    for stream in streams {
        while let Some((text, ..)) = stage.raw(stream) {
            bytes += text.len();
        }
    }
    assert!((MAX_ALL - MEGABYTE..=MAX_ALL).contains(&bytes), "{bytes}");
}

#[test]
fn calls_that_may_have_to_be_sent_again_are_bounded() {
    let mut stage = Stage::modern();
    let a = stage.client("a", "{}");
    let call = |stage: &mut Stage, id: usize| {
        let padding = text(10 * MEGABYTE);
        let body = format!(
            r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"name":"t","x":{padding}}}}}"#
        );
        stage.stream(From::Session(a), &body)
    };
    let taken: Vec<StreamKey> = (0..3).map(|id| call(&mut stage, id)).collect();
    let refused = call(&mut stage, 3);
    let (text, last, status) = stage.raw(refused).expect("answered at once");
    assert!(last && status == 503 && text.contains("too many calls wait"), "{text}");

    stage.settle();
    let asked: Vec<Value> = stage.sent.drain(..).filter(|sent| sent.method() == "tools/call").collect();
    assert_eq!(asked.len(), 3);
    for (asked, stream) in asked.iter().zip(taken) {
        stage.answer(asked, "{\"resultType\":\"complete\"}");
        assert!(stage.next(stream).get("result").is_some());
    }
    let again = call(&mut stage, 4);
    assert!(stage.raw(again).is_none(), "there is room again");
}

#[test]
fn what_a_process_never_answers_is_not_kept_for_ever() {
    let mut stage = Stage::legacy();
    for n in 0..2000 {
        let listen = format!(
            r#"{{"jsonrpc":"2.0","id":{n},"method":"subscriptions/listen","params":{{"_meta":{{}},"notifications":{{"resourceSubscriptions":["x://{n}"]}}}}}}"#
        );
        let stream = stage.stream(From::Modern, &listen);
        stage.exchange.dropped(stream, stage.now);
    }
    stage.settle();
    let asked: Vec<Value> = std::mem::take(&mut stage.sent);
    assert!(asked.len() > 2 * MAX_OWN);
    assert_eq!(stage.exchange.own.len(), MAX_OWN);
    for asked in asked {
        stage.answer(&asked, "{}");
    }
    assert_eq!(
        (stage.exchange.own.len(), stage.exchange.counts().unclaimed),
        (0, 0),
        "late is not to nobody"
    );
    for _ in 0..2 * MAX_OWN {
        stage.exchange.check_health();
    }
    assert_eq!(stage.exchange.own.len(), MAX_OWN);
}

#[test]
fn a_process_that_does_not_read_is_told_once_what_its_clients_want_to_hear_by_then() {
    let mut stage = Stage::new(Settings { max_sessions: 50, ..settings() });
    stage.attach_modern();
    let sessions: Vec<SessionKey> = (0..50).map(|n| stage.client(&n.to_string(), "{}")).collect();
    for (n, session) in sessions.iter().enumerate() {
        let body = format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"resources/subscribe","params":{{"uri":"x://{n}"}}}}"#
        );
        stage.stream(From::Session(*session), &body);
    }
    stage.settle();
    stage.sent.clear();
    stage.exchange.block(true);
    for session in &sessions[1..] {
        stage.exchange.end_session(*session);
        stage.nothing_sent();
    }
    stage.exchange.block(false);
    let wanted = &stage.take_sent()["params"]["notifications"]["resourceSubscriptions"];
    assert_eq!(wanted, &json!(["x://0"]));
}
