//! Bytes ⇄ JSON-RPC: what a message is, read without touching what it says.
//!
//! [`parse`] reads the envelope (`jsonrpc`, `id`, `method`) and leaves `params`, `result` and `error` as
//! the text that came; [`members`] looks for a few members of such an object. To change a message is
//! to put other text in place of spans of it ([`Splice`]): every other byte stays, unknown members,
//! spellings of numbers and the order of keys included.
//!
//! A message that names a member twice is refused where we read it: two readers that choose
//! differently would otherwise see two messages in one.

mod members;
mod splice;
#[cfg(test)]
mod tests;
mod write;

use std::borrow::Cow;

use serde_json::value::RawValue;

pub use members::{
    Bad, Member, each_element, each_member, each_of_few_elements, each_of_few_members, few_members,
    looks_like, members, text_of,
};
pub use splice::Splice;
pub use write::{answer, error, error_with, notification, quoted, request};

/// The longest id and progress token that is passed on, in bytes of JSON text. They are kept for as
/// long as a call lasts.
pub const MAX_ID: usize = 1024;

/// A batch holds no more messages than this (JSON-RPC batches exist in 2025-03-26 only).
pub const MAX_BATCH: usize = 64;

/// JSON-RPC: the text is no JSON.
pub const PARSE_ERROR: i32 = -32700;
/// JSON-RPC: the JSON is no message.
pub const INVALID_REQUEST: i32 = -32600;
/// JSON-RPC: nobody here knows the method.
pub const METHOD_NOT_FOUND: i32 = -32601;
/// JSON-RPC: the params are not what the method takes.
pub const INVALID_PARAMS: i32 = -32602;
/// JSON-RPC: it cannot be done, for no fault of the caller.
pub const INTERNAL_ERROR: i32 = -32603;
/// Ours (the range is the implementation's): the server is not there, or ended during the call.
pub const SERVER_LOST: i32 = -32000;

/// One JSON-RPC message; the pieces are spans of [`text`](Self::text).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame<'a> {
    /// The whole message as it came.
    pub text: &'a str,
    /// What kind it is.
    pub kind: Kind<'a>,
    /// The `params` of a request or a notification: an object or an array, as it came.
    pub params: Option<&'a str>,
}

/// The three kinds of messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind<'a> {
    /// Wants an answer.
    Request {
        /// Its id as it came: a string or a number, in JSON.
        id: &'a str,
        /// Its method.
        method: Cow<'a, str>,
    },
    /// Wants none.
    Notification {
        /// Its method.
        method: Cow<'a, str>,
    },
    /// Answers a request.
    Answer {
        /// The id of the request as it came; `None` if it is null.
        id: Option<&'a str>,
        /// What it says.
        outcome: Outcome<'a>,
    },
}

/// What an answer says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome<'a> {
    /// `result`, as it came.
    Result(&'a str),
    /// `error`: an object, as it came.
    Error(&'a str),
}

impl<'a> Frame<'a> {
    /// The method of a request or a notification.
    #[must_use]
    pub fn method(&self) -> Option<&str> {
        match &self.kind {
            Kind::Request { method, .. } | Kind::Notification { method } => Some(method),
            Kind::Answer { .. } => None,
        }
    }

    /// The id of a request.
    #[must_use]
    pub const fn request_id(&self) -> Option<&'a str> {
        match &self.kind {
            Kind::Request { id, .. } => Some(id),
            Kind::Notification { .. } | Kind::Answer { .. } => None,
        }
    }
}

/// The body of a POST.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body<'a> {
    /// One message.
    One(Frame<'a>),
    /// Several, of which there is at least one.
    Batch(Vec<Frame<'a>>),
}

/// Why a text is no message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotAMessage<'a> {
    /// [`PARSE_ERROR`] or [`INVALID_REQUEST`].
    pub code: i32,
    /// For people; holds nothing of the text.
    pub why: &'static str,
    /// The id, where there is a usable one.
    pub id: Option<&'a str>,
}

impl NotAMessage<'_> {
    /// The JSON-RPC error that says so.
    #[must_use]
    pub fn to_error(&self) -> Vec<u8> {
        error(self.id, self.code, self.why)
    }
}

const fn invalid<'a>(why: &'static str, id: Option<&'a str>) -> NotAMessage<'a> {
    NotAMessage { code: INVALID_REQUEST, why, id }
}

/// Why params are refused by whose members a call would be told from another.
pub const DOUBTFUL: &str = "a member stands twice in the params, or they are too many";

/// Reads one message.
///
/// # Errors
///
/// When the text is no UTF-8, no JSON, or no JSON-RPC 2.0 message; an array is none.
pub fn parse(bytes: &[u8]) -> Result<Frame<'_>, NotAMessage<'_>> {
    parse_text(utf8(bytes)?)
}

/// Reads the body of a POST: one message, or an array of them.
///
/// # Errors
///
/// As [`parse`]; and when the array is empty, too long, or holds anything but messages.
pub fn parse_body(bytes: &[u8]) -> Result<Body<'_>, NotAMessage<'_>> {
    let text = utf8(bytes)?;
    if !text.trim_ascii_start().starts_with('[') {
        return parse_text(text).map(Body::One);
    }
    let mut frames = Vec::new();
    let mut wrong = None;
    let read = each_of_few_elements(text, |element| {
        if wrong.is_none() && frames.len() < MAX_BATCH {
            match parse_text(element) {
                Ok(frame) => frames.push(frame),
                Err(problem) => wrong = Some(problem),
            }
        } else if wrong.is_none() {
            wrong = Some(invalid("a batch of too many messages", None));
        }
    });
    match (read, wrong) {
        (_, Some(problem)) => Err(problem),
        (Err(_), None) => Err(NotAMessage { code: PARSE_ERROR, why: "the body is no JSON", id: None }),
        (Ok(()), None) if frames.is_empty() => Err(invalid("a batch of no messages", None)),
        (Ok(()), None) => Ok(Body::Batch(frames)),
    }
}

