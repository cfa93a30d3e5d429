//! README.md beside the program: what it shows of a session is what the program says, and its commands
//! do what they are said to do. Numbers (ports, times) and scratch directories may differ.
//!
//! Each command of its blocks is run: here, as it stands, in a scratch directory instead of /tmp/first
//! or /etc/mcpsup; or where [`RUN_BY`] says. Here are run `make demo`, "A first configuration by hand",
//! what "On a host" does once mcpsup is installed (without systemd: that is the virtual machine's part),
//! and "For your users", as another account. Every other `mcpsup` line is one that the program takes.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a test starts programs and stops at the first thing that is wrong"
)]

use std::cell::RefCell;
use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use clap::Parser;
use mcpsup::cli::args::Cli;
use regex_lite::Regex;

const MCPSUP: &str = env!("CARGO_BIN_EXE_mcpsup");
/// How long anything may take that must come. Long, because the machine may be busy.
const LIMIT: Duration = Duration::from_secs(60);
/// The account whose servers and whose terminal alice has, where the daemon is root's.
const NOBODY: u32 = 65534;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn readme() -> String {
    fs::read_to_string(root().join("README.md")).unwrap()
}

/// What stands under a heading.
fn section<'p>(page: &'p str, heading: &str) -> &'p str {
    let from = page.find(&format!("\n## {heading}\n")).unwrap_or_else(|| panic!("no section {heading}"));
    let rest = &page[from + 4..];
    rest.find("\n## ").map_or(rest, |end| &rest[..end])
}

/// The fenced blocks, each with the word behind its fence.
fn blocks(page: &str) -> Vec<(&str, &str)> {
    let fenced = page.split("\n```").skip(1).step_by(2);
    fenced.filter_map(|block| block.split_once('\n')).collect()
}

/// What may differ made the same: numbers, scratch directories, how wide a column is, and whether what
/// was asked for was so already.
fn same(text: &str) -> Vec<String> {
    let replace =
        |text: &str, pattern: &str, by: &str| Regex::new(pattern).unwrap().replace_all(text, by).into_owned();
    let mut all = text.to_owned();
    for (pattern, by) in [
        (r"/tmp/mcpsup-demo\.\w+", "SCRATCH"),
        // Where the checkout is.
        (r#""/[^"]*/mcpsup --config"#, "\"mcpsup --config"),
        (r"fingerprint is [0-9a-f]{6}", "fingerprint is HEX"),
        (r": (already )?up on \d+( in [\d.]+ s)?", ": up on N"),
        (r"\d+", "N"),
        (r" +", " "),
    ] {
        all = replace(&all, pattern, by);
    }
    all.lines().map(|line| line.trim().to_owned()).filter(|line| !line.is_empty()).collect()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn said(output: &Output) -> String {
    format!("{}\n{}", text(&output.stdout), text(&output.stderr))
}

/// What was said is what is shown, where a line `…` stands for any lines.
fn is_shown(told: &[String], shown: &[String]) -> bool {
    match shown.split_first() {
        None => told.is_empty(),
        Some((line, rest)) if line == "…" => {
            (0..=told.len()).any(|skipped| is_shown(&told[skipped..], rest))
        }
        Some((line, rest)) => told.first() == Some(line) && is_shown(&told[1..], rest),
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

/// All begin at the first port that mcpsup gives.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// A directory that all accounts get through.
fn scratch() -> tempfile::TempDir {
    let dir = tempfile::Builder::new().prefix("mcpsup-readme-").tempdir_in("/tmp").unwrap();
    fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o711)).unwrap();
    dir
}

/// By another program: what this process has open for writing could not be executed.
fn copy_program(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg(from).arg(to).status().unwrap().success());
    fs::set_permissions(to, PermissionsExt::from_mode(0o755)).unwrap();
}

fn built() -> &'static Path {
    Path::new(MCPSUP).parent().unwrap()
}

