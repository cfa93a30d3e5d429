//! All instances together.
//!
//! The fleet adds to [`Instance`] what concerns more than one: the numbering of runs, the holds
//! (`mcpsup stop`), the end of the daemon, and who must be looked at next. It only ever looks at
//! instances that something happened to or whose deadline has come, so a thousand idle ones cost
//! nothing. What happens to one instance does not depend on the others, save that a hold, its end
//! and a manual restart are of an instance with all its sessions.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::logic::instance::{Deed, Fact, Instance, Origin, State, Want};
use crate::model::{InstanceId, Moment, RunId, Spec, Whom, pack};

/// Something to be done, and for whom.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Start `spec` as this run of this instance.
    Start {
        /// For whom.
        instance: InstanceId,
        /// The number of the new run.
        run: RunId,
        /// What to run.
        spec: Arc<Spec>,
    },
    /// Send the run's process group this signal.
    Stop {
        /// Which run.
        run: RunId,
        /// Signal number.
        signal: i32,
    },
    /// Kill whatever is left of the run, and say so when nothing is.
    Kill {
        /// Which run.
        run: RunId,
    },
}

/// Every instance, the holds, and the next run's number.
#[derive(Debug)]
pub struct Fleet {
    seats: BTreeMap<InstanceId, Seat>,
    holds: BTreeSet<InstanceId>,
    runs: BTreeMap<RunId, InstanceId>,
    next_run: RunId,
    closing: bool,
    touched: BTreeSet<InstanceId>,
    deadlines: BTreeSet<(Moment, InstanceId)>,
    /// The deadline of each instance that has one, as it stands in `deadlines`.
    scheduled: BTreeMap<InstanceId, Moment>,
}

/// An instance and what is wanted of it.
#[derive(Debug)]
struct Seat {
    instance: Instance,
    /// What the files want, before holds; kept here so that lifting a hold needs no file. `None`: they
    /// do not name it any more.
    want: Option<Want>,
}

impl Seat {
    fn new(now: Moment) -> Self {
        Self { instance: Instance::new(now), want: None }
    }
}

impl Fleet {
    /// An empty fleet. `next_run` must be higher than any run of an earlier daemon.
    #[must_use]
    pub fn new(next_run: RunId, holds: BTreeSet<InstanceId>) -> Self {
        Self {
            seats: BTreeMap::new(),
            holds,
            runs: BTreeMap::new(),
            next_run,
            closing: false,
            touched: BTreeSet::new(),
            deadlines: BTreeSet::new(),
            scheduled: BTreeMap::new(),
        }
    }

    /// Takes over a run that an earlier daemon started. It goes on until `want` says what the
    /// files want, unless it is held.
    pub fn adopt(&mut self, instance: &InstanceId, run: RunId, origin: Origin, now: Moment) {
        self.next_run = self.next_run.max(RunId(run.0 + 1));
        self.runs.insert(run, instance.clone());
        // Not known is not "none": a command that comes before the files are read must not end it.
        let seat = Seat { instance: Instance::adopted(run, origin, now), want: Some(Want::Keep) };
        self.seats.insert(instance.clone(), seat);
        self.apply_want(instance);
    }

    /// Says what the files want of every instance. One that is not named is wanted no more, and is
    /// dropped once it is down, unless it is held.
    pub fn want(&mut self, mut wants: BTreeMap<InstanceId, Want>, now: Moment) {
        let is_new = |id: &&InstanceId| !self.seats.contains_key(*id);
        // Appended in one go: a map that is filled one by one in ascending order stays half empty.
        let mut new: BTreeMap<_, _> =
            wants.keys().filter(is_new).map(|id| (id.clone(), Seat::new(now))).collect();
        self.seats.append(&mut new);
        let mut changed = Vec::new();
        for (id, seat) in &mut self.seats {
            let want = wants.remove(id);
            if seat.want != want || seat.want.is_none() {
                seat.want = want;
                changed.push(id.clone());
            }
        }
        for id in changed {
            self.apply_want(&id);
        }
    }

    /// The same for some users' instances: those of others are wanted as they were.
    pub fn want_of(&mut self, whom: &Whom, wants: BTreeMap<InstanceId, Want>, now: Moment) {
        let Whom::Users(_) = whom else {
            return self.want(wants, now);
        };
        let known = whom.of(&self.seats).map(|(id, _)| id);
        let all: BTreeSet<InstanceId> = known.chain(wants.keys()).cloned().collect();
        let mut wants = wants;
        for id in all {
            match wants.remove(&id) {
                Some(want) => self.want_one(&id, want, now),
                None => self.end(&id),
            }
        }
    }

    /// The same for one: a session that has begun, or whose instance is wanted otherwise now.
    pub fn want_one(&mut self, id: &InstanceId, want: Want, now: Moment) {
        let seat = self.seats.entry(id.clone()).or_insert_with(|| Seat::new(now));
        if seat.want.as_ref() != Some(&want) {
            seat.want = Some(want);
            self.apply_want(id);
        }
    }

