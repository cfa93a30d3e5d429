//! alice.env, as bytes → her variables, or everything that is wrong with it.
//!
//! The grammar is ours (PRODUCT §4) and so is the splitter, in `value`: `dotenvy` is asked for
//! exactly one assignment at a time, rewritten so that it has nothing to substitute, and only to
//! agree. Given a whole file it would put the daemon's own environment into `$NAME`, join lines
//! at an apostrophe and quote secrets in its errors.
//!
//! **The rule.** An unquoted value is the text between `=` and the end of the line, without the
//! spaces and tabs around it; nothing in it means anything (`pa$$word`, `it's` and `{"a":1}` are
//! what they look like, as systemd and docker read them). Where these two differ (a backslash),
//! and where a comment may have been meant (`#` at the start or after a space), the value has to
//! be quoted. A quoted value may span lines; a CRLF in it is a newline.
//!
//! No message holds a value or a piece of a line: a line that is not an assignment may well be
//! the middle of a key. Which names are allowed in whose file is not decided here; see
//! `logic::roster`.

pub mod edit;
mod value;

use std::collections::BTreeMap;

use crate::logic::envfile::value::Lines;
use crate::model::env::{Variable, Variables};
use crate::model::{Problem, Secret};

/// The largest env file that is read, in bytes.
pub const MAX_FILE: usize = 64 * 1024;
/// The largest value, in bytes. Linux takes no variable above 128 KiB (`MAX_ARG_STRLEN`).
pub const MAX_VALUE: usize = 32 * 1024;
/// The most variables of one file.
pub const MAX_VARIABLES: usize = 256;
/// The longest name of a variable, in bytes: longer ones are no names but keys gone astray, and
/// messages hold names.
const MAX_NAME: usize = 128;
/// After so many problems the rest is counted: a megabyte of noise is not worth a megabyte of
/// messages.
const MAX_PROBLEMS: usize = 20;

/// What is wrong at a line; the file's name is added by [`parse`].
struct Fault {
    line: u32,
    text: String,
}

/// Reads an env file. `file` is its name as the administrator knows it, for the problems.
///
/// # Errors
///
/// With everything that is wrong, in the file's order; never with a piece of its contents other
/// than the names of variables. A file with bytes that are no text is not looked at further.
pub fn parse(bytes: &[u8], file: &str) -> Result<Variables, Vec<Problem>> {
    if bytes.len() > MAX_FILE {
        let text = format!("larger than {} KiB; an env file holds credentials, not data", MAX_FILE / 1024);
        return Err(vec![Problem::new(file, text)]);
    }
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    text_of(bytes).and_then(|text| read(&text)).map_err(|faults| {
        let more = faults.len().saturating_sub(MAX_PROBLEMS);
        let mut problems: Vec<Problem> = faults
            .into_iter()
            .take(MAX_PROBLEMS)
            .map(|fault| Problem::new(file, fault.text).at_line(fault.line))
            .collect();
        if more > 0 {
            problems.push(Problem::new(file, format!("and {more} more lines with problems")));
        }
        problems
    })
}

/// The lines as text, without their ends.
fn text_of(bytes: &[u8]) -> Result<Vec<&str>, Vec<Fault>> {
    let mut lines = Vec::new();
    let mut faults = Vec::new();
    for (line, bytes) in (1..).zip(bytes.split(|byte| *byte == b'\n')) {
        let bytes = bytes.strip_suffix(b"\r").unwrap_or(bytes);
        let mut fault = |text: &str| {
            faults.push(Fault { line, text: text.to_owned() });
        };
        match str::from_utf8(bytes) {
            Err(_) => fault("not UTF-8; save the file as UTF-8"),
            Ok(text) if text.contains('\0') => {
                fault("a NUL byte, which no variable can hold; save the file as UTF-8 text");
            }
            Ok(text) if text.contains('\r') => {
                fault("a carriage return inside the line; lines end with LF or CRLF");
            }
            Ok(text) => lines.push(text),
        }
    }
    if faults.is_empty() { Ok(lines) } else { Err(faults) }
}

fn read(lines: &[&str]) -> Result<Variables, Vec<Fault>> {
    let mut lines = Lines::new(lines);
    let mut variables = Vec::new();
    let mut faults = Vec::new();
    let mut first_seen: BTreeMap<&str, u32> = BTreeMap::new();
    while let Some((line, text)) = lines.next_line() {
        // Only its start: blanks at its end may stand inside quotes.
        let text = text.trim_start_matches(value::BLANKS);
        if text.is_empty() || text.starts_with('#') {
            continue;
        }
        let Some((name, rest)) = assignment(text) else {
            faults.push(Fault { line, text: not_an_assignment(text).to_owned() });
            continue;
        };
        if first_seen.len() == MAX_VARIABLES {
            faults.push(Fault { line, text: format!("more than {MAX_VARIABLES} variables") });
            break;
        }
        // The value is read even when the name is refused: it may span lines, and they must not
        // be taken for assignments.
        let read = value::read(name, line, rest, &mut lines);
        if let Some(first) = first_seen.get(name) {
            let text = format!("{name} is set twice, first on line {first}; remove one of the two");
            faults.push(Fault { line, text });
            continue;
        }
        first_seen.insert(name, line);
        match read.and_then(|value| agreed(name, line, value)) {
            Ok(value) => variables.push(Variable { name: name.into(), value, line }),
            Err(fault) => faults.push(fault),
        }
    }
    // Kept for as long as the file stands.
    variables.shrink_to_fit();
    if faults.is_empty() { Ok(Variables(variables)) } else { Err(faults) }
}

