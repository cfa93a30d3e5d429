//! A legacy process.

use super::*;

#[test]
fn two_clients_with_the_same_ids_and_tokens_get_each_their_own() {
    let mut stage = Stage::legacy();
    let (a, b) = (stage.client("a", "{}"), stage.client("b", "{}"));
    let text = r#"{ "id" : 1.0, "jsonrpc":"2.0","method":"tools/call","params":{"z":1.50,"_meta":{"progressToken":"t\u0041"},"a":[]} ,"extra":null}"#;
    let (of_a, of_b) = (stage.stream(From::Session(a), text), stage.stream(From::Session(b), text));
    let (to_a, to_b) = (stage.take_sent(), stage.take_sent());
    let ours = to_a["id"].as_u64().unwrap();
    let expected = text.replace("1.0", &ours.to_string()).replace(r#""t\u0041""#, &ours.to_string());
    assert_eq!(to_a, serde_json::from_str::<Value>(&expected).unwrap());
    assert_ne!(to_a["id"], to_b["id"]);
    stage.line(&format!(
        r#"{{"jsonrpc":"2.0","method":"notifications/progress","params":{{"progress":1e0,"progressToken":{}}}}}"#,
        to_b["id"]
    ));
    assert_eq!(stage.raw(of_a), None);
    let expected = r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progress":1e0,"progressToken":"t\u0041"}}"#;
    assert_eq!(stage.raw(of_b).unwrap(), (expected.to_owned(), false, 200));
    stage.line(&format!(r#"{{"result":{{ "b":0.10 }},"id":{},"jsonrpc":"2.0" }}"#, to_b["id"]));
    let expected = r#"{"result":{ "b":0.10 },"id":1.0,"jsonrpc":"2.0" }"#;
    assert_eq!(stage.raw(of_b).unwrap(), (expected.to_owned(), true, 200));
    stage.answer(&to_a, r#""a""#);
    assert_eq!(stage.next(of_a)["result"], "a");
    stage.answer(&to_a, r#""twice""#);
    assert_eq!(stage.exchange.counts().unclaimed, 1);
    stage.exchange.end_session(a);
    stage.exchange.end_session(b);
    stage.is_empty();
}

#[test]
fn initialize_is_answered_in_the_revision_that_both_speak() {
    let mut stage = Stage::legacy();
    for (wanted, given) in
        [("2025-03-26", "2025-03-26"), ("2025-11-25", "2025-06-18"), ("2099-01-01", "2025-06-18")]
    {
        let body = format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"initialize","params":{{"protocolVersion":"{wanted}","capabilities":{{}}}}}}"#
        );
        let (key, stream) = stage.exchange.initialize(wanted.to_owned(), body.as_bytes(), stage.now).unwrap();
        let (text, last, _) = stage.raw(stream).unwrap();
        assert!(last && text.contains(r#""x":1.50"#), "{text}");
        let answer: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(answer["result"]["protocolVersion"], given);
        assert_eq!(stage.exchange.version(key), Some(given));
    }
}

#[test]
fn an_id_in_use_is_refused_and_free_again_when_it_was_answered() {
    let mut stage = Stage::legacy();
    let a = stage.client("a", "{}");
    let stream = stage.call(a, r#""x""#, "tools/list");
    let again = r#"{"jsonrpc":"2.0","id":"\u0078","method":"ping"}"#;
    assert!(matches!(stage.post(From::Session(a), again), Posted::Refused(refused) if refused.status == 400));
    let asked = stage.take_sent();
    stage.answer(&asked, "{}");
    stage.next(stream);
    stage.stream(From::Session(a), again);
}

#[test]
fn a_batch_is_for_2025_03_26_and_all_its_answers_come_on_one_stream() {
    let mut stage = Stage::legacy();
    let a = stage.client("a", "{}");
    let batch = r#"[{"jsonrpc":"2.0","id":1,"method":"a"},{"jsonrpc":"2.0","method":"notifications/b"},{"jsonrpc":"2.0","id":2,"method":"c"}]"#;
    let stream = stage.stream(From::Session(a), batch);
    let (one, _, two) = (stage.take_sent(), stage.take_sent(), stage.take_sent());
    stage.answer(&two, "2");
    stage.answer(&one, "1");
    assert_eq!(stage.raw(stream).map(|(_, last, _)| last), Some(false));
    assert_eq!(stage.raw(stream).map(|(_, last, _)| last), Some(true));
    stage.exchange.sessions.get_mut(&a).unwrap().record.version = "2025-06-18".to_owned();
    assert!(matches!(stage.post(From::Session(a), batch), Posted::Refused(refused) if refused.status == 400));
}

#[test]
fn a_question_goes_to_the_only_session_that_can_be_meant_and_its_answer_back() {
    let mut stage = Stage::legacy();
    let (a, b) = (stage.client("a", r#"{"elicitation":{}}"#), stage.client("b", "{}"));
    let question = r#"{"jsonrpc":"2.0","id":"q","method":"elicitation/create","params":{}}"#;
    stage.line(question);
    assert_eq!(stage.take_sent()["error"]["code"], -32601, "nobody is there to be asked");
    let stream = stage.call(a, "1", "tools/call");
    let asked = stage.take_sent();
    stage.line(question);
    let question = stage.next(stream);
    assert_eq!((question.method(), question["id"].is_u64()), ("elicitation/create", true));
    let reply = format!(r#"{{"jsonrpc":"2.0","id":{},"result":{{"action":"accept"}}}}"#, question["id"]);
    assert_eq!(stage.post(From::Session(b), &reply), Posted::Accepted);
    stage.nothing_sent();
    assert_eq!(stage.post(From::Session(a), &reply), Posted::Accepted);
    assert_eq!(stage.take_sent(), json!({"jsonrpc": "2.0", "id": "q", "result": {"action": "accept"}}));
    assert_eq!(stage.post(From::Session(a), &reply), Posted::Accepted);
    stage.nothing_sent();
    stage.answer(&asked, "{}");
}

#[test]
fn sessions_take_turns_once_the_process_asked_while_several_could_be_meant() {
    let mut stage = Stage::legacy();
    let can = r#"{"sampling":{}}"#;
    let (a, b) = (stage.client("a", can), stage.client("b", can));
    let question = r#"{"jsonrpc":"2.0","id":7,"method":"sampling/createMessage","params":{}}"#;
    let streams = [stage.call(a, "1", "tools/call"), stage.call(b, "1", "tools/call")];
    let (to_a, to_b) = (stage.take_sent(), stage.take_sent());
    stage.line(question);
    assert_eq!(stage.take_sent()["error"]["code"], -32603);
    assert_eq!(stage.exchange.counts().ambiguous, 1);
    assert_eq!((stage.raw(streams[0]), stage.raw(streams[1])), (None, None));
    let later = [
        stage.call(b, "2", "tools/call"),
        stage.call(a, "2", "tools/call"),
        stage.call(b, "3", "prompts/get"),
    ];
    let free = stage.call(a, "4", "tools/list");
    assert_eq!(stage.take_sent().method(), "tools/list");
    stage.nothing_sent();
    stage.answer(&to_a, "{}");
    stage.nothing_sent();
    stage.answer(&to_b, "{}");
    let (two, three) = (stage.take_sent(), stage.take_sent());
    assert_eq!((two.method(), three.method()), ("tools/call", "prompts/get"), "all of b");
    stage.nothing_sent();
    stage.line(question);
    let asked = stage.next(later[2]);
    assert_eq!(asked.method(), "sampling/createMessage");
    assert!(stage.raw(later[1]).is_none() && stage.raw(free).is_none(), "not to the other");
    stage.answer(&two, "{}");
    stage.nothing_sent();
    stage.answer(&three, "{}");
    assert_eq!(stage.take_sent().method(), "tools/call");
}

#[test]
fn what_is_in_flight_when_the_process_ends_is_answered_at_once_and_the_rest_waits() {
    let mut stage = Stage::legacy();
    let a = stage.client("a", "{}");
    let get = stage.exchange.listen(a, stage.now);
    let stream = stage.call(a, "1", "tools/call");
    assert_eq!(stage.take_sent().method(), "tools/call");
    stage.exchange.drain();
    let waits = stage.call(a, "2", "tools/call");
    stage.nothing_sent();
    assert_eq!((stage.exchange.in_flight(), stage.exchange.is_open()), (1, false));
    stage.exchange.lost(stage.now);
    let answer = stage.next(stream);
    assert_eq!((&answer["id"], &answer["error"]["code"]), (&json!(1), &json!(-32000)));
    assert_eq!(stage.raw(waits), None);
    stage.attach_legacy();
    let asked = stage.take_sent();
    assert_eq!(asked.method(), "tools/call");
    stage.answer(&asked, "{}");
    assert_eq!(stage.next(waits)["id"], 2);
    let changed = [stage.next(get), stage.next(get)];
    assert_eq!(
        changed.map(|message| message.method().to_owned()),
        ["notifications/tools/list_changed", "notifications/resources/list_changed"]
    );
}

#[test]
fn a_dropped_connection_cancels_nothing_and_what_came_is_taken_up_behind_the_last_event() {
    let mut stage = Stage::legacy();
    let (a, b) = (stage.client("a", "{}"), stage.client("b", "{}"));
    let stream = stage.call(a, "1", "tools/call");
    let asked = stage.take_sent();
    let id = stage.exchange.prime(stream).unwrap();
    stage.exchange.dropped(stream, stage.now);
    stage.nothing_sent();
    stage.answer(&asked, r#""late""#);
    assert_eq!(stage.exchange.resume(b, &id, stage.now), None);
    for odd in ["", "1", "x-1", "1-x", "99-0", "-", "1-99999999999999999999"] {
        assert_eq!(stage.exchange.resume(a, odd, stage.now), None, "{odd}");
    }
    for _ in 0..2 {
        let again = stage.exchange.resume(a, &id, stage.now).unwrap();
        assert_eq!(stage.exchange.next(stream), Next::End);
        let Next::Message { id: event, message, last, .. } = stage.exchange.next(again) else { panic!() };
        assert!(last && String::from_utf8(message).unwrap().contains("late"));
        assert_ne!(event.as_deref(), Some(&*id));
        stage.exchange.dropped(again, stage.now);
    }
    stage.exchange.end_session(a);
    stage.exchange.end_session(b);
    stage.is_empty();
}

#[test]
fn what_nobody_can_come_back_for_is_not_kept() {
    let mut stage = Stage::legacy();
    let a = stage.client("a", "{}");
    for id in 0..1000 {
        let stream = stage.call(a, &id.to_string(), "tools/call");
        let asked = stage.take_sent();
        if id % 2 == 0 {
            stage.exchange.dropped(stream, stage.now);
        } else {
            stage.exchange.prime(stream);
        }
        stage.answer(&asked, &format!("\"{}\"", "x".repeat(1000)));
        if id % 2 == 1 {
            stage.next(stream);
        }
    }
    let (streams, shelves) = stage.exchange.streams.size();
    assert!(streams <= super::super::bounds::MAX_ENDED + 1 && shelves == 1, "{streams}");
}

#[test]
fn a_client_that_cancels_is_heard_and_what_comes_after_it_is_nobodys() {
    let mut stage = Stage::legacy();
    let (a, b) = (stage.client("a", r#"{"elicitation":{}}"#), stage.client("b", r#"{"elicitation":{}}"#));
    let stream = stage.call(a, r#""x""#, "tools/call");
    let asked = stage.take_sent();
    let cancel =
        r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":"x","reason":"r"}}"#;
    assert_eq!(stage.post(From::Session(b), cancel), Posted::Accepted);
    stage.nothing_sent();
    stage.post(From::Session(a), cancel);
    assert_eq!(stage.take_sent()["params"], json!({"requestId": asked["id"], "reason": "r"}));
    assert_eq!(stage.exchange.next(stream), Next::End);
    // It may still make the process ask, and then it is not b who is asked.
    stage.call(b, "1", "tools/call");
    let other = stage.take_sent();
    stage.line(r#"{"jsonrpc":"2.0","id":7,"method":"elicitation/create","params":{}}"#);
    assert_eq!(stage.take_sent()["error"]["code"], -32603);
    stage.answer(&asked, "{}");
    stage.answer(&other, "{}");
    assert_eq!((stage.exchange.counts().unclaimed, stage.exchange.calls.len()), (1, 0));
}

#[test]
fn a_cancelled_call_that_makes_nobody_ask_is_in_nobodys_way() {
    let mut stage = Stage::legacy();
    let (a, b) = (stage.client("a", r#"{"elicitation":{}}"#), stage.client("b", r#"{"elicitation":{}}"#));
    stage.call(a, "1", "tools/list");
    stage.exchange.end_session(a);
    assert_eq!(
        (stage.take_sent().method(), stage.take_sent().method()),
        ("tools/list", "notifications/cancelled")
    );
    let stream = stage.call(b, "1", "tools/call");
    let other = stage.take_sent();
    stage.line(r#"{"jsonrpc":"2.0","id":7,"method":"elicitation/create","params":{}}"#);
    stage.nothing_sent();
    assert_eq!(stage.next(stream).method(), "elicitation/create");
    stage.answer(&other, "{}");
}

#[test]
fn subscriptions_are_the_sessions_own_and_the_process_hears_of_the_first_and_the_last() {
    let mut stage = Stage::legacy();
    let (a, b) = (stage.client("a", "{}"), stage.client("b", "{}"));
    let body = |method: &str| {
        format!(r#"{{"jsonrpc":"2.0","id":1,"method":"resources/{method}","params":{{"uri":"x://y"}}}}"#)
    };
    for key in [a, b] {
        let stream = stage.stream(From::Session(key), &body("subscribe"));
        let asked = stage.take_sent();
        stage.answer(&asked, "{}");
        stage.next(stream);
    }
    let get = stage.exchange.listen(b, stage.now);
    let updated = r#"{"jsonrpc":"2.0","method":"notifications/resources/updated","params":{"uri":"x://y"}}"#;
    stage.line(updated);
    assert_eq!(stage.next(get).method(), "notifications/resources/updated");
    stage.stream(From::Session(b), &body("unsubscribe"));
    stage.nothing_sent();
    stage.line(updated);
    assert_eq!(stage.raw(get), None);
    stage.exchange.end_session(a);
    assert_eq!(stage.take_sent().method(), "resources/unsubscribe");
}

#[test]
fn each_session_hears_log_messages_from_its_own_level_on() {
    let mut stage = Stage::legacy();
    let (a, b) = (stage.client("a", "{}"), stage.client("b", "{}"));
    let set = |level: &str| {
        format!(r#"{{"jsonrpc":"2.0","id":1,"method":"logging/setLevel","params":{{"level":"{level}"}}}}"#)
    };
    for (key, level, sent) in [(a, "warning", true), (b, "info", true), (a, "error", false)] {
        let stream = stage.stream(From::Session(key), &set(level));
        if sent {
            let asked = stage.take_sent();
            assert_eq!(asked["params"]["level"], level);
            stage.answer(&asked, "{}");
        }
        stage.nothing_sent();
        assert_eq!(stage.next(stream)["result"], json!({}));
    }
    let (of_a, of_b) = (stage.exchange.listen(a, stage.now), stage.exchange.listen(b, stage.now));
    stage.line(r#"{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"warning","data":1}}"#);
    assert_eq!(stage.raw(of_a), None);
    assert!(stage.raw(of_b).is_some());
}

#[test]
fn a_session_that_says_again_what_is_known_did_not_change() {
    let mut stage = Stage::legacy();
    let a = stage.client("a", "{}");
    stage.settle();
    let bodies = [
        r#"{"jsonrpc":"2.0","id":1,"method":"logging/setLevel","params":{"level":"info"}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"resources/subscribe","params":{"uri":"x://y"}}"#,
    ];
    for (body, changes) in bodies.iter().flat_map(|body| [(body, true), (body, false)]) {
        stage.deeds.clear();
        stage.stream(From::Session(a), body);
        stage.settle();
        while let Some(asked) = stage.sent.pop() {
            stage.answer(&asked, "{}");
        }
        stage.settle();
        assert_eq!(stage.deeds.contains(&Deed::Remember(a)), changes, "{body}");
    }
    assert_eq!(stage.exchange.record(a).unwrap().level.as_deref(), Some("info"));
}

#[test]
fn the_session_that_is_idle_longest_makes_room_and_the_idle_go_in_time() {
    let mut stage = Stage::new(Settings { max_sessions: 2, ..settings() });
    stage.attach_legacy();
    let a = stage.client("a", "{}");
    stage.exchange.listen(a, stage.now);
    stage.now = stage.now + Duration::from_secs(1);
    let b = stage.client("b", "{}");
    let c = stage.client("c", "{}");
    assert_eq!((stage.exchange.session("a"), stage.exchange.session("b")), (Some(a), None));
    assert_eq!(stage.exchange.version(b), None);
    stage.settle();
    assert!(stage.deeds.contains(&Deed::Forget("b".to_owned())));
    let at = stage.exchange.deadline().unwrap();
    assert_eq!(at, stage.now + Duration::from_secs(3600));
    stage.exchange.expire(at);
    assert_eq!((stage.exchange.version(c), stage.exchange.sessions()), (None, 1));
    assert_eq!(stage.exchange.deadline(), None, "one that listens is not idle");
}

#[test]
fn ten_thousand_calls_in_flight_are_each_answered_once_when_the_process_is_killed() {
    let mut stage = Stage::legacy();
    let sessions: Vec<SessionKey> = (0..10).map(|n| stage.client(&n.to_string(), "{}")).collect();
    let mut streams = Vec::new();
    for n in 0..10_000 {
        streams.push(stage.call(sessions[n % 10], &(n / 10).to_string(), "tools/call"));
    }
    stage.settle();
    assert_eq!((stage.sent.len(), stage.exchange.in_flight()), (10_000, 10_000));
    let asked = std::mem::take(&mut stage.sent);
    for one in &asked[..100] {
        stage.answer(one, "{}");
    }
    stage.exchange.lost(stage.now);
    for one in &asked {
        stage.answer(one, "{}");
    }
    for (n, stream) in streams.into_iter().enumerate() {
        let (text, last, _) = stage.raw(stream).expect("answered");
        let answer: Value = serde_json::from_str(&text).unwrap();
        assert_eq!((answer["id"].as_u64(), last), (Some(n as u64 / 10), true));
        assert_eq!(answer.get("error").is_some(), n >= 100);
        assert_eq!(stage.exchange.next(stream), Next::End, "twice");
    }
    for session in sessions {
        stage.exchange.end_session(session);
    }
    stage.is_empty();
}

#[test]
fn an_isolated_process_is_opened_by_its_client_and_again_after_it_ended() {
    let mut stage = Stage::new(Settings { isolated: true, modern: Some(false), ..settings() });
    stage.exchange.attach(100, None, stage.now);
    stage.nothing_sent();
    let (key, stream) = stage.begin("a", r#"{"roots":{}}"#);
    let asked = stage.take_sent();
    assert_eq!((asked.method(), &asked["params"]["clientInfo"]["name"]), ("initialize", &json!("a")));
    let result =
        r#"{"protocolVersion":"2025-03-26","capabilities":{"tools":{"listChanged":true}},"serverInfo":{}}"#;
    stage.answer(&asked, result);
    assert_eq!(stage.next(stream)["id"], "i");
    assert!(stage.exchange.is_open());
    stage.post(From::Session(key), r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#);
    assert_eq!(stage.take_sent().method(), "notifications/initialized");
    stage.line(r#"{"jsonrpc":"2.0","id":1,"method":"roots/list"}"#);
    let get = stage.exchange.listen(key, stage.now);
    assert_eq!(stage.next(get).method(), "roots/list", "there is only one to be asked");
    stage.exchange.lost(stage.now);
    stage.exchange.attach(9000, None, stage.now);
    let again = stage.take_sent();
    assert_eq!(again["params"], asked["params"]);
    stage.answer(&again, result);
    assert_eq!(stage.take_sent().method(), "notifications/initialized");
    assert_eq!(stage.next(get).method(), "notifications/tools/list_changed");
}

#[test]
fn the_client_of_an_isolated_process_that_says_late_that_it_is_modern_is_answered_all_the_same() {
    let mut stage = Stage::new(Settings { isolated: true, ..settings() });
    stage.exchange.attach(100, None, stage.now);
    let discover = stage.take_sent();
    let (key, stream) = stage.begin("a", "{}");
    stage.exchange.expire(stage.now + Duration::from_secs(3));
    let initialize = stage.take_sent();
    assert_eq!(initialize.method(), "initialize");
    stage.answer(&discover, r#"{"supportedVersions":["2026-07-28"],"capabilities":{"tools":{}}}"#);
    assert_eq!(stage.raw(stream), None, "it may speak both");
    stage.answer_error(&initialize, -32022);
    let answer = stage.next(stream);
    let expected = (&json!("i"), &json!("2025-03-26"));
    assert_eq!((&answer["id"], &answer["result"]["protocolVersion"]), expected);
    let stream = stage.call(key, "1", "tools/list");
    let asked = stage.take_sent();
    assert!(asked["params"]["_meta"]["io.modelcontextprotocol/protocolVersion"].is_string(), "{asked}");
    stage.answer(&asked, r#"{"tools":[]}"#);
    assert_eq!(stage.next(stream)["id"], 1);
    stage.exchange.end_session(key);
    stage.is_empty();
}
