//! The door's own answers: why a request was not passed on, in words and as JSON-RPC.

use bytes::Bytes;
use hyper::header::{CONNECTION, CONTENT_TYPE, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use hyper::{Response, StatusCode};

use super::body::Reply;
use crate::logic::access::Denied;
use crate::logic::frame;
use crate::model::UserName;

/// The whole answer to a connection beyond the limit.
pub(super) const TOO_MANY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\n\
    content-type: application/json\r\nretry-after: 5\r\nconnection: close\r\ncontent-length: 105\r\n\r\n\
    {\"jsonrpc\":\"2.0\",\"id\":null,\"error\":{\"code\":-32000,\"message\":\"too many connections at once at this door\"}}";

/// Why a request gets no answer from the process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refusal {
    /// No Host header, or several, or a target no origin server has (CONNECT).
    Malformed,
    /// DNS rebinding, or a name that `[door] hosts` lacks.
    ForeignHost,
    /// A page of another site.
    ForeignOrigin,
    /// Somebody who may not use what is this user's.
    Denied(Denied, UserName),
    /// `[door] max_body`
    TooLarge,
    /// `max_message`
    TooLong,
    /// Too many large bodies at once.
    Crowded,
    /// The body stopped coming.
    Slow,
    /// The process did not come within `[door] wait`.
    StillDown,
    /// None will come by itself.
    Closed(String),
    /// Another process listens on the backend port.
    Stranger(UserName),
    /// The process ended, or hung up, after the request may have reached it.
    Broken,
}

impl Refusal {
    fn status(&self) -> StatusCode {
        match self {
            Self::Malformed => StatusCode::BAD_REQUEST,
            Self::Denied(Denied::NoToken | Denied::WrongToken | Denied::ExpiredToken, _) => {
                StatusCode::UNAUTHORIZED
            }
            Self::ForeignHost | Self::ForeignOrigin | Self::Denied(Denied::Stranger, _) => {
                StatusCode::FORBIDDEN
            }
            Self::TooLarge | Self::TooLong => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Slow => StatusCode::REQUEST_TIMEOUT,
            Self::StillDown | Self::Closed(_) | Self::Crowded => StatusCode::SERVICE_UNAVAILABLE,
            Self::Stranger(_) | Self::Broken => StatusCode::BAD_GATEWAY,
        }
    }

    fn text(&self) -> String {
        match self {
            Self::Malformed => "a request needs exactly one Host header and a path".into(),
            Self::ForeignHost => {
                "this Host is not served here; names beside localhost stand in [door] hosts".into()
            }
            Self::ForeignOrigin => "pages of this Origin may not call this server".into(),
            Self::Denied(denied, user) => {
                let needs = match denied {
                    Denied::Stranger => "this connection is not theirs and bears no token of theirs",
                    Denied::NoToken => "it takes a token of theirs, and there was none",
                    Denied::WrongToken => "what was presented is no token of theirs for it",
                    Denied::ExpiredToken => "the time of the token that was presented is over",
                };
                format!("this door is {user}'s: {needs}; see mcpsup headers")
            }
            Self::TooLarge => "the request body is larger than [door] max_body".into(),
            Self::TooLong => "the message is larger than max_message of this server".into(),
            Self::Crowded => "too many large messages are on their way in at once; try again".into(),
            Self::Slow => "the request body stopped coming".into(),
            Self::StillDown => "the server is not up yet; try again".into(),
            Self::Closed(why) => why.clone(),
            Self::Stranger(user) => format!("the process behind this port is not {user}'s"),
            Self::Broken => {
                "the server ended or hung up while answering; the request may have taken effect".into()
            }
        }
    }

    /// Seconds after which trying again makes sense.
    fn retry_after(&self) -> Option<HeaderValue> {
        match self {
            Self::StillDown | Self::Crowded => Some(HeaderValue::from_static("5")),
            Self::Closed(_) => Some(HeaderValue::from_static("60")),
            Self::Malformed
            | Self::ForeignHost
            | Self::ForeignOrigin
            | Self::Denied(..)
            | Self::TooLarge
            | Self::TooLong
            | Self::Slow
            | Self::Stranger(_)
            | Self::Broken => None,
        }
    }

    /// What is left of a body that nobody will read must not be taken for the next request.
    fn closes(&self) -> bool {
        matches!(
            self,
            Self::Malformed | Self::Denied(..) | Self::TooLarge | Self::TooLong | Self::Crowded | Self::Slow
        )
    }

    /// What to come with the next time (RFC 6750 §3). There is no `resource_metadata`: these tokens
    /// are not an OAuth server's, and a client that went looking for one would find none.
    fn challenge(&self) -> Option<HeaderValue> {
        match self {
            Self::Denied(Denied::NoToken, _) => Some(HeaderValue::from_static("Bearer realm=\"mcpsup\"")),
            Self::Denied(Denied::WrongToken, _) => Some(HeaderValue::from_static(
                "Bearer realm=\"mcpsup\", error=\"invalid_token\", error_description=\"no token of this user for this door\"",
            )),
            Self::Denied(Denied::ExpiredToken, _) => Some(HeaderValue::from_static(
                "Bearer realm=\"mcpsup\", error=\"invalid_token\", error_description=\"the token has expired\"",
            )),
            Self::Denied(Denied::Stranger, _)
            | Self::Malformed
            | Self::ForeignHost
            | Self::ForeignOrigin
            | Self::TooLarge
            | Self::TooLong
            | Self::Crowded
            | Self::Slow
            | Self::StillDown
            | Self::Closed(_)
            | Self::Stranger(_)
            | Self::Broken => None,
        }
    }

    pub(super) fn response(&self) -> Response<Reply> {
        self.response_to(None)
    }

    /// The answer to a request whose id is known; it is JSON.
    pub(super) fn response_to(&self, id: Option<&str>) -> Response<Reply> {
        let body = frame::error(id, frame::SERVER_LOST, &self.text());
        let mut response = Response::new(Reply::own(Bytes::from(body)));
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(seconds) = self.retry_after() {
            headers.insert(RETRY_AFTER, seconds);
        }
        if let Some(challenge) = self.challenge() {
            headers.insert(WWW_AUTHENTICATE, challenge);
        }
        if self.closes() {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_to_too_many_is_as_long_as_it_says() {
        let text = std::str::from_utf8(TOO_MANY).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();

        assert!(head.ends_with(&format!("content-length: {}", body.len())), "{}", body.len());
        assert!(serde_json::from_str::<serde_json::Value>(body).is_ok());
    }
}
