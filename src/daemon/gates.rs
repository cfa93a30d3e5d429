//! Who may come in at each door, found out anew whenever a user, their account or the configuration
//! changes.
//!
//! A user is known by the uid that their processes run as, or that their file belongs to, and only
//! if no other user is known by it and nothing of another's runs under it (PRODUCT §7). What runs
//! counts as long as it is alive, whatever the files say by then.

use std::collections::{BTreeSet, HashMap};

use super::Daemon;
use super::call::Answer;
use super::event::Event;
use super::tokens::{Asker, Minted, Shape};
use crate::control::protocol::{Refusal, RefusalKind, Reply, Target};
use crate::door::Gate;
use crate::logic::access::{Caller, Guard, identities};
use crate::logic::instance::Want;
use crate::model::config::Access;
use crate::model::{InstanceId, Moment, UserName};
use crate::system::account;

/// Which token is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Kind {
    pub(super) lasting: bool,
    pub(super) renew: bool,
}

impl Daemon {
    /// Tells every door who may come in.
    pub(super) fn set_gates(&mut self) {
        let (gates, known) = {
            let owners = self.owners();
            let alone = identities(self.uids());
            let nobodys = self.stand_in;
            let gate = |id: &InstanceId| {
                let uid = owners.get(&id.user).copied().or_else(|| self.idle_owner(&id.user));
                let is_alone = |uid: &u32| *uid != 0 && alone.get(uid).is_none_or(|of| *of == Some(&id.user));
                let owner = uid.filter(|uid| Some(*uid) != nobodys && is_alone(uid));
                let guard = Guard { access: self.access(id), owner, admits_root: self.is_root };
                // Nobody logs in as a reserved uid: beside what runs under it, only root comes with none.
                let logs_in = owner.is_some() && !self.is_reserved(&id.user, owner);
                let is_known = logs_in || (self.is_root && uid.is_none_or(|uid| uid == 0));
                let takes_token = match guard.access {
                    Access::Owner => !is_known,
                    Access::Token => true,
                    Access::Open => false,
                };
                (Gate { guard, token: self.tokens.of(&id.user).cloned() }, takes_token)
            };
            let gates: Vec<_> = self.doors.ids().map(|id| (id.clone(), gate(id))).collect();
            // One by one: collecting sorts, and the code for that would come into memory for this alone.
            let mut known = BTreeSet::new();
            known.extend(alone.iter().filter_map(|(uid, whose)| whose.map(|_| *uid)));
            (gates, known)
        };
        if *self.sources.known.borrow() != known {
            self.doors.know(known.clone());
            self.sources.known.send_replace(known);
        }
        for (id, (gate, takes_token)) in gates {
            if self.doors.guard(&id, gate, takes_token) {
                // It stands in the port map.
                self.shown.look_at_report();
            }
        }
    }

    /// What the configuration says of an instance's door; the usual where nobody describes it any more.
    pub(super) fn access(&self, id: &InstanceId) -> Access {
        self.config.servers.get(&id.server).map_or(Access::Owner, |server| server.access)
    }

    /// By which uid each user is known: what their file says, or, of one whose file cannot be read,
    /// whom their process was started as.
    fn owners(&self) -> HashMap<&UserName, u32> {
        let running = self.current.values().map(|current| (&current.instance.user, current.uid));
        let listed = self.listed.iter().filter_map(|(id, listed)| Some((&id.user, listed.owner_uid?)));
        // Later ones win.
        running.chain(listed).collect()
    }

    /// True if it is the uid that was given to this user because they have no account.
    pub(super) fn is_reserved(&self, user: &UserName, uid: Option<u32>) -> bool {
        uid.is_some() && self.uids.of(user) == uid
    }

    /// By which uid a user is known of whom nothing runs or is to run: they are to hear at their door
    /// why nobody answers.
    fn idle_owner(&self, user: &UserName) -> Option<u32> {
        if !self.is_root {
            return Some(account::own_uid());
        }
        self.roster.owner_uid(user)
    }

