//! Landlock: which files a run may open, which ports it may listen on, and whom it may signal.
//!
//! A rule allows; what no rule names is denied. Where the hidden places are covered by mounts,
//! everything may be read. Where they are not, the directories on the way to them are allowed entry
//! by entry and not themselves, because a rule for a directory is one for all that is below it: such
//! a directory cannot be listed, and what is new in it is out of reach until the next run.
//!
//! Rules are made by the account that the run has, so what it cannot reach needs no rule.

use std::fs::{self, File};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, NetPort, PathBeneath, Ruleset,
    RulesetAttr, RulesetCreated, RulesetCreatedAttr, RulesetError, RulesetStatus, Scope,
};
use nix::libc;

use super::{mounts, writable};
use crate::system::orders::Orders;

/// The newest ABI whose rights are made use of. 9 can tell Unix sockets apart; until there is a
/// kernel to try that on, the filter of system calls does it.
pub(super) const NEWEST: u8 = 8;
/// What is open to everybody and holds nothing.
const DEVICES: [&str; 5] = ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"];
/// Of the run's own where it has a mount namespace.
const OWN_TERMINALS: [&str; 3] = ["/dev/ptmx", "/dev/pts", "/dev/tty"];
/// Other people's where it has none.
const NOT_ITS_OWN: [&str; 4] = ["/tmp", "/var/tmp", "/dev", "/run/user"];

/// What a run may reach.
#[derive(Debug)]
pub(super) struct Reach<'a> {
    pub(super) abi: u8,
    /// What may be read is not all there is to be seen.
    pub(super) unreadable: Vec<PathBuf>,
    pub(super) shown: Vec<PathBuf>,
    /// Its own directories, wherever they lie.
    pub(super) own: Vec<PathBuf>,
    pub(super) writable: Vec<PathBuf>,
    /// Never in what is writable, covered or not: who can rename a directory on the way to them can
    /// put another in its place.
    pub(super) hidden: &'a [PathBuf],
    /// Devices; those that are not there are no loss.
    pub(super) devices: Vec<&'static str>,
    /// What it was given open, and may open again through `/proc/self/fd`.
    pub(super) streams: &'a [&'a File],
    pub(super) listen: Vec<u16>,
}

