//! Seeded worlds: clients of both eras with the same ids and tokens, and a process that answers, reports,
//! logs, asks back, dies and comes back. Every message carries its owner, and nobody else may see it.

mod process;
mod whims;

use std::collections::{BTreeMap, BTreeSet};

use super::super::table::Stage as Stages;
use super::super::what::What;
use super::*;
use crate::logic::frame::{self, Kind, Outcome, members};
use process::Asked;

const WORLDS: u64 = 1500;
const STEPS: usize = 250;
/// Ids and tokens that all clients use; each is told from the others by its spelling.
const IDS: [&str; 6] = ["1", "2", "\"1\"", "\"2\"", "1.0", "\"\\u0031x\""];

/// What modern clients say in `_meta`.
const MODERN: [&str; 3] = [
    "",
    r#","io.modelcontextprotocol/logLevel":"debug""#,
    r#","io.modelcontextprotocol/clientCapabilities":{"elicitation":{}}"#,
];

/// splitmix64, as in tests/sim.
pub(super) struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 33) as usize % sides.max(1)
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.roll(n) == 0
    }
}

/// A call as its client knows it.
struct Open {
    client: usize,
    id: &'static str,
    number: usize,
    stream: StreamKey,
}

/// A stream as its client knows it.
struct Reader {
    client: usize,
    last: Option<String>,
    /// The connection is there.
    connected: bool,
    modern: bool,
}

/// What a test does to what passes, to see it caught.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bug {
    None,
    OtherClient,
    Twice,
    Lost,
    IdIsAnother,
    TokenIsAnother,
    AnswerOfAnother,
}

struct World {
    stage: Stage,
    dice: Dice,
    bug: Bug,
    is_modern: bool,
    alive: bool,
    /// Session of each legacy client; `None` for a modern one.
    clients: Vec<Option<SessionKey>>,
    readers: BTreeMap<StreamKey, Reader>,
    open: Vec<Open>,
    /// Calls their clients cancelled; the answer may have been on its way.
    cancelled: Vec<Open>,
    /// What the process has to answer.
    asked: Vec<Asked>,
    /// Questions of the process: id, and whom it means.
    questions: BTreeMap<String, usize>,
    /// Questions a client has to answer: its id there.
    to_answer: Vec<(usize, String)>,
    /// Calls of modern clients that were answered with a question: number, and the state to come back with.
    to_retry: Vec<(usize, usize, String)>,
    answered: BTreeSet<usize>,
    number: usize,
    seen: usize,
}

fn owner(text: &str) -> Option<usize> {
    let (_, rest) = text.split_once("\"owner\":")?;
    rest.chars().take_while(char::is_ascii_digit).collect::<String>().parse().ok()
}

fn number(text: &str) -> Option<usize> {
    let (_, rest) = text.split_once("\"number\":")?;
    rest.chars().take_while(char::is_ascii_digit).collect::<String>().parse().ok()
}