#[test]
fn the_session_that_is_shown_first_is_the_programs_own() {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let page = readme();
    let shown = blocks(section(&page, "Two commands"))[0].1;
    let (typed, shown) = shown.split_once('\n').unwrap();
    let mut demo = Command::new("bash");
    demo.args(["-c", typed.strip_prefix("$ ").unwrap()]).current_dir(root());
    for name in ["MAKEFLAGS", "MFLAGS", "MAKELEVEL"] {
        demo.env_remove(name);
    }
    demo.env("DEMO_BIN", built()).env("DEMO_ONCE", "1").env("TMPDIR", "/tmp").stdin(Stdio::null());
    let output = demo.output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    // Where nobody but root may give out uids, all have one, and the status says what that means for doors.
    let told: Vec<_> = same(&text(&output.stdout)).into_iter().map(without_note).collect();
    assert_eq!(told, same(shown), "{}", said(&output));
}

fn without_note(line: String) -> String {
    match line.split_once(" takes a token (mcpsup headers ") {
        Some((status, _)) => status.to_owned(),
        None => line,
    }
}

/// A checkout of which there is only what was built: `target/debug`, open to the accounts that root's
/// daemon has servers run as.
fn checkout(dir: &Path) -> PathBuf {
    let checkout = dir.join("checkout");
    fs::create_dir_all(checkout.join("target/debug/examples")).unwrap();
    for program in ["mcpsup", "examples/notes"] {
        copy_program(&built().join(program), &checkout.join("target/debug").join(program));
    }
    checkout
}

/// A block of a session as a script: each command behind a `$`, with that line before what it says.
fn script_of(session: &str) -> String {
    let mut script = String::new();
    for line in session.lines() {
        if let Some(command) = line.strip_prefix("$ ") {
            let prompt = line.replace('\'', "'\\''");
            script.extend(["printf '%s\\n' '", &prompt, "'\n", command, "\n"]);
        }
    }
    script
}

#[test]
fn the_first_configuration_by_hand_is_typed_as_it_stands_and_says_what_is_shown() {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let dir = scratch();
    let page = readme();
    let all = blocks(section(&page, "A first configuration by hand"));
    let typed = all.iter().find(|(kind, _)| *kind == "sh").unwrap().1;
    let session = all.iter().find(|(_, text)| text.starts_with("$ ")).unwrap().1;
    let mut script = format!("set -em\n{typed}\n");
    // A person waits until it is up; so does this.
    script.push_str("until mcpsup status 2>/dev/null | grep -q ' up '; do kill -0 %1; done\n");
    script.push_str(&script_of(session));
    script.push_str("wait\n");
    let place = dir.path().join("first").display().to_string();
    let script = script.replace("/tmp/first", &place);
    let mut shell = Command::new("bash");
    shell.arg("-c").arg(format!("{{ {script} }} 2>&1")).current_dir(checkout(dir.path()));
    shell.env("HOME", dir.path()).env("NO_COLOR", "1").env_remove("MCPSUP_CONFIG").stdin(Stdio::null());
    let output = shell.output().unwrap();
    // As root each user has an account, and whoever types this is not alice: her door asks for a token.
    let told =
        text(&output.stdout).replace(&place, "/tmp/first").replace(": answers, to a token", ": answers");
    let from = told.find("$ mcpsup status").unwrap_or_else(|| panic!("{}", said(&output)));
    // The check before it is silent about what is wrong, because nothing is.
    assert!(told[..from].contains("mcpsup.toml and 1 env file are right"), "{told}");
    let is_of_the_shell = |line: &String| line.starts_with('[');
    let told: Vec<String> = same(&told[from..]).into_iter().filter(|line| !is_of_the_shell(line)).collect();
    assert_eq!(told, same(session), "{}", said(&output));
}

/// A person at a terminal, who types a script of theirs and answers what is asked.
struct Person {
    terminal: fs::File,
    shown: Arc<Mutex<String>>,
    shell: RefCell<Child>,
}

/// Said by the script when it is through.
const THROUGH: &str = "-- through --";

