//! What a process asks a client, and the client's answers.
//!
//! Such a request names no call, so it goes to the one session it can be for ([`Turns`](super::turns::Turns)).
//! Where several could be meant it is refused, and from then on there are never several.

use std::collections::BTreeMap;

use crate::logic::frame::{
    self, Frame, INTERNAL_ERROR, METHOD_NOT_FOUND, Outcome, Splice, few_members, members, plain_id,
    whole_number,
};

use crate::model::Moment;

use super::rounds::Rounds;
use super::turns::{Owner, Sole};
use super::{Exchange, SessionKey, StreamKey};

/// Questions to one session that are not answered.
const MAX_ASKS: usize = 256;

/// A question to a client: its session, and its id there.
pub(super) type AskKey = (SessionKey, u64);

/// Who asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Asker {
    /// A legacy process, under this id of its own.
    Process(Box<str>),
    /// This call, by `input_required` of a modern process; the name of the question as it came.
    Round(u64, Box<str>),
}

#[derive(Debug)]
struct Ask {
    asker: Asker,
    /// The progress token in it, as [`plain_id`] spells it: only who was asked may report progress on it.
    token: Option<Box<str>>,
    /// Where it was asked.
    stream: Option<StreamKey>,
}

/// Questions that are not answered.
#[derive(Debug, Default)]
pub(super) struct Asks {
    asks: BTreeMap<AskKey, Ask>,
    pub(super) rounds: Rounds,
}

impl Asks {
    pub(super) fn put(&mut self, key: AskKey, asker: Asker, token: Option<&str>, stream: Option<StreamKey>) {
        let token = token.map(|token| plain_id(token).into());
        self.asks.insert(key, Ask { asker, token, stream });
    }

    fn of(&self, session: SessionKey) -> impl Iterator<Item = (&AskKey, &Ask)> {
        self.asks.range((session, 0)..=(session, u64::MAX))
    }

    /// True if this session must answer first.
    pub(super) fn is_full(&self, session: SessionKey) -> bool {
        self.of(session).count() >= MAX_ASKS
    }

    pub(super) fn take(&mut self, key: AskKey) -> Option<Asker> {
        self.asks.remove(&key).map(|ask| ask.asker)
    }

    /// The process takes its question `id` back: whose it was.
    pub(super) fn taken_back(&mut self, id: &str) -> Option<(AskKey, Option<StreamKey>)> {
        let theirs = |ask: &Ask| matches!(&ask.asker, Asker::Process(asked) if plain_id(asked) == id);
        let key = self.asks.iter().find(|(_, ask)| theirs(ask)).map(|(key, _)| *key)?;
        self.asks.remove(&key).map(|ask| (key, ask.stream))
    }

    /// True if the process has a question to a session with this id that is not answered.
    fn has(&self, id: &str) -> bool {
        self.asks.values().any(|ask| matches!(&ask.asker, Asker::Process(asked) if plain_id(asked) == id))
    }

    /// A stream goes on under another key.
    pub(super) fn moved(&mut self, old: StreamKey, new: StreamKey) {
        for ask in self.asks.values_mut().filter(|ask| ask.stream == Some(old)) {
            ask.stream = Some(new);
        }
    }

    /// The questions of a call that is over; how many bytes were kept of what was answered.
    pub(super) fn forget_round(&mut self, wire: u64) -> usize {
        let bytes = self.rounds.remove(&wire).map_or(0, |round| round.bytes());
        self.asks.retain(|_, ask| !matches!(ask.asker, Asker::Round(call, _) if call == wire));
        bytes
    }

    /// Whoever asked is gone.
    pub(super) fn lost(&mut self) {
        self.asks.retain(|_, ask| matches!(ask.asker, Asker::Round(..)));
    }

    #[cfg(test)]
    pub(super) fn size(&self) -> usize {
        self.asks.len() + self.rounds.len()
    }
}

