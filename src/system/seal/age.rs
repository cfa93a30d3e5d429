//! `alice.env.age`: the format of age-encryption.org/v1, with one key for all, in the state directory.
//!
//! The key is an age identity as `age-keygen` writes it, made by the first `mcpsup seal`; the program
//! `age -d -i KEY` opens what is sealed here, should mcpsup be gone. What it keeps secret is a copy of
//! env.d (a backup, a repository), not a disk that has both.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use age::secrecy::ExposeSecret;
use age::x25519::Identity;

use crate::model::file::SecretBytes;
use crate::system::cause::plain;
use crate::system::files;

/// A key is 74 characters; comments may stand around it.
const LARGEST_KEY: usize = 4096;

/// What `sealed` says, at most `most` bytes.
pub(super) fn open(key: &Path, sealed: &[u8], most: usize) -> Result<SecretBytes, String> {
    let identity = read(key)?;
    let broken = |error: &dyn std::fmt::Display| format!("it is no age file, or broken: {error}");
    let decryptor = age::Decryptor::new_buffered(sealed).map_err(|error| broken(&error))?;
    let identities = std::iter::once(&identity as &dyn age::Identity);
    let reader = match decryptor.decrypt(identities) {
        Ok(reader) => reader,
        Err(age::DecryptError::NoMatchingKeys) => {
            return Err(format!("the key {} does not fit", key.display()));
        }
        Err(error) => return Err(broken(&error)),
    };
    // Room enough that it does not move, which would leave copies behind.
    let mut bytes = SecretBytes::new(Vec::with_capacity(most + 1));
    reader.take(most as u64 + 1).read_to_end(&mut bytes).map_err(|error| broken(&error))?;
    if bytes.len() > most { Err(format!("it holds more than {most} bytes")) } else { Ok(bytes) }
}

/// `plain`, sealed with the key, which is made if there is none.
pub(super) fn close(key: &Path, plain: &[u8]) -> Result<Vec<u8>, String> {
    if !key.exists() {
        make(key)?;
    }
    age::encrypt(&read(key)?.to_public(), plain).map_err(|error| error.to_string())
}

fn read(key: &Path) -> Result<Identity, String> {
    let meta = std::fs::metadata(key)
        .map_err(|error| format!("cannot read the key {}: {}", key.display(), plain(&error)))?;
    if meta.mode() & 0o077 != 0 {
        return Err(format!("the key {0} may be read by others; chmod 600 {0}", key.display()));
    }
    let bytes = files::read_bounded(key, LARGEST_KEY).map_err(|error| error.to_string())?;
    let bytes = SecretBytes::new(bytes);
    let text = String::from_utf8_lossy(&bytes);
    let line = text.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('#'));
    // Its error may hold the key.
    line.and_then(|line| line.parse().ok()).ok_or_else(|| format!("{} is no age key", key.display()))
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

    #[test]
    fn what_is_sealed_opens_with_its_own_key_only() {
        let dir = tempfile::tempdir().unwrap();
        let (key, other) = (dir.path().join("state/seal.key"), dir.path().join("other.key"));
        let sealed = close(&key, b"A=1\n").unwrap();
        assert_eq!(&**open(&key, &sealed, 64).unwrap(), b"A=1\n");
        assert_eq!(std::fs::metadata(&key).unwrap().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(dir.path().join("state")).unwrap().count(), 1);
        assert!(open(&key, &close(&key, &[b'x'; 65]).unwrap(), 64).unwrap_err().contains("more than 64"));

        close(&other, b"").unwrap();
        assert!(open(&other, &sealed, 64).unwrap_err().contains("does not fit"));
        let mut broken = sealed.clone();
        *broken.last_mut().unwrap() ^= 1;
        for bad in [&broken[..], b"", b"A=1\n", &sealed[..sealed.len() - 1]] {
            assert!(open(&key, bad, 64).is_err());
        }
        std::fs::set_permissions(&key, PermissionsExt::from_mode(0o640)).unwrap();
        assert!(open(&key, &sealed, 64).unwrap_err().contains("chmod 600"));
        assert!(open(&dir.path().join("none"), &sealed, 64).unwrap_err().contains("cannot read the key"));
    }
}
