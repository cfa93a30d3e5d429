//! `mcpsup reload`: SIGHUP for those who may not send one.

use super::Outcome;
use super::session::Session;

/// Does it.
///
/// # Errors
///
/// When the daemon cannot be reached or refuses.
pub fn run(session: &Session) -> anyhow::Result<Outcome> {
    session.client()?.reload()?;
    session.print.line("every file is read again; mcpsup status shows what came of it")?;
    Ok(Outcome::Done)
}
