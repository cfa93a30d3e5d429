//! Bridges with pretend processes: this test reads what is said to them from a real pipe, and says
//! what they say.

mod drops;
mod isolated;
mod restarts;
mod rules;
mod streams;

use std::net::{IpAddr, SocketAddr};

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpStream;
use tokio::net::unix::pipe;
use tokio::sync::watch;
use tokio::time::timeout;

use super::*;
use crate::door::tests::{LIMIT, Line as Wires, settings as limits};
use crate::door::{Behind, Door, Gate, Settings};
use crate::logic::access::Guard;
use crate::model::config::{self, Era};
use crate::system::ready::Hub;
use crate::system::socket;

const VERSION: &str = "2025-11-25";
const META: &str = r#"{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}"#;

struct World {
    bridge: Arc<Bridge>,
    door: Door,
    words: mpsc::UnboundedReceiver<Word>,
    skipped: Vec<Word>,
    runs: u64,
    _hub: Hub,
}

fn world_with(limits: config::Door, stdio: Stdio) -> World {
    let here = IpAddr::from([127, 0, 0, 1]);
    let (_, seen) = watch::channel(Arc::new(Settings { limits, listen: here }));
    let instance = InstanceId::new("alice".parse().unwrap(), "notes".parse().unwrap());
    let (say, words) = mpsc::unbounded_channel();
    let bridge = Bridge::new(instance.clone(), stdio, "/mcp".to_owned(), "1.2.3", say);
    let behind = Behind::Stdio(bridge.clone());
    let hub = Hub::new().unwrap();
    let listener = hub.add(socket::listen(here, 0).unwrap()).unwrap();
    let door = Door::open(listener, seen, instance, behind, Arc::default()).unwrap();
    let guard = Guard { access: config::Access::Open, ..Guard::default() };
    door.guard(Gate { guard, token: None });
    World { bridge, door, words, skipped: Vec::new(), runs: 0, _hub: hub }
}

fn legacy() -> Stdio {
    Stdio { era: Era::Legacy, ..Stdio::of(Sessions::Shared) }
}

fn modern() -> Stdio {
    Stdio { era: Era::Modern, ..Stdio::of(Sessions::Shared) }
}

/// A bridge whose process is up.
async fn up(stdio: Stdio) -> (World, Process) {
    up_in(world_with(limits(), stdio)).await
}

/// A world of the usual era with these limits.
async fn up_with(limits: config::Door) -> (World, Process) {
    up_in(world_with(limits, legacy())).await
}

async fn up_in(mut world: World) -> (World, Process) {
    let mut process = world.attach(None);
    process.open().await;
    world.word("Opened").await;
    (world, process)
}

impl World {
    /// A new process.
    fn attach(&mut self, slot: Option<SessionName>) -> Process {
        self.runs += 1;
        let run = RunId(self.runs);
        let (sender, receiver) = pipe::pipe().unwrap();
        let wire = Wire::to(sender.into_nonblocking_fd().unwrap(), "/nowhere/marker".into());
        self.bridge.attach(slot, run, self.runs << 20, None, wire);
        Process { bridge: self.bridge.clone(), slot, run, heard: BufReader::new(receiver) }
    }

    /// The next word whose name begins so; the others are kept for later.
    async fn word(&mut self, name: &str) -> Word {
        let is_it = |word: &Word| format!("{:?}", word.what).starts_with(name);
        if let Some(at) = self.skipped.iter().position(is_it) {
            return self.skipped.remove(at);
        }
        loop {
            let word = timeout(LIMIT, self.words.recv()).await.expect("silence").unwrap();
            if is_it(&word) {
                return word;
            }
            self.skipped.push(word);
        }
    }

    async fn client(&self) -> Client {
        Client::to(self.door.addr()).await
    }

    /// A client that has begun a session.
    async fn in_session(&self) -> Client {
        let mut client = self.client().await;
        let (head, body) = client.post(&initialize(VERSION)).await;
        assert!(head.starts_with("http/1.1 200 ") && body["result"].is_object(), "{head}{body}");
        client.session = Some(field(&head, "mcp-session-id").unwrap().to_owned());
        assert!(client.post(&notification("notifications/initialized")).await.0.contains(" 202 "));
        client
    }
}

/// What a process would be.
struct Process {
    bridge: Arc<Bridge>,
    slot: Option<SessionName>,
    run: RunId,
    heard: BufReader<pipe::Receiver>,
}

impl Process {
    async fn hear(&mut self) -> Value {
        let mut line = String::new();
        let read = timeout(LIMIT, self.heard.read_line(&mut line)).await.expect("silence").unwrap();
        assert!(read > 0 && line.ends_with('\n'), "{line}");
        serde_json::from_str(&line).unwrap()
    }

    /// Hears lines until one of this method. The bridge's own question for tools is answered.
    async fn hear_of(&mut self, method: &str) -> Value {
        loop {
            let heard = self.hear().await;
            if heard["method"] == method {
                return heard;
            }
            if heard["method"] == "tools/list" {
                self.answer(&heard, &json!({"tools": [
                    {"name": "m", "inputSchema": {"properties": {"a": {"type": "string", "x-mcp-header": "A"}}}}
                ]}));
            }
        }
    }

    fn say(&self, message: &Value) {
        assert!(self.bridge.line(self.slot, self.run, message.to_string().as_bytes()));
    }

    /// Will not be spoken with; what it says of that goes into its log.
    fn refuse(&self, opening: &Value, why: &str) {
        let error = json!({"jsonrpc": "2.0", "id": opening["id"], "error": {"code": -32602, "message": why}});
        assert!(!self.bridge.line(self.slot, self.run, error.to_string().as_bytes()));
    }

