//! What doctor tells somebody who administers nothing: their own part, and whom to ask.

use std::os::unix::fs::chown;

use mcpsup::model::status::StateName;

use super::{GOOD, Mend, World};
use crate::host::{notes, text};
use crate::seen;

/// An account of every Linux, and its uid.
const NOBODY: (&str, u32) = ("nobody", 65_534);

/// A host of root's where `nobody` and alice have servers that end by themselves.
fn broken() -> World {
    let script = "echo \"boom of $USER\" >&2; exit 3";
    let server = notes().replace(
        &format!("[{:?}]", crate::host::example("notes")),
        &format!("['/bin/sh', '-c', {script:?}]"),
    );
    let world = World::new(&server);
    world.host.save("alice", &format!("NOTES_TOKEN={GOOD}\nthis is broken\n"));
    world.host.save("bob", &format!("NOTES_TOKEN={GOOD}\n"));
    world.host.save(NOBODY.0, &format!("NOTES_TOKEN={GOOD}\n"));
    chown(world.at("env.d/nobody.env"), Some(NOBODY.1), None).unwrap();
    world
}

fn as_nobody(world: &mut World) {
    let words = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"];
    world.around = words.map(str::to_owned).into();
}

#[test]
fn a_user_without_rights_is_told_of_their_own_servers_and_of_nobody_elses() {
    if !seen::is_root() {
        return;
    }
    let mut world = broken();
    world.host.start();
    for user in ["bob", NOBODY.0] {
        world.host.until_state(user, StateName::Cooling);
    }
    let (_, all) = world.doctor(&[]);
    for part in ["boom of bob", "boom of nobody", "env.d/alice.env:2"] {
        assert!(all.iter().any(|one| one.wrong.contains(part)), "root is told of {part}: {all:#?}");
    }

    as_nobody(&mut world);
    let (status, own) = world.doctor(&[]);
    assert_eq!(status, 1);
    assert!(own.iter().any(|one| one.wrong.contains("its last words: boom of nobody")), "{own:#?}");
    for finding in &own {
        assert_eq!(finding.user.as_deref(), Some(NOBODY.0), "{finding:#?}");
        let shown = format!("{finding:?}");
        assert!(!shown.contains("alice") && !shown.contains("bob") && !shown.contains(GOOD), "{shown}");
        // What they are told to run is what they may run.
        if let Mend::Run(command) = &finding.mend {
            assert!(command.contains("mcpsup --config"), "{command}");
        }
    }
    let config = world.shown("mcpsup.toml");
    for other in ["alice", "bob", "zoe"] {
        let output = world.command(&["mcpsup", "--config", &config, "doctor", other]).output().unwrap();
        assert_eq!(output.status.code(), Some(4), "{}", text(&output.stderr));
        assert_eq!(text(&output.stdout), "", "of {other}");
    }
}

#[test]
fn a_user_without_rights_is_told_whom_to_ask_when_no_daemon_runs() {
    if !seen::is_root() {
        return;
    }
    let mut world = broken();
    as_nobody(&mut world);
    let (status, own) = world.doctor(&[]);
    assert_eq!(status, 1);
    let wrong: Vec<_> = own.iter().filter(|finding| finding.is_wrong).collect();
    assert_eq!(wrong.len(), 1, "{own:#?}");
    assert!(wrong[0].wrong.contains("the daemon is not running"), "{own:#?}");
    match &wrong[0].mend {
        Mend::Do(what) => {
            assert!(what.starts_with("ask an administrator of this host to run: mcpsup"), "{what}");
        }
        other => panic!("{other:?}"),
    }
    assert!(!format!("{own:?}").contains("alice"), "{own:#?}");
}

#[test]
fn an_administrator_asks_for_one_user_and_hears_of_nobody_else() {
    let mut world = World::new(&notes());
    world.host.save("alice", &format!("NOTES_TOKEN={GOOD}\n"));
    world.host.save("bob", "NOTES_TOKEN=\n");
    world.host.start();
    world.host.until_state("alice", StateName::Up);
    let (status, of_alice) = world.doctor(&["alice"]);
    assert_eq!(status, 0, "{of_alice:#?}");
    assert!(!format!("{of_alice:?}").contains("bob"));
    let (status, of_bob) = world.doctor(&["bob"]);
    assert_eq!(status, 1);
    assert!(of_bob.iter().any(|one| one.wrong.contains("NOTES_TOKEN is required")), "{of_bob:#?}");
    let config = world.shown("mcpsup.toml");
    let nobody = world.command(&["mcpsup", "--config", &config, "doctor", "zoe"]).output().unwrap();
    assert_eq!(nobody.status.code(), Some(1));
    assert!(text(&nobody.stderr).contains("there is no user \"zoe\""), "{}", text(&nobody.stderr));
    // For people: what was looked at, and that nothing is wrong.
    let page =
        text(&world.command(&["mcpsup", "--config", &config, "doctor", "alice"]).output().unwrap().stdout);
    for part in ["server   alice/notes: up on ", "program  alice/notes: ", "nothing is wrong"] {
        assert!(page.contains(part), "{part}: {page}");
    }
    world.kept.clear();
}
