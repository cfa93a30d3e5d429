//! `mcpsup connect`: a client that speaks only stdio, and an instance at the other end.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use serde_json::{Value, json};

use crate::host::{Host, LIMIT, MCPSUP, copy_program, end, text};
use crate::stdio::with_lines;

/// A client's end of `mcpsup connect`.
struct Talk {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
    err: Arc<Mutex<String>>,
}

impl Talk {
    fn with(host: &Host, who: &str) -> Self {
        Self::at(&host.path().join("mcpsup.toml"), who)
    }

    fn at(config: &Path, who: &str) -> Self {
        let mut command = Command::new(MCPSUP);
        command.arg("--config").arg(config).args(["connect", who]);
        Self::by(command)
    }

    fn by(mut command: Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (say, lines) = channel();
        let out = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || out.lines().map_while(Result::ok).try_for_each(|line| say.send(line)));
        let err = Arc::new(Mutex::new(String::new()));
        let (kept, said) = (err.clone(), BufReader::new(child.stderr.take().unwrap()));
        std::thread::spawn(move || {
            said.lines().map_while(Result::ok).for_each(|line| *kept.lock().unwrap() += &(line + "\n"));
        });
        Self { stdin: child.stdin.take(), child, lines, err }
    }

    fn say_text(&mut self, line: &str) {
        let stdin = self.stdin.as_mut().unwrap();
        stdin.write_all(line.as_bytes()).and_then(|()| stdin.write_all(b"\n")).unwrap();
    }

    fn say(&mut self, message: &Value) {
        self.say_text(&message.to_string());
    }

    fn hear_text(&self) -> String {
        let line = self.lines.recv_timeout(LIMIT);
        line.unwrap_or_else(|error| panic!("{error}; it said: {}", self.err.lock().unwrap()))
    }

    fn hear(&self) -> Value {
        serde_json::from_str(&self.hear_text()).unwrap()
    }

    /// The answer to this; notifications may come before it.
    fn hear_answer(&self, id: u64) -> Value {
        loop {
            let line = self.hear();
            if line["id"] == id {
                return line;
            }
            assert!(line["method"].is_string() && line["id"].is_null(), "{line}");
        }
    }

    fn ask(&mut self, message: &Value) -> Value {
        self.say(message);
        let answer = self.hear();
        assert_eq!(answer["id"], message["id"], "{answer}");
        answer
    }

    /// Opens a legacy session.
    fn open(&mut self) -> Value {
        let answer = self.ask(&json!({"jsonrpc": "2.0", "id": "open", "method": "initialize", "params":
            {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}}));
        self.say(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"}));
        answer
    }

    fn end(mut self) -> ExitStatus {
        drop(self.stdin.take());
        self.wait()
    }

    fn wait(&mut self) -> ExitStatus {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(begun.elapsed() < LIMIT, "it does not end: {}", self.err.lock().unwrap());
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }
}

impl Drop for Talk {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|ended| ended.is_none()) {
            self.child.kill().unwrap_or_default();
            self.child.wait().unwrap();
        }
    }
}

fn call(id: impl Into<Value>, tool: &str, arguments: &Value) -> Value {
    json!({"jsonrpc": "2.0", "id": id.into(), "method": "tools/call", "params": {"name": tool, "arguments": arguments}})
}

