//! Files of our own: replaced whole, never written in place; directories that nobody else can
//! write; and the lock that keeps a second daemon away.
//!
//! It knows nothing of what the files say. Env files, which others write, are read by
//! [`envdir`](crate::system::envdir) with more distrust.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg, OFlag};
use nix::unistd::{AccessFlags, eaccess};
use zeroize::Zeroizing;

use crate::model::Secret;
use crate::system::account;

/// No file of ours is larger, in bytes: ports of tens of thousands of instances.
pub const LARGEST: usize = 64 << 20;

/// What we were doing to which file; the cause is the source.
#[derive(Debug, thiserror::Error)]
#[error("cannot {verb} {}", path.display())]
pub struct FileError {
    verb: &'static str,
    path: PathBuf,
    source: io::Error,
}

impl FileError {
    /// What kind of failure it was.
    #[must_use]
    pub fn kind(&self) -> io::ErrorKind {
        self.source.kind()
    }

    fn of<'a>(verb: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> Self + use<'a> {
        move |source| Self { verb, path: path.to_owned(), source }
    }
}

/// Whether we may put files into a directory.
///
/// # Errors
///
/// Why not: it is closed to us, or not there.
pub fn may_write_in(dir: &Path) -> io::Result<()> {
    Ok(eaccess(dir, AccessFlags::W_OK | AccessFlags::X_OK)?)
}

/// Replaces `path` with `contents`: a reader sees the old file or the new one, never a mix.
///
/// The new file has exactly `mode` (the umask does not matter) before it has contents. What was
/// written may be lost if the machine loses power; see [`replace_durably`].
///
/// # Errors
///
/// When the directory cannot be written or the disk is full. The old file is then untouched.
pub fn replace(path: &Path, contents: &[u8], mode: u32) -> Result<(), FileError> {
    swap_in(path, contents, mode, false).map_err(FileError::of("write", path))
}

/// As [`replace`], and it is on the disk when this returns: for what must survive a power cut.
///
/// # Errors
///
/// As [`replace`]; and when the disk does not confirm, in which case either version may be there.
pub fn replace_durably(path: &Path, contents: &[u8], mode: u32) -> Result<(), FileError> {
    swap_in(path, contents, mode, true).map_err(FileError::of("write", path))
}

fn swap_in(path: &Path, contents: &[u8], mode: u32, durably: bool) -> io::Result<()> {
    let dir = directory_of(path);
    let (temporary, mut file) = temporary_beside(path, mode)?;
    let written = (|| {
        file.set_permissions(PermissionsExt::from_mode(mode))?;
        file.write_all(contents)?;
        if durably {
            file.sync_all()?;
        }
        std::fs::rename(&temporary, path)
    })();
    if let Err(failed) = written {
        // The first failure is the one to tell; a temporary file left behind harms nobody.
        std::fs::remove_file(&temporary).unwrap_or_default();
        return Err(failed);
    }
    if durably { File::open(dir)?.sync_all() } else { Ok(()) }
}

/// A new file in `path`'s directory under a name that nobody uses and env.d ignores.
fn temporary_beside(path: &Path, mode: u32) -> io::Result<(PathBuf, File)> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_string_lossy();
    loop {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let temporary = directory_of(path).join(format!("..{name}.{}.{number}.tmp", std::process::id()));
        let opened = OpenOptions::new().write(true).create_new(true).mode(mode & 0o700).open(&temporary);
        match opened {
            Ok(file) => return Ok((temporary, file)),
            // Left by a process that had our pid and died half-way.
            Err(failed) if failed.kind() == io::ErrorKind::AlreadyExists => {}
            Err(failed) => return Err(failed),
        }
    }
}

fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        Some(_) | None => Path::new("."),
    }
}

/// Makes the directory `path` and those above it, as far as they are missing: 0755 or less, by the
/// umask; one that an open umask leaves to everybody is never made.
///
/// # Errors
///
/// When one cannot be made, or is no directory.
pub fn make_way(path: &Path) -> Result<(), FileError> {
    way(path).map_err(FileError::of("make the directory", path))
}

fn way(path: &Path) -> io::Result<()> {
    // The way to "mcpsup.toml" is there.
    if path.as_os_str().is_empty() {
        return Ok(());
    }
    std::fs::DirBuilder::new().recursive(true).mode(0o755).create(path)
}

