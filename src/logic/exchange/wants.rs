//! Which resources the clients of an exchange want to hear of.
//!
//! The process is told of each once, whoever wants it; so it is counted how many do.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::sessions::MAX_URI;

/// Bytes of what all clients want to hear of, [`COST`] for each wish included. The process may be told of all
/// of it in one line.
const MAX_WANTED: usize = 4 << 20;

/// What a wish costs beside its text.
const COST: usize = 64;

/// Resources, each with how many clients want to hear of it.
#[derive(Debug, Default)]
pub(super) struct Wants {
    by_uri: BTreeMap<Arc<str>, Want>,
    bytes: usize,
}

#[derive(Debug, Default)]
struct Want {
    clients: usize,
    /// The process knows.
    is_told: bool,
}

/// What became of a resource when one client less wants to hear of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Left {
    /// Others do, or nobody ever did.
    Same,
    /// It was the last; whether the process knows of it.
    Nobody { is_told: bool },
}

impl Wants {
    /// True if one more client may want to hear of this.
    pub(super) fn has_room_for(&self, uri: &str) -> bool {
        uri.len() <= MAX_URI && self.bytes + uri.len() + COST <= MAX_WANTED
    }

    pub(super) fn contains(&self, uri: &str) -> bool {
        self.by_uri.contains_key(uri)
    }

    /// How much that is.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// One more client wants to hear of it. True if it is the first.
    pub(super) fn add(&mut self, uri: &str) -> (Arc<str>, bool) {
        self.bytes += uri.len() + COST;
        let shared = self.by_uri.get_key_value(uri).map(|(known, _)| known.clone());
        let shared = shared.unwrap_or_else(|| uri.into());
        let want = self.by_uri.entry(shared.clone()).or_default();
        want.clients += 1;
        (shared, want.clients == 1)
    }

    /// One client less does.
    pub(super) fn remove(&mut self, uri: &str) -> Left {
        let Some(want) = self.by_uri.get_mut(uri) else { return Left::Same };
        self.bytes -= uri.len() + COST;
        want.clients -= 1;
        if want.clients > 0 {
            return Left::Same;
        }
        let is_told = want.is_told;
        self.by_uri.remove(uri);
        Left::Nobody { is_told }
    }

    /// The process is told of it. True if it was not before.
    pub(super) fn tell(&mut self, uri: &str) -> bool {
        self.by_uri.get_mut(uri).is_some_and(|want| !std::mem::replace(&mut want.is_told, true))
    }

    /// The process is gone, and with it what it knew.
    pub(super) fn lost(&mut self) {
        self.by_uri.values_mut().for_each(|want| want.is_told = false);
    }

    /// All of them.
    pub(super) fn uris(&self) -> impl ExactSizeIterator<Item = &Arc<str>> {
        self.by_uri.keys()
    }

    #[cfg(test)]
    pub(super) fn size(&self) -> usize {
        assert_eq!(self.bytes == 0, self.by_uri.is_empty());
        assert!(self.bytes <= MAX_WANTED);
        self.by_uri.len()
    }
}
