//! Numbers that carry their unit: `"10s"`, `"512M"`, `"50%"`.
//!
//! A bare number is refused everywhere but in counts: nobody remembers whether a timeout is in
//! seconds or milliseconds.

use std::time::Duration;

/// What a duration looks like, for messages.
pub(super) const DURATION: &str =
    "a duration with its unit, in quotes: \"100ms\", \"10s\", \"5m\", \"1h\" or \"1d\", at most a year";
/// What a size looks like, for messages.
pub(super) const SIZE: &str =
    "a size with its unit, in quotes: \"512K\", \"512M\" or \"2G\" (powers of 1024)";
/// What a share of a processor looks like, for messages.
pub(super) const CPU: &str = "a percentage of one processor, in quotes: \"50%\"; \"200%\" is two processors";

/// Longer is a slip of the pen, and would overflow what deadlines are counted in.
const LONGEST: Duration = Duration::from_secs(366 * 24 * 60 * 60);

/// `"100ms"`, `"10s"`, `"5m"`, `"1h"`, `"1d"`.
pub(super) fn duration(text: &str) -> Option<Duration> {
    let (number, unit) = split(text)?;
    let millis = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    let duration = Duration::from_millis(number.checked_mul(millis)?);
    (duration <= LONGEST).then_some(duration)
}

/// `"512K"`, `"512M"`, `"2G"` in bytes; more than zero.
pub(super) fn size(text: &str) -> Option<u64> {
    let (number, unit) = split(text)?;
    let bytes = match unit {
        "K" => 1 << 10,
        "M" => 1 << 20,
        "G" => 1 << 30,
        _ => return None,
    };
    number.checked_mul(bytes).filter(|bytes| *bytes > 0)
}

/// `"50%"` as 50; more than zero.
pub(super) fn cpu(text: &str) -> Option<u32> {
    let (number, unit) = split(text)?;
    if unit != "%" {
        return None;
    }
    u32::try_from(number).ok().filter(|percent| *percent > 0)
}

/// The digits and what follows them.
fn split(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit())?;
    Some((text[..end].parse().ok()?, &text[end..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_read() {
        assert_eq!(duration("100ms"), Some(Duration::from_millis(100)));
        assert_eq!(duration("10s"), Some(Duration::from_secs(10)));
        assert_eq!(duration("5m"), Some(Duration::from_secs(300)));
        assert_eq!(duration("1h"), Some(Duration::from_secs(3600)));
        assert_eq!(duration("2d"), Some(Duration::from_secs(172_800)));
        assert_eq!(duration("0s"), Some(Duration::ZERO));
        assert_eq!(size("512K"), Some(512 * 1024));
        assert_eq!(size("512M"), Some(512 * 1024 * 1024));
        assert_eq!(size("2G"), Some(2 * 1024 * 1024 * 1024));
        assert_eq!(cpu("50%"), Some(50));
    }

    #[test]
    fn what_has_no_unit_or_too_much_of_it_is_refused() {
        let huge = ["99999999999999999999s", "18446744073709551615h", "9000h"];
        for bad in ["", "10", "s", "-1s", "+1s", "1.5s", "10 s", "10S", "10sec", " 10s", "10s "] {
            assert_eq!(duration(bad), None, "{bad}");
        }
        for bad in huge {
            assert_eq!(duration(bad), None, "{bad}");
        }
        for bad in ["", "512", "512MB", "512m", "0M", "-1M", "18446744073709551615G", "1T"] {
            assert_eq!(size(bad), None, "{bad}");
        }
        for bad in ["", "50", "0%", "50 %", "%", "99999999999%"] {
            assert_eq!(cpu(bad), None, "{bad}");
        }
    }
}
