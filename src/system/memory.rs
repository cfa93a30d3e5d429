//! Giving memory back to the system after a burst of work.
//!
//! A thousand servers that start at once leave holes all over the heap, and a daemon that begins
//! touches far more of its program than one that waits. Both stay resident until somebody says that
//! they are not needed; this module is the fence around the two calls that do.

use std::fs;
use std::ops::Range;

/// Gives whole free pages of the heap back, and lets go of our own program's pages: those that are
/// needed again come back from the page cache by themselves, some microseconds each.
///
/// Takes milliseconds, so it is for quiet moments.
pub fn give_back() {
    trim_heap();
    for text in own_text() {
        let_go(&text);
    }
}

#[expect(unsafe_code, reason = "the C library has no safe name for it")]
fn trim_heap() {
    // SAFETY: it touches nothing but free memory, under the allocator's own locks (malloc_trim(3)).
    // Whether there was anything to give back is of no interest.
    unsafe { nix::libc::malloc_trim(0) };
}

/// Where our program's code is mapped: never written to, so that the file has all of it.
fn own_text() -> Vec<Range<usize>> {
    let Ok(program) = fs::read_link("/proc/self/exe") else { return Vec::new() };
    let maps = fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let is_text = |line: &&str| {
        let mut fields = line.split_ascii_whitespace().skip(1);
        fields.next() == Some("r-xp") && fields.nth(3).is_some_and(|path| program.as_os_str() == path)
    };
    let range = |line: &str| {
        let (from, to) = line.split_once(' ')?.0.split_once('-')?;
        Some(usize::from_str_radix(from, 16).ok()?..usize::from_str_radix(to, 16).ok()?)
    };
    maps.lines().filter(is_text).filter_map(range).collect()
}

#[expect(unsafe_code, reason = "madvise can lose what was written, which this mapping cannot have been")]
fn let_go(text: &Range<usize>) {
    let start = std::ptr::with_exposed_provenance_mut(text.start);
    // SAFETY: the range is a mapping of our own executable, as the kernel has just said, private
    // and not writable: every page is as it is in the file, and is read from there when it is
    // touched again (madvise(2), MADV_DONTNEED). The file cannot change: it is being executed.
    let done = unsafe { nix::libc::madvise(start, text.len(), nix::libc::MADV_DONTNEED) };
    if done != 0 {
        tracing::debug!(error = %std::io::Error::last_os_error(), "cannot let go of the program's pages");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_goes_on_after_it_gave_its_memory_back() {
        let kept = vec![7_u8; 1 << 16];
        drop(vec![1_u8; 1 << 16]);
        assert!(!own_text().is_empty());
        give_back();
        assert!(kept.iter().all(|byte| *byte == 7));
    }
}
