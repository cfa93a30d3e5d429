//! What an instance says: answers to what was asked, and what it says by itself.

use std::sync::Arc;

use serde_json::value::RawValue;

use super::end::envelope_error;
use super::message::{Envelope, Lists, error_of, key, one_line, opened};
use super::session::INITIALIZED;
use super::{Call, CallId, Event, MAX_WAITING, Message, Relay, Stage, What};

impl Relay {
    pub(super) fn said(&mut self, id: CallId, event: Event) {
        if let Some(call) = self.calls.get_mut(&id) {
            call.last_event = event.id.or_else(|| call.last_event.take());
            call.retry = event.retry.or(call.retry);
            call.resumed = 0;
            if self.session.stream == Some(id) {
                self.session.stream_fails = 0;
            }
        }
        if event.data.trim_ascii().is_empty() {
            return;
        }
        let text = one_line(event.data);
        if text.trim_ascii_start().first() == Some(&b'[') {
            // Servers of 2025-03-26 may answer in batches.
            match serde_json::from_slice::<Vec<&RawValue>>(&text) {
                Ok(all) => all.iter().for_each(|one| self.message(id, one.get().as_bytes().to_vec())),
                Err(_) => self.note("an answer that is not JSON is dropped"),
            }
        } else {
            self.message(id, text);
        }
    }

    /// One message of the server's.
    pub(super) fn message(&mut self, id: CallId, text: Vec<u8>) {
        let Some(envelope) = Envelope::read(&text) else {
            return self.note("a message of the server that is not JSON-RPC is dropped");
        };
        let id_of = envelope.id.map(|id| (key(id), id.get().to_owned()));
        if envelope.method.is_some() {
            if let Some((key, id)) = id_of {
                self.session.stale.remove(&key);
                if self.session.asked.len() < MAX_WAITING {
                    self.session.asked.insert(key, id);
                }
            }
            return self.say(text);
        }
        let key = id_of.map(|(key, _)| key);
        let is_its = |call: &Call| match &call.message.what {
            What::Request(asked) => Some(&asked.key) == key.as_ref() && !call.answered,
            What::Replay => !call.answered,
            What::Notification { .. } | What::Answer | What::Ready | What::Stream => false,
        };
        let Some(call) = self.calls.get(&id) else { return };
        // A stream that was taken up again may hold another call's answer.
        let whose = if is_its(call) {
            Some(id)
        } else {
            self.calls.iter().find(|(_, call)| is_its(call)).map(|(id, _)| *id)
        };
        let result = envelope.result.map(opened);
        let why = envelope.error.map(|error| error.get().to_owned());
        let Some(whose) = whose else {
            // An error without an id is this call's, if it is one's.
            return self.nobodys(id, envelope_error(&text).as_deref());
        };
        self.answered(whose, result, why, text);
    }

    /// An answer that has no id: an error, if anything.
    pub(super) fn nobodys(&mut self, id: CallId, error: Option<&str>) {
        let asked = self.calls.get(&id).and_then(|call| match &call.message.what {
            What::Request(asked) if !call.answered => Some(asked.id.clone()),
            What::Request(_)
            | What::Notification { .. }
            | What::Answer
            | What::Replay
            | What::Ready
            | What::Stream => None,
        });
        match (asked, error.and_then(|error| serde_json::from_str::<&RawValue>(error).ok())) {
            (Some(asked), Some(error)) => {
                self.say(error_of(&asked, error));
                self.done(id);
            }
            (_, _) => self.note("an answer to nothing that was asked is dropped"),
        }
    }

    pub(super) fn answered(
        &mut self,
        id: CallId,
        result: Option<(Option<String>, Lists)>,
        why: Option<String>,
        text: Vec<u8>,
    ) {
        let Some(call) = self.calls.get(&id) else { return };
        let is_now = call.round == self.session.round;
        match &call.message.what {
            What::Request(asked) => {
                if asked.method == "initialize" && !asked.modern && is_now {
                    self.opened(result);
                }
                self.say(text);
                self.done(id);
            }
            What::Replay if is_now => {
                self.done(id);
                if result.is_none() {
                    let why = why.unwrap_or_default();
                    return self.lose(&format!("the server did not open the session again: {why}"));
                }
                self.opened(result);
                if self.session.ready {
                    let body = Arc::new(INITIALIZED.as_bytes().to_vec());
                    self.send(Message { what: What::Ready, body, headers: None, again: true });
                } else {
                    self.stage = Stage::Opening;
                }
            }
            What::Replay | What::Notification { .. } | What::Answer | What::Ready | What::Stream => {
                self.done(id);
            }
        }
    }
}
