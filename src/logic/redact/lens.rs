//! One lens per encoding: reads what the bytes of the output stand for, and walks the values with
//! it. A lens never changes a byte; it says which ones spell a value, and from where on it cannot
//! tell yet.

use std::collections::VecDeque;

use super::words::{SHORTEST_ANYWHERE, State, Words};

/// One byte as a lens reads it, and the bytes of the output that spell it.
#[derive(Clone, Copy)]
pub(super) struct Symbol {
    pub(super) byte: u8,
    /// Position of the first byte that spells it.
    pub(super) start: u64,
    /// Position after the last one.
    pub(super) end: u64,
}

/// What ended with the byte that was looked at.
#[derive(Default)]
pub(super) struct Seen {
    /// Where values stand.
    pub(super) values: Vec<(u64, u64)>,
    /// Where very short values stand, longest first; they count as words only.
    pub(super) words: Vec<(u64, u64)>,
}

/// A way through the automaton, and where each byte of the value begun came from.
#[derive(Default)]
struct Walk {
    state: Option<State>,
    starts: VecDeque<u64>,
}

impl Walk {
    fn step(&mut self, words: &Words, symbol: Symbol, mut found: impl FnMut(usize, (u64, u64))) {
        self.state = words.step(self.state, symbol.byte);
        let Some(state) = self.state else {
            self.starts.clear();
            return;
        };
        self.starts.push_back(symbol.start);
        for length in words.ending(state) {
            if let Some(&start) = self.starts.len().checked_sub(length).and_then(|i| self.starts.get(i)) {
                found(length, (start, symbol.end));
            }
            // What is shorter lies inside it. (Many values that end alike must not cost more.)
            if length >= SHORTEST_ANYWHERE {
                break;
            }
        }
        let open = words.open(state);
        let over = self.starts.len().saturating_sub(open);
        self.starts.drain(..over);
    }

    /// The same, for lenses that do not look for words.
    fn step_anywhere(&mut self, words: &Words, symbol: Symbol, seen: &mut Seen) {
        self.step(words, symbol, |length, place| {
            if length >= SHORTEST_ANYWHERE {
                seen.values.push(place);
            }
        });
    }

    fn waits_from(&self) -> Option<u64> {
        self.starts.front().copied()
    }

    fn forget(&mut self) {
        *self = Self::default();
    }
}

/// The output as it is.
#[derive(Default)]
pub(super) struct Plain(Walk);

impl Plain {
    pub(super) fn look_at(&mut self, words: &Words, symbol: Symbol, seen: &mut Seen) {
        self.0.step(words, symbol, |length, place| {
            if length >= SHORTEST_ANYWHERE { seen.values.push(place) } else { seen.words.push(place) }
        });
    }

    pub(super) fn waits_from(&self) -> Option<u64> {
        self.0.waits_from()
    }

    pub(super) fn forget(&mut self) {
        self.0.forget();
    }
}

/// How a byte can be written with others.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Grammar {
    /// Backslashes: JSON, and what Python, JavaScript, Go and Rust print for a string.
    Json,
    /// The same twice over.
    JsonInJson,
    /// `%41`
    Percent,
    /// `%41`, and `+` for a blank.
    Form,
}

impl Grammar {
    /// Those in which some value looks different from itself.
    pub(super) fn needed(words: &Words) -> Vec<Self> {
        let mut needed = Vec::new();
        if words
            .use_any(|byte| !(byte.is_ascii_alphanumeric() || b"-._~:,;=@%#!?*()[]{}|^$ ".contains(&byte)))
        {
            needed.extend([Self::Json, Self::JsonInJson]);
        }
        if words.use_any(|byte| !(byte.is_ascii_alphanumeric() || b"-._~".contains(&byte))) {
            needed.push(Self::Percent);
        }
        if words.use_any(|byte| byte == b' ') {
            needed.push(Self::Form);
        }
        needed
    }

    fn first_step(self) -> Unescape {
        match self {
            Self::Json | Self::JsonInJson => Unescape::new(b'\\', json),
            Self::Percent => Unescape::new(b'%', percent),
            Self::Form => Unescape::new(b'%', form),
        }
    }
}

