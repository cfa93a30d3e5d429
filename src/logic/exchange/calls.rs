//! Requests of clients on their way to the process and back.
//!
//! The process sees ids and progress tokens of ours, one number for both; each client gets its own
//! back, byte for byte. What else is changed is what the eras of the two differ in.

use std::time::Duration;

use crate::logic::era::{META_LEVEL, MODERN, REMOVED, status_of};
use crate::logic::frame::{
    self, DOUBTFUL, Frame, INVALID_PARAMS, METHOD_NOT_FOUND, Outcome, SERVER_LOST, Splice, few_members,
    members, text_of, whole_number,
};
use crate::model::Moment;

use super::parks::Guest;
use super::posts::is_like_a_notification;
use super::server::{Server, severity};
use super::streams::Event;
use super::table::{Call, Stage};
use super::turns::Owner;
use super::what::What;
use super::{Exchange, Opened, StreamKey, translate};

/// What the process is told of whoever lost their call with it.
pub(super) const LOST: &str = "the server ended while this call was in flight; it may have taken effect";

/// How long a cancelled call may still make the process speak, as far as we reckon.
pub(super) const HAUNTING: Duration = Duration::from_secs(30);

/// Bytes of requests that wait for a process or a turn, or may have to be sent again.
pub(super) const MAX_WAITING: usize = 32 << 20;

/// A request of our own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Own {
    /// `server/discover`, to find out the era.
    Probe,
    Initialize,
    /// A round trip to a process that an earlier daemon had opened.
    Alive(Opened),
    /// Nothing hangs on the answer.
    Aside,
    /// `subscriptions/listen`.
    Listen,
    /// `tools/list`.
    Tools,
}

impl Exchange {
    /// Takes a request that was found to be allowed. What answers it comes on `stream`.
    pub(super) fn request(&mut self, owner: Owner, frame: &Frame<'_>, stream: StreamKey, now: Moment) {
        let (Some(id), Some(method)) = (frame.request_id(), frame.method()) else { return };
        if owner.is_modern() && REMOVED.contains(&method) {
            return self.refuse(stream, id, METHOD_NOT_FOUND, "this method is not of this revision", 404);
        }
        if method == "initialize" {
            return self.refuse(stream, id, frame::INVALID_REQUEST, "this session was opened already", 400);
        }
        // A process that looks at the method alone would take it for one, with ids that are not made ours.
        if is_like_a_notification(method) {
            return self.refuse(stream, id, frame::INVALID_REQUEST, "a notification has no id", 400);
        }
        let (token, level) = match asides(frame.params) {
            Ok(asides) => asides,
            Err(why) => return self.refuse(stream, id, INVALID_PARAMS, why, 400),
        };
        let what = What::of(method);
        let text = if self.is_kept(owner, what) { frame.text.len() } else { 0 };
        let is_too_much = self.waiting + id.len() + token.map_or(0, str::len) + text > MAX_WAITING;
        if self.is_full_for(owner) || is_too_much {
            return self.refuse(stream, id, SERVER_LOST, "too many calls wait for this server", 503);
        }
        let wire = self.fresh();
        let guest = if owner.is_modern() && what.can_ask() { Guest::of(frame.params) } else { None };
        let owner = guest.as_ref().map_or(owner, |_| Owner::Guest(wire));
        let call = Call {
            owner,
            id: id.into(),
            token: token.map(Into::into),
            stream,
            what,
            stage: Stage::Waits,
            text: None,
            level,
            rounds: 0,
            more: None,
            guest,
        };
        if self.comes_back(&call, frame, now) {
            return;
        }
        if let Some(session) = self.session_of(owner) {
            session.calls.insert(frame::plain_id(id).into(), wire);
        }
        self.put_call(wire, call);
        self.submit(wire, frame);
    }

    /// True if the text of such a call has to be kept: until it can be sent, or in case it must be again.
    fn is_kept(&self, owner: Owner, what: What) -> bool {
        let again = owner != Owner::Modern && self.server.as_ref().is_some_and(|server| server.is_modern);
        let can_ask = what.can_ask();
        !self.is_open() || !self.turns.is_free(owner, can_ask) || (again && can_ask)
    }

