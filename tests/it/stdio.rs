//! Servers that speak on their standard input and output, behind a door.

use std::io::Write;
use std::net::TcpStream;

use mcpsup::model::status::StateName;
use serde_json::{Value, json};

use crate::host::{Host, end, example, is_alive, text};
use crate::tree::{bring, start_as_ordinary};
use crate::wire;

/// `[server.lines]`; `more` goes below it, so it may begin with keys and go on with tables.
pub(crate) fn lines(more: &str) -> String {
    format!("[server.lines]\ncommand = [{:?}]\ntransport = \"stdio\"\n{more}\n", example("lines"))
}

/// One client's session.
pub(crate) struct Client {
    pub port: u16,
    pub session: String,
    pub version: &'static str,
}

pub(crate) const NEWEST: &str = "2025-11-25";

pub(crate) const INITIALIZE: &str = r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"test","version":"1"}}}"#;

impl Client {
    pub(crate) fn begin(host: &Host, user: &str) -> Self {
        Self::begin_in(host, user, NEWEST)
    }

    /// In an earlier revision.
    pub(crate) fn begin_in(host: &Host, user: &str, version: &'static str) -> Self {
        let port = host.instance(user).port.unwrap();
        let answer = wire::post(port, "", &INITIALIZE.replace(NEWEST, version));
        assert_eq!(answer.status, 200, "{answer:?}\n{}", host.log());
        let session = answer.header("mcp-session-id").unwrap().to_owned();
        let client = Self { port, session, version };
        let said = client.post(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#);
        assert_eq!(said.status, 202, "{said:?}");
        client
    }

    pub(crate) fn headers(&self) -> String {
        format!("Mcp-Session-Id: {}\r\nMCP-Protocol-Version: {}\r\n", self.session, self.version)
    }

    pub(crate) fn post(&self, body: &str) -> wire::Answer {
        wire::post(self.port, &self.headers(), body)
    }

    /// A call whose answer is not waited for.
    pub(crate) fn ask(&self, tool: &str, arguments: &Value) -> TcpStream {
        self.ask_as(1, tool, arguments)
    }

    /// The same under this id.
    pub(crate) fn ask_as(&self, id: usize, tool: &str, arguments: &Value) -> TcpStream {
        let mut stream = wire::door(self.port);
        let body = json!({
            "jsonrpc": "2.0", "id": id, "method": "tools/call",
            "params": { "name": tool, "arguments": arguments },
        });
        let request = wire::post_text(self.port, &self.headers(), &body.to_string());
        stream.write_all(request.as_bytes()).unwrap();
        stream
    }

    /// What a call is answered.
    pub(crate) fn call(&self, tool: &str, arguments: &Value) -> Value {
        message(&wire::rest(&mut self.ask(tool, arguments)))
    }

    /// The text of what a tool gives.
    pub(crate) fn text(&self, tool: &str, arguments: &Value) -> String {
        let answer = self.call(tool, arguments);
        let text = answer["result"]["content"][0]["text"].as_str();
        text.unwrap_or_else(|| panic!("{tool}: {answer}")).to_owned()
    }

    pub(crate) fn delete(&self) -> u16 {
        let (port, headers) = (self.port, self.headers());
        let request =
            format!("DELETE /mcp HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n{headers}\r\n");
        wire::ask_door(port, &request).status
    }

    /// Opens the stream of what concerns no call.
    pub(crate) fn listen(&self) -> TcpStream {
        let (port, headers) = (self.port, self.headers());
        let mut stream = wire::door(port);
        let request = format!(
            "GET /mcp HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAccept: text/event-stream\r\n{headers}\r\n"
        );
        stream.write_all(request.as_bytes()).unwrap();
        stream
    }
}

/// The last message of an answer, sent alone or as an event.
pub(crate) fn message(answer: &str) -> Value {
    let body = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {answer:?}")).1;
    let mut events = body.lines().filter_map(|line| line.strip_prefix("data:")).map(str::trim);
    let line = events.rfind(|data| !data.is_empty()).unwrap_or(body);
    serde_json::from_str(line).unwrap_or_else(|_| panic!("no message: {answer:?}"))
}

/// A host with alice's server up.
pub(crate) fn with_lines(more: &str) -> Host {
    let mut host = Host::new(&lines(more));
    host.save("alice", "TOKEN=sk-live-0123456789\n");
    host.start();
    host.until_state("alice", StateName::Up);
    host
}

#[test]
fn an_ordinary_users_stdio_server_may_open_its_standard_error_again() {
    let mut host = Host::new(
        "[server.lines]\ncommand = [\"/bin/sh\", \"-c\", \"echo opened >/dev/stderr && exec sleep 1000\"]\n\
         transport = \"stdio\"\n",
    );
    host.save("alice", "TOKEN=sk-live-0123456789\n");
    if nix::unistd::geteuid().is_root() {
        bring(&host, "lines");
        start_as_ordinary(&mut host);
    } else {
        host.start();
    }
    let said = host.until_some("it has said something", || {
        let log = host.ok(&["logs", "alice"]);
        log.lines().map(str::to_owned).find(|line| !line.contains("mcpsup: run "))
    });
    assert!(said.ends_with("opened"), "{said}");
}

/// A file that the server's `wait` waits for, and one that says that it has begun to.
fn gate(host: &Host, name: &str) -> (String, std::path::PathBuf) {
    // Nowhere else can it write, whoever it runs as.
    let gate = host.path().join("state/instances/alice/lines").join(name).display().to_string();
    let begun = format!("{gate}.begun").into();
    (gate, begun)
}

fn open(gate: &str) {
    std::fs::write(gate, "").unwrap();
}

#[test]
fn a_call_goes_through_the_door_to_the_users_own_process() {
    let host = with_lines("");
    let one = Client::begin(&host, "alice");
    let two = Client::begin(&host, "alice");
    let pid = host.instance("alice").pid.unwrap().to_string();
    assert_eq!(one.text("pid", &json!({})), pid);
    assert_eq!(two.text("pid", &json!({})), pid);
    let big = "x".repeat(300_000);
    assert_eq!(one.text("echo", &json!({ "text": big })), big);
    assert_eq!(host.instance("alice").sessions, Some(2));
    assert_eq!(one.delete() / 100, 2);
    assert_eq!(one.post(&wire::tool("pid", "{}")).status, 404);
    assert_eq!(two.text("pid", &json!({})), pid);
    assert_eq!(host.call("alice", "echo", r#"{"text":"hello"}"#), Ok("hello".to_owned()));
}

#[test]
fn a_process_that_dies_is_followed_and_its_clients_sessions_go_on() {
    let host = with_lines("");
    let client = Client::begin(&host, "alice");
    let (gate, begun) = gate(&host, "gate");
    let mut asked = client.ask("wait", &json!({ "file": gate }));
    host.until("the call has arrived", || begun.exists());

    let first = host.instance("alice");
    end(first.pid.unwrap());
    let answer = message(&wire::rest(&mut asked));
    assert_eq!(answer["error"]["code"], -32000, "{answer}");
    assert_eq!(answer["id"], 1);
    let pid = client.text("pid", &json!({}));
    let next = host.until_state("alice", StateName::Up);
    assert_eq!(pid, next.pid.unwrap().to_string());
    assert!(next.run > first.run);
}

#[test]
fn a_changed_file_lets_calls_finish_and_new_ones_wait_for_the_new_process() {
    let host = with_lines("stop.grace = \"10m\"");
    let client = Client::begin(&host, "alice");
    let (gate, begun) = gate(&host, "gate");
    let mut old = client.ask("wait", &json!({ "file": gate }));
    host.until("the call has arrived", || begun.exists());
    let before = host.instance("alice");

    host.save("alice", "TOKEN=sk-live-9876543210\n");
    host.until_state("alice", StateName::Stopping);
    let mut new = client.ask("pid", &json!({}));
    assert!(is_alive(i32::try_from(before.pid.unwrap()).unwrap()), "it still owes an answer");
    open(&gate);
    let answer = message(&wire::rest(&mut old));
    assert_eq!(answer["result"]["content"][0]["text"], "waited", "{answer}");
    let answer = message(&wire::rest(&mut new));
    let after = host.until_state("alice", StateName::Up);
    assert_eq!(answer["result"]["content"][0]["text"], after.pid.unwrap().to_string(), "{answer}");
    assert!(after.run > before.run);
}

#[test]
fn a_call_that_does_not_end_keeps_its_process_for_half_its_grace() {
    let host = with_lines("stop.grace = \"2s\"");
    let client = Client::begin(&host, "alice");
    let (gate, begun) = gate(&host, "gate");
    let mut asked = client.ask("wait", &json!({ "file": gate }));
    host.until("the call has arrived", || begun.exists());
    let asked_at = std::time::Instant::now();
    host.ok(&["stop", "alice"]);
    assert!(asked_at.elapsed() >= std::time::Duration::from_secs(1));
    let answer = message(&wire::rest(&mut asked));
    assert_eq!(answer["error"]["code"], -32000, "{answer}");
    assert_eq!(client.post(&wire::tool("pid", "{}")).status, 503);
    host.ok(&["start", "alice"]);
    assert!(!client.text("pid", &json!({})).is_empty());
}

#[test]
fn a_killed_daemon_finds_process_and_sessions_again() {
    let mut host = with_lines("");
    let client = Client::begin(&host, "alice");
    let before = host.instance("alice");
    assert_eq!(client.text("calls", &json!({})), "1");
    let (gate, begun) = gate(&host, "gate");
    let asked = client.ask("wait", &json!({ "file": gate }));
    host.until("the call has arrived", || begun.exists());

    host.kill_daemon();
    drop(asked);
    open(&gate);
    host.start();
    let after = host.until_state("alice", StateName::Up);
    assert_eq!((after.pid, after.run), (before.pid, before.run));
    // What was answered to the dead daemon's call is nobody's answer now, and nothing was asked twice.
    for count in 3..20 {
        assert_eq!(client.text("calls", &json!({})), count.to_string());
    }
    assert_eq!(after.sessions, Some(1));
}

#[test]
fn what_is_no_message_goes_into_the_log_without_secrets() {
    let host = with_lines("");
    let client = Client::begin(&host, "alice");
    let garbage = json!({ "lines": 3, "text": "debug: sk-live-0123456789 {" });
    assert_eq!(client.text("garbage", &garbage), "said");
    host.until("it is logged", || host.ok(&["logs", "alice"]).matches("debug: [redacted] {").count() == 3);
    let log = host.ok(&["logs", "alice"]);
    assert!(!log.contains("0123456789") && log.contains("lines: up as"), "{log}");
    assert!(!log.contains("jsonrpc"), "messages are not logged: {log}");
}

#[test]
fn a_message_that_is_too_long_is_an_error_for_its_call_alone() {
    let host = with_lines("max_message = \"64K\"");
    let client = Client::begin(&host, "alice");
    let answer = client.call("huge", &json!({ "bytes": 100_000 }));
    assert_eq!(answer["error"]["code"], -32603, "{answer}");
    assert_eq!(client.text("huge", &json!({ "bytes": 1000 })).len(), 1000);
}

#[test]
fn a_server_that_will_not_be_spoken_with_says_why_in_status() {
    for (switch, within, why) in [
        ("--refuse", "1m", "was not ready: it answered initialize with error -32602; its log says more"),
        ("--mute", "4s", "it has not answered initialize or server/discover"),
        ("--closed", "1m", "closed its standard input"),
    ] {
        let mut host = Host::new(&lines(&format!("ready.timeout = {within:?}\nrestart.first_wait = \"1m\"")));
        host.save("alice", &format!("LINES={switch}\nTOKEN=sk-live-0123456789\n"));
        host.start();
        let note = host.until_some(&format!("{switch} is cooling"), || {
            let alice = host.instance("alice");
            (alice.state == StateName::Cooling).then_some(alice.note).flatten()
        });
        assert!(note.contains(why), "{switch}: {note}");
        if switch == "--refuse" {
            let log = host.ok(&["logs", "alice"]);
            assert!(log.contains("no client is good enough, nor is key [redacted]"), "{log}");
        }
        // What it quotes is in no place that others read.
        let start = host.cli(&["start", "alice"]);
        let said =
            [text(&start.stdout), text(&start.stderr), host.ok(&["status", "-v"]), host.log()].concat();
        assert!(!said.contains("good enough") && !said.contains("sk-live"), "{switch}: {said}");
    }
}

#[test]
fn a_server_that_ends_at_once_ended_as_it_did_and_closed_nothing() {
    let mut host = Host::new(
        "[server.exits]\ncommand = [\"/bin/sh\", \"-c\", \"exec 0<&-; exit 3\"]\ntransport = \"stdio\"\n\
         restart.first_wait = \"10ms\"\nrestart.max_wait = \"20ms\"\n",
    );
    let users = ["alice", "bob", "carol", "dave"];
    users.iter().for_each(|user| host.save(user, "TOKEN=x\n"));
    host.start();
    host.until("each was tried often", || {
        host.status().instances.len() == 4 && host.status().instances.iter().all(|one| one.strikes >= 8)
    });
    let log = host.log();
    assert!(log.contains("status 3"), "{log}");
    for unsaid in ["closed its standard input", "cannot speak with a run", "instance of no use"] {
        assert!(!log.contains(unsaid), "{unsaid}: {log}");
    }
}

#[test]
fn a_server_that_answers_nothing_any_more_is_restarted_and_status_says_why() {
    let host = with_lines("health.every = \"1s\"\nhealth.timeout = \"4s\"\nrestart.stable = \"1h\"");
    let client = Client::begin(&host, "alice");
    let before = host.instance("alice");
    let mut asked = client.ask("mute", &json!({}));
    let answer = message(&wire::rest(&mut asked));
    assert_eq!(answer["error"]["code"], -32000, "{answer}");
    host.until("it runs anew", || host.instance("alice").run > before.run);
    let log = host.log();
    assert!(log.contains("did not answer a health check for 4s"), "{log}");
    assert!(!client.text("pid", &json!({})).is_empty());
    // Its successor is up, and why it was needed is told all the same.
    let why = "did not answer a health check for 4s";
    assert_eq!(host.instance("alice").last_exit.as_deref(), Some(why));
    assert_eq!(host.instance("alice").note, Some(format!("restarted: {why}")));
    let told = host.ok(&["status", "alice", "-v"]);
    assert!(told.contains(&format!("  last exit    {why}\n")), "{told}");
}

#[test]
fn a_server_that_does_not_read_backs_up_to_its_clients_and_is_replaced_when_asked() {
    let host = with_lines("");
    let client = Client::begin(&host, "alice");
    assert!(client.text("deaf", &json!({})).contains("deaf"));
    let text = "x".repeat(200_000);
    let mut asked: Vec<TcpStream> =
        (0..20).map(|id| client.ask_as(id, "echo", &json!({ "text": text }))).collect();
    host.ok(&["restart", "alice"]);
    let answered = asked.iter_mut().map(|stream| message(&wire::rest(stream)));
    let (mut lost, mut echoed) = (0, 0);
    for answer in answered {
        if answer["error"]["code"] == -32000 {
            lost += 1;
        } else {
            let text_back = answer["result"]["content"][0]["text"].as_str();
            assert_eq!(text_back.unwrap_or_else(|| panic!("{answer}")).len(), text.len());
            echoed += 1;
        }
    }
    assert_eq!(lost + echoed, 20);
    assert!(!client.text("pid", &json!({})).is_empty());
}
