//! Sessions of stdio servers: those with a process of their own, and those whose clients vanish.

use std::path::Path;

use mcpsup::model::status::{SessionRun, StateName};
use serde_json::json;

use crate::host::{Host, end, example, is_alive};
use crate::stdio::{Client, INITIALIZE, NEWEST, lines};
use crate::{seen, wire};

/// A host with alice's server up, which has a process for each session.
fn isolated(more: &str) -> Host {
    let mut host = Host::new(&format!(
        "[server.lines]\ncommand = [{:?}, \"{{session}}\"]\ntransport = \"stdio\"\nsessions = \"isolated\"\n{more}\n",
        example("lines")
    ));
    host.save("alice", "TOKEN=sk-live-0123456789\n");
    host.start();
    host.until_state("alice", StateName::Up);
    host
}

fn runs(host: &Host) -> Vec<SessionRun> {
    host.instance("alice").session_runs
}

/// Directories of sessions below the daemon's state and runtime directories, and records of them.
fn leavings(host: &Host) -> Vec<String> {
    let names = |dir: &Path| {
        let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
        entries.map(|entry| entry.file_name().into_string().unwrap()).collect::<Vec<_>>()
    };
    let mut all = names(&host.path().join("state/instances/alice"));
    all.extend(names(&host.path().join("run/instances/alice")));
    all.retain(|name| name.contains('+'));
    all.extend(names(&host.path().join("run/sessions/alice/lines")));
    all
}

#[test]
fn each_session_has_a_process_and_directories_that_go_with_it() {
    let host = isolated("");
    let before = host.processes().len();
    let (one, two) = (Client::begin(&host, "alice"), Client::begin(&host, "alice"));
    let (first, second) = (one.text("pid", &json!({})), two.text("pid", &json!({})));
    assert_ne!(first, second);
    assert_ne!(host.instance("alice").pid.unwrap().to_string(), first);
    let name = one.text("session", &json!({}));
    assert!(one.text("here", &json!({})).ends_with(&format!("state/instances/alice/lines+{name}")));
    let all = runs(&host);
    assert_eq!(all.len(), 2);
    assert!(all.iter().all(|run| run.state == StateName::Up), "{all:?}");
    assert!(all.iter().any(|run| run.session.to_string() == name && run.pid.unwrap().to_string() == first));
    assert!(host.ok(&["status"]).contains("2 sessions"), "{}", host.ok(&["status"]));
    host.until("both are remembered", || leavings(&host).len() == 6);

    assert_eq!(one.delete() / 100, 2);
    assert_eq!(one.post(&wire::tool("pid", "{}")).status, 404);
    host.until("the first is gone", || runs(&host).len() == 1 && leavings(&host).len() == 3);
    assert!(!is_alive(first.parse().unwrap()));
    assert_eq!(two.text("pid", &json!({})), second);
    assert_eq!(two.delete() / 100, 2);
    host.until("nothing is left", || runs(&host).is_empty() && leavings(&host).is_empty());
    host.until("no process is left", || host.processes().len() == before);
}

#[test]
fn one_session_too_many_ends_the_oldest_and_an_idle_one_ends_itself() {
    let host = isolated("max_sessions = 2");
    let clients: Vec<Client> = (0..3).map(|_| Client::begin(&host, "alice")).collect();
    assert_eq!(clients[0].post(&wire::tool("pid", "{}")).status, 404);
    for client in &clients[1..] {
        assert!(!client.text("pid", &json!({})).is_empty());
    }
    host.until("the oldest is gone", || runs(&host).len() == 2);
    drop(host);

    let host = isolated("session_idle = \"3s\"");
    let client = Client::begin(&host, "alice");
    host.until("it is gone", || runs(&host).is_empty() && leavings(&host).is_empty());
    assert_eq!(client.post(&wire::tool("pid", "{}")).status, 404);
}

#[test]
fn a_session_outlives_its_process_and_the_daemon() {
    let mut host = isolated("");
    let (one, two) = (Client::begin(&host, "alice"), Client::begin(&host, "alice"));
    let (first, second) = (one.text("pid", &json!({})), two.text("pid", &json!({})));
    end(first.parse().unwrap());
    let next = host.until_some("it answers again", || {
        let answer = one.call("pid", &json!({}));
        answer["result"]["content"][0]["text"].as_str().map(str::to_owned)
    });
    assert_ne!(next, first);
    assert_eq!(two.text("pid", &json!({})), second);

    host.kill_daemon();
    host.start();
    host.until("all are up", || {
        runs(&host).len() == 2 && runs(&host).iter().all(|run| run.state == StateName::Up)
    });
    assert_eq!((one.text("pid", &json!({})), two.text("pid", &json!({}))), (next, second));
    assert_eq!(two.text("calls", &json!({})), "4", "nothing was asked twice");
}

