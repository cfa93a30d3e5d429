//! What lets a client speak Streamable HTTP with a process that speaks lines on its standard input
//! and output.
//!
//! ```text
//! guest ──▶ http (POST, GET, DELETE) ──▶ line ──▶ Exchange ──▶ wire ──▶ the process
//!       ◀── events (SSE)  ◀── wakers ──  line ◀── Exchange ◀── Bridge::line
//! ```
//!
//! A [`Bridge`] stands as long as its instance's door. What goes where is the
//! [`Exchange`](crate::logic::exchange)'s to say; here is everything it has none of: HTTP, time,
//! randomness and waiting. There is one exchange for each process (`Line`): one where clients
//! share it; where they do not, one per session, and one for clients of the modern era, which have
//! no sessions.
//!
//! Nothing here runs for a request alone: no task, no channel. An answer wakes the connection that
//! waits for it.

mod events;
mod heads;
mod http;
mod line;
mod owed;
mod sessions;
mod state;

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::mpsc;

use crate::logic::exchange::{Counts, Opened, SessionRecord};
use crate::model::config::{Sessions, Stdio};
use crate::model::{InstanceId, RunId, SessionName};
use crate::system::pipes::Wire;
pub(super) use events::Events;
use line::Line;
use owed::Owed;
use sessions::Table;

/// What a bridge says to the daemon's loop.
#[derive(Debug)]
pub struct Word {
    /// Whose bridge.
    pub instance: InstanceId,
    /// Which of its processes; `None` is the one that is not a session's own.
    pub slot: Option<SessionName>,
    /// What.
    pub what: Said,
}

/// What happened at a bridge.
pub enum Said {
    /// The process answered its opening: it is up.
    Opened(RunId, Opened),
    /// The process refused its opening: why, for people.
    Unfit(RunId, String),
    /// The process answered a health check.
    Healthy(RunId),
    /// The process answered nothing for as long as its health allows: why, for people.
    Sick(RunId, String),
    /// The last call that the process had been sent before [`Bridge::drain`] is answered.
    Drained(RunId),
    /// A session wants a process of its own.
    Wanted,
    /// A session began or changed: a next daemon must know its [`Bridge::record`]. Said once until that
    /// is asked for, however often it changes.
    Remember(SessionName),
    /// A session ended; a process of its own has nothing to do any more.
    Forget(SessionName),
    /// The same of one that its client never heard of: a process of its own has served nobody.
    Abandoned(SessionName),
}

impl fmt::Debug for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Opened(run, _) => write!(f, "Opened({run})"),
            Self::Unfit(run, why) => write!(f, "Unfit({run}, {why:?})"),
            Self::Healthy(run) => write!(f, "Healthy({run})"),
            Self::Sick(run, why) => write!(f, "Sick({run}, {why:?})"),
            Self::Drained(run) => write!(f, "Drained({run})"),
            Self::Wanted => f.write_str("Wanted"),
            Self::Remember(name) => write!(f, "Remember({name})"),
            Self::Forget(name) => write!(f, "Forget({name})"),
            Self::Abandoned(name) => write!(f, "Abandoned({name})"),
        }
    }
}

/// The bridge of one instance.
pub struct Bridge {
    instance: InstanceId,
    /// The path of the MCP endpoint.
    path: String,
    /// What this program calls itself to processes.
    version: &'static str,
    say: mpsc::UnboundedSender<Word>,
    settings: Mutex<Stdio>,
    /// Why no process will come by itself.
    closed: Mutex<Option<Arc<str>>>,
    /// The process that is not a session's own.
    base: Arc<Line>,
    /// Processes of sessions.
    own: Mutex<Table>,
    /// Bytes of bodies that are being collected.
    collecting: AtomicUsize,
    /// What clients have still to read, of all processes.
    owed: Owed,
}

impl Bridge {
    /// A bridge without a process.
    #[must_use]
    pub fn new(
        instance: InstanceId,
        settings: Stdio,
        path: String,
        version: &'static str,
        say: mpsc::UnboundedSender<Word>,
    ) -> Arc<Self> {
        let owed = Owed::default();
        let exchange = sessions::shared(settings, version);
        Arc::new_cyclic(|bridge| Self {
            base: Line::new(None, bridge.clone(), exchange, settings.health, owed.clone()),
            instance,
            path,
            version,
            say,
            settings: Mutex::new(settings),
            closed: Mutex::default(),
            own: Mutex::default(),
            collecting: AtomicUsize::new(0),
            owed,
        })
    }

    /// Takes over changed limits. How sessions are kept and which era is spoken cannot change: that
    /// is another bridge.
    pub fn configure(&self, settings: Stdio) {
        *lock(&self.settings) = settings;
        for line in self.lines() {
            line.configure(settings);
        }
    }

