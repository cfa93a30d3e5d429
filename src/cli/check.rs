//! `mcpsup check`: reads everything as the daemon does, and starts nothing.
//!
//! [`examine`] is also what `add` and `edit` ask before they put anything in place, so that a
//! file they accept is one that the daemon accepts.

use std::io;
use std::path::Path;

use serde::Serialize;

use super::Outcome;
use super::names::user_of;
use super::print::{Paint, clean};
use super::session::Session;
use crate::logic::{config, envfile};
use crate::model::config::{Config, Credential, Server};
use crate::model::env::{Variable, Variables};
use crate::model::{Problem, ServerName, UserName};
use crate::system::files;
use crate::system::places::Places;

/// How.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print it as JSON
    #[arg(long)]
    pub json: bool,
    /// Name every variable and the length of its value
    #[arg(long, short)]
    pub verbose: bool,
}

/// Largest mcpsup.toml and env file in bytes.
const LARGEST: usize = 1024 * 1024;

/// What the files say.
#[derive(Debug, Default)]
pub struct Examined {
    /// All that is wrong, mcpsup.toml first.
    pub problems: Vec<Problem>,
    /// mcpsup.toml, if it is right.
    pub config: Option<Config>,
    /// The env files that could be parsed, by the names they are known as.
    pub files: Vec<(String, Variables)>,
    /// Names in env.d that mean no user.
    pub ignored: Vec<String>,
}

/// Reads mcpsup.toml and every env file.
#[must_use]
pub fn examine(places: &Places) -> Examined {
    let mut examined = Examined::default();
    match read_config(places) {
        Ok(config) => examined.config = Some(config),
        Err(problems) => examined.problems = problems,
    }
    let names = match file_names(&places.env_dir) {
        Ok(names) => names,
        Err(error) => {
            let text = format!("cannot be read: {}", crate::system::cause::plain(&error));
            examined.problems.push(Problem::new(places.env_dir.to_string_lossy(), text));
            return examined;
        }
    };
    for name in names {
        let Some(user) = user_of(name.as_ref()) else {
            examined.ignored.push(name);
            continue;
        };
        let shown = shown(places, &name);
        let bytes = match files::read_bounded(&places.env_dir.join(&name), LARGEST) {
            Ok(bytes) => bytes,
            Err(error) => {
                examined.problems.push(Problem::new(shown, chain(&error)));
                continue;
            }
        };
        match examine_file(examined.config.as_ref(), &user, &shown, &bytes) {
            Ok(variables) => examined.files.push((shown, variables)),
            Err(problems) => examined.problems.extend(problems),
        }
    }
    examined
}

/// Reads mcpsup.toml.
///
/// # Errors
///
/// Everything that is wrong with it.
pub fn read_config(places: &Places) -> Result<Config, Vec<Problem>> {
    let file = places.config.file_name().unwrap_or(places.config.as_os_str()).to_string_lossy();
    let one = |text: String| vec![Problem::new(file.clone(), text)];
    let bytes = files::read_bounded(&places.config, LARGEST).map_err(|error| one(chain(&error)))?;
    let text = String::from_utf8(bytes).map_err(|_| one("is not UTF-8".to_owned()))?;
    config::parse(&text, &file)
}

/// What one user's file says, if it is right by itself and for the servers it is for. `shown` is
/// the name it is known as.
///
/// # Errors
///
/// Everything that is wrong with it.
pub fn examine_file(
    config: Option<&Config>,
    _user: &UserName,
    shown: &str,
    bytes: &[u8],
) -> Result<Variables, Vec<Problem>> {
    let variables = envfile::parse(bytes, shown)?;
    let listed = variables.get("MCPSUP_SERVERS").map(|v| v.value.reveal().to_owned());
    let optional: Vec<ServerName> =
        listed.iter().flat_map(|list| list.split(',')).filter_map(|name| name.trim().parse().ok()).collect();
    let mut problems = Vec::new();
    for (server, name, credential) in config.into_iter().flat_map(|c| credentials(c, &optional)) {
        problems.extend(judge(&variables, shown, server, name, credential));
    }
    if problems.is_empty() { Ok(variables) } else { Err(problems) }
}

/// The servers a user has who lists `optional` ones.
fn servers<'a>(
    config: &'a Config,
    optional: &'a [ServerName],
) -> impl Iterator<Item = (&'a ServerName, &'a Server)> {
    config.servers.iter().filter(|(name, server)| server.for_all || optional.contains(name))
}

/// The credentials that those servers want.
pub fn credentials<'a>(
    config: &'a Config,
    optional: &'a [ServerName],
) -> impl Iterator<Item = (&'a ServerName, &'a str, &'a Credential)> {
    servers(config, optional).flat_map(|(server, description)| {
        let wanted = description.credentials.iter();
        wanted.map(move |(name, credential)| (server, name.as_str(), credential))
    })
}

