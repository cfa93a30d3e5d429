//! Whoever is logged in on the host, outside any run, against alice, her server and the daemon: in every
//! tier what gets through is exactly what README.md says. Each attack is also made by root, to whom it
//! has to succeed: so it is one, and what is in its way is that bob is not alice.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use mcpsup::model::cage::Tier;
use mcpsup::model::status::StateName;

use crate::cage::{ON_A_PROCESS, PORT, Scene, assert_open, has};
use crate::host::{Host, example, notes, text};
use crate::seen::{self, Kind};
use crate::stdio::Client;
use crate::wire;

/// The account `daemon`, and a uid that is nobody's.
const DAEMON: u32 = 1;
const MALLORY: u32 = 54_321;
/// `nobody`, as whom bob's servers run.
const NOBODY: u32 = 65_534;

/// What more is tried on a process from outside a run.
const MORE_ON_A_PROCESS: [&str; 8] = [
    "maps",
    "descriptors' positions",
    "namespaces",
    "killing first",
    "comparing",
    "signal to a thread",
    "signal by pidfd",
    "disk priority",
];

/// Everything that can be asked about alice at the control socket.
const ASKED: [&str; 22] = [
    "GET /v1/status",
    "GET /v1/status?user=alice",
    "GET /v1/status?user=alice&server=intruder",
    "GET /v1/status?user=alice&after=99999999&wait=2",
    "GET /v1/logs?user=alice&server=intruder",
    "GET /v1/logs?user=alice&follow=true",
    "OPTIONS /v1/mcp/alice/intruder",
    "POST /v1/mcp/alice/intruder {\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\"}",
    "POST /v1/token {\"user\":\"alice\"}",
    "POST /v1/token {\"user\":\"alice\",\"server\":\"intruder\"}",
    "POST /v1/token?lasting=true {\"user\":\"alice\"}",
    "POST /v1/token?renew=true {\"user\":\"alice\"}",
    "POST /v1/start {\"user\":\"alice\"}",
    "POST /v1/start {\"all\":true,\"user\":null}",
    "POST /v1/restart {\"user\":\"alice\",\"server\":\"intruder\"}",
    "POST /v1/stop {\"user\":\"alice\"}",
    "POST /v1/stop {\"all\":true}",
    "POST /v1/start {\"user\":\"alice\",\"server\":\"intruder\"}",
    "POST /v1/reload",
    "POST /v1/set?user=alice&name=PLANTED {x",
    "POST /v1/unset?user=alice&name=PLANTED",
    "DELETE /v1/users/alice",
];

/// One attack: what it is called here, what the intruder calls it, and on what.
#[derive(Debug, Clone, Default)]
struct Try {
    name: String,
    kind: &'static str,
    path: PathBuf,
    pid: i32,
    port: u16,
    text: String,
}

/// All of them; those that would end what others are tried on come last.
fn attacks(scene: &Scene) -> Vec<Try> {
    let host = &scene.host;
    let alice = scene.pid_of("alice");
    // What a server may try is open to whoever is logged in as well; what is on the machine itself, or
    // in places that are everybody's, is no attack on alice.
    let not_on_alice = ["write elsewhere", "files for others", "alice's file in /tmp", "the control socket"];
    let is_on_alice = |name: &str| !not_on_alice.contains(&name);
    let mut all: Vec<Try> = scene
        .attacks()
        .into_iter()
        .filter(|attack| is_on_alice(&attack.name) && !attack.path.as_os_str().is_empty() || attack.pid != 0)
        .map(|it| Try {
            name: it.name,
            kind: it.kind,
            path: it.path,
            pid: it.pid,
            port: it.port,
            text: String::new(),
        })
        .collect();
    let port = all[0].port;
    let launcher = seen::on(host).into_iter().find(|one| one.kind == Kind::Launcher).unwrap().pid;
    all.extend(ON_A_PROCESS.map(|kind| Try {
        name: format!("{kind} of the launcher"),
        kind,
        pid: launcher,
        ..Try::default()
    }));
    for (whose, pid) in [("alice", alice), ("the daemon", host.daemon_pid()), ("the launcher", launcher)] {
        let name = |kind| format!("{kind} of {whose}");
        all.extend(MORE_ON_A_PROCESS.map(|kind| Try { name: name(kind), kind, pid, ..Try::default() }));
    }

    all.extend(on_files(host).into_iter().map(|(name, kind, path)| Try {
        name,
        kind,
        path,
        ..Try::default()
    }));

    let at = |path: &str| host.path().join(path);
    let call = format!("POST /mcp {}", wire::tool("none", "{}"));
    let door = host.instance("alice").port.unwrap();
    all.push(Try {
        name: "alice's door".into(),
        kind: "ask at the door",
        port: door,
        text: call,
        ..Try::default()
    });
    let by_name = |kind, port| Try { name: format!("alice's {kind}"), kind, port, ..Try::default() };
    all.push(by_name("abstract socket", port));
    all.push(Try { name: PORT.into(), kind: "tcp", port, ..Try::default() });
    all.extend(ASKED.map(|text| Try {
        name: format!("ask: {text}"),
        kind: "ask the daemon",
        path: at("run/control.sock"),
        text: text.into(),
        ..Try::default()
    }));
    all
}

