//! `mcpsup reload`: SIGHUP for those who may not send one.

use serde_json::json;

use super::Outcome;
use super::print::clean;
use super::session::Session;
use crate::control::protocol::Target;

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
        // What keeps anything from being started is said at once.
        let report = session.client()?.status(&Target::default(), None)?;
        let refusals = report.notes.iter().filter(|note| note.contains("cannot be had here"));
        for problem in report.problems.iter().map(ToString::to_string).chain(refusals.cloned()) {
            session.print.aside(&clean(&problem));
        }
    }
    Ok(Outcome::Done)
}