    /// Every uid under which a user is known, or something of theirs runs or is to run.
    fn uids(&self) -> impl Iterator<Item = (&UserName, u32)> {
        let own = account::own_uid();
        let running = self.current.values().map(|current| (&current.instance.user, current.uid));
        let listed = self.listed.iter().flat_map(move |(id, listed)| {
            let to_run = match &listed.want {
                Want::Always(spec) => Some(spec.account.as_ref().map_or(own, |account| account.uid)),
                Want::Keep | Want::Never => None,
            };
            listed.owner_uid.into_iter().chain(to_run).map(|uid| (&id.user, uid))
        });
        running.chain(listed)
    }

    /// The header with which a client comes in at doors of one user.
    pub(super) fn headers_for(&self, caller: Caller, target: Target, kind: Kind) -> Result<Answer, Refusal> {
        let meant = self.meant(caller, &target)?;
        let mut users: Vec<&UserName> = meant.iter().map(|id| &id.user).collect();
        users.dedup();
        let [user] = users[..] else {
            let text = "say whose: a token is one user's".to_owned();
            return Err(Refusal { kind: RefusalKind::WrongUse, text });
        };
        if kind.lasting && target.server.is_some() {
            let text = "a lasting token is for all of a user's servers; leave the server out".to_owned();
            return Err(Refusal { kind: RefusalKind::WrongUse, text });
        }
        let user = user.clone();
        let shape = Shape { lasting: kind.lasting, server: target.server };
        Ok(match self.tokens.of(&user).filter(|_| !kind.renew) {
            Some(token) => Answer::Now(Reply::Token(shape.of(token, &user))),
            None => Answer::Token(user, shape),
        })
    }

    /// Has another thread make and keep a token, for a disk may take its time. Who asks meanwhile gets the
    /// same: nobody has seen it yet.
    pub(super) fn begin_token(&mut self, user: UserName, asker: Asker) {
        let Some(make) = self.tokens.begin(&user, asker) else { return };
        let say = self.sources.say_done.clone();
        tokio::task::spawn_blocking(move || {
            if say.send(Event::Minted(Minted { user, made: make() })).is_err() {
                tracing::debug!("the loop has ended");
            }
        });
    }

    pub(super) fn note_minted(&mut self, minted: Minted, now: Moment) {
        let Minted { user, made } = minted;
        let (askers, token) = self.tokens.end(&user, made);
        if token.is_ok() {
            tracing::info!(%user, "token made");
            if self.listed.keys().any(|id| id.user == user) {
                self.set_gates();
            } else {
                // Removed meanwhile.
                self.tokens.forget(&user);
            }
        }
        for Asker { peer, shape, reply } in askers {
            let answer = match &token {
                Ok(token) => Ok(Reply::Token(shape.of(token, &user))),
                Err(error) => {
                    let text = format!("cannot make a token: {error}");
                    Err(Refusal { kind: RefusalKind::Failed, text })
                }
            };
            self.reply(peer, reply, answer, now);
        }
    }

    /// Whom no uid identifies who is logged in, so that they need a token.
    pub(super) fn who_needs_tokens(&self) -> Vec<String> {
        let doors = self.doors.ids().filter(|id| self.access(id) == Access::Owner);
        let users: BTreeSet<&UserName> = doors.map(|id| &id.user).collect();
        let owners = self.owners();
        let homeless =
            users.iter().filter(|user| self.is_reserved(user, owners.get(**user).copied())).count();
        let homeless = (homeless > 0).then(|| {
            format!("the doors of users without an account of this host ({homeless}) take a token from everybody but root (mcpsup headers USER): nobody logs in as the uid that they were given")
        });
        let identities = identities(self.uids());
        let shared: BTreeSet<u32> =
            identities.iter().filter(|(_, whose)| whose.is_none()).map(|(uid, _)| *uid).collect();
        let notes = shared.into_iter().filter_map(|uid| {
            let of = users.iter().filter(|user| owners.get(**user) == Some(&uid)).count();
            (of > 0).then(|| {
                format!("uid {uid} is not one user's alone, so it opens no door: the doors of {of} of its users take a token (mcpsup headers USER)")
            })
        });
        notes.chain(homeless).collect()
    }
}