impl<'a> Reach<'a> {
    pub(super) fn of(orders: &'a Orders, streams: &'a [&'a File]) -> Self {
        let cage = &orders.cage;
        let mut own = vec![orders.state_dir.clone(), orders.runtime_dir.clone()];
        let mut devices = DEVICES.to_vec();
        let (unreadable, shown) = if cage.namespaces.mount {
            own.extend(["/tmp", "/var/tmp", "/dev/shm"].map(PathBuf::from));
            devices.extend(OWN_TERMINALS);
            (Vec::new(), Vec::new())
        } else {
            let others = NOT_ITS_OWN.map(PathBuf::from);
            (cage.hidden.iter().cloned().chain(others).collect(), mounts::shown(orders))
        };
        // 0 is a port that the kernel chooses.
        let listen = std::iter::once(0).chain(orders.backend).chain(cage.listen.iter().copied()).collect();
        let writable = writable(orders);
        Self {
            abi: cage.landlock,
            unreadable,
            shown,
            own,
            writable,
            hidden: &cage.hidden,
            devices,
            streams,
            listen,
        }
    }
}

/// Restricts this process, and all that will come of it, for good.
pub(super) fn restrict(reach: &Reach<'_>) -> Result<(), RulesetError> {
    let abi = ABI::from(i32::from(reach.abi.min(NEWEST)));
    let all = AccessFs::from_all(abi);
    let read = AccessFs::from_read(abi);
    // No rule, no device nodes: they would be made by root only, who has other ways.
    let write = all & !(AccessFs::MakeBlock | AccessFs::MakeChar);

    let mut rules = Ruleset::default().set_compatibility(CompatLevel::HardRequirement).handle_access(all)?;
    if abi >= ABI::V4 {
        rules = rules.handle_access(AccessNet::BindTcp)?;
    }
    if abi >= ABI::V6 {
        rules = rules.scope(Scope::from_all(abi))?;
    }
    let mut rules = rules.create()?;

    for path in beneath(Path::new("/"), &reach.unreadable) {
        rules = allow(rules, &path, read, Follow::No)?;
    }
    for path in &reach.shown {
        rules = allow(rules, path, read, Follow::Yes)?;
    }
    let writable = reach.writable.iter().flat_map(|top| beneath(top, reach.hidden));
    for path in reach.own.iter().cloned().chain(writable) {
        rules = allow(rules, &path, write, Follow::Yes)?;
    }
    for device in &reach.devices {
        rules = allow(rules, Path::new(device), write & !AccessFs::Execute, Follow::Yes)?;
    }
    for stream in reach.streams {
        let access = AccessFs::ReadFile | AccessFs::WriteFile;
        rules = rules.add_rule(PathBeneath::new(stream.as_fd(), access))?;
    }
    if abi >= ABI::V4 {
        for port in &reach.listen {
            rules = rules.add_rule(NetPort::new(*port, AccessNet::BindTcp))?;
        }
    }
    let status = rules.restrict_self()?;
    debug_assert_eq!(status.ruleset, RulesetStatus::FullyEnforced, "a hard requirement fails otherwise");
    Ok(())
}

/// The fewest places that make up `top` without what is hidden in it.
fn beneath(top: &Path, hidden: &[PathBuf]) -> Vec<PathBuf> {
    if hidden.iter().any(|hidden| top.starts_with(hidden)) {
        return Vec::new();
    }
    if !hidden.iter().any(|hidden| hidden.starts_with(top)) {
        return vec![top.to_path_buf()];
    }
    // What cannot be listed cannot be allowed entry by entry; it stays closed.
    let entries = fs::read_dir(top).into_iter().flatten().flatten();
    // A link's target has a rule of its own, or is hidden.
    let real = entries.filter(|entry| entry.file_type().is_ok_and(|kind| !kind.is_symlink()));
    real.flat_map(|entry| beneath(&entry.path(), hidden)).collect()
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Follow {
    Yes,
    No,
}

/// Adds a rule for a place. One that is not there, or cannot be reached, needs none.
fn allow(
    rules: RulesetCreated,
    path: &Path,
    access: BitFlags<AccessFs>,
    follow: Follow,
) -> Result<RulesetCreated, RulesetError> {
    let flags = libc::O_PATH | if follow == Follow::No { libc::O_NOFOLLOW } else { 0 };
    let Ok(file) = fs::OpenOptions::new().read(true).custom_flags(flags).open(path) else { return Ok(rules) };
    let Ok(kind) = file.metadata().map(|meta| meta.file_type()) else { return Ok(rules) };
    let access =
        if kind.is_dir() { access } else { access & AccessFs::from_file(ABI::from(i32::from(NEWEST))) };
    rules.add_rule(PathBeneath::new(OwnedFd::from(file), access))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_hidden_is_left_out_of_what_is_around_it_and_links_are_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let at = |path: &str| dir.path().join(path);
        for path in ["a/b/env.d", "a/b/more", "a/c", "d"] {
            fs::create_dir_all(at(path)).unwrap();
        }
        std::os::unix::fs::symlink(at("a/b/env.d"), at("d2")).unwrap();
        std::os::unix::fs::symlink(at("a/b/env.d"), at("a/e")).unwrap();

        let mut found = beneath(dir.path(), &[at("a/b/env.d")]);
        found.sort();
        assert_eq!(found, [at("a/b/more"), at("a/c"), at("d")]);
        assert_eq!(beneath(&at("d"), &[at("a/b/env.d")]), [at("d")]);
        assert!(beneath(&at("a/b/env.d/x"), &[at("a/b/env.d")]).is_empty());
    }
}
