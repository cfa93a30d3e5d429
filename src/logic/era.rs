//! Protocol revisions: which era a POST speaks, and the HTTP side of what it may say.
//!
//! The *legacy* era (2024-11-05 to 2025-11-25) opens a session with `initialize`; the *modern* one
//! (2026-07-28) says in every request who asks and in which revision, in the body and again in
//! headers. Both are served at the same address, so the request tells ([`classify`]); what it says
//! in headers must be what it says in its body, or whoever trusted the header was misled.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::frame::{
    self, Body, DOUBTFUL, Frame, INVALID_PARAMS, INVALID_REQUEST, Kind, few_members, text_of,
};

/// The modern revision we serve.
pub const MODERN: &str = "2026-07-28";

/// The legacy revisions we serve, newest first. Streamable HTTP came after 2024-11-05, but a server that
/// knows nothing newer negotiates it, and the client then says so in its header.
pub const LEGACY: [&str; 4] = ["2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05"];

/// What a request without a version speaks, unless its session says otherwise (2025-11-25, transports).
pub const ASSUMED: &str = "2025-03-26";

/// 2026-07-28: a header is absent or differs from the body.
pub const HEADER_MISMATCH: i32 = -32020;
/// 2026-07-28: the client lacks a capability.
pub const MISSING_CAPABILITY: i32 = -32021;
/// 2026-07-28: the revision is not served.
pub const UNSUPPORTED_VERSION: i32 = -32022;

/// `_meta`: the revision of a modern request.
pub const META_VERSION: &str = "io.modelcontextprotocol/protocolVersion";
/// `_meta`: the client's capabilities.
pub const META_CAPABILITIES: &str = "io.modelcontextprotocol/clientCapabilities";
/// `_meta`: the client's name.
pub const META_CLIENT: &str = "io.modelcontextprotocol/clientInfo";
/// `_meta`: the level from which log messages are wanted.
pub const META_LEVEL: &str = "io.modelcontextprotocol/logLevel";
/// `_meta`: whose notification this is.
pub const META_SUBSCRIPTION: &str = "io.modelcontextprotocol/subscriptionId";
/// `_meta`: the server's name.
pub const META_SERVER: &str = "io.modelcontextprotocol/serverInfo";

/// The methods that a modern server does not have (any more). We answer them ourselves: `initialize` would
/// turn a process that speaks both eras into one that speaks the other.
pub const REMOVED: [&str; 5] =
    ["initialize", "ping", "logging/setLevel", "resources/subscribe", "resources/unsubscribe"];

/// What the headers of a POST say, where they are present; surrounding blanks do not matter.
#[derive(Debug, Clone, Copy, Default)]
pub struct Heads<'a> {
    /// `MCP-Protocol-Version`.
    pub version: Option<&'a str>,
    /// `Mcp-Method`.
    pub method: Option<&'a str>,
    /// `Mcp-Name`.
    pub name: Option<&'a str>,
    /// `Mcp-Session-Id`.
    pub session: Option<&'a str>,
}

/// A refusal as it goes to the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// HTTP status.
    pub status: u16,
    /// A JSON-RPC error response.
    pub body: Vec<u8>,
}

/// What a POST is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Post {
    /// One request or notification of the modern era, with headers that are right; a session id with it
    /// means nothing.
    Modern,
    /// A legacy `initialize`: begins a session.
    Initialize,
    /// A legacy POST, which needs a session.
    InSession,
}

/// True for a revision with which a batch may be posted: it came with 2025-03-26 and went after it.
#[must_use]
pub fn allows_batch(version: &str) -> bool {
    version == "2025-03-26"
}

