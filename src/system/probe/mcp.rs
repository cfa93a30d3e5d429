//! A real MCP round trip: does the server answer the protocol, of whichever era?
//!
//! First `server/discover` as of 2026-07-28; whatever is not an answer of that era (an error, an
//! HTTP status, silence) means that the server may be older, and `initialize` as of 2025-11-25
//! decides. A session that `initialize` opened is deleted again: a probe leaves nothing behind.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use hyper::{Request, Response};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::json;
use tokio::time::timeout;

use super::sse::Events;
use super::{Link, MAX_ANSWER, NotReady, answered, exchange, is_type, next, plain, request};
use crate::system::socket::Address;

const MODERN: &str = "2026-07-28";
const LEGACY: &str = "2025-11-25";
const VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");
const METHOD: HeaderName = HeaderName::from_static("mcp-method");
const SESSION: HeaderName = HeaderName::from_static("mcp-session-id");
const BOTH: HeaderValue = HeaderValue::from_static("application/json, text/event-stream");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
/// How long the deletion of the probe's session may take; whether it worked changes nothing.
const GOODBYE: Duration = Duration::from_secs(1);

/// One message of JSON-RPC, as far as a probe looks into it.
#[derive(Deserialize)]
struct Message {
    #[serde(default)]
    result: Option<IgnoredAny>,
    #[serde(default)]
    error: Option<Failure>,
}

#[derive(Deserialize)]
struct Failure {
    code: i64,
}

impl Failure {
    /// Header mismatch, missing capability, unsupported version: only a server of the modern era
    /// gives these, and giving one is answering.
    fn is_modern(&self) -> bool {
        (-32022..=-32020).contains(&self.code)
    }
}

/// An address, a path, and what to come in with.
type To<'a> = (&'a Address, &'a str, Option<&'a HeaderValue>);

/// Asks until the server has answered as MCP; `left` is the time that remains for all of it.
pub(super) async fn round_trip(to: To<'_>, left: impl Fn() -> Duration) -> Result<(), NotReady> {
    // Half of the time, so that silence towards the new method leaves enough for the old one.
    if let Ok(Ok((answer, ..))) = timeout(left() / 2, ask(to.0, discover(to)?)).await
        && (answer.result.is_some() || answer.error.is_some_and(|error| error.is_modern()))
    {
        return Ok(());
    }
    let late = || NotReady("it did not answer initialize in time".to_owned());
    let initialize = initialize(to)?;
    let (answer, headers) = timeout(left(), ask(to.0, initialize)).await.map_err(|_| late())??;
    if let Some(session) = headers.get(SESSION) {
        // Said or not, the session is the server's to expire.
        drop(timeout(GOODBYE, goodbye(to, session)).await);
    }
    match answer {
        Message { result: Some(_), .. } => Ok(()),
        Message { error: Some(Failure { code }), .. } => {
            Err(NotReady(format!("it answered initialize with error {code}")))
        }
        Message { result: None, error: None } => Err(no_mcp()),
    }
}

fn no_mcp() -> NotReady {
    NotReady("its answer is not MCP; is [server.NAME] path right?".to_owned())
}

fn discover(to: To<'_>) -> Result<Request<Full<Bytes>>, NotReady> {
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": "server/discover", "params": {"_meta": {
        "io.modelcontextprotocol/protocolVersion": MODERN,
        "io.modelcontextprotocol/clientCapabilities": {},
        "io.modelcontextprotocol/clientInfo": {"name": "mcpsup", "version": env!("CARGO_PKG_VERSION")},
    }}});
    let mut post = post(to, &body)?;
    post.headers_mut().insert(VERSION, HeaderValue::from_static(MODERN));
    post.headers_mut().insert(METHOD, HeaderValue::from_static("server/discover"));
    Ok(post)
}

fn initialize(to: To<'_>) -> Result<Request<Full<Bytes>>, NotReady> {
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
        "protocolVersion": LEGACY,
        "capabilities": {},
        "clientInfo": {"name": "mcpsup", "version": env!("CARGO_PKG_VERSION")},
    }});
    post(to, &body)
}

fn post(
    (address, path, authorization): To<'_>,
    body: &serde_json::Value,
) -> Result<Request<Full<Bytes>>, NotReady> {
    let mut post = request("POST", path, address, Bytes::from(body.to_string()))?;
    post.headers_mut().insert(CONTENT_TYPE, JSON);
    post.headers_mut().insert(ACCEPT, BOTH);
    post.headers_mut().extend(authorization.map(|value| (AUTHORIZATION, value.clone())));
    Ok(post)
}

async fn goodbye((address, path, authorization): To<'_>, session: &HeaderValue) -> Result<(), NotReady> {
    let mut delete = plain("DELETE", path, address)?;
    delete.headers_mut().extend(authorization.map(|value| (AUTHORIZATION, value.clone())));
    delete.headers_mut().insert(SESSION, session.clone());
    delete.headers_mut().insert(VERSION, HeaderValue::from_static(LEGACY));
    exchange(address, delete).await.map(drop)
}

/// Sends one request and reads until its answer is there.
async fn ask(backend: &Address, request: Request<Full<Bytes>>) -> Result<(Message, HeaderMap), NotReady> {
    let (response, link) = exchange(backend, request).await?;
    let status = response.status();
    let headers = response.headers().clone();
    match answer(response, link).await {
        // An error may come with any status; a result only with success.
        Some(message) if status.is_success() || message.error.is_some() => Ok((message, headers)),
        Some(_) | None if !status.is_success() => Err(answered(status)),
        Some(_) | None => Err(no_mcp()),
    }
}

async fn answer(response: Response<Incoming>, _link: Link) -> Option<Message> {
    let streamed = is_type(&response, "text/event-stream");
    let mut body = response.into_body();
    let (mut read, mut whole, mut events) = (0, Vec::new(), Events::default());
    while let Some(bytes) = next(&mut body).await {
        read += bytes.len();
        if read > MAX_ANSWER {
            return None;
        }
        if streamed {
            let mut found = None;
            events.push(&bytes, |data| {
                found = found.take().or_else(|| message(data));
            });
            if found.is_some() {
                return found;
            }
        } else {
            whole.extend_from_slice(&bytes);
        }
    }
    message(&whole)
}

/// The answer in these bytes; notifications that come before it are not one.
fn message(data: &[u8]) -> Option<Message> {
    let message: Message = serde_json::from_slice(data).ok()?;
    (message.result.is_some() || message.error.is_some()).then_some(message)
}
