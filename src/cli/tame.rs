//! Makes a server's output safe for a terminal.
//!
//! A server writes what it likes, and an administrator looks at it. Colours stay; every other
//! control sequence is shown as text, so that it cannot move the cursor, set a title or answer; and
//! so is what turns the direction of text.

use super::print::is_steering;

/// Longest colour sequence that is taken for one.
const LONGEST: usize = 32;

/// Tames bytes piece by piece; what is cut between two pieces is kept.
#[derive(Debug, Default)]
pub struct Tame {
    /// The beginning of what may be a colour (ECMA-48 SGR: ESC `[` digits and `;` `m`), or of a
    /// character in UTF-8 that steers.
    held: Vec<u8>,
}

impl Tame {
    /// The piece as it may be shown.
    pub fn feed(&mut self, piece: &[u8]) -> Vec<u8> {
        let mut shown = Vec::with_capacity(piece.len());
        for &byte in piece {
            self.take(byte, &mut shown);
        }
        shown
    }

    fn take(&mut self, byte: u8, shown: &mut Vec<u8>) {
        match (self.held.as_slice(), byte) {
            // C2: U+0080 to U+009F, the same controls again. D8, E2: where the others are.
            ([], 0x1b | 0xc2 | 0xd8 | 0xe2) | ([0xe2], 0x80 | 0x81) | ([0x1b], b'[') => self.held.push(byte),
            ([], _) => show(byte, shown),
            ([0xc2 | 0xd8] | [0xe2, _], 0x80..=0xbf) => {
                self.held.push(byte);
                let letter = std::mem::take(&mut self.held);
                let steers = std::str::from_utf8(&letter).is_ok_and(|text| text.chars().any(is_steering));
                shown.extend_from_slice(if steers { "\u{fffd}".as_bytes() } else { &letter });
            }
            ([0x1b, _, ..], b'0'..=b'9' | b';') if self.held.len() < LONGEST => self.held.push(byte),
            ([0x1b, _, ..], b'm') => {
                shown.append(&mut self.held);
                shown.push(byte);
            }
            _ => {
                // Another letter, or a sequence that is no colour.
                for held in std::mem::take(&mut self.held) {
                    show(held, shown);
                }
                self.take(byte, shown);
            }
        }
    }
}

fn show(byte: u8, shown: &mut Vec<u8>) {
    match byte {
        b'\n' | b'\t' => shown.push(byte),
        // As terminals echo them: ESC is ^[
        0..0x20 | 0x7f => shown.extend([b'^', byte ^ 0x40]),
        _ => shown.push(byte),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::print::clean;

    fn tamed(pieces: &[&str]) -> String {
        let mut tame = Tame::default();
        let shown: Vec<u8> = pieces.iter().flat_map(|piece| tame.feed(piece.as_bytes())).collect();
        String::from_utf8_lossy(&shown).into_owned()
    }

    #[test]
    fn colours_and_letters_stay() {
        let text = "\x1b[1;32mok\x1b[0m größer\tÂ 日本\n";
        assert_eq!(tamed(&[text]), text);
    }

    #[test]
    fn everything_else_that_steers_a_terminal_is_text() {
        assert_eq!(tamed(&["\x1b[2Ja"]), "^[[2Ja");
        assert_eq!(tamed(&["\x1b]0;title\x07"]), "^[]0;title^G");
        assert_eq!(tamed(&["a\rb\x08\x7f"]), "a^Mb^H^?");
        assert_eq!(tamed(&["\u{9b}2J"]), "\u{fffd}2J");
        assert_eq!(tamed(&["\x1b\x1b[2J"]), "^[^[[2J");
        let long = format!("\x1b[{}m", "1;".repeat(40));
        assert!(!tamed(&[&long]).contains('\x1b'));
    }

    #[test]
    fn what_turns_the_direction_of_text_is_taken_out_of_it() {
        let all: String = ('\u{a0}'..=char::MAX).collect();
        assert!(tamed(&[&all]) == clean(&all), "it is the same as in what mcpsup says itself");
        // What only begins so.
        let mut tame = Tame::default();
        assert_eq!(tame.feed(b"a\xe2\x80"), b"a");
        assert_eq!(
            tame.feed(b"\xae\xe2\x80\x1b[2J\xd8\xe2\x81m\xe20"),
            b"\xef\xbf\xbd\xe2\x80^[[2J\xd8\xe2\x81m\xe20"
        );
    }

    #[test]
    fn a_sequence_cut_in_two_is_still_one() {
        assert_eq!(tamed(&["\x1b", "[3", "1mred"]), "\x1b[31mred");
        assert_eq!(tamed(&["\x1b[", "2J"]), "^[[2J");
    }
}
