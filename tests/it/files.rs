//! Env files come, change, break and go; each concerns its own user alone, and no way of saving
//! starts anything twice.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::{Duration, Instant};

use mcpsup::model::RunId;
use mcpsup::model::status::{InstanceStatus, StateName};

use crate::host::{Host, LIMIT, is_alive, notes, text, write};
use crate::wire;

/// Returns when the daemon has looked at env.d after everything that was done before this call:
/// a file of somebody who never runs is seen.
fn looked(host: &Host) {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let user = format!("zz{}", NUMBER.fetch_add(1, Ordering::Relaxed));
    host.save(&user, "MCPSUP_ENABLED=false\nNOTES_TOKEN=unused-token\n");
    host.until_state(&user, StateName::Disabled);
    host.delete(&user);
    host.until_state(&user, StateName::Gone);
}

/// How many runs of this user were started, by their log.
fn runs_started(host: &Host, user: &str) -> usize {
    let log = std::fs::read_to_string(host.path().join(format!("logs/{user}/notes.log"))).unwrap_or_default();
    log.lines().filter(|line| line.starts_with("mcpsup: run ") && line.ends_with(" started")).count()
}

fn until_run_after(host: &Host, user: &str, run: Option<RunId>) -> InstanceStatus {
    host.until_some(&format!("{user} runs anew"), || {
        let now = host.instance(user);
        (now.run > run && now.state == StateName::Up).then_some(now)
    })
}

#[test]
fn saving_a_file_restarts_its_user_alone_and_saving_it_unchanged_restarts_nobody() {
    let host = Host::with_two_users();
    let (alice, bob) = (host.instance("alice"), host.instance("bob"));
    let before = host.call("alice", "whoami", "{}").unwrap();

    host.save("alice", "NOTES_TOKEN=alices-new-token\n");
    let anew = until_run_after(&host, "alice", alice.run);
    assert_eq!(anew.port, alice.port);
    assert_ne!(host.call("alice", "whoami", "{}").unwrap(), before);

    host.save("alice", "NOTES_TOKEN=alices-new-token\n");
    host.save("bob", "# a comment\n\nNOTES_TOKEN='bobs-own-token'  \n# and another\n");
    looked(&host);
    write(&host.env_dir().join("alice.env"), "# in place\nNOTES_TOKEN=alices-new-token\n", 0o600);
    looked(&host);
    assert_eq!(host.instance("alice").run, anew.run);
    assert_eq!(host.instance("bob").run, bob.run);
    assert_eq!((runs_started(&host, "alice"), runs_started(&host, "bob")), (2, 1));
}

#[test]
fn a_broken_file_keeps_the_old_run_and_status_says_file_line_and_mend() {
    let host = Host::with_two_users();
    let (alice, bob) = (host.instance("alice"), host.instance("bob"));

    host.save("alice", "NOTES_TOKEN=alices-other-token\nexport oh dear\n");
    let broken = host.until_some("the problem is told", || {
        Some(host.instance("alice")).filter(|alice| !alice.problems.is_empty())
    });
    assert_eq!((broken.state, broken.run), (StateName::Up, alice.run));
    assert_eq!(broken.problems[0].line, Some(2));
    let shown = host.ok(&["status"]);
    let line = shown.lines().find(|line| line.starts_with("alice")).unwrap();
    assert!(line.contains("env.d/alice.env:2: "), "{line}");
    assert!(!line.contains("dear"), "{line}");
    assert!(host.call("alice", "whoami", "{}").is_ok());

    host.save("alice", "NOTES_TOKEN=alices-own-token\n");
    host.until("it is mended", || host.instance("alice").problems.is_empty());
    assert_eq!((host.instance("alice").run, host.instance("bob").run), (alice.run, bob.run));
    assert_eq!(runs_started(&host, "alice"), 1);
}

#[test]
fn a_server_that_is_taken_out_of_the_configuration_says_so_and_its_user_has_a_file() {
    let more = notes().replace("server.notes", "server.more");
    let mut host = Host::new(&format!("{}{more}", notes()));
    host.save("alice", "NOTES_TOKEN=alices-own-token\n");
    host.start();
    host.until_all_up(2);

    host.configure(&notes());
    host.ok(&["reload"]);
    host.until("it is gone and says why", || {
        let left = host.status().instances.into_iter().find(|one| one.server.as_str() == "more").unwrap();
        let why = "mcpsup.toml has no [server.more] any more; its port is kept";
        left.state == StateName::Gone && left.note.as_deref() == Some(why)
    });
    let said = host.ok(&["doctor"]);
    assert!(said.contains("in [server.more]") && !said.contains("add alice"), "{said}");
}

