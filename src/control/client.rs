//! Says something on the control socket: the command line's half.
//!
//! Calls block, because a command has nothing else to do. Each call is a connection of its own, so
//! a daemon that was restarted in between is no trouble. What an error means for the exit status
//! is the command line's business; here it is a kind.

pub mod way;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::runtime::Runtime;
use tokio::time::timeout;

use super::protocol::{Accepted, ErrorBody, Refusal, RefusalKind, Target};
use crate::model::portmap::PortMap;
use crate::model::status::StatusReport;
use crate::model::{UserName, Wish};
use crate::system::cause::plain;

/// How long the daemon may take for an answer that waits for nothing.
const PATIENCE: Duration = Duration::from_secs(30);
/// The same where a sealed file is opened, made and opened again, each in up to 20 s.
const UNSEALS_WITHIN: Duration = Duration::from_secs(70);
/// Longest answer in bytes but for logs: a status of tens of thousands of instances.
const MAX_ANSWER: usize = 64 * 1024 * 1024;

/// Why a call has no result.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody hears the socket.
    #[error("cannot reach the daemon at {path}: {}; is {} running?", plain(.cause), service(.path))]
    Unreachable {
        /// The socket.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// The daemon said no.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The daemon broke off, takes too long, or speaks otherwise.
    #[error("cannot understand the daemon at {path}: {why}")]
    Broken {
        /// The socket.
        path: PathBuf,
        /// In which way.
        why: String,
    },
    /// What came could not be passed on.
    #[error("cannot write: {}", plain(.0))]
    Output(#[source] io::Error),
}

/// What an administrator knows the daemon behind a socket as.
fn service(path: &Path) -> &'static str {
    if path.starts_with("/run/mcpsup") { "mcpsup.service" } else { "mcpsup daemon" }
}

/// Headers by name, values readable: for whoever asked, and nobody else.
pub type Headers = std::collections::BTreeMap<String, String>;

/// The way to one daemon.
#[derive(Debug)]
pub struct Client {
    path: PathBuf,
    runtime: Runtime,
}

impl Client {
    /// The daemon at `path`, which answers connections now.
    ///
    /// # Errors
    ///
    /// [`ClientError::Unreachable`]
    pub fn connect(path: &Path) -> Result<Self, ClientError> {
        let unreachable = |cause| ClientError::Unreachable { path: path.to_path_buf(), cause };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let client = Self { path: path.to_path_buf(), runtime: runtime.map_err(unreachable)? };
        client.runtime.block_on(client.stream())?;
        Ok(client)
    }

    /// What is, for `target`; with `after`, once there is something later than that generation,
    /// or when the time (at most a minute) is over.
    ///
    /// # Errors
    ///
    /// As for every call: [`ClientError`].
    pub fn status(
        &self,
        target: &Target,
        after: Option<(u64, Duration)>,
    ) -> Result<StatusReport, ClientError> {
        let mut query = names(target);
        let mut patience = PATIENCE;
        if let Some((generation, wait)) = after {
            let wait = wait.as_secs().max(1);
            query.push(format!("after={generation}&wait={wait}"));
            patience += Duration::from_secs(wait);
        }
        self.call(Method::GET, &with("/v1/status", &query), Bytes::new(), patience)
    }

    /// Lifts the holds.
    ///
    /// # Errors
    ///
    /// [`ClientError`]
    pub fn start(&self, target: &Target) -> Result<Accepted, ClientError> {
        self.post("/v1/start", target)
    }

    /// Stops, and keeps stopped.
    ///
    /// # Errors
    ///
    /// [`ClientError`]
    pub fn stop(&self, target: &Target) -> Result<Accepted, ClientError> {
        self.post("/v1/stop", target)
    }

    /// Ends the runs and starts others.
    ///
    /// # Errors
    ///
    /// [`ClientError`]
    pub fn restart(&self, target: &Target) -> Result<Accepted, ClientError> {
        self.post("/v1/restart", target)
    }

