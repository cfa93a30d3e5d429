//! What a process is given.

use super::*;
use crate::model::SessionName;
use crate::model::config::{Era, Sessions, Stdio};
use crate::model::spec::Home;

#[test]
fn a_process_gets_its_environment_from_nothing_and_its_port_last() {
    let mut world = World::new();
    world.account("alice", 1001);
    let listed = world.alice("TOKEN=tok-1234567\nNOTES_PORT=4242\nMCPSUP_ENABLED=true\nWHO=me\nSHORT=abc\n");
    let spec = spec(&listed);
    assert_eq!((listed.door, spec.backend, listed.owner_uid), (Some(4242), Some(20000), Some(1001)));
    let expected = [
        ("HOME", "/home/alice"),
        ("LANG", "C.UTF-8"),
        ("LOGNAME", "alice"),
        ("NOTES_PORT", "20000"),
        ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
        ("SHORT", "abc"),
        ("TMPDIR", "/var/lib/mcpsup/instances/alice/notes/tmp"),
        ("TOKEN", "tok-1234567"),
        ("USER", "alice"),
        ("WHO", "me"),
    ];
    let id = InstanceId::new(user("alice"), "notes".parse().unwrap());
    let home = Home::of(&id, Path::new("/var/lib/mcpsup"), Path::new("/run/mcpsup"));
    let env = spec.environment(&home);
    let is: Vec<_> = env.iter().map(|(name, value)| (*name, &**value)).collect();
    assert_eq!(is, expected);
    assert_eq!((&*spec.program, spec.args[0].reveal()), ("/opt/notes", "20000"));
    assert_eq!(spec.start_dir(&home), Path::new("/var/lib/mcpsup/instances/alice/notes"));
    assert_eq!(home.runtime_dir, Path::new("/run/mcpsup/instances/alice/notes"));
    let secrets: Vec<_> = spec.secrets.iter().map(Secret::reveal).collect();
    assert_eq!(secrets, ["tok-1234567"]);
}

#[test]
fn a_declared_credential_is_secret_however_short_and_a_setting_never_is() {
    let mut world = World::new();
    let listed = world.alice("TOKEN=tok-\nMCPSUP_SERVERS=notes,notes\nEMPTY=\nOTHER=abcdefgh\n");
    let spec = spec(&listed);
    let secrets: Vec<_> = spec.secrets.iter().map(Secret::reveal).collect();
    assert_eq!(secrets, ["tok-", "abcdefgh"]);
}

#[test]
fn a_change_of_what_the_process_cannot_notice_restarts_nobody() {
    let mut world = World::new();
    let before = world.alice(GOOD);
    let mut changed = server();
    changed.stop.grace = Duration::from_secs(1);
    changed.ready.probe = Probe::Tcp;
    changed.path = "/other".to_owned();
    world.roster.set_config(Ok(config(&[("notes", changed.clone())])));
    let after = world.one("alice");
    assert_eq!((spec(&after).id, spec(&after).server.stop.grace), (spec(&before).id, Duration::from_secs(1)));
    assert_eq!(after.path(), "/other");
    changed.limits.memory = Some(1);
    world.roster.set_config(Ok(config(&[("notes", changed)])));
    assert_ne!(spec(&world.one("alice")).id, spec(&before).id);
}

#[test]
fn a_template_that_asks_in_vain_is_named_once() {
    let mut world = World::new();
    let mut asking = server();
    let hole = || Template(vec![Piece::Env("DSN".to_owned())]);
    asking.env.extend([("A".to_owned(), hole()), ("B".to_owned(), hole())]);
    world.roster.set_config(Ok(config(&[("notes", asking)])));
    let listed = world.alice(GOOD);
    assert_eq!((listed.want.clone(), listed.problems.len()), (Want::Keep, 1));
    assert!(said(&listed)[0].contains("DSN"));
    assert_eq!(env(&world.alice(&format!("{GOOD}DSN=a b\n")))["B"], "a b");
}

#[test]
fn a_moved_backend_makes_another_spec() {
    let mut world = World::new();
    let before = world.alice(GOOD);
    let id = InstanceId::new(user("alice"), "notes".parse().unwrap());
    let ranges = world.roster.config().unwrap().ports.clone();
    world.ports.move_backend(&ranges, &id, &BTreeSet::from([20000])).unwrap();
    let after = world.one("alice");
    assert_eq!((spec(&after).backend, env(&after)["NOTES_PORT"].as_str()), (Some(20001), "20001"));
    assert_ne!(spec(&after).id, spec(&before).id);
}

