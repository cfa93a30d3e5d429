//! Streamable HTTP: what a POST, a GET and a DELETE are answered.
//!
//! Sources: MCP 2025-11-25 and 2026-07-28, "Transports".

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Incoming};
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, EXPECT, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use tokio::time::Instant;

use super::events::{Events, PRIMED_SINCE, Reading};
use super::heads::{self, Fault, SESSION};
use super::line::Line;
use super::{Bridge, sessions};
use crate::door::alarm::Alarm;
use crate::door::answer::Refusal;
use crate::door::body::{Cut, Reply, Upload};
use crate::logic::era::{self, Post};
use crate::logic::exchange::{From, Next, Posted, Refused, SessionKey, StreamKey};
use crate::logic::frame;
use crate::model::SessionName;
use crate::model::config::Door as Limits;

/// A call that is answered within this is answered as plain JSON; one that takes longer shows its
/// client meanwhile that it is heard.
const SOON: Duration = Duration::from_secs(1);
/// How long a client may go on saying what is refused before it hears so.
const LONGEST_SKIP: Duration = Duration::from_secs(30);
/// JSON-RPC code for a session that is not known (what the SDKs use; the status is what counts).
const NO_SESSION: i32 = -32001;

/// An answer, as one that is right or as one that is a refusal.
type Answer = Result<Response<Reply>, Refusal>;

/// A client's message with what the bridge has to know of it.
struct Letter<'a> {
    headers: &'a HeaderMap,
    bytes: &'a [u8],
    body: frame::Body<'a>,
    alarm: &'a Alarm,
    /// How long it may wait for a process.
    wait: Duration,
    deadline: Instant,
}

impl Letter<'_> {
    /// The id of its only request, as JSON.
    fn id(&self) -> Option<&str> {
        match &self.body {
            frame::Body::One(one) => one.request_id(),
            frame::Body::Batch(_) => None,
        }
    }

    /// True if it holds a request, so that it needs a process.
    fn asks(&self) -> bool {
        match &self.body {
            frame::Body::One(one) => one.request_id().is_some(),
            frame::Body::Batch(all) => all.iter().any(|one| one.request_id().is_some()),
        }
    }
}

