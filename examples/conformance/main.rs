//! The server that MCP's conformance suite is run against: directly, and behind mcpsup.
//!
//! The suite asks for tools, prompts and resources of certain names and behaviours; they are all
//! here, on rmcp, so that what is missing behind a door or the bridge is the door's or the
//! bridge's fault. `make conformance` runs it (`tests/conformance`).
//!
//! ```text
//! conformance [stdio]              both eras of the protocol on stdin and stdout
//! conformance [stdio] --legacy     as a server that was written before 2026-07-28
//! conformance http [--port PORT]   both eras at http://127.0.0.1:PORT/mcp; else the port is in $PORT
//! ```
//!
//! | file | |
//! |---|---|
//! | `server.rs` | what rmcp asks of a server: who it is, and who answers which method |
//! | `tools.rs` | the list of tools, and those that only answer |
//! | `ask.rs` | tools that ask their client something, in either era's way |
//! | `jobs.rs` | tools that go on as tasks |
//! | `resources.rs`, `prompts.rs` | the other two things a server offers |
//! | `http.rs` | a listener on loopback |
//! | `legacy.rs` | forgets the modern era |

#![expect(deprecated, reason = "rmcp marks sampling, roots and logging; older clients have nothing else")]
#![expect(clippy::print_stderr, reason = "a server's stderr is its log")]
#![expect(clippy::disallowed_methods, reason = "a program of its own, with an environment made for it")]

mod ask;
mod http;
mod jobs;
mod legacy;
mod prompts;
mod resources;
mod server;
mod tools;

use std::process::ExitCode;

use rmcp::ServiceExt as _;
use rmcp::transport::IntoTransport as _;

use legacy::Legacy;
use server::Server;

/// How the program was called.
enum Calling {
    Stdio { legacy: bool },
    Http { port: u16 },
}

impl Calling {
    fn from_arguments() -> Result<Self, String> {
        let (mut http, mut legacy, mut port) = (false, false, None);
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            match &*argument {
                "stdio" => http = false,
                "http" => http = true,
                "--legacy" => legacy = true,
                "--port" => port = arguments.next(),
                other => return Err(format!("do not know what {other} means")),
            }
        }
        if !http {
            return Ok(Self::Stdio { legacy });
        }
        if legacy {
            return Err("--legacy is for stdio".into());
        }
        let port = port.or_else(|| std::env::var("PORT").ok()).and_then(|port| port.parse().ok());
        Ok(Self::Http { port: port.ok_or("neither --port nor PORT is a port")? })
    }
}

/// Answers on stdin and stdout until stdin ends.
async fn stdio(legacy: bool) -> Result<(), String> {
    let cannot = |error: &dyn std::fmt::Display| format!("cannot serve on stdio: {error}");
    let pipes = rmcp::transport::stdio_pipes();
    let running = if legacy {
        Server::legacy().serve(Legacy::new(pipes.into_transport())).await
    } else {
        Server::default().serve(pipes).await
    };
    running.map_err(|error| cannot(&error))?.waiting().await.map_err(|error| cannot(&error))?;
    Ok(())
}

async fn run() -> Result<(), String> {
    match Calling::from_arguments()? {
        Calling::Stdio { legacy } => stdio(legacy).await,
        Calling::Http { port } => http::serve(port).await,
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("conformance: {error}");
            ExitCode::FAILURE
        }
    }
}
