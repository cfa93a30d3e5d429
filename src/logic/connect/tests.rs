//! The relay against a pretended instance.

use super::message::{Said, header};
use super::*;

fn request(id: &str, method: &str) -> String {
    format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"method\":\"{method}\",\"params\":{{}}}}")
}

fn notification(method: &str) -> String {
    format!("{{\"jsonrpc\":\"2.0\",\"method\":\"{method}\"}}")
}

fn modern(id: &str, method: &str, more: &str) -> String {
    format!(
        "{{\"jsonrpc\":\"2.0\",\"id\":{id},\"method\":\"{method}\",\"params\":{{{more}\
         \"_meta\":{{\"io.modelcontextprotocol/protocolVersion\":\"2026-07-28\"}}}}}}"
    )
}

/// The relay, and what it wanted so far.
#[derive(Default)]
struct Desk {
    relay: Relay,
    sent: Vec<Order>,
    dropped: Vec<CallId>,
    said: Vec<String>,
}

impl Desk {
    fn look(&mut self) {
        for deed in self.relay.deeds() {
            match deed {
                Deed::Send(order) => self.sent.push(order),
                Deed::Drop(call) => self.dropped.push(call),
                Deed::Say(line) => self.said.push(String::from_utf8(line).unwrap()),
                Deed::Note(_) => {}
            }
        }
    }

    fn line(&mut self, line: &str) {
        self.relay.line(line.as_bytes().to_vec());
        self.look();
    }

    fn heard(&mut self, call: CallId, happening: Happening) {
        self.relay.heard(call, happening);
        self.look();
    }

    fn accept(&mut self, call: CallId, session: Option<&str>, daemon: i32) {
        self.heard(call, Happening::Accepted { session: session.map(str::to_owned), daemon });
    }

    fn say(&mut self, call: CallId, text: &str) {
        self.heard(call, Happening::Said(Event { data: text.into(), ..Event::default() }));
    }

    fn end(&mut self, call: CallId, end: End) {
        self.heard(call, Happening::Ended(end));
    }

    fn refuse(&mut self, call: CallId, status: u16, body: &str) {
        self.end(call, End::Refused { status, body: body.into(), by_daemon: None });
    }

    /// The orders since the last look, as what they say or do.
    fn orders(&mut self) -> Vec<(CallId, String)> {
        let text = |order: &Order| match order.verb {
            Verb::Get => "GET".to_owned(),
            Verb::Delete => "DELETE".to_owned(),
            Verb::Post => {
                let body = Envelope::read(&order.body).and_then(|envelope| envelope.method.map(String::from));
                body.unwrap_or_else(|| "answer".to_owned())
            }
        };
        self.sent.drain(..).map(|order| (order.call, text(&order))).collect()
    }

    fn one(&mut self) -> (CallId, String) {
        let mut all = self.orders();
        assert_eq!(all.len(), 1, "{all:?}");
        all.remove(0)
    }

    fn whole(&mut self, call: CallId, session: Option<&str>, text: &str) {
        self.accept(call, session, 1);
        if !text.is_empty() {
            self.say(call, text);
        }
        self.end(call, End::Whole);
    }

    /// A session that is open, with its stream; and that stream.
    fn open(session: Option<&str>) -> (Self, CallId) {
        let mut desk = Self::default();
        desk.line(&request("0", "initialize"));
        let (opening, _) = desk.one();
        desk.whole(opening, session, OPENED);
        desk.line(&notification("notifications/initialized"));
        let (ready, _) = desk.one();
        desk.whole(ready, None, "");
        let (stream, what) = desk.one();
        assert_eq!(what, "GET");
        desk.said.clear();
        (desk, stream)
    }
}

const OPENED: &str =
    r#"{"jsonrpc":"2.0","id":0,"result":{"protocolVersion":"2025-11-25","capabilities":{"tools":{}}}}"#;

#[test]
fn what_a_client_says_before_it_is_ready_goes_in_order_and_after_that_side_by_side() {
    let mut desk = Desk::default();
    for line in [
        request("0", "initialize"),
        notification("notifications/initialized"),
        request("1", "a"),
        request("2", "b"),
    ] {
        desk.line(&line);
    }
    let (opening, what) = desk.one();
    assert_eq!(what, "initialize");
    assert!(desk.relay.deeds().is_empty());
    desk.accept(opening, Some("s"), 1);
    assert!(desk.sent.is_empty(), "the version is not known yet");
    desk.say(opening, OPENED);
    assert_eq!(desk.said, [OPENED]);
    let headers = desk.sent[0].headers.clone();
    assert_eq!(
        headers,
        [("mcp-session-id", "s".to_owned()), ("mcp-protocol-version", "2025-11-25".to_owned())]
    );
    let (ready, what) = desk.one();
    assert_eq!(what, "notifications/initialized");
    desk.accept(ready, None, 1);
    let names: Vec<_> = desk.orders().into_iter().map(|(_, what)| what).collect();
    assert_eq!(names, ["GET", "a", "b"]);
}

