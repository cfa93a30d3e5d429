//! Which era the process speaks; its comings and goings.

use std::time::Duration;

use crate::logic::era::{LEGACY, META_CAPABILITIES, META_CLIENT, META_VERSION, MODERN};
use crate::logic::frame::{self, Frame, Outcome, SERVER_LOST, members};
use crate::model::Moment;

use super::calls::{LOST, Own};
use super::server::{self, Server};
use super::table::{Call, Stage};
use super::{Deed, Exchange, Opened};

/// How long a process may say nothing to `server/discover` until it is asked `initialize`. Legacy
/// servers exist that ignore what they do not know (2026-07-28, versioning).
pub(super) const SILENCE: Duration = Duration::from_secs(3);

/// Where the process is.
#[derive(Debug, Default)]
pub(super) enum Process {
    #[default]
    Away,
    Opening(Opening),
    Open {
        /// No new call goes to it.
        draining: bool,
    },
}

/// What an opening waits for.
#[derive(Debug, Default)]
pub(super) struct Opening {
    /// The answer to `server/discover`, that it is modern, came while `initialize` was under way.
    discovered: Option<String>,
    /// When `initialize` is sent, if nothing was said until then.
    silent_at: Option<Moment>,
    /// `initialize` was sent.
    is_initializing: bool,
    /// It is legacy and isolated, so its client's `initialize` is what is waited for.
    for_client: bool,
    /// That client's `initialize`, if it came: the call that waits.
    client: Option<u64>,
}

impl Process {
    /// True if calls may be sent.
    pub(super) const fn takes_calls(&self) -> bool {
        matches!(self, Self::Open { draining: false })
    }

    pub(super) const fn silent_at(&self) -> Option<Moment> {
        match self {
            Self::Opening(opening) => opening.silent_at,
            Self::Away | Self::Open { .. } => None,
        }
    }
}

impl Exchange {
    /// A process is there; `first_id` is higher than any id ever sent to it. `opened`: an earlier
    /// daemon had opened it. Sends the opening, or the round trip that shows it alive.
    pub fn attach(&mut self, first_id: u64, opened: Option<Opened>, now: Moment) {
        self.now = now;
        self.lost(now);
        self.next_id = self.next_id.max(first_id);
        self.streams.count_from(first_id);
        self.process = Process::Opening(Opening::default());
        if let Some(opened) = opened.filter(|opened| Server::read(opened).is_some()) {
            let method = if opened.is_modern { "server/discover" } else { "ping" };
            return self.ask(Own::Alive(opened), method, now);
        }
        match self.settings.modern.or(self.era) {
            Some(false) => self.initialize_process(now),
            Some(true) => self.ask(Own::Probe, "server/discover", now),
            None => {
                self.process =
                    Process::Opening(Opening { silent_at: Some(now + SILENCE), ..Opening::default() });
                self.ask(Own::Probe, "server/discover", now);
            }
        }
    }

