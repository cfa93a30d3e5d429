//! Subscriptions of both eras.
//!
//! Modern clients in front of a legacy process: their `subscriptions/listen` is answered here, and fed from
//! what the process announces to everybody. Legacy sessions in front of a modern process: one
//! `subscriptions/listen` of our own, for all lists it announces and every resource that a session
//! subscribed to, feeds them. The process is told of a resource when its first subscriber comes and
//! when its last one goes.

use std::collections::BTreeSet;

use crate::logic::era::META_SUBSCRIPTION;
use crate::logic::frame::{self, Frame, Splice, each_element, members, quoted, text_of, whole_number};
use crate::model::Moment;

use super::calls::{Own, Stage};
use super::opening::Process;
use super::server::{LISTS, severity};
use super::sessions::{MAX_SUBSCRIPTIONS, MAX_URI};
use super::streams::Streams;
use super::what::What;
use super::{Deed, Exchange, SessionKey, StreamKey, translate};

/// Listeners at most, of all modern clients of a user.
const MAX_LISTENERS: usize = 1024;

/// A modern client that listens, in front of a legacy process.
#[derive(Debug)]
struct Listener {
    stream: StreamKey,
    /// The id of its request, as it came: it names the subscription.
    id: Box<str>,
    lists: [bool; 3],
    resources: BTreeSet<Box<str>>,
}

#[derive(Debug, Default)]
pub(super) struct Listens {
    listeners: Vec<Listener>,
    /// What the legacy process was told that we want to hear of.
    subscribed: BTreeSet<Box<str>>,
    /// The level the legacy process was told.
    level: Option<Box<str>>,
    /// Our own listen at a modern process, and the resources in it.
    own: Option<(u64, BTreeSet<Box<str>>)>,
}

impl Listens {
    pub(super) fn is_empty(&self) -> bool {
        self.listeners.is_empty()
    }

    pub(super) fn dropped(&mut self, stream: StreamKey) {
        self.listeners.retain(|listener| listener.stream != stream);
    }

