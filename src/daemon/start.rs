//! How a daemon begins: its directories, its lock, what it remembers, the runs it finds, the
//! doors, and only then the control socket. And how it ends.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use super::act::{Current, backend};
use super::apart;
use super::bridges::{Bridges, read_opened};
use super::calm::Calm;
use super::doors::Doors;
use super::event::LOOK_EVERY;
use super::kept::Keeping;
use super::publish::Shown;
use super::seals::Seals;
use super::sinks::Nowhere;
use super::store::{Store, StoreError};
use super::tokens::Tokens;
use super::told::Told;
use super::wishes::Wishes;
use super::{Daemon, Ending, Saves, Sources};
use crate::control;
use crate::control::protocol::Call;
use crate::logic;
use crate::logic::cage::Cages;
use crate::logic::fleet::Fleet;
use crate::logic::instance::Origin;
use crate::logic::roster::Roster;
use crate::logic::uids::Uids;
use crate::model::cage::Ground;
use crate::model::uid::UidRange;
use crate::model::{Config, InstanceId, Problem, Refusals, Whom};
use crate::system::account;
use crate::system::clock;
use crate::system::containment::{self, Containment};
use crate::system::envdir::{Complete, EnvDir, watch as envdir_watch};
use crate::system::failpoint;
use crate::system::files::{self, FileError, NotLocked};
use crate::system::ground;
use crate::system::holdings;
use crate::system::notify::Started;
use crate::system::places::Places;
use crate::system::process::{self, Processes};
use crate::system::ready::Hub;
use crate::system::record::{self, Record, RunDir};
use crate::system::seal::Keeper;
use crate::system::signals::Signals;
use crate::system::trust;

/// A file that was saved just before the daemon began is waited for so long at most.
const SETTLES_WITHIN: Duration = Duration::from_secs(1);
/// A daemon that was told to end has given up its lock within this, on a busy host too.
const ENDS_WITHIN: Duration = Duration::from_secs(10);
/// Requests on their way into the loop.
const CALLS: usize = 64;