#[test]
fn a_deleted_file_stops_its_user_and_the_port_waits_for_it_over_a_daemon_restart() {
    let mut host = Host::with_two_users();
    let (alice, bob) = (host.instance("alice"), host.instance("bob"));

    host.delete("alice");
    let gone = host.until_state("alice", StateName::Gone);
    assert_eq!(gone.port, alice.port);
    assert_eq!(gone.note.as_deref(), Some("its env file is gone; mcpsup remove alice frees the port"));
    assert!(!is_alive(i32::try_from(alice.pid.unwrap()).unwrap()));
    let answer = wire::post(alice.port.unwrap(), &host.header("alice"), &wire::tool("whoami", "{}"));
    assert_eq!(answer.status, 503);
    assert!(answer.body.contains("alice/notes is not configured any more"), "{}", answer.body);
    assert_eq!(host.instance("bob").run, bob.run);

    host.save("carol", "NOTES_TOKEN=carols-own-token\n");
    let carol = host.until_state("carol", StateName::Up);
    assert_ne!(carol.port, alice.port);

    assert!(host.stop().success());
    host.start();
    host.until_state("bob", StateName::Up);
    let still = host.instance("alice");
    assert_eq!((still.state, still.port), (StateName::Gone, alice.port));
    assert_eq!(wire::post(alice.port.unwrap(), &host.header("alice"), "{}").status, 503);

    host.save("alice", "NOTES_TOKEN=alices-own-token\n");
    assert_eq!(host.until_state("alice", StateName::Up).port, alice.port);
    assert_eq!(host.until_state("carol", StateName::Up).port, carol.port);
}

#[test]
fn a_disabled_file_stops_its_user_and_keeps_the_port() {
    let host = Host::with_two_users();
    let alice = host.instance("alice");

    host.save("alice", "NOTES_TOKEN=alices-own-token\nMCPSUP_ENABLED=false\n");
    let disabled = host.until_state("alice", StateName::Disabled);
    assert_eq!((disabled.port, disabled.pid), (alice.port, None));
    let answer = wire::post(alice.port.unwrap(), &host.header("alice"), "{}");
    assert!(answer.status == 503 && answer.body.contains("alice/notes is disabled"), "{answer:?}");

    host.save("alice", "NOTES_TOKEN=alices-own-token\n");
    assert_eq!(host.until_state("alice", StateName::Up).port, alice.port);
}

#[test]
fn an_editors_rename_dance_restarts_once() {
    let host = Host::with_two_users();
    let alice = host.instance("alice");
    let (file, backup) = (host.env_dir().join("alice.env"), host.env_dir().join("alice.env~"));

    std::fs::rename(&file, &backup).unwrap();
    write(&file, "NOTES_TOKEN=alices-new-token\n", 0o600);
    std::fs::remove_file(&backup).unwrap();

    until_run_after(&host, "alice", alice.run);
    looked(&host);
    assert_eq!(runs_started(&host, "alice"), 2);
}

#[test]
fn a_file_that_is_written_slowly_in_place_restarts_once_and_only_when_it_is_whole() {
    let host = Host::with_two_users();
    let whole = "NOTES_TOKEN=alices-new-token-that-comes-in-pieces\nMORE=something-else\n";
    let begun = Instant::now();
    // A writer that pauses for longer than a rest is believed to have finished: then the test
    // itself was kept waiting, and tries again.
    for attempt in 0.. {
        assert!(begun.elapsed() < LIMIT, "this machine is too busy");
        let before = (host.instance("alice").run, runs_started(&host, "alice"));
        let mut file = std::fs::File::create(host.env_dir().join("alice.env")).unwrap();
        let mut longest = Duration::ZERO;
        let mut last = Instant::now();
        for part in format!("{whole}# {attempt}\nATTEMPT=number-{attempt}\n").as_bytes().chunks(6) {
            file.write_all(part).unwrap();
            std::thread::sleep(Duration::from_millis(15));
            longest = longest.max(last.elapsed());
            last = Instant::now();
        }
        drop(file);
        until_run_after(&host, "alice", before.0);
        looked(&host);
        if longest < Duration::from_millis(80) {
            assert_eq!(runs_started(&host, "alice"), before.1 + 1);
            break;
        }
    }
}

