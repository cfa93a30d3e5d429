//! The daemon killed at every step of a spawn and of a stop: whatever the step, the next daemon
//! has everybody run exactly once, and nothing is left of what was half done.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};

use mcpsup::model::status::StateName;
use nix::sys::signal::Signal;
use serde_json::json;

use crate::delegated::Unit;
use crate::host::{Host, MCPSUP, end, unruly};
use crate::seen::{self, Kind, Watch};
use crate::stdio::{Client, INITIALIZE, with_lines};
use crate::wire;

const SPAWN: [&str; 9] = [
    "spawn.asked",
    "spawn.reserved",
    "spawn.intended",
    "spawn.grouped",
    "spawn.requested",
    "spawn.started",
    "spawn.recorded",
    "spawn.ordered",
    "spawn.launched",
];
const STOP: [&str; 7] = [
    "stop.signalled",
    "stop.exited",
    "stop.killed",
    "stop.swept",
    "stop.reaped",
    "stop.ungrouped",
    "stop.removed",
];
const SHOW: [&str; 2] = ["up.noted", "map.written"];
const PORTS: [&str; 2] = ["ports.saving", "ports.saved"];
const FOUND_DEAD: [&str; 5] = ["adopt.found", "stop.killed", "adopt.swept", "stop.ungrouped", "stop.removed"];
const SESSION: [&str; 1] = ["session.remembered"];
const HOLD: [&str; 1] = ["hold.written"];

#[test]
fn every_fail_point_in_the_source_is_tried() {
    let tried: BTreeSet<String> = [&SPAWN[..], &STOP, &SHOW, &PORTS, &FOUND_DEAD, &SESSION, &HOLD]
        .concat()
        .into_iter()
        .map(str::to_owned)
        .collect();
    assert_eq!(tried, in_source(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src")));
}

#[test]
fn a_disk_that_does_not_take_what_one_user_stops_holds_up_nobody_else() {
    let mut host = Host::with_two_users();
    host.kill_daemon();
    host.env = vec![("MCPSUP_FAILPOINT".into(), "hold.written=stall".into())];
    host.start();
    let before = host.until_all_up(2);
    let mut stop = Command::new(MCPSUP);
    stop.arg("--config").arg(host.path().join("mcpsup.toml")).args(["stop", "alice"]);
    let mut stop = stop.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    host.until("its hold is written", || host.path().join("state/holds.json").exists());

    assert!(host.call("bob", "whoami", "{}").unwrap().contains("bob"));
    host.save("carol", "NOTES_TOKEN=carols-own-token\n");
    host.until_state("carol", StateName::Up);
    host.ok(&["restart", "carol", "--no-wait"]);
    let alice = host.instance("alice");
    assert_eq!(
        (alice.state, alice.pid),
        (StateName::Up, before[0].pid),
        "it is not stopped before that is kept"
    );
    assert!(stop.try_wait().unwrap().is_none(), "nobody was told that it is");
    stop.kill().unwrap();
    stop.wait().unwrap();

    host.kill_daemon();
    host.env.clear();
    host.start();
    host.until_state("alice", StateName::Stopped);
}

/// The names of all fail points below a directory.
fn in_source(dir: &Path) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            names.extend(in_source(&path));
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let places = text.split("failpoint::pass(\"").skip(1);
        names.extend(places.map(|rest| rest.split('"').next().unwrap().to_owned()));
    }
    names
}

/// Alice and Bob, whose servers leave children behind, under one kind of containment.
struct Case {
    host: Host,
    containment: &'static str,
}

impl Case {
    fn new(containment: &'static str) -> Self {
        Self::with(containment, None)
    }

    fn with(containment: &'static str, unit: Option<Unit>) -> Self {
        let mut host = Host::with_unruly("");
        host.unit = unit;
        host.configure(&format!("[daemon]\ncontainment = \"{containment}\"\n{}", unruly("")));
        for user in ["alice", "bob"] {
            host.save(user, CHILDREN);
        }
        Self { host, containment }
    }

    /// A daemon that will be killed at a place takes the present one's.
    fn replace_by_one_killed_at(&mut self, place: &str) {
        self.host.kill_daemon();
        self.host.env = vec![("MCPSUP_FAILPOINT".into(), place.into())];
        self.host.start();
        self.host.until_all_up(2);
    }