    /// The port map.
    ///
    /// # Errors
    ///
    /// [`ClientError`]
    pub fn ports(&self) -> Result<PortMap, ClientError> {
        self.call(Method::GET, "/v1/ports", Bytes::new(), PATIENCE)
    }

    /// Forgets a user whose file is gone.
    ///
    /// # Errors
    ///
    /// [`ClientError`]
    pub fn remove(&self, user: &UserName) -> Result<Accepted, ClientError> {
        self.call(Method::DELETE, &format!("/v1/users/{user}"), Bytes::new(), PATIENCE)
    }

    /// What to send with requests to a user's doors: the JSON object that header helpers print.
    ///
    /// # Errors
    ///
    /// [`ClientError`]
    pub fn headers(&self, target: &Target, lasting: bool, renew: bool) -> Result<Headers, ClientError> {
        let body = serde_json::to_vec(target).map_err(|error| self.broken(&error))?;
        let path = format!("/v1/token?lasting={lasting}&renew={renew}");
        self.call(Method::POST, &path, body.into(), PATIENCE)
    }

    /// Makes the daemon read every file again.
    ///
    /// # Errors
    ///
    /// [`ClientError`]
    pub fn reload(&self) -> Result<Accepted, ClientError> {
        self.call(Method::POST, "/v1/reload", Bytes::new(), PATIENCE)
    }

    /// Changes what the file of `user` (left out: the caller) says; which instances that starts anew.
    ///
    /// # Errors
    ///
    /// [`ClientError`]
    pub fn wish(&self, user: Option<&UserName>, wish: &Wish) -> Result<Accepted, ClientError> {
        let (path, what) = match wish {
            Wish::Set { name, .. } => ("/v1/set", format!("name={name}")),
            Wish::Unset { name } => ("/v1/unset", format!("name={name}")),
            Wish::Enable(server) => ("/v1/enable", format!("server={server}")),
            Wish::Disable(server) => ("/v1/disable", format!("server={server}")),
        };
        let query: Vec<String> = user.map(|user| format!("user={user}")).into_iter().chain([what]).collect();
        let body = match wish {
            Wish::Set { value, .. } => Bytes::copy_from_slice(value.reveal().as_bytes()),
            Wish::Unset { .. } | Wish::Enable(_) | Wish::Disable(_) => Bytes::new(),
        };
        self.call(Method::POST, &with(path, &query), body, UNSEALS_WITHIN)
    }

    /// The last `lines` lines of an instance's log, and with `follow` what is written later, piece
    /// by piece into `out`. Ends with the log, or with the first error of `out`.
    ///
    /// # Errors
    ///
    /// [`ClientError`]
    pub fn logs(
        &self,
        target: &Target,
        lines: usize,
        follow: bool,
        mut out: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> Result<(), ClientError> {
        let mut query = names(target);
        query.push(format!("lines={lines}&follow={follow}"));
        let result = self.runtime.block_on(async {
            let path = with("/v1/logs", &query);
            let asked = self.ask(Method::GET, &path, Bytes::new());
            let mut answer = self.in_time(PATIENCE, asked).await?;
            if !answer.status().is_success() {
                return Err(self.refusal(answer).await);
            }
            while let Some(frame) = answer.frame().await {
                let frame = frame.map_err(|error| self.broken(&error))?;
                if let Ok(piece) = frame.into_data() {
                    out(&piece).map_err(ClientError::Output)?;
                }
            }
            Ok(())
        });
        result.map_err(|error| self.or_gone(error))
    }

    fn post(&self, path: &str, target: &Target) -> Result<Accepted, ClientError> {
        let body = serde_json::to_vec(target).map_err(|error| self.broken(&error))?;
        self.call(Method::POST, path, body.into(), PATIENCE)
    }

    fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
        patience: Duration,
    ) -> Result<T, ClientError> {
        let result = self.runtime.block_on(self.in_time(patience, async {
            let answer = self.ask(method, path, body).await?;
            if !answer.status().is_success() {
                return Err(self.refusal(answer).await);
            }
            let body = self.whole(answer).await?;
            serde_json::from_slice(&body).map_err(|error| self.broken(&error))
        }));
        result.map_err(|error| self.or_gone(error))
    }

