//! What the daemon tells its launcher and each copy of it, and what comes back: a packet, then
//! frames on a socketpair.
//!
//! Orders hold credentials, so they travel on a descriptor and nowhere else. The launcher is sent a
//! [`Make`] with one end of a socketpair, and answers there with the pid of the process it made;
//! the orders follow once the daemon has written down whom it speaks to. A process whose daemon
//! dies before that reads the end of the stream and ends: nothing runs that has no record.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::cause::plain;
use super::record::RunDir;
use crate::model::cage::{Cage, Namespaces};
use crate::model::spec::{Account, Home};
use crate::model::{Secret, Spec};

/// How a process is to be made: in which cgroup, and in which namespaces of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Make {
    group: Option<PathBuf>,
    born: Namespaces,
}

/// A request is a byte and a path, and no path is longer than this (`PATH_MAX`).
pub const LONGEST_REQUEST: usize = 1 + 4096;

impl Make {
    /// In this cgroup, if any, and in these namespaces.
    #[must_use]
    pub fn new(group: Option<&Path>, born: Namespaces) -> Self {
        Self { group: group.map(Path::to_path_buf), born }
    }

    /// The cgroup's directory.
    #[must_use]
    pub fn group(&self) -> Option<&Path> {
        self.group.as_deref()
    }

    /// The namespaces; of a pid namespace it is the first process.
    #[must_use]
    pub fn born(&self) -> Namespaces {
        self.born
    }

    /// As one packet.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![self.born.to_bits()];
        bytes.extend(self.group.iter().flat_map(|group| group.as_os_str().as_bytes()));
        bytes
    }

    /// From one packet; none from an empty one, which is the end.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (born, group) = bytes.split_first()?;
        let group = (!group.is_empty()).then(|| PathBuf::from(OsStr::from_bytes(group)));
        Some(Self { group, born: Namespaces::from_bits(*born) })
    }
}

/// An order longer than this is not ours: 64 KiB of env file, twice over for escapes, and more.
pub const LONGEST: usize = 1 << 20;

/// What a copy of the launcher is to become. On the daemon's side it is [`OrdersOf`].
#[derive(Debug, Serialize, Deserialize)]
pub struct Orders {
    /// The program, a path or a name to be found in PATH of `env`.
    pub program: String,
    /// Its arguments.
    pub args: Vec<String>,
    /// Its whole environment.
    pub env: Vec<(String, String)>,
    /// Where it starts.
    pub working_dir: PathBuf,
    /// Its own directory, made 0700 if it is not there, with `tmp` in it.
    pub state_dir: PathBuf,
    /// Its own short-lived directory, made 0700 if it is not there.
    pub runtime_dir: PathBuf,
    /// Whom it runs as; `None`: as the daemon.
    pub account: Option<Account>,
    /// The FIFO for standard input.
    pub stdin: PathBuf,
    /// The FIFO for standard output.
    pub output: PathBuf,
    /// The FIFO for standard error, if it is another.
    pub error: Option<PathBuf>,
    /// Where the first process of a pid namespace writes down how the server ended.
    pub end: PathBuf,
    /// `RLIMIT_NOFILE`.
    pub open_files: Option<u32>,
    /// The port it is to listen on, if it is.
    pub backend: Option<u16>,
    /// What it is kept from.
    pub cage: Cage,
}

/// Where a launch failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What was being done: "cannot execute /opt/x".
    pub doing: String,
    /// errno, if it was a system call that failed.
    pub errno: Option<i32>,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.doing)?;
        match self.errno {
            Some(errno) => write!(f, ": {}", plain(&io::Error::from_raw_os_error(errno))),
            None => Ok(()),
        }
    }
}

/// What the launcher, or its copy, says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// The process that was made, as the daemon sees its pid. Said by the launcher.
    Pid(i32),
    /// It was not made, or will not become the server. Said by either.
    Failed(Failure),
}

