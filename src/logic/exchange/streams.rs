//! What waits to be told to clients.
//!
//! A stream is one sequence of messages: what answers a POST, or what a GET listens to. Messages wait
//! on it until they are taken ([`Streams::next`]). A session's streams can be resumed: each event has
//! an id, and what was taken is kept for a while, because the connection may have broken under it. A
//! stream without a session (modern) keeps nothing.
//!
//! Everything is bounded: by session ([`MAX_HELD`], [`MAX_KEPT`], [`MAX_ENDED`], [`MAX_BACKLOG`]), and for
//! all clients together, what is on its way to them included ([`MAX_ALL`]).

mod desks;

use std::collections::{BTreeMap, VecDeque};

use super::bounds::{DETACHED, MAX_ALL, MAX_ENDED, MAX_HELD, MAX_HELD_ANSWERS, MAX_KEPT, SMALL, TOO_MUCH};
use super::due::Due;
use super::{Next, SessionKey, StreamKey};
use crate::logic::frame;
use crate::model::Moment;

/// A message on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Event {
    pub(super) message: Vec<u8>,
    /// HTTP status, if it is the whole answer.
    pub(super) status: u16,
}

#[derive(Debug, Default)]
struct Stream {
    session: Option<SessionKey>,
    /// What events are named by; stays the same when the stream is resumed under another key.
    label: u64,
    /// Taken ones first, then those that wait.
    events: VecDeque<Event>,
    /// The number of `events[0]`; events are counted from 1.
    first: u64,
    /// How many of `events` were taken.
    taken: usize,
    /// Answers still to come; `None` for a GET, which has no end.
    due: Option<usize>,
    /// The client knows an event id of it.
    is_known: bool,
    /// Since when nobody reads it.
    detached: Option<Moment>,
    /// Bytes of events that wait.
    held: usize,
}

impl Stream {
    fn is_done(&self) -> bool {
        self.due == Some(0)
    }

    /// True if all there ever will be was taken.
    fn is_spent(&self) -> bool {
        self.is_done() && self.taken == self.events.len()
    }
}

/// What a session has.
#[derive(Debug, Default)]
struct Desk {
    /// Its streams, oldest first.
    streams: VecDeque<StreamKey>,
    /// Its GET stream that is read.
    listening: Option<StreamKey>,
    /// For when it listens again.
    backlog: VecDeque<Vec<u8>>,
    held: usize,
    kept: usize,
}

/// All streams of an exchange.
#[derive(Debug, Default)]
pub(super) struct Streams {
    all: BTreeMap<StreamKey, Stream>,
    desks: BTreeMap<SessionKey, Desk>,
    next_key: u64,
    woken: Vec<StreamKey>,
    /// Streams that nobody reads, by since when.
    detached: Due<StreamKey>,
    /// Bytes that wait on all streams.
    held: usize,
    /// Bytes that were taken from streams and are still on their way.
    pub(super) owed: usize,
}

impl Streams {
    /// Keys and labels from now on are at least `first`.
    pub(super) fn count_from(&mut self, first: u64) {
        self.next_key = self.next_key.max(first);
    }

    fn add(&mut self, mut stream: Stream) -> StreamKey {
        self.next_key += 1;
        let key = StreamKey(self.next_key);
        if stream.label == 0 {
            stream.label = self.next_key;
            stream.first = 1;
        }
        if let Some(session) = stream.session {
            self.desks.entry(session).or_default().streams.push_back(key);
        }
        self.all.insert(key, stream);
        key
    }

    /// What answers a POST with `answers` requests.
    pub(super) fn post(&mut self, session: Option<SessionKey>, answers: usize) -> StreamKey {
        self.add(Stream { session, due: Some(answers), ..Stream::default() })
    }

    /// Puts a message that is no answer on a stream.
    pub(super) fn push(&mut self, key: StreamKey, message: Vec<u8>) {
        self.put(key, Event { message, status: 200 }, false, None);
    }

    /// Puts an answer to the request `id` on a stream.
    pub(super) fn answer(&mut self, key: StreamKey, event: Event, id: &str) {
        self.put(key, event, true, Some(id));
    }

