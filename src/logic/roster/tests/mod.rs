//! The roster against files that come, break and go.

mod files;
mod settings;
mod specs;
mod worlds;

use std::cell::RefCell;
use std::time::Duration;

use super::*;
use crate::model::cage::Allow;
use crate::model::config::{
    self, Access, Credential, Daemon, Door, Limits, Log, Piece, Probe, Ready, Restart, Server, Stop,
    Template, Transport,
};
use crate::model::file::{EnvFile, FileState, SecretBytes};
use crate::model::spec::Home;
use crate::model::{Secret, Spec};

fn user(name: &str) -> UserName {
    name.parse().unwrap()
}

fn text(text: &str) -> Template {
    Template(vec![Piece::Text(text.into())])
}

/// A server that everybody has, learns its port in `NOTES_PORT` and wants `TOKEN=tok-…`.
fn server() -> Server {
    Server {
        command: vec![text("/opt/notes"), Template(vec![Piece::Port])],
        transport: Transport::Http,
        env: BTreeMap::from([("WHO".to_owned(), Template(vec![Piece::User]))]),
        for_all: true,
        credentials: BTreeMap::from([(
            "TOKEN".to_owned(),
            Credential {
                description: "notes token".to_owned(),
                pattern: Some("^tok-".to_owned()),
                required: true,
            },
        )]),
        port_env: Some("NOTES_PORT".to_owned()),
        path: "/mcp".to_owned(),
        working_dir: None,
        access: Access::Owner,
        secrets_in_argv: false,
        ready: Ready { probe: Probe::Mcp, timeout: Duration::from_secs(30) },
        stop: Stop { signal: 15, grace: Duration::from_secs(10) },
        restart: Restart {
            first_wait: Duration::from_millis(100),
            max_wait: Duration::from_secs(60),
            stable: Duration::from_secs(60),
        },
        allow: Allow::default(),
        limits: Limits::default(),
    }
}

fn config(servers: &[(&str, Server)]) -> Config {
    Config {
        ports: config::Ports {
            listen: [127, 0, 0, 1].into(),
            range: "4100-5999".parse().unwrap(),
            backend_range: "20000-29999".parse().unwrap(),
        },
        door: Door {
            wait: Duration::from_secs(30),
            max_body: 1 << 26,
            max_connections: 256,
            head_timeout: Duration::from_secs(60),
            hosts: Vec::new(),
            unix: false,
        },
        log: Log { max_size: 1 << 20, keep: 3, max_rate: 1 << 20 },
        daemon: Daemon::default(),
        servers: servers
            .iter()
            .map(|(name, server)| (name.parse().unwrap(), Arc::new(server.clone())))
            .collect(),
    }
}

/// A roster and all that is around it.
struct World {
    roster: Roster,
    ports: Ports,
    uids: Uids,
    accounts: RefCell<BTreeMap<String, Account>>,
    /// The name service is down.
    no_names: bool,
    is_root: bool,
    uid: u32,
    removing: BTreeSet<UserName>,
}

impl World {
    /// With one server, `notes`, and nobody yet.
    fn new() -> Self {
        let mut roster = Roster::default();
        roster.set_config(Ok(config(&[("notes", server())])));
        let mut world = Self {
            roster,
            ports: Ports::default(),
            uids: Uids::default(),
            accounts: RefCell::default(),
            no_names: false,
            is_root: true,
            uid: 0,
            removing: BTreeSet::new(),
        };
        world.files(&[]);
        world
    }

    fn account(&self, name: &str, uid: u32) {
        let home = format!("/home/{name}").into();
        let account = Account { name: name.to_owned(), uid, gid: uid, home, is_reserved: false };
        self.accounts.borrow_mut().insert(name.to_owned(), account);
    }

    /// What the name service says.
    fn accounts(&self) -> impl Fn(&str) -> Result<Option<Account>, String> + use<> {
        let (known, no_names) = (self.accounts.borrow().clone(), self.no_names);
        move |name| if no_names { Err("connection refused".to_owned()) } else { Ok(known.get(name).cloned()) }
    }

