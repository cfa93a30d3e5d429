//! `mcpsup client` (STUB: another hand writes this file).

use super::Outcome;
use super::session::Session;

/// (STUB)
#[derive(Debug, clap::Args)]
pub struct Args {}

/// (STUB)
///
/// # Errors
///
/// (STUB)
pub fn run(_args: &Args, _session: &Session) -> anyhow::Result<Outcome> {
    anyhow::bail!("cannot print a client's configuration: this build does not have that yet")
}
