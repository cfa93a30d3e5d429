//! What a process is given and what it is not; and what is said when it cannot be started or does
//! not do what it was started for.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

use mcpsup::model::status::StateName;

use crate::host::{Host, MCPSUP, example, unruly};
use crate::seen;

/// A server that opens nothing and changes nothing of what it was given.
const IDLE: &str =
    "[server.idle]\ncommand = [\"/bin/sleep\", \"1000\"]\ntransport = \"http\"\nport_env = \"IDLE_PORT\"\n";

/// The pid of alice's server, once it is itself.
fn idle(host: &Host) -> i32 {
    host.until_some("alice's server runs", || {
        let pid = *seen::servers(host).get("alice")?.first()?;
        std::fs::read(format!("/proc/{pid}/cmdline")).ok()?.starts_with(b"/bin/sleep").then_some(pid)
    })
}

fn with_idle(containment: &str) -> Host {
    let mut host = Host::new("");
    host.configure(&format!(
        "[daemon]\ncontainment = \"{containment}\"\n{IDLE}env = {{ NAME = \"of-{{user}}\" }}\n"
    ));
    host.env.push(("OF_THE_DAEMON".into(), "a secret of the administrator".into()));
    host.save("alice", "TOKEN=alices-own-token\n");
    host
}

fn variables(pid: i32) -> BTreeMap<String, String> {
    let text = String::from_utf8(std::fs::read(format!("/proc/{pid}/environ")).unwrap()).unwrap();
    let pairs = text.split_terminator('\0').map(|pair| pair.split_once('=').unwrap());
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

#[test]
fn the_environment_of_a_process_is_made_from_nothing() {
    for containment in seen::containments() {
        let mut host = with_idle(containment);
        host.start();
        let env = variables(idle(&host));

        let state = host.path().join("state/instances/alice/idle");
        let names: Vec<&str> = env.keys().map(String::as_str).collect();
        assert_eq!(
            names,
            ["HOME", "IDLE_PORT", "LANG", "LOGNAME", "NAME", "PATH", "TMPDIR", "TOKEN", "USER"]
        );
        assert_eq!(env["NAME"], "of-alice");
        assert_eq!(env["TOKEN"], "alices-own-token");
        assert_eq!(env["TMPDIR"], state.join("tmp").to_str().unwrap());
    }
}

fn field<'a>(status: &'a str, name: &str) -> &'a str {
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("no {name}")).trim()
}

fn mode(path: &Path) -> u32 {
    std::fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn a_process_has_its_three_descriptors_its_own_session_and_no_privilege_to_gain() {
    for containment in seen::containments() {
        let mut host = with_idle(containment);
        // As somebody's shell may: with a descriptor open, and signals ignored.
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", "exec 9</dev/null; trap '' HUP INT TERM USR1; exec \"$@\"", "sh", MCPSUP]);
        host.spawn_by(shell);
        let pid = idle(&host);
        let proc = Path::new("/proc").join(pid.to_string());

        let run = host.path().join("run/runs").join(host.instance("alice").run.unwrap().to_string());
        // Its loader has the C library open for a moment.
        host.until(&format!("it has three, {containment}"), || {
            seen::names_in(&proc.join("fd")) == ["0", "1", "2"]
        });
        for (number, file) in [("0", "in"), ("1", "out"), ("2", "out")] {
            assert_eq!(std::fs::read_link(proc.join("fd").join(number)).unwrap(), run.join(file));
        }
        for fifo in ["in", "out"] {
            assert_eq!(mode(&run.join(fifo)), 0o600);
        }
        assert_eq!((mode(&run), mode(run.parent().unwrap())), (0o700, 0o700));

        let status = std::fs::read_to_string(proc.join("status")).unwrap();
        assert_eq!(field(&status, "NoNewPrivs"), "1");
        assert_eq!(field(&status, "Umask"), "0077");
        for signals in ["SigBlk", "SigIgn", "SigCgt"] {
            let set = u64::from_str_radix(field(&status, signals), 16).unwrap();
            // 32 and 33 are the C library's own.
            assert_eq!(set & !(0b11 << 31), 0, "{signals} {set:x}");
        }
        let limits = std::fs::read_to_string(proc.join("limits")).unwrap();
        let limit = |name: &str| {
            let line = limits.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.split_whitespace().take(2).map(str::to_owned).collect::<Vec<_>>()
        };
        assert!(seen::forbids_cores(&limit("Max core file size")), "{limits}");
        assert_eq!(limit("Max open files"), ["1024", "1024"]);

        let of = |pid: i32| nix::unistd::getsid(Some(nix::unistd::Pid::from_raw(pid))).unwrap().as_raw();
        let first = i32::try_from(host.instance("alice").pid.unwrap()).unwrap();
        assert_eq!(of(pid), first);
        assert_ne!(of(pid), of(host.daemon_pid()));

        let state = host.path().join("state/instances/alice/idle");
        assert_eq!(std::fs::read_link(proc.join("cwd")).unwrap(), state);
        assert_eq!((mode(&state), mode(&state.join("tmp"))), (0o700, 0o700));
        assert_eq!(mode(&host.path().join("run/instances/alice/idle")), 0o700);
    }
}

