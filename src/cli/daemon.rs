//! `mcpsup daemon`

use super::Outcome;
use super::session::Session;

/// Runs the supervisor until it is told to end.
///
/// # Errors
///
/// When it cannot start, or ended otherwise than told.
pub fn run(session: &Session) -> anyhow::Result<Outcome> {
    crate::daemon::run(&session.places)?;
    Ok(Outcome::Done)
}
