//! Who has which uid of the reserved range: users without a system account of their own.
//!
//! A user's uid is theirs for good, over removal too, for nobody knows where on the host files of
//! it lie. Only when no fresh one is left are those taken back of whom nothing is there any more
//! ([`Uids::sweep`]). This is the table; writing it down, before anything runs under a uid that it
//! gives, is the daemon's business.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::model::UserName;
use crate::model::uid::UidRange;

/// The table.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Uids {
    given: BTreeMap<UserName, u32>,
    #[serde(skip)]
    side: Side,
}

/// What need not be remembered.
#[derive(Debug, Clone, Default)]
struct Side {
    /// Uids that somebody's files have and no entry of the table.
    besides: BTreeSet<u32>,
    /// Given, and not written down yet.
    unkept: BTreeSet<u32>,
    /// Somebody asked in vain.
    is_short: bool,
    /// Where the last fresh one was found.
    from: u32,
}

/// What this host says of a uid.
pub struct Facts<'a> {
    /// What account or group has this number: `the account carol`. An error, in words, where that
    /// cannot be found out.
    pub named: &'a dyn Fn(u32) -> Result<Option<String>, String>,
    /// True if something of this user's is there under this uid: a directory, a process.
    pub is_used: &'a dyn Fn(&UserName, u32) -> bool,
}

/// Why a user has no uid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotGiven {
    /// All are taken.
    #[error(
        "no uid is left for a user without an account: {0} are all taken; widen [daemon] uid_range in mcpsup.toml"
    )]
    Exhausted(UidRange),
    /// Somebody made an account or a group of this number since it was given.
    #[error("uid {uid} was reserved for this user and is {named}'s now as well; give {named} another")]
    Shared {
        /// The uid.
        uid: u32,
        /// Whose it is besides.
        named: String,
    },
    /// The name service did not say.
    #[error("cannot find out whether uid {uid} is anybody's: {why}")]
    Unknown {
        /// The uid.
        uid: u32,
        /// Why.
        why: String,
    },
}

impl Uids {
    /// The user's, if one was given.
    #[must_use]
    pub fn of(&self, user: &UserName) -> Option<u32> {
        self.given.get(user).copied()
    }

    /// Whose it is, if it was given.
    #[must_use]
    pub fn holder(&self, uid: u32) -> Option<&UserName> {
        self.given.iter().find(|(_, given)| **given == uid).map(|(user, _)| user)
    }

    /// Notes that a directory of this user's belongs to `uid`: the table may be older than that, or
    /// lost.
    pub fn found(&mut self, user: &UserName, uid: u32) {
        if self.of(user) == Some(uid) {
            return;
        }
        if self.of(user).is_none() && self.holder(uid).is_none() {
            self.given.insert(user.clone(), uid);
            self.side.unkept.insert(uid);
        } else {
            self.side.besides.insert(uid);
        }
    }

    /// The user's uid: the one they have, or a fresh one.
    ///
    /// One outside `range`, which was another once, is kept as long as something of it is there.
    ///
    /// # Errors
    ///
    /// When none is left, or the one they have is somebody else's too, or that cannot be found out.
    pub fn give(&mut self, user: &UserName, range: UidRange, facts: &Facts<'_>) -> Result<u32, NotGiven> {
        if let Some(uid) = self.of(user) {
            if range.contains(uid) || (facts.is_used)(user, uid) {
                return match named(uid, facts)? {
                    Some(named) => Err(NotGiven::Shared { uid, named }),
                    None => Ok(uid),
                };
            }
            self.given.remove(user);
        }
        let taken: BTreeSet<u32> = self.given.values().chain(&self.side.besides).copied().collect();
        let from = self.side.from.max(range.first);
        for uid in (from..=range.last).chain(range.first..from) {
            if range.contains(uid) && !taken.contains(&uid) && named(uid, facts)?.is_none() {
                self.given.insert(user.clone(), uid);
                self.side.unkept.insert(uid);
                self.side.from = uid;
                return Ok(uid);
            }
        }
        self.side.is_short = true;
        Err(NotGiven::Exhausted(range))
    }

    /// If somebody asked in vain, takes back the uids of those of whom nothing is left: no file
    /// (`is_known`), no directory, no process.
    pub fn sweep(&mut self, is_known: &dyn Fn(&UserName) -> bool, facts: &Facts<'_>) {
        if std::mem::take(&mut self.side.is_short) {
            self.given.retain(|user, uid| is_known(user) || (facts.is_used)(user, *uid));
        }
    }

    /// True if the table was [written down](Self::kept) since this uid was given.
    #[must_use]
    pub fn is_kept(&self, uid: u32) -> bool {
        !self.side.unkept.contains(&uid)
    }

    /// Notes that the table, as it is now, was written down.
    pub fn kept(&mut self) {
        self.side.unkept.clear();
    }
}

fn named(uid: u32, facts: &Facts<'_>) -> Result<Option<String>, NotGiven> {
    (facts.named)(uid).map_err(|why| NotGiven::Unknown { uid, why })
}

