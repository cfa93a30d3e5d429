//! What a client's message is, and where it goes.

use crate::logic::era::{self, Refused, allows_batch, refuse};
use crate::logic::frame::{
    self, Body, Frame, INVALID_REQUEST, Kind, SERVER_LOST, Splice, few_members, looks_like, plain_id,
};
use crate::model::Moment;

use super::table::Stage;
use super::turns::Owner;
use super::{Exchange, From, Posted, SessionKey, StreamKey};

/// What the methods of notifications begin with (MCP, schema).
const NOTIFICATIONS: &str = "notifications/";
/// The members of what is said of calls (MCP, schema).
const CANCELLED: [&str; 3] = ["requestId", "reason", "_meta"];
const PROGRESS: [&str; 5] = ["progressToken", "progress", "total", "message", "_meta"];

impl Exchange {
    /// A POST whose body is `body`. Requests wait, within bounds, while no process is open.
    pub fn post(&mut self, from: From, body: &[u8], now: Moment) -> Posted {
        match frame::parse_body(body) {
            Ok(body) => self.post_body(from, &body, now),
            Err(problem) => Posted::Refused(Refused { status: 400, body: problem.to_error() }),
        }
    }

    /// The same for a body that was read already.
    pub fn post_body(&mut self, from: From, body: &Body<'_>, now: Moment) -> Posted {
        let owner = match from {
            From::Session(key) => Owner::Session(key),
            From::Modern => Owner::Modern,
        };
        self.now = now;
        self.touch(owner, now);
        let frames = match body {
            Body::One(frame) => std::slice::from_ref(frame),
            Body::Batch(frames) => &frames[..],
        };
        if let Err(refused) = self.allow(owner, body, frames) {
            return Posted::Refused(refused);
        }
        let requests = frames.iter().filter(|frame| frame.request_id().is_some()).count();
        let stream = (requests > 0).then(|| {
            let session = match owner {
                Owner::Session(key) => Some(key),
                Owner::Modern | Owner::Guest(_) => None,
            };
            self.streams.post(session, requests)
        });
        for frame in frames {
            match (&frame.kind, stream) {
                (Kind::Request { .. }, Some(stream)) => self.request(owner, frame, stream, now),
                (Kind::Request { .. }, None) => {}
                (Kind::Notification { method }, _) => self.notified(owner, method, frame, now),
                (Kind::Answer { id, outcome }, _) => self.replied(owner, *id, *outcome, frame),
            }
        }
        stream.map_or(Posted::Accepted, Posted::Stream)
    }

