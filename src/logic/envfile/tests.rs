//! What an env file may say, and what is said about one that is wrong.

use super::*;

fn read(text: &str) -> Result<Vec<(String, String)>, Vec<String>> {
    parse(text.as_bytes(), "env.d/alice.env")
        .map(|variables| {
            let pair = |v: Variable| (v.name.to_string(), v.value.reveal().to_owned());
            variables.0.into_iter().map(pair).collect()
        })
        .map_err(|problems| problems.iter().map(ToString::to_string).collect())
}

/// The value of the only variable of a file.
fn value(text: &str) -> String {
    let variables = read(text).unwrap();
    assert_eq!(variables.len(), 1, "{variables:?}");
    variables[0].1.clone()
}

/// Where and why a file is refused; "3: never closed" stands for line 3 and a part of the text.
fn refused(text: &str, expected: &[&str]) {
    let problems = read(text).unwrap_err();
    assert_eq!(problems.len(), expected.len(), "{problems:#?}");
    for (problem, expected) in problems.iter().zip(expected) {
        let (line, part) = expected.split_once(": ").unwrap();
        let start = format!("env.d/alice.env:{line}: ");
        assert!(problem.starts_with(&start) && problem.contains(part), "{problem} — {expected}");
    }
}

#[test]
fn unquoted_values_are_literal() {
    for literal in [
        "pa$$w0rd",
        "abc$",
        "${MASTER_KEY}",
        "$HOME",
        "$(id)",
        "`id`",
        "a b",
        "it's",
        "a\"b\"c",
        "{\"a\":1}",
        "a#b",
        "a=b==",
        "ä€😀",
        "x;y",
        "",
        "!&|<>*?~%",
        "-----BEGIN",
    ] {
        assert_eq!(value(&format!("P={literal}\n")), literal);
    }
    assert_eq!(value("P= \t a b \t \n"), "a b");
}

#[test]
fn two_apostrophes_do_not_join_two_lines() {
    let variables = read("P=it's\nS=that's\n").unwrap();
    assert_eq!(variables, [("P".into(), "it's".into()), ("S".into(), "that's".into())]);
}

