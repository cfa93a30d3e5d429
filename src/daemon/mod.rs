//! The loop: the one task that owns the fleet.
//!
//! ```text
//! event  → note   what happened is written down          (event.rs)
//! drive  → act    what follows from it is done           (act.rs)
//!        → publish what changed is shown                 (publish.rs, status.rs)
//! ```
//!
//! Nothing here waits but `Daemon::next`, which waits for every source at once and for one
//! deadline. Decisions are made in `logic`, deeds in `system`; here they meet.
//!
//! What the loop holds, by whose concern it is: `start`, `store` and `saves` (what it remembers) and `calm`; `call` and
//! `wishes` (what was asked on the control socket); `doors`, `gates`, `tokens`, `apart` and `hidden` (who comes in, what
//! keeps users apart); `kept` and `told` (the service manager: doors it keeps, what it hears); `seals` (sealed
//! files); `bridges`, `recall` and `slots` (sessions); `output` and `sinks` (what
//! processes write).

mod act;
pub mod apart;
mod bridges;
mod call;
mod calm;
mod doors;
mod event;
mod gates;
mod hidden;
mod kept;
mod output;
mod publish;
mod recall;
mod saves;
mod seals;
mod sinks;
mod slots;
mod start;
mod status;
pub mod store;
mod tokens;
mod told;
mod wishes;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use crate::control::protocol::Call;
use crate::door::bridge::Word;
use crate::logic::cage::{Cages, Site};
use crate::logic::fleet::Fleet;
use crate::logic::ports::Ports;
use crate::logic::roster::{Listed, Roster};
use crate::logic::uids::Uids;
use crate::model::{Config, InstanceId, Moment, Problem, Refusals, RunId, UserName, pack};
use crate::system::account;
use crate::system::clock;
use crate::system::envdir::EnvDir;
use crate::system::envdir::watch::Watcher;
use crate::system::files::Lock;
use crate::system::memory;
use crate::system::notify::Started;
use crate::system::places::Places;
use crate::system::process::{News, Processes};
use crate::system::signals::Signals;

pub use start::{StartError, read_config};

use act::Current;
use bridges::Bridges;
use calm::{BURST, Calm};
use doors::Doors;
use event::{Event, Ready};
use publish::Shown;
use saves::Saves;
use seals::{Opened, Seals};
use sinks::SharedSink;
use slots::{Draining, Own};
use start::Ears;
use store::Store;
use tokens::Tokens;
use told::Told;
use wishes::Wishes;

/// Runs the supervisor until SIGTERM (ends everything) or SIGUSR2 (leaves the runs to the next
/// daemon). `started` is what a service manager has to do with it.
///
/// # Errors
///
/// When it cannot begin: no runtime or state directory, another daemon on it, no control socket.
/// Once it runs, nothing ends it but a signal.
pub fn run(places: &Places, started: Started) -> Result<(), StartError> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(StartError::runtime)?;
    let ended = runtime.block_on(async {
        let mut daemon = Daemon::start(places, started)?;
        daemon.serve().await;
        Ok(())
    });
    account::apart::end();
    // A thread that still writes a file is not waited for longer than a disk may need.
    runtime.shutdown_timeout(Duration::from_secs(5));
    ended
}

/// Everything the loop knows.
struct Daemon {
    places: Places,
    is_root: bool,
    /// The uid that may be anybody's, where there is one.
    stand_in: Option<u32>,
    store: Store,
    key: [u8; 32],
    /// The last good mcpsup.toml, or what stands where nothing is said.
    config: Arc<Config>,
    roster: Roster,
    ports: Ports,
    uids: Uids,
    listed: BTreeMap<InstanceId, Listed>,
    fleet: Fleet,
    processes: Processes,
    site: Site,
    cages: Cages,
    // Boxed: numbers only grow, and a map that is filled in ascending order stays half empty.
    current: BTreeMap<RunId, Box<Current>>,
    /// Runs that were found beside a newer one of their instance, until nothing of them is alive:
    /// so long nothing is started there.
    older: Vec<(InstanceId, RunId)>,
    /// Why a run was given up: of each instance the newest such run, until a later one has ended.
    trouble: BTreeMap<InstanceId, (RunId, String)>,
    sinks: BTreeMap<InstanceId, Arc<SharedSink>>,
    doors: Doors,
    tokens: Tokens,
    bridges: Bridges,
    /// Sessions that have a process of their own.
    own: BTreeMap<InstanceId, Own>,
    /// Runs that are to end and may answer first.
    draining: BTreeMap<RunId, Draining>,
    shown: Shown,
    env_dir: EnvDir,
    seals: Seals,
    wishes: Wishes,
    /// Adopted runs whose secret values are not known yet.
    unknown: Vec<RunId>,
    look_at: Moment,
    /// When users without an account are looked up again.
    accounts_at: Moment,
    /// The control socket, until it is answered.
    ears: Option<Ears>,
    /// A file is being written, or has just vanished.
    settling: bool,
    /// Whose port was moved, so that their specs must be made again.
    moved: BTreeSet<UserName>,
    // Given back by the kernel when this process ends, however it ends.
    _lock: Lock,
    /// What was said about mcpsup.toml and env.d.
    problems: Vec<Problem>,
    removing: BTreeSet<UserName>,
    refusals: Refusals,
    saves: Saves,
    ending: Ending,
    calm: Calm,
    told: Told,
    sources: Sources,
}

/// How the daemon is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    /// Not yet.
    No,
    /// When nothing is alive any more.
    WithTheRuns,
    /// At once; the runs go on.
    HandOver,
}

