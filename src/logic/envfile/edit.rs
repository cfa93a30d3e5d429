//! An env file with one variable changed, and every other line as it was, byte for byte.
//!
//! What comes out is read back before anybody gets it: a file that would say something else than
//! was meant is never written.

use std::ops::Range;

use super::value::{self, Lines};
use super::{assignment, parse, quote, quote_in_any_case, text_of, unquotable};
use crate::model::Secret;
use crate::model::env::Variables;
use crate::model::file::SecretBytes;

/// Why a file could not be changed; never with a value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotChanged {
    /// The file as it is cannot be read: where, and what is expected there.
    #[error("{0}")]
    Broken(String),
    /// No env file can hold that value.
    #[error("{0}")]
    Value(&'static str),
    /// It would be too large, or have too many variables.
    #[error("{0}")]
    TooMuch(String),
}

/// `bytes` with `name` set to `value` (where it stands now, else at the end), or without it.
/// `file` is its name for the problems.
///
/// Comments, order and line ends stay, as does `export ` before the variable and a comment behind
/// its quoted value. Removing one that is not there changes nothing.
///
/// # Errors
///
/// When the file cannot be read as it is, or could not be afterwards.
pub fn with(bytes: &[u8], file: &str, name: &str, value: Option<&Secret>) -> Result<SecretBytes, NotChanged> {
    let before = parse(bytes, file).map_err(|problems| first(&problems, NotChanged::Broken))?;
    if let Some(why) = value.and_then(|value| unquotable(value.reveal())) {
        return Err(NotChanged::Value(why));
    }
    let after = changed(bytes, name, value.map(Secret::reveal));
    let read = parse(&after, file).map_err(|problems| first(&problems, NotChanged::TooMuch))?;
    if is_as_meant(&before, &read, name, value) {
        Ok(after)
    } else {
        Err(NotChanged::TooMuch(format!("{file} would not say what was meant; edit it by hand")))
    }
}

fn first(problems: &[crate::model::Problem], kind: impl Fn(String) -> NotChanged) -> NotChanged {
    kind(problems.first().map_or_else(String::new, ToString::to_string))
}

/// Everything else says what it said, in its order.
fn is_as_meant(before: &Variables, after: &Variables, name: &str, value: Option<&Secret>) -> bool {
    let others = |variables: &'_ Variables| -> Vec<(Box<str>, Secret)> {
        let others = variables.0.iter().filter(|variable| &*variable.name != name);
        others.map(|variable| (variable.name.clone(), variable.value.clone())).collect()
    };
    after.get(name).map(|variable| &variable.value) == value && others(before) == others(after)
}

fn changed(bytes: &[u8], name: &str, value: Option<&str>) -> SecretBytes {
    let newline: &[u8] = if bytes.windows(2).any(|two| two == b"\r\n") { b"\r\n" } else { b"\n" };
    let at = place(bytes, name);
    let (start, end) = at.as_ref().map_or((bytes.len(), bytes.len()), |at| (at.bytes.start, at.bytes.end));
    // Sized beforehand: a buffer that grows leaves copies of secrets behind.
    let room = value.map_or(0, |value| 2 * value.len() + name.len() + 16);
    let mut after = SecretBytes::new(Vec::with_capacity(bytes.len() + room));
    after.extend_from_slice(&bytes[..start]);
    if let Some(value) = value {
        if at.is_none() && !after.is_empty() && !after.ends_with(b"\n") {
            after.extend_from_slice(newline);
        }
        let (head, tail) = at.as_ref().map_or((name, ""), |at| (&*at.head, &*at.tail));
        let quoted = Secret::new(if tail.is_empty() { quote(value) } else { quote_in_any_case(value) });
        for part in [head, "=", quoted.reveal(), tail] {
            after.extend_from_slice(part.as_bytes());
        }
        // As it was where it stood; one at the end ends as a line does.
        let ended = at.as_ref().is_none_or(|_| bytes[start..end].ends_with(b"\n"));
        after.extend_from_slice(if ended { newline } else { b"" });
    }
    after.extend_from_slice(&bytes[end..]);
    after
}

/// Where an assignment stands.
struct Place {
    /// Its lines with their ends.
    bytes: Range<usize>,
    /// What stands before the `=`: blanks, `export`, the name.
    head: String,
    /// The comment behind its quoted value.
    tail: String,
}

