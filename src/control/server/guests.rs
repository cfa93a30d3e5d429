//! How many connections there are at once, and of whom.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use crate::system::account;

/// Connections at once that ask the daemon.
pub(super) const MAX_CONNECTIONS: usize = 1024;
/// Connections at once of one user that ask the daemon. As many are kept free for the daemon's own
/// user, whom nobody can lock out so.
pub(super) const MAX_PER_USER: usize = 16;
/// Connections at once that pass requests on to instances, of everybody and of one user; as many as
/// a door has by default. The daemon's own user has as many again.
pub(super) const MAX_PASSING: usize = 2048;
pub(super) const MAX_PASSING_PER_USER: usize = 256;

/// How many connections each user has.
#[derive(Debug, Clone)]
pub(super) struct Guests {
    asking: Bench,
    passing: Bench,
    known: watch::Receiver<BTreeSet<u32>>,
}

/// Connections of one kind, by user.
#[derive(Debug, Default, Clone)]
struct Bench(Arc<Mutex<HashMap<u32, usize>>>);

/// A user's right to one connection, given back when dropped.
#[derive(Debug)]
pub(super) struct Seat {
    guests: Guests,
    uid: u32,
    /// It passes requests on.
    has_moved: AtomicBool,
}

impl Guests {
    /// Nobody yet; `known` are the uids by which somebody is known.
    pub(super) fn new(known: watch::Receiver<BTreeSet<u32>>) -> Self {
        Self { asking: Bench::default(), passing: Bench::default(), known }
    }

    /// True if nobody is here.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.asking.is_empty() && self.passing.is_empty()
    }

    /// A seat for `uid`, if there is one.
    pub(super) fn seat(&self, uid: u32) -> Option<Seat> {
        let is_free = self.asking.take(uid, MAX_PER_USER, MAX_CONNECTIONS, &self.known.borrow());
        is_free.then(|| Seat { guests: self.clone(), uid, has_moved: AtomicBool::new(false) })
    }
}

impl Seat {
    /// Moves to the bench of those that pass requests on; false if there is no seat left there.
    pub(super) fn moves(&self) -> bool {
        if self.has_moved.load(Ordering::Relaxed) {
            return true;
        }
        let Guests { passing, known, .. } = &self.guests;
        if !passing.take(self.uid, MAX_PASSING_PER_USER, MAX_PASSING, &known.borrow()) {
            return false;
        }
        self.guests.asking.leave(self.uid);
        self.has_moved.store(true, Ordering::Relaxed);
        true
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let Guests { asking, passing, .. } = &self.guests;
        if *self.has_moved.get_mut() { passing.leave(self.uid) } else { asking.leave(self.uid) }
    }
}

impl Bench {
    #[cfg(test)]
    fn is_empty(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    fn take(&self, uid: u32, most_of_one: usize, most: usize, known: &BTreeSet<u32>) -> bool {
        let own = account::own_uid();
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of = |whose: &dyn Fn(u32) -> bool| -> usize {
            counts.iter().filter(|(who, _)| whose(**who)).map(|(_, n)| n).sum()
        };
        let is_stranger = |who: u32| who != own && !known.contains(&who);
        // One person may have as many uids as a container takes.
        let is_room = uid == own
            || (of(&|who| who != own) < most - most_of_one
                && (!is_stranger(uid) || of(&is_stranger) < most / 2));
        let count = counts.get(&uid).copied().unwrap_or(0);
        if count >= most_of_one || !is_room {
            return false;
        }
        counts.insert(uid, count + 1);
        true
    }

    fn leave(&self, uid: u32) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&uid) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&uid);
            }
        }
    }
}
