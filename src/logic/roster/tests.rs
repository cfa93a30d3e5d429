use std::cell::RefCell;
use std::time::Duration;

use zeroize::Zeroizing;

use super::*;
use crate::model::Secret;
use crate::model::config::{
    self, Containment, Credential, Daemon, Door, Limits, Log, Piece, Probe, Ready, Restart, Server, Stop,
    Template, Transport,
};

fn user(name: &str) -> UserName {
    name.parse().unwrap()
}

fn text(text: &str) -> Template {
    Template(vec![Piece::Text(text.to_owned())])
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
        secrets_in_argv: false,
        ready: Ready { probe: Probe::Mcp, timeout: Duration::from_secs(30) },
        stop: Stop { signal: 15, grace: Duration::from_secs(10) },
        restart: Restart {
            first_wait: Duration::from_millis(100),
            max_wait: Duration::from_secs(60),
            stable: Duration::from_secs(60),
        },
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
        },
        log: Log { max_size: 1 << 20, keep: 3, max_rate: 1 << 20 },
        daemon: Daemon { containment: Containment::Auto, cgroup_root: None },
        servers: servers.iter().map(|(name, server)| (name.parse().unwrap(), server.clone())).collect(),
    }
}

/// A roster and all that is around it.
struct World {
    roster: Roster,
    ports: Ports,
    accounts: RefCell<BTreeMap<String, Account>>,
    is_root: bool,
    uid: u32,
}

impl World {
    /// With one server, `notes`, and nobody yet.
    fn new() -> Self {
        let mut roster = Roster::default();
        roster.set_config(Ok(config(&[("notes", server())])));
        let mut world =
            Self { roster, ports: Ports::default(), accounts: RefCell::default(), is_root: true, uid: 0 };
        world.files(&[]);
        world
    }

    fn account(&self, name: &str, uid: u32) {
        let account = Account { name: name.to_owned(), uid, gid: uid, home: format!("/home/{name}").into() };
        self.accounts.borrow_mut().insert(name.to_owned(), account);
    }

    /// env.d is found to hold exactly these; `None`: as it was.
    fn files(&mut self, files: &[(&str, Option<&str>)]) {
        let state = |name: &str, text: Option<&str>| match text {
            None => FileState::Unchanged,
            Some(text) => FileState::Read(EnvFile {
                name: format!("env.d/{name}.env"),
                bytes: Zeroizing::new(text.as_bytes().to_vec()),
                owner_uid: self.uid,
            }),
        };
        let files = files.iter().map(|(name, text)| (user(name), state(name, *text))).collect();
        self.roster.set_files(Look { directory: Ok(()), files, ignored: Vec::new(), again_at: None });
    }

    fn all(&mut self) -> BTreeMap<InstanceId, Listed> {
        let accounts = |name: &str| self.accounts.borrow().get(name).cloned();
        let host = Host {
            blocked: &BTreeSet::new(),
            accounts: &accounts,
            state: Path::new("/var/lib/mcpsup"),
            runtime: Path::new("/run/mcpsup"),
            is_root: self.is_root,
            digest_key: &[7; 32],
        };
        self.roster.resolve(&mut self.ports, &host)
    }

    fn one(&mut self, instance: &str) -> Listed {
        let (name, server) = instance.split_once('/').unwrap_or((instance, "notes"));
        let id = InstanceId { user: user(name), server: server.parse().unwrap() };
        self.all().remove(&id).unwrap_or_else(|| panic!("{instance} is not listed"))
    }

    fn alice(&mut self, text: &str) -> Listed {
        self.files(&[("alice", Some(text))]);
        self.one("alice")
    }
}

fn spec(listed: &Listed) -> Arc<Spec> {
    match &listed.want {
        Want::Always(spec) => Arc::clone(spec),
        other @ (Want::Never | Want::Keep) => panic!("{other:?}: {:?}", listed.problems),
    }
}

fn env(listed: &Listed) -> BTreeMap<String, String> {
    spec(listed).env.iter().map(|(name, value)| (name.to_string(), value.reveal().to_owned())).collect()
}