    /// Accounts are looked up again, those of everybody if `all`.
    fn look_up_again(&mut self, all: bool) -> BTreeSet<UserName> {
        let accounts = self.accounts();
        self.roster.look_up_again(all, &accounts)
    }

    /// env.d is found to hold exactly these; `None`: as it was.
    fn files(&mut self, files: &[(&str, Option<&str>)]) {
        self.look(true, files);
    }

    /// The same; or only these were looked at. Says who is changed.
    fn look(&mut self, whole: bool, files: &[(&str, Option<&str>)]) -> BTreeSet<UserName> {
        let state = |name: &str, text: Option<&str>| match text {
            None => FileState::Unchanged,
            Some(text) => FileState::Read(EnvFile {
                name: format!("env.d/{name}.env"),
                bytes: SecretBytes::new(text.as_bytes().to_vec()),
                owner_uid: self.uid,
            }),
        };
        let files = files.iter().map(|(name, text)| (user(name), state(name, *text))).collect();
        self.roster.set_files(Look { directory: Ok(()), whole, files, ignored: Vec::new(), again_at: None })
    }

    fn all(&mut self) -> BTreeMap<InstanceId, Listed> {
        self.of(&Whom::All)
    }

    fn of(&mut self, whom: &Whom) -> BTreeMap<InstanceId, Listed> {
        let accounts = self.accounts();
        let Self { roster, ports, uids, is_root, removing, .. } = self;
        roster.resolve(whom, ports, uids, &host(&accounts, *is_root, removing))
    }

    fn for_session(&self, id: &InstanceId, base: SpecId) -> Option<Spec> {
        let accounts = self.accounts();
        self.roster.for_session(id, base, &host(&accounts, self.is_root, &self.removing))
    }

    fn one(&mut self, instance: &str) -> Listed {
        let (name, server) = instance.split_once('/').unwrap_or((instance, "notes"));
        let id = InstanceId::new(user(name), server.parse().unwrap());
        self.all().remove(&id).unwrap_or_else(|| panic!("{instance} is not listed"))
    }

    fn alice(&mut self, text: &str) -> Listed {
        self.files(&[("alice", Some(text))]);
        self.one("alice")
    }
}

fn host<'a>(accounts: Accounts<'a>, is_root: bool, removing: &'a BTreeSet<UserName>) -> Host<'a> {
    static NONE: BTreeSet<u16> = BTreeSet::new();
    Host {
        blocked: &NONE,
        accounts,
        uids: Facts {
            named: &|uid| Ok((uid == 65_537).then(|| "the group devs".to_owned())),
            is_used: &|_, _| false,
        },
        state: Path::new("/var/lib/mcpsup"),
        runtime: Path::new("/run/mcpsup"),
        is_root,
        digest_key: &[7; 32],
        cage: &|_, _| Arc::default(),
        removing,
    }
}

fn spec(listed: &Listed) -> Arc<Spec> {
    match &listed.want {
        Want::Always(spec) => Arc::clone(spec),
        other @ (Want::Never | Want::Keep) => panic!("{other:?}: {:?}", listed.problems),
    }
}

/// The environment of alice's notes.
fn env(listed: &Listed) -> BTreeMap<String, String> {
    env_of("alice", listed)
}

fn env_of(name: &str, listed: &Listed) -> BTreeMap<String, String> {
    let id = InstanceId::new(user(name), "notes".parse().unwrap());
    let home = Home::of(&id, Path::new("/var/lib/mcpsup"), Path::new("/run/mcpsup"));
    let spec = spec(listed);
    spec.environment(&home).into_iter().map(|(name, value)| (name.to_owned(), value.into_owned())).collect()
}

fn said(listed: &Listed) -> Vec<String> {
    listed.problems.iter().map(ToString::to_string).collect()
}

const GOOD: &str = "TOKEN=tok-1234567\n";
