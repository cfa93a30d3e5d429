//! `mcpsup reload`: SIGHUP for those who may not send one.

use serde_json::json;

use super::Outcome;
use super::session::Session;

/// How.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print what was done as JSON: {"reloaded": true, "generation": N}
    #[arg(long)]
    pub json: bool,
}

/// Does it.
///
/// # Errors
///
/// When the daemon cannot be reached or refuses.
pub fn run(args: &Args, session: &Session) -> anyhow::Result<Outcome> {
    let accepted = session.client()?.reload()?;
    if args.json {
        // What came of it is in a status of a later generation.
        session.print.json(&json!({"reloaded": true, "generation": accepted.generation}), false)?;
    } else {
        session.print.line("every file is read again; mcpsup status shows what came of it")?;
    }
    Ok(Outcome::Done)
}
