//! The filter of system calls (seccomp(2)): what no server needs, and what would reach other users'
//! runs where nothing else stops it. Whoever tries is told `EPERM`, not killed.
//!
//! It is a list of what is denied. A list of what is allowed would break servers with every release
//! of a runtime; what is new in a kernel and dangerous is to be added here.
//!
//! The rules are put together once, in the long-lived launcher, and for each run one program is made
//! of those it gets: the kernel takes longer to translate several, and runs all of them at every
//! call. It begins with the architecture and, on x86-64, with the second set of numbers that its kernel may know (x32), so
//! that neither is a way around. The rules stand in the order of their numbers, in stretches that are passed
//! over whole: when a filter is set, the kernel walks it once for each call that there is
//! (`seccomp_cache_prepare`), and through a plain list that takes a seventh of a millisecond of every start.

use nix::libc;
use seccompiler::{apply_filter, sock_filter};

use crate::model::cage::Calls;

/// The rules, by what they are for.
#[derive(Debug)]
pub(in crate::system::launch) struct Filters {
    always: Vec<Rule>,
    namespaces: Vec<Rule>,
    unix_sockets: Vec<Rule>,
    others: Vec<Rule>,
    modes: Vec<Rule>,
    ipc: Vec<Rule>,
}

impl Filters {
    pub(in crate::system::launch) fn new() -> Self {
        Self {
            always: always(),
            namespaces: namespaces(),
            unix_sockets: vec![Rule::If(libc::SYS_socket, 0, !0, Is::Equal, word(libc::AF_UNIX))],
            others: others(),
            modes: modes(),
            ipc: ipc(),
        }
    }

    /// Filters this process, and all that will come of it, for good.
    pub(super) fn apply(&self, which: Calls) -> Result<(), seccompiler::Error> {
        apply_filter(&program(&self.rules(which)))
    }

    fn rules(&self, which: Calls) -> Vec<Rule> {
        let groups = [
            (true, &self.always),
            (which.namespaces, &self.namespaces),
            (which.unix_sockets, &self.unix_sockets),
            (which.others, &self.others),
            (which.modes, &self.modes),
            (which.ipc, &self.ipc),
        ];
        groups.into_iter().filter(|(is_wanted, _)| *is_wanted).flat_map(|(_, rules)| rules).copied().collect()
    }
}

/// How an argument is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Is {
    Equal,
    Other,
    /// Any of the bits.
    Any,
}

/// What is denied. Arguments are compared in their lower 32 bits: those that are looked at are ints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    Never(libc::c_long),
    /// As if the kernel did not have it, so that callers take the older way.
    Unknown(libc::c_long),
    /// If this argument, masked, is so.
    If(libc::c_long, u8, u32, Is, u32),
    /// If this pointer is not null.
    IfGiven(libc::c_long, u8),
}

#[expect(clippy::cast_sign_loss, reason = "the kernel compares the same bits")]
const fn word(int: libc::c_int) -> u32 {
    int as u32
}

/// Numbers that are the same everywhere since Linux 5.1, for a library that does not name them.
mod new {
    use nix::libc::{c_int, c_long};

    pub(super) const F_SETDELEG: c_int = 1024 + 16;
    pub(super) const PIDFD_GETFD: c_long = 438;
    pub(super) const PROCESS_MADVISE: c_long = 440;
    pub(super) const QUOTACTL_FD: c_long = 443;
    pub(super) const PROCESS_MRELEASE: c_long = 448;
    pub(super) const FCHMODAT2: c_long = 452;
    pub(super) const SETXATTRAT: c_long = 463;
    pub(super) const REMOVEXATTRAT: c_long = 466;
    pub(super) const OPEN_TREE_ATTR: c_long = 467;
    pub(super) const FILE_SETATTR: c_long = 469;
}

