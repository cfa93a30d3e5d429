//! The exchange, with a process that is a script.

mod bounds;
mod hostile;
mod legacy;
mod modern;
mod worlds;

use std::time::Duration;

use serde_json::{Value, json};

use super::*;
use crate::model::Moment;

/// An exchange and its process.
pub(super) struct Stage {
    pub(super) exchange: Exchange,
    pub(super) now: Moment,
    /// What was sent to the process and not looked at.
    pub(super) sent: Vec<Value>,
    pub(super) deeds: Vec<Deed>,
}

pub(super) const CAPABILITIES: &str =
    r#"{"tools":{"listChanged":true},"resources":{"subscribe":true,"listChanged":true},"logging":{}}"#;

pub(super) fn settings() -> Settings {
    Settings {
        isolated: false,
        modern: None,
        max_sessions: 16,
        session_idle: Duration::from_secs(3600),
        seal: Some(Seal::new([7; 32])),
        version: "0.0.0",
    }
}

impl Stage {
    pub(super) fn new(settings: Settings) -> Self {
        let now = Moment::from_boot(Duration::from_secs(1000));
        Self { exchange: Exchange::new(settings), now, sent: Vec::new(), deeds: Vec::new() }
    }

    /// With a process that speaks the legacy era.
    pub(super) fn legacy() -> Self {
        let mut stage = Self::new(settings());
        stage.attach_legacy();
        stage
    }

    pub(super) fn attach_legacy(&mut self) {
        let first = self.exchange.next_id + 1000;
        self.exchange.attach(first, None, self.now);
        let mut asked = self.take_sent();
        if asked.method() == "server/discover" {
            self.answer_error(&asked, -32601);
            asked = self.take_sent();
        }
        assert_eq!(asked.method(), "initialize");
        let result = format!(
            r#"{{"protocolVersion":"2025-06-18", "capabilities":{CAPABILITIES},"serverInfo":{{"name":"s","version":"1"}},"x":1.50}}"#
        );
        self.answer(&asked, &result);
        assert_eq!(self.take_sent().method(), "notifications/initialized");
    }

    /// With a process that speaks the modern era.
    pub(super) fn modern() -> Self {
        let mut stage = Self::new(settings());
        stage.attach_modern();
        stage
    }

    pub(super) fn attach_modern(&mut self) {
        let first = self.exchange.next_id + 1000;
        self.exchange.attach(first, None, self.now);
        let asked = self.take_sent();
        let result = format!(
            r#"{{"supportedVersions":["2026-07-28","2027-01-01"],"capabilities":{CAPABILITIES},"_meta":{{"io.modelcontextprotocol/serverInfo":{{"name":"s","version":"1"}}}},"ttlMs":0,"cacheScope":"public"}}"#
        );
        self.answer(&asked, &result);
    }

    pub(super) fn settle(&mut self) {
        for deed in self.exchange.deeds() {
            match deed {
                Deed::Send(line) | Deed::Reply(line) => {
                    assert_eq!(line.iter().position(|byte| *byte == b'\n'), Some(line.len() - 1));
                    self.sent.push(serde_json::from_slice(&line).unwrap());
                }
                Deed::Wake(_)
                | Deed::Opened(_)
                | Deed::Unfit(_)
                | Deed::Healthy
                | Deed::Remember(_)
                | Deed::Forget(_)
                | Deed::Learned => self.deeds.push(deed),
            }
        }
    }

    /// The next thing the process was sent.
    pub(super) fn take_sent(&mut self) -> Value {
        self.settle();
        assert!(!self.sent.is_empty(), "nothing was sent");
        self.sent.remove(0)
    }

    pub(super) fn nothing_sent(&mut self) {
        self.settle();
        assert_eq!(self.sent, Vec::<Value>::new());
    }

    pub(super) fn line(&mut self, line: &str) {
        self.exchange.line(line.as_bytes(), self.now);
    }

