//! Arguments of tools that a modern client says again in headers (2026-07-28, `x-mcp-header`).
//!
//! Whoever routes by such a header trusts it, so a call whose header says something else than its
//! body is refused. Which arguments those are stands in the tools' schemas: the process is asked for
//! them before the first call of a tool, and every list that passes on its way to a client counts
//! too, so that what is known here is never older than what that client knows.

use std::borrow::Cow;
use std::collections::HashMap;

use crate::logic::era::{Refused, decoded, header_mismatch};
use crate::logic::frame::{self, Body, Outcome, each_element, each_member, few_members, members, text_of};
use crate::model::Moment;

use super::calls::Own;
use super::opening::SILENCE;
use super::{Deed, Exchange};

/// The most pages of a list that are asked for.
const MAX_PAGES: u32 = 64;

/// More arguments of a tool with headers than this are not checked; nor could a request say more headers.
const MAX_MIRRORS: usize = 64;

/// Bytes of the names of one argument and of its header; where one is longer, that tool's are not checked.
const MAX_NAMES: usize = 1024;

/// Bytes of what is known of all tools; what goes beyond is not checked.
const MAX_BYTES: usize = 1 << 20;

/// How deep in a schema such an argument may be.
const MAX_DEPTH: usize = 16;

/// What a header of a request says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Head<'a> {
    /// It is not there.
    Absent,
    /// This.
    Is(&'a str),
    /// It is there twice, or is no text: two readers may understand it differently.
    Doubtful,
}

/// What is known of the arguments.
#[derive(Debug, Default)]
pub(super) struct Mirrors {
    by_tool: HashMap<Box<str>, Vec<Mirror>>,
    /// Bytes of that.
    bytes: usize,
    asked: Asked,
}

/// Whether the process was asked for its tools.
#[derive(Debug, Default, Clone, Copy)]
enum Asked {
    #[default]
    No,
    /// It is waited for until then; so many pages have come.
    Waiting(Moment, u32),
    Done,
}

/// One argument, and its header.
#[derive(Debug, PartialEq, Eq)]
struct Mirror {
    /// In lower case, `mcp-param-` included.
    header: Box<str>,
    /// The names that lead to it.
    path: Vec<Box<str>>,
}

/// What was found in the schema of a tool.
#[derive(Default)]
struct Found {
    mirrors: Vec<Mirror>,
    is_too_much: bool,
}

/// What it takes to know this of a tool, in bytes, about.
fn size(tool: &str, mirrors: &[Mirror]) -> usize {
    let names = |mirror: &Mirror| mirror.path.iter().map(|name| name.len() + 32).sum::<usize>();
    let mirrors = mirrors.iter().map(|mirror| mirror.header.len() + names(mirror) + 64);
    tool.len() + 64 + mirrors.sum::<usize>()
}

impl Found {
    fn put(&mut self, header: &str, path: &[Cow<'_, str>]) {
        let names = header.len() + path.iter().map(|name| name.len()).sum::<usize>();
        self.is_too_much |= names > MAX_NAMES || self.mirrors.len() >= MAX_MIRRORS;
        if !self.is_too_much {
            let header = format!("mcp-param-{}", header.to_ascii_lowercase()).into();
            let path = path.iter().map(|name| (**name).into()).collect();
            self.mirrors.push(Mirror { header, path });
        }
    }
}

impl Mirrors {
    /// Another process may have other tools.
    pub(super) fn lost(&mut self) {
        *self = Self::default();
    }

    /// Bytes of what is known.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// When a process that does not list its tools is waited for no longer.
    pub(super) const fn deadline(&self) -> Option<Moment> {
        match self.asked {
            Asked::Waiting(until, _) => Some(until),
            Asked::No | Asked::Done => None,
        }
    }

