//! Is it ready? What "up" means for a process that speaks HTTP itself.
//!
//! [`until_ready`] waits for a socket to listen on the port the process was given, makes sure that
//! one of the run's own processes holds it and nobody else listens there, and only then sends it
//! the probe ([`try_once`]). A port alone proves nothing: a stranger who was quicker would get the
//! user's requests.
//!
//! It never gives up by itself: the deadline belongs to the core, which drops the future. What it
//! waits for is told as it changes, in words for `mcpsup status`; no byte of an answer is in them.

mod mcp;
mod sse;

use std::collections::HashSet;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::{CONTENT_TYPE, HOST, HeaderValue};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::model::config::Probe;
use crate::model::{Moment, Secret};
use crate::system::clock;
use crate::system::peer;
use crate::system::socket::{self, Address, Listener, NotReached};

/// How much of an answer is read.
const MAX_ANSWER: usize = 64 * 1024;
/// How long one try may take; a server that is slower at its first answer is tried again.
const TRY: Duration = Duration::from_secs(5);
/// The longest pause between two looks.
const PAUSE: Duration = Duration::from_millis(100);
/// How long nothing is on the given port before we look whether it listens on another.
const ELSEWHERE: Duration = Duration::from_secs(2);

/// Why a server is not ready, in words for people: no secret, no byte of an answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NotReady(pub String);

/// A server that is ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listening {
    /// The socket that was verified; see [`Listener::inode`]. 0 for a Unix socket, of whose other end
    /// the kernel tells the process instead.
    pub inode: u64,
    /// Where to connect: the address asked for, or `[::1]` with its port, since many programs
    /// listen on "localhost" and get that.
    pub addr: Address,
}

/// Waits until the run's own process listens at `backend` and answers the probe at `path`.
///
/// `pids` names the run's processes at that moment. `say` gets the reason it is not ready yet,
/// each time it changes. No connection is made before the listener is known to be the run's.
pub async fn until_ready<P: IntoIterator<Item = i32>>(
    probe: &Probe,
    backend: &Address,
    path: &str,
    pids: impl Fn() -> P,
    mut say: impl FnMut(String),
) -> Listening {
    let began = clock::now();
    let mut watch = Watch { backend: backend.clone(), holder: None, elsewhere: None };
    let mut said = String::new();
    loop {
        let waited = clock::now().since(began);
        let outcome = match watch.look(&pids, waited) {
            // Boxed, for most of the time nobody listens yet: while a thousand wait to be ready, what
            // they hold lies between what the runs keep for good, and leaves holes of its size.
            Ok(found) => Box::pin(try_once(probe, &found.addr, path, TRY)).await.map(|()| found),
            Err(why) => Err(why),
        };
        match outcome {
            // It may have been replaced while it answered.
            Ok(found) if watch.look(&pids, waited).as_ref() == Ok(&found) => return found,
            Err(NotReady(why)) if why != said => {
                said.clone_from(&why);
                say(why);
            }
            Ok(_) | Err(_) => {}
        }
        // An eighth of the time waited so far: late by an eighth at most, and seldom in the end.
        sleep((waited / 8).clamp(Duration::from_millis(1), PAUSE)).await;
    }
}

/// What [`until_ready`] remembers between two looks, because finding it out is dear.
struct Watch {
    backend: Address,
    /// The stranger's socket on our port, and the words for it.
    holder: Option<(u64, String)>,
    /// When we last looked at other ports, and what was there.
    elsewhere: Option<(Duration, Option<u16>)>,
}

