//! Diagnoses of facts.

use super::*;
use crate::model::finding::Weight;
use crate::model::status::{InstanceStatus, StateName};
use crate::model::survey::{Disk, Needs, Place, Program, Reached, Seen, Stop};
use crate::model::{InstanceId, Problem};

fn asker(administers: bool) -> Asker {
    Asker {
        mcpsup: "mcpsup".to_owned(),
        names_config: false,
        config: "/etc/mcpsup/mcpsup.toml".to_owned(),
        env_dir: "/etc/mcpsup/env.d".into(),
        state: "/var/lib/mcpsup".into(),
        administers,
        uid: if administers { 0 } else { 1001 },
        by_systemd: true,
        is_answered: true,
        keepers: Vec::new(),
    }
}

fn user() -> UserName {
    "alice".parse().unwrap()
}

fn mend_of(text: &str) -> String {
    let problem = Problem::new("env.d/alice.env", text).at_line(3);
    problem::of(&problem, Some(&user()), &asker(true)).mend.to_string()
}

#[test]
fn a_problem_that_says_its_mend_is_taken_apart() {
    for (text, mend) in [
        ("may be read by others (mode 0644); chmod 600 /e/alice.env", "run: chmod 600 /e/alice.env"),
        (
            "has 2 names (hard links), so it can change unseen; put a copy in its place: cp -p /a /a.new && mv /a.new /a",
            "run: cp -p /a /a.new && mv /a.new /a",
        ),
        (
            "quote opened here is never closed",
            "edit: /etc/mcpsup/env.d/alice.env:3: quote opened here is never closed",
        ),
        ("TOKEN is required (a token); add TOKEN=…", "run: mcpsup set TOKEN --user alice"),
        (
            "MCPSUP_PORT: port 3456 is bob's; choose another",
            "edit: /etc/mcpsup/env.d/alice.env:3: choose another",
        ),
        ("x; widen [ports] range in mcpsup.toml", "edit: /etc/mcpsup/mcpsup.toml: widen [ports] range"),
    ] {
        assert_eq!(mend_of(text), mend, "{text}");
    }
    let missing = Problem::new("mcpsup.toml", "is not there; mcpsup init writes one to begin with");
    assert_eq!(problem::of(&missing, None, &asker(true)).mend.to_string(), "run: mcpsup init");
    let sealed = Problem::new("env.d/alice.env.age", "cannot be unsealed: there is no key");
    let mend = problem::of(&sealed, Some(&user()), &asker(true)).mend.to_string();
    assert!(mend.contains("/seal.key from a backup, or /etc/credstore/mcpsup.seal.key if systemd"), "{mend}");
}

#[test]
fn whoever_administers_nothing_is_told_whom_to_ask_but_for_what_is_theirs() {
    let told = |text: &str| {
        let problem = Problem::new("env.d/alice.env", text);
        problem::of(&problem, Some(&user()), &asker(false)).mend
    };
    assert_eq!(told("TOKEN is required"), Mend::Run("mcpsup set TOKEN".to_owned()));
    for text in [
        "may be read by others (mode 0644); chmod 600 /e",
        "expected NAME=value",
        "two files for one user: a, b",
    ] {
        let Mend::Do(what) = told(text) else { panic!("{text}") };
        assert!(what.starts_with("ask an administrator of this host"), "{what}");
    }
}

fn step(path: &str, kind: Kind, mode: u32, uid: u32) -> Step {
    Step { path: path.into(), kind, mode, uid, gid: uid }
}

fn way(steps: Vec<Step>) -> Way {
    let path = steps.last().unwrap().path.clone();
    Way { path, steps, stop: None, is_open: true, has_acl: false }
}

fn needs(way: Way) -> Needs {
    let program = Program {
        named: "/opt/x".to_owned(),
        path: String::new(),
        way: Some(way),
        elsewhere: None,
        interpreter: None,
    };
    Needs {
        identity: Identity { name: "alice".to_owned(), uid: 1001, gids: vec![1001, 50] },
        program,
        fetched: None,
        arguments: Vec::new(),
        working_dir: None,
        own: Vec::new(),
    }
}

fn diagnosed(way: Way) -> Vec<Finding> {
    let id = crate::model::InstanceId::new(user(), "notes".parse().unwrap());
    super::needs::diagnose(&id, &needs(way), &asker(true))
}

