//! Codex's config.toml.
//!
//! `toml_edit` says where things stand. A new entry is a table at the end of the file, which TOML
//! allows whatever stands before it; the URL of one that is there is replaced in its place.

use toml_edit::{Document, Item, Key, TableLike, Value};

use super::shape::{self, COMMAND_KEYS, Content, Shape, URL_KEYS};
use super::splice::{Splice, newline_of, not_as_meant, wrong_at};
use super::{Entry, Found, MergeError};

/// The keys of an entry that say nothing about who is called or what is sent there.
const TUNING: [&str; 7] = [
    "url",
    "enabled",
    "required",
    "enabled_tools",
    "disabled_tools",
    "startup_timeout_sec",
    "tool_timeout_sec",
];

pub(super) fn render(shape: &Shape, entries: &[Entry]) -> String {
    let tables: Vec<String> = entries.iter().map(|entry| table(shape, entry, "\n")).collect();
    tables.join("\n")
}

pub(super) fn merge(shape: &Shape, text: &str, entries: &[Entry], force: bool) -> Result<String, MergeError> {
    let file = parse(text)?;
    let servers = servers(shape, text, &file)?;
    let mut splice = Splice::new(text);
    let newline = newline_of(text);
    for entry in entries {
        if let Some(item) = servers.and_then(|servers| servers.get(&entry.name)) {
            update(&mut splice, shape, item, entry, force)?;
        } else {
            let is_last = !text.ends_with('\n') && splice.is_untouched_at_end();
            let gap = if is_last { newline } else { "" };
            splice.insert(text.len(), format!("{gap}{newline}{}", table(shape, entry, newline)));
        }
    }
    let merged = splice.apply();
    let right = |entry: &Entry| {
        find(shape, &merged, &entry.name)
            .is_ok_and(|found| found.is_some_and(|found| leads_there(&found, entry)))
    };
    if entries.iter().all(right) && rest(&merged, shape, entries) == rest(text, shape, entries) {
        Ok(merged)
    } else {
        Err(not_as_meant(shape.container))
    }
}

pub(super) fn find(shape: &Shape, text: &str, name: &str) -> Result<Option<Found>, MergeError> {
    let file = parse(text)?;
    let Some(item) = servers(shape, text, &file)?.and_then(|servers| servers.get(name)) else {
        return Ok(None);
    };
    let text_of = |key: &str| item.get(key).and_then(Item::as_str).map(str::to_owned);
    let url = text_of("url");
    let args = item.get("args").and_then(Item::as_array);
    let args: Vec<String> = args.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
    let command = text_of("command").map(|program| [vec![program], args].concat());
    let off = item.get("enabled").and_then(Item::as_bool) == Some(false);
    Ok(Some(Found { url, command, off }))
}

/// True if an entry leads where ours does.
fn leads_there(found: &Found, entry: &Entry) -> bool {
    if entry.command.is_some() {
        found.command == entry.command && found.url.is_none()
    } else {
        found.url.as_deref() == Some(&entry.url)
    }
}

fn parse(text: &str) -> Result<Document<&str>, MergeError> {
    Document::parse(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start);
        wrong_at(text, at, error.message().lines().next().unwrap_or("not TOML"))
    })
}

fn servers<'f>(
    shape: &Shape,
    text: &str,
    file: &'f Document<&str>,
) -> Result<Option<&'f dyn TableLike>, MergeError> {
    let Some(item) = file.as_table().get(shape.container) else {
        return Ok(None);
    };
    item.as_table_like().map(Some).ok_or_else(|| {
        let at = item.span().map_or(0, |span| span.start);
        wrong_at(text, at, format!("expected {} to be a table", shape.container))
    })
}

fn table(shape: &Shape, entry: &Entry, newline: &str) -> String {
    let name = Key::new(entry.name.as_str());
    let head = format!("[{}.{name}]{newline}", shape.container);
    if entry.command.is_some() {
        let (program, args) = (Value::from(shape::program(entry)), args(entry));
        return format!("{head}command = {program}{newline}args = {args}{newline}");
    }
    let lines = addresses(shape, entry).into_iter().map(|(key, value)| format!("{key} = {value}{newline}"));
    head + &lines.collect::<String>()
}

