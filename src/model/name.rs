//! Who and what: users, servers, and one server for one user.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Why a text is not a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a name is 1 to 64 of letters, digits, '.', '_', '-', beginning with a letter, a digit or '_'")]
pub struct NotAName;

/// True if `text` may name a user or a server: it becomes a file name, a process's argument and a
/// log field, so it is checked once, here.
fn is_name(text: &str) -> bool {
    let first = text.bytes().next();
    (1..=64).contains(&text.len())
        && first.is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_')
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident($shared:ty)) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        // Shared, because every table of the daemon is keyed by it.
        pub struct $name($shared);

        impl $name {
            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NotAName;

            fn from_str(text: &str) -> Result<Self, NotAName> {
                if is_name(text) { Ok(Self(Box::<str>::from(text).into())) } else { Err(NotAName) }
            }
        }

        impl TryFrom<String> for $name {
            type Error = NotAName;

            fn try_from(text: String) -> Result<Self, NotAName> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.as_str().into()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
    };
}

name_type! {
    /// A user's name: 1–64 of letters, digits, `.`, `_`, `-`, beginning with a letter, a digit or
    /// `_`. It is the name of their env file.
    UserName(Arc<str>)
}

name_type! {
    /// A server's name as in `[server.NAME]`, by the same rule as a user's.
    // A few are in thousands of keys, so it is one pointer wide and not two.
    ServerName(Arc<Box<str>>)
}

/// A session that a client of a stdio server began: a number that is not used again, written as 16
/// hexadecimal digits.
///
/// It names directories and stands in logs. The client's own name for it, `Mcp-Session-Id`, is a
/// secret and another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SessionName(NonZeroU64);

impl SessionName {
    /// The name with this number; zero is taken for one, since no name has it.
    #[must_use]
    pub const fn new(number: u64) -> Self {
        match NonZeroU64::new(number) {
            Some(number) => Self(number),
            None => Self(NonZeroU64::MIN),
        }
    }
}

impl fmt::Display for SessionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for SessionName {
    type Err = NotAName;

    fn from_str(text: &str) -> Result<Self, NotAName> {
        let name = u64::from_str_radix(text, 16).ok().and_then(NonZeroU64::new).map(Self);
        name.filter(|name| name.to_string() == text).ok_or(NotAName)
    }
}

impl TryFrom<String> for SessionName {
    type Error = NotAName;

    fn try_from(text: String) -> Result<Self, NotAName> {
        text.parse()
    }
}

impl From<SessionName> for String {
    fn from(name: SessionName) -> Self {
        name.to_string()
    }
}

/// One server for one user, `alice/github`; or, where every session has a process of its own, one
/// session of it. Whatever is said of an instance (one run at a time, its state, its deadline) holds
/// for each of these alone.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct InstanceId {
    /// Whose it is.
    pub user: UserName,
    /// Which server.
    pub server: ServerName,
    /// Which of its sessions; `None` is the instance itself, which has the port.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub session: Option<SessionName>,
}

impl InstanceId {
    /// One server for one user.
    #[must_use]
    pub const fn new(user: UserName, server: ServerName) -> Self {
        Self { user, server, session: None }
    }

    /// One session of this instance.
    #[must_use]
    pub fn session(&self, name: SessionName) -> Self {
        Self { session: Some(name), ..self.clone() }
    }

    /// The instance that this is, or is a session of.
    #[must_use]
    pub fn base(&self) -> Self {
        Self::new(self.user.clone(), self.server.clone())
    }

    /// The server, and the session if it is one: `github+00c4d5e6f7a8b9c0`.
    #[must_use]
    pub fn name(&self) -> String {
        let session = self.session.map_or_else(String::new, |session| format!("+{session}"));
        format!("{}{session}", self.server)
    }

    /// Where its own directories are, below the daemon's. A session's stand beside: in the user's own
    /// directory no other than the user may make or remove anything, and `+` is in no name.
    #[must_use]
    pub fn place(&self) -> PathBuf {
        PathBuf::from("instances").join(self.user.as_str()).join(self.name())
    }

    /// True if this is `base`, or a session of it.
    #[must_use]
    pub fn is_of(&self, base: &Self) -> bool {
        self.user == base.user && self.server == base.server
    }
}

/// Some users, or everybody: whom a change may concern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Whom {
    /// These.
    Users(BTreeSet<UserName>),
    /// Everybody.
    All,
}

impl Whom {
    /// True if the user is one of them.
    #[must_use]
    pub fn has(&self, user: &UserName) -> bool {
        match self {
            Self::Users(users) => users.contains(user),
            Self::All => true,
        }
    }

    /// The entries of a table that are theirs, in order. Costs nothing for those of others.
    pub fn of<'a, V>(
        &'a self,
        table: &'a BTreeMap<InstanceId, V>,
    ) -> impl Iterator<Item = (&'a InstanceId, &'a V)> {
        let (all, some) = match self {
            Self::Users(users) => (None, Some(users)),
            Self::All => (Some(table), None),
        };
        let some = some.into_iter().flatten().flat_map(|user| {
            let first = InstanceId::new(user.clone(), ServerName(Box::<str>::from(FIRST).into()));
            table.range(first..).take_while(move |(id, _)| id.user == *user)
        });
        all.into_iter().flatten().chain(some)
    }
}

/// The first of all names: `0` comes before all that a name may begin with.
const FIRST: &str = "0";

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.user, self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_leave_its_directory_or_look_like_an_option() {
        for bad in ["", ".", "..", "../x", "a/b", "-x", ".hidden", "a b", "ä", "a\0", "a\n"] {
            assert!(bad.parse::<UserName>().is_err(), "{bad:?}");
        }
        assert!("x".repeat(65).parse::<UserName>().is_err());
    }

    #[test]
    fn the_entries_of_some_users_are_theirs_and_nobody_elses() {
        let id = |user: &str, server: &str| InstanceId::new(user.parse().unwrap(), server.parse().unwrap());
        let ids = [id("al", "z"), id("alice", "0"), id("alice", "_x"), id("alice", "zz"), id("alice2", "0")];
        let table: BTreeMap<_, _> = ids.iter().cloned().map(|id| (id, true)).collect();
        let of = |whom: &Whom| whom.of(&table).map(|(id, _)| id.clone()).collect::<Vec<_>>();

        let some = |names: &[&str]| Whom::Users(names.iter().map(|name| name.parse().unwrap()).collect());
        assert_eq!(of(&some(&["zoe", "alice"])), ids[1..4]);
        assert_eq!(of(&some(&["alice2", "al"])), [ids[0].clone(), ids[4].clone()]);
        assert_eq!(of(&some(&[])), []);
        assert_eq!(of(&Whom::All), ids);
    }

    #[test]
    fn a_session_is_named_in_one_way() {
        let name = SessionName::new(0xbeef);
        assert_eq!(name.to_string(), "000000000000beef");
        assert_eq!("000000000000beef".parse(), Ok(name));
        for bad in ["", "beef", "000000000000BEEF", "0000000000000000", "+00000000000beef", "main"] {
            assert!(bad.parse::<SessionName>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn ordinary_names_are_names() {
        for good in ["alice", "_svc", "7of9", "a.b-c_d", &"x".repeat(64)] {
            assert!(good.parse::<UserName>().is_ok(), "{good:?}");
        }
    }
}
