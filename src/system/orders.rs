//! What the daemon tells a launcher, and what comes back: frames on a socketpair.
//!
//! Orders hold credentials, so they travel on a descriptor and nowhere else. The first byte says
//! how the process is to be made ([`Make`]); the orders follow once the daemon has written down
//! whom it speaks to. A launcher whose daemon dies before that reads the end of the stream and
//! ends: nothing runs that has no record.

use std::io::{self, Read, Write};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::model::Spec;
use crate::model::spec::Account;

/// How the process is to be made: the first byte on the socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Make {
    /// The launcher becomes the server.
    Exec = b'E',
    /// The launcher makes a pid namespace whose first process starts the server and waits for it.
    Namespace = b'N',
}

/// An order longer than this is not ours: 64 KiB of env file, twice over for escapes, and more.
pub const LONGEST: usize = 1 << 20;

/// What a launcher is to become. Borrowed from the spec on the daemon's side.
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
    /// The FIFO for standard output and error.
    pub output: PathBuf,
    /// The `cgroup.procs` file to join.
    pub cgroup: Option<PathBuf>,
    /// `RLIMIT_NOFILE`.
    pub open_files: Option<u32>,
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
            Some(errno) => write!(f, ": {}", nix::errno::Errno::from_raw(errno).desc().to_lowercase()),
            None => Ok(()),
        }
    }
}

/// What a launcher says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// The first process of the namespace, as the daemon sees its pid.
    Pid(i32),
    /// It will not become the server.
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

/// Reads one frame.
///
/// # Errors
///
/// When the stream ends inside it, or it is not one.
pub fn read<T: for<'de> Deserialize<'de>>(stream: &mut impl Read) -> io::Result<T> {
    let mut head = [0; 4];
    stream.read_exact(&mut head)?;
    let length = usize::try_from(u32::from_be_bytes(head)).map_err(io::Error::other)?;
    if length > LONGEST {
        return Err(io::Error::from(io::ErrorKind::InvalidData));
    }
    let mut bytes = Zeroizing::new(vec![0; length]);
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
    env: Vec<(&'a str, &'a str)>,
    working_dir: &'a PathBuf,
    state_dir: &'a PathBuf,
    runtime_dir: &'a PathBuf,
    account: &'a Option<Account>,
    stdin: PathBuf,
    output: PathBuf,
    cgroup: Option<PathBuf>,
    open_files: Option<u32>,
}

impl<'a> OrdersOf<'a> {
    /// For this spec, with these standard streams and this group.
    #[must_use]
    pub fn new(spec: &'a Spec, stdin: PathBuf, output: PathBuf, cgroup: Option<PathBuf>) -> Self {
        Self {
            program: &spec.program,
            args: spec.args.iter().map(super::super::model::secret::Secret::reveal).collect(),
            env: spec.env.iter().map(|(name, value)| (&**name, value.reveal())).collect(),
            working_dir: &spec.working_dir,
            state_dir: &spec.state_dir,
            runtime_dir: &spec.runtime_dir,
            account: &spec.account,
            stdin,
            output,
            cgroup,
            open_files: spec.limits.open_files,
        }
    }
}
