//! Who should run what: mcpsup.toml and everybody's files, made into a [`Want`] per instance.
//!
//! It remembers the last good version of everything, so that a file that breaks changes nothing
//! but what `status` says. It reads no file and looks up no account itself, and it decides nothing
//! about processes: what is wanted goes to [`fleet`](crate::logic::fleet). One user's answers do
//! not depend on another's, save that a port has one owner ([`ports`](crate::logic::ports)).
//!
//! [`settings`] reads what a file says to mcpsup itself, [`spec`] makes the process's side of it.

mod digest;
mod settings;
mod spec;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use crate::logic::envfile;
use crate::logic::instance::Want;
use crate::logic::ports::{Given, Pin, Ports};
use crate::model::env::Variables;
use crate::model::file::{EnvFile, FileState, Look};
use crate::model::spec::Account;
use crate::model::status::StateName;
use crate::model::{Config, InstanceId, Problem, ServerName, Spec, UserName};

use settings::Settings;
use spec::Constants;

/// The path of an MCP endpoint whose server is no longer described.
const USUAL_PATH: &str = "/mcp";

/// What this host adds to what the files say.
pub struct Host<'a> {
    /// Ports that others on this host have taken: not to be given to anybody new.
    pub blocked: &'a BTreeSet<u16>,
    /// The system account of a name.
    pub accounts: &'a dyn Fn(&str) -> Option<Account>,
    /// The daemon's state directory; an instance's own is `instances/USER/SERVER` in it.
    pub state: &'a Path,
    /// The daemon's runtime directory, likewise.
    pub runtime: &'a Path,
    /// The daemon runs as root, so each user can have an account of their own.
    pub is_root: bool,
    /// The key of [`SpecId`](crate::model::SpecId)s, of the state directory.
    pub digest_key: &'a [u8; 32],
}

/// What is to be done about one instance, and what to say of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Listed {
    /// What should be.
    pub want: Want,
    /// Its door; `None` if no port could be given.
    pub door: Option<u16>,
    /// The path of its MCP endpoint.
    pub path: String,
    /// The uid its user has on this host: the account's that it runs as, else that of the file's
    /// owner. `None` where neither is known.
    pub owner_uid: Option<u32>,
    /// What to call it while nothing runs.
    pub absent_because: StateName,
    /// What is wrong with its file or its configuration, also while a last good version goes on.
    pub problems: Vec<Problem>,
}

/// The last good version of everything.
#[derive(Debug, Default)]
pub struct Roster {
    config: Option<Arc<Config>>,
    config_problems: Vec<Problem>,
    /// env.d could be read at least once.
    looked: bool,
    directory_problem: Option<Problem>,
    users: BTreeMap<UserName, User>,
    constants: Constants,
}

/// One user who has a file.
#[derive(Debug, Default)]
struct User {
    /// The last version that could be read.
    good: Option<Good>,
    /// What is wrong with the newest version, if it could not.
    faults: Vec<Problem>,
    /// What follows from `good` and the configuration; `None`: to be found out.
    checked: Option<Checked>,
    /// The last specs that nothing was wrong with.
    specs: BTreeMap<ServerName, Arc<Spec>>,
}

#[derive(Debug, PartialEq, Eq)]
struct Good {
    file: String,
    owner_uid: u32,
    vars: Variables,
}

#[derive(Debug)]
struct Checked {
    enabled: bool,
    account: Option<Account>,
    /// The account that the file names does not exist: it may, the next time.
    account_missing: bool,
    /// What is wrong for all of the user's instances.
    problems: Vec<Problem>,
    servers: BTreeMap<ServerName, Judged>,
}

/// One server that a user wants.
#[derive(Debug)]
struct Judged {
    pin: Option<Pin>,
    problems: Vec<Problem>,
    /// The ports that the last spec was made for, and what came of it.
    made: Option<(Given, Made)>,
}

/// What came of making a spec.
type Made = Result<Arc<Spec>, Vec<Problem>>;

impl Roster {
    /// Takes a newly read mcpsup.toml. A broken one changes nothing but [`problems`](Self::problems).
    ///
    /// Accounts are looked up again for everybody.
    pub fn set_config(&mut self, config: Result<Config, Vec<Problem>>) {
        match config {
            Ok(config) => {
                self.config = Some(Arc::new(config));
                self.config_problems.clear();
                self.users.values_mut().for_each(|user| user.checked = None);
            }
            Err(problems) => self.config_problems = problems,
        }
    }