#[test]
fn an_answer_of_the_clients_waits_for_nothing() {
    let mut desk = Desk::default();
    desk.line(&request("0", "initialize"));
    let (opening, _) = desk.one();
    desk.accept(opening, None, 1);
    desk.say(opening, &request("9", "ping"));
    desk.line(r#"{"jsonrpc":"2.0","id":9,"result":{}}"#);
    assert_eq!(desk.one().1, "answer");
}

#[test]
fn a_modern_message_has_the_headers_its_body_says() {
    let mut desk = Desk::default();
    desk.line(&modern("1", "tools/call", "\"name\":\"größe\","));
    desk.line(&modern("2", "resources/read", "\"uri\":\"file:///a\",\"name\":\"no\","));
    desk.line(&modern("3", "tools/list", "\"name\":\"no\","));
    let named: Vec<_> = desk.sent.iter().map(|order| order.headers.clone()).collect();
    let version = ("mcp-protocol-version", "2026-07-28".to_owned());
    let method = |name: &str| ("mcp-method", name.to_owned());
    assert_eq!(
        named,
        [
            vec![version.clone(), method("tools/call"), ("mcp-name", "=?base64?Z3LDtsOfZQ==?=".to_owned())],
            vec![version.clone(), method("resources/read"), ("mcp-name", "file:///a".to_owned())],
            vec![version, method("tools/list")],
        ]
    );
    for (plain, sent) in [
        ("a b", "a b"),
        (" a", "=?base64?IGE=?="),
        ("a\r\nX: y", "=?base64?YQ0KWDogeQ==?="),
        ("=?base64?YQ==?=", "=?base64?PT9iYXNlNjQ/WVE9PT89?="),
    ] {
        assert_eq!(header(plain), sent);
    }
}

#[test]
fn a_header_cannot_be_smuggled_into_a_request() {
    let mut desk = Desk::default();
    desk.line(&modern("1", "tools/list\\r\\nx: y", ""));
    desk.line(&modern("2", "tools/call", "\"name\":\"a\",\"name\":\"b\","));
    assert!(desk.sent.is_empty());
    assert!(desk.said[0].contains("-32600") && desk.said[1].contains("-32602"), "{:?}", desk.said);
}

#[test]
fn a_modern_cancellation_hangs_up_and_a_legacy_one_is_sent() {
    let mut desk = Desk::default();
    let cancel = r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":"\u0061"}}"#;
    desk.line(&modern("\"a\"", "tools/call", ""));
    let (call, _) = desk.one();
    desk.line(cancel);
    assert_eq!((desk.dropped.clone(), desk.sent.len()), (vec![call], 0));
    desk.end(call, End::Broken);
    desk.line(cancel);
    assert!(desk.said.is_empty() && desk.sent.is_empty() && desk.relay.is_idle());

    let (mut desk, _) = Desk::open(None);
    desk.line(&request("\"a\"", "tools/call"));
    let (call, _) = desk.one();
    desk.line(cancel);
    assert_eq!(desk.one().1, "notifications/cancelled");
    desk.end(call, End::Whole);
    assert!(desk.said.is_empty(), "nobody waits for it any more: {:?}", desk.said);
}

#[test]
fn only_what_had_no_effect_is_sent_again_and_only_once() {
    let (mut desk, stream) = Desk::open(Some("s"));
    desk.line(&request("1", "tools/call"));
    desk.line(&request("2", "tools/call"));
    let calls = desk.orders();
    desk.say(calls[0].0, &request("7", "elicitation/create"));
    desk.refuse(calls[1].0, 404, "");
    let (opening, what) = desk.one();
    assert_eq!((what.as_str(), desk.dropped.as_slice()), ("initialize", &[stream][..]));
    assert!(desk.said[1].contains("notifications/cancelled") && desk.said[1].contains("\"requestId\":7"));
    // It was asked in a session that is over.
    desk.line(r#"{"jsonrpc":"2.0","id":7,"result":{}}"#);
    desk.end(calls[0].0, End::Broken);
    assert!(desk.said[2].contains("may have taken effect"), "{:?}", desk.said);
    desk.line(&request("3", "tools/call"));
    assert!(desk.sent.is_empty(), "it waits");
    desk.whole(opening, Some("t"), OPENED);
    let (ready, what) = desk.one();
    assert_eq!(what, "notifications/initialized");
    assert_eq!(desk.said.len(), 3, "the second opening is not shown");
    desk.whole(ready, None, "");
    assert_eq!(desk.said[3], notification("notifications/tools/list_changed"));
    let again = desk.orders();
    let names: Vec<_> = again.iter().map(|(_, what)| what.as_str()).collect();
    assert_eq!(names, ["GET", "tools/call", "tools/call"]);
    desk.refuse(again[1].0, 404, "");
    assert!(desk.said[4].starts_with(r#"{"jsonrpc":"2.0","id":2,"error""#), "{:?}", desk.said);
}

#[test]
fn a_server_without_sessions_is_opened_again_when_another_daemon_answers() {
    let (mut desk, stream) = Desk::open(None);
    desk.refuse(stream, 405, "");
    assert!(desk.orders().is_empty(), "it has no stream");
    desk.line(&request("1", "tools/call"));
    let (call, _) = desk.one();
    desk.accept(call, None, 2);
    assert_eq!(desk.one().1, "initialize");
    desk.say(call, r#"{"jsonrpc":"2.0","id":1,"result":{}}"#);
    assert_eq!(desk.said.len(), 1);
}

#[test]
fn when_no_session_can_be_had_whatever_waits_is_answered_and_the_next_call_tries_again() {
    let (mut desk, _) = Desk::open(Some("s"));
    desk.line(&request("1", "tools/call"));
    let (call, _) = desk.one();
    desk.refuse(call, 404, "");
    let (opening, _) = desk.one();
    desk.end(opening, End::Unsent("no daemon".to_owned()));
    assert!(desk.said[0].contains("no daemon") && desk.said[0].contains("\"id\":1"), "{:?}", desk.said);
    desk.line(&request("2", "tools/call"));
    assert_eq!(desk.one().1, "initialize");
}

#[test]
fn a_stream_comes_again_later_and_later_until_something_is_on_it() {
    let (mut desk, mut stream) = Desk::open(Some("s"));
    let mut waits = Vec::new();
    for _ in 0..6 {
        desk.end(stream, End::Broken);
        waits.push(desk.sent[0].after.as_secs());
        stream = desk.one().0;
    }
    assert_eq!(waits, [1, 2, 4, 8, 10, 10]);
    let event = Event { id: Some("9-1".into()), retry: Some(Duration::from_millis(50)), data: Vec::new() };
    desk.heard(stream, Happening::Said(event));
    desk.end(stream, End::Whole);
    assert_eq!(desk.sent[0].after, Duration::from_millis(50));
    assert!(desk.sent[0].headers.contains(&("last-event-id", "9-1".to_owned())));
}

#[test]
fn a_call_that_had_begun_may_have_taken_effect_though_the_daemon_stays_away() {
    let (mut desk, _) = Desk::open(Some("s"));
    desk.line(&request("1", "tools/call"));
    let (call, _) = desk.one();
    let event = Event { id: Some("9-1".into()), retry: None, data: Vec::new() };
    desk.heard(call, Happening::Said(event));
    desk.end(call, End::Broken);
    let (again, _) = desk.one();
    desk.end(again, End::Unsent("no daemon".to_owned()));
    assert!(desk.said[0].contains("may have taken effect"), "{:?}", desk.said);
}

#[test]
fn an_error_without_an_id_is_given_the_one_it_answers() {
    let (mut desk, _) = Desk::open(None);
    desk.line(&request("\"x\"", "a"));
    let (call, _) = desk.one();
    desk.refuse(call, 400, "{\"jsonrpc\":\"2.0\",\"id\":null,\n\"error\":{\"code\":-32022,\"data\":1}}");
    assert_eq!(desk.said, [r#"{"jsonrpc":"2.0","id":"x","error":{"code":-32022,"data":1}}"#]);
}

#[test]
fn too_many_calls_are_refused_and_none_is_forgotten() {
    let (mut desk, _) = Desk::open(None);
    for id in 0..MAX_CALLS + 10 {
        desk.line(&request(&id.to_string(), "a"));
    }
    assert_eq!(desk.said.len() + desk.sent.len(), MAX_CALLS + 10);
    assert!(desk.said[0].contains("calls at once"));
}

#[test]
fn whoever_has_said_all_waits_for_calls_and_not_for_streams() {
    let (mut desk, stream) = Desk::open(Some("s"));
    desk.line(&request("1", "a"));
    desk.line(&modern("2", "subscriptions/listen", ""));
    let calls = desk.orders();
    desk.relay.eof();
    desk.look();
    assert_eq!(desk.dropped, [stream, calls[1].0]);
    assert!(!desk.relay.is_idle());
    desk.say(calls[0].0, r#"{"jsonrpc":"2.0","id":1,"result":{}}"#);
    assert!(desk.relay.is_idle());
    assert_eq!(desk.relay.farewell().map(|order| order.verb), Some(Verb::Delete));
}

#[test]
fn params_that_are_a_list_say_nothing() {
    let line = br#"{"id":1,"method":"tools/call","params":[1,"x",null]}"#;
    assert_eq!(Envelope::read(line).unwrap().said(), Some(Said::default()));
}
