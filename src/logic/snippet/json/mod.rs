//! JSON files, with comments and trailing commas where the client reads them.
//!
//! jsonc-parser says where things stand; [`sheet`] collects what is to change there.

mod between;
mod sheet;
mod write;

use jsonc_parser::ast::{Object, ObjectProp, Value};
use jsonc_parser::common::Ranged;
use jsonc_parser::{CollectOptions, CommentCollectionStrategy, ParseOptions};

use super::shape::Shape;
use super::splice::{not_as_meant, wrong_at};
use super::{Entry, Found, MergeError};
use sheet::Sheet;
use write::{Node, fresh, quoted, servers, write_lines};

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
        return Ok(Some(Found::default()));
    };
    let url = if shape.url_key.is_empty() {
        shim_url(text, entry)?.map(|lit| lit.value.to_string())
    } else {
        member(text, entry, shape.url_key)?.and_then(|prop| string(&prop.value))
    };
    let is = |key, wanted| {
        member(text, entry, key).map(|found| {
            found.is_some_and(|prop| matches!(&prop.value, Value::BooleanLit(lit) if lit.value == wanted))
        })
    };
    Ok(Some(Found {
        url,
        command: command(text, entry)?,
        off: is("enabled", false)? || is("disabled", true)?,
    }))
}

fn parse(text: &str, comments: bool) -> Result<Option<Value<'_>>, MergeError> {
    let collect = CollectOptions { comments: CommentCollectionStrategy::Off, tokens: false };
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
    chars.next().map_or_else(String::new, |first| first.to_lowercase().chain(chars).collect())
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

fn object<'v, 'a>(text: &str, value: &'v Value<'a>, what: &str) -> Result<&'v Object<'a>, MergeError> {
    match value {
        Value::Object(object) => Ok(object),
        Value::StringLit(_)
        | Value::NumberLit(_)
        | Value::BooleanLit(_)
        | Value::Array(_)
        | Value::NullKeyword(_) => {
            Err(wrong_at(text, value.range().start, format!("expected {what} to hold an object, {{…}}")))
        }
    }
}

/// The member of that name. Two of one name are refused: clients differ in which one counts.
fn member<'v, 'a>(
    text: &str,
    object: &'v Object<'a>,
    name: &str,
) -> Result<Option<&'v ObjectProp<'a>>, MergeError> {
    let mut all = object.properties.iter().filter(|prop| prop.name.as_str() == name);
    let first = all.next();
    match all.next() {
        None => Ok(first),
        Some(second) => Err(wrong_at(
            text,
            second.range.start,
            format!("{} stands here a second time; take one of them out", quoted(name)),
        )),
    }
}

/// The program an entry starts, with its arguments; `None` if it does not say so in texts.
fn command(text: &str, entry: &Object<'_>) -> Result<Option<Vec<String>>, MergeError> {
    let mut words = Vec::new();
    for key in ["command", "args"] {
        match member(text, entry, key)?.map(|prop| &prop.value) {
            Some(Value::Array(list)) => {
                for element in &list.elements {
                    let Some(word) = string(element) else { return Ok(None) };
                    words.push(word);
                }
            }
            Some(value) => {
                let Some(word) = string(value) else { return Ok(None) };
                words.push(word);
            }
            None if key == "command" => return Ok(None),
            None => {}
        }
    }
    Ok(Some(words))
}

/// The argument of an npx entry that is the URL mcp-remote connects to.
fn shim_url<'v, 'a>(
    text: &str,
    entry: &'v Object<'a>,
) -> Result<Option<&'v jsonc_parser::ast::StringLit<'a>>, MergeError> {
    let Some(ObjectProp { value: Value::Array(args), .. }) = member(text, entry, "args")? else {
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
    let shim = texts.by_ref().any(|lit| lit.value == "mcp-remote" || lit.value.starts_with("mcp-remote@"));
    Ok(if shim { texts.next() } else { None })
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
