//! The members of an object, as text, without reading further than asked.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// Members of an object, or elements of an array, that a client wrote and into which we look, at most. MCP's
/// envelopes, params and lists of subscriptions have a few hundred; millions would keep everybody waiting
/// while they are read.
const FEW: usize = 4096;

/// The text is no JSON object (or array), has too many members, or names a looked-for member twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bad;

/// One member of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member<'a> {
    /// Its name, unescaped.
    pub key: Cow<'a, str>,
    /// Its name as it came, quotes included.
    pub raw_key: &'a str,
    /// Its value as it came.
    pub value: &'a str,
}

/// Calls `each` for the members of the object in `text`, in their order.
///
/// # Errors
///
/// When the text is no JSON object. Members before the fault have then been seen.
pub fn each_member<'a>(text: &'a str, each: impl FnMut(Member<'a>)) -> Result<(), Bad> {
    read_object(text, usize::MAX, each)
}

/// The same for what a client wrote.
///
/// # Errors
///
/// As [`each_member`], and when there are more than 4096.
pub fn each_of_few_members<'a>(text: &'a str, each: impl FnMut(Member<'a>)) -> Result<(), Bad> {
    read_object(text, FEW, each)
}

/// Calls `each` for the elements of the array in `text`.
///
/// # Errors
///
/// When the text is no JSON array. Elements before the fault have then been seen.
pub fn each_element<'a>(text: &'a str, each: impl FnMut(&'a str)) -> Result<(), Bad> {
    read_array(text, usize::MAX, each)
}

/// The same for what a client wrote.
///
/// # Errors
///
/// As [`each_element`], and when there are more than 4096.
pub fn each_of_few_elements<'a>(text: &'a str, each: impl FnMut(&'a str)) -> Result<(), Bad> {
    read_array(text, FEW, each)
}

fn read_object<'a>(text: &'a str, most: usize, each: impl FnMut(Member<'a>)) -> Result<(), Bad> {
    let mut json = serde_json::Deserializer::from_str(text);
    json.deserialize_map(Each { each, left: most }).map_err(|_| Bad)?;
    json.end().map_err(|_| Bad)
}

fn read_array<'a>(text: &'a str, most: usize, each: impl FnMut(&'a str)) -> Result<(), Bad> {
    let mut json = serde_json::Deserializer::from_str(text);
    json.deserialize_seq(EachElement { each, left: most }).map_err(|_| Bad)?;
    json.end().map_err(|_| Bad)
}

/// Names by which calls are told from each other.
const TELLING: [&str; 3] = ["_meta", "progressToken", "requestId"];

/// The members of the object in `text` with these names, as they came.
///
/// # Errors
///
/// When the text is no JSON object, or one of these names stands in it twice; one of `TELLING` also when
/// it stands there in a spelling that a careless reader takes for it.
pub fn members<'a, const N: usize>(text: &'a str, names: [&str; N]) -> Result<[Option<&'a str>; N], Bad> {
    find(text, usize::MAX, names)
}

/// The same for what a client wrote.
///
/// # Errors
///
/// As [`members`], and when the object has more than 4096.
pub fn few_members<'a, const N: usize>(text: &'a str, names: [&str; N]) -> Result<[Option<&'a str>; N], Bad> {
    find(text, FEW, names)
}

fn find<'a, const N: usize>(
    text: &'a str,
    most: usize,
    names: [&str; N],
) -> Result<[Option<&'a str>; N], Bad> {
    let mut found = [None; N];
    let mut twice = false;
    read_object(text, most, |member| {
        if let Some(at) = names.iter().position(|name| *name == member.key) {
            twice |= found[at].replace(member.value).is_some();
        } else {
            let mut telling = names.iter().filter(|name| TELLING.contains(name));
            twice |= telling.any(|name| looks_like(&member.key, name));
        }
    })?;
    if twice { Err(Bad) } else { Ok(found) }
}

/// True if a reader that ignores case takes the one for the other: Go's encoding/json, which folds these two
/// letters too.
#[must_use]
pub fn looks_like(key: &str, name: &str) -> bool {
    let fold = |letter: char| match letter {
        '\u{17f}' => 's',
        '\u{212a}' => 'k',
        letter => letter.to_ascii_lowercase(),
    };
    key.chars().map(fold).eq(name.chars().map(fold))
}

/// What a JSON string says; `None` if it is no string.
#[must_use]
pub fn text_of(json: &str) -> Option<Cow<'_, str>> {
    let inner = json.strip_prefix('"')?.strip_suffix('"')?;
    if inner.contains('\\') {
        serde_json::from_str(json).ok().map(Cow::Owned)
    } else {
        Some(Cow::Borrowed(inner))
    }
}

struct Each<F> {
    each: F,
    left: usize,
}

impl<'a, F: FnMut(Member<'a>)> Visitor<'a> for Each<F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'a>>(mut self, mut map: A) -> Result<(), A::Error> {
        while let Some(raw) = map.next_key::<&'a RawValue>()? {
            self.left = one_less(self.left)?;
            let raw_key = raw.get();
            let key = text_of(raw_key).ok_or_else(|| serde::de::Error::custom("a key"))?;
            let value = map.next_value::<&'a RawValue>()?.get();
            (self.each)(Member { key, raw_key, value });
        }
        Ok(())
    }
}

struct EachElement<F> {
    each: F,
    left: usize,
}

impl<'a, F: FnMut(&'a str)> Visitor<'a> for EachElement<F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'a>>(mut self, mut seq: A) -> Result<(), A::Error> {
        while let Some(raw) = seq.next_element::<&'a RawValue>()? {
            self.left = one_less(self.left)?;
            (self.each)(raw.get());
        }
        Ok(())
    }
}

fn one_less<E: serde::de::Error>(left: usize) -> Result<usize, E> {
    left.checked_sub(1).ok_or_else(|| E::custom("too many"))
}
