//! mcpsup runs everybody's MCP servers on a shared host. (The map; written out below.)

pub mod cli;
pub mod control;
pub mod daemon;
pub mod door;
pub mod logic;
pub mod model;
pub mod system;