#[test]
fn single_quotes_are_literal_and_double_quotes_know_four_escapes() {
    assert_eq!(value(r#"P='a\n"$X" #  '"#), r#"a\n"$X" #  "#);
    assert_eq!(value(r#"P="a\nb\"c\\d\$e $X ${Y} 'q' #""#), "a\nb\"c\\d$e $X ${Y} 'q' #");
    assert_eq!(value(r"P='C:\dir\'"), r"C:\dir\");
    assert_eq!(value("P=''"), "");
    assert_eq!(value("P=\"\"  # a comment"), "");
}

#[test]
fn quoted_values_span_lines() {
    assert_eq!(
        value("K='-----BEGIN\nMIIE==\n\n  x  \n-----END' # key\n"),
        "-----BEGIN\nMIIE==\n\n  x  \n-----END"
    );
    assert_eq!(value("K=\"a  \r\nb\r\n\"\r\n"), "a  \nb\n");
}

#[test]
fn comments_blank_lines_export_bom_and_crlf_are_accepted() {
    let text = "\u{feff}# first\r\n\r\n  \t\r\nexport A=1\r\n\texport\t B='2'\r\nexport=3\r\nexportC=4";
    let pairs = [("A", "1"), ("B", "2"), ("export", "3"), ("exportC", "4")];
    let pairs = pairs.map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(read(text).unwrap(), pairs);
    assert_eq!(read("").unwrap(), []);
    assert_eq!(read("\u{feff}").unwrap(), []);
}

#[test]
fn a_variable_knows_the_line_it_begins_on() {
    let variables = parse(b"\nA='x\ny'\nB=1", "f").unwrap();
    assert_eq!(variables.0.iter().map(|v| v.line).collect::<Vec<_>>(), [2, 4]);
}

#[test]
fn a_line_that_is_no_assignment_is_named_by_its_number() {
    refused("A=1\njunk\n", &["2: expected NAME=value"]);
    refused("1A=1", &["1: not beginning with a digit"]);
    refused("A.B=1", &["1: a name is letters"]);
    refused("A =1", &["1: space before the ="]);
    refused("=1", &["1: a name is letters"]);
    refused("export A", &["1: expected NAME=value"]);
    refused("export A B=1", &["1: a name is letters"]);
    refused("; comment", &["1: expected NAME=value"]);
    refused(&format!("{}=1", "A".repeat(200)), &["1: a name is letters"]);
}

#[test]
fn what_readers_disagree_about_is_refused() {
    refused("P=ab #cd", &["1: P holds a # after a space"]);
    refused("P=ab\t#cd", &["1: P holds a # after a space"]);
    refused("P=#cd", &["1: P begins with #"]);
    refused("P= # comment", &["1: P begins with #"]);
    refused(r"P=C:\dir", &["1: P holds a backslash"]);
    refused("P=foo\\\nB=1", &["1: P holds a backslash"]);
    refused("P=token\u{a0}", &["1: P begins or ends with a space that does not show"]);
}

#[test]
fn broken_quotes_are_named_where_they_open() {
    refused("A=1\nP=\"x\nB=2\n", &["2: opened here for P is never closed"]);
    refused("P='x", &["1: never closed"]);
    refused("P=\"x\\\"", &["1: never closed"]);
    refused("P='a'b", &["1: something follows the closing quote of P"]);
    refused("P='a'#b", &["1: something follows"]);
    refused(r"P='it'\''s'", &["1: something follows"]);
    refused("P=\"a\nB=\"b\"\nC=\n", &["1: closed only on line 2"]);
}

#[test]
fn an_unknown_escape_is_named_on_its_own_line() {
    refused("P=\"a\nb\\tc\"\nB", &["2: escapes nothing", "3: expected NAME=value"]);
    refused("P=\"a\\\nb\"", &["1: escapes nothing"]);
    refused(r#"P="C:\dir""#, &["1: write \\\\ for a backslash"]);
}

#[test]
fn a_name_set_twice_names_both_lines() {
    refused("A=1\nB=2\nA='3\n'\nA=4", &["3: A is set twice, first on line 1", "5: first on line 1"]);
}

#[test]
fn every_problem_is_reported_at_once_up_to_a_limit() {
    refused("x\nA=1\ny\nA=#", &["1: expected", "3: expected", "4: A is set twice"]);
    let problems = read(&"x\n".repeat(30)).unwrap_err();
    assert_eq!(problems.len(), 21);
    assert_eq!(problems[20], "env.d/alice.env: and 10 more lines with problems");
}

#[test]
fn bytes_that_are_no_text_are_named_by_their_line() {
    let lines = |bytes: &[u8]| -> Vec<(Option<u32>, String)> {
        parse(bytes, "f").unwrap_err().into_iter().map(|p| (p.line, p.text)).collect()
    };
    let problems = lines(b"A=1\nB=\xff\xfe\nC=a\0b\nD=a\rb\nE");
    assert_eq!(problems.iter().map(|p| p.0).collect::<Vec<_>>(), [Some(2), Some(3), Some(4)]);
    assert!(problems[0].1.contains("UTF-8"));
    assert!(problems[1].1.contains("NUL"));
    assert!(problems[2].1.contains("carriage return"));
    assert_eq!(lines(b"A=1\rB=2\r").len(), 1);
}

#[test]
fn sizes_have_limits_that_are_named() {
    let whole = read(&format!("A='{}'", "x".repeat(MAX_FILE))).unwrap_err();
    assert_eq!(whole, ["env.d/alice.env: larger than 64 KiB; an env file holds credentials, not data"]);
    refused(&format!("A={}", "x".repeat(MAX_VALUE + 1)), &["1: A is longer than 32 KiB"]);
    assert_eq!(value(&format!("A={}", "x".repeat(MAX_VALUE))).len(), MAX_VALUE);
    let many = |count: u32| {
        let lines: Vec<String> = (0..count).map(|n| format!("V{n}=\n")).collect();
        lines.concat()
    };
    assert_eq!(read(&many(256)).unwrap().len(), 256);
    refused(&many(300), &["257: more than 256 variables"]);
}

/// xorshift64*: enough to wander, the same on every machine.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let high = self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33;
        usize::try_from(high).unwrap() % sides
    }

    fn text(&mut self, parts: &[&str]) -> String {
        (0..self.roll(12)).map(|_| parts[self.roll(parts.len())]).collect()
    }
}

const HOSTILE: &[&str] = &[
    "$HOME", "${HOME}", "$PATH", "$", "$$", "${", "}", "$(id)", "`", "'", "\"", "\\", "\\n", "\\$", "#",
    " #", " ", "\t", "=", "A=1", "export ", "ä", "😀", "\u{a0}", "\u{feff}", "\u{2028}", "\u{b}", "x",
    "secret", ";", "%", "~",
];

#[test]
fn unquoted_values_come_back_verbatim_whatever_they_look_like() {
    let mut dice = Dice(0x5EED);
    let mut read_back = 0;
    for _ in 0..20_000 {
        let text = dice.text(HOSTILE);
        let ambiguous = text.starts_with(['\'', '"', '#', ' ', '\t'])
            || text.contains(['\\'])
            || text.contains(" #")
            || text.contains("\t#")
            || text.trim() != text;
        // With a neighbour on either side: nothing leaks from one line into another.
        let file = format!("HOME=evil\nP={text}\nZ=$P\n");
        if !ambiguous {
            let variables = read(&file).unwrap();
            assert_eq!(variables[1].1, text);
            assert_eq!(variables[2].1, "$P");
            read_back += 1;
        }
    }
    assert!(read_back > 5_000, "{read_back}");
}

#[test]
fn a_quoted_value_is_read_back_verbatim() {
    let mut dice = Dice(0xFEED);
    let mut parts = HOSTILE.to_vec();
    parts.extend(["\n", "\n\n", "\nNAME=x\n"]);
    for _ in 0..20_000 {
        let text = dice.text(&parts);
        assert_eq!(unquotable(&text), None);
        let file = format!("export P={} # comment\nZ=1\n", quote(&text));
        if !quote(&text).starts_with(['\'', '"']) {
            // A plain one takes no comment behind it.
            assert_eq!(value(&format!("P={}\n", quote(&text))), text);
            continue;
        }
        assert_eq!(read(&file).unwrap(), [("P".into(), text), ("Z".into(), "1".into())]);
    }
}

#[test]
fn what_cannot_be_quoted_is_known() {
    assert!(unquotable("a\rb").is_some());
    assert!(unquotable("a\0b").is_some());
    assert!(unquotable(&"x".repeat(MAX_VALUE + 1)).is_some());
}

#[test]
fn no_problem_and_no_debug_output_holds_a_secret() {
    const MARK: &str = "hunter2-hunter2";
    let mut dice = Dice(0xBEEF);
    let mut parts = HOSTILE.to_vec();
    parts.extend([MARK, MARK, "\n", "\nB=", "\r", "\0", "\nA='", "\nC=\"", "\\q"]);
    let mut refusals = 0;
    for _ in 0..20_000 {
        let said = match parse(format!("A={MARK}{}", dice.text(&parts)).as_bytes(), "f") {
            Ok(variables) => format!("{variables:?}"),
            Err(problems) => {
                refusals += 1;
                format!("{problems:?}")
            }
        };
        assert!(!said.contains("hunter2"), "{said}");
    }
    assert!(refusals > 5_000, "{refusals}");
}
