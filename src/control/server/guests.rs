//! How many connections there are at once, and of whom.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::system::account;

/// Connections at once.
pub(super) const MAX_CONNECTIONS: usize = 64;
/// Connections at once of one user. As many are kept free for the daemon's own user, whom nobody
/// can lock out so.
pub(super) const MAX_PER_USER: usize = 16;

/// How many connections each user has.
#[derive(Debug, Default, Clone)]
pub(super) struct Guests(Arc<Mutex<HashMap<u32, usize>>>);

/// A user's right to one connection, given back when dropped.
#[derive(Debug)]
pub(super) struct Seat {
    guests: Guests,
    uid: u32,
}

impl Guests {
    /// True if nobody is here.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// A seat for `uid`, if there is one.
    pub(super) fn seat(&self, uid: u32) -> Option<Seat> {
        let own = account::own_uid();
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let others: usize = counts.iter().filter(|(who, _)| **who != own).map(|(_, n)| n).sum();
        let count = counts.get(&uid).copied().unwrap_or(0);
        if count >= MAX_PER_USER || (uid != own && others >= MAX_CONNECTIONS - MAX_PER_USER) {
            return None;
        }
        counts.insert(uid, count + 1);
        Some(Seat { guests: self.clone(), uid })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut counts = self.guests.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.uid) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.uid);
            }
        }
    }
}
