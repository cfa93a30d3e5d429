//! Legacy sessions: who is there.

use std::collections::BTreeMap;

use crate::logic::era::{Refused, refuse};
use crate::logic::frame::{self, Body, INVALID_REQUEST, Kind, SERVER_LOST, members, plain_id, text_of};
use crate::model::Moment;

use super::opening::Process;
use super::posts::bad_params;
use super::streams::Streams;
use super::table::{Call, Stage};
use super::turns::Owner;
use super::what::What;
use super::{Deed, Exchange, SessionKey, SessionRecord, StreamKey};

/// A subscription of a session, in bytes and in number.
pub(super) const MAX_URI: usize = 4096;
pub(super) const MAX_SUBSCRIPTIONS: usize = 256;

/// A session id that we made or took up is never longer.
const MAX_SESSION_ID: usize = 256;

/// Params of `initialize` beyond this are refused: they are kept as long as the session is.
const MAX_INITIALIZE: usize = 32 << 10;

/// One client.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) record: SessionRecord,
    /// The client's capabilities, as it wrote them.
    pub(super) capabilities: Box<str>,
    /// Its name and version, as it wrote them.
    pub(super) info: Option<Box<str>>,
    /// Its requests that are not answered: by id (as [`plain_id`] spells it) the one the process knows.
    pub(super) calls: BTreeMap<Box<str>, u64>,
    /// The last id under which it was asked something.
    pub(super) last_ask: u64,
    /// When something of it was last seen.
    seen: Moment,
}

impl Session {
    fn new(record: SessionRecord, now: Moment) -> Self {
        let names = ["capabilities", "clientInfo"];
        let [capabilities, info] = members(&record.initialize, names).unwrap_or_default();
        let capabilities = capabilities.filter(|json| json.starts_with('{')).unwrap_or("{}").into();
        let info = info.filter(|json| json.starts_with('{')).map(Into::into);
        // Not from 1: a client that outlived a daemon may still answer what that one asked.
        let last_ask = u64::try_from(now.since_boot().as_millis()).unwrap_or(0);
        Self { capabilities, info, record, calls: BTreeMap::new(), last_ask, seen: now }
    }
}

fn is_busy(session: &Session, key: SessionKey, streams: &Streams) -> bool {
    !session.calls.is_empty() || streams.is_read(key)
}

impl Exchange {
    /// Begins a session with a client's `initialize`. `id`: unguessable, from the caller. Only while open,
    /// but for isolated exchanges, whose opening it is.
    ///
    /// # Errors
    ///
    /// When the body is no `initialize`, or there is no process to answer it.
    pub fn initialize(
        &mut self,
        id: String,
        body: &[u8],
        now: Moment,
    ) -> Result<(SessionKey, StreamKey), Refused> {
        let body = frame::parse_body(body);
        let frame = match &body {
            Ok(Body::One(frame)) => frame,
            Ok(Body::Batch(_)) => return Err(refuse(400, None, INVALID_REQUEST, "initialize stands alone")),
            Err(problem) => return Err(Refused { status: 400, body: problem.to_error() }),
        };
        let (Kind::Request { id: call_id, method }, Some(params)) = (&frame.kind, frame.params) else {
            return Err(bad_params(frame.request_id(), "initialize needs its params"));
        };
        if method != "initialize" || params.len() > MAX_INITIALIZE {
            return Err(bad_params(Some(call_id), "this is no initialize that can be answered"));
        }
        let names = ["protocolVersion", "capabilities", "clientInfo"];
        let wanted = members(params, names).ok().and_then(|[version, ..]| version).and_then(text_of);
        let Some(wanted) = wanted else {
            return Err(bad_params(Some(call_id), "initialize needs a protocolVersion"));
        };
        let can_open = self.settings.isolated && matches!(self.process, Process::Opening(_));
        if !self.process.takes_calls() && !can_open {
            return Err(refuse(503, Some(call_id), SERVER_LOST, "the server is not there"));
        }
        let version = self.server.as_ref().filter(|_| !can_open).map(|server| server.version_for(&wanted));
        let record = SessionRecord {
            id,
            version: version.map_or_else(|| wanted.into_owned(), Into::into),
            initialize: params.to_owned(),
            level: None,
            subscriptions: Vec::new(),
        };
        let key = self.add_session(record, now);
        let stream = self.streams.post(Some(key), 1);
        let wire = self.fresh();
        let call = Call {
            owner: Owner::Session(key),
            id: (*call_id).into(),
            token: None,
            stream,
            what: What::Initialize,
            stage: Stage::Waits,
            text: Some(frame.text.into()),
            level: None,
            rounds: 0,
            more: None,
            guest: None,
        };
        if let Some(session) = self.sessions.get_mut(&key) {
            session.calls.insert(plain_id(call_id).into(), wire);
        }
        self.put_call(wire, call);
        if can_open {
            self.open_with(wire);
        } else {
            self.answer_initialize(wire, now);
        }
        Ok((key, stream))
    }

