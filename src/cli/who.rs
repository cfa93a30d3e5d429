//! `USER[/SERVER]`, and other words that several verbs share.

use std::str::FromStr;
use std::time::Duration;

use crate::control::protocol::Target;
use crate::model::name::NotAName;
use crate::model::{ServerName, UserName};

/// Whom a verb means: `alice`, `alice/notes`, or `/notes` for one's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Who {
    /// Left out: the caller.
    pub user: Option<UserName>,
    /// Left out: every server of theirs.
    pub server: Option<ServerName>,
}

/// Why a text means nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected USER or USER/SERVER; {0}")]
pub struct NotAWho(#[from] NotAName);

impl FromStr for Who {
    type Err = NotAWho;

    fn from_str(text: &str) -> Result<Self, NotAWho> {
        let Some((user, server)) = text.split_once('/') else {
            return Ok(Self { user: Some(text.parse()?), server: None });
        };
        let user = if user.is_empty() { None } else { Some(user.parse()?) };
        Ok(Self { user, server: Some(server.parse()?) })
    }
}

/// What the daemon is asked for.
#[must_use]
pub fn target(who: Option<&Who>, all: bool) -> Target {
    Target { user: who.and_then(|who| who.user.clone()), server: who.and_then(|who| who.server.clone()), all }
}

/// A length of time with its unit: `500ms`, `60s`, `2m`, `1h`.
///
/// # Errors
///
/// Without a unit, or with an unknown one.
pub fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || "expected a number and a unit, such as 500ms, 60s, 2m or 1h".to_owned();
    let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let seconds = |each: u64| number.checked_mul(each).map(Duration::from_secs).ok_or_else(wrong);
    match unit {
        "ms" => Ok(Duration::from_millis(number)),
        "s" => seconds(1),
        "m" => seconds(60),
        "h" => seconds(3600),
        _ => Err(wrong()),
    }
}

/// Whether to wait until it is so, and how long.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct Wait {
    /// Return as soon as the daemon knows
    #[arg(long)]
    pub no_wait: bool,
    /// How long to wait until it is so
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = duration)]
    pub timeout: Duration,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_a_server_or_both() {
        let who: Who = "alice/notes".parse().unwrap();
        assert_eq!(who.user.unwrap().as_str(), "alice");
        assert_eq!(who.server.unwrap().as_str(), "notes");
        let own: Who = "/notes".parse().unwrap();
        assert_eq!(own.user, None);
        assert_eq!("alice".parse::<Who>().unwrap().server, None);
        for bad in ["", "/", "alice/", "a/b/c", "../x", "-f", "a b"] {
            assert!(bad.parse::<Who>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_time_has_a_unit() {
        assert_eq!(duration("60s"), Ok(Duration::from_secs(60)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        for bad in ["", "60", "s", "1.5s", "-1s", "1d", "99999999999999999999s", "9999999999999999999h"] {
            assert!(duration(bad).is_err(), "{bad:?}");
        }
    }
}
