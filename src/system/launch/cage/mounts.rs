//! What a run sees of the file system: everything that is not hidden, and to read only.
//!
//! The copy was born into a mount namespace, so nothing here is seen outside. `/tmp`, `/var/tmp`,
//! `/dev/shm` and the terminals are its own and empty, the hidden places are covered by empty
//! directories, all the rest is read-only, so that not even a mode or a time can be changed; then
//! the run's own directories are put back where they were, writable. The run cannot undo it: it has
//! no capability, in no namespace, and system calls that mount are filtered.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::libc;
use nix::sys::stat::{Mode, umask};
use rustix::fs::{Mode as RawMode, OFlags, openat};
use rustix::mount::{MountFlags, MoveMountFlags, OpenTreeFlags, mount, move_mount, open_tree};

use super::attributes::all_read_only;
use crate::model::cage::{Namespaces, Proc};
use crate::system::orders::{Failure, Orders};

use super::{cannot, writable};

/// What each run has of its own, where the host has it.
const PRIVATE: [&str; 3] = ["/tmp", "/var/tmp", "/dev/shm"];
const TERMINALS: &str = "/dev/pts";

/// Where what is to be done.
#[derive(Debug, Default)]
pub(in crate::system::launch) struct Plan {
    /// Covered by an empty directory.
    pub(super) hidden: Vec<PathBuf>,
    /// Seen, to read only, though `/tmp` is the run's own.
    pub(super) shown: Vec<PathBuf>,
    /// Writable, wherever they lie.
    pub(super) writable: Vec<PathBuf>,
    /// The run's own: writable, and seen though what is around them is hidden.
    pub(super) own: Vec<PathBuf>,
}

impl Plan {
    pub(in crate::system::launch) fn of(orders: &Orders) -> Self {
        Self {
            hidden: orders.cage.hidden.clone(),
            shown: shown(orders),
            writable: writable(orders),
            own: vec![orders.state_dir.clone(), orders.runtime_dir.clone()],
        }
    }
}

/// What of the run's own program lies below `/tmp`: the directories of the files that its command
/// names, or links to. With what the configuration says shall be seen.
pub(super) fn shown(orders: &Orders) -> Vec<PathBuf> {
    let words = std::iter::once(&orders.program).chain(&orders.args).map(Path::new);
    let parent = |file: &Path| file.parent().map(Path::to_path_buf);
    let named = words.filter(|word| word.is_absolute() && word.is_file()).flat_map(|word| {
        let (named, led_to) = (parent(word), word.canonicalize().ok().and_then(|file| parent(&file)));
        [named.clone(), led_to.filter(|dir| named.as_ref() != Some(dir))]
    });
    let work = std::iter::once(orders.working_dir.clone());
    let asked = orders.cage.paths.iter().cloned();
    named.flatten().chain(work).chain(asked).filter(|path| is_covered(path)).collect()
}

/// Below what each run has of its own, where nothing of the host's is.
fn is_covered(path: &Path) -> bool {
    PRIVATE.iter().chain(&[TERMINALS]).any(|top| path.starts_with(top) && path != Path::new(top))
}

/// Who this process is. To be asked before it is in a user namespace of its own: there the kernel
/// calls it nobody (65534) until it is said who it is.
#[derive(Debug, Clone, Copy)]
pub(in crate::system::launch) struct Ids {
    uid: u32,
    gid: u32,
}

impl Ids {
    pub(in crate::system::launch) fn own() -> Self {
        Self { uid: rustix::process::getuid().as_raw(), gid: rustix::process::getgid().as_raw() }
    }

    /// Makes this process root of its own user namespace, for as long as it has not given that up: its
    /// uid and gid stay what they were.
    ///
    /// Who made it must not have closed its memory before, else the files below belong to root; it
    /// knows nothing yet that anybody could find there.
    pub(in crate::system::launch) fn keep(self) -> io::Result<()> {
        let Self { uid, gid } = self;
        put("/proc/self/setgroups", "deny")?;
        put("/proc/self/gid_map", &format!("{gid} {gid} 1"))?;
        put("/proc/self/uid_map", &format!("{uid} {uid} 1"))
    }
}

fn put(path: &str, text: &str) -> io::Result<()> {
    io::Write::write_all(&mut OpenOptions::new().write(true).open(path)?, text.as_bytes())
}

