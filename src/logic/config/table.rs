//! A walk through a TOML document that remembers where everything stands.
//!
//! A [`Table`] learns which keys it has by being asked for them; what nobody asked for is an
//! unknown key. So there is one list of keys, the code that reads them. A wrong value is written
//! down in the [`Report`] and reading goes on with the default: all problems come out at once.
//!
//! Messages name keys, never values, except where the reader of a key chooses to.

use std::collections::BTreeSet;
use std::ops::Range;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use super::units;
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
        let start = self
            .line_starts
            .get(line.wrapping_sub(1))
            .copied()
            .unwrap_or(0);
        let before = self.text.get(start..offset).unwrap_or_default();
        (number(line), number(before.chars().count() + 1))
    }

    /// What is not TOML: the first of each line, because the others follow from it.
    pub(super) fn syntax(&mut self, errors: &[toml::de::Error]) {
        // A list that is never closed swallows the rest of the file, and every line of it is then
        // an error of its own. Only where it should have been closed is worth a message.
        let mut swallowing = false;
        let unclosed = errors
            .iter()
            .any(|error| error.message().starts_with("unclosed array"));
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
            if error
                .message()
                .starts_with("missing comma between array elements")
            {
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
        self.problems
            .sort_by_key(|problem| (problem.line, problem.column));
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

/// A table on its way through being read; one that is not in the file has no keys.
pub(super) struct Table<'t, 'd> {
    /// As messages call it: `[ports]`, `[server.NAME.ready]`.
    title: &'static str,
    entries: Option<&'t DeTable<'d>>,
    known: Vec<&'static str>,
}

impl<'t, 'd> Table<'t, 'd> {
    pub(super) fn new(title: &'static str, entries: &'t DeTable<'d>) -> Self {
        Self {
            title,
            entries: Some(entries),
            known: Vec::new(),
        }
    }

    /// What stands at `key`, which thereby is known.
    pub(super) fn take(&mut self, key: &'static str) -> Option<Entry<'t, 'd>> {
        self.known.push(key);
        let (found, value) = self
            .entries?
            .iter()
            .find(|(found, _)| found.get_ref().as_ref() == key)?;
        Some(Entry {
            key,
            key_span: found.span(),
            value,
        })
    }

    /// The table at `key`, empty if there is none.
    pub(super) fn table(
        &mut self,
        key: &'static str,
        title: &'static str,
        report: &mut Report<'_>,
    ) -> Self {
        let entries = self.take(key).and_then(|entry| entry.table(report));
        Self {
            title,
            entries,
            known: Vec::new(),
        }
    }

    /// All entries of the table at `key`, whatever their names; `None` if it is no table, which
    /// has then been reported.
    pub(super) fn named(
        &mut self,
        key: &'static str,
        report: &mut Report<'_>,
    ) -> Option<Vec<Entry<'t, 'd>>> {
        let Some(entry) = self.take(key) else {
            return Some(Vec::new());
        };
        let entries = entry.table(report)?.iter();
        let entry = |(key, value): (&'t Spanned<_>, _)| Entry {
            key: DeString::as_ref(key.get_ref()),
            key_span: key.span(),
            value,
        };
        Some(entries.map(entry).collect())
    }

    /// Reports every key that was not asked for.
    pub(super) fn finish(self, report: &mut Report<'_>) {
        for (key, _) in self.entries.into_iter().flatten() {
            let name = key.get_ref().as_ref();
            if self.known.contains(&name) {
                continue;
            }
            let mend = match nearest(name, &self.known) {
                Some(near) => format!("did you mean \"{near}\"?"),
                None => format!("{} knows {}", self.title, self.known.join(", ")),
            };
            report.say(&key.span(), format!("unknown key {}; {mend}", shown(name)));
        }
    }
}

/// A key and its value.
pub(super) struct Entry<'t, 'd> {
    pub(super) key: &'t str,
    pub(super) key_span: Span,
    pub(super) value: &'t Spanned<DeValue<'d>>,
}

impl<'t, 'd> Entry<'t, 'd> {
    /// What `read` makes of the value, or the problem that the key takes `what`.
    pub(super) fn read<T>(
        &self,
        what: &str,
        report: &mut Report<'_>,
        read: impl FnOnce(&'t DeValue<'d>) -> Option<T>,
    ) -> Option<T> {
        let found = read(self.value.get_ref());
        if found.is_none() {
            report.say(
                &self.value.span(),
                format!("{} takes {what}", shown_key(self.key)),
            );
        }
        found
    }

    /// What `read` makes of a value in quotes, or the problem that the key takes `what`.
    pub(super) fn text<T>(
        &self,
        what: &str,
        report: &mut Report<'_>,
        read: impl FnOnce(&'t str) -> Option<T>,
    ) -> Option<T> {
        self.read(what, report, |value| value.as_str().and_then(read))
    }

    pub(super) fn flag(&self, report: &mut Report<'_>) -> Option<bool> {
        self.read("true or false, without quotes", report, DeValue::as_bool)
    }

    pub(super) fn duration(&self, report: &mut Report<'_>) -> Option<Duration> {
        self.text(units::DURATION, report, units::duration)
    }

    /// A duration that is more than zero.
    pub(super) fn span_of_time(&self, report: &mut Report<'_>) -> Option<Duration> {
        let what = format!("{}, more than zero", units::DURATION);
        self.text(&what, report, |text| {
            units::duration(text).filter(|found| !found.is_zero())
        })
    }

    pub(super) fn size(&self, report: &mut Report<'_>) -> Option<u64> {
        self.text(units::SIZE, report, units::size)
    }

    /// A whole number from `least` on.
    pub(super) fn count(&self, least: u32, report: &mut Report<'_>) -> Option<u32> {
        let what = format!(
            "a whole number from {least} to {}, without quotes",
            u32::MAX
        );
        self.read(&what, report, |value| {
            let integer = value.as_integer()?;
            let number = u32::from_str_radix(integer.as_str(), integer.radix()).ok()?;
            (number >= least).then_some(number)
        })
    }

    fn table(&self, report: &mut Report<'_>) -> Option<&'t DeTable<'d>> {
        self.read("a table", report, DeValue::as_table)
    }

    /// The value as a table of its own.
    pub(super) fn into_table(
        self,
        title: &'static str,
        report: &mut Report<'_>,
    ) -> Option<Table<'t, 'd>> {
        self.table(report).map(|entries| Table::new(title, entries))
    }
}

/// A key as it stands in a message: as it is when it is an ordinary one.
fn shown_key(key: &str) -> String {
    let ordinary = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
    if key.len() <= 64 && key.bytes().all(ordinary) {
        key.to_owned()
    } else {
        shown(key)
    }
}

/// A piece of the file as it may stand in a message: in quotes, not long, and with nothing in it
/// that moves a terminal's cursor.
pub(super) fn shown(text: &str) -> String {
    let mut short: String = text.chars().take(64).collect();
    if text.chars().nth(64).is_some() {
        short.push('…');
    }
    format!("{short:?}")
}

/// The known key that `key` was probably meant to be.
fn nearest(key: &str, known: &[&'static str]) -> Option<&'static str> {
    if key.len() > 32 {
        return None;
    }
    let allowed = (key.len() / 3).clamp(1, 3);
    let close = known.iter().map(|known| (slips(key, known), *known));
    close
        .filter(|(slips, _)| *slips <= allowed)
        .min()
        .map(|(_, known)| known)
}

/// How many slips of the pen lie between two words: a character too many, missing or wrong, or
/// two exchanged (optimal string alignment).
fn slips(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows: Vec<Vec<usize>> = vec![(0..=b.len()).collect()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let wrong = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut least = wrong.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                least = least.min(rows[i - 2][j - 2] + 1);
            }
            row.push(least);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_key_is_the_one_that_was_meant() {
        let known = [
            "command",
            "transport",
            "env",
            "for_all",
            "path",
            "port_env",
            "stop",
        ];
        assert_eq!(nearest("comand", &known), Some("command"));
        assert_eq!(nearest("trasnport", &known), Some("transport"));
        assert_eq!(nearest("evn", &known), Some("env"));
        assert_eq!(nearest("for-all", &known), Some("for_all"));
        assert_eq!(nearest("portenv", &known), Some("port_env"));
        assert_eq!(nearest("colour", &known), None);
        assert_eq!(nearest("", &known), None);
        assert_eq!(nearest(&"x".repeat(10_000), &known), None);
    }

    #[test]
    fn columns_count_characters() {
        let report = Report::new("f", "ä = 1\nöü = 2\n");
        assert_eq!(report.place(0), (1, 1));
        assert_eq!(report.place("ä = 1\nöü".len()), (2, 3));
        assert_eq!(report.place("ä = 1\nöü = 2\n".len()), (3, 1));
        assert_eq!(report.place(1_000), (3, 1));
    }
}
