//! What the service manager is told: that we are ready, what we are about, and that the loop turns.
//!
//! It kills a daemon that it has not heard of for too long, so it is told by the loop, when it turns,
//! and by nothing else.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::Daemon;
use crate::model::Moment;
use crate::model::status::StateName;
use crate::system::notify::{Manager, Started};

/// How instances are is told so often at most: each word goes to everybody who watches the manager.
const STATUS_EVERY: Duration = Duration::from_secs(1);

/// What it knows.
#[derive(Debug, Default)]
pub(super) struct Told {
    manager: Option<Arc<Manager>>,
    /// It wants to hear of us so often, and does when we are ready.
    feeds: Option<Duration>,
    fed_at: Moment,
    is_ready: bool,
    status: String,
    status_at: Moment,
    /// The status may be another.
    due: Option<Moment>,
}

impl Told {
    pub(super) fn new(started: &Started, now: Moment) -> Self {
        // Twice in the time within which it wants to hear of us (sd_watchdog_enabled(3)).
        let feeds = started.watchdog.map(|limit| limit / 2);
        Self { manager: started.manager.clone(), feeds, fed_at: now, ..Self::default() }
    }

    /// When there is something to tell, though nothing happens.
    pub(super) fn deadline(&self) -> Option<Moment> {
        let feed = self.feeds.filter(|_| self.is_ready).map(|every| self.fed_at + every);
        [feed, self.due].into_iter().flatten().min()
    }

    /// Something changed of which the status may tell.
    pub(super) fn status_changed(&mut self, now: Moment) {
        if self.manager.is_some() && self.is_ready {
            self.due.get_or_insert(now.max(self.status_at + STATUS_EVERY));
        }
    }

    fn say(&self, what: &str) {
        if let Some(manager) = &self.manager {
            manager.say(what);
        }
    }
}

impl Daemon {
    /// Tells what is due. To be called whenever the loop turns.
    pub(super) fn tell_manager(&mut self, now: Moment) {
        if self.told.due.is_some_and(|due| due <= now) {
            self.told.due = None;
            self.told.status_at = now;
            let status = self.in_short();
            if status != self.told.status {
                self.told.say(&format!("STATUS={status}"));
                self.told.status = status;
            }
        }
        if let Some(every) = self.told.feeds.filter(|_| self.told.is_ready)
            && self.told.fed_at + every <= now
        {
            self.told.fed_at = now;
            self.told.say("WATCHDOG=1");
        }
    }

    /// Says that we answer whoever asks us.
    pub(super) fn tell_ready(&mut self, now: Moment) {
        let status = self.in_short();
        self.told.say(&format!("READY=1\nSTATUS={status}"));
        self.told.is_ready = true;
        (self.told.status, self.told.status_at, self.told.fed_at) = (status, now, now);
    }

    /// Says that files are read again, and by `false` that they were.
    pub(super) fn tell_reloading(&self, begins: bool) {
        match &self.told.manager {
            Some(manager) if begins => manager.say_reloading(),
            Some(_) if self.told.is_ready => self.told.say("READY=1"),
            Some(_) | None => {}
        }
    }

    /// Says that we end, and with the servers or without.
    pub(super) fn tell_ending(&self, status: &str) {
        self.told.say(&format!("STOPPING=1\nSTATUS={status}"));
    }

    /// `12 up, 1 cooling`, and that the configuration is broken.
    fn in_short(&self) -> String {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for (id, instance) in self.fleet.iter().filter(|(id, _)| id.session.is_none()) {
            *counts.entry(self.state_name(id, instance).as_str()).or_default() += 1;
        }
        let words: Vec<String> = StateName::ALL
            .iter()
            .filter_map(|state| Some(format!("{} {state}", counts.get(state.as_str())?)))
            .collect();
        let states = if words.is_empty() { "no instance".to_owned() } else { words.join(", ") };
        if self.roster.config_problems().is_empty() {
            return states;
        }
        format!("{states}; mcpsup.toml is refused, mcpsup check says why")
    }
}