/// Why the daemon cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A directory or file of its own.
    #[error(transparent)]
    File(#[from] FileError),
    /// The lock on the state directory.
    #[error("cannot supervise {}", .state.display())]
    Locked {
        /// The state directory.
        state: PathBuf,
        /// Who has it.
        source: NotLocked,
    },
    /// What it remembers.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The control socket.
    #[error(transparent)]
    Control(#[from] control::server::BindError),
    /// Less than mcpsup.toml asks for can be kept of what users are promised.
    #[error("cannot keep users apart: {0}")]
    Isolation(String),
    /// Something of the operating system.
    #[error("cannot {doing}")]
    System {
        /// What was being done.
        doing: String,
        /// Why it failed.
        source: io::Error,
    },
}

impl StartError {
    pub(super) fn runtime(source: io::Error) -> Self {
        Self::System { doing: "start the event loop".into(), source }
    }

    fn while_trying(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::System { doing: doing.into(), source }
    }
}

/// The control socket before it is answered.
pub(super) struct Ears {
    listener: tokio::net::UnixListener,
    calls: mpsc::Sender<Call>,
    generations: watch::Receiver<u64>,
    /// When it is answered in any case.
    open_at: crate::model::Moment,
}

impl Ears {
    pub(super) fn deadline(&self) -> crate::model::Moment {
        self.open_at
    }
}

impl Daemon {
    /// Makes everything ready for the first turn. What runs already is found again before anything
    /// could be started.
    pub(super) fn start(places: &Places, started: Started) -> Result<Self, StartError> {
        let is_root = account::own_uid() == 0;
        make_directories(places, is_root)?;
        let lock = files::lock(&places.state.join("lock"), ENDS_WITHIN)
            .map_err(|source| StartError::Locked { state: places.state.clone(), source })?;
        process::prepare_self().map_err(StartError::while_trying("close its memory to others"))?;
        account::apart::begin();
        let now = clock::now();
        let store = Store::open(&places.state)?;
        let (key, holds) = (store.key()?, store.holds()?);
        let mut roster = Roster::default();
        roster.set_config(read_config(&places.config, &places.config.display().to_string()));
        let config = roster.config().cloned().unwrap_or_default();
        let (tell, news) = mpsc::unbounded_channel();
        let ground = ground::look().map_err(StartError::while_trying("try what this host can keep apart"))?;
        let contained = containment(&config, places, &ground)?;
        let site = apart::site(ground, &contained, places, &config);
        site.refusal().map_or(Ok(()), |refusal| Err(StartError::Isolation(refusal)))?;
        let uid_range = config.daemon.uid_range;
        let hub = Arc::new(Hub::new().map_err(StartError::while_trying("wait for descriptors"))?);
        let processes =
            Processes::new((&places.state, &places.runtime), contained, tell.clone(), Arc::clone(&hub))
                .map_err(StartError::while_trying("take care of orphans"))?;
        let (say_word, words) = mpsc::unbounded_channel();
        let bridges = Bridges::new(places.runtime.join("sessions"), say_word);
        let (say_ready, ready) = mpsc::channel(CALLS);
        let (say_calls, calls) = mpsc::channel(CALLS);
        let (say_done, done) = mpsc::unbounded_channel();
        let (say_opened, opened) = mpsc::unbounded_channel();
        let (generation, generations) = watch::channel(last_generation(places));
        let listener = control::server::bind(&places.control())?;
        let ears = Ears { listener, calls: say_calls, generations, open_at: now + SETTLES_WITHIN };
        let mut daemon = Self {
            ears: Some(ears),
            settling: false,
            places: places.clone(),
            is_root,
            stand_in: account::stand_in(),
            key,
            told: Told::new(&started, now),
            doors: Doors::new(&config, hub, places.runtime.join("doors"), Keeping::new(started)),
            tokens: Tokens::new(&places.state),
            cages: Cages::new(&site, &config),
            bridges,
            own: BTreeMap::new(),
            draining: BTreeMap::new(),
            config,
            roster,
            ports: store.ports()?,
            uids: uids(&store, uid_range, places)?,
            listed: BTreeMap::new(),
            fleet: Fleet::new(store.next_run(), holds.all),
            store,
            processes,
            site,
            current: BTreeMap::new(),
            older: Vec::new(),
            trouble: BTreeMap::new(),
            sinks: BTreeMap::new(),
            unknown: Vec::new(),
            shown: Shown::default(),
            env_dir: EnvDir::new(&places.env_dir),
            seals: Seals::new(Keeper::of(places), say_opened),
            wishes: Wishes::new(holds.taken_back),
            look_at: now,
            accounts_at: now + LOOK_EVERY,
            _lock: lock,
            problems: Vec::new(),
            removing: BTreeSet::new(),
            refusals: Refusals::default(),
            saves: Saves::default(),
            moved: BTreeSet::new(),
            ending: Ending::No,
            calm: Calm::after_start(now),
            sources: Sources {
                news,
                tell,
                words,
                ready,
                say_ready,
                calls,
                opened,
                done,
                say_done,
                others_first: false,
                signals: Signals::new().map_err(StartError::while_trying("watch for signals"))?,
                watcher: envdir_watch::watch(&places.env_dir),
                generation,
                known: watch::Sender::default(),
            },
        };
        daemon.adopt_runs(now)?;
        daemon.look(now, &Whom::All, Complete::Named(&BTreeSet::new()));
        daemon.clear_away_unknown();
        // There is a map though there is nobody yet, and it is never an earlier daemon's.
        daemon.shown.look_at_report();
        daemon.log_ready();
        Ok(daemon)
    }

    fn log_ready(&self) {
        self.log_promises();
        for note in self.notes() {
            tracing::warn!("{note}");
        }
        tracing::info!(
            version = env!("CARGO_PKG_VERSION"),
            config = %self.places.config.display(),
            control = %self.places.control().display(),
            containment = containment::word(self.processes.containment().into()),
            isolation = self.site.tier().as_str(),
            instances = self.listed.len(),
            "mcpsup ready"
        );
    }

    /// Begins to answer, once what the files say is known. Who asks earlier waits: the socket is
    /// there, and nobody is told that a user whose file was saved a moment ago does not exist.
    pub(super) fn listen_once_settled(&mut self, now: crate::model::Moment) {
        let settling = self.settling || self.seals.are_busy();
        if let Some(ears) = self.ears.take_if(|ears| !settling || ears.open_at <= now) {
            let known = self.sources.known.subscribe();
            tokio::spawn(control::server::serve(ears.listener, ears.calls, ears.generations, known));
            self.tell_ready(now);
        }
        // Whose doors there are is known from mcpsup.toml and the ports that are remembered.
        if self.ears.is_none() && self.roster.config().is_some() {
            self.doors.close_unclaimed();
        }
    }

    fn adopt_runs(&mut self, now: crate::model::Moment) -> Result<(), StartError> {
        let runs = self.runs_dir();
        let left = record::left_behind(&runs)
            .map_err(StartError::while_trying(format!("read {}", runs.display())))?;
        let mut found: BTreeMap<InstanceId, (Record, RunDir)> = BTreeMap::new();
        for (run, dir) in left {
            match dir.read() {
                Ok(Some(record)) => {
                    if let Some((older, dir)) = found.insert(record.instance.clone(), (record, dir)) {
                        self.end_older(&older, dir, now);
                    }
                }
                Ok(None) => self.processes.discard(run, dir),
                Err(error) => {
                    tracing::error!(run = run.0, %error, dir = %dir.path().display(), "a record is not ours; its process, if any, is not touched");
                }
            }
        }
        for (record, dir) in found.into_values() {
            self.adopt(&record, dir, now);
        }
        Ok(())
    }

    /// Two runs of one instance are recorded: the directory of the first could not be removed when
    /// it was over. If it is not over, it is ended, and until then nothing is started beside it.
    fn end_older(&mut self, record: &Record, dir: RunDir, now: crate::model::Moment) {
        let run = record.run;
        if record.identity.find().is_none() {
            return self.processes.discard(run, dir);
        }
        tracing::error!(user = %record.instance.user, server = %record.instance.server, run = run.0, "a second run of one instance is ended");
        if self.processes.adopt(record, Arc::new(Nowhere), None) {
            self.older.push((record.instance.clone(), run));
            self.processes.kill(run, now);
        }
    }

    fn adopt(&mut self, record: &Record, dir: RunDir, now: crate::model::Moment) {
        let id = &record.instance;
        let mut talk = None;
        if let Some((stdio, path)) = &record.stdio {
            self.find_bridge(id, stdio, path);
            let opened = read_opened(&dir.opened());
            talk = self.bridges.partner_found(id, (stdio, path), record.run, opened);
        }
        let bridge = talk.as_ref().and_then(|_| self.bridges.get(id)).cloned();
        let sink = self.sink_found(&record.instance, record.run);
        if !self.processes.adopt(record, sink, talk.map(|talk| talk as _)) {
            // The machine was started again since.
            return self.processes.discard(record.run, dir);
        }
        let origin = Origin { spec: record.spec, plan: record.plan };
        self.fleet.adopt(&record.instance, record.run, origin, now);
        let current = Current::new(
            record.instance.clone(),
            (backend(record.backend, record.socket.clone()), record.uid),
            bridge,
        );
        self.current.insert(record.run, Box::new(current));
        failpoint::pass("adopt.found");
        tracing::info!(user = %record.instance.user, server = %record.instance.server, run = record.run.0, "instance found again");
    }

    /// Reads mcpsup.toml again; what is broken leaves the last good one standing.
    pub(super) fn read_config(&mut self) {
        self.roster.set_config(read_config(&self.places.config, &self.places.config.display().to_string()));
        if let Some(config) = self.roster.config() {
            self.doors.configure(config);
            self.config = Arc::clone(config);
            self.configure_sinks();
            self.keep_apart();
        }
    }

    /// Leaves nothing that would look alive: the socket and the map go with the daemon.
    pub(super) fn end(&mut self) {
        let mut leave = vec![self.places.control()];
        if self.ending == Ending::WithTheRuns {
            leave.push(self.places.port_map());
            self.processes.close();
        }
        self.doors.leave();
        self.bridges.write_rest();
        for file in leave {
            if let Err(error) = files::remove(&file) {
                tracing::warn!(error = super::store::chain(&error), "left behind");
            }
        }
        tracing::info!(runs = if self.ending == Ending::HandOver { "go on" } else { "ended" }, "mcpsup ends");
    }
}

fn make_directories(places: &Places, is_root: bool) -> Result<(), FileError> {
    // Users reach their own directories below it, and as root only those are theirs.
    let passable = if is_root { 0o711 } else { 0o700 };
    files::make_dir(&places.runtime, if is_root { 0o755 } else { 0o700 })?;
    files::make_dir(&places.runtime.join("runs"), 0o700)?;
    files::make_dir(&places.runtime.join("sessions"), 0o700)?;
    files::make_dir(&places.runtime.join("instances"), passable)?;
    files::make_dir(&places.state, passable)?;
    files::make_dir(&places.state.join("instances"), passable)?;
    files::make_dir(&places.logs, 0o700)?;
    // What is there when a run begins is hidden from it for good, also if a daemon of the same person begins to
    // use it later. It is not this one's, which can do without.
    if places.personal.iter().any(|dir| places.config.starts_with(dir)) {
        for dir in places.personal.iter().filter(|dir| !dir.exists()) {
            if let Err(error) = files::make_dir(dir, 0o700) {
                tracing::info!(
                    error = super::store::chain(&error),
                    "not made for other daemons of this user"
                );
            }
        }
    }
    Ok(())
}

/// Who has which reserved uid, as it is remembered and as the directories say.
fn uids(store: &Store, range: UidRange, places: &Places) -> Result<Uids, StoreError> {
    let mut uids = store.uids()?;
    for (user, uid) in holdings::of_instances(&places.state.join("instances")) {
        // What belongs to an account is not from the table.
        if range.contains(uid)
            && let Ok(user) = user.parse()
            && account::named(uid) == Ok(None)
        {
            uids.found(&user, uid);
        }
    }
    Ok(uids)
}

/// The map's number goes on where the last daemon left it.
fn last_generation(places: &Places) -> u64 {
    let text = files::read_bounded(&places.port_map(), files::LARGEST).unwrap_or_default();
    serde_json::from_slice::<crate::model::portmap::PortMap>(&text).map_or(0, |map| map.generation)
}

/// Reads mcpsup.toml, which problems call `name`.
///
/// # Errors
///
/// Everything that is wrong with it.
pub fn read_config(path: &Path, name: &str) -> Result<Config, Vec<Problem>> {
    let one = |text: String| vec![Problem::new(name, text)];
    let bytes = trust::read(path, logic::config::MAX_FILE).map_err(|why| one(why.of_configuration()))?;
    let text = String::from_utf8(bytes).map_err(|_| one("is not UTF-8".to_owned()))?;
    logic::config::parse(&text, name)
}

fn containment(config: &Config, places: &Places, ground: &Ground) -> Result<Containment, StartError> {
    let name = daemon_name(&places.state);
    containment::choose(config.daemon.containment, config.daemon.cgroup_root.as_deref(), &name, ground)
        .map_err(StartError::while_trying("keep process trees together as [daemon] containment asks"))
}

/// A name for this daemon's cgroup that no other daemon of the host has: its state directory's
/// device and inode.
fn daemon_name(state: &Path) -> String {
    files::identity(state)
        .map_or_else(|_| "daemon".to_owned(), |(device, inode)| format!("{device:x}-{inode:x}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_of_the_same_users_other_daemons_are_made_before_a_run_begins_and_can_be_done_without() {
        let home = tempfile::tempdir().unwrap();
        let env = |name: &str| (name == "HOME").then(|| home.path().into());
        let made = |config: &str| {
            let config = home.path().join(config);
            make_directories(&Places::find(Some(&config), false, env).unwrap(), false)
                .map_err(|error| error.to_string())
        };
        let state = home.path().join(".local/state/mcpsup");
        assert_eq!(made("elsewhere/mcpsup.toml"), Ok(()));
        assert!(!home.path().join(".config").exists() && !state.exists(), "nothing of theirs is near");
        assert_eq!(made(".config/mcpsup/second/mcpsup.toml"), Ok(()));
        let bits = std::os::unix::fs::MetadataExt::mode(&state.metadata().unwrap());
        assert_eq!(bits & 0o7777, 0o700);
        std::fs::remove_dir_all(home.path().join(".local")).unwrap();
        std::fs::File::create(home.path().join(".local")).unwrap();
        assert_eq!(made(".config/mcpsup/second/mcpsup.toml"), Ok(()));
    }
}
