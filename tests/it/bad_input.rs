//! Whatever is put in: a clear message, nobody else affected, nothing lost.

use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use mcpsup::model::status::{InstanceStatus, StateName};

use crate::doors::memory;
use crate::host::{Host, MCPSUP, copy_program, example, is_alive, text, unruly, write};

/// Bob has done nothing wrong: whatever happens to others, his run is the same.
struct Bob(InstanceStatus);

impl Bob {
    /// Adds him.
    fn beside(host: &Host) -> Self {
        host.save("bob", "NOTES_TOKEN=bobs-own-token\n");
        Self(host.until_state("bob", StateName::Up))
    }

    #[track_caller]
    fn is_untouched(&self, host: &Host) {
        let now = host.instance("bob");
        assert_eq!((now.state, now.run, now.port, now.strikes), (StateName::Up, self.0.run, self.0.port, 0));
    }
}

fn problems_of(host: &Host, user: &str) -> Vec<String> {
    let instance = host.until_some(&format!("something is wrong with {user}"), || {
        let all = host.status().instances;
        all.into_iter().find(|one| one.user.as_str() == user && !one.problems.is_empty())
    });
    instance.problems.iter().map(ToString::to_string).collect()
}

fn until_note(host: &Host, user: &str, wanted: &str) -> InstanceStatus {
    host.until_some(&format!("{user}: {wanted}"), || {
        let now = host.instance(user);
        now.note.as_deref().is_some_and(|note| note.contains(wanted)).then_some(now)
    })
}

#[test]
fn a_wrong_toml_is_told_whole_with_line_column_and_the_nearest_key_and_starts_nothing() {
    let mut host = Host::new("");
    let first = 4;
    host.configure(
        "[server.notes]\ncomand = [\"/bin/true\"]\ntransport = \"htpp\"\nenv = { A = \"{hoem}\" }\n\
         [server.notes.stop]\ngrace = 10\n[server.odd]\ncommand = [\"x\", \"{env:TOKEN}\"]\ntransport = \"http\"\n[potrs]\nx = 1\n",
    );
    host.save("alice", "NOTES_TOKEN=alices-own-token\n");
    host.start();
    let problems: Vec<String> = host.status().problems.iter().map(ToString::to_string).collect();
    for (line, words) in [
        (first + 1, "unknown key \"comand\"; did you mean \"command\"?"),
        (first + 2, "http"),
        (first + 3, "unknown template"),
        (first + 5, "10"),
        (first + 7, "{env:NAME}"),
        (first + 9, "unknown"),
    ] {
        let place = format!("mcpsup.toml:{line}:");
        assert!(
            problems.iter().any(|problem| problem.contains(&place) && problem.contains(words)),
            "{line} {words}: {problems:#?}"
        );
    }
    assert!(host.status().instances.iter().all(|one| one.pid.is_none()));
    assert_eq!(host.cli(&["check"]).status.code(), Some(1));

    host.configure(&crate::host::notes());
    host.ok(&["reload"]);
    host.until_all_up(1);
}

#[test]
fn ranges_that_overlap_are_refused_and_one_that_is_full_says_what_to_widen() {
    let mut host = Host::with_notes();
    let toml = host.path().join("mcpsup.toml");
    let right = std::fs::read_to_string(&toml).unwrap();
    let doors = right.lines().find_map(|line| line.strip_prefix("range = \"")?.strip_suffix('"')).unwrap();
    let (first, _) = doors.split_once('-').unwrap();

    write(&toml, &right.replace(doors, &format!("{first}-{first}")), 0o600);
    host.start();
    let bob = Bob::beside(&host);
    host.save("zoe", "NOTES_TOKEN=zoes-own-token\n");
    let said = problems_of(&host, "zoe").join("\n");
    assert!(
        said.contains(&format!(
            "no port left for \"zoe\": {first}-{first} are all taken; widen [ports] range in mcpsup.toml"
        )),
        "{said}"
    );
    bob.is_untouched(&host);
    assert_eq!(host.instance("zoe").state, StateName::Refused);

    let backends =
        right.lines().find_map(|line| line.strip_prefix("backend_range = \"")?.strip_suffix('"')).unwrap();
    write(&toml, &right.replace(doors, backends), 0o600);
    assert_eq!(host.cli(&["reload"]).status.code(), Some(1));
    let said = host.status().problems[0].to_string();
    assert!(said.contains("mcpsup.toml:") && said.contains(" overlap; "), "{said}");
    bob.is_untouched(&host);

    write(&toml, &right, 0o600);
    host.ok(&["reload"]);
    host.until_state("zoe", StateName::Up);
    bob.is_untouched(&host);
}

