//! What passes a client's requests on to a process that speaks HTTP itself, and its answers back.
//!
//! The connection to the process ([`Link`]) belongs to the client's connection: no pool, nobody
//! else's request ever goes over it. It is given up when the route leads to another run.

mod headers;
mod link;

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame as Part, Incoming, SizeHint};
use hyper::{Request, Response, StatusCode, Uri, Version};
use tokio::time::{Instant, sleep, timeout_at};
use tracing::{debug, warn};

use super::alarm::Alarm;
use super::answer::Refusal;
use super::body::{Fate, Reply, Upload};
use super::{Follow, Frame, Route, Settings, Upstream};
use link::{Link, NoAnswer, NoLink};

/// Pauses between tries while a process is said to be up and takes no connection.
const PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// What one client's connection needs to have its requests passed on.
pub(super) struct Proxy {
    frame: Arc<Frame>,
    /// Where requests go.
    route: Follow,
    settings: Arc<Settings>,
    /// The connection to the process while no request uses it.
    link: Mutex<Option<Link>>,
    /// Of the current request's body.
    fate: Arc<Fate>,
}

impl Proxy {
    pub(super) fn new(frame: Arc<Frame>, route: Follow, settings: Arc<Settings>) -> Self {
        Self { frame, route, settings, link: Mutex::default(), fate: Arc::default() }
    }

    /// Takes back a connection whose answer has been read to its end.
    fn keep(&self, mut link: Link) {
        // A process that answered before it had read the request may read on; then it is not free.
        if self.fate.is_open() {
            return;
        }
        link.rest();
        if self.leads_on(&link) {
            *self.idle() = Some(link);
        }
    }

    /// Closes an unused connection to a run to which requests do not go any more.
    pub(super) fn let_go(&self) {
        let mut link = self.idle();
        if link.as_ref().is_some_and(|link| !self.leads_on(link)) {
            *link = None;
        }
    }

    /// True if requests go where this connection leads.
    fn leads_on(&self, link: &Link) -> bool {
        match self.route.now() {
            Route::Ready(upstream) => link.serves(upstream.run),
            Route::Waiting | Route::Closed(_) => false,
        }
    }

    fn idle(&self) -> MutexGuard<'_, Option<Link>> {
        self.link.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a request to the process, waiting for one within limits, and hands back its answer.
    pub(super) async fn pass(
        self: Arc<Self>,
        request: Request<Incoming>,
    ) -> Result<Response<Reply>, Refusal> {
        let deadline = Instant::now() + self.settings.limits.wait;
        let mut request = self.prepare(request);
        let mut pause = Duration::ZERO;
        loop {
            let mut link = if let Some(link) = self.kept() {
                link
            } else {
                let new = timeout_at(deadline, self.connect(pause)).await;
                pause = longer(pause);
                new.map_err(|_| Refusal::StillDown)??
            };
            match link.send(request).await {
                Ok(response) => return self.hand_back(response, link),
                Err(NoAnswer::Unsent(back)) => request = back,
                Err(NoAnswer::Broken(cause)) => {
                    debug!(%cause, "no answer");
                    return Err(self.fate.refusal().unwrap_or(Refusal::Broken));
                }
            }
        }
    }

    /// The request as the process will see it, Host excepted, which the connection sets.
    fn prepare(&self, request: Request<Incoming>) -> Request<Upload> {
        let (mut parts, body) = request.into_parts();
        headers::strip_request(&mut parts.headers);
        parts.version = Version::HTTP_11;
        if parts.uri.authority().is_some() {
            parts.uri = parts.uri.path_and_query().cloned().map_or_else(Uri::default, Uri::from);
        }
        let limits = &self.settings.limits;
        let alarm = Alarm::default();
        let upload = Upload::new(body, limits.max_body, limits.head_timeout, alarm, self.fate.clone());
        Request::from_parts(parts, upload)
    }

    /// The connection of the last request, if it still leads where requests go now.
    fn kept(&self) -> Option<Link> {
        let link = self.idle().take()?;
        self.leads_on(&link).then_some(link)
    }

    /// A new connection to the process, as soon as there is one; `pause` after one that came to
    /// nothing.
    async fn connect(&self, mut pause: Duration) -> Result<Link, Refusal> {
        let mut route = self.route.clone();
        if !pause.is_zero() {
            route.look();
            change(&mut route, pause).await?;
        }
        loop {
            let upstream = match route.look() {
                Route::Ready(upstream) => Some(upstream),
                Route::Waiting => None,
                Route::Closed(why) => return Err(Refusal::Closed(why)),
            };
            let Some(upstream) = upstream else {
                change(&mut route, Duration::MAX).await?;
                continue;
            };
            match Link::open(&self.frame, &upstream).await {
                Ok(link) => return Ok(link),
                Err(NoLink::Stranger) => {
                    return Err(Refusal::Stranger(self.frame.instance.user.clone()));
                }
                // It has just ended, and the route will say so; or it is replacing its listener,
                // of which nobody tells us.
                Err(NoLink::Down) => {
                    pause = longer(pause);
                    change(&mut route, pause).await?;
                }
            }
        }
    }

    fn hand_back(
        self: Arc<Self>,
        response: Response<Incoming>,
        link: Link,
    ) -> Result<Response<Reply>, Refusal> {
        let (mut parts, body) = response.into_parts();
        if parts.status == StatusCode::SWITCHING_PROTOCOLS {
            let instance = &self.frame.instance;
            warn!(user = %instance.user, server = %instance.server, "the process changed the protocol without being asked");
            return Err(Refusal::Broken);
        }
        headers::strip(&mut parts.headers);
        parts.version = Version::HTTP_11;
        Ok(Response::from_parts(
            parts,
            Reply::Passed(Passed { body, ended: false, link: Some(link), proxy: self }),
        ))
    }
}

fn longer(pause: Duration) -> Duration {
    (pause * 2).clamp(PAUSE, LONGEST_PAUSE)
}

/// Waits until the route is another, or until it is time to try the same again.
async fn change(route: &mut Follow, pause: Duration) -> Result<(), Refusal> {
    tokio::select! {
        is_led = route.changed() => {
            if is_led { Ok(()) } else { Err(Refusal::Closed("this server is being removed".to_owned())) }
        }
        () = sleep(pause) => Ok(()),
    }
}

/// A body from the process. When it has been read to its end, its connection is free again for
/// the client's next request; when it is dropped before, the connection is closed, which tells
/// the process that nobody listens any more.
pub(super) struct Passed {
    body: Incoming,
    ended: bool,
    link: Option<Link>,
    proxy: Arc<Proxy>,
}

impl Passed {
    pub(super) fn poll_part(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Part<Bytes>, hyper::Error>>> {
        let part = ready!(Pin::new(&mut self.body).poll_frame(cx));
        self.ended = part.is_none();
        Poll::Ready(part)
    }

    pub(super) fn is_end(&self) -> bool {
        self.body.is_end_stream()
    }

    pub(super) fn size(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Passed {
    fn drop(&mut self) {
        if (self.ended || self.body.is_end_stream())
            && let Some(link) = self.link.take()
        {
            self.proxy.keep(link);
        }
    }
}
