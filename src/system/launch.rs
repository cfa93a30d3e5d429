//! The launcher: a fresh, single-threaded process that turns itself into a server.
//!
//! `mcpsup launch` is started by the daemon with an empty environment and a socketpair as its
//! standard input (see [`orders`](super::orders)). It makes its session, joins its group, sets
//! limits and identity with ordinary calls and ordinary errors, and then executes the server. No
//! code of ours runs between fork and exec in the daemon itself.
//!
//! Where a pid namespace is used, the launcher makes it and starts itself once more as the
//! namespace's first process, which starts the server, passes signals on and reaps.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::{Mode, umask};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Gid, Pid, Uid, initgroups, setgid, setsid, setuid};

use super::orders::{Answer, Failure, Make, Orders, read, write};
use crate::model::spec::Account;

/// Said by a launcher whose daemon is gone; nobody is left to hear it.
const NO_ORDERS: u8 = 125;
/// As shells say it: found and not executable, or not found.
const NOT_EXECUTED: u8 = 126;

/// The hidden verb `launch`: hears its orders on standard input and becomes the server.
#[must_use]
pub fn main() -> ExitCode {
    let Ok(mut socket) = socket() else { return ExitCode::from(NO_ORDERS) };
    let mut make = [0];
    if socket.read_exact(&mut make).is_err() {
        return ExitCode::from(NO_ORDERS);
    }
    let failure = if make[0] == Make::Namespace as u8 {
        match first_of_a_namespace(&mut socket) {
            Ok(()) => return ExitCode::SUCCESS,
            Err(failure) => failure,
        }
    } else {
        let Ok(orders) = read::<Orders>(&mut socket) else { return ExitCode::from(NO_ORDERS) };
        match prepare(&orders) {
            Ok(mut command) => {
                let error = command.exec();
                cannot(format!("execute {}", orders.program))(error)
            }
            Err(failure) => failure,
        }
    };
    report(&mut socket, failure)
}

/// The hidden verb `launch-first`: the first process of a pid namespace. It becomes what the
/// orders say, with one child that is the server.
#[must_use]
pub fn first_main() -> ExitCode {
    let Ok(mut socket) = socket() else { return ExitCode::from(NO_ORDERS) };
    let Ok(orders) = read::<Orders>(&mut socket) else { return ExitCode::from(NO_ORDERS) };
    match serve(&orders, socket.try_clone()) {
        Ok(code) => code,
        Err(failure) => report(&mut socket, failure),
    }
}

fn report(socket: &mut UnixStream, failure: Failure) -> ExitCode {
    match write(socket, &Answer::Failed(failure)) {
        Ok(()) => ExitCode::from(NOT_EXECUTED),
        Err(_) => ExitCode::from(NO_ORDERS),
    }
}

/// Standard input, moved out of the way and closed when the server begins.
fn socket() -> io::Result<UnixStream> {
    Ok(UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?))
}

fn cannot(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Failure {
    move |error| Failure { doing: format!("cannot {}", doing.into()), errno: error.raw_os_error() }
}

/// Makes the namespace, starts its first process, and says which that is. The daemon becomes its
/// parent when this process ends, because it is a subreaper (prctl(2)).
fn first_of_a_namespace(socket: &mut UnixStream) -> Result<(), Failure> {
    unshare(CloneFlags::CLONE_NEWPID).map_err(io::Error::from).map_err(cannot("make a pid namespace"))?;
    let input = socket.try_clone().map_err(cannot("pass the orders on"))?;
    #[expect(clippy::disallowed_methods, reason = "the launcher is system::process's other half")]
    let child = Command::new("/proc/self/exe")
        .arg("launch-first")
        .env_clear()
        .stdin(Stdio::from(std::os::fd::OwnedFd::from(input)))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(cannot("start the first process of a pid namespace"))?;
    let pid = i32::try_from(child.id()).unwrap_or_default();
    write(socket, &Answer::Pid(pid)).map_err(cannot("name the first process of a pid namespace"))
}

/// Does everything that comes before the server itself: afterwards this process is in its own
/// session and group, is who the server shall be, and has what the server shall have.
fn prepare(orders: &Orders) -> Result<Command, Failure> {
    setsid().map_err(io::Error::from).map_err(cannot("make a session"))?;
    prctl::set_dumpable(false).map_err(io::Error::from).map_err(cannot("close its memory to others"))?;
    if let Some(group) = &orders.cgroup {
        join(group).map_err(cannot("join its cgroup"))?;
    }
    limit(orders)?;
    umask(Mode::from_bits_truncate(0o077));
    let account = orders.account.as_ref();
    make_own(&orders.state_dir, account).map_err(cannot(format!("make {}", orders.state_dir.display())))?;
    make_own(&orders.runtime_dir, account)
        .map_err(cannot(format!("make {}", orders.runtime_dir.display())))?;
    // Both ends: the process never sees an end of file or a broken pipe, whoever reads.
    let stdin = fifo(&orders.stdin).map_err(cannot("open its standard input"))?;
    let output = fifo(&orders.output).map_err(cannot("open its standard output"))?;
    let error = output.try_clone().map_err(cannot("open its standard error"))?;
    if let Some(account) = account {
        become_account(account)?;
    }
    prctl::set_no_new_privs().map_err(io::Error::from).map_err(cannot("give up new privileges"))?;
    let tmp = orders.state_dir.join("tmp");
    make_own(&tmp, None).map_err(cannot(format!("make {}", tmp.display())))?;
    std::env::set_current_dir(&orders.working_dir)
        .map_err(cannot(format!("enter {}", orders.working_dir.display())))?;
    #[expect(clippy::disallowed_methods, reason = "the launcher is system::process's other half")]
    let mut command = Command::new(&orders.program);
    command
        .args(&orders.args)
        .env_clear()
        .envs(orders.env.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::from(stdin))
        .stdout(Stdio::from(output))
        .stderr(Stdio::from(error));
    Ok(command)
}

fn join(group: &Path) -> io::Result<()> {
    OpenOptions::new().write(true).open(group)?.write_all(b"0")
}

fn limit(orders: &Orders) -> Result<(), Failure> {
    let set = |what, most: u64| setrlimit(what, most, most).map_err(io::Error::from);
    set(Resource::RLIMIT_CORE, 0).map_err(cannot("forbid core dumps"))?;
    if let Some(files) = orders.open_files {
        set(Resource::RLIMIT_NOFILE, u64::from(files)).map_err(cannot("limit open files"))?;
    }
    Ok(())
}

/// Makes a directory 0700 for the account, and the ones above it so that it can be reached. One
/// that is there is left as it is.
fn make_own(dir: &Path, account: Option<&Account>) -> io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    if let Some(parent) = dir.parent() {
        fs::DirBuilder::new().recursive(true).mode(0o711).create(parent)?;
    }
    match fs::DirBuilder::new().mode(0o700).create(dir) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
        Ok(()) => match account {
            Some(account) => std::os::unix::fs::lchown(dir, Some(account.uid), Some(account.gid)),
            None => Ok(()),
        },
    }
}

