//! The server against a pretended loop, over a real Unix socket.

use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream as Blocking;
use std::sync::mpsc as blocking;

use super::guests::{MAX_CONNECTIONS, MAX_PASSING_PER_USER, MAX_PER_USER};
use super::*;
use crate::control::client::{Client, ClientError};
use crate::control::protocol::{Accepted, LogHandle, RefusalKind};
use crate::model::portmap::PortMap;
use crate::model::status::StatusReport;

/// A pretended daemon in a thread of its own.
struct Fake {
    dir: tempfile::TempDir,
    path: PathBuf,
    generation: watch::Sender<u64>,
    bell: watch::Sender<u64>,
    seen: blocking::Receiver<(Peer, Request)>,
    _stop: oneshot::Sender<()>,
}

impl Fake {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.sock");
        let log = dir.path().join("notes.log");
        let (generation, generations) = watch::channel(41);
        let (bell, bells) = watch::channel(0);
        let (note, seen) = blocking::channel();
        let (stop, stopped) = oneshot::channel::<()>();
        let (ready, is_ready) = blocking::channel();
        let (socket, now) = (path.clone(), generations.clone());
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = bind(&socket).unwrap();
                ready.send(()).unwrap();
                let (calls, mut queue) = mpsc::channel::<Call>(8);
                let the_loop = async {
                    while let Some(call) = queue.recv().await {
                        note.send((call.peer, call.request.clone())).ok();
                        let answer = pretend(&call.request, *now.borrow(), &log, &bells);
                        call.reply.send(answer).ok();
                    }
                };
                tokio::select! {
                    () = serve(listener, calls, generations, nobody_known()) => {}
                    () = the_loop => {}
                    _ = stopped => {}
                }
            });
        });
        is_ready.recv().unwrap();
        Self { dir, path, generation, bell, seen, _stop: stop }
    }

    fn client(&self) -> Client {
        Client::connect(&self.path).unwrap()
    }

    /// What a tool like curl gets.
    fn raw(&self, text: &str) -> String {
        let mut stream = Blocking::connect(&self.path).unwrap();
        stream.write_all(text.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    fn log(&self, text: &str) {
        let path = self.dir.path().join("notes.log");
        let mut file = OpenOptions::new().create(true).append(true).open(path).unwrap();
        file.write_all(text.as_bytes()).unwrap();
        self.bell.send_modify(|rings| *rings += 1);
    }

    fn rotate(&self) {
        let path = self.dir.path().join("notes.log");
        std::fs::rename(&path, self.dir.path().join("notes.log.1")).unwrap();
    }
}

fn pretend(
    request: &Request,
    generation: u64,
    log: &Path,
    bell: &watch::Receiver<u64>,
) -> Result<Reply, Refusal> {
    match request {
        Request::Status(Target { user: Some(user), .. }) if user.as_str() == "mallory" => {
            let text = "mallory is not yours to see or steer".to_owned();
            Err(Refusal { kind: RefusalKind::NotPermitted, text })
        }
        Request::Status(_) => Ok(Reply::Status(StatusReport {
            version: "0".to_owned(),
            generation,
            instances: vec![],
            problems: vec![],
            notes: vec![],
            apart: None,
        })),
        Request::Start(_) | Request::Reload | Request::Wish(..) => {
            Ok(Reply::Accepted(Accepted { generation, ..Accepted::default() }))
        }
        Request::Ports => Ok(Reply::Ports(PortMap { version: 1, generation, instances: vec![] })),
        Request::Logs(_) => {
            Ok(Reply::Log(LogHandle { path: log.to_path_buf(), written: Some(bell.clone()) }))
        }
        Request::Stop(_) => Err(Refusal {
            kind: RefusalKind::NotPermitted,
            text: "cannot stop bob: only bob and administrators may".to_owned(),
        }),
        Request::Restart(_) => {
            Err(Refusal { kind: RefusalKind::Unknown, text: "there is no user \"zoe\"".to_owned() })
        }
        Request::Mcp(target) => {
            let names = target.user.clone().zip(target.server.clone());
            let (user, server) =
                names.unwrap_or_else(|| ("alice".parse().unwrap(), "notes".parse().unwrap()));
            Ok(Reply::Passage(Passage::new(crate::model::InstanceId::new(user, server), echo)))
        }
        Request::Token { .. } => Ok(Reply::Token(crate::model::Secret::new("t0k3n"))),
        Request::Remove(_) => {
            Err(Refusal { kind: RefusalKind::Failed, text: "env.d/zoe.env is still there".to_owned() })
        }
    }
}

/// An instance that says what it was sent.
async fn echo(request: hyper::Request<Incoming>) -> Answer {
    let head = format!("{} {} ", request.method(), request.uri());
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let text = [head.as_bytes(), &body].concat();
    let mut answer =
        say(StatusCode::OK, "text/plain", BoxBody::new(Full::from(text).map_err(|never| match never {})));
    answer.headers_mut().insert(VERSION_HEADER, hyper::header::HeaderValue::from_static("a lie"));
    answer
}

fn alice() -> Target {
    Target { user: Some("alice".parse().unwrap()), server: None, all: false }
}

#[test]
fn every_call_reaches_the_loop_with_the_kernels_word_for_who_asks() {
    let fake = Fake::start();
    let client = fake.client();
    assert_eq!(client.status(&alice(), None).unwrap().generation, 41);
    assert_eq!(client.start(&alice()).unwrap().generation, 41);
    assert_eq!(client.ports().unwrap().version, 1);
    client.reload().unwrap();
    let (peer, first) = fake.seen.recv().unwrap();
    assert_eq!(first, Request::Status(alice()));
    assert_eq!(peer.uid, account::own_uid());
    assert_eq!(peer.pid, i32::try_from(std::process::id()).unwrap());
    let later: Vec<_> = fake.seen.try_iter().map(|(_, request)| request).collect();
    assert_eq!(later, [Request::Start(alice()), Request::Ports, Request::Reload]);
}

#[test]
fn a_refusal_keeps_its_kind_and_its_words() {
    let fake = Fake::start();
    let client = fake.client();
    let kinds = [
        client.stop(&alice()).unwrap_err(),
        client.restart(&alice()).unwrap_err(),
        client.remove(&"zoe".parse().unwrap()).unwrap_err(),
    ]
    .map(|error| {
        let ClientError::Refused(refusal) = error else { panic!("{error}") };
        (refusal.kind, refusal.text)
    });
    assert_eq!(kinds[0].0, RefusalKind::NotPermitted);
    assert_eq!(kinds[0].1, "cannot stop bob: only bob and administrators may");
    assert_eq!(kinds[1].0, RefusalKind::Unknown);
    assert_eq!(kinds[2].0, RefusalKind::Failed);
}

#[test]
fn curl_can_speak_it() {
    let fake = Fake::start();
    let answer = fake.raw("GET /v1/ports HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    let version = format!("mcpsup-version: {}\r\n", env!("CARGO_PKG_VERSION"));
    assert!(answer.contains(&version), "{answer}");
    assert!(answer.ends_with("{\"version\":1,\"generation\":41,\"instances\":[]}\n"), "{answer}");
    let answer = fake.raw("GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
    assert!(answer.contains("{\"error\":\"there is no /; there is GET /v1/status,"), "{answer}");
}

#[test]
fn garbage_and_huge_bodies_are_answered_and_hurt_nobody() {
    let fake = Fake::start();
    let answer = fake.raw("\0\x01 what is this\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    let huge = format!(
        "POST /v1/start HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 10000000000\r\n\r\n{}",
        " ".repeat(MAX_BODY + 1)
    );
    let answer = fake.raw(&huge);
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    assert!(fake.client().ports().is_ok());
    assert!(fake.seen.try_iter().all(|(_, request)| request == Request::Ports), "none came through");
}

#[test]
fn one_user_cannot_take_every_connection() {
    let fake = Fake::start();
    let silent: Vec<_> = (0..MAX_PER_USER).map(|_| Blocking::connect(&fake.path).unwrap()).collect();
    let mut one_more = Blocking::connect(&fake.path).unwrap();
    let mut answer = String::new();
    one_more.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 503"), "{head}");
    assert!(head.contains(&format!("content-length: {}", body.len())), "{head} {}", body.len());
    drop(silent);
    // The server learns of each that went; then there is room again.
    let there_is_room = || Client::connect(&fake.path).unwrap().ports().is_ok();
    let begun = clock::now();
    while !there_is_room() {
        assert!(clock::now().since(begun) < Duration::from_secs(60));
    }
}

/// No uid by which a user is known.
fn nobody_known() -> watch::Receiver<BTreeSet<u32>> {
    watch::channel(BTreeSet::new()).1
}

#[test]
fn strangers_together_leave_half_the_room_for_those_who_are_known() {
    let own = account::own_uid();
    let (alice, strangers) = (own + 1, own + 2..);
    let (_know, known) = watch::channel(BTreeSet::from([alice]));
    let guests = Guests::new(known);
    let mut seats = Vec::new();
    for uid in strangers {
        let before = seats.len();
        seats.extend((0..MAX_PER_USER).map_while(|_| guests.seat(uid)));
        if seats.len() == before {
            break;
        }
    }
    assert_eq!(seats.len(), MAX_CONNECTIONS / 2, "however many uids a stranger has");
    seats.extend((0..MAX_PER_USER).map(|_| guests.seat(alice).unwrap()));
    assert!(guests.seat(alice).is_none());
    assert!(guests.seat(own).is_some());
}

#[test]
fn those_who_are_known_leave_room_for_the_daemons_own_user() {
    let own = account::own_uid();
    let mut seats = Vec::new();
    let others = u32::try_from(MAX_CONNECTIONS / MAX_PER_USER).unwrap();
    let (_know, known) = watch::channel((1..=others).map(|n| account::own_uid() + n).collect());
    let guests = Guests::new(known);
    for uid in (1..=others).map(|n| own + n) {
        for _ in 0..MAX_PER_USER {
            seats.extend(guests.seat(uid));
        }
    }
    assert_eq!(seats.len(), MAX_CONNECTIONS - MAX_PER_USER);
    assert!(guests.seat(own + others + 1).is_none());
    assert!(guests.seat(own).is_some());
    seats.clear();
    assert!(guests.seat(own + others + 1).is_some());
    assert!(guests.is_empty(), "nobody is counted for ever");
}

#[test]
fn whoever_passes_requests_on_takes_no_seat_from_those_who_ask() {
    let guests = Guests::new(nobody_known());
    let own = account::own_uid();
    let passing: Vec<_> = (0..MAX_PASSING_PER_USER)
        .map(|_| {
            let seat = guests.seat(own).unwrap();
            assert!(seat.moves() && seat.moves());
            seat
        })
        .collect();
    let asking = guests.seat(own).unwrap();
    assert!(!asking.moves(), "nobody has more than so many");
    drop(passing);
    assert!(asking.moves());
    drop(asking);
    assert!(guests.is_empty(), "nobody is counted for ever");
}

#[test]
fn a_request_for_an_instance_is_passed_on_whole_and_its_answer_is_never_taken_for_the_daemons() {
    let fake = Fake::start();
    let mut stream = Blocking::connect(&fake.path).unwrap();
    let body = "x".repeat(2 * MAX_BODY);
    write!(
        stream,
        "POST /v1/mcp/alice/notes HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, said) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200") && !head.contains(VERSION_HEADER), "{head}");
    assert_eq!(said, format!("POST /v1/mcp/alice/notes {body}"));
    let target = Target { server: Some("notes".parse().unwrap()), ..alice() };
    assert_eq!(fake.seen.recv().unwrap().1, Request::Mcp(target));
}

#[test]
fn a_question_for_a_later_status_is_answered_when_it_changes() {
    let fake = Fake::start();
    let client = fake.client();
    let (done, is_done) = blocking::channel();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            done.send(client.status(&alice(), Some((41, Duration::from_secs(60)))).unwrap()).unwrap();
        });
        // Whether the caller may see it is asked at once; that is no answer yet.
        assert_eq!(fake.seen.recv().unwrap().1, Request::Status(alice()));
        assert!(is_done.try_recv().is_err());
        fake.generation.send(42).unwrap();
        assert_eq!(is_done.recv().unwrap().generation, 42);
    });
    assert_eq!(fake.seen.recv().unwrap().1, Request::Status(alice()));
}

