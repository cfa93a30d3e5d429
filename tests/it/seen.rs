//! What lives on a test's host as the kernel shows it, whatever the daemon says.
//!
//! Everything that belongs to a [`Host`] works somewhere below its scratch directory: the daemon
//! is started there, and each server in its own state directory. So neither an environment nor a
//! descriptor has to be kept for a process to be seen here.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::host::Host;

/// What a process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Daemon,
    /// The launcher, or the first process of a namespace, or one that is about to be a server.
    Launcher,
    Server,
    /// One that a server left behind.
    Child,
}

/// A living process; a zombie is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) pid: i32,
    pub(crate) parent: i32,
    /// In clock ticks since boot.
    pub(crate) started: u64,
    /// Whose instance it is of.
    pub(crate) user: Option<String>,
    pub(crate) kind: Kind,
}

/// Everything that lives on this host.
pub(crate) fn on(host: &Host) -> Vec<Seen> {
    below(host.path())
}

fn below(dir: &Path) -> Vec<Seen> {
    let mut all: Vec<Seen> = pids().filter_map(|pid| look(dir, pid)).collect();
    // What a server is about to make into its child still looks like the server.
    let servers: Vec<i32> = all.iter().filter(|one| one.kind == Kind::Server).map(|one| one.pid).collect();
    all.retain(|one| one.kind != Kind::Server || !servers.contains(&one.parent));
    all
}

fn pids() -> impl Iterator<Item = i32> {
    std::fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

fn look(dir: &Path, pid: i32) -> Option<Seen> {
    let cwd = std::fs::read_link(format!("/proc/{pid}/cwd")).ok()?;
    let place = cwd.strip_prefix(dir).ok()?;
    let user = place.strip_prefix("state/instances").ok().and_then(|rest| rest.iter().next());
    let user = user.map(|user| user.to_string_lossy().into_owned());
    let command = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).ok()?;
    // One that is ending has given up its memory and with it its command line, a moment before it
    // is a zombie; one that is executing has none yet. What it is cannot be told.
    if command.is_empty() {
        return None;
    }
    let says = |word: &str| command.split('\0').any(|it| it == word);
    let kind = match () {
        () if says("daemon") => Kind::Daemon,
        () if says("launch") => Kind::Launcher,
        () if says("--sleeper") => Kind::Child,
        () if user.is_some() => Kind::Server,
        // The test itself, about to become the daemon.
        () => return None,
    };
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
    if matches!(fields[0], "Z" | "X") {
        return None;
    }
    Some(Seen { pid, parent: fields[1].parse().ok()?, started: fields[19].parse().ok()?, user, kind })
}

/// The pids of every user's servers.
pub(crate) fn servers(host: &Host) -> BTreeMap<String, Vec<i32>> {
    let mut found: BTreeMap<String, Vec<i32>> = BTreeMap::new();
    for one in on(host).into_iter().filter(|one| one.kind == Kind::Server) {
        found.entry(one.user.unwrap()).or_default().push(one.pid);
    }
    found
}

/// Children that servers of this user left behind.
pub(crate) fn children(host: &Host, user: &str) -> Vec<i32> {
    let is_theirs = |one: &Seen| one.kind == Kind::Child && one.user.as_deref() == Some(user);
    on(host).into_iter().filter(is_theirs).map(|one| one.pid).collect()
}

/// Waits until nothing of this host lives.
pub(crate) fn until_nothing(host: &Host) {
    host.until("nothing lives", || on(host).is_empty());
}

/// Who looks accounts up for this daemon, if anybody does.
pub(crate) fn asking_for(daemon: i32) -> Vec<i32> {
    let asks = |pid: &i32| {
        let command = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        command == "/proc/self/exe\0accounts\0"
    };
    let is_child = |pid: &i32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let fields: Vec<&str> = stat.rsplit_once(") ").map_or("", |(_, rest)| rest).split(' ').collect();
        fields.get(1) == Some(&daemon.to_string().as_str())
    };
    pids().filter(asks).filter(is_child).collect()
}

/// Dead children that `parent` has not reaped.
pub(crate) fn zombies_of(parent: i32) -> Vec<i32> {
    let is_one = |pid: &i32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let fields: Vec<&str> = stat.rsplit_once(") ").map_or("", |(_, rest)| rest).split(' ').collect();
        fields[0] == "Z" && fields[1] == parent.to_string()
    };
    pids().filter(is_one).collect()
}

