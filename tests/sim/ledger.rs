//! What the laws remember of one seat, and where they are applied.
//!
//! The ledger is written from what the world told the core and what the core said, never from what
//! the core remembers. The rule of waiting is worked out here a second time, in another way.

use mcpsup::logic::instance::State;
use mcpsup::model::RunId;

use crate::core::View;
use crate::laws::{Checked, Law, Laws};
use crate::stage::{Ms, Times, moment, times};

/// What should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Goal {
    Never,
    Keep,
    Always(usize),
}

/// What the core was told of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Told {
    Ready,
    Sick,
    Exited,
    Gone,
}

/// What is alive of a seat's runs, in truth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Alive {
    pub(crate) leader: bool,
    pub(crate) children: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Ending {
    kill_at: Ms,
    asked: bool,
}

/// A run that the core may think alive.
#[derive(Debug, Clone)]
struct Life {
    run: u64,
    version: usize,
    times: Times,
    adopted: bool,
    /// The first run after a manual restart.
    renewed: bool,
    give_up_at: Ms,
    ready: bool,
    sick: bool,
    exited: bool,
    gone: bool,
    up_since: Option<Ms>,
    ending: Option<Ending>,
    killed: bool,
    /// It ended by itself or was found sick, and had been up for a stable stretch.
    settled: bool,
}

#[derive(Debug)]
pub(crate) struct Ledger {
    seat: usize,
    laws: Laws,
    /// What the files want, as the core was told.
    pub(crate) files: Goal,
    pub(crate) held: bool,
    pub(crate) closed: bool,
    life: Option<Life>,
    last_run: Option<u64>,
    /// Runs up to this one were asked to make way.
    renewed: Option<u64>,
    /// The next run is the answer to a manual restart.
    renewing: bool,
    strikes: u32,
    /// When the next try is due, and after what.
    cooling: Option<(Ms, usize)>,
}

impl Ledger {
    pub(crate) fn new(seat: usize, laws: Laws) -> Self {
        Self {
            seat,
            laws,
            files: Goal::Never,
            held: false,
            closed: false,
            life: None,
            last_run: None,
            renewed: None,
            renewing: false,
            strikes: 0,
            cooling: None,
        }
    }

    /// Another daemon: it knows the holds and nothing else.
    pub(crate) fn reboot(&mut self) {
        *self = Self { held: self.held, ..Self::new(self.seat, self.laws) };
    }

    pub(crate) fn adopt(&mut self, run: u64, version: usize, now: Ms) {
        self.begin(run, version, now);
        self.files = Goal::Keep;
        if let Some(life) = &mut self.life {
            life.adopted = true;
        }
    }

    fn begin(&mut self, run: u64, version: usize, now: Ms) {
        let times = times(self.seat, version);
        self.life = Some(Life {
            run,
            version,
            times,
            adopted: false,
            renewed: std::mem::take(&mut self.renewing),
            give_up_at: now + times.0,
            ready: false,
            sick: false,
            exited: false,
            gone: false,
            up_since: None,
            ending: None,
            killed: false,
            settled: false,
        });
        self.last_run = Some(run);
        self.cooling = None;
    }

    pub(crate) fn goal(&self) -> Goal {
        if self.closed || self.held { Goal::Never } else { self.files }
    }

    pub(crate) fn renew(&mut self) {
        self.held = false;
        self.renewed = self.last_run;
        self.renewing = true;
        self.try_now();
    }

    pub(crate) fn release(&mut self) {
        self.held = false;
        self.try_now();
    }

    fn try_now(&mut self) {
        if self.cooling.take().is_some() {
            self.strikes = 0;
        }
    }

    pub(crate) fn told(&mut self, run: u64, told: Told) {
        let Some(life) = self.life.as_mut().filter(|life| life.run == run) else {
            return;
        };
        match told {
            Told::Ready => life.ready = true,
            Told::Sick => life.sick = true,
            Told::Exited => life.exited = true,
            Told::Gone => {
                life.exited = true;
                life.gone = true;
            }
        }
    }

    fn accepts(&self, life: &Life) -> bool {
        match self.goal() {
            Goal::Never => false,
            Goal::Keep => true,
            Goal::Always(version) => version == life.version && self.renewed.is_none_or(|old| life.run > old),
        }
    }

    /// Brings the ledger up to what a drive at `now` must see.
    pub(crate) fn look(&mut self, now: Ms) {
        self.conclude(now);
        if let Some(life) = self.life.as_ref()
            && life.ready
            && !life.exited
            && (!life.sick || self.goal() == Goal::Keep)
            && life.ending.is_none()
            && life.up_since.is_none()
            && self.accepts(life)
            && let Some(life) = self.life.as_mut()
        {
            life.up_since = Some(now);
        }
    }

