//! A walk through a TOML document.
//!
//! A [`Table`] learns which keys it has by being asked for them; what nobody asked for is an
//! unknown key. So there is one list of keys, the code that reads them. A wrong value is written
//! down in the [`Report`] and reading goes on with the default: all problems come out at once.
//!
//! Messages name keys, never values, except where the reader of a key chooses to.

use std::time::Duration;

use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use super::report::{Report, Span};
use super::spelling::{nearest, shown, shown_key};
use super::units;

/// A table on its way through being read; one that is not in the file has no keys.
pub(super) struct Table<'t, 'd> {
    /// As messages call it: `[ports]`, `[server.NAME.ready]`.
    title: &'static str,
    entries: Option<&'t DeTable<'d>>,
    known: Vec<&'static str>,
}

impl<'t, 'd> Table<'t, 'd> {
    pub(super) fn new(title: &'static str, entries: &'t DeTable<'d>) -> Self {
        Self { title, entries: Some(entries), known: Vec::new() }
    }

    /// What stands at `key`, which thereby is known.
    pub(super) fn take(&mut self, key: &'static str) -> Option<Entry<'t, 'd>> {
        self.known.push(key);
        let (found, value) = self.entries?.iter().find(|(found, _)| found.get_ref().as_ref() == key)?;
        Some(Entry { key, key_span: found.span(), value })
    }

    /// The table at `key`, empty if there is none.
    pub(super) fn table(&mut self, key: &'static str, title: &'static str, report: &mut Report<'_>) -> Self {
        let entries = self.take(key).and_then(|entry| entry.table(report));
        Self { title, entries, known: Vec::new() }
    }

    /// All entries of the table at `key`, whatever their names; `None` if it is no table, which
    /// has then been reported.
    pub(super) fn named(&mut self, key: &'static str, report: &mut Report<'_>) -> Option<Vec<Entry<'t, 'd>>> {
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
            report.say(&self.value.span(), format!("{} takes {what}", shown_key(self.key)));
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
        self.text(&what, report, |text| units::duration(text).filter(|found| !found.is_zero()))
    }

    pub(super) fn size(&self, report: &mut Report<'_>) -> Option<u64> {
        self.text(units::SIZE, report, units::size)
    }

    /// A whole number from `least` on.
    pub(super) fn count(&self, least: u32, report: &mut Report<'_>) -> Option<u32> {
        let what = format!("a whole number from {least} to {}, without quotes", u32::MAX);
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
    pub(super) fn into_table(self, title: &'static str, report: &mut Report<'_>) -> Option<Table<'t, 'd>> {
        self.table(report).map(|entries| Table::new(title, entries))
    }
}
