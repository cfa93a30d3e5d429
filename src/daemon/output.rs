//! What becomes of one instance's output: secret values are taken out ([`Redactor`]), a flood is
//! cut down, and the rest goes into its log ([`LogFile`]).
//!
//! What is left out is said in the log, as a line of ours that begins with `mcpsup: `:
//!
//! ```text
//! mcpsup: run 17 started
//! mcpsup: dropped 73400320 bytes (over 4M/s)
//! mcpsup: 512 bytes of output not shown: the secret values of this run are not known
//! ```
//!
//! After a gap nothing is shown before the next line end: what comes first may be the end of a
//! secret value whose beginning was left out. Lines of a value are recognised one by one.
//!
//! An instance that says nothing has no descriptor and no [`Redactor`] here, only what it would
//! take to make them.

use std::sync::Arc;
use std::time::Duration;

use crate::logic::redact::Redactor;
use crate::model::{Moment, RunId, Spec};
use crate::system::logfile::LogFile;

/// Seconds of output at the allowed rate that an instance may write at once.
const BURST: u64 = 4;

/// Where one instance's output goes, from run to run.
#[derive(Debug)]
pub struct Sink {
    log: LogFile,
    meter: Meter,
    shown: Shown,
    // Boxed, as most never have one.
    gap: Option<Box<Gap>>,
    /// Nothing is shown before the next line end.
    until_line_end: bool,
}

/// What may be shown of the run's output.
#[derive(Debug)]
enum Shown {
    /// Nothing: its secret values are not known, or there is no run.
    Nothing,
    /// Everything but the secret values of this spec.
    Without(Arc<Spec>, Option<Box<Redactor>>),
}

/// Output that was left out and not spoken of yet.
#[derive(Debug)]
struct Gap {
    why: Why,
    bytes: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Why {
    Flood,
    SecretsUnknown,
    MayEndASecret,
}

impl Sink {
    /// A sink into `log` that lets `max_rate` bytes per second through, and four seconds' worth at
    /// once.
    #[must_use]
    pub fn new(log: LogFile, max_rate: u64) -> Self {
        Self { log, meter: Meter::new(max_rate), shown: Shown::Nothing, gap: None, until_line_end: false }
    }

    /// The log itself: its path, its limits, its bell.
    pub fn log(&mut self) -> &mut LogFile {
        &mut self.log
    }

    /// Lets another rate through from now on.
    pub fn set_max_rate(&mut self, max_rate: u64) {
        self.meter.rate = max_rate.max(1);
    }

    /// A run begins, started with `spec`.
    pub fn started(&mut self, run: RunId, spec: Arc<Spec>) {
        self.end();
        self.log.note(&format!("run {run} started"));
        self.shown = Shown::Without(spec, None);
    }

    /// A run that an earlier daemon started goes on. Without the spec it was started with its
    /// output is counted, not shown.
    pub fn found(&mut self, run: RunId, spec: Option<Arc<Spec>>) {
        self.end();
        self.log.note(&format!("run {run} found again"));
        if let Some(spec) = spec {
            self.known(spec);
        }
    }

    /// The spec that the present run was started with is known now.
    pub fn known(&mut self, spec: Arc<Spec>) {
        self.say_gap();
        self.shown = Shown::Without(spec, None);
        self.until_line_end = true;
    }

    /// Takes output of the present run, read at `now`.
    pub fn take(&mut self, now: Moment, bytes: &[u8]) {
        if matches!(self.shown, Shown::Nothing) {
            self.leave_out(Why::SecretsUnknown, bytes.len());
            return;
        }
        let (within, over) = bytes.split_at(self.meter.allow(now, bytes.len()));
        self.show(within);
        if !over.is_empty() {
            let held = self.redactor().map_or(0, Redactor::abandon);
            self.leave_out(Why::Flood, over.len() + held);
            self.until_line_end = true;
        }
    }