#[test]
fn a_directory_that_is_renamed_away_or_replaced_stops_nobody_and_status_says_so() {
    let host = Host::with_two_users();
    let runs = |host: &Host| (host.instance("alice").run, host.instance("bob").run);
    let (before, away) = (runs(&host), host.path().join("elsewhere"));

    std::fs::rename(host.env_dir(), &away).unwrap();
    host.until("its absence is told", || !host.status().problems.is_empty());
    let problem = host.status().problems[0].to_string();
    assert!(problem.contains("is not there; mkdir -m 700 "), "{problem}");
    assert!(text(&host.cli(&["status"]).stdout).contains("env.d"), "people are told as well");
    assert_eq!(runs(&host), before);
    assert!(host.call("alice", "whoami", "{}").is_ok());

    std::fs::rename(&away, host.env_dir()).unwrap();
    host.until("it is back", || host.status().problems.is_empty());
    looked(&host);
    assert_eq!(runs(&host), before);

    // Another directory in its place, with the same files.
    std::fs::create_dir(&away).unwrap();
    for user in ["alice", "bob"] {
        let token = format!("NOTES_TOKEN={user}s-own-token\n");
        write(&away.join(format!("{user}.env")), &token, 0o600);
    }
    // Away first: never is it there and empty, which is another thing.
    let old = host.path().join("old");
    std::fs::rename(host.env_dir(), &old).unwrap();
    std::fs::remove_dir_all(old).unwrap();
    host.until("its absence is told", || !host.status().problems.is_empty());
    assert_eq!(runs(&host), before);
    std::fs::rename(&away, host.env_dir()).unwrap();
    host.until("it is back", || host.status().problems.is_empty());
    looked(&host);
    assert_eq!(runs(&host), before);

    // And the new one is watched as the old one was.
    host.delete("bob");
    host.until_state("bob", StateName::Gone);
}

