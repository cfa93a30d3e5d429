//! What a session is told that belongs to none of its calls: on the stream it listens to, or for when it does.

use super::super::bounds::{MAX_BACKLOG, MAX_BACKLOG_BYTES};
use super::super::{SessionKey, StreamKey};
use super::{Event, Stream, Streams};

impl Streams {
    /// Tells a session something that belongs to none of its calls. Nothing is copied that is not kept.
    pub(in super::super) fn tell(&mut self, session: SessionKey, message: &[u8]) {
        let desk = self.desks.entry(session).or_default();
        if let Some(listening) = desk.listening {
            if !self.is_too_much(listening, message.len(), false) {
                self.push(listening, message.to_vec());
            }
            return;
        }
        // "The list changed" is not more true when it is said twice.
        if message.len() > MAX_BACKLOG_BYTES || desk.backlog.iter().any(|known| known == message) {
            return;
        }
        desk.backlog.push_back(message.to_vec());
        let mut bytes: usize = desk.backlog.iter().map(Vec::len).sum();
        while desk.backlog.len() > MAX_BACKLOG || bytes > MAX_BACKLOG_BYTES {
            bytes -= desk.backlog.pop_front().map_or(bytes, |oldest| oldest.len());
        }
    }

    /// The same, unless it is what the session will hear last in any case.
    pub(in super::super) fn tell_once(&mut self, session: SessionKey, message: &[u8]) {
        let listening = self.desks.get(&session).and_then(|desk| desk.listening);
        let last = listening.and_then(|key| self.all.get(&key)).and_then(|stream| {
            let has_news = stream.taken < stream.events.len();
            stream.events.back().filter(|_| has_news)
        });
        if last.is_none_or(|last| last.message != message) {
            self.tell(session, message);
        }
    }

    /// The stream of a GET; an earlier one of the session ends, and what waited on it waits on this one.
    pub(in super::super) fn listen(&mut self, session: SessionKey) -> StreamKey {
        let key = self.add(Stream { session: Some(session), ..Stream::default() });
        let earlier: Vec<StreamKey> = self.keys(session).filter(|k| *k != key && self.is_get(*k)).collect();
        for old in earlier {
            let Some(stream) = self.all.get_mut(&old) else { continue };
            let waiting: Vec<Event> = stream.events.drain(stream.taken..).collect();
            let held = std::mem::take(&mut stream.held);
            self.held -= held;
            if let Some(desk) = self.desks.get_mut(&session) {
                desk.held -= held;
            }
            for event in waiting {
                self.put(key, event, false, None);
            }
            self.remove(old);
        }
        self.attend(session, key);
        key
    }

    /// From now on `key` is what the session listens to.
    pub(super) fn attend(&mut self, session: SessionKey, key: StreamKey) {
        let Some(desk) = self.desks.get_mut(&session) else { return };
        desk.listening = Some(key);
        for message in std::mem::take(&mut desk.backlog) {
            self.push(key, message);
        }
    }

    /// Another stream took the place of this one.
    pub(super) fn detach_at_once(&mut self, key: StreamKey) {
        let Some(stream) = self.all.get_mut(&key) else { return };
        let waiting: Vec<Event> = stream.events.split_off(stream.taken).into();
        let session = stream.session;
        // Its bytes leave the desk with it.
        self.remove(key);
        let Some(desk) = session.and_then(|session| self.desks.get_mut(&session)) else { return };
        desk.backlog.extend(waiting.into_iter().map(|event| event.message));
    }
}
