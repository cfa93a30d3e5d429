//! `mcpsup client`: what a user's AI client must be told, printed, written or checked.
//!
//! The shapes and the merging are [`logic::snippet`](crate::logic::snippet)'s; the files are
//! [`file`]'s. The port map says where a user's doors are, so this works while the daemon is away.
//! No token is written anywhere: where a door takes one, the client is told to ask `mcpsup headers` for
//! it, or to start `mcpsup connect`, which needs none.

mod check;
mod file;
pub mod survey;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap_complete::ArgValueCompleter;
use serde_json::json;

use super::print::clean;
use super::session::Session;
use super::who::{Who, target};
use super::{Outcome, WrongUse, names, ports};
use crate::logic::snippet::{self, Bases, ClientKind, Entry, MergeError, Scope};
use crate::model::portmap::{self, PortMap};
use crate::model::status::StateName;
use crate::model::{UserName, shell};
use crate::system::account;

/// For whom, and what to do with it.
#[derive(Debug, Clone, clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub struct Args {
    /// Whose servers; yours unless said otherwise
    #[arg(value_name = "USER[/SERVER]", add = ArgValueCompleter::new(names::instances))]
    pub who: Option<Who>,
    /// The AI client
    #[arg(long = "for", value_name = "CLIENT", default_value = "claude-code", value_parser = kinds())]
    pub kind: ClientKind,
    /// Have the client start `mcpsup connect` instead of calling a port (Claude Desktop always does)
    #[arg(long)]
    pub stdio: bool,
    /// Put the entries into the client's file; everything else in it stays, and a backup is kept
    #[arg(long, conflicts_with = "check")]
    pub write: bool,
    /// See that the client's file has the entries and that the servers answer
    #[arg(long)]
    pub check: bool,
    /// The project's file or your own; each client has its usual one
    #[arg(long, value_parser = scopes(), conflicts_with = "file")]
    pub scope: Option<Scope>,
    /// Another file of that client
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// With --write: replace an entry of the same name that points elsewhere
    #[arg(long, requires = "write")]
    pub force: bool,
    /// Print it as JSON
    #[arg(long)]
    pub json: bool,
}

fn kinds() -> impl TypedValueParser<Value = ClientKind> {
    PossibleValuesParser::new(ClientKind::ALL.map(ClientKind::as_str))
        .try_map(|word| word.parse::<ClientKind>())
}

fn scopes() -> impl TypedValueParser<Value = Scope> {
    PossibleValuesParser::new(["project", "user"])
        .map(|word| if word == "user" { Scope::User } else { Scope::Project })
}

/// Who calls, and from where.
#[derive(Debug, Clone)]
pub struct Here {
    /// Whose servers are meant where nobody is named.
    pub caller: Option<UserName>,
    /// The uid that files must belong to before they are changed.
    pub uid: u32,
    /// `$HOME`
    pub home: PathBuf,
    /// `$XDG_CONFIG_HOME`, or `.config` in the home directory.
    pub config_home: PathBuf,
    /// Where the project is.
    pub cwd: PathBuf,
    /// This program, with the words that lead it to the same daemon.
    pub program: Vec<String>,
}

/// Prints, writes or checks what the client needs.
///
/// # Errors
///
/// When nobody of that name has a door, the client has no such file, or the file cannot be read,
/// understood or written; and when there is no port map.
pub fn run(args: &Args, session: &Session) -> anyhow::Result<Outcome> {
    let map = ports::map(session)?;
    let mut here = Here::find(session)?;
    here.caller = caller(&here, &map, session);
    let (mut out, mut aside) = (Vec::new(), Vec::new());
    let well = tell(args, &map, &here, &mut out, &mut aside)?;
    for line in String::from_utf8_lossy(&out).lines() {
        session.print.line(&clean(line))?;
    }
    for line in String::from_utf8_lossy(&aside).lines() {
        session.print.aside(line);
    }
    Ok(if well { Outcome::Done } else { Outcome::Failed })
}

