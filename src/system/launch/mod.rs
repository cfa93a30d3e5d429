//! The launcher: a single-threaded process of which each run begins as a copy.
//!
//! `mcpsup launch` is started once by each daemon, with an empty environment and a socket as its
//! standard input. For every run it is sent one end of a socketpair; it copies itself
//! (`clone`) and says the copy's pid. The copy hears its [`orders`](super::orders) on the
//! socketpair, makes its session, sets limits and identity with ordinary calls and ordinary errors,
//! and executes the server. The launcher itself never hears an order, so it knows no secret; no
//! code of ours runs between fork and exec in the daemon, which has threads and much memory.
//!
//! Last, it lays its cage around itself (`cage/`): what the run may see, open, call and signal.
//!
//! Where a pid namespace is used, the copy is its first process: it starts the server as a child,
//! passes signals on, reaps, and writes down how the server ended.

mod cage;
pub(super) mod clone;
mod inherited;
mod own;

use std::fs::{File, OpenOptions};
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::stat::{Mode, umask};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Gid, Pid, Uid, initgroups, setgid, setgroups, setsid, setuid};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use signal_hook::iterator::Signals;

use super::orders::{Answer, Failure, LONGEST_REQUEST, Make, Orders, read, write};
use crate::model::Exit;
use crate::model::cage::Namespaces;
use crate::model::run::STOPS;
use crate::model::spec::Account;
use cage::calls::Filters;
use cage::mounts::{self, Ids};
use clone::{Parent, Side};

/// The exit status of a launcher, or a copy of it, whose daemon is gone; nobody is left to hear it.
const NO_ORDERS: u8 = 125;
/// As shells say it: found and not executable, or not found.
const NOT_EXECUTED: u8 = 126;

/// The hidden verb `launch`: copies itself for every request on its standard input, until the
/// daemon at the other end is gone.
#[must_use]
pub fn main() -> ExitCode {
    let alone = stand_alone().and_then(|()| own_standard_input());
    let Ok(control) = alone else { return ExitCode::from(NO_ORDERS) };
    // Once for all runs.
    let (filters, ids) = (Filters::new(), Ids::own());
    loop {
        let Ok(Some((make, socket))) = next_request(&control) else { return ExitCode::SUCCESS };
        let mut socket = UnixStream::from(socket);
        let group = make.group().map_or(Ok(None), |group| File::open(group).map(Some));
        // What a copy is sent waits until it can hear it: the first process of a pid namespace loses what
        // it neither handles nor blocks (pid_namespaces(7)).
        let stops = stops();
        let sides = stops.thread_block().map_err(io::Error::from).and(group);
        let sides = sides.and_then(|group| clone::copy(group.as_ref(), make.born(), Parent::Ours));
        let answer = match sides {
            Ok(Side::Copy) => {
                drop(control);
                return become_server(socket, make.born(), ids, &filters);
            }
            Ok(Side::Original(pid)) => Answer::Pid(pid),
            Err(error) => Answer::Failed(cannot("make a process")(error)),
        };
        // It blocked them a moment ago.
        stops.thread_unblock().unwrap_or_default();
        // A daemon that does not hear it is gone, and its copy with it.
        write(&mut socket, &answer).unwrap_or_default();
    }
}

/// What a process does first that works for the daemon and is none of its servers: it drops what it
/// inherited, has a session of its own and closes its memory to others.
pub(super) fn stand_alone() -> io::Result<()> {
    inherited::drop_all()?;
    // Whatever is sent to the daemon's process group, by a terminal say, is for the daemon.
    setsid()?;
    Ok(prctl::set_dumpable(false)?)
}

/// Standard input, moved out of the way: what a run finds there is not the way to its launcher.
fn own_standard_input() -> io::Result<OwnedFd> {
    let control = io::stdin().as_fd().try_clone_to_owned()?;
    rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
    Ok(control)
}

/// One request with the socket that came with it; none if the daemon is gone.
fn next_request(control: &OwnedFd) -> io::Result<Option<(Make, OwnedFd)>> {
    let mut bytes = [0; LONGEST_REQUEST];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received =
        recvmsg(control, &mut [IoSliceMut::new(&mut bytes)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    let socket = ancillary.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut sockets) => sockets.next(),
        RecvAncillaryMessage::ScmCredentials(_) | _ => None,
    });
    match (Make::from_bytes(&bytes[..received.bytes]), socket) {
        (Some(make), Some(socket)) => Ok(Some((make, socket))),
        (None, _) | (_, None) => Ok(None),
    }
}