    fn start_and_be_killed_at(&mut self, place: &str) {
        self.host.env = vec![("MCPSUP_FAILPOINT".into(), place.into())];
        self.host.spawn();
        self.survive(place);
        self.only(&["alice", "bob"], place);
    }

    /// It dies, and the next daemon comes, which is not killed.
    fn survive(&mut self, place: &str) {
        let status = self.host.wait_for_end();
        assert_eq!(status.signal(), Some(9), "{place}: {}", self.host.log());
        self.host.env.clear();
        self.host.start();
    }

    fn pid(&self, user: &str) -> u32 {
        self.host.instance(user).pid.unwrap()
    }

    /// Waits until these users are up, and nothing else is there of anybody.
    fn only(&self, users: &[&str], place: &str) {
        for user in users {
            self.host.until_state(user, StateName::Up);
        }
        let all = self.host.status().instances;
        let runs: Vec<String> =
            all.iter().filter(|one| one.pid.is_some()).map(|one| one.run.unwrap().to_string()).collect();
        let has_init = self.containment == "pid-namespace" || self.host.unit.is_some();
        let per_user = if has_init { 4 } else { 3 };
        let expected = users.iter().map(|user| ((*user).to_owned(), 1)).collect();
        self.host.until(&format!("only {users:?} live after {place}"), || {
            let lives = seen::on(&self.host);
            let servers = lives.iter().filter(|one| one.kind == Kind::Server);
            let mut counted: BTreeMap<String, u32> = BTreeMap::new();
            servers.for_each(|one| *counted.entry(one.user.clone().unwrap()).or_default() += 1);
            assert!(counted.values().all(|count| *count == 1), "{place}: {counted:?}");
            counted == expected && lives.len() == 2 + per_user * users.len()
        });
        let mut runs = runs;
        runs.sort();
        assert_eq!(seen::names_in(&self.host.path().join("run/runs")), runs, "{place}");
        if self.containment == "cgroup" {
            let groups: Vec<String> = runs.iter().map(|run| format!("run-{run}")).collect();
            let made = self.host.unit.as_ref().map_or_else(|| seen::cgroups(&self.host), Unit::groups);
            assert_eq!(made, groups, "{place}");
        }
    }
}

const CHILDREN: &str = "UNRULY=--child session --child setsid\n";

fn at_a_start(case: &mut Case) {
    // Once with nothing else there, and in part with the other one half started.
    let second = ["spawn.started=2", "spawn.recorded=2", "spawn.launched=2", "up.noted=2", "map.written=2"];
    for place in SPAWN.iter().chain(&SHOW).chain(&second) {
        case.start_and_be_killed_at(place);
        assert!(case.host.stop().success());
        seen::until_nothing(&case.host);
        assert_eq!(seen::names_in(&case.host.path().join("run/runs")), Vec::<String>::new());
    }
    case.host.start();
    case.host.until_all_up(2);
}

fn at_a_stop(case: &mut Case) {
    for place in HOLD.iter().chain(&STOP) {
        case.replace_by_one_killed_at(place);
        let bob = case.pid("bob");
        case.host.cli(&["stop", "alice"]);
        case.survive(place);
        case.host.until_state("alice", StateName::Stopped);
        case.only(&["bob"], place);
        assert_eq!(case.pid("bob"), bob, "{place}");
        case.host.ok(&["start", "alice"]);
        case.only(&["alice", "bob"], place);
    }
}

fn at_a_change(case: &mut Case) {
    for (number, place) in STOP.iter().chain(&SPAWN).chain(&["up.noted=3"]).enumerate() {
        case.replace_by_one_killed_at(place);
        let (alice, bob) = (case.pid("alice"), case.pid("bob"));
        let began = seen::starts(&case.host, "alice");
        case.host.save("alice", &format!("{CHILDREN}NUMBER={number}\n"));
        case.survive(place);
        case.host.until("alice is another", || {
            let now = case.host.instance("alice");
            now.state == StateName::Up && now.pid != Some(alice)
        });
        case.only(&["alice", "bob"], place);
        assert_eq!(case.pid("bob"), bob, "{place}");
        // A start that the daemon did not live to finish is tried again.
        assert!(seen::starts(&case.host, "alice") - began <= 2, "{place}");
    }
}

