//! `mcpsup doctor` on set-ups that are broken on purpose: each is broken, named with the right mend,
//! mended as told (by the very command, where it is one), and then found well.
//!
//! [`cases`] is the list. What stands for another program of a host there (`npx`, `systemctl`,
//! `systemd-creds`) is called so.

mod cases;
mod rights;

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::host::{Host, LIMIT, text};
use crate::seen;

/// A credential that the notes server takes.
pub(crate) const GOOD: &str = "nt_0123456789abcdef";

/// What a finding says of its mend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Mend {
    Run(String),
    Edit(String, String),
    Do(String),
}

/// One finding, as `--json` has it.
#[derive(Debug, Clone)]
pub(crate) struct Finding {
    pub(crate) code: String,
    pub(crate) is_wrong: bool,
    pub(crate) user: Option<String>,
    pub(crate) wrong: String,
    pub(crate) mend: Mend,
}

impl Finding {
    fn of(value: &Value) -> Self {
        let word = |name: &str| value[name].as_str().map(str::to_owned);
        let mend = &value["mend"];
        let mend = if let Some(command) = mend["run"].as_str() {
            Mend::Run(command.to_owned())
        } else if let Some(file) = mend["edit"]["file"].as_str() {
            Mend::Edit(file.to_owned(), mend["edit"]["so"].as_str().unwrap().to_owned())
        } else {
            Mend::Do(mend["do"].as_str().unwrap().to_owned())
        };
        Self {
            code: word("code").unwrap(),
            is_wrong: word("weight").unwrap() == "wrong",
            user: word("user"),
            wrong: word("wrong").unwrap(),
            mend,
        }
    }
}

/// A host with a doctor.
pub(crate) struct World {
    pub(crate) host: Host,
    /// Words before `mcpsup doctor`: `unshare`, `setpriv`.
    pub(crate) around: Vec<String>,
    /// What a command that was told left running: a daemon in the foreground.
    running: Vec<Child>,
    /// Whatever has to live as long as the case: a listener.
    pub(crate) kept: Vec<Box<dyn std::any::Any>>,
    /// A directory that commands cannot read, whatever its modes say.
    pub(crate) denied: Option<PathBuf>,
    /// Words after `doctor`.
    pub(crate) asks: &'static [&'static str],
    /// With `--config`; else the host's own places are meant.
    pub(crate) is_named: bool,
}

impl World {
    pub(crate) fn new(servers: &str) -> Self {
        let host = Host::new(servers);
        for dir in ["tools", "home", "work"] {
            std::fs::create_dir(host.path().join(dir)).unwrap();
        }
        let mcpsup = host.path().join("tools/mcpsup");
        std::os::unix::fs::symlink(crate::host::program(), mcpsup).unwrap();
        Self {
            host,
            around: Vec::new(),
            running: Vec::new(),
            kept: Vec::new(),
            denied: None,
            asks: &[],
            is_named: true,
        }
    }

    pub(crate) fn at(&self, path: &str) -> PathBuf {
        self.host.path().join(path)
    }

    /// The text of a path in the scratch directory.
    pub(crate) fn shown(&self, path: &str) -> String {
        self.at(path).display().to_string()
    }

