//! What a line's lock guards, and what follows from what happens there. Nothing here waits.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::task::AbortHandle;

use super::Said;
use crate::logic::exchange::{Deed, Exchange, Next, Opened, SessionRecord, StreamKey};
use crate::logic::overlong;
use crate::model::config::Health;
use crate::model::{Moment, RunId, SessionName};
use crate::system::pipes::Wire;

/// Between two comments on streams that are to be kept alive. Proxies and clients commonly give a
/// silent connection up after 30 or 60 s.
const KEEP_ALIVE: Duration = Duration::from_secs(20);

/// Bytes that may be held back for a process when its own questions are answered.
const MAX_REPLIES: usize = 1 << 20;

/// A process, its exchange and their readers.
pub(super) struct State {
    pub(super) exchange: Exchange,
    /// The process is one session's own.
    is_own: bool,
    process: Option<Process>,
    readers: HashMap<StreamKey, Reader>,
    /// Counts readers.
    began: u64,
    /// Of each session, by `Mcp-Session-Id`.
    pub(super) names: HashMap<String, SessionName>,
    /// Sessions of which it was said that they changed, and whose record was not asked for since.
    changed: BTreeSet<SessionName>,
    health: Option<Health>,
    /// How long a request may wait for a process, as whoever sent the last one has it.
    pub(super) wait: Duration,
    /// The process ended; requests that still wait when this is over are given up.
    down_until: Option<Moment>,
    /// When streams are to be shown alive next; `None` while there is none to be.
    keep_at: Option<Moment>,
    pub(super) clock: Option<Clock>,
    after: After,
}

/// An attached process.
pub(super) struct Process {
    run: RunId,
    wire: Arc<Wire>,
    /// What the wire did not take. No client's message is accepted while there is any.
    held: VecDeque<Vec<u8>>,
    /// Bytes of that.
    held_bytes: usize,
    /// A task waits for the wire to have room.
    is_flushing: bool,
    pulse: Pulse,
    drain: Drain,
}

/// How a process's health stands.
enum Pulse {
    /// Nobody asks.
    Unasked,
    /// To be asked then.
    Next(Moment),
    /// It was asked, and has until then.
    Asked(Moment),
}

/// Whether a process is to get new calls.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Drain {
    No,
    /// None, and it still has some to answer.
    Wanted,
    /// None, and it was said that it has no more to answer.
    Told,
}

/// Somebody who takes what is on a stream. There is one at a time: who resumes a stream may come
/// before it is seen that the one before is gone.
struct Reader {
    /// Which one.
    number: u64,
    waker: Option<Waker>,
    /// Its connection is to be shown alive now and then.
    is_kept: bool,
    /// A comment is to be sent.
    is_due: bool,
}

/// What ends when there is something to do.
pub(super) struct Clock {
    pub(super) at: Moment,
    pub(super) task: AbortHandle,
}

/// What is left to do when the lock has been given back.
#[derive(Default)]
pub(super) struct After {
    pub(super) wake: Vec<Waker>,
    pub(super) say: Vec<Said>,
    pub(super) forgotten: Vec<SessionName>,
    /// Those who wait to send should look again.
    pub(super) has_turned: bool,
    /// Something is held back until this has room.
    pub(super) flush: Option<Arc<Wire>>,
}

/// What comes next for the reader of a stream.
pub(super) enum Item {
    /// From the exchange; never [`Next::Pending`].
    Next(Next),
    /// A sign of life.
    Comment,
}

/// How much of what was held back a wire took.
pub(super) enum Flushed {
    /// Nothing is held any more, or the process is not there any more.
    All,
    Some,
    None,
}

impl Process {
    pub(super) fn new(run: RunId, wire: Arc<Wire>) -> Self {
        let (held, pulse) = (VecDeque::new(), Pulse::Unasked);
        Self { run, wire, held, held_bytes: 0, is_flushing: false, pulse, drain: Drain::No }
    }

    /// Sends a line, or holds it back.
    fn send(&mut self, line: Vec<u8>) {
        let line = if self.held.is_empty() { self.wire.send(line) } else { Err(line) };
        if let Err(line) = line {
            self.held_bytes += line.len();
            self.held.push_back(line);
        }
    }

