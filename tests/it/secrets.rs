//! No secret value of any env file is to be found anywhere but in its file and its process.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use mcpsup::model::status::StateName;
use nix::sys::signal::Signal;

use crate::host::{Done, Host, LIMIT, MCPSUP, copy_program, example, text, write};
use crate::stdio::Client;

/// Of every kind: plain, with what JSON, URLs and shells write differently, over several lines,
/// and a short one that is declared.
const SECRETS: [(&str, &str); 4] = [
    ("PLAIN_TOKEN", "sk-live-4eC39HqLyjWDarjtT1zdp7dc"),
    ("ODD_PASSWORD", "pa$$w\"ord\\with+every/thing=&%20 in it"),
    ("PEM_KEY", "-----BEGIN KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQ\nEFAASCBKcwggSjAgEAAoIB\n-----END KEY-----"),
    ("DECLARED_PIN", "7QX4z1"),
];

/// The text of an env file with all of them.
fn file(more: &str) -> String {
    let quoted = SECRETS.map(|(name, value)| {
        let value = value.replace('\\', r"\\").replace('"', r#"\""#).replace('$', r"\$");
        format!("{name}=\"{value}\"\n")
    });
    format!("{}{more}", quoted.concat())
}

/// Everything that would betray one of them: itself, its lines, and its usual encodings.
fn needles() -> Vec<(String, Vec<u8>)> {
    let mut needles = Vec::new();
    for (name, value) in SECRETS {
        let mut say = |form: &str, bytes: Vec<u8>| needles.push((format!("{name} {form}"), bytes));
        let json = serde_json::to_string(value).unwrap();
        say("json", json[1..json.len() - 1].into());
        let percent = |all: bool| -> String {
            let one = |byte: u8| match byte {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' if !all => {
                    (byte as char).to_string()
                }
                _ => format!("%{byte:02X}"),
            };
            value.bytes().map(one).collect()
        };
        say("url", percent(false).into());
        say("url, all of it", percent(true).into());
        for line in value.lines().filter(|line| !line.starts_with("-----")) {
            say("line", line.into());
        }
        for engine in [&STANDARD_NO_PAD, &URL_SAFE_NO_PAD] {
            for before in 0..3 {
                let encoded = engine.encode([&b"xyz"[..before], value.as_bytes()].concat());
                // The first and the last characters depend on what stands beside.
                say("base64", encoded.as_bytes()[4..encoded.len() - 4].into());
            }
        }
    }
    needles.retain(|(_, needle)| needle.len() >= 6);
    needles
}

#[track_caller]
fn has_none(what: &str, haystack: &[u8]) {
    for (name, needle) in needles() {
        let at = haystack.windows(needle.len()).position(|window| window == needle);
        assert!(at.is_none(), "{what} shows {name}:\n{}", text(haystack));
    }
}

/// Looks into every file below a directory, names too.
fn none_below(dir: &Path) {
    let entries = match std::fs::read_dir(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return,
        entries => entries.unwrap(),
    };
    for entry in entries.flatten() {
        let (path, kind) = (entry.path(), entry.file_type().unwrap());
        has_none("a name", path.as_os_str().as_encoded_bytes());
        if kind.is_dir() && !path.ends_with("env.d") {
            none_below(&path);
        } else if kind.is_file() {
            match std::fs::read(&path) {
                // The daemon has put another in its place, or taken it away, since it was listed.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                read => has_none(&path.display().to_string(), &read.unwrap()),
            }
        }
    }
}

fn server() -> String {
    let prints: String = SECRETS
        .iter()
        .flat_map(|(name, _)| {
            ["raw", "split", "json", "base64", "url"]
                .map(|form| format!(", \"--print\", \"{name}\", \"{form}\""))
        })
        .collect();
    let mut server = crate::host::unruly(
        "[server.unruly.credential.DECLARED_PIN]\ndescription = \"a pin\"\npattern = \"^[0-9A-Za-z]+$\"",
    );
    let command_end = server.find("]\ntransport").unwrap();
    server.insert_str(command_end, &prints);
    server
}

/// Every argument of every process of this machine, for as long as `done` is false.
fn watch_arguments(done: &AtomicBool, seen: &Mutex<BTreeSet<Vec<u8>>>) {
    while !done.load(Ordering::Relaxed) {
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let name = entry.file_name();
            if name.as_encoded_bytes()[0].is_ascii_digit() {
                let arguments = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
                seen.lock().unwrap().insert(arguments);
            }
        }
    }
}

