//! Showing what changed: one log line per change, the doors, the port map, and a bell for those
//! who wait for a newer status.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::Daemon;
use crate::door::Route;
use crate::logic::instance::{Cause, Instance, State};
use crate::logic::roster::Listed;
use crate::model::status::StateName;
use crate::model::{Exit, InstanceId, Moment, Problem, RunId, Whom, pack};
use crate::system::{failpoint, files};

/// The port map is written this long after a change: a restart, which is three, writes it once, and
/// nobody's restart waits for it.
const MAP_AFTER: Duration = Duration::from_millis(5);
/// And at most this often: a thousand servers that start do not write it a thousand times.
const MAP_EVERY: Duration = Duration::from_millis(50);

/// What was shown last.
#[derive(Debug, Default)]
pub(super) struct Shown {
    instances: BTreeMap<InstanceId, Last>,
    all: bool,
    /// These may have changed, whatever the fleet says of them.
    some: BTreeSet<InstanceId>,
    /// Something of the report changed that belongs to no instance.
    report: bool,
    map: MapState,
}

/// One instance as it was shown last.
#[derive(Debug, Clone, PartialEq)]
struct Last {
    state: StateName,
    run: Option<RunId>,
    entered: Moment,
    problems: Vec<Problem>,
    /// It is being killed because it ended by itself, after this long in `up`.
    crashed_after: Option<Duration>,
}

#[derive(Debug, Default)]
struct MapState {
    written_at: Option<Moment>,
    due: Option<Moment>,
    failed: bool,
}

impl Shown {
    /// When the port map must be written.
    pub(super) fn write_map_at(&self) -> Option<Moment> {
        self.map.due
    }

    /// Everybody may have changed.
    pub(super) fn look_at_all(&mut self) {
        self.all = true;
    }

    /// These users may have changed; `listed` is what they have now.
    pub(super) fn look_at(&mut self, whom: &Whom, listed: &BTreeMap<InstanceId, Listed>) {
        match whom {
            Whom::All => self.all = true,
            // What is no more is told by the fleet.
            Whom::Users(_) => self.some.extend(listed.keys().cloned()),
        }
    }

    /// The report changed in what belongs to no instance.
    pub(super) fn look_at_report(&mut self) {
        self.report = true;
    }

    /// The port map is not what is: it is tried again.
    pub(super) fn retry_map(&mut self) {
        self.report |= self.map.failed;
    }

    /// Makes the table as small as it can be.
    pub(super) fn pack(&mut self) {
        pack(&mut self.instances);
    }

    fn map_changed(&mut self, now: Moment) {
        let soon = self.map.written_at.map_or(now, |at| at + MAP_EVERY).max(now + MAP_AFTER);
        self.map.due.get_or_insert(soon);
    }
}

impl Daemon {
    /// Shows what the last turn changed.
    pub(super) fn publish(&mut self, touched: &BTreeSet<InstanceId>, now: Moment) {
        let mut changed = std::mem::take(&mut self.shown.report);
        let some = std::mem::take(&mut self.shown.some);
        if std::mem::take(&mut self.shown.all) {
            let all: Vec<InstanceId> = self.fleet.iter().map(|(id, _)| id.clone()).collect();
            for id in &all {
                changed |= self.show(id, now);
            }
        } else {
            for id in touched.union(&some) {
                changed |= self.show(id, now);
            }
        }
        for id in touched.iter().filter(|id| self.fleet.get(id).is_none()).cloned().collect::<Vec<_>>() {
            changed |= self.let_go(&id);
        }
        changed |= self.finish_removals();
        if changed {
            self.shown.map_changed(now);
            self.told.status_changed(now);
        }
        if self.shown.map.due.is_some_and(|due| due <= now) {
            self.write_map(now);
        }
    }

    /// Forgets an instance that the fleet has dropped; true if it was shown.
    fn let_go(&mut self, id: &InstanceId) -> bool {
        self.clear_away(id);
        self.sinks.remove(id);
        self.trouble.remove(id);
        self.shown.instances.remove(id).is_some()
    }

    /// Shows one instance; true if anything about it is new.
    fn show(&mut self, id: &InstanceId, now: Moment) -> bool {
        let Some(instance) = self.fleet.get(id) else { return false };
        let mut problems = self.listed.get(id).map(|listed| listed.problems.clone()).unwrap_or_default();
        problems.extend(self.doors.problem(id).cloned());
        let new = Last {
            state: self.state_name(id, instance),
            run: instance.last_run(),
            entered: instance.entered(),
            problems,
            crashed_after: match instance.state() {
                State::Killing { cause: Cause::Crashed { up_for }, .. } => Some(up_for),
                State::Killing { cause: Cause::NotReady, .. } => Some(Duration::ZERO),
                State::Killing { cause: Cause::Asked, .. }
                | State::Down
                | State::Starting { .. }
                | State::Up { .. }
                | State::Stopping { .. }
                | State::Cooling { .. } => None,
            },
        };
        // The door first: whoever reads "up" in the log may come in.
        let route = self.route(id, instance);
        match &route {
            Route::Closed(why) => self.bridges.close(id, Some(why)),
            Route::Waiting | Route::Ready(_) => self.bridges.close(id, None),
        }
        self.doors.lead(id, route);
        let old = self.shown.instances.get(id);
        if old == Some(&new) {
            return false;
        }
        self.log(id, instance, old, &new, now);
        self.shown.instances.insert(id.clone(), new);
        true
    }

