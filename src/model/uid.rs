//! Uids that nobody else on this host has.

use std::fmt;
use std::str::FromStr;

/// An inclusive range of uids, written `"65536-99999"`: for users without an account of their own.
/// Each uid is a gid as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UidRange {
    /// The first uid; at least 1000, for below that are the system's own.
    pub first: u32,
    /// The last uid; not below `first`, and at most 2147483647, for some programs take them for
    /// signed.
    pub last: u32,
}

/// `nobody`, and what 16 bits have instead of "no uid": never anybody's own
/// (<https://systemd.io/UIDS-GIDS/>).
const NEVER: [u32; 2] = [65_534, 65_535];

/// Below are system accounts.
const LOWEST: u32 = 1000;

impl UidRange {
    /// True if `uid` lies in the range.
    #[must_use]
    pub const fn contains(self, uid: u32) -> bool {
        self.first <= uid && uid <= self.last
    }
}

impl Default for UidRange {
    /// Above what 16 bits hold, which distributions and systemd share out among themselves, and
    /// below 100000, where the uids of containers begin (`SUB_UID_MIN` in login.defs(5)).
    fn default() -> Self {
        Self { first: 65_536, last: 99_999 }
    }
}

/// Why a text is not a range of uids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected \"FIRST-LAST\", two uids from 1000 to 2147483647 without 65534 and 65535 between them")]
pub struct NotARange;

impl FromStr for UidRange {
    type Err = NotARange;

    fn from_str(text: &str) -> Result<Self, NotARange> {
        let (first, last) = text.split_once('-').ok_or(NotARange)?;
        let first: u32 = first.trim().parse().map_err(|_| NotARange)?;
        let last: u32 = last.trim().parse().map_err(|_| NotARange)?;
        let range = Self { first, last };
        let is_right = first >= LOWEST && first <= last && i32::try_from(last).is_ok();
        if is_right && !NEVER.iter().any(|uid| range.contains(*uid)) { Ok(range) } else { Err(NotARange) }
    }
}

impl fmt::Display for UidRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_never_holds_root_a_system_account_or_nobody() {
        assert_eq!("65536-99999".parse(), Ok(UidRange::default()));
        assert_eq!(UidRange::default().to_string(), "65536-99999");
        for bad in [
            "",
            "70000",
            "0-99",
            "999-1000",
            "2000-1000",
            "60000-70000",
            "65535-65600",
            "-1-5",
            "70000-2147483648",
        ] {
            assert_eq!(bad.parse::<UidRange>(), Err(NotARange), "{bad}");
        }
    }
}
