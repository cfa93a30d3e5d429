//! The changes to one JSON file, written the way their neighbours are: on lines of their own or
//! in one line, with or without a last comma, indented alike.

use std::ops::Range;

use jsonc_parser::ast::{Object, ObjectProp, Value};
use jsonc_parser::common::Ranged;

use super::super::shape::{self, COMMAND_KEYS, Shape, URL_KEYS};
use super::super::splice::Splice;
use super::super::{Entry, MergeError};
use super::between::{comma_after, end_of_comments, end_of_remark};
use super::write::{Node, fresh, node, quoted, write_inline, write_lines};
use super::{command, member, shim_url, string};

/// A file being edited, and how it is laid out.
pub(super) struct Sheet<'a> {
    pub(super) splice: Splice<'a>,
    /// One step of indentation.
    unit: String,
}

impl<'a> Sheet<'a> {
    pub(super) fn new(text: &'a str, root: &Object<'_>) -> Self {
        let splice = Splice::new(text);
        let unit = root
            .properties
            .first()
            .filter(|prop| splice.begins_line(prop.range.start))
            .map(|prop| splice.indent_at(prop.range.start))
            .filter(|indent| !indent.is_empty())
            .unwrap_or("  ")
            .to_owned();
        Self { splice, unit }
    }

    /// Adds members to an object, after those it has.
    pub(super) fn add(&mut self, object: &Object<'_>, root: bool, members: &[(String, Node)]) {
        if members.is_empty() {
            return;
        }
        match object.properties.last() {
            Some(last) if self.splice.begins_line(last.range.start) => {
                self.add_lines(last, members);
            }
            Some(last) => self.add_inline(last, members),
            None => self.add_first(object, root, members),
        }
    }

    fn add_lines(&mut self, last: &ObjectProp<'_>, members: &[(String, Node)]) {
        let text = self.splice.text();
        let indent = self.splice.indent_at(last.range.start);
        let comma = comma_after(text, last.range.end);
        if comma.is_none() {
            self.splice.insert(last.range.end, ",".to_owned());
        }
        let at = end_of_remark(text, comma.unwrap_or(last.range.end));
        let mut new = self.lines(indent, members);
        if comma.is_some() {
            new.push(',');
        }
        self.splice.insert(at, new);
    }

    fn add_inline(&mut self, last: &ObjectProp<'_>, members: &[(String, Node)]) {
        let text = self.splice.text();
        let before = &text[last.name.range().end..last.value.range().start];
        let space = if before.ends_with(char::is_whitespace) { " " } else { "" };
        let mut new = String::new();
        for (name, value) in members {
            new.extend([",", space, &quoted(name), ":", space]);
            write_inline(&mut new, value, space);
        }
        match comma_after(text, last.range.end) {
            // The comma that is there comes before ours, and ours is the last one then.
            Some(at) => self.splice.insert(at, format!("{},", &new[1..])),
            None => self.splice.insert(last.range.end, new),
        }
    }

    fn add_first(&mut self, object: &Object<'_>, root: bool, members: &[(String, Node)]) {
        let text = self.splice.text();
        let (open, close) = (object.range.start + 1, object.range.end - 1);
        if !root && !text.trim_end().contains('\n') {
            let mut new = String::new();
            for (i, (name, value)) in members.iter().enumerate() {
                new.extend([if i == 0 { "" } else { ", " }, &quoted(name), ": "]);
                write_inline(&mut new, value, " ");
            }
            self.splice.insert(open, new);
            return;
        }
        let base = self.splice.indent_at(object.range.start);
        let at = end_of_comments(text, open);
        let mut new = self.lines(&format!("{base}{}", self.unit), members);
        if !text[at..close].contains('\n') {
            new.extend([self.splice.newline(), base]);
        }
        self.splice.insert(at, new);
    }

    /// Members on lines of their own, each begun by a line end.
    fn lines(&self, indent: &str, members: &[(String, Node)]) -> String {
        let newline = self.splice.newline();
        let mut new = String::new();
        for (i, (name, value)) in members.iter().enumerate() {
            let comma = if i == 0 { "" } else { "," };
            new.extend([comma, newline, indent, &quoted(name), ": "]);
            write_lines(&mut new, value, indent, &self.unit, newline);
        }
        new
    }

