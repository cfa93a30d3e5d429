//! One user's file over time: the last good version, what follows from it, and what is wrong
//! with the newest.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::logic::envfile;
use crate::logic::instance::Want;
use crate::logic::ports::Pin;
use crate::logic::ports::{Asked, Given, Ports};
use crate::logic::uids::Uids;
use crate::model::cage::Tenancy;
use crate::model::env::Variables;
use crate::model::file::{EnvFile, FileState};
use crate::model::spec::Account;
use crate::model::status::StateName;
use crate::model::{Config, InstanceId, Problem, ServerName, Spec, SpecId, UserName};

use super::settings::{self, Settings};
use super::spec::{self, Mould};
use super::{Accounts, Host, Listed};

/// One user who has a file.
#[derive(Debug, Default)]
pub(super) struct User {
    /// The last version that could be read.
    pub(super) good: Option<Good>,
    /// What is wrong with the newest version, if it could not.
    faults: Box<[Problem]>,
    /// What follows from `good` and the configuration; `None`: to be found out.
    checked: Option<Checked>,
    /// The last specs that nothing was wrong with. A list, as is everything here that has one
    /// element per server: a map makes room for eleven, and nearly everybody has one.
    specs: Vec<(ServerName, Arc<Spec>)>,
    /// What those were made of whose sessions have processes of their own.
    moulds: Vec<(ServerName, Box<Mould>)>,
}

/// A version of a file that could be read.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Good {
    file: Box<str>,
    owner_uid: u32,
    vars: Variables,
}

/// What follows from a good version.
#[derive(Debug)]
struct Checked {
    enabled: bool,
    account: Option<Arc<Account>>,
    lookup: Lookup,
    /// What is wrong for all of the user's instances.
    problems: Box<[Problem]>,
    servers: Box<[(ServerName, Judged)]>,
}

/// What became of looking for an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lookup {
    /// It was found, or none is needed.
    Over,
    /// There is none of the user's name: processes run as a reserved uid.
    None,
    /// The file names one that does not exist, or the name service did not say. Nothing is started.
    Needed,
}

/// A spec, or what is missing for it.
type Made = Result<Arc<Spec>, Box<[Problem]>>;

/// One server that a user wants.
#[derive(Debug)]
struct Judged {
    pin: Option<Box<Pin>>,
    problems: Box<[Problem]>,
    /// The ports and the account that the last spec was made for, and what came of it.
    made: Option<(Given, Tenancy, Made)>,
}

impl User {
    /// What is wrong with the file as a whole.
    pub(super) fn problems(&self) -> impl Iterator<Item = &Problem> {
        self.faults.iter().chain(self.checked.iter().flat_map(|checked| &*checked.problems))
    }

    /// The uid by which they are known on this host, as far as the file tells.
    pub(super) fn owner_uid(&self) -> Option<u32> {
        let account = self.checked.as_ref().and_then(|checked| checked.account.as_ref());
        account.map(|account| account.uid).or(self.good.as_ref().map(|good| good.owner_uid))
    }

    /// The uid of the account that their servers run as, if it could be another's too: root's is said
    /// elsewhere, and a reserved one is nobody else's.
    pub(super) fn account_uid(&self) -> Option<u32> {
        let account = self.checked.as_ref()?.account.as_ref()?;
        (account.uid != 0 && !account.is_reserved).then_some(account.uid)
    }

    /// Forgets what a server last ran with, so that it is not started like that again.
    pub(super) fn forget(&mut self, server: &ServerName) {
        self.specs.retain(|(name, _)| name != server);
        self.moulds.retain(|(name, _)| name != server);
    }

    /// What follows from the file is found out again: the configuration or the host changed.
    pub(super) fn forget_conclusions(&mut self) {
        self.checked = None;
    }

