//! Every spelling of every value is hidden, however the output is cut; everything else passes.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};

use super::*;

/// A small generator (xorshift): the same numbers every time, so a failure can be repeated.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % limit as u64).unwrap()
    }

    fn text(&mut self, alphabet: &str, lengths: std::ops::Range<usize>) -> String {
        let alphabet: Vec<char> = alphabet.chars().collect();
        let length = lengths.start + self.below(lengths.len());
        (0..length).map(|_| alphabet[self.below(alphabet.len())]).collect()
    }

    fn secret(&mut self) -> String {
        match self.below(4) {
            0 => self.text("ABCDEFGHJKLMNPQRSTUVWXYZ0123456789", 8..40),
            1 => self.text("ABCXYZ0123456789+/=-_.", 8..60),
            2 => format!("k9{}Z7", self.text("AB\"\\/<>&'+ %é€😀\t\u{1b}~!*()`012", 4..30)),
            _ => {
                let line = |dice: &mut Self| dice.text("ABCDEFabcdef0123456789+/", 30..64);
                format!("-----BEGIN KEY-----\n{}\n{}\nQ7==\n-----END KEY-----\n", line(self), line(self))
            }
        }
    }
}

fn secrets(values: &[&str]) -> Vec<Secret> {
    values.iter().map(|value| Secret::new(*value)).collect()
}

fn run(values: &[&str], pieces: &[&[u8]]) -> String {
    let mut redactor = Redactor::new(&secrets(values));
    let mut out = Vec::new();
    for piece in pieces {
        redactor.feed(piece, &mut out);
    }
    redactor.flush(&mut out);
    assert_eq!(redactor.held(), 0);
    String::from_utf8_lossy(&out).into_owned()
}

fn percent(text: &str, keep: &str, upper: bool, plus: bool) -> String {
    text.bytes()
        .map(|byte| match char::from(byte) {
            c if c.is_ascii_alphanumeric() || keep.contains(c) => c.to_string(),
            ' ' if plus => "+".into(),
            _ if upper => format!("%{byte:02X}"),
            _ => format!("%{byte:02x}"),
        })
        .collect()
}

/// As Python's `json.dumps` and others: what is not ASCII, and more, as `\uXXXX`.
fn ascii_json(text: &str, also: &str, upper: bool) -> String {
    let unit = |unit: u16| if upper { format!("\\u{unit:04X}") } else { format!("\\u{unit:04x}") };
    text.chars()
        .map(|c| match c {
            '\n' => "\\n".into(),
            '/' => "\\/".into(),
            '\\' => "\\\\".into(),
            c if also.contains(c) || c.is_control() || !c.is_ascii() => {
                c.encode_utf16(&mut [0; 2]).iter().map(|&u| unit(u)).collect()
            }
            '"' => "\\\"".into(),
            c => c.to_string(),
        })
        .collect()
}

fn json(text: &str) -> String {
    let quoted = serde_json::to_string(text).unwrap();
    quoted[1..quoted.len() - 1].to_owned()
}

/// Spellings that are to be replaced whole.
fn spellings(value: &str) -> Vec<String> {
    let value = value.trim_matches('\n');
    let mut all = vec![
        value.to_owned(),
        json(value),
        json(&json(value)),
        ascii_json(value, "", false),
        ascii_json(value, "\"<>&'+`", true),
        URL_SAFE_NO_PAD.encode(value),
        STANDARD_NO_PAD.encode(value),
    ];
    for upper in [true, false] {
        all.push(percent(value, "-_.~", upper, false));
        all.push(percent(value, "-_.!~*'()", upper, false));
        all.push(percent(value, "-_.~/;,?:@&=+$#", upper, false));
        all.push(percent(value, "*-._", upper, true));
    }
    all
}

/// The characters of a base64 text that depend on nothing but the value `at` in `whole`.
fn core_of_base64(whole: &[u8], at: usize, length: usize) -> [String; 2] {
    let from = (at * 8).div_ceil(6);
    let to = (at + length) * 8 / 6;
    [STANDARD.encode(whole), URL_SAFE.encode(whole)].map(|text| text[from..to].to_owned())
}

