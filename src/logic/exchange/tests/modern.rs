//! A modern process, or a modern client.

use super::*;

const LEVEL: &str = r#","io.modelcontextprotocol/logLevel":"info""#;

#[test]
fn modern_clients_with_the_same_ids_get_each_their_own_from_a_modern_process() {
    let mut stage = Stage::modern();
    let streams = [stage.modern_call("1", "tools/call", ""), stage.modern_call("1", "tools/call", "")];
    let asked = [stage.take_sent(), stage.take_sent()];
    assert_eq!(asked[0]["id"], asked[0]["params"]["_meta"]["progressToken"]);
    assert_eq!(asked[0]["params"]["_meta"]["io.modelcontextprotocol/protocolVersion"], "2026-07-28");
    stage.line(&format!(
        r#"{{"jsonrpc":"2.0","method":"notifications/progress","params":{{"progressToken":{}}}}}"#,
        asked[1]["id"]
    ));
    assert_eq!(stage.raw(streams[0]), None);
    assert_eq!(stage.next(streams[1])["params"]["progressToken"], 1);
    stage.answer(&asked[0], r#"{"resultType":"complete","x":1}"#);
    assert_eq!(stage.next(streams[0])["result"]["x"], 1);
    stage.exchange.dropped(streams[1], stage.now);
    let cancelled = stage.take_sent();
    assert_eq!(
        (cancelled.method(), &cancelled["params"]["requestId"]),
        ("notifications/cancelled", &asked[1]["id"])
    );
    stage.answer(&asked[1], "{}");
    stage.is_empty();
}

#[test]
fn errors_of_a_process_have_the_status_of_2026_07_28() {
    let mut stage = Stage::modern();
    for (code, status) in [(-32601, 404), (-32021, 400), (-32602, 200)] {
        let stream = stage.modern_call("\"a\"", "x", "");
        let asked = stage.take_sent();
        stage.answer_error(&asked, code);
        assert_eq!(stage.raw(stream).map(|(_, last, status)| (last, status)), Some((true, status)));
    }
    for method in crate::logic::era::REMOVED {
        let stream = stage.modern_call("1", method, "");
        stage.nothing_sent();
        let (text, _, status) = stage.raw(stream).unwrap();
        assert!(status == 404 && text.contains("-32601"));
    }
}

#[test]
fn discover_says_what_the_door_serves() {
    for mut stage in [Stage::modern(), Stage::legacy()] {
        let stream = stage.modern_call("1", "server/discover", "");
        if stage.exchange.server.as_ref().unwrap().is_modern {
            let asked = stage.take_sent();
            stage.answer(&asked, r#"{"supportedVersions":["2026-07-28","2027-01-01"],"capabilities":{}}"#);
        }
        stage.nothing_sent();
        let result = &stage.next(stream)["result"];
        assert_eq!(result["supportedVersions"], json!(["2026-07-28"]));
        assert!(result["capabilities"].is_object());
    }
}

#[test]
fn a_modern_clients_call_is_put_into_the_terms_of_a_legacy_process_and_its_answer_back() {
    let mut stage = Stage::legacy();
    let stream = stage.modern_call("1", "tools/list", r#","traceparent":"t""#);
    let asked = stage.take_sent();
    assert_eq!(asked["params"]["_meta"], json!({"progressToken": asked["id"], "traceparent": "t"}));
    stage.answer(&asked, r#"{"tools":[]}"#);
    let expected = json!({"tools": [], "resultType": "complete", "ttlMs": 0, "cacheScope": "private"});
    assert_eq!(stage.next(stream)["result"], expected);
    let stream = stage.modern_call("1", "resources/read", "");
    let asked = stage.take_sent();
    stage.answer_error(&asked, -32002);
    assert_eq!(stage.next(stream)["error"]["code"], -32602);
    // Log messages come where they were asked for.
    let log = r#"{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":1}}"#;
    for (more, heard) in [("", false), (LEVEL, true)] {
        let stream = stage.modern_call("1", "tools/call", more);
        let asked = stage.take_sent();
        stage.line(log);
        assert_eq!(stage.raw(stream).is_some(), heard);
        stage.answer(&asked, "{}");
    }
}

/// A call of a modern client that can be asked; `more` are members of its params.
fn guest_call(stage: &mut Stage, id: &str, more: &str) -> StreamKey {
    stage.stream(From::Modern, &format!(
        r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"name":"t"{more},"_meta":{{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{{"elicitation":{{}}}},"progressToken":{id}}}}}}}"#
    ))
}

