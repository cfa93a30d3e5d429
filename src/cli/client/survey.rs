//! The files of every client at once, for `mcpsup doctor`: those that have entries of a user, or that
//! cannot be read where such an entry belongs. What is said is `check`'s.

use std::path::Path;

use super::{Args, Doors, Here, check};
use crate::cli::session::Session;
use crate::logic::snippet::ClientKind;
use crate::model::finding::{Code, Finding, Mend};
use crate::model::portmap::PortMap;
use crate::model::{ServerName, UserName};

/// What was seen of a user's client files.
#[derive(Debug, Default)]
pub struct Surveyed {
    /// What is wrong with them.
    pub findings: Vec<Finding>,
    /// What is right, for people: `.mcp.json: notes → http://127.0.0.1:3456/mcp`.
    pub right: Vec<String>,
    /// Doors at which nobody answered as they should, and why.
    pub silent: Vec<(ServerName, String)>,
}

fn args(user: &UserName, kind: ClientKind, stdio: bool) -> Args {
    let who = Some(super::Who { user: Some(user.clone()), server: None });
    Args { who, kind, stdio, write: false, check: true, scope: None, file: None, force: false, json: false }
}

/// Looks at the caller's files of every client for entries of `user`, and has a round trip with every
/// door of theirs that `is_up`. `ours` is how this program is called in a mend.
///
/// # Errors
///
/// When it cannot be told where the files are.
pub fn survey(
    user: &UserName,
    map: &PortMap,
    is_up: impl Fn(&ServerName) -> bool,
    ours: &str,
    session: &Session,
) -> anyhow::Result<Surveyed> {
    let here = Here::find(session)?;
    let mut seen = Surveyed::default();
    for kind in ClientKind::ALL {
        let plain = args(user, kind, false);
        // Without a door there is nothing that an entry could say.
        let Ok(doors) = Doors::find(&plain, map, &here) else { return Ok(seen) };
        if kind == ClientKind::ClaudeCode {
            let up = doors.all.iter().filter(|(_, door)| is_up(&door.server));
            for (entry, door) in up {
                if let Err(why) = check::answers(entry) {
                    seen.silent.push((door.server.clone(), why));
                }
            }
        }
        let stdio = args(user, kind, true);
        let Ok(connects) = Doors::find(&stdio, map, &here) else { continue };
        let looked = |args: &Args, doors: &Doors<'_>| check::look(args, doors, map, &here, |_| Ok(()));
        // Whoever chose --stdio has entries that are right in another way. A file that belongs to
        // another is told by the client that reads it.
        let (Ok(one), Ok(other)) = (looked(&plain, &doors), looked(&stdio, &connects)) else { continue };
        for (one, other) in one.into_iter().zip(other) {
            let is_stdio = other.verdict.is_ok()
                || matches!(&other.verdict, Err(why) if why.starts_with("stale: starts another"));
            take(if is_stdio { other } else { one }, kind, user, (ours, &here.cwd), &mut seen);
        }
    }
    if seen.right.is_empty() && seen.findings.is_empty() {
        let mend = Mend::Run(format!("{ours} client {user} --write"));
        let wrong = format!("no client's file here has an entry of {user}'s");
        seen.findings.push(Finding::note(Code::Client, wrong, mend).of(user));
    }
    Ok(seen)
}

fn take(
    looked: check::Finding,
    kind: ClientKind,
    user: &UserName,
    (ours, cwd): (&str, &Path),
    seen: &mut Surveyed,
) {
    if !looked.is_there || !looked.is_read && !may_be_ours(&looked) {
        return;
    }
    let file = looked.file.strip_prefix(cwd).unwrap_or(&looked.file).display();
    let arrow = looked.url.as_ref().map(|url| format!(" → {url}")).unwrap_or_default();
    let Err(why) = looked.verdict else {
        return seen.right.push(format!("{file}: {}{arrow}", looked.name));
    };
    let (wrong, mend) = match why.rsplit_once("; run mcpsup ") {
        Some((wrong, words)) => (wrong.to_owned(), Mend::Run(format!("{ours} {words}"))),
        None if looked.is_read => {
            let so = format!("the entry \"{}\"", looked.name);
            (why, Mend::Edit { file: looked.file.display().to_string(), so })
        }
        // FILE:LINE:COLUMN: what is wrong
        None => {
            let (place, what) = why.split_once(": ").unwrap_or((&why, "it cannot be understood"));
            (what.to_owned(), Mend::Edit { file: place.to_owned(), so: what.to_owned() })
        }
    };
    let wrong = format!("{kind}: {file}: {}{arrow}: {wrong}", looked.name);
    seen.findings.push(Finding::wrong(Code::Client, wrong, mend).of(user));
}

/// A file that cannot be understood is told where it is there for MCP alone, or names the entry.
fn may_be_ours(looked: &check::Finding) -> bool {
    let is_for_mcp = looked.file.file_name().is_some_and(|name| name.to_string_lossy().contains("mcp"));
    is_for_mcp
        || std::fs::read_to_string(&looked.file)
            .is_ok_and(|text| text.contains(&format!("\"{}\"", looked.name)))
}
