//! A program of the host that is asked for one thing: it gets bytes, and gives bytes back.
//!
//! It has so long, and may say so much; then it is killed. What goes through is a secret: pipes
//! only, nothing in its arguments, and our copies are overwritten.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, PoisonError, TryLockError};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, ioctl_fionbio, read, write};
use rustix::process::Signal;

use super::cause::plain;
use super::{clock, notify, process, record};
use crate::model::Moment;
use crate::model::file::SecretBytes;

/// More than this of what a program complains about is nobody's interest, in bytes.
const COMPLAINS: usize = 4096;

/// Children whose end somebody here waits for, so that nobody else takes it for a stray's.
static AWAITED: Mutex<BTreeSet<i32>> = Mutex::new(BTreeSet::new());

/// True if a dead child is not to be reaped now, because it is waited for, or may be.
pub(super) fn awaits(pid: i32) -> bool {
    match AWAITED.try_lock() {
        Ok(awaited) => awaited.contains(&pid),
        Err(TryLockError::Poisoned(awaited)) => awaited.into_inner().contains(&pid),
        // One is being started just now: whoever asks need not wait for that, and comes again.
        Err(TryLockError::WouldBlock) => true,
    }
}

/// What a program finds in its environment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Environment {
    /// What we find: it is part of the host, as we are. But not what tells us of our service manager.
    Ours,
    /// Nothing.
    Bare,
}

/// Says `input` to a program, and gives what it answers, at most `most` bytes.
///
/// # Errors
///
/// When it cannot be started, is not done within `limit`, says more, or ends with a failure; for
/// people, with the last line it complained with.
pub fn run(
    program: &str,
    args: &[&str],
    environment: Environment,
    input: &[u8],
    most: usize,
    limit: Duration,
) -> Result<SecretBytes, String> {
    let until = clock::now() + limit;
    let mut tool = Tool::start(program, args, environment)?;
    let heard = tool.converse(input, most, until);
    // One that cannot be spoken with has no more time.
    let ended = tool.end(if heard.is_ok() { until } else { clock::now() });
    let (out, complaint) = heard.map_err(|what| format!("{program} {what}"))?;
    match ended {
        Ok(Some(status)) if status.success() => Ok(out),
        Ok(Some(status)) => Err(last_line(&complaint).unwrap_or_else(|| format!("{program}: {status}"))),
        Ok(None) => Err(format!("{program} was not done within {} s", limit.as_secs())),
        Err(error) => Err(format!("cannot wait for {program}: {}", plain(&error))),
    }
}

/// What it complained with last; nothing of it may steer a terminal.
pub(super) fn last_line(complaint: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(complaint);
    let line = text.lines().rev().map(str::trim).find(|line| !line.is_empty())?;
    Some(line.chars().filter(|c| !c.is_control()).take(300).collect())
}

/// A program that runs.
pub(super) struct Tool {
    pub(super) child: Child,
    handle: OwnedFd,
}

impl Drop for Tool {
    fn drop(&mut self) {
        let mut awaited = AWAITED.lock().unwrap_or_else(PoisonError::into_inner);
        awaited.retain(|pid| u32::try_from(*pid) != Ok(self.child.id()));
    }
}

impl Tool {
    /// Starts it, with pipes to all three of its descriptors.
    pub(super) fn start(
        program: &str,
        args: &[impl AsRef<OsStr>],
        environment: Environment,
    ) -> Result<Self, String> {
        let cannot = |error: &io::Error| format!("cannot start {program}: {}", plain(error));
        // Held while it is started: else it could end, and be reaped, before it is known.
        let mut awaited = AWAITED.lock().unwrap_or_else(PoisonError::into_inner);
        #[expect(clippy::disallowed_methods, reason = "a tool of the host, which is no server")]
        let mut command = Command::new(program);
        command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // Who has these can speak for us.
        for name in notify::VARIABLES {
            command.env_remove(name);
        }
        if environment == Environment::Bare {
            command.env_clear();
        }
        let mut child = command.spawn().map_err(|error| cannot(&error))?;
        let pid = i32::try_from(child.id()).map_err(io::Error::other);
        match pid.and_then(|pid| Ok((pid, record::open_pidfd(pid)?))) {
            Ok((pid, handle)) => {
                awaited.insert(pid);
                Ok(Self { child, handle })
            }
            Err(error) => {
                // Nobody else reaps while this is held, so the pid still means it.
                let ended = child.kill().and_then(|()| child.wait());
                Err(cannot(&ended.err().unwrap_or(error)))
            }
        }
    }

    /// Says everything and hears everything: what it gives, and what it complains of.
    fn converse(
        &mut self,
        input: &[u8],
        most: usize,
        until: Moment,
    ) -> Result<(SecretBytes, Vec<u8>), String> {
        let failed = |error: io::Error| format!("cannot be spoken with: {}", plain(&error));
        let (mut stdin, stdout, stderr) =
            (self.child.stdin.take(), self.child.stdout.take(), self.child.stderr.take());
        let mut out = Filling::of(stdout.map(OwnedFd::from), most + 1).map_err(failed)?;
        let mut err = Filling::of(stderr.map(OwnedFd::from), COMPLAINS).map_err(failed)?;
        if let Some(stdin) = &stdin {
            ioctl_fionbio(stdin, true).map_err(|errno| failed(errno.into()))?;
        }
        let mut said = 0;
        while out.from.is_some() || err.from.is_some() {
            if said == input.len() {
                stdin = None;
            }
            let mut waits = Vec::with_capacity(3);
            waits.extend(stdin.as_ref().map(|stdin| PollFd::from_borrowed_fd(stdin.as_fd(), PollFlags::OUT)));
            waits.extend(out.waits());
            waits.extend(err.waits());
            if !wait(&mut waits, until).map_err(failed)? {
                return Err("was not done in time".to_owned());
            }
            drop(waits);
            if let Some(pipe) = &stdin {
                match write(pipe, &input[said..]) {
                    Ok(more) => said += more,
                    Err(Errno::AGAIN | Errno::INTR) => {}
                    // It has heard enough; what that means, its status says.
                    Err(_) => said = input.len(),
                }
            }
            out.take().map_err(failed)?;
            err.take().map_err(failed)?;
            if out.length > most {
                return Err(format!("gives more than {most} bytes"));
            }
        }
        Ok((out.done(), err.done().to_vec()))
    }

