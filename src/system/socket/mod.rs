//! Listening sockets: making one, and finding out whose one is.
//!
//! A port number proves nothing: whoever binds it first gets the connections. So before a byte of
//! a user goes to a port, the kernel's own socket table (`diag`) says which socket listens there,
//! and `/proc` says whether one of the run's processes holds that socket ([`owned_by`]).
//!
//! At a door it is the other way round: whose socket is at the client's end ([`client_of`])?
//!
//! Nothing here connects anywhere, and nothing decides what follows from an answer; see
//! [`probe`](super::probe) for "is it ready" and `door::link` for "may I send".

mod diag;

use std::collections::HashSet;
use std::fmt;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketAddrAny, SocketAddrUnix, SocketFlags, SocketType, bind, connect, getpeername,
    getsockname, socket_with, sockopt,
};

use super::{account, files, peer};

pub use diag::{Listener, all_at, everywhere, listener_at};

/// How many connections the kernel keeps for a door that has not accepted them yet; more than any
/// door's connection limit, so that a burst meets our answer and not a dropped SYN.
const BACKLOG: i32 = 1024;

/// Writes what goes into a socket's buffer at once, on one that does not block. A runtime that has just
/// heard of it could not say yet that there is room.
///
/// # Errors
///
/// When nothing does, or nobody is at the other end any more.
pub fn write_at_once(socket: impl AsFd, bytes: &[u8]) -> io::Result<usize> {
    Ok(rustix::net::send(socket, bytes, rustix::net::SendFlags::NOSIGNAL)?)
}

/// Where a process listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// On a port.
    Tcp(SocketAddr),
    /// On a socket in the file system.
    Unix(Arc<Path>),
}

impl Address {
    /// What a request to it names in Host.
    #[must_use]
    pub fn host(&self) -> String {
        match self {
            Self::Tcp(addr) => addr.to_string(),
            Self::Unix(_) => "localhost".to_owned(),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(addr) => addr.fmt(f),
            Self::Unix(path) => path.display().fmt(f),
        }
    }
}

/// Opens a listening socket: close-on-exec, non-blocking, and with `SO_REUSEADDR`, so that
/// connections of an earlier daemon in TIME-WAIT do not keep its port from us.
///
/// # Errors
///
/// `AddrInUse` when somebody listens there already ([`holder`] says who), `PermissionDenied` for
/// a privileged port, or the cause from the kernel.
pub fn listen(addr: IpAddr, port: u16) -> io::Result<TcpListener> {
    let socket = bound(addr, port)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(socket.into())
}

/// True if somebody keeps a port of this host from whoever would listen there: they listen, or have
/// bound a socket to it, at whatever address, which no table of listeners shows.
#[must_use]
pub fn is_kept(port: u16) -> bool {
    let everywhere = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    bound(everywhere, port).is_err_and(|error| error.kind() == io::ErrorKind::AddrInUse)
}

