//! What a request asks for.

use crate::logic::frame::{members, text_of};

/// What a request asks for, as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum What {
    /// Whatever else.
    Other,
    /// Can make a process ask its client something.
    CanAsk,
    /// The same, and its result can be cached.
    Read,
    /// A list; its result can be cached.
    List,
    Discover,
    Listen,
    Subscribe(Box<str>),
    Unsubscribe(Box<str>),
    SetLevel(Box<str>),
    Ping,
    /// The `initialize` of the one client of an isolated process.
    Initialize,
}

impl What {
    pub(super) fn of(method: &str, params: Option<&str>) -> Self {
        let text = |name: &str| -> Option<Box<str>> {
            let [found] = members(params?, [name]).ok()?;
            text_of(found?).map(|text| (*text).into())
        };
        match method {
            "tools/call" | "prompts/get" => Self::CanAsk,
            "resources/read" => Self::Read,
            "tools/list" | "prompts/list" | "resources/list" | "resources/templates/list" => Self::List,
            "server/discover" => Self::Discover,
            "subscriptions/listen" => Self::Listen,
            "resources/subscribe" => text("uri").map_or(Self::Other, Self::Subscribe),
            "resources/unsubscribe" => text("uri").map_or(Self::Other, Self::Unsubscribe),
            "logging/setLevel" => text("level").map_or(Self::Other, Self::SetLevel),
            "ping" => Self::Ping,
            _ => Self::Other,
        }
    }

    pub(super) const fn can_ask(&self) -> bool {
        matches!(self, Self::CanAsk | Self::Read)
    }
}
