//! Who may name whom. Reads src as text, and fails with one line per breach:
//!
//! * a folder names a folder of this crate that it may not ([`FOLDERS`]);
//! * a folder goes to files itself that is to leave that to `system` ([`WITHOUT_FILES`]);
//! * an outside crate is used outside its home ([`FOLDERS`], [`CORNERS`]); tests may use any;
//! * a file does not open with `//!`, or has more than [`MAX_LINES`] lines;
//! * `unsafe` stands in a file that SECURITY.md does not name, or no more in one that it does.
//!
//! It reads tokens, not meaning: comments, strings and `#[cfg(test)]` are left out, and a path is
//! judged by how it begins. That is enough to keep an honest author honest.

use std::path::{Path, PathBuf};
use std::{fs, io};

/// A file longer than this is to be split.
const MAX_LINES: usize = 500;

/// The same for a file of nothing but tests: cases side by side read well for longer.
const MAX_LINES_OF_TESTS: usize = 1000;

/// A folder of src, what it may name in this crate, and the outside crates at home in it.
const FOLDERS: &[(&str, &str, &str)] = &[
    ("model", "", "serde thiserror zeroize"),
    (
        "logic",
        "model",
        "serde serde_json thiserror zeroize \
         toml toml_edit jsonc_parser yaml_edit dotenvy aho_corasick base64 regex_lite hmac sha2",
    ),
    (
        "system",
        "model",
        "serde serde_json thiserror tracing tokio nix rustix landlock seccompiler notify signal_hook jiff getrandom zeroize",
    ),
    (
        "control",
        "model system",
        "serde serde_json thiserror tracing tokio hyper hyper_util http_body_util bytes",
    ),
    (
        "door",
        "model logic system",
        "serde serde_json thiserror tracing tokio hyper hyper_util http_body_util bytes",
    ),
    ("daemon", "model logic system control door", "serde serde_json thiserror tracing tokio"),
    (
        "cli",
        "model logic system control door daemon",
        "serde serde_json thiserror tracing tokio anyhow clap clap_complete clap_mangen tracing_subscriber zeroize",
    ),
];

/// Folders that leave files to `system`.
const WITHOUT_FILES: &str = "model logic door daemon";

/// Files with a crate of their own beside their folder's.
const CORNERS: &[(&str, &str)] =
    &[("system/probe", "hyper hyper_util http_body_util bytes"), ("system/seal", "age")];

/// What is wrong with one file; `file` is its path below src.
fn breaches(file: &str, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    if !text.starts_with("//!") {
        found.push(format!("src/{file} does not open with //!"));
    }
    let is_tests = file.ends_with("/tests.rs");
    let lines = text.lines().count();
    if lines > if is_tests { MAX_LINES_OF_TESTS } else { MAX_LINES } {
        found.push(format!("src/{file} has {lines} lines; split it"));
    }
    let Some((folder, _)) = file.split_once('/') else {
        return found;
    };
    let Some((_, may_name, at_home)) = FOLDERS.iter().find(|(name, ..)| *name == folder) else {
        found.push(format!("src/{file}: there is no folder {folder} in the table"));
        return found;
    };
    let tokens = tokens(text);
    for named in crate_paths(&tokens, depth(file)) {
        if is_folder(&named) && named != folder && !lists(may_name, &named) {
            found.push(format!("src/{file} names crate::{named}, which {folder} may not"));
        }
    }
    let corner = CORNERS.iter().find(|(start, _)| file.starts_with(start)).map_or("", |(_, crates)| crates);
    if !is_tests
        && !file.contains("/tests/")
        && lists(WITHOUT_FILES, folder)
        && uses_files(&without_tests(&tokens))
    {
        found.push(format!("src/{file} uses std::fs, which is system's"));
    }
    if !is_tests {
        for outside in outside_crates(&without_tests(&tokens)) {
            if !lists(at_home, &outside) && !lists(corner, &outside) {
                found.push(format!("src/{file} uses {outside}, which is not at home in {folder}"));
            }
        }
    }
    found.sort();
    found.dedup();
    found
}

fn lists(list: &str, name: &str) -> bool {
    list.split_whitespace().any(|listed| listed == name)
}

fn is_folder(name: &str) -> bool {
    FOLDERS.iter().any(|(folder, ..)| *folder == name)
}

/// Every outside crate that the tables know.
fn known_crates() -> impl Iterator<Item = &'static str> {
    let folders = FOLDERS.iter().flat_map(|(_, _, crates)| crates.split_whitespace());
    folders.chain(CORNERS.iter().flat_map(|(_, crates)| crates.split_whitespace()))
}

/// How many `super` lead from the file's module to the crate.
fn depth(file: &str) -> usize {
    let parts = file.trim_end_matches(".rs").split('/').filter(|part| *part != "mod");
    parts.count()
}