#[test]
fn no_spelling_of_a_secret_gets_through_however_the_output_is_cut() {
    let mut dice = Dice(0x5eed_0001);
    for round in 0..400 {
        let values: Vec<String> = (0..=dice.below(4)).map(|_| dice.secret()).collect();
        let values: Vec<&str> = values.iter().map(String::as_str).collect();
        let (mut text, mut expected) = (String::new(), String::new());
        for _ in 0..6 {
            let words = dice.text("ghijklmno ,:\n", 0..30) + " ";
            let spelled = spellings(values[dice.below(values.len())]);
            text += &words;
            expected += &words;
            text += &spelled[dice.below(spelled.len())];
            expected += "[redacted]";
            text += "\n";
            expected += "\n";
        }
        let (mut pieces, mut rest) = (Vec::new(), text.as_bytes());
        while !rest.is_empty() {
            let (piece, more) = rest.split_at(1 + dice.below(rest.len().min(40)));
            pieces.push(piece);
            rest = more;
        }
        assert_eq!(run(&values, &pieces), expected, "round {round}: {values:?} in {text:?}");
        assert_eq!(run(&values, &[text.as_bytes()]), expected, "round {round}, in one piece");
    }
}

#[test]
fn a_secret_inside_a_longer_base64_text_is_hidden_at_every_alignment() {
    let mut dice = Dice(0x5eed_0002);
    for _ in 0..400 {
        let value = dice.secret();
        let value = value.trim_matches('\n');
        let before = dice.text("abcdefgh:", 0..7);
        let after = dice.text("abcdefgh:", 0..7);
        let whole = format!("{before}{value}{after}");
        for engine in [&STANDARD, &URL_SAFE, &STANDARD_NO_PAD, &URL_SAFE_NO_PAD] {
            let text = format!("Authorization: Basic {}\r\nnext", engine.encode(&whole));
            let cut = dice.below(text.len());
            let (left, right) = text.as_bytes().split_at(cut);
            let out = run(&[value], &[left, right]);
            assert_eq!(out, run(&[value], &[text.as_bytes()]), "{value:?} cut at {cut}");
            assert!(
                out.contains("[redacted]") && out.ends_with("\r\nnext"),
                "{value:?} in {text:?}: {out:?}"
            );
            for core in core_of_base64(whole.as_bytes(), before.len(), value.len()) {
                assert!(!out.contains(&core), "{value:?} in {text:?}: {out:?}");
            }
        }
    }
}

#[test]
fn text_without_secrets_passes_byte_for_byte() {
    let mut dice = Dice(0x5eed_0003);
    for _ in 0..200 {
        let values: Vec<String> = (0..5).map(|_| dice.secret()).collect();
        let values: Vec<&str> = values.iter().map(String::as_str).collect();
        let alphabet: &[u8] = if dice.below(2) == 0 { b"\\%u+01aAnZ9k7\"/\n -B" } else { &[] };
        let text: Vec<u8> = (0..dice.below(600))
            .map(|_| match alphabet {
                [] => u8::try_from(dice.below(256)).unwrap(),
                some => some[dice.below(some.len())],
            })
            .collect();
        let mut redactor = Redactor::new(&secrets(&values));
        let mut out = Vec::new();
        for piece in text.chunks(1 + dice.below(17)) {
            redactor.feed(piece, &mut out);
        }
        redactor.flush(&mut out);
        assert_eq!(out, text);
    }
}

#[test]
fn ordinary_text_is_not_held_back() {
    let mut redactor = Redactor::new(&secrets(&["sk-live-0123456789", "p4ss w\"rd\\"]));
    let mut out = Vec::new();
    for text in [
        "Password: ",
        ">>> ",
        "ready\n",
        "listening on 3457\n",
        "100 %\r\n",
        "{\"level\":\"info\"}\n",
        "what?",
    ] {
        out.clear();
        redactor.feed(text.as_bytes(), &mut out);
        assert_eq!(out, text.as_bytes());
        assert_eq!(redactor.held(), 0, "{text:?}");
    }
}

#[test]
fn what_may_become_a_secret_is_held_until_it_is_known() {
    let mut redactor = Redactor::new(&secrets(&["sk-live-0123456789"]));
    let mut out = Vec::new();
    redactor.feed(b"token: sk-live", &mut out);
    assert_eq!((&*out, redactor.held()), (&b"token: "[..], 7));
    redactor.feed(b"!\n", &mut out);
    assert_eq!((&*out, redactor.held()), (&b"token: sk-live!\n"[..], 0));
    redactor.feed(b"sk-live-0123456789", &mut out);
    assert_eq!(&*out, &b"token: sk-live!\n[redacted]"[..], "a whole value needs no further byte");
}

