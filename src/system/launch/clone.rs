//! A copy of this process, born inside its cgroup and its pid namespace: clone3(2).
//!
//! Joining a cgroup afterwards, through `cgroup.procs`, waits for all processors of the machine to
//! pass a quiet moment: 10 to 16 ms here, each time. A process that is born there does not wait.
//! No safe library makes this call, so this module is the fence around it.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::libc;

/// Which of the two this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// The one that called, with the pid of the copy.
    Original(i32),
    /// The copy.
    Copy,
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

/// Copies this process, which must have one thread. The copy is a child of this process's parent,
/// who reaps it; it is in `cgroup`, and the first of a new pid namespace if asked for.
///
/// # Errors
///
/// When the kernel refuses: no more processes, no privilege for a namespace, no such cgroup.
#[expect(unsafe_code, reason = "clone3 has no safe wrapper; see the module's head")]
pub(super) fn copy(cgroup: Option<BorrowedFd<'_>>, namespace: bool) -> io::Result<Side> {
    // With CLONE_PARENT the copy ends with the signal that we end with, SIGCHLD, and none may be
    // named here.
    let mut flags = u64::from(libc::CLONE_PARENT.unsigned_abs());
    if namespace {
        flags |= u64::from(libc::CLONE_NEWPID.unsigned_abs());
    }
    let mut args = CloneArgs::default();
    if let Some(cgroup) = cgroup {
        flags |= CLONE_INTO_CGROUP;
        args.cgroup = u64::from(cgroup.as_raw_fd().unsigned_abs());
    }
    args.flags = flags;
    // SAFETY: the arguments are a valid clone_args of the size given. Without CLONE_VM and without
    // a stack of its own the copy goes on as after fork(2): in its own memory, from here. This
    // process has a single thread, so no lock can be held by one that is not copied.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of::<CloneArgs>()) };
    match pid {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Side::Copy),
        pid => Ok(Side::Original(i32::try_from(pid).map_err(io::Error::other)?)),
    }
}
