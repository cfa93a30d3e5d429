//! One connection from a door to the process behind it.
//!
//! A port number says nothing about who answers there. Before a byte is sent over a new connection
//! the kernel is asked twice whose socket listens: before connecting, so that a stranger sees no
//! connection, and after it, so that nobody slipped in between. A kept connection needs no
//! question: its other end cannot change.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{HOST, HeaderValue};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::AbortHandle;
use tracing::{debug, warn};

use super::{Frame, Upload, Upstream};
use crate::model::{Moment, RunId};
use crate::system::clock;
use crate::system::peer;
use crate::system::socket::{self, Address, Listener, NotReached};

/// How long an unused connection may be used again. Servers close theirs after some seconds
/// without a request (gunicorn 2, Node and uvicorn 5), and a request that crosses that closing is
/// lost; connecting anew costs a fraction of a millisecond.
const FRESH: Duration = Duration::from_secs(1);
/// The largest answer head, and the most that is read from a process at once.
const BUFFER: usize = 64 * 1024;

/// Why there is no connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoLink {
    /// Nobody listens, or nobody accepts.
    Down,
    /// Somebody listens who is not the run.
    Stranger,
}

/// Why there is no answer.
#[expect(clippy::large_enum_variant, reason = "moved once, and a box would be for nothing")]
pub(super) enum NoAnswer {
    /// Nothing of the request was sent: here it is.
    Unsent(Request<Upload>),
    /// Some of it may have arrived.
    Broken(hyper::Error),
}

/// A connection to one run's process; closed when dropped.
pub(super) struct Link {
    run: RunId,
    sender: SendRequest<Upload>,
    connection: AbortHandle,
    host: HeaderValue,
    used: Moment,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Link {
    /// Connects to the run's process, and to nobody else.
    pub(super) async fn open(frame: &Frame, upstream: &Upstream) -> Result<Self, NoLink> {
        let (sender, connection) = match &upstream.addr {
            Address::Tcp(addr) => speak(over_tcp(frame, upstream, *addr).await?).await?,
            Address::Unix(path) => speak(over_unix(frame, upstream, path)?).await?,
        };
        let host = HeaderValue::try_from(upstream.addr.host());
        let host = host.map_err(|cause| down(&io::Error::other(cause)))?;
        Ok(Self { run: upstream.run, sender, connection, host, used: clock::now() })
    }

    /// True if it leads to this run and may be used for another request.
    pub(super) fn serves(&self, run: RunId) -> bool {
        self.run == run && !self.sender.is_closed() && clock::now().since(self.used) < FRESH
    }

    /// Notes that an answer has just ended.
    pub(super) fn rest(&mut self) {
        self.used = clock::now();
    }

    /// Sends a request and waits for the head of its answer, however long that takes.
    pub(super) async fn send(
        &mut self,
        mut request: Request<Upload>,
    ) -> Result<Response<Incoming>, NoAnswer> {
        if self.sender.ready().await.is_err() {
            return Err(NoAnswer::Unsent(request));
        }
        request.headers_mut().insert(HOST, self.host.clone());
        match self.sender.try_send_request(request).await {
            Ok(response) => Ok(response),
            Err(mut lost) => Err(match lost.take_message() {
                Some(request) => NoAnswer::Unsent(request),
                None => NoAnswer::Broken(lost.into_error()),
            }),
        }
    }
}

async fn over_tcp(frame: &Frame, upstream: &Upstream, addr: SocketAddr) -> Result<TcpStream, NoLink> {
    let before = socket::listener_at(addr).map_err(|cause| down(&cause))?.ok_or(NoLink::Down)?;
    check(frame, upstream, &before)?;
    let stream = TcpStream::connect(addr).await.map_err(|cause| down(&cause))?;
    check_all(frame, upstream, addr)?;
    stream.set_nodelay(true).map_err(|cause| down(&cause))?;
    Ok(stream)
}

/// The kernel says of the connection itself who had its other end listen (`SO_PEERCRED`).
fn over_unix(frame: &Frame, upstream: &Upstream, path: &Path) -> Result<UnixStream, NoLink> {
    let (key, holder) = match socket::reach(path) {
        Ok(socket) => {
            let told = peer::credentials(&socket).map_err(|cause| down(&cause))?;
            if Frame::knows_process(upstream, told.pid) {
                return UnixStream::from_std(socket.into()).map_err(|cause| down(&cause));
            }
            (u64::from(told.pid.unsigned_abs()), format!("uid {}, pid {}", told.uid, told.pid))
        }
        Err(NotReached::Stranger { inode, whose }) => (inode, whose),
        Err(NotReached::Nobody(cause)) => return Err(down(&cause)),
    };
    if frame.is_news(key) {
        let instance = &frame.instance;
        warn!(
            user = %instance.user, server = %instance.server, run = %upstream.run,
            socket = %upstream.addr, holder,
            "another process listens on the run's socket; nothing is sent to it"
        );
    }
    Err(NoLink::Stranger)
}

async fn speak<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(
    stream: S,
) -> Result<(SendRequest<Upload>, AbortHandle), NoLink> {
    let handshake = http1::Builder::new().max_buf_size(BUFFER).handshake(TokioIo::new(stream)).await;
    let (sender, connection) = handshake.map_err(|cause| down(&io::Error::other(cause)))?;
    let task = tokio::spawn(async move {
        if let Err(cause) = connection.await {
            debug!(%cause, "connection to a process ended");
        }
    });
    Ok((sender, task.abort_handle()))
}

fn down(cause: &io::Error) -> NoLink {
    debug!(%cause, "cannot connect to the process");
    NoLink::Down
}

/// Everybody who could have taken a connection to the run's address has to be the run.
fn check_all(frame: &Frame, upstream: &Upstream, addr: SocketAddr) -> Result<(), NoLink> {
    let all = socket::all_at(addr.port()).map_err(|cause| down(&cause))?;
    let mut reached = all.iter().filter(|one| one.serves(addr.ip())).peekable();
    // Closed meanwhile: then it cannot be said who took the connection.
    reached.peek().ok_or(NoLink::Down)?;
    reached.try_for_each(|one| check(frame, upstream, one))
}

fn check(frame: &Frame, upstream: &Upstream, listener: &Listener) -> Result<(), NoLink> {
    if frame.knows(upstream, listener.inode) {
        return Ok(());
    }
    if frame.is_news(listener.inode) {
        let (instance, holder) = (&frame.instance, socket::holder_of(listener));
        warn!(
            user = %instance.user, server = %instance.server, run = %upstream.run,
            address = %upstream.addr, %holder,
            "another process listens on the backend port; nothing is sent to it"
        );
    }
    Err(NoLink::Stranger)
}
