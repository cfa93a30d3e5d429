//! Whose processes, and whose sockets: what a probe and a door may know of a run's life.

use std::sync::Arc;

use super::process::Life;
use super::socket;

/// Somebody whose sockets can be told from others'.
pub trait Owner: Send + Sync {
    /// True if this socket is theirs at this moment.
    fn owns(&self, held: Held) -> bool;
}

/// By what a socket is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Held {
    /// The inode of one that listens on a port.
    Inode(u64),
    /// The process that had one listen in the file system.
    Pid(i32),
}

impl<F: Fn(Held) -> bool + Send + Sync> Owner for F {
    fn owns(&self, held: Held) -> bool {
        self(held)
    }
}

impl Owner for Life {
    fn owns(&self, held: Held) -> bool {
        match held {
            Held::Inode(inode) => socket::owned_by(inode, self.pids()),
            Held::Pid(pid) => self.pids().any(|one| one == pid),
        }
    }
}

/// A look at the processes of one run.
#[derive(Debug)]
pub struct Look(Arc<Life>);

impl Look {
    pub(super) fn at(life: Arc<Life>) -> Self {
        Self(life)
    }

    /// Those of this moment.
    pub fn pids(&self) -> impl Iterator<Item = i32> {
        self.0.pids()
    }
}
