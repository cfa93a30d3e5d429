//! What a run is kept from on a host, and what is said of it.
//!
//! [`Site::cage`] decides what the launcher lays around a run, [`Site::promises`] says for each
//! promise of PRODUCT §8 whether that keeps it, and by what. Both look at the same [`Ground`], so
//! that what is said is what is done.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use crate::model::cage::{
    Allow, Apart, Cage, Calls, Ground, Isolation, Namespaces, Proc, Promise, Tenancy, Tier, Tree, Tried,
};
use crate::model::config::Server;
use crate::model::{Config, ServerName};

/// Caches of npm and of Python's uv, without which neither starts anything. They are the account's
/// own, so only an account that is one user's may write to them.
const CACHES: [&str; 2] = ["~/.cache", "~/.npm"];

/// Landlock's ABI from which on it knows of: truncation (below, it takes the filter), listening,
/// and signals and abstract sockets.
const LISTENING: u8 = 4;
const SCOPES: u8 = 6;

/// A daemon on its host.
#[derive(Debug, Clone)]
pub struct Site {
    /// What the host makes possible.
    pub ground: Ground,
    /// What holds runs together.
    pub tree: Tree,
    /// What no run may see: env.d, and whatever is the daemon's.
    pub hidden: Vec<PathBuf>,
    /// `[daemon] isolation`
    pub isolation: Isolation,
    /// Which limits that a server asks for are not enforced here.
    pub unlimited: Vec<String>,
}

impl Site {
    /// What separates users here.
    #[must_use]
    pub fn tier(&self) -> Tier {
        let Ground { landlock, calls, mounts, accounts, .. } = &self.ground;
        match (accounts.works(), *landlock > 0 && calls.works(), mounts.works()) {
            (true, _, _) => Tier::Accounts,
            (false, true, true) => Tier::Namespaces,
            (false, true, false) => Tier::Landlock,
            (false, false, _) => Tier::None,
        }
    }

    /// Why nothing may be started here, if `isolation` asks for more than there is.
    #[must_use]
    pub fn refusal(&self) -> Option<String> {
        match self.isolation {
            Isolation::Auto => None,
            Isolation::AtLeast(tier) if self.tier() >= tier => None,
            Isolation::AtLeast(tier) => {
                let missing = self.missing(tier).join("; ");
                Some(format!(
                    "isolation = \"{tier}\" cannot be had here, only \"{}\": {missing}",
                    self.tier()
                ))
            }
            Isolation::Require => {
                let broken: Vec<String> = self
                    .promises()
                    .into_iter()
                    .filter(|promise| !promise.kept)
                    .map(|promise| format!("{}: {}", promise.what, promise.by))
                    .collect();
                let text = broken.join("; ");
                (!broken.is_empty()).then(|| format!("isolation = \"require\" cannot be had here: {text}"))
            }
        }
    }

    /// What the host denies of a tier.
    fn missing(&self, tier: Tier) -> Vec<String> {
        let ground = &self.ground;
        let because = |tried: &Tried| match tried {
            Tried::Works => None,
            Tried::Fails(why) => Some(why.clone()),
        };
        let landlock = (ground.landlock == 0).then(|| "this kernel has no Landlock".to_owned());
        match tier {
            Tier::None => Vec::new(),
            Tier::Landlock => landlock.into_iter().chain(because(&ground.calls)).collect(),
            Tier::Namespaces => {
                let more = because(&ground.calls).into_iter().chain(because(&ground.mounts));
                landlock.into_iter().chain(more).collect()
            }
            Tier::Accounts => because(&ground.accounts).into_iter().collect(),
        }
    }

    /// What a server's runs are kept from, by whose account they have.
    #[must_use]
    pub fn cage(&self, allow: &Allow, tenancy: Tenancy) -> Cage {
        let refused = self.refusal().or_else(|| self.needs_account(tenancy));
        Cage { refused, ..self.walls(allow, tenancy == Tenancy::Alone) }
    }

