//! `mcpsup remove`: the end of a user; the only thing that frees a port.

use std::io::{self, IsTerminal};

use anyhow::{Context, bail};
use clap_complete::ArgValueCompleter;

use super::names;
use super::session::Session;
use super::{Outcome, WrongUse};
use crate::model::UserName;
use crate::system::envdir::names_of;

/// Whom.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Whom
    #[arg(value_name = "USER", add = ArgValueCompleter::new(names::users))]
    pub user: UserName,
    /// Do not ask
    #[arg(long, short)]
    pub yes: bool,
}

/// Does it.
///
/// # Errors
///
/// When nobody confirms, the file cannot be deleted, or the daemon cannot be reached or refuses.
pub fn run(args: &Args, session: &Session) -> anyhow::Result<Outcome> {
    let user = &args.user;
    if !args.yes && !confirmed(user, session)? {
        bail!("nothing is removed");
    }
    // First, so that nothing is deleted that the daemon then does not hear of.
    let client = session.own_client()?;
    for name in names_of(user) {
        let path = session.places.env_dir.join(name);
        match std::fs::remove_file(&path) {
            Ok(()) => session.print.line(&format!("deleted {}", path.display()))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                return Err(error).with_context(|| format!("cannot delete {}", path.display()));
            }
        }
    }
    client.remove(user)?;
    session.print.line(&format!("{user}: removed; the ports are free once everything has ended"))?;
    Ok(Outcome::Done)
}

fn confirmed(user: &UserName, session: &Session) -> anyhow::Result<bool> {
    if !io::stdin().is_terminal() {
        return Err(WrongUse(format!("cannot ask whether to remove {user}; say --yes")).into());
    }
    session.print.ask(&format!(
        "delete the env file of {user}, end their servers and free their ports (state and logs stay)? [y/N] "
    ));
    let mut answer = String::new();
    io::stdin().read_line(&mut answer).context("cannot read from the terminal")?;
    Ok(answer.trim_start().to_lowercase().starts_with('y'))
}
