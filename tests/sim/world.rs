//! A seeded world without processes or time: it reacts to effects, tells facts, changes files,
//! kills the daemon, and has the laws looked at after every drive.
//!
//! Each seat draws from a stream of its own and nothing in it depends on another seat, so a user
//! alone must meet the same fate as in a crowd ([`crate::laws::Law::Independence`]).

use std::collections::{BTreeMap, BTreeSet};

use mcpsup::logic::fleet::Effect;
use mcpsup::logic::instance::{Fact, Origin, Want};
use mcpsup::model::{Exit, InstanceId, RunId};

use crate::core::Core;
use crate::deck::{Card, Deck, Process};
use crate::laws::{Broken, Checked, Law, Laws};
use crate::ledger::{Alive, Goal, Ledger, Told};
use crate::rng::{Rng, mix};
use crate::stage::{Ms, SEATS, Stage, VERSIONS, moment, port, times};

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

macro_rules! note {
    ($world:expr, $($words:tt)*) => {
        if let Some(trace) = &mut $world.trace {
            trace.push(format!("{:>5} ms  {}", $world.now, format_args!($($words)*)));
        }
    };
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
            self.act(effect, killed)?;
        }
        if killed {
            self.reboot();
            let effects = self.drive()?;
            for effect in effects {
                self.act(effect, false)?;
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
        for seat in &self.seats {
            // What is to be started lives from now on, though its process comes a moment later.
            let alive = seat.alive();
            let view = self.core.view(self.stage.id(seat.number, seat.tenant), moment(now));
            seat.ledger.after(now, view.as_ref(), alive)?;
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
                if spec.backend != port(seat.number) {
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

    /// Does what the core says; of a daemon that is being killed, each seat's part or not.
    fn act(&mut self, effect: Effect, killed: bool) -> Checked {
        let place = match &effect {
            Effect::Start { instance, .. } => self
                .stage
                .find(instance)
                .and_then(|(number, _)| self.seats.iter().position(|s| s.number == number)),
            Effect::Stop { run, .. } | Effect::Kill { run } => {
                self.seats.iter().position(|seat| seat.processes.iter().any(|process| process.run == run.0))
            }
        };
        let run = match &effect {
            Effect::Start { run, .. } | Effect::Stop { run, .. } | Effect::Kill { run } => run.0,
        };
        let Some(place) = place else {
            // All of it has died already; who looks finds nothing.
            if let (Effect::Kill { .. }, Some(place)) = (&effect, self.place_of(RunId(run))) {
                self.later(1, place, What::AllDie(run));
            }
            return Ok(());
        };
        let calm = self.calm;
        let seat = &mut self.seats[place];
        if killed && seat.rng.one_in(2) {
            return Ok(());
        }
        match effect {
            Effect::Start { spec, .. } => {
                let version = usize::from(spec.id.0[2]);
                let process = if calm {
                    Process::good(run, version)
                } else {
                    let times = times(seat.number, version);
                    Process::draw(run, version, times, seat.deck, &mut seat.rng)
                };
                let (ready_in, dies_in) = (process.ready_in, process.dies_in);
                seat.processes.push(process);
                if let Some(wait) = ready_in {
                    self.later(wait, place, What::Answers(run));
                }
                if let Some(wait) = dies_in {
                    self.later(wait, place, What::Dies(run));
                }
            }
            Effect::Stop { .. } => {
                let number = seat.number;
                let Some(process) = seat.process(run) else {
                    return Ok(());
                };
                if !process.stubborn {
                    let grace = times(number, process.version).2;
                    let wait = seat.rng.below(grace + grace / 2 + 2);
                    self.later(wait, place, What::Dies(run));
                }
            }
            Effect::Kill { .. } => {
                let Some(process) = seat.process(run) else {
                    return Ok(());
                };
                let wait = process.kill_takes;
                self.later(wait, place, What::AllDie(run));
            }
        }
        Ok(())
    }

    fn answers(&mut self, place: usize, run: u64) {
        let seat = &mut self.seats[place];
        if seat.process(run).is_some_and(|process| process.leader) {
            let late = seat.deck.draws(Card::Disorder, 3, &mut seat.rng);
            let wait = if late { seat.rng.below(30) } else { 0 };
            self.later(wait, place, What::Tell(run, Told::Ready));
        }
    }

    fn dies(&mut self, place: usize, run: u64) {
        note!(self, "seat {place}: the leader of run {run} dies");
        let seat = &mut self.seats[place];
        let Some(process) = seat.process(run).filter(|process| process.leader) else {
            return;
        };
        process.leader = false;
        process.children = process.leaves_children;
        let left = process.children;
        let disorder = seat.deck.draws(Card::Disorder, 3, &mut seat.rng);
        let wait = if disorder { seat.rng.below(6) } else { 0 };
        let gone = (disorder && !left).then(|| seat.rng.below(4));
        if !left {
            seat.processes.retain(|process| process.run != run);
        }
        self.later(wait, place, What::Tell(run, Told::Exited));
        if let Some(wait) = gone {
            self.later(wait, place, What::Tell(run, Told::Gone));
        }
    }

    fn all_die(&mut self, place: usize, run: u64) {
        note!(self, "seat {place}: nothing of run {run} is alive");
        let seat = &mut self.seats[place];
        let leader = seat.process(run).is_some_and(|process| process.leader);
        seat.processes.retain(|process| process.run != run);
        let disorder = seat.deck.draws(Card::Disorder, 2, &mut seat.rng);
        let (exit, gone) = if disorder { (seat.rng.below(4), seat.rng.below(4)) } else { (0, 0) };
        // Sometimes only the end of all of it is seen.
        if leader && !(disorder && exit == 3) {
            self.later(exit, place, What::Tell(run, Told::Exited));
        }
        self.later(gone, place, What::Tell(run, Told::Gone));
    }

    fn tell(&mut self, place: usize, run: u64, told: Told) {
        note!(self, "seat {place}: run {run} {told:?}");
        let fact = match told {
            Told::Ready => Fact::Ready,
            Told::Exited => Fact::Exited(Exit::Status(1)),
            Told::Gone => Fact::Gone,
        };
        self.core.observe(RunId(run), fact);
        let calm = self.calm;
        let seat = &mut self.seats[place];
        seat.ledger.told(run, told);
        if !calm && seat.deck.draws(Card::Echoes, 3, &mut seat.rng) {
            let wait = seat.rng.below(60);
            self.later(wait, place, What::Tell(run, told));
        }
    }

    /// The daemon looks at all files; equal ones must change nothing.
    fn read(&mut self) {
        if !self.reading {
            return;
        }
        let mut wants = BTreeMap::new();
        for seat in &mut self.seats {
            let id = self.stage.id(seat.number, seat.tenant);
            let goal = match seat.file {
                File::Absent => {
                    seat.last_good = None;
                    Goal::Never
                }
                File::Good(version) => {
                    seat.last_good = Some(version);
                    Goal::Always(version)
                }
                File::Broken => seat.last_good.map_or(Goal::Keep, Goal::Always),
            };
            seat.ledger.files = goal;
            match goal {
                Goal::Never => None,
                Goal::Keep => wants.insert(id.clone(), Want::Keep),
                Goal::Always(version) => {
                    let spec = self.stage.spec(seat.number, seat.tenant, version);
                    wants.insert(id.clone(), Want::Always(spec.clone()))
                }
            };
        }
        self.core.want(wants, moment(self.now));
    }

    /// Somebody does something to one seat.
    fn whim(&mut self, place: usize) -> Checked {
        let seat = &mut self.seats[place];
        let id = self.stage.id(seat.number, seat.tenant);
        let restless = seat.deck.draws(Card::Restless, 1, &mut seat.rng);
        let next = 1 + seat.rng.below(if restless { 20 } else { 80 });
        let whim = seat.rng.below(14);
        note!(self, "seat {place}: whim {whim}");
        let seat = &mut self.seats[place];
        match whim {
            0..=2 => {
                let version = seat.rng.below(VERSIONS as u64);
                seat.file = File::Good(usize::try_from(version).unwrap_or(0));
                self.read();
            }
            3 => {
                seat.file = File::Broken;
                self.read();
            }
            4 => {
                seat.file = File::Absent;
                self.read();
            }
            5 => self.read(),
            6 => {
                self.core.hold(id);
                seat.ledger.held = true;
            }
            7 | 8 => {
                self.core.release(id);
                seat.ledger.release();
            }
            9 | 10 => {
                self.core.renew(id);
                seat.ledger.renew();
            }
            11 if seat.file == File::Absent && seat.ledger.files == Goal::Never => {
                if self.core.is_free(id) {
                    self.move_out(place)?;
                }
            }
            _ => {}
        }
        self.later(next, place, What::Whim);
        Ok(())
    }

    /// The user is removed for good; their port goes to somebody else.
    fn move_out(&mut self, place: usize) -> Checked {
        let seat = &self.seats[place];
        let alive = seat.alive();
        if alive.leader || alive.children {
            self.fails(Law::OneUserPerPort, "a port is given away while its user's process lives")?;
        }
        let seat = &mut self.seats[place];
        self.core.forget(self.stage.id(seat.number, seat.tenant));
        seat.tenant = 1 - seat.tenant;
        let mut ledger = Ledger::new(seat.number, self.laws);
        ledger.closed = self.closed;
        seat.ledger = ledger;
        seat.file = File::Good(0);
        self.read();
        Ok(())
    }

    /// Something befalls everybody; true if the daemon is killed.
    fn fate(&mut self) -> bool {
        let next = 1 + self.rng.below(self.until);
        self.later(next, SEATS, What::Fate);
        let fate = self.rng.below(8);
        note!(self, "fate {fate}");
        match fate {
            0 => {
                self.core.close();
                self.closed = true;
                for seat in &mut self.seats {
                    seat.ledger.closed = true;
                }
                false
            }
            1 | 2 => {
                // The directory is not there for a while: unknown is not empty.
                self.reading = false;
                let wait = self.rng.below(60);
                self.later(wait, SEATS, What::Read);
                false
            }
            _ => self.mortal,
        }
    }

    /// The daemon was killed; another begins with what was written down and what is alive.
    fn reboot(&mut self) {
        note!(self, "the daemon is killed, another begins");
        self.core = (self.boot)(RunId(self.next_run), self.core.holds());
        self.closed = false;
        self.reading = false;
        self.agenda.retain(|due| !matches!(due.what, What::Tell(..) | What::Read));
        for place in 0..self.seats.len() {
            let seat = &mut self.seats[place];
            seat.ledger.reboot();
            seat.last_good = None;
            let Some(process) = seat.processes.last() else {
                continue;
            };
            let (run, version, leader) = (process.run, process.version, process.leader);
            let answers = process.ready_in.is_some();
            seat.ledger.adopt(run, version, self.now);
            let spec = self.stage.spec(seat.number, seat.tenant, version);
            let origin = Origin { spec: spec.id, plan: spec.plan };
            let id = self.stage.id(seat.number, seat.tenant);
            self.core.adopt(id, RunId(run), origin, moment(self.now));
            let wait = seat.rng.below(6);
            if !leader {
                self.later(wait, place, What::Tell(run, Told::Exited));
            } else if answers {
                self.later(wait, place, What::Answers(run));
            }
        }
        let wait = self.rng.below(6);
        self.later(wait, SEATS, What::Read);
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
