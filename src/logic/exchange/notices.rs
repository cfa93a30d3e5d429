//! What the process says unasked, and to whom.

use crate::logic::frame::{self, Frame, Splice, members, plain_id, text_of, whole_number};
use crate::model::Moment;

use super::server::{LISTS, severity};
use super::table::Stage;
use super::turns::{Owner, Sole};
use super::{Exchange, SessionKey, translate};

/// Bytes of what is said to many clients at once.
const MAX_NEWS: usize = 4 << 10;

impl Exchange {
    /// A notification of the process.
    pub(super) fn noticed(&mut self, method: &str, frame: &Frame<'_>, now: Moment) {
        // Only a modern process tags what it says with a subscription.
        if self.server.as_ref().is_some_and(|server| server.is_modern)
            && let Some(ours) = frame.params.and_then(translate::subscription_of)
        {
            return self.noticed_for(ours, method, frame);
        }
        match method {
            "notifications/progress" => self.progressed(frame, now),
            "notifications/cancelled" => self.process_cancels(frame, now),
            "notifications/message" => self.logged(frame),
            "notifications/resources/updated" => self.updated(frame),
            _ if LISTS.iter().any(|(_, _, list)| *list == method) => self.list_changed(method, frame),
            _ => self.said(frame),
        }
    }

    /// Progress goes to the one call with that token.
    fn progressed(&mut self, frame: &Frame<'_>, now: Moment) {
        let token =
            frame.params.and_then(|params| members(params, ["progressToken"]).ok()).and_then(|[token]| token);
        let wire = token.and_then(whole_number);
        let call = wire.and_then(|wire| self.calls.get(&wire)).filter(|call| call.stage == Stage::Sent);
        let (Some(token), Some(wire), Some(call)) = (token, wire, call) else {
            self.counts.unclaimed += 1;
            return;
        };
        let Some(theirs) = &call.token else {
            self.counts.unclaimed += 1;
            return;
        };
        let mut splice = Splice::new(frame.text);
        splice.put(token, &**theirs);
        let (message, stream, owner) = (splice.finish(""), call.stream, call.owner);
        self.streams.push(stream, message);
        self.turns.heard_of(owner, wire, now);
        self.touch(owner, now);
    }

    /// A legacy process takes back what it asked; a modern one ends a listen stream.
    fn process_cancels(&mut self, frame: &Frame<'_>, now: Moment) {
        let Some(Ok([Some(id)])) = frame.params.map(|params| members(params, ["requestId"])) else {
            self.counts.unclaimed += 1;
            return;
        };
        if self.server.as_ref().is_some_and(|server| server.is_modern) {
            return self.process_ends_listen(id, now);
        }
        let id_there = plain_id(id);
        let Some((ask, stream)) = self.asks.taken_back(&id_there) else {
            if !self.unask(&id_there) {
                self.counts.unclaimed += 1;
            }
            return;
        };
        let mut splice = Splice::new(frame.text);
        splice.put(id, ask.1.to_string());
        self.put_or_tell(stream, ask.0, splice.finish(""));
    }

    /// On a stream, if it is still there, else where the session listens.
    pub(super) fn put_or_tell(
        &mut self,
        stream: Option<super::StreamKey>,
        session: SessionKey,
        message: Vec<u8>,
    ) {
        match stream.filter(|stream| self.streams.is_there(*stream)) {
            Some(stream) => self.streams.push(stream, message),
            None => self.streams.tell(session, &message),
        }
    }

    /// A log message: to the only ones with calls in flight; to every session if there are none.
    fn logged(&mut self, frame: &Frame<'_>) {
        let level = frame.params.and_then(|params| members(params, ["level"]).ok()).and_then(|[level]| level);
        let level = level.and_then(text_of).and_then(|level| severity(&level));
        match self.sole_for_logs() {
            Sole::Nobody => {
                let message = Splice::new(frame.text).finish("");
                for key in self.sessions.keys().copied().collect::<Vec<_>>() {
                    if self.wants_level(key, level) {
                        self.streams.tell(key, &message);
                    }
                }
            }
            Sole::One(Owner::Session(key)) => {
                if self.wants_level(key, level) {
                    self.put_on_newest_call(key, Splice::new(frame.text).finish(""));
                }
            }
            Sole::One(owner @ (Owner::Modern | Owner::Guest(_))) => {
                // There is one of it only.
                let call = self.turns.newest(owner).and_then(|wire| self.calls.get(&wire));
                let wants = |call: &&super::Call| {
                    let is_heard = call.stage == Stage::Sent;
                    is_heard && call.level.is_some_and(|wanted| level.is_none_or(|level| wanted <= level))
                };
                if let Some(stream) = call.filter(wants).map(|call| call.stream) {
                    self.streams.push(stream, Splice::new(frame.text).finish(""));
                }
            }
            Sole::Several => self.counts.ambiguous += 1,
        }
    }

