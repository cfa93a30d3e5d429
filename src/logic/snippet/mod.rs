//! What an AI client's configuration file must say so that it finds its user's door.
//!
//! Ten clients, three formats. [`render`] makes a whole file, [`merge`] puts our entries into a
//! file that already holds other things, [`find`] reads an entry back. A merge is a list of
//! insertions and replacements in the text (`splice`), so every byte that is not ours stays what
//! it was: comments, order, indentation, line ends. The parsers only say where to cut, and the
//! result is parsed once more and compared before anybody gets it.
//!
//! Nothing here touches a file; `cli::client` does. No message contains anything of a file but the
//! names of entries and the hosts they point at: such files hold other people's tokens.

mod address;
mod json;
mod place;
mod shape;
mod splice;
mod toml;
mod yaml;

#[cfg(test)]
mod tests;

use std::fmt;
use std::str::FromStr;

pub use address::{is_loopback, shown};
pub use place::{Bases, Scope, files};
pub use shape::is_connect;

use crate::model::ServerName;
use shape::{Form, Format};

/// An AI client whose configuration we know how to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientKind {
    /// Claude Code, by `.mcp.json`.
    ClaudeCode,
    /// Claude Desktop, which speaks only stdio to servers of its file.
    ClaudeDesktop,
    /// Visual Studio Code.
    Vscode,
    /// Cursor.
    Cursor,
    /// Codex CLI; the one with TOML.
    Codex,
    /// Gemini CLI.
    Gemini,
    /// Windsurf.
    Windsurf,
    /// Zed.
    Zed,
    /// opencode.
    Opencode,
    /// goose; the one with YAML.
    Goose,
}

impl ClientKind {
    /// All of them, in the order of the command's help.
    pub const ALL: [Self; 10] = [
        Self::ClaudeCode,
        Self::ClaudeDesktop,
        Self::Vscode,
        Self::Cursor,
        Self::Codex,
        Self::Gemini,
        Self::Windsurf,
        Self::Zed,
        Self::Opencode,
        Self::Goose,
    ];

    /// The word after `--for`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ClaudeCode => "claude-code",
            Self::ClaudeDesktop => "claude-desktop",
            Self::Vscode => "vscode",
            Self::Cursor => "cursor",
            Self::Codex => "codex",
            Self::Gemini => "gemini",
            Self::Windsurf => "windsurf",
            Self::Zed => "zed",
            Self::Opencode => "opencode",
            Self::Goose => "goose",
        }
    }

    /// True if the client runs a command of ours for the headers of each connection.
    #[must_use]
    pub const fn has_helper(self) -> bool {
        matches!(self, Self::ClaudeCode | Self::Codex)
    }

    /// What its user should know beside the snippet, in one line; of its own file, if that is where the
    /// snippet goes.
    #[must_use]
    pub const fn note(self, is_user_file: bool) -> Option<&'static str> {
        match self {
            Self::ClaudeCode | Self::Codex if is_user_file => None,
            Self::ClaudeCode => {
                Some("entries of a project file wait until you approve them: run claude once there")
            }
            Self::ClaudeDesktop => Some(
                "Claude Desktop speaks only stdio, so the entry starts mcpsup connect; restart it after a change",
            ),
            Self::Codex => Some("a project file counts only in a project that Codex trusts"),
            Self::Gemini => Some("Gemini uses no server at all in a folder it does not trust"),
            Self::Zed => Some(
                "if Zed offers to sign in, the server itself answered 401: look at its credentials in the env file",
            ),
            Self::Vscode | Self::Cursor | Self::Windsurf | Self::Opencode | Self::Goose => None,
        }
    }
}

impl fmt::Display for ClientKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Why a text names no client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "expected one of claude-code, claude-desktop, vscode, cursor, codex, gemini, windsurf, zed, opencode, goose"
)]
pub struct NotAClient;

impl FromStr for ClientKind {
    type Err = NotAClient;

    fn from_str(text: &str) -> Result<Self, NotAClient> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text).ok_or(NotAClient)
    }
}

