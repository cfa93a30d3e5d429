//! Checks the checker: a fleet with one planted bug each, and the law that catches it.
//!
//! The bugs are wrapped around the real fleet, falsifying what goes in or what comes out: the
//! program itself has no switch for any of them. `caught` says which law catches which.
#![expect(clippy::wildcard_enum_match_arm, reason = "a bug is in one call; the others pass on")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use mcpsup::logic::fleet::{Effect, Fleet};
use mcpsup::logic::instance::{Fact, Instance, Origin, State, Want};
use mcpsup::model::config::Server;
use mcpsup::model::{InstanceId, Moment, RunId, Spec, SpecId, Whom};

use crate::core::{Core, View};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bug {
    KillsWithoutGrace,
    StartsTwice,
    IgnoresHolds,
    LosesHoldsOnRestart,
    StaysHeld,
    StartsOnKeep,
    StopsOnKeep,
    StartsWhatIsNotWanted,
    StartsTheOldSpec,
    BelievesStaleReady,
    BelievesStaleExit,
    WaitsTooLong,
    WaitsTooShort,
    NeverForgivesStrikes,
    DropsGone,
    DropsExit,
    DropsSickness,
    BelievesStaleSickness,
    GivesUpAfterFive,
    LeaksADeadline,
    LosesADeadline,
    LeavesADeadlineBehind,
    RestartsEverybody,
    StopsByAnotherSignal,
    AdoptionForgetsTheRun,
    AdoptionRestarts,
    RestartsTwice,
    IgnoresRestart,
    RepeatsStops,
    RepeatsKills,
    ReusesRuns,
    UpWithoutAnswer,
    StartsAfterClose,
    ClosesNobody,
    StartsBeforeGone,
    FreesPortsTooSoon,
    ShowsKillingAsDown,
    UsesOnesPortForAnother,
    OneAtATime,
}

pub(crate) struct Buggy {
    inner: Fleet,
    bug: Bug,
    /// The newest spec of each instance.
    specs: BTreeMap<InstanceId, Arc<Spec>>,
    wants: BTreeMap<InstanceId, Want>,
    /// Whose each run was.
    owners: BTreeMap<RunId, InstanceId>,
    starts: BTreeMap<InstanceId, u32>,
    again: BTreeSet<InstanceId>,
    said: Vec<Effect>,
    kept_back: Vec<Effect>,
    leaked: Option<Moment>,
    now: Moment,
}

impl Buggy {
    pub(crate) fn new(bug: Bug, next_run: RunId, holds: BTreeSet<InstanceId>) -> Self {
        let next_run = if bug == Bug::ReusesRuns { RunId(1) } else { next_run };
        let holds = if bug == Bug::LosesHoldsOnRestart { BTreeSet::new() } else { holds };
        Self {
            inner: Fleet::new(next_run, holds),
            bug,
            specs: BTreeMap::new(),
            wants: BTreeMap::new(),
            owners: BTreeMap::new(),
            starts: BTreeMap::new(),
            again: BTreeSet::new(),
            said: Vec::new(),
            kept_back: Vec::new(),
            leaked: None,
            now: Moment::default(),
        }
    }

    fn is(&self, bug: Bug) -> bool {
        self.bug == bug
    }

    fn current(&self, id: &InstanceId) -> Option<RunId> {
        self.inner.get(id).and_then(Instance::current)
    }

    /// What is wanted, as this bug understands it.
    fn misread(&self, id: &InstanceId, want: Want) -> Want {
        let newest = || self.specs.get(id).cloned();
        match want {
            Want::Keep if self.is(Bug::StartsOnKeep) => newest().map_or(Want::Keep, Want::Always),
            Want::Keep if self.is(Bug::StopsOnKeep) => Want::Never,
            Want::Always(spec) => match self.bug {
                Bug::GivesUpAfterFive if self.starts.get(id).is_some_and(|n| *n >= 5) => Want::Keep,
                Bug::WaitsTooLong => replanned(&spec, |server| {
                    server.restart.first_wait += Duration::from_millis(1);
                }),
                Bug::WaitsTooShort => replanned(&spec, |server| {
                    server.restart.max_wait = server.restart.first_wait;
                }),
                Bug::NeverForgivesStrikes => replanned(&spec, |server| {
                    server.restart.stable = Duration::from_secs(9);
                }),
                Bug::StopsByAnotherSignal => replanned(&spec, |server| server.stop.signal = 1),
                Bug::UsesOnesPortForAnother => {
                    Want::Always(Arc::new(Spec { backend: Some(4000), ..(*spec).clone() }))
                }
                _ => Want::Always(spec),
            },
            Want::Never | Want::Keep => want,
        }
    }

