//! Sessions that have a process of their own, and runs that may finish what they were asked.
//!
//! A session is wanted as long as its client has it: what its instance wants, it wants, in
//! directories of its own that go with it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use super::Daemon;
use super::bridges::write_opened;
use crate::door::bridge::{Said, Word};
use crate::logic::instance::{Cause, Fact, State, Want};
use crate::logic::roster::{Host, Listed};
use crate::logic::uids::Facts;
use crate::model::config::{Sessions, Transport};
use crate::model::{InstanceId, Moment, RunId, Spec, SpecId, Whom};
use crate::system::record::RunDir;
use crate::system::{account, clear, failpoint, files, holdings};

/// What a session's own process is, and what its instance's was when that was worked out.
#[derive(Debug, Default)]
pub(super) struct Own(Option<(SpecId, Arc<Spec>)>);

/// A run that is to end and still has calls to answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Draining {
    signal: i32,
    /// It is signalled then in any case.
    pub(super) until: Moment,
}

impl Daemon {
    /// Writes down what a bridge says.
    pub(super) fn note_word(&mut self, word: Word, now: Moment) {
        let Word { instance, slot, what } = word;
        let id = slot.map_or_else(|| instance.clone(), |name| instance.session(name));
        match what {
            Said::Opened(run, opened) => {
                if let Some(current) = self.current.get_mut(&run) {
                    current.forget_probe();
                    write_opened(&RunDir::of(&self.runs_dir(), run).opened(), &opened);
                    self.fleet.observe(run, Fact::Ready);
                    failpoint::pass("up.noted");
                }
            }
            Said::Unfit(run, why) => self.note_sick(run, format!("was not ready: {why}; its log says more")),
            Said::Sick(run, why) => self.note_sick(run, why),
            Said::Healthy(_) => {}
            Said::Drained(run) => self.stop_drained(run, now),
            Said::Wanted => {
                if self.bridges.sessions(&instance) == Some(Sessions::Isolated) {
                    self.own.entry(id.clone()).or_default();
                    self.want_session(&id, now);
                }
            }
            Said::Remember(name) => self.bridges.remember(&instance, name, now),
            Said::Forget(name) => {
                self.bridges.forget(&instance, name);
                self.end_session(&instance.session(name));
            }
            Said::Abandoned(name) => {
                self.bridges.forget(&instance, name);
                let id = instance.session(name);
                self.end_session(&id);
                self.fleet.hurry(&id);
            }
        }
        if slot.is_some() {
            self.shown.look_at_report();
        }
    }

    /// A run lives and will not do.
    pub(super) fn note_sick(&mut self, run: RunId, why: String) {
        if let Some(current) = self.current.get(&run) {
            tracing::warn!(user = %current.instance.user, server = %current.instance.server, run = run.0, why, "instance of no use");
            self.trouble.insert(current.instance.clone(), (run, why));
            self.fleet.observe(run, Fact::Sick);
        }
    }

    fn end_session(&mut self, id: &InstanceId) {
        if self.own.remove(id).is_some() {
            self.fleet.end(id);
        }
    }

    fn want_session(&mut self, id: &InstanceId, now: Moment) {
        let want = self.want_of_session(id);
        self.fleet.want_one(id, want, now);
    }

    /// A process of a session's own is gone, so there may be room for one that waits for that.
    pub(super) fn let_in(&mut self, id: &InstanceId, now: Moment) {
        let (base, most) = (id.base(), self.bridges.max_sessions(id));
        let own = self.own.range(base.clone()..).map(|(id, _)| id).take_while(|id| id.is_of(&base));
        let waits = |id: &&InstanceId| self.fleet.get(id).is_some_and(|own| *own.wanted() == Want::Never);
        for id in own.filter(waits).cloned().collect::<Vec<_>>() {
            if !self.fleet.has_room_for(&id, most) {
                return;
            }
            self.want_session(&id, now);
        }
    }

    /// What a session wants is what its instance wants, as a process of its own, as soon as there is
    /// room for one: those that are still ending count.
    fn want_of_session(&mut self, id: &InstanceId) -> Want {
        let base = id.base();
        if !self.fleet.has_room_for(id, self.bridges.max_sessions(id)) {
            return Want::Never;
        }
        let base = match self.listed.get(&base).map(|listed| &listed.want) {
            Some(Want::Always(spec)) => spec.id,
            Some(Want::Keep) => return Want::Keep,
            Some(Want::Never) | None => return Want::Never,
        };
        let Some(Own(made)) = self.own.get_mut(id) else { return Want::Never };
        if made.as_ref().is_none_or(|(of, _)| *of != base) {
            let nothing = BTreeSet::new();
            let host = Host {
                blocked: &nothing,
                accounts: &account::find,
                uids: Facts { named: &account::named, is_used: &holdings::is_used(&self.places.state) },
                state: &self.places.state,
                runtime: &self.places.runtime,
                is_root: self.is_root,
                digest_key: &self.key,
                cage: &|server, tenancy| self.cages.get(server, tenancy),
                removing: &self.removing,
            };
            // The same spec is the same allocation, so that nothing seems new.
            if let Some(spec) = self.roster.for_session(id, base, &host) {
                let kept = made.take().map(|(_, spec)| spec).filter(|old| **old == spec);
                *made = Some((base, kept.unwrap_or_else(|| Arc::new(spec))));
            }
        }
        made.as_ref().map_or(Want::Keep, |(_, spec)| Want::Always(Arc::clone(spec)))
    }

