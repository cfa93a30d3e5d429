//! Decisions: no I/O, no clock, no randomness, no async, no logging. Same calls, same answers.

pub mod access;
pub mod cage;
pub mod config;
pub mod connect;
pub mod envfile;
pub mod era;
pub mod exchange;
pub mod fleet;
pub mod frame;
pub mod instance;
pub mod overlong;
pub mod ports;
pub mod redact;
pub mod roster;
pub mod selfserve;
pub mod snippet;
pub mod template;
pub mod token;
pub mod uids;