impl Person {
    fn sits_at(mut shell: Command, script: &str) -> Self {
        let pty = nix::pty::openpty(None, None).unwrap();
        let slave = || Stdio::from(pty.slave.try_clone().unwrap());
        shell.args(["-c", &format!("{script}\necho '{THROUGH}'")]);
        let child = shell.stdin(slave()).stdout(slave()).stderr(slave()).spawn().unwrap();
        drop(shell);
        drop(pty.slave);
        let terminal = fs::File::from(pty.master);
        let shown = Arc::new(Mutex::new(String::new()));
        let (mut reader, copy) = (terminal.try_clone().unwrap(), Arc::clone(&shown));
        std::thread::spawn(move || {
            let mut kept = Vec::new();
            let mut bytes = [0; 4096];
            // EIO is how the end of a terminal's other side looks.
            while let Ok(more @ 1..) = reader.read(&mut bytes) {
                kept.extend_from_slice(&bytes[..more]);
                *copy.lock().unwrap() = String::from_utf8_lossy(&kept).replace('\r', "");
            }
        });
        Self { terminal, shown, shell: RefCell::new(child) }
    }

    fn page(&self) -> String {
        self.shown.lock().unwrap().clone()
    }

    /// True if the script has ended, one way or the other; what it said may still be on its way.
    fn has_left(&self) -> bool {
        self.shell.borrow_mut().try_wait().unwrap().is_some_and(|status| !status.success())
    }

    /// Waits for each question after the last one, and answers; unseen, once the terminal shows nothing.
    fn answers(&mut self, questions: &[(&str, &str, bool)]) -> String {
        let mut from = 0;
        for (question, answer, is_shown) in questions {
            let at = |person: &Self| person.page()[from..].find(question);
            let unasked = |person: &Self| format!("{question:?} was not asked:\n{}", person.page());
            until(|| at(self).is_some() || self.has_left(), || unasked(self));
            assert!(at(self).is_some(), "{}", unasked(self));
            let shows = |person: &Self| {
                let modes = nix::sys::termios::tcgetattr(&person.terminal).unwrap();
                modes.local_flags.contains(nix::sys::termios::LocalFlags::ECHO)
            };
            until(|| *is_shown || !shows(self), || self.page());
            from += at(self).unwrap() + question.len();
            writeln!(self.terminal, "{answer}").unwrap();
        }
        until(|| self.page().contains(THROUGH) || self.has_left(), || self.page());
        assert!(self.shell.borrow_mut().wait().unwrap().success(), "{}", self.page());
        let page = self.page();
        page[..page.find(THROUGH).unwrap()].to_owned()
    }
}

impl Drop for Person {
    fn drop(&mut self) {
        self.shell.borrow_mut().kill().unwrap_or_default();
        self.shell.borrow_mut().wait().unwrap();
    }
}

/// The daemon of a scratch directory, by the pid that it locked its state with.
struct Daemon<'d>(&'d Path);

