//! What keeps users apart on this host, and what of that is to be said.
//!
//! [`Site::promises`] decides what is said; here it is found out what the host allows, for the
//! daemon and for `mcpsup check` in the same way.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use crate::logic::access;
use crate::logic::cage::{Cages, Site};
use crate::logic::instance::Want;
use crate::model::Config;
use crate::model::cage::{Apart, Ground, Promise};
use crate::model::config::{Piece, Server};
use crate::system::containment::{self, Containment};
use crate::system::places::Places;
use crate::system::{account, files, ground};

use super::Daemon;

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
        unseen: unseen(&site.hidden, places, config),
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
    /// What servers name and would not see, likewise.
    pub unseen: Vec<String>,
}

/// The site of a daemon, for this configuration.
pub(super) fn site(ground: Ground, containment: &Containment, places: &Places, config: &Config) -> Site {
    Site {
        ground,
        tree: containment.into(),
        hidden: hidden(places, account::own_uid() == 0),
        isolation: config.daemon.isolation,
        unlimited: unlimited(containment, config),
    }
}

/// What is not ours, and no server's either. What listens in the first acts for whoever is logged in; what
/// lies in the second is for one service.
const OTHERS: [&str; 2] = ["/run/user", "/run/credentials"];
/// Nor are these, from which systemd takes what it gives services: a server that runs as root could read them,
/// and no other can. Where nothing can be mounted, to hide them would take what is new in `/etc` from
/// whoever runs already: the resolv.conf of another network, say.
const ROOTS: [&str; 4] =
    ["/run/credstore", "/run/credstore.encrypted", "/etc/credstore", "/etc/credstore.encrypted"];

/// What no run may see. A file can be hidden only where nothing is mounted; with Landlock it is kept out of
/// what a server is allowed to write to.
fn hidden(places: &Places, is_root: bool) -> Vec<PathBuf> {
    let roots: &[&str] = if is_root { &ROOTS } else { &[] };
    // First, for what of ours is in them is hidden with them.
    let others = OTHERS.iter().chain(roots).map(PathBuf::from);
    // A link would lead around what only its name hides.
    let ours = [&places.env_dir, &places.state, &places.runtime, &places.logs, &places.config];
    let ours = ours.into_iter().chain(&places.credentials).map(|path| files::real(path));
    // Whether or not they are there: another daemon may begin later, and a run that begins after it sees nothing of it.
    let personal: Vec<PathBuf> = places.personal.iter().map(|dir| files::real(dir)).collect();
    let is_in_them = |path: &PathBuf| personal.iter().any(|dir| path.starts_with(dir));
    let elsewhere: Vec<PathBuf> =
        ours.chain(places.of_the_same_person()).filter(|path| !is_in_them(path)).collect();
    others.chain(personal).chain(elsewhere).collect()
}

