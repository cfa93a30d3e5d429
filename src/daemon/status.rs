//! What an instance looks like from outside: one place for the words, so that the log, the port
//! map, the door and `mcpsup status` cannot disagree.

use std::time::Duration;

use crate::control::protocol::Target;
use crate::door::{Route, Upstream};
use crate::logic::exchange::Counts;
use crate::logic::instance::{Cause, Instance, State, Want};
use crate::logic::roster::Listed;
use crate::model::config::Access;
use crate::model::portmap::{Entry, PortMap};
use crate::model::status::{
    InstanceStatus, NotPassedOn, SessionRun, StateName, StatusReport, gone_from_config, ordinal,
};
use crate::model::{Exit, InstanceId, Moment, RunId};
use crate::system::clock;

use super::Daemon;

/// How long what was killed may take to end before that is said.
const STUCK_AFTER: Duration = Duration::from_secs(5);

fn is_stuck(instance: &Instance, now: Moment) -> bool {
    matches!(instance.state(), State::Killing { .. }) && now.since(instance.entered()) >= STUCK_AFTER
}

/// Nothing where there is nothing to tell.
fn not_passed_on(counts: Counts) -> Option<NotPassedOn> {
    let Counts { not_json_rpc, unclaimed, ambiguous, refusals: _ } = counts;
    let is_any = (not_json_rpc, unclaimed, ambiguous) != (0, 0, 0);
    is_any.then_some(NotPassedOn { not_json_rpc, unclaimed, ambiguous })
}

impl Daemon {
    /// The instance's state in one word.
    pub(super) fn state_name(&self, id: &InstanceId, instance: &Instance) -> StateName {
        match instance.state() {
            State::Starting { .. } => StateName::Starting,
            State::Up { .. } => StateName::Up,
            State::Stopping { .. } => StateName::Stopping,
            State::Killing { .. } => StateName::Killing,
            State::Cooling { .. } => StateName::Cooling,
            State::Down if self.fleet.is_held(id) => StateName::Stopped,
            State::Down => self.listed(id).map_or(StateName::Gone, |listed| listed.absent_because),
        }
    }

    /// What the files say of the instance, or of the one that this is a session of.
    pub(super) fn listed(&self, id: &InstanceId) -> Option<&Listed> {
        match id.session {
            None => self.listed.get(id),
            Some(_) => self.listed.get(&id.base()),
        }
    }

    /// Where the instance's door leads now.
    pub(super) fn route(&self, id: &InstanceId, instance: &Instance) -> Route {
        let run = match instance.state() {
            State::Up { run, .. } => run,
            State::Starting { .. }
            | State::Killing { .. }
            | State::Cooling { .. }
            | State::Stopping { .. }
            | State::Down => {
                return match instance.wanted() {
                    Want::Always(_) => Route::Waiting,
                    Want::Keep if instance.current().is_some() => Route::Waiting,
                    Want::Keep | Want::Never => Route::Closed(self.closed_because(id)),
                };
            }
        };
        let current = self.current.get(&run);
        let (Some(current), owner @ Some(_)) = (current, self.processes.owner(run)) else {
            return Route::Waiting;
        };
        let Some(listening) = current.listening.clone() else { return Route::Waiting };
        Route::Ready(Upstream { run, addr: listening.addr, listener_inode: listening.inode, recheck: owner })
    }

    fn closed_because(&self, id: &InstanceId) -> String {
        if self.fleet.is_held(id) {
            return format!("{id} was stopped");
        }
        match self.listed(id).map(|listed| listed.absent_because) {
            Some(StateName::Disabled) => format!("{id} is disabled"),
            Some(StateName::Refused) => format!("the configuration of {id} is wrong; see mcpsup status"),
            Some(
                StateName::Gone
                | StateName::Down
                | StateName::Starting
                | StateName::Up
                | StateName::Stopping
                | StateName::Killing
                | StateName::Cooling
                | StateName::Stopped,
            )
            | None => format!("{id} is not configured any more"),
        }
    }

    /// Everything the caller may see of what was asked for.
    pub(super) fn report(&self, meant: &[InstanceId], is_admin: bool, now: Moment) -> StatusReport {
        let instances = meant.iter().filter_map(|id| Some(self.status(id, self.fleet.get(id)?, now)));
        let mut problems = Vec::new();
        let mut notes = Vec::new();
        if is_admin {
            problems.extend(self.problems.iter().cloned());
            let lost = self.saves.problems();
            notes.extend(lost.map(|(what, problem)| format!("cannot remember {what}: {problem}")));
            notes.extend(self.notes());
        }
        StatusReport {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            generation: *self.sources.generation.borrow(),
            instances: instances.collect(),
            problems,
            notes,
            apart: Some(self.site.apart()),
        }
    }

