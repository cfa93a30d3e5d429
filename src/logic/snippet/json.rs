//! JSON files, with comments and trailing commas where the client reads them.
//!
//! jsonc-parser says where things stand; the text itself is cut by [`Splice`]. New members are
//! written the way their neighbours are: on lines of their own or in one line, with or without a
//! last comma, indented alike.

use jsonc_parser::ast::{Object, ObjectProp, Value};
use jsonc_parser::common::Ranged;
use jsonc_parser::{CollectOptions, CommentCollectionStrategy, ParseOptions};

use super::shape::{self, COMMAND_KEYS, Content, Shape, URL_KEYS};
use super::splice::{Splice, not_as_meant, wrong_at};
use super::{Entry, Found, MergeError};

/// What is to be written.
enum Node {
    /// A literal as it stands in the file.
    Literal(String),
    /// A list, always in one line.
    List(Vec<String>),
    /// An object.
    Members(Vec<(String, Node)>),
}

pub(super) fn render(shape: &Shape, entries: &[Entry]) -> String {
    let file = Node::Members(vec![(shape.container.to_owned(), servers(shape, entries))]);
    let mut out = String::new();
    write_lines(&mut out, &file, "", "  ", "\n");
    out.push('\n');
    out
}

pub(super) fn merge(
    shape: &Shape,
    comments: bool,
    text: &str,
    entries: &[Entry],
    force: bool,
) -> Result<String, MergeError> {
    let Some(root) = parse(text, comments)? else {
        // Nothing but comments.
        let gap = if text.ends_with('\n') { "" } else { "\n" };
        return Ok(format!("{text}{gap}{}", render(shape, entries)));
    };
    let root = object(text, &root, "the file")?;
    let mut sheet = Sheet::new(text, root);
    match member(text, root, shape.container)? {
        None => {
            let new = vec![(shape.container.to_owned(), servers(shape, entries))];
            sheet.add(root, true, &new);
        }
        Some(container) => {
            let container = object(text, &container.value, &quoted(shape.container))?;
            let mut new = Vec::new();
            for entry in entries {
                match member(text, container, &entry.name)? {
                    None => new.push((entry.name.clone(), fresh(shape, entry))),
                    Some(prop) => sheet.update(shape, prop, entry, force)?,
                }
            }
            sheet.add(container, false, &new);
        }
    }
    let merged = sheet.splice.apply();
    if rest(&merged, comments, shape, entries) == rest(text, comments, shape, entries) {
        Ok(merged)
    } else {
        Err(not_as_meant(shape.container))
    }
}

pub(super) fn find(
    shape: &Shape,
    comments: bool,
    text: &str,
    name: &str,
) -> Result<Option<Found>, MergeError> {
    let Some(root) = parse(text, comments)? else {
        return Ok(None);
    };
    let root = object(text, &root, "the file")?;
    let Some(container) = member(text, root, shape.container)? else {
        return Ok(None);
    };
    let container = object(text, &container.value, &quoted(shape.container))?;
    let Some(prop) = member(text, container, name)? else {
        return Ok(None);
    };
    let Value::Object(entry) = &prop.value else {
        return Ok(Some(Found {
            url: None,
            off: false,
        }));
    };
    let url = if shape.url_key.is_empty() {
        shim_url(text, entry)?.map(|lit| lit.value.to_string())
    } else {
        member(text, entry, shape.url_key)?.and_then(|prop| string(&prop.value))
    };
    let is = |key, wanted| {
        member(text, entry, key).map(|found| {
            found.is_some_and(
                |prop| matches!(&prop.value, Value::BooleanLit(lit) if lit.value == wanted),
            )
        })
    };
    Ok(Some(Found {
        url,
        off: is("enabled", false)? || is("disabled", true)?,
    }))
}

fn parse(text: &str, comments: bool) -> Result<Option<Value<'_>>, MergeError> {
    let collect = CollectOptions {
        comments: CommentCollectionStrategy::Off,
        tokens: false,
    };
    jsonc_parser::parse_to_ast(text, &collect, &options(comments))
        .map(|result| result.value)
        .map_err(|error| wrong_at(text, error.range().start, lower(&error.kind().to_string())))
}

/// Standard JSON, and comments and trailing commas where the client knows them.
fn options(comments: bool) -> ParseOptions {
    ParseOptions {
        allow_comments: comments,
        allow_loose_object_property_names: false,
        allow_trailing_commas: comments,
        allow_missing_commas: false,
        allow_single_quoted_strings: false,
        allow_hexadecimal_numbers: false,
        allow_unary_plus_numbers: false,
        allow_bare_decimal_point_numbers: false,
        allow_non_finite_numbers: false,
        allow_extended_string_escapes: false,
    }
}

