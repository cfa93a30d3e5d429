//! The table of clients' requests, and what is kept of them.

use crate::model::Moment;

use super::parks::Guest;
use super::turns::Owner;
use super::what::What;
use super::{Exchange, MAX_CALLS, StreamKey};

/// How far a call is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// For a process, or for its turn.
    Waits,
    /// The process has it.
    Sent,
    /// Its client has to answer something first; the process has nothing of it at the moment.
    Asks,
    /// Its client cancelled it; the process may still work on it until then.
    Ghost(Moment),
    /// Its modern client has to answer something first, by then; the process works on it, or is done
    /// with it (`is_over`).
    Parked { until: Moment, is_over: bool },
}

/// A client's request.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) owner: Owner,
    /// Its id and its progress token, as the client wrote them.
    pub(super) id: Box<str>,
    pub(super) token: Option<Box<str>>,
    pub(super) stream: StreamKey,
    pub(super) what: What,
    pub(super) stage: Stage,
    /// The message, while it may have to be sent (again).
    pub(super) text: Option<Box<str>>,
    /// How severe a log message must be to belong to a modern call; `None`: it wants none.
    pub(super) level: Option<u8>,
    /// Rounds of `input_required` so far.
    pub(super) rounds: u32,
    /// Members of params that come first when it is sent (again).
    pub(super) more: Option<Box<str>>,
    /// Of a modern call, if its client can be asked.
    pub(super) guest: Option<Box<Guest>>,
}

impl Call {
    /// What is kept of it, in bytes.
    pub(super) fn kept(&self) -> usize {
        let texts = [&self.token, &self.text, &self.more].into_iter().flatten();
        self.id.len() + texts.map(|text| text.len()).sum::<usize>()
    }
}

impl Exchange {
    /// True if there is no room for one more call of this owner. One session, or the modern clients together,
    /// may have twice as many as there is room left for: alone 10,923, and never all.
    pub(super) fn is_full_for(&self, owner: Owner) -> bool {
        let has = self.shares.get(&owner.session()).copied().unwrap_or(0);
        has >= 2 * MAX_CALLS.saturating_sub(self.calls.len())
    }

    /// Puts a call into the table, and into nothing else.
    pub(super) fn put_call(&mut self, wire: u64, call: Call) {
        self.waiting += call.kept();
        *self.shares.entry(call.owner.session()).or_default() += 1;
        self.calls.insert(wire, call);
    }

    /// Takes a call out of the table, and out of nothing else.
    pub(super) fn take_call(&mut self, wire: u64) -> Option<Call> {
        let call = self.calls.remove(&wire)?;
        self.waiting -= call.kept();
        let whose = call.owner.session();
        if let Some(share) = self.shares.get_mut(&whose) {
            *share -= 1;
            if *share == 0 {
                self.shares.remove(&whose);
            }
        }
        Some(call)
    }

    /// Keeps the text of a call, or nothing of it any more.
    pub(super) fn keep_text(&mut self, wire: u64, text: Option<Box<str>>) {
        let Some(call) = self.calls.get_mut(&wire) else { return };
        self.waiting += text.as_ref().map_or(0, |text| text.len());
        let before = std::mem::replace(&mut call.text, text);
        self.waiting -= before.map_or(0, |text| text.len());
    }

    /// The text of a call, which is not kept any more.
    pub(super) fn take_text(&mut self, wire: u64) -> Option<Box<str>> {
        let text = self.calls.get_mut(&wire)?.text.take()?;
        self.waiting -= text.len();
        Some(text)
    }
}
