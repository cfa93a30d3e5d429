//! Changes that users ask for in their own env files: who may, and what follows.
//!
//! The loop decides whose file is meant and that the caller may change it; another thread reads it,
//! has it decided what it shall say ([`selfserve`]), and writes it, for disks and TPMs take their
//! time. One change of a user's at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::oneshot;

use super::Daemon;
use super::call::refusal;
use super::event::Event;
use crate::control::protocol::{Accepted, Meant, Peer, Refusal, RefusalKind, Reply};
use crate::logic::access::Caller;
use crate::logic::instance::Want;
use crate::logic::selfserve::{self, Denied, Wisher};
use crate::model::file::{EnvFile, FileState, Seal};
use crate::model::{Config, InstanceId, Moment, ServerName, SpecId, UserName, Whom, Wish};
use crate::system::account;
use crate::system::envdir::Complete;
use crate::system::envdir::rewrite::Draft;
use crate::system::memory;
use crate::system::seal::Keeper;

/// What came of wishes, beside what stands in files.
#[derive(Debug, Default)]
pub(super) struct Wishes {
    /// Whose file is being changed.
    making: BTreeSet<UserName>,
    /// Held because a credential that they need was taken back, and not because anybody stopped them.
    taken_back: BTreeSet<InstanceId>,
}

impl Wishes {
    /// As an earlier daemon left it.
    pub(super) fn new(taken_back: BTreeSet<InstanceId>) -> Self {
        Self { taken_back, ..Self::default() }
    }

    /// What is held because a credential was taken back.
    pub(super) fn taken_back(&self) -> impl Iterator<Item = &InstanceId> {
        self.taken_back.iter()
    }

    /// Somebody has stopped it: a credential that comes back does not start it. True if one would have.
    pub(super) fn stopped(&mut self, id: &InstanceId) -> bool {
        self.taken_back.remove(id)
    }
}

/// What another thread needs to grant a wish.
pub(super) struct Job {
    user: UserName,
    wish: Wish,
    wisher: Wisher,
    config: Arc<Config>,
    env_dir: PathBuf,
    keeper: Keeper,
    before: Before,
}

/// How things were when the wish came. What is written may be seen before it is told that it is.
struct Before {
    generation: u64,
    specs: BTreeMap<InstanceId, SpecId>,
}

/// A wish was granted, or not.
pub(super) struct Wished {
    peer: Peer,
    user: UserName,
    /// For the log: `set NOTES_TOKEN`.
    what: String,
    reply: oneshot::Sender<Result<Reply, Refusal>>,
    before: Before,
    outcome: Result<Done, Refusal>,
}

/// What was written.
struct Done {
    /// `None`: it said so already.
    written: Option<Written>,
    lost: Vec<ServerName>,
}

struct Written {
    /// Its name in env.d.
    name: String,
    plain: EnvFile,
    sealed: Option<(EnvFile, Seal)>,
}

impl Daemon {
    /// Whose file is to be changed, if the caller may have that.
    pub(super) fn wish(
        &mut self,
        peer: Peer,
        caller: Caller,
        user: Option<UserName>,
        wish: Wish,
    ) -> Result<Job, Refusal> {
        let user = self.whose(caller, user)?;
        if !self.roster.has_file(&user) {
            let text =
                format!("there is no env file of {user} here; an administrator makes one: mcpsup add {user}");
            return Err(refusal(RefusalKind::Unknown, text));
        }
        let Some(config) = self.roster.config().cloned() else {
            let text = "mcpsup.toml is broken, so nothing can be checked; ask an administrator".to_owned();
            return Err(refusal(RefusalKind::Failed, text));
        };
        if !self.wishes.making.insert(user.clone()) {
            let text = format!("another change of {user}'s file is being made; try again");
            return Err(refusal(RefusalKind::Failed, text));
        }
        let may_write = peer.uid == 0 || peer.uid == account::own_uid();
        let wisher = if may_write { Wisher::Root } else { Wisher::User };
        let (env_dir, keeper) = (self.places.env_dir.clone(), self.seals.keeper());
        let before = Before { generation: *self.sources.generation.borrow(), specs: self.specs_of(&user) };
        Ok(Job { user, wish, wisher, config, env_dir, keeper, before })
    }