    /// The same for one of which nothing is wanted any more: it is dropped once it is down.
    pub fn end(&mut self, id: &InstanceId) {
        if self.seats.get_mut(id).is_some_and(|seat| seat.want.take().is_some()) {
            self.apply_want(id);
        }
    }

    /// Nobody was ever served by this one, and nobody will be: if it is ended, it is killed at once.
    pub fn hurry(&mut self, id: &InstanceId) {
        if let Some(seat) = self.seats.get_mut(id) {
            seat.instance.hurry();
            self.touch(id);
        }
    }

    /// True if a session has a process of its own, or may get one: there are less than `most` others of
    /// its instance, those that are still ending included.
    #[must_use]
    pub fn has_room_for(&self, session: &InstanceId, most: usize) -> bool {
        let takes = |instance: &Instance| instance.is_alive() || matches!(instance.wanted(), Want::Always(_));
        self.get(session).is_some_and(takes)
            || self.sessions(session).filter(|(_, instance)| takes(instance)).count() < most
    }

    /// Holds an instance with its sessions: it is stopped and stays so until it is released.
    pub fn hold(&mut self, id: &InstanceId) {
        self.holds.insert(id.base());
        for id in self.with_sessions(id) {
            self.apply_want(&id);
        }
    }

    /// Lifts a hold; what cools is tried at once.
    pub fn release(&mut self, id: &InstanceId) {
        self.holds.remove(&id.base());
        for id in self.with_sessions(id) {
            if let Some(seat) = self.seats.get_mut(&id) {
                seat.instance.try_now();
            }
            self.apply_want(&id);
        }
    }

    /// Wants runs that are newer than the current ones, of an instance and its sessions.
    pub fn renew(&mut self, id: &InstanceId) {
        self.holds.remove(&id.base());
        for id in self.with_sessions(id) {
            if let Some(seat) = self.seats.get_mut(&id) {
                seat.instance.renew();
            }
            self.apply_want(&id);
        }
    }

    fn with_sessions(&self, id: &InstanceId) -> Vec<InstanceId> {
        let base = id.base();
        let from = self.seats.range(base.clone()..).map(|(id, _)| id);
        from.take_while(|id| id.is_of(&base)).cloned().collect()
    }

    /// The sessions of an instance that have, or had, a process of their own.
    pub fn sessions(&self, id: &InstanceId) -> impl Iterator<Item = (&InstanceId, &Instance)> {
        let base = id.base();
        let from = self.seats.range(base.clone()..).map(|(id, seat)| (id, &seat.instance));
        from.take_while(move |(id, _)| id.is_of(&base)).filter(|(id, _)| id.session.is_some())
    }

    /// From now on nothing is wanted of anybody: the daemon ends and takes all runs with it.
    pub fn close(&mut self) {
        self.closing = true;
        let all: Vec<InstanceId> = self.seats.keys().cloned().collect();
        for id in all {
            self.apply_want(&id);
        }
    }

    /// Drops an instance of which nothing is alive and nothing is wanted.
    pub fn forget(&mut self, id: &InstanceId) {
        // One of which nothing was seen since the daemon began may still have a hold.
        if self.get(id).is_none_or(|instance| instance.current().is_none()) {
            self.seats.remove(id);
            self.holds.remove(id);
            self.touch(id);
            self.touched.remove(id);
        }
    }

    /// Has `drive` look at this instance, and its deadline stand as it is now.
    fn touch(&mut self, id: &InstanceId) {
        self.touched.insert(id.clone());
        let now = self.get(id).and_then(Instance::deadline);
        let stood = match now {
            Some(at) => self.scheduled.insert(id.clone(), at),
            None => self.scheduled.remove(id),
        };
        if stood != now {
            if let Some(at) = stood {
                self.deadlines.remove(&(at, id.clone()));
            }
            self.deadlines.extend(now.map(|at| (at, id.clone())));
        }
    }

    /// Makes the tables as small as they can be.
    pub fn pack(&mut self) {
        pack(&mut self.seats);
        pack(&mut self.runs);
    }

    /// True if `mcpsup stop` holds this instance, or the one that this is a session of.
    #[must_use]
    pub fn is_held(&self, id: &InstanceId) -> bool {
        match id.session {
            None => self.holds.contains(id),
            Some(_) => self.holds.contains(&id.base()),
        }
    }

    fn apply_want(&mut self, id: &InstanceId) {
        let is_kept_down = self.closing || self.is_held(id);
        if let Some(seat) = self.seats.get_mut(id) {
            let want = seat.want.clone().filter(|_| !is_kept_down);
            seat.instance.want(want.unwrap_or(Want::Never));
            self.touch(id);
        }
    }

