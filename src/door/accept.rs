//! The accept loop of one door, and how a connection ends.
//!
//! A connection beyond the limit is answered 503 and closed, not left in the kernel's queue: its
//! client then knows what is wrong instead of hanging. While the daemon is out of descriptors,
//! clients do wait in that queue.
//!
//! Whose a connection is, is asked as soon as it is taken, once; what follows from it is decided
//! with each request. Where a door has an owner, connections that are not theirs get half of its
//! room at most: nobody can keep the owner out by filling it. Whoever has not shown yet that they may
//! pass has a place in the [`lobby`](super::lobby) of all doors, or is closed at once.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::task::JoinSet;
use tokio::time::{Sleep, sleep};
use tracing::{debug, warn};

use super::stream::{Lingering, Listener, Stream};
use super::{Frame, answer, guest};
use crate::model::config::Access;

/// How long to leave the kernel's queue alone when a connection cannot be taken from it.
const BACK_OFF: Duration = Duration::from_millis(100);
/// Connections that are being told that there are too many; one more is closed without a word.
const TURNED_AWAY: usize = 16;

/// Serves the listener for ever; dropping it closes it and every connection.
///
/// Written by hand: there is one for every instance and nearly all are idle, and what the compiler
/// makes of an `async fn` is more than twice as large.
pub(super) struct Accept {
    listener: Listener,
    frame: Arc<Frame>,
    guests: Guests,
    /// Those whose connection does not say that they may come in.
    strangers: Guests,
    turned_away: Guests,
    failing: bool,
    /// Not yet, after a connection could not be taken. Boxed: an idle door should not carry it.
    not_before: Option<Pin<Box<Sleep>>>,
}

impl Accept {
    pub(super) fn new(listener: Listener, frame: Arc<Frame>) -> Self {
        let [guests, strangers, turned_away] = [const { Guests(None) }; 3];
        Self { listener, frame, guests, strangers, turned_away, failing: false, not_before: None }
    }

    fn take_in(&mut self, stream: Stream) {
        self.failing = false;
        let settings = self.frame.settings.borrow().clone();
        let most = usize::try_from(settings.limits.max_connections).unwrap_or(usize::MAX);
        let guard = self.frame.gate().guard;
        let peer = if guard.access == Access::Open { None } else { stream.peer() };
        let is_known = guard.knows(peer);
        let is_stranger = guard.asks_uid() && !is_known;
        let waiting = if is_known { None } else { self.frame.house.lobby.enter(peer) };
        if !is_known && waiting.is_none() {
            // Said as far as it goes at once: to wait for who reads it slowly is what there is no room for.
            if let Err(cause) = stream.write_at_once(answer::TOO_MANY) {
                debug!(%cause, "a client did not wait for its answer");
            }
            return self.frame.tell_denied(peer, "too many connections without a token");
        }
        let is_room = self.guests.len() + self.strangers.len() < most
            && !(is_stranger && self.strangers.len() >= most.div_ceil(2));
        let stream = Lingering::new(stream);
        if is_room {
            let guests = if is_stranger { &mut self.strangers } else { &mut self.guests };
            guests.spawn(guest::serve(stream, self.frame.clone(), settings, peer, waiting));
        } else if self.turned_away.len() < TURNED_AWAY {
            self.turned_away.spawn(turn_away(stream));
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
            this.strangers.let_go(cx);
            this.turned_away.let_go(cx);
            match ready!(this.listener.poll_accept(cx)) {
                Ok(stream) => this.take_in(stream),
                // The client was gone before we came.
                Err(cause) if cause.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(cause) => this.back_off(&cause),
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
