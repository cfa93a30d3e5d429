//! The service manager that started us, where one did: `sd_notify(3)` and its file descriptor store.
//!
//! It is told what we are about ([`Manager::say`]), and keeps listening sockets for the next daemon
//! ([`Manager::keep`]), so that a port is a user's also while there is no daemon. What an earlier
//! daemon left with it comes back by [`Started::given`].
//!
//! A message is a datagram. The manager reads them fast; a message is waited for a moment when its
//! queue is full, and then dropped, and said so: nobody's server hangs on the manager's.

use std::ffi::OsString;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixDatagram, UnixStream};
use std::sync::Arc;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg, sockopt,
};

/// What the manager tells us by; none of it is for anything that we start.
pub const VARIABLES: [&str; 7] = [
    "NOTIFY_SOCKET",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
    "LISTEN_PID",
    "LISTEN_FDS",
    "LISTEN_FDNAMES",
    "FDSTORE",
];

/// The first descriptor that is passed (`sd_listen_fds(3)`).
const FIRST: RawFd = 3;
/// The kernel lets no message carry more (`SCM_MAX_FD`).
const AT_ONCE: usize = 253;
/// A manager with a full queue is waited for so long.
const PATIENCE: Duration = Duration::from_millis(500);

/// How we were started, as far as a service manager has a part in it.
#[derive(Debug, Default)]
pub struct Started {
    /// The one to tell.
    pub manager: Option<Arc<Manager>>,
    /// It kills us when it has heard nothing for so long.
    pub watchdog: Option<Duration>,
    /// What an earlier daemon left with it, by the names it had there.
    pub given: Vec<(String, OwnedFd)>,
    /// How many descriptors it keeps; 0 where it keeps none, or does not say so.
    pub store: usize,
}

impl Started {
    /// Reads the environment. To be called once, before anything else is opened: the descriptors that
    /// were passed are taken over by their numbers.
    ///
    /// # Errors
    ///
    /// When descriptors were passed and cannot be taken over, or the manager's socket cannot be used.
    pub fn read(env: impl Fn(&str) -> Option<OsString>) -> io::Result<Self> {
        let text = |name: &str| env(name).and_then(|value| value.into_string().ok());
        let number = |name: &str| text(name).and_then(|text| text.parse::<u64>().ok());
        let is_ours = |name: &str| number(name).is_none_or(|pid| pid == u64::from(std::process::id()));
        let mut given = Vec::new();
        if let Some(count) =
            number("LISTEN_FDS").filter(|_| number("LISTEN_PID").is_some() && is_ours("LISTEN_PID"))
        {
            let names = text("LISTEN_FDNAMES").unwrap_or_default();
            let names = names.split(':').map(str::to_owned).chain(std::iter::repeat("unknown".to_owned()));
            given = names.zip(take_over(count)?).collect();
        }
        let manager = match text("NOTIFY_SOCKET").filter(|path| !path.is_empty()) {
            Some(path) => Some(Arc::new(Manager::at(&path)?)),
            None => None,
        };
        let watchdog = number("WATCHDOG_USEC").filter(|usec| *usec > 0 && is_ours("WATCHDOG_PID"));
        let store = number("FDSTORE").and_then(|count| usize::try_from(count).ok()).unwrap_or(0);
        let store = if manager.is_some() { store } else { 0 };
        Ok(Self { manager, watchdog: watchdog.map(Duration::from_micros), given, store })
    }
}

/// Takes over the descriptors from [`FIRST`] on, which are nobody else's in this process yet.
///
/// A number becomes a descriptor that one owns by a way through a socket, close-on-exec; the safe
/// libraries have no other. The numbers themselves are closed.
fn take_over(count: u64) -> io::Result<Vec<OwnedFd>> {
    let count = RawFd::try_from(count.min(1 << 20)).map_err(io::Error::other)?;
    let numbers: Vec<RawFd> = (FIRST..FIRST + count).collect();
    let (one, other) = UnixStream::pair()?;
    let mut taken = Vec::new();
    for some in numbers.chunks(AT_ONCE) {
        use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
        let rights = [ControlMessage::ScmRights(some)];
        sendmsg::<()>(one.as_raw_fd(), &[IoSlice::new(b"f")], &rights, MsgFlags::empty(), None)?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(AT_ONCE))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut byte = [0];
        recvmsg(&other, &mut [IoSliceMut::new(&mut byte)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                taken.extend(descriptors);
            }
        }
    }
    for number in numbers {
        nix::unistd::close(number)?;
    }
    Ok(taken)
}

/// Where a descriptor listens, if it is a socket that listens on a port.
#[must_use]
pub fn listens_at(descriptor: impl AsFd) -> Option<SocketAddr> {
    let accepts = sockopt::socket_acceptconn(&descriptor).is_ok_and(|accepts| accepts);
    let addr = rustix::net::getsockname(&descriptor).ok().filter(|_| accepts)?;
    SocketAddr::try_from(addr).ok()
}

/// Ends that anybody can connect to a listening socket, whoever else has it open: its port can be
/// listened on by another at once.
pub fn shut(listener: impl AsFd) {
    if let Err(error) = rustix::net::shutdown(listener, rustix::net::Shutdown::Read) {
        tracing::debug!(%error, "a listener was shut already");
    }
}

