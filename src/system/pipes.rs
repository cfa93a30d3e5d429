//! The lines of a stdio run: what its process says, and what is said to it.
//!
//! Both ends of each FIFO are held by the process itself, so it outlives the daemon; the next one
//! opens them by name and goes on. What may have been cut by a daemon's death is known as such:
//!
//! * the first line that is read may have lost its beginning (`is_whole`);
//! * a message that is too long for one write (`PIPE_BUF`, pipe(7)) stands in a marker file of the
//!   run's directory while it is partly written; the next daemon ends that line before it says
//!   anything else.
//!
//! A line that is longer than allowed is not kept: whoever listens is told how it began and ended.
//! A process that does not read is written to up to [`QUEUE`] bytes and one message more; then
//! [`Wire::send`] takes nothing, and whoever speaks has to wait. An idle run has no buffer and no
//! timer here, and nothing waits for its standard input to be writable.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::net::unix::pipe::Sender;
use tokio::sync::Notify;

use super::account;
use super::clock;
use super::ready::Awaited;
use super::record::RunDir;

/// What is kept of messages that the process does not read, in bytes; and one message more.
pub const QUEUE: usize = 1 << 20;

/// A write of so many bytes is whole or does not happen (`PIPE_BUF` on Linux).
const WHOLE: usize = 4096;

/// How long lines are passed on before others have their turn. One read holds up to 32768 of them,
/// and everybody waits while they are passed on.
const TURN: Duration = Duration::from_millis(1);

/// How much is kept of either end of a line that is too long.
const SHOWN: usize = 256;

/// Whoever speaks with the process of a stdio run. It is told in the order things happen, by one
/// task per run.
pub trait Talk: Send + Sync {
    /// The process is there, and hears what is sent on `wire`.
    fn begin(&self, wire: Arc<Wire>);
    /// The longest line that is wanted, in bytes.
    fn longest(&self) -> usize;
    /// One line, without its end. False if it is no message.
    fn line(&self, line: &[u8]) -> bool;
    /// A line that was longer than [`Talk::longest`]: how it began and how it ended.
    fn too_long(&self, head: &[u8], tail: &[u8]);
    /// The process has ended, and all its lines were taken.
    fn end(&self);
}

/// Opens a FIFO of ours, for reading or for writing, without waiting for anybody.
pub(super) fn open(path: &Path, writes: bool) -> io::Result<File> {
    let flags = nix::libc::O_NONBLOCK | nix::libc::O_NOFOLLOW;
    let file = OpenOptions::new().read(!writes).write(writes).custom_flags(flags).open(path)?;
    let meta = file.metadata()?;
    if !meta.file_type().is_fifo() || meta.uid() != account::own_uid() {
        return Err(io::Error::other("it is not a FIFO of ours"));
    }
    Ok(file)
}

/// What a line that was read turned out to be.
#[derive(Debug, PartialEq, Eq)]
enum Line<'a> {
    /// One line without its end. If it is not whole, it may have lost its beginning.
    Read { line: &'a [u8], is_whole: bool },
    /// Longer than allowed: both ends of it.
    TooLong { head: &'a [u8], tail: &'a [u8] },
}

/// Whether another line may be cut at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum More {
    Yes,
    NotNow,
}

/// Cuts what is read into lines.
#[derive(Debug, Default)]
struct Lines {
    /// The line that has begun; no room is kept for it between two.
    part: Vec<u8>,
    /// The line that has begun is too long: `part` holds its beginning, this its last bytes.
    tail: Option<Vec<u8>>,
    /// The line that has begun may have lost its beginning.
    is_cut: bool,
}

