//! The control socket and the command line: what they answer, to whom, and with which status.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Output, Stdio};
use std::sync::mpsc;

use mcpsup::model::status::{StateName, StatusReport};

use crate::host::{Host, LIMIT, MCPSUP, copy_program, end, notes, text, unruly};
use crate::wire;

fn one_user() -> Host {
    let mut host = Host::with_notes();
    host.save("alice", "NOTES_TOKEN=alices-own-token\n");
    host.start();
    host.until_all_up(1);
    host
}

fn status(output: &Output) -> i32 {
    output.status.code().unwrap()
}

#[test]
fn plain_http_on_the_socket_is_enough() {
    let host = one_user();
    let socket = host.path().join("run/control.sock");
    let ask = |method, path, body| wire::control(&socket, method, path, body);

    let answer = ask("GET", "/v1/status", "");
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")));
    assert_eq!(answer.json()["instances"][0]["state"], "up");
    assert_eq!(ask("GET", "/v1/ports", "").json()["instances"][0]["user"], "alice");

    assert!(ask("POST", "/v1/stop", "{\"user\":\"alice\"}").status < 300);
    host.until_state("alice", StateName::Stopped);
    assert!(ask("POST", "/v1/start", "{\"user\":\"alice\"}").status < 300);
    let up = host.until_state("alice", StateName::Up);
    assert!(ask("POST", "/v1/restart", "{\"user\":\"alice\",\"server\":\"notes\"}").status < 300);
    host.until("another run is up", || {
        let now = host.instance("alice");
        now.run > up.run && now.state == StateName::Up
    });

    let unknown = ask("GET", "/v1/stauts", "");
    assert!(unknown.status == 404 && unknown.body.contains("GET /v1/status"), "{unknown:?}");
    let nobody = ask("POST", "/v1/stop", "{\"user\":\"zoe\"}");
    assert!(nobody.status == 404 && nobody.body.contains("there is no user \\\"zoe\\\""), "{nobody:?}");
    assert_eq!(ask("POST", "/v1/stop", "{\"usr\":\"alice\"}").status, 400);
    assert_eq!(host.instance("alice").state, StateName::Up);
}

#[test]
fn exit_statuses_are_as_promised() {
    let mut host = one_user();
    assert_eq!(status(&host.cli(&["status"])), 0);
    assert_eq!(status(&host.cli(&["stop", "zoe"])), 1);
    assert_eq!(status(&host.cli(&["logs", "zoe"])), 1);
    for wrong in
        [&["start", "../x"][..], &["start"], &["frobnicate"], &[], &["remove", "alice"], &["add", "a/b"]]
    {
        assert_eq!(status(&host.cli(wrong)), 2, "{wrong:?}");
    }
    // A server where a user stands, and nobody where root must say whom.
    let said = text(&host.cli(&["restart", "notes"]).stderr);
    assert!(said.contains("no notes.env in env.d; the server is USER/notes"), "{said}");
    assert!(host.stop().success());
    for verb in [&["status"][..], &["start", "alice"], &["ports"], &["logs", "alice"], &["reload"]] {
        let output = host.cli(verb);
        let said = text(&output.stderr);
        assert_eq!(status(&output), 3, "{verb:?}: {said}");
        assert!(said.contains("cannot reach the daemon at ") && said.contains("control.sock"), "{said}");
    }
}

