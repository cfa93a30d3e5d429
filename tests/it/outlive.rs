//! Runs outlive the daemon: whoever ends it, and whatever happens meanwhile, the next one finds
//! them again, starts nobody twice and touches nothing that is not its own.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use mcpsup::model::status::StateName;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::host::{Host, end, example, is_alive, unruly};
use crate::seen::{self, Watch};

const MANY: usize = 50;

fn name(number: usize) -> String {
    format!("u{number:02}")
}

fn fifty() -> Host {
    let mut host = Host::with_unruly("");
    for number in 0..MANY {
        host.save(&name(number), "UNRULY=\n");
    }
    host.start();
    host.until_all_up(MANY);
    host
}

fn pids(host: &Host) -> BTreeMap<String, u32> {
    host.until_all_up(MANY).into_iter().map(|one| (one.user.to_string(), one.pid.unwrap())).collect()
}

/// Each user's one server is the one that `status` names.
fn assert_no_duplicate(host: &Host, pids: &BTreeMap<String, u32>) {
    let servers = seen::servers(host);
    let expected: BTreeMap<String, Vec<i32>> =
        pids.iter().map(|(user, pid)| (user.clone(), vec![i32::try_from(*pid).unwrap()])).collect();
    assert_eq!(servers, expected);
}

fn assert_answers(host: &Host, user: &str, pid: u32) {
    assert_eq!(host.call(user, "pid", "{}"), Ok(pid.to_string()), "{user}");
}

#[test]
fn a_killed_daemon_finds_its_fifty_runs_again() {
    let mut host = fifty();
    let before = pids(&host);
    let watch = Watch::over(&host);

    host.kill_daemon();
    host.start();

    assert_eq!(pids(&host), before);
    assert_no_duplicate(&host, &before);
    for user in ["u00", "u25", "u49"] {
        assert_answers(&host, user, before[user]);
    }
    assert!((0..MANY).all(|number| seen::starts(&host, &name(number)) == 1));

    host.signal_daemon(Signal::SIGUSR2);
    assert!(host.wait_for_end().success());
    assert_no_duplicate(&host, &before);
    host.start();

    assert_eq!(pids(&host), before);
    assert_no_duplicate(&host, &before);
    assert_answers(&host, "u07", before["u07"]);
    watch.end();

    assert!(host.stop().success());
    seen::until_nothing(&host);
}

#[test]
fn what_changed_while_no_daemon_was_there_is_done_once_and_concerns_nobody_else() {
    let mut host = fifty();
    let before = pids(&host);
    let watch = Watch::over(&host);

    host.kill_daemon();
    host.save("u01", "UNRULY=\nMORE=1\n");
    host.delete("u02");
    host.save("u03", "no assignment\n");
    host.start();

    let changed = host.until_some("u01 is another", || {
        let one = host.instance("u01");
        (one.state == StateName::Up && one.pid != Some(before["u01"])).then_some(one)
    });
    host.until("u02 is gone", || host.instance("u02").pid.is_none());
    let broken = host.until_state("u03", StateName::Up);
    assert_eq!(broken.pid, Some(before["u03"]));
    assert!(broken.note.unwrap().contains("env.d/u03.env:1"));
    assert_answers(&host, "u03", before["u03"]);
    let mut expected = before.clone();
    expected.insert("u01".into(), changed.pid.unwrap());
    expected.remove("u02");
    host.until("everybody is up again", || {
        host.status().instances.iter().filter(|one| one.state == StateName::Up).count() == MANY - 1
    });
    assert_no_duplicate(&host, &expected);
    assert_eq!(
        (seen::starts(&host, "u01"), seen::starts(&host, "u02"), seen::starts(&host, "u03")),
        (2, 1, 1)
    );

    // Not started again while nobody knows how.
    end(before["u03"]);
    host.until_state("u03", StateName::Refused);
    expected.remove("u03");
    assert_no_duplicate(&host, &expected);
    host.save("u03", "UNRULY=\n");
    let mended = host.until_state("u03", StateName::Up);
    expected.insert("u03".into(), mended.pid.unwrap());
    assert_no_duplicate(&host, &expected);
    watch.end();
}

