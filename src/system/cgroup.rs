//! Groups of processes that the kernel keeps together: cgroup v2, by plain files.
//!
//! What is here: a group per run, who is in it, limits where the controllers are, and
//! `cgroup.kill` (cgroups(7); kernel 5.14). The groups must not lie inside the daemon's own unit:
//! a unit with live groups below it cannot be started again. Under systemd they lie in a unit beside
//! it, which has no process of its own and is delegated to us (`units/mcpsup-runs.service`).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::launch::clone;
use crate::model::config::Limits;
use crate::model::{Reached, RunId};

/// How a directory that somebody else uses or has removed answers to being removed.
const IN_USE_OR_GONE: [io::ErrorKind; 3] =
    [io::ErrorKind::ResourceBusy, io::ErrorKind::DirectoryNotEmpty, io::ErrorKind::NotFound];

/// The directory in which one daemon makes its groups.
#[derive(Debug, Clone)]
pub struct Root {
    dir: Arc<Path>,
    /// The directory it lies in, if that is of our making too.
    ours: Option<PathBuf>,
    /// `memory`, `cpu`, `pids`: those that groups below it have.
    controllers: Vec<String>,
}

impl Root {
    /// Opens `base`, or the unit that systemd has for our runs beside our own, or else `mcpsup` at the
    /// top of the machine's cgroup v2 mount, and makes a directory for the daemon named `name` in it.
    ///
    /// # Errors
    ///
    /// When there is no such mount, or this process may not make groups there, or no process can be born
    /// in them, or the kernel has no `cgroup.kill`.
    pub fn open(base: Option<&Path>, name: &str) -> io::Result<Self> {
        let (base, is_ours) = match (base, delegated()) {
            (Some(base), _) => (base.to_path_buf(), false),
            (None, Some(base)) => (base, false),
            (None, None) => (mount_point()?.join("mcpsup"), true),
        };
        let dir = base.join(name);
        let ours = (is_ours || !base.exists()).then(|| base.clone());
        fs::create_dir_all(&dir)?;
        let mut root = Self { dir: dir.into(), ours, controllers: Vec::new() };
        match root.try_out(&base) {
            Ok(()) => Ok(root),
            Err(error) => {
                if let Err(left) = root.remove() {
                    tracing::warn!(error = %left, dir = %root.dir.display(), "cgroup not removed");
                }
                Err(error)
            }
        }
    }

    /// Has controllers handed down to it, and makes a group in it that is of use.
    fn try_out(&mut self, base: &Path) -> io::Result<()> {
        clone::try_out()?;
        for (parent, child) in [(base.parent(), base), (Some(base), &*self.dir)] {
            // Controllers are handed down level by level; a level that has none hands none down.
            if let Some(parent) = parent {
                hand_down(parent);
            }
            self.controllers = words(&child.join("cgroup.controllers"));
        }
        hand_down(&self.dir);
        self.controllers = words(&self.dir.join("cgroup.subtree_control"));
        let trial = self.group(RunId(0));
        trial.create()?;
        let kills = trial.dir().join("cgroup.kill").exists();
        trial.remove()?;
        if kills { Ok(()) } else { Err(io::Error::other("the kernel has no cgroup.kill")) }
    }

    /// The group of a run; it need not exist.
    #[must_use]
    pub fn group(&self, run: RunId) -> Group {
        Group(Place::Below(Arc::clone(&self.dir), run))
    }

    /// Removes the daemon's own directory, and the one it lies in if that is ours and no other daemon's does.
    ///
    /// # Errors
    ///
    /// When there is still a group in it.
    pub fn remove(&self) -> io::Result<()> {
        fs::remove_dir(&*self.dir)?;
        match self.ours.as_ref().map_or(Ok(()), fs::remove_dir) {
            Err(error) if IN_USE_OR_GONE.contains(&error.kind()) => Ok(()),
            done => done,
        }
    }

    /// Which of the limits asked for cannot be kept here, by name.
    #[must_use]
    pub fn lacks(&self, limits: &Limits) -> Vec<&'static str> {
        let has = |name: &str| self.controllers.iter().any(|controller| controller == name);
        limits.of_groups().filter(|(_, controller)| !has(controller)).map(|(name, _)| name).collect()
    }
}

/// One group: a directory of the cgroup file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group(Place);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    /// A run's, in the daemon's own directory. Named by both, as there is one for everybody.
    Below(Arc<Path>, RunId),
    At(Box<Path>),
}

impl Group {
    /// The group a record names.
    #[must_use]
    pub fn at(dir: PathBuf) -> Self {
        Self(Place::At(dir.into()))
    }

