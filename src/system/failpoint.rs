//! Places where a test kills the daemon, to see that the next one finds its way.
//!
//! In a release build nothing of this exists.

/// Ends this process by SIGKILL if `MCPSUP_FAILPOINT` names this place, `stage.deed` or, for the
/// n-th time it is passed, `stage.deed=n`.
#[cfg(debug_assertions)]
pub fn pass(place: &str) {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU32, Ordering};

    static WHERE: OnceLock<Option<(String, u32)>> = OnceLock::new();
    static PASSED: AtomicU32 = AtomicU32::new(0);
    #[expect(clippy::disallowed_methods, reason = "a test's switch, absent from release builds")]
    let chosen = WHERE.get_or_init(|| {
        let text = std::env::var("MCPSUP_FAILPOINT").ok()?;
        let (name, nth) = text.split_once('=').unwrap_or((&text, "1"));
        Some((name.to_owned(), nth.parse().unwrap_or(1)))
    });
    if let Some((name, nth)) = chosen
        && name == place
        && PASSED.fetch_add(1, Ordering::Relaxed) + 1 == *nth
    {
        let me = rustix::process::getpid();
        if rustix::process::kill_process(me, rustix::process::Signal::KILL).is_err() {
            std::process::abort();
        }
    }
}

/// Nothing, in a release build.
#[cfg(not(debug_assertions))]
#[inline]
pub const fn pass(_place: &str) {}
