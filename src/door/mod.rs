//! What users connect to: one listening socket per instance, held from the moment the instance has
//! a port to the moment its user is removed, so that a port outlives every run behind it.
//!
//! ```text
//! a client ──▶ accept ──▶ guest (one client connection) ──▶ proxy (one connection to the process)
//!              limits,    Host, Origin,                      waiting, headers, whose socket is that?
//!              whose      gate: may they come in?
//!              is it?
//! ```
//!
//! Where the process speaks lines on its standard input and output, a [`bridge`] stands in the place
//! of the proxy.
//!
//! A [`Door`] decides nothing about runs. It is told by [`Route`] where requests go now, and
//! follows; while the process is down, requests wait. It keeps no request and replays none: what
//! may have reached a process is never sent to another.
//!
//! The process sees its own address in Host, not the door's: many servers refuse any other name.
//! Authorization never reaches it; that header is for the door.
//!
//! Beside those of the picture (`accept`, `guest`, `proxy`): `gate` and `lobby` (who may come in, and who has not
//! shown it yet), `entrance` (the way past the port), `route` (where to), `stream` and `body` (what passes),
//! `answer` (our own words), `alarm` (how long all that may take).

mod accept;
mod alarm;
mod answer;
mod body;
pub mod bridge;
mod entrance;
mod gate;
mod guest;
mod lobby;
mod proxy;
mod route;
mod stream;

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use tokio::sync::{Notify, watch};

use crate::model::config;
use crate::model::{InstanceId, Moment, Refusals, RunId};
use crate::system::clock;
pub use crate::system::look::Held;
use crate::system::look::Owner;
use crate::system::ready::Awaited;
use crate::system::socket::Address;

use accept::Post;
use bridge::Bridge;
pub use entrance::Entrance;
pub use gate::Gate;
use lobby::Lobby;
pub use route::{Follow, Lead};
pub use stream::Listener;

/// Tells the sockets of the run's processes from others: a server that replaces its listener by
/// itself (a worker that was restarted) is still the same server. Asked seldom, and not again for a
/// socket on a port that it said yes to.
pub type Recheck = Arc<dyn Owner>;

/// What holds for every door alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// `[door]`
    pub limits: config::Door,
    /// `[ports] listen`
    pub listen: IpAddr,
}

/// What all doors share: who was refused lately, and who has not shown yet that they may pass.
#[derive(Debug, Default)]
pub struct House {
    refusals: Mutex<Refusals>,
    lobby: Arc<Lobby>,
}

impl House {
    /// Whose refusals were not all said, and how many more there were.
    pub fn unsaid(&self, now: Moment) -> Vec<(u32, u64)> {
        self.refusals().unsaid(now)
    }

    /// By which uids users are known from now on: strangers leave them room.
    pub fn know(&self, uids: BTreeSet<u32>) {
        self.lobby.know(uids);
    }

    fn refusals(&self) -> MutexGuard<'_, Refusals> {
        self.refusals.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What answers a door's requests.
pub enum Behind {
    /// A process that speaks HTTP itself, where the route leads when the request is sent.
    Http(Follow),
    /// A process that speaks lines, through this.
    Stdio(Arc<Bridge>),
}

/// Where a door's requests go now.
#[derive(Debug, Clone)]
pub enum Route {
    /// To this process.
    Ready(Upstream),
    /// A process will come soon: requests wait for it, up to `[door] wait`.
    Waiting,
    /// None will come by itself: 503 at once, with this reason (for people; no secret).
    Closed(String),
}

/// A process that is up.
#[derive(Clone)]
pub struct Upstream {
    /// Which run it is; a connection to another run is not used any more.
    pub run: RunId,
    /// Where it listens.
    pub addr: Address,
    /// The listening socket that was found to be the run's when it became ready.
    pub listener_inode: u64,
    /// What to ask when another socket listens there later; `None`: nobody else is right.
    pub recheck: Option<Recheck>,
}

impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "run {} at {}", self.run, self.addr)
    }
}

/// An instance's open door. Dropping it closes the port and every connection.
pub struct Door {
    addr: SocketAddr,
    frame: Arc<Frame>,
    post: Arc<Post>,
    side: Option<Arc<Post>>,
}

