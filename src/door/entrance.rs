//! The way to an instance that does not lead through its port: whoever comes in here has been let
//! in already, by the control socket.
//!
//! Host and Origin are not looked at: they are about browsers, and no browser speaks to a Unix
//! socket. All else is as at the door: limits, waiting, whose socket that is, what passes.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::BodyExt;
use http_body_util::combinators::BoxBody;
use hyper::body::Incoming;
use hyper::{Request, Response, Uri};

use super::Frame;
use super::alarm::Alarm;
use super::guest::Guest;

/// One instance's entrance from inside.
#[derive(Clone)]
pub struct Entrance {
    frame: Arc<Frame>,
    path: String,
}

impl Entrance {
    pub(super) fn new(frame: Arc<Frame>, path: String) -> Self {
        Self { frame, path }
    }

    /// Sends a request to the instance's endpoint, whatever path it names, and hands back the
    /// answer; the door's own where the instance gives none.
    pub async fn pass(self, mut request: Request<Incoming>) -> Response<BoxBody<Bytes, io::Error>> {
        // The path of a configuration that was read; if it were none, the instance says so.
        *request.uri_mut() = self.path.parse().unwrap_or_else(|_| Uri::default());
        let settings = self.frame.settings.borrow().clone();
        let answer = Guest::new(&self.frame, settings, None, None, Arc::default(), Alarm::default())
            .answer_insider(request)
            .await;
        answer.map(|body| BoxBody::new(body.map_err(io::Error::other)))
    }
}
