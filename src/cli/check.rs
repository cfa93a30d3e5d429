//! `mcpsup check`: reads everything as the daemon does, and starts nothing.
//!
//! [`examine`] is also what `add` and `edit` ask before they put anything in place, so that a
//! file they accept is one that the daemon accepts.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use serde::Serialize;
use zeroize::Zeroizing;

use super::Outcome;
use super::print::{Paint, clean};
use super::session::Session;
use crate::daemon::apart::{self, Apartness};
use crate::logic::access;
use crate::logic::envfile;
use crate::logic::roster::{Host, Listed, Roster};
use crate::logic::uids::Facts;
use crate::model::cage::Apart;
use crate::model::env::{Variable, Variables};
use crate::model::file::{EnvFile, FileState, Look};
use crate::model::shell;
use crate::model::{Config, InstanceId, Problem, UserName, Whom};
use crate::system::envdir::{Complete, EnvDir};
use crate::system::files;
use crate::system::places::Places;
use crate::system::seal::Keeper;
use crate::system::{account, clock, holdings};

/// How.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print it as JSON
    #[arg(long)]
    pub json: bool,
    /// Name every variable and the length of its value, and every promise this host keeps
    #[arg(long, short)]
    pub verbose: bool,
}

/// What the files say.
#[derive(Debug, Default)]
pub struct Examined {
    /// All that is wrong, mcpsup.toml first.
    pub problems: Vec<Problem>,
    /// The env files that could be parsed, by the names they are known as.
    pub files: Vec<(String, Variables)>,
    /// What is right, and should be known all the same.
    pub notes: Vec<String>,
    /// Names in env.d that are nobody's file, and why.
    pub ignored: Vec<(String, String)>,
    /// mcpsup.toml, if it is right.
    pub config: Option<Config>,
    /// What the daemon would make of all that.
    pub listed: BTreeMap<InstanceId, Listed>,
}

/// Reads mcpsup.toml and every env file, with `instead` in the place of one user's.
#[must_use]
pub fn examine(places: &Places, instead: Option<(UserName, EnvFile)>) -> Examined {
    let mut examined = Examined::default();
    let config = read_config(places);
    match &config {
        Ok(config) => {
            examined.notes = access::notes(config);
            examined.config = Some(config.clone());
        }
        Err(problems) => examined.problems.clone_from(problems),
    }
    let own_uid = |user: &UserName| account::uid_of(user.as_str());
    let mut look = EnvDir::new(&places.env_dir).look(clock::now(), Complete::All, &own_uid);
    if let Some((user, file)) = instead {
        // The first user's file is written before there is a directory for it.
        look.directory = Ok(());
        look.files.insert(user, FileState::Read(file));
    }
    examined.problems.extend(look.directory.clone().err());
    unseal(&mut look, &Keeper::of(places));
    for state in look.files.values() {
        match state {
            FileState::Unchanged | FileState::Sealed(..) => {}
            FileState::Refused(problem) => examined.problems.push(problem.clone()),
            FileState::Read(file) => match envfile::parse(&file.bytes, &file.name) {
                Ok(variables) => examined.files.push((file.name.clone(), variables)),
                Err(problems) => examined.problems.extend(problems),
            },
        }
    }
    examined.ignored = std::mem::take(&mut look.ignored);
    let mut roster = Roster::default();
    roster.set_config(config);
    roster.set_files(look);
    let host = Host {
        blocked: &BTreeSet::new(),
        accounts: &account::find,
        uids: Facts { named: &account::named, is_used: &holdings::is_used(&places.state) },
        state: &places.state,
        runtime: &places.runtime,
        is_root: account::own_uid() == 0,
        // Nothing is compared with what the daemon runs.
        digest_key: &[0; 32],
        cage: &|_, _| Arc::default(),
        removing: &BTreeSet::new(),
    };
    let listed = roster.resolve(
        &Whom::All,
        &mut remembered(places, "ports.json"),
        &mut remembered(places, "uids.json"),
        &host,
    );
    examined.notes.extend(roster.notes());
    // The roster's own: files of users who have no instance.
    let of_instances = listed.values().flat_map(|one| one.problems.iter().cloned());
    for problem in of_instances.chain(roster.problems()) {
        if !examined.problems.contains(&problem) {
            examined.problems.push(problem);
        }
    }
    examined.listed = listed;
    examined
}