#[test]
fn a_configuration_that_broke_while_no_daemon_was_there_touches_no_run() {
    let mut host = Host::with_unruly("");
    let users = ["alice", "bob", "carol"];
    users.iter().for_each(|user| host.save(user, "UNRULY=\n"));
    host.start();
    let before: BTreeMap<String, u32> =
        host.until_all_up(3).into_iter().map(|one| (one.user.to_string(), one.pid.unwrap())).collect();

    host.kill_daemon();
    host.configure("[server.unruly\n");
    host.start();

    host.until_all_up(3);
    assert_no_duplicate(&host, &before);
    assert!(!host.status().problems.is_empty());
    users.iter().for_each(|user| assert_answers(&host, user, before[*user]));

    end(before["alice"]);
    host.until("alice is down", || host.instance("alice").pid.is_none());
    assert_answers(&host, "bob", before["bob"]);

    host.configure(&unruly(""));
    host.signal_daemon(Signal::SIGHUP);
    let alice = host.until_state("alice", StateName::Up);
    let mut expected = before;
    expected.insert("alice".into(), alice.pid.unwrap());
    host.until_all_up(3);
    assert_no_duplicate(&host, &expected);
}

#[test]
fn a_configuration_that_broke_before_the_ports_were_kept_touches_no_run() {
    let mut host = Host::with_unruly("");
    host.save("alice", "UNRULY=\n");
    host.start();
    let before = host.until_state("alice", StateName::Up);

    host.kill_daemon();
    // As if it had died a moment earlier, or the disk had been full.
    std::fs::remove_file(host.path().join("state/ports.json")).unwrap_or_default();
    host.configure("[server.unruly\n");
    host.start();

    let found = host.instance("alice");
    assert_eq!((found.state, found.pid), (StateName::Up, before.pid));

    host.configure(&unruly(""));
    host.ok(&["reload"]);
    host.until("she has a port again", || host.instance("alice").port.is_some());
    assert_eq!(host.until_state("alice", StateName::Up).pid, before.pid);
    assert_answers(&host, "alice", before.pid.unwrap());
}

#[test]
fn a_daemon_that_is_started_while_another_ends_waits_for_it() {
    let mut host = Host::with_notes();
    host.start();
    // It was told to end, and has not come to it.
    let old = Pid::from_raw(host.daemon_pid());
    kill(old, Signal::SIGSTOP).unwrap();
    kill(old, Signal::SIGUSR2).unwrap();
    let mut ends = host.daemon.take().unwrap();
    host.spawn();
    host.until("it waits", || host.log().contains("another daemon is running here"));
    kill(old, Signal::SIGCONT).unwrap();
    assert!(ends.wait().unwrap().success());
    host.until("the next one answers", || host.cli(&["status"]).status.success());
}

/// Containments this test can try here, as lines of `[daemon]`.
fn containments() -> Vec<&'static str> {
    let mut all = vec!["session"];
    if seen::has_cgroups() {
        all.push("cgroup");
    }
    all
}

fn contained(containment: &str) -> Host {
    let host = Host::with_unruly("");
    host.configure(&format!("[daemon]\ncontainment = \"{containment}\"\n{}", unruly("")));
    host
}

#[test]
fn what_a_run_left_behind_while_no_daemon_was_there_is_swept_before_it_is_started_once() {
    for containment in containments() {
        let mut host = contained(containment);
        host.save("alice", "UNRULY=--child session --child setsid --child closed\n");
        host.start();
        let before = host.until_state("alice", StateName::Up);
        host.until("it has children", || seen::children(&host, "alice").len() == 3);
        let old = seen::children(&host, "alice");
        let watch = Watch::over(&host);

        host.kill_daemon();
        end(before.pid.unwrap());
        host.until("its leader is gone", || seen::servers(&host).is_empty());
        assert_eq!(seen::children(&host, "alice"), old, "nobody was there to sweep");
        host.start();

        let after = host.until_state("alice", StateName::Up);
        watch.end();
        assert_ne!(after.pid, before.pid);
        assert!(old.iter().all(|pid| !is_alive(*pid)), "{containment}");
        assert_eq!(seen::starts(&host, "alice"), 2);
        assert_eq!(seen::names_in(&host.path().join("run/runs")), [after.run.unwrap().to_string()]);
    }
}

#[test]
fn a_run_that_was_found_says_what_holds_it_together_and_not_what_would_hold_a_new_one() {
    if !seen::has_cgroups() {
        return;
    }
    let mut host = contained("session");
    host.save("alice", "UNRULY=\n");
    host.start();
    let before = host.until_state("alice", StateName::Up);

    host.kill_daemon();
    host.configure(&format!("[daemon]\ncontainment = \"cgroup\"\n{}", unruly("")));
    host.start();

    let found = host.until_state("alice", StateName::Up);
    assert_eq!(found.pid, before.pid);
    assert_eq!(found.containment.as_deref(), Some("session (best effort)"));
    host.ok(&["restart", "alice"]);
    assert_eq!(host.instance("alice").containment.as_deref(), Some("cgroup"));
}

/// A process that has nothing to do with us: first of its session, with a child.
struct Stranger(Child);

