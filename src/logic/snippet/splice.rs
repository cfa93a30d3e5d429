//! A text and what is to change in it. Whatever no change names stays byte for byte.

use std::ops::Range;

use super::MergeError;

/// Changes to one text, collected before any is made.
pub(super) struct Splice<'a> {
    text: &'a str,
    edits: Vec<(Range<usize>, String)>,
}

impl<'a> Splice<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, edits: Vec::new() }
    }

    /// The text as it was.
    pub(super) fn text(&self) -> &'a str {
        self.text
    }

    /// Puts `new` in the place of a range of bytes.
    pub(super) fn replace(&mut self, range: Range<usize>, new: String) {
        self.edits.push((range, new));
    }

    /// Puts `new` before the byte at `at`; after what was put there before.
    pub(super) fn insert(&mut self, at: usize, new: String) {
        self.replace(at..at, new);
    }

    /// True if nothing was put at the end yet.
    pub(super) fn is_untouched_at_end(&self) -> bool {
        self.edits.iter().all(|(range, _)| range.start < self.text.len())
    }

    /// The text with all changes made.
    pub(super) fn apply(mut self) -> String {
        // Stable, so that insertions at one place stay in the order they were made.
        self.edits.sort_by_key(|(range, _)| range.start);
        let mut out = String::with_capacity(self.text.len() + 256);
        let mut done = 0;
        for (range, new) in self.edits {
            out.push_str(&self.text[done..range.start.max(done)]);
            out.push_str(&new);
            done = range.end.max(done);
        }
        out.push_str(&self.text[done..]);
        out
    }

    /// How lines end here.
    pub(super) fn newline(&self) -> &'static str {
        newline_of(self.text)
    }

    /// The spaces and tabs that begin the line of `at`.
    pub(super) fn indent_at(&self, at: usize) -> &'a str {
        let line = &self.text[line_start(self.text, at)..];
        &line[..line.len() - line.trim_start_matches([' ', '\t']).len()]
    }

    /// True if only spaces and tabs stand before `at` on its line.
    pub(super) fn begins_line(&self, at: usize) -> bool {
        line_start(self.text, at) + self.indent_at(at).len() == at
    }

    /// The place after the line of `at` and its line end; `None` if it is the last and has none.
    pub(super) fn next_line(&self, at: usize) -> Option<usize> {
        self.text[at..].find('\n').map(|end| at + end + 1)
    }
}

/// How the lines of a text end.
pub(super) fn newline_of(text: &str) -> &'static str {
    if text.contains("\r\n") { "\r\n" } else { "\n" }
}

fn line_start(text: &str, at: usize) -> usize {
    text[..at].rfind('\n').map_or(0, |end| end + 1)
}

/// What is wrong with a file, with the place of the byte at `at`.
pub(super) fn wrong_at(text: &str, at: usize, problem: impl Into<String>) -> MergeError {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    let start = line_start(text, at);
    MergeError::Parse {
        line: 1 + text[..start].matches('\n').count(),
        column: 1 + text[start..at].chars().count(),
        problem: problem.into(),
    }
}

/// The refusal of a result that is not what it was meant to be. It means that the file is written
/// in a way nobody thought of, so nothing is changed.
pub(super) fn not_as_meant(container: &str) -> MergeError {
    MergeError::Unsafe(format!(
        "cannot edit \"{container}\" without changing something else; add the entry by hand"
    ))
}
