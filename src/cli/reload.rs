//! `mcpsup reload`: SIGHUP for those who may not send one.

use super::session::Session;
use super::Outcome;

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
