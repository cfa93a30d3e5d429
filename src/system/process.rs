//! The processes behind the runs: the only place that knows a pid as a handle.
//!
//! [`Processes`] starts, adopts, signals and kills; one task per run does the waiting and tells
//! the loop through [`News`]. It decides nothing: whether a run should end, and what follows, is
//! said by the core. What a life looks like from inside stands in `life`.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, pidfd_send_signal, waitid};
use tokio::sync::{Notify, mpsc};

use super::cgroup::Group;
use super::containment::{self, Containment};
use super::launcher::Launcher;
use super::life::{self, Beginning};
use super::look::{Look, Owner};
use super::pipes::Talk;
use super::ready::Hub;
use super::record::{Identity, Record, RunDir};
use super::tree::{self, Marks, Member};
use crate::model::spec::Home;
use crate::model::{Exit, InstanceId, Moment, RunId, Spec, pack};
use crate::system::clock;

/// What became of a run.
#[derive(Debug, PartialEq, Eq)]
pub struct News {
    /// Which run.
    pub run: RunId,
    /// What.
    pub what: What,
}

/// The kinds of news.
#[derive(Debug, PartialEq, Eq)]
pub enum What {
    /// The server's own program runs; whether it is ready is for a probe to say, or for whoever
    /// speaks with it.
    Launched,
    /// A stdio process has closed its standard input, so nobody can speak with it any more.
    Deaf,
    /// The first process ended, or never was.
    Exited(Exit),
    /// Nothing of the run is alive, and its directory is removed.
    Gone,
}

/// Where a run's output goes. It is told in the order things happen, by one task per run.
pub trait Output: Send + Sync {
    /// Takes what was read at `now`. True if that is more than it wants.
    fn take(&self, now: Moment, bytes: &[u8]) -> bool;
    /// Takes one line, without its end, that stands for itself whatever was taken before. One that
    /// is not whole has lost its beginning. True if that is more than it wants.
    fn take_line(&self, now: Moment, line: &[u8], is_whole: bool) -> bool;
    /// Nothing came for a while.
    fn rest(&self);
    /// The run ended, and all its output was taken.
    fn end(&self);
}

/// What holds the processes of one run together.
#[derive(Debug, Clone)]
pub(super) enum Held {
    Cgroup(Group),
    Namespace,
    Session,
}

/// The first process of a run, held so that its pid cannot mean another.
#[derive(Debug)]
pub(super) struct Leader {
    pub(super) pid: i32,
    pub(super) handle: OwnedFd,
    /// Started by this daemon, so that it stays a zombie until we reap it and its pid, group and
    /// session stay its own.
    pub(super) ours: bool,
}

/// What all runs share.
#[derive(Debug)]
pub(super) struct Shared {
    /// The daemon's own directories.
    pub(super) state: PathBuf,
    pub(super) runtime: PathBuf,
    /// Where each run has one.
    pub(super) runs: PathBuf,
    pub(super) news: mpsc::UnboundedSender<News>,
    pub(super) launcher: Arc<Launcher>,
    /// What is waited for of all runs.
    pub(super) hub: Arc<Hub>,
}

/// What the run's task and [`Processes`] share.
#[derive(Debug)]
pub(super) struct Life {
    pub(super) run: RunId,
    pub(super) shared: Arc<Shared>,
    pub(super) held: Held,
    /// Its first process is not the server but the launcher's copy, as the first of a pid namespace. It
    /// passes on what it is sent, and its end is everybody's.
    pub(super) has_init: bool,
    pub(super) marker: Box<Path>,
    /// Whom it is started as.
    pub(super) uid: u32,
    // In here and not on the heap: what is made for good amid a thousand launches keeps apart what
    // they give back.
    leader: OnceLock<Leader>,
    /// A signal asked for before there was anybody to send it to.
    early_signal: Mutex<Option<i32>>,
    pub(super) kill: Notify,
    exited: AtomicBool,
}

impl Life {
    /// A run whose strays are known by their TMPDIR and their uid.
    pub(super) fn new(
        run: RunId,
        (held, has_init): (Held, bool),
        (marker, uid): (PathBuf, u32),
        leader: Option<Leader>,
        shared: Arc<Shared>,
    ) -> Self {
        Self {
            run,
            shared,
            held,
            has_init,
            marker: marker.into(),
            uid,
            leader: leader.map_or_else(OnceLock::new, OnceLock::from),
            early_signal: Mutex::new(None),
            kill: Notify::new(),
            exited: AtomicBool::new(false),
        }
    }

