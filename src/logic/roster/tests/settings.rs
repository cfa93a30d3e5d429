//! What a file says to mcpsup itself.

use super::*;

#[test]
fn switched_off_is_neither_wanted_nor_forgotten() {
    let mut world = World::new();
    let before = world.alice(GOOD);
    let off = world.alice("TOKEN=tok-1234567\nMCPSUP_ENABLED=false\n");
    assert_eq!((&off.want, off.absent_because, off.door), (&Want::Never, StateName::Disabled, before.door));
    assert_eq!(world.alice("MCPSUP_ENABLED=false\n").want, Want::Never);
    assert_eq!(spec(&world.alice(GOOD)).id, spec(&before).id);
}

#[test]
fn an_optional_server_is_for_those_who_list_it() {
    let mut world = World::new();
    let optional = Server { for_all: false, port_env: None, ..server() };
    let two = config(&[("notes", server()), ("git-hub", optional)]);
    world.roster.set_config(Ok(two));
    world.files(&[
        ("alice", Some(GOOD)),
        ("bob", Some("TOKEN=tok-1\nMCPSUP_SERVERS=git-hub\nMCPSUP_PORT_GIT_HUB=4500\n")),
    ]);
    let names: Vec<_> = world.all().keys().map(ToString::to_string).collect();
    assert_eq!(names, ["alice/notes", "bob/git-hub", "bob/notes"]);
    let listed = world.one("bob/git-hub");
    assert_eq!(listed.door, Some(4500));
    // A slip of the pen takes nothing away.
    world.files(&[("bob", Some("TOKEN=tok-1\nMCPSUP_SERVERS=gith-hub\n"))]);
    let slip = world.one("bob/git-hub");
    assert_eq!(slip.want, listed.want);
    assert_eq!(
        said(&slip),
        [
            "env.d/bob.env:2: MCPSUP_SERVERS lists, as number 1, a server that is not in mcpsup.toml; did you mean git-hub?"
        ]
    );
    world.files(&[("bob", Some("TOKEN=tok-1\n"))]);
    let unlisted = world.one("bob/git-hub");
    assert_eq!(
        (unlisted.want, unlisted.absent_because, unlisted.door),
        (Want::Never, StateName::Disabled, Some(4500))
    );
}

#[test]
fn what_is_wrong_with_one_server_leaves_the_users_other_server_alone() {
    let mut world = World::new();
    let other = Server { credentials: BTreeMap::new(), port_env: None, ..server() };
    world.roster.set_config(Ok(config(&[("notes", server()), ("other", other)])));
    world.files(&[("alice", Some("A=1\n"))]);
    assert_eq!(world.one("alice/notes").want, Want::Keep);
    assert!(world.one("alice/other").problems.is_empty());
    spec(&world.one("alice/other"));
}

#[test]
fn settings_that_cannot_be_followed_are_named_with_their_mend_and_without_their_value() {
    for (line, problem) in [
        ("MCPSUP_PROT=4200", "MCPSUP_PROT is no setting of mcpsup; did you mean MCPSUP_PORT?"),
        (
            "MCPSUP_PORT_NOTSE=4200",
            "MCPSUP_PORT_NOTSE is no setting of mcpsup; did you mean MCPSUP_PORT_NOTES?",
        ),
        ("MCPSUP_XYZZY=hunter2", "MCPSUP_XYZZY is no setting of mcpsup; remove it"),
        ("MCPSUP_PORT=hunter2", "MCPSUP_PORT is not a port; expected a number from 1 to 65535"),
        ("NOTES_PORT=0", "NOTES_PORT is not a port; expected a number from 1 to 65535"),
        ("MCPSUP_PORT=+4200", "MCPSUP_PORT is not a port; expected a number from 1 to 65535"),
        ("MCPSUP_ENABLED=hunter2", "MCPSUP_ENABLED is true or false"),
        ("MCPSUP_SERVERS=../etc", "MCPSUP_SERVERS lists, as number 1, a server that is not in mcpsup.toml"),
        ("MCPSUP_RUN_AS=hunter2", "MCPSUP_RUN_AS names no account of this host"),
        (
            "MCPSUP_PORT=4200\nNOTES_PORT=4201",
            "NOTES_PORT asks for another port than MCPSUP_PORT on line 2; keep one of them",
        ),
        (
            "MCPSUP_PORT=20000",
            "MCPSUP_PORT: port 20000 lies in [ports] backend_range (20000-29999), where servers listen; choose one in 4100-5999",
        ),
    ] {
        let mut world = World::new();
        let listed = world.alice(&format!("{GOOD}{line}\n"));
        let at = if line.contains('\n') { 3 } else { 2 };
        assert_eq!(said(&listed), [format!("env.d/alice.env:{at}: {problem}")]);
        assert_eq!(listed.want, Want::Keep);
    }
}