#[test]
fn no_secret_value_is_in_arguments_logs_errors_status_records_or_the_port_map() {
    let mut host = Host::new(&server());
    host.save("alice", &file(""));
    // A broken file, a value that does not match, a value where a name should be.
    host.save("bob", &format!("{}PLAIN_TOKEN=twice\n{}\n", file(""), SECRETS[0].1));
    host.save("carol", &file("").replace("7QX4z1", "7QX4z1!sk-live-4eC39HqLyjWDarjtT1zdp7dc"));
    host.save(
        "dave",
        &file(&format!("MCPSUP_SERVERS={0}\nMCPSUP_PORT={0}\nMCPSUP_RUN_AS={0}\n", SECRETS[0].1)),
    );
    host.save("erin", &format!("ODD=\"{}", SECRETS[2].1));
    let (done, seen) = (AtomicBool::new(false), Mutex::new(BTreeSet::new()));
    let mut shown = Vec::new();
    std::thread::scope(|scope| {
        scope.spawn(|| watch_arguments(&done, &seen));
        // However this ends, the watching ends.
        let _done = Done(&done);
        host.start();
        host.until_state("alice", StateName::Up);
        host.ok(&["restart", "alice"]);
        host.save("alice", &file("MORE=something\n"));
        let run = host.instance("alice").run;
        host.ok(&["restart", "alice", "--json"]);
        host.until("the new file runs", || host.instance("alice").run > run);
        host.until_state("alice", StateName::Up);
        for args in [
            &["status"][..],
            &["status", "-v"],
            &["status", "--json"],
            &["status", "bob"],
            &["check"],
            &["check", "--verbose"],
            &["check", "--json"],
            &["ports"],
            &["ports", "--json"],
            &["logs", "alice"],
            &["client", "alice", "--for", "claude-code"],
            &["start", "bob", "--timeout", "1s"],
            &["restart", "carol", "--timeout", "1s"],
            &["stop", "dave"],
        ] {
            let output = host.cli(args);
            shown.push((args.join(" "), [output.stdout, output.stderr].concat()));
        }
    });
    for (what, shown) in &shown {
        has_none(&format!("mcpsup {what}"), shown);
    }
    for arguments in seen.lock().unwrap().iter() {
        has_none("an argument list", arguments);
    }
    host.until("the log has come", || host.ok(&["logs", "alice"]).contains("url: [redacted]"));
    none_below(host.path());
    for user in ["bob", "carol", "dave", "erin"] {
        assert!(!host.instance(user).problems.is_empty(), "{user}");
    }
    let log = host.ok(&["logs", "alice"]);
    for form in ["raw: [redacted]", "split: [redacted]", "json: ", "base64: ", "url: "] {
        assert!(log.contains(form), "{form}: {log}");
    }

    // A daemon that finds the run again knows what to leave out as well.
    host.kill_daemon();
    host.start();
    host.until_state("alice", StateName::Up);
    none_below(host.path());
    assert!(host.stop().success());
    none_below(host.path());
}

/// Whether these limits, as `/proc/PID/limits` shows them, let no core be made.
fn leave_no_core(limits: &str) -> bool {
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    let values: Vec<_> = core.split_whitespace().skip(4).take(2).collect();
    crate::seen::forbids_cores(&values)
}

#[test]
fn a_command_that_hears_secrets_leaves_no_core_nor_does_the_editor_it_starts() {
    let host = Host::with_notes();
    host.save("alice", "NOTES_TOKEN=alices-own-token\n");
    let (editor, seen) = (host.path().join("editor"), host.path().join("limits"));
    let both = format!("#!/bin/sh\ncat /proc/$PPID/limits /proc/$$/limits >{}\n", seen.display());
    write(&editor, &both, 0o755);
    let mut command = Command::new(MCPSUP);
    command.arg("--config").arg(host.path().join("mcpsup.toml")).args(["edit", "alice"]);
    let output = command.env("EDITOR", &editor).stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let limits = std::fs::read_to_string(&seen).unwrap();
    let each: Vec<_> = limits.split("Soft Limit").skip(1).collect();
    assert_eq!(each.len(), 2, "{limits}");
    assert!(each.iter().all(|limits| leave_no_core(limits)), "{limits}");
}

