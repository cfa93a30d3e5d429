//! Whom each process runs as, where the daemon is root: an account, a uid of their own, never root
//! unless that is said; and that mcpsup.toml is nobody else's doing.

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

use mcpsup::model::status::StateName;

use crate::host::{Host, MCPSUP, copy_program, example, unruly, write};
use crate::seen;

/// What is to be known of a process.
#[derive(Debug, PartialEq, Eq, Clone)]
struct Who {
    uid: u32,
    gid: u32,
    groups: String,
}

fn who(pid: u32) -> Who {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let field =
        |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned();
    let same = |text: String| {
        let ids: Vec<u32> = text.split_whitespace().map(|id| id.parse().unwrap()).collect();
        assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
        ids[0]
    };
    Who { uid: same(field("Uid:")), gid: same(field("Gid:")), groups: field("Groups:") }
}

fn uids(host: &Host, names: &[&str]) -> BTreeMap<String, u32> {
    names
        .iter()
        .map(|name| ((*name).to_owned(), who(host.until_state(name, StateName::Up).pid.unwrap()).uid))
        .collect()
}

/// What is wrong, once something is.
fn told(host: &Host, name: &str) -> String {
    host.until_some(&format!("{name} is told"), || {
        let instances = host.status().instances;
        let theirs = instances.iter().find(|one| one.user.as_str() == name)?;
        theirs.problems.first().map(ToString::to_string)
    })
}

#[test]
fn users_without_an_account_have_uids_of_their_own_that_are_never_anothers() {
    if !seen::is_root() {
        return;
    }
    let mut host = Host::with_unruly("");
    host.configure(&format!("[daemon]\nuid_range = \"71000-71002\"\n{}", unruly("")));
    for name in ["alice", "bob"] {
        host.save(name, "UNRULY=\n");
    }
    host.start();
    let first = uids(&host, &["alice", "bob"]);
    for (name, uid) in &first {
        assert!((71_000..=71_002).contains(uid), "{first:?}");
        let pid = host.instance(name).pid.unwrap();
        assert_eq!(who(pid), Who { uid: *uid, gid: *uid, groups: String::new() });
        assert_eq!(host.instance(name).runs_as, Some(format!("uid {uid}, reserved for {name}")));
        for own in ["state/instances/@/unruly", "state/instances/@/unruly/tmp", "run/instances/@/unruly"] {
            let meta = std::fs::metadata(host.path().join(own.replace('@', name))).unwrap();
            assert_eq!((meta.uid(), meta.gid(), meta.mode() & 0o7777), (*uid, *uid, 0o700), "{own}");
        }
        for daemons in ["state/instances/@", "run/instances/@"] {
            assert_eq!(std::fs::metadata(host.path().join(daemons.replace('@', name))).unwrap().uid(), 0);
        }
    }
    assert_ne!(first["alice"], first["bob"]);

    // Removed, and her files are still there: nobody else is given what they belong to.
    host.ok(&["remove", "alice", "-y"]);
    host.save("carol", "UNRULY=\n");
    let carol = uids(&host, &["carol"])["carol"];
    assert!(!first.values().any(|uid| *uid == carol));
    host.save("dave", "UNRULY=\n");
    let said = told(&host, "dave");
    assert!(said.contains("71000-71002 are all taken; widen [daemon] uid_range"), "{said}");
    host.delete("dave");
    host.save("alice", "UNRULY=\n");
    assert_eq!(uids(&host, &["alice", "bob"]), first);

    // Over a restart, also one after which the table is lost: whose the directories are tells it.
    let table = host.path().join("state/uids.json");
    for lost in [false, true] {
        assert!(host.stop().success());
        assert_eq!(std::fs::metadata(&table).unwrap().mode() & 0o7777, 0o600);
        if lost {
            std::fs::remove_file(&table).unwrap();
        }
        host.start();
        assert_eq!(uids(&host, &["alice", "bob"]), first, "lost: {lost}");
        assert_eq!(uids(&host, &["carol"])["carol"], carol);
    }

    // Nothing of hers is left, neither file nor directory: now it may go to another.
    host.ok(&["remove", "alice", "-y"]);
    for own in ["state", "run"] {
        std::fs::remove_dir_all(host.path().join(own).join("instances/alice")).unwrap();
    }
    host.save("erin", "UNRULY=\n");
    told(&host, "erin");
    host.ok(&["reload"]);
    assert_eq!(uids(&host, &["erin"])["erin"], first["alice"]);
}

