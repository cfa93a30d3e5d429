//! What the relay wants done, and what it hears of it.

use std::sync::Arc;
use std::time::Duration;

use super::Event;

/// One request of ours, by number.
pub type CallId = u64;

/// The methods of HTTP that MCP uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// Says something.
    Post,
    /// Listens.
    Get,
    /// Ends the session.
    Delete,
}

/// A request to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// What `Relay::heard` is told by.
    pub call: CallId,
    /// How.
    pub verb: Verb,
    /// All but those that HTTP itself needs.
    pub headers: Vec<(&'static str, String)>,
    /// The message, as the client wrote it.
    pub body: Arc<Vec<u8>>,
    /// When: so long from now.
    pub after: Duration,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Deed {
    /// Send this.
    Send(Order),
    /// Hear no more of this one, and let the other side know by hanging up.
    Drop(CallId),
    /// A line for the client, without its end.
    Say(Vec<u8>),
    /// A word for people.
    Note(String),
}

/// What became of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Happening {
    /// It is being answered, with a status of 200 to 299.
    Accepted {
        /// `Mcp-Session-Id`
        session: Option<String>,
        /// Which daemon answers: another one may stand for another process behind it.
        daemon: i32,
    },
    /// A piece of the answer: an event, or a whole body (without an id).
    Said(Event),
    /// It is over.
    Ended(End),
}

/// How an answer ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// All of it came.
    Whole,
    /// The connection was lost; the request may have arrived.
    Broken,
    /// The request never left.
    Unsent(String),
    /// Another status.
    Refused {
        /// Which.
        status: u16,
        /// The beginning of the answer's body.
        body: Vec<u8>,
        /// The daemon's own word, instead of the instance's answer.
        by_daemon: Option<String>,
    },
    /// It could not be understood.
    Strange(String),
}
