//! `make install` and `make uninstall`, into a scratch directory with the program that was built for
//! the tests: what lies where, with which modes, and that nothing of it stays.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test starts programs, writes files and stops at the first thing that is wrong"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

use clap::CommandFactory;
use mcpsup::cli::args::Cli;

const MCPSUP: &str = env!("CARGO_BIN_EXE_mcpsup");

/// `make` with `words`, by an administrator whose umask is strict; what it printed.
fn make(words: &[&str], dest: &Path) -> String {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", "umask 077; exec make --no-print-directory \"$@\"", "make"]);
    command.args(words).arg(format!("DESTDIR={}", dest.display())).arg(format!("PROGRAM={MCPSUP}"));
    for name in ["PREFIX", "prefix", "MAKEFLAGS", "MFLAGS", "MAKELEVEL"] {
        command.env_remove(name);
    }
    let out = command.current_dir(env!("CARGO_MANIFEST_DIR")).output().expect("cannot start make");
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(out.status.success(), "make {words:?}: {said}");
    said
}

/// Every file below `dir` by its path there, with its mode; directories end in `/`.
fn below(dir: &Path) -> BTreeMap<String, u32> {
    let mut found = BTreeMap::new();
    let mut todo = vec![dir.to_owned()];
    while let Some(next) = todo.pop() {
        for entry in fs::read_dir(&next).unwrap() {
            let path = entry.unwrap().path();
            let here = path.strip_prefix(dir).unwrap().to_str().unwrap().to_owned();
            let meta = path.symlink_metadata().unwrap();
            let mode = meta.mode() & 0o7777;
            if meta.is_dir() {
                found.insert(format!("{here}/"), mode);
                todo.push(path);
            } else {
                found.insert(here, mode);
            }
        }
    }
    found
}

fn files(dir: &Path) -> Vec<String> {
    below(dir).into_keys().filter(|path| !path.ends_with('/')).collect()
}

/// What stands in `dir` of the repository and ends so.
fn repository(dir: &str, endings: &[&str]) -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(dir);
    let names = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| endings.iter().any(|ending| name.ends_with(ending))).collect()
}

#[test]
fn what_is_installed_is_what_belongs_there_and_anybody_may_read_it() {
    let scratch = tempfile::tempdir().unwrap();
    let dest = scratch.path().join("a b");
    make(&["install", "PREFIX=/usr"], &dest);
    let installed = below(&dest);

    let mut expected: Vec<String> = [
        "usr/bin/mcpsup",
        "usr/share/bash-completion/completions/mcpsup",
        "usr/share/zsh/site-functions/_mcpsup",
        "usr/share/fish/vendor_completions.d/mcpsup.fish",
        "usr/share/man/man1/mcpsup.1",
        "usr/share/doc/mcpsup/README.md",
        "usr/share/doc/mcpsup/CHANGELOG.md",
        "usr/share/doc/mcpsup/SECURITY.md",
        "usr/share/doc/mcpsup/LICENSE-MIT",
        "usr/share/doc/mcpsup/LICENSE-APACHE",
        "usr/share/doc/mcpsup/examples/mcpsup.toml",
        "usr/share/doc/mcpsup/examples/example.env",
    ]
    .map(str::to_owned)
    .to_vec();
    let verbs = Cli::command();
    let verbs = verbs.get_subcommands().filter(|verb| !verb.is_hide_set());
    expected.extend(verbs.map(|verb| format!("usr/share/man/man1/mcpsup-{}.1", verb.get_name())));
    for (from, endings, to) in [
        ("units", [".service", ".none"], "usr/lib/systemd/system"),
        ("docs", [".md", ".none"], "usr/share/doc/mcpsup/docs"),
        ("docs/migration", [".md", ".none"], "usr/share/doc/mcpsup/docs/migration"),
        ("examples/servers", [".md", ".none"], "usr/share/doc/mcpsup/examples/servers"),
        ("examples/servers", [".toml", ".env"], "usr/share/doc/mcpsup/examples/servers"),
    ] {
        expected.extend(repository(from, &endings).into_iter().map(|name| format!("{to}/{name}")));
    }
    for (from, to) in [
        ("units/user", "usr/lib/systemd/user"),
        ("units/sysusers.d", "usr/lib/sysusers.d"),
        ("units/tmpfiles.d", "usr/lib/tmpfiles.d"),
    ] {
        if Path::new(env!("CARGO_MANIFEST_DIR")).join(from).is_dir() {
            let names = repository(from, &[".service", ".conf"]);
            expected.extend(names.into_iter().map(|name| format!("{to}/{name}")));
        }
    }
    expected.sort();

    assert_eq!(files(&dest), expected);
    for (path, mode) in &installed {
        let due = if path.ends_with('/') || path == "usr/bin/mcpsup" { 0o755 } else { 0o644 };
        assert_eq!(*mode, due, "{path} has mode {mode:o}");
    }
}