    /// An answer that will not come.
    pub(super) fn forgo(&mut self, key: StreamKey) {
        if let Some(stream) = self.all.get_mut(&key) {
            stream.due = stream.due.map(|due| due.saturating_sub(1));
            if stream.is_done() {
                self.woken.push(key);
            }
        }
    }

    /// True if so many bytes more are too many for this stream.
    fn is_too_much(&self, key: StreamKey, size: usize, is_answer: bool) -> bool {
        let Some(stream) = self.all.get(&key) else { return true };
        let all = self.held + self.owed;
        let too_much_of_all = all > 0 && all + size > MAX_ALL && !(is_answer && size <= SMALL);
        let too_much_here = match stream.session.and_then(|session| self.desks.get(&session)) {
            Some(desk) => {
                let is_read = is_answer && stream.detached.is_none();
                desk.held > 0 && desk.held + size > if is_read { MAX_HELD_ANSWERS } else { MAX_HELD }
            }
            None => !is_answer && stream.held > 0 && stream.held + size > MAX_HELD,
        };
        too_much_of_all || too_much_here
    }

    fn put(&mut self, key: StreamKey, mut event: Event, is_answer: bool, id: Option<&str>) {
        let Some(stream) = self.all.get_mut(&key) else { return };
        if is_answer {
            stream.due = stream.due.map(|due| due.saturating_sub(1));
        }
        if self.is_too_much(key, event.message.len(), is_answer) {
            if !is_answer {
                return;
            }
            event.message = frame::error(id, frame::INTERNAL_ERROR, TOO_MUCH);
        }
        let Some(stream) = self.all.get_mut(&key) else { return };
        let was_empty = stream.events.len() == stream.taken;
        if let Some(desk) = stream.session.and_then(|session| self.desks.get_mut(&session)) {
            desk.held += event.message.len();
        }
        stream.held += event.message.len();
        self.held += event.message.len();
        stream.events.push_back(event);
        if was_empty || stream.is_done() {
            self.woken.push(key);
        }
    }

    fn is_get(&self, key: StreamKey) -> bool {
        self.all.get(&key).is_some_and(|stream| stream.due.is_none())
    }

    fn keys(&self, session: SessionKey) -> impl Iterator<Item = StreamKey> {
        self.desks.get(&session).into_iter().flat_map(|desk| desk.streams.iter().copied())
    }

    /// Goes on behind an event; the old key ends, and there is a new one (old, new). `None`: no such stream, or
    /// it is not this session's.
    pub(super) fn resume(
        &mut self,
        session: SessionKey,
        last_event_id: &str,
    ) -> Option<(StreamKey, StreamKey)> {
        let (label, number) = event_of(last_event_id)?;
        let old = self.keys(session).find(|key| self.all.get(key).is_some_and(|s| s.label == label))?;
        let behind = self.all.get(&old)?.first + self.all.get(&old)?.events.len() as u64;
        if number >= behind {
            return None;
        }
        let mut stream = self.all.remove(&old)?;
        self.detached.forget(old);
        let desk = self.desks.get_mut(&session)?;
        desk.streams.retain(|key| *key != old);
        self.woken.push(old);
        // What was evicted cannot be sent again; what comes behind it can.
        let from = usize::try_from((number + 1).saturating_sub(stream.first)).unwrap_or(usize::MAX);
        let from = from.min(stream.events.len());
        let size = |events: &VecDeque<Event>, range: std::ops::Range<usize>| -> usize {
            events.range(range).map(|event| event.message.len()).sum()
        };
        let (again, skipped) = (from < stream.taken, from.min(stream.taken)..from.max(stream.taken));
        let bytes = size(&stream.events, skipped);
        if again {
            stream.held += bytes;
            self.held += bytes;
            (desk.held, desk.kept) = (desk.held + bytes, desk.kept.saturating_sub(bytes));
        } else {
            stream.held -= bytes;
            self.held -= bytes;
            (desk.held, desk.kept) = (desk.held.saturating_sub(bytes), desk.kept + bytes);
        }
        stream.taken = from;
        stream.detached = None;
        stream.is_known = true;
        let (is_get, has_news) = (stream.due.is_none(), from < stream.events.len() || stream.is_done());
        let key = self.add(stream);
        if has_news {
            self.woken.push(key);
        }
        if is_get {
            let current = self.desks.get(&session).and_then(|desk| desk.listening);
            if let Some(current) = current.filter(|current| *current != old) {
                self.detach_at_once(current);
            }
            self.attend(session, key);
        }
        Some((old, key))
    }