    fn answer(&self, request: &Value, result: &Value) {
        self.say(&json!({"jsonrpc": "2.0", "id": request["id"], "result": result}));
    }

    /// Answers the opening, whichever it is.
    async fn open(&mut self) {
        let opening = self.hear().await;
        let info = json!({"name": "p", "version": "1"});
        let tools = json!({"tools": {"listChanged": true}});
        if opening["method"] == "server/discover" {
            return self.answer(
                &opening,
                &json!({"resultType": "complete", "supportedVersions": ["2026-07-28"], "capabilities": tools,
                    "ttlMs": 0, "cacheScope": "private",
                    "_meta": {"io.modelcontextprotocol/serverInfo": info}}),
            );
        }
        assert_eq!(opening["method"], "initialize");
        self.answer(
            &opening,
            &json!({"protocolVersion": opening["params"]["protocolVersion"], "capabilities": tools, "serverInfo": info}),
        );
    }

    fn progress(&self, call: &Value, progress: u32) {
        let token = &call["params"]["_meta"]["progressToken"];
        self.say(&json!({"jsonrpc": "2.0", "method": "notifications/progress",
            "params": {"progressToken": token, "progress": progress}}));
    }

    fn die(self) {
        self.bridge.lost(self.slot, self.run);
    }
}

/// One connection of a client.
struct Client {
    wires: Wires,
    addr: SocketAddr,
    session: Option<String>,
    /// Of a stream, what was read and not looked at.
    unread: String,
}

impl Client {
    async fn to(addr: SocketAddr) -> Self {
        Self {
            wires: Wires::new(TcpStream::connect(addr).await.unwrap()),
            addr,
            session: None,
            unread: String::new(),
        }
    }

    /// Another connection of the same client.
    async fn again(&self) -> Self {
        Self { session: self.session.clone(), ..Self::to(self.addr).await }
    }

    /// A request's head, without its end.
    fn head(&self, method: &str) -> String {
        let session = self.session.as_ref().map(|id| format!("mcp-session-id: {id}\r\n")).unwrap_or_default();
        format!(
            "{method} /mcp HTTP/1.1\r\nhost: localhost\r\naccept: application/json, text/event-stream\r\n{session}"
        )
    }

    async fn send(&mut self, body: &str) {
        self.send_with("", body).await;
    }

    async fn send_with(&mut self, headers: &str, body: &str) {
        let (head, length) = (self.head("POST"), body.len());
        let head =
            format!("{head}{headers}content-type: application/json\r\ncontent-length: {length}\r\n\r\n");
        self.wires.say(&(head + body)).await;
    }

    /// Posts, and takes an answer that is not a stream.
    async fn post(&mut self, body: &str) -> (String, Value) {
        self.send(body).await;
        self.answer().await
    }

    async fn answer(&mut self) -> (String, Value) {
        let (head, body) = self.wires.message().await.expect("an answer");
        assert!(!head.contains("text/event-stream"), "{head}");
        (head, serde_json::from_str(&body).unwrap_or_default())
    }

    /// The head of an answer that is a stream.
    async fn stream(&mut self) -> String {
        let head = self.wires.until("\r\n\r\n").await.expect("a head").to_lowercase();
        assert!(head.contains("content-type: text/event-stream\r\n"), "{head}");
        assert!(head.contains("cache-control: no-cache, no-transform\r\n"), "{head}");
        assert!(head.contains("x-accel-buffering: no\r\n"), "{head}");
        head
    }

    /// Begins to listen.
    async fn get(&mut self, headers: &str) -> String {
        let head = self.head("GET");
        self.wires.say(&format!("{head}{headers}\r\n")).await;
        self.stream().await
    }

    /// What one chunk of a stream holds; `None` at its end.
    async fn chunk(&mut self) -> Option<String> {
        let length = self.wires.until("\r\n").await?;
        let chunk = self.wires.until("\r\n").await?;
        (length != "0\r\n").then(|| chunk.trim_end_matches("\r\n").to_owned())
    }

    /// The next event that has data: its id and that.
    async fn event(&mut self) -> Option<(Option<String>, Value)> {
        loop {
            while let Some((event, rest)) = self.unread.split_once("\n\n") {
                let field =
                    |name: &str| event.lines().find_map(|line| line.strip_prefix(name).map(str::to_owned));
                let (id, data) = (field("id: "), field("data: ").unwrap_or_default());
                self.unread = rest.to_owned();
                if !data.is_empty() {
                    return Some((id, serde_json::from_str(&data).unwrap()));
                }
            }
            let chunk = self.chunk().await?;
            self.unread.push_str(&chunk);
        }
    }

    async fn data(&mut self) -> Value {
        self.event().await.expect("an event").1
    }
}

fn initialize(version: &str) -> String {
    json!({"jsonrpc": "2.0", "id": "open", "method": "initialize", "params": {
        "protocolVersion": version, "capabilities": {}, "clientInfo": {"name": "c", "version": "1"}}})
    .to_string()
}

fn notification(method: &str) -> String {
    json!({"jsonrpc": "2.0", "method": method}).to_string()
}

fn call(id: u32) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"name":"t","_meta":{{"progressToken":"tok"}}}}}}"#
    )
}

const CALL_HEADS: &str = "mcp-protocol-version: 2026-07-28\r\nmcp-method: tools/call\r\nmcp-name: t\r\n";

fn modern_call(id: u32) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"name":"t","arguments":{{}},"_meta":{META}}}}}"#
    )
}

fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let lines = head.lines();
    lines.filter_map(|line| line.split_once(": ")).find(|(one, _)| *one == name).map(|(_, value)| value)
}

fn status(head: &str) -> &str {
    head.split(' ').nth(1).unwrap()
}
