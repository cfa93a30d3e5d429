//! The fuzz targets, run briefly and the same way every time.
//!
//! Each test starts from the files in `seeds/`, changes them at random from a fixed seed and
//! hands them to a body in `targets.rs`. An input that fails, or that is never done, is shown as
//! a Rust byte string; put it into `seeds/` once it is mended. For longer than a few seconds, from
//! another seed each time and each target for so long:
//! `MCPSUP_FUZZ_SECONDS=600 cargo test --release --test fuzz -- --nocapture --test-threads 1`; or
//! `cargo +nightly fuzz run --fuzz-dir tests/fuzz envfile tests/fuzz/seeds/envfile`.

mod targets;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

const ITERATIONS: usize = 20_000;
/// Far longer than all iterations take anywhere, and one for sure; who is not done by then never will
/// be.
const LIMIT: Duration = Duration::from_secs(300);
/// Inputs do not grow beyond this, so that iterations stay many rather than long.
const MAX_INPUT: usize = 4096;

const ENVFILE: &[&[u8]] = &[
    include_bytes!("seeds/envfile/ordinary.env"),
    include_bytes!("seeds/envfile/lines.env"),
    include_bytes!("seeds/envfile/windows.env"),
];
const CONFIG: &[&[u8]] =
    &[include_bytes!("seeds/config/whole.toml"), include_bytes!("seeds/config/short.toml")];
const TEMPLATE: &[&[u8]] = &[include_bytes!("seeds/template/all.txt")];
const SNIPPET: &[&[u8]] = &[
    include_bytes!("seeds/snippet/claude-code"),
    include_bytes!("seeds/snippet/claude-desktop"),
    include_bytes!("seeds/snippet/vscode"),
    include_bytes!("seeds/snippet/cursor"),
    include_bytes!("seeds/snippet/codex"),
    include_bytes!("seeds/snippet/gemini"),
    include_bytes!("seeds/snippet/windsurf"),
    include_bytes!("seeds/snippet/zed"),
    include_bytes!("seeds/snippet/opencode"),
    include_bytes!("seeds/snippet/goose"),
];
const REDACT: &[&[u8]] = &[include_bytes!("seeds/redact/several"), include_bytes!("seeds/redact/none")];
const PORTS: &[&[u8]] = &[include_bytes!("seeds/ports/two.json"), include_bytes!("seeds/ports/outside.json")];

const FRAME: &[&[u8]] = &[include_bytes!("seeds/frame/call"), include_bytes!("seeds/frame/batch")];
const ERA: &[&[u8]] = &[include_bytes!("seeds/era/modern"), include_bytes!("seeds/era/legacy")];
const EXCHANGE: &[&[u8]] =
    &[include_bytes!("seeds/exchange/legacy"), include_bytes!("seeds/exchange/modern")];

const HTTP: &[&[u8]] = &[
    include_bytes!("seeds/http/modern"),
    include_bytes!("seeds/http/legacy"),
    include_bytes!("seeds/http/get"),
];

/// Pieces that mean something to one of the readers.
const PIECES: &[&str] = &[
    "=",
    "\"",
    "'",
    "\\",
    "\\n",
    "\\\"",
    "$",
    "${HOME}",
    "#",
    " #",
    "\n",
    "\r",
    "\r\n",
    "\0",
    "\u{feff}",
    "\u{a0}",
    "export ",
    "A=",
    "\nA=",
    "A='",
    "A=\"",
    "'''",
    "\"\"\"",
    "[",
    "]",
    "[[",
    "]]",
    "{",
    "}",
    "{{",
    "}}",
    "{user}",
    "{port}",
    "{env:",
    "{env:TOKEN}",
    "{session}",
    ",",
    ".",
    "-",
    "0",
    "-1",
    "99999999999999999999",
    "10s",
    "\"10s\"",
    "\"512M\"",
    "true",
    "\n[server.b]\n",
    "transport = \"stdio\"",
    "env.X = ",
    "\u{1b}[2J",
    "😀",
    "\u{2028}",
    "\"notes\"",
    "\"mcpServers\": ",
    "\"http://127.0.0.1:1/\"",
    "[mcp_servers.notes]",
    "\n  notes:\n",
    "extensions:",
    "/* c */",
    "// c\n",
    "null",
    ": ",
    "\\u00e9",
    "%2F",
    "\"door\":",
    "3456",
    "20000",
    "\"jsonrpc\":\"2.0\"",
    "\"id\":1,",
    "\"method\":\"initialize\",",
    "\"_meta\":{},",
    "\"progressToken\":12",
    "2026-07-28",
    "2025-03-26",
    "=?base64?",
    "?=",
    "\np",
    "\na",
    "\nr1-1\n",
    "Host: localhost\r\n",
    "Accept: */*\r\n",
    "Transfer-Encoding: chunked\r\n\r\n",
    "Content-Length: ",
    "Last-Event-ID: ",
    "Mcp-Session-Id: ",
    "POST /mcp HTTP/1.1\r\n",
    "GET /mcp HTTP/1.0\r\n\r\n",
    "\r\n\r\n",
    targets::MARK,
];

/// xorshift64*: enough to wander, the same on every machine.
struct Dice(u64);