#[test]
fn a_reload_restarts_what_its_toml_changed_and_a_broken_one_touches_nothing() {
    let host = Host::with_two_users();
    let bob = host.instance("bob");
    host.configure(&format!("{}[server.notes.stop]\ngrace = \"5s\"\n", notes()));
    host.signal_daemon(nix::sys::signal::Signal::SIGHUP);
    host.until("the configuration is read", || host.log().contains("configuration read"));
    looked(&host);
    let now = host.instance("bob");
    assert_eq!((now.state, now.run), (StateName::Up, bob.run), "a limit of time needs no new run");

    host.configure(&notes().replace("env = {", "env = { MORE = \"{user}\","));
    host.ok(&["reload"]);
    let anew = until_run_after(&host, "bob", bob.run);
    assert_eq!(runs_started(&host, "bob"), 2);

    host.configure("[server.notes]\ncomand = [\"/bin/false\"]\ntransport = \"http\"\n");
    // As whoever waits for `systemctl reload` is told.
    let refused = host.cli(&["reload"]);
    let said = text(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(said.contains("mcpsup.toml:5:1: ") && said.contains("cannot take over mcpsup.toml"), "{said}");
    let refused = host.cli(&["reload", "--json"]);
    let said: serde_json::Value = serde_json::from_slice(&refused.stdout).unwrap();
    assert_eq!((refused.status.code(), &said["reloaded"]), (Some(1), &false.into()), "{said}");
    assert!(said["problems"].as_array().unwrap().iter().any(|problem| problem["line"] == 5), "{said}");
    let problems: Vec<String> = host.status().problems.iter().map(ToString::to_string).collect();
    assert!(
        problems
            .iter()
            .any(|it| it.contains("mcpsup.toml:5:1: ") && it.contains("did you mean \"command\"?")),
        "{problems:?}"
    );
    looked(&host);
    assert_eq!(host.instance("bob").run, anew.run);
    assert!(host.call("bob", "whoami", "{}").is_ok());

    host.configure(&notes().replace("env = {", "env = { MORE = \"{user}\","));
    host.ok(&["reload"]);
    assert!(host.status().problems.is_empty());
    assert_eq!(host.instance("bob").run, anew.run);
}

/// A directory of files as Kubernetes makes it: every name a link through `..data`.
fn swap_in(dir: &Path, version: &str, files: &BTreeMap<String, String>) {
    let real = dir.join(version);
    std::fs::create_dir(&real).unwrap();
    for (user, contents) in files {
        write(&real.join(format!("{user}.env")), contents, 0o600);
    }
    symlink(version, dir.join("..data_tmp")).unwrap();
    std::fs::rename(dir.join("..data_tmp"), dir.join("..data")).unwrap();
    for user in files.keys() {
        let name = format!("{user}.env");
        if dir.join(&name).symlink_metadata().is_err() {
            symlink(Path::new("..data").join(&name), dir.join(&name)).unwrap();
        }
    }
}

/// A way of saving a version of a user's file, and how its users are called.
type Way<'a> = (&'a str, &'a (dyn Fn(&str, u32) + Sync));

#[test]
fn five_hundred_files_saved_at_once_in_every_way_start_five_hundred_runs_and_none_twice() {
    const EACH: usize = 100;
    let mut host =
        Host::new(&format!("{}[server.notes.ready]\nprobe = \"tcp\"\ntimeout = \"5m\"\n", notes()));
    // So many processes at once are a load of their own.
    host.limit = 5 * LIMIT;
    host.start();
    let contents =
        |version: u32| format!("NOTES_TOKEN=token-of-version-{version}\nPADDING={}\n", "x".repeat(2000));
    let (dir, outside) = (host.env_dir(), host.path().join("outside"));
    std::fs::create_dir(&outside).unwrap();
    let name = |user: &str| format!("{user}.env");
    let in_place = |user: &str, version| write(&dir.join(name(user)), &contents(version), 0o600);
    let and_rename = |user: &str, version| {
        let new = dir.join(format!(".{user}.env.new"));
        write(&new, &contents(version), 0o600);
        std::fs::rename(new, dir.join(name(user))).unwrap();
    };
    let moved_in = |user: &str, version| {
        write(&outside.join(name(user)), &contents(version), 0o600);
        std::fs::rename(outside.join(name(user)), dir.join(name(user))).unwrap();
    };
    let copied = |user: &str, version| {
        write(&outside.join(name(user)), &contents(version), 0o600);
        std::fs::copy(outside.join(name(user)), dir.join(name(user))).unwrap();
    };
    let ways: [Way<'_>; 4] =
        [("place", &in_place), ("rename", &and_rename), ("move", &moved_in), ("copy", &copied)];
    let users = |way: &str| (0..EACH).map(|number| format!("{way}{number}")).collect::<Vec<_>>();

    std::thread::scope(|scope| {
        for (way, save) in ways {
            scope.spawn(move || users(way).iter().for_each(|user| save(user, 1)));
        }
        let linked = users("link").into_iter().map(|user| (user, contents(1))).collect();
        let dir = &dir;
        scope.spawn(move || swap_in(dir, "..2026_11_21", &linked));
    });
    let first: BTreeMap<String, RunId> = host
        .until_all_up(5 * EACH)
        .into_iter()
        .map(|instance| (instance.user.to_string(), instance.run.unwrap()))
        .collect();
    assert_eq!(first.values().collect::<BTreeSet<_>>().len(), 5 * EACH, "no run number twice");
    for user in first.keys() {
        assert_eq!(runs_started(&host, user), 1, "{user}");
    }
    assert_eq!(host.processes().len(), 5 * EACH);

    // Of each hundred the first ten change, the next ten go.
    std::thread::scope(|scope| {
        let dir = &dir;
        for (way, save) in ways {
            scope.spawn(move || {
                for user in &users(way)[..10] {
                    save(user, 2);
                }
                for user in &users(way)[10..20] {
                    std::fs::remove_file(dir.join(format!("{user}.env"))).unwrap();
                }
            });
        }
        let mut linked: BTreeMap<String, String> =
            users("link").into_iter().map(|user| (user, contents(1))).collect();
        for user in &users("link")[..10] {
            linked.insert(user.clone(), contents(2));
        }
        for user in &users("link")[10..20] {
            linked.remove(user);
        }
        scope.spawn(move || swap_in(dir, "..2026_11_22", &linked));
    });
    let is_changed = |user: &str| user.trim_start_matches(char::is_alphabetic).parse::<usize>().unwrap() < 10;
    let is_gone = |user: &str| {
        let number = user.trim_start_matches(char::is_alphabetic).parse::<usize>().unwrap();
        (10..20).contains(&number)
    };
    host.until("what runs is what the files say", || {
        let now = host.status().instances;
        now.iter().all(|instance| {
            let user = instance.user.as_str();
            match instance.state {
                StateName::Gone => is_gone(user),
                StateName::Up => !is_gone(user) && (instance.run > Some(first[user])) == is_changed(user),
                StateName::Down
                | StateName::Starting
                | StateName::Stopping
                | StateName::Killing
                | StateName::Cooling
                | StateName::Stopped
                | StateName::Disabled
                | StateName::Refused => false,
            }
        })
    });
    for user in first.keys() {
        assert_eq!(runs_started(&host, user), if is_changed(user) { 2 } else { 1 }, "{user}");
    }
    host.until("nothing else lives", || host.processes().len() == 5 * (EACH - 10));
}
