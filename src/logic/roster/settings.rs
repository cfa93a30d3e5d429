//! What a user's file says to mcpsup itself (PRODUCT §4): the `MCPSUP_*` names, pinned ports, and
//! what is required of the rest.
//!
//! A message names variables, never their values.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use crate::logic::config::{self, spelling::nearest};
use crate::logic::ports::Pin;
use crate::logic::uids::Uids;
use crate::model::config::Server;
use crate::model::env::{Variable, Variables};
use crate::model::spec::Account;
use crate::model::uid::UidRange;
use crate::model::{Config, Problem, ServerName, UserName};

use super::Host;
use super::user::Lookup;

/// What mends a name service that does not answer.
const RETRIED: &str =
    "mend the host's name service (getent passwd NAME tries it); it is asked again within a minute";

/// What all names that are mcpsup's own begin with.
const OURS: &str = "MCPSUP_";

/// What one file says to mcpsup.
#[derive(Debug)]
pub(super) struct Settings<'a> {
    file: &'a str,
    by_root: bool,
    run_as: Option<&'a Variable>,
    /// Not `MCPSUP_ENABLED=false`.
    pub(super) enabled: bool,
    /// Which servers the user has.
    pub(super) servers: BTreeSet<ServerName>,
    /// Where their doors shall be.
    pub(super) pins: BTreeMap<ServerName, Pin>,
    /// What is wrong, for all of the user's instances.
    pub(super) problems: Vec<Problem>,
}

impl<'a> Settings<'a> {
    /// Reads `vars`. `had` tells which servers the user has had so far: if the file does not say
    /// clearly which it wants, these are kept.
    pub(super) fn read(
        file: &'a str,
        by_root: bool,
        vars: &'a Variables,
        config: &Config,
        had: &dyn Fn(&ServerName) -> bool,
    ) -> Self {
        let mut settings = Self {
            file,
            by_root,
            run_as: vars.get("MCPSUP_RUN_AS"),
            enabled: true,
            servers: BTreeSet::new(),
            pins: BTreeMap::new(),
            problems: Vec::new(),
        };
        for variable in &vars.0 {
            settings.check_name(variable, config);
        }
        if let Some(variable) = vars.get("MCPSUP_ENABLED") {
            match variable.value.reveal() {
                "true" => {}
                "false" => settings.enabled = false,
                _ => settings.wrong(variable, "is true or false"),
            }
        }
        settings.read_servers(vars, config, had);
        settings.read_pins(vars, config);
        settings
    }

    /// Whom the user's processes run as; `None` is the daemon's own user, who is not root. Where that
    /// cannot be found out it is a problem: nobody is run as root because a name service is down.
    pub(super) fn account(
        &mut self,
        user: &UserName,
        range: UidRange,
        uids: &mut Uids,
        host: &Host<'_>,
    ) -> (Option<Account>, Lookup) {
        let Some(variable) = self.run_as else {
            if !host.is_root {
                return (None, Lookup::Over);
            }
            return match (host.accounts)(user.as_str()) {
                Ok(Some(account)) if account.uid != 0 => match holder(uids, user, account.uid) {
                    None => (Some(account), Lookup::Over),
                    Some(holder) => {
                        let text = format!(
                            "the account {user} has uid {}, which was reserved for {holder}; give the account another",
                            account.uid
                        );
                        self.problems.push(Problem::new(self.file, text));
                        (None, Lookup::Needed)
                    }
                },
                // A file called root.env is not how one becomes root.
                Ok(_) => self.reserved(user, range, uids, host),
                Err(why) => {
                    let text = format!("cannot look up the account {user}: {why}; {RETRIED}");
                    self.problems.push(Problem::new(self.file, text));
                    (None, Lookup::Needed)
                }
            };
        };
        if !self.by_root {
            self.wrong(variable, "is honoured only in a file that root owns; remove it");
            return (None, Lookup::Over);
        }
        if !host.is_root {
            self.wrong(variable, "needs a daemon that runs as root; remove it");
            return (None, Lookup::Over);
        }
        match (host.accounts)(variable.value.reveal()) {
            Ok(Some(account)) if account.uid == 0 && variable.value.reveal() != "root" => {
                self.wrong(variable, "names root by another name; say MCPSUP_RUN_AS=root if that is meant");
            }
            Ok(Some(account)) => match holder(uids, user, account.uid) {
                None => return (Some(account), Lookup::Over),
                Some(holder) => {
                    let text =
                        format!("names an account whose uid was reserved for {holder}; give that another");
                    self.wrong(variable, &text);
                }
            },
            Ok(None) => self.wrong(variable, "names no account of this host"),
            Err(why) => {
                self.wrong(variable, &format!("names an account that cannot be looked up: {why}; {RETRIED}"));
            }
        }
        (None, Lookup::Needed)
    }

