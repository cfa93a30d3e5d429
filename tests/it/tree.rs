//! A run's processes end together: those that detach, that ignore SIGTERM and that close
//! everything as well, before another run begins and before the daemon ends.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use mcpsup::model::status::StateName;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::host::{Host, MCPSUP, copy_program, end, example, is_alive, unruly};
use crate::seen::{self, Kind, Watch};

const CROWD: usize = 100;
const GRACE: &str = "[server.unruly.stop]\ngrace = \"100ms\"\n";

fn contained(containment: &str) -> Host {
    let host = Host::with_unruly("");
    host.configure(&format!("[daemon]\ncontainment = \"{containment}\"\n{}", unruly(GRACE)));
    host
}

/// Starts a hundred that ignore SIGTERM and have two children each, ends the daemon by SIGTERM,
/// and finds nothing.
fn a_crowd_ends(mut host: Host, start: impl FnOnce(&mut Host)) {
    for number in 0..CROWD {
        host.save(&format!("u{number:02}"), "UNRULY=--ignore-term --child session --child setsid\n");
    }
    start(&mut host);
    host.until_all_up(CROWD);
    host.until("everybody has children", || {
        seen::on(&host).iter().filter(|one| one.kind == Kind::Child).count() == 2 * CROWD
    });

    assert!(host.stop().success());

    let left: Vec<_> = seen::on(&host).into_iter().filter(|one| one.kind != Kind::Launcher).collect();
    assert_eq!(left, []);
    // The launcher hears of the end by itself.
    seen::until_nothing(&host);
    assert_eq!(seen::names_in(&host.path().join("run/runs")), Vec::<String>::new());
    assert!(!seen::cgroup_of(&host).exists());
}

#[test]
fn stopping_the_daemon_leaves_no_process_behind_in_cgroups() {
    if seen::has_cgroups() {
        a_crowd_ends(contained("cgroup"), Host::start);
    }
}

#[test]
fn stopping_the_daemon_leaves_no_process_behind_in_namespaces() {
    if seen::is_root() {
        a_crowd_ends(contained("pid-namespace"), Host::start);
    }
}

#[test]
fn stopping_the_daemon_leaves_no_process_behind_in_sessions() {
    a_crowd_ends(contained("session"), Host::start);
}

/// An ordinary user: an account (and a group) that every Linux has, and that has no right to anything here.
///
/// Not 65534: so the kernel calls everybody in a user namespace who has not said yet who they are.
pub(crate) const ORDINARY: u32 = 3;
/// Another number, so that one is not taken for the other.
pub(crate) const ORDINARYS_GROUP: u32 = 4;

/// A host that belongs to an ordinary user, programs included.
fn of_an_ordinary_user() -> Host {
    let host = contained("session");
    bring(&host, "unruly");
    host
}

