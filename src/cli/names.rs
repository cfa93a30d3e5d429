//! The names that a shell can complete: users and their servers.
//!
//! A person waits at a Tab, so this asks nobody who might take his time: the port map is a file,
//! and where it tells nothing the names of env.d do. After 300 ms there is nothing to complete.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use clap_complete::CompletionCandidate;

use super::ports;
use super::print::Print;
use super::session::{Environment, Session};
use crate::model::portmap::PortMap;
use crate::system::envdir::user_of;

/// How long a Tab may take.
const LIMIT: Duration = Duration::from_millis(300);

/// Users.
#[must_use]
pub fn users(word: &OsStr) -> Vec<CompletionCandidate> {
    in_time(word, |known, _| known.users)
}

/// Users, and once a slash is typed their servers.
#[must_use]
pub fn instances(word: &OsStr) -> Vec<CompletionCandidate> {
    in_time(word, |known, word| if word.contains('/') { known.instances } else { known.users })
}

/// What there is to choose from.
#[derive(Debug, Default, PartialEq, Eq)]
struct Known {
    users: BTreeSet<String>,
    instances: BTreeSet<String>,
}

fn in_time(word: &OsStr, choose: impl FnOnce(Known, &str) -> BTreeSet<String>) -> Vec<CompletionCandidate> {
    let Some(word) = word.to_str() else { return Vec::new() };
    let (found, names) = mpsc::channel();
    // Left behind if a file system hangs; it ends with the process.
    std::thread::spawn(move || {
        // Nobody listens any more after the limit.
        found.send(look()).unwrap_or_default();
    });
    let known = names.recv_timeout(LIMIT).unwrap_or_default();
    let names = choose(known, word).into_iter();
    names.filter(|name| name.starts_with(word)).map(CompletionCandidate::new).collect()
}

fn look() -> Known {
    let environment = Environment::read();
    let config = config_of(std::env::args_os().skip(1));
    let print = Print::new(&environment);
    let Ok(session) = Session::new(config.as_deref(), environment, print) else {
        return Known::default();
    };
    match ports::left(&session) {
        Ok(map) if !map.instances.is_empty() => of_the_map(&map),
        Ok(_) | Err(_) => Known { users: users_of(&session.places.env_dir), instances: BTreeSet::new() },
    }
}

fn users_of(env_dir: &Path) -> BTreeSet<String> {
    let files = std::fs::read_dir(env_dir).into_iter().flatten().flatten();
    files.filter_map(|file| user_of(file.file_name().to_str()?)).map(|user| user.to_string()).collect()
}

fn of_the_map(map: &PortMap) -> Known {
    Known {
        users: map.instances.iter().map(|entry| entry.user.to_string()).collect(),
        instances: map.instances.iter().map(|e| format!("{}/{}", e.user, e.server)).collect(),
    }
}

/// The `--config` of the line that is being completed.
fn config_of(words: impl Iterator<Item = std::ffi::OsString>) -> Option<PathBuf> {
    let mut words = words.skip_while(|word| word != "--").skip(1);
    while let Some(word) = words.next() {
        if word == "--config" {
            return words.next().map(PathBuf::from);
        }
        if let Some(file) = word.to_str().and_then(|word| word.strip_prefix("--config=")) {
            return Some(file.into());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_with_an_env_file_of_whatever_kind_can_be_completed() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["alice.env", ".env.bob", "carol.env.cred", "dan.env.age", "README", ".alice.env.swp"] {
            std::fs::File::create(dir.path().join(name)).unwrap();
        }
        assert_eq!(users_of(dir.path()), ["alice", "bob", "carol", "dan"].map(str::to_owned).into());
    }

    #[test]
    fn the_line_that_is_completed_may_name_its_configuration() {
        let of = |line: &str| config_of(line.split(' ').map(Into::into));
        assert_eq!(of("-- mcpsup --config /x.toml start"), Some("/x.toml".into()));
        assert_eq!(of("-- mcpsup start --config=/y.toml a"), Some("/y.toml".into()));
        assert_eq!(of("--config /z.toml -- mcpsup start"), None);
        assert_eq!(of("-- mcpsup start --config"), None);
    }
}