    /// Writes down a fact about a run; one about a run that is over is ignored.
    pub fn observe(&mut self, run: RunId, fact: Fact) {
        let Some(id) = self.runs.get(&run) else { return };
        if let Some(seat) = self.seats.get_mut(id) {
            seat.instance.observe(run, fact);
            self.touched.insert(id.clone());
        }
    }

    /// What is to be done now. Said once: a second call at the same moment says nothing.
    ///
    /// The second part names the instances that were looked at, for those who show their state.
    pub fn drive(&mut self, now: Moment) -> (Vec<Effect>, BTreeSet<InstanceId>) {
        let due = self.deadlines.iter().take_while(|(at, _)| *at <= now).map(|(_, id)| id.clone());
        self.touched.extend(due);
        let touched = std::mem::take(&mut self.touched);
        let mut effects = Vec::new();
        let mut deeds = Vec::new();
        for id in &touched {
            let Some(Seat { instance, want }) = self.seats.get_mut(id) else { continue };
            let old_run = instance.current();
            instance.drive(now, &mut self.next_run, &mut deeds);
            let new_run = instance.current();
            let is_over = instance.state() == State::Down && want.is_none();
            self.touch(id);
            if old_run != new_run {
                if let Some(run) = old_run {
                    self.runs.remove(&run);
                }
                if let Some(run) = new_run {
                    self.runs.insert(run, id.clone());
                }
            }
            if is_over && !self.holds.contains(id) {
                self.seats.remove(id);
            }
            effects.extend(deeds.drain(..).map(|deed| match deed {
                Deed::Start(run, spec) => Effect::Start { instance: id.clone(), run, spec },
                Deed::Stop(run, signal) => Effect::Stop { run, signal },
                Deed::Kill(run) => Effect::Kill { run },
            }));
        }
        self.touched.clear();
        (effects, touched)
    }

    /// When `drive` must be called again though nothing happens.
    #[must_use]
    pub fn deadline(&self) -> Option<Moment> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// One instance.
    #[must_use]
    pub fn get(&self, id: &InstanceId) -> Option<&Instance> {
        self.seats.get(id).map(|seat| &seat.instance)
    }

    /// Every instance, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&InstanceId, &Instance)> {
        self.seats.iter().map(|(id, seat)| (id, &seat.instance))
    }

    /// Whose run this is, if it is current.
    #[must_use]
    pub fn instance_of(&self, run: RunId) -> Option<&InstanceId> {
        self.runs.get(&run)
    }

    /// What `mcpsup stop` holds.
    #[must_use]
    pub fn holds(&self) -> &BTreeSet<InstanceId> {
        &self.holds
    }

    /// True while anything of anybody may be alive.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        !self.runs.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::SessionName;

    const NOW: Moment = Moment::from_boot(std::time::Duration::from_secs(1));

    fn sessions() -> (Fleet, InstanceId, Arc<Spec>) {
        let id = InstanceId::new("alice".parse().unwrap(), "notes".parse().unwrap());
        (Fleet::new(RunId(1), BTreeSet::new()), id, Arc::new(Spec::example()))
    }

    #[test]
    fn a_session_that_is_ending_has_its_place_until_nothing_of_it_is_alive() {
        let (mut fleet, id, spec) = sessions();
        let [one, two, three] = [1, 2, 3].map(|name| id.session(SessionName::new(name)));
        for session in [&one, &two] {
            assert!(fleet.has_room_for(session, 2));
            fleet.want_one(session, Want::Always(spec.clone()), NOW);
        }
        assert!(!fleet.has_room_for(&three, 2), "they are wanted, though nothing is started yet");
        fleet.drive(NOW);
        let run = fleet.get(&one).unwrap().current().unwrap();
        fleet.end(&one);
        fleet.drive(NOW);
        assert!(!fleet.has_room_for(&three, 2), "it has its grace");
        assert!(fleet.has_room_for(&two, 1), "who has a process keeps it");
        fleet.observe(run, Fact::Exited(crate::model::Exit::Unknown));
        fleet.drive(NOW);
        assert!(!fleet.has_room_for(&three, 2), "children of it may be alive");
        fleet.observe(run, Fact::Gone);
        assert!(fleet.has_room_for(&three, 2));
    }

    #[test]
    fn what_served_nobody_is_killed_at_once() {
        for is_ended_first in [true, false] {
            let (mut fleet, id, spec) = sessions();
            let session = id.session(SessionName::new(1));
            fleet.want_one(&session, Want::Always(spec), NOW);
            fleet.drive(NOW);
            let run = fleet.get(&session).unwrap().current().unwrap();
            let mut effects = Vec::new();
            fleet.end(&session);
            if is_ended_first {
                effects.extend(fleet.drive(NOW).0);
            }
            fleet.hurry(&session);
            effects.extend(fleet.drive(NOW).0);
            assert!(effects.contains(&Effect::Kill { run }), "{effects:?}");
        }
    }
}