#[test]
fn a_pinned_port_that_somebody_else_has_names_them() {
    let mut host = Host::with_notes();
    host.start();
    let bob = Bob::beside(&host);
    let port = bob.0.port.unwrap();
    host.save("alice", &format!("NOTES_TOKEN=alices-own-token\nMCPSUP_PORT={port}\n"));
    let said = problems_of(&host, "alice").join("\n");
    assert!(
        said.contains("env.d/alice.env:2: ") && said.contains(&port.to_string()) && said.contains("bob"),
        "{said}"
    );
    bob.is_untouched(&host);

    // Somebody who is no user of ours: this test.
    let taken = host.last_door();
    let stranger = TcpListener::bind(("127.0.0.1", taken)).unwrap();
    if nix::unistd::geteuid().is_root() {
        host.save("alice", &format!("NOTES_TOKEN=alices-own-token\nMCPSUP_PORT={taken}\n"));
        host.until("the holder is named", || {
            let said = problems_of(&host, "alice").join("\n");
            said.contains(&format!("port {taken} is held by "))
                && said.contains(&std::process::id().to_string())
        });
        bob.is_untouched(&host);
        // Up, and of no use: whoever asks for it is told.
        let started = text(&host.cli(&["start", "alice"]).stderr);
        assert!(started.contains(&format!("port {taken} is held by ")), "{started}");
        drop(stranger);
        // A program that another test just starts may have its listener for a moment longer.
        let alice = host.until_some("the port is hers", || {
            host.ok(&["reload"]);
            Some(host.instance("alice")).filter(|alice| alice.problems.is_empty())
        });
        assert_eq!((alice.state, alice.port), (StateName::Up, Some(taken)));
        assert!(host.call("alice", "whoami", "{}").is_ok());
    }
}

#[test]
fn two_users_who_exchange_their_pinned_ports_both_get_them_at_once() {
    let mut host = Host::with_notes();
    host.save("alice", "NOTES_TOKEN=alices-own-token\n");
    host.save("bob", "NOTES_TOKEN=bobs-own-token\n");
    host.start();
    host.until_all_up(2);
    let port = |user| host.instance(user).port.unwrap();
    let (first, second) = (port("alice"), port("bob"));
    let free = second + 50;
    // In one look: one door closes, and another opens on its port.
    for (user, port) in [("bob", first), ("alice", free)] {
        host.save(user, &format!("NOTES_TOKEN={user}s-own-token\nMCPSUP_PORT={port}\n"));
    }
    let begun = std::time::Instant::now();
    host.until("both have moved", || {
        let now = host.status().instances;
        now.iter().all(|one| one.problems.is_empty()) && (port("alice"), port("bob")) == (free, first)
    });
    assert!(begun.elapsed() < std::time::Duration::from_secs(30), "not only with the look once a minute");
    for user in ["alice", "bob"] {
        host.until_state(user, StateName::Up);
        assert!(host.call(user, "whoami", "{}").unwrap().contains(user));
    }
}

#[test]
fn a_strangers_listener_on_a_port_of_the_range_moves_a_new_user_past_it() {
    let mut host = Host::with_notes();
    let toml = std::fs::read_to_string(host.path().join("mcpsup.toml")).unwrap();
    let doors = toml.lines().find_map(|line| line.strip_prefix("range = \"")?.strip_suffix('"')).unwrap();
    let first: u16 = doors.split_once('-').unwrap().0.parse().unwrap();
    let _stranger = TcpListener::bind(("127.0.0.1", first)).unwrap();
    host.save("alice", "NOTES_TOKEN=alices-own-token\n");
    host.start();
    let alice = host.until_state("alice", StateName::Up);
    assert_ne!(alice.port, Some(first));
    assert!(host.call("alice", "whoami", "{}").is_ok());
}

