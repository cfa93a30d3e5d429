//! Who comes in: by whose socket it is, by a token, or not at all.

use super::*;
use crate::door::lobby::MOST_OF_ONE;
use crate::logic::token::{LIFE, Token};
use crate::model::config::Access;
use crate::system::{account, clock};

/// Somebody who is not us, and not root.
fn somebody() -> u32 {
    account::own_uid() + 4711
}

fn guarded(world: &World, access: Access, owner: u32) -> Token {
    let token = Token::new(&[7; 32]);
    let guard = Guard { access, owner: Some(owner), admits_root: false };
    world.door.guard(Gate { guard, token: Some(token.clone()) });
    token
}

/// For us, whoever runs the tests: an owner, or root where root is let in.
fn ours(world: &World) {
    let guard = Guard { access: Access::Owner, owner: Some(account::own_uid()), admits_root: true };
    world.door.guard(Gate { guard, token: None });
}

fn get(authorization: &str) -> String {
    format!("GET /mcp HTTP/1.1\r\nhost: localhost\r\n{authorization}\r\n")
}

async fn asked(world: &World, request: &str) -> (String, String) {
    Line::to(world).await.ask(request).await
}

#[tokio::test]
async fn a_door_that_nobody_has_guarded_yet_lets_nobody_in() {
    let process = process(OK).await;
    let world = world(settings(), ready(1, process.addr));
    world.door.guard(Gate::default());
    assert!(asked(&world, GET).await.0.contains(" 401 "));
    assert_eq!(process.connections.load(SeqCst), 0);
}

#[tokio::test]
async fn the_owners_connection_needs_no_token_and_a_strangers_is_closed_unheard() {
    let process = process(OK).await;
    let world = world(settings(), ready(1, process.addr));
    ours(&world);
    assert!(asked(&world, GET).await.0.contains(" 200 "));
    let before = process.connections.load(SeqCst);

    guarded(&world, Access::Owner, somebody());
    let mut stranger = Line::to(&world).await;
    let (head, body) = stranger.ask(GET).await;
    assert!(head.contains(" 403 ") && !head.contains("www-authenticate"), "{head}");
    assert!(body.contains("this door is alice's: this connection is not theirs"), "{body}");
    stranger.ends().await;
    assert_eq!(process.connections.load(SeqCst), before);
}

#[tokio::test]
async fn who_may_come_in_is_asked_again_with_every_request() {
    let process = process(OK).await;
    let world = world(settings(), ready(1, process.addr));
    ours(&world);
    let mut client = Line::to(&world).await;
    assert!(client.ask(GET).await.0.contains(" 200 "));
    guarded(&world, Access::Owner, somebody());
    assert!(client.ask(GET).await.0.contains(" 403 "));
    client.ends().await;
}

#[tokio::test]
async fn a_token_opens_the_door_to_whoever_bears_it() {
    let mut process = process(OK).await;
    let world = world(settings(), ready(1, process.addr));
    let now = clock::unix_seconds();
    for access in [Access::Owner, Access::Token] {
        let token = guarded(&world, access, somebody());
        let (alice, notes) = ("alice".parse().unwrap(), "notes".parse().unwrap());
        let short = token.short(&alice, Some(&notes), now);
        for right in [token.text().reveal(), short.reveal()] {
            for scheme in ["Bearer", "bearer"] {
                let (head, _) = asked(&world, &get(&format!("authorization: {scheme} {right}\r\n"))).await;
                assert!(head.contains(" 200 "), "{head}");
                assert!(!process.asked.recv().await.unwrap().contains(right), "it is for the door alone");
            }
        }
        let before = process.connections.load(SeqCst);
        let text = token.text().reveal();
        let expired = token.short(&alice, None, now - LIFE);
        let bobs = token.short(&"bob".parse().unwrap(), None, now);
        let another = token.short(&alice, Some(&"mail".parse().unwrap()), now);
        for (what, header, says) in [
            ("wrong", "authorization: Bearer mcpsup_x\r\n".to_owned(), "invalid_token"),
            ("another scheme", format!("authorization: Basic {text}\r\n"), ""),
            ("a part of it", format!("authorization: Bearer {}\r\n", &text[..40]), "invalid_token"),
            (
                "twice",
                format!("authorization: Bearer {text}\r\nauthorization: Bearer {text}\r\n"),
                "invalid_token",
            ),
            ("expired", format!("authorization: Bearer {}\r\n", expired.reveal()), "has expired"),
            ("another user's", format!("authorization: Bearer {}\r\n", bobs.reveal()), "invalid_token"),
            ("another server's", format!("authorization: Bearer {}\r\n", another.reveal()), "invalid_token"),
        ] {
            let (head, body) = asked(&world, &get(&header)).await;
            let is_plain_stranger = access == Access::Owner && says.is_empty();
            let status = if is_plain_stranger { " 403 " } else { " 401 " };
            assert!(head.contains(status) && head.contains("connection: close"), "{what}: {head}");
            assert!(is_plain_stranger || head.contains("www-authenticate: bearer realm"), "{what}: {head}");
            assert!(head.contains(says), "{what}: {head}");
            assert!(!body.contains(text), "{what}: {body}");
        }
        assert_eq!(process.connections.load(SeqCst), before);
    }
}

