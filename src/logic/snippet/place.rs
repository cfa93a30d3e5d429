//! Where each client keeps its configuration, as its documentation says for Linux.
//!
//! A door is on the loopback address, so the client runs on this host (or comes in through a
//! tunnel and names the file with `--file`): other systems' paths are of no use here.

use std::path::{Path, PathBuf};

use super::ClientKind;

/// Whether a file counts for one project or for all that its user does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Beside the code.
    Project,
    /// In the user's home.
    User,
}

impl Scope {
    /// Where a client's users expect an MCP server by default.
    ///
    /// Clients that read a project file without being told to trust the folder get that one, for
    /// a door is one person's and a project is where they say what they need; the rest have a file
    /// in the home directory.
    #[must_use]
    pub const fn default_for(kind: ClientKind) -> Self {
        match kind {
            ClientKind::ClaudeCode | ClientKind::Vscode | ClientKind::Cursor | ClientKind::Opencode => {
                Self::Project
            }
            ClientKind::ClaudeDesktop
            | ClientKind::Codex
            | ClientKind::Gemini
            | ClientKind::Windsurf
            | ClientKind::Zed
            | ClientKind::Goose => Self::User,
        }
    }
}

/// The directories that files are looked for in.
#[derive(Debug, Clone, Copy)]
pub struct Bases<'a> {
    /// `$HOME`
    pub home: &'a Path,
    /// `$XDG_CONFIG_HOME`, or `.config` in the home directory.
    pub config_home: &'a Path,
    /// The project.
    pub cwd: &'a Path,
}

/// The files a client reads, the one to write first: another is meant only where it exists and
/// the first does not. Empty if the client has none of that scope.
#[must_use]
pub fn files(kind: ClientKind, scope: Scope, bases: Bases<'_>) -> Vec<PathBuf> {
    let Bases { home, config_home, cwd } = bases;
    match (scope, kind) {
        (Scope::Project, ClientKind::ClaudeCode) => vec![cwd.join(".mcp.json")],
        (Scope::Project, ClientKind::Vscode) => vec![cwd.join(".vscode/mcp.json")],
        (Scope::Project, ClientKind::Cursor) => vec![cwd.join(".cursor/mcp.json")],
        (Scope::Project, ClientKind::Codex) => vec![cwd.join(".codex/config.toml")],
        (Scope::Project, ClientKind::Gemini) => vec![cwd.join(".gemini/settings.json")],
        (Scope::Project, ClientKind::Opencode) => {
            vec![cwd.join("opencode.json"), cwd.join("opencode.jsonc")]
        }
        (
            Scope::Project,
            ClientKind::ClaudeDesktop | ClientKind::Windsurf | ClientKind::Zed | ClientKind::Goose,
        ) => Vec::new(),
        (Scope::User, ClientKind::ClaudeCode) => vec![home.join(".claude.json")],
        (Scope::User, ClientKind::ClaudeDesktop) => {
            vec![config_home.join("Claude/claude_desktop_config.json")]
        }
        (Scope::User, ClientKind::Vscode) => vec![config_home.join("Code/User/mcp.json")],
        (Scope::User, ClientKind::Cursor) => vec![home.join(".cursor/mcp.json")],
        (Scope::User, ClientKind::Codex) => vec![home.join(".codex/config.toml")],
        (Scope::User, ClientKind::Gemini) => vec![home.join(".gemini/settings.json")],
        (Scope::User, ClientKind::Windsurf) => vec![home.join(".codeium/windsurf/mcp_config.json")],
        (Scope::User, ClientKind::Zed) => vec![config_home.join("zed/settings.json")],
        (Scope::User, ClientKind::Opencode) => {
            let dir = config_home.join("opencode");
            vec![dir.join("opencode.json"), dir.join("opencode.jsonc")]
        }
        (Scope::User, ClientKind::Goose) => vec![config_home.join("goose/config.yaml")],
    }
}