    /// Its directory.
    pub(super) fn dir(&self) -> RunDir {
        RunDir::of(&self.shared.runs, self.run)
    }

    /// The loop outlives every life; news after its end concern nobody.
    pub(super) fn tell(&self, what: What) {
        if self.shared.news.send(News { run: self.run, what }).is_err() {
            tracing::debug!(run = self.run.0, "news after the end of the loop");
        }
    }

    pub(super) fn leader(&self) -> Option<&Leader> {
        self.leader.get()
    }

    /// Names the first process, once; it gets the signal that was meant for it before it was there.
    pub(super) fn set_leader(&self, leader: Leader) {
        let mut early = lock(&self.early_signal);
        let leader = self.leader.get_or_init(|| leader);
        if let Some(signal) = early.take().and_then(Signal::from_named_raw) {
            send(&leader.handle, signal);
        }
    }

    pub(super) fn has_exited(&self) -> bool {
        self.exited.load(Ordering::Relaxed)
    }

    pub(super) fn set_exited(&self) {
        self.exited.store(true, Ordering::Relaxed);
    }

    pub(super) fn marks(&self, leader: i32, leader_is_held: bool) -> Marks {
        let (fifos, tmp) = (self.dir().path().to_path_buf(), self.marker.to_path_buf());
        Marks { leader, leader_is_held, fifos, tmp, uid: self.uid }
    }

