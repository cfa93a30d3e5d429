//! One stdio process on one side, its user's clients on the other.
//!
//! The exchange is what a bridge decides: which message goes where, under which id, in the terms
//! of which protocol era. It reads no clock, does no I/O and draws no lots: facts go in by method,
//! what is to be done comes out as [`Deed`]s, and what clients are to be told waits on streams until
//! it is taken with [`Exchange::next`].
//!
//! | file | decides |
//! |---|---|
//! | `opening` | which era the process speaks; its comings and goings |
//! | `posts` | what a client's message is, and where it goes |
//! | `what` | what a request asks for, as far as it matters |
//! | `calls` | requests in flight: ids and progress tokens of both sides, in the terms of both eras |
//! | `table` | how many of them there may be, and how much is kept of them |
//! | `notices` | what the process says unasked, and to whom |
//! | `asks` | what the process asks a client, and the client's answers |
//! | `rounds` | the same for a modern process (`input_required`) and a legacy client |
//! | `due` | when something is to be looked at next |
//! | `parks` | the other way round: a legacy process and a modern client |
//! | `turns` | whose calls are in flight; sessions that must not be so at the same time |
//! | `listens`, `wants` | subscriptions of both eras |
//! | `bounds` | how much of all that, at most |
//! | `sessions`, `streams` | who is there, and what waits to be told to them |
//!
//! What a process says reaches the client it is meant for or nobody: where that cannot be told, it is
//! refused or dropped, and counted.

mod asks;
mod bounds;
mod calls;
mod due;
mod listens;
mod mirrors;
mod notices;
mod opening;
mod parks;
mod posts;
mod rounds;
mod server;
mod sessions;
mod streams;
mod table;
#[cfg(test)]
mod tests;
mod translate;
mod turns;
mod wants;
mod what;

use std::collections::{BTreeMap, HashMap};

use asks::Asks;
use calls::Own;
use due::Due;
use listens::Listens;
pub use mirrors::Head;
use mirrors::Mirrors;
use opening::Process;
use server::Server;
use sessions::Session;
use streams::Streams;
use table::Call;
use turns::Turns;

use crate::model::Moment;

/// A legacy session inside one exchange; never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionKey(pub u64);

/// One sequence of messages to one client: what answers a POST, or what a GET listens to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamKey(pub u64);

/// Who sent a POST.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum From {
    /// A client of a known session.
    Session(SessionKey),
    /// A client of the modern era, which has no session. `logic::era` has found its headers right.
    Modern,
}

/// What becomes of a POST.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Posted {
    /// Taken, and nothing will be said to it: 202.
    Accepted,
    /// The answer comes on this stream.
    Stream(StreamKey),
    /// Refused at once: an HTTP status and a whole JSON-RPC error.
    Refused(Refused),
}

pub use super::era::Refused;
pub use parks::Seal;

/// What comes next on a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// A message; `id` where the stream can be resumed behind it.
    Message {
        /// The SSE event id.
        id: Option<String>,
        /// One JSON-RPC message without a newline.
        message: Vec<u8>,
        /// Nothing follows it.
        last: bool,
        /// The HTTP status for it if it is sent as the whole answer (modern error codes); else 200.
        status: u16,
    },
    /// Nothing yet; [`Deed::Wake`] will say.
    Pending,
    /// Nothing will come any more.
    End,
}

/// How the process was opened: kept by the daemon in the run's directory for a next daemon.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Opened {
    /// True if it speaks 2026-07-28.
    pub is_modern: bool,
    /// The result of `initialize` or `server/discover`, as it came.
    pub result: String,
}

/// What a next daemon must know of a session.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct SessionRecord {
    /// `Mcp-Session-Id`. Secret: whoever has it speaks as this client.
    pub id: String,
    /// The negotiated revision.
    pub version: String,
    /// The params of the client's `initialize`, as they came.
    pub initialize: String,
    /// `logging/setLevel`, if it was said.
    pub level: Option<String>,
    /// `resources/subscribe`d.
    pub subscriptions: Vec<String>,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Deed {
    /// Write this line, newline included, to the process.
    Send(Vec<u8>),
    /// The same, with what we ourselves answer to the process. One that asks and does not read need not
    /// be answered.
    Reply(Vec<u8>),
    /// Something waits on this stream, or it has ended.
    Wake(StreamKey),
    /// The process answered its opening: the run is ready.
    Opened(Opened),
    /// The process answered its opening with a refusal: why, for people.
    Unfit(String),
    /// The process answered a health check.
    Healthy,
    /// The session began or changed; what is to be known of it is its [`Exchange::record`] by then.
    Remember(SessionKey),
    /// The session ended (deleted, idle, or one too many); its id.
    Forget(String),
    /// Whoever waits for [`Exchange::knows_heads`] should look again.
    Learned,
}

/// How an exchange behaves.
#[derive(Debug, Clone)]
pub struct Settings {
    /// One session with a process of its own, opened by that client's own `initialize`.
    pub isolated: bool,
    /// `None`: probe.
    pub modern: Option<bool>,
    /// More sessions than this end the one that was idle longest.
    pub max_sessions: usize,
    /// A session without an open stream, a call in flight or a message for this long is ended.
    pub session_idle: std::time::Duration,
    /// What makes `requestState` of modern clients' calls; without it they are asked nothing.
    pub seal: Option<Seal>,
    /// The name and version we give as a client.
    pub version: &'static str,
}

