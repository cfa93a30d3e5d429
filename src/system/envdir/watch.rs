//! When to look at env.d: what inotify tells, gathered into hints.
//!
//! An event is never believed, only taken as a reason to look. What it does say is whether the
//! look can be quick: a file closed after writing, or renamed into place, is complete; one that is
//! being written is given 100 ms of rest. Lost events, other hosts' changes and links out of the
//! directory are found by the caller's look once a minute.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use notify::event::{AccessKind, AccessMode, ModifyKind, RenameMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::Notify;

use crate::model::Moment;
use crate::system::clock;

/// Several files are often put in place together: this much is gathered before a quick look,
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
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hint {
    /// Names of files that were closed after writing or renamed into place, and not touched since.
    pub complete: BTreeSet<OsString>,
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
        let mut pending = self.shared.pending();
        pending.quick = None;
        pending.unrest = None;
        Hint { complete: std::mem::take(&mut pending.complete) }
    }

    /// When the next hint is due, as far as is known.
    fn due(&self) -> Option<Moment> {
        let follows = self.last_hint.is_some_and(|last| clock::now().since(last) < FOLLOWS);
        self.shared.pending().due(if follows { GATHER_MORE } else { GATHER })
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

    /// Called on notify's thread: notes and returns at once.
    fn hear(&self, event: notify::Result<Event>, dir: &Path, now: Moment) {
        let nearer = {
            let mut pending = self.pending();
            let before = pending.due(GATHER);
            match event {
                Ok(event) => pending.note(&event, dir, now),
                Err(_) => pending.unrest(now),
            }
            match (before, pending.due(GATHER)) {
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

    fn quick(&mut self, now: Moment) {
        self.quick.get_or_insert(now);
    }

    fn due(&self, gather: Duration) -> Option<Moment> {
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
                self.complete(name, now);
            }
            EventKind::Modify(ModifyKind::Name(_)) | EventKind::Remove(_) => self.quick(now),
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

    fn complete(&mut self, name: Option<&std::ffi::OsStr>, now: Moment) {
        if let Some(name) = name
            && self.complete.len() < MOST_NAMES
        {
            self.complete.insert(name.to_owned());
        }
        self.quick(now);
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
        pending.due(GATHER).map(|due| due.since(now))
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

    #[test]
    fn a_file_being_written_is_given_rest_but_not_for_ever() {
        let data = EventKind::Modify(ModifyKind::Data(DataChange::Any));
        let event = Event::new(data).add_path("/e/alice.env".into());
        let mut pending = Pending::default();
        let start = Moment::from_boot(Duration::from_secs(1));
        for step in 0..30 {
            pending.note(&event, Path::new("/e"), start + Duration::from_millis(90) * step);
        }
        assert_eq!(pending.due(GATHER), Some(start + CAP));
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
        assert_eq!(pending.due(GATHER), Some(now + GATHER));
    }
}