    fn status(&self, id: &InstanceId, instance: &Instance, now: Moment) -> InstanceStatus {
        let listed = self.listed.get(id);
        let port = listed.and_then(|listed| listed.door);
        let mut problems = listed.map(|listed| listed.problems.clone()).unwrap_or_default();
        problems.extend(self.doors.problem(id).cloned());
        let next_try_seconds = match instance.state() {
            State::Cooling { until, .. } => {
                Some(until.since(now).as_millis().div_ceil(1000).try_into().unwrap_or(u64::MAX))
            }
            State::Down
            | State::Starting { .. }
            | State::Up { .. }
            | State::Stopping { .. }
            | State::Killing { .. } => None,
        };
        let current = instance.current();
        InstanceStatus {
            user: id.user.clone(),
            server: id.server.clone(),
            state: self.state_name(id, instance),
            port,
            url: self.url(id),
            run: instance.last_run(),
            pid: current.and_then(|run| self.processes.pid(run)),
            since: clock::rfc3339(instance.entered()),
            for_seconds: now.since(instance.entered()).as_secs(),
            strikes: instance.strikes(now),
            next_try_seconds,
            last_exit: self.last_exit(id, instance),
            note: self.note_on(id, instance, now),
            problems,
            sessions: self.bridges.get(id).map(|bridge| bridge.sessions()),
            not_passed_on: self.bridges.get(id).and_then(|bridge| not_passed_on(bridge.counts())),
            session_runs: self.session_runs(id, now),
            containment: current.and_then(|run| self.processes.containment_of(run)).map(str::to_owned),
            runs_as: current.and_then(|_| runs_as(instance.wanted())),
        }
    }

    fn session_runs(&self, id: &InstanceId, now: Moment) -> Vec<SessionRun> {
        let run = |(id, instance): (&InstanceId, &Instance)| {
            Some(SessionRun {
                session: id.session?,
                state: self.state_name(id, instance),
                run: instance.last_run(),
                pid: instance.current().and_then(|run| self.processes.pid(run)),
                for_seconds: now.since(instance.entered()).as_secs(),
                note: self.note_on(id, instance, now),
            })
        };
        self.fleet.sessions(id).filter_map(run).collect()
    }

    /// What a client connects to.
    pub(super) fn url(&self, id: &InstanceId) -> Option<String> {
        let listed = self.listed.get(id)?;
        let address = std::net::SocketAddr::new(self.config.ports.listen, listed.door?);
        Some(format!("http://{address}{}", listed.path()))
    }

    /// One line for people: why it is not as it should be.
    fn note_on(&self, id: &InstanceId, instance: &Instance, now: Moment) -> Option<String> {
        if self.removing.contains(&id.user) {
            let why = if is_stuck(instance, now) { "; its processes do not end" } else { "" };
            return Some(format!("being removed{why}"));
        }
        let listed = self.listed.get(id);
        let going_on = if instance.current().is_some() { "; the previous version goes on" } else { "" };
        if let Some(problem) = listed.and_then(|listed| listed.problems.first()) {
            return Some(format!("{problem}{going_on}"));
        }
        if let Some(problem) = self.doors.problem(id) {
            return Some(problem.to_string());
        }
        match instance.state() {
            State::Cooling { until, .. } => {
                let wait = until.since(now).as_secs_f64();
                let strikes = instance.strikes(now);
                Some(format!("{}{}; next try in {wait:.0} s", self.ended(id, instance), in_a_row(strikes)))
            }
            State::Starting { run, .. } => {
                let why = self.current.get(&run)?.not_ready();
                (!why.is_empty()).then_some(why)
            }
            State::Stopping { cause: Cause::NotReady | Cause::Crashed { .. }, .. } => {
                Some(self.ended(id, instance))
            }
            State::Killing { .. } if is_stuck(instance, now) => {
                Some("its processes do not end; the port is kept and nothing is started".to_owned())
            }
            State::Up { .. } => {
                let is_open = id.session.is_none() && self.access(id) == Access::Open;
                let open = is_open.then(|| "open to every user of this host".to_owned());
                let token = self.note_on_token(id);
                let sessions = self.note_on_sessions(id);
                // Until it was up for long enough, it may be about to end the same way.
                let last = self.last_exit(id, instance).filter(|_| instance.strikes(now) > 0);
                let again = last.map(|last| format!("restarted: {last}"));
                let notes: Vec<String> = again.into_iter().chain(open).chain(token).chain(sessions).collect();
                (!notes.is_empty()).then(|| notes.join("; "))
            }
            // Until somebody says so it stays stopped, whatever its file says meanwhile.
            State::Down if self.fleet.is_held(id) => Some(format!("stopped; mcpsup start {id} starts it")),
            State::Down => listed.filter(|listed| is_gone(listed)).map(|listed| match listed.server {
                Some(_) => format!("its env file is gone; mcpsup remove {} frees the port", id.user),
                None => gone_from_config(&id.server),
            }),
            State::Stopping { .. } | State::Killing { .. } => None,
        }
    }

