//! What of a JSON-RPC message has to be read so that it can travel as it is: its envelope, and
//! what the headers of 2026-07-28 repeat.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::value::RawValue;

/// A message, and where in it things stand. A key that stands twice is refused: two readers could
/// take it for two messages.
#[derive(Deserialize)]
pub(super) struct Envelope<'a> {
    #[serde(borrow, default)]
    pub(super) id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(super) method: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    params: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(super) result: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(super) error: Option<&'a RawValue>,
}

#[derive(Deserialize, Default)]
struct Params<'a> {
    #[serde(borrow, default, rename = "_meta")]
    meta: Option<&'a RawValue>,
    #[serde(borrow, default)]
    name: Option<&'a RawValue>,
    #[serde(borrow, default)]
    uri: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "requestId")]
    request_id: Option<&'a RawValue>,
}

#[derive(Deserialize, Default)]
struct Meta<'a> {
    #[serde(borrow, default, rename = "io.modelcontextprotocol/protocolVersion")]
    version: Option<Cow<'a, str>>,
}

/// What a client's message says beside its envelope.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Said {
    /// The version in `_meta`, by which a message is a modern one.
    pub(super) version: Option<String>,
    /// `params.name`, or `params.uri` of `resources/read`.
    pub(super) name: Option<String>,
    /// What `notifications/cancelled` is about, as [`key`] has it.
    pub(super) cancels: Option<String>,
}

impl<'a> Envelope<'a> {
    /// `None` if it is no JSON object that could be a message.
    pub(super) fn read(text: &'a [u8]) -> Option<Self> {
        // serde would take a list for an object as well.
        let is_object = text.trim_ascii_start().first() == Some(&b'{');
        let envelope: Self = is_object.then(|| serde_json::from_slice(text).ok()).flatten()?;
        let is_one = envelope.method.is_some() || envelope.id.is_some() || envelope.error.is_some();
        is_one.then_some(envelope)
    }

    /// What it says in its params; `None` if those cannot be read for certain.
    pub(super) fn said(&self) -> Option<Said> {
        let params: Params<'_> = object(self.params)?;
        let meta: Meta<'_> = object(params.meta)?;
        let text = |raw: Option<&RawValue>| raw.and_then(|raw| serde_json::from_str(raw.get()).ok());
        let name = match self.method.as_deref() {
            Some("tools/call" | "prompts/get") => text(params.name),
            Some("resources/read") => text(params.uri),
            Some(_) | None => None,
        };
        Some(Said { version: meta.version.map(Cow::into_owned), name, cancels: params.request_id.map(key) })
    }
}

/// Reads what is an object; what is absent or anything else says nothing.
fn object<'a, T: Deserialize<'a> + Default>(raw: Option<&'a RawValue>) -> Option<T> {
    match raw {
        Some(raw) if raw.get().starts_with('{') => serde_json::from_str(raw.get()).ok(),
        Some(_) | None => Some(T::default()),
    }
}

/// An id by which two spellings of it are the same.
pub(super) fn key(id: &RawValue) -> String {
    let text: Option<String> = serde_json::from_str(id.get()).ok();
    text.map_or_else(|| id.get().to_owned(), |text| serde_json::Value::from(text).to_string())
}

/// What a server says it can do, as far as lists go that change: tools, prompts, resources.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Lists {
    pub(super) tools: bool,
    pub(super) prompts: bool,
    pub(super) resources: bool,
}

/// The version and the lists of an initialize result.
pub(super) fn opened(result: &RawValue) -> (Option<String>, Lists) {
    #[derive(Deserialize, Default)]
    #[serde(rename_all = "camelCase")]
    struct Result {
        #[serde(default)]
        protocol_version: Option<String>,
        #[serde(default)]
        capabilities: Capabilities,
    }
    #[derive(Deserialize, Default)]
    struct Capabilities {
        tools: Option<serde::de::IgnoredAny>,
        prompts: Option<serde::de::IgnoredAny>,
        resources: Option<serde::de::IgnoredAny>,
    }
    let Result { protocol_version, capabilities } = object(Some(result)).unwrap_or_default();
    let Capabilities { tools, prompts, resources } = capabilities;
    let lists = Lists { tools: tools.is_some(), prompts: prompts.is_some(), resources: resources.is_some() };
    (protocol_version, lists)
}

/// An error for the request with this id (as it was written).
pub(super) fn error(id: &str, code: i32, text: &str) -> Vec<u8> {
    let text = serde_json::Value::from(text);
    format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"error\":{{\"code\":{code},\"message\":{text}}}}}")
        .into_bytes()
}

/// Somebody's error, with the id of the request that it answers.
pub(super) fn error_of(id: &str, error: &RawValue) -> Vec<u8> {
    format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"error\":{}}}", error.get()).into_bytes()
}

/// A message as one line: outside of strings, where line ends cannot stand, JSON takes a space for
/// a line end.
pub(super) fn one_line(mut text: Vec<u8>) -> Vec<u8> {
    for byte in &mut text {
        if matches!(byte, b'\n' | b'\r') {
            *byte = b' ';
        }
    }
    text
}

/// A value as `Mcp-Name` carries it (2026-07-28, Streamable HTTP, "Value Encoding").
pub(super) fn header(value: &str) -> Cow<'_, str> {
    let looks_encoded = value.starts_with("=?base64?") && value.ends_with("?=");
    if is_plain(value) && !looks_encoded {
        Cow::Borrowed(value)
    } else {
        Cow::Owned(format!("=?base64?{}?=", STANDARD.encode(value)))
    }
}

/// True if a header can carry it as it is.
pub(super) fn is_plain(value: &str) -> bool {
    value.bytes().all(|b| matches!(b, b' '..=b'~')) && value.trim_matches(' ') == value && !value.is_empty()
}