fn bound(addr: IpAddr, port: u16) -> io::Result<OwnedFd> {
    let family = if addr.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(family, SocketType::STREAM, flags, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    bind(&socket, &SocketAddr::new(addr, port))?;
    Ok(socket)
}

/// The uid whose socket is at the other end of an accepted connection, as long as that is somebody's:
/// a client that is not on this host, or that has closed its socket already, is nobody.
///
/// It is certain. While our end is connected no other socket can be, or become, connected from
/// where the client is to here: so if our end still is when the kernel has answered, the socket that
/// it told of is the other end of this very connection, and not one of somebody who got the same
/// port after our client had gone.
///
/// # Errors
///
/// When the kernel cannot be asked.
pub fn client_of(stream: impl AsFd) -> io::Result<Option<u32>> {
    let inet = |addr: SocketAddrAny| {
        SocketAddr::try_from(addr).map_err(|_| io::Error::from(io::ErrorKind::Unsupported))
    };
    let here = inet(getsockname(&stream)?)?;
    let there = match getpeername(&stream) {
        Ok(there) => there.map(inet).transpose()?,
        Err(Errno::NOTCONN) => None,
        Err(errno) => return Err(errno.into()),
    };
    let Some(there) = there else { return Ok(None) };
    let uid = diag::client_at(here, there)?;
    // Not connected any more: what we were told may be of another connection.
    Ok(uid.filter(|_| getpeername(&stream).is_ok()))
}

/// Opens a listening socket in the file system, in a directory of ours that everybody may pass and
/// nobody else may change, and hands it to `owner`: only they (and root) may connect.
///
/// # Errors
///
/// When the path is too long (107 bytes, unix(7)), or the directory cannot be made or written.
pub fn listen_at(path: &Path, owner: u32) -> io::Result<UnixListener> {
    let dir = path.parent().unwrap_or(Path::new("/"));
    let mode = if account::own_uid() == 0 { 0o711 } else { 0o700 };
    for dir in [dir.parent().unwrap_or(dir), dir] {
        files::make_dir(dir, mode).map_err(io::Error::other)?;
    }
    // Nobody but we can have put anything here.
    files::remove(path).map_err(io::Error::other)?;
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    if owner != account::own_uid() {
        std::os::unix::fs::lchown(path, Some(owner), None)?;
    }
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Why nothing is connected with the socket of a run.
#[derive(Debug)]
pub enum NotReached {
    /// Nobody listens, or so many are waiting to be accepted that one more would have to wait.
    Nobody(io::Error),
    /// It is somebody else's.
    Stranger {
        /// That of what lies there.
        inode: u64,
        /// Whose, for people.
        whose: String,
    },
}

impl<E: Into<io::Error>> From<E> for NotReached {
    fn from(error: E) -> Self {
        Self::Nobody(error.into())
    }
}

/// Connects to the socket that a run made in its directory, without waiting for whoever listens there,
/// and not blocking.
///
/// What lies there is the run's to choose, and we may connect where it may not: so no link is followed,
/// and the socket and who listens on it have to be of the uid whose the directory is. What was looked
/// at is what is connected to, whatever has the name by then.
///
/// # Errors
///
/// [`NotReached`]
pub fn reach(path: &Path) -> Result<OwnedFd, NotReached> {
    let (Some(above), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(NotReached::Nobody(io::ErrorKind::InvalidInput.into()));
    };
    let look = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let dir = rustix::fs::open(above, look | OFlags::DIRECTORY, Mode::empty())?;
    let owner = rustix::fs::fstat(&dir)?.st_uid;
    let file = rustix::fs::openat(&dir, name, look, Mode::empty())?;
    let is = rustix::fs::fstat(&file)?;
    let stranger = |whose| Err(NotReached::Stranger { inode: is.st_ino, whose });
    if FileType::from_raw_mode(is.st_mode) == FileType::Symlink {
        return stranger("a symbolic link".to_owned());
    }
    if is.st_uid != owner {
        return stranger(format!("a socket of uid {}", is.st_uid));
    }
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    // By its descriptor (proc_pid_fd(5)): its name may be another's already.
    let itself = format!("/proc/self/fd/{}", file.as_raw_fd());
    connect(&socket, &SocketAddrUnix::new(itself)?)?;
    let told = peer::credentials(&socket)?;
    if told.uid == owner { Ok(socket) } else { stranger(format!("uid {}, pid {}", told.uid, told.pid)) }
}

/// Who holds a listening socket, as far as we may see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// The owner of the socket.
    pub uid: u32,
    /// A process that holds it; `None` where we may not look into the processes of `uid`.
    pub pid: Option<i32>,
    /// That process's name (`/proc/PID/comm`).
    pub program: Option<String>,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "uid {}", self.uid)?;
        if let Some(program) = &self.program {
            write!(f, ", {program}")?;
        }
        if let Some(pid) = self.pid {
            write!(f, ", pid {pid}")?;
        }
        Ok(())
    }
}

/// Who listens on `port`, on whatever address; `None` if nobody does (a socket that is bound and
/// does not listen is not in the kernel's answer).
///
/// # Errors
///
/// When the kernel's socket table cannot be asked.
pub fn holder(port: u16) -> io::Result<Option<Holder>> {
    Ok(all_at(port)?.first().map(holder_of))
}

/// Who holds `listener`. Reads the descriptors of every process: for messages, not for checks.
#[must_use]
pub fn holder_of(listener: &Listener) -> Holder {
    let pid = processes().find(|pid| owned_by(listener.inode, std::iter::once(*pid)));
    let program = pid.and_then(|pid| fs::read_to_string(format!("/proc/{pid}/comm")).ok());
    // The name is the process's own choice, so nothing of it may steer a terminal.
    let program = program.map(|name| name.trim_end().escape_debug().to_string());
    Holder { uid: listener.uid, pid, program }
}

/// True if one of `pids` holds the socket with this inode.
///
/// A process that has ended, or whose descriptors we may not read, holds nothing.
pub fn owned_by(inode: u64, pids: impl Iterator<Item = i32>) -> bool {
    let mut pids = pids;
    pids.any(|pid| descriptors(pid).any(|held| held == inode))
}

/// The inodes of every socket that `pids` hold.
pub fn sockets_of(pids: impl Iterator<Item = i32>) -> HashSet<u64> {
    pids.flat_map(descriptors).collect()
}

/// The inodes of the sockets among a process's descriptors.
fn descriptors(pid: i32) -> impl Iterator<Item = u64> {
    fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().filter_map(|entry| {
        let target = fs::read_link(entry.ok()?.path()).ok()?;
        target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
    })
}