    /// That its user has to show a token, where they would expect to come in by their uid.
    fn note_on_token(&self, id: &InstanceId) -> Option<String> {
        let by_uid = id.session.is_none() && self.access(id) == Access::Owner && self.doors.takes_token(id);
        let uid = self.listed(id).filter(|_| by_uid)?.owner_uid?;
        let user = &id.user;
        (!self.is_reserved(user, Some(uid)))
            .then(|| format!("takes a token (mcpsup headers {user}): uid {uid} is not {user}'s alone"))
    }

    /// How many sessions have a process of their own, and how many of those are not up.
    fn note_on_sessions(&self, id: &InstanceId) -> Option<String> {
        if id.session.is_some() {
            return None;
        }
        let (mut all, mut up) = (0_u32, 0);
        for (_, instance) in self.fleet.sessions(id) {
            all += 1;
            up += u32::from(matches!(instance.state(), State::Up { .. }));
        }
        let not_up = if up < all { format!(", {} not up", all - up) } else { String::new() };
        let plural = if all == 1 { "" } else { "s" };
        (all > 0).then(|| format!("{all} session{plural}{not_up}"))
    }

    /// How the newest ended run ended, or why it was given up; nothing of one that is still there.
    fn last_exit(&self, id: &InstanceId, instance: &Instance) -> Option<String> {
        let exit = instance.last_exit()?;
        let is_there = |(run, _): &(RunId, String)| instance.current() == Some(*run);
        Some(if self.trouble.get(id).is_some_and(is_there) {
            exit.to_string()
        } else {
            self.ended(id, instance)
        })
    }

    /// How the newest run ended, with what the probe found last if that was why.
    pub(super) fn ended(&self, id: &InstanceId, instance: &Instance) -> String {
        self.ended_as(id, instance, ToString::to_string)
    }

    /// The same, the exit in the words of `say`.
    pub(super) fn ended_as(&self, id: &InstanceId, instance: &Instance, say: fn(&Exit) -> String) -> String {
        let exit = instance.last_exit().map_or_else(|| "ended".to_owned(), say);
        match (self.trouble.get(id), instance.last_exit()) {
            (Some((_, trouble)), Some(Exit::Status(_) | Exit::Signal(_) | Exit::Unknown) | None) => {
                trouble.clone()
            }
            (None, _) | (Some(_), Some(Exit::NotStarted(_) | Exit::AtLimit(..))) => exit,
        }
    }

    /// The port map as it is now.
    pub(super) fn port_map(&self, generation: u64) -> PortMap {
        let instances = self.fleet.iter().filter_map(|(id, instance)| {
            Some(Entry {
                user: id.user.clone(),
                server: id.server.clone(),
                port: self.listed.get(id)?.door?,
                url: self.url(id)?,
                takes_token: self.doors.takes_token(id),
                state: self.state_name(id, instance),
                since: clock::rfc3339(instance.entered()),
            })
        });
        PortMap { version: 1, generation, instances: instances.collect() }
    }

    /// The instances a target means, among those the daemon knows.
    pub(super) fn matching(&self, target: &Target) -> Vec<InstanceId> {
        let fits = |id: &&InstanceId| {
            target.user.as_ref().is_none_or(|user| *user == id.user)
                && target.server.as_ref().is_none_or(|server| *server == id.server)
                && id.session.is_none()
        };
        self.fleet.iter().map(|(id, _)| id).filter(fits).cloned().collect()
    }
}

/// ", 3rd time in a row", from the second time on.
/// True if nothing of it is wanted any more, as far as every file was read.
fn is_gone(listed: &Listed) -> bool {
    listed.absent_because == StateName::Gone && matches!(listed.want, Want::Never)
}

fn in_a_row(strikes: u32) -> String {
    if strikes < 2 { String::new() } else { format!(", {} time in a row", ordinal(strikes)) }
}

/// Whom a process runs as, unless it is the daemon's own user.
fn runs_as(want: &Want) -> Option<String> {
    let Want::Always(spec) = want else { return None };
    let account = spec.account.as_ref()?;
    let (name, uid) = (&account.name, account.uid);
    Some(if account.is_reserved {
        format!("uid {uid}, reserved for {name}")
    } else {
        format!("{name} (uid {uid})")
    })
}
