//! What is to be looked at when.
//!
//! The next deadline is asked for after everything that happens, and there may be thousands of things
//! that have one. So they are kept in order, and an entry may be out of date: what holds is asked only
//! of the first.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::Moment;

/// Things that are to be looked at, each at a moment, soonest first. Each is in it once at most.
#[derive(Debug)]
pub(super) struct Due<K> {
    queue: BTreeSet<(Moment, K)>,
    noted: BTreeMap<K, Moment>,
}

impl<K> Default for Due<K> {
    fn default() -> Self {
        Self { queue: BTreeSet::new(), noted: BTreeMap::new() }
    }
}

impl<K: Copy + Ord> Due<K> {
    /// `key` is to be looked at, not before `at`. Must be said whenever one gets a moment that had none,
    /// or an earlier one; that a moment moved away is found out.
    pub(super) fn note(&mut self, at: Moment, key: K) {
        match self.noted.get(&key).copied() {
            Some(noted) if noted <= at => return,
            Some(noted) => self.queue.remove(&(noted, key)),
            None => false,
        };
        self.noted.insert(key, at);
        self.queue.insert((at, key));
    }

    /// It is not there any more.
    pub(super) fn forget(&mut self, key: K) {
        if let Some(noted) = self.noted.remove(&key) {
            self.queue.remove(&(noted, key));
        }
    }

    /// The soonest moment. `moment` says when a thing is to be looked at as things are now, if at all.
    pub(super) fn soonest(&mut self, moment: impl Fn(K) -> Option<Moment>) -> Option<Moment> {
        loop {
            let (noted, key) = self.queue.first().copied()?;
            let now = moment(key);
            if now == Some(noted) {
                return now;
            }
            self.forget(key);
            if let Some(now) = now {
                self.note(now, key);
            }
        }
    }

    #[cfg(test)]
    pub(super) fn size(&self) -> usize {
        self.queue.len() + self.noted.len()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(seconds: u64) -> Moment {
        Moment::from_boot(Duration::from_secs(seconds))
    }

    #[test]
    fn what_moved_away_or_needs_nothing_is_found_out_and_each_is_in_it_once() {
        let mut due = Due::default();
        for (moment, key) in [(5, 'a'), (3, 'b'), (4, 'c'), (9, 'a'), (2, 'a')] {
            due.note(at(moment), key);
        }
        assert_eq!((due.size(), due.soonest(|key| (key == 'a').then_some(at(2)))), (6, Some(at(2))));
        let now = |key| match key {
            'a' => Some(at(20)),
            'b' => None,
            _ => Some(at(4)),
        };
        assert_eq!((due.soonest(now), due.size()), (Some(at(4)), 4));
        due.forget('c');
        assert_eq!((due.soonest(now), due.size()), (Some(at(20)), 2));
        assert_eq!((due.soonest(|_| None), due.size()), (None, 0));
    }
}
