//! mcpsup.toml, once it has been read and found right. PRODUCT §3 in types.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::model::ServerName;
use crate::model::cage::{Allow, Isolation};
use crate::model::port::PortRange;
use crate::model::uid::UidRange;

/// The whole file. The default is what stands where nothing is said, with no server.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Config {
    /// `[ports]`
    pub ports: Ports,
    /// `[door]`
    pub door: Door,
    /// `[log]`
    pub log: Log,
    /// `[daemon]`
    pub daemon: Daemon,
    /// `[server.NAME]`; at least one.
    // Shared, because everybody's specs are made of it.
    pub servers: BTreeMap<ServerName, Arc<Server>>,
}

/// `[ports]`: who listens where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ports {
    /// The address of every door; `127.0.0.1` unless said otherwise.
    pub listen: IpAddr,
    /// Where doors are; does not overlap `backend_range`.
    pub range: PortRange,
    /// Where http processes listen.
    pub backend_range: PortRange,
}

impl Default for Ports {
    fn default() -> Self {
        Self {
            listen: IpAddr::V4(Ipv4Addr::LOCALHOST),
            range: PortRange { first: 3456, last: 3999 },
            backend_range: PortRange { first: 20_000, last: 29_999 },
        }
    }
}

/// `[door]`: limits of every door.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Door {
    /// How long a request waits for a process that is down before it gets 503. `wait = "30s"`
    pub wait: Duration,
    /// The largest request body in bytes. `max_body = "64M"`
    pub max_body: u64,
    /// Connections open at once at one door. `max_connections = 256`
    pub max_connections: u32,
    /// How long a client may take to send a request's head, or stay silent between two requests.
    /// `head_timeout = "60s"`
    pub head_timeout: Duration,
    /// Names besides `localhost`, `127.0.0.1`, `[::1]` and the listening address that a Host or
    /// Origin header may give. `hosts = ["mcp.example.org"]`
    pub hosts: Vec<String>,
    /// Each door listens on a socket in the file system too. `unix = false`
    pub unix: bool,
}

impl Default for Door {
    fn default() -> Self {
        Self {
            wait: Duration::from_secs(30),
            max_body: 64 << 20,
            max_connections: 256,
            head_timeout: Duration::from_secs(60),
            hosts: Vec::new(),
            unix: false,
        }
    }
}

/// `[log]`: the instances' log files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// A file larger than this many bytes is rotated. `max_size = "10M"`
    pub max_size: u64,
    /// How many rotated files are kept beside the current one. `keep = 3`
    pub keep: u32,
    /// What one instance may write in bytes per second before the rest is counted and dropped.
    /// `max_rate = "4M"`
    pub max_rate: u64,
}

impl Default for Log {
    fn default() -> Self {
        Self { max_size: 10 << 20, keep: 3, max_rate: 4 << 20 }
    }
}

/// `[daemon]`: how runs are kept together, and apart, and whom they run as.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Daemon {
    /// `containment = "auto"`
    pub containment: Containment,
    /// A directory of a cgroup v2 mount for the daemon to make its groups in; `auto` as root uses
    /// `mcpsup` at the top of the mount. Must not lie inside the daemon's own unit.
    pub cgroup_root: Option<PathBuf>,
    /// `isolation = "auto"`: below what nothing is started.
    pub isolation: Isolation,
    /// Whom root's daemon runs users as who have no account. `uid_range = "65536-99999"`
    pub uid_range: UidRange,
}

/// What holds the processes of one run together, so that all of them can be ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Containment {
    /// A cgroup where the daemon can make one, else a session.
    #[default]
    Auto,
    /// One cgroup v2 per run, ended by `cgroup.kill`. The daemon refuses to start without.
    Cgroup,
    /// One pid namespace per run: when its first process ends, the kernel ends all. It takes
    /// privilege; the daemon refuses to start without.
    PidNamespace,
    /// A session and process group per run, and what holds its FIFOs: best effort.
    Session,
}

/// How a server's process speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// Streamable HTTP on the backend port.
    Http,
    /// JSON-RPC lines on its standard input and output.
    Stdio(Stdio),
}

/// What is said of a stdio server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stdio {
    /// `sessions = "shared"`
    pub sessions: Sessions,
    /// More sessions of one user's instance than this end one: the oldest where each has a process,
    /// else the one that was idle longest. Default 256 shared, 8 isolated.
    pub max_sessions: u32,
    /// A session without an open stream, a call in flight or a message for so long is ended. Default
    /// a day shared, an hour isolated.
    pub session_idle: Duration,
    /// `era = "auto"`
    pub era: Era,
    /// The largest message in bytes, a line of the process or a body of a client.
    /// `max_message = "16M"`
    pub max_message: u64,
    /// `[server.NAME.health]`; `None`: nobody asks.
    pub health: Option<Health>,
}

impl Stdio {
    /// What stands where nothing is said, for servers whose sessions are kept like this.
    #[must_use]
    pub const fn of(sessions: Sessions) -> Self {
        let (max_sessions, idle) = match sessions {
            Sessions::Shared => (256, 24 * 60 * 60),
            Sessions::Isolated => (8, 60 * 60),
        };
        let session_idle = Duration::from_secs(idle);
        Self { sessions, max_sessions, session_idle, era: Era::Auto, max_message: 16 << 20, health: None }
    }
}

/// Who shares a stdio process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sessions {
    /// All clients of one user.
    #[default]
    Shared,
    /// Nobody: each session has a process of its own.
    Isolated,
}

/// Which revisions of MCP a stdio process speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Era {
    /// It is asked.
    Auto,
    /// Up to 2025-11-25.
    Legacy,
    /// From 2026-07-28.
    Modern,
}