fn place(bytes: &[u8], name: &str) -> Option<Place> {
    let bom = if bytes.starts_with(b"\xef\xbb\xbf") { 3 } else { 0 };
    let lines = text_of(&bytes[bom..]).ok()?;
    let mut starts = vec![bom];
    starts.extend((bom..bytes.len()).filter(|at| bytes[*at] == b'\n').map(|at| at + 1));
    let mut taken = Lines::new(&lines);
    while let Some((line, text)) = taken.next_line() {
        let first = taken.taken() - 1;
        let trimmed = text.trim_start_matches(value::BLANKS);
        if trimmed.is_empty() || trimmed.starts_with('#') {
            continue;
        }
        let (found, rest) = assignment(trimmed)?;
        let (value, after) = value::read_on(found, line, rest, &mut taken).ok()?;
        drop(Secret::new(value));
        if found == name {
            let end = starts.get(taken.taken()).copied().unwrap_or(bytes.len());
            let head = text.strip_suffix(rest)?.strip_suffix('=')?.to_owned();
            let tail = if after.trim_start_matches(value::BLANKS).is_empty() { "" } else { after };
            return Some(Place { bytes: starts[first]..end, head, tail: tail.to_owned() });
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "# alice's\n\nexport A='old' # rotated in May\nKEY=\"one\ntwo\"\n  B=2\n# the end";

    fn set(text: &str, name: &str, value: &str) -> String {
        let after = with(text.as_bytes(), "env.d/alice.env", name, Some(&Secret::new(value))).unwrap();
        String::from_utf8(after.to_vec()).unwrap()
    }

    fn unset(text: &str, name: &str) -> String {
        let after = with(text.as_bytes(), "env.d/alice.env", name, None).unwrap();
        String::from_utf8(after.to_vec()).unwrap()
    }

    #[test]
    fn one_variable_changes_and_every_other_line_stays() {
        let with = |old: &str, new: &str| FILE.replace(old, new);
        assert_eq!(set(FILE, "A", "new"), with("'old'", "'new'"));
        assert_eq!(set(FILE, "KEY", "plain"), with("\"one\ntwo\"", "plain"));
        assert_eq!(set(FILE, "B", "x y"), with("  B=2", "  B='x y'"));
        assert_eq!(set(FILE, "C", "3"), format!("{FILE}\nC=3\n"));
        assert_eq!(unset(FILE, "KEY"), with("KEY=\"one\ntwo\"\n", ""));
        assert_eq!(unset(FILE, "A"), with("export A='old' # rotated in May\n", ""));
        assert_eq!(unset(FILE, "NOT_THERE"), FILE);
        assert_eq!(set("", "A", "1"), "A=1\n");
        assert_eq!(set("A=1", "A", "2"), "A=2");
        assert_eq!(set("A=1\r\nB=2\r\n", "A", "3"), "A=3\r\nB=2\r\n");
        assert_eq!(set("\u{feff}A=1\n", "A", "2"), "\u{feff}A=2\n");
    }

    #[test]
    fn a_name_inside_a_value_or_a_comment_is_not_the_variable() {
        let text = "# A=no\nKEY='begin\nA=inside\nend'\nA=1\n";
        assert_eq!(set(text, "A", "2"), text.replace("\nA=1\n", "\nA=2\n"));
        assert_eq!(set("AB=1\n", "A", "2"), "AB=1\nA=2\n");
    }

    #[test]
    fn a_file_that_cannot_be_read_or_could_not_be_afterwards_is_left_alone() {
        let secret = |text: &str| Secret::new(text);
        let broken = with(b"hunter2\n", "env.d/a.env", "A", Some(&secret("x"))).unwrap_err();
        assert!(broken.to_string().starts_with("env.d/a.env:1: expected NAME=value"), "{broken}");
        for value in ["a\rb", "a\0b", &"x".repeat(40_000)] {
            let refused = with(b"", "f", "A", Some(&secret(value)));
            assert!(matches!(refused, Err(NotChanged::Value(_))), "{refused:?}");
        }
        let full = (0..256).map(|number| format!("V{number}=1")).collect::<Vec<_>>().join("\n");
        let refused = with(full.as_bytes(), "f", "A", Some(&secret("x")));
        assert!(matches!(refused, Err(NotChanged::TooMuch(_))), "{refused:?}");
    }

    /// Values of the characters that mean something somewhere.
    fn odd(seed: u64) -> String {
        const SIGNS: [&str; 22] = [
            "'", "\"", "\\", "$", "#", " #", "\n", "\t", " ", "=", "`", "a", "B", "{", "}", "${X}", "\\n",
            "é", "\u{a0}", "\u{2028}", "export ", "\n# ",
        ];
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut next = move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            usize::try_from(state >> 33).unwrap()
        };
        let length = next() % 12;
        (0..length).map(|_| SIGNS[next() % SIGNS.len()]).collect()
    }

    #[test]
    fn any_value_is_read_back_as_it_was_set_wherever_it_stands() {
        for seed in 0..20_000 {
            let value = odd(seed);
            for file in ["", FILE, "A=x\nB=y\n", "B=1\nA='x' # why"] {
                // `with` reads it back itself, and fails where it reads something else.
                let after = set(file, "A", &value);
                let vars = parse(after.as_bytes(), "f").unwrap();
                assert_eq!(vars.get("A").unwrap().value.reveal(), value, "{after:?}");
                assert_eq!(unset(&after, "A").trim_end(), unset(file, "A").trim_end());
            }
        }
    }
}
