//! What must hold for any input at all, one function for each reader of what users write.
//!
//! Plain functions, called by the seeded driver in `main.rs` (under `cargo test`) and by
//! `fuzz_targets/` (under cargo-fuzz). They say nothing about which inputs are right; that is in
//! the unit tests beside the readers.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use mcpsup::door::bridge::{Bridge, Word};
use mcpsup::door::{self, Behind, Door, Gate};
use mcpsup::logic::access::Guard;
use mcpsup::logic::era::{self, Heads, Post};
use mcpsup::logic::exchange::{Deed, Exchange, From, Head, Next, Posted, SessionKey, Settings, StreamKey};
use mcpsup::logic::frame::{self, Body, Frame, Kind, Splice};
use mcpsup::logic::ports::{Asked, Pin, Ports};
use mcpsup::logic::redact::{MARK as REDACTED, Redactor};
use mcpsup::logic::snippet::{self, ClientKind, Entry, MergeError};
use mcpsup::logic::{config, envfile, template};
use mcpsup::model::config::{self as limits, Config, Piece, Sessions, Stdio, Template};
use mcpsup::model::env::{Variable, Variables};
use mcpsup::model::{InstanceId, Moment, Problem, Secret};
use mcpsup::system::ready::Hub;
use mcpsup::system::socket;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

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
        Piece::Socket => "{socket}".to_owned(),
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
    let entries = [Entry { name: "notes".to_owned(), url: url.clone(), command: None, helper: None }];
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

/// A text is messages or is refused; with another id it is the same message on one line.
pub(crate) fn frame(data: &[u8]) {
    let body = match frame::parse_body(data) {
        Ok(body) => body,
        Err(problem) => {
            assert!(frame::parse(&problem.to_error()).is_ok(), "the refusal is no message");
            return;
        }
    };
    let frames = match &body {
        Body::One(frame) => std::slice::from_ref(frame),
        Body::Batch(frames) => &frames[..],
    };
    for frame in frames {
        assert!(serde_json::from_str::<serde::de::IgnoredAny>(frame.text).is_ok(), "no JSON");
        let mut splice = Splice::new(frame.text);
        let Some(id) = frame.request_id() else { continue };
        splice.put(id, "\"another\"");
        let out = splice.finish("");
        assert_eq!(out.len() + id.len(), frame.text.len() + "\"another\"".len());
        let Ok(again) = frame::parse(&out) else { panic!("spliced, it is no message") };
        assert_eq!((again.request_id(), again.method()), (Some("\"another\""), frame.method()));
        let one_line = |text: &str| text.replace(['\n', '\r'], " ");
        assert_eq!(again.params.map(one_line), frame.params.map(one_line));
        assert!(!out.contains(&b'\n'));
    }
}

/// Four lines of headers and a body: what is taken for modern says the same in both.
pub(crate) fn era(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut lines = text.splitn(5, '\n');
    let mut head = || lines.next().filter(|line| !line.is_empty());
    let heads = Heads { version: head(), method: head(), name: head(), session: head() };
    let Ok(body) = frame::parse_body(lines.next().unwrap_or_default().as_bytes()) else { return };
    match (era::classify(&heads, &body), &body) {
        (Ok(Post::Modern), Body::One(Frame { kind: Kind::Request { method, .. }, params, .. })) => {
            assert_eq!(heads.method.map(str::trim_ascii), Some(&**method));
            assert_eq!(heads.version.map(str::trim_ascii), Some(era::MODERN));
            let [name] = frame::members(params.unwrap_or("it has _meta"), ["name"]).unwrap_or_default();
            if let ("tools/call", Some(name)) = (&**method, name.and_then(frame::text_of)) {
                let said = heads.name.and_then(|head| era::decoded(head.trim_ascii()));
                assert_eq!(said.as_deref(), Some(&*name));
            }
        }
        (Ok(Post::Modern), body) => assert!(matches!(body, Body::One(_))),
        (Ok(Post::Initialize | Post::InSession), _) => {}
        (Err(refused), _) => {
            assert_eq!(refused.status, 400);
            assert!(frame::parse(&refused.body).is_ok(), "the refusal is no message");
        }
    }
}

