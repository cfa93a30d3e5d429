//! The outermost ring: the real program, real processes, a file per behaviour. Nothing here waits
//! for time; [`host`] holds what the tests say it with.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::unnecessary_debug_formatting,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::type_complexity,
    clippy::needless_for_each,
    clippy::items_after_statements,
    clippy::wildcard_enum_match_arm,
    missing_docs,
    reason = "a test starts programs and stops at the first thing that is wrong"
)]

mod access;
mod bad_input;
mod cage;
mod connect;
mod control;
mod crash;
mod delegated;
mod doctor;
mod doors;
mod failpoints;
mod files;
mod host;
mod identity;
mod inflight;
mod init;
mod manager;
mod outlive;
mod outside;
mod real;
mod restore;
mod seals;
mod secrets;
mod seen;
mod sessions;
mod spawn;
mod stdio;
mod tree;
mod wire;
mod wishes;