    /// A uid of the reserved range: nobody is run as root because they have no account.
    fn reserved(
        &mut self,
        user: &UserName,
        range: UidRange,
        uids: &mut Uids,
        host: &Host<'_>,
    ) -> (Option<Account>, Lookup) {
        match uids.give(user, range, &host.uids) {
            Ok(uid) => {
                let name = user.to_string();
                let account = Account { name, uid, gid: uid, home: PathBuf::new(), is_reserved: true };
                (Some(account), Lookup::None)
            }
            Err(why) => {
                self.problems.push(Problem::new(self.file, why.to_string()));
                (None, Lookup::Needed)
            }
        }
    }

    fn wrong(&mut self, variable: &Variable, text: &str) {
        let problem = Problem::new(self.file, format!("{} {text}", variable.name));
        self.problems.push(problem.at_line(variable.line));
    }

    fn check_name(&mut self, variable: &Variable, config: &Config) {
        let name = &*variable.name;
        if steers(name) && !self.by_root {
            self.wrong(
                variable,
                "steers the loader or the daemon, and root does not own this file; remove it",
            );
        }
        if !name.starts_with(OURS) {
            return;
        }
        let pins: Vec<String> = config.servers.keys().map(pin_name).collect();
        let settings = ["MCPSUP_PORT", "MCPSUP_SERVERS", "MCPSUP_ENABLED", "MCPSUP_RUN_AS"];
        let known: Vec<&str> = settings.into_iter().chain(pins.iter().map(String::as_str)).collect();
        if !known.contains(&name) {
            let mend = nearest(name, &known)
                .map_or_else(|| "; remove it".to_owned(), |near| format!("; did you mean {near}?"));
            self.wrong(variable, &format!("is no setting of mcpsup{mend}"));
        }
    }

    fn read_servers(&mut self, vars: &Variables, config: &Config, had: &dyn Fn(&ServerName) -> bool) {
        let for_all = |(name, server): (&ServerName, &Arc<Server>)| server.for_all.then(|| name.clone());
        self.servers = config.servers.iter().filter_map(for_all).collect();
        let Some(variable) = vars.get("MCPSUP_SERVERS") else {
            return;
        };
        let known: Vec<&str> = config.servers.keys().map(ServerName::as_str).collect();
        let entries = variable.value.reveal().split(',').map(str::trim).filter(|entry| !entry.is_empty());
        for (number, entry) in (1..).zip(entries) {
            let server = entry.parse().ok().filter(|name| config.servers.contains_key(name));
            if let Some(server) = server {
                self.servers.insert(server);
            } else {
                let mend =
                    nearest(entry, &known).map_or_else(String::new, |near| format!("; did you mean {near}?"));
                self.wrong(
                    variable,
                    &format!("lists, as number {number}, a server that is not in mcpsup.toml{mend}"),
                );
                self.servers.extend(config.servers.keys().filter(|name| had(name)).cloned());
            }
        }
    }