    /// In the scratch directory, with its tools first and nobody's home.
    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let all: Vec<&str> = self.around.iter().map(String::as_str).chain(words.iter().copied()).collect();
        let mut command = Command::new(all[0]);
        let path = format!("{}:{}", self.shown("tools"), std::env::var("PATH").unwrap());
        command.args(&all[1..]).current_dir(self.at("work")).stdin(Stdio::null());
        command.env("PATH", path).env("HOME", self.at("home")).env("NO_COLOR", "1");
        command
            .envs(self.host.env.iter().filter(|(name, _)| name != "PATH").map(|(name, value)| (name, value)));
        command.env_remove("XDG_CONFIG_HOME");
        command
    }

    pub(crate) fn doctor(&self, more: &[&str]) -> (i32, Vec<Finding>) {
        let config = self.shown("mcpsup.toml");
        let named: &[&str] = if self.is_named { &["--config", &config] } else { &[] };
        let words = [&["mcpsup"], named, &["doctor", "--json"], more].concat();
        let mut command = self.command(&words);
        let output = match &self.denied {
            Some(dir) => landlocked(dir, move || command.output()).unwrap(),
            None => command.output().unwrap(),
        };
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        let told: Value = serde_json::from_str(&out).unwrap_or_else(|_| {
            panic!("{words:?}: {}\n{out}\n{err}\ndaemon:\n{}", output.status, self.host.log())
        });
        let findings = told["findings"].as_array().unwrap().iter().map(Finding::of).collect();
        (output.status.code().unwrap(), findings)
    }

    /// What has to be mended, but for `aside`.
    pub(crate) fn wrong(&self, aside: &str) -> Vec<Finding> {
        let (status, findings) = self.doctor(self.asks);
        let wrong: Vec<Finding> = findings.into_iter().filter(|finding| finding.is_wrong).collect();
        assert_eq!(status, i32::from(!wrong.is_empty()), "{wrong:#?}");
        wrong.into_iter().filter(|finding| finding.code != aside).collect()
    }

    /// Does what a finding says. A credential that is asked for is given; a daemon in the foreground goes
    /// on beside.
    pub(crate) fn obey(&mut self, command: &str) {
        let log = std::fs::File::create(self.at("told.log")).unwrap();
        let mut shell = self.command(&["/bin/sh", "-c", command]);
        shell.stdin(Stdio::piped()).stdout(log.try_clone().unwrap()).stderr(log);
        let mut child = shell.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        std::io::Write::write_all(&mut stdin, GOOD.as_bytes()).unwrap_or_default();
        drop(stdin);
        if command.ends_with(" daemon") {
            self.running.push(child);
            return;
        }
        let status = child.wait().unwrap();
        let said = std::fs::read_to_string(self.at("told.log")).unwrap();
        assert!(status.success(), "{command}: {status}\n{said}");
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for mut child in self.running.drain(..) {
            // The shell may have become the daemon, or have it for a child: it is asked to end by its lock.
            let pid = std::fs::read_to_string(self.host.path().join("state/lock")).unwrap_or_default();
            if let Ok(pid) = pid.trim().parse() {
                let ended = nix::sys::signal::kill(
                    nix::unistd::Pid::from_raw(pid),
                    nix::sys::signal::Signal::SIGTERM,
                );
                ended.unwrap_or_default();
            } else {
                child.kill().unwrap_or_default();
            }
            child.wait().unwrap();
        }
    }
}

/// How a case is mended.
pub(crate) enum How {
    /// By running what was told.
    Obey,
    /// By doing what was told with one's hands: the told mend is given.
    Hands(fn(&mut World, &Mend)),
}

/// One broken set-up.
pub(crate) struct Case {
    /// What it is, for people.
    pub(crate) name: &'static str,
    /// A daemon runs while doctor looks.
    pub(crate) runs: bool,
    /// Words after `doctor`: whose client's files are looked at.
    pub(crate) asks: &'static [&'static str],
    /// It takes root to be broken so.
    pub(crate) root: bool,
    /// mcpsup.toml's servers.
    pub(crate) servers: fn() -> String,
    /// Breaks it: before the daemon is started, or while it runs.
    /// False where it cannot be broken like this.
    pub(crate) breaks: fn(&mut World) -> bool,
    /// While it is broken the daemon is started (or started again), so that it meets it.
    pub(crate) again: bool,
    /// The kind that is found, and what it says.
    pub(crate) code: &'static str,
    pub(crate) wrong: &'static str,
    /// What the mend says: `run`, `edit` or `do`, and a part of it.
    pub(crate) mend: (&'static str, &'static str),
    pub(crate) how: How,
}

