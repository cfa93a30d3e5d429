//! Opening what somebody else put there: never out of env.d, never waiting, never more than
//! 64 KiB, and only what nobody else can read.

use std::io::Read;
use std::os::fd::AsFd;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag};
use nix::sys::stat::{FileStat, SFlag, fstat, fstatat};

use crate::model::file::{Seal, SecretBytes};
use crate::system::account::own_uid;
use crate::system::seal::LARGEST_SEALED;
use crate::system::trust::{self, Distrust, Place};

/// The largest env file in bytes (PRODUCT §4 is silent; facts/supervision.md §5.7).
pub(super) const LIMIT: usize = 64 * 1024;

/// What changes when a file does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    device: u64,
    inode: u64,
    size: i64,
    pub(super) modified: FileTime,
    /// The kernel's own, nobody can set it.
    pub(super) changed: FileTime,
    mode: u32,
    owner: u32,
    links: u64,
}

/// A time of a file as the kernel has it, since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FileTime {
    seconds: i64,
    nanoseconds: i64,
}

impl FileTime {
    /// Nanoseconds since 1970.
    pub(super) fn nanoseconds(self) -> i128 {
        i128::from(self.seconds) * 1_000_000_000 + i128::from(self.nanoseconds)
    }
}

impl Stamp {
    fn of(stat: &FileStat) -> Self {
        Self {
            device: stat.st_dev,
            inode: stat.st_ino,
            size: stat.st_size,
            modified: FileTime { seconds: stat.st_mtime, nanoseconds: stat.st_mtime_nsec },
            changed: FileTime { seconds: stat.st_ctime, nanoseconds: stat.st_ctime_nsec },
            mode: stat.st_mode,
            owner: stat.st_uid,
            // Its type differs between x86-64 and arm64.
            #[allow(clippy::useless_conversion, reason = "nlink_t is u32 on arm64")]
            links: u64::from(stat.st_nlink),
        }
    }
}

impl Stamp {
    /// True if that is the file, as it was then but for where it lies: a rename changes its
    /// [`changed`](Self::changed).
    pub(super) fn is_of(&self, stat: &FileStat) -> bool {
        Self { changed: self.changed, ..Self::of(stat) } == *self
    }
}

/// Why a file gives no bytes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NotRead {
    /// There is nothing of that name (any more), or its link leads nowhere.
    Gone,
    /// It changed while it was being read.
    Changing,
    /// What is wrong with it, and what mends it.
    Refused(String),
}

impl From<Distrust> for NotRead {
    fn from(why: Distrust) -> Self {
        match why {
            Distrust::Failed(Errno::ENOENT | Errno::ENOTDIR) => Self::Gone,
            Distrust::Failed(_) | Distrust::LeadsOut | Distrust::Refused(_) => Self::Refused(why.to_string()),
        }
    }
}

impl From<Errno> for NotRead {
    fn from(errno: Errno) -> Self {
        Distrust::Failed(errno).into()
    }
}

/// The stamp of what `name` leads to, without opening it. `path` is what `dir` is called.
pub(super) fn stamp(dir: impl AsFd, path: &Path, name: &str) -> Result<Stamp, NotRead> {
    let stat = fstatat(&dir, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
    if kind(stat.st_mode) != SFlag::S_IFLNK {
        return Ok(Stamp::of(&stat));
    }
    Ok(Stamp::of(&stat_of(&trust::locate_beneath(&dir, path, name)?)?))
}

fn stat_of(place: &Place) -> Result<FileStat, Errno> {
    fstatat(&place.dir, place.name.as_os_str(), AtFlags::AT_SYMLINK_NOFOLLOW)
}

/// Who may own a file, and how it is called in the mend.
pub(super) struct Rules<'a> {
    /// The user's own uid on this host. Asked only where it matters: it may be slow.
    pub(super) account: &'a dyn Fn() -> Result<Option<u32>, String>,
    /// The user's name.
    pub(super) user: &'a str,
    /// The whole path, fit for a shell.
    pub(super) path: &'a str,
    /// How it is encrypted, by its name: then it may be larger.
    pub(super) seal: Option<Seal>,
}

