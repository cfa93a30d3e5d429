//! Who gets in at a door: another user's connection is refused before the process sees a byte,
//! the owner's needs nothing, and a token opens its user's doors to whoever bears it.
//!
//! A thread of this test becomes another user for the kernel's eyes (`setfsuid`: whose a socket is,
//! and what may be opened, goes by that uid). So these need root, and say so where they have not.

use std::io::Write;
use std::net::TcpStream;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use mcpsup::model::status::StateName;

use crate::host::{Host, MCPSUP, copy_program, end, notes, text, write};
use crate::seen;
use crate::wire::{self, Answer, post_text, tool};

/// Two accounts that every Debian, Fedora and Arch has, and a uid that is nobody's.
const ALICE: &str = "daemon";
const BOB: &str = "nobody";
const MALLORY: u32 = 54_321;

fn uid(account: &str) -> u32 {
    nix::unistd::User::from_name(account).unwrap().expect("every host has it").uid.as_raw()
}

/// What a user with this uid sees of the world.
fn as_uid<T: Send>(uid: u32, deed: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(move || {
            nix::unistd::setfsuid(nix::unistd::Uid::from_raw(uid));
            // It tells the uid before; asking for one that is none tells the one now.
            assert_eq!(nix::unistd::setfsuid(nix::unistd::Uid::from_raw(u32::MAX)).as_raw(), uid);
            deed()
        });
        thread.join().unwrap()
    })
}

/// Alice and bob, each with an account of their own and a server.
fn two(servers: &str) -> Host {
    let mut host = Host::new(servers);
    std::fs::set_permissions(host.path(), PermissionsExt::from_mode(0o711)).unwrap();
    host.save("alice", &format!("MCPSUP_RUN_AS={ALICE}\nNOTES_TOKEN=alices-own-token\n"));
    host.save("bob", &format!("MCPSUP_RUN_AS={BOB}\nNOTES_TOKEN=bobs-own-token\n"));
    host.start();
    host.until_all_up(2);
    host
}

fn port(host: &Host, user: &str) -> u16 {
    host.instance(user).port.unwrap()
}

/// `whoami` at a door, with further header lines.
fn whoami(port: u16, headers: &str) -> Answer {
    wire::post(port, headers, &tool("whoami", "{}"))
}

/// The header line that `mcpsup headers` gives, asked for as the daemon's own user.
fn header(host: &Host, args: &[&str]) -> String {
    let printed = host.ok(&[&["headers"], args].concat());
    let headers: std::collections::BTreeMap<String, String> = serde_json::from_str(&printed).unwrap();
    assert_eq!(headers.len(), 1, "{headers:?}");
    format!("Authorization: {}\r\n", headers["Authorization"])
}

/// The command line as another user calls it; the program has to lie where they can reach it.
fn cli_as(host: &Host, uid: u32, args: &[&str]) -> Output {
    let program = host.path().join("mcpsup");
    if !program.exists() {
        copy_program(Path::new(MCPSUP), &program);
        std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
    }
    let mut command = Command::new(program);
    command.arg("--config").arg(host.path().join("mcpsup.toml")).args(args);
    command.stdin(Stdio::null()).env("NO_COLOR", "1").uid(uid).gid(uid).output().unwrap()
}

/// How often somebody was refused at a door, as far as the log says.
fn refusals(host: &Host) -> usize {
    host.log().lines().filter(|line| line.contains("door refused")).count()
}

#[test]
fn a_door_serves_its_owners_connection_and_refuses_every_other_users() {
    if !seen::is_root() {
        return;
    }
    let host = two(&notes());
    let (alice, bob) = (uid(ALICE), uid(BOB));
    for (user, own, other) in [("alice", alice, bob), ("bob", bob, alice)] {
        let port = port(&host, user);
        assert_eq!(as_uid(own, || whoami(port, "")).status, 200, "{user}");
        assert_eq!(whoami(port, "").status, 200, "root's daemon lets root in");
        for stranger in [other, MALLORY] {
            let before = refusals(&host);
            let answer = as_uid(stranger, || whoami(port, ""));
            assert_eq!((answer.status, answer.header("connection")), (403, Some("close")), "{answer:?}");
            assert!(answer.body.contains(&format!("this door is {user}'s")), "{answer:?}");
            host.until("the log says it", || refusals(&host) > before);
            assert!(
                host.log().contains(&format!("uid={stranger:?}"))
                    || host.log().contains(&format!("uid=\"{stranger}\""))
            );
        }
    }
    // Nor by what a browser's page could send, a session that is not theirs, or a hop that says who it is.
    let port = port(&host, "alice");
    for headers in [
        "Authorization: Basic YWxpY2U6\r\n",
        "X-Forwarded-For: 127.0.0.1\r\nX-Forwarded-User: alice\r\n",
        "Mcp-Session-Id: 1\r\n",
        "Forwarded: for=127.0.0.1;by=alice\r\n",
        "Authorization: Bearer ${TOKEN}\r\n",
    ] {
        let answer = as_uid(bob, || whoami(port, headers));
        assert!(matches!(answer.status, 401 | 403), "{headers}: {answer:?}");
    }
}

