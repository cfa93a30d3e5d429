//! Where everything lies (PRODUCT §2).

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::files;

/// The files and directories of one daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    /// mcpsup.toml
    pub config: PathBuf,
    /// The directory of env files: beside mcpsup.toml.
    pub env_dir: PathBuf,
    /// Port map, control socket, and what only lives as long as the machine is up.
    pub runtime: PathBuf,
    /// Sticky ports, holds, keys, per-instance directories.
    pub state: PathBuf,
    /// Instance logs.
    pub logs: PathBuf,
    /// What systemd gives the daemon to know: files that it lays there before the daemon starts.
    pub credentials: Option<PathBuf>,
    /// Where the daemons of an ordinary user have what is theirs, this one and others: `mcpsup@NAME` has its
    /// configuration below that of `mcpsup`.
    pub personal: Vec<PathBuf>,
}

/// Why no place could be found.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("cannot tell where mcpsup.toml is: neither HOME nor XDG_CONFIG_HOME is set; say --config FILE")]
pub struct NoHome;

impl Places {
    /// The places for `--config FILE` (everything beside it), for root, or for an ordinary user.
    ///
    /// systemd's `RUNTIME_DIRECTORY`, `STATE_DIRECTORY`, `LOGS_DIRECTORY` and `CREDENTIALS_DIRECTORY`
    /// (systemd.exec(5)) win over all three; of several paths in one of them the first is taken.
    ///
    /// # Errors
    ///
    /// When an ordinary user has no home directory and `--config` was not given.
    pub fn find(
        config: Option<&Path>,
        is_root: bool,
        env: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Self, NoHome> {
        let path = |name: &str| env(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let home = path("HOME");
        let under_home = |rest: &str| home.as_ref().map(|home| home.join(rest));
        let xdg = |name: &str, rest: &str| Some(path(name).or_else(|| under_home(rest))?.join("mcpsup"));
        let mut places = if let Some(config) = config {
            Self::beside(config)
        } else if is_root {
            Self::of_the_system()
        } else {
            let config_dir = xdg("XDG_CONFIG_HOME", ".config").ok_or(NoHome)?;
            let state = xdg("XDG_STATE_HOME", ".local/state").ok_or(NoHome)?;
            Self {
                config: config_dir.join("mcpsup.toml"),
                env_dir: config_dir.join("env.d"),
                runtime: path("XDG_RUNTIME_DIR").map_or_else(|| state.join("run"), |dir| dir.join("mcpsup")),
                logs: state.join("logs"),
                state,
                credentials: None,
                personal: Vec::new(),
            }
        };
        let first = |name: &str| path(name).and_then(|dirs| std::env::split_paths(&dirs).next());
        if let Some(dir) = first("RUNTIME_DIRECTORY") {
            places.runtime = dir;
        }
        if let Some(dir) = first("STATE_DIRECTORY") {
            places.state = dir;
        }
        if let Some(dir) = first("LOGS_DIRECTORY") {
            places.logs = dir;
        }
        if let Some(dir) = path("CREDENTIALS_DIRECTORY") {
            places.credentials = Some(dir);
        }
        if !is_root {
            let runtime = path("XDG_RUNTIME_DIR").map(|dir| dir.join("mcpsup"));
            let dirs = [xdg("XDG_CONFIG_HOME", ".config"), xdg("XDG_STATE_HOME", ".local/state"), runtime];
            places.personal = dirs.into_iter().flatten().collect();
        }
        Ok(places)
    }

    /// The places of the daemon that runs as root.
    #[must_use]
    pub fn of_the_system() -> Self {
        Self {
            config: "/etc/mcpsup/mcpsup.toml".into(),
            env_dir: "/etc/mcpsup/env.d".into(),
            runtime: "/run/mcpsup".into(),
            state: "/var/lib/mcpsup".into(),
            logs: "/var/log/mcpsup".into(),
            // mcpsup.service's, so that commands find what it has (systemd.exec(5) says where).
            credentials: Some("/run/credentials/mcpsup.service".into()),
            personal: Vec::new(),
        }
    }

    fn beside(config: &Path) -> Self {
        let config = std::path::absolute(config).unwrap_or_else(|_| config.to_path_buf());
        let dir = config.parent().unwrap_or(Path::new("/"));
        Self {
            env_dir: dir.join("env.d"),
            runtime: dir.join("run"),
            state: dir.join("state"),
            logs: dir.join("logs"),
            config: config.clone(),
            credentials: None,
            personal: Vec::new(),
        }
    }

    /// What `mcpsup` and each `mcpsup@NAME` of the same person has beside its mcpsup.toml, wherever that, its
    /// directory or one of these leads as a link. One that leads to what is around them all is a slip that would
    /// hide all the rest.
    #[must_use]
    pub fn of_the_same_person(&self) -> Vec<PathBuf> {
        let below = |dir: &PathBuf| {
            let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
            entries.map(|entry| entry.path()).collect::<Vec<_>>()
        };
        let dirs = self.personal.iter().flat_map(|dir| std::iter::once(dir.clone()).chain(below(dir)));
        let configs = dirs.map(|dir| files::real(&dir).join("mcpsup.toml")).filter(|config| config.is_file());
        let all = configs.flat_map(|config| {
            let Self { config, env_dir, runtime, state, logs, .. } = Self::beside(&config);
            [config, env_dir, runtime, state, logs].map(|path| files::real(&path))
        });
        all.filter(|path| !self.personal.iter().any(|dir| files::real(dir).starts_with(path))).collect()
    }

    /// The control socket.
    #[must_use]
    pub fn control(&self) -> PathBuf {
        self.runtime.join("control.sock")
    }

    /// The port map.
    #[must_use]
    pub fn port_map(&self) -> PathBuf {
        self.runtime.join("ports.json")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env<'a>(vars: &'a [(&'a str, &'a str)]) -> impl Fn(&str) -> Option<OsString> + 'a {
        move |name| vars.iter().find(|(n, _)| *n == name).map(|(_, v)| v.into())
    }

    #[test]
    fn an_ordinary_user_gets_the_xdg_directories() {
        let places =
            Places::find(None, false, env(&[("HOME", "/home/a"), ("XDG_RUNTIME_DIR", "/run/user/7")]))
                .unwrap();
        assert_eq!(places.config, Path::new("/home/a/.config/mcpsup/mcpsup.toml"));
        assert_eq!(places.control(), Path::new("/run/user/7/mcpsup/control.sock"));
        assert_eq!(places.state, Path::new("/home/a/.local/state/mcpsup"));
        let personal = places.personal;
        let theirs = ["/home/a/.config/mcpsup", "/home/a/.local/state/mcpsup", "/run/user/7/mcpsup"];
        assert_eq!(personal, theirs.map(PathBuf::from));
        let home = env(&[("HOME", "/home/a"), ("XDG_RUNTIME_DIR", "/run/user/7")]);
        assert_eq!(
            Places::find(Some(Path::new("/srv/m/mcpsup.toml")), false, home).unwrap().personal,
            personal
        );
    }

    #[test]
    fn what_links_in_the_directories_of_somebodys_daemons_lead_to_is_theirs_too() {
        let home = tempfile::tempdir().unwrap();
        let home = home.path().canonicalize().unwrap();
        let (dir, apart) = (home.join(".config/mcpsup"), home.join("dotfiles/work"));
        for made in [
            dir.join("play"),
            dir.join("slip"),
            apart.clone(),
            home.join("secrets"),
            home.join("tools/env.d"),
        ] {
            std::fs::create_dir_all(made).unwrap();
        }
        for daemon in [&dir, &dir.join("play"), &dir.join("slip"), &apart] {
            std::fs::File::create(daemon.join("mcpsup.toml")).unwrap();
        }
        for (target, link) in
            [(home.clone(), "slip/env.d"), ("/".into(), "slip/logs"), (home.join("tools"), "tools")]
        {
            std::os::unix::fs::symlink(target, dir.join(link)).unwrap();
        }
        std::os::unix::fs::symlink(&apart, dir.join("work")).unwrap();
        std::os::unix::fs::symlink(home.join("secrets"), dir.join("play/env.d")).unwrap();
        std::os::unix::fs::symlink("/nowhere", dir.join("gone")).unwrap();
        let env = |name: &str| (name == "HOME").then(|| home.clone().into());
        let theirs = Places::find(None, false, env).unwrap().of_the_same_person();
        // Whether or not it is there yet.
        let led_to = ["mcpsup.toml", "env.d", "state", "run", "logs"].map(|name| apart.join(name));
        for place in led_to.iter().chain([&home.join("secrets"), &dir.join("env.d"), &dir.join("play/state")])
        {
            assert!(theirs.contains(place), "{}: {theirs:?}", place.display());
        }
        let not = [apart, home.clone(), "/".into(), home.join("tools/env.d")];
        assert!(!not.iter().any(|path| theirs.contains(path)), "no daemon's, or around them all: {theirs:?}");
    }

    #[test]
    fn config_moves_the_lot_and_systemd_wins() {
        let vars =
            [("STATE_DIRECTORY", "/var/lib/x:/other"), ("CREDENTIALS_DIRECTORY", "/run/credentials/x")];
        let places = Places::find(Some(Path::new("/srv/m/mcpsup.toml")), true, env(&vars)).unwrap();
        assert_eq!(places.env_dir, Path::new("/srv/m/env.d"));
        assert_eq!(places.state, Path::new("/var/lib/x"));
        assert_eq!(places.credentials.as_deref(), Some(Path::new("/run/credentials/x")));
    }

    #[test]
    fn without_a_home_the_way_out_is_named() {
        assert_eq!(Places::find(None, false, env(&[])), Err(NoHome));
    }
}