fn fifo(path: &Path) -> io::Result<File> {
    let flags = nix::libc::O_NOFOLLOW | nix::libc::O_CLOEXEC;
    OpenOptions::new().read(true).write(true).custom_flags(flags).open(path)
}

fn become_account(account: &Account) -> Result<(), Failure> {
    let name = std::ffi::CString::new(account.name.as_str()).unwrap_or_default();
    let gid = Gid::from_raw(account.gid);
    initgroups(&name, gid)
        .map_err(io::Error::from)
        .map_err(cannot(format!("take the groups of {}", account.name)))?;
    setgid(gid).map_err(io::Error::from).map_err(cannot(format!("take the group of {}", account.name)))?;
    setuid(Uid::from_raw(account.uid))
        .map_err(io::Error::from)
        .map_err(cannot(format!("become {}", account.name)))?;
    // A change of identity makes a process dumpable by its new owner's setting again (prctl(2)).
    prctl::set_dumpable(false).map_err(io::Error::from).map_err(cannot("close its memory to others"))
}

/// Starts the server as a child and lives as long as it does.
fn serve(orders: &Orders, socket: io::Result<UnixStream>) -> Result<ExitCode, Failure> {
    let mut signals = signal_hook::iterator::Signals::new([
        nix::libc::SIGTERM,
        nix::libc::SIGINT,
        nix::libc::SIGHUP,
        nix::libc::SIGQUIT,
        nix::libc::SIGUSR1,
        nix::libc::SIGUSR2,
        nix::libc::SIGCHLD,
    ])
    .map_err(cannot("watch for signals"))?;
    let mut command = prepare(orders)?;
    let child = command.process_group(0).spawn().map_err(cannot(format!("execute {}", orders.program)))?;
    drop(command);
    // Said by closing, as exec would: the standard input of this process is the socket.
    drop(socket);
    let null = File::open("/dev/null").map_err(cannot("open /dev/null"))?;
    rustix::stdio::dup2_stdin(&null).map_err(io::Error::from).map_err(cannot("close the orders"))?;
    let server = Pid::from_raw(i32::try_from(child.id()).unwrap_or_default());
    for signal in signals.forever() {
        if signal != nix::libc::SIGCHLD {
            if let Ok(signal) = Signal::try_from(signal) {
                // A server that is gone meanwhile is heard of by SIGCHLD.
                kill(Pid::from_raw(-server.as_raw()), signal).unwrap_or_default();
            }
            continue;
        }
        while let Ok(status) = waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            match status {
                WaitStatus::Exited(pid, code) if pid == server => {
                    return Ok(ExitCode::from(u8::try_from(code & 0xff).unwrap_or(u8::MAX)));
                }
                WaitStatus::Signaled(pid, signal, _) if pid == server => {
                    return Ok(ExitCode::from(
                        128_u8.saturating_add(u8::try_from(signal as i32).unwrap_or(0)),
                    ));
                }
                WaitStatus::StillAlive => break,
                WaitStatus::Exited(..)
                | WaitStatus::Signaled(..)
                | WaitStatus::Stopped(..)
                | WaitStatus::PtraceEvent(..)
                | WaitStatus::PtraceSyscall(..)
                | WaitStatus::Continued(..) => {}
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}