impl Drop for Daemon<'_> {
    fn drop(&mut self) {
        let Ok(pid) = fs::read_to_string(self.0.join("state/lock")) else { return };
        let pid = nix::unistd::Pid::from_raw(pid.trim().parse().unwrap());
        // One that has ended has left its number behind, but not its lock.
        let is_alive = || fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| !line.is_empty());
        if !is_alive() {
            return;
        }
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
        let begun = Instant::now();
        while is_alive() && begun.elapsed() < LIMIT {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Programs beside mcpsup: a server that stands for /opt/mcp/bin/tickets, `sudo`, and an administrator
/// at the editor, who gives the server a credential.
fn programs(dir: &Path) -> PathBuf {
    let bin = dir.join("bin");
    fs::create_dir(&bin).unwrap();
    copy_program(Path::new(MCPSUP), &bin.join("mcpsup"));
    copy_program(&built().join("examples/lines"), &bin.join("tickets"));
    let edits = "printf '\\n[server.tickets.credential.TICKETS_TOKEN]\\nrequired = false\\n' >>\"$1\"";
    for (name, does) in [("sudo", "exec \"$@\""), ("editor", edits)] {
        fs::write(bin.join(name), format!("#!/bin/sh\n{does}\n")).unwrap();
        fs::set_permissions(bin.join(name), PermissionsExt::from_mode(0o755)).unwrap();
    }
    bin
}

fn shell(dir: &Path, bin: &Path, home: &Path) -> Command {
    let mut shell = Command::new("bash");
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    shell.env_clear().env("PATH", path).env("HOME", home).env("NO_COLOR", "1").env("TERM", "dumb");
    shell.env("LANG", "C.UTF-8").env("MCPSUP_CONFIG", dir.join("mcpsup.toml")).current_dir(home);
    shell
}

#[test]
fn a_host_is_set_up_as_it_is_shown_and_has_a_user_whose_server_runs() {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let dir = scratch();
    let _daemon = Daemon(dir.path());
    let page = readme();
    let all = blocks(section(&page, "On a host"));
    let session = all.iter().find(|(_, text)| text.starts_with("$ sudo mcpsup init")).unwrap().1;
    let after = all.iter().find(|(kind, text)| *kind == "sh" && text.contains("mcpsup add bob")).unwrap().1;
    let bin = programs(dir.path());
    let here = dir.path().display().to_string();
    let placed =
        |text: &str| text.replace("/opt/mcp/bin", &format!("{here}/bin")).replace("/etc/mcpsup", &here);
    let script = format!("set -e\n{}echo '-- after --'\n{after}", script_of(session));
    // What the doctor finds wrong may be this machine's own: a disk that is nearly full.
    let script = script.replace("mcpsup doctor ", "mcpsup doctor || [ $? = 1 ] ");
    let mut person = Person::sits_at(shell(dir.path(), &bin, dir.path()), &placed(&script));
    // The answers are those of the page.
    let answer = |question: &str| {
        let line = session.lines().find_map(|line| line.strip_prefix(question));
        placed(line.unwrap_or_else(|| panic!("README.md does not show {question}")).trim())
    };
    let questions = [
        "which of them, or the command of your own:",
        "whose server is the first (their account's name):",
        "start the daemon now? [yes]",
    ];
    let answers = questions.map(answer);
    let mut asked: Vec<_> =
        questions.iter().zip(&answers).map(|(question, answer)| (*question, answer.as_str(), true)).collect();
    asked.push(("TICKETS_TOKEN", "tk_bobs-own-token", false));
    let told = person.answers(&asked);

    let (told, rest) = told.split_once("-- after --").unwrap_or_else(|| panic!("{told}"));
    // Not with systemd here, and not in /etc; what is said of it is the program's all the same.
    let by_systemd = "started mcpsup.service, now and after each boot";
    assert!(fs::read_to_string(root().join("src/system/background.rs")).unwrap().contains(by_systemd));
    let started = Regex::new(r"started the daemon \(pid \d+\), whose log is \S+").unwrap();
    let told = started.replace(told, by_systemd);
    let told = told.replace(&format!("{here}/bin"), "/opt/mcp/bin");
    let told = told.replace(&format!("mcpsup --config {here}/mcpsup.toml"), "mcpsup");
    let told = told.replace(&here, "/etc/mcpsup");
    let (told, shown) = (same(&told), same(session));
    assert!(is_shown(&told, &shown), "{told:#?}\nis not what README.md shows: {shown:#?}");

    // Every command of the last block did what its comment says; `set -e` has seen each succeed.
    assert!(rest.contains("mcpsup.toml and 1 env file are right"), "{rest}");
    assert!(rest.contains(" wrong\n"), "{rest}");
    assert!(rest.contains("env.d/bob.env") && rest.contains("bob: up on "), "{rest}");
    assert!(!rest.contains("tk_bobs-own-token"), "{rest}");
    let lines = same(rest);
    for user in ["alice tickets up N N", "bob tickets up N N"] {
        assert!(lines.iter().any(|line| line.starts_with(user)), "{user}: {rest}");
    }
    let written = fs::metadata(dir.path().join("env.d/bob.env")).unwrap();
    assert_eq!(written.permissions().mode() & 0o777, 0o600);
}

#[test]
fn a_user_does_for_themself_what_is_shown_and_a_program_asks_the_control_socket() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("as root only: alice has an account of her own");
        return;
    }
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let dir = scratch();
    let _daemon = Daemon(dir.path());
    let page = readme();
    let all = blocks(section(&page, "For your users"));
    let session = all.iter().find(|(_, text)| text.starts_with("$ mcpsup client --write")).unwrap().1;
    let bin = programs(dir.path());
    let home = dir.path().join("home");
    fs::create_dir(&home).unwrap();
    std::os::unix::fs::chown(&home, Some(NOBODY), Some(NOBODY)).unwrap();
    let config = format!(
        "[server.tickets]\ncommand = [\"{}/tickets\"]\ntransport = \"stdio\"\n\
         [server.tickets.credential.TICKETS_TOKEN]\nrequired = false\n",
        bin.display()
    );
    fs::write(dir.path().join("mcpsup.toml"), config).unwrap();
    fs::create_dir(dir.path().join("env.d")).unwrap();
    // nobody is alice's account, so alice is who types what follows.
    let file = dir.path().join("env.d/alice.env");
    fs::write(&file, "MCPSUP_RUN_AS=nobody\n").unwrap();
    fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).unwrap();
    let started = "mcpsup daemon >daemon.log 2>&1 &\nuntil mcpsup status alice 2>/dev/null | grep -q ' up '; do kill -0 $!; done";
    let output =
        shell(dir.path(), &bin, dir.path()).args(["-ec", started]).stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));

    let mut alice = shell(dir.path(), &bin, &home);
    alice.uid(NOBODY).gid(NOBODY);
    let mut person = Person::sits_at(alice, &format!("set -e\n{}", script_of(session)));
    let told = person.answers(&[("TICKETS_TOKEN:", "tk_alices-own-token", false)]);
    let told = told.replace(&home.display().to_string(), "/home/alice");
    let (told, shown) = (same(&told), same(session));
    assert!(is_shown(&told, &shown), "{told:#?}\nis not what README.md shows: {shown:#?}");

    // And the page on the control socket, whose commands are curl's.
    let page = fs::read_to_string(root().join("docs/control-socket.md")).unwrap();
    let session = blocks(&page)[0].1;
    let script = format!("set -e\n{}", script_of(session))
        .replace("/run/mcpsup", &format!("{}/run", dir.path().display()));
    let output =
        shell(dir.path(), &bin, dir.path()).args(["-c", &script]).stdin(Stdio::null()).output().unwrap();
    let told = text(&output.stdout).replace(&format!("{}/run", dir.path().display()), "/run/mcpsup");
    let (told, shown) = (same(&told), same(session));
    assert!(
        is_shown(&told, &shown),
        "{told:#?}\nis not what docs/control-socket.md shows: {shown:#?}\n{}",
        said(&output)
    );
}