/// Attacks on files and directories: what it is called, what the intruder calls it, and where.
fn on_files(host: &Host) -> Vec<(String, &'static str, PathBuf)> {
    let at = |path: &str| host.path().join(path);
    let run = at(&format!("run/runs/{}", host.instance("alice").run.unwrap()));
    let fifos = std::fs::read_dir(&run).unwrap().flatten().filter(|one| one.file_type().unwrap().is_fifo());
    let fifos: Vec<PathBuf> = fifos.map(|one| one.path()).collect();
    assert!(!fifos.is_empty());
    let log = at("logs/alice/intruder.log");
    let env = host.env_dir().join("alice.env");
    let own = at("state/instances/alice/intruder");
    let mut files: Vec<(String, &'static str, PathBuf)> = Vec::new();
    for (name, path) in [
        ("alice.env", &env),
        ("alice's log", &log),
        ("alice's secret", &own.join("secret")),
        ("the table of ports", &at("state/ports.json")),
        ("the key of digests", &at("state/key")),
        ("alice's record", &run.join("record")),
    ] {
        assert!(path.exists(), "{}", path.display());
        for kind in ["read", "write", "stat", "touch", "hard link", "take away"] {
            files.push((format!("{kind}: {name}"), kind, path.clone()));
        }
    }
    for (name, path) in [
        ("the port map", at("run/ports.json")),
        ("the control socket", at("run/control.sock")),
        ("env.d", host.env_dir()),
        ("the runs", at("run/runs")),
        ("alice's directory", own.clone()),
        ("alice's short-lived directory", at("run/instances/alice/intruder")),
        ("the doors", at("run/doors")),
        ("mcpsup.toml", at("mcpsup.toml")),
    ] {
        assert!(path.exists(), "{}", path.display());
        files.push((format!("take away: {name}"), "take away", path));
    }
    for (name, dir) in [
        ("env.d", host.env_dir()),
        ("the state", at("state")),
        ("the runtime", at("run")),
        ("the runs", at("run/runs")),
        ("alice's logs", at("logs/alice")),
        ("alice's directory", own),
        ("the doors", at("run/doors/alice")),
    ] {
        files.push((format!("write: a new one in {name}"), "write", dir.join("mallory.env")));
        files.push((format!("symbolic link: in {name}"), "symbolic link", dir.join("mallory-link.env")));
    }
    for dir in ["state", "logs", "logs/alice", "run/runs", "state/instances/alice/intruder"] {
        files.push((format!("watch: {dir}"), "watch", at(dir)));
        files.push((format!("fanotify: {dir}"), "fanotify", at(dir)));
    }
    for fifo in fifos {
        let name = fifo.file_name().unwrap().to_string_lossy().into_owned();
        files.push((format!("listen in: {name}"), "listen in", fifo.clone()));
        files.push((format!("speak in: {name}"), "speak in", fifo));
    }
    files.push(("unix socket: alice's door".into(), "unix socket", at("run/doors/alice/intruder.sock")));
    let groups = seen::cgroup_of(host);
    let own_group = format!("run-{}", host.instance("alice").run.unwrap());
    for group in seen::cgroups(host).into_iter().filter(|group| *group == own_group) {
        for file in ["cgroup.procs", "cgroup.kill", "cgroup.freeze"] {
            let path = groups.join(&group).join(file);
            if path.exists() {
                files.push((format!("write: {file} of {group}"), "write", path));
            }
        }
    }
    files
}

/// What each comes to, tried by a process of this uid and no other group, in a place of its own.
fn tried(scene: &Scene, uid: u32, attacks: &[Try]) -> BTreeMap<String, String> {
    let own = scene.host.path().join("bin/intruder");
    let program = if own.exists() { own } else { example("intruder") };
    let one = |attack: &Try| {
        let mut command = Command::new(&program);
        command.args(["--try", attack.kind]).arg(&attack.path);
        command.args([attack.pid.to_string(), attack.port.to_string(), attack.text.clone()]);
        let output = command.current_dir(scene.commons.path()).uid(uid).gid(uid).output().unwrap();
        text(&output.stdout).trim().to_owned()
    };
    attacks.iter().map(|attack| (attack.name.clone(), one(attack))).collect()
}

/// What stands in `/proc` for everybody: README.md says it.
const SEEN: [&str; 3] = ["cmdline of alice", "cmdline of the daemon", "cmdline of the launcher"];

/// Nobody of `strangers` gets through but where `open` says so; root gets through everywhere but where
/// something else than whose it is stands in the way.
#[track_caller]
fn assert_closed_to(scene: &Scene, strangers: &[u32], open: &[&str], not_roots: &[&str]) {
    // Nothing hides it from them, so it is as closed as systemd makes it.
    std::fs::set_permissions(scene.given.path(), PermissionsExt::from_mode(0o500)).unwrap();
    let attacks = attacks(scene);
    let before = scene.host.instance("alice");
    let secret = scene.host.path().join("state/instances/alice/intruder/secret");
    let meta = |path: &std::path::Path| {
        let meta = std::fs::metadata(path).unwrap();
        (meta.uid(), meta.mode(), meta.nlink(), meta.ino())
    };
    let was = meta(&secret);
    for stranger in strangers {
        assert_open(&tried(scene, *stranger, &attacks), &[&SEEN[..], &[PORT], open].concat());
    }
    let after = scene.host.instance("alice");
    assert_eq!((after.state, after.run, after.pid), (StateName::Up, before.run, before.pid));
    assert_eq!(meta(&secret), was);

    let roots = tried(scene, 0, &attacks);
    let closed: Vec<_> = roots.iter().filter(|(_, said)| *said != "open").collect();
    let unexpected: Vec<_> = closed.iter().filter(|(name, _)| !not_roots.contains(&name.as_str())).collect();
    assert!((175..190).contains(&attacks.len()), "README.md says how many: {}", attacks.len());
    assert!(unexpected.is_empty(), "no attack, for root does not get through either: {unexpected:#?}");
}

/// The user that is removed last has a file.
const HAS_A_FILE: [&str; 2] = ["ask: DELETE /v1/users/alice", "ask: POST /v1/unset?user=alice&name=PLANTED"];
/// mcpsup.toml describes no such credential, and a body of `{x` is one.
const NOT_ASKED_WELL: [&str; 1] = ["ask: POST /v1/set?user=alice&name=PLANTED {x"];
/// The launcher has no environment; and root of a container may not ask for limits, as alice may.
/// Nor write to a /proc/sys that is for reading.
const NOT_ROOTS: [&str; 5] = [
    "environ of the launcher",
    "limits of alice",
    "limits of the daemon",
    "limits of the launcher",
    "the core pattern",
];

#[test]
fn whoever_is_logged_in_reaches_nothing_of_anothers_account_outside_any_run() {
    if !seen::is_root() {
        return;
    }
    for (alice, bob) in [("MCPSUP_RUN_AS=daemon", "MCPSUP_RUN_AS=nobody"), ("", "")] {
        let mut scene = Scene::new("[door]\nunix = true");
        scene.host.start();
        scene.begin(alice, bob);
        if has(&scene, Tier::Accounts) {
            // Who has an account of their own may make such a socket, and nothing guards it. Through the
            // state directory everybody gets to what is their own.
            let open = ["alice's abstract socket", "stat: the key of digests", "stat: the table of ports"];
            let not_roots = [&HAS_A_FILE[..], &NOT_ASKED_WELL, &NOT_ROOTS].concat();
            assert_closed_to(&scene, &[NOBODY, MALLORY], &open, &not_roots);
        }
    }
}

#[test]
fn whoever_is_logged_in_reaches_nothing_of_an_ordinary_users_daemon() {
    if !seen::is_root() {
        return;
    }
    for (without, tier) in [("", Tier::Namespaces), ("namespaces", Tier::Landlock)] {
        let mut scene = Scene::new("[door]\nunix = true");
        scene.start_as_ordinary(without);
        scene.begin("", "");
        if has(&scene, tier) {
            // Their servers can make none of these, and a shared uid opens nobody's door.
            let none = ["alice's abstract socket", "alice's unix socket", "alice's door"];
            let not_roots = [&HAS_A_FILE[..], &NOT_ASKED_WELL, &NOT_ROOTS, &none].concat();
            assert_closed_to(&scene, &[DAEMON, MALLORY], &[], &not_roots);
        }
    }
}

/// Whose daemon it is stands between them and everybody else there too: a cage keeps runs in.
#[test]
fn whoever_is_logged_in_reaches_nothing_of_an_ordinary_users_daemon_without_any_cage() {
    if !seen::is_root() {
        return;
    }
    let mut scene = Scene::new("[door]\nunix = true");
    scene.start_as_ordinary("namespaces,landlock");
    scene.begin("", "");
    if has(&scene, Tier::None) {
        let none = ["alice's abstract socket", "alice's unix socket", "alice's door"];
        let not_roots = [&HAS_A_FILE[..], &NOT_ASKED_WELL, &NOT_ROOTS, &none].concat();
        assert_closed_to(&scene, &[DAEMON, MALLORY], &[], &not_roots);
    }
}

/// A process of somebody's that holds connections until it is let go.
struct Holding {
    child: Child,
    held: String,
}

impl Holding {
    fn at(place: &str, number: usize, uid: u32) -> Self {
        let mut command = Command::new(example("intruder"));
        command.args(["--hold", place, &number.to_string()]).uid(uid).gid(uid);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut held = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut held).unwrap();
        Self { child, held }
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        self.child.wait().unwrap();
    }
}