impl Lines {
    /// Cuts `bytes` until `take` says that this is enough for now; how many of them that took.
    fn feed(&mut self, all: &[u8], longest: usize, take: &mut dyn FnMut(Line<'_>) -> More) -> usize {
        let mut bytes = all;
        while let Some(end) = bytes.iter().position(|&byte| byte == b'\n') {
            let (rest, is_whole) = (&bytes[..end], !self.is_cut);
            let more = if self.part.is_empty() && self.tail.is_none() && rest.len() <= longest {
                Self::give(rest, is_whole, take)
            } else {
                self.keep(rest, longest);
                let part = std::mem::take(&mut self.part);
                match self.tail.take() {
                    Some(tail) => take(Line::TooLong { head: &part, tail: &tail }),
                    None => Self::give(&part, is_whole, take),
                }
            };
            self.is_cut = false;
            bytes = &bytes[end + 1..];
            if more == More::NotNow {
                return all.len() - bytes.len();
            }
        }
        if !bytes.is_empty() {
            self.keep(bytes, longest);
        }
        all.len()
    }

    fn give(line: &[u8], is_whole: bool, take: &mut dyn FnMut(Line<'_>) -> More) -> More {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.trim_ascii().is_empty() { More::Yes } else { take(Line::Read { line, is_whole }) }
    }

    fn keep(&mut self, bytes: &[u8], longest: usize) {
        if self.tail.is_none() && self.part.len() + bytes.len() <= longest {
            return self.part.extend_from_slice(bytes);
        }
        let part = &mut self.part;
        let tail = self.tail.get_or_insert_with(|| part.clone());
        if part.len() < SHOWN {
            part.extend(bytes.iter().take(SHOWN - part.len()));
        }
        part.truncate(SHOWN);
        part.shrink_to_fit();
        let new = &bytes[bytes.len().saturating_sub(SHOWN)..];
        let kept = tail.len().min(SHOWN - new.len());
        tail.drain(..tail.len() - kept);
        tail.extend_from_slice(new);
        tail.shrink_to(2 * SHOWN);
    }
}

/// The read side of a stdio run.
pub(super) struct Ear {
    output: Awaited<File>,
    lines: Lines,
    /// What was read and not passed on yet; no room is kept for it.
    rest: Vec<u8>,
    /// How long lines are passed on at once.
    turn: Duration,
    talk: Arc<dyn Talk>,
    wire: Arc<Wire>,
}

impl Ear {
    /// Opens both FIFOs of a run whose process is there, and lets whoever speaks with it begin.
    /// `is_found`: an earlier daemon spoke with it before. `deaf` is called, once, when the process
    /// has closed its standard input.
    pub(super) fn open(
        dir: &RunDir,
        output: Awaited<File>,
        talk: Arc<dyn Talk>,
        is_found: bool,
        deaf: impl Fn() + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let wire = Wire::open(&dir.stdin(), dir.half(), Box::new(deaf))?;
        talk.begin(Arc::clone(&wire));
        let lines = Lines { is_cut: is_found, ..Lines::default() };
        Ok(Self { output, lines, rest: Vec::new(), turn: TURN, talk, wire })
    }

    /// Passes on what was left of the last read, or reads once and passes on what came, for a short
    /// while; how many bytes were passed on. `log` takes a line that is no message, and whether it is
    /// whole.
    pub(super) fn poll(
        &mut self,
        buffer: &mut [u8],
        cx: &mut Context<'_>,
        log: &mut dyn FnMut(&[u8], bool),
    ) -> Poll<io::Result<usize>> {
        if !self.rest.is_empty() {
            return Poll::Ready(Ok(self.pass_rest(log)));
        }
        let read = self.output.poll_read(cx, buffer);
        read.map_ok(|count| self.pass(&buffer[..count], log))
    }

    /// True if there may be something to pass on.
    pub(super) fn may_have_more(&self) -> bool {
        !self.rest.is_empty() || self.output.may_have_more()
    }

    /// The same without waiting.
    pub(super) fn try_read(
        &mut self,
        buffer: &mut [u8],
        log: &mut dyn FnMut(&[u8], bool),
    ) -> io::Result<usize> {
        if !self.rest.is_empty() {
            return Ok(self.pass_rest(log));
        }
        let count = self.output.get().read(buffer)?;
        Ok(self.pass(&buffer[..count], log))
    }

    fn pass_rest(&mut self, log: &mut dyn FnMut(&[u8], bool)) -> usize {
        let rest = std::mem::take(&mut self.rest);
        self.pass(&rest, log)
    }

    /// Passes lines on until the turn is over, and keeps the rest; how many bytes were passed on, which
    /// are some if there are any.
    fn pass(&mut self, bytes: &[u8], log: &mut dyn FnMut(&[u8], bool)) -> usize {
        let (talk, turn, begun) = (&*self.talk, self.turn, clock::now());
        let passed = self.lines.feed(bytes, talk.longest(), &mut |line| {
            match line {
                Line::Read { line, is_whole } => {
                    if !talk.line(line) {
                        log(line, is_whole);
                    }
                }
                Line::TooLong { head, tail } => talk.too_long(head, tail),
            }
            if clock::now().since(begun) < turn { More::Yes } else { More::NotNow }
        });
        self.rest = bytes[passed..].to_vec();
        passed
    }

    /// The process has ended.
    pub(super) fn end(self) {
        self.wire.close();
        self.talk.end();
    }
}

/// The write side of a stdio run.
pub struct Wire {
    input: OwnedFd,
    /// Stands while a message is partly written.
    marker: PathBuf,
    out: Mutex<Outgoing>,
    /// There is room, or the run is over.
    moved: Notify,
    deaf: Box<dyn Fn() + Send + Sync>,
}

#[derive(Debug, Default)]
struct Outgoing {
    queue: VecDeque<Vec<u8>>,
    /// How much of the first was written.
    written: usize,
    /// What the queue holds.
    bytes: usize,
    is_marked: bool,
    is_flushing: bool,
    is_over: bool,
}

impl std::fmt::Debug for Wire {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Wire").field("out", &self.out()).finish_non_exhaustive()
    }
}

impl Wire {
    fn open(path: &Path, marker: PathBuf, deaf: Box<dyn Fn() + Send + Sync>) -> io::Result<Arc<Self>> {
        let input = OwnedFd::from(open(path, true)?);
        let is_marked = marker.exists();
        let out = Mutex::new(Outgoing { is_marked, ..Outgoing::default() });
        let wire = Arc::new(Self { input, marker, out, moved: Notify::new(), deaf });
        if is_marked {
            // Whatever was half said is ended, and is no message.
            let taken = wire.send(b"\n".to_vec());
            debug_assert!(taken.is_ok(), "nothing waits yet");
        }
        Ok(wire)
    }

