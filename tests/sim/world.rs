//! A seeded world without processes or time: it reacts to effects, tells facts, changes files,
//! kills the daemon, and has the laws looked at after every drive.
//!
//! Each seat draws from a stream of its own and nothing in it depends on another seat, so a user
//! alone must meet the same fate as in a crowd ([`crate::laws::Law::Independence`]).

use std::collections::{BTreeMap, BTreeSet};

use mcpsup::logic::fleet::Effect;
use mcpsup::logic::instance::{Fact, Origin, Want};
use mcpsup::model::{Exit, InstanceId, RunId, Whom};

use crate::core::Core;
use crate::deck::{Card, Deck, Process};
use crate::laws::{Broken, Checked, Law, Laws};
use crate::ledger::{Alive, Goal, Ledger, Told};
use crate::rng::{Rng, mix};
use crate::stage::{Ms, SEATS, Stage, VERSIONS, moment, port, times};

macro_rules! note {
    ($world:expr, $($words:tt)*) => {
        if let Some(trace) = &mut $world.trace {
            trace.push(format!("{:>5} ms  {}", $world.now, format_args!($($words)*)));
        }
    };
}

mod reactions;
mod whims;

/// How many drives a storm may take; a core that always wants to be driven at once needs more.
const STORM: u64 = 3_000;

/// How many drives the world may take to come to rest once faults have stopped.
const BOUND: u64 = 300;

/// A world is its seed, cut down: only some seats, and an early end of its faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Case {
    pub(crate) seed: u64,
    pub(crate) seats: u8,
    pub(crate) until: Ms,
}

impl Case {
    pub(crate) fn whole(seed: u64) -> Self {
        Self { seed, seats: 0b1111, until: Ms::MAX }
    }
}

/// What there is to say of a world in which all laws held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) steps: u64,
    /// A digest of what was said to each seat, and when; zero for an empty one.
    pub(crate) said: [u64; SEATS],
    /// False if the loop lagged: then one user's events delay another's.
    pub(crate) punctual: bool,
}

/// How a daemon begins: with the next run's number and the holds that were kept.
pub(crate) type Boot<'a, C> = &'a dyn Fn(RunId, BTreeSet<InstanceId>) -> C;

/// A user's file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum File {
    Absent,
    Good(usize),
    Broken,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    /// Somebody does something to a seat.
    Whim,
    Answers(u64),
    Dies(u64),
    AllDie(u64),
    Tell(u64, Told),
    /// The daemon reads the files again, whether or not something changed.
    Read,
    /// Something befalls everybody.
    Fate,
}

#[derive(Debug, Clone, Copy)]
struct Due {
    at: Ms,
    seat: usize,
    order: u32,
    what: What,
}

struct Seat {
    number: usize,
    tenant: usize,
    rng: Rng,
    deck: Deck,
    file: File,
    last_good: Option<usize>,
    processes: Vec<Process>,
    ledger: Ledger,
    said: u64,
}

impl Seat {
    fn alive(&self) -> Alive {
        Alive {
            leader: self.processes.iter().any(|process| process.leader),
            children: self.processes.iter().any(|process| process.children),
        }
    }

    fn process(&mut self, run: u64) -> Option<&mut Process> {
        self.processes.iter_mut().find(|process| process.run == run)
    }
}

pub(crate) struct World<'a, C> {
    stage: &'a Stage,
    boot: Boot<'a, C>,
    core: C,
    /// What was last wanted of everybody, if this core was ever told.
    told: Option<BTreeMap<InstanceId, Want>>,
    laws: Laws,
    rng: Rng,
    now: Ms,
    until: Ms,
    seats: Vec<Seat>,
    agenda: Vec<Due>,
    orders: u32,
    steps: u64,
    /// Higher than any run ever was: the daemon writes an intent before each start.
    next_run: u64,
    /// Whether the daemon has read the files, and the directory is there.
    reading: bool,
    closed: bool,
    calm: bool,
    lags: bool,
    mortal: bool,
    trace: Option<&'a mut Vec<String>>,
}

/// Plays a world to its end.
pub(crate) fn play<C: Core>(
    stage: &Stage,
    boot: Boot<'_, C>,
    case: Case,
    laws: Laws,
    trace: Option<&mut Vec<String>>,
) -> Result<Outcome, Broken> {
    let mut world = World::new(stage, boot, case, laws, trace);
    let punctual = !world.lags;
    world.storm()?;
    world.calm()?;
    let mut said = [0; SEATS];
    for seat in &world.seats {
        said[seat.number] = seat.said;
    }
    Ok(Outcome { steps: world.steps, said, punctual })
}

