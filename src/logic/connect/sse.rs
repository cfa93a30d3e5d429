//! Server-sent events as a client reads them (WHATWG HTML §9.2.6): data, ids, and when to come
//! again. Each byte is looked at once, whatever pieces it comes in.

use std::time::Duration;

/// One event.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Event {
    /// By which the stream is taken up again behind this event.
    pub id: Option<String>,
    /// How long to stay away when the stream has ended.
    pub retry: Option<Duration>,
    /// Empty in an event that only gives an id.
    pub data: Vec<u8>,
}

/// A line or an event is longer than it may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a message is longer than {0} bytes")]
pub struct TooLong(pub usize);

/// Reads a stream of events piece by piece.
#[derive(Debug)]
pub struct Events {
    most: usize,
    line: Vec<u8>,
    after_return: bool,
    event: Event,
    is_begun: bool,
}

impl Events {
    /// Events of at most so many bytes.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self { most, line: Vec::new(), after_return: false, event: Event::default(), is_begun: false }
    }

    /// Takes the next bytes and hands each event they complete to `event`.
    ///
    /// # Errors
    ///
    /// When one is too long; what follows cannot be understood then.
    pub fn push(&mut self, mut bytes: &[u8], mut event: impl FnMut(Event)) -> Result<(), TooLong> {
        while let Some(end) = bytes.iter().position(|byte| matches!(byte, b'\n' | b'\r')) {
            // The second half of a line end.
            if !(self.after_return && end == 0 && bytes[0] == b'\n' && self.line.is_empty()) {
                self.take(&bytes[..end])?;
                self.end_line(&mut event);
            }
            self.after_return = bytes[end] == b'\r';
            bytes = &bytes[end + 1..];
        }
        if !bytes.is_empty() {
            self.after_return = false;
        }
        self.take(bytes)
    }

    fn take(&mut self, bytes: &[u8]) -> Result<(), TooLong> {
        if self.line.len() + self.event.data.len() + bytes.len() > self.most {
            return Err(TooLong(self.most));
        }
        self.line.extend_from_slice(bytes);
        Ok(())
    }

    fn end_line(&mut self, event: &mut impl FnMut(Event)) {
        let line = std::mem::take(&mut self.line);
        if line.is_empty() {
            if std::mem::take(&mut self.is_begun) {
                let mut done = std::mem::take(&mut self.event);
                // Each line of data was ended by one.
                done.data.pop();
                event(done);
            }
            return;
        }
        let colon = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
        let value = line.get(colon + 1..).unwrap_or_default();
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match &line[..colon] {
            b"data" => {
                self.event.data.extend_from_slice(value);
                self.event.data.push(b'\n');
            }
            // Of no use to us, and no header could carry it back.
            b"id" if !value.is_empty() && value.iter().all(|byte| matches!(byte, b' '..=b'~')) => {
                self.event.id = Some(String::from_utf8_lossy(value).into_owned());
            }
            b"retry" => {
                let number = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
                self.event.retry = number.map(Duration::from_millis);
            }
            // Comments, and names of events, of which MCP has one.
            _ => return,
        }
        self.is_begun = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(id: Option<&str>, retry: Option<u64>, data: &str) -> Event {
        Event { id: id.map(str::to_owned), retry: retry.map(Duration::from_millis), data: data.into() }
    }

    #[test]
    fn events_are_the_same_however_they_are_cut() {
        let stream =
            b": hello\nid: s-1\nretry: 250\ndata:\n\nevent: message\r\ndata: {\"a\":\r\ndata: 1}\r\n\r\n\
            data: one\r\rid: 3\n\n: only a comment\n\ndata: lost";
        for size in 1..=stream.len() {
            let mut events = Events::new(100);
            let mut seen = Vec::new();
            for piece in stream.chunks(size) {
                events.push(piece, |event| seen.push(event)).unwrap();
            }
            assert_eq!(
                seen,
                [
                    event(Some("s-1"), Some(250), ""),
                    event(None, None, "{\"a\":\n1}"),
                    event(None, None, "one"),
                    event(Some("3"), None, "")
                ],
                "pieces of {size}"
            );
        }
    }

    #[test]
    fn an_event_without_end_is_cut_off() {
        let mut events = Events::new(10);
        assert_eq!(events.push(b"data: 1\ndata: 2\n", |_| ()), Ok(()));
        assert_eq!(events.push(b"data: 3", |_| ()), Err(TooLong(10)));
        assert_eq!(Events::new(10).push(&[b'x'; 11], |_| ()), Err(TooLong(10)));
    }
}
