//! Why a server is not up, from what the daemon says of it and what it wrote last.

use super::{Asker, of_server};
use crate::model::finding::{Code, Finding, Mend, Weight};
use crate::model::status::{InstanceStatus, StateName, gone_from_config};

/// What is wrong with one instance that the files do not say. `log` is the end of what it wrote,
/// secrets taken out.
#[must_use]
pub fn diagnose(now: &InstanceStatus, log: &str, asker: &Asker) -> Vec<Finding> {
    let name = format!("{}/{}", now.user, now.server);
    let note = now.note.as_deref().unwrap_or("");
    let logs = asker.ours(&format!("logs {name}"));
    let finding = match now.state {
        StateName::Killing if note.contains("do not end") => {
            let look = now.pid.map_or_else(String::new, |pid| format!(" -p {pid}"));
            let command = format!("ps -o pid,stat,wchan:30,cmd{look}");
            Finding::wrong(Code::Stuck, note, Mend::Run(command))
        }
        StateName::Cooling => ended(now, note, log, logs, asker),
        // One that ends again and again is in any of these for a moment.
        StateName::Starting | StateName::Stopping | StateName::Killing if now.strikes > 0 => {
            ended(now, note, log, logs, asker)
        }
        // What is wrong with a refused one stands among the files' problems; the others pass.
        StateName::Refused
        | StateName::Up
        | StateName::Down
        | StateName::Starting
        | StateName::Stopping
        | StateName::Killing => return Vec::new(),
        StateName::Stopped => {
            let mend = asker.ours(&format!("start {name}"));
            Finding::note(Code::Off, "is stopped, by mcpsup stop", mend)
        }
        StateName::Disabled => {
            let mend = if asker.administers {
                asker.ours(&format!("enable {} --user {}", now.server, now.user))
            } else {
                asker.ours(&format!("enable {}", now.server))
            };
            let wrong = "is disabled: MCPSUP_ENABLED=false, or a server that is not chosen";
            Finding::note(Code::Off, wrong, mend)
        }
        StateName::Gone if note == gone_from_config(&now.server) => {
            let mend = asker.in_table(&now.server, "what it said, if it was not meant to go");
            Finding::note(Code::Off, note, mend)
        }
        StateName::Gone => {
            let mend = asker.for_administrators(asker.ours(&format!("add {}", now.user)));
            Finding::note(Code::Off, "has no env file any more; its port is kept", mend)
        }
    };
    of_server([finding], &now.user, &now.server)
}

/// Whoever asks has no server here.
#[must_use]
pub fn none(asker: &Asker) -> Finding {
    let mend = asker.for_administrators(asker.ours("add USER, with your account's name for USER"));
    Finding::note(Code::Off, "no server here is yours", mend)
}

/// One that ended, or was not ready in time.
fn ended(now: &InstanceStatus, note: &str, log: &str, logs: Mend, asker: &Asker) -> Finding {
    let last = last_line(log);
    let is_not_ready = NOT_READY.iter().any(|part| note.contains(part));
    let (code, mend) = if let Some(of_start) = not_started(now, note, asker) {
        of_start
    } else if is_not_ready {
        (Code::NotReady, not_ready(now, note, asker).unwrap_or_else(|| hint(now, last, logs, asker)))
    } else {
        (Code::Crash, hint(now, last, logs, asker))
    };
    let said = last.map_or_else(String::new, |line| format!("; its last words: {line}"));
    // The next try's time would be another at each look.
    let what = note.split("; next try").next().unwrap_or(note);
    let ended = now.last_exit.as_deref().unwrap_or("ends by itself");
    let what = if what.is_empty() { ended } else { what };
    Finding { weight: Weight::Wrong, ..Finding::wrong(code, format!("{what}{said}"), mend) }
}

/// What the daemon says of one that runs and is of no use.
const NOT_READY: [&str; 8] = [
    "was not ready in time",
    "does not listen",
    "it listens on",
    "it answered",
    "did not answer",
    "has not answered",
    "its answer is not MCP",
    "accepts no connection",
];

/// One that could not be started at all, where the survey saw nothing.
fn not_started(now: &InstanceStatus, note: &str, asker: &Asker) -> Option<(Code, Mend)> {
    let text = format!("{} {note}", now.last_exit.as_deref().unwrap_or(""));
    if text.contains("memory limit") {
        let so = "limits = { memory = … }: more, as what it needs is over it";
        return Some((Code::Crash, asker.in_table(&now.server, so)));
    }
    if !text.contains("could not be started") && !text.contains("cannot execute") {
        return None;
    }
    if text.contains("permission denied") && !text.contains(" is closed") {
        let mend = match () {
            () if asker.keepers.iter().any(|keeper| keeper == "selinux") => {
                Mend::Run("ausearch -m avc -ts recent".to_owned())
            }
            () => Mend::Do("modes allow it, so look what else denies it: journalctl -k -g denied".to_owned()),
        };
        return Some((Code::Denied, asker.for_administrators(mend)));
    }
    if text.contains("no space left") {
        return Some((Code::DiskFull, Mend::Run("df -h".to_owned())));
    }
    if text.contains("too many open files") {
        return Some((Code::OpenFiles, Mend::Do("raise LimitNOFILE= of the daemon's unit".to_owned())));
    }
    None
}

