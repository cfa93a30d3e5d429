//! Which processes belong to a run, where no cgroup and no namespace says so.
//!
//! A run's processes are those of its leader's session, those that hold one of its FIFOs, those
//! whose environment names its own TMPDIR, and all their descendants. The daemon is a subreaper
//! (prctl(2)), so what a dead leader leaves behind stays below the daemon. One that changes
//! session, closes its descriptors and empties its environment is not recognised: best effort,
//! and said so.
//!
//! Anybody can write an environment, and a descriptor can be handed to anybody (unix(7)), so both
//! count only for processes of the uid the run was started as: nobody else becomes a member, to
//! listen in its place or to be killed in its name.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use crate::model::Moment;
use crate::system::clock;
use crate::system::record::FIFOS;

/// A process as /proc/PID/stat shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Process {
    pid: i32,
    parent: i32,
    session: i32,
    start_time: u64,
    zombie: bool,
}

/// A living process of a run, as it was when it was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member {
    /// Its pid.
    pub pid: i32,
    /// Clock ticks since boot: tells it from a later process of the same pid.
    pub start_time: u64,
}

/// By what a run's processes are recognised.
#[derive(Debug, Clone)]
pub struct Marks {
    /// The first process: its pid is its session's number.
    pub leader: i32,
    /// It lives, or is a zombie that we have not reaped: its number cannot be another's session.
    pub leader_is_held: bool,
    /// The directory of its FIFOs.
    pub fifos: PathBuf,
    /// Its TMPDIR.
    pub tmp: PathBuf,
    /// Whom it was started as.
    pub uid: u32,
}

/// The machine's processes at one moment.
#[derive(Debug)]
struct Census {
    taken: Moment,
    processes: Vec<Process>,
    /// What was found out about single ones, since it is dear and many runs ask.
    signs: RefCell<BTreeMap<i32, Rc<Signs>>>,
}

/// What a process carries that tells whose it is.
#[derive(Debug)]
struct Signs {
    /// TMPDIR in its environment.
    tmp: Option<PathBuf>,
    /// The directories of the FIFOs it has open.
    places: BTreeSet<PathBuf>,
}

thread_local! {
    // Many runs that end at once (SIGTERM to the daemon) share one look at /proc.
    static LAST: RefCell<Option<Rc<Census>>> = const { RefCell::new(None) };
}

/// Every living process of the run but its leader, as the machine was at some moment not before
/// `since`. Environment and descriptors are looked at only of processes near the daemon, or
/// `everywhere`.
#[must_use]
pub fn members(marks: &Marks, since: Moment, everywhere: bool) -> Vec<Member> {
    let census = census(since);
    let all = &census.processes;
    let me = rustix::process::getpid().as_raw_nonzero().get();
    // While somebody of a session lives, the kernel gives its number to nobody. So if a process
    // has the dead leader's pid, the session is over and one of that number is another's.
    let session_is_ours = marks.leader_is_held || all.iter().all(|process| process.pid != marks.leader);
    let mut children: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
    for process in all {
        children.entry(process.parent).or_default().push(process.pid);
    }
    let is_marked = |process: &&Process| {
        let by_number =
            session_is_ours && (process.session == marks.leader || process.parent == marks.leader);
        let near = everywhere || process.parent == me || process.parent == 1;
        let is_sure = by_number && marks.leader_is_held;
        let is_likely = || {
            (by_number || near)
                && is_of(process.pid, marks.uid)
                && (by_number || census.carries(process.pid, marks))
        };
        process.pid != me && (is_sure || is_likely())
    };
    let mut next: Vec<i32> = all.iter().filter(is_marked).map(|process| process.pid).collect();
    let mut found = BTreeSet::new();
    while let Some(pid) = next.pop() {
        if found.insert(pid) {
            next.extend(children.get(&pid).into_iter().flatten());
        }
    }
    if marks.leader_is_held {
        found.remove(&marks.leader);
    }
    all.iter()
        .filter(|process| !process.zombie && found.contains(&process.pid))
        .map(|process| Member { pid: process.pid, start_time: process.start_time })
        .collect()
}

/// True if the process belongs to `uid`, whatever its program may do for others: the real uid of
/// `proc_pid_status(5)`. (The owner of /proc/PID is root for one that is not dumpable.)
fn is_of(pid: i32, uid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let real = status.lines().find_map(|line| line.strip_prefix("Uid:")?.split_whitespace().next());
    real.and_then(|real| real.parse().ok()) == Some(uid)
}

impl Census {
    /// True if the process is the run's by its environment or by what it has open.
    fn carries(&self, pid: i32, marks: &Marks) -> bool {
        let signs = Rc::clone(self.signs.borrow_mut().entry(pid).or_insert_with(|| Rc::new(signs_of(pid))));
        signs.tmp.as_ref() == Some(&marks.tmp) || signs.places.contains(&marks.fifos)
    }
}

