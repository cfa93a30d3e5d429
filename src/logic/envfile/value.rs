//! The value of one assignment: unquoted, or quoted and perhaps many lines long.
//!
//! It decides where a value ends and what its escapes mean, and refuses what other readers of
//! such files would take differently; the rule stands in [`envfile`](super). Its faults name the
//! variable and a mend, never what is there.

use zeroize::Zeroizing;

use super::{Fault, MAX_VALUE};

/// What may stand around a name and a value.
pub(super) const BLANKS: [char; 2] = [' ', '\t'];

/// The lines of a file, taken one by one, with their numbers from 1.
pub(super) struct Lines<'t> {
    all: &'t [&'t str],
    taken: usize,
}

impl<'t> Lines<'t> {
    pub(super) fn new(all: &'t [&'t str]) -> Self {
        Self { all, taken: 0 }
    }

    /// How many were taken.
    pub(super) fn taken(&self) -> usize {
        self.taken
    }

    /// Bytes of all that is left, line ends included.
    fn left(&self) -> usize {
        self.all[self.taken..].iter().map(|line| line.len() + 1).sum()
    }

    pub(super) fn next_line(&mut self) -> Option<(u32, &'t str)> {
        let text = self.all.get(self.taken)?;
        self.taken += 1;
        // A file of 64 KiB has no more lines than that.
        Some((u32::try_from(self.taken).unwrap_or(u32::MAX), text))
    }
}

/// The value of `name`, whose `=` is on `line` with `rest` after it. Takes the further lines of a
/// quoted value, and all that is left if its quote is never closed.
pub(super) fn read<'t>(name: &str, line: u32, rest: &'t str, lines: &mut Lines<'t>) -> Result<String, Fault> {
    read_on(name, line, rest, lines).map(|(value, _)| value)
}

/// The same, with what follows the value on its last line: blanks, or a comment behind a quoted one.
pub(super) fn read_on<'t>(
    name: &str,
    line: u32,
    rest: &'t str,
    lines: &mut Lines<'t>,
) -> Result<(String, &'t str), Fault> {
    let rest = rest.trim_start_matches(BLANKS);
    let (value, after) = match rest.chars().next() {
        Some(quote @ ('\'' | '"')) => Quoted::read(name, line, quote, &rest[1..], lines)?,
        _ => (unquoted(name, line, rest.trim_end_matches(BLANKS))?.to_owned(), ""),
    };
    if value.len() > MAX_VALUE {
        let text = format!("the value of {name} is longer than {} KiB", MAX_VALUE / 1024);
        return Err(Fault { line, text });
    }
    Ok((value, after))
}

fn unquoted<'t>(name: &str, line: u32, text: &'t str) -> Result<&'t str, Fault> {
    let what = if text.starts_with('#') {
        "begins with #, which some readers take for a comment"
    } else if text.contains(" #") || text.contains("\t#") {
        "holds a # after a space, which some readers take for a comment"
    } else if text.contains('\\') {
        "holds a backslash, which some readers drop"
    } else if text != text.trim() {
        "begins or ends with a space that does not show, which some readers drop"
    } else {
        return Ok(text);
    };
    Err(Fault { line, text: format!("the value of {name} {what}; put it in single quotes") })
}

/// A quoted value on its way through the lines.
struct Quoted {
    quote: char,
    value: Zeroizing<String>,
    /// The text so far holds a backslash that escapes nothing we know.
    bad_escape: bool,
}

impl Quoted {
    /// The value whose quote was opened on line `opened`, just before `rest`; and what follows it.
    fn read<'t>(
        name: &str,
        opened: u32,
        quote: char,
        rest: &'t str,
        lines: &mut Lines<'t>,
    ) -> Result<(String, &'t str), Fault> {
        // Sized beforehand: a buffer that grows leaves copies of a secret behind.
        let most = rest.len() + lines.left();
        let value = Zeroizing::new(String::with_capacity(most));
        let mut quoted = Self { quote, value, bad_escape: false };
        let (mut line, mut text) = (opened, rest);
        let mut escape_at = None;
        // Read to the closing quote whatever is found on the way: what lies before it must not
        // be taken for assignments.
        let after = loop {
            let after = quoted.take(text);
            if quoted.bad_escape && escape_at.is_none() {
                escape_at = Some(line);
            }
            if let Some(after) = after {
                break after;
            }
            let Some(next) = lines.next_line() else {
                let text = format!("the quote opened here for {name} is never closed");
                return Err(Fault { line: opened, text });
            };
            (line, text) = next;
            quoted.value.push('\n');
        };
        if let Some(line) = escape_at {
            let text = format!(
                "the value of {name} holds a backslash that escapes nothing (known are \\n \\\" \\\\ \\$); write \\\\ for a backslash, or use single quotes"
            );
            return Err(Fault { line, text });
        }
        let blank = after.trim_start_matches(BLANKS);
        if blank.is_empty() || (after.starts_with(BLANKS) && blank.starts_with('#')) {
            Ok((std::mem::take(&mut *quoted.value), after))
        } else if line == opened {
            let text = format!(
                "something follows the closing quote of {name}; a quote inside the value takes the other kind around it, or \\\" in double quotes"
            );
            Err(Fault { line, text })
        } else {
            let text = format!(
                "the quote opened here for {name} is closed only on line {line}, and something follows it there"
            );
            Err(Fault { line: opened, text })
        }
    }

    /// Takes a line, or what is left of it; gives what follows the closing quote, if it is there.
    fn take<'t>(&mut self, text: &'t str) -> Option<&'t str> {
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            if c == self.quote {
                return Some(chars.as_str());
            }
            if c != '\\' || self.quote == '\'' {
                self.value.push(c);
                continue;
            }
            match chars.next() {
                Some('n') => self.value.push('\n'),
                Some(escaped @ ('"' | '\\' | '$')) => self.value.push(escaped),
                Some(_) | None => self.bad_escape = true,
            }
        }
        None
    }
}
