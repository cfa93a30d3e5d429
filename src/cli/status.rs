//! `mcpsup status`: the table, what is wrong, and with `-v` everything else.

use std::collections::BTreeSet;
use std::time::Duration;

use clap_complete::ArgValueCompleter;

use super::Outcome;
use super::names;
use super::print::{Paint, Print, clean};
use super::progress::note;
use super::session::Session;
use super::table::{Cell, lay_out};
use super::who::{Who, target};
use crate::control::route::MAX_WAIT;
use crate::model::status::{InstanceStatus, StateName, StatusReport};

/// Whose, and how.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Whose; everybody you may see if left out
    #[arg(value_name = "USER[/SERVER]", add = ArgValueCompleter::new(names::instances))]
    pub who: Option<Who>,
    /// Print it as JSON; with --watch one line per change
    #[arg(long)]
    pub json: bool,
    /// Show it again whenever something changes, until Ctrl-C
    #[arg(long, short)]
    pub watch: bool,
    /// Show runs, processes, endpoints, and what this host keeps apart
    #[arg(long, short)]
    pub verbose: bool,
}

/// On a terminal the FOR column moves as well.
const REDRAW: Duration = Duration::from_secs(5);

/// Does it.
///
/// # Errors
///
/// When the daemon cannot be reached or refuses.
pub fn run(args: &Args, session: &Session) -> anyhow::Result<Outcome> {
    let client = session.client()?;
    let target = target(args.who.as_ref(), false);
    let print = &session.print;
    let mut report = client.status(&target, None)?;
    show(&report, args, print)?;
    if !args.watch {
        return Ok(Outcome::Done);
    }
    loop {
        let redraws = print.is_terminal() && !args.json;
        let wait = if redraws { REDRAW } else { MAX_WAIT };
        let next = client.status(&target, Some((report.generation, wait)))?;
        let changed = next.generation != report.generation;
        report = next;
        if changed || redraws {
            show(&report, args, print)?;
        }
    }
}

fn show(report: &StatusReport, args: &Args, print: &Print) -> anyhow::Result<()> {
    if args.json {
        print.json(report, args.watch)?;
        return Ok(());
    }
    let afresh = args.watch && print.is_terminal();
    let mut lines = page(report, args.verbose, print.width(), print);
    if args.watch && !afresh {
        lines.push(String::new());
    }
    print.lines(&lines, afresh)?;
    Ok(())
}

fn page(report: &StatusReport, verbose: bool, width: Option<usize>, print: &Print) -> Vec<String> {
    let mut lines = if report.instances.is_empty() {
        vec!["no instance of yours; mcpsup add USER, by who may write into env.d, makes one".to_owned()]
    } else {
        lay_out(&rows(&report.instances), width, print)
    };
    // What stands in the table uncut need not be said again.
    let problems: Vec<_> =
        problems(report).into_iter().filter(|text| !lines.iter().any(|line| line.contains(text))).collect();
    if !problems.is_empty() {
        lines.push(String::new());
        lines.extend(problems.iter().map(|text| print.paint(Paint::Bad, &clean(text))));
    }
    if verbose {
        for instance in &report.instances {
            lines.push(String::new());
            lines.extend(details(instance));
        }
        lines.push(String::new());
        lines.push(format!("mcpsup {}, generation {}", clean(&report.version), report.generation));
        lines.extend(report.apart.iter().flat_map(|apart| apart.lines(true)).map(|line| clean(&line)));
        lines.extend(report.notes.iter().map(|note| format!("note: {}", clean(note))));
    }
    lines
}

fn rows(instances: &[InstanceStatus]) -> Vec<Vec<Cell>> {
    let head = ["USER", "SERVER", "STATE", "PORT", "FOR", "NOTE"].map(Cell::new);
    let row = |now: &InstanceStatus| {
        vec![
            Cell::new(now.user.as_str()),
            Cell::new(now.server.as_str()),
            Cell { text: now.state.to_string(), paint: paint(now.state) },
            Cell::new(now.port.map(|port| port.to_string()).unwrap_or_default()),
            Cell::new(length(now)),
            Cell::new(note(now)),
        ]
    };
    std::iter::once(head.into()).chain(instances.iter().map(row)).collect()
}

/// How long it has been so; nothing for what never was otherwise.
fn length(now: &InstanceStatus) -> String {
    match now.state {
        StateName::Refused | StateName::Disabled => String::new(),
        StateName::Down
        | StateName::Starting
        | StateName::Up
        | StateName::Stopping
        | StateName::Killing
        | StateName::Cooling
        | StateName::Stopped
        | StateName::Gone => span(now.for_seconds),
    }
}