fn processes() -> impl Iterator<Item = i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten();
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn here() -> i32 {
        i32::try_from(std::process::id()).unwrap()
    }

    fn inode_at(port: u16) -> u64 {
        listener_at(SocketAddr::new([127, 0, 0, 1].into(), port)).unwrap().unwrap().inode
    }

    #[tokio::test]
    async fn a_listener_is_found_by_its_address_and_belongs_to_its_process() {
        let door = listen([127, 0, 0, 1].into(), 0).unwrap();
        let port = door.local_addr().unwrap().port();

        let inode = inode_at(port);

        assert!(owned_by(inode, std::iter::once(here())));
        assert!(!owned_by(inode, std::iter::once(1)) || here() == 1);
        assert!(!owned_by(inode, std::iter::empty()));
        assert!(sockets_of(std::iter::once(here())).contains(&inode));
    }

    #[tokio::test]
    async fn a_taken_port_names_its_holder() {
        let door = listen([127, 0, 0, 1].into(), 0).unwrap();
        let port = door.local_addr().unwrap().port();

        let refused = listen([127, 0, 0, 1].into(), port).unwrap_err();
        let holder = holder(port).unwrap().unwrap();

        assert_eq!(refused.kind(), io::ErrorKind::AddrInUse);
        assert_eq!(holder.uid, nix::unistd::getuid().as_raw());
        assert_eq!(holder.pid, Some(here()));
        assert!(holder.to_string().starts_with("uid "), "{holder}");
    }

    fn accepted(bound: &str, to: &str) -> (std::net::TcpStream, std::net::TcpStream) {
        let door = TcpListener::bind(bound).unwrap();
        let port = door.local_addr().unwrap().port();
        let client = std::net::TcpStream::connect((to, port)).unwrap();
        (door.accept().unwrap().0, client)
    }

    #[test]
    fn a_link_in_the_place_of_a_runs_socket_leads_nowhere() {
        let dir = tempfile::tempdir().unwrap();
        let [real, link] = ["real.sock", "http.sock"].map(|name| dir.path().join(name));
        assert!(matches!(reach(&link), Err(NotReached::Nobody(_))));
        let listener = UnixListener::bind(&real).unwrap();
        listener.set_nonblocking(true).unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        assert!(matches!(reach(&link), Err(NotReached::Stranger { .. })));
        assert_eq!(listener.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
        // The socket itself is reached, and a file that is none is nobody's.
        assert!(reach(&real).is_ok() && listener.accept().is_ok());
        fs::remove_file(&link).unwrap();
        fs::File::create(&link).unwrap();
        assert!(matches!(reach(&link), Err(NotReached::Nobody(_))));
    }

    #[test]
    fn the_other_end_of_a_connection_is_its_owners() {
        let own = Some(nix::unistd::geteuid().as_raw());
        for (bound, to) in [("127.0.0.1:0", "127.0.0.1"), ("[::]:0", "127.0.0.1"), ("[::1]:0", "::1")] {
            let (server, client) = accepted(bound, to);
            assert_eq!(client_of(&server).unwrap(), own, "{bound} {to}");
            client.shutdown(std::net::Shutdown::Write).unwrap();
            assert_eq!(client_of(&server).unwrap(), own, "it has said its last and listens");
        }
    }

    #[test]
    fn whoever_has_closed_their_end_is_nobody() {
        use std::io::Write;
        let (server, mut client) = accepted("127.0.0.1:0", "127.0.0.1");
        client.write_all(b"GET / HTTP/1.1").unwrap();
        drop(client);
        assert_eq!(client_of(&server).unwrap(), None);

        // By a reset: what was sent can still be read, and the port is free for somebody else.
        let (server, mut client) = accepted("127.0.0.1:0", "127.0.0.1");
        client.write_all(b"GET / HTTP/1.1").unwrap();
        rustix::net::sockopt::set_socket_linger(&client, Some(std::time::Duration::ZERO)).unwrap();
        drop(client);
        assert_eq!(client_of(&server).unwrap(), None);
    }

    #[test]
    fn whoever_listens_where_a_client_was_is_not_the_client() {
        let door = TcpListener::bind("127.0.0.1:0").unwrap();
        let client =
            socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
        // An address of this test's own: no other takes the port when it is free.
        bind(&client, &SocketAddr::from(([127, 9, 8, 7], 0))).unwrap();
        connect(&client, &door.local_addr().unwrap()).unwrap();
        let (client, server) = (std::net::TcpStream::from(client), door.accept().unwrap().0);
        let there = client.local_addr().unwrap();
        rustix::net::sockopt::set_socket_linger(&client, Some(std::time::Duration::ZERO)).unwrap();
        drop(client);
        let _listener = listen(there.ip(), there.port()).unwrap();
        assert_eq!(client_of(&server).unwrap(), None);
        // Nor by the table alone.
        assert_eq!(diag::client_at(server.local_addr().unwrap(), there).unwrap(), None);
    }

    #[test]
    fn a_port_can_be_listened_on_again_at_once() {
        let door = listen([127, 0, 0, 1].into(), 0).unwrap();
        let addr = door.local_addr().unwrap();
        let client = std::net::TcpStream::connect(addr).unwrap();
        let (server, _) = door.accept().unwrap();
        drop(server);
        drop(door);
        drop(client);

        assert!(listen(addr.ip(), addr.port()).is_ok());
    }
}