/// The names of what lies in a directory, sorted; none if it is not there.
pub(crate) fn names_in(dir: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    let mut names: Vec<String> =
        entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// The cgroups of this host's runs, by name, where it has any.
pub(crate) fn cgroups(host: &Host) -> Vec<String> {
    let mut names = names_in(&cgroup_of(host));
    names.retain(|name| name.starts_with("run-"));
    names
}

/// Where the cgroups of this host's runs would be.
pub(crate) fn cgroup_of(host: &Host) -> PathBuf {
    use std::os::unix::fs::MetadataExt;
    let Ok(meta) = std::fs::metadata(host.path().join("state")) else { return PathBuf::from("/nowhere") };
    let top = cgroup_mount().unwrap_or(Path::new("/nowhere"));
    top.join("mcpsup").join(format!("{:x}-{:x}", meta.dev(), meta.ino()))
}

/// Where cgroup v2 is mounted, alone or beside v1 (`proc_pid_mountinfo(5)`).
pub(crate) fn cgroup_mount() -> Option<&'static Path> {
    static MOUNT: OnceLock<Option<PathBuf>> = OnceLock::new();
    let find = || {
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let of_v2 = mounts.lines().filter_map(|line| line.split_once(" - cgroup2 "));
        of_v2.filter_map(|(place, _)| place.split(' ').nth(4)).map(PathBuf::from).next()
    };
    MOUNT.get_or_init(find).as_deref()
}

/// True where this test may make cgroups that can be killed; says so if not.
pub(crate) fn has_cgroups() -> bool {
    let has = nix::unistd::geteuid().is_root() && cgroup_mount().is_some();
    if !has {
        eprintln!("skipped: needs root and a cgroup v2 mount");
    }
    has
}

/// Every way to keep processes together that this test can try, as `[daemon] containment` names it.
pub(crate) fn containments() -> Vec<&'static str> {
    let can = |one: &&str| match *one {
        "cgroup" => has_cgroups(),
        "pid-namespace" => is_root(),
        _ => true,
    };
    ["session", "cgroup", "pid-namespace"].into_iter().filter(can).collect()
}

/// True for root; says so if not.
pub(crate) fn is_root() -> bool {
    let is = nix::unistd::geteuid().is_root();
    if !is {
        eprintln!("skipped: needs root");
    }
    is
}

/// How often the instance's process was started, as its log says.
pub(crate) fn starts(host: &Host, user: &str) -> usize {
    let log =
        std::fs::read_to_string(host.path().join("logs").join(user).join("unruly.log")).unwrap_or_default();
    log.lines().filter(|line| line.contains("mcpsup: run ") && line.ends_with(" started")).count()
}

/// Looks at a host again and again, for what must never be: two servers of one user, or a
/// server beside a child of an earlier one.
pub(crate) struct Watch {
    over: Arc<AtomicBool>,
    thread: JoinHandle<(usize, Vec<String>)>,
}

impl Watch {
    pub(crate) fn over(host: &Host) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let (dir, end) = (host.path().to_path_buf(), Arc::clone(&over));
        let thread = std::thread::spawn(move || {
            let (mut looks, mut wrong) = (0, Vec::new());
            while !end.load(Ordering::Relaxed) {
                looks += 1;
                wrong.extend(overlap(&dir));
                std::thread::sleep(Duration::from_millis(3));
            }
            (looks, wrong)
        });
        Self { over, thread }
    }

    /// What must never be never was.
    pub(crate) fn end(self) {
        self.over.store(true, Ordering::Relaxed);
        let (looks, wrong) = self.thread.join().unwrap();
        assert!(looks > 0);
        assert_eq!(wrong, Vec::<String>::new());
    }
}

fn overlap(dir: &Path) -> Option<String> {
    let all = below(dir);
    for server in all.iter().filter(|one| one.kind == Kind::Server) {
        for other in all.iter().filter(|one| one.user == server.user && one.pid != server.pid) {
            let is_wrong = match other.kind {
                Kind::Server => true,
                Kind::Child => other.started < server.started,
                Kind::Daemon | Kind::Launcher => false,
            };
            // What was seen first may have ended before the other began: only both at once counts.
            if is_wrong
                && look(dir, server.pid).as_ref() == Some(server)
                && look(dir, other.pid).as_ref() == Some(other)
                && look(dir, server.pid).as_ref() == Some(server)
            {
                return Some(format!("{other:?} lives beside {server:?}"));
            }
        }
    }
    None
}

/// Whether these limits of a core, soft and hard, let none be made: one byte stops a core through a pipe too
/// (core(5)); who may not have that has none.
pub(crate) fn forbids_cores<S: AsRef<str>>(limits: &[S]) -> bool {
    let (_, hard) = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_CORE).unwrap();
    let all = |wanted: &str| limits.len() == 2 && limits.iter().all(|limit| limit.as_ref() == wanted);
    all("1") || (hard == 0 && all("0"))
}
