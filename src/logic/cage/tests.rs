//! What is done and what is said, on hosts that have more and less.

use super::*;

fn fails(why: &str) -> Tried {
    Tried::Fails(why.to_owned())
}

/// Root on a kernel that has everything.
fn all() -> Site {
    Site {
        ground: Ground {
            accounts: Tried::Works,
            bounding: Tried::Works,
            landlock: 7,
            calls: Tried::Works,
            mounts: Tried::Works,
            pids: Tried::Works,
            hidepid: Tried::Works,
            through_user: false,
        },
        tree: Tree::Cgroup,
        hidden: vec!["/etc/mcpsup/env.d".into()],
        isolation: Isolation::Auto,
        unlimited: Vec::new(),
    }
}

/// An ordinary user on the same kernel.
fn ordinary() -> Site {
    let mut site = all();
    site.ground.accounts = fails("the daemon does not run as root");
    site.ground.bounding = fails("not permitted");
    site.ground.hidepid = fails("it takes CAP_SYS_ADMIN");
    site.ground.through_user = true;
    site.tree = Tree::PidNamespace;
    site
}

/// The same in the user's own service manager, or wherever else a cgroup is theirs.
fn in_groups() -> Site {
    Site { tree: Tree::Cgroup, ..ordinary() }
}

/// The same without user namespaces.
fn bare() -> Site {
    let mut site = ordinary();
    site.ground.mounts = fails("no user namespaces");
    site.ground.pids = fails("no user namespaces");
    site.tree = Tree::Session;
    site
}

fn broken(site: &Site) -> Vec<String> {
    site.promises().into_iter().filter(|promise| !promise.kept).map(|promise| promise.what).collect()
}

#[test]
fn the_tier_is_the_strongest_thing_that_separates_users() {
    assert_eq!(all().tier(), Tier::Accounts);
    assert_eq!(ordinary().tier(), Tier::Namespaces);
    assert_eq!(bare().tier(), Tier::Landlock);
    let mut less = bare();
    less.ground.landlock = 0;
    assert_eq!(less.tier(), Tier::None);
    let mut less = ordinary();
    less.ground.calls = fails("no seccomp");
    // Mounts alone are undone by whoever can make namespaces.
    assert_eq!(less.tier(), Tier::None);
}

#[test]
fn a_host_that_has_everything_keeps_every_promise() {
    assert_eq!(broken(&all()), Vec::<String>::new());
    assert_eq!(broken(&ordinary()), Vec::<String>::new());
    assert_eq!(broken(&in_groups()), Vec::<String>::new());
    assert_eq!(Site { isolation: Isolation::Require, ..all() }.refusal(), None);
}

#[test]
fn what_is_not_kept_is_said_with_what_would_keep_it() {
    let expected = ["killed whole", "processes unseen by others", "private /tmp and IPC"];
    assert_eq!(broken(&bare()), expected);
    let of = |what: &str| bare().promises().into_iter().find(|promise| promise.what == what).unwrap().by;
    assert!(of("private /tmp and IPC").contains("(no user namespaces); root has them"));
    let mut old = bare();
    old.ground.landlock = 5;
    assert!(broken(&old).contains(&"no signals to others".to_owned()));
    let mut short = all();
    short.unlimited = vec!["limits of server \"x\" not enforced on this host: memory".into()];
    assert_eq!(broken(&short), ["limits"]);
}

#[test]
fn an_ordinary_users_servers_have_their_namespaces_whether_one_user_is_served_or_several() {
    for tenancy in [Tenancy::Alone, Tenancy::Shared] {
        let namespaces = Namespaces { user: true, mount: true, pid: true };
        assert_eq!(ordinary().cage(&Allow::default(), tenancy).namespaces, namespaces, "{tenancy:?}");
    }
}

#[test]
fn an_ordinary_users_servers_see_no_others_in_cgroups_either() {
    for tenancy in [Tenancy::Alone, Tenancy::Shared] {
        let [beside, instead] = [in_groups(), ordinary()].map(|site| site.cage(&Allow::default(), tenancy));
        assert_eq!(beside, instead, "{tenancy:?}");
        assert_eq!((beside.namespaces.pid, beside.proc), (true, Proc::Own));
    }
    let by = |what: &str| in_groups().promises().into_iter().find(|promise| promise.what == what).unwrap().by;
    assert_eq!(by("killed whole"), "cgroup, pid namespace");
    assert_eq!(by("memory and environment closed to others"), "pid namespace, Landlock");
    assert_eq!(by("processes unseen by others"), "a /proc of its own");
    assert_eq!(by("no signals to others"), "pid namespace, Landlock");
}

#[test]
fn roots_servers_in_cgroups_have_a_proc_that_hides_others_and_no_first_process_of_ours() {
    for mut site in [all(), in_groups()] {
        // As root, whatever it may not do.
        site.ground.through_user = false;
        for hidepid in [Tried::Works, fails("no")] {
            site.ground.hidepid = hidepid;
            for tenancy in Tenancy::ALL {
                let cage = site.cage(&Allow::default(), tenancy);
                let proc = if site.ground.hidepid.works() { Proc::Hiding } else { Proc::Shared };
                assert_eq!((cage.namespaces.pid, cage.proc), (false, proc));
            }
        }
        let promised =
            site.promises().into_iter().find(|one| one.what == "processes unseen by others").unwrap();
        assert!(promised.by.ends_with("\"pid-namespace\" hides them, and gives up the limits of a cgroup"));
    }
}

