//! `mcpsup init`: files to begin with.

use anyhow::{Context, bail};
use serde_json::json;

use super::Outcome;
use super::session::Session;
use crate::system::files;

/// How.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print what was done as JSON: {"written": [FILE, FILE]}
    #[arg(long)]
    pub json: bool,
}

/// mcpsup.toml to begin with.
pub const CONFIG: &str = include_str!("init/mcpsup.toml");
/// An env file to copy. Its name means no user.
pub const EXAMPLE: &str = include_str!("init/example.env");

/// Does it.
///
/// # Errors
///
/// When something is there already, or cannot be written.
pub fn run(args: &Args, session: &Session) -> anyhow::Result<Outcome> {
    let places = &session.places;
    let example = places.env_dir.join("example");
    for path in [&places.config, &example] {
        if path.symlink_metadata().is_ok() {
            bail!("cannot write {}: it is there already; move it away first", path.display());
        }
    }
    if let Some(dir) = places.config.parent() {
        std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    }
    // Nobody but the daemon needs to know who has a file.
    files::make_dir(&places.env_dir, 0o700)?;
    files::replace(&example, EXAMPLE.as_bytes(), 0o600)?;
    files::replace(&places.config, CONFIG.as_bytes(), 0o644)?;
    if args.json {
        let written = [&places.config, &example].map(|path| path.to_string_lossy());
        session.print.json(&json!({ "written": written }), false)?;
        return Ok(Outcome::Done);
    }
    for path in [&places.config, &example] {
        session.print.line(&format!("wrote {}", path.display()))?;
    }
    session.print.line("next: describe your server in mcpsup.toml, then mcpsup add USER")?;
    Ok(Outcome::Done)
}
