//! A stream on its way to a client, as server-sent events.
//!
//! Nothing is queued here: the body asks the exchange for the next message when the connection has
//! room for it.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::Frame;

use super::line::Line;
use super::state::Item;
use crate::logic::exchange::{From, Next, StreamKey};

/// How long a client should wait before it resumes a stream that broke.
const RETRY: &str = "1000";

/// The first revision whose clients know what an event without data is for.
pub(super) const PRIMED_SINCE: &str = "2025-11-25";

/// Somebody reads a stream. When this is dropped before the stream has ended, the exchange hears of
/// it: what is left of the stream is kept, or its call cancelled.
pub(super) struct Reading {
    line: Arc<Line>,
    stream: StreamKey,
    /// Which reader of it this is.
    number: u64,
    has_ended: bool,
}

impl Reading {
    pub(super) fn new(line: Arc<Line>, stream: StreamKey) -> Self {
        let number = line.turn(|state, _| state.begin_reading(stream));
        Self { line, stream, number, has_ended: false }
    }

    /// What comes next; never [`Next::Pending`]. To be asked no more after the last.
    pub(super) async fn next(&mut self) -> Next {
        loop {
            if let Item::Next(next) = poll_fn(|cx| self.poll(cx)).await {
                return next;
            }
        }
    }

    /// What goes to the client, counted until it has reached it.
    pub(super) fn count(&self, message: Vec<u8>) -> Bytes {
        self.line.owed.count(message)
    }

    /// The id of an event before the stream's first, for clients who know what that is for.
    pub(super) fn prime(&self, from: From) -> Option<String> {
        self.line.turn(|state, _| match from {
            From::Session(key) if state.exchange.version(key)? >= PRIMED_SINCE => {
                state.exchange.prime(self.stream)
            }
            From::Session(_) | From::Modern => None,
        })
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Item> {
        let item = ready!(self.line.turn(|state, _| state.poll(self.stream, self.number, cx)));
        match &item {
            Item::Next(Next::End | Next::Message { last: true, .. }) => self.has_ended = true,
            Item::Next(Next::Message { last: false, .. } | Next::Pending) | Item::Comment => {}
        }
        Poll::Ready(item)
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        let is_unread = !self.has_ended;
        self.line.turn(|state, now| state.end_reading(self.stream, self.number, is_unread, now));
    }
}

/// The body of an answer that is a stream.
pub(in crate::door) struct Events {
    /// What goes first.
    lead: Vec<u8>,
    reading: Reading,
}

impl Events {
    /// A stream from here on. `prime`: the id of an event before its first, so that a client can
    /// resume it from the beginning; `is_kept`: its connection is shown alive.
    pub(super) fn new(reading: Reading, prime: Option<String>, is_kept: bool) -> Self {
        let lead =
            prime.map_or_else(Vec::new, |id| format!("id: {id}\nretry: {RETRY}\ndata: \n\n").into_bytes());
        if is_kept && !reading.has_ended {
            reading.line.turn(|state, now| state.keep(reading.stream, reading.number, now));
        }
        Self { lead, reading }
    }

    /// Puts a message, which was taken already, at the beginning.
    pub(super) fn begin_with(mut self, id: Option<&str>, message: &[u8]) -> Self {
        render(&mut self.lead, id, message);
        self
    }

    pub(in crate::door) fn poll_part(&mut self, cx: &mut Context<'_>) -> Poll<Option<Frame<Bytes>>> {
        let mut part = std::mem::take(&mut self.lead);
        if part.is_empty() {
            if self.reading.has_ended {
                return Poll::Ready(None);
            }
            match ready!(self.reading.poll(cx)) {
                Item::Next(Next::Message { id, message, .. }) => render(&mut part, id.as_deref(), &message),
                Item::Next(Next::Pending | Next::End) => return Poll::Ready(None),
                Item::Comment => part.extend_from_slice(b":\n\n"),
            }
        }
        Poll::Ready(Some(Frame::data(self.reading.count(part))))
    }

    pub(in crate::door) const fn is_end(&self) -> bool {
        self.lead.is_empty() && self.reading.has_ended
    }
}

/// Writes one event. A line break in JSON can only stand between its tokens, where a blank says the
/// same; in an event it would end the field, and what follows it would be a field of its own.
fn render(out: &mut Vec<u8>, id: Option<&str>, message: &[u8]) {
    out.reserve(message.len() + id.map_or(0, str::len) + 16);
    if let Some(id) = id {
        out.extend_from_slice(b"id: ");
        out.extend_from_slice(id.as_bytes());
        out.push(b'\n');
    }
    out.extend_from_slice(b"data: ");
    let start = out.len();
    out.extend_from_slice(message);
    for byte in &mut out[start..] {
        if matches!(byte, b'\n' | b'\r') {
            *byte = b' ';
        }
    }
    out.extend_from_slice(b"\n\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_whatever_breaks_its_message_holds() {
        let mut out = Vec::new();
        render(&mut out, Some("3-1"), b"{\"a\":\r1,\n\"b\":2}\r");
        render(&mut out, None, b"{}");
        assert_eq!(out, b"id: 3-1\ndata: {\"a\": 1, \"b\":2} \n\ndata: {}\n\n");
    }
}