/// Who runs what the blocks of README.md say: a section, the command or `*` for all of them, and a file
/// with what stands in it because it runs that. This file runs its blocks from the page itself.
const RUN_BY: [(&str, &str, &str, &str); 12] = [
    ("Two commands", "make demo", "tests/readme.rs", "\"Two commands\""),
    ("Two commands", "make test", ".ci/run", "\nmake test\n"),
    ("A first configuration by hand", "*", "tests/readme.rs", "\"A first configuration by hand\""),
    // `make`, and what it makes installed, removed, and upgraded.
    ("On a host", "make && sudo make install", "Makefile", "test-package: all\n"),
    ("On a host", "make && sudo make install", "tests/install.rs", "make(&[\"install\"]"),
    (
        "On a host",
        "sudo systemctl daemon-reload",
        "tests/systemd/lib.sh",
        "systemctl daemon-reload && systemd-sysusers\n",
    ),
    ("On a host", "sudo mcpsup", "tests/readme.rs", "\"On a host\""),
    // With the package, under systemd, by an administrator with sudo.
    (
        "On a host",
        "sudo mcpsup init",
        "tests/systemd/scenarios/newcomer.sh",
        "at_terminal admin \"sudo mcpsup init\"",
    ),
    (
        "On a host",
        "sudo mcpsup add bob",
        "tests/systemd/scenarios/newcomer.sh",
        "at_terminal admin \"sudo mcpsup add bob\"",
    ),
    ("On a host", "mcpsup status", "tests/readme.rs", "\"On a host\""),
    ("On a host", "sudo editor /etc/mcpsup/mcpsup.toml", "tests/readme.rs", "\"On a host\""),
    ("For your users", "*", "tests/readme.rs", "\"For your users\""),
];

