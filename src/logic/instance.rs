//! One instance's life.
//!
//! [`Instance::observe`] records what happened; [`Instance::drive`] compares it with what is
//! wanted and says what to do. Nothing else in the program decides to start, signal or wait.
//!
//! There is no clock and no process here: `now` is an argument, and a process is a [`RunId`].
//! A restart is "stop, while still wanted": there is no flag for it, only the want of a run that
//! is newer than a given one.

use std::sync::Arc;
use std::time::Duration;

use crate::model::config::Restart;
use crate::model::spec::Plan;
use crate::model::{Exit, Moment, RunId, Spec, SpecId};

/// What should be, for one instance.
#[derive(Debug, Clone, PartialEq)]
pub enum Want {
    /// Nothing should run.
    Never,
    /// What runs may go on, but nothing is started: its file is broken or unreadable and no good
    /// version is known.
    Keep,
    /// A run of exactly this.
    Always(Arc<Spec>),
}

/// What a run was started as: enough to tell whether it still is what is wanted, and to end it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin {
    /// The digest of its spec.
    pub spec: SpecId,
    /// Its times and its stop signal.
    pub plan: Plan,
}

/// What is. Every state but `Down` names what it waits for, and those that wait for time carry
/// the deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Nothing of it is alive. Waits for being wanted.
    Down,
    /// Waits for readiness, its exit, the deadline, or a change of mind.
    Starting {
        /// The run.
        run: RunId,
        /// What it was started as.
        origin: Origin,
        /// When it has had long enough to be ready.
        give_up_at: Moment,
    },
    /// It answered. Waits for its exit or a change of mind.
    Up {
        /// The run.
        run: RunId,
        /// What it was started as.
        origin: Origin,
        /// Since when.
        since: Moment,
    },
    /// It was asked to end. Waits for its exit or the deadline.
    Stopping {
        /// The run.
        run: RunId,
        /// What it was started as.
        origin: Origin,
        /// Why it ends.
        cause: Cause,
        /// When its grace is over.
        kill_at: Moment,
    },
    /// It, or what it left behind, is being killed. Waits until nothing of it is alive; there is
    /// no deadline, because a process that the kernel will not release must not get a sibling.
    Killing {
        /// The run.
        run: RunId,
        /// What it was started as.
        origin: Origin,
        /// Why it ended.
        cause: Cause,
    },
    /// It ended by itself. Waits for the deadline or a change of mind.
    Cooling {
        /// When the next try is due.
        until: Moment,
        /// What ended; a different want does not wait for its sake.
        spec: SpecId,
    },
}

/// Why a run ends: whether its end counts as a strike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// It is no longer wanted, or a newer one is.
    Asked,
    /// It was not ready in time.
    NotReady,
    /// It ended by itself, or was found sick, after this long in `Up` (zero if it never was).
    Crashed {
        /// How long it was up.
        up_for: Duration,
    },
}

/// A fact about a run, from outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fact {
    /// It answered its probe.
    Ready,
    /// It lives and will not do: it refuses to be spoken with, or answers nothing any more.
    Sick,
    /// Its first process ended, or never began.
    Exited(Exit),
    /// Nothing of it is alive any more: no process, no child of one.
    Gone,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq)]
pub enum Deed {
    /// Start `spec` as this run. Its end is heard of as [`Fact::Exited`], even if it never began.
    Start(RunId, Arc<Spec>),
    /// Ask the run to end: this signal to its process group.
    Stop(RunId, i32),
    /// Kill whatever is left of the run, and say [`Fact::Gone`] when nothing is.
    Kill(RunId),
}

/// What was seen of the current run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "four facts, each of which may be seen without the others")]
struct Seen {
    ready: bool,
    sick: bool,
    exited: bool,
    gone: bool,
}

/// One instance: what is wanted beside what is.
#[derive(Debug, Clone)]
pub struct Instance {
    want: Want,
    /// Runs up to this one are not wanted any more, whatever they were started as.
    newer_than: Option<RunId>,
    state: State,
    entered: Moment,
    seen: Seen,
    strikes: u32,
    last_run: Option<RunId>,
    last_exit: Option<Exit>,
}

impl Instance {
    /// An instance of which nothing runs and nothing is wanted.
    #[must_use]
    pub fn new(now: Moment) -> Self {
        Self {
            want: Want::Never,
            newer_than: None,
            state: State::Down,
            entered: now,
            seen: Seen::default(),
            strikes: 0,
            last_run: None,
            last_exit: None,
        }
    }

    /// An instance whose run was found alive by a new daemon. It is asked again whether it is
    /// ready; whether it is wanted, the next `drive` tells.
    #[must_use]
    pub fn adopted(run: RunId, origin: Origin, now: Moment) -> Self {
        let give_up_at = now + origin.plan.ready_timeout();
        Self { state: State::Starting { run, origin, give_up_at }, last_run: Some(run), ..Self::new(now) }
    }

