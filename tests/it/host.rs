//! A host of one test's own: a scratch directory, a daemon in it, and what a person would do there.
//!
//! Everything waits for predicates with a limit, never for time. Whatever a test leaves running is
//! ended when its [`Host`] is dropped, by pid.

use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::time::{Duration, Instant};

use mcpsup::model::portmap::PortMap;
use mcpsup::model::status::{InstanceStatus, StateName, StatusReport};

use crate::delegated::Unit;
use crate::tree::give_to_ordinary;

/// How long a test waits for what must come. Long, because the machine may be busy.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// The program under test.
pub(crate) const MCPSUP: &str = env!("CARGO_BIN_EXE_mcpsup");

/// An example server, built by `cargo test` beside the program.
///
/// Root's daemon runs each user's under a uid of their own, so where the checkout is closed to others
/// (`/root`) a copy is meant, which stays in the directory for temporary files.
pub(crate) fn example(name: &str) -> PathBuf {
    open_to_all(Path::new(MCPSUP).parent().unwrap().join("examples").join(name))
}

/// The program under test, likewise, for whoever is not root.
pub(crate) fn program() -> PathBuf {
    open_to_all(MCPSUP.into())
}

fn open_to_all(built: PathBuf) -> PathBuf {
    if !nix::unistd::geteuid().is_root() || is_open_to_others(&built) {
        return built;
    }
    static COPYING: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let _alone = COPYING.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let dir = outside(built.parent().unwrap());
    let name = built.file_name().unwrap().to_string_lossy();
    let copy = dir.join(&*name);
    let made = |path: &Path| std::fs::metadata(path).and_then(|meta| meta.modified()).ok();
    if made(&copy) < made(&built) {
        // Renamed into place: another checkout's test may execute the old one.
        let new = dir.join(format!("{name}.{}", std::process::id()));
        copy_program(&built, &new);
        std::fs::rename(new, &copy).unwrap();
    }
    copy
}

/// Where others get to what belongs into a directory of what is built: there, or in the directory for
/// temporary files, in one for this checkout and no other.
pub(crate) fn place_for_all(dir: &Path) -> PathBuf {
    std::fs::create_dir_all(dir).unwrap();
    if nix::unistd::geteuid().is_root() && !is_open_to_others(dir) { outside(dir) } else { dir.to_path_buf() }
}

