//! Everything found wrong in mcpsup.toml, each thing at its place, in the order of the file.
//!
//! It also knows what not to say: what follows from an error that was already named, and what
//! seems to be missing from a file that could not be read in full.

use std::collections::BTreeSet;
use std::ops::Range;

use crate::model::Problem;

/// A place in the text, in bytes.
pub(super) type Span = Range<usize>;

/// After so many problems the rest is counted.
const MAX_PROBLEMS: usize = 100;

/// Everything found wrong so far.
pub(super) struct Report<'a> {
    file: &'a str,
    text: &'a str,
    /// Where each line begins, in bytes.
    line_starts: Vec<usize>,
    /// Lines the TOML parser stumbled over: what it made of them says nothing.
    broken_lines: BTreeSet<u32>,
    problems: Vec<Problem>,
    /// Problems that are no longer written down.
    more: usize,
}

impl<'a> Report<'a> {
    pub(super) fn new(file: &'a str, text: &'a str) -> Self {
        let after = text.match_indices('\n').map(|(at, _)| at + 1);
        Self {
            file,
            text,
            line_starts: std::iter::once(0).chain(after).collect(),
            broken_lines: BTreeSet::new(),
            problems: Vec::new(),
            more: 0,
        }
    }

    /// The line, from 1.
    fn line(&self, offset: usize) -> u32 {
        number(self.line_starts.partition_point(|start| *start <= offset))
    }

    /// Line and column in characters, both from 1.
    fn place(&self, offset: usize) -> (u32, u32) {
        let line = self.line_starts.partition_point(|start| *start <= offset);
        let start = self.line_starts.get(line.wrapping_sub(1)).copied().unwrap_or(0);
        let before = self.text.get(start..offset).unwrap_or_default();
        (number(line), number(before.chars().count() + 1))
    }

    /// What is not TOML: the first of each line, because the others follow from it.
    pub(super) fn syntax(&mut self, errors: &[toml::de::Error]) {
        // A list that is never closed swallows the rest of the file, and every line of it is then
        // an error of its own. Only where it should have been closed is worth a message.
        let mut swallowing = false;
        let unclosed = errors.iter().any(|error| error.message().starts_with("unclosed array"));
        for error in errors {
            let Some(start) = error.span().map(|span| span.start) else {
                self.write_down(None, error.message());
                continue;
            };
            let new = self.broken_lines.insert(self.line(start));
            if !new || swallowing || self.is_full() {
                continue;
            }
            let place = Some(self.place(start));
            if error.message().starts_with("missing comma between array elements") {
                swallowing = unclosed;
                let text = "expected a comma or ]; is the list that began before closed?";
                self.write_down(place, text);
            } else {
                self.write_down(place, error.message());
            }
        }
    }

    /// Something wrong at a key or a value.
    pub(super) fn say(&mut self, span: &Span, what: impl Into<String>) {
        if !self.broken_lines.contains(&self.line(span.start)) && !self.is_full() {
            self.write_down(Some(self.place(span.start)), what);
        }
    }

    /// Something that is not there. Held back while there are syntax errors, because it may well
    /// be where the parser could not see it.
    pub(super) fn missing(&mut self, span: Option<&Span>, what: impl Into<String>) {
        if !self.broken_lines.is_empty() {
            return;
        }
        match span {
            Some(span) => self.say(span, what),
            None => self.write_down(None, what),
        }
    }

    /// True, and one more counted, if nothing more is written down.
    fn is_full(&mut self) -> bool {
        let full = self.problems.len() >= MAX_PROBLEMS;
        self.more += usize::from(full);
        full
    }

    fn write_down(&mut self, place: Option<(u32, u32)>, what: impl Into<String>) {
        let problem = Problem::new(self.file, what);
        self.problems.push(match place {
            Some((line, column)) => problem.at(line, column),
            None => problem,
        });
    }

    /// `result` if nothing is wrong, else the problems in the order of the file.
    pub(super) fn verdict<T>(mut self, result: T) -> Result<T, Vec<Problem>> {
        if self.problems.is_empty() {
            return Ok(result);
        }
        self.problems.sort_by_key(|problem| (problem.line, problem.column));
        self.problems.dedup();
        if self.more > 0 {
            let text = format!("and {} more problems", self.more);
            self.problems.push(Problem::new(self.file, text));
        }
        Err(self.problems)
    }
}

/// A count as people are told it.
fn number(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_count_characters() {
        let report = Report::new("f", "ä = 1\nöü = 2\n");
        assert_eq!(report.place(0), (1, 1));
        assert_eq!(report.place("ä = 1\nöü".len()), (2, 3));
        assert_eq!(report.place("ä = 1\nöü = 2\n".len()), (3, 1));
        assert_eq!(report.place(1_000), (3, 1));
    }
}
