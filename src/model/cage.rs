//! What a run is kept from, and what of that a host makes possible. PRODUCT §8 in types.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Whether something can be done on this host, as found by doing it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tried {
    /// It was done.
    Works,
    /// It was not; what the kernel said.
    Fails(String),
}

impl Tried {
    /// True if it was done.
    #[must_use]
    pub const fn works(&self) -> bool {
        matches!(self, Self::Works)
    }
}

/// What this host lets a launcher do, as far as a run's cage is made of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ground {
    /// The daemon is root and may take other accounts' identities.
    pub accounts: Tried,
    /// Capabilities can be given up for good: the bounding set emptied, secure bits locked. Needs a
    /// privilege, and is needed only by who has any.
    pub bounding: Tried,
    /// Landlock's ABI; 0 where there is none.
    pub landlock: u8,
    /// System calls can be filtered.
    pub calls: Tried,
    /// A run can have mount and IPC namespaces.
    pub mounts: Tried,
    /// It can have a pid namespace with a `/proc` of its own beside them.
    pub pids: Tried,
    /// Without a pid namespace, it can have a `/proc` that hides other users' processes.
    pub hidepid: Tried,
    /// Namespaces take a user namespace here: the daemon has no privilege to make them without.
    pub through_user: bool,
}

/// How a run sees `/proc`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Proc {
    /// As the daemon does.
    #[default]
    Shared,
    /// Without the processes that it may not look into (`hidepid=2`, proc(5)).
    Hiding,
    /// Only those of its own pid namespace.
    Own,
}

/// The namespaces that a run is born into.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Namespaces {
    /// A user namespace, in which nobody but the daemon's own uid is known.
    pub user: bool,
    /// Mount and IPC namespaces.
    pub mount: bool,
    /// A pid namespace; the launcher's copy stays as its first process.
    pub pid: bool,
}

impl Namespaces {
    /// As one byte.
    #[must_use]
    pub const fn to_bits(self) -> u8 {
        (self.pid as u8) | (self.mount as u8) << 1 | (self.user as u8) << 2
    }

    /// From [`to_bits`](Self::to_bits); further bits mean nothing.
    #[must_use]
    pub const fn from_bits(bits: u8) -> Self {
        Self { pid: bits & 1 != 0, mount: bits & 2 != 0, user: bits & 4 != 0 }
    }
}

/// Which system calls a run may not make beside those that no server needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "each is one rule of the filter")]
pub struct Calls {
    /// To make namespaces.
    pub namespaces: bool,
    /// To make Unix sockets (pairs are allowed): Landlock does not stop connecting to one by its
    /// path before ABI 9.
    pub unix_sockets: bool,
    /// To change limits, priority or processors of any other process than itself.
    pub others: bool,
    /// To change mode, owner, times or attributes of a file by its path, which Landlock does not
    /// stop.
    pub modes: bool,
    /// System V and POSIX IPC objects, which are everybody's of the same uid.
    pub ipc: bool,
}

/// Everything a run is kept from; the same for every user of a server whose runs are of one
/// [`Tenancy`].
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Cage {
    /// Empties the bounding set and locks the secure bits.
    pub bounding: bool,
    /// The Landlock ABI to be enforced; 0: none.
    pub landlock: u8,
    /// The filter of system calls; none where the kernel has no such thing.
    pub calls: Option<Calls>,
    /// Where it is born.
    pub namespaces: Namespaces,
    /// How it sees processes.
    pub proc: Proc,
    /// Places that are out of its reach, with everything below: env.d, and whatever is the
    /// daemon's. The run's own directories may lie there.
    pub hidden: Vec<PathBuf>,
    /// Places that would be hidden with `/tmp` and are not.
    pub paths: Vec<PathBuf>,
    /// Places it may write to besides its own; `~/` is its account's home.
    pub write: Vec<PathBuf>,
    /// The same, where they are there.
    pub write_if_there: Vec<PathBuf>,
    /// TCP ports it may listen on besides its own and those the kernel chooses.
    pub listen: Vec<u16>,
    /// It has no account of its own and [`Isolation`] asks for one: why nothing is started.
    pub refused: Option<String>,
}