/// Drives one case: well, broken, named, mended, well.
fn drive(case: &Case) {
    let is_root = seen::is_root();
    if case.root && !is_root {
        return;
    }
    let mut world = World::new(&(case.servers)());
    world.asks = case.asks;
    world.host.save("alice", &format!("NOTES_TOKEN={GOOD}\n"));
    // While nothing runs, that is told as well; here it is asked for what is told beside.
    let aside = if case.runs { "" } else { "daemon" };
    if case.runs && !case.again {
        world.host.start();
        world.host.until_all_up(1);
        assert_eq!(said(&world.wrong(aside)), Vec::<String>::new(), "{}: well before", case.name);
    }
    if !(case.breaks)(&mut world) {
        eprintln!("skipped: {}", case.name);
        return;
    }
    if case.again {
        world.host.start();
    }
    let aside = if case.code == "daemon" { "" } else { aside };
    let expected = case.wrong.replace("DIR", &world.host.path().display().to_string());
    // One thing is wrong, and nothing else.
    let is_it = |one: &Finding| one.code == case.code && one.wrong.contains(&*expected);
    let found = until(&world, case, |wrong| matches!(wrong, [one] if is_it(one)), aside);
    let mend = found[0].mend.clone();
    let (kind, told) = match &mend {
        Mend::Run(command) => ("run", command.clone()),
        Mend::Edit(file, so) => ("edit", format!("{file}: {so}")),
        Mend::Do(what) => ("do", what.clone()),
    };
    let (its_kind, part) = case.mend;
    let part = part.replace("DIR", &world.host.path().display().to_string());
    assert_eq!(kind, its_kind, "{}: {told}", case.name);
    let part = part.as_str();
    assert!(told.contains(part), "{}: told {told:?}, and not {part:?}", case.name);
    match case.how {
        How::Obey => world.obey(&told),
        How::Hands(hands) => hands(&mut world, &mend),
    }
    until(&world, case, <[Finding]>::is_empty, aside);
}

fn said(findings: &[Finding]) -> Vec<String> {
    findings.iter().map(|one| format!("{}: {} ({:?})", one.code, one.wrong, one.mend)).collect()
}

/// Asks again until it says so: a daemon sees a file a moment after it is saved.
fn until(world: &World, case: &Case, is_so: impl Fn(&[Finding]) -> bool, aside: &str) -> Vec<Finding> {
    let begun = std::time::Instant::now();
    loop {
        let wrong = world.wrong(aside);
        if is_so(&wrong) {
            return wrong;
        }
        assert!(
            begun.elapsed() < LIMIT,
            "{}: waited in vain; it says {:#?}\ndaemon:\n{}",
            case.name,
            said(&wrong),
            world.host.log()
        );
        std::thread::sleep(std::time::Duration::from_millis(30));
    }
}

/// Has `run` done where nothing in `closed` can be read, as a security module would have it: Landlock
/// holds for this one thread and what it starts.
fn landlocked<T: Send>(closed: &std::path::Path, run: impl FnOnce() -> T + Send) -> T {
    use landlock::{AccessFs, PathBeneath, PathFd, Ruleset, RulesetAttr, RulesetCreatedAttr};
    let beside = |dir: &std::path::Path, but: &std::path::Path| {
        let all = std::fs::read_dir(dir).unwrap().flatten().map(|entry| entry.path());
        all.filter(|path| path != but).collect::<Vec<PathBuf>>()
    };
    // A rule for everything that is beside the way to it: there is none that takes a right away.
    let way: Vec<&std::path::Path> = closed.ancestors().collect();
    let open: Vec<PathBuf> = way.windows(2).flat_map(|pair| beside(pair[1], pair[0])).collect();
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let mut rules = Ruleset::default().handle_access(AccessFs::ReadFile).unwrap().create().unwrap();
            for path in &open {
                if let Ok(fd) = PathFd::new(path) {
                    rules = rules.add_rule(PathBeneath::new(fd, AccessFs::ReadFile)).unwrap();
                }
            }
            rules.restrict_self().unwrap();
            run()
        });
        thread.join().unwrap()
    })
}

/// True if Landlock can say no here.
fn denies_here(world: &World) -> bool {
    let file = world.at("denied/server");
    landlocked(&world.at("denied"), || std::fs::read(file).is_err())
}
