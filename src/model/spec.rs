//! Everything about a run whose change needs another run.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::model::config::{Restart, Server, Stdio, Stop, Transport};
use crate::model::{Cage, InstanceId, Secret};

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
        use crate::model::config::{Access, Limits, Probe, Ready};
        let second = std::time::Duration::from_secs(1);
        let server = Server {
            command: Vec::new(),
            transport: Transport::Http,
            env: BTreeMap::new(),
            for_all: true,
            credentials: BTreeMap::new(),
            port_env: None,
            path: "/mcp".into(),
            working_dir: None,
            access: Access::Owner,
            secrets_in_argv: false,
            ready: Ready { probe: Probe::Tcp, timeout: second },
            stop: Stop { signal: 15, grace: second },
            restart: Restart { first_wait: second, max_wait: second, stable: second },
            limits: Limits::default(),
            allow: crate::model::cage::Allow::default(),
        };
        Self {
            id: SpecId([0; 32]),
            server: Arc::new(server),
            program: "/bin/true".into(),
            args: Box::default(),
            env: Box::default(),
            working_dir: Some(Path::new("/").into()),
            account: None,
            cage: Arc::default(),
            backend: Some(20000),
            secrets: Box::default(),
        }
    }
}

/// Where programs are looked for, unless a server or a user says otherwise.
pub const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What to run for one instance, filled in for its user.
///
/// There is one for everybody, so nothing is in it that can be had otherwise.
#[derive(Debug, Clone, PartialEq)]
pub struct Spec {
    /// Digest of what the process itself is given: program, arguments, environment, directories,
    /// account, cage, limits and backend port; for stdio the era and who shares it. A change of
    /// anything else needs no other run.
    pub id: SpecId,
    /// What mcpsup.toml says of its server: its times, its limits, its probe, its endpoint.
    pub server: Arc<Server>,
    /// The program: a path with a slash, or a name to be found in the process's own PATH.
    pub program: Arc<str>,
    /// Its arguments; secret because `secrets_in_argv` servers take credentials there.
    pub args: Box<[Secret]>,
    /// What is its own in its [environment](Self::environment), sorted by name.
    pub env: Box<[(Box<str>, Secret)]>,
    /// Where it starts; `None` is its state directory.
    pub working_dir: Option<Box<Path>>,
    /// The system account it runs as; `None` is the daemon's own.
    pub account: Option<Arc<Account>>,
    /// What it is kept from; shared by all runs of the same kind.
    pub cage: Arc<Cage>,
    /// The port it must listen on, on the loopback address, if it is to listen.
    pub backend: Option<u16>,
    /// Values that no log may show: the declared credentials, and every other value of the
    /// user's file of 8 bytes or more.
    pub secrets: Box<[Secret]>,
}

impl Spec {
    /// What the core needs to know of it.
    #[must_use]
    pub fn plan(&self) -> Plan {
        let Server { ready, stop, restart, .. } = &*self.server;
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        Plan {
            ready_timeout_ms: ms(ready.timeout),
            stop_signal: stop.signal,
            stop_grace_ms: ms(stop.grace),
            first_wait_ms: ms(restart.first_wait),
            max_wait_ms: ms(restart.max_wait),
            stable_ms: ms(restart.stable),
        }
    }

    /// The Unix socket it must listen on, if it is to listen on one: in its own directory, which
    /// nobody but its user may enter.
    #[must_use]
    pub fn socket(&self, home: &Home<'_>) -> Option<PathBuf> {
        let is_http = matches!(self.server.transport, Transport::Http);
        (is_http && self.server.has_socket()).then(|| home.socket())
    }

    /// What is said of it if it is spoken with on its standard input and output.
    #[must_use]
    pub fn stdio(&self) -> Option<Stdio> {
        match self.server.transport {
            Transport::Http => None,
            Transport::Stdio(stdio) => Some(stdio),
        }
    }

