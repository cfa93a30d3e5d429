//! A door is there from the first moment to the last, whatever becomes of the process behind it.

use std::io::Write;
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use mcpsup::model::portmap::PortMap;
use mcpsup::model::status::{InstanceStatus, StateName};

use crate::host::{Done, Host, end, notes, unruly};
use crate::wire::{self, ask_door, post, post_text, tool};

fn unruly_alice(head: &str, more: &str, file: &str) -> (Host, u16) {
    let mut host = Host::new(&format!("{head}{}", unruly(more)));
    host.save("alice", file);
    host.start();
    let port = host.until_some("alice has a port", || {
        host.status().instances.iter().find(|one| one.user.as_str() == "alice")?.port
    });
    (host, port)
}

fn kill_leader(instance: &InstanceStatus) {
    end(instance.pid.unwrap());
}

#[test]
fn no_connection_is_refused_and_no_request_lost_while_the_process_is_killed_again_and_again() {
    let mut host = Host::new(&format!("{}[server.notes.restart]\nmax_wait = \"100ms\"\n", notes()));
    host.save("alice", "NOTES_TOKEN=alices-own-token\n");
    host.start();
    host.until_all_up(1);
    let port = host.instance("alice").port.unwrap();
    let (done, connected, answered) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    let next = |counter: &AtomicUsize| {
        let before = counter.load(Ordering::Relaxed);
        host.until("there are more of them", || counter.load(Ordering::Relaxed) > before + 1);
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                drop(TcpStream::connect(("127.0.0.1", port)).expect("never refused"));
                connected.fetch_add(1, Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                // 502: it was being answered when the process died, and is not sent twice.
                let answer = post(port, "", &tool("whoami", "{}"));
                assert!(matches!(answer.status, 200 | 502), "{answer:?}");
                answered.fetch_add(usize::from(answer.status == 200), Ordering::Relaxed);
            }
        });
        let _done = Done(&done);
        for _ in 0..5 {
            let alice = host.until_state("alice", StateName::Up);
            kill_leader(&alice);
            // While nothing is up, and after.
            next(&connected);
            next(&answered);
            host.until("another run is up", || {
                let now = host.instance("alice");
                now.run > alice.run && now.state == StateName::Up
            });
        }
    });
    assert!(connected.into_inner() > 20);
}

#[test]
fn a_request_waits_for_a_process_that_is_starting_and_is_answered_by_it() {
    let (host, port) = unruly_alice("", "", "UNRULY=--late 700\n");
    let begun = Instant::now();
    let answer = post(port, "", &tool("pid", "{}"));
    assert_eq!(answer.status, 200, "{answer:?}");
    let pid = host.until_state("alice", StateName::Up).pid.unwrap();
    assert!(answer.body.contains(&format!("\"{pid}\"")), "{}", answer.body);
    assert!(begun.elapsed() < crate::host::LIMIT);
}

#[test]
fn a_request_waits_no_longer_than_the_door_says_and_then_hears_when_to_come_again() {
    let (_host, port) = unruly_alice("[door]\nwait = \"300ms\"\n", "", "UNRULY=--never\n");
    let begun = Instant::now();
    let answer = post(port, "", &tool("pid", "{}"));
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("5")));
    assert!(begun.elapsed() >= Duration::from_millis(300));
    assert_eq!(answer.json()["error"]["message"], "the server is not up yet; try again");
}

#[test]
fn a_stopped_users_request_is_answered_at_once() {
    let (host, port) = unruly_alice("", "", "A=1\n");
    host.until_state("alice", StateName::Up);
    // It waits on an open connection for its next request: that is no reason to hold up a stop.
    let idle = wire::door(port);
    host.ok(&["stop", "alice"]);
    let begun = Instant::now();
    let answer = post(port, "", &tool("pid", "{}"));
    assert_eq!(answer.status, 503);
    assert!(
        answer.header("retry-after").is_some() && answer.body.contains("alice/unruly was stopped"),
        "{answer:?}"
    );
    assert!(begun.elapsed() < Duration::from_secs(10), "it did not wait as for a crash");
    drop(idle);
}

#[test]
fn foreign_names_are_refused_and_an_authorization_stays_at_the_door() {
    let (host, port) = unruly_alice("[door]\nhosts = [\"mcp.example.org\"]\n", "", "A=1\n");
    host.until_state("alice", StateName::Up);
    let body = tool("header_names", "{}");
    for foreign in [
        "Host: evil.example\r\n".to_owned(),
        format!("Host: evil.example:{port}\r\n"),
        format!("Host: 127.0.0.1.evil.example:{port}\r\n"),
        "Origin: https://evil.example\r\n".to_owned(),
        "Origin: null\r\n".to_owned(),
        "Origin: https://localhost.evil.example\r\n".to_owned(),
    ] {
        assert_eq!(post(port, &foreign, &body).status, 403, "{foreign}");
    }
    for own in [format!("Host: localhost:{port}\r\n"), format!("Origin: http://localhost:{port}\r\n")] {
        assert_eq!(post(port, &own, &body).status, 200, "{own}");
    }
    let answer = post(
        port,
        "Authorization: Bearer of-bad-news\r\nProxy-Authorization: Basic eDp5\r\nX-Mine: kept\r\nMcp-Session-Id: kept\r\n",
        &body,
    );
    assert!(answer.body.contains("x-mine") && answer.body.contains("mcp-session-id"), "{}", answer.body);
    assert!(!answer.body.to_lowercase().contains("authorization"), "{}", answer.body);
}

