//! `mcpsup daemon`

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::Layer;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use super::Outcome;
use super::session::{Environment, Session};

/// Runs the supervisor until it is told to end.
///
/// # Errors
///
/// When it cannot start.
pub fn run(session: &Session) -> anyhow::Result<Outcome> {
    log(&session.environment)?;
    crate::daemon::run(&session.places)?;
    Ok(Outcome::Done)
}

/// Sends the daemon's log to stderr: one line per change, from `info` up unless `MCPSUP_LOG` says
/// otherwise.
fn log(environment: &Environment) -> anyhow::Result<()> {
    let filter = match environment.get("MCPSUP_LOG") {
        Some(filter) => EnvFilter::try_new(filter.to_string_lossy())?,
        None => EnvFilter::new("info"),
    };
    let colour = io::stderr().is_terminal() && environment.get("NO_COLOR").is_none();
    let lines = Layer::default().with_writer(io::stderr).with_ansi(colour).with_target(false);
    let log = tracing_subscriber::registry().with(filter);
    if environment.get("JOURNAL_STREAM").is_some() {
        // The journal has its own clock (systemd.exec(5)).
        log.with(lines.without_time()).try_init()?;
    } else {
        log.with(lines).try_init()?;
    }
    Ok(())
}