impl Dice {
    /// A number below `sides`; 0 if there are none.
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let high = self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33;
        usize::try_from(high).map_or(0, |high| high % sides.max(1))
    }

    /// One of the seeds after a few changes.
    fn input(&mut self, seeds: &[&[u8]]) -> Vec<u8> {
        let mut input = seeds[self.roll(seeds.len())].to_vec();
        for _ in 0..=self.roll(6) {
            self.change(&mut input, seeds);
        }
        input.truncate(MAX_INPUT);
        input
    }

    fn change(&mut self, input: &mut Vec<u8>, seeds: &[&[u8]]) {
        let from = self.roll(input.len() + 1);
        let to = (from + self.roll(24)).min(input.len());
        let put: Vec<u8> = match self.roll(7) {
            0 => Vec::new(),
            1 => vec![u8::try_from(self.roll(256)).unwrap_or(0)],
            2 => input[from..to].repeat(2 + self.roll(40)),
            3 => {
                let other = seeds[self.roll(seeds.len())];
                let start = self.roll(other.len());
                other[start..].to_vec()
            }
            4 => {
                input.truncate(from);
                return;
            }
            _ => PIECES[self.roll(PIECES.len())].as_bytes().to_vec(),
        };
        // Half the time beside what is there, half the time in its place.
        let to = if self.roll(2) == 0 { from } else { to };
        input.splice(from..to, put);
    }
}

/// How long each target is to be tried, if that is asked for.
#[expect(clippy::disallowed_methods, reason = "the variable is this test's own")]
fn asked_for() -> Option<Duration> {
    let seconds = std::env::var("MCPSUP_FUZZ_SECONDS").ok()?;
    let Ok(seconds) = seconds.parse() else { panic!("MCPSUP_FUZZ_SECONDS is no number: {seconds}") };
    Some(Duration::from_secs(seconds))
}

/// The same for as long as was asked for, from a seed of its own each time.
#[expect(clippy::disallowed_methods, clippy::print_stderr, reason = "whoever asked wants to know")]
fn drive_on(asked: Duration, seeds: &'static [&[u8]], body: fn(&[u8])) {
    let (began, mut count) = (Instant::now(), 0);
    while began.elapsed() < asked {
        let seed: u64 = std::time::UNIX_EPOCH.elapsed().map_or(1, |since| since.subsec_nanos()).into();
        let (at_once, each) = (ITERATIONS / 20, Instant::now());
        run(at_once, seed | 1, seeds, body);
        assert!(each.elapsed() < LIMIT, "seed {seed:#x} takes long");
        count += at_once;
    }
    eprintln!("{count} inputs in {:?}", began.elapsed());
}

/// Runs `body` on `count` seeds, most of them changed; fails with the input that failed or is not done.
fn drive(count: usize, seed: u64, seeds: &'static [&[u8]], body: fn(&[u8])) {
    match asked_for() {
        Some(asked) => drive_on(asked, seeds, body),
        None => run(count, seed, seeds, body),
    }
}

fn run(count: usize, seed: u64, seeds: &'static [&[u8]], body: fn(&[u8])) {
    let current = Arc::new(Mutex::new(Vec::new()));
    let (done, result) = mpsc::channel();
    let shared = Arc::clone(&current);
    std::thread::spawn(move || {
        let mut dice = Dice(seed);
        let original = seeds.iter().map(|seed| seed.to_vec());
        let changed = std::iter::repeat_with(|| dice.input(seeds));
        for input in original.chain(changed).take(count) {
            shared.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&input);
            if catch_unwind(AssertUnwindSafe(|| body(&input))).is_err() {
                return done.send(false);
            }
        }
        done.send(true)
    });
    let verdict = match result.recv_timeout(LIMIT) {
        Ok(true) => return,
        Ok(false) => "fails",
        Err(_) => "is never done",
    };
    let input = current.lock().unwrap_or_else(PoisonError::into_inner);
    panic!("this input {verdict}: b\"{}\"", input.escape_ascii());
}

#[test]
fn any_env_file_is_read_or_refused_and_never_shown() {
    drive(ITERATIONS, 0xE17F, ENVFILE, targets::envfile);
}

#[test]
fn any_configuration_is_read_or_refused_at_places_that_exist() {
    drive(ITERATIONS, 0xC0F1, CONFIG, targets::config);
}

#[test]
fn any_template_is_refused_or_filled() {
    drive(ITERATIONS, 0x7E41, TEMPLATE, targets::template);
}

#[test]
fn any_file_of_a_client_is_refused_or_holds_the_entry_and_what_it_held() {
    drive(ITERATIONS, 0x541F, SNIPPET, targets::snippet);
}

#[test]
fn any_secret_is_taken_out_of_any_output_however_it_is_cut() {
    drive(ITERATIONS / 8, 0x4EDA, REDACT, targets::redact);
}

#[test]
fn any_table_of_ports_is_refused_or_kept_and_no_port_is_given_twice() {
    drive(2 * ITERATIONS, 0x9047, PORTS, targets::ports);
}

#[test]
fn any_text_is_messages_or_refused_and_another_id_changes_nothing_else() {
    drive(2 * ITERATIONS, 0xF4A3, FRAME, targets::frame);
}

#[test]
fn any_headers_are_those_of_the_body_or_refused() {
    drive(2 * ITERATIONS, 0xE4A1, ERA, targets::era);
}

#[test]
fn any_bytes_at_a_door_are_answered_or_refused() {
    drive(ITERATIONS / 4, 0x477B, HTTP, targets::http);
}

#[test]
fn whatever_is_said_only_whole_messages_go_to_a_process_and_to_clients() {
    drive(ITERATIONS / 2, 0xECC4, EXCHANGE, targets::exchange);
}
