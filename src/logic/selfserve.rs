//! What a user may change in their own env file, and what the file says then.
//!
//! Their credentials, as mcpsup.toml declares them; not the rest: what an administrator wrote into
//! a file that root owns is trusted with more than its user is. Names that steer the loader, the
//! daemon or the process's surroundings are nobody's to set this way.
//!
//! Nothing here says a value, and nobody hears of a file that is not theirs: who may ask about whose
//! is decided before.

use std::collections::BTreeSet;

use std::sync::Arc;

use crate::logic::envfile::edit::{self, NotChanged};
use crate::logic::envfile::{self, is_name};
use crate::logic::{config, roster};
use crate::model::config::{Credential, Piece, Server, Template};
use crate::model::env::Variables;
use crate::model::file::{EnvFile, SecretBytes};
use crate::model::{Config, Problem, Secret, ServerName, Wish};

/// The longest name of a variable, in bytes, as in an env file.
const MAX_NAME: usize = 128;

/// What every process gets from mcpsup, or what makes programs load other programs.
const SURROUNDINGS: [&str; 6] = ["HOME", "LANG", "LOGNAME", "PATH", "TMPDIR", "USER"];

/// The setting that lists a user's optional servers.
const SERVERS: &str = "MCPSUP_SERVERS";

/// What the file says when the wish is granted.
#[derive(Debug, PartialEq, Eq)]
pub struct Granted {
    /// All of it; `None` if it says so already.
    pub bytes: Option<SecretBytes>,
    /// Servers that cannot run without what was removed.
    pub lost: Vec<ServerName>,
}

/// Why a wish is not granted; for the one who has it, without a value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// It cannot mean anything.
    #[error("{0}")]
    WrongUse(String),
    /// It is somebody else's to do.
    #[error("{0}")]
    NotPermitted(String),
    /// As the file and mcpsup.toml are, it cannot be.
    #[error("{0}")]
    Impossible(String),
}

/// Who wishes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wisher {
    /// The user, or an administrator who could not write the file: declared credentials only.
    User,
    /// Who may write the file anyway: root, and the daemon's own user.
    Root,
}

/// What `file` says when `wish` is granted.
///
/// # Errors
///
/// When it is not, and nothing changes.
pub fn grant(wish: &Wish, wisher: Wisher, file: &EnvFile, config: &Config) -> Result<Granted, Denied> {
    let shown = &file.name;
    let vars = envfile::parse(&file.bytes, shown).map_err(|problems| {
        let first = problems.first().map_or_else(String::new, ToString::to_string);
        Denied::Impossible(format!("{first}; that has to be mended first"))
    })?;
    let changed = |name: &str, value: Option<&Secret>| {
        edit::with(&file.bytes, shown, name, value).map_err(|refused| not_changed(name, refused))
    };
    let as_it_is = Granted { bytes: None, lost: Vec::new() };
    let after = match wish {
        Wish::Set { name, value } => {
            may_name(name, wisher, config)?;
            fits(name, value, &vars, file, config)?;
            if vars.get(name).is_some_and(|variable| variable.value == *value) {
                return Ok(as_it_is);
            }
            changed(name, Some(value))?
        }
        Wish::Unset { name } => {
            may_name(name, wisher, config)?;
            if vars.get(name).is_none() {
                return Ok(as_it_is);
            }
            let lost = lost_without(name, &vars, file, config);
            return Ok(Granted { bytes: Some(changed(name, None)?), lost });
        }
        Wish::Enable(server) => {
            optional(server, "enabled for one user", config)?;
            let mut listed = listed(&vars);
            if listed.iter().any(|name| *name == server.as_str()) {
                return Ok(as_it_is);
            }
            listed.push(server.as_str());
            changed(SERVERS, Some(&Secret::new(listed.join(","))))?
        }
        Wish::Disable(server) => {
            optional(server, "disabled for one user (mcpsup stop stops it)", config)?;
            let mut listed = listed(&vars);
            let before = listed.len();
            listed.retain(|name| *name != server.as_str());
            if listed.len() == before {
                return Ok(as_it_is);
            }
            let rest = Secret::new(listed.join(","));
            changed(SERVERS, Some(&rest).filter(|_| !listed.is_empty()))?
        }
    };
    let new = envfile::parse(&after, shown).unwrap_or_default();
    match news(&problems(&vars, file, config), problems(&new, file, config)) {
        None => Ok(Granted { bytes: Some(after), lost: Vec::new() }),
        Some(problem) => Err(Denied::Impossible(problem.to_string())),
    }
}