fn lower(message: &str) -> String {
    let mut chars = message.chars();
    chars.next().map_or_else(String::new, |first| {
        first.to_lowercase().chain(chars).collect()
    })
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn string(value: &Value<'_>) -> Option<String> {
    match value {
        Value::StringLit(lit) => Some(lit.value.to_string()),
        Value::NumberLit(_)
        | Value::BooleanLit(_)
        | Value::Object(_)
        | Value::Array(_)
        | Value::NullKeyword(_) => None,
    }
}

fn object<'v, 'a>(
    text: &str,
    value: &'v Value<'a>,
    what: &str,
) -> Result<&'v Object<'a>, MergeError> {
    match value {
        Value::Object(object) => Ok(object),
        Value::StringLit(_)
        | Value::NumberLit(_)
        | Value::BooleanLit(_)
        | Value::Array(_)
        | Value::NullKeyword(_) => Err(wrong_at(
            text,
            value.range().start,
            format!("expected {what} to hold an object, {{…}}"),
        )),
    }
}

/// The member of that name. Two of one name are refused: clients differ in which one counts.
fn member<'v, 'a>(
    text: &str,
    object: &'v Object<'a>,
    name: &str,
) -> Result<Option<&'v ObjectProp<'a>>, MergeError> {
    let mut all = object
        .properties
        .iter()
        .filter(|prop| prop.name.as_str() == name);
    let first = all.next();
    match all.next() {
        None => Ok(first),
        Some(second) => Err(wrong_at(
            text,
            second.range.start,
            format!(
                "{} stands here a second time; take one of them out",
                quoted(name)
            ),
        )),
    }
}

/// The argument of an npx entry that is the URL mcp-remote connects to.
fn shim_url<'v, 'a>(
    text: &str,
    entry: &'v Object<'a>,
) -> Result<Option<&'v jsonc_parser::ast::StringLit<'a>>, MergeError> {
    let Some(ObjectProp {
        value: Value::Array(args),
        ..
    }) = member(text, entry, "args")?
    else {
        return Ok(None);
    };
    let mut texts = args.elements.iter().filter_map(|element| match element {
        Value::StringLit(lit) => Some(lit),
        Value::NumberLit(_)
        | Value::BooleanLit(_)
        | Value::Object(_)
        | Value::Array(_)
        | Value::NullKeyword(_) => None,
    });
    let shim = texts
        .by_ref()
        .any(|lit| lit.value == "mcp-remote" || lit.value.starts_with("mcp-remote@"));
    Ok(if shim { texts.next() } else { None })
}

fn servers(shape: &Shape, entries: &[Entry]) -> Node {
    Node::Members(
        entries
            .iter()
            .map(|entry| (entry.name.clone(), fresh(shape, entry)))
            .collect(),
    )
}

fn fresh(shape: &Shape, entry: &Entry) -> Node {
    let field = |field: &shape::Field| (field.key.to_owned(), node(field.content, entry));
    Node::Members(shape.fields.iter().map(field).collect())
}

fn node(content: Content, entry: &Entry) -> Node {
    match content {
        Content::Url => Node::Literal(quoted(&entry.url)),
        Content::Name => Node::Literal(quoted(&entry.name)),
        Content::Text(text) => Node::Literal(quoted(text)),
        Content::Flag(flag) => Node::Literal(flag.to_string()),
        Content::Number(number) => Node::Literal(number.to_string()),
        Content::ShimArgs => Node::List(
            shape::shim_args(&entry.url)
                .into_iter()
                .map(quoted)
                .collect(),
        ),
    }
}

fn write_lines(out: &mut String, node: &Node, indent: &str, unit: &str, newline: &str) {
    match node {
        Node::Literal(_) | Node::List(_) => write_inline(out, node, " "),
        Node::Members(members) => {
            let inner = format!("{indent}{unit}");
            out.push('{');
            for (i, (name, value)) in members.iter().enumerate() {
                let comma = if i == 0 { "" } else { "," };
                out.push_str(&format!("{comma}{newline}{inner}{}: ", quoted(name)));
                write_lines(out, value, &inner, unit, newline);
            }
            out.push_str(&format!("{newline}{indent}}}"));
        }
    }
}

fn write_inline(out: &mut String, node: &Node, space: &str) {
    match node {
        Node::Literal(text) => out.push_str(text),
        Node::List(items) => {
            out.push_str(&format!("[{}]", items.join(&format!(",{space}"))));
        }
        Node::Members(members) => {
            out.push('{');
            for (i, (name, value)) in members.iter().enumerate() {
                let comma = if i == 0 {
                    String::new()
                } else {
                    format!(",{space}")
                };
                out.push_str(&format!("{comma}{}:{space}", quoted(name)));
                write_inline(out, value, space);
            }
            out.push('}');
        }
    }
}

/// A file being edited, and how it is laid out.
struct Sheet<'a> {
    splice: Splice<'a>,
    /// One step of indentation.
    unit: String,
}

