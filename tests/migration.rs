//! docs/migration beside the program: a newcomer with each page. What was before runs on its port, the
//! page's mcpsup.toml and env file are put where it says, and its commands are typed in the order in which
//! they stand: then alice's server is up at the old port. "Back" brings back what was before.
//!
//! All of it happens in a scratch directory: what begins with /etc, /opt, /srv, /usr or /var lies there,
//! and `sudo`, `systemctl`, `docker`, `supervisorctl`, `pm2` and `npm` are stand-ins, as are the servers.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a test starts programs and stops at the first thing that is wrong"
)]

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use regex_lite::Regex;

const MCPSUP: &str = env!("CARGO_BIN_EXE_mcpsup");
const LIMIT: Duration = Duration::from_secs(60);

/// Ports of one test's own, in twenties; the first is held so that nobody else takes the rest.
fn ports() -> (u16, TcpListener) {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    for _ in 0..1000 {
        let first = 10_801 + NEXT.fetch_add(1, Ordering::Relaxed) % 9 * 20;
        if let Ok(claim) = TcpListener::bind(("127.0.0.1", first)) {
            return (first, claim);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("every port is taken");
}

/// A host of which a page speaks, in a scratch directory.
struct World {
    dir: tempfile::TempDir,
    page: String,
    first: u16,
    _claim: TcpListener,
}

/// What stands for the programs that the pages speak of. `old` is whatever ran alice's server before.
const PROGRAMS: [(&str, &str); 14] = [
    ("bin/sudo", r#"exec "$@""#),
    ("bin/sudoedit", r#"cp "$HERE/written.toml" "$1""#),
    ("bin/npm", "exit 0"),
    (
        "bin/systemctl",
        r#"case "$*" in
        "enable --now mcpsup" | "start mcpsup")
            mcpsup ports >/dev/null 2>&1 && exit
            mcpsup daemon >"$HERE/daemon.log" 2>&1 & daemon=$!
            until mcpsup ports >/dev/null 2>&1; do kill -0 $daemon || exit 1; sleep 0.05; done ;;
        "disable --now notion-mcp") exec old stop ;;
        *) echo "systemctl $*: not on any page" >&2; exit 1 ;;
        esac"#,
    ),
    (
        "bin/docker",
        r#"case $1 in
        stop) exec old stop ;;
        start) exec old start ;;
        run) mkdir -p "$HERE/data"; echo kept >"$HERE/data/kept"; exec tar -C "$HERE/data" -cf - . ;;
        *) echo "docker $*: not on any page" >&2; exit 1 ;;
        esac"#,
    ),
    ("bin/supervisorctl", r#"exec old "$1""#),
    (
        "bin/pm2",
        r#"echo '[{"name": "brave-alice", "pm2_env": {"BRAVE_API_KEY": "k1", "GITHUB_PERSONAL_ACCESS_TOKEN": "k2", "PATH": "/"}}]'"#,
    ),
    (
        "bin/old",
        r#"case $1 in
        start)
            NOTES_PORT=$OLD_PORT NOTES_TOKEN=old NOTES_USER=before NOTES_DIR=$HERE notes >"$HERE/old.log" 2>&1 &
            echo $! >"$HERE/old.pid"
            exec old listens ;;
        listens)
            until grep -qs listening "$HERE/old.log"; do
                kill -0 "$(cat "$HERE/old.pid")" || { cat "$HERE/old.log" >&2; exit 1; }
                sleep 0.05
            done ;;
        stop)
            pid=$(cat "$HERE/old.pid"); kill "$pid"
            while kill -0 "$pid" 2>/dev/null; do sleep 0.05; done ;;
        esac"#,
    ),
    ("opt/mcp/bin/notion-mcp-server", r#"exec "$HERE/bin/lines""#),
    ("usr/local/bin/github-mcp-server", r#"exec "$HERE/bin/lines""#),
    (
        "opt/mcp/bin/brave-search-mcp-server",
        r#"NOTES_PORT=$BRAVE_MCP_PORT NOTES_TOKEN=$BRAVE_API_KEY NOTES_DIR=$TMPDIR exec "$HERE/bin/notes""#,
    ),
    (
        "usr/bin/node",
        r#"NOTES_PORT=$SDP_HTTP_PORT NOTES_TOKEN=$SDP_CLIENT_SECRET NOTES_USER=${USER:-nobody} NOTES_DIR=${TMPDIR:-$HERE} exec "$HERE/bin/notes""#,
    ),
    ("opt/sdp-mcp/dist/index.js", ""),
    ("home/nothing", ""),
];

impl World {
    fn of(name: &str) -> Self {
        let dir = tempfile::Builder::new().prefix("mcpsup-migration-").tempdir_in("/tmp").unwrap();
        fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o711)).unwrap();
        let (first, claim) = ports();
        let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/migration").join(name);
        let page = fs::read_to_string(page).unwrap();
        // Every server's port, door and process, is this world's.
        let page = page.replace("3456", &(first + 1).to_string()).replace("3457", &(first + 2).to_string());
        // Who had a port for everybody still has it.
        let before = if page.contains(":3000") { first + 8 } else { first + 1 };
        let world = Self { dir, page, first, _claim: claim };
        for (path, does) in PROGRAMS {
            let does = does.replace("$HERE", &world.here()).replace("$OLD_PORT", &before.to_string());
            world.write(path, &format!("#!/bin/bash\n{does}\n"), 0o755);
        }
        for program in ["mcpsup", "examples/notes", "examples/lines"] {
            let built = Path::new(MCPSUP).parent().unwrap().join(program);
            let to = world.at("bin").join(built.file_name().unwrap());
            // By another program: what this process has open for writing could not be executed.
            assert!(Command::new("cp").arg(built).arg(&to).status().unwrap().success());
            fs::set_permissions(to, PermissionsExt::from_mode(0o755)).unwrap();
        }
        for path in ["etc/mcpsup", "etc/mcp", "srv/mcp", "var/run", "var/log", "var/lib"] {
            fs::create_dir_all(world.at(path)).unwrap();
        }
        std::os::unix::fs::symlink("../../etc/mcpsup/state", world.at("var/lib/mcpsup")).unwrap();
        world
    }

    fn at(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    fn here(&self) -> String {
        self.dir.path().display().to_string()
    }

    fn write(&self, path: &str, text: &str, mode: u32) {
        let path = self.at(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    }

    /// A text of the page, with its paths in here.
    fn placed(&self, text: &str) -> String {
        let path = Regex::new(r"(^|[\s'\x22=(>])/(etc|opt|srv|usr|var)/").unwrap();
        path.replace_all(text, format!("${{1}}{}/$2/", self.here())).into_owned()
    }

    /// What stands under a heading.
    fn section(&self, heading: &str) -> &str {
        let from = self.page.find(&format!("\n## {heading}\n")).unwrap_or_else(|| panic!("no {heading}"));
        let rest = &self.page[from + 4..];
        rest.find("\n## ").map_or(rest, |end| &rest[..end])
    }

    /// The blocks of a kind under a heading.
    fn blocks(&self, heading: &str, kind: &str) -> Vec<String> {
        let open = format!("```{kind}\n");
        let blocks = self.section(heading).split(open.as_str()).skip(1);
        blocks.map(|rest| self.placed(rest.split("```").next().unwrap())).collect()
    }

    /// mcpsup.toml as the page has it, with ports that are free here, and the stand-ins where servers may
    /// see them.
    fn configured(&self) {
        let toml = self.blocks("After", "toml").remove(0);
        let names = Regex::new(r"(?m)^\[server\.([\w-]+)\]$").unwrap();
        let bin = self.at("bin");
        let allowed: Vec<String> = names
            .captures_iter(&toml)
            .map(|name| format!("\n[server.{}.allow]\npaths = [\"{}\"]\n", &name[1], bin.display()))
            .collect();
        let (doors, backends) = (self.first + 1, self.first + 10);
        let head = format!(
            "[ports]\nrange = \"{doors}-{}\"\nbackend_range = \"{backends}-{}\"\n",
            backends - 1,
            backends + 9
        );
        // Limits are for hosts that have the controllers.
        let limits = Regex::new(r"(?m)^(memory|cpu|tasks) .*\n").unwrap();
        let toml = limits.replace_all(&toml, "");
        self.write("written.toml", &format!("{head}{toml}{}", allowed.concat()), 0o644);
    }

    fn command(&self, script: &str) -> Command {
        let mut command = Command::new("bash");
        // Alice is root here, or whoever runs the test, and has to be named.
        let script = script.replace("mcpsup client --", "mcpsup client alice --");
        // With the input from a terminal or not: nothing of it is meant for these.
        command.args(["-c", &format!("set -ex -o pipefail\n{script}")]).stdin(Stdio::null());
        let path = format!("{0}/bin:{0}/usr/bin:{1}", self.here(), std::env::var("PATH").unwrap());
        command.env_clear().env("PATH", path).env("HOME", self.at("home")).env("NO_COLOR", "1");
        command.env("MCPSUP_CONFIG", self.at("etc/mcpsup/mcpsup.toml")).current_dir(self.at("home"));
        command
    }

    /// Types a script; all of it must succeed. What it says goes to a file, which a daemon that goes on
    /// does not keep open for ever as it would a pipe.
    fn types(&self, script: &str) -> String {
        // What the doctor finds wrong may be this machine's own: a disk that is nearly full.
        let script = script.replace("mcpsup doctor alice", "mcpsup doctor alice || [ $? = 1 ]");
        let said = self.at("said");
        let file = fs::File::create(&said).unwrap();
        let status = self.command(&script).stdout(file.try_clone().unwrap()).stderr(file).status().unwrap();
        let said = fs::read_to_string(said).unwrap();
        let daemon = fs::read_to_string(self.at("daemon.log")).unwrap_or_default();
        assert!(status.success(), "{script}\nsaid:\n{said}\nthe daemon:\n{daemon}");
        let examined = !script.contains("mcpsup doctor") || said.contains("\nserver   alice/");
        assert!(examined, "{script}\nsaid:\n{said}\nthe daemon:\n{daemon}");
        said
    }

    fn asks(&self, script: &str) -> Output {
        self.command(script).output().unwrap()
    }

    /// Alice's servers are up, each at its port.
    fn has(&self, servers: &[(&str, u16)]) {
        let status = self.asks("mcpsup status alice");
        let status = String::from_utf8_lossy(&status.stdout).into_owned();
        for (server, nth) in servers {
            let line = Regex::new(&format!(r"alice +{server} +up +{}", self.first + nth)).unwrap();
            assert!(line.is_match(&status), "{server} at {nth}: {status}");
        }
    }

    /// Whoever answers at the old port: what was there before does not know the door's own headers.
    fn old_one_listens(&self) -> bool {
        let pid = fs::read_to_string(self.at("old.pid")).unwrap();
        let log = fs::read_to_string(self.at("old.log")).unwrap_or_default();
        Path::new(&format!("/proc/{}/exe", pid.trim())).exists() && log.contains("listening")
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let ends = |file: &Path, program: &str| {
            let Ok(pid) = fs::read_to_string(file) else { return };
            let pid = pid.trim();
            let is_it = || {
                fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.contains(program))
            };
            if !is_it() {
                return;
            }
            Command::new("kill").arg(pid).status().unwrap();
            let begun = Instant::now();
            while is_it() && begun.elapsed() < LIMIT {
                std::thread::sleep(Duration::from_millis(5));
            }
        };
        ends(&self.at("etc/mcpsup/state/lock"), "mcpsup");
        ends(&self.at("old.pid"), "notes");
    }
}

