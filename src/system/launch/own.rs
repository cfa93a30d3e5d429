//! A run's own directories: 0700, its own user's, and within that user's reach.
//!
//! The directories above them are the daemon's, so nobody else can put anything in their place.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, lchown};
use std::path::Path;

use nix::unistd::{AccessFlags, Uid, eaccess};

use crate::model::spec::Account;
use crate::system::clear;
use crate::system::orders::Failure;
use crate::system::trust::shell_word;

use super::cannot;

/// Makes a directory that outlives the run, or narrows the one that is there to 0700.
///
/// One that belongs to another is not used: it holds what another user of this name, or the same
/// under another account, has written, and a run as root would be root among a user's files.
pub(super) fn make_kept(dir: &Path, account: Option<&Account>) -> Result<(), Failure> {
    let failed = |error| cannot(format!("make {}", dir.display()))(error);
    let uid = uid_of(account);
    match fs::metadata(dir) {
        Err(_) => make(dir, account).map_err(|error| {
            if error.raw_os_error() != Some(nix::libc::EINVAL) {
                return failed(error);
            }
            let doing = format!(
                "cannot run as uid {uid}, which this container does not have; see /proc/self/uid_map, and set \
                 [daemon] uid_range in mcpsup.toml"
            );
            Failure { doing, errno: None }
        }),
        Ok(meta) if meta.uid() != uid => {
            let (owner, shown) = (meta.uid(), shell_word(dir));
            let gid = account.map_or(uid, |account| account.gid);
            let name = account
                .filter(|account| !account.is_reserved)
                .map_or_else(String::new, |it| format!(" ({})", it.name));
            // Only what was theirs: a hard link in there may be of anybody's file.
            let mend = format!("chown -hR --from={owner} {uid}:{gid} {shown}");
            let doing =
                format!("cannot run as uid {uid}{name} in {shown}, which belongs to uid {owner}; {mend}");
            Err(Failure { doing, errno: None })
        }
        Ok(meta) if meta.mode() & 0o077 != 0 => {
            fs::set_permissions(dir, fs::Permissions::from_mode(0o700)).map_err(failed)
        }
        Ok(_) => Ok(()),
    }
}

/// Makes a directory that lasts no longer than the machine is up; another's is replaced, as nothing
/// of an earlier run is alive.
pub(super) fn make_passing(dir: &Path, account: Option<&Account>) -> Result<(), Failure> {
    if fs::symlink_metadata(dir).is_ok_and(|meta| meta.uid() != uid_of(account)) {
        clear::remove_tree(dir).map_err(cannot(format!("remove {}", dir.display())))?;
    }
    make_kept(dir, account)
}

fn uid_of(account: Option<&Account>) -> u32 {
    account.map_or_else(|| Uid::effective().as_raw(), |account| account.uid)
}

/// Makes it 0700 for the account, and the ones above it so that it can be reached.
fn make(dir: &Path, account: Option<&Account>) -> io::Result<()> {
    if let Some(parent) = dir.parent() {
        fs::DirBuilder::new().recursive(true).mode(0o711).create(parent)?;
        if account.is_some() {
            // The umask took from others what the account needs to get through.
            fs::set_permissions(parent, fs::Permissions::from_mode(0o711))?;
        }
    }
    match fs::DirBuilder::new().mode(0o700).create(dir) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
        Ok(()) => match account {
            // Whoever comes later must not find it as another's.
            Some(account) => lchown(dir, Some(account.uid), Some(account.gid)).inspect_err(|_| {
                fs::remove_dir(dir).unwrap_or_default();
            }),
            None => Ok(()),
        },
    }
}

/// As whom it shall run by now: whether it can get to its own directory.
pub(super) fn can_be_reached(dir: &Path) -> Result<(), Failure> {
    match closed_above(dir) {
        Some((closed, mode)) => {
            let (uid, shown) = (Uid::effective(), shell_word(closed));
            let doing = format!(
                "cannot get to {} as uid {uid}: {shown} is closed to it (mode {mode:04o}); chmod o+x {shown}",
                dir.display()
            );
            Err(Failure { doing, errno: None })
        }
        None => Ok(()),
    }
}

/// A failure with `path`, and which directory above bars the way to it if that is why.
pub(super) fn cannot_at(verb: &str, path: &Path) -> impl FnOnce(io::Error) -> Failure {
    let bar = closed_above(path).map_or_else(String::new, |(closed, mode)| {
        format!(" as uid {}, to which {} is closed (mode {mode:04o})", Uid::effective(), closed.display())
    });
    cannot(format!("{verb} {}{bar}", path.display()))
}

/// The first directory on the way that this process may not pass, and its mode.
fn closed_above(path: &Path) -> Option<(&Path, u32)> {
    let mut above: Vec<&Path> = path.ancestors().skip(1).filter(|dir| dir.is_absolute()).collect();
    above.reverse();
    let closed =
        above.into_iter().find(|dir| eaccess(*dir, AccessFlags::X_OK) == Err(nix::errno::Errno::EACCES))?;
    Some((closed, fs::metadata(closed).map_or(0, |meta| meta.mode() & 0o7777)))
}
