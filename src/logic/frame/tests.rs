//! Messages that are read as what they are, and changed nowhere but where they are to be.

use super::*;

#[test]
fn each_kind_of_message_is_told_from_the_others_and_its_spans_are_the_very_text() {
    let text = r#" {"jsonrpc":"2.0","x":[1.0e5],"id":"a\n","method":"tools/call","params":{ "a":1.50 }} "#;
    let frame = parse(text.as_bytes()).unwrap();
    assert_eq!(frame.kind, Kind::Request { id: r#""a\n""#, method: "tools/call".into() });
    assert_eq!(frame.params, Some(r#"{ "a":1.50 }"#));
    let frame = parse(br#"{"method":"ping","jsonrpc":"2.0","params":null}"#).unwrap();
    assert_eq!((frame.kind, frame.params), (Kind::Notification { method: "ping".into() }, None));
    let frame = parse(br#"{"jsonrpc":"2.0","id":7,"result":null}"#).unwrap();
    assert_eq!(frame.kind, Kind::Answer { id: Some("7"), outcome: Outcome::Result("null") });
    let frame = parse(br#"{"jsonrpc":"2.0","id":null,"error":{"code":1,"message":""}}"#).unwrap();
    assert!(matches!(frame.kind, Kind::Answer { id: None, outcome: Outcome::Error(_) }));
    let frame = parse(br#"{"jsonrpc":"2.0","id":7,"result":{},"error":null}"#).unwrap();
    assert_eq!(frame.kind, Kind::Answer { id: Some("7"), outcome: Outcome::Result("{}") });
    let frame = parse(br#"{"jsonrpc":"2.0","id":7,"result":null,"error":{"code":1}}"#).unwrap();
    assert_eq!(frame.kind, Kind::Answer { id: Some("7"), outcome: Outcome::Error(r#"{"code":1}"#) });
}

#[test]
fn what_is_no_message_is_refused_with_the_right_code_and_its_id_where_there_is_one() {
    let cases: &[(&str, i32, Option<&str>)] = &[
        ("", PARSE_ERROR, None),
        ("{", PARSE_ERROR, None),
        (r#"{"jsonrpc":"2.0","id":1,"method":"a"} x"#, PARSE_ERROR, None),
        (r#"{"jsonrpc":"2.0","id":1,"method":"a",}"#, PARSE_ERROR, None),
        ("[]", INVALID_REQUEST, None),
        ("7", INVALID_REQUEST, None),
        (r#"{"id":1,"method":"a"}"#, INVALID_REQUEST, Some("1")),
        (r#"{"jsonrpc":"2.0","id":null,"method":"a"}"#, INVALID_REQUEST, None),
        (r#"{"jsonrpc":"2.0","id":{},"method":"a"}"#, INVALID_REQUEST, None),
        (r#"{"jsonrpc":"2.0","id":1,"id":2,"method":"a"}"#, INVALID_REQUEST, Some("2")),
        (r#"{"jsonrpc":"2.0","id":1,"ID":2,"method":"a"}"#, INVALID_REQUEST, Some("1")),
        (r#"{"jsonrpc":"2.0","id":1,"\u0069d":2,"method":"a"}"#, INVALID_REQUEST, Some("2")),
        (r#"{"jsonrpc":"2.0","id":1,"method":"a","result":1}"#, INVALID_REQUEST, Some("1")),
        (r#"{"jsonrpc":"2.0","id":1,"method":"a","params":3}"#, INVALID_REQUEST, Some("1")),
        (r#"{"jsonrpc":"2.0","id":1,"method":3}"#, INVALID_REQUEST, Some("1")),
        (r#"{"jsonrpc":"2.0","id":1,"result":1,"error":{}}"#, INVALID_REQUEST, Some("1")),
        (r#"{"jsonrpc":"2.0","id":1,"error":null}"#, INVALID_REQUEST, Some("1")),
        (r#"{"jsonrpc":"2.0","result":3}"#, INVALID_REQUEST, None),
        (r#"{"jsonrpc":"2.0","id":1}"#, INVALID_REQUEST, Some("1")),
    ];
    for (text, code, id) in cases {
        let problem = parse(text.as_bytes()).expect_err(text);
        assert_eq!((problem.code, problem.id), (*code, *id), "{text}");
    }
    assert_eq!(parse(b"{\"jsonrpc\":\"2.0\",\"method\":\"\xff\"}").unwrap_err().code, PARSE_ERROR);
    assert!(parse(b"{\"jsonrpc\":\"2.0\",\"method\":\"a\nb\"}").is_err(), "a line break in a string");
}

#[test]
fn a_suffix_of_a_message_is_none() {
    let whole = r#"{"jsonrpc":"2.0","id":1,"result":{"a":[{"jsonrpc":"2.0","id":2,"result":{}}]}}"#;
    for from in 1..whole.len() {
        assert!(parse(&whole.as_bytes()[from..]).is_err(), "{}", &whole[from..]);
    }
}

#[test]
fn a_batch_holds_messages_and_not_too_many() {
    let one = r#"{"jsonrpc":"2.0","method":"a"}"#;
    assert!(matches!(parse_body(one.as_bytes()), Ok(Body::One(_))));
    let some = format!("[{one}, {one}]");
    assert!(matches!(parse_body(some.as_bytes()), Ok(Body::Batch(frames)) if frames.len() == 2));
    for bad in ["[]", "[", "[1]", &format!("[{}]", vec![one; MAX_BATCH + 1].join(","))] {
        assert!(parse_body(bad.as_bytes()).is_err(), "{bad}");
    }
}

#[test]
fn spans_are_replaced_and_every_other_byte_stays() {
    let text = "{ \"id\" : 1 ,\n\t\"n\": 1,\"params\":{} }";
    let [id, params] = members(text, ["id", "params"]).unwrap();
    let mut splice = Splice::new(text);
    splice.put(id.unwrap(), "\"long\"");
    splice.put(id.unwrap(), "meets another");
    splice.put("1", "none of it");
    splice.insert(params.unwrap(), "\"a\":1");
    let out = splice.finish("\n");
    assert_eq!(String::from_utf8(out).unwrap(), "{ \"id\" : \"long\" , \t\"n\": 1,\"params\":{\"a\":1} }\n");
}

#[test]
fn what_a_client_wrote_with_too_many_members_is_not_read_to_its_end() {
    let object = |members: usize| format!("{{\"a\":1{}}}", ",\"\":0".repeat(members - 1));
    assert_eq!(few_members(&object(4096), ["a"]), Ok([Some("1")]));
    assert_eq!(few_members(&object(4097), ["a"]), Err(Bad));
    assert_eq!(members(&object(4097), ["a"]), Ok([Some("1")]), "what a server says may be long");
    let mut seen = 0;
    assert_eq!(each_of_few_elements(&format!("[0{}]", ",0".repeat(9999)), |_| seen += 1), Err(Bad));
    assert_eq!(seen, 4096);
}

#[test]
fn ids_are_the_same_however_they_are_escaped_and_numbers_however_they_are_spelled() {
    assert_eq!(plain_id(r#""\u0061""#), r#""a""#);
    assert_eq!(plain_id("1"), "1");
    assert_eq!(
        ["7", "7.0", "7e0", "-7", "7.5", "\"7\"", "1e99"].map(whole_number),
        [Some(7), Some(7), Some(7), None, None, None, None]
    );
}