/// How a stdio process that is up is asked for a sign of life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// How often; at least a second.
    pub every: Duration,
    /// One that answers nothing for so long is restarted. Default 10 s.
    pub timeout: Duration,
}

/// Who may use a door (PRODUCT §7). `access = "owner"`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Access {
    /// A connection of the user's own uid, or whoever bears a token of theirs.
    #[default]
    Owner,
    /// Whoever bears a token of theirs, and nobody else.
    Token,
    /// Everybody who can connect.
    Open,
}

/// `[server.NAME]`
#[derive(Debug, Clone, PartialEq)]
pub struct Server {
    /// Program and arguments; at least one, the first without `{env:…}`.
    pub command: Vec<Template>,
    /// `transport = "stdio"`
    pub transport: Transport,
    /// Further variables for the process.
    pub env: BTreeMap<String, Template>,
    /// Everybody gets one; else only users who list it in `MCPSUP_SERVERS`. Default true.
    pub for_all: bool,
    /// `[server.NAME.credential.VAR]`
    pub credentials: BTreeMap<String, Credential>,
    /// The variable in which the process learns its backend port, and in which a user's file may
    /// pin their door.
    pub port_env: Option<String>,
    /// The path of the MCP endpoint. Default `/mcp`.
    pub path: String,
    /// Where the process starts; its state directory unless said otherwise.
    pub working_dir: Option<Template>,
    /// Who may use its doors. Default `"owner"`.
    pub access: Access,
    /// `{env:…}` is allowed in `command`, where everybody's `ps` shows it.
    pub secrets_in_argv: bool,
    /// `[server.NAME.ready]`
    pub ready: Ready,
    /// `[server.NAME.stop]`
    pub stop: Stop,
    /// `[server.NAME.restart]`
    pub restart: Restart,
    /// `[server.NAME.limits]`
    pub limits: Limits,
    /// `[server.NAME.allow]`
    pub allow: Allow,
}

impl Server {
    /// True if each of its sessions has a process of its own.
    #[must_use]
    pub const fn has_isolated_sessions(&self) -> bool {
        matches!(self.transport, Transport::Stdio(Stdio { sessions: Sessions::Isolated, .. }))
    }

    /// True if its process listens on a port.
    #[must_use]
    pub fn listens(&self) -> bool {
        matches!(self.transport, Transport::Http) && !self.has_socket()
    }

    /// True if its processes may make Unix sockets though they share an account with other users'.
    #[must_use]
    pub fn opens_unix_sockets(&self) -> bool {
        self.allow.unix_sockets || self.has_socket()
    }

    /// True if its process listens on a Unix socket of its own.
    #[must_use]
    pub fn has_socket(&self) -> bool {
        let mut texts = self.command.iter().chain(self.env.values());
        texts.any(|text| text.0.contains(&Piece::Socket))
    }
}

/// A variable that a server needs in its user's file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credential {
    /// For the person who is asked for it.
    pub description: String,
    /// A regular expression its value must match. It compiles.
    pub pattern: Option<String>,
    /// Nothing is started without it. Default true.
    pub required: bool,
}

/// What "up" means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ready {
    /// `probe = "mcp"`
    pub probe: Probe,
    /// How long a run may take to be ready. Default 30 s.
    pub timeout: Duration,
}

/// How readiness is tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probe {
    /// A real MCP round trip at the server's path: `server/discover`, else `initialize`.
    Mcp,
    /// `GET` of this path answers with a status below 400. `probe = "http"`, `probe_path = "/health"`
    Http(String),
    /// It listens. `probe = "tcp"`
    Tcp,
}

/// How a run is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stop {
    /// The signal number that asks it. Default SIGTERM.
    pub signal: i32,
    /// How long it may take before it is killed. Default 10 s.
    pub grace: Duration,
}

/// When a run that ended is followed by another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Restart {
    /// The wait before the second restart in a row; the first is at once. Default 100 ms.
    pub first_wait: Duration,
    /// Where doubling ends. Default 1 min.
    pub max_wait: Duration,
    /// A run that was up this long settles the account. Default 1 min.
    pub stable: Duration,
}

/// What a run may use. `None`: no limit of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    /// Bytes, all processes of the run together.
    pub memory: Option<u64>,
    /// Hundredths of one processor: `"50%"` is 50, `"200%"` two processors.
    pub cpu: Option<u32>,
    /// Processes and threads.
    pub tasks: Option<u32>,
    /// Open descriptors of each process. Default 1024.
    pub open_files: Option<u32>,
}

impl Limits {
    /// Those asked for that take a cgroup, each with the controller that enforces it.
    pub fn of_groups(&self) -> impl Iterator<Item = (&'static str, &'static str)> + use<> {
        let all = [
            ("memory", "memory", self.memory.is_some()),
            ("cpu", "cpu", self.cpu.is_some()),
            ("tasks", "pids", self.tasks.is_some()),
        ];
        all.into_iter().filter(|(.., is_asked)| *is_asked).map(|(name, controller, _)| (name, controller))
    }
}

/// A text with holes: `"notes-{user}"`. `logic::template` reads and fills it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template(pub Vec<Piece>);

/// A part of a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// Text as it stands; shared, for where a template is nothing else, everybody has the same.
    Text(Arc<str>),
    /// `{user}`
    User,
    /// `{server}`
    Server,
    /// `{port}`: the backend port.
    Port,
    /// `{socket}`: the Unix socket that the process listens on instead of a port.
    Socket,
    /// `{state_dir}`
    StateDir,
    /// `{runtime_dir}`
    RuntimeDir,
    /// `{session}`: which session the process is for; `main` for the one that is for none.
    Session,
    /// `{env:NAME}`: a variable of the user's own file.
    Env(String),
}