    /// Takes a line, without its end, of the present run that has nothing to do with what was taken
    /// before: what a stdio process said that was no message. One that has lost its beginning may
    /// show the end of a secret value, and is counted.
    pub fn take_line(&mut self, now: Moment, line: &[u8], is_whole: bool) {
        let Shown::Without(spec, _) = &self.shown else {
            return self.leave_out(Why::SecretsUnknown, line.len() + 1);
        };
        let spec = Arc::clone(spec);
        if !is_whole {
            return self.leave_out(Why::MayEndASecret, line.len() + 1);
        }
        // Whole or not at all: half of it could be half of a secret value.
        if self.meter.allow(now, line.len() + 1) <= line.len() {
            return self.leave_out(Why::Flood, line.len() + 1);
        }
        self.say_gap();
        let mut shown = Vec::with_capacity(line.len() + 1);
        if spec.secrets.is_empty() {
            shown.extend_from_slice(line);
        } else {
            let mut redactor = Redactor::new(&spec.secrets);
            redactor.feed(line, &mut shown);
            redactor.flush(&mut shown);
        }
        shown.push(b'\n');
        self.log.write(&shown);
    }

    /// True while more comes than may pass.
    #[must_use]
    pub const fn is_flooded(&self) -> bool {
        self.meter.dry
    }

    /// The present run ended, and all its output was taken.
    pub fn end(&mut self) {
        let mut rest = Vec::new();
        if let Shown::Without(_, Some(redactor)) = &mut self.shown {
            redactor.flush(&mut rest);
        }
        self.log.write(&rest);
        self.say_gap();
        self.shown = Shown::Nothing;
        self.until_line_end = false;
    }

    /// There was no output for a while: gives back the descriptor, and the memory that is not
    /// needed to go on.
    pub fn rest(&mut self) {
        self.say_gap();
        if let Shown::Without(_, redactor) = &mut self.shown {
            redactor.take_if(|redactor| redactor.held() == 0);
        }
        self.log.close();
    }

    /// True if [`Sink::rest`] has something to give back.
    #[must_use]
    pub fn is_awake(&self) -> bool {
        let reads = match &self.shown {
            Shown::Nothing | Shown::Without(_, None) => false,
            Shown::Without(_, Some(redactor)) => redactor.held() == 0,
        };
        reads || self.gap.is_some() || self.log.is_open()
    }

    fn show(&mut self, mut bytes: &[u8]) {
        if self.until_line_end {
            let line_end = bytes.iter().position(|&byte| byte == b'\n');
            let skipped = line_end.map_or(bytes.len(), |at| at + 1);
            self.leave_out(Why::MayEndASecret, skipped);
            self.until_line_end = line_end.is_none();
            bytes = &bytes[skipped..];
        }
        if bytes.is_empty() {
            return;
        }
        self.say_gap();
        let mut shown = Vec::with_capacity(bytes.len());
        match self.redactor() {
            Some(redactor) => redactor.feed(bytes, &mut shown),
            None => return self.log.write(bytes),
        }
        self.log.write(&shown);
    }

    /// What takes the secret values out; `None` if there are none.
    fn redactor(&mut self) -> Option<&mut Redactor> {
        match &mut self.shown {
            Shown::Without(spec, redactor) if !spec.secrets.is_empty() => {
                Some(redactor.get_or_insert_with(|| Box::new(Redactor::new(&spec.secrets))))
            }
            Shown::Nothing | Shown::Without(..) => None,
        }
    }

    /// Counts bytes to the gap that is open, whatever opened it: one gap, one line.
    fn leave_out(&mut self, why: Why, bytes: usize) {
        if bytes > 0 {
            let gap = self.gap.get_or_insert_with(|| Box::new(Gap { why, bytes: 0 }));
            gap.bytes = gap.bytes.saturating_add(bytes as u64);
        }
    }

    fn say_gap(&mut self) {
        if let Some(gap) = self.gap.take() {
            let Gap { why, bytes } = *gap;
            self.log.note(&match why {
                Why::Flood => format!("dropped {bytes} bytes (over {}/s)", size(self.meter.rate)),
                Why::SecretsUnknown => {
                    format!("{bytes} bytes of output not shown: the secret values of this run are not known")
                }
                Why::MayEndASecret => {
                    format!("{bytes} bytes of output not shown: they may be the end of a secret value")
                }
            });
        }
    }
}

/// How much may pass: a bucket of [`BURST`] seconds' worth.
#[derive(Debug)]
struct Meter {
    /// Bytes per second, at least 1.
    rate: u64,
    left: u64,
    filled: Moment,
    /// It ran dry, and is not opened before it holds a second's worth: a flood is cut into few
    /// gaps, not into crumbs.
    dry: bool,
}

impl Meter {
    fn new(rate: u64) -> Self {
        let rate = rate.max(1);
        Self { rate, left: rate.saturating_mul(BURST), filled: Moment::default(), dry: false }
    }

