//! What must hold for any input at all, one function for each reader of what users write.
//!
//! Plain functions, called by the seeded driver in `main.rs` (under `cargo test`) and by
//! `fuzz_targets/` (under cargo-fuzz). They say nothing about which inputs are right; that is in
//! the unit tests beside the readers.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use mcpsup::logic::ports::{Asked, Pin, Ports};
use mcpsup::logic::redact::{MARK as REDACTED, Redactor};
use mcpsup::logic::snippet::{self, ClientKind, Entry, MergeError};
use mcpsup::logic::{config, envfile, template};
use mcpsup::model::config::{Piece, Template};
use mcpsup::model::env::{Variable, Variables};
use mcpsup::model::{InstanceId, Problem, Secret};

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
        port: Some(20_000),
        session: None,
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
        Piece::Session => "{session}".to_owned(),
        Piece::Env(name) => format!("{{env:{name}}}"),
    });
    pieces.collect()
}

/// A client's file (the first byte says whose) is refused, or holds our entry and, where it held
/// none of that name, everything else as it was. What is refused is not shown.
pub(crate) fn snippet(data: &[u8]) {
    let Some((first, Ok(text))) = data.split_first().map(|(first, rest)| (first, std::str::from_utf8(rest)))
    else {
        return;
    };
    let kind = ClientKind::ALL[usize::from(first.wrapping_sub(b'0')) % ClientKind::ALL.len()];
    let url = "http://127.0.0.1:3456/mcp".to_owned();
    let entries = [Entry { name: "notes".to_owned(), url: url.clone(), command: None }];
    let force = text.len() & 1 == 0;
    let before = snippet::find(kind, text, "notes");
    match snippet::merge(kind, text, &entries, force) {
        Ok(merged) => {
            assert_eq!(snippet::merge(kind, &merged, &entries, force).as_ref(), Ok(&merged), "{kind}, again");
            let found = snippet::find(kind, &merged, "notes");
            assert_eq!(found.map(|found| found.and_then(|found| found.url)), Ok(Some(url)), "{kind}");
            if before == Ok(None) && kind != ClientKind::Goose {
                let mut rest = merged.chars();
                assert!(text.chars().all(|kept| rest.any(|c| c == kept)) || text.trim().is_empty(), "{kind}");
            }
        }
        Err(MergeError::Parse { problem, .. }) => assert!(!problem.contains(MARK), "{kind}: {problem}"),
        Err(MergeError::Taken { .. }) => assert!(!force, "{kind}: force was not enough"),
        Err(MergeError::Unsafe(_)) => {}
    }
}

/// Lines up to an empty one are secret values, the rest is output: none of them is in what comes
/// out, which is the same wherever the output is cut.
pub(crate) fn redact(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let (values, output) = text.split_once("\n\n").unwrap_or((text, text));
    let values: Vec<&str> = values.lines().collect();
    let secrets: Vec<Secret> = values.iter().map(|value| Secret::new(*value)).collect();
    // Whatever was done to the seeds, each value is there at least once.
    let output = format!("{output}\n{}", values.join(" "));
    let run = |step: fn(usize) -> usize| {
        let (mut redactor, mut out, mut rest) = (Redactor::new(&secrets), Vec::new(), output.as_bytes());
        while !rest.is_empty() {
            let (piece, more) = rest.split_at(step(rest.len()).clamp(1, rest.len()));
            redactor.feed(piece, &mut out);
            rest = more;
        }
        redactor.flush(&mut out);
        assert_eq!(redactor.held(), 0);
        out
    };
    let whole = run(|left| left);
    assert!(whole == run(|_| 1), "byte by byte it is another");
    assert!(whole == run(|left| left * 7919 % 31), "in pieces it is another");
    let whole = String::from_utf8_lossy(&whole);
    for value in values.iter().filter(|value| value.len() > 3 && !value.trim().is_empty()) {
        let mark = std::str::from_utf8(REDACTED).unwrap_or_default();
        assert!(!whole.split(mark).any(|piece| piece.contains(value)), "a value came through");
    }
}

/// A kept table is refused, or is the same after it was kept again; and whatever it holds, nobody
/// loses a port and no two get the same.
pub(crate) fn ports(data: &[u8]) {
    let Ok(mut ports) = serde_json::from_slice::<Ports>(data) else {
        return;
    };
    let before: BTreeMap<InstanceId, u16> = ports.doors().map(|(id, door)| (id.clone(), door)).collect();
    keeps(&ports);
    let ranges = mcpsup::model::config::Ports {
        listen: std::net::Ipv4Addr::LOCALHOST.into(),
        range: read("3456-3460"),
        backend_range: read("20000-20003"),
    };
    let new = ["zoe", "yves"].map(|user| InstanceId::new(read(user), read("notes")));
    let pin = |port: u16| Pin {
        port,
        name_of_setting: "MCPSUP_PORT".to_owned(),
        file: "env.d/x.env".to_owned(),
        line: 1,
        privileged: port & 1 == 0,
    };
    // Every third is pinned, within the range, out of it, and into the backends.
    let pins =
        (0_u16..).map(|number| [None, None, Some(pin(3455 + number * 3))][usize::from(number % 3)].clone());
    let ids: BTreeSet<InstanceId> = before.keys().cloned().chain(new).collect();
    // And every fourth needs no backend.
    let ids = ids.into_iter().zip(pins).zip((0..4).cycle());
    let ask = |((id, pin), turn)| Asked { id, pin, listens: turn != 0 };
    let wanted: Vec<Asked> = ids.map(ask).take(3000).collect();
    let blocked = BTreeSet::from([3457, 20_001]);
    let answers = ports.assign(&ranges, &wanted, &blocked);
    for Asked { id, pin, listens } in &wanted {
        if let Ok(given) = &answers[id] {
            assert_eq!((ports.door(id), ports.backend(id)), (Some(given.door), given.backend));
            assert_eq!(given.backend.is_some(), *listens, "{id}");
            assert!(pin.as_ref().is_none_or(|pin| pin.port == given.door), "a pin that is not followed");
        }
        if let (None, Some(door)) = (pin, before.get(id)) {
            assert_eq!(ports.door(id), Some(*door), "a port that was given is another's");
        }
    }
    keeps(&ports);
    assert!(answers == ports.assign(&ranges, &wanted, &blocked), "asked again, it is another");
}

fn read<T: std::str::FromStr>(text: &str) -> T {
    text.parse().unwrap_or_else(|_| panic!("{text:?} is right"))
}

/// No port stands twice, and the table is the same when it is read back.
fn keeps(ports: &Ports) {
    let mut seen = BTreeSet::new();
    for (id, door) in ports.doors() {
        assert!(std::iter::once(door).chain(ports.backend(id)).all(|port| seen.insert(port)), "{id}: twice");
    }
    let kept = serde_json::to_vec(ports).unwrap_or_default();
    assert!(serde_json::from_slice::<Ports>(&kept).is_ok_and(|again| again == *ports), "kept as another");
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
