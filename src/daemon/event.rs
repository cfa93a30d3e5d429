//! What can happen, and how it is written down. Nothing is done here but noting; what follows is
//! said by `drive`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::doors::Place;
use super::saves::Saved;
use super::seals::Opened;
use super::tokens::Minted;
use super::wishes::Wished;
use super::{Daemon, Ending};
use crate::control::protocol::Call;
use crate::door::bridge::Word;
use crate::logic::instance::Fact;
use crate::logic::roster::{Host, Listed};
use crate::logic::uids::Facts;
use crate::model::{InstanceId, Moment, RunId, UserName, Whom};
use crate::system::account;
use crate::system::envdir::Complete;
use crate::system::envdir::watch::Hint;
use crate::system::failpoint;
use crate::system::holdings;
use crate::system::probe::Listening;
use crate::system::process::{News, What};
use crate::system::signals::Signal;

/// How long the directory of env files may go unseen: lost notifications, symlinks that lead to
/// other file systems, network file systems.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(60);

/// A look at the files that changed is followed by a look at all within this time.
const WHOLE_AFTER: Duration = Duration::from_millis(100);

/// Something happened.
pub(super) enum Event {
    /// To a run.
    News(News),
    /// To a stdio run, or to a session of one.
    Word(Word),
    /// A run answered its probe.
    Ready(Ready),
    /// Somebody asks for something.
    Call(Call),
    /// A signal to the daemon.
    Signal(Signal),
    /// Something moved in env.d.
    Hint(Hint),
    /// What is to be remembered was written, or not.
    Saved(Saved),
    /// A sealed file was opened, or not.
    Opened(Opened),
    /// A user's wish was granted, or not.
    Wished(Wished),
    /// A token was made, or not.
    Minted(Minted),
    /// A deadline came.
    Time,
}

/// A run answered its probe.
pub(super) struct Ready {
    pub(super) run: RunId,
    pub(super) listening: Listening,
}

impl Daemon {
    pub(super) fn note(&mut self, event: Event, now: Moment) {
        match event {
            Event::News(News { run, what }) => self.note_news(run, what, now),
            Event::Ready(Ready { run, listening }) => {
                if let Some(current) = self.current.get_mut(&run) {
                    current.listening = Some(listening);
                    // A task's memory is kept as long as anybody could still end it.
                    current.forget_probe();
                    self.fleet.observe(run, Fact::Ready);
                    failpoint::pass("up.noted");
                }
            }
            Event::Word(word) => self.note_word(word, now),
            Event::Call(call) => self.answer(call, now),
            Event::Signal(Signal::Terminate) => {
                self.ending = Ending::WithTheRuns;
                self.fleet.close();
                self.tell_ending("every server is being ended");
            }
            Event::Signal(Signal::HandOver) => {
                self.ending = Ending::HandOver;
                self.tell_ending("the servers go on");
            }
            Event::Signal(Signal::Reload) => self.reload(now),
            Event::Signal(Signal::Child) => self.processes.reap_strays(),
            Event::Hint(Hint { complete, whom }) => self.look(now, &whom, Complete::Named(&complete)),
            Event::Saved(saved) => self.note_saved(saved, now),
            Event::Minted(minted) => self.note_minted(minted, now),
            Event::Opened(opened) => self.note_opened(opened, now),
            Event::Wished(wished) => self.note_wished(wished, now),
            Event::Time => {
                if self.look_at <= now {
                    self.say_refusals(now);
                    // First the watch, then the look: what happens in between is heard or seen.
                    self.sources.watcher.refresh();
                    self.seals.retry();
                    self.look(now, &Whom::All, Complete::Named(&BTreeSet::new()));
                }
            }
        }
    }

    fn note_news(&mut self, run: RunId, what: What, now: Moment) {
        match what {
            What::Launched => self.begin_probe(run),
            What::Deaf => self.note_deaf(run),
            What::Exited(exit) => {
                self.draining.remove(&run);
                if let Some(current) = self.current.get_mut(&run) {
                    current.end_probe();
                    // Why an earlier run was given up says nothing about how this one ended. (It is
                    // not dropped when this one begins: that may be before its end is told.)
                    if self.trouble.get(&current.instance).is_some_and(|(troubled, _)| *troubled != run) {
                        self.trouble.remove(&current.instance);
                    }
                }
                self.fleet.observe(run, Fact::Exited(exit));
            }
            What::Gone => {
                let gone = self.current.remove(&run);
                self.older.retain(|(_, older)| *older != run);
                self.fleet.observe(run, Fact::Gone);
                self.processes.forget(run);
                self.processes.reap_strays();
                if let Some(id) = gone.as_ref().map(|gone| &gone.instance).filter(|id| id.session.is_some()) {
                    self.let_in(id, now);
                }
                // The last of a user's under a uid: it may be another's alone from now on.
                if gone.is_some_and(|gone| gone.uid != 0 && !self.is_listed_as(&gone.instance, gone.uid)) {
                    self.set_gates();
                }
            }
        }
    }

    /// Reads mcpsup.toml and every env file again. What is broken changes nothing.
    pub(super) fn reload(&mut self, now: Moment) {
        self.tell_reloading(true);
        self.read_config();
        self.tokens.reload();
        self.set_gates();
        self.seals.retry();
        self.look(now, &Whom::All, Complete::Named(&BTreeSet::new()));
        tracing::info!(problems = self.problems.len(), "configuration read");
        self.tell_reloading(false);
    }

