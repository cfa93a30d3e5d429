//! Calls one tool of an MCP server: `call URL TOOL ['{"argument": "value"}']`.
//!
//! The smallest client that can be of use: `initialize`, then `tools/call`, and the text of the
//! answer on stdout. Exit status 0: the tool answered; 1: it did not, and stderr says why; 2: wrong
//! use. `http://` only. What `mcpsup headers` prints may stand in the variable `MCP_HEADERS`.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program of its own")]

use std::process::ExitCode;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST};
use hyper::{Request, Uri};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpStream;

const VERSION: &str = "2025-11-25";
/// The largest answer that is read.
const MAX_ANSWER: usize = 16 * 1024 * 1024;
/// How long an answer may take: a server that was asleep is started first.
const PATIENCE: Duration = Duration::from_secs(60);

/// An open connection, and the session the server gave, if it gave one.
struct Client {
    url: Uri,
    /// What the door is to know us by.
    authorization: Option<String>,
    session: Option<hyper::header::HeaderValue>,
}

impl Client {
    /// Sends one message; `None` is the answer to a notification.
    async fn send(&mut self, message: &Value) -> Result<Option<Value>, String> {
        let host = self.url.authority().ok_or("the URL names no host")?.clone();
        let port = host.port_u16().unwrap_or(80);
        let connected = TcpStream::connect((host.host().trim_matches(['[', ']']), port)).await;
        let stream = connected.map_err(|error| format!("cannot connect to {host}: {error}"))?;
        let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) =
            handshake.map_err(|error| format!("cannot speak to {host}: {error}"))?;
        tokio::spawn(connection);
        let path = self.url.path_and_query().map_or("/", |path| path.as_str());
        let mut request = Request::post(path)
            .header(HOST, host.as_str())
            .header(CONTENT_TYPE, "application/json")
            .header(ACCEPT, "application/json, text/event-stream")
            .header("MCP-Protocol-Version", VERSION);
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        if let Some(session) = &self.session {
            request = request.header("Mcp-Session-Id", session);
        }
        let request = request.body(Full::<Bytes>::from(message.to_string()));
        let request = request.map_err(|error| format!("cannot make the request: {error}"))?;
        let response = sender.send_request(request).await;
        let (head, body) = response.map_err(|error| format!("no answer from {host}: {error}"))?.into_parts();
        let body = Limited::new(body, MAX_ANSWER).collect().await;
        let body = body.map_err(|error| format!("the answer of {host} breaks off: {error}"))?.to_bytes();
        let body = String::from_utf8_lossy(&body);
        if !head.status.is_success() {
            return Err(format!("{host} answers {}: {}", head.status, body.trim()));
        }
        self.session = self.session.take().or_else(|| head.headers.get("mcp-session-id").cloned());
        Ok(answer_in(&body, message["id"].as_i64()))
    }
}

/// The answer to request `id`: the body, or the one event of it that answers.
fn answer_in(body: &str, id: Option<i64>) -> Option<Value> {
    let events = body.lines().filter_map(|line| line.strip_prefix("data:"));
    events
        .chain([body])
        .filter_map(|text| serde_json::from_str::<Value>(text).ok())
        .find(|answer| id.is_some() && answer["id"].as_i64() == id)
}

/// The result, or what the server says is wrong.
fn result_of(answer: Option<Value>) -> Result<Value, String> {
    let mut answer = answer.ok_or("the server gives no answer")?;
    match answer["error"]["message"].as_str() {
        Some(error) => Err(format!("the server refuses: {error}")),
        None => Ok(answer["result"].take()),
    }
}

/// From the headers in `MCP_HEADERS`, as `mcpsup headers` prints them: not an argument, which everybody
/// could read.
fn authorization() -> Result<Option<String>, String> {
    let Some(headers) = std::env::var_os("MCP_HEADERS").filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    let headers: Value = serde_json::from_str(&headers.to_string_lossy())
        .map_err(|_| "MCP_HEADERS is not what mcpsup headers prints")?;
    Ok(headers["Authorization"].as_str().map(str::to_owned))
}

async fn call(url: Uri, tool: &str, arguments: Value) -> Result<String, String> {
    let mut client = Client { url, authorization: authorization()?, session: None };
    let about = json!({ "name": "call", "version": env!("CARGO_PKG_VERSION") });
    let params = json!({ "protocolVersion": VERSION, "capabilities": {}, "clientInfo": about });
    let hello = json!({ "jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params });
    result_of(client.send(&hello).await?)?;
    client.send(&json!({ "jsonrpc": "2.0", "method": "notifications/initialized" })).await?;
    let params = json!({ "name": tool, "arguments": arguments });
    let call = json!({ "jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": params });
    let result = result_of(client.send(&call).await?)?;
    let content = result["content"].as_array().into_iter().flatten();
    let text = content.filter_map(|item| item["text"].as_str()).collect::<Vec<_>>().join("\n");
    if result["isError"] == true { Err(text) } else { Ok(text) }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments: Vec<String> =
        std::env::args_os().skip(1).map(|text| text.to_string_lossy().into()).collect();
    let (url, tool, with) = match &arguments[..] {
        [url, tool] => (url, tool, "{}"),
        [url, tool, with] => (url, tool, &**with),
        _ => {
            eprintln!("usage: call URL TOOL ['{{\"argument\": \"value\"}}']");
            return ExitCode::from(2);
        }
    };
    let (Ok(url), Ok(with)) = (url.parse::<Uri>(), serde_json::from_str(with)) else {
        eprintln!("call: expected a URL, the name of a tool, and its arguments as JSON");
        return ExitCode::from(2);
    };
    let outcome = tokio::time::timeout(PATIENCE, call(url, tool, with)).await;
    match outcome.unwrap_or_else(|_| Err("no answer in 60 s".into())) {
        Ok(text) => {
            println!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("call: {error}");
            ExitCode::FAILURE
        }
    }
}
