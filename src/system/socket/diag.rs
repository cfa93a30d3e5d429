//! The kernel's table of TCP sockets, asked over netlink (`sock_diag(7)`).
//!
//! `/proc/net/tcp` says the same and costs a walk through every connection of the host; here the
//! kernel finds one socket by its address, or only those that listen on one port. Messages are
//! written and read by hand, field by field as `linux/inet_diag.h` lays them out: they are two
//! fixed structures, and a cast would need `unsafe`.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, setsockopt, socket,
    sockopt::ReceiveTimeout,
};
use nix::sys::time::TimeVal;

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const IPPROTO_TCP: u8 = 6;
/// `TCP_LISTEN` of `net/tcp_states.h`.
const LISTEN: u8 = 10;
/// `TCP_ESTABLISHED`, `TCP_FIN_WAIT1`, `TCP_FIN_WAIT2` (it has said its last and listens),
/// `TCP_CLOSE_WAIT`, `TCP_LAST_ACK`, `TCP_CLOSING`: it has, or had until now, another end.
const CONNECTED: [u8; 6] = [1, 4, 5, 8, 9, 11];
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_DUMP: u16 = 0x300;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const INET_DIAG_SKV6ONLY: u16 = 11;
/// `struct nlmsghdr`
const HEADER: usize = 16;
/// `struct inet_diag_msg`
const MESSAGE: usize = 72;
/// The kernel fills at most 32 KiB for one read of a dump.
const BUFFER: usize = 32 * 1024;
/// The kernel answers while it takes the question; this only bounds what should not happen.
const PATIENCE: TimeVal = TimeVal::new(1, 0);

/// A socket that listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listener {
    /// Where it listens; `0.0.0.0` and `::` are every address.
    pub addr: SocketAddr,
    /// `IPV6_V6ONLY`: a socket on `::` that gets no IPv4 connections.
    pub v6only: bool,
    /// The number that names the socket in `/proc/PID/fd`; unique among the living ones. 0 if its
    /// owner has closed it.
    pub inode: u64,
    /// Who made it.
    pub uid: u32,
}

impl Listener {
    /// True if a connection to `ip` (and this port) can arrive here.
    #[must_use]
    pub fn serves(&self, ip: IpAddr) -> bool {
        match (self.addr.ip().to_canonical(), ip.to_canonical()) {
            (IpAddr::V4(own), IpAddr::V4(ip)) => own == ip || own == Ipv4Addr::UNSPECIFIED,
            (IpAddr::V6(own), IpAddr::V6(ip)) => own == ip || own == Ipv6Addr::UNSPECIFIED,
            (IpAddr::V6(own), IpAddr::V4(_)) => own == Ipv6Addr::UNSPECIFIED && !self.v6only,
            (IpAddr::V4(_), IpAddr::V6(_)) => false,
        }
    }
}