#[tokio::test]
async fn a_door_that_takes_tokens_takes_nobodys_word_for_it() {
    let process = process(OK).await;
    let world = world(settings(), ready(1, process.addr));
    guarded(&world, Access::Token, account::own_uid());
    let (head, _) = asked(&world, GET).await;
    assert!(
        head.contains(" 401 ") && head.contains("www-authenticate: bearer realm=\"mcpsup\"\r\n"),
        "{head}"
    );
}

#[tokio::test]
async fn what_was_sent_before_its_sender_hung_up_is_nobodys() {
    let process = process(OK).await;
    let world = world(settings(), ready(1, process.addr));
    ours(&world);
    // The door's task has no turn before both of these have gone.
    for is_reset in [false, true] {
        let mut client = std::net::TcpStream::connect(world.door.addr()).unwrap();
        std::io::Write::write_all(&mut client, GET.as_bytes()).unwrap();
        client.set_nonblocking(true).unwrap();
        let client = TcpStream::from_std(client).unwrap();
        if is_reset {
            client.set_zero_linger().unwrap();
        }
    }
    // Whoever comes after them is served, so they have been looked at.
    assert!(asked(&world, GET).await.0.contains(" 200 "));
    assert!(asked(&world, GET).await.0.contains(" 200 "));
    assert_eq!(process.connections.load(SeqCst), 2);
}

#[tokio::test]
async fn strangers_cannot_fill_a_door_and_keep_its_owner_out() {
    let process = process(OK).await;
    let world = world(settings(), ready(1, process.addr));
    guarded(&world, Access::Owner, somebody());
    let mut strangers = Vec::new();
    for _ in 0..4 {
        strangers.push(Line::to(&world).await);
    }
    // Half of the eight; one more takes the place of who has shown nothing for longest.
    strangers.push(Line::to(&world).await);
    strangers.remove(0).ends().await;
    ours(&world);
    for _ in 0..4 {
        let mut owner = Line::to(&world).await;
        assert!(owner.ask(GET).await.0.contains(" 200 "));
        strangers.push(owner);
    }
    assert!(Line::to(&world).await.message().await.unwrap().0.contains(" 503 "), "and eight are all");
}

#[tokio::test]
async fn however_many_show_nothing_who_shows_a_token_is_served_and_stays() {
    let process = process(OK).await;
    for access in [Access::Owner, Access::Token] {
        let world = world(config::Door { max_connections: 1000, ..settings() }, ready(1, process.addr));
        let token = guarded(&world, access, somebody());
        let right = get(&format!("authorization: Bearer {}\r\n", token.text().reveal()));
        let mut first = Line::to(&world).await;
        assert!(first.ask(&right).await.0.contains(" 200 "));
        let mut silent = Vec::new();
        for _ in 0..MOST_OF_ONE {
            silent.push(Line::to(&world).await);
        }
        for _ in 0..200 {
            silent.push(Line::to(&world).await);
            silent.remove(0).ends().await;
            assert!(silent.len() == MOST_OF_ONE);
        }
        let mut another = Line::to(&world).await;
        assert!(another.ask(&right).await.0.contains(" 200 "));
        silent.remove(0).ends().await;
        assert!(silent[0].ask(&right).await.0.contains(" 200 "), "nobody else had to go");
        assert!(another.ask(&right).await.0.contains(" 200 "));
        assert!(first.ask(&right).await.0.contains(" 200 "));
    }
}