#[test]
fn a_connection_is_whose_it_was_made_whoever_speaks_through_it_since() {
    if !seen::is_root() {
        return;
    }
    let host = two(&notes());
    let door = port(&host, "alice");
    let request = wire::post_text(door, "", &tool("whoami", "{}"));
    let open = || wire::door(door);
    let speak = |mut stream: TcpStream| {
        stream.write_all(request.as_bytes()).unwrap();
        wire::rest(&mut stream)
    };
    let (alice, bob) = (uid(ALICE), uid(BOB));
    // Who hands on a connection that is open (SCM_RIGHTS) lends what it opens; what is taken is what it was.
    let hers = as_uid(alice, open);
    let answer = as_uid(bob, || speak(hers));
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let his = as_uid(bob, open);
    let answer = as_uid(alice, || speak(his));
    assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
    // The owner of a socket can be changed as a file's (fchown(2)), and by nobody else.
    let program = crate::host::example("intruder");
    let claim = |uid: u32| {
        let mut command = Command::new(&program);
        command.args([
            "--try",
            "claim a connection",
            "",
            &alice.to_string(),
            &door.to_string(),
            &tool_call(),
        ]);
        text(&command.uid(uid).gid(uid).output().unwrap().stdout)
    };
    assert!(claim(bob).starts_with("closed: Operation not permitted"), "{}", claim(bob));
    assert!(claim(0).starts_with("open"), "{}", claim(0));
}

fn tool_call() -> String {
    format!("POST /mcp {}", tool("whoami", "{}"))
}

#[test]
fn the_process_sees_no_byte_of_a_connection_that_is_refused() {
    if !seen::is_root() {
        return;
    }
    let server = crate::host::unruly("");
    let mut host = Host::new(&server);
    std::fs::set_permissions(host.path(), PermissionsExt::from_mode(0o711)).unwrap();
    host.save("alice", &format!("MCPSUP_RUN_AS={ALICE}\n"));
    host.start();
    host.until_all_up(1);
    let port = port(&host, "alice");
    let backend = backend(&host, "alice");
    let connections = |state: &str| connections_to(backend, state);
    host.until("its probe has hung up", || connections("01") == 0);
    as_uid(uid(BOB), || {
        let mut stream = wire::door(port);
        stream.write_all(post_text(port, "", &tool("pid", "{}")).as_bytes()).unwrap();
        assert!(wire::rest(&mut stream).contains(" 403 "));
        // A connection that is kept open and says nothing leads nowhere either.
        let idle = wire::door(port);
        assert_eq!(connections("01"), 0);
        drop(idle);
    });
    assert_eq!(as_uid(uid(ALICE), || wire::post(port, "", &tool("pid", "{}"))).status, 200);
}

/// The port that a user's process was given, as the record of its run says.
fn backend(host: &Host, user: &str) -> u16 {
    let run = host.instance(user).run.unwrap();
    let record = std::fs::read(host.path().join(format!("run/runs/{run}/record"))).unwrap();
    let record: serde_json::Value = serde_json::from_slice(&record).unwrap();
    u16::try_from(record["backend"].as_u64().unwrap()).unwrap()
}

/// How many connections to a port of 127.0.0.1 are in this state of `/proc/net/tcp`.
fn connections_to(port: u16, state: &str) -> usize {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let to = format!("0100007F:{port:04X} {state}");
    table.lines().filter(|line| line.contains(&format!(" {to} "))).count()
}