/// The same of 2026-07-28.
fn modern(mut message: Value) -> Value {
    message["params"]["_meta"] = json!({"io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {}});
    message
}

fn text_of(answer: &Value) -> &str {
    answer["result"]["content"][0]["text"].as_str().unwrap_or_else(|| panic!("no text: {answer}"))
}

fn unruly_alice() -> Host {
    let mut host = Host::with_unruly("");
    host.save("alice", "");
    host.start();
    host.until_all_up(1);
    host
}

#[test]
fn clients_of_both_eras_call_their_own_instance_without_a_port() {
    let host = Host::with_two_users();
    for (user, who) in [("alice", "alice"), ("bob", "bob/notes")] {
        let mut talk = Talk::with(&host, who);
        assert_eq!(talk.open()["result"]["protocolVersion"], "2025-11-25");
        let answer = talk.ask(&call(1, "whoami", &json!({})));
        assert!(text_of(&answer).contains(user), "{answer}");
        assert!(talk.end().success());

        let mut talk = Talk::with(&host, who);
        let found =
            talk.ask(&modern(json!({"jsonrpc": "2.0", "id": 0, "method": "server/discover", "params": {}})));
        assert_eq!(found["result"]["supportedVersions"][0], "2026-07-28");
        let answer = talk.ask(&modern(call("a", "whoami", &json!({}))));
        assert!(text_of(&answer).contains(user) && answer["result"]["resultType"] == "complete", "{answer}");
        // The instance refuses it where header and body say different things.
        let named = talk.ask(&modern(call("b", "größer\n", &json!({}))));
        assert_eq!(named["error"]["code"], -32602, "{named}");
        assert!(talk.end().success());
    }
}

#[test]
fn calls_go_side_by_side_and_each_answer_is_one_whole_line() {
    let host = unruly_alice();
    let mut talk = Talk::with(&host, "alice");
    talk.open();
    // The slow one first: it must not hold up the others.
    talk.say(&call("slow", "wait", &json!({"file": "gate"})));
    let streamed = json!({"jsonrpc": "2.0", "id": "stream", "method": "tools/call", "params":
        {"name": "stream", "arguments": {"events": 5, "ms": 5}, "_meta": {"progressToken": "p"}}});
    talk.say(&streamed);
    for id in 0..100 {
        talk.say(&call(id, "pid", &json!({})));
    }
    let mut order = Vec::new();
    let mut progress = Vec::new();
    while order.len() < 102 {
        let line = talk.hear();
        if line["method"] == "notifications/progress" {
            assert_eq!(line["params"]["progressToken"], "p");
            progress.push(line["params"]["progress"].as_u64().unwrap());
        } else {
            text_of(&line);
            order.push(line["id"].to_string());
            if order.len() == 101 {
                let gate = host.path().join("state/instances/alice/unruly/gate");
                std::fs::write(gate, "").unwrap();
            }
        }
    }
    assert_eq!(progress, [1, 2, 3, 4, 5]);
    assert_eq!(order.last().map(String::as_str), Some("\"slow\""));
    order.sort();
    order.dedup();
    assert_eq!(order.len(), 102, "each once");
    assert!(talk.end().success());
}

#[test]
fn a_message_that_the_server_does_not_take_is_answered_and_the_next_one_goes_on() {
    let host = Host::with_two_users();
    let mut talk = Talk::with(&host, "alice");
    talk.open();
    // The example reads 1 MiB and no more, and hangs up on more; the next call does not suffer.
    let answer = talk.ask(&call(1, "add_note", &json!({"text": "x".repeat(900 * 1024)})));
    assert_eq!(answer["result"]["isError"], true, "{answer}");
    let answer = talk.ask(&call(2, "add_note", &json!({"text": "x".repeat(3 * 1024 * 1024)})));
    assert!(answer["error"]["message"].is_string(), "{answer}");
    assert!(text_of(&talk.ask(&call(3, "whoami", &json!({})))).contains("alice"));
}

#[test]
fn what_is_no_message_is_answered_and_nothing_else_suffers() {
    let host = Host::with_two_users();
    let mut talk = Talk::with(&host, "alice");
    talk.open();
    for (line, code) in
        [("{\"jsonrpc\":", -32700), ("[]", -32600), ("7", -32600), ("{\"id\":1,\"id\":2}", -32600)]
    {
        talk.say_text(line);
        let answer = talk.hear();
        assert_eq!(
            (&answer["id"], &answer["error"]["code"]),
            (&Value::Null, &json!(code)),
            "{line}: {answer}"
        );
    }
    talk.say_text("\r");
    assert!(text_of(&talk.ask(&call(1, "whoami", &json!({})))).contains("alice"));
}

#[test]
fn a_client_that_ends_is_still_given_what_it_asked_for() {
    let host = unruly_alice();
    let mut talk = Talk::with(&host, "alice/unruly");
    talk.open();
    talk.say(&call(1, "sleep", &json!({"ms": 300})));
    drop(talk.stdin.take());
    assert_eq!(talk.hear()["id"], 1);
    assert!(talk.wait().success());
}

#[test]
fn a_session_outlives_the_daemon_and_no_call_is_made_twice() {
    let mut host = unruly_alice();
    let mut talk = Talk::with(&host, "alice");
    talk.open();
    let pid = text_of(&talk.ask(&call(1, "pid", &json!({})))).to_owned();
    talk.say(&call(2, "sleep", &json!({"ms": 60_000})));
    // It is under way when a later one is answered.
    talk.ask(&call(3, "pid", &json!({})));
    host.kill_daemon();
    let lost = talk.hear();
    assert_eq!(lost["id"], 2);
    assert!(lost["error"]["message"].as_str().unwrap().contains("may have taken effect"), "{lost}");
    // Nobody is there who could hear it; it waits for somebody.
    talk.say(&call(4, "pid", &json!({})));
    host.start();
    host.until_all_up(1);
    let mut heard = [talk.hear(), talk.hear()];
    heard.sort_by_key(|line| line["method"].is_string());
    assert_eq!((&heard[0]["id"], text_of(&heard[0])), (&json!(4), pid.as_str()));
    assert_eq!(heard[1]["method"], "notifications/tools/list_changed");
    assert_eq!(text_of(&talk.ask(&call(5, "pid", &json!({})))), pid);
    assert!(talk.end().success());
}

#[test]
fn a_dropped_modern_call_is_hung_up_on_and_says_nothing_more() {
    let host = unruly_alice();
    let mut talk = Talk::with(&host, "alice");
    talk.say(&modern(call(1, "stream", &json!({"events": 100_000, "ms": 5}))));
    let progress = talk.hear();
    assert_eq!(progress["method"], "notifications/progress");
    talk.say(&json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}}));
    talk.say(&modern(call(2, "pid", &json!({}))));
    while talk.hear()["id"] != 2 {}
    talk.say(&modern(call(3, "pid", &json!({}))));
    assert_eq!(talk.hear()["id"], 3, "nothing of the first is said any more");
    assert!(talk.end().success());
}

