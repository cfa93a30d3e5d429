//! Subscriptions of both eras.
//!
//! Modern clients in front of a legacy process: their `subscriptions/listen` is answered here, and fed from
//! what the process announces to everybody. Legacy sessions in front of a modern process: one
//! `subscriptions/listen` of our own, for all lists it announces and every resource that a session
//! subscribed to, feeds them. The process is told of a resource when its first subscriber comes and
//! when its last one goes.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;

use crate::logic::era::META_SUBSCRIPTION;
use crate::logic::frame::{
    self, Frame, Splice, each_of_few_elements, few_members, members, quoted, text_of, whole_number,
};
use crate::model::Moment;

use super::bounds::MAX_OWN;
use super::calls::Own;
use super::opening::Process;
use super::server::{LISTS, severity};
use super::sessions::MAX_SUBSCRIPTIONS;
use super::streams::Streams;
use super::table::Stage;
use super::wants::{Left, Wants};
use super::what::What;
use super::{Deed, Exchange, SessionKey, StreamKey, translate};

/// Listeners at most, of all modern clients of a user.
const MAX_LISTENERS: usize = 1024;

/// A careless process could find one where we do not, and it may be what another session wants.
const NO_URI: &str = "this needs a uri";

/// A modern client that listens, in front of a legacy process.
#[derive(Debug)]
struct Listener {
    stream: StreamKey,
    /// The id of its request, as it came: it names the subscription.
    id: Box<str>,
    lists: [bool; 3],
    resources: BTreeSet<Arc<str>>,
}

#[derive(Debug, Default)]
pub(super) struct Listens {
    listeners: Vec<Listener>,
    /// What clients of both eras want to hear of.
    pub(super) wants: Wants,
    /// The level the legacy process was told.
    level: Option<Box<str>>,
    /// Our own listen at a modern process.
    own: Option<u64>,
    /// It may have to be another.
    is_stale: bool,
}

impl Listens {
    pub(super) fn is_empty(&self) -> bool {
        self.listeners.is_empty()
    }

    /// The process is gone, and what it was told with it; who listens goes on.
    pub(super) fn lost(&mut self) {
        self.wants.lost();
        self.level = None;
        self.own = None;
    }

    pub(super) fn list_changed(&self, method: &str, frame: &Frame<'_>, streams: &mut Streams) {
        let Some(list) = LISTS.iter().position(|(_, _, list)| *list == method) else { return };
        for listener in self.listeners.iter().filter(|listener| listener.lists[list]) {
            streams.push(listener.stream, translate::subscribed(frame, &listener.id));
        }
    }

    pub(super) fn updated(&self, uri: &str, frame: &Frame<'_>, streams: &mut Streams) {
        for listener in self.listeners.iter().filter(|listener| listener.resources.contains(uri)) {
            streams.push(listener.stream, translate::subscribed(frame, &listener.id));
        }
    }

    #[cfg(test)]
    pub(super) fn size(&self) -> usize {
        self.listeners.len() + self.wants.size()
    }
}