    /// The id of an event before the first one. `None` if the stream cannot be resumed.
    pub(super) fn prime(&mut self, key: StreamKey) -> Option<String> {
        let stream = self.all.get_mut(&key).filter(|stream| stream.session.is_some())?;
        stream.is_known = true;
        // Its first may have been taken already, and is to be sent again to a client that got this only.
        Some(format!("{}-{}", stream.label, stream.first - 1))
    }

    /// Takes the next message.
    pub(super) fn next(&mut self, key: StreamKey) -> Next {
        let Some(stream) = self.all.get_mut(&key) else { return Next::End };
        if stream.taken == stream.events.len() {
            if !stream.is_done() {
                return Next::Pending;
            }
            if stream.session.is_none() || stream.events.is_empty() {
                self.discard(key);
            }
            return Next::End;
        }
        let last = stream.is_done() && stream.taken + 1 == stream.events.len();
        let Some(session) = stream.session else {
            let event = stream.events.pop_front();
            let size = event.as_ref().map_or(0, |event| event.message.len());
            stream.held -= size;
            self.held -= size;
            if last {
                self.all.remove(&key);
            }
            return event.map_or(Next::End, |event| taken(None, event, last));
        };
        let id = format!("{}-{}", stream.label, stream.first + stream.taken as u64);
        // A client that knows no event of it will never ask for what comes behind one.
        if last && !stream.is_known {
            let event = stream.events.pop_back();
            self.discard(key);
            return event.map_or(Next::End, |event| taken(None, event, true));
        }
        let Some(event) = stream.events.get(stream.taken).cloned() else { return Next::End };
        stream.taken += 1;
        stream.held -= event.message.len();
        self.held -= event.message.len();
        stream.is_known = true;
        if let Some(desk) = self.desks.get_mut(&session) {
            desk.held -= event.message.len();
            desk.kept += event.message.len();
        }
        self.evict(session);
        taken(Some(id), event, last)
    }

    /// Nobody reads it any more. True if it is gone: nobody can come back to it.
    pub(super) fn dropped(&mut self, key: StreamKey, now: Moment) -> bool {
        let Some(stream) = self.all.get_mut(&key) else { return false };
        let Some(session) = stream.session.filter(|_| stream.is_known || stream.due.is_none()) else {
            self.discard(key);
            return true;
        };
        // One that is spent waits for nothing; it goes when there is no room for it.
        stream.detached = (!stream.is_spent()).then_some(now);
        if let Some(since) = stream.detached {
            self.detached.note(since, key);
        }
        if let Some(desk) = self.desks.get_mut(&session)
            && desk.listening == Some(key)
        {
            desk.listening = None;
        }
        self.evict(session);
        false
    }

    /// Keeps a session within its bounds.
    fn evict(&mut self, session: SessionKey) {
        let Some(desk) = self.desks.get_mut(&session) else { return };
        let mut emptied = Vec::new();
        for key in &desk.streams {
            let Some(stream) = self.all.get_mut(key) else { continue };
            while desk.kept > MAX_KEPT && stream.taken > 0 {
                let bytes = stream.events.pop_front().map_or(0, |event| event.message.len());
                desk.kept -= bytes;
                stream.taken -= 1;
                stream.first += 1;
            }
            if stream.events.is_empty() && stream.is_done() {
                emptied.push(*key);
            }
        }
        let idle = |key: &&StreamKey| self.all.get(key).is_some_and(|s| s.detached.is_some() || s.is_spent());
        let ended: Vec<StreamKey> = desk.streams.iter().filter(idle).copied().collect();
        emptied.extend(ended.iter().take(ended.len().saturating_sub(MAX_ENDED)));
        for key in emptied {
            self.remove(key);
        }
    }

