//! How a request ended, and what that means for whoever waited for an answer: what had no effect
//! is sent again, what may have had one is not.

use serde_json::value::RawValue;

use super::message::{Envelope, error, error_of, one_line};
use super::{
    Asked, Call, CallId, End, FAILED, LONGEST_AWAY, LONGEST_RETRY, MAX_RESUMED, Message, Relay, STAY_AWAY,
    What,
};

impl Relay {
    pub(super) fn ended(&mut self, id: CallId, end: &End) {
        let Some(call) = self.calls.get(&id) else { return };
        if call.answered {
            self.calls.remove(&id);
            return;
        }
        let is_gone = matches!(end, End::Refused { status: 404, by_daemon: None, .. }) && call.named_session;
        if is_gone && self.session.opening.is_some() {
            return self.unknown_session(id);
        }
        match &call.message.what {
            What::Request(asked) => {
                let opens = asked.method == "initialize" && !asked.modern;
                let can_resume = !asked.modern && call.last_event.is_some() && call.resumed < MAX_RESUMED;
                match end {
                    End::Whole | End::Broken if can_resume => self.resume(id),
                    // It changes nothing to say it twice.
                    End::Broken if opens && !call.message.again => self.send_again(id),
                    End::Whole | End::Broken | End::Unsent(_) | End::Refused { .. } | End::Strange(_) => {
                        self.fail(id, end);
                    }
                }
            }
            What::Notification { initialized } => {
                let initialized = *initialized && call.round == self.session.round;
                self.forget(id);
                self.note(format!("a notification did not arrive: {}", words(end)));
                if initialized {
                    self.session.ready = true;
                    self.open();
                }
            }
            What::Answer => {
                self.forget(id);
                self.note(format!("an answer did not arrive: {}", words(end)));
            }
            What::Replay | What::Ready => {
                let is_now = call.round == self.session.round;
                self.forget(id);
                if is_now {
                    self.lose(&format!("cannot open the session again: {}", words(end)));
                }
            }
            What::Stream => self.stream_ended(id, end),
        }
    }

    pub(super) fn forget(&mut self, id: CallId) -> Option<Call> {
        self.done(id);
        self.calls.remove(&id)
    }

    /// The server does not know the session that a request named, so it did nothing about it.
    pub(super) fn unknown_session(&mut self, id: CallId) {
        let Some(call) = self.forget(id) else { return };
        let is_now = call.round == self.session.round;
        let resumed = call.last_event.is_some();
        if self.session.stream == Some(id) {
            self.session.stream = None;
        }
        match call.message.what {
            What::Request(asked) if call.message.again || resumed => {
                if !asked.cancelled {
                    self.say(error(&asked.id, FAILED, LOST));
                }
            }
            What::Request(_) | What::Notification { .. } if !call.message.again => {
                self.lane.push_front(Message { again: true, ..call.message });
            }
            What::Request(_)
            | What::Notification { .. }
            | What::Answer
            | What::Replay
            | What::Ready
            | What::Stream => {}
        }
        if is_now {
            self.renew();
        }
    }

    pub(super) fn send_again(&mut self, id: CallId) {
        if let Some(call) = self.forget(id) {
            let again = self.send(Message { again: true, ..call.message });
            self.turn = Some(again);
        }
    }

    /// Takes up a stream where it broke off.
    pub(super) fn resume(&mut self, id: CallId) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        call.resumed += 1;
        let after = call.retry.unwrap_or(STAY_AWAY).min(LONGEST_RETRY);
        self.get(id, after);
    }

    pub(super) fn fail(&mut self, id: CallId, end: &End) {
        let opened = |asked: &Asked| asked.method == "initialize" && !asked.modern;
        let Some(call) = self.forget(id) else { return };
        let What::Request(asked) = call.message.what else { return };
        if opened(&asked) && call.round == self.session.round {
            self.session.opening = None;
        }
        // Nobody waits for it any more.
        if asked.cancelled {
            return;
        }
        let line = match end {
            // What was resumed has been begun.
            End::Refused { .. } if call.last_event.is_some() => error(&asked.id, FAILED, LOST),
            End::Unsent(why) | End::Strange(why) if call.last_event.is_some() => {
                error(&asked.id, FAILED, &format!("{LOST}; {why}"))
            }
            End::Refused { body, by_daemon: None, .. } => match envelope_error(body) {
                Some(why) => match serde_json::from_str::<&RawValue>(&why) {
                    Ok(why) => error_of(&asked.id, why),
                    Err(_) => error(&asked.id, FAILED, &words(end)),
                },
                None => error(&asked.id, FAILED, &words(end)),
            },
            End::Whole | End::Broken | End::Unsent(_) | End::Refused { .. } | End::Strange(_) => {
                error(&asked.id, FAILED, &words(end))
            }
        };
        self.say(line);
    }

    pub(super) fn stream_ended(&mut self, id: CallId, end: &End) {
        let Some(call) = self.forget(id) else { return };
        if self.session.stream != Some(id) || call.round != self.session.round {
            return;
        }
        self.session.stream = None;
        let fails = self.session.stream_fails;
        let away = (STAY_AWAY * 2_u32.pow(fails.min(6))).min(LONGEST_AWAY);
        match end {
            // It has none, or none for us.
            End::Refused { status: 400..=499, .. } | End::Strange(_) => {}
            End::Whole | End::Broken | End::Unsent(_) | End::Refused { .. } => {
                self.session.stream_fails += 1;
                let after = call.retry.map_or(away, |retry| retry.min(LONGEST_RETRY));
                self.listen(after, call.last_event);
            }
        }
    }
}

const LOST: &str = "the connection was lost while this call was in flight; it may have taken effect";

/// What an end means for whoever waited for something else.
fn words(end: &End) -> String {
    match end {
        End::Broken => LOST.to_owned(),
        End::Whole => "the server ended this call without an answer; it may have taken effect".to_owned(),
        End::Unsent(why) | End::Strange(why) => why.clone(),
        End::Refused { by_daemon: Some(text), .. } => text.clone(),
        End::Refused { status, by_daemon: None, .. } => {
            format!("the server answered with HTTP status {status}")
        }
    }
}

/// The error that a body holds, if it is one message.
pub(super) fn envelope_error(body: &[u8]) -> Option<String> {
    let body = one_line(body.to_vec());
    Envelope::read(&body).and_then(|envelope| envelope.error.map(|error| error.get().to_owned()))
}
