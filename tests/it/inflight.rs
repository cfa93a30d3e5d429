//! Ten thousand calls in flight when a process is killed.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::TcpStream;

use mcpsup::model::status::StateName;
use serde_json::{Value, json};

use crate::host::{Host, end, example, is_alive};
use crate::stdio::Client;
use crate::wire;

const CALLS: usize = 10_000;
/// Where each has a connection, which is a descriptor here and another in the daemon.
const CONNECTIONS: usize = 500;
/// How many of them go out in one POST: 2025-03-26 has batches.
const BATCH: usize = 50;
const SESSIONS: usize = 10;

fn host(sessions: &str) -> Host {
    let mut host = Host::new(&format!(
        "[server.lines]\ncommand = [{:?}]\ntransport = \"stdio\"\nsessions = \"{sessions}\"\n\
         [door]\nmax_connections = {}\n",
        example("lines"),
        CONNECTIONS + SESSIONS
    ));
    host.save("alice", "TOKEN=sk-live-0123456789\n");
    host.start();
    host.until_state("alice", StateName::Up);
    host
}

/// Sends a client's calls, to be answered never, and leaves their answers to be read.
fn ask(client: &Client, messages: &[Value]) -> TcpStream {
    let body = match messages {
        [one] => one.to_string(),
        all => json!(all).to_string(),
    };
    let mut stream = wire::door(client.port);
    let request = wire::post_text(client.port, &client.headers(), &body);
    stream.write_all(request.as_bytes()).unwrap();
    stream
}

fn never(id: usize) -> Value {
    json!({ "jsonrpc": "2.0", "id": id, "method": "tools/call", "params": { "name": "never" } })
}

/// Every message of an answer, sent alone, as an array or as events.
fn messages(answer: &str) -> Vec<Value> {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {answer:?}"));
    assert!(head.starts_with("HTTP/1.1 200 "), "{answer}");
    if !head.to_lowercase().contains("text/event-stream") {
        return match serde_json::from_str(body).unwrap() {
            Value::Array(all) => all,
            one => vec![one],
        };
    }
    let data = body.lines().filter_map(|line| line.strip_prefix("data:")).map(str::trim);
    data.filter(|data| !data.is_empty()).map(|data| serde_json::from_str(data).unwrap()).collect()
}

/// Has so many calls in flight in a few sessions, kills what they are at, and reads every answer.
fn each_is_answered_once(host: &Host, calls: usize, batch: usize, version: &'static str) {
    let clients: Vec<Client> = (0..SESSIONS).map(|_| Client::begin_in(host, "alice", version)).collect();
    let pids: Vec<String> = clients.iter().map(|client| client.text("pid", &json!({}))).collect();
    let per_client = calls / SESSIONS;
    let mut asked = Vec::new();
    for (n, client) in clients.iter().enumerate() {
        for first in (0..per_client).step_by(batch) {
            let batch: Vec<Value> = (first..first + batch).map(|id| never(1000 + id)).collect();
            asked.push((n, ask(client, &batch)));
        }
    }
    host.until("the processes have them all", || {
        let arrived: BTreeMap<&String, usize> = clients
            .iter()
            .zip(&pids)
            .map(|(client, pid)| (pid, client.text("unanswered", &json!({})).parse().unwrap()))
            .collect();
        arrived.values().sum::<usize>() == calls
    });

    for pid in pids.iter().collect::<std::collections::BTreeSet<_>>() {
        end(pid.parse().unwrap());
    }
    let mut answers: BTreeMap<(usize, u64), usize> = BTreeMap::new();
    for (n, mut stream) in asked {
        for message in messages(&wire::rest(&mut stream)) {
            assert_eq!(message["error"]["code"], -32000, "{message}");
            *answers.entry((n, message["id"].as_u64().unwrap())).or_default() += 1;
        }
    }
    assert_eq!(answers.len(), calls, "each is answered");
    assert!(answers.values().all(|times| *times == 1), "and none twice");

    // The sessions go on, and nothing comes late.
    for (client, pid) in clients.iter().zip(&pids) {
        host.until("it answers again", || client.call("pid", &json!({})).get("result").is_some());
        assert_ne!(&client.text("pid", &json!({})), pid);
        assert!(!is_alive(pid.parse().unwrap()));
    }
}

#[test]
fn ten_thousand_calls_at_a_shared_process_that_is_killed_are_each_answered_once() {
    let host = host("shared");
    each_is_answered_once(&host, CALLS, BATCH, "2025-03-26");
}

#[test]
fn ten_thousand_calls_at_processes_of_sessions_that_are_killed_are_each_answered_once() {
    let host = host("isolated\"\nmax_sessions = 10\nera = \"legacy");
    each_is_answered_once(&host, CALLS, BATCH, "2025-03-26");
}

#[test]
fn the_same_holds_with_a_connection_for_each_call() {
    let host = host("shared");
    each_is_answered_once(&host, CONNECTIONS, 1, "2025-11-25");
}