    /// Sends a call, or lets it wait.
    pub(super) fn submit(&mut self, wire: u64, frame: &Frame<'_>) {
        let Some(call) = self.calls.get_mut(&wire) else { return };
        let (owner, can_ask) = (call.owner, call.what.can_ask());
        let (open, free) = (self.process.takes_calls(), self.turns.is_free(owner, can_ask));
        if open && free {
            return self.go(wire, frame);
        }
        if call.text.is_none() {
            self.keep_text(wire, Some(frame.text.into()));
        }
        if open {
            self.turns.wait(wire, owner, self.now);
        }
    }

    /// Sends what waited, if it may go now.
    pub(super) fn submit_again(&mut self, wires: Vec<u64>) {
        for wire in wires {
            let Some(text) = self.take_text(wire) else { continue };
            if let Ok(frame) = frame::parse(text.as_bytes()) {
                self.submit(wire, &frame);
            }
        }
    }

    /// Lets those go whose turn has come.
    pub(super) fn pump(&mut self) {
        if self.turns.asks_back && self.process.takes_calls() {
            for wire in self.turns.due() {
                let Some(text) = self.take_text(wire) else { continue };
                if let Ok(frame) = frame::parse(text.as_bytes()) {
                    self.go(wire, &frame);
                }
            }
        }
    }

    /// Hands a call to the process, or answers it in its place.
    fn go(&mut self, wire: u64, frame: &Frame<'_>) {
        let (Some(server), Some(call)) = (&self.server, self.calls.get(&wire)) else { return };
        let owner = call.owner;
        match (owner, server.is_modern, call.what) {
            (Owner::Modern, false, What::Discover) => {
                if let Some(result) = self.server.as_ref().map(Server::discovered) {
                    self.settle(wire, &result);
                }
            }
            (Owner::Modern, false, What::Listen) => self.listen_for(wire, frame),
            (Owner::Session(session), _, What::Subscribe) => self.subscribe(session, wire, frame),
            (Owner::Session(session), _, What::Unsubscribe) => self.unsubscribe(session, wire, frame),
            (Owner::Session(session), _, What::SetLevel) => self.set_level(session, wire, frame),
            (Owner::Session(_), true, What::Ping) => self.settle(wire, "{}"),
            (Owner::Session(_), true, What::Discover | What::Listen) => {
                let Some(call) = self.forget_call(wire) else { return };
                self.refuse(
                    call.stream,
                    &call.id,
                    METHOD_NOT_FOUND,
                    "this method is not of this revision",
                    200,
                );
            }
            _ => self.relay(wire, frame),
        }
    }

    /// Sends a call's message with our id and token, in the terms of the process.
    pub(super) fn relay(&mut self, wire: u64, frame: &Frame<'_>) {
        let Some(line) = self.line_for(wire, frame) else { return };
        let keep = self.server.as_ref().is_some_and(|server| server.is_modern);
        let Some(call) = self.calls.get_mut(&wire) else { return };
        call.stage = Stage::Sent;
        // A result may want it sent again.
        let again = keep && call.what.can_ask() && !call.owner.is_modern();
        let text = again.then(|| frame.text.into());
        // A listen stream lasts, and nothing but what is tagged with it is its.
        if call.what != What::Listen {
            self.turns.sent(call.owner, wire, call.what.can_ask(), self.now);
        }
        self.keep_text(wire, text);
        self.send(line);
    }