    /// Says what should be from now on.
    pub fn want(&mut self, want: Want) {
        self.want = want;
    }

    /// From now on only a run newer than the current one will do; what cools is tried at once.
    pub fn renew(&mut self) {
        self.newer_than = self.last_run;
        self.try_now();
    }

    /// What cools is tried at once, and its strikes are forgotten.
    pub fn try_now(&mut self) {
        if let State::Cooling { .. } = self.state {
            self.state = State::Down;
            self.strikes = 0;
        }
    }

    /// The current run has no grace when it is to end.
    pub fn hurry(&mut self) {
        match &mut self.state {
            State::Starting { origin, .. } | State::Up { origin, .. } => {
                origin.plan.stop_grace_ms = 0;
            }
            State::Stopping { kill_at, .. } => *kill_at = Moment::default(),
            State::Down | State::Killing { .. } | State::Cooling { .. } => {}
        }
    }

    /// Writes down a fact. One about a run that is not the current one is ignored.
    pub fn observe(&mut self, run: RunId, fact: Fact) {
        if self.current() != Some(run) {
            return;
        }
        match fact {
            Fact::Ready => self.seen.ready = true,
            Fact::Sick => self.seen.sick = true,
            Fact::Exited(exit) => {
                self.seen.exited = true;
                self.last_exit = Some(exit);
            }
            // Nothing is alive, so its first process is not either: facts may come in any order,
            // or only the last of them.
            Fact::Gone => {
                self.seen.exited = true;
                self.seen.gone = true;
            }
        }
    }

    /// Compares what is wanted with what is, and says what to do. Said once: a second call at the
    /// same moment says nothing.
    pub fn drive(&mut self, now: Moment, next_run: &mut RunId, deeds: &mut Vec<Deed>) {
        while let Some(state) = self.step(now, next_run, deeds) {
            self.state = state;
            self.entered = now;
        }
    }

    /// The state that follows now, if one does.
    fn step(&mut self, now: Moment, next_run: &mut RunId, deeds: &mut Vec<Deed>) -> Option<State> {
        match self.state {
            State::Down => match self.want.clone() {
                Want::Never | Want::Keep => None,
                Want::Always(spec) => Some(self.start(now, spec, next_run, deeds)),
            },
            State::Starting { run, origin, give_up_at } => {
                if self.seen.exited {
                    deeds.push(Deed::Kill(run));
                    Some(State::Killing { run, origin, cause: Cause::Crashed { up_for: Duration::ZERO } })
                } else if !self.accepts(run, origin) {
                    Some(stop(now, run, origin, Cause::Asked, deeds))
                } else if self.is_given_up() {
                    Some(stop(now, run, origin, Cause::NotReady, deeds))
                } else if self.seen.ready {
                    Some(State::Up { run, origin, since: now })
                } else if give_up_at <= now && self.want != Want::Keep {
                    Some(stop(now, run, origin, Cause::NotReady, deeds))
                } else {
                    None
                }
            }
            State::Up { run, origin, since } => {
                if self.seen.exited {
                    deeds.push(Deed::Kill(run));
                    let cause = Cause::Crashed { up_for: now.since(since) };
                    Some(State::Killing { run, origin, cause })
                } else if !self.accepts(run, origin) {
                    Some(stop(now, run, origin, Cause::Asked, deeds))
                } else if self.is_given_up() {
                    Some(stop(now, run, origin, Cause::Crashed { up_for: now.since(since) }, deeds))
                } else {
                    None
                }
            }
            State::Stopping { run, origin, cause, kill_at } => {
                if self.seen.exited || kill_at <= now {
                    deeds.push(Deed::Kill(run));
                    Some(State::Killing { run, origin, cause })
                } else {
                    None
                }
            }
            State::Killing { run, origin, cause } => {
                if self.seen.gone {
                    Some(self.settle(now, run, origin, cause))
                } else {
                    None
                }
            }
            State::Cooling { until, spec } => match &self.want {
                Want::Never | Want::Keep => {
                    self.strikes = 0;
                    Some(State::Down)
                }
                Want::Always(wanted) if wanted.id != spec => {
                    self.strikes = 0;
                    Some(State::Down)
                }
                Want::Always(_) if until <= now => Some(State::Down),
                Want::Always(_) => None,
            },
        }
    }

    fn start(&mut self, now: Moment, spec: Arc<Spec>, next_run: &mut RunId, deeds: &mut Vec<Deed>) -> State {
        let run = *next_run;
        *next_run = RunId(run.0 + 1);
        self.seen = Seen::default();
        self.last_run = Some(run);
        let origin = Origin { spec: spec.id, plan: spec.plan() };
        deeds.push(Deed::Start(run, spec));
        State::Starting { run, origin, give_up_at: now + origin.plan.ready_timeout() }
    }

