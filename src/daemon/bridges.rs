//! The bridges of stdio instances, and what of their sessions a next daemon must know.
//!
//! A bridge stands from the moment its instance is known, to a file or to a run that was found, to
//! the moment its door closes. It is made anew only where that makes another run too: who shares
//! the process, which era it speaks, the path it is reached at.
//!
//! `RUNTIME/sessions/USER/SERVER/NAME` is one session, [written](super::recall) when it begins or changes
//! and removed when it ends: 0600 in 0700, because whoever knows a session's id speaks as its client.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::mpsc;

use super::event::Event;
use super::recall::{Batch, Due, Recall, Whose};
use super::saves::Saved;
use crate::door::bridge::{Bridge, Word};
use crate::logic::exchange::{Opened, SessionRecord};
use crate::logic::overlong;
use crate::model::config::{Sessions, Stdio};
use crate::model::{InstanceId, Moment, RunId, SessionName, UserName};
use crate::system::files::{self, FileError};
use crate::system::pipes::{Talk, Wire};
use crate::system::{clock, failpoint};

/// None of our own files here is larger: subscriptions of a session can be 1 MiB, and six times that in JSON.
const LARGEST: usize = 8 << 20;

/// What is known of each session of an instance.
type Known = Vec<(SessionName, SessionRecord)>;

/// Every bridge.
pub(super) struct Bridges {
    dir: PathBuf,
    say: mpsc::UnboundedSender<Word>,
    open: BTreeMap<InstanceId, Open>,
    /// Sessions of an earlier daemon whose bridge does not stand yet.
    left: BTreeMap<InstanceId, Known>,
    recall: Recall,
}

struct Open {
    bridge: Arc<Bridge>,
    stdio: Stdio,
    path: String,
    longest: Arc<AtomicUsize>,
    /// What was said last about why no process will come.
    closed: Option<String>,
}

impl Open {
    /// True if a run of the one is a run of the other.
    fn is_like(&self, stdio: &Stdio, path: &str) -> bool {
        (self.stdio.sessions, self.stdio.era, &*self.path) == (stdio.sessions, stdio.era, path)
    }
}

impl Bridges {
    /// With what an earlier daemon left below `dir`, which is there.
    pub(super) fn new(dir: PathBuf, say: mpsc::UnboundedSender<Word>) -> Self {
        let left = left_behind(&dir).unwrap_or_else(|error| {
            tracing::warn!(%error, "cannot read the sessions that were known");
            BTreeMap::new()
        });
        Self { dir, say, open: BTreeMap::new(), left, recall: Recall::default() }
    }

    /// The bridge of an instance, or of the one that this is a session of.
    pub(super) fn get(&self, id: &InstanceId) -> Option<&Arc<Bridge>> {
        self.at(id).map(|open| &open.bridge)
    }

    fn at(&self, id: &InstanceId) -> Option<&Open> {
        match id.session {
            None => self.open.get(id),
            Some(_) => self.open.get(&id.base()),
        }
    }

    /// How many sessions of an instance there may be, each with a process of its own.
    pub(super) fn max_sessions(&self, id: &InstanceId) -> usize {
        self.at(id).map_or(0, |open| usize::try_from(open.stdio.max_sessions).unwrap_or(usize::MAX).max(1))
    }

    /// How an instance's sessions are kept.
    pub(super) fn sessions(&self, id: &InstanceId) -> Option<Sessions> {
        self.at(id).map(|open| open.stdio.sessions)
    }

    /// The bridge of an instance whose run was found, unless one stands that is not for it. Sessions
    /// with a process of their own that are known come back, too.
    pub(super) fn find(&mut self, id: &InstanceId, stdio: &Stdio, path: &str) -> Known {
        let base = id.base();
        if self.open.contains_key(&base) { Vec::new() } else { self.make(base, stdio, path) }
    }

    /// Has a bridge stand as the configuration says. The sessions that came with it, and whether one
    /// that was for something else is gone, with all its sessions.
    pub(super) fn set(&mut self, id: &InstanceId, stdio: &Stdio, path: &str) -> (Known, bool) {
        if let Some(open) = self.open.get_mut(id)
            && open.is_like(stdio, path)
        {
            if open.stdio != *stdio {
                open.stdio = *stdio;
                open.longest.store(longest(stdio), Ordering::Relaxed);
                open.bridge.configure(*stdio);
            }
            return (Vec::new(), false);
        }
        // What is left of an earlier daemon's sessions is for the first bridge that stands.
        let is_gone = self.open.contains_key(id) && self.drop_one(id);
        (self.make(id.clone(), stdio, path), is_gone)
    }