/// The socket that a connection to `addr` would reach now: one bound to that very address, else
/// one on every address, dual-stack IPv6 included (Node's `::`).
///
/// Where several share the port (`SO_REUSEPORT`) it is one of them: see [`all_at`].
///
/// # Errors
///
/// When the kernel cannot be asked; "nobody listens" is `None`.
pub fn listener_at(addr: SocketAddr) -> io::Result<Option<Listener>> {
    let family = if addr.is_ipv4() { AF_INET } else { AF_INET6 };
    let mut found = None;
    let id = Id { ip: Some(addr.ip()), port: addr.port(), remote: None };
    match ask(family, NLM_F_REQUEST, &id, |body| found = listener(body)) {
        Ok(()) => Ok(found),
        Err(Errno::ENOENT) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

/// Every socket that listens on `port`, IPv4 before IPv6.
///
/// # Errors
///
/// When the kernel cannot be asked.
pub fn all_at(port: u16) -> io::Result<Vec<Listener>> {
    all(port)
}

/// Every listening socket of the host's network namespace.
///
/// # Errors
///
/// When the kernel cannot be asked.
pub fn everywhere() -> io::Result<Vec<Listener>> {
    all(0)
}

/// Whose socket is at the client's end of a connection that was accepted here: `here` is our end of
/// it, `there` the client's. `None` is nobody: the client is not on this host (or in another network
/// namespace), or it has closed its socket, which then has no owner any more (uid 0 and inode 0).
///
/// The answer holds for the connection only if our end is still connected *after* it was given: see
/// [`client_of`](super::client_of).
///
/// # Errors
///
/// When the kernel cannot be asked.
pub(super) fn client_at(here: SocketAddr, there: SocketAddr) -> io::Result<Option<u32>> {
    // A client of a dual-stack door speaks IPv4 under an IPv6 name; the kernel's table knows the first.
    let plain = |addr: SocketAddr| SocketAddr::new(addr.ip().to_canonical(), addr.port());
    let (here, there) = (plain(here), plain(there));
    let family = if there.is_ipv4() { AF_INET } else { AF_INET6 };
    let id = Id { ip: Some(there.ip()), port: there.port(), remote: Some(here) };
    let mut found = None;
    match ask(family, NLM_F_REQUEST, &id, |body| found = client(body, here, there)) {
        Ok(()) => Ok(found),
        Err(Errno::ENOENT) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

/// The owner of a socket that is connected from `there` to `here`, and is somebody's.
///
/// The addresses are compared because the kernel, where it finds no connection, answers with
/// whoever *listens* at `there`; the state, because a socket that is only trying to connect from
/// there is another than the one that did; the inode, because what its owner closed is nobody's.
fn client(body: &[u8], here: SocketAddr, there: SocketAddr) -> Option<u32> {
    let fixed = body.get(..MESSAGE)?;
    let plain = |addr: SocketAddr| SocketAddr::new(addr.ip().to_canonical(), addr.port());
    let is_it = plain(local(fixed)?) == there && plain(remote(fixed)?) == here;
    let inode = u32_at(fixed, 68)?;
    (is_it && CONNECTED.contains(&fixed[1]) && inode != 0).then_some(u32_at(fixed, 64)?)
}

/// `port` 0 is the kernel's "any".
fn all(port: u16) -> io::Result<Vec<Listener>> {
    let mut found = Vec::new();
    for family in [AF_INET, AF_INET6] {
        let id = Id { ip: None, port, remote: None };
        match ask(family, NLM_F_REQUEST | NLM_F_DUMP, &id, |body| found.extend(listener(body))) {
            // A kernel without IPv6 has no handler for it and nobody listening there.
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(found)
}

/// `struct inet_diag_sockid`, as far as we ask by it.
struct Id {
    /// The address of the socket that is asked for; every one if `None`.
    ip: Option<IpAddr>,
    /// Its port; 0 is the kernel's "any".
    port: u16,
    /// What it is connected with; `None` for one that listens.
    remote: Option<SocketAddr>,
}

/// `found` gets each `struct inet_diag_msg` with its attributes.
fn ask(family: u8, flags: u16, id: &Id, mut found: impl FnMut(&[u8])) -> Result<(), Errno> {
    let netlink = open()?;
    let question = question(family, flags, id);
    sendto(netlink.as_raw_fd(), &question, &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
    let dump = flags & NLM_F_DUMP != 0;
    let mut buffer = vec![0; if dump { BUFFER } else { 1024 }];
    loop {
        let length = match recv(netlink.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
            Err(Errno::EINTR) => continue,
            other => other?,
        };
        let done = read(&buffer[..length], &mut found)?;
        if done || !dump {
            return Ok(());
        }
    }
}

fn open() -> Result<OwnedFd, Errno> {
    let netlink = socket(
        AddressFamily::Netlink,
        SockType::Datagram,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkSockDiag,
    )?;
    setsockopt(&netlink, ReceiveTimeout, &PATIENCE)?;
    Ok(netlink)
}

/// `struct nlmsghdr` and `struct inet_diag_req_v2`.
fn question(family: u8, flags: u16, id: &Id) -> Vec<u8> {
    const LENGTH: u32 = 72;
    let mut bytes = Vec::with_capacity(72);
    bytes.extend(LENGTH.to_ne_bytes());
    bytes.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend(1u32.to_ne_bytes()); // sequence
    bytes.extend(0u32.to_ne_bytes()); // the kernel fills in our address
    bytes.extend([family, IPPROTO_TCP, 0, 0]);
    bytes.extend((1u32 << LISTEN).to_ne_bytes());
    bytes.extend(id.port.to_be_bytes());
    bytes.extend(id.remote.map_or(0, |remote| remote.port()).to_be_bytes());
    for ip in [id.ip, id.remote.map(|remote| remote.ip())] {
        match ip {
            Some(IpAddr::V4(ip)) => {
                bytes.extend(ip.octets());
                bytes.extend([0; 12]);
            }
            Some(IpAddr::V6(ip)) => bytes.extend(ip.octets()),
            None => bytes.extend([0; 16]),
        }
    }
    bytes.extend([0; 4]); // interface
    bytes.extend([0xff; 8]); // INET_DIAG_NOCOOKIE
    bytes
}

/// Reads the messages of one datagram; true if it was the last.
fn read(mut bytes: &[u8], found: &mut impl FnMut(&[u8])) -> Result<bool, Errno> {
    while let (Some(length), Some(kind)) = (u32_at(bytes, 0), u16_at(bytes, 4)) {
        let length = usize::try_from(length).map_err(|_| Errno::EBADMSG)?;
        let body = bytes.get(HEADER..length).ok_or(Errno::EBADMSG)?;
        match kind {
            NLMSG_DONE => return Ok(true),
            NLMSG_ERROR => {
                let code = u32_at(body, 0).ok_or(Errno::EBADMSG)?.cast_signed();
                return if code == 0 { Ok(true) } else { Err(Errno::from_raw(-code)) };
            }
            SOCK_DIAG_BY_FAMILY => found(body),
            // Not asked for; the length says where the next one begins.
            _ => {}
        }
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(false)
}

/// `struct inet_diag_msg` and its attributes; `None` for a socket that does not listen.
fn listener(body: &[u8]) -> Option<Listener> {
    let (fixed, mut attributes) = body.split_at_checked(MESSAGE)?;
    if fixed[1] != LISTEN {
        return None;
    }
    let addr = local(fixed)?;
    let mut v6only = false;
    while let (Some(length), Some(kind)) = (u16_at(attributes, 0), u16_at(attributes, 2)) {
        if kind == INET_DIAG_SKV6ONLY {
            v6only = attributes.get(4).is_some_and(|value| *value != 0);
        }
        attributes = attributes.get(usize::from(length).max(4).next_multiple_of(4)..)?;
    }
    let uid = u32_at(fixed, 64)?;
    let inode = u64::from(u32_at(fixed, 68)?);
    Some(Listener { addr, v6only, inode, uid })
}

/// Where a socket is, in a `struct inet_diag_msg`.
fn local(fixed: &[u8]) -> Option<SocketAddr> {
    Some(SocketAddr::new(ip_at(fixed, 8)?, port_at(fixed, 4)?))
}

/// What it is connected with.
fn remote(fixed: &[u8]) -> Option<SocketAddr> {
    Some(SocketAddr::new(ip_at(fixed, 24)?, port_at(fixed, 6)?))
}

fn port_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

/// An address of the family that the message is of.
fn ip_at(message: &[u8], at: usize) -> Option<IpAddr> {
    if *message.first()? == AF_INET {
        Some(<[u8; 4]>::try_from(message.get(at..at + 4)?).ok()?.into())
    } else {
        Some(<[u8; 16]>::try_from(message.get(at..at + 16)?).ok()?.into())
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    fn find(port: u16) -> Option<Listener> {
        listener_at(SocketAddr::new(HERE, port)).unwrap()
    }

    #[test]
    fn a_listener_is_found_on_whatever_address_gets_the_connection() {
        for bound in ["127.0.0.1:0", "0.0.0.0:0", "[::]:0"] {
            let socket = TcpListener::bind(bound).unwrap();
            let port = socket.local_addr().unwrap().port();

            let found = find(port).unwrap_or_else(|| panic!("nobody at {bound}"));

            assert_eq!(found.addr.port(), port);
            assert!(found.inode != 0 && found.serves(HERE), "{found:?}");
            assert_eq!(all_at(port).unwrap(), [found], "{bound}");
        }
    }

    #[test]
    fn a_listener_on_another_address_does_not_count() {
        let socket = TcpListener::bind("[::1]:0").unwrap();
        let port = socket.local_addr().unwrap().port();

        assert_eq!(find(port), None);
        assert!(!all_at(port).unwrap()[0].serves(HERE));
        assert!(listener_at(socket.local_addr().unwrap()).unwrap().is_some());
    }

    #[test]
    fn a_closed_listener_is_gone_and_a_connection_is_not_a_listener() {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        let client = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
        assert_eq!(all_at(port).unwrap().len(), 1);
        drop(socket);

        assert_eq!(find(port), None);
        assert_eq!(find(client.local_addr().unwrap().port()), None);
        assert_eq!(all_at(port).unwrap(), []);
    }

    #[test]
    fn the_same_address_gives_another_socket_after_it_was_bound_again() {
        let first = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = first.local_addr().unwrap();
        let before = find(addr.port()).unwrap();
        drop(first);

        let _second = TcpListener::bind(addr).unwrap();

        assert_ne!(find(addr.port()).unwrap().inode, before.inode);
    }

    #[test]
    fn everything_that_listens_is_among_all() {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let own = find(socket.local_addr().unwrap().port()).unwrap();

        assert!(everywhere().unwrap().contains(&own));
    }

    /// A `struct inet_diag_msg` of somebody connected from `there` to `here`.
    fn connected(state: u8, there: &str, here: &str, uid: u32, inode: u32) -> Vec<u8> {
        let (there, here): (SocketAddr, SocketAddr) = (there.parse().unwrap(), here.parse().unwrap());
        let family = if there.is_ipv4() { AF_INET } else { AF_INET6 };
        let mut bytes = vec![family, state, 0, 0];
        bytes.extend([there.port().to_be_bytes(), here.port().to_be_bytes()].concat());
        for ip in [there.ip(), here.ip()] {
            let mut octets = match ip {
                IpAddr::V4(ip) => ip.octets().to_vec(),
                IpAddr::V6(ip) => ip.octets().to_vec(),
            };
            octets.resize(16, 0);
            bytes.extend(octets);
        }
        bytes.resize(64, 0);
        bytes.extend([uid.to_ne_bytes(), inode.to_ne_bytes()].concat());
        bytes
    }

    #[test]
    fn only_a_living_socket_of_exactly_this_connection_is_somebodys() {
        let (there, here) = ("127.0.0.1:40000", "127.0.0.1:3456");
        let judge = |body: &[u8]| client(body, here.parse().unwrap(), there.parse().unwrap());

        assert_eq!(judge(&connected(1, there, here, 1001, 77)), Some(1001));
        assert_eq!(
            judge(&connected(1, "[::ffff:127.0.0.1]:40000", "[::ffff:127.0.0.1]:3456", 1001, 77)),
            Some(1001)
        );
        assert_eq!(judge(&connected(5, there, here, 1001, 77)), Some(1001), "it closed one half");
        for (why, body) in [
            ("it was closed by its owner", connected(5, there, here, 0, 0)),
            ("and whatever uid stands there", connected(5, there, here, 1001, 0)),
            ("it is forgotten, and only waits", connected(6, there, here, 0, 0)),
            ("somebody listens there", connected(LISTEN, there, "0.0.0.0:0", 1001, 77)),
            ("it is only trying to connect", connected(2, there, here, 1001, 77)),
            ("another port", connected(1, "127.0.0.1:40001", here, 1001, 77)),
            ("another address", connected(1, "127.0.0.2:40000", here, 1001, 77)),
            ("another door", connected(1, there, "127.0.0.1:3457", 1001, 77)),
            ("the other way round", connected(1, here, there, 1001, 77)),
            ("half an answer", connected(1, there, here, 1001, 77)[..70].to_vec()),
            ("none", Vec::new()),
        ] {
            assert_eq!(judge(&body), None, "{why}");
        }
    }

    #[test]
    fn a_broken_answer_is_an_error_or_nothing_and_never_a_panic() {
        let any: SocketAddr = "127.0.0.1:1".parse().unwrap();
        let mut none = |body: &[u8]| {
            assert_eq!(listener(body), None, "nothing listens in garbage");
            assert_eq!(client(body, any, any), None, "and nobody is connected");
        };

        for bytes in [&[][..], &[0; 3], &[0; 16], &[0xff; 64], &[8, 0, 0, 0, 20, 0, 0, 0]] {
            let _outcome = read(bytes, &mut none);
        }
        let mut short = question(AF_INET, NLM_F_REQUEST, &Id { ip: None, port: 1, remote: None });
        short.truncate(40);
        assert!(read(&short, &mut none).is_err());
    }
}