/// The first names after `crate::` (or as many `super::`), those in a group too.
fn crate_paths(tokens: &[String], depth: usize) -> Vec<String> {
    let mut found = Vec::new();
    for (i, token) in tokens.iter().enumerate() {
        let after = match &**token {
            "crate" => i + 1,
            "super" if i < 2 || tokens[i - 2] != "super" => {
                let supers = tokens[i..].chunks(2).take_while(|pair| pair[0] == "super").count();
                if supers < depth {
                    continue;
                }
                i + 2 * supers - 1
            }
            _ => continue,
        };
        if tokens.get(after).is_some_and(|token| token == "::") {
            found.extend(heads(&tokens[after + 1..]));
        }
    }
    found
}

/// The names that a path, or each path of a group, begins with.
fn heads(tokens: &[String]) -> Vec<String> {
    if tokens.first().is_none_or(|first| first != "{") {
        return tokens.first().cloned().into_iter().collect();
    }
    let (mut found, mut level) = (Vec::new(), 0);
    for (i, token) in tokens.iter().enumerate() {
        match &**token {
            "{" => level += 1,
            "}" => level -= 1,
            _ if level == 1 && matches!(&*tokens[i - 1], "{" | ",") => found.push(token.clone()),
            _ => {}
        }
        if level == 0 {
            break;
        }
    }
    found
}

/// True if a path leads to `std::fs`, one of a group too.
fn uses_files(tokens: &[String]) -> bool {
    let leads = |at: usize| tokens.get(at + 1).is_some_and(|token| token == "::");
    let std = tokens.iter().enumerate().filter(|(at, token)| *token == "std" && leads(*at));
    std.flat_map(|(at, _)| heads(&tokens[at + 2..])).any(|head| head == "fs")
}

/// The outside crates that a path begins with.
fn outside_crates(tokens: &[String]) -> Vec<String> {
    let at = |i: Option<usize>| i.and_then(|i| tokens.get(i)).map_or("", |token| &**token);
    let is_name = |token: &str| token.starts_with(|c: char| c == '_' || c.is_alphanumeric());
    let mut found = Vec::new();
    for (i, token) in tokens.iter().enumerate() {
        let (before, two_before) = (at(i.checked_sub(1)), at(i.checked_sub(2)));
        let begins = before != "::" || !(is_name(two_before) || two_before == ">");
        let leads_on = at(Some(i + 1)) == "::" || matches!(before, "use" | "crate");
        if begins && leads_on && known_crates().any(|known| known == token) {
            found.push(token.clone());
        }
    }
    found
}

/// Without what stands under `#[cfg(test)]`.
fn without_tests(tokens: &[String]) -> Vec<String> {
    let mut kept = Vec::new();
    let mut i = 0;
    while i < tokens.len() {
        if tokens[i..].starts_with(&["#", "[", "cfg", "(", "test", ")", "]"].map(String::from)) {
            i = end_of_item(tokens, i + 7);
        } else {
            kept.push(tokens[i].clone());
            i += 1;
        }
    }
    kept
}

/// Where the item that begins at `start` ends: behind its `;` or its braces.
fn end_of_item(tokens: &[String], start: usize) -> usize {
    let mut level = 0_i32;
    for (i, token) in tokens.iter().enumerate().skip(start) {
        match &**token {
            "{" | "(" | "[" => level += 1,
            "}" | ")" | "]" => level -= 1,
            _ => {}
        }
        if level == 0 && matches!(&**token, "}" | ";") {
            return i + 1;
        }
    }
    tokens.len()
}

/// Names, `::`, and single signs; no comments, strings, characters or lifetimes.
fn tokens(text: &str) -> Vec<String> {
    let chars: Vec<char> = text.chars().collect();
    let next = |i: usize| chars.get(i).copied().unwrap_or('\0');
    let mut tokens = Vec::new();
    let mut i = 0;
    while i < chars.len() {
        match (chars[i], next(i + 1)) {
            ('/', '/') => i = find(&chars, i, |c| c == '\n'),
            ('/', '*') => i = end_of_comment(&chars, i),
            ('"', _) => i = end_of_string(&chars, i),
            ('\'', '\\') => i = find(&chars, i + 3, |c| c == '\'') + 1,
            ('\'', _) if next(i + 2) == '\'' => i += 3,
            ('\'', _) => i = find(&chars, i + 1, |c| !(c == '_' || c.is_alphanumeric())),
            (':', ':') => {
                tokens.push("::".into());
                i += 2;
            }
            (c, _) if c == '_' || c.is_alphanumeric() => {
                let end = find(&chars, i, |c| !(c == '_' || c.is_alphanumeric()));
                let name: String = chars[i..end].iter().collect();
                let hashes = find(&chars, end, |c| c != '#') - end;
                if matches!(&*name, "r" | "br" | "cr") && next(end + hashes) == '"' {
                    i = end_of_raw_string(&chars, end + hashes + 1, hashes);
                } else {
                    tokens.push(name);
                    i = end;
                }
            }
            (c, _) => {
                if !c.is_whitespace() {
                    tokens.push(c.into());
                }
                i += 1;
            }
        }
    }
    tokens
}