/// Whose servers are the caller's: the user's with the name of their account, or, where there is none, of the
/// only one whom the daemon shows them (`MCPSUP_RUN_AS`). Root sees everybody and is nobody.
fn caller(here: &Here, map: &PortMap, session: &Session) -> Option<UserName> {
    let has_door = |user: &UserName| map.instances.iter().any(|door| door.user == *user);
    if here.uid == 0 || here.caller.as_ref().is_some_and(has_door) {
        return here.caller.clone();
    }
    // Without a daemon nobody can say, and the account's name is as good as any.
    let report = session.client().and_then(|client| client.status(&target(None, false), None)).ok();
    let mut shown = report.iter().flat_map(|report| report.instances.iter().map(|one| &one.user));
    match shown.next() {
        Some(first) if shown.all(|user| user == first) => Some(first.clone()),
        Some(_) | None => here.caller.clone(),
    }
}

impl Here {
    fn find(session: &Session) -> anyhow::Result<Self> {
        let path = |name| session.environment.get(name).map(PathBuf::from);
        let home = path("HOME").context("cannot tell where clients keep their files: HOME is not set")?;
        let uid = account::own_uid();
        Ok(Self {
            caller: account::name_of(uid).and_then(|name| name.parse().ok()),
            uid,
            config_home: path("XDG_CONFIG_HOME")
                .filter(|path| path.is_absolute())
                .unwrap_or_else(|| home.join(".config")),
            home,
            program: program(session)?,
            cwd: std::env::current_dir().context("cannot tell which directory this is")?,
        })
    }
}

/// How a client starts this program so that it asks the same daemon as we do.
fn program(session: &Session) -> anyhow::Result<Vec<String>> {
    let text = |path: PathBuf| {
        path.into_os_string().into_string().map_err(|path| {
            anyhow::anyhow!("cannot name {} in a client's file: it is not UTF-8", path.display())
        })
    };
    let mut words = vec![text(std::env::current_exe().context("cannot tell where this program lies")?)?];
    if let Some(config) = &session.config {
        let config = std::path::absolute(config).context("cannot tell where mcpsup.toml lies")?;
        words.extend(["--config".to_owned(), text(config)?]);
    }
    Ok(words)
}

/// As [`run`], with everything it needs to know given, and all it says written down. What was
/// asked for goes to `out`, advice to `aside`. False if `--check` found something wrong.
fn tell(
    args: &Args,
    map: &PortMap,
    here: &Here,
    out: &mut dyn Write,
    aside: &mut dyn Write,
) -> anyhow::Result<bool> {
    let doors = Doors::find(args, map, here)?;
    if args.check {
        return check::run(args, &doors, map, here, out, check::answers);
    }
    let file = file::to_write(&candidates(args, here)?);
    if args.write {
        write(args, &doors, map, here, &file, out, aside)?;
    } else {
        print(args, &doors, &file, out, aside)?;
    }
    Ok(true)
}

/// Claude Desktop knows nothing else; and a door that takes a token is none for a client that could
/// only have it in its file.
fn speaks_stdio(args: &Args, takes_token: bool) -> bool {
    args.stdio || args.kind == ClientKind::ClaudeDesktop || (takes_token && !args.kind.has_helper())
}

/// True if root asks, and the user has an account of their own, whose clients keep their own files.
#[must_use]
pub fn is_anothers_account(user: &UserName) -> bool {
    account::own_uid() == 0 && matches!(account::uid_of(user.as_str()), Ok(Some(uid)) if uid != 0)
}

/// Words as a shell takes them.
fn line(words: &[String]) -> String {
    words.iter().map(|text| shell::word(text)).collect::<Vec<_>>().join(" ")
}

/// The doors of one user, as a client shall see them.
struct Doors<'m> {
    user: UserName,
    all: Vec<(Entry, &'m portmap::Entry)>,
    /// The same entries, in the same order, as they are with `--stdio`.
    by_command: Vec<Entry>,
}