fn outside(dir: &Path) -> PathBuf {
    let top = std::env::temp_dir().join("mcpsup-it-examples");
    let outside = top.join(dir.to_string_lossy().replace('/', "-"));
    std::fs::create_dir_all(&outside).unwrap();
    for dir in [&top, &outside] {
        assert_eq!(std::os::unix::fs::MetadataExt::uid(&std::fs::symlink_metadata(dir).unwrap()), 0);
        std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    outside
}

fn is_open_to_others(program: &Path) -> bool {
    program
        .ancestors()
        .all(|path| std::fs::metadata(path).is_ok_and(|meta| meta.permissions().mode() & 1 != 0))
}

/// Ports that no other test of this machine uses now: so many doors, and as many backends.
struct Block {
    doors: String,
    backends: String,
    last: u16,
    /// The block's first port, listened on for as long as the block is somebody's, so that tests of
    /// another checkout keep off as well.
    _claim: std::net::TcpListener,
}

/// So many doors, and so many backends.
const SIZE: u16 = 600;

fn block() -> Block {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let begun = Instant::now();
    // With more threads than blocks some tests wait for the end of others.
    while begun.elapsed() < 10 * LIMIT {
        // Below the ephemeral range (32768), and clear of what people usually run.
        let first = 11_000 + NEXT.fetch_add(1, Ordering::Relaxed) % 17 * 2 * SIZE;
        if let Ok(claim) = std::net::TcpListener::bind(("127.0.0.1", first)) {
            return Block {
                doors: format!("{}-{}", first + 1, first + SIZE - 1),
                backends: format!("{}-{}", first + SIZE, first + 2 * SIZE - 1),
                last: first + 2 * SIZE - 1,
                _claim: claim,
            };
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("every block of ports is taken");
}

/// These tables with `asked`, `key = value; key = value`, in `[daemon]`, but for keys that it has: so the
/// whole suite is run on a host of another kind, see CONTRIBUTING.md. At the end: no line has another number.
fn in_daemon(tables: &str, asked: &str) -> String {
    const HEAD: &str = "[daemon]\n";
    let lines = |own: &str| -> String {
        let key = |line: &str| line.split_once('=').map(|(key, _)| key.trim().to_owned());
        let has: Vec<_> = own.lines().filter_map(key).collect();
        let rest = asked.split(';').filter(|line| key(line).is_some_and(|key| !has.contains(&key)));
        rest.flat_map(|line| [line.trim(), "\n"]).collect()
    };
    match tables.split_once(HEAD) {
        _ if asked.is_empty() => tables.to_owned(),
        None => format!("{tables}\n{HEAD}{}", lines("")),
        Some((before, after)) => {
            let (own, rest) = after.find("\n[").map_or((after, ""), |end| after.split_at(end));
            format!("{before}{HEAD}{own}\n{}{rest}", lines(own))
        }
    }
}

#[test]
fn what_is_asked_of_every_daemon_is_asked_but_for_what_a_test_asks_itself() {
    let asked = "isolation = \"require\"; containment = \"auto\"";
    assert_eq!(in_daemon("[server.x]", ""), "[server.x]");
    let all = "[server.x]\n[daemon]\nisolation = \"require\"\ncontainment = \"auto\"\n";
    assert_eq!(in_daemon("[server.x]", asked), all);
    let own = "[daemon]\ncontainment = \"session\"\n[server.x]\n";
    let both = "[daemon]\ncontainment = \"session\"\nisolation = \"require\"\n\n[server.x]\n";
    assert_eq!(in_daemon(own, asked), both);
}

/// One test's host.
pub(crate) struct Host {
    dir: tempfile::TempDir,
    pub(crate) daemon: Option<Child>,
    /// Variables for the daemon's own environment.
    pub env: Vec<(String, String)>,
    /// Where its daemon is an ordinary user's, with groups that are theirs.
    pub(crate) unit: Option<Unit>,
    /// How long it is waited here for what must come.
    pub limit: Duration,
    head: String,
    block: Block,
}

impl Host {
    /// With these `[server.…]` tables; `[ports]` is added. Nothing runs yet.
    pub(crate) fn new(servers: &str) -> Self {
        let dir = tempfile::Builder::new().prefix("mcpsup-it-").tempdir().unwrap();
        // Each user's server must get through to what is its own, under whatever uid it runs.
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o711)).unwrap();
        let block = block();
        let (doors, backends) = (&block.doors, &block.backends);
        let head = format!("[ports]\nrange = \"{doors}\"\nbackend_range = \"{backends}\"\n");
        let host = Self { dir, daemon: None, env: Vec::new(), unit: None, limit: LIMIT, head, block };
        std::fs::DirBuilder::new().create(host.env_dir()).unwrap();
        std::fs::set_permissions(host.env_dir(), std::fs::Permissions::from_mode(0o700)).unwrap();
        host.configure(servers);
        host
    }

    /// With the notes server of the examples, for everybody.
    pub(crate) fn with_notes() -> Self {
        Self::new(&notes())
    }

    /// With the misbehaving server of the examples; its switches come from each user's `UNRULY`.
    /// With notes, and alice and bob up.
    pub(crate) fn with_two_users() -> Self {
        let mut host = Self::with_notes();
        host.save("alice", "NOTES_TOKEN=alices-own-token\n");
        host.save("bob", "NOTES_TOKEN=bobs-own-token\n");
        host.start();
        host.until_all_up(2);
        host
    }

    pub(crate) fn with_unruly(more: &str) -> Self {
        Self::new(&unruly(more))
    }

    /// Writes mcpsup.toml anew.
    pub(crate) fn configure(&self, servers: &str) {
        let asked = std::env::var("MCPSUP_TEST_DAEMON").unwrap_or_default();
        let text = format!("{}{}", self.head, in_daemon(servers, &asked));
        write(&self.path().join("mcpsup.toml"), &text, 0o600);
        self.give(&self.path().join("mcpsup.toml"));
    }

    /// Gives a file to whom the daemon is, if it is an ordinary user's.
    fn give(&self, path: &Path) {
        if self.unit.is_some() {
            give_to_ordinary(path);
        }
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The last port of this test's own, which no process is given before the others are taken.
    pub(crate) fn last_backend(&self) -> u16 {
        self.block.last
    }

    /// The last port of this test's own that no user is given before the others are taken.
    pub(crate) fn last_door(&self) -> u16 {
        self.block.last - SIZE
    }

    pub(crate) fn env_dir(&self) -> PathBuf {
        self.path().join("env.d")
    }

    /// Saves a user's env file: written whole beside and renamed, as careful editors do.
    pub(crate) fn save(&self, user: &str, text: &str) {
        let new = self.path().join(format!("new-{user}"));
        write(&new, text, 0o600);
        self.give(&new);
        std::fs::rename(new, self.env_dir().join(format!("{user}.env"))).unwrap();
    }

    pub(crate) fn delete(&self, user: &str) {
        std::fs::remove_file(self.env_dir().join(format!("{user}.env"))).unwrap();
    }

    /// Starts the daemon and waits until it can be asked.
    pub(crate) fn start(&mut self) {
        self.spawn();
        self.until("the daemon answers", || self.cli(&["status"]).status.success());
    }

    /// Starts the daemon and waits for nothing.
    pub(crate) fn spawn(&mut self) {
        let Some(unit) = &self.unit else { return self.spawn_by(Command::new(MCPSUP)) };
        let command = unit.command(&[], &program());
        // Once: what there is afterwards is theirs, and changes while one looks.
        if !self.path().join("state").exists() {
            give_to_ordinary(self.path());
        }
        self.spawn_by(command);
    }

    /// The same, in the scratch directory and where a core may be of any size.
    pub(crate) fn spawn_where_cores_are_written(&mut self) {
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", "ulimit -c unlimited; exec \"$@\"", "sh", MCPSUP]);
        self.spawn_by(shell);
    }

    /// Starts the daemon by another program's command line, to which its own words are added.
    pub(crate) fn spawn_by(&mut self, mut command: Command) {
        assert!(self.daemon.is_none(), "one daemon at a time");
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.log_path()).unwrap();
        // By this its processes are told from others', see `seen`.
        command.current_dir(self.path());
        command.arg("--config").arg(self.path().join("mcpsup.toml")).arg("daemon");
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command.env("MCPSUP_LOG", "debug").env("RUST_BACKTRACE", "1");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.daemon = Some(command.spawn().unwrap());
    }

    pub(crate) fn daemon_pid(&self) -> i32 {
        i32::try_from(self.daemon.as_ref().expect("the daemon runs").id()).unwrap()
    }

    /// The daemon's own log so far.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    fn log_path(&self) -> PathBuf {
        self.path().join("daemon.log")
    }

    /// Kills the daemon with SIGKILL; its runs go on.
    pub(crate) fn kill_daemon(&mut self) {
        let mut daemon = self.daemon.take().expect("the daemon runs");
        daemon.kill().unwrap();
        daemon.wait().unwrap();
    }

    /// Waits until the daemon has ended by itself (a fail point, a signal).
    pub(crate) fn wait_for_end(&mut self) -> std::process::ExitStatus {
        let mut daemon = self.daemon.take().expect("the daemon runs");
        let begun = Instant::now();
        loop {
            if let Some(status) = daemon.try_wait().unwrap() {
                return status;
            }
            if begun.elapsed() > LIMIT {
                daemon.kill().unwrap();
                panic!("the daemon did not end; its log:\n{}", self.log());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Ends the daemon by a signal and waits for it.
    pub(crate) fn signal_daemon(&self, signal: nix::sys::signal::Signal) {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.daemon_pid()), signal).unwrap();
    }

    /// SIGTERM, and everything is gone.
    pub(crate) fn stop(&mut self) -> std::process::ExitStatus {
        self.signal_daemon(nix::sys::signal::Signal::SIGTERM);
        self.wait_for_end()
    }

    /// Runs the command line.
    pub(crate) fn cli(&self, args: &[&str]) -> Output {
        let mut command = Command::new(MCPSUP);
        command.arg("--config").arg(self.path().join("mcpsup.toml")).args(args);
        command.stdin(Stdio::null()).env("NO_COLOR", "1").output().unwrap()
    }

    /// Runs the command line, which must succeed, and gives its standard output.
    pub(crate) fn ok(&self, args: &[&str]) -> String {
        let output = self.cli(args);
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        assert!(
            output.status.success(),
            "mcpsup {args:?}: {}\n{out}\n{err}\ndaemon:\n{}",
            output.status,
            self.log()
        );
        out
    }

    pub(crate) fn status(&self) -> StatusReport {
        serde_json::from_str(&self.ok(&["status", "--json"])).unwrap()
    }

    /// The one instance of this user.
    pub(crate) fn instance(&self, user: &str) -> InstanceStatus {
        let all = self.status().instances;
        let mut found = all.into_iter().filter(|instance| instance.user.as_str() == user);
        found.next().unwrap_or_else(|| panic!("no instance of {user}; daemon:\n{}", self.log()))
    }

    /// Waits until the user's instance is in this state.
    pub(crate) fn until_state(&self, user: &str, state: StateName) -> InstanceStatus {
        self.until_some(&format!("{user} is {state}"), || {
            let all = self.status().instances;
            all.into_iter().find(|one| one.user.as_str() == user && one.state == state)
        })
    }

    /// Waits until every instance is up, and there are this many.
    pub(crate) fn until_all_up(&self, count: usize) -> Vec<InstanceStatus> {
        self.until_some(&format!("{count} are up"), || {
            let all = self.status().instances;
            (all.len() == count && all.iter().all(|one| one.state == StateName::Up)).then_some(all)
        })
    }

    pub(crate) fn until(&self, what: &str, mut is_so: impl FnMut() -> bool) {
        self.until_some(what, || is_so().then_some(()));
    }

    /// Waits for a predicate, and shows the daemon's log if it never comes true.
    pub(crate) fn until_some<T>(&self, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
        let begun = Instant::now();
        loop {
            if let Some(found) = look() {
                return found;
            }
            if begun.elapsed() > self.limit {
                let status = text(&self.cli(&["status", "-v"]).stdout);
                panic!("waited in vain until {what}\n{status}\ndaemon:\n{}", self.log());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// The header line with which we come in at a user's door where our uid says nothing: where the
    /// daemon is an ordinary user's, whose uid serves all of a test's users.
    pub(crate) fn header(&self, user: &str) -> String {
        if !self.needs_token(user) {
            return String::new();
        }
        let headers: serde_json::Value = serde_json::from_str(&self.ok(&["headers", user])).unwrap();
        format!("Authorization: {}\r\n", headers["Authorization"].as_str().unwrap())
    }

    /// Root needs none at doors of its own daemon.
    fn needs_token(&self, user: &str) -> bool {
        if !nix::unistd::geteuid().is_root() {
            return true;
        }
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.daemon_pid())).unwrap();
        let is_roots = status.lines().any(|line| line.split_whitespace().eq(["Uid:", "0", "0", "0", "0"]));
        let config = std::fs::read_to_string(self.path().join("mcpsup.toml")).unwrap();
        let asks_everybody = config.contains("access = \"token\"");
        if is_roots && !asks_everybody {
            return false;
        }
        let map: PortMap = serde_json::from_str(&self.ok(&["ports", "--json"])).unwrap();
        map.instances.iter().any(|one| one.user.as_str() == user && one.takes_token)
    }

    /// Calls a tool at a user's door with the example client; its text.
    pub(crate) fn call(&self, user: &str, tool: &str, arguments: &str) -> Result<String, String> {
        let url = self.instance(user).url.unwrap();
        let mut command = Command::new(example("call"));
        if self.needs_token(user) {
            command.env("MCP_HEADERS", self.ok(&["headers", user]));
        }
        let output = command.args([&url, tool, arguments]).output().unwrap();
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        if output.status.success() { Ok(out.trim_end().to_owned()) } else { Err(err) }
    }

    /// Every living process of this host's runs: their environment names its state directory.
    pub(crate) fn processes(&self) -> Vec<i32> {
        let state = self.path().join("state").into_os_string().into_encoded_bytes();
        let entries = std::fs::read_dir("/proc").unwrap().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        let is_ours = |pid: &i32| {
            let environ = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environ.windows(state.len()).any(|window| window == state)
        };
        pids.filter(|pid| {
            *pid != self.daemon.as_ref().map_or(0, |daemon| i32::try_from(daemon.id()).unwrap())
        })
        .filter(is_ours)
        .collect()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            daemon.kill().unwrap_or_default();
            daemon.wait().unwrap();
        }
        // Whoever gets the block of ports next must not find one of them still listening: nor one that is
        // about to be a server only now.
        let (killed, mut looks_at_nothing) = (Instant::now(), 0);
        while looks_at_nothing < 2 && killed.elapsed() < LIMIT {
            let seen = crate::seen::on(self).into_iter().map(|one| one.pid);
            let left: Vec<i32> = seen.chain(self.processes()).filter(|pid| is_alive(*pid)).collect();
            for pid in &left {
                nix::sys::signal::kill(nix::unistd::Pid::from_raw(*pid), nix::sys::signal::Signal::SIGKILL)
                    .unwrap_or_default();
            }
            looks_at_nothing = if left.is_empty() { looks_at_nothing + 1 } else { 0 };
            std::thread::sleep(Duration::from_millis(2));
        }
        // Their cgroups are empty as soon as the last of them is gone.
        let begun = Instant::now();
        let group = crate::seen::cgroup_of(self);
        while group.exists() && begun.elapsed() < Duration::from_secs(2) {
            for run in crate::seen::cgroups(self) {
                std::fs::remove_dir(group.join(run)).unwrap_or_default();
            }
            std::fs::remove_dir(&group).unwrap_or_default();
        }
    }
}

