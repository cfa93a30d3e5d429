//! `mcpsup daemon`

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use super::Outcome;
use super::session::{Environment, Session};

/// Runs the supervisor until it is told to end.
///
/// # Errors
///
/// When it cannot start, or ended otherwise than told.
pub fn run(session: &Session) -> anyhow::Result<Outcome> {
    log_to_stderr(&session.environment);
    crate::daemon::run(&session.places)?;
    Ok(Outcome::Done)
}

/// One line per event on standard error. `MCPSUP_LOG` chooses what (`debug`,
/// `info,mcpsup::door=debug`). In a journal, which stamps every line itself, the time is left out.
fn log_to_stderr(environment: &Environment) {
    let wanted = environment.get("MCPSUP_LOG").and_then(|text| text.to_str()).unwrap_or("info");
    let filter = EnvFilter::try_new(wanted).unwrap_or_else(|_| EnvFilter::new("info"));
    let colour = std::io::stderr().is_terminal() && environment.get("NO_COLOR").is_none();
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(false)
        .with_ansi(colour);
    if environment.get("JOURNAL_STREAM").is_some() { lines.without_time().init() } else { lines.init() }
}
