//! One client's connection to a door: its requests, one after another, each checked before
//! anything is done for it.

use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use hyper::body::{Body, Incoming};
use hyper::header::{CONTENT_TYPE, HOST, HeaderMap, HeaderValue, ORIGIN};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use tracing::debug;

use super::alarm::Alarm;
use super::answer::Refusal;
use super::body::Reply;
use super::bridge::Bridge;
use super::lobby::{PATIENCE, Waiting};
use super::proxy::Proxy;
use super::stream::Lingering;
use super::{Behind, Follow, Frame, Settings};
use crate::logic::access::Hosts;

/// The largest request head, and the most that is read from a client at once.
const BUFFER: usize = 32 * 1024;
/// The most headers of a request.
const HEADERS: usize = 100;

/// Serves one connection until it ends.
///
/// `peer` is whose it is, if that is known; `waiting` is their place until they have shown that they may
/// pass.
pub(super) async fn serve(
    client: Lingering,
    frame: Arc<Frame>,
    settings: Arc<Settings>,
    peer: Option<u32>,
    waiting: Option<Waiting>,
) {
    if let Err(cause) = client.hurry() {
        debug!(%cause, "a client left at once");
        return;
    }
    let head_timeout = settings.limits.head_timeout;
    let alarm = Alarm::default();
    let guest = Guest::new(&frame, settings, peer, waiting, client.endless(), alarm.clone());
    // Boxed: nearly all connections show at once that they may pass, or need not.
    let mut has_to_go = guest.waiting.as_ref().map(|waiting| Box::pin(waiting.has_to_go(PATIENCE)));
    let mut route = match &frame.behind {
        Behind::Http(route) => Some(route.clone()),
        Behind::Stdio(_) => None,
    };
    let service = service_fn(|request| {
        let guest = guest.clone();
        async move { Ok::<_, Infallible>(guest.answer(request).await) }
    });
    let connection = http1::Builder::new()
        .timer(alarm)
        .header_read_timeout(head_timeout)
        .max_buf_size(BUFFER)
        .max_headers(HEADERS)
        .serve_connection(TokioIo::new(client), service);
    let mut connection = pin!(connection);
    let mut renewed = pin!(frame.renewed.notified());
    renewed.as_mut().enable();
    let outcome = loop {
        tokio::select! {
            biased;
            // First, so that nobody has to go who has shown meanwhile that they may pass.
            outcome = &mut connection => break outcome,
            () = comes(&mut has_to_go) => {
                frame.tell_denied(peer, "showed nothing");
                break Ok(());
            }
            () = &mut renewed => {
                if guest.bears_token.load(Relaxed) {
                    break Ok(());
                }
                renewed.set(frame.renewed.notified());
                renewed.as_mut().enable();
            }
            // A process that is to end may wait for its connections to end first.
            is_led = turned(&mut route) => {
                if !is_led {
                    route = None;
                }
                guest.let_go();
            }
        }
    };
    if let Err(cause) = outcome {
        debug!(%cause, "a client's connection ended");
    }
}

async fn comes(end: &mut Option<Pin<Box<impl Future<Output = ()>>>>) {
    match end {
        Some(end) => end.await,
        None => std::future::pending().await,
    }
}

/// Waits until the route is another; false if nobody leads any more.
async fn turned(route: &mut Option<Follow>) -> bool {
    match route {
        Some(route) => route.changed().await,
        None => std::future::pending().await,
    }
}

/// A client's connection.
pub(super) struct Guest {
    frame: Arc<Frame>,
    /// The uid whose connection it is.
    peer: Option<u32>,
    waiting: Option<Waiting>,
    /// They came in by a token.
    bears_token: AtomicBool,
    /// They are being told something that has no end.
    endless: Arc<AtomicBool>,
    /// Of the task that serves the connection.
    alarm: Alarm,
    settings: Arc<Settings>,
    way: Way,
}

/// What answers a request that may pass.
enum Way {
    Proxy(Arc<Proxy>),
    Bridge(Arc<Bridge>),
}

impl Guest {
    pub(super) fn new(
        frame: &Arc<Frame>,
        settings: Arc<Settings>,
        peer: Option<u32>,
        waiting: Option<Waiting>,
        endless: Arc<AtomicBool>,
        alarm: Alarm,
    ) -> Arc<Self> {
        let way = match &frame.behind {
            Behind::Http(route) => {
                let proxy = Proxy::new(frame.clone(), route.clone(), settings.clone());
                Way::Proxy(Arc::new(proxy))
            }
            Behind::Stdio(bridge) => Way::Bridge(bridge.clone()),
        };
        let bears_token = AtomicBool::new(false);
        Arc::new(Self { frame: frame.clone(), peer, waiting, bears_token, endless, alarm, settings, way })
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Reply> {
        match self.check(&request).and_then(|()| self.admit(request.headers())) {
            Ok(()) => {
                if let Some(waiting) = &self.waiting {
                    waiting.is_over();
                }
                self.endless.store(false, Relaxed);
                let is_get = request.method() == Method::GET;
                let response = self.pass(request).await;
                self.endless.store(is_get && is_stream(&response), Relaxed);
                response
            }
            Err(refusal) => refusal.response(),
        }
    }

    /// The same for somebody who did not come through the port.
    pub(super) async fn answer_insider(&self, request: Request<Incoming>) -> Response<Reply> {
        match self.check_size(&request) {
            Ok(()) => self.pass(request).await,
            Err(refusal) => refusal.response(),
        }
    }

    /// Whether whoever sends this may use what is behind the door.
    fn admit(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let Frame { instance, .. } = &*self.frame;
        let (guard, judged) = {
            let gate = self.frame.gate();
            if gate.guard.knows(self.peer) {
                return Ok(());
            }
            (gate.guard, gate.judge(instance, headers))
        };
        guard.admits(self.peer, judged).map_err(|denied| {
            self.frame.tell_denied(self.peer, denied.as_str());
            Refusal::Denied(denied, instance.user.clone())
        })?;
        self.bears_token.store(true, Relaxed);
        Ok(())
    }

    async fn pass(&self, request: Request<Incoming>) -> Response<Reply> {
        match &self.way {
            Way::Proxy(proxy) => {
                proxy.clone().pass(request).await.unwrap_or_else(|refusal| refusal.response())
            }
            // Boxed: a connection between two requests should not carry the room for one.
            Way::Bridge(bridge) => {
                Box::pin(bridge.clone().answer(request, &self.settings.limits, &self.alarm)).await
            }
        }
    }

    fn let_go(&self) {
        match &self.way {
            Way::Proxy(proxy) => proxy.let_go(),
            Way::Bridge(_) => {}
        }
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
}

/// True if an answer to a GET has no end: a client listens to it as long as it likes.
fn is_stream(response: &Response<Reply>) -> bool {
    let kind = response.headers().get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    kind.is_some_and(|kind| {
        kind.get(..17).is_some_and(|kind| kind.eq_ignore_ascii_case(b"text/event-stream"))
    })
}

fn text(value: &HeaderValue) -> Option<&str> {
    value.to_str().ok()
}