#[test]
fn start_scripts_become_env_files_and_come_back() {
    let world = World::of("start-scripts.md");
    world.configured();
    let mut env = world.blocks("Before", "env").remove(0);
    // Under root's daemon alice has an account: an entry as it was before is one for who has.
    if nix::unistd::geteuid().is_root() {
        env.push_str("MCPSUP_RUN_AS=nobody\n");
    }
    world.write("opt/sdp-mcp/.env.alice", &env, 0o644);
    let script =
        world.blocks("Before", "").into_iter().find(|block| block.starts_with("#!/bin/bash")).unwrap();
    world.write("opt/sdp-mcp/start.sh", &script, 0o755);
    let entry = format!(
        "{{\"mcpServers\": {{\"service-desk-plus\": {{\"type\": \"http\", \"url\": \"http://127.0.0.1:{}/mcp\"}}}}}}",
        world.first + 1
    );
    world.write("home/.mcp.json", &entry, 0o644);
    // The script's own pid file and log say who is the old one.
    for (link, to) in [("old.pid", "var/run/sdp-alice.pid"), ("old.log", "var/log/sdp-alice.log")] {
        std::os::unix::fs::symlink(world.at(to), world.at(link)).unwrap();
    }
    let starts = format!("{}/opt/sdp-mcp/start.sh alice", world.here());
    world.types(&format!("{starts}\nold listens"));
    assert!(world.old_one_listens());

    world.types(&world.blocks("The way", "sh").concat());
    world.has(&[("service-desk-plus", 1)]);
    assert!(!world.old_one_listens());

    // The script adds to its log.
    fs::remove_file(world.at("var/log/sdp-alice.log")).unwrap();
    world.types(&format!("{}\nold listens", world.blocks("Back", "sh").concat()));
    assert!(world.old_one_listens());
}