    fn log(&self, id: &InstanceId, instance: &Instance, old: Option<&Last>, new: &Last, now: Moment) {
        let (user, server) = (&id.user, id.name());
        let run = new.run.map_or(0, |run| run.0);
        for problem in &new.problems {
            if !old.is_some_and(|old| old.problems.contains(problem)) {
                let still = if instance.current().is_some() { "previous version" } else { "nothing" };
                if self.doors.problem(id) == Some(problem) {
                    tracing::warn!(%user, %server, %problem, still, "door not open");
                } else {
                    tracing::warn!(%user, %server, %problem, still, "file refused");
                }
            }
        }
        if old.is_some_and(|old| (old.state, old.run, old.entered) == (new.state, new.run, new.entered)) {
            return;
        }
        let took = old.map_or(Duration::ZERO, |old| now.since(old.entered)).as_millis();
        let port = self.listed(id).and_then(|listed| listed.door).unwrap_or(0);
        if let Some(up_ms) = old.and_then(|old| old.crashed_after) {
            let (exit, strikes) = (self.ended_as(id, instance, Exit::field), instance.strikes(now));
            let next_ms = match instance.state() {
                State::Cooling { until, .. } => until.since(now).as_millis(),
                State::Down
                | State::Starting { .. }
                | State::Up { .. }
                | State::Stopping { .. }
                | State::Killing { .. } => 0,
            };
            let run = old.and_then(|old| old.run).map_or(0, |run| run.0);
            let up_ms = up_ms.as_millis();
            tracing::warn!(%user, %server, run, exit, up_ms, strikes, next_ms, "instance crashed");
        }
        match new.state {
            StateName::Up => tracing::info!(%user, %server, run, port, took_ms = took, "instance up"),
            StateName::Starting
            | StateName::Cooling
            | StateName::Stopping
            | StateName::Killing
            | StateName::Down => {
                tracing::debug!(%user, %server, run, state = %new.state, "instance");
            }
            StateName::Stopped | StateName::Disabled | StateName::Gone | StateName::Refused => {
                tracing::info!(%user, %server, run, because = %new.state, "instance down");
            }
        }
    }

    fn write_map(&mut self, now: Moment) {
        self.shown.map.due = None;
        self.shown.map.written_at = Some(now);
        let generation = *self.sources.generation.borrow() + 1;
        let map = self.port_map(generation);
        let written = serde_json::to_vec_pretty(&map).map_err(|error| error.to_string()).and_then(|text| {
            files::replace(&self.places.port_map(), &text, 0o644).map_err(|error| super::store::chain(&error))
        });
        let failed = written.is_err();
        if let Err(error) = written
            && !self.shown.map.failed
        {
            tracing::error!(error, "port map not written");
        }
        self.shown.map.failed = failed;
        failpoint::pass("map.written");
        // Last, so that whoever waited for it finds the map as new as the status.
        self.sources.generation.send_replace(generation);
    }

    /// Frees the ports of removed users of whom nothing is alive; true if there was one.
    fn finish_removals(&mut self) -> bool {
        let ready: Vec<_> = self
            .removing
            .iter()
            .filter(|user| {
                let is_alive = |(id, instance): (&InstanceId, &Instance)| {
                    id.user == **user && instance.current().is_some()
                };
                // A file that has just vanished is believed to come back for a moment: forgetting
                // its user sooner would start them once more.
                !self.roster.has_file(user) && !self.fleet.iter().any(is_alive)
            })
            .cloned()
            .collect();
        for user in &ready {
            self.removing.remove(user);
            self.ports.remove_user(user);
            self.doors.close(user);
            self.tokens.forget(user);
            self.bridges.drop_user(user);
            self.own.retain(|id, _| id.user != *user);
            let ids: Vec<InstanceId> =
                self.fleet.iter().map(|(id, _)| id).filter(|id| id.user == *user).cloned().collect();
            for id in &ids {
                self.fleet.forget(id);
                self.listed.remove(id);
                self.let_go(id);
            }
            tracing::info!(%user, "user removed");
        }
        if !ready.is_empty() {
            self.save_ports();
            self.save_holds();
        }
        !ready.is_empty()
    }
}