    /// The same, whether or not it is enough.
    fn walls(&self, allow: &Allow, has_account: bool) -> Cage {
        let ground = &self.ground;
        let mount = ground.mounts.works();
        let pid = match self.tree {
            Tree::PidNamespace => true,
            // Beside a cgroup it keeps runs of one account from seeing each other, for a process of ours each.
            // Where there are accounts, a /proc that hides other accounts' does for nearly as much and costs none.
            Tree::Cgroup => ground.through_user && ground.pids.works(),
            Tree::Session => false,
        };
        let proc = match (mount, pid && ground.pids.works(), ground.hidepid.works()) {
            (true, true, _) => Proc::Own,
            (true, false, true) if !pid => Proc::Hiding,
            (true | false, _, _) => Proc::Shared,
        };
        let user = ground.through_user && (mount || pid);
        let shares = !has_account;
        let calls = Calls {
            namespaces: !allow.namespaces,
            unix_sockets: shares && !allow.unix_sockets,
            others: shares && proc != Proc::Own,
            modes: shares && !mount && !allow.modes,
            ipc: shares && !mount,
        };
        let (caches, none) = (CACHES.map(PathBuf::from).into(), Vec::new());
        Cage {
            bounding: ground.bounding.works() || user,
            landlock: ground.landlock,
            calls: ground.calls.works().then_some(calls),
            namespaces: Namespaces { user, mount, pid },
            proc,
            hidden: self.hidden.clone(),
            paths: allow.paths.clone(),
            write: allow.write.clone(),
            write_if_there: if has_account { caches } else { none },
            listen: allow.listen.clone(),
            refused: None,
        }
    }

    fn needs_account(&self, tenancy: Tenancy) -> Option<String> {
        let asks = match self.isolation {
            Isolation::Auto | Isolation::AtLeast(Tier::None | Tier::Landlock | Tier::Namespaces) => false,
            Isolation::AtLeast(Tier::Accounts) => true,
            Isolation::Require => self.tier() == Tier::Accounts,
        };
        let how = match tenancy {
            Tenancy::Alone => return None,
            Tenancy::Shared => "as an account that servers of other users run as too",
            Tenancy::Root => "as root",
        };
        asks.then(|| {
            format!(
                "cannot start it {how}, because [daemon] isolation asks for an account for each user; make one \
                 of the user's name, or name one with MCPSUP_RUN_AS, and mcpsup reload"
            )
        })
    }

    /// What would hide processes that are seen.
    fn what_hides(&self, mount: bool, no_namespaces: &str) -> String {
        const ASK: &str = "[daemon] containment = \"pid-namespace\" hides them";
        match (mount, &self.ground.pids, self.tree) {
            (true, Tried::Works, Tree::Cgroup) => format!("{ASK}, and gives up the limits of a cgroup"),
            (true, Tried::Works, Tree::PidNamespace | Tree::Session) => ASK.to_owned(),
            (true, no @ Tried::Fails(_), _) => format!("a /proc of its own cannot be had here{}", why(no)),
            (false, ..) => no_namespaces.to_owned(),
        }
    }

    /// What is said of it.
    #[must_use]
    pub fn apart(&self) -> Apart {
        Apart { tier: self.tier(), promises: self.promises() }
    }

