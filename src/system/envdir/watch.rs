//! When to look at env.d: what inotify tells, gathered into hints.
//!
//! An event is never believed, only taken as a reason to look. What it does say is whether the
//! look can be quick: a file closed after writing, or renamed into place, is complete; one that is
//! being written is given 100 ms of rest. And whose file to look at first, before a whole look that
//! finds whatever else there is. Lost events, other hosts' changes and links out of the directory
//! are found by the caller's look once a minute.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use notify::event::{AccessKind, AccessMode, ModifyKind, RenameMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::Notify;

use crate::model::{Moment, UserName, Whom};
use crate::system::clock;

use super::names::{self, Meaning};

/// Several files are often put in place together: this much is gathered before a quick look at all
/// of them (none before a look at the one that is named),
const GATHER: Duration = Duration::from_micros(300);
/// and this much while one look follows another, so that looking does not become the work.
const GATHER_MORE: Duration = Duration::from_millis(20);
/// A look this recent counts as following.
const FOLLOWS: Duration = Duration::from_millis(50);
/// How long nothing may happen before what is being written is looked at,
const QUIET: Duration = Duration::from_millis(100);
/// and how long that can be put off.
const CAP: Duration = Duration::from_secs(1);
/// How many complete files are remembered for one look; those beyond wait for their rest.
const MOST_NAMES: usize = 4096;

/// A reason to look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hint {
    /// Names of files that were closed after writing or renamed into place, and not touched since.
    pub complete: BTreeSet<OsString>,
    /// Whose files to look at. Where it is some users', a whole look must follow within a tenth of
    /// a second: what else happened meanwhile is not told again.
    pub whom: Whom,
}

impl Default for Hint {
    fn default() -> Self {
        Self { complete: BTreeSet::new(), whom: Whom::All }
    }
}

/// The watch over env.d and the directory it is in.
#[derive(Debug)]
pub struct Watcher {
    dir: PathBuf,
    shared: Arc<Shared>,
    inotify: Option<RecommendedWatcher>,
    /// What is watched now, by device and inode: env.d, and the directory it is in.
    watched: [Option<(u64, u64)>; 2],
    problem: Option<String>,
    last_hint: Option<Moment>,
}

#[derive(Debug, Default)]
struct Shared {
    pending: Mutex<Pending>,
    woken: Notify,
}

/// What happened since the last hint.
#[derive(Debug, Default)]
struct Pending {
    /// The first event that allows a quick look.
    quick: Option<Moment>,
    /// Whose files such events were about.
    users: BTreeSet<UserName>,
    /// Something happened that is not about one user's file.
    whole: bool,
    /// The first and the newest event that asks for rest.
    unrest: Option<(Moment, Moment)>,
    complete: BTreeSet<OsString>,
    /// A watched directory was itself renamed or removed.
    moved: bool,
}

/// Watches `dir`, whether or not it is there yet.
#[must_use]
pub fn watch(dir: &Path) -> Watcher {
    let dir = std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned());
    let shared = Arc::new(Shared::default());
    let (for_handler, seen_dir) = (Arc::clone(&shared), dir.clone());
    let handler = move |event: notify::Result<Event>| for_handler.hear(event, &seen_dir, clock::now());
    let (inotify, problem) = match notify::recommended_watcher(handler) {
        Ok(inotify) => (Some(inotify), None),
        Err(failed) => (None, Some(unwatched(&dir, &failed))),
    };
    let mut watcher = Watcher { dir, shared, inotify, watched: [None; 2], problem, last_hint: None };
    watcher.refresh();
    watcher
}

fn unwatched(path: &Path, failed: &notify::Error) -> String {
    format!("cannot watch {}: {failed}; changes are found within a minute", path.display())
}

impl Watcher {
    /// The next reason to look. May be dropped and called again at any time; nothing is lost.
    pub async fn next(&mut self) -> Hint {
        loop {
            // The wait ends at the deadline that is known, or when an event brings a nearer one.
            let nearer = self.shared.woken.notified();
            match self.due() {
                None => nearer.await,
                Some(due) => match due.since(clock::now()) {
                    Duration::ZERO => break,
                    wait => drop(tokio::time::timeout(wait, nearer).await),
                },
            }
        }
        self.last_hint = Some(clock::now());
        // First the watch, then the look: what happens in between is heard or seen.
        self.refresh();
        self.shared.hint()
    }

    /// When the next hint is due, as far as is known.
    fn due(&self) -> Option<Moment> {
        let follows = self.last_hint.is_some_and(|last| clock::now().since(last) < FOLLOWS);
        self.shared.pending().due(follows)
    }