    /// Where a run that is gone leaves its instance.
    fn settle(&mut self, now: Moment, run: RunId, origin: Origin, cause: Cause) -> State {
        // Another one is wanted, or none: what comes next does not pay for this one's strikes.
        if !self.accepts(run, origin) {
            self.strikes = 0;
            return State::Down;
        }
        match cause {
            Cause::Asked => {
                self.strikes = 0;
                State::Down
            }
            Cause::Crashed { up_for } if up_for >= origin.plan.restart().stable => {
                self.strikes = 1;
                State::Down
            }
            Cause::Crashed { .. } | Cause::NotReady => {
                self.strikes = self.strikes.saturating_add(1);
                let wait = wait_after(self.strikes, origin.plan.restart());
                if wait.is_zero() {
                    State::Down
                } else {
                    State::Cooling { until: now + wait, spec: origin.spec }
                }
            }
        }
    }

    /// True if the run is of no use, and another can follow it.
    fn is_given_up(&self) -> bool {
        self.seen.sick && self.want != Want::Keep
    }

    fn accepts(&self, run: RunId, origin: Origin) -> bool {
        match &self.want {
            Want::Never => false,
            // Nothing could follow it, so even a manual restart waits until something can.
            Want::Keep => true,
            Want::Always(spec) => spec.id == origin.spec && self.newer_than.is_none_or(|old| run > old),
        }
    }

    /// When `drive` must be called again though nothing happens.
    #[must_use]
    pub fn deadline(&self) -> Option<Moment> {
        match self.state {
            // What nothing could follow is not given up.
            State::Starting { .. } if self.want == Want::Keep => None,
            State::Starting { give_up_at, .. } => Some(give_up_at),
            State::Stopping { kill_at, .. } => Some(kill_at),
            State::Cooling { until, .. } => Some(until),
            State::Down | State::Up { .. } | State::Killing { .. } => None,
        }
    }

    /// The run of which something may be alive.
    #[must_use]
    pub fn current(&self) -> Option<RunId> {
        match self.state {
            State::Starting { run, .. }
            | State::Up { run, .. }
            | State::Stopping { run, .. }
            | State::Killing { run, .. } => Some(run),
            State::Down | State::Cooling { .. } => None,
        }
    }

    /// True while anything of a run may be alive, as far as was seen.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.current().is_some() && !self.seen.gone
    }

    /// What is.
    #[must_use]
    pub fn state(&self) -> State {
        self.state
    }

    /// Since when it is so.
    #[must_use]
    pub fn entered(&self) -> Moment {
        self.entered
    }

    /// What should be.
    #[must_use]
    pub fn wanted(&self) -> &Want {
        &self.want
    }

    /// Runs in a row that ended by themselves; the account is settled by a stable stretch.
    #[must_use]
    pub fn strikes(&self, now: Moment) -> u32 {
        match self.state {
            State::Up { origin, since, .. } if now.since(since) >= origin.plan.restart().stable => 0,
            State::Down
            | State::Starting { .. }
            | State::Up { .. }
            | State::Stopping { .. }
            | State::Killing { .. }
            | State::Cooling { .. } => self.strikes,
        }
    }

    /// The newest run, alive or not.
    #[must_use]
    pub fn last_run(&self) -> Option<RunId> {
        self.last_run
    }

    /// How the newest run that ended did.
    #[must_use]
    pub fn last_exit(&self) -> Option<&Exit> {
        self.last_exit.as_ref()
    }
}

fn stop(now: Moment, run: RunId, origin: Origin, cause: Cause, deeds: &mut Vec<Deed>) -> State {
    deeds.push(Deed::Stop(run, origin.plan.stop().signal));
    State::Stopping { run, origin, cause, kill_at: now + origin.plan.stop().grace }
}

/// How long the try after the n-th strike in a row waits: the first not at all, the second
/// `first_wait`, then double each time up to `max_wait`. It never gives up.
#[must_use]
pub fn wait_after(strikes: u32, rule: Restart) -> Duration {
    match strikes {
        0 | 1 => Duration::ZERO,
        n => {
            let factor = 1_u32.checked_shl(n - 2).unwrap_or(u32::MAX);
            rule.first_wait.saturating_mul(factor).min(rule.max_wait)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_doubles_up_to_its_limit_and_the_first_try_is_at_once() {
        let rule = Restart {
            first_wait: Duration::from_millis(100),
            max_wait: Duration::from_secs(60),
            stable: Duration::from_secs(60),
        };
        let waits: Vec<u128> = (1..=13).map(|n| wait_after(n, rule).as_millis()).collect();
        assert_eq!(waits, [0, 100, 200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 51_200, 60_000, 60_000]);
        assert_eq!(wait_after(u32::MAX, rule), rule.max_wait);
    }
}