#[test]
fn who_sends_and_closes_at_once_is_nobody() {
    if !seen::is_root() {
        return;
    }
    let host = two(&notes());
    let port = port(&host, "alice");
    // So much that the door does not come to the end of it before it has to decide about the first.
    let add = post_text(port, "", &tool("add_note", "{\"text\":\"bob was here\"}"));
    let add = add.replace("Connection: close\r\n", "").repeat(500);
    // In the kernel's table such a socket belongs to uid 0, who may come in.
    for is_reset in [false, true] {
        // The daemon has no turn before all of them have gone.
        host.signal_daemon(nix::sys::signal::Signal::SIGSTOP);
        as_uid(uid(BOB), || {
            for _ in 0..50 {
                let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
                stream.write_all(add.as_bytes()).unwrap();
                if is_reset {
                    reset(&stream);
                }
            }
        });
        host.signal_daemon(nix::sys::signal::Signal::SIGCONT);
    }
    host.until("they are refused", || {
        // So many at once are too many before anything else is wrong with them.
        host.log().lines().any(|line| line.contains("door refused") && line.contains("uid=\"unknown\""))
    });
    let notes = as_uid(uid(ALICE), || wire::post(port, "", &tool("list_notes", "{}")));
    assert!(notes.status == 200 && !notes.body.contains("bob was here"), "{notes:?}");
    assert_eq!(host.instance("alice").state, StateName::Up);
}

#[test]
fn a_token_opens_its_users_doors_to_whoever_bears_it_and_nobody_elses() {
    if !seen::is_root() {
        return;
    }
    let mut host = two(&notes());
    let (alice, bob) = (port(&host, "alice"), port(&host, "bob"));
    let short = header(&host, &["alice"]);
    let for_notes = header(&host, &["alice/notes"]);
    let lasting = header(&host, &["alice", "--lasting"]);
    assert!(short != lasting && for_notes != short);
    for token in [&short, &for_notes, &lasting] {
        assert_eq!(as_uid(MALLORY, || whoami(alice, token)).status, 200);
        let refused = as_uid(MALLORY, || whoami(bob, token));
        assert_eq!(refused.status, 401, "{refused:?}");
        assert!(refused.header("www-authenticate").unwrap().contains("invalid_token"), "{refused:?}");
    }
    // They are the same user's over restarts of the daemon, and over its death.
    host.kill_daemon();
    host.start();
    host.until_all_up(2);
    assert_eq!(as_uid(MALLORY, || whoami(alice, &short)).status, 200);
    assert_eq!(as_uid(MALLORY, || whoami(alice, &lasting)).status, 200);

    let file = host.path().join("state/tokens/alice");
    let (meta, dir) = (std::fs::metadata(&file).unwrap(), std::fs::metadata(file.parent().unwrap()).unwrap());
    assert_eq!((meta.mode() & 0o7777, meta.uid(), dir.mode() & 0o7777), (0o600, 0, 0o700));
    let kept = std::fs::read_to_string(&file).unwrap();
    assert!(lasting.contains(&kept));
    for said in [host.log(), host.ok(&["status", "-v"]), host.ok(&["logs", "alice"])] {
        assert!(!said.contains(&kept) && !said.contains("mcpsup-until_"), "a token is told");
    }

    // A new one ends all of them; so does deleting the file.
    let renewed = header(&host, &["alice", "--renew", "--lasting"]);
    for (token, status) in [(&short, 401), (&for_notes, 401), (&lasting, 401), (&renewed, 200)] {
        assert_eq!(as_uid(MALLORY, || whoami(alice, token)).status, status);
    }
    std::fs::remove_file(&file).unwrap();
    host.ok(&["reload"]);
    host.until("the token is none any more", || as_uid(MALLORY, || whoami(alice, &renewed)).status == 401);
    assert_eq!(as_uid(uid(ALICE), || whoami(alice, "")).status, 200, "she needs none");
}