    pub(super) fn answer(&mut self, asked: &Value, result: &str) {
        self.line(&format!(r#"{{"jsonrpc":"2.0","id":{},"result":{result}}}"#, asked["id"]));
    }

    pub(super) fn answer_error(&mut self, asked: &Value, code: i32) {
        self.line(&format!(
            r#"{{"jsonrpc":"2.0","id":{},"error":{{"code":{code},"message":"m"}}}}"#,
            asked["id"]
        ));
    }

    /// A legacy client.
    pub(super) fn client(&mut self, id: &str, capabilities: &str) -> SessionKey {
        let (key, stream) = self.begin(id, capabilities);
        let answer = self.next(stream);
        assert_eq!(answer["id"], "i");
        key
    }

    pub(super) fn begin(&mut self, id: &str, capabilities: &str) -> (SessionKey, StreamKey) {
        let body = format!(
            r#"{{"jsonrpc":"2.0","id":"i","method":"initialize","params":{{"protocolVersion":"2025-03-26","capabilities":{capabilities},"clientInfo":{{"name":"{id}","version":"1"}}}}}}"#
        );
        self.exchange.initialize(id.to_owned(), body.as_bytes(), self.now).unwrap()
    }

    pub(super) fn post(&mut self, from: From, body: &str) -> Posted {
        self.exchange.post(from, body.as_bytes(), self.now)
    }

    pub(super) fn stream(&mut self, from: From, body: &str) -> StreamKey {
        match self.post(from, body) {
            Posted::Stream(stream) => stream,
            Posted::Accepted | Posted::Refused(_) => panic!("no stream for {body}"),
        }
    }

    pub(super) fn call(&mut self, session: SessionKey, id: &str, method: &str) -> StreamKey {
        let body = format!(
            r#"{{"jsonrpc":"2.0","id":{id},"method":"{method}","params":{{"_meta":{{"progressToken":{id}}}}}}}"#
        );
        self.stream(From::Session(session), &body)
    }

    pub(super) fn modern_call(&mut self, id: &str, method: &str, more: &str) -> StreamKey {
        let body = format!(
            r#"{{"jsonrpc":"2.0","id":{id},"method":"{method}","params":{{"_meta":{{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{{}},"progressToken":{id}{more}}}}}}}"#
        );
        self.stream(From::Modern, &body)
    }

    pub(super) fn raw(&mut self, stream: StreamKey) -> Option<(String, bool, u16)> {
        match self.exchange.next(stream) {
            Next::Message { message, last, status, .. } => {
                Some((String::from_utf8(message).unwrap(), last, status))
            }
            Next::Pending | Next::End => None,
        }
    }

    pub(super) fn next(&mut self, stream: StreamKey) -> Value {
        let (text, ..) = self.raw(stream).expect("nothing came");
        serde_json::from_str(&text).unwrap()
    }

    /// Nothing is left of anything.
    pub(super) fn is_empty(&self) {
        let e = &self.exchange;
        let sizes = (e.calls.len(), e.turns.size(), e.asks.size(), e.listens.size());
        assert_eq!(sizes, (0, 0, 0, 0), "{:?}", e.calls);
        assert_eq!((e.waiting, e.shares.len(), e.kept()), (0, 0, 0));
        assert_eq!((e.streams.size(), e.by_id.len()), ((0, 0), e.sessions.len()));
        assert_eq!(e.timed.size(), 0);
        assert!(e.idle.size() <= 2 * e.sessions.len());
    }
}

pub(super) trait Message {
    fn method(&self) -> &str;
}

impl Message for Value {
    fn method(&self) -> &str {
        self["method"].as_str().unwrap_or_default()
    }
}

#[test]
fn a_process_is_probed_and_spoken_to_in_the_era_it_answers_in() {
    let mut stage = Stage::legacy();
    assert!(stage.exchange.is_open());
    assert!(stage.deeds.iter().any(|deed| matches!(deed, Deed::Opened(opened) if !opened.is_modern)));
    // The era is known from now on.
    stage.exchange.lost(stage.now);
    stage.exchange.attach(1 << 40, None, stage.now);
    assert_eq!(stage.take_sent().method(), "initialize");

    let mut stage = Stage::modern();
    assert!(stage.exchange.is_open());
    stage.settle();
    assert!(stage.deeds.iter().any(|deed| matches!(deed, Deed::Opened(opened) if opened.is_modern)));
}

#[test]
fn a_process_that_is_silent_is_asked_the_older_way_and_what_it_answers_then_counts() {
    for (initialize, modern) in [(true, false), (false, true)] {
        let mut stage = Stage::new(settings());
        stage.exchange.attach(1, None, stage.now);
        let discover = stage.take_sent();
        let at = stage.exchange.deadline().unwrap();
        assert_eq!(at, stage.now + Duration::from_secs(3));
        stage.exchange.expire(at);
        assert_eq!(stage.exchange.deadline(), None);
        let asked = stage.take_sent();
        stage.answer(&discover, r#"{"supportedVersions":["2026-07-28"],"capabilities":{}}"#);
        assert!(!stage.exchange.is_open());
        if initialize {
            stage.answer(&asked, r#"{"protocolVersion":"2025-06-18","capabilities":{},"serverInfo":{}}"#);
        } else {
            stage.answer_error(&asked, -32601);
        }
        assert!(stage.exchange.is_open());
        assert_eq!(stage.exchange.server.as_ref().unwrap().is_modern, modern);
    }
}

#[test]
fn a_process_that_refuses_every_opening_is_unfit_and_says_why() {
    let mut stage = Stage::new(settings());
    stage.exchange.attach(1, None, stage.now);
    for _ in 0..2 {
        let asked = stage.take_sent();
        stage.answer_error(&asked, -32603);
    }
    stage.settle();
    assert_eq!(stage.deeds, [Deed::Unfit("it answered initialize with error -32603".to_owned())]);
}

/// A session of an earlier daemon.
fn record() -> SessionRecord {
    SessionRecord {
        id: "secret".to_owned(),
        version: "2025-06-18".to_owned(),
        initialize: r#"{"protocolVersion":"2025-06-18","capabilities":{}}"#.to_owned(),
        level: None,
        subscriptions: vec![],
    }
}

#[test]
fn an_adopted_process_is_up_when_it_answered_and_its_sessions_go_on() {
    let mut stage = Stage::new(settings());
    let key = stage.exchange.restore(record(), stage.now);
    assert_eq!(stage.exchange.session("secret"), Some(key));
    let result =
        r#"{"protocolVersion":"2025-06-18","capabilities":{},"serverInfo":{"name":"s","version":"1"}}"#;
    let opened = Opened { is_modern: false, result: result.to_owned() };
    stage.exchange.attach(5000, Some(opened.clone()), stage.now);
    stage.line(r#"{"jsonrpc":"2.0","id":4999,"result":{"of":"a dead daemon"}}"#);
    assert!(!stage.exchange.is_open());
    let ping = stage.take_sent();
    assert!(ping.method() == "ping" && ping["id"].as_u64() > Some(5000));
    let stream = stage.call(key, "1", "tools/list");
    stage.nothing_sent();
    stage.answer(&ping, "{}");
    stage.settle();
    assert_eq!(stage.deeds, [Deed::Opened(opened)]);
    let asked = stage.take_sent();
    stage.answer(&asked, "{}");
    assert_eq!(stage.next(stream), json!({"jsonrpc": "2.0", "id": 1, "result": {}}));
    assert_eq!(stage.exchange.counts().unclaimed, 1);
}

#[test]
fn sessions_of_an_earlier_daemon_hear_that_the_process_is_another_and_not_where_it_is_the_same() {
    for is_same in [false, true] {
        let mut stage = Stage::new(settings());
        let key = stage.exchange.restore(record(), stage.now);
        if is_same {
            let result = format!(
                r#"{{"protocolVersion":"2025-06-18","capabilities":{CAPABILITIES},"serverInfo":{{"name":"s","version":"1"}}}}"#
            );
            stage.exchange.attach(5000, Some(Opened { is_modern: false, result }), stage.now);
            let ping = stage.take_sent();
            stage.answer(&ping, "{}");
        } else {
            stage.attach_legacy();
        }
        let stream = stage.exchange.listen(key, stage.now);
        let next = stage.exchange.next(stream);
        assert_eq!(matches!(next, Next::Message { .. }), !is_same, "{next:?}");
        // The next one is another for either.
        stage.attach_legacy();
        assert!(matches!(stage.exchange.next(stream), Next::Message { .. }));
    }
}

#[test]
fn a_health_check_is_answered_by_whatever_the_process_answers() {
    let mut stage = Stage::legacy();
    stage.settle();
    stage.deeds.clear();
    stage.exchange.check_health();
    let ping = stage.take_sent();
    stage.line("noise on stdout");
    stage.settle();
    assert_eq!((stage.deeds.len(), stage.exchange.counts().not_json_rpc), (0, 1));
    stage.answer_error(&ping, -32601);
    stage.answer(&ping, "{}");
    stage.settle();
    assert_eq!(stage.deeds, [Deed::Healthy]);
}
