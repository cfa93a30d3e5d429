//! What `mcpsup doctor` found wrong, and what mends it.

use std::fmt;

use serde::Serialize;

use crate::model::{ServerName, UserName};

/// What kind of thing is wrong: one word for programs, which stays the same while the words for
/// people change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Code {
    /// mcpsup.toml.
    Configuration,
    /// env.d itself.
    EnvDirectory,
    /// A user's env file.
    EnvFile,
    /// A sealed env file that does not open.
    Sealed,
    /// The account, or the uid, that a user's servers run as.
    Account,
    /// A port that is given, or could not be.
    Port,
    /// `[ports]` where the kernel or the rights of the daemon do not let it be.
    PortRange,
    /// A file in the state directory that cannot be read or understood.
    Remembered,
    /// The port map that clients and tools read.
    PortMap,
    /// State, runtime or log directory: its owner, its mode, or that it is there.
    Directory,
    /// No room on a file system.
    DiskFull,
    /// A file system that cannot be written.
    ReadOnly,
    /// The runtime directory is not kept in memory.
    OnDisk,
    /// Nobody answers at the control socket.
    Daemon,
    /// The daemon is of another version than this program.
    Version,
    /// No watch on env.d can be had.
    Watch,
    /// Too few open files.
    OpenFiles,
    /// Limits that are asked for and do not hold.
    Limits,
    /// Less is kept apart than mcpsup.toml asks for.
    Isolation,
    /// The unit of systemd.
    Unit,
    /// The program of a server is not there.
    Program,
    /// It is there and may not be executed.
    NotExecutable,
    /// What its first line names is not there.
    Interpreter,
    /// A file that its arguments name is not there.
    Argument,
    /// It is downloaded each time it starts.
    Package,
    /// A directory on the way to something is closed to whom it runs as.
    Way,
    /// Where it starts is not there.
    WorkingDirectory,
    /// The modes allow it and something else does not: `SELinux`, `AppArmor`, an ACL.
    Denied,
    /// The server ends by itself.
    Crash,
    /// It runs and does not answer as it should.
    NotReady,
    /// Its processes do not end.
    Stuck,
    /// Nothing runs, because somebody wanted it so.
    Off,
    /// The door does not answer.
    Door,
    /// A client's file.
    Client,
}

/// Whether something has to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Weight {
    /// It does not work, or will not.
    Wrong,
    /// It may be meant so.
    Note,
}

/// What mends it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mend {
    /// A command, as a shell takes it.
    Run(String),
    /// A change of a file.
    Edit {
        /// The file, with the line where that is known.
        file: String,
        /// What is to stand there.
        so: String,
    },
    /// What a person has to do.
    Do(String),
}

impl fmt::Display for Mend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Run(command) => write!(f, "run: {command}"),
            Self::Edit { file, so } => write!(f, "edit: {file}: {so}"),
            Self::Do(what) => write!(f, "mend: {what}"),
        }
    }
}

/// One thing that is wrong. Never a value of an env file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Its kind.
    pub code: Code,
    /// Whether something has to be done.
    pub weight: Weight,
    /// Whose, if it is somebody's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<UserName>,
    /// Of which server, if it is of one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<ServerName>,
    /// What is wrong, for people; begins with the file where there is one.
    pub wrong: String,
    /// What mends it.
    pub mend: Mend,
}

impl Finding {
    /// Something wrong with the host as a whole.
    pub fn wrong(code: Code, wrong: impl Into<String>, mend: Mend) -> Self {
        Self { code, weight: Weight::Wrong, user: None, server: None, wrong: wrong.into(), mend }
    }

    /// Something that may be meant so.
    pub fn note(code: Code, wrong: impl Into<String>, mend: Mend) -> Self {
        Self { weight: Weight::Note, ..Self::wrong(code, wrong, mend) }
    }

    /// The same, of a user.
    #[must_use]
    pub fn of(mut self, user: &UserName) -> Self {
        self.user = Some(user.clone());
        self
    }

    /// The same, of a user's server.
    #[must_use]
    pub fn of_server(mut self, user: &UserName, server: &ServerName) -> Self {
        self.server = Some(server.clone());
        self.of(user)
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.user, &self.server) {
            (Some(user), Some(server)) => write!(f, "{user}/{server}: {}", self.wrong),
            (Some(_) | None, _) => f.write_str(&self.wrong),
        }
    }
}