fn said(listed: &Listed) -> Vec<String> {
    listed.problems.iter().map(ToString::to_string).collect()
}

const GOOD: &str = "TOKEN=tok-1234567\n";

#[test]
fn a_process_gets_its_environment_from_nothing_and_its_port_last() {
    let mut world = World::new();
    world.account("alice", 1001);
    let listed = world.alice("TOKEN=tok-1234567\nNOTES_PORT=4242\nMCPSUP_ENABLED=true\nWHO=me\nSHORT=abc\n");
    let spec = spec(&listed);
    assert_eq!((listed.door, spec.backend, listed.owner_uid), (Some(4242), 20000, Some(1001)));
    let expected = [
        ("HOME", "/home/alice"),
        ("LANG", "C.UTF-8"),
        ("LOGNAME", "alice"),
        ("NOTES_PORT", "20000"),
        ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
        ("SHORT", "abc"),
        ("TMPDIR", "/var/lib/mcpsup/instances/alice/notes/tmp"),
        ("TOKEN", "tok-1234567"),
        ("USER", "alice"),
        ("WHO", "me"),
    ];
    let is: Vec<_> = spec.env.iter().map(|(name, value)| (&**name, value.reveal())).collect();
    assert_eq!(is, expected);
    assert_eq!((&*spec.program, spec.args[0].reveal()), ("/opt/notes", "20000"));
    assert_eq!(spec.working_dir, Path::new("/var/lib/mcpsup/instances/alice/notes"));
    assert_eq!(spec.runtime_dir, Path::new("/run/mcpsup/instances/alice/notes"));
    let secrets: Vec<_> = spec.secrets.iter().map(Secret::reveal).collect();
    assert_eq!(secrets, ["tok-1234567"]);
}

#[test]
fn a_declared_credential_is_secret_however_short_and_a_setting_never_is() {
    let mut world = World::new();
    let listed = world.alice("TOKEN=tok-\nMCPSUP_SERVERS=notes,notes\nEMPTY=\nOTHER=abcdefgh\n");
    let spec = spec(&listed);
    let secrets: Vec<_> = spec.secrets.iter().map(Secret::reveal).collect();
    assert_eq!(secrets, ["tok-", "abcdefgh"]);
}

#[test]
fn a_file_that_breaks_leaves_its_last_good_version_wanted_and_is_named() {
    let mut world = World::new();
    let good = world.alice(GOOD);
    let broken = world.alice("TOKEN=tok-1234567\nnonsense\n");
    assert_eq!((&broken.want, broken.door), (&good.want, good.door));
    assert_eq!(said(&broken), ["env.d/alice.env:2: expected NAME=value"]);
    let invalid = world.alice("\nTOKEN=wrong-secret\n");
    assert_eq!(invalid.want, good.want);
    assert_eq!(
        said(&invalid),
        ["env.d/alice.env:2: TOKEN (notes token) does not match the pattern that mcpsup.toml gives: ^tok-"]
    );
    assert_eq!(said(&world.alice("")), ["env.d/alice.env: TOKEN is required (notes token); add TOKEN=…"]);
    let mended = world.alice("TOKEN=tok-7654321\n");
    assert!(mended.problems.is_empty());
    assert_ne!(spec(&mended).id, spec(&good).id);
}

#[test]
fn a_file_refused_leaves_its_last_good_version_wanted() {
    let mut world = World::new();
    let good = world.alice(GOOD);
    let problem =
        Problem::new("env.d/alice.env", "may be read by others (mode 0644); chmod 600 env.d/alice.env");
    let files = BTreeMap::from([(user("alice"), FileState::Refused(problem.clone()))]);
    world.roster.set_files(Look { directory: Ok(()), files, ignored: Vec::new(), again_at: None });
    let refused = world.one("alice");
    assert_eq!((refused.want, refused.problems), (good.want, vec![problem]));
}

