//! What the daemon itself must remember over a restart: holds, sticky ports, reserved uids, the
//! highest run number, and the key of the spec digests. Small files in the state directory, replaced whole.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::logic::ports::Ports;
use crate::logic::uids::Uids;
use crate::model::{InstanceId, RunId};
use crate::system::cause::plain;
use crate::system::failpoint;
use crate::system::files::{self, FileError};

/// Run numbers are reserved this many at a time, so that a start seldom writes a file.
const RESERVED: u64 = 1000;

/// Why the state directory is of no use.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// A file in it is not what this daemon writes.
    #[error("cannot understand {}; move it away to start without it", .path.display())]
    Odd {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// The state directory.
#[derive(Debug)]
pub(super) struct Store {
    dir: PathBuf,
    reserved: RunId,
}

/// What is not to be started.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Kept")]
pub(super) struct Holds {
    pub(super) all: BTreeSet<InstanceId>,
    /// Of those, what somebody stopped by taking back a credential, and not by `mcpsup stop`.
    pub(super) taken_back: BTreeSet<InstanceId>,
}

/// As it stands in the file.
#[derive(Deserialize)]
#[serde(untagged, expecting = "neither a list of instances nor {\"all\", \"taken_back\"}")]
enum Kept {
    Now {
        all: BTreeSet<InstanceId>,
        taken_back: BTreeSet<InstanceId>,
    },
    /// Of a daemon that did not keep who it was: somebody's `mcpsup stop`.
    Before(BTreeSet<InstanceId>),
}

impl From<Kept> for Holds {
    fn from(kept: Kept) -> Self {
        let (all, taken_back) = match kept {
            Kept::Now { all, taken_back } => (all, taken_back),
            Kept::Before(all) => (all, BTreeSet::new()),
        };
        Self { all, taken_back }
    }
}

impl Store {
    /// Opens it and reads how far run numbers were given out.
    ///
    /// # Errors
    ///
    /// When a file in it cannot be read or is not ours.
    pub(super) fn open(dir: &Path) -> Result<Self, StoreError> {
        let mut store = Self { dir: dir.to_path_buf(), reserved: RunId(1) };
        if let Some(reserved) = store.read("next-run")? {
            store.reserved = reserved;
        }
        Ok(store)
    }

    /// A number higher than that of any run so far.
    #[must_use]
    pub(super) fn next_run(&self) -> RunId {
        self.reserved
    }

    /// Makes sure that no later daemon gives `run` out again. The loop waits for the disk here, and in
    /// [`keep_uid`](Self::keep_uid): what is started next must not begin before, nothing else may be
    /// started in its place, and it is once in a thousand starts, or once for a user.
    ///
    /// # Errors
    ///
    /// When the state directory cannot be written; the run must not be started then.
    pub(super) fn reserve(&mut self, run: RunId) -> Result<(), StoreError> {
        if run < self.reserved {
            return Ok(());
        }
        let reserved = RunId(run.0 + RESERVED);
        self.write("next-run", &reserved)?;
        self.reserved = reserved;
        Ok(())
    }

    /// What is held.
    ///
    /// # Errors
    ///
    /// When the file cannot be read or is not ours.
    pub(super) fn holds(&self) -> Result<Holds, StoreError> {
        Ok(self.read("holds.json")?.unwrap_or_default())
    }

    /// Remembers these holds, as a deed for another thread.
    pub(super) fn holds_writer(
        &self,
        holds: &Holds,
    ) -> impl FnOnce() -> Result<(), FileError> + Send + use<> {
        let path = self.dir.join("holds.json");
        // Names, which can be written.
        let bytes = serde_json::to_vec(holds).unwrap_or_default();
        move || {
            files::replace_durably(&path, &bytes, 0o600)?;
            failpoint::pass("hold.written");
            Ok(())
        }
    }

    /// The sticky ports.
    ///
    /// # Errors
    ///
    /// When the file cannot be read or is not ours.
    pub(super) fn ports(&self) -> Result<Ports, StoreError> {
        Ok(self.read("ports.json")?.unwrap_or_default())
    }

    /// Who has which uid of the reserved range.
    ///
    /// # Errors
    ///
    /// When the file cannot be read or is not ours.
    pub(super) fn uids(&self) -> Result<Uids, StoreError> {
        Ok(self.read("uids.json")?.unwrap_or_default())
    }

    /// Makes sure that no later daemon gives this uid to another, unless that is so already.
    ///
    /// # Errors
    ///
    /// When the state directory cannot be written; nothing must be run under the uid then.
    pub(super) fn keep_uid(&self, uid: u32, uids: &mut Uids) -> Result<(), StoreError> {
        if !uids.is_kept(uid) {
            self.write("uids.json", uids)?;
            uids.kept();
        }
        Ok(())
    }

    /// Remembers the ports, as a deed for another thread: a disk may take its time.
    pub(super) fn ports_writer(
        &self,
        ports: &Ports,
    ) -> impl FnOnce() -> Result<(), FileError> + Send + use<> {
        let path = self.dir.join("ports.json");
        // It is a map of names to numbers; there is nothing in it that could not be written.
        let bytes = serde_json::to_vec(ports).unwrap_or_default();
        move || {
            failpoint::pass("ports.saving");
            let done = files::replace_durably(&path, &bytes, 0o600);
            failpoint::pass("ports.saved");
            done
        }
    }

    /// The key of the spec digests, made on first use.
    ///
    /// # Errors
    ///
    /// When the state directory cannot be written, or the kernel gives no random bytes.
    pub(super) fn key(&self) -> Result<[u8; 32], StoreError> {
        if let Some(key) = self.read("key")? {
            return Ok(key);
        }
        let key = crate::system::random::key()
            .map_err(|source| StoreError::Odd { path: "/dev/urandom".into(), source })?;
        self.write("key", &key)?;
        Ok(key)
    }

    fn read<T: serde::de::DeserializeOwned>(&self, name: &str) -> Result<Option<T>, StoreError> {
        let path = self.dir.join(name);
        match files::read_bounded(&path, files::LARGEST) {
            Ok(bytes) => match serde_json::from_slice(&bytes) {
                Ok(value) => Ok(Some(value)),
                Err(error) => Err(StoreError::Odd { path, source: error.into() }),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn write<T: serde::Serialize>(&self, name: &str, value: &T) -> Result<(), StoreError> {
        let path = self.dir.join(name);
        let bytes = serde_json::to_vec(value)
            .map_err(|error| StoreError::Odd { path: path.clone(), source: error.into() })?;
        Ok(files::replace_durably(&path, &bytes, 0o600)?)
    }
}

/// What in the state directory the daemon would not begin with, and why: for those who look before they
/// start it.
#[must_use]
pub fn unreadable(dir: &Path) -> Vec<(PathBuf, String)> {
    let store = Store { dir: dir.to_path_buf(), reserved: RunId(1) };
    // The reason may quote what stands there, which is nobody's business of the key.
    let key = store.read::<[u8; 32]>("key").err().map(|_| "it is no key".to_owned());
    let all = [
        ("next-run", store.read::<RunId>("next-run").err().map(|error| why(&error))),
        ("holds.json", store.holds().err().map(|error| why(&error))),
        ("ports.json", store.ports().err().map(|error| why(&error))),
        ("uids.json", store.uids().err().map(|error| why(&error))),
        ("key", key),
    ];
    all.into_iter().filter_map(|(name, why)| Some((dir.join(name), why?))).collect()
}

/// The cause alone: the file is named beside it.
fn why(error: &StoreError) -> String {
    std::error::Error::source(error).map_or_else(|| error.to_string(), chain)
}

/// An error with its causes on one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.downcast_ref::<io::Error>().map_or_else(|| error.to_string(), plain);
        text = format!("{text}: {said}");
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_stopped_is_known_whichever_daemon_wrote_it_down() {
        let read = |text: &str| serde_json::from_str::<Holds>(text).unwrap();
        let alice = InstanceId::new("alice".parse().unwrap(), "notes".parse().unwrap());
        let all = BTreeSet::from([alice.clone()]);
        let before = serde_json::to_string(&all).unwrap();
        assert_eq!(read(&before), Holds { all: all.clone(), taken_back: BTreeSet::new() });
        let now = Holds { taken_back: all.clone(), all };
        assert_eq!(read(&serde_json::to_string(&now).unwrap()), now);
    }
}