    fn allow(&self, owner: Owner, body: &Body<'_>, frames: &[Frame<'_>]) -> Result<(), Refused> {
        let session = match owner {
            Owner::Modern | Owner::Guest(_) => return Ok(()),
            Owner::Session(key) => self.sessions.get(&key),
        };
        let Some(session) = session else {
            return Err(refuse(404, None, INVALID_REQUEST, "this session has ended"));
        };
        if matches!(body, Body::Batch(_)) && !allows_batch(&session.record.version) {
            return Err(refuse(400, None, INVALID_REQUEST, "a batch is not allowed in this revision"));
        }
        let mut seen = Vec::new();
        for id in frames.iter().filter_map(Frame::request_id) {
            let plain = plain_id(id);
            if session.calls.contains_key(&*plain) || seen.contains(&plain) {
                return Err(refuse(
                    400,
                    Some(id),
                    INVALID_REQUEST,
                    "this id is in use by a call that is not answered",
                ));
            }
            if frames.len() > 1 {
                seen.push(plain);
            }
        }
        Ok(())
    }

    /// A client's notification.
    fn notified(&mut self, owner: Owner, method: &str, frame: &Frame<'_>, now: Moment) {
        // The modern era has none over HTTP: closing the response is what cancels.
        let Owner::Session(key) = owner else { return };
        let is_modern = self.server.as_ref().is_some_and(|server| server.is_modern);
        match method {
            "notifications/cancelled" => self.client_cancels(key, frame, now),
            // Ours was said when the process was opened, and we declared no roots.
            "notifications/initialized" | "notifications/roots/list_changed" if !self.settings.isolated => {}
            "notifications/progress" if !self.is_progress_of_an_ask(key, frame) => self.counts.unclaimed += 1,
            _ if is_modern => {}
            "notifications/progress" => {
                let params = frame.params.and_then(|params| few_members(params, PROGRESS).ok());
                if let (Some(params), super::Process::Open { .. }) = (params, &self.process) {
                    self.say(method, PROGRESS, params);
                }
            }
            _ if !self.settings.isolated && is_doubtful(method, frame) => {}
            _ => self.pass_on(frame),
        }
    }

    /// To a process that is there, as it came.
    pub(super) fn pass_on(&mut self, frame: &Frame<'_>) {
        if matches!(self.process, super::Process::Open { .. }) {
            self.send(Splice::new(frame.text).finish("\n"));
        }
    }

    /// Says something of a call to the process, with these members only: by another, which we do not know, a
    /// careless reader could take it to be of somebody else's call.
    fn say<const N: usize>(&mut self, method: &str, names: [&str; N], values: [Option<&str>; N]) {
        let pairs = names.iter().zip(values);
        let members = pairs.filter_map(|(name, value)| Some(format!("\"{name}\":{}", value?)));
        let params = format!("{{{}}}", members.collect::<Vec<_>>().join(","));
        let text = String::from_utf8(frame::notification(method, Some(&params))).unwrap_or_default();
        self.send(Splice::new(&text).finish("\n"));
    }

    fn client_cancels(&mut self, key: SessionKey, frame: &Frame<'_>, now: Moment) {
        let said = frame.params.map(|params| few_members(params, CANCELLED));
        let Some(Ok([Some(id), reason, meta])) = said else { return };
        let wire = self.sessions.get(&key).and_then(|session| session.calls.get(&*plain_id(id)).copied());
        let Some(wire) = wire else { return };
        let Some(stage) = self.calls.get(&wire).map(|call| call.stage) else { return };
        let Some(call) = self.forget_call(wire) else { return };
        // Nothing answers a cancelled call.
        self.streams.forgo(call.stream);
        if stage == Stage::Sent {
            let ours = wire.to_string();
            self.say("notifications/cancelled", CANCELLED, [Some(&*ours), reason, meta]);
            self.haunt(wire, call, now);
        }
        self.pump();
    }

    /// Nobody reads this stream any more (its connection ended).
    pub fn dropped(&mut self, stream: StreamKey, now: Moment) {
        self.now = now;
        let session = self.streams.session_of(stream);
        let is_gone = self.streams.dropped(stream, now);
        if let Some(session) = session {
            self.touch(Owner::Session(session), now);
            self.may_be_idle(session);
        }
        self.stop_listening(stream);
        if !is_gone {
            return;
        }
        let calls = self.calls.iter().filter(|(_, call)| call.stream == stream && call.owner.is_modern());
        let calls: Vec<u64> = calls.map(|(wire, _)| *wire).collect();
        for wire in calls {
            // What nobody hears the end of is given up (2026-07-28, cancellation). In the legacy era a
            // connection that breaks cancels nothing.
            self.cancel(wire, now);
        }
        // What was never sent need not be.
        let gone = |call: &super::Call| call.stream == stream && call.stage == Stage::Waits;
        let waiting: Vec<u64> =
            self.calls.iter().filter(|(_, call)| gone(call)).map(|(wire, _)| *wire).collect();
        for wire in waiting {
            self.forget_call(wire);
        }
    }

    /// Refuses every request that waits on a stream that is read: the process did not come in time. `why` is for
    /// people.
    pub fn give_up(&mut self, is_read: impl Fn(StreamKey) -> bool, why: &str) {
        let waits = |call: &super::Call| call.stage == Stage::Waits && is_read(call.stream);
        let waiting: Vec<u64> =
            self.calls.iter().filter(|(_, call)| waits(call)).map(|(wire, _)| *wire).collect();
        for wire in waiting {
            self.fail(wire, SERVER_LOST, why);
        }
    }
}

/// True if a careless process could take a notification, which passes as it came, for a request, or for what is
/// said of a call: what it then asks or does could be another session's.
fn is_doubtful(method: &str, frame: &Frame<'_>) -> bool {
    let Some(name) = method.strip_prefix(NOTIFICATIONS) else { return true };
    let is_plain = |part: &str| {
        part.contains(|letter: char| letter.is_ascii_alphanumeric())
            && part.chars().all(|letter| letter.is_ascii_alphanumeric() || "_-.".contains(letter))
    };
    if !name.split('/').all(is_plain) || ["cancelled", "progress"].iter().any(|known| looks_like(name, known))
    {
        return true;
    }
    let Some(params) = frame.params else { return false };
    match few_members(params, ["requestId", "progressToken", "_meta"]) {
        Ok([None, None, None | Some("null")]) => false,
        Ok([None, None, Some(meta)]) => few_members(meta, ["progressToken"]) != Ok([None]),
        Ok(_) | Err(_) => true,
    }
}

/// True if a careless process could take a request of this method for a notification.
pub(super) fn is_like_a_notification(method: &str) -> bool {
    let method = method.trim_start();
    method.get(..NOTIFICATIONS.len()).is_some_and(|start| looks_like(start, NOTIFICATIONS))
}

/// Keeps the import of the era's own refusals in one place.
pub(super) fn bad_params(id: Option<&str>, why: &str) -> Refused {
    era::refuse(400, id, frame::INVALID_PARAMS, why)
}
