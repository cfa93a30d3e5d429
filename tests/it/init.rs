//! `mcpsup init`, on a terminal of the test's own and by flags: from nothing to a server that is up.

use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::host::{LIMIT, MCPSUP, example, text};

/// Where somebody begins.
struct Beginning {
    dir: tempfile::TempDir,
    /// Where mcpsup.toml is to be, from there.
    config: PathBuf,
}

impl Beginning {
    fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("mcpsup-it-").tempdir().unwrap();
        std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o711)).unwrap();
        Self { dir, config: "mcpsup.toml".into() }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(MCPSUP);
        command.arg("--config").arg(self.dir.path().join(&self.config)).args(args);
        command
            .env("HOME", self.dir.path())
            .env("NO_COLOR", "1")
            .env("TERM", "dumb")
            .current_dir(self.dir.path());
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        self.command(args).stdin(Stdio::null()).output().unwrap()
    }

    /// The same by somebody whose umask closes nothing.
    fn run_openly(&self, args: &[&str]) -> Output {
        let plain = self.command(args);
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "umask 0; exec \"$@\"", "sh"]).arg(plain.get_program()).args(plain.get_args());
        command.envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.current_dir(self.dir.path()).stdin(Stdio::null()).output().unwrap()
    }

    fn read(&self, path: &str) -> String {
        std::fs::read_to_string(self.at(path)).unwrap()
    }
}

impl Drop for Beginning {
    fn drop(&mut self) {
        // The daemon that init left running, by the pid that it locked its state with.
        let state = self.dir.path().join(&self.config).with_file_name("state");
        let Ok(pid) = std::fs::read_to_string(state.join("lock")) else { return };
        let pid: i32 = pid.trim().parse().unwrap();
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGTERM).unwrap();
        until(|| !crate::host::is_alive(pid), || "the daemon does not end".to_owned());
    }
}

/// A person at a terminal.
struct Person {
    terminal: std::fs::File,
    shown: Arc<Mutex<String>>,
    child: Child,
    /// How much of what is shown has been answered.
    asked: usize,
}

impl Person {
    fn sits_at(mut command: Command) -> Self {
        let pty = nix::pty::openpty(None, None).unwrap();
        let slave = || Stdio::from(pty.slave.try_clone().unwrap());
        let child = command.stdin(slave()).stdout(slave()).stderr(slave()).spawn().unwrap();
        drop(command);
        drop(pty.slave);
        let terminal = std::fs::File::from(pty.master);
        let shown = Arc::new(Mutex::new(String::new()));
        let (mut reader, copy) = (terminal.try_clone().unwrap(), Arc::clone(&shown));
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            // EIO is how the end of a terminal's other side looks.
            while let Ok(more @ 1..) = reader.read(&mut bytes) {
                copy.lock().unwrap().push_str(&String::from_utf8_lossy(&bytes[..more]));
            }
        });
        Self { terminal, shown, child, asked: 0 }
    }

    fn page(&self) -> String {
        self.shown.lock().unwrap().replace('\r', "")
    }

    /// Waits until this is asked, and answers.
    fn answers(&mut self, question: &str, answer: &str) {
        self.waits_for(question);
        writeln!(self.terminal, "{answer}").unwrap();
    }

    /// The same where what is typed is not to be seen: once the terminal shows nothing.
    fn answers_unseen(&mut self, question: &str, answer: &str) {
        self.waits_for(question);
        let shows = |person: &Self| {
            let modes = nix::sys::termios::tcgetattr(&person.terminal).unwrap();
            modes.local_flags.contains(nix::sys::termios::LocalFlags::ECHO)
        };
        until(|| !shows(self), || self.page());
        writeln!(self.terminal, "{answer}").unwrap();
    }

    /// Each question is waited for after the last one.
    fn waits_for(&mut self, question: &str) {
        let from = self.asked;
        until(
            || self.page()[from..].contains(question),
            || format!("{question:?} was not asked:\n{}", self.page()),
        );
        self.asked += self.page()[from..].find(question).unwrap() + question.len();
    }

    /// Waits for the end, which is said with `last`.
    fn leaves(mut self, last: &str) -> (Option<i32>, String) {
        let status = self.child.wait().unwrap();
        // It may still be on its way through the terminal.
        until(|| self.page().contains(last), || self.page());
        let page = self.page();
        (status.code(), page)
    }
}

impl Drop for Person {
    fn drop(&mut self) {
        self.child.kill().unwrap_or_default();
        self.child.wait().unwrap();
    }
}

/// Waits for a predicate, and says what was there instead if it never comes true.
fn until(mut is_so: impl FnMut() -> bool, instead: impl Fn() -> String) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < LIMIT, "waited in vain: {}", instead());
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The client's entry is written, and leads to a server that answers.
fn has_round_trip(place: &Beginning) {
    let written = place.run(&["client", "alice", "--write"]);
    assert!(written.status.success(), "{}", text(&written.stderr));
    let checked = place.run(&["client", "alice", "--check"]);
    assert!(checked.status.success(), "{}{}", text(&checked.stdout), text(&checked.stderr));
    assert!(text(&checked.stdout).contains(": answers"), "{}", text(&checked.stdout));
}

fn lines() -> String {
    example("lines").display().to_string()
}

