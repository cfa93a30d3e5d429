//! `mcpsup add`: asks for a user's credentials, checks them, writes the file.
//!
//! On a terminal each value is typed and not shown; from a pipe or with `--from` the lines of an
//! env file are read. What is written is read back by the daemon's own parser first.

use std::io::{self, IsTerminal, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::ValueHint;
use serde::Serialize;
use serde_json::Value;
use zeroize::Zeroizing;

use super::check::{examine_file, read_config, shown};
use super::session::Session;
use super::{Outcome, WrongUse, steer};
use crate::control::client::ClientError;
use crate::logic::{config, envfile};
use crate::model::config::{Config, Credential};
use crate::model::env::Variables;
use crate::model::{Problem, Secret, ServerName, UserName};
use crate::system::envdir::names_of;
use crate::system::{account, files, terminal};

/// Who, and from where.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The user; their file is called USER.env
    #[arg(value_name = "USER")]
    pub user: UserName,
    /// Read NAME=value lines from this file instead of asking; - is the standard input
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub from: Option<PathBuf>,
    /// Give them this server too, where it is not for everybody; may be repeated
    #[arg(long = "server", value_name = "SERVER")]
    pub servers: Vec<ServerName>,
    /// Replace the file they have
    #[arg(long)]
    pub force: bool,
    /// Print what was done as JSON: {"user", "written", "problems", "daemon", "instances"}
    #[arg(long)]
    pub json: bool,
}

/// What was done.
#[derive(Debug, Serialize)]
struct Added<'a> {
    user: &'a UserName,
    /// The file; `null` if nothing was written.
    written: Option<String>,
    /// Why nothing was.
    problems: &'a [Problem],
    /// True if the daemon runs.
    daemon: bool,
    /// What became of their servers.
    instances: &'a [steer::Done],
}

impl<'a> Added<'a> {
    fn of(user: &'a UserName) -> Self {
        Self { user, written: None, problems: &[], daemon: false, instances: &[] }
    }
}

fn refused(args: &Args, problems: &[Problem], session: &Session) -> anyhow::Result<(Outcome, Value)> {
    let added = serde_json::to_value(Added { problems, ..Added::of(&args.user) })?;
    Ok((tell(problems, session), added))
}

/// Largest input in bytes.
const LARGEST: usize = 1024 * 1024;

/// Does it.
///
/// # Errors
///
/// When they have a file already, mcpsup.toml or the input is wrong, or nothing can be written.
pub fn run(args: &Args, session: &Session) -> anyhow::Result<Outcome> {
    let (outcome, added) = carry_out(args, true, session)?;
    if args.json {
        session.print.json(&added, false)?;
    }
    Ok(outcome)
}

/// The same, with what `--json` prints in the hands of the caller. Without `asks` nothing is asked for
/// that is not in a file: there are no credentials.
///
/// # Errors
///
/// As [`run`].
pub fn carry_out(args: &Args, asks: bool, session: &Session) -> anyhow::Result<(Outcome, Value)> {
    let places = &session.places;
    let names = names_of(&args.user);
    let name = names[0].clone();
    let path = places.env_dir.join(&name);
    for there in names.map(|name| places.env_dir.join(name)) {
        if there.symlink_metadata().is_ok() && (!args.force || there != path) {
            bail!(
                "cannot write {}: {} has {} already; mcpsup edit {} changes it",
                path.display(),
                args.user,
                there.display(),
                args.user
            );
        }
    }
    let config = match read_config(places) {
        Ok(config) => config,
        Err(problems) => {
            // Who may not even read it is not permitted to add anybody, which is not a wrong file.
            if let Err(error) = std::fs::File::open(&places.config)
                && error.kind() == io::ErrorKind::PermissionDenied
            {
                return Err(error).with_context(|| format!("cannot read {}", places.config.display()));
            }
            return refused(args, &problems, session);
        }
    };
    if let Some(unknown) = args.servers.iter().find(|name| !config.servers.contains_key(name)) {
        return Err(WrongUse(format!("there is no [server.{unknown}] in mcpsup.toml")).into());
    }
    let read = if asks || args.from.is_some() {
        input(args, &config, session)?
    } else {
        Ok(text_of(&args.servers, std::iter::empty()))
    };
    let text = match read {
        Ok(text) => text,
        Err(problems) => return refused(args, &problems, session),
    };
    let shown = shown(places, &name);
    let ours = account::own_uid();
    if let Err(problems) = examine_file(places, &args.user, &shown, text.as_bytes(), ours) {
        session.print.aside("nothing is written:");
        return refused(args, &problems, session);
    }
    files::make_dir(&places.env_dir, 0o700)?;
    files::replace_durably(&path, text.as_bytes(), 0o600)?;
    if !args.json {
        session.print.line(&format!("wrote {}", path.display()))?;
    }
    let done = match session.own_client() {
        Ok(client) => Some(steer::await_up(&client, &args.user, args.json, session)?),
        Err(ClientError::Unreachable { .. }) => {
            session.print.aside("the daemon is not running; it will start this user's servers when it is");
            None
        }
        Err(error) => return Err(error.into()),
    };
    let (daemon, instances) = (done.is_some(), done.unwrap_or_default());
    let written = Some(path.to_string_lossy().into_owned());
    let added = Added { written, daemon, instances: &instances, ..Added::of(&args.user) };
    let outcome = if instances.iter().all(|done| done.ok) { Outcome::Done } else { Outcome::Failed };
    Ok((outcome, serde_json::to_value(added)?))
}