    /// Sends a request of our own. `server/discover` gets the `_meta` it needs.
    fn ask(&mut self, own: Own, method: &str, _now: Moment) {
        let wire = self.expect(own);
        let params = (method == "server/discover").then(|| format!(r#"{{"_meta":{{{}}}}}"#, self.own_meta()));
        self.send(frame::request(&wire.to_string(), method, params.as_deref()));
    }

    /// What we say of ourselves to a modern process.
    pub(super) fn own_meta(&self) -> String {
        let version = frame::quoted(self.settings.version);
        format!(
            r#""{META_VERSION}":"{MODERN}","{META_CLIENT}":{{"name":"mcpsup","version":{version}}},"{META_CAPABILITIES}":{{}}"#
        )
    }

    /// Opens a legacy process: with our `initialize`, or with that of its one client.
    fn initialize_process(&mut self, _now: Moment) {
        let Process::Opening(opening) = &mut self.process else { return };
        opening.silent_at = None;
        let params = if self.settings.isolated {
            opening.for_client = true;
            if let Some(wire) = opening.client {
                return self.send_client_opening(wire);
            }
            // A client that was there before the process is not asked again.
            let Some(session) = self.sessions.values().next() else { return };
            session.record.initialize.clone()
        } else {
            let version = frame::quoted(self.settings.version);
            let newest = LEGACY[0];
            // Not roots: they differ by client.
            format!(
                r#"{{"protocolVersion":"{newest}","capabilities":{{"sampling":{{}},"elicitation":{{"form":{{}},"url":{{}}}}}},"clientInfo":{{"name":"mcpsup","version":{version}}}}}"#
            )
        };
        if let Process::Opening(opening) = &mut self.process {
            opening.is_initializing = true;
        }
        let wire = self.fresh();
        self.own.insert(wire, Own::Initialize);
        self.send(frame::request(&wire.to_string(), "initialize", Some(&params)));
    }

    /// The client's own `initialize` of an isolated exchange: sent now, or once it is known to be wanted.
    pub(super) fn open_with(&mut self, wire: u64) {
        let Process::Opening(opening) = &mut self.process else { return };
        opening.client = Some(wire);
        if opening.for_client {
            self.send_client_opening(wire);
        }
    }

    fn send_client_opening(&mut self, wire: u64) {
        if let Process::Opening(opening) = &mut self.process {
            opening.is_initializing = true;
        }
        let Some(text) = self.take_text(wire) else { return };
        let Ok(frame) = frame::parse(text.as_bytes()) else { return };
        let Some(call) = self.calls.get_mut(&wire) else { return };
        call.stage = Stage::Sent;
        self.turns.sent(call.owner, wire, false, self.now);
        let mut splice = frame::Splice::new(frame.text);
        if let Some(id) = frame.request_id() {
            splice.put(id, wire.to_string());
        }
        let line = splice.finish("\n");
        self.send(line);
    }

    /// The process answered the `initialize` of its one client.
    pub(super) fn client_opened(&mut self, call: &Call, outcome: Outcome<'_>, now: Moment) {
        let super::turns::Owner::Session(key) = call.owner else { return };
        let opened = match outcome {
            Outcome::Result(result) => Opened { is_modern: false, result: result.to_owned() },
            Outcome::Error(error) => {
                self.end_session_but(key, call.stream);
                return self.unfit(Outcome::Error(error));
            }
        };
        let Some(server) = Server::read(&opened) else {
            self.end_session_but(key, call.stream);
            return self.unfit(outcome);
        };
        if let Some(session) = self.sessions.get_mut(&key) {
            session.record.version = server.version.to_string();
            self.deeds.push(Deed::Remember(key));
        }
        // The client says "initialized" itself.
        self.open(opened, server, false, now);
    }

    /// A modern process that was slow to say so refuses the `initialize` of its one client: the client
    /// is answered in its place.
    pub(super) fn is_modern_after_all(&mut self, wire: u64, outcome: Outcome<'_>, now: Moment) -> bool {
        let Process::Opening(opening) = &mut self.process else { return false };
        let discovered = match outcome {
            Outcome::Error(_) if opening.client == Some(wire) => opening.discovered.take(),
            Outcome::Error(_) | Outcome::Result(_) => None,
        };
        let Some(result) = discovered else { return false };
        self.open_modern(result, now);
        true
    }

    /// An answer to a request of our own.
    pub(super) fn own_answered(&mut self, wire: u64, own: Own, outcome: Outcome<'_>, now: Moment) {
        match own {
            Own::Aside => {}
            Own::Listen => self.own_listen_ended(wire),
            Own::Tools => self.tools_listed(outcome),
            Own::Alive(opened) => {
                if let Some(server) = Server::read(&opened) {
                    // The process that its sessions know.
                    self.is_restored = false;
                    self.open(opened, server, false, now);
                }
            }
            Own::Probe => self.probed(outcome, now),
            Own::Initialize => self.initialized(outcome, now),
        }
    }

    fn probed(&mut self, outcome: Outcome<'_>, now: Moment) {
        let Process::Opening(opening) = &mut self.process else { return };
        let modern = match outcome {
            Outcome::Result(result) if server::is_modern(result) => Some(result.to_owned()),
            Outcome::Result(_) | Outcome::Error(_) => None,
        };
        match modern {
            // Which of its two answers counts is known when the other has come.
            Some(result) if opening.is_initializing => opening.discovered = Some(result),
            Some(result) => self.open_modern(result, now),
            None if opening.is_initializing || opening.for_client => {}
            None if self.settings.modern == Some(true) => self.unfit(outcome),
            None => self.initialize_process(now),
        }
    }

    fn initialized(&mut self, outcome: Outcome<'_>, now: Moment) {
        let Process::Opening(opening) = &mut self.process else { return };
        let discovered = opening.discovered.take();
        if let Outcome::Result(result) = outcome {
            let opened = Opened { is_modern: false, result: result.to_owned() };
            if let Some(server) = Server::read(&opened) {
                return self.open(opened, server, true, now);
            }
        }
        // A modern process that was slow to say so refuses `initialize`.
        match discovered {
            Some(result) => self.open_modern(result, now),
            None if self.own.values().any(|own| *own == Own::Probe) => {
                opening.is_initializing = false;
            }
            None => self.unfit(outcome),
        }
    }

    fn open_modern(&mut self, result: String, now: Moment) {
        let opened = Opened { is_modern: true, result };
        match Server::read(&opened) {
            Some(server) => self.open(opened, server, false, now),
            None => self.unfit(Outcome::Result(&opened.result)),
        }
    }

    /// The process will not be spoken with. What it said may quote a credential, so that goes where output
    /// goes, and nothing of it but a number is said elsewhere.
    fn unfit(&mut self, outcome: Outcome<'_>) {
        let code = match outcome {
            Outcome::Error(error) => members(error, ["code"]).ok().and_then(|[code]| code),
            Outcome::Result(_) => None,
        };
        let why = match (outcome, code.and_then(|code| code.parse::<i64>().ok())) {
            (Outcome::Error(_), Some(code)) => format!("it answered initialize with error {code}"),
            (Outcome::Error(_), None) => "it answered initialize with an error".to_owned(),
            (Outcome::Result(_), _) => "its answer to initialize is not MCP".to_owned(),
        };
        self.counts.refusals += 1;
        self.deeds.push(Deed::Unfit(why));
    }

    /// The process is open.
    fn open(&mut self, opened: Opened, server: Server, says_so: bool, now: Moment) {
        let client = match &mut self.process {
            Process::Opening(opening) => opening.client.take(),
            Process::Away | Process::Open { .. } => None,
        };
        let is_modern = server.is_modern;
        let again = self.server.is_some() || std::mem::take(&mut self.is_restored);
        self.era = Some(is_modern);
        self.server = Some(server);
        self.process = Process::Open { draining: false };
        if says_so {
            self.send(frame::notification("notifications/initialized", None));
        }
        self.deeds.push(Deed::Opened(opened));
        self.reconcile(again);
        if let Some(wire) = client.filter(|_| is_modern) {
            self.answer_initialize(wire, now);
        }
        let waiting = self.calls.iter().filter(|(_, call)| call.stage == Stage::Waits).map(|(wire, _)| *wire);
        let waiting = waiting.collect();
        self.submit_again(waiting);
    }

    /// The process is gone.
    pub fn lost(&mut self, _now: Moment) {
        let mut gone = Vec::new();
        for (wire, call) in &self.calls {
            match call.stage {
                Stage::Sent | Stage::Ghost(_) | Stage::Parked { is_over: false, .. } => gone.push(*wire),
                Stage::Waits | Stage::Asks | Stage::Parked { is_over: true, .. } => {}
            }
        }
        for wire in gone {
            // The others have nobody who listens at the moment.
            if self.calls.get(&wire).is_some_and(|call| call.stage == Stage::Sent) {
                self.fail(wire, SERVER_LOST, LOST);
            } else {
                self.forget_call(wire);
            }
        }
        self.turns.lost();
        self.own.clear();
        self.asks.lost();
        self.listens.lost();
        self.mirrors.lost();
        self.is_checked = false;
        self.process = Process::Away;
    }

    /// From now on no new call goes to this process; what was sent may still be answered.
    pub fn drain(&mut self) {
        if let Process::Open { draining } = &mut self.process {
            *draining = true;
        }
    }

    /// Calls sent and not answered; listen streams, which last, are none.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.turns.all_in_flight()
    }

    /// True if a process is open and takes calls.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        self.process.takes_calls()
    }

