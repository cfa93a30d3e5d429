//! Keeps secret values out of a log.
//!
//! A [`Redactor`] is fed a run's output as it comes, cut anywhere, and gives it back with every
//! secret value replaced by `[redacted]`. It recognises a value
//!
//! * as it is, over several lines too, and each line of 8 bytes or more of a value that has
//!   several (a PEM key printed with other line ends, or indented);
//! * with the escapes of JSON and its relatives (`\n`, `\"`, `\/`, `\u00e9`, `\xe9`), once or
//!   twice over;
//! * percent-encoded by any set of rules, in either case, with a blank as `%20` or `+`;
//! * in base64, standard or URL-safe, padded or not, wherever it stands in what was encoded
//!   (`Authorization: Basic` holds `user:token`).
//!
//! Instead of listing every spelling of every value (some 25 times its size), the output is read
//! through one lens per encoding, and each lens looks for the values themselves in one shared
//! automaton. Whatever any of them finds is hidden, so values that overlap are hidden whole.
//!
//! A declared credential of 1 to 3 bytes is hidden only where it stands as a word of its own, as it
//! is: `7` in `port 3457` says nothing. A value of nothing but white space is not looked for.
//! Not recognised: a part of a value (a program that prints the last four characters), base64 or a
//! value broken over lines by the program, one encoding inside another (but JSON in JSON),
//! hexadecimal, compression. This keeps accidents out of logs; it does not stop a program that
//! wants to tell.
//!
//! Memory: 24 to 60 bytes per byte of value (a test says so), so it is built when there is
//! something to read, and let go when there has been nothing for a while. `daemon::output` does.

mod lens;
mod words;

#[cfg(test)]
mod tests;

use zeroize::Zeroize;

use crate::model::Secret;
use lens::{Base64, Escapes, Grammar, Plain, Seen, Symbol};
use words::Words;

/// What stands in place of a secret value.
pub const MARK: &[u8] = b"[redacted]";

/// Bytes looked at before what is settled is given out; bounds the copy of a large read.
const SLICE: usize = 16 * 1024;

/// Replaces secret values in a stream of bytes.
///
/// What goes in comes out at once, but for a tail that may be the beginning of a secret value:
/// never more than the longest spelling of one, and nothing at all after most ordinary text.
pub struct Redactor {
    words: Words,
    plain: Plain,
    /// JSON, JSON in JSON, percent, percent with `+`: those that some value can need.
    escapes: Vec<Escapes>,
    base64: Base64,
    /// Bytes not given out yet, from `base` on.
    held: Vec<u8>,
    base: u64,
    /// The byte before `base`.
    before: Option<u8>,
    /// What was found in `held`: first byte and the one after the last.
    found: Vec<(u64, u64)>,
    /// Bytes before this one stand behind a mark that was given out.
    hidden_to: u64,
    /// A very short value at the end of `held`: a word, if no more of a word follows.
    word: Option<(u64, u64)>,
}

impl Redactor {
    /// A redactor of these values.
    #[must_use]
    pub fn new(secrets: &[Secret]) -> Self {
        let words = Words::new(secrets);
        let escapes = Grammar::needed(&words).into_iter().map(Escapes::new).collect();
        Self {
            words,
            plain: Plain::default(),
            escapes,
            base64: Base64::default(),
            held: Vec::new(),
            base: 0,
            before: None,
            found: Vec::new(),
            hidden_to: 0,
            word: None,
        }
    }

    /// Takes the next bytes; appends to `out` what is settled.
    pub fn feed(&mut self, input: &[u8], out: &mut Vec<u8>) {
        if self.words.is_empty() {
            out.extend_from_slice(input);
            return;
        }
        for slice in input.chunks(SLICE) {
            for &byte in slice {
                self.look_at(byte);
            }
            let settled = self.settled();
            self.give_out(settled, out);
        }
    }

    /// Gives out what is held: nothing follows, or it is not to be waited for.
    ///
    /// What comes next is looked at as if it were the beginning.
    pub fn flush(&mut self, out: &mut Vec<u8>) {
        if let Some(word) = self.word.take() {
            self.hide(word);
        }
        self.give_out(self.end(), out);
        self.forget();
    }

