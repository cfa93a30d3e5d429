//! goose's config.yaml.
//!
//! yaml-edit says where things stand. A new entry goes right under `extensions:`, where no block
//! text can end and no comment is torn from what it describes. Only the plain block style is
//! edited: braces, anchors, tags and several documents are refused, with the snippet to paste.

use yaml_edit::{Mapping, MappingEntry, YamlFile, YamlNode};

use super::shape::{self, COMMAND_KEYS, Content, Shape, URL_KEYS};
use super::splice::{Splice, newline_of, not_as_meant, wrong_at};
use super::{Entry, Found, MergeError};

/// The keys of an entry that say nothing about who is called or what is sent there.
const TUNING: [&str; 8] =
    ["enabled", "type", "name", "uri", "timeout", "description", "bundled", "available_tools"];

pub(super) fn render(shape: &Shape, entries: &[Entry]) -> String {
    format!("{}:\n{}", shape.container, blocks(shape, entries.iter(), "  ", "  ", "\n"))
}

pub(super) fn merge(shape: &Shape, text: &str, entries: &[Entry], force: bool) -> Result<String, MergeError> {
    let mut splice = Splice::new(text);
    match Reading::of(shape, text)? {
        Reading::Absent => append(&mut splice, shape, entries),
        Reading::Empty { key_at, braces } => {
            if let Some(braces) = braces {
                splice.replace(braces, String::new());
            }
            under(&mut splice, key_at, blocks(shape, entries.iter(), "  ", "  ", newline_of(text)));
        }
        Reading::Block { key_at, mapping, indent } => {
            let mut new = Vec::new();
            for entry in entries {
                match member(shape, &mapping, &entry.name)? {
                    None => new.push(entry),
                    Some(there) => update(&mut splice, shape, &there, entry, force)?,
                }
            }
            let blocks = blocks(shape, new.into_iter(), &indent, "  ", newline_of(text));
            if !blocks.is_empty() {
                under(&mut splice, key_at, blocks);
            }
        }
    }
    let merged = splice.apply();
    let right = |entry: &Entry| {
        find(shape, &merged, &entry.name)
            .is_ok_and(|found| found.is_some_and(|found| leads_there(&found, entry)))
    };
    let kept = rest(shape, text, entries)? == rest(shape, &merged, entries).unwrap_or_default();
    if kept && entries.iter().all(right) { Ok(merged) } else { Err(not_as_meant(shape.container)) }
}

/// True if an entry leads where ours does.
fn leads_there(found: &Found, entry: &Entry) -> bool {
    if entry.command.is_some() {
        found.command == entry.command
    } else {
        found.url.as_deref() == Some(&entry.url)
    }
}

pub(super) fn find(shape: &Shape, text: &str, name: &str) -> Result<Option<Found>, MergeError> {
    let Reading::Block { mapping, .. } = Reading::of(shape, text)? else {
        return Ok(None);
    };
    let Some(entry) = member(shape, &mapping, name)? else {
        return Ok(None);
    };
    let Some(YamlNode::Mapping(fields)) = entry.value_node() else {
        return Ok(Some(Found::default()));
    };
    let url = scalar(fields.get("uri"));
    let command = command(&fields);
    let off = scalar(fields.get("enabled")).as_deref() == Some("false");
    Ok(Some(Found { url, command, off }))
}

/// The program and its arguments, if those are written as a list in one line.
fn command(fields: &Mapping) -> Option<Vec<String>> {
    let program = scalar(fields.get("cmd"))?;
    let args = match fields.get("args") {
        Some(YamlNode::Sequence(list)) => serde_json::from_str(list.to_string().trim()).ok()?,
        Some(YamlNode::Scalar(_) | YamlNode::Mapping(_) | YamlNode::Alias(_) | YamlNode::TaggedNode(_)) => {
            return None;
        }
        None => Vec::new(),
    };
    Some([vec![program], args].concat())
}

