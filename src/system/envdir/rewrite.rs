//! Changing a user's file on somebody's behalf: read under the same rules as ever, and replaced
//! whole only if nobody else changed it meanwhile.
//!
//! The new file and the old one change places in one step, and what came out is looked at: had
//! somebody else put another there in between, theirs goes back.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, RenameFlags, openat, renameat, renameat2};
use nix::sys::stat::{Mode, SFlag, fchmod, fstatat};
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchown, unlinkat};

use super::open::{self, NotRead, Rules, Stamp};
use super::{AccountUid, EnvDir, names_of};
use crate::model::UserName;
use crate::model::file::{EnvFile, Seal, SecretBytes};
use crate::system::cause::plain;
use crate::system::seal::LARGEST_SEALED;
use crate::system::trust;

/// A user's file as it was read, to be replaced.
pub struct Draft {
    dir: Dir,
    name: String,
    file: EnvFile,
    stamp: Stamp,
}

/// Why a file was not replaced; it is as it was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotPut {
    /// Somebody else changed it since it was read.
    #[error("it was changed by somebody else meanwhile")]
    Changed,
    /// Something of the operating system, in words.
    #[error("it cannot be written: {0}")]
    Failed(String),
}

impl From<Errno> for NotPut {
    fn from(errno: Errno) -> Self {
        Self::Failed(plain(&errno.into()))
    }
}

impl From<io::Error> for NotPut {
    fn from(error: io::Error) -> Self {
        Self::Failed(plain(&error))
    }
}

impl Draft {
    /// Reads the file that `user` has in `env_dir`; `None` if there is none.
    ///
    /// # Errors
    ///
    /// Why it must not or cannot be read or replaced, for people.
    pub fn open(
        env_dir: &Path,
        user: &UserName,
        account_uid: AccountUid<'_>,
    ) -> Result<Option<Self>, String> {
        let env = EnvDir::new(env_dir);
        let dir = env.open().map_err(|why| format!("{} {why}", env_dir.display()))?;
        let mut there = Vec::new();
        for name in names_of(user) {
            match fstatat(&dir, name.as_str(), AtFlags::AT_SYMLINK_NOFOLLOW) {
                Ok(stat) => there.push((name, SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT)),
                Err(Errno::ENOENT) => {}
                Err(errno) => return Err(format!("{}/{name} {}", env.shown, super::cannot(errno))),
            }
        }
        if there.len() > 1 {
            let names: Vec<String> = there.into_iter().map(|(name, _)| name).collect();
            return Err(env.two_files(&names).to_string());
        }
        let Some((name, kind)) = there.pop() else { return Ok(None) };
        let shown = format!("{}/{name}", env.shown);
        if kind == SFlag::S_IFLNK {
            return Err(format!("{shown} is a symbolic link; change what it leads to"));
        }
        let path = trust::shell_word(&env_dir.join(&name));
        let account = || account_uid(user);
        let rules = Rules { account: &account, user: user.as_str(), path: &path, seal: Seal::of(&name) };
        match open::read(&dir, env_dir, &name, &rules) {
            Ok((bytes, owner_uid, stamp)) => {
                Ok(Some(Self { dir, name, file: EnvFile { name: shown, bytes, owner_uid }, stamp }))
            }
            Err(NotRead::Gone) => Ok(None),
            Err(NotRead::Changing) => Err(format!("{shown} is being written by somebody else; try again")),
            Err(NotRead::Refused(why)) => Err(format!("{shown} {why}")),
        }
    }

    /// What it says, encrypted if [`seal`](Self::seal) says so.
    #[must_use]
    pub fn file(&self) -> &EnvFile {
        &self.file
    }

    /// How it is encrypted.
    #[must_use]
    pub fn seal(&self) -> Option<Seal> {
        Seal::of(&self.name)
    }

    /// Its name in env.d.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Puts `bytes` in its place, with the same owner and mode. When this returns, the disk has it.
    ///
    /// # Errors
    ///
    /// When it was changed meanwhile, or cannot be written; it is then as somebody else left it.
    pub fn put(&self, bytes: &[u8]) -> Result<(), NotPut> {
        let (temporary, file) = self.beside()?;
        let done = self.fill(file, bytes).and_then(|()| self.exchange(&temporary));
        // What is there now is ours that was not wanted, or the old one that no longer is.
        match unlinkat(&self.dir, temporary.as_str(), UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(errno) => tracing::warn!(%errno, file = temporary, "left behind in env.d"),
        }
        done?;
        Ok(nix::unistd::fsync(&self.dir)?)
    }