/// Orders as bytes with their length in front; overwritten when dropped.
///
/// # Errors
///
/// When they are longer than [`LONGEST`].
pub fn encode<T: Serialize>(value: &T) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(16 * 1024));
    bytes.extend_from_slice(&[0; 4]);
    serde_json::to_writer(&mut *bytes, value)?;
    let length = bytes.len() - 4;
    if length > LONGEST {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "command and environment are over 1 MiB"));
    }
    let head = u32::try_from(length).map_err(io::Error::other)?.to_be_bytes();
    bytes[..4].copy_from_slice(&head);
    Ok(bytes)
}

/// How much follows the head of a frame, in bytes.
///
/// # Errors
///
/// When it is more than [`LONGEST`]: then this is not a frame of ours.
pub fn length_of(head: [u8; 4]) -> io::Result<usize> {
    let length = usize::try_from(u32::from_be_bytes(head)).map_err(io::Error::other)?;
    if length > LONGEST {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a frame over 1 MiB"));
    }
    Ok(length)
}

/// Reads one frame.
///
/// # Errors
///
/// When the stream ends inside it, or it is not one.
pub fn read<T: for<'de> Deserialize<'de>>(stream: &mut impl Read) -> io::Result<T> {
    let mut head = [0; 4];
    stream.read_exact(&mut head)?;
    let mut bytes = Zeroizing::new(vec![0; length_of(head)?]);
    stream.read_exact(&mut bytes)?;
    Ok(serde_json::from_slice(&bytes)?)
}

/// Writes one frame.
///
/// # Errors
///
/// When nobody reads.
pub fn write<T: Serialize>(stream: &mut impl Write, value: &T) -> io::Result<()> {
    stream.write_all(&encode(value)?)
}

/// The orders for a spec, borrowed from it so that no credential is copied outside the frame.
#[derive(Serialize)]
pub struct OrdersOf<'a> {
    program: &'a str,
    args: Vec<&'a str>,
    env: Vec<(&'a str, Cow<'a, str>)>,
    working_dir: &'a Path,
    state_dir: &'a Path,
    runtime_dir: &'a Path,
    account: Option<&'a Account>,
    stdin: PathBuf,
    output: PathBuf,
    error: Option<PathBuf>,
    end: PathBuf,
    open_files: Option<u32>,
    backend: Option<u16>,
    cage: &'a Cage,
}

impl<'a> OrdersOf<'a> {
    /// For this spec of an instance that is at home here, with the run's standard streams.
    #[must_use]
    pub fn new(spec: &'a Spec, home: &'a Home<'_>, run: &RunDir) -> Self {
        Self {
            program: &spec.program,
            args: spec.args.iter().map(Secret::reveal).collect(),
            env: spec.environment(home).into_iter().collect(),
            working_dir: spec.start_dir(home),
            state_dir: &home.state_dir,
            runtime_dir: &home.runtime_dir,
            account: spec.account.as_deref(),
            stdin: run.stdin(),
            output: run.output(),
            error: spec.stdio().map(|_| run.error()),
            end: run.end(),
            open_files: spec.server.limits.open_files,
            backend: spec.backend,
            cage: &spec.cage,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_comes_through_and_one_that_is_too_long_or_cut_short_is_refused() {
        let answer = Answer::Failed(Failure { doing: "cannot dance".into(), errno: Some(2) });
        let frame = encode(&answer).unwrap();
        assert_eq!(read::<Answer>(&mut &frame[..]).unwrap(), answer);
        assert!(read::<Answer>(&mut &frame[..frame.len() - 1]).is_err());

        let over = u32::try_from(LONGEST + 1).unwrap().to_be_bytes();
        assert_eq!(length_of(over).unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert_eq!(length_of(u32::try_from(LONGEST).unwrap().to_be_bytes()).unwrap(), LONGEST);
        assert!(encode(&"x".repeat(LONGEST)).is_err());
    }
}
