//! Listening sockets: making one, and finding out whose one is.
//!
//! A port number proves nothing: whoever binds it first gets the connections. So before a byte of
//! a user goes to a port, the kernel's own socket table (`diag`) says which socket listens there,
//! and `/proc` says whether one of the run's processes holds that socket ([`owned_by`]).
//!
//! Nothing here connects anywhere, and nothing decides what follows from an answer; see
//! [`probe`](super::probe) for "is it ready" and `door::link` for "may I send".

mod diag;

use std::collections::HashSet;
use std::fmt;
use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};

use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with, sockopt};

pub use diag::{Listener, all_at, everywhere, listener_at};

/// How many connections the kernel keeps for a door that has not accepted them yet; more than any
/// door's connection limit, so that a burst meets our answer and not a dropped SYN.
const BACKLOG: i32 = 1024;

/// Opens a listening socket: close-on-exec, non-blocking, and with `SO_REUSEADDR`, so that
/// connections of an earlier daemon in TIME-WAIT do not keep its port from us.
///
/// # Errors
///
/// `AddrInUse` when somebody listens there already ([`holder`] says who), `PermissionDenied` for
/// a privileged port, or the cause from the kernel.
pub fn listen(addr: IpAddr, port: u16) -> io::Result<TcpListener> {
    let family = if addr.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(family, SocketType::STREAM, flags, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    bind(&socket, &SocketAddr::new(addr, port))?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(socket.into())
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