    /// The line for a call.
    fn line_for(&self, wire: u64, frame: &Frame<'_>) -> Option<Vec<u8>> {
        let (call, server) = (self.calls.get(&wire)?, self.server.as_ref()?);
        let id = wire.to_string();
        let meta = frame.params.and_then(|params| members(params, ["_meta"]).ok()).and_then(|[meta]| meta);
        let mut splice = Splice::new(frame.text);
        splice.put(frame.request_id()?, id.clone());
        if let (Some(params), Some(more)) = (frame.params, &call.more) {
            splice.insert(params, more);
        }
        let token = meta.and_then(|meta| members(meta, ["progressToken"]).ok()).and_then(|[token]| token);
        match (call.owner, server.is_modern) {
            (Owner::Session(_), false) | (Owner::Modern | Owner::Guest(_), true) => {
                if let Some(token) = token.filter(|token| frame::is_id(token)) {
                    splice.put(token, id);
                }
            }
            (Owner::Modern | Owner::Guest(_), false) if meta.is_some() => {
                translate::put_meta(&mut splice, frame, meta, translate::meta(meta, Some(&id), ""));
            }
            (Owner::Modern | Owner::Guest(_), false) => {}
            (Owner::Session(session), true) => {
                let session = self.sessions.get(&session)?;
                let level = session.record.level.as_deref().or(server.logging.then_some("debug"));
                let more = translate::client_meta(&session.capabilities, session.info.as_deref(), level);
                translate::put_meta(&mut splice, frame, meta, translate::meta(meta, Some(&id), &more));
            }
        }
        Some(splice.finish("\n"))
    }

    /// An answer of the process, to whomever it is.
    pub(super) fn answered(
        &mut self,
        id: Option<&str>,
        outcome: Outcome<'_>,
        frame: &Frame<'_>,
        now: Moment,
    ) {
        let wire = id.and_then(whole_number);
        if let Some(own) = wire.and_then(|wire| self.own.remove(&wire)) {
            return self.own_answered(wire.unwrap_or(0), own, outcome, now);
        }
        let (Some(wire), Some(id)) = (wire, id) else {
            self.counts.unclaimed += 1;
            return;
        };
        match self.calls.get(&wire).map(|call| call.stage) {
            Some(Stage::Sent) => {}
            Some(Stage::Ghost(_)) => {
                self.forget_call(wire);
                self.counts.unclaimed += 1;
                return;
            }
            Some(Stage::Parked { .. }) => return self.keep_for_guest(wire, frame),
            Some(Stage::Waits | Stage::Asks) => {
                self.counts.unclaimed += 1;
                return;
            }
            None => {
                self.counts.unclaimed += u64::from(wire > self.forgotten);
                return;
            }
        }
        if self.is_modern_after_all(wire, outcome, now) || self.wants_more(wire, outcome) {
            return;
        }
        let Some(call) = self.forget_call(wire) else { return };
        if call.what == What::Initialize {
            self.client_opened(&call, outcome, now);
        }
        if let (What::List, Outcome::Result(result)) = (call.what, outcome)
            && self.server.as_ref().is_some_and(|server| server.is_modern)
        {
            self.mirrors.learn(result);
        }
        let event = self.translated(&call, id, outcome, frame);
        self.streams.answer(call.stream, event, &call.id);
        self.touch(call.owner, now);
        self.pump();
    }

    /// An answer in the terms of the client.
    pub(super) fn translated(&self, call: &Call, id: &str, outcome: Outcome<'_>, frame: &Frame<'_>) -> Event {
        let is_modern = self.server.as_ref().is_some_and(|server| server.is_modern);
        let mut splice = Splice::new(frame.text);
        let mut status = 200;
        splice.put(id, &*call.id);
        match (outcome, call.owner.is_modern()) {
            (Outcome::Error(error), true) => {
                let [code] = members(error, ["code"]).unwrap_or_default();
                // A legacy server's "no such resource" is 2026-07-28's "invalid params".
                match code.filter(|code| !is_modern && *code == "-32002") {
                    Some(code) => splice.put(code, "-32602"),
                    None => status = code.and_then(|code| code.parse().ok()).map_or(200, status_of),
                }
            }
            (Outcome::Result(result), true) if !is_modern => {
                let cacheable = matches!(call.what, What::Read | What::List);
                let missing = translate::missing_in_result(result, cacheable);
                if !missing.is_empty() {
                    splice.insert(result, &missing);
                }
            }
            // What the door says elsewhere is supported is what it says here.
            (Outcome::Result(result), true) if call.what == What::Discover => {
                if let Ok([Some(versions)]) = members(result, ["supportedVersions"]) {
                    splice.put(versions, format!("[\"{MODERN}\"]"));
                }
            }
            (Outcome::Result(result), true) if call.what == What::Listen => {
                translate::put_subscription(&mut splice, result, &call.id);
            }
            (Outcome::Result(_), true) | (_, false) => {}
        }
        Event { message: splice.finish(""), status }
    }

