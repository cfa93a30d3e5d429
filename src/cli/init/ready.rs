//! The servers that mcpsup knows how to run: the ready parts of examples/servers, in the program.

use crate::logic::config;
use crate::model::Config;
use crate::model::config::Piece;

macro_rules! parts {
    ($($name:literal),* $(,)?) => {
        [$(($name, include_str!(concat!("../../../examples/servers/", $name, ".toml")))),*]
    };
}

/// Name and text of each.
const PARTS: [(&str, &str); 16] = parts![
    "atlassian",
    "brave-search",
    "fetch",
    "filesystem",
    "git",
    "github",
    "grafana",
    "memory",
    "notion",
    "playwright",
    "postgres",
    "postgres-argument",
    "sentry",
    "slack",
    "sqlite",
    "time",
];

/// A server to choose.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ready {
    /// What it is called here.
    pub(super) name: &'static str,
    /// Its part of mcpsup.toml, with its comments.
    pub(super) text: &'static str,
}

/// All of them, by name.
pub(super) fn all() -> impl Iterator<Item = Ready> {
    PARTS.into_iter().map(|(name, text)| Ready { name, text })
}

/// The one of this name.
pub(super) fn find(name: &str) -> Option<Ready> {
    all().find(|ready| ready.name == name)
}

impl Ready {
    /// What it is for: its first line.
    pub(super) fn about(self) -> &'static str {
        self.text.lines().next().unwrap_or_default().trim_start_matches("# ")
    }

    /// How it is installed, as its part says it.
    pub(super) fn install(self) -> String {
        let head = self.text.lines().take_while(|line| line.starts_with('#'));
        let lines = head.map(|line| line.trim_start_matches('#').trim());
        let rest = lines.skip_while(|line| !line.starts_with("Install:"));
        let all: Vec<&str> = rest.take_while(|line| !line.is_empty()).collect();
        all.join(" ").trim_start_matches("Install:").trim().to_owned()
    }

    /// The program that it begins with.
    pub(super) fn program(self) -> String {
        config::parse(self.text, self.name).map(|config| program(&config)).unwrap_or_default()
    }
}

/// The program of the one server of a configuration; empty if that differs by user.
pub(super) fn program(config: &Config) -> String {
    let first = config.servers.values().next().and_then(|server| server.command.first());
    match first.map(|template| template.0.as_slice()) {
        Some([Piece::Text(text)]) => text.to_string(),
        Some(_) | None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_ready_part_says_what_it_is_how_it_is_installed_and_what_it_runs() {
        for ready in all() {
            assert!(ready.about().len() > 10, "{}", ready.name);
            assert!(ready.install().len() > 10, "{}", ready.name);
            assert!(ready.program().starts_with('/'), "{}: {:?}", ready.name, ready.program());
        }
    }

    #[test]
    fn no_part_that_is_shipped_is_missing_here() {
        let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/servers");
        let mut names: Vec<String> = std::fs::read_dir(dir)
            .unwrap()
            .filter_map(|entry| Some(entry.unwrap().file_name().to_str()?.strip_suffix(".toml")?.to_owned()))
            .collect();
        names.sort();
        assert_eq!(names, all().map(|ready| ready.name.to_owned()).collect::<Vec<_>>());
    }
}