fn not_changed(name: &str, refused: NotChanged) -> Denied {
    match refused {
        NotChanged::Value(why) => {
            Denied::Impossible(format!("no env file can hold that value of {name}: {why}"))
        }
        NotChanged::Broken(text) | NotChanged::TooMuch(text) => Denied::Impossible(text),
    }
}

fn problems(vars: &Variables, file: &EnvFile, config: &Config) -> Vec<Problem> {
    roster::faults(&file.name, file.owner_uid == 0, vars, config)
}

/// The first problem that was not there before, wherever it stood.
fn news(before: &[Problem], after: Vec<Problem>) -> Option<Problem> {
    after.into_iter().find(|new| !before.iter().any(|old| old.text == new.text))
}

/// Refuses names that this wisher may not change.
fn may_name(name: &str, wisher: Wisher, config: &Config) -> Result<(), Denied> {
    if !is_name(name) || name.len() > MAX_NAME {
        // It may be anything, a value even.
        let text = "expected a variable's name: letters, digits and _, not beginning with a digit";
        return Err(Denied::WrongUse(text.to_owned()));
    }
    if roster::is_reserved(name, config) || SURROUNDINGS.contains(&name) {
        let text =
            format!("{name} steers mcpsup or what a program loads, and cannot be set or removed like this");
        return Err(Denied::NotPermitted(text));
    }
    let declared: BTreeSet<&str> =
        config.servers.values().flat_map(|server| server.credentials.keys().map(String::as_str)).collect();
    if declared.contains(name) || wisher == Wisher::Root {
        return Ok(());
    }
    // The name is not said: it is unknown, so it may be a value.
    let known: Vec<&str> = declared.into_iter().take(20).collect();
    let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
    let text =
        format!("no server here asks for a credential of that name (known: {known}); ask an administrator");
    Err(Denied::NotPermitted(text))
}

/// Refuses a value that is none, or that a pattern forbids: of the servers that the user has and that
/// ask for it, else of all that do.
fn fits(name: &str, value: &Secret, vars: &Variables, file: &EnvFile, config: &Config) -> Result<(), Denied> {
    if value.reveal().is_empty() {
        return Err(Denied::WrongUse(format!("an empty value of {name}; mcpsup unset {name} removes it")));
    }
    let asking = |server: &Arc<Server>| -> Option<Credential> { server.credentials.get(name).cloned() };
    let had = roster::servers_of(&file.name, vars, config);
    let mut asked: Vec<Credential> =
        had.iter().filter_map(|server| config.servers.get(server).and_then(asking)).collect();
    if asked.is_empty() {
        asked = config.servers.values().filter_map(asking).collect();
    }
    for Credential { description, pattern, .. } in asked {
        if let Some(pattern) = pattern.filter(|pattern| !config::matches(pattern, value.reveal())) {
            let what = if description.is_empty() { String::new() } else { format!(" ({description})") };
            let text = format!(
                "that value of {name}{what} does not match the pattern that mcpsup.toml gives: {pattern}"
            );
            return Err(Denied::Impossible(text));
        }
    }
    Ok(())
}

/// Refuses a server that is not there, or is not anybody's to choose.
fn optional(server: &ServerName, what: &str, config: &Config) -> Result<(), Denied> {
    match config.servers.get(server) {
        Some(described) if !described.for_all => Ok(()),
        Some(_) => Err(Denied::Impossible(format!("{server} is everybody's here and cannot be {what}"))),
        None => {
            let optional = config.servers.iter().filter(|(_, server)| !server.for_all);
            let names: Vec<&str> = optional.map(|(name, _)| name.as_str()).take(20).collect();
            let known = if names.is_empty() { "none here".to_owned() } else { names.join(", ") };
            Err(Denied::Impossible(format!("there is no server \"{server}\" to choose; there is {known}")))
        }
    }
}

fn listed(vars: &Variables) -> Vec<&str> {
    let entries = vars.get(SERVERS).map_or("", |variable| variable.value.reveal()).split(',');
    entries.map(str::trim).filter(|entry| !entry.is_empty()).collect()
}