fn at_the_end(case: &mut Case) {
    for place in STOP.iter().chain(&["stop.exited=2", "stop.removed=2"]) {
        assert!(case.host.stop().success());
        case.host.env = vec![("MCPSUP_FAILPOINT".into(), (*place).into())];
        case.host.start();
        case.host.until_all_up(2);
        case.host.signal_daemon(Signal::SIGTERM);
        case.survive(place);
        case.only(&["alice", "bob"], place);
    }
}

fn when_one_is_found_dead(case: &mut Case) {
    for place in FOUND_DEAD {
        let (alice, bob) = (case.pid("alice"), case.pid("bob"));
        case.host.kill_daemon();
        end(alice);
        case.host.until("alice is dead and reaped", || !Path::new(&format!("/proc/{alice}")).exists());
        case.host.env = vec![("MCPSUP_FAILPOINT".into(), place.into())];
        case.host.spawn();
        case.survive(place);
        case.only(&["alice", "bob"], place);
        assert_ne!(case.pid("alice"), alice, "{place}");
        assert_eq!(case.pid("bob"), bob, "{place}");
    }
}

#[test]
fn a_daemon_killed_at_any_step_is_followed_by_one_that_has_everybody_once() {
    let best = if seen::has_cgroups() { "cgroup" } else { "session" };
    let mut case = Case::new(best);
    let watch = Watch::over(&case.host);
    at_a_start(&mut case);
    at_a_stop(&mut case);
    at_a_change(&mut case);
    at_the_end(&mut case);
    when_one_is_found_dead(&mut case);
    watch.end();
}

#[test]
fn a_daemon_killed_while_it_remembers_ports_is_followed_by_one_that_has_everybody_once() {
    for place in PORTS {
        Case::new("session").start_and_be_killed_at(place);
    }
}

#[test]
fn a_daemon_killed_while_it_remembers_a_session_is_followed_by_one_that_has_the_process_once() {
    for place in SESSION {
        let mut host = with_lines("");
        host.kill_daemon();
        host.env = vec![("MCPSUP_FAILPOINT".into(), place.into())];
        host.start();
        host.until_state("alice", StateName::Up);
        let (port, pid) = (host.instance("alice").port.unwrap(), host.instance("alice").pid);
        let mut cut_off = wire::door(port);
        cut_off.write_all(wire::post_text(port, "", INITIALIZE).as_bytes()).unwrap();
        assert_eq!(host.wait_for_end().signal(), Some(9), "{place}: {}", host.log());
        host.env.clear();
        host.start();
        host.until_state("alice", StateName::Up);
        assert_eq!(host.instance("alice").pid, pid, "{place}");
        // What the client never heard of is known, and ends when it has been idle for long.
        assert_eq!(host.instance("alice").sessions, Some(1), "{place}");
        assert_eq!(
            Client::begin(&host, "alice").text("pid", &json!({})),
            pid.unwrap().to_string(),
            "{place}"
        );
    }
}

#[test]
fn sessions_are_taken_up_at_any_step_of_a_restart() {
    let mut case = Case::new("session");
    case.host.start();
    case.host.until_all_up(2);
    let watch = Watch::over(&case.host);
    at_a_change(&mut case);
    when_one_is_found_dead(&mut case);
    watch.end();
}

#[test]
fn namespaces_are_taken_up_at_any_step_of_a_restart() {
    if seen::is_root() {
        let mut case = Case::new("pid-namespace");
        case.host.start();
        // The first daemon must have nothing half done, or the second is killed too early.
        case.host.until_all_up(2);
        let watch = Watch::over(&case.host);
        at_a_change(&mut case);
        watch.end();
    }
}

#[test]
fn namespaces_beside_groups_are_taken_up_at_any_step() {
    if seen::has_cgroups() {
        let mut case = Case::with("cgroup", Some(Unit::new()));
        case.host.start();
        case.host.until_all_up(2);
        let watch = Watch::over(&case.host);
        at_a_stop(&mut case);
        at_a_change(&mut case);
        at_the_end(&mut case);
        when_one_is_found_dead(&mut case);
        watch.end();
    }
}
