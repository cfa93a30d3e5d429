//! Taking connections at one door, and how a connection ends.
//!
//! A door that nobody is at has no task: [`Post`] is what the set of descriptors wakes when somebody
//! comes, and the task that takes them in ends with the last of them. Nearly all doors are idle, and a
//! task each would be the larger part of them.
//!
//! A connection beyond the limit is answered 503 and closed, not left in the kernel's queue: its
//! client then knows what is wrong instead of hanging. While the daemon is out of descriptors,
//! clients do wait in that queue.
//!
//! Whose a connection is, is asked as soon as it is taken, once; what follows from it is decided
//! with each request. Where a door has an owner, connections that are not theirs get half of its
//! room at most: nobody can keep the owner out by filling it. Nor do those who have not shown yet that
//! they may pass get more, at any door; each of them has a place in the [`lobby`](super::lobby) of all
//! doors until it is given to another.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker, ready};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Sleep, sleep};
use tracing::{debug, warn};

use super::stream::{Lingering, Listener, Stream};
use super::{Frame, answer, guest};
use crate::model::config::Access;

/// How long to leave the kernel's queue alone when a connection cannot be taken from it.
const BACK_OFF: Duration = Duration::from_millis(100);
/// So many are taken in before others have their turn: who has to go can only go then.
const AT_ONCE: usize = 32;
/// Connections that are being told that there are too many; one more is closed without a word.
const TURNED_AWAY: usize = 16;

/// One listening socket of a door. To be [closed](Self::close) before it is dropped.
pub(super) struct Post {
    frame: Arc<Frame>,
    watch: Mutex<Watch>,
}

struct Watch {
    /// `None` once it is closed.
    listener: Option<Listener>,
    /// What serves those who are there, while somebody is.
    task: Option<AbortHandle>,
}

impl Post {
    /// Serves the listener until it is closed; must be called on a tokio runtime.
    pub(super) fn open(listener: Listener, frame: Arc<Frame>) -> Arc<Self> {
        let watch = Mutex::new(Watch { listener: Some(listener), task: None });
        let post = Arc::new(Self { frame, watch });
        if !post.watch().leave(&post) {
            post.clone().wake();
        }
        post
    }

    /// Closes the listener, and every connection that came in by it.
    pub(super) fn close(&self) {
        let (listener, task) = {
            let mut watch = self.watch();
            (watch.listener.take(), watch.task.take())
        };
        drop(listener);
        if let Some(task) = task {
            task.abort();
        }
    }

    /// True if there is a task for those who are here.
    #[cfg(test)]
    pub(super) fn is_attended(&self) -> bool {
        self.watch().task.is_some()
    }

    fn watch(&self) -> MutexGuard<'_, Watch> {
        self.watch.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wake for Post {
    /// Somebody is at the door.
    fn wake(self: Arc<Self>) {
        let mut watch = self.watch();
        if watch.task.is_none() && watch.listener.is_some() {
            watch.task = Some(tokio::spawn(Accept::new(self.clone())).abort_handle());
        }
    }
}

impl Watch {
    /// The next connection; pending for ever once the listener is closed.
    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<Stream>> {
        self.listener.as_ref().map_or(Poll::Pending, |listener| listener.poll_accept(cx))
    }

    /// Has `post` woken when somebody comes; false if somebody may be there already.
    fn leave(&mut self, post: &Arc<Post>) -> bool {
        let waker = Waker::from(post.clone());
        let is_left = self
            .listener
            .as_ref()
            .is_none_or(|listener| listener.poll(&mut Context::from_waker(&waker)).is_pending());
        if is_left {
            self.task = None;
        }
        is_left
    }
}

/// Serves those who come, until nobody is there; dropping it closes every connection.
struct Accept {
    post: Arc<Post>,
    guests: JoinSet<()>,
    /// Those whose connection does not say that they may come in.
    strangers: JoinSet<()>,
    turned_away: JoinSet<()>,
    failing: bool,
    /// Not yet, after a connection could not be taken.
    not_before: Option<Pin<Box<Sleep>>>,
}

impl Accept {
    fn new(post: Arc<Post>) -> Self {
        let [guests, strangers, turned_away] = std::array::from_fn(|_| JoinSet::new());
        Self { post, guests, strangers, turned_away, failing: false, not_before: None }
    }

    fn take_in(&mut self, stream: Stream) {
        self.failing = false;
        let frame = &self.post.frame;
        let settings = frame.settings.borrow().clone();
        let most = usize::try_from(settings.limits.max_connections).unwrap_or(usize::MAX);
        let guard = frame.gate().guard;
        let peer = if guard.access == Access::Open { None } else { stream.peer() };
        let is_known = guard.knows(peer);
        let is_stranger = guard.asks_uid() && !is_known;
        let half = most.div_ceil(2);
        let (lobby, door) = (&frame.house.lobby, std::ptr::from_ref(&**frame).addr());
        let waiting = (!is_known).then(|| lobby.enter(peer, door, half));
        // Whose place was given away goes before anything is read for the next.
        let leaving = lobby.leaving(door);
        let strangers = self.strangers.len().saturating_sub(leaving);
        let here = (self.guests.len() + self.strangers.len()).saturating_sub(leaving);
        let is_room = here < most && !(is_stranger && strangers >= half);
        let stream = Lingering::new(stream);
        if is_room {
            let guests = if is_stranger { &mut self.strangers } else { &mut self.guests };
            guests.spawn(guest::serve(stream, frame.clone(), settings, peer, waiting));
        } else if self.turned_away.len() < TURNED_AWAY {
            self.turned_away.spawn(turn_away(stream));
        }
    }

    fn back_off(&mut self, cause: &io::Error) {
        if !self.failing {
            let instance = &self.post.frame.instance;
            warn!(user = %instance.user, server = %instance.server, %cause, "cannot accept a connection");
        }
        self.failing = true;
        self.not_before = Some(Box::pin(sleep(BACK_OFF)));
    }

    /// Forgets connections that have ended, and wakes the caller when another does; true if there are
    /// none.
    fn let_go(&mut self, cx: &mut Context<'_>) -> bool {
        let mut is_empty = true;
        for tasks in [&mut self.guests, &mut self.strangers, &mut self.turned_away] {
            while let Poll::Ready(Some(_ended)) = tasks.poll_join_next(cx) {}
            is_empty &= tasks.is_empty();
        }
        is_empty
    }
}

impl Future for Accept {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        for _ in 0..AT_ONCE {
            if let Some(not_before) = &mut this.not_before {
                ready!(not_before.as_mut().poll(cx));
                this.not_before = None;
            }
            // Ended connections make room before the next one is judged.
            let is_empty = this.let_go(cx);
            let found = this.post.watch().poll_accept(cx);
            match found {
                Poll::Ready(Ok(stream)) => this.take_in(stream),
                // The client was gone before we came.
                Poll::Ready(Err(cause)) if cause.kind() == io::ErrorKind::ConnectionAborted => {}
                Poll::Ready(Err(cause)) => this.back_off(&cause),
                Poll::Pending if !is_empty => return Poll::Pending,
                Poll::Pending => {
                    if this.post.watch().leave(&this.post) {
                        return Poll::Ready(());
                    }
                    // It was the turn of others, or somebody has come just now.
                    break;
                }
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
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
