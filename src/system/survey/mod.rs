//! Looking at a host: facts for `logic::doctor`, and no opinion. Nothing is started (but `systemctl
//! show`), written or changed.

mod program;
mod way;

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};
use nix::sys::statvfs::{FsFlags, statvfs};
use rustix::fs::inotify;

use super::places::Places;
use super::tool::{self, Environment};
use super::{account, peer, terminal};
use crate::model::Spec;
use crate::model::spec::Home;
use crate::model::survey::{Disk, Identity, Needs, NoWatch, Place, PortRules, Reached, Unit};

pub use way::{For, way};

/// How long systemctl may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// What one server of one user needs, and what of it is there. `elsewhere` is the caller's `PATH`.
#[must_use]
pub fn needs(spec: &Spec, home: &Home<'_>, elsewhere: &str) -> Needs {
    let environment = spec.environment(home);
    let path = environment.get("PATH").map_or("", |path| path);
    let program = program::program(&spec.program, path, elsewhere);
    let secrets: Vec<&str> = spec.secrets.iter().map(crate::model::Secret::reveal).collect();
    // An argument may hold a credential (`secrets_in_argv`), and then it is not looked at.
    let is_plain = |arg: &&str| !secrets.iter().any(|secret| !secret.is_empty() && arg.contains(secret));
    let args: Vec<&str> = spec.args.iter().map(crate::model::Secret::reveal).filter(is_plain).collect();
    let user_home = environment.get("HOME").map_or_else(PathBuf::new, |home| PathBuf::from(&**home));
    let own = [&home.state_dir, &home.runtime_dir].map(|dir| way(dir, For::Entering));
    Needs {
        identity: identity(spec),
        fetched: program::fetched(&program, &args, &user_home),
        program,
        arguments: program::arguments(args.into_iter()),
        working_dir: spec.working_dir.as_deref().map(|dir| way(dir, For::Entering)),
        own: own.into(),
    }
}

/// True if the program of this name is there for a server that is given the usual `PATH`.
#[must_use]
pub fn has_program(named: &str, elsewhere: &str) -> bool {
    let found = program::program(named, crate::model::spec::PATH, elsewhere);
    found.way.is_some_and(|way| way.stop.is_none())
}

fn identity(spec: &Spec) -> Identity {
    if let Some(account) = spec.account.as_deref() {
        let gids = if account.is_reserved { vec![account.gid] } else { account::groups_of(account) };
        return Identity { name: account.name.clone(), uid: account.uid, gids };
    }
    let uid = account::own_uid();
    let name = account::name_of(uid).unwrap_or_else(|| format!("uid {uid}"));
    Identity { name, uid, gids: account::own_groups() }
}

/// The daemon's own directories.
#[must_use]
pub fn places(places: &Places) -> Vec<Place> {
    let all = [("state", &places.state), ("runtime", &places.runtime), ("logs", &places.logs)];
    all.into_iter()
        .map(|(what, path)| Place { what, way: way(path, For::Entering), disk: disk(path) })
        .collect()
}

/// The file system that `path`, or the nearest directory above it that is there, is on.
fn disk(path: &Path) -> Option<Disk> {
    let there = path.ancestors().find(|path| path.exists())?;
    let told = statvfs(there).ok()?;
    let blocks = if account::own_uid() == 0 { told.blocks_free() } else { told.blocks_available() };
    #[allow(clippy::useless_conversion, reason = "these are u32 on some architectures")]
    let (blocks, size, files, all_files) = (
        u64::from(blocks),
        u64::from(told.fragment_size()),
        u64::from(told.files_available()),
        u64::from(told.files()),
    );
    Some(Disk {
        free: blocks.saturating_mul(size),
        free_files: (all_files > 0).then_some(files),
        is_read_only: told.flags().contains(FsFlags::ST_RDONLY),
        is_in_memory: terminal::is_in_memory(there),
    })
}

/// Why nobody answers at a control socket; `Ok` is the process that listens there.
///
/// # Errors
///
/// What became of it instead of an answer.
pub fn knock(socket: &Path) -> Result<u32, Reached> {
    let stream = UnixStream::connect(socket).map_err(|error| {
        let is_socket = std::fs::symlink_metadata(socket)
            .is_ok_and(|meta| meta.mode() & nix::libc::S_IFMT == nix::libc::S_IFSOCK);
        let is = |kinds: &[io::ErrorKind]| kinds.contains(&error.kind());
        if is(&[io::ErrorKind::NotFound, io::ErrorKind::NotADirectory]) {
            Reached::Missing
        } else if is(&[io::ErrorKind::PermissionDenied]) {
            Reached::Closed
        } else if is(&[io::ErrorKind::ConnectionRefused]) {
            if is_socket { Reached::Refused } else { Reached::NoSocket }
        } else {
            Reached::Odd(super::cause::plain(&error))
        }
    })?;
    let told = peer::credentials(&stream).map_err(|error| Reached::Odd(super::cause::plain(&error)))?;
    Ok(told.pid.unsigned_abs())
}