    /// If the run is over, says what is owed now.
    fn conclude(&mut self, now: Ms) {
        if let Some(life) = self.life.take_if(|life| life.killed && life.gone) {
            let (_, _, _, first, longest, _) = life.times;
            let asked = life.ending.is_some_and(|ending| ending.asked);
            if asked || !self.accepts(&life) {
                self.strikes = 0;
            } else if life.settled {
                self.strikes = 1;
            } else {
                self.strikes += 1;
                let mut wait = if self.strikes == 1 { 0 } else { first };
                for _ in 2..self.strikes {
                    wait = longest.min(wait * 2);
                }
                if wait > 0 {
                    self.cooling = Some((now + longest.min(wait), life.version));
                }
            }
        }
        if let Some((due, version)) = self.cooling {
            if self.goal() != Goal::Always(version) {
                self.try_now();
            } else if due <= now {
                self.cooling = None;
            }
        }
    }

    pub(crate) fn on_start(&mut self, now: Ms, run: u64, version: usize, alive: Alive) -> Checked {
        let laws = self.laws;
        if alive.leader || self.life.as_ref().is_some_and(|life| !life.exited) {
            laws.broken(Law::OneProcess, now, format_args!("run {run} beside a living one"))?;
        } else if alive.children || self.life.is_some() {
            laws.broken(Law::GoneBeforeStart, now, format_args!("run {run} before the last is gone"))?;
        }
        match self.goal() {
            Goal::Always(wanted) if wanted == version => {}
            goal @ (Goal::Never | Goal::Keep | Goal::Always(_)) => {
                let law = if self.closed {
                    Law::ClosedStartsNothing
                } else if self.held {
                    Law::Hold
                } else if goal == Goal::Keep {
                    Law::Keep
                } else {
                    Law::UnwantedIsNotStarted
                };
                laws.broken(law, now, format_args!("run {run} of version {version} for {goal:?}"))?;
            }
        }
        if let Some((due, _)) = self.cooling {
            laws.broken(Law::Wait, now, format_args!("run {run} started, due at {due}"))?;
        }
        self.begin(run, version, now);
        Ok(())
    }

    pub(crate) fn on_stop(&mut self, now: Ms, run: u64, signal: i32) -> Checked {
        let laws = self.laws;
        let Some(life) = self.life.as_ref().filter(|life| life.run == run) else {
            return laws.broken(Law::StopHasCause, now, format_args!("run {run} is not current"));
        };
        if life.ending.is_some() || life.killed {
            laws.broken(Law::SaidOnce, now, format_args!("stop of run {run}"))?;
        }
        if life.exited || life.times.1 != signal {
            laws.broken(Law::StopHasCause, now, format_args!("signal {signal} to run {run}"))?;
        }
        let asked = !self.accepts(life);
        let late = life.up_since.is_none() && life.give_up_at <= now && self.goal() != Goal::Keep;
        let sick = life.sick && self.goal() != Goal::Keep;
        if !asked && !late && !sick {
            let law = if self.goal() == Goal::Keep {
                Law::Keep
            } else if life.adopted {
                Law::Adoption
            } else if life.renewed {
                Law::RestartOnce
            } else {
                Law::StopHasCause
            };
            laws.broken(law, now, format_args!("run {run} is stopped and was wanted"))?;
        }
        if let Some(life) = self.life.as_mut() {
            let up_for = life.up_since.map(|up| now - up);
            life.settled = !asked && up_for.is_some_and(|up_for| up_for >= life.times.5);
            life.ending = Some(Ending { kill_at: now + life.times.2, asked });
        }
        Ok(())
    }

    pub(crate) fn on_kill(&mut self, now: Ms, run: u64, alive: Alive) -> Checked {
        let laws = self.laws;
        let Some(life) = self.life.as_mut().filter(|life| life.run == run) else {
            return laws.broken(Law::SaidOnce, now, format_args!("kill of old run {run}"));
        };
        let over = life.ending.is_some_and(|ending| ending.kill_at <= now);
        if !over && (alive.leader || !life.exited) {
            laws.broken(Law::Grace, now, format_args!("run {run} is killed too soon"))?;
        }
        if life.killed {
            laws.broken(Law::SaidOnce, now, format_args!("kill of run {run}"))?;
        }
        life.killed = true;
        let stable = life.times.5;
        life.settled |= life.ending.is_none() && life.up_since.is_some_and(|up| up + stable <= now);
        self.conclude(now);
        Ok(())
    }

    /// After a drive: nothing was left undone, and what is shown is what is.
    pub(crate) fn after(&self, now: Ms, view: Option<&View>, alive: Alive) -> Checked {
        self.left_undone(now)?;
        self.shown(now, view, alive)
    }

