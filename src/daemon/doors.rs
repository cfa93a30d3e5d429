//! The doors of everybody who has a port, and where each leads now.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::watch;

use super::kept::{Keeping, Kept};
use crate::door::bridge::Bridge;
use crate::door::{Behind, Door, Entrance, Gate, House, Lead, Route, Settings};
use crate::model::config::{Config, Door as Limits};
use crate::model::{InstanceId, Moment, Problem, Whom, pack};
use crate::system::ready::Hub;
use crate::system::{account, files, socket};

/// Every door.
pub(super) struct Doors {
    settings: watch::Sender<Arc<Settings>>,
    house: Arc<House>,
    /// Where the doors in the file system are: `USER/SERVER.sock`.
    dir: PathBuf,
    /// Where clients are waited for.
    hub: Arc<Hub>,
    open: BTreeMap<InstanceId, Open>,
    /// Ports that should be a door's and are somebody else's, and what was said about it.
    taken: BTreeMap<InstanceId, Taken>,
    /// Where they are while there is no daemon.
    keeping: Keeping,
}

struct Taken {
    port: u16,
    problem: Problem,
    /// Somebody listens there; else the port cannot be had for another reason.
    is_held: bool,
}

/// Where a door is to be, and what stands behind it if it is no http process.
pub(super) struct Place {
    pub(super) port: u16,
    pub(super) bridge: Option<Arc<Bridge>>,
}

struct Open {
    port: u16,
    behind: Leads,
    /// Dropping it frees the port, where nobody else keeps it.
    door: Door,
    kept: Option<Box<Kept>>,
    /// Its user's connection alone does not let them in.
    takes_token: bool,
    /// Its socket in the file system, and whose that is.
    // Boxed, as few have one.
    beside: Option<Box<(PathBuf, u32)>>,
}

/// How a door is told where requests go.
enum Leads {
    /// To the process.
    Http(Lead),
    /// To the bridge, which knows itself.
    Stdio(Arc<Bridge>),
}

impl Open {
    fn is_at(&self, place: &Place) -> bool {
        let same = match (&self.behind, &place.bridge) {
            (Leads::Http(_), None) => true,
            (Leads::Stdio(one), Some(other)) => Arc::ptr_eq(one, other),
            (Leads::Http(_), Some(_)) | (Leads::Stdio(_), None) => false,
        };
        same && self.port == place.port
    }
}

impl Doors {
    /// Sockets will be below `dir`; what an earlier daemon left there goes.
    pub(super) fn new(config: &Config, hub: Arc<Hub>, dir: PathBuf, keeping: Keeping) -> Self {
        let (settings, _) = watch::channel(settings(config));
        let house = Arc::default();
        remove_all(&dir);
        let (open, taken) = (BTreeMap::new(), BTreeMap::new());
        Self { settings, house, dir, hub, open, taken, keeping }
    }

    /// Takes over changed limits; connections that are open keep theirs.
    pub(super) fn configure(&mut self, config: &Config) {
        let new = settings(config);
        if self.settings.borrow().listen != new.listen {
            self.shut_all(|_| true);
        }
        self.settings.send_replace(new);
    }

    /// Opens what `whom` lacks and closes what is theirs no more.
    pub(super) fn set(&mut self, whom: &Whom, wanted: &BTreeMap<InstanceId, Place>) {
        let is_over =
            |(id, open): &(&InstanceId, &Open)| wanted.get(*id).is_none_or(|place| !open.is_at(place));
        let over: Vec<InstanceId> = whom.of(&self.open).filter(is_over).map(|(id, _)| id.clone()).collect();
        for id in over {
            self.shut(&id);
        }
        self.taken.retain(|id, taken| {
            !whom.has(&id.user) || wanted.get(id).is_some_and(|place| place.port == taken.port)
        });
        for (id, place) in wanted {
            if self.open.contains_key(id) {
                continue;
            }
            let port = &place.port;
            match self.open(id, place) {
                Ok(open) => {
                    self.open.insert(id.clone(), open);
                    self.taken.remove(id);
                }
                Err(error) => {
                    let listen = self.settings.borrow().listen;
                    let problem = Problem::new("[ports]", refusal(listen, *port, &error));
                    let is_held = error.kind() == std::io::ErrorKind::AddrInUse;
                    self.taken.insert(id.clone(), Taken { port: *port, problem, is_held });
                }
            }
        }
    }

    fn open(&mut self, id: &InstanceId, place: &Place) -> std::io::Result<Open> {
        let listen = self.settings.borrow().listen;
        let (listener, kept) = self.keeping.listen(id, SocketAddr::new(listen, place.port))?;
        match self.open_on(listener, id, place) {
            Ok((behind, door)) => {
                let kept = kept.map(Box::new);
                Ok(Open { port: place.port, behind, door, kept, takes_token: false, beside: None })
            }
            Err(error) => {
                if let Some(kept) = kept {
                    self.keeping.give_up(&kept);
                }
                Err(error)
            }
        }
    }

    fn open_on(&self, listener: TcpListener, id: &InstanceId, place: &Place) -> io::Result<(Leads, Door)> {
        let listener = self.hub.add(listener)?;
        let (leads, behind) = if let Some(bridge) = &place.bridge {
            (Leads::Stdio(Arc::clone(bridge)), Behind::Stdio(Arc::clone(bridge)))
        } else {
            let route = Lead::new(Route::Waiting);
            let behind = Behind::Http(route.follow());
            (Leads::Http(route), behind)
        };
        let house = Arc::clone(&self.house);
        Ok((leads, Door::open(listener, self.settings.subscribe(), id.clone(), behind, house)?))
    }

    /// Every door that is open.
    pub(super) fn ids(&self) -> impl Iterator<Item = &InstanceId> {
        self.open.keys()
    }