/// How the extensions are written.
enum Reading {
    /// Not at all.
    Absent,
    /// `extensions:` with nothing or `{}` behind it.
    Empty { key_at: usize, braces: Option<std::ops::Range<usize>> },
    /// One per block, on lines of their own.
    Block { key_at: usize, mapping: Mapping, indent: String },
}

impl Reading {
    fn of(shape: &Shape, text: &str) -> Result<Self, MergeError> {
        let Some(root) = root(text)? else {
            return Ok(Self::Absent);
        };
        if root.is_flow_style() {
            return Err(by_hand(shape, "the file is written in braces"));
        }
        let column = root.entries().next().and_then(|entry| key_at(&entry));
        if column.is_some_and(|at| !Splice::new(text).indent_at(at).is_empty()) {
            return Err(by_hand(shape, "the file is indented as a whole"));
        }
        let Some(entry) = member(shape, &root, shape.container)? else {
            return Ok(Self::Absent);
        };
        let Some(key_at) = key_at(&entry) else {
            return Err(by_hand(shape, "its key cannot be found"));
        };
        match entry.value_node() {
            None => Ok(Self::Empty { key_at, braces: None }),
            Some(YamlNode::Scalar(value)) if value.to_string().is_empty() => {
                Ok(Self::Empty { key_at, braces: None })
            }
            Some(YamlNode::Mapping(mapping)) if mapping.is_flow_style() => {
                let range = mapping.byte_range();
                let range = range.start as usize..range.end as usize;
                if mapping.is_empty() && text.get(range.clone()) == Some("{}") {
                    Ok(Self::Empty { key_at, braces: Some(range) })
                } else {
                    Err(by_hand(shape, "it is written in braces"))
                }
            }
            Some(YamlNode::Mapping(mapping)) => {
                let splice = Splice::new(text);
                match mapping.entries().next().and_then(|first| self::key_at(&first)) {
                    Some(first) if splice.begins_line(first) => {
                        let indent = splice.indent_at(first).to_owned();
                        Ok(Self::Block { key_at, mapping, indent })
                    }
                    Some(_) | None => Err(by_hand(shape, "its style is unusual")),
                }
            }
            Some(YamlNode::Scalar(_) | YamlNode::Sequence(_)) => {
                Err(wrong_at(text, key_at, format!("expected {} to hold a mapping", shape.container)))
            }
            Some(YamlNode::Alias(_) | YamlNode::TaggedNode(_)) => {
                Err(by_hand(shape, "it holds an alias or a tag"))
            }
        }
    }
}

fn by_hand(shape: &Shape, why: &str) -> MergeError {
    MergeError::Unsafe(format!("cannot edit {} safely, for {why}; add the entry by hand", shape.container))
}

/// The mapping at the top; `None` if there are only comments.
fn root(text: &str) -> Result<Option<Mapping>, MergeError> {
    // The parser's own messages quote the file, which may hold secrets.
    let parsed = YamlFile::parse(text);
    if let Some(error) = parsed.positioned_errors().first() {
        return Err(wrong_at(text, error.range.start as usize, "this is not YAML"));
    }
    let file = parsed.tree();
    let mut documents = file.documents();
    let Some(document) = documents.next() else {
        return Ok(None);
    };
    if documents.next().is_some() {
        return Err(MergeError::Unsafe(
            "cannot edit a file of several documents; add the entry by hand".to_owned(),
        ));
    }
    if let Some(mapping) = document.as_mapping() {
        return Ok(Some(mapping));
    }
    let nothing = document.as_scalar().is_none_or(|scalar| scalar.to_string().is_empty())
        && document.as_sequence().is_none()
        && document.as_tagged().is_none()
        && text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#'));
    if nothing { Ok(None) } else { Err(wrong_at(text, 0, "expected the file to hold a mapping")) }
}

fn key_at(entry: &MappingEntry) -> Option<usize> {
    entry.key_node().map(|key| key.byte_range().start as usize)
}

