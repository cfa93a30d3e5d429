//! An ordinary user's daemon with groups of its own, as in their service manager: each run has a pid
//! namespace beside its cgroup, and what is between the daemon and the server changes nothing of what is
//! said of it and done with it.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use mcpsup::model::status::{InstanceStatus, StateName};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::host::{Host, LIMIT, MCPSUP, end, is_alive, unruly};
use crate::seen::{self, Kind, Watch};
use crate::tree::{ORDINARY, ORDINARYS_GROUP};

/// A user's part of the machine's cgroups, below the mount and a test's own: what `mcpsup.service` and
/// `mcpsup-runs.service` are in a service manager of theirs.
pub(crate) struct Unit(PathBuf);

impl Unit {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("mcpsup-it-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let unit = Self(seen::cgroup_mount().expect("a cgroup v2 mount").join(name));
        for dir in [unit.0.clone(), unit.0.join("mcpsup.service"), unit.runs()] {
            std::fs::create_dir(&dir).unwrap();
            for one in ["", "cgroup.procs", "cgroup.subtree_control", "cgroup.threads"] {
                std::os::unix::fs::chown(dir.join(one), Some(ORDINARY), Some(ORDINARYS_GROUP)).unwrap();
            }
        }
        unit
    }

    fn runs(&self) -> PathBuf {
        self.0.join("mcpsup-runs.service")
    }

    /// That of this daemon's runs, where it has made one.
    pub(crate) fn group(&self) -> Option<PathBuf> {
        let dirs = seen::names_in(&self.runs()).into_iter().map(|name| self.runs().join(name));
        dirs.filter(|path| path.is_dir()).max()
    }

    /// The names of the runs' groups.
    pub(crate) fn groups(&self) -> Vec<String> {
        let mut names = self.group().map_or_else(Vec::new, |group| seen::names_in(&group));
        names.retain(|name| name.starts_with("run-"));
        names
    }

    /// A program as the user, in their unit; words can be added. Of what is named first, each runs the next.
    pub(crate) fn command(&self, first: &[&str], program: &Path) -> Command {
        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", "echo $$ >\"$0\" && exec \"$@\""])
            .arg(self.0.join("mcpsup.service/cgroup.procs"));
        command.args(first).args(["setpriv", "--clear-groups"]);
        command.args([format!("--reuid={ORDINARY}"), format!("--regid={ORDINARYS_GROUP}")]);
        command.arg("--").arg(program);
        command
    }
}