    /// The user whom the caller means and is, or may speak for.
    fn whose(&self, caller: Caller, user: Option<UserName>) -> Result<UserName, Refusal> {
        let Caller::User(uid) = caller else {
            let text = "say whose: --user USER".to_owned();
            return user.ok_or_else(|| refusal(RefusalKind::WrongUse, text));
        };
        // Also of users who have no instance, and of instances whose file is gone.
        let mut owners: BTreeMap<&UserName, Option<u32>> = self.roster.owners().collect();
        owners.extend(self.listed.iter().map(|(id, listed)| (&id.user, self.owner(id, listed))));
        let theirs =
            || owners.iter().filter(|(_, owner)| **owner == Some(uid)).map(|(user, _)| (*user).clone());
        let is_nobody = self.is_nobody(uid, &owners);
        match (user, theirs().next()) {
            (named, Some(own)) if !is_nobody && named.as_ref().is_none_or(|named| *named == own) => Ok(own),
            // Whether a name exists is for administrators: the answer is the same for both.
            (Some(named), _) => {
                Err(refusal(RefusalKind::NotPermitted, format!("{named}'s file is not yours to change")))
            }
            (None, _) => {
                let why = match is_nobody {
                    true if self.stand_in == Some(uid) => "anybody may be",
                    true => "several users are",
                    false => "no env file here is that of",
                };
                let text = format!("{why} uid {uid}; ask an administrator for one of your own (mcpsup add)");
                Err(refusal(RefusalKind::Unknown, text))
            }
        }
    }

    /// Has another thread do it; what came of it is noted, and answered, later.
    pub(super) fn begin_wish(&self, peer: Peer, job: Job, reply: oneshot::Sender<Result<Reply, Refusal>>) {
        let say = self.sources.say_done.clone();
        tokio::task::spawn_blocking(move || {
            let (user, what) = (job.user.clone(), told(&job.wish));
            let (before, outcome) = job.run();
            memory::overwrite_stack();
            if say.send(Event::Wished(Wished { peer, user, what, reply, before, outcome })).is_err() {
                tracing::debug!("the loop has ended");
            }
        });
    }

    pub(super) fn note_wished(&mut self, wished: Wished, now: Moment) {
        self.processes.reap_strays();
        let Wished { peer, user, what, reply, before, outcome } = wished;
        self.wishes.making.remove(&user);
        let answer = outcome.map(|done| {
            if done.written.is_some() {
                tracing::info!(%user, uid = peer.uid, pid = peer.pid, change = what, "env file changed");
            }
            Reply::Accepted(self.take_over(&user, &before, done, now))
        });
        self.reply(peer, reply, answer, now);
    }

    /// Reads what was written, and names the instances for which that changes anything.
    fn take_over(&mut self, user: &UserName, before: &Before, done: Done, now: Moment) -> Accepted {
        let unchanged = done.written.is_none();
        if let Some(Written { name, plain, sealed }) = done.written {
            if let Some((file, seal)) = &sealed {
                self.seals.know(user, file.clone(), *seal);
            }
            let complete = BTreeSet::from([name.into()]);
            self.look(now, &Whom::Users(BTreeSet::from([user.clone()])), Complete::Named(&complete));
            // Unless it is another by now, which is read as any other.
            if sealed.is_some_and(|(file, _)| self.seals.has(user, &file)) {
                self.hand_over(user, FileState::Read(plain), now);
            }
        }
        let lost: Vec<InstanceId> =
            done.lost.into_iter().map(|server| InstanceId::new(user.clone(), server)).collect();
        for id in &lost {
            // Else the last good version, which has what was taken back, would go on.
            if !self.fleet.is_held(id) {
                self.wishes.taken_back.insert(id.clone());
            }
            self.fleet.hold(id);
            self.roster.forget(id);
        }
        if !lost.is_empty() {
            self.save_holds();
            self.shown.look_at_all();
            let whom = self.roster.whom(BTreeSet::from([user.clone()]));
            self.resolve(now, &whom);
        }
        let after = self.specs_of(user);
        let is_new = |id: &&InstanceId| !self.fleet.is_held(id) && before.specs.get(*id) != after.get(*id);
        let changed: Vec<InstanceId> = after.keys().filter(is_new).cloned().collect();
        let meant = changed.into_iter().chain(lost).map(|id| {
            let run = self.fleet.get(&id).and_then(crate::logic::instance::Instance::last_run);
            Meant { user: id.user, server: id.server, run }
        });
        Accepted {
            generation: before.generation,
            instances: meant.collect(),
            unchanged,
            ..Accepted::default()
        }
    }

