//! What a daemon leaves for the next one: one directory per run.
//!
//! `RUNTIME/runs/17/` is made before the process is (the intent); `record` in it is written when
//! the process exists and before it is told what to become, so a process that could do anything
//! always has one. The FIFOs of the run lie beside it. All of it is 0700 and the daemon's own.

use std::fs;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde::{Deserialize, Serialize};
use std::os::fd::OwnedFd;

use crate::model::config::Stdio;
use crate::model::spec::Plan;
use crate::model::{Exit, InstanceId, RunId, SpecId};

/// What is known of a run that was started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Its number.
    pub run: RunId,
    /// Whose.
    pub instance: InstanceId,
    /// What it was started as.
    pub spec: SpecId,
    /// How long it may take to be ready, and how it is stopped.
    pub plan: Plan,
    /// The process.
    pub identity: Identity,
    /// Its group, where it has one.
    pub cgroup: Option<PathBuf>,
    /// True if it is the first process of a pid namespace.
    pub pid_namespace: bool,
    /// The port it was told to listen on; none for a stdio server.
    #[serde(default)]
    pub backend: Option<u16>,
    /// The Unix socket it was told to listen on; none for one with a port.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub socket: Option<PathBuf>,
    /// How it is spoken with on its standard input and output, and the path its clients reach it at;
    /// none for an http server.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub stdio: Option<(Stdio, String)>,
    /// Its TMPDIR, by which strays are recognised.
    pub marker: PathBuf,
    /// Whom it was started as: nobody else's process is taken for a stray of it.
    pub uid: u32,
}

/// What tells one process from every other that ever had its pid.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The boot it belongs to.
    pub boot: String,
    /// Its pid.
    pub pid: i32,
    /// Field 22 of /proc/PID/stat, in clock ticks since boot.
    pub start_time: u64,
    /// The inode of its pidfd, unique per boot from Linux 6.9; before that the same for all.
    pub pidfd_inode: u64,
}

impl Record {
    /// True if it is spoken with on its standard input and output: then it has a third FIFO.
    #[must_use]
    pub const fn is_stdio(&self) -> bool {
        self.stdio.is_some()
    }
}

impl Identity {
    /// Of a living process that cannot be reaped meanwhile, with a handle on it.
    ///
    /// # Errors
    ///
    /// When it is gone, or /proc is not to be read.
    pub fn of(pid: i32) -> io::Result<(Self, OwnedFd)> {
        let handle = open_pidfd(pid)?;
        let identity =
            Self { boot: boot_id()?, pid, start_time: start_time(pid)?, pidfd_inode: inode(&handle)? };
        Ok((identity, handle))
    }

    /// False if the machine was started again since: then nothing of it can be alive.
    #[must_use]
    pub fn is_of_this_boot(&self) -> bool {
        boot_id().is_ok_and(|boot| boot == self.boot)
    }

    /// A handle on the process, if it is still there and still the same one.
    #[must_use]
    pub fn find(&self) -> Option<OwnedFd> {
        // First the handle, then the look: what the handle holds cannot change between the two.
        let (now, handle) = Self::of(self.pid).ok()?;
        (now == *self).then_some(handle)
    }
}

pub(super) fn open_pidfd(pid: i32) -> io::Result<OwnedFd> {
    let pid = Pid::from_raw(pid).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    Ok(pidfd_open(pid, PidfdFlags::NONBLOCK)?)
}

fn inode(handle: &OwnedFd) -> io::Result<u64> {
    Ok(rustix::fs::fstat(handle.as_fd())?.st_ino)
}

/// It stays what it is as long as this process lives, and every start of a run waits for it.
fn boot_id() -> io::Result<String> {
    static KNOWN: OnceLock<String> = OnceLock::new();
    if let Some(known) = KNOWN.get() {
        return Ok(known.clone());
    }
    let read = fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned();
    Ok(KNOWN.get_or_init(|| read).clone())
}

fn start_time(pid: i32) -> io::Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The second field is the program's name in brackets and may hold anything, so count behind it.
    stat.rsplit_once(") ")
        .and_then(|(_, rest)| rest.split(' ').nth(19))
        .and_then(|field| field.parse().ok())
        .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
}

/// The names of a run's FIFOs: its standard input, output and, of a stdio run, error.
pub(super) const FIFOS: [&str; 3] = ["in", "out", "err"];

/// The directory of one run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunDir(Box<Path>);

