//! Doors in the keeping of a service manager: while there is no daemon, their ports are open and their
//! users' all the same.
//!
//! The manager is given each door when it opens, under a name that says whose it is, and is told to
//! let go of it when it is a door no more. What it gives back to the next daemon is taken up where a
//! door is wanted at that very address; everything else is closed.

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use crate::model::InstanceId;
use crate::system::notify::{Manager, Started, listener as listener_of, listens_at, shut};
use crate::system::socket;

/// The manager's keeping.
pub(super) struct Keeping {
    manager: Option<Arc<Manager>>,
    /// How many it keeps.
    most: usize,
    kept: usize,
    /// Doors that were not kept because that was too few.
    left_out: usize,
    /// What an earlier daemon left, until it is taken up.
    given: BTreeMap<SocketAddr, Given>,
}

struct Given {
    name: String,
    descriptor: OwnedFd,
}

/// One door in it.
pub(super) struct Kept {
    name: String,
    /// The same socket: the port is free for another only when nobody listens on it.
    listener: TcpListener,
}

impl Keeping {
    /// What is no listening socket is closed.
    pub(super) fn new(started: Started) -> Self {
        let Started { manager, store, given, watchdog: _ } = started;
        let mut keeping = Self { manager, most: store, kept: 0, left_out: 0, given: BTreeMap::new() };
        for (name, descriptor) in given {
            match listens_at(&descriptor) {
                Some(addr) => {
                    let again = keeping.given.insert(addr, Given { name, descriptor });
                    keeping.kept += 1;
                    if let Some(given) = again {
                        keeping.close(&given, "kept twice");
                    }
                }
                None => keeping.forget(&name, "no listening socket"),
            }
        }
        keeping
    }

    /// A listening socket for an instance's door, the one that was kept or a new one, and what keeps it
    /// from now on.
    ///
    /// # Errors
    ///
    /// As [`socket::listen`].
    pub(super) fn listen(
        &mut self,
        id: &InstanceId,
        addr: SocketAddr,
    ) -> io::Result<(TcpListener, Option<Kept>)> {
        // The port is needed of one that listens on it at another address.
        let others = |other: &&SocketAddr| other.port() == addr.port() && **other != addr;
        let others: Vec<SocketAddr> = self.given.keys().filter(others).copied().collect();
        for given in others.iter().filter_map(|other| self.given.remove(other)).collect::<Vec<_>>() {
            self.close(&given, "another address now");
        }
        let name = name_of(id, addr.port());
        let Some(given) = self.given.remove(&addr) else {
            let listener = socket::listen(addr.ip(), addr.port())?;
            let kept = self.keep(name, &listener);
            return Ok((listener, kept));
        };
        let listener = listener_of(given.descriptor)?;
        if given.name != name {
            self.forget(&given.name, "another's now");
            self.kept = self.kept.saturating_sub(1);
            let kept = self.keep(name, &listener);
            return Ok((listener, kept));
        }
        tracing::debug!(name, "door taken up again");
        let twin = listener.try_clone()?;
        Ok((listener, Some(Kept { name, listener: twin })))
    }

    fn keep(&mut self, name: String, listener: &TcpListener) -> Option<Kept> {
        let manager = self.manager.as_ref().filter(|_| self.most > 0)?;
        if self.kept >= self.most {
            self.left_out += 1;
            return None;
        }
        let listener = listener.try_clone().ok()?;
        manager.keep(&name, &listener);
        self.kept += 1;
        Some(Kept { name, listener })
    }

    /// Takes a door out of it, for good: its port is free.
    pub(super) fn give_up(&mut self, kept: &Kept) {
        shut(&kept.listener);
        self.kept = self.kept.saturating_sub(1);
        self.tell(&kept.name);
    }

    /// Closes what no door was wanted for.
    pub(super) fn close_unclaimed(&mut self) {
        for given in std::mem::take(&mut self.given).into_values() {
            self.close(&given, "no door is wanted there");
        }
    }

    /// What is to be said where not every door is kept.
    pub(super) fn note(&self) -> Option<String> {
        if self.most == 0 {
            return Some("while the daemon is restarted, users' ports are nobody's: a client is refused, and somebody else could listen there; systemd's file descriptor store would keep them (FileDescriptorStoreMax= in mcpsup.service)".to_owned());
        }
        (self.left_out > 0).then(|| {
            format!("while the daemon is restarted, the ports of {} doors are nobody's: the service manager keeps {}; FileDescriptorStoreMax= says how many", self.left_out, self.most)
        })
    }

    fn close(&mut self, given: &Given, why: &str) {
        shut(&given.descriptor);
        self.kept = self.kept.saturating_sub(1);
        self.forget(&given.name, why);
    }

    fn forget(&self, name: &str, why: &str) {
        tracing::warn!(name, why, "kept socket closed");
        self.tell(name);
    }

    fn tell(&self, name: &str) {
        if let Some(manager) = &self.manager {
            manager.forget(name);
        }
    }
}

/// Everybody can read it; a user and a port are in the port map as well.
fn name_of(id: &InstanceId, port: u16) -> String {
    format!("{}/{}@{port}", id.user, id.server)
}