#[test]
fn who_may_not_see_an_instance_hears_so_without_waiting() {
    let fake = Fake::start();
    let mallorys = Target { user: Some("mallory".parse().unwrap()), ..Target::default() };
    let ClientError::Refused(refusal) =
        fake.client().status(&mallorys, Some((99, Duration::from_secs(60)))).unwrap_err()
    else {
        panic!("not refused")
    };
    assert_eq!(refusal.kind, RefusalKind::NotPermitted);
    assert_eq!(fake.seen.try_iter().count(), 1);
    assert_eq!(*fake.generation.borrow(), 41, "nothing has changed meanwhile");
}

#[test]
fn a_question_for_a_later_status_is_answered_when_its_time_is_over() {
    let fake = Fake::start();
    let report = fake.client().status(&alice(), Some((99, Duration::from_secs(1)))).unwrap();
    assert_eq!(report.generation, 41);
}

#[test]
fn a_log_is_given_from_its_last_lines() {
    let fake = Fake::start();
    fake.log("one\ntwo\n");
    fake.rotate();
    fake.log("three\n");
    let mut got = Vec::new();
    fake.client()
        .logs(&alice(), 2, false, |piece| {
            got.extend(piece);
            Ok(())
        })
        .unwrap();
    assert_eq!(String::from_utf8(got).unwrap(), "two\nthree\n");
}

