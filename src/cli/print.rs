//! The only place that prints.
//!
//! Results go to stdout and can be read by programs; everything else goes to stderr. Colour and
//! progress only on a terminal. Whatever comes from outside (a note, a problem, a file's name) is
//! printed without control characters, so that nobody writes on somebody else's terminal.

use std::cell::Cell;
use std::error::Error;
use std::io::{self, IsTerminal, Write};

use serde::Serialize;

use super::session::Environment;
use crate::system::cause::plain;
use crate::system::terminal;

/// What a word means, as a colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Paint {
    /// As it should be.
    Good,
    /// On its way, or to be looked at.
    Fair,
    /// Wrong.
    Bad,
    /// Of no interest.
    Dim,
    /// Neither.
    None,
}

/// The way to stdout and stderr.
#[derive(Debug)]
pub struct Print {
    /// Columns and rows, if stdout is a terminal.
    size: Option<(usize, usize)>,
    err_is_terminal: bool,
    colour: bool,
    /// A progress line stands on the terminal.
    shows: Cell<bool>,
}

impl Print {
    /// Looks at what stdout and stderr are.
    #[must_use]
    pub fn new(environment: &Environment) -> Self {
        let out_is_terminal = io::stdout().is_terminal();
        let dumb = environment.get("TERM").is_none_or(|term| term == "dumb");
        Self {
            size: out_is_terminal.then(|| terminal::size(io::stdout()).unwrap_or((80, 24))),
            err_is_terminal: io::stderr().is_terminal() && !dumb,
            // https://no-color.org
            colour: out_is_terminal && !dumb && environment.get("NO_COLOR").is_none(),
            shows: Cell::new(false),
        }
    }

    /// The terminal's columns now; `None` if stdout is none.
    #[must_use]
    pub fn width(&self) -> Option<usize> {
        self.size.map(|(columns, _)| terminal::size(io::stdout()).map_or(columns, |(now, _)| now))
    }

    /// True if stdout is a terminal.
    #[must_use]
    pub fn is_terminal(&self) -> bool {
        self.size.is_some()
    }

    /// True if [`Print::progress`] shows anything.
    #[must_use]
    pub fn shows_progress(&self) -> bool {
        self.err_is_terminal
    }

