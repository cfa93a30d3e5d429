//! What a look at env.d found: handed from `system::envdir` to `logic::roster`.

use std::collections::BTreeMap;
use std::fmt;

use zeroize::Zeroizing;

use crate::model::{Moment, Problem, UserName};

/// The directory at one moment, or what was looked at of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Look {
    /// Whether the directory itself could be read. If not, nothing is known of any file: the
    /// problem is not that all users were deleted.
    pub directory: Result<(), Problem>,
    /// True if everything was looked at; else a user who is not in `files` is as they were.
    pub whole: bool,
    /// Every user who has a file. One who is missing here (while the directory could be read, and
    /// whole) has none, and has had none for as long as editors need to put one back.
    pub files: BTreeMap<UserName, FileState>,
    /// Names in the directory that are nobody's file, and why; for `mcpsup check`.
    pub ignored: Vec<(String, String)>,
    /// When to look again even if nothing else says so: a file is being written, or has just
    /// vanished.
    pub again_at: Option<Moment>,
}

/// What became of one user's file since the last look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileState {
    /// Nothing to hand over: as it was, still being written, or vanished a moment ago.
    Unchanged,
    /// New or changed, and read.
    Read(EnvFile),
    /// New or changed, read, and encrypted: whoever looked has it opened, and hands over what that
    /// gives. Until then it is as it was.
    Sealed(EnvFile, Seal),
    /// It is there and must not or cannot be read; the problem says what mends it.
    Refused(Problem),
}

/// How a file is encrypted at rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seal {
    /// `alice.env.cred`: with the host's key, by systemd-creds(1).
    Creds,
    /// `alice.env.age`: with a key of the state directory, in the format of age-encryption.org/v1.
    Age,
}

impl Seal {
    /// What such a file's name has after `.env`.
    #[must_use]
    pub const fn ending(self) -> &'static str {
        match self {
            Self::Creds => ".cred",
            Self::Age => ".age",
        }
    }

    /// How the file of that name is encrypted; `None` if it is not.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        [Self::Creds, Self::Age].into_iter().find(|seal| {
            name.strip_suffix(seal.ending()).is_some_and(|plain| plain.strip_suffix(".env").is_some())
        })
    }
}

/// Bytes that are overwritten when they are dropped.
pub type SecretBytes = Zeroizing<Vec<u8>>;

/// One env file's contents, not yet understood.
#[derive(Clone, PartialEq, Eq)]
pub struct EnvFile {
    /// As the administrator knows it: `env.d/alice.env`.
    pub name: String,
    /// All of it, at most 64 KiB (128 KiB while it is encrypted).
    pub bytes: SecretBytes,
    /// Whose file it is.
    pub owner_uid: u32,
}

impl fmt::Debug for EnvFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EnvFile")
            .field("name", &self.name)
            .field("bytes", &"***")
            .field("owner_uid", &self.owner_uid)
            .finish()
    }
}