    /// It ends for whoever reads it.
    fn remove(&mut self, key: StreamKey) {
        self.discard(key);
        self.woken.push(key);
    }

    fn discard(&mut self, key: StreamKey) {
        let Some(stream) = self.all.remove(&key) else { return };
        self.detached.forget(key);
        self.held -= stream.held;
        let Some(desk) = stream.session.and_then(|session| self.desks.get_mut(&session)) else { return };
        desk.streams.retain(|other| *other != key);
        desk.held -= stream.held;
        desk.kept -= stream.events.iter().take(stream.taken).map(|event| event.message.len()).sum::<usize>();
        if desk.listening == Some(key) {
            desk.listening = None;
        }
    }

    /// From now on it is no session's.
    pub(super) fn release(&mut self, key: StreamKey) {
        let Some(stream) = self.all.get_mut(&key) else { return };
        let (held, session) = (stream.held, stream.session.take());
        if let Some(desk) = session.and_then(|session| self.desks.get_mut(&session)) {
            desk.streams.retain(|other| *other != key);
            desk.held -= held;
        }
    }

    /// Ends every stream of a session.
    pub(super) fn end_session(&mut self, session: SessionKey) {
        for key in self.desks.remove(&session).map(|desk| desk.streams).unwrap_or_default() {
            self.held -= self.all.remove(&key).map_or(0, |stream| stream.held);
            self.detached.forget(key);
            self.woken.push(key);
        }
    }

    /// True if somebody reads a stream of this session.
    pub(super) fn is_read(&self, session: SessionKey) -> bool {
        self.keys(session)
            .any(|key| self.all.get(&key).is_some_and(|s| s.detached.is_none() && !s.is_spent()))
    }

    /// True if it is there and does not wait for a client to come back.
    pub(super) fn is_there(&self, key: StreamKey) -> bool {
        self.all.contains_key(&key)
    }

    /// Whose stream it is.
    pub(super) fn session_of(&self, key: StreamKey) -> Option<SessionKey> {
        self.all.get(&key).and_then(|stream| stream.session)
    }

    /// Drops what waited too long for a client to come back.
    pub(super) fn expire(&mut self, now: Moment) {
        let late = |stream: &Stream| stream.detached.is_some_and(|since| since + DETACHED <= now);
        let late: Vec<StreamKey> = self.all.iter().filter(|(_, s)| late(s)).map(|(key, _)| *key).collect();
        for key in late {
            self.remove(key);
        }
    }

    /// Bytes that wait on all streams.
    pub(super) const fn held(&self) -> usize {
        self.held
    }

    /// When `expire` has something to do.
    pub(super) fn deadline(&mut self) -> Option<Moment> {
        let since = self.detached.soonest(|key| self.all.get(&key)?.detached);
        since.map(|since| since + DETACHED)
    }

    /// Who is to be woken since the last time.
    pub(super) fn woken(&mut self) -> Vec<StreamKey> {
        std::mem::take(&mut self.woken)
    }

    /// Streams, and bytes in them: both are 0 when nothing leaks.
    #[cfg(test)]
    pub(super) fn size(&self) -> (usize, usize) {
        assert!(self.detached.size() <= 2 * self.all.len());
        assert_eq!(self.held, self.all.values().map(|stream| stream.held).sum::<usize>());
        (self.all.len(), self.desks.len())
    }

    /// The same as [`Streams::deadline`], by looking at everything.
    #[cfg(test)]
    pub(super) fn deadline_of_all(&self) -> Option<Moment> {
        self.all.values().filter_map(|stream| stream.detached).min().map(|since| since + DETACHED)
    }
}

fn taken(id: Option<String>, event: Event, last: bool) -> Next {
    Next::Message { id, message: event.message, last, status: event.status }
}

/// Label and number of an event id.
pub(super) fn event_of(id: &str) -> Option<(u64, u64)> {
    let plain = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    let (label, number) = id.split_once('-').filter(|(label, number)| plain(label) && plain(number))?;
    Some((label.parse().ok()?, number.parse().ok().filter(|number| *number < u64::MAX)?))
}
