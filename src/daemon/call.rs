//! Answering the control socket: who asks, what they mean, what it changes in the wants.

use std::collections::{BTreeMap, BTreeSet};

use tokio::sync::oneshot;

use super::Daemon;
use super::gates::Kind;
use super::saves::{Change, Pending};
use super::tokens::{Asker, Shape};
use super::wishes::Job;
use crate::control::passage::Passage;
use crate::control::protocol::{
    Accepted, Call, LogHandle, Meant, Peer, Refusal, RefusalKind, Reply, Request, Target,
};
use crate::logic::access::{Caller, is_shared};
use crate::logic::roster::Listed;
use crate::model::{InstanceId, Moment, UserName, Whom};
use crate::system::account;
use crate::system::envdir::Complete;

/// What a request leads to.
pub(super) enum Answer {
    /// Its answer.
    Now(Reply),
    /// A change of these, and this answer once it is made.
    Change(Change, Vec<InstanceId>, Accepted),
    /// Work for another thread, and an answer when that is done.
    Wish(Job),
    /// A new token for this user, and an answer with it.
    Token(UserName, Shape),
}

impl Daemon {
    pub(super) fn answer(&mut self, call: Call, now: Moment) {
        let Call { peer, request, reply } = call;
        self.say_refusals(now);
        match self.decide(peer, request, now) {
            Ok(Answer::Now(answer)) => self.reply(peer, reply, Ok(answer), now),
            Ok(Answer::Change(change, ids, accepted)) => {
                self.change(Pending { change, ids, peer, reply, accepted }, now);
            }
            Ok(Answer::Wish(job)) => self.begin_wish(peer, job, reply),
            Ok(Answer::Token(user, shape)) => self.begin_token(user, Asker { peer, shape, reply }),
            Err(refusal) => self.reply(peer, reply, Err(refusal), now),
        }
    }

    /// Answers, and says in the log who was not permitted.
    pub(super) fn reply(
        &mut self,
        peer: Peer,
        reply: oneshot::Sender<Result<Reply, Refusal>>,
        answer: Result<Reply, Refusal>,
        now: Moment,
    ) {
        if let Err(refusal) = &answer
            && refusal.kind == RefusalKind::NotPermitted
            && self.refusals.note(peer.uid, now)
        {
            tracing::warn!(uid = peer.uid, pid = peer.pid, refusal = refusal.text, "request refused");
        }
        if reply.send(answer).is_err() {
            tracing::debug!(pid = peer.pid, "a caller did not wait for its answer");
        }
    }

    /// Says how often somebody was refused beyond what was said at once.
    pub(super) fn say_refusals(&mut self, now: Moment) {
        for (uid, count) in self.refusals.unsaid(now) {
            tracing::warn!(uid, count, "more requests refused");
        }
        for (uid, count) in self.doors.unsaid(now) {
            tracing::warn!(uid, count, "more refused at doors");
        }
    }

    fn decide(&mut self, peer: Peer, request: Request, now: Moment) -> Result<Answer, Refusal> {
        let caller = Caller::of(peer.uid, account::own_uid(), peer.is_member);
        let answer = match request {
            Request::Status(target) => {
                let nobody_named = target.user.is_none() && target.server.is_none();
                let meant = match self.meant(caller, &target) {
                    // Nobody yet is an answer; an unknown name is not.
                    Err(refusal) if !(nobody_named && refusal.kind == RefusalKind::Unknown) => {
                        return Err(refusal);
                    }
                    meant => meant.unwrap_or_default(),
                };
                Ok(Reply::Status(self.report(&meant, caller == Caller::Admin, now)))
            }
            Request::Start(target) => return self.changed(caller, &target, Change::Release),
            Request::Stop(target) => return self.changed(caller, &target, Change::Hold),
            Request::Restart(target) => return self.changed(caller, &target, Change::Renew),
            // The map is a public file.
            Request::Ports => Ok(Reply::Ports(self.port_map(*self.sources.generation.borrow()))),
            Request::Logs(target) => self.log_of(caller, &target),
            Request::Mcp(target) => self.way_to(caller, &target),
            Request::Token { target, lasting, renew } => {
                return self.headers_for(caller, target, Kind { lasting, renew });
            }
            Request::Remove(user) => self.remove(caller, &user, now),
            Request::Reload => {
                admin_only(caller)?;
                let generation = *self.sources.generation.borrow();
                self.reload(now);
                let refused = self.roster.config_problems().to_vec();
                Ok(Reply::Accepted(Accepted { generation, refused, ..Accepted::default() }))
            }
            Request::Wish(user, wish) => return self.wish(peer, caller, user, wish).map(Answer::Wish),
        };
        answer.map(Answer::Now)
    }

    /// The instances the caller means and may mean.
    pub(super) fn meant(&self, caller: Caller, target: &Target) -> Result<Vec<InstanceId>, Refusal> {
        let mut meant = self.matching(target);
        let known = !meant.is_empty();
        if let Caller::User(uid) = caller {
            let owners: BTreeMap<&UserName, Option<u32>> =
                self.listed.iter().map(|(id, listed)| (&id.user, self.owner(id, listed))).collect();
            let is_nobody = self.is_nobody(uid, &owners);
            meant.retain(|id| !is_nobody && caller.may_see(owners.get(&id.user).copied().flatten()));
        }
        match (meant.is_empty(), &target.user) {
            (false, _) => Ok(meant),
            // Whether a name exists is for administrators: the answer is the same for both.
            (true, Some(user)) if caller != Caller::Admin => {
                let hint = self.hint(target, "/");
                Err(refusal(RefusalKind::NotPermitted, format!("{user} is not yours to see or steer{hint}")))
            }
            (true, Some(user)) if !known => Err(refusal(RefusalKind::Unknown, self.unknown(user, target))),
            (true, None) if caller == Caller::Admin => {
                let text = "nobody has a server here: no NAME.env in env.d asks for one".to_owned();
                Err(refusal(RefusalKind::Unknown, text))
            }
            (true, Some(_) | None) => {
                Err(refusal(RefusalKind::Unknown, "no instance here is yours".to_owned()))
            }
        }
    }