#[test]
fn a_user_gets_their_own_token_from_the_daemon_and_nobody_elses() {
    if !seen::is_root() {
        return;
    }
    let host = two(&notes());
    let alice = port(&host, "alice");
    std::fs::set_permissions(host.path().join("run"), PermissionsExt::from_mode(0o755)).unwrap();
    let own = cli_as(&host, uid(ALICE), &["headers"]);
    let headers: std::collections::BTreeMap<String, String> =
        serde_json::from_slice(&own.stdout).unwrap_or_else(|_| panic!("{}", text(&own.stderr)));
    let header = format!("Authorization: {}\r\n", headers["Authorization"]);
    assert_eq!(as_uid(MALLORY, || whoami(alice, &header)).status, 200);

    for (who, args) in [
        (uid(BOB), &["headers", "alice"][..]),
        (uid(BOB), &["headers", "alice", "--lasting"]),
        (uid(BOB), &["headers", "alice", "--renew"]),
        (MALLORY, &["headers", "alice/notes"]),
        (MALLORY, &["headers", "zoe"]),
    ] {
        let refused = cli_as(&host, who, args);
        assert_eq!((refused.status.code(), text(&refused.stdout)), (Some(4), String::new()), "{args:?}");
        host.until("the log says who asked", || {
            let said = host.log();
            let mut lines = said.lines().filter(|line| line.contains("request refused"));
            lines.any(|line| line.contains(&format!("uid={who} ")) && line.contains(" pid="))
        });
    }
    assert_eq!(as_uid(MALLORY, || whoami(alice, &header)).status, 200, "it was not renewed");
}

#[test]
fn a_door_that_takes_tokens_takes_nobodys_word_and_the_snippet_says_how_to_get_one() {
    if !seen::is_root() {
        return;
    }
    let host = two(&notes().replace("transport", "access = \"token\"\ntransport"));
    let alice = port(&host, "alice");
    for who in [uid(ALICE), 0, uid(BOB)] {
        let answer = as_uid(who, || whoami(alice, ""));
        assert_eq!(
            (answer.status, answer.header("www-authenticate")),
            (401, Some("bearer realm=\"mcpsup\""))
        );
    }
    let header = header(&host, &["alice"]);
    assert_eq!(as_uid(MALLORY, || whoami(alice, &header)).status, 200);

    for (kind, key) in [("claude-code", "headersHelper"), ("codex", "http_headers_helper")] {
        let file = host.path().join(format!("{kind}.config"));
        let file = file.to_str().unwrap();
        host.ok(&["client", "alice", "--for", kind, "--file", file, "--write"]);
        let written = std::fs::read_to_string(file).unwrap();
        assert!(written.contains(key) && written.contains("headers alice/notes"), "{written}");
        host.ok(&["client", "alice", "--for", kind, "--file", file, "--check"]);
        // What the client runs is right as it stands there.
        let helper = written.lines().find(|line| line.contains(key)).unwrap();
        let helper = helper.split_once(key).unwrap().1.trim_start_matches(['"', ':', '=', ' ']);
        let helper = helper.trim_end_matches([',', '"']);
        let printed = Command::new("/bin/sh").args(["-c", helper]).output().unwrap();
        assert!(text(&printed.stdout).starts_with("{\"Authorization\":\"Bearer "), "{helper}: {printed:?}");
    }
    // A client without a helper is led in by the control socket.
    let cursor = host.ok(&["client", "alice", "--for", "cursor"]);
    assert!(cursor.contains("connect") && !cursor.contains("http://"), "{cursor}");
}

#[test]
fn a_uid_of_several_users_opens_nobodys_door_until_it_is_one_users_again() {
    if !seen::is_root() {
        return;
    }
    let host = two(&notes());
    let alice = port(&host, "alice");
    assert_eq!(as_uid(uid(ALICE), || whoami(alice, "")).status, 200);
    host.save("carol", &format!("MCPSUP_RUN_AS={ALICE}\nNOTES_TOKEN=carols-own-token\n"));
    host.until("it is shared", || as_uid(uid(ALICE), || whoami(alice, "")).status == 401);
    assert!(host.ok(&["status", "-v"]).contains("is not one user's alone"));
    let map = host.ok(&["ports", "--json"]);
    let map: mcpsup::model::portmap::PortMap = serde_json::from_str(&map).unwrap();
    let taking: Vec<_> = map.instances.iter().map(|one| (one.user.as_str(), one.takes_token)).collect();
    assert_eq!(taking, [("alice", true), ("bob", false), ("carol", true)]);
    let header = header(&host, &["alice"]);
    assert_eq!(as_uid(uid(ALICE), || whoami(alice, &header)).status, 200);
    // Her own account cannot get it either, for it is not hers alone.
    std::fs::set_permissions(host.path().join("run"), PermissionsExt::from_mode(0o755)).unwrap();
    assert!(!cli_as(&host, uid(ALICE), &["headers", "alice"]).status.success());
    host.until_state("carol", StateName::Up);
    host.delete("carol");
    // Not before the last process of carol's has ended.
    host.until("it is hers alone", || {
        let is_let_in = as_uid(uid(ALICE), || whoami(alice, "")).status == 200;
        assert!(!is_let_in || host.instance("carol").pid.is_none());
        is_let_in
    });
}