/// What a good file holds, whose it is, and its stamp when it was read.
pub(super) fn read(
    dir: impl AsFd,
    path: &Path,
    name: &str,
    rules: &Rules<'_>,
) -> Result<(SecretBytes, u32, Stamp), NotRead> {
    let place = trust::locate_beneath(dir, path, name)?;
    // A FIFO, a device or a directory is told by its type before it is opened for reading.
    let mode = stat_of(&place)?.st_mode;
    if kind(mode) == SFlag::S_IFLNK {
        return Err(NotRead::Changing);
    }
    regular(mode)?;
    read_at(&place, rules)
}

/// What was a plain file a moment ago may be something else by now, so everything is asked of the
/// open descriptor.
pub(super) fn read_at(place: &Place, rules: &Rules<'_>) -> Result<(SecretBytes, u32, Stamp), NotRead> {
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let file = match trust::open(place, flags) {
        // It has become a link since.
        Err(Errno::ELOOP | Errno::EAGAIN) => return Err(NotRead::Changing),
        file => file?,
    };
    let stat = fstat(&file)?;
    regular(stat.st_mode)?;
    permitted(&stat, rules)?;
    let size = usize::try_from(stat.st_size).unwrap_or(usize::MAX);
    let limit = if rules.seal.is_some() { LARGEST_SEALED } else { LIMIT };
    if size > limit {
        return Err(NotRead::Refused(format!("is larger than {} KiB", limit / 1024)));
    }
    // Reserved whole, so that no copy is left behind by growing.
    let mut bytes = SecretBytes::new(Vec::with_capacity(size + 1));
    let file = std::fs::File::from(file);
    (&file)
        .take(size as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(|failed| NotRead::Refused(format!("cannot be read: {failed}")))?;
    let stamp = Stamp::of(&stat);
    if bytes.len() == size && Stamp::of(&fstat(&file)?) == stamp {
        Ok((bytes, stat.st_uid, stamp))
    } else {
        Err(NotRead::Changing)
    }
}

fn kind(mode: u32) -> SFlag {
    SFlag::from_bits_truncate(mode) & SFlag::S_IFMT
}

fn regular(mode: u32) -> Result<(), NotRead> {
    let kind = kind(mode);
    let what = if kind == SFlag::S_IFREG {
        return Ok(());
    } else if kind == SFlag::S_IFDIR {
        "a directory"
    } else if kind == SFlag::S_IFIFO {
        "a FIFO"
    } else if kind == SFlag::S_IFSOCK {
        "a socket"
    } else {
        "a device"
    };
    Err(NotRead::Refused(format!("is {what}, not a file; put a file there")))
}

fn permitted(stat: &FileStat, rules: &Rules<'_>) -> Result<(), NotRead> {
    let Rules { account, user, path, seal: _ } = rules;
    let owner = stat.st_uid;
    if owner != 0 && owner != own_uid() {
        match account() {
            Ok(account) if account == Some(owner) => {}
            Ok(_) => {
                return Err(NotRead::Refused(format!(
                    "belongs to uid {owner}, who is neither root nor the daemon nor {user}; chown root {path}"
                )));
            }
            Err(why) => {
                return Err(NotRead::Refused(format!(
                    "belongs to uid {owner}, and whether that is {user} cannot be looked up: {why}; mend the host's name service, or chown root {path}"
                )));
            }
        }
    }
    let mode = stat.st_mode & 0o7777;
    if mode & 0o077 != 0 {
        let what = if mode & 0o044 != 0 { "read" } else { "used" };
        return Err(NotRead::Refused(format!("may be {what} by others (mode {mode:04o}); chmod 600 {path}")));
    }
    Ok(trust::single(stat, path)?)
}
