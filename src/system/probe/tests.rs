//! Servers of every kind, as small as they can be.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;

const LIMIT: Duration = Duration::from_secs(10);

fn us() -> Vec<i32> {
    vec![i32::try_from(std::process::id()).unwrap()]
}

/// Reads one request, head and body by its Content-Length.
async fn read_request(stream: &mut TcpStream) -> Option<String> {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes).to_lowercase();
        if let Some(end) = text.find("\r\n\r\n") {
            let length = text.split("content-length: ").nth(1).and_then(|rest| rest.split("\r\n").next());
            let length: usize = length.map_or(0, |length| length.parse().unwrap());
            if bytes.len() >= end + 4 + length {
                return Some(String::from_utf8(bytes).unwrap());
            }
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
}

/// What was asked of a server.
type Asked = Arc<Mutex<Vec<String>>>;

/// Answers every request on `listener` with what `answer` makes of it.
fn serve(
    listener: TcpListener,
    answer: impl Fn(&str) -> String + Send + Sync + 'static,
) -> (SocketAddr, Asked) {
    let addr = listener.local_addr().unwrap();
    let asked = Asked::default();
    let (log, answer) = (asked.clone(), Arc::new(answer));
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let (log, answer) = (log.clone(), answer.clone());
            tokio::spawn(async move {
                while let Some(request) = read_request(&mut stream).await {
                    let text = answer(&request);
                    log.lock().unwrap().push(request);
                    if text.is_empty() || stream.write_all(text.as_bytes()).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    (addr, asked)
}

async fn server(answer: impl Fn(&str) -> String + Send + Sync + 'static) -> (SocketAddr, Asked) {
    serve(TcpListener::bind("127.0.0.1:0").await.unwrap(), answer)
}

fn reply(status: &str, kind: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: {kind}\r\nmcp-session-id: s1\r\ncontent-length: {length}\r\n\r\n{body}"
    )
}

const RESULT: &str = r#"{"jsonrpc":"2.0","id":1,"result":{"x":1}}"#;
const UNKNOWN: &str = r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32601,"message":"secret text"}}"#;

async fn mcp(addr: SocketAddr) -> Result<(), NotReady> {
    try_once(&Probe::Mcp, &Address::Tcp(addr), "/mcp", LIMIT).await
}

#[tokio::test]
async fn a_modern_server_is_ready_after_one_question() {
    let (addr, asked) = server(|_| reply("200 OK", "application/json", RESULT)).await;

    assert_eq!(mcp(addr).await, Ok(()));

    let asked = asked.lock().unwrap();
    assert_eq!(asked.len(), 1);
    for part in ["POST /mcp ", "mcp-protocol-version: 2026-07-28", "mcp-method: server/discover", "_meta"] {
        assert!(asked[0].contains(part), "{part} in {}", asked[0]);
    }
}

#[tokio::test]
async fn an_older_server_is_ready_after_initialize_and_keeps_no_session() {
    let (addr, asked) = server(|request| {
        if request.contains("\"initialize\"") {
            let stream = format!(
                ": hi\n\nevent: message\ndata: {{\"jsonrpc\":\"2.0\",\"method\":\"notifications/x\"}}\n\ndata: {RESULT}\n\n"
            );
            // No length and no end: a stream that stays open.
            format!("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\nmcp-session-id: s1\r\n\r\n{stream}")
        } else if request.starts_with("DELETE") {
            reply("200 OK", "text/plain", "")
        } else {
            reply("400 Bad Request", "application/json", UNKNOWN)
        }
    })
    .await;

    assert_eq!(mcp(addr).await, Ok(()));

    let asked = asked.lock().unwrap();
    assert_eq!(asked.len(), 3);
    assert!(asked[1].contains("accept: application/json, text/event-stream"));
    assert!(asked[2].starts_with("DELETE /mcp") && asked[2].contains("mcp-session-id: s1"));
}

#[tokio::test]
async fn what_is_not_mcp_is_not_ready_and_its_words_are_not_repeated() {
    for (answer, why) in [
        (
            reply("200 OK", "text/html", "<h1>secret</h1>"),
            "its answer is not MCP; is [server.NAME] path right?",
        ),
        (reply("500 Oh", "text/plain", "secret"), "it answered HTTP 500"),
        (reply("404 Secret", "application/json", "{}"), "it answered HTTP 404"),
        (reply("200 OK", "application/json", UNKNOWN), "it answered initialize with error -32601"),
        (String::new(), "it closed the connection without an answer"),
        ("SSH-2.0-OpenSSH\r\n\r\n".to_owned(), "it closed the connection without an answer"),
        (
            reply("200 OK", "application/json", &"x".repeat(MAX_ANSWER + 1)),
            "its answer is not MCP; is [server.NAME] path right?",
        ),
    ] {
        let (addr, _) = server(move |_| answer.clone()).await;

        assert_eq!(mcp(addr).await, Err(NotReady(why.to_owned())));
    }
}

#[tokio::test]
async fn a_server_that_wants_credentials_of_its_own_gets_a_hint() {
    let (addr, _) = server(|_| reply("401 Unauthorized", "text/plain", "")).await;

    let NotReady(why) = mcp(addr).await.unwrap_err();

    assert!(why.starts_with("it answered HTTP 401; ") && why.contains("probe"), "{why}");
}

