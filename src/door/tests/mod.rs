//! Doors with small processes behind them. The processes are tasks of this test, so "the run's own
//! socket" is a matter of its inode alone.

mod access;
mod limits;
mod passing;
mod routes;

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::*;
use crate::logic::access::Guard;
use crate::system::ready::Hub;
use crate::system::socket;

pub(in crate::door) const LIMIT: Duration = Duration::from_secs(20);
const GET: &str = "GET /mcp HTTP/1.1\r\nhost: localhost:3456\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

struct World {
    door: Door,
    route: Lead,
    settings: watch::Sender<Arc<Settings>>,
    hub: Hub,
}

pub(in crate::door) fn settings() -> config::Door {
    config::Door {
        wait: LIMIT,
        max_body: 64 * 1024,
        max_connections: 8,
        head_timeout: LIMIT,
        hosts: Vec::new(),
        unix: false,
    }
}

fn world(limits: config::Door, first: Route) -> World {
    let here = IpAddr::from([127, 0, 0, 1]);
    let (settings, seen) = watch::channel(Arc::new(Settings { limits, listen: here }));
    let route = Lead::new(first);
    let instance = InstanceId::new("alice".parse().unwrap(), "notes".parse().unwrap());
    let hub = Hub::new().unwrap();
    let listener = hub.add(socket::listen(here, 0).unwrap()).unwrap();
    let door = Door::open(listener, seen, instance, Behind::Http(route.follow()), Arc::default()).unwrap();
    let guard = Guard { access: config::Access::Open, ..Guard::default() };
    door.guard(Gate { guard, token: None });
    World { door, route, settings, hub }
}

fn ready(run: u64, addr: SocketAddr) -> Route {
    let listener_inode = socket::listener_at(addr).unwrap().unwrap().inode;
    Route::Ready(Upstream { run: RunId(run), addr: Address::Tcp(addr), listener_inode, recheck: None })
}

/// One connection of a client or of a process, read message by message.
pub(in crate::door) struct Line {
    pub(in crate::door) stream: TcpStream,
    read: Vec<u8>,
}

impl Line {
    pub(in crate::door) fn new(stream: TcpStream) -> Self {
        Self { stream, read: Vec::new() }
    }

    async fn to(world: &World) -> Self {
        Self::new(TcpStream::connect(world.door.addr()).await.unwrap())
    }

    pub(in crate::door) async fn say(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).await.unwrap();
    }

    /// Everything up to and including `end`; `None` if the connection ends before.
    pub(in crate::door) async fn until(&mut self, end: &str) -> Option<String> {
        loop {
            let at = self.read.windows(end.len()).position(|part| part == end.as_bytes());
            if let Some(at) = at {
                let rest = self.read.split_off(at + end.len());
                return String::from_utf8(std::mem::replace(&mut self.read, rest)).ok();
            }
            let read = timeout(LIMIT, self.stream.read_buf(&mut self.read)).await.expect("silence");
            if read.unwrap_or(0) == 0 {
                return None;
            }
        }
    }

    /// A message whose body is as long as its head says.
    pub(in crate::door) async fn message(&mut self) -> Option<(String, String)> {
        let head = self.until("\r\n\r\n").await?.to_lowercase();
        let length = head.split("content-length: ").nth(1).map(|rest| rest.lines().next().unwrap());
        let length: usize = length.map_or(0, |length| length.parse().unwrap());
        while self.read.len() < length {
            let read = timeout(LIMIT, self.stream.read_buf(&mut self.read)).await.expect("silence");
            if read.unwrap_or(0) == 0 {
                return None;
            }
        }
        let rest = self.read.split_off(length);
        let body = String::from_utf8(std::mem::replace(&mut self.read, rest)).unwrap();
        Some((head, body))
    }

    pub(in crate::door) async fn ask(&mut self, request: &str) -> (String, String) {
        self.say(request).await;
        self.message().await.expect("an answer")
    }

    /// Waits until the other side has hung up.
    pub(in crate::door) async fn ends(&mut self) {
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
    Process { addr, asked, connections }
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
