//! Those who have come to a door and have not shown yet that they may pass, at all doors together.
//!
//! Whoever may connect could else hold every descriptor of the daemon, a few at each of many doors.
//! Whose connection says by itself that they may pass is not counted; who passes by a token is not any
//! more.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Of one uid, and of all. A program that bears tokens for many users waits no longer than it takes to
/// read the head of its request.
pub(super) const MOST_OF_ONE: usize = 64;
pub(super) const MOST: usize = 512;

/// How many wait, by uid; `None` are those of whom nobody knows whose they are.
#[derive(Debug, Default)]
pub(super) struct Lobby(Mutex<HashMap<Option<u32>, usize>>);

/// A place in the lobby, given back when dropped.
#[derive(Debug)]
pub(super) struct Waiting {
    lobby: Arc<Lobby>,
    uid: Option<u32>,
    has_left: AtomicBool,
}

impl Lobby {
    /// A place, if there is one.
    pub(super) fn enter(self: &Arc<Self>, uid: Option<u32>) -> Option<Waiting> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (theirs, all) = (counts.get(&uid).copied().unwrap_or(0), counts.values().sum::<usize>());
        if theirs >= MOST_OF_ONE || all >= MOST {
            return None;
        }
        counts.insert(uid, theirs + 1);
        Some(Waiting { lobby: Arc::clone(self), uid, has_left: AtomicBool::new(false) })
    }

    fn leave(&self, uid: Option<u32>) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&uid) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&uid);
            }
        }
    }
}

impl Waiting {
    /// They may pass, so they wait no more.
    pub(super) fn is_over(&self) {
        if !self.has_left.swap(true, Ordering::Relaxed) {
            self.lobby.leave(self.uid);
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.is_over();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_uid_leaves_room_for_others_and_all_together_leave_descriptors() {
        let lobby = Arc::new(Lobby::default());
        let mut waiting: Vec<_> = (0..MOST_OF_ONE).map(|_| lobby.enter(Some(900)).unwrap()).collect();
        assert!(lobby.enter(Some(900)).is_none());
        for uid in 1000.. {
            let before = waiting.len();
            waiting.extend((0..MOST_OF_ONE).map_while(|_| lobby.enter(Some(uid))));
            if waiting.len() == before {
                break;
            }
        }
        assert_eq!(waiting.len(), MOST);
        assert!(lobby.enter(None).is_none());
        // Who has shown a token is counted no more, and is not counted out twice.
        waiting[0].is_over();
        waiting[0].is_over();
        waiting.push(lobby.enter(Some(900)).unwrap());
        assert!(lobby.enter(Some(900)).is_none());
        waiting.clear();
        assert!(lobby.0.lock().unwrap().is_empty(), "nobody is counted for ever");
    }
}