    /// The process is gone, and what it was told with it; who listens goes on.
    pub(super) fn lost(&mut self) {
        self.subscribed.clear();
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
        self.listeners.len() + self.subscribed.len()
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
        let read = wanted.map(|wanted| members(wanted, names));
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
        let mut resources: BTreeSet<Box<str>> = BTreeSet::new();
        if server.subscribe {
            let read = each_element(uris.unwrap_or("[]"), |uri| {
                if let Some(uri) =
                    text_of(uri).filter(|uri| uri.len() <= MAX_URI && resources.len() < MAX_SUBSCRIPTIONS)
                {
                    resources.insert((*uri).into());
                }
            });
            if read.is_err() {
                resources.clear();
            }
        }
        let honoured = filter(lists, uris.map(|_| &resources));
        let params =
            format!(r#"{{"_meta":{{"{META_SUBSCRIPTION}":{}}},"notifications":{honoured}}}"#, call.id);
        let message = frame::notification("notifications/subscriptions/acknowledged", Some(&params));
        self.streams.push(call.stream, message);
        if !self.streams.is_there(call.stream) {
            return;
        }
        self.listens.listeners.push(Listener { stream: call.stream, id: call.id, lists, resources });
        self.subscribe_at_process();
    }

    /// Everything that some client subscribed to.
    fn wanted(&self) -> BTreeSet<Box<str>> {
        let sessions = self.sessions.values().flat_map(|session| session.record.subscriptions.iter());
        let listeners = self.listens.listeners.iter().flat_map(|listener| listener.resources.iter());
        sessions.map(|uri| uri.as_str().into()).chain(listeners.cloned()).collect()
    }

    /// A session subscribes; what it says to the process is its own affair.
    pub(super) fn subscribe(&mut self, key: SessionKey, uri: &str) {
        let Some(session) = self.sessions.get_mut(&key) else { return };
        let all = &mut session.record.subscriptions;
        if uri.len() > MAX_URI || all.len() >= MAX_SUBSCRIPTIONS || all.iter().any(|known| known == uri) {
            return;
        }
        all.push(uri.to_owned());
        self.deeds.push(Deed::Remember(key));
        self.listens.subscribed.insert(uri.into());
    }

    /// A session unsubscribes. True if nobody is subscribed any more.
    pub(super) fn unsubscribe(&mut self, key: SessionKey, uri: &str) -> bool {
        let Some(session) = self.sessions.get_mut(&key) else { return false };
        let before = session.record.subscriptions.len();
        session.record.subscriptions.retain(|known| known != uri);
        if session.record.subscriptions.len() < before {
            self.deeds.push(Deed::Remember(key));
        }
        let last = !self.wanted().contains(uri);
        if last {
            self.listens.subscribed.remove(uri);
        }
        last
    }

    /// Tells a legacy process what clients want to hear of, as far as it does not know.
    fn subscribe_at_process(&mut self) {
        let wanted = self.wanted();
        for uri in wanted.difference(&self.listens.subscribed.clone()) {
            self.aside("resources/subscribe", &format!(r#"{{"uri":{}}}"#, quoted(uri)));
        }
        self.listens.subscribed.extend(wanted);
    }

    /// Tells a legacy process what nobody wants to hear of any more.
    pub(super) fn trim_subscriptions(&mut self) {
        if self.listens.subscribed.is_empty() {
            return;
        }
        let wanted = self.wanted();
        let old: Vec<Box<str>> = self.listens.subscribed.difference(&wanted).cloned().collect();
        for uri in old {
            self.listens.subscribed.remove(&uri);
            if self.speaks(false) {
                self.aside("resources/unsubscribe", &format!(r#"{{"uri":{}}}"#, quoted(&uri)));
            }
        }
    }

    /// True if a process of this era is open, draining or not.
    fn speaks(&self, modern: bool) -> bool {
        let open = matches!(self.process, Process::Open { .. });
        open && self.server.as_ref().is_some_and(|server| server.is_modern == modern)
    }

    /// A request of our own on whose answer nothing hangs.
    fn aside(&mut self, method: &str, params: &str) {
        let wire = self.fresh();
        self.own.insert(wire, Own::Aside);
        self.send(frame::request(&wire.to_string(), method, Some(params)));
    }

    /// A session says from which severity it wants log messages. The process gets the least of all sessions';
    /// each session gets its own.
    pub(super) fn set_level(&mut self, key: SessionKey, wire: u64, frame: &Frame<'_>, level: &str) {
        if severity(level).is_none() {
            return self.relay(wire, frame);
        }
        self.keep_level(key, level);
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

    pub(super) fn keep_level(&mut self, key: SessionKey, level: &str) {
        if severity(level).is_none() {
            return;
        }
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
            self.renew_listen();
        } else {
            self.subscribe_at_process();
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

    /// Makes our own listen at a modern process what its legacy clients want to hear of.
    pub(super) fn renew_listen(&mut self) {
        if !self.speaks(true) {
            return;
        }
        let wanted = self.wanted();
        let is_wanted = !self.sessions.is_empty();
        if self.listens.own.as_ref().is_some_and(|(_, resources)| is_wanted && *resources == wanted) {
            return;
        }
        let old = self.listens.own.take();
        if is_wanted {
            let Some(server) = &self.server else { return };
            let (lists, subscribe) = (server.announces, server.subscribe);
            if lists.contains(&true) || (subscribe && !wanted.is_empty()) {
                let wire = self.fresh();
                let filter = filter(lists, Some(&wanted).filter(|_| subscribe));
                let params = format!(r#"{{"_meta":{{{}}},"notifications":{filter}}}"#, self.own_meta());
                self.own.insert(wire, Own::Listen);
                self.send(frame::request(&wire.to_string(), "subscriptions/listen", Some(&params)));
                self.listens.own = Some((wire, wanted));
            }
        }
        // Not before the new one is on its way: nothing is to be missed between them.
        if let Some((wire, _)) = old {
            self.own.remove(&wire);
            self.send(frame::notification(
                "notifications/cancelled",
                Some(&format!(r#"{{"requestId":{wire}}}"#)),
            ));
        }
    }

    pub(super) fn own_listen_ended(&mut self, wire: u64) {
        if self.listens.own.as_ref().is_some_and(|(own, _)| *own == wire) {
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

/// A filter of notifications.
fn filter(lists: [bool; 3], resources: Option<&BTreeSet<Box<str>>>) -> String {
    let wanted = LISTS.iter().zip(lists).filter(|(_, wanted)| *wanted);
    let mut fields: Vec<String> = wanted.map(|((_, field, _), _)| format!("\"{field}\":true")).collect();
    if let Some(resources) = resources.filter(|resources| !resources.is_empty()) {
        let uris: Vec<String> = resources.iter().map(|uri| quoted(uri)).collect();
        fields.push(format!("\"resourceSubscriptions\":[{}]", uris.join(",")));
    }
    format!("{{{}}}", fields.join(","))
}
