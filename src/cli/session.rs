//! What every verb knows: where everything lies, who calls, how to print. The environment is read
//! here, once, and nowhere else.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use super::print::Print;
use crate::control::client::{Client, ClientError};
use crate::system::account;
use crate::system::places::Places;

/// The environment as it was when we started.
#[derive(Clone)]
pub struct Environment(BTreeMap<OsString, OsString>);

impl Environment {
    /// Reads it.
    #[must_use]
    pub fn read() -> Self {
        // Not collected: that would bring in what puts a table of them in order, for this one time.
        let mut variables = BTreeMap::new();
        variables.extend(std::env::vars_os());
        Self(variables)
    }

    /// A variable that is set to something.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&OsStr> {
        let value = self.0.get(OsStr::new(name)).map(OsString::as_os_str);
        value.filter(|value| !value.is_empty())
    }
}

/// One run of the command line.
pub struct Session {
    /// The files that the caller administers.
    pub places: Places,
    /// The way to stdout and stderr.
    pub print: Print,
    /// The environment.
    pub environment: Environment,
    /// The mcpsup.toml that the caller named.
    pub config: Option<PathBuf>,
    /// Where the daemon is that the caller asks: their own, or else the host's.
    daemon: Places,
}

impl Session {
    /// Finds out what every verb needs.
    ///
    /// # Errors
    ///
    /// When an ordinary user has no home directory.
    pub fn new(config: Option<&Path>, environment: Environment, print: Print) -> anyhow::Result<Self> {
        let config =
            config.or_else(|| environment.get("MCPSUP_CONFIG").map(Path::new)).map(Path::to_path_buf);
        let is_root = account::own_uid() == 0;
        let places =
            Places::find(config.as_deref(), is_root, |name| environment.get(name).map(OsString::from))?;
        let own_is_meant = config.is_some() || is_root;
        let daemon = whose(&places, own_is_meant, Path::exists);
        Ok(Self { places, print, environment, config, daemon })
    }

    /// The socket of the daemon that is asked.
    #[must_use]
    pub fn control(&self) -> PathBuf {
        self.daemon.control()
    }

    /// The places of the daemon that is asked.
    #[must_use]
    pub fn asked(&self) -> &Places {
        &self.daemon
    }

    /// True if the daemon that is asked is the one whose files the caller administers.
    #[must_use]
    pub fn asks_own(&self) -> bool {
        self.daemon == self.places
    }

    /// True if that is an ordinary user's own daemon.
    #[must_use]
    pub fn asks_own_as_user(&self) -> bool {
        self.asks_own() && account::own_uid() != 0
    }

    /// The port map of the daemon that is asked.
    #[must_use]
    pub fn port_map(&self) -> PathBuf {
        self.daemon.port_map()
    }

    /// The way to the daemon of [`Session::places`], for verbs that write files there.
    ///
    /// # Errors
    ///
    /// When nobody hears its socket.
    pub fn own_client(&self) -> Result<Client, ClientError> {
        Client::connect(&self.places.control())
    }

    /// The way to the daemon that is asked.
    ///
    /// # Errors
    ///
    /// When nobody hears its socket.
    pub fn client(&self) -> Result<Client, ClientError> {
        Client::connect(&self.control())
    }
}

/// An ordinary user who runs no daemon and has set none up asks the host's.
fn whose(own: &Places, own_is_meant: bool, exists: impl Fn(&Path) -> bool) -> Places {
    if own_is_meant || exists(&own.control()) {
        return own.clone();
    }
    let host = Places::of_the_system();
    if exists(&host.control()) || !exists(&own.config) { host } else { own.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own() -> Places {
        let home = |name: &str| (name == "HOME").then(|| OsString::from("/home/a"));
        Places::find(None, false, home).unwrap()
    }

    #[test]
    fn an_ordinary_user_asks_their_own_daemon_and_else_the_hosts() {
        let own = own();
        let host = Places::of_the_system();
        assert_eq!(whose(&own, false, |path| path == own.control()), own);
        assert_eq!(whose(&own, false, |path| path == host.control()), host);
        assert_eq!(whose(&own, false, |_| false), host);
        assert_eq!(whose(&own, false, |path| path == own.config), own);
    }

    #[test]
    fn whoever_names_a_configuration_means_its_daemon() {
        let own = own();
        let host = Places::of_the_system();
        assert_eq!(whose(&own, true, |path| path == host.control()), own);
    }
}
