//! (to come)

pub mod client;
