//! The smallest MCP server over Streamable HTTP that the examples can share.
//!
//! It answers both eras of the protocol: `initialize` of 2025-06-18 and 2025-11-25, and the
//! stateless requests of 2026-07-28 (`server/discover`). It keeps no sessions, listens on 127.0.0.1
//! only, and checks Host and Origin, because any web page can make a browser send a request here.
//! A real server takes an SDK; this one is short so that it can be read.

use std::convert::Infallible;
use std::future::Future;
use std::net::Ipv4Addr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Either, Full, Limited};
use hyper::body::{Body, Frame, Incoming};
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HOST, HeaderMap, ORIGIN};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::time::Sleep;

const MODERN: &str = "2026-07-28";
const LEGACY: [&str; 2] = ["2025-11-25", "2025-06-18"];
/// Where a modern request says its version.
const VERSION_KEY: &str = "io.modelcontextprotocol/protocolVersion";
/// The largest request that is read.
const MAX_BODY: usize = 1024 * 1024;

/// The tools of one server.
pub(crate) trait Tools {
    /// The server's name.
    const NAME: &'static str;

    /// The tools as `tools/list` gives them.
    fn list(&self) -> Value;

    /// Hears the head of every request, before anything is done for it.
    fn hear(&self, _headers: &HeaderMap) {}

    /// Runs a tool. `None`: there is no such tool.
    fn call(&self, tool: &str, arguments: &Value) -> impl Future<Output = Option<Outcome>>;
}

/// What a tool has to say.
#[allow(dead_code, reason = "not every example uses every kind")]
pub(crate) enum Outcome {
    /// A text for the model.
    Text(String),
    /// It did not work; the model is told why.
    Failed(String),
    /// So many progress events, one per interval, and then the text "done".
    Events(u32, Duration),
}

/// What a server listens on.
pub(crate) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// A client's connection.
trait Stream: AsyncRead + AsyncWrite + Unpin {}

impl<T: AsyncRead + AsyncWrite + Unpin> Stream for T {}

/// Listens on a port of 127.0.0.1, or on the Unix socket that the path is of.
pub(crate) async fn listen(place: &str) -> Result<Listener, String> {
    if place.starts_with('/') {
        let listener = UnixListener::bind(place).map(Listener::Unix);
        return listener.map_err(|error| format!("cannot listen on {place}: {error}"));
    }
    let port: u16 = place.parse().map_err(|_| format!("{place} is neither a port nor a path"))?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.map(Listener::Tcp);
    listener.map_err(|error| format!("cannot listen on 127.0.0.1:{port}: {error}"))
}

impl Listener {
    async fn accept(&self) -> std::io::Result<Box<dyn Stream>> {
        Ok(match self {
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                drop(stream.set_nodelay(true));
                Box::new(stream)
            }
            Self::Unix(listener) => Box::new(listener.accept().await?.0),
        })
    }
}

/// Serves `tools` until the process ends.
pub(crate) async fn serve<T: Tools + 'static>(listener: Listener, tools: T) {
    let tools = Rc::new(tools);
    let local = tokio::task::LocalSet::new();
    local
        .run_until(async {
            loop {
                let Ok(stream) = listener.accept().await else {
                    // Out of descriptors, most likely: some will come back.
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                };
                let tools = Rc::clone(&tools);
                let service = hyper::service::service_fn(move |request| {
                    let tools = Rc::clone(&tools);
                    async move { Ok::<_, Infallible>(answer(&*tools, request).await) }
                });
                tokio::task::spawn_local(async move {
                    let mut http = hyper::server::conn::http1::Builder::new();
                    let http = http.timer(TokioTimer::new()).header_read_timeout(Duration::from_secs(60));
                    // A connection that breaks is its client's affair.
                    drop(http.serve_connection(TokioIo::new(stream), service).await);
                });
            }
        })
        .await;
}

type Answer = Response<Either<Full<Bytes>, Events>>;

