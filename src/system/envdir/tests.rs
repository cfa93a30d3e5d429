//! Every way editors and tools save, against real directories.
#![allow(clippy::disallowed_methods, reason = "these tests write as editors do, not as we would")]

mod trusted;
mod watching;

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};

use super::file::SETTLES_IN;
use super::*;
use crate::model::file::Seal;
use crate::system::account;

struct World {
    /// The directory that env.d is in.
    above: tempfile::TempDir,
    dir: EnvDir,
    now: Moment,
}

fn user(name: &str) -> UserName {
    name.parse().unwrap()
}

#[expect(clippy::unnecessary_wraps, reason = "a name service that answers")]
fn nobody(_: &UserName) -> Result<Option<u32>, String> {
    Ok(None)
}

impl World {
    fn new() -> Self {
        let above = tempfile::tempdir().unwrap();
        let env = above.path().join("env.d");
        fs::create_dir(&env).unwrap();
        fs::set_permissions(&env, fs::Permissions::from_mode(0o755)).unwrap();
        Self { dir: EnvDir::new(&env), above, now: clock::now() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.above.path().join("env.d").join(name)
    }

    fn put(&self, name: &str, text: &str) {
        put(&self.path(name), text);
    }

    fn look(&mut self, complete: &[&str]) -> Look {
        let complete = complete.iter().map(OsString::from).collect();
        self.dir.look(self.now, Complete::Named(&complete), &nobody)
    }

    /// Looks as often as it is asked to, `now` going on without waiting, and says what was read
    /// last of each user.
    fn settle(&mut self) -> (Look, BTreeMap<UserName, String>) {
        let mut read = BTreeMap::new();
        loop {
            let look = self.look(&[]);
            for (user, state) in &look.files {
                if let FileState::Read(file) = state {
                    read.insert(user.clone(), String::from_utf8(file.bytes.to_vec()).unwrap());
                }
            }
            match look.again_at {
                Some(at) => self.now = at,
                None => return (look, read),
            }
        }
    }

    fn refusal(&mut self, name: &str) -> String {
        let (look, _) = self.settle();
        match &look.files[&user(name)] {
            FileState::Refused(problem) => problem.to_string(),
            other @ (FileState::Unchanged | FileState::Read(_) | FileState::Sealed(..)) => {
                panic!("{other:?}")
            }
        }
    }
}

fn put(path: &Path, text: &str) {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

fn only(name: &str, text: &str) -> BTreeMap<UserName, String> {
    BTreeMap::from([(user(name), text.to_owned())])
}

/// How something saves, and how it does it.
type Way = (&'static str, fn(&World));

#[test]
fn every_way_to_save_a_file_is_seen_once_it_is_complete() {
    let ways: [Way; 5] = [
        ("in place", |w| w.put("alice.env", "A=2\n")),
        ("write and rename", |w| {
            w.put(".alice.env.tmp", "A=2\n");
            fs::rename(w.path(".alice.env.tmp"), w.path("alice.env")).unwrap();
        }),
        ("mv in", |w| {
            let outside = w.above.path().join("new");
            put(&outside, "A=2\n");
            fs::rename(outside, w.path("alice.env")).unwrap();
        }),
        ("cp", |w| {
            let outside = w.above.path().join("new");
            put(&outside, "A=2\n");
            fs::copy(outside, w.path("alice.env")).unwrap();
        }),
        ("vim", |w| {
            fs::rename(w.path("alice.env"), w.path("alice.env~")).unwrap();
            w.put("alice.env", "A=2\n");
            fs::remove_file(w.path("alice.env~")).unwrap();
        }),
    ];
    for (way, save) in ways {
        let mut world = World::new();
        world.put("alice.env", "A=1\n");
        assert_eq!(world.settle().1, only("alice", "A=1\n"), "{way}");
        save(&world);
        assert_eq!(world.settle().1, only("alice", "A=2\n"), "{way}");
        let (look, read) = world.settle();
        assert_eq!((look.files[&user("alice")].clone(), read.len()), (FileState::Unchanged, 0), "{way}");
    }
}

#[test]
fn a_file_being_written_keeps_its_last_state_until_it_rests_or_is_said_to_be_complete() {
    let mut world = World::new();
    world.put("alice.env", "A=1\n");
    let look = world.look(&[]);
    assert_eq!(look.files[&user("alice")], FileState::Unchanged);
    assert_eq!(look.again_at, Some(world.now + SETTLES_IN));
    world.put("alice.env", "A=12\n");
    let look = world.look(&["alice.env"]);
    assert!(matches!(&look.files[&user("alice")], FileState::Read(file) if *file.bytes == b"A=12\n"));
}

#[test]
fn a_second_change_within_one_tick_of_the_file_clock_is_not_missed() {
    let mut world = World::new();
    let path = world.path("alice.env");
    let time = fs::FileTimes::new().set_modified(std::time::UNIX_EPOCH + Duration::from_secs(1_900_000_000));
    put(&path, "A=1\n");
    File::open(&path).unwrap().set_times(time).unwrap();
    world.look(&["alice.env"]);
    // The same size, inode and time; the kernel's own time of change may be the same as well.
    put(&path, "A=2\n");
    File::open(&path).unwrap().set_times(time).unwrap();
    assert_eq!(world.settle().1, only("alice", "A=2\n"));
}

#[test]
fn a_file_that_vanishes_for_a_moment_was_never_gone() {
    let mut world = World::new();
    world.put("alice.env", "A=1\n");
    world.settle();
    fs::remove_file(world.path("alice.env")).unwrap();
    let look = world.look(&[]);
    assert_eq!(look.files[&user("alice")], FileState::Unchanged);
    assert_eq!(look.again_at, Some(world.now + GRACE));
    world.put("alice.env", "A=1\n");
    world.settle();
    fs::remove_file(world.path("alice.env")).unwrap();
    let (look, _) = world.settle();
    assert!(look.files.is_empty() && look.directory.is_ok());
}

#[test]
fn a_vanished_directory_says_nothing_about_its_files() {
    let mut world = World::new();
    world.put("alice.env", "A=1\n");
    world.settle();
    let (env, away) = (world.path(""), world.above.path().join("away"));
    fs::rename(&env, &away).unwrap();
    let (look, _) = world.settle();
    assert!(look.directory.unwrap_err().text.starts_with("is not there; mkdir"));
    assert_eq!(look.files[&user("alice")], FileState::Unchanged);
    fs::rename(away, env).unwrap();
    let (look, read) = world.settle();
    assert!(look.directory.is_ok() && read.is_empty());
}

#[test]
fn a_directory_that_others_may_write_to_is_not_believed() {
    let mut world = World::new();
    world.put("alice.env", "A=1\n");
    fs::set_permissions(world.path(""), fs::Permissions::from_mode(0o777)).unwrap();
    let (look, read) = world.settle();
    assert!(look.directory.unwrap_err().text.contains("others may put files there (mode 0777); chmod go-w "));
    assert!(read.is_empty());
}

#[test]
fn a_kubernetes_volume_is_followed_through_its_swap() {
    let mut world = World::new();
    for (version, text) in [("..1", "A=1\n"), ("..2", "A=2\n")] {
        fs::create_dir(world.path(version)).unwrap();
        world.put(&format!("{version}/alice.env"), text);
    }
    symlink("..1", world.path("..data")).unwrap();
    symlink("..data/alice.env", world.path("alice.env")).unwrap();
    assert_eq!(world.settle().1, only("alice", "A=1\n"));
    symlink("..2", world.path("..data_tmp")).unwrap();
    fs::rename(world.path("..data_tmp"), world.path("..data")).unwrap();
    let (look, read) = world.settle();
    assert_eq!(read, only("alice", "A=2\n"));
    assert!(look.ignored.is_empty(), "{:?}", look.ignored);
}

#[test]
fn five_hundred_files_at_once_are_all_read() {
    let mut world = World::new();
    for number in 0..500 {
        world.put(&format!("u{number}.env"), &format!("A={number}\n"));
    }
    let (_, read) = world.settle();
    assert_eq!(read.len(), 500);
    assert_eq!(read[&user("u499")], "A=499\n");
}

#[test]
fn what_is_not_a_plain_private_file_is_refused_with_what_mends_it() {
    let mut world = World::new();
    fs::create_dir(world.path("dir.env")).unwrap();
    nix::unistd::mkfifo(&world.path("fifo.env"), Mode::S_IRWXU).unwrap();
    symlink("loop.env", world.path("loop.env")).unwrap();
    symlink("/etc/hostname", world.path("out.env")).unwrap();
    symlink("../out", world.path("up.env")).unwrap();
    world.put("linked.env", "A=1\n");
    fs::hard_link(world.path("linked.env"), world.above.path().join("other")).unwrap();
    world.put("open.env", "A=1\n");
    fs::set_permissions(world.path("open.env"), fs::Permissions::from_mode(0o644)).unwrap();
    world.put("large.env", &"x".repeat(1 << 20));
    world.put("two.env", "A=1\n");
    world.put(".env.two", "A=1\n");
    let open = world.path("open.env");
    for (name, text) in [
        ("dir", "is a directory, not a file; put a file there".to_owned()),
        ("fifo", "is a FIFO, not a file; put a file there".to_owned()),
        ("loop", "is a symbolic link that leads in a circle; put a file there".to_owned()),
        ("out", "is a symbolic link that leads out of its directory; put the file itself there".to_owned()),
        ("up", "is a symbolic link that leads out of its directory; put the file itself there".to_owned()),
        ("open", format!("may be read by others (mode 0644); chmod 600 {}", open.display())),
        ("large", "is larger than 64 KiB".to_owned()),
        ("two", "two files for one user: env.d/two.env and env.d/.env.two; keep one of them".to_owned()),
    ] {
        assert_eq!(world.refusal(name), format!("env.d/{name}.env: {text}"));
    }
    assert!(world.refusal("linked").contains("has 2 names (hard links)"));
}

#[test]
fn a_sealed_file_takes_the_place_of_a_plain_one_without_a_word() {
    let mut world = World::new();
    world.put("alice.env", "A=1\n");
    assert_eq!(world.settle().1, only("alice", "A=1\n"));
    world.put("alice.env.cred", "x");
    assert_eq!(world.look(&["alice.env.cred"]).files[&user("alice")], FileState::Unchanged);
    fs::remove_file(world.path("alice.env")).unwrap();
    let look = world.look(&["alice.env.cred"]);
    let state = &look.files[&user("alice")];
    assert!(matches!(state, FileState::Sealed(file, Seal::Creds) if **file.bytes == *b"x"), "{state:?}");
    // But both for good are one too many.
    world.put("alice.env", "A=1\n");
    assert!(world.refusal("alice").contains("two files for one user"));
}

#[test]
fn a_refused_file_is_read_as_soon_as_it_is_mended() {
    let mut world = World::new();
    world.put("alice.env", "A=1\n");
    fs::set_permissions(world.path("alice.env"), fs::Permissions::from_mode(0o640)).unwrap();
    assert!(world.refusal("alice").contains("mode 0640"));
    fs::set_permissions(world.path("alice.env"), fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(world.settle().1, only("alice", "A=1\n"));
}

#[test]
fn a_file_may_belong_to_its_own_user_and_to_no_other() {
    if account::own_uid() != 0 {
        return;
    }
    let mut world = World::new();
    world.put("alice.env", "A=1\n");
    std::os::unix::fs::chown(world.path("alice.env"), Some(4711), None).unwrap();
    assert!(
        world.refusal("alice").contains("belongs to uid 4711, who is neither root nor the daemon nor alice")
    );
    let down = |_: &UserName| Err("connection refused".to_owned());
    let look = world.dir.look(world.now, Complete::All, &down);
    assert!(matches!(
        &look.files[&user("alice")],
        FileState::Refused(problem) if problem.to_string().contains("cannot be looked up: connection refused; mend")
    ));
    let look =
        world.dir.look(world.now, Complete::All, &|user| Ok((user.as_str() == "alice").then_some(4711)));
    assert!(matches!(&look.files[&user("alice")], FileState::Read(file) if file.owner_uid == 4711));
}

#[test]
fn everything_else_is_left_alone_with_a_reason() {
    let mut world = World::new();
    for name in ["README", "alice.env~", "a b.env"] {
        world.put(name, "");
    }
    symlink("nowhere", world.path("lost.env")).unwrap();
    let (look, _) = world.settle();
    assert!(look.files.is_empty());
    let names: Vec<_> = look.ignored.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["README", "a b.env", "alice.env~", "lost.env"]);
}

#[test]
fn a_look_at_some_finds_of_them_what_a_whole_look_finds() {
    type Deed = fn(&World);
    let deeds: [Deed; 8] = [
        |world| world.put("alice.env", "A=1\n"),
        |world| world.put(".env.alice", "A=2\n"),
        |world| fs::remove_file(world.path("alice.env")).unwrap_or_default(),
        |world| fs::remove_file(world.path(".env.alice")).unwrap_or_default(),
        |world| {
            world.put("..new", "A=3\n");
            fs::rename(world.path("..new"), world.path("alice.env")).unwrap();
        },
        |world| {
            fs::remove_file(world.path("alice.env")).unwrap_or_default();
            symlink("..data/alice.env", world.path("alice.env")).unwrap();
        },
        |world| world.put("..data/alice.env", "A=4\n"),
        |world| world.put(".env.alice.bak", "A=5\n"),
    ];
    // Every pair of deeds after every first one.
    for deeds in (0..8 * 8 * 8).map(|number| [deeds[number / 64], deeds[number / 8 % 8], deeds[number % 8]]) {
        let mut world = World::new();
        world.put("bob.env", "B=1\n");
        fs::create_dir(world.path("..data")).unwrap();
        let whole = &mut EnvDir::new(&world.path(""));
        world.settle();
        while let Some(at) = whole.look(world.now, Complete::All, &nobody).again_at {
            world.now = at;
        }
        for deed in deeds {
            deed(&world);
            let alice = user("alice");
            let some = world.dir.look_at(&BTreeSet::from([alice.clone()]), world.now, Complete::All, &nobody);
            let all = whole.look(world.now, Complete::All, &nobody);
            assert!(!some.whole && all.whole);
            assert_eq!(some.files.get(&alice), all.files.get(&alice));
            assert!(!some.files.contains_key(&user("bob")));
            assert_eq!(some.again_at, all.again_at);
        }
    }
}

#[test]
fn a_look_at_some_does_not_say_that_a_missing_file_is_gone() {
    let mut world = World::new();
    world.put("alice.env", "A=1\n");
    world.settle();
    fs::remove_file(world.path("alice.env")).unwrap();
    let alice = BTreeSet::from([user("alice")]);
    world.dir.look_at(&alice, world.now, Complete::All, &nobody);
    world.now = world.now + GRACE;
    let look = world.dir.look_at(&alice, world.now, Complete::All, &nobody);
    assert_eq!(look.files[&user("alice")], FileState::Unchanged);
    assert!(!world.look(&[]).files.contains_key(&user("alice")));
}