#[test]
fn each_event_of_a_stream_comes_when_it_is_made() {
    let (host, port) = unruly_alice("", "", "A=1\n");
    host.until_state("alice", StateName::Up);
    let call = |events: usize, ms: usize| {
        let call = format!(
            "{{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/call\",\"params\":{{\"name\":\"stream\",\
             \"arguments\":{{\"events\":{events},\"ms\":{ms}}},\"_meta\":{{\"progressToken\":\"t\"}}}}}}"
        );
        let mut stream = wire::door(port);
        stream.write_all(post_text(port, "", &call).as_bytes()).unwrap();
        stream
    };
    // It goes on for an hour, so what has come was kept back neither for its end nor for many others.
    let mut stream = call(10_000, 400);
    let head = wire::read_until(&mut stream, "notifications/progress");
    assert!(head.to_lowercase().contains("content-type: text/event-stream"), "{head}");
    assert!(head.matches("notifications/progress").count() < 20, "{head}");
    drop(stream);
    assert!(wire::rest(&mut call(2, 1)).contains("done"));
}

#[test]
fn the_port_map_says_what_is_and_is_never_seen_half_written() {
    let mut host = Host::with_notes();
    let path = host.path().join("run/ports.json");
    host.save("alice", "NOTES_TOKEN=alices-own-token\n");
    host.start();
    host.until_all_up(1);
    let (done, reads) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut last = 0;
            while !done.load(Ordering::Relaxed) {
                let map: PortMap = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
                assert!(map.version == 1 && map.generation >= last, "{map:?}");
                last = map.generation;
                reads.fetch_add(1, Ordering::Relaxed);
            }
        });
        let _done = Done(&done);
        for user in ["bob", "carol", "dave", "erin"] {
            host.save(user, "NOTES_TOKEN=somebodys-own-token\n");
        }
        host.until_all_up(5);
        host.delete("bob");
        host.until_state("bob", StateName::Gone);
        host.ok(&["stop", "carol"]);
    });
    assert!(reads.into_inner() > 10);
    let map = host.until_some("the map says it too", || {
        let map: PortMap = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        let now = host.status().instances;
        let same = map.instances.len() == now.len()
            && map.instances.iter().zip(&now).all(|(entry, one)| {
                (&entry.user, Some(entry.port), entry.state) == (&one.user, one.port, one.state)
            });
        same.then_some(map)
    });
    let asked: PortMap = serde_json::from_str(&host.ok(&["ports", "--json"])).unwrap();
    assert_eq!(asked.instances, map.instances);
    assert_eq!(
        std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).unwrap().permissions()) & 0o777,
        0o644
    );

    host.kill_daemon();
    host.start();
    host.until("the number goes on", || {
        let text = std::fs::read(&path).unwrap();
        serde_json::from_slice::<PortMap>(&text).unwrap().generation > map.generation
    });
}

#[test]
fn bad_clients_are_answered_or_shown_out_and_the_others_do_not_notice() {
    let (host, port) = unruly_alice("[door]\nhead_timeout = \"3s\"\nmax_connections = 40\n", "", "A=1\n");
    host.until_state("alice", StateName::Up);
    let silent: Vec<_> = (0..30).map(|_| wire::door(port)).collect();
    assert_eq!(post(port, "", &tool("pid", "{}")).status, 200);

    for garbage in
        ["\0\u{1}\u{2}rubbish\r\n\r\n", "GET\r\n\r\n", "POST /mcp HTTP/1.1\r\nContent-Length: x\r\n\r\n"]
    {
        assert_eq!(ask_door(port, garbage).status, 400, "{garbage:?}");
    }
    let long = format!("POST /mcp HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n", "x".repeat(100_000));
    let mut stream = wire::door(port);
    // It may hang up before it has read all of it.
    if stream.write_all(long.as_bytes()).is_ok() {
        let answer = wire::rest(&mut stream);
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431"), "{answer}");
    }

    let said = format!("POST /mcp HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Length: 10000000000\r\n\r\n");
    assert_eq!(ask_door(port, &said).status, 413);

    for mut quiet in silent {
        let said = wire::rest(&mut quiet);
        assert!(said.is_empty() || said.starts_with("HTTP/1.1 408"), "{said}");
    }
    assert_eq!(post(port, "", &tool("pid", "{}")).status, 200);
}

#[test]
fn ten_gigabytes_end_at_the_limit_and_are_never_held() {
    let (host, port) = unruly_alice("[door]\nmax_body = \"512K\"\n", "", "A=1\n");
    let up = host.until_state("alice", StateName::Up);
    let before = memory(host.daemon_pid());
    let mut stream = wire::door(port);
    let head = format!("POST /mcp HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nTransfer-Encoding: chunked\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    let chunk = [b"100000\r\n".as_slice(), &vec![b'x'; 1 << 20], b"\r\n"].concat();
    let mut sent = 0;
    while sent < 10_000 && stream.write_all(&chunk).is_ok() {
        sent += 1;
    }
    assert!(sent < 200, "{sent} MiB were taken");
    let answer = wire::rest(&mut stream);
    assert!(answer.starts_with("HTTP/1.1 413") && answer.contains("larger than [door] max_body"), "{answer}");
    let after = memory(host.daemon_pid());
    assert!(after < before + (64 << 10), "{before} kB, then {after} kB");
    assert_eq!(host.instance("alice").run, up.run);
    assert_eq!(post(port, "", &tool("pid", "{}")).status, 200);
}

/// Resident memory in kB.
pub(crate) fn memory(pid: i32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