/// Two servers, so that one can be wrong and the other not.
fn with_odd(command: &str, more: &str) -> Host {
    let odd = format!(
        "[server.odd]\ncommand = {command}\ntransport = \"http\"\nport_env = \"ODD_PORT\"\nfor_all = false\n{more}"
    );
    let mut host = Host::new(&format!(
        "{}for_all = true\n{odd}",
        crate::host::notes()
            .replace("[server.notes.credential.NOTES_TOKEN]\ndescription = \"a token\"\n", "")
    ));
    host.start();
    host
}

fn odd(host: &Host) -> InstanceStatus {
    let all = host.status().instances;
    all.into_iter().find(|one| one.user.as_str() == "alice" && one.server.as_str() == "odd").unwrap()
}

fn until_odd_note(host: &Host, wanted: &str) -> InstanceStatus {
    host.until("alice is there", || host.status().instances.iter().any(|one| one.server.as_str() == "odd"));
    host.until_some(wanted, || {
        let now = odd(host);
        now.note.as_deref().is_some_and(|note| note.contains(wanted)).then_some(now)
    })
}

#[test]
fn a_command_that_is_missing_or_cannot_be_executed_is_said_by_name() {
    for (command, wanted) in [
        ("[\"/nowhere/server\"]", "cannot execute /nowhere/server: no such file or directory"),
        ("[\"no-such-program-here\"]", "cannot execute no-such-program-here"),
        ("[\"/etc/passwd\"]", "cannot execute /etc/passwd: permission denied"),
    ] {
        let host = with_odd(command, "");
        let bob = Bob::beside(&host);
        host.save("alice", "NOTES_TOKEN=alices-own-token\nMCPSUP_SERVERS=odd\n");
        let odd = until_odd_note(&host, wanted);
        assert!(odd.strikes >= 1, "{odd:?}");
        bob.is_untouched(&host);
        // It goes on trying.
        host.until("it cools", || self::odd(&host).state == StateName::Cooling);
        assert_eq!(host.cli(&["start", "alice/odd", "--timeout", "2s"]).status.code(), Some(1));
    }
}

#[test]
fn a_server_that_exits_never_listens_or_listens_elsewhere_is_told_and_bobs_is_not_touched() {
    let mut host = Host::new("");
    // One of this test's own that nobody is given.
    let other = host.last_backend();
    host.configure(&format!(
        "{}{}",
        crate::host::notes(),
        unruly(&format!(
            "for_all = false\nallow = {{ listen = [{other}] }}\n[server.unruly.ready]\ntimeout = \"3s\"\n[server.unruly.stop]\ngrace = \"1s\"\n"
        ))
    ));
    host.start();
    let bob = Bob::beside(&host);
    let unruly = |user: &str| {
        let all = host.status().instances;
        all.into_iter().find(|one| one.user.as_str() == user && one.server.as_str() == "unruly")
    };
    for (user, switches) in
        [("exits", "--exit 3"), ("silent", "--never"), ("astray", &*format!("--elsewhere {other}"))]
    {
        host.save(user, &format!("NOTES_TOKEN=somebodys-token\nMCPSUP_SERVERS=unruly\nUNRULY={switches}\n"));
    }
    for (user, wanted) in [
        ("exits", "exited with status 3, "),
        ("silent", "was not ready in time: it does not listen on port "),
        ("astray", &*format!("it listens on {other} instead of the port it was given")),
    ] {
        host.until(wanted, || {
            unruly(user).is_some_and(|one| one.note.is_some_and(|note| note.contains(wanted)))
        });
    }
    host.until("how often is told", || {
        unruly("exits").is_some_and(|one| {
            let in_a_row = " time in a row; next try in ";
            one.strikes >= 3 && one.note.is_some_and(|note| note.contains(in_a_row))
        })
    });
    // Already the first time, when the next run begins in the same moment.
    host.until("the log says it too", || {
        host.log().lines().any(|line| {
            line.contains("instance crashed user=silent")
                && line.contains("strikes=1 ")
                && line.contains("was not ready in time: ")
        })
    });
    bob.is_untouched(&host);
    let answer =
        crate::wire::post(bob.0.port.unwrap(), &host.header("bob"), &crate::wire::tool("whoami", "{}"));
    assert_eq!(answer.status, 200);
}

