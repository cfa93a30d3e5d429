//! What `mcpsup status` says: the daemon's answer, and its JSON.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::model::cage::Apart;
use crate::model::{Problem, RunId, ServerName, SessionName, UserName};

/// An instance's state as people see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StateName {
    /// Wanted, and about to be started.
    Down,
    /// Its process runs and has not answered yet.
    Starting,
    /// It answered.
    Up,
    /// It was asked to end.
    Stopping,
    /// It, or what it left behind, is being killed.
    Killing,
    /// It ended, and the next try waits.
    Cooling,
    /// `mcpsup stop`
    Stopped,
    /// `MCPSUP_ENABLED=false`
    Disabled,
    /// Its file or configuration is wrong and nothing runs.
    Refused,
    /// Its file is gone; its port is kept.
    Gone,
}

impl StateName {
    /// Every one, the best first.
    pub const ALL: [Self; 10] = [
        Self::Up,
        Self::Starting,
        Self::Down,
        Self::Cooling,
        Self::Stopping,
        Self::Killing,
        Self::Stopped,
        Self::Disabled,
        Self::Refused,
        Self::Gone,
    ];

    /// The word in tables, logs and JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Down => "down",
            Self::Starting => "starting",
            Self::Up => "up",
            Self::Stopping => "stopping",
            Self::Killing => "killing",
            Self::Cooling => "cooling",
            Self::Stopped => "stopped",
            Self::Disabled => "disabled",
            Self::Refused => "refused",
            Self::Gone => "gone",
        }
    }
}

impl fmt::Display for StateName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// How often something has happened, for people: `1st`, `2nd`, `3rd`, `4th`, `11th`, `21st`.
#[must_use]
pub fn ordinal(number: u32) -> String {
    let ending = match (number % 100, number % 10) {
        (11..=13, _) => "th",
        (_, 1) => "st",
        (_, 2) => "nd",
        (_, 3) => "rd",
        (_, _) => "th",
    };
    format!("{number}{ending}")
}

/// Why an instance whose server mcpsup.toml described once is [`StateName::Gone`], for people.
#[must_use]
pub fn gone_from_config(server: &ServerName) -> String {
    format!("mcpsup.toml has no [server.{server}] any more; its port is kept")
}

/// The daemon as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusReport {
    /// The daemon's version.
    pub version: String,
    /// Grows with every change of what follows.
    pub generation: u64,
    /// The instances the caller may see, sorted by user and server.
    pub instances: Vec<InstanceStatus>,
    /// What is wrong and belongs to no instance: mcpsup.toml, an unreadable env.d. For
    /// administrators only.
    pub problems: Vec<Problem>,
    /// Things an administrator should know that are not wrong: what this host does not enforce.
    pub notes: Vec<String>,
    /// How far this host keeps users apart.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub apart: Option<Apart>,
}

/// One instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceStatus {
    /// Whose it is.
    pub user: UserName,
    /// Which server.
    pub server: ServerName,
    /// Its state.
    pub state: StateName,
    /// Its door; `None` if no port could be given.
    pub port: Option<u16>,
    /// What a client connects to.
    pub url: Option<String>,
    /// The newest run.
    pub run: Option<RunId>,
    /// Its first process, while there is one.
    pub pid: Option<u32>,
    /// Since when it is in this state, RFC 3339 in UTC.
    pub since: String,
    /// The same as whole seconds ago.
    pub for_seconds: u64,
    /// Runs in a row that ended by themselves without a stable stretch.
    pub strikes: u32,
    /// Seconds until the next try, while cooling.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub next_try_seconds: Option<u64>,
    /// How the newest ended run ended, or why it was given up.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub last_exit: Option<String>,
    /// One line for people: why it is not up, or what is wrong beside.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub note: Option<String>,
    /// What is wrong with its user's file or its configuration.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub problems: Vec<Problem>,
    /// Sessions that clients have with it now; none for http servers, who keep theirs themselves.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub sessions: Option<usize>,
    /// What its processes said that could not be passed on.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub not_passed_on: Option<NotPassedOn>,
    /// Processes of single sessions, where each has its own.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub session_runs: Vec<SessionRun>,
    /// What keeps its processes together: `cgroup`, `pid namespace`, `session`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub containment: Option<String>,
    /// Whom its process runs as, where that is another than the daemon: `alice (uid 1001)`, `uid 65536,
    /// reserved for alice`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub runs_as: Option<String>,
}

/// Lines of a stdio server's standard output that went to no client, since the daemon began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotPassedOn {
    /// They were no JSON-RPC messages; they are in its log.
    pub not_json_rpc: u64,
    /// Answers to nobody: a cancelled call's, those to a daemon that was there before.
    pub unclaimed: u64,
    /// Of which it could not be told whose they are.
    pub ambiguous: u64,
}

/// The process of one session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionRun {
    /// Which session.
    pub session: SessionName,
    /// The state of its process.
    pub state: StateName,
    /// Its newest run.
    pub run: Option<RunId>,
    /// Its first process, while there is one.
    pub pid: Option<u32>,
    /// Since when it is in this state, in seconds.
    pub for_seconds: u64,
    /// One line for people: why it is not up.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub note: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_a_row_are_spelled_right() {
        let spelled: Vec<_> = [1, 2, 3, 4, 11, 12, 13, 21, 102, 111].map(ordinal).into();
        assert_eq!(spelled, ["1st", "2nd", "3rd", "4th", "11th", "12th", "13th", "21st", "102nd", "111th"]);
    }
}
