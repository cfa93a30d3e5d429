//! A modern process that needs something of a legacy client.
//!
//! The process answers a call with `input_required` and forgets it. The client is asked on that call's
//! stream, and when all is answered the call is sent again with what the client said (2026-07-28, MRTR).

use std::collections::BTreeMap;

use crate::logic::frame::{self, INTERNAL_ERROR, Outcome, each_member, members, text_of};

use super::Exchange;
use super::asks::Asker;
use super::calls::MAX_WAITING;
use super::table::Stage;
use super::turns::Owner;

/// A call is sent again this often at most.
const MAX_ROUNDS: u32 = 32;
/// Questions of one round.
const MAX_QUESTIONS: usize = 32;

/// What a call in a round still waits for, and what it has.
#[derive(Debug, Default)]
pub(super) struct Round {
    left: usize,
    /// `"name":result`, as they came.
    answers: Vec<String>,
    /// `requestState`, as it came.
    state: Option<String>,
    /// Bytes of both, and of the names of what was asked.
    bytes: usize,
}

/// Rounds that wait for a client, by call.
pub(super) type Rounds = BTreeMap<u64, Round>;

impl Round {
    /// What is kept of it, in bytes.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Exchange {
    /// True if this answer is none yet, and the client of the call is being asked.
    pub(super) fn wants_more(&mut self, wire: u64, outcome: Outcome<'_>) -> bool {
        let (Outcome::Result(result), Some(call)) = (outcome, self.calls.get(&wire)) else { return false };
        let Owner::Session(session) = call.owner else { return false };
        if call.text.is_none() || !result.contains("input_required") {
            return false;
        }
        let Ok([kind, questions, state]) = members(result, ["resultType", "inputRequests", "requestState"])
        else {
            return false;
        };
        if kind.and_then(text_of).as_deref() != Some("input_required") {
            return false;
        }
        let mut asks = Vec::new();
        let read = each_member(questions.unwrap_or("{}"), |question| {
            let [method, params] = members(question.value, ["method", "params"]).unwrap_or_default();
            asks.push((question.raw_key.to_owned(), method.and_then(text_of), params));
        });
        let known = asks
            .iter()
            .all(|(_, method, _)| method.as_deref().is_some_and(|method| self.can_be_asked(session, method)));
        let names = asks.iter().map(|(name, ..)| name.len()).sum::<usize>();
        let bytes = state.map_or(0, str::len) + names;
        let is_too_much = asks.len() > MAX_QUESTIONS || self.waiting + bytes > MAX_WAITING;
        if read.is_err() || !known || is_too_much || call.rounds >= MAX_ROUNDS {
            self.fail(wire, INTERNAL_ERROR, "the server wants something that this client cannot be asked");
            self.pump();
            return true;
        }
        let (stream, owner, can_ask) = (call.stream, call.owner, call.what.can_ask());
        self.turns.answered(owner, wire, can_ask, self.now);
        if let Some(call) = self.calls.get_mut(&wire) {
            call.stage = Stage::Asks;
            call.rounds += 1;
        }
        let state = state.map(str::to_owned);
        self.waiting += bytes;
        self.asks.rounds.insert(wire, Round { left: asks.len(), state, bytes, ..Round::default() });
        for (name, method, params) in &asks {
            let (Some(ask), Some(method)) = (self.fresh_ask(session), method) else { continue };
            self.asks.put((session, ask), Asker::Round(wire, name.as_str().into()), None, Some(stream));
            let message = frame::request(&ask.to_string(), method, *params);
            self.put_or_tell(Some(stream), session, message);
        }
        if asks.is_empty() {
            self.send_again(wire);
        }
        self.pump();
        true
    }

    /// The client answered one question of a round.
    pub(super) fn round_answered(&mut self, wire: u64, name: &str, outcome: Outcome<'_>) {
        let result = match outcome {
            Outcome::Result(result) => result,
            Outcome::Error(_) => {
                return self.fail(wire, INTERNAL_ERROR, "the client refused what the server asked it");
            }
        };
        if self.waiting + result.len() > MAX_WAITING {
            return self.fail(wire, INTERNAL_ERROR, "too much waits for this server");
        }
        let Some(round) = self.asks.rounds.get_mut(&wire) else { return };
        let answer = format!("{name}:{result}");
        self.waiting += answer.len();
        round.bytes += answer.len();
        round.answers.push(answer);
        round.left = round.left.saturating_sub(1);
        if round.left == 0 {
            self.send_again(wire);
        }
    }

    /// Sends a call again, under a new id, with what its client answered.
    fn send_again(&mut self, wire: u64) {
        let (Some(round), Some(mut call)) = (self.asks.rounds.remove(&wire), self.take_call(wire)) else {
            return;
        };
        let mut more = format!(r#""inputResponses":{{{}}}"#, round.answers.join(","));
        if let Some(state) = round.state {
            more.push_str(",\"requestState\":");
            more.push_str(&state);
        }
        self.waiting -= round.bytes;
        let new = self.fresh();
        let Owner::Session(session) = call.owner else { return };
        if let Some(known) =
            self.sessions.get_mut(&session).and_then(|s| s.calls.get_mut(&*frame::plain_id(&call.id)))
        {
            *known = new;
        }
        let first = call.text.clone().unwrap_or_default();
        call.stage = Stage::Waits;
        call.more = Some(more.into());
        self.put_call(new, call);
        if let Ok(frame) = frame::parse(first.as_bytes()) {
            self.submit(new, &frame);
        }
    }
}
