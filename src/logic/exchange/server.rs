//! What is known of the server from its opening.

use crate::logic::era::{LEGACY, META_SERVER, MODERN};
use crate::logic::frame::{each_element, members, text_of};

use super::Opened;

/// What the result of `initialize` or `server/discover` said; JSON as it came.
#[derive(Debug, Clone)]
pub(super) struct Server {
    pub(super) is_modern: bool,
    /// The whole result.
    pub(super) result: Box<str>,
    /// The legacy revision it speaks; for a modern one the newest there is.
    pub(super) version: Box<str>,
    pub(super) capabilities: Box<str>,
    pub(super) info: Box<str>,
    pub(super) instructions: Option<Box<str>>,
    /// Which lists it says it announces changes of.
    pub(super) announces: [bool; 3],
    /// It takes subscriptions to resources.
    pub(super) subscribe: bool,
    /// It logs.
    pub(super) logging: bool,
}

/// The lists of which a server can announce a change: its capability, the field in a listen filter, the
/// notification.
pub(super) const LISTS: [(&str, &str, &str); 3] = [
    ("tools", "toolsListChanged", "notifications/tools/list_changed"),
    ("prompts", "promptsListChanged", "notifications/prompts/list_changed"),
    ("resources", "resourcesListChanged", "notifications/resources/list_changed"),
];

impl Server {
    /// Reads an opening. `None` if it is none.
    pub(super) fn read(opened: &Opened) -> Option<Self> {
        let result = &*opened.result;
        let names = ["protocolVersion", "capabilities", "serverInfo", "instructions", "_meta"];
        let [version, capabilities, info, instructions, meta] = members(result, names).ok()?;
        let in_meta = meta.and_then(|meta| members(meta, [META_SERVER]).ok()).and_then(|[info]| info);
        let version = match version.and_then(text_of) {
            _ if opened.is_modern => LEGACY[0].into(),
            Some(version) => version,
            None => return None,
        };
        let capabilities = capabilities.filter(|json| json.starts_with('{')).unwrap_or("{}");
        let [tools, prompts, resources, logging] =
            members(capabilities, ["tools", "prompts", "resources", "logging"]).ok()?;
        let says = |of: Option<&str>, what: &str| {
            let found = of.and_then(|of| members(of, [what]).ok()).and_then(|[value]| value);
            found == Some("true")
        };
        Some(Self {
            is_modern: opened.is_modern,
            result: result.into(),
            version: (*version).into(),
            capabilities: capabilities.into(),
            info: info.or(in_meta).unwrap_or(r#"{"name":"unknown","version":"0"}"#).into(),
            instructions: instructions.map(Into::into),
            announces: [tools, prompts, resources].map(|list| says(list, "listChanged")),
            subscribe: says(resources, "subscribe"),
            logging: logging.is_some(),
        })
    }

    /// The revision of a session with a client that asked for `wanted`: the client's, unless the
    /// server is older or we do not know it.
    pub(super) fn version_for(&self, wanted: &str) -> Box<str> {
        let age = |version: &str| LEGACY.iter().position(|known| *known == version);
        match (age(wanted), age(&self.version)) {
            (Some(client), Some(server)) if client >= server => wanted.into(),
            _ => self.version.clone(),
        }
    }

    /// The result of a legacy client's `initialize`.
    pub(super) fn initialized(&self, version: &str) -> String {
        if !self.is_modern {
            let version_there = members(&self.result, ["protocolVersion"]).ok().and_then(|[version]| version);
            let mut splice = crate::logic::frame::Splice::new(&self.result);
            if let Some(there) = version_there {
                splice.put(there, crate::logic::frame::quoted(version));
            }
            return String::from_utf8(splice.finish("")).unwrap_or_default();
        }
        let (capabilities, info) = (&self.capabilities, &self.info);
        let instructions = self.instruct();
        format!(
            r#"{{"protocolVersion":"{version}","capabilities":{capabilities},"serverInfo":{info}{instructions}}}"#
        )
    }

    /// The result of a modern client's `server/discover` where the server is a legacy one.
    pub(super) fn discovered(&self) -> String {
        let (capabilities, info, instructions) = (&self.capabilities, &self.info, self.instruct());
        format!(
            r#"{{"resultType":"complete","supportedVersions":["{MODERN}"],"capabilities":{capabilities}{instructions},"ttlMs":0,"cacheScope":"private","_meta":{{"{META_SERVER}":{info}}}}}"#
        )
    }

    fn instruct(&self) -> String {
        self.instructions.as_ref().map(|text| format!(r#","instructions":{text}"#)).unwrap_or_default()
    }
}

/// True if this result of `server/discover` names a modern revision that we speak.
pub(super) fn is_modern(result: &str) -> bool {
    let Ok([Some(versions)]) = members(result, ["supportedVersions"]) else { return false };
    let mut found = false;
    each_element(versions, |version| found |= text_of(version).is_some_and(|version| version == MODERN))
        .is_ok()
        && found
}

/// How severe a log level is, 0 the least (RFC 5424 names). `None`: no such level.
pub(super) fn severity(level: &str) -> Option<u8> {
    let levels = ["debug", "info", "notice", "warning", "error", "critical", "alert", "emergency"];
    levels.iter().position(|known| *known == level).and_then(|at| u8::try_from(at).ok())
}
