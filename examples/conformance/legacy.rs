//! What a server written before 2026-07-28 makes of the messages it gets.
//!
//! rmcp speaks both eras, and says so in its errors; a client that meets those would not take the
//! server for an old one. So the modern era is taken out before rmcp sees a message: its methods
//! do not exist (-32601), and its fields in `_meta` mean nothing.

use rmcp::RoleServer;
use rmcp::model::{
    ClientJsonRpcMessage, ClientRequest, ErrorCode, ErrorData, GetMeta as _, JsonRpcMessage, RequestId,
    ServerJsonRpcMessage,
};
use rmcp::transport::Transport;

/// The prefix of what the modern era keeps in `_meta`.
const MODERN: &str = "io.modelcontextprotocol/";

/// A transport without the modern era.
pub(crate) struct Legacy<T> {
    inner: T,
    initialized: bool,
}

/// What becomes of a message.
enum Fate {
    Pass,
    Refuse(RequestId, ErrorCode, &'static str),
    Drop,
}

impl<T> Legacy<T> {
    pub(crate) fn new(inner: T) -> Self {
        Self { inner, initialized: false }
    }

    /// Decides over a message, and takes the modern fields out of it.
    fn judge(&mut self, message: &mut ClientJsonRpcMessage) -> Fate {
        let JsonRpcMessage::Request(message) = message else {
            // rmcp gives up on a client that notifies first; an old server shrugs.
            return if self.initialized { Fate::Pass } else { Fate::Drop };
        };
        if is_modern(&message.request) {
            return Fate::Refuse(message.id.clone(), ErrorCode::METHOD_NOT_FOUND, "method not found");
        }
        self.initialized |= matches!(message.request, ClientRequest::InitializeRequest(_));
        if !self.initialized && !matches!(message.request, ClientRequest::PingRequest(_)) {
            return Fate::Refuse(message.id.clone(), ErrorCode::INVALID_REQUEST, "not initialized yet");
        }
        message.request.get_meta_mut().retain(|key, _| !key.starts_with(MODERN));
        Fate::Pass
    }
}

fn is_modern(request: &ClientRequest) -> bool {
    let method = request.method();
    method == "server/discover" || method == "subscriptions/listen" || method.starts_with("tasks/")
}

impl<T: Transport<RoleServer>> Transport<RoleServer> for Legacy<T> {
    type Error = T::Error;

    fn send(
        &mut self,
        message: ServerJsonRpcMessage,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send + 'static {
        self.inner.send(message)
    }

    async fn receive(&mut self) -> Option<ClientJsonRpcMessage> {
        loop {
            let mut message = self.inner.receive().await?;
            match self.judge(&mut message) {
                Fate::Pass => return Some(message),
                Fate::Drop => {}
                Fate::Refuse(id, code, why) => {
                    let error = ErrorData::new(code, why, None);
                    self.inner.send(ServerJsonRpcMessage::error(error, Some(id))).await.ok()?;
                }
            }
        }
    }

    fn close(&mut self) -> impl Future<Output = Result<(), Self::Error>> + Send {
        self.inner.close()
    }
}
