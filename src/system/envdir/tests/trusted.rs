//! Whose doing a file can be: every refusal with the mend that it names, and what happens when a
//! file becomes another while it is looked at.

use std::os::unix::fs::{chown, lchown};
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::system::envdir::open::{NotRead, Rules, read_at};
use crate::system::trust::tests::{OLD_KERNEL, is_root};

/// Somebody else, and alice herself.
const STRANGER: u32 = 4711;
const ALICE: u32 = 4712;

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[expect(clippy::unnecessary_wraps, reason = "a name service that answers")]
fn accounts(user: &UserName) -> Result<Option<u32>, String> {
    Ok((user.as_str() == "alice").then_some(ALICE))
}

impl World {
    /// What is wrong with alice's file, or with the directory.
    fn said(&mut self) -> Option<String> {
        let look = self.dir.look(self.now, Complete::All, &accounts);
        match (&look.directory, look.files.get(&user("alice"))) {
            (Err(problem), _) | (Ok(()), Some(FileState::Refused(problem))) => Some(problem.text.clone()),
            (Ok(()), _) => None,
        }
    }

    /// The mend that the refusal names is done as a shell does it, and then nothing is wrong.
    #[track_caller]
    fn mended(&mut self) {
        let said = self.said().expect("something is wrong");
        let (_, mend) = said.rsplit_once("; ").unwrap();
        let mend = mend.trim_start_matches("put a copy in its place: ");
        let done = std::process::Command::new("/bin/sh").args(["-c", mend]).status().unwrap();
        assert!(done.success(), "{mend}");
        assert_eq!(self.said(), None, "{said}");
    }
}

#[test]
fn every_refusal_names_the_command_that_mends_it() {
    let mut world = World::new();
    world.put("alice.env", "A=1\n");
    let file = world.path("alice.env");
    assert_eq!(world.said(), None);
    for wrong in [0o644, 0o640, 0o604, 0o660, 0o602, 0o610] {
        mode(&file, wrong);
        let said = world.said().unwrap();
        assert!(said.ends_with(&format!("(mode {wrong:04o}); chmod 600 {}", file.display())), "{said}");
        world.mended();
    }
    fs::hard_link(&file, world.above.path().join("elsewhere")).unwrap();
    assert!(
        world.said().unwrap().starts_with("has 2 names (hard links), so it can change unseen; put a copy")
    );
    world.mended();
    for (path, said) in [
        (world.path(""), "others may put files there (mode 0777); chmod go-w "),
        (
            world.above.path().to_owned(),
            "where others may put something else in its place (mode 0777); chmod go-w ",
        ),
    ] {
        let before = fs::metadata(&path).unwrap().permissions().mode();
        mode(&path, 0o777);
        assert!(world.said().unwrap().contains(said), "{:?}", world.said());
        world.mended();
        mode(&path, 0o1777);
        assert_eq!(world.said(), None, "sticky");
        mode(&path, before);
    }
}

#[test]
fn what_belongs_to_a_third_person_is_refused_wherever_it_is_on_the_way() {
    if !is_root() {
        return;
    }
    let mut world = World::new();
    world.put("alice.env", "A=1\n");
    for path in [world.path("alice.env"), world.path(""), world.above.path().to_owned()] {
        chown(&path, Some(STRANGER), None).unwrap();
        let said = world.said().unwrap();
        assert!(
            said.contains(&format!("belongs to uid {STRANGER}, who is neither root nor the daemon")),
            "{said}"
        );
        world.mended();
    }
    // Her own file is hers; a directory is not hers to have.
    chown(world.path("alice.env"), Some(ALICE), None).unwrap();
    assert_eq!(world.said(), None);
    chown(world.path(""), Some(ALICE), None).unwrap();
    world.mended();
    // A group that is not root's may write there.
    mode(&world.path(""), 0o770);
    assert_eq!(world.said(), None);
    chown(world.path(""), None, Some(STRANGER)).unwrap();
    assert!(world.said().unwrap().starts_with("others may put files there (mode 0770); chmod go-w "));
    world.mended();
}

#[test]
fn a_link_is_followed_only_through_what_others_cannot_change() {
    let mut world = World::new();
    fs::create_dir(world.path("..1")).unwrap();
    mode(&world.path("..1"), 0o755);
    world.put("..1/alice.env", "A=1\n");
    symlink("..1", world.path("..data")).unwrap();
    symlink("..data/alice.env", world.path("alice.env")).unwrap();
    assert_eq!(world.said(), None);
    // Who may write there may put bob's file in the place of hers.
    mode(&world.path("..1"), 0o777);
    assert!(world.said().unwrap().contains("..1, where others may put something else in its place"));
    world.mended();
    if is_root() {
        // In a sticky directory anybody can make a link of her name that leads to another's file.
        mode(&world.path(""), 0o1777);
        lchown(world.path("alice.env"), Some(STRANGER), None).unwrap();
        assert!(world.said().unwrap().contains(&format!("a symbolic link that uid {STRANGER} made")));
        world.mended();
    }
}

#[test]
fn a_kernel_without_openat2_follows_and_refuses_the_same_links() {
    OLD_KERNEL.set(true);
    a_kubernetes_volume_is_followed_through_its_swap();
    what_is_not_a_plain_private_file_is_refused_with_what_mends_it();
    OLD_KERNEL.set(false);
}

#[test]
fn a_file_that_becomes_a_link_between_look_and_open_is_looked_at_again() {
    for old in [false, true] {
        OLD_KERNEL.set(old);
        let world = World::new();
        world.put("alice.env", "A=1\n");
        world.put("bob.env", "B=bobs-own\n");
        let dir = world.dir.open().unwrap();
        let place = crate::system::trust::locate_beneath(&dir, &world.path(""), "alice.env").unwrap();
        fs::remove_file(world.path("alice.env")).unwrap();
        symlink("bob.env", world.path("alice.env")).unwrap();
        let rules = Rules { account: &|| Ok(None), user: "alice", path: "alice.env", seal: None };
        assert_eq!(read_at(&place, &rules).unwrap_err(), NotRead::Changing);
        OLD_KERNEL.set(false);
    }
}

#[test]
fn a_file_that_is_swapped_for_a_link_again_and_again_never_gives_what_lies_outside() {
    let mut world = World::new();
    world.put("alice.env", "A=1\n");
    let outside = world.above.path().join("outside");
    put(&outside, "SECRET=of-another\n");
    let (path, new) = (world.path("alice.env"), world.path("..new"));
    let over = AtomicBool::new(false);
    let seen: Result<_, String> = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                symlink(&outside, &new).unwrap();
                fs::rename(&new, &path).unwrap();
                put(&new, "A=1\n");
                fs::rename(&new, &path).unwrap();
            }
        });
        let (mut read, mut refused, mut wrong) = (0, 0, None);
        for _ in 0..20_000 {
            let look = world.dir.look(world.now, Complete::All, &nobody);
            match look.files.get(&user("alice")) {
                Some(FileState::Read(file)) if **file.bytes == *b"A=1\n" => read += 1,
                Some(FileState::Refused(problem)) if problem.text.contains("leads out of its directory") => {
                    refused += 1;
                }
                Some(state @ (FileState::Read(_) | FileState::Sealed(..) | FileState::Refused(_))) => {
                    wrong = Some(format!("{state:?}"));
                    break;
                }
                Some(FileState::Unchanged) | None => {}
            }
        }
        over.store(true, Ordering::Relaxed);
        wrong.map_or(Ok((read, refused)), Err)
    });
    let (read, refused) = seen.unwrap();
    assert!(read > 0 && refused > 0, "both were seen: {read}, {refused}");
}
