//! `mcpsup set`, `unset`, `enable`, `disable`: what a user changes in their own env file, through the
//! daemon, without ever reading it.
//!
//! A value comes from the terminal, unseen, or from the standard input; never from an argument.

use std::io::{self, IsTerminal, Read};

use anyhow::{Context, bail};
use clap_complete::ArgValueCompleter;
use serde::Serialize;
use zeroize::Zeroizing;

use super::session::Session;
use super::who::Wait;
use super::{Outcome, WrongUse, names, steer};
use crate::control::protocol::{Accepted, Target};
use crate::logic::envfile::{MAX_VALUE, is_name};
use crate::model::{Secret, ServerName, UserName, Wish};
use crate::system::terminal;

/// Which variable, and whose.
#[derive(Debug, clap::Args)]
pub struct Variable {
    /// The credential; its value is asked for, or read from the standard input to its end (without
    /// the last newline)
    #[arg(value_name = "NAME")]
    name: String,
    #[command(flatten)]
    how: How,
}

/// Which variable is to go, and whose.
#[derive(Debug, clap::Args)]
pub struct Gone {
    /// The credential; a server that needs it is stopped
    #[arg(value_name = "NAME")]
    name: String,
    #[command(flatten)]
    whose: Whose,
    /// Print what was done as JSON: {"generation", "instances"}
    #[arg(long)]
    json: bool,
}

/// Which server, and whose.
#[derive(Debug, clap::Args)]
pub struct Server {
    /// The server, one that mcpsup.toml does not give to everybody
    #[arg(value_name = "SERVER")]
    server: ServerName,
    #[command(flatten)]
    how: How,
}

#[derive(Debug, clap::Args)]
struct Whose {
    /// Whose file, for administrators; else the caller's own
    #[arg(long, value_name = "USER", add = ArgValueCompleter::new(names::users))]
    user: Option<UserName>,
}

#[derive(Debug, clap::Args)]
struct How {
    #[command(flatten)]
    whose: Whose,
    #[command(flatten)]
    wait: Wait,
    /// Print what was done as JSON: {"done", "instances"}
    #[arg(long)]
    json: bool,
}

/// What was done.
#[derive(Debug, Serialize)]
struct Told<'a> {
    done: &'a str,
    /// What became of the servers for which that changed anything.
    instances: Vec<steer::Done>,
}

/// A variable's name. What is none is not repeated: it may be a value that was said by mistake.
/// (The parser of arguments would repeat it.)
fn variable(text: &str) -> Result<(), WrongUse> {
    if is_name(text) {
        return Ok(());
    }
    let text = "expected the NAME of a variable alone: letters, digits and _; its value is asked for";
    Err(WrongUse(text.to_owned()))
}

/// `mcpsup set`
///
/// # Errors
///
/// When there is no value, or the daemon refuses.
pub fn set(args: &Variable, session: &Session) -> anyhow::Result<Outcome> {
    variable(&args.name)?;
    // Whoever reaches no daemon need not type anything first.
    session.client()?;
    let value = if io::stdin().is_terminal() {
        session.print.ask(&format!("{}: ", args.name));
        let typed = terminal::read_hidden().context("cannot read from the terminal")?;
        session.print.answered();
        typed.filter(|value| !value.reveal().is_empty())
    } else {
        Some(from_stdin()?)
    };
    let Some(value) = value else { bail!("nothing is changed: no value was given") };
    let wish = Wish::Set { name: args.name.clone(), value };
    ask(&wish, &format!("{} is set", args.name), &args.how, session)
}

/// `mcpsup unset`
///
/// # Errors
///
/// When the daemon refuses.
pub fn unset(args: &Gone, session: &Session) -> anyhow::Result<Outcome> {
    variable(&args.name)?;
    let done = format!("{} is removed", args.name);
    let accepted = wish(&Wish::Unset { name: args.name.clone() }, &args.whose, session)?;
    if args.json {
        session.print.json(&accepted, false)?;
        return Ok(Outcome::Done);
    }
    let done =
        if accepted.unchanged { format!("{} is not in the file; nothing changes", args.name) } else { done };
    session.print.line(&done)?;
    for meant in &accepted.instances {
        let (id, name) = (format!("{}/{}", meant.user, meant.server), &args.name);
        session
            .print
            .line(&format!("{id}: stopped, as it needs {name}; mcpsup set {name} starts it again"))?;
    }
    Ok(Outcome::Done)
}

/// `mcpsup enable`
///
/// # Errors
///
/// When the daemon refuses.
pub fn enable(args: &Server, session: &Session) -> anyhow::Result<Outcome> {
    let done = format!("{} is enabled", args.server);
    ask(&Wish::Enable(args.server.clone()), &done, &args.how, session)
}

/// `mcpsup disable`
///
/// # Errors
///
/// When the daemon refuses.
pub fn disable(args: &Server, session: &Session) -> anyhow::Result<Outcome> {
    let done = format!("{} is disabled", args.server);
    ask(&Wish::Disable(args.server.clone()), &done, &args.how, session)
}

fn wish(wish: &Wish, whose: &Whose, session: &Session) -> anyhow::Result<Accepted> {
    Ok(session.client()?.wish(whose.user.as_ref(), wish)?)
}

/// Asks for it, and waits until what starts anew for it is up.
fn ask(what: &Wish, done: &str, how: &How, session: &Session) -> anyhow::Result<Outcome> {
    let mut accepted = wish(what, &how.whose, session)?;
    if !how.json {
        session.print.line(done)?;
    }
    let mut instances = Vec::new();
    if !how.wait.no_wait && !accepted.instances.is_empty() {
        // Whichever is up is up with the new file.
        accepted.instances.iter_mut().for_each(|meant| meant.run = None);
        let target = Target { user: how.whose.user.clone(), ..Target::default() };
        let follow = (how.json, how.wait.timeout);
        instances = steer::follow_up(&session.client()?, &target, accepted, follow, session)?;
    }
    let is_done = instances.iter().all(|instance| instance.ok);
    if how.json {
        session.print.json(&Told { done, instances }, false)?;
    }
    Ok(if is_done { Outcome::Done } else { Outcome::Failed })
}

/// The standard input without the newline that `echo` adds.
fn from_stdin() -> anyhow::Result<Secret> {
    // Room enough that it does not move, which would leave copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_VALUE + 4));
    let limit = MAX_VALUE as u64 + 3;
    io::stdin().lock().take(limit).read_to_end(&mut bytes).context("cannot read the value")?;
    let value = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
    let value = value.strip_suffix(b"\r").unwrap_or(value);
    if value.len() > MAX_VALUE {
        bail!("cannot take the value: it is longer than {} KiB", MAX_VALUE / 1024);
    }
    let text =
        str::from_utf8(value).map_err(|_| WrongUse("cannot take the value: it is not UTF-8".to_owned()))?;
    Ok(Secret::new(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_name_is_not_repeated() {
        assert!(variable("NOTES_TOKEN").is_ok());
        for odd in ["NOTES_TOKEN=hunter2", "hunter-2", "", "1A", "A&user=bob"] {
            let refused = variable(odd).unwrap_err().to_string();
            assert!(odd.is_empty() || !refused.contains(odd), "{refused}");
        }
    }
}
