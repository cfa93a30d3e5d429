//! Nouns: plain data that every other folder speaks in.
//!
//! Nothing here decides, reads or writes anything. A type's constructor is where its rule is
//! checked, so that a value of it cannot be wrong later.

pub mod cage;
pub mod config;
pub mod env;
pub mod file;
pub mod moment;
pub mod name;
pub mod pack;
pub mod port;
pub mod portmap;
pub mod problem;
pub mod refusals;
pub mod run;
pub mod secret;
pub mod spec;
pub mod status;
pub mod uid;
pub mod wish;

pub use cage::Cage;
pub use config::Config;
pub use moment::Moment;
pub use name::{InstanceId, ServerName, SessionName, UserName, Whom};
pub use pack::pack;
pub use problem::Problem;
pub use refusals::Refusals;
pub use run::{Exit, Reached, RunId};
pub use secret::Secret;
pub use spec::{Spec, SpecId};
pub use wish::Wish;
