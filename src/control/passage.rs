//! What passes the control socket on its way to an instance: `/v1/mcp/USER/SERVER`.
//!
//! The service behind an instance's door answers; it is the daemon that knows it and hands it over
//! as a [`Passage`], once the caller may see that instance. It is asked for again with every
//! request: nobody keeps a right that they had.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use hyper::body::Incoming;
use hyper::{Request, Response};

use crate::model::InstanceId;

/// An instance's answer, as it comes.
pub type Passed = Response<BoxBody<Bytes, io::Error>>;

type Way = dyn Fn(Request<Incoming>) -> Pin<Box<dyn Future<Output = Passed> + Send>> + Send + Sync;

/// The way to one instance's service.
#[derive(Clone)]
pub struct Passage {
    /// Whose it is.
    pub instance: InstanceId,
    way: Arc<Way>,
}

impl Passage {
    /// A way to `instance` that `way` knows.
    pub fn new<F: Future<Output = Passed> + Send + 'static>(
        instance: InstanceId,
        way: impl Fn(Request<Incoming>) -> F + Send + Sync + 'static,
    ) -> Self {
        Self { instance, way: Arc::new(move |request| Box::pin(way(request))) }
    }

    /// Sends a request on and hands its answer back.
    pub async fn pass(&self, request: Request<Incoming>) -> Passed {
        (self.way)(request).await
    }
}

impl fmt::Debug for Passage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the way to {}", self.instance)
    }
}
