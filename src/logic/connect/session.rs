//! The life of a legacy session: opened by the client, opened again in its name, given up; and its
//! stream of what belongs to no request.

use std::sync::Arc;
use std::time::Duration;

use super::message::{Lists, error, is_plain};
use super::{Call, CallId, Deed, FAILED, MAX_WAITING, Message, Order, Relay, Stage, Verb, What};

/// What the client said once, in our words.
pub(super) const INITIALIZED: &str = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;

impl Relay {
    /// A session begins.
    pub(super) fn begin(&mut self, opening: Arc<Vec<u8>>) {
        self.retire();
        self.session.opening = Some(opening);
        self.session.ready = false;
        self.stage = Stage::Opening;
    }

    /// The session is none any more: its requests to the client are withdrawn.
    pub(super) fn retire(&mut self) {
        if let Some(stream) = self.session.stream.take() {
            self.calls.remove(&stream);
            self.deeds.push(Deed::Drop(stream));
        }
        self.session.round += 1;
        self.session.id = None;
        self.session.version = None;
        self.session.stream_fails = 0;
        for (key, id) in std::mem::take(&mut self.session.asked) {
            let line = format!(
                "{{\"jsonrpc\":\"2.0\",\"method\":\"notifications/cancelled\",\"params\":{{\"requestId\":{id},\
                 \"reason\":\"the server's session ended\"}}}}"
            );
            self.say(line.into_bytes());
            if self.session.stale.len() < MAX_WAITING {
                self.session.stale.insert(key);
            }
        }
    }

    /// Opens another session in the client's name.
    pub(super) fn renew(&mut self) {
        let Some(body) = self.session.opening.clone() else { return };
        self.retire();
        self.stage = Stage::Renewing;
        self.turn = None;
        self.send(Message { what: What::Replay, body, headers: None, again: true });
    }

    pub(super) fn accepted(&mut self, id: CallId, session: Option<String>, daemon: i32) {
        let Some(call) = self.calls.get(&id) else { return };
        let is_now = call.round == self.session.round;
        match &call.message.what {
            What::Request(asked) if asked.modern => {}
            What::Replay if is_now => {
                self.session.id = session;
                self.session.daemon = daemon;
            }
            What::Request(asked) if asked.method == "initialize" && is_now => {
                self.session.id = session;
                self.session.daemon = daemon;
            }
            What::Notification { initialized } => {
                let initialized = *initialized && is_now;
                self.done(id);
                if initialized {
                    self.session.ready = true;
                    self.open();
                }
            }
            What::Answer => self.done(id),
            What::Ready if is_now => {
                self.done(id);
                self.open_again();
            }
            What::Request(_) | What::Replay | What::Ready | What::Stream => {}
        }
        // Another daemon may have started another process; with a session it would say so.
        let is_other = self.session.daemon != daemon && daemon != 0;
        if is_other && is_now && self.stage == Stage::Open {
            self.session.daemon = daemon;
            if self.session.id.is_none() {
                self.renew();
            }
        }
    }

    pub(super) fn open(&mut self) {
        self.stage = Stage::Open;
        self.listen(Duration::ZERO, None);
    }

    pub(super) fn open_again(&mut self) {
        self.note("the session was opened anew");
        let Lists { tools, prompts, resources } = self.session.lists;
        for (name, is_there) in [("tools", tools), ("prompts", prompts), ("resources", resources)] {
            if is_there {
                let line =
                    format!("{{\"jsonrpc\":\"2.0\",\"method\":\"notifications/{name}/list_changed\"}}");
                self.say(line.into_bytes());
            }
        }
        self.open();
    }

    /// Asks for what belongs to no request.
    pub(super) fn listen(&mut self, after: Duration, last_event: Option<String>) {
        if self.closing {
            return;
        }
        let message = Message { what: What::Stream, body: Arc::default(), headers: None, again: false };
        let id = self.number();
        self.session.stream = Some(id);
        let (round, named_session) = (self.session.round, self.session.id.is_some());
        let call =
            Call { message, round, named_session, answered: false, last_event, retry: None, resumed: 0 };
        self.calls.insert(id, call);
        self.get(id, after);
    }

    pub(super) fn get(&mut self, id: CallId, after: Duration) {
        let mut headers = self.legacy_headers(false);
        let last_event = self.calls.get(&id).and_then(|call| call.last_event.clone());
        headers.extend(last_event.map(|event| ("last-event-id", event)));
        self.deeds.push(Deed::Send(Order {
            call: id,
            verb: Verb::Get,
            headers,
            body: Arc::default(),
            after,
        }));
    }

    pub(super) fn opened(&mut self, result: Option<(Option<String>, Lists)>) {
        match result {
            Some((version, lists)) => {
                self.session.version = version.filter(|version| is_plain(version));
                self.session.lists = lists;
            }
            // The client may try again, and differently.
            None => self.session.opening = None,
        }
    }

    /// There is no session: what waits for one is answered.
    pub(super) fn lose(&mut self, why: &str) {
        self.note(why);
        self.stage = Stage::Lost;
        for message in std::mem::take(&mut self.lane) {
            if let What::Request(asked) = message.what {
                self.say(error(&asked.id, FAILED, why));
            }
        }
    }
}
