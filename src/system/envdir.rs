//! env.d: one look at it, and the watch that says when to look.
//!
//! A look is the truth: the directory is read whole, and a file's contents again only where its
//! stamp changed. The hints of [`watch`](mod@watch) only say that a look may be worth it, and
//! whose files to look at first where that is known. What the bytes mean is `logic::envfile`'s
//! business, what follows from a missing file `logic::roster`'s.

mod file;
mod names;
mod open;
pub mod rewrite;
#[cfg(test)]
mod tests;
pub mod watch;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag};
use nix::sys::stat::{Mode, fstat, fstatat};

use crate::model::file::{FileState, Look};
use crate::model::{Moment, Problem, UserName};
use crate::system::cause::plain;
use crate::system::clock;
use crate::system::trust::{self, Distrust};

use file::{Again, Known, One};
use names::Meaning;
pub use names::{names_of, sealed_name, user_of};

/// How long a file may be missing before it is gone: vim and others rename it away for a moment.
const GRACE: Duration = Duration::from_millis(500);

/// More entries than this are a mistake, and reading them all would be one too.
const MOST_ENTRIES: usize = 65_536;

/// Which files are known to have been written to their end.
#[derive(Debug, Clone, Copy)]
pub enum Complete<'a> {
    /// These, by name ([`watch::Hint::complete`]).
    Named(&'a BTreeSet<OsString>),
    /// All: for a command that looks once and does not come back.
    All,
}

/// A user's own uid on this host, or why that cannot be found out.
pub type AccountUid<'a> = &'a dyn Fn(&UserName) -> Result<Option<u32>, String>;

/// The directory as it was at the last look.
#[derive(Debug)]
pub struct EnvDir {
    path: PathBuf,
    shown: String,
    known: BTreeMap<UserName, Known>,
}