/// Says what is wrong.
#[must_use]
pub fn tell(problems: &[Problem], session: &Session) -> Outcome {
    for problem in problems {
        session.print.aside(&problem.to_string());
    }
    Outcome::Failed
}

/// The text of the file to be.
fn input(
    args: &Args,
    config: &Config,
    session: &Session,
) -> anyhow::Result<Result<Zeroizing<String>, Vec<Problem>>> {
    let (bytes, from) = match args.from.as_deref() {
        None if io::stdin().is_terminal() => return Ok(Ok(ask(args, config, session)?)),
        None => (read_stdin()?, "the standard input".to_owned()),
        Some(path) if path == Path::new("-") => (read_stdin()?, "the standard input".to_owned()),
        Some(path) => {
            let bytes = files::read_bounded(path, LARGEST)?;
            (Zeroizing::new(bytes), path.display().to_string())
        }
    };
    Ok(envfile::parse(&bytes, &from).map(|variables| written(&args.servers, &variables)))
}

fn read_stdin() -> anyhow::Result<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(Vec::new());
    let limit = LARGEST as u64 + 1;
    io::stdin().lock().take(limit).read_to_end(&mut bytes).context("cannot read the input")?;
    if bytes.len() > LARGEST {
        bail!("cannot read the input: it is larger than 1 MiB");
    }
    Ok(bytes)
}

/// What was read, in our own spelling.
fn written(servers: &[ServerName], variables: &Variables) -> Zeroizing<String> {
    let given = variables.0.iter().map(|v| (&*v.name, v.value.reveal()));
    let lists_servers = variables.get("MCPSUP_SERVERS").is_some();
    text_of(if lists_servers { &[] } else { servers }, given)
}

fn text_of<'a>(
    servers: &[ServerName],
    values: impl Iterator<Item = (&'a str, &'a str)>,
) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::new());
    if !servers.is_empty() {
        let names: Vec<_> = servers.iter().map(ServerName::as_str).collect();
        text.push_str("MCPSUP_SERVERS=");
        text.push_str(&names.join(","));
        text.push('\n');
    }
    for (name, value) in values {
        let quoted = Zeroizing::new(envfile::quote(value));
        for part in [name, "=", &quoted, "\n"] {
            text.push_str(part);
        }
    }
    text
}

/// The credentials of every server that somebody has who lists `optional` ones.
fn credentials<'a>(
    config: &'a Config,
    optional: &'a [ServerName],
) -> impl Iterator<Item = (&'a ServerName, &'a str, &'a Credential)> {
    let servers = config.servers.iter();
    let theirs = servers.filter(|(name, server)| server.for_all || optional.contains(name));
    theirs.flat_map(|(name, server)| {
        server.credentials.iter().map(move |(variable, credential)| (name, variable.as_str(), credential))
    })
}

/// Asks for every credential of every server they will have.
fn ask(args: &Args, config: &Config, session: &Session) -> anyhow::Result<Zeroizing<String>> {
    let mut given: Vec<(&str, Secret)> = Vec::new();
    for (server, name, credential) in credentials(config, &args.servers) {
        if given.iter().any(|(known, _)| *known == name) {
            continue;
        }
        if let Some(value) = ask_one(server, name, credential, session)? {
            given.push((name, value));
        }
    }
    Ok(text_of(&args.servers, given.iter().map(|(name, value)| (*name, value.reveal()))))
}

fn ask_one(
    server: &ServerName,
    name: &str,
    credential: &Credential,
    session: &Session,
) -> anyhow::Result<Option<Secret>> {
    let optional = if credential.required { "" } else { "; Enter for none" };
    loop {
        let question = format!("{name} ({}, for {server}{optional}): ", credential.description);
        session.print.ask(&question);
        let typed = terminal::read_hidden().context("cannot read from the terminal")?;
        session.print.answered();
        let Some(value) = typed else { bail!("nothing is written: the input was ended") };
        match refusal(&value, credential) {
            None if value.reveal().is_empty() => return Ok(None),
            None => return Ok(Some(value)),
            Some(why) => session.print.aside(&format!("{name} {why}")),
        }
    }
}

/// Why a typed value is asked for again.
fn refusal(value: &Secret, credential: &Credential) -> Option<String> {
    let text = value.reveal();
    if text.is_empty() {
        return credential.required.then(|| "is required".to_owned());
    }
    let pattern = credential.pattern.as_ref().filter(|pattern| !config::matches(pattern, text));
    pattern.map(|pattern| format!("must match {pattern}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_typed_value_is_asked_for_again_only_where_it_must_be() {
        let credential = |required| Credential { description: String::new(), pattern: None, required };
        assert!(refusal(&Secret::new(""), &credential(true)).is_some());
        assert!(refusal(&Secret::new(""), &credential(false)).is_none());
        assert!(refusal(&Secret::new("x"), &credential(true)).is_none());
    }

    #[test]
    fn optional_servers_are_listed_in_the_file() {
        let text = text_of(&["a".parse().unwrap(), "b".parse().unwrap()], std::iter::empty());
        assert_eq!(*text, "MCPSUP_SERVERS=a,b\n");
    }
}