    /// Each promise of PRODUCT §8, kept or not.
    #[must_use]
    pub fn promises(&self) -> Vec<Promise> {
        let Ground { landlock, accounts, calls, .. } = &self.ground;
        let (landlock, has_accounts, filters) = (*landlock, accounts.works(), calls.works());
        let cage = self.walls(&Allow::default(), has_accounts);
        let mount = cage.namespaces.mount;
        let own_pids = cage.proc == Proc::Own;
        let locked = landlock > 0;
        let scoped = landlock >= SCOPES;

        let mut all = Vec::new();
        let mut promise = |what: &str, by: &[(bool, &str)], otherwise: &str| {
            let by: Vec<&str> = by.iter().filter(|(is_so, _)| *is_so).map(|(_, by)| *by).collect();
            let (kept, by) =
                if by.is_empty() { (false, otherwise.to_owned()) } else { (true, by.join(", ")) };
            all.push(Promise { what: what.to_owned(), kept, by });
        };
        let no_namespaces = format!(
            "no namespaces here{}; root has them, or the kernel's user namespaces",
            why(&self.ground.mounts)
        );

        promise("environment and descriptors", &[(true, "made from nothing")], "");
        promise(
            "killed whole",
            &[(self.tree == Tree::Cgroup, "cgroup"), (cage.namespaces.pid, "pid namespace")],
            "by session only: what detaches on purpose may be left; a cgroup v2 that the daemon may use, or user namespaces, would",
        );
        promise(
            "no new privileges",
            &[(true, "no_new_privs"), (true, "no capabilities"), (cage.bounding, "empty bounding set")],
            "",
        );
        promise("no core dumps", &[(true, "RLIMIT_CORE")], "");
        promise(
            "memory and environment closed to others",
            &[(has_accounts, "uid"), (own_pids, "pid namespace"), (locked, "Landlock")],
            "one uid for all; Landlock (Linux 5.13), user namespaces or a daemon that runs as root would",
        );
        promise(
            "processes unseen by others",
            &[(cage.proc == Proc::Hiding, "/proc with hidepid"), (own_pids, "a /proc of its own")],
            &format!("arguments stand in everybody's ps; {}", self.what_hides(mount, &no_namespaces)),
        );
        promise(
            "others' files, env.d and the daemon's state out of reach",
            &[
                (has_accounts, "uid"),
                (mount, "mount namespace"),
                (locked && filters && !has_accounts && !mount, "Landlock and the filter of system calls"),
                (locked && (has_accounts || mount), "Landlock"),
            ],
            "one uid for all; Landlock with seccomp, user namespaces or a daemon that runs as root would",
        );
        promise(
            "writes to its own only",
            &[(locked, "Landlock"), (mount, "read-only mounts")],
            &format!("Landlock (Linux 5.13) would; {no_namespaces}"),
        );
        promise(
            "listens on its own port only",
            &[(landlock >= LISTENING, "Landlock")],
            "Landlock of ABI 4 (Linux 6.7) would",
        );
        promise(
            "no signals to others",
            &[(has_accounts, "uid"), (own_pids, "pid namespace"), (scoped, "Landlock")],
            "one uid for all; Landlock of ABI 6 (Linux 6.12), user namespaces or a daemon that runs as root would",
        );
        let closed = filters && !has_accounts;
        promise(
            "no Unix sockets of others",
            &[
                (has_accounts && scoped, "uid and mode"),
                (closed, "seccomp: it can make none"),
                (scoped, "Landlock"),
            ]
            .map(|(is_so, by)| (is_so && (closed || (has_accounts && scoped)), by)),
            "abstract sockets are open to all; Landlock of ABI 6 (Linux 6.12) would",
        );
        promise("private /tmp and IPC", &[(mount, "mount and IPC namespaces")], &no_namespaces);
        promise(
            "dangerous system calls denied",
            &[(filters, "seccomp")],
            &format!("no filter of system calls here{}", why(calls)),
        );
        if has_accounts {
            promise("an account for each user", &[(true, "uid, for those who have one")], "");
        }
        promise(
            "limits",
            &[(self.unlimited.is_empty(), "what is asked for is enforced")],
            &format!("{}; a cgroup v2 with those controllers would", self.unlimited.join(", ")),
        );
        all
    }
}

/// Why not, in brackets.
fn why(tried: &Tried) -> String {
    match tried {
        Tried::Works => String::new(),
        Tried::Fails(why) => format!(" ({why})"),
    }
}

/// The cages of a configuration's servers, made once for all their runs.
#[derive(Debug, Default)]
pub struct Cages(BTreeMap<ServerName, [Arc<Cage>; 3]>);

impl Cages {
    /// Of every server.
    #[must_use]
    pub fn new(site: &Site, config: &Config) -> Self {
        let each = |server: &Server| {
            // One that is to listen on a socket must be able to make one.
            let allow = Allow { unix_sockets: server.opens_unix_sockets(), ..server.allow.clone() };
            Tenancy::ALL.map(|tenancy| Arc::new(site.cage(&allow, tenancy)))
        };
        Self(config.servers.iter().map(|(name, server)| (name.clone(), each(server))).collect())
    }

    /// That of a server's runs with such an account.
    #[must_use]
    pub fn get(&self, server: &ServerName, tenancy: Tenancy) -> Arc<Cage> {
        let stranger = || {
            let refused = format!("cannot start {server}: its configuration has changed meanwhile");
            Arc::new(Cage { refused: Some(refused), ..Cage::default() })
        };
        self.0.get(server).map_or_else(stranger, |each| Arc::clone(&each[tenancy as usize]))
    }
}

#[cfg(test)]
mod tests;