#[test]
fn who_cannot_be_connected_hears_why_and_with_which_status() {
    let mut host = Host::with_two_users();
    let nobody = Talk::with(&host, "zoe").end();
    assert_eq!(nobody.code(), Some(1));
    assert_eq!(Talk::with(&host, "alice/nothing").end().code(), Some(1));
    if nix::unistd::geteuid().is_root() {
        let mut all = Talk::by({
            let mut command = Command::new(MCPSUP);
            command.arg("--config").arg(host.path().join("mcpsup.toml")).arg("connect");
            command
        });
        assert_eq!(all.wait().code(), Some(2), "{}", all.err.lock().unwrap());
    }
    host.stop();
    let mut none = Talk::with(&host, "alice");
    assert_eq!(none.wait().code(), Some(3), "{}", none.err.lock().unwrap());
}

#[test]
fn nobody_is_connected_with_somebody_elses_instance() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: only root can be somebody else");
        return;
    }
    let host = Host::with_two_users();
    let program = host.path().join("mcpsup");
    copy_program(Path::new(MCPSUP), &program);
    std::fs::set_permissions(host.path(), std::os::unix::fs::PermissionsExt::from_mode(0o711)).unwrap();
    for who in ["alice", "alice/notes", "bob", "nobody-of-this-name"] {
        let mut command = Command::new(&program);
        command.arg("--config").arg(host.path().join("mcpsup.toml")).args(["connect", who]);
        command.uid(65534).gid(65534);
        let mut talk = Talk::by(command);
        // It may have ended before this is said.
        let whoami = format!("{}\n", modern(call(1, "whoami", &json!({}))));
        talk.stdin.as_mut().unwrap().write_all(whoami.as_bytes()).unwrap_or_default();
        assert_eq!(talk.wait().code(), Some(4), "{}", talk.err.lock().unwrap());
        assert!(talk.lines.recv_timeout(LIMIT).is_err(), "nothing is said");
    }
    // Without asking first either.
    let socket = host.path().join("run/control.sock");
    let ask = "import socket,sys\ns=socket.socket(socket.AF_UNIX)\ns.connect(sys.argv[1])\n\
               s.sendall(b'POST /v1/mcp/alice/notes HTTP/1.1\\r\\nhost: x\\r\\ncontent-length: 2\\r\\nconnection: close\\r\\n\\r\\n{}')\n\
               print(s.recv(65536).decode())";
    let output =
        Command::new("python3").args(["-c", ask]).arg(socket).uid(65534).gid(65534).output().unwrap();
    let said = text(&output.stdout);
    assert!(said.starts_with("HTTP/1.1 403"), "{said} {}", text(&output.stderr));
}

