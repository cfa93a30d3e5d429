//! What of a run's cage can be had on this host, asked of a fresh process of ours that tries it.

use std::io;
use std::time::Duration;

use super::tool::{self, Environment};
use crate::model::cage::Ground;

/// It takes some milliseconds. A kernel or a security module that never answers must not keep a daemon
/// from starting.
const LIMIT: Duration = Duration::from_secs(20);
/// Longest answer in bytes; the longest right one is a few thousand.
const MOST: usize = 64 * 1024;

/// Asks, once.
///
/// # Errors
///
/// When this program cannot be started once more, or cannot try.
pub fn look() -> io::Result<Ground> {
    let said = tool::run("/proc/self/exe", &["try-cage"], Environment::Bare, b"", MOST, LIMIT);
    let said = said.map_err(io::Error::other)?;
    serde_json::from_slice(&said).map_err(|_| io::Error::other("the attempt said nothing of use"))
}