impl<'m> Doors<'m> {
    fn find(args: &Args, map: &'m PortMap, here: &Here) -> anyhow::Result<Self> {
        let (user, server) =
            args.who.as_ref().map_or((None, None), |who| (who.user.clone(), who.server.clone()));
        let is_named = user.is_some();
        let Some(user) = user.or_else(|| here.caller.clone()) else {
            bail!("cannot tell whose servers are meant; name the user");
        };
        let is_meant = |door: &&portmap::Entry| {
            door.user == user && server.as_ref().is_none_or(|server| door.server == *server)
        };
        let mut doors: Vec<_> = map.instances.iter().filter(is_meant).collect();
        // A server that was taken out of mcpsup.toml has a port, and no client wants an entry for it; a
        // user whose file is away is back with all of theirs.
        if server.is_none() && doors.iter().any(|door| door.state != StateName::Gone) {
            doors.retain(|door| door.state != StateName::Gone);
        }
        if doors.is_empty() && !is_named && here.uid == 0 {
            return Err(WrongUse("say whose: USER or USER/SERVER".to_owned()).into());
        }
        if doors.is_empty() {
            let whose = server.map_or_else(|| user.to_string(), |server| format!("{user}/{server}"));
            bail!("cannot find a port of {whose} in the port map; see mcpsup status {user}");
        }
        let names: Vec<String> = doors.iter().map(|door| snippet::entry_name(&door.server)).collect();
        // All entries of a file are of one form.
        let takes_token = doors.iter().any(|door| door.takes_token);
        let by_stdio = speaks_stdio(args, takes_token);
        let entry = |door: &portmap::Entry, name: &String, by_stdio: bool| {
            // `a.b` and `a-b` are two servers, and one name to a client.
            let twice = names.iter().filter(|other| *other == name).count() > 1;
            let name = if twice { format!("{name}-{}", door.port) } else { name.clone() };
            let words = |verb: &str| {
                let who = format!("{}/{}", door.user, door.server);
                [here.program.clone(), vec![verb.to_owned(), who]].concat()
            };
            let command = by_stdio.then(|| words("connect"));
            let helper = (takes_token && command.is_none()).then(|| line(&words("headers")));
            Entry { name, url: door.url.clone(), command, helper }
        };
        let each = || doors.iter().copied().zip(&names);
        Ok(Self {
            all: each().map(|(door, name)| (entry(door, name, by_stdio), door)).collect(),
            by_command: each().map(|(door, name)| entry(door, name, true)).collect(),
            user,
        })
    }

    fn entries(&self) -> Vec<Entry> {
        self.all.iter().map(|(entry, _)| entry.clone()).collect()
    }
}

/// The files that are meant, the likeliest first.
fn candidates(args: &Args, here: &Here) -> anyhow::Result<Vec<PathBuf>> {
    if let Some(file) = &args.file {
        return Ok(vec![here.cwd.join(file)]);
    }
    let scope = args.scope.unwrap_or(Scope::default_for(args.kind));
    let files = snippet::files(args.kind, scope, bases(here));
    if files.is_empty() {
        bail!("{} has no project file that mcpsup knows; use --scope user or --file FILE", args.kind);
    }
    Ok(files)
}

fn bases(here: &Here) -> Bases<'_> {
    Bases { home: &here.home, config_home: &here.config_home, cwd: &here.cwd }
}

fn print(
    args: &Args,
    doors: &Doors<'_>,
    file: &Path,
    out: &mut dyn Write,
    aside: &mut dyn Write,
) -> anyhow::Result<()> {
    let entries = doors.entries();
    let text = snippet::render(args.kind, &entries);
    if args.json {
        let entries: Vec<_> = entries
            .iter()
            .map(|entry| json!({"name": entry.name, "url": entry.url, "command": entry.command, "helper": entry.helper}))
            .collect();
        let answer = json!({
            "client": args.kind.as_str(),
            "file": file.to_string_lossy(),
            "entries": entries,
            "snippet": text,
        });
        writeln!(out, "{answer}")?;
        return Ok(());
    }
    write!(out, "{text}")?;
    writeln!(aside, "this belongs in {}; --write puts it there", file.display())?;
    advise(args, doors, aside)
}

fn advise(args: &Args, doors: &Doors<'_>, aside: &mut dyn Write) -> anyhow::Result<()> {
    let is_user_file =
        args.file.is_none() && args.scope.unwrap_or(Scope::default_for(args.kind)) == Scope::User;
    if let Some(note) = args.kind.note(is_user_file) {
        writeln!(aside, "{note}")?;
    }
    for (_, door) in &doors.all {
        if let Some(word) = not_running(door.state) {
            writeln!(aside, "{}/{} is {word}; see mcpsup status {}", door.user, door.server, door.user)?;
        }
    }
    Ok(())
}

/// The word for a state in which nothing will answer until somebody does something.
fn not_running(state: StateName) -> Option<&'static str> {
    match state {
        StateName::Stopping
        | StateName::Stopped
        | StateName::Disabled
        | StateName::Refused
        | StateName::Gone => Some(state.as_str()),
        StateName::Down | StateName::Starting | StateName::Up | StateName::Killing | StateName::Cooling => {
            None
        }
    }
}

