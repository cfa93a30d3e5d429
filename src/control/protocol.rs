//! What is said on the control socket.
//!
//! | request | body or query | answer |
//! |---|---|---|
//! | `GET /v1/status` | `user`, `server`; `after=GENERATION&wait=SECONDS` waits for a change | [`StatusReport`] |
//! | `POST /v1/start`, `/v1/stop`, `/v1/restart` | [`Target`] | [`Accepted`], at once; watch the status for the outcome |
//! | `GET /v1/ports` | | [`PortMap`] |
//! | `GET /v1/logs` | `user`, `server`, `lines`, `follow` | text, streamed |
//! | `DELETE /v1/users/NAME` | | [`Accepted`]; its ports are freed once it ended; its state and logs stay |
//! | `POST /v1/reload` | | [`Accepted`] |
//! | `POST /v1/token` | [`Target`]; `lasting=true`, `renew=true` | `{"Authorization": "Bearer …"}`: what to come in with at that user's doors |
//! | `POST /v1/set` | `user`, `name`; the body is the value | [`Accepted`], once it is written: what starts anew |
//! | `POST /v1/unset` | `user`, `name` | [`Accepted`], likewise: what is stopped for it |
//! | `POST /v1/enable`, `/v1/disable` | `user`, `server` | [`Accepted`], likewise |
//! | `OPTIONS /v1/mcp/USER/SERVER` | | [`InstanceId`](crate::model::InstanceId): the caller may do the next thing; the names may be left out where they are clear |
//! | `POST`, `GET`, `DELETE` there | MCP's Streamable HTTP | the instance's, as at its door; without the header `mcpsup-version` |
//!
//! A refusal is `{"error": "…"}` with 400 (wrong use), 403 (not permitted), 404 (no such user or
//! server), 409 (known, but cannot be done now), 503 (too many connections, or the daemon is
//! stopping). An empty body is an empty [`Target`]. Every answer has a header `mcpsup-version`.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use tokio::sync::{oneshot, watch};

use super::passage::Passage;
use crate::model::portmap::PortMap;
use crate::model::status::StatusReport;
use crate::model::{Problem, RunId, Secret, ServerName, UserName, Wish};

/// Who is at the other end of the control socket: what the kernel says (`SO_PEERCRED`) and, once
/// for each connection, the name service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// Effective user id when it connected.
    pub uid: u32,
    /// Process id, for the log only.
    pub pid: i32,
    /// It belongs to the group whose members are administrators.
    pub is_member: bool,
}

/// Which instances are meant.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// Whose; left out by an ordinary user, who means themself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<UserName>,
    /// Which server; all of the user's if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<ServerName>,
    /// Every instance of every user.
    #[serde(default)]
    pub all: bool,
}

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// What is. `target.all` is meant if it names no user and the caller may see everybody.
    Status(Target),
    /// Lift the holds, and try at once what is cooling.
    Start(Target),
    /// Hold: stop, and stay stopped over restarts of the daemon.
    Stop(Target),
    /// End the run and start another.
    Restart(Target),
    /// The port map.
    Ports,
    /// Where the log of one instance is.
    Logs(Target),
    /// Forget the user: stop, free the ports.
    Remove(UserName),
    /// Read every file again.
    Reload,
    /// The way to one instance.
    Mcp(Target),
    /// A token for one user's doors.
    Token {
        /// Whose, and perhaps for which server alone.
        target: Target,
        /// The one that does not end.
        lasting: bool,
        /// End every one that was given out so far.
        renew: bool,
    },
    /// Change what this user's file says; left out, the caller's own.
    Wish(Option<UserName>, Wish),
}

/// What is answered.
#[derive(Debug)]
pub enum Reply {
    /// To [`Request::Status`].
    Status(StatusReport),
    /// To whatever changes something.
    Accepted(Accepted),
    /// To [`Request::Ports`].
    Ports(PortMap),
    /// To [`Request::Logs`].
    Log(LogHandle),
    /// To [`Request::Mcp`].
    Passage(Passage),
    /// To [`Request::Token`].
    Token(Secret),
}

/// The change is made in the wants; what runs follows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accepted {
    /// The generation of the status before the change; ask for a later one.
    pub generation: u64,
    /// What was meant, with the run each had.
    pub instances: Vec<Meant>,
    /// It was so already: there was nothing to change in the file.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unchanged: bool,
    /// What is wrong with mcpsup.toml, which was to be read: the last good one stays in force.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refused: Vec<Problem>,
}

/// One instance that a request meant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meant {
    /// Whose it is.
    pub user: UserName,
    /// Which server.
    pub server: ServerName,
    /// Its newest run when the request came; a later one is the new one.
    pub run: Option<RunId>,
}

/// Where an instance's log is, and a bell for new bytes in it.
#[derive(Debug)]
pub struct LogHandle {
    /// The current file; older ones are beside it as `.1`, `.2`, …
    pub path: PathBuf,
    /// Rings when something was written; `None` if nothing was written since the daemon started.
    pub written: Option<watch::Receiver<u64>>,
}

/// Why a request was not done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Refusal {
    /// Which kind.
    pub kind: RefusalKind,
    /// For people; lower case, no full stop, no secret.
    pub text: String,
}

/// The kinds of refusal, by what the caller can do about them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusalKind {
    /// 400: ask differently. Exit status 2.
    WrongUse,
    /// 403: ask somebody else. Exit status 4.
    NotPermitted,
    /// 404: there is no such user or server. Exit status 1.
    Unknown,
    /// 409: cannot be done as things are. Exit status 1.
    Failed,
}

impl RefusalKind {
    /// The HTTP status that says it.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::WrongUse => 400,
            Self::NotPermitted => 403,
            Self::Unknown => 404,
            Self::Failed => 409,
        }
    }

    /// What an HTTP status says; whatever is none of ours is a failure.
    #[must_use]
    pub const fn of(status: u16) -> Self {
        match status {
            400 | 405 | 413 => Self::WrongUse,
            403 => Self::NotPermitted,
            404 => Self::Unknown,
            _ => Self::Failed,
        }
    }
}

/// A request on its way into the daemon's loop, with the way back.
#[derive(Debug)]
pub struct Call {
    /// Who asks.
    pub peer: Peer,
    /// What.
    pub request: Request,
    /// Where the answer goes. A caller that has gone away is no error.
    pub reply: oneshot::Sender<Result<Reply, Refusal>>,
}

/// The body of a refusal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// [`Refusal::text`]
    pub error: String,
}
