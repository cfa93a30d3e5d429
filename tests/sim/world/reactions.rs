//! How the fake processes react to effects, and what is told of them.

use super::*;

impl<C: Core> World<'_, C> {
    /// Does what the core says; of a daemon that is being killed, each seat's part or not.
    pub(super) fn act(&mut self, effect: Effect, killed: bool) {
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
            return;
        };
        let calm = self.calm;
        let seat = &mut self.seats[place];
        if killed && seat.rng.one_in(2) {
            return;
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
                    return;
                };
                if !process.stubborn {
                    let grace = times(number, process.version).2;
                    let wait = seat.rng.below(grace + grace / 2 + 2);
                    self.later(wait, place, What::Dies(run));
                }
            }
            Effect::Kill { .. } => {
                let Some(process) = seat.process(run) else {
                    return;
                };
                let wait = process.kill_takes;
                self.later(wait, place, What::AllDie(run));
            }
        }
    }

    pub(super) fn answers(&mut self, place: usize, run: u64) {
        let seat = &mut self.seats[place];
        if seat.process(run).is_some_and(|process| process.leader) {
            let late = seat.deck.draws(Card::Disorder, 3, &mut seat.rng);
            let wait = if late { seat.rng.below(30) } else { 0 };
            self.later(wait, place, What::Tell(run, Told::Ready));
        }
    }

    pub(super) fn dies(&mut self, place: usize, run: u64) {
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

    pub(super) fn all_die(&mut self, place: usize, run: u64) {
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

    pub(super) fn tell(&mut self, place: usize, run: u64, told: Told) {
        note!(self, "seat {place}: run {run} {told:?}");
        let fact = match told {
            Told::Ready => Fact::Ready,
            Told::Sick => Fact::Sick,
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
}
