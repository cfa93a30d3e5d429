//! Who should run what: mcpsup.toml and everybody's files, made into a [`Want`] per instance.
//!
//! It remembers the last good version of everything, so that a file that breaks changes nothing
//! but what `status` says. It reads no file and looks up no account itself, and it decides nothing
//! about processes: what is wanted goes to [`fleet`](crate::logic::fleet). One user's answers do
//! not depend on another's, save that a port has one owner ([`ports`](crate::logic::ports)), and that
//! whose processes run as one account are kept from each other all the more ([`Tenancy`]).
//!
//! `user` follows one user's file, `settings` reads what it says to mcpsup itself, `spec` makes
//! the process's side of it.

mod digest;
mod settings;
mod spec;
#[cfg(test)]
mod tests;
mod user;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use crate::logic::instance::Want;
use crate::logic::ports::{Asked, Ports};
use crate::logic::uids::{Facts, Uids};
use crate::model::cage::Tenancy;
use crate::model::config::{Server, Transport};
use crate::model::file::{FileState, Look};
use crate::model::spec::Account;
use crate::model::status::StateName;
use crate::model::{Cage, Config, InstanceId, Problem, ServerName, Spec, SpecId, UserName, Whom};

pub use settings::{faults, is_reserved, servers_of};
use user::User;

/// For so many users at once everybody is asked: tables that are filled one by one stay half empty,
/// and those that are made in one go do not.
const MANY: usize = 64;

/// The path of an MCP endpoint whose server is no longer described.
const USUAL_PATH: &str = "/mcp";

/// How accounts are looked up.
pub type Accounts<'a> = &'a dyn Fn(&str) -> Result<Option<Account>, String>;

/// What this host adds to what the files say.
pub struct Host<'a> {
    /// Ports that others on this host have taken: not to be given to anybody new.
    pub blocked: &'a BTreeSet<u16>,
    /// The system account of a name; an error, in words, where that cannot be found out.
    pub accounts: Accounts<'a>,
    /// What is known of uids, for users without an account.
    pub uids: Facts<'a>,
    /// The daemon's state directory; an instance's own is `instances/USER/SERVER` in it.
    pub state: &'a Path,
    /// The daemon's runtime directory, likewise.
    pub runtime: &'a Path,
    /// The daemon runs as root, so each user can have an account of their own.
    pub is_root: bool,
    /// The key of [`SpecId`]s, of the state directory.
    pub digest_key: &'a [u8; 32],
    /// What a server's runs are kept from, by whose account they have.
    pub cage: &'a dyn Fn(&ServerName, Tenancy) -> Arc<Cage>,
    /// Users whom `mcpsup remove` is freeing of everything: nothing is wanted of theirs.
    pub removing: &'a BTreeSet<UserName>,
}

/// What is to be done about one instance, and what to say of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Listed {
    /// What should be.
    pub want: Want,
    /// Its door; `None` if no port could be given.
    pub door: Option<u16>,
    /// What mcpsup.toml says of its server; `None` if it does not describe it.
    pub server: Option<Arc<Server>>,
    /// The uid its user has on this host: the account's that it runs as, else that of the file's
    /// owner. `None` where neither is known.
    pub owner_uid: Option<u32>,
    /// What to call it while nothing runs.
    pub absent_because: StateName,
    /// What is wrong with its file or its configuration, also while a last good version goes on.
    pub problems: Vec<Problem>,
}

/// The last good version of everything.
#[derive(Debug, Default)]
pub struct Roster {
    config: Option<Arc<Config>>,
    config_problems: Vec<Problem>,
    /// env.d could be read at least once.
    looked: bool,
    directory_problem: Option<Problem>,
    // Boxed, so that no node of the map has room for users who are not there.
    users: BTreeMap<UserName, Box<User>>,
    /// What is wrong with files of users who have no instance to say it of.
    unsaid: BTreeMap<UserName, Vec<Problem>>,
    /// Everybody has been asked and everybody has what they asked for, so nobody waits for what
    /// another gives up: then it is enough to ask those of whom something changed.
    is_settled: bool,
    /// The accounts as which servers of several users run, by uid.
    shared: BTreeSet<u32>,
    /// The uid of the account of a user's name, of users of whom no file tells: theirs is gone, or was
    /// never complete. Asked here and not when somebody wants to know, for the name service may be slow.
    named: BTreeMap<UserName, Option<u32>>,
    /// Of whom something changed because of others, see [`displaced`](Self::displaced).
    displaced: BTreeSet<UserName>,
}

