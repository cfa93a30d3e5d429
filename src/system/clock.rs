//! The only reader of the real clock.

use std::time::Duration;

use jiff::Timestamp;
use nix::time::{ClockId, clock_gettime};

use crate::model::Moment;

/// Now, on the clock that goes on over suspends and over restarts of the daemon
/// (`CLOCK_BOOTTIME`).
#[must_use]
pub fn now() -> Moment {
    let time = clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Duration::ZERO, Duration::from);
    Moment::from_boot(time)
}

/// The wall-clock time of a moment, given that the two clocks agree now.
#[must_use]
pub fn timestamp(moment: Moment) -> Timestamp {
    let ago = now().since(moment);
    Timestamp::now().checked_sub(ago).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// Seconds since 1970 on the wall clock.
#[must_use]
pub fn unix_seconds() -> u64 {
    u64::try_from(Timestamp::now().as_second()).unwrap_or(0)
}

/// RFC 3339 in UTC, whole seconds.
#[must_use]
pub fn rfc3339(moment: Moment) -> String {
    let seconds = timestamp(moment).as_second();
    Timestamp::from_second(seconds).unwrap_or(Timestamp::UNIX_EPOCH).to_string()
}