    /// Takes what a look at env.d found. While the directory is unknown every file is as it was.
    pub fn set_files(&mut self, look: Look) {
        let known = look.directory.is_ok();
        self.directory_problem = look.directory.err();
        self.looked |= known;
        if known {
            self.users.retain(|user, _| look.files.contains_key(user));
        }
        for (name, state) in look.files {
            if known || self.users.contains_key(&name) {
                self.users.entry(name).or_default().take(state);
            }
        }
    }

    /// The last good mcpsup.toml.
    #[must_use]
    pub fn config(&self) -> Option<&Arc<Config>> {
        self.config.as_ref()
    }

    /// What is wrong and belongs to no instance: mcpsup.toml, an unreadable env.d.
    #[must_use]
    pub fn problems(&self) -> Vec<Problem> {
        self.config_problems.iter().chain(&self.directory_problem).cloned().collect()
    }

    /// What should be, for every instance that is known or has a port, sorted by name.
    ///
    /// Gives ports to those who have none, and keeps everybody else's.
    pub fn resolve(&mut self, ports: &mut Ports, host: &Host<'_>) -> BTreeMap<InstanceId, Listed> {
        let Some(config) = self.config.clone().filter(|_| self.looked) else {
            return self.nothing_known(ports);
        };
        let mut wanted = Vec::new();
        for (name, user) in &mut self.users {
            user.check(name, &config, host);
            user.ask(name, &config, ports, &mut wanted);
        }
        let answers = ports.assign(&config.ports, &wanted, host.blocked);
        let mut all = BTreeMap::new();
        for (id, answer) in answers {
            if let Some(user) = self.users.get_mut(&id.user) {
                let listed = user.list(&id, answer, &config, host, &self.constants, ports.door(&id));
                all.insert(id, listed);
            }
        }
        for (id, door) in ports.doors() {
            if !all.contains_key(id) {
                all.insert(id.clone(), self.left_over(id, door, &config));
            }
        }
        all
    }

    /// Nothing is known of any file, or of what to run: what runs goes on.
    fn nothing_known(&self, ports: &Ports) -> BTreeMap<InstanceId, Listed> {
        let is_wrong = !self.config_problems.is_empty() || self.directory_problem.is_some();
        let absent = if is_wrong { StateName::Refused } else { StateName::Down };
        let keep = |(id, door): (&InstanceId, u16)| {
            let path = self.config.as_ref().map_or(USUAL_PATH, |config| path_of(config, &id.server));
            (id.clone(), Listed::without_spec(Want::Keep, absent, Some(door), path))
        };
        ports.doors().map(keep).collect()
    }

    /// An instance that has a port, and that no file asks for.
    fn left_over(&self, id: &InstanceId, door: u16, config: &Config) -> Listed {
        let (want, absent) = match self.users.get(&id.user) {
            // There is a file that nobody has seen complete yet: it may ask for this.
            Some(user) if user.good.is_none() && config.servers.contains_key(&id.server) => {
                (Want::Keep, StateName::Down)
            }
            Some(_) if config.servers.contains_key(&id.server) => (Want::Never, StateName::Disabled),
            Some(_) | None => (Want::Never, StateName::Gone),
        };
        Listed::without_spec(want, absent, Some(door), path_of(config, &id.server))
    }
}

impl User {
    fn take(&mut self, state: FileState) {
        match state {
            FileState::Unchanged => {}
            FileState::Refused(problem) => self.faults = vec![problem],
            FileState::Read(EnvFile { name, bytes, owner_uid }) => match envfile::parse(&bytes, &name) {
                Ok(vars) => {
                    self.faults.clear();
                    let good = Good { file: name, owner_uid, vars };
                    if self.good.as_ref() != Some(&good) {
                        self.good = Some(good);
                        self.checked = None;
                    }
                }
                Err(problems) => self.faults = problems,
            },
        }
    }

    /// Finds out what follows from the last good file, unless that is known.
    fn check(&mut self, name: &UserName, config: &Config, host: &Host<'_>) {
        let is_known = self.checked.as_ref().is_some_and(|checked| !checked.account_missing);
        let Some(good) = self.good.as_ref().filter(|_| !is_known) else {
            return;
        };
        let had = |server: &ServerName| self.specs.contains_key(server);
        let mut settings = Settings::read(&good.file, good.owner_uid == 0, &good.vars, config, &had);
        let account = settings.account(name, host);
        let mut servers = BTreeMap::new();
        for server in std::mem::take(&mut settings.servers) {
            let described = config.servers.get(&server);
            let problems = described.map(|it| settings::credentials(it, &good.file, &good.vars));
            let judged = Judged {
                pin: settings.pins.remove(&server),
                problems: problems.unwrap_or_default(),
                made: None,
            };
            servers.insert(server, judged);
        }
        self.specs.retain(|server, _| settings.enabled && servers.contains_key(server));
        self.checked = Some(Checked {
            enabled: settings.enabled,
            account_missing: account.is_none() && settings.names_account(),
            account,
            problems: settings.problems,
            servers,
        });
    }

