//! `mcpsup headers`: what a client sends to come in at a user's door, for clients with a header
//! helper (Claude Code's `headersHelper`, Codex's `http_headers_helper`).
//!
//! No token lies in a file of the client's: the helper asks for one when it connects, the kernel says
//! to the daemon who asks, and what it gets is good for half a day.

use clap_complete::ArgValueCompleter;

use super::session::Session;
use super::who::{Who, target};
use super::{Outcome, names};

/// Whose, and which token.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Whose doors, or which one; yours unless said otherwise
    #[arg(value_name = "USER[/SERVER]", add = ArgValueCompleter::new(names::instances))]
    pub who: Option<Who>,
    /// The token that does not end, for a client that cannot ask each time
    #[arg(long)]
    pub lasting: bool,
    /// End every token of this user that was given out so far
    #[arg(long)]
    pub renew: bool,
}

/// Prints a JSON object of headers, on one line.
///
/// # Errors
///
/// When the daemon cannot be reached, or the user is not the caller's to steer.
pub fn run(args: &Args, session: &Session) -> anyhow::Result<Outcome> {
    let target = target(args.who.as_ref(), false);
    let headers = session.client()?.headers(&target, args.lasting, args.renew)?;
    session.print.json(&headers, true)?;
    Ok(Outcome::Done)
}
