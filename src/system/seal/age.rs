//! `alice.env.age`: the format of age-encryption.org/v1, with one key for all: a credential of
//! mcpsup.service if there is one, else a file of the state directory.
//!
//! The key is an age identity as `age-keygen` writes it; that of the state directory is made by the
//! first `mcpsup seal`. The program `age -d -i KEY` opens what is sealed here, should mcpsup be gone.
//! What it keeps secret is a copy of env.d (a backup, a repository), not a disk that has both.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use age::secrecy::ExposeSecret;
use age::x25519::Identity;
use nix::fcntl::OFlag;
use nix::sys::stat::{FileStat, fstat};

use super::Keys;
use crate::model::file::SecretBytes;
use crate::model::shell;
use crate::system::cause::plain;
use crate::system::trust::{self, Distrust};
use crate::system::{account, files};

/// A key is 74 characters; comments may stand around it.
const LARGEST_KEY: usize = 4096;

/// Said where a key is missing that may be systemd's to give.
const WHERE_IT_IS_GIVEN: &str = "a key that systemd gives the daemon is there while mcpsup.service runs, and \
     CREDENTIALS_DIRECTORY=/etc/credstore says to a command that it lies there";

impl Keys {
    fn given(&self) -> Option<&Path> {
        self.given.as_deref().filter(|key| is_there(key))
    }
}

/// False only if it is certain: whoever may not look reads, and is told why not.
fn is_there(key: &Path) -> bool {
    key.try_exists().unwrap_or(true)
}

/// What `sealed` says, at most `most` bytes.
pub(super) fn open(keys: &Keys, sealed: &[u8], most: usize) -> Result<SecretBytes, String> {
    let given = keys.given();
    // Before there was the other one, this sealed.
    let own = Some(&*keys.own).filter(|key| is_there(key));
    let mut misfits = Vec::new();
    for key in given.into_iter().chain(own) {
        match open_with(key, sealed, most)? {
            Some(bytes) => return Ok(bytes),
            None => misfits.push(format!("the key {} does not fit", key.display())),
        }
    }
    if misfits.is_empty() {
        misfits.push(format!("there is no key {}", keys.own.display()));
    }
    if given.is_none() {
        misfits.push(WHERE_IT_IS_GIVEN.to_owned());
    }
    Err(misfits.join("; "))
}

/// The same, if this key fits.
fn open_with(key: &Path, sealed: &[u8], most: usize) -> Result<Option<SecretBytes>, String> {
    let identity = read(key)?;
    let broken = |error: &dyn std::fmt::Display| format!("it is no age file, or broken: {error}");
    let decryptor = age::Decryptor::new_buffered(sealed).map_err(|error| broken(&error))?;
    let identities = std::iter::once(&identity as &dyn age::Identity);
    let reader = match decryptor.decrypt(identities) {
        Ok(reader) => reader,
        Err(age::DecryptError::NoMatchingKeys) => return Ok(None),
        Err(error) => return Err(broken(&error)),
    };
    // Room enough that it does not move, which would leave copies behind.
    let mut bytes = SecretBytes::new(Vec::with_capacity(most + 1));
    reader.take(most as u64 + 1).read_to_end(&mut bytes).map_err(|error| broken(&error))?;
    if bytes.len() > most { Err(format!("it holds more than {most} bytes")) } else { Ok(Some(bytes)) }
}

/// `plain`, sealed with the key, which is made if there is none.
pub(super) fn close(keys: &Keys, plain: &[u8]) -> Result<Vec<u8>, String> {
    let key = keys.given().unwrap_or(&keys.own);
    if !is_there(key) {
        make(key)?;
    }
    age::encrypt(&read(key)?.to_public(), plain).map_err(|error| error.to_string())
}

fn read(key: &Path) -> Result<Identity, String> {
    let refused = |why: Distrust| format!("the key {} {why}", key.display());
    let place = trust::locate(key).map_err(refused)?;
    // Without O_NONBLOCK a FIFO of this name would hold us up for good.
    let file = trust::open(&place, OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY);
    let file = file.map_err(|errno| refused(errno.into()))?;
    let stat = fstat(&file).map_err(|errno| refused(errno.into()))?;
    let shown = shell::word(&key.to_string_lossy());
    trust::owned(&stat, &shown).map_err(refused)?;
    if is_open_to_others(&stat, account::own_uid()) {
        return Err(format!("the key {} may be read by others; chmod 600 {shown}", key.display()));
    }
    // Room enough that it does not move.
    let mut bytes = SecretBytes::new(Vec::with_capacity(LARGEST_KEY));
    let read = File::from(file).take(LARGEST_KEY as u64).read_to_end(&mut bytes);
    read.map_err(|error| format!("cannot read the key {}: {}", key.display(), plain(&error)))?;
    let text = String::from_utf8_lossy(&bytes);
    let line = text.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('#'));
    // Its error may hold the key.
    line.and_then(|line| line.parse().ok()).ok_or_else(|| format!("{} is no age key", key.display()))
}