/// The beginning of a process's environment. A process says itself where that lies (`PR_SET_MM_MAP`
/// of prctl(2)) and may call its whole address space so, hence the limit.
fn environment(pid: i32) -> io::Result<Vec<u8>> {
    // As much as execve(2) takes for arguments and environment with the usual stack.
    const LONGEST: u64 = 2 * 1024 * 1024;
    let mut bytes = Vec::new();
    fs::File::open(format!("/proc/{pid}/environ"))?.take(LONGEST).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn signs_of(pid: i32) -> Signs {
    let environment = environment(pid).unwrap_or_default();
    let tmp = environment.split(|byte| *byte == 0).find_map(|variable| variable.strip_prefix(b"TMPDIR="));
    let open = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let files = open.filter_map(|entry| fs::read_link(entry.path()).ok());
    // Only what could be a run's FIFO, as `RunDir` names them: this is kept for a while.
    let places = files
        .filter(|file| FIFOS.iter().any(|name| file.ends_with(name)))
        .filter_map(|file| Some(file.parent()?.to_path_buf()));
    Signs { tmp: tmp.map(|tmp| PathBuf::from(OsStr::from_bytes(tmp))), places: places.collect() }
}

fn census(since: Moment) -> Rc<Census> {
    LAST.with_borrow_mut(|last| {
        if let Some(census) = last
            && census.taken >= since
        {
            return Rc::clone(census);
        }
        let taken = clock::now();
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        let processes = pids.filter_map(look).collect();
        let census = Rc::new(Census { taken, processes, signs: RefCell::default() });
        *last = Some(Rc::clone(&census));
        census
    })
}

/// The children of a process, theirs, and so on, as `proc_tid_children(5)` names them; none where
/// the kernel was built without it.
#[must_use]
pub fn descendants(pid: i32) -> Vec<i32> {
    let mut found = Vec::new();
    let mut next = vec![pid];
    while let Some(pid) = next.pop() {
        let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
        let lists = threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
        let children: Vec<i32> =
            lists.flat_map(|list| list.split_whitespace().flat_map(str::parse).collect::<Vec<_>>()).collect();
        next.extend(&children);
        found.extend(children);
    }
    found
}

/// Reads `proc_pid_stat(5)`: fields 1, 3, 4, 6 and 22.
fn look(pid: i32) -> Option<Process> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(") ")?.1.split(' ');
    let zombie = matches!(fields.next()?, "Z" | "X");
    let parent = fields.next()?.parse().ok()?;
    let session = fields.nth(1)?.parse().ok()?;
    let start_time = fields.nth(15)?.parse().ok()?;
    Some(Process { pid, parent, session, start_time, zombie })
}

/// True if a FIFO of the run is still held open by somebody: its reader's side is asked for
/// without waiting, which fails (ENXIO, fifo(7)) when nobody holds the other.
#[must_use]
pub fn is_held(fifo: &Path) -> bool {
    use std::os::unix::fs::OpenOptionsExt;
    fs::OpenOptions::new()
        .write(true)
        .custom_flags(nix::libc::O_NONBLOCK | nix::libc::O_NOFOLLOW)
        .open(fifo)
        .is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_looks_for_one_moment_shares_a_look_and_who_looks_for_a_later_one_does_not() {
        let now = clock::now();
        let first = census(now);
        assert!(Rc::ptr_eq(&first, &census(now)));
        assert!(!Rc::ptr_eq(&first, &census(first.taken + std::time::Duration::from_nanos(1))));
    }

    #[test]
    fn a_process_is_seen_with_the_time_it_began() {
        let me = rustix::process::getpid().as_raw_nonzero().get();
        let (identity, _) = crate::system::record::Identity::of(me).unwrap();
        assert_eq!(look(me).unwrap().start_time, identity.start_time);
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a test needs a process")]
    fn a_process_that_kept_any_one_of_a_runs_fifos_and_nothing_else_is_the_runs() {
        use std::process::{Command, Stdio};
        let runs = tempfile::tempdir().unwrap();
        let dir = crate::system::record::RunDir::of(runs.path(), crate::model::RunId(1));
        dir.create(true).unwrap();
        let uid = crate::system::account::own_uid();
        let (fifos, tmp) = (dir.path().to_path_buf(), runs.path().join("tmp"));
        let marks = Marks { leader: i32::MAX, leader_is_held: false, fifos, tmp, uid };
        for fifo in [dir.stdin(), dir.output(), dir.error()] {
            let end = fs::OpenOptions::new().read(true).write(true).open(&fifo).unwrap();
            let mut command = Command::new("/bin/sleep");
            command.arg("1000").env_clear().stdin(Stdio::null()).stdout(Stdio::null()).stderr(end);
            let mut child = command.spawn().unwrap();
            let pid = i32::try_from(child.id()).unwrap();

            let members = members(&marks, clock::now(), false);

            child.kill().unwrap();
            child.wait().unwrap();
            assert_eq!(members.iter().map(|member| member.pid).collect::<Vec<_>>(), [pid], "{fifo:?}");
        }
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a test needs a process")]
    fn the_children_of_children_are_found_and_this_process_has_itself_for_no_descendant() {
        use std::io::Read;
        let mut command = std::process::Command::new("/bin/sh");
        command.args(["-c", "(sleep 1000 & echo $!; wait)"]).stdout(std::process::Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut said = [0; 16];
        let count = child.stdout.take().unwrap().read(&mut said).unwrap();
        let last: i32 = std::str::from_utf8(&said[..count]).unwrap().trim().parse().unwrap();

        let me = rustix::process::getpid().as_raw_nonzero().get();
        let found = descendants(me);
        assert!(found.contains(&i32::try_from(child.id()).unwrap()));
        assert!(found.contains(&last));
        assert!(!found.contains(&me));

        for pid in descendants(i32::try_from(child.id()).unwrap()) {
            rustix::process::kill_process(
                rustix::process::Pid::from_raw(pid).unwrap(),
                rustix::process::Signal::KILL,
            )
            .unwrap();
        }
        child.wait().unwrap();
    }
}