    /// Takes in a result of `tools/list`; a list of something else holds no tools. False if a part of it
    /// cannot be read, and was left out.
    pub(super) fn learn(&mut self, result: &str) -> bool {
        // Hardly any tool has one.
        if self.by_tool.is_empty() && !result.contains("x-mcp-header") {
            return true;
        }
        let Ok([Some(tools)]) = members(result, ["tools"]) else { return false };
        let mut is_whole = true;
        let listed = each_element(tools, |tool| {
            let Ok([Some(name), schema]) = members(tool, ["name", "inputSchema"]) else { return };
            let Some(name) = text_of(name) else { return };
            let mut found = Found::default();
            if let Some(schema) = schema {
                is_whole &= collect(schema, &mut Vec::new(), &mut found);
            }
            is_whole &= self.put(&name, found);
        });
        listed.is_ok() && is_whole
    }

    /// Keeps what was found of a tool. False if that is too much: then it is as if nothing had been found.
    fn put(&mut self, name: &str, found: Found) -> bool {
        if let Some(before) = self.by_tool.remove(name) {
            self.bytes -= size(name, &before);
        }
        let bytes = size(name, &found.mirrors);
        if found.is_too_much || self.bytes + bytes > MAX_BYTES {
            return false;
        }
        if !found.mirrors.is_empty() {
            self.bytes += bytes;
            self.by_tool.insert(name.into(), found.mirrors);
        }
        true
    }

    fn check<'h>(&self, params: &str, head: &dyn Fn(&str) -> Head<'h>) -> Result<(), &'static str> {
        let Ok([Some(name), arguments]) = members(params, ["name", "arguments"]) else { return Ok(()) };
        let mirrors = text_of(name).and_then(|name| self.by_tool.get(&*name));
        for mirror in mirrors.into_iter().flatten() {
            let Ok(value) = value_at(arguments, &mirror.path) else {
                return Err("an argument stands twice in the body, or among too many");
            };
            match (head(&mirror.header), value.and_then(primitive)) {
                (Head::Absent, None) => {}
                (Head::Is(said), Some(value)) if decoded(said.trim_ascii()).as_deref() == Some(&*value) => {}
                (Head::Absent, Some(_)) => return Err("an Mcp-Param header is absent"),
                (Head::Is(_) | Head::Doubtful, _) => {
                    return Err("an Mcp-Param header is not what the body says");
                }
            }
        }
        Ok(())
    }
}

impl Exchange {
    /// True once it is known how the headers of this message are to be checked; till then the process
    /// has been asked, and [`Deed::Learned`] says when to look again.
    pub fn knows_heads(&mut self, body: &Body<'_>, now: Moment) -> bool {
        let is_modern = self.server.as_ref().is_some_and(|server| server.is_modern);
        if !is_modern || params_of_call(body).is_none() {
            return true;
        }
        match self.mirrors.asked {
            Asked::No => {
                self.mirrors.asked = Asked::Waiting(now + SILENCE, 0);
                self.ask_tools(None);
                false
            }
            Asked::Waiting(..) => false,
            Asked::Done => true,
        }
    }