    /// True if a user's connection alone does not let them in at their door.
    pub(super) fn takes_token(&self, id: &InstanceId) -> bool {
        self.open.get(id).is_some_and(|open| open.takes_token)
    }

    /// By which uids users are known from now on.
    pub(super) fn know(&self, uids: BTreeSet<u32>) {
        self.house.know(uids);
    }

    /// Says who may come in at a door, and whether its own user needs a token; true if the latter is
    /// news.
    pub(super) fn guard(&mut self, id: &InstanceId, gate: Gate, takes_token: bool) -> bool {
        let is_wanted = self.settings.borrow().limits.unix;
        let Some(open) = self.open.get_mut(id) else { return false };
        let is_news = open.takes_token != takes_token;
        open.takes_token = takes_token;
        // A socket of root's daemon is its user's; one of an ordinary user's daemon can only be theirs.
        let owner = gate.guard.owner.filter(|_| gate.guard.admits_root).unwrap_or_else(account::own_uid);
        if open.beside.as_ref().map(|beside| beside.1) != is_wanted.then_some(owner) {
            open.door.listen_beside(None);
            open.beside = None;
            let path = self.dir.join(id.user.as_str()).join(format!("{}.sock", id.server));
            if is_wanted {
                match socket::listen_at(&path, owner).and_then(|listener| self.hub.add(listener)) {
                    Ok(listener) => {
                        open.door.listen_beside(Some(listener));
                        open.beside = Some(Box::new((path, owner)));
                    }
                    Err(cause) => {
                        tracing::warn!(user = %id.user, server = %id.server, path = %path.display(), %cause, "no socket beside the port");
                    }
                }
            } else if let Err(error) = files::remove(&path) {
                tracing::warn!(error = super::store::chain(&error), "left behind");
            }
        }
        open.door.guard(gate);
        is_news
    }

    /// Whose refusals at doors were not all said, and how many more there were.
    pub(super) fn unsaid(&self, now: Moment) -> Vec<(u32, u64)> {
        self.house.unsaid(now)
    }

    /// Removes what would look like doors when the daemon has gone.
    pub(super) fn leave(&self) {
        remove_all(&self.dir);
    }

    /// Makes the table as small as it can be.
    pub(super) fn pack(&mut self) {
        pack(&mut self.open);
    }

    /// Says where the requests for an http instance go now.
    pub(super) fn lead(&self, id: &InstanceId, route: Route) {
        if let Some(Open { behind: Leads::Http(lead), .. }) = self.open.get(id) {
            lead.point(route);
        }
    }

    /// The way to an instance from inside, to its endpoint at `path`; `None` while its door is shut.
    pub(super) fn entrance(&self, id: &InstanceId, path: String) -> Option<Entrance> {
        self.open.get(id).map(|open| open.door.entrance(path))
    }

    /// Why an instance's door is not open.
    pub(super) fn problem(&self, id: &InstanceId) -> Option<&Problem> {
        self.taken.get(id).map(|taken| &taken.problem)
    }

    /// True if a door is not open that should be: it is tried again when it is
    /// [set](Self::set) the next time.
    pub(super) fn are_lacking(&self) -> bool {
        !self.taken.is_empty()
    }

    /// Ports that cannot be doors on this host at present.
    pub(super) fn blocked(&self) -> BTreeSet<u16> {
        self.taken.values().map(|taken| taken.port).collect()
    }

    /// Doors on whose port somebody else listens.
    pub(super) fn held(&self) -> impl Iterator<Item = (&InstanceId, u16)> {
        let held = self.taken.iter().filter(|(_, taken)| taken.is_held);
        held.map(|(id, taken)| (id, taken.port))
    }

    /// Closes what was kept for us and is no door any more. To be called once it is known which doors
    /// are wanted.
    pub(super) fn close_unclaimed(&mut self) {
        self.keeping.close_unclaimed();
    }

    /// What is to be said of the ports while there is no daemon.
    pub(super) fn note(&self) -> Option<String> {
        self.keeping.note()
    }

    /// Closes a door for good.
    fn shut(&mut self, id: &InstanceId) {
        if let Some(kept) = self.open.remove(id).and_then(|mut open| open.kept.take()) {
            self.keeping.give_up(&kept);
        }
    }

    fn shut_all(&mut self, is_meant: impl Fn(&InstanceId) -> bool) {
        let over: Vec<InstanceId> = self.open.keys().filter(|id| is_meant(id)).cloned().collect();
        for id in over {
            self.shut(&id);
        }
    }

    /// Closes the doors of one user.
    pub(super) fn close(&mut self, user: &crate::model::UserName) {
        self.shut_all(|id| id.user == *user);
        self.taken.retain(|id, _| id.user != *user);
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if let Some(beside) = &self.beside
            && let Err(error) = files::remove(&beside.0)
        {
            tracing::warn!(error = super::store::chain(&error), "left behind");
        }
    }
}

fn remove_all(dir: &std::path::Path) {
    if let Err(cause) = files::remove_all(dir) {
        tracing::warn!(dir = %dir.display(), %cause, "cannot remove sockets of doors");
    }
}

fn settings(config: &Config) -> Arc<Settings> {
    let limits: Limits = config.door.clone();
    Arc::new(Settings { limits, listen: config.ports.listen })
}

fn refusal(listen: IpAddr, port: u16, error: &std::io::Error) -> String {
    if error.kind() == std::io::ErrorKind::AddrInUse {
        let holder = socket::holder(port).ok().flatten();
        let by = holder.map_or_else(|| "somebody else".to_owned(), |holder| holder.to_string());
        format!("port {port} is held by {by}; end that, or pin another port with MCPSUP_PORT")
    } else {
        format!("cannot listen on {listen} port {port}: {error}")
    }
}