    /// Sends an answer of ours. A process that goes on asking and does not read gets none.
    fn reply(&mut self, line: Vec<u8>) {
        if self.held_bytes < MAX_REPLIES {
            self.send(line);
        }
    }

    fn has_room(&self) -> bool {
        self.held.is_empty() && self.wire.has_room()
    }

    /// What to wait for, if there is no room and nobody waits yet.
    fn wants_flush(&mut self) -> Option<Arc<Wire>> {
        let wants = !self.is_flushing && !self.has_room();
        self.is_flushing |= wants;
        wants.then(|| self.wire.clone())
    }

    fn flush(&mut self) -> Flushed {
        let before = self.held.len();
        while let Some(line) = self.held.pop_front() {
            let size = line.len();
            if let Err(line) = self.wire.send(line) {
                self.held.push_front(line);
                break;
            }
            self.held_bytes -= size;
        }
        match self.held.len() {
            0 => {
                self.is_flushing = false;
                Flushed::All
            }
            left if left < before => Flushed::Some,
            _ => Flushed::None,
        }
    }
}

impl State {
    pub(super) fn new(exchange: Exchange, is_own: bool, health: Option<Health>) -> Self {
        Self {
            exchange,
            is_own,
            process: None,
            readers: HashMap::new(),
            began: 0,
            names: HashMap::new(),
            changed: BTreeSet::new(),
            health,
            wait: Duration::ZERO,
            down_until: None,
            keep_at: None,
            clock: None,
            after: After::default(),
        }
    }

    /// True if that run is attached.
    pub(super) fn is_run(&self, run: RunId) -> bool {
        self.process.as_ref().is_some_and(|process| process.run == run)
    }

    /// True if a client's message would go to the process at once. A process that does not read
    /// makes its clients wait, not our memory grow; [`After::has_turned`] says when to look again.
    pub(super) fn has_room(&mut self) -> bool {
        let Some(process) = self.process.as_mut().filter(|_| self.exchange.is_open()) else { return false };
        self.after.flush = process.wants_flush();
        self.after.flush.is_none() && process.has_room()
    }

    /// True if what needs no open process (an answer, a notification) can be said: it goes to the
    /// process if there is one.
    pub(super) fn is_not_blocked(&mut self) -> bool {
        let Some(process) = &mut self.process else { return true };
        self.after.flush = process.wants_flush();
        self.after.flush.is_none() && process.has_room()
    }

    /// True if a session can begin: at an open process, or, where the session has one for itself,
    /// at one that is there.
    pub(super) fn may_begin(&mut self) -> bool {
        if self.is_own { self.process.is_some() && self.is_not_blocked() } else { self.has_room() }
    }

    pub(super) fn attach(&mut self, process: Process, first_id: u64, opened: Option<Opened>, now: Moment) {
        if self.process.is_some() {
            self.exchange.lost(now);
        }
        self.process = Some(process);
        self.exchange.attach(first_id, opened, now);
        self.after.has_turned = true;
    }

    pub(super) fn lose(&mut self, run: RunId, now: Moment) {
        if self.is_run(run) {
            self.process = None;
            self.exchange.lost(now);
            self.down_until.get_or_insert(now + self.wait);
        }
    }

    /// One line of the process; false if it belongs into the log: it is no message, or refuses to be
    /// spoken with. Of what it said before, clients have `owed` bytes still to read.
    pub(super) fn hear(&mut self, line: &[u8], owed: usize, now: Moment) -> bool {
        let before = self.exchange.counts();
        self.exchange.owe(owed);
        self.exchange.line(line, now);
        let after = self.exchange.counts();
        if after.not_json_rpc != before.not_json_rpc
            && let Some(answer) = overlong::of_broken(line)
        {
            self.exchange.line(&answer, now);
        }
        (after.not_json_rpc, after.refusals) == (before.not_json_rpc, before.refusals)
    }

    /// Refuses what the exchange still keeps for a process.
    pub(super) fn give_up(&mut self, why: &str) {
        self.down_until = None;
        self.exchange.give_up(|stream| self.readers.contains_key(&stream), why);
    }