/// What servers name in `command`, `working_dir` or `allow.write`, and none of them sees: a program there is
/// not found, whatever `ls` says. `/run/user` is not meant: an argument may name a socket in it.
fn unseen(hidden: &[PathBuf], places: &Places, config: &Config) -> Vec<String> {
    let Places { env_dir, state, runtime, logs, personal, .. } = places;
    // As somebody may spell them, beside what they lead to.
    let spelled = [env_dir, state, runtime, logs].into_iter().chain(personal);
    let ours: Vec<&PathBuf> = hidden
        .iter()
        .filter(|dir| !OTHERS.iter().any(|other| dir.starts_with(other)))
        .chain(spelled)
        .collect();
    let own = [state, runtime].map(|dir| dir.join("instances"));
    let own: Vec<PathBuf> = own.iter().map(|dir| files::real(dir)).chain(own.clone()).collect();
    let mut notes = Vec::new();
    for (name, server) in &config.servers {
        let words = server.command.iter().chain(&server.working_dir).filter_map(|word| match &*word.0 {
            [Piece::Text(text), ..] => Some(Path::new(&**text)),
            _ => None,
        });
        let named = words.chain(server.allow.write.iter().map(PathBuf::as_path));
        for path in named.filter(|path| !own.iter().any(|own| path.starts_with(own))) {
            if let Some(dir) = ours.iter().find(|dir| path.starts_with(dir)) {
                let (path, dir) = (path.display(), dir.display());
                notes.push(format!(
                    "not seen by servers: {path}, which server \"{name}\" names, for nothing in {dir} is"
                ));
            }
        }
    }
    notes
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
        self.site.hidden = hidden(&self.places, self.is_root);
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
        notes.extend(unseen(&self.site.hidden, &self.places, &self.config));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_place_of_the_daemons_is_hidden_and_what_systemd_gives_it_or_others() {
        let system = Places::of_the_system();
        let given = Some("/somewhere/given".into());
        for places in [Places { credentials: given, ..system.clone() }, system] {
            let hidden = hidden(&places, true);
            let Places { config, env_dir, runtime, state, logs, credentials, personal: _ } = places;
            let others = OTHERS.iter().chain(&ROOTS).map(PathBuf::from);
            for place in [config, env_dir, runtime, state, logs].into_iter().chain(others) {
                assert!(hidden.contains(&place), "{}", place.display());
            }
            assert!(hidden.contains(&credentials.unwrap()));
        }
    }

    #[test]
    fn what_other_daemons_of_the_same_user_have_is_hidden_from_servers_of_each() {
        let home = tempfile::tempdir().unwrap();
        let dirs = [".config/mcpsup", ".local/state/mcpsup"].map(|dir| home.path().join(dir));
        let secrets = home.path().join("secrets");
        std::fs::create_dir_all(dirs[0].join("third")).unwrap();
        std::fs::create_dir(&secrets).unwrap();
        std::os::unix::fs::symlink(&secrets, dirs[0].join("third/env.d")).unwrap();
        // The other is made by the first daemon that keeps its state there.
        let env = |name: &str| (name == "HOME").then(|| home.path().into());
        for config in [None, Some(dirs[0].join("second/mcpsup.toml"))] {
            let hidden = hidden(&Places::find(config.as_deref(), false, env).unwrap(), false);
            assert!(
                dirs.iter().chain([&secrets]).all(|dir| hidden.contains(&files::real(dir))),
                "{config:?}: {hidden:?}"
            );
        }
    }

    #[test]
    fn what_a_server_names_and_does_not_see_is_told_and_its_own_is_not() {
        let home = |name: &str| (name == "HOME").then(|| "/home/a".into());
        let places = Places::find(None, false, home).unwrap();
        let config = crate::logic::config::parse(
            r#"
            [server.hers]
            command = ["/home/a/.config/mcpsup/tool.py", "{state_dir}/x", "/home/a/.local/state/mcpsup/instances/alice/hers/x"]
            transport = "stdio"
            [server.work]
            command = ["/usr/bin/python3", "/run/user/7/bus", "/home/a/.config/mcpsup-tools/tool.py"]
            transport = "stdio"
            working_dir = "/home/a/.local/state/mcpsup/{user}"
            "#,
            "mcpsup.toml",
        )
        .unwrap();
        assert_eq!(
            unseen(&hidden(&places, false), &places, &config),
            [
                "not seen by servers: /home/a/.config/mcpsup/tool.py, which server \"hers\" names, for nothing in /home/a/.config/mcpsup is",
                "not seen by servers: /home/a/.local/state/mcpsup/, which server \"work\" names, for nothing in /home/a/.local/state/mcpsup is",
            ]
        );
    }

    #[test]
    fn nothing_below_etc_is_hidden_from_servers_of_an_ordinary_user_whose_own_is_elsewhere() {
        let places = Places::find(Some("/srv/hers/mcpsup.toml".as_ref()), false, |_| None).unwrap();
        let hidden = hidden(&places, false);
        assert!(!hidden.iter().any(|place| place.starts_with("/etc")), "{hidden:?}");
        assert!(OTHERS.iter().all(|place| hidden.contains(&place.into())));
    }
}