fn always() -> Vec<Rule> {
    use Rule::{If, Never};
    let mut rules: Vec<Rule> = [
        // Keys are kept by uid, and survive their process.
        libc::SYS_add_key,
        libc::SYS_keyctl,
        libc::SYS_request_key,
        // Its operations pass no filter of system calls.
        libc::SYS_io_uring_setup,
        libc::SYS_io_uring_enter,
        libc::SYS_io_uring_register,
        // Other processes' memory and descriptors.
        libc::SYS_ptrace,
        libc::SYS_process_vm_readv,
        libc::SYS_process_vm_writev,
        libc::SYS_kcmp,
        new::PIDFD_GETFD,
        new::PROCESS_MADVISE,
        new::PROCESS_MRELEASE,
        libc::SYS_perf_event_open,
        libc::SYS_userfaultfd,
        libc::SYS_bpf,
        // The machine.
        libc::SYS_init_module,
        libc::SYS_finit_module,
        libc::SYS_delete_module,
        libc::SYS_kexec_load,
        libc::SYS_kexec_file_load,
        libc::SYS_reboot,
        libc::SYS_swapon,
        libc::SYS_swapoff,
        libc::SYS_acct,
        libc::SYS_quotactl,
        new::QUOTACTL_FD,
        libc::SYS_syslog,
        libc::SYS_sethostname,
        libc::SYS_setdomainname,
        libc::SYS_settimeofday,
        libc::SYS_clock_settime,
        libc::SYS_fanotify_init,
        // A file by its number, past every directory.
        libc::SYS_open_by_handle_at,
        // Mounts.
        libc::SYS_mount,
        libc::SYS_umount2,
        libc::SYS_pivot_root,
        libc::SYS_chroot,
        libc::SYS_fsopen,
        libc::SYS_fsconfig,
        libc::SYS_fsmount,
        libc::SYS_fspick,
        libc::SYS_move_mount,
        libc::SYS_open_tree,
        libc::SYS_mount_setattr,
        new::OPEN_TREE_ATTR,
    ]
    .map(Never)
    .into();
    // Its flags are in memory, where no filter can look. One of them begins a process in another's cgroup,
    // past every mount that is read-only (CLONE_INTO_CGROUP). C libraries fall back to clone.
    rules.push(Rule::Unknown(libc::SYS_clone3));
    #[cfg(target_arch = "x86_64")]
    rules.extend([libc::SYS_iopl, libc::SYS_ioperm, libc::SYS_uselib].map(Never));
    // Who opens a file waits up to 45 s for whoever holds a lease on it: an account's programs, held up by each
    // of its servers, past read-only mounts. Linux 6.19 has the same for directories.
    let leases = [libc::F_SETLEASE, new::F_SETDELEG].map(word);
    rules.extend(leases.map(|set| If(libc::SYS_fcntl, 1, !0, Is::Equal, set)));
    // The first process of a pid namespace says how the server ended, as long as it may write a file.
    rules.push(If(libc::SYS_prlimit64, 0, !0, Is::Equal, 1));
    // To type on somebody's terminal.
    let typing = [libc::TIOCSTI, libc::TIOCLINUX].map(|request| u32::try_from(request).unwrap_or_default());
    rules.extend(typing.map(|request| If(libc::SYS_ioctl, 1, !0, Is::Equal, request)));
    rules
}

fn namespaces() -> Vec<Rule> {
    let flags = libc::CLONE_NEWUSER
        | libc::CLONE_NEWNS
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWNET
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWUTS
        | libc::CLONE_NEWCGROUP;
    vec![
        Rule::If(libc::SYS_clone, 0, word(flags), Is::Any, 0),
        Rule::Never(libc::SYS_unshare),
        Rule::Never(libc::SYS_setns),
    ]
}

/// What acts on another process by its pid; 0 is the caller.
fn others() -> Vec<Rule> {
    const PROCESS: u32 = 0;
    const IOPRIO_PROCESS: u32 = 1;
    let first = [
        libc::SYS_prlimit64,
        libc::SYS_sched_setaffinity,
        libc::SYS_sched_setscheduler,
        libc::SYS_sched_setparam,
        libc::SYS_sched_setattr,
        libc::SYS_migrate_pages,
        libc::SYS_move_pages,
    ];
    let mut rules: Vec<Rule> = first.map(|number| Rule::If(number, 0, !0, Is::Other, 0)).into();
    for (number, process) in [(libc::SYS_setpriority, PROCESS), (libc::SYS_ioprio_set, IOPRIO_PROCESS)] {
        rules.push(Rule::If(number, 0, !0, Is::Other, process));
        rules.push(Rule::If(number, 1, !0, Is::Other, 0));
    }
    rules
}

