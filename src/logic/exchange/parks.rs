//! A legacy process that needs something of a modern client.
//!
//! Such a client is asked by the answer to its call: `input_required`. It sends the call again with what it
//! was asked (2026-07-28, MRTR). The process sees nothing of this; it waits for the answer to its question,
//! and meanwhile the call is parked: with the process, and on no stream. What brings it back is
//! `requestState`, which only the client knows that it was given to.

use std::fmt::Write as _;
use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::logic::era::META_CAPABILITIES;
use crate::logic::frame::{
    self, Frame, INTERNAL_ERROR, INVALID_PARAMS, Kind, METHOD_NOT_FOUND, each_of_few_members, members,
    plain_id, text_of,
};
use crate::model::Moment;

use super::Exchange;
use super::asks::declares;
use super::bounds::TOO_MUCH;

use super::streams::Event;
use super::table::{Call, Stage};

/// How long a call waits for its client to come back. Others may wait for their turn behind it.
pub(super) const PARKED: Duration = Duration::from_secs(300);

/// Questions of one call that are not answered.
const MAX_QUESTIONS: usize = 32;

/// Bytes of questions and answers that wait for modern clients to come back.
const MAX_PARKED: usize = 32 << 20;

/// What may stand in `inputRequests` (2026-07-28, MRTR).
const QUESTIONS: [&str; 3] = ["elicitation/create", "sampling/createMessage", "roots/list"];

/// What `requestState` is made with, so that nobody can name a call of somebody else.
#[derive(Clone)]
pub struct Seal([u8; 64]);

impl Seal {
    /// From 256 random bits.
    #[must_use]
    pub fn new(key: [u8; 32]) -> Self {
        // A key shorter than a block is filled up with zeros (RFC 2104), here already.
        let mut block = [0; 64];
        block[..32].copy_from_slice(&key);
        Self(block)
    }

    /// 128 bits that nobody else can tell, in hexadecimal.
    fn state(&self, wire: u64, round: u64) -> String {
        let mut digest = Hmac::<Sha256>::new(&self.0.into());
        digest.update(&wire.to_be_bytes());
        digest.update(&round.to_be_bytes());
        let mut out = String::with_capacity(32);
        for byte in &digest.finalize().into_bytes()[..16] {
            // Writing into a String cannot fail.
            write!(out, "{byte:02x}").unwrap_or_default();
        }
        out
    }
}

impl std::fmt::Debug for Seal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

/// What is known of a modern client that can be asked.
#[derive(Debug)]
pub(super) struct Guest {
    /// Which of [`QUESTIONS`] it can be asked.
    can: [bool; 3],
    questions: Vec<Question>,
    /// Questions there ever were: their names.
    asked: u64,
    /// What its client has to say to get at the call again.
    state: String,
    /// The process answered while its client was away.
    answer: Option<Box<str>>,
}

#[derive(Debug)]
struct Question {
    /// Its id at the process.
    id: Box<str>,
    /// Its name in `inputRequests`.
    name: u64,
    /// `{"method":…,"params":…}`
    request: String,
}

impl Guest {
    /// `None` if a client with these params is not one that can be asked.
    pub(super) fn of(params: Option<&str>) -> Option<Box<Self>> {
        let [meta] = members(params?, ["_meta"]).ok()?;
        let [capabilities] = members(meta?, [META_CAPABILITIES]).ok()?;
        let capabilities = capabilities?;
        let can = QUESTIONS.map(|method| declares(capabilities, method));
        can.contains(&true).then(|| {
            let (questions, state) = (Vec::new(), String::new());
            Box::new(Self { can, questions, asked: 0, state, answer: None })
        })
    }

    fn size(&self) -> usize {
        let questions: usize = self.questions.iter().map(|question| question.request.len()).sum();
        questions + self.answer.as_ref().map_or(0, |answer| answer.len())
    }

    fn asks(&self, id: &str) -> bool {
        self.questions.iter().any(|question| plain_id(&question.id) == id)
    }
}

