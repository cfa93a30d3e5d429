//! When the loop has come to rest after a burst of work, and may tidy up.

use std::time::Duration;

use crate::model::Moment;

/// A burst is over when so long a time holds less than makes one.
const CALM: Duration = Duration::from_secs(1);

/// So much happening to instances is a burst. Less leaves little behind, and tidying has a price:
/// what comes next finds nothing warm.
pub(super) const BURST: usize = 64;

/// What happened since the last time of rest, or within the present stretch of a burst.
#[derive(Debug)]
pub(super) struct Calm {
    events: usize,
    /// In a burst: when the present stretch is judged.
    at: Option<Moment>,
}

impl Calm {
    /// A daemon that begins is a burst by itself.
    pub(super) fn after_start(now: Moment) -> Self {
        Self { events: 0, at: Some(now + CALM) }
    }

    /// Something happened to this many instances.
    pub(super) fn note(&mut self, events: usize, now: Moment) {
        self.events = self.events.saturating_add(events);
        if self.at.is_none() && self.events >= BURST {
            *self = Self { events: 0, at: Some(now + CALM) };
        }
    }

    /// When to look again.
    pub(super) fn deadline(&self) -> Option<Moment> {
        self.at
    }

    /// True once after each burst, when it is over.
    pub(super) fn has_come(&mut self, now: Moment) -> bool {
        if self.at.is_none_or(|at| now < at) {
            return false;
        }
        let goes_on = self.events >= BURST;
        *self = Self { events: 0, at: goes_on.then_some(now + CALM) };
        !goes_on
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Moment {
        Moment::from_boot(Duration::from_millis(millis))
    }

    #[test]
    fn calm_comes_once_after_a_burst_and_not_after_less() {
        let mut calm = Calm::after_start(at(0));
        calm.note(BURST, at(500));
        assert!(!calm.has_come(at(999)));
        assert!(!calm.has_come(at(1000)), "it goes on");
        // One that crashes and crashes must not keep it from coming.
        calm.note(1, at(1900));
        assert!(calm.has_come(at(2000)));

        calm.note(BURST - 1, at(3000));
        assert_eq!(calm.deadline(), None);
        calm.note(1, at(4000));
        assert!(calm.has_come(at(5000)));
        assert!(!calm.has_come(at(9000)));
    }
}