impl Exchange {
    /// The process asks something.
    pub(super) fn asked(&mut self, id: &str, method: &str, frame: &Frame<'_>, now: Moment) {
        if method == "ping" {
            return self.reply(frame::answer(id, "{}"));
        }
        if self.server.as_ref().is_none_or(|server| server.is_modern) {
            return self.refuse_process(id, METHOD_NOT_FOUND, "this revision has no requests of servers");
        }
        let session = match self.sole_for_asks() {
            Sole::One(Owner::Session(key)) => key,
            Sole::Nobody => {
                return self.refuse_process(id, METHOD_NOT_FOUND, "there is no client to be asked");
            }
            Sole::One(Owner::Guest(wire)) => {
                self.turns.asks_back = true;
                return self.ask_guest(wire, id, method, frame, now);
            }
            Sole::One(Owner::Modern) => {
                self.turns.asks_back = true;
                return self.refuse_process(id, METHOD_NOT_FOUND, "this client cannot be asked");
            }
            Sole::Several => {
                self.turns.asks_back = true;
                self.counts.ambiguous += 1;
                return self.refuse_process(
                    id,
                    INTERNAL_ERROR,
                    "it cannot be told which client this is for; try again",
                );
            }
        };
        self.turns.asks_back = true;
        if !self.can_be_asked(session, method) {
            return self.refuse_process(id, METHOD_NOT_FOUND, "the client did not declare this capability");
        }
        if self.asks.is_full(session) || self.is_asked(&plain_id(id)) {
            return self.refuse_process(id, INTERNAL_ERROR, "too many questions, or one twice");
        }
        let stream = self.newest_stream(session);
        let meta = frame.params.and_then(|params| members(params, ["_meta"]).ok()).and_then(|[meta]| meta);
        let token = meta.and_then(|meta| members(meta, ["progressToken"]).ok()).and_then(|[token]| token);
        let token = token.filter(|token| frame::is_id(token));
        let Some(ask) = self.fresh_ask(session) else { return };
        self.asks.put((session, ask), Asker::Process(id.into()), token, stream);
        self.turns.questioned(now);
        let mut splice = Splice::new(frame.text);
        splice.put(frame.request_id().unwrap_or(id), ask.to_string());
        self.put_or_tell(stream, session, splice.finish(""));
    }

    /// Whom the process can mean: the one client of an isolated exchange, in any case.
    fn sole_for_asks(&self) -> Sole {
        match self.turns.sole_to_ask() {
            Sole::One(owner) => Sole::One(owner),
            _ if self.settings.isolated && self.sessions.len() == 1 => {
                self.sessions.keys().next().map_or(Sole::Nobody, |key| Sole::One(Owner::Session(*key)))
            }
            Sole::Nobody => Sole::Nobody,
            Sole::Several => Sole::Several,
        }
    }

    pub(super) fn fresh_ask(&mut self, session: SessionKey) -> Option<u64> {
        let session = self.sessions.get_mut(&session)?;
        session.last_ask += 1;
        Some(session.last_ask)
    }

    /// True if the client said that it can be asked this. What we do not know of is for it to judge.
    pub(super) fn can_be_asked(&self, session: SessionKey, method: &str) -> bool {
        self.sessions.get(&session).is_some_and(|session| declares(&session.capabilities, method))
    }

    /// True if the process has a question with this id that is not answered.
    pub(super) fn is_asked(&self, id: &str) -> bool {
        self.asks.has(id) || self.is_asked_by_park(id)
    }

    pub(super) fn refuse_process(&mut self, id: &str, code: i32, why: &str) {
        self.reply(frame::error(Some(id), code, why));
    }

    /// A client's answer.
    pub(super) fn replied(
        &mut self,
        owner: Owner,
        id: Option<&str>,
        outcome: Outcome<'_>,
        frame: &Frame<'_>,
    ) {
        // A client may have made a string of our number.
        let number = id.and_then(|id| whole_number(id.trim_matches('"')));
        let (Owner::Session(session), Some(number), Some(id)) = (owner, number, id) else {
            self.counts.unclaimed += 1;
            return;
        };
        match self.asks.take((session, number)) {
            Some(Asker::Process(theirs)) => {
                self.turns.replied(self.now);
                let mut splice = Splice::new(frame.text);
                splice.put(id, &*theirs);
                let line = splice.finish("\n");
                self.send(line);
            }
            Some(Asker::Round(wire, name)) => self.round_answered(wire, &name, outcome),
            None => self.counts.unclaimed += 1,
        }
    }

    /// True if a client reports progress on something it was asked.
    pub(super) fn is_progress_of_an_ask(&self, session: SessionKey, frame: &Frame<'_>) -> bool {
        if self.asks.of(session).next().is_none() {
            return false;
        }
        let token = frame
            .params
            .and_then(|params| few_members(params, ["progressToken"]).ok())
            .and_then(|[token]| token);
        let Some(token) = token.map(plain_id) else { return false };
        self.asks.of(session).any(|(_, ask)| ask.token.as_deref() == Some(&*token))
    }

    /// The session ends: whoever asked it something is told.
    pub(super) fn refuse_asks_of(&mut self, session: SessionKey) {
        let keys: Vec<AskKey> = self.asks.of(session).map(|(key, _)| *key).collect();
        for key in keys {
            if let Some(Asker::Process(id)) = self.asks.take(key) {
                self.refuse_process(&id, INTERNAL_ERROR, "the client is gone");
            }
        }
    }
}

/// True if these capabilities of a client allow to ask it this.
pub(super) fn declares(capabilities: &str, method: &str) -> bool {
    let capability = match method {
        "sampling/createMessage" => "sampling",
        "elicitation/create" => "elicitation",
        "roots/list" => "roots",
        _ => return true,
    };
    let found = members(capabilities, [capability]).ok().and_then(|[found]| found);
    found.is_some_and(|found| found.starts_with('{'))
}