#[test]
fn the_unit_starts_the_program_that_was_installed_with_it() {
    let scratch = tempfile::tempdir().unwrap();
    for (words, unit, program) in [
        (&["install"][..], "usr/local/lib/systemd/system", "/usr/local/bin/mcpsup"),
        (&["install", "PREFIX=/usr"][..], "usr/lib/systemd/system", "/usr/bin/mcpsup"),
        (
            &["install", "prefix=/opt/m", "unitdir=/etc/systemd/system"][..],
            "etc/systemd/system",
            "/opt/m/bin/mcpsup",
        ),
    ] {
        let dest = scratch.path().join(unit.replace('/', "-"));
        make(words, &dest);
        let text = fs::read_to_string(dest.join(unit).join("mcpsup.service")).unwrap();
        assert!(text.lines().any(|line| line == format!("ExecStart={program} daemon")), "{words:?}: {text}");
        assert!(dest.join(&program[1..]).is_file(), "{words:?}");
    }
}

#[test]
fn every_line_of_a_unit_is_one_that_systemd_reads() {
    let mut seen = 0;
    for dir in ["units", "units/user"] {
        for name in repository(dir, &[".service"]) {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(dir).join(&name);
            for line in fs::read_to_string(path).unwrap().lines() {
                let is_setting = || {
                    line.split_once('=').is_some_and(|(key, _)| {
                        !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric())
                    })
                };
                let is_section = || line.starts_with('[') && line.ends_with(']');
                assert!(
                    line.is_empty() || line.starts_with('#') || is_section() || is_setting(),
                    "{dir}/{name}: {line}"
                );
                seen += 1;
            }
        }
    }
    assert!(seen > 50, "{seen}");
}

#[test]
fn a_template_is_the_unit_of_its_name_for_another_configuration() {
    let settings = |name: &str| -> BTreeSet<String> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("units/user").join(name);
        let text = fs::read_to_string(path).unwrap().replace("@%i", "");
        let whose = ["Description=", "Environment=MCPSUP_CONFIG=", "Slice=", "RuntimeDirectory"];
        let lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
        lines.filter(|line| !whose.iter().any(|key| line.starts_with(key))).map(str::to_owned).collect()
    };
    for (unit, template) in
        [("mcpsup.service", "mcpsup@.service"), ("mcpsup-runs.service", "mcpsup-runs@.service")]
    {
        assert_eq!(settings(template), settings(unit));
    }
}

#[test]
fn what_is_uninstalled_is_gone_and_everything_else_is_there() {
    let scratch = tempfile::tempdir().unwrap();
    let dest = scratch.path();
    let others = ["usr/local/bin/other", "usr/local/share/man/man1/other.1", "etc/mcpsup/mcpsup.toml"];
    for path in others {
        let path = dest.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "somebody's").unwrap();
    }
    make(&["install"], dest);
    assert!(files(dest).len() > others.len());
    assert_eq!(fs::read_to_string(dest.join("etc/mcpsup/mcpsup.toml")).unwrap(), "somebody's");

    make(&["uninstall"], dest);
    let mut others = others.to_vec();
    others.sort_unstable();
    assert_eq!(files(dest), others);
}

#[test]
fn a_second_installation_replaces_the_program_under_a_daemon_that_runs() {
    let scratch = tempfile::tempdir().unwrap();
    let dest = scratch.path();
    make(&["install"], dest);
    let program = dest.join("usr/local/bin/mcpsup");
    let old = fs::File::open(&program).unwrap();
    make(&["install"], dest);
    let replaced = fs::metadata(&program).unwrap();
    assert_ne!(replaced.ino(), old.metadata().unwrap().ino(), "the file that runs was written to");
    assert_eq!(replaced.permissions().mode() & 0o777, 0o755);
}