impl Door {
    /// Takes up a listening socket that does not block, and serves it; must be called on a tokio runtime.
    ///
    /// A connection is served by the settings of the moment it came in. Until
    /// [`guard`](Self::guard) says who may, nobody comes in.
    ///
    /// # Errors
    ///
    /// When the socket has no address, which says that it is no listening socket.
    pub fn open(
        listener: Awaited<TcpListener>,
        settings: watch::Receiver<Arc<Settings>>,
        instance: InstanceId,
        behind: Behind,
        house: Arc<House>,
    ) -> std::io::Result<Self> {
        let addr = listener.get().local_addr()?;
        let (known, gate, renewed) = (Mutex::default(), Mutex::default(), Notify::new());
        let frame = Arc::new(Frame { instance, settings, behind, known, gate, renewed, house });
        let post = Post::open(Listener::Tcp(listener), frame.clone());
        Ok(Self { addr, frame, post, side: None })
    }

    /// Says who may come in, from the next request on. Where the token is another, nobody is served any
    /// more who came in by the one before.
    pub fn guard(&self, gate: Gate) {
        let is_renewed = {
            let mut now = self.frame.gate();
            let is_renewed = now.token != gate.token;
            *now = gate;
            is_renewed
        };
        if is_renewed {
            self.frame.renewed.notify_waiters();
        }
    }

    /// Takes up another listening socket beside the port, or none, in the place of the last one.
    pub fn listen_beside(&mut self, listener: Option<Awaited<UnixListener>>) {
        if let Some(side) = self.side.take() {
            side.close();
        }
        self.side = listener.map(|listener| Post::open(Listener::Unix(listener), self.frame.clone()));
    }

    /// The way in from inside the house, to the endpoint at `path`.
    #[must_use]
    pub fn entrance(&self, path: String) -> Entrance {
        Entrance::new(self.frame.clone(), path)
    }

    /// Where it listens.
    #[must_use]
    pub const fn addr(&self) -> SocketAddr {
        self.addr
    }
}

impl fmt::Debug for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "door of {} at {}", self.frame.instance, self.addr)
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.post.close();
        if let Some(side) = &self.side {
            side.close();
        }
    }
}

/// What all connections of one door share.
struct Frame {
    instance: InstanceId,
    settings: watch::Receiver<Arc<Settings>>,
    behind: Behind,
    // Boxed, as most servers have one socket from beginning to end.
    known: Mutex<Option<Box<Known>>>,
    gate: Mutex<Gate>,
    /// The token is another.
    renewed: Notify,
    house: Arc<House>,
}

/// What was found out about sockets on the backend port.
#[derive(Default)]
struct Known {
    run: Option<RunId>,
    /// Sockets that were found to be the run's, beside the first one.
    own: Vec<u64>,
    /// The stranger's socket that was last written about in the log.
    told: u64,
}

impl Frame {
    fn gate(&self) -> MutexGuard<'_, Gate> {
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the log say that somebody was refused, unless it has said so often enough.
    fn tell_denied(&self, peer: Option<u32>, why: &'static str) {
        // No user has this uid (chown(2) takes it for "leave it").
        if self.house.refusals().note(peer.unwrap_or(u32::MAX), clock::now()) {
            let (user, server) = (&self.instance.user, &self.instance.server);
            let uid = peer.map_or_else(|| "unknown".to_owned(), |uid| uid.to_string());
            tracing::warn!(%user, %server, uid, why, "door refused");
        }
    }

    /// True if the socket is the run's.
    fn knows(&self, upstream: &Upstream, inode: u64) -> bool {
        if inode == 0 {
            return false;
        }
        if inode == upstream.listener_inode || self.remembers(upstream.run, inode) {
            return true;
        }
        let own = upstream.recheck.as_ref().is_some_and(|recheck| recheck.owns(Held::Inode(inode)));
        if own {
            self.remember(upstream.run, inode);
        }
        own
    }

    fn remembers(&self, run: RunId, inode: u64) -> bool {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.as_ref().is_some_and(|known| known.run == Some(run) && known.own.contains(&inode))
    }

    fn remember(&self, run: RunId, inode: u64) {
        const ENOUGH: usize = 64;
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let known = known.get_or_insert_default();
        if known.run != Some(run) || known.own.len() >= ENOUGH {
            known.run = Some(run);
            known.own.clear();
        }
        known.own.push(inode);
    }

    /// True if the process that listens on the run's own socket is of the run.
    fn knows_process(upstream: &Upstream, pid: i32) -> bool {
        upstream.recheck.as_ref().is_some_and(|recheck| recheck.owns(Held::Pid(pid)))
    }

    /// True the first time it is called for a stranger's socket.
    fn is_news(&self, inode: u64) -> bool {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut known.get_or_insert_default().told, inode) != inode
    }
}

#[cfg(test)]
mod tests;