#[test]
fn where_no_good_version_is_known_what_runs_goes_on_and_nothing_is_started() {
    for broken in ["nonsense\n", "TOKEN=wrong-secret\n", "TOKEN=tok-1\nMCPSUP_ENABLED=perhaps\n"] {
        let mut world = World::new();
        let listed = world.alice(broken);
        assert_eq!(
            (listed.want.clone(), listed.absent_because),
            (Want::Keep, StateName::Refused),
            "{broken}"
        );
        assert_eq!((listed.door, listed.problems.len()), (Some(4100), 1), "{broken}");
        assert!(!said(&listed)[0].contains("perhaps") && !said(&listed)[0].contains("wrong-secret"));
    }
}

#[test]
fn the_same_file_again_changes_nothing() {
    let mut world = World::new();
    let first = world.alice(GOOD);
    let second = world.alice(&format!("# the same\n\n{GOOD}").replace("# the same\n\n", ""));
    assert!(Arc::ptr_eq(&spec(&first), &spec(&second)));
    world.roster.set_config(Ok(config(&[("notes", server())])));
    assert!(Arc::ptr_eq(&spec(&first), &spec(&world.one("alice"))));
    let reordered = world.alice(&format!("\n\n{GOOD}"));
    assert_eq!(spec(&first).id, spec(&reordered).id);
}

#[test]
fn a_deleted_file_stops_its_user_and_keeps_the_port() {
    let mut world = World::new();
    world.files(&[("alice", Some(GOOD)), ("bob", Some(GOOD))]);
    let before = world.one("bob");
    world.files(&[("alice", None)]);
    let gone = world.one("bob");
    assert_eq!((&gone.want, gone.absent_because, gone.door), (&Want::Never, StateName::Gone, before.door));
    world.files(&[("alice", None), ("bob", Some(GOOD))]);
    let back = world.one("bob");
    assert_eq!((spec(&back).id, back.door), (spec(&before).id, before.door));
}

#[test]
fn a_directory_that_cannot_be_read_changes_nothing() {
    let unknown = || Look {
        directory: Err(Problem::new("env.d", "is not there")),
        files: BTreeMap::new(),
        ignored: Vec::new(),
        again_at: None,
    };
    let mut world = World::new();
    let before = world.alice(GOOD);
    world.roster.set_files(unknown());
    assert_eq!(world.one("alice"), before);
    assert_eq!(world.roster.problems().len(), 1);
    // A daemon that has just begun knows only who has a port.
    world.roster = Roster::default();
    world.roster.set_config(Ok(config(&[("notes", server())])));
    assert_eq!((world.one("alice").want, world.one("alice").absent_because), (Want::Keep, StateName::Down));
    world.roster.set_files(unknown());
    assert_eq!(
        (world.one("alice").want, world.one("alice").absent_because),
        (Want::Keep, StateName::Refused)
    );
}

#[test]
fn a_file_still_being_written_stops_nobody() {
    let mut world = World::new();
    world.alice(GOOD);
    world.roster = Roster::default();
    world.roster.set_config(Ok(config(&[("notes", server())])));
    world.files(&[("alice", None), ("newcomer", None)]);
    assert_eq!(world.one("alice").want, Want::Keep);
    assert_eq!(world.all().len(), 1, "a newcomer has no port before it is known which");
}

#[test]
fn a_broken_mcpsup_toml_touches_nobody() {
    let mut world = World::new();
    let before = world.alice(GOOD);
    world.roster.set_config(Err(vec![Problem::new("mcpsup.toml", "nonsense")]));
    assert_eq!(world.one("alice"), before);
    assert_eq!(world.roster.problems()[0].to_string(), "mcpsup.toml: nonsense");
    world.roster = Roster::default();
    world.files(&[("alice", Some(GOOD))]);
    world.roster.set_config(Err(vec![Problem::new("mcpsup.toml", "nonsense")]));
    let listed = world.one("alice");
    assert_eq!(
        (listed.want, listed.absent_because, listed.door),
        (Want::Keep, StateName::Refused, before.door)
    );
}

#[test]
fn a_server_taken_out_of_mcpsup_toml_is_not_wanted() {
    let mut world = World::new();
    world.alice(GOOD);
    world.roster.set_config(Ok(config(&[("other", server())])));
    let all = world.all();
    let wants: Vec<_> = all.iter().map(|(id, listed)| (id.to_string(), listed.absent_because)).collect();
    assert_eq!(
        wants,
        [("alice/notes".to_owned(), StateName::Gone), ("alice/other".to_owned(), StateName::Down)]
    );
    assert_eq!(world.one("alice").want, Want::Never);
}