    /// Which instances of this user get ports, and which port is asked for.
    fn ask(
        &self,
        name: &UserName,
        config: &Config,
        ports: &Ports,
        wanted: &mut Vec<(InstanceId, Option<Pin>)>,
    ) {
        let id = |server: &ServerName| InstanceId { user: name.clone(), server: server.clone() };
        if let Some(checked) = &self.checked {
            for (server, judged) in &checked.servers {
                let id = id(server);
                let is_good = checked.problems.is_empty() && judged.problems.is_empty();
                // A file with something wrong in it moves nobody's door.
                let pin = judged.pin.clone().filter(|_| is_good || ports.door(&id).is_none());
                wanted.push((id, pin));
            }
        } else if !self.faults.is_empty() {
            // Nothing good was ever seen: it has at least what everybody has, and what it had.
            for (server, described) in &config.servers {
                let id = id(server);
                if described.for_all || ports.door(&id).is_some() {
                    wanted.push((id, None));
                }
            }
        }
    }

    fn list(
        &mut self,
        id: &InstanceId,
        answer: Result<Given, Problem>,
        config: &Config,
        host: &Host<'_>,
        constants: &Constants,
        door: Option<u16>,
    ) -> Listed {
        let path = path_of(config, &id.server);
        let mut problems = self.faults.clone();
        let refused = Listed::without_spec(Want::Keep, StateName::Refused, door, path);
        let (Some(good), Some(checked)) = (&self.good, &mut self.checked) else {
            problems.extend(answer.err());
            return Listed { problems, ..refused };
        };
        let owner_uid = Some(checked.account.as_ref().map_or(good.owner_uid, |account| account.uid));
        problems.extend_from_slice(&checked.problems);
        let made = match (checked.servers.get_mut(&id.server), config.servers.get(&id.server)) {
            (Some(judged), Some(server)) => {
                problems.extend_from_slice(&judged.problems);
                let may = checked.problems.is_empty() && judged.problems.is_empty() && checked.enabled;
                let old = self.specs.get(&id.server);
                match answer {
                    Ok(given) if may => {
                        let account = checked.account.as_ref();
                        let recipe =
                            spec::Recipe { id, server, file: &good.file, vars: &good.vars, account, given };
                        Some(judged.make(&recipe, config, host, constants, old))
                    }
                    Ok(_) => None,
                    Err(problem) => {
                        problems.push(problem);
                        None
                    }
                }
            }
            (_, _) => None,
        };
        let enabled = checked.enabled;
        match made {
            Some(Ok(spec)) => drop(self.specs.insert(id.server.clone(), spec)),
            Some(Err(more)) => problems.extend(more),
            None => {}
        }
        let (want, absent_because) = match self.specs.get(&id.server) {
            _ if !enabled => (Want::Never, StateName::Disabled),
            Some(spec) => (Want::Always(Arc::clone(spec)), StateName::Down),
            None => (Want::Keep, StateName::Refused),
        };
        Listed { want, owner_uid, absent_because, problems, ..refused }
    }
}

impl Judged {
    /// The spec for these ports: the one that was made before, where nothing changed.
    fn make(
        &mut self,
        recipe: &spec::Recipe<'_>,
        config: &Config,
        host: &Host<'_>,
        constants: &Constants,
        old: Option<&Arc<Spec>>,
    ) -> Result<Arc<Spec>, Vec<Problem>> {
        if let Some((given, made)) = &self.made
            && *given == recipe.given
        {
            return made.clone();
        }
        let made = recipe.make(config, host, constants).map(|spec| match old {
            Some(old) if **old == spec => Arc::clone(old),
            Some(_) | None => Arc::new(spec),
        });
        self.made = Some((recipe.given, made.clone()));
        made
    }
}

impl Listed {
    fn without_spec(want: Want, absent_because: StateName, door: Option<u16>, path: &str) -> Self {
        Self { want, door, path: path.to_owned(), owner_uid: None, absent_because, problems: Vec::new() }
    }
}

fn path_of<'a>(config: &'a Config, server: &ServerName) -> &'a str {
    config.servers.get(server).map_or(USUAL_PATH, |server| &server.path)
}
