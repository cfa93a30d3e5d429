//! What the headers of a request say about its form.

use hyper::StatusCode;
use hyper::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderName};

use crate::logic::era::Heads;
use crate::logic::exchange::Head;

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

/// A header's value. One that is no text, or is there twice, is as good as an empty one: it is right
/// nowhere.
fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    match head(headers, name) {
        Head::Absent => None,
        Head::Is(value) => Some(value),
        Head::Doubtful => Some(""),
    }
}

pub(super) fn head<'a>(headers: &'a HeaderMap, name: &str) -> Head<'a> {
    let mut all = headers.get_all(name).iter();
    match (all.next(), all.next()) {
        (None, _) => Head::Absent,
        (Some(value), None) => value.to_str().map_or(Head::Doubtful, Head::Is),
        (Some(_), Some(_)) => Head::Doubtful,
    }
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

/// True if of the two forms of an answer the client likes a stream of events better: it gives it more
/// weight (RFC 9110 §12.5.1), or the same and names it first.
pub(super) fn prefers_events(headers: &HeaderMap) -> bool {
    let values = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let mut best = (0.0, false);
    for range in values.flat_map(|value| value.split(',')) {
        let mut parts = range.split(';').map(str::trim_ascii);
        let is_events = match parts.next().unwrap_or_default() {
            form if form.eq_ignore_ascii_case("text/event-stream") => true,
            form if form.eq_ignore_ascii_case("application/json") => false,
            _ => continue,
        };
        let weight =
            parts.find_map(|part| part.strip_prefix("q=")).map_or(Some(1.0), |q| q.parse::<f32>().ok());
        if let Some(weight) = weight.filter(|weight| *weight > best.0) {
            best = (weight, is_events);
        }
    }
    best.1
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
    fn of_two_forms_the_one_with_more_weight_is_liked_better_and_of_equals_the_first() {
        let prefers = |accept: &'static str| prefers_events(&headers(&[("accept", accept)]));
        assert!(prefers("text/event-stream, application/json"));
        assert!(prefers("application/json;q=0.5, Text/Event-Stream ; q=0.9"));
        for accept in
            ["application/json, text/event-stream", "*/*", "", "text/event-stream;q=0.1,application/json"]
        {
            assert!(!prefers(accept), "{accept}");
        }
        assert!(!prefers_events(&headers(&[])));
    }

    #[test]
    fn a_header_that_is_there_twice_is_right_nowhere() {
        let twice = headers(&[("mcp-name", "a"), ("mcp-name", "a"), ("mcp-method", "b")]);
        assert_eq!((head(&twice, "mcp-name"), head(&twice, "mcp-method")), (Head::Doubtful, Head::Is("b")));
        assert_eq!((mcp(&twice).name, head(&twice, "x")), (Some(""), Head::Absent));
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