    fn read_pins(&mut self, vars: &Variables, config: &Config) {
        let servers: Vec<ServerName> = self.servers.iter().cloned().collect();
        let general = vars.get("MCPSUP_PORT");
        if let (Some(variable), [first, _, ..]) = (general, &*servers) {
            self.wrong(
                variable,
                &format!(
                    "is for one server, and there are {}; say {} and so on",
                    servers.len(),
                    pin_name(first)
                ),
            );
        }
        for server in &servers {
            let port_env = config.servers.get(server).and_then(|server| server.port_env.as_deref());
            let said = [
                vars.get(&pin_name(server)),
                general.filter(|_| servers.len() == 1),
                port_env.and_then(|name| vars.get(name)),
            ];
            let mut pin: Option<Pin> = None;
            for variable in said.into_iter().flatten() {
                match (port(variable.value.reveal()), &pin) {
                    (None, _) => {
                        self.wrong(variable, "is not a port; expected a number from 1 to 65535");
                    }
                    (Some(port), None) => {
                        pin = Some(Pin {
                            port,
                            name_of_setting: variable.name.clone().into(),
                            file: self.file.to_owned(),
                            line: variable.line,
                            privileged: self.by_root,
                        });
                    }
                    (Some(port), Some(pin)) if port == pin.port => {}
                    (Some(_), Some(pin)) => {
                        let text = format!(
                            "asks for another port than {} on line {}; keep one of them",
                            pin.name_of_setting, pin.line
                        );
                        self.wrong(variable, &text);
                    }
                }
            }
            self.pins.extend(pin.map(|pin| (server.clone(), pin)));
        }
    }
}

/// For whom else than `user` this uid was reserved.
fn holder<'a>(uids: &'a Uids, user: &UserName, uid: u32) -> Option<&'a UserName> {
    uids.holder(uid).filter(|holder| *holder != user)
}

/// What is wrong with the credentials that `server` asks for.
pub(super) fn credentials(server: &Server, file: &str, vars: &Variables) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (name, credential) in &server.credentials {
        let what = match &*credential.description {
            "" => String::new(),
            description => format!(" ({description})"),
        };
        match vars.get(name).map(|variable| (variable, variable.value.reveal())) {
            None | Some((_, "")) if !credential.required => {}
            None => {
                problems.push(Problem::new(file, format!("{name} is required{what}; add {name}=…")));
            }
            Some((variable, "")) => {
                problems.push(
                    Problem::new(file, format!("{name} is required{what} and empty")).at_line(variable.line),
                );
            }
            Some((variable, value)) => {
                if let Some(pattern) =
                    credential.pattern.as_deref().filter(|pattern| !config::matches(pattern, value))
                {
                    let text =
                        format!("{name}{what} does not match the pattern that mcpsup.toml gives: {pattern}");
                    problems.push(Problem::new(file, text).at_line(variable.line));
                }
            }
        }
    }
    problems
}

/// Everything that is wrong with what a file says, for all servers that it asks for.
#[must_use]
pub fn faults(file: &str, by_root: bool, vars: &Variables, config: &Config) -> Vec<Problem> {
    let settings = Settings::read(file, by_root, vars, config, &|_| false);
    let servers = settings.servers.iter().filter_map(|name| config.servers.get(name));
    let lacking: Vec<Problem> = servers.flat_map(|server| credentials(server, file, vars)).collect();
    settings.problems.into_iter().chain(lacking).collect()
}

/// The servers that a file asks for, with those that everybody has.
#[must_use]
pub fn servers_of(file: &str, vars: &Variables, config: &Config) -> BTreeSet<ServerName> {
    Settings::read(file, true, vars, config, &|_| false).servers
}

/// True for names that steer mcpsup, the loader or what takes a process for its service manager.
#[must_use]
pub fn is_reserved(name: &str, config: &Config) -> bool {
    steers(name) || is_ours(name, config)
}

/// True for what mcpsup reads itself and never hands to a process: `MCPSUP_*`, and the name in
/// which any server learns its port.
pub(super) fn is_ours(name: &str, config: &Config) -> bool {
    name.starts_with(OURS) || config.servers.values().any(|server| server.port_env.as_deref() == Some(name))
}

/// True for names that change what a program loads or whom it takes for its service manager.
fn steers(name: &str) -> bool {
    name.starts_with("LD_") || name.starts_with("LISTEN_") || matches!(name, "GCONV_PATH" | "NOTIFY_SOCKET")
}

/// `MCPSUP_PORT_SERVICE_DESK_PLUS`
fn pin_name(server: &ServerName) -> String {
    format!("MCPSUP_PORT_{}", config::pin_suffix(server))
}

fn port(text: &str) -> Option<u16> {
    text.parse().ok().filter(|port| *port != 0 && text.bytes().all(|b| b.is_ascii_digit()))
}