    /// A new file beside it, under a name that env.d ignores.
    fn beside(&self) -> Result<(String, File), NotPut> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        loop {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let name = format!("..{}.{}.{number}.new", self.name, std::process::id());
            match openat(&self.dir, name.as_str(), flags, Mode::S_IRUSR | Mode::S_IWUSR) {
                Ok(file) => return Ok((name, File::from(file))),
                // Left by a process that had our pid and died half-way.
                Err(Errno::EEXIST) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    fn fill(&self, mut file: File, bytes: &[u8]) -> Result<(), NotPut> {
        let old = fstatat(&self.dir, self.name.as_str(), AtFlags::AT_SYMLINK_NOFOLLOW)
            .map_err(|errno| if errno == Errno::ENOENT { NotPut::Changed } else { errno.into() })?;
        if !self.stamp.is_of(&old) {
            return Err(NotPut::Changed);
        }
        let new = nix::sys::stat::fstat(&file)?;
        if (new.st_uid, new.st_gid) != (old.st_uid, old.st_gid) {
            fchown(&file, Some(Uid::from_raw(old.st_uid)), Some(Gid::from_raw(old.st_gid)))?;
        }
        fchmod(&file, Mode::from_bits_truncate(old.st_mode & 0o700))?;
        file.write_all(bytes)?;
        Ok(file.sync_all()?)
    }

    /// Removes it, and overwrites what it said: which a disk or a backup may have kept all the same.
    ///
    /// # Errors
    ///
    /// When it was changed meanwhile, or cannot be written.
    pub fn shred(&self) -> Result<(), NotPut> {
        let (dir, name) = (&self.dir, self.name.as_str());
        let flags = OFlag::O_WRONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let mut file = File::from(openat(dir, name, flags, Mode::empty())?);
        // First its name: nobody is to read the zeros.
        let away = format!("..{name}.{}.old", std::process::id());
        renameat2(dir, name, dir, away.as_str(), RenameFlags::RENAME_NOREPLACE)?;
        let is_open = nix::sys::stat::fstat(&file).is_ok_and(|stat| self.stamp.is_of(&stat));
        if !is_open || !self.is_what_we_read(&away) {
            renameat2(dir, away.as_str(), dir, name, RenameFlags::RENAME_NOREPLACE)?;
            return Err(NotPut::Changed);
        }
        let zeroed = file.write_all(&vec![0; self.file.bytes.len()]).and_then(|()| file.sync_all());
        unlinkat(dir, away.as_str(), UnlinkatFlags::NoRemoveDir)?;
        nix::unistd::fsync(dir)?;
        Ok(zeroed?)
    }

    fn exchange(&self, temporary: &str) -> Result<(), NotPut> {
        let (dir, name) = (&self.dir, self.name.as_str());
        match renameat2(dir, temporary, dir, name, RenameFlags::RENAME_EXCHANGE) {
            Ok(()) => {}
            Err(Errno::ENOENT) => return Err(NotPut::Changed),
            // A file system that cannot: then there is a moment between the look and the deed.
            Err(Errno::EINVAL | Errno::ENOSYS) => {
                return if self.is_what_we_read(name) {
                    Ok(renameat(dir, temporary, dir, name)?)
                } else {
                    Err(NotPut::Changed)
                };
            }
            Err(errno) => return Err(errno.into()),
        }
        if self.is_what_we_read(temporary) {
            return Ok(());
        }
        renameat2(dir, temporary, dir, name, RenameFlags::RENAME_EXCHANGE)?;
        Err(NotPut::Changed)
    }

    /// True if the file of that name is the one that was read, and says what it said.
    fn is_what_we_read(&self, name: &str) -> bool {
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let Ok(file) = openat(&self.dir, name, flags, Mode::empty()) else { return false };
        let mut bytes = SecretBytes::new(Vec::with_capacity(LARGEST_SEALED + 1));
        let file = File::from(file);
        let is_same = nix::sys::stat::fstat(&file).is_ok_and(|stat| self.stamp.is_of(&stat));
        let read = file.take(LARGEST_SEALED as u64 + 1).read_to_end(&mut bytes);
        is_same && read.is_ok() && *bytes == *self.file.bytes
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests write small files")]
mod tests {
    use super::*;
    use crate::system::account;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    fn env_d() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o700)).unwrap();
        dir
    }

    fn save(dir: &tempfile::TempDir, name: &str, text: &str) {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
    }

    fn draft(dir: &tempfile::TempDir) -> Result<Option<Draft>, String> {
        Draft::open(dir.path(), &"alice".parse().unwrap(), &|_| Ok(Some(account::own_uid())))
    }

    fn names(dir: &tempfile::TempDir) -> Vec<String> {
        let names = std::fs::read_dir(dir.path()).unwrap();
        names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn a_file_is_replaced_whole_with_its_owner_and_mode_and_leaves_nothing_beside_it() {
        let dir = env_d();
        save(&dir, "alice.env", "A=old\n");
        let path = dir.path().join("alice.env");
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o400)).unwrap();
        if account::own_uid() == 0 {
            std::os::unix::fs::chown(&path, Some(4711), Some(4712)).unwrap();
        }
        let before = std::fs::metadata(&path).unwrap();
        let theirs = |_: &UserName| Ok(Some(before.uid()));
        let draft = Draft::open(dir.path(), &"alice".parse().unwrap(), &theirs).unwrap().unwrap();
        assert_eq!(&**draft.file().bytes, b"A=old\n");
        draft.put(b"A=new\n").unwrap();
        let after = std::fs::metadata(&path).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"A=new\n");
        assert_eq!((after.uid(), after.gid(), after.mode()), (before.uid(), before.gid(), before.mode()));
        assert_eq!(names(&dir), ["alice.env"]);
    }

    #[test]
    fn a_file_that_somebody_else_changed_moved_or_removed_is_left_as_they_left_it() {
        let dir = env_d();
        let path = dir.path().join("alice.env");
        let change: [&dyn Fn(); 4] = [
            &|| std::fs::write(&path, "A=their\n").unwrap(),
            &|| std::fs::write(&path, "A=theirs, longer\n").unwrap(),
            &|| {
                save(&dir, "..x", "A=old\n");
                std::fs::rename(dir.path().join("..x"), &path).unwrap();
            },
            &|| std::fs::set_permissions(&path, PermissionsExt::from_mode(0o400)).unwrap(),
        ];
        for change in change {
            drop(std::fs::remove_file(&path));
            save(&dir, "alice.env", "A=mine\n");
            let draft = draft(&dir).unwrap().unwrap();
            change();
            let theirs = std::fs::read(&path).unwrap();
            assert_eq!(draft.put(b"A=ours\n"), Err(NotPut::Changed));
            // And where it is seen only afterwards.
            save(&dir, "..late", "A=ours\n");
            assert_eq!(draft.exchange("..late"), Err(NotPut::Changed));
            assert_eq!(std::fs::read(dir.path().join("..late")).unwrap(), b"A=ours\n");
            std::fs::remove_file(dir.path().join("..late")).unwrap();
            assert_eq!(std::fs::read(&path).unwrap(), theirs);
            assert_eq!(names(&dir), ["alice.env"]);
        }
        let draft = draft(&dir).unwrap().unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(draft.put(b"A=ours\n"), Err(NotPut::Changed));
        assert_eq!(names(&dir), [""; 0]);
    }

    #[test]
    fn what_is_no_good_file_is_not_opened_to_be_changed() {
        let dir = env_d();
        assert!(draft(&dir).unwrap().is_none());
        std::os::unix::fs::symlink("elsewhere", dir.path().join("alice.env")).unwrap();
        assert!(draft(&dir).err().unwrap().contains("symbolic link"));
        std::fs::remove_file(dir.path().join("alice.env")).unwrap();
        save(&dir, "alice.env", "A=1\n");
        save(&dir, ".env.alice", "A=1\n");
        assert!(draft(&dir).err().unwrap().contains("two files"));
        std::fs::remove_file(dir.path().join(".env.alice")).unwrap();
        std::fs::set_permissions(dir.path().join("alice.env"), PermissionsExt::from_mode(0o644)).unwrap();
        assert!(draft(&dir).err().unwrap().contains("may be read by others"));
        std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o777)).unwrap();
        assert!(draft(&dir).err().unwrap().contains("others may put files there"));
    }
}