#[tokio::test]
async fn those_who_show_nothing_fill_no_door_that_takes_tokens() {
    let process = process(OK).await;
    let world = world(settings(), ready(1, process.addr));
    let token = guarded(&world, Access::Token, somebody());
    let right = get(&format!("authorization: Bearer {}\r\n", token.text().reveal()));
    let mut served = Vec::new();
    for _ in 0..4 {
        served.push(Line::to(&world).await);
        assert!(served.last_mut().unwrap().ask(&right).await.0.contains(" 200 "));
    }
    let mut silent = Vec::new();
    for _ in 0..30 {
        silent.push(Line::to(&world).await);
    }
    for mut one in silent.drain(..26) {
        one.ends().await;
    }
    for line in served.iter_mut().chain(&mut silent) {
        assert!(line.ask(&right).await.0.contains(" 200 "));
    }
}

#[tokio::test]
async fn a_renewed_token_ends_what_the_one_before_began() {
    const STREAM: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\ndata: 1\n\n";
    let process = process(STREAM).await;
    let world = world(settings(), ready(1, process.addr));
    let token = guarded(&world, Access::Token, somebody());
    let right = get(&format!("authorization: Bearer {}\r\n", token.text().reveal()));
    let mut line = Line::to(&world).await;
    line.say(&right).await;
    assert!(line.until("data: 1\n\n").await.is_some());
    let guard = Guard { access: Access::Token, owner: Some(somebody()), admits_root: false };
    world.door.guard(Gate { guard, token: Some(token) });
    world.door.guard(Gate { guard, token: Some(Token::new(&[8; 32])) });
    line.ends().await;
    assert!(asked(&world, &right).await.0.contains(" 401 "));
}

#[tokio::test]
async fn a_client_that_has_left_is_seen_though_it_said_something_behind_its_request() {
    const STREAM: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\ndata: 1\n\n";
    let process = process(STREAM).await;
    for (more, is_reset) in [("x", false), ("x", true), ("", false), ("xy\r\n", false)] {
        let world = world(config::Door { max_connections: 1, ..settings() }, ready(1, process.addr));
        let mut line = Line::to(&world).await;
        line.say(&format!("{GET}{more}")).await;
        assert!(line.until("data: 1\n\n").await.is_some());
        if is_reset {
            line.stream.set_zero_linger().unwrap();
        }
        drop(line);
        // There is room for one only, so whoever is served came when it was gone.
        let next = async {
            loop {
                let mut next = Line::to(&world).await;
                next.say(GET).await;
                if next.until("\r\n\r\n").await.is_some_and(|head| head.contains(" 200 ")) {
                    return;
                }
            }
        };
        timeout(LIMIT, next).await.expect("the place to be free");
    }
    // Nobody answers what is said behind a request that has no end.
    let world = world(settings(), ready(1, process.addr));
    let mut line = Line::to(&world).await;
    line.say(&format!("{GET}x")).await;
    assert!(line.until("data: 1\n\n").await.is_some());
    line.say(GET).await;
    line.ends().await;
}

#[tokio::test]
async fn a_socket_beside_the_port_asks_the_same() {
    let process = process(OK).await;
    let mut world = world(settings(), ready(1, process.addr));
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("doors/alice/notes.sock");
    let listener = socket::listen_at(&path, account::own_uid()).unwrap();
    world.door.listen_beside(Some(world.hub.add(listener).unwrap()));
    let ask = async || {
        let mut stream = tokio::net::UnixStream::connect(&path).await.unwrap();
        stream.write_all(GET.replace("\r\n\r\n", "\r\nconnection: close\r\n\r\n").as_bytes()).await.unwrap();
        let mut answer = String::new();
        timeout(LIMIT, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
        answer
    };
    ours(&world);
    assert!(ask().await.contains(" 200 "));
    guarded(&world, Access::Owner, somebody());
    assert!(ask().await.contains(" 403 "));
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    world.door.listen_beside(None);
    tokio::task::yield_now().await;
    assert!(tokio::net::UnixStream::connect(&path).await.is_err());
}