#[test]
fn the_class_that_somebody_is_in_decides_who_is_let_through() {
    let root = step("/", Kind::Directory, 0o755, 0);
    let file = step("/opt/x", Kind::File, 0o755, 0);
    let through = |dir: Step| diagnosed(way(vec![root.clone(), dir, file.clone()]));
    assert_eq!(through(step("/opt", Kind::Directory, 0o755, 0)), []);
    // Their own directory, closed to themselves and open to all others, is closed to them.
    let own = through(step("/opt", Kind::Directory, 0o077, 1001));
    assert_eq!(own[0].mend, Mend::Run("chmod u+x /opt".to_owned()));
    let mut of_group = step("/opt", Kind::Directory, 0o707, 0);
    of_group.gid = 50;
    assert_eq!(through(of_group)[0].mend, Mend::Run("chmod g+x /opt".to_owned()));
    let others = through(step("/opt", Kind::Directory, 0o700, 0));
    assert_eq!((others[0].code, &others[0].mend), (Code::Way, &Mend::Run("chmod o+x /opt".to_owned())));
}

#[test]
fn what_modes_allow_and_the_kernel_denies_is_called_so() {
    let steps = || vec![step("/", Kind::Directory, 0o755, 0), step("/x", Kind::File, 0o755, 0)];
    let denied = diagnosed(Way { is_open: false, ..way(steps()) });
    assert_eq!(denied[0].code, Code::Denied);
    let by_list = diagnosed(Way { is_open: false, has_acl: true, ..way(steps()) });
    assert_eq!(by_list[0].mend, Mend::Run("setfacl -b /x".to_owned()));
    let missing = diagnosed(Way { stop: Some(Stop::Missing), ..way(steps()) });
    assert_eq!(missing[0].code, Code::Program);
}

fn cooling(note: &str) -> InstanceStatus {
    InstanceStatus {
        user: user(),
        server: "notes".parse().unwrap(),
        state: StateName::Cooling,
        port: Some(3456),
        url: None,
        run: None,
        pid: None,
        since: String::new(),
        for_seconds: 1,
        strikes: 3,
        next_try_seconds: None,
        last_exit: None,
        note: Some(note.to_owned()),
        problems: Vec::new(),
        sessions: None,
        not_passed_on: None,
        session_runs: Vec::new(),
        containment: None,
        runs_as: None,
    }
}

#[test]
fn a_servers_last_words_say_what_to_do() {
    let node =
        "mcpsup: run 3 started\nError: Cannot find module 'zod'\n    at Module._load\nNode.js v22.1.0\n";
    for (log, code, mend) in [
        (node, Code::Crash, "install what its last words name"),
        ("listen EACCES: permission denied 0.0.0.0:80", Code::Crash, "port_env, or {port} in command"),
        ("connect ECONNREFUSED 10.0.0.1:443", Code::Crash, "network, proxy, DNS"),
        ("HTTP 401 Unauthorized", Code::Crash, "mcpsup edit alice"),
        ("what is this", Code::Crash, "mcpsup logs alice/notes"),
        ("", Code::Crash, "mcpsup logs alice/notes"),
    ] {
        let found = server::diagnose(
            &cooling("exited with status 1, 3rd time in a row; next try in 2 s"),
            log,
            &asker(true),
        );
        assert_eq!((found.len(), found[0].code), (1, code), "{log}");
        assert!(found[0].mend.to_string().contains(mend), "{log}: {}", found[0].mend);
        assert!(!found[0].wrong.contains("next try"), "{}", found[0].wrong);
    }
    let found = server::diagnose(&cooling("was not ready in time: it answered HTTP 404"), "", &asker(true));
    assert_eq!((found[0].code, found[0].weight), (Code::NotReady, Weight::Wrong));
}

#[test]
fn a_server_that_ends_again_and_again_is_told_of_at_every_moment() {
    for state in [StateName::Starting, StateName::Stopping, StateName::Killing, StateName::Cooling] {
        let last_exit = Some("exited with status 3".to_owned());
        let mut now = InstanceStatus { state, last_exit, ..cooling("") };
        let found = server::diagnose(&now, "boom", &asker(true));
        let told: Vec<_> = found.iter().map(|one| (one.code, one.wrong.as_str())).collect();
        let boom = "exited with status 3; its last words: boom";
        assert_eq!(told, [(Code::Crash, boom)], "{state:?}");
        // What is only being started or stopped is well.
        now.strikes = 0;
        let is_told = !server::diagnose(&now, "", &asker(true)).is_empty();
        assert_eq!(is_told, state == StateName::Cooling, "{state:?}");
    }
}