/// Says what a POST is.
///
/// A request is modern if its `_meta` names a revision, or the header names one that is no legacy one.
///
/// # Errors
///
/// What 2026-07-28 demands a refusal for (missing `_meta` fields, headers that are absent or differ, a
/// revision that is not served); and for a legacy POST a revision that is not served, or no session.
pub fn classify(heads: &Heads<'_>, body: &Body<'_>) -> Result<Post, Refused> {
    let version = heads.version.map(str::trim_ascii);
    let is_legacy = version.is_none_or(|version| LEGACY.contains(&version));
    match body {
        Body::Batch(_) if is_legacy => in_session(heads, None),
        Body::Batch(_) => Err(refuse(400, None, INVALID_REQUEST, "a batch is not allowed")),
        Body::One(frame) => match meta_of(frame) {
            Err(refused) => Err(refused),
            Ok(meta) if !is_legacy || meta.version.is_some() => modern(heads, version, frame, &meta),
            Ok(_) if matches!(&frame.kind, Kind::Request { method, .. } if method == "initialize") => {
                Ok(Post::Initialize)
            }
            Ok(_) => in_session(heads, frame.request_id()),
        },
    }
}

/// Checks the `MCP-Protocol-Version` of a legacy GET, DELETE or POST of a session whose revision is
/// `session`. Absent is right: some clients never send it.
///
/// # Errors
///
/// 400 when it is neither the session's nor one we serve.
pub fn check_version(version: Option<&str>, session: &str) -> Result<(), Refused> {
    match version.map(str::trim_ascii) {
        Some(version) if version != session && !LEGACY.contains(&version) => Err(unsupported(None, version)),
        Some(_) | None => Ok(()),
    }
}

/// The HTTP status under which an error of a process goes to a modern client, where it is the whole answer.
#[must_use]
pub const fn status_of(code: i64) -> u16 {
    match code {
        -32601 => 404,
        -32022..=-32020 => 400,
        _ => 200,
    }
}

fn in_session(heads: &Heads<'_>, id: Option<&str>) -> Result<Post, Refused> {
    if heads.session.is_some() {
        return Ok(Post::InSession);
    }
    Err(refuse(400, id, INVALID_REQUEST, "this needs an Mcp-Session-Id header; begin with initialize"))
}

/// What routing needs of `_meta`; JSON as it came.
#[derive(Default)]
struct Meta<'a> {
    version: Option<&'a str>,
    capabilities: Option<&'a str>,
    /// `params.name`, `params.uri`, `params.taskId`.
    name: Option<&'a str>,
    uri: Option<&'a str>,
    task: Option<&'a str>,
}

fn meta_of<'a>(frame: &Frame<'a>) -> Result<Meta<'a>, Refused> {
    let Some(params) = frame.params.filter(|params| params.starts_with('{')) else {
        return Ok(Meta::default());
    };
    let read = || {
        let [meta, name, uri, task] = few_members(params, ["_meta", "name", "uri", "taskId"])?;
        let [version, capabilities] = match meta.filter(|meta| meta.starts_with('{')) {
            Some(meta) => few_members(meta, [META_VERSION, META_CAPABILITIES])?,
            None => [None, None],
        };
        Ok(Meta { version, capabilities, name, uri, task })
    };
    let doubtful = |_: frame::Bad| refuse(400, frame.request_id(), INVALID_PARAMS, DOUBTFUL);
    read().map_err(doubtful)
}