    fn falsify(&mut self, effects: Vec<Effect>) -> Vec<Effect> {
        let mut out = Vec::new();
        for effect in effects {
            match &effect {
                Effect::Start { instance, run, .. } => {
                    self.owners.insert(*run, instance.clone());
                    *self.starts.entry(instance.clone()).or_default() += 1;
                    if self.is(Bug::UpWithoutAnswer) {
                        self.inner.observe(*run, Fact::Ready);
                        out.extend(self.inner.drive(self.now).0);
                    }
                    if self.is(Bug::StartsTwice) {
                        out.push(effect.clone());
                    }
                }
                Effect::Stop { run, .. } => {
                    if self.is(Bug::LeavesADeadlineBehind) && self.leaked.is_none() {
                        self.leaked = self.inner.deadline();
                    }
                    if self.is(Bug::KillsWithoutGrace) {
                        out.push(effect.clone());
                        out.push(Effect::Kill { run: *run });
                        continue;
                    }
                    if self.is(Bug::StartsTheOldSpec)
                        && let Some(id) = self.owners.get(run)
                        && let Some(spec) = self.specs.get(id)
                    {
                        let mut wants = self.wants.clone();
                        wants.insert(id.clone(), Want::Always(spec.clone()));
                        self.inner.want(wants, self.now);
                    }
                }
                Effect::Kill { .. } => {
                    if self.is(Bug::RepeatsKills) {
                        out.push(effect.clone());
                    }
                }
            }
            out.push(effect);
        }
        out
    }
}

/// The same digest, and something else in it.
fn replanned(spec: &Spec, change: impl FnOnce(&mut Server)) -> Want {
    let mut spec = spec.clone();
    change(Arc::make_mut(&mut spec.server));
    Want::Always(Arc::new(spec))
}

impl Core for Buggy {
    fn want(&mut self, wants: BTreeMap<InstanceId, Want>, now: Moment) {
        let mut misread: BTreeMap<InstanceId, Want> =
            wants.iter().map(|(id, want)| (id.clone(), self.misread(id, want.clone()))).collect();
        if self.is(Bug::StartsWhatIsNotWanted) {
            for (id, spec) in &self.specs {
                misread.entry(id.clone()).or_insert_with(|| Want::Always(spec.clone()));
            }
        }
        if self.is(Bug::RestartsEverybody) && !self.wants.is_empty() && self.wants != wants {
            for id in wants.keys() {
                if matches!(self.inner.get(id).map(Instance::state), Some(State::Up { .. })) {
                    self.inner.renew(id);
                }
            }
        }
        for (id, want) in &wants {
            if let Want::Always(spec) = want
                && (!self.is(Bug::StartsTheOldSpec) || !self.specs.contains_key(id))
            {
                self.specs.insert(id.clone(), spec.clone());
            }
        }
        self.wants = wants;
        self.inner.want(misread, now);
    }

    fn want_of(&mut self, _: &Whom, wants: BTreeMap<InstanceId, Want>, now: Moment) {
        self.want(wants, now);
    }

    fn hold(&mut self, id: &InstanceId) {
        if !self.is(Bug::IgnoresHolds) {
            self.inner.hold(id);
        }
    }

    fn release(&mut self, id: &InstanceId) {
        if !self.is(Bug::StaysHeld) {
            self.inner.release(id);
        }
    }

    fn renew(&mut self, id: &InstanceId) {
        match self.bug {
            Bug::RestartsTwice => {
                self.again.insert(id.clone());
                self.inner.renew(id);
            }
            Bug::IgnoresRestart => self.inner.release(id),
            _ => self.inner.renew(id),
        }
    }