#[test]
fn a_change_of_what_the_process_cannot_notice_restarts_nobody() {
    let mut world = World::new();
    let before = world.alice(GOOD);
    let mut changed = server();
    changed.stop.grace = Duration::from_secs(1);
    changed.ready.probe = Probe::Tcp;
    changed.path = "/other".to_owned();
    world.roster.set_config(Ok(config(&[("notes", changed.clone())])));
    let after = world.one("alice");
    assert_eq!((spec(&after).id, spec(&after).plan.stop.grace), (spec(&before).id, Duration::from_secs(1)));
    assert_eq!(after.path, "/other");
    changed.limits.memory = Some(1);
    world.roster.set_config(Ok(config(&[("notes", changed)])));
    assert_ne!(spec(&world.one("alice")).id, spec(&before).id);
}

#[test]
fn switched_off_is_neither_wanted_nor_forgotten() {
    let mut world = World::new();
    let before = world.alice(GOOD);
    let off = world.alice("TOKEN=tok-1234567\nMCPSUP_ENABLED=false\n");
    assert_eq!((&off.want, off.absent_because, off.door), (&Want::Never, StateName::Disabled, before.door));
    assert_eq!(world.alice("MCPSUP_ENABLED=false\n").want, Want::Never);
    assert_eq!(spec(&world.alice(GOOD)).id, spec(&before).id);
}

#[test]
fn an_optional_server_is_for_those_who_list_it() {
    let mut world = World::new();
    let optional = Server { for_all: false, port_env: None, ..server() };
    let two = config(&[("notes", server()), ("git-hub", optional)]);
    world.roster.set_config(Ok(two));
    world.files(&[
        ("alice", Some(GOOD)),
        ("bob", Some("TOKEN=tok-1\nMCPSUP_SERVERS=git-hub\nMCPSUP_PORT_GIT_HUB=4500\n")),
    ]);
    let names: Vec<_> = world.all().keys().map(ToString::to_string).collect();
    assert_eq!(names, ["alice/notes", "bob/git-hub", "bob/notes"]);
    let listed = world.one("bob/git-hub");
    assert_eq!(listed.door, Some(4500));
    // A slip of the pen takes nothing away.
    world.files(&[("bob", Some("TOKEN=tok-1\nMCPSUP_SERVERS=gith-hub\n"))]);
    let slip = world.one("bob/git-hub");
    assert_eq!(slip.want, listed.want);
    assert_eq!(
        said(&slip),
        [
            "env.d/bob.env:2: MCPSUP_SERVERS lists, as number 1, a server that is not in mcpsup.toml; did you mean git-hub?"
        ]
    );
    world.files(&[("bob", Some("TOKEN=tok-1\n"))]);
    let unlisted = world.one("bob/git-hub");
    assert_eq!(
        (unlisted.want, unlisted.absent_because, unlisted.door),
        (Want::Never, StateName::Disabled, Some(4500))
    );
}

#[test]
fn what_is_wrong_with_one_server_leaves_the_users_other_server_alone() {
    let mut world = World::new();
    let other = Server { credentials: BTreeMap::new(), port_env: None, ..server() };
    world.roster.set_config(Ok(config(&[("notes", server()), ("other", other)])));
    world.files(&[("alice", Some("A=1\n"))]);
    assert_eq!(world.one("alice/notes").want, Want::Keep);
    assert!(world.one("alice/other").problems.is_empty());
    spec(&world.one("alice/other"));
}

