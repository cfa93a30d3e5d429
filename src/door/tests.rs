//! Doors with small processes behind them. The processes are tasks of this test, so "the run's own
//! socket" is a matter of its inode alone.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::*;
use crate::system::socket;

const LIMIT: Duration = Duration::from_secs(20);
const GET: &str = "GET /mcp HTTP/1.1\r\nhost: localhost:3456\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

struct World {
    door: Door,
    route: watch::Sender<Route>,
    settings: watch::Sender<Arc<Settings>>,
}

fn limits() -> config::Door {
    config::Door {
        wait: LIMIT,
        max_body: 64 * 1024,
        max_connections: 8,
        head_timeout: LIMIT,
        hosts: Vec::new(),
    }
}

fn world(limits: config::Door, first: Route) -> World {
    let here = IpAddr::from([127, 0, 0, 1]);
    let (settings, seen) = watch::channel(Arc::new(Settings {
        limits,
        listen: here,
    }));
    let (route, led) = watch::channel(first);
    let instance = InstanceId {
        user: "alice".parse().unwrap(),
        server: "notes".parse().unwrap(),
    };
    let door = Door::open(socket::listen(here, 0).unwrap(), seen, instance, led).unwrap();
    World {
        door,
        route,
        settings,
    }
}

fn ready(run: u64, addr: SocketAddr) -> Route {
    let listener_inode = socket::listener_at(addr).unwrap().unwrap().inode;
    Route::Ready(Upstream {
        run: RunId(run),
        addr,
        listener_inode,
        recheck: None,
    })
}

/// One connection of a client or of a process, read message by message.
struct Line {
    stream: TcpStream,
    read: Vec<u8>,
}

impl Line {
    fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            read: Vec::new(),
        }
    }

    async fn to(world: &World) -> Self {
        Self::new(TcpStream::connect(world.door.addr()).await.unwrap())
    }

    async fn say(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).await.unwrap();
    }

    /// Everything up to and including `end`; `None` if the connection ends before.
    async fn until(&mut self, end: &str) -> Option<String> {
        loop {
            let at = self
                .read
                .windows(end.len())
                .position(|part| part == end.as_bytes());
            if let Some(at) = at {
                let rest = self.read.split_off(at + end.len());
                return String::from_utf8(std::mem::replace(&mut self.read, rest)).ok();
            }
            let read = timeout(LIMIT, self.stream.read_buf(&mut self.read))
                .await
                .expect("silence");
            if read.unwrap_or(0) == 0 {
                return None;
            }
        }
    }

    /// A message whose body is as long as its head says.
    async fn message(&mut self) -> Option<(String, String)> {
        let head = self.until("\r\n\r\n").await?.to_lowercase();
        let length = head
            .split("content-length: ")
            .nth(1)
            .map(|rest| rest.lines().next().unwrap());
        let length: usize = length.map_or(0, |length| length.parse().unwrap());
        while self.read.len() < length {
            let read = timeout(LIMIT, self.stream.read_buf(&mut self.read))
                .await
                .expect("silence");
            if read.unwrap_or(0) == 0 {
                return None;
            }
        }
        let rest = self.read.split_off(length);
        let body = String::from_utf8(std::mem::replace(&mut self.read, rest)).unwrap();
        Some((head, body))
    }

    async fn ask(&mut self, request: &str) -> (String, String) {
        self.say(request).await;
        self.message().await.expect("an answer")
    }

    /// Waits until the other side has hung up.
    async fn ends(&mut self) {
        let mut byte = [0; 1024];
        let end = async { while !matches!(self.stream.read(&mut byte).await, Ok(0) | Err(_)) {} };
        timeout(LIMIT, end).await.expect("the connection to end");
    }
}

/// A process that answers every request with the same text.
struct Process {
    addr: SocketAddr,
    asked: mpsc::UnboundedReceiver<String>,
    connections: Arc<AtomicUsize>,
}

async fn process(answer: &'static str) -> Process {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let (tell, asked) = mpsc::unbounded_channel();
    let connections = Arc::new(AtomicUsize::new(0));
    let count = connections.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            count.fetch_add(1, SeqCst);
            let tell = tell.clone();
            tokio::spawn(async move {
                let mut line = Line::new(stream);
                while let Some((head, body)) = line.message().await {
                    if tell.send(head + &body).is_err() || answer.is_empty() {
                        return;
                    }
                    line.say(answer).await;
                }
            });
        }
    });
    Process {
        addr,
        asked,
        connections,
    }
}

