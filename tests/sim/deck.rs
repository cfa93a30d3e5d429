//! The deck of faults: how one fake process behaves, drawn when it is started.
//!
//! Each seat plays with a random part of the deck, so that some worlds are all crashes and others
//! have nothing but stale facts: a mixture of everything finds less.

use crate::rng::Rng;
use crate::stage::{Ms, Times};

/// The cards that one seat plays with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deck(u64);

/// A fault that may be in a deck.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Card {
    Crashes,
    ExitsAtOnce,
    CannotSpawn,
    NeverReady,
    ReadyLate,
    Stubborn,
    LeavesChildren,
    /// A kill takes long.
    Stuck,
    /// Facts are told twice, the second time much later.
    Echoes,
    /// Facts come late and in another order.
    Disorder,
    /// The file changes often.
    Restless,
}

impl Deck {
    pub(crate) fn shuffle(rng: &mut Rng) -> Self {
        Self(rng.next())
    }

    /// True if the card is in the deck and is drawn, one time in `n`.
    pub(crate) fn draws(self, card: Card, n: u64, rng: &mut Rng) -> bool {
        self.0 >> (card as u32) & 1 == 1 && rng.one_in(n)
    }
}

/// A process, or what is left of one.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) run: u64,
    pub(crate) version: usize,
    /// Its first process lives, or is about to.
    pub(crate) leader: bool,
    /// Children of it live on when the first process dies.
    pub(crate) leaves_children: bool,
    /// Such children are what is left.
    pub(crate) children: bool,
    /// It answers probes after this long, if ever.
    pub(crate) ready_in: Option<Ms>,
    pub(crate) dies_in: Option<Ms>,
    pub(crate) stubborn: bool,
    pub(crate) kill_takes: Ms,
}

impl Process {
    pub(crate) fn draw(run: u64, version: usize, times: Times, deck: Deck, rng: &mut Rng) -> Self {
        let (ready, _, _, _, _, stable) = times;
        let spawns = !deck.draws(Card::CannotSpawn, 3, rng);
        let ready_in = if !spawns || deck.draws(Card::NeverReady, 3, rng) {
            None
        } else if deck.draws(Card::ReadyLate, 3, rng) {
            Some(rng.below(2 * ready))
        } else {
            Some(rng.below(5))
        };
        let dies_in = if !spawns || deck.draws(Card::ExitsAtOnce, 3, rng) {
            Some(rng.below(2))
        } else if deck.draws(Card::Crashes, 2, rng) {
            Some(rng.below(2 * stable))
        } else {
            None
        };
        Self {
            run,
            version,
            leader: true,
            leaves_children: spawns && deck.draws(Card::LeavesChildren, 2, rng),
            children: false,
            ready_in,
            dies_in,
            stubborn: deck.draws(Card::Stubborn, 2, rng),
            kill_takes: if deck.draws(Card::Stuck, 3, rng) { rng.below(150) } else { rng.below(3) },
        }
    }

    /// One without any fault.
    pub(crate) fn good(run: u64, version: usize) -> Self {
        Self {
            run,
            version,
            leader: true,
            leaves_children: false,
            children: false,
            ready_in: Some(1),
            dies_in: None,
            stubborn: false,
            kill_takes: 1,
        }
    }
}