fn modern(
    heads: &Heads<'_>,
    version: Option<&str>,
    frame: &Frame<'_>,
    meta: &Meta<'_>,
) -> Result<Post, Refused> {
    let id = frame.request_id();
    let method = match &frame.kind {
        Kind::Request { method, .. } => method,
        // No header is defined for notifications, and no `_meta` of theirs is required.
        Kind::Notification { method } => {
            let served = version.is_none_or(|version| version == MODERN);
            let same = heads.method.is_none_or(|head| head.trim_ascii() == method);
            return match (served, same) {
                (true, true) => Ok(Post::Modern),
                (false, _) => Err(unsupported(id, version.unwrap_or_default())),
                (true, false) => Err(header_mismatch(id, "Mcp-Method is not the method of the body")),
            };
        }
        Kind::Answer { .. } => {
            return Err(refuse(400, None, INVALID_REQUEST, "a client of this revision sends no answers"));
        }
    };
    let said = meta.version.and_then(text_of);
    // A revision that we do not know may have other rules, so it is refused before ours are applied.
    if let (Some(version), None) = (version, &said)
        && version != MODERN
    {
        return Err(unsupported(id, version));
    }
    let Some(said) = said else {
        return Err(refuse(400, id, INVALID_PARAMS, &format!("_meta lacks {META_VERSION}")));
    };
    if !meta.capabilities.is_some_and(|json| json.starts_with('{')) {
        return Err(refuse(400, id, INVALID_PARAMS, &format!("_meta lacks {META_CAPABILITIES}")));
    }
    if version != Some(&*said) {
        return Err(header_mismatch(id, "MCP-Protocol-Version is absent or not the version of the body"));
    }
    if said != MODERN {
        return Err(unsupported(id, &said));
    }
    if heads.method.map(str::trim_ascii) != Some(&**method) {
        return Err(header_mismatch(id, "Mcp-Method is absent or not the method of the body"));
    }
    let name = match &**method {
        "tools/call" | "prompts/get" => meta.name,
        "resources/read" => meta.uri,
        // The extension for tasks.
        "tasks/get" | "tasks/update" | "tasks/cancel" => meta.task,
        _ => return Ok(Post::Modern),
    };
    let head = heads.name.map(|head| decoded(head.trim_ascii()));
    match (head, name.and_then(text_of)) {
        (None, None) => Ok(Post::Modern),
        (Some(Some(head)), Some(name)) if head == name => Ok(Post::Modern),
        _ => Err(header_mismatch(id, "Mcp-Name is absent or not the name in the body")),
    }
}

/// What a header value says: itself, or what stands in `=?base64?…?=`. `None` if that is no base64 of UTF-8.
#[must_use]
pub fn decoded(value: &str) -> Option<String> {
    let Some(wrapped) = value.strip_prefix("=?base64?").and_then(|value| value.strip_suffix("?=")) else {
        return Some(value.to_owned());
    };
    STANDARD.decode(wrapped).ok().and_then(|bytes| String::from_utf8(bytes).ok())
}

/// A refusal of headers that are absent or say something else than the body.
#[must_use]
pub fn header_mismatch(id: Option<&str>, why: &str) -> Refused {
    refuse(400, id, HEADER_MISMATCH, why)
}

