//! Which sessions' records are on their way to the disk.
//!
//! A record may be a megabyte and a client may change it a hundred thousand times a second, so what
//! waits here is only which session it is. What is to be written is read when it is written, on a thread
//! that may wait for the disk; one at a time, so that nothing overtakes anything.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use crate::model::{InstanceId, Moment, SessionName};

/// Between two writes of one session's record. A daemon that is killed in between has the one before.
const PAUSE: Duration = Duration::from_millis(100);

/// So many records at most are in memory at once for being written.
const AT_ONCE: usize = 8;

/// A session of an instance.
pub(super) type Whose = (InstanceId, SessionName);

/// What is to be done with a session's record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    /// Written, not before this.
    Write(Moment),
    /// Removed.
    Remove,
}

/// What comes next, in this order.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Batch {
    /// Directories of which nothing is to be left.
    pub(super) clear: Vec<PathBuf>,
    pub(super) records: Vec<(Whose, Due)>,
}

impl Batch {
    fn is_empty(&self) -> bool {
        self.clear.is_empty() && self.records.is_empty()
    }
}

/// What waits to be written.
#[derive(Debug, Default)]
pub(super) struct Recall {
    due: BTreeMap<Whose, Due>,
    clear: Vec<PathBuf>,
    /// When those were written last that were written within the last [`PAUSE`].
    written: BTreeMap<Whose, Moment>,
    is_writing: bool,
}

impl Recall {
    /// A session began or changed.
    pub(super) fn changed(&mut self, whose: Whose, now: Moment) {
        let at = self.written.get(&whose).map_or(now, |written| *written + PAUSE);
        self.due.entry(whose).or_insert(Due::Write(at));
    }

    /// A session has ended.
    pub(super) fn ended(&mut self, whose: Whose) {
        self.due.insert(whose, Due::Remove);
    }

    /// All records of these instances are to go, which are in this directory.
    pub(super) fn clear(&mut self, dir: PathBuf, is_one: impl Fn(&InstanceId) -> bool) {
        self.due.retain(|(id, _), _| !is_one(id));
        self.clear.push(dir);
    }

    /// What is to be done now, if anything is and nothing is being done.
    pub(super) fn begin(&mut self, now: Moment) -> Option<Batch> {
        if self.is_writing {
            return None;
        }
        self.written.retain(|_, written| now < *written + PAUSE);
        let batch = self.take(Some(now), AT_ONCE);
        self.is_writing = !batch.is_empty();
        self.is_writing.then_some(batch)
    }

    /// What was begun is done.
    pub(super) fn done(&mut self) {
        self.is_writing = false;
    }

    /// Everything that waits, whether it is time or not: the daemon ends.
    pub(super) fn rest(&mut self) -> Batch {
        self.take(None, usize::MAX)
    }

    /// True while something is being done that must not be overtaken.
    pub(super) const fn is_writing(&self) -> bool {
        self.is_writing
    }

    /// When to [begin](Self::begin) next.
    pub(super) fn deadline(&self) -> Option<Moment> {
        let at = self.due.values().map(|due| match due {
            Due::Write(at) => *at,
            Due::Remove => Moment::default(),
        });
        let clear = (!self.clear.is_empty()).then(Moment::default);
        at.chain(clear).min().filter(|_| !self.is_writing)
    }

    fn take(&mut self, now: Option<Moment>, most: usize) -> Batch {
        let is_time = |due: &Due| match (due, now) {
            (Due::Write(at), Some(now)) => *at <= now,
            (Due::Write(_) | Due::Remove, _) => true,
        };
        let ready = self.due.iter().filter(|(_, due)| is_time(due)).take(most);
        let records: Vec<(Whose, Due)> = ready.map(|(whose, due)| (whose.clone(), *due)).collect();
        for (whose, due) in &records {
            self.due.remove(whose);
            if let (Due::Write(_), Some(now)) = (due, now) {
                self.written.insert(whose.clone(), now);
            }
        }
        Batch { clear: std::mem::take(&mut self.clear), records }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Moment {
        Moment::from_boot(Duration::from_millis(10_000 + millis))
    }

    fn of(user: &str, name: u64) -> Whose {
        (InstanceId::new(user.parse().unwrap(), "notes".parse().unwrap()), SessionName::new(name))
    }

    fn records(batch: Option<Batch>) -> Vec<(Whose, Due)> {
        batch.map(|batch| batch.records).unwrap_or_default()
    }

    #[test]
    fn a_session_that_changes_all_the_time_is_written_ten_times_a_second_and_at_once_the_first_time() {
        let mut recall = Recall::default();
        let mut writes = Vec::new();
        for millis in 0..350 {
            for _ in 0..100 {
                recall.changed(of("alice", 1), at(millis));
            }
            assert_eq!(recall.due.len().max(recall.written.len()), 1, "what waits is bounded");
            if recall.begin(at(millis)).is_some() {
                writes.push(millis);
                recall.done();
            }
        }
        assert_eq!(writes, [0, 100, 200, 300]);
        assert_eq!(recall.deadline(), Some(at(400)));
        // It is written though nothing happens to it any more, and then nothing is left of it.
        assert_eq!(records(recall.begin(at(400))).len(), 1);
        recall.done();
        assert_eq!(recall.deadline(), None);
        assert_eq!(recall.begin(at(500)), None);
        assert!(recall.written.is_empty());
    }

    #[test]
    fn nothing_overtakes_what_is_being_written() {
        let mut recall = Recall::default();
        recall.changed(of("alice", 1), at(0));
        recall.changed(of("bob", 2), at(0));
        assert_eq!(records(recall.begin(at(0))).len(), 2);
        recall.ended(of("alice", 1));
        recall.changed(of("bob", 3), at(1));
        assert!(recall.is_writing() && recall.deadline().is_none() && recall.begin(at(1)).is_none());
        recall.done();
        let expected = vec![(of("alice", 1), Due::Remove), (of("bob", 3), Due::Write(at(1)))];
        assert_eq!(records(recall.begin(at(2))), expected);
    }

    #[test]
    fn what_was_known_of_an_instance_that_is_gone_is_cleared_before_anything_new_is_written() {
        let mut recall = Recall::default();
        recall.changed(of("alice", 1), at(0));
        recall.changed(of("bob", 2), at(0));
        recall.clear("sessions/alice".into(), |id| id.user.as_str() == "alice");
        recall.changed(of("alice", 3), at(1));
        let batch = recall.begin(at(1)).unwrap();
        assert_eq!(batch.clear, [PathBuf::from("sessions/alice")]);
        let whose: Vec<Whose> = batch.records.into_iter().map(|(whose, _)| whose).collect();
        assert_eq!(whose, [of("alice", 3), of("bob", 2)]);
    }

    #[test]
    fn a_daemon_that_ends_writes_what_is_not_due_yet() {
        let mut recall = Recall::default();
        recall.changed(of("alice", 1), at(0));
        recall.begin(at(0));
        recall.done();
        recall.changed(of("alice", 1), at(1));
        assert_eq!(recall.begin(at(2)), None);
        assert_eq!(recall.rest().records.len(), 1);
    }
}
