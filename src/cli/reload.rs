//! `mcpsup reload`: SIGHUP for those who may not send one.

use serde_json::json;

use super::Outcome;
use super::print::clean;
use super::session::Session;
use crate::control::protocol::Target;

/// How.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print what was done as JSON: {"reloaded", "generation"}, and "problems" of mcpsup.toml, if any
    #[arg(long)]
    pub json: bool,
}

/// Does it. Failed, if mcpsup.toml is broken: `systemctl reload` says what this says.
///
/// # Errors
///
/// When the daemon cannot be reached or refuses.
pub fn run(args: &Args, session: &Session) -> anyhow::Result<Outcome> {
    let accepted = session.client()?.reload()?;
    let is_taken = accepted.refused.is_empty();
    if args.json {
        // What came of it is in a status of a later generation.
        let mut answer = json!({"reloaded": is_taken, "generation": accepted.generation});
        if !is_taken {
            answer["problems"] = serde_json::to_value(&accepted.refused)?;
        }
        session.print.json(&answer, false)?;
    } else if !is_taken {
        for problem in &accepted.refused {
            session.print.aside(&clean(&problem.to_string()));
        }
        anyhow::bail!("cannot take over mcpsup.toml; what was in force stays until it is right");
    } else {
        session.print.line("every file is read again; mcpsup status shows what came of it")?;
        // What keeps anything from being started is said at once.
        let report = session.client()?.status(&Target::default(), None)?;
        let refusals = report.notes.iter().filter(|note| note.contains("cannot be had here"));
        for problem in report.problems.iter().map(ToString::to_string).chain(refusals.cloned()) {
            session.print.aside(&clean(&problem));
        }
    }
    Ok(if is_taken { Outcome::Done } else { Outcome::Failed })
}