    /// Brings an entry that is there up to date, if it is ours.
    pub(super) fn update(
        &mut self,
        shape: &Shape,
        prop: &ObjectProp<'_>,
        entry: &Entry,
        force: bool,
    ) -> Result<(), MergeError> {
        match self.standing(shape, prop, entry) {
            Ok(Standing::Fields) => {
                if let Value::Object(fields) = &prop.value {
                    self.update_fields(shape, fields, entry)?;
                }
                Ok(())
            }
            Ok(Standing::ShimUrl(range)) => {
                self.set(range, quoted(&entry.url));
                Ok(())
            }
            Ok(Standing::Whole) => {
                self.replace_whole(shape, prop, entry);
                Ok(())
            }
            Err(MergeError::Taken { .. }) if force => {
                self.replace_whole(shape, prop, entry);
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Whose an entry is, and what of it is to change.
    fn standing(&self, shape: &Shape, prop: &ObjectProp<'_>, entry: &Entry) -> Result<Standing, MergeError> {
        let text = self.splice.text();
        let Value::Object(fields) = &prop.value else {
            return Err(shape::taken(entry, "something that is not a server"));
        };
        let words = command(text, fields)?;
        let connects = words.as_ref().is_some_and(|words| shape::is_connect(words));
        if entry.command.is_some() {
            if connects || (words.is_some() && words == entry.command) {
                return Ok(Standing::Fields);
            }
            if let Some(lit) = shim_url(text, fields)? {
                shape::ours(entry, &lit.value)?;
                return Ok(Standing::Whole);
            }
        } else if connects {
            return Ok(Standing::Whole);
        }
        if shape.url_key.is_empty()
            && entry.command.is_none()
            && let Some(lit) = shim_url(text, fields)?
        {
            shape::ours(entry, &lit.value)?;
            return Ok(Standing::ShimUrl(lit.range.start..lit.range.end));
        }
        for key in COMMAND_KEYS {
            if member(text, fields, key)?.is_some() {
                return Err(shape::taken(entry, "a command"));
            }
        }
        for key in URL_KEYS {
            if let Some(prop) = member(text, fields, key)? {
                match string(&prop.value) {
                    Some(url) => shape::ours(entry, &url)?,
                    None => return Err(shape::taken(entry, "something that is not a URL")),
                }
            }
        }
        Ok(if shape.url_key.is_empty() { Standing::Whole } else { Standing::Fields })
    }

    fn update_fields(&mut self, shape: &Shape, fields: &Object<'_>, entry: &Entry) -> Result<(), MergeError> {
        let text = self.splice.text();
        let mut missing = Vec::new();
        for field in shape.fields.iter().filter(|field| field.set) {
            let content = node(field.content, entry);
            let mut there = member(text, fields, field.key)?;
            if there.is_none() && field.key == shape.url_key {
                there = self.other_url(fields, field.key)?;
            }
            match (there, content) {
                (Some(prop), Node::Literal(new)) => {
                    let range = prop.value.range();
                    self.set(range.start..range.end, new);
                }
                (Some(prop), list @ Node::List(_)) if entry.command.is_some() => {
                    let range = prop.value.range();
                    let mut new = String::new();
                    write_inline(&mut new, &list, " ");
                    self.set(range.start..range.end, new);
                }
                (Some(_), Node::List(_) | Node::Members(_)) => {}
                (None, content) => missing.push((field.key.to_owned(), content)),
            }
        }
        self.add(fields, false, &missing);
        Ok(())
    }

    /// A URL under another client's key (Gemini's `url` would mean SSE): it gets the right key.
    fn other_url<'v, 'b>(
        &mut self,
        fields: &'v Object<'b>,
        key: &str,
    ) -> Result<Option<&'v ObjectProp<'b>>, MergeError> {
        for other in URL_KEYS {
            if let Some(prop) = member(self.splice.text(), fields, other)? {
                let range = prop.name.range();
                self.splice.replace(range.start..range.end, quoted(key));
                return Ok(Some(prop));
            }
        }
        Ok(None)
    }

    /// Writes a literal unless the same value stands there, however it is escaped.
    fn set(&mut self, range: Range<usize>, new: String) {
        let value = |text: &str| serde_json::from_str::<serde_json::Value>(text).ok();
        if value(&self.splice.text()[range.clone()]) != value(&new) {
            self.splice.replace(range, new);
        }
    }

    fn replace_whole(&mut self, shape: &Shape, prop: &ObjectProp<'_>, entry: &Entry) {
        let range = prop.value.range();
        let mut new = String::new();
        if self.splice.begins_line(prop.range.start) {
            let indent = self.splice.indent_at(prop.range.start);
            write_lines(&mut new, &fresh(shape, entry), indent, &self.unit, self.splice.newline());
        } else {
            write_inline(&mut new, &fresh(shape, entry), " ");
        }
        self.splice.replace(range.start..range.end, new);
    }
}

/// What of an entry of ours is to change.
enum Standing {
    /// Its fields, one by one.
    Fields,
    /// The argument at this place.
    ShimUrl(Range<usize>),
    /// All of it: the client cannot use it as it is.
    Whole,
}