    /// Answers a client's `initialize` from what the process said to ours.
    pub(super) fn answer_initialize(&mut self, wire: u64, now: Moment) {
        let Some(Owner::Session(key)) = self.calls.get(&wire).map(|call| call.owner) else { return };
        let (Some(server), Some(session)) = (&self.server, self.sessions.get_mut(&key)) else { return };
        session.record.version = server.version_for(&session.record.version).into();
        let result = server.initialized(&session.record.version);
        self.deeds.push(Deed::Remember(key));
        self.settle(wire, &result);
        self.touch(Owner::Session(key), now);
        self.recount_listeners();
    }

    fn add_session(&mut self, record: SessionRecord, now: Moment) -> SessionKey {
        if self.sessions.len() >= self.settings.max_sessions.max(1) {
            // The one that was idle longest; if none is idle, the one that said nothing for longest.
            let oldest =
                self.sessions.iter().min_by_key(|(key, session)| (self.is_busy(**key), session.seen));
            if let Some(oldest) = oldest.map(|(key, _)| *key) {
                self.end(oldest, now);
            }
        }
        self.next_session += 1;
        let key = SessionKey(self.next_session);
        self.by_id.insert(record.id.clone(), key);
        self.sessions.insert(key, Session::new(record, now));
        self.may_be_idle(key);
        key
    }

    /// DELETE.
    pub fn end_session(&mut self, session: SessionKey) {
        let now = self.sessions.get(&session).map_or(Moment::default(), |session| session.seen);
        self.end(session, now);
    }

    /// Ends a session, and gives up what it has in flight.
    fn end(&mut self, key: SessionKey, now: Moment) {
        let Some(session) = self.sessions.get(&key) else { return };
        for wire in session.calls.values().copied().collect::<Vec<_>>() {
            self.cancel(wire, now);
        }
        self.streams.end_session(key);
        self.refuse_asks_of(key);
        self.idle.forget(key);
        if let Some(session) = self.sessions.remove(&key) {
            self.by_id.remove(&session.record.id);
            session.record.subscriptions.iter().for_each(|uri| self.unwant(uri));
            self.deeds.push(Deed::Forget(session.record.id));
        }
        self.recount_listeners();
    }

    /// Ends a session whose opening was refused; that is still said on `stream`.
    pub(super) fn end_session_but(&mut self, key: SessionKey, stream: StreamKey) {
        self.streams.release(stream);
        self.end(key, Moment::default());
    }

    /// Something of this owner was seen.
    pub(super) fn touch(&mut self, owner: Owner, now: Moment) {
        if let Owner::Session(key) = owner
            && let Some(session) = self.sessions.get_mut(&key)
        {
            session.seen = session.seen.max(now);
        }
    }

    /// True while a call of it is not answered or a stream of it is read.
    fn is_busy(&self, key: SessionKey) -> bool {
        self.sessions.get(&key).is_some_and(|session| is_busy(session, key, &self.streams))
    }

    /// A session may have stopped being busy. To be said wherever one does: else it never ends.
    pub(super) fn may_be_idle(&mut self, key: SessionKey) {
        if let Some(session) = self.sessions.get(&key) {
            self.idle.note(session.seen, key);
        }
    }

    /// A GET without Last-Event-ID: the session's own stream; an earlier one of it ends. That of a session that
    /// has ended is at its end.
    pub fn listen(&mut self, session: SessionKey, now: Moment) -> StreamKey {
        if !self.sessions.contains_key(&session) {
            return StreamKey(0);
        }
        self.touch(Owner::Session(session), now);
        self.streams.listen(session)
    }