/// Whose account a run has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tenancy {
    /// One that no other user's runs have: an account, or a reserved uid.
    Alone,
    /// One that is several users': an account that their files name, or the daemon's own, where that is
    /// an ordinary user.
    Shared,
    /// Root's.
    Root,
}

impl Tenancy {
    /// Every kind, in the order of their numbers.
    pub const ALL: [Self; 3] = [Self::Alone, Self::Shared, Self::Root];
}

/// What separates two users' runs here, weakest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tier {
    /// Nothing that stops one who means it.
    None,
    /// One account for all; Landlock and a filter of system calls.
    Landlock,
    /// One account for all; Landlock, the filter, and namespaces.
    Namespaces,
    /// An account for each.
    Accounts,
}

impl Tier {
    /// The word in mcpsup.toml, logs and `status`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Landlock => "landlock",
            Self::Namespaces => "namespaces",
            Self::Accounts => "accounts",
        }
    }
}

impl Tier {
    /// The same, for people.
    #[must_use]
    pub const fn by(self) -> &'static str {
        match self {
            Self::None => "nothing that stops one who means it",
            Self::Landlock => "Landlock and a filter of system calls (landlock)",
            Self::Namespaces => "Landlock, a filter of system calls and namespaces (namespaces)",
            Self::Accounts => "an account for each (accounts)",
        }
    }
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What holds the processes of a run together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tree {
    /// A cgroup.
    Cgroup,
    /// A pid namespace.
    PidNamespace,
    /// A session, and what holds its FIFOs.
    Session,
}

/// `[server.NAME.allow]`: what a server needs that runs are kept from otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Allow {
    /// Places below `/tmp` that are seen, to read only.
    pub paths: Vec<PathBuf>,
    /// Places that may be written to; `~/` is the home of the account it runs as.
    pub write: Vec<PathBuf>,
    /// Ports to listen on.
    pub listen: Vec<u16>,
    /// Unix sockets, where users share an account.
    pub unix_sockets: bool,
    /// Namespaces of its own, for browsers that make their own cage.
    pub namespaces: bool,
    /// Changing modes, owners and times of files by their path, where users share an account and
    /// there are no namespaces.
    pub modes: bool,
}

/// `[daemon] isolation`: what must be had for anything to be started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Isolation {
    /// The best there is; what is missing is said.
    #[default]
    Auto,
    /// Every promise.
    Require,
    /// At least this tier.
    AtLeast(Tier),
}

/// One promise of PRODUCT §8 on this host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Promise {
    /// What is promised: "no core dumps".
    pub what: String,
    /// Whether it is kept.
    pub kept: bool,
    /// By what; or why not, and what would.
    pub by: String,
}

impl fmt::Display for Promise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:8}  {}: {}", if self.kept { "kept" } else { "not kept" }, self.what, self.by)
    }
}

/// How far users are kept apart on a host, said aloud.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Apart {
    /// What separates them.
    pub tier: Tier,
    /// Every promise.
    pub promises: Vec<Promise>,
}

impl Apart {
    /// Lines for people; those of promises that are kept only if asked for.
    #[must_use]
    pub fn lines(&self, all: bool) -> Vec<String> {
        let shown = self.promises.iter().filter(|promise| all || !promise.kept);
        let lines: Vec<String> = shown.map(|promise| format!("  {promise}")).collect();
        let left = self.promises.len() - lines.len();
        let more = if left == 0 { String::new() } else { format!("; kept: {left} promises, see -v") };
        let mut page = vec![format!("users are kept apart by {}{more}", self.tier.by())];
        page.extend(lines);
        page
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn namespaces_survive_the_way_to_the_launcher() {
        for bits in 0..8 {
            assert_eq!(Namespaces::from_bits(bits).to_bits(), bits);
        }
    }
}