    /// Lets go what is held without giving it out, and says how many bytes that were: what follows
    /// them was lost, and they may be the beginning of a secret value.
    pub fn abandon(&mut self) -> usize {
        let lost = self.held.len();
        self.base = self.end();
        self.held.zeroize();
        self.forget();
        lost
    }

    /// How many bytes are held back.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// Bytes of memory this takes, about.
    #[must_use]
    pub fn memory(&self) -> usize {
        size_of::<Self>()
            + self.words.memory()
            + self.held.capacity()
            + self.found.capacity() * size_of::<(u64, u64)>()
    }

    fn end(&self) -> u64 {
        self.base + self.held.len() as u64
    }

    fn look_at(&mut self, byte: u8) {
        if let Some(word) = self.word.take()
            && !is_of_a_word(byte)
        {
            self.hide(word);
        }
        let at = self.end();
        self.held.push(byte);
        let symbol = Symbol { byte, start: at, end: at + 1 };
        let mut seen = Seen::default();
        self.plain.look_at(&self.words, symbol, &mut seen);
        for lens in &mut self.escapes {
            lens.look_at(&self.words, symbol, &mut seen);
        }
        self.base64.look_at(&self.words, symbol, &mut seen);
        for place in seen.values {
            self.hide(place);
        }
        self.word =
            seen.words.into_iter().find(|&(start, _)| !self.byte_before(start).is_some_and(is_of_a_word));
    }

    /// Notes a place; at once as one with the last if they overlap, so that a flood of overlapping
    /// values needs no memory.
    fn hide(&mut self, (start, end): (u64, u64)) {
        match self.found.last_mut() {
            Some(last) if last.0 <= start && start < last.1 => last.1 = last.1.max(end),
            _ => self.found.push((start, end)),
        }
    }

    fn byte_before(&self, position: u64) -> Option<u8> {
        match usize::try_from(position.saturating_sub(self.base)) {
            Ok(0) | Err(_) => self.before,
            Ok(index) => self.held.get(index - 1).copied(),
        }
    }

    /// The position before which nothing can still become part of a secret value.
    fn settled(&self) -> u64 {
        let escapes = self.escapes.iter().filter_map(Escapes::waits_from);
        let others =
            [self.plain.waits_from(), self.base64.waits_from(&self.words), self.word.map(|(start, _)| start)];
        escapes.chain(others.into_iter().flatten()).min().unwrap_or(self.end()).max(self.base)
    }

    /// Gives out everything before `to`. What begins later cannot join what begins earlier, so the
    /// outcome is the same however the input was cut.
    fn give_out(&mut self, to: u64, out: &mut Vec<u8>) {
        self.found.sort_unstable();
        let ready = self.found.partition_point(|&(start, _)| start < to);
        for (start, end) in self.found.drain(..ready) {
            if start >= self.hidden_to {
                copy(&self.held, self.base, self.hidden_to.max(self.base), start, out);
                out.extend_from_slice(MARK);
            }
            self.hidden_to = self.hidden_to.max(end);
        }
        copy(&self.held, self.base, self.hidden_to.max(self.base), to, out);
        let gone = usize::try_from(to - self.base).unwrap_or(usize::MAX).min(self.held.len());
        if gone > 0 {
            self.before = Some(self.held[gone - 1]);
            self.held.drain(..gone);
            self.base = to;
        }
        if self.held.capacity() > 4 * self.held.len().max(256) {
            self.held.shrink_to(256);
            self.found.shrink_to(16);
        }
    }

    fn forget(&mut self) {
        self.before = None;
        self.word = None;
        self.found.clear();
        self.plain.forget();
        self.escapes.iter_mut().for_each(Escapes::forget);
        self.base64.forget();
    }
}

impl Drop for Redactor {
    fn drop(&mut self) {
        self.held.zeroize();
    }
}

impl std::fmt::Debug for Redactor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Redactor").field("held", &self.held.len()).finish_non_exhaustive()
    }
}

/// Copies the positions `from..to` of `held`, which begins at `base`.
fn copy(held: &[u8], base: u64, from: u64, to: u64, out: &mut Vec<u8>) {
    let index = |position: u64| usize::try_from(position.saturating_sub(base)).unwrap_or(usize::MAX);
    if let Some(bytes) = held.get(index(from)..index(to)) {
        out.extend_from_slice(bytes);
    }
}

fn is_of_a_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || !byte.is_ascii()
}
