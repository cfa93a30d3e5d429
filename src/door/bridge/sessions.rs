//! Which session has which process, and how a session begins.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use super::line::Line;
use super::{Bridge, Said, lock};
use crate::logic::exchange::{self, Exchange};
use crate::model::SessionName;
use crate::model::config::{Era, Stdio};
use crate::system::random;

/// The sessions with a process of their own.
#[derive(Default)]
pub(super) struct Table {
    by_name: HashMap<SessionName, Own>,
    /// By `Mcp-Session-Id`.
    names: HashMap<String, SessionName>,
    /// Counts those that began.
    born: u64,
}

struct Own {
    line: Arc<Line>,
    id: String,
    born: u64,
    /// Its client knows of it.
    is_sound: bool,
}

/// An exchange for a process that is not a session's own.
pub(super) fn shared(settings: Stdio, version: &'static str) -> Exchange {
    Exchange::new(exchange_settings(settings, version, false))
}

fn exchange_settings(settings: Stdio, version: &'static str, isolated: bool) -> exchange::Settings {
    let modern = match settings.era {
        Era::Auto => None,
        Era::Legacy => Some(false),
        Era::Modern => Some(true),
    };
    let max_sessions = usize::try_from(settings.max_sessions).unwrap_or(usize::MAX);
    // Without random bits modern clients are asked nothing; everything else goes on.
    let seal = random::key().ok().map(exchange::Seal::new);
    exchange::Settings { isolated, modern, max_sessions, session_idle: settings.session_idle, seal, version }
}

/// The two names of a new session: the client's, which is a secret (RFC-quality randomness, visible
/// ASCII), and the one for directories and logs.
pub(super) fn draw() -> std::io::Result<(String, SessionName)> {
    use std::fmt::Write;
    let key = random::key()?;
    let (secret, name) = key.split_at(24);
    let mut id = String::with_capacity(2 * secret.len());
    for byte in secret {
        // Writing to a String cannot fail.
        write!(id, "{byte:02x}").map_err(std::io::Error::other)?;
    }
    let number = name.iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
    Ok((id, SessionName::new(number)))
}

impl Bridge {
    /// Every process's line.
    pub(super) fn lines(&self) -> Vec<Arc<Line>> {
        let own = lock(&self.own);
        let own = own.by_name.values().map(|own| own.line.clone());
        std::iter::once(self.base.clone()).chain(own).collect()
    }

    /// The line of a process.
    pub(super) fn at(&self, slot: Option<SessionName>) -> Option<Arc<Line>> {
        match slot {
            None => Some(self.base.clone()),
            Some(name) => lock(&self.own).by_name.get(&name).map(|own| own.line.clone()),
        }
    }

    /// The line on which a client's session is, if it is known anywhere.
    pub(super) fn with_session(&self, id: &str) -> Option<Arc<Line>> {
        if self.is_isolated() {
            let own = lock(&self.own);
            return own.by_name.get(own.names.get(id)?).map(|own| own.line.clone());
        }
        self.base.knows(id).then(|| self.base.clone())
    }

    /// A line for a process of a session's own.
    pub(super) fn new_line(self: &Arc<Self>, name: SessionName) -> Arc<Line> {
        let settings = self.settings();
        let exchange = Exchange::new(exchange_settings(settings, self.version, true));
        let bridge: Weak<Self> = Arc::downgrade(self);
        Line::new(Some(name), bridge, exchange, settings.health, self.owed.clone())
    }

    /// Keeps a line; if it is one too many the oldest ends, those that are just beginning last.
    pub(super) fn keep(&self, id: String, name: SessionName, line: Arc<Line>) {
        let most = usize::try_from(self.settings().max_sessions).unwrap_or(usize::MAX);
        let mut too_many = Vec::new();
        {
            let mut own = lock(&self.own);
            while own.by_name.len() >= most.max(1)
                && let Some((oldest, _)) = own.by_name.iter().min_by_key(|(_, own)| (!own.is_sound, own.born))
            {
                let oldest = *oldest;
                too_many.extend(own.remove(oldest).map(|own| (oldest, own)));
            }
            own.born += 1;
            let born = own.born;
            own.names.insert(id.clone(), name);
            own.by_name.insert(name, Own { line, id, born, is_sound: false });
        }
        for (name, Own { line, id, is_sound, .. }) in too_many {
            let has_begun = line.end_session(&id);
            if !has_begun || !is_sound {
                self.say(Some(name), Said::Abandoned(name));
            }
            if !has_begun {
                // Whoever waits for it hears that it never will.
                line.look_again();
            }
        }
    }

    /// The session's client knows of it from now on.
    pub(super) fn settle(&self, name: SessionName) {
        if let Some(own) = lock(&self.own).by_name.get_mut(&name) {
            own.is_sound = true;
        }
    }

    /// Forgets a session that ended. False if its client never heard of it.
    pub(super) fn forget(&self, name: SessionName) -> bool {
        // The line is dropped outside the lock.
        let ended = lock(&self.own).remove(name);
        ended.is_none_or(|own| own.is_sound)
    }

    /// Forgets a session that never came to be.
    pub(super) fn give_up(&self, name: SessionName) {
        let is_known = lock(&self.own).by_name.contains_key(&name);
        if is_known {
            self.say(Some(name), Said::Abandoned(name));
            self.forget(name);
        }
    }

    /// A session with a process of its own, which is asked for.
    pub(super) fn want(self: &Arc<Self>, id: String, name: SessionName) -> Arc<Line> {
        let line = self.new_line(name);
        self.keep(id, name, line.clone());
        self.say(Some(name), Said::Wanted);
        line
    }
}

impl Table {
    fn remove(&mut self, name: SessionName) -> Option<Own> {
        let own = self.by_name.remove(&name)?;
        self.names.remove(&own.id);
        Some(own)
    }
}
