//! Everybody's lasting token: `STATE/tokens/USER`, 0600 in 0700, made when it is first asked for.
//!
//! Deleting a file (and `mcpsup reload`) ends that token and all that were made of it.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use crate::logic::token::Token;
use crate::model::UserName;
use crate::system::files::{self, FileError};
use crate::system::random;

/// A token has 50 bytes.
const LARGEST: usize = 256;

/// The tokens that were given out.
#[derive(Debug)]
pub(super) struct Tokens {
    dir: PathBuf,
    known: BTreeMap<UserName, Token>,
}

impl Tokens {
    /// Those below the daemon's state directory.
    pub(super) fn new(state: &Path) -> Self {
        let mut tokens = Self { dir: state.join("tokens"), known: BTreeMap::new() };
        tokens.reload();
        tokens
    }

    /// Reads them again. One that cannot be read is none: nobody comes in with it.
    pub(super) fn reload(&mut self) {
        let entries = match std::fs::read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    tracing::error!(%error, dir = %self.dir.display(), "tokens not read: none is right");
                }
                self.known.clear();
                return;
            }
        };
        let names = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
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

    /// A new one for a user, in the place of the last.
    ///
    /// # Errors
    ///
    /// When the kernel gives no random bytes or the state directory cannot be written: the last one
    /// stands then.
    pub(super) fn renew(&mut self, user: &UserName) -> Result<Token, String> {
        let token = Token::new(&random::key().map_err(|error| error.to_string())?);
        let keep = || -> Result<(), FileError> {
            files::make_dir(&self.dir, 0o700)?;
            files::replace_durably(&self.dir.join(user.as_str()), token.text().reveal().as_bytes(), 0o600)
        };
        keep().map_err(|error| super::store::chain(&error))?;
        self.known.insert(user.clone(), token.clone());
        Ok(token)
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