/// Makes the directory `path` with `mode`, and those above it that are missing with 0755; one
/// that exists is checked, and its mode narrowed to `mode` where it is ours.
///
/// # Errors
///
/// When it cannot be made, is not a directory, belongs to neither root nor the daemon, or may be
/// written by others.
pub fn make_dir(path: &Path, mode: u32) -> Result<(), FileError> {
    made(path, mode).map_err(FileError::of("make the directory", path))
}

fn made(path: &Path, mode: u32) -> io::Result<()> {
    if let Some(above) = path.parent() {
        way(above)?;
    }
    let fresh = match std::fs::DirBuilder::new().mode(mode & 0o700).create(path) {
        Ok(()) => true,
        Err(failed) if failed.kind() == io::ErrorKind::AlreadyExists => false,
        Err(failed) => return Err(failed),
    };
    let us = account::own_uid();
    let link = std::fs::symlink_metadata(path)?;
    // systemd makes a StateDirectory= a link; one that a third person made leads astray.
    let follow = link.is_symlink() && (link.uid() == 0 || link.uid() == us);
    let flags = OFlag::O_DIRECTORY | if follow { OFlag::empty() } else { OFlag::O_NOFOLLOW };
    let dir = OpenOptions::new().read(true).custom_flags(flags.bits()).open(path)?;
    let is = dir.metadata()?;
    if is.uid() != us && is.uid() != 0 {
        return Err(io::Error::other(format!("it belongs to uid {}", is.uid())));
    }
    let now = is.mode() & 0o7777;
    if fresh || now & !mode != 0 {
        if fresh || us == 0 || is.uid() == us {
            dir.set_permissions(PermissionsExt::from_mode(mode))?;
        } else if now & 0o022 != 0 {
            return Err(io::Error::other(format!("others may write to it (mode {now:04o})")));
        }
    }
    Ok(())
}

/// The whole of a regular file of at most `limit` bytes.
///
/// # Errors
///
/// When it cannot be read, is not a regular file, or is larger.
pub fn read_bounded(path: &Path, limit: usize) -> Result<Vec<u8>, FileError> {
    let read = || {
        // Without O_NONBLOCK a FIFO of this name would hold us up for good.
        let file = OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path)?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::other("it is not a regular file"));
        }
        let mut bytes = Vec::new();
        file.take(limit as u64 + 1).read_to_end(&mut bytes)?;
        if bytes.len() > limit {
            return Err(io::Error::other(format!("it is larger than {limit} bytes")));
        }
        Ok(bytes)
    };
    read().map_err(FileError::of("read", path))
}

/// The text of a small file of ours that is secret, without the line end; what it was read into is
/// overwritten.
///
/// # Errors
///
/// As [`read_bounded`]; and when it is not UTF-8.
pub fn read_secret(path: &Path, limit: usize) -> Result<Secret, FileError> {
    let bytes = Zeroizing::new(read_bounded(path, limit)?);
    let text = std::str::from_utf8(&bytes).map_err(|_| io::Error::other("it is not UTF-8"));
    Ok(Secret::new(text.map_err(FileError::of("read", path))?.trim_end()))
}

/// Removes a file; one that is not there is removed already.
///
/// # Errors
///
/// When its directory cannot be written.
pub fn remove(path: &Path) -> Result<(), FileError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done.map_err(FileError::of("remove", path)),
    }
}

/// Removes a directory of ours with all that is in it, if it is there.
///
/// # Errors
///
/// When something of it cannot be removed.
pub fn remove_all(dir: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

/// The names in a directory of ours, sorted; what is no UTF-8 is none of ours.
///
/// # Errors
///
/// When it is not there, or cannot be read.
pub fn names_in(dir: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        names.extend(entry?.file_name().into_string());
    }
    names.sort();
    Ok(names)
}

/// The path without the links on it; as it is where it leads nowhere yet.
#[must_use]
pub fn real(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_path_buf())
}

/// Device and inode: nothing else on this host has the same while this is there.
///
/// # Errors
///
/// When it is not there, or may not be looked at.
pub fn identity(path: &Path) -> Result<(u64, u64), FileError> {
    let meta = std::fs::metadata(path).map_err(FileError::of("look at", path))?;
    Ok((meta.dev(), meta.ino()))
}

/// Held as long as it lives; given back when it is dropped or its process ends, however it ends.
#[derive(Debug)]
pub struct Lock {
    _file: Flock<File>,
}

