//! A [`Problem`] of the files, with its mend told from what is wrong.
//!
//! A problem's text says what is wrong and, after a semicolon, what mends it, often as a command.
//! Here that is taken apart, so that there is one place where each is found.

use std::path::PathBuf;

use super::{Asker, shell_word};
use crate::model::finding::{Code, Finding, Mend};
use crate::model::{Problem, UserName};

/// What a mend begins with that is a command as it stands.
const COMMANDS: [&str; 6] = ["chmod ", "chown ", "cp ", "mkdir ", "mcpsup ", "install "];

/// The finding that a problem of mcpsup.toml, env.d or a user's file is; `user` is whose file it is.
#[must_use]
pub fn of(problem: &Problem, user: Option<&UserName>, asker: &Asker) -> Finding {
    let code = code(problem, user);
    let (wrong, told) = split(&problem.text);
    let path = place(problem, user, asker);
    let mend = mend(problem, code, told, user, &path, asker);
    let shown = Problem { text: wrong.to_owned(), ..problem.clone() };
    let finding = Finding::wrong(code, shown.to_string(), mend);
    match user {
        Some(user) => finding.of(user),
        None => finding,
    }
}

fn code(problem: &Problem, user: Option<&UserName>) -> Code {
    let says = |part: &str| problem.text.contains(part);
    match () {
        () if says("isolation = \"") => Code::Isolation,
        () if says("cannot be unsealed") => Code::Sealed,
        () if problem.file == "[ports]" || says("no port left") || says("MCPSUP_PORT") => Code::Port,
        () if says("uid_range") || says("account") && !says(" account)") => Code::Account,
        () if user.is_some() => Code::EnvFile,
        () if is_configuration(problem) => Code::Configuration,
        () => Code::EnvDirectory,
    }
}

/// It is of mcpsup.toml, by whatever name that goes: everything else is env.d, or a file in it.
fn is_configuration(problem: &Problem) -> bool {
    std::path::Path::new(&problem.file).extension().is_some_and(|ending| ending == "toml")
}

/// What is wrong, and the mend where the text has one.
fn split(text: &str) -> (&str, Option<&str>) {
    let is_command = |rest: &str| COMMANDS.iter().any(|command| rest.starts_with(command));
    for mark in ["; ", ": "] {
        let mut from = 0;
        while let Some(at) = text[from..].find(mark) {
            let (before, after) = (&text[..from + at], &text[from + at + mark.len()..]);
            if is_command(after) {
                // "…; put a copy in its place: cp …"
                return (before.rsplit_once("; ").map_or(before, |(wrong, _)| wrong), Some(after));
            }
            from += at + mark.len();
        }
    }
    text.rsplit_once("; ").map_or((text, None), |(wrong, mend)| (wrong, Some(mend)))
}

/// The file to edit, as a shell takes it.
fn place(problem: &Problem, user: Option<&UserName>, asker: &Asker) -> String {
    let Some(name) = problem.file.rsplit('/').next().filter(|_| user.is_some()) else {
        return if is_configuration(problem) || problem.file == "[ports]" {
            asker.config.clone()
        } else {
            shell_word(&asker.env_dir)
        };
    };
    shell_word(&asker.env_dir.join(PathBuf::from(name)))
}

fn mend(
    problem: &Problem,
    code: Code,
    told: Option<&str>,
    user: Option<&UserName>,
    path: &str,
    asker: &Asker,
) -> Mend {
    let says = |part: &str| problem.text.contains(part);
    if says("mcpsup init writes one") {
        return asker.for_administrators(asker.ours("init"));
    }
    if says("leads out of its directory") {
        // What it leads to may be anybody's: it is for the administrator to look.
        let copy = format!("cp --remove-destination \"$(readlink -f {path})\" {path} && chmod 600 {path}");
        return asker.for_administrators(Mend::Run(copy));
    }
    if says("two files for one user") {
        return asker.for_administrators(Mend::Do(format!(
            "look which of the two counts, and delete the other: {}",
            problem.text
        )));
    }
    if let (Code::Sealed, Some(user)) = (code, user) {
        return asker.for_administrators(unsealed(user, path, asker));
    }
    if let Some(command) = told.filter(|told| COMMANDS.iter().any(|command| told.starts_with(command))) {
        let command = command
            .strip_prefix("mcpsup ")
            .map_or_else(|| command.to_owned(), |words| format!("{} {words}", asker.mcpsup));
        return asker.for_administrators(Mend::Run(command));
    }
    if let (Some(user), Some(name)) = (user, credential(&problem.text)) {
        return set(name, user, path, problem, asker);
    }
    // "widen [ports] range in mcpsup.toml", said of whoever met it.
    if let Some(so) = told.and_then(|told| told.strip_suffix(" in mcpsup.toml")) {
        let (file, so) = (asker.config.clone(), so.to_owned());
        return asker.for_administrators(Mend::Edit { file, so });
    }
    let at = match (problem.line, problem.column) {
        (Some(line), Some(column)) => format!("{path}:{line}:{column}"),
        (Some(line), None) => format!("{path}:{line}"),
        (None, _) => path.to_owned(),
    };
    // What is expected there is half of the mend.
    let so = told.filter(|_| !wrong_says_what_is_right(&problem.text)).unwrap_or(&problem.text).to_owned();
    asker.for_administrators(Mend::Edit { file: at, so })
}

fn wrong_says_what_is_right(text: &str) -> bool {
    text.starts_with("expected ") || text.contains(" takes ")
}

fn unsealed(user: &UserName, path: &str, asker: &Asker) -> Mend {
    let backup = if std::path::Path::new(path).extension().is_some_and(|ending| ending == "age") {
        let own = shell_word(&asker.state.join("seal.key"));
        format!(
            "{own} from a backup, or /etc/credstore/mcpsup.seal.key if systemd is to give it (it does while \
             mcpsup.service runs)"
        )
    } else {
        "/var/lib/systemd/credential.secret from a backup".to_owned()
    };
    Mend::Do(format!(
        "restore {backup}; if there is none, ask for the credentials anew: rm {path} && {} add {user}",
        asker.mcpsup
    ))
}

/// The credential that is missing, or that does not fit.
fn credential(text: &str) -> Option<&str> {
    let says = [" is required", " does not match the pattern"];
    let at = says.iter().find_map(|part| text.find(part))?;
    let name = text[..at].split(' ').next()?;
    name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_').then_some(name)
}

/// The user does it themself where a daemon answers.
fn set(name: &str, user: &UserName, path: &str, problem: &Problem, asker: &Asker) -> Mend {
    match (asker.administers, asker.is_answered) {
        (true, true) => asker.ours(&format!("set {name} --user {user}")),
        (false, true) => asker.ours(&format!("set {name}")),
        (true, false) => {
            let at = problem.line.map_or_else(|| path.to_owned(), |line| format!("{path}:{line}"));
            Mend::Edit { file: at, so: format!("{name}=…, a value that fits") }
        }
        (false, false) => asker.start_daemon(),
    }
}
