//! What was seen of a host: handed from `system::survey` to `logic::doctor`. Facts only; none of
//! them says whether it is right.

use std::path::PathBuf;

use crate::model::status::StatusReport;

/// Whom something runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Its name, for people.
    pub name: String,
    /// Its uid.
    pub uid: u32,
    /// Every group it is in, its own first.
    pub gids: Vec<u32>,
}

/// What a name leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A file.
    File,
    /// A directory.
    Directory,
    /// A device, a socket, a FIFO.
    Other,
}

/// One directory or file on a way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Where it is.
    pub path: PathBuf,
    /// What it is.
    pub kind: Kind,
    /// Its permission bits.
    pub mode: u32,
    /// Whose it is.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
}

/// Why a way could not be gone to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stop {
    /// There is nothing of that name.
    Missing,
    /// Whoever looks may not go on.
    Closed,
    /// Something else, in the operating system's words.
    Failed(String),
}

/// The way to a file or directory: every directory that has to be passed, links followed, and what
/// is at its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Way {
    /// Where it leads.
    pub path: PathBuf,
    /// What was passed, from the root; the last is the end, where it was reached.
    pub steps: Vec<Step>,
    /// Why the end was not reached.
    pub stop: Option<Stop>,
    /// What the kernel says to whoever looked, of reading the end (executing it, if it is a program;
    /// passing it, if it is a directory).
    pub is_open: bool,
    /// Other rules than the modes stand at a step: an access control list.
    pub has_acl: bool,
}

/// A program that a server begins with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// As mcpsup.toml names it.
    pub named: String,
    /// Where it is looked for, if its name has no slash.
    pub path: String,
    /// Where it is; `None` if it is in no directory of `path`.
    pub way: Option<Way>,
    /// Where it is in the directories of whoever asks, if it is not in `path`.
    pub elsewhere: Option<PathBuf>,
    /// What the first line of a script names.
    pub interpreter: Option<Box<Program>>,
}

/// A package that a runner (`npx`, `uvx`) fetches when it is not there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// `npx`
    pub runner: String,
    /// The package as it is named.
    pub package: String,
    /// Where it was looked for and is not.
    pub is_there: bool,
}

/// What a server of one user needs of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Needs {
    /// Whom it runs as.
    pub identity: Identity,
    /// What it begins with.
    pub program: Program,
    /// What a runner fetches.
    pub fetched: Option<Fetched>,
    /// Files that its arguments name and that are not there, or closed: never a secret.
    pub arguments: Vec<Way>,
    /// Where it starts, if that is not its own directory.
    pub working_dir: Option<Way>,
    /// Its own directories in state and runtime, as far as they are there.
    pub own: Vec<Way>,
}

/// A directory of the daemon's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// What it is for: `state`, `runtime`, `logs`.
    pub what: &'static str,
    /// The way to it.
    pub way: Way,
    /// The file system it is on (or the nearest directory above that is there); `None` if that cannot
    /// be told.
    pub disk: Option<Disk>,
}

/// A file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Disk {
    /// Bytes that may still be written.
    pub free: u64,
    /// Files that may still be made; `None` where there is no such limit.
    pub free_files: Option<u64>,
    /// It cannot be written at all.
    pub is_read_only: bool,
    /// It is kept in memory.
    pub is_in_memory: bool,
}

/// What became of asking the daemon.
#[derive(Debug, Clone, PartialEq)]
pub enum Reached {
    /// It answered.
    Answers(Box<StatusReport>),
    /// There is no socket.
    Missing,
    /// There is one, and nobody listens.
    Refused,
    /// Whoever asks may not.
    Closed,
    /// What is there is no socket.
    NoSocket,
    /// It answers something else, or breaks off.
    Odd(String),
}

/// The daemon, as whoever asks sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct Seen {
    /// Its control socket.
    pub socket: PathBuf,
    /// What became of asking it.
    pub reached: Reached,
    /// Its process: by the socket, or by the lock of the state directory.
    pub pid: Option<u32>,
    /// The state directory is locked: a daemon runs.
    pub is_locked: bool,
    /// How many files it may have open.
    pub open_files: Option<u64>,
}

/// What the kernel says of ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortRules {
    /// What it gives to clients (`ip_local_port_range`).
    pub for_clients: (u16, u16),
    /// Below it only root may listen (`ip_unprivileged_port_start`).
    pub for_everybody: u16,
}

/// Why no watch can be had on a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoWatch {
    /// `fs.inotify.max_user_instances`
    Instances,
    /// `fs.inotify.max_user_watches`
    Watches,
}

/// The unit as systemd has it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Unit {
    /// `LoadState`: `loaded`, `not-found`, `bad-setting`.
    pub load: String,
    /// `UnitFileState`: `enabled`, `disabled`, `masked`.
    pub file: String,
    /// `ActiveState`: `active`, `failed`, `inactive`.
    pub active: String,
    /// `Result`: why it failed.
    pub result: String,
    /// `KillMode`
    pub kill_mode: String,
    /// `RestartKillSignal`, as a number.
    pub restart_signal: String,
    /// It was changed on the disk, and systemd has not read it.
    pub needs_reload: bool,
}
