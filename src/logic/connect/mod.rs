//! `mcpsup connect`, thought through: a client that speaks lines on the one side, an instance that
//! speaks Streamable HTTP on the other.
//!
//! [`Relay`] hears the client's lines and what became of each request, and says what to do next
//! ([`Deed`]). There is no socket and no clock here. Messages travel byte for byte: their envelope
//! is read, and what the headers of 2026-07-28 repeat.
//!
//! | the client says | what is done |
//! |---|---|
//! | a request or notification before it has said `initialized` | sent, one after another |
//! | a request after that | sent at once, beside the others |
//! | a notification | sent after the one before it |
//! | an answer, or `notifications/cancelled` | sent at once |
//! | anything with a version in its `_meta` (2026-07-28) | sent at once, with that revision's headers |
//! | `notifications/cancelled` for one of those | that request's answer is dropped, which says it |
//!
//! An instance that does not know the session any more (404) gets the client's own `initialize`
//! again, whose answer the client does not see; what was refused so had no effect and is sent once
//! more. What may have had an effect is never sent twice: it is answered with an error.

mod answer;
mod deed;
mod end;
mod message;
mod session;
mod sse;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use serde_json::value::RawValue;

pub use deed::{CallId, Deed, End, Happening, Order, Verb};
pub use sse::{Event, Events, TooLong};

use message::{Envelope, Lists, error, header, is_plain, key};

/// Requests in flight at once.
pub const MAX_CALLS: usize = 200;
/// Messages that wait for their turn.
const MAX_WAITING: usize = 1000;
/// Times that a stream is taken up again without anything new on it.
const MAX_RESUMED: u32 = 10;
/// How long to stay away from a stream that ended, where the server names no time; it doubles.
const STAY_AWAY: Duration = Duration::from_secs(1);
/// The longest wait of our own between two tries for a stream.
const LONGEST_AWAY: Duration = Duration::from_secs(10);
/// The longest wait between two tries for a stream that a server may ask for.
const LONGEST_RETRY: Duration = Duration::from_secs(300);

/// How far a legacy session is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The client has not said `initialized`; what it says is sent in order.
    Opening,
    /// It has.
    Open,
    /// We open another session in its name; what it says waits.
    Renewing,
    /// That did not succeed; it is tried again when the client next says something.
    Lost,
}

#[derive(Debug)]
enum What {
    Request(Asked),
    Notification {
        initialized: bool,
    },
    /// To a request of the server's.
    Answer,
    /// The client's `initialize` once more.
    Replay,
    /// `initialized` after that.
    Ready,
    /// The stream for what belongs to no request.
    Stream,
}

#[derive(Debug)]
struct Asked {
    /// As the client wrote it.
    id: String,
    key: String,
    method: String,
    /// Of 2026-07-28: no session, and hanging up cancels it.
    modern: bool,
    cancelled: bool,
}

/// A message that waits to be sent, or has been.
#[derive(Debug)]
struct Message {
    what: What,
    body: Arc<Vec<u8>>,
    /// Of a modern message; a legacy one gets those of its session.
    headers: Option<Vec<(&'static str, String)>>,
    /// It was refused unseen once.
    again: bool,
}

#[derive(Debug)]
struct Call {
    message: Message,
    /// The session's number when it was sent, and whether it named a session.
    round: u32,
    named_session: bool,
    answered: bool,
    /// By which its stream can be taken up again.
    last_event: Option<String>,
    retry: Option<Duration>,
    /// Times it was taken up since something came.
    resumed: u32,
}

/// The client's legacy session.
#[derive(Debug, Default)]
struct Session {
    /// The client's `initialize`.
    opening: Option<Arc<Vec<u8>>>,
    /// It has said `initialized` and that was accepted.
    ready: bool,
    id: Option<String>,
    version: Option<String>,
    lists: Lists,
    round: u32,
    daemon: i32,
    /// Requests of the server's that the client has not answered.
    asked: BTreeMap<String, String>,
    /// The same of sessions before; answers to them go nowhere.
    stale: BTreeSet<String>,
    stream: Option<CallId>,
    stream_fails: u32,
}

/// What goes between one client and one instance.
#[derive(Debug)]
pub struct Relay {
    stage: Stage,
    session: Session,
    calls: BTreeMap<CallId, Call>,
    next: CallId,
    /// What waits for its turn, and whose turn it is.
    lane: VecDeque<Message>,
    turn: Option<CallId>,
    /// The version that a modern client last spoke.
    modern: Option<String>,
    closing: bool,
    deeds: Vec<Deed>,
}

impl Default for Relay {
    fn default() -> Self {
        Self {
            stage: Stage::Opening,
            session: Session::default(),
            calls: BTreeMap::new(),
            next: 1,
            lane: VecDeque::new(),
            turn: None,
            modern: None,
            closing: false,
            deeds: Vec::new(),
        }
    }
}

const NO_ID: &str = "null";
/// JSON-RPC 2.0 §5.1, and one of the codes it leaves to servers.
const NOT_JSON: i32 = -32700;
const NOT_A_REQUEST: i32 = -32600;
const BAD_PARAMS: i32 = -32602;
const FAILED: i32 = -32000;

impl Relay {
    /// What is to be done since this was last asked.
    pub fn deeds(&mut self) -> Vec<Deed> {
        std::mem::take(&mut self.deeds)
    }

