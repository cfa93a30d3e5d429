//! What a server needs of the host to be started at all: its program, the way to it, its
//! interpreter, the files of its arguments, where it starts.

use super::{Asker, Wish, closed_on, denied, lets, of_server, shell_word};
use crate::model::finding::{Code, Finding, Mend};
use crate::model::survey::{Fetched, Identity, Kind, Needs, Program, Stop, Way};
use crate::model::{InstanceId, ServerName};

/// What is missing of what one server of one user needs.
#[must_use]
pub fn diagnose(id: &InstanceId, needs: &Needs, asker: &Asker) -> Vec<Finding> {
    let Needs { identity, program, fetched, arguments, working_dir, own } = needs;
    let server = &id.server;
    let mut found: Vec<Finding> = own.iter().filter_map(|way| whose(way, identity)).collect();
    found.extend(self::program(program, identity, server, false, asker));
    found.extend(arguments.iter().filter_map(|way| argument(way, identity, server, asker)));
    found.extend(working_dir.as_ref().and_then(|way| start(way, identity, server, asker)));
    found.extend(fetched.as_ref().and_then(|fetched| package(fetched, server, asker)));
    of_server(found, &id.user, server)
}

/// Its own directory is somebody else's: nothing runs in it.
fn whose(way: &Way, who: &Identity) -> Option<Finding> {
    let end = way.steps.last().filter(|step| step.path == way.path && step.uid != who.uid)?;
    let shown = shell_word(&end.path);
    let wrong = format!("{shown} belongs to uid {}, and the server runs as {}", end.uid, who.name);
    let gid = who.gids.first().copied().unwrap_or(who.uid);
    Some(Finding::wrong(Code::Directory, wrong, Mend::Run(format!("chown -R {}:{gid} {shown}", who.uid))))
}

fn program(
    program: &Program,
    who: &Identity,
    server: &ServerName,
    is_interpreter: bool,
    asker: &Asker,
) -> Option<Finding> {
    let missing = if is_interpreter { Code::Interpreter } else { Code::Program };
    let Some(way) = &program.way else { return Some(not_in_path(program, server, missing, asker)) };
    let shown = shell_word(&way.path);
    let what = if is_interpreter { ", which the first line of its program names," } else { "" };
    match &way.stop {
        Some(Stop::Missing) => {
            let mend = if is_interpreter {
                Mend::Do(format!("install {shown}, or correct the first line of the program"))
            } else {
                asker.in_table(
                    server,
                    format!("command: where the program is; or install it, so that there is {shown}"),
                )
            };
            return Some(Finding::wrong(missing, format!("{shown}{what} is not there"), mend));
        }
        Some(Stop::Failed(why)) => {
            let mend = Mend::Do(format!("look at it: ls -l {shown}"));
            return Some(Finding::wrong(missing, format!("{shown} cannot be looked at: {why}"), mend));
        }
        // Whoever asks cannot see what lies there; whom it runs as may be another.
        Some(Stop::Closed) if who.uid != asker.uid => return None,
        Some(Stop::Closed) => {
            return Some(closed_on(way, who).unwrap_or_else(|| denied(&way.path, way, asker)));
        }
        None => {}
    }
    if let Some(closed) = closed_on_the_way_to_a_file(way, who) {
        return Some(closed);
    }
    executable(program, way, who, asker).or_else(|| {
        let next = program.interpreter.as_deref()?;
        self::program(next, who, server, true, asker)
    })
}

fn not_in_path(program: &Program, server: &ServerName, code: Code, asker: &Asker) -> Finding {
    let Program { named, path, elsewhere, .. } = program;
    let wrong = format!("{named} is in no directory of the server's PATH ({path})");
    let mend = match elsewhere.as_deref().and_then(std::path::Path::parent) {
        Some(dir) => {
            let dir = dir.display();
            asker.in_table(server, format!("env = {{ PATH = \"{dir}:{path}\" }}"))
        }
        None if code == Code::Interpreter => Mend::Do(format!(
            "install {named} in one of these directories, or name its own in [server.{server}] env = {{ PATH = … }}"
        )),
        None => asker.in_table(server, format!("command: the whole path of {named}, once it is installed")),
    };
    Finding::wrong(code, wrong, mend)
}

/// As [`closed_on`], where the end is meant to be a file.
fn closed_on_the_way_to_a_file(way: &Way, who: &Identity) -> Option<Finding> {
    let is_above = |step: &&crate::model::survey::Step| step.path != way.path;
    let above = Way { steps: way.steps.iter().filter(is_above).cloned().collect(), ..way.clone() };
    closed_on(&above, who)
}