#[test]
fn who_has_no_account_comes_in_with_a_token_and_the_snippet_says_so() {
    if !seen::is_root() {
        return;
    }
    let mut host = Host::new(&notes());
    host.save("alice", "NOTES_TOKEN=alices-own-token\n");
    host.save("bob", &format!("MCPSUP_RUN_AS={BOB}\nNOTES_TOKEN=bobs-own-token\n"));
    host.start();
    host.until_all_up(2);
    let map: mcpsup::model::portmap::PortMap = serde_json::from_str(&host.ok(&["ports", "--json"])).unwrap();
    let taking: Vec<_> = map.instances.iter().map(|one| (one.user.as_str(), one.takes_token)).collect();
    assert_eq!(taking, [("alice", true), ("bob", false)]);
    assert!(
        host.ok(&["status", "-v"])
            .contains("doors of users without an account of this host (1) take a token")
    );
    let snippet = host.ok(&["client", "alice"]);
    assert!(snippet.contains("headersHelper"), "{snippet}");
    let alice = port(&host, "alice");
    assert_eq!(whoami(alice, "").status, 200, "root needs none");
    let header = header(&host, &["alice"]);
    for stranger in [uid(BOB), MALLORY] {
        assert_eq!(as_uid(stranger, || whoami(alice, "")).status, 403);
        assert_eq!(as_uid(stranger, || whoami(alice, &header)).status, 200);
    }
}

#[test]
fn a_user_of_whom_nothing_runs_hears_why_at_their_door() {
    if !seen::is_root() {
        return;
    }
    let host = two(&notes());
    let alice = port(&host, "alice");
    let off = format!("MCPSUP_ENABLED=false\nMCPSUP_RUN_AS={ALICE}\nNOTES_TOKEN=alices-own-token\n");
    host.save("alice", &off);
    host.until_state("alice", StateName::Disabled);
    let answer = as_uid(uid(ALICE), || whoami(alice, ""));
    assert!(answer.status == 503 && answer.body.contains("is disabled"), "{answer:?}");
    assert!(matches!(as_uid(uid(BOB), || whoami(alice, "")).status, 401 | 403));
}

#[test]
fn an_ordinary_users_daemon_knows_nobody_by_a_uid_that_serves_several() {
    if !seen::is_root() {
        return;
    }
    let mut host = Host::new(&notes());
    let nobody = uid(BOB);
    host.save("alice", "NOTES_TOKEN=alices-own-token\n");
    for path in [
        host.path().to_path_buf(),
        host.env_dir(),
        host.path().join("mcpsup.toml"),
        host.env_dir().join("alice.env"),
    ] {
        std::os::unix::fs::chown(path, Some(nobody), Some(nobody)).unwrap();
    }
    let mut command = Command::new(crate::host::program());
    command.uid(nobody).gid(nobody);
    host.spawn_by(command);
    let port = host.until_some("alice is up", || {
        let all = wire::control_if(&host.path().join("run/control.sock"), "GET", "/v1/status", "")?.json();
        let one = &all["instances"][0];
        (one["state"] == "up").then(|| u16::try_from(one["port"].as_u64().unwrap()).unwrap())
    });
    assert_eq!(as_uid(nobody, || whoami(port, "")).status, 200, "alone it is hers");
    assert_eq!(as_uid(0, || whoami(port, "")).status, 403, "root is nobody to this daemon");
    assert_eq!(as_uid(MALLORY, || whoami(port, "")).status, 403);

    let new = host.path().join("new");
    write(&new, "NOTES_TOKEN=bobs-own-token\n", 0o600);
    std::os::unix::fs::chown(&new, Some(nobody), Some(nobody)).unwrap();
    std::fs::rename(new, host.env_dir().join("bob.env")).unwrap();
    host.until("it is shared", || as_uid(nobody, || whoami(port, "")).status == 401);
    let said = text(&cli_as(&host, nobody, &["status"]).stdout);
    assert!(said.contains("takes a token (mcpsup headers alice): uid 65534 is not alice's alone"), "{said}");
    // Whoever the daemon belongs to gets one without asking anybody.
    let headers = cli_as(&host, nobody, &["headers", "alice"]);
    let headers: serde_json::Value = serde_json::from_slice(&headers.stdout).unwrap();
    let header = format!("Authorization: {}\r\n", headers["Authorization"].as_str().unwrap());
    assert_eq!(as_uid(nobody, || whoami(port, &header)).status, 200);
}