    /// Lets those start whose credentials are there again, unless somebody has stopped them meanwhile.
    pub(super) fn give_back(&mut self) {
        let is_whole =
            |id: &InstanceId| matches!(self.listed.get(id).map(|listed| &listed.want), Some(Want::Always(_)));
        let whole: Vec<InstanceId> =
            self.wishes.taken_back.iter().filter(|id| is_whole(id)).cloned().collect();
        for id in &whole {
            self.wishes.taken_back.remove(id);
            self.fleet.release(id);
        }
        if !whole.is_empty() {
            self.save_holds();
            self.shown.look_at_all();
        }
    }

    fn specs_of(&self, user: &UserName) -> BTreeMap<InstanceId, SpecId> {
        let whom = Whom::Users(BTreeSet::from([user.clone()]));
        let spec = |(id, listed): (&InstanceId, &crate::logic::roster::Listed)| match &listed.want {
            Want::Always(spec) => Some((id.clone(), spec.id)),
            Want::Never | Want::Keep => None,
        };
        whom.of(&self.listed).filter_map(spec).collect()
    }
}

/// What a wish is called in the log; never with a value.
fn told(wish: &Wish) -> String {
    match wish {
        Wish::Set { name, .. } => format!("set {name}"),
        Wish::Unset { name } => format!("unset {name}"),
        Wish::Enable(server) => format!("enable {server}"),
        Wish::Disable(server) => format!("disable {server}"),
    }
}

impl Job {
    fn run(self) -> (Before, Result<Done, Refusal>) {
        let outcome = self.grant();
        (self.before, outcome)
    }

    fn grant(&self) -> Result<Done, Refusal> {
        let failed = |text: String| refusal(RefusalKind::Failed, text);
        let account_uid = |user: &UserName| account::uid_of(user.as_str());
        let draft = Draft::open(&self.env_dir, &self.user, &account_uid).map_err(failed)?;
        let Some(draft) = draft else {
            let text =
                format!("the env file of {0} has just gone; ask an administrator: mcpsup add {0}", self.user);
            return Err(refusal(RefusalKind::Unknown, text));
        };
        let EnvFile { name, bytes, owner_uid } = draft.file();
        let plain = match draft.seal() {
            None => bytes.clone(),
            Some(seal) => {
                let opened = self.keeper.open(seal, &self.user, bytes);
                opened.map_err(|why| failed(format!("{name} {why}")))?
            }
        };
        let plain = EnvFile { name: name.clone(), bytes: plain, owner_uid: *owner_uid };
        let granted =
            selfserve::grant(&self.wish, self.wisher, &plain, &self.config).map_err(|why| denied(&why))?;
        let Some(bytes) = granted.bytes else {
            return Ok(Done { written: None, lost: Vec::new() });
        };
        let sealed = match draft.seal() {
            None => None,
            Some(seal) => {
                let made = self.keeper.close(seal, &self.user, &bytes);
                Some((made.map_err(|why| failed(format!("{name} {why}")))?, seal))
            }
        };
        let put = draft.put(sealed.as_ref().map_or(&bytes, |(sealed, _)| sealed));
        put.map_err(|why| failed(format!("nothing is changed in {name}: {why}")))?;
        let sealed = sealed.map(|(bytes, seal)| {
            (EnvFile { name: name.clone(), bytes: bytes.into(), owner_uid: *owner_uid }, seal)
        });
        let written = Written { name: draft.name().to_owned(), plain: EnvFile { bytes, ..plain }, sealed };
        Ok(Done { written: Some(written), lost: granted.lost })
    }
}

fn denied(denied: &Denied) -> Refusal {
    let kind = match denied {
        Denied::WrongUse(_) => RefusalKind::WrongUse,
        Denied::NotPermitted(_) => RefusalKind::NotPermitted,
        Denied::Impossible(_) => RefusalKind::Failed,
    };
    refusal(kind, denied.to_string())
}