impl World {
    fn new(seed: u64, bug: Bug) -> Self {
        let mut dice = Dice(seed);
        let is_modern = dice.one_in(2);
        let mut stage = Stage::new(Settings { max_sessions: 64, ..settings() });
        if is_modern {
            stage.attach_modern();
        } else {
            stage.attach_legacy();
        }
        let mut clients = Vec::new();
        for n in 0..2 + dice.roll(4) {
            let legacy = dice.roll(3) > 0;
            clients.push(legacy.then(|| stage.client(&n.to_string(), r#"{"sampling":{},"elicitation":{}}"#)));
        }
        Self {
            stage,
            dice,
            bug,
            is_modern,
            alive: true,
            clients,
            readers: BTreeMap::new(),
            open: Vec::new(),
            cancelled: Vec::new(),
            asked: Vec::new(),
            questions: BTreeMap::new(),
            to_answer: Vec::new(),
            to_retry: Vec::new(),
            answered: BTreeSet::new(),
            number: 0,
            seen: 0,
        }
    }

    fn post(&mut self, client: usize, body: &str) -> Posted {
        let from = self.clients[client].map_or(From::Modern, From::Session);
        self.stage.post(from, body)
    }

    fn client_calls(&mut self) {
        let client = self.dice.roll(self.clients.len());
        let (mut bodies, mut calls) = (Vec::new(), Vec::new());
        let batch = if self.clients[client].is_some() && self.dice.one_in(6) { 2 } else { 1 };
        for _ in 0..batch {
            let id = IDS[self.dice.roll(IDS.len())];
            self.number += 1;
            let method = ["tools/call", "tools/call", "tools/list"][self.dice.roll(3)];
            let level = if self.clients[client].is_some() { "" } else { MODERN[self.dice.roll(3)] };
            bodies.push(format!(
                r#"{{"jsonrpc":"2.0","method":"{method}","params":{{"owner":{client},"number":{},"_meta":{{"progressToken":{id}{level}}}}},"id":{id}}}"#,
                self.number
            ));
            calls.push((id, self.number));
        }
        let body = if batch == 1 { bodies.remove(0) } else { format!("[{}]", bodies.join(",")) };
        match self.post(client, &body) {
            Posted::Stream(stream) => {
                let modern = self.clients[client].is_none();
                self.readers.insert(stream, Reader { client, last: None, connected: true, modern });
                for (id, number) in calls {
                    self.open.push(Open { client, id, number, stream });
                }
                if !modern && self.dice.one_in(2) {
                    let primed = self.stage.exchange.prime(stream);
                    self.readers.get_mut(&stream).unwrap().last = primed;
                }
            }
            // An id in use, by a call whose stream may be gone.
            Posted::Refused(refused) => assert_eq!(refused.status, 400),
            Posted::Accepted => panic!("a call is answered"),
        }
    }

    /// Somebody reads what waits for them.
    fn read(&mut self, all: bool) {
        let streams: Vec<StreamKey> =
            self.readers.iter().filter(|(_, reader)| reader.connected).map(|(key, _)| *key).collect();
        for stream in streams {
            if !all && self.dice.one_in(2) {
                continue;
            }
            loop {
                match self.stage.exchange.next(stream) {
                    Next::Message { id, message, .. } => {
                        let reader = self.readers.get_mut(&stream).unwrap();
                        // The connection broke under it.
                        if !all && reader.last.is_some() && self.dice.one_in(12) {
                            reader.connected = false;
                            self.stage.exchange.dropped(stream, self.stage.now);
                            break;
                        }
                        reader.last = id.or(reader.last.take());
                        let client = reader.client;
                        self.see_buggy(client, stream, &String::from_utf8(message).unwrap());
                    }
                    Next::Pending => break,
                    Next::End => {
                        self.gone(stream);
                        break;
                    }
                }
            }
        }
    }

    fn gone(&mut self, stream: StreamKey) {
        self.readers.remove(&stream);
        self.open.retain(|open| open.stream != stream || self.answered.contains(&open.number));
    }

    fn see_buggy(&mut self, client: usize, stream: StreamKey, text: &str) {
        self.seen += 1;
        let hit = self.seen.is_multiple_of(5);
        match self.bug {
            Bug::OtherClient if hit => self.see((client + 1) % self.clients.len(), stream, text),
            Bug::Twice if hit => {
                self.see(client, stream, text);
                self.see(client, stream, text);
            }
            Bug::Lost if hit => {}
            Bug::IdIsAnother if hit => self.see(client, stream, &text.replace("\"id\":1.0", "\"id\":1")),
            Bug::TokenIsAnother if hit => {
                self.see(client, stream, &text.replace("progressToken\":1", "progressToken\":3"));
            }
            Bug::AnswerOfAnother if hit => {
                self.see(client, stream, &text.replace("\"number\":", "\"number\":1"));
            }
            Bug::None
            | Bug::OtherClient
            | Bug::Twice
            | Bug::Lost
            | Bug::IdIsAnother
            | Bug::TokenIsAnother
            | Bug::AnswerOfAnother => self.see(client, stream, text),
        }
    }

    /// A client gets a message: it is its own, and answers what it asked, once.
    fn see(&mut self, client: usize, stream: StreamKey, text: &str) {
        if let Some(owner) = owner(text) {
            assert_eq!(owner, client, "at {client}: {text}");
        }
        let frame = frame::parse(text.as_bytes()).unwrap();
        match frame.kind {
            Kind::Answer { id, outcome } => {
                let id = id.expect("an answer has an id");
                let is_it = |open: &Open| {
                    let same = open.client == client && open.id == id && open.stream == stream;
                    same && number(text).is_none_or(|number| number == open.number)
                };
                let call = match self.open.iter().position(is_it) {
                    Some(at) => self.open.remove(at),
                    None => match self.cancelled.iter().position(is_it) {
                        Some(at) => self.cancelled.remove(at),
                        None => panic!("{client} asked nothing like {text}"),
                    },
                };
                if text.contains("input_required") {
                    assert!(self.clients[client].is_none(), "a legacy client gets {text}");
                    let (_, state) = text.split_once(r#""requestState":""#).unwrap();
                    let state = state.split('"').next().unwrap();
                    self.to_retry.push((client, call.number, state.to_owned()));
                    return;
                }
                assert!(self.answered.insert(call.number), "twice: {text}");
                if let Outcome::Error(error) = outcome {
                    assert!(error.contains("-32") || error.contains("\"number\""), "{text}");
                }
            }
            Kind::Request { id, .. } => {
                assert!(self.clients[client].is_some(), "a modern client is asked by answers only");
                self.to_answer.push((client, id.to_owned()));
            }
            Kind::Notification { method } => {
                if method == "notifications/progress" {
                    let [token] = members(frame.params.unwrap(), ["progressToken"]).unwrap();
                    let number = number(text).unwrap();
                    let all = || self.open.iter().chain(&self.cancelled);
                    let call = all().find(|open| open.number == number);
                    assert_eq!(token, call.map(|open| open.id), "{text}");
                }
            }
        }
    }

    /// A modern client comes back with what it was asked; or with something it made up.
    fn retry(&mut self) {
        if self.to_retry.is_empty() {
            return;
        }
        let at = self.dice.roll(self.to_retry.len());
        let (client, number, state) = if self.dice.one_in(8) {
            let (client, number, state) = self.to_retry[at].clone();
            (client, number, state.chars().rev().collect())
        } else {
            self.to_retry.swap_remove(at)
        };
        let id = IDS[self.dice.roll(IDS.len())];
        let names = ["1", "2", "3", "4", "5", "6", "7", "8"];
        let answers = names.map(|name| format!(r#""{name}":{{"owner":{client}}}"#)).join(",");
        let body = format!(
            r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"owner":{client},"number":{number},"requestState":"{state}","inputResponses":{{{answers}}},"_meta":{{"progressToken":{id}{}}}}}}}"#,
            MODERN[2]
        );
        let Posted::Stream(stream) = self.post(client, &body) else { panic!("a call is answered") };
        self.readers.insert(stream, Reader { client, last: None, connected: true, modern: true });
        let made_up = self.to_retry.iter().any(|(_, other, _)| *other == number);
        if made_up {
            let Next::Message { message, .. } = self.stage.exchange.next(stream) else {
                panic!("no refusal")
            };
            assert!(String::from_utf8(message).unwrap().contains("-32602"));
            self.readers.remove(&stream);
        } else {
            self.open.push(Open { client, id, number, stream });
        }
    }

    /// A client answers what it was asked.
    fn reply(&mut self) {
        if self.dice.one_in(2) {
            self.retry();
        }
        if self.to_answer.is_empty() {
            return;
        }
        let at = self.dice.roll(self.to_answer.len());
        let (client, id) = self.to_answer.swap_remove(at);
        let body = format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{"owner":{client}}}}}"#);
        assert_eq!(self.post(client, &body), Posted::Accepted);
        // Somebody else answers too; nobody asked them.
        let other = self.dice.roll(self.clients.len());
        if other != client
            && self.clients[other].is_some()
            && self.to_answer.iter().all(|(c, i)| (*c, i) != (other, &id))
        {
            let body = format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{"owner":{other},"uninvited":1}}}}"#);
            self.post(other, &body);
        }
    }

    fn step(&mut self) {
        self.stage.now = self.stage.now + Duration::from_millis(5);
        match self.dice.roll(16) {
            0..=3 => self.client_calls(),
            4..=8 => self.speak(),
            9..=11 => self.read(false),
            12 => self.reply(),
            13 | 14 => self.whim(),
            _ if self.dice.one_in(6) => self.fate(),
            _ => {}
        }
        self.hear();
        let exchange = &mut self.stage.exchange;
        exchange.expire(self.stage.now);
        // What is kept in order says the same as a look at everything.
        assert_eq!(exchange.deadline(), exchange.deadline_of_all());
        exchange.streams.size();
        let kept = exchange.calls.values().map(Call::kept).sum::<usize>();
        let answers = exchange.asks.rounds.values().map(super::super::rounds::Round::bytes).sum::<usize>();
        assert_eq!(exchange.waiting, kept + answers);
        assert_eq!(exchange.shares.values().sum::<usize>(), exchange.calls.len());
        let there = |call: &&Call| match call.stage {
            Stages::Sent => call.what != What::Listen,
            Stages::Parked { is_over, .. } => !is_over,
            Stages::Waits | Stages::Asks | Stages::Ghost(_) => false,
        };
        assert_eq!(exchange.in_flight(), exchange.calls.values().filter(there).count());
    }

    /// No more faults: all that is open is answered, and nothing is left.
    fn end(&mut self) {
        if self.alive {
            self.stage.exchange.lost(self.stage.now);
        }
        self.alive = false;
        self.fate();
        for round in 0..10_000 {
            self.hear();
            self.read(true);
            while !self.to_answer.is_empty() || !self.to_retry.is_empty() {
                self.reply();
                self.hear();
                self.read(true);
            }
            self.hear();
            let Some(Asked { id, client, number, .. }) = self.asked.pop() else { break };
            self.stage.line(&format!(
                r#"{{"jsonrpc":"2.0","id":{id},"result":{{"owner":{client},"number":{number}}}}}"#
            ));
            assert!(round < 9999, "no end");
        }
        self.read(true);
        let connected = |open: &&Open| self.readers.get(&open.stream).is_some_and(|reader| reader.connected);
        let left: Vec<usize> = self.open.iter().filter(connected).map(|open| open.number).collect();
        assert_eq!(left, Vec::<usize>::new(), "never answered");
        for key in self.clients.clone().into_iter().flatten() {
            self.stage.exchange.end_session(key);
        }
        self.stage.exchange.expire(self.stage.now + Duration::from_secs(3000));
        self.stage.is_empty();
    }
}

pub(super) fn run(seed: u64, bug: Bug) {
    let mut world = World::new(seed, bug);
    for _ in 0..STEPS {
        world.step();
    }
    world.end();
}

#[test]
fn no_client_sees_what_is_anothers_and_each_call_is_answered_once() {
    for seed in 0..WORLDS {
        let done = std::panic::catch_unwind(|| run(seed, Bug::None));
        assert!(done.is_ok(), "world {seed}");
    }
}

#[test]
fn every_planted_bug_is_seen() {
    for bug in
        [Bug::OtherClient, Bug::Twice, Bug::Lost, Bug::IdIsAnother, Bug::TokenIsAnother, Bug::AnswerOfAnother]
    {
        let caught = (0..40).any(|seed| std::panic::catch_unwind(|| run(seed, bug)).is_err());
        assert!(caught, "{bug:?} passes");
    }
}
