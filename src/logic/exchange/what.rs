//! What a request asks for.

/// What a request asks for, as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
    Subscribe,
    Unsubscribe,
    SetLevel,
    Ping,
    /// The `initialize` of the one client of an isolated process.
    Initialize,
}

impl What {
    pub(super) fn of(method: &str) -> Self {
        match method {
            "tools/call" | "prompts/get" => Self::CanAsk,
            "resources/read" => Self::Read,
            "tools/list" | "prompts/list" | "resources/list" | "resources/templates/list" => Self::List,
            "server/discover" => Self::Discover,
            "subscriptions/listen" => Self::Listen,
            "resources/subscribe" => Self::Subscribe,
            "resources/unsubscribe" => Self::Unsubscribe,
            "logging/setLevel" => Self::SetLevel,
            "ping" => Self::Ping,
            _ => Self::Other,
        }
    }

    pub(super) const fn can_ask(self) -> bool {
        matches!(self, Self::CanAsk | Self::Read)
    }
}