impl Bridge {
    /// Answers a request whose Host and Origin are right.
    pub(in crate::door) async fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
        limits: &Limits,
        alarm: &Alarm,
    ) -> Response<Reply> {
        if request.uri().path() != self.path {
            return fault((StatusCode::NOT_FOUND, "there is nothing at this path"));
        }
        match *request.method() {
            Method::POST => self.post(request, limits, alarm).await,
            Method::GET => self.get(request.headers()).unwrap_or_else(fault),
            Method::DELETE => self.delete(request.headers()).unwrap_or_else(fault),
            _ => not_allowed("GET, POST, DELETE"),
        }
    }

    async fn post(
        self: Arc<Self>,
        request: Request<Incoming>,
        limits: &Limits,
        alarm: &Alarm,
    ) -> Response<Reply> {
        let deadline = Instant::now() + limits.wait;
        let (parts, body) = request.into_parts();
        let headers = parts.headers;
        if let Err(wrong) = heads::check_post(&headers) {
            return fault(wrong);
        }
        // It sends nothing before it is told to go on (RFC 9110, 10.1.1).
        let is_awaited = headers.contains_key(EXPECT);
        let claimed = match self.collect(body, is_awaited, limits, alarm).await {
            Ok(claimed) => claimed,
            Err(refusal) => return refusal.response(),
        };
        let body = match frame::parse_body(&claimed.body) {
            Ok(body) => body,
            Err(not) => return refused(Refused { status: 400, body: not.to_error() }),
        };
        let post = match era::classify(&heads::mcp(&headers), &body) {
            Ok(post) => post,
            Err(wrong) => return refused(wrong),
        };
        let (bytes, wait) = (&*claimed.body, limits.wait);
        let letter = Letter { headers: &headers, bytes, body, alarm, wait, deadline };
        let answer = match post {
            Post::Modern => self.post_to(&self.base, &letter, None).await,
            Post::InSession => {
                let session = heads::session(&headers).unwrap_or_default();
                match self.with_session(session) {
                    Some(line) => self.post_to(&line, &letter, Some(session)).await,
                    None => Ok(refused(no_session(letter.id()))),
                }
            }
            Post::Initialize => self.initialize(&letter).await,
        };
        answer.unwrap_or_else(|refusal| refusal.response_to(letter.id()))
    }

    /// Hands a message to an exchange as soon as its process takes it, and answers what that says.
    async fn post_to(&self, line: &Arc<Line>, letter: &Letter<'_>, session: Option<&str>) -> Answer {
        let posted = line.when(letter.deadline, |state, now| {
            let from = match session.map(|id| state.exchange.session(id)) {
                None => From::Modern,
                Some(Some(key)) => From::Session(key),
                // It may have ended while its client waited.
                Some(None) => return Some(Err(no_session(letter.id()))),
            };
            if let From::Session(key) = from
                && let Some(version) = state.exchange.version(key)
                && let Err(wrong) = era::check_version(heads::version(letter.headers), version)
            {
                return Some(Err(wrong));
            }
            state.wait = letter.wait;
            let goes = if letter.asks() { state.has_room() } else { state.is_not_blocked() };
            if !goes {
                return None;
            }
            if from == From::Modern {
                if !state.exchange.knows_heads(&letter.body, now) {
                    return None;
                }
                let head = |name: &str| heads::head(letter.headers, name);
                if let Err(wrong) = state.exchange.check_heads(&letter.body, &head) {
                    return Some(Err(wrong));
                }
            }
            Some(Ok((from, state.exchange.post_body(from, &letter.body, now))))
        });
        match posted.await? {
            Ok((_, Posted::Accepted)) => Ok(empty(StatusCode::ACCEPTED)),
            Ok((from, Posted::Stream(stream))) => {
                let wants_events = heads::prefers_events(letter.headers);
                let reading = Reading::new(line.clone(), stream);
                Ok(if wants_events {
                    answer_as_stream(reading, from, letter.alarm).await
                } else {
                    answer_soon(reading, from, letter.alarm).await
                })
            }
            Ok((_, Posted::Refused(wrong))) | Err(wrong) => Ok(refused(wrong)),
        }
    }

    async fn initialize(self: &Arc<Self>, letter: &Letter<'_>) -> Answer {
        let (id, name) = sessions::draw().map_err(|cause| {
            tracing::warn!(%cause, "cannot draw a session id");
            Refusal::StillDown
        })?;
        let mut response = if self.is_isolated() {
            let line = self.want(id.clone(), name);
            let mut begun = Begun { bridge: self.clone(), line, name, id: &id, is_sound: false };
            let stream = begin(&begun.line, letter, &id, name).await?;
            let stream = match stream {
                Ok((_, stream)) => stream,
                Err(wrong) => return Ok(refused(wrong)),
            };
            // Nobody knows of this session yet, so it ends with whoever waits for it.
            let mut reading = Reading::new(begun.line.clone(), stream);
            let next = letter.alarm.limit(letter.deadline, reading.next()).await;
            let next = next.ok_or(Refusal::StillDown)?;
            let response = whole(&reading, next).ok_or(Refusal::StillDown)?;
            begun.is_sound = begun.line.knows(&id);
            if begun.is_sound {
                self.settle(name);
            }
            response
        } else {
            match begin(&self.base, letter, &id, name).await? {
                Ok((key, stream)) => {
                    let reading = Reading::new(self.base.clone(), stream);
                    answer_soon(reading, From::Session(key), letter.alarm).await
                }
                Err(wrong) => return Ok(refused(wrong)),
            }
        };
        if self.with_session(&id).is_some()
            && let Ok(mut value) = HeaderValue::try_from(id)
        {
            value.set_sensitive(true);
            response.headers_mut().insert(SESSION, value);
        }
        Ok(response)
    }

    fn get(&self, headers: &HeaderMap) -> Result<Response<Reply>, Fault> {
        if is_modern(headers) {
            return Ok(not_allowed("POST"));
        }
        heads::check_get(headers)?;
        let id = heads::session(headers).ok_or(NEEDS_SESSION)?;
        if let Some(why) = self.why_closed() {
            return Ok(Refusal::Closed(why).response());
        }
        let Some(line) = self.with_session(id) else { return Ok(refused(no_session(None))) };
        let opened = line.turn(|state, now| {
            let key = state.exchange.session(id).ok_or_else(|| no_session(None))?;
            let version = state.exchange.version(key).unwrap_or_default();
            era::check_version(heads::version(headers), version)?;
            let is_primed = version >= PRIMED_SINCE;
            if let Some(last) = heads::last_event(headers).filter(|last| !last.is_empty()) {
                let stream = state.exchange.resume(key, last, now);
                return stream.map(|stream| (stream, None)).ok_or_else(|| at_fault(UNKNOWN_EVENT));
            }
            let stream = state.exchange.listen(key, now);
            Ok((stream, if is_primed { state.exchange.prime(stream) } else { None }))
        });
        Ok(match opened {
            // Not kept alive: an idle session is to cost nothing, and its client finds out when it
            // next speaks.
            Ok((stream, prime)) => events(Events::new(Reading::new(line, stream), prime, false)),
            Err(wrong) => refused(wrong),
        })
    }

    fn delete(&self, headers: &HeaderMap) -> Result<Response<Reply>, Fault> {
        if is_modern(headers) {
            return Ok(not_allowed("POST"));
        }
        let id = heads::session(headers).ok_or(NEEDS_SESSION)?;
        let ended = self.with_session(id).is_some_and(|line| line.end_session(id));
        Ok(if ended { empty(StatusCode::NO_CONTENT) } else { refused(no_session(None)) })
    }

    /// Takes a body in whole, as far as there is room for it. What is too large, or finds no room, is read to
    /// its end all the same, within `max_body`: many clients do not look for an answer before they have said
    /// all.
    async fn collect(
        self: &Arc<Self>,
        body: Incoming,
        is_awaited: bool,
        limits: &Limits,
        alarm: &Alarm,
    ) -> Result<Claimed, Refusal> {
        let message = self.settings().max_message;
        let most = message.min(limits.max_body);
        let too_large = if most == message { Refusal::TooLong } else { Refusal::TooLarge };
        let length = body.size_hint().lower();
        let mut body = Upload::new(body, limits.max_body, limits.head_timeout, alarm.clone(), Arc::default());
        if length > most {
            if length <= limits.max_body && !is_awaited {
                skip(&mut body).await;
            }
            return Err(too_large);
        }
        let mut claimed = Claimed { bridge: self.clone(), bytes: 0, body: Bytes::new() };
        let mut whole = Vec::new();
        while let Some(part) = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
            let part = part.map_err(|cut| match cut {
                Cut::TooLarge => too_large.clone(),
                Cut::Slow => Refusal::Slow,
                Cut::Client(cause) => {
                    tracing::debug!(%cause, "a client left in the middle of a message");
                    Refusal::Slow
                }
            })?;
            let Ok(data) = part.into_data() else { continue };
            if (claimed.bytes + data.len()) as u64 > most {
                drop((claimed, whole, data));
                skip(&mut body).await;
                return Err(too_large);
            }
            if !self.claim(data.len()) {
                drop((claimed, whole, data));
                skip(&mut body).await;
                return Err(Refusal::Crowded);
            }
            claimed.bytes += data.len();
            // Most messages come in one piece, which needs no copy.
            if claimed.body.is_empty() && whole.is_empty() {
                claimed.body = data;
            } else {
                whole.extend_from_slice(&std::mem::take(&mut claimed.body));
                whole.extend_from_slice(&data);
            }
        }
        if !whole.is_empty() {
            claimed.body = whole.into();
        }
        Ok(claimed)
    }
}

