//! One process, its exchange, and who waits for what it says.
//!
//! Everything happens under one short lock, in which nobody waits; wakers are called and words said
//! after it. The only task is the clock, and only while there is something to come.

use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout_at};

use super::owed::Owed;
use super::state::{After, Clock, Flushed, Process, State};
use super::{Bridge, Said, lock};
use crate::door::answer::Refusal;
use crate::logic::exchange::{Counts, Exchange, Opened, SessionRecord};
use crate::model::config::{Health, Stdio};
use crate::model::{Moment, RunId, SessionName};
use crate::system::clock;
use crate::system::pipes::Wire;

/// A process and all who speak with it.
pub(super) struct Line {
    slot: Option<SessionName>,
    bridge: Weak<Bridge>,
    state: Mutex<State>,
    /// Something changed for those who wait to send.
    turned: Notify,
    /// What clients have still to read.
    pub(super) owed: Owed,
}

/// Between two tries to send to a process that takes nothing though it should.
const PAUSE: Duration = Duration::from_millis(100);

impl Line {
    pub(super) fn new(
        slot: Option<SessionName>,
        bridge: Weak<Bridge>,
        exchange: Exchange,
        health: Option<Health>,
        owed: Owed,
    ) -> Arc<Self> {
        let state = Mutex::new(State::new(exchange, slot.is_some(), health));
        Arc::new(Self { slot, bridge, state, turned: Notify::new(), owed })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Lets something happen, and does what follows from it.
    pub(super) fn turn<T>(self: &Arc<Self>, happen: impl FnOnce(&mut State, Moment) -> T) -> T {
        let now = clock::now();
        let mut state = self.lock();
        let outcome = happen(&mut state, now);
        let after = state.settle(now);
        self.arm(&mut state, now);
        drop(state);
        self.carry_out(after);
        outcome
    }

    fn carry_out(self: &Arc<Self>, after: After) {
        for waker in after.wake {
            waker.wake();
        }
        if after.has_turned {
            self.turned.notify_waiters();
        }
        if let Some(wire) = after.flush {
            tokio::spawn(self.clone().flush(wire));
        }
        if after.say.is_empty() && after.forgotten.is_empty() {
            return;
        }
        // Gone only while the door is being closed.
        let Some(bridge) = self.bridge.upgrade() else { return };
        for what in after.say {
            bridge.say(self.slot, what);
        }
        for name in after.forgotten {
            let is_sound = bridge.forget(name);
            bridge.say(self.slot, if is_sound { Said::Forget(name) } else { Said::Abandoned(name) });
        }
    }

    pub(super) fn attach(
        self: &Arc<Self>,
        run: RunId,
        first_id: u64,
        opened: Option<Opened>,
        wire: Arc<Wire>,
    ) {
        self.turn(|state, now| state.attach(Process::new(run, wire), first_id, opened, now));
    }

    pub(super) fn hear(self: &Arc<Self>, run: RunId, line: &[u8]) -> bool {
        let owed = self.owed.bytes();
        self.turn(|state, now| !state.is_run(run) || state.hear(line, owed, now))
    }

    pub(super) fn lose(self: &Arc<Self>, run: RunId) {
        self.turn(|state, now| state.lose(run, now));
    }

    pub(super) fn drain(self: &Arc<Self>) {
        self.turn(|state, _| state.drain());
    }

    pub(super) fn check_health(self: &Arc<Self>) {
        self.turn(State::ask);
    }

    pub(super) fn configure(self: &Arc<Self>, settings: Stdio) {
        self.turn(|state, now| {
            let most = usize::try_from(settings.max_sessions).unwrap_or(usize::MAX);
            state.exchange.limit(most, settings.session_idle);
            state.set_health(settings.health, now);
        });
    }

    pub(super) fn restore(self: &Arc<Self>, name: SessionName, record: SessionRecord) {
        self.turn(|state, now| {
            state.names.insert(record.id.clone(), name);
            state.exchange.restore(record, now);
        });
    }

    pub(super) fn end_session(self: &Arc<Self>, id: &str) -> bool {
        self.turn(|state, _| {
            let session = state.exchange.session(id);
            session.inspect(|session| state.exchange.end_session(*session)).is_some()
        })
    }

    pub(super) fn in_flight(&self) -> usize {
        self.lock().exchange.in_flight()
    }

    pub(super) fn counts(&self) -> Counts {
        self.lock().exchange.counts()
    }

    pub(super) fn sessions(&self) -> usize {
        self.lock().exchange.sessions()
    }

    pub(super) fn record(&self, name: SessionName) -> Option<SessionRecord> {
        self.lock().record(name)
    }

    pub(super) fn knows(&self, id: &str) -> bool {
        self.lock().exchange.session(id).is_some()
    }

    /// Says to those who wait that they should look again; `why`: they wait for nothing.
    pub(super) fn closed(self: &Arc<Self>, why: Option<&str>) {
        if let Some(why) = why {
            self.turn(|state, _| state.give_up(why));
        }
        self.look_again();
    }

    /// Has those who wait look again.
    pub(super) fn look_again(&self) {
        self.turned.notify_waiters();
    }

    /// Does `once` as soon as it gives something, looking again whenever the process may take more,
    /// until `deadline`.
    pub(super) async fn when<T>(
        self: &Arc<Self>,
        deadline: Instant,
        mut once: impl FnMut(&mut State, Moment) -> Option<T>,
    ) -> Result<T, Refusal> {
        // The usual case costs no waiting room.
        if let Some(done) = self.turn(&mut once) {
            return Ok(done);
        }
        let waiting = async {
            loop {
                // Made before the look, so that a change between the two is not missed.
                let turned = self.turned.notified();
                if let Some(done) = self.turn(&mut once) {
                    return Ok(done);
                }
                if let Some(why) = self.why_closed() {
                    return Err(Refusal::Closed(why));
                }
                turned.await;
            }
        };
        // Boxed: a connection that waits for nothing should not carry the room for it.
        timeout_at(deadline, Box::pin(waiting)).await.unwrap_or(Err(Refusal::StillDown))
    }

    fn why_closed(&self) -> Option<String> {
        let Some(bridge) = self.bridge.upgrade() else {
            return Some("this server is being removed".to_owned());
        };
        if bridge.at(self.slot).is_none() {
            return Some("newer sessions took its place; see max_sessions in mcpsup.toml".to_owned());
        }
        bridge.why_closed()
    }

    /// Sends what the wire did not take, as it takes more.
    async fn flush(self: Arc<Self>, wire: Arc<Wire>) {
        loop {
            wire.room().await;
            match self.turn(|state, _| state.flush(&wire)) {
                Flushed::All => return,
                Flushed::Some => {}
                // Should it say that it has room and take nothing, this must not run hot.
                Flushed::None => sleep(PAUSE).await,
            }
        }
    }

    /// Sets the clock to what comes first, if that is earlier than what it is set to.
    fn arm(self: &Arc<Self>, state: &mut State, now: Moment) {
        let Some(at) = state.deadline() else { return };
        if state.clock.as_ref().is_some_and(|clock| clock.at <= at) {
            return;
        }
        if let Some(clock) = state.clock.take() {
            clock.task.abort();
        }
        // At least a little later: a deadline that is past already must not make the clock run hot.
        let wait = at.since(now).max(Duration::from_millis(1));
        let line = Arc::downgrade(self);
        let task = tokio::spawn(async move {
            sleep(wait).await;
            if let Some(line) = line.upgrade() {
                line.tick();
            }
        });
        state.clock = Some(Clock { at, task: task.abort_handle() });
    }

    fn tick(self: &Arc<Self>) {
        self.turn(State::tick);
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if let Some(clock) = self.lock().clock.take() {
            clock.task.abort();
        }
    }
}