#[test]
fn settings_that_cannot_be_followed_are_named_with_their_mend_and_without_their_value() {
    for (line, problem) in [
        ("MCPSUP_PROT=4200", "MCPSUP_PROT is no setting of mcpsup; did you mean MCPSUP_PORT?"),
        (
            "MCPSUP_PORT_NOTSE=4200",
            "MCPSUP_PORT_NOTSE is no setting of mcpsup; did you mean MCPSUP_PORT_NOTES?",
        ),
        ("MCPSUP_XYZZY=hunter2", "MCPSUP_XYZZY is no setting of mcpsup; remove it"),
        ("MCPSUP_PORT=hunter2", "MCPSUP_PORT is not a port; expected a number from 1 to 65535"),
        ("NOTES_PORT=0", "NOTES_PORT is not a port; expected a number from 1 to 65535"),
        ("MCPSUP_PORT=+4200", "MCPSUP_PORT is not a port; expected a number from 1 to 65535"),
        ("MCPSUP_ENABLED=hunter2", "MCPSUP_ENABLED is true or false"),
        ("MCPSUP_SERVERS=../etc", "MCPSUP_SERVERS lists, as number 1, a server that is not in mcpsup.toml"),
        ("MCPSUP_RUN_AS=hunter2", "MCPSUP_RUN_AS names no account of this host"),
        (
            "MCPSUP_PORT=4200\nNOTES_PORT=4201",
            "NOTES_PORT asks for another port than MCPSUP_PORT on line 2; keep one of them",
        ),
        (
            "MCPSUP_PORT=20000",
            "MCPSUP_PORT: port 20000 lies in [ports] backend_range (20000-29999), where servers listen; choose one in 4100-5999",
        ),
    ] {
        let mut world = World::new();
        let listed = world.alice(&format!("{GOOD}{line}\n"));
        let at = if line.contains('\n') { 3 } else { 2 };
        assert_eq!(said(&listed), [format!("env.d/alice.env:{at}: {problem}")]);
        assert_eq!(listed.want, Want::Keep);
    }
}

#[test]
fn a_port_for_several_servers_is_ambiguous() {
    let mut world = World::new();
    let other = Server { port_env: None, ..server() };
    world.roster.set_config(Ok(config(&[("notes", server()), ("other", other)])));
    let listed = world.alice("TOKEN=tok-1\nMCPSUP_PORT=4200\n");
    assert_eq!(
        said(&listed),
        [
            "env.d/alice.env:2: MCPSUP_PORT is for one server, and there are 2; say MCPSUP_PORT_NOTES and so on"
        ]
    );
}

#[test]
fn names_that_steer_the_loader_are_for_root_alone() {
    for name in ["LD_PRELOAD", "GCONV_PATH", "LISTEN_FDS", "NOTIFY_SOCKET", "MCPSUP_RUN_AS"] {
        let mut world = World::new();
        world.account("svc", 900);
        world.uid = 1001;
        let listed = world.alice(&format!("{GOOD}{name}=svc\n"));
        assert_eq!((listed.want.clone(), listed.problems.len()), (Want::Keep, 1), "{name}");
        assert!(said(&listed)[0].starts_with(&format!("env.d/alice.env:2: {name} ")));
        world.uid = 0;
        world.files(&[]);
        let listed = world.alice(&format!("{GOOD}{name}=svc\n"));
        assert_eq!(env(&listed).contains_key(name), name != "MCPSUP_RUN_AS");
    }
}

#[test]
fn as_root_a_user_runs_as_the_account_of_their_name_and_never_as_root_by_a_name() {
    let mut world = World::new();
    world.account("alice", 1001);
    world.account("toor", 0);
    world.account("svc", 900);
    world.files(&[
        ("alice", Some(GOOD)),
        ("toor", Some(GOOD)),
        ("zoe", Some(GOOD)),
        ("bob", Some(&format!("{GOOD}MCPSUP_RUN_AS=svc\n"))),
    ]);
    let accounts: Vec<_> = world
        .all()
        .values()
        .map(|listed| (spec(listed).account.clone().map(|it| it.uid), listed.owner_uid))
        .collect();
    assert_eq!(
        accounts,
        [(Some(1001), Some(1001)), (Some(900), Some(900)), (None, Some(0)), (None, Some(0))]
    );
    world.is_root = false;
    world.files(&[("alice", Some("TOKEN=tok-2\n"))]);
    assert_eq!(spec(&world.one("alice")).account, None);
}

