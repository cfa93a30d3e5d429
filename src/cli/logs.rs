//! `mcpsup logs`: what an instance wrote, secrets taken out by the daemon.

use clap_complete::ArgValueCompleter;

use super::Outcome;
use super::names;
use super::session::Session;
use super::tame::Tame;
use super::who::{Who, target};
use crate::control::route::MAX_LINES;

/// Whose, and how much.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Whose; the server may be left out where there is only one
    #[arg(value_name = "USER[/SERVER]", add = ArgValueCompleter::new(names::instances))]
    pub who: Option<Who>,
    /// Go on with what is written from now on, until Ctrl-C
    #[arg(long, short)]
    pub follow: bool,
    /// How many lines to begin with
    #[arg(long, short = 'n', value_name = "NUMBER", default_value_t = 100,
          value_parser = clap::value_parser!(u32).range(0..=MAX_LINES as i64))]
    pub lines: u32,
}

/// Does it.
///
/// # Errors
///
/// When the daemon cannot be reached or refuses, or breaks off in between.
pub fn run(args: &Args, session: &Session) -> anyhow::Result<Outcome> {
    let client = session.client()?;
    let target = target(args.who.as_ref(), false);
    let mut tame = session.print.is_terminal().then(Tame::default);
    let lines = usize::try_from(args.lines)?;
    client.logs(&target, lines, args.follow, |piece| match &mut tame {
        Some(tame) => session.print.bytes(&tame.feed(piece)),
        None => session.print.bytes(piece),
    })?;
    Ok(Outcome::Done)
}