/// By path only: what could be opened may be changed.
fn modes() -> Vec<Rule> {
    let mut rules: Vec<Rule> = [
        libc::SYS_fchmodat,
        new::FCHMODAT2,
        libc::SYS_fchownat,
        libc::SYS_setxattr,
        libc::SYS_lsetxattr,
        libc::SYS_removexattr,
        libc::SYS_lremovexattr,
        new::SETXATTRAT,
        new::REMOVEXATTRAT,
        new::FILE_SETATTR,
        // Landlock knows it from ABI 3 on.
        libc::SYS_truncate,
    ]
    .map(Rule::Never)
    .into();
    // Without a path it is about what is open.
    rules.push(Rule::IfGiven(libc::SYS_utimensat, 1));
    #[cfg(target_arch = "x86_64")]
    rules.extend(
        [
            libc::SYS_chmod,
            libc::SYS_chown,
            libc::SYS_lchown,
            libc::SYS_utime,
            libc::SYS_utimes,
            libc::SYS_futimesat,
        ]
        .map(Rule::Never),
    );
    rules
}

fn ipc() -> Vec<Rule> {
    [
        libc::SYS_shmget,
        libc::SYS_shmat,
        libc::SYS_shmctl,
        libc::SYS_semget,
        libc::SYS_semop,
        libc::SYS_semtimedop,
        libc::SYS_semctl,
        libc::SYS_msgget,
        libc::SYS_msgsnd,
        libc::SYS_msgrcv,
        libc::SYS_msgctl,
        libc::SYS_mq_open,
        libc::SYS_mq_unlink,
    ]
    .map(Rule::Never)
    .into()
}

// linux/bpf_common.h, linux/seccomp.h
const LOAD: u16 = 0x20;
const AND: u16 = 0x54;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_FROM: u16 = 0x35;
const RETURN: u16 = 0x06;
/// So many calls with rules stand in a stretch; about as many stretches then make the shortest walk.
const STRETCH: usize = 8;
const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const ARGUMENTS: u32 = 16;

#[cfg(target_arch = "x86_64")]
const NATIVE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const NATIVE: u32 = 0xc000_00b7;

/// From here on x86-64 has the numbers of x32, and nobody has any of their own.
const X32: u32 = 0x4000_0000;

fn error(number: libc::c_int) -> u32 {
    libc::SECCOMP_RET_ERRNO | word(number)
}

/// A program that answers all of these rules, for calls of this architecture alone.
fn program(rules: &[Rule]) -> Vec<sock_filter> {
    let deny = error(libc::EPERM);
    let mut all = vec![
        step(LOAD, ARCH, 0, 0),
        step(JUMP_EQUAL, NATIVE, 1, 0),
        step(RETURN, deny, 0, 0),
        step(LOAD, NUMBER, 0, 0),
        step(JUMP_FROM, X32, 0, 1),
        step(RETURN, deny, 0, 0),
    ];
    let mut rules = rules.to_vec();
    rules.sort_by_key(Rule::number);
    let by_number: Vec<&[Rule]> = rules.chunk_by(|one, next| one.number() == next.number()).collect();
    let mut stretches = by_number.chunks(STRETCH).peekable();
    while let Some(stretch) = stretches.next() {
        let steps: Vec<sock_filter> = stretch.concat().iter().flat_map(Rule::steps).collect();
        let next = stretches.peek().and_then(|rules| rules.first()?.first());
        // Over all of it and the answer behind it; one too long for a jump is gone through.
        match next.zip(u8::try_from(steps.len() + 1).ok()) {
            Some((next, past)) => {
                all.push(step(JUMP_FROM, next.number(), past, 0));
                all.extend(steps);
                all.push(step(RETURN, ALLOW, 0, 0));
            }
            None => all.extend(steps),
        }
    }
    all.push(step(RETURN, ALLOW, 0, 0));
    all
}

const fn step(code: u16, k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { code, jt, jf, k }
}