/// Opens what is encrypted.
fn unseal(look: &mut Look, keeper: &Keeper) {
    for (user, state) in &mut look.files {
        if let FileState::Sealed(file, seal) = state {
            let EnvFile { name, owner_uid, .. } = file.clone();
            *state = match keeper.open(*seal, user, &file.bytes) {
                Ok(bytes) => FileState::Read(EnvFile { name, bytes, owner_uid }),
                Err(why) => FileState::Refused(Problem::new(name, why)),
            };
        }
    }
}

/// The ports, or uids, that were given before; none where they cannot be read, which is the daemon's
/// alone.
fn remembered<T: Default + serde::de::DeserializeOwned>(places: &Places, name: &str) -> T {
    let bytes = files::read_bounded(&places.state.join(name), files::LARGEST).ok();
    bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
}

/// Reads mcpsup.toml.
///
/// # Errors
///
/// Everything that is wrong with it.
pub fn read_config(places: &Places) -> Result<Config, Vec<Problem>> {
    let file = places.config.file_name().unwrap_or(places.config.as_os_str()).to_string_lossy();
    crate::daemon::read_config(&places.config, &file)
}

/// What is wrong with one user's file if it says `bytes`, by itself and beside everybody else's.
/// `shown` is the name it is known as, `owner_uid` whose it will be.
///
/// # Errors
///
/// Everything that is wrong with it.
pub fn examine_file(
    places: &Places,
    user: &UserName,
    shown: &str,
    bytes: &[u8],
    owner_uid: u32,
) -> Result<(), Vec<Problem>> {
    let file = EnvFile { name: shown.to_owned(), bytes: Zeroizing::new(bytes.to_vec()), owner_uid };
    let mut problems = examine(places, Some((user.clone(), file))).problems;
    // What is wrong elsewhere is no reason against this file.
    problems.retain(|problem| problem.file == shown);
    if problems.is_empty() { Ok(()) } else { Err(problems) }
}

/// The name an env file is known as: `env.d/alice.env`.
#[must_use]
pub fn shown(places: &Places, name: &str) -> String {
    let dir = places.env_dir.file_name().unwrap_or_default().to_string_lossy();
    format!("{dir}/{name}")
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
    notes: &'a [String],
    ignored: BTreeMap<&'a str, &'a str>,
    /// How far a daemon of the caller's would keep users apart here.
    #[serde(skip_serializing_if = "Option::is_none")]
    apart: Option<&'a Apart>,
}

/// Does it.
///
/// # Errors
///
/// When stdout cannot be written.
pub fn run(args: &Args, session: &Session) -> anyhow::Result<Outcome> {
    let mut examined = examine(&session.places, None);
    let apart = foresee(&session.places, &mut examined);
    if args.json {
        let ignored = examined.ignored.iter().map(|(name, why)| (&**name, &**why));
        let report = Report {
            problems: &examined.problems,
            files: lengths(&examined.files),
            notes: &examined.notes,
            ignored: ignored.collect(),
            apart: apart.as_ref().map(|found| &found.apart),
        };
        session.print.json(&report, false)?;
    } else {
        tell(&examined, args.verbose, session)?;
        if let (Some(_), Some(owner)) = (&apart, other_owner(&session.places)) {
            session.print.aside(&whom_to_ask_as(&owner));
        }
        for line in apart.iter().flat_map(|found| found.apart.lines(args.verbose)) {
            session.print.line(&clean(&line))?;
        }
    }
    Ok(if examined.problems.is_empty() { Outcome::Done } else { Outcome::Failed })
}