fn executable(program: &Program, way: &Way, who: &Identity, asker: &Asker) -> Option<Finding> {
    // The last one: what a link leads to.
    let end = way.steps.last()?;
    let shown = shell_word(&end.path);
    let is_script = program.interpreter.is_some();
    if end.kind != Kind::File {
        let mend = Mend::Do("name the program itself in command".to_owned());
        return Some(Finding::wrong(Code::NotExecutable, format!("{shown} is not a file"), mend));
    }
    if end.mode & 0o111 == 0 {
        let wrong = format!("{shown} is not executable (mode {:04o})", end.mode);
        return Some(Finding::wrong(Code::NotExecutable, wrong, Mend::Run(format!("chmod a+rx {shown}"))));
    }
    if !lets(end, who, Wish::Pass) || is_script && !lets(end, who, Wish::Read) {
        let wrong = format!("{shown} may not be executed by {} (mode {:04o})", who.name, end.mode);
        return Some(Finding::wrong(Code::NotExecutable, wrong, Mend::Run(format!("chmod a+rx {shown}"))));
    }
    let is_told_of_us = who.uid == asker.uid || asker.uid == 0;
    (is_told_of_us && !way.is_open).then(|| denied(&end.path, way, asker))
}

fn argument(way: &Way, who: &Identity, server: &ServerName, asker: &Asker) -> Option<Finding> {
    let shown = shell_word(&way.path);
    match &way.stop {
        Some(Stop::Missing) => {
            let mend = asker
                .in_table(server, format!("command: where it is; or install it, so that there is {shown}"));
            Some(Finding::wrong(Code::Argument, format!("{shown}, which command names, is not there"), mend))
        }
        Some(Stop::Closed) if who.uid == asker.uid => {
            Some(closed_on(way, who).unwrap_or_else(|| denied(&way.path, way, asker)))
        }
        Some(Stop::Closed | Stop::Failed(_)) => None,
        None => closed_on_the_way_to_a_file(way, who).or_else(|| {
            let end = way.steps.last()?;
            if lets(end, who, Wish::Read) {
                let is_told_of_us = who.uid == asker.uid || asker.uid == 0;
                return (is_told_of_us && !way.is_open).then(|| denied(&end.path, way, asker));
            }
            let wrong = format!("{shown} may not be read by {} (mode {:04o})", who.name, end.mode);
            Some(Finding::wrong(Code::Argument, wrong, Mend::Run(format!("chmod a+r {shown}"))))
        }),
    }
}

fn start(way: &Way, who: &Identity, server: &ServerName, asker: &Asker) -> Option<Finding> {
    let shown = shell_word(&way.path);
    let gid = who.gids.first().copied().unwrap_or(who.uid);
    let wrong = |text: String, mend| Some(Finding::wrong(Code::WorkingDirectory, text, mend));
    match &way.stop {
        Some(Stop::Missing) => {
            let make = if who.uid == asker.uid {
                format!("mkdir -p {shown}")
            } else {
                format!("install -d -o {} -g {gid} -m 700 {shown}", who.uid)
            };
            wrong(format!("{shown}, its working_dir, is not there"), Mend::Run(make))
        }
        Some(Stop::Failed(why)) => {
            let mend = asker.in_table(server, "working_dir: a directory");
            wrong(format!("{shown}, its working_dir, cannot be entered: {why}"), mend)
        }
        Some(Stop::Closed) if who.uid != asker.uid => None,
        Some(Stop::Closed) | None => {
            if let Some(closed) = closed_on(way, who) {
                return Some(Finding { code: Code::WorkingDirectory, ..closed });
            }
            if way.steps.last().is_some_and(|end| end.kind != Kind::Directory) {
                let mend = asker.in_table(server, "working_dir: a directory");
                return wrong(format!("{shown}, its working_dir, is not a directory"), mend);
            }
            let is_told_of_us = who.uid == asker.uid || asker.uid == 0;
            (is_told_of_us && !way.is_open).then(|| denied(&way.path, way, asker))
        }
    }
}

fn package(fetched: &Fetched, server: &ServerName, asker: &Asker) -> Option<Finding> {
    let Fetched { runner, package, is_there } = fetched;
    if *is_there {
        return None;
    }
    let wrong = format!("{runner} would download {package} when the server starts: it is not installed");
    let mend = if runner == "uvx" {
        asker.in_table(server, format!("command: the program itself, after: uv tool install {package}"))
    } else {
        asker.for_administrators(Mend::Run(format!("npm install --global {package}")))
    };
    Some(Finding::wrong(Code::Package, wrong, mend))
}
