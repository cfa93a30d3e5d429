//! Opening what somebody else put there: never out of env.d, never waiting, never more than
//! 64 KiB, and only what nobody else can read.

use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat, openat2};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, fstatat};

use crate::model::file::{Seal, SecretBytes};
use crate::system::account::own_uid;
use crate::system::cause::plain;
use crate::system::seal::LARGEST_SEALED;

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

/// The stamp of what `name` leads to, without opening it.
pub(super) fn stamp(dir: impl AsFd, name: &str) -> Result<Stamp, NotRead> {
    let stat = fstatat(&dir, name, AtFlags::AT_SYMLINK_NOFOLLOW).map_err(refusal)?;
    if kind(&stat) != SFlag::S_IFLNK {
        return Ok(Stamp::of(&stat));
    }
    let target = beneath(&dir, name, OFlag::O_PATH)?;
    fstat(&target).map(|stat| Stamp::of(&stat)).map_err(refusal)
}

/// Who may own a file, and how it is called in the mend.
pub(super) struct Rules<'a> {
    /// The user's own uid on this host. Asked only where it matters: it may be slow.
    pub(super) account: &'a dyn Fn() -> Result<Option<u32>, String>,
    /// The user's name.
    pub(super) user: &'a str,
    /// The whole path, fit for a shell.
    pub(super) path: &'a str,
}

/// What a good file holds, whose it is, and its stamp when it was read.
pub(super) fn read(
    dir: impl AsFd,
    name: &str,
    rules: &Rules<'_>,
) -> Result<(SecretBytes, u32, Stamp), NotRead> {
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    // A FIFO, a device or a directory is told by its type before it is opened for reading.
    let before = stamp(&dir, name)?;
    regular(before.mode)?;
    let file = beneath(&dir, name, flags)?;
    let stat = fstat(&file).map_err(refusal)?;
    regular(stat.st_mode)?;
    permitted(&stat, rules)?;
    let size = usize::try_from(stat.st_size).unwrap_or(usize::MAX);
    let limit = if Seal::of(name).is_some() { LARGEST_SEALED } else { LIMIT };
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
    if bytes.len() == size && Stamp::of(&fstat(&file).map_err(refusal)?) == stamp {
        Ok((bytes, stat.st_uid, stamp))
    } else {
        Err(NotRead::Changing)
    }
}

/// Opens `name` without leaving the directory, whatever links lie on the way.
fn beneath(dir: impl AsFd, name: &str, flags: OFlag) -> Result<OwnedFd, NotRead> {
    let flags = flags | OFlag::O_CLOEXEC;
    let how = OpenHow::new()
        .flags(flags)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    // EAGAIN: something was renamed on the way; the kernel asks to be asked again.
    for _ in 0..8 {
        match openat2(&dir, name, how) {
            Ok(file) => return Ok(file),
            Err(Errno::EAGAIN) => {}
            // Before Linux 5.6, or a sandbox that does not know the call: no links at all then.
            Err(Errno::ENOSYS) => {
                return openat(&dir, name, flags | OFlag::O_NOFOLLOW, Mode::empty()).map_err(refusal);
            }
            Err(errno) => return Err(refusal(errno)),
        }
    }
    Err(NotRead::Changing)
}

fn refusal(errno: Errno) -> NotRead {
    if matches!(errno, Errno::ENOENT | Errno::ENOTDIR) {
        return NotRead::Gone;
    }
    NotRead::Refused(if errno == Errno::EXDEV {
        "is a symbolic link that leads out of its directory; put the file itself there".to_owned()
    } else if errno == Errno::ELOOP {
        "is a symbolic link that leads in a circle; put a file there".to_owned()
    } else {
        format!("cannot be read: {}", plain(&errno.into()))
    })
}

fn kind(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT
}

fn regular(mode: u32) -> Result<(), NotRead> {
    let kind = SFlag::from_bits_truncate(mode) & SFlag::S_IFMT;
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
    let Rules { account, user, path } = rules;
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
    if stat.st_nlink > 1 {
        return Err(NotRead::Refused(format!(
            "has {} names (hard links), so it can change unseen; put a copy in its place: cp -p {path} {path}.new && mv {path}.new {path}",
            stat.st_nlink
        )));
    }
    Ok(())
}
