//! What is to be remembered, on its way to the disk: the table of ports, and what `mcpsup stop` holds.
//!
//! A disk may take its time to say that it has something. The loop must not, so another thread waits for
//! it, one at a time for each file. What follows from ports goes on meanwhile; a change of holds is made
//! when the disk has it, for whoever was told "stopped" must find it so after a crash of ours.

use std::collections::BTreeSet;

use tokio::sync::oneshot;

use super::Daemon;
use super::event::Event;
use super::store::Holds;
use crate::control::protocol::{Accepted, Peer, Refusal, Reply};
use crate::logic::fleet::Fleet;
use crate::model::{InstanceId, Moment};
use crate::system::files::FileError;

/// What is on its way, and what waits behind it.
#[derive(Default)]
pub(super) struct Saves {
    ports: Saver,
    holds: Saver,
    /// Changes that the next writing of the holds takes with it, in their order.
    waiting: Vec<Pending>,
    /// Changes that are being written.
    underway: Vec<Pending>,
}

/// One file's writer.
#[derive(Debug, Default)]
struct Saver {
    saving: bool,
    dirty: bool,
    /// Why it could not be written; tried again with every look.
    problem: Option<String>,
}

/// What is asked for by `start`, `stop` and `restart`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    Hold,
    Release,
    Renew,
}

/// A change of these instances that somebody waits for.
pub(super) struct Pending {
    pub(super) change: Change,
    pub(super) ids: Vec<InstanceId>,
    pub(super) peer: Peer,
    pub(super) reply: oneshot::Sender<Result<Reply, Refusal>>,
    pub(super) accepted: Accepted,
}

/// What another thread has written, or could not, and why.
pub(super) enum Saved {
    Ports(Result<(), String>),
    Holds(Result<(), String>),
    /// Sessions; what went wrong was said.
    Sessions,
}

impl Saves {
    /// True if nothing waits to be written. What is being written is waited for with a limit when the
    /// daemon ends.
    pub(super) fn is_kept(&self) -> bool {
        !self.ports.dirty && !self.holds.dirty && self.waiting.is_empty()
    }

    /// True if a change of this instance waits for the disk: the next one comes after it.
    fn are_changing(&self, id: &InstanceId) -> bool {
        self.waiting.iter().chain(&self.underway).any(|pending| pending.ids.contains(id))
    }

    /// What could not be remembered, and why.
    pub(super) fn problems(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let all = [("ports", &self.ports.problem), ("what was stopped", &self.holds.problem)];
        all.into_iter().filter_map(|(what, problem)| Some((what, problem.as_deref()?)))
    }

    /// What could not be written is tried again.
    pub(super) fn retry(&mut self) {
        for saver in [&mut self.ports, &mut self.holds] {
            saver.dirty |= saver.problem.is_some();
        }
    }
}

impl Saver {
    /// True if it is to be written now.
    fn begins(&mut self) -> bool {
        let begins = self.dirty && !self.saving;
        if begins {
            (self.saving, self.dirty) = (true, false);
        }
        begins
    }

    /// It was written, or not: true if that is news.
    fn ends(&mut self, outcome: Result<(), String>) -> bool {
        self.saving = false;
        let problem = outcome.err();
        let is_news = self.problem != problem;
        self.problem = problem;
        is_news
    }
}

impl Change {
    /// True if the instance is held afterwards.
    const fn holds(self) -> bool {
        match self {
            Self::Hold => true,
            Self::Release | Self::Renew => false,
        }
    }

    fn make(self, fleet: &mut Fleet, id: &InstanceId) {
        match self {
            Self::Hold => fleet.hold(id),
            Self::Release => fleet.release(id),
            Self::Renew => fleet.renew(id),
        }
    }
}

impl Daemon {
    /// Makes a change, once it is remembered if there is anything to remember of it.
    pub(super) fn change(&mut self, pending: Pending, now: Moment) {
        let as_it_is = |id: &InstanceId| {
            self.fleet.is_held(id) == pending.change.holds() && !self.saves.are_changing(id)
        };
        if pending.ids.iter().all(as_it_is) {
            return self.make(pending, now);
        }
        self.saves.waiting.push(pending);
        self.saves.holds.dirty = true;
    }

    fn make(&mut self, pending: Pending, now: Moment) {
        let Pending { change, ids, peer, reply, accepted } = pending;
        for id in &ids {
            change.make(&mut self.fleet, id);
            if change.holds() && self.wishes.stopped(id) {
                self.save_holds();
            }
        }
        // A hold shows even where no run changes.
        self.shown.look_at_all();
        self.reply(peer, reply, Ok(Reply::Accepted(accepted)), now);
    }