/// Gives the host copies of the program and of an example, for a user who cannot reach ours.
pub(crate) fn bring(host: &Host, server: &str) {
    let bin = host.path().join("bin");
    std::fs::create_dir_all(&bin).unwrap();
    for program in [Path::new(MCPSUP), &example(server)] {
        let copy = bin.join(program.file_name().unwrap());
        copy_program(program, &copy);
        std::fs::set_permissions(&copy, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    let toml = std::fs::read_to_string(host.path().join("mcpsup.toml")).unwrap();
    let own = toml.replace(&*example(server).to_string_lossy(), &bin.join(server).to_string_lossy());
    crate::host::write(&host.path().join("mcpsup.toml"), &own, 0o600);
}

pub(crate) fn start_as_ordinary(host: &mut Host) {
    give_to_ordinary(host.path());
    let mut command = Command::new(host.path().join("bin/mcpsup"));
    command.uid(ORDINARY).gid(ORDINARYS_GROUP);
    host.spawn_by(command);
    host.until("the daemon answers", || host.cli(&["status"]).status.success());
}

#[test]
fn an_ordinary_users_daemon_that_is_to_make_namespaces_says_what_it_takes_and_does_not_start() {
    if seen::is_root() {
        let mut host = of_an_ordinary_user();
        let toml = std::fs::read_to_string(host.path().join("mcpsup.toml")).unwrap();
        let asking = toml.replace("containment = \"session\"", "containment = \"pid-namespace\"");
        crate::host::write(&host.path().join("mcpsup.toml"), &asking, 0o600);
        give_to_ordinary(host.path());
        bring(&host, "intruder");
        give_to_ordinary(host.path());
        let mut command = Command::new(host.path().join("bin/intruder"));
        command.args(["--without", "namespaces"]).arg(host.path().join("bin/mcpsup"));
        command.uid(ORDINARY).gid(ORDINARYS_GROUP);
        host.spawn_by(command);
        assert!(!host.wait_for_end().success());
        let log = host.log();
        assert!(log.contains("; run the daemon as root, or set containment"), "{log}");
    }
}

pub(crate) fn give_to_ordinary(path: &Path) {
    std::os::unix::fs::chown(path, Some(ORDINARY), Some(ORDINARYS_GROUP)).unwrap();
    if path.is_dir() {
        std::fs::read_dir(path).unwrap().for_each(|entry| give_to_ordinary(&entry.unwrap().path()));
    }
}

#[test]
fn stopping_an_ordinary_users_daemon_leaves_no_process_behind() {
    if seen::is_root() {
        a_crowd_ends(of_an_ordinary_user(), start_as_ordinary);
    }
}

#[test]
fn servers_run_where_no_process_can_be_born_in_a_cgroup_and_what_keeps_them_together_is_said() {
    let mut host = Host::with_notes();
    host.save("alice", "NOTES_TOKEN=alices-own-token\n");
    let mut filtered = Command::new(example("intruder"));
    // As filters of containers do, it denies clone3, too.
    filtered.args(["--without", "namespaces", MCPSUP]);
    host.spawn_by(filtered);
    host.until("the daemon answers", || host.cli(&["status"]).status.success());
    host.until_all_up(1);
    let said = host.ok(&["status", "-v"]);
    assert!(said.contains("containment  session (best effort)"), "{said}");
    assert!(said.contains("not kept  killed whole"), "{said}");
}

#[test]
fn what_a_run_left_behind_is_gone_before_the_next_begins() {
    for containment in ["cgroup", "session"] {
        if containment == "cgroup" && !seen::has_cgroups() {
            continue;
        }
        let mut host = contained(containment);
        host.save("alice", "UNRULY=--ignore-term --child session --child setsid --child closed\n");
        host.start();
        let watch = Watch::over(&host);
        let mut last = host.until_state("alice", StateName::Up);
        for _ in 0..5 {
            host.until("it has three children", || seen::children(&host, "alice").len() == 3);
            let old = seen::children(&host, "alice");
            end(last.pid.unwrap());
            host.ok(&["start", "alice"]);
            let again = host.until_some("another is up", || {
                let now = host.instance("alice");
                (now.state == StateName::Up && now.run > last.run).then_some(now)
            });
            assert!(old.iter().all(|pid| !is_alive(*pid)), "{containment}");
            last = again;
        }
        watch.end();
        host.until("no zombie is left", || seen::zombies_of(host.daemon_pid()).is_empty());
    }
}

#[test]
fn a_run_that_a_later_daemon_stops_takes_everything_with_it() {
    for containment in seen::containments() {
        let mut host = contained(containment);
        host.save("alice", "UNRULY=--ignore-term --child session --child setsid --child closed\n");
        host.start();
        host.until_all_up(1);
        host.until("it has three children", || seen::children(&host, "alice").len() == 3);
        host.kill_daemon();
        host.start();

        host.ok(&["stop", "alice"]);

        assert_eq!(seen::children(&host, "alice"), Vec::<i32>::new(), "{containment}");
        assert!(seen::servers(&host).is_empty(), "{containment}");
    }
}

#[test]
fn crashes_leave_no_zombies() {
    for containment in seen::containments() {
        let mut host = contained(containment);
        let quick = "[server.unruly.restart]\nfirst_wait = \"10ms\"\nmax_wait = \"10ms\"\n";
        host.configure(&format!(
            "[daemon]\ncontainment = \"{containment}\"\n{}",
            unruly(&format!("{GRACE}{quick}"))
        ));
        host.save("alice", "UNRULY=--child session --child setsid --exit-after 30 3\n");
        host.save("bob", "UNRULY=--exit 3\n");
        host.save("carol", "UNRULY=\n");
        host.start();
        host.until("both have crashed often", || {
            host.status().instances.iter().filter(|one| one.strikes >= 10).count() == 2
        });
        let carol = host.until_state("carol", StateName::Up);

        host.ok(&["stop", "alice"]);
        host.ok(&["stop", "bob"]);

        host.until("no zombie is left", || seen::zombies_of(host.daemon_pid()).is_empty());
        assert_eq!(host.instance("carol").run, carol.run);
        assert_eq!(host.instance("carol").strikes, 0);
    }
}

#[test]
fn a_process_of_another_uid_that_names_a_users_tmpdir_is_nobodys() {
    if !seen::is_root() {
        return;
    }
    let mut host = contained("session");
    host.save("alice", "");
    host.start();
    host.until_all_up(1);
    let tmp = host.path().join("state/instances/alice/unruly/tmp");
    // Its shell ends, so it is an orphan, as what a run left behind would be.
    let shell = Command::new("/bin/sh")
        .args(["-c", "setsid sleep 600 </dev/null >/dev/null 2>&1 & echo $!"])
        .env("TMPDIR", tmp)
        .uid(65534)
        .current_dir("/")
        .output()
        .unwrap();
    let stranger: i32 = String::from_utf8(shell.stdout).unwrap().trim().parse().unwrap();

    assert!(host.stop().success());

    assert!(is_alive(stranger));
    kill(Pid::from_raw(stranger), Signal::SIGKILL).unwrap();
}

#[test]
fn nobody_runs_in_a_directory_that_is_anothers() {
    if !seen::is_root() {
        return;
    }
    let mut host = Host::with_unruly("");
    host.save("alice", "MCPSUP_RUN_AS=nobody\n");
    let own = host.path().join("state/instances/alice/unruly");
    host.start();
    host.until("she has a directory", || {
        std::fs::metadata(&own).is_ok_and(|meta| std::os::unix::fs::MetadataExt::uid(&meta) == 65_534)
    });

    // As if her account had gone: no name service yet, or deleted.
    host.save("alice", "");

    let said = host.until_some("she is told why she is not up", || {
        host.instance("alice").note.filter(|note| note.contains("cannot run as uid "))
    });
    assert!(
        said.contains("/state/instances/alice/unruly, which belongs to uid 65534; chown -hR --from=65534 6"),
        "{said}"
    );

    // What mends it is said, and mends it.
    let mend = said.split("; ").nth(1).unwrap().split([',', '(']).next().unwrap();
    assert!(Command::new("/bin/sh").args(["-c", mend]).status().unwrap().success(), "{mend}");
    host.until_state("alice", StateName::Up);
}