/// Where an entry points, and how one comes in there: its keys and values.
fn addresses(shape: &Shape, entry: &Entry) -> Vec<(&'static str, Value)> {
    let text = |field: &shape::Field| match field.content {
        Content::Url => Some(entry.url.as_str()),
        Content::Helper => entry.helper.as_deref(),
        Content::Name
        | Content::Text(_)
        | Content::Flag(_)
        | Content::Number(_)
        | Content::Program
        | Content::Args
        | Content::Words
        | Content::ShimArgs => None,
    };
    shape.fields.iter().filter_map(|field| Some((field.key, Value::from(text(field)?)))).collect()
}

fn args(entry: &Entry) -> Value {
    Value::from(shape::args(entry).iter().map(String::as_str).collect::<toml_edit::Array>())
}

fn update(
    splice: &mut Splice<'_>,
    shape: &Shape,
    item: &Item,
    entry: &Entry,
    force: bool,
) -> Result<(), MergeError> {
    let by_hand = || {
        MergeError::Unsafe(format!(
            "cannot edit {}.{} safely; take it out of the file, or write it as the snippet shows",
            shape.container, entry.name
        ))
    };
    let fields = item.as_table_like().ok_or_else(by_hand)?;
    if entry.command.is_some() {
        let there = |key| fields.get(key).ok_or_else(by_hand);
        let (program, old) = (there("command")?, there("args")?);
        let program_text = program.as_str().ok_or_else(by_hand)?;
        let words =
            old.as_array().into_iter().flatten().map(|word| word.as_str().unwrap_or_default().to_owned());
        let words: Vec<String> = [program_text.to_owned()].into_iter().chain(words).collect();
        if Some(&words) == entry.command.as_ref() {
            return Ok(());
        }
        if !shape::is_connect(&words) {
            return Err(if force { by_hand() } else { shape::taken(entry, "a command") });
        }
        splice.replace(program.span().ok_or_else(by_hand)?, Value::from(shape::program(entry)).to_string());
        splice.replace(old.span().ok_or_else(by_hand)?, args(entry).to_string());
        return Ok(());
    }
    match standing(fields, entry) {
        Ok(()) => {}
        // Headers meant for somebody else must not go to our door, nor the other way round.
        Err(MergeError::Taken { .. }) if force && fields.iter().all(|(key, _)| TUNING.contains(&key)) => {}
        Err(MergeError::Taken { .. }) if force => return Err(by_hand()),
        Err(error) => return Err(error),
    }
    let mut missing = String::new();
    let newline = splice.newline().to_owned();
    for (key, value) in addresses(shape, entry) {
        match fields.get(key) {
            Some(there) if there.as_str() == value.as_str() => {}
            Some(there) => splice.replace(there.span().ok_or_else(by_hand)?, value.to_string()),
            None => missing.extend([key, " = ", &value.to_string(), &newline]),
        }
    }
    if !missing.is_empty() {
        // Only under a [header] of its own is there a line to put it after.
        let header = item.as_table().filter(|table| !table.is_implicit() && !table.is_dotted());
        let start = header.and_then(toml_edit::Table::span).ok_or_else(by_hand)?.start;
        match splice.next_line(start) {
            Some(at) => splice.insert(at, missing),
            None => splice.insert(splice.text().len(), format!("{newline}{missing}")),
        }
    }
    Ok(())
}

fn standing(fields: &dyn TableLike, entry: &Entry) -> Result<(), MergeError> {
    if COMMAND_KEYS.iter().any(|key| fields.contains_key(key)) {
        return Err(shape::taken(entry, "a command"));
    }
    for key in URL_KEYS {
        if let Some(item) = fields.get(key) {
            match item.as_str() {
                Some(url) => shape::ours(entry, url)?,
                None => return Err(shape::taken(entry, "something that is not a URL")),
            }
        }
    }
    Ok(())
}

/// Everything in a file that is not ours, and of ours all but the URL, as values.
fn rest(text: &str, shape: &Shape, entries: &[Entry]) -> Option<::toml::Table> {
    let mut all: ::toml::Table = text.parse().ok()?;
    if let Some(servers) = all.get_mut(shape.container).and_then(::toml::Value::as_table_mut) {
        for entry in entries {
            if let Some(fields) = servers.get_mut(&entry.name).and_then(::toml::Value::as_table_mut) {
                for (key, _) in addresses(shape, entry) {
                    fields.remove(key);
                }
                if entry.command.is_some() {
                    fields.remove("command");
                    fields.remove("args");
                }
                if fields.is_empty() {
                    servers.remove(&entry.name);
                }
            }
        }
        if servers.is_empty() {
            all.remove(shape.container);
        }
    }
    Some(all)
}