    /// A process is there. `first_id` is higher than any id that was ever sent to it; `opened`: an
    /// earlier daemon had opened it. Nothing is heard of it before this.
    pub fn attach(
        &self,
        slot: Option<SessionName>,
        run: RunId,
        first_id: u64,
        opened: Option<Opened>,
        wire: Arc<Wire>,
    ) {
        if let Some(line) = self.at(slot) {
            line.attach(run, first_id, opened, wire);
        }
    }

    /// One line of a process, without its newline. False if it is no JSON-RPC message; true too for
    /// a run that is not attached, whose lines are nobody's.
    pub fn line(&self, slot: Option<SessionName>, run: RunId, line: &[u8]) -> bool {
        self.at(slot).is_none_or(|at| at.hear(run, line))
    }

    /// The process is gone. Ignored for another run than the one attached.
    pub fn lost(&self, slot: Option<SessionName>, run: RunId) {
        if let Some(line) = self.at(slot) {
            line.lose(run);
        }
    }

    /// Sends no new call to the process; [`Said::Drained`] follows when the last one is answered.
    pub fn drain(&self, slot: Option<SessionName>) {
        if let Some(line) = self.at(slot) {
            line.drain();
        }
    }

    /// Calls sent to the process and not answered.
    #[must_use]
    pub fn in_flight(&self, slot: Option<SessionName>) -> usize {
        self.at(slot).map_or(0, |line| line.in_flight())
    }

    /// Asks the process for a sign of life now; [`Said::Healthy`] follows, or [`Said::Sick`] where
    /// the settings say how long it may take.
    pub fn check_health(&self, slot: Option<SessionName>) {
        if let Some(line) = self.at(slot) {
            line.check_health();
        }
    }

    /// `Some`: no process will come by itself, so whoever waits for one hears why at once.
    pub fn close(&self, why: Option<String>) {
        let why: Option<Arc<str>> = why.map(Arc::from);
        lock(&self.closed).clone_from(&why);
        for line in self.lines() {
            line.closed(why.as_deref());
        }
    }

    /// Takes up a session of an earlier daemon. To be called before the door is open.
    pub fn restore(self: &Arc<Self>, name: SessionName, record: SessionRecord) {
        if self.is_isolated() {
            let line = self.new_line(name);
            self.keep(record.id.clone(), name, line.clone());
            self.settle(name);
            line.restore(name, record);
        } else {
            self.base.restore(name, record);
        }
    }

    /// What a next daemon must know of a session, as it is now. From here on [`Said::Remember`] tells of
    /// its next change. `None`: it has ended.
    #[must_use]
    pub fn record(&self, name: SessionName) -> Option<SessionRecord> {
        let slot = self.is_isolated().then_some(name);
        self.at(slot)?.record(name)
    }

    /// What was seen and could not be passed on, at all processes together.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let all = self.lines().into_iter().map(|line| line.counts());
        all.fold(Counts::default(), |sum, one| Counts {
            not_json_rpc: sum.not_json_rpc + one.not_json_rpc,
            unclaimed: sum.unclaimed + one.unclaimed,
            ambiguous: sum.ambiguous + one.ambiguous,
            refusals: sum.refusals + one.refusals,
        })
    }

    /// Sessions there are now.
    #[must_use]
    pub fn sessions(&self) -> usize {
        self.lines().into_iter().map(|line| line.sessions()).sum()
    }

    fn settings(&self) -> Stdio {
        *lock(&self.settings)
    }

    fn is_isolated(&self) -> bool {
        self.settings().sessions == Sessions::Isolated
    }

    fn why_closed(&self) -> Option<String> {
        lock(&self.closed).as_deref().map(str::to_owned)
    }

    fn say(&self, slot: Option<SessionName>, what: Said) {
        let word = Word { instance: self.instance.clone(), slot, what };
        if self.say.send(word).is_err() {
            tracing::debug!("the daemon is ending");
        }
    }

    /// Takes `bytes` of the room for bodies that are being collected; false if there is not so much.
    fn claim(&self, bytes: usize) -> bool {
        let most = usize::try_from(self.settings().max_message).unwrap_or(usize::MAX).saturating_mul(BODIES);
        let taken = self.collecting.fetch_add(bytes, Relaxed).saturating_add(bytes);
        if taken > most {
            self.release(bytes);
        }
        taken <= most
    }

    fn release(&self, bytes: usize) {
        self.collecting.fetch_sub(bytes, Relaxed);
    }
}

/// How many of the largest messages may be on their way in at once at one bridge: one user cannot
/// fill the daemon's memory with bodies that they never end.
const BODIES: usize = 4;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
