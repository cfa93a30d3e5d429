//! Time as the core knows it.

use std::ops::Add;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A point on the machine's monotonic clock (`CLOCK_BOOTTIME`, since boot), to the nanosecond.
///
/// It goes on over a restart of the daemon, so a record can hold one; it means nothing after a
/// reboot. Only `system::clock` makes one from the real clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(from = "Duration", into = "Duration")]
// Nanoseconds, which last for 584 years: half as large as a `Duration`, and everybody has several.
pub struct Moment(u64);

impl Moment {
    /// The moment `since_boot` after the machine started.
    #[must_use]
    pub const fn from_boot(since_boot: Duration) -> Self {
        Self(nanos(since_boot))
    }

    /// How long after the machine started this is.
    #[must_use]
    pub const fn since_boot(self) -> Duration {
        Duration::from_nanos(self.0)
    }

    /// How long ago `earlier` was; nothing if it lies in the future.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl From<Duration> for Moment {
    fn from(since_boot: Duration) -> Self {
        Self::from_boot(since_boot)
    }
}

impl From<Moment> for Duration {
    fn from(moment: Moment) -> Self {
        moment.since_boot()
    }
}

#[expect(clippy::cast_possible_truncation, reason = "what is more than fits is cut off before")]
const fn nanos(time: Duration) -> u64 {
    let nanos = time.as_nanos();
    if nanos < u64::MAX as u128 { nanos as u64 } else { u64::MAX }
}

impl Add<Duration> for Moment {
    type Output = Self;

    fn add(self, wait: Duration) -> Self {
        Self(self.0.saturating_add(nanos(wait)))
    }
}