/// Reads a body that is refused to its end, if that comes soon.
async fn skip(body: &mut Upload) {
    drop(tokio::time::timeout(LONGEST_SKIP, body.skip()).await);
}

/// A body, and the room it takes.
struct Claimed {
    bridge: Arc<Bridge>,
    bytes: usize,
    body: Bytes,
}

impl Drop for Claimed {
    fn drop(&mut self) {
        self.bridge.release(self.bytes);
    }
}

/// A session with a process of its own whose client does not know it yet: when that client leaves or
/// gets no answer, nobody will ever use it.
struct Begun<'a> {
    bridge: Arc<Bridge>,
    line: Arc<Line>,
    name: SessionName,
    id: &'a str,
    is_sound: bool,
}

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        if !self.is_sound {
            self.line.end_session(self.id);
            self.bridge.give_up(self.name);
        }
    }
}

/// Begins a session as soon as its process is there.
async fn begin(
    line: &Arc<Line>,
    letter: &Letter<'_>,
    id: &str,
    name: SessionName,
) -> Result<Result<(SessionKey, StreamKey), Refused>, Refusal> {
    let begun = line.when(letter.deadline, |state, now| {
        if !state.may_begin() {
            return None;
        }
        state.names.insert(id.to_owned(), name);
        let begun = state.exchange.initialize(id.to_owned(), letter.bytes, now);
        if begun.is_err() {
            state.names.remove(id);
        }
        Some(begun)
    });
    begun.await
}

