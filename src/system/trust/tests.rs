//! Ways that are somebody else's doing, made and looked at. As root also those of third persons.
#![allow(clippy::disallowed_methods, reason = "these tests write as others do, not as we would")]

use std::cell::Cell;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, lchown, symlink};

use super::*;

thread_local! {
    /// This thread's kernel knows no openat2.
    pub(in crate::system) static OLD_KERNEL: Cell<bool> = const { Cell::new(false) };
}

/// Somebody else.
const STRANGER: u32 = 4711;

/// True for root, who alone can make things that belong to others; says so if not.
pub(in crate::system) fn is_root() -> bool {
    let is = account::own_uid() == 0;
    if !is {
        eprintln!("skipped: needs root");
    }
    is
}

fn world() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a/b");
    fs::create_dir_all(&path).unwrap();
    for path in [dir.path().join("a"), path.clone()] {
        mode(&path, 0o755);
    }
    let file = path.join("mcpsup.toml");
    fs::write(&file, "whole").unwrap();
    mode(&file, 0o644);
    (dir, file)
}

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn refusal(file: &Path) -> String {
    read(file, 100).unwrap_err().to_string()
}

/// The mend that a refusal gives is done as a shell does it, and then the file is read.
fn mended(file: &Path) {
    let said = refusal(file);
    let (_, mend) = said.rsplit_once("; ").unwrap();
    let mend = mend.trim_start_matches("put a copy in its place: ");
    let done = std::process::Command::new("/bin/sh").args(["-c", mend]).status().unwrap();
    assert!(done.success(), "{mend}");
    assert_eq!(read(file, 100).unwrap(), b"whole", "{said}");
}

#[test]
fn what_only_we_can_change_is_read_however_many_may_read_it() {
    let (_dir, file) = world();
    assert_eq!(read(&file, 5).unwrap(), b"whole");
    assert_eq!(read(&file, 4).unwrap_err().to_string(), "is larger than 4 bytes");
    assert_eq!(refusal(&file.with_file_name("none")), "cannot be read: no such file or directory");
    assert_eq!(refusal(file.parent().unwrap()), "is not a regular file; put a file there");
}

#[test]
fn a_file_that_others_may_change_is_refused_with_the_chmod_that_mends_it() {
    let (_dir, file) = world();
    mode(&file, 0o646);
    assert_eq!(
        refusal(&file),
        format!("may be changed by others (mode 0646); chmod go-w {}", file.display())
    );
    mended(&file);
}

#[test]
fn a_directory_on_the_way_that_others_may_change_is_refused_and_a_sticky_one_is_not() {
    let (_dir, file) = world();
    for above in [file.parent().unwrap(), file.parent().unwrap().parent().unwrap()] {
        mode(above, 0o1777);
        assert_eq!(read(&file, 100).unwrap(), b"whole");
        mode(above, 0o777);
        assert_eq!(
            refusal(&file),
            format!(
                "is reached through {0}, where others may put something else in its place (mode 0777); chmod go-w {0}",
                above.display()
            )
        );
        mended(&file);
    }
}

#[test]
fn what_a_third_person_owns_is_refused_with_the_chown_that_mends_it() {
    if !is_root() {
        return;
    }
    let (dir, file) = world();
    let who = format!("uid {STRANGER}, who is neither root nor the daemon; chown root");
    chown(&file, Some(STRANGER), None).unwrap();
    assert_eq!(refusal(&file), format!("belongs to {who} {}", file.display()));
    mended(&file);
    let above = dir.path().join("a");
    chown(&above, Some(STRANGER), None).unwrap();
    assert_eq!(
        refusal(&file),
        format!("is reached through {0}, which belongs to {who} {0}", above.display())
    );
    mended(&file);
}

#[test]
fn a_group_counts_as_others() {
    if !is_root() {
        return;
    }
    let (dir, file) = world();
    let above = dir.path().join("a");
    mode(&above, 0o775);
    assert_eq!(read(&file, 100).unwrap(), b"whole", "root's own group");
    chown(&above, None, Some(STRANGER)).unwrap();
    assert!(refusal(&file).contains("(mode 0775); chmod go-w "));
    mended(&file);
}

#[test]
fn a_link_is_followed_if_it_was_made_by_whom_we_trust() {
    let (dir, file) = world();
    let (link, lead) = (dir.path().join("link"), dir.path().join("lead"));
    symlink("link/b/../b/./mcpsup.toml", &lead).unwrap();
    symlink(dir.path().join("a"), &link).unwrap();
    assert_eq!(read(&lead, 100).unwrap(), b"whole");
    // Where a link leads is looked at as well.
    mode(file.parent().unwrap(), 0o777);
    assert!(refusal(&lead).contains("a/b, where others may put"));
    mended(&lead);
    if is_root() {
        mode(dir.path(), 0o1777);
        lchown(&link, Some(STRANGER), None).unwrap();
        let said = refusal(&lead);
        assert!(said.contains(&format!("link, a symbolic link that uid {STRANGER} made")), "{said}");
        mended(&lead);
    }
    symlink("circle", dir.path().join("circle")).unwrap();
    assert!(refusal(&dir.path().join("circle")).contains("leads in a circle"));
}

#[test]
fn a_file_under_two_names_is_refused_with_what_mends_it() {
    let (dir, file) = world();
    fs::hard_link(&file, dir.path().join("other")).unwrap();
    assert!(refusal(&file).starts_with("has 2 names (hard links), so it can change unseen; put a copy"));
    mended(&file);
}

#[test]
fn a_fifo_is_not_waited_for() {
    let (dir, _file) = world();
    let fifo = dir.path().join("fifo");
    nix::unistd::mkfifo(&fifo, Mode::S_IRWXU).unwrap();
    assert_eq!(refusal(&fifo), "is not a regular file; put a file there");
}

#[test]
fn what_becomes_a_link_between_look_and_open_is_not_opened() {
    for old in [false, true] {
        OLD_KERNEL.set(old);
        let (dir, file) = world();
        let beside = dir.path().join("beside");
        fs::write(&beside, "another's").unwrap();
        let place = locate(&file).unwrap();
        fs::remove_file(&file).unwrap();
        symlink(beside, &file).unwrap();
        assert_eq!(open(&place, OFlag::O_RDONLY).unwrap_err(), Errno::ELOOP);
        OLD_KERNEL.set(false);
    }
}