    /// Its directory.
    #[must_use]
    pub fn dir(&self) -> PathBuf {
        match &self.0 {
            Place::Below(root, run) => root.join(format!("run-{run}")),
            Place::At(dir) => dir.to_path_buf(),
        }
    }

    /// Makes it.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn create(&self) -> io::Result<()> {
        match fs::create_dir(self.dir()) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            done => done,
        }
    }

    /// Sets the limits whose controllers are there; [`Root::lacks`] names the others. What the first process
    /// of a pid namespace takes, which is ours, is not the server's.
    ///
    /// # Errors
    ///
    /// When the kernel refuses a value.
    pub fn limit(&self, limits: &Limits, has_init: bool) -> io::Result<()> {
        let cpu = limits.cpu.map(|percent| format!("{} 100000", u64::from(percent) * 1000));
        let values = [
            ("memory.max", limits.memory.map(|bytes| bytes.to_string())),
            ("cpu.max", cpu),
            ("pids.max", limits.tasks.map(|tasks| (u64::from(tasks) + u64::from(has_init)).to_string())),
        ];
        for (file, value) in values {
            let path = self.dir().join(file);
            if let Some(value) = value.filter(|_| path.exists()) {
                set(&path, &value)?;
            }
        }
        Ok(())
    }

    /// The limit that something in it hit so far, if any (`memory.events`, `pids.events`). That the
    /// whole machine was out of memory is none.
    #[must_use]
    pub fn reached(&self, has_init: bool) -> Option<Reached> {
        let count = |file: &str, event: &str| {
            let text = fs::read_to_string(self.dir().join(file)).unwrap_or_default();
            let line = text.lines().find_map(|line| line.strip_prefix(event)?.strip_prefix(' '));
            line.and_then(|number| number.parse::<u64>().ok()).unwrap_or(0)
        };
        let limit = |file| words(&self.dir().join(file)).first().and_then(|word| word.parse::<u64>().ok());
        if count("memory.events", "oom") > 0 && count("memory.events", "oom_kill") > 0 {
            return limit("memory.max").map(Reached::Memory);
        }
        let tasks = limit("pids.max").filter(|_| count("pids.events", "max") > 0);
        tasks.map(|tasks| Reached::Tasks(tasks - u64::from(has_init && tasks > 0)))
    }

    /// Every process in it.
    #[must_use]
    pub fn processes(&self) -> Vec<i32> {
        words(&self.dir().join("cgroup.procs")).iter().filter_map(|pid| pid.parse().ok()).collect()
    }

    /// True while a process of it, or of a group below it, is alive. A zombie is not.
    #[must_use]
    pub fn is_populated(&self) -> bool {
        fs::read_to_string(self.dir().join("cgroup.events"))
            .is_ok_and(|events| events.contains("populated 1"))
    }

    /// Kills every process in it and in the groups below it, at once and without a gap for forks.
    ///
    /// # Errors
    ///
    /// When the group is gone, or the kernel refuses.
    pub fn kill(&self) -> io::Result<()> {
        set(&self.dir().join("cgroup.kill"), "1")
    }

    /// Removes it and the empty groups that its processes made below it.
    ///
    /// # Errors
    ///
    /// When it is still populated.
    pub fn remove(&self) -> io::Result<()> {
        match fs::remove_dir(self.dir()) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(_) => {
                for below in fs::read_dir(self.dir())?.flatten() {
                    if below.file_type().is_ok_and(|kind| kind.is_dir()) {
                        Self::at(below.path()).remove()?;
                    }
                }
                fs::remove_dir(self.dir())
            }
        }
    }
}

/// The group that a service manager keeps for our runs: that of the unit `NAME-runs.service` beside our
/// own, `NAME.service`; `NAME-runs@INSTANCE.service` beside `NAME@INSTANCE.service`.
fn delegated() -> Option<PathBuf> {
    let own = fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = own.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let beside = mount_point().ok()?.join(runs_beside(Path::new(path))?);
    // A group with processes in it could not hand controllers down.
    (beside.is_dir() && words(&beside.join("cgroup.procs")).is_empty()).then_some(beside)
}

fn runs_beside(own: &Path) -> Option<PathBuf> {
    let unit = own.file_name()?.to_str()?.strip_suffix(".service")?;
    let (name, instance) = unit.find('@').map_or((unit, ""), |at| unit.split_at(at));
    Some(own.with_file_name(format!("{name}-runs{instance}.service")))
}

/// Where cgroup v2 is mounted, from `proc_pid_mountinfo(5)`.
fn mount_point() -> io::Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    mounts
        .lines()
        .find_map(|line| {
            let (left, right) = line.split_once(" - ")?;
            right.starts_with("cgroup2 ").then(|| PathBuf::from(left.split(' ').nth(4).unwrap_or("/")))
        })
        .ok_or_else(|| io::Error::other("no cgroup v2 file system is mounted"))
}