/// In the largest unit of which there is one.
fn span(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..86_400 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

const fn paint(state: StateName) -> Paint {
    match state {
        StateName::Up => Paint::Good,
        StateName::Refused | StateName::Killing => Paint::Bad,
        StateName::Cooling | StateName::Starting | StateName::Stopping | StateName::Down => Paint::Fair,
        StateName::Stopped | StateName::Disabled | StateName::Gone => Paint::Dim,
    }
}

/// Every problem once: a file's problem is told by each instance of its user. What the NOTE column
/// says of a problem may be cut, so it is said here too.
fn problems(report: &StatusReport) -> Vec<String> {
    let of_instances = report.instances.iter().flat_map(|instance| &instance.problems);
    let mut seen = BTreeSet::new();
    let texts = report.problems.iter().chain(of_instances).map(ToString::to_string);
    texts.filter(|text| seen.insert(text.clone())).collect()
}

fn details(now: &InstanceStatus) -> Vec<String> {
    let mut lines = vec![format!("{}/{}", now.user, now.server)];
    let mut tell = |what: &str, text: String| lines.push(format!("  {what:<12} {}", clean(&text)));
    tell("state", format!("{} since {}", now.state, now.since));
    if let Some(url) = &now.url {
        tell("url", url.clone());
    }
    if let Some(run) = now.run {
        tell("run", run.to_string());
    }
    if let Some(pid) = now.pid {
        tell("process", pid.to_string());
    }
    if let Some(exit) = &now.last_exit {
        tell("last exit", exit.clone());
    }
    if now.strikes > 0 {
        tell("in a row", now.strikes.to_string());
    }
    if let Some(lines) = &now.not_passed_on {
        let counts = [
            (lines.not_json_rpc, "no JSON-RPC"),
            (lines.unclaimed, "answers to nobody"),
            (lines.ambiguous, "for nobody in particular"),
        ];
        let counts = counts.iter().filter(|(count, _)| *count > 0);
        let counts: Vec<String> = counts.map(|(count, what)| format!("{count} {what}")).collect();
        tell("not passed", format!("lines of its output: {}", counts.join(", ")));
    }
    if let Some(runs_as) = &now.runs_as {
        tell("runs as", runs_as.clone());
    }
    if let Some(containment) = &now.containment {
        tell("containment", containment.clone());
    }
    let note = note(now);
    if !note.is_empty() {
        tell("note", note);
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::progress::tests::notes;
    use crate::cli::session::Environment;
    use crate::model::Problem;
    use crate::model::cage::{Apart, Promise, Tier};
    use crate::model::status::NotPassedOn;

    fn report() -> StatusReport {
        let mut cooling = notes(StateName::Cooling);
        cooling.user = "bob".parse().unwrap();
        cooling.last_exit = Some("exited with status 1".to_owned());
        cooling.strikes = 3;
        cooling.next_try_seconds = Some(4);
        cooling.note = Some("exited with status 1, 3rd time in a row; next try in 4 s".to_owned());
        let mut refused = notes(StateName::Refused);
        refused.user = "carol".parse().unwrap();
        refused.problems = vec![Problem::new("env.d/carol.env", "expected NAME=value").at_line(7)];
        let mut also = refused.clone();
        also.server = "other".parse().unwrap();
        let mut up = notes(StateName::Up);
        up.for_seconds = 185;
        up.containment = Some("cgroup".to_owned());
        up.runs_as = Some("alice (uid 1001)".to_owned());
        up.not_passed_on = Some(NotPassedOn { not_json_rpc: 4, unclaimed: 0, ambiguous: 1 });
        StatusReport {
            version: "0.1.0".to_owned(),
            generation: 3,
            instances: vec![up, cooling, refused, also],
            problems: vec![],
            notes: vec!["no cgroup here".to_owned()],
            apart: Some(Apart {
                tier: Tier::Landlock,
                promises: vec![
                    Promise { what: "no core dumps".into(), kept: true, by: "RLIMIT_CORE".into() },
                    Promise { what: "killed whole".into(), kept: false, by: "by session only".into() },
                ],
            }),
        }
    }

    fn printed(verbose: bool, width: Option<usize>) -> Vec<String> {
        let print = Print::new(&Environment::read());
        // The states are painted where the tests' own output is a terminal.
        page(&report(), verbose, width, &print)
    }

    #[test]
    fn the_table_is_the_one_of_the_contract() {
        let lines = printed(false, None);
        assert_eq!(lines[0], "USER   SERVER  STATE    PORT  FOR  NOTE");
        assert_eq!(lines[1], "alice  notes   up       3456  3m");
        let note = "exited with status 1, 3rd time in a row; next try in 4 s";
        assert_eq!(lines[2], format!("bob    notes   cooling  3456  3s   {note}"));
        let note = "env.d/carol.env:7: expected NAME=value";
        assert_eq!(lines[3], format!("carol  notes   refused  3456       {note}"));
    }

    #[test]
    fn a_problem_of_two_instances_is_told_once_and_whole() {
        let lines = printed(false, Some(50));
        assert!(lines[..5].iter().all(|line| line.chars().count() <= 50), "{lines:?}");
        assert_eq!(lines[5..], ["", "env.d/carol.env:7: expected NAME=value"]);
    }

    #[test]
    fn everything_else_is_told_on_request() {
        let lines = printed(true, None);
        for line in [
            "alice/notes",
            "  containment  cgroup",
            "  runs as      alice (uid 1001)",
            "  run          7",
            "  not passed   lines of its output: 4 no JSON-RPC, 1 for nobody in particular",
            "users are kept apart by Landlock and a filter of system calls (landlock)",
            "  kept      no core dumps: RLIMIT_CORE",
            "  not kept  killed whole: by session only",
            "note: no cgroup here",
        ] {
            assert!(lines.iter().any(|l| l == line), "{line}\n{lines:#?}");
        }
    }

    #[test]
    fn a_length_of_time_is_told_in_its_largest_unit() {
        let told: Vec<_> = [0, 59, 60, 3599, 3600, 86_399, 86_400].map(span).into();
        assert_eq!(told, ["0s", "59s", "1m", "59m", "1h", "23h", "1d"]);
    }
}
