//! One client's connection to a door: its requests, one after another, each checked and passed on.
//!
//! The connection to the process ([`Link`]) belongs to the client's connection: no pool, nobody
//! else's request ever goes over it. It is given up when the route leads to another run.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hyper::body::{Body, Incoming};
use hyper::header::{HOST, HeaderValue, ORIGIN};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode, Uri, Version};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::time::{Instant, sleep, timeout_at};
use tracing::{debug, warn};

use super::accept::Lingering;
use super::answer::Refusal;
use super::body::{Fate, Reply, Upload};
use super::link::{Link, NoAnswer, NoLink};
use super::{Follow, Frame, Route, Settings, headers};
use crate::logic::access::Hosts;

/// The largest request head, and the most that is read from a client at once.
const BUFFER: usize = 32 * 1024;
/// The most headers of a request.
const HEADERS: usize = 100;
/// Pauses between tries while a process is said to be up and takes no connection.
const PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Serves one connection until it ends.
pub(super) async fn serve(client: Lingering, frame: Arc<Frame>, settings: Arc<Settings>) {
    if let Err(cause) = client.hurry() {
        debug!(%cause, "a client left at once");
        return;
    }
    let head_timeout = settings.limits.head_timeout;
    let guest = Guest::new(frame, settings);
    let service = service_fn(|request| {
        let guest = guest.clone();
        async move { Ok::<_, Infallible>(guest.answer(request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(head_timeout)
        .max_buf_size(BUFFER)
        .max_headers(HEADERS)
        .serve_connection(TokioIo::new(client), service);
    let mut connection = pin!(connection);
    let mut route = guest.frame.route.clone();
    let mut led = true;
    let outcome = loop {
        tokio::select! {
            biased;
            outcome = &mut connection => break outcome,
            // A process that is to end may wait for its connections to end first.
            is_led = route.changed(), if led => {
                led = is_led;
                guest.let_go();
            }
        }
    };
    if let Err(cause) = outcome {
        debug!(%cause, "a client's connection ended");
    }
}

/// A client's connection.
pub(super) struct Guest {
    frame: Arc<Frame>,
    settings: Arc<Settings>,
    /// The connection to the process while no request uses it.
    link: Mutex<Option<Link>>,
    /// Of the current request's body.
    fate: Arc<Fate>,
}

impl Guest {
    pub(super) fn new(frame: Arc<Frame>, settings: Arc<Settings>) -> Arc<Self> {
        Arc::new(Self { frame, settings, link: Mutex::default(), fate: Arc::default() })
    }

    /// Takes back a connection whose answer has been read to its end.
    pub(super) fn keep(&self, mut link: Link) {
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
    fn let_go(&self) {
        let mut link = self.idle();
        if link.as_ref().is_some_and(|link| !self.leads_on(link)) {
            *link = None;
        }
    }

    /// True if requests go where this connection leads.
    fn leads_on(&self, link: &Link) -> bool {
        match self.frame.route.now() {
            Route::Ready(upstream) => link.serves(upstream.run),
            Route::Waiting | Route::Closed(_) => false,
        }
    }

    fn idle(&self) -> MutexGuard<'_, Option<Link>> {
        self.link.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Response<Reply> {
        let passed = match self.check(&request) {
            Ok(()) => self.clone().pass(request).await,
            Err(refusal) => Err(refusal),
        };
        passed.unwrap_or_else(|refusal| refusal.response())
    }

    /// The same for somebody who did not come through the port.
    pub(super) async fn answer_insider(self: Arc<Self>, request: Request<Incoming>) -> Response<Reply> {
        let passed = match self.check_size(&request) {
            Ok(()) => self.pass(request).await,
            Err(refusal) => Err(refusal),
        };
        passed.unwrap_or_else(|refusal| refusal.response())
    }

    /// What can be said about a request before anything is done for it.
    fn check(&self, request: &Request<Incoming>) -> Result<(), Refusal> {
        let Settings { limits, listen } = &*self.settings;
        let hosts = Hosts { listen: *listen, extra: &limits.hosts };
        let mut named = request.headers().get_all(HOST).iter();
        let (host, another) = (named.next().ok_or(Refusal::Malformed)?, named.next());
        if another.is_some() || request.method() == Method::CONNECT {
            return Err(Refusal::Malformed);
        }
        // A name in the request line outranks Host (RFC 9112 §3.2.2), so both have to be right.
        let target = request.uri().authority().map(hyper::http::uri::Authority::as_str);
        if !hosts.host_ok(text(host)) || !target.is_none_or(|name| hosts.host_ok(Some(name))) {
            return Err(Refusal::ForeignHost);
        }
        let mut origins = request.headers().get_all(ORIGIN).iter();
        if !origins.all(|origin| text(origin).is_some_and(|origin| hosts.origin_ok(Some(origin)))) {
            return Err(Refusal::ForeignOrigin);
        }
        self.check_size(request)
    }

    fn check_size(&self, request: &Request<Incoming>) -> Result<(), Refusal> {
        let is_right = request.body().size_hint().lower() <= self.settings.limits.max_body;
        is_right.then_some(()).ok_or(Refusal::TooLarge)
    }

    /// Sends a request to the process, waiting for one within limits, and hands back its answer.
    async fn pass(self: Arc<Self>, request: Request<Incoming>) -> Result<Response<Reply>, Refusal> {
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
        let upload = Upload::new(body, limits.max_body, limits.head_timeout, self.fate.clone());
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
        let mut route = self.frame.route.clone();
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
        Ok(Response::from_parts(parts, Reply::passed(body, link, self)))
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

fn text(value: &HeaderValue) -> Option<&str> {
    value.to_str().ok()
}
