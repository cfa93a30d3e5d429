//! Whose calls are in flight.
//!
//! A legacy process that asks a client something does not say for which call. So it is known whose it
//! is only while one client's calls are in flight. A process that was seen to ask (`asks_back`) gets
//! calls that can make it ask from one session at a time: sessions take turns, first come first served.

use std::collections::{BTreeMap, VecDeque};

use super::SessionKey;

/// Whose a call is. Modern clients that cannot be asked are one owner; a call of one that can is an
/// owner by itself, because nothing says which of them are of the same client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Owner {
    Session(SessionKey),
    Modern,
    /// A modern call, by the id under which the process knows it.
    Guest(u64),
}

impl Owner {
    pub(super) const fn is_modern(self) -> bool {
        match self {
            Self::Session(_) => false,
            Self::Modern | Self::Guest(_) => true,
        }
    }
}

/// Of whom it can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sole {
    Nobody,
    One(Owner),
    Several,
}

#[derive(Debug, Default)]
pub(super) struct Turns {
    /// The process was seen to ask, or would have.
    pub(super) asks_back: bool,
    /// Calls in flight by owner; none with 0.
    all: BTreeMap<Owner, usize>,
    /// Those of them that can make the process ask.
    asking: BTreeMap<Owner, usize>,
    /// Cancelled calls that the process may still work on.
    ghosts: BTreeMap<Owner, usize>,
    /// Those of them that may still make it ask.
    asking_ghosts: BTreeMap<Owner, usize>,
    /// Calls that wait for a turn, by the id under which they will be sent.
    queue: VecDeque<(u64, Owner)>,
}

impl Turns {
    /// True if this call may be sent now.
    pub(super) fn is_free(&self, owner: Owner, can_ask: bool) -> bool {
        let own_turn = self.asking.keys().all(|holder| *holder == owner);
        !self.asks_back || !can_ask || (self.queue.is_empty() && own_turn)
    }

    pub(super) fn wait(&mut self, id: u64, owner: Owner) {
        self.queue.push_back((id, owner));
    }

    pub(super) fn forget(&mut self, id: u64) {
        self.queue.retain(|(waiting, _)| *waiting != id);
    }

    pub(super) fn sent(&mut self, owner: Owner, can_ask: bool) {
        *self.all.entry(owner).or_default() += 1;
        if can_ask {
            *self.asking.entry(owner).or_default() += 1;
        }
    }

    pub(super) fn answered(&mut self, owner: Owner, can_ask: bool) {
        less(&mut self.all, owner);
        if can_ask {
            less(&mut self.asking, owner);
        }
    }

    pub(super) fn haunt(&mut self, owner: Owner, can_ask: bool) {
        *self.ghosts.entry(owner).or_default() += 1;
        if can_ask {
            *self.asking_ghosts.entry(owner).or_default() += 1;
        }
    }

    pub(super) fn exorcise(&mut self, owner: Owner, can_ask: bool) {
        less(&mut self.ghosts, owner);
        if can_ask {
            less(&mut self.asking_ghosts, owner);
        }
    }

    /// The calls whose turn has come: all of the session that waits longest, once nobody has the turn.
    pub(super) fn due(&mut self) -> Vec<u64> {
        let Some((_, owner)) = self.queue.front().copied().filter(|_| self.asking.is_empty()) else {
            return Vec::new();
        };
        let (due, rest) = std::mem::take(&mut self.queue).into_iter().partition(|(_, other)| *other == owner);
        self.queue = rest;
        let due: VecDeque<(u64, Owner)> = due;
        due.into_iter().map(|(id, _)| id).collect()
    }

    /// Whose something is that belongs to some call.
    pub(super) fn sole(&self) -> Sole {
        sole_of(&self.all, &self.ghosts)
    }

    /// Whose a question is. Once sessions take turns, those count whose calls can make the process ask.
    pub(super) fn sole_to_ask(&self) -> Sole {
        let calls = if self.asks_back && !self.asking.is_empty() { &self.asking } else { &self.all };
        sole_of(calls, &self.asking_ghosts)
    }

    /// True if some cancelled call may still make the process speak.
    pub(super) fn is_haunted(&self) -> bool {
        !self.ghosts.is_empty()
    }

    /// Calls in flight of this owner.
    pub(super) fn in_flight(&self, owner: Owner) -> usize {
        self.all.get(&owner).copied().unwrap_or(0)
    }

    /// Calls in flight.
    pub(super) fn all_in_flight(&self) -> usize {
        self.all.values().sum()
    }

    /// The process is gone, and with it what it worked on. Calls that wait go on waiting elsewhere.
    pub(super) fn lost(&mut self) -> Vec<u64> {
        let queue = std::mem::take(&mut self.queue);
        *self = Self { asks_back: self.asks_back, ..Self::default() };
        queue.into_iter().map(|(id, _)| id).collect()
    }

    #[cfg(test)]
    pub(super) fn size(&self) -> usize {
        self.all.len() + self.asking.len() + self.ghosts.len() + self.asking_ghosts.len() + self.queue.len()
    }
}

/// The only owner of calls that are in flight, or cancelled and perhaps still worked on.
fn sole_of(calls: &BTreeMap<Owner, usize>, ghosts: &BTreeMap<Owner, usize>) -> Sole {
    let mut owners = calls.keys();
    let Some(owner) = owners.next() else {
        return if ghosts.is_empty() { Sole::Nobody } else { Sole::Several };
    };
    let haunted = ghosts.keys().any(|ghost| ghost != owner);
    if haunted || owners.next().is_some() { Sole::Several } else { Sole::One(*owner) }
}

fn less(counts: &mut BTreeMap<Owner, usize>, owner: Owner) {
    if let Some(count) = counts.get_mut(&owner) {
        *count -= 1;
        if *count == 0 {
            counts.remove(&owner);
        }
    }
}