/// The user's servers that are not started without `name`.
fn lost_without(name: &str, vars: &Variables, file: &EnvFile, config: &Config) -> Vec<ServerName> {
    let needs = |server: &Arc<Server>| {
        let used = |template: &Template| {
            template.0.iter().any(|piece| matches!(piece, Piece::Env(used) if used == name))
        };
        server.credentials.get(name).is_some_and(|credential| credential.required)
            || server.env.values().chain(&server.command).any(used)
    };
    let mut servers = roster::servers_of(&file.name, vars, config);
    servers.retain(|server| config.servers.get(server).is_some_and(needs));
    servers.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = r#"
        [server.notes]
        command = ["notes"]
        transport = "http"
        port_env = "NOTES_PORT"
        env = { MODE = "careful" }
        [server.notes.credential.NOTES_TOKEN]
        description = "token of your notes account"
        pattern = "^nt_[a-z0-9]+$"
        [server.notes.credential.NOTES_HINT]
        required = false

        [server.maps]
        command = ["maps"]
        transport = "http"
        port_env = "MAPS_PORT"
        for_all = false
        [server.maps.credential.MAPS_KEY]
        pattern = "^[A-Z]+$"
    "#;

    const FILE: &str = "# alice's\nNOTES_TOKEN=nt_old # not a comment\nMODE=free\n";

    fn config() -> Config {
        config::parse(CONFIG, "mcpsup.toml").unwrap()
    }

    fn file(text: &str) -> EnvFile {
        EnvFile { name: "env.d/alice.env".to_owned(), bytes: text.as_bytes().to_vec().into(), owner_uid: 0 }
    }

    fn set(name: &str, value: &str) -> Wish {
        Wish::Set { name: name.to_owned(), value: Secret::new(value) }
    }

    fn unset(name: &str) -> Wish {
        Wish::Unset { name: name.to_owned() }
    }

    fn ask(wish: &Wish, text: &str) -> Result<(String, Vec<ServerName>), Denied> {
        let granted = grant(wish, Wisher::User, &file(text), &config())?;
        let bytes = granted
            .bytes
            .map_or_else(|| "as it was".to_owned(), |bytes| String::from_utf8(bytes.to_vec()).unwrap());
        Ok((bytes, granted.lost))
    }

    fn after(wish: &Wish, text: &str) -> String {
        ask(wish, text).unwrap().0
    }

    const GOOD: &str = "# alice's\nNOTES_TOKEN='nt_old' # May\nMODE=free\n";

    #[test]
    fn a_credential_is_set_replaced_and_removed_and_nothing_else_moves() {
        assert_eq!(after(&set("NOTES_TOKEN", "nt_new"), GOOD), GOOD.replace("nt_old", "nt_new"));
        assert_eq!(after(&set("NOTES_HINT", "a b"), GOOD), format!("{GOOD}NOTES_HINT='a b'\n"));
        assert_eq!(after(&set("NOTES_TOKEN", "nt_old"), GOOD), "as it was");
        assert_eq!(after(&unset("NOTES_HINT"), GOOD), "as it was");
        let (text, lost) = ask(&unset("NOTES_TOKEN"), GOOD).unwrap();
        assert_eq!((&*text, &*lost), ("# alice's\nMODE=free\n", &["notes".parse().unwrap()][..]));
        assert_eq!(after(&set("NOTES_TOKEN", "nt_again"), &text), format!("{text}NOTES_TOKEN=nt_again\n"));
    }

    #[test]
    fn what_steers_mcpsup_the_loader_or_the_surroundings_is_nobodys_to_set_like_this() {
        for name in [
            "LD_PRELOAD",
            "LD_LIBRARY_PATH",
            "LD_",
            "GCONV_PATH",
            "LISTEN_FDS",
            "LISTEN_PID",
            "NOTIFY_SOCKET",
            "MCPSUP_RUN_AS",
            "MCPSUP_PORT",
            "MCPSUP_PORT_NOTES",
            "MCPSUP_SERVERS",
            "MCPSUP_ENABLED",
            "MCPSUP_",
            "NOTES_PORT",
            "MAPS_PORT",
            "PATH",
            "HOME",
            "TMPDIR",
            "USER",
        ] {
            for wisher in [Wisher::User, Wisher::Root] {
                for wish in [set(name, "/tmp/evil.so"), unset(name)] {
                    let denied = grant(&wish, wisher, &file(GOOD), &config()).unwrap_err();
                    assert!(matches!(denied, Denied::NotPermitted(_)), "{name}: {denied:?}");
                    assert!(!denied.to_string().contains("evil"), "{denied}");
                }
            }
        }
    }

    #[test]
    fn what_an_administrator_wrote_beside_the_credentials_is_not_the_users_to_change() {
        for name in ["MODE", "NODE_OPTIONS", "UNHEARD_OF"] {
            let denied = ask(&set(name, "x"), GOOD).unwrap_err();
            assert!(
                matches!(&denied, Denied::NotPermitted(text) if text.contains("NOTES_TOKEN") && !text.contains(name))
            );
            assert!(ask(&unset(name), GOOD).is_err());
            assert!(grant(&set(name, "x"), Wisher::Root, &file(GOOD), &config()).is_ok());
        }
        for odd in ["", "A B", "1A", "A=B", "nt_0123-secret", "é", &"A".repeat(129)] {
            let denied = ask(&set(odd, "x"), GOOD).unwrap_err();
            assert!(
                matches!(&denied, Denied::WrongUse(text) if odd.is_empty() || !text.contains(odd)),
                "{denied:?}"
            );
        }
    }

    #[test]
    fn a_value_that_does_not_fit_is_refused_and_not_said() {
        for value in ["hunter2", "nt_UPPER", "nt_a\nLD_PRELOAD=x", ""] {
            let denied = ask(&set("NOTES_TOKEN", value), GOOD).unwrap_err().to_string();
            assert!(value.is_empty() || !denied.contains(value), "{denied}");
            assert!(denied.contains("NOTES_TOKEN"), "{denied}");
        }
        let denied = ask(&set("MAPS_KEY", "lower"), GOOD).unwrap_err().to_string();
        assert!(denied.contains("^[A-Z]+$"), "one may set it before the server is chosen: {denied}");
        let injected = after(&set("NOTES_HINT", "x\nLD_PRELOAD=/tmp/x\nMCPSUP_RUN_AS=root"), GOOD);
        let vars = envfile::parse(injected.as_bytes(), "f").unwrap();
        assert!(vars.get("LD_PRELOAD").is_none() && vars.get("MCPSUP_RUN_AS").is_none(), "{injected}");
    }

    #[test]
    fn an_optional_server_is_chosen_once_what_it_needs_is_there_and_left_again() {
        let maps: ServerName = "maps".parse().unwrap();
        let enable = Wish::Enable(maps.clone());
        let lacking = ask(&enable, GOOD).unwrap_err().to_string();
        assert!(lacking.contains("MAPS_KEY is required"), "{lacking}");
        let keyed = after(&set("MAPS_KEY", "ABC"), GOOD);
        let chosen = after(&enable, &keyed);
        assert_eq!(chosen, format!("{keyed}MCPSUP_SERVERS=maps\n"));
        assert_eq!(after(&enable, &chosen), "as it was");
        assert_eq!(after(&Wish::Disable(maps.clone()), &chosen), keyed);
        assert_eq!(after(&Wish::Disable(maps), &keyed), "as it was");
        for name in ["notes", "unheard-of"] {
            for wish in [Wish::Enable(name.parse().unwrap()), Wish::Disable(name.parse().unwrap())] {
                assert!(matches!(ask(&wish, GOOD), Err(Denied::Impossible(_))), "{name}");
            }
        }
    }

    #[test]
    fn a_broken_file_is_not_made_worse_and_an_old_problem_is_no_new_one() {
        let denied = ask(&set("NOTES_TOKEN", "nt_new"), FILE).unwrap_err().to_string();
        assert!(denied.starts_with("env.d/alice.env:2: ") && !denied.contains("nt_old"), "{denied}");
        let odd = format!("MCPSUP_PROT=1\n{GOOD}");
        assert!(after(&set("NOTES_TOKEN", "nt_new"), &odd).contains("nt_new"));
        let pinned = format!("MCPSUP_PORT=3500\n{}", after(&set("MAPS_KEY", "ABC"), GOOD));
        let denied = ask(&Wish::Enable("maps".parse().unwrap()), &pinned).unwrap_err().to_string();
        assert!(denied.contains("MCPSUP_PORT is for one server"), "{denied}");
    }
}