#[test]
fn a_followed_log_goes_on_over_a_rotation() {
    let fake = Fake::start();
    fake.log("one\n");
    let client = fake.client();
    let (pieces, got) = blocking::channel();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let result = client.logs(&alice(), 9, true, |piece| {
                let sent = pieces.send(String::from_utf8(piece.to_vec()).unwrap());
                sent.map_err(|_| io::Error::other("enough"))
            });
            assert!(matches!(result, Err(ClientError::Output(_))), "{result:?}");
        });
        assert_eq!(got.recv().unwrap(), "one\n");
        fake.log("two\n");
        fake.rotate();
        fake.log("three\n");
        let mut rest = String::new();
        while rest != "two\nthree\n" {
            rest += &got.recv().unwrap();
            assert!("two\nthree\n".starts_with(&rest), "{rest:?}");
        }
        drop(got);
        fake.log("four\n");
    });
}

#[test]
fn a_follower_who_hangs_up_is_let_go_though_nothing_is_written() {
    let fake = Fake::start();
    fake.log("one\n");
    for _ in 0..2 * MAX_PER_USER {
        let mut stream = Blocking::connect(&fake.path).unwrap();
        stream.write_all(b"GET /v1/logs?follow=true HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
        let mut some = [0; 16];
        // Or the answer that there are too many, while the server has not noticed yet.
        stream.read_exact(&mut some).unwrap();
    }
    while Client::connect(&fake.path).unwrap().ports().is_err() {}
}

#[test]
fn the_socket_takes_the_place_of_a_dead_daemons_and_of_nothing_else() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _inside = runtime.enter();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("control.sock");
    drop(bind(&path).unwrap());
    drop(bind(&path).unwrap());
    let mode = std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, if account::own_uid() == 0 { 0o666 } else { 0o600 });
    let file = dir.path().join("file");
    std::fs::File::create(&file).unwrap();
    assert!(matches!(bind(&file), Err(BindError::InTheWay(_))));
    let long = dir.path().join("x".repeat(120));
    assert!(bind(&long).unwrap_err().to_string().contains("may have 107"));
}