    /// Takes what became of the file; true if that changes anything. A version that cannot be read
    /// leaves the last good one.
    pub(super) fn take(&mut self, state: FileState) -> bool {
        let faults = match state {
            FileState::Unchanged | FileState::Sealed(..) => return false,
            FileState::Refused(problem) => vec![problem],
            FileState::Read(EnvFile { name, bytes, owner_uid }) => match envfile::parse(&bytes, &name) {
                Ok(vars) => {
                    let good = Good { file: name.into(), owner_uid, vars };
                    if self.good.as_ref() != Some(&good) {
                        self.good = Some(good);
                        self.checked = None;
                    }
                    Vec::new()
                }
                Err(problems) => problems,
            },
        };
        let is_news = *self.faults != *faults || (self.good.is_some() && self.checked.is_none());
        self.faults = faults.into();
        is_news
    }

    /// True if the account that was looked for may be there now; `all`: also one that nobody named.
    pub(super) fn looks_up_again(&self, name: &UserName, all: bool, accounts: Accounts<'_>) -> bool {
        match self.checked.as_ref().map(|checked| checked.lookup) {
            Some(Lookup::Over) | None => false,
            Some(Lookup::Needed) => true,
            Some(Lookup::None) => all && accounts(name.as_str()) != Ok(None),
        }
    }

    /// Finds out what follows from the last good file, unless that is known.
    pub(super) fn check(&mut self, name: &UserName, config: &Config, uids: &mut Uids, host: &Host<'_>) {
        let Some(good) = self.good.as_ref().filter(|_| self.checked.is_none()) else {
            return;
        };
        let had = |server: &ServerName| of(&self.specs, server).is_some();
        let mut settings = Settings::read(&good.file, good.owner_uid == 0, &good.vars, config, &had);
        let (account, lookup) = settings.account(name, config.daemon.uid_range, uids, host);
        let account = account.map(Arc::new);
        let wanted = std::mem::take(&mut settings.servers);
        let mut servers = Vec::with_capacity(wanted.len());
        for server in wanted {
            let described = config.servers.get(&server);
            let problems = described.map(|it| settings::credentials(it, &good.file, &good.vars));
            let judged = Judged {
                pin: settings.pins.remove(&server).map(Box::new),
                problems: problems.unwrap_or_default().into(),
                made: None,
            };
            servers.push((server, judged));
        }
        self.specs.retain(|(server, _)| settings.enabled && of(&servers, server).is_some());
        self.moulds.retain(|(server, _)| of(&self.specs, server).is_some());
        self.checked = Some(Checked {
            enabled: settings.enabled,
            account,
            lookup,
            problems: settings.problems.into(),
            servers: servers.into(),
        });
    }

    /// Which instances of this user get ports, and which port is asked for.
    pub(super) fn ask(&self, name: &UserName, config: &Config, ports: &Ports, wanted: &mut Vec<Asked>) {
        let id = |server: &ServerName| InstanceId::new(name.clone(), server.clone());
        if let Some(checked) = &self.checked {
            for (server, judged) in &*checked.servers {
                let id = id(server);
                let is_good = checked.problems.is_empty() && judged.problems.is_empty();
                // A file with something wrong in it moves nobody's door.
                let pin = judged.pin.as_deref().cloned().filter(|_| is_good || ports.door(&id).is_none());
                let listens = config.servers.get(server).is_some_and(|server| server.listens());
                wanted.push(Asked { id, pin, listens });
            }
        } else if !self.faults.is_empty() {
            // Nothing good was ever seen: it has at least what everybody has, and what it had.
            for (server, described) in &config.servers {
                let id = id(server);
                if described.for_all || ports.door(&id).is_some() {
                    wanted.push(Asked { id, pin: None, listens: described.listens() });
                }
            }
        }
    }