/// Whose mcpsup.toml is, if not the caller's: a daemon of theirs has other rights.
fn other_owner(places: &Places) -> Option<String> {
    let owner = std::fs::metadata(&places.config).ok()?.uid();
    let name = || account::name_of(owner).unwrap_or_else(|| format!("#{owner}"));
    (owner != account::own_uid()).then(name)
}

/// What is said to somebody else than this one, whose name may be a number to sudo: `#1234`.
fn whom_to_ask_as(owner: &str) -> String {
    format!(
        "note: what is said below is of a daemon that you start; mcpsup.toml is {owner}'s: ask as {owner} (sudo -u {} mcpsup check)",
        shell::word(owner)
    )
}

/// What this host would keep apart; that it is too little for mcpsup.toml is a problem like others.
pub fn foresee(places: &Places, examined: &mut Examined) -> Option<Apartness> {
    // One that cannot be read has been reported.
    let config = examined.config.as_ref()?;
    let file = places.config.file_name().unwrap_or(places.config.as_os_str()).to_string_lossy();
    match apart::foresee(places, config) {
        Ok(found) => {
            examined.problems.extend(found.refusal.clone().map(|text| Problem::new(file.clone(), text)));
            examined.notes.extend(found.unseen_notes());
            Some(found)
        }
        Err(error) => {
            let text =
                format!("cannot tell what this host keeps apart: {}", crate::system::cause::plain(&error));
            examined.problems.push(Problem::new(file, text));
            None
        }
    }
}

fn tell(examined: &Examined, verbose: bool, session: &Session) -> anyhow::Result<()> {
    let print = &session.print;
    for problem in &examined.problems {
        print.line(&print.paint(Paint::Bad, &clean(&problem.to_string())))?;
    }
    for file in lengths(&examined.files).iter().filter(|_| verbose) {
        print.line(&clean(file.file))?;
        for variable in &file.variables {
            print.line(&format!("  {}  {} bytes", variable.name, variable.bytes))?;
        }
    }
    for note in &examined.notes {
        print.aside(&format!("note: {}", clean(note)));
    }
    for (name, why) in &examined.ignored {
        print.aside(&format!("{} is left alone: {why}", shown(&session.places, name)));
    }
    if examined.problems.is_empty() {
        print.line(&match examined.files.len() {
            1 => "mcpsup.toml and 1 env file are right".to_owned(),
            files => format!("mcpsup.toml and {files} env files are right"),
        })?;
    }
    Ok(())
}

fn lengths(files: &[(String, Variables)]) -> Vec<Lengths<'_>> {
    files.iter().map(|(file, variables)| Lengths { file, variables: of_one(variables) }).collect()
}

