//! The server at `/mcp` on a port of 127.0.0.1.
//!
//! rmcp brings Streamable HTTP; hyper, which mcpsup uses anyway, brings the sockets.

use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::transport::{StreamableHttpServerConfig, StreamableHttpService};
use tokio::net::TcpListener;

use crate::server::Server;

const PATH: &str = "/mcp";

/// Serves until the process ends.
pub(crate) async fn serve(port: u16) -> Result<(), String> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await;
    let listener = listener.map_err(|error| format!("cannot listen on 127.0.0.1:{port}: {error}"))?;
    let mcp = service();
    eprintln!("conformance: listening on http://127.0.0.1:{port}{PATH}");
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // Out of descriptors, most likely: some will come back.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        // Else an event waits for the acknowledgement of the one before it: 40 ms.
        drop(stream.set_nodelay(true));
        let mcp = mcp.clone();
        let answer = service_fn(move |request: Request<hyper::body::Incoming>| {
            let mcp = mcp.clone();
            async move {
                if request.uri().path() == PATH {
                    return Ok::<_, Infallible>(mcp.handle(request).await);
                }
                let mut response = Response::new(Empty::<Bytes>::new().boxed());
                *response.status_mut() = StatusCode::NOT_FOUND;
                Ok(response)
            }
        });
        tokio::spawn(
            hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer),
        );
    }
}

/// Only pages of this machine may come with an Origin; Host is checked by rmcp unasked.
fn service() -> StreamableHttpService<Server, LocalSessionManager> {
    let local = ["http://localhost:*", "http://127.0.0.1:*", "http://[::1]:*"];
    let config = StreamableHttpServerConfig::default().with_allowed_origins(local);
    let server = Server::default();
    StreamableHttpService::new(move || Ok(server.clone()), Arc::new(LocalSessionManager::default()), config)
}