#[test]
fn a_process_has_its_accounts_groups_and_one_without_an_account_has_none() {
    if !seen::is_root() {
        return;
    }
    // It says who it is before it becomes something that goes on.
    let server = "[server.unruly]\ncommand = [\"/bin/sh\", \"-c\", \"id; exec sleep 1000\"]\n\
                  transport = \"http\"\nport_env = \"PORT\"\n";
    let mut host = Host::new(server);
    // Accounts of a world of its own: the daemon sees these files in the place of the host's.
    let line = |path: &str, more: &str| std::fs::read_to_string(path).unwrap() + more;
    let passwd = line(
        "/etc/passwd",
        "alice:x:4242:4242::/nonexistent:/bin/sh\ncarol:x:4245:4245::/nonexistent:/bin/sh\n",
    );
    let group =
        line("/etc/group", "alice:x:4242:\ncarol:x:4245:\nreaders:x:4243:alice,zoe\nwriters:x:4244:alice\n");
    write(&host.path().join("passwd"), &passwd, 0o644);
    write(&host.path().join("group"), &group, 0o644);
    for name in ["alice", "zoe"] {
        host.save(name, "A=1\n");
    }
    host.save("bob", "MCPSUP_RUN_AS=carol\n");
    let script = "mount --bind passwd /etc/passwd && mount --bind group /etc/group && exec \"$@\"";
    let mut shell = Command::new("unshare");
    shell.args(["-m", "--propagation", "private", "/bin/sh", "-c", script, "sh", MCPSUP]);
    host.spawn_by(shell);
    host.until("the daemon answers or has ended", || {
        host.cli(&["status"]).status.success()
            || host.log().contains("mount:")
            || host.log().contains("unshare:")
    });
    if !host.cli(&["status"]).status.success() {
        eprintln!("skipped: no mounts can be made here: {}", host.log());
        return;
    }
    let says = |user: &str| {
        host.until_some(&format!("{user} says who they are"), || {
            let log = std::fs::read_to_string(host.path().join(format!("logs/{user}/unruly.log"))).ok()?;
            log.lines().find(|line| line.starts_with("uid=")).map(str::to_owned)
        })
    };
    // `id` itself may see the host's names or these; the numbers are the same.
    let numbers = |text: &str| {
        let mut plain = String::new();
        let mut depth = 0;
        for letter in text.chars() {
            depth += i32::from(letter == '(');
            if depth == 0 {
                plain.push(letter);
            }
            depth -= i32::from(letter == ')');
        }
        plain
    };
    assert_eq!(numbers(&says("alice")), "uid=4242 gid=4242 groups=4242,4243,4244");
    assert_eq!(numbers(&says("bob")), "uid=4245 gid=4245 groups=4245");
    // That a group lists a name for which there is no account gives whoever has that name nothing.
    assert_eq!(numbers(&says("zoe")), "uid=65536 gid=65536 groups=65536");
}

#[test]
fn a_program_that_its_user_cannot_get_to_says_what_bars_the_way() {
    if !seen::is_root() {
        return;
    }
    let mut host = Host::new("");
    let closed = host.path().join("closed");
    std::fs::create_dir(&closed).unwrap();
    std::fs::set_permissions(&closed, std::fs::Permissions::from_mode(0o700)).unwrap();
    let program = closed.join("unruly");
    copy_program(&example("unruly"), &program);
    host.configure(&unruly("").replace(&*example("unruly").to_string_lossy(), &program.to_string_lossy()));
    host.save("alice", "UNRULY=\n");
    host.start();
    let note = |part: &str| {
        host.until_some("it is told", || {
            let alice = host.status().instances.into_iter().find(|one| one.user.as_str() == "alice")?;
            alice.note.filter(|note| note.contains(part))
        })
    };
    let said = note("cannot execute ");
    let expected = format!(
        "cannot execute {} as uid 65536, to which {} is closed (mode 0700): permission denied",
        program.display(),
        closed.display()
    );
    assert!(said.contains(&expected), "{said}");

    std::fs::set_permissions(&closed, std::fs::Permissions::from_mode(0o711)).unwrap();
    host.until_state("alice", StateName::Up);
}