#[test]
fn strangers_who_hold_connections_by_the_thousand_keep_nobody_out_and_cost_few_descriptors() {
    if !seen::is_root() {
        return;
    }
    let mut host = Host::new(&notes());
    for user in ["alice", "bob", "carol"] {
        host.save(user, &format!("NOTES_TOKEN={user}s-own-token\n"));
    }
    host.start();
    host.until_all_up(3);
    let descriptors = || std::fs::read_dir(format!("/proc/{}/fd", host.daemon_pid())).unwrap().count();
    let before = descriptors();
    let socket = host.path().join("run/control.sock");
    let mut holding = Vec::new();
    for uid in [MALLORY, MALLORY + 1] {
        for user in ["alice", "bob", "carol"] {
            holding.push(Holding::at(&host.instance(user).port.unwrap().to_string(), 1000, uid));
        }
        holding.push(Holding::at(socket.to_str().unwrap(), 1000, uid));
    }
    assert!(holding.iter().all(|one| one.held.starts_with("1000")), "they did connect");
    // Of each 64 at all doors and 16 at the socket.
    host.until("what is too much is closed", || descriptors() <= before + 2 * (64 + 16) + 20);
    for user in ["alice", "bob", "carol"] {
        assert!(host.call(user, "whoami", "{}").unwrap().starts_with(user));
    }
    assert_eq!(host.status().instances.len(), 3);
    drop(holding);
    host.until("all are let go", || descriptors() <= before + 5);
}