#[test]
fn a_client_on_stdio_keeps_its_server_on_stdio_when_the_daemon_or_the_server_is_killed() {
    for mode in ["shared", "isolated"] {
        let mut host = with_lines(&format!("sessions = \"{mode}\""));
        let mut talk = Talk::with(&host, "alice");
        assert_eq!(talk.open()["result"]["serverInfo"]["name"], "lines");
        let pid = text_of(&talk.ask(&call(1, "pid", &json!({})))).to_owned();
        let log = json!({"jsonrpc": "2.0", "method": "notifications/message",
            "params": {"level": "info", "data": "said to its caller"}});
        talk.say(&call(2, "garbage", &json!({"lines": 1, "text": log.to_string()})));
        assert_eq!([talk.hear(), talk.hear()].map(|line| line["params"]["level"] == "info"), [true, false]);
        host.kill_daemon();
        // Nobody is there who could hear it; it waits for somebody.
        talk.say(&call(3, "pid", &json!({})));
        host.start();
        assert_eq!(text_of(&talk.hear_answer(3)), pid, "{mode}");
        end(pid.parse().unwrap());
        // What a dying process may have taken is not sent twice, but answered with an error.
        host.until("the server is gone, which the daemon knows", || {
            let now = host.instance("alice");
            let mut runs = now.session_runs.iter().map(|run| run.pid).chain([now.pid]).flatten();
            runs.all(|run| run.to_string() != pid)
        });
        talk.say(&call(4, "pid", &json!({})));
        assert_ne!(text_of(&talk.hear_answer(4)), pid, "{mode}");
        assert!(talk.end().success());
    }
}

#[test]
fn what_a_server_on_stdio_asks_reaches_a_client_of_either_era() {
    let host = with_lines("");
    let question =
        json!({"jsonrpc": "2.0", "id": "q", "method": "elicitation/create", "params": {"message": "?"}});
    let asks = call(1, "garbage", &json!({"lines": 1, "text": question.to_string()}));
    let able = json!({"elicitation": {}});
    let mut old = Talk::with(&host, "alice");
    old.ask(&json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params":
        {"protocolVersion": "2025-11-25", "capabilities": able, "clientInfo": {"name": "t", "version": "1"}}}));
    old.say(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"}));
    old.say(&asks);
    let asked = old.hear();
    assert_eq!((&asked["method"], &asked["params"]), (&question["method"], &question["params"]));
    assert_eq!(text_of(&old.hear()), "said");
    old.say(&json!({"jsonrpc": "2.0", "id": asked["id"], "result": {"action": "accept"}}));
    old.ask(&call(2, "pid", &json!({})));

    let mut new = Talk::with(&host, "alice");
    let mut asks = modern(asks);
    asks["params"]["_meta"]["io.modelcontextprotocol/clientCapabilities"] = able;
    let asked = new.ask(&asks);
    let asked = &asked["result"];
    assert_eq!(asked["resultType"], "input_required", "{asked}");
    assert_eq!(asked["inputRequests"]["1"]["params"], question["params"]);
    (asks["id"], asks["params"]["requestState"]) = (json!(2), asked["requestState"].clone());
    asks["params"]["inputResponses"] = json!({"1": {"action": "accept"}});
    assert_eq!(text_of(&new.ask(&asks)), "said");
    assert!(new.end().success() && old.end().success());
}

/// What a pretended daemon is asked.
#[derive(Debug, Clone)]
struct Asked {
    method: String,
    head: String,
    body: String,
}

impl Asked {
    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }

    fn rpc(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_default()
    }
}

/// A daemon whose one instance does what `does` says: the text of each answer.
fn pretend(dir: &Path, does: impl Fn(&Asked) -> String + Send + Sync + 'static) -> std::path::PathBuf {
    std::fs::create_dir(dir.join("run")).unwrap();
    std::fs::write(dir.join("mcpsup.toml"), "").unwrap();
    let listener = UnixListener::bind(dir.join("run/control.sock")).unwrap();
    let does = Arc::new(does);
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let does = does.clone();
            std::thread::spawn(move || while answer(&stream, &*does).is_some() {});
        }
    });
    dir.join("mcpsup.toml")
}