#[test]
fn a_port_for_several_servers_is_ambiguous() {
    let mut world = World::new();
    let other = Server { port_env: None, ..server() };
    world.roster.set_config(Ok(config(&[("notes", server()), ("other", other)])));
    let listed = world.alice("TOKEN=tok-1\nMCPSUP_PORT=4200\n");
    assert_eq!(
        said(&listed),
        [
            "env.d/alice.env:2: MCPSUP_PORT is for one server, and there are 2; say MCPSUP_PORT_NOTES and so on"
        ]
    );
}

#[test]
fn names_that_steer_the_loader_are_for_root_alone() {
    for name in ["LD_PRELOAD", "GCONV_PATH", "LISTEN_FDS", "NOTIFY_SOCKET", "MCPSUP_RUN_AS"] {
        let mut world = World::new();
        world.account("svc", 900);
        world.uid = 1001;
        let listed = world.alice(&format!("{GOOD}{name}=svc\n"));
        assert_eq!((listed.want.clone(), listed.problems.len()), (Want::Keep, 1), "{name}");
        assert!(said(&listed)[0].starts_with(&format!("env.d/alice.env:2: {name} ")));
        world.uid = 0;
        world.files(&[]);
        let listed = world.alice(&format!("{GOOD}{name}=svc\n"));
        assert_eq!(env(&listed).contains_key(name), name != "MCPSUP_RUN_AS");
    }
}

/// The uid that an instance runs as.
fn uid(listed: &Listed) -> Option<u32> {
    spec(listed).account.as_ref().map(|account| account.uid)
}

#[test]
fn as_root_a_user_runs_as_the_account_of_their_name_else_as_a_uid_of_their_own_and_never_as_root() {
    let mut world = World::new();
    world.account("alice", 1001);
    world.account("toor", 0);
    world.account("svc", 900);
    world.files(&[
        ("alice", Some(GOOD)),
        ("toor", Some(GOOD)),
        ("zoe", Some(GOOD)),
        ("bob", Some(&format!("{GOOD}MCPSUP_RUN_AS=svc\n"))),
    ]);
    let uids: Vec<_> = world.all().values().map(|listed| (uid(listed), listed.owner_uid)).collect();
    // 65537 is a group's.
    let expected = [1001, 900, 65_536, 65_538].map(|uid| (Some(uid), Some(uid)));
    assert_eq!(uids, expected);
    let zoe = world.one("zoe");
    let account = spec(&zoe).account.clone().unwrap();
    assert_eq!((&*account.name, account.gid, account.is_reserved), ("zoe", 65_538, true));
    assert_eq!(env(&zoe)["USER"], "zoe");
    // It is at home where its instance is, and nowhere else.
    assert_eq!(env_of("zoe", &zoe)["HOME"], "/var/lib/mcpsup/instances/zoe/notes");
    // As an ordinary user everybody is the daemon's own user.
    world.is_root = false;
    world.files(&[("alice", Some("TOKEN=tok-2\n"))]);
    assert_eq!(spec(&world.one("alice")).account, None);
}

#[test]
fn who_is_removed_and_comes_back_has_the_uid_they_had_and_nobody_else_gets_it() {
    let mut world = World::new();
    world.files(&[("alice", Some(GOOD))]);
    assert_eq!(uid(&world.one("alice")), Some(65_536));
    world.files(&[("bob", Some(GOOD))]);
    assert_eq!(uid(&world.one("bob")), Some(65_538));
    world.files(&[("alice", Some(GOOD)), ("bob", None)]);
    assert_eq!(uid(&world.one("alice")), Some(65_536));
}

#[test]
fn who_share_an_account_are_at_home_in_their_own_directories_until_it_is_ones_alone() {
    let mut world = World::new();
    world.account("alice", 1001);
    let shared = format!("{GOOD}MCPSUP_RUN_AS=alice\n");
    world.files(&[("alice", Some(GOOD))]);
    let alone = world.one("alice");
    assert_eq!(env(&alone)["HOME"], "/home/alice");
    let narrow = world.look(false, &[("bob", Some(&shared))]);
    let bob = world.of(&world.roster.whom(narrow.clone())).into_values().next().unwrap();
    assert_eq!(env_of("bob", &bob)["HOME"], "/var/lib/mcpsup/instances/bob/notes");
    assert_eq!(world.roster.displaced(), BTreeSet::from([user("alice")]), "and alice is another's neighbour");
    let together = world.one("alice");
    assert_eq!(env(&together)["HOME"], "/var/lib/mcpsup/instances/alice/notes");
    assert_eq!(spec(&together).account.as_ref().unwrap().name, "alice");
    assert!(world.roster.notes()[0].contains("servers of alice, bob run as one account, uid 1001"));
    world.files(&[("alice", None)]);
    assert_eq!(spec(&world.one("alice")).id, spec(&alone).id);
    assert_eq!(world.roster.notes(), Vec::<String>::new());
}

