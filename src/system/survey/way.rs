//! Going a way name by name, as the kernel would for somebody else: what is there, and of what mode.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use nix::unistd::{AccessFlags, eaccess};

use crate::model::survey::{Kind, Step, Stop, Way};
use crate::system::cause::plain;

/// What the kernel is asked about the end of a way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum For {
    /// May it be read?
    Reading,
    /// May it be executed?
    Executing,
    /// May one stand in it?
    Entering,
}

/// The way to `path`, through its links.
#[must_use]
pub fn way(path: &Path, purpose: For) -> Way {
    // What a link leads to has a way of its own; both have to be open.
    let real = path.canonicalize();
    let mut steps: Vec<Step> = Vec::new();
    let mut stop = None;
    for end in std::iter::once(path).chain(real.as_deref().ok()) {
        stop = go(end, &mut steps).err().map(|error| stopped(&error));
        if stop.is_some() {
            break;
        }
    }
    let asked = match purpose {
        For::Reading => AccessFlags::R_OK,
        For::Executing | For::Entering => AccessFlags::X_OK,
    };
    // Opening anything else may have a device do something.
    let is_plain = steps.last().is_some_and(|end| end.kind != Kind::Other);
    let is_open = stop.is_none() && eaccess(path, asked).is_ok() && !(is_plain && is_denied(path));
    let has_acl = steps.iter().any(|step| has_acl(&step.path));
    Way { path: path.to_path_buf(), steps, stop, is_open, has_acl }
}

/// True if the modes let us read it and the kernel does not: some of its keepers are asked only when
/// something is opened (Landlock, and `access(2)` knows nothing of it).
fn is_denied(path: &Path) -> bool {
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    eaccess(path, AccessFlags::R_OK).is_ok() && open(path, flags, Mode::empty()).err() == Some(Errno::EACCES)
}

fn go(path: &Path, steps: &mut Vec<Step>) -> io::Result<()> {
    let mut names: Vec<&Path> = path.ancestors().filter(|part| part.is_absolute()).collect();
    names.reverse();
    for part in names {
        let meta = std::fs::metadata(part)?;
        let kind = match () {
            () if meta.is_dir() => Kind::Directory,
            () if meta.is_file() => Kind::File,
            () => Kind::Other,
        };
        let step = Step {
            path: part.to_path_buf(),
            kind,
            mode: meta.mode() & 0o7777,
            uid: meta.uid(),
            gid: meta.gid(),
        };
        if !steps.contains(&step) {
            steps.push(step);
        }
    }
    Ok(())
}

fn stopped(error: &io::Error) -> Stop {
    let is = |kinds: &[io::ErrorKind]| kinds.contains(&error.kind());
    if is(&[io::ErrorKind::NotFound, io::ErrorKind::NotADirectory]) {
        Stop::Missing
    } else if is(&[io::ErrorKind::PermissionDenied]) {
        Stop::Closed
    } else {
        Stop::Failed(plain(error))
    }
}

/// An access control list says more than the mode (acl(5)).
fn has_acl(path: &Path) -> bool {
    let mut nothing: [u8; 0] = [];
    rustix::fs::getxattr(path, "system.posix_acl_access", &mut nothing).is_ok_and(|size| size > 0)
}

/// The first of `dirs` (as `PATH` lists them) that has something executable of this name; else the
/// first that has anything of it.
#[must_use]
pub(super) fn in_path(name: &str, dirs: &str) -> Option<PathBuf> {
    let there = || {
        let all = std::env::split_paths(dirs).map(|dir| dir.join(name));
        all.filter(|path| path.is_absolute() && path.metadata().is_ok_and(|meta| meta.is_file()))
    };
    let can_be_executed = |path: &PathBuf| path.metadata().is_ok_and(|meta| meta.mode() & 0o111 != 0);
    there().find(can_be_executed).or_else(|| there().next())
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests write small files")]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_way_names_every_directory_that_has_to_be_passed_those_behind_a_link_too() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().canonicalize().unwrap();
        std::fs::create_dir_all(dir.join("real/deep")).unwrap();
        std::fs::write(dir.join("real/deep/tool"), "").unwrap();
        std::os::unix::fs::symlink(dir.join("real/deep"), dir.join("link")).unwrap();
        let way = way(&dir.join("link/tool"), For::Reading);
        let passed: Vec<_> = way.steps.iter().map(|step| step.path.clone()).collect();
        for part in ["link", "link/tool", "real", "real/deep", "real/deep/tool"] {
            assert!(passed.contains(&dir.join(part)), "{part}: {passed:?}");
        }
        assert_eq!((way.stop, way.is_open), (None, true));
        let missing = super::way(&dir.join("real/none/tool"), For::Reading);
        assert_eq!(missing.stop, Some(Stop::Missing));
        assert_eq!(missing.steps.last().map(|step| step.path.clone()), Some(dir.join("real")));
    }

    #[test]
    fn of_two_programs_of_one_name_the_one_that_can_be_executed_is_meant() {
        let dir = tempfile::tempdir().unwrap();
        for (sub, mode) in [("a", 0o644), ("b", 0o755)] {
            std::fs::create_dir(dir.path().join(sub)).unwrap();
            let file = dir.path().join(sub).join("tool");
            std::fs::write(&file, "").unwrap();
            std::fs::set_permissions(&file, PermissionsExt::from_mode(mode)).unwrap();
        }
        let dirs = format!("{0}/a:{0}/b", dir.path().display());
        assert_eq!(in_path("tool", &dirs), Some(dir.path().join("b/tool")));
        let first = format!("{}/a", dir.path().display());
        assert_eq!(in_path("tool", &first), Some(dir.path().join("a/tool")));
        assert_eq!(in_path("none", &dirs), None);
    }
}