#[test]
fn a_held_tail_can_be_given_out_or_let_go() {
    let mut redactor = Redactor::new(&secrets(&["sk-live-0123456789"]));
    let mut out = Vec::new();
    redactor.feed(b"sk-live", &mut out);
    assert_eq!(redactor.abandon(), 7);
    redactor.feed(b"-0123456789 sk-l", &mut out);
    redactor.flush(&mut out);
    assert_eq!(out, b"-0123456789 sk-l");
}

#[test]
fn overlapping_secrets_are_hidden_whole() {
    assert_eq!(run(&["abcdefgh", "efghijkl"], &[b"<abcdef", b"ghijkl>"]), "<[redacted]>");
    assert_eq!(
        run(&["abcdefgh", "abcdefghijkl"], &[b"<abcdefghij>", b"<abcdefghijkl>"]),
        "<[redacted]ij><[redacted]>"
    );
    assert_eq!(run(&["abcdefghijkl", "defg"], &[b"<abcdefghij>"]), "<abc[redacted]hij>");
    assert_eq!(run(&["abcabc"], &[b"abcabc", b"abc."]), "[redacted].");
    assert_eq!(run(&["abcdefgh"], &[b"abcdefghabcdefgh"]), "[redacted][redacted]");
}

#[test]
fn a_line_of_a_key_is_hidden_by_itself_and_with_other_line_ends() {
    let key = "-----BEGIN KEY-----\nMIIEvQIBADANBgkq\nhkiG9w==\n-----END KEY-----\n";
    assert_eq!(run(&[key], &[b"> MIIEvQIBADANBgkq <"]), "> [redacted] <");
    assert_eq!(run(&[key], &[key.replace('\n', "\r\n").as_bytes()]), "[redacted]\r\n".repeat(4));
    assert_eq!(run(&[key], &[key.as_bytes()]), "[redacted]\n");
}

#[test]
fn a_very_short_credential_is_hidden_as_a_word_only() {
    assert_eq!(
        run(&["7"], &[b"pin 7, port 3457, 7x, 7", b"7 7"]),
        "pin [redacted], port 3457, 7x, 77 [redacted]"
    );
    assert_eq!(run(&["abc", "c"], &[b"xabc abc c"]), "xabc [redacted] [redacted]");
}

#[test]
fn empty_and_blank_values_hide_nothing() {
    assert_eq!(run(&["", "    ", "\n"], &[b"a    b\n\n"]), "a    b\n\n");
    assert_eq!(run(&[], &[b"a", b"b"]), "ab");
}

#[test]
fn a_flood_made_for_the_worst_case_costs_no_more_than_any_other() {
    let (long, short) = ("a".repeat(4000) + "b", "a".repeat(8));
    let mut redactor = Redactor::new(&secrets(&[&long, &short]));
    let mut out = Vec::new();
    for _ in 0..40 {
        redactor.feed(&[b'a'; 5000], &mut out);
        assert!(redactor.held() <= 5400, "the longest value, or its base64");
    }
    redactor.flush(&mut out);
    assert_eq!(out, b"[redacted]");
    assert!(redactor.memory() < 1_000_000, "{}", redactor.memory());
}

#[test]
fn memory_stays_within_60_bytes_per_byte_of_value() {
    let mut dice = Dice(0x5eed_0004);
    let tokens: Vec<String> =
        (0..5).map(|_| dice.text("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefgh0123456789", 40..41)).collect();
    let lines: Vec<String> =
        (0..26).map(|_| dice.text("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefgh0123456789+/", 64..65)).collect();
    for values in [tokens, vec![lines.join("\n")]] {
        let size: usize = values.iter().map(String::len).sum();
        let memory = Redactor::new(&secrets(&values.iter().map(String::as_str).collect::<Vec<_>>())).memory();
        assert!(memory < 60 * size + 4096, "{memory} for {size}");
    }
}

#[test]
fn neither_values_nor_held_bytes_show_in_debug_output() {
    let mut redactor = Redactor::new(&secrets(&["sk-live-0123456789"]));
    redactor.feed(b"sk-live-012", &mut Vec::new());
    assert_eq!(format!("{redactor:?}"), "Redactor { held: 11, .. }");
}