#[test]
fn nothing_in_a_spec_can_stand_for_something_else() {
    let mut world = World::new();
    let base = Spec::clone(&spec(&world.alice(GOOD)));
    let with_args =
        |args: &[&str]| Spec { args: args.iter().map(|arg| Secret::new(*arg)).collect(), ..base.clone() };
    let with_env = |env: &[(&str, &str)]| Spec {
        env: env.iter().map(|(name, value)| ((*name).into(), Secret::new(*value))).collect(),
        ..base.clone()
    };
    let with_server = |server: Server| Spec { server: Arc::new(server), ..base.clone() };
    let with_limits = |limits| with_server(Server { limits, ..(*base.server).clone() });
    let with_stdio =
        |stdio| with_server(Server { transport: Transport::Stdio(stdio), ..(*base.server).clone() });
    let specs = [
        with_args(&[]),
        with_args(&[""]),
        with_args(&["ab", "c"]),
        with_args(&["a", "bc"]),
        with_args(&["abc"]),
        with_env(&[("A", "B=C")]),
        with_env(&[("A=B", "C")]),
        with_env(&[("A", "B"), ("C", "")]),
        with_limits(Limits { memory: Some(0), ..Limits::default() }),
        with_limits(Limits { tasks: Some(0), ..Limits::default() }),
        Spec { backend: Some(1), ..base.clone() },
        with_stdio(Stdio::of(Sessions::Shared)),
        with_stdio(Stdio::of(Sessions::Isolated)),
        with_stdio(Stdio { era: Era::Modern, ..Stdio::of(Sessions::Shared) }),
        Spec { working_dir: Some(Path::new("/srv").into()), ..base.clone() },
        base.clone(),
    ];
    let id = InstanceId::new(user("alice"), "notes".parse().unwrap());
    let session = id.session(SessionName::new(1));
    let home = |id| Home::of(id, Path::new("/var/lib/mcpsup"), Path::new("/run/mcpsup"));
    let digests: BTreeSet<_> = specs.iter().map(|spec| digest::of(spec, &home(&id), &[7; 32])).collect();
    assert_eq!(digests.len(), specs.len());
    for other in [digest::of(&base, &home(&id), &[8; 32]), digest::of(&base, &home(&session), &[7; 32])] {
        assert!(!digests.contains(&other));
    }
}

#[test]
fn a_stdio_process_has_a_door_and_no_port_of_its_own() {
    let mut world = World::new();
    let stdio = Server {
        command: vec![text("/opt/notes")],
        transport: Transport::Stdio(Stdio::of(Sessions::Shared)),
        ..server()
    };
    world.roster.set_config(Ok(config(&[("notes", stdio)])));
    let listed = world.alice("TOKEN=tok-1234567\nNOTES_PORT=4242\n");
    let spec = spec(&listed);
    assert_eq!((listed.door, listed.path(), spec.backend), (Some(4242), "/mcp", None));
    assert_eq!(spec.stdio(), Some(Stdio::of(Sessions::Shared)));
    assert!(!env(&listed).contains_key("NOTES_PORT"), "it is where the door is, and nobody else's to know");
}

#[test]
fn a_session_gets_what_its_instance_was_given_and_directories_of_its_own() {
    let mut world = World::new();
    let stdio = Server {
        command: vec![text("/opt/notes"), Template(vec![Piece::Session])],
        transport: Transport::Stdio(Stdio::of(Sessions::Isolated)),
        ..server()
    };
    world.roster.set_config(Ok(config(&[("notes", stdio)])));
    let listed = world.alice("TOKEN=tok-1234567\n");
    let base = spec(&listed);
    let id = InstanceId::new(user("alice"), "notes".parse().unwrap()).session(SessionName::new(0xa1));
    let session = world.for_session(&id, base.id).unwrap();
    assert_eq!(session.args[0].reveal(), "00000000000000a1");
    assert_eq!(base.args[0].reveal(), "main");
    assert!(id.place().ends_with("instances/alice/notes+00000000000000a1"));
    assert_ne!(session.id, base.id);
    assert!(session.env.iter().any(|(name, value)| &**name == "TOKEN" && value.reveal() == "tok-1234567"));

    // A file that breaks changes nothing for sessions either; one that changes makes another spec.
    world.alice("TOKEN=wrong\n");
    assert_eq!(world.for_session(&id, base.id).unwrap(), session);
    let changed = world.alice("TOKEN=tok-7654321\n");
    assert_eq!(world.for_session(&id, base.id), None, "its instance runs something else now");
    assert_ne!(world.for_session(&id, spec(&changed).id).unwrap().id, session.id);
}