#[test]
fn a_flood_of_output_fills_neither_memory_nor_disk_and_the_server_goes_on() {
    let limits = "[log]\nmax_size = \"1M\"\nkeep = 2\nmax_rate = \"16K\"\n";
    let mut host = Host::new(&format!("{limits}{}", unruly("")));
    host.save("alice", "UNRULY=--flood 0\n");
    host.save("quiet", "A=1\n");
    host.start();
    let up = host.until_all_up(2);
    let pid = host.daemon_pid();
    let log = host.path().join("logs/alice");
    let size = || -> u64 {
        let files = std::fs::read_dir(&log).unwrap().flatten();
        files.filter_map(|file| file.metadata().ok()).map(|file| file.len()).sum()
    };
    let begun = std::time::Instant::now();
    let mut most = (0, 0);
    host.until("five seconds of it were dropped", || {
        most = (most.0.max(memory(pid)), most.1.max(size()));
        begun.elapsed() > std::time::Duration::from_secs(5)
            && std::fs::read_to_string(log.join("unruly.log"))
                .is_ok_and(|log| log.contains("mcpsup: dropped "))
    });
    assert!(most.0 < 100 << 10, "{} kB of memory", most.0);
    assert!(most.1 < 4 << 20, "{} bytes of logs", most.1);
    let pids =
        |instances: &[InstanceStatus]| instances.iter().map(|one| (one.run, one.pid)).collect::<Vec<_>>();
    assert_eq!(pids(&host.status().instances), pids(&up));
    assert!(host.call("alice", "pid", "{}").is_ok());
    assert!(host.call("quiet", "pid", "{}").is_ok());
}

#[test]
fn a_server_that_detaches_is_told_and_what_it_left_is_gone_before_the_next() {
    // It leaves a child in the background that would listen, and exits.
    let command =
        format!("[\"/bin/sh\", \"-c\", \"setsid {} --port {{port}} & exit 0\"]", example("unruly").display());
    let host = with_odd(&command, "");
    let bob = Bob::beside(&host);
    host.save("alice", "NOTES_TOKEN=alices-own-token\nMCPSUP_SERVERS=odd\n");
    until_odd_note(&host, "exited with status 0, ");
    host.until("it has been tried often", || odd(&host).strikes >= 3);
    host.ok(&["stop", "alice/odd"]);
    host.until("alice's is down", || odd(&host).state == StateName::Stopped);
    let mine = |pid: &i32| {
        std::fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.contains("unruly"))
    };
    host.until("nothing of it is left", || !host.processes().iter().any(mine));
    bob.is_untouched(&host);
}

