//! What nobody meant to give us: open descriptors and ignored signals.
//!
//! Whoever started the daemon (a shell, a build tool, `nohup`, a service manager) may have left
//! either behind, and both survive fork and exec into every run. Safe calls neither close what one
//! did not open nor set a signal back, so this module is the fence around those that do.

use std::io;

use nix::libc;
use nix::sys::signal::{SigHandler, Signal, signal};

/// Closes every descriptor but the standard three, and lets every signal do what it does by
/// default. To be called before anything else is opened or handled.
///
/// SIGPIPE stays as the Rust runtime set it, and `exec` of a server sets it back.
///
/// # Errors
///
/// Before Linux 5.9, which brought `close_range(2)`.
#[expect(unsafe_code, reason = "see the module's head")]
pub(super) fn drop_all() -> io::Result<()> {
    // SAFETY: the call touches no memory. This process has just begun and has opened nothing, so no
    // descriptor above 2 is owned by anything in it.
    let closed = unsafe { libc::syscall(libc::SYS_close_range, 3_u32, u32::MAX, 0_u32) };
    if closed != 0 {
        return Err(io::Error::last_os_error());
    }
    let settable = |signal: &Signal| !matches!(signal, Signal::SIGKILL | Signal::SIGSTOP | Signal::SIGPIPE);
    for number in Signal::iterator().filter(settable) {
        // SAFETY: the default disposition runs no code of ours, and nothing here handles signals yet.
        unsafe { signal(number, SigHandler::SigDfl) }?;
    }
    Ok(())
}