/// The output without its escapes.
pub(super) struct Escapes {
    grammar: Grammar,
    first: Unescape,
    second: Option<Unescape>,
    walk: Walk,
}

impl Escapes {
    pub(super) fn new(grammar: Grammar) -> Self {
        let second = (grammar == Grammar::JsonInJson).then(|| grammar.first_step());
        Self { grammar, first: grammar.first_step(), second, walk: Walk::default() }
    }

    pub(super) fn look_at(&mut self, words: &Words, symbol: Symbol, seen: &mut Seen) {
        let Self { first, second, walk, .. } = self;
        first.push(symbol, &mut |symbol| match second {
            None => walk.step_anywhere(words, symbol, seen),
            Some(second) => second.push(symbol, &mut |symbol| walk.step_anywhere(words, symbol, seen)),
        });
    }

    pub(super) fn waits_from(&self) -> Option<u64> {
        let second = self.second.as_ref().and_then(Unescape::waits_from);
        [self.walk.waits_from(), second, self.first.waits_from()].into_iter().flatten().min()
    }

    pub(super) fn forget(&mut self) {
        *self = Self::new(self.grammar);
    }
}

/// What the bytes at hand begin with.
enum Piece {
    /// Not to be told yet.
    Unfinished,
    /// The first byte stands for itself.
    Itself,
    /// So many bytes stand for this.
    Stands(usize, [u8; 4], usize),
}

/// Reads escapes, which begin with one byte.
struct Unescape {
    sign: u8,
    read: fn(&[u8]) -> Piece,
    /// An escape that has begun: at most 12 bytes, `\ud83d\ude00`.
    begun: Vec<Symbol>,
}

impl Unescape {
    fn new(sign: u8, read: fn(&[u8]) -> Piece) -> Self {
        Self { sign, read, begun: Vec::new() }
    }

    fn push(&mut self, symbol: Symbol, out: &mut impl FnMut(Symbol)) {
        let plus = symbol.byte == b'+' && self.sign == b'%';
        if self.begun.is_empty() && symbol.byte != self.sign && !plus {
            return out(symbol);
        }
        self.begun.push(symbol);
        while !self.begun.is_empty() {
            let mut bytes = [0; 16];
            for (byte, symbol) in bytes.iter_mut().zip(&self.begun) {
                *byte = symbol.byte;
            }
            let (first, count) = (self.begun[0], self.begun.len().min(16));
            match (self.read)(&bytes[..count]) {
                Piece::Unfinished => return,
                Piece::Itself => {
                    out(first);
                    self.begun.remove(0);
                }
                Piece::Stands(taken, text, length) => {
                    let end = self.begun[taken - 1].end;
                    for &byte in &text[..length] {
                        out(Symbol { byte, start: first.start, end });
                    }
                    self.begun.drain(..taken);
                }
            }
        }
    }

    fn waits_from(&self) -> Option<u64> {
        self.begun.first().map(|symbol| symbol.start)
    }
}

fn one(taken: usize, byte: u8) -> Piece {
    Piece::Stands(taken, [byte, 0, 0, 0], 1)
}

fn json(bytes: &[u8]) -> Piece {
    match bytes {
        [b'\\'] => Piece::Unfinished,
        [b'\\', b'n', ..] => one(2, b'\n'),
        [b'\\', b'r', ..] => one(2, b'\r'),
        [b'\\', b't', ..] => one(2, b'\t'),
        [b'\\', b'b', ..] => one(2, 8),
        [b'\\', b'f', ..] => one(2, 12),
        [b'\\', sign @ (b'"' | b'\'' | b'\\' | b'/'), ..] => one(2, *sign),
        [b'\\', b'x', digits @ ..] => match hex(digits, 2) {
            Hex::Number(number) => u8::try_from(number).map_or(Piece::Itself, |byte| one(4, byte)),
            Hex::Unfinished => Piece::Unfinished,
            Hex::No => Piece::Itself,
        },
        [b'\\', b'u', digits @ ..] => match hex(digits, 4) {
            Hex::Number(number) => unicode(number, &digits[4..]),
            Hex::Unfinished => Piece::Unfinished,
            Hex::No => Piece::Itself,
        },
        _ => Piece::Itself,
    }
}