    /// A line of the result.
    ///
    /// # Errors
    ///
    /// When stdout is closed, or full. The same holds for all that follow.
    pub fn line(&self, text: &str) -> io::Result<()> {
        self.clear_progress();
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes())?;
        out.write_all(b"\n")
    }

    /// Lines of the result, with colours of our own in them. On a terminal with `afresh` they take
    /// the place of everything on it, as far as there is room.
    ///
    /// # Errors
    ///
    /// See [`Print::line`].
    pub fn lines(&self, lines: &[String], afresh: bool) -> io::Result<()> {
        self.clear_progress();
        let mut text = String::new();
        let mut shown = lines;
        if let (Some((_, rows)), true) = (terminal::size(io::stdout()).or(self.size), afresh) {
            // Home, and clear from there: ECMA-48 CUP and ED.
            text.push_str("\x1b[H\x1b[J");
            shown = &lines[..lines.len().min(rows.saturating_sub(1))];
        }
        for line in shown {
            text.push_str(line);
            text.push('\n');
        }
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes())?;
        out.flush()
    }

    /// Bytes as they are.
    ///
    /// # Errors
    ///
    /// See [`Print::line`].
    pub fn bytes(&self, bytes: &[u8]) -> io::Result<()> {
        let mut out = io::stdout().lock();
        out.write_all(bytes)?;
        out.flush()
    }

    /// A result for programs: on one line if more may follow, else laid out for reading as well.
    ///
    /// # Errors
    ///
    /// See [`Print::line`].
    pub fn json(&self, value: &impl Serialize, one_line: bool) -> io::Result<()> {
        let text = if one_line { serde_json::to_string(value) } else { serde_json::to_string_pretty(value) };
        self.line(&text.map_err(io::Error::other)?)?;
        io::stdout().flush()
    }

    /// A remark beside the result, on stderr.
    pub fn aside(&self, text: &str) {
        self.clear_progress();
        say(&format!("{}\n", clean(text)));
    }

    /// What is asked of the person at the terminal, on stderr, without a line's end.
    pub fn ask(&self, text: &str) {
        say(&clean(text));
    }

    /// The end of a line that was typed and not shown.
    pub fn answered(&self) {
        say("\n");
    }

    /// What is going on, in one line that the next one replaces. Only on a terminal.
    pub fn progress(&self, text: &str) {
        if self.err_is_terminal {
            self.shows.set(true);
            let width = terminal::size(io::stderr()).map_or(80, |(columns, _)| columns);
            say(&format!("\r\x1b[K{}", cut(&clean(text), width.saturating_sub(1))));
        }
    }

    /// Takes the progress line away.
    pub fn clear_progress(&self) {
        if self.shows.replace(false) {
            say("\r\x1b[K");
        }
    }

    /// Why the command did not do what it should, with the chain of causes.
    pub fn error(error: &anyhow::Error) {
        say(&format!("mcpsup: {}\n", clean(&sentence(error.as_ref()))));
    }

    /// `text` in a colour.
    #[must_use]
    pub fn paint(&self, paint: Paint, text: &str) -> String {
        let code = match paint {
            Paint::Good => "32",
            Paint::Fair => "33",
            Paint::Bad => "31",
            Paint::Dim => "2",
            Paint::None => return text.to_owned(),
        };
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// To stderr. If that fails, nobody is left to be told.
fn say(text: &str) {
    let mut err = io::stderr().lock();
    err.write_all(text.as_bytes()).and_then(|()| err.flush()).unwrap_or_default();
}

/// An error and its causes, none of them twice.
fn sentence(error: &(dyn Error + 'static)) -> String {
    let mut text = String::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let words = match error.downcast_ref::<io::Error>() {
            Some(cause) => plain(cause),
            None => error.to_string(),
        };
        if text.is_empty() {
            text = words;
        } else if !text.contains(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        next = error.source();
    }
    text
}

/// `text` without characters that steer a terminal; what was one is shown as a replacement character.
#[must_use]
pub fn clean(text: &str) -> String {
    let shown = |c: char| if is_steering(c) && c != '\n' && c != '\t' { '\u{fffd}' } else { c };
    text.chars().map(shown).collect()
}

/// True for control characters, and for those that turn the direction of what follows them (all that
/// Unicode has: UAX #9, section 2), by which a line shows other words than it has.
#[must_use]
pub fn is_steering(c: char) -> bool {
    let turns =
        matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    c.is_control() || turns
}

/// `text`, at most `width` characters of it, with a mark where the rest is missing.
#[must_use]
pub fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(width.saturating_sub(1)).collect();
    short.truncate(short.trim_end().len());
    short.push('…');
    short
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    #[test]
    fn a_note_cannot_write_on_the_terminal() {
        assert_eq!(clean("a\x1b[2Jb\u{9b}c\r"), "a\u{fffd}[2Jb\u{fffd}c\u{fffd}");
    }

    #[test]
    fn a_note_says_on_the_terminal_what_it_has_in_it() {
        // Bidi_Control in Unicode's PropList.txt.
        let all =
            "\u{61c}\u{200e}\u{200f}\u{202a}\u{202b}\u{202c}\u{202d}\u{202e}\u{2066}\u{2067}\u{2068}\u{2069}";
        for turn in all.chars() {
            assert_eq!(clean(&format!("a{turn}b")), "a\u{fffd}b", "{turn:?}");
        }
        // Its neighbours, and letters that are written from the right.
        let stays = "\u{61b}\u{200d}\u{2010}\u{2027}\u{202f}\u{2065}\u{206a} … → שלום سلام";
        assert_eq!(clean(stays), stays);
    }

    #[test]
    fn what_is_cut_says_so() {
        assert_eq!(cut("exited with status 1", 12), "exited with…");
        assert_eq!(cut("short", 5), "short");
        assert_eq!(cut("größer", 4), "grö…");
    }

    #[test]
    fn a_cause_is_said_once_and_without_its_number() {
        let failed: Result<(), _> = Err(io::Error::from_raw_os_error(13));
        let error = failed.context("cannot write env.d/alice.env").unwrap_err();
        assert_eq!(sentence(error.as_ref()), "cannot write env.d/alice.env: permission denied");
        let error = crate::control::client::ClientError::Output(io::Error::from_raw_os_error(28));
        assert_eq!(sentence(&error), "cannot write: no space left on device");
    }
}