#[test]
fn a_process_runs_as_the_account_that_a_file_of_roots_names() {
    if !seen::is_root() {
        return;
    }
    let nobody = nix::unistd::User::from_name("nobody").unwrap().expect("every host has a nobody");
    for containment in seen::containments() {
        let mut host = with_idle(containment);
        host.save("alice", "MCPSUP_RUN_AS=nobody\nTOKEN=alices-own-token\n");
        host.start();
        let pid = idle(&host);

        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let (uid, gid) = (nobody.uid.to_string(), nobody.gid.to_string());
        assert_eq!(field(&status, "Uid").split_whitespace().collect::<Vec<_>>(), [&*uid; 4]);
        assert_eq!(field(&status, "Gid").split_whitespace().collect::<Vec<_>>(), [&*gid; 4]);
        assert_eq!(field(&status, "Groups"), gid);
        for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
            assert_eq!(field(&status, set), "0000000000000000", "{set}");
        }
        let env = variables(pid);
        assert_eq!((&*env["USER"], Path::new(&env["HOME"])), ("nobody", &*nobody.dir));
        assert!(!env.contains_key("MCPSUP_RUN_AS"));
        for own in
            ["state/instances/alice/idle", "state/instances/alice/idle/tmp", "run/instances/alice/idle"]
        {
            let meta = std::fs::metadata(host.path().join(own)).unwrap();
            assert_eq!((meta.uid(), meta.mode() & 0o7777), (nobody.uid.as_raw(), 0o700), "{own}");
        }
        assert!(host.stop().success());
        seen::until_nothing(&host);
    }
}

/// The first port that this host's processes are given.
fn first_backend(host: &Host) -> u16 {
    let toml = std::fs::read_to_string(host.path().join("mcpsup.toml")).unwrap();
    let (_, rest) = toml.split_once("backend_range = \"").unwrap();
    rest.split('-').next().unwrap().parse().unwrap()
}

/// A host on which a stranger takes what is its processes' first, as `take` says of that port.
fn with_a_stranger<T>(take: impl Fn(u16) -> std::io::Result<T>) -> (Host, u16, T) {
    // A connection of the test before may still be on its port, or another checkout's server.
    for _ in 0..20 {
        let host = Host::with_unruly("");
        let port = first_backend(&host);
        if let Ok(taken) = take(port) {
            return (host, port, taken);
        }
    }
    panic!("no port is free");
}

#[test]
fn a_process_whose_port_a_stranger_holds_gets_another() {
    for address in ["127.0.0.1", "0.0.0.0"] {
        let (mut host, port, _stranger) = with_a_stranger(|port| TcpListener::bind((address, port)));
        host.save("alice", "UNRULY=\n");
        host.start();

        let alice = host.until_state("alice", StateName::Up);

        assert_eq!(host.call("alice", "pid", "{}"), Ok(alice.pid.unwrap().to_string()));
        let says = |line: &str| {
            line.contains(&format!("backend port taken user=alice server=unruly port={port} holder="))
        };
        assert!(host.log().lines().any(says), "{}", host.log());
    }
}

