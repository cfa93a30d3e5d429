//! Places where a test kills the daemon, to see that the next one finds its way, or has one thread of it
//! wait for good, as on a disk that does not answer.
//!
//! In a release build nothing of this exists.

/// Ends this process by SIGKILL if `MCPSUP_FAILPOINT` names this place, `stage.deed` or, for the
/// n-th time it is passed, `stage.deed=n`. For `stage.deed=stall` whoever comes here stays here.
#[cfg(debug_assertions)]
pub fn pass(place: &str) {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU32, Ordering};

    static WHERE: OnceLock<Option<(String, Option<u32>)>> = OnceLock::new();
    static PASSED: AtomicU32 = AtomicU32::new(0);
    #[expect(clippy::disallowed_methods, reason = "a test's switch, absent from release builds")]
    let chosen = WHERE.get_or_init(|| {
        let text = std::env::var("MCPSUP_FAILPOINT").ok()?;
        let (name, nth) = text.split_once('=').unwrap_or((&text, "1"));
        Some((name.to_owned(), if nth == "stall" { None } else { Some(nth.parse().unwrap_or(1)) }))
    });
    while chosen.as_ref().is_some_and(|(name, nth)| name == place && nth.is_none()) {
        std::thread::park();
    }
    if let Some((name, nth)) = chosen
        && name == place
        && Some(PASSED.fetch_add(1, Ordering::Relaxed) + 1) == *nth
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