    fn close(&mut self) {
        match self.bug {
            Bug::ClosesNobody => {}
            // What runs is stopped; nobody thought of what comes later.
            Bug::StartsAfterClose => self.inner.want(BTreeMap::new(), self.now),
            _ => self.inner.close(),
        }
    }

    fn forget(&mut self, id: &InstanceId) {
        self.specs.remove(id);
        self.starts.remove(id);
        self.inner.forget(id);
    }

    fn observe(&mut self, run: RunId, fact: Fact) {
        if fact == Fact::Ready
            && let Some(id) = self.inner.instance_of(run).cloned()
            && self.again.remove(&id)
        {
            self.inner.renew(&id);
        }
        if let (Fact::Exited(_), Some(id)) = (&fact, self.inner.instance_of(run))
            && let Some(State::Starting { .. } | State::Up { .. }) = self.inner.get(id).map(Instance::state)
        {
            self.again.remove(id);
        }
        let current = self.owners.get(&run).and_then(|id| self.current(id)).unwrap_or(run);
        match (self.bug, &fact) {
            (Bug::BelievesStaleReady, Fact::Ready)
            | (Bug::BelievesStaleSickness, Fact::Sick)
            | (Bug::BelievesStaleExit, Fact::Exited(_)) => {
                self.inner.observe(current, fact);
            }
            (Bug::DropsGone, Fact::Gone)
            | (Bug::DropsExit, Fact::Exited(_))
            | (Bug::DropsSickness, Fact::Sick) => {}
            (Bug::StartsBeforeGone, Fact::Exited(_)) => {
                self.inner.observe(run, fact);
                self.inner.observe(run, Fact::Gone);
            }
            _ => self.inner.observe(run, fact),
        }
    }

    fn adopt(&mut self, id: &InstanceId, run: RunId, mut origin: Origin, now: Moment) {
        self.owners.insert(run, id.clone());
        match self.bug {
            Bug::AdoptionForgetsTheRun => return,
            Bug::AdoptionRestarts => origin.spec = SpecId([0xff; 32]),
            _ => {}
        }
        self.inner.adopt(id, run, origin, now);
    }

    fn drive(&mut self, now: Moment) -> Vec<Effect> {
        self.now = now;
        let (effects, _) = self.inner.drive(now);
        if effects.is_empty() && self.is(Bug::RepeatsStops) {
            return std::mem::take(&mut self.said);
        }
        let mut effects = self.falsify(effects);
        self.said.clone_from(&effects);
        self.said.retain(|effect| matches!(effect, Effect::Stop { .. }));
        if self.is(Bug::OneAtATime) {
            // Of several starts at one moment all but the first wait for the next event.
            let mut all = std::mem::take(&mut self.kept_back);
            all.append(&mut effects);
            let starts = all.iter().filter(|effect| matches!(effect, Effect::Start { .. })).count();
            if starts > 1 {
                self.kept_back = all.split_off(all.len() - 1);
            }
            effects = all;
        }
        effects
    }

    fn deadline(&self) -> Option<Moment> {
        let right = self.inner.deadline();
        match self.bug {
            Bug::LosesADeadline => None,
            Bug::LeaksADeadline => right.or(Some(self.now)).map(|at| at.min(self.now)),
            Bug::LeavesADeadlineBehind => match (right, self.leaked.filter(|at| *at > self.now)) {
                (Some(one), Some(other)) => Some(one.min(other)),
                (one, other) => one.or(other),
            },
            _ => right,
        }
    }

    fn view(&self, id: &InstanceId, now: Moment) -> Option<View> {
        let mut view = Core::view(&self.inner, id, now);
        if let Some(view) = &mut view
            && self.is(Bug::ShowsKillingAsDown)
            && matches!(view.state, State::Killing { .. })
        {
            view.state = State::Down;
        }
        view
    }

    fn is_free(&self, id: &InstanceId) -> bool {
        let state = self.inner.get(id).map(Instance::state);
        match state {
            Some(State::Stopping { .. } | State::Killing { .. }) if self.is(Bug::FreesPortsTooSoon) => true,
            _ => Core::is_free(&self.inner, id),
        }
    }

    fn is_busy(&self) -> bool {
        self.inner.is_busy()
    }

    fn holds(&self) -> BTreeSet<InstanceId> {
        self.inner.holds().clone()
    }
}