/// A door to a process whose connections the test serves by hand.
async fn by_hand(limits: config::Door) -> (World, TcpListener) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let world = world(limits, ready(1, listener.local_addr().unwrap()));
    (world, listener)
}

async fn accept(listener: &TcpListener) -> Line {
    Line::new(timeout(LIMIT, listener.accept()).await.unwrap().unwrap().0)
}

#[tokio::test]
async fn a_request_passes_without_what_is_not_the_processs_business() {
    let mut process = process(
        "HTTP/1.1 202 Accepted\r\nconnection: x-hop\r\nx-hop: 1\r\nkeep-alive: timeout=5\r\nmcp-session-id: s\r\ncontent-length: 2\r\n\r\nhi",
    )
    .await;
    let world = world(limits(), ready(1, process.addr));

    let (head, body) = Line::to(&world)
        .await
        .ask(
            "POST /any/path?q=1 HTTP/1.1\r\nhost: LOCALHOST\r\norigin: http://localhost:6274\r\nauthorization: Bearer x\r\n\
             proxy-authorization: x\r\nconnection: x-mine\r\nx-mine: 1\r\nte: trailers\r\nupgrade: websocket\r\n\
             mcp-method: tools/call\r\naccept-encoding: gzip\r\ncontent-length: 5\r\n\r\nhello",
        )
        .await;

    assert!(
        head.starts_with("http/1.1 202 ") && head.contains("mcp-session-id: s") && body == "hi",
        "{head}"
    );
    assert!(
        !head.contains("x-hop") && !head.contains("keep-alive"),
        "{head}"
    );
    let asked = process.asked.recv().await.unwrap();
    assert!(
        asked.starts_with("post /any/path?q=1 http/1.1\r\n") && asked.ends_with("hello"),
        "{asked}"
    );
    for part in [
        &format!("host: {}\r\n", process.addr),
        "mcp-method: tools/call",
        "accept-encoding: gzip",
        "origin: ",
    ] {
        assert!(asked.contains(part), "{part} in {asked}");
    }
    for part in [
        "bearer",
        "authorization",
        "x-mine",
        "connection",
        "upgrade",
        "te: ",
    ] {
        assert!(!asked.contains(part), "{part} in {asked}");
    }
}

#[tokio::test]
async fn each_event_of_a_stream_arrives_before_the_next_is_made() {
    let (world, listener) = by_hand(limits()).await;
    let mut client = Line::to(&world).await;
    client.say(GET).await;
    let mut process = accept(&listener).await;
    process.until("\r\n\r\n").await.unwrap();
    process.say("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n").await;
    client.until("\r\n\r\n").await.unwrap();

    for number in 1..=3 {
        process.say(&format!("9\r\ndata: {number}\n\n\r\n")).await;
        client.until(&format!("data: {number}\n\n")).await.unwrap();
    }
}

#[tokio::test]
async fn a_request_body_is_passed_on_while_it_comes() {
    let (world, listener) = by_hand(limits()).await;
    let mut client = Line::to(&world).await;
    client.say("POST /mcp HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n").await;
    let mut process = accept(&listener).await;

    process.until("one").await.unwrap();
    client.say("3\r\ntwo\r\n0\r\n\r\n").await;

    process.until("two").await.unwrap();
    process.say(OK).await;
    assert_eq!(client.message().await.unwrap().1, "ok");
}