    /// What is to be done about one of the instances that were [asked](Self::ask) for.
    pub(super) fn list(
        &mut self,
        id: &InstanceId,
        answer: Result<Given, Problem>,
        config: &Arc<Config>,
        host: &Host<'_>,
        door: Option<u16>,
        shared: &BTreeSet<u32>,
    ) -> Listed {
        let mut problems = self.faults.to_vec();
        let refused = Listed::without_spec(Want::Keep, StateName::Refused, door, id, Some(config));
        let (Some(good), Some(checked)) = (&self.good, &mut self.checked) else {
            problems.extend(answer.err());
            return Listed { problems, ..refused };
        };
        let owner_uid = Some(checked.account.as_ref().map_or(good.owner_uid, |account| account.uid));
        problems.extend_from_slice(&checked.problems);
        let made = match (of_mut(&mut checked.servers, &id.server), config.servers.get(&id.server)) {
            (Some(judged), Some(server)) => {
                problems.extend_from_slice(&judged.problems);
                let may = checked.problems.is_empty() && judged.problems.is_empty() && checked.enabled;
                let old = of(&self.specs, &id.server);
                match answer {
                    Ok(given) if may => {
                        let account = checked.account.as_ref();
                        let tenancy = match account.map(|account| account.uid) {
                            Some(0) => Tenancy::Root,
                            Some(uid) if !shared.contains(&uid) => Tenancy::Alone,
                            Some(_) | None => Tenancy::Shared,
                        };
                        let (file, vars) = (&*good.file, &good.vars);
                        let recipe = spec::Recipe { id, server, file, vars, account, tenancy, given };
                        let made = judged.make(&recipe, config, host, old);
                        if let Ok(spec) = &made
                            && server.has_isolated_sessions()
                            && of(&self.moulds, &id.server).is_none_or(|mould| mould.of != spec.id)
                        {
                            let mould = Box::new(Mould::new(&recipe, spec.id, config));
                            self.moulds.retain(|(name, _)| *name != id.server);
                            self.moulds.push((id.server.clone(), mould));
                        }
                        Some(made)
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
            Some(Ok(spec)) => self.keep(&id.server, spec),
            Some(Err(more)) => problems.extend(more),
            None => {}
        }
        let (want, absent_because) = match of(&self.specs, &id.server) {
            _ if !enabled => (Want::Never, StateName::Disabled),
            Some(spec) => (Want::Always(Arc::clone(spec)), StateName::Down),
            None => (Want::Keep, StateName::Refused),
        };
        Listed { want, owner_uid, absent_because, problems, ..refused }
    }

    /// The spec of a session's own process, made of what `base`, its instance's spec, was made of.
    pub(super) fn for_session(&self, id: &InstanceId, base: SpecId, host: &Host<'_>) -> Option<Spec> {
        of(&self.moulds, &id.server).filter(|mould| mould.of == base)?.make(id, host)
    }

    fn keep(&mut self, server: &ServerName, spec: Arc<Spec>) {
        if let Some(kept) = of_mut(&mut self.specs, server) {
            *kept = spec;
        } else {
            self.specs.reserve_exact(1);
            self.specs.push((server.clone(), spec));
        }
    }
}

fn of<'a, T>(list: &'a [(ServerName, T)], server: &ServerName) -> Option<&'a T> {
    list.iter().find(|(name, _)| name == server).map(|(_, of_it)| of_it)
}

fn of_mut<'a, T>(list: &'a mut [(ServerName, T)], server: &ServerName) -> Option<&'a mut T> {
    list.iter_mut().find(|(name, _)| name == server).map(|(_, of_it)| of_it)
}

impl Judged {
    /// The spec for these ports: the one that was made before, where nothing changed.
    fn make(
        &mut self,
        recipe: &spec::Recipe<'_>,
        config: &Config,
        host: &Host<'_>,
        old: Option<&Arc<Spec>>,
    ) -> Made {
        if let Some((given, tenancy, made)) = &self.made
            && (*given, *tenancy) == (recipe.given, recipe.tenancy)
        {
            return made.clone();
        }
        let made = recipe.make(config, host).map_err(Vec::into_boxed_slice).map(|spec| match old {
            Some(old) if **old == spec => Arc::clone(old),
            Some(_) | None => Arc::new(spec),
        });
        self.made = Some((recipe.given, recipe.tenancy, made.clone()));
        made
    }
}