impl Exchange {
    /// A modern client listens, in front of a legacy process.
    pub(super) fn listen_for(&mut self, wire: u64, frame: &Frame<'_>) {
        let (Some(call), Some(server)) = (self.forget_call(wire), &self.server) else { return };
        let wanted = frame
            .params
            .and_then(|params| members(params, ["notifications"]).ok())
            .and_then(|[wanted]| wanted);
        let names =
            ["toolsListChanged", "promptsListChanged", "resourcesListChanged", "resourceSubscriptions"];
        let read = wanted.map(|wanted| few_members(wanted, names));
        let full = self.listens.listeners.len() >= MAX_LISTENERS;
        let Some(Ok([tools, prompts, resources, uris])) = read.filter(|_| !full) else {
            return self.refuse(
                call.stream,
                &call.id,
                frame::INVALID_PARAMS,
                "these are no notifications to listen to",
                200,
            );
        };
        let mut lists = [tools, prompts, resources].map(|wanted| wanted == Some("true"));
        for (wanted, has) in lists.iter_mut().zip(server.announces) {
            *wanted &= has;
        }
        let takes = server.subscribe;
        if !self.streams.is_there(call.stream) {
            return;
        }
        let mut resources: BTreeSet<Arc<str>> = BTreeSet::new();
        let read = each_of_few_elements(uris.filter(|_| takes).unwrap_or("[]"), |uri| {
            let wants = &mut self.listens.wants;
            let uri = text_of(uri).filter(|uri| wants.has_room_for(uri) && !resources.contains(&**uri));
            if let Some(uri) = uri.filter(|_| resources.len() < MAX_SUBSCRIPTIONS) {
                resources.insert(wants.add(&uri).0);
            }
        });
        if read.is_err() {
            for uri in std::mem::take(&mut resources) {
                self.unwant(&uri);
            }
        }
        let honoured = filter(lists, uris.map(|_| resources.iter()));
        let params =
            format!(r#"{{"_meta":{{"{META_SUBSCRIPTION}":{}}},"notifications":{honoured}}}"#, call.id);
        let message = frame::notification("notifications/subscriptions/acknowledged", Some(&params));
        self.streams.push(call.stream, message);
        for uri in &resources {
            self.subscribe_at_process(uri);
        }
        self.listens.listeners.push(Listener { stream: call.stream, id: call.id, lists, resources });
    }

    /// A modern client listens no more.
    pub(super) fn stop_listening(&mut self, stream: StreamKey) {
        let at = self.listens.listeners.iter().position(|listener| listener.stream == stream);
        if let Some(listener) = at.map(|at| self.listens.listeners.swap_remove(at)) {
            listener.resources.iter().for_each(|uri| self.unwant(uri));
        }
    }

    /// One client less wants to hear of a resource.
    pub(super) fn unwant(&mut self, uri: &str) {
        if let Left::Nobody { is_told } = self.listens.wants.remove(uri) {
            self.listens.is_stale = true;
            if is_told && self.speaks(false) {
                self.aside("resources/unsubscribe", &format!(r#"{{"uri":{}}}"#, quoted(uri)));
            }
        }
    }

    /// What a session that was known to an earlier daemon wants to hear of.
    pub(super) fn want_again(&mut self, uris: &[String]) {
        for uri in uris {
            self.listens.wants.add(uri);
        }
    }

    /// A session subscribes. A legacy process hears it from its client.
    pub(super) fn subscribe(&mut self, key: SessionKey, wire: u64, frame: &Frame<'_>) {
        let (Some(uri), Some(session)) = (param(frame, "uri"), self.sessions.get_mut(&key)) else {
            return self.fail(wire, frame::INVALID_PARAMS, NO_URI);
        };
        let (all, wants) = (&mut session.record.subscriptions, &mut self.listens.wants);
        if all.iter().all(|known| *known != *uri) {
            if all.len() >= MAX_SUBSCRIPTIONS || !wants.has_room_for(&uri) {
                return self.fail(wire, frame::INVALID_PARAMS, "too many subscriptions, or too long a URI");
            }
            all.push(uri.clone().into_owned());
            self.listens.is_stale |= wants.add(&uri).1;
            self.deeds.push(Deed::Remember(key));
        }
        if self.speaks(true) {
            return self.settle(wire, "{}");
        }
        self.listens.wants.tell(&uri);
        self.relay(wire, frame);
    }

    /// A session unsubscribes. A legacy process hears it from its client, if it is the last.
    pub(super) fn unsubscribe(&mut self, key: SessionKey, wire: u64, frame: &Frame<'_>) {
        let (Some(uri), Some(session)) = (param(frame, "uri"), self.sessions.get_mut(&key)) else {
            return self.fail(wire, frame::INVALID_PARAMS, NO_URI);
        };
        let all = &mut session.record.subscriptions;
        if let Some(at) = all.iter().position(|known| *known == *uri) {
            all.remove(at);
            self.deeds.push(Deed::Remember(key));
            self.listens.is_stale |= self.listens.wants.remove(&uri) != Left::Same;
        }
        if self.speaks(true) || self.listens.wants.contains(&uri) {
            return self.settle(wire, "{}");
        }
        self.relay(wire, frame);
    }

    /// Tells a legacy process what a client wants to hear of, if it does not know.
    fn subscribe_at_process(&mut self, uri: &str) {
        if self.listens.wants.tell(uri) {
            self.aside("resources/subscribe", &format!(r#"{{"uri":{}}}"#, quoted(uri)));
        }
    }

    /// True if a process of this era is open, draining or not.
    fn speaks(&self, modern: bool) -> bool {
        let open = matches!(self.process, Process::Open { .. });
        open && self.server.as_ref().is_some_and(|server| server.is_modern == modern)
    }

    /// A request of our own on whose answer nothing hangs.
    fn aside(&mut self, method: &str, params: &str) {
        let wire = self.expect(Own::Aside);
        self.send(frame::request(&wire.to_string(), method, Some(params)));
    }

    /// The id of a request of our own that is sent now. Of too many that a process does not answer, the oldest
    /// on which nothing hangs is forgotten.
    pub(super) fn expect(&mut self, own: Own) -> u64 {
        let wire = self.fresh();
        if self.own.len() >= MAX_OWN
            && let Some((&oldest, _)) = self.own.iter().find(|(wire, own)| match own {
                Own::Aside => true,
                Own::Listen => Some(**wire) != self.listens.own,
                Own::Probe | Own::Initialize | Own::Alive(_) | Own::Tools => false,
            })
        {
            self.own.remove(&oldest);
            self.forgotten = self.forgotten.max(oldest);
        }
        self.own.insert(wire, own);
        wire
    }

    /// A session says from which severity it wants log messages. The process gets the least of all sessions';
    /// each session gets its own.
    pub(super) fn set_level(&mut self, key: SessionKey, wire: u64, frame: &Frame<'_>) {
        let level = param(frame, "level").filter(|level| severity(level).is_some());
        match (level, self.speaks(true)) {
            (Some(level), is_modern) => {
                self.keep_level(key, &level);
                if is_modern {
                    return self.settle(wire, "{}");
                }
            }
            (None, _) => return self.fail(wire, frame::INVALID_PARAMS, "there is no such level"),
        }
        let least = self.least_level();
        if least == self.listens.level {
            return self.settle(wire, "{}");
        }
        self.listens.level.clone_from(&least);
        let said = frame.params.and_then(|params| members(params, ["level"]).ok()).and_then(|[level]| level);
        let (Some(said), Some(least)) = (said, least) else { return self.relay(wire, frame) };
        let mut splice = Splice::new(frame.text);
        splice.put(said, quoted(&least));
        let text = splice.finish("");
        if let Ok(frame) = frame::parse(&text) {
            self.relay(wire, &frame);
        }
    }

    fn keep_level(&mut self, key: SessionKey, level: &str) {
        if let Some(session) = self.sessions.get_mut(&key)
            && session.record.level.as_deref() != Some(level)
        {
            session.record.level = Some(level.to_owned());
            self.deeds.push(Deed::Remember(key));
        }
    }

    fn least_level(&self) -> Option<Box<str>> {
        let levels = self.sessions.values().filter_map(|session| session.record.level.as_deref());
        levels.min_by_key(|level| severity(level)).map(Into::into)
    }

    /// A process was opened: it hears what its clients want, and they hear that all may be different.
    pub(super) fn reconcile(&mut self, again: bool) {
        let Some(server) = &self.server else { return };
        let announces = server.announces;
        if server.is_modern {
            self.listens.is_stale = true;
        } else {
            for uri in self.listens.wants.uris().cloned().collect::<Vec<_>>() {
                self.subscribe_at_process(&uri);
            }
            self.listens.level = self.least_level();
            if let Some(level) = self.listens.level.clone() {
                self.aside("logging/setLevel", &format!(r#"{{"level":{}}}"#, quoted(&level)));
            }
        }
        for ((_, _, method), _) in LISTS.iter().zip(announces).filter(|(_, announced)| again && *announced) {
            let message = frame::notification(method, None);
            if let Ok(frame) = frame::parse(&message) {
                self.list_changed(method, &frame);
            }
        }
    }

    /// A session came or went.
    pub(super) fn recount_listeners(&mut self) {
        self.listens.is_stale |= self.listens.own.is_none() || self.sessions.is_empty();
    }

    /// Makes our own listen at a modern process what its legacy clients want to hear of, if that changed: once
    /// for all that was said before the process is written to, and not while it does not read.
    pub(super) fn renew_listen(&mut self) {
        if !self.listens.is_stale || self.is_blocked || !self.speaks(true) {
            return;
        }
        self.listens.is_stale = false;
        let is_wanted = !self.sessions.is_empty();
        let old = self.listens.own.take();
        if is_wanted {
            let Some(server) = &self.server else { return };
            let (lists, subscribe) = (server.announces, server.subscribe);
            if lists.contains(&true) || (subscribe && self.listens.wants.uris().len() > 0) {
                let filter = filter(lists, subscribe.then(|| self.listens.wants.uris()));
                let params = format!(r#"{{"_meta":{{{}}},"notifications":{filter}}}"#, self.own_meta());
                let wire = self.expect(Own::Listen);
                self.send(frame::request(&wire.to_string(), "subscriptions/listen", Some(&params)));
                self.listens.own = Some(wire);
            }
        }
        // Not before the new one is on its way. What the process says for this one until it knows of the new one
        // counts, so that nothing is missed between them.
        if let Some(wire) = old {
            if self.listens.own.is_none() {
                self.own.remove(&wire);
            }
            self.send(frame::notification(
                "notifications/cancelled",
                Some(&format!(r#"{{"requestId":{wire}}}"#)),
            ));
        }
    }

    pub(super) fn own_listen_ended(&mut self, wire: u64) {
        if self.listens.own == Some(wire) {
            self.listens.own = None;
        }
    }

    /// Something that a modern process says for the subscription `ours`.
    pub(super) fn noticed_for(&mut self, ours: &str, method: &str, frame: &Frame<'_>) {
        // A process may make a string of our number.
        let Some(wire) = whole_number(ours.trim_matches('"')) else {
            self.counts.unclaimed += 1;
            return;
        };
        if self.own.get(&wire) == Some(&Own::Listen) {
            if self.listens.own == Some(wire) && method == "notifications/subscriptions/acknowledged" {
                self.own.retain(|other, own| *own != Own::Listen || *other == wire);
            }
            let is_list = LISTS.iter().any(|(_, _, list)| *list == method);
            let is_update = method == "notifications/resources/updated";
            let message = translate::unsubscribed(frame);
            match frame::parse(&message) {
                Ok(frame) if is_list => self.list_changed(method, &frame),
                Ok(frame) if is_update => self.updated(&frame),
                Ok(_) | Err(_) => {}
            }
            return;
        }
        let call =
            self.calls.get(&wire).filter(|call| call.stage == Stage::Sent && call.what == What::Listen);
        let (Some(call), Some(params)) = (call, frame.params) else {
            self.counts.unclaimed += 1;
            return;
        };
        let (stream, mut splice) = (call.stream, Splice::new(frame.text));
        translate::put_subscription(&mut splice, params, &call.id);
        self.streams.push(stream, splice.finish(""));
    }

    /// A modern process ends a listen stream (stdio; over HTTP it would close it).
    pub(super) fn process_ends_listen(&mut self, id: &str, _now: Moment) {
        let Some(wire) = whole_number(id.trim_matches('"')) else { return };
        if self.own.get(&wire) == Some(&Own::Listen) {
            self.own.remove(&wire);
            return self.own_listen_ended(wire);
        }
        let listens = self.calls.get(&wire).is_some_and(|call| call.what == What::Listen);
        if let Some(call) = listens.then(|| self.forget_call(wire)).flatten() {
            self.streams.forgo(call.stream);
        }
    }
}

/// A member of the params of a message, if it is a text.
fn param<'a>(frame: &Frame<'a>, name: &str) -> Option<Cow<'a, str>> {
    let [found] = members(frame.params?, [name]).ok()?;
    text_of(found?)
}

/// A filter of notifications.
fn filter<'a>(lists: [bool; 3], resources: Option<impl Iterator<Item = &'a Arc<str>>>) -> String {
    let wanted = LISTS.iter().zip(lists).filter(|(_, wanted)| *wanted);
    let mut fields: Vec<String> = wanted.map(|((_, field, _), _)| format!("\"{field}\":true")).collect();
    let uris: Vec<String> = resources.into_iter().flatten().map(|uri| quoted(uri)).collect();
    if !uris.is_empty() {
        fields.push(format!("\"resourceSubscriptions\":[{}]", uris.join(",")));
    }
    format!("{{{}}}", fields.join(","))
}