    /// A GET with Last-Event-ID: goes on behind that event. `None`: that id is not of this session.
    pub fn resume(&mut self, session: SessionKey, last_event_id: &str, now: Moment) -> Option<StreamKey> {
        self.touch(Owner::Session(session), now);
        let (old, new) = self.streams.resume(session, last_event_id)?;
        for call in self.calls.values_mut().filter(|call| call.stream == old) {
            call.stream = new;
        }
        self.asks.moved(old, new);
        Some(new)
    }

    /// Ends what was idle too long, and all else that waited its time.
    pub fn expire(&mut self, now: Moment) {
        self.now = now;
        self.break_silence(now);
        self.give_up_learning(now);
        self.streams.expire(now);
        let over = |call: &Call| matches!(call.stage, Stage::Ghost(until) if until <= now);
        let ghosts: Vec<u64> =
            self.calls.iter().filter(|(_, call)| over(call)).map(|(wire, _)| *wire).collect();
        for wire in ghosts {
            self.forget_call(wire);
        }
        self.clear_parks(now);
        self.end_turns(now);
        let idle = |(key, session): &(&SessionKey, &Session)| {
            session.seen + self.settings.session_idle <= now && !self.is_busy(**key)
        };
        for key in self.sessions.iter().filter(idle).map(|(key, _)| *key).collect::<Vec<_>>() {
            self.end(key, now);
        }
    }

    /// When `expire` has to be looked at next. A session that is busy has no deadline: look again when
    /// a stream of it was dropped or a call answered.
    #[must_use]
    pub fn deadline(&mut self) -> Option<Moment> {
        let call = self.timed.soonest(|wire| match self.calls.get(&wire)?.stage {
            Stage::Ghost(until) | Stage::Parked { until, .. } => Some(until),
            Stage::Waits | Stage::Sent | Stage::Asks => None,
        });
        let idle = self.idle.soonest(|key| {
            let session = self.sessions.get(&key)?;
            (!is_busy(session, key, &self.streams)).then_some(session.seen)
        });
        let idle = idle.map(|seen| seen + self.settings.session_idle);
        let others = [
            self.process.silent_at(),
            self.streams.deadline(),
            self.mirrors.deadline(),
            self.turns.deadline(),
        ];
        [call, idle].into_iter().chain(others).flatten().min()
    }

    /// The same by looking at everything.
    #[cfg(test)]
    pub(super) fn deadline_of_all(&self) -> Option<Moment> {
        let ghosts = self.calls.values().filter_map(|call| match call.stage {
            Stage::Ghost(until) | Stage::Parked { until, .. } => Some(until),
            Stage::Waits | Stage::Sent | Stage::Asks => None,
        });
        let idle = self.sessions.iter().filter(|(key, _)| !self.is_busy(**key));
        let idle = idle.map(|(_, session)| session.seen + self.settings.session_idle);
        let others = [
            self.process.silent_at(),
            self.streams.deadline_of_all(),
            self.mirrors.deadline(),
            self.turns.deadline(),
        ];
        ghosts.chain(idle).chain(others.into_iter().flatten()).min()
    }

    /// The session with this id.
    #[must_use]
    pub fn session(&self, id: &str) -> Option<SessionKey> {
        if id.len() > MAX_SESSION_ID { None } else { self.by_id.get(id).copied() }
    }

    /// The revision of a session.
    #[must_use]
    pub fn version(&self, session: SessionKey) -> Option<&str> {
        self.sessions.get(&session).map(|session| &*session.record.version)
    }

    /// What a next daemon must know of a session.
    #[must_use]
    pub fn record(&self, session: SessionKey) -> Option<&SessionRecord> {
        self.sessions.get(&session).map(|session| &session.record)
    }

    /// Sessions there are.
    #[must_use]
    pub fn sessions(&self) -> usize {
        self.sessions.len()
    }

    /// Takes over changed limits. Sessions that are one too many now end when the next begins.
    pub const fn limit(&mut self, max_sessions: usize, session_idle: std::time::Duration) {
        self.settings.max_sessions = max_sessions;
        self.settings.session_idle = session_idle;
    }

    /// Takes up a session of an earlier daemon.
    pub fn restore(&mut self, record: SessionRecord, now: Moment) -> SessionKey {
        // Event ids of the earlier daemon must not name streams of this one.
        let first = u64::try_from(now.since_boot().as_millis()).unwrap_or(0) << 14;
        self.streams.count_from(first);
        self.want_again(&record.subscriptions);
        self.is_restored = true;
        self.add_session(record, now)
    }
}