impl Stranger {
    fn start() -> Self {
        let mut command = Command::new("setsid");
        command.args(["sh", "-c", "sleep 1000 & wait"]).stdin(Stdio::null());
        Self(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }

    fn lives(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        if let Some(child) = child_of(self.0.id()) {
            kill(Pid::from_raw(child), Signal::SIGKILL).unwrap_or_default();
        }
        self.0.kill().unwrap_or_default();
        self.0.wait().unwrap();
    }
}

fn child_of(pid: u32) -> Option<i32> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    text.split_whitespace().next()?.parse().ok()
}

/// The daemon is killed, alice's process as well, and her record is changed to speak of `pid`.
fn forge(host: &mut Host, forge: impl FnOnce(&mut serde_json::Value)) {
    let alice = host.until_state("alice", StateName::Up);
    host.kill_daemon();
    end(alice.pid.unwrap());
    host.until("alice's process is gone", || seen::servers(host).is_empty());
    let path = host.path().join("run/runs").join(alice.run.unwrap().to_string()).join("record");
    let mut record: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    forge(&mut record["identity"]);
    crate::host::write(&path, &record.to_string(), 0o600);
}

fn a_record_is_not_believed(containment: &str, change: impl FnOnce(&mut serde_json::Value)) {
    let mut stranger = Stranger::start();
    let mut host = contained(containment);
    host.save("alice", "UNRULY=\n");
    host.start();
    host.until("the stranger has a child", || child_of(stranger.0.id()).is_some());
    let child = child_of(stranger.0.id()).unwrap();
    forge(&mut host, |identity| {
        identity["pid"] = stranger.0.id().into();
        change(identity);
    });

    host.start();

    let alice = host.until_state("alice", StateName::Up);
    assert_ne!(alice.pid, Some(stranger.0.id()));
    assert_eq!(seen::names_in(&host.path().join("run/runs")), [alice.run.unwrap().to_string()]);
    host.ok(&["stop", "alice"]);
    assert!(stranger.lives());
    assert!(is_alive(child));
    assert!(host.stop().success());
    assert!(stranger.lives());
    assert!(is_alive(child));
}

#[test]
fn a_process_that_has_the_pid_of_a_record_and_is_another_is_never_signalled() {
    for containment in containments() {
        a_record_is_not_believed(containment, |_| {});
    }
}

#[test]
fn a_pid_that_comes_round_is_nobody_we_know() {
    if !seen::is_root() {
        return;
    }
    for containment in containments() {
        let mut host = contained(containment);
        host.save("alice", "UNRULY=\n");
        host.start();
        let before = host.until_state("alice", StateName::Up);
        let pid = before.pid.unwrap();
        host.kill_daemon();
        end(pid);
        let mut command = Command::new(example("intruder"));
        command.args(["--come-round", &pid.to_string()]);
        // Each try that fails says so.
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        // The kernel gives root any pid that is free; a moment earlier or later that may be another test's.
        let mut stranger = host.until_some("the pid comes round", || {
            let mut stranger = command.spawn().unwrap();
            let mut said = String::new();
            BufReader::new(stranger.stdout.take().unwrap()).read_line(&mut said).unwrap();
            if said.trim() == pid.to_string() {
                return Some(stranger);
            }
            stranger.wait().unwrap();
            None
        });

        host.start();

        let after = host.until_state("alice", StateName::Up);
        assert_ne!(after.pid, Some(pid));
        assert_ne!(after.run, before.run);
        host.ok(&["restart", "alice"]);
        assert!(host.stop().success());
        assert!(is_alive(i32::try_from(pid).unwrap()), "{containment}: it was signalled");
        drop(stranger.stdin.take());
        assert!(stranger.wait().unwrap().success());
    }
}

#[test]
fn a_record_of_another_boot_is_not_believed() {
    for containment in containments() {
        a_record_is_not_believed(containment, |identity| identity["boot"] = "another".into());
    }
}

#[test]
fn a_record_that_was_left_over_beside_the_present_one_is_removed_and_the_run_goes_on() {
    for containment in containments() {
        let mut host = contained(containment);
        host.save("alice", "UNRULY=\n");
        host.start();
        let alice = host.until_state("alice", StateName::Up);
        host.kill_daemon();
        let runs = host.path().join("run/runs");
        let text = std::fs::read(runs.join(alice.run.unwrap().to_string()).join("record")).unwrap();
        let mut record: serde_json::Value = serde_json::from_slice(&text).unwrap();
        record["run"] = 0.into();
        record["identity"]["start_time"] = 1.into();
        std::fs::create_dir(runs.join("0")).unwrap();
        crate::host::write(&runs.join("0/record"), &record.to_string(), 0o600);

        host.start();

        host.until("only hers is left", || seen::names_in(&runs) == [alice.run.unwrap().to_string()]);
        let now = host.until_state("alice", StateName::Up);
        assert_eq!((now.pid, now.run), (alice.pid, alice.run));
        assert_answers(&host, "alice", alice.pid.unwrap());
    }
}