#[test]
fn another_user_sees_and_steers_nothing_of_somebody_elses() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: only root can be somebody else");
        return;
    }
    let host = one_user();
    let program = host.path().join("mcpsup");
    copy_program(MCPSUP.as_ref(), &program);
    std::fs::set_permissions(host.path(), std::fs::Permissions::from_mode(0o711)).unwrap();
    let as_nobody = |args: &[&str]| {
        let mut command = Command::new(&program);
        command.arg("--config").arg(host.path().join("mcpsup.toml")).args(args);
        command.stdin(Stdio::null()).uid(65534).gid(65534).output().unwrap()
    };
    for args in [
        &["status", "alice"][..],
        &["stop", "alice"],
        &["start", "alice"],
        &["restart", "alice"],
        &["logs", "alice"],
        &["reload"],
        &["start", "nobody-of-this-name"],
    ] {
        let output = as_nobody(args);
        assert_eq!(status(&output), 4, "{args:?}: {}", text(&output.stderr));
    }
    let removed = as_nobody(&["remove", "alice", "--yes"]);
    assert_eq!(status(&removed), 4, "{}", text(&removed.stderr));
    let added = as_nobody(&["add", "mallory"]);
    assert_eq!(status(&added), 4, "{}", text(&added.stderr));
    assert!(text(&added.stderr).contains("only root writes into env.d here"), "{}", text(&added.stderr));
    let edited = as_nobody(&["edit", "alice"]);
    for refused in [&added, &edited] {
        let said = text(&refused.stderr);
        assert_eq!(status(refused), 4, "{said}");
        assert!(said.contains("cannot write into") && said.contains("mcpsup set and unset"), "{said}");
    }
    let all = as_nobody(&["status", "--json"]);
    let report: StatusReport = serde_json::from_slice(&all.stdout).unwrap();
    assert!(report.instances.is_empty() && report.notes.is_empty(), "{report:?}");
    assert_eq!(host.instance("alice").state, StateName::Up);
    assert!(host.env_dir().join("alice.env").exists());
}

#[test]
fn every_question_has_an_answer_in_json() {
    let host = one_user();
    for args in [
        &["status", "--json"][..],
        &["status", "alice", "--json"],
        &["ports", "--json"],
        &["check", "--json"],
        &["start", "alice", "--json"],
        &["restart", "alice", "--json"],
        &["stop", "alice", "--json"],
        &["start", "--all", "--json", "--no-wait"],
    ] {
        let out = host.ok(args);
        serde_json::from_str::<serde_json::Value>(&out)
            .unwrap_or_else(|error| panic!("{args:?}: {error}: {out}"));
    }
}

#[test]
fn every_deed_says_in_json_what_was_done() {
    let host = one_user();
    let deed = |args: &[&str]| -> serde_json::Value {
        let mut command = Command::new(MCPSUP);
        command.arg("--config").arg(host.path().join("mcpsup.toml")).args(args).env("EDITOR", "true");
        let output = command.stdin(Stdio::null()).output().unwrap();
        serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{args:?}: {error}: {}", text(&output.stderr)))
    };
    assert_eq!(deed(&["reload", "--json"])["reloaded"], true);
    let edited = deed(&["edit", "alice", "--json"]);
    assert_eq!((&edited["user"], &edited["changed"]), (&"alice".into(), &false.into()));

    let given = host.path().join("given");
    std::fs::write(&given, "OTHER=no-token-here\n").unwrap();
    let add = ["add", "bob", "--from", given.to_str().unwrap(), "--json"];
    let refused = deed(&add);
    assert!(refused["written"].is_null() && refused["problems"][0]["text"].is_string(), "{refused}");
    std::fs::write(&given, "NOTES_TOKEN=bobs-own-token\n").unwrap();
    let added = deed(&add);
    assert!(added["written"].as_str().unwrap().ends_with("env.d/bob.env"), "{added}");
    assert_eq!((&added["daemon"], &added["instances"][0]["state"]), (&true.into(), &"up".into()));

    let removed = deed(&["remove", "bob", "--yes", "--json"]);
    assert_eq!((&removed["user"], &removed["removed"]), (&"bob".into(), &true.into()));
    assert_eq!(removed["deleted"][0], added["written"]);
    assert_eq!(host.status().instances.len(), 1);
}