/// `NAME=…` or `export NAME=…`, split at the `=`; `None` if it is neither.
fn assignment(text: &str) -> Option<(&str, &str)> {
    let text = match text.strip_prefix("export") {
        Some(rest) if rest.starts_with(value::BLANKS) => rest.trim_start_matches(value::BLANKS),
        _ => text,
    };
    let (name, rest) = text.split_once('=')?;
    (is_name(name) && name.len() <= MAX_NAME).then_some((name, rest))
}

/// Says what is expected, without showing what is there.
fn not_an_assignment(text: &str) -> &'static str {
    match text.split_once('=') {
        None => "expected NAME=value; a value of several lines goes in quotes",
        Some((name, _)) if is_name(name.trim_end_matches(value::BLANKS)) && name.len() <= MAX_NAME => {
            "expected NAME=value; there is a space before the ="
        }
        Some(_) => "expected NAME=value; a name is letters, digits and _, not beginning with a digit",
    }
}

/// True if `name` may name a variable: `[A-Za-z_][A-Za-z0-9_]*`.
#[must_use]
pub fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// True if a variable of that name may be handed to a server's process: the names that mcpsup
/// itself reads are not.
#[must_use]
pub fn is_process_name(name: &str) -> bool {
    is_name(name) && !name.starts_with("MCPSUP_")
}

/// The value, once `dotenvy` has read the same from one of its shape: it leaves copies of what it reads
/// in memory, and all letters and digits are alike to it.
fn agreed(name: &str, line: u32, value: String) -> Result<Secret, Fault> {
    let value = Secret::new(value);
    let plain = |c: char| if c.is_alphanumeric() { 'x' } else { c };
    let shape: String = value.reveal().chars().map(plain).collect();
    let rewritten = assignment_for_dotenvy(name, &shape);
    let mut items = dotenvy::from_read_iter(rewritten.as_bytes());
    let same = match items.next() {
        Some(Ok((key, read))) => key == name && read == shape,
        Some(Err(_)) | None => false,
    };
    if same && items.next().is_none() {
        Ok(value)
    } else {
        Err(Fault { line, text: format!("the value of {name} cannot be read; put it in single quotes") })
    }
}

/// One line that `dotenvy` reads as exactly `value`: in double quotes nothing is left that it
/// could substitute, join or take for a comment.
fn assignment_for_dotenvy(name: &str, value: &str) -> String {
    let mut line = format!("{name}=\"");
    for c in value.chars() {
        match c {
            '"' | '\\' | '$' => line.extend(['\\', c]),
            '\n' => line.push_str("\\n"),
            _ => line.push(c),
        }
    }
    line.push_str("\"\n");
    line
}

/// `value` as it has to stand after `NAME=` for [`parse`] to read it back verbatim.
///
/// Plain where systemd, docker and shells agree about it, in single quotes where it has none of
/// its own, in double quotes otherwise. Ask [`unquotable`] first: what an env file cannot hold at
/// all comes out as something that [`parse`] refuses or reads differently.
#[must_use]
pub fn quote(value: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"_-./:@%+,=".contains(&b);
    if value.bytes().all(plain) { value.to_owned() } else { quote_in_any_case(value) }
}

/// The same, in quotes though it may need none: where a comment follows.
fn quote_in_any_case(value: &str) -> String {
    if value.contains('\'') {
        let mut quoted = String::with_capacity(2 * value.len() + 2);
        quoted.push('"');
        for c in value.chars() {
            if matches!(c, '"' | '\\' | '$') {
                quoted.push('\\');
            }
            quoted.push(c);
        }
        quoted.push('"');
        quoted
    } else {
        format!("'{value}'")
    }
}

/// Why an env file cannot hold `value`, if so.
#[must_use]
pub fn unquotable(value: &str) -> Option<&'static str> {
    if value.contains('\0') {
        Some("it holds a NUL byte")
    } else if value.contains('\r') {
        Some("it holds a carriage return")
    } else if value.len() > MAX_VALUE {
        Some("it is longer than 32 KiB")
    } else {
        None
    }
}

#[cfg(test)]
mod tests;
