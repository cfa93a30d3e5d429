//! The daemon's side of the launcher: starts it, and asks it for processes.
//!
//! There is one for all runs. If it ends or hangs (it should not: somebody killed or stopped it),
//! another takes its place; the processes it made are the daemon's own children and go on.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream as StdStream;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType, sendmsg,
    socketpair,
};
use rustix::process::Signal;
use tokio::io::{AsyncReadExt, Interest};
use tokio::net::UnixStream;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;

use super::failpoint;
use super::orders::{Answer, Failure, Make, length_of};
use super::{process, record};

/// A launcher that answers nobody for so long hangs. It needs a millisecond for an answer, but a
/// thousand may have asked before.
const ANSWERS_WITHIN: Duration = Duration::from_secs(10);

/// So many launches are under way at once. More end no sooner, for there is one launcher; and what
/// a thousand need at the same time leaves holes all over the heap.
const AT_ONCE: usize = 64;

/// The launcher of this daemon.
#[derive(Debug)]
pub(super) struct Launcher {
    present: Mutex<Arc<Present>>,
    turns: Semaphore,
}

/// A launch that is under way.
pub(super) struct Turn<'a> {
    _permit: Option<SemaphorePermit<'a>>,
}

/// The process that is the launcher now.
#[derive(Debug)]
struct Present {
    /// The way to it. Packets go through it, not a stream: only its readiness is tokio's.
    control: UnixStream,
    handle: OwnedFd,
    /// How often it has answered.
    answers: AtomicU64,
}

impl Launcher {
    /// Starts it. Must be called on a runtime.
    ///
    /// # Errors
    ///
    /// When this program cannot be started once more.
    pub(super) fn start() -> io::Result<Self> {
        Ok(Self::with(spawn()?))
    }

    fn with(present: Present) -> Self {
        Self { present: Mutex::new(Arc::new(present)), turns: Semaphore::new(AT_ONCE) }
    }

