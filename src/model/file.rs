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
    /// It is there and must not or cannot be read; the problem says what mends it.
    Refused(Problem),
}

/// Bytes that are overwritten when they are dropped.
pub type SecretBytes = Zeroizing<Vec<u8>>;

/// One env file's contents, not yet understood.
#[derive(Clone, PartialEq, Eq)]
pub struct EnvFile {
    /// As the administrator knows it: `env.d/alice.env`.
    pub name: String,
    /// All of it, at most 64 KiB.
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