fn of_one(variables: &Variables) -> Vec<Length<'_>> {
    let length = |v: &'_ Variable| v.value.reveal().len();
    variables.0.iter().map(|v| Length { name: &v.name, bytes: length(v) }).collect()
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests write small files")]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;

    use super::*;
    use crate::cli::init;
    use crate::model::Secret;

    fn places(dir: &Path) -> Places {
        std::fs::create_dir(dir.join("env.d")).unwrap();
        std::fs::write(dir.join("mcpsup.toml"), init::CONFIG).unwrap();
        Places::find(Some(&dir.join("mcpsup.toml")), false, |_| None).unwrap()
    }

    fn save(places: &Places, name: &str, text: &str) {
        let path = places.env_dir.join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
    }

    fn problems(places: &Places) -> Vec<String> {
        examine(places, None).problems.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn who_is_to_ask_as_somebody_else_can_type_what_is_said() {
        assert!(whom_to_ask_as("alice").ends_with("'s: ask as alice (sudo -u alice mcpsup check)"));
        // Without the quotes it is a comment.
        assert!(whom_to_ask_as("#1234").ends_with("'s: ask as #1234 (sudo -u '#1234' mcpsup check)"));
    }

    #[test]
    fn what_init_writes_is_right() {
        let dir = tempfile::tempdir().unwrap();
        let places = places(dir.path());
        save(&places, "example", init::EXAMPLE);
        assert_eq!(problems(&places), Vec::<String>::new());
        save(&places, "alice.env", init::EXAMPLE);
        let examined = examine(&places, None);
        assert_eq!(examined.problems, []);
        assert_eq!(examined.files[0].0, "env.d/alice.env");
        assert_eq!(examined.ignored.len(), 1, "the example is nobody's");
    }

    #[test]
    fn what_is_commented_out_in_the_first_configuration_is_right_too() {
        let line = |line: &'static str| match line.strip_prefix("# ") {
            Some(rest) if rest.starts_with('[') || rest.split(' ').nth(1) == Some("=") => rest,
            _ => line,
        };
        let all: Vec<_> = init::CONFIG.lines().map(line).collect();
        assert!(all.len() > 30 && all.contains(&"[server.notes.limits]"));
        let problems = crate::logic::config::parse(&all.join("\n"), "mcpsup.toml").err().unwrap_or_default();
        assert_eq!(problems, []);
    }

    #[test]
    fn every_problem_of_every_file_is_reported_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let places = places(dir.path());
        save(&places, "alice.env", "NOTES_TOKEN=x\nthis is no assignment\n");
        save(&places, "bob.env", "OTHER=x\n");
        save(&places, "carol.env", "NOTES_TOKEN=x\n");
        let problems = problems(&places);
        assert!(problems.iter().any(|text| text.starts_with("env.d/alice.env:2: ")), "{problems:?}");
        let bob = |text: &String| text.starts_with("env.d/bob.env") && text.contains("NOTES_TOKEN");
        assert!(problems.iter().any(bob), "{problems:?}");
        assert!(!problems.iter().any(|text| text.contains("carol")), "{problems:?}");
    }

    #[test]
    fn the_file_of_a_user_without_any_server_is_judged_too() {
        let dir = tempfile::tempdir().unwrap();
        let places = places(dir.path());
        let optional = "[server.notes]\ncommand = [\"notes\"]\ntransport = \"http\"\nport_env = \"PORT\"\nfor_all = false\n";
        std::fs::write(&places.config, optional).unwrap();
        save(&places, "alice.env", "MCPSUP_SERVERS=nots\n");
        let problems = problems(&places);
        assert!(problems.iter().any(|text| text.starts_with("env.d/alice.env:1: ")), "{problems:?}");
        let zoe = "zoe".parse().unwrap();
        let judged =
            examine_file(&places, &zoe, "env.d/zoe.env", b"MCPSUP_SERVERS=nots\n", account::own_uid());
        assert!(judged.is_err());
    }

    #[test]
    fn a_new_file_is_judged_beside_the_others_and_by_itself_only() {
        let dir = tempfile::tempdir().unwrap();
        let places = places(dir.path());
        save(&places, "alice.env", "broken\n");
        save(&places, "bob.env", "NOTES_TOKEN=x\nMCPSUP_PORT=3456\n");
        let uid = account::own_uid();
        let judge = |text: &str| {
            let zoe = "zoe".parse().unwrap();
            examine_file(&places, &zoe, "env.d/zoe.env", text.as_bytes(), uid)
        };
        assert_eq!(judge("NOTES_TOKEN=x\n"), Ok(()));
        assert!(judge("").is_err(), "the token is required");
        let taken = judge("NOTES_TOKEN=x\nMCPSUP_PORT=3456\n").unwrap_err();
        assert!(taken[0].text.contains("bob"), "{taken:?}");
    }

    #[test]
    fn a_check_tells_lengths_and_never_a_value() {
        let variable = Variable { name: "TOKEN".into(), value: Secret::new("hunter2hunter2"), line: 1 };
        let files = vec![("env.d/a.env".to_owned(), Variables(vec![variable]))];
        let told = serde_json::to_string(&lengths(&files)).unwrap();
        assert!(told.contains("\"bytes\":14"), "{told}");
        assert!(!told.contains("hunter2"), "{told}");
    }
}