#[test]
fn what_ends_or_restarts_an_instance_does_so_to_its_sessions() {
    let mut host = isolated("");
    let client = Client::begin(&host, "alice");
    let pid = |client: &Client| client.text("pid", &json!({}));
    let first = pid(&client);
    host.save("alice", "TOKEN=sk-live-9876543210\n");
    host.until("it has ended", || !is_alive(first.parse().unwrap()));
    let second = pid(&client);
    assert_ne!(second, first);

    host.ok(&["restart", "alice"]);
    host.until("it has ended", || !is_alive(second.parse().unwrap()));
    let third = pid(&client);
    host.ok(&["stop", "alice"]);
    host.until("it has ended", || !is_alive(third.parse().unwrap()));
    assert_eq!(client.post(&wire::tool("pid", "{}")).status, 503);
    host.kill_daemon();
    host.start();
    assert_eq!(client.post(&wire::tool("pid", "{}")).status, 503, "it is still held, and known");
    assert!(host.processes().is_empty());
    host.ok(&["start", "alice"]);
    let fourth = pid(&client);

    host.delete("alice");
    host.until("all have ended", || host.processes().is_empty());
    // One that is just ending has no environment any more by which it could be found.
    host.until("it has ended", || !is_alive(fourth.parse().unwrap()));
    host.ok(&["remove", "alice", "--yes"]);
    host.until("nothing is left", || leavings(&host).is_empty());
    assert!(host.stop().success());
}

#[test]
fn sigterm_ends_sessions_too() {
    let mut host = isolated("");
    let client = Client::begin(&host, "alice");
    assert!(!client.text("pid", &json!({})).is_empty());
    assert!(host.stop().success());
    assert!(host.processes().is_empty());
}

/// Private memory of the daemon, in KiB.
fn memory(host: &Host) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", host.daemon_pid())).unwrap();
    let of = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
    };
    of("Private_Dirty:") + of("Private_Clean:")
}

fn descriptors(host: &Host) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", host.daemon_pid())).unwrap().count()
}

/// A thousand clients that begin, listen and vanish, a few at a time.
fn a_thousand_vanish(host: &Host) {
    let (port, per_thread) = (host.instance("alice").port.unwrap(), 125);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..per_thread {
                    let answer = wire::post(port, "", INITIALIZE);
                    assert_eq!(answer.status, 200, "{answer:?}");
                    let session = answer.header("mcp-session-id").unwrap().to_owned();
                    let mut stream = Client { port, session, version: NEWEST }.listen();
                    // Who goes before it is open may be gone before anybody looked at what they wanted.
                    wire::read_until(&mut stream, "\r\n\r\n");
                }
            });
        }
    });
}

fn back_to_where_it_was(host: &Host, settle: impl Fn(&Host)) {
    a_client_passes(host);
    settle(host);
    let (processes, open, before) = (host.processes().len(), descriptors(host), memory(host));
    // What the first thousand needed is enough for the next: nothing is kept of any of them. How much
    // of it the allocator has given back at a moment differs by some MiB.
    for thousands in 1..=3 {
        a_thousand_vanish(host);
        settle(host);
        host.until("processes are as before", || host.processes().len() == processes);
        host.until("descriptors are as before", || descriptors(host) <= open);
        let after = memory(host);
        println!("{before} KiB before, {after} KiB after {thousands} thousand");
        assert!(after <= before + 10 * 1024, "{before} KiB before, {after} KiB after {thousands} thousand");
    }
}

fn a_client_passes(host: &Host) {
    let client = Client::begin(host, "alice");
    assert!(!client.text("pid", &json!({})).is_empty());
    assert_eq!(client.delete() / 100, 2);
}

#[test]
fn a_thousand_clients_that_vanish_leave_nothing_where_they_share_a_process() {
    let mut host = Host::new(&lines("session_idle = \"2s\""));
    host.save("alice", "TOKEN=sk-live-0123456789\n");
    host.start();
    host.until_state("alice", StateName::Up);
    back_to_where_it_was(&host, |host| {
        // Their records go by another thread, a moment later.
        host.until("no session is left", || {
            host.instance("alice").sessions == Some(0) && leavings(host).is_empty()
        });
    });
}

#[test]
fn a_thousand_clients_that_vanish_leave_nothing_where_each_has_a_process() {
    let host = isolated("session_idle = \"2s\"\nstop.grace = \"1s\"");
    back_to_where_it_was(&host, |host| {
        host.until("no session is left", || runs(host).is_empty() && leavings(host).is_empty());
    });
    assert!(seen::cgroups(&host).len() <= 1);
}