    /// The uid by which a user is known on this host.
    pub(super) fn owner(&self, id: &InstanceId, listed: &Listed) -> Option<u32> {
        listed.owner_uid.or_else(|| self.roster.owner_uid(&id.user))
    }

    /// True if a uid identifies none of these users: whoever has it may be anybody, or several of them.
    pub(super) fn is_nobody(&self, uid: u32, owners: &BTreeMap<&UserName, Option<u32>>) -> bool {
        self.stand_in == Some(uid) || is_shared(uid, owners.iter().map(|(user, owner)| (*user, *owner)))
    }

    fn unknown(&self, user: &UserName, target: &Target) -> String {
        match &target.server {
            Some(server) if self.fleet.iter().any(|(id, _)| id.user == *user) => {
                format!("{user} has no server \"{server}\"")
            }
            Some(_) | None => {
                let hint = self.hint(target, "USER/");
                format!("there is no user \"{user}\": no {user}.env in env.d{hint}")
            }
        }
    }

    /// For who named a server where a user stands. Which servers are configured is nobody's secret.
    fn hint(&self, target: &Target, whose: &str) -> String {
        let is_server =
            |name: &&UserName| self.config.servers.keys().any(|key| key.as_str() == name.as_str());
        let named = target.user.as_ref().filter(|_| target.server.is_none()).filter(is_server);
        named.map_or_else(String::new, |name| format!("; the server is {whose}{name}"))
    }

    fn changed(&self, caller: Caller, target: &Target, change: Change) -> Result<Answer, Refusal> {
        let (ids, accepted) = self.accept(caller, target)?;
        Ok(Answer::Change(change, ids, accepted))
    }

    /// What is meant by a change, and what is said when it is made.
    fn accept(&self, caller: Caller, target: &Target) -> Result<(Vec<InstanceId>, Accepted), Refusal> {
        if target.user.is_none() && !target.all && caller == Caller::Admin {
            let text = "say whose: USER, USER/SERVER or --all".to_owned();
            return Err(refusal(RefusalKind::WrongUse, text));
        }
        let meant = self.meant(caller, target)?;
        let generation = *self.sources.generation.borrow();
        let instances = meant.iter().map(|id| Meant {
            user: id.user.clone(),
            server: id.server.clone(),
            run: self.fleet.get(id).and_then(crate::logic::instance::Instance::last_run),
        });
        let instances = instances.collect();
        Ok((meant, Accepted { generation, instances, ..Accepted::default() }))
    }

    fn log_of(&mut self, caller: Caller, target: &Target) -> Result<Reply, Refusal> {
        let id = self.the_one(caller, target)?;
        Ok(Reply::Log(LogHandle { path: self.log_path(&id), written: Some(self.bell(&id)) }))
    }

    /// The one instance the caller means and may mean.
    fn the_one(&self, caller: Caller, target: &Target) -> Result<InstanceId, Refusal> {
        let mut meant = self.meant(caller, target)?;
        if meant.len() > 1 {
            let names: Vec<String> = meant.iter().take(10).map(ToString::to_string).collect();
            return Err(refusal(RefusalKind::WrongUse, format!("say which: {}", names.join(", "))));
        }
        meant.pop().ok_or_else(|| refusal(RefusalKind::Unknown, "no instance here is yours".to_owned()))
    }

    /// The way to an instance for whoever may steer it.
    fn way_to(&self, caller: Caller, target: &Target) -> Result<Reply, Refusal> {
        let id = self.the_one(caller, target)?;
        let path = self.listed.get(&id).map(|listed| listed.path().to_owned());
        let Some(entrance) = path.and_then(|path| self.doors.entrance(&id, path)) else {
            let why = self.doors.problem(&id).map_or_else(String::new, |problem| format!(": {problem}"));
            return Err(refusal(RefusalKind::Failed, format!("{id} has no door at present{why}")));
        };
        Ok(Reply::Passage(Passage::new(id, move |request| entrance.clone().pass(request))))
    }

    fn remove(&mut self, caller: Caller, user: &UserName, now: Moment) -> Result<Reply, Refusal> {
        admin_only(caller)?;
        self.look(now, &Whom::All, Complete::Named(&BTreeSet::new()));
        let target = Target { user: Some(user.clone()), ..Target::default() };
        if let Some(name) = self.env_dir.file_of(user) {
            return Err(refusal(
                RefusalKind::Failed,
                format!("env.d/{name} is still there; delete it first"),
            ));
        }
        let known = !self.matching(&target).is_empty();
        if !known {
            return Err(refusal(RefusalKind::Unknown, self.unknown(user, &target)));
        }
        let (_, accepted) = self.accept(caller, &target)?;
        self.removing.insert(user.clone());
        let whom = self.roster.whom(BTreeSet::from([user.clone()]));
        self.resolve(now, &whom);
        Ok(Reply::Accepted(accepted))
    }
}

fn admin_only(caller: Caller) -> Result<(), Refusal> {
    match caller {
        Caller::Admin => Ok(()),
        Caller::User(_) => Err(refusal(
            RefusalKind::NotPermitted,
            "only root, the daemon's own user and the group mcpsup may do that".to_owned(),
        )),
    }
}

pub(super) fn refusal(kind: RefusalKind, text: String) -> Refusal {
    Refusal { kind, text }
}
