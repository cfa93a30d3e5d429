//! Hears the control socket.
//!
//! Each connection is a task of its own; each request becomes a [`Call`] to the daemon's loop and
//! waits for its answer. Everything has a limit: connections, heads, bodies, waits. Who may what is
//! not decided here. What a request means is [`mod@route`]; one for an instance is passed on
//! as it comes, body and all.
//!
//! A connection that passes requests on sits on another bench than one that asks the daemon: a
//! client that keeps its streams open must not keep its user from asking.

mod guests;
mod log;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{CACHE_CONTROL, CONNECTION, CONTENT_TYPE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OnceCell, mpsc, oneshot, watch};
use tokio::time::timeout;

use super::passage::Passage;
use super::protocol::{Call, ErrorBody, Peer, Refusal, Reply, Request, Target};
use super::route::{self, Ask, route};
use crate::model::Refusals;
use crate::model::secret::overwrite;
use crate::system::cause::plain;
use crate::system::peer::{self, Credentials};
use crate::system::tail::Tail;
use crate::system::{account, clock, socket};
use guests::{Guests, Seat};
use log::{Listener, PIECES_AHEAD, Pieces, deed};

/// The header of every answer that says which daemon gives it.
pub const VERSION_HEADER: &str = "mcpsup-version";

/// The group whose members are administrators, as root and the daemon's own user are.
const ADMINISTRATORS: &str = "mcpsup";
/// Longest body of a request in bytes; the longest right one is a few hundred.
const MAX_BODY: usize = 64 * 1024;
/// What somebody hears who has too many connections.
const BUSY: &str = "too many connections to the daemon at once; try again later";
/// How long a caller may take for a request's head, for its body, or in silence between two.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why the control socket could not be made.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The kernel takes at most 107 bytes (unix(7)).
    #[error(
        "cannot listen at {path}: the path is {length} bytes long and a socket's may have 107; say --config FILE with a shorter path"
    )]
    TooLong {
        /// The path.
        path: PathBuf,
        /// Its length.
        length: usize,
    },
    /// Something that is not ours to remove.
    #[error("cannot listen at {0}: it is there and is no socket; move it away")]
    InTheWay(PathBuf),
    /// Anything else.
    #[error("cannot listen at {path}: {}", plain(.cause))]
    Failed {
        /// The path.
        path: PathBuf,
        /// What the kernel said.
        cause: io::Error,
    },
}