    /// Checks what the headers of a modern client's call say of its arguments.
    ///
    /// # Errors
    ///
    /// 400 with [`HEADER_MISMATCH`](crate::logic::era::HEADER_MISMATCH).
    pub fn check_heads<'h>(&self, body: &Body<'_>, head: &dyn Fn(&str) -> Head<'h>) -> Result<(), Refused> {
        match params_of_call(body) {
            Some((id, params)) => {
                self.mirrors.check(params, head).map_err(|why| header_mismatch(Some(id), why))
            }
            None => Ok(()),
        }
    }

    fn ask_tools(&mut self, cursor: Option<&str>) {
        let wire = self.fresh();
        self.own.insert(wire, Own::Tools);
        let cursor = cursor.map_or_else(String::new, |cursor| format!(r#","cursor":{cursor}"#));
        let params = format!(r#"{{"_meta":{{{}}}{cursor}}}"#, self.own_meta());
        self.send(frame::request(&wire.to_string(), "tools/list", Some(&params)));
    }

    /// A page of the tools, or that there are none to be had.
    pub(super) fn tools_listed(&mut self, outcome: Outcome<'_>) {
        let next = match outcome {
            Outcome::Result(result) => {
                self.mirrors.learn(result);
                members(result, ["nextCursor"])
                    .ok()
                    .and_then(|[next]| next)
                    .filter(|next| next.starts_with('"'))
            }
            Outcome::Error(_) => None,
        };
        match (self.mirrors.asked, next) {
            (Asked::Waiting(until, pages), Some(next)) if pages < MAX_PAGES => {
                self.mirrors.asked = Asked::Waiting(until, pages + 1);
                self.ask_tools(Some(next));
            }
            (Asked::Waiting(..), _) => self.learned(),
            // It was given up; what it said late counts all the same.
            (Asked::No | Asked::Done, _) => {}
        }
    }

    /// A process that does not list its tools is not waited for any longer.
    pub(super) fn give_up_learning(&mut self, now: Moment) {
        if self.mirrors.deadline().is_some_and(|until| until <= now) {
            self.learned();
        }
    }

    fn learned(&mut self) {
        self.mirrors.asked = Asked::Done;
        self.deeds.push(Deed::Learned);
    }
}

/// Id and params, if this is a call of a tool.
fn params_of_call<'a>(body: &Body<'a>) -> Option<(&'a str, &'a str)> {
    match body {
        Body::One(frame) if frame.method() == Some("tools/call") => frame.request_id().zip(frame.params),
        Body::One(_) | Body::Batch(_) => None,
    }
}

/// What the properties of a schema say, and those of their properties. False if a part of it cannot be
/// read.
fn collect<'a>(schema: &'a str, path: &mut Vec<Cow<'a, str>>, found: &mut Found) -> bool {
    let Ok([properties]) = members(schema, ["properties"]) else { return !schema.starts_with('{') };
    let Some(properties) = properties else { return true };
    let mut is_whole = true;
    let read = each_member(properties, |property| {
        path.push(property.key);
        let header = members(property.value, ["x-mcp-header"]).ok().and_then(|[header]| header);
        if let Some(header) = header.and_then(text_of).filter(|header| !header.is_empty()) {
            found.put(&header, path);
        }
        if path.len() < MAX_DEPTH {
            is_whole &= collect(property.value, path, found);
        }
        path.pop();
    });
    read.is_ok() && is_whole
}

/// The value to which these names lead, as JSON. An error if one of them stands twice, or among too many.
fn value_at<'a>(arguments: Option<&'a str>, path: &[Box<str>]) -> Result<Option<&'a str>, frame::Bad> {
    let mut value = arguments;
    for name in path {
        match value.filter(|value| value.starts_with('{')) {
            Some(object) => [value] = few_members(object, [&**name])?,
            None => return Ok(None),
        }
    }
    Ok(value)
}