    /// Watches what is at the path now, if that is not what is watched. [`next`](Self::next) does
    /// it by itself; call it before the look once a minute.
    pub fn refresh(&mut self) {
        let Some(inotify) = &mut self.inotify else {
            return;
        };
        let moved = std::mem::take(&mut self.shared.pending().moved);
        self.problem = None;
        let paths = [Some(&*self.dir), self.dir.parent()];
        for (path, watched) in paths.into_iter().zip(&mut self.watched) {
            let Some(path) = path else { continue };
            let is = std::fs::metadata(path).ok().filter(std::fs::Metadata::is_dir);
            let is = is.map(|is| (is.dev(), is.ino()));
            if is == *watched && !moved {
                continue;
            }
            if watched.take().is_some() {
                // It may have dropped the watch itself when the directory went away.
                inotify.unwatch(path).unwrap_or_default();
            }
            if is.is_some() {
                match inotify.watch(path, RecursiveMode::NonRecursive) {
                    Ok(()) => *watched = is,
                    Err(failed) => self.problem = Some(unwatched(path, &failed)),
                }
            }
        }
    }

    /// Why changes are not heard at once, for people; `None` while they are.
    #[must_use]
    pub fn problem(&self) -> Option<&str> {
        self.problem.as_deref()
    }
}

impl Shared {
    fn pending(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What happened since the last one.
    fn hint(&self) -> Hint {
        let mut pending = self.pending();
        let was_quick = pending.quick.take().is_some();
        pending.unrest = None;
        let users = std::mem::take(&mut pending.users);
        let is_whole = std::mem::take(&mut pending.whole) || !was_quick;
        let whom = if is_whole { Whom::All } else { Whom::Users(users) };
        Hint { complete: std::mem::take(&mut pending.complete), whom }
    }

    /// Called on notify's thread: notes and returns at once.
    fn hear(&self, event: notify::Result<Event>, dir: &Path, now: Moment) {
        let nearer = {
            let mut pending = self.pending();
            let before = pending.due(false);
            match event {
                Ok(event) => pending.note(&event, dir, now),
                Err(_) => pending.unrest(now),
            }
            match (before, pending.due(false)) {
                (None, Some(_)) => true,
                (Some(before), Some(after)) => after < before,
                (Some(_) | None, None) => false,
            }
        };
        if nearer {
            self.woken.notify_one();
        }
    }
}

impl Pending {
    fn unrest(&mut self, now: Moment) {
        let first = self.unrest.map_or(now, |(first, _)| first);
        self.unrest = Some((first, now));
    }

    /// Everything is looked at.
    fn quick(&mut self, now: Moment) {
        self.quick.get_or_insert(now);
        self.whole = true;
    }

    /// The file of this name is looked at; one that is nobody's is no reason to hurry.
    fn quick_at(&mut self, name: Option<&OsStr>, now: Moment) {
        match name.and_then(OsStr::to_str).map(names::meaning) {
            Some(Meaning::File(user)) if self.users.len() < MOST_NAMES => {
                self.users.insert(user);
                self.quick.get_or_insert(now);
            }
            Some(Meaning::File(_)) | None => self.quick(now),
            Some(Meaning::Ignored(_) | Meaning::Silent) => self.unrest(now),
        }
    }

    fn due(&self, follows: bool) -> Option<Moment> {
        let gather = match (follows, self.whole) {
            (true, _) => GATHER_MORE,
            (false, true) => GATHER,
            (false, false) => Duration::ZERO,
        };
        let quick = self.quick.map(|first| first + gather);
        let rested = self.unrest.map(|(first, newest)| (newest + QUIET).min(first + CAP));
        quick.into_iter().chain(rested).min()
    }

    fn note(&mut self, event: &Event, dir: &Path, now: Moment) {
        if event.need_rescan() {
            self.moved = true;
            return self.quick(now);
        }
        let is_root = |path: &&PathBuf| *path == dir || Some(&***path) == dir.parent();
        let in_dir = |path: &&PathBuf| path.parent() == Some(dir);
        let root = event.paths.iter().any(|path| is_root(&path));
        if !root && !event.paths.iter().any(|path| in_dir(&path)) {
            return;
        }
        let name = event.paths.last().filter(in_dir).and_then(|path| path.file_name());
        match event.kind {
            EventKind::Access(AccessKind::Close(AccessMode::Write)) => self.complete(name, now),
            // Our own reading, among others: to look because of it would never end.
            EventKind::Access(_) => {}
            EventKind::Create(_) | EventKind::Remove(_) | EventKind::Modify(ModifyKind::Name(_)) if root => {
                self.moved = true;
                self.quick(now);
            }
            EventKind::Modify(ModifyKind::Name(RenameMode::To | RenameMode::Both)) => {
                let name_means = name.and_then(OsStr::to_str).map(names::meaning);
                // `..data` was swapped, say: users' files may be links that lead through it.
                if name_means == Some(Meaning::Silent) {
                    self.quick(now);
                }
                self.complete(name, now);
            }
            EventKind::Modify(ModifyKind::Name(_)) | EventKind::Remove(_) => self.quick_at(name, now),
            EventKind::Create(_) | EventKind::Modify(_) | EventKind::Any | EventKind::Other => {
                if let (Some(name), false) =
                    (name, matches!(event.kind, EventKind::Modify(ModifyKind::Metadata(_))))
                {
                    self.complete.remove(name);
                }
                self.unrest(now);
            }
        }
    }

