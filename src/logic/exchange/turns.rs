//! Whose calls are in flight.
//!
//! A legacy process that asks a client something does not say for which call. So it is known whose it
//! is only while one client's calls are in flight. A process that was seen to ask (`asks_back`) gets
//! calls that can make it ask from one session at a time: sessions take turns, first come first served.
//!
//! A turn ends when its calls are answered, or when others wait and nothing was heard of it for [`TURN`]. Such
//! calls may still be answered; but whose a question is can then not be told, until they are.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::parks::PARKED;
use super::{Exchange, SessionKey};
use crate::logic::frame::SERVER_LOST;
use crate::model::Moment;

/// How long a turn lasts of which nothing is heard (no answer, progress or question) while others wait.
/// While a client is asked something it lasts [`PARKED`]: people take their time.
pub(super) const TURN: Duration = Duration::from_secs(30);

/// How long a call waits for its turn.
pub(super) const PATIENCE: Duration = Duration::from_secs(600);

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

    pub(super) const fn session(self) -> Option<SessionKey> {
        match self {
            Self::Session(key) => Some(key),
            Self::Modern | Self::Guest(_) => None,
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

/// Calls by owner; none without any.
type Calls = BTreeMap<Owner, BTreeSet<u64>>;

#[derive(Debug, Default)]
pub(super) struct Turns {
    /// The process was seen to ask, or would have.
    pub(super) asks_back: bool,
    /// Calls in flight.
    all: Calls,
    /// How many.
    in_flight: usize,
    /// Those of them that can make the process ask, and whose turn has not ended.
    asking: Calls,
    /// When the turn ends if others wait.
    until: Moment,
    /// Cancelled calls that the process may still work on.
    ghosts: Calls,
    /// Those of them that may still make it ask, and calls in flight whose turn has ended.
    asking_ghosts: Calls,
    /// Calls that wait for a turn, by the id under which they will be sent, and since when: oldest first.
    queue: BTreeMap<u64, (Owner, Moment)>,
}

impl Turns {
    /// True if this call may be sent now.
    pub(super) fn is_free(&self, owner: Owner, can_ask: bool) -> bool {
        let own_turn = self.asking.keys().all(|holder| *holder == owner);
        !self.asks_back || !can_ask || (self.queue.is_empty() && own_turn)
    }

    pub(super) fn wait(&mut self, id: u64, owner: Owner, now: Moment) {
        self.queue.insert(id, (owner, now));
    }

    pub(super) fn forget(&mut self, id: u64) {
        self.queue.remove(&id);
    }

    pub(super) fn sent(&mut self, owner: Owner, id: u64, can_ask: bool, now: Moment) {
        self.in_flight += 1;
        put(&mut self.all, owner, id);
        if can_ask {
            put(&mut self.asking, owner, id);
            self.heard(now);
        }
    }

    pub(super) fn answered(&mut self, owner: Owner, id: u64, can_ask: bool, now: Moment) {
        self.in_flight -= 1;
        take(&mut self.all, owner, id);
        if can_ask {
            if take(&mut self.asking, owner, id) {
                self.heard(now);
            } else {
                take(&mut self.asking_ghosts, owner, id);
            }
        }
        if self.asking.is_empty() {
            self.until = Moment::default();
        }
    }

    fn heard(&mut self, now: Moment) {
        self.until = self.until.max(now + TURN);
    }

    /// Something was heard of a call in flight.
    pub(super) fn heard_of(&mut self, owner: Owner, id: u64, now: Moment) {
        if self.asking.get(&owner).is_some_and(|calls| calls.contains(&id)) {
            self.heard(now);
        }
    }

    /// A client whose turn it is is asked something.
    pub(super) fn questioned(&mut self, now: Moment) {
        if !self.asking.is_empty() {
            self.until = self.until.max(now + PARKED);
        }
    }

    /// It has answered.
    pub(super) fn replied(&mut self, now: Moment) {
        self.until = now + TURN;
    }

    pub(super) fn haunt(&mut self, owner: Owner, id: u64, can_ask: bool) {
        put(&mut self.ghosts, owner, id);
        if can_ask {
            put(&mut self.asking_ghosts, owner, id);
        }
    }

    pub(super) fn exorcise(&mut self, owner: Owner, id: u64, can_ask: bool) {
        take(&mut self.ghosts, owner, id);
        if can_ask {
            take(&mut self.asking_ghosts, owner, id);
        }
    }

    /// The calls whose turn has come: all of the session that waits longest, once nobody has the turn.
    pub(super) fn due(&mut self) -> Vec<u64> {
        let first = self.queue.first_key_value().filter(|_| self.asking.is_empty());
        let Some(owner) = first.map(|(_, (owner, _))| *owner) else { return Vec::new() };
        let mut due = Vec::new();
        self.queue.retain(|id, (other, _)| {
            if *other == owner {
                due.push(*id);
            }
            *other != owner
        });
        due
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

    /// The call in flight of this owner that was sent last, of those that can ask if there are such.
    pub(super) fn newest(&self, owner: Owner) -> Option<u64> {
        let calls = self.asking.get(&owner).or_else(|| self.all.get(&owner));
        calls.and_then(BTreeSet::last).copied()
    }

    /// Calls in flight of this owner.
    pub(super) fn in_flight(&self, owner: Owner) -> usize {
        self.all.get(&owner).map_or(0, BTreeSet::len)
    }

    /// Calls in flight.
    pub(super) const fn all_in_flight(&self) -> usize {
        self.in_flight
    }

    /// The process is gone, and with it what it worked on. Calls that wait go on waiting elsewhere.
    pub(super) fn lost(&mut self) {
        *self = Self { asks_back: self.asks_back, ..Self::default() };
    }

    /// When a turn ends, or a call has waited for one long enough.
    pub(super) fn deadline(&self) -> Option<Moment> {
        let (_, (_, since)) = self.queue.first_key_value()?;
        let turn = (!self.asking.is_empty()).then_some(self.until);
        turn.into_iter().chain([*since + PATIENCE]).min()
    }

    /// True if a turn ended just now because nothing was heard of it.
    fn ends(&mut self, now: Moment) -> bool {
        if self.queue.is_empty() || self.asking.is_empty() || self.until > now {
            return false;
        }
        for (owner, calls) in std::mem::take(&mut self.asking) {
            self.asking_ghosts.entry(owner).or_default().extend(calls);
        }
        true
    }

    /// A call that has waited too long.
    fn waited(&self, now: Moment) -> Option<u64> {
        let (id, (_, since)) = self.queue.first_key_value()?;
        (*since + PATIENCE <= now).then_some(*id)
    }

    #[cfg(test)]
    pub(super) fn size(&self) -> usize {
        let calls = [&self.all, &self.asking, &self.ghosts, &self.asking_ghosts];
        calls.iter().map(|calls| calls.len()).sum::<usize>() + self.queue.len() + self.in_flight
    }
}

impl Exchange {
    /// Ends a turn of which nothing is heard, and gives up what waited too long.
    pub(super) fn end_turns(&mut self, now: Moment) {
        if self.turns.ends(now) {
            self.pump();
        }
        while let Some(wire) = self.turns.waited(now) {
            let why = "this server asks its clients back and gets one client's calls at a time; this one was not sent";
            self.fail(wire, SERVER_LOST, why);
        }
    }
}

/// The only owner of calls that are in flight, or cancelled and perhaps still worked on.
fn sole_of(calls: &Calls, ghosts: &Calls) -> Sole {
    let mut owners = calls.keys();
    let Some(owner) = owners.next() else {
        return if ghosts.is_empty() { Sole::Nobody } else { Sole::Several };
    };
    let haunted = ghosts.keys().any(|ghost| ghost != owner);
    if haunted || owners.next().is_some() { Sole::Several } else { Sole::One(*owner) }
}

fn put(calls: &mut Calls, owner: Owner, id: u64) {
    calls.entry(owner).or_default().insert(id);
}

/// True if it was there.
fn take(calls: &mut Calls, owner: Owner, id: u64) -> bool {
    let Some(ids) = calls.get_mut(&owner) else { return false };
    let was_there = ids.remove(&id);
    if ids.is_empty() {
        calls.remove(&owner);
    }
    was_there
}
