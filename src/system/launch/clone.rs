//! A copy of this process, born inside its cgroup and its namespaces: clone3(2).
//!
//! Joining a cgroup afterwards, through `cgroup.procs`, waits for all processors of the machine to
//! pass a quiet moment: 10 to 16 ms here, each time. A process that is born there does not wait.
//! No safe library makes this call, so this module is the fence around it.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use nix::libc;

use crate::model::cage::Namespaces;

/// Which of the two this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// The one that called, with the pid of the copy.
    Original(i32),
    /// The copy.
    Copy,
}

/// Whose child the copy is, and who reaps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Parent {
    /// This process.
    Us,
    /// This process's parent.
    Ours,
}

/// `struct clone_args` of linux/sched.h, as of Linux 5.7.
#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Copies this process, which must have one thread, into `cgroup` and into new namespaces.
///
/// # Errors
///
/// When the kernel refuses: no more processes, no privilege for a namespace, no such cgroup.
pub(super) fn copy(cgroup: Option<&impl AsFd>, born: Namespaces, parent: Parent) -> io::Result<Side> {
    let mut flags = 0;
    for (is_wanted, flag) in [
        (born.user, libc::CLONE_NEWUSER),
        (born.mount, libc::CLONE_NEWNS | libc::CLONE_NEWIPC),
        (born.pid, libc::CLONE_NEWPID),
        // The copy ends with the signal that we end with, SIGCHLD, and none may be named here.
        (parent == Parent::Ours, libc::CLONE_PARENT),
    ] {
        flags |= if is_wanted { u64::from(flag.unsigned_abs()) } else { 0 };
    }
    let mut args = CloneArgs { flags, ..CloneArgs::default() };
    if parent == Parent::Us {
        args.exit_signal = u64::from(libc::SIGCHLD.unsigned_abs());
    }
    let cgroup = cgroup.map(AsFd::as_fd);
    if let Some(cgroup) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = u64::from(cgroup.as_raw_fd().unsigned_abs());
    }
    match clone3(&mut args) {
        // Filters of system calls cannot look into its arguments, so those of containers say that
        // there is no such call, and leave the older one, which knows all but cgroups.
        Err(error) if error.raw_os_error() == Some(libc::ENOSYS) && cgroup.is_none() => clone(&args),
        done => done,
    }
}

/// Whether a copy could be born in a cgroup: filters of containers deny the call that this takes.
///
/// # Errors
///
/// With what the kernel says of a call that does nothing, where it does not look at its arguments.
pub(in crate::system) fn try_out() -> io::Result<()> {
    // SAFETY: arguments of no size are refused (EINVAL) before anything of them is read.
    #[expect(unsafe_code, reason = "as below")]
    let error = match side(unsafe { libc::syscall(libc::SYS_clone3, 0_usize, 0_usize) }) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => return Ok(()),
        Err(error) => error,
        Ok(_) => io::ErrorKind::Unsupported.into(),
    };
    Err(io::Error::new(error.kind(), format!("no process can be born in a cgroup here: clone3: {error}")))
}

#[expect(unsafe_code, reason = "clone3 has no safe wrapper; see the module's head")]
fn clone3(args: &mut CloneArgs) -> io::Result<Side> {
    // SAFETY: the arguments are a valid clone_args of the size given. Without CLONE_VM and without
    // a stack of its own the copy goes on as after fork(2): in its own memory, from here. This
    // process has a single thread, so no lock can be held by one that is not copied.
    side(unsafe { libc::syscall(libc::SYS_clone3, &raw mut *args, size_of::<CloneArgs>()) })
}

#[expect(unsafe_code, reason = "as above, for clone(2) without a stack, which no safe library offers")]
fn clone(args: &CloneArgs) -> io::Result<Side> {
    let flags = args.flags | args.exit_signal;
    // SAFETY: as above; the pointers that follow are looked at only with flags that are not set,
    // so their order, which differs between architectures, does not matter.
    side(unsafe { libc::syscall(libc::SYS_clone, flags, 0_usize, 0_usize, 0_usize, 0_usize) })
}

fn side(pid: libc::c_long) -> io::Result<Side> {
    match pid {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Side::Copy),
        pid => Ok(Side::Original(i32::try_from(pid).map_err(io::Error::other)?)),
    }
}
