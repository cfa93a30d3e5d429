//! A daemon under a service manager, played by the test: what it is told, and the doors it keeps.
//! tests/systemd has the same with the real one.

use std::collections::BTreeMap;
use std::io::{IoSliceMut, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::sync::{Arc, Mutex};

use mcpsup::model::status::StateName;
use nix::sys::signal::Signal;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

use crate::host::{Host, LIMIT, MCPSUP, write};

#[derive(Default)]
struct Heard {
    said: Vec<String>,
    store: BTreeMap<String, OwnedFd>,
}

/// As systemd does it: reads whatever comes, keeps descriptors by their names.
struct Manager {
    heard: Arc<Mutex<Heard>>,
}

impl Manager {
    fn of(host: &mut Host) -> Self {
        let path = host.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        host.env.push(("NOTIFY_SOCKET".into(), path.to_str().unwrap().into()));
        host.env.push(("FDSTORE".into(), "16".into()));
        let heard = Arc::new(Mutex::new(Heard::default()));
        let ear = Arc::downgrade(&heard);
        socket.set_read_timeout(Some(std::time::Duration::from_millis(100))).unwrap();
        std::thread::spawn(move || {
            while let Some(heard) = ear.upgrade() {
                if let Some((text, descriptor)) = next(&socket) {
                    heard.lock().unwrap().take(text, descriptor);
                }
            }
        });
        Self { heard }
    }

    fn has_heard(&self, line: &str) -> bool {
        self.heard.lock().unwrap().said.iter().any(|said| said.lines().any(|one| one.starts_with(line)))
    }

    /// The latest `STATUS=`.
    fn status(&self) -> String {
        let heard = self.heard.lock().unwrap();
        let mut lines = heard.said.iter().rev().flat_map(|said| said.lines());
        lines.find_map(|line| line.strip_prefix("STATUS=")).unwrap_or_default().to_owned()
    }

    fn names(&self) -> Vec<String> {
        self.heard.lock().unwrap().store.keys().cloned().collect()
    }

    /// Starts the daemon with everything in the store, as systemd would.
    fn start(&self, host: &mut Host) {
        let heard = self.heard.lock().unwrap();
        // Above those that they become; dash knows no number of two digits.
        let passed: Vec<(&String, OwnedFd)> = heard
            .store
            .iter()
            .map(|(name, descriptor)| (name, rustix::io::fcntl_dupfd_cloexec(descriptor, 50).unwrap()))
            .collect();
        for (_, descriptor) in &passed {
            rustix::io::fcntl_setfd(descriptor, rustix::io::FdFlags::empty()).unwrap();
        }
        let moves: Vec<String> =
            (3..).zip(&passed).map(|(to, (_, from))| format!("{to}<&{0}", from.as_raw_fd())).collect();
        let names: Vec<&str> = passed.iter().map(|(name, _)| name.as_str()).collect();
        let mut shell = Command::new("bash");
        shell.arg("-c").arg(format!("LISTEN_PID=$$ exec \"$@\" {}", moves.join(" "))).args(["bash", MCPSUP]);
        shell.env("LISTEN_FDS", passed.len().to_string()).env("LISTEN_FDNAMES", names.join(":"));
        host.spawn_by(shell);
    }
}

impl Heard {
    fn take(&mut self, text: String, descriptor: Option<OwnedFd>) {
        let name = text.lines().find_map(|line| line.strip_prefix("FDNAME=")).map(str::to_owned);
        match (name, descriptor) {
            (Some(name), Some(descriptor)) if text.starts_with("FDSTORE=1\n") => {
                self.store.insert(name, descriptor);
            }
            (Some(name), None) if text.starts_with("FDSTOREREMOVE=1\n") => {
                // It takes its time: the descriptor is open a while longer.
                self.store.remove(&name).into_iter().for_each(std::mem::forget);
            }
            _ => {}
        }
        self.said.push(text);
    }
}

fn next(socket: &UnixDatagram) -> Option<(String, Option<OwnedFd>)> {
    let mut bytes = [0; 4096];
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received =
        recvmsg(socket, &mut [IoSliceMut::new(&mut bytes)], &mut ancillary, RecvFlags::CMSG_CLOEXEC).ok()?;
    let descriptor = ancillary.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    Some((String::from_utf8_lossy(&bytes[..received.bytes]).into_owned(), descriptor))
}

/// Somebody else who wants to listen there.
fn listens(port: u16) -> bool {
    mcpsup::system::socket::listen([127, 0, 0, 1].into(), port).is_ok()
}

#[test]
fn a_service_manager_hears_when_the_daemon_is_ready_how_its_servers_are_and_that_it_ends() {
    let mut host = Host::with_notes();
    let manager = Manager::of(&mut host);
    host.env.push(("WATCHDOG_USEC".into(), "200000".into()));
    host.save("alice", "NOTES_TOKEN=alices-own-token\n");

    host.spawn();
    host.until("it is told", || manager.has_heard("READY=1"));
    // Who was told may ask.
    assert!(host.cli(&["status"]).status.success());
    host.until("how it is, is told", || manager.has_heard("STATUS=1 up"));
    host.until("the loop turns, which is told", || manager.has_heard("WATCHDOG=1"));

    host.save("bob", "NOTES_TOKEN=bobs-own-token\n");
    host.signal_daemon(Signal::SIGHUP);
    host.until("it reads again, which is told", || {
        manager.has_heard("RELOADING=1") && manager.has_heard("MONOTONIC_USEC=")
    });
    host.until("how it is now, is told", || manager.has_heard("STATUS=2 up"));

    let toml = host.path().join("mcpsup.toml");
    let right = std::fs::read_to_string(&toml).unwrap();
    write(&toml, "nonsense", 0o600);
    host.signal_daemon(Signal::SIGHUP);
    let refused = "2 up; mcpsup.toml is refused, mcpsup check says why";
    host.until("it is told that it is broken", || manager.status() == refused);
    write(&toml, &right, 0o600);
    host.signal_daemon(Signal::SIGHUP);
    host.until("it is told that it no longer is", || manager.status() == "2 up");
    assert!(!manager.has_heard("STOPPING=1"));

    host.stop();
    host.until("its end is told", || manager.has_heard("STOPPING=1"));
}

#[test]
fn a_door_is_open_while_there_is_no_daemon_and_the_next_one_answers_who_came() {
    let mut host = Host::with_notes();
    let manager = Manager::of(&mut host);
    host.save("alice", "NOTES_TOKEN=alices-own-token\n");
    host.start();
    let port = host.until_state("alice", StateName::Up).port.unwrap();
    host.until("the door is kept", || manager.names() == [format!("alice/notes@{port}")]);

    host.kill_daemon();
    let mut client = TcpStream::connect(("127.0.0.1", port)).unwrap();
    client.set_read_timeout(Some(LIMIT)).unwrap();
    client.write_all(b"GET /mcp HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n").unwrap();
    assert!(!listens(port), "somebody else can have her port");
    manager.start(&mut host);

    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
    host.until_state("alice", StateName::Up);
    assert_eq!(host.instance("alice").port, Some(port));
    host.call("alice", "whoami", "{}").unwrap();
    assert!(!host.log().contains("kept socket closed"), "{}", host.log());
}

#[test]
fn a_port_that_is_a_users_no_more_is_free_whoever_still_has_its_socket() {
    let mut host = Host::with_notes();
    let manager = Manager::of(&mut host);
    host.save("alice", "NOTES_TOKEN=alices-own-token\n");
    host.start();
    let port = host.until_state("alice", StateName::Up).port.unwrap();
    host.until("the door is kept", || !manager.names().is_empty());

    host.ok(&["remove", "--yes", "alice"]);

    host.until("it is let go of", || manager.names().is_empty());
    assert!(listens(port));
}

#[test]
fn what_is_given_back_and_is_no_door_any_more_is_closed_and_named() {
    let mut host = Host::with_notes();
    let manager = Manager::of(&mut host);
    host.save("alice", "NOTES_TOKEN=alices-own-token\n");
    host.save("bob", "NOTES_TOKEN=bobs-own-token\n");
    host.start();
    host.until_all_up(2);
    let [alice, bob] = ["alice", "bob"].map(|user| host.instance(user).port.unwrap());
    host.until("the doors are kept", || manager.names().len() == 2);
    host.kill_daemon();
    // Nobody's socket, nobody's listener, and a port that its user does not want any more.
    let stranger = TcpListener::bind("127.0.0.1:0").unwrap();
    let strangers = stranger.local_addr().unwrap().port();
    let pair = UnixDatagram::unbound().unwrap();
    manager.heard.lock().unwrap().store.extend([
        ("zoe/notes@1".to_owned(), OwnedFd::from(stranger)),
        ("no/door".to_owned(), OwnedFd::from(pair)),
    ]);
    let moved = bob + 50;
    host.save("bob", &format!("NOTES_TOKEN=bobs-own-token\nNOTES_PORT={moved}\n"));

    manager.start(&mut host);

    let mut names = vec![format!("alice/notes@{alice}"), format!("bob/notes@{moved}")];
    names.sort();
    host.until("only doors are kept", || manager.names() == names);
    host.until_state("alice", StateName::Up);
    assert!(listens(bob) && listens(strangers));
    for name in ["zoe/notes@1", "no/door"] {
        let is_named =
            |line: &str| line.contains("kept socket closed") && line.contains(&format!("name={name:?}"));
        host.until("it is named", || host.log().lines().any(is_named));
    }
}

#[test]
fn without_a_service_manager_status_says_that_ports_are_nobodys_meanwhile() {
    let mut host = Host::with_notes();
    host.start();
    let told = host.status().notes;
    assert!(told.iter().any(|note| note.contains("users' ports are nobody's")), "{told:?}");
}