    /// True if nothing is under way that a client who has said all would wait for.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        let waits = |call: &Call| match &call.message.what {
            What::Request(_) | What::Notification { .. } | What::Answer | What::Replay | What::Ready => {
                !call.answered
            }
            What::Stream => false,
        };
        self.lane.is_empty() && !self.calls.values().any(waits)
    }

    /// A line of the client, without its end.
    pub fn line(&mut self, line: Vec<u8>) {
        if line.trim_ascii().is_empty() {
            return;
        }
        let Some(envelope) = Envelope::read(&line) else {
            let is_json = serde_json::from_slice::<&RawValue>(&line).is_ok();
            let (code, text) = if is_json {
                (NOT_A_REQUEST, "expected one JSON-RPC message on a line")
            } else {
                (NOT_JSON, "this line is not JSON")
            };
            return self.say(error(NO_ID, code, text));
        };
        let id = envelope.id.map(|id| (id.get().to_owned(), key(id)));
        let Some(said) = envelope.said() else {
            let id = id.map_or_else(|| NO_ID.to_owned(), |(id, _)| id);
            return self.say(error(&id, BAD_PARAMS, "the params cannot be read"));
        };
        let Some(method) = envelope.method.map(std::borrow::Cow::into_owned) else {
            return self.answer(id.map(|(_, key)| key), line);
        };
        if method == "notifications/cancelled" && id.is_none() && self.hang_up(said.cancels.as_deref()) {
            return;
        }
        // A client of 2026-07-28 that says less than it should is still one.
        let version = said.version.or_else(|| {
            let speaks_modern = self.session.opening.is_none() && id.is_none();
            self.modern.clone().filter(|_| speaks_modern)
        });
        let modern = version.is_some();
        let headers = match version {
            None => None,
            Some(version) if is_plain(&version) && is_plain(&method) => {
                Some(self.modern_headers(version, &method, said.name.as_deref()))
            }
            Some(_) => {
                let id = id.map_or_else(|| NO_ID.to_owned(), |(id, _)| id);
                let text = "no header can carry this method or version";
                return self.say(error(&id, NOT_A_REQUEST, text));
            }
        };
        let is_cancel = method == "notifications/cancelled";
        let what = match id {
            Some((id, key)) => What::Request(Asked { id, key, method, modern, cancelled: false }),
            None => What::Notification { initialized: method == "notifications/initialized" && !modern },
        };
        self.take(Message { what, body: Arc::new(line), headers, again: false }, is_cancel);
    }

    /// A line that was too long to be read.
    pub fn overlong(&mut self, most: usize) {
        self.say(error(NO_ID, NOT_A_REQUEST, &format!("a line is longer than {most} bytes")));
    }

    /// The client says no more.
    pub fn eof(&mut self) {
        self.closing = true;
        let listens = |call: &Call| match &call.message.what {
            What::Request(asked) => asked.method == "subscriptions/listen",
            What::Stream => true,
            What::Notification { .. } | What::Answer | What::Replay | What::Ready => false,
        };
        let over: Vec<CallId> =
            self.calls.iter().filter(|(_, call)| listens(call)).map(|(id, _)| *id).collect();
        for call in over {
            self.calls.remove(&call);
            self.deeds.push(Deed::Drop(call));
        }
    }

    /// The last request: the session is over. `None` if there is none.
    #[must_use]
    pub fn farewell(&mut self) -> Option<Order> {
        self.session.id.as_ref()?;
        let headers = self.legacy_headers(false);
        let call = self.number();
        Some(Order { call, verb: Verb::Delete, headers, body: Arc::default(), after: Duration::ZERO })
    }

    /// What became of a request.
    pub fn heard(&mut self, id: CallId, happening: Happening) {
        // One that was dropped meanwhile.
        if !self.calls.contains_key(&id) {
            return;
        }
        match happening {
            Happening::Accepted { session, daemon } => self.accepted(id, session, daemon),
            Happening::Said(event) => self.said(id, event),
            Happening::Ended(end) => self.ended(id, &end),
        }
        self.pump();
    }

    fn say(&mut self, line: Vec<u8>) {
        self.deeds.push(Deed::Say(line));
    }

    fn note(&mut self, text: impl Into<String>) {
        self.deeds.push(Deed::Note(text.into()));
    }

    fn number(&mut self) -> CallId {
        self.next += 1;
        self.next
    }

    fn modern_headers(
        &mut self,
        version: String,
        method: &str,
        name: Option<&str>,
    ) -> Vec<(&'static str, String)> {
        self.modern = Some(version.clone());
        let mut headers = vec![("mcp-protocol-version", version), ("mcp-method", method.to_owned())];
        headers.extend(name.map(|name| ("mcp-name", header(name).into_owned())));
        headers
    }

    fn legacy_headers(&self, opens: bool) -> Vec<(&'static str, String)> {
        let Session { id, version, .. } = &self.session;
        let all = [("mcp-session-id", id), ("mcp-protocol-version", version)];
        let known = all.into_iter().filter(|_| !opens);
        known.filter_map(|(name, value)| Some((name, value.clone()?))).collect()
    }

    /// A client's answer to a request of the server's.
    fn answer(&mut self, key: Option<String>, line: Vec<u8>) {
        let Some(key) = key else {
            return self.note("an answer without an id goes nowhere");
        };
        // Asked in a session that is over: in this one the same id may be something else.
        let is_known = self.session.asked.remove(&key).is_some();
        if !is_known && self.session.stale.remove(&key) {
            return;
        }
        if self.stage == Stage::Renewing {
            return;
        }
        self.send(Message { what: What::Answer, body: Arc::new(line), headers: None, again: false });
    }

    /// Drops the answer of a modern request; false if there is no such request.
    fn hang_up(&mut self, key: Option<&str>) -> bool {
        let mut over = None;
        for (id, call) in &mut self.calls {
            if let What::Request(asked) = &mut call.message.what
                && Some(asked.key.as_str()) == key
                && !call.answered
            {
                asked.cancelled = true;
                if asked.modern {
                    over = Some(*id);
                }
            }
        }
        if let Some(call) = over {
            self.calls.remove(&call);
            self.deeds.push(Deed::Drop(call));
        }
        // A modern client's cancellation that comes too late says nothing to anybody either.
        over.is_some() || (self.session.opening.is_none() && self.modern.is_some())
    }

    /// Sends a message, or lets it wait for its turn.
    fn take(&mut self, message: Message, is_cancel: bool) {
        if let What::Request(asked) = &message.what {
            self.forget_answered();
            if self.calls.len() >= MAX_CALLS || self.lane.len() >= MAX_WAITING {
                let text = format!("more than {MAX_CALLS} calls at once");
                let line = error(&asked.id, FAILED, &text);
                return self.say(line);
            }
        } else if self.lane.len() >= MAX_WAITING {
            return self.note("a notification is dropped, for too many wait");
        }
        let has_session = matches!(self.stage, Stage::Opening | Stage::Open);
        if message.headers.is_some() || (is_cancel && has_session) {
            self.send(message);
            return;
        }
        if self.stage == Stage::Lost {
            self.renew();
        }
        self.lane.push_back(message);
        self.pump();
    }

    /// Makes room where a server leaves the streams of answers open.
    fn forget_answered(&mut self) {
        if self.calls.len() < MAX_CALLS {
            return;
        }
        let over: Vec<CallId> =
            self.calls.iter().filter(|(_, call)| call.answered).map(|(id, _)| *id).collect();
        for id in over {
            self.calls.remove(&id);
            self.deeds.push(Deed::Drop(id));
        }
    }

    /// Sends what has its turn.
    fn pump(&mut self) {
        loop {
            let is_free = match self.stage {
                Stage::Opening | Stage::Open => self.turn.is_none(),
                Stage::Renewing | Stage::Lost => false,
            };
            if !is_free {
                return;
            }
            let Some(message) = self.lane.pop_front() else { return };
            let is_request = matches!(message.what, What::Request(_));
            let id = self.send(message);
            if !is_request || self.stage == Stage::Opening {
                self.turn = Some(id);
            }
        }
    }

    fn send(&mut self, message: Message) -> CallId {
        let id = self.number();
        let opens = match &message.what {
            What::Request(asked) if asked.method == "initialize" && !asked.modern => {
                self.begin(message.body.clone());
                true
            }
            What::Replay => true,
            What::Request(_) | What::Notification { .. } | What::Answer | What::Ready | What::Stream => false,
        };
        let headers = message.headers.clone().unwrap_or_else(|| self.legacy_headers(opens));
        let call = Call {
            round: self.session.round,
            named_session: message.headers.is_none() && !opens && self.session.id.is_some(),
            answered: false,
            last_event: None,
            retry: None,
            resumed: 0,
            message,
        };
        let body = call.message.body.clone();
        self.calls.insert(id, call);
        self.deeds.push(Deed::Send(Order {
            call: id,
            verb: Verb::Post,
            headers,
            body,
            after: Duration::ZERO,
        }));
        id
    }

    /// One that needs no more attention than its end.
    fn done(&mut self, id: CallId) {
        if let Some(call) = self.calls.get_mut(&id) {
            call.answered = true;
        }
        if self.turn == Some(id) {
            self.turn = None;
        }
    }
}
