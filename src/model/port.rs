//! Ports and ranges of them.

use std::fmt;
use std::str::FromStr;

/// An inclusive range of TCP ports, written `"3456-3999"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortRange {
    /// The first port; never 0.
    pub first: u16,
    /// The last port; not below `first`.
    pub last: u16,
}

impl PortRange {
    /// True if `port` lies in the range.
    #[must_use]
    pub const fn contains(self, port: u16) -> bool {
        self.first <= port && port <= self.last
    }

    /// True if a port lies in both.
    #[must_use]
    pub const fn overlaps(self, other: Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }

    /// Every port, in order.
    pub fn ports(self) -> impl Iterator<Item = u16> {
        self.first..=self.last
    }
}

/// Why a text is not a range of ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected \"FIRST-LAST\", two ports from 1 to 65535, such as \"3456-3999\"")]
pub struct NotARange;

impl FromStr for PortRange {
    type Err = NotARange;

    fn from_str(text: &str) -> Result<Self, NotARange> {
        let (first, last) = text.split_once('-').ok_or(NotARange)?;
        let first: u16 = first.trim().parse().map_err(|_| NotARange)?;
        let last: u16 = last.trim().parse().map_err(|_| NotARange)?;
        if first == 0 || last < first { Err(NotARange) } else { Ok(Self { first, last }) }
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}