impl RunDir {
    /// Where the run's directory is or would be.
    #[must_use]
    pub fn of(runs: &Path, run: RunId) -> Self {
        Self(runs.join(run.to_string()).into())
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The FIFO that is the run's standard input.
    #[must_use]
    pub fn stdin(&self) -> PathBuf {
        self.0.join(FIFOS[0])
    }

    /// The FIFO that is the run's standard output; of an http server its standard error too.
    #[must_use]
    pub fn output(&self) -> PathBuf {
        self.0.join(FIFOS[1])
    }

    /// The FIFO that is a stdio run's standard error.
    #[must_use]
    pub fn error(&self) -> PathBuf {
        self.0.join(FIFOS[2])
    }

    /// A file that is there while a message to a stdio run is partly written.
    #[must_use]
    pub fn half(&self) -> PathBuf {
        self.0.join("half")
    }

    /// What a stdio run answered to its opening, for a next daemon.
    #[must_use]
    pub fn opened(&self) -> PathBuf {
        self.0.join("opened")
    }

    /// The file in which the first process of a pid namespace says how the server ended.
    #[must_use]
    pub fn end(&self) -> PathBuf {
        self.0.join("end")
    }

    /// What is said there. None if nothing is: there is no such process, it was killed itself, or the disk
    /// was full.
    #[must_use]
    pub fn ended(&self) -> Option<Exit> {
        match serde_json::from_slice(&fs::read(self.end()).ok()?).ok()? {
            exit @ (Exit::Status(_) | Exit::Signal(_)) => Some(exit),
            Exit::AtLimit(..) | Exit::Unknown | Exit::NotStarted(_) => None,
        }
    }

    /// Makes it with its FIFOs, three of them for a stdio run: from now on the run is intended.
    ///
    /// # Errors
    ///
    /// When the runtime directory cannot be written.
    pub fn create(&self, is_stdio: bool) -> io::Result<()> {
        fs::DirBuilder::new().mode(0o700).create(&self.0)?;
        let mode = nix::sys::stat::Mode::S_IRUSR | nix::sys::stat::Mode::S_IWUSR;
        nix::unistd::mkfifo(&self.stdin(), mode)?;
        nix::unistd::mkfifo(&self.output(), mode)?;
        if is_stdio {
            nix::unistd::mkfifo(&self.error(), mode)?;
        }
        Ok(())
    }

    /// Writes the record: once, in one call, before the process is told anything. So one that was
    /// cut short is of a process that never became a server.
    ///
    /// # Errors
    ///
    /// When the runtime directory cannot be written.
    pub fn write(&self, record: &Record) -> io::Result<()> {
        let text = serde_json::to_vec(record)?;
        let path = self.0.join("record");
        fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?.write_all(&text)
    }

    /// Reads the record; `None` if the run never got so far.
    ///
    /// # Errors
    ///
    /// When it is there and cannot be understood.
    pub fn read(&self) -> io::Result<Option<Record>> {
        match fs::read(self.0.join("record")) {
            // It ends with a bracket, or it is not whole.
            Ok(text) if !text.ends_with(b"}") => Ok(None),
            Ok(text) => Ok(Some(serde_json::from_slice(&text)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Removes it: the run is over.
    ///
    /// # Errors
    ///
    /// When the runtime directory cannot be written.
    pub fn remove(&self) -> io::Result<()> {
        fs::remove_dir_all(&self.0)
    }
}

/// Every run that an earlier daemon left, in order of their numbers.
///
/// # Errors
///
/// When the directory cannot be read.
pub fn left_behind(runs: &Path) -> io::Result<Vec<(RunId, RunDir)>> {
    let mut found: Vec<(RunId, RunDir)> = Vec::new();
    for entry in fs::read_dir(runs)? {
        let entry = entry?;
        if let Some(run) = entry.file_name().to_str().and_then(|name| name.parse().ok()) {
            found.push((RunId(run), RunDir(entry.path().into())));
        }
    }
    found.sort_by_key(|(run, _)| *run);
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_known_if_it_was_written_down_whole() {
        let runs = tempfile::tempdir().unwrap();
        let dir = RunDir::of(runs.path(), RunId(1));
        dir.create(false).unwrap();
        assert_eq!(dir.ended(), None);
        for (exit, known) in [(Exit::Signal(9), true), (Exit::Status(137), true), (Exit::Unknown, false)] {
            let text = serde_json::to_vec(&exit).unwrap();
            crate::system::files::replace(&dir.end(), &text, 0o600).unwrap();
            assert_eq!(dir.ended(), known.then_some(exit));
            crate::system::files::replace(&dir.end(), &text[..text.len() - 1], 0o600).unwrap();
            assert_eq!(dir.ended(), None);
        }
    }

    #[test]
    fn this_process_is_found_again_and_another_life_of_its_pid_is_not() {
        let (me, _handle) = Identity::of(rustix::process::getpid().as_raw_nonzero().get()).unwrap();
        assert!(me.find().is_some());
        let earlier = Identity { start_time: me.start_time - 1, ..me.clone() };
        assert!(earlier.find().is_none());
        let other_boot = Identity { boot: "another".into(), ..me };
        assert!(other_boot.find().is_none());
    }
}
