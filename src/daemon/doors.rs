//! The doors of everybody who has a port, and where each leads now.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use tokio::sync::watch;

use crate::door::{Door, Lead, Route, Settings};
use crate::model::config::{Config, Door as Limits};
use crate::model::{InstanceId, Problem};
use crate::system::socket;

/// Every door.
pub(super) struct Doors {
    settings: watch::Sender<Arc<Settings>>,
    open: BTreeMap<InstanceId, Open>,
    /// Ports that should be a door's and are somebody else's, and what was said about it.
    taken: BTreeMap<InstanceId, (u16, Problem)>,
}

struct Open {
    port: u16,
    route: Lead,
    // Held for what dropping it does: the port is free then.
    _door: Door,
}

impl Doors {
    pub(super) fn new(config: &Config) -> Self {
        let (settings, _) = watch::channel(settings(config));
        Self { settings, open: BTreeMap::new(), taken: BTreeMap::new() }
    }

    /// Takes over changed limits; connections that are open keep theirs.
    pub(super) fn configure(&mut self, config: &Config) {
        let new = settings(config);
        if self.settings.borrow().listen != new.listen {
            self.open.clear();
        }
        self.settings.send_replace(new);
    }

    /// Opens what is missing and closes what is nobody's any more.
    pub(super) fn set(&mut self, wanted: &BTreeMap<InstanceId, u16>) {
        self.open.retain(|id, open| wanted.get(id) == Some(&open.port));
        self.taken.retain(|id, (port, _)| wanted.get(id) == Some(port));
        for (id, port) in wanted {
            if self.open.contains_key(id) {
                continue;
            }
            match self.open(id, *port) {
                Ok(open) => {
                    self.open.insert(id.clone(), open);
                    self.taken.remove(id);
                }
                Err(problem) => {
                    if self.taken.get(id).is_none_or(|(_, known)| *known != problem) {
                        tracing::warn!(user = %id.user, server = %id.server, port, %problem, "door not open");
                    }
                    self.taken.insert(id.clone(), (*port, problem));
                }
            }
        }
    }

    fn open(&self, id: &InstanceId, port: u16) -> Result<Open, Problem> {
        let listen = self.settings.borrow().listen;
        let cannot = |error: std::io::Error| Problem::new("[ports]", refusal(listen, port, &error));
        let listener = socket::listen(listen, port).map_err(cannot)?;
        let route = Lead::new(Route::Waiting);
        let follow = route.follow();
        let door = Door::open(listener, self.settings.subscribe(), id.clone(), follow).map_err(cannot)?;
        Ok(Open { port, route, _door: door })
    }

    /// Says where an instance's requests go now.
    pub(super) fn lead(&self, id: &InstanceId, route: Route) {
        if let Some(open) = self.open.get(id) {
            open.route.point(route);
        }
    }

    /// Why an instance's door is not open.
    pub(super) fn problem(&self, id: &InstanceId) -> Option<&Problem> {
        self.taken.get(id).map(|(_, problem)| problem)
    }

    /// Ports that cannot be doors on this host at present.
    pub(super) fn blocked(&self) -> BTreeSet<u16> {
        self.taken.values().map(|(port, _)| *port).collect()
    }

    /// Closes the doors of one user.
    pub(super) fn close(&mut self, user: &crate::model::UserName) {
        self.open.retain(|id, _| id.user != *user);
        self.taken.retain(|id, _| id.user != *user);
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