/// A listening socket, by its descriptor.
///
/// # Errors
///
/// When its mode cannot be set.
pub fn listener(descriptor: OwnedFd) -> io::Result<TcpListener> {
    let listener = TcpListener::from(descriptor);
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// The service manager.
#[derive(Debug)]
pub struct Manager {
    socket: UnixDatagram,
}

impl Manager {
    /// At what `NOTIFY_SOCKET` says: a path, or a name in the abstract namespace after `@`.
    fn at(address: &str) -> io::Result<Self> {
        let addr = match address.strip_prefix('@') {
            Some(name) => UnixAddr::from_abstract_name(name)?,
            None => UnixAddr::from_pathname(address)?,
        };
        let socket = UnixDatagram::unbound()?;
        socket.connect_addr(&addr)?;
        socket.set_write_timeout(Some(PATIENCE))?;
        Ok(Self { socket })
    }

    /// Says `what`, in lines of `NAME=value`.
    pub fn say(&self, what: &str) {
        self.send(what, None);
    }

    /// Says that every file is read again; [`say`](Self::say) `READY=1` when it was.
    pub fn say_reloading(&self) {
        let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Duration::ZERO, Duration::from);
        self.say(&format!("RELOADING=1\nMONOTONIC_USEC={}", now.as_micros()));
    }

    /// Has it keep a descriptor for whoever is started after us. Everybody can read the name.
    pub fn keep(&self, name: &str, descriptor: impl AsFd) {
        // It need not be watched for a hang-up: nothing hangs up on a listener.
        self.send(&format!("FDSTORE=1\nFDPOLL=0\nFDNAME={name}"), Some(descriptor.as_fd()));
    }

    /// Has it close what it keeps by this name.
    pub fn forget(&self, name: &str) {
        self.send(&format!("FDSTOREREMOVE=1\nFDNAME={name}"), None);
    }

    fn send(&self, what: &str, descriptor: Option<BorrowedFd<'_>>) {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let descriptors = descriptor.map(|descriptor| [descriptor]);
        if let Some(descriptors) = &descriptors {
            ancillary.push(SendAncillaryMessage::ScmRights(descriptors));
        }
        let sent =
            sendmsg(&self.socket, &[IoSlice::new(what.as_bytes())], &mut ancillary, SendFlags::NOSIGNAL);
        if let Err(error) = sent {
            let what = what.replace('\n', " ");
            tracing::warn!(%error, what, "cannot tell the service manager");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn started(vars: &[(&str, &str)]) -> io::Result<Started> {
        Started::read(|name| vars.iter().find(|(n, _)| *n == name).map(|(_, value)| value.into()))
    }

    fn heard(manager: &UnixDatagram) -> (String, Option<OwnedFd>) {
        let mut bytes = [0; 512];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::CMSG_CLOEXEC;
        let received = recvmsg(manager, &mut [IoSliceMut::new(&mut bytes)], &mut ancillary, flags).unwrap();
        let mut passed = ancillary.drain().filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
            RecvAncillaryMessage::ScmCredentials(_) | _ => None,
        });
        (String::from_utf8_lossy(&bytes[..received.bytes]).into_owned(), passed.next())
    }

    #[test]
    fn without_a_manager_nothing_is_told_and_nothing_kept() {
        let started = started(&[("FDSTORE", "16"), ("LISTEN_FDS", "2")]).unwrap();
        assert!(started.manager.is_none() && started.watchdog.is_none() && started.given.is_empty());
        assert_eq!(started.store, 0);
    }

    #[test]
    fn what_is_meant_for_another_process_is_left_alone() {
        let vars =
            [("WATCHDOG_USEC", "1000000"), ("WATCHDOG_PID", "1"), ("LISTEN_FDS", "1"), ("LISTEN_PID", "1")];
        let started = started(&vars).unwrap();
        assert!(started.watchdog.is_none() && started.given.is_empty());
    }

    #[test]
    fn a_manager_hears_by_path_and_by_abstract_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify").to_str().unwrap().to_owned();
        let name = format!("@mcpsup-test-{}", std::process::id());
        let by_name = UnixDatagram::bind_addr(&UnixAddr::from_abstract_name(&name[1..]).unwrap()).unwrap();
        for (address, ear) in [(&path, UnixDatagram::bind(&path).unwrap()), (&name, by_name)] {
            let vars = [("NOTIFY_SOCKET", &**address), ("WATCHDOG_USEC", "30000000"), ("FDSTORE", "9")];
            let started = started(&vars).unwrap();
            started.manager.unwrap().say("READY=1\nSTATUS=2 up");
            assert_eq!(heard(&ear).0, "READY=1\nSTATUS=2 up");
            assert_eq!((started.watchdog, started.store), (Some(Duration::from_secs(30)), 9));
        }
    }

    #[test]
    fn a_door_that_is_kept_is_the_same_socket_when_it_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let ear = UnixDatagram::bind(&path).unwrap();
        let manager = Manager::at(path.to_str().unwrap()).unwrap();
        let door = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = door.local_addr().unwrap();

        manager.keep("alice/notes@1", &door);
        drop(door);

        let (said, kept) = heard(&ear);
        assert_eq!(said, "FDSTORE=1\nFDPOLL=0\nFDNAME=alice/notes@1");
        let kept = kept.unwrap();
        assert_eq!(listens_at(&kept), Some(addr));
        let _client = std::net::TcpStream::connect(addr).unwrap();
        assert!(listener(kept).unwrap().accept().is_ok());
    }

    #[test]
    fn a_door_that_is_shut_lets_another_listen_though_somebody_still_has_it_open() {
        let door = crate::system::socket::listen([127, 0, 0, 1].into(), 0).unwrap();
        let addr = door.local_addr().unwrap();
        shut(&door);
        assert_eq!(listens_at(&door), None);
        assert!(crate::system::socket::listen(addr.ip(), addr.port()).is_ok());
    }

    #[test]
    fn what_listens_nowhere_is_no_door() {
        let (one, _other) = UnixStream::pair().unwrap();
        assert_eq!(listens_at(&one), None);
        assert_eq!(listens_at(std::fs::File::open("/dev/null").unwrap()), None);
    }
}