/// The hidden verb `try-cage`: says what of a cage can be had on this host, as JSON.
#[must_use]
pub fn try_cage() -> ExitCode {
    let ground = cage::trial::ground();
    let said = serde_json::to_writer(io::stdout(), &ground);
    if said.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// In the copy: hears its orders and becomes the server.
fn become_server(mut socket: UnixStream, born: Namespaces, ids: Ids, filters: &Filters) -> ExitCode {
    // Before there is anything to be found in this memory.
    let named = if born.user { keep_ids(ids) } else { Ok(()) };
    let signals = listen(born);
    let Ok(orders) = read::<Orders>(&mut socket) else { return ExitCode::from(NO_ORDERS) };
    let done = named.and(signals).and_then(|signals| {
        if let Some(signals) = signals {
            return serve(&orders, &socket, filters, signals);
        }
        prepare(&orders, filters).and_then(|mut command| {
            let error = command.exec();
            Err(own::cannot_at("execute", Path::new(&orders.program))(error))
        })
    });
    match done {
        Ok(code) => code,
        Err(failure) => match write(&mut socket, &Answer::Failed(failure)) {
            Ok(()) => ExitCode::from(NOT_EXECUTED),
            Err(_) => ExitCode::from(NO_ORDERS),
        },
    }
}

/// The signals by which servers are asked to end.
fn stops() -> SigSet {
    STOPS.into_iter().filter_map(|number| Signal::try_from(number).ok()).collect()
}

/// From here on signals are heard that were sent since this process was made: by what is to pass them on, if
/// it is the first of a pid namespace.
fn listen(born: Namespaces) -> Result<Option<Signals>, Failure> {
    let passed_on = STOPS.into_iter().filter(|signal| *signal != nix::libc::SIGKILL);
    let watched = passed_on.chain([nix::libc::SIGCHLD]);
    let signals = born.pid.then(|| Signals::new(watched)).transpose().map_err(cannot("watch for signals"))?;
    stops().thread_unblock().map_err(io::Error::from).map_err(cannot("hear signals"))?;
    Ok(signals)
}

/// In a user namespace of its own, where it is nobody yet. The files for that belong to root as long
/// as its memory is closed.
fn keep_ids(ids: Ids) -> Result<(), Failure> {
    let dumpable = |yes| prctl::set_dumpable(yes).map_err(io::Error::from);
    dumpable(true)
        .and_then(|()| ids.keep())
        .and_then(|()| dumpable(false))
        .map_err(cannot("use a user namespace"))
}

fn cannot(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Failure {
    move |error| Failure { doing: format!("cannot {}", doing.into()), errno: error.raw_os_error() }
}

/// Does everything that comes before the server itself: afterwards this process is in its own
/// session and group, is who the server shall be, and has what the server shall have.
fn prepare(orders: &Orders, filters: &Filters) -> Result<Command, Failure> {
    setsid().map_err(io::Error::from).map_err(cannot("make a session"))?;
    prctl::set_dumpable(false).map_err(io::Error::from).map_err(cannot("close its memory to others"))?;
    limit(orders)?;
    umask(Mode::from_bits_truncate(0o077));
    let account = orders.account.as_ref();
    cage::look(orders)?;
    if let Some(refused) = &orders.cage.refused {
        return Err(Failure { doing: refused.clone(), errno: None });
    }
    never_unsaid_as_root(account)?;
    own::make_kept(&orders.state_dir, account)?;
    own::make_passing(&orders.runtime_dir, account)?;
    // Both ends: the process never sees an end of file or a broken pipe, whoever reads.
    let stdin = fifo(&orders.stdin).map_err(cannot("open its standard input"))?;
    let output = fifo(&orders.output).map_err(cannot("open its standard output"))?;
    let error = orders.error.as_deref().map_or_else(|| output.try_clone(), fifo);
    let error = error.map_err(cannot("open its standard error"))?;
    let cage = &orders.cage;
    if cage.namespaces.mount {
        mounts::arrange(&mounts::Plan::of(orders), cage.namespaces, cage.proc)?;
    }
    if cage.bounding {
        cage::rights::empty_bounding_set().map_err(cannot("give up capabilities for good"))?;
    }
    if let Some(account) = account {
        become_account(account)?;
    }
    prctl::set_no_new_privs().map_err(io::Error::from).map_err(cannot("give up new privileges"))?;
    own::can_be_reached(&orders.state_dir)?;
    own::make_kept(&orders.state_dir.join("tmp"), None)?;
    std::env::set_current_dir(&orders.working_dir).map_err(own::cannot_at("enter", &orders.working_dir))?;
    cage::close(orders, filters, &[&stdin, &output, &error])?;
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

fn limit(orders: &Orders) -> Result<(), Failure> {
    let set = |what, most: u64| setrlimit(what, most, most).map_err(io::Error::from);
    super::memory::forbid_cores().map_err(cannot("forbid core dumps"))?;
    if let Some(files) = orders.open_files {
        set(Resource::RLIMIT_NOFILE, u64::from(files)).map_err(cannot("limit open files"))?;
    }
    Ok(())
}

/// Whoever is to be root is named so in the configuration: an order that names nobody never means
/// root.
fn never_unsaid_as_root(account: Option<&Account>) -> Result<(), Failure> {
    if account.is_some() || !Uid::effective().is_root() {
        return Ok(());
    }
    Err(Failure { doing: "cannot run as root where no account is named".into(), errno: None })
}

fn fifo(path: &Path) -> io::Result<File> {
    let flags = nix::libc::O_NOFOLLOW | nix::libc::O_CLOEXEC;
    OpenOptions::new().read(true).write(true).custom_flags(flags).open(path)
}

fn become_account(account: &Account) -> Result<(), Failure> {
    let name = &account.name;
    let gid = Gid::from_raw(account.gid);
    let groups = if account.is_reserved {
        // Not even those that /etc/group may list for an account of this name that is not there.
        setgroups(&[])
    } else {
        initgroups(&std::ffi::CString::new(name.as_str()).unwrap_or_default(), gid)
    };
    groups.map_err(io::Error::from).map_err(cannot(format!("take the groups of {name}")))?;
    setgid(gid).map_err(io::Error::from).map_err(cannot(format!("take the group of {name}")))?;
    setuid(Uid::from_raw(account.uid)).map_err(io::Error::from).map_err(cannot(format!("become {name}")))?;
    // A change of identity makes a process dumpable by its new owner's setting again (prctl(2)).
    prctl::set_dumpable(false).map_err(io::Error::from).map_err(cannot("close its memory to others"))
}

/// Starts the server as a child and lives as long as it does.
fn serve(
    orders: &Orders,
    socket: &UnixStream,
    filters: &Filters,
    mut signals: Signals,
) -> Result<ExitCode, Failure> {
    // An exit status cannot say that a signal ended the server, and the cage leaves no way to the file.
    let end = mounts::make_apart(&orders.end).map_err(cannot("make a file for how the server ends"))?;
    let mut command = prepare(orders, filters)?;
    let child =
        command.process_group(0).spawn().map_err(own::cannot_at("execute", Path::new(&orders.program)))?;
    drop(command);
    // Said by closing, as exec would; the descriptor itself goes with this process.
    socket.shutdown(std::net::Shutdown::Both).map_err(cannot("say that the server runs"))?;
    let exit = wait_for(Pid::from_raw(i32::try_from(child.id()).unwrap_or_default()), &mut signals);
    // Where it cannot be written, our own status says what it can.
    serde_json::to_writer(end, &exit).unwrap_or_default();
    let status = match exit {
        Exit::Status(status) => status & 0xff,
        // As shells say it.
        Exit::Signal(signal) => 128 + signal,
        Exit::AtLimit(..) | Exit::Unknown | Exit::NotStarted(_) => 0,
    };
    Ok(ExitCode::from(u8::try_from(status).unwrap_or(u8::MAX)))
}

/// Passes signals on to the server's group and reaps whatever ends here, until the server has.
fn wait_for(server: Pid, signals: &mut Signals) -> Exit {
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
                WaitStatus::Exited(pid, status) if pid == server => return Exit::Status(status),
                WaitStatus::Signaled(pid, signal, _) if pid == server => return Exit::Signal(signal as i32),
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
    Exit::Unknown
}