/// What a header says of such a value. `None` where it says nothing: null, and what is no primitive.
fn primitive(value: &str) -> Option<std::borrow::Cow<'_, str>> {
    match value.as_bytes().first()? {
        b'"' => text_of(value),
        b'n' | b'{' | b'[' => None,
        _ => Some(value.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = r#"{"tools":[
        {"name":"deploy","inputSchema":{"type":"object","properties":{
            "region":{"type":"string","x-mcp-header":"Region"},
            "at":{"type":"object","properties":{"count":{"type":"integer","x-mcp-header":"Count"}}},
            "odd":{"type":"string","x-mcp-header":""}}}},
        {"name":"plain","inputSchema":{"type":"object","properties":{"region":{"type":"string"}}}}]}"#;

    fn known() -> Mirrors {
        let mut mirrors = Mirrors::default();
        assert!(mirrors.learn(LIST));
        mirrors
    }

    fn check(mirrors: &Mirrors, heads: &[(&str, &'static str)], params: &str) -> bool {
        let head = |name: &str| {
            let found = heads.iter().find(|(known, _)| *known == name);
            found.map_or(Head::Absent, |(_, said)| if *said == "?" { Head::Doubtful } else { Head::Is(said) })
        };
        mirrors.check(params, &head).is_ok()
    }

    #[test]
    fn a_header_says_what_the_argument_says() {
        let mirrors = known();
        let (region, count) = ("mcp-param-region", "mcp-param-count");
        let call = r#"{"name":"deploy","arguments":{"region":"s\u00fcd","at":{"count":3}}}"#;
        let right = [(region, "=?base64?c8O8ZA==?="), (count, " 3 ")];
        assert!(check(&mirrors, &right, call));
        for wrong in [
            vec![],
            vec![right[0]],
            vec![(region, "nord"), right[1]],
            vec![(region, "=?base64?c8O8ZA?="), right[1]],
            vec![(region, "?"), right[1]],
            vec![right[0], (count, "4")],
        ] {
            assert!(!check(&mirrors, &wrong, call), "{wrong:?}");
        }
        let plain = r#"{"name":"plain","arguments":{"region":"x"}}"#;
        assert!(check(&mirrors, &[], plain) && check(&mirrors, &[(region, "y")], plain));
    }

    #[test]
    fn an_argument_that_says_nothing_has_no_header() {
        let mirrors = known();
        for nothing in [
            r#"{"name":"deploy"}"#,
            r#"{"name":"deploy","arguments":{}}"#,
            r#"{"name":"deploy","arguments":{"region":null,"at":[]}}"#,
        ] {
            assert!(check(&mirrors, &[], nothing), "{nothing}");
            assert!(!check(&mirrors, &[("mcp-param-region", "x")], nothing), "{nothing}");
            assert!(!check(&mirrors, &[("mcp-param-count", "?")], nothing), "{nothing}");
        }
        let twice = r#"{"name":"deploy","arguments":{"region":"x","region":"y"}}"#;
        assert!(!check(&mirrors, &[("mcp-param-region", "x")], twice));
    }

    #[test]
    fn a_later_list_replaces_what_an_earlier_one_said_of_the_same_tools() {
        let mut mirrors = known();
        mirrors.learn(r#"{"tools":[{"name":"other","inputSchema":{}}]}"#);
        assert_eq!(mirrors.by_tool["deploy"].len(), 2);
        assert!(mirrors.learn(r#"{"tools":[{"name":"deploy"}]}"#));
        assert!(mirrors.by_tool.is_empty() && mirrors.bytes == 0);
        assert!(!mirrors.learn(r#"{"tools":[{"name":"x-mcp-header","inputSchema":{"properties":[]}}]}"#));
    }

    /// A tool with so many arguments that have headers, each below all these names.
    fn tool(name: &str, arguments: usize, below: &[&str]) -> String {
        let leaves: Vec<String> =
            (0..arguments).map(|n| format!(r#""{n}":{{"x-mcp-header":"h{n}"}}"#)).collect();
        let mut schema = format!(r#"{{"properties":{{{}}}}}"#, leaves.join(","));
        for name in below {
            schema = format!(r#"{{"properties":{{"{name}":{schema}}}}}"#);
        }
        format!(r#"{{"name":"{name}","inputSchema":{schema}}}"#)
    }

    #[test]
    fn a_list_of_tools_makes_us_keep_little_whatever_is_in_it() {
        let mut mirrors = Mirrors::default();
        let long = "n".repeat(10_000);
        for tool in [tool("many", 8000, &["a"; 14]), tool("long", 4, &[&*long; 10])] {
            assert!(!mirrors.learn(&format!(r#"{{"tools":[{tool}]}}"#)), "it is too much");
            assert_eq!((mirrors.by_tool.len(), mirrors.bytes), (0, 0));
        }
        let all: Vec<String> = (0..2000).map(|n| tool(&n.to_string(), 60, &["a"; 14])).collect();
        assert!(!mirrors.learn(&format!(r#"{{"tools":[{}]}}"#, all.join(","))));
        assert!(mirrors.bytes <= MAX_BYTES && !mirrors.by_tool.is_empty());
        // What is not known is not checked; the next process begins anew.
        assert!(check(&mirrors, &[], r#"{"name":"many","arguments":{"a":{"1":2}}}"#));
        mirrors.lost();
        assert_eq!((mirrors.by_tool.len(), mirrors.bytes), (0, 0));
    }
}