/// The entry of that name. Two of one name are refused: readers differ in which one counts.
fn member(shape: &Shape, mapping: &Mapping, name: &str) -> Result<Option<MappingEntry>, MergeError> {
    let mut all = mapping.find_all_entries_by_key(name);
    let first = all.next();
    if all.next().is_some() {
        return Err(by_hand(shape, &format!("\"{name}\" stands there twice")));
    }
    Ok(first)
}

fn scalar(node: Option<YamlNode>) -> Option<String> {
    match node {
        Some(YamlNode::Scalar(value)) if !value.is_block() => Some(value.as_string()),
        Some(
            YamlNode::Scalar(_)
            | YamlNode::Mapping(_)
            | YamlNode::Sequence(_)
            | YamlNode::Alias(_)
            | YamlNode::TaggedNode(_),
        )
        | None => None,
    }
}

fn blocks<'e>(
    shape: &Shape,
    entries: impl Iterator<Item = &'e Entry>,
    indent: &str,
    unit: &str,
    newline: &str,
) -> String {
    let mut out = String::new();
    for entry in entries {
        out.extend([indent, &plain(&entry.name), ":", newline]);
        for field in shape.fields {
            out.push_str(&line(field, entry, &format!("{indent}{unit}"), newline));
        }
    }
    out
}

fn line(field: &shape::Field, entry: &Entry, indent: &str, newline: &str) -> String {
    format!("{indent}{}: {}{newline}", field.key, value(field.content, entry))
}

fn value(content: Content, entry: &Entry) -> String {
    match content {
        Content::Url => quoted(&entry.url),
        Content::Name => plain(&entry.name),
        Content::Text(text) => text.to_owned(),
        Content::Flag(flag) => flag.to_string(),
        Content::Number(number) => number.to_string(),
        Content::Helper => quoted(entry.helper.as_deref().unwrap_or_default()),
        Content::Program => quoted(shape::program(entry)),
        Content::Args => list(shape::args(entry)),
        Content::Words => list(entry.command.as_deref().unwrap_or_default()),
        Content::ShimArgs => {
            let args: Vec<String> = shape::shim_args(&entry.url).into_iter().map(quoted).collect();
            format!("[{}]", args.join(", "))
        }
    }
}

fn list(words: &[String]) -> String {
    let words: Vec<String> = words.iter().map(|word| quoted(word)).collect();
    format!("[{}]", words.join(", "))
}

/// A JSON string is a YAML string.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// A name without quotes where every YAML reader takes it for a text.
fn plain(name: &str) -> String {
    const WORDS: [&str; 10] = ["null", "true", "false", "yes", "no", "on", "off", "y", "n", "_"];
    let safe = name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
        && !WORDS.contains(&name.to_ascii_lowercase().as_str());
    if safe { name.to_owned() } else { quoted(name) }
}

fn append(splice: &mut Splice<'_>, shape: &Shape, entries: &[Entry]) {
    let text = splice.text();
    let newline = splice.newline();
    let gap = if text.ends_with('\n') { "" } else { newline };
    let blocks = blocks(shape, entries.iter(), "  ", "  ", newline);
    splice.insert(text.len(), format!("{gap}{}:{newline}{blocks}", shape.container));
}

/// Puts lines under the line of `at`.
fn under(splice: &mut Splice<'_>, at: usize, lines: String) {
    match splice.next_line(at) {
        Some(next) => splice.insert(next, lines),
        None => splice.insert(splice.text().len(), format!("{}{lines}", splice.newline())),
    }
}