#[test]
fn root_is_said_in_so_many_words_and_shown() {
    if !seen::is_root() {
        return;
    }
    let mut host = Host::with_unruly("");
    host.save("alice", "UNRULY=\nMCPSUP_RUN_AS=root\n");
    host.save("root", "UNRULY=\n");
    host.start();
    let uids = uids(&host, &["alice", "root"]);
    assert_eq!((uids["alice"], uids["root"]), (0, 65_536));
    assert_eq!(host.instance("alice").runs_as.as_deref(), Some("root (uid 0)"));
    let notes = host.status().notes.join("\n");
    assert!(notes.contains("servers run as root, as MCPSUP_RUN_AS says: those of alice"), "{notes}");
}

#[test]
fn a_configuration_that_others_may_change_is_refused_and_what_runs_goes_on() {
    let mut host = Host::with_unruly("");
    host.save("alice", "UNRULY=\n");
    host.start();
    let before = host.until_state("alice", StateName::Up);
    let toml = host.path().join("mcpsup.toml");
    let mode =
        |path: &Path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    let usual = std::fs::metadata(host.path()).unwrap().permissions().mode();
    for (path, wrong, right, part) in [
        (&*toml, 0o666, 0o600, "may be changed by others (mode 0666); chmod go-w "),
        (
            host.path(),
            0o777,
            usual,
            "where others may put something else in its place (mode 0777); chmod go-w ",
        ),
    ] {
        mode(path, wrong);
        let checked = host.cli(&["check"]);
        assert_eq!(checked.status.code(), Some(1));
        let said = crate::host::text(&checked.stdout) + &crate::host::text(&checked.stderr);
        let whole = format!("{part}{}", path.display());
        assert!(said.contains(&whole), "{said}");
        assert_eq!(host.cli(&["reload"]).status.code(), Some(1));
        assert!(host.status().problems.iter().any(|problem| problem.text.contains(&whole)));
        assert_eq!(host.instance("alice").run, before.run);
        mode(path, right);
        host.ok(&["reload"]);
        assert_eq!(host.status().problems, []);
    }
    assert_eq!(host.instance("alice").run, before.run);
}

#[test]
fn accounts_are_looked_up_by_a_process_that_ends_and_the_name_service_moves_in_with_nobody() {
    if !seen::is_root() {
        return;
    }
    let mut host = Host::with_unruly("");
    host.save("alice", "UNRULY=\n");
    host.start();
    host.until_state("alice", StateName::Up);
    let daemon = host.daemon_pid();
    for user in ["bob", "carol"] {
        host.until("nobody asks any more", || {
            seen::zombies_of(daemon).is_empty() && seen::asking_for(daemon).is_empty()
        });
        // What answers in it, but for what is in the C library itself.
        let maps = std::fs::read_to_string(format!("/proc/{daemon}/maps")).unwrap();
        assert!(!maps.contains("/libnss_"), "{maps}");

        // Somebody is found to ask when there is something to ask.
        host.save(user, "UNRULY=\n");
        host.until_state(user, StateName::Up);
    }
    let again = host.until_some("somebody asks", || {
        host.save("dave", "UNRULY=\n");
        seen::asking_for(daemon).first().copied()
    });
    // Whoever ends it changes nothing.
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(again), nix::sys::signal::Signal::SIGKILL).unwrap();
    host.save("erin", "UNRULY=\n");
    host.until_state("erin", StateName::Up);
}
