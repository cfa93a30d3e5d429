//! Whose processes, and whose sockets: what a probe and a door may know of a run's life.

use std::sync::Arc;

use super::process::Life;
use super::socket;

/// Somebody whose sockets can be told from others'.
pub trait Owner: Send + Sync {
    /// True if the socket with this inode is theirs at this moment.
    fn owns(&self, inode: u64) -> bool;
}

impl<F: Fn(u64) -> bool + Send + Sync> Owner for F {
    fn owns(&self, inode: u64) -> bool {
        self(inode)
    }
}

impl Owner for Life {
    fn owns(&self, inode: u64) -> bool {
        socket::owned_by(inode, self.pids())
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
