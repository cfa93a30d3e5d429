//! `mcpsup remove`: the end of a user; the only thing that frees a port.

use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use clap_complete::ArgValueCompleter;
use serde::Serialize;

use super::names;
use super::session::Session;
use super::who::Wait;
use super::{Outcome, WrongUse};
use crate::control::client::{Client, ClientError};
use crate::control::protocol::{RefusalKind, Target};
use crate::model::status::StatusReport;
use crate::model::{Moment, UserName};
use crate::system::clock;
use crate::system::envdir::names_of;

/// Whom, and how long to wait.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Whom
    #[arg(value_name = "USER", add = ArgValueCompleter::new(names::users))]
    pub user: UserName,
    /// Do not ask
    #[arg(long, short)]
    pub yes: bool,
    #[command(flatten)]
    wait: Wait,
    /// Print what was done as JSON: {"user", "deleted" (a list of files), "removed", "seconds", "message"}
    #[arg(long)]
    pub json: bool,
}

/// What was done.
#[derive(Debug, Serialize)]
struct Removal<'a> {
    user: &'a UserName,
    /// The files.
    deleted: &'a [PathBuf],
    /// False if something of theirs still runs, or nobody waited to see.
    removed: bool,
    /// From the request to the verdict.
    seconds: f64,
    message: String,
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
    let begun = clock::now();
    let deleted = delete(args, session)?;
    match client.remove(user) {
        Ok(_) => {}
        // A file of which nothing ever came: deleting it was all there was to do.
        Err(error) if is_unknown(&error) && !deleted.is_empty() => {}
        Err(error) => return Err(error.into()),
    }
    let left = if args.wait.no_wait { None } else { Some(follow(args, &client, begun, session)?) };
    let spent = clock::now().since(begun);
    let (removed, message) = match &left {
        None => (false, format!("{user}: removed; the ports are free once everything has ended")),
        Some(None) => (true, format!("{user}: removed in {:.1} s; the ports are free", spent.as_secs_f64())),
        Some(Some(why)) => (false, why.clone()),
    };
    let is_done = removed || args.wait.no_wait;
    if args.json {
        let seconds = spent.as_secs_f64();
        session.print.json(&Removal { user, deleted: &deleted, removed, seconds, message }, false)?;
    } else if is_done {
        session.print.line(&message)?;
    } else {
        session.print.aside(&message);
    }
    Ok(if is_done { Outcome::Done } else { Outcome::Failed })
}

fn delete(args: &Args, session: &Session) -> anyhow::Result<Vec<PathBuf>> {
    let mut deleted = Vec::new();
    for name in names_of(&args.user) {
        let path = session.places.env_dir.join(name);
        match std::fs::remove_file(&path) {
            Ok(()) => {
                if !args.json {
                    session.print.line(&format!("deleted {}", path.display()))?;
                }
                deleted.push(path);
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                return Err(error).with_context(|| format!("cannot delete {}", path.display()));
            }
        }
    }
    Ok(deleted)
}

/// Waits until the daemon knows nothing of the user any more; else why it still does.
fn follow(args: &Args, client: &Client, begun: Moment, session: &Session) -> anyhow::Result<Option<String>> {
    let user = &args.user;
    let theirs = Target { user: Some(user.clone()), ..Target::default() };
    let mut after = None;
    loop {
        let Some(report) = status(client, &theirs, after)? else { return Ok(None) };
        let Some(first) = report.instances.first() else { return Ok(None) };
        let back = names_of(user).map(|name| session.places.env_dir.join(name));
        if let Some(path) = back.iter().find(|path| path.symlink_metadata().is_ok()) {
            return Ok(Some(format!("{user}: not removed: {} is back", path.display())));
        }
        let spent = clock::now().since(begun);
        if spent >= args.wait.timeout {
            let (server, state, limit) = (&first.server, first.state, args.wait.timeout.as_secs());
            let why = format!(
                "{user}: still being removed: {user}/{server} is {state} after {limit} s; \
                 the ports are free once everything has ended"
            );
            return Ok(Some(why));
        }
        session.print.progress(&format!(
            "{user}: being removed; {} is {} for {:.0} s",
            first.server,
            first.state,
            spent.as_secs_f64()
        ));
        // Once a second, to see a file that is back and to show that time goes on.
        let wait = args.wait.timeout.saturating_sub(spent).min(Duration::from_secs(1));
        after = Some((report.generation, wait));
    }
}

/// The user's instances; `None` if the daemon knows no such user.
fn status(
    client: &Client,
    theirs: &Target,
    after: Option<(u64, Duration)>,
) -> Result<Option<StatusReport>, ClientError> {
    match client.status(theirs, after) {
        Ok(report) => Ok(Some(report)),
        Err(error) if is_unknown(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

fn is_unknown(error: &ClientError) -> bool {
    matches!(error, ClientError::Refused(refusal) if refusal.kind == RefusalKind::Unknown)
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