    /// The table of ports is to be remembered.
    pub(super) fn save_ports(&mut self) {
        self.saves.ports.dirty = true;
    }

    /// The holds, as they are by now, are to be remembered.
    pub(super) fn save_holds(&mut self) {
        self.saves.holds.dirty = true;
    }

    pub(super) fn begin_saving(&mut self) {
        if self.saves.ports.begins() {
            self.save(self.store.ports_writer(&self.ports), Saved::Ports);
        }
        if self.saves.holds.begins() {
            self.saves.underway = std::mem::take(&mut self.saves.waiting);
            let all = after(self.fleet.holds(), &self.saves.underway);
            let is_so = |id: &&InstanceId| all.contains(*id) && !self.saves.are_changing(id);
            let taken_back = self.wishes.taken_back().filter(is_so).cloned().collect();
            let holds = Holds { all, taken_back };
            self.save(self.store.holds_writer(&holds), Saved::Holds);
        }
    }

    fn save(
        &self,
        write: impl FnOnce() -> Result<(), FileError> + Send + 'static,
        saved: impl FnOnce(Result<(), String>) -> Saved + Send + 'static,
    ) {
        let done = self.sources.say_done.clone();
        tokio::task::spawn_blocking(move || {
            let outcome = write().map_err(|error| super::store::chain(&error));
            if done.send(Event::Saved(saved(outcome))).is_err() {
                tracing::debug!("the loop has ended");
            }
        });
    }

    /// What could not be remembered still holds, until the daemon ends.
    pub(super) fn note_saved(&mut self, saved: Saved, now: Moment) {
        let is_news = match saved {
            Saved::Ports(outcome) => {
                let is_news = self.saves.ports.ends(outcome);
                if let Some(problem) = self.saves.ports.problem.as_ref().filter(|_| is_news) {
                    tracing::error!(problem, "ports not remembered");
                }
                is_news
            }
            Saved::Holds(outcome) => {
                let is_news = self.saves.holds.ends(outcome);
                if let Some(problem) = self.saves.holds.problem.as_ref().filter(|_| is_news) {
                    tracing::error!(problem, "holds not remembered");
                }
                for pending in std::mem::take(&mut self.saves.underway) {
                    self.make(pending, now);
                }
                is_news
            }
            Saved::Sessions => {
                self.bridges.note_written();
                false
            }
        };
        if is_news {
            self.shown.look_at_report();
        }
    }
}

/// The holds once these changes are made.
fn after(holds: &BTreeSet<InstanceId>, changes: &[Pending]) -> BTreeSet<InstanceId> {
    let mut holds = holds.clone();
    for Pending { change, ids, .. } in changes {
        for id in ids.iter().map(InstanceId::base) {
            if change.holds() {
                holds.insert(id);
            } else {
                holds.remove(&id);
            }
        }
    }
    holds
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_while_a_file_is_written_is_written_next_and_by_one_writer_at_a_time() {
        let mut saver = Saver::default();
        assert!(!saver.begins());
        saver.dirty = true;
        assert!(saver.begins());
        saver.dirty = true;
        assert!(!saver.begins(), "the first is not done");
        assert!(saver.ends(Err("no space left".to_owned())));
        assert!(saver.begins());
        assert!(!saver.ends(Err("no space left".to_owned())), "that is known");
        assert!(saver.ends(Ok(())));
        assert!(!saver.begins());
    }

    #[test]
    fn changes_that_are_written_together_are_made_in_their_order() {
        let pending = |change, ids: &[&str]| Pending {
            change,
            ids: ids
                .iter()
                .map(|user| InstanceId::new(user.parse().unwrap(), "notes".parse().unwrap()))
                .collect(),
            peer: Peer { uid: 0, pid: 1, is_member: false },
            reply: oneshot::channel().0,
            accepted: Accepted::default(),
        };
        let changes = [
            pending(Change::Hold, &["alice", "bob", "carol"]),
            pending(Change::Release, &["bob"]),
            pending(Change::Renew, &["carol", "dave"]),
            pending(Change::Hold, &["carol"]),
        ];
        let held = after(&pending(Change::Hold, &["dave", "erin"]).ids.into_iter().collect(), &changes);
        assert_eq!(held.iter().map(|id| id.user.as_str()).collect::<Vec<_>>(), ["alice", "carol", "erin"]);
    }
}