impl Exchange {
    /// True if the process has a question with this id to a modern client.
    pub(super) fn is_asked_by_park(&self, id: &str) -> bool {
        self.calls.values().filter_map(|call| call.guest.as_ref()).any(|guest| guest.asks(id))
    }

    /// The process takes back what it asked a modern client. True if there was such a question.
    pub(super) fn unask(&mut self, id: &str) -> bool {
        let mut found = false;
        for guest in self.calls.values_mut().filter_map(|call| call.guest.as_mut()) {
            found |= guest.asks(id);
            guest.questions.retain(|question| plain_id(&question.id) != id);
        }
        found
    }

    /// Bytes that wait for modern clients.
    pub(super) fn parked(&self) -> usize {
        self.calls.values().filter_map(|call| call.guest.as_ref()).map(|guest| guest.size()).sum()
    }

    /// The process asks the client of this call something.
    pub(super) fn ask_guest(&mut self, wire: u64, id: &str, method: &str, frame: &Frame<'_>, now: Moment) {
        let Some(guest) = self.calls.get(&wire).and_then(|call| call.guest.as_ref()) else {
            return self.refuse_process(id, METHOD_NOT_FOUND, "there is no client to be asked");
        };
        let can = QUESTIONS.iter().zip(guest.can).any(|(question, can)| can && *question == method);
        if self.settings.seal.is_none() || !can {
            return self.refuse_process(id, METHOD_NOT_FOUND, "the client did not declare this capability");
        }
        let size = self.parked() + frame.text.len();
        if guest.questions.len() >= MAX_QUESTIONS || size > MAX_PARKED || self.is_asked(&plain_id(id)) {
            return self.refuse_process(id, INTERNAL_ERROR, "too many questions, or one twice");
        }
        let Some(call) = self.calls.get_mut(&wire) else { return };
        let Some(guest) = call.guest.as_mut() else { return };
        guest.asked += 1;
        let params = frame.params.map(|params| format!(r#","params":{params}"#)).unwrap_or_default();
        let request = format!(r#"{{"method":{}{params}}}"#, frame::quoted(method));
        guest.questions.push(Question { id: id.into(), name: guest.asked, request });
        // Whoever is away already hears of it when they are back.
        if call.stage == Stage::Sent {
            self.park(wire, now);
        }
    }

    /// Answers a call with what is asked.
    fn park(&mut self, wire: u64, now: Moment) {
        let (Some(call), Some(seal)) = (self.calls.get_mut(&wire), &self.settings.seal) else { return };
        let Some(guest) = call.guest.as_mut() else { return };
        guest.state = seal.state(wire, guest.asked);
        let asked = guest.questions.iter().map(|one| format!(r#""{}":{}"#, one.name, one.request));
        let result = format!(
            r#"{{"resultType":"input_required","inputRequests":{{{}}},"requestState":"{}"}}"#,
            asked.collect::<Vec<_>>().join(","),
            guest.state
        );
        call.stage = Stage::Parked { until: now + PARKED, is_over: false };
        self.turns.questioned(now);
        self.timed.note(now + PARKED, wire);
        let event = Event { message: frame::answer(&call.id, &result), status: 200 };
        self.streams.answer(call.stream, event, &call.id);
    }

    /// A modern client's request: true if it brings back a call that is parked, or says that it does.
    pub(super) fn comes_back(&mut self, fresh: &Call, frame: &Frame<'_>, now: Moment) -> bool {
        let is_legacy = self.server.as_ref().is_some_and(|server| !server.is_modern);
        if !is_legacy || !fresh.owner.is_modern() || !fresh.what.can_ask() {
            return false;
        }
        let found = frame.params.map(|params| members(params, ["requestState", "inputResponses"]));
        let Some(Ok([Some(state), given])) = found else { return false };
        let state = text_of(state).unwrap_or_default();
        let is_it = |call: &Call| {
            let parked = matches!(call.stage, Stage::Parked { .. }) && call.what == fresh.what;
            parked && call.guest.as_ref().is_some_and(|guest| guest.state == *state)
        };
        let wire = self.calls.iter().find(|(_, call)| is_it(call)).map(|(wire, _)| *wire);
        let Some(wire) = wire else {
            let why = "the call that this requestState is of has ended; it may have taken effect";
            self.refuse(fresh.stream, &fresh.id, INVALID_PARAMS, why, 200);
            return true;
        };
        self.take_up(wire, fresh, given.unwrap_or("{}"), now);
        true
    }

    fn take_up(&mut self, wire: u64, fresh: &Call, given: &str, now: Moment) {
        let Some(call) = self.calls.get_mut(&wire) else { return };
        self.waiting -= call.kept();
        (call.id, call.token, call.level) = (fresh.id.clone(), fresh.token.clone(), fresh.level);
        self.waiting += call.kept();
        call.stream = fresh.stream;
        let Some(guest) = call.guest.as_mut() else { return };
        if let Some(text) = guest.answer.take() {
            return self.hand_over(wire, &text);
        }
        call.stage = Stage::Sent;
        self.turns.replied(now);
        let mut answers = Vec::new();
        // What cannot be read answers nothing, and is asked again.
        let read = each_of_few_members(given, |answer| {
            let known = guest.questions.iter().position(|one| one.name.to_string() == answer.key);
            if let Some(at) = known {
                // A line break can stand between the tokens of JSON only.
                let result = answer.value.replace(['\n', '\r'], " ");
                answers.push((guest.questions.remove(at), result));
            }
        });
        if read.is_err() {
            guest.questions.extend(answers.drain(..).map(|(question, _)| question));
        }
        let left = !guest.questions.is_empty();
        for (question, result) in answers {
            self.send(frame::answer(&question.id, &result));
        }
        if left {
            self.park(wire, now);
        }
    }

    /// The process answered a call whose client is away: it is kept, and others need not wait any more.
    pub(super) fn keep_for_guest(&mut self, wire: u64, frame: &Frame<'_>) {
        let too_much = self.parked() + frame.text.len() > MAX_PARKED;
        let Some(call) = self.calls.get_mut(&wire) else { return };
        let Stage::Parked { until, is_over: false } = call.stage else {
            self.counts.unclaimed += 1;
            return;
        };
        let Some(guest) = call.guest.as_mut() else { return };
        guest.questions.clear();
        let dropped = || frame::error(Some(&wire.to_string()), INTERNAL_ERROR, TOO_MUCH);
        let dropped = too_much.then(|| String::from_utf8(dropped()).unwrap_or_default());
        guest.answer = Some(dropped.unwrap_or_else(|| frame.text.to_owned()).into());
        call.stage = Stage::Parked { until, is_over: true };
        self.turns.answered(call.owner, wire, call.what.can_ask(), self.now);
        self.pump();
    }

    /// The answer that was kept.
    fn hand_over(&mut self, wire: u64, text: &str) {
        let Ok(frame) = frame::parse(text.as_bytes()) else { return };
        let Kind::Answer { id: Some(id), outcome } = frame.kind else { return };
        let Some(call) = self.forget_call(wire) else { return };
        let event = self.translated(&call, id, outcome, &frame);
        self.streams.answer(call.stream, event, &call.id);
    }

    /// A parked call is given up: the process is told, of its questions too.
    pub(super) fn refuse_questions(&mut self, call: &mut Call) {
        let questions = call.guest.take().map(|guest| guest.questions).unwrap_or_default();
        for question in questions {
            self.refuse_process(&question.id, INTERNAL_ERROR, "the client is gone");
        }
    }

    /// Gives up the calls whose clients did not come back.
    pub(super) fn clear_parks(&mut self, now: Moment) {
        let over = |call: &Call| matches!(call.stage, Stage::Parked { until, .. } if until <= now);
        let over: Vec<u64> =
            self.calls.iter().filter(|(_, call)| over(call)).map(|(wire, _)| *wire).collect();
        for wire in over {
            self.cancel(wire, now);
        }
    }
}