/// Whatever a client sends to a stdio server's door before it says that this was all: it is answered in
/// HTTP or not at all, and the connection ends.
#[expect(clippy::unwrap_used, reason = "a test that cannot have its door fails")]
pub(crate) fn http(data: &[u8]) {
    thread_local! {
        static HOUSE: House = House::new();
    }
    HOUSE.with(|house| {
        let answer = house.runtime.block_on(async {
            let mut stream = tokio::net::TcpStream::connect(house.door.addr()).await.unwrap();
            // It may be refused before all of it is said.
            let (mut reading, mut writing) = stream.split();
            let say = async {
                let said = writing.write_all(data).await.is_ok();
                said && writing.shutdown().await.is_ok()
            };
            let mut answer = Vec::new();
            let (_said, heard) = tokio::join!(say, reading.read_to_end(&mut answer));
            heard.map(|_| answer)
        });
        let Ok(answer) = answer else { return };
        assert!(answer.is_empty() || answer.starts_with(b"HTTP/1."), "{}", answer.escape_ascii());
    });
}

/// A door without a process behind it.
struct House {
    runtime: tokio::runtime::Runtime,
    door: Door,
    _hub: Hub,
    _words: tokio::sync::mpsc::UnboundedReceiver<Word>,
}

impl House {
    #[expect(clippy::unwrap_used, reason = "a test that cannot have its door fails")]
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let here = IpAddr::from([127, 0, 0, 1]);
        let limits = limits::Door { wait: Duration::ZERO, ..Config::default().door };
        let (_, settings) = tokio::sync::watch::channel(Arc::new(door::Settings { limits, listen: here }));
        let instance = InstanceId::new("alice".parse().unwrap(), "notes".parse().unwrap());
        let (say, words) = tokio::sync::mpsc::unbounded_channel();
        let stdio = Stdio::of(Sessions::Shared);
        let bridge = Bridge::new(instance.clone(), stdio, "/mcp".to_owned(), "0.0.0", say);
        let (hub, door) = runtime.block_on(async {
            let hub = Hub::new().unwrap();
            let listener = hub.add(socket::listen(here, 0).unwrap()).unwrap();
            let door =
                Door::open(listener, settings, instance, Behind::Stdio(bridge), Arc::default()).unwrap();
            // It says nothing otherwise but that nobody may come in.
            let guard = Guard { access: limits::Access::Open, ..Guard::default() };
            door.guard(Gate { guard, token: None });
            (hub, door)
        });
        Self { runtime, door, _hub: hub, _words: words }
    }
}

/// Whatever clients and a process say: to the process go messages on a line each, and to clients messages.
///
/// Each line begins with who says it: `p` the process, `a` and `b` legacy clients, `m` a modern one, `g` a
/// GET of a's, `r` one with this Last-Event-ID; `l` is the process's end and `d` drops all streams.
pub(crate) fn exchange(data: &[u8]) {
    for modern in [false, true] {
        let mut world = Fuzzed::new(modern);
        for line in data.split(|byte| *byte == b'\n') {
            world.said(line.split_first().unwrap_or((&b' ', &[])));
            world.settle();
            let kept = world.exchange.kept();
            assert!(kept <= (1 << 20) + 64 * data.len(), "{} bytes made it keep {kept}", data.len());
        }
    }
}

struct Fuzzed {
    exchange: Exchange,
    clients: [SessionKey; 2],
    streams: BTreeSet<StreamKey>,
    now: Moment,
    modern: bool,
    first: u64,
}

impl Fuzzed {
    fn new(modern: bool) -> Self {
        let settings = Settings {
            isolated: false,
            modern: Some(modern),
            max_sessions: 4,
            session_idle: Duration::from_secs(60),
            seal: Some(mcpsup::logic::exchange::Seal::new([7; 32])),
            version: "0.0.0",
        };
        let mut world = Self {
            exchange: Exchange::new(settings),
            clients: [SessionKey(0); 2],
            streams: BTreeSet::new(),
            now: Moment::from_boot(Duration::from_millis(1)),
            modern,
            first: 10,
        };
        world.open();
        let body = br#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-03-26","capabilities":{"sampling":{},"elicitation":{}}}}"#;
        world.clients = ["a", "b"].map(|id| {
            let begun = world.exchange.initialize(id.to_owned(), body, world.now);
            begun.unwrap_or_else(|refused| panic!("{refused:?}")).0
        });
        world.settle();
        world
    }

