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

#[test]
fn a_server_that_asks_a_modern_client_is_refused_and_the_next_client_falls_back() {
    let mut stage = Stage::legacy();
    stage.modern_call("1", "tools/call", "");
    stage.take_sent();
    stage.line(r#"{"jsonrpc":"2.0","id":7,"method":"elicitation/create","params":{}}"#);
    assert_eq!(stage.take_sent()["error"]["code"], -32601);
    let stream = stage.modern_call("2", "server/discover", "");
    let (text, _, status) = stage.raw(stream).unwrap();
    assert!(status == 400 && text.contains("-32601"), "{status} {text}");
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
