//! README.md beside the program: what it shows of a session is what the program says, and its first
//! commands do what they are said to do. Numbers (ports, times) and scratch directories may differ.
//!
//! Run here: `make demo`'s script, and "A first configuration by hand", each line of its blocks in
//! order, in a scratch directory instead of /tmp/first. Every other `mcpsup` line of its blocks is one
//! that the program takes.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a test starts programs and stops at the first thing that is wrong"
)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use clap::Parser;
use mcpsup::cli::args::Cli;
use regex_lite::Regex;

const MCPSUP: &str = env!("CARGO_BIN_EXE_mcpsup");

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

/// Both begin at the first port that mcpsup gives.
static ONE_AT_A_TIME: std::sync::Mutex<()> = std::sync::Mutex::new(());

#[test]
fn the_session_that_is_shown_first_is_the_programs_own() {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let page = readme();
    let shown = blocks(section(&page, "Two commands"))[0].1;
    let shown = shown.strip_prefix("$ make demo\n").unwrap();
    let built = Path::new(MCPSUP).parent().unwrap();
    let mut demo = Command::new(root().join("examples/demo/demo.sh"));
    demo.env("DEMO_BIN", built).env("DEMO_ONCE", "1").env("TMPDIR", "/tmp").stdin(Stdio::null());
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
    let built = Path::new(MCPSUP).parent().unwrap();
    for program in ["mcpsup", "examples/notes"] {
        // By another program: what this process has open for writing could not be executed.
        let to = checkout.join("target/debug").join(program);
        assert!(Command::new("cp").arg(built.join(program)).arg(to).status().unwrap().success());
    }
    checkout
}

#[test]
fn the_first_configuration_by_hand_is_typed_as_it_stands_and_says_what_is_shown() {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let dir = tempfile::Builder::new().prefix("mcpsup-readme-").tempdir_in("/tmp").unwrap();
    fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o711)).unwrap();
    let page = readme();
    let all = blocks(section(&page, "A first configuration by hand"));
    let typed = all.iter().find(|(kind, _)| *kind == "sh").unwrap().1;
    let session = all.iter().find(|(_, text)| text.starts_with("$ ")).unwrap().1;
    let mut script = format!("set -em\n{typed}\n");
    // A person waits until it is up; so does this.
    script.push_str("until mcpsup status 2>/dev/null | grep -q ' up '; do kill -0 %1; done\n");
    let mut shown = Vec::new();
    for line in session.lines() {
        if let Some(command) = line.strip_prefix("$ ") {
            let prompt = line.replace('\'', "'\\''");
            script.extend(["printf '%s\\n' '", &prompt, "'\n", command, "\n"]);
        }
        shown.push(line);
    }
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
    assert_eq!(told, same(&shown.join("\n")), "{}", said(&output));
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