impl Watch {
    /// Finds the run's listener on its port, provided that nobody else can get its connections.
    fn look<P: IntoIterator<Item = i32>>(
        &mut self,
        pids: impl Fn() -> P,
        waited: Duration,
    ) -> Result<Listening, NotReady> {
        let asked = |cause| NotReady(format!("cannot ask the kernel who listens: {cause}"));
        let backend = match &self.backend {
            Address::Tcp(backend) => *backend,
            Address::Unix(path) => return look_at_socket(path, pids),
        };
        let places = places(backend);
        let mut found = Vec::new();
        for addr in places {
            found.push(socket::listener_at(addr).map_err(asked)?.map(|one| (addr, one)));
        }
        if found.iter().all(Option::is_none) {
            return Err(self.nothing(backend.port(), pids, waited));
        }
        let owns = |one: &Listener| socket::owned_by(one.inode, pids().into_iter());
        let all = socket::all_at(backend.port()).map_err(asked)?;
        let mut stranger = None;
        for (addr, one) in found.into_iter().flatten() {
            let reached = || all.iter().chain([&one]).filter(|other| other.serves(addr.ip()));
            match reached().find(|other| !owns(other)) {
                None => {
                    return Ok(Listening { inode: one.inode, addr: Address::Tcp(addr) });
                }
                Some(other) => stranger = stranger.or(Some(*other)),
            }
        }
        Err(match stranger {
            Some(other) => self.held(&other),
            None => self.nothing(backend.port(), pids, waited),
        })
    }

    fn held(&mut self, stranger: &Listener) -> NotReady {
        let known = self.holder.take().filter(|(inode, _)| *inode == stranger.inode);
        let (_, words) = self.holder.insert(known.unwrap_or_else(|| {
            let words = format!(
                "port {} is held by another process ({})",
                stranger.addr.port(),
                socket::holder_of(stranger)
            );
            (stranger.inode, words)
        }));
        NotReady(words.clone())
    }

    fn nothing<P: IntoIterator<Item = i32>>(
        &mut self,
        port: u16,
        pids: impl Fn() -> P,
        waited: Duration,
    ) -> NotReady {
        if waited >= ELSEWHERE {
            let due = self.elsewhere.is_none_or(|(at, _)| waited >= at + ELSEWHERE);
            if due {
                let own = socket::sockets_of(pids().into_iter());
                self.elsewhere = Some((waited, other_port(&own, port)));
            }
            if let Some((_, Some(other))) = self.elsewhere {
                return NotReady(format!("it listens on {other} instead of the port it was given, {port}"));
            }
        }
        NotReady(format!("it does not listen on port {port} yet"))
    }
}

/// Who listens on a Unix socket is found out by connecting: nothing is sent.
fn look_at_socket<P: IntoIterator<Item = i32>>(
    path: &Arc<Path>,
    pids: impl Fn() -> P,
) -> Result<Listening, NotReady> {
    // Never waiting: one that listens and accepts nobody must not hold us up.
    let told = match socket::reach(path) {
        Ok(stream) => peer::credentials(&stream),
        Err(NotReached::Nobody(_)) => {
            return Err(NotReady(format!("it does not listen on {} yet", path.display())));
        }
        Err(NotReached::Stranger { .. }) => {
            return Err(NotReady(format!("another process listens on {}", path.display())));
        }
    };
    if told.is_ok_and(|told| pids().into_iter().any(|pid| pid == told.pid)) {
        return Ok(Listening { inode: 0, addr: Address::Unix(Arc::clone(path)) });
    }
    Err(NotReady(format!("another process listens on {}", path.display())))
}

/// Where a process told to listen on this port may be: there, or for 127.0.0.1 on `[::1]` too.
fn places(backend: SocketAddr) -> Vec<SocketAddr> {
    let mut places = vec![backend];
    if backend.ip() == IpAddr::from([127, 0, 0, 1]) {
        places.push(SocketAddr::new(Ipv6Addr::LOCALHOST.into(), backend.port()));
    }
    places
}

/// A port other than `given` on which one of these sockets listens.
fn other_port(own: &HashSet<u64>, given: u16) -> Option<u16> {
    let all = socket::everywhere().unwrap_or_default();
    let theirs = all.iter().filter(|one| own.contains(&one.inode));
    theirs.map(|one| one.addr.port()).find(|port| *port != given)
}

/// Sends the probe once. Whether the right process listens is not asked here.
///
/// # Errors
///
/// When it did not answer as the probe demands within `limit`.
pub async fn try_once(probe: &Probe, backend: &Address, path: &str, limit: Duration) -> Result<(), NotReady> {
    let late = || NotReady(format!("it did not answer within {} s", limit.as_secs_f32()));
    match probe {
        Probe::Tcp => Ok(()),
        Probe::Http(path) => {
            let get = plain("GET", path, backend)?;
            let status = async { Ok(exchange(backend, get).await?.0.status()) };
            let status = timeout(limit, status).await.map_err(|_| late())??;
            if status.as_u16() < 400 { Ok(()) } else { Err(answered(status)) }
        }
        Probe::Mcp => {
            let started = clock::now();
            mcp::round_trip((backend, path, None), || limit.saturating_sub(since(started))).await
        }
    }
}

