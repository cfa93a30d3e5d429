//! Nouns: plain data that every other folder speaks in.
//!
//! Nothing here decides, reads or writes anything. A type's constructor is where its rule is
//! checked, so that a value of it cannot be wrong later.
//!
//! * people and what is theirs: `name`, `uid`, `secret`, `port`
//! * what is wanted: `config` (mcpsup.toml), `env` and `file` (env.d), `wish` (what a user changes there),
//!   `problem` (what is wrong with any of it)
//! * what runs: `spec`, `run`, `cage`, `moment` (time)
//! * what is shown: `status`, `portmap`, `refusals`
//! * what is wrong with a host: `survey` (what was seen), `finding` (what is wrong, and the mend)
//! * `shell`: words to type
//! * `pack`: smaller tables

pub mod cage;
pub mod config;
pub mod env;
pub mod file;
pub mod finding;
pub mod moment;
pub mod name;
pub mod pack;
pub mod port;
pub mod portmap;
pub mod problem;
pub mod refusals;
pub mod run;
pub mod secret;
pub mod shell;
pub mod spec;
pub mod status;
pub mod survey;
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