    /// Asks the process for a sign of life; [`Deed::Healthy`] is the answer. (Any answer of it is one.)
    pub fn check_health(&mut self) {
        let Process::Open { .. } = self.process else { return };
        self.is_checked = true;
        let is_modern = self.server.as_ref().is_some_and(|server| server.is_modern);
        self.ask(Own::Aside, if is_modern { "server/discover" } else { "ping" }, Moment::default());
    }

    /// One line of the process, without its newline.
    pub fn line(&mut self, line: &[u8], now: Moment) {
        self.now = now;
        let Ok(body) = frame::parse_body(line) else {
            self.counts.not_json_rpc += 1;
            return;
        };
        match body {
            frame::Body::One(frame) => self.heard(&frame, now),
            // 2025-03-26 lets a server batch its answers.
            frame::Body::Batch(frames) => frames.iter().for_each(|frame| self.heard(frame, now)),
        }
    }

    fn heard(&mut self, frame: &Frame<'_>, now: Moment) {
        match &frame.kind {
            frame::Kind::Answer { id, outcome } => {
                if std::mem::take(&mut self.is_checked) {
                    self.deeds.push(Deed::Healthy);
                }
                self.answered(*id, *outcome, frame, now);
            }
            frame::Kind::Request { id, method } => self.asked(id, method, frame, now),
            frame::Kind::Notification { method } => self.noticed(method, frame, now),
        }
    }

    /// A process that said nothing to `server/discover` is asked the older way.
    pub(super) fn break_silence(&mut self, now: Moment) {
        if self.process.silent_at().is_some_and(|at| at <= now) {
            self.initialize_process(now);
        }
    }
}