/// True if somebody else than its owner, or we, may read it or change it. To a daemon that is not root
/// systemd may give a credential that stays root's, by an ACL: its mask then stands where the mode of
/// the group, root's too, would.
const fn is_open_to_others(stat: &FileStat, own_uid: u32) -> bool {
    let is_by_acl = own_uid != 0 && stat.st_uid == 0 && stat.st_gid == 0;
    stat.st_mode & if is_by_acl { 0o037 } else { 0o077 } != 0
}

fn make(key: &Path) -> Result<(), String> {
    let cannot = |error: std::io::Error| format!("cannot make the key {}: {}", key.display(), plain(&error));
    if let Some(dir) = key.parent().filter(|dir| !dir.exists()) {
        files::make_dir(dir, 0o700).map_err(|error| error.to_string())?;
    }
    let text = Identity::generate().to_string();
    let whole = key.with_extension(format!("key.{}.new", std::process::id()));
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(&whole).map_err(cannot)?;
    let written = file
        .write_all(text.expose_secret().as_bytes())
        .and_then(|()| file.write_all(b"\n"))
        .and_then(|()| file.sync_all())
        // Not renamed: another's key, made meanwhile, must not be lost.
        .and_then(|()| match std::fs::hard_link(&whole, key) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
            done => done,
        });
    let removed = std::fs::remove_file(&whole);
    written.and(removed).map_err(cannot)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn keys(dir: &Path) -> Keys {
        Keys { own: dir.join("state/seal.key"), given: Some(dir.join("given/mcpsup.seal.key")) }
    }

    #[test]
    fn what_is_sealed_opens_with_its_own_key_only() {
        let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (keys, other) = (keys(dir.path()), keys(other.path()));
        assert!(open(&keys, b"", 64).unwrap_err().starts_with("there is no key "));
        let sealed = close(&keys, b"A=1\n").unwrap();
        assert_eq!(&**open(&keys, &sealed, 64).unwrap(), b"A=1\n");
        assert_eq!(std::fs::metadata(&keys.own).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(dir.path().join("state")).unwrap().count(), 1);
        assert!(open(&keys, &close(&keys, &[b'x'; 65]).unwrap(), 64).unwrap_err().contains("more than 64"));

        close(&other, b"").unwrap();
        let why = open(&other, &sealed, 64).unwrap_err();
        assert!(
            why.contains("does not fit; ") && why.contains("CREDENTIALS_DIRECTORY=/etc/credstore"),
            "{why}"
        );
        let mut broken = sealed.clone();
        *broken.last_mut().unwrap() ^= 1;
        for bad in [&broken[..], b"", b"A=1\n", &sealed[..sealed.len() - 1]] {
            assert!(open(&keys, bad, 64).is_err());
        }
        std::fs::set_permissions(&keys.own, PermissionsExt::from_mode(0o640)).unwrap();
        assert!(open(&keys, &sealed, 64).unwrap_err().contains("chmod 600"));
    }

    #[test]
    fn a_key_that_systemd_gives_seals_and_what_was_sealed_before_still_opens() {
        let dir = tempfile::tempdir().unwrap();
        let keys = keys(dir.path());
        let before = close(&keys, b"A=1\n").unwrap();
        let given = keys.given.as_deref().unwrap();
        make(given).unwrap();
        // As systemd lays it out.
        std::fs::set_permissions(given, PermissionsExt::from_mode(0o400)).unwrap();
        let after = close(&keys, b"B=2\n").unwrap();
        assert_eq!(&**open(&keys, &before, 64).unwrap(), b"A=1\n");
        std::fs::remove_file(&keys.own).unwrap();
        assert_eq!(&**open(&keys, &after, 64).unwrap(), b"B=2\n");
        close(&keys, b"C=3\n").unwrap();
        assert!(!keys.own.exists(), "none is made beside it");
        let why = open(&keys, &before, 64).unwrap_err();
        assert_eq!(why, format!("the key {} does not fit", given.display()));
        let without = Keys { given: None, ..keys };
        assert!(open(&without, &after, 64).unwrap_err().contains("CREDENTIALS_DIRECTORY=/etc/credstore"));
    }

    #[test]
    fn a_key_that_others_may_read_is_refused_but_for_whom_an_acl_names() {
        let file = tempfile::tempfile().unwrap();
        let is_open = |mode: u32, owner: u32, group: u32, us: u32| {
            let mut stat = fstat(&file).unwrap();
            (stat.st_mode, stat.st_uid, stat.st_gid) = (mode, owner, group);
            is_open_to_others(&stat, us)
        };
        for (mode, owner, group, us) in
            [(0o400, 0, 0, 0), (0o600, 7, 7, 7), (0o400, 7, 0, 7), (0o440, 0, 0, 7)]
        {
            assert!(!is_open(mode, owner, group, us), "{mode:o} {owner} {us}");
        }
        for (mode, owner, group, us) in [
            (0o440, 0, 0, 0),
            (0o640, 7, 7, 7),
            (0o440, 0, 5, 7),
            (0o444, 0, 0, 7),
            (0o460, 0, 0, 7),
            (0o602, 0, 0, 0),
        ] {
            assert!(is_open(mode, owner, group, us), "{mode:o} {owner} {us}");
        }
    }
}
