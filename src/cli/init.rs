//! `mcpsup init`: from nothing to a user whose server runs, by questions on a terminal or by flags.
//!
//! What is asked is `ask`'s, the servers to choose from are `ready`'s. Without an answer to any
//! question (no terminal, no flag) it writes commented files to begin with and nothing more. The user's
//! file is [`add`]'s, as ever.

mod ask;
mod ready;

use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};

use anyhow::bail;
use serde_json::{Value, json};

use super::session::Session;
use super::who::Who;
use super::{Outcome, WrongUse, add, status};
use crate::logic::config;
use crate::logic::doctor::shell_word;
use crate::model::{Config, Problem, ServerName, UserName};
use crate::system::{background, files, survey};

/// How.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A server that mcpsup knows: `--server list` names them
    #[arg(long, value_name = "NAME", conflicts_with = "command")]
    pub server: Option<String>,
    /// What to call a server of your own; its program's name unless said otherwise
    #[arg(long, value_name = "NAME", requires = "command")]
    pub name: Option<ServerName>,
    /// It speaks Streamable HTTP itself, and learns its port from this variable; else it speaks on its
    /// standard input and output
    #[arg(long, value_name = "VARIABLE", requires = "command")]
    pub port_env: Option<String>,
    /// The first user
    #[arg(long, value_name = "USER")]
    pub user: Option<UserName>,
    /// Read the user's NAME=value lines from this file instead of asking; - is the standard input
    #[arg(long, value_name = "FILE", requires = "user")]
    pub from: Option<PathBuf>,
    /// Start the daemon too: by systemd where the unit is installed, else in the background
    #[arg(long)]
    pub start: bool,
    /// Write it though the server's program is not there yet
    #[arg(long)]
    pub force: bool,
    /// Print what was done as JSON: {"written": [FILE, FILE]}, and "daemon" and "user" if there are any
    #[arg(long)]
    pub json: bool,
    /// A server of your own: its program and arguments, after --
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<String>,
}

/// mcpsup.toml to begin with.
pub const CONFIG: &str = include_str!("init/mcpsup.toml");
/// An env file to copy. Its name means no user.
pub const EXAMPLE: &str = include_str!("init/example.env");
/// What stands above a server that was chosen.
const HEAD: &str = "\
# mcpsup.toml: which MCP servers there are, and how each user's own process of them is run.
# `mcpsup check` reads this file and every env file as the daemon does, and starts nothing.
# All keys: https://github.com/mcpsup/mcpsup/blob/main/docs/configuration.md

";

/// What was settled, by flags or by answers.
#[derive(Debug)]
struct Plan {
    /// mcpsup.toml.
    text: String,
    /// How its program is installed, where that is known.
    install: Option<String>,
    user: Option<UserName>,
    starts: bool,
}

/// Does it.
///
/// # Errors
///
/// When something is there already, cannot be written, or is no server; and when the daemon does not
/// start.
pub fn run(args: &Args, session: &Session) -> anyhow::Result<Outcome> {
    if args.server.as_deref() == Some("list") {
        return list(args, session);
    }
    let places = &session.places;
    let example = places.env_dir.join("example");
    for path in [&places.config, &example] {
        if path.symlink_metadata().is_ok() {
            bail!("cannot write {}: it is there already; move it away first", path.display());
        }
    }
    let is_bare = args.server.is_none() && args.command.is_empty() && args.user.is_none() && !args.start;
    let is_asked = io::stdin().is_terminal() && !args.json;
    if is_bare && !is_asked {
        write(CONFIG, &example, session)?;
        return bare(args, &example, session);
    }
    let plan = if is_asked { ask::plan(args, session)? } else { by_flags(args)? };
    let config = match config::parse(&plan.text, "mcpsup.toml") {
        Ok(config) => config,
        Err(problems) => return refused(&problems, args, session),
    };
    if !args.force && !is_asked {
        installed(&config, plan.install.as_deref(), session)?;
    }
    write(&plan.text, &example, session)?;
    finish(args, &plan, &config, &example, session)
}

