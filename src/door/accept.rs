//! The accept loop of one door, and how a connection ends.
//!
//! A connection beyond the limit is answered 503 and closed, not left in the kernel's queue: its
//! client then knows what is wrong instead of hanging. While the daemon is out of descriptors,
//! clients do wait in that queue.

use std::io;
use std::net::TcpListener;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Sleep, sleep};
use tracing::{debug, warn};

use super::{Frame, answer, guest};
use crate::system::ready::Awaited;

/// How long to leave the kernel's queue alone when a connection cannot be taken from it.
const BACK_OFF: Duration = Duration::from_millis(100);
/// Connections that are being told that there are too many; one more is closed without a word.
const TURNED_AWAY: usize = 16;
/// How long, and up to how many bytes, a client that is still sending is listened to so that it
/// can read our last answer: closing earlier resets the connection under it (RFC 9112 §9.6).
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 1024 * 1024;

/// Serves the listener for ever; dropping it closes it and every connection.
///
/// Written by hand: there is one for every instance and nearly all are idle, and what the compiler
/// makes of an `async fn` is more than twice as large.
pub(super) struct Accept {
    listener: Awaited<TcpListener>,
    frame: Arc<Frame>,
    guests: Guests,
    turned_away: Guests,
    failing: bool,
    /// Not yet, after a connection could not be taken. Boxed: an idle door should not carry it.
    not_before: Option<Pin<Box<Sleep>>>,
}

impl Accept {
    pub(super) fn new(listener: Awaited<TcpListener>, frame: Arc<Frame>) -> Self {
        let (guests, turned_away) = (Guests(None), Guests(None));
        Self { listener, frame, guests, turned_away, failing: false, not_before: None }
    }

    fn take_in(&mut self, stream: TcpStream) {
        self.failing = false;
        let settings = self.frame.settings.borrow().clone();
        let most = usize::try_from(settings.limits.max_connections).unwrap_or(usize::MAX);
        if self.guests.len() < most {
            self.guests.spawn(guest::serve(Lingering::new(stream), self.frame.clone(), settings));
        } else if self.turned_away.len() < TURNED_AWAY {
            self.turned_away.spawn(turn_away(Lingering::new(stream)));
        }
    }

    fn back_off(&mut self, cause: &io::Error) {
        if !self.failing {
            let instance = &self.frame.instance;
            warn!(user = %instance.user, server = %instance.server, %cause, "cannot accept a connection");
        }
        self.failing = true;
        self.not_before = Some(Box::pin(sleep(BACK_OFF)));
    }
}

impl Future for Accept {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        loop {
            if let Some(not_before) = &mut this.not_before {
                ready!(not_before.as_mut().poll(cx));
                this.not_before = None;
            }
            // Ended connections make room before the next one is judged.
            this.guests.let_go(cx);
            this.turned_away.let_go(cx);
            match ready!(this.listener.poll_with(cx, accept)) {
                Ok(stream) => this.take_in(stream),
                // The client was gone before we came.
                Err(cause) if cause.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(cause) => this.back_off(&cause),
            }
        }
    }
}

fn accept(listener: &TcpListener) -> io::Result<TcpStream> {
    let (stream, _) = listener.accept()?;
    stream.set_nonblocking(true)?;
    TcpStream::from_std(stream)
}

/// The tasks of connections. Made with the first of them: most doors are idle.
struct Guests(Option<Box<JoinSet<()>>>);

impl Guests {
    fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |tasks| tasks.len())
    }

    fn spawn(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        self.0.get_or_insert_default().spawn(task);
    }

    /// Forgets those that have ended, and wakes the caller when another does.
    fn let_go(&mut self, cx: &mut Context<'_>) {
        while let Some(tasks) = &mut self.0 {
            match tasks.poll_join_next(cx) {
                Poll::Ready(Some(_ended)) => {}
                Poll::Ready(None) => self.0 = None,
                Poll::Pending => return,
            }
        }
    }
}

async fn turn_away(mut client: Lingering) {
    let outcome = match client.write_all(answer::TOO_MANY).await {
        Ok(()) => client.shutdown().await,
        Err(cause) => Err(cause),
    };
    if let Err(cause) = outcome {
        debug!(%cause, "a client did not wait for its answer");
    }
}

/// A client's connection that is not closed under a client that is still sending.
pub(super) struct Lingering {
    stream: TcpStream,
    /// Set when we have said all we will say.
    closing: Option<Pin<Box<Sleep>>>,
    left: usize,
}

impl Lingering {
    fn new(stream: TcpStream) -> Self {
        Self { stream, closing: None, left: LINGER_BYTES }
    }

    /// Small answers go out at once (32 times faster calls, measured with a server that did not).
    pub(super) fn hurry(&self) -> io::Result<()> {
        self.stream.set_nodelay(true)
    }
}

impl AsyncRead for Lingering {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Lingering {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.closing.is_none() {
            ready!(Pin::new(&mut this.stream).poll_shutdown(cx))?;
        }
        let until = this.closing.get_or_insert_with(|| Box::pin(sleep(LINGER)));
        let mut bytes = [0; 8192];
        loop {
            if this.left == 0 || until.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Ok(()));
            }
            let mut buf = ReadBuf::new(&mut bytes);
            ready!(Pin::new(&mut this.stream).poll_read(cx, &mut buf))?;
            if buf.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
            this.left = this.left.saturating_sub(buf.filled().len());
        }
    }
}