#[test]
fn a_socket_in_the_file_system_is_its_owners_alone() {
    if !seen::is_root() {
        return;
    }
    let mut host = two(&format!("[door]\nunix = true\n{}", notes()));
    let socket = host.path().join("run/doors/alice/notes.sock");
    let meta = std::fs::symlink_metadata(&socket).unwrap();
    assert_eq!((meta.uid(), meta.mode() & 0o7777), (uid(ALICE), 0o600));
    for dir in [socket.parent().unwrap(), &host.path().join("run/doors")] {
        let meta = std::fs::metadata(dir).unwrap();
        assert_eq!((meta.uid(), meta.mode() & 0o7777), (0, 0o711), "{}", dir.display());
    }
    let ask = || wire::control(&socket, "POST", "/mcp", &tool("whoami", "{}")).status;
    // By its Host a browser's page would be known, and none speaks to a socket.
    let by_owner = unix_as(&socket, uid(ALICE));
    assert!(by_owner.contains(" 200 "), "{by_owner}");
    assert!(matches!(ask(), 200 | 403));
    for stranger in [uid(BOB), MALLORY] {
        let refused = unix_as(&socket, stranger);
        assert!(refused.contains("Permission denied"), "{refused}");
    }
    assert!(host.stop().success());
    assert!(!host.path().join("run/doors").exists());
}