fn find(chars: &[char], from: usize, is_it: impl Fn(char) -> bool) -> usize {
    (from..chars.len()).find(|&i| is_it(chars[i])).unwrap_or(chars.len())
}

fn end_of_comment(chars: &[char], start: usize) -> usize {
    let (mut level, mut i) = (0, start);
    while i < chars.len() {
        match chars[i..].get(..2) {
            Some(['/', '*']) => (level, i) = (level + 1, i + 2),
            Some(['*', '/']) => (level, i) = (level - 1, i + 2),
            _ => i += 1,
        }
        if level == 0 {
            break;
        }
    }
    i
}

fn end_of_string(chars: &[char], start: usize) -> usize {
    let mut i = start + 1;
    while i < chars.len() && chars[i] != '"' {
        i += if chars[i] == '\\' { 2 } else { 1 };
    }
    i + 1
}

fn end_of_raw_string(chars: &[char], start: usize, hashes: usize) -> usize {
    let closes = |i: usize| {
        chars[i] == '"' && chars[i + 1..].iter().take(hashes).filter(|c| **c == '#').count() == hashes
    };
    (start..chars.len()).find(|&i| closes(i)).map_or(chars.len(), |i| i + 1 + hashes)
}

fn files_below(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            files.extend(files_below(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    Ok(files)
}

#[test]
fn every_file_keeps_to_its_layer() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let files = files_below(&src).unwrap();
    assert!(files.len() > 30, "src was not read");
    let mut found = Vec::new();
    for path in files {
        let file = path.strip_prefix(&src).unwrap().to_str().unwrap();
        found.extend(breaches(file, &fs::read_to_string(&path).unwrap()));
    }
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}

#[test]
fn every_dependency_has_a_home() {
    let cargo = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml")).unwrap();
    let (_, dependencies) = cargo.split_once("\n[dependencies]\n").unwrap();
    let (dependencies, _) = dependencies.split_once("\n[").unwrap();
    let names = dependencies
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_once([' ', '=', '.']));
    for (name, _) in names {
        let name = name.replace('-', "_");
        assert!(known_crates().any(|known| known == name), "{name} is at home nowhere; add it to FOLDERS");
    }
}

/// The files that SECURITY.md says have `unsafe` in them.
fn fenced(page: &str) -> Vec<&str> {
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `src/")?.split('`').next());
    rows.collect()
}

#[test]
fn unsafe_stands_where_security_md_says_with_its_reason_and_nowhere_else() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join("SECURITY.md")).unwrap();
    let mut found = Vec::new();
    for path in files_below(&root.join("src")).unwrap() {
        let text = fs::read_to_string(&path).unwrap();
        let tokens = tokens(&text);
        if tokens.iter().any(|token| token == "unsafe") {
            let has_fence = tokens.windows(4).any(|it| it[0] == "unsafe_code" && it[2] == "reason");
            assert!(has_fence, "{} has unsafe and no reason for it", path.display());
            found.push(path.strip_prefix(root.join("src")).unwrap().to_str().unwrap().to_owned());
        }
    }
    found.sort();
    let mut named = fenced(&page);
    named.sort_unstable();
    assert_eq!(found, named, "what has unsafe, and what SECURITY.md names");
}

/// What the checker says of a file with this text (after a proper first line).
fn said(file: &str, text: &str) -> String {
    breaches(file, &format!("//! A file.\n{text}")).join("\n")
}

#[test]
fn a_folder_that_names_one_it_may_not_is_caught_however_it_says_it() {
    for text in [
        "use crate::system::clock;",
        "use crate::{model::Moment, system::{clock, files}};",
        "use crate::{\n    model::config::{Config, Ports},\n    system,\n};",
        "fn f() { crate::system::clock::now(); }",
        "use super::super::system::clock;",
        "#[cfg(test)] mod tests { use crate::system::clock; }",
        "fn f<'a>(c: char) { if c == '\"' { crate::system::f() } }",
    ] {
        let said = said("logic/fleet.rs", text);
        assert_eq!(said, "src/logic/fleet.rs names crate::system, which logic may not", "{text}");
    }
}