#[tokio::test]
async fn foreign_names_are_refused_and_the_process_hears_nothing() {
    let process = process(OK).await;
    let world = world(limits(), ready(1, process.addr));

    for (request, status) in [
        ("GET / HTTP/1.1\r\nhost: evil.example\r\n\r\n", 403),
        (
            "GET / HTTP/1.1\r\nhost: localhost\r\norigin: http://evil.example\r\n\r\n",
            403,
        ),
        (
            "GET / HTTP/1.1\r\nhost: localhost\r\norigin: null\r\n\r\n",
            403,
        ),
        (
            "GET / HTTP/1.1\r\nhost: localhost\r\norigin: http://localhost\r\norigin: http://evil.example\r\n\r\n",
            403,
        ),
        (
            "GET http://evil.example/ HTTP/1.1\r\nhost: localhost\r\n\r\n",
            403,
        ),
        ("GET / HTTP/1.1\r\n\r\n", 400),
        ("GET / HTTP/1.0\r\n\r\n", 400),
        (
            "GET / HTTP/1.1\r\nhost: localhost\r\nhost: evil.example\r\n\r\n",
            400,
        ),
        (
            "CONNECT localhost:1 HTTP/1.1\r\nhost: localhost:1\r\n\r\n",
            400,
        ),
    ] {
        let (head, body) = Line::to(&world).await.ask(request).await;
        let status_line = format!(" {status} ");
        assert!(
            head.contains(&status_line) && head.contains("application/json"),
            "{request} {head}"
        );
        assert!(
            body.starts_with(r#"{"error":{"code":-32000,"message":"#)
                && body.contains(r#""id":null"#),
            "{body}"
        );
    }
    assert_eq!(process.connections.load(SeqCst), 0);
}

#[tokio::test]
async fn a_name_in_the_request_line_that_is_ours_becomes_a_plain_path() {
    let mut process = process(OK).await;
    let world = world(limits(), ready(1, process.addr));

    Line::to(&world)
        .await
        .ask("GET http://localhost:3456/mcp?x HTTP/1.1\r\nhost: localhost\r\n\r\n")
        .await;

    assert!(
        process
            .asked
            .recv()
            .await
            .unwrap()
            .starts_with("get /mcp?x http/1.1\r\n")
    );
}

#[tokio::test]
async fn an_endless_body_is_refused_at_the_limit() {
    let (world, listener) = by_hand(limits()).await;
    let mut client = Line::to(&world).await;
    client
        .say("POST /mcp HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n")
        .await;
    let (mut reading, mut writing) = client.stream.into_split();
    let chunk = format!("2000\r\n{}\r\n", "x".repeat(0x2000));
    let sender = tokio::spawn(async move {
        let mut sent = 0u64;
        while sent < 10 << 30 && writing.write_all(chunk.as_bytes()).await.is_ok() {
            sent += 0x2000;
        }
        sent
    });
    let mut process = accept(&listener).await;
    let mut arrived = Vec::new();
    timeout(LIMIT, process.stream.read_to_end(&mut arrived))
        .await
        .unwrap()
        .unwrap_or(0);

    let mut answer = vec![0; 12];
    timeout(LIMIT, reading.read_exact(&mut answer))
        .await
        .unwrap()
        .unwrap();
    drop((reading, process));

    assert_eq!(answer, b"HTTP/1.1 413");
    assert!(arrived.len() < 70 * 1024, "{}", arrived.len());
    assert!(timeout(LIMIT, sender).await.unwrap().unwrap() < 64 << 20);
}

#[tokio::test]
async fn a_body_that_says_it_is_too_large_is_refused_before_it_comes() {
    let process = process(OK).await;
    let world = world(limits(), ready(1, process.addr));

    let request = "POST /mcp HTTP/1.1\r\nhost: localhost\r\nexpect: 100-continue\r\ncontent-length: 10000000000\r\n\r\n";
    let mut client = Line::to(&world).await;
    let (head, _) = client.ask(request).await;

    assert!(
        head.starts_with("http/1.1 413 ") && head.contains("connection: close"),
        "{head}"
    );
    client.ends().await;
    assert_eq!(process.connections.load(SeqCst), 0);
}

#[tokio::test]
async fn a_body_that_stops_coming_is_given_up() {
    let (world, listener) = by_hand(config::Door {
        head_timeout: Duration::from_millis(100),
        ..limits()
    })
    .await;
    let mut client = Line::to(&world).await;
    client
        .say("POST /mcp HTTP/1.1\r\nhost: localhost\r\ncontent-length: 10\r\n\r\nhalf")
        .await;
    let mut process = accept(&listener).await;

    process.ends().await;

    assert!(
        client
            .message()
            .await
            .unwrap()
            .0
            .starts_with("http/1.1 408 ")
    );
}

#[tokio::test]
async fn expecting_clients_are_told_to_go_on_once_there_is_a_process() {
    let mut process = process(OK).await;
    let world = world(limits(), Route::Waiting);
    let mut client = Line::to(&world).await;
    client.say("POST /mcp HTTP/1.1\r\nhost: localhost\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n").await;
    world.route.send(ready(1, process.addr)).unwrap();

    assert_eq!(
        client.until("\r\n\r\n").await.unwrap(),
        "HTTP/1.1 100 Continue\r\n\r\n"
    );
    assert_eq!(client.ask("hello").await.1, "ok");
    assert!(!process.asked.recv().await.unwrap().contains("expect"));
}

#[tokio::test]
async fn a_request_waits_for_its_process() {
    let process = process(OK).await;
    let world = world(limits(), Route::Waiting);
    let mut client = Line::to(&world).await;
    client.say(GET).await;

    world.route.send(ready(1, process.addr)).unwrap();

    assert_eq!(client.message().await.unwrap().1, "ok");
}

#[tokio::test]
async fn a_request_waits_no_longer_than_it_may() {
    let world = world(
        config::Door {
            wait: Duration::from_millis(30),
            ..limits()
        },
        Route::Waiting,
    );

    let (head, body) = Line::to(&world).await.ask(GET).await;

    assert!(
        head.starts_with("http/1.1 503 ") && head.contains("retry-after: 5\r\n"),
        "{head}"
    );
    assert!(body.contains("not up yet"), "{body}");
}

#[tokio::test]
async fn a_closed_route_says_why_at_once() {
    let world = world(
        limits(),
        Route::Closed("alice's \"server\" is stopped".into()),
    );

    let (head, body) = Line::to(&world).await.ask(GET).await;

    assert!(
        head.starts_with("http/1.1 503 ") && head.contains("retry-after: "),
        "{head}"
    );
    assert!(body.contains(r#"alice's \"server\" is stopped"#), "{body}");
}

#[tokio::test]
async fn one_client_connection_uses_one_connection_to_the_process() {
    let process = process(OK).await;
    let world = world(limits(), ready(1, process.addr));
    let (mut one, mut other) = (Line::to(&world).await, Line::to(&world).await);

    for _ in 0..20 {
        assert_eq!(one.ask(GET).await.1, "ok");
        assert_eq!(other.ask(GET).await.1, "ok");
    }

    assert_eq!(process.connections.load(SeqCst), 2);
}

#[tokio::test]
async fn answers_without_a_body_leave_the_connection_usable() {
    let process = process("HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n").await;
    let world = world(limits(), ready(1, process.addr));
    let mut client = Line::to(&world).await;

    for _ in 0..3 {
        client
            .say("HEAD /mcp HTTP/1.1\r\nhost: localhost\r\n\r\n")
            .await;
        assert!(
            client
                .until("\r\n\r\n")
                .await
                .unwrap()
                .contains("content-length: 1000")
        );
    }

    assert_eq!(process.connections.load(SeqCst), 1);
}

#[tokio::test]
async fn the_next_request_goes_to_the_next_run() {
    let first = process("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\none").await;
    let second = process("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\ntwo").await;
    let world = world(limits(), ready(1, first.addr));
    let mut client = Line::to(&world).await;
    assert_eq!(client.ask(GET).await.1, "one");

    world.route.send(ready(2, second.addr)).unwrap();

    assert_eq!(client.ask(GET).await.1, "two");
}

#[tokio::test]
async fn a_process_that_closes_after_each_answer_costs_nothing_but_connections() {
    let process =
        process("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok").await;
    let world = world(limits(), ready(1, process.addr));
    let mut client = Line::to(&world).await;

    for _ in 0..5 {
        assert_eq!(client.ask(GET).await.1, "ok");
    }

    assert_eq!(process.connections.load(SeqCst), 5);
}

#[tokio::test]
async fn a_strangers_socket_gets_no_byte_and_no_connection() {
    let stranger = process(OK).await;
    let Route::Ready(upstream) = ready(1, stranger.addr) else {
        panic!()
    };
    let other = Upstream {
        listener_inode: upstream.listener_inode + 1,
        ..upstream
    };
    let world = world(limits(), Route::Ready(other));

    let (head, body) = Line::to(&world).await.ask(GET).await;

    assert!(head.starts_with("http/1.1 502 "), "{head}");
    assert!(
        body.contains("the process behind this port is not alice's"),
        "{body}"
    );
    assert_eq!(stranger.connections.load(SeqCst), 0);
}

#[tokio::test]
async fn a_stranger_who_listens_beside_the_process_is_found() {
    let shared = |addr: SocketAddr| {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_reuseport(true).unwrap();
        socket.bind(addr).unwrap();
        socket.listen(8).unwrap()
    };
    let own = shared(([127, 0, 0, 1], 0).into());
    let route = ready(1, own.local_addr().unwrap());
    let _stranger = shared(own.local_addr().unwrap());
    let world = world(limits(), route);

    let (head, _) = Line::to(&world).await.ask(GET).await;

    assert!(head.starts_with("http/1.1 502 "), "{head}");
}

#[tokio::test]
async fn a_listener_that_the_server_replaced_itself_is_asked_about_once() {
    let process = process(OK).await;
    let Route::Ready(upstream) = ready(1, process.addr) else {
        panic!()
    };
    let (inode, asked) = (upstream.listener_inode, Arc::new(AtomicUsize::new(0)));
    let count = asked.clone();
    let recheck: Recheck = Arc::new(move |found| {
        count.fetch_add(1, SeqCst);
        found == inode
    });
    let world = world(
        limits(),
        Route::Ready(Upstream {
            listener_inode: 1,
            recheck: Some(recheck),
            ..upstream
        }),
    );

    for _ in 0..3 {
        assert_eq!(Line::to(&world).await.ask(GET).await.1, "ok");
    }

    assert_eq!(
        (asked.load(SeqCst), process.connections.load(SeqCst)),
        (1, 3)
    );
}

#[tokio::test]
async fn a_request_that_may_have_been_seen_is_never_sent_again() {
    let mut first = process("").await;
    let second = process(OK).await;
    let world = world(limits(), ready(1, first.addr));
    let mut client = Line::to(&world).await;

    let (head, body) = client.ask(GET).await;
    world.route.send(ready(2, second.addr)).unwrap();

    assert!(
        head.starts_with("http/1.1 502 ") && body.contains("may have taken effect"),
        "{head}"
    );
    assert!(first.asked.recv().await.is_some());
    assert_eq!(second.connections.load(SeqCst), 0);
    assert_eq!(client.ask(GET).await.1, "ok");
}

#[tokio::test]
async fn a_request_that_meets_a_dead_process_waits_for_the_next() {
    let dead = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let world = world(limits(), ready(1, dead.local_addr().unwrap()));
    drop(dead);
    let mut client = Line::to(&world).await;
    client.say(GET).await;

    let next = process(OK).await;
    world.route.send(ready(2, next.addr)).unwrap();

    assert_eq!(client.message().await.unwrap().1, "ok");
}

#[tokio::test]
async fn an_answer_that_breaks_off_breaks_off_for_the_client() {
    let (world, listener) = by_hand(limits()).await;
    let mut client = Line::to(&world).await;
    client.say(GET).await;
    let mut process = accept(&listener).await;
    process.until("\r\n\r\n").await.unwrap();
    process
        .say("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n")
        .await;
    client.until("one").await.unwrap();

    drop(process);

    assert_eq!(client.until("0\r\n\r\n").await, None);
}

#[tokio::test]
async fn a_client_that_leaves_ends_its_call() {
    let (world, listener) = by_hand(limits()).await;
    for streaming in [false, true] {
        let mut client = Line::to(&world).await;
        client.say(GET).await;
        let mut process = accept(&listener).await;
        process.until("\r\n\r\n").await.unwrap();
        if streaming {
            process
                .say("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n")
                .await;
            client.until("one").await.unwrap();
        }

        drop(client);

        process.ends().await;
    }
}

#[tokio::test]
async fn a_client_that_says_nothing_or_too_little_is_shown_out() {
    let world = world(
        config::Door {
            head_timeout: Duration::from_millis(50),
            ..limits()
        },
        Route::Waiting,
    );

    for start in [
        "",
        "GET / HT",
        "GET / HTTP/1.1\r\nhost: localhost\r\nx-slow: ",
    ] {
        let mut client = Line::to(&world).await;
        client.say(start).await;
        client.ends().await;
    }
}

#[tokio::test]
async fn garbage_is_answered_and_harms_nobody() {
    let process = process(OK).await;
    let world = world(limits(), ready(1, process.addr));
    let mut honest = Line::to(&world).await;
    assert_eq!(honest.ask(GET).await.1, "ok");
    let large = format!(
        "GET / HTTP/1.1\r\nhost: localhost\r\nx: {}\r\n\r\n",
        "x".repeat(100_000)
    );
    let many = format!(
        "GET / HTTP/1.1\r\nhost: localhost\r\n{}\r\n",
        "x: y\r\n".repeat(1000)
    );

    for (garbage, status) in [
        ("\x16\x03\x01\x02\x00\x01\r\n\r\n", "400"),
        (
            "GET / HTTP/1.1\r\nhost: localhost\r\nno colon here\r\n\r\n",
            "400",
        ),
        (
            "GET / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
            "400",
        ),
        (
            "GET / HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: gzip\r\n\r\n",
            "400",
        ),
        (&large, "431"),
        (&many, "431"),
    ] {
        let mut client = Line::to(&world).await;
        client.stream.write_all(garbage.as_bytes()).await.unwrap();
        let head = client.until("\r\n").await.unwrap_or_default();
        assert!(
            head.starts_with(&format!("HTTP/1.1 {status} ")),
            "{head} for {garbage:.40}"
        );
    }

    assert_eq!(honest.ask(GET).await.1, "ok");
}

#[tokio::test]
async fn a_connection_too_many_is_told_so_and_the_rest_go_on() {
    let process = process(OK).await;
    let world = world(
        config::Door {
            max_connections: 2,
            ..limits()
        },
        ready(1, process.addr),
    );
    let (mut one, mut two) = (Line::to(&world).await, Line::to(&world).await);
    assert_eq!(one.ask(GET).await.1, "ok");
    assert_eq!(two.ask(GET).await.1, "ok");

    let (head, body) = Line::to(&world).await.ask(GET).await;

    assert!(
        head.starts_with("http/1.1 503 ") && body.contains("too many connections"),
        "{head}"
    );
    assert_eq!(one.ask(GET).await.1, "ok");
    drop(two);
    // The place is free as soon as the door has seen that the other one left.
    let next = async {
        loop {
            if Line::to(&world).await.ask(GET).await.1 == "ok" {
                return;
            }
        }
    };
    timeout(LIMIT, next).await.unwrap();
}

#[tokio::test]
async fn a_dropped_door_is_closed_with_all_its_connections() {
    let (world, listener) = by_hand(limits()).await;
    let addr = world.door.addr();
    let mut client = Line::to(&world).await;
    client.say(GET).await;
    let mut process = accept(&listener).await;

    drop(world);

    client.ends().await;
    process.ends().await;
    assert_eq!(socket::listener_at(addr).unwrap(), None);
}

#[tokio::test]
async fn a_process_may_answer_before_it_has_read_everything() {
    let (world, listener) = by_hand(limits()).await;
    let mut client = Line::to(&world).await;
    client
        .say("POST /mcp HTTP/1.1\r\nhost: localhost\r\ncontent-length: 10\r\n\r\nhalf")
        .await;
    let mut process = accept(&listener).await;
    process.until("half").await.unwrap();

    process
        .say("HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n")
        .await;

    assert!(
        client
            .message()
            .await
            .unwrap()
            .0
            .starts_with("http/1.1 401 ")
    );
    client.ends().await;
    process.ends().await;
}

#[tokio::test]
async fn settings_hold_for_connections_that_come_after_them() {
    let process = process(OK).await;
    let world = world(limits(), ready(1, process.addr));
    let hosts = vec!["mcp.example.org".to_owned()];
    let changed = config::Door { hosts, ..limits() };
    let listen = IpAddr::from([127, 0, 0, 1]);
    world
        .settings
        .send(Arc::new(Settings {
            limits: changed,
            listen,
        }))
        .unwrap();

    let request =
        "GET / HTTP/1.1\r\nhost: mcp.example.org\r\norigin: https://mcp.example.org\r\n\r\n";
    assert_eq!(Line::to(&world).await.ask(request).await.1, "ok");
}

#[tokio::test]
async fn requests_that_wait_for_an_instance_that_is_removed_are_answered() {
    let World {
        door,
        route,
        settings: _settings,
    } = world(limits(), Route::Waiting);
    let mut client = Line::new(TcpStream::connect(door.addr()).await.unwrap());
    client.say(GET).await;

    drop(route);

    assert!(
        client
            .message()
            .await
            .unwrap()
            .0
            .starts_with("http/1.1 503 ")
    );
}