/// Names what there is to choose from.
fn list(args: &Args, session: &Session) -> anyhow::Result<Outcome> {
    if args.json {
        let all = ready::all().map(|ready| {
            json!({ "name": ready.name, "about": ready.about(), "install": ready.install(), "program": ready.program() })
        });
        session.print.json(&all.collect::<Vec<_>>(), false)?;
        return Ok(Outcome::Done);
    }
    for ready in ready::all() {
        session.print.line(&format!("{:18} {}", ready.name, ready.about()))?;
    }
    Ok(Outcome::Done)
}

fn write(text: &str, example: &Path, session: &Session) -> anyhow::Result<()> {
    let places = &session.places;
    if let Some(dir) = places.config.parent() {
        files::make_way(dir)?;
    }
    // Nobody but the daemon needs to know who has a file.
    files::make_dir(&places.env_dir, 0o700)?;
    files::replace(example, EXAMPLE.as_bytes(), 0o600)?;
    files::replace(&places.config, text.as_bytes(), 0o644)?;
    Ok(())
}

fn bare(args: &Args, example: &Path, session: &Session) -> anyhow::Result<Outcome> {
    let config = &session.places.config;
    if args.json {
        let written = [config.as_path(), example].map(Path::to_string_lossy);
        session.print.json(&json!({ "written": written }), false)?;
        return Ok(Outcome::Done);
    }
    for path in [config.as_path(), example] {
        session.print.line(&format!("wrote {}", path.display()))?;
    }
    session.print.line("next: describe your server in mcpsup.toml, then mcpsup add USER")?;
    Ok(Outcome::Done)
}

fn refused(problems: &[Problem], args: &Args, session: &Session) -> anyhow::Result<Outcome> {
    session.print.aside("nothing is written:");
    if args.json {
        session.print.json(&json!({ "written": [], "problems": problems }), false)?;
    }
    Ok(add::tell(problems, session))
}

/// What the flags say.
fn by_flags(args: &Args) -> anyhow::Result<Plan> {
    let (text, install) = match (&args.server, args.command.as_slice()) {
        (Some(name), _) => chosen(name)?,
        (None, []) => {
            let what = "say which server: --server NAME (--server list names them), or a command after --";
            return Err(WrongUse(what.to_owned()).into());
        }
        (None, command) => (of_ones_own(args.name.as_ref(), command, args.port_env.as_deref())?, None),
    };
    Ok(Plan { text, install, user: args.user.clone(), starts: args.start })
}

/// mcpsup.toml with a server that is ready, and how its program is installed.
fn chosen(name: &str) -> Result<(String, Option<String>), WrongUse> {
    let ready = ready::find(name).ok_or_else(|| {
        let names: Vec<&str> = ready::all().map(|ready| ready.name).collect();
        WrongUse(format!("mcpsup knows no server \"{name}\"; it knows {}", names.join(", ")))
    })?;
    Ok((format!("{HEAD}{}", ready.text), Some(ready.install())))
}

/// mcpsup.toml with a server of one's own.
fn of_ones_own(
    name: Option<&ServerName>,
    command: &[String],
    port_env: Option<&str>,
) -> Result<String, WrongUse> {
    let program = command.first().map(Path::new).and_then(Path::file_stem).unwrap_or_default();
    let name = match name {
        Some(name) => name.clone(),
        None => program.to_string_lossy().parse().map_err(|why| {
            WrongUse(format!("cannot call the server \"{}\": {why}; say --name", program.display()))
        })?,
    };
    // A JSON string is a TOML string too.
    let quote = |text: &str| Value::from(text).to_string();
    let words: Vec<String> = command.iter().map(|word| quote(word)).collect();
    let has_port = port_env.is_some() || command.iter().any(|word| word.contains("{port}"));
    let transport = if has_port { "http" } else { "stdio" };
    let port = port_env.map_or_else(String::new, |name| format!("port_env  = {}\n", quote(name)));
    let command = words.join(", ");
    // A name with a dot in it is no bare key.
    let key = if name.as_str().contains('.') { quote(name.as_str()) } else { name.to_string() };
    Ok(format!("{HEAD}[server.{key}]\ncommand   = [{command}]\ntransport = \"{transport}\"\n{port}"))
}