/// Makes the control socket. Whoever calls this holds the daemon's lock, so a socket that is there
/// already is a dead daemon's, and goes.
///
/// As root everybody may connect: the kernel says who they are. An ordinary user's daemon is
/// theirs alone.
///
/// # Errors
///
/// When the path is too long, taken by something else, or its directory is not there.
pub fn bind(path: &Path) -> Result<UnixListener, BindError> {
    let length = path.as_os_str().len();
    if length > 107 {
        return Err(BindError::TooLong { path: path.to_path_buf(), length });
    }
    let failed = |cause| BindError::Failed { path: path.to_path_buf(), cause };
    match std::fs::symlink_metadata(path) {
        Ok(meta) if meta.file_type().is_socket() => std::fs::remove_file(path).map_err(failed)?,
        Ok(_) => return Err(BindError::InTheWay(path.to_path_buf())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    let listener = UnixListener::bind(path).map_err(failed)?;
    let mode = if account::own_uid() == 0 { 0o666 } else { 0o600 };
    std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).map_err(failed)?;
    Ok(listener)
}

/// Hears the control socket until dropped.
///
/// `calls` is the daemon's loop; `generation` is the status's, and rings whoever waits for a
/// later one; `known` are the uids by which a user is known, for whom the others leave room. Must be
/// polled in a tokio runtime with time and I/O.
pub async fn serve(
    listener: UnixListener,
    calls: mpsc::Sender<Call>,
    generation: watch::Receiver<u64>,
    known: watch::Receiver<BTreeSet<u32>>,
) {
    let ears = Ears { calls, generation };
    let guests = Guests::new(known);
    // Connections end when this future does.
    let mut conversations = tokio::task::JoinSet::new();
    let mut failing = false;
    let mut refusals = Refusals::default();
    loop {
        while conversations.try_join_next().is_some() {}
        let accepted = listener.accept().await;
        for (uid, count) in refusals.unsaid(clock::now()) {
            tracing::warn!(uid, count, "more control connections turned away");
        }
        let failed_before = std::mem::replace(&mut failing, accepted.is_err());
        match accepted {
            Ok((stream, _)) => match peer::credentials(&stream) {
                Ok(told) => {
                    if let Some(seat) = guests.seat(told.uid) {
                        let ears = ears.clone();
                        conversations.spawn(converse(stream, told, ears, seat));
                    } else {
                        let is_said = refusals.note(told.uid, clock::now());
                        turn_away(&stream, told, is_said);
                    }
                }
                Err(error) => tracing::warn!(%error, "control connection without credentials"),
            },
            Err(error) => {
                // Out of descriptors, most likely; the kernel does not say when there are some.
                if !failed_before {
                    tracing::warn!(%error, "control connection not accepted");
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Says why before it hangs up, as far as the socket's buffer takes it.
fn turn_away(stream: &UnixStream, peer: Credentials, is_said: bool) {
    let body = format!("{{\"error\":\"{BUSY}\"}}\n");
    let head = "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nconnection: close";
    let answer = format!("{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let sent = socket::write_at_once(stream, answer.as_bytes()).is_ok();
    if is_said {
        tracing::warn!(uid = peer.uid, pid = peer.pid, sent, "control connection turned away");
    }
}

/// Bodies that were a secret. Each lies in a buffer of the connection's, so they are overwritten when
/// that has let go of it.
#[derive(Debug, Default)]
struct Shreds(Mutex<Vec<Bytes>>);

impl Shreds {
    fn take(&self, body: Bytes) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(body);
    }
}

impl Drop for Shreds {
    fn drop(&mut self) {
        let bodies = self.0.get_mut().unwrap_or_else(PoisonError::into_inner);
        for mut body in bodies.drain(..).filter_map(|body| body.try_into_mut().ok()) {
            overwrite(&mut body);
        }
    }
}

async fn converse(stream: UnixStream, told: Credentials, ears: Ears, seat: Seat) {
    let shreds = Shreds::default();
    let known = OnceCell::new();
    let service = service_fn(|request: hyper::Request<Incoming>| {
        let (ears, seat, shreds, known) = (ears.clone(), &seat, &shreds, &known);
        async move {
            let peer = *known.get_or_init(|| look_up(told)).await;
            let uri = request.uri();
            let answer = match route::instance(uri.path(), uri.query()) {
                Some(Ok(target)) => ears.pass(peer, seat, target, request).await,
                Some(Err((status, text))) => refuse(status, text),
                None => ears.answer(peer, request, shreds).await,
            };
            Ok::<_, std::convert::Infallible>(answer)
        }
    });
    let conversation = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .max_buf_size(MAX_BODY)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = conversation.await {
        tracing::debug!(%error, uid = told.uid, pid = told.pid, "control connection broke off");
    }
}

/// What the name service adds to what the kernel told. It may be slow, and anybody can have it asked, so
/// the loop is not where that is waited for.
async fn look_up(told: Credentials) -> Peer {
    let Credentials { uid, gid, pid } = told;
    let needs_no_group = uid == 0 || uid == account::own_uid();
    let is_member = !needs_no_group
        && deed(move || Ok(account::is_member(uid, gid, ADMINISTRATORS))).await.unwrap_or_else(|error| {
            tracing::error!(%error, uid, "cannot look a group up");
            false
        });
    Peer { uid, pid, is_member }
}

/// What a client that is to come in at a door sends with its requests.
#[derive(Serialize)]
struct Headers<'a> {
    #[serde(rename = "Authorization")]
    authorization: &'a str,
}

type Answer = Response<BoxBody<Bytes, io::Error>>;

/// The way to the loop, and its bell.
#[derive(Debug, Clone)]
struct Ears {
    calls: mpsc::Sender<Call>,
    generation: watch::Receiver<u64>,
}

impl Ears {
    async fn answer(mut self, peer: Peer, request: hyper::Request<Incoming>, shreds: &Shreds) -> Answer {
        let (head, body) = request.into_parts();
        let body = match timeout(PATIENCE, Limited::new(body, MAX_BODY).collect()).await {
            Ok(Ok(body)) => body.to_bytes(),
            Ok(Err(error)) => {
                let text = format!("cannot read the request's body (64 KiB at most): {error}");
                return refuse(StatusCode::PAYLOAD_TOO_LARGE, text);
            }
            Err(_) => {
                let text = "cannot wait longer for the request's body".to_owned();
                return refuse(StatusCode::REQUEST_TIMEOUT, text);
            }
        };
        let ask = route(&head.method, head.uri.path(), head.uri.query(), &body);
        let is_secret = head.uri.path() == route::SET;
        if is_secret {
            shreds.take(body);
        }
        let mut answer = match ask {
            Ok(Ask::Once(request)) => self.ask_once(peer, request).await,
            Ok(Ask::StatusAfter { target, after, wait }) => {
                let is_later = *self.generation.borrow() > after;
                // Whoever may not see it hears so at once, and has no place to wait.
                let now = self.ask_once(peer, Request::Status(target.clone())).await;
                if is_later || now.status() != StatusCode::OK {
                    now
                } else {
                    let later = self.generation.wait_for(|generation| *generation > after);
                    // Changed, or the time is over, or the loop has gone: the answer says which.
                    drop(timeout(wait, later).await);
                    self.ask_once(peer, Request::Status(target)).await
                }
            }
            Ok(Ask::Logs { target, lines, follow }) => self.logs(peer, target, lines, follow).await,
            Err((status, text)) => refuse(status, text),
        };
        if is_secret {
            // So that its buffer is soon nobody's.
            answer.headers_mut().insert(CONNECTION, hyper::header::HeaderValue::from_static("close"));
        }
        answer
    }

    /// Passes a request on to an instance, if the caller may.
    async fn pass(
        self,
        peer: Peer,
        seat: &Seat,
        target: Target,
        request: hyper::Request<Incoming>,
    ) -> Answer {
        let passage = match self.passage(peer, target).await {
            Ok(passage) => passage,
            Err(answer) => return *answer,
        };
        if !seat.moves() {
            return refuse(StatusCode::SERVICE_UNAVAILABLE, BUSY.to_owned());
        }
        if request.method() == hyper::Method::OPTIONS {
            return json(StatusCode::OK, &passage.instance);
        }
        let mut answer = passage.pass(request).await;
        // By this our own answers are told from an instance's.
        answer.headers_mut().remove(VERSION_HEADER);
        answer
    }

    async fn passage(&self, peer: Peer, target: Target) -> Result<Passage, Box<Answer>> {
        match self.ask(peer, Request::Mcp(target)).await? {
            Reply::Passage(passage) => Ok(passage),
            Reply::Status(_) | Reply::Accepted(_) | Reply::Ports(_) | Reply::Log(_) | Reply::Token(_) => {
                Err(Box::new(refuse(StatusCode::INTERNAL_SERVER_ERROR, "no way was given".to_owned())))
            }
        }
    }

    async fn ask_once(&self, peer: Peer, request: Request) -> Answer {
        match self.ask(peer, request).await {
            Ok(Reply::Status(report)) => json(StatusCode::OK, &report),
            Ok(Reply::Accepted(accepted)) => json(StatusCode::ACCEPTED, &accepted),
            Ok(Reply::Ports(ports)) => json(StatusCode::OK, &ports),
            Ok(Reply::Token(token)) => {
                json(StatusCode::OK, &Headers { authorization: &format!("Bearer {}", token.reveal()) })
            }
            Ok(Reply::Log(_) | Reply::Passage(_)) => {
                refuse(StatusCode::INTERNAL_SERVER_ERROR, "that was not asked for".to_owned())
            }
            Err(answer) => *answer,
        }
    }

    /// Asks the loop.
    async fn ask(&self, peer: Peer, request: Request) -> Result<Reply, Box<Answer>> {
        let (reply, answer) = oneshot::channel();
        let gone = || Box::new(refuse(StatusCode::SERVICE_UNAVAILABLE, "the daemon is stopping".to_owned()));
        self.calls.send(Call { peer, request, reply }).await.map_err(|_| gone())?;
        match answer.await {
            Ok(Ok(reply)) => Ok(reply),
            Ok(Err(refusal)) => Err(Box::new(refused(refusal))),
            Err(_) => Err(gone()),
        }
    }

    async fn logs(self, peer: Peer, target: Target, lines: usize, follow: bool) -> Answer {
        let handle = match self.ask(peer, Request::Logs(target.clone())).await {
            Ok(Reply::Log(handle)) => handle,
            Ok(
                Reply::Status(_) | Reply::Accepted(_) | Reply::Ports(_) | Reply::Passage(_) | Reply::Token(_),
            ) => {
                return refuse(StatusCode::INTERNAL_SERVER_ERROR, "no log was given".to_owned());
            }
            Err(answer) => return *answer,
        };
        let path = handle.path.clone();
        let tail = match deed(move || Tail::open(&path, lines)).await {
            Ok(tail) => tail,
            Err(error) => {
                let text = format!("cannot read the log: {}", plain(&error));
                return refuse(StatusCode::CONFLICT, text);
            }
        };
        let (pieces, stream) = mpsc::channel(PIECES_AHEAD);
        tokio::spawn(Listener { ears: self, peer, target, follow, handle }.stream(tail, pieces));
        let body = BoxBody::new(Pieces(stream));
        say(StatusCode::OK, "text/plain; charset=utf-8", body)
    }
}

fn refused(refusal: Refusal) -> Answer {
    let status = StatusCode::from_u16(refusal.kind.status());
    refuse(status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), refusal.text)
}

fn refuse(status: StatusCode, error: String) -> Answer {
    json(status, &ErrorBody { error })
}

fn json(status: StatusCode, value: &impl Serialize) -> Answer {
    // Plain data of ours: writing it to memory cannot fail, and an empty body would say so.
    let mut text = serde_json::to_vec(value).unwrap_or_default();
    text.push(b'\n');
    let body = BoxBody::new(Full::new(Bytes::from(text)).map_err(|never| match never {}));
    say(status, "application/json", body)
}

fn say(status: StatusCode, kind: &'static str, body: BoxBody<Bytes, io::Error>) -> Answer {
    let mut answer = Response::new(body);
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, hyper::header::HeaderValue::from_static("no-store"));
    let version = hyper::header::HeaderValue::from_static(env!("CARGO_PKG_VERSION"));
    headers.insert(VERSION_HEADER, version);
    answer
}