#[test]
fn a_launcher_that_hangs_is_replaced_and_who_waits_for_it_can_be_stopped() {
    let mut host = Host::with_unruly("[server.unruly.stop]\ngrace = \"10ms\"\n");
    host.save("alice", "UNRULY=\n");
    host.start();
    let alice = host.until_state("alice", StateName::Up);
    let launchers = || {
        let all =
            seen::on(&host).into_iter().filter(|one| one.kind == seen::Kind::Launcher && one.user.is_none());
        all.map(|one| one.pid).collect::<Vec<i32>>()
    };
    let old = launchers()[0];
    kill(Pid::from_raw(old), Signal::SIGSTOP).unwrap();
    host.save("bob", "UNRULY=\n");
    host.until_state("bob", StateName::Starting);

    host.ok(&["stop", "bob"]);

    host.until_state("bob", StateName::Stopped);
    // Nobody waits for it now, and it is found out all the same.
    host.until("it is replaced", || !is_alive(old));
    host.ok(&["start", "bob"]);
    host.until_state("bob", StateName::Up);
    host.until("there is one", || launchers().len() == 1);

    kill(Pid::from_raw(launchers()[0]), Signal::SIGSTOP).unwrap();
    host.save("carol", "UNRULY=\n");
    host.save("dave", "UNRULY=\n");

    host.until_all_up(4);
    assert_eq!(host.instance("alice").pid, alice.pid);
    assert_no_duplicate(&host, &{
        let all = host.until_all_up(4).into_iter();
        all.map(|one| (one.user.to_string(), one.pid.unwrap())).collect()
    });
    assert!(seen::starts(&host, "carol") <= 3, "{}", seen::starts(&host, "carol"));
    host.until("no zombie is left", || seen::zombies_of(host.daemon_pid()).is_empty());
}

#[test]
fn of_two_runs_of_one_instance_the_older_is_gone_before_anything_is_started() {
    for containment in containments() {
        let mut host = contained(containment);
        host.save("alice", "UNRULY=--ignore-term --child session --child setsid\n");
        host.start();
        let older = host.until_state("alice", StateName::Up);
        host.until("it has children", || seen::children(&host, "alice").len() == 2);
        // A daemon that does not find the record starts her once more, on another port.
        host.kill_daemon();
        let runs = host.path().join("run/runs");
        let (there, aside) = (runs.join(older.run.unwrap().to_string()), host.path().join("aside"));
        std::fs::rename(&there, &aside).unwrap();
        host.start();
        let newer = host.until_some("there are two", || {
            let alice = host.instance("alice");
            (alice.state == StateName::Up && alice.pid != older.pid).then_some(alice)
        });
        host.kill_daemon();
        std::fs::rename(&aside, &there).unwrap();
        end(newer.pid.unwrap());
        host.until("the newer is dead", || !is_alive(i32::try_from(newer.pid.unwrap()).unwrap()));
        let old = seen::children(&host, "alice");
        let watch = Watch::over(&host);

        host.start();

        let third = host.until_some("she is up once more", || {
            let alice = host.instance("alice");
            (alice.state == StateName::Up && alice.run > newer.run).then_some(alice)
        });
        watch.end();
        assert!(!is_alive(i32::try_from(older.pid.unwrap()).unwrap()), "{containment}");
        assert!(old.iter().all(|pid| !is_alive(*pid)), "{containment}");
        assert_eq!(seen::names_in(&runs), [third.run.unwrap().to_string()], "{containment}");
    }
}

#[test]
fn a_daemon_whose_launcher_was_killed_starts_another_and_its_runs_go_on() {
    let mut host = Host::with_unruly("");
    host.save("alice", "UNRULY=\n");
    host.start();
    let alice = host.until_state("alice", StateName::Up);
    let launcher =
        || seen::on(&host).into_iter().find(|one| one.kind == seen::Kind::Launcher && one.user.is_none());
    let old = launcher().unwrap().pid;
    kill(Pid::from_raw(old), Signal::SIGKILL).unwrap();
    host.until("it is gone", || launcher().is_none());

    host.save("bob", "UNRULY=\n");

    host.until_state("bob", StateName::Up);
    assert_eq!(host.instance("alice").pid, alice.pid);
    host.until("no zombie is left", || seen::zombies_of(host.daemon_pid()).is_empty());
}