    /// What every session wants, for [`Fleet::want`](crate::logic::fleet::Fleet::want).
    pub(super) fn wants_of_sessions(&mut self, whom: &Whom) -> Vec<(InstanceId, Want)> {
        let ids: Vec<InstanceId> = whom.of(&self.own).map(|(id, _)| id.clone()).collect();
        ids.into_iter()
            .map(|id| {
                let want = self.want_of_session(&id);
                (id, want)
            })
            .collect()
    }

    /// Has a bridge stand for every stdio instance that has a door, and for no other.
    pub(super) fn set_bridges(&mut self, listed: &BTreeMap<InstanceId, Listed>) {
        let mut gone = Vec::new();
        for (id, listed) in listed {
            let is_gone = match listed.transport() {
                Some(Transport::Stdio(stdio)) => {
                    let (known, was_another) = self.bridges.set(id, &stdio, listed.path());
                    if stdio.sessions == Sessions::Isolated {
                        self.own
                            .extend(known.into_iter().map(|(name, _)| (id.session(name), Own::default())));
                    }
                    was_another
                }
                Some(Transport::Http) => self.bridges.drop_one(id),
                // It may have been described before: what goes on is spoken with.
                None => false,
            };
            if is_gone {
                gone.push(id.clone());
            }
        }
        for id in &gone {
            self.own.retain(|own, _| !own.is_of(id));
        }
    }

    /// Takes back, for a run that was found, the bridge that its earlier daemon had.
    pub(super) fn find_bridge(&mut self, id: &InstanceId, stdio: &crate::model::config::Stdio, path: &str) {
        let known = self.bridges.find(id, stdio, path);
        if stdio.sessions == Sessions::Isolated {
            let base = id.base();
            self.own.extend(known.into_iter().map(|(name, _)| (base.session(name), Own::default())));
        }
    }

    /// Signals a run to end, once it has answered what it was asked, or half of its grace is over. A
    /// run that is of no use is not waited for.
    pub(super) fn stop_run(&mut self, run: RunId, signal: i32, now: Moment) {
        let asked = self.fleet.instance_of(run).and_then(|id| match self.fleet.get(id)?.state() {
            State::Stopping { cause: Cause::Asked, kill_at, .. } => Some((id.clone(), kill_at)),
            State::Stopping { .. }
            | State::Down
            | State::Starting { .. }
            | State::Up { .. }
            | State::Killing { .. }
            | State::Cooling { .. } => None,
        });
        let bridge =
            asked.and_then(|(id, kill_at)| Some((self.current.get(&run)?.bridge.clone()?, id, kill_at)));
        if let Some((bridge, id, kill_at)) = bridge {
            bridge.drain(id.session);
            if bridge.in_flight(id.session) > 0 {
                let until = now + kill_at.since(now) / 2;
                self.draining.insert(run, Draining { signal, until });
                return;
            }
        }
        self.processes.stop(run, signal, now);
    }

    fn stop_drained(&mut self, run: RunId, now: Moment) {
        if let Some(Draining { signal, .. }) = self.draining.remove(&run) {
            self.processes.stop(run, signal, now);
        }
    }

    /// Signals those who have had long enough to answer.
    pub(super) fn stop_overdue(&mut self, now: Moment) {
        let due = self.draining.iter().filter(|(_, draining)| draining.until <= now).map(|(run, _)| *run);
        for run in due.collect::<Vec<_>>() {
            self.stop_drained(run, now);
        }
    }

    /// Removes what a session leaves: its own directories.
    pub(super) fn clear_away(&self, id: &InstanceId) {
        if id.session.is_none() || self.own.contains_key(id) {
            return;
        }
        let place = id.place();
        let dirs = [self.places.state.join(&place), self.places.runtime.join(&place)];
        tokio::task::spawn_blocking(move || dirs.iter().for_each(|dir| remove_dir(dir)));
    }

    /// The same for sessions of an earlier daemon that nobody knows any more.
    pub(super) fn clear_away_unknown(&self) {
        let known: BTreeSet<PathBuf> = self
            .own
            .keys()
            .chain(self.fleet.iter().map(|(id, _)| id))
            .filter(|id| id.session.is_some())
            .map(InstanceId::place)
            .collect();
        let roots = [self.places.state.clone(), self.places.runtime.clone()];
        tokio::task::spawn_blocking(move || {
            for root in roots {
                for place in places_of_sessions(&root) {
                    if !known.contains(&place) {
                        remove_dir(&root.join(place));
                    }
                }
            }
        });
    }

    /// Tells the loop that a run hears nothing any more.
    pub(super) fn note_deaf(&mut self, run: RunId) {
        self.note_sick(run, "closed its standard input".to_owned());
    }
}

/// Every directory of a session's own below `root`.
fn places_of_sessions(root: &std::path::Path) -> Vec<PathBuf> {
    let names = |dir: PathBuf| files::names_in(&dir).unwrap_or_default().into_iter();
    let users = names(root.join("instances")).map(|user| PathBuf::from("instances").join(user));
    users
        .flat_map(|user| {
            let of_sessions = names(root.join(&user)).filter(|name| name.contains('+'));
            of_sessions.map(|name| user.join(name)).collect::<Vec<_>>()
        })
        .collect()
}

fn remove_dir(dir: &std::path::Path) {
    // Its process has filled it, with whatever it liked.
    if let Err(error) = clear::remove_tree(dir) {
        tracing::warn!(%error, dir = %dir.display(), "cannot remove a session's directory");
    }
}
