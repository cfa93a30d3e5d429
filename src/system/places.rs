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

/// What a daemon has below its own directory, or below the one it keeps its state in.
const KEPT: [&str; 7] = ["env.d", "run", "state", "logs", "instances", "run/instances", "state/instances"];
const EVERYBODYS: [&str; 3] = ["/tmp", "/var/tmp", "/dev/shm"];

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

    /// The directories that `mcpsup` and each `mcpsup@NAME` of the same person has below the personal ones, as far
    /// as they are there, wherever a link among them leads. One that leads to what is around them all, or to where
    /// everybody writes, is a slip that would hide all the rest.
    #[must_use]
    pub fn of_the_same_person(&self) -> Vec<PathBuf> {
        let below = |dir: &PathBuf| {
            let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
            entries
                .map(|entry| entry.path())
                .filter(|dir| dir.join("mcpsup.toml").is_file())
                .collect::<Vec<_>>()
        };
        let daemons = self.personal.iter().flat_map(|dir| std::iter::once(dir.clone()).chain(below(dir)));
        let theirs = daemons.flat_map(|dir| KEPT.map(|kept| files::real(&dir.join(kept))));
        let personal: Vec<PathBuf> = self.personal.iter().map(|dir| files::real(dir)).collect();
        let is_slip = |path: &Path| {
            personal.iter().any(|dir| dir.starts_with(path))
                || EVERYBODYS.iter().any(|dir| path == Path::new(dir))
        };
        theirs.filter(|path| path.is_dir() && !is_slip(path)).collect()
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
        let (dir, state) = (home.join(".config/mcpsup"), home.join(".local/state/mcpsup"));
        let apart = home.join("dotfiles/work");
        let targets = ["secrets", "logs", "big", "tools"].map(|name| home.join(name));
        let made = [
            &dir.join("play/state"),
            &dir.join("slip"),
            &state,
            &apart.join("env.d"),
            &home.join("tools/env.d"),
        ];
        for made in made.into_iter().chain(&targets) {
            std::fs::create_dir_all(made).unwrap();
        }
        for daemon in [&dir, &dir.join("play"), &dir.join("slip"), &apart] {
            std::fs::File::create(daemon.join("mcpsup.toml")).unwrap();
        }
        let [secrets, logs, big, tools] = &targets;
        for (target, link) in [
            (&apart, dir.join("work")),
            (secrets, dir.join("play/env.d")),
            (logs, state.join("logs")),
            (big, dir.join("play/state/instances")),
            // No daemon's, or a slip, or nothing.
            (tools, dir.join("tools")),
            (&home, dir.join("slip/env.d")),
            (&"/".into(), dir.join("slip/logs")),
            (&"/tmp".into(), dir.join("slip/run")),
            (&"/nowhere".into(), dir.join("slip/state")),
        ] {
            std::os::unix::fs::symlink(target, link).unwrap();
        }
        let env = |name: &str| (name == "HOME").then(|| home.clone().into());
        let mut theirs = Places::find(None, false, env).unwrap().of_the_same_person();
        theirs.sort();
        let play = dir.join("play/state");
        let mut wanted = [&apart.join("env.d"), secrets, logs, big, &play].map(Clone::clone);
        wanted.sort();
        assert_eq!(theirs, wanted);
        // What is made later is found when it is looked for again.
        std::fs::create_dir(apart.join("logs")).unwrap();
        assert!(Places::find(None, false, env).unwrap().of_the_same_person().contains(&apart.join("logs")));
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
