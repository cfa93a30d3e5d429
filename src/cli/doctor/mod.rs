//! `mcpsup doctor`: what is wrong, and what mends it.
//!
//! `look` gathers what `check`, the daemon, the host and the client's files say; what
//! follows from it is [`logic::doctor`](crate::logic::doctor)'s. It mends nothing itself.

mod look;
mod page;

use clap_complete::ArgValueCompleter;
use serde_json::json;

use super::Outcome;
use super::names;
use super::session::Session;
use crate::logic::doctor::in_order;
use crate::model::UserName;
use crate::model::finding::Weight;

/// Whose, and how.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Whose servers; an ordinary user means themself, an administrator everybody
    #[arg(value_name = "USER", add = ArgValueCompleter::new(names::users))]
    pub user: Option<UserName>,
    /// Print it as JSON: {"findings": [{"code", "weight", "user", "server", "wrong", "mend"}], "looked"}
    #[arg(long)]
    pub json: bool,
    /// Say what was looked at and is right, too
    #[arg(long, short)]
    pub verbose: bool,
}

/// Does it.
///
/// # Errors
///
/// When the user is somebody else's business, or nobody; and when stdout cannot be written.
pub fn run(args: &Args, session: &Session) -> anyhow::Result<Outcome> {
    let seen = look::look(args.user.as_ref(), session)?;
    let mut findings = in_order(seen.findings);
    if let Some(user) = &args.user {
        findings.retain(|finding| finding.user.as_ref().is_none_or(|whose| whose == user));
    }
    let is_well = findings.iter().all(|finding| finding.weight == Weight::Note);
    if args.json {
        session.print.json(&json!({ "findings": findings, "looked": seen.looked }), false)?;
    } else {
        let is_walk = args.verbose || args.user.is_some();
        let lines = page::page(&findings, if is_walk { &seen.looked } else { &[] }, &session.print);
        session.print.lines(&lines, false)?;
    }
    Ok(if is_well { Outcome::Done } else { Outcome::Failed })
}