#[cfg(test)]
mod tests {
    use super::*;

    const RANGE: UidRange = UidRange { first: 70_000, last: 70_002 };

    fn user(name: &str) -> UserName {
        name.parse().unwrap()
    }

    /// Gives, on a host where `named` and `used` are.
    fn give(
        uids: &mut Uids,
        name: &str,
        range: UidRange,
        named: &[u32],
        used: &[(&str, u32)],
    ) -> Result<u32, NotGiven> {
        let facts = Facts {
            named: &|uid| Ok(named.contains(&uid).then(|| "the account carol".to_owned())),
            is_used: &|user, uid| used.contains(&(user.as_str(), uid)),
        };
        uids.give(&user(name), range, &facts)
    }

    #[test]
    fn a_user_keeps_their_uid_and_no_two_have_the_same() {
        let mut uids = Uids::default();
        assert_eq!(give(&mut uids, "alice", RANGE, &[], &[]), Ok(70_000));
        assert_eq!(give(&mut uids, "bob", RANGE, &[70_001], &[]), Ok(70_002));
        assert_eq!(give(&mut uids, "alice", RANGE, &[], &[]), Ok(70_000));
        assert!(!uids.is_kept(70_000));
        uids.kept();
        let zoe = give(&mut uids, "zoe", RANGE, &[], &[]).unwrap();
        assert_eq!([70_000, 70_002, zoe].map(|uid| uids.is_kept(uid)), [true, true, false]);
        let again: Uids = serde_json::from_str(&serde_json::to_string(&uids).unwrap()).unwrap();
        assert_eq!((again.of(&user("alice")), again.of(&user("bob"))), (Some(70_000), Some(70_002)));
        assert_eq!(again.holder(70_002), Some(&user("bob")));
    }

    #[test]
    fn a_uid_goes_to_another_only_when_none_is_left_and_nothing_of_the_first_is_there() {
        let mut uids = Uids::default();
        for name in ["alice", "bob", "carol"] {
            give(&mut uids, name, RANGE, &[], &[]).unwrap();
        }
        let used = [("alice", 70_000)];
        let facts =
            Facts { named: &|_| Ok(None), is_used: &|user, uid| used.contains(&(user.as_str(), uid)) };
        uids.sweep(&|_| false, &facts);
        assert_eq!(uids.of(&user("bob")), Some(70_001), "nobody asked in vain");
        assert_eq!(give(&mut uids, "dave", RANGE, &[], &used), Err(NotGiven::Exhausted(RANGE)));
        uids.sweep(&|user| user.as_str() == "carol", &facts);
        assert_eq!(give(&mut uids, "dave", RANGE, &[], &used), Ok(70_001));
        assert_eq!(give(&mut uids, "erin", RANGE, &[], &used), Err(NotGiven::Exhausted(RANGE)));
        assert_eq!(uids.of(&user("alice")), Some(70_000));
    }

    #[test]
    fn an_account_made_later_with_a_uid_that_was_given_stops_it_from_being_used() {
        let mut uids = Uids::default();
        give(&mut uids, "alice", RANGE, &[], &[]).unwrap();
        let shared = give(&mut uids, "alice", RANGE, &[70_000], &[]).unwrap_err();
        assert_eq!(
            shared.to_string(),
            "uid 70000 was reserved for this user and is the account carol's now as well; give the account carol another"
        );
        let facts = Facts { named: &|_| Err("connection refused".into()), is_used: &|_, _| false };
        assert!(matches!(uids.give(&user("bob"), RANGE, &facts), Err(NotGiven::Unknown { .. })));
        assert_eq!(uids.of(&user("bob")), None);
    }

    #[test]
    fn another_range_moves_only_those_of_whom_nothing_is_there() {
        let mut uids = Uids::default();
        for name in ["alice", "bob"] {
            give(&mut uids, name, RANGE, &[], &[]).unwrap();
        }
        let other = UidRange { first: 80_000, last: 80_001 };
        assert_eq!(give(&mut uids, "alice", other, &[], &[("alice", 70_000)]), Ok(70_000));
        assert_eq!(give(&mut uids, "bob", other, &[], &[]), Ok(80_000));
    }

    #[test]
    fn a_lost_table_is_made_again_from_whose_the_directories_are() {
        let mut uids = Uids::default();
        uids.found(&user("bob"), 70_000);
        uids.found(&user("alice"), 70_001);
        // Moved there by hand: whose it is cannot be told, so it is nobody's.
        uids.found(&user("alice"), 70_002);
        let other = UidRange { last: 70_003, ..RANGE };
        assert_eq!(give(&mut uids, "alice", other, &[], &[]), Ok(70_001));
        assert_eq!(give(&mut uids, "bob", other, &[], &[]), Ok(70_000));
        assert_eq!(give(&mut uids, "carol", other, &[], &[]), Ok(70_003));
    }
}
