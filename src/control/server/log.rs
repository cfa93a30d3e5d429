//! Streams a log to whoever asked for it, for as long as they listen.
//!
//! Finding lines and surviving rotations is [`Tail`]'s; here is only when to read again.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame};
use tokio::sync::mpsc;

use super::Ears;
use crate::control::protocol::{LogHandle, Peer, Reply, Request, Target};
use crate::system::tail::Tail;

/// Pieces of a log on their way to a caller who reads slowly, 64 KiB each.
pub(super) const PIECES_AHEAD: usize = 4;

/// Who listens to a log.
pub(super) struct Listener {
    pub(super) ears: Ears,
    pub(super) peer: Peer,
    pub(super) target: Target,
    pub(super) follow: bool,
    pub(super) handle: LogHandle,
}

/// Does something that the disk may delay, beside the loop.
pub(super) async fn deed<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(io::Error::other(error)))
}

/// A body that comes in pieces, and breaks off with an error if one cannot be read.
pub(super) struct Pieces(pub(super) mpsc::Receiver<io::Result<Bytes>>);

impl Body for Pieces {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        self.0.poll_recv(context).map(|piece| piece.map(|piece| piece.map(Frame::data)))
    }
}

impl Listener {
    /// Sends a log's pieces until its end, or for as long as somebody listens.
    pub(super) async fn stream(mut self, mut tail: Tail, pieces: mpsc::Sender<io::Result<Bytes>>) {
        loop {
            // Before the reading, so that what is written after it rings again.
            if let Some(bell) = &mut self.handle.written {
                bell.mark_unchanged();
            }
            loop {
                let piece = match deed(move || tail.read().map(|piece| (tail, piece))).await {
                    Ok((same, piece)) => {
                        tail = same;
                        piece
                    }
                    Err(error) => {
                        // The answer breaks off, so that it is not taken for the whole log.
                        drop(pieces.send(Err(error)).await);
                        return;
                    }
                };
                let Some(piece) = piece else { break };
                if pieces.send(Ok(piece.into())).await.is_err() {
                    return;
                }
            }
            if !self.follow {
                return;
            }
            tokio::select! {
                () = pieces.closed() => return,
                goes_on = self.more() => if !goes_on { return },
            }
        }
    }

    /// Waits until something may have been written; false if nothing will be.
    async fn more(&mut self) -> bool {
        if let Some(bell) = &mut self.handle.written
            && bell.changed().await.is_ok()
        {
            return true;
        }
        // Nobody has written since the daemon started, or whoever did has ended: the next run
        // changes the generation, and may have a bell.
        if self.ears.generation.changed().await.is_err() {
            return false;
        }
        match self.ears.ask(self.peer, Request::Logs(self.target.clone())).await {
            Ok(Reply::Log(handle)) => {
                self.handle = handle;
                true
            }
            Ok(
                Reply::Status(_) | Reply::Accepted(_) | Reply::Ports(_) | Reply::Passage(_) | Reply::Token(_),
            )
            | Err(_) => false,
        }
    }
}