#[test]
fn a_user_is_removed_though_mcpsup_toml_is_broken() {
    let mut host = one_user();
    host.kill_daemon();
    std::fs::write(host.path().join("mcpsup.toml"), "broken\n").unwrap();
    host.start();
    host.until("its run is found", || host.instance("alice").pid.is_some());
    assert!(host.ok(&["remove", "alice", "--yes"]).contains("alice: removed in "));
    assert!(host.status().instances.is_empty());
}

/// A verb that goes on until it is ended, and what it prints line by line.
struct Following {
    child: std::process::Child,
    lines: mpsc::Receiver<String>,
}

impl Following {
    fn new(host: &Host, args: &[&str]) -> Self {
        let mut command = Command::new(MCPSUP);
        command.arg("--config").arg(host.path().join("mcpsup.toml")).args(args);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let (said, lines) = mpsc::channel();
        std::thread::spawn(move || out.lines().map_while(Result::ok).try_for_each(|line| said.send(line)));
        Self { child, lines }
    }

    fn until(&mut self, wanted: impl Fn(&str) -> bool) -> String {
        loop {
            let line = self.lines.recv_timeout(LIMIT).expect("it goes on");
            if wanted(&line) {
                return line;
            }
        }
    }
}

impl Following {
    fn until_it_ends(&self, why: &str) {
        let ended = loop {
            match self.lines.recv_timeout(LIMIT) {
                Ok(_) => {}
                Err(error) => break error,
            }
        };
        assert_eq!(ended, mpsc::RecvTimeoutError::Disconnected, "{why}");
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

#[test]
fn a_watched_status_shows_a_change() {
    let host = one_user();
    let mut watch = Following::new(&host, &["status", "--watch", "--json"]);
    let has = |line: &str, state| {
        let report: StatusReport = serde_json::from_str(line).unwrap();
        report.instances.iter().any(|one| one.state == state)
    };
    watch.until(|line| has(line, StateName::Up));
    host.ok(&["stop", "alice"]);
    watch.until(|line| has(line, StateName::Stopped));
    host.ok(&["start", "alice"]);
    watch.until(|line| has(line, StateName::Up));

    std::fs::rename(host.env_dir(), host.path().join("away")).unwrap();
    watch.until(|line| !serde_json::from_str::<StatusReport>(line).unwrap().problems.is_empty());
    std::fs::rename(host.path().join("away"), host.env_dir()).unwrap();
    watch.until(|line| serde_json::from_str::<StatusReport>(line).unwrap().problems.is_empty());

    let mut people = Following::new(&host, &["status", "--watch"]);
    people.until(|line| line.starts_with("alice") && line.contains(" up "));
    host.ok(&["stop", "alice"]);
    people.until(|line| line.starts_with("alice") && line.contains(" stopped "));
}

#[test]
fn a_followed_log_goes_on_over_rotation_and_the_next_run() {
    let mut host = Host::new(&format!("[log]\nmax_size = \"64K\"\nkeep = 2\n{}", unruly("")));
    host.save("alice", "TOKEN=some-token-or-other\n");
    host.start();
    host.until_all_up(1);
    let mut follow = Following::new(&host, &["logs", "alice", "-f"]);
    follow.until(|line| line == "mcpsup: run 1 started");

    // Never more at once than is kept: whoever reads more slowly than that misses some, as with `tail -F`.
    for run in 2..=6 {
        const LINES: usize = 2600;
        let flood = format!("--flood {}", LINES * "all work and no play makes a dull log\n".len());
        host.save("alice", &format!("TOKEN=some-token-or-other\nNUMBER={run}\nUNRULY={flood}\n"));
        let started = format!("mcpsup: run {run} started");
        follow.until(|line| line == started);
        for _ in 0..LINES {
            follow.until(|line| line.starts_with("all work"));
        }
    }
    host.save("alice", "TOKEN=some-token-or-other\n");
    follow.until(|line| line == "mcpsup: run 7 started");
    let kept = std::fs::read_dir(host.path().join("logs/alice")).unwrap().count();
    assert!((2..=3).contains(&kept), "{kept}");
}

#[test]
fn what_was_stopped_stays_stopped_over_a_daemon_restart_until_it_is_started() {
    let mut host = one_user();
    host.save("bob", "NOTES_TOKEN=bobs-own-token\n");
    host.until_all_up(2);
    host.ok(&["stop", "alice"]);
    let run = host.instance("alice").run;

    assert!(host.stop().success());
    host.start();
    host.until_state("bob", StateName::Up);
    assert_eq!(host.instance("alice").state, StateName::Stopped);
    host.save("alice", "NOTES_TOKEN=alices-new-token\n");
    host.kill_daemon();
    host.start();
    host.until_state("bob", StateName::Up);
    let alice = host.instance("alice");
    assert_eq!((alice.state, alice.pid), (StateName::Stopped, None));
    assert_eq!(alice.note.as_deref(), Some("stopped; mcpsup start alice/notes starts it"));

    host.ok(&["start", "alice"]);
    let up = host.instance("alice");
    assert!(up.state == StateName::Up && up.run > run);
}

#[test]
fn removing_a_user_frees_their_port_and_nothing_else_does() {
    let host = one_user();
    let alice = host.instance("alice");
    host.save("bob", "NOTES_TOKEN=bobs-own-token\n");
    assert_ne!(host.until_state("bob", StateName::Up).port, alice.port);

    let mut follow = Following::new(&host, &["logs", "alice", "-f"]);
    follow.until(|line| line == "mcpsup: run 1 started");
    let said = host.ok(&["remove", "alice", "--yes"]);
    assert!(said.contains("alice: removed in "), "{said}");
    assert!(!host.env_dir().join("alice.env").exists());
    assert!(host.status().instances.iter().all(|one| one.user.as_str() != "alice"));
    follow.until_it_ends("nobody will write there any more");
    // Not by listening there: a program that another test just starts might have that listener for a moment.
    let nobodys = std::net::TcpStream::connect(("127.0.0.1", alice.port.unwrap())).unwrap_err();
    assert_eq!(nobodys.kind(), std::io::ErrorKind::ConnectionRefused);

    host.save("carol", "NOTES_TOKEN=carols-own-token\n");
    assert_eq!(host.until_state("carol", StateName::Up).port, alice.port);
    // Not for how long it has been so.
    let bob = || {
        let bob = host.instance("bob");
        (bob.state, bob.run, bob.pid, bob.port, bob.strikes, bob.problems)
    };
    let before = bob();
    assert_eq!(status(&host.cli(&["remove", "zoe", "--yes"])), 1);
    assert_eq!(bob(), before);
}

#[test]
fn a_user_who_comes_back_while_being_removed_stays() {
    let mut host = Host::with_unruly("[server.unruly.stop]\ngrace = \"10m\"\n");
    host.save("alice", "UNRULY=--ignore-term\n");
    host.start();
    let before = host.until_state("alice", StateName::Up);
    host.ok(&["remove", "alice", "--yes", "--no-wait"]);
    let going = host.until_state("alice", StateName::Stopping);
    assert_eq!(going.note.as_deref(), Some("being removed"));
    host.save("alice", "A=1\n");
    host.until("the new file is seen", || host.log().contains("their file is back"));
    end(before.pid.unwrap());
    let again = host.until_some("the new file runs", || {
        let now = host.status().instances.into_iter().find(|one| one.user.as_str() == "alice")?;
        (now.state == StateName::Up && now.run > before.run).then_some(now)
    });
    assert_eq!(again.port, before.port);

    // What was to be removed once nothing runs is not removed when nothing runs.
    host.ok(&["stop", "alice"]);
    let stopped = host.instance("alice");
    assert_eq!((stopped.state, stopped.port), (StateName::Stopped, before.port));
}

#[test]
fn a_removed_user_who_comes_again_is_not_held_by_an_old_stop() {
    let host = one_user();
    host.ok(&["stop", "alice"]);
    host.ok(&["remove", "alice", "--yes"]);
    host.until("alice is forgotten", || host.status().instances.is_empty());
    assert!(!host.log().contains("run=2"), "nothing was started for the sake of a vanished file");
    host.save("alice", "NOTES_TOKEN=alices-own-token\n");
    host.until_all_up(1);
}

#[test]
fn add_takes_credentials_from_a_pipe_writes_them_closed_and_waits_until_they_run() {
    let host = one_user();
    let add = |args: &[&str], input: &str| {
        let mut command = Command::new(MCPSUP);
        command.arg("--config").arg(host.path().join("mcpsup.toml")).args(args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // Who is refused for another reason may not have read it.
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap_or_default();
        child.wait_with_output().unwrap()
    };
    let output = add(&["add", "bob"], "NOTES_TOKEN=pa$$word with  blanks\n");
    assert_eq!(status(&output), 0, "{}", text(&output.stderr));
    assert_eq!(host.instance("bob").state, StateName::Up);
    let file = host.env_dir().join("bob.env");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o7777, 0o600);
    let written = std::fs::read_to_string(&file).unwrap();

    let again = add(&["add", "bob"], "NOTES_TOKEN=another-token\n");
    assert_eq!(status(&again), 1);
    assert!(text(&again.stderr).contains("bob has "), "{}", text(&again.stderr));
    let broken = add(&["add", "carol"], "NOTES_TOKEN=x\nsecret-that-is-no-assignment\n");
    let said = text(&broken.stderr);
    assert_eq!(status(&broken), 1);
    assert!(said.contains(":2: ") && !said.contains("secret-that"), "{said}");
    let lacking = add(&["add", "carol"], "OTHER=something\n");
    assert!(text(&lacking.stderr).contains("NOTES_TOKEN"), "{}", text(&lacking.stderr));
    assert!(!host.env_dir().join("carol.env").exists());
    assert_eq!(std::fs::read_to_string(&file).unwrap(), written);
}

#[test]
fn check_tells_every_problem_that_the_daemon_would_and_starts_nothing() {
    let host = Host::with_notes();
    host.save("alice", "NOTES_TOKEN=alices-own-token\n");
    let right = host.cli(&["check"]);
    assert!(
        status(&right) == 0
            && text(&right.stdout).contains("right")
            && !text(&right.stderr).contains("not seen")
    );
    let unseen = host.env_dir().join("tool.py");
    std::fs::copy("/bin/true", &unseen).unwrap();
    let unseen = unseen.display().to_string();
    let tool = format!("[server.tool]\ncommand = [\"{unseen}\"]\ntransport = \"stdio\"\n");
    host.configure(&format!("{}\n{tool}", notes()));
    let note = format!("not seen by servers: {unseen}, which server \"tool\" names");
    let said = text(&host.cli(&["check"]).stderr);
    assert!(said.contains(&format!("note: {note}")), "{said}");
    let said = text(&host.cli(&["doctor"]).stdout);
    assert!(said.contains(&note) && said.contains("edit: "), "{said}");
    assert!(!said.contains("chmod"), "nobody is told to open env.d: {said}");
    host.configure(&notes());
    std::fs::remove_file(unseen).unwrap();
    host.save("bob", "oh dear\n");
    host.save("carol", "MORE=but-not-the-token\n");
    host.save("dave", "NOTES_TOKEN=daves-own-token\nMCPSUP_PROT=4000\n");
    host.save("erin", "NOTES_TOKEN=erins-own-token\n");
    let erin = host.env_dir().join("erin.env");
    std::fs::set_permissions(&erin, std::fs::Permissions::from_mode(0o644)).unwrap();
    nix::unistd::mkfifo(&host.env_dir().join("frank.env"), nix::sys::stat::Mode::S_IRUSR).unwrap();
    host.save("grace", "NOTES_TOKEN=graces-own-token\nMCPSUP_SERVERS=notse\n");

    let output = host.cli(&["check"]);
    let (said, mend) = (text(&output.stdout), format!("chmod 600 {}", erin.display()));
    assert_eq!(status(&output), 1);
    for problem in [
        "env.d/bob.env:1: expected NAME=value",
        "env.d/carol.env: NOTES_TOKEN is ",
        "env.d/dave.env:2: MCPSUP_PROT is no setting of mcpsup; did you mean MCPSUP_PORT?",
        "env.d/erin.env: may be read by others (mode 0644); ",
        &mend,
        "env.d/frank.env: is a FIFO, not a file",
        "env.d/grace.env:2: MCPSUP_SERVERS lists, as number 1, a server that is not in mcpsup.toml",
    ] {
        assert!(said.contains(problem), "{problem}\n{said}");
    }
    assert!(!host.path().join("state").exists(), "nothing is made");
}

#[test]
fn init_writes_what_check_accepts_and_overwrites_nothing() {
    let dir = tempfile::Builder::new().prefix("mcpsup-it-").tempdir().unwrap();
    let config = dir.path().join("new/mcpsup.toml");
    let run = |verb| Command::new(MCPSUP).arg("--config").arg(&config).arg(verb).output().unwrap();
    assert_eq!(status(&run("init")), 0);
    let written = std::fs::read_to_string(&config).unwrap();
    let env_dir = std::fs::metadata(dir.path().join("new/env.d")).unwrap();
    assert_eq!(env_dir.permissions().mode() & 0o7777, 0o700);

    let again = run("init");
    assert_eq!(status(&again), 1);
    assert!(text(&again.stderr).contains("it is there already"), "{}", text(&again.stderr));
    assert_eq!(std::fs::read_to_string(&config).unwrap(), written);

    let config = dir.path().join("other/mcpsup.toml");
    let output = Command::new(MCPSUP).arg("--config").arg(&config).args(["init", "--json"]).output().unwrap();
    let said: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(said["written"][0], config.to_str().unwrap());
}

#[test]
fn completions_complete_user_names_and_the_manual_prints() {
    let host = one_user();
    let script = host.ok(&["completions", "bash"]);
    assert!(script.contains("mcpsup"), "{script}");
    let complete = |words: &[&str]| {
        let config = host.path().join("mcpsup.toml");
        let mut command = Command::new(MCPSUP);
        command.args(["--", "mcpsup", "--config", config.to_str().unwrap()]).args(words);
        command.env("MCPSUP_COMPLETE", "bash").env("_CLAP_COMPLETE_INDEX", (words.len() + 2).to_string());
        command
            .env("_CLAP_COMPLETE_COMP_TYPE", "9")
            .env("_CLAP_COMPLETE_SPACE", "false")
            .env("_CLAP_IFS", "\n");
        text(&command.output().unwrap().stdout)
    };
    assert!(complete(&["stop", "al"]).contains("alice"), "{}", complete(&["stop", "al"]));
    assert!(complete(&["sta"]).contains("status"));
    let manual = host.ok(&["man"]);
    assert!(manual.starts_with(".ie") || manual.contains(".TH"), "{manual}");
}

#[test]
fn a_caller_who_says_nothing_or_garbage_bothers_nobody() {
    let host = one_user();
    let socket = host.path().join("run/control.sock");
    let connect = || std::os::unix::net::UnixStream::connect(&socket).unwrap();
    let silent: Vec<_> = (0..10).map(|_| connect()).collect();
    for garbage in [
        &b"\0\xff\x16\x03\x01"[..],
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /v1/stop HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n",
    ] {
        let mut stream = connect();
        stream.set_read_timeout(Some(crate::host::LIMIT)).unwrap();
        stream.write_all(garbage).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap_or_default();
        let answer = text(&answer);
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{garbage:?}: {answer}");
    }
    assert_eq!(host.instance("alice").state, StateName::Up);
    drop(silent);
    assert!(host.call("alice", "whoami", "{}").is_ok());
}