fn write(
    args: &Args,
    doors: &Doors<'_>,
    map: &PortMap,
    here: &Here,
    file: &Path,
    out: &mut dyn Write,
    aside: &mut dyn Write,
) -> anyhow::Result<()> {
    let entries = doors.entries();
    let done = file::edit(file, here.uid, |existing| {
        if !args.force {
            others_door(args.kind, existing, doors, map)?;
        }
        snippet::merge(args.kind, existing, &entries, args.force)
            .map_err(|error| refusal(file, &error))
            .with_context(|| format!("cannot put {} into {}", list(&entries), file.display()))
    })?;
    if args.json {
        let answer = json!({
            "client": args.kind.as_str(),
            "file": file.to_string_lossy(),
            "changed": done.changed,
            "backup": done.backup.as_ref().map(|backup| backup.to_string_lossy()),
        });
        writeln!(out, "{answer}")?;
        return Ok(());
    }
    if done.changed {
        writeln!(out, "{}: {} now in {}", args.kind, list(&entries), file.display())?;
    } else {
        writeln!(out, "{}: {} already in {}", args.kind, list(&entries), file.display())?;
    }
    if let Some(backup) = &done.backup {
        writeln!(aside, "what it was before is in {}", backup.display())?;
    }
    if is_anothers_account(&doors.user) {
        let user = &doors.user;
        writeln!(
            aside,
            "that file is root's; {user}'s own client reads {user}'s: as {user}, mcpsup client --write"
        )?;
    }
    advise(args, doors, aside)
}

/// Refuses to take over an entry that is another door of this host: a project directory that two
/// people share, say.
fn others_door(kind: ClientKind, existing: &str, doors: &Doors<'_>, map: &PortMap) -> anyhow::Result<()> {
    for (entry, own) in &doors.all {
        // What does not parse is refused by the merge, with its place.
        let found = snippet::find(kind, existing, &entry.name).ok().flatten().unwrap_or_default();
        let connects = found.command.filter(|words| snippet::is_connect(words));
        let named = connects.and_then(|words| words.last().cloned());
        if let Some(name) = named.filter(|name| *name != format!("{}/{}", own.user, own.server)) {
            bail!("cannot replace \"{}\", for it connects {name}; --force replaces it", entry.name);
        }
        let Some(url) = found.url else {
            continue;
        };
        let other = map.instances.iter().find(|door| door.url == url && door.user != own.user);
        if let Some(other) = other {
            bail!(
                "cannot replace \"{}\", for it is {}'s door on {}; --force replaces it",
                entry.name,
                other.user,
                other.port
            );
        }
    }
    Ok(())
}

/// A refusal as people read it: `FILE:LINE:COLUMN: problem`.
fn refusal(file: &Path, error: &MergeError) -> anyhow::Error {
    match error {
        MergeError::Parse { line, column, problem } => {
            anyhow::anyhow!("{}:{line}:{column}: {problem}", file.display())
        }
        MergeError::Unsafe(_) | MergeError::Taken { .. } => anyhow::anyhow!("{error}"),
    }
}

fn list(entries: &[Entry]) -> String {
    let names: Vec<&str> = entries.iter().map(|entry| entry.name.as_str()).collect();
    names.join(", ")
}

/// The command that mends a file.
struct Mend<'a> {
    args: &'a Args,
    user: &'a UserName,
    scope: Option<Scope>,
}

impl fmt::Display for Mend<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "mcpsup client {}", self.user)?;
        if let Some(server) = self.args.who.as_ref().and_then(|who| who.server.as_ref()) {
            write!(f, "/{server}")?;
        }
        if self.args.kind != ClientKind::ClaudeCode {
            write!(f, " --for {}", self.args.kind)?;
        }
        if self.args.stdio {
            f.write_str(" --stdio")?;
        }
        match self.scope {
            Some(scope) if scope != Scope::default_for(self.args.kind) => {
                write!(f, " --scope {}", if scope == Scope::User { "user" } else { "project" })?;
            }
            Some(_) | None => {}
        }
        if let Some(file) = &self.args.file {
            write!(f, " --file {}", file.display())?;
        }
        f.write_str(" --write")
    }
}