    pub(super) fn drain(&mut self) {
        if let Some(process) = &mut self.process {
            process.drain = Drain::Wanted;
            process.pulse = Pulse::Unasked;
            self.exchange.drain();
        }
    }

    pub(super) fn set_health(&mut self, health: Option<Health>, now: Moment) {
        let is_news = self.health != health;
        self.health = health;
        if is_news && self.exchange.is_open() {
            self.rest(now);
        }
    }

    /// The process has just shown that it is well.
    fn rest(&mut self, now: Moment) {
        if let Some(process) = &mut self.process {
            process.pulse = self.health.map_or(Pulse::Unasked, |health| Pulse::Next(now + health.every));
        }
    }

    /// Asks the process how it is.
    pub(super) fn ask(&mut self, now: Moment) {
        if let Some(process) = &mut self.process {
            process.pulse = self.health.map_or(Pulse::Unasked, |health| Pulse::Asked(now + health.timeout));
            self.exchange.check_health();
        }
    }

    fn check_pulse(&mut self, now: Moment) {
        let Some(process) = &mut self.process else { return };
        match (&process.pulse, self.health) {
            (Pulse::Next(at), _) if *at <= now => self.ask(now),
            (Pulse::Asked(until), Some(health)) if *until <= now => {
                process.pulse = Pulse::Unasked;
                let why = format!("did not answer a health check for {:?}", health.timeout);
                self.after.say.push(Said::Sick(process.run, why));
            }
            (Pulse::Unasked | Pulse::Next(_) | Pulse::Asked(_), _) => {}
        }
    }

    /// Somebody takes what is on this stream from now on; for whoever did before, it has ended.
    pub(super) fn begin_reading(&mut self, stream: StreamKey) -> u64 {
        self.began += 1;
        let reader = Reader { number: self.began, waker: None, is_kept: false, is_due: false };
        let before = self.readers.insert(stream, reader);
        self.after.wake.extend(before.and_then(|before| before.waker));
        self.began
    }

    fn reader(&mut self, stream: StreamKey, number: u64) -> Option<&mut Reader> {
        self.readers.get_mut(&stream).filter(|reader| reader.number == number)
    }

    /// Takes what comes next on a stream; the reader is woken when there is more.
    pub(super) fn poll(&mut self, stream: StreamKey, number: u64, cx: &mut Context<'_>) -> Poll<Item> {
        if self.reader(stream, number).is_none() {
            return Poll::Ready(Item::Next(Next::End));
        }
        let next = self.exchange.next(stream);
        let Some(reader) = self.reader(stream, number).filter(|_| matches!(next, Next::Pending)) else {
            return Poll::Ready(Item::Next(next));
        };
        if std::mem::take(&mut reader.is_due) {
            return Poll::Ready(Item::Comment);
        }
        if reader.waker.as_ref().is_none_or(|waker| !waker.will_wake(cx.waker())) {
            reader.waker = Some(cx.waker().clone());
        }
        Poll::Pending
    }

    /// Nobody reads the stream any more; `is_unread`: though it has not ended.
    pub(super) fn end_reading(&mut self, stream: StreamKey, number: u64, is_unread: bool, now: Moment) {
        if self.reader(stream, number).is_some() {
            self.readers.remove(&stream);
            if is_unread {
                self.exchange.dropped(stream, now);
            }
        }
    }

    /// The reader's connection is shown alive from now on.
    pub(super) fn keep(&mut self, stream: StreamKey, number: u64, now: Moment) {
        if let Some(reader) = self.reader(stream, number) {
            reader.is_kept = true;
            self.keep_at.get_or_insert(now + KEEP_ALIVE);
        }
    }