    /// A daemon that ended in the middle of an answer is said to be gone, not to be odd.
    fn or_gone(&self, error: ClientError) -> ClientError {
        match error {
            ClientError::Broken { .. } => self.runtime.block_on(self.stream()).err().unwrap_or(error),
            ClientError::Unreachable { .. } | ClientError::Refused(_) | ClientError::Output(_) => error,
        }
    }

    async fn in_time<T>(
        &self,
        patience: Duration,
        work: impl Future<Output = Result<T, ClientError>>,
    ) -> Result<T, ClientError> {
        let late = || self.broken(&format_args!("no answer within {} s", patience.as_secs()));
        timeout(patience, work).await.unwrap_or_else(|_| Err(late()))
    }

    async fn stream(&self) -> Result<UnixStream, ClientError> {
        let unreachable = |cause| ClientError::Unreachable { path: self.path.clone(), cause };
        UnixStream::connect(&self.path).await.map_err(unreachable)
    }

    async fn ask(&self, method: Method, path: &str, body: Bytes) -> Result<Response<Incoming>, ClientError> {
        let stream = self.stream().await?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| self.broken(&error))?;
        // Its error is the request's, which says it.
        tokio::spawn(async { drop(connection.await) });
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "mcpsup")
            .header("content-type", "application/json")
            .body(Full::new(body))
            .map_err(|error| self.broken(&error))?;
        sender.send_request(request).await.map_err(|error| self.broken(&error))
    }

    async fn whole(&self, answer: Response<Incoming>) -> Result<Bytes, ClientError> {
        let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await;
        Ok(body.map_err(|error| self.broken(&error))?.to_bytes())
    }

    async fn refusal(&self, answer: Response<Incoming>) -> ClientError {
        let status = answer.status().as_u16();
        let body = match self.whole(answer).await {
            Ok(body) => body,
            Err(error) => return error,
        };
        match serde_json::from_slice::<ErrorBody>(&body) {
            Ok(body) => Refusal { kind: RefusalKind::of(status), text: body.error }.into(),
            Err(_) => self.broken(&format_args!("status {status} without a reason")),
        }
    }

    fn broken(&self, why: &impl ToString) -> ClientError {
        ClientError::Broken { path: self.path.clone(), why: why.to_string() }
    }
}

fn names(target: &Target) -> Vec<String> {
    let user = target.user.as_ref().map(|user| format!("user={user}"));
    let server = target.server.as_ref().map(|server| format!("server={server}"));
    user.into_iter().chain(server).collect()
}

fn with(path: &str, query: &[String]) -> String {
    if query.is_empty() { path.to_owned() } else { format!("{path}?{}", query.join("&")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_daemon_is_said_with_the_socket_and_what_to_look_at() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.sock");
        let error = Client::connect(&path).unwrap_err().to_string();
        let expected = format!(
            "cannot reach the daemon at {}: no such file or directory; is mcpsup daemon running?",
            path.display()
        );
        assert_eq!(error, expected);
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let error = Client::connect(&path).unwrap_err().to_string();
        assert!(error.contains(": connection refused; is "), "{error}");
    }

    #[test]
    fn a_target_is_a_query() {
        let target = Target {
            user: Some("alice".parse().unwrap()),
            server: Some("notes".parse().unwrap()),
            all: false,
        };
        assert_eq!(with("/v1/status", &names(&target)), "/v1/status?user=alice&server=notes");
        assert_eq!(with("/v1/status", &names(&Target::default())), "/v1/status");
    }

    #[test]
    fn a_daemon_that_ends_in_the_middle_of_an_answer_is_gone_and_not_odd() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.sock");
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let client = Client::connect(&path).unwrap();
        let daemon = std::thread::spawn(move || {
            drop(listener.accept().unwrap());
            let (call, _) = listener.accept().unwrap();
            drop(listener);
            drop(call);
        });
        let error = client.ports().unwrap_err();
        daemon.join().unwrap();
        assert!(matches!(error, ClientError::Unreachable { .. }), "{error}");
    }
}