fn answer(mut stream: &UnixStream, does: &dyn Fn(&Asked) -> String) -> Option<()> {
    let mut reader = BufReader::new(stream);
    let (mut line, mut head) = (String::new(), String::new());
    reader.read_line(&mut line).ok().filter(|count| *count > 0)?;
    loop {
        let mut next = String::new();
        reader.read_line(&mut next).ok()?;
        if next.trim().is_empty() {
            break;
        }
        head += &next.to_lowercase().replace('\r', "");
    }
    let mut asked = Asked { method: line.split(' ').next()?.to_owned(), head, body: String::new() };
    let mut body = vec![0; asked.header("content-length").map_or(0, |length| length.parse().unwrap())];
    reader.read_exact(&mut body).ok()?;
    asked.body = text(&body);
    let said = if asked.method == "OPTIONS" {
        full(200, "", "{\"user\":\"alice\",\"server\":\"notes\"}")
    } else {
        does(&asked)
    };
    // Whatever has no length ends with the connection.
    let stays = said.contains("content-length");
    stream.write_all(said.as_bytes()).ok()?;
    if !stays {
        stream.shutdown(std::net::Shutdown::Both).ok()?;
    }
    stays.then_some(())
}

fn full(status: u16, headers: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\n{headers}content-length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// An answer that breaks off with the connection, in the middle of a chunked body.
fn broken_events(events: &str) -> String {
    format!(
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{events}\r\n",
        events.len()
    )
}

fn result(asked: &Asked, result: &Value) -> String {
    json!({"jsonrpc": "2.0", "id": asked.rpc()["id"], "result": result}).to_string()
}

#[test]
fn what_is_said_travels_byte_for_byte_however_big_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let config = pretend(dir.path(), move |asked| match asked.rpc()["method"].as_str() {
        Some("tools/call") => {
            full(200, "", &format!("{{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{}}}", json!(asked.body)))
        }
        Some("initialize") => {
            full(200, "", &result(asked, &json!({"protocolVersion": "2025-11-25", "capabilities": {}})))
        }
        _ => full(if asked.method == "GET" { 405 } else { 202 }, "", ""),
    });
    let mut talk = Talk::at(&config, "alice");
    talk.open();
    let big = "é\\u00e9".repeat(2 * 1024 * 1024);
    let line = format!(
        "{{\"method\" :\"tools/call\", \"id\":1,\"params\":{{\"n\":1.0E+2,\"a\":\"{big}\"}},\"jsonrpc\":\"2.0\",\"x\":null}}"
    );
    talk.say_text(&line);
    let answer = talk.hear();
    assert!(answer["result"] == line, "something was changed");
}

#[test]
fn a_session_that_the_server_forgot_is_opened_again_unseen_and_the_call_goes_through() {
    let dir = tempfile::tempdir().unwrap();
    let log: Arc<Mutex<Vec<(String, String, String)>>> = Arc::default();
    let seen = log.clone();
    let opened = Mutex::new(0);
    let config = pretend(dir.path(), move |asked| {
        let session = asked.header("mcp-session-id").unwrap_or("-").to_owned();
        let version = asked.header("mcp-protocol-version").unwrap_or("-").to_owned();
        let method = asked.rpc()["method"].as_str().unwrap_or(&asked.method).to_owned();
        seen.lock().unwrap().push((method.clone(), session.clone(), version));
        match method.as_str() {
            "GET" => full(405, "", ""),
            "DELETE" => full(200, "", ""),
            "initialize" => {
                let mut opened = opened.lock().unwrap();
                *opened += 1;
                let about =
                    json!({"protocolVersion": "2025-06-18", "capabilities": {"tools": {}, "prompts": {}}});
                full(200, &format!("mcp-session-id: s{opened}\r\n"), &result(asked, &about))
            }
            "tools/call" if session == "s1" => full(404, "", ""),
            "tools/call" => full(200, "", &result(asked, &json!("done"))),
            _ => full(202, "", ""),
        }
    });
    let mut talk = Talk::at(&config, "alice");
    talk.open();
    talk.say(&call("one", "x", &json!({})));
    for kind in ["tools", "prompts"] {
        assert_eq!(talk.hear()["method"], format!("notifications/{kind}/list_changed"));
    }
    assert_eq!(talk.hear(), json!({"jsonrpc": "2.0", "id": "one", "result": "done"}));
    assert!(talk.end().success());
    let mut log = log.lock().unwrap().clone();
    log.retain(|(method, ..)| method != "GET");
    let log: Vec<_> = log.iter().map(|(m, s, v)| (m.as_str(), s.as_str(), v.as_str())).collect();
    assert_eq!(
        log,
        [
            ("initialize", "-", "-"),
            ("notifications/initialized", "s1", "2025-06-18"),
            ("tools/call", "s1", "2025-06-18"),
            ("initialize", "-", "-"),
            ("notifications/initialized", "s2", "2025-06-18"),
            ("tools/call", "s2", "2025-06-18"),
            ("DELETE", "s2", "2025-06-18"),
        ]
    );
}

