//! Nouns: plain data that every other folder speaks in.
//!
//! Nothing here decides, reads or writes anything. A type's constructor is where its rule is
//! checked, so that a value of it cannot be wrong later.

pub mod config;
pub mod env;
pub mod file;
pub mod moment;
pub mod name;
pub mod port;
pub mod portmap;
pub mod problem;
pub mod refusals;
pub mod run;
pub mod secret;
pub mod spec;
pub mod status;

pub use config::Config;
pub use moment::Moment;
pub use name::{InstanceId, ServerName, SessionName, UserName, Whom};
pub use problem::Problem;
pub use refusals::Refusals;
pub use run::{Exit, RunId};
pub use secret::Secret;
pub use spec::{Spec, SpecId};