/// One that lives and does not answer as it should.
fn not_ready(now: &InstanceStatus, note: &str, asker: &Asker) -> Option<Mend> {
    let server = &now.server;
    let in_table = |so: &str| Some(asker.in_table(server, so));
    match () {
        () if note.contains("instead of the port it was given") => in_table(
            "port_env = \"…\": the variable in which it reads its port; or {port} among the arguments of command",
        ),
        () if note.contains("does not listen") => in_table(
            "port_env, or {port} in command: it must listen on the port that it is given; a slow one wants ready = { timeout = \"2m\" }",
        ),
        () if note.contains("HTTP 401") || note.contains("HTTP 403") => {
            in_table("ready = { probe = \"tcp\" }: it asks for credentials of its own")
        }
        () if note.contains("answered HTTP") => {
            in_table("path (or ready.probe_path): there is no MCP endpoint where it was asked")
        }
        () if note.contains("its answer is not MCP") => in_table("path: what answers there is not MCP"),
        () if note.contains("has not answered initialize") => in_table(
            "transport, or an argument of command such as \"stdio\": it does not speak MCP on its standard output",
        ),
        () => None,
    }
}

/// What the last words of a server usually mean, and what to do about it.
fn hint(now: &InstanceStatus, last: Option<&str>, logs: Mend, asker: &Asker) -> Mend {
    let Some(line) = last else { return logs };
    let says = |parts: &[&str]| {
        let line = line.to_lowercase();
        parts.iter().any(|part| line.contains(part))
    };
    match () {
        () if says(&["cannot find module", "cannot find package", "modulenotfounderror", "no module named"]) => {
            asker.for_administrators(Mend::Do(
                "install what its last words name, where its program is (npm ci, pip install -r requirements.txt)".to_owned(),
            ))
        }
        () if says(&["unauthorized", "401", "403", "forbidden", "invalid token", "bad credentials", "invalid api key", "authentication"]) => {
            if asker.administers {
                asker.ours(&format!("edit {}", now.user))
            } else {
                Mend::Run(format!("{} set NAME, with the credential that is refused", asker.mcpsup))
            }
        }
        () if says(&["eaddrinuse", "address already in use", "address in use"]) => asker.in_table(
            &now.server,
            "port_env, or {port} in command: it listens on a port of its own, which is taken",
        ),
        // Landlock lets a run listen on the port that it was given, and on no other.
        () if says(&["listen", "bind"]) && says(&["permission denied", "eacces"]) => asker.in_table(
            &now.server,
            "port_env, or {port} in command: it may listen on the port that it is given and on no other (allow = { listen = […] })",
        ),
        () if says(&["enospc", "no space left"]) => Mend::Run("df -h".to_owned()),
        () if says(&["enotfound", "eai_again", "getaddrinfo", "could not resolve", "name resolution", "econnrefused", "network is unreachable"]) => {
            Mend::Do("see that this host reaches what its last words name (network, proxy, DNS)".to_owned())
        }
        () if says(&["heap out of memory", "memoryerror", "cannot allocate memory"]) => {
            asker.in_table(&now.server, "limits = { memory = … }: more")
        }
        () if says(&["eacces", "permission denied", "erofs", "read-only file system"]) => asker.in_table(
            &now.server,
            "allow = { write = [\"…\"] }, or a path below {state_dir}: it writes where it may not",
        ),
        () if says(&["usage:", "unknown option", "unrecognized arg", "unexpected argument"]) => {
            asker.in_table(&now.server, "command: the arguments are not those that it takes")
        }
        () => logs,
    }
}

/// The last line that the server itself wrote and that says something.
fn last_line(log: &str) -> Option<&str> {
    let says = |line: &&str| !line.trim().is_empty() && !line.starts_with("mcpsup: ");
    log.lines().map(str::trim_end).filter(says).rfind(|line| !is_trailing(line))
}

/// Lines that runtimes print after what matters.
fn is_trailing(line: &str) -> bool {
    let line = line.trim();
    line.starts_with("at ") || line.starts_with("Node.js v") || matches!(line, "}" | "^" | "{")
}
