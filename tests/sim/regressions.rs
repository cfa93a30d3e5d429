//! Worlds in which a law was once broken, one line each: what went wrong, and the line that the
//! failure printed.
//!
//! A world is its seed: when the deck or the order of its draws changes, a line here means another
//! world. What it found is told by a sentence in `table` as well.

use crate::laws::Laws;
use crate::stage::Stage;
use crate::world::Case;
use crate::{fleet, judge, report};

fn holds(seed: u64, seats: u8, until: u64) {
    let stage = Stage::new();
    let case = Case { seed, seats, until };
    if let Err(broken) = judge(&stage, &fleet, case, Laws::All) {
        panic!("{}", report(&stage, &fleet, case, &broken));
    }
}

#[test]
fn worlds_that_once_broke_a_law_break_none() {
    // A new spec paid for the strikes of the one that crashed before it.
    holds(0x60c5_083a_5582, 0b0010, 1);
    // The hold of a user whom this daemon had not seen yet outlived their removal.
    holds(0x73c0_18aa_274c, 0b0100, 152);
}