    /// Reads env.d, whole or the files of some, and says what is wanted now.
    pub(super) fn look(&mut self, now: Moment, whom: &Whom, complete: Complete<'_>) {
        let own_uid = |user: &UserName| account::uid_of(user.as_str());
        let mut look = match whom {
            Whom::Users(users) => self.env_dir.look_at(users, now, complete, &own_uid),
            Whom::All => self.env_dir.look(now, complete, &own_uid),
        };
        self.seals.take(&mut look);
        let is_whole = look.whole;
        let next = if is_whole { now + LOOK_EVERY } else { self.look_at.min(now + WHOLE_AFTER) };
        self.look_at = look.again_at.map_or(next, |again| again.min(next));
        self.settling = look.again_at.is_some() || (self.settling && !is_whole);
        let mut changed = self.roster.set_files(look);
        // Whoever comes back before the last of theirs has ended is not removed after all.
        let back: Vec<UserName> =
            self.removing.iter().filter(|user| self.env_dir.file_of(user).is_some()).cloned().collect();
        for user in back {
            self.removing.remove(&user);
            tracing::info!(%user, "user not removed: their file is back");
            changed.insert(user);
        }
        if is_whole {
            let all = self.accounts_at <= now;
            if all {
                self.accounts_at = now + LOOK_EVERY;
            }
            changed.extend(self.roster.look_up_again(all, &account::find));
        }
        // What waits for a port is tried again, though no file changed.
        let all = is_whole && self.doors.are_lacking();
        match if all { Whom::All } else { self.roster.whom(changed) } {
            Whom::Users(nobody) if nobody.is_empty() => self.say_problems(),
            whom @ (Whom::Users(_) | Whom::All) => self.resolve(now, &whom),
        }
        // The disk may have room again.
        self.saves.retry();
        self.shown.retry_map();
    }

    /// What the files, as last read, want of these users.
    pub(super) fn resolve(&mut self, now: Moment, whom: &Whom) {
        let before = self.ports.part(whom);
        let mut blocked = self.doors.blocked();
        let is_used = holdings::is_used(&self.places.state);
        let listed = loop {
            let host = Host {
                blocked: &blocked,
                accounts: &account::find,
                uids: Facts { named: &account::named, is_used: &is_used },
                state: &self.places.state,
                runtime: &self.places.runtime,
                is_root: self.is_root,
                digest_key: &self.key,
                cage: &|server, tenancy| self.cages.get(server, tenancy),
                removing: &self.removing,
            };
            let mut listed = self.roster.resolve(whom, &mut self.ports, &mut self.uids, &host);
            let runs = self.fleet.iter().filter(|(id, one)| id.session.is_none() && one.current().is_some());
            self.roster.keep(&mut listed, runs.map(|(id, _)| id), &self.removing);
            self.set_bridges(&listed);
            let at = |(id, listed): (&InstanceId, &Listed)| {
                Some((id.clone(), Place { port: listed.door?, bridge: self.bridges.get(id).cloned() }))
            };
            let doors = listed.iter().filter_map(at).collect();
            self.doors.set(whom, &doors);
            // Nobody knows a door yet that was given just now: where a stranger listens on its
            // port, it is given another. A pinned one comes back to the same port, once.
            let is_new = |(id, port): &(&InstanceId, u16)| {
                whom.has(&id.user) && before.door(id).is_none() && !blocked.contains(port)
            };
            let unlucky: Vec<(InstanceId, u16)> =
                self.doors.held().filter(is_new).map(|(id, port)| (id.clone(), port)).collect();
            if unlucky.is_empty() {
                break listed;
            }
            for (id, port) in unlucky {
                self.ports.take_back(&id);
                blocked.insert(port);
            }
        };
        if self.ports.part(whom) != before {
            self.save_ports();
        }
        self.say_problems();
        let mut wants: BTreeMap<_, _> =
            listed.iter().map(|(id, listed)| (id.clone(), listed.want.clone())).collect();
        self.shown.look_at(whom, &listed);
        self.list(whom, listed);
        wants.extend(self.wants_of_sessions(whom));
        self.fleet.want_of(whom, wants, now);
        self.give_back();
        self.know_secrets();
        self.set_gates();
        let displaced = self.roster.displaced();
        if !displaced.is_empty() {
            // Nobody's account is another's by this, so it is over with that.
            self.resolve(now, &self.roster.whom(displaced));
        }
    }

    /// True if the files say of this user that this is their uid.
    fn is_listed_as(&self, id: &InstanceId, uid: u32) -> bool {
        self.listed(id).is_some_and(|listed| listed.owner_uid == Some(uid))
    }

    /// Takes over what is listed of these users.
    fn list(&mut self, whom: &Whom, listed: BTreeMap<InstanceId, Listed>) {
        if *whom == Whom::All {
            self.listed = listed;
            return;
        }
        let old: Vec<InstanceId> = whom.of(&self.listed).map(|(id, _)| id.clone()).collect();
        for id in old.iter().filter(|id| !listed.contains_key(id)) {
            self.listed.remove(id);
        }
        self.listed.extend(listed);
    }

    /// One line for each problem with mcpsup.toml or env.d that is new, and for each that is gone.
    fn say_problems(&mut self) {
        let problems = self.roster.problems();
        for problem in problems.iter().filter(|problem| !self.problems.contains(problem)) {
            tracing::error!(%problem, still = "everything as it was", "refused");
        }
        for problem in self.problems.iter().filter(|problem| !problems.contains(problem)) {
            tracing::info!(%problem, "mended");
        }
        if self.problems != problems {
            self.shown.look_at_report();
        }
        self.problems = problems;
    }
}
