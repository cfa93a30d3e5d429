//! Everybody's lasting token: `STATE/tokens/USER`, 0600 in 0700, made when it is first asked for.
//!
//! Deleting a file (and `mcpsup reload`) ends that token and all that were made of it.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use tokio::sync::oneshot;

use crate::control::protocol::{Peer, Refusal, Reply};
use crate::logic::token::Token;
use crate::model::{Secret, ServerName, UserName};
use crate::system::files::{self, FileError};
use crate::system::{clock, random};

/// A token has 50 bytes.
const LARGEST: usize = 256;

/// The tokens that were given out.
#[derive(Debug)]
pub(super) struct Tokens {
    dir: PathBuf,
    known: BTreeMap<UserName, Token>,
    /// Whose is being made, and who asked for it.
    making: BTreeMap<UserName, Vec<Asker>>,
}

/// Who asks for a token that is still to be made.
#[derive(Debug)]
pub(super) struct Asker {
    pub(super) peer: Peer,
    pub(super) shape: Shape,
    pub(super) reply: oneshot::Sender<Result<Reply, Refusal>>,
}

/// As what a token is given out.
#[derive(Debug)]
pub(super) struct Shape {
    /// The one that does not end.
    pub(super) lasting: bool,
    /// For this server alone.
    pub(super) server: Option<ServerName>,
}

/// A user's token was made, or not, and why.
pub(super) struct Minted {
    pub(super) user: UserName,
    pub(super) made: Result<Token, String>,
}

impl Shape {
    /// What is given out of a user's token.
    pub(super) fn of(&self, token: &Token, user: &UserName) -> Secret {
        if self.lasting {
            token.text().clone()
        } else {
            token.short(user, self.server.as_ref(), clock::unix_seconds())
        }
    }
}

impl Tokens {
    /// Those below the daemon's state directory.
    pub(super) fn new(state: &Path) -> Self {
        let mut tokens = Self { dir: state.join("tokens"), known: BTreeMap::new(), making: BTreeMap::new() };
        tokens.reload();
        tokens
    }

    /// Reads them again. One that cannot be read is none: nobody comes in with it.
    pub(super) fn reload(&mut self) {
        let names = match files::names_in(&self.dir) {
            Ok(names) => names,
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    tracing::error!(%error, dir = %self.dir.display(), "tokens not read: none is right");
                }
                self.known.clear();
                return;
            }
        };
        let names = names.into_iter().filter_map(|name| name.parse().ok());
        let read = |user: UserName| {
            let path = self.dir.join(user.as_str());
            match files::read_secret(&path, LARGEST) {
                Ok(text) => {
                    let token = Token::kept(text);
                    if token.is_none() {
                        tracing::error!(path = %path.display(), "not a token of ours; delete it to have one made");
                    }
                    Some((user, token?))
                }
                Err(error) => {
                    tracing::error!(error = super::store::chain(&error), "token not read");
                    None
                }
            }
        };
        self.known = names.filter_map(read).collect();
    }

    /// A user's, if they have one.
    pub(super) fn of(&self, user: &UserName) -> Option<&Token> {
        self.known.get(user)
    }

    /// Who asks for a new one for a user, in the place of the last. The deed that makes and keeps it is
    /// for another thread; `None`: it is being done, and the asker gets what comes of it.
    ///
    /// The deed fails when the kernel gives no random bytes or the state directory cannot be written: the
    /// last one stands then.
    pub(super) fn begin(
        &mut self,
        user: &UserName,
        asker: Asker,
    ) -> Option<impl FnOnce() -> Result<Token, String> + Send + use<>> {
        let askers = self.making.entry(user.clone()).or_default();
        askers.push(asker);
        let (dir, path) = (self.dir.clone(), self.dir.join(user.as_str()));
        (askers.len() == 1).then_some(move || {
            let token = Token::new(&random::key().map_err(|error| error.to_string())?);
            let keep = || -> Result<(), FileError> {
                files::make_dir(&dir, 0o700)?;
                files::replace_durably(&path, token.text().reveal().as_bytes(), 0o600)
            };
            keep().map_err(|error| super::store::chain(&error))?;
            Ok(token)
        })
    }

    /// Takes over what came of it, and says who has asked.
    pub(super) fn end(
        &mut self,
        user: &UserName,
        made: Result<Token, String>,
    ) -> (Vec<Asker>, Result<Token, String>) {
        if let Ok(token) = &made {
            self.known.insert(user.clone(), token.clone());
        }
        (self.making.remove(user).unwrap_or_default(), made)
    }

    /// Forgets that of a user who was removed.
    pub(super) fn forget(&mut self, user: &UserName) {
        if self.known.remove(user).is_some()
            && let Err(error) = files::remove(&self.dir.join(user.as_str()))
        {
            tracing::error!(error = super::store::chain(&error), %user, "token not deleted");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_while_a_token_is_being_made_gets_that_one_and_a_failure_leaves_the_last() {
        let dir = tempfile::tempdir().unwrap();
        let mut tokens = Tokens::new(dir.path());
        let alice: UserName = "alice".parse().unwrap();
        let asker = || Asker {
            peer: Peer { uid: 0, pid: 1, is_member: false },
            shape: Shape { lasting: true, server: None },
            reply: oneshot::channel().0,
        };
        let deed = tokens.begin(&alice, asker()).unwrap();
        assert!(tokens.begin(&alice, asker()).is_none());
        let (askers, made) = tokens.end(&alice, deed());
        assert_eq!(askers.len(), 2);
        let first = made.unwrap().text().reveal().to_owned();

        assert!(tokens.begin(&alice, asker()).is_some(), "the next is another");
        let (askers, made) = tokens.end(&alice, Err("no space left".to_owned()));
        assert!(askers.len() == 1 && made.is_err());
        assert_eq!(tokens.of(&alice).unwrap().text().reveal(), first);
        // And so it is for the next daemon.
        assert_eq!(Tokens::new(dir.path()).of(&alice).unwrap().text().reveal(), first);
    }
}