    /// Takes a call out of every table.
    pub(super) fn forget_call(&mut self, wire: u64) -> Option<Call> {
        let call = self.take_call(wire)?;
        self.timed.forget(wire);
        match call.stage {
            Stage::Waits => self.turns.forget(wire),
            Stage::Sent if call.what == What::Listen => {}
            Stage::Ghost(_) => self.turns.exorcise(call.owner, wire, call.what.can_ask()),
            Stage::Sent | Stage::Parked { is_over: false, .. } => {
                self.turns.answered(call.owner, wire, call.what.can_ask(), self.now);
            }
            Stage::Parked { is_over: true, .. } => {}
            Stage::Asks => self.waiting -= self.asks.forget_round(wire),
        }
        if !matches!(call.stage, Stage::Ghost(_))
            && let Some(session) = self.session_of(call.owner)
        {
            session.calls.remove(&*frame::plain_id(&call.id));
        }
        if let Owner::Session(key) = call.owner {
            self.may_be_idle(key);
        }
        Some(call)
    }

    /// Answers a call in the place of the process; `result` is JSON.
    pub(super) fn settle(&mut self, wire: u64, result: &str) {
        let Some(call) = self.forget_call(wire) else { return };
        let event = Event { message: frame::answer(&call.id, result), status: 200 };
        self.streams.answer(call.stream, event, &call.id);
    }

    /// Answers a call with an error.
    pub(super) fn fail(&mut self, wire: u64, code: i32, why: &str) {
        let Some(call) = self.forget_call(wire) else { return };
        self.refuse(call.stream, &call.id, code, why, 200);
    }

    pub(super) fn refuse(&mut self, stream: StreamKey, id: &str, code: i32, why: &str, status: u16) {
        let event = Event { message: frame::error(Some(id), code, why), status };
        self.streams.answer(stream, event, id);
    }

    /// The client gave a call up: the process is told, and what it still says of it is dropped.
    pub(super) fn cancel(&mut self, wire: u64, now: Moment) {
        let Some(stage) = self.calls.get(&wire).map(|call| call.stage) else { return };
        let Some(mut call) = self.forget_call(wire) else { return };
        if matches!(stage, Stage::Sent | Stage::Parked { is_over: false, .. }) {
            self.refuse_questions(&mut call);
            let params = format!(r#"{{"requestId":{wire}}}"#);
            self.send(frame::notification("notifications/cancelled", Some(&params)));
            if call.what != What::Listen {
                self.haunt(wire, call, now);
            }
        }
        self.pump();
    }

    /// The process may still work on a call that is nobody's any more.
    pub(super) fn haunt(&mut self, wire: u64, call: Call, now: Moment) {
        self.turns.haunt(call.owner, wire, call.what.can_ask());
        let until = now + HAUNTING;
        self.timed.note(until, wire);
        let stage = Stage::Ghost(until);
        self.put_call(wire, Call { stage, text: None, token: None, more: None, guest: None, ..call });
    }

    fn session_of(&mut self, owner: Owner) -> Option<&mut super::sessions::Session> {
        match owner {
            Owner::Session(key) => self.sessions.get_mut(&key),
            Owner::Modern | Owner::Guest(_) => None,
        }
    }
}

/// The progress token of a request, and the severity from which a modern one wants log messages.
fn asides(params: Option<&str>) -> Result<(Option<&str>, Option<u8>), &'static str> {
    let Some(params) = params.filter(|params| params.starts_with('{')) else { return Ok((None, None)) };
    let [meta] = few_members(params, ["_meta"]).map_err(|_| DOUBTFUL)?;
    let Some(meta) = meta.filter(|meta| meta.starts_with('{')) else { return Ok((None, None)) };
    let [token, level] = few_members(meta, ["progressToken", META_LEVEL]).map_err(|_| DOUBTFUL)?;
    let level = level.and_then(text_of).and_then(|level| severity(&level));
    match token.filter(|token| *token != "null") {
        // What is not made ours could be the one of somebody else's call.
        Some(token) if !frame::is_id(token) => {
            Err("the progress token is neither a string nor a number, or too long")
        }
        token => Ok((token, level)),
    }
}
