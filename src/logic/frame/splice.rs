//! Other text in place of spans of a text.

use std::borrow::Cow;

/// A text with spans of it to be replaced.
#[derive(Debug, Clone)]
pub struct Splice<'a> {
    text: &'a str,
    /// Where a span begins and ends, and what comes in its place.
    edits: Vec<(usize, usize, Cow<'a, str>)>,
}

impl<'a> Splice<'a> {
    /// Nothing is replaced yet.
    #[must_use]
    pub fn new(text: &'a str) -> Self {
        Self { text, edits: Vec::with_capacity(4) }
    }

    /// Puts `new` in the place of `span`, which is a piece of the text (the very bytes, not equal ones).
    /// A span that is none of it, or that meets another, changes nothing.
    pub fn put(&mut self, span: &str, new: impl Into<Cow<'a, str>>) {
        // Addresses, not contents: the same id can stand in many places.
        let from = (span.as_ptr() as usize).wrapping_sub(self.text.as_ptr() as usize);
        let to = from.wrapping_add(span.len());
        let free = |(start, end, _): &(usize, usize, Cow<'_, str>)| to <= *start || *end <= from;
        if from <= to && to <= self.text.len() && self.edits.iter().all(free) {
            self.edits.push((from, to, new.into()));
        }
    }

    /// Puts a member (`"name":value`) first into `object`, which is a piece of the text.
    pub fn insert(&mut self, object: &'a str, member: &str) {
        let Some(inner) = object.strip_prefix('{') else { return };
        let comma = if inner.trim_ascii_start().starts_with('}') { "" } else { "," };
        self.put(&inner[..0], format!("{member}{comma}"));
    }

    /// The text with its replacements, on one line, and `end` behind it. A line break can stand between
    /// the tokens of JSON only (it is escaped inside of strings), so it becomes a space.
    #[must_use]
    pub fn finish(mut self, end: &str) -> Vec<u8> {
        self.edits.sort_unstable_by_key(|edit| edit.0);
        let more: usize = self.edits.iter().map(|edit| edit.2.len()).sum();
        let mut out = Vec::with_capacity(self.text.len() + more + end.len());
        let mut at = 0;
        for (from, to, new) in &self.edits {
            out.extend_from_slice(&self.text.as_bytes()[at..*from]);
            out.extend_from_slice(new.as_bytes());
            at = *to;
        }
        out.extend_from_slice(&self.text.as_bytes()[at..]);
        for byte in &mut out {
            if matches!(*byte, b'\n' | b'\r') {
                *byte = b' ';
            }
        }
        out.extend_from_slice(end.as_bytes());
        out
    }
}
