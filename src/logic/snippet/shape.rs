//! What each client wants to read: the table that the three formats are driven by.
//!
//! Claude Code, Codex, Gemini and opencode were run against a logger; the others are from their
//! documentation. No entry carries an Authorization header, for a token in a file is a token that
//! leaks: where a door takes one, a client that has a header helper is told to ask `mcpsup headers`,
//! and the others to start `mcpsup connect`.

use super::{ClientKind, Entry, MergeError, address};

/// How a client's file is written.
#[derive(Clone, Copy)]
pub(super) enum Format {
    /// JSON; with `comments` the client reads comments and trailing commas too.
    Json {
        /// False where the client would refuse the whole file for a comment.
        comments: bool,
    },
    /// TOML
    Toml,
    /// YAML
    Yaml,
}

/// What stands in a field.
#[derive(Clone, Copy)]
pub(super) enum Content {
    /// The door's URL.
    Url,
    /// The entry's name once more.
    Name,
    /// A fixed text.
    Text(&'static str),
    /// True or false.
    Flag(bool),
    /// A number.
    Number(u32),
    /// The command that prints headers.
    Helper,
    /// The program that an entry starts.
    Program,
    /// Its arguments.
    Args,
    /// Both in one list.
    Words,
    /// The arguments that make mcp-remote a stdio shim for the door.
    ShimArgs,
}

/// One field of an entry.
pub(super) struct Field {
    pub(super) key: &'static str,
    pub(super) content: Content,
    /// True: set in an entry that is already there. False: there it is the user's.
    pub(super) set: bool,
}

/// A client's file.
pub(super) struct Shape {
    pub(super) format: Format,
    /// The key at the top that holds the servers by name.
    pub(super) container: &'static str,
    /// The key of an entry that holds the URL; empty where an argument does.
    pub(super) url_key: &'static str,
    /// The fields of an entry, in order.
    pub(super) fields: &'static [Field],
}

const fn set(key: &'static str, content: Content) -> Field {
    Field { key, content, set: true }
}

const fn once(key: &'static str, content: Content) -> Field {
    Field { key, content, set: false }
}

const COMMENTS: Format = Format::Json { comments: true };
const STRICT: Format = Format::Json { comments: false };

const CLAUDE_CODE: Shape = Shape {
    format: STRICT,
    container: "mcpServers",
    url_key: "url",
    fields: &[set("type", Content::Text("http")), set("url", Content::Url)],
};
// mcp-remote takes plain http for localhost and 127.0.0.1 without --allow-http; http-only spares
// the door the SSE attempt. To be `mcpsup connect` once that is there.
const CLAUDE_DESKTOP: Shape = Shape {
    format: STRICT,
    container: "mcpServers",
    url_key: "",
    fields: &[set("command", Content::Text("npx")), set("args", Content::ShimArgs)],
};
const VSCODE: Shape = Shape {
    format: COMMENTS,
    container: "servers",
    url_key: "url",
    fields: &[set("type", Content::Text("http")), set("url", Content::Url)],
};
const CURSOR: Shape =
    Shape { format: COMMENTS, container: "mcpServers", url_key: "url", fields: &[set("url", Content::Url)] };
const CODEX: Shape = Shape {
    format: Format::Toml,
    container: "mcp_servers",
    url_key: "url",
    fields: &[set("url", Content::Url)],
};
// `url` would mean SSE.
const GEMINI: Shape = Shape {
    format: COMMENTS,
    container: "mcpServers",
    url_key: "httpUrl",
    fields: &[set("httpUrl", Content::Url)],
};
// `url` is reported not to connect.
const WINDSURF: Shape = Shape {
    format: COMMENTS,
    container: "mcpServers",
    url_key: "serverUrl",
    fields: &[set("serverUrl", Content::Url)],
};
const ZED: Shape = Shape {
    format: COMMENTS,
    container: "context_servers",
    url_key: "url",
    fields: &[set("url", Content::Url)],
};
const OPENCODE: Shape = Shape {
    format: COMMENTS,
    container: "mcp",
    url_key: "url",
    fields: &[
        set("type", Content::Text("remote")),
        set("url", Content::Url),
        once("enabled", Content::Flag(true)),
        once("oauth", Content::Flag(false)),
    ],
};
const GOOSE: Shape = Shape {
    format: Format::Yaml,
    container: "extensions",
    url_key: "uri",
    fields: &[
        once("enabled", Content::Flag(true)),
        set("type", Content::Text("streamable_http")),
        once("name", Content::Name),
        set("uri", Content::Url),
        once("timeout", Content::Number(300)),
    ],
};

// For stdio. Claude Code and VS Code name the transport, opencode calls it `local` and takes one
// list, goose says `cmd`; the others tell it by `command`.
const PROGRAM: &[Field] = &[set("command", Content::Program), set("args", Content::Args)];
const TYPED_PROGRAM: &[Field] =
    &[set("type", Content::Text("stdio")), set("command", Content::Program), set("args", Content::Args)];
const CLAUDE_CODE_STDIO: Shape = Shape { url_key: "", fields: TYPED_PROGRAM, ..CLAUDE_CODE };
const CLAUDE_DESKTOP_STDIO: Shape = Shape { fields: PROGRAM, ..CLAUDE_DESKTOP };
const VSCODE_STDIO: Shape = Shape { url_key: "", fields: TYPED_PROGRAM, ..VSCODE };
const CURSOR_STDIO: Shape = Shape { url_key: "", fields: TYPED_PROGRAM, ..CURSOR };
const CODEX_STDIO: Shape = Shape { url_key: "", fields: PROGRAM, ..CODEX };
const GEMINI_STDIO: Shape = Shape { url_key: "", fields: PROGRAM, ..GEMINI };
const WINDSURF_STDIO: Shape = Shape { url_key: "", fields: PROGRAM, ..WINDSURF };
const ZED_STDIO: Shape = Shape { url_key: "", fields: PROGRAM, ..ZED };
const OPENCODE_STDIO: Shape = Shape {
    url_key: "",
    fields: &[
        set("type", Content::Text("local")),
        set("command", Content::Words),
        once("enabled", Content::Flag(true)),
    ],
    ..OPENCODE
};
const GOOSE_STDIO: Shape = Shape {
    url_key: "",
    fields: &[
        once("enabled", Content::Flag(true)),
        set("type", Content::Text("stdio")),
        once("name", Content::Name),
        set("cmd", Content::Program),
        set("args", Content::Args),
        once("timeout", Content::Number(300)),
    ],
    ..GOOSE
};

const CLAUDE_CODE_HELPED: Shape = Shape {
    fields: &[
        set("type", Content::Text("http")),
        set("url", Content::Url),
        set("headersHelper", Content::Helper),
    ],
    ..CLAUDE_CODE
};
const CODEX_HELPED: Shape =
    Shape { fields: &[set("url", Content::Url), set("http_headers_helper", Content::Helper)], ..CODEX };

/// What the entries of a file are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// URLs of doors.
    Door,
    /// The same, and what prints the headers to come in with.
    Helped,
    /// Programs that lead there.
    Program,
}