    /// Of whom a log message can be. Modern calls are of a client each, so one is nobody's where there are
    /// two. (That a modern process logs only for calls that ask for it is its promise; we do not build on it.)
    fn sole_for_logs(&self) -> Sole {
        match self.turns.sole() {
            Sole::One(Owner::Modern)
                if self.turns.in_flight(Owner::Modern) > 1 || self.turns.is_haunted() =>
            {
                Sole::Several
            }
            Sole::One(owner) => Sole::One(owner),
            Sole::Nobody => Sole::Nobody,
            Sole::Several => Sole::Several,
        }
    }

    fn wants_level(&self, key: SessionKey, level: Option<u8>) -> bool {
        let wanted =
            self.sessions.get(&key).and_then(|session| session.record.level.as_deref()).and_then(severity);
        match (wanted, level) {
            (Some(wanted), Some(level)) => wanted <= level,
            (Some(_) | None, _) => true,
        }
    }

    fn put_on_newest_call(&mut self, key: SessionKey, message: Vec<u8>) {
        let stream = self.newest_stream(key);
        self.put_or_tell(stream, key, message);
    }

    /// The stream of the call of a session that was sent last, of those that can ask if there are such: where
    /// what belongs to none for sure is said.
    pub(super) fn newest_stream(&self, key: SessionKey) -> Option<super::StreamKey> {
        let wire = self.turns.newest(Owner::Session(key))?;
        self.calls.get(&wire).map(|call| call.stream)
    }

    /// A list changed: every session hears it once, and every modern listener that asked for it. What it says
    /// beside that is only for as many bytes as each of them can be given.
    pub(super) fn list_changed(&mut self, method: &str, frame: &Frame<'_>) {
        let message = match frame.text.len() {
            0..=MAX_NEWS => Splice::new(frame.text).finish(""),
            _ => frame::notification(method, None),
        };
        let Ok(frame) = frame::parse(&message) else { return };
        for key in self.sessions.keys().copied().collect::<Vec<_>>() {
            self.streams.tell_once(key, &message);
        }
        self.listens.list_changed(method, &frame, &mut self.streams);
    }

    /// A resource changed: its subscribers hear it, and no more than that if there is much more.
    pub(super) fn updated(&mut self, frame: &Frame<'_>) {
        let said = frame.params.and_then(|params| members(params, ["uri"]).ok()).and_then(|[uri]| uri);
        let (Some(said), Some(uri)) = (said, said.and_then(text_of)) else {
            self.counts.unclaimed += 1;
            return;
        };
        if !self.listens.wants.contains(&uri) {
            return;
        }
        let message = match frame.text.len() {
            0..=MAX_NEWS => Splice::new(frame.text).finish(""),
            _ => {
                frame::notification("notifications/resources/updated", Some(&format!(r#"{{"uri":{said}}}"#)))
            }
        };
        let Ok(frame) = frame::parse(&message) else { return };
        let subscribed =
            |session: &super::Session| session.record.subscriptions.iter().any(|one| *one == *uri);
        let sessions = self.sessions.iter().filter(|(_, session)| subscribed(session)).map(|(key, _)| *key);
        for key in sessions.collect::<Vec<_>>() {
            self.streams.tell(key, &message);
        }
        self.listens.updated(&uri, &frame, &mut self.streams);
    }

    /// What we know nothing of goes to the only session it can be for.
    fn said(&mut self, frame: &Frame<'_>) {
        let message = Splice::new(frame.text).finish("");
        match (self.turns.sole(), self.sessions.len()) {
            (Sole::One(Owner::Session(key)), _) => self.put_on_newest_call(key, message),
            (Sole::Nobody, 1) if self.listens.is_empty() => {
                if let Some(key) = self.sessions.keys().next().copied() {
                    self.streams.tell(key, &message);
                }
            }
            (Sole::One(Owner::Modern | Owner::Guest(_)) | Sole::Nobody | Sole::Several, _) => {
                self.counts.ambiguous += 1;
            }
        }
    }
}
