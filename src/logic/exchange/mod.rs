//! One stdio process on one side, its user's clients on the other.
//!
//! The exchange is what a bridge decides: which message goes where, under which id, in the terms
//! of which protocol era. It reads no clock, does no I/O and draws no lots: facts go in by method,
//! what is to be done comes out as [`Deed`]s, and what clients are to be told waits on streams until
//! it is taken with [`Exchange::next`].

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
    /// Something waits on this stream, or it has ended.
    Wake(StreamKey),
    /// The process answered its opening: the run is ready.
    Opened(Opened),
    /// The process answered its opening with a refusal: why, for people.
    Unfit(String),
    /// The process answered a health check.
    Healthy,
    /// The session began or changed.
    Remember(SessionRecord),
    /// The session ended (deleted, idle, or one too many); its id.
    Forget(String),
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
}

/// The exchange.
pub struct Exchange {/* … */}

#[expect(unused_variables, reason = "a frame to build against")]
impl Exchange {
    /// Without a process.
    pub fn new(settings: Settings) -> Self {
        todo!()
    }
    /// A process is there; `first_id` is higher than any id ever sent to it. `opened`: an earlier
    /// daemon had opened it. Sends the opening, or the round trip that shows it alive.
    pub fn attach(&mut self, first_id: u64, opened: Option<Opened>, now: Moment) {
        todo!()
    }
    /// One line of the process, without its newline.
    pub fn line(&mut self, line: &[u8], now: Moment) {
        todo!()
    }
    /// The process is gone.
    pub fn lost(&mut self, now: Moment) {
        todo!()
    }
    /// From now on no new call goes to this process; what was sent may still be answered.
    pub fn drain(&mut self) {
        todo!()
    }
    /// Calls sent and not answered.
    pub fn in_flight(&self) -> usize {
        todo!()
    }
    /// True if a process is open and takes calls.
    pub fn is_open(&self) -> bool {
        todo!()
    }
    /// Asks the process for a sign of life; [`Deed::Healthy`] is the answer. (Any answer of it is one.)
    pub fn check_health(&mut self) {
        todo!()
    }
    /// Begins a session with a client's `initialize`. `id`: unguessable, from the caller. Only while open,
    /// but for isolated exchanges, whose opening it is.
    pub fn initialize(
        &mut self,
        id: String,
        body: &[u8],
        now: Moment,
    ) -> Result<(SessionKey, StreamKey), Refused> {
        todo!()
    }
    /// A POST whose body is `body`. Only while open.
    pub fn post(&mut self, from: From, body: &[u8], now: Moment) -> Posted {
        todo!()
    }
    /// A GET without Last-Event-ID: the session's own stream; an earlier one of it ends.
    pub fn listen(&mut self, session: SessionKey, now: Moment) -> StreamKey {
        todo!()
    }
    /// A GET with Last-Event-ID: goes on behind that event. `None`: that id is not of this session.
    pub fn resume(&mut self, session: SessionKey, last_event_id: &str, now: Moment) -> Option<StreamKey> {
        todo!()
    }
    /// The id of an event before the first of this stream, for priming. `None` if it cannot be resumed.
    pub fn prime(&mut self, stream: StreamKey) -> Option<String> {
        todo!()
    }
    /// Takes the next message of a stream.
    pub fn next(&mut self, stream: StreamKey) -> Next {
        todo!()
    }
    /// Nobody reads this stream any more (its connection ended).
    pub fn dropped(&mut self, stream: StreamKey, now: Moment) {
        todo!()
    }
    /// DELETE.
    pub fn end_session(&mut self, session: SessionKey) {
        todo!()
    }
    /// Ends what was idle too long.
    pub fn expire(&mut self, now: Moment) {
        todo!()
    }
    /// When `expire` (or the silence of an opening) has to be looked at next.
    pub fn deadline(&self) -> Option<Moment> {
        todo!()
    }
    /// The session with this id.
    pub fn session(&self, id: &str) -> Option<SessionKey> {
        todo!()
    }
    /// The revision of a session.
    pub fn version(&self, session: SessionKey) -> Option<&str> {
        todo!()
    }
    /// Takes up a session of an earlier daemon.
    pub fn restore(&mut self, record: SessionRecord, now: Moment) -> SessionKey {
        todo!()
    }
    /// What is to be done since the last time.
    pub fn deeds(&mut self) -> Vec<Deed> {
        todo!()
    }
    /// What was seen.
    pub fn counts(&self) -> Counts {
        todo!()
    }
}