/// A call that comes back with answers, which are members of `inputResponses`.
fn back(stage: &mut Stage, id: &str, given: &Value, answers: &str) -> StreamKey {
    guest_call(stage, id, &format!(r#","requestState":{given},"inputResponses":{{{answers}}}"#))
}

fn question(id: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"elicitation/create","params":{{"message":{id}}}}}"#)
}

/// What a client was answered instead of a result, read to the end.
fn asked_for(stage: &mut Stage, stream: StreamKey) -> Value {
    let (text, last, status) = stage.raw(stream).expect("nothing came");
    assert!(last && status == 200, "{text}");
    let result: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(result["result"]["resultType"], "input_required", "{text}");
    result["result"].clone()
}

#[test]
fn what_a_legacy_process_asks_during_a_modern_clients_call_is_asked_by_its_answer() {
    let mut stage = Stage::legacy();
    let stream = guest_call(&mut stage, "1", "");
    let sent = stage.take_sent();
    stage.line(&question("\"q\""));
    let asked = asked_for(&mut stage, stream);
    let expected = json!({"1": {"method": "elicitation/create", "params": {"message": "q"}}});
    assert_eq!(asked["inputRequests"], expected);
    stage.nothing_sent();
    assert_eq!(stage.exchange.in_flight(), 1, "the process works on it");
    // What it asks meanwhile is asked next.
    stage.line(&question("8"));
    let stream = back(&mut stage, "\"b\"", &asked["requestState"], "\"1\":{\n\"action\":\"accept\"}");
    assert_eq!(stage.take_sent(), json!({"jsonrpc": "2.0", "id": "q", "result": {"action": "accept"}}));
    let again = asked_for(&mut stage, stream);
    assert_eq!(
        again["inputRequests"],
        json!({"2": {"method": "elicitation/create", "params": {"message": 8}}})
    );
    assert_ne!(asked["requestState"], again["requestState"]);
    let stream = back(&mut stage, "3", &again["requestState"], "\"1\":{},\"2\":{\"action\":\"decline\"}");
    assert_eq!(stage.take_sent(), json!({"jsonrpc": "2.0", "id": 8, "result": {"action": "decline"}}));
    stage.line(&format!(
        r#"{{"jsonrpc":"2.0","method":"notifications/progress","params":{{"progressToken":{},"progress":1}}}}"#,
        sent["id"]
    ));
    assert_eq!(stage.next(stream)["params"]["progressToken"], 3);
    stage.answer(&sent, r#"{"content":[]}"#);
    let expected = json!({"jsonrpc": "2.0", "id": 3, "result": {"content": [], "resultType": "complete"}});
    assert_eq!(stage.next(stream), expected);
    // The next client learns the same of the server as the first one.
    let stream = stage.modern_call("2", "server/discover", "");
    assert_eq!(stage.next(stream)["result"]["resultType"], "complete");
    stage.is_empty();
}

#[test]
fn an_answer_that_comes_while_its_modern_client_is_away_waits_for_it_and_holds_up_nobody() {
    let mut stage = Stage::legacy();
    let stream = guest_call(&mut stage, "1", "");
    let sent = stage.take_sent();
    stage.line(&question("7"));
    let asked = asked_for(&mut stage, stream);
    let other = guest_call(&mut stage, "1", "");
    stage.nothing_sent();
    stage.line(r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":7}}"#);
    stage.answer(&sent, r#"{"of":"the first"}"#);
    let next = stage.take_sent();
    // It is there even when the process is not.
    stage.exchange.lost(stage.now);
    assert_eq!(stage.next(other)["error"]["code"], -32000);
    assert_ne!(next["id"], sent["id"]);
    let stream = back(&mut stage, "2", &asked["requestState"], "\"1\":{}");
    let answer = stage.next(stream);
    assert_eq!((&answer["id"], &answer["result"]["of"]), (&json!(2), &json!("the first")));
    stage.nothing_sent();
    stage.is_empty();
}

#[test]
fn nobody_takes_up_a_call_with_a_state_that_was_not_given_out_or_is_used_up() {
    let mut stage = Stage::legacy();
    let stream = guest_call(&mut stage, "1", "");
    let sent = stage.take_sent();
    stage.line(&question("7"));
    let asked = asked_for(&mut stage, stream);
    for state in [json!("x"), json!(""), json!(7), json!({})] {
        let stream = back(&mut stage, "2", &state, "\"1\":{}");
        assert_eq!(stage.next(stream)["error"]["code"], -32602, "{state}");
    }
    // Without all answers it is asked again, under another state.
    let stream = back(&mut stage, "2", &asked["requestState"], "\"9\":{}");
    let again = asked_for(&mut stage, stream);
    assert_eq!(again["inputRequests"], asked["inputRequests"]);
    stage.nothing_sent();
    let stream = back(&mut stage, "2", &again["requestState"], "\"1\":{}");
    stage.take_sent();
    let late = back(&mut stage, "4", &again["requestState"], "\"1\":{}");
    assert_eq!(stage.next(late)["error"]["code"], -32602);
    stage.answer(&sent, "{}");
    assert_eq!(stage.next(stream)["id"], 2);
    stage.nothing_sent();
    stage.is_empty();
}

#[test]
fn a_modern_client_that_does_not_come_back_is_given_up_and_the_process_hears_of_it() {
    let mut stage = Stage::legacy();
    let stream = guest_call(&mut stage, "1", "");
    let sent = stage.take_sent();
    stage.line(&question("7"));
    asked_for(&mut stage, stream);
    let at = stage.exchange.deadline().unwrap();
    assert_eq!(at, stage.now + Duration::from_secs(300));
    stage.exchange.expire(at);
    assert_eq!(stage.take_sent()["error"]["code"], -32603);
    let cancelled = stage.take_sent();
    assert_eq!(
        (cancelled.method(), &cancelled["params"]["requestId"]),
        ("notifications/cancelled", &sent["id"])
    );
    stage.exchange.expire(at + Duration::from_secs(30));
    stage.is_empty();
    // The process ends: what its client comes back with finds nothing.
    let stream = guest_call(&mut stage, "1", "");
    stage.take_sent();
    stage.line(&question("7"));
    let asked = asked_for(&mut stage, stream);
    stage.exchange.lost(stage.now);
    let stream = back(&mut stage, "2", &asked["requestState"], "\"1\":{}");
    assert_eq!(stage.next(stream)["error"]["code"], -32602);
    stage.is_empty();
}

#[test]
fn a_modern_client_is_asked_only_what_it_declared_and_only_if_it_alone_can_be_meant() {
    let mut stage = Stage::legacy();
    let stream = stage.modern_call("1", "tools/call", "");
    let first = stage.take_sent();
    stage.line(&question("7"));
    assert_eq!(stage.take_sent()["error"]["code"], -32601, "it declared nothing");
    // From now on one at a time is with the process of those that can be asked.
    let (one, two) = (guest_call(&mut stage, "1", ""), guest_call(&mut stage, "1", ""));
    stage.nothing_sent();
    stage.answer(&first, "{}");
    stage.next(stream);
    let sent = stage.take_sent();
    stage.nothing_sent();
    stage.line(r#"{"jsonrpc":"2.0","id":7,"method":"sampling/createMessage","params":{}}"#);
    assert_eq!(stage.take_sent()["error"]["code"], -32601, "it did not declare that");
    stage.line(&question("7"));
    asked_for(&mut stage, one);
    assert_eq!(stage.raw(two), None);
    stage.answer(&sent, "{}");
    let sent = stage.take_sent();
    stage.line(&question("7"));
    asked_for(&mut stage, two);
    stage.answer(&sent, "{}");
    // Before it is known that the process asks, two can be meant.
    let mut stage = Stage::legacy();
    for _ in 0..2 {
        guest_call(&mut stage, "1", "");
        stage.take_sent();
    }
    stage.line(&question("7"));
    assert_eq!(stage.take_sent()["error"]["code"], -32603);
}

#[test]
fn a_modern_client_listens_to_a_legacy_process() {
    let mut stage = Stage::legacy();
    let listen = r#"{"jsonrpc":"2.0","id":"l","method":"subscriptions/listen","params":{"_meta":{},"notifications":{"toolsListChanged":true,"promptsListChanged":true,"resourceSubscriptions":["x://y"]}}}"#;
    let stream = stage.stream(From::Modern, listen);
    let expected = json!({"_meta": {"io.modelcontextprotocol/subscriptionId": "l"},
        "notifications": {"toolsListChanged": true, "resourceSubscriptions": ["x://y"]}});
    let acknowledged = stage.next(stream);
    assert_eq!(
        (acknowledged.method(), &acknowledged["params"]),
        ("notifications/subscriptions/acknowledged", &expected)
    );
    let asked = stage.take_sent();
    assert_eq!((asked.method(), &asked["params"]["uri"]), ("resources/subscribe", &json!("x://y")));
    stage.answer(&asked, "{}");
    stage.line(r#"{"jsonrpc":"2.0","method":"notifications/prompts/list_changed"}"#);
    assert_eq!(stage.raw(stream), None);
    stage.line(r#"{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}"#);
    assert_eq!(stage.next(stream)["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"], "l");
    stage.line(r#"{"jsonrpc":"2.0","method":"notifications/resources/updated","params":{"uri":"x://y"}}"#);
    let updated = stage.next(stream);
    assert_eq!(
        (&updated["params"]["uri"], &updated["params"]["_meta"]),
        (&json!("x://y"), &expected["_meta"])
    );
    // A process that comes back hears of it again, and so does the client.
    stage.attach_legacy();
    assert_eq!(stage.take_sent().method(), "resources/subscribe");
    assert_eq!(stage.next(stream).method(), "notifications/tools/list_changed");
    stage.exchange.dropped(stream, stage.now);
    assert_eq!(stage.take_sent().method(), "resources/unsubscribe");
    stage.is_empty();
}

#[test]
fn a_modern_process_tags_what_a_listener_hears_and_ends_it() {
    let mut stage = Stage::modern();
    let listen = r#"{"jsonrpc":"2.0","id":5,"method":"subscriptions/listen","params":{"_meta":{},"notifications":{"toolsListChanged":true}}}"#;
    let stream = stage.stream(From::Modern, listen);
    let id = stage.take_sent()["id"].clone();
    for tag in [id.to_string(), format!("\"{id}\"")] {
        stage.line(&format!(
            r#"{{"jsonrpc":"2.0","method":"notifications/tools/list_changed","params":{{"_meta":{{"io.modelcontextprotocol/subscriptionId":{tag}}}}}}}"#
        ));
        assert_eq!(stage.next(stream)["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"], 5);
    }
    stage.line(&format!(
        r#"{{"jsonrpc":"2.0","method":"notifications/cancelled","params":{{"requestId":{id}}}}}"#
    ));
    assert_eq!(stage.exchange.next(stream), Next::End);
    stage.is_empty();
}

#[test]
fn a_legacy_client_is_served_by_a_modern_process() {
    let mut stage = Stage::modern();
    let (key, stream) = stage.begin("a", r#"{"elicitation":{}}"#);
    let answer = stage.next(stream);
    assert_eq!(
        (&answer["result"]["protocolVersion"], &answer["result"]["serverInfo"]["name"]),
        (&json!("2025-03-26"), &json!("s"))
    );
    let listen = stage.take_sent();
    assert_eq!(
        listen["params"]["notifications"],
        json!({"toolsListChanged": true, "resourcesListChanged": true})
    );
    let get = stage.exchange.listen(key, stage.now);
    stage.line(&format!(
        r#"{{"jsonrpc":"2.0","method":"notifications/tools/list_changed","params":{{"_meta":{{"io.modelcontextprotocol/subscriptionId":{}}}}}}}"#,
        listen["id"]
    ));
    assert_eq!(stage.next(get)["params"], json!({"_meta": {}}));
    let stream = stage.call(key, "1", "ping");
    stage.nothing_sent();
    assert_eq!(stage.next(stream)["result"], json!({}));
    let stream = stage.stream(
        From::Session(key),
        r#"{"jsonrpc":"2.0","id":2,"method":"resources/subscribe","params":{"uri":"x://y"}}"#,
    );
    assert_eq!(stage.next(stream)["result"], json!({}));
    let renewed = stage.take_sent();
    assert_eq!(renewed["params"]["notifications"]["resourceSubscriptions"], json!(["x://y"]));
    assert_eq!(stage.take_sent()["params"]["requestId"], listen["id"]);
    // Until the process knows of the new one, what it says is for the old one.
    let tagged = |method: &str, listen: &Value| {
        format!(
            r#"{{"jsonrpc":"2.0","method":"notifications/{method}","params":{{"_meta":{{"io.modelcontextprotocol/subscriptionId":{}}}}}}}"#,
            listen["id"]
        )
    };
    stage.line(&tagged("tools/list_changed", &listen));
    assert_eq!(stage.next(get).method(), "notifications/tools/list_changed");
    stage.line(&tagged("subscriptions/acknowledged", &renewed));
    stage.line(&tagged("tools/list_changed", &listen));
    assert_eq!((stage.raw(get), stage.exchange.counts().unclaimed), (None, 1));
    stage.line(&tagged("tools/list_changed", &renewed));
    assert_eq!(stage.next(get).method(), "notifications/tools/list_changed");
    let stream = stage.stream(From::Session(key), r#"{"jsonrpc":"2.0","id":3,"method":"tools/list"}"#);
    let asked = stage.take_sent();
    assert_eq!(asked["params"]["_meta"]["io.modelcontextprotocol/clientInfo"]["name"], "a");
    assert_eq!(asked["params"]["_meta"]["io.modelcontextprotocol/logLevel"], "debug");
    stage.answer(&asked, r#"{"tools":[]}"#);
    assert_eq!(stage.next(stream)["id"], 3);
}

#[test]
fn what_a_modern_process_needs_for_a_legacy_clients_call_is_asked_on_its_stream() {
    let mut stage = Stage::modern();
    let key = stage.client("a", r#"{"elicitation":{}}"#);
    stage.take_sent();
    let stream = stage.call(key, "1", "tools/call");
    let first = stage.take_sent();
    stage.answer(
        &first,
        r#"{"resultType":"input_required","inputRequests":{"n":{"method":"elicitation/create","params":{"message":"?"}},"m":{"method":"elicitation/create"}},"requestState":"s\u0041"}"#,
    );
    stage.nothing_sent();
    for name in ["n", "m"] {
        let asked = stage.next(stream);
        assert_eq!(asked.method(), "elicitation/create");
        let reply = format!(r#"{{"jsonrpc":"2.0","id":{},"result":{{"for":"{name}"}}}}"#, asked["id"]);
        stage.post(From::Session(key), &reply);
    }
    let second = stage.take_sent();
    assert_ne!(second["id"], first["id"]);
    assert_eq!(second["params"]["inputResponses"], json!({"n": {"for": "n"}, "m": {"for": "m"}}));
    assert_eq!(
        (&second["params"]["requestState"], &second["params"]["_meta"]["progressToken"]),
        (&json!("sA"), &second["id"])
    );
    stage.answer(&second, r#"{"resultType":"complete"}"#);
    let (text, last, _) = stage.raw(stream).unwrap();
    assert!(last && text.contains(r#""id":1,"#), "{text}");
    // What the client did not declare it is not asked.
    let stream = stage.call(key, "1", "tools/call");
    let asked = stage.take_sent();
    stage.answer(
        &asked,
        r#"{"resultType":"input_required","inputRequests":{"n":{"method":"sampling/createMessage"}}}"#,
    );
    assert_eq!(stage.next(stream)["error"]["code"], -32603);
    // A process that never has enough comes to an end.
    let stream = stage.call(key, "1", "tools/call");
    for _ in 0..=32 {
        let asked = stage.take_sent();
        stage.answer(&asked, r#"{"resultType":"input_required","requestState":"s"}"#);
    }
    assert_eq!(stage.next(stream)["error"]["code"], -32603);
    // Nor is what its client answers kept without end.
    let stream = stage.call(key, "1", "tools/call");
    let asked = stage.take_sent();
    stage.answer(
        &asked,
        r#"{"resultType":"input_required","inputRequests":{"n":{"method":"elicitation/create"},"m":{"method":"elicitation/create"}}}"#,
    );
    for _ in 0..2 {
        let (asked, padding) = (stage.next(stream), "x".repeat(17 << 20));
        let reply = format!(r#"{{"jsonrpc":"2.0","id":{},"result":"{padding}"}}"#, asked["id"]);
        stage.post(From::Session(key), &reply);
    }
    assert_eq!(stage.next(stream)["error"]["code"], -32603);
    stage.exchange.end_session(key);
    stage.is_empty();
}

/// The body of a modern call of a tool.
fn tool(arguments: &str) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"t","arguments":{arguments},"_meta":{{}}}}}}"#
    )
}

impl Stage {
    fn knows_heads(&mut self, body: &str) -> bool {
        let body = crate::logic::frame::parse_body(body.as_bytes()).unwrap();
        self.exchange.knows_heads(&body, self.now)
    }

    fn allows(&self, body: &str, head: Head<'static>) -> bool {
        let body = crate::logic::frame::parse_body(body.as_bytes()).unwrap();
        self.exchange.check_heads(&body, &|_| head).is_ok()
    }
}

#[test]
fn a_modern_process_lists_its_tools_before_the_first_call_of_one_and_again_when_it_is_another() {
    const MIRRORED: &str =
        r#"{"name":"t","inputSchema":{"properties":{"a":{"type":"string","x-mcp-header":"A"}}}}"#;
    let mut stage = Stage::modern();
    let call = tool(r#"{"a":"b"}"#);
    assert!(stage.knows_heads(r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#));
    stage.nothing_sent();
    assert!(!stage.knows_heads(&call) && !stage.knows_heads(&call));
    let first = stage.take_sent();
    assert_eq!((first.method(), &first["params"]["cursor"]), ("tools/list", &Value::Null));
    stage.nothing_sent();
    stage.answer(&first, r#"{"tools":[],"nextCursor":"2\u0033"}"#);
    assert!(!stage.knows_heads(&call));
    let second = stage.take_sent();
    assert_eq!(second["params"]["cursor"], "23");
    stage.deeds.clear();
    stage.answer(&second, &format!(r#"{{"tools":[{MIRRORED}]}}"#));
    stage.settle();
    assert_eq!(stage.deeds, [Deed::Learned]);
    assert!(stage.knows_heads(&call) && stage.allows(&call, Head::Is("b")));
    assert!(!stage.allows(&call, Head::Is("c")) && !stage.allows(&call, Head::Absent));

    // What a client is told later counts as well.
    let stream = stage.modern_call("1", "tools/list", "");
    let asked = stage.take_sent();
    stage.answer(&asked, r#"{"resultType":"complete","tools":[{"name":"t","inputSchema":{}}]}"#);
    assert_eq!(stage.next(stream)["id"], 1);
    assert!(stage.allows(&call, Head::Absent));

    stage.attach_modern();
    assert!(!stage.knows_heads(&call));
    let asked = stage.take_sent();
    stage.answer_error(&asked, -32601);
    assert!(stage.knows_heads(&call));
    stage.is_empty();
}

#[test]
fn a_process_that_does_not_list_its_tools_is_not_waited_for_long() {
    let mut stage = Stage::modern();
    let call = tool("{}");
    assert!(!stage.knows_heads(&call));
    let at = stage.exchange.deadline().unwrap();
    assert_eq!(at, stage.now + Duration::from_secs(3));
    stage.exchange.expire(at);
    assert!(stage.knows_heads(&call));
    assert_eq!(stage.exchange.deadline(), None);
    assert!(Stage::legacy().knows_heads(&call));
}