    /// Every process of the run, those first that are found at no cost: who wants one of them seldom
    /// needs a look at the whole machine.
    pub(super) fn pids(&self) -> Box<dyn Iterator<Item = i32> + '_> {
        match (&self.held, self.leader()) {
            (Held::Cgroup(group), _) => Box::new(group.processes().into_iter()),
            (Held::Namespace | Held::Session, None) => Box::new(std::iter::empty()),
            (Held::Namespace | Held::Session, Some(leader)) => {
                let below = move || tree::descendants(leader.pid);
                let all = move || {
                    let marks = self.marks(leader.pid, !self.has_exited());
                    tree::members(&marks, clock::now(), false).into_iter().map(|member| member.pid)
                };
                let near = std::iter::once(leader.pid).chain(std::iter::once_with(below).flatten());
                Box::new(near.chain(std::iter::once_with(all).flatten()))
            }
        }
    }

    /// Sends the run's process group a signal; where the group's number may already be somebody
    /// else's, each process by its own handle, as they were at some moment not before `since`.
    fn signal(&self, number: i32, since: Moment) {
        let mut early = lock(&self.early_signal);
        let Some(leader) = self.leader() else {
            *early = Some(number);
            return;
        };
        drop(early);
        // The signal was checked when the configuration was read.
        let Some(signal) = Signal::from_named_raw(number) else { return };
        if self.has_init {
            send(&leader.handle, signal);
        } else if leader.ours {
            let group = Pid::from_raw(leader.pid);
            let done = group.map(|group| rustix::process::kill_process_group(group, signal));
            if !matches!(done, Some(Ok(()))) {
                // It has not made its group yet.
                send(&leader.handle, signal);
            }
        } else {
            send(&leader.handle, signal);
            for member in tree::members(&self.marks(leader.pid, !self.has_exited()), since, false) {
                send_to(member, signal);
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Sends a signal to the very process the handle is of. One that is gone needs none.
pub(super) fn send(handle: &OwnedFd, signal: Signal) {
    if let Err(error) = pidfd_send_signal(handle.as_fd(), signal)
        && error != rustix::io::Errno::SRCH
    {
        tracing::warn!(%error, ?signal, "cannot signal a process");
    }
}

/// Sends a signal to a process that was just seen to be the run's, and to no later one of its pid.
pub(super) fn send_to(member: Member, signal: Signal) {
    // First the handle, then the look: what the handle holds cannot change between the two.
    if let Ok((now, handle)) = Identity::of(member.pid)
        && now.start_time == member.start_time
    {
        send(&handle, signal);
    }
}

/// The processes of all runs.
#[derive(Debug)]
pub struct Processes {
    lives: BTreeMap<RunId, Arc<Life>>,
    containment: Containment,
    shared: Arc<Shared>,
}

impl Processes {
    /// With these directories of the daemon's: the processes' own are below both, and one per run in
    /// `runs` in the second, which is there. News go to `news`, which holds at most five per run. What
    /// becomes of them is waited for in `hub`.
    ///
    /// # Errors
    ///
    /// When this process cannot become a subreaper (prctl(2)), or its launcher cannot be started.
    pub fn new(
        (state, runtime): (&Path, &Path),
        containment: Containment,
        news: mpsc::UnboundedSender<News>,
        hub: Arc<Hub>,
    ) -> io::Result<Self> {
        nix::sys::prctl::set_child_subreaper(true)?;
        let launcher = Arc::new(Launcher::start()?);
        let (state, runtime, runs) = (state.to_owned(), runtime.to_owned(), runtime.join("runs"));
        let shared = Arc::new(Shared { state, runtime, runs, news, launcher, hub });
        Ok(Self { lives: BTreeMap::new(), containment, shared })
    }

    /// What holds runs together here.
    #[must_use]
    pub fn containment(&self) -> &Containment {
        &self.containment
    }

    /// Starts a run; `talk` speaks with it if it is a stdio run. Whatever goes wrong is heard of as
    /// [`What::Exited`].
    pub fn start(
        &mut self,
        run: RunId,
        instance: &InstanceId,
        spec: Arc<Spec>,
        sink: Arc<dyn Output>,
        talk: Option<Arc<dyn Talk>>,
    ) {
        let held = match &self.containment {
            Containment::Cgroup(root) => Held::Cgroup(root.group(run)),
            Containment::Namespace => Held::Namespace,
            Containment::Session => Held::Session,
        };
        let tmp = Home::of(instance, &self.shared.state, &self.shared.runtime).tmp();
        let uid = spec.account.as_ref().map_or_else(super::account::own_uid, |account| account.uid);
        let has_init = spec.cage.namespaces.pid;
        let life = self.life(run, (held, has_init), (tmp, uid), None);
        let with = Box::new(Beginning { instance: instance.clone(), spec, talk });
        tokio::task::spawn(life::begin(life, with, sink));
    }

    /// Takes over a run that an earlier daemon recorded. One that is dead by now is heard of as
    /// [`What::Exited`] at once, so that what it left behind is swept before it is followed.
    ///
    /// False if the record is of another boot: then there is nothing of it but its directory.
    pub fn adopt(&mut self, record: &Record, sink: Arc<dyn Output>, talk: Option<Arc<dyn Talk>>) -> bool {
        let held = match (&record.cgroup, record.pid_namespace) {
            (Some(group), _) => Held::Cgroup(Group::at(group.clone())),
            (None, true) => Held::Namespace,
            (None, false) => Held::Session,
        };
        let handle = record.identity.find();
        if handle.is_none() && !record.identity.is_of_this_boot() {
            return false;
        }
        let leader = handle.map(|handle| Leader { pid: record.identity.pid, handle, ours: false });
        let marked = (record.marker.clone(), record.uid);
        let life = self.life(record.run, (held, record.pid_namespace), marked, leader);
        tokio::task::spawn(life::resume(life, (record.identity.pid, record.is_stdio()), sink, talk));
        true
    }

    fn life(
        &mut self,
        run: RunId,
        held: (Held, bool),
        marked: (PathBuf, u32),
        leader: Option<Leader>,
    ) -> Arc<Life> {
        let life = Arc::new(Life::new(run, held, marked, leader, Arc::clone(&self.shared)));
        self.lives.insert(run, Arc::clone(&life));
        life
    }

    /// Removes what is left of a run that never became a server, or is known to be over: its
    /// directory, and its cgroup with a process that still waits for orders in vain.
    pub fn discard(&self, run: RunId, dir: RunDir) {
        let group = match &self.containment {
            Containment::Cgroup(root) => Some(root.group(run)),
            Containment::Namespace | Containment::Session => None,
        };
        tokio::task::spawn(life::discard(run, group, dir));
    }

    /// Gives back what was made for all runs together. To be called when none is left.
    pub fn close(&self) {
        self.shared.launcher.end();
        if let Containment::Cgroup(root) = &self.containment
            && let Err(error) = root.remove()
        {
            tracing::warn!(%error, "cannot remove the daemon's cgroup");
        }
    }

    /// Asks a run to end. Those that are asked at the same `now` share one look at the machine.
    pub fn stop(&self, run: RunId, signal: i32, now: Moment) {
        if let Some(life) = self.lives.get(&run) {
            life.signal(signal, now);
        }
    }

    /// Kills whatever there is of a run; [`What::Gone`] says when nothing is. Those that are killed
    /// at the same `now` share one look at the machine.
    pub fn kill(&self, run: RunId, now: Moment) {
        let Some(life) = self.lives.get(&run) else { return };
        if !life.has_exited() {
            if let Held::Cgroup(group) = &life.held {
                report("kill a cgroup", run, group.kill());
            }
            life.signal(Signal::KILL.as_raw(), now);
        }
        life.kill.notify_one();
    }

    /// Makes what is kept of the runs as small as it can be.
    pub fn pack(&mut self) {
        pack(&mut self.lives);
        self.shared.hub.pack();
    }

    /// Forgets a run that is gone.
    pub fn forget(&mut self, run: RunId) {
        self.lives.remove(&run);
    }

    /// True from the start or adoption of a run until it is forgotten.
    #[must_use]
    pub fn knows(&self, run: RunId) -> bool {
        self.lives.contains_key(&run)
    }

    /// What holds this run together, for people: one that was found is held as its daemon held it.
    #[must_use]
    pub fn containment_of(&self, run: RunId) -> Option<&'static str> {
        Some(containment::word((&self.lives.get(&run)?.held).into()))
    }

    /// The pid of a run's first process, for people.
    #[must_use]
    pub fn pid(&self, run: RunId) -> Option<u32> {
        u32::try_from(self.lives.get(&run)?.leader()?.pid).ok()
    }

    /// A look at the processes of a run, for the probe: who may listen on its port.
    #[must_use]
    pub fn look(&self, run: RunId) -> Option<Look> {
        Some(Look::at(Arc::clone(self.lives.get(&run)?)))
    }

    /// The same for the door, who only asks about a socket.
    #[must_use]
    pub fn owner(&self, run: RunId) -> Option<Arc<dyn Owner>> {
        Some(Arc::clone(self.lives.get(&run)?) as _)
    }

    /// Reaps children that are nobody's first process: orphans of runs, come to us as to a
    /// subreaper, a launcher that was killed, and copies of it that never got their orders.
    pub fn reap_strays(&self) {
        // One look without reaping: a leader is left to its own task, which needs it as a zombie,
        // and calls this again afterwards.
        while let Some(pid) = first_dead_child() {
            let is_leader = |life: &Arc<Life>| life.leader().is_some_and(|leader| leader.pid == pid);
            if self.lives.values().any(is_leader) || super::tool::awaits(pid) {
                return;
            }
            reap(pid);
        }
    }
}

/// Makes this process fit to hold everybody's credentials and descriptors: others of its uid
/// cannot look into it, it leaves no core, and it may open as many files as the system lets it (a
/// thousand instances need a few thousand; each run gets a limit of its own).
///
/// # Errors
///
/// When the kernel refuses the first.
pub fn prepare_self() -> io::Result<()> {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    nix::sys::prctl::set_dumpable(false)?;
    // A second lock on the same door: fs.suid_dumpable can turn the first into a core for root.
    super::memory::forbid_cores()?;
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        tracing::warn!(%error, "cannot raise the limit of open files");
    }
    Ok(())
}

fn first_dead_child() -> Option<i32> {
    use nix::sys::wait::{Id, WaitPidFlag, waitid};
    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    waitid(Id::All, flags).ok()?.pid().map(nix::unistd::Pid::as_raw)
}

/// Reaps one child, if it is dead and ours.
pub(super) fn reap(pid: i32) {
    if let Some(pid) = Pid::from_raw(pid)
        && let Err(error) = waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOHANG)
    {
        tracing::debug!(%error, ?pid, "nothing to reap");
    }
}

/// A failed deed that changes nothing for the core is still said.
pub(super) fn report(doing: &str, run: RunId, done: io::Result<()>) {
    if let Err(error) = done {
        tracing::warn!(run = run.0, %error, "cannot {doing}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a test needs a process")]
    fn a_process_that_began_at_another_time_than_the_one_meant_is_not_signalled() {
        use std::os::unix::process::ExitStatusExt;
        let mut child = std::process::Command::new("/bin/sleep").arg("1000").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let start_time = Identity::of(pid).unwrap().0.start_time;
        // Whatever it is that ends it, it is the first that was sent.
        send_to(Member { pid, start_time: start_time - 1 }, Signal::KILL);
        send_to(Member { pid, start_time }, Signal::TERM);
        assert_eq!(child.wait().unwrap().signal(), Some(15));
    }
}
