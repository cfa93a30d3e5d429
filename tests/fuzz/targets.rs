//! What must hold for any input at all, one function for each reader of what users write.
//!
//! Plain functions, called by the seeded driver in `main.rs` (under `cargo test`) and by
//! `fuzz_targets/` (under cargo-fuzz). They say nothing about which inputs are right; that is in
//! the unit tests beside the readers.

use std::path::Path;

use mcpsup::logic::{config, envfile, template};
use mcpsup::model::config::{Piece, Template};
use mcpsup::model::env::{Variable, Variables};
use mcpsup::model::{Problem, Secret};

/// Stands for a secret in the seeds. It cannot be the name of a variable, so no message may hold
/// it.
pub(crate) const MARK: &str = "s3cret-zq7x-mark";

/// An env file is read or refused; what is read survives being written and read again, and
/// nothing that is said holds a value.
pub(crate) fn envfile(data: &[u8]) {
    match envfile::parse(data, "env.d/alice.env") {
        Ok(variables) => {
            assert!(!format!("{variables:?}").contains(MARK), "Debug shows a value");
            reads_back(&variables);
        }
        Err(problems) => {
            fit_to_be_shown(&problems, data);
            assert!(!format!("{problems:?}").contains(MARK), "a problem holds a value");
        }
    }
}

fn reads_back(variables: &Variables) {
    let mut file = String::new();
    for Variable { name, value, .. } in &variables.0 {
        assert_eq!(envfile::unquotable(value.reveal()), None, "read, but cannot be written");
        file.extend([name, "=", &envfile::quote(value.reveal()), "\n"]);
    }
    // Quoting can make a file longer than a file may be.
    if file.len() > envfile::MAX_FILE {
        return;
    }
    match envfile::parse(file.as_bytes(), "written.env") {
        Ok(again) => {
            let pairs = |v: &Variables| -> Vec<(Box<str>, Secret)> {
                v.0.iter().map(|v| (v.name.clone(), v.value.clone())).collect()
            };
            assert!(pairs(&again) == pairs(variables), "written and read again, it is another");
        }
        Err(problems) => panic!("what was written is refused: {problems:?}"),
    }
}

/// mcpsup.toml is read or refused; the same text as a value of `env` is never shown.
pub(crate) fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if let Err(problems) = config::parse(text, "mcpsup.toml") {
        fit_to_be_shown(&problems, data);
    }
    let escape = |c: char| format!("\\U{:08X}", u32::from(c));
    let value: String = MARK.chars().chain(text.chars()).map(escape).collect();
    let file = format!(
        "[server.a]\ncommand = [\"x\"]\nport_env = \"PORT\"\ntransport = \"http\"\nenv.A = \"{value}\"\n"
    );
    if let Err(problems) = config::parse(&file, "mcpsup.toml") {
        fit_to_be_shown(&problems, file.as_bytes());
        assert!(!format!("{problems:?}").contains(MARK), "a problem holds a value");
    }
}

/// A template is read or refused; one that is read says the same when it is written out, and is
/// filled from nothing but its holes.
pub(crate) fn template(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let Ok(parsed) = template::parse(text) else {
        return;
    };
    assert_eq!(template::parse(&written(&parsed)).as_ref(), Ok(&parsed));
    let variables = template::variables(&parsed).map(|name| Variable {
        name: name.into(),
        value: Secret::new(format!("{{user}}{MARK}")),
        line: 1,
    });
    let (Ok(user), Ok(server)) = ("alice".parse(), "notes".parse()) else {
        return;
    };
    let holes = |vars| template::Holes {
        user: &user,
        server: &server,
        port: 20_000,
        state_dir: Path::new("/state"),
        runtime_dir: Path::new("/run"),
        vars,
    };
    let all = Variables(variables.collect());
    let filled = template::fill(&parsed, &holes(&all)).map(|filled| format!("{filled:?}"));
    assert_eq!(filled, Ok("***".to_owned()));
    let without = template::fill(&parsed, &holes(&Variables::default()));
    assert_eq!(without.is_err(), !all.0.is_empty());
}

fn written(template: &Template) -> String {
    let pieces = template.0.iter().map(|piece| match piece {
        Piece::Text(text) => text.replace('{', "{{").replace('}', "}}"),
        Piece::User => "{user}".to_owned(),
        Piece::Server => "{server}".to_owned(),
        Piece::Port => "{port}".to_owned(),
        Piece::StateDir => "{state_dir}".to_owned(),
        Piece::RuntimeDir => "{runtime_dir}".to_owned(),
        Piece::Env(name) => format!("{{env:{name}}}"),
    });
    pieces.collect()
}

/// There are problems, not too many, each at a place that exists and on one short line that does
/// nothing to a terminal.
fn fit_to_be_shown(problems: &[Problem], data: &[u8]) {
    assert!((1..=101).contains(&problems.len()), "{} problems", problems.len());
    let lines = data.split(|byte| *byte == b'\n').count();
    for problem in problems {
        let line = problem.line.unwrap_or(1) as usize;
        assert!((1..=lines).contains(&line), "line {line} of {lines}");
        assert!(problem.column.is_none_or(|column| (1..=data.len() + 1).contains(&(column as usize))));
        assert!(!problem.text.chars().any(char::is_control), "{problem:?}");
        assert!((1..=600).contains(&problem.text.len()), "{problem:?}");
    }
}