/// Why there is no lock.
#[derive(Debug, thiserror::Error)]
pub enum NotLocked {
    /// Another process has it.
    #[error("another mcpsup daemon is running here{}", pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default())]
    Held {
        /// That process, if it wrote its pid; for people, not for signals.
        pid: Option<u32>,
    },
    /// The file could not be opened or locked.
    #[error(transparent)]
    Failed(#[from] FileError),
}

/// Takes the lock that is the file `path` (0600), and writes our pid into it. Whoever has it may be
/// about to end, and is waited for so long.
///
/// # Errors
///
/// When another process keeps it, or the file cannot be opened or written.
pub fn lock(path: &Path, patience: Duration) -> Result<Lock, NotLocked> {
    let failed = |source: io::Error| NotLocked::Failed(FileError::of("lock", path)(source));
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags((OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits())
        .open(path)
        .map_err(failed)?;
    let mut file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Err((mut file, nix::errno::Errno::EWOULDBLOCK)) => {
            let mut text = String::new();
            (&mut file).take(32).read_to_string(&mut text).map_err(failed)?;
            let pid = text.trim().parse().ok();
            tracing::info!(pid, "another daemon is running here; it may be about to end");
            let locked = wait_for(file, patience).ok_or(NotLocked::Held { pid })?;
            locked.map_err(failed)?
        }
        locked => locked.map_err(|(_, errno)| failed(errno.into()))?,
    };
    file.set_len(0).map_err(failed)?;
    file.rewind().map_err(failed)?;
    file.write_all(format!("{}\n", std::process::id()).as_bytes()).map_err(failed)?;
    Ok(Lock { _file: file })
}

/// Waits for a lock in a thread: flock(2) knows no deadline. Nothing if it was not to be had in time.
fn wait_for(file: File, patience: Duration) -> Option<io::Result<Flock<File>>> {
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || tell.send(Flock::lock(file, FlockArg::LockExclusive)));
    let locked = told.recv_timeout(patience).ok()?;
    Some(locked.map_err(|(_, errno)| errno.into()))
}

#[cfg(test)]
mod tests {
    use std::error::Error;

    use nix::sys::stat::Mode;

    use super::*;

    fn mode_of(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().mode() & 0o7777
    }

    fn names(dir: &Path) -> Vec<String> {
        let mut all: Vec<_> =
            std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        all.sort();
        all
    }

    #[test]
    fn a_replaced_file_has_its_mode_and_leaves_nothing_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ports.json");
        replace(&path, b"one", 0o644).unwrap();
        replace_durably(&path, b"two", 0o666).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"two");
        assert_eq!(mode_of(&path), 0o666);
        assert_eq!(names(dir.path()), ["ports.json"]);
    }

    #[test]
    fn a_failed_replacement_leaves_the_old_file_and_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("taken");
        std::fs::create_dir(&path).unwrap();
        let failed = replace(&path, b"x", 0o600).unwrap_err();
        assert!(failed.to_string().starts_with("cannot write "), "{failed}");
        assert!(failed.source().is_some());
        assert_eq!(names(dir.path()), ["taken"]);
    }

    #[test]
    fn a_directory_of_ours_is_narrowed_to_its_mode() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b");
        make_dir(&path, 0o700).unwrap();
        assert_eq!(mode_of(&path), 0o700);
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o777)).unwrap();
        make_dir(&path, 0o700).unwrap();
        assert_eq!(mode_of(&path), 0o700);
    }

    #[test]
    fn a_file_in_the_place_of_a_directory_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        replace(&path, b"", 0o600).unwrap();
        assert!(make_dir(&path, 0o700).is_err());
    }

    #[test]
    fn reading_ends_at_the_limit_and_never_waits_for_a_fifo() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        replace(&path, &[b'x'; 10], 0o600).unwrap();
        assert_eq!(read_bounded(&path, 10).unwrap().len(), 10);
        let failed = read_bounded(&path, 9).unwrap_err();
        assert_eq!(failed.source().unwrap().to_string(), "it is larger than 9 bytes");
        let fifo = dir.path().join("fifo");
        nix::unistd::mkfifo(&fifo, Mode::S_IRWXU).unwrap();
        assert!(read_bounded(&fifo, 9).is_err());
    }

    #[test]
    fn the_second_to_lock_is_told_who_was_first() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let first = lock(&path, Duration::ZERO).unwrap();
        match lock(&path, Duration::ZERO) {
            Err(NotLocked::Held { pid }) => assert_eq!(pid, Some(std::process::id())),
            other => panic!("{other:?}"),
        }
        drop(first);
        // The one that was in vain has it for a moment, when it comes to it.
        lock(&path, Duration::from_secs(60)).unwrap();
    }
}
