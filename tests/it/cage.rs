//! A hostile server of bob's against alice, the daemon and the machine, in every tier that this
//! kernel can be made to show: what gets through is exactly what README.md says.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use mcpsup::model::cage::{Apart, Tier};

use crate::access::notes_on_a_socket;
use crate::delegated::Unit;
use crate::host::{Host, copy_program, example, notes, text, write};
use crate::seen;
use crate::tree::{ORDINARY, ORDINARYS_GROUP, bring, give_to_ordinary};

/// One attack: what it is called here, what the intruder calls it, and on what.
#[derive(Debug, Clone)]
pub(crate) struct Attack {
    pub name: String,
    pub kind: &'static str,
    pub path: PathBuf,
    pub pid: i32,
    pub port: u16,
}

impl Attack {
    fn json(&self) -> String {
        let Self { kind, path, pid, port, .. } = self;
        serde_json::json!({ "attack": kind, "path": path, "pid": pid, "port": port }).to_string()
    }
}

/// By process.
pub(crate) const ON_A_PROCESS: [&str; 13] = [
    "environ",
    "memory",
    "root",
    "descriptors",
    "cmdline",
    "process_vm_readv",
    "ptrace",
    "pidfd_getfd",
    "counters",
    "signal",
    "limits",
    "priority",
    "processors",
];
/// Those that want to look into its memory.
const OF_MEMORY: [&str; 8] =
    ["environ", "memory", "root", "descriptors", "process_vm_readv", "ptrace", "pidfd_getfd", "counters"];
/// To be counted with hers, limited with her and killed with her: by the file, and past it.
const JOIN: &str = "join alice's cgroup";
const BEGIN_IN: &str = "begin in alice's cgroup";
/// A file of her account's that everybody may read.
const MODE: &str = "change the mode of alice's program";
const HOLD_UP: &str = "hold up whoever starts alice's program";
/// On nobody in particular.
const ON_THE_MACHINE: [&str; 8] = [
    "keyring",
    "shared memory",
    "message queue",
    "fanotify",
    "io_uring",
    "user namespace",
    "new privileges",
    "core dump",
];

fn intruders(more: &str) -> String {
    format!(
        "[server.intruder]\ncommand = [{:?}, \"--port\", \"{{port}}\"]\ntransport = \"http\"\n{more}\n",
        example("intruder")
    )
}

/// A program as the ordinary user. Of what is named first, each runs the next.
fn as_ordinary(first: &[&str], program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args([format!("--reuid={ORDINARY}"), format!("--regid={ORDINARYS_GROUP}")]);
    command.args(["--clear-groups", "--"]).args(first).arg(program);
    command
}

/// The cgroup that a process is in, below the mount of v2.
fn cgroup_of(pid: i32) -> PathBuf {
    let all = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let own = all.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
    seen::cgroup_mount().unwrap_or(Path::new("/nowhere")).join(own)
}

/// Two users of the intruder, who share an account unless their files say otherwise.
pub(crate) struct Scene {
    pub host: Host,
    /// A directory that everybody may write to, outside everything of the host's.
    pub commons: tempfile::TempDir,
    /// What systemd would give the daemon to know.
    pub given: tempfile::TempDir,
    /// Where programs are.
    programs: tempfile::TempDir,
    /// That alice's server listens on; by it is told what she left about.
    port: Cell<u16>,
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.clear_away();
    }
}

impl Scene {
    pub(crate) fn new(daemon: &str) -> Self {
        Self::with(daemon, "")
    }