    /// A wire to a pipe that does not block and is no run's.
    #[cfg(test)]
    pub(crate) fn to(input: OwnedFd, marker: PathBuf) -> Arc<Self> {
        let (out, moved) = (Mutex::default(), Notify::new());
        Arc::new(Self { input, marker, out, moved, deaf: Box::new(|| ()) })
    }

    /// Says a line, its end included: at once if the process reads, else when it does. To a process
    /// that is over nothing is said, and who speaks with it will hear that.
    ///
    /// Must be called on a runtime.
    ///
    /// # Errors
    ///
    /// With the line itself, when too much waits already; [`Wire::room`] says when to try again.
    pub fn send(self: &Arc<Self>, line: Vec<u8>) -> Result<(), Vec<u8>> {
        let mut out = self.out();
        if out.is_over {
            return Ok(());
        }
        if out.bytes >= QUEUE {
            return Err(line);
        }
        if out.queue.is_empty() && line.len() <= WHOLE && rustix::io::write(&self.input, &line).is_ok() {
            return Ok(());
        }
        out.bytes += line.len();
        out.queue.push_back(line);
        if !out.is_flushing {
            let done = self.flush(&mut out, |bytes| Ok(rustix::io::write(&self.input, bytes)?));
            self.settle(out, done);
        }
        Ok(())
    }

    /// True if [`Wire::send`] takes a line now.
    #[must_use]
    pub fn has_room(&self) -> bool {
        let out = self.out();
        out.is_over || out.bytes < QUEUE
    }

    /// Waits until [`Wire::send`] takes a line, or the run is over.
    pub async fn room(&self) {
        loop {
            let moved = self.moved.notified();
            tokio::pin!(moved);
            moved.as_mut().enable();
            if self.has_room() {
                return;
            }
            moved.await;
        }
    }

    /// Nothing is said from now on.
    fn close(&self) {
        self.out().end();
        self.moved.notify_waiters();
    }

    fn out(&self) -> MutexGuard<'_, Outgoing> {
        self.out.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes as much as is taken.
    fn flush(&self, out: &mut Outgoing, mut write: impl FnMut(&[u8]) -> io::Result<usize>) -> io::Result<()> {
        while let Some(line) = out.queue.front() {
            let (length, rest) = (line.len(), &line[out.written..]);
            if length > WHOLE && !out.is_marked {
                out.is_marked = true;
                self.mark();
            }
            let count = write(rest)?;
            out.written += count;
            out.bytes -= count;
            if out.written == length {
                out.written = 0;
                out.queue.pop_front();
                if std::mem::take(&mut out.is_marked) {
                    self.unmark();
                }
            }
        }
        out.queue = VecDeque::new();
        Ok(())
    }

    /// After a flush: has the rest written when the process reads on.
    fn settle(self: &Arc<Self>, mut out: MutexGuard<'_, Outgoing>, done: io::Result<()>) {
        match done {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if !std::mem::replace(&mut out.is_flushing, true) {
                    tokio::spawn(Arc::clone(self).write_on());
                }
            }
            Err(error) => {
                tracing::debug!(%error, "a process does not take its standard input");
                out.end();
                drop(out);
                self.moved.notify_waiters();
                (self.deaf)();
            }
        }
    }

    /// Writes what waits, until nothing does.
    async fn write_on(self: Arc<Self>) {
        let sender = self.input.as_fd().try_clone_to_owned().and_then(Sender::from_owned_fd);
        let sender = match sender {
            Ok(sender) => sender,
            Err(error) => return self.settle(self.out(), Err(error)),
        };
        loop {
            if let Err(error) = sender.writable().await {
                return self.settle(self.out(), Err(error));
            }
            let mut out = self.out();
            let done = self.flush(&mut out, |bytes| sender.try_write(bytes));
            let has_room = out.bytes < QUEUE;
            match done {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => drop(out),
                done => {
                    out.is_flushing = false;
                    self.settle(out, done);
                    return self.moved.notify_waiters();
                }
            }
            if has_room {
                self.moved.notify_waiters();
            }
        }
    }

    fn mark(&self) {
        let made = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&self.marker);
        if let Err(error) = made {
            tracing::warn!(%error, marker = %self.marker.display(), "cannot mark a message that is partly written");
        }
    }

    fn unmark(&self) {
        if let Err(error) = fs::remove_file(&self.marker)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(%error, marker = %self.marker.display(), "cannot take back a mark");
        }
    }
}

impl Outgoing {
    fn end(&mut self) {
        self.is_over = true;
        (self.queue, self.bytes, self.written) = (VecDeque::new(), 0, 0);
    }
}

#[cfg(test)]
mod tests;