/// Has a round trip at a door, as a user's client would; `authorization` is the value of that header.
///
/// # Errors
///
/// When it does not let us in, or there was no answer within `limit`.
pub async fn as_client(
    door: &Address,
    path: &str,
    authorization: Option<&Secret>,
    limit: Duration,
) -> Result<(), NotReady> {
    let started = clock::now();
    let authorization = authorization.map(|text| HeaderValue::from_str(text.reveal())).transpose();
    let authorization = authorization.map_err(|_| NotReady("its header cannot be sent".to_owned()))?;
    let to = (door, path, authorization.as_ref());
    mcp::round_trip(to, || limit.saturating_sub(since(started))).await
}

fn since(started: Moment) -> Duration {
    clock::now().since(started)
}

fn answered(status: hyper::StatusCode) -> NotReady {
    NotReady(match status.as_u16() {
        code @ (401 | 403) => {
            format!("it answered HTTP {code}; if it wants credentials of its own, set probe = \"tcp\"")
        }
        code => format!("it answered HTTP {code}"),
    })
}

/// A request without a body.
fn plain(method: &str, path: &str, backend: &Address) -> Result<Request<Full<Bytes>>, NotReady> {
    request(method, path, backend, Bytes::new())
}

fn request(
    method: &str,
    path: &str,
    backend: &Address,
    body: Bytes,
) -> Result<Request<Full<Bytes>>, NotReady> {
    let request = Request::builder().method(method).uri(path).header(HOST, backend.host());
    request.body(Full::new(body)).map_err(|cause| NotReady(format!("cannot ask {path}: {cause}")))
}

/// The connection's task: ends with it.
type Link = JoinSet<()>;

/// One request on a connection of its own. The connection lives as long as the second value.
async fn exchange(
    backend: &Address,
    request: Request<Full<Bytes>>,
) -> Result<(Response<Incoming>, Link), NotReady> {
    let refused = |cause| NotReady(format!("it accepts no connection: {cause}"));
    match backend {
        Address::Tcp(addr) => speak(TcpStream::connect(addr).await.map_err(refused)?, request).await,
        // It may be another's since it was looked at.
        Address::Unix(path) => speak(over_unix(path)?, request).await,
    }
}

fn over_unix(path: &Path) -> Result<UnixStream, NotReady> {
    let refused = |cause| NotReady(format!("it accepts no connection: {cause}"));
    match socket::reach(path) {
        Ok(socket) => UnixStream::from_std(socket.into()).map_err(refused),
        Err(NotReached::Nobody(cause)) => Err(refused(cause)),
        Err(NotReached::Stranger { .. }) => {
            Err(NotReady(format!("another process listens on {}", path.display())))
        }
    }
}

async fn speak<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(
    stream: S,
    request: Request<Full<Bytes>>,
) -> Result<(Response<Incoming>, Link), NotReady> {
    let silent = |_: hyper::Error| NotReady("it closed the connection without an answer".into());
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(MAX_ANSWER)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(silent)?;
    let mut link = Link::new();
    link.spawn(async {
        // What went wrong on the connection is the answer's error, which the caller gets.
        drop(connection.await);
    });
    let response = sender.send_request(request).await.map_err(silent)?;
    Ok((response, link))
}

/// The next piece of a body; `None` at its end or when it breaks.
async fn next(body: &mut Incoming) -> Option<Bytes> {
    loop {
        match body.frame().await?.ok()?.into_data() {
            Ok(data) => return Some(data),
            Err(_trailers) => {}
        }
    }
}

fn is_type(response: &Response<Incoming>, wanted: &str) -> bool {
    let value = response.headers().get(CONTENT_TYPE).and_then(|value: &HeaderValue| value.to_str().ok());
    value.is_some_and(|value| {
        value.trim_start().get(..wanted.len()).is_some_and(|start| start.eq_ignore_ascii_case(wanted))
    })
}

#[cfg(test)]
mod tests;