/// One server as the client shall see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// What the client calls it; see [`entry_name`].
    pub name: String,
    /// Where it is: `http://127.0.0.1:3456/mcp`.
    pub url: String,
    /// The program and its arguments that lead there instead, for a client that is to speak stdio.
    pub command: Option<Vec<String>>,
    /// The shell command that prints the headers to come in with, for a client that asks one
    /// ([`ClientKind::has_helper`]).
    pub helper: Option<String>,
}

/// What a client's file says about one server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// Where it points; `None` if the entry has no URL in a place the client would look at.
    pub url: Option<String>,
    /// The program it starts, with its arguments.
    pub command: Option<Vec<String>>,
    /// The user switched it off in the client.
    pub off: bool,
}

/// Why a file is left as it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MergeError {
    /// It is not what its client would read.
    #[error("line {line}, column {column}: {problem}")]
    Parse {
        /// From 1.
        line: usize,
        /// From 1, in characters.
        column: usize,
        /// What is wrong there.
        problem: String,
    },
    /// It can be read, but not be changed without touching what is not ours.
    #[error("{0}")]
    Unsafe(String),
    /// An entry of our name points at something that is not a door.
    #[error("\"{name}\" already points at {target}; --force replaces it")]
    Taken {
        /// The entry.
        name: String,
        /// The scheme and host it points at, or `a command`.
        target: String,
    },
}

/// The name a client shall give a server: its own, with `-` for `.`, which some clients do not
/// take (Claude Code and Codex allow letters, digits, `-` and `_`).
#[must_use]
pub fn entry_name(server: &ServerName) -> String {
    server.as_str().replace('.', "-")
}

/// All entries of a file are of one form.
fn form(entries: &[Entry]) -> Form {
    if entries.iter().any(|entry| entry.command.is_some()) {
        Form::Program
    } else if entries.iter().any(|entry| entry.helper.is_some()) {
        Form::Helped
    } else {
        Form::Door
    }
}

/// A whole file with these entries and nothing else, ending in a line end.
#[must_use]
pub fn render(kind: ClientKind, entries: &[Entry]) -> String {
    let shape = shape::of(kind, form(entries));
    match shape.format {
        Format::Json { .. } => json::render(shape, entries),
        Format::Toml => toml::render(shape, entries),
        Format::Yaml => yaml::render(shape, entries),
    }
}

/// `existing` with our entries added or brought up to date, every other byte as it was.
///
/// An entry that is already there keeps what the user added to it; only where it points and how
/// is set. Merging twice changes nothing the second time. An entry of our name that points at
/// anything but the loopback address is replaced only with `force`.
///
/// # Errors
///
/// When the file does not parse, when it is written in a way that cannot be edited safely, or
/// when an entry of our name belongs to something else.
pub fn merge(kind: ClientKind, existing: &str, entries: &[Entry], force: bool) -> Result<String, MergeError> {
    let (mark, text) = split_mark(existing);
    let merged = if text.trim().is_empty() {
        render(kind, entries)
    } else {
        let shape = shape::of(kind, form(entries));
        match shape.format {
            Format::Json { comments } => json::merge(shape, comments, text, entries, force)?,
            Format::Toml => toml::merge(shape, text, entries, force)?,
            Format::Yaml => yaml::merge(shape, text, entries, force)?,
        }
    };
    Ok(format!("{mark}{merged}"))
}

/// What `existing` says about the server called `name`; `None` if nothing.
///
/// # Errors
///
/// When the file does not parse, or is not of the kind of value its client expects.
pub fn find(kind: ClientKind, existing: &str, name: &str) -> Result<Option<Found>, MergeError> {
    let (_, text) = split_mark(existing);
    if text.trim().is_empty() {
        return Ok(None);
    }
    let shape = shape::of(kind, Form::Door);
    match shape.format {
        Format::Json { comments } => json::find(shape, comments, text, name),
        Format::Toml => toml::find(shape, text, name),
        Format::Yaml => yaml::find(shape, text, name),
    }
}

/// A byte order mark and what follows it; some Windows editors write one.
fn split_mark(text: &str) -> (&str, &str) {
    let rest = text.strip_prefix('\u{feff}').unwrap_or(text);
    text.split_at(text.len() - rest.len())
}