#[test]
fn a_process_whose_port_a_stranger_has_bound_without_listening_gets_another() {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with};
    let take = |port| {
        let flags = SocketFlags::CLOEXEC;
        let stranger = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
        bind(&stranger, &std::net::SocketAddr::from(([127, 0, 0, 1], port)))?;
        Ok::<_, std::io::Error>(stranger)
    };
    let (mut host, _, strangers) = with_a_stranger(|port| Ok([take(port)?, take(port + 1)?]));
    host.save("alice", "UNRULY=\n");
    host.start();

    let alice = host.until_state("alice", StateName::Up);

    assert_eq!(host.call("alice", "pid", "{}"), Ok(alice.pid.unwrap().to_string()));
    assert!(host.log().contains("holder=\"somebody who does not listen there\""), "{}", host.log());
    drop(strangers);
}

#[test]
fn a_server_that_listens_on_another_port_is_told_so() {
    let mut host = Host::with_unruly("");
    let given = first_backend(&host);
    let other = given + 500;
    let allowed = format!("[server.unruly.allow]\nlisten = [{other}]\n");
    host.configure(&unruly(&format!("[server.unruly.ready]\ntimeout = \"20s\"\n{allowed}")));
    host.save("alice", &format!("UNRULY=--elsewhere {other}\n"));
    host.start();

    let text = format!("it listens on {other} instead of the port it was given, {given}");
    host.until("status says so", || {
        host.status().instances.iter().any(|one| one.note.as_deref() == Some(&text))
    });
}

/// One user per kind of failure, and one whose server is good.
fn failures() -> Host {
    let mut host = Host::new("");
    let plain = host.path().join("plain");
    crate::host::write(&plain, "not a program", 0o600);
    let rest = "transport = \"http\"\nport_env = \"UNRULY_PORT\"\nfor_all = false\n";
    let server = |name: &str, program: &Path, more: &str| {
        format!(
            "[server.{name}]\ncommand = [{program:?}, \"--port\", \"{{port}}\"{more}]\n{rest}\
                 ready = {{ timeout = \"500ms\" }}\nstop = {{ grace = \"100ms\" }}\n\
                 restart = {{ first_wait = \"20ms\", max_wait = \"10s\" }}\n"
        )
    };
    let unruly = example("unruly");
    let patient = |server: String| server.replace("500ms", "30s");
    host.configure(
        &[
            patient(server("missing", Path::new("/nowhere/program"), "")),
            patient(server("plain", &plain, "")),
            patient(server("exits", &unruly, ", \"--exit\", \"7\"")),
            server("never", &unruly, ", \"--never\""),
            patient(server("good", &unruly, "")),
        ]
        .concat(),
    );
    for name in ["missing", "plain", "exits", "never", "good"] {
        host.save(&format!("u-{name}"), &format!("MCPSUP_SERVERS={name}\n"));
    }
    host.start();
    host
}

#[test]
fn a_server_that_cannot_run_says_why_and_concerns_nobody_else() {
    let host = failures();
    let plain = host.path().join("plain");
    let good = host.until_state("u-good", StateName::Up);
    let expected = [
        (
            "missing",
            "could not be started: cannot execute /nowhere/program: no such file or directory".to_owned(),
        ),
        ("plain", format!("could not be started: cannot execute {}: permission denied", plain.display())),
        ("exits", "exited with status 7".to_owned()),
        ("never", "was not ready in time: it does not listen on port ".to_owned()),
    ];
    for (name, text) in expected {
        let user = format!("u-{name}");
        let note = host.until_some(&format!("{user} has failed three times"), || {
            let one = host.instance(&user);
            (one.state == StateName::Cooling && one.strikes >= 3).then_some(one.note)
        });
        let note = note.unwrap();
        assert!(note.starts_with(&text), "{note}");
        assert!(note.contains(" time in a row; next try in "), "{note}");
        let line = host.until_some("the log says so", || {
            let log = host.log();
            let says = |line: &&str| {
                line.contains(&format!("instance crashed user={user} server={name} run="))
                    && line.contains(" strikes=3 ")
            };
            log.lines().find(says).map(str::to_owned)
        });
        let field = text.strip_prefix("exited with ").unwrap_or(&text);
        assert!(line.contains("WARN") && line.contains(&format!("exit=\"{field}")), "{line}");
        assert!(line.contains(" up_ms=0 ") && line.contains(" next_ms=40"), "{line}");
    }
    assert_eq!(host.instance("u-good").run, good.run);
    assert_eq!(host.call("u-good", "pid", "{}"), Ok(good.pid.unwrap().to_string()));
}