#[test]
fn what_a_user_puts_into_their_own_directories_leads_the_daemon_nowhere() {
    if !seen::is_root() {
        return;
    }
    let mut scene = Scene::new("");
    scene.host.start();
    scene.begin("MCPSUP_RUN_AS=daemon", "MCPSUP_RUN_AS=nobody");
    let host = &scene.host;
    let [alice, bob] =
        ["alice", "bob"].map(|user| host.path().join(format!("state/instances/{user}/intruder")));
    let passing = host.path().join("run/instances/bob/intruder");
    let seen = || {
        let of = |path: PathBuf| {
            let meta = std::fs::symlink_metadata(&path).unwrap();
            (path, meta.uid(), meta.mode(), meta.ino())
        };
        [alice.clone(), alice.join("secret"), alice.join("tmp"), host.path().join("state"), host.env_dir()]
            .map(of)
    };
    let before = seen();
    // As bob, who may do in there what he likes, while the daemon works there as root.
    for target in [alice.clone(), alice.join("tmp"), host.path().join("state"), host.env_dir()] {
        let script = "rm -rf \"$1/tmp\" && ln -s \"$3\" \"$1/tmp\" && rm -rf \"$2\"/* && ln -s \"$3\" \"$2/http.sock\" && ln -s \"$3\" \"$2/dir\"";
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", script, "sh"]).args([&bob, &passing, &target]).uid(NOBODY).gid(NOBODY);
        assert!(shell.status().unwrap().success());
        let run = host.instance("bob").run;
        host.ok(&["restart", "bob", "--no-wait"]);
        host.until("it was tried", || host.instance("bob").run > run);
        assert_eq!(seen(), before, "{}", target.display());
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", "rm -rf \"$1/tmp\"", "sh"]).arg(&bob).uid(NOBODY).gid(NOBODY);
        assert!(shell.status().unwrap().success());
    }
    host.ok(&["restart", "bob"]);
    host.ok(&["remove", "bob", "--yes"]);
    assert_eq!(seen(), before);
    assert!(host.call("alice", "prepare", "{}").is_ok());
}

