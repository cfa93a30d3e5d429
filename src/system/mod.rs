//! Deeds: the only folder that touches the operating system. It takes no decisions.
//!
//! * files: `files`, `trust`, `envdir`, `logfile`, `tail`, `clear`, `places`, `seal` with `tool` and `command`
//! * processes: `process`, `life`, `launcher` (the daemon's side of `launch`), `orders`, `look`, `record`,
//!   `holdings`
//! * what holds and confines them: `containment`, `cgroup`, `tree`, `ground`, `account`
//! * what passes: `pipes`, `socket`, `probe`, `peer`, `ready`
//! * the rest of the machine: `background` (the daemon, for `init`), `clock`, `random`, `signals`, `terminal`, `memory`, `cause` (its words), and
//!   `failpoint` for tests

pub mod account;
pub mod background;
pub mod cause;
pub mod cgroup;
pub mod clear;
pub mod clock;
pub mod command;
pub mod containment;
pub mod envdir;
pub mod failpoint;
pub mod files;
pub mod ground;
pub mod holdings;
pub mod launch;
mod launcher;
mod life;
pub mod logfile;
pub mod look;
pub mod memory;
pub mod notify;
pub mod orders;
pub mod peer;
pub mod pipes;
pub mod places;
pub mod probe;
pub mod process;
pub mod random;
pub mod ready;
pub mod record;
pub mod seal;
pub mod signals;
pub mod socket;
pub mod survey;
pub mod tail;
pub mod terminal;
pub mod tool;
pub mod tree;
pub mod trust;
