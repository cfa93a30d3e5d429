//! How often the log says that somebody was refused: whoever may connect could else fill it.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Moment;

/// So many refusals of one uid are said,
const SAID: u64 = 5;
/// within this long. Those beyond are counted, and said as a number when it is over.
const WITHIN: Duration = Duration::from_secs(60);

/// Who was refused lately, and how often.
#[derive(Debug, Default)]
pub struct Refusals(BTreeMap<u32, Tally>);

#[derive(Debug)]
struct Tally {
    since: Moment,
    count: u64,
}

impl Refusals {
    /// Notes that `uid` was refused; true if that is to be said.
    pub fn note(&mut self, uid: u32, now: Moment) -> bool {
        let tally = self.0.entry(uid).or_insert(Tally { since: now, count: 0 });
        tally.count += 1;
        tally.count <= SAID
    }

    /// Whose time is over, and how many refusals of theirs were not said. Each is told once.
    pub fn unsaid(&mut self, now: Moment) -> Vec<(u32, u64)> {
        let mut unsaid = Vec::new();
        self.0.retain(|uid, tally| {
            let is_over = tally.since + WITHIN <= now;
            if is_over && tally.count > SAID {
                unsaid.push((*uid, tally.count - SAID));
            }
            !is_over
        });
        unsaid
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_refusals_are_said_and_the_rest_is_a_number() {
        let at = |secs| Moment::from_boot(Duration::from_secs(secs));
        let mut refusals = Refusals::default();
        let said = |refusals: &mut Refusals, uid, now| (0..100).filter(|_| refusals.note(uid, now)).count();
        assert_eq!(said(&mut refusals, 1001, at(1)), 5);
        assert!(refusals.note(1002, at(2)), "one's refusals hide nobody else's");
        assert_eq!(refusals.unsaid(at(60)), []);
        assert_eq!(said(&mut refusals, 1001, at(60)), 0);
        assert_eq!(refusals.unsaid(at(61)), [(1001, 195)]);
        assert_eq!(refusals.unsaid(at(62)), []);
        assert!(refusals.0.is_empty());
        assert_eq!(said(&mut refusals, 1001, at(62)), 5);
    }
}