    fn left_undone(&self, now: Ms) -> Checked {
        let laws = self.laws;
        let Some(life) = &self.life else {
            if let (Goal::Always(version), None) = (self.goal(), self.cooling) {
                laws.broken(Law::Prompt, now, format_args!("version {version} is not started"))?;
            }
            return Ok(());
        };
        let run = life.run;
        if life.killed {
            return Ok(());
        }
        if life.exited {
            return laws.broken(Law::Prompt, now, format_args!("run {run} exited and is not swept"));
        }
        if let Some(ending) = life.ending {
            if ending.kill_at <= now {
                laws.broken(Law::Prompt, now, format_args!("run {run} is not killed"))?;
            }
            return Ok(());
        }
        if !self.accepts(life) {
            let law = if self.closed {
                Law::CloseEndsAll
            } else if self.held {
                Law::Hold
            } else if self.renewed.is_some_and(|old| run <= old) {
                Law::RestartOnce
            } else if life.adopted {
                Law::Adoption
            } else {
                Law::Prompt
            };
            laws.broken(law, now, format_args!("run {run} is not stopped"))?;
        } else if life.sick && self.goal() != Goal::Keep {
            laws.broken(Law::Prompt, now, format_args!("run {run} is sick and not stopped"))?;
        } else if life.up_since.is_none() && life.give_up_at <= now && self.goal() != Goal::Keep {
            laws.broken(Law::Prompt, now, format_args!("run {run} is not given up"))?;
        }
        Ok(())
    }

    fn shown(&self, now: Ms, view: Option<&View>, alive: Alive) -> Checked {
        let laws = self.laws;
        let Some(view) = view else {
            if self.life.is_some() || alive.leader || alive.children {
                laws.broken(Law::MapIsTruth, now, format_args!("not shown, and alive"))?;
            }
            if self.goal() != Goal::Never {
                laws.broken(Law::MapIsTruth, now, format_args!("not shown, and wanted"))?;
            }
            return Ok(());
        };
        let state = view.state;
        let wrong = |law: Law| laws.broken(law, now, format_args!("shown as {state:?}, is {self:?}"));
        let (deadline, right) = match (&self.life, state) {
            (None, State::Down) => (None, self.cooling.is_none()),
            (None, State::Cooling { until, .. }) => {
                if self.cooling.is_none_or(|(due, _)| moment(due) != until) {
                    wrong(Law::Wait)?;
                }
                (Some(until), true)
            }
            (Some(life), State::Starting { run, give_up_at, .. }) => (
                Some(give_up_at).filter(|_| self.goal() != Goal::Keep),
                run == RunId(life.run)
                    && give_up_at == moment(life.give_up_at)
                    && life.up_since.is_none()
                    && life.ending.is_none()
                    && !life.killed,
            ),
            (Some(life), State::Up { run, since, .. }) => {
                if !life.ready {
                    wrong(Law::UpAnswered)?;
                }
                let up_since = life.up_since.map(moment) == Some(since);
                (None, run == RunId(life.run) && up_since && life.ending.is_none() && !life.killed)
            }
            (Some(life), State::Stopping { run, kill_at, .. }) => {
                let right = life.ending.is_some_and(|ending| moment(ending.kill_at) == kill_at);
                (Some(kill_at), run == RunId(life.run) && right && !life.killed)
            }
            (Some(life), State::Killing { run, .. }) => (None, run == RunId(life.run) && life.killed),
            (Some(_), State::Down | State::Cooling { .. })
            | (
                None,
                State::Starting { .. } | State::Up { .. } | State::Stopping { .. } | State::Killing { .. },
            ) => (view.deadline, false),
        };
        let unseen = self.life.is_none() && (alive.leader || alive.children);
        if !right || unseen || view.last_run != self.last_run.map(RunId) {
            wrong(Law::MapIsTruth)?;
        }
        if view.deadline != deadline {
            wrong(Law::DeadlineOwned)?;
        }
        if view.strikes != self.strikes_shown(now) {
            laws.broken(Law::Wait, now, format_args!("{} strikes, {self:?}", view.strikes))?;
        }
        Ok(())
    }

    /// It is not shown any more: whoever comes back is new.
    pub(crate) fn dropped(&mut self) {
        self.last_run = None;
        self.renewed = None;
        self.strikes = 0;
    }

    fn strikes_shown(&self, now: Ms) -> u32 {
        match &self.life {
            Some(life)
                if life.ending.is_none()
                    && !life.killed
                    && life.up_since.is_some_and(|up| up + life.times.5 <= now) =>
            {
                0
            }
            Some(_) | None => self.strikes,
        }
    }

    /// True if this run is the one that the core may think alive.
    pub(crate) fn knows(&self, run: u64) -> bool {
        self.life.as_ref().is_some_and(|life| life.run == run)
    }

    /// True if the core may think something alive.
    pub(crate) fn is_busy(&self) -> bool {
        self.life.is_some()
    }
}
