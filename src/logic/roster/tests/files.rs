//! What breaks, goes and comes back.

use super::*;

#[test]
fn a_file_that_breaks_leaves_its_last_good_version_wanted_and_is_named() {
    let mut world = World::new();
    let good = world.alice(GOOD);
    let broken = world.alice("TOKEN=tok-1234567\nnonsense\n");
    assert_eq!((&broken.want, broken.door), (&good.want, good.door));
    assert_eq!(broken.problems.len(), 1);
    assert!(said(&broken)[0].starts_with("env.d/alice.env:2: expected NAME=value"));
    let invalid = world.alice("\nTOKEN=wrong-secret\n");
    assert_eq!(invalid.want, good.want);
    assert_eq!(
        said(&invalid),
        ["env.d/alice.env:2: TOKEN (notes token) does not match the pattern that mcpsup.toml gives: ^tok-"]
    );
    assert_eq!(said(&world.alice("")), ["env.d/alice.env: TOKEN is required (notes token); add TOKEN=…"]);
    let mended = world.alice("TOKEN=tok-7654321\n");
    assert!(mended.problems.is_empty());
    assert_ne!(spec(&mended).id, spec(&good).id);
}

#[test]
fn a_file_refused_leaves_its_last_good_version_wanted() {
    let mut world = World::new();
    let good = world.alice(GOOD);
    let problem =
        Problem::new("env.d/alice.env", "may be read by others (mode 0644); chmod 600 env.d/alice.env");
    let files = BTreeMap::from([(user("alice"), FileState::Refused(problem.clone()))]);
    world.roster.set_files(Look {
        directory: Ok(()),
        whole: true,
        files,
        ignored: Vec::new(),
        again_at: None,
    });
    let refused = world.one("alice");
    assert_eq!((refused.want, refused.problems), (good.want, vec![problem]));
}

#[test]
fn where_no_good_version_is_known_what_runs_goes_on_and_nothing_is_started() {
    for broken in ["nonsense\n", "TOKEN=wrong-secret\n", "TOKEN=tok-1\nMCPSUP_ENABLED=perhaps\n"] {
        let mut world = World::new();
        let listed = world.alice(broken);
        assert_eq!(
            (listed.want.clone(), listed.absent_because),
            (Want::Keep, StateName::Refused),
            "{broken}"
        );
        assert_eq!((listed.door, listed.problems.len()), (Some(4100), 1), "{broken}");
        assert!(!said(&listed)[0].contains("perhaps") && !said(&listed)[0].contains("wrong-secret"));
    }
}

#[test]
fn what_runs_goes_on_while_nothing_is_known_though_its_port_is_not_remembered() {
    let mut world = World::new();
    let (alice, nobody) = (InstanceId::new(user("alice"), "notes".parse().unwrap()), BTreeSet::new());
    let mut known = world.all();
    world.roster.keep(&mut known, [&alice].into_iter(), &nobody);
    assert_eq!(known, BTreeMap::new(), "no file asks for it");

    world.roster = Roster::default();
    world.roster.set_config(Err(vec![Problem::new("mcpsup.toml", "broken")]));
    let mut listed = world.all();
    assert_eq!(listed, BTreeMap::new());
    world.roster.keep(&mut listed, [&alice].into_iter(), &nobody);
    assert_eq!((listed[&alice].want.clone(), listed[&alice].door), (Want::Keep, None));
    let mut listed = world.all();
    world.roster.keep(&mut listed, [&alice].into_iter(), &BTreeSet::from([user("alice")]));
    assert_eq!(listed[&alice].want, Want::Never);
}

#[test]
fn the_same_file_again_changes_nothing() {
    let mut world = World::new();
    let first = world.alice(GOOD);
    let second = world.alice(&format!("# the same\n\n{GOOD}").replace("# the same\n\n", ""));
    assert!(Arc::ptr_eq(&spec(&first), &spec(&second)));
    world.roster.set_config(Ok(config(&[("notes", server())])));
    assert!(Arc::ptr_eq(&spec(&first), &spec(&world.one("alice"))));
    let reordered = world.alice(&format!("\n\n{GOOD}"));
    assert_eq!(spec(&first).id, spec(&reordered).id);
}

#[test]
fn a_deleted_file_stops_its_user_and_keeps_the_port() {
    let mut world = World::new();
    world.files(&[("alice", Some(GOOD)), ("bob", Some(GOOD))]);
    let before = world.one("bob");
    world.files(&[("alice", None)]);
    assert!(
        world.roster.has_file(&"alice".parse().unwrap()) && !world.roster.has_file(&"bob".parse().unwrap())
    );
    let gone = world.one("bob");
    assert_eq!((&gone.want, gone.absent_because, gone.door), (&Want::Never, StateName::Gone, before.door));
    world.files(&[("alice", None), ("bob", Some(GOOD))]);
    let back = world.one("bob");
    assert_eq!((spec(&back).id, back.door), (spec(&before).id, before.door));
}