#[test]
fn every_kind_of_wrong_env_file_is_refused_by_name_and_its_neighbours_run() {
    let mut host = Host::with_notes();
    host.start();
    let bob = Bob::beside(&host);
    let dir = host.env_dir();
    let token = "NOTES_TOKEN=somebodys-token\n";
    host.save("bom", &format!("\u{feff}{token}"));
    host.save("crlf", "NOTES_TOKEN=somebodys-token\r\nMORE=x\r\n");
    host.save("nul", "NOTES_TOKEN=some\0bodys\n");
    let whole = |name: &str, bytes: &[u8], mode| {
        let new = host.path().join("new");
        std::fs::write(&new, bytes).unwrap();
        std::fs::set_permissions(&new, std::fs::Permissions::from_mode(mode)).unwrap();
        std::fs::rename(new, dir.join(name)).unwrap();
    };
    whole("latin.env", b"NOTES_TOKEN=caf\xe9-token\n", 0o600);
    host.save("twice", &format!("{token}{token}"));
    host.save("large", &format!("{token}BIG={}\n", "x".repeat(1 << 20)));
    whole("open.env", token.as_bytes(), 0o644);
    let open = dir.join("open.env");
    std::fs::create_dir(dir.join("dir.env")).unwrap();
    nix::unistd::mkfifo(&dir.join("fifo.env"), nix::sys::stat::Mode::S_IRUSR).unwrap();
    symlink("loop2.env", dir.join("loop.env")).unwrap();
    symlink("loop.env", dir.join("loop2.env")).unwrap();
    symlink("/etc/passwd", dir.join("out.env")).unwrap();
    for nobody in ["-x.env", ".env", "a b.env", "alice.env.swp", "alice.env~", "README", "é.env"] {
        write(&dir.join(nobody), token, 0o600);
    }
    for (user, wanted) in [
        ("nul", "env.d/nul.env:1"),
        ("latin", "env.d/latin.env:1"),
        ("twice", "env.d/twice.env:2: NOTES_TOKEN is set twice, first on line 1"),
        ("large", "64 KiB"),
        ("open", &*format!("may be read by others (mode 0644); chmod 600 {}", open.display())),
        ("dir", "env.d/dir.env: is a directory, not a file"),
        ("fifo", "env.d/fifo.env: is a FIFO, not a file"),
        ("loop", "is a symbolic link that leads in a circle"),
        ("out", "is a symbolic link that leads out of its directory"),
    ] {
        let said = host.until_some(&format!("{user}: {wanted}"), || {
            Some(problems_of(&host, user).join("\n")).filter(|said| said.contains(wanted))
        });
        assert_eq!(host.instance(user).state, StateName::Refused, "{user}");
        assert!(!said.contains("somebody"), "{said}");
    }
    let mut up = Vec::new();
    for user in ["bom", "crlf"] {
        let now = host.until_some("it runs or is refused", || {
            Some(host.instance(user)).filter(|one| one.state == StateName::Up || !one.problems.is_empty())
        });
        // Both are what an editor of another system writes, and mean one thing only.
        assert!(now.problems.is_empty(), "{now:?}");
        up.push(host.call(user, "whoami", "{}").unwrap());
    }
    assert_eq!(up[0].rsplit(' ').next(), up[1].rsplit(' ').next(), "the same token");
    let users: Vec<String> = host.status().instances.iter().map(|one| one.user.to_string()).collect();
    let expected = [
        "bob", "bom", "crlf", "dir", "fifo", "large", "latin", "loop", "loop2", "nul", "open", "out", "twice",
    ];
    assert_eq!(users, expected);
    bob.is_untouched(&host);

    std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o600)).unwrap();
    host.until_state("open", StateName::Up);
}

#[test]
fn a_second_daemon_on_the_same_directory_says_who_has_it_and_changes_nothing() {
    let mut host = Host::with_notes();
    host.start();
    let bob = Bob::beside(&host);
    let second = host.cli(&["daemon"]);
    let said = text(&second.stderr);
    assert_eq!(second.status.code(), Some(1), "{said}");
    assert!(said.contains("cannot supervise ") && said.contains(&host.daemon_pid().to_string()), "{said}");
    bob.is_untouched(&host);
    assert!(host.call("bob", "whoami", "{}").is_ok());
}

#[test]
fn a_state_directory_that_cannot_be_written_is_named_at_the_start() {
    let root = nix::unistd::geteuid().is_root();
    let dir = tempfile::Builder::new().prefix("mcpsup-it-").tempdir().unwrap();
    let (program, config) = (dir.path().join("mcpsup"), dir.path().join("mcpsup.toml"));
    copy_program(Path::new(MCPSUP), &program);
    write(&config, "[server.x]\ncommand = [\"/bin/false\"]\ntransport = \"http\"\n", 0o600);
    std::fs::create_dir(dir.path().join("state")).unwrap();
    for path in [dir.path(), &config, &dir.path().join("state")] {
        if root {
            std::os::unix::fs::chown(path, Some(65534), Some(65534)).unwrap();
        }
    }
    std::fs::set_permissions(dir.path().join("state"), std::fs::Permissions::from_mode(0o500)).unwrap();
    let mut command = Command::new(&program);
    command.arg("--config").arg(&config).arg("daemon");
    if root {
        command.uid(65534).gid(65534);
    }
    let output = command.output().unwrap();
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(4), "{said}");
    assert!(
        said.contains("cannot ") && said.contains("/state/") && said.contains("permission denied"),
        "{said}"
    );
}

