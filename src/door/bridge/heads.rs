//! What the headers of a request say about its form.

use hyper::StatusCode;
use hyper::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderName};

use crate::logic::era::Heads;

pub(super) const SESSION: HeaderName = HeaderName::from_static("mcp-session-id");
const VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");
const LAST_EVENT: HeaderName = HeaderName::from_static("last-event-id");

/// A status, and why.
pub(super) type Fault = (StatusCode, &'static str);

/// What MCP says in headers.
pub(super) fn mcp(headers: &HeaderMap) -> Heads<'_> {
    Heads {
        version: version(headers),
        method: text(headers, "mcp-method"),
        name: text(headers, "mcp-name"),
        session: session(headers),
    }
}

pub(super) fn version(headers: &HeaderMap) -> Option<&str> {
    text(headers, VERSION.as_str())
}

pub(super) fn session(headers: &HeaderMap) -> Option<&str> {
    text(headers, SESSION.as_str())
}

pub(super) fn last_event(headers: &HeaderMap) -> Option<&str> {
    text(headers, LAST_EVENT.as_str())
}

/// A header's value. One that is no text is as good as an empty one: it is right nowhere.
fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).map(|value| value.to_str().unwrap_or_default())
}

/// A POST holds JSON, and its client must be able to read both forms of the answer (MCP, Streamable
/// HTTP, "Sending Messages to the Server").
pub(super) fn check_post(headers: &HeaderMap) -> Result<(), Fault> {
    let kind = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let (kind, _parameters) = kind.split_once(';').unwrap_or((kind, ""));
    if !kind.trim_ascii().eq_ignore_ascii_case("application/json") {
        return Err((StatusCode::UNSUPPORTED_MEDIA_TYPE, "a POST must have Content-Type: application/json"));
    }
    if accepts(headers, "application", "json") && accepts(headers, "text", "event-stream") {
        return Ok(());
    }
    Err((StatusCode::NOT_ACCEPTABLE, "a client must accept both application/json and text/event-stream"))
}

pub(super) fn check_get(headers: &HeaderMap) -> Result<(), Fault> {
    if accepts(headers, "text", "event-stream") {
        return Ok(());
    }
    Err((StatusCode::NOT_ACCEPTABLE, "a client that listens must accept text/event-stream"))
}

/// True if `Accept` names the type, or one that holds it; or if there is none, which names all (RFC
/// 9110 §12.5.1). A weight of zero is not looked for: nobody lists a type to refuse it.
fn accepts(headers: &HeaderMap, class: &str, form: &str) -> bool {
    let mut values = headers.get_all(ACCEPT).iter().peekable();
    if values.peek().is_none() {
        return true;
    }
    let ranges = values.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    ranges.filter_map(|range| range.split(';').next()?.trim_ascii().split_once('/')).any(|(one, other)| {
        (one == "*" && other == "*")
            || one.eq_ignore_ascii_case(class) && (other == "*" || other.eq_ignore_ascii_case(form))
    })
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn a_post_is_json_and_its_client_reads_both_forms() {
        const JSON: (&str, &str) = ("content-type", "Application/JSON; charset=utf-8");
        const BOTH: (&str, &str) = ("accept", "application/json, text/event-stream");
        let status = |pairs: &[_]| check_post(&headers(pairs)).map_err(|(status, _)| status.as_u16());

        for accept in ["*/*", "text/*;q=0.1,application/*", "Text/Event-Stream , application/json;q=0.9"] {
            assert_eq!(status(&[JSON, ("accept", accept)]), Ok(()), "{accept}");
        }
        assert_eq!(status(&[JSON]), Ok(()));
        assert_eq!(status(&[JSON, ("accept", "application/json"), ("accept", "text/event-stream")]), Ok(()));
        for accept in ["application/json", "text/event-stream", "", "text/html, json", "*"] {
            assert_eq!(status(&[JSON, ("accept", accept)]), Err(406), "{accept}");
        }
        assert_eq!(status(&[BOTH]), Err(415));
        assert_eq!(status(&[BOTH, ("content-type", "text/plain")]), Err(415));
        assert_eq!(check_get(&headers(&[BOTH])), Ok(()));
        assert!(check_get(&headers(&[("accept", "text/html")])).is_err());
    }
}
