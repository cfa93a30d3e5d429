//! Raw HTTP, as curl and worse clients send it: what the tests of the doors and of the control
//! socket speak.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::Path;

use crate::host::LIMIT;

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Answer {
    fn parse(text: &str) -> Self {
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {text:?}"));
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
        Self { status: status.unwrap(), head: head.to_lowercase(), body: body.to_owned() }
    }

    /// The value of a header; the name in lower case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("not JSON: {}", self.body))
    }
}

/// A connection to a door.
pub(crate) fn door(port: u16) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream.set_write_timeout(Some(LIMIT)).unwrap();
    stream
}

/// Sends bytes to a door and reads until it hangs up.
pub(crate) fn ask_door(port: u16, request: &str) -> Answer {
    let mut stream = door(port);
    stream.write_all(request.as_bytes()).unwrap();
    Answer::parse(&rest(&mut stream))
}

/// One request to a door with further header lines (each with its `\r\n`).
pub(crate) fn post(port: u16, headers: &str, body: &str) -> Answer {
    ask_door(port, &post_text(port, headers, body))
}

/// The request of [`post`] as text; the connection closes after the answer.
pub(crate) fn post_text(port: u16, headers: &str, body: &str) -> String {
    let host =
        if headers.starts_with("Host: ") { String::new() } else { format!("Host: 127.0.0.1:{port}\r\n") };
    format!(
        "POST /mcp HTTP/1.1\r\n{host}Connection: close\r\nContent-Type: application/json\r\n\
         Accept: application/json, text/event-stream\r\n{headers}Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// A `tools/call` as JSON-RPC.
pub(crate) fn tool(name: &str, arguments: &str) -> String {
    format!(
        "{{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/call\",\
         \"params\":{{\"name\":\"{name}\",\"arguments\":{arguments}}}}}"
    )
}

/// One request to the control socket.
pub(crate) fn control(socket: &Path, method: &str, path: &str, body: &str) -> Answer {
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: mcpsup\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    Answer::parse(&rest(&mut stream))
}

/// The same, if anybody listens there.
pub(crate) fn control_if(socket: &Path, method: &str, path: &str, body: &str) -> Option<Answer> {
    UnixStream::connect(socket).is_ok().then(|| control(socket, method, path, body))
}

/// Everything until the other side hangs up; a reset is the end as well.
pub(crate) fn rest(stream: &mut impl Read) -> String {
    let mut bytes = Vec::new();
    let mut buffer = [0; 16 * 1024];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => bytes.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => break,
            // A read with a limit is not taken up again by the kernel (signal(7)).
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => panic!("no end came: {error}; so far: {}", String::from_utf8_lossy(&bytes)),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Reads until `text` has come; what was read.
pub(crate) fn read_until(stream: &mut impl Read, text: &str) -> String {
    let mut read = String::new();
    let mut buffer = [0; 4096];
    while !read.contains(text) {
        let count = match stream.read(&mut buffer) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            read => read.unwrap(),
        };
        assert!(count > 0, "it ended before {text:?}: {read}");
        read.push_str(&String::from_utf8_lossy(&buffer[..count]));
    }
    read
}