impl Rule {
    /// The call it is about.
    fn number(&self) -> u32 {
        match *self {
            Self::Never(number) | Self::Unknown(number) | Self::If(number, ..) | Self::IfGiven(number, _) => {
                u32::try_from(number).unwrap_or(u32::MAX)
            }
        }
    }

    /// What it is in a program that has loaded the number; a call that it does not deny goes on behind it.
    fn steps(&self) -> Vec<sock_filter> {
        let is_it = |skip| step(JUMP_EQUAL, self.number(), 0, skip);
        let deny = step(RETURN, error(libc::EPERM), 0, 0);
        // The number again, for the rules that follow.
        let again = step(LOAD, NUMBER, 0, 0);
        let half = |argument: u8, half: u32| step(LOAD, ARGUMENTS + 8 * u32::from(argument) + half, 0, 0);
        match *self {
            Self::Never(_) => vec![is_it(1), deny],
            Self::Unknown(_) => vec![is_it(1), step(RETURN, error(libc::ENOSYS), 0, 0)],
            Self::If(_, argument, mask, is, value) => {
                let (equal, other) = match is {
                    Is::Equal => (0, 1),
                    Is::Other | Is::Any => (1, 0),
                };
                let is_so = step(JUMP_EQUAL, value, equal, other);
                vec![is_it(5), half(argument, 0), step(AND, mask, 0, 0), is_so, deny, again]
            }
            Self::IfGiven(_, argument) => {
                let (lower, upper) = (step(JUMP_EQUAL, 0, 0, 2), step(JUMP_EQUAL, 0, 1, 0));
                vec![is_it(6), half(argument, 0), lower, half(argument, 4), upper, deny, again]
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a program answers, as the kernel would run it.
    fn answer(program: &[sock_filter], arch: u32, number: u32, arguments: [u64; 6]) -> u32 {
        let (mut at, mut word) = (0, 0);
        loop {
            let step = &program[at];
            at += 1;
            match step.code {
                LOAD => {
                    word = match step.k {
                        NUMBER => number,
                        ARCH => arch,
                        k => {
                            let argument = arguments[(k - ARGUMENTS) as usize / 8];
                            let half = argument >> if (k - ARGUMENTS) % 8 == 4 { 32 } else { 0 };
                            u32::try_from(half & u64::from(u32::MAX)).unwrap()
                        }
                    }
                }
                AND => word &= step.k,
                JUMP_EQUAL => at += usize::from(if word == step.k { step.jt } else { step.jf }),
                JUMP_FROM => at += usize::from(if word >= step.k { step.jt } else { step.jf }),
                RETURN => return step.k,
                other => panic!("no such step: {other:x}"),
            }
        }
    }

    fn native(program: &[sock_filter], number: libc::c_long, arguments: [u64; 6]) -> u32 {
        answer(program, NATIVE, u32::try_from(number).unwrap(), arguments)
    }

    const NO: u32 = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;

    #[test]
    fn what_is_on_the_list_is_denied_and_the_rest_is_not() {
        let all = Filters::new();
        for number in [libc::SYS_add_key, libc::SYS_ptrace, libc::SYS_mount, libc::SYS_bpf] {
            assert_eq!(native(&program(&all.always), number, [0; 6]), NO);
        }
        for number in [libc::SYS_read, libc::SYS_openat, libc::SYS_execve, libc::SYS_futex] {
            for program in [
                &program(&all.always),
                &program(&all.namespaces),
                &program(&all.unix_sockets),
                &program(&all.others),
                &program(&all.modes),
                &program(&all.ipc),
            ] {
                assert_eq!(native(program, number, [7; 6]), ALLOW);
            }
        }
        assert_eq!(native(&program(&all.ipc), libc::SYS_shmget, [0; 6]), NO);
    }

    #[test]
    fn arguments_decide_where_a_call_is_good_for_more() {
        let all = Filters::new();
        let with = |at: usize, value: u64| {
            let mut arguments = [0; 6];
            arguments[at] = value;
            arguments
        };
        let family = |family: i32| with(0, u64::from(word(family)));
        assert_eq!(native(&program(&all.unix_sockets), libc::SYS_socket, family(libc::AF_UNIX)), NO);
        // The kernel looks at the lower half alone, and so must the filter.
        assert_eq!(native(&program(&all.unix_sockets), libc::SYS_socket, with(0, 1 << 40 | 1)), NO);
        assert_eq!(native(&program(&all.unix_sockets), libc::SYS_socket, family(libc::AF_INET)), ALLOW);
        assert_eq!(native(&program(&all.unix_sockets), libc::SYS_socketpair, family(libc::AF_UNIX)), ALLOW);

        let thread = u64::from(word(libc::CLONE_VM | libc::CLONE_THREAD | libc::CLONE_SIGHAND));
        assert_eq!(native(&program(&all.namespaces), libc::SYS_clone, with(0, thread)), ALLOW);
        let user = u64::from(word(libc::CLONE_NEWUSER));
        assert_eq!(native(&program(&all.namespaces), libc::SYS_clone, with(0, thread | user)), NO);
        assert_eq!(native(&program(&all.always), libc::SYS_clone3, [0; 6]), error(libc::ENOSYS));

        assert_eq!(native(&program(&all.always), libc::SYS_fcntl, with(1, 1024)), NO, "F_SETLEASE");
        assert_eq!(native(&program(&all.always), libc::SYS_prlimit64, with(0, 1)), NO);
        assert_eq!(native(&program(&all.others), libc::SYS_prlimit64, with(0, 0)), ALLOW);
        assert_eq!(native(&program(&all.others), libc::SYS_prlimit64, with(0, 17)), NO);
        assert_eq!(native(&program(&all.others), libc::SYS_setpriority, [0; 6]), ALLOW);
        assert_eq!(native(&program(&all.others), libc::SYS_setpriority, with(0, 2)), NO);
        assert_eq!(native(&program(&all.others), libc::SYS_setpriority, with(1, 17)), NO);
        assert_eq!(native(&program(&all.others), libc::SYS_ioprio_set, with(0, 1)), ALLOW);

        assert_eq!(native(&program(&all.modes), libc::SYS_utimensat, [3, 0, 0, 0, 0, 0]), ALLOW);
        for path in [1, 1 << 32] {
            assert_eq!(native(&program(&all.modes), libc::SYS_utimensat, with(1, path)), NO);
        }
        assert_eq!(native(&program(&all.modes), libc::SYS_fchmod, [0; 6]), ALLOW);
        assert_eq!(native(&program(&all.always), libc::SYS_ioctl, with(1, libc::TIOCSTI)), NO);
        assert_eq!(native(&program(&all.always), libc::SYS_ioctl, with(1, libc::TIOCGWINSZ)), ALLOW);
    }

    #[test]
    fn a_call_is_answered_by_its_own_rules_whatever_others_there_are() {
        let all = Filters::new();
        let any = |bits: u8| Calls {
            namespaces: bits & 1 != 0,
            unix_sockets: bits & 2 != 0,
            others: bits & 4 != 0,
            modes: bits & 8 != 0,
            ipc: bits & 16 != 0,
        };
        for which in (0..32).map(any) {
            let rules = all.rules(which);
            let whole = program(&rules);
            assert!(whole.len() < 4096, "the most that the kernel takes (BPF_MAXINSNS)");
            for number in 0..1024 {
                let own: Vec<Rule> = rules.iter().filter(|rule| rule.number() == number).copied().collect();
                let own = program(&own);
                for argument in [0, 1, 2, 17, 0x5412, 1 << 32, u64::MAX] {
                    for arguments in [[argument; 6], [0, argument, 0, 0, 0, 0], [argument, 0, 0, 0, 0, 0]] {
                        let (said, alone) = (
                            answer(&whole, NATIVE, number, arguments),
                            answer(&own, NATIVE, number, arguments),
                        );
                        assert_eq!(said, alone, "{number} {arguments:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn another_set_of_numbers_is_no_way_around() {
        let all = Filters::new();
        let i386 = 0x4000_0003;
        assert_eq!(answer(&program(&all.always), i386, 3, [0; 6]), NO);
        let x32 = X32 | u32::try_from(libc::SYS_ptrace).unwrap();
        assert_eq!(answer(&program(&all.always), NATIVE, x32, [0; 6]), NO);
    }
}
