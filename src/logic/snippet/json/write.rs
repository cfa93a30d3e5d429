//! What an entry looks like in JSON: over several lines, or in one.

use super::super::Entry;
use super::super::shape::{self, Content, Shape};

/// What is to be written.
pub(super) enum Node {
    /// A literal as it stands in the file.
    Literal(String),
    /// A list, always in one line.
    List(Vec<String>),
    /// An object.
    Members(Vec<(String, Node)>),
}

pub(super) fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

pub(super) fn servers(shape: &Shape, entries: &[Entry]) -> Node {
    Node::Members(entries.iter().map(|entry| (entry.name.clone(), fresh(shape, entry))).collect())
}

pub(super) fn fresh(shape: &Shape, entry: &Entry) -> Node {
    let field = |field: &shape::Field| (field.key.to_owned(), node(field.content, entry));
    Node::Members(shape.fields.iter().map(field).collect())
}

pub(super) fn node(content: Content, entry: &Entry) -> Node {
    match content {
        Content::Url => Node::Literal(quoted(&entry.url)),
        Content::Name => Node::Literal(quoted(&entry.name)),
        Content::Text(text) => Node::Literal(quoted(text)),
        Content::Flag(flag) => Node::Literal(flag.to_string()),
        Content::Number(number) => Node::Literal(number.to_string()),
        Content::Helper => Node::Literal(quoted(entry.helper.as_deref().unwrap_or_default())),
        Content::Program => Node::Literal(quoted(shape::program(entry))),
        Content::Args => Node::List(shape::args(entry).iter().map(|word| quoted(word)).collect()),
        Content::Words => Node::List(entry.command.iter().flatten().map(|word| quoted(word)).collect()),
        Content::ShimArgs => Node::List(shape::shim_args(&entry.url).into_iter().map(quoted).collect()),
    }
}

pub(super) fn write_lines(out: &mut String, node: &Node, indent: &str, unit: &str, newline: &str) {
    match node {
        Node::Literal(_) | Node::List(_) => write_inline(out, node, " "),
        Node::Members(members) => {
            let inner = format!("{indent}{unit}");
            out.push('{');
            for (i, (name, value)) in members.iter().enumerate() {
                let comma = if i == 0 { "" } else { "," };
                out.extend([comma, newline, &inner, &quoted(name), ": "]);
                write_lines(out, value, &inner, unit, newline);
            }
            out.extend([newline, indent, "}"]);
        }
    }
}

pub(super) fn write_inline(out: &mut String, node: &Node, space: &str) {
    match node {
        Node::Literal(text) => out.push_str(text),
        Node::List(items) => {
            out.extend(["[", &items.join(&format!(",{space}")), "]"]);
        }
        Node::Members(members) => {
            out.push('{');
            for (i, (name, value)) in members.iter().enumerate() {
                let comma = if i == 0 { String::new() } else { format!(",{space}") };
                out.extend([comma.as_str(), &quoted(name), ":", space]);
                write_inline(out, value, space);
            }
            out.push('}');
        }
    }
}