#[test]
fn what_hides_processes_is_named_only_where_it_would() {
    let by = |site: &Site| {
        let mut all = site.promises().into_iter();
        all.find(|one| one.what == "processes unseen by others" && !one.kept).unwrap().by
    };
    let asked_for = Site { tree: Tree::Session, ..ordinary() };
    assert!(by(&asked_for).ends_with("containment = \"pid-namespace\" hides them"));
    // As in a container whose /proc is covered here and there.
    let mut covered = in_groups();
    covered.ground.pids = fails("cannot mount a /proc of its own: not permitted");
    assert!(!covered.cage(&Allow::default(), Tenancy::Shared).namespaces.pid);
    assert!(
        by(&covered).ends_with(
            "a /proc of its own cannot be had here (cannot mount a /proc of its own: not permitted)"
        )
    );
    assert!(by(&bare()).ends_with("root has them, or the kernel's user namespaces"));
}

#[test]
fn a_promise_is_kept_by_a_layer_only_if_the_cage_has_that_layer() {
    for site in [all(), ordinary(), in_groups(), bare()] {
        for without in 0..5 {
            let mut site = site.clone();
            let gone = match without {
                0 => {
                    site.ground.landlock = 0;
                    "Landlock"
                }
                1 => {
                    site.ground.calls = fails("no");
                    "seccomp"
                }
                2 => {
                    site.ground.mounts = fails("no");
                    "mount namespace"
                }
                3 => {
                    site.ground.hidepid = fails("no");
                    "hidepid"
                }
                _ => {
                    site.tree = Tree::Session;
                    "pid namespace"
                }
            };
            let cage = site.cage(
                &Allow::default(),
                if site.ground.accounts.works() { Tenancy::Alone } else { Tenancy::Shared },
            );
            for promise in site.promises().into_iter().filter(|promise| promise.kept) {
                assert!(!promise.by.contains(gone), "{gone} is gone, and yet: {promise}");
            }
            assert_eq!(cage.landlock, site.ground.landlock);
            assert_eq!(cage.calls.is_some(), site.ground.calls.works());
        }
    }
}

#[test]
fn less_than_is_asked_for_is_refused_and_the_refusal_says_what_is_missing() {
    let refusal = |site: Site, isolation| Site { isolation, ..site }.refusal();
    assert_eq!(refusal(bare(), Isolation::Auto), None);
    assert_eq!(refusal(all(), Isolation::AtLeast(Tier::Landlock)), None);
    assert_eq!(refusal(bare(), Isolation::AtLeast(Tier::Landlock)), None);
    assert_eq!(
        refusal(bare(), Isolation::AtLeast(Tier::Namespaces)).unwrap(),
        "isolation = \"namespaces\" cannot be had here, only \"landlock\": no user namespaces"
    );
    assert_eq!(
        refusal(ordinary(), Isolation::AtLeast(Tier::Accounts)).unwrap(),
        "isolation = \"accounts\" cannot be had here, only \"namespaces\": the daemon does not run as root"
    );
    assert!(refusal(bare(), Isolation::Require).unwrap().contains("killed whole: by session only"));
    // And what is refused is refused to every run, should the configuration say so later.
    let late = Site { isolation: Isolation::Require, ..bare() };
    assert_eq!(late.cage(&Allow::default(), Tenancy::Shared).refused, late.refusal());
}

#[test]
fn who_has_no_account_is_refused_where_accounts_are_asked_for() {
    for isolation in [Isolation::Require, Isolation::AtLeast(Tier::Accounts)] {
        let site = Site { isolation, ..all() };
        let refused = |tenancy| site.cage(&Allow::default(), tenancy).refused;
        assert_eq!(refused(Tenancy::Alone), None);
        assert!(refused(Tenancy::Root).unwrap().contains("as root, because"));
        assert!(
            refused(Tenancy::Shared).unwrap().contains("that servers of other users run as too, because")
        );
    }
    for tenancy in Tenancy::ALL {
        assert_eq!(all().cage(&Allow::default(), tenancy).refused, None);
    }
}

#[test]
fn runs_that_share_an_account_may_call_less() {
    let calls = |site: Site, tenancy| site.cage(&Allow::default(), tenancy).calls.unwrap();
    let own = calls(all(), Tenancy::Alone);
    assert!(own.namespaces && !own.unix_sockets && !own.others && !own.modes && !own.ipc);
    let shared = calls(bare(), Tenancy::Shared);
    assert!(shared.namespaces && shared.unix_sockets && shared.others && shared.modes && shared.ipc);
    // Namespaces do for the last three.
    let inside = calls(ordinary(), Tenancy::Shared);
    assert!(inside.unix_sockets && !inside.others && !inside.modes && !inside.ipc);
    // Where root's daemon keeps two users' runs in one account they see each other's processes.
    for tenancy in [Tenancy::Shared, Tenancy::Root] {
        let cage = all().cage(&Allow::default(), tenancy);
        let calls = cage.calls.unwrap();
        assert!(calls.unix_sockets && calls.others && !calls.modes && !calls.ipc);
        // What one writes there another's server would execute.
        assert_eq!(cage.write_if_there, Vec::<PathBuf>::new());
    }
}

#[test]
fn a_server_is_allowed_what_its_table_says_and_nothing_else() {
    let allow = Allow { unix_sockets: true, listen: vec![3334], ..Allow::default() };
    let (more, plain) =
        (ordinary().cage(&allow, Tenancy::Shared), ordinary().cage(&Allow::default(), Tenancy::Shared));
    let calls = plain.calls.map(|calls| Calls { unix_sockets: false, ..calls });
    assert_eq!(more, Cage { calls, listen: vec![3334], ..plain });
}
