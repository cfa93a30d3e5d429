//! Waiting for a process to die, by its pidfd.
//!
//! tokio can wait for a descriptor that is not a socket or a pipe only through a call that its
//! caller must vouch for; this module is the fence around it.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A process whose death is waited for.
#[derive(Debug)]
pub(super) struct Death(AsyncFd<Arc<OwnedFd>>);

impl Death {
    /// Of the process that this is a pidfd of. Must be called on a runtime.
    ///
    /// # Errors
    ///
    /// When the descriptor cannot be waited for.
    pub(super) fn of(pidfd: Arc<OwnedFd>) -> io::Result<Self> {
        register(pidfd).map(Self)
    }

    /// Ready when the process is dead; its pidfd is readable then (`pidfd_open(2)`). For one task
    /// at a time, as polling is; so it needs no room of its own in that task.
    pub(super) fn poll(&self, cx: &mut Context<'_>) -> Poll<()> {
        // An error says that the runtime ends: nobody waits for anything then.
        self.0.poll_read_ready(cx).map(drop)
    }
}

#[expect(
    unsafe_code,
    reason = "tokio's only way to wait for a pidfd; the type below keeps the promise it asks for"
)]
fn register(pidfd: Arc<OwnedFd>) -> io::Result<AsyncFd<Arc<OwnedFd>>> {
    // SAFETY: an OwnedFd is a valid, open descriptor until it is dropped and never changes its
    // number; the Arc inside the AsyncFd keeps it from being dropped before.
    unsafe { AsyncFd::register_with_interest(pidfd, Interest::READABLE) }.map_err(io::Error::from)
}
