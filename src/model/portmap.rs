//! The port map as others read it (PRODUCT §6). No secret is in it.

use serde::{Deserialize, Serialize};

use crate::model::status::StateName;
use crate::model::{ServerName, UserName};

/// `ports.json`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortMap {
    /// 1
    pub version: u32,
    /// Grows with every change; also over restarts of the daemon.
    pub generation: u64,
    /// Every instance that has a port, sorted by user and server.
    pub instances: Vec<Entry>,
}

/// One instance's line in the port map.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Whose it is.
    pub user: UserName,
    /// Which server.
    pub server: ServerName,
    /// Its door.
    pub port: u16,
    /// What a client connects to.
    pub url: String,
    /// Its user needs a token there: their connection alone does not say that it is theirs.
    #[serde(default)]
    pub takes_token: bool,
    /// Its state.
    pub state: StateName,
    /// Since when, RFC 3339 in UTC, whole seconds.
    pub since: String,
}