    /// Waits until a launch may begin, which is over when the answer is dropped. First come, first
    /// served.
    pub(super) async fn turn(&self) -> Turn<'_> {
        // It is never closed.
        Turn { _permit: self.turns.acquire().await.ok() }
    }

    /// Has a process made, which hears its orders on the socket that comes back with its pid.
    ///
    /// Goes on to its end even if nobody wants the process any more, because only so a launcher
    /// that hangs is found out; a process whose socket is dropped ends.
    ///
    /// # Errors
    ///
    /// When the launcher says so, or is gone and cannot be started again, or does not answer.
    pub(super) async fn make(self: Arc<Self>, make: Make) -> Result<(UnixStream, i32), Failure> {
        let (ours, theirs) = StdStream::pair().map_err(cannot("ask the launcher"))?;
        ours.set_nonblocking(true).map_err(cannot("ask the launcher"))?;
        let mut socket = UnixStream::from_std(ours).map_err(cannot("ask the launcher"))?;
        let request = make.to_bytes();
        let mut present = self.present();
        if self.wait_for(&present, send(&present.control, &request, theirs.as_fd())).await?.is_err() {
            tracing::warn!("the launcher is gone; starting another");
            present = self.replace(&present).map_err(cannot("start another launcher"))?;
            let sent = self.wait_for(&present, send(&present.control, &request, theirs.as_fd())).await?;
            sent.map_err(cannot("ask the launcher"))?;
        }
        drop(theirs);
        failpoint::pass("spawn.requested");
        let answer = self.wait_for(&present, answer(&mut socket)).await??;
        present.answers.fetch_add(1, Ordering::Relaxed);
        match answer {
            Some(Answer::Pid(pid)) => Ok((socket, pid)),
            Some(Answer::Failed(failure)) => Err(failure),
            None => Err(Failure { doing: "cannot hear the launcher: it has ended".into(), errno: None }),
        }
    }

    /// Ends it; it would not hear of the daemon's end if it hung.
    pub(super) fn end(&self) {
        process::send(&self.present().handle, Signal::KILL);
    }

    fn present(&self) -> Arc<Present> {
        Arc::clone(&self.present.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Waits for what a launcher does. One that does nothing for anybody is replaced.
    async fn wait_for<T>(&self, present: &Arc<Present>, what: impl Future<Output = T>) -> Result<T, Failure> {
        tokio::pin!(what);
        loop {
            let before = present.answers.load(Ordering::Relaxed);
            if let Ok(done) = timeout(ANSWERS_WITHIN, &mut what).await {
                return Ok(done);
            }
            if present.answers.load(Ordering::Relaxed) == before {
                tracing::error!("the launcher does not answer; starting another");
                self.replace(present).map_err(cannot("start another launcher"))?;
                return Err(Failure {
                    doing: "cannot make a process: the launcher does not answer".into(),
                    errno: None,
                });
            }
        }
    }

    /// Kills a launcher and starts another, unless somebody did so already; the present one.
    fn replace(&self, old: &Arc<Present>) -> io::Result<Arc<Present>> {
        let mut present = self.present.lock().unwrap_or_else(PoisonError::into_inner);
        if Arc::ptr_eq(&present, old) {
            // It is reaped with the strays.
            process::send(&old.handle, Signal::KILL);
            *present = Arc::new(spawn()?);
        }
        Ok(Arc::clone(&present))
    }
}

pub(super) fn cannot(doing: &'static str) -> impl FnOnce(io::Error) -> Failure {
    move |error| Failure { doing: format!("cannot {doing}"), errno: error.raw_os_error() }
}

/// The launcher's or its copy's next word; none if the copy became the server.
pub(super) async fn answer(socket: &mut UnixStream) -> Result<Option<Answer>, Failure> {
    let mut head = [0; 4];
    match socket.read_exact(&mut head).await {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(cannot("hear the launcher")(error)),
    }
    let mut bytes = vec![0; length_of(head).map_err(cannot("understand the launcher"))?];
    socket.read_exact(&mut bytes).await.map_err(cannot("hear the launcher"))?;
    serde_json::from_slice(&bytes).map(Some).map_err(|error| cannot("understand the launcher")(error.into()))
}

async fn send(control: &UnixStream, request: &[u8], socket: BorrowedFd<'_>) -> io::Result<()> {
    control
        .async_io(Interest::WRITABLE, || {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut ancillary = SendAncillaryBuffer::new(&mut space);
            let sockets = [socket];
            ancillary.push(SendAncillaryMessage::ScmRights(&sockets));
            let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
            sendmsg(control, &[IoSlice::new(request)], &mut ancillary, flags)?;
            Ok(())
        })
        .await
}

/// Starts our own executable, the very file this daemon runs, with nothing but the socket.
fn spawn() -> io::Result<Present> {
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    #[expect(clippy::disallowed_methods, reason = "this is system::process's half that starts processes")]
    let child = Command::new("/proc/self/exe")
        .arg("launch")
        .env_clear()
        .stdin(Stdio::from(theirs))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    tracing::debug!(pid = child.id(), "launcher started");
    // It cannot be reaped before this returns, so the pid still means it.
    let handle = record::open_pidfd(i32::try_from(child.id()).map_err(io::Error::other)?)?;
    rustix::io::ioctl_fionbio(&ours, true)?;
    let control = UnixStream::from_std(StdStream::from(ours))?;
    Ok(Present { control, handle, answers: AtomicU64::new(0) })
}

#[cfg(test)]
impl Launcher {
    /// One that hears and never answers; the other end must be kept.
    pub(super) fn mute() -> (Arc<Self>, OwnedFd) {
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
        rustix::io::ioctl_fionbio(&ours, true).unwrap();
        let control = UnixStream::from_std(StdStream::from(ours)).unwrap();
        #[expect(clippy::disallowed_methods, reason = "a test needs a process")]
        let mut dead = Command::new("/bin/true").spawn().unwrap();
        let handle = record::open_pidfd(i32::try_from(dead.id()).unwrap()).unwrap();
        dead.wait().unwrap();
        let present = Present { control, handle, answers: AtomicU64::new(0) };
        (Arc::new(Self::with(present)), theirs)
    }
}