#[test]
fn what_follows_from_another_finding_is_not_told_beside_it() {
    let server: ServerName = "notes".parse().unwrap();
    let of =
        |code, text: &str| Finding::wrong(code, text, Mend::Do("x".to_owned())).of_server(&user(), &server);
    let crash = of(Code::Crash, "could not be started");
    let note = Finding::note(Code::OnDisk, "note", Mend::Do("y".to_owned()));
    let all = in_order(vec![note.clone(), crash.clone(), of(Code::Program, "is not there"), crash.clone()]);
    assert_eq!(all.iter().map(|one| one.code).collect::<Vec<_>>(), [Code::Program, Code::OnDisk]);
    assert_eq!(in_order(vec![crash.clone(), crash.clone()]), [crash]);
}

#[test]
fn a_server_that_is_gone_from_the_configuration_is_not_told_for_a_file_that_is() {
    let server: ServerName = "notes".parse().unwrap();
    let note = crate::model::status::gone_from_config(&server);
    let mut now = InstanceStatus { state: StateName::Gone, ..cooling(&note) };
    let told = |now: &InstanceStatus| server::diagnose(now, "", &asker(true)).remove(0);
    let finding = told(&now);
    assert!(finding.wrong.contains("mcpsup.toml has no [server.notes] any more"), "{finding:?}");
    assert!(finding.mend.to_string().starts_with("edit: /etc/mcpsup/mcpsup.toml"), "{finding:?}");
    now.note = Some("its env file is gone; mcpsup remove alice frees the port".to_owned());
    assert_eq!(told(&now).mend.to_string(), "run: mcpsup add alice");
}

#[test]
fn whoever_holds_a_door_the_file_and_the_variable_that_pin_it_are_named() {
    let id = InstanceId::new(user(), "notes".parse().unwrap());
    let config = crate::logic::config::parse(
        "[server.notes]\ncommand = [\"/bin/notes\"]\ntransport = \"http\"\nport_env = \"NOTES_PORT\"\n",
        "mcpsup.toml",
    )
    .unwrap();
    let mend = |name: Option<&str>, says: &str| {
        let pin = host::pin(&id, name, |variable| variable == says, Some(&config));
        host::door_held(&id, 3456, "node", &pin, Some(3457), &asker(true)).mend.to_string()
    };
    for (name, says, expected) in [
        (None, "", "alice.env: MCPSUP_PORT=3457"),
        (Some(".env.alice"), "NOTES_PORT", ".env.alice: NOTES_PORT=3457"),
        (Some("alice.env"), "MCPSUP_PORT_NOTES", "alice.env: MCPSUP_PORT_NOTES=3457"),
    ] {
        let mend = mend(name, says);
        assert!(mend.starts_with(&format!("edit: /etc/mcpsup/env.d/{expected}, which is free")), "{mend}");
    }
}

#[test]
fn nobody_is_told_to_open_roots_home_to_all() {
    let steps = vec![
        step("/", Kind::Directory, 0o755, 0),
        step("/root", Kind::Directory, 0o700, 0),
        step("/root/x", Kind::File, 0o755, 0),
    ];
    let found = diagnosed(way(steps));
    assert_eq!(found[0].code, Code::Way);
    let Mend::Do(what) = &found[0].mend else { panic!("{:?}", found[0].mend) };
    assert!(what.contains("put it where others may get to it"), "{what}");
}

#[test]
fn a_runtime_directory_on_a_disk_is_mended_by_what_moves_it() {
    let seen = Seen {
        reached: Reached::Missing,
        pid: None,
        is_locked: false,
        open_files: None,
        socket: "/r/s".into(),
    };
    let disk = Disk { free: u64::MAX, free_files: None, is_read_only: false, is_in_memory: false };
    let mend = |names_config, uid| {
        let place = Place {
            what: "runtime",
            way: way(vec![step("/r", Kind::Directory, 0o755, uid)]),
            disk: Some(disk),
        };
        let found = host::place(&place, &seen, &Asker { names_config, uid, ..asker(true) });
        found.first().map(|found| found.mend.to_string()).unwrap_or_default()
    };
    assert!(mend(false, 0).contains("tmpfs"));
    assert!(mend(false, 1001).contains("XDG_RUNTIME_DIR"));
    assert_eq!(mend(true, 0), "", "with --config it lies where it was asked to");
}
