//! The way to one instance through the control socket, for whoever speaks MCP with it.
//!
//! Each request has a connection to itself while it is answered, and later requests use it again.
//! A new connection first asks whether its user may pass; that tells what was never sent from what
//! was lost on the way, and keeps the daemon's bench for questions free. While there is no daemon,
//! requests wait for one.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{ACCEPT, CONTENT_TYPE, HOST};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, timeout};

use super::{ClientError, PATIENCE, with};
use crate::control::protocol::{ErrorBody, Refusal, RefusalKind, Target};
use crate::control::server::VERSION_HEADER;
use crate::model::InstanceId;

/// How long a request waits for a daemon.
pub const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// Pauses between two tries to reach it: the first, and what they double up to.
const PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// How long an unused connection may be used again: half of what the daemon allows.
const FRESH: Duration = Duration::from_secs(5);
/// Unused connections that are kept.
const KEPT: usize = 8;
/// Connections that are being opened at once; the daemon lets few in that have not said what they want.
const OPENING: usize = 4;
/// The most that is read of the daemon's word on why not.
const LONGEST_REFUSAL: usize = 64 * 1024;

/// The way to one instance.
#[derive(Debug)]
pub struct Way {
    socket: PathBuf,
    path: String,
    unused: Mutex<VecDeque<Line>>,
    opening: Semaphore,
}

/// Why there is no answer.
#[derive(Debug)]
pub enum NoAnswer {
    /// The request never left, because of this.
    Unsent(ClientError),
    /// It may have arrived.
    Broken,
}

/// What kind of answer it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `application/json`
    Json,
    /// `text/event-stream`
    Events,
    /// Neither, or nothing.
    Other,
}

/// An answer whose body is still to come.
#[derive(Debug)]
pub struct Answer<'w> {
    /// HTTP's.
    pub status: u16,
    /// By `Content-Type`.
    pub kind: Kind,
    /// `Mcp-Session-Id`
    pub session: Option<String>,
    /// Which daemon it is: its process id, or 0 where the kernel does not say.
    pub daemon: i32,
    /// The daemon's own answer, and not the instance's.
    pub by_daemon: bool,
    body: Incoming,
    line: Option<Line>,
    way: &'w Way,
}

/// A connection; closed when dropped.
#[derive(Debug)]
struct Line {
    sender: SendRequest<Full<Bytes>>,
    connection: AbortHandle,
    daemon: i32,
    used: Instant,
}

impl Drop for Line {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

/// Why there is no connection.
enum NoLine {
    /// There may be one later.
    Away(ClientError),
    /// The daemon said no.
    Refused(ClientError),
}

impl Way {
    /// The way to the instance that `target` means, and which one that is.
    ///
    /// # Errors
    ///
    /// When nobody hears the socket, and when the caller may not go there.
    pub async fn find(socket: &Path, target: &Target) -> Result<(Self, InstanceId), ClientError> {
        let user = target.user.as_ref().map(ToString::to_string);
        let user = user.or_else(|| target.server.is_some().then(|| "-".to_owned()));
        let server = target.server.as_ref().map(ToString::to_string);
        let names: Vec<String> = user.into_iter().chain(server).collect();
        let mut way = Self {
            socket: socket.to_owned(),
            path: ["/v1/mcp".to_owned()].into_iter().chain(names).collect::<Vec<_>>().join("/"),
            unused: Mutex::default(),
            opening: Semaphore::new(OPENING),
        };
        let opened = timeout(PATIENCE, way.open()).await;
        let (line, instance) = match opened {
            Ok(Ok(opened)) => opened,
            Ok(Err(NoLine::Away(error) | NoLine::Refused(error))) => return Err(error),
            Err(_) => return Err(way.broken("no answer in time")),
        };
        way.path = format!("/v1/mcp/{}/{}", instance.user, instance.server);
        way.keep(line);
        Ok((way, instance))
    }

    /// Sends a request, and hands back its answer once that begins. Waits for a daemon as long as
    /// [`LONGEST_WAIT`], and for the answer for ever.
    ///
    /// # Errors
    ///
    /// [`NoAnswer`]
    pub async fn send(
        &self,
        method: &str,
        headers: &[(&'static str, String)],
        body: Arc<Vec<u8>>,
    ) -> Result<Answer<'_>, NoAnswer> {
        let unsent = |error: &dyn ToString| NoAnswer::Unsent(self.broken(&error.to_string()));
        let method = Method::from_bytes(method.as_bytes()).map_err(|error| unsent(&error))?;
        let body = Bytes::from_owner(Shared(body));
        let mut request = Request::builder().method(method).uri(&self.path).header(HOST, "mcpsup");
        if !body.is_empty() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        request = request.header(ACCEPT, "application/json, text/event-stream");
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        let mut request = request.body(Full::new(body)).map_err(|error| unsent(&error))?;
        loop {
            let mut line = self.line().await?;
            match line.sender.try_send_request(request).await {
                Ok(answer) => return Ok(self.hand_over(answer, line)),
                Err(mut lost) => match lost.take_message() {
                    Some(back) => request = back,
                    None => return Err(NoAnswer::Broken),
                },
            }
        }
    }

    fn hand_over(&self, answer: Response<Incoming>, line: Line) -> Answer<'_> {
        let (head, body) = answer.into_parts();
        let text = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok());
        let kind = text("content-type").unwrap_or_default().split(';').next().unwrap_or_default();
        let kind = match kind.trim().to_ascii_lowercase().as_str() {
            "application/json" => Kind::Json,
            "text/event-stream" => Kind::Events,
            _ => Kind::Other,
        };
        Answer {
            status: head.status.as_u16(),
            kind,
            session: text("mcp-session-id").map(str::to_owned),
            daemon: line.daemon,
            by_daemon: head.headers.contains_key(VERSION_HEADER),
            body,
            line: Some(line),
            way: self,
        }
    }

