//! An MCP server that misbehaves on request: what the tests supervise.
//!
//! `unruly --port N [SWITCH…]`. Further switches are taken from the variable `UNRULY` (split at
//! blanks), so that each user's env file can ask for something else.
//!
//! | switch | |
//! |---|---|
//! | `--late MS` | listens only after so many milliseconds |
//! | `--never` | never listens |
//! | `--elsewhere N` | listens on another port |
//! | `--exit STATUS` | exits at once |
//! | `--exit-after MS STATUS` | exits after a while |
//! | `--ignore-term` | SIGTERM does nothing, to its children neither |
//! | `--child session` | leaves a sleeping child in its own session, with its stdout and stderr |
//! | `--child setsid` | leaves one that made a session of its own |
//! | `--child closed` | leaves one with a session of its own and none of its descriptors |
//! | `--flood BYTES` | writes so much to stderr as fast as it can (0: without end) |
//! | `--print NAME FORM` | writes variable NAME to stderr: `raw`, `json`, `base64`, `url`, or `split` in two writes |
//!
//! Tools: `pid`, `env_names` (never values), `header_names` (of the latest request), `crash` (`{"status": 3}`), `sleep` (`{"ms": 100}`),
//! `wait` (`{"file": "name"}`, until there is one in its directory), `stream` (`{"events": 3, "ms": 10}`).

#![expect(clippy::print_stderr, reason = "a server's stderr is its log")]
#![expect(clippy::disallowed_methods, reason = "a program of its own, made to misbehave")]

mod common;

use std::cell::RefCell;
use std::io::Write as _;
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::HeaderMap;
use serde_json::{Value, json};
use signal_hook::consts::SIGTERM;

use common::{Outcome, Tools};

#[derive(Debug, Default)]
struct Switches {
    port: Option<u16>,
    late: Duration,
    never: bool,
    exit_after: Option<(Duration, u8)>,
    ignore_term: bool,
    children: Vec<Child>,
    flood: Option<u64>,
    print: Vec<(String, String)>,
    /// It is a child itself.
    sleeper: Option<Child>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Child {
    Session,
    Setsid,
    Closed,
}

impl Child {
    const ALL: [(&str, Self); 3] =
        [("session", Self::Session), ("setsid", Self::Setsid), ("closed", Self::Closed)];

    fn parse(name: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|(known, _)| *known == name);
        found.map(|(_, child)| child).ok_or_else(|| format!("there is no child called {name:?}"))
    }

    fn name(self) -> &'static str {
        Self::ALL.into_iter().find(|(_, child)| *child == self).map_or("", |(name, _)| name)
    }

    /// Starts one: this program again.
    fn start(self, ignore_term: bool) -> std::io::Result<()> {
        let mut command = Command::new("/proc/self/exe");
        command.args(["--sleeper", self.name()]).stdin(Stdio::null()).env_remove("UNRULY");
        if ignore_term {
            command.arg("--ignore-term");
        }
        if self == Self::Closed {
            command.stdout(Stdio::null()).stderr(Stdio::null());
        }
        // Nobody waits for it: that is the point.
        command.spawn().map(drop)
    }
}

impl Switches {
    fn parse(words: impl IntoIterator<Item = String>) -> Result<Self, String> {
        let mut words = words.into_iter();
        let mut switches = Self::default();
        while let Some(switch) = words.next() {
            let mut value = || words.next().ok_or_else(|| format!("{switch} needs a value"));
            match &*switch {
                "--port" | "--elsewhere" => switches.port = Some(number(&value()?)?),
                "--late" => switches.late = millis(&value()?)?,
                "--never" => switches.never = true,
                "--exit" => switches.exit_after = Some((Duration::ZERO, number(&value()?)?)),
                "--exit-after" => switches.exit_after = Some((millis(&value()?)?, number(&value()?)?)),
                "--ignore-term" => switches.ignore_term = true,
                "--child" => switches.children.push(Child::parse(&value()?)?),
                "--flood" => switches.flood = Some(number(&value()?)?),
                "--print" => switches.print.push((value()?, value()?)),
                "--sleeper" => switches.sleeper = Some(Child::parse(&value()?)?),
                other => return Err(format!("there is no switch {other:?}")),
            }
        }
        Ok(switches)
    }
}

fn number<N: std::str::FromStr>(text: &str) -> Result<N, String> {
    text.parse().map_err(|_| format!("{text:?} is not a number that fits"))
}

fn millis(text: &str) -> Result<Duration, String> {
    number(text).map(Duration::from_millis)
}