/// Answers with a stream. In the modern era an error that is the whole answer has a status of its own,
/// so there it waits a little to see whether it is one.
async fn answer_as_stream(mut reading: Reading, from: From, alarm: &Alarm) -> Response<Reply> {
    let first = match from {
        From::Session(_) => None,
        From::Modern => alarm.limit(Instant::now() + SOON, reading.next()).await,
    };
    match first {
        Some(Next::Message { message, last: true, status, .. }) if status != 200 => {
            json(status, reading.count(message))
        }
        Some(Next::Message { id, message, .. }) => {
            events(Events::new(reading, None, true).begin_with(id.as_deref(), &message))
        }
        Some(Next::Pending | Next::End) | None => {
            let prime = reading.prime(from);
            events(Events::new(reading, prime, true))
        }
    }
}

/// Answers with what is on a stream: as JSON if that is one message and comes soon.
async fn answer_soon(mut reading: Reading, from: From, alarm: &Alarm) -> Response<Reply> {
    let next = alarm.limit(Instant::now() + SOON, reading.next()).await;
    let (id, message) = match next {
        Some(Next::Message { message, last: true, status, .. }) => {
            return json(status, reading.count(message));
        }
        Some(Next::Message { id, message, .. }) => (id, Some(message)),
        // The client itself cancelled its call.
        Some(Next::End) => return events(Events::new(reading, None, false)),
        Some(Next::Pending) | None => (None, None),
    };
    let prime = reading.prime(from);
    let stream = Events::new(reading, prime, true);
    events(match message {
        Some(message) => stream.begin_with(id.as_deref(), &message),
        None => stream,
    })
}

/// The whole answer, if this is one.
fn whole(reading: &Reading, next: Next) -> Option<Response<Reply>> {
    match next {
        Next::Message { message, status, .. } => Some(json(status, reading.count(message))),
        Next::Pending | Next::End => None,
    }
}

fn is_modern(headers: &HeaderMap) -> bool {
    heads::version(headers).is_some_and(|version| version.trim_ascii() == era::MODERN)
}

const NEEDS_SESSION: Fault =
    (StatusCode::BAD_REQUEST, "this needs an Mcp-Session-Id header; begin with initialize");
const UNKNOWN_EVENT: Fault = (StatusCode::BAD_REQUEST, "this Last-Event-ID is not known in this session");

fn no_session(id: Option<&str>) -> Refused {
    era::refuse(404, id, NO_SESSION, "this session is not known (any more); begin with initialize")
}

fn refused(refused: Refused) -> Response<Reply> {
    json(refused.status, refused.body.into())
}

fn at_fault((status, why): Fault) -> Refused {
    era::refuse(status.as_u16(), None, frame::SERVER_LOST, why)
}

fn fault(fault: Fault) -> Response<Reply> {
    refused(at_fault(fault))
}

fn not_allowed(allowed: &'static str) -> Response<Reply> {
    let mut response = fault((StatusCode::METHOD_NOT_ALLOWED, "this method is not served here"));
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    response
}

fn empty(status: StatusCode) -> Response<Reply> {
    let mut response = Response::new(Reply::own(Bytes::new()));
    *response.status_mut() = status;
    response
}

fn json(status: u16, body: Bytes) -> Response<Reply> {
    let mut response = Response::new(Reply::own(body));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn events(events: Events) -> Response<Reply> {
    const BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");
    let mut response = Response::new(Reply::Events(events));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, no-transform"));
    headers.insert(BUFFERING, HeaderValue::from_static("no"));
    response
}
