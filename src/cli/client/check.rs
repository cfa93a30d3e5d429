//! `mcpsup client --check`: does the client's file lead to a server that answers?
//!
//! It reads, and starts what the client would start; it mends nothing. Every problem is said with the command that mends it.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;
use zeroize::Zeroizing;

use super::{Args, Doors, Here, Mend, bases, candidates, file, refusal};
use crate::logic::snippet::{self, Entry, Scope};
use crate::model::portmap::{self, PortMap};
use crate::model::{Secret, UserName};
use crate::system::socket::Address;
use crate::system::{command, probe};

/// How long a server may take to answer: longer than a door holds a request for a process that
/// is just starting.
const LIMIT: Duration = Duration::from_secs(35);

/// One thing that was looked at.
pub(super) struct Finding {
    pub(super) file: PathBuf,
    pub(super) name: String,
    pub(super) url: Option<String>,
    /// `Ok` is what is right, `Err` what is wrong and the mend.
    pub(super) verdict: Result<String, String>,
    /// There is a file with such an entry, or one that cannot be read.
    pub(super) is_there: bool,
    /// The file could be understood.
    pub(super) is_read: bool,
}

/// A file that may hold our entries.
struct Sheet {
    path: PathBuf,
    /// `None` where the caller named the file.
    scope: Option<Scope>,
    text: String,
}

pub(super) fn run(
    args: &Args,
    doors: &Doors<'_>,
    map: &PortMap,
    here: &Here,
    out: &mut dyn Write,
    answers: impl Fn(&Entry) -> Result<(), String>,
) -> anyhow::Result<bool> {
    let findings = look(args, doors, map, here, answers)?;
    let well = findings.iter().all(|finding| finding.verdict.is_ok());
    say(args, &doors.user, &findings, here, out)?;
    Ok(well)
}

/// Looks at every entry in every file that the client reads.
pub(super) fn look(
    args: &Args,
    doors: &Doors<'_>,
    map: &PortMap,
    here: &Here,
    answers: impl Fn(&Entry) -> Result<(), String>,
) -> anyhow::Result<Vec<Finding>> {
    let (sheets, expected) = sheets(args, here)?;
    let mut findings = Vec::new();
    for ((entry, door), by_command) in doors.all.iter().zip(&doors.by_command) {
        let before = findings.len();
        for sheet in &sheets {
            let found = snippet::find(args.kind, &sheet.text, &entry.name);
            let found = match found {
                Ok(None) => continue,
                Ok(Some(found)) => Ok(found),
                Err(error) => Err(format!("{:#}", refusal(&sheet.path, &error))),
            };
            let mend = Mend { args, user: &doors.user, scope: sheet.scope };
            let is_read = found.is_ok();
            let url = found.as_ref().ok().and_then(|found| found.url.clone());
            let verdict = found.and_then(|found| {
                // What --stdio wrote is right too, where nobody asks for the one or the other.
                let is_by_command =
                    found.url.is_none() && found.command.as_deref().is_some_and(snippet::is_connect);
                let entry = if is_by_command { by_command } else { entry };
                verdict(args, sheet, &found, entry, door, map, &mend).and_then(|()| {
                    let how = if entry.helper.is_some() { "answers, to a token" } else { "answers" };
                    answers(entry)
                        .map(|()| how.to_owned())
                        .map_err(|why| format!("does not answer: {why}; see mcpsup status {}", door.user))
                })
            });
            let url = url.map(|url| snippet::shown(&url));
            let (file, name) = (sheet.path.clone(), entry.name.clone());
            findings.push(Finding { file, name, url, verdict, is_there: true, is_read });
        }
        if findings.len() == before {
            let mend = Mend { args, user: &doors.user, scope: args.scope };
            findings.push(Finding {
                file: expected.clone(),
                name: entry.name.clone(),
                url: None,
                verdict: Err(format!("is missing; run {mend}")),
                is_there: false,
                is_read: true,
            });
        }
    }
    Ok(findings)
}

/// The files the client reads, of those that exist, and the one an entry is expected in. Both
/// scopes count where nobody chose one.
fn sheets(args: &Args, here: &Here) -> anyhow::Result<(Vec<Sheet>, PathBuf)> {
    let chosen = args.scope.unwrap_or(Scope::default_for(args.kind));
    let mut places: Vec<(PathBuf, Option<Scope>)> = Vec::new();
    let first = candidates(args, here)?;
    let expected = file::to_write(&first);
    let scope = args.file.is_none().then_some(chosen);
    places.extend(first.into_iter().map(|path| (path, scope)));
    if args.file.is_none() && args.scope.is_none() {
        let other = if chosen == Scope::User { Scope::Project } else { Scope::User };
        let paths = snippet::files(args.kind, other, bases(here));
        places.extend(paths.into_iter().map(|path| (path, Some(other))));
    }
    // In the home directory both scopes may be one file.
    places.dedup_by(|one, other| one.0 == other.0);
    let mut sheets = Vec::new();
    for (path, scope) in places {
        if let Some(text) = file::read(&path)? {
            sheets.push(Sheet { path, scope, text });
        }
    }
    Ok((sheets, expected))
}

