//! How much waits for clients, at most.

use std::time::Duration;

/// Bytes of a session that wait to be taken; one message may be longer than all of it. Beyond this
/// what comes is dropped, but for answers, which become [`TOO_MUCH`].
pub(super) const MAX_HELD: usize = 1 << 20;
/// The same for answers on a stream that somebody reads: a slow reader of large results.
pub(super) const MAX_HELD_ANSWERS: usize = 32 << 20;
/// Bytes that wait for all clients together, and that were taken and did not reach them yet; one message may
/// be longer than all of it. Beyond this the same happens, but to answers up to [`SMALL`].
pub(super) const MAX_ALL: usize = 64 << 20;
/// Clients who read slowly cost others only answers longer than this.
pub(super) const SMALL: usize = 4 << 10;
/// Bytes of a session that were taken and are kept for a client that comes back.
pub(super) const MAX_KEPT: usize = 32 << 10;
/// Streams of a session that nobody reads; the oldest goes first.
pub(super) const MAX_ENDED: usize = 64;
/// Messages, and bytes of them, for a session that listens to nothing at the moment; the oldest go first.
pub(super) const MAX_BACKLOG: usize = 64;
pub(super) const MAX_BACKLOG_BYTES: usize = 64 << 10;
/// How long an answer waits for a client whose connection broke.
pub(super) const DETACHED: Duration = Duration::from_secs(300);
/// Says that an answer was there and is not any more.
pub(super) const TOO_MUCH: &str = "the answer was dropped: too much waits for this client";
/// Requests of our own that a process has not answered: it may never answer those on which nothing hangs, and
/// clients make us send them.
pub(super) const MAX_OWN: usize = 1024;
