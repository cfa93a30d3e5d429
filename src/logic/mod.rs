//! Decisions: no I/O, no clock, no randomness, no async, no logging. Same calls, same answers.
//!
//! * what files say: `config`, `envfile`, `template`, `selfserve`, `snippet` (a client's own files)
//! * what each user gets: `roster`, `ports`, `uids`, `cage`
//! * what runs: `fleet`, `instance`
//! * who may: `access`, `token`
//! * what is passed on: `frame`, `overlong`, `era`, `exchange`, `connect`; what is hidden: `redact`

pub mod access;
pub mod cage;
pub mod config;
pub mod connect;
pub mod doctor;
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