/// What a real process of that uid hears at a socket.
fn unix_as(socket: &Path, uid: u32) -> String {
    let body = tool("whoami", "{}");
    let request = format!(
        "POST /mcp HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\nAccept: application/json, text/event-stream\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let script = "import socket,sys\ns=socket.socket(socket.AF_UNIX)\ns.connect(sys.argv[1])\ns.sendall(sys.argv[2].encode())\nb=b''\nwhile True:\n d=s.recv(65536)\n if not d: break\n b+=d\nprint(b.decode())";
    let mut command = Command::new("python3");
    command.args(["-c", script]).arg(socket).arg(request).uid(uid).gid(uid);
    let output = command.output().unwrap();
    text(&output.stdout) + &text(&output.stderr)
}

/// The notes server, where nobody but its user's own programs can reach it.
pub(crate) fn notes_on_a_socket() -> String {
    notes()
        .replace("port_env = \"NOTES_PORT\"\n", "")
        .replace("env = { ", "env = { NOTES_SOCKET = \"{socket}\", ")
}

#[test]
fn a_process_on_a_socket_of_its_own_is_reached_through_its_door_alone() {
    if !seen::is_root() {
        return;
    }
    let mut host = two(&notes_on_a_socket());
    let alice = port(&host, "alice");
    assert_eq!(as_uid(uid(ALICE), || whoami(alice, "")).status, 200);
    assert_eq!(as_uid(uid(BOB), || whoami(alice, "")).status, 403);
    let socket = host.path().join("run/instances/alice/notes/http.sock");
    assert!(unix_as(&socket, uid(ALICE)).contains(" 200 "), "her own programs may");
    for stranger in [uid(BOB), MALLORY] {
        let refused = unix_as(&socket, stranger);
        assert!(refused.contains("Permission denied"), "{refused}");
    }
    // None of its processes listens on a port.
    let map = host.ok(&["ports", "--json"]);
    assert!(!host.ok(&["status", "-v"]).contains("listen on ports of their own"), "{map}");

    // It comes back on the same socket after a crash, a stop, and a daemon that died.
    let before = host.instance("alice");
    end(before.pid.unwrap());
    // What a dying process has taken is answered with an error, and not sent again.
    let dead = format!("/proc/{}", before.pid.unwrap());
    host.until("it is dead", || !Path::new(&dead).exists());
    assert_eq!(as_uid(uid(ALICE), || whoami(alice, "")).status, 200);
    host.ok(&["restart", "alice"]);
    let before = host.until_state("alice", StateName::Up);
    host.kill_daemon();
    host.start();
    let after = host.until_state("alice", StateName::Up);
    assert_eq!((after.pid, after.run), (before.pid, before.run));
    assert_eq!(as_uid(uid(ALICE), || whoami(alice, "")).status, 200);
}

#[test]
fn whoever_takes_the_place_of_a_socket_gets_no_byte() {
    if !seen::is_root() {
        return;
    }
    let host = two(&notes_on_a_socket());
    let alice = port(&host, "alice");
    assert_eq!(whoami(alice, "").status, 200);
    // Bob's own server leads to alice's process; and a program that is no server of hers.
    let place = |user: &str| host.path().join(format!("run/instances/{user}/notes/http.sock"));
    std::fs::remove_file(place("bob")).unwrap();
    std::os::unix::fs::symlink(place("alice"), place("bob")).unwrap();
    let answer = whoami(port(&host, "bob"), "");
    assert_eq!(answer.status, 502, "{answer:?}");
    assert!(answer.body.contains("is not bob's"), "{answer:?}");

    std::fs::remove_file(place("alice")).unwrap();
    // Root's own socket is not even connected to, by whatever name; one that looks like hers gets nothing.
    let stranger = std::os::unix::net::UnixListener::bind(place("alice")).unwrap();
    stranger.set_nonblocking(true).unwrap();
    assert_eq!(whoami(alice, "").status, 502);
    let hidden = host.path().join("roots.sock");
    std::fs::rename(place("alice"), &hidden).unwrap();
    std::os::unix::fs::symlink(&hidden, place("alice")).unwrap();
    assert_eq!(whoami(alice, "").status, 502);
    assert_eq!(stranger.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    std::fs::rename(&hidden, place("alice")).unwrap();
    std::os::unix::fs::lchown(place("alice"), Some(uid(ALICE)), None).unwrap();
    assert_eq!(whoami(alice, "").status, 502);
    let (mut heard, _) = stranger.accept().unwrap();
    heard.set_nonblocking(false).unwrap();
    assert_eq!(wire::rest(&mut heard), "");
    // One that takes nobody in holds nothing up.
    assert_eq!(host.instance("alice").state, StateName::Up);
}

/// A connection from this port of 127.0.0.1, as whoever asks; it may be used again at once.
fn from_port(from: u16, to: u16) -> std::io::Result<TcpStream> {
    use rustix::net::{AddressFamily, SocketType, bind, connect, socket, sockopt};
    let here = |port| std::net::SocketAddr::from(([127, 0, 0, 1], port));
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    bind(&socket, &here(from))?;
    connect(&socket, &here(to))?;
    Ok(socket.into())
}

/// Has a connection end by a reset: its port is free at once, and what was sent can still be read.
fn reset(stream: &TcpStream) {
    rustix::net::sockopt::set_socket_linger(stream, Some(Duration::ZERO)).unwrap();
}

#[test]
fn whoever_gets_the_port_of_a_client_that_has_gone_lends_it_nothing() {
    if !seen::is_root() {
        return;
    }
    let host = two(&notes());
    let (alice, bob) = (uid(ALICE), uid(BOB));
    let port = port(&host, "alice");
    let add = post_text(port, "", &tool("add_note", "{\"text\":\"bob was here\"}"));
    // Of this test alone, and given to no process of it.
    let last = host.last_backend();
    let begun = std::time::Instant::now();
    let mut tried = 0;
    for from in (last - 200..last).cycle() {
        assert!(begun.elapsed() < crate::host::LIMIT, "{tried} of 20 ports could be used again");
        // While the daemon has no turn, bob's connections wait to be looked at.
        host.signal_daemon(nix::sys::signal::Signal::SIGSTOP);
        let his = as_uid(bob, || {
            from_port(from, port).map(|mut stream| {
                stream.write_all(add.as_bytes()).unwrap();
                reset(&stream);
            })
        });
        let hers = as_uid(alice, || from_port(from, port));
        host.signal_daemon(nix::sys::signal::Signal::SIGCONT);
        // A program that another test just starts may hold bob's connection for a moment longer.
        let (Ok(()), Ok(mut hers)) = (his, hers) else { continue };
        hers.set_read_timeout(Some(crate::host::LIMIT)).unwrap();
        hers.write_all(post_text(port, "", &tool("list_notes", "{}")).as_bytes()).unwrap();
        let answer = wire::rest(&mut hers);
        assert!(answer.contains(" 200 ") && !answer.contains("bob was here"), "{answer}");
        reset(&hers);
        tried += 1;
        if tried == 20 {
            break;
        }
    }
}