#[test]
fn a_daemon_that_dies_leaves_no_core_and_its_memory_is_closed() {
    let mut host = Host::with_notes();
    host.save("alice", "NOTES_TOKEN=alices-own-token\n");
    host.spawn_where_cores_are_written();
    host.until("the daemon answers", || host.cli(&["status"]).status.success());
    let alice = host.until_state("alice", StateName::Up);
    for pid in [host.daemon_pid(), i32::try_from(alice.pid.unwrap()).unwrap()] {
        let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
        assert!(leave_no_core(&limits), "{limits}");
    }
    host.signal_daemon(Signal::SIGABRT);
    let ended = host.wait_for_end();
    assert_eq!((ended.signal(), ended.core_dumped()), (Some(Signal::SIGABRT as i32), false));
    let names: Vec<_> =
        std::fs::read_dir(host.path()).unwrap().flatten().map(|entry| entry.file_name()).collect();
    assert!(!names.iter().any(|name| name.to_string_lossy().starts_with("core")), "{names:?}");
}

#[test]
fn the_memory_of_an_ordinary_users_daemon_belongs_to_root() {
    if !nix::unistd::geteuid().is_root() {
        // The test's own daemon is an ordinary user's.
        let mut host = Host::with_notes();
        host.start();
        assert_eq!(std::fs::metadata(format!("/proc/{}/mem", host.daemon_pid())).unwrap().uid(), 0);
        return;
    }
    let dir = tempfile::Builder::new().prefix("mcpsup-it-").tempdir().unwrap();
    let (program, config) = (dir.path().join("mcpsup"), dir.path().join("mcpsup.toml"));
    copy_program(Path::new(MCPSUP), &program);
    write(&config, "[server.x]\ncommand = [\"/bin/false\"]\ntransport = \"http\"\n", 0o600);
    for path in [dir.path(), &config] {
        std::os::unix::fs::chown(path, Some(65534), Some(65534)).unwrap();
    }
    let mut command = Command::new(&program);
    command.arg("--config").arg(&config).arg("daemon").uid(65534).gid(65534);
    let mut daemon = command.stdin(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let socket = dir.path().join("run/control.sock");
    let begun = std::time::Instant::now();
    while !socket.exists() {
        assert!(begun.elapsed() < crate::host::LIMIT && daemon.try_wait().unwrap().is_none());
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let owner = std::fs::metadata(format!("/proc/{}/mem", daemon.id())).unwrap().uid();
    daemon.kill().unwrap();
    daemon.wait().unwrap();
    assert_eq!(owner, 0);
}

/// Every place of a process's writable memory where these bytes are.
fn found_in_memory(pid: i32, needle: &[u8]) -> Vec<String> {
    use std::os::unix::fs::FileExt;
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let memory = std::fs::File::open(format!("/proc/{pid}/mem")).unwrap();
    let mut found = Vec::new();
    for line in maps.lines().filter(|line| line.split(' ').nth(1).is_some_and(|mode| mode.starts_with("rw")))
    {
        let (from, to) = line.split_once(' ').unwrap().0.split_once('-').unwrap();
        let (from, to) = (u64::from_str_radix(from, 16).unwrap(), u64::from_str_radix(to, 16).unwrap());
        let mut bytes = vec![0; usize::try_from(to - from).unwrap()];
        // What cannot be read (a guard, a device) holds nothing of ours.
        if memory.read_exact_at(&mut bytes, from).is_ok() {
            let at = bytes.windows(needle.len()).enumerate().filter(|(_, window)| *window == needle);
            found.extend(at.map(|(at, _)| {
                let around = text(&bytes[at.saturating_sub(48)..(at + needle.len() + 48).min(bytes.len())]);
                format!("{:#x} {line}: {}", from + at as u64, around.escape_debug())
            }));
        }
    }
    found
}

#[test]
fn a_removed_credential_is_gone_from_the_daemons_memory() {
    if !crate::seen::is_root() {
        return;
    }
    let mut host = Host::with_notes();
    // Halves, so that this test does not find its own.
    let (one, other) = ("s3cret-of-alice-", "0123456789abcdef");
    let needle = [one.as_bytes(), other.as_bytes()].concat();
    host.start();
    host.save("bob", "NOTES_TOKEN=bobs-own-token\n");
    host.save("alice", &format!("NOTES_TOKEN={one}{other}\n"));
    host.until_all_up(2);
    // Everything that handles it: a restart, a call, a status, a log line with it, a check.
    host.call("alice", "add_note", "{\"text\":\"x\"}").unwrap();
    host.ok(&["restart", "alice"]);
    host.ok(&["status", "-v"]);
    host.until_all_up(2);
    assert!(!found_in_memory(host.daemon_pid(), &needle).is_empty(), "it is looked for in the right place");

    host.delete("alice");
    host.until_state("alice", StateName::Gone);
    let left = left_after_a_while(|| found_in_memory(host.daemon_pid(), &needle));
    assert_eq!(left, Vec::<String>::new());
    // Nor in that of whoever makes its processes.
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let parent = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let parent = parent.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1)?.parse().ok());
        let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        if parent == Some(host.daemon_pid()) && name.trim() != "notes" {
            assert_eq!(found_in_memory(pid, &needle), Vec::<String>::new(), "{name}");
        }
    }
    assert_eq!(host.instance("bob").state, StateName::Up);
}

