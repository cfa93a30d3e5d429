//! Everything about a run whose change needs another run.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::model::Secret;
use crate::model::config::{Limits, Probe, Restart, Stdio, Stop};

/// The digest of a [`Spec`]: HMAC-SHA256 under a key of the state directory.
///
/// Two specs with the same digest need no restart between them. A plain hash would let short
/// secrets be guessed from a record.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SpecId(pub [u8; 32]);

impl fmt::Debug for SpecId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02x}{:02x}{:02x}{:02x}", self.0[0], self.0[1], self.0[2], self.0[3])
    }
}

#[cfg(test)]
impl Spec {
    /// Something to run, for tests that do not care what.
    pub(crate) fn example() -> Self {
        let second = std::time::Duration::from_secs(1);
        Self {
            id: SpecId([0; 32]),
            plan: Plan {
                ready_timeout: second,
                stop: Stop { signal: 15, grace: second },
                restart: Restart { first_wait: second, max_wait: second, stable: second },
            },
            program: "/bin/true".into(),
            args: Vec::new(),
            env: Vec::new(),
            working_dir: "/".into(),
            state_dir: "/".into(),
            runtime_dir: "/".into(),
            account: None,
            limits: Limits::default(),
            way: Way::Http { backend: 20000 },
            path: "/mcp".into(),
            probe: Probe::Tcp,
            secrets: Vec::new(),
        }
    }
}

/// What to run for one instance, filled in for its user.
#[derive(Debug, Clone, PartialEq)]
pub struct Spec {
    /// Digest of what the process itself is given: program, arguments, environment, directories,
    /// account, limits and backend port; for stdio the era and who shares it. A change of anything
    /// else needs no other run.
    pub id: SpecId,
    /// What the core needs to know of it.
    pub plan: Plan,
    /// The program: a path with a slash, or a name to be found in the process's own PATH.
    pub program: String,
    /// Its arguments; secret because `secrets_in_argv` servers take credentials there.
    pub args: Vec<Secret>,
    /// Its whole environment, sorted by name; nothing is added and nothing inherited.
    pub env: Vec<(Box<str>, Secret)>,
    /// Where it starts.
    pub working_dir: PathBuf,
    /// Its own directory, 0700.
    pub state_dir: PathBuf,
    /// Its own short-lived directory, 0700.
    pub runtime_dir: PathBuf,
    /// The system account it runs as; `None` is the daemon's own.
    pub account: Option<Account>,
    /// Limits of the run.
    pub limits: Limits,
    /// How it is spoken with.
    pub way: Way,
    /// Path of its MCP endpoint.
    pub path: String,
    /// How readiness is tried.
    pub probe: Probe,
    /// Values that no log may show: the declared credentials, and every other value of the
    /// user's file of 8 bytes or more.
    pub secrets: Vec<Secret>,
}

impl Spec {
    /// The port it must listen on, on the loopback address, if it is to listen.
    #[must_use]
    pub const fn backend(&self) -> Option<u16> {
        match self.way {
            Way::Http { backend } => Some(backend),
            Way::Socket | Way::Stdio(_) => None,
        }
    }

    /// The Unix socket it must listen on, if it is to listen on one: in its own directory, which
    /// nobody but its user may enter.
    #[must_use]
    pub fn socket(&self) -> Option<PathBuf> {
        match self.way {
            Way::Socket => Some(socket_in(&self.runtime_dir)),
            Way::Http { .. } | Way::Stdio(_) => None,
        }
    }

    /// What is said of it if it is spoken with on its standard input and output.
    #[must_use]
    pub const fn stdio(&self) -> Option<Stdio> {
        match self.way {
            Way::Http { .. } | Way::Socket => None,
            Way::Stdio(stdio) => Some(stdio),
        }
    }
}

/// Where `{socket}` is, in a run's own short-lived directory.
#[must_use]
pub fn socket_in(runtime_dir: &Path) -> PathBuf {
    runtime_dir.join("http.sock")
}

/// How a process is spoken with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Streamable HTTP.
    Http {
        /// The port it must listen on, on the loopback address.
        backend: u16,
    },
    /// Streamable HTTP too, on a Unix socket in the run's own directory ([`socket_in`]).
    Socket,
    /// JSON-RPC lines on its standard input and output.
    Stdio(Stdio),
}

/// The part of a spec that decides about time and signals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// How long a run may take to be ready.
    pub ready_timeout: std::time::Duration,
    /// How it is ended.
    pub stop: Stop,
    /// When it is followed by another.
    pub restart: Restart,
}

/// A system account, looked up when the spec was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// Its name.
    pub name: String,
    /// Its user id.
    pub uid: u32,
    /// Its primary group.
    pub gid: u32,
    /// Its home directory.
    pub home: PathBuf,
}
