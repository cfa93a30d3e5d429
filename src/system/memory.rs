//! Giving memory back to the system after a burst of work.
//!
//! A thousand servers that start at once leave holes all over the heap, which stay resident until
//! somebody says that they are not needed; this module is the fence around the call that does. And not
//! leaving in it, or in a core of it, what was secret.

use std::io;

use zeroize::Zeroize;

/// Gives whole free pages of the heap back. Takes milliseconds, so it is for quiet moments.
#[expect(unsafe_code, reason = "the C library has no safe name for it")]
pub fn give_back() {
    // SAFETY: it touches nothing but free memory, under the allocator's own locks (malloc_trim(3)).
    // Whether there was anything to give back is of no interest.
    unsafe { nix::libc::malloc_trim(0) };
}

/// Overwrites what returned calls left on this thread's stack: pieces of whatever they handled. To be
/// called by who called them.
#[inline(never)]
#[expect(clippy::large_stack_arrays, reason = "the stack is what is meant")]
pub fn overwrite_stack() {
    // As deep as what reads an env file goes, and far less than a thread has.
    let mut below = [0xff_u8; 128 * 1024];
    below.zeroize();
    std::hint::black_box(&below);
}

/// Has this process, and what comes of it, leave no core: one byte is too little for a file, and that
/// very number also stops a core that would go through a pipe to a program (`fs/coredump.c`). A limit of
/// 0 does not: core(5), "Piping core dumps to a program". Who was started with a hard limit of 0 and may
/// not raise it stays at that.
///
/// # Errors
///
/// When the kernel refuses.
pub fn forbid_cores() -> io::Result<()> {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (_, hard) = getrlimit(Resource::RLIMIT_CORE)?;
    match setrlimit(Resource::RLIMIT_CORE, 1, 1) {
        Err(nix::errno::Errno::EPERM) if hard == 0 => Ok(setrlimit(Resource::RLIMIT_CORE, 0, 0)?),
        done => Ok(done?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_goes_on_after_it_gave_its_memory_back() {
        let kept = vec![7_u8; 1 << 16];
        drop(vec![1_u8; 1 << 16]);
        give_back();
        assert!(kept.iter().all(|byte| *byte == 7));
    }
}