/// What keeps the program of a configuration from being started, if anything does.
fn missing(config: &Config, session: &Session) -> Option<String> {
    let named = ready::program(config);
    let path = session.environment.get("PATH").map(|path| path.to_string_lossy().into_owned());
    let is_there = survey::has_program(&named, path.as_deref().unwrap_or_default());
    // A program whose path differs by user cannot be looked for.
    (!named.is_empty() && !is_there).then_some(named)
}

/// Before anything is written: is the program there?
fn installed(config: &Config, install: Option<&str>, session: &Session) -> anyhow::Result<()> {
    let Some(named) = missing(config, session) else { return Ok(()) };
    let how = install.map_or_else(String::new, |how| format!("; install it: {how}"));
    bail!("cannot find the program {named}{how}; or say --force");
}

/// The daemon, the user, and what they do next.
fn finish(
    args: &Args,
    plan: &Plan,
    config: &Config,
    example: &Path,
    session: &Session,
) -> anyhow::Result<Outcome> {
    let places = &session.places;
    let say = |text: &str| if args.json { Ok(()) } else { session.print.line(text) };
    say(&format!("wrote {}", places.config.display()))?;
    let started = if plan.starts { Some(start(session)?) } else { None };
    if let Some(how) = &started {
        say(how)?;
    }
    let mut outcome = Outcome::Done;
    let mut added = Value::Null;
    if let Some(user) = &plan.user {
        let optional = config.servers.iter().filter(|(_, server)| !server.for_all);
        let new = add::Args {
            user: user.clone(),
            from: args.from.clone(),
            servers: optional.map(|(name, _)| name.clone()).collect(),
            force: false,
            json: args.json,
        };
        (outcome, added) = add::carry_out(&new, has_credentials(config), session)?;
    }
    if args.json {
        let written = [places.config.as_path(), example].map(Path::to_string_lossy);
        session.print.json(&json!({ "written": written, "daemon": started, "user": added }), false)?;
        return Ok(outcome);
    }
    next(plan, outcome, session)?;
    Ok(outcome)
}

/// True if there is anything to ask a user for.
fn has_credentials(config: &Config) -> bool {
    config.servers.values().any(|server| !server.credentials.is_empty())
}

/// Ends with what is, and what is to be done next.
fn next(plan: &Plan, outcome: Outcome, session: &Session) -> anyhow::Result<()> {
    let ours = ours(session);
    let Some(user) = &plan.user else {
        return Ok(session.print.line(&format!("next: {ours} add USER"))?);
    };
    if session.own_client().is_err() {
        let by = if background::is_by_systemd(session.config.is_some()) {
            "systemctl enable --now mcpsup".to_owned()
        } else {
            format!("{ours} daemon")
        };
        session.print.line(&format!("next: start the daemon: {by}"))?;
    } else if outcome == Outcome::Done {
        let who = Some(Who { user: Some(user.clone()), server: None });
        status::run(&status::Args { who, json: false, watch: false, verbose: false }, session)?;
    } else {
        session.print.line(&format!("next: {ours} doctor {user}"))?;
        return Ok(());
    }
    session.print.line(&format!("then, for {user}'s AI client: {ours} client {user} --write"))?;
    Ok(())
}

/// How this program is called so that it means the same files.
fn ours(session: &Session) -> String {
    let absolute = |path: &PathBuf| std::path::absolute(path).unwrap_or_else(|_| path.clone());
    match &session.config {
        Some(config) => format!("mcpsup --config {}", shell_word(&absolute(config))),
        None => "mcpsup".to_owned(),
    }
}

/// Starts the daemon, unless one runs; what was done, for people.
fn start(session: &Session) -> anyhow::Result<String> {
    let places = &session.places;
    if session.own_client().is_ok() {
        return Ok("the daemon runs already".to_owned());
    }
    let config = session.config.as_ref().map(|_| places.config.as_path());
    let how = background::start_daemon(config, &places.logs, &places.control())?;
    Ok(how)
}