impl<'a, C: Core> World<'a, C> {
    fn new(
        stage: &'a Stage,
        boot: Boot<'a, C>,
        case: Case,
        laws: Laws,
        trace: Option<&'a mut Vec<String>>,
    ) -> Self {
        let mut rng = Rng::new(case.seed);
        let crowd = 1 + usize::try_from(rng.below(4)).unwrap_or(0);
        let until = (50 + rng.below(110)).min(case.until);
        let seats = (0..crowd)
            .filter(|number| case.seats >> number & 1 == 1)
            .map(|number| {
                let mut rng = Rng::new(mix(case.seed ^ (number as u64 + 1)));
                let deck = Deck::shuffle(&mut rng);
                Seat {
                    number,
                    tenant: 0,
                    rng,
                    deck,
                    file: File::Good(0),
                    last_good: None,
                    processes: Vec::new(),
                    ledger: Ledger::new(number, laws),
                    said: 0,
                }
            })
            .collect();
        let mut world = Self {
            stage,
            boot,
            core: boot(RunId(1), BTreeSet::new()),
            told: None,
            laws,
            lags: rng.one_in(4),
            mortal: rng.one_in(2),
            rng,
            now: 0,
            until,
            seats,
            agenda: Vec::with_capacity(32),
            orders: 0,
            steps: 0,
            next_run: 1,
            reading: false,
            closed: false,
            calm: false,
            trace,
        };
        for place in 0..world.seats.len() {
            world.later(1, place, What::Whim);
        }
        world.later(0, SEATS, What::Read);
        let first = world.rng.below(2 * until);
        world.later(first, SEATS, What::Fate);
        world
    }

    /// Puts something on the agenda, `wait` from now. Seat `SEATS` is everybody.
    fn later(&mut self, wait: Ms, place: usize, what: What) {
        self.orders += 1;
        self.agenda.push(Due { at: self.now + wait, seat: place, order: self.orders, what });
    }

    /// The time of faults and changes.
    fn storm(&mut self) -> Checked {
        while let Some(at) = self.next_wake().filter(|at| *at <= self.until) {
            if self.steps > STORM {
                return self.fails(Law::Progress, "time does not go on");
            }
            self.step(at)?;
        }
        Ok(())
    }

    /// Faults stop: everybody must come to rest, as wanted.
    fn calm(&mut self) -> Checked {
        self.now = self.now.max(self.until);
        self.calm = true;
        self.lags = false;
        self.agenda.retain(|due| !matches!(due.what, What::Whim | What::Fate | What::Read));
        self.later(0, SEATS, What::Read);
        let end = self.steps + BOUND;
        note!(self, "faults stop");
        while let Some(at) = self.next_wake() {
            if self.steps > end {
                return self.fails(Law::Progress, "the world does not come to rest");
            }
            self.step(at)?;
        }
        for place in 0..self.seats.len() {
            let seat = &self.seats[place];
            let alive = seat.alive();
            let right = match seat.ledger.goal() {
                Goal::Always(version) => {
                    matches!(&seat.processes[..], [one] if one.leader && one.version == version)
                }
                Goal::Never => !alive.leader && !alive.children,
                Goal::Keep => !alive.children,
            };
            if !right {
                let law = if self.closed { Law::CloseEndsAll } else { Law::Progress };
                self.fails(law, "at rest, what runs is not what is wanted")?;
            }
        }
        Ok(())
    }

    fn fails(&self, law: Law, what: &str) -> Checked {
        self.laws.broken(law, self.now, format_args!("{what}"))
    }