impl Roster {
    /// Takes a newly read mcpsup.toml. A broken one changes nothing but [`problems`](Self::problems).
    ///
    /// Accounts are looked up again for everybody.
    pub fn set_config(&mut self, config: Result<Config, Vec<Problem>>) {
        match config {
            Ok(config) => {
                self.config = Some(Arc::new(config));
                self.is_settled = false;
                self.config_problems.clear();
                self.users.values_mut().for_each(|user| user.forget_conclusions());
            }
            Err(problems) => self.config_problems = problems,
        }
    }

    /// Takes what a look at env.d found, and says of whom that changed anything. While the directory
    /// is unknown every file is as it was.
    pub fn set_files(&mut self, look: Look) -> BTreeSet<UserName> {
        let mut changed = BTreeSet::new();
        let known = look.directory.is_ok();
        self.directory_problem = look.directory.err();
        self.looked |= known && look.whole;
        if known && look.whole {
            self.users.retain(|user, _| {
                let stays = look.files.contains_key(user);
                if !stays {
                    changed.insert(user.clone());
                }
                stays
            });
        }
        if known {
            let is_new = |name: &&UserName| !self.users.contains_key(*name);
            // Appended in one go: a map that is filled one by one in ascending order stays half empty.
            let mut new: BTreeMap<_, _> =
                look.files.keys().filter(is_new).map(|name| (name.clone(), Box::default())).collect();
            changed.extend(new.keys().cloned());
            self.users.append(&mut new);
        }
        for (name, state) in look.files {
            if let Some(user) = self.users.get_mut(&name)
                && user.take(state)
            {
                changed.insert(name);
            }
        }
        changed
    }

    /// Takes what became of one user's file, if they have one; true if that changes anything.
    pub fn set_file(&mut self, user: &UserName, state: FileState) -> bool {
        self.users.get_mut(user).is_some_and(|user| user.take(state))
    }

    /// Everybody who has a file, and the uid by which they are known ([`owner_uid`](Self::owner_uid)).
    pub fn owners(&self) -> impl Iterator<Item = (&UserName, Option<u32>)> {
        self.users.keys().map(|name| (name, self.owner_uid(name)))
    }

    /// Forgets what a server of a user last ran with: a credential of it was taken back.
    pub fn forget(&mut self, id: &InstanceId) {
        if let Some(user) = self.users.get_mut(&id.user) {
            user.forget(&id.server);
        }
    }

    /// Looks accounts up again that were not to be found, and says whose are to be
    /// [resolved](Self::resolve) for that. `all`: also of those who are no worse off without one.
    pub fn look_up_again(&mut self, all: bool, accounts: Accounts<'_>) -> BTreeSet<UserName> {
        let mut changed = BTreeSet::new();
        for (name, user) in &mut self.users {
            if user.looks_up_again(name, all, accounts) {
                user.forget_conclusions();
                changed.insert(name.clone());
            }
        }
        for (name, uid) in self.named.iter_mut().filter(|_| all) {
            let now = uid_of(name, accounts);
            if *uid != now {
                *uid = now;
                changed.insert(name.clone());
            }
        }
        changed
    }

    /// Whom to [resolve](Self::resolve) where something changed of these users: everybody, while
    /// somebody waits for what another may give up, or where these are many.
    #[must_use]
    pub fn whom(&self, changed: BTreeSet<UserName>) -> Whom {
        if self.is_settled && changed.len() < MANY { Whom::Users(changed) } else { Whom::All }
    }

    /// True while the user has a file, or had one so recently that it may come back.
    #[must_use]
    pub fn has_file(&self, user: &UserName) -> bool {
        self.users.contains_key(user)
    }

    /// The uid by which a user is known on this host who has a file or a port, whether or not they want
    /// any server: their account's, else that of the file's owner. One whose file is gone is still the
    /// account of that name.
    #[must_use]
    pub fn owner_uid(&self, user: &UserName) -> Option<u32> {
        let by_file = self.users.get(user).and_then(|user| user.owner_uid());
        by_file.or_else(|| self.named.get(user).copied().flatten())
    }

    /// The last good mcpsup.toml.
    #[must_use]
    pub fn config(&self) -> Option<&Arc<Config>> {
        self.config.as_ref()
    }

    /// What is wrong with mcpsup.toml as it was read last. Nothing of it is in force then.
    #[must_use]
    pub fn config_problems(&self) -> &[Problem] {
        &self.config_problems
    }

    /// What is wrong and belongs to no instance: mcpsup.toml, an unreadable env.d, and, since the
    /// last [`resolve`](Self::resolve), files of users who have no instance.
    #[must_use]
    pub fn problems(&self) -> Vec<Problem> {
        let general = self.config_problems.iter().chain(&self.directory_problem);
        general.chain(self.unsaid.values().flatten()).cloned().collect()
    }

