//! An MCP server that attacks: what a hostile or hijacked server could try against another user.
//!
//! `intruder --port N` serves three tools. `prepare` leaves what others might reach (a file in the
//! state directory and in `/tmp`, System V shared memory, Unix sockets by path and by name).
//! `attack` takes `{"attack": "read", "path": "/…", "pid": 1, "port": 1}` and tries it in a fresh
//! process; its answer begins with `open` if the attack got through, else with `closed`. `pid` says
//! its own as the kernel's first `/proc` shows it.
//!
//! `intruder --try NAME [PATH [PID [PORT [TEXT]]]]` does the same outside any server: for comparison, and as
//! whoever is logged in. `intruder --hold PATH|PORT NUMBER` opens so many connections there, says how many
//! it has, and holds them until its input ends.
//! `intruder --come-round PID` makes a process of that pid, says it when it is there, and ends it when its
//! input ends.
//! `intruder --without namespaces,landlock PROGRAM ARG…` runs a program as on a kernel that lacks
//! those; `"user namespaces"`, for root alone, as on one whose administrator forbids them.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program of its own")]
#![expect(clippy::disallowed_methods, reason = "an attacker keeps to no rule")]

mod common;

use std::collections::BTreeMap;
use std::error::Error;
use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, IoSliceMut, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use nix::libc;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};
use serde_json::{Value, json};

use common::{Outcome, Tools};

/// The key of the shared memory that `prepare` makes.
const SHM_KEY: usize = 0x6d63_7073;
/// The directory of what `prepare` leaves in `/tmp`, and the name of its abstract socket; both end
/// with the number of the port, so that tests do not meet each other's.
const LEFT: &str = "mcpsup-intruder-";

/// How long an answer is waited for.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(4);

/// A system call with numbers for arguments; the answer, or why not.
fn call(number: libc::c_long, arguments: [usize; 4]) -> io::Result<i64> {
    let [a, b, c, d] = arguments;
    call_with(number, [a, b, c, d, 0])
}

/// The same with addresses of what the caller holds.
#[expect(unsafe_code, reason = "the calls that are attacked have no safe wrapper")]
fn call_with(number: libc::c_long, arguments: [usize; 5]) -> io::Result<i64> {
    let [a, b, c, d, last] = arguments;
    // SAFETY: every caller passes numbers, null pointers, and addresses of what it holds meanwhile, is as
    // large as the call wants and is only read. None of these calls writes through a null pointer: the
    // kernel answers EFAULT.
    let answer = unsafe { libc::syscall(number, a, b, c, d, last) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(answer) }
}

/// What is attacked.
#[derive(Debug, Clone, Default)]
struct Aim {
    path: PathBuf,
    pid: i32,
    port: u16,
    text: String,
}

impl Aim {
    fn of(&self, file: &str) -> PathBuf {
        format!("/proc/{}/{file}", self.pid).into()
    }

    fn number(&self) -> usize {
        usize::try_from(self.pid).unwrap_or(0)
    }

    fn process(&self) -> Result<rustix::process::Pid, Box<dyn Error>> {
        rustix::process::Pid::from_raw(self.pid).ok_or_else(|| "no pid".into())
    }
}