    /// Bytes that the process does not take.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.process.as_ref().map_or(0, |process| process.held_bytes)
    }

    #[cfg(test)]
    pub(super) fn readers(&self) -> usize {
        self.readers.len()
    }

    fn keep_alive(&mut self, now: Moment) {
        if self.keep_at.is_none_or(|at| at > now) {
            return;
        }
        let mut are_some = false;
        for reader in self.readers.values_mut().filter(|reader| reader.is_kept) {
            are_some = true;
            reader.is_due = true;
            self.after.wake.extend(reader.waker.take());
        }
        self.keep_at = are_some.then(|| now + KEEP_ALIVE);
    }

    pub(super) fn tick(&mut self, now: Moment) {
        self.clock = None;
        self.exchange.expire(now);
        if self.down_until.is_some_and(|until| until <= now) {
            self.give_up("the server did not come up again in time; this call was not sent");
        }
        self.check_pulse(now);
        self.keep_alive(now);
    }

    /// When [`tick`](Self::tick) is wanted next.
    pub(super) fn deadline(&mut self) -> Option<Moment> {
        let pulse = self.process.as_ref().and_then(|process| match process.pulse {
            Pulse::Unasked => None,
            Pulse::Next(at) | Pulse::Asked(at) => Some(at),
        });
        [self.exchange.deadline(), self.keep_at, self.down_until, pulse].into_iter().flatten().min()
    }

    pub(super) fn flush(&mut self, wire: &Arc<Wire>) -> Flushed {
        let process = self.process.as_mut().filter(|process| Arc::ptr_eq(&process.wire, wire));
        let flushed = process.map_or(Flushed::All, Process::flush);
        self.after.has_turned |= matches!(flushed, Flushed::All);
        flushed
    }

    /// What is to be known of a session; its next change will be said.
    pub(super) fn record(&mut self, name: SessionName) -> Option<SessionRecord> {
        self.changed.remove(&name);
        let (id, _) = self.names.iter().find(|(_, known)| **known == name)?;
        self.exchange.record(self.exchange.session(id)?).cloned()
    }

    /// Does what the exchange says, and gives back what is to be done outside the lock.
    pub(super) fn settle(&mut self, now: Moment) -> After {
        if let Some(process) = &mut self.process {
            self.exchange.block(!process.has_room());
            // What waits for room is said when somebody looks again, though nothing is held back.
            if let Some(wire) = process.wants_flush() {
                self.after.flush = Some(wire);
            }
        }
        for deed in self.exchange.deeds() {
            self.act(deed, now);
        }
        if let Some(process) = &mut self.process
            && process.drain == Drain::Wanted
            && self.exchange.in_flight() == 0
        {
            process.drain = Drain::Told;
            self.after.say.push(Said::Drained(process.run));
        }
        std::mem::take(&mut self.after)
    }

    fn act(&mut self, deed: Deed, now: Moment) {
        let is_reply = matches!(deed, Deed::Reply(_));
        match deed {
            Deed::Send(line) | Deed::Reply(line) => {
                if let Some(process) = &mut self.process {
                    if is_reply {
                        process.reply(line);
                    } else {
                        process.send(line);
                    }
                    if let Some(wire) = process.wants_flush() {
                        self.after.flush = Some(wire);
                    }
                }
            }
            Deed::Wake(stream) => {
                let reader = self.readers.get_mut(&stream);
                self.after.wake.extend(reader.and_then(|reader| reader.waker.take()));
            }
            Deed::Opened(opened) => {
                self.rest(now);
                self.down_until = None;
                self.after.has_turned = true;
                self.after.say.extend(self.run().map(|run| Said::Opened(run, opened)));
            }
            Deed::Unfit(why) => self.after.say.extend(self.run().map(|run| Said::Unfit(run, why))),
            Deed::Healthy => {
                self.rest(now);
                self.after.say.extend(self.run().map(Said::Healthy));
            }
            Deed::Remember(session) => {
                let id = self.exchange.record(session).map(|record| &*record.id);
                let name = id.and_then(|id| self.names.get(id).copied());
                let name = name.filter(|name| self.changed.insert(*name));
                self.after.say.extend(name.map(Said::Remember));
            }
            Deed::Learned => self.after.has_turned = true,
            Deed::Forget(id) => {
                if let Some(name) = self.names.remove(&id) {
                    self.changed.remove(&name);
                    self.after.forgotten.push(name);
                }
            }
        }
    }

    fn run(&self) -> Option<RunId> {
        self.process.as_ref().map(|process| process.run)
    }
}