fn unsupported(id: Option<&str>, requested: &str) -> Refused {
    let data = format!(r#"{{"supported":["{MODERN}"],"requested":{}}}"#, frame::quoted(requested));
    let body = frame::error_with(id, UNSUPPORTED_VERSION, "unsupported protocol version", Some(&data));
    Refused { status: 400, body }
}

/// A refusal with this status and error.
#[must_use]
pub fn refuse(status: u16, id: Option<&str>, code: i32, why: &str) -> Refused {
    Refused { status, body: frame::error(id, code, why) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const META: &str = r#""_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}"#;

    /// What a POST is, or its status and code.
    fn post(heads: Heads<'_>, body: &str) -> Result<Post, (u16, i64)> {
        classify(&heads, &frame::parse_body(body.as_bytes()).unwrap()).map_err(|refused| {
            let body: serde_json::Value = serde_json::from_slice(&refused.body).unwrap();
            (refused.status, body["error"]["code"].as_i64().unwrap())
        })
    }

    fn call(method: &str, params: &str) -> String {
        format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{{{params}}}}}"#)
    }

    fn heads<'a>(method: &'a str, name: Option<&'a str>) -> Heads<'a> {
        Heads { version: Some(MODERN), method: Some(method), name, session: Some("ignored") }
    }

    #[test]
    fn a_modern_request_is_one_whose_headers_say_what_its_body_says() {
        let list = call("tools/list", META);
        assert_eq!(post(heads("tools/list", None), &list), Ok(Post::Modern));
        assert_eq!(post(heads(" tools/list ", Some("ignored")), &list), Ok(Post::Modern));
        for method in [None, Some("prompts/list"), Some("TOOLS/LIST")] {
            assert_eq!(post(Heads { method, ..heads("", None) }, &list), Err((400, -32020)), "{method:?}");
        }
        for version in [None, Some("2025-11-25"), Some("v9")] {
            assert_eq!(post(Heads { version, ..heads("tools/list", None) }, &list), Err((400, -32020)));
        }
        let name = format!(r#""name":"gr\u00fc\u00df","uri":"no",{META}"#);
        let named = call("tools/call", &name);
        assert_eq!(post(heads("tools/call", Some("=?base64?Z3LDvMOf?=")), &named), Ok(Post::Modern));
        for name in [None, Some("no"), Some("=?base64?!?="), Some("=?base64?Z3LDvMO?="), Some("Z3LDvMOf")] {
            assert_eq!(post(heads("tools/call", name), &named), Err((400, -32020)), "{name:?}");
        }
        let read = call("resources/read", &format!(r#""uri":"a://b",{META}"#));
        assert_eq!(post(heads("resources/read", Some("  a://b ")), &read), Ok(Post::Modern));
        let task = call("tasks/get", &format!(r#""taskId":"7",{META}"#));
        assert_eq!(post(heads("tasks/get", Some("7")), &task), Ok(Post::Modern));
        assert_eq!(post(heads("tasks/get", Some("8")), &task), Err((400, -32020)));
    }

    #[test]
    fn a_modern_request_without_its_meta_is_told_so_before_anything_else() {
        for meta in [
            "",
            r#""_meta":{}"#,
            r#""_meta":3"#,
            r#""_meta":{"io.modelcontextprotocol/clientCapabilities":{}}"#,
            r#""_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}"#,
            r#""_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":[]}"#,
            r#""_meta":{},"_meta":{}"#,
        ] {
            let found = post(heads("server/discover", None), &call("server/discover", meta));
            assert_eq!(found, Err((400, -32602)), "{meta}");
        }
    }

    #[test]
    fn a_revision_that_is_not_served_is_answered_with_those_that_are() {
        let body = call("server/discover", &META.replace(MODERN, "v999.0.0"));
        let heads = Heads { version: Some("v999.0.0"), ..heads("server/discover", None) };
        let refused = classify(&heads, &frame::parse_body(body.as_bytes()).unwrap()).unwrap_err();
        let body: serde_json::Value = serde_json::from_slice(&refused.body).unwrap();
        let data = serde_json::json!({"supported": [MODERN], "requested": "v999.0.0"});
        assert_eq!((refused.status, &body["id"], &body["error"]["data"]), (400, &1.into(), &data));
        assert_eq!(post(heads, &call("tools/list", "")), Err((400, -32022)));
    }

    #[test]
    fn a_legacy_post_begins_a_session_or_has_one() {
        let open = call("initialize", r#""protocolVersion":"2025-11-25""#);
        assert_eq!(post(Heads::default(), &open), Ok(Post::Initialize));
        assert_eq!(post(heads("initialize", None), &call("initialize", META)), Ok(Post::Modern));
        let list = call("tools/list", "");
        assert_eq!(post(Heads::default(), &list), Err((400, -32600)));
        for version in [None, Some("2025-03-26"), Some("2025-11-25")] {
            let heads = Heads { version, session: Some("s"), ..Heads::default() };
            assert_eq!(post(heads, &list), Ok(Post::InSession));
            assert_eq!(post(heads, &format!("[{list}]")), Ok(Post::InSession));
        }
        assert_eq!(post(heads("tools/list", None), &format!("[{list}]")), Err((400, -32600)));
    }

    #[test]
    fn a_client_of_the_modern_era_notifies_but_answers_nothing() {
        let cancelled = r#"{"jsonrpc":"2.0","method":"notifications/cancelled"}"#;
        assert_eq!(post(heads("notifications/cancelled", None), cancelled), Ok(Post::Modern));
        let answer = r#"{"jsonrpc":"2.0","id":1,"result":{}}"#;
        assert_eq!(post(heads("", None), answer), Err((400, -32600)));
    }

    #[test]
    fn an_absent_version_is_right_in_a_session_and_an_unknown_one_is_not() {
        assert_eq!(check_version(None, "2025-06-18"), Ok(()));
        assert_eq!(check_version(Some(" 2025-03-26"), "2025-06-18"), Ok(()));
        assert_eq!(check_version(Some("odd"), "odd"), Ok(()));
        assert_eq!(check_version(Some("odd"), "2025-06-18").unwrap_err().status, 400);
        assert_eq!(
            [-32601, -32020, -32021, -32022, -32602, 1].map(status_of),
            [404, 400, 400, 400, 200, 200]
        );
    }
}
