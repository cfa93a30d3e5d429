//! Notes: a small MCP server to try mcpsup with, and to read.
//!
//! It is what mcpsup expects of a server with `transport = "http"`: it takes its port and its
//! user's credentials from the environment, listens on 127.0.0.1, keeps its files in its own
//! directory, and complains on stderr. Everything about MCP is in `common/mod.rs`.
//!
//! | variable | |
//! |---|---|
//! | `NOTES_PORT` | where to listen (`port_env = "NOTES_PORT"`) |
//! | `NOTES_SOCKET` | the same, on a Unix socket (`NOTES_SOCKET = "{socket}"`) |
//! | `NOTES_TOKEN` | the user's credential; without it the server does not start |
//! | `NOTES_DIR` | where the notes are kept (`NOTES_DIR = "{state_dir}"`) |
//! | `NOTES_USER` or `USER` | whose notes they are (`NOTES_USER = "{user}"`) |
//!
//! SIGTERM ends it, as it ends every program that does not say otherwise: a note is on disk before
//! the call that added it is answered.

#![expect(clippy::print_stderr, reason = "a server's stderr is its log")]
#![expect(clippy::disallowed_methods, reason = "a program of its own, with an environment made for it")]

mod common;

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use common::{Outcome, Tools};

/// The longest note, in bytes.
const MAX_NOTE: usize = 4096;
/// The file of notes does not grow beyond this many bytes.
const MAX_NOTES: u64 = 1024 * 1024;

struct Notes {
    user: String,
    token: String,
    file: PathBuf,
}

impl Tools for Notes {
    const NAME: &'static str = "notes";

    fn list(&self) -> Value {
        let nothing = json!({ "type": "object", "properties": {} });
        let text = json!({
            "type": "object",
            "properties": { "text": { "type": "string", "description": "one line" } },
            "required": ["text"],
        });
        json!([
            { "name": "whoami", "description": "Says whose server this is", "inputSchema": nothing },
            { "name": "add_note", "description": "Keeps a note", "inputSchema": text },
            { "name": "list_notes", "description": "Lists the notes", "inputSchema": nothing },
        ])
    }

    async fn call(&self, tool: &str, arguments: &Value) -> Option<Outcome> {
        let outcome = match tool {
            "whoami" => Ok(self.whoami()),
            "add_note" => self.add(arguments),
            "list_notes" => self.all(),
            _ => return None,
        };
        Some(outcome.map_or_else(Outcome::Failed, Outcome::Text))
    }
}

impl Notes {
    fn from_environment() -> Result<Self, String> {
        let get = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let token = get("NOTES_TOKEN").ok_or("NOTES_TOKEN is not set; it is this user's credential")?;
        let dir = get("NOTES_DIR").ok_or("NOTES_DIR is not set; notes are kept there")?;
        let user = get("NOTES_USER").or_else(|| get("USER")).unwrap_or_else(|| "somebody".into());
        Ok(Self { user, token, file: PathBuf::from(dir).join("notes.txt") })
    }

    /// Enough to see that two users have different tokens, too little to use one.
    fn whoami(&self) -> String {
        let digest = Sha256::digest(&self.token);
        let [first, second, third, ..] = digest[..] else {
            return self.user.clone();
        };
        format!("{} with the token whose fingerprint is {first:02x}{second:02x}{third:02x}", self.user)
    }

    fn add(&self, arguments: &Value) -> Result<String, String> {
        let text = arguments["text"].as_str().ok_or("cannot add a note without a text")?;
        if text.len() > MAX_NOTE || text.contains(['\n', '\r']) {
            return Err(format!("a note is one line of at most {MAX_NOTE} bytes"));
        }
        let opened = OpenOptions::new().create(true).append(true).mode(0o600).open(&self.file);
        let mut file = opened.map_err(|error| format!("cannot open the notes: {error}"))?;
        if file.metadata().is_ok_and(|metadata| metadata.len() > MAX_NOTES) {
            return Err("cannot add a note: there are too many".into());
        }
        let written = file.write_all(format!("{text}\n").as_bytes()).and_then(|()| file.sync_data());
        written.map_err(|error| format!("cannot write the note: {error}"))?;
        eprintln!("notes: added one of {} bytes", text.len());
        Ok("added".into())
    }

    fn all(&self) -> Result<String, String> {
        match fs::read_to_string(&self.file) {
            Ok(notes) if !notes.is_empty() => Ok(notes.trim_end().to_owned()),
            Ok(_) => Ok("no notes".into()),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok("no notes".into()),
            Err(error) => Err(format!("cannot read the notes: {error}")),
        }
    }
}

async fn run() -> Result<(), String> {
    let notes = Notes::from_environment()?;
    let place = std::env::var("NOTES_SOCKET").or_else(|_| std::env::var("NOTES_PORT"));
    let place = place.map_err(|_| "neither NOTES_PORT nor NOTES_SOCKET is set")?;
    let listener = common::listen(&place).await?;
    eprintln!("notes: listening on {place} for {}", notes.user);
    common::serve(listener, notes).await;
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("notes: {error}");
            ExitCode::FAILURE
        }
    }
}