/// Where any eight bytes on end of this are in a process's writable memory.
fn parts_in_memory(pid: i32, secret: &str) -> Vec<String> {
    let parts: Vec<&[u8]> = secret.as_bytes().windows(PART).collect();
    parts.iter().step_by(PART / 2).flat_map(|part| found_in_memory(pid, part)).collect()
}

/// So many bytes of a credential on end tell somebody something.
const PART: usize = 8;

fn left_in_memory(pid: i32, secret: &str) -> Vec<String> {
    left_after_a_while(|| parts_in_memory(pid, secret))
}

/// Asks until nothing is found any more; what is left when the time is over.
fn left_after_a_while(find: impl Fn() -> Vec<String>) -> Vec<String> {
    let begun = std::time::Instant::now();
    loop {
        let left = find();
        if left.is_empty() || begun.elapsed() > LIMIT {
            return left;
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
}

/// A value that is nowhere else: not in this program, where a needle would be found as well.
fn made_up(seed: u64) -> String {
    let mut state = (seed << 1) ^ (u64::from(std::process::id()) << 32) | 1;
    let mut letter = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        char::from(b'a' + u8::try_from((state >> 33) % 26).unwrap())
    };
    (0..64).map(|_| letter()).collect()
}

#[test]
fn no_part_of_a_credential_that_is_gone_is_left_in_the_daemons_memory() {
    if !crate::seen::is_root() {
        return;
    }
    // It tells its log and its clients what it was given.
    let mut host = Host::new(&format!(
        "[server.lines]\ncommand = [{:?}]\ntransport = \"stdio\"\n\
         [server.lines.credential.TOKEN]\ndescription = \"a token\"\nrequired = false\n",
        example("lines")
    ));
    host.start();
    let pid = host.daemon_pid();
    let [first, second, third] = [made_up(1), made_up(2), made_up(3)];
    host.save("alice", &format!("TOKEN={first}\n"));
    host.until_all_up(1);
    assert!(!parts_in_memory(pid, &first).is_empty(), "it is looked for in the right place");
    let client = Client::begin(&host, "alice");
    client.text("pid", &serde_json::json!({}));
    host.ok(&["status", "-v"]);
    host.ok(&["restart", "alice"]);
    // Another takes its place, by the file and by the control socket; then none.
    host.save("alice", &format!("TOKEN={second}\n"));
    host.until("it has another", || parts_in_memory(pid, &second).len() > 1);
    host.until_all_up(1);
    assert_eq!(left_in_memory(pid, &first), Vec::<String>::new(), "of a changed file");
    let socket = host.path().join("run/control.sock");
    let set = crate::wire::control(&socket, "POST", "/v1/set?user=alice&name=TOKEN", &third);
    assert!(set.status < 300, "{set:?}");
    host.until_all_up(1);
    assert_eq!(left_in_memory(pid, &second), Vec::<String>::new(), "of one that was set anew");
    let unset = crate::wire::control(&socket, "POST", "/v1/unset?user=alice&name=TOKEN", "");
    assert!(unset.status < 300, "{unset:?}");
    host.until_all_up(1);
    assert_eq!(left_in_memory(pid, &third), Vec::<String>::new(), "of one that was taken back");
}
