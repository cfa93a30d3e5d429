//! Sealed env files on their way to being read: opened by other threads, each version once.
//!
//! Until one is open its user's file is as it was; one that cannot be opened is refused like any
//! other that cannot be read, and leaves the last good one running.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::sync::{Semaphore, mpsc};

use super::Daemon;
use crate::model::file::{EnvFile, FileState, Look, Seal, SecretBytes};
use crate::model::{Moment, Problem, UserName};
use crate::system::memory;
use crate::system::seal::Keeper;

/// So many are opened at once: each is a process for some milliseconds, or a TPM's second.
const AT_ONCE: usize = 4;

/// What came of opening one.
pub(super) struct Opened {
    user: UserName,
    ticket: u64,
    plain: Result<SecretBytes, String>,
}

/// Every user's sealed file as it was read last.
pub(super) struct Seals {
    keeper: Keeper,
    known: BTreeMap<UserName, Sealed>,
    turns: Arc<Semaphore>,
    say: mpsc::UnboundedSender<Opened>,
    next: u64,
}

struct Sealed {
    file: EnvFile,
    seal: Seal,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// By whoever has this ticket.
    Opening(u64),
    Open,
    Refused,
}

impl Seals {
    pub(super) fn new(keeper: Keeper, say: mpsc::UnboundedSender<Opened>) -> Self {
        let turns = Arc::new(Semaphore::new(AT_ONCE));
        Self { keeper, known: BTreeMap::new(), turns, say, next: 0 }
    }

    /// What opens and makes sealed files here.
    pub(super) fn keeper(&self) -> Keeper {
        self.keeper.clone()
    }

    /// True while somebody's file is being opened.
    pub(super) fn are_busy(&self) -> bool {
        self.known.values().any(|sealed| matches!(sealed.state, State::Opening(_)))
    }

    /// Takes sealed files out of a look, and has those opened that are new.
    pub(super) fn take(&mut self, look: &mut Look) {
        if look.directory.is_err() {
            return;
        }
        if look.whole {
            self.known.retain(|user, _| look.files.contains_key(user));
        }
        for (user, state) in &mut look.files {
            match state {
                FileState::Unchanged => {}
                FileState::Read(_) | FileState::Refused(_) => drop(self.known.remove(user)),
                FileState::Sealed(..) => {
                    let FileState::Sealed(file, seal) = std::mem::replace(state, FileState::Unchanged) else {
                        continue;
                    };
                    if self.known.get(user).is_none_or(|known| known.file != file) {
                        self.begin(user.clone(), file, seal);
                    }
                }
            }
        }
    }

    /// Tries again what could not be opened: a key may be there now.
    pub(super) fn retry(&mut self) {
        let refused = |(user, sealed): (&UserName, &Sealed)| {
            (sealed.state == State::Refused).then(|| (user.clone(), sealed.file.clone(), sealed.seal))
        };
        let refused: Vec<_> = self.known.iter().filter_map(refused).collect();
        for (user, file, seal) in refused {
            self.begin(user, file, seal);
        }
    }

    /// What `user`'s sealed file says is known already: it was made here.
    pub(super) fn know(&mut self, user: &UserName, file: EnvFile, seal: Seal) {
        self.known.insert(user.clone(), Sealed { file, seal, state: State::Open });
    }

    /// True if this is what `user`'s file is, as far as was looked.
    pub(super) fn has(&self, user: &UserName, file: &EnvFile) -> bool {
        self.known.get(user).is_some_and(|known| known.file == *file)
    }

    fn begin(&mut self, user: UserName, file: EnvFile, seal: Seal) {
        self.next += 1;
        let ticket = self.next;
        let (keeper, turns, say) = (self.keeper.clone(), Arc::clone(&self.turns), self.say.clone());
        let (whose, bytes) = (user.clone(), file.bytes.clone());
        tokio::spawn(async move {
            // It is never closed.
            let turn = turns.acquire_owned().await.ok();
            let opening = tokio::task::spawn_blocking(move || {
                let plain = keeper.open(seal, &whose, &bytes);
                memory::overwrite_stack();
                drop(turn);
                if say.send(Opened { user: whose, ticket, plain }).is_err() {
                    tracing::debug!("the loop has ended");
                }
            });
            if let Err(error) = opening.await {
                tracing::error!(%error, "a sealed file was not opened");
            }
        });
        self.known.insert(user, Sealed { file, seal, state: State::Opening(ticket) });
    }

    /// What became of whose file; `None` if it is another one by now.
    fn note(&mut self, opened: Opened) -> Option<(UserName, FileState)> {
        let Opened { user, ticket, plain } = opened;
        let sealed = self.known.get_mut(&user).filter(|sealed| sealed.state == State::Opening(ticket))?;
        let EnvFile { name, owner_uid, .. } = &sealed.file;
        let state = match plain {
            Ok(bytes) => {
                sealed.state = State::Open;
                FileState::Read(EnvFile { name: name.clone(), bytes, owner_uid: *owner_uid })
            }
            Err(why) => {
                sealed.state = State::Refused;
                FileState::Refused(Problem::new(name.clone(), why))
            }
        };
        Some((user, state))
    }
}

impl Daemon {
    pub(super) fn note_opened(&mut self, opened: Opened, now: Moment) {
        // Nobody reaped anything while the one that opened it was waited for.
        self.processes.reap_strays();
        if let Some((user, state)) = self.seals.note(opened) {
            self.hand_over(&user, state, now);
        }
    }

    /// Takes what became of one user's file, and says what is wanted now.
    pub(super) fn hand_over(&mut self, user: &UserName, state: FileState, now: Moment) {
        if self.roster.set_file(user, state) {
            let whom = self.roster.whom(BTreeSet::from([user.clone()]));
            self.resolve(now, &whom);
        }
    }
}
