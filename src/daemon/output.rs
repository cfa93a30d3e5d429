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

/// A line that stands for itself counts as so many bytes at least: what it costs to take and to write
/// one hardly depends on how short it is.
const LEAST_OF_LINE: u64 = 256;

/// A longer line that is no message is not shown: it is looked through at one go, and everybody waits.
const LONGEST_LINE: usize = 64 << 10;

/// Seconds of output at the allowed rate that an instance may write at once.
const BURST: u64 = 4;

/// Where one instance's output goes, from run to run.
#[derive(Debug)]
pub(super) struct Sink {
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
    Without(Arc<Spec>, Redactors),
}

/// What takes secret values out, made when there is something to read.
#[derive(Debug, Default)]
struct Redactors {
    /// Of output as it comes.
    stream: Option<Box<Redactor>>,
    /// Of lines that stand for themselves: it never holds anything between two of them.
    lines: Option<Box<Redactor>>,
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
    LongLine,
}

impl Sink {
    /// A sink into `log` that lets `max_rate` bytes per second through, and four seconds' worth at
    /// once.
    #[must_use]
    pub(super) fn new(log: LogFile, max_rate: u64) -> Self {
        Self { log, meter: Meter::new(max_rate), shown: Shown::Nothing, gap: None, until_line_end: false }
    }

    /// The log itself: its path, its limits, its bell.
    pub(super) fn log(&mut self) -> &mut LogFile {
        &mut self.log
    }

    /// Lets another rate through from now on.
    pub(super) fn set_max_rate(&mut self, max_rate: u64) {
        self.meter.rate = max_rate.max(1);
    }

    /// A run begins, started with `spec`.
    pub(super) fn started(&mut self, run: RunId, spec: Arc<Spec>) {
        self.end();
        self.log.note(&format!("run {run} started"));
        self.shown = Shown::Without(spec, Redactors::default());
    }

    /// A run that an earlier daemon started goes on. Without the spec it was started with its
    /// output is counted, not shown.
    pub(super) fn found(&mut self, run: RunId) {
        self.end();
        self.log.note(&format!("run {run} found again"));
    }

    /// The spec that the present run was started with is known now.
    pub(super) fn known(&mut self, spec: Arc<Spec>) {
        self.say_gap();
        self.shown = Shown::Without(spec, Redactors::default());
        self.until_line_end = true;
    }

    /// Takes output of the present run, read at `now`.
    pub(super) fn take(&mut self, now: Moment, bytes: &[u8]) {
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
    pub(super) fn take_line(&mut self, now: Moment, line: &[u8], is_whole: bool) {
        if matches!(self.shown, Shown::Nothing) {
            return self.leave_out(Why::SecretsUnknown, line.len() + 1);
        }
        if !is_whole {
            return self.leave_out(Why::MayEndASecret, line.len() + 1);
        }
        if line.len() > LONGEST_LINE {
            return self.leave_out(Why::LongLine, line.len() + 1);
        }
        // Whole or not at all: half of it could be half of a secret value.
        let charge = (line.len() + 1).max(self.meter.least_of_line());
        if self.meter.allow(now, charge) < charge {
            return self.leave_out(Why::Flood, line.len() + 1);
        }
        self.say_gap();
        let mut shown = Vec::with_capacity(line.len() + 1);
        if let Shown::Without(spec, Redactors { lines, .. }) = &mut self.shown
            && !spec.secrets.is_empty()
        {
            // Kept from line to line: to make one takes longer than to read what a line holds.
            let redactor = lines.get_or_insert_with(|| Box::new(Redactor::new(&spec.secrets)));
            redactor.feed(line, &mut shown);
            redactor.flush(&mut shown);
        } else {
            shown.extend_from_slice(line);
        }
        shown.push(b'\n');
        self.log.write(&shown);
    }

    /// True while more comes than may pass.
    #[must_use]
    pub(super) const fn is_flooded(&self) -> bool {
        self.meter.dry
    }

    /// The present run ended, and all its output was taken.
    pub(super) fn end(&mut self) {
        let mut rest = Vec::new();
        if let Shown::Without(_, Redactors { stream: Some(redactor), .. }) = &mut self.shown {
            redactor.flush(&mut rest);
        }
        self.log.write(&rest);
        self.say_gap();
        self.shown = Shown::Nothing;
        self.until_line_end = false;
    }

    /// There was no output for a while: gives back the descriptor, and the memory that is not
    /// needed to go on.
    pub(super) fn rest(&mut self) {
        self.say_gap();
        if let Shown::Without(_, Redactors { stream, lines }) = &mut self.shown {
            stream.take_if(|redactor| redactor.held() == 0);
            *lines = None;
        }
        self.log.close();
    }

    /// True if [`Sink::rest`] has something to give back.
    #[cfg(test)]
    fn is_awake(&self) -> bool {
        let reads = match &self.shown {
            Shown::Nothing => false,
            Shown::Without(_, Redactors { stream, lines }) => {
                lines.is_some() || stream.as_ref().is_some_and(|redactor| redactor.held() == 0)
            }
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
            Shown::Without(spec, Redactors { stream, .. }) if !spec.secrets.is_empty() => {
                Some(stream.get_or_insert_with(|| Box::new(Redactor::new(&spec.secrets))))
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
                Why::LongLine => {
                    format!(
                        "{bytes} bytes of output not shown: a line that is no message and longer than 64K"
                    )
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

    /// What a short line counts. A low rate lets some of them through, too.
    fn least_of_line(&self) -> usize {
        usize::try_from(LEAST_OF_LINE.min(self.rate)).unwrap_or(1)
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
mod tests;