    fn with(daemon: &str, server: &str) -> Self {
        let mut host = Host::new("");
        host.configure(&format!("{daemon}\n{}", intruders(server)));
        // Elsewhere than in /tmp, and for everybody to read: only that it is hidden keeps it.
        let given = tempfile::Builder::new().tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        std::fs::set_permissions(given.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        write(&given.path().join("mcpsup.seal.key"), "as systemd would", 0o444);
        host.env.push(("CREDENTIALS_DIRECTORY".to_owned(), given.path().display().to_string()));
        let commons = tempfile::Builder::new().prefix("mcpsup-it-commons-").tempdir().unwrap();
        std::fs::set_permissions(commons.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
        let programs = tempfile::Builder::new().prefix("mcpsup-it-").tempdir_in("/run").unwrap();
        std::fs::set_permissions(programs.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        Self { host, commons, given, programs, port: Cell::new(0) }
    }

    /// Removes what she left where everybody may write.
    fn clear_away(&self) {
        for dir in ["/tmp", "/dev/shm"] {
            // Most runs have directories of their own there, and leave nothing in these.
            std::fs::remove_file(format!("{dir}/mcpsup-intruder-{}", self.port.get())).unwrap_or_default();
        }
    }

    /// Saves both files and waits until both are up; alice leaves things about.
    pub(crate) fn begin(&self, alice: &str, bob: &str) {
        self.host.save("alice", &format!("{alice}\nTOKEN=alices-own-token\n"));
        self.host.save("bob", &format!("{bob}\nTOKEN=bobs-own-token\n"));
        if seen::is_root() && self.host.path().join("bin").exists() {
            give_to_ordinary(self.host.path());
        }
        self.host.ok(&["reload"]);
        self.host.until_all_up(2);
        self.port.set(self.port_of_alice());
        // What an alice of another test left, who had the same port, may be somebody else's.
        self.clear_away();
        self.host.call("alice", "prepare", "{}").unwrap();
    }

    /// A program in a place of its own, neither in `/tmp` nor hidden, that belongs to whom her server runs as.
    fn program_of_alice(&self) -> PathBuf {
        let uid = std::fs::metadata(format!("/proc/{}", self.pid_of("alice"))).unwrap().uid();
        let program = self.programs.path().join("server");
        write(&program, "#!/bin/sh\n", 0o644);
        std::os::unix::fs::chown(&program, Some(uid), None).unwrap();
        program
    }

    fn port_of_alice(&self) -> u16 {
        let words = std::fs::read_to_string(format!("/proc/{}/cmdline", self.pid_of("alice"))).unwrap();
        words.split('\0').nth(2).unwrap().parse().unwrap()
    }

    /// Starts the daemon as an ordinary user, on a kernel that lacks this.
    pub(crate) fn start_as_ordinary(&mut self, without: &str) {
        bring(&self.host, "intruder");
        give_to_ordinary(self.host.path());
        let [mcpsup, wrapper] = ["bin/mcpsup", "bin/intruder"].map(|name| self.host.path().join(name));
        let lacking = [wrapper.to_str().unwrap(), "--without", without];
        let first = if without.is_empty() { &[][..] } else { &lacking };
        let command = match &self.host.unit {
            Some(unit) => unit.command(first, &mcpsup),
            None => as_ordinary(first, &mcpsup),
        };
        self.host.spawn_by(command);
        self.host.until("the daemon answers", || self.host.cli(&["status"]).status.success());
    }

    pub(crate) fn pid_of(&self, user: &str) -> i32 {
        let host = &self.host;
        host.until_some("its server is seen", || seen::servers(host).get(user).map(|pids| pids[0]))
    }

    pub(crate) fn attacks(&self) -> Vec<Attack> {
        let host = &self.host;
        let alice = self.pid_of("alice");
        let port = self.port_of_alice();
        let none = || Attack { name: String::new(), kind: "", path: "".into(), pid: 0, port };
        let env = host.env_dir().join("alice.env");
        let own = host.path().join("state/instances/alice/intruder");
        let state = host.path().join("state");
        let run = host.path().join(format!("run/runs/{}", host.instance("alice").run.unwrap()));
        let mut all = Vec::new();
        for (name, kind, path) in [
            ("read alice.env", "read", env.clone()),
            ("write alice.env", "write", env.clone()),
            ("stat alice.env", "stat", env.clone()),
            ("chmod alice.env", "chmod", env.clone()),
            ("touch alice.env", "touch", env),
            ("find alice in env.d", "find", host.env_dir().join("alice.env")),
            ("watch env.d", "watch", host.env_dir()),
            ("add to env.d", "write", host.env_dir().join("mallory")),
            ("read alice's state", "read", own.join("secret")),
            ("find alice's file in her state", "find", own.join("secret")),
            ("add to alice's state", "write", own.join("planted")),
            ("find the daemon's ports", "find", state.join("ports.json")),
            ("find alice among all", "find", state.join("instances/alice")),
            ("add to the daemon's state", "write", state.join("planted")),
            ("find alice's run among the records", "find", run),
            ("read the daemon's credentials", "read", self.given.path().join("mcpsup.seal.key")),
            ("find alice's log", "find", host.path().join("logs/alice/intruder.log")),
            ("the control socket", "unix socket", host.path().join("run/control.sock")),
            ("alice's unix socket", "unix socket", own.join("socket")),
            ("alice's file in /tmp", "read", format!("/tmp/mcpsup-intruder-{port}").into()),
            ("write elsewhere", "write", self.commons.path().join("planted")),
            ("files for others", "files for others", ".".into()),
            ("the core pattern", "write", "/proc/sys/kernel/core_pattern".into()),
            (MODE, "change the mode of", self.program_of_alice()),
            (HOLD_UP, "hold up", self.program_of_alice()),
            (JOIN, "join a cgroup", cgroup_of(alice)),
            (BEGIN_IN, "begin in a cgroup", cgroup_of(alice)),
        ] {
            all.push(Attack { name: name.into(), kind, path, ..none() });
        }
        for (whose, pid) in [("alice", alice), ("the daemon", host.daemon_pid())] {
            all.extend(ON_A_PROCESS.map(|kind| {
                let name = format!("{kind} of {whose}");
                Attack { name, kind, pid, ..none() }
            }));
        }
        all.extend(ON_THE_MACHINE.map(|kind| Attack { name: kind.into(), kind, ..none() }));
        for (name, kind, port) in [
            ("alice's abstract socket", "abstract socket", port),
            ("alice's port", "tcp", port),
            ("listen on a port of others", "listen", port + 100),
        ] {
            all.push(Attack { name: name.into(), kind, port, ..none() });
        }
        assert_eq!(all.len(), 64, "README.md and docs/security.md say how many");
        all
    }

    /// What each attack comes to from inside bob's run.
    fn attacked_by_bob(&self) -> BTreeMap<String, String> {
        let said = |attack: &Attack| self.host.call("bob", "attack", &attack.json()).unwrap();
        self.attacks().iter().map(|attack| (attack.name.clone(), said(attack))).collect()
    }

    /// And from a process of the same account outside any run.
    fn attacked_by_its_ordinary_user(&self) -> BTreeMap<String, String> {
        let said = |attack: &Attack| {
            let program = self.host.path().join("bin/intruder");
            // In the same user namespace, for in none is who is in another what they are at home.
            let namespace = format!("--user=/proc/{}/ns/user", self.host.daemon_pid());
            let mut command = match &self.host.unit {
                Some(unit) => unit.command(&["nsenter", "--preserve-credentials", &namespace], &program),
                None => as_ordinary(&[], &program),
            };
            command.args(["--try", attack.kind]).arg(&attack.path);
            command.args([attack.pid.to_string(), attack.port.to_string()]);
            command.current_dir(self.commons.path());
            text(&command.output().unwrap().stdout).trim().to_owned()
        };
        self.attacks().iter().map(|attack| (attack.name.clone(), said(attack))).collect()
    }

    fn apart(&self) -> Apart {
        self.host.status().apart.unwrap()
    }

    /// What of the promises is not kept.
    fn not_kept(&self) -> Vec<String> {
        self.apart().promises.into_iter().filter(|one| !one.kept).map(|one| one.what).collect()
    }
}

#[track_caller]
pub(crate) fn assert_open(said: &BTreeMap<String, String>, expected: &[&str]) {
    for (name, answer) in said {
        assert!(answer == "open" || answer.starts_with("closed"), "{name}: {answer:?}");
    }
    let open: BTreeSet<&str> =
        said.iter().filter(|(_, said)| *said == "open").map(|(name, _)| name.as_str()).collect();
    let expected: BTreeSet<&str> = expected.iter().copied().collect();
    let [more, less] = [open.difference(&expected), expected.difference(&open)].map(Vec::from_iter);
    assert!(
        more.is_empty() && less.is_empty(),
        "open and should not be: {more:?}\nclosed and should not be: {less:?}\n{said:#?}"
    );
}

/// True if this kernel has what the tier takes; says so if not. Where another program finds it, ours has to.
pub(crate) fn has(scene: &Scene, tier: Tier) -> bool {
    let apart = scene.apart();
    let has = apart.tier == tier;
    if !has {
        assert!(
            tier != Tier::Namespaces || !has_user_namespaces(),
            "unshare makes user namespaces here, we do not:\n{}",
            apart.lines(true).join("\n")
        );
        eprintln!("skipped: this kernel has only the tier {}:\n{}", apart.tier, apart.lines(true).join("\n"));
    }
    has
}

/// True if an ordinary user can make namespaces here.
fn has_user_namespaces() -> bool {
    let mut unshare = Command::new("unshare");
    unshare
        .args(["--map-root-user", "--mount", "--ipc", "--pid", "--fork", "true"])
        .uid(ORDINARY)
        .gid(ORDINARYS_GROUP);
    unshare.current_dir("/").stderr(Stdio::null()).status().expect("unshare, of util-linux").success()
}

/// Who listens on loopback can be connected to by everybody on the host; the same for all tiers.
pub(crate) const PORT: &str = "alice's port";

#[test]
fn a_hostile_server_reaches_nothing_of_anothers_account() {
    if !seen::is_root() {
        return;
    }
    for containment in ["session", "pid-namespace", "cgroup"] {
        if containment == "cgroup" && !seen::has_cgroups() {
            continue;
        }
        let mut scene = Scene::new(&format!("[daemon]\ncontainment = \"{containment}\""));
        std::fs::set_permissions(scene.host.path(), std::fs::Permissions::from_mode(0o711)).unwrap();
        scene.host.start();
        scene.begin("MCPSUP_RUN_AS=daemon", "MCPSUP_RUN_AS=nobody");
        if has(&scene, Tier::Accounts) {
            assert_open(&scene.attacked_by_bob(), &[PORT]);
        }
    }
}

#[test]
fn a_hostile_server_reaches_nothing_where_users_have_no_account() {
    if !seen::is_root() {
        return;
    }
    let mut scene = Scene::new("");
    scene.host.start();
    scene.begin("", "");
    if has(&scene, Tier::Accounts) {
        assert_open(&scene.attacked_by_bob(), &[PORT]);
    }
}

#[test]
fn a_hostile_server_reaches_nothing_of_one_that_runs_as_root_as_well() {
    if !seen::is_root() {
        return;
    }
    let mut scene = Scene::new("");
    scene.host.start();
    scene.begin("MCPSUP_RUN_AS=root", "MCPSUP_RUN_AS=root");
    if has(&scene, Tier::Accounts) {
        // `/proc` hides other accounts, and these two have the same.
        let seen = ["cmdline of alice", "cmdline of the daemon"];
        assert_open(&scene.attacked_by_bob(), &[&[PORT][..], &seen].concat());
    }
}

#[test]
fn a_hostile_server_reaches_nothing_of_another_users_that_runs_as_the_same_account() {
    if !seen::is_root() {
        return;
    }
    for containment in ["session", "pid-namespace", "cgroup"] {
        if containment == "cgroup" && !seen::has_cgroups() {
            continue;
        }
        let mut scene = Scene::new(&format!("[daemon]\ncontainment = \"{containment}\""));
        scene.host.start();
        scene.begin("MCPSUP_RUN_AS=nobody", "MCPSUP_RUN_AS=nobody");
        if has(&scene, Tier::Accounts) {
            assert_open(&scene.attacked_by_bob(), &[PORT]);
            for said in [scene.host.ok(&["status", "-v"]), text(&scene.host.cli(&["check"]).stderr)] {
                assert!(said.contains("servers of alice, bob run as one account, uid 65534"), "{said}");
            }
        }
    }
}

#[test]
fn a_server_writes_where_its_table_lets_it_and_nowhere_else() {
    if !seen::is_root() {
        return;
    }
    for daemon in ["", "[daemon]\ncontainment = \"session\""] {
        let commons = tempfile::tempdir().unwrap();
        std::fs::set_permissions(commons.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
        let allow = format!("[server.intruder.allow]\nwrite = [{:?}]\n", commons.path());
        let mut scene = Scene::with(daemon, &allow);
        scene.host.start();
        scene.begin("", "");
        let write = |dir: &Path| {
            let arguments = serde_json::json!({ "attack": "write", "path": dir.join("made") });
            scene.host.call("bob", "attack", &arguments.to_string()).unwrap()
        };
        assert_eq!(write(commons.path()), "open");
        assert!(commons.path().join("made").exists(), "it is the host's directory and no other");
        assert!(write(scene.commons.path()).starts_with("closed"));
    }
}

#[test]
fn a_program_that_is_a_link_into_tmp_is_found_there() {
    if !seen::is_root() {
        return;
    }
    let [named, led_to] = [(); 2].map(|()| {
        let dir = tempfile::Builder::new().prefix("mcpsup-it-program-").tempdir_in("/tmp").unwrap();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        dir
    });
    let program = named.path().join("notes");
    copy_program(&example("notes"), &led_to.path().join("notes"));
    std::os::unix::fs::symlink(led_to.path().join("notes"), &program).unwrap();
    for containment in ["session", "pid-namespace"] {
        let server = notes().replace(example("notes").to_str().unwrap(), program.to_str().unwrap());
        let mut host = Host::new(&format!("[daemon]\ncontainment = \"{containment}\"\n{server}"));
        host.save("alice", "NOTES_TOKEN=alices-own-token\n");
        host.start();
        host.until_all_up(1);
        assert!(host.call("alice", "whoami", "{}").unwrap().starts_with("alice"));
    }
}

/// As in a container: root has other accounts to give, and may not mount.
#[test]
fn roots_daemon_that_may_not_make_namespaces_starts_its_servers_without() {
    if !seen::is_root() {
        return;
    }
    for (alice, bob) in [
        ("MCPSUP_RUN_AS=daemon", "MCPSUP_RUN_AS=nobody"),
        ("", ""),
        ("MCPSUP_RUN_AS=nobody", "MCPSUP_RUN_AS=nobody"),
    ] {
        let mut scene = Scene::new("[daemon]\ncontainment = \"session\"");
        std::fs::set_permissions(scene.host.path(), std::fs::Permissions::from_mode(0o711)).unwrap();
        let mut command = Command::new("setpriv");
        command.args(["--bounding-set", "-sys_admin", "--"]).arg(env!("CARGO_BIN_EXE_mcpsup"));
        scene.host.spawn_by(command);
        scene.host.until("the daemon answers", || scene.host.cli(&["status"]).status.success());
        scene.begin(alice, bob);
        assert_eq!(scene.apart().tier, Tier::Accounts);
        assert!(scene.not_kept().contains(&"private /tmp and IPC".to_owned()), "{:?}", scene.not_kept());
    }
}

#[test]
fn a_hostile_server_reaches_nothing_where_an_ordinary_user_has_namespaces() {
    if !seen::is_root() {
        return;
    }
    let mut scene = Scene::new("");
    scene.start_as_ordinary("");
    scene.begin("", "");
    if has(&scene, Tier::Namespaces) {
        assert_open(&scene.attacked_by_bob(), &[PORT]);
    }
}

/// As under the user's own service manager.
#[test]
fn a_hostile_server_reaches_nothing_where_an_ordinary_user_has_namespaces_and_cgroups() {
    if !seen::has_cgroups() {
        return;
    }
    // One that may make namespaces has all rights in them, and none to what is outside.
    let allowed = "[server.intruder.allow]\nnamespaces = true\n";
    for (server, more) in [(allowed, &["user namespace"][..]), ("", &[])] {
        let mut scene = Scene::with("[daemon]\ncontainment = \"cgroup\"", server);
        scene.host.unit = Some(Unit::new());
        scene.host.start();
        scene.begin("", "");
        if has(&scene, Tier::Namespaces) {
            assert_open(&scene.attacked_by_bob(), &[&[PORT], more].concat());
            reaches_nothing_of_what_is_beside_it(&scene);
        }
    }
}

fn reaches_nothing_of_what_is_beside_it(scene: &Scene) {
    let alice = scene.host.instance("alice");
    assert_eq!(alice.containment.as_deref(), Some("cgroup"));
    // Nor of the first process in its own namespace, which heard what it should become.
    for kind in OF_MEMORY.into_iter().chain(["limits"]) {
        let attack = serde_json::json!({ "attack": kind, "pid": 1 });
        let said = scene.host.call("bob", "attack", &attack.to_string()).unwrap();
        assert!(said.starts_with("closed"), "{kind} of the first process: {said}");
    }
    // Nor anything of a group, which is a file of the same account: not of hers, and not of its own limits.
    let group = scene.host.unit.as_ref().unwrap().group().unwrap();
    let own = scene.host.instance("bob").run.unwrap();
    for file in [
        format!("run-{}/cgroup.kill", alice.run.unwrap()),
        format!("run-{}/cgroup.procs", alice.run.unwrap()),
        format!("run-{own}/cgroup.subtree_control"),
        "cgroup.procs".to_owned(),
        "run-99".to_owned(),
    ] {
        let attack = serde_json::json!({ "attack": "write", "path": group.join(&file) });
        let said = scene.host.call("bob", "attack", &attack.to_string()).unwrap();
        assert!(said.starts_with("closed"), "{file}: {said}");
    }
    assert!(scene.not_kept().iter().all(|what| what == "an account for each user"), "{:?}", scene.not_kept());
    // And they are what they are said to be.
    let said = scene.host.ok(&["status", "-v"]);
    for promise in ["killed whole: cgroup, pid namespace", "processes unseen by others: a /proc of its own"] {
        assert!(said.contains(&format!("kept      {promise}")), "{promise}: {said}");
    }
}

/// Where an ordinary user can make no namespaces: in groups of their own, as under their service manager, and
/// without. `more` is lacking too.
fn without_namespaces(server: &str, more: &str) -> Vec<Scene> {
    let begun = |daemon: &str, unit: Option<Unit>, without: &str| {
        let mut scene = Scene::with(daemon, server);
        scene.host.unit = unit;
        scene.start_as_ordinary(&format!("{without}{more}"));
        scene.begin("", "");
        scene
    };
    let in_groups = || begun("[daemon]\ncontainment = \"cgroup\"", Some(Unit::new()), "user namespaces");
    let all = [Some(begun("", None, "namespaces")), seen::has_cgroups().then(in_groups)];
    all.into_iter().flatten().collect()
}

#[test]
fn without_namespaces_a_hostile_server_learns_names_and_times_and_changes_nothing() {
    if !seen::is_root() {
        return;
    }
    for scene in without_namespaces("", "") {
        if has(&scene, Tier::Landlock) {
            assert_open(
                &scene.attacked_by_bob(),
                &[PORT, MODE, "stat alice.env", "watch env.d", "cmdline of alice", "cmdline of the daemon"],
            );
            assert!(scene.not_kept().contains(&"processes unseen by others".to_owned()));
        }
    }
}

#[test]
fn a_server_listens_on_its_own_socket_though_others_of_its_account_may_make_none() {
    if !seen::is_root() {
        return;
    }
    for (without, tier) in [("", Tier::Namespaces), ("namespaces", Tier::Landlock)] {
        let mut scene = Scene::new("");
        let notes = notes_on_a_socket().replace("transport", "for_all = false\ntransport");
        scene.host.configure(&format!("{}{notes}", intruders("for_all = false")));
        bring(&scene.host, "notes");
        scene.start_as_ordinary(without);
        scene.host.save("alice", "MCPSUP_SERVERS=notes\nNOTES_TOKEN=alices-own-token\n");
        scene.host.save("bob", "MCPSUP_SERVERS=intruder\nTOKEN=bobs-own-token\n");
        give_to_ordinary(scene.host.path());
        scene.host.ok(&["reload"]);
        scene.host.until_all_up(2);
        assert!(scene.host.call("alice", "whoami", "{}").unwrap().starts_with("alice"));
        if !has(&scene, tier) {
            continue;
        }
        for socket in ["run/instances/alice/notes/http.sock", "run/control.sock"] {
            let attack =
                serde_json::json!({ "attack": "unix socket", "path": scene.host.path().join(socket) });
            let said = scene.host.call("bob", "attack", &attack.to_string()).unwrap();
            assert!(said.starts_with("closed"), "{socket}: {said}");
        }
        let said = scene.host.ok(&["status", "-v"]);
        assert!(said.contains("server \"notes\" is allowed more than others: unix_sockets"), "{said}");
        assert!(!said.contains("server \"intruder\" is allowed"), "{said}");
    }
}

/// The attacks are real: without a cage they get through.
#[test]
fn a_process_outside_any_run_with_the_same_account_reaches_nearly_all() {
    if !seen::is_root() {
        return;
    }
    // Alice herself can leave sockets about, for the comparison.
    for scene in without_namespaces("[server.intruder.allow]\nunix_sockets = true\n", ",landlock") {
        reaches_nearly_all(&scene);
    }
}

fn reaches_nearly_all(scene: &Scene) {
    assert_eq!(scene.apart().tier, Tier::None);
    let not_kept = scene.not_kept();
    for what in ["memory and environment closed to others", "no signals to others", "writes to its own only"]
    {
        assert!(not_kept.iter().any(|one| one == what), "{what}: {not_kept:?}");
    }
    let outside = scene.attacked_by_its_ordinary_user();
    for (name, said) in &outside {
        // The daemon closes its own memory, alice's run has no right to leave shared memory about,
        // and kernels differ in what they have.
        let varies = [
            "keyring",
            "shared memory",
            "message queue",
            "fanotify",
            "io_uring",
            "user namespace",
            "counters of alice",
            "the core pattern",
            "ptrace of alice",
            "pidfd_getfd of alice",
        ];
        // Where runs have no groups, hers is the machine's, and root's.
        let is_of_group = [JOIN, BEGIN_IN].contains(&name.as_str()) && scene.host.unit.is_none();
        let closed = is_of_group || OF_MEMORY.iter().any(|kind| *name == format!("{kind} of the daemon"));
        if !varies.contains(&name.as_str()) {
            assert_eq!(said != "open", closed, "{name}: {said}");
        }
    }
    // The filter of system calls and what a process gives up by itself are all there is left.
    let open = |name: &&str| {
        let stopped = ["chmod", "touch", "core dump", "files for others", "new privileges"];
        let filtered = [
            "ptrace",
            "process_vm_readv",
            "pidfd_getfd",
            "counters",
            "limits",
            "priority",
            "processors",
            BEGIN_IN,
            HOLD_UP,
        ];
        let made = ["keyring", "shared memory", "message queue", "fanotify", "io_uring", "user namespace"];
        outside[*name] == "open"
            && ![&stopped[..], &filtered, &made].concat().iter().any(|kind| name.starts_with(kind))
    };
    let open: Vec<&str> = outside.keys().map(String::as_str).filter(open).collect();
    assert_open(&scene.attacked_by_bob(), &open);
}

#[test]
fn a_host_that_has_less_than_is_asked_for_starts_nothing_and_says_what_is_missing() {
    if !seen::is_root() {
        return;
    }
    for (asked, without, missing) in [
        ("accounts", "", "the daemon does not run as root"),
        ("namespaces", "namespaces", "namespace"),
        ("landlock", "namespaces,landlock", "this kernel has no Landlock"),
        ("require", "namespaces", "killed whole"),
    ] {
        let mut scene = Scene::new(&format!("[daemon]\nisolation = \"{asked}\""));
        bring(&scene.host, "intruder");
        give_to_ordinary(scene.host.path());
        let wrapper = scene.host.path().join("bin/intruder");
        let mut command = Command::new(&wrapper);
        let mcpsup = scene.host.path().join("bin/mcpsup");
        let lacking = if without.is_empty() { "nothing" } else { without };
        command.args(["--without", lacking]).arg(&mcpsup).uid(ORDINARY).gid(ORDINARYS_GROUP);
        scene.host.spawn_by(command);
        assert!(!scene.host.wait_for_end().success());
        let log = scene.host.log();
        assert!(log.contains(&format!("isolation = \"{asked}\" cannot be had here")), "{log}");
        assert!(log.contains(missing), "{missing}: {log}");

        let config = scene.host.path().join("mcpsup.toml");
        let mut check = Command::new(&wrapper);
        check.args(["--without", lacking]).arg(&mcpsup).arg("--config").arg(config).arg("check");
        let check = check.uid(ORDINARY).gid(ORDINARYS_GROUP).output().unwrap();
        let said = text(&check.stdout);
        assert_eq!(check.status.code(), Some(1), "{said}{}", text(&check.stderr));
        assert!(said.contains(missing), "{said}");
    }
}

#[test]
fn an_attack_that_is_not_there_is_no_attack_that_failed() {
    let output = Command::new(example("intruder")).args(["--try", "no such thing"]).output().unwrap();
    assert!(text(&output.stdout).starts_with("there is no attack"));
}