/// `[server.notes]`
pub(crate) fn notes() -> String {
    format!(
        "[server.notes]\ncommand = [{:?}]\ntransport = \"http\"\nport_env = \"NOTES_PORT\"\n\
         env = {{ NOTES_DIR = \"{{state_dir}}\" }}\n\
         [server.notes.credential.NOTES_TOKEN]\ndescription = \"a token\"\n",
        example("notes")
    )
}

/// `[server.unruly]`; `more` goes below it, so it may begin with keys and go on with tables.
pub(crate) fn unruly(more: &str) -> String {
    format!(
        "[server.unruly]\ncommand = [{:?}, \"--port\", \"{{port}}\"]\ntransport = \"http\"\nport_env = \"UNRULY_PORT\"\n{more}\n",
        example("unruly")
    )
}

/// Writes a file with a mode; a program as [`copy_program`] does, and in the place of a running one.
pub(crate) fn write(path: &Path, text: &str, mode: u32) {
    if mode & 0o111 == 0 {
        let mut options = std::fs::OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(mode).open(path).unwrap();
        return file.write_all(text.as_bytes()).unwrap();
    }
    let mut install = Command::new("install");
    install.args(["-m", &format!("{mode:o}"), "/dev/stdin"]).arg(path).stdin(Stdio::piped());
    let mut child = install.spawn().unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success(), "cannot write {}", path.display());
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Kills a process.
pub(crate) fn end(pid: u32) {
    let pid = nix::unistd::Pid::from_raw(i32::try_from(pid).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
}

/// Says so when it is dropped.
pub(crate) struct Done<'a>(pub(crate) &'a AtomicBool);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

pub(crate) fn is_alive(pid: i32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X'])))
}

/// Copies a program, by another one: while a file is open for writing in this process, a child that
/// another thread starts has it open too, and what is open for writing cannot be executed. Everybody may
/// execute the copy, whatever the umask was when it was built.
pub(crate) fn copy_program(from: &Path, to: &Path) {
    let status = Command::new("cp").arg(from).arg(to).status().unwrap();
    assert!(status.success(), "cannot copy {}", from.display());
    std::fs::set_permissions(to, std::fs::Permissions::from_mode(0o755)).unwrap();
}
