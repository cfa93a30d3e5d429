//! Whether what a path leads to can be somebody else's doing.
//!
//! A path is walked name by name, through its links as well, and every directory on the way is
//! looked at by its open descriptor: one that a third person owns or may write to could be made to
//! lead anywhere. In a sticky directory (`/tmp`) others can add names and not touch ours, so what
//! lies there counts only if it is root's or ours. Only those who are trusted can change the way
//! while it is walked.
//!
//! What the files say is others' business, as is who else may own one ([`envdir`](super::envdir)).

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat, openat2, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, fstatat};

use super::account;
use super::cause::plain;
use crate::model::shell;

/// So many links lead in a circle, says the kernel as well (`MAXSYMLINKS`).
const MOST_LINKS: u32 = 40;

/// Why a file or directory is not used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Distrust {
    /// A system call failed.
    Failed(Errno),
    /// A link leads out of the directory that it must stay in.
    LeadsOut,
    /// What is wrong with it and, after a semicolon, what mends it.
    Refused(String),
}

impl From<Errno> for Distrust {
    fn from(errno: Errno) -> Self {
        Self::Failed(errno)
    }
}

impl Distrust {
    /// The same of mcpsup.toml, which somebody has to write first.
    #[must_use]
    pub fn of_configuration(&self) -> String {
        match self {
            Self::Failed(Errno::ENOENT) => "is not there; mcpsup init writes one to begin with".to_owned(),
            Self::Failed(_) | Self::LeadsOut | Self::Refused(_) => self.to_string(),
        }
    }
}

/// As the second half of a sentence that begins with the file.
impl fmt::Display for Distrust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(Errno::ELOOP) => {
                f.write_str("is a symbolic link that leads in a circle; put a file there")
            }
            Self::Failed(errno) => write!(f, "cannot be read: {}", plain(&(*errno).into())),
            Self::LeadsOut => {
                f.write_str("is a symbolic link that leads out of its directory; put the file itself there")
            }
            Self::Refused(text) => f.write_str(text),
        }
    }
}

/// Where something is: a directory that only root and we can change, and the name in it, which is
/// no link and perhaps nothing at all.
#[derive(Debug)]
pub struct Place {
    /// The directory, open for nothing but going on from there (`O_PATH`).
    pub dir: OwnedFd,
    /// The name in it.
    pub name: OsString,
}

/// Where `path` leads.
///
/// # Errors
///
/// When it leads through a directory that others may change, or through nothing.
pub fn locate(path: &Path) -> Result<Place, Distrust> {
    let path = std::path::absolute(path).map_err(|_| Errno::ENOENT)?;
    let root = openat(nix::fcntl::AT_FDCWD, "/", directory(), Mode::empty())?;
    let walk = Walk { way: vec![(root, PathBuf::from("/"))], is_caged: false };
    walk.look_at_last()?;
    walk.go(&path)
}

/// Where `name` in the directory `dir` leads without ever leaving it. `path` is what `dir` is
/// called; `dir` itself has been looked at.
///
/// # Errors
///
/// As [`locate`]; and when it leads out of `dir`.
pub fn locate_beneath(dir: impl AsFd, path: &Path, name: &str) -> Result<Place, Distrust> {
    let dir = openat(&dir, ".", directory(), Mode::empty())?;
    Walk { way: vec![(dir, path.to_owned())], is_caged: true }.go(Path::new(name))
}

/// Opens a name as it is: never through a link.
///
/// # Errors
///
/// `ELOOP` if it is a link, which it was not when it was [located](locate).
pub fn open(place: &Place, flags: OFlag) -> Result<OwnedFd, Errno> {
    let flags = flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let resolve =
        ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_NO_MAGICLINKS;
    let how = OpenHow::new().flags(flags).resolve(resolve);
    match open_strictly(place, how) {
        // Before Linux 5.6, or in a sandbox that does not know the call. A single name that is not
        // followed cannot lead anywhere else either: the walk is what keeps it in its directory.
        Err(Errno::ENOSYS | Errno::EPERM) => openat(&place.dir, place.name.as_os_str(), flags, Mode::empty()),
        done => done,
    }
}

#[cfg(not(test))]
fn open_strictly(place: &Place, how: OpenHow) -> Result<OwnedFd, Errno> {
    openat2(&place.dir, place.name.as_os_str(), how)
}

#[cfg(test)]
fn open_strictly(place: &Place, how: OpenHow) -> Result<OwnedFd, Errno> {
    if tests::OLD_KERNEL.get() {
        return Err(Errno::ENOSYS);
    }
    openat2(&place.dir, place.name.as_os_str(), how)
}

/// The whole of a file of at most `limit` bytes that only root and we can change, however many may
/// read it: mcpsup.toml.
///
/// # Errors
///
/// When it cannot be read, is larger, or may be somebody else's doing.
pub fn read(path: &Path, limit: usize) -> Result<Vec<u8>, Distrust> {
    let place = locate(path)?;
    let shown = shell_word(path);
    // Without O_NONBLOCK a FIFO of this name would hold us up for good.
    let file = open(&place, OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY)?;
    let stat = fstat(&file)?;
    if !is(&stat, SFlag::S_IFREG) {
        return Err(Distrust::Refused("is not a regular file; put a file there".to_owned()));
    }
    owned(&stat, &shown)?;
    if others_may_write(&stat) {
        let mode = stat.st_mode & 0o7777;
        let text = format!("may be changed by others (mode {mode:04o}); chmod go-w {shown}");
        return Err(Distrust::Refused(text));
    }
    single(&stat, &shown)?;
    let mut bytes = Vec::new();
    let mut file = std::fs::File::from(file).take(limit as u64 + 1);
    file.read_to_end(&mut bytes).map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(0)))?;
    if bytes.len() > limit {
        return Err(Distrust::Refused(format!("is larger than {limit} bytes")));
    }
    Ok(bytes)
}

