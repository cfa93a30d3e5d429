//! The words for an operating system's error.

use std::io;

/// What went wrong, as a sentence's second half: lower case, without the number.
#[must_use]
pub fn plain(error: &io::Error) -> String {
    let text = match error.raw_os_error() {
        Some(number) => nix::errno::Errno::from_raw(number).desc().to_owned(),
        None => error.to_string(),
    };
    let mut letters = text.chars();
    match letters.next() {
        // "I/O error" and other abbreviations stay as they are.
        Some(first) if letters.as_str().starts_with(|c: char| c.is_lowercase()) => {
            first.to_lowercase().chain(letters).collect()
        }
        Some(_) | None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_reads_as_the_second_half_of_a_sentence() {
        assert_eq!(plain(&io::Error::from_raw_os_error(111)), "connection refused");
        assert_eq!(plain(&io::Error::from_raw_os_error(2)), "no such file or directory");
        assert_eq!(plain(&io::Error::from_raw_os_error(5)), "I/O error");
        assert_eq!(plain(&io::Error::other("Odd thing")), "odd thing");
    }
}
