//! What people are told to type.

/// A word as a shell takes it.
#[must_use]
pub fn word(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+=:@%,".contains(c);
    if !text.is_empty() && text.chars().all(is_plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_one_whatever_is_in_it() {
        for plain in ["/etc/mcpsup/env.d/alice.env", "a+b=c:d@e%f,g", "-x"] {
            assert_eq!(word(plain), plain);
        }
        for (odd, quoted) in [
            ("", "''"),
            ("a b", "'a b'"),
            ("$HOME", "'$HOME'"),
            ("it's", r"'it'\''s'"),
            ("ä\n", "'ä\n'"),
            ("~", "'~'"),
        ] {
            assert_eq!(word(odd), quoted);
        }
    }
}