/// Where events come from.
struct Sources {
    news: mpsc::UnboundedReceiver<News>,
    /// For what the loop itself finds out about a run.
    tell: mpsc::UnboundedSender<News>,
    /// What bridges say: of a run at most five things; of a session that it begins, that it ends, and that
    /// it changed, once until that is written.
    words: mpsc::UnboundedReceiver<Word>,
    ready: mpsc::Receiver<Ready>,
    say_ready: mpsc::Sender<Ready>,
    calls: mpsc::Receiver<Call>,
    /// Of each user's file at most one at a time.
    opened: mpsc::UnboundedReceiver<Opened>,
    /// What other threads have done for the loop: of each file and each user at most one thing at a time.
    done: mpsc::UnboundedReceiver<Event>,
    say_done: mpsc::UnboundedSender<Event>,
    signals: Signals,
    watcher: Watcher,
    generation: watch::Sender<u64>,
    /// Whose turn it is first.
    others_first: bool,
    /// The uids by which a user is known.
    known: watch::Sender<BTreeSet<u32>>,
}

impl Daemon {
    async fn serve(&mut self) {
        self.turn(clock::now()).await;
        while !self.is_over() {
            self.listen_once_settled(clock::now());
            self.tell_manager(clock::now());
            let event = self.next().await;
            let now = clock::now();
            self.note(event, now);
            self.turn(now).await;
        }
        self.end();
    }

    /// Does what follows from what was noted, and shows what changed.
    async fn turn(&mut self, now: Moment) {
        self.stop_overdue(now);
        let (effects, mut touched) = self.fleet.drive(now);
        for effect in effects {
            self.act(effect, now);
        }
        while !self.moved.is_empty() {
            let moved = std::mem::take(&mut self.moved);
            let whom = self.roster.whom(moved);
            self.resolve(now, &whom);
            let (effects, more) = self.fleet.drive(now);
            for effect in effects {
                self.act(effect, now);
            }
            touched.extend(more);
        }
        self.calm.note(touched.len(), now);
        // What was begun goes on while we tell: nobody's start waits for the showing of a thousand.
        tokio::task::yield_now().await;
        self.publish(&touched, now);
        if touched.len() >= BURST {
            // Now, so that what is made next lies where the tables were.
            self.pack();
        }
        self.begin_saving();
        if self.ending == Ending::No {
            self.bridges.begin_writing(now, &self.sources.say_done);
        }
        if self.calm.has_come(now) {
            self.pack();
            memory::give_back();
            account::apart::end();
        }
        account::apart::rest(now);
    }

    /// Makes tables that a burst has filled one by one as small as they can be.
    fn pack(&mut self) {
        pack(&mut self.current);
        pack(&mut self.sinks);
        self.ports.pack();
        self.fleet.pack();
        self.processes.pack();
        self.doors.pack();
        self.shown.pack();
    }

    fn is_over(&self) -> bool {
        // What is being written is waited for with a limit; what waits behind it would be lost.
        let is_kept = self.saves.is_kept() && !self.bridges.is_writing();
        match self.ending {
            Ending::No => false,
            Ending::WithTheRuns => is_kept && !self.fleet.is_busy() && self.older.is_empty(),
            Ending::HandOver => is_kept,
        }
    }

    /// When the loop must turn though nothing happens.
    fn deadline(&self) -> Moment {
        let drained = self.draining.values().map(|draining| draining.until).min();
        let ears = self.ears.as_ref().map(start::Ears::deadline);
        let written = self.bridges.deadline().filter(|_| self.ending == Ending::No);
        let soonest = [
            self.fleet.deadline(),
            self.shown.write_map_at(),
            self.calm.deadline(),
            drained,
            ears,
            written,
            self.told.deadline(),
            account::apart::rests_at(),
        ]
        .into_iter()
        .flatten()
        .min();
        soonest.map_or(self.look_at, |at| at.min(self.look_at))
    }

    async fn next(&mut self) -> Event {
        let wait = self.deadline().since(clock::now());
        self.sources.next(wait).await
    }

    fn runs_dir(&self) -> PathBuf {
        self.places.runtime.join("runs")
    }
}

impl Sources {
    /// What happens next, or [`Event::Time`] if that is nothing for so long.
    ///
    /// News of runs come before what is said of them, and both before what somebody asks; but processes
    /// and clients can keep those coming, so every other time the others are asked first.
    async fn next(&mut self, wait: Duration) -> Event {
        let Self { news, words, ready, calls, opened, done, signals, watcher, others_first, .. } = self;
        let runs = async {
            tokio::select! {
                biased;
                Some(news) = news.recv() => Event::News(news),
                Some(word) = words.recv() => Event::Word(word),
                else => std::future::pending().await,
            }
        };
        let others = async {
            tokio::select! {
                biased;
                Some(ready) = ready.recv() => Event::Ready(ready),
                Some(event) = done.recv() => event,
                Some(call) = calls.recv() => Event::Call(call),
                Some(opened) = opened.recv() => Event::Opened(opened),
                hint = watcher.next() => Event::Hint(hint),
                () = tokio::time::sleep(wait) => Event::Time,
            }
        };
        *others_first = !*others_first;
        if *others_first {
            tokio::select! {
                biased;
                signal = signals.next() => Event::Signal(signal),
                event = others => event,
                event = runs => event,
            }
        } else {
            tokio::select! {
                biased;
                signal = signals.next() => Event::Signal(signal),
                event = runs => event,
                event = others => event,
            }
        }
    }
}
