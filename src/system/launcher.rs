//! The daemon's side of the launcher: starts it, and asks it for processes.
//!
//! There is one for all runs. If it ends (it should not: somebody killed it), the next request
//! starts another; the processes it made are the daemon's own children and go on.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream as StdStream;
use std::process::{Command, Stdio};

use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType, sendmsg,
    socketpair,
};
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::sync::Mutex;

use super::orders::Make;

/// The launcher of this daemon.
#[derive(Debug)]
pub(super) struct Launcher {
    /// The way to it. Packets go through it, not a stream: only its readiness is tokio's.
    control: Mutex<UnixStream>,
}

impl Launcher {
    /// Starts it. Must be called on a runtime.
    ///
    /// # Errors
    ///
    /// When this program cannot be started once more.
    pub(super) fn start() -> io::Result<Self> {
        Ok(Self { control: Mutex::new(spawn()?) })
    }

    /// Asks for a process that hears its orders on the socket that comes back, after the launcher
    /// has said its pid there.
    ///
    /// # Errors
    ///
    /// When the launcher is gone and cannot be started again.
    pub(super) async fn ask(&self, make: &Make) -> io::Result<UnixStream> {
        let (ours, theirs) = StdStream::pair()?;
        ours.set_nonblocking(true)?;
        let request = make.to_bytes();
        let mut control = self.control.lock().await;
        if send(&control, &request, theirs.as_fd()).await.is_err() {
            tracing::warn!("the launcher is gone; starting another");
            *control = spawn()?;
            send(&control, &request, theirs.as_fd()).await?;
        }
        UnixStream::from_std(ours)
    }
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
fn spawn() -> io::Result<UnixStream> {
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
    rustix::io::ioctl_fionbio(&ours, true)?;
    UnixStream::from_std(StdStream::from(ours))
}