/// Arranges it all, in a mount namespace of this process's own and with the right to mount there.
pub(in crate::system::launch) fn arrange(
    plan: &Plan,
    namespaces: Namespaces,
    proc: Proc,
) -> Result<(), Failure> {
    let doing = |what: &str, path: &Path| cannot(format!("{what} {}", path.display()));
    // What is made here is the way to the run's own directories, for whatever account it has.
    let _umask = Umask::set(0o022);
    let own = plan.own.iter().map(hold).collect::<Result<Vec<_>, _>>()?;
    let writable = plan.writable.iter().map(hold).collect::<Result<Vec<_>, _>>()?;
    all_read_only().map_err(cannot("make what is not its own read-only"))?;
    let shown = plan.shown.iter().map(hold).collect::<Result<Vec<_>, _>>()?;

    for top in PRIVATE.iter().map(Path::new).filter(|top| top.is_dir()) {
        fresh(top, c"mode=1777").map_err(doing("make a private", top))?;
    }
    let terminals = Path::new(TERMINALS);
    if terminals.is_dir() {
        mount("devpts", terminals, "devpts", FLAGS, c"newinstance,ptmxmode=0666,mode=0620")
            .map_err(io::Error::from)
            .map_err(doing("make a private", terminals))?;
    }
    for place in &shown {
        place.attach().map_err(doing("show", place.path))?;
    }
    for place in &writable {
        let done = if is_covered(place.path) { place.attach() } else { place.attach_where_it_was() };
        done.map_err(doing("make writable", place.path))?;
    }
    for hidden in plan.hidden.iter().filter(|hidden| hidden.is_dir()) {
        // To pass through, to what is its own below, and not to look at or to wait by.
        fresh(hidden, c"mode=0111").map_err(doing("hide", hidden))?;
    }
    for place in &own {
        place.attach().map_err(doing("make writable", place.path))?;
    }
    let options = match proc {
        Proc::Shared => return Ok(()),
        Proc::Hiding => Some(c"hidepid=2"),
        Proc::Own => None,
    };
    debug_assert!(proc != Proc::Own || namespaces.pid, "only a pid namespace has processes of its own");
    mount("proc", "/proc", "proc", FLAGS | MountFlags::NOEXEC, options)
        .map_err(io::Error::from)
        .map_err(cannot("mount a /proc of its own"))
}

fn hold(path: &PathBuf) -> Result<Place<'_>, Failure> {
    Place::clone(path).map_err(cannot(format!("keep hold of {}", path.display())))
}

/// Makes a file that can be written to whatever is hidden or read-only from then on. A mount becomes
/// read-only only while nobody writes through it, so the way to this file is one that is in no tree.
pub(in crate::system::launch) fn make_apart(path: &Path) -> io::Result<File> {
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let dir = dir.to_path_buf();
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(openat(Place::clone(&dir)?.tree, name, flags, RawMode::RUSR | RawMode::WUSR)?.into())
}

const FLAGS: MountFlags = MountFlags::NOSUID;

fn fresh(at: &Path, mode: &std::ffi::CStr) -> io::Result<()> {
    mount("tmpfs", at, "tmpfs", FLAGS | MountFlags::NODEV, mode)?;
    Ok(())
}

/// The umask, until this is dropped.
struct Umask(Mode);

impl Umask {
    fn set(bits: u32) -> Self {
        Self(umask(Mode::from_bits_truncate(bits)))
    }
}

impl Drop for Umask {
    fn drop(&mut self) {
        umask(self.0);
    }
}

/// A directory and what is mounted below it, held apart from the file system.
struct Place<'a> {
    path: &'a Path,
    /// The directory itself, however its path may change meanwhile.
    dir: File,
    tree: OwnedFd,
}

impl<'a> Place<'a> {
    fn clone(path: &'a PathBuf) -> io::Result<Self> {
        let dir = OpenOptions::new().read(true).custom_flags(libc::O_PATH).open(path)?;
        let flags = OpenTreeFlags::OPEN_TREE_CLONE
            | OpenTreeFlags::OPEN_TREE_CLOEXEC
            | OpenTreeFlags::AT_EMPTY_PATH
            | OpenTreeFlags::AT_RECURSIVE;
        let tree = open_tree(dir.as_fd(), "", flags)?;
        Ok(Self { path, dir, tree })
    }

    /// Puts it at its path; directories on the way that were covered are made.
    fn attach(&self) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o755).create(self.path)?;
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        move_mount(self.tree.as_fd(), "", rustix::fs::CWD, self.path, flags)?;
        Ok(())
    }

    /// Puts it over itself, whatever its path leads to by now.
    fn attach_where_it_was(&self) -> io::Result<()> {
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
        move_mount(self.tree.as_fd(), "", self.dir.as_fd(), "", flags)?;
        Ok(())
    }
}