impl Drop for Unit {
    fn drop(&mut self) {
        let begun = Instant::now();
        // Whatever was in them was ended by pid, and is still dying.
        while self.0.exists() && begun.elapsed() < LIMIT {
            remove(&self.0);
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

fn remove(group: &Path) {
    for below in seen::names_in(group).into_iter().map(|name| group.join(name)) {
        if below.is_dir() {
            remove(&below);
        }
    }
    std::fs::remove_dir(group).unwrap_or_default();
}

/// Such a user's host, if this test can make one; what is asked of the daemon, and of the server.
fn host(daemon: &str, server: &str) -> Option<Host> {
    if !seen::has_cgroups() {
        return None;
    }
    let mut host = Host::with_unruly("");
    host.unit = Some(Unit::new());
    // Her daemon is hers, and a test is root.
    let server = format!("access = \"token\"\n{server}");
    host.configure(&format!("[daemon]\n{daemon}\n{}", unruly(&server)));
    Some(host)
}

fn start(host: &mut Host) {
    host.start();
    host.until_state("alice", StateName::Up);
    assert_eq!(host.instance("alice").containment.as_deref(), Some("cgroup"));
}

/// The process that is the server, as the machine numbers it.
fn server(host: &Host) -> i32 {
    host.until_some("alice's server is seen", || seen::servers(host).get("alice").map(|pids| pids[0]))
}

/// What there is of alice's: her server, its children, and the first process of their namespace.
fn lives(host: &Host) -> Vec<i32> {
    seen::on(host).into_iter().filter(|one| one.user.is_some()).map(|one| one.pid).collect()
}

/// Waits until she is up by a later run, and what was is gone.
fn until_another(host: &Host, run: &InstanceStatus, old: &[i32]) -> InstanceStatus {
    let another = host.until_some("alice is up again", || {
        let now = host.instance("alice");
        (now.state == StateName::Up && now.run > run.run).then_some(now)
    });
    assert!(old.iter().all(|pid| !is_alive(*pid)));
    another
}

/// `mcpsup stop alice`, which ends when she is stopped.
fn stop(host: &Host) -> Child {
    let mut stop = Command::new(MCPSUP);
    stop.arg("--config").arg(host.path().join("mcpsup.toml")).args(["stop", "alice"]);
    stop.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// Waits for a line of the daemon's log that says how this run of hers ended.
fn until_ended(host: &Host, run: &InstanceStatus, how: &str) {
    let run = format!(" run={} ", run.run.unwrap());
    host.until(&format!("the log says {how} of{run}"), || {
        host.log().lines().any(|line| line.contains("exit=") && line.contains(&run) && line.contains(how))
    });
}

const CHILDREN: &str = "--child session --child setsid --child closed";

#[test]
fn a_server_between_whom_and_the_daemon_is_another_process_is_stopped_by_its_signal_or_killed() {
    for (switch, grace) in [("", "1h"), ("--ignore-term", "100ms")] {
        let server = format!("[server.unruly.stop]\ngrace = \"{grace}\"\n");
        let Some(mut host) = host("", &server) else { return };
        host.save("alice", &format!("UNRULY={switch} {CHILDREN}\n"));
        start(&mut host);
        host.until("it has three children", || seen::children(&host, "alice").len() == 3);
        let old = lives(&host);
        assert_eq!(old.len(), 5, "{:?}", seen::on(&host));

        let mut stop = stop(&host);

        host.until("the stop is over", || stop.try_wait().unwrap().is_some());
        host.until_state("alice", StateName::Stopped);
        assert!(old.iter().all(|pid| !is_alive(*pid)));
        assert_eq!(host.unit.as_ref().unwrap().groups(), Vec::<String>::new());
        assert!(host.stop().success());
        seen::until_nothing(&host);
    }
}

#[test]
fn how_a_server_below_another_process_ended_is_said_as_it_was() {
    let Some(mut host) = host("", "[server.unruly.restart]\nmax_wait = \"10ms\"\nfirst_wait = \"10ms\"\n")
    else {
        return;
    };
    host.save("alice", &format!("UNRULY={CHILDREN}\n"));
    start(&mut host);
    let watch = Watch::over(&host);
    let signal = |signal: Signal| move |host: &Host| kill(Pid::from_raw(server(host)), signal).unwrap();
    let crash = |status: &'static str| {
        move |host: &Host| drop(host.call("alice", "crash", &format!("{{\"status\": {status}}}")))
    };
    let leader = |host: &Host| end(host.instance("alice").pid.unwrap());
    let ways: [(&dyn Fn(&Host), &str, &str); 6] = [
        (&crash("3"), "status 3", "status 3"),
        // What shells would say of one that SIGKILL ended.
        (&crash("137"), "status 137", "status 137"),
        (&signal(Signal::SIGKILL), "killed by SIGKILL", "killed by SIGKILL"),
        (&signal(Signal::SIGABRT), "killed by SIGABRT", "killed by SIGABRT"),
        (&signal(Signal::SIGTERM), "killed by SIGTERM", "killed by SIGTERM"),
        // Of the first process itself nobody hears but its parent, and that was an earlier daemon.
        (&leader, "killed by SIGKILL", "how is not known"),
    ];
    for found in [false, true] {
        for (way, how, how_if_found) in ways {
            host.until("it has three children", || seen::children(&host, "alice").len() == 3);
            if found {
                host.kill_daemon();
                start(&mut host);
            }
            let (run, old) = (host.instance("alice"), lives(&host));
            way(&host);
            until_ended(&host, &run, if found { how_if_found } else { how });
            until_another(&host, &run, &old);
        }
    }
    watch.end();
    host.until("no zombie is left", || seen::zombies_of(host.daemon_pid()).is_empty());
}

#[test]
fn a_killed_daemon_finds_runs_below_another_process_again_and_stops_them_whole() {
    let Some(mut host) = host("", "[server.unruly.stop]\ngrace = \"100ms\"\n") else { return };
    host.save("alice", &format!("UNRULY=--ignore-term {CHILDREN}\n"));
    start(&mut host);
    host.until("it has three children", || seen::children(&host, "alice").len() == 3);
    let (before, old) = (host.instance("alice"), lives(&host));
    for _ in 0..2 {
        host.kill_daemon();
        start(&mut host);
        let now = host.instance("alice");
        assert_eq!((now.run, now.pid), (before.run, before.pid));
        assert_eq!(lives(&host), old);
        host.call("alice", "pid", "{}").unwrap();
    }

    host.ok(&["stop", "alice"]);

    assert!(old.iter().all(|pid| !is_alive(*pid)));
    assert!(host.stop().success());
    seen::until_nothing(&host);
}

#[test]
fn a_server_that_was_found_again_is_asked_to_end_once() {
    if !seen::has_cgroups() {
        return;
    }
    // It counts, and is not asked by another signal before a minute is over.
    let counts = "trap 'echo asked >>$HOME/asked' TERM; echo >$HOME/ready; while :; do sleep 0.02; done";
    let mut host = Host::with_unruly("");
    host.unit = Some(Unit::new());
    host.configure(&format!(
        "[server.counts]\ncommand = [\"/bin/sh\", \"-c\", {counts:?}]\ntransport = \"http\"\nport_env = \"PORT\"\n\
         [server.counts.ready]\ntimeout = \"10m\"\n[server.counts.stop]\ngrace = \"2s\"\n"
    ));
    host.save("alice", "");
    host.start();
    let home = host.path().join("state/instances/alice/counts");
    host.until("it has begun", || home.join("ready").exists());
    host.kill_daemon();
    host.start();

    host.ok(&["stop", "alice"]);

    assert_eq!(std::fs::read_to_string(home.join("asked")).unwrap(), "asked\n");
}

#[test]
fn one_that_is_stopped_before_it_knows_what_to_become_hears_of_it() {
    for is_delegated in [true, false] {
        if !seen::has_cgroups() {
            return;
        }
        let mut host = Host::with_unruly("");
        host.unit = is_delegated.then(Unit::new);
        let containment = if is_delegated { "cgroup" } else { "pid-namespace" };
        host.configure(&format!(
            "[daemon]\ncontainment = \"{containment}\"\n{}",
            unruly("[server.unruly.stop]\ngrace = \"1h\"\n")
        ));
        host.start();
        let is_launcher = |one: &seen::Seen| one.kind == Kind::Launcher && one.parent == host.daemon_pid();
        let launcher = host.until_some("there is a launcher", || {
            seen::on(&host).into_iter().find(is_launcher).map(|one| Pid::from_raw(one.pid))
        });
        kill(launcher, Signal::SIGSTOP).unwrap();
        host.save("alice", "UNRULY=\n");
        host.until_state("alice", StateName::Starting);
        let mut stop = stop(&host);
        host.until_state("alice", StateName::Stopping);

        kill(launcher, Signal::SIGCONT).unwrap();

        host.until("the stop is over", || stop.try_wait().unwrap().is_some());
        host.until_state("alice", StateName::Stopped);
        host.until("nothing of hers lives", || lives(&host).is_empty());
    }
}

#[test]
fn of_a_server_that_ended_while_there_was_no_daemon_it_is_known_how() {
    let Some(mut host) = host("", "") else { return };
    host.save("alice", "");
    start(&mut host);
    let run = host.instance("alice");
    let leader = i32::try_from(run.pid.unwrap()).unwrap();
    host.kill_daemon();
    kill(Pid::from_raw(server(&host)), Signal::SIGKILL).unwrap();
    host.until("it is gone", || !is_alive(leader));
    start(&mut host);
    until_ended(&host, &run, "killed by SIGKILL");
    until_another(&host, &run, &[leader]);
}