impl<'a> Sheet<'a> {
    fn new(text: &'a str, root: &Object<'_>) -> Self {
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
    fn add(&mut self, object: &Object<'_>, root: bool, members: &[(String, Node)]) {
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
        let space = if before.ends_with(char::is_whitespace) {
            " "
        } else {
            ""
        };
        let mut new = String::new();
        for (name, value) in members {
            new.push_str(&format!(",{space}{}:{space}", quoted(name)));
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
                new.push_str(&format!(
                    "{}{}: ",
                    if i == 0 { "" } else { ", " },
                    quoted(name)
                ));
                write_inline(&mut new, value, " ");
            }
            self.splice.insert(open, new);
            return;
        }
        let base = self.splice.indent_at(object.range.start);
        let at = end_of_comments(text, open);
        let mut new = self.lines(&format!("{base}{}", self.unit), members);
        if !text[at..close].contains('\n') {
            new.push_str(&format!("{}{base}", self.splice.newline()));
        }
        self.splice.insert(at, new);
    }

    /// Members on lines of their own, each begun by a line end.
    fn lines(&self, indent: &str, members: &[(String, Node)]) -> String {
        let newline = self.splice.newline();
        let mut new = String::new();
        for (i, (name, value)) in members.iter().enumerate() {
            let comma = if i == 0 { "" } else { "," };
            new.push_str(&format!("{comma}{newline}{indent}{}: ", quoted(name)));
            write_lines(&mut new, value, indent, &self.unit, newline);
        }
        new
    }

    /// Brings an entry that is there up to date, if it is ours.
    fn update(
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
    fn standing(
        &self,
        shape: &Shape,
        prop: &ObjectProp<'_>,
        entry: &Entry,
    ) -> Result<Standing, MergeError> {
        let text = self.splice.text();
        let Value::Object(fields) = &prop.value else {
            return Err(shape::taken(entry, "something that is not a server"));
        };
        if shape.url_key.is_empty()
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
        Ok(if shape.url_key.is_empty() {
            Standing::Whole
        } else {
            Standing::Fields
        })
    }

    fn update_fields(
        &mut self,
        shape: &Shape,
        fields: &Object<'_>,
        entry: &Entry,
    ) -> Result<(), MergeError> {
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
    fn set(&mut self, range: std::ops::Range<usize>, new: String) {
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
            write_lines(
                &mut new,
                &fresh(shape, entry),
                indent,
                &self.unit,
                self.splice.newline(),
            );
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
    ShimUrl(std::ops::Range<usize>),
    /// All of it: the client cannot use it as it is.
    Whole,
}

/// The place after the blanks and comments that begin at `at`, and after the last comment of them.
fn skip(text: &str, mut at: usize) -> (usize, usize) {
    let mut comment = at;
    loop {
        let rest = &text[at..];
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else {
            let blanks = rest.len() - rest.trim_start().len();
            if blanks == 0 {
                return (at, comment);
            }
            at += blanks;
            continue;
        };
        at += length;
        // A carriage return belongs to the line end.
        comment = at - usize::from(text[..at].ends_with('\r'));
    }
}

/// The place after the comma that follows a member, if one does.
fn comma_after(text: &str, at: usize) -> Option<usize> {
    let (next, _) = skip(text, at);
    text[next..].starts_with(',').then_some(next + 1)
}

/// The place after the last comment that begins on the line of `at`.
fn end_of_remark(text: &str, at: usize) -> usize {
    let mut end = at;
    loop {
        let rest = &text[end..];
        let blanks = rest.len() - rest.trim_start_matches([' ', '\t']).len();
        if !rest[blanks..].starts_with("//") && !rest[blanks..].starts_with("/*") {
            return end;
        }
        let line = rest[blanks..].starts_with("//");
        end += blanks;
        end += if line {
            text[end..].find('\n').unwrap_or(text.len() - end)
        } else {
            text[end..]
                .find("*/")
                .map_or(text.len() - end, |close| close + 2)
        };
        if line {
            return end - usize::from(text[..end].ends_with('\r'));
        }
    }
}

/// The place after the comments that begin at `at`; `at` itself if there are none.
fn end_of_comments(text: &str, at: usize) -> usize {
    skip(text, at).1
}

/// Everything in a file that is not ours, as values.
fn rest(text: &str, comments: bool, shape: &Shape, entries: &[Entry]) -> Option<serde_json::Value> {
    let mut all = serde_json::Value::from(parse(text, comments).ok()??);
    if let Some(root) = all.as_object_mut()
        && let Some(container) = root.get_mut(shape.container)
    {
        if let Some(container) = container.as_object_mut() {
            for entry in entries {
                container.remove(&entry.name);
            }
        }
        if container.as_object().is_some_and(serde_json::Map::is_empty) {
            root.remove(shape.container);
        }
    }
    Some(all)
}
