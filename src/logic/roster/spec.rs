//! What one instance's process is given, made from nothing (PRODUCT §8).

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use crate::logic::ports::Given;
use crate::logic::template::{Holes, fill};
use crate::model::cage::Tenancy;
use crate::model::config::{Server, Template, Transport};
use crate::model::env::Variables;
use crate::model::spec::{Account, Home};
use crate::model::{Config, InstanceId, Problem, Secret, Spec, SpecId};

use super::{Host, digest, settings};

/// A value of the user's file this long is a secret (PRODUCT §4). Shorter ones, `true` or `8080`,
/// would black out half of every log.
const SECRET_FROM: usize = 8;

/// unix(7)
const LONGEST_SOCKET: usize = 107;

/// What the last good spec of an instance was made of, where its sessions have processes of their
/// own: theirs are made of the same.
#[derive(Debug)]
pub(super) struct Mould {
    /// The spec that was made of it.
    pub(super) of: SpecId,
    config: Arc<Config>,
    file: String,
    vars: Variables,
    account: Option<Arc<Account>>,
    tenancy: Tenancy,
    given: Given,
}

impl Mould {
    pub(super) fn new(recipe: &Recipe<'_>, of: SpecId, config: &Arc<Config>) -> Self {
        Self {
            of,
            config: Arc::clone(config),
            file: recipe.file.to_owned(),
            vars: recipe.vars.clone(),
            account: recipe.account.cloned(),
            tenancy: recipe.tenancy,
            given: recipe.given,
        }
    }

    /// The spec of a session's own process.
    pub(super) fn make(&self, id: &InstanceId, host: &Host<'_>) -> Option<Spec> {
        let server = self.config.servers.get(&id.server)?;
        let account = self.account.as_ref();
        let (file, vars, tenancy, given) = (&*self.file, &self.vars, self.tenancy, self.given);
        Recipe { id, server, file, vars, account, tenancy, given }.make(&self.config, host).ok()
    }
}

/// What a spec is made of.
pub(super) struct Recipe<'a> {
    pub(super) id: &'a InstanceId,
    pub(super) server: &'a Arc<Server>,
    pub(super) file: &'a str,
    pub(super) vars: &'a Variables,
    pub(super) account: Option<&'a Arc<Account>>,
    pub(super) tenancy: Tenancy,
    pub(super) given: Given,
}

/// Fills templates and gathers what was missing.
struct Filler<'a> {
    holes: Holes<'a>,
    file: &'a str,
    problems: Vec<Problem>,
}

impl Filler<'_> {
    fn fill(&mut self, template: &Template) -> Secret {
        fill(template, &self.holes).unwrap_or_else(|missing| {
            let problem = Problem::new(self.file, format!("{missing}; add it"));
            if !self.problems.contains(&problem) {
                self.problems.push(problem);
            }
            Secret::default()
        })
    }
}

impl Recipe<'_> {
    /// The spec, or every variable that the server's templates ask for in vain.
    pub(super) fn make(&self, config: &Config, host: &Host<'_>) -> Result<Spec, Vec<Problem>> {
        let Self { id, server, .. } = self;
        let home = Home::of(id, host.state, host.runtime);
        let holes = Holes {
            user: &id.user,
            server: &id.server,
            port: self.given.backend,
            session: id.session,
            state_dir: &home.state_dir,
            runtime_dir: &home.runtime_dir,
            vars: self.vars,
        };
        let mut filler = Filler { holes, file: self.file, problems: Vec::new() };
        let mut command = server.command.iter().map(|part| filler.fill(part));
        let program = command.next().map(|program| program.shared()).unwrap_or_default();
        let args = command.collect();
        let working_dir = server.working_dir.as_ref();
        let working_dir = working_dir.map(|dir| home.state_dir.join(filler.fill(dir).reveal()).into());
        let env = self.environment(config, &mut filler);
        let mut problems = filler.problems;
        let socket = home.socket();
        if server.has_socket() && socket.as_os_str().len() > LONGEST_SOCKET {
            let text = format!(
                "{} is longer than the {LONGEST_SOCKET} bytes that a socket's path may have, so {{socket}} is of no use to {id}",
                socket.display()
            );
            problems.push(Problem::new(self.file, text));
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        let backend = match server.transport {
            Transport::Http if !server.has_socket() => self.given.backend,
            Transport::Http | Transport::Stdio(_) => None,
        };
        let mut spec = Spec {
            id: SpecId([0; 32]),
            server: Arc::clone(server),
            program,
            args,
            env,
            working_dir,
            account: self.account.map(|account| self.at_home(account)),
            cage: (host.cage)(&id.server, self.tenancy),
            backend,
            secrets: self.secrets(config),
        };
        spec.id = digest::of(&spec, &home, host.digest_key);
        Ok(spec)
    }

    /// What is in the home of an account that several users share, each could make for the others: none
    /// of them is at home there.
    fn at_home(&self, account: &Arc<Account>) -> Arc<Account> {
        match self.tenancy {
            Tenancy::Alone | Tenancy::Root => Arc::clone(account),
            Tenancy::Shared => Arc::new(Account { home: PathBuf::new(), ..(**account).clone() }),
        }
    }

    /// What weighs more than what everybody has: the server's, the user's; and last the port, which
    /// nobody may get wrong.
    fn environment(&self, config: &Config, filler: &mut Filler<'_>) -> Box<[(Box<str>, Secret)]> {
        let mut env: BTreeMap<&str, Secret> = BTreeMap::new();
        for (name, value) in &self.server.env {
            env.insert(name, filler.fill(value));
        }
        for variable in self.vars.0.iter().filter(|variable| !settings::is_ours(&variable.name, config)) {
            env.insert(&variable.name, variable.value.clone());
        }
        if let (Some(name), Some(backend)) = (&self.server.port_env, self.given.backend) {
            env.insert(name, Secret::new(backend.to_string()));
        }
        env.into_iter().map(|(name, value)| (name.into(), value)).collect()
    }

    /// The whole file is handed over, so any server's credential in it is one here.
    fn secrets(&self, config: &Config) -> Box<[Secret]> {
        let declared =
            |name: &str| config.servers.values().any(|server| server.credentials.contains_key(name));
        let is_secret = |name: &str, value: &str| {
            !settings::is_ours(name, config)
                && (value.len() >= SECRET_FROM || (declared(name) && !value.is_empty()))
        };
        let vars = self.vars.0.iter();
        vars.filter(|it| is_secret(&it.name, it.value.reveal())).map(|it| it.value.clone()).collect()
    }
}