#[test]
fn a_shared_token_becomes_a_credential_of_each_users_own() {
    let world = World::of("shared-token.md");
    world.configured();
    world.write("home/.mcp.json", &world.blocks("Before", "json").remove(0), 0o644);
    world.types("old start");
    let env = world.blocks("After", "env").remove(0);
    // What alice is asked for comes from a pipe instead of her terminal.
    let way = world
        .blocks("The way", "sh")
        .concat()
        .replace("mcpsup add alice", &format!("mcpsup add alice --from - <<<'{}'", env.trim()));
    world.types(&way);
    world.has(&[("notion", 1)]);
    assert!(!world.old_one_listens());
    let written = fs::read_to_string(world.at("home/.mcp.json")).unwrap();
    assert!(!written.contains("everybody-knows-this"), "{written}");
    assert!(world.at("home/.mcp.json.bak-mcpsup").is_file());
}

#[test]
fn entries_of_other_supervisors_become_two_files_and_come_back() {
    let world = World::of("supervisors.md");
    world.configured();
    let env = world.blocks("After", "env").remove(0);
    world.write("etc/mcp/alice.env", &env, 0o644);
    world.types("old start");
    let blocks = world.blocks("The way", "sh");
    let from_pm2 = blocks.iter().position(|block| block.contains("pm2 jlist")).unwrap();
    let mut way = blocks.clone();
    way.remove(from_pm2);
    world.types(&way.concat().replace("client --check", "client --write\nmcpsup client --check"));
    world.has(&[("github", 1), ("brave-search", 2)]);
    assert!(!world.old_one_listens());

    world.types(&world.blocks("Back", "sh").concat());
    assert!(world.old_one_listens());
    assert!(world.at("etc/mcpsup/alice.env.was").is_file());

    // The other way to the file.
    if world.asks("jq --version").status.success() {
        let said = world.types(&blocks[from_pm2]);
        assert!(said.contains("wrote "), "{said}");
        let file = fs::read_to_string(world.at("etc/mcpsup/env.d/alice.env")).unwrap();
        assert_eq!(file.lines().collect::<Vec<_>>(), ["BRAVE_API_KEY=k1", "GITHUB_PERSONAL_ACCESS_TOKEN=k2"]);
    }
}

#[test]
fn a_container_becomes_a_process_with_its_data_and_comes_back() {
    let world = World::of("docker.md");
    world.configured();
    let env = world.blocks("After", "env").remove(0);
    let env: String =
        env.lines().filter(|line| !line.starts_with("MCPSUP_PORT")).flat_map(|line| [line, "\n"]).collect();
    world.write("srv/mcp/alice.env", &env, 0o644);
    world.types("old start");
    let all = [world.blocks("After", "sh"), world.blocks("The way", "sh")].concat().concat();
    world.types(&all.replace("client --check", "client --write\nmcpsup client --check"));
    world.has(&[("brave-search", 1)]);
    assert!(!world.old_one_listens());
    let kept = world.at("var/lib/mcpsup/instances/alice/brave-search/kept");
    let owner = |path: &Path| std::os::unix::fs::MetadataExt::uid(&fs::metadata(path).unwrap());
    assert_eq!(owner(&kept), owner(kept.parent().unwrap()));

    world.types(&world.blocks("Back", "sh").concat());
    assert!(world.old_one_listens());
}
