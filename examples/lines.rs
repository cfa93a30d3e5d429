//! Lines: an MCP server over standard input and output, by hand and without any library.
//!
//! It is all that mcpsup expects of a server with `transport = "stdio"`: one JSON-RPC message per
//! line, answers on standard output, everything else on standard error. It speaks the revisions up
//! to 2025-11-25. Each call has a thread of its own, so a slow one keeps nobody.
//!
//! Some of its tools do what no server should; the tests of mcpsup need somebody who does. `LINES`
//! in its environment may hold `--refuse` (no client is good enough), `--mute` (it answers nothing)
//! or `--closed` (it does not even listen).

#![expect(clippy::print_stderr, reason = "a server's stderr is its log")]
#![expect(clippy::disallowed_methods, reason = "a program of its own, with an environment made for it")]

use std::io::{BufRead as _, Write as _};
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};

/// The revision that is spoken with whoever asks for one that is not known.
const NEWEST: &str = "2025-11-25";
const KNOWN: [&str; 4] = [NEWEST, "2025-06-18", "2025-03-26", "2024-11-05"];

#[derive(Default)]
struct Server {
    out: Mutex<()>,
    calls: AtomicU64,
    unanswered: AtomicU64,
    is_mute: AtomicBool,
    is_deaf: AtomicBool,
}

impl Server {
    fn say(&self, line: &[u8]) {
        let _one_at_a_time = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        let mut out = std::io::stdout().lock();
        if out.write_all(line).and_then(|()| out.write_all(b"\n")).and_then(|()| out.flush()).is_err() {
            eprintln!("lines: nobody hears");
        }
    }

    fn answer(&self, id: &Value, outcome: Result<Value, (i32, String)>) {
        if self.is_mute.load(Ordering::Relaxed) {
            return;
        }
        let message = match outcome {
            Ok(result) => json!({ "jsonrpc": "2.0", "id": id, "result": result }),
            Err((code, message)) => {
                json!({ "jsonrpc": "2.0", "id": id, "error": { "code": code, "message": message } })
            }
        };
        self.say(message.to_string().as_bytes());
    }

    fn hear(self: &Arc<Self>, line: &str) {
        let Ok(message) = serde_json::from_str::<Value>(line) else {
            return self.answer(&Value::Null, Err((-32700, "not JSON".into())));
        };
        let (id, params) = (message["id"].clone(), message["params"].clone());
        let Some(method) = message["method"].as_str().filter(|_| !id.is_null()) else { return };
        match method {
            "initialize" => self.answer(&id, initialize(&params)),
            "ping" => self.answer(&id, Ok(json!({}))),
            "tools/list" => self.answer(&id, Ok(json!({ "tools": tools() }))),
            // Counted, and that is all.
            "tools/call" if params["name"] == "never" => {
                self.unanswered.fetch_add(1, Ordering::Relaxed);
            }
            "tools/call" => {
                let server = Arc::clone(self);
                std::thread::spawn(move || {
                    let name = params["name"].as_str().unwrap_or_default();
                    let outcome = server.call(name, &params["arguments"]);
                    let text =
                        |text| json!({ "content": [{ "type": "text", "text": text }], "isError": false });
                    let none = (-32602, format!("no tool {name}"));
                    server.answer(&id, outcome.map(text).ok_or(none));
                });
            }
            _ => self.answer(&id, Err((-32601, format!("no method {method}")))),
        }
    }

    fn call(&self, tool: &str, arguments: &Value) -> Option<String> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let number = |name: &str| arguments[name].as_u64().and_then(|n| usize::try_from(n).ok()).unwrap_or(0);
        Some(match tool {
            "pid" => std::process::id().to_string(),
            "calls" => self.calls.load(Ordering::Relaxed).to_string(),
            "unanswered" => self.unanswered.load(Ordering::Relaxed).to_string(),
            "session" => std::env::args().nth(1).unwrap_or_default(),
            "here" => std::env::current_dir().unwrap_or_default().display().to_string(),
            "echo" => arguments["text"].as_str().unwrap_or_default().to_owned(),
            // Answers when there is such a file, and leaves a note that it has begun.
            "wait" => {
                let file = arguments["file"].as_str().unwrap_or_default();
                if let Err(error) = std::fs::write(format!("{file}.begun"), "") {
                    eprintln!("lines: {error}");
                }
                while !Path::new(file).exists() {
                    std::thread::sleep(Duration::from_millis(5));
                }
                "waited".to_owned()
            }
            "huge" => "x".repeat(number("bytes")),
            "garbage" => {
                for _ in 0..number("lines") {
                    self.say(arguments["text"].as_str().unwrap_or_default().as_bytes());
                }
                "said".to_owned()
            }
            "deaf" => {
                self.is_deaf.store(true, Ordering::Relaxed);
                "deaf from the next line on".to_owned()
            }
            "mute" => {
                self.is_mute.store(true, Ordering::Relaxed);
                return None;
            }
            "exit" => std::process::exit(3),
            _ => return None,
        })
    }
}

fn initialize(params: &Value) -> Result<Value, (i32, String)> {
    if switches().contains("--refuse") {
        let key = std::env::var("TOKEN").unwrap_or_default();
        return Err((-32602, format!("no client is good enough, nor is key {key}")));
    }
    let asked = params["protocolVersion"].as_str().filter(|asked| KNOWN.contains(asked));
    Ok(json!({
        "protocolVersion": asked.unwrap_or(NEWEST),
        "capabilities": { "tools": {} },
        "serverInfo": { "name": "lines", "version": "1" },
    }))
}

fn tools() -> Value {
    let tool = |name: &str| json!({ "name": name, "inputSchema": { "type": "object" } });
    [
        "never",
        "unanswered",
        "pid",
        "calls",
        "session",
        "here",
        "echo",
        "wait",
        "huge",
        "garbage",
        "deaf",
        "mute",
        "exit",
    ]
    .map(tool)
    .into_iter()
    .collect()
}

fn switches() -> String {
    std::env::var("LINES").unwrap_or_default()
}

fn main() -> ExitCode {
    let server = Arc::new(Server::default());
    eprintln!("lines: up as {}", std::env::var("USER").unwrap_or_default());
    server.is_mute.store(switches().contains("--mute"), Ordering::Relaxed);
    if switches().contains("--closed") {
        if let Err(error) = nix::unistd::close(0) {
            eprintln!("lines: {error}");
        }
        std::thread::sleep(Duration::from_secs(3600));
    }
    for line in std::io::stdin().lock().lines() {
        match line {
            Ok(line) => server.hear(&line),
            Err(error) => eprintln!("lines: {error}"),
        }
        // Somebody may have just been told that it is so.
        while server.is_deaf.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_secs(3600));
        }
    }
    ExitCode::SUCCESS
}
