//! Who is at the other end of a Unix socket: the kernel's answer and nobody else's.
//!
//! Nothing here decides what somebody may do; that is `logic::access`.

use std::io;
use std::os::fd::AsFd;

use nix::sys::socket::{getsockopt, sockopt};

/// `SO_PEERCRED`: what the other end was when it called connect (unix(7)). It does not change
/// when the process changes its identity later, or hands the socket on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Credentials {
    /// Effective user id.
    pub uid: u32,
    /// Effective group id.
    pub gid: u32,
    /// Process id; for logs only, it may be somebody else's by now.
    pub pid: i32,
}

/// The credentials of a connected Unix socket's other end.
///
/// # Errors
///
/// When `socket` is not a Unix socket.
pub fn credentials(socket: impl AsFd) -> io::Result<Credentials> {
    let told = getsockopt(&socket, sockopt::PeerCredentials)?;
    Ok(Credentials { uid: told.uid(), gid: told.gid(), pid: told.pid() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::account::own_uid;
    use std::net::{TcpListener, TcpStream};
    use std::os::unix::net::UnixStream;

    #[test]
    fn the_kernel_says_who_is_at_the_other_end() {
        let (here, _there) = UnixStream::pair().unwrap();
        let told = credentials(&here).unwrap();
        assert_eq!(told.uid, own_uid());
        assert_eq!(told.pid, i32::try_from(std::process::id()).unwrap());
    }

    #[test]
    fn a_tcp_socket_has_no_user() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let told = credentials(&stream);
        assert!(told.is_err() || told.is_ok_and(|c| c.uid == u32::MAX), "never somebody");
    }
}