#[tokio::test]
async fn an_http_probe_wants_a_status_below_400() {
    let (addr, asked) = server(|request| {
        let good = request.starts_with("GET /health ");
        reply(if good { "204 No Content" } else { "404 Not Found" }, "text/plain", "")
    })
    .await;

    assert_eq!(try_once(&Probe::Http("/health".into()), &Address::Tcp(addr), "/mcp", LIMIT).await, Ok(()));
    let wrong = try_once(&Probe::Http("/".into()), &Address::Tcp(addr), "/mcp", LIMIT).await;
    assert_eq!(wrong, Err(NotReady("it answered HTTP 404".into())));
    assert_eq!(asked.lock().unwrap().len(), 2);
}

#[tokio::test]
async fn a_server_that_never_answers_is_given_up_at_the_limit() {
    let quiet = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = quiet.local_addr().unwrap();

    let outcome = try_once(&Probe::Mcp, &Address::Tcp(addr), "/mcp", Duration::from_millis(50)).await;

    assert_eq!(outcome, Err(NotReady("it did not answer initialize in time".into())));
}

/// Runs `until_ready` until it has said something that contains `words`.
async fn says(addr: SocketAddr, pids: impl Fn() -> Vec<i32>, words: &str) {
    let (sender, mut said) = tokio::sync::mpsc::unbounded_channel();
    let there = Address::Tcp(addr);
    let ready = until_ready(&Probe::Tcp, &there, "/mcp", pids, move |why| {
        sender.send(why).unwrap();
    });
    let heard = async {
        while let Some(why) = said.recv().await {
            if why.contains(words) {
                return;
            }
        }
    };
    tokio::select! {
        found = ready => panic!("ready: {found:?}"),
        outcome = timeout(LIMIT, heard) => outcome.unwrap_or_else(|_| panic!("never said {words}")),
    }
}

#[tokio::test]
async fn it_waits_without_connecting_until_its_own_process_listens() {
    let first = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = first.local_addr().unwrap();
    drop(first);
    let said = Rc::new(RefCell::new(Vec::new()));
    let log = said.clone();
    let (heard, hear) = tokio::sync::oneshot::channel();
    let mut heard = Some(heard);
    let there = Address::Tcp(addr);
    let ready = until_ready(&Probe::Mcp, &there, "/mcp", us, move |why| {
        log.borrow_mut().push(why);
        if let Some(heard) = heard.take() {
            heard.send(()).unwrap();
        }
    });
    let late = async {
        hear.await.unwrap();
        let listener = TcpListener::bind(addr).await.unwrap();
        serve(listener, |_| reply("200 OK", "application/json", RESULT))
    };

    let (found, _server) = timeout(LIMIT, async { tokio::join!(ready, late) }).await.unwrap();

    assert_eq!(found.addr, Address::Tcp(addr));
    assert_eq!(Some(found.inode), socket::listener_at(addr).unwrap().map(|one| one.inode));
    assert_eq!(said.borrow()[0], format!("it does not listen on port {} yet", addr.port()));
}

#[tokio::test]
async fn a_strangers_listener_is_named_and_gets_no_connection() {
    let (addr, asked) = server(|_| reply("200 OK", "application/json", RESULT)).await;

    says(addr, Vec::new, &format!("port {} is held by another process (uid ", addr.port())).await;

    assert!(asked.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_server_on_another_port_is_told_which() {
    let _elsewhere = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let given = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();

    says(given, us, &format!("instead of the port it was given, {}", given.port())).await;
}

#[tokio::test]
async fn a_server_on_localhost_that_got_the_other_loopback_is_found_there() {
    let listener = TcpListener::bind("[::1]:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (there, _) = serve(listener, |_| reply("200 OK", "application/json", RESULT));

    let given = SocketAddr::new([127, 0, 0, 1].into(), port);
    let found =
        timeout(LIMIT, until_ready(&Probe::Mcp, &Address::Tcp(given), "/mcp", us, |_| {})).await.unwrap();

    assert_eq!(found.addr, Address::Tcp(there));
}

#[tokio::test]
async fn waiting_can_be_done_in_a_task_of_its_own() {
    let (addr, _) = server(|_| reply("200 OK", "application/json", RESULT)).await;
    let ready = async move { until_ready(&Probe::Mcp, &Address::Tcp(addr), "/mcp", us, |_| {}).await };

    let found = timeout(LIMIT, tokio::spawn(ready)).await.unwrap().unwrap();

    assert_eq!(found.addr, Address::Tcp(addr));
}

#[tokio::test]
async fn what_the_name_of_a_runs_socket_leads_to_by_now_is_not_asked() {
    let dir = tempfile::tempdir().unwrap();
    let [real, link] = ["real.sock", "http.sock"].map(|name| dir.path().join(name));
    let listener = std::os::unix::net::UnixListener::bind(&real).unwrap();
    listener.set_nonblocking(true).unwrap();
    std::os::unix::fs::symlink(&real, &link).unwrap();
    // As between two looks: what was verified was another.
    let asked = try_once(&Probe::Mcp, &Address::Unix(link.into()), "/mcp", LIMIT).await;
    assert!(asked.unwrap_err().0.starts_with("another process listens on "));
    assert_eq!(listener.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
}