    /// A connection that may be used now; waits for a daemon if there is none.
    async fn line(&self) -> Result<Line, NoAnswer> {
        let begun = Instant::now();
        let mut pause = PAUSE;
        loop {
            while let Some(mut line) = self.pop() {
                if line.used.elapsed() < FRESH && line.sender.ready().await.is_ok() {
                    return Ok(line);
                }
            }
            let opened = {
                // Never closed.
                let _turn = self.opening.acquire().await;
                timeout(PATIENCE, self.open()).await
            };
            let error = match opened {
                Ok(Ok((line, _))) => return Ok(line),
                Ok(Err(NoLine::Refused(error))) => return Err(NoAnswer::Unsent(error)),
                Ok(Err(NoLine::Away(error))) => error,
                Err(_) => self.broken("no answer in time"),
            };
            if begun.elapsed() + pause > LONGEST_WAIT {
                return Err(NoAnswer::Unsent(error));
            }
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Connects, and asks whether we may pass.
    async fn open(&self) -> Result<(Line, InstanceId), NoLine> {
        let unreachable = |cause| NoLine::Away(ClientError::Unreachable { path: self.socket.clone(), cause });
        let broken = |error: &dyn ToString| NoLine::Away(self.broken(&error.to_string()));
        let stream = UnixStream::connect(&self.socket).await.map_err(unreachable)?;
        let daemon = stream.peer_cred().map_err(unreachable)?.pid().unwrap_or(0);
        let (sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| broken(&error))?;
        // Its error is the request's, which says it.
        let task = tokio::spawn(async { drop(connection.await) });
        let mut line = Line { sender, connection: task.abort_handle(), daemon, used: Instant::now() };
        let question =
            Request::builder().method(Method::OPTIONS).uri(with(&self.path, &[])).header(HOST, "mcpsup");
        let question = question.body(Full::default()).map_err(|error| broken(&error))?;
        let answer = line.sender.send_request(question).await.map_err(|error| broken(&error))?;
        let status = answer.status().as_u16();
        let body = http_body_util::Limited::new(answer.into_body(), LONGEST_REFUSAL).collect().await;
        let body = body.map_err(|error| broken(&error))?.to_bytes();
        if status == 200 {
            let instance = serde_json::from_slice(&body).map_err(|error| broken(&error))?;
            return Ok((line, instance));
        }
        let said: ErrorBody = serde_json::from_slice(&body).map_err(|error| broken(&error))?;
        let refusal = ClientError::Refused(Refusal { kind: RefusalKind::of(status), text: said.error });
        // Too many connections, or on its way out: another time, or another daemon.
        Err(if status == 503 { NoLine::Away(refusal) } else { NoLine::Refused(refusal) })
    }

    fn pop(&self) -> Option<Line> {
        self.unused.lock().unwrap_or_else(PoisonError::into_inner).pop_back()
    }

    fn keep(&self, mut line: Line) {
        line.used = Instant::now();
        let mut unused = self.unused.lock().unwrap_or_else(PoisonError::into_inner);
        unused.push_back(line);
        if unused.len() > KEPT {
            unused.pop_front();
        }
    }

    fn broken(&self, why: &str) -> ClientError {
        ClientError::Broken { path: self.socket.clone(), why: why.to_owned() }
    }
}

impl Answer<'_> {
    /// The next piece of the body; `None` at its end.
    ///
    /// # Errors
    ///
    /// When the connection breaks off before that.
    pub async fn piece(&mut self) -> Result<Option<Bytes>, NoAnswer> {
        while let Some(frame) = self.body.frame().await {
            if let Ok(data) = frame.map_err(|_| NoAnswer::Broken)?.into_data() {
                return Ok(Some(data));
            }
        }
        if let Some(line) = self.line.take() {
            self.way.keep(line);
        }
        Ok(None)
    }

    /// The whole body, or as much of it as `most` bytes hold.
    ///
    /// # Errors
    ///
    /// When the connection breaks off before that.
    pub async fn whole(&mut self, most: usize) -> Result<Vec<u8>, NoAnswer> {
        let mut whole = Vec::new();
        while let Some(piece) = self.piece().await? {
            whole.extend_from_slice(&piece[..piece.len().min(most - whole.len())]);
            if whole.len() >= most {
                break;
            }
        }
        Ok(whole)
    }

    /// What the daemon's own answer says.
    #[must_use]
    pub fn reason(body: &[u8]) -> Option<String> {
        serde_json::from_slice::<ErrorBody>(body).ok().map(|body| body.error)
    }
}

/// A message that is sent, perhaps twice, and never copied.
struct Shared(Arc<Vec<u8>>);

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}