#[test]
fn a_stream_that_breaks_is_taken_up_where_it_was_and_one_that_cannot_be_is_answered() {
    let dir = tempfile::tempdir().unwrap();
    let config = pretend(dir.path(), move |asked| {
        let method = asked.rpc()["method"].as_str().unwrap_or(&asked.method).to_owned();
        let name = asked.rpc()["params"]["name"].as_str().unwrap_or_default().to_owned();
        match (method.as_str(), name.as_str(), asked.header("last-event-id")) {
            ("initialize", ..) => {
                let about = json!({"protocolVersion": "2025-11-25", "capabilities": {}});
                full(200, "mcp-session-id: s\r\n", &result(asked, &about))
            }
            ("GET", _, Some("7-1")) => broken_events(
                "id: 7-2\ndata: {\"jsonrpc\":\"2.0\",\ndata: \"method\":\"notifications/progress\"}\n\n",
            ),
            ("GET", _, Some("7-2")) => {
                broken_events("id: 7-3\ndata: {\"jsonrpc\":\"2.0\",\"id\":\"r\",\"result\":{\"a\":1.50}}\n\n")
            }
            ("GET", ..) => full(405, "", ""),
            (_, "resumable", _) => broken_events("id: 7-1\nretry: 10\ndata:\n\n"),
            (_, "lost", _) => broken_events(": nothing\n\n"),
            _ => full(202, "", ""),
        }
    });
    let mut talk = Talk::at(&config, "alice");
    talk.open();
    talk.say(&call("r", "resumable", &json!({})));
    assert_eq!(talk.hear_text(), "{\"jsonrpc\":\"2.0\", \"method\":\"notifications/progress\"}");
    assert_eq!(talk.hear_text(), "{\"jsonrpc\":\"2.0\",\"id\":\"r\",\"result\":{\"a\":1.50}}");
    let lost = talk.ask(&call("l", "lost", &json!({})));
    assert!(lost["error"]["message"].as_str().unwrap().contains("may have taken effect"), "{lost}");
    assert!(talk.end().success());
}

#[test]
fn a_snippet_of_this_form_starts_a_client_that_reaches_the_instance() {
    let host = Host::with_two_users();
    let file = host.path().join("claude.json");
    let file = file.to_str().unwrap();
    let client = |more: &[&str]| {
        let args = ["client", "alice", "--for", "claude-desktop", "--file", file];
        host.cli(&[&args[..], more].concat())
    };
    assert_eq!(client(&["--check"]).status.code(), Some(1), "nothing is written yet");
    assert!(client(&["--write"]).status.success());
    let written: Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    let entry = &written["mcpServers"]["notes"];
    let mut command = Command::new(entry["command"].as_str().unwrap());
    command.args(entry["args"].as_array().unwrap().iter().map(|arg| arg.as_str().unwrap()));
    let mut talk = Talk::by(command);
    talk.open();
    assert!(text_of(&talk.ask(&call(1, "whoami", &json!({})))).contains("alice"));
    assert!(talk.end().success());
    let checked = client(&["--check"]);
    assert!(
        checked.status.success() && text(&checked.stdout).contains("answers"),
        "{}",
        text(&checked.stdout)
    );
    // What is checked is the command itself, not what the port map says.
    host.ok(&["stop", "alice"]);
    let checked = client(&["--check"]);
    assert_eq!(checked.status.code(), Some(1));
    assert!(text(&checked.stdout).contains("does not answer"), "{}", text(&checked.stdout));
}
