//! (filled in below)
pub mod output;