type Try = Result<(), Box<dyn Error>>;
type Attack = (&'static str, fn(&Aim) -> Try);

/// All attacks, by name.
const ATTACKS: &[Attack] = &[
    ("read", |aim| read(&aim.path)),
    ("find", |aim| {
        let entries = fs::read_dir(aim.path.parent().ok_or("which directory?")?)?;
        let names: Vec<_> = entries.flatten().map(|entry| entry.file_name()).collect();
        match names.iter().find(|name| Some(name.as_os_str()) == aim.path.file_name()) {
            Some(_) => Ok(()),
            None => Err(format!("it is not among {names:?}").into()),
        }
    }),
    ("write", |aim| {
        Ok(OpenOptions::new().write(true).create(true).truncate(false).open(&aim.path).map(drop)?)
    }),
    ("stat", |aim| Ok(fs::symlink_metadata(&aim.path).map(drop)?)),
    ("chmod", |aim| Ok(fs::set_permissions(&aim.path, fs::Permissions::from_mode(0o600))?)),
    // What may be read is its owner's to change, whatever it was opened for.
    ("change the mode of", |aim| {
        let file = File::open(&aim.path)?;
        Ok(file.set_permissions(file.metadata()?.permissions())?)
    }),
    // Who opens it meanwhile waits for `/proc/sys/fs/lease-break-time`.
    ("hold up", |aim| {
        let file = File::open(&aim.path)?;
        let (file, set) = (usize::try_from(file.as_raw_fd())?, usize::try_from(libc::F_SETLEASE)?);
        Ok(call(libc::SYS_fcntl, [file, set, usize::try_from(libc::F_WRLCK)?, 0]).map(drop)?)
    }),
    ("touch", |aim| {
        let now = rustix::fs::Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_NOW };
        let times = rustix::fs::Timestamps { last_access: now, last_modification: now };
        Ok(rustix::fs::utimensat(rustix::fs::CWD, &aim.path, &times, rustix::fs::AtFlags::empty())?)
    }),
    // Put back at once, so that where it succeeds nobody misses anything.
    ("take away", |aim| {
        let mut elsewhere = aim.path.clone().into_os_string();
        elsewhere.push(".taken");
        fs::rename(&aim.path, &elsewhere)?;
        Ok(fs::rename(&elsewhere, &aim.path)?)
    }),
    ("hard link", |aim| {
        let own = format!("linked-{}", std::process::id());
        fs::hard_link(&aim.path, &own)?;
        Ok(fs::remove_file(own)?)
    }),
    ("symbolic link", |aim| {
        std::os::unix::fs::symlink("/etc/hostname", &aim.path)?;
        Ok(fs::remove_file(&aim.path)?)
    }),
    ("listen in", |aim| {
        let mut options = OpenOptions::new();
        let options = options.read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOFOLLOW);
        Ok(options.open(&aim.path).map(drop)?)
    }),
    ("speak in", |aim| {
        let mut options = OpenOptions::new();
        let options = options.write(true).custom_flags(libc::O_NONBLOCK | libc::O_NOFOLLOW);
        Ok(options.open(&aim.path).map(drop)?)
    }),
    // The attack's own process, for the moment that is left of it.
    ("join a cgroup", |aim| Ok(fs::write(aim.path.join("cgroup.procs"), "0")?)),
    ("begin in a cgroup", |aim| begin_in(&aim.path)),
    ("ask the daemon", |aim| {
        let mut socket = UnixStream::connect(&aim.path)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        said_yes(&mut socket, &aim.text)
    }),
    ("ask at the door", |aim| {
        let mut socket = TcpStream::connect(("127.0.0.1", aim.port))?;
        socket.set_read_timeout(Some(PATIENCE))?;
        said_yes(&mut socket, &aim.text)
    }),
    // To whom it is given stands in the place of the pid.
    ("claim a connection", |aim| {
        let mut socket = TcpStream::connect(("127.0.0.1", aim.port))?;
        socket.set_read_timeout(Some(PATIENCE))?;
        std::os::unix::fs::fchown(&socket, Some(u32::try_from(aim.pid)?), None)?;
        said_yes(&mut socket, &aim.text)
    }),
    ("watch", |aim| {
        use rustix::fs::inotify;
        let notify = inotify::init(inotify::CreateFlags::empty())?;
        Ok(inotify::add_watch(&notify, &aim.path, inotify::WatchFlags::CREATE).map(drop)?)
    }),
    ("environ", |aim| read(&aim.of("environ"))),
    ("cmdline", |aim| read(&aim.of("cmdline"))),
    ("maps", |aim| read(&aim.of("maps"))),
    ("descriptors' positions", |aim| Ok(fs::read_dir(aim.of("fdinfo")).map(drop)?)),
    ("namespaces", |aim| Ok(File::open(aim.of("ns/mnt")).map(drop)?)),
    ("killing first", |aim| Ok(OpenOptions::new().write(true).open(aim.of("oom_score_adj")).map(drop)?)),
    ("comparing", |aim| {
        const FILES: usize = 2;
        let own = usize::try_from(std::process::id())?;
        Ok(call(libc::SYS_kcmp, [own, aim.number(), FILES, 0]).map(drop)?)
    }),
    ("memory", |aim| {
        // Before the address is looked at, it is decided who may.
        let memory = File::open(aim.of("mem"))?;
        memory.read_at(&mut [0], 1 << 12).map(drop).or_else(of_no_matter)
    }),
    ("root", |aim| Ok(fs::read_dir(aim.of("root")).map(drop)?)),
    ("descriptors", |aim| Ok(fs::read_link(aim.of("fd/0")).map(drop)?)),
    ("process_vm_readv", |aim| {
        let mut byte = [0];
        let remote = [nix::sys::uio::RemoteIoVec { base: 1 << 12, len: 1 }];
        let pid = nix::unistd::Pid::from_raw(aim.pid);
        let read = nix::sys::uio::process_vm_readv(pid, &mut [IoSliceMut::new(&mut byte)], &remote);
        read.map(drop).map_err(io::Error::from).or_else(of_no_matter)
    }),
    ("ptrace", |aim| {
        const SEIZE: usize = 0x4206;
        Ok(call(libc::SYS_ptrace, [SEIZE, aim.number(), 0, 0]).map(drop)?)
    }),
    ("pidfd_getfd", |aim| {
        let process = rustix::process::pidfd_open(aim.process()?, rustix::process::PidfdFlags::empty())?;
        let taken = rustix::process::pidfd_getfd(process, 0, rustix::process::PidfdGetfdFlags::empty());
        Ok(taken.map(drop)?)
    }),
    ("counters", |aim| {
        // struct perf_event_attr: a software clock, of user code only, as everybody may have of their own.
        const SIZE: usize = 112;
        const NO_KERNEL: u64 = 1 << 5 | 1 << 6;
        let attributes: [u64; SIZE / 8] = std::array::from_fn(|at| {
            [(SIZE as u64) << 32 | 1, 0, 0, 0, 0, NO_KERNEL].get(at).copied().unwrap_or(0)
        });
        let any = usize::MAX;
        let arguments = [attributes.as_ptr() as usize, aim.number(), any, any, 0];
        Ok(call_with(libc::SYS_perf_event_open, arguments).map(drop)?)
    }),
    ("signal", |aim| Ok(rustix::process::kill_process(aim.process()?, rustix::process::Signal::CONT)?)),
    ("signal to a thread", |aim| {
        let cont = usize::try_from(libc::SIGCONT)?;
        Ok(call(libc::SYS_tgkill, [aim.number(), aim.number(), cont, 0]).map(drop)?)
    }),
    ("signal by pidfd", |aim| {
        let process = rustix::process::pidfd_open(aim.process()?, rustix::process::PidfdFlags::empty())?;
        Ok(rustix::process::pidfd_send_signal(process, rustix::process::Signal::CONT)?)
    }),
    ("disk priority", |aim| {
        const BEST_EFFORT: usize = (2 << 13) | 4;
        Ok(call(libc::SYS_ioprio_set, [1, aim.number(), BEST_EFFORT, 0]).map(drop)?)
    }),
    ("limits", |aim| Ok(call(libc::SYS_prlimit64, [aim.number(), 0, 0, 0]).map(drop)?)),
    ("priority", |aim| Ok(call(libc::SYS_setpriority, [0, aim.number(), 5, 0]).map(drop)?)),
    ("processors", |aim| {
        let now = rustix::thread::sched_getaffinity(None)?;
        Ok(rustix::thread::sched_setaffinity(Some(aim.process()?), &now)?)
    }),
    ("keyring", |_| {
        const USER_KEYRING: usize = usize::MAX - 3;
        Ok(call(libc::SYS_keyctl, [0, USER_KEYRING, 1, 0]).map(drop)?)
    }),
    ("shared memory", |_| Ok(call(libc::SYS_shmget, [SHM_KEY, 4096, 0, 0]).map(drop)?)),
    ("message queue", |aim| {
        let name = CString::new(format!("{LEFT}{}-{}", aim.port, std::process::id()))?;
        let flags = usize::try_from(libc::O_RDWR | libc::O_CREAT)?;
        call(libc::SYS_mq_open, [name.as_ptr() as usize, flags, 0o600, 0])?;
        Ok(call(libc::SYS_mq_unlink, [name.as_ptr() as usize, 0, 0, 0]).map(drop)?)
    }),
    ("fanotify", |aim| {
        // By handles, as who has no rights may.
        const REPORT_FID: usize = 0x200;
        const ADD: usize = 1;
        const CREATE: usize = 0x100 | 0x4000_0000;
        let notify = usize::try_from(call(libc::SYS_fanotify_init, [REPORT_FID, 0, 0, 0])?)?;
        if aim.path.as_os_str().is_empty() {
            return Ok(());
        }
        let path = CString::new(aim.path.as_os_str().as_encoded_bytes())?;
        let from_here = usize::MAX - 99;
        let arguments = [notify, ADD, CREATE, from_here, path.as_ptr() as usize];
        Ok(call_with(libc::SYS_fanotify_mark, arguments).map(drop)?)
    }),
    ("io_uring", |_| call(libc::SYS_io_uring_setup, [1, 0, 0, 0]).map(drop).or_else(of_no_matter)),
    ("user namespace", |_| {
        Ok(call(libc::SYS_unshare, [usize::try_from(libc::CLONE_NEWUSER)?, 0, 0, 0]).map(drop)?)
    }),
    ("unix socket", |aim| Ok(UnixStream::connect(&aim.path).map(drop)?)),
    ("abstract socket", |aim| {
        let name = SocketAddr::from_abstract_name(format!("{LEFT}{}", aim.port))?;
        Ok(UnixStream::connect_addr(&name).map(drop)?)
    }),
    ("tcp", |aim| Ok(TcpStream::connect(("127.0.0.1", aim.port)).map(drop)?)),
    ("listen", |aim| Ok(TcpListener::bind(("127.0.0.1", aim.port)).map(drop)?)),
    ("new privileges", |_| {
        let status = fs::read_to_string("/proc/self/status")?;
        let says = |field: &str| status.lines().find_map(|line| line.strip_prefix(field)).map(str::trim);
        let none = |field| says(field).is_some_and(|bits| bits.bytes().all(|digit| digit == b'0'));
        let has_none = none("CapEff:") && none("CapPrm:") && none("CapInh:") && none("CapAmb:");
        if says("NoNewPrivs:") == Some("1") && has_none { Err("there are none".into()) } else { Ok(()) }
    }),
    ("core dump", |_| match rustix::process::getrlimit(rustix::process::Resource::Core).maximum {
        // 0 would let one through a pipe.
        Some(1) => Err("limited to one byte".into()),
        _ => Ok(()),
    }),
    ("files for others", |aim| {
        let path = aim.path.join("made");
        let mode = File::create(&path)?.metadata()?.permissions().mode();
        fs::remove_file(path)?;
        if mode & 0o077 != 0 { Ok(()) } else { Err(format!("its mode is {mode:o}").into()) }
    }),
];