    /// A process is there, and answers its opening.
    fn open(&mut self) {
        self.exchange.attach(self.first, None, self.now);
        let capabilities =
            r#""capabilities":{"tools":{"listChanged":true},"resources":{"subscribe":true},"logging":{}}"#;
        let result = if self.modern {
            format!(r#"{{"supportedVersions":["2026-07-28"],{capabilities}}}"#)
        } else {
            format!(r#"{{"protocolVersion":"2025-11-25",{capabilities},"serverInfo":{{}}}}"#)
        };
        for deed in self.exchange.deeds() {
            if let Deed::Send(line) = deed {
                let asked = frame::parse(&line).ok().and_then(|frame| frame.request_id().map(str::to_owned));
                let Some(asked) = asked else { panic!("the opening is a request") };
                self.exchange.line(&frame::answer(&asked, &result), self.now);
            }
        }
        assert!(self.exchange.is_open());
        self.first += 10;
    }

    fn said(&mut self, (who, what): (&u8, &[u8])) {
        self.now = self.now + Duration::from_millis(1);
        let from = match who {
            b'p' => return self.exchange.line(what, self.now),
            b'a' => From::Session(self.clients[0]),
            b'b' => From::Session(self.clients[1]),
            b'm' => From::Modern,
            b'g' => {
                self.streams.insert(self.exchange.listen(self.clients[0], self.now));
                return;
            }
            b'r' => {
                let id = std::str::from_utf8(what).unwrap_or_default();
                self.streams.extend(self.exchange.resume(self.clients[0], id, self.now));
                return;
            }
            b'l' => {
                self.exchange.lost(self.now);
                return self.open();
            }
            _ => {
                for stream in std::mem::take(&mut self.streams) {
                    self.exchange.dropped(stream, self.now);
                }
                return self.exchange.expire(self.now);
            }
        };
        if let (From::Modern, Ok(body)) = (from, frame::parse_body(what)) {
            // What is not known of the tools yet is asked for; the call goes on whatever comes of it.
            if self.exchange.knows_heads(&body, self.now) {
                let said = self.exchange.check_heads(&body, &|_| Head::Is("x"));
                said.unwrap_or_else(|refused| assert_eq!(refused.status, 400));
            }
        }
        match self.exchange.post(from, what, self.now) {
            Posted::Stream(stream) => {
                if what.len() % 2 == 0 {
                    self.exchange.prime(stream);
                }
                self.streams.insert(stream);
            }
            Posted::Accepted => {}
            Posted::Refused(refused) => {
                assert!(frame::parse(&refused.body).is_ok(), "the refusal is no message");
            }
        }
    }

    fn settle(&mut self) {
        for deed in self.exchange.deeds() {
            if let Deed::Send(line) | Deed::Reply(line) = deed {
                let Some(message) = line.strip_suffix(b"\n") else { panic!("a line has no end") };
                assert!(
                    !message.contains(&b'\n') && frame::parse(message).is_ok(),
                    "no message: {}",
                    message.escape_ascii()
                );
            }
        }
        let streams: Vec<StreamKey> = self.streams.iter().copied().collect();
        for stream in streams {
            loop {
                match self.exchange.next(stream) {
                    Next::Message { message, .. } => {
                        let fine = !message.iter().any(|byte| matches!(byte, b'\n' | b'\r'));
                        assert!(
                            fine && frame::parse(&message).is_ok(),
                            "no message: {}",
                            message.escape_ascii()
                        );
                    }
                    Next::Pending => break,
                    Next::End => {
                        self.streams.remove(&stream);
                        break;
                    }
                }
            }
        }
    }
}
