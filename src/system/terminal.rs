//! The terminal: how wide it is, input that is not shown, and an editor on it.
//!
//! The editor is the one program that is not started by `system::process`: it is the caller's
//! own, in the caller's own environment, and ends before we do.

use std::io::{self, BufRead, IsTerminal, Read};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::ExitStatus;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::statfs::{TMPFS_MAGIC, statfs};
use nix::sys::termios::{LocalFlags, SetArg, SpecialCharacterIndices, Termios, tcgetattr, tcsetattr};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use zeroize::Zeroizing;

use crate::model::Secret;

/// Columns and rows of the terminal that `output` is; `None` if it is none.
pub fn size(output: impl AsFd) -> Option<(usize, usize)> {
    let size = rustix::termios::tcgetwinsize(output).ok()?;
    (size.ws_col > 0).then_some((size.ws_col.into(), size.ws_row.into()))
}

/// Reads one line from the terminal on stdin without showing it.
///
/// The terminal is put back as it was, whatever happens. `None` if the person ended the input
/// (Ctrl-C, Ctrl-D).
///
/// # Errors
///
/// When stdin is not a terminal, or cannot be read.
pub fn read_hidden() -> io::Result<Option<Secret>> {
    let stdin = io::stdin();
    if !stdin.is_terminal() {
        return Err(io::Error::other("the standard input is not a terminal"));
    }
    let _quiet = Quiet::begin()?;
    let line = read_line(&mut stdin.lock())?;
    Ok(line)
}

/// Reads one line from the terminal on stdin as it is typed. `None` at the end of the input.
///
/// # Errors
///
/// When stdin cannot be read, or what is typed is not UTF-8.
pub fn read_shown() -> io::Result<Option<String>> {
    let mut line = String::new();
    let read = io::stdin().lock().read_line(&mut line)?;
    Ok((read > 0).then_some(line))
}

/// Takes single bytes, because a terminal in line mode cuts a line after 4095 of them (termios(3))
/// and keys are longer.
fn read_line(input: &mut impl Read) -> io::Result<Option<Secret>> {
    const LONGEST: usize = 1024 * 1024;
    // Room enough that it does not move, which would leave copies behind.
    let mut line = Zeroizing::new(Vec::with_capacity(LONGEST));
    loop {
        let mut byte = [0];
        if input.read(&mut byte)? == 0 {
            return Ok(None);
        }
        match byte[0] {
            b'\r' | b'\n' => break,
            // Ctrl-C; Ctrl-D on an empty line
            3 => return Ok(None),
            4 if line.is_empty() => return Ok(None),
            // Backspace, which is Delete on most terminals: one character, not one byte
            8 | 127 => while line.pop().is_some_and(|byte| byte & 0xc0 == 0x80) {},
            // Ctrl-U
            21 => line.clear(),
            other if line.len() < LONGEST => line.push(other),
            _ => return Err(io::Error::other("the line is longer than 1 MiB")),
        }
    }
    match std::str::from_utf8(&line) {
        Ok(text) => Ok(Some(Secret::new(text))),
        Err(_) => Err(io::Error::other("the input is not UTF-8")),
    }
}

/// A terminal that does not show what is typed; as before when this is dropped.
struct Quiet(Termios);

impl Quiet {
    fn begin() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut quiet = before.clone();
        // Without ISIG Ctrl-C is a byte for us, so that the terminal is never left silent.
        quiet.local_flags &= !(LocalFlags::ECHO | LocalFlags::ECHONL | LocalFlags::ICANON | LocalFlags::ISIG);
        quiet.control_chars[SpecialCharacterIndices::VMIN as usize] = 1;
        quiet.control_chars[SpecialCharacterIndices::VTIME as usize] = 0;
        tcsetattr(io::stdin(), SetArg::TCSADRAIN, &quiet)?;
        Ok(Self(before))
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        // Nobody is left to tell: the terminal has gone.
        tcsetattr(io::stdin(), SetArg::TCSADRAIN, &self.0).unwrap_or_default();
    }
}

/// While this lives, Ctrl-C and its like do not end us; what they ask is remembered.
///
/// The signals are caught, not ignored: an ignored one would be inherited by the editor.
#[derive(Debug)]
pub struct Patience(Arc<AtomicBool>);

impl Patience {
    /// From now on SIGINT, SIGQUIT, SIGTERM and SIGHUP are only remembered, for the rest of this
    /// process's life.
    ///
    /// # Errors
    ///
    /// When the kernel refuses a handler.
    pub fn begin() -> io::Result<Self> {
        let asked = Arc::new(AtomicBool::new(false));
        for signal in [SIGTERM, SIGHUP] {
            signal_hook::flag::register(signal, Arc::clone(&asked))?;
        }
        // The terminal sends these to the editor's whole group, and they mean the editor.
        for signal in [SIGINT, SIGQUIT] {
            signal_hook::flag::register(signal, Arc::new(AtomicBool::new(false)))?;
        }
        Ok(Self(asked))
    }

    /// True if we were asked to end.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Runs the caller's editor on `file` and waits for it.
///
/// `editor` is shell words, as git and sudoedit take it: `code --wait` works.
///
/// # Errors
///
/// When the shell cannot be started.
#[expect(
    clippy::disallowed_methods,
    reason = "the caller's own editor: it wants the terminal and the environment that system::process takes away"
)]
pub fn edit(editor: &str, file: &Path) -> io::Result<ExitStatus> {
    std::process::Command::new("/bin/sh")
        .arg("-c")
        .arg(format!("{editor} \"$1\""))
        .arg("mcpsup-edit")
        .arg(file)
        // What it puts aside while it works stays with the file.
        .envs(file.parent().map(|dir| ("TMPDIR", dir)))
        .status()
}

/// True if `dir` is kept in memory, so that what is written there never reaches a disk (but for
/// swap).
#[must_use]
pub fn is_in_memory(dir: &Path) -> bool {
    statfs(dir).is_ok_and(|fs| fs.filesystem_type() == TMPFS_MAGIC)
}

/// True if memory may be written to a disk when it runs short (proc(5), `/proc/swaps`).
#[must_use]
pub fn swaps() -> bool {
    std::fs::read_to_string("/proc/swaps")
        .is_ok_and(|text| text.lines().skip(1).any(|line| !line.contains("/zram")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(bytes: &[u8]) -> Option<String> {
        read_line(&mut &bytes[..]).unwrap().map(|secret| secret.reveal().to_owned())
    }

    #[test]
    fn what_is_typed_can_be_corrected() {
        assert_eq!(typed(b"abc\x7fd\n").as_deref(), Some("abd"));
        assert_eq!(typed("a\u{e4}\x7fb\r".as_bytes()).as_deref(), Some("ab"));
        assert_eq!(typed(b"wrong\x15right\n").as_deref(), Some("right"));
        assert_eq!(typed(b"\x7f\n").as_deref(), Some(""));
    }

    #[test]
    fn ctrl_c_and_the_end_of_input_are_no_answer() {
        assert_eq!(typed(b"abc\x03"), None);
        assert_eq!(typed(b"\x04"), None);
        assert_eq!(typed(b"abc"), None);
    }

    #[test]
    fn a_key_longer_than_a_terminal_line_is_read_whole() {
        let long = format!("{}\n", "k".repeat(10_000));
        assert_eq!(typed(long.as_bytes()).map(|text| text.len()), Some(10_000));
    }

    #[test]
    fn a_pipe_is_not_a_terminal() {
        let (reader, _writer) = io::pipe().unwrap();
        assert_eq!(size(&reader), None);
    }
}