    /// What should be, for every instance of `whom` that is known or has a port, sorted by name. An
    /// instance of theirs that is not named is to be dropped.
    ///
    /// `whom` is what [`whom`](Self::whom) makes of those of whom something changed since the last
    /// call: their file ([`set_files`](Self::set_files)), their ports, or what `host` says of them.
    ///
    /// Gives ports and uids to those who have none, and keeps everybody else's.
    pub fn resolve(
        &mut self,
        whom: &Whom,
        ports: &mut Ports,
        uids: &mut Uids,
        host: &Host<'_>,
    ) -> BTreeMap<InstanceId, Listed> {
        let mut all = self.as_files_say(whom, ports, uids, host);
        // Whatever is known or not of files and configuration: else they would never be gone.
        for (_, listed) in all.iter_mut().filter(|(id, _)| host.removing.contains(&id.user)) {
            listed.want = Want::Never;
            listed.absent_because = StateName::Gone;
        }
        // Everybody is the daemon's own user where that is not root.
        if host.is_root {
            self.look_up_names(whom, &all, host.accounts);
        }
        all
    }

    /// Lists what runs beside `listed`, while nothing is known of any file, or of what to run: an earlier
    /// daemon may have died before a port that it gave was remembered, and what runs goes on all the same.
    pub fn keep<'a>(
        &self,
        listed: &mut BTreeMap<InstanceId, Listed>,
        running: impl Iterator<Item = &'a InstanceId>,
        removing: &BTreeSet<UserName>,
    ) {
        if self.config.is_some() && self.looked {
            return;
        }
        for id in running {
            let is_removed = removing.contains(&id.user);
            let want = if is_removed { Want::Never } else { Want::Keep };
            listed.entry(id.clone()).or_insert_with(|| {
                Listed::without_spec(want, StateName::Gone, None, id, self.config.as_deref())
            });
        }
    }

    /// Looks up of `whom` those of whom no file tells; whoever was looked up before is not again.
    fn look_up_names(&mut self, whom: &Whom, all: &BTreeMap<InstanceId, Listed>, accounts: Accounts<'_>) {
        let listed = all.keys().map(|id| &id.user).filter(|name| !self.users.contains_key(*name));
        let unread = self.users.iter().filter(|(_, user)| user.owner_uid().is_none());
        let unread = unread.map(|(name, _)| name).filter(|name| whom.has(name));
        let untold: BTreeSet<UserName> = listed.chain(unread).cloned().collect();
        self.named.retain(|name, _| !whom.has(name) || untold.contains(name));
        for name in untold {
            self.named.entry(name).or_insert_with_key(|name| uid_of(name, accounts));
        }
    }

    /// Whose account has become several users', or one's alone, since this was last asked, and who were
    /// not among those resolved then: they are to be resolved now.
    pub fn displaced(&mut self) -> BTreeSet<UserName> {
        std::mem::take(&mut self.displaced)
    }

    /// What is right, and should be known all the same: who run as one account.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        let of = |uid: &u32| {
            let theirs = self.users.iter().filter(|(_, user)| user.account_uid() == Some(*uid));
            let names: Vec<&str> = theirs.map(|(name, _)| name.as_str()).collect();
            format!(
                "servers of {} run as one account, uid {uid}: they are kept from each other as under an ordinary user's daemon (no Unix sockets, nothing of the account's home to write to); an account for each would do more",
                names.join(", ")
            )
        };
        self.shared.iter().map(of).collect()
    }

    /// Finds out which accounts are several users'.
    fn find_shared(&mut self, whom: &Whom) {
        let (mut seen, mut shared) = (BTreeSet::new(), BTreeSet::new());
        for uid in self.users.values().filter_map(|user| user.account_uid()) {
            if !seen.insert(uid) {
                shared.insert(uid);
            }
        }
        let changed: BTreeSet<u32> = shared.symmetric_difference(&self.shared).copied().collect();
        self.shared = shared;
        if !changed.is_empty() {
            let theirs = self.users.iter().filter(|(name, user)| {
                !whom.has(name) && user.account_uid().is_some_and(|uid| changed.contains(&uid))
            });
            self.displaced.extend(theirs.map(|(name, _)| name.clone()));
        }
    }

    fn as_files_say(
        &mut self,
        whom: &Whom,
        ports: &mut Ports,
        uids: &mut Uids,
        host: &Host<'_>,
    ) -> BTreeMap<InstanceId, Listed> {
        let Some(config) = self.config.clone().filter(|_| self.looked) else {
            let all = self.nothing_known(ports);
            let problems = |user: &User| user.problems().cloned().collect();
            self.unsaid = self.users.iter().map(|(name, user)| (name.clone(), problems(user))).collect();
            return all;
        };
        let mut wanted = Vec::new();
        match whom {
            Whom::All => {
                self.unsaid.clear();
                for (name, user) in &mut self.users {
                    ask(name, user, &config, (ports, uids), host, &mut wanted, &mut self.unsaid);
                }
            }
            Whom::Users(names) => {
                for name in names {
                    self.unsaid.remove(name);
                    if let Some(user) = self.users.get_mut(name) {
                        ask(name, user, &config, (ports, uids), host, &mut wanted, &mut self.unsaid);
                    }
                }
            }
        }
        self.find_shared(whom);
        // Whoever asked in vain is looked at again within a minute.
        uids.sweep(&|user| self.users.contains_key(user), &host.uids);
        let answers = ports.assign(&config.ports, &wanted, host.blocked);
        // Whoever is refused a port may get it when another lets go of it.
        self.is_settled = answers.values().all(Result::is_ok);
        let shared = &self.shared;
        // Made in one go: a map that is filled one by one in ascending order stays half empty.
        let mut all: BTreeMap<InstanceId, Listed> = answers
            .into_iter()
            .filter_map(|(id, answer)| {
                let user = self.users.get_mut(&id.user)?;
                let listed = user.list(&id, answer, &config, host, ports.door(&id), shared);
                Some((id, listed))
            })
            .collect();
        let left_over: Vec<_> = ports.doors_of(whom).filter(|(id, _)| !all.contains_key(*id)).collect();
        all.extend(left_over.into_iter().map(|(id, door)| (id.clone(), self.left_over(id, door, &config))));
        all
    }

    /// The spec of a session's own process, for an instance that runs `base` now: made of the same
    /// file and configuration. `None` where no such process can be made.
    #[must_use]
    pub fn for_session(&self, id: &InstanceId, base: SpecId, host: &Host<'_>) -> Option<Spec> {
        self.users.get(&id.user)?.for_session(id, base, host)
    }

    /// Nothing is known of any file, or of what to run: what runs goes on.
    fn nothing_known(&self, ports: &Ports) -> BTreeMap<InstanceId, Listed> {
        let is_wrong = !self.config_problems.is_empty() || self.directory_problem.is_some();
        let absent = if is_wrong { StateName::Refused } else { StateName::Down };
        let keep = |(id, door): (&InstanceId, u16)| {
            let listed = Listed::without_spec(Want::Keep, absent, Some(door), id, self.config.as_deref());
            (id.clone(), listed)
        };
        ports.doors().map(keep).collect()
    }

    /// An instance that has a port, and that no file asks for.
    fn left_over(&self, id: &InstanceId, door: u16, config: &Config) -> Listed {
        let (want, absent) = match self.users.get(&id.user) {
            // There is a file that nobody has seen complete yet: it may ask for this.
            Some(user) if user.good.is_none() && config.servers.contains_key(&id.server) => {
                (Want::Keep, StateName::Down)
            }
            Some(_) if config.servers.contains_key(&id.server) => (Want::Never, StateName::Disabled),
            Some(_) | None => (Want::Never, StateName::Gone),
        };
        Listed::without_spec(want, absent, Some(door), id, Some(config))
    }
}