/// A file under several names can change unseen, and is not gone when it is deleted here.
pub(super) fn single(stat: &FileStat, shown: &str) -> Result<(), Distrust> {
    if stat.st_nlink <= 1 {
        return Ok(());
    }
    Err(Distrust::Refused(format!(
        "has {} names (hard links), so it can change unseen; put a copy in its place: cp -p {shown} {shown}.new && mv {shown}.new {shown}",
        stat.st_nlink
    )))
}

/// Whose it is: root's, or ours.
pub(super) fn owned(stat: &FileStat, shown: &str) -> Result<(), Distrust> {
    let owner = stat.st_uid;
    if owner == 0 || owner == account::own_uid() {
        return Ok(());
    }
    Err(Distrust::Refused(format!(
        "belongs to uid {owner}, who is neither root nor the daemon; chown root {shown}"
    )))
}

/// True if somebody else than its owner may write to it. A group counts as somebody else, but for
/// root's own and the one that an ordinary user has to themself.
pub(super) fn others_may_write(stat: &FileStat) -> bool {
    let mode = stat.st_mode;
    mode & 0o002 != 0 || (mode & 0o020 != 0 && !account::is_own_group(stat.st_gid))
}

/// A path as a shell takes it.
pub(super) fn shell_word(path: &Path) -> String {
    shell::word(&path.to_string_lossy())
}

fn directory() -> OFlag {
    OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC
}

fn is(stat: &FileStat, kind: SFlag) -> bool {
    SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == kind
}

/// The directories from the beginning to where the walk is now, and what they are called.
struct Walk {
    way: Vec<(OwnedFd, PathBuf)>,
    /// The first of them is never left.
    is_caged: bool,
}

impl Walk {
    fn go(mut self, path: &Path) -> Result<Place, Distrust> {
        let mut ahead = VecDeque::new();
        self.put_in_front(&mut ahead, path)?;
        let mut links = 0;
        while let Some(name) = ahead.pop_front() {
            if name == ".." {
                if self.way.len() > 1 {
                    self.way.pop();
                } else if self.is_caged {
                    return Err(Distrust::LeadsOut);
                }
                continue;
            }
            let stat = match fstatat(self.here(), &*name, AtFlags::AT_SYMLINK_NOFOLLOW) {
                // Whoever opens it will hear that.
                Err(Errno::ENOENT) if ahead.is_empty() => return self.end(name),
                stat => stat?,
            };
            if is(&stat, SFlag::S_IFLNK) {
                links += 1;
                if links > MOST_LINKS {
                    return Err(Errno::ELOOP.into());
                }
                self.by_trusted(&stat, &name)?;
                match readlinkat(self.here(), &*name) {
                    Ok(target) => self.put_in_front(&mut ahead, Path::new(&target))?,
                    // It is no link any more.
                    Err(Errno::EINVAL) => ahead.push_front(name),
                    Err(errno) => return Err(errno.into()),
                }
            } else if ahead.is_empty() {
                return self.end(name);
            } else {
                let next = openat(self.here(), &*name, directory(), Mode::empty())?;
                let path = self.path().join(&name);
                self.way.push((next, path));
                self.look_at_last()?;
            }
        }
        self.end(OsString::from("."))
    }

    fn end(mut self, name: OsString) -> Result<Place, Distrust> {
        let (dir, _) = self.way.pop().ok_or(Errno::ENOENT)?;
        Ok(Place { dir, name })
    }

    fn put_in_front(&mut self, ahead: &mut VecDeque<OsString>, path: &Path) -> Result<(), Distrust> {
        if path.is_absolute() {
            if self.is_caged {
                return Err(Distrust::LeadsOut);
            }
            self.way.truncate(1);
        }
        for part in path.components().rev() {
            match part {
                Component::Normal(name) => ahead.push_front(name.to_owned()),
                Component::ParentDir => ahead.push_front(OsString::from("..")),
                Component::Prefix(_) | Component::RootDir | Component::CurDir => {}
            }
        }
        Ok(())
    }

    fn here(&self) -> BorrowedFd<'_> {
        // It begins with one directory and never gives that up.
        self.way.last().map_or(nix::fcntl::AT_FDCWD, |(dir, _)| dir.as_fd())
    }

    fn path(&self) -> &Path {
        self.way.last().map_or(Path::new("."), |(_, path)| path)
    }

    /// Who made a link decides where it leads.
    fn by_trusted(&self, stat: &FileStat, name: &OsStr) -> Result<(), Distrust> {
        let path = shell_word(&self.path().join(name));
        owned(stat, &path).map_err(|_| {
            Distrust::Refused(format!(
                "is reached through {path}, a symbolic link that uid {} made, who is neither root nor the daemon; chown -h root {path}",
                stat.st_uid
            ))
        })
    }

    /// The directory that was entered last can be changed by nobody else.
    fn look_at_last(&self) -> Result<(), Distrust> {
        let stat = fstat(self.here())?;
        let path = shell_word(self.path());
        owned(&stat, &path).map_err(|_| {
            Distrust::Refused(format!(
                "is reached through {path}, which belongs to uid {}, who is neither root nor the daemon; chown root {path}",
                stat.st_uid
            ))
        })?;
        let mode = stat.st_mode & 0o7777;
        if mode & 0o1000 == 0 && others_may_write(&stat) {
            return Err(Distrust::Refused(format!(
                "is reached through {path}, where others may put something else in its place (mode {mode:04o}); chmod go-w {path}"
            )));
        }
        Ok(())
    }
}

#[cfg(test)]
pub(super) mod tests;