    /// Its whole environment: what everybody has, and, weighing more, what is its own. Nothing is
    /// inherited.
    #[must_use]
    pub fn environment<'a>(&'a self, home: &'a Home<'_>) -> BTreeMap<&'a str, Cow<'a, str>> {
        let account = self.account.as_deref();
        let name = account.map_or(home.id.user.as_str(), |account| &account.name);
        let at_home = account.filter(|account| account.has_home());
        let dir = at_home.map_or(&home.state_dir, |account| &account.home);
        let mut env = BTreeMap::from([
            ("PATH", Cow::from(PATH)),
            ("LANG", "C.UTF-8".into()),
            ("HOME", dir.to_string_lossy()),
            ("TMPDIR", home.tmp().to_string_lossy().into_owned().into()),
            ("USER", name.into()),
            ("LOGNAME", name.into()),
        ]);
        env.extend(self.env.iter().map(|(name, value)| (&**name, value.reveal().into())));
        env
    }

    /// Where it starts.
    #[must_use]
    pub fn start_dir<'a>(&'a self, home: &'a Home<'_>) -> &'a Path {
        self.working_dir.as_deref().unwrap_or(&home.state_dir)
    }
}

/// Where `{socket}` is, in a run's own short-lived directory.
#[must_use]
pub fn socket_in(runtime_dir: &Path) -> PathBuf {
    runtime_dir.join("http.sock")
}

/// An instance, or a session of one, and where its own directories are.
#[derive(Debug)]
pub struct Home<'a> {
    /// Whose they are.
    pub id: &'a InstanceId,
    /// Its own directory, 0700.
    pub state_dir: PathBuf,
    /// Its own short-lived directory, 0700.
    pub runtime_dir: PathBuf,
}

impl<'a> Home<'a> {
    /// Below these directories of the daemon's.
    #[must_use]
    pub fn of(id: &'a InstanceId, state: &Path, runtime: &Path) -> Self {
        let place = id.place();
        Self { id, state_dir: state.join(&place), runtime_dir: runtime.join(&place) }
    }

    /// Its `TMPDIR`, by which its processes are known.
    #[must_use]
    pub fn tmp(&self) -> PathBuf {
        self.state_dir.join("tmp")
    }

    /// Where `{socket}` is.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        socket_in(&self.runtime_dir)
    }
}

/// The part of a spec that decides about time and signals, in numbers that do not change their
/// meaning between versions: a record holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// How long a run may take to be ready, in milliseconds.
    pub ready_timeout_ms: u64,
    /// The signal number that asks it to end.
    pub stop_signal: i32,
    /// How long it may take to end, in milliseconds.
    pub stop_grace_ms: u64,
    /// See [`Restart`]; in milliseconds.
    pub first_wait_ms: u64,
    /// See [`Restart`]; in milliseconds.
    pub max_wait_ms: u64,
    /// See [`Restart`]; in milliseconds.
    pub stable_ms: u64,
}

impl Plan {
    /// How long a run may take to be ready.
    #[must_use]
    pub const fn ready_timeout(&self) -> Duration {
        Duration::from_millis(self.ready_timeout_ms)
    }

    /// How it is ended.
    #[must_use]
    pub const fn stop(&self) -> Stop {
        Stop { signal: self.stop_signal, grace: Duration::from_millis(self.stop_grace_ms) }
    }

    /// When it is followed by another.
    #[must_use]
    pub const fn restart(&self) -> Restart {
        Restart {
            first_wait: Duration::from_millis(self.first_wait_ms),
            max_wait: Duration::from_millis(self.max_wait_ms),
            stable: Duration::from_millis(self.stable_ms),
        }
    }
}

/// Whom a process runs as: a system account, looked up when the spec was made, or a reserved uid.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// Its name; of a reserved uid, the user's.
    pub name: String,
    /// Its user id.
    pub uid: u32,
    /// Its primary group.
    pub gid: u32,
    /// Its home directory; empty where there is none, and the instance's own directory stands for it:
    /// of a reserved uid, and of an account that servers of several users run as.
    pub home: PathBuf,
    /// It is not in the name service: a uid of `[daemon] uid_range`, with no group but its own.
    pub is_reserved: bool,
}

impl Account {
    /// True if its home is a place of its own.
    #[must_use]
    pub fn has_home(&self) -> bool {
        !self.home.as_os_str().is_empty()
    }
}
