//! examples/servers: every part of an mcpsup.toml there is read as `mcpsup check` reads it, with the
//! env file beside it, so that none of them can rot.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test writes files and stops at the first thing that is wrong"
)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use mcpsup::cli::check::examine;
use mcpsup::logic::config;
use mcpsup::model::{Config, Problem};
use mcpsup::system::places::Places;

/// The names of the examples, without `.toml`.
fn names() -> Vec<String> {
    let all = fs::read_dir(directory()).unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<String> =
        all.filter_map(|name| Some(name.to_str()?.strip_suffix(".toml")?.to_owned())).collect();
    names.sort();
    assert!(names.len() >= 10, "examples/servers holds {names:?}");
    names
}

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/servers")
}

fn text(file: &str) -> String {
    fs::read_to_string(directory().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

fn read(toml: &str, name: &str) -> Config {
    config::parse(toml, name).unwrap_or_else(|problems| panic!("{problems:#?}"))
}

/// What `mcpsup check` says of an mcpsup.toml and alice's file.
fn problems(toml: &str, env: &str) -> Vec<Problem> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("mcpsup.toml");
    fs::write(&file, toml).unwrap();
    let env_dir = dir.path().join("env.d");
    fs::create_dir(&env_dir).unwrap();
    fs::set_permissions(&env_dir, fs::Permissions::from_mode(0o700)).unwrap();
    let alice = env_dir.join("alice.env");
    fs::write(&alice, env).unwrap();
    fs::set_permissions(&alice, fs::Permissions::from_mode(0o600)).unwrap();
    let places = Places::find(Some(&file), false, |_| None).unwrap();
    let examined = examine(&places, None);
    assert_eq!(examined.files.len(), 1, "alice's file was not read");
    examined.problems
}

#[test]
fn every_example_passes_mcpsup_check_with_the_env_file_beside_it() {
    for name in names() {
        let found = problems(&text(&format!("{name}.toml")), &text(&format!("{name}.env")));
        assert_eq!(found, [], "{name}");
    }
}

#[test]
fn an_example_is_called_as_the_server_that_it_describes_and_names_where_it_was_looked_up() {
    for name in names() {
        let toml = text(&format!("{name}.toml"));
        let servers: Vec<String> =
            read(&toml, &name).servers.keys().map(|server| server.as_str().to_owned()).collect();
        assert_eq!(servers, [name.as_str()]);
        assert!(toml.lines().any(|line| line.starts_with("# ") && line.contains(": https://")), "{name}");
        assert!(toml.contains("# Install: "), "{name}");
    }
}

#[test]
fn an_example_without_its_credentials_is_refused() {
    for name in names() {
        let toml = text(&format!("{name}.toml"));
        let config = read(&toml, &name);
        let credentials = config.servers.values().flat_map(|server| &server.credentials);
        for (variable, _) in credentials.filter(|(_, credential)| credential.required) {
            let env = text(&format!("{name}.env"));
            let without: String = env
                .lines()
                .filter(|line| !line.starts_with(&format!("{variable}=")))
                .flat_map(|line| [line, "\n"])
                .collect();
            let found = problems(&toml, &without);
            assert!(found.iter().any(|it| it.text.contains(variable.as_str())), "{name}: {found:?}");
        }
    }
}

#[test]
fn all_examples_can_stand_in_one_file() {
    let all: String = names().iter().map(|name| text(&format!("{name}.toml")) + "\n").collect();
    assert_eq!(read(&all, "mcpsup.toml").servers.len(), names().len());
}

#[test]
fn the_list_of_the_examples_has_each_of_them() {
    let list = text("README.md");
    for name in names() {
        assert!(list.contains(&format!("| [{name}.toml]({name}.toml) |")), "{name} is not in the list");
        assert!(directory().join(format!("{name}.env")).is_file(), "{name}.env is not there");
    }
}
