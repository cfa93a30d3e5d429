//! env.d: one look at it, and the watch that says when to look.
//!
//! A look is the truth: the directory is read whole, and a file's contents again only where its
//! stamp changed. The hints of [`watch`](mod@watch) only say that a look may be worth it. What the
//! bytes mean is `logic::envfile`'s business, what follows from a missing file `logic::roster`'s.

mod file;
mod names;
mod open;
#[cfg(test)]
mod tests;
pub mod watch;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::{Mode, fstat};

use crate::model::file::{FileState, Look};
use crate::model::{Moment, Problem, UserName};
use crate::system::cause::plain;
use crate::system::{account, clock};

use file::{Again, Known, One};
use names::Meaning;
pub use names::names_of;

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
    pub fn look(
        &mut self,
        now: Moment,
        complete: Complete<'_>,
        account_uid: &dyn Fn(&UserName) -> Option<u32>,
    ) -> Look {
        match self.list() {
            Ok((dir, listing)) => self.look_at(&dir, listing, now, complete, account_uid),
            Err(text) => {
                for known in self.known.values_mut() {
                    known.missing_since = None;
                }
                Look {
                    directory: Err(Problem::new(self.path.to_string_lossy(), text)),
                    files: self.known.keys().map(|user| (user.clone(), FileState::Unchanged)).collect(),
                    ignored: Vec::new(),
                    again_at: None,
                }
            }
        }
    }

    fn look_at(
        &mut self,
        dir: &Dir,
        listing: Listing,
        now: Moment,
        complete: Complete<'_>,
        account_uid: &dyn Fn(&UserName) -> Option<u32>,
    ) -> Look {
        let mut look =
            Look { directory: Ok(()), files: BTreeMap::new(), ignored: listing.ignored, again_at: None };
        let mut again = Again(None);
        let wall = clock::timestamp(now).as_nanosecond();
        let mut known = std::mem::take(&mut self.known);
        let mut seen = Vec::with_capacity(listing.files.len());
        for (user, names) in listing.files {
            let mut entry = known.remove(&user).unwrap_or_default();
            let name = match &*names {
                [name] => name,
                both => {
                    entry = Known::default();
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
            if !entry.handed || since + GRACE <= now {
                continue;
            }
            again.at(since + GRACE);
            look.files.insert(user.clone(), FileState::Unchanged);
            seen.push((user, entry));
        }
        // Made in one go: a map that is filled one by one in ascending order stays half empty.
        self.known = seen.into_iter().collect();
        look.again_at = again.0;
        look
    }

    fn two_files(&self, names: &[String]) -> Problem {
        let shown = |name: &String| format!("{}/{name}", self.shown);
        let all: Vec<_> = names.iter().map(shown).collect();
        Problem::new(
            all.first().cloned().unwrap_or_default(),
            format!("two files for one user: {}; keep one of them", all.join(" and ")),
        )
    }

    /// The open directory and the names in it, if they can be trusted to be the administrator's.
    fn list(&self) -> Result<(Dir, Listing), String> {
        let cannot = |errno: Errno| format!("cannot be read: {}", plain(&errno.into()));
        let (us, path) = (account::own_uid(), shell_word(&self.path));
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let mut dir = match Dir::open(&self.path, flags, Mode::empty()) {
            Ok(dir) => dir,
            Err(Errno::ENOENT) => return Err(format!("is not there; mkdir -m 700 {path}")),
            Err(errno) => return Err(cannot(errno)),
        };
        let stat = fstat(&dir).map_err(cannot)?;
        if stat.st_uid != 0 && stat.st_uid != us {
            return Err(format!(
                "belongs to uid {}, who is neither root nor the daemon; chown root {path}",
                stat.st_uid
            ));
        }
        let mode = stat.st_mode & 0o7777;
        let by_others = mode & 0o002 != 0 || (mode & 0o020 != 0 && us == 0 && stat.st_gid != 0);
        // In a sticky directory others can add files of their own, which are refused, but not
        // swap anybody's.
        if by_others && mode & 0o1000 == 0 {
            return Err(format!("others may put files there (mode {mode:04o}); chmod go-w {path}"));
        }
        let mut listing = Listing::default();
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
}

/// A path as a shell takes it.
fn shell_word(path: &Path) -> String {
    let path = path.to_string_lossy();
    if path.bytes().all(|b| b.is_ascii_alphanumeric() || b"/._-+@:,=".contains(&b)) {
        path.into_owned()
    } else {
        format!("'{}'", path.replace('\'', r"'\''"))
    }
}