/// Sends `METHOD PATH BODY`; well if it is done, and to alice.
fn said_yes(socket: &mut (impl Read + Write), text: &str) -> Try {
    let (line, body) =
        text.split_once(" {").map_or((text, String::new()), |(line, body)| (line, format!("{{{body}")));
    let length = body.len();
    write!(
        socket,
        "{line} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Accept: application/json, text/event-stream\r\nContent-Length: {length}\r\n\r\n{body}"
    )?;
    let (mut answer, mut piece) = (Vec::new(), [0; 4096]);
    loop {
        match socket.read(&mut piece) {
            Ok(0) => break,
            Ok(read) => answer.extend_from_slice(&piece[..read]),
            // A log that is followed goes on.
            Err(_) if !answer.is_empty() => break,
            Err(error) => return Err(error.into()),
        }
    }
    let answer = String::from_utf8_lossy(&answer);
    let is_done = answer.starts_with("HTTP/1.1 2");
    // What names nobody is done to who asks, if they may do that.
    let is_of_alice =
        line == "POST /mcp" || text.contains("alice") || text.contains("reload") || answer.contains("alice");
    if is_done && is_of_alice { Ok(()) } else { Err(answer.replace(['\r', '\n'], " ").into()) }
}

fn read(path: &Path) -> Try {
    match File::open(path)?.read(&mut [0; 64])? {
        0 => Err("nothing in it".into()),
        _ => Ok(()),
    }
}