/// The process that has locked the state directory; `None` if none has, or that may not be seen.
#[must_use]
pub fn locked_by(state: &Path) -> Option<Option<u32>> {
    let path = state.join("lock");
    let file = std::fs::File::open(&path).ok()?;
    let pid = std::fs::read_to_string(&path).ok().and_then(|text| text.trim().parse().ok());
    // Shared and let go of at once: a daemon that begins at this very moment tries again by systemd.
    match Flock::lock(file, FlockArg::LockSharedNonblock) {
        Err((_, nix::errno::Errno::EWOULDBLOCK)) => Some(pid),
        Ok(_) | Err(_) => None,
    }
}

/// How many files a process may have open, if its owner set no less; of ourselves without `pid`.
#[must_use]
pub fn open_files(pid: Option<u32>) -> Option<u64> {
    let whose = pid.map_or_else(|| "self".to_owned(), |pid| pid.to_string());
    let text = std::fs::read_to_string(format!("/proc/{whose}/limits")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    match line.split_whitespace().nth(1)? {
        "unlimited" => None,
        hard => hard.parse().ok(),
    }
}

/// What the kernel says of ports.
#[must_use]
pub fn port_rules() -> PortRules {
    let read = |name: &str| std::fs::read_to_string(format!("/proc/sys/net/ipv4/{name}")).ok();
    let clients = read("ip_local_port_range").and_then(|text| {
        let mut numbers = text.split_whitespace().map(str::parse);
        Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
    });
    let everybody = read("ip_unprivileged_port_start").and_then(|text| text.trim().parse().ok());
    // The kernel's own where it does not say (a container without /proc/sys).
    PortRules { for_clients: clients.unwrap_or((32_768, 60_999)), for_everybody: everybody.unwrap_or(1024) }
}

/// The ports that the kernel gives to no client (`ip_local_reserved_ports`), first and last of each.
#[must_use]
pub fn reserved_ports() -> Vec<(u16, u16)> {
    let text = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_reserved_ports").unwrap_or_default();
    let pair = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some((first.trim().parse().ok()?, last.trim().parse().ok()?))
    };
    text.trim().split(',').filter_map(pair).collect()
}

/// Whether a daemon of ours could watch `dir`; what is tried is undone.
#[must_use]
pub fn watch_fails(dir: &Path) -> Option<NoWatch> {
    let watcher = match inotify::init(inotify::CreateFlags::CLOEXEC) {
        Err(rustix::io::Errno::MFILE) => return Some(NoWatch::Instances),
        Ok(watcher) => watcher,
        // No inotify at all, or something else that is not for here.
        Err(_) => return None,
    };
    match inotify::add_watch(&watcher, dir, inotify::WatchFlags::MODIFY) {
        Err(rustix::io::Errno::NOSPC) => Some(NoWatch::Watches),
        Ok(_) | Err(_) => None,
    }
}

/// The host's unit, where systemd runs this host and knows one.
#[must_use]
pub fn unit(name: &str) -> Option<Unit> {
    if !has_systemd() {
        return None;
    }
    let wanted =
        "--property=LoadState,UnitFileState,ActiveState,Result,KillMode,RestartKillSignal,NeedDaemonReload";
    let said =
        tool::run("systemctl", &["show", name, wanted], Environment::Ours, b"", 16 * 1024, PATIENCE).ok()?;
    let said = String::from_utf8_lossy(&said);
    let told: BTreeMap<&str, &str> = said.lines().filter_map(|line| line.split_once('=')).collect();
    let get = |key: &str| told.get(key).map(|value| (*value).to_owned()).unwrap_or_default();
    Some(Unit {
        load: get("LoadState"),
        file: get("UnitFileState"),
        active: get("ActiveState"),
        result: get("Result"),
        kill_mode: get("KillMode"),
        restart_signal: get("RestartKillSignal"),
        needs_reload: get("NeedDaemonReload") == "yes",
    })
}

/// True where systemd runs this host (`sd_booted(3)`).
#[must_use]
pub fn has_systemd() -> bool {
    Path::new("/run/systemd/system").is_dir()
}

/// What else than modes may say no here: the security modules of this kernel that keep paths.
#[must_use]
pub fn keepers() -> Vec<String> {
    let all = std::fs::read_to_string("/sys/kernel/security/lsm").unwrap_or_default();
    let named = all.trim().split(',').map(str::to_owned).filter(|name| name == "apparmor");
    // SELinux may be built in and off; then its file system is not there.
    let selinux = Path::new("/sys/fs/selinux/enforce").exists().then(|| "selinux".to_owned());
    selinux.into_iter().chain(named).collect()
}