/// What was seen and could not be passed on; for the log and `status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Lines of the process that were no JSON-RPC message.
    pub not_json_rpc: u64,
    /// Answers to nobody: a dead daemon's, a cancelled call's.
    pub unclaimed: u64,
    /// Messages of which it cannot be told whose they are.
    pub ambiguous: u64,
    /// Openings that the process refused.
    pub refusals: u64,
}

/// Requests in flight or waiting, at most; one more is refused.
pub const MAX_CALLS: usize = 16_384;

/// The exchange.
pub struct Exchange {
    settings: Settings,
    process: Process,
    /// The era of the process, once it was found out; it survives the process.
    era: Option<bool>,
    /// What is known of the last process that was opened.
    server: Option<Server>,
    /// There are sessions of an earlier daemon, and no process was opened since.
    is_restored: bool,
    /// The last moment that was told.
    now: Moment,
    /// The next id to the process.
    next_id: u64,
    /// Clients' requests, by the id under which the process knows them.
    calls: BTreeMap<u64, Call>,
    /// How many of them are of each session, or of modern clients.
    shares: BTreeMap<Option<SessionKey>, usize>,
    /// Bytes of what is kept of them, and of what clients answered in their rounds.
    waiting: usize,
    /// Our own requests in flight.
    own: BTreeMap<u64, Own>,
    /// The last of them whose answer is not looked for any more.
    forgotten: u64,
    turns: Turns,
    asks: Asks,
    listens: Listens,
    mirrors: Mirrors,
    sessions: BTreeMap<SessionKey, Session>,
    by_id: HashMap<String, SessionKey>,
    /// Sessions by when they were seen; those that are busy may be missing.
    idle: Due<SessionKey>,
    /// Calls that are cancelled or parked, by when they are forgotten.
    timed: Due<u64>,
    next_session: u64,
    streams: Streams,
    /// A health check waits for an answer.
    is_checked: bool,
    /// The process does not read what it was sent.
    is_blocked: bool,
    deeds: Vec<Deed>,
    counts: Counts,
}

impl std::fmt::Debug for Exchange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Session ids are secrets, and messages may hold some.
        f.debug_struct("Exchange").field("calls", &self.calls.len()).finish_non_exhaustive()
    }
}

fn ended(mut line: Vec<u8>) -> Vec<u8> {
    if line.last() != Some(&b'\n') {
        line.push(b'\n');
    }
    line
}

impl Exchange {
    /// Without a process.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            process: Process::Away,
            era: None,
            server: None,
            is_restored: false,
            now: Moment::default(),
            next_id: 1,
            calls: BTreeMap::new(),
            shares: BTreeMap::new(),
            waiting: 0,
            own: BTreeMap::new(),
            forgotten: 0,
            turns: Turns::default(),
            asks: Asks::default(),
            listens: Listens::default(),
            mirrors: Mirrors::default(),
            sessions: BTreeMap::new(),
            by_id: HashMap::new(),
            idle: Due::default(),
            timed: Due::default(),
            next_session: 0,
            streams: Streams::default(),
            is_checked: false,
            is_blocked: false,
            deeds: Vec::new(),
            counts: Counts::default(),
        }
    }

    /// Takes the next message of a stream.
    pub fn next(&mut self, stream: StreamKey) -> Next {
        let session = self.streams.session_of(stream);
        let next = self.streams.next(stream);
        // The last of a stream may have been what kept its session busy.
        if let Some(key) = session
            && matches!(next, Next::End | Next::Message { last: true, .. })
        {
            self.may_be_idle(key);
        }
        next
    }

    /// The id of an event before the first of this stream, for priming. `None` if it cannot be resumed.
    pub fn prime(&mut self, stream: StreamKey) -> Option<String> {
        self.streams.prime(stream)
    }

    /// What is to be done since the last time.
    pub fn deeds(&mut self) -> Vec<Deed> {
        self.renew_listen();
        let mut deeds = std::mem::take(&mut self.deeds);
        deeds.extend(self.streams.woken().into_iter().map(Deed::Wake));
        deeds
    }

    /// What was seen.
    #[must_use]
    pub const fn counts(&self) -> Counts {
        self.counts
    }

    /// Bytes of what is kept for clients and for the process: requests, wishes and messages that wait.
    #[must_use]
    pub fn kept(&self) -> usize {
        self.waiting + self.parked() + self.streams.held() + self.listens.wants.bytes() + self.mirrors.bytes()
    }

    /// An id that the process never heard.
    const fn fresh(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    /// Writes a line to the process.
    fn send(&mut self, line: Vec<u8>) {
        self.deeds.push(Deed::Send(ended(line)));
    }

    /// Writes a line on which nothing hangs but the process's own question.
    fn reply(&mut self, line: Vec<u8>) {
        self.deeds.push(Deed::Reply(ended(line)));
    }

    /// The process does not read what it was sent, or does so again: what can be said later waits, and what it
    /// becomes meanwhile is said once.
    pub const fn block(&mut self, is_blocked: bool) {
        self.is_blocked = is_blocked;
    }

    /// So many bytes of what was taken from streams are still on their way to clients.
    pub const fn owe(&mut self, bytes: usize) {
        self.streams.owed = bytes;
    }
}