#[test]
fn an_outside_crate_away_from_home_is_caught() {
    for text in [
        "use tokio::sync::mpsc;",
        "use {std::fmt, tokio::net};",
        "fn f() { ::tokio::spawn(x); }",
        "fn f() -> tokio::Result<()> {}",
        "use tokio as t;",
        "extern crate tokio;",
        "#[tokio::main] fn f() {}",
        "#[cfg(test)] mod tests { fn f() {} }\nuse tokio::net;",
    ] {
        assert_eq!(
            said("logic/fleet.rs", text),
            "src/logic/fleet.rs uses tokio, which is not at home in logic",
            "{text}"
        );
    }
    assert!(said("system/files.rs", "use hyper::Uri;").contains("uses hyper"));
    assert_eq!(said("system/probe.rs", "use hyper::Uri;"), "");
}

#[test]
fn a_folder_that_goes_to_files_itself_is_caught() {
    for text in ["use std::fs;", "use std::{fs, io};", "fn f() { std::fs::read(\"x\") }"] {
        assert_eq!(said("daemon/x.rs", text), "src/daemon/x.rs uses std::fs, which is system's", "{text}");
        assert_eq!(said("system/x.rs", text), "");
    }
    assert_eq!(said("daemon/x.rs", "use std::fmt;\n#[cfg(test)]\nmod tests { use std::fs; }"), "");
}

#[test]
fn a_file_without_a_header_or_without_end_is_caught() {
    assert_eq!(breaches("main.rs", "fn main() {}"), ["src/main.rs does not open with //!"]);
    let long = "\n".repeat(MAX_LINES);
    assert_eq!(said("logic/fleet.rs", &long), "src/logic/fleet.rs has 501 lines; split it");
    assert_eq!(said("logic/fleet/tests.rs", &long), "");
    assert!(said("utils/x.rs", "").contains("there is no folder utils"));
}

#[test]
fn what_is_allowed_or_only_spoken_of_is_not_caught() {
    for text in [
        "use crate::model::Moment; use crate::logic::instance; use std::fmt; use serde::Serialize;",
        "// crate::system tokio::net\n/* crate::system /* tokio::net */ tokio::net */",
        "/// See `tokio::net` and [`crate::system`].\nfn f() {}",
        "const A: &str = \"crate::system \\\" tokio::net\"; const B: &str = r#\"tokio::\" crate::system\"#;",
        "const A: char = '\\''; const B: &[u8] = b\"tokio::x\"; fn f<'tokio>(x: &'tokio str) {}",
        "#[cfg(test)]\nmod tests { use tokio::net; fn f() { tempfile::tempdir(); } }",
        "#[cfg(test)] mod tests;\nuse super::config;",
        "use crate::logic::toml::x; fn f() { let tokio = 1; self.tokio.f() }",
    ] {
        assert_eq!(said("logic/fleet.rs", text), "", "{text}");
    }
    assert_eq!(said("daemon/mod.rs", "use crate::{door, logic, model, system, control};"), "");
}

/// The modules that `apart.ld` names and what in them, as paths below src: `6mcpsup5logic5frame` is
/// `logic/frame`.
fn kept_apart(script: &str) -> Vec<PathBuf> {
    let names = script.lines().filter_map(|line| line.split_once("6mcpsup"));
    let path = |(_, mut rest): (&str, &str)| {
        let mut path = PathBuf::new();
        while let Some(end) = rest.find(|c: char| !c.is_ascii_digit()) {
            let Ok(length) = rest[..end].parse::<usize>() else { break };
            path.push(&rest[end..end + length]);
            rest = &rest[end + length..];
        }
        path
    };
    names.map(path).collect()
}

#[test]
fn what_is_kept_apart_in_the_program_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let kept = kept_apart(&fs::read_to_string(root.join("apart.ld")).unwrap());
    assert!(kept.contains(&PathBuf::from("logic/frame")));
    let src = root.join("src");
    // Of a module all, or what it says after it: a function, or one of a type's.
    let is_there = |path: &Path| {
        let files = |module: &Path| [src.join(module).with_extension("rs"), src.join(module).join("mod.rs")];
        let said = |module: &Path| files(module).iter().find_map(|file| fs::read_to_string(file).ok());
        let Some((module, text)) = path.ancestors().find_map(|module| Some((module, said(module)?))) else {
            return false;
        };
        let items = path.strip_prefix(module).unwrap().iter().map(|item| item.to_str().unwrap());
        let is_made = |item| ["fn", "struct", "enum"].map(|kind| format!("{kind} {item}"));
        items.map(is_made).all(|ways| ways.iter().any(|way| text.contains(way)))
    };
    assert!(is_there(Path::new("cli/print/Print/json")) && !is_there(Path::new("cli/print/Print/jsom")));
    let gone: Vec<_> = kept.iter().filter(|path| !is_there(path)).collect();
    assert!(gone.is_empty(), "{gone:?}");
}