#[test]
fn what_a_server_asks_one_user_is_not_answered_at_anothers_door() {
    let mut host = Host::new(&crate::stdio::lines(""));
    host.save("alice", "TOKEN=alices-own-token\n");
    host.save("bob", "TOKEN=bobs-own-token\n");
    host.start();
    host.until_all_up(2);
    let question = r#"{"jsonrpc":"2.0","id":"q","method":"elicitation/create","params":{"message":"?"}}"#;
    let call = |user: &str, more: serde_json::Value| {
        let version = "2026-07-28";
        let mut params = serde_json::json!({
            "name": "garbage", "arguments": { "lines": 1, "text": question },
            "_meta": {
                "io.modelcontextprotocol/protocolVersion": version,
                "io.modelcontextprotocol/clientInfo": { "name": "t", "version": "1" },
                "io.modelcontextprotocol/clientCapabilities": { "elicitation": {} },
            },
        });
        params.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let body = serde_json::json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params });
        let headers = host.header(user)
            + &format!("MCP-Protocol-Version: {version}\r\nMcp-Method: tools/call\r\nMcp-Name: garbage\r\n");
        let request = wire::post_text(host.instance(user).port.unwrap(), &headers, &body.to_string());
        let mut stream = wire::door(host.instance(user).port.unwrap());
        stream.write_all(request.as_bytes()).unwrap();
        crate::stdio::message(&wire::rest(&mut stream))
    };
    let asked = call("alice", serde_json::json!({}));
    let state = &asked["result"]["requestState"];
    assert!(state.is_string(), "{asked}");
    let answered =
        serde_json::json!({ "requestState": state, "inputResponses": { "1": { "action": "accept" } } });
    let at_bobs = call("bob", answered.clone());
    assert_eq!(at_bobs["error"]["code"], -32602, "{at_bobs}");
    let at_hers = call("alice", answered);
    assert_eq!(at_hers["result"]["content"][0]["text"], "said", "{at_hers}");
}

#[test]
fn a_live_session_of_anothers_is_none_at_ones_own_door() {
    for sessions in ["shared", "isolated"] {
        let mut host = Host::new(&format!(
            "[server.lines]\ncommand = [{:?}]\ntransport = \"stdio\"\nsessions = \"{sessions}\"\n",
            example("lines")
        ));
        host.save("alice", "TOKEN=alices-own-token\n");
        host.save("bob", "TOKEN=bobs-own-token\n");
        host.start();
        host.until_all_up(2);
        let [alice, bob] = ["alice", "bob"].map(|user| Client::begin(&host, user));
        let port = host.instance("bob").port.unwrap();
        let headers = host.header("bob") + &alice.headers();
        for body in [wire::tool("pid", "{}"), "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\"}".into()] {
            assert_eq!(wire::post(port, &headers, &body).status, 404, "{sessions}");
        }
        let delete = format!("DELETE /mcp HTTP/1.1\r\nHost: localhost\r\n{headers}Connection: close\r\n\r\n");
        assert_eq!(wire::ask_door(port, &delete).status, 404, "{sessions}");
        // Both go on.
        assert_ne!(alice.text("pid", &serde_json::json!({})), bob.text("pid", &serde_json::json!({})));
    }
}