#[test]
fn a_newcomer_answers_three_questions_and_has_a_server_that_is_up() {
    let place = Beginning::new();
    let mut person = Person::sits_at(place.command(&["init"]));
    person.answers("which of them, or the command of your own:", "githup");
    person.waits_for("mcpsup knows no server \"githup\"");
    person.answers("which of them, or the command of your own:", &lines());
    person.answers("whose server is the first (their account's name):", "alice");
    person.answers("start the daemon now? [yes]", "");
    let (status, page) = person.leaves("client alice --write");
    assert_eq!(status, Some(0), "{page}");
    for part in ["Servers that mcpsup knows:", "alice: up on ", "alice  lines   up ", "client alice --write"]
    {
        assert!(page.contains(part), "{part}: {page}");
    }
    has_round_trip(&place);

    // The same by flags, in another place.
    let other = Beginning::new();
    let lines = lines();
    let done = other.run(&["init", "--user", "alice", "--start", "--", &lines]);
    assert!(done.status.success(), "{}{}", text(&done.stdout), text(&done.stderr));
    assert!(text(&done.stdout).contains("alice: up on "), "{}", text(&done.stdout));
    for file in ["mcpsup.toml", "env.d/alice.env", "env.d/example"] {
        assert_eq!(other.read(file), place.read(file), "{file}");
    }
    has_round_trip(&other);
    // A second time nothing is overwritten.
    assert_eq!(other.run(&["init", "--user", "bob", "--", &lines]).status.code(), Some(1));
}

/// Directories and files below `dir` that others may write.
fn open_to_writers(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let Ok(meta) = path.symlink_metadata() else { continue };
        if (meta.is_dir() || meta.is_file()) && meta.permissions().mode() & 0o022 != 0 {
            found.push(path.clone());
        }
        if meta.is_dir() {
            found.extend(open_to_writers(&path));
        }
    }
    found
}

#[test]
fn nothing_is_left_open_to_others_by_an_open_umask() {
    let mut place = Beginning::new();
    place.config = "deep/er/mcpsup.toml".into();
    let lines = lines();
    for args in [
        &["init", "--user", "alice", "--start", "--", &lines][..],
        &["client", "alice", "--for", "codex", "--write"],
    ] {
        let done = place.run_openly(args);
        assert!(done.status.success(), "{args:?}: {}{}", text(&done.stdout), text(&done.stderr));
    }
    assert!(place.at(".codex/config.toml").is_file());
    assert_eq!(open_to_writers(place.dir.path()), Vec::<PathBuf>::new());
}

#[test]
fn a_ready_server_asks_for_its_credentials_and_shows_none() {
    const TOKEN: &str = "ghp_0123456789abcdefABCDEF";
    let place = Beginning::new();
    let mut person = Person::sits_at(place.command(&["init", "--server", "github", "--user", "alice"]));
    if !Path::new("/usr/local/bin/github-mcp-server").exists() {
        person.answers("try again, or go on without it? [again]", "go on");
        assert!(person.page().contains("/usr/local/bin/github-mcp-server is not there"), "{}", person.page());
        assert!(person.page().contains("https://github.com/github/github-mcp-server/releases"));
    }
    person.answers("start the daemon now? [yes]", "no");
    let asked = "GITHUB_PERSONAL_ACCESS_TOKEN (GitHub personal access token, for github):";
    person.answers_unseen("Enter for none):", "");
    person.answers_unseen(asked, "no-token-at-all");
    person.waits_for("GITHUB_PERSONAL_ACCESS_TOKEN must match ");
    person.answers_unseen(asked, TOKEN);
    let (status, page) = person.leaves("client alice --write");
    assert_eq!(status, Some(0), "{page}");
    assert!(page.contains("next: start the daemon: mcpsup --config "), "{page}");
    assert!(!page.contains(TOKEN) && !page.contains("no-token-at-all"), "{page}");
    let file = place.at("env.d/alice.env");
    assert!(place.read("env.d/alice.env").contains(TOKEN));
    assert_eq!(std::fs::metadata(file).unwrap().permissions().mode() & 0o7777, 0o600);

    // By flags, with the credentials from a pipe: the same files.
    let other = Beginning::new();
    let mut command =
        other.command(&["init", "--server", "github", "--user", "alice", "--from", "-", "--force", "--json"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    writeln!(child.stdin.take().unwrap(), "GITHUB_PERSONAL_ACCESS_TOKEN={TOKEN}").unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    let said: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(said["user"]["user"], "alice");
    assert!(!text(&output.stdout).contains(TOKEN));
    for file in ["mcpsup.toml", "env.d/alice.env"] {
        assert_eq!(other.read(file), place.read(file), "{file}");
    }
}

#[test]
fn what_cannot_begin_writes_nothing() {
    let place = Beginning::new();
    for (args, status, part) in [
        (&["init", "--server", "githup", "--user", "alice"][..], 2, "it knows atlassian, "),
        (&["init", "--user", "alice"], 2, "say which server: --server NAME"),
        (
            &["init", "--", "/opt/no/such/server"],
            1,
            "cannot find the program /opt/no/such/server; or say --force",
        ),
        (&["init", "--", "/bin/sh", "{nonsense}"], 1, "unknown template"),
    ] {
        let output = place.run(args);
        assert_eq!(output.status.code(), Some(status), "{args:?}");
        assert!(text(&output.stderr).contains(part), "{args:?}: {}", text(&output.stderr));
        assert!(!place.at("mcpsup.toml").exists() && !place.at("env.d").exists(), "{args:?}");
    }
    let listed = text(&place.run(&["init", "--server", "list"]).stdout);
    assert!(listed.lines().count() >= 16 && listed.contains("What time it is, anywhere."), "{listed}");
    // Somebody gives up in the middle.
    let mut person = Person::sits_at(place.command(&["init"]));
    person.answers("which of them, or the command of your own:", "\u{4}");
    let (status, page) = person.leaves("nothing is written: the input was ended");
    assert_eq!(status, Some(1), "{page}");
    assert!(page.ends_with("\nmcpsup: nothing is written: the input was ended\n"), "{page}");
    assert!(!place.at("mcpsup.toml").exists());
}