#[test]
fn a_full_disk_stops_nobody_and_what_could_not_be_kept_is_said_and_kept_later() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: only root can make a small disk");
        return;
    }
    let mut host = Host::with_notes();
    for name in ["state", "logs"] {
        std::fs::create_dir(host.path().join(name)).unwrap();
    }
    // A mount of its own, in a namespace of its own: it goes with the daemon's last process.
    let script = "mount -t tmpfs -o size=1m,mode=711 small state && mount --bind state/. state && mkdir state/logs && \
                  chmod 700 state/logs && mount --bind state/logs logs && exec \"$@\"";
    let small_disk = |program: &str| {
        let mut shell = Command::new("unshare");
        shell.args(["-m", "--propagation", "private", "/bin/sh", "-c", script, "sh", program]);
        shell
    };
    let alone = small_disk("true").current_dir(host.path()).output().unwrap();
    if !alone.status.success() {
        eprintln!("skipped: no small disk can be made: {}", text(&alone.stderr));
        return;
    }
    host.spawn_by(small_disk(MCPSUP));
    host.until("the daemon answers", || host.cli(&["status"]).status.success());
    let bob = Bob::beside(&host);
    let inside = format!("/proc/{}/root{}", host.daemon_pid(), host.path().join("state/filler").display());
    let fill = || {
        let chunk = vec![b'x'; 4096];
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(&inside).unwrap();
        while std::io::Write::write_all(&mut file, &chunk).is_ok() {}
        while std::io::Write::write_all(&mut file, b"x").is_ok() {}
    };
    fill();

    host.save("carol", "NOTES_TOKEN=carols-own-token\n");
    host.until("the full disk is told", || {
        host.status()
            .notes
            .iter()
            .any(|note| note.contains("cannot remember ports: ") && note.contains("no space left"))
    });
    assert!(host.ok(&["status", "-v"]).contains("no space left"));
    bob.is_untouched(&host);
    assert!(host.call("bob", "whoami", "{}").is_ok());
    let carol = host.instance("carol").port;
    host.ok(&["restart", "bob"]);
    host.ok(&["stop", "bob"]);
    assert_eq!(host.instance("bob").port, bob.0.port);
    assert!(host.status().notes.iter().any(|note| note.contains("cannot remember what was stopped: ")));

    std::fs::remove_file(&inside).unwrap();
    host.ok(&["start", "bob"]);
    let now = host.until_state("carol", StateName::Up);
    assert_eq!(now.port, carol);
    host.ok(&["reload"]);
    host.until("it is kept", || !host.status().notes.iter().any(|note| note.contains("no space left")));
    let kept = std::fs::read_to_string(format!(
        "/proc/{}/root{}",
        host.daemon_pid(),
        host.path().join("state/ports.json").display()
    ))
    .unwrap();
    assert!(kept.contains("carol"), "{kept}");
}

#[test]
fn whoever_is_refused_at_first_is_started_when_it_is_right() {
    let mut host = Host::with_notes();
    host.save("alice", "MORE=but-no-token\n");
    host.start();
    let said = problems_of(&host, "alice").join("\n");
    assert!(said.contains("env.d/alice.env: NOTES_TOKEN is required (a token); add NOTES_TOKEN=…"), "{said}");
    until_note(&host, "alice", "NOTES_TOKEN is required");
    host.save("alice", "NOTES_TOKEN=alices-own-token\n");
    let pid = host.until_state("alice", StateName::Up).pid.unwrap();
    assert!(is_alive(i32::try_from(pid).unwrap()));
}