#[test]
fn who_has_no_file_any_more_is_known_by_the_account_of_their_name_and_asking_that_looks_nothing_up() {
    let mut world = World::new();
    world.account("bob", 1002);
    world.files(&[("alice", Some(GOOD)), ("bob", Some(GOOD))]);
    world.all();
    world.files(&[("alice", None)]);
    assert_eq!(world.one("bob").owner_uid, None);
    assert_eq!(world.roster.owner_uid(&user("bob")), Some(1002));

    // What the name service says by then is heard with the look of the minute.
    world.account("bob", 1003);
    world.all();
    assert_eq!(world.roster.owner_uid(&user("bob")), Some(1002));
    assert!(world.look_up_again(false).is_empty());
    assert_eq!(world.look_up_again(true), BTreeSet::from([user("bob")]));
    assert_eq!(world.roster.owner_uid(&user("bob")), Some(1003));
    assert!(world.look_up_again(true).is_empty());

    // Without a file and without a port nobody is known, by whatever name.
    world.account("carol", 1004);
    world.removing.insert(user("bob"));
    world.all();
    assert_eq!(world.roster.owner_uid(&user("carol")), None);
}

#[test]
fn a_directory_that_cannot_be_read_changes_nothing() {
    let unknown = || Look {
        directory: Err(Problem::new("env.d", "is not there")),
        whole: true,
        files: BTreeMap::new(),
        ignored: Vec::new(),
        again_at: None,
    };
    let mut world = World::new();
    let before = world.alice(GOOD);
    world.roster.set_files(unknown());
    assert_eq!(world.one("alice"), before);
    assert_eq!(world.roster.problems().len(), 1);
    // A daemon that has just begun knows only who has a port.
    world.roster = Roster::default();
    world.roster.set_config(Ok(config(&[("notes", server())])));
    assert_eq!((world.one("alice").want, world.one("alice").absent_because), (Want::Keep, StateName::Down));
    world.roster.set_files(unknown());
    assert_eq!(
        (world.one("alice").want, world.one("alice").absent_because),
        (Want::Keep, StateName::Refused)
    );
}

#[test]
fn a_file_still_being_written_stops_nobody() {
    let mut world = World::new();
    world.alice(GOOD);
    world.roster = Roster::default();
    world.roster.set_config(Ok(config(&[("notes", server())])));
    world.files(&[("alice", None), ("newcomer", None)]);
    assert_eq!(world.one("alice").want, Want::Keep);
    assert_eq!(world.all().len(), 1, "a newcomer has no port before it is known which");
}

#[test]
fn a_broken_mcpsup_toml_touches_nobody() {
    let mut world = World::new();
    let before = world.alice(GOOD);
    world.roster.set_config(Err(vec![Problem::new("mcpsup.toml", "nonsense")]));
    assert_eq!(world.one("alice"), before);
    assert_eq!(world.roster.problems()[0].to_string(), "mcpsup.toml: nonsense");
    world.roster = Roster::default();
    world.files(&[("alice", Some(GOOD))]);
    world.roster.set_config(Err(vec![Problem::new("mcpsup.toml", "nonsense")]));
    let listed = world.one("alice");
    assert_eq!(
        (listed.want, listed.absent_because, listed.door),
        (Want::Keep, StateName::Refused, before.door)
    );
}

#[test]
fn a_server_taken_out_of_mcpsup_toml_is_not_wanted() {
    let mut world = World::new();
    world.alice(GOOD);
    world.roster.set_config(Ok(config(&[("other", server())])));
    let all = world.all();
    let wants: Vec<_> = all.iter().map(|(id, listed)| (id.to_string(), listed.absent_because)).collect();
    assert_eq!(
        wants,
        [("alice/notes".to_owned(), StateName::Gone), ("alice/other".to_owned(), StateName::Down)]
    );
    assert_eq!(world.one("alice").want, Want::Never);
}

#[test]
fn a_broken_file_is_told_of_even_where_its_user_has_no_instance() {
    let mut world = World::new();
    world.roster.set_config(Ok(config(&[("notes", Server { for_all: false, ..server() })])));
    world.files(&[
        ("alice", Some("MCPSUP_SERVERS=nots\n")),
        ("bob", Some("nonsense\n")),
        ("carol", Some("")),
    ]);
    assert!(world.all().is_empty());
    let problems = world.roster.problems();
    let files: Vec<_> = problems.iter().map(|problem| &*problem.file).collect();
    assert_eq!(files, ["env.d/alice.env", "env.d/bob.env"]);
}

#[test]
fn whoever_is_being_removed_is_wanted_no_more_whatever_else_is_known() {
    let mut world = World::new();
    world.files(&[("alice", Some(GOOD)), ("bob", Some(GOOD))]);
    assert!(matches!(world.one("alice").want, Want::Always(_)));
    world.removing.insert(user("alice"));
    let seen_a_moment_ago = world.one("alice");
    // As after a start of the daemon with a broken mcpsup.toml.
    world.roster = Roster::default();
    world.roster.set_config(Err(vec![Problem::new("mcpsup.toml", "wrong")]));
    world.files(&[("bob", Some(GOOD))]);
    for alice in [seen_a_moment_ago, world.one("alice")] {
        assert_eq!((alice.want, alice.absent_because), (Want::Never, StateName::Gone));
    }
    assert_eq!(world.one("bob").want, Want::Keep);
}