/// Writes a variable to stderr in one of the forms that a log must not show.
fn print(name: &str, form: &str) -> Result<(), String> {
    let value = std::env::var(name).map_err(|_| format!("{name} is not set"))?;
    let mut stderr = std::io::stderr();
    let text = match form {
        "raw" => value,
        "json" => Value::from(value).to_string(),
        "base64" => STANDARD.encode(format!("user:{value}")),
        "url" => value.bytes().map(|byte| format!("%{byte:02X}")).collect::<Vec<_>>().concat(),
        "split" => {
            let (first, second) = value.as_bytes().split_at(value.len() / 2);
            return [b"split: ", first]
                .iter()
                .try_for_each(|part| stderr.write_all(part))
                .and_then(|()| {
                    std::thread::sleep(Duration::from_millis(20));
                    stderr.write_all(second)?;
                    stderr.write_all(b"\n")
                })
                .map_err(|error| error.to_string());
        }
        _ => return Err(format!("there is no form {form:?}")),
    };
    eprintln!("{form}: {text}");
    Ok(())
}

/// Fills stderr; ends when nobody reads it any more.
fn flood(bytes: u64) {
    let line = [b"all work and no play makes a dull log\n".as_slice(); 1000].concat();
    let mut left = if bytes == 0 { u64::MAX } else { bytes };
    let mut stderr = std::io::stderr();
    while left > 0 {
        let count = usize::try_from(left).unwrap_or(usize::MAX).min(line.len());
        if stderr.write_all(&line[..count]).is_err() {
            return;
        }
        left -= count as u64;
    }
}

#[derive(Default)]
struct Unruly {
    headers: RefCell<Vec<String>>,
}

impl Tools for Unruly {
    const NAME: &'static str = "unruly";

    fn list(&self) -> Value {
        let schema = json!({ "type": "object" });
        ["pid", "env_names", "header_names", "crash", "sleep", "wait", "stream"]
            .map(|name| json!({ "name": name, "description": "for tests", "inputSchema": schema }))
            .into_iter()
            .collect()
    }

    fn hear(&self, headers: &HeaderMap) {
        *self.headers.borrow_mut() = headers.keys().map(ToString::to_string).collect();
    }

    async fn call(&self, tool: &str, arguments: &Value) -> Option<Outcome> {
        let number = |name: &str, otherwise| arguments[name].as_u64().unwrap_or(otherwise);
        let interval = Duration::from_millis(number("ms", 100));
        match tool {
            "pid" => Some(Outcome::Text(std::process::id().to_string())),
            "env_names" => Some(Outcome::Text(env_names())),
            "header_names" => Some(Outcome::Text(self.headers.borrow().join("\n"))),
            "crash" => std::process::exit(i32::try_from(number("status", 1) % 256).unwrap_or(1)),
            "sleep" => {
                tokio::time::sleep(interval).await;
                Some(Outcome::Text("slept".into()))
            }
            "wait" => {
                let file = arguments["file"].as_str().unwrap_or_default();
                while !std::path::Path::new(file).exists() {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                Some(Outcome::Text("waited".into()))
            }
            "stream" => {
                let events = u32::try_from(number("events", 3)).unwrap_or(u32::MAX);
                Some(Outcome::Events(events, interval))
            }
            _ => None,
        }
    }
}

fn env_names() -> String {
    let mut names: Vec<_> =
        std::env::vars_os().map(|(name, _)| name.to_string_lossy().into_owned()).collect();
    names.sort_unstable();
    names.join("\n")
}

async fn run() -> Result<ExitCode, String> {
    let more = std::env::var("UNRULY").unwrap_or_default();
    let words = std::env::args().skip(1).chain(more.split_whitespace().map(str::to_owned));
    let switches = Switches::parse(words)?;
    if let Some((Duration::ZERO, status)) = switches.exit_after {
        return Ok(ExitCode::from(status));
    }
    if switches.ignore_term {
        let taken = signal_hook::flag::register(SIGTERM, Arc::new(AtomicBool::new(false)));
        taken.map_err(|error| format!("cannot ignore SIGTERM: {error}"))?;
    }
    if let Some(child) = switches.sleeper {
        if child != Child::Session {
            nix::unistd::setsid().map_err(|error| format!("cannot make a session: {error}"))?;
        }
        return std::future::pending().await;
    }
    for (name, form) in &switches.print {
        print(name, form)?;
    }
    for child in &switches.children {
        child.start(switches.ignore_term).map_err(|error| format!("cannot start a child: {error}"))?;
    }
    if let Some(bytes) = switches.flood {
        std::thread::spawn(move || flood(bytes));
    }
    let lives = async {
        match switches.exit_after {
            Some((after, status)) => {
                tokio::time::sleep(after).await;
                Ok(ExitCode::from(status))
            }
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        biased;
        status = lives => status,
        ended = serve(&switches) => ended.map(|()| ExitCode::SUCCESS),
    }
}

async fn serve(switches: &Switches) -> Result<(), String> {
    if switches.never {
        return std::future::pending().await;
    }
    let port = switches.port.ok_or("--port is missing")?;
    tokio::time::sleep(switches.late).await;
    let listener = common::listen(&port.to_string()).await?;
    common::serve(listener, Unruly::default()).await;
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    run().await.unwrap_or_else(|error| {
        eprintln!("unruly: {error}");
        ExitCode::FAILURE
    })
}
