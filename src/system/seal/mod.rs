//! Opening and making sealed files: an env file that is encrypted at rest.
//!
//! `alice.env.cred` is systemd-creds(1)'s, whose key is the host's (a TPM's too, where there is
//! one); `alice.env.age` is age's, with a key that systemd gives the daemon or one of the state
//! directory, where this program was built with the feature `age`. Plain text is only ever in our
//! memory and in pipes.
//!
//! Both are blocking: the daemon's loop has another thread do it.

#[cfg(feature = "age")]
mod age;

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::places::Places;
use super::tool::{self, Environment};
use crate::model::UserName;
use crate::model::file::{Seal, SecretBytes};

/// The largest plain text in bytes, as for an env file that is not sealed.
const LARGEST: usize = 64 * 1024;
/// The largest sealed file: base64 makes four bytes of three, and there are heads.
pub const LARGEST_SEALED: usize = 128 * 1024;
/// How long a tool may take: a TPM needs a second or two.
const PATIENCE: Duration = Duration::from_secs(20);

const CREDS: &str = "systemd-creds";

/// What opens and makes sealed files.
#[derive(Debug, Clone)]
pub struct Keeper {
    /// Age's; systemd's is systemd's business.
    keys: Keys,
}

/// Where age's key may be.
#[derive(Debug, Clone)]
#[cfg_attr(not(feature = "age"), expect(dead_code, reason = "only age has a key of ours"))]
struct Keys {
    /// In the state directory, made when it is needed first.
    own: PathBuf,
    /// As a credential of mcpsup.service, `LoadCredential=` of systemd.exec(5): once it is there it
    /// seals, and none of our own is made.
    given: Option<PathBuf>,
}

impl Keeper {
    /// The one of the daemon whose places these are.
    #[must_use]
    pub fn of(places: &Places) -> Self {
        let given = places.credentials.as_ref().map(|dir| dir.join("mcpsup.seal.key"));
        Self { keys: Keys { own: places.state.join("seal.key"), given } }
    }

    /// Age's key of the state directory, if there is one.
    #[must_use]
    pub fn own_key(&self) -> Option<&Path> {
        Some(&*self.keys.own).filter(|key| key.exists())
    }

    /// What the sealed file of `user` says.
    ///
    /// # Errors
    ///
    /// Why it cannot be opened, for people; a wrong key is one of them.
    pub fn open(&self, seal: Seal, user: &UserName, sealed: &[u8]) -> Result<SecretBytes, String> {
        let plain = match seal {
            Seal::Creds => {
                let name = format!("--name={}", name_in(user));
                tool::run(CREDS, &["decrypt", &name, "-", "-"], Environment::Ours, sealed, LARGEST, PATIENCE)
            }
            Seal::Age => age_open(&self.keys, sealed, LARGEST),
        };
        plain.map_err(|why| format!("cannot be unsealed: {why}"))
    }

    /// `plain` as the sealed file of `user`, which was opened again to see that it can be.
    ///
    /// # Errors
    ///
    /// Why it cannot be made, for people.
    pub fn close(&self, seal: Seal, user: &UserName, plain: &[u8]) -> Result<Vec<u8>, String> {
        let sealed = match seal {
            Seal::Creds => {
                let name = format!("--name={}", name_in(user));
                let made = tool::run(
                    CREDS,
                    &["encrypt", &name, "-", "-"],
                    Environment::Ours,
                    plain,
                    LARGEST_SEALED,
                    PATIENCE,
                );
                made.map(|sealed| sealed.to_vec())
            }
            Seal::Age => age_close(&self.keys, plain),
        };
        let sealed = sealed.map_err(|why| format!("cannot be sealed: {why}"))?;
        if sealed.len() > LARGEST_SEALED {
            return Err("cannot be sealed: it is too large".to_owned());
        }
        if **self.open(seal, user, &sealed)? == *plain {
            Ok(sealed)
        } else {
            Err("cannot be sealed: what was sealed opens to something else".to_owned())
        }
    }

    /// How a file is sealed here where nobody said how: by systemd-creds if it is there, else by age.
    ///
    /// # Errors
    ///
    /// When this host and this program know no way.
    pub fn usual(&self) -> Result<Seal, String> {
        match tool::run(CREDS, &["--version"], Environment::Ours, b"", LARGEST, PATIENCE) {
            Ok(_) => Ok(Seal::Creds),
            Err(_) if cfg!(feature = "age") => Ok(Seal::Age),
            Err(why) => Err(format!("{why}; and this mcpsup was built without the feature age")),
        }
    }
}

/// The name that is sealed in: who has it open cannot be told that it is somebody else's.
fn name_in(user: &UserName) -> String {
    format!("{user}.env")
}

#[cfg(feature = "age")]
use age::{close as age_close, open as age_open};

#[cfg(not(feature = "age"))]
fn age_open(_: &Keys, _: &[u8], _: usize) -> Result<SecretBytes, String> {
    Err(NO_AGE.to_owned())
}

#[cfg(not(feature = "age"))]
fn age_close(_: &Keys, _: &[u8]) -> Result<Vec<u8>, String> {
    Err(NO_AGE.to_owned())
}

#[cfg(not(feature = "age"))]
const NO_AGE: &str = "this mcpsup was built without the feature age";