    /// How many of `wanted` bytes may pass.
    fn allow(&mut self, now: Moment, wanted: usize) -> usize {
        self.fill(now);
        if self.dry && self.left < self.rate {
            return 0;
        }
        let allowed = wanted.min(usize::try_from(self.left).unwrap_or(usize::MAX));
        self.left -= allowed as u64;
        self.dry = allowed < wanted;
        allowed
    }

    fn fill(&mut self, now: Moment) {
        let micros = u64::try_from(now.since(self.filled).as_micros()).unwrap_or(u64::MAX);
        let gained = self.rate.saturating_mul(micros) / 1_000_000;
        let full = self.rate.saturating_mul(BURST);
        if self.left.saturating_add(gained) >= full {
            (self.left, self.filled) = (full, now);
        } else if gained > 0 {
            self.left += gained;
            // Only the time that made whole bytes is used up.
            self.filled = self.filled + Duration::from_micros(gained.saturating_mul(1_000_000) / self.rate);
        }
    }
}

/// A number of bytes as mcpsup.toml has it: `4M`.
fn size(bytes: u64) -> String {
    [(30, "G"), (20, "M"), (10, "K")]
        .into_iter()
        .find(|(bits, _)| bytes > 0 && bytes.trailing_zeros() >= *bits)
        .map_or_else(|| bytes.to_string(), |(bits, unit)| format!("{}{unit}", bytes >> bits))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Secret;
    use crate::system::logfile;

    fn spec(secrets: &[&str]) -> Arc<Spec> {
        let secrets = secrets.iter().map(|secret| Secret::new(*secret)).collect();
        Arc::new(Spec { secrets, ..Spec::example() })
    }

    fn at(millis: u64) -> Moment {
        Moment::from_boot(Duration::from_secs(1000) + Duration::from_millis(millis))
    }

    struct World {
        sink: Sink,
        _dir: tempfile::TempDir,
    }

    impl World {
        fn new(max_rate: u64) -> Self {
            let dir = tempfile::tempdir().unwrap();
            let limits = logfile::Limits { max_size: 1 << 20, keep: 1 };
            let log = LogFile::new(dir.path().join("notes.log"), limits);
            Self { sink: Sink::new(log, max_rate), _dir: dir }
        }

        fn log(&mut self) -> String {
            std::fs::read_to_string(self.sink.log().path()).unwrap()
        }
    }

    #[test]
    fn a_secret_is_redacted_across_reads_and_a_held_tail_comes_with_the_end() {
        let mut world = World::new(1 << 20);
        world.sink.started(RunId(17), spec(&["sk-live-0123456789"]));
        world.sink.take(at(0), b"key sk-live-01");
        world.sink.take(at(5000), b"23456789\nsk-li");
        assert_eq!(world.log(), "mcpsup: run 17 started\nkey [redacted]\n");
        world.sink.end();
        world.sink.started(RunId(18), spec(&[]));
        world.sink.take(at(5000), b"ve\n");
        assert_eq!(
            world.log(),
            "mcpsup: run 17 started\nkey [redacted]\nsk-li\nmcpsup: run 18 started\nve\n"
        );
    }

    #[test]
    fn the_output_of_a_run_whose_secrets_are_unknown_is_counted_until_they_are_known() {
        let mut world = World::new(1 << 20);
        world.sink.found(RunId(3), None);
        world.sink.take(at(0), &[b'x'; 500]);
        world.sink.take(at(0), b"key sk-live-");
        world.sink.known(spec(&["sk-live-0123456789"]));
        world.sink.take(at(0), b"0123456789\nkey sk-live-0123456789\n");
        assert_eq!(
            world.log(),
            "mcpsup: run 3 found again\n\
             mcpsup: 512 bytes of output not shown: the secret values of this run are not known\n\
             mcpsup: 11 bytes of output not shown: they may be the end of a secret value\n\
             key [redacted]\n"
        );
    }

    #[test]
    fn a_line_that_was_no_message_is_redacted_by_itself_between_two_reads_of_the_rest() {
        let mut world = World::new(1 << 20);
        world.sink.started(RunId(1), spec(&["sk-live-0123456789"]));
        world.sink.take(at(0), b"key sk-live-01");
        world.sink.take_line(at(0), b"debug: sk-live-0123456789", true);
        world.sink.take(at(0), b"23456789\n");
        world.sink.take_line(at(0), b"23456789 and more", false);
        world.sink.take_line(at(0), b"sk-live-0123456789", true);
        let log = world.log();
        assert!(!log.contains("0123") && !log.contains("6789"), "{log}");
        assert!(log.contains("debug: [redacted]\n"), "{log}");
        assert!(log.contains("18 bytes of output not shown: they may be the end of a secret value"), "{log}");
        assert!(log.ends_with("[redacted]\n"), "{log}");
        world.sink.found(RunId(2), None);
        world.sink.take_line(at(0), b"sk-live-0123456789", true);
        world.sink.rest();
        assert!(
            world
                .log()
                .ends_with("19 bytes of output not shown: the secret values of this run are not known\n")
        );
    }

    #[test]
    fn a_flood_is_cut_to_its_rate_in_few_gaps_and_no_piece_of_a_secret_escapes_at_one() {
        let mut world = World::new(1024);
        world.sink.started(RunId(1), spec(&["sk-live-0123456789"]));
        let line = b"abc sk-live-0123456789 xyz\n".repeat(10);
        for step in 0..1000 {
            for piece in line.chunks(7) {
                world.sink.take(at(step * 10), piece);
            }
        }
        world.sink.end();
        let log = world.log();
        let written = log.len();
        assert!((9 * 1024..18 * 1024).contains(&written), "ten seconds and the burst: {written}");
        let gaps = log.matches("(over 1K/s)").count();
        assert!((5..=12).contains(&gaps), "{gaps}");
        assert!(!log.contains("0123") && !log.contains("sk-l"), "{log}");
        for line in log.lines() {
            let ours = line.starts_with("mcpsup: ");
            assert!(ours || "abc [redacted] xyz".starts_with(line), "{line}");
        }
    }

    #[test]
    fn what_a_flood_lost_is_counted_exactly() {
        let mut world = World::new(10);
        world.sink.started(RunId(1), spec(&[]));
        world.sink.take(at(0), &[b'x'; 100]);
        world.sink.take(at(1000), b"tail\nnew\n");
        assert_eq!(
            world.log(),
            format!("mcpsup: run 1 started\n{}\nmcpsup: dropped 65 bytes (over 10/s)\nnew\n", "x".repeat(40))
        );
    }

    #[test]
    fn a_slow_writer_is_never_cut() {
        let mut world = World::new(10);
        world.sink.started(RunId(1), spec(&[]));
        for step in 0..300 {
            world.sink.take(at(step * 100), b"x");
        }
        world.sink.end();
        assert!(world.log().ends_with(&"x".repeat(300)));
    }

    #[test]
    fn a_quiet_instance_holds_no_descriptor_and_no_redactor() {
        let mut world = World::new(1 << 20);
        world.sink.started(RunId(1), spec(&["sk-live-0123456789"]));
        world.sink.take(at(0), b"hello\n");
        assert!(world.sink.is_awake());
        world.sink.rest();
        assert!(!world.sink.is_awake());
        assert!(matches!(world.sink.shown, Shown::Without(_, None)));
        world.sink.take(at(0), b"sk-live");
        world.sink.rest();
        world.sink.take(at(0), b"-0123456789\n");
        assert_eq!(world.log(), "mcpsup: run 1 started\nhello\n[redacted]\n");
        assert!(size_of::<Sink>() <= 200, "{}", size_of::<Sink>());
    }

    #[test]
    fn sizes_are_said_as_the_configuration_has_them() {
        assert_eq!([4 << 20, 1 << 30, 1536, 1000].map(size), ["4M", "1G", "1536", "1000"]);
    }
}