async fn answer<T: Tools>(tools: &T, request: Request<Incoming>) -> Answer {
    tools.hear(request.headers());
    if !is_local(request.headers()) {
        return plain(StatusCode::FORBIDDEN, "this server answers to localhost only");
    }
    if request.uri().path() != "/mcp" {
        return plain(StatusCode::NOT_FOUND, "the endpoint is /mcp");
    }
    if request.method() != Method::POST {
        let mut answer = plain(StatusCode::METHOD_NOT_ALLOWED, "POST only: there are no sessions here");
        answer.headers_mut().insert(ALLOW, hyper::header::HeaderValue::from_static("POST"));
        return answer;
    }
    let (head, body) = request.into_parts();
    let Ok(body) = Limited::new(body, MAX_BODY).collect().await else {
        return plain(StatusCode::PAYLOAD_TOO_LARGE, "a request has at most 1 MiB");
    };
    let message: Value = match serde_json::from_slice(&body.to_bytes()) {
        Ok(message @ Value::Object(_)) => message,
        Ok(_) => {
            return refuse(StatusCode::BAD_REQUEST, &Value::Null, -32600, "expected one JSON-RPC message");
        }
        Err(_) => return refuse(StatusCode::BAD_REQUEST, &Value::Null, -32700, "this is not JSON"),
    };
    let Some(method) = message["method"].as_str() else {
        // An answer: nothing was asked, so it is of no use.
        return plain(StatusCode::ACCEPTED, "");
    };
    let Some(id) = message.get("id") else {
        return plain(StatusCode::ACCEPTED, "");
    };
    let version = head.headers.get("mcp-protocol-version").and_then(|version| version.to_str().ok());
    let modern = version == Some(MODERN) || message["params"]["_meta"].get(VERSION_KEY).is_some();
    if modern && let Err(refusal) = check_modern(&head.headers, &message, id) {
        return *refusal;
    }
    respond(tools, method, id, &message["params"], modern).await
}

/// The methods, one arm each.
async fn respond<T: Tools>(tools: &T, method: &str, id: &Value, params: &Value, modern: bool) -> Answer {
    let about = json!({ "name": T::NAME, "version": env!("CARGO_PKG_VERSION") });
    // A modern result says that it is complete, and that nobody else may be given it from a cache.
    let complete = |mut result: Value, cacheable: bool| {
        if modern {
            result["resultType"] = "complete".into();
            result["_meta"] = json!({ "io.modelcontextprotocol/serverInfo": about });
            if cacheable {
                result["ttlMs"] = 0.into();
                result["cacheScope"] = "private".into();
            }
        }
        say(StatusCode::OK, &json!({ "jsonrpc": "2.0", "id": id, "result": result }))
    };
    match method {
        "server/discover" if modern => complete(
            json!({ "supportedVersions": [MODERN, LEGACY[0], LEGACY[1]], "capabilities": { "tools": {} } }),
            true,
        ),
        "initialize" if !modern => {
            let asked = params["protocolVersion"].as_str();
            let version = LEGACY.into_iter().find(|&known| Some(known) == asked).unwrap_or(LEGACY[0]);
            let capabilities = json!({ "tools": {} });
            complete(
                json!({ "protocolVersion": version, "capabilities": capabilities, "serverInfo": about }),
                false,
            )
        }
        "ping" if !modern => complete(json!({}), false),
        "tools/list" => complete(json!({ "tools": tools.list() }), true),
        "tools/call" => {
            let text = |text: &str, failed: bool| json!({ "content": [{ "type": "text", "text": text }], "isError": failed });
            let Some(tool) = params["name"].as_str() else {
                return refuse(status(modern), id, -32602, "expected the name of a tool");
            };
            match tools.call(tool, &params["arguments"]).await {
                Some(Outcome::Text(said)) => complete(text(&said, false), false),
                Some(Outcome::Failed(why)) => complete(text(&why, true), false),
                Some(Outcome::Events(count, interval)) => {
                    let token = params["_meta"]["progressToken"].clone();
                    let mut result = text("done", false);
                    if modern {
                        result["resultType"] = "complete".into();
                    }
                    let last = json!({ "jsonrpc": "2.0", "id": id, "result": result });
                    stream(Events { count, sent: 0, interval, token, last, sleep: None })
                }
                None => refuse(status(modern), id, -32602, "there is no such tool"),
            }
        }
        _ if modern => refuse(StatusCode::NOT_FOUND, id, -32601, "there is no such method"),
        _ => refuse(StatusCode::OK, id, -32601, "there is no such method"),
    }
}

