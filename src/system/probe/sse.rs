//! Server-sent events, as far as a probe needs them: the data of one event after another.
//!
//! Each byte is looked at once, whatever pieces a hostile server cuts its answer into. The caller
//! bounds the whole.

/// Reads a stream of events piece by piece.
#[derive(Debug, Default)]
pub(super) struct Events {
    line: Vec<u8>,
    data: Vec<u8>,
}

impl Events {
    /// Takes the next bytes and calls `event` with the data of each event they complete.
    pub(super) fn push(&mut self, bytes: &[u8], mut event: impl FnMut(&[u8])) {
        for &byte in bytes {
            if byte != b'\n' {
                self.line.push(byte);
                continue;
            }
            let line = self.line.strip_suffix(b"\r").unwrap_or(&self.line);
            if line.is_empty() {
                if !self.data.is_empty() {
                    event(&self.data);
                }
                self.data.clear();
            } else if let Some(data) = line.strip_prefix(b"data:") {
                self.data.extend(data.strip_prefix(b" ").unwrap_or(data));
                self.data.push(b'\n');
            }
            self.line.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_the_same_however_they_are_cut() {
        let stream =
            b": hello\nid: 1\ndata:\n\nevent: message\r\ndata: {\"a\":\r\ndata: 1}\r\n\r\ndata: lost";
        for size in 1..=stream.len() {
            let mut events = Events::default();
            let mut seen = Vec::new();
            for piece in stream.chunks(size) {
                events.push(piece, |data| seen.push(data.to_vec()));
            }
            assert_eq!(seen, [b"\n".to_vec(), b"{\"a\":\n1}\n".to_vec()]);
        }
    }
}
