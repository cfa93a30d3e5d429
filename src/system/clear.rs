//! Removing a directory that somebody else has filled.
//!
//! Whoever filled it may have meant harm: tens of thousands of directories in each other overflow a
//! stack that follows them, and need as many descriptors. So only so many are followed at a time;
//! what is deeper is moved up first. No link is followed, and no path is used but the first.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags, openat, renameat, statat, unlinkat};
use rustix::io::Errno;

/// So many directories in each other are followed.
const DEEPEST: usize = 32;
/// So many names of one directory are kept at a time.
const AT_ONCE: usize = 1024;

/// Removes the directory with all that is in it; nothing if it is not there.
///
/// # Errors
///
/// When something cannot be removed; other things may be gone by then.
pub fn remove_tree(path: &Path) -> io::Result<()> {
    let root = match open(CWD, path) {
        Err(Errno::NOENT) => return Ok(()),
        opened => opened?,
    };
    let mut moved = 0;
    empty(root.as_fd(), root.as_fd(), DEEPEST, &mut moved)?;
    std::fs::remove_dir(path)
}

fn open(at: impl AsFd, name: impl rustix::path::Arg) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(at, name, flags, Mode::empty())
}

/// Empties `dir`; `left` levels below it are followed, deeper ones moved to `root` and found there.
fn empty(root: BorrowedFd<'_>, dir: BorrowedFd<'_>, left: usize, moved: &mut u64) -> Result<(), Errno> {
    loop {
        let names = some_names(dir)?;
        if names.is_empty() {
            return Ok(());
        }
        for name in names {
            match unlinkat(dir, &name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                // Linux says ISDIR, POSIX would have PERM.
                Err(Errno::ISDIR | Errno::PERM) if left == 0 => move_up(root, dir, &name, moved)?,
                Err(Errno::ISDIR | Errno::PERM) => {
                    let below = open(dir, &name)?;
                    empty(root, below.as_fd(), left - 1, moved)?;
                    unlinkat(dir, &name, AtFlags::REMOVEDIR)?;
                }
                Err(error) => return Err(error),
            }
        }
    }
}

/// Some of the names in a directory, none if it is empty.
fn some_names(dir: BorrowedFd<'_>) -> Result<Vec<CString>, Errno> {
    let mut names = Vec::new();
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        if !matches!(name.to_bytes(), b"." | b"..") {
            names.push(name.to_owned());
        }
        if names.len() == AT_ONCE {
            break;
        }
    }
    Ok(names)
}

/// Under a name that nothing has.
fn move_up(root: BorrowedFd<'_>, dir: BorrowedFd<'_>, name: &CString, moved: &mut u64) -> Result<(), Errno> {
    loop {
        *moved += 1;
        let new = format!(".deep-{moved}");
        match statat(root, &new, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => return renameat(dir, name, root, &new),
            Ok(_) => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_goes_however_deep_and_wide_it_is_and_what_links_lead_to_stays() {
        let scratch = tempfile::tempdir().unwrap();
        let (tree, outside) = (scratch.path().join("tree"), scratch.path().join("outside"));
        std::fs::create_dir_all(tree.join("wide")).unwrap();
        std::fs::create_dir(&outside).unwrap();
        std::fs::File::create(outside.join("file")).unwrap();
        std::os::unix::fs::symlink(&outside, tree.join("link")).unwrap();
        std::fs::create_dir(tree.join(".deep-1")).unwrap();
        for number in 0..3 * AT_ONCE {
            std::fs::File::create(tree.join("wide").join(number.to_string())).unwrap();
        }
        let mut at = open(CWD, &tree).unwrap();
        for _ in 0..20_000 {
            rustix::fs::mkdirat(&at, "d", Mode::RWXU).unwrap();
            at = open(&at, "d").unwrap();
        }
        std::os::unix::fs::symlink("/", scratch.path().join("tree/last")).unwrap();

        // A stack on which following all of them would not fit.
        let deep = tree.clone();
        let small = std::thread::Builder::new().stack_size(256 * 1024);
        small.spawn(move || remove_tree(&deep)).unwrap().join().unwrap().unwrap();

        assert!(!tree.exists() && outside.join("file").exists());
        remove_tree(&tree).unwrap();
    }
}