/// The commands of a page's blocks, each with its section; of a script every line but what a `<<` holds.
fn commands(page: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let (mut section, mut block, mut is_sh, mut held) = (String::new(), false, false, None::<String>);
    for line in page.lines() {
        if let Some(kind) = line.strip_prefix("```") {
            block = !block;
            is_sh = kind == "sh";
            assert!(
                !block || matches!(kind, "" | "sh" | "toml" | "env" | "json"),
                "what is a block of {kind}?"
            );
            held = None;
        } else if !block {
            section = line.strip_prefix("## ").map_or(section, str::to_owned);
        } else if line == "$ make demo" {
            // What it prints has lines that look like commands.
            found.push((section.clone(), line[2..].to_owned()));
            held = Some("```".to_owned());
        } else if held.is_some() {
            held = held.filter(|end| end != line);
        } else {
            let command = if is_sh { Some(line) } else { line.strip_prefix("$ ") };
            let command = command.map(|line| line.split(" #").next().unwrap().trim());
            if let Some(command) = command.filter(|command| !command.is_empty()) {
                held = command.rsplit_once("<<").map(|(_, end)| end.to_owned());
                found.push((section.clone(), command.to_owned()));
            }
        }
    }
    found
}

#[test]
fn every_command_of_the_page_is_run_by_a_test() {
    let page = readme();
    let commands = commands(&page);
    assert!(commands.len() >= 20, "{commands:#?}");
    let runs = |by: &(&str, &str, &str, &str), section: &str, command: &str| {
        by.0 == section && (by.1 == "*" || command.starts_with(by.1))
    };
    let unrun: Vec<_> = commands
        .iter()
        .filter(|(section, command)| !RUN_BY.iter().any(|by| runs(by, section, command)))
        .collect();
    assert!(unrun.is_empty(), "README.md shows what no test runs: {unrun:#?}");
    for by in &RUN_BY {
        assert!(
            commands.iter().any(|(section, command)| runs(by, section, command)),
            "README.md has no {by:?}"
        );
        let text = fs::read_to_string(root().join(by.2)).unwrap();
        assert!(text.contains(by.3), "{} does not run {}: there is no {:?}", by.2, by.1, by.3);
    }
    // What `make test` is said to run is there.
    for file in page.lines().filter_map(|line| line.trim().strip_prefix("Running tests/")) {
        assert!(root().join("tests").join(file).is_file(), "{file}");
    }
}

#[test]
fn every_command_of_the_page_is_one_that_the_program_takes() {
    let page = readme();
    let mut seen = 0;
    for (_, block) in blocks(&page) {
        for line in block.lines() {
            let line = line.trim_start_matches("$ ").trim_start_matches("sudo ");
            let line = line.split(" 2>").next().unwrap_or("");
            let line = line.split([';', '|', '&', '>', '#', '(']).next().unwrap_or("");
            let words: Vec<&str> = line.split_whitespace().collect();
            if words.first() != Some(&"mcpsup") || words.len() < 2 || words[1].ends_with(':') {
                continue;
            }
            seen += 1;
            if let Err(error) = Cli::try_parse_from(&words)
                && error.use_stderr()
            {
                panic!("README.md: {line}: {error}");
            }
        }
    }
    assert!(seen > 10, "{seen}");
}