fn update(
    splice: &mut Splice<'_>,
    shape: &Shape,
    there: &MappingEntry,
    entry: &Entry,
    force: bool,
) -> Result<(), MergeError> {
    let unusual = || by_hand(shape, &format!("\"{}\" is written in an unusual way", entry.name));
    let Some(YamlNode::Mapping(fields)) = there.value_node() else {
        return Err(unusual());
    };
    let first = fields.entries().next().and_then(|first| key_at(&first)).ok_or_else(unusual)?;
    if fields.is_flow_style() || !splice.begins_line(first) {
        return Err(unusual());
    }
    if entry.command.is_some() {
        let words = command(&fields);
        if words == entry.command {
            return Ok(());
        }
        if !words.is_some_and(|words| shape::is_connect(&words)) {
            return Err(if force { unusual() } else { shape::taken(entry, "something else") });
        }
        for field in shape.fields.iter().filter(|field| field.set) {
            let node = member(shape, &fields, field.key)?
                .and_then(|there| there.value_node())
                .ok_or_else(unusual)?;
            let range = node.byte_range();
            splice.replace(range.start as usize..range.end as usize, value(field.content, entry));
        }
        return Ok(());
    }
    match standing(shape, &fields, entry) {
        Ok(()) => {}
        Err(MergeError::Taken { .. }) if force => {
            let harmless = |field: &MappingEntry| {
                scalar(field.key_node()).is_some_and(|key| TUNING.contains(&key.as_str()))
            };
            // Headers meant for somebody else must not go to our door, nor the other way round.
            if !fields.entries().all(|field| harmless(&field)) {
                return Err(by_hand(shape, &format!("\"{}\" belongs to something else", entry.name)));
            }
        }
        Err(error) => return Err(error),
    }
    for field in shape.fields.iter().filter(|field| field.set) {
        match member(shape, &fields, field.key)? {
            None => {
                let indent = splice.indent_at(first).to_owned();
                splice.insert(first - indent.len(), line(field, entry, &indent, splice.newline()));
            }
            Some(there) => {
                let node = there.value_node().ok_or_else(unusual)?;
                let range = node.byte_range();
                let range = range.start as usize..range.end as usize;
                let new = value(field.content, entry);
                let old = scalar(Some(node)).ok_or_else(unusual)?;
                let meant = match field.content {
                    Content::Url => entry.url.as_str(),
                    Content::Name
                    | Content::Text(_)
                    | Content::Flag(_)
                    | Content::Number(_)
                    | Content::Helper
                    | Content::Program
                    | Content::Args
                    | Content::Words
                    | Content::ShimArgs => new.as_str(),
                };
                if old != meant {
                    if range.is_empty() {
                        return Err(unusual());
                    }
                    splice.replace(range, new);
                }
            }
        }
    }
    Ok(())
}

fn standing(shape: &Shape, fields: &Mapping, entry: &Entry) -> Result<(), MergeError> {
    for key in COMMAND_KEYS {
        if fields.contains_key(key) {
            return Err(shape::taken(entry, "a command"));
        }
    }
    for key in URL_KEYS {
        if let Some(field) = member(shape, fields, key)? {
            match scalar(field.value_node()) {
                Some(url) => shape::ours(entry, &url)?,
                None => return Err(shape::taken(entry, "something that is not a URL")),
            }
        }
    }
    Ok(())
}

/// Everything in a file that is not ours: keys and values as they are written.
fn rest(shape: &Shape, text: &str, entries: &[Entry]) -> Result<Vec<(String, String)>, MergeError> {
    let Some(root) = root(text)? else {
        return Ok(Vec::new());
    };
    let written = |entry: &MappingEntry| {
        let key = entry.key_node().map(|key| key.to_string()).unwrap_or_default();
        let value = entry.value_node().map(|value| value.to_string()).unwrap_or_default();
        (key, value.trim_end().to_owned())
    };
    let mut all = Vec::new();
    for entry in root.entries() {
        match entry.value_node() {
            Some(YamlNode::Mapping(servers)) if entry.key_matches(shape.container) => all.extend(
                servers
                    .entries()
                    .filter(|server| !entries.iter().any(|ours| server.key_matches(ours.name.as_str())))
                    .map(|server| written(&server)),
            ),
            Some(YamlNode::Scalar(value))
                if entry.key_matches(shape.container) && value.to_string().is_empty() => {}
            None if entry.key_matches(shape.container) => {}
            Some(_) | None => all.push(written(&entry)),
        }
    }
    Ok(all)
}