    fn make(&mut self, base: InstanceId, stdio: &Stdio, path: &str) -> Known {
        let version = env!("CARGO_PKG_VERSION");
        let bridge = Bridge::new(base.clone(), *stdio, path.to_owned(), version, self.say.clone());
        let known = self.left.remove(&base).unwrap_or_default();
        for (name, record) in &known {
            bridge.restore(*name, record.clone());
        }
        let longest = Arc::new(AtomicUsize::new(longest(stdio)));
        let open = Open { bridge, stdio: *stdio, path: path.to_owned(), longest, closed: None };
        self.open.insert(base, open);
        known
    }

    /// Drops the bridge of an instance, and forgets its sessions. True if there was one.
    pub(super) fn drop_one(&mut self, id: &InstanceId) -> bool {
        let is_gone = self.open.remove(id).is_some();
        if is_gone || self.left.remove(id).is_some() {
            self.recall.clear(self.place(id), |known| known == id);
        }
        is_gone
    }

    /// Those of users who were removed.
    pub(super) fn drop_user(&mut self, user: &UserName) {
        self.open.retain(|id, _| id.user != *user);
        self.left.retain(|id, _| id.user != *user);
        self.recall.clear(self.dir.join(user.as_str()), |id| id.user == *user);
    }

    /// Tells a bridge why no process will come by itself, if so.
    pub(super) fn close(&mut self, id: &InstanceId, why: Option<&str>) {
        if let Some(open) = self.open.get_mut(id)
            && open.closed.as_deref() != why
        {
            open.closed = why.map(str::to_owned);
            open.bridge.close(open.closed.clone());
        }
    }

    /// Who speaks with a run of this slot. `opened`: an earlier daemon had opened it.
    pub(super) fn partner(
        &self,
        id: &InstanceId,
        run: RunId,
        opened: Option<Opened>,
    ) -> Option<Arc<Partner>> {
        let open = self.at(id)?;
        Some(Arc::new(Partner {
            bridge: Arc::clone(&open.bridge),
            slot: id.session,
            run,
            opened: Mutex::new(opened),
            longest: Arc::clone(&open.longest),
        }))
    }

    /// The same for a run that was found, if it is one that this bridge is for.
    pub(super) fn partner_found(
        &self,
        id: &InstanceId,
        (stdio, path): (&Stdio, &str),
        run: RunId,
        opened: Option<Opened>,
    ) -> Option<Arc<Partner>> {
        self.at(id).filter(|open| open.is_like(stdio, path))?;
        self.partner(id, run, opened)
    }

    /// What a next daemon must know of a session is to be written down.
    pub(super) fn remember(&mut self, id: &InstanceId, name: SessionName, now: Moment) {
        if self.open.contains_key(id) {
            self.recall.changed((id.clone(), name), now);
        }
    }

    /// The session has ended.
    pub(super) fn forget(&mut self, id: &InstanceId, name: SessionName) {
        self.recall.ended((id.clone(), name));
    }

    /// Has written down what is to be, if nothing is being written; `done` hears when that is over.
    pub(super) fn begin_writing(&mut self, now: Moment, done: &mpsc::UnboundedSender<Event>) {
        let Some(batch) = self.recall.begin(now) else { return };
        let (write, done) = (self.writer(batch), done.clone());
        // A disk may take its time to say that it has it; the loop must not.
        tokio::task::spawn_blocking(move || {
            write();
            if done.send(Event::Saved(Saved::Sessions)).is_err() {
                tracing::debug!("the loop has ended");
            }
        });
    }

    /// What was begun is done.
    pub(super) fn note_written(&mut self) {
        self.recall.done();
    }

    /// Writes down what is to be, now: the daemon ends.
    pub(super) fn write_rest(&mut self) {
        let batch = self.recall.rest();
        self.writer(batch)();
    }

    /// True while something is being written.
    pub(super) const fn is_writing(&self) -> bool {
        self.recall.is_writing()
    }

    /// When to [begin](Self::begin_writing) next.
    pub(super) fn deadline(&self) -> Option<Moment> {
        self.recall.deadline()
    }

    /// The deed: what sessions are by now, in their files.
    fn writer(&self, batch: Batch) -> impl FnOnce() + Send + use<> {
        let file = |((id, name), due): (Whose, Due)| {
            let record = match due {
                Due::Remove => None,
                // If it has ended meanwhile, that is said next.
                Due::Write(_) => Some(self.open.get(&id)?.bridge.record(name)?),
            };
            Some((id.clone(), name, self.place(&id), record))
        };
        let files: Vec<_> = batch.records.into_iter().filter_map(file).collect();
        move || {
            for dir in batch.clear {
                report("forget sessions", files::remove_all(&dir));
            }
            for (id, name, place, record) in files {
                let file = place.join(name.to_string());
                let is_over = record.is_none();
                let done = record
                    .map_or_else(|| files::remove(&file), |record| write_session(&place, &file, &record));
                if let Err(error) = done {
                    let error = super::store::chain(&error);
                    let (user, server) = (&id.user, &id.server);
                    if is_over {
                        tracing::warn!(%user, %server, session = %name, error, "cannot forget a session");
                    } else {
                        tracing::warn!(%user, %server, session = %name, error, "a session is not remembered");
                    }
                }
                failpoint::pass("session.remembered");
            }
        }
    }

