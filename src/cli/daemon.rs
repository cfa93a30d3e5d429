//! `mcpsup daemon`

use std::ffi::OsString;
use std::io::IsTerminal;

use anyhow::Context;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use super::Outcome;
use super::session::{Environment, Session};
use crate::system::notify::Started;

/// Runs the supervisor until it is told to end.
///
/// # Errors
///
/// When it cannot start, or ended otherwise than told.
pub fn run(session: &Session) -> anyhow::Result<Outcome> {
    // First of all: what was passed to us is found by its number.
    let started = Started::read(|name| session.environment.get(name).map(OsString::from));
    log_to_stderr(&session.environment);
    crate::daemon::run(&session.places, started.context("cannot take over what the service manager kept")?)?;
    Ok(Outcome::Done)
}

/// One line per event on standard error. `MCPSUP_LOG` chooses what (`debug`,
/// `info,mcpsup::door=debug`). In a journal, which stamps every line itself, the time is left out.
fn log_to_stderr(environment: &Environment) {
    let wanted = environment.get("MCPSUP_LOG").and_then(|text| text.to_str()).unwrap_or("info");
    let filter: Targets = wanted.parse().unwrap_or_else(|_| Targets::new().with_default(LevelFilter::INFO));
    let colour = std::io::stderr().is_terminal() && environment.get("NO_COLOR").is_none();
    let lines = fmt::layer().with_writer(std::io::stderr).with_target(false).with_ansi(colour);
    let registry = tracing_subscriber::registry().with(filter);
    if environment.get("JOURNAL_STREAM").is_some() {
        registry.with(lines.without_time()).init();
    } else {
        registry.with(lines).init();
    }
}