#[test]
fn root_is_whom_the_configuration_calls_root_and_nobody_else() {
    let mut world = World::new();
    world.account("root", 0);
    world.account("toor", 0);
    world.files(&[("root", Some(GOOD)), ("alice", Some(&format!("{GOOD}MCPSUP_RUN_AS=root\n")))]);
    assert_eq!(uid(&world.one("root")), Some(65_536), "a file of that name does not say so");
    assert_eq!(uid(&world.one("alice")), Some(0));
    let listed = world.alice(&format!("{GOOD}MCPSUP_RUN_AS=toor\n"));
    assert_eq!(
        said(&listed),
        [
            "env.d/alice.env:2: MCPSUP_RUN_AS names root by another name; say MCPSUP_RUN_AS=root if that is meant"
        ]
    );
    let mut world = World::new();
    world.account("toor", 0);
    assert_eq!(world.alice(&format!("{GOOD}MCPSUP_RUN_AS=toor\n")).want, Want::Keep);
}

#[test]
fn an_account_with_a_uid_that_was_reserved_for_another_is_nobodys_to_run_as() {
    let mut world = World::new();
    world.files(&[("alice", Some(GOOD))]);
    assert_eq!(uid(&world.one("alice")), Some(65_536));
    world.account("bob", 65_536);
    world.account("svc", 65_536);
    world.files(&[
        ("alice", None),
        ("bob", Some(GOOD)),
        ("carol", Some(&format!("{GOOD}MCPSUP_RUN_AS=svc\n"))),
    ]);
    for (name, text) in [
        (
            "bob",
            "env.d/bob.env: the account bob has uid 65536, which was reserved for alice; give the account another",
        ),
        (
            "carol",
            "env.d/carol.env:2: MCPSUP_RUN_AS names an account whose uid was reserved for alice; give that another",
        ),
    ] {
        let listed = world.one(name);
        assert_eq!((said(&listed), listed.want), (vec![text.to_owned()], Want::Keep));
    }
}

#[test]
fn an_account_made_later_is_found() {
    let mut world = World::new();
    let file = format!("{GOOD}MCPSUP_RUN_AS=svc\n");
    assert_eq!(world.alice(&file).want, Want::Keep);
    world.account("svc", 900);
    assert_eq!(world.look_up_again(false), BTreeSet::from([user("alice")]));
    assert_eq!(spec(&world.one("alice")).account.as_ref().map(|account| account.uid), Some(900));
    assert_eq!(world.look_up_again(true), BTreeSet::new());
}

#[test]
fn nobody_runs_as_root_because_the_name_service_is_down() {
    let mut world = World::new();
    world.account("alice", 1001);
    world.account("svc", 900);
    world.no_names = true;
    let run_as = format!("{GOOD}MCPSUP_RUN_AS=svc\n");
    world.files(&[("alice", Some(GOOD)), ("bob", Some(&run_as)), ("zoe", Some(GOOD))]);
    for (name, said_of) in [("alice", "cannot look up the account alice"), ("bob", "cannot be looked up")] {
        let listed = world.one(name);
        assert_eq!(listed.want, Want::Keep, "{name}");
        let said = said(&listed).join("\n");
        assert!(said.contains(said_of) && said.contains(": connection refused; mend"), "{said}");
        assert!(!said.contains("svc"), "{said}");
    }
    // Still down: asked again, and nothing else follows.
    world.look_up_again(false);
    assert_eq!(world.one("alice").want, Want::Keep);

    world.no_names = false;
    let everybody = ["alice", "bob", "zoe"].map(user);
    assert_eq!(world.look_up_again(false), BTreeSet::from(everybody));
    assert_eq!(
        ["alice", "bob", "zoe"].map(|name| uid(&world.one(name))),
        [Some(1001), Some(900), Some(65_536)]
    );

    // One who has none is asked after now and then.
    world.account("zoe", 1002);
    assert_eq!(world.look_up_again(false), BTreeSet::new());
    assert_eq!(world.look_up_again(true), BTreeSet::from([user("zoe")]));
    assert_eq!(uid(&world.one("zoe")), Some(1002));

    // What runs goes on where a changed file meets a name service that is down.
    world.no_names = true;
    world.files(&[("alice", Some("TOKEN=tok-2\n")), ("bob", None), ("zoe", None)]);
    assert_eq!(uid(&world.one("alice")), Some(1001));
    // As an ordinary user nobody is asked.
    world.is_root = false;
    world.files(&[("dave", Some(GOOD))]);
    assert_eq!(uid(&world.one("dave")), None);
}

#[test]
fn a_pin_that_cannot_be_followed_leaves_the_last_good_version_on_its_old_port() {
    let mut world = World::new();
    world.files(&[("alice", Some(GOOD)), ("bob", Some(GOOD))]);
    let before = world.one("bob");
    world.files(&[("alice", None), ("bob", Some(&format!("{GOOD}MCPSUP_PORT=4100\n")))]);
    let after = world.one("bob");
    assert_eq!((&after.want, after.door), (&before.want, before.door));
    assert_eq!(said(&after), ["env.d/bob.env:2: MCPSUP_PORT: port 4100 is alice/notes's; choose another"]);
}

#[test]
fn a_broken_file_moves_no_door() {
    let mut world = World::new();
    let before = world.alice(GOOD);
    assert_eq!(world.alice("MCPSUP_PORT=4200\n").door, before.door);
    assert_eq!(world.alice(&format!("{GOOD}MCPSUP_PORT=4200\n")).door, Some(4200));
}