/// The uid of the account of a user's name; none too where that cannot be found out.
fn uid_of(name: &UserName, accounts: Accounts<'_>) -> Option<u32> {
    accounts(name.as_str()).ok().flatten().map(|account| account.uid)
}

/// Finds out what follows from one user's file and which ports that needs; what is wrong with one
/// who needs none is noted in `unsaid`.
fn ask(
    name: &UserName,
    user: &mut User,
    config: &Config,
    (ports, uids): (&Ports, &mut Uids),
    host: &Host<'_>,
    wanted: &mut Vec<Asked>,
    unsaid: &mut BTreeMap<UserName, Vec<Problem>>,
) {
    let before = wanted.len();
    user.check(name, config, uids, host);
    user.ask(name, config, ports, wanted);
    if wanted.len() == before && user.problems().next().is_some() {
        unsaid.insert(name.clone(), user.problems().cloned().collect());
    }
}

impl Listed {
    /// The path of its MCP endpoint.
    #[must_use]
    pub fn path(&self) -> &str {
        self.server.as_ref().map_or(USUAL_PATH, |server| &server.path)
    }

    /// How its server is spoken with; `None` if mcpsup.toml does not describe it.
    #[must_use]
    pub fn transport(&self) -> Option<Transport> {
        self.server.as_ref().map(|server| server.transport)
    }

    fn without_spec(
        want: Want,
        absent_because: StateName,
        door: Option<u16>,
        id: &InstanceId,
        config: Option<&Config>,
    ) -> Self {
        let server = config.and_then(|config| config.servers.get(&id.server)).cloned();
        Self { want, door, server, owner_uid: None, absent_because, problems: Vec::new() }
    }
}
