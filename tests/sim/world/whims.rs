//! What people do to files and by command, and what befalls everybody.

use super::*;

impl<C: Core> World<'_, C> {
    /// The daemon looks at all files; equal ones must change nothing.
    pub(super) fn read(&mut self) {
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
        let old = self.told.replace(wants.clone());
        // As the daemon does it: everybody at first, and from then on those of whom something changed.
        let Some(old) = old else {
            return self.core.want(wants, moment(self.now));
        };
        let is_other = |id: &&InstanceId| old.get(*id) != wants.get(*id);
        let changed = old.keys().chain(wants.keys()).filter(is_other).map(|id| id.user.clone()).collect();
        self.core.want_of(&Whom::Users(changed), wants, moment(self.now));
    }

    /// Somebody does something to one seat.
    pub(super) fn whim(&mut self, place: usize) -> Checked {
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
                self.core.hold(&id.base());
                seat.ledger.held = true;
            }
            7 | 8 => {
                self.core.release(&id.base());
                seat.ledger.release();
            }
            9 | 10 => {
                self.core.renew(&id.base());
                seat.ledger.renew();
            }
            11 if seat.file == File::Absent && seat.ledger.files == Goal::Never && self.core.is_free(id) => {
                self.move_out(place)?;
            }
            // Whoever asks it for a sign of life gets none.
            12 => {
                if let Some(process) = seat.processes.last() {
                    let run = process.run;
                    self.later(0, place, What::Tell(run, Told::Sick));
                }
            }
            _ => {}
        }
        self.later(next, place, What::Whim);
        Ok(())
    }

    /// The user is removed for good; their port goes to somebody else.
    pub(super) fn move_out(&mut self, place: usize) -> Checked {
        let seat = &self.seats[place];
        let alive = seat.alive();
        if alive.leader || alive.children {
            self.fails(Law::OneUserPerPort, "a port is given away while its user's process lives")?;
        }
        let seat = &mut self.seats[place];
        let id = self.stage.id(seat.number, seat.tenant);
        if let Some(told) = &mut self.told {
            told.remove(id);
        }
        self.core.forget(id);
        self.core.forget(&id.base());
        seat.tenant = 1 - seat.tenant;
        let mut ledger = Ledger::new(seat.number, self.laws);
        ledger.closed = self.closed;
        seat.ledger = ledger;
        seat.file = File::Good(0);
        self.read();
        Ok(())
    }

    /// Something befalls everybody; true if the daemon is killed.
    pub(super) fn fate(&mut self) -> bool {
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
    pub(super) fn reboot(&mut self) {
        note!(self, "the daemon is killed, another begins");
        self.core = (self.boot)(RunId(self.next_run), self.core.holds());
        self.told = None;
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
            let origin = Origin { spec: spec.id, plan: spec.plan() };
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
