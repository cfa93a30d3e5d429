//! Processes that come, go, and are not who they seem.

use super::*;

#[tokio::test]
async fn expecting_clients_are_told_to_go_on_once_there_is_a_process() {
    let mut process = process(OK).await;
    let world = world(settings(), Route::Waiting);
    let mut client = Line::to(&world).await;
    client
        .say("POST /mcp HTTP/1.1\r\nhost: localhost\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n")
        .await;
    world.route.point(ready(1, process.addr));

    assert_eq!(client.until("\r\n\r\n").await.unwrap(), "HTTP/1.1 100 Continue\r\n\r\n");
    assert_eq!(client.ask("hello").await.1, "ok");
    assert!(!process.asked.recv().await.unwrap().contains("expect"));
}

#[tokio::test]
async fn a_request_waits_for_its_process() {
    let process = process(OK).await;
    let world = world(settings(), Route::Waiting);
    let mut client = Line::to(&world).await;
    client.say(GET).await;

    world.route.point(ready(1, process.addr));

    assert_eq!(client.message().await.unwrap().1, "ok");
}

#[tokio::test]
async fn a_request_waits_no_longer_than_it_may() {
    let world = world(config::Door { wait: Duration::from_millis(30), ..settings() }, Route::Waiting);

    let (head, body) = Line::to(&world).await.ask(GET).await;

    assert!(head.starts_with("http/1.1 503 ") && head.contains("retry-after: 5\r\n"), "{head}");
    assert!(body.contains("not up yet"), "{body}");
}

#[tokio::test]
async fn a_closed_route_says_why_at_once() {
    let world = world(settings(), Route::Closed("alice's \"server\" is stopped".into()));

    let (head, body) = Line::to(&world).await.ask(GET).await;

    assert!(head.starts_with("http/1.1 503 ") && head.contains("retry-after: "), "{head}");
    assert!(body.contains(r#"alice's \"server\" is stopped"#), "{body}");
}

#[tokio::test]
async fn the_next_request_goes_to_the_next_run() {
    let first = process("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\none").await;
    let second = process("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\ntwo").await;
    let world = world(settings(), ready(1, first.addr));
    let mut client = Line::to(&world).await;
    assert_eq!(client.ask(GET).await.1, "one");

    world.route.point(ready(2, second.addr));

    assert_eq!(client.ask(GET).await.1, "two");
}

#[tokio::test]
async fn a_process_that_is_to_end_is_not_held_up_by_an_idle_client() {
    let (world, listener) = by_hand(settings()).await;
    let mut client = Line::to(&world).await;
    client.say(GET).await;
    let mut process = accept(&listener).await;
    process.until("\r\n\r\n").await.unwrap();
    process.say(OK).await;
    assert_eq!(client.message().await.unwrap().1, "ok");

    world.route.point(Route::Waiting);

    process.ends().await;
}

#[tokio::test]
async fn a_call_in_progress_may_end_while_its_process_is_being_replaced() {
    let (world, listener) = by_hand(settings()).await;
    let mut client = Line::to(&world).await;
    client.say(GET).await;
    let mut process = accept(&listener).await;
    process.until("\r\n\r\n").await.unwrap();

    world.route.point(Route::Waiting);
    process.say(OK).await;

    assert_eq!(client.message().await.unwrap().1, "ok");
}

#[tokio::test]
async fn a_strangers_socket_gets_no_byte_and_no_connection() {
    let stranger = process(OK).await;
    let Route::Ready(upstream) = ready(1, stranger.addr) else { panic!() };
    let other = Upstream { listener_inode: upstream.listener_inode + 1, ..upstream };
    let world = world(settings(), Route::Ready(other));

    let (head, body) = Line::to(&world).await.ask(GET).await;

    assert!(head.starts_with("http/1.1 502 "), "{head}");
    assert!(body.contains("the process behind this port is not alice's"), "{body}");
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
    let world = world(settings(), route);

    let (head, _) = Line::to(&world).await.ask(GET).await;

    assert!(head.starts_with("http/1.1 502 "), "{head}");
}

#[tokio::test]
async fn a_listener_that_the_server_replaced_itself_is_asked_about_once() {
    let process = process(OK).await;
    let Route::Ready(upstream) = ready(1, process.addr) else { panic!() };
    let (inode, asked) = (upstream.listener_inode, Arc::new(AtomicUsize::new(0)));
    let count = asked.clone();
    let recheck: Recheck = Arc::new(move |found: Held| {
        count.fetch_add(1, SeqCst);
        found == Held::Inode(inode)
    });
    let world =
        world(settings(), Route::Ready(Upstream { listener_inode: 1, recheck: Some(recheck), ..upstream }));

    for _ in 0..3 {
        assert_eq!(Line::to(&world).await.ask(GET).await.1, "ok");
    }

    assert_eq!((asked.load(SeqCst), process.connections.load(SeqCst)), (1, 3));
}

#[tokio::test]
async fn a_request_that_may_have_been_seen_is_never_sent_again() {
    let mut first = process("").await;
    let second = process(OK).await;
    let world = world(settings(), ready(1, first.addr));
    let mut client = Line::to(&world).await;

    let (head, body) = client.ask(GET).await;
    world.route.point(ready(2, second.addr));

    assert!(head.starts_with("http/1.1 502 ") && body.contains("may have taken effect"), "{head}");
    assert!(first.asked.recv().await.is_some());
    assert_eq!(second.connections.load(SeqCst), 0);
    assert_eq!(client.ask(GET).await.1, "ok");
}

#[tokio::test]
async fn a_request_that_meets_a_dead_process_waits_for_the_next() {
    let dead = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let world = world(settings(), ready(1, dead.local_addr().unwrap()));
    drop(dead);
    let mut client = Line::to(&world).await;
    client.say(GET).await;

    let next = process(OK).await;
    world.route.point(ready(2, next.addr));

    assert_eq!(client.message().await.unwrap().1, "ok");
}

#[tokio::test]
async fn requests_that_wait_for_an_instance_that_is_removed_are_answered() {
    let World { door, route, settings: _settings, hub: _hub } = world(settings(), Route::Waiting);
    let mut client = Line::new(TcpStream::connect(door.addr()).await.unwrap());
    client.say(GET).await;

    drop(route);

    assert!(client.message().await.unwrap().0.starts_with("http/1.1 503 "));
}

#[tokio::test]
async fn a_process_that_hangs_up_on_everybody_does_not_keep_the_door_busy() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let limits = config::Door { wait: Duration::from_millis(300), ..settings() };
    let world = world(limits, ready(1, listener.local_addr().unwrap()));
    let tries = Arc::new(AtomicUsize::new(0));
    let count = tries.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            count.fetch_add(1, SeqCst);
            drop(stream);
        }
    });

    let (head, _) = Line::to(&world).await.ask(GET).await;

    assert!(head.contains(" 502 ") || head.contains(" 503 "), "{head}");
    assert!(tries.load(SeqCst) < 10);
}
