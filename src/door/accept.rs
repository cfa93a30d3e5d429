//! The accept loop of one door, and how a connection ends.
//!
//! A connection beyond the limit is answered 503 and closed, not left in the kernel's queue: its
//! client then knows what is wrong instead of hanging. While the daemon is out of descriptors,
//! clients do wait in that queue.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Sleep, sleep};
use tracing::{debug, warn};

use super::{Frame, answer, guest};

/// How long to leave the kernel's queue alone when a connection cannot be taken from it.
const BACK_OFF: Duration = Duration::from_millis(100);
/// Connections that are being told that there are too many; one more is closed without a word.
const TURNED_AWAY: usize = 16;
/// How long, and up to how many bytes, a client that is still sending is listened to so that it
/// can read our last answer: closing earlier resets the connection under it (RFC 9112 §9.6).
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 1024 * 1024;

/// Serves the listener for ever; dropping the future closes it and every connection.
pub(super) async fn accept(listener: TcpListener, frame: Arc<Frame>) {
    let mut guests = Guests(None);
    let mut turned_away = Guests(None);
    let mut failing = false;
    loop {
        let accepted = poll_fn(|cx| {
            // Ended connections make room before the next one is judged.
            guests.let_go(cx);
            turned_away.let_go(cx);
            listener.poll_accept(cx)
        });
        match accepted.await {
            Ok((stream, _)) => {
                failing = false;
                let settings = frame.settings.borrow().clone();
                let most = usize::try_from(settings.limits.max_connections).unwrap_or(usize::MAX);
                if guests.len() < most {
                    guests.spawn(guest::serve(Lingering::new(stream), frame.clone(), settings));
                } else if turned_away.len() < TURNED_AWAY {
                    turned_away.spawn(turn_away(Lingering::new(stream)));
                }
            }
            // The client was gone before we came.
            Err(cause) if cause.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(cause) => {
                if !failing {
                    let instance = &frame.instance;
                    warn!(user = %instance.user, server = %instance.server, %cause, "cannot accept a connection");
                }
                failing = true;
                // Boxed: an idle door should not carry the room for it.
                Box::pin(sleep(BACK_OFF)).await;
            }
        }
    }
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