/// What is wrong with an entry, before anybody is asked.
fn verdict(
    args: &Args,
    sheet: &Sheet,
    found: &snippet::Found,
    entry: &Entry,
    door: &portmap::Entry,
    map: &PortMap,
    mend: &Mend<'_>,
) -> Result<(), String> {
    if let Some(expected) = &entry.command {
        if found.command.as_ref() != Some(expected) || found.url.is_some() {
            let has = if found.command.as_deref().is_some_and(snippet::is_connect) {
                "stale: starts another mcpsup connect"
            } else {
                "does not start mcpsup connect"
            };
            return Err(format!("{has}; run {mend}"));
        }
        return well_written(args, sheet, found, entry, mend);
    }
    let Some(url) = &found.url else {
        return Err(format!("has no URL that {} looks at; run {mend}", args.kind));
    };
    if *url != entry.url {
        let other = map.instances.iter().find(|door| door.url == *url);
        let points = match other {
            Some(other) => format!("{}, {}'s door", other.port, other.user),
            None => port_of(url).unwrap_or_else(|| snippet::shown(url)),
        };
        let force = if snippet::is_loopback(url) && other.is_none_or(|other| other.user == door.user) {
            ""
        } else {
            " --force"
        };
        return Err(format!(
            "stale: points at {points}, {}'s door is {}; run {mend}{force}",
            door.user, door.port
        ));
    }
    well_written(args, sheet, found, entry, mend)
}

/// What is wrong with an entry that leads to the right place.
fn well_written(
    args: &Args,
    sheet: &Sheet,
    found: &snippet::Found,
    entry: &Entry,
    mend: &Mend<'_>,
) -> Result<(), String> {
    if found.off {
        return Err(format!("is switched off in {}", sheet.path.display()));
    }
    match snippet::merge(args.kind, &sheet.text, std::slice::from_ref(entry), false) {
        Ok(merged) if merged == sheet.text => Ok(()),
        Ok(_) => Err(format!("is not written as {} reads it; run {mend}", args.kind)),
        Err(error) => Err(format!("{:#}", refusal(&sheet.path, &error))),
    }
}

/// The port of a URL on this host, if that is all it takes to know it by.
fn port_of(url: &str) -> Option<String> {
    if !snippet::is_loopback(url) {
        return None;
    }
    let shown = snippet::shown(url);
    let authority = shown.split("://").nth(1)?.split('/').next()?;
    let (_, port) = authority.rsplit_once(':')?;
    port.bytes().all(|b| b.is_ascii_digit()).then(|| port.to_owned())
}

fn say(
    args: &Args,
    user: &UserName,
    findings: &[Finding],
    here: &Here,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    if args.json {
        let checks: Vec<_> = findings
            .iter()
            .map(|finding| {
                json!({
                    "file": finding.file.to_string_lossy(),
                    "name": finding.name,
                    "url": finding.url,
                    "ok": finding.verdict.is_ok(),
                    "problem": finding.verdict.as_ref().err(),
                })
            })
            .collect();
        let answer = json!({"client": args.kind.as_str(), "user": user.as_str(), "checks": checks});
        writeln!(out, "{answer}")?;
        return Ok(());
    }
    for Finding { file, name, url, verdict, .. } in findings {
        let file = file.strip_prefix(&here.cwd).unwrap_or(file).display();
        let arrow = url.as_ref().map(|url| format!(" → {url}")).unwrap_or_default();
        let (Ok(text) | Err(text)) = verdict;
        writeln!(out, "{}: {file}: {name}{arrow}: {text}", args.kind)?;
    }
    Ok(())
}

/// Has an MCP round trip with the server, as the client would: at its URL, or by the command.
pub(crate) fn answers(entry: &Entry) -> Result<(), String> {
    if let Some(words) = &entry.command {
        return by_command(words);
    }
    let (address, path) = endpoint(&entry.url)?;
    let authorization = entry.helper.as_deref().map(ask_helper).transpose()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("cannot ask it: {error}"))?;
    let address = Address::Tcp(address);
    let asked = probe::as_client(&address, &path, authorization.as_ref(), LIMIT);
    runtime.block_on(asked).map_err(|error| error.to_string())
}

/// Runs what the client would run for its headers.
fn ask_helper(helper: &str) -> Result<Secret, String> {
    let words = ["/bin/sh", "-c", helper].map(str::to_owned);
    let said =
        Zeroizing::new(command::ask(&words, "", LIMIT).map_err(|why| format!("its helper says {why}"))?);
    let mut headers: BTreeMap<String, String> =
        serde_json::from_str(&said).map_err(|_| "its helper prints no headers".to_owned())?;
    headers.remove("Authorization").map(Secret::new).ok_or_else(|| "its helper prints no token".to_owned())
}

fn by_command(words: &[String]) -> Result<(), String> {
    // A legacy question first; a server that knows only the other era is asked in that.
    let questions = [
        r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"mcpsup","version":"0"}}}"#,
        r#"{"jsonrpc":"2.0","id":2,"method":"server/discover","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{},"io.modelcontextprotocol/clientInfo":{"name":"mcpsup","version":"0"}}}}"#,
    ];
    let mut why = String::new();
    for question in questions {
        let answer = command::ask(words, question, LIMIT)?;
        let answer: serde_json::Value =
            serde_json::from_str(&answer).map_err(|_| "what it says is not JSON".to_owned())?;
        if answer.get("result").is_some() {
            return Ok(());
        }
        answer["error"]["message"].as_str().unwrap_or("it answers something else").clone_into(&mut why);
    }
    Err(why)
}

fn endpoint(url: &str) -> Result<(SocketAddr, String), String> {
    let strange = || format!("{} is not a door's address", snippet::shown(url));
    let rest = url.strip_prefix("http://").ok_or_else(strange)?;
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let address = authority.to_socket_addrs().ok().and_then(|mut all| all.next());
    let path = if path.is_empty() { "/" } else { path };
    Ok((address.ok_or_else(strange)?, path.to_owned()))
}