/// The shape of a client's file. A client without a header helper is told of the URL alone.
pub(super) const fn of(kind: ClientKind, form: Form) -> &'static Shape {
    match (form, kind) {
        (Form::Helped, ClientKind::ClaudeCode) => return &CLAUDE_CODE_HELPED,
        (Form::Helped, ClientKind::Codex) => return &CODEX_HELPED,
        (Form::Door | Form::Helped | Form::Program, _) => {}
    }
    if matches!(form, Form::Program) {
        return match kind {
            ClientKind::ClaudeCode => &CLAUDE_CODE_STDIO,
            ClientKind::ClaudeDesktop => &CLAUDE_DESKTOP_STDIO,
            ClientKind::Vscode => &VSCODE_STDIO,
            ClientKind::Cursor => &CURSOR_STDIO,
            ClientKind::Codex => &CODEX_STDIO,
            ClientKind::Gemini => &GEMINI_STDIO,
            ClientKind::Windsurf => &WINDSURF_STDIO,
            ClientKind::Zed => &ZED_STDIO,
            ClientKind::Opencode => &OPENCODE_STDIO,
            ClientKind::Goose => &GOOSE_STDIO,
        };
    }
    match kind {
        ClientKind::ClaudeCode => &CLAUDE_CODE,
        ClientKind::ClaudeDesktop => &CLAUDE_DESKTOP,
        ClientKind::Vscode => &VSCODE,
        ClientKind::Cursor => &CURSOR,
        ClientKind::Codex => &CODEX,
        ClientKind::Gemini => &GEMINI,
        ClientKind::Windsurf => &WINDSURF,
        ClientKind::Zed => &ZED,
        ClientKind::Opencode => &OPENCODE,
        ClientKind::Goose => &GOOSE,
    }
}

/// The keys under which one client or another keeps a URL.
pub(super) const URL_KEYS: [&str; 4] = ["url", "httpUrl", "serverUrl", "uri"];

/// The keys that say that an entry starts a program.
pub(super) const COMMAND_KEYS: [&str; 2] = ["command", "cmd"];

/// The arguments after `npx` that make a stdio server of a URL. mcp-remote takes plain http only
/// for these two names unless it is told otherwise.
pub(super) fn shim_args(url: &str) -> Vec<&str> {
    let mut args = vec!["-y", "mcp-remote", url, "--transport", "http-only"];
    if !["http://127.0.0.1:", "http://localhost:"].iter().any(|near| url.starts_with(near)) {
        args.push("--allow-http");
    }
    args
}

/// The program of an entry and its arguments; nothing of one that has none.
pub(super) fn program(entry: &Entry) -> &str {
    entry.command.as_deref().and_then(<[String]>::first).map_or("", String::as_str)
}

/// The arguments of that program.
pub(super) fn args(entry: &Entry) -> &[String] {
    entry.command.as_deref().and_then(|words| words.get(1..)).unwrap_or_default()
}

/// True if a command is `mcpsup connect`, wherever the program lies and whomever it means.
#[must_use]
pub fn is_connect(words: &[String]) -> bool {
    let name = words.first().and_then(|program| program.rsplit('/').next());
    name == Some("mcpsup") && words.iter().any(|word| word == "connect")
}

/// Refuses an entry that points at somebody else's server. Where doors listen on another address
/// than the loopback one, that address is ours too.
pub(super) fn ours(entry: &Entry, url: &str) -> Result<(), MergeError> {
    if url == entry.url || address::is_loopback(url) || address::same_host(url, &entry.url) {
        Ok(())
    } else {
        Err(taken(entry, &address::shown(url)))
    }
}

/// The refusal of an entry that belongs to something else.
pub(super) fn taken(entry: &Entry, target: &str) -> MergeError {
    MergeError::Taken { name: entry.name.clone(), target: target.to_owned() }
}
