//! The control socket: HTTP/1.1 and JSON on a Unix socket, so that `curl` can speak it.
//!
//! [`protocol`] is what is said, [`route`] understands it, [`server`] hears it and hands it to the
//! daemon's loop as a [`protocol::Call`], [`client`] says it; [`passage`] is for requests that are not
//! for the daemon but for an instance. Nothing here decides who may what: a
//! call carries the caller's credentials as the kernel gave them, and the loop asks
//! `logic::access`.

pub mod client;
pub mod passage;
pub mod protocol;
pub mod route;
pub mod server;