/// An address that is not there was looked for, so it was allowed to.
fn of_no_matter(error: io::Error) -> Result<(), Box<dyn Error>> {
    match error.raw_os_error() {
        Some(libc::EFAULT | libc::EIO) => Ok(()),
        _ => Err(error.into()),
    }
}

/// What became of an attack.
fn attack(name: &str, aim: &Aim) -> String {
    match ATTACKS.iter().find(|(known, _)| *known == name).map(|(_, attack)| attack(aim)) {
        Some(Ok(())) => "open".to_owned(),
        Some(Err(why)) => format!("closed: {why}"),
        None => format!("there is no attack {name:?}"),
    }
}

/// The same in a process that has nothing else to do, so that no attack changes the next.
fn attack_afresh(arguments: &Value) -> io::Result<String> {
    let text = |name: &str| arguments[name].as_str().unwrap_or_default().to_owned();
    let number = |name: &str| arguments[name].as_u64().unwrap_or_default().to_string();
    let mut command = Command::new("/proc/self/exe");
    command.arg("--try").args([text("attack"), text("path"), number("pid"), number("port")]);
    let output = command.output()?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Leaves things about.
#[derive(Debug, Default)]
struct Prepared {
    _sockets: Vec<UnixListener>,
}

impl Prepared {
    /// What of it could be left; the rest is nobody's to reach.
    fn new(port: u16) -> (Self, Vec<String>) {
        let mut left = Vec::new();
        let mut note = |what: &str, done: bool| left.extend(done.then(|| what.to_owned()));
        note("secret", fs::write("secret", "alice's own\n").is_ok());
        note("tmp", fs::write(format!("/tmp/{LEFT}{port}"), "alice's own\n").is_ok());
        note("shm", fs::write(format!("/dev/shm/{LEFT}{port}"), "alice's own\n").is_ok());
        note("shared memory", call(libc::SYS_shmget, [SHM_KEY, 4096, 0o1600, 0]).is_ok());
        let socket = UnixListener::bind("socket");
        note("unix socket", socket.is_ok());
        let name = SocketAddr::from_abstract_name(format!("{LEFT}{port}"));
        let by_name = name.and_then(|name| UnixListener::bind_addr(&name));
        note("abstract socket", by_name.is_ok());
        (Self { _sockets: [socket, by_name].into_iter().flatten().collect() }, left)
    }
}

struct Intruder {
    port: u16,
    prepared: std::cell::RefCell<Prepared>,
}

impl Tools for Intruder {
    const NAME: &'static str = "intruder";

    fn list(&self) -> Value {
        let schema = json!({ "type": "object" });
        ["prepare", "attack"]
            .map(|name| json!({ "name": name, "description": "for tests", "inputSchema": schema }))
            .into_iter()
            .collect()
    }

    async fn call(&self, tool: &str, arguments: &Value) -> Option<Outcome> {
        match tool {
            "prepare" => {
                let (prepared, left) = Prepared::new(self.port);
                *self.prepared.borrow_mut() = prepared;
                Some(Outcome::Text(left.join("\n")))
            }
            "attack" => Some(match attack_afresh(arguments) {
                Ok(said) => Outcome::Text(said),
                Err(error) => Outcome::Failed(error.to_string()),
            }),
            _ => None,
        }
    }
}

/// Opens connections and keeps them.
fn hold(to: &str, number: usize) -> Result<(), Box<dyn Error>> {
    let all = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum;
    let most = rustix::process::Rlimit { current: all, maximum: all };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, most)?;
    let (mut held, mut why) = (Vec::<Box<dyn std::any::Any>>::new(), String::new());
    for _ in 0..number {
        let one: io::Result<Box<dyn std::any::Any>> = match to.parse::<u16>() {
            Ok(port) => TcpStream::connect(("127.0.0.1", port)).map(|stream| Box::new(stream) as _),
            Err(_) => UnixStream::connect(to).map(|stream| Box::new(stream) as _),
        };
        match one {
            Ok(one) => held.push(one),
            Err(error) => why = error.to_string(),
        }
    }
    println!("{} {why}", held.len());
    io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

/// Makes a process that is born in this cgroup, past the file by which one joins it (clone3(2),
/// `CLONE_INTO_CGROUP`), and ends at once.
fn begin_in(group: &Path) -> Try {
    const INTO_CGROUP: u64 = 0x2_0000_0000;
    // Only named, which no rule about reading or writing forbids.
    let group = OpenOptions::new().read(true).custom_flags(libc::O_PATH | libc::O_DIRECTORY).open(group)?;
    let number = u64::try_from(group.as_raw_fd())?;
    // struct clone_args: flags, what is told at its end, and which cgroup.
    let arguments = [INTO_CGROUP, 0, 0, 0, u64::try_from(libc::SIGCHLD)?, 0, 0, 0, 0, 0, number];
    match call(libc::SYS_clone3, [arguments.as_ptr() as usize, size_of_val(&arguments), 0, 0])? {
        0 => std::process::exit(0),
        child => {
            let child = rustix::process::Pid::from_raw(i32::try_from(child)?);
            rustix::process::waitpid(child, rustix::process::WaitOptions::empty())?;
            Ok(())
        }
    }
}

/// Makes a process that has this pid, first of its session, and ends it when the input ends. It takes the
/// right to restore processes (clone3(2), `set_tid`).
fn come_round(pid: i32) -> Result<(), Box<dyn Error>> {
    let pids = [pid];
    // struct clone_args: what is told at its end, and which pids.
    let signal = u64::try_from(libc::SIGCHLD)?;
    let arguments = [0, 0, 0, 0, signal, 0, 0, 0, pids.as_ptr() as u64, 1, 0_u64];
    if call(libc::SYS_clone3, [arguments.as_ptr() as usize, size_of_val(&arguments), 0, 0])? == 0 {
        rustix::process::setsid()?;
        loop {
            std::thread::park();
        }
    }
    println!("{pid}");
    io::stdin().read_to_end(&mut Vec::new())?;
    let child = rustix::process::Pid::from_raw(pid).ok_or("no pid")?;
    rustix::process::kill_process(child, rustix::process::Signal::KILL)?;
    rustix::process::waitpid(Some(child), rustix::process::WaitOptions::empty())?;
    Ok(())
}

/// Goes into a user namespace in which everybody is who they are, and nobody can make another: as on a host
/// whose administrator forbids them, with every call that could make one there. For root.
fn leave_no_user_namespace() -> Try {
    // The kernel lets them be 32 deep (user_namespaces(7)).
    let mut depth = 0;
    loop {
        // Only who is outside may say who is who inside.
        let names =
            "read go && for map in uid_map gid_map; do echo 0 0 4294967295 >/proc/$PPID/$map || exit; done";
        let mut outside = Command::new("/bin/sh");
        let mut outside = outside.args(["-c", names]).stdin(std::process::Stdio::piped()).spawn()?;
        let made = call(libc::SYS_unshare, [usize::try_from(libc::CLONE_NEWUSER)?, 0, 0, 0]);
        let mut told = outside.stdin.take().ok_or("no input")?;
        if made.is_ok() {
            told.write_all(b"go\n")?;
        }
        drop(told);
        let is_named = outside.wait()?.success();
        match made {
            Ok(_) if is_named => depth += 1,
            Ok(_) => return Err("cannot say who is who".into()),
            Err(_) if depth > 0 => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Becomes a program for which this kernel lacks something.
fn without(what: &str, program: &[String]) -> Result<(), Box<dyn Error>> {
    let deny = |rules: BTreeMap<i64, Vec<SeccompRule>>, number: i32| {
        let answer = SeccompAction::Errno(u32::try_from(number)?);
        let filter =
            SeccompFilter::new(rules, SeccompAction::Allow, answer, std::env::consts::ARCH.try_into()?)?;
        let program: BpfProgram = filter.try_into()?;
        seccompiler::apply_filter(&program)?;
        Ok::<_, Box<dyn Error>>(())
    };
    for lacking in what.split(',') {
        match lacking {
            "namespaces" => {
                let flag = u64::try_from(libc::CLONE_NEWUSER)?;
                let is_set = SeccompCmpOp::MaskedEq(flag);
                let user = SeccompCondition::new(0, SeccompCmpArgLen::Qword, is_set, flag)?;
                let rule = vec![SeccompRule::new(vec![user])?];
                deny([(libc::SYS_clone, rule.clone()), (libc::SYS_unshare, rule)].into(), libc::EPERM)?;
                // Its flags are in memory.
                deny([(libc::SYS_clone3, vec![])].into(), libc::ENOSYS)?;
            }
            "user namespaces" => leave_no_user_namespace()?,
            "nothing" => {}
            "landlock" => deny([(libc::SYS_landlock_create_ruleset, vec![])].into(), libc::ENOSYS)?,
            other => return Err(format!("nobody can be without {other:?}").into()),
        }
    }
    let (program, arguments) = program.split_first().ok_or("which program?")?;
    Err(Command::new(program).args(arguments).exec().into())
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let word = |at: usize| words.get(at).map_or("", String::as_str);
    let done = match word(0) {
        "--try" => {
            // Within one session everybody may send SIGCONT (kill(2)). One that leads its own is in it alone.
            if let Err(error) = rustix::process::setsid() {
                eprintln!("intruder: no session of its own: {error}");
            }
            let aim = Aim {
                path: word(2).into(),
                pid: word(3).parse().unwrap_or(0),
                port: word(4).parse().unwrap_or(0),
                text: word(5).to_owned(),
            };
            println!("{}", attack(word(1), &aim));
            Ok(())
        }
        "--come-round" => come_round(word(1).parse().unwrap_or(0)),
        "--hold" => hold(word(1), word(2).parse().unwrap_or(0)),
        "--without" => without(word(1), words.get(2..).unwrap_or_default()),
        "--port" => serve(word(1)),
        other => Err(format!("there is no switch {other:?}").into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("intruder: {error}");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn serve(port: &str) -> Result<(), Box<dyn Error>> {
    let listener = common::listen(port).await?;
    let port = port.parse()?;
    common::serve(listener, Intruder { port, prepared: std::cell::RefCell::default() }).await;
    Ok(())
}