    fn complete(&mut self, name: Option<&OsStr>, now: Moment) {
        if let Some(name) = name
            && self.complete.len() < MOST_NAMES
        {
            self.complete.insert(name.to_owned());
        }
        self.quick_at(name, now);
    }
}

#[cfg(test)]
mod tests {
    use notify::event::{CreateKind, DataChange};

    use super::*;

    fn due_after(kind: EventKind, path: &str) -> Option<Duration> {
        let now = Moment::from_boot(Duration::from_secs(1));
        let mut pending = Pending::default();
        pending.note(&Event::new(kind).add_path(path.into()), Path::new("/etc/mcpsup/env.d"), now);
        pending.due(false).map(|due| due.since(now))
    }

    #[test]
    fn looking_is_no_reason_to_look() {
        for mode in [AccessMode::Any, AccessMode::Read] {
            for path in ["/etc/mcpsup/env.d", "/etc/mcpsup/env.d/alice.env"] {
                assert_eq!(due_after(EventKind::Access(AccessKind::Open(mode)), path), None);
                assert_eq!(due_after(EventKind::Access(AccessKind::Close(mode)), path), None);
            }
        }
    }

    #[test]
    fn neighbours_of_the_directory_are_no_reason_to_look() {
        let written = EventKind::Access(AccessKind::Close(AccessMode::Write));
        assert_eq!(due_after(written, "/etc/mcpsup/mcpsup.toml"), None);
        assert_eq!(due_after(EventKind::Create(CreateKind::Folder), "/etc/mcpsup/env.d"), Some(GATHER));
    }

    /// The hint that these events lead to, if it is due at once.
    fn told(events: &[(EventKind, &str)]) -> Option<Whom> {
        let (watcher, now) = (Shared::default(), Moment::from_boot(Duration::from_secs(1)));
        for (kind, path) in events {
            watcher.pending().note(&Event::new(*kind).add_path(path.into()), Path::new("/e"), now);
        }
        let due = watcher.pending().due(false)?;
        (due.since(now) < QUIET).then(|| watcher.hint().whom)
    }

    #[test]
    fn events_about_users_files_say_whose_and_any_other_says_everybody() {
        use notify::event::RemoveKind;
        let some =
            |names: &[&str]| Some(Whom::Users(names.iter().map(|name| name.parse().unwrap()).collect()));
        let moved = |mode| EventKind::Modify(ModifyKind::Name(mode));
        let (from, to) = (moved(RenameMode::From), moved(RenameMode::To));
        let written = EventKind::Access(AccessKind::Close(AccessMode::Write));
        let removed = EventKind::Remove(RemoveKind::File);

        assert_eq!(told(&[(written, "/e/alice.env"), (to, "/e/.env.bob")]), some(&["alice", "bob"]));
        assert_eq!(told(&[(from, "/e/alice.env"), (removed, "/e/bob.env")]), some(&["alice", "bob"]));
        // An editor's copy, and ours, put into place.
        assert_eq!(
            told(&[(from, "/e/4913"), (from, "/e/..alice.env.7.0.tmp"), (to, "/e/alice.env")]),
            some(&["alice"])
        );
        assert_eq!(told(&[(written, "/e/README"), (removed, "/e/.alice.env.swp")]), None);
        // A volume of Kubernetes is swapped; the directory itself moves; events were lost.
        assert_eq!(told(&[(to, "/e/alice.env"), (to, "/e/..data")]), Some(Whom::All));
        assert_eq!(told(&[(to, "/e/alice.env"), (from, "/e")]), Some(Whom::All));
        assert_eq!(told(&[(to, "/e/alice.env"), (removed, "/e")]), Some(Whom::All));
    }

    #[test]
    fn a_file_being_written_is_given_rest_but_not_for_ever() {
        let data = EventKind::Modify(ModifyKind::Data(DataChange::Any));
        let event = Event::new(data).add_path("/e/alice.env".into());
        let mut pending = Pending::default();
        let start = Moment::from_boot(Duration::from_secs(1));
        for step in 0..30 {
            pending.note(&event, Path::new("/e"), start + Duration::from_millis(90) * step);
        }
        assert_eq!(pending.due(false), Some(start + CAP));
    }

    #[test]
    fn a_file_written_again_is_no_longer_complete() {
        let now = Moment::default();
        let mut pending = Pending::default();
        let written = EventKind::Access(AccessKind::Close(AccessMode::Write));
        let data = EventKind::Modify(ModifyKind::Data(DataChange::Any));
        for kind in [written, data] {
            pending.note(&Event::new(kind).add_path("/e/alice.env".into()), Path::new("/e"), now);
        }
        assert!(pending.complete.is_empty());
        pending.note(
            &Event::new(EventKind::Other).set_flag(notify::event::Flag::Rescan),
            Path::new("/e"),
            now,
        );
        assert_eq!(pending.due(false), Some(now + GATHER));
    }
}
