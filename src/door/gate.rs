//! Who may come in at one door: what the loop says, and what a request presents.

use hyper::header::{AUTHORIZATION, HeaderMap};

use crate::logic::access::Guard;
use crate::logic::token::{Judged, Token, bearer};
use crate::model::InstanceId;
use crate::system::clock;

/// What is asked of those who want to come in. The default lets nobody in.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Gate {
    /// The rule.
    pub guard: Guard,
    /// The user's token; none was ever asked for, so none is right.
    pub token: Option<Token>,
}

impl Gate {
    /// What becomes of the token that a request presents.
    pub(super) fn judge(&self, instance: &InstanceId, headers: &HeaderMap) -> Judged {
        let mut presented = headers.get_all(AUTHORIZATION).iter();
        let Some(first) = presented.next() else { return Judged::None };
        // Of two nobody could say which counts.
        if presented.next().is_some() {
            return Judged::Wrong;
        }
        match first.to_str().ok().and_then(bearer) {
            Some(text) => self
                .token
                .as_ref()
                .map_or(Judged::Wrong, |token| token.judge(instance, text, clock::unix_seconds())),
            // Meant for somebody else, or for nobody.
            None => Judged::None,
        }
    }
}
