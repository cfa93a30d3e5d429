//! The values to look for, as one automaton that every lens walks.
//!
//! What a lens needs beside the next state is how many of the last bytes may still become a value;
//! the automaton knows but does not tell, so it is asked once, for each state, when it is built.

use std::collections::BTreeSet;

use aho_corasick::Anchored;
use aho_corasick::automaton::{Automaton, StateID};
use aho_corasick::nfa::contiguous::NFA;

use crate::model::Secret;

/// A line of a value is looked for by itself if it has at least this many bytes.
const SHORTEST_LINE: usize = 8;
/// A value shorter than this is looked for as a word only.
pub(super) const SHORTEST_ANYWHERE: usize = 4;

/// A state of the automaton.
pub(super) type State = StateID;

/// What to look for.
pub(super) struct Words {
    /// `None`: there is nothing to look for.
    net: Option<Net>,
    /// Bytes that a value begins with.
    first: [bool; 256],
    /// Bytes that occur in a value.
    used: [bool; 256],
}

struct Net {
    /// Of the crate's automatons the one with the smallest states: about 12 bytes each.
    nfa: NFA,
    start: State,
    /// By state: how many of the last bytes are a proper beginning of a value.
    open: Box<[u32]>,
}

impl Words {
    pub(super) fn new(secrets: &[Secret]) -> Self {
        let values = values(secrets);
        let mut words = Self { net: Net::new(&values), first: [false; 256], used: [false; 256] };
        for value in values {
            words.first[usize::from(value[0])] = true;
            for &byte in value {
                words.used[usize::from(byte)] = true;
            }
        }
        words
    }

    pub(super) fn is_empty(&self) -> bool {
        self.net.is_none()
    }

    /// True if some value has a byte for which `which` holds.
    pub(super) fn use_any(&self, which: impl Fn(u8) -> bool) -> bool {
        (0..=u8::MAX).any(|byte| self.used[usize::from(byte)] && which(byte))
    }

    /// True if some value begins with a byte whose upper bits are these.
    pub(super) fn begin_with_bits(&self, bits: u8, count: u32) -> bool {
        (0..=u8::MAX).any(|byte| self.first[usize::from(byte)] && byte >> (8 - count) == bits)
    }

    /// The state after `byte`; `None` is the one where nothing has begun.
    pub(super) fn step(&self, from: Option<State>, byte: u8) -> Option<State> {
        if from.is_none() && !self.first[usize::from(byte)] {
            return None;
        }
        let net = self.net.as_ref()?;
        let to = net.nfa.next_state(Anchored::No, from.unwrap_or(net.start), byte);
        (to != net.start).then_some(to)
    }

    /// How many of the last bytes are a proper beginning of a value.
    pub(super) fn open(&self, state: State) -> usize {
        self.net.as_ref().map_or(0, |net| net.open(state))
    }

    /// The lengths of the values that end here, longest first.
    pub(super) fn ending(&self, state: State) -> impl Iterator<Item = usize> {
        let net = self.net.as_ref().filter(|net| net.nfa.is_match(state));
        net.into_iter().flat_map(move |net| {
            (0..net.nfa.match_len(state)).map(move |i| net.nfa.pattern_len(net.nfa.match_pattern(state, i)))
        })
    }

    pub(super) fn memory(&self) -> usize {
        self.net.as_ref().map_or(0, |net| net.nfa.memory_usage() + net.open.len() * size_of::<u32>())
    }
}

impl Net {
    /// `None` if there are no values (or more than 4 GiB of them).
    fn new(values: &BTreeSet<&[u8]>) -> Option<Self> {
        if values.is_empty() {
            return None;
        }
        let mut builder = NFA::builder();
        builder.prefilter(false).dense_depth(0);
        let nfa = builder.build(values).ok()?;
        let start = nfa.start_state(Anchored::No).ok()?;
        let mut net = Self { nfa, start, open: Box::default() };
        net.open = net.measure(values)?;
        Some(net)
    }

    fn open(&self, state: State) -> usize {
        self.open.get(state.as_usize()).map_or(0, |&open| open as usize)
    }

    /// Every state but a leaf stands for a proper beginning of a value. A leaf is a whole value
    /// and begins no other: what counts there is the longest beginning that it ends with, which is
    /// where the value without its first byte leads.
    fn measure(&self, values: &BTreeSet<&[u8]>) -> Option<Box<[u32]>> {
        let root = self.nfa.start_state(Anchored::Yes).ok()?;
        let mut open: Vec<u32> = Vec::new();
        let mut ends = Vec::with_capacity(values.len());
        for value in values {
            let mut state = root;
            for (&byte, depth) in value.iter().zip(1_u32..) {
                state = self.nfa.next_state(Anchored::Yes, state, byte);
                let index = state.as_usize();
                if open.len() <= index {
                    open.resize(index + 1, 0);
                }
                if depth as usize != value.len() {
                    open[index] = depth;
                }
            }
            ends.push((*value, state.as_usize()));
        }
        ends.sort_unstable_by_key(|(value, _)| value.len());
        for (value, end) in ends {
            if open[end] == 0 {
                let next = |state, &byte| self.nfa.next_state(Anchored::No, state, byte);
                let rest = value[1..].iter().fold(self.start, next);
                open[end] = open.get(rest.as_usize()).copied().unwrap_or(0);
            }
        }
        Some(open.into_boxed_slice())
    }
}

/// Every value without its outer line ends, and its longer lines.
fn values(secrets: &[Secret]) -> BTreeSet<&[u8]> {
    let mut values = BTreeSet::new();
    for secret in secrets {
        let whole = secret.reveal().trim_matches(['\r', '\n']);
        if whole.trim().is_empty() {
            continue;
        }
        values.insert(whole.as_bytes());
        let lines = whole.split(['\r', '\n']).map(str::trim);
        values.extend(lines.filter(|line| line.len() >= SHORTEST_LINE).map(str::as_bytes));
    }
    values
}
