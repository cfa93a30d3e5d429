//! Bodies on their way through a door: passed on piece by piece, never collected.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::Instant;

use super::alarm::Alarm;
use super::answer::Refusal;
use super::bridge::Events;
use super::proxy::Passed;

/// What became of a request's body.
#[derive(Debug, Default)]
pub(super) struct Fate {
    open: AtomicBool,
    too_large: AtomicBool,
    slow: AtomicBool,
}

impl Fate {
    /// True while somebody may still read from the body.
    pub(super) fn is_open(&self) -> bool {
        self.open.load(Relaxed)
    }

    /// Why the door itself cut the body, if it did.
    pub(super) fn refusal(&self) -> Option<Refusal> {
        if self.too_large.load(Relaxed) {
            Some(Refusal::TooLarge)
        } else if self.slow.load(Relaxed) {
            Some(Refusal::Slow)
        } else {
            None
        }
    }
}

/// Why a request's body ended early; whoever sends it cuts the connection to the process.
#[derive(Debug, thiserror::Error)]
pub(super) enum Cut {
    #[error("the request body is too large")]
    TooLarge,
    #[error("the request body stopped coming")]
    Slow,
    #[error("cannot read the request body")]
    Client(#[source] hyper::Error),
}

/// A request's body: bounded in size, and in the silence between two pieces.
pub(super) struct Upload {
    body: Incoming,
    left: u64,
    patience: Duration,
    alarm: Alarm,
    /// When the client, who keeps us waiting, was silent for too long.
    silent_at: Option<Instant>,
    fate: Arc<Fate>,
}

impl Upload {
    /// `alarm`: of the task that reads it.
    pub(super) fn new(body: Incoming, most: u64, patience: Duration, alarm: Alarm, fate: Arc<Fate>) -> Self {
        fate.open.store(true, Relaxed);
        fate.too_large.store(false, Relaxed);
        fate.slow.store(false, Relaxed);
        Self { body, left: most, patience, alarm, silent_at: None, fate }
    }

    /// Reads what is left and keeps nothing of it.
    pub(super) async fn skip(&mut self) {
        while let Some(Ok(_)) = std::future::poll_fn(|cx| Pin::new(&mut *self).poll_frame(cx)).await {}
    }

    fn is_silent(&mut self, cx: &mut Context<'_>) -> bool {
        let patience = self.patience;
        let end = *self.silent_at.get_or_insert_with(|| Instant::now() + patience);
        self.alarm.poll(end, cx).is_ready()
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        self.fate.open.store(false, Relaxed);
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        let this = &mut *self;
        let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(cx) else {
            if this.is_silent(cx) {
                this.fate.slow.store(true, Relaxed);
                return Poll::Ready(Some(Err(Cut::Slow)));
            }
            return Poll::Pending;
        };
        this.silent_at = None;
        let Some(frame) = frame else {
            return Poll::Ready(None);
        };
        let frame = frame.map_err(Cut::Client)?;
        let length = frame.data_ref().map_or(0, |data| data.remaining() as u64);
        let Some(left) = this.left.checked_sub(length) else {
            this.fate.too_large.store(true, Relaxed);
            return Poll::Ready(Some(Err(Cut::TooLarge)));
        };
        this.left = left;
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// An answer's body.
pub(super) enum Reply {
    /// The door's own.
    Own(Option<Bytes>),
    /// The process's.
    Passed(Passed),
    /// What a bridge says, as it comes.
    Events(Events),
}

impl Reply {
    pub(super) fn own(bytes: Bytes) -> Self {
        Self::Own(Some(bytes))
    }
}

impl Body for Reply {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match &mut *self {
            Self::Own(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Passed(passed) => passed.poll_part(cx),
            Self::Events(events) => events.poll_part(cx).map(|part| part.map(Ok)),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Own(bytes) => bytes.is_none(),
            Self::Passed(passed) => passed.is_end(),
            Self::Events(events) => events.is_end(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Own(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64)),
            Self::Passed(passed) => passed.size(),
            Self::Events(_) => SizeHint::default(),
        }
    }
}