/// A `\uXXXX` of six bytes, with `rest` after it: the second half of a pair, where one is needed.
fn unicode(number: u32, rest: &[u8]) -> Piece {
    let stands = |taken, number| {
        let mut text = [0; 4];
        let length =
            char::from_u32(number).unwrap_or(char::REPLACEMENT_CHARACTER).encode_utf8(&mut text).len();
        Piece::Stands(taken, text, length)
    };
    if !(0xd800..0xdc00).contains(&number) {
        return stands(6, number);
    }
    match rest {
        [] | [b'\\'] => Piece::Unfinished,
        [b'\\', b'u', digits @ ..] => match hex(digits, 4) {
            Hex::Number(low @ 0xdc00..0xe000) => {
                stands(12, 0x1_0000 + ((number - 0xd800) << 10) + (low - 0xdc00))
            }
            Hex::Unfinished => Piece::Unfinished,
            Hex::Number(_) | Hex::No => stands(6, number),
        },
        _ => stands(6, number),
    }
}

fn percent(bytes: &[u8]) -> Piece {
    match bytes {
        [b'%', digits @ ..] => match hex(digits, 2) {
            Hex::Number(number) => u8::try_from(number).map_or(Piece::Itself, |byte| one(3, byte)),
            Hex::Unfinished => Piece::Unfinished,
            Hex::No => Piece::Itself,
        },
        _ => Piece::Itself,
    }
}

fn form(bytes: &[u8]) -> Piece {
    if bytes.first() == Some(&b'+') { one(1, b' ') } else { percent(bytes) }
}

enum Hex {
    Number(u32),
    Unfinished,
    No,
}

/// The first `count` bytes as a hexadecimal number.
fn hex(bytes: &[u8], count: usize) -> Hex {
    let mut number = 0;
    for &byte in bytes.iter().take(count) {
        match char::from(byte).to_digit(16) {
            Some(digit) => number = number * 16 + digit,
            None => return Hex::No,
        }
    }
    if bytes.len() < count { Hex::Unfinished } else { Hex::Number(number) }
}

/// The output decoded from base64, in each of the four ways in which a group may begin.
#[derive(Default)]
pub(super) struct Base64 {
    walks: [Walk; 4],
    /// The character before, with its position, while in a stretch of the alphabet.
    before: Option<(u8, u64)>,
    /// How many characters came before in this stretch, modulo 4.
    phase: usize,
}

impl Base64 {
    pub(super) fn look_at(&mut self, words: &Words, symbol: Symbol, seen: &mut Seen) {
        let Some(sextet) = sextet(symbol.byte) else {
            if self.before.is_some() {
                self.forget();
            }
            return;
        };
        if let Some((before, start)) = self.before {
            for (first, walk) in self.walks.iter_mut().enumerate() {
                let byte = match (4 + self.phase - first) % 4 {
                    1 => before << 2 | sextet >> 4,
                    2 => before << 4 | sextet >> 2,
                    3 => before << 6 | sextet,
                    _ => continue,
                };
                walk.step_anywhere(words, Symbol { byte, start, end: symbol.end }, seen);
            }
        }
        self.before = Some((sextet, symbol.start));
        self.phase = (self.phase + 1) % 4;
    }

    /// The last character may hold the first bits of a value, too.
    pub(super) fn waits_from(&self, words: &Words) -> Option<u64> {
        let (last, position) = self.before?;
        // A group that began 1, 2 or 3 characters ago leaves 6, 4 or 2 bits of the next byte. One
        // of the four began 4 ago, and leaves none.
        let may_begin =
            [6, 4, 2].into_iter().any(|bits| words.begin_with_bits(last & ((1 << bits) - 1), bits));
        let begun = self.walks.iter().filter_map(Walk::waits_from).min();
        begun.into_iter().chain(may_begin.then_some(position)).min()
    }

    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }
}

fn sextet(byte: u8) -> Option<u8> {
    match byte {
        b'A'..=b'Z' => Some(byte - b'A'),
        b'a'..=b'z' => Some(byte - b'a' + 26),
        b'0'..=b'9' => Some(byte - b'0' + 52),
        b'+' | b'-' => Some(62),
        b'/' | b'_' => Some(63),
        _ => None,
    }
}