    /// Waits until it has ended; if it has not by then, it is killed, and there is no status.
    pub(super) fn end(mut self, until: Moment) -> io::Result<Option<ExitStatus>> {
        let ended = wait(&mut [PollFd::from_borrowed_fd(self.handle.as_fd(), PollFlags::IN)], until);
        if !matches!(ended, Ok(true)) {
            process::send(&self.handle, Signal::KILL);
        }
        let status = self.child.wait()?;
        Ok(ended?.then_some(status))
    }
}

/// True if something can be done; false when the time is over.
pub(super) fn wait(waits: &mut [PollFd<'_>], until: Moment) -> io::Result<bool> {
    loop {
        let left = until.since(clock::now());
        if left.is_zero() {
            return Ok(false);
        }
        let left = Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(60),
            tv_nsec: left.subsec_nanos().into(),
        };
        match poll(waits, Some(&left)) {
            Ok(0) | Err(Errno::INTR) => {}
            Ok(_) => return Ok(true),
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// A buffer that never moves, and the pipe that fills it; what is beyond its size is dropped.
struct Filling {
    from: Option<OwnedFd>,
    bytes: SecretBytes,
    length: usize,
}

impl Filling {
    fn of(from: Option<OwnedFd>, size: usize) -> io::Result<Self> {
        if let Some(from) = &from {
            ioctl_fionbio(from, true)?;
        }
        Ok(Self { from, bytes: SecretBytes::new(vec![0; size]), length: 0 })
    }

    fn waits(&self) -> Option<PollFd<'_>> {
        let from: BorrowedFd<'_> = self.from.as_ref()?.as_fd();
        Some(PollFd::from_borrowed_fd(from, PollFlags::IN))
    }

    fn take(&mut self) -> io::Result<()> {
        let Some(from) = &self.from else { return Ok(()) };
        let mut rest = [0; 512];
        let is_full = self.length == self.bytes.len();
        let room = if is_full { &mut rest[..] } else { &mut self.bytes[self.length..] };
        match read(from, room) {
            Ok(0) => self.from = None,
            Ok(more) if !is_full => self.length += more,
            Ok(_) | Err(Errno::AGAIN | Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        Ok(())
    }

    fn done(mut self) -> SecretBytes {
        self.bytes.truncate(self.length);
        std::mem::take(&mut self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    fn sh(script: &str, input: &[u8], most: usize, limit: Duration) -> Result<Vec<u8>, String> {
        run("/bin/sh", &["-c", script], Environment::Ours, input, most, limit).map(|out| out.to_vec())
    }

    #[test]
    fn what_is_said_and_what_is_answered_may_be_larger_than_a_pipe() {
        let input = vec![b'x'; 300_000];
        assert_eq!(sh("cat", &input, 300_000, LONG), Ok(input.clone()));
        assert_eq!(sh("cat >/dev/null; echo done", &input, 10, LONG), Ok(b"done\n".to_vec()));
        assert_eq!(sh("exec <&-; echo deaf", &input, 10, LONG), Ok(b"deaf\n".to_vec()));
    }

    #[test]
    fn one_that_is_to_find_nothing_in_its_environment_finds_nothing() {
        let said = run("/usr/bin/env", &[], Environment::Bare, b"", 1000, LONG).unwrap();
        assert_eq!(said.as_slice(), b"");
        assert!(run("/usr/bin/env", &[], Environment::Ours, b"", 1 << 20, LONG).unwrap().len() > 1);
    }

    #[test]
    fn one_that_says_too_much_fails_hangs_or_is_not_there_is_an_error_in_words() {
        let too_much = sh("cat", &[b'x'; 11], 10, LONG).unwrap_err();
        assert!(too_much.contains("more than 10 bytes"), "{too_much}");
        let wrong = sh("echo a >&2; echo 'no \x1b[2Jkey' >&2; echo half; exit 1", b"", 10, LONG);
        assert_eq!(wrong, Err("no [2Jkey".to_owned()));
        assert!(sh("exit 3", b"", 10, LONG).unwrap_err().contains("status: 3"));
        let late = sh("exec sleep 1000", b"", 10, Duration::from_millis(50)).unwrap_err();
        assert!(late.contains("was not done"), "{late}");
        let deaf = sh("exec >&- 2>&-; exec sleep 1000", b"", 10, Duration::from_millis(50)).unwrap_err();
        assert!(deaf.contains("was not done"), "{deaf}");
        let missing = run("/no/such/program", &[], Environment::Ours, b"", 1, LONG).unwrap_err();
        assert_eq!(missing, "cannot start /no/such/program: no such file or directory");
        assert!(AWAITED.lock().unwrap().len() < 8, "they are forgotten");
    }
}