    fn place(&self, id: &InstanceId) -> PathBuf {
        self.dir.join(id.user.as_str()).join(id.server.as_str())
    }
}

fn write_session(place: &Path, file: &Path, record: &SessionRecord) -> Result<(), FileError> {
    if let Some(user) = place.parent() {
        files::make_dir(user, 0o700)?;
    }
    files::make_dir(place, 0o700)?;
    // It is our own record; nothing in it could not be written.
    files::replace(file, &serde_json::to_vec(record).unwrap_or_default(), 0o600)
}

fn longest(stdio: &Stdio) -> usize {
    usize::try_from(stdio.max_message).unwrap_or(usize::MAX)
}

fn report(doing: &str, done: io::Result<()>) {
    if let Err(error) = done {
        tracing::warn!(%error, "cannot {doing}");
    }
}

/// Every session that an earlier daemon knew. A file that is not understood is nobody's session.
fn left_behind(dir: &Path) -> io::Result<BTreeMap<InstanceId, Known>> {
    let mut left: BTreeMap<InstanceId, Known> = BTreeMap::new();
    for user in files::names_in(dir)? {
        let of_user = dir.join(&user);
        for server in files::names_in(&of_user)? {
            let (Ok(user), Ok(name)) = (user.parse(), server.parse()) else { continue };
            let known = left.entry(InstanceId::new(user, name)).or_default();
            let place = of_user.join(server);
            known.extend(files::names_in(&place)?.iter().filter_map(|name| read_session(&place, name)));
        }
    }
    Ok(left)
}

fn read_session(place: &Path, name: &str) -> Option<(SessionName, SessionRecord)> {
    let text = files::read_bounded(&place.join(name), LARGEST).ok()?;
    Some((name.parse().ok()?, serde_json::from_slice(&text).ok()?))
}

/// What an earlier daemon heard when it opened a run.
pub(super) fn read_opened(path: &Path) -> Option<Opened> {
    serde_json::from_slice(&files::read_bounded(path, LARGEST).ok()?).ok()
}

/// Writes down how a run was opened, for a next daemon.
pub(super) fn write_opened(path: &Path, opened: &Opened) {
    let text = serde_json::to_vec(opened).unwrap_or_default();
    if let Err(error) = files::replace(path, &text, 0o600) {
        // The next daemon opens it once more.
        tracing::warn!(error = super::store::chain(&error), "how a run was opened is not remembered");
    }
}

/// The bridge, as the task of one run sees it.
pub(super) struct Partner {
    bridge: Arc<Bridge>,
    slot: Option<SessionName>,
    run: RunId,
    opened: Mutex<Option<Opened>>,
    longest: Arc<AtomicUsize>,
}

impl Talk for Partner {
    fn begin(&self, wire: Arc<Wire>) {
        let opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner).take();
        // No earlier daemon can have come so far: it would have had to say 16384 things each
        // millisecond. It stays below 2^53 for 17 years of a machine being up.
        let since_boot = clock::now().since_boot().as_millis();
        let first_id = u64::try_from(since_boot).unwrap_or(u64::MAX >> 14) << 14;
        self.bridge.attach(self.slot, self.run, first_id, opened, wire);
    }

    fn longest(&self) -> usize {
        self.longest.load(Ordering::Relaxed)
    }

    fn line(&self, line: &[u8]) -> bool {
        self.bridge.line(self.slot, self.run, line)
    }

    fn too_long(&self, head: &[u8], tail: &[u8]) {
        tracing::warn!(
            run = self.run.0,
            longest = self.longest(),
            "a line longer than max_message is dropped"
        );
        if let Some(answer) = overlong::answer(head, tail) {
            self.bridge.line(self.slot, self.run, &answer);
        }
    }

    fn end(&self) {
        self.bridge.lost(self.slot, self.run);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_session_that_is_remembered_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("alice/notes");
        let record = SessionRecord {
            id: "0".repeat(48),
            version: "2025-11-25".to_owned(),
            initialize: "\"".repeat(32 << 10),
            level: Some("debug".to_owned()),
            // As JSON, each of these takes six bytes.
            subscriptions: vec!["\u{1}".repeat(4096); 256],
        };
        let name = SessionName::new(7);
        write_session(&place, &place.join(name.to_string()), &record).unwrap();
        let mut left = left_behind(dir.path()).unwrap();
        let known = left.remove(&InstanceId::new("alice".parse().unwrap(), "notes".parse().unwrap()));
        assert_eq!(known.unwrap(), [(name, record)]);
    }
}
