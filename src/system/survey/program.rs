//! What a server's command needs to be there: the program, what its first line names, the files
//! that its arguments name, and the package that a runner would fetch.

use std::io::Read;
use std::path::{Path, PathBuf};

use super::way::{For, in_path, way};
use crate::model::survey::{Fetched, Program, Way};

/// A first line is not read further (execve(2): the kernel takes 255 bytes).
const FIRST_LINE: u64 = 256;
/// An interpreter may be a script itself, so deep (execve(2)).
const DEEPEST: u32 = 4;

/// The program of this name, looked for in `path` where its name has no slash. `elsewhere` is the
/// `PATH` of whoever asks: a place where it might have been meant.
#[must_use]
pub(super) fn program(named: &str, path: &str, elsewhere: &str) -> Program {
    look(named, path, elsewhere, DEEPEST)
}

fn look(named: &str, path: &str, others: &str, deeper: u32) -> Program {
    let place = if named.contains('/') { Some(PathBuf::from(named)) } else { in_path(named, path) };
    let found = place.as_deref().map(|place| way(place, For::Executing));
    let elsewhere = if found.is_none() { in_path(named, others) } else { None };
    let line = place.as_deref().filter(|_| deeper > 0).and_then(first_line);
    let interpreter = line.and_then(|line| interpreter_of(&line));
    let interpreter = interpreter.map(|named| Box::new(look(&named, path, others, deeper - 1)));
    Program { named: named.to_owned(), path: path.to_owned(), way: found, elsewhere, interpreter }
}

fn first_line(path: &Path) -> Option<String> {
    if !path.metadata().ok()?.is_file() {
        return None;
    }
    let mut bytes = Vec::new();
    std::fs::File::open(path).ok()?.take(FIRST_LINE).read_to_end(&mut bytes).ok()?;
    let rest = bytes.strip_prefix(b"#!")?;
    let line = rest.split(|byte| *byte == b'\n').next()?;
    Some(String::from_utf8_lossy(line).trim().to_owned())
}

/// What a first line names: the program itself, or the one that env(1) looks for.
fn interpreter_of(line: &str) -> Option<String> {
    let mut words = line.split_whitespace();
    let program = words.next()?;
    if !program.ends_with("/env") {
        return Some(program.to_owned());
    }
    let is_name = |word: &&str| !word.starts_with('-') && !word.contains('=');
    words.find(is_name).map(str::to_owned).or_else(|| Some(program.to_owned()))
}

/// The files that arguments name by whole paths, where those do not end in a plain file or directory
/// that can be read by all.
#[must_use]
pub(super) fn arguments<'a>(args: impl Iterator<Item = &'a str>) -> Vec<Way> {
    let is_script = |arg: &&str| {
        let ending = Path::new(arg).extension().and_then(std::ffi::OsStr::to_str);
        arg.starts_with('/') && ending.is_some_and(|ending| SCRIPTS.contains(&ending))
    };
    args.filter(is_script).map(|arg| way(Path::new(arg), For::Reading)).collect()
}

/// Endings of what an interpreter is given to run. Any other path may be one that the server makes.
const SCRIPTS: [&str; 8] = ["js", "mjs", "cjs", "ts", "py", "rb", "jar", "php"];

/// What `npx` and its like would fetch, and whether it is there already. `home` is the home of whom
/// it runs as.
#[must_use]
pub(super) fn fetched(program: &Program, args: &[&str], home: &Path) -> Option<Fetched> {
    let runner = Path::new(&program.named).file_name()?.to_str()?;
    if !matches!(runner, "npx" | "bunx" | "uvx") {
        return None;
    }
    let package = match args.iter().position(|arg| matches!(*arg, "--package" | "-p" | "--from")) {
        Some(at) => args.get(at + 1).copied(),
        None => args.iter().copied().find(|arg| !arg.starts_with('-')),
    }?;
    let is_there = match runner {
        "uvx" => has_below(&home.join(".cache/uv"), &[python_name(package)]),
        _ => is_installed(program, without_version(package), home),
    };
    Some(Fetched { runner: runner.to_owned(), package: package.to_owned(), is_there })
}

/// `@scope/name@1.2` is `@scope/name`.
fn without_version(package: &str) -> &str {
    let from = usize::from(package.starts_with('@'));
    package[from..].find('@').map_or(package, |at| &package[..from + at])
}

fn python_name(package: &str) -> &str {
    package.split(['=', '<', '>', '[', '@']).next().unwrap_or(package)
}

/// Where npx looks before it fetches: what is installed globally, and what it fetched before.
fn is_installed(program: &Program, package: &str, home: &Path) -> bool {
    let beside = program.way.as_ref().and_then(|way| {
        // …/bin/npx, and …/lib/node_modules
        Some(way.path.parent()?.parent()?.join("lib/node_modules"))
    });
    let usual = ["/usr/lib/node_modules", "/usr/local/lib/node_modules", "/usr/share/nodejs"];
    let mut global = beside.into_iter().chain(usual.map(PathBuf::from));
    global.any(|dir| dir.join(package).is_dir())
        || has_below(&home.join(".npm/_npx"), &["node_modules", package])
}

/// True if some directory in `dir` has these names, one below the other.
fn has_below(dir: &Path, names: &[&str]) -> bool {
    let Ok(entries) = std::fs::read_dir(dir) else { return false };
    entries.flatten().any(|entry| names.iter().fold(entry.path(), |path, name| path.join(name)).exists())
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests write small files")]
mod tests {
    use super::*;

    #[test]
    fn a_first_line_names_a_program_or_one_that_env_looks_for() {
        for (line, named) in [
            ("/usr/bin/python3 -u", "/usr/bin/python3"),
            ("/usr/bin/env node", "node"),
            ("/usr/bin/env -S node --flag", "node"),
            ("/usr/bin/env A=1 ruby", "ruby"),
            ("/usr/bin/env", "/usr/bin/env"),
        ] {
            assert_eq!(interpreter_of(line).as_deref(), Some(named), "{line}");
        }
    }

    #[test]
    fn a_script_leads_to_its_interpreter_and_no_circle_is_gone_for_ever() {
        let dir = tempfile::tempdir().unwrap();
        let script = dir.path().join("script");
        std::fs::write(&script, format!("#!{}\n", script.display())).unwrap();
        let mut depth = 0;
        let found = program(script.to_str().unwrap(), "", "");
        let mut next = Some(&found);
        while let Some(one) = next {
            depth += 1;
            next = one.interpreter.as_deref();
        }
        assert_eq!(depth, DEEPEST + 1);
    }

    #[test]
    fn what_a_runner_would_fetch_is_told_from_its_own_options() {
        let dir = tempfile::tempdir().unwrap();
        let npx = program("/usr/bin/npx", "", "");
        let fetched = |args: &[&str]| fetched(&npx, args, dir.path()).unwrap();
        assert_eq!(fetched(&["-y", "@a/b@1.2", "--port", "1"]).package, "@a/b@1.2");
        assert_eq!(fetched(&["--package", "c", "run-c"]).package, "c");
        assert!(!fetched(&["-y", "@a/b@1.2"]).is_there);
        std::fs::create_dir_all(dir.path().join(".npm/_npx/0a1b/node_modules/@a/b")).unwrap();
        assert!(fetched(&["-y", "@a/b@1.2"]).is_there);
        assert!(super::fetched(&program("/usr/bin/node", "", ""), &["x"], dir.path()).is_none());
    }
}
