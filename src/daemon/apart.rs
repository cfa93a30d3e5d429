//! What keeps users apart on this host, and what of that is to be said.
//!
//! [`Site::promises`] decides what is said; here it is found out what the host allows, for the
//! daemon and for `mcpsup check` in the same way.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use crate::logic::access;
use crate::logic::cage::{Cages, Site};
use crate::logic::instance::Want;
use crate::model::cage::{Apart, Ground, Promise};
use crate::model::config::Server;
use crate::model::{Config, ServerName};
use crate::system::containment::{self, Containment};
use crate::system::places::Places;
use crate::system::{account, ground};

use super::Daemon;
use super::hidden::{self, Unseen};

/// What a daemon would keep apart here if the caller started it. What is tried is undone.
///
/// # Errors
///
/// When what `[daemon] containment` asks for cannot be had, or nothing can be tried.
pub fn foresee(places: &Places, config: &Config) -> io::Result<Apartness> {
    let ground = ground::look()?;
    let name = format!("check-{}", std::process::id());
    let asked = &config.daemon;
    let containment = containment::choose(asked.containment, asked.cgroup_root.as_deref(), &name, &ground)?;
    if let Containment::Cgroup(root) = &containment {
        root.remove()?;
    }
    let site = site(ground, &containment, places, config);
    Ok(Apartness {
        apart: site.apart(),
        refusal: site.refusal(),
        unseen: hidden::named((&site.hidden, site.ground.mounts.works()), places, config),
        unlimited: site.unlimited,
    })
}

/// What is said, and why nothing would be started if so.
#[derive(Debug)]
pub struct Apartness {
    /// What is said.
    pub apart: Apart,
    /// `[daemon] isolation` asks for more.
    pub refusal: Option<String>,
    /// Limits that are asked for and would not hold, as `status` says it.
    pub unlimited: Vec<String>,
    /// What servers name and would not see.
    pub unseen: BTreeMap<ServerName, BTreeSet<Unseen>>,
}

impl Apartness {
    /// What is said of what servers name and would not see.
    pub fn unseen_notes(&self) -> impl Iterator<Item = String> {
        self.unseen.iter().flat_map(|(server, all)| all.iter().map(|unseen| unseen.note(server)))
    }
}

/// The site of a daemon, for this configuration.
pub(super) fn site(ground: Ground, containment: &Containment, places: &Places, config: &Config) -> Site {
    Site {
        ground,
        tree: containment.into(),
        hidden: hidden::all(places, account::own_uid() == 0),
        isolation: config.daemon.isolation,
        unlimited: unlimited(containment, config),
    }
}

/// What each server's limits lack here: `limits of server "x" not enforced on this host: memory`.
fn unlimited(containment: &Containment, config: &Config) -> Vec<String> {
    let servers = config.servers.iter().map(|(name, server)| (name, containment.lacks(&server.limits)));
    let short = servers.filter(|(_, lacking)| !lacking.is_empty());
    short
        .map(|(name, lacking)| {
            format!("limits of server \"{name}\" not enforced on this host: {}", lacking.join(", "))
        })
        .collect()
}

impl Daemon {
    /// Takes what the configuration says of isolation, and what there is to hide by now. What runs goes on as it
    /// was begun, unless its cage is another now.
    pub(super) fn keep_apart(&mut self) {
        self.site.hidden = hidden::all(&self.places, self.is_root);
        self.site.isolation = self.config.daemon.isolation;
        self.site.unlimited = unlimited(self.processes.containment(), &self.config);
        self.cages = Cages::new(&self.site, &self.config);
        if let Some(refusal) = self.site.refusal() {
            tracing::error!("{refusal}; nothing is started");
        }
    }

    /// Says them in the log.
    pub(super) fn log_promises(&self) {
        for Promise { what, kept, by } in self.site.promises() {
            if kept {
                tracing::info!(by, "kept: {what}");
            } else {
                tracing::warn!(why = by, "not kept: {what}");
            }
        }
    }

    /// Things an administrator should know.
    pub(super) fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        notes.extend(access::notes(&self.config));
        notes.extend(self.roster.notes());
        notes.extend(self.who_needs_tokens());
        notes.extend(self.sources.watcher.problem().map(str::to_owned));
        notes.extend(self.site.unlimited.iter().cloned());
        notes.extend(self.doors.note());
        notes.extend(self.site.refusal());
        for (name, server) in &self.config.servers {
            if server.secrets_in_argv {
                notes.push(format!("server \"{name}\" says secrets_in_argv: its arguments may show credentials to every user of this host"));
            }
            let given = opened(server, !self.site.ground.accounts.works());
            if !given.is_empty() {
                notes.push(format!("server \"{name}\" is allowed more than others: {}", given.join(", ")));
            }
        }
        let as_root: BTreeSet<&str> = self
            .fleet
            .iter()
            .filter(|(_, instance)| runs_as_root(instance.wanted()))
            .map(|(id, _)| id.user.as_str())
            .collect();
        if !as_root.is_empty() {
            let users: Vec<&str> = as_root.into_iter().collect();
            notes.push(format!(
                "servers run as root, as MCPSUP_RUN_AS says: those of {}; without root's rights, but they see each other's arguments",
                users.join(", ")
            ));
        }
        if let Containment::Session = self.processes.containment() {
            notes.push("process trees are kept together by session only (no cgroup v2 that this daemon may use): one that detaches on purpose may be left behind".to_owned());
        }
        notes
    }
}

/// What `[server.NAME.allow]` gives away, and, where users share an account, `{socket}`.
fn opened(server: &Server, is_shared: bool) -> Vec<String> {
    let allow = &server.allow;
    let unix_sockets = if is_shared { server.opens_unix_sockets() } else { allow.unix_sockets };
    let flags = [("unix_sockets", unix_sockets), ("namespaces", allow.namespaces), ("modes", allow.modes)];
    let flags = flags.into_iter().filter(|(_, is_set)| *is_set).map(|(name, _)| name.to_owned());
    let written = allow.write.iter().map(|path| format!("write {}", path.display()));
    flags.chain(written).collect()
}

fn runs_as_root(want: &Want) -> bool {
    matches!(want, Want::Always(spec) if spec.account.as_ref().is_some_and(|account| account.uid == 0))
}