    fn next_wake(&self) -> Option<Ms> {
        let event = self.agenda.iter().map(|due| due.at).min();
        let deadline = self.core.deadline().map(|at| {
            let since_boot = at.since_boot();
            u64::try_from(since_boot.as_millis()).unwrap_or(Ms::MAX)
        });
        match (event, deadline) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        }
    }

    /// One turn of the daemon's loop.
    fn step(&mut self, at: Ms) -> Checked {
        self.steps += 1;
        self.now = self.now.max(at);
        if self.lags && self.rng.one_in(3) {
            self.now += self.rng.below(8);
        }
        let mut killed = false;
        while let Some(place) = self.first_due() {
            let due = self.agenda.swap_remove(place);
            match due.what {
                What::Whim => self.whim(due.seat)?,
                What::Answers(run) => self.answers(due.seat, run),
                What::Dies(run) => self.dies(due.seat, run),
                What::AllDie(run) => self.all_die(due.seat, run),
                What::Tell(run, told) => self.tell(due.seat, run, told),
                What::Read => {
                    self.reading = true;
                    self.read();
                }
                What::Fate => killed |= self.fate(),
            }
        }
        let effects = self.drive()?;
        for effect in effects {
            self.act(effect, killed);
        }
        if killed {
            self.reboot();
            let effects = self.drive()?;
            for effect in effects {
                self.act(effect, false);
            }
        }
        Ok(())
    }

    fn first_due(&self) -> Option<usize> {
        let (place, due) =
            self.agenda.iter().enumerate().min_by_key(|(_, due)| (due.at, due.seat, due.order))?;
        (due.at <= self.now).then_some(place)
    }

    /// Drives the core, and looks at the laws.
    fn drive(&mut self) -> Result<Vec<Effect>, Broken> {
        let now = self.now;
        for seat in &mut self.seats {
            seat.ledger.look(now);
        }
        let effects = self.core.drive(moment(now));
        for effect in &effects {
            self.judge(effect)?;
        }
        if !self.core.drive(moment(now)).is_empty() {
            self.fails(Law::SaidOnce, "a second drive says something")?;
        }
        let mut first = None;
        let mut busy = false;
        for seat in &mut self.seats {
            let alive = seat.alive();
            let view = self.core.view(self.stage.id(seat.number, seat.tenant), moment(now));
            seat.ledger.after(now, view.as_ref(), alive)?;
            if view.is_none() {
                seat.ledger.dropped();
            }
            busy |= seat.ledger.is_busy();
            let deadline = view.and_then(|view| view.deadline);
            first = match (first, deadline) {
                (Some(one), Some(other)) => Some(std::cmp::min(one, other)),
                (one, other) => one.or(other),
            };
        }
        let deadline = self.core.deadline();
        if deadline.is_some_and(|at| at <= moment(now)) {
            self.fails(Law::DeadlineAhead, "a deadline is over")?;
        }
        if deadline != first {
            self.fails(Law::DeadlineOwned, "a deadline stands for nobody, or is missing")?;
        }
        if busy != self.core.is_busy() {
            self.fails(Law::MapIsTruth, "busy, or not, against the truth")?;
        }
        Ok(effects)
    }

    fn place_of(&self, run: RunId) -> Option<usize> {
        self.seats.iter().position(|seat| seat.ledger.knows(run.0))
    }

    fn judge(&mut self, effect: &Effect) -> Checked {
        let now = self.now;
        note!(self, "    core: {}", shown(effect));
        let (place, kind, detail) = match effect {
            Effect::Start { instance, run, spec } => {
                let found = self.stage.find(instance).and_then(|(number, tenant)| {
                    self.seats.iter().position(|s| s.number == number && s.tenant == tenant)
                });
                let Some(place) = found else {
                    return self.fails(Law::OneUserPerPort, "a start for a user who has no port");
                };
                let version = usize::from(spec.id.0[2]);
                let seat = &mut self.seats[place];
                if spec.backend != Some(port(seat.number)) {
                    return self.fails(Law::OneUserPerPort, "a start at somebody else's port");
                }
                let alive = seat.alive();
                seat.ledger.on_start(now, run.0, version, alive)?;
                if run.0 < self.next_run {
                    self.fails(Law::RunIsNew, "a run's number was used before")?;
                }
                self.next_run = self.next_run.max(run.0 + 1);
                (place, 1, version as u64)
            }
            Effect::Stop { run, signal } => {
                let Some(place) = self.place_of(*run) else {
                    return self.fails(Law::StopHasCause, "a stop of a run that is over");
                };
                self.seats[place].ledger.on_stop(now, run.0, *signal)?;
                (place, 2, 0)
            }
            Effect::Kill { run } => {
                let Some(place) = self.place_of(*run) else {
                    return self.fails(Law::SaidOnce, "a kill of a run that is over");
                };
                let seat = &mut self.seats[place];
                let alive = seat.alive();
                seat.ledger.on_kill(now, run.0, alive)?;
                (place, 3, 0)
            }
        };
        let seat = &mut self.seats[place];
        seat.said = mix(seat.said ^ (now << 8) ^ (detail << 4) ^ kind);
        Ok(())
    }
}

fn shown(effect: &Effect) -> String {
    match effect {
        Effect::Start { instance, run, spec } => {
            format!("start {instance} as run {run}, version {}", spec.id.0[2])
        }
        Effect::Stop { run, signal } => format!("stop run {run} by signal {signal}"),
        Effect::Kill { run } => format!("kill run {run}"),
    }
}