/// Lets the groups below `dir` have the controllers that limits need, one by one, because one
/// that is refused (or not there) would take the others with it.
fn hand_down(dir: &Path) {
    for controller in ["memory", "cpu", "pids"] {
        let control = dir.join("cgroup.subtree_control");
        if words(&dir.join("cgroup.controllers")).iter().any(|name| name == controller)
            && let Err(error) = set(&control, &format!("+{controller}"))
        {
            tracing::debug!(%error, controller, dir = %dir.display(), "cannot hand a controller down");
        }
    }
}

fn words(path: &Path) -> Vec<String> {
    fs::read_to_string(path).unwrap_or_default().split_whitespace().map(str::to_owned).collect()
}

fn set(path: &Path, value: &str) -> io::Result<()> {
    use std::io::Write;
    fs::OpenOptions::new().write(true).open(path)?.write_all(value.as_bytes())
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a group made of plain files")]
mod tests {
    use super::*;

    fn group(files: &[(&str, &str)]) -> (tempfile::TempDir, Group) {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(dir.path().join(name), text).unwrap();
        }
        let group = Group::at(dir.path().to_path_buf());
        (dir, group)
    }

    #[test]
    fn the_runs_of_a_unit_are_kept_in_the_unit_beside_it() {
        let beside = |own: &str| runs_beside(Path::new(own)).map(|path| path.display().to_string());
        let runs = Some("system.slice/mcpsup-runs.service".to_owned());
        assert_eq!(beside("system.slice/mcpsup.service"), runs);
        let runs = Some("app.slice/mcpsup-runs@work.service".to_owned());
        assert_eq!(beside("app.slice/mcpsup@work.service"), runs);
        assert_eq!(beside("user.slice/user-0.slice/session-1.scope"), None);
        assert_eq!(beside(""), None);
    }

    #[test]
    fn a_place_where_no_group_can_be_killed_is_left_as_it_was_found() {
        let top = tempfile::tempdir().unwrap();
        let base = top.path().join("mcpsup");
        let names = |dir: &Path| fs::read_dir(dir).unwrap().count();

        assert!(Root::open(Some(&base), "first").is_err());
        assert_eq!(names(top.path()), 0);

        fs::create_dir(&base).unwrap();
        assert!(Root::open(Some(&base), "second").is_err());
        assert_eq!((names(top.path()), names(&base)), (1, 0), "it was there before");
    }

    #[test]
    fn what_was_made_for_a_daemon_goes_with_it_unless_another_is_there() {
        let top = tempfile::tempdir().unwrap();
        let base = top.path().join("mcpsup");
        let root = |name: &str| {
            fs::create_dir_all(base.join(name)).unwrap();
            Root { dir: base.join(name).into(), ours: Some(base.clone()), controllers: Vec::new() }
        };
        let (one, other) = (root("one"), root("other"));
        one.remove().unwrap();
        assert!(base.join("other").is_dir());
        other.remove().unwrap();
        assert!(!base.exists());
    }

    #[test]
    fn a_limit_is_hit_when_the_kernel_has_killed_or_refused_for_it() {
        const MEMORY: (&str, &str) = ("memory.max", "536870912\n");
        const TASKS: (&str, &str) = ("pids.max", "64\n");
        for (files, expected) in [
            (vec![], None),
            (vec![MEMORY, ("memory.events", "low 0\nhigh 0\nmax 9\noom 0\noom_kill 0\n")], None),
            // The machine's memory was at an end, not the group's.
            (vec![MEMORY, ("memory.events", "max 0\noom 0\noom_kill 1\noom_group_kill 0\n")], None),
            (vec![MEMORY, ("memory.events", "max 9\noom 2\noom_kill 1\n")], Some(Reached::Memory(512 << 20))),
            (vec![TASKS, ("pids.events", "max 0\n")], None),
            (vec![TASKS, ("pids.events", "max 3\n")], Some(Reached::Tasks(64))),
            (vec![("pids.max", "max\n"), ("pids.events", "max 3\n")], None),
        ] {
            assert_eq!(group(&files).1.reached(false), expected, "{files:?}");
        }
    }

    #[test]
    fn a_limit_of_tasks_is_the_servers_whoever_is_beside_it() {
        for (has_init, set) in [(false, "64"), (true, "65")] {
            let (dir, group) = group(&[("pids.max", ""), ("pids.events", "max 1\n")]);
            let limits = Limits { tasks: Some(64), ..Limits::default() };
            group.limit(&limits, has_init).unwrap();
            assert_eq!(words(&dir.path().join("pids.max"))[0], set);
            assert_eq!(group.reached(has_init), Some(Reached::Tasks(64)));
        }
    }
}