#[test]
fn an_account_made_later_is_found() {
    let mut world = World::new();
    let file = format!("{GOOD}MCPSUP_RUN_AS=svc\n");
    assert_eq!(world.alice(&file).want, Want::Keep);
    world.account("svc", 900);
    assert_eq!(spec(&world.one("alice")).account.as_ref().map(|account| account.uid), Some(900));
}

#[test]
fn a_template_that_asks_in_vain_is_named_once() {
    let mut world = World::new();
    let mut asking = server();
    let hole = || Template(vec![Piece::Env("DSN".to_owned())]);
    asking.env.extend([("A".to_owned(), hole()), ("B".to_owned(), hole())]);
    world.roster.set_config(Ok(config(&[("notes", asking)])));
    let listed = world.alice(GOOD);
    assert_eq!((listed.want.clone(), listed.problems.len()), (Want::Keep, 1));
    assert!(said(&listed)[0].contains("DSN"));
    assert_eq!(env(&world.alice(&format!("{GOOD}DSN=a b\n")))["B"], "a b");
}

#[test]
fn a_pin_that_cannot_be_followed_leaves_the_last_good_version_on_its_old_port() {
    let mut world = World::new();
    world.files(&[("alice", Some(GOOD)), ("bob", Some(GOOD))]);
    let before = world.one("bob");
    world.files(&[("alice", None), ("bob", Some(&format!("{GOOD}MCPSUP_PORT=4100\n")))]);
    let after = world.one("bob");
    assert_eq!((&after.want, after.door), (&before.want, before.door));
    assert_eq!(said(&after), ["env.d/bob.env:2: MCPSUP_PORT: port 4100 is alice/notes's; choose another"]);
}

#[test]
fn a_broken_file_moves_no_door() {
    let mut world = World::new();
    let before = world.alice(GOOD);
    assert_eq!(world.alice("MCPSUP_PORT=4200\n").door, before.door);
    assert_eq!(world.alice(&format!("{GOOD}MCPSUP_PORT=4200\n")).door, Some(4200));
}

#[test]
fn a_moved_backend_makes_another_spec() {
    let mut world = World::new();
    let before = world.alice(GOOD);
    let id = InstanceId { user: user("alice"), server: "notes".parse().unwrap() };
    let ranges = world.roster.config().unwrap().ports.clone();
    world.ports.move_backend(&ranges, &id, &BTreeSet::from([20000])).unwrap();
    let after = world.one("alice");
    assert_eq!((spec(&after).backend, env(&after)["NOTES_PORT"].as_str()), (20001, "20001"));
    assert_ne!(spec(&after).id, spec(&before).id);
}

#[test]
fn nothing_in_a_spec_can_stand_for_something_else() {
    let mut world = World::new();
    let base = Spec::clone(&spec(&world.alice(GOOD)));
    let with_args =
        |args: &[&str]| Spec { args: args.iter().map(|arg| Secret::new(*arg)).collect(), ..base.clone() };
    let with_env = |env: &[(&str, &str)]| Spec {
        env: env.iter().map(|(name, value)| ((*name).into(), Secret::new(*value))).collect(),
        ..base.clone()
    };
    let specs = [
        with_args(&[]),
        with_args(&[""]),
        with_args(&["ab", "c"]),
        with_args(&["a", "bc"]),
        with_args(&["abc"]),
        with_env(&[("A", "B=C")]),
        with_env(&[("A=B", "C")]),
        with_env(&[("A", "B"), ("C", "")]),
        Spec { limits: Limits { memory: Some(0), ..Limits::default() }, ..base.clone() },
        Spec { limits: Limits { tasks: Some(0), ..Limits::default() }, ..base.clone() },
        Spec { backend: 1, ..base.clone() },
        base,
    ];
    let digests: BTreeSet<_> = specs.iter().map(|spec| digest::of(spec, &[7; 32])).collect();
    assert_eq!(digests.len(), specs.len());
    let other_key = digest::of(&specs[0], &[8; 32]);
    assert!(!digests.contains(&other_key));
}

