//! One user's file from look to look: when it is read, and when it is left for the next one.

use std::path::Path;
use std::time::Duration;

use nix::dir::Dir;

use crate::model::file::{EnvFile, FileState, Seal};
use crate::model::{Moment, Problem, UserName};
use crate::system::trust::shell_word;

use super::open::{self, NotRead, Rules, Stamp};
use super::{AccountUid, Complete};

/// A file that changed less than this ago, and that nobody said was complete, may be half-written.
pub(super) const SETTLES_IN: Duration = Duration::from_millis(100);

/// One user's file as it was at the last look.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// The stamp of what was handed over last; `None`: nothing yet, or it was refused.
    stamp: Option<Stamp>,
    /// A newer stamp, and when it may be read if it stays.
    // Boxed, as few files are written at any time.
    settling: Option<Box<(Stamp, Moment)>>,
    /// It was read so soon after a change that a second one may bear the same time: read it once
    /// more then. (File times advance in steps of up to 10 ms.)
    verify_at: Option<Moment>,
    pub(super) missing_since: Option<Moment>,
    /// There are two files for one user since then.
    pub(super) two_since: Option<Moment>,
    /// Something of it was handed over, so it can be missed.
    pub(super) handed: bool,
}

/// The earliest moment that somebody asked for.
pub(super) struct Again(pub(super) Option<Moment>);

impl Again {
    pub(super) fn at(&mut self, when: Moment) {
        self.0 = Some(self.0.map_or(when, |earlier| earlier.min(when)));
    }
}

/// One file in one look.
pub(super) struct One<'a> {
    pub(super) dir: &'a Dir,
    pub(super) name: &'a String,
    pub(super) user: &'a UserName,
    pub(super) now: Moment,
    /// The wall clock in nanoseconds, to be compared with file times.
    pub(super) wall: i128,
    pub(super) complete: Complete<'a>,
    /// The directory's path, and its name in messages.
    pub(super) path: &'a Path,
    pub(super) shown: &'a str,
    /// A user's own uid on this host.
    pub(super) account_uid: AccountUid<'a>,
}

impl One<'_> {
    fn is_fresh(&self, time: i128) -> bool {
        self.wall - time < i128::try_from(SETTLES_IN.as_nanos()).unwrap_or(i128::MAX)
    }

    fn is_complete(&self) -> bool {
        match self.complete {
            Complete::All => true,
            Complete::Named(names) => names.contains(std::ffi::OsStr::new(self.name)),
        }
    }
}

impl Known {
    /// What became of the file; `None` if its name leads nowhere.
    pub(super) fn look(&mut self, one: &One<'_>, again: &mut Again) -> Option<FileState> {
        let problem =
            |text: String| FileState::Refused(Problem::new(format!("{}/{}", one.shown, one.name), text));
        let stamp = match open::stamp(one.dir, one.path, one.name) {
            Ok(stamp) => stamp,
            Err(NotRead::Gone) => return None,
            Err(NotRead::Changing) => {
                again.at(one.now + SETTLES_IN);
                return Some(FileState::Unchanged);
            }
            Err(NotRead::Refused(text)) => {
                self.stamp = None;
                return Some(problem(text));
            }
        };
        self.missing_since = None;
        self.two_since = None;
        let known_already = self.stamp == Some(stamp);
        if known_already {
            self.settling = None;
            match self.verify_at {
                Some(at) if at <= one.now => {}
                Some(at) => {
                    again.at(at);
                    return Some(FileState::Unchanged);
                }
                None => return Some(FileState::Unchanged),
            }
        } else if one.is_fresh(stamp.modified.nanoseconds()) && !one.is_complete() {
            let ready = match self.settling.as_deref() {
                Some((seen, ready)) if *seen == stamp => *ready,
                Some(_) | None => one.now + SETTLES_IN,
            };
            if one.now < ready {
                self.settling = Some(Box::new((stamp, ready)));
                again.at(ready);
                return Some(FileState::Unchanged);
            }
        }
        let whole = shell_word(&one.path.join(one.name));
        let account = || (one.account_uid)(one.user);
        let rules =
            Rules { account: &account, user: one.user.as_str(), path: &whole, seal: Seal::of(one.name) };
        match open::read(one.dir, one.path, one.name, &rules) {
            Ok((bytes, owner_uid, stamp)) => {
                self.settling = None;
                let once_more = !known_already && one.is_fresh(stamp.changed.nanoseconds());
                self.verify_at = once_more.then(|| one.now + SETTLES_IN);
                if let Some(at) = self.verify_at {
                    again.at(at);
                }
                self.stamp = Some(stamp);
                let file = EnvFile { name: format!("{}/{}", one.shown, one.name), bytes, owner_uid };
                Some(match Seal::of(one.name) {
                    Some(seal) => FileState::Sealed(file, seal),
                    None => FileState::Read(file),
                })
            }
            Err(NotRead::Gone) => None,
            Err(NotRead::Changing) => {
                again.at(one.now + SETTLES_IN);
                Some(FileState::Unchanged)
            }
            Err(NotRead::Refused(text)) => {
                self.stamp = None;
                self.settling = None;
                Some(problem(text))
            }
        }
    }
}