impl EnvDir {
    /// A directory that has not been looked at yet.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        let shown =
            path.file_name().map_or_else(|| "env.d".into(), |name| name.to_string_lossy().into_owned());
        Self { path: path.to_owned(), shown, known: BTreeMap::new() }
    }

    /// The name of the user's file, if one is there at this moment, readable or not.
    #[must_use]
    pub fn file_of(&self, user: &UserName) -> Option<String> {
        names_of(user).into_iter().find(|name| self.path.join(name).symlink_metadata().is_ok())
    }

    /// Reads the directory whole, and every file that is new or changed.
    ///
    /// `account_uid` tells a user's own uid on this host, who may own their file. A file that is
    /// being written keeps its last state until it rests for 100 ms or `complete` names it; a
    /// vanished one for 500 ms.
    pub fn look(&mut self, now: Moment, complete: Complete<'_>, account_uid: AccountUid<'_>) -> Look {
        match self.list() {
            Ok((dir, listing)) => {
                let known = std::mem::take(&mut self.known);
                let (look, seen) = self.compare(&dir, listing, known, now, complete, account_uid);
                // Made in one go: a map that is filled one by one in ascending order stays half empty.
                self.known = seen.into_iter().collect();
                look
            }
            Err(text) => self.unknown(text),
        }
    }

    /// Looks at the files of these users only, in both spellings: as [`look`](Self::look) finds them.
    ///
    /// What else happened is not seen, so a whole look must follow soon; that one also decides when
    /// a missing file is gone.
    pub fn look_at(
        &mut self,
        users: &BTreeSet<UserName>,
        now: Moment,
        complete: Complete<'_>,
        account_uid: AccountUid<'_>,
    ) -> Look {
        match self.list_of(users) {
            Ok((dir, listing)) => {
                let known = users.iter().filter_map(|user| self.known.remove_entry(user)).collect();
                let (look, seen) = self.compare(&dir, listing, known, now, complete, account_uid);
                self.known.extend(seen);
                look
            }
            Err(text) => self.unknown(text),
        }
    }

    /// Nothing is known of any file.
    fn unknown(&mut self, text: String) -> Look {
        for known in self.known.values_mut() {
            known.missing_since = None;
        }
        Look {
            directory: Err(Problem::new(self.path.to_string_lossy(), text)),
            whole: true,
            files: self.known.keys().map(|user| (user.clone(), FileState::Unchanged)).collect(),
            ignored: Vec::new(),
            again_at: None,
        }
    }

    /// What `listing` says, seen beside what was known of the same users; and what is known now.
    fn compare(
        &self,
        dir: &Dir,
        listing: Listing,
        mut known: BTreeMap<UserName, Known>,
        now: Moment,
        complete: Complete<'_>,
        account_uid: AccountUid<'_>,
    ) -> (Look, Vec<(UserName, Known)>) {
        let Listing { files, ignored, whole } = listing;
        let mut look = Look { directory: Ok(()), whole, files: BTreeMap::new(), ignored, again_at: None };
        let mut again = Again(None);
        let wall = clock::timestamp(now).as_nanosecond();
        let mut seen = Vec::with_capacity(files.len());
        for (user, names) in files {
            // By the name that is there already: everybody else's tables hold the same.
            let (user, mut entry) = known.remove_entry(&user).unwrap_or_else(|| (user, Known::default()));
            let name = match &*names {
                [name] => name,
                both => {
                    let since = *entry.two_since.get_or_insert(now);
                    // One is put in the place of the other, as `mcpsup seal` does.
                    if entry.handed && now < since + GRACE {
                        again.at(since + GRACE);
                        look.files.insert(user.clone(), FileState::Unchanged);
                        seen.push((user, entry));
                        continue;
                    }
                    entry = Known::default();
                    entry.two_since = Some(since);
                    entry.handed = true;
                    look.files.insert(user.clone(), FileState::Refused(self.two_files(both)));
                    seen.push((user, entry));
                    continue;
                }
            };
            let (path, shown) = (&*self.path, &*self.shown);
            let one = One { dir, name, user: &user, now, wall, complete, path, shown, account_uid };
            let state = entry.look(&one, &mut again);
            if let Some(state) = state {
                entry.handed |= state != FileState::Unchanged;
                look.files.insert(user.clone(), state);
                seen.push((user, entry));
            } else {
                let why = "it is a symbolic link that leads nowhere".to_owned();
                look.ignored.push((name.clone(), why));
                known.insert(user, entry);
            }
        }
        for (user, mut entry) in known {
            let since = *entry.missing_since.get_or_insert(now);
            if !entry.handed || (whole && since + GRACE <= now) {
                continue;
            }
            again.at(since + GRACE);
            look.files.insert(user.clone(), FileState::Unchanged);
            seen.push((user, entry));
        }
        look.again_at = again.0;
        (look, seen)
    }

    fn two_files(&self, names: &[String]) -> Problem {
        let shown = |name: &String| format!("{}/{name}", self.shown);
        let all: Vec<_> = names.iter().map(shown).collect();
        Problem::new(
            all.first().cloned().unwrap_or_default(),
            format!("two files for one user: {}; keep one of them", all.join(" and ")),
        )
    }

    /// The open directory, if what is in it can be trusted to be the administrator's.
    fn open(&self) -> Result<Dir, String> {
        let path = trust::shell_word(&self.path);
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let place = trust::locate(&self.path);
        let opened =
            place.and_then(|at| Ok(Dir::openat(&at.dir, at.name.as_os_str(), flags, Mode::empty())?));
        let dir = match opened {
            Ok(dir) => dir,
            Err(Distrust::Failed(Errno::ENOENT)) => return Err(format!("is not there; mkdir -m 700 {path}")),
            Err(why) => return Err(why.to_string()),
        };
        let stat = fstat(&dir).map_err(cannot)?;
        trust::owned(&stat, &path).map_err(|why| why.to_string())?;
        let mode = stat.st_mode & 0o7777;
        // In a sticky directory others can add files of their own, which are refused, but not
        // swap anybody's.
        if mode & 0o1000 == 0 && trust::others_may_write(&stat) {
            return Err(format!("others may put files there (mode {mode:04o}); chmod go-w {path}"));
        }
        Ok(dir)
    }

    /// The open directory and the names of these users' files in it.
    fn list_of(&self, users: &BTreeSet<UserName>) -> Result<(Dir, Listing), String> {
        let dir = self.open()?;
        let mut listing = Listing::default();
        for user in users {
            let is_theirs = |name: &String| {
                names::meaning(name) == Meaning::File(user.clone())
                    && fstatat(&dir, name.as_str(), AtFlags::AT_SYMLINK_NOFOLLOW) != Err(Errno::ENOENT)
            };
            let there: Vec<String> = names_of(user).into_iter().filter(is_theirs).collect();
            if !there.is_empty() {
                listing.files.insert(user.clone(), there);
            }
        }
        Ok((dir, listing))
    }

    /// The open directory and all names in it.
    fn list(&self) -> Result<(Dir, Listing), String> {
        let mut dir = self.open()?;
        let mut listing = Listing { whole: true, ..Listing::default() };
        for (count, entry) in dir.iter().enumerate() {
            if count >= MOST_ENTRIES {
                return Err(format!("holds more than {MOST_ENTRIES} entries"));
            }
            let entry = entry.map_err(cannot)?;
            let Ok(name) = entry.file_name().to_str() else {
                let name = entry.file_name().to_string_lossy().into_owned();
                listing.ignored.push((name, "its name is not UTF-8".to_owned()));
                continue;
            };
            match names::meaning(name) {
                Meaning::File(user) => listing.files.entry(user).or_default().push(name.to_owned()),
                Meaning::Ignored(why) => listing.ignored.push((name.to_owned(), why.to_owned())),
                Meaning::Silent => {}
            }
        }
        listing.ignored.sort();
        listing.files.values_mut().for_each(|names| names.sort_by(|a, b| b.cmp(a)));
        Ok((dir, listing))
    }
}

#[derive(Debug, Default)]
struct Listing {
    files: BTreeMap<UserName, Vec<String>>,
    ignored: Vec<(String, String)>,
    whole: bool,
}

fn cannot(errno: Errno) -> String {
    format!("cannot be read: {}", plain(&errno.into()))
}