/// A small generator of its own (xorshift64*), so that a failing world can be told by its seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) % sides
    }

    /// A file, or none; `number` is the user's own, so that no two ask for one port.
    fn file(&mut self, number: usize) -> Option<String> {
        const LINES: [&str; 12] = [
            "TOKEN=tok-1234567",
            "TOKEN=bad",
            "OTHER=some-long-value",
            "MCPSUP_SERVERS=more",
            "MCPSUP_SERVERS=mroe",
            "MCPSUP_ENABLED=false",
            "MCPSUP_PORT_NOTES=490@",
            "MCPSUP_PORT_MORE=3000@",
            "MCPSUP_RUN_AS=svc",
            "nonsense",
            "LD_PRELOAD=x",
            "MCPSUP_WHAT=1",
        ];
        (self.roll(6) > 0).then(|| {
            let mut lines: Vec<&str> = Vec::new();
            for _ in 0..self.roll(4) {
                let line = LINES[usize::try_from(self.roll(LINES.len() as u64)).unwrap()];
                if !lines.iter().any(|it| it.split('=').next() == line.split('=').next()) {
                    lines.push(line);
                }
            }
            if self.roll(3) > 0 && !lines.iter().any(|it| it.starts_with("TOKEN")) {
                lines.push(LINES[0]);
            }
            lines.join("\n").replace('@', &number.to_string())
        })
    }
}

#[test]
fn what_happens_to_one_user_is_the_same_whether_or_not_the_others_exist() {
    let names = ["alice", "bob", "carol", "dave", "svc"];
    let more = Server { for_all: false, port_env: None, ..server() };
    let servers = [("notes", server()), ("more", more)];
    for seed in 1..300 {
        let mut dice = Dice(0x9E37_79B9_7F4A_7C15_u64.wrapping_mul(seed));
        let world = || {
            let mut world = World::new();
            world.roster.set_config(Ok(config(&servers)));
            world.account("svc", 900);
            // Which ports are given depends on who came first; from then on they are theirs.
            let ids = names.iter().flat_map(|name| {
                servers
                    .iter()
                    .map(|(server, _)| InstanceId { user: user(name), server: server.parse().unwrap() })
            });
            let wanted: Vec<_> = ids.map(|id| (id, None)).collect();
            world.ports.assign(&config(&servers).ports, &wanted, &BTreeSet::new());
            world
        };
        let mut together = world();
        let mut alone: Vec<_> = names.iter().map(|_| world()).collect();
        for step in 0..6 {
            let uid = if dice.roll(4) == 0 { 1001 } else { 0 };
            let files: Vec<_> = (0..).zip(names).map(|(number, name)| (name, dice.file(number))).collect();
            let present: Vec<_> = files
                .iter()
                .filter(|(_, text)| text.is_some())
                .map(|(name, text)| (*name, text.as_deref()))
                .collect();
            together.uid = uid;
            together.files(&present);
            let all = together.all();
            for (name, world) in names.iter().zip(&mut alone) {
                let of = |all: &BTreeMap<InstanceId, Listed>| {
                    all.iter()
                        .filter(|(id, _)| id.user.as_str() == *name)
                        .map(|(id, it)| (id.clone(), it.clone()))
                        .collect::<Vec<_>>()
                };
                world.uid = uid;
                world.files(&present.iter().copied().filter(|(it, _)| it == name).collect::<Vec<_>>());
                assert_eq!(of(&all), of(&world.all()), "seed {seed}, step {step}, {name}");
            }
        }
    }
}

#[test]
fn one_more_among_a_thousand_users_derives_only_that_one() {
    let mut world = World::new();
    let names: Vec<_> = (0..1000).map(|number| format!("u{number}")).collect();
    let mut files: Vec<_> = names.iter().map(|name| (name.as_str(), Some(GOOD))).collect();
    world.files(&files);
    let before = world.all();
    files.iter_mut().for_each(|(_, text)| *text = None);
    files.push(("zoe", Some(GOOD)));
    world.files(&files);
    let after = world.all();
    assert_eq!(after.len(), 1001);
    for (id, listed) in &before {
        assert!(Arc::ptr_eq(&spec(listed), &spec(&after[id])));
    }
}