/// What a modern request must say twice, it must say alike (2026-07-28, Streamable HTTP).
fn check_modern(headers: &HeaderMap, message: &Value, id: &Value) -> Result<(), Box<Answer>> {
    let bad = |code, text: &str| Err(Box::new(refuse(StatusCode::BAD_REQUEST, id, code, text)));
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let meta = &message["params"]["_meta"];
    let Some(version) = meta[VERSION_KEY].as_str() else {
        return bad(-32602, "_meta does not say the protocol version");
    };
    if header("mcp-protocol-version") != Some(version) || header("mcp-method") != message["method"].as_str() {
        return bad(-32020, "the headers do not say what the body says");
    }
    if version != MODERN {
        let error = json!({ "code": -32022, "message": "unsupported protocol version", "data": { "supported": [MODERN] } });
        let answer = json!({ "jsonrpc": "2.0", "id": id, "error": error });
        return Err(Box::new(say(StatusCode::BAD_REQUEST, &answer)));
    }
    Ok(())
}

/// Bad parameters are 400 in the modern era; in the legacy one every answer is 200.
fn status(modern: bool) -> StatusCode {
    if modern { StatusCode::BAD_REQUEST } else { StatusCode::OK }
}

/// True if the request was meant for this host, and no foreign web page sent it.
fn is_local(headers: &HeaderMap) -> bool {
    let name_of = |authority: &str| -> String {
        let end =
            authority.rfind(':').filter(|&at| !authority[at..].contains(']')).unwrap_or(authority.len());
        authority[..end].to_ascii_lowercase()
    };
    let local = |authority: &str| matches!(&*name_of(authority), "127.0.0.1" | "localhost" | "[::1]");
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or(""));
    let origin = text(ORIGIN)
        .is_none_or(|origin| origin.split_once("://").is_some_and(|(_, authority)| local(authority)));
    origin && text(HOST).is_some_and(local)
}

fn refuse(status: StatusCode, id: &Value, code: i32, text: &str) -> Answer {
    say(status, &json!({ "jsonrpc": "2.0", "id": id, "error": { "code": code, "message": text } }))
}

fn say(status: StatusCode, message: &Value) -> Answer {
    respond_with(status, "application/json", Either::Left(Full::from(message.to_string())))
}

fn plain(status: StatusCode, text: &'static str) -> Answer {
    respond_with(status, "text/plain", Either::Left(Full::from(text)))
}

fn stream(events: Events) -> Answer {
    let mut answer = respond_with(StatusCode::OK, "text/event-stream", Either::Right(events));
    answer.headers_mut().insert(CACHE_CONTROL, hyper::header::HeaderValue::from_static("no-store"));
    answer
}

fn respond_with(status: StatusCode, kind: &'static str, body: Either<Full<Bytes>, Events>) -> Answer {
    let mut answer = Response::new(body);
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(kind));
    answer
}

/// An answer that takes its time: server-sent events.
pub(crate) struct Events {
    count: u32,
    sent: u32,
    interval: Duration,
    token: Value,
    last: Value,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Body for Events {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.sent > self.count {
            return Poll::Ready(None);
        }
        let interval = self.interval;
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep(interval)));
        if sleep.as_mut().poll(context).is_pending() {
            return Poll::Pending;
        }
        self.sleep = None;
        self.sent += 1;
        let message = if self.sent > self.count {
            self.last.take()
        } else {
            let params = json!({ "progressToken": self.token, "progress": self.sent, "total": self.count });
            json!({ "jsonrpc": "2.0", "method": "notifications/progress", "params": params })
        };
        Poll::Ready(Some(Ok(Frame::data(format!("event: message\ndata: {message}\n\n").into()))))
    }
}
