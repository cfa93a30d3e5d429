//! Deeds: the only folder that touches the operating system. It takes no decisions.

pub mod account;
pub mod cause;
pub mod cgroup;
pub mod clock;
pub mod containment;
pub mod envdir;
mod exit;
pub mod failpoint;
pub mod files;
pub mod launch;
mod launcher;
mod life;
pub mod logfile;
pub mod memory;
pub mod orders;
pub mod peer;
pub mod pipes;
pub mod places;
pub mod probe;
pub mod process;
pub mod random;
pub mod record;
pub mod signals;
pub mod socket;
pub mod tail;
pub mod terminal;
pub mod tree;
