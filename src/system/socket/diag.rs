//! The kernel's table of listening TCP sockets, asked over netlink (`sock_diag(7)`).
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
    match ask(family, NLM_F_REQUEST, Some(addr.ip()), addr.port(), |listener| {
        found = Some(listener);
    }) {
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

/// `port` 0 is the kernel's "any".
fn all(port: u16) -> io::Result<Vec<Listener>> {
    let mut found = Vec::new();
    for family in [AF_INET, AF_INET6] {
        match ask(family, NLM_F_REQUEST | NLM_F_DUMP, None, port, |listener| {
            found.push(listener);
        }) {
            // A kernel without IPv6 has no handler for it and nobody listening there.
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(found)
}

fn ask(
    family: u8,
    flags: u16,
    ip: Option<IpAddr>,
    port: u16,
    mut found: impl FnMut(Listener),
) -> Result<(), Errno> {
    let netlink = open()?;
    let question = question(family, flags, ip, port);
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
fn question(family: u8, flags: u16, ip: Option<IpAddr>, port: u16) -> Vec<u8> {
    const LENGTH: u32 = 72;
    let mut bytes = Vec::with_capacity(72);
    bytes.extend(LENGTH.to_ne_bytes());
    bytes.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend(1u32.to_ne_bytes()); // sequence
    bytes.extend(0u32.to_ne_bytes()); // the kernel fills in our address
    bytes.extend([family, IPPROTO_TCP, 0, 0]);
    bytes.extend((1u32 << LISTEN).to_ne_bytes());
    bytes.extend(port.to_be_bytes());
    bytes.extend([0; 2]); // remote port: none, it listens
    match ip {
        Some(IpAddr::V4(ip)) => {
            bytes.extend(ip.octets());
            bytes.extend([0; 12]);
        }
        Some(IpAddr::V6(ip)) => bytes.extend(ip.octets()),
        None => bytes.extend([0; 16]),
    }
    bytes.extend([0; 16 + 4]); // remote address, interface
    bytes.extend([0xff; 8]); // INET_DIAG_NOCOOKIE
    bytes
}

/// Reads the messages of one datagram; true if it was the last.
fn read(mut bytes: &[u8], found: &mut impl FnMut(Listener)) -> Result<bool, Errno> {
    while let (Some(length), Some(kind)) = (u32_at(bytes, 0), u16_at(bytes, 4)) {
        let length = usize::try_from(length).map_err(|_| Errno::EBADMSG)?;
        let body = bytes.get(HEADER..length).ok_or(Errno::EBADMSG)?;
        match kind {
            NLMSG_DONE => return Ok(true),
            NLMSG_ERROR => {
                let code = u32_at(body, 0).ok_or(Errno::EBADMSG)?.cast_signed();
                return if code == 0 { Ok(true) } else { Err(Errno::from_raw(-code)) };
            }
            SOCK_DIAG_BY_FAMILY => {
                if let Some(listener) = listener(body) {
                    found(listener);
                }
            }
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
    let ip = if fixed[0] == AF_INET {
        IpAddr::from(<[u8; 4]>::try_from(&fixed[8..12]).ok()?)
    } else {
        IpAddr::from(<[u8; 16]>::try_from(&fixed[8..24]).ok()?)
    };
    let port = u16::from_be_bytes([fixed[4], fixed[5]]);
    let mut v6only = false;
    while let (Some(length), Some(kind)) = (u16_at(attributes, 0), u16_at(attributes, 2)) {
        if kind == INET_DIAG_SKV6ONLY {
            v6only = attributes.get(4).is_some_and(|value| *value != 0);
        }
        attributes = attributes.get(usize::from(length).max(4).next_multiple_of(4)..)?;
    }
    let uid = u32_at(fixed, 64)?;
    let inode = u64::from(u32_at(fixed, 68)?);
    Some(Listener { addr: SocketAddr::new(ip, port), v6only, inode, uid })
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

    #[test]
    fn a_broken_answer_is_an_error_or_nothing_and_never_a_panic() {
        let mut none = |_| panic!("nothing listens in garbage");
        for bytes in [&[][..], &[0; 3], &[0; 16], &[0xff; 64], &[8, 0, 0, 0, 20, 0, 0, 0]] {
            let _outcome = read(bytes, &mut none);
        }
        let mut short = question(AF_INET, NLM_F_REQUEST, None, 1);
        short.truncate(40);
        assert!(read(&short, &mut none).is_err());
    }
}