fn judge(
    variables: &Variables,
    shown: &str,
    server: &ServerName,
    name: &str,
    credential: &Credential,
) -> Option<Problem> {
    let Some(variable) = variables.get(name) else {
        return credential.required.then(|| {
            let text = format!("{name} is missing; {server} needs it: {}", credential.description);
            Problem::new(shown, text)
        });
    };
    let pattern = credential.pattern.as_ref()?;
    let right = config::matches(pattern, variable.value.reveal());
    (!right).then(|| {
        let text = format!("{name} is not what {server} expects; it must match {pattern}");
        Problem::new(shown, text).at_line(variable.line)
    })
}

/// The name an env file is known as: `env.d/alice.env`.
#[must_use]
pub fn shown(places: &Places, name: &str) -> String {
    let dir = places.env_dir.file_name().unwrap_or_default().to_string_lossy();
    format!("{dir}/{name}")
}

fn file_names(dir: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

fn chain(error: &files::FileError) -> String {
    use std::error::Error;
    let cause = error.source().and_then(|cause| cause.downcast_ref::<io::Error>());
    format!("cannot be read: {}", cause.map_or_else(|| error.to_string(), crate::system::cause::plain))
}

/// Names and lengths; never a value.
#[derive(Debug, Serialize)]
struct Lengths<'a> {
    file: &'a str,
    variables: Vec<Length<'a>>,
}

#[derive(Debug, Serialize)]
struct Length<'a> {
    name: &'a str,
    bytes: usize,
}

#[derive(Debug, Serialize)]
struct Report<'a> {
    problems: &'a [Problem],
    files: Vec<Lengths<'a>>,
    ignored: &'a [String],
}

/// Does it.
///
/// # Errors
///
/// When stdout cannot be written.
pub fn run(args: &Args, session: &Session) -> anyhow::Result<Outcome> {
    let examined = examine(&session.places);
    let print = &session.print;
    let report =
        Report { problems: &examined.problems, files: lengths(&examined.files), ignored: &examined.ignored };
    if args.json {
        print.json(&report, false)?;
    } else {
        for problem in &examined.problems {
            print.line(&print.paint(Paint::Bad, &clean(&problem.to_string())))?;
        }
        if args.verbose {
            for file in &report.files {
                print.line(&clean(file.file))?;
                for variable in &file.variables {
                    print.line(&format!("  {}  {} bytes", variable.name, variable.bytes))?;
                }
            }
        }
        for name in examined.ignored.iter().filter(|name| *name != "example" && *name != "README") {
            let shown = shown(&session.places, name);
            print.aside(&format!("{shown} is left alone: it is not called USER.env"));
        }
        if examined.problems.is_empty() {
            print.line(&match examined.files.len() {
                1 => "mcpsup.toml and 1 env file are right".to_owned(),
                files => format!("mcpsup.toml and {files} env files are right"),
            })?;
        }
    }
    Ok(if examined.problems.is_empty() { Outcome::Done } else { Outcome::Failed })
}

fn lengths(files: &[(String, Variables)]) -> Vec<Lengths<'_>> {
    files.iter().map(|(file, variables)| Lengths { file, variables: of_one(variables) }).collect()
}

fn of_one(variables: &Variables) -> Vec<Length<'_>> {
    let length = |v: &'_ Variable| v.value.reveal().len();
    variables.0.iter().map(|v| Length { name: &v.name, bytes: length(v) }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Secret;

    fn variables(name: &str, value: &str) -> Variables {
        Variables(vec![Variable { name: name.into(), value: Secret::new(value), line: 3 }])
    }

    fn credential(required: bool) -> Credential {
        Credential { description: "Zoho client id".to_owned(), pattern: None, required }
    }

    #[test]
    fn what_is_missing_is_named_with_what_it_is() {
        let sdp = "sdp".parse().unwrap();
        let judged =
            |name, required| judge(&variables("A", "x"), "env.d/a.env", &sdp, name, &credential(required));
        let problem = judged("B", true).unwrap().to_string();
        assert_eq!(problem, "env.d/a.env: B is missing; sdp needs it: Zoho client id");
        assert_eq!(judged("B", false), None);
        assert_eq!(judged("A", true), None);
    }

    #[test]
    fn a_check_tells_lengths_and_never_a_value() {
        let files = vec![("env.d/a.env".to_owned(), variables("TOKEN", "hunter2hunter2"))];
        let told = serde_json::to_string(&lengths(&files)).unwrap();
        assert!(told.contains("\"bytes\":14"), "{told}");
        assert!(!told.contains("hunter2"), "{told}");
    }
}
