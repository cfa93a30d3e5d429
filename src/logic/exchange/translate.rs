//! Between the eras: what is put into params and results, and what is taken out.

use std::fmt::Write as _;

use crate::logic::era::{
    META_CAPABILITIES, META_CLIENT, META_LEVEL, META_SUBSCRIPTION, META_VERSION, MODERN,
};
use crate::logic::frame::{Frame, Splice, each_member, members};

/// The keys of `_meta` that only the modern era knows in a request.
const MODERN_KEYS: [&str; 4] = [META_VERSION, META_CAPABILITIES, META_CLIENT, META_LEVEL];

/// `_meta` without what is modern, with `token` for a progress token, and with `more` (members) added.
pub(super) fn meta(old: Option<&str>, token: Option<&str>, more: &str) -> String {
    let mut out = String::from("{");
    let mut put = |key: &str, value: &str| {
        let comma = if out.len() == 1 { "" } else { "," };
        // Writing into a String cannot fail.
        write!(out, "{comma}{key}:{value}").unwrap_or_default();
    };
    let kept = each_member(old.unwrap_or("{}"), |member| {
        if member.key == "progressToken" {
            put(member.raw_key, token.unwrap_or(member.value));
        } else if !MODERN_KEYS.contains(&&*member.key) {
            put(member.raw_key, member.value);
        }
    });
    if kept.is_err() {
        out = String::from("{");
    }
    if !more.is_empty() {
        out.push_str(if out.len() == 1 { "" } else { "," });
        out.push_str(more);
    }
    out.push('}');
    out
}

/// Members of `_meta` for a process of the modern era on behalf of a legacy client.
pub(super) fn client_meta(capabilities: &str, info: Option<&str>, level: Option<&str>) -> String {
    let mut out = format!(r#""{META_VERSION}":"{MODERN}","{META_CAPABILITIES}":{capabilities}"#);
    // Writing into a String cannot fail.
    if let Some(info) = info {
        write!(out, r#","{META_CLIENT}":{info}"#).unwrap_or_default();
    }
    if let Some(level) = level {
        write!(out, r#","{META_LEVEL}":"{level}""#).unwrap_or_default();
    }
    out
}

/// Puts `meta` in the place of a message's `params._meta`, wherever that has to be made.
pub(super) fn put_meta<'a>(splice: &mut Splice<'a>, frame: &Frame<'a>, old: Option<&'a str>, meta: String) {
    match (frame.params, old) {
        (_, Some(old)) => splice.put(old, meta),
        (Some(params), None) => splice.insert(params, &format!(r#""_meta":{meta}"#)),
        (None, None) => {
            splice.insert(frame.text.trim_ascii_start(), &format!(r#""params":{{"_meta":{meta}}}"#));
        }
    }
}

/// What a result of the legacy era lacks in the modern one, as members to be put first.
pub(super) fn missing_in_result(result: &str, is_cacheable: bool) -> String {
    let Ok([kind, ttl, scope]) = members(result, ["resultType", "ttlMs", "cacheScope"]) else {
        return String::new();
    };
    let wanted = [
        (kind.is_none(), r#""resultType":"complete""#),
        (is_cacheable && ttl.is_none(), r#""ttlMs":0"#),
        (is_cacheable && scope.is_none(), r#""cacheScope":"private""#),
    ];
    wanted
        .iter()
        .filter(|(is_missing, _)| *is_missing)
        .map(|(_, member)| *member)
        .collect::<Vec<_>>()
        .join(",")
}

/// A notification of the legacy era with a subscription id, for a modern listener.
pub(super) fn subscribed(frame: &Frame<'_>, id: &str) -> Vec<u8> {
    let tag = format!(r#""{META_SUBSCRIPTION}":{id}"#);
    let old = frame.params.and_then(|params| members(params, ["_meta"]).ok()).and_then(|[meta]| meta);
    let mut splice = Splice::new(frame.text);
    put_meta(&mut splice, frame, old, meta(old, None, &tag));
    splice.finish("")
}

/// A notification of the modern era without its subscription id, for a legacy client.
pub(super) fn unsubscribed(frame: &Frame<'_>) -> Vec<u8> {
    let mut splice = Splice::new(frame.text);
    if let Some(Ok([Some(old)])) = frame.params.map(|params| members(params, ["_meta"])) {
        let mut kept = Vec::new();
        let read = each_member(old, |member| {
            if member.key != META_SUBSCRIPTION {
                kept.push(format!("{}:{}", member.raw_key, member.value));
            }
        });
        if read.is_ok() {
            splice.put(old, format!("{{{}}}", kept.join(",")));
        }
    }
    splice.finish("")
}

/// Puts the client's id for ours, where `object` (params or a result) says whose subscription it is of.
pub(super) fn put_subscription<'a>(splice: &mut Splice<'a>, object: &'a str, id: &str) {
    if let Some(ours) = subscription_of(object) {
        splice.put(ours, id.to_owned());
    }
}

/// The subscription id in `_meta` of params or a result.
pub(super) fn subscription_of(object: &str) -> Option<&str> {
    let [meta] = members(object, ["_meta"]).ok()?;
    let [id] = members(meta?, [META_SUBSCRIPTION]).ok()?;
    id
}