fn utf8(bytes: &[u8]) -> Result<&str, NotAMessage<'_>> {
    let text = std::str::from_utf8(bytes);
    text.map_err(|_| NotAMessage { code: PARSE_ERROR, why: "the text is no UTF-8", id: None })
}

/// What stood in an envelope.
#[derive(Default)]
struct Parts<'a> {
    jsonrpc: Option<&'a str>,
    id: Option<&'a str>,
    method: Option<&'a str>,
    params: Option<&'a str>,
    result: Option<&'a str>,
    error: Option<&'a str>,
    /// A member was named twice, or in a spelling that a careless reader takes for it.
    doubtful: bool,
}

impl<'a> Parts<'a> {
    fn put(&mut self, member: &Member<'a>) {
        let key = &*member.key;
        let place = match key {
            "jsonrpc" => &mut self.jsonrpc,
            "id" => &mut self.id,
            "method" => &mut self.method,
            "params" => &mut self.params,
            "result" => &mut self.result,
            "error" => &mut self.error,
            // Readers that ignore case (Go's encoding/json) would take these for ours.
            _ => {
                let known = ["jsonrpc", "id", "method", "params", "result", "error"];
                self.doubtful |= known.iter().any(|known| looks_like(key, known));
                return;
            }
        };
        self.doubtful |= place.replace(member.value).is_some();
    }
}

fn parse_text(text: &str) -> Result<Frame<'_>, NotAMessage<'_>> {
    let mut parts = Parts::default();
    if each_of_few_members(text, |member| parts.put(&member)).is_err() {
        let is_json = serde_json::from_str::<&RawValue>(text).is_ok();
        let not_json = NotAMessage { code: PARSE_ERROR, why: "the text is no JSON", id: None };
        return Err(if is_json {
            invalid("the message is no object, or one of too many members", None)
        } else {
            not_json
        });
    }
    let id = parts.id.filter(|id| is_id(id));
    if parts.doubtful {
        return Err(invalid("a member stands twice in the message", id));
    }
    if parts.jsonrpc != Some("\"2.0\"") {
        return Err(invalid("the message is not JSON-RPC 2.0", id));
    }
    match (parts.id, id) {
        (Some(given), None) if given != "null" || parts.method.is_some() => {
            return Err(invalid("the id is neither a string nor a number, or too long", None));
        }
        _ => {}
    }
    frame(text, &parts, id)
}

/// Puts the parts together, if they make a message.
fn frame<'a>(text: &'a str, parts: &Parts<'a>, id: Option<&'a str>) -> Result<Frame<'a>, NotAMessage<'a>> {
    let params = parts.params.filter(|params| *params != "null");
    if params.is_some_and(|params| !params.starts_with(['{', '['])) {
        return Err(invalid("params is neither an object nor an array", id));
    }
    // Some libraries write both members of an answer, and null in the one that does not count.
    let (result, error) = match (parts.result, parts.error) {
        (Some(_), Some("null")) => (parts.result, None),
        (Some("null"), Some(_)) => (None, parts.error),
        both => both,
    };
    let kind = match (parts.method, result, error) {
        (Some(method), None, None) => {
            let method = text_of(method).ok_or_else(|| invalid("the method is no string", id))?;
            match id {
                Some(id) => Kind::Request { id, method },
                None => Kind::Notification { method },
            }
        }
        (None, Some(result), None) => Kind::Answer { id, outcome: Outcome::Result(result) },
        (None, None, Some(error)) if error.starts_with('{') => {
            Kind::Answer { id, outcome: Outcome::Error(error) }
        }
        _ => return Err(invalid("the message is neither a request nor an answer", id)),
    };
    if matches!(kind, Kind::Answer { .. }) && parts.id.is_none() {
        return Err(invalid("an answer without an id", None));
    }
    Ok(Frame { text, kind, params })
}

/// True if this JSON text can be an id or a progress token: a string or a number, not too long.
#[must_use]
pub fn is_id(json: &str) -> bool {
    json.len() <= MAX_ID && json.starts_with(|c: char| c == '"' || c == '-' || c.is_ascii_digit())
}

/// The spelling under which two ids are the same: a string without needless escapes, a number as it came.
#[must_use]
pub fn plain_id(id: &str) -> Cow<'_, str> {
    if !id.contains('\\') {
        return Cow::Borrowed(id);
    }
    text_of(id).map_or(Cow::Borrowed(id), |text| Cow::Owned(quoted(&text)))
}

/// The number in a JSON text that is one of our ids: however it is spelled, if it is a whole number.
#[must_use]
pub fn whole_number(json: &str) -> Option<u64> {
    if let Ok(number) = json.parse() {
        return Some(number);
    }
    // 1.0 and 1e3 from languages without whole numbers.
    if !json.contains(['.', 'e', 'E']) {
        return None;
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked just before")]
    json.parse::<f64>().ok().filter(|n| n.fract() == 0.0 && (0.0..9e15).contains(n)).map(|n| n as u64)
}
