//! One process life.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The number of a run. Never reused, not even by a later daemon, so a late fact about an old run
/// is recognised by comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RunId(pub u64);

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// How a run's first process ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Exit {
    /// It called exit with this status.
    Status(i32),
    /// This signal ended it.
    Signal(i32),
    /// A limit of its own did it, or was hit before it ended so.
    AtLimit(Reached, Box<Self>),
    /// It was not our child and the kernel does not say (before Linux 6.15).
    Unknown,
    /// It never began: what we were doing and why it failed, for people.
    NotStarted(String),
}

/// A limit that a run hit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reached {
    /// So many bytes of memory; the kernel killed some process of it.
    Memory(u64),
    /// So many processes and threads; the kernel refused to make another.
    Tasks(u64),
}

impl fmt::Display for Reached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory(bytes) => {
                let units = [(1 << 30, "G"), (1 << 20, "M"), (1 << 10, "K")];
                let unit = units.into_iter().find(|(unit, _)| bytes.is_multiple_of(*unit));
                let (unit, name) = unit.unwrap_or((1, " bytes"));
                write!(f, "over its {}{name} memory limit", bytes / unit)
            }
            Self::Tasks(tasks) => write!(f, "at its limit of {tasks} tasks"),
        }
    }
}

impl Exit {
    /// The same as a log's field: `status 7`.
    #[must_use]
    pub fn field(&self) -> String {
        match self {
            Self::Status(status) => format!("status {status}"),
            Self::Signal(_) | Self::AtLimit(..) | Self::Unknown | Self::NotStarted(_) => self.to_string(),
        }
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => write!(f, "exited with status {status}"),
            Self::Signal(signal) => match signal_name(*signal) {
                Some(name) => write!(f, "killed by {name}"),
                None => write!(f, "killed by signal {signal}"),
            },
            Self::AtLimit(reached @ Reached::Memory(_), exit) if **exit == Self::Signal(9) => {
                write!(f, "killed: {reached}")
            }
            Self::AtLimit(reached, exit) => write!(f, "{exit}, {reached}"),
            Self::Unknown => f.write_str("ended; how is not known of a run that an earlier daemon started"),
            Self::NotStarted(why) => write!(f, "could not be started: {why}"),
        }
    }
}

/// The signals that `stop.signal` may name, by which servers are asked to end. Between the daemon and
/// a server there may be the first process of a pid namespace, which passes on these and no other.
/// (SIGKILL it needs not: it ends the namespace.)
pub const STOPS: [i32; 7] = [15, 2, 1, 3, 10, 12, 9];

/// The name of a signal number as signal(7) gives it on Linux x86-64 and arm64.
#[must_use]
pub fn signal_name(signal: i32) -> Option<&'static str> {
    SIGNALS.iter().find(|(_, number)| *number == signal).map(|(name, _)| *name)
}

/// The number of a signal's name, `SIGTERM` or `TERM`.
#[must_use]
pub fn signal_number(name: &str) -> Option<i32> {
    let short = name.strip_prefix("SIG").unwrap_or(name);
    SIGNALS.iter().find(|(full, _)| &full[3..] == short).map(|(_, number)| *number)
}

const SIGNALS: &[(&str, i32)] = &[
    ("SIGHUP", 1),
    ("SIGINT", 2),
    ("SIGQUIT", 3),
    ("SIGILL", 4),
    ("SIGTRAP", 5),
    ("SIGABRT", 6),
    ("SIGBUS", 7),
    ("SIGFPE", 8),
    ("SIGKILL", 9),
    ("SIGUSR1", 10),
    ("SIGSEGV", 11),
    ("SIGUSR2", 12),
    ("SIGPIPE", 13),
    ("SIGALRM", 14),
    ("SIGTERM", 15),
    ("SIGXCPU", 24),
    ("SIGXFSZ", 25),
    ("SIGSYS", 31),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_that_was_hit_is_named_as_it_was_written() {
        let killed = |bytes| Exit::AtLimit(Reached::Memory(bytes), Box::new(Exit::Signal(9))).to_string();
        assert_eq!(killed(512 << 20), "killed: over its 512M memory limit");
        assert_eq!(killed(1536 << 20), "killed: over its 1536M memory limit");
        assert_eq!(killed(4097), "killed: over its 4097 bytes memory limit");
        let forked = Exit::AtLimit(Reached::Tasks(64), Box::new(Exit::Status(1)));
        assert_eq!(forked.to_string(), "exited with status 1, at its limit of 64 tasks");
    }
}
