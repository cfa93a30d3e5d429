//! What no server sees of this host, and what one names of it all the same.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::model::config::Piece;
use crate::model::{Config, ServerName};
use crate::system::files;
use crate::system::places::Places;

/// What is not ours, and no server's either. What listens in the first acts for whoever is logged in; what
/// lies in the second is for one service.
const OTHERS: [&str; 2] = ["/run/user", "/run/credentials"];
/// Nor are these, from which systemd takes what it gives services: a server that runs as root could read them,
/// and no other can. Where nothing can be mounted, to hide them would take what is new in `/etc` from
/// whoever runs already: the resolv.conf of another network, say.
const ROOTS: [&str; 4] =
    ["/run/credstore", "/run/credstore.encrypted", "/etc/credstore", "/etc/credstore.encrypted"];

/// What no run may see, in the order of paths: what lies in another place is hidden with that. A file can be
/// hidden only where nothing is mounted; with Landlock it is kept out of what a server is allowed to write to.
pub(super) fn all(places: &Places, is_root: bool) -> Vec<PathBuf> {
    let roots: &[&str] = if is_root { &ROOTS } else { &[] };
    let others = OTHERS.iter().chain(roots).map(PathBuf::from);
    // A link would lead around what only its name hides.
    let ours = [&places.env_dir, &places.state, &places.runtime, &places.logs, &places.config];
    let ours = ours.into_iter().chain(&places.credentials).map(|path| files::real(path));
    // Whether or not they are there: another daemon may begin later, and a run that begins after it sees nothing of it.
    let personal: Vec<PathBuf> = places.personal.iter().map(|dir| files::real(dir)).collect();
    let is_in_them = |path: &PathBuf| personal.iter().any(|dir| path.starts_with(dir));
    let outside: Vec<PathBuf> =
        ours.chain(places.of_the_same_person()).filter(|path| !is_in_them(path)).collect();
    others.chain(personal).chain(outside).collect::<BTreeSet<_>>().into_iter().collect()
}

/// A path that a server names and does not see.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Unseen {
    /// As it is named.
    pub path: PathBuf,
    /// Nothing in there is seen.
    pub within: PathBuf,
}

impl Unseen {
    /// As it is said of the server that names it.
    #[must_use]
    pub fn note(&self, server: &ServerName) -> String {
        let (path, within) = (self.path.display(), self.within.display());
        format!("not seen by servers: {path}, which server \"{server}\" names, for nothing in {within} is")
    }
}

/// What servers name in `command`, `working_dir` or `allow.write`, and none of them sees: a program there is
/// not found, whatever `ls` says. What begins with `~/` is another path for each user, and not looked at.
/// `/run/user` is not meant: an argument may name a socket in it; nor is mcpsup.toml, which a mount does not
/// hide. `mounts`: whether runs have mounts of their own.
pub(super) fn named(
    (hidden, mounts): (&[PathBuf], bool),
    places: &Places,
    config: &Config,
) -> BTreeMap<ServerName, BTreeSet<Unseen>> {
    let Places { env_dir, state, runtime, logs, personal, .. } = places;
    let is_other = |dir: &Path| OTHERS.iter().any(|other| dir.starts_with(other));
    let file = files::real(&places.config);
    let hidden: Vec<&PathBuf> = hidden.iter().filter(|dir| !is_other(dir) && **dir != file).collect();
    // As somebody may spell them, beside what they lead to: a mount covers the link as well.
    let spelled: Vec<&PathBuf> = [env_dir, state, runtime, logs].into_iter().chain(personal).collect();
    let own = [state, runtime].map(|dir| dir.join("instances"));
    let own: Vec<PathBuf> = own.iter().map(|dir| files::real(dir)).chain(own.clone()).collect();
    let within =
        |dirs: &[&PathBuf], path: &Path| dirs.iter().find(|dir| path.starts_with(dir)).copied().cloned();
    let hidden_by = |path: &Path| {
        let real = files::real(path);
        let is_own = own.iter().any(|own| real.starts_with(own) || path.starts_with(own));
        let spelled = || within(&spelled, path).filter(|_| mounts);
        within(&hidden, &real).or_else(spelled).filter(|_| !is_own)
    };
    let mut found: BTreeMap<ServerName, BTreeSet<Unseen>> = BTreeMap::new();
    for (name, server) in &config.servers {
        let words = server.command.iter().chain(&server.working_dir).filter_map(|word| match &*word.0 {
            [Piece::Text(text), ..] => Some(Path::new(&**text)),
            _ => None,
        });
        let written = server.allow.write.iter().map(PathBuf::as_path);
        for path in words.chain(written).filter(|path| path.is_absolute()) {
            if let Some(within) = hidden_by(path) {
                found.entry(name.clone()).or_default().insert(Unseen { path: path.to_path_buf(), within });
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_place_of_the_daemons_is_hidden_and_what_systemd_gives_it_or_others() {
        let system = Places::of_the_system();
        let given = Some("/somewhere/given".into());
        for places in [Places { credentials: given, ..system.clone() }, system] {
            let hidden = super::all(&places, true);
            let Places { config, env_dir, runtime, state, logs, credentials, personal: _ } = places;
            let others = OTHERS.iter().chain(&ROOTS).map(PathBuf::from);
            for place in [config, env_dir, runtime, state, logs].into_iter().chain(others) {
                assert!(hidden.contains(&place), "{}", place.display());
            }
            assert!(hidden.contains(&credentials.unwrap()));
        }
    }

    #[test]
    fn what_other_daemons_of_the_same_user_have_is_hidden_from_servers_of_each() {
        let home = tempfile::tempdir().unwrap();
        let dirs = [".config/mcpsup", ".local/state/mcpsup"].map(|dir| home.path().join(dir));
        let secrets = home.path().join("secrets");
        // The other is made by the first daemon that keeps its state there.
        std::fs::create_dir_all(dirs[0].join("third")).unwrap();
        std::fs::create_dir(&secrets).unwrap();
        std::fs::File::create(dirs[0].join("third/mcpsup.toml")).unwrap();
        std::os::unix::fs::symlink(&secrets, dirs[0].join("third/env.d")).unwrap();
        let env = |name: &str| (name == "HOME").then(|| home.path().into());
        for config in [None, Some(dirs[0].join("second/mcpsup.toml"))] {
            let hidden = super::all(&Places::find(config.as_deref(), false, env).unwrap(), false);
            let wanted = dirs.iter().chain([&secrets]);
            assert!(
                wanted.into_iter().all(|dir| hidden.contains(&files::real(dir))),
                "{config:?}: {hidden:?}"
            );
            assert!(hidden.is_sorted_by(|one, next| one < next), "{hidden:?}");
        }
    }

    #[test]
    fn what_a_server_names_and_does_not_see_is_told_and_its_own_is_not() {
        let home = tempfile::tempdir().unwrap();
        let home = home.path().canonicalize().unwrap();
        let dir = home.join(".config/mcpsup");
        let tools = home.join("tools");
        std::fs::create_dir_all(&tools).unwrap();
        std::fs::create_dir_all(&dir).unwrap();
        std::os::unix::fs::symlink(&tools, dir.join("tools")).unwrap();
        for file in [dir.join("own.py"), tools.join("tool.py")] {
            std::fs::File::create(file).unwrap();
        }
        std::os::unix::fs::symlink(dir.join("own.py"), tools.join("link.py")).unwrap();
        let env = |name: &str| (name == "HOME").then(|| home.clone().into());
        let places = Places::find(None, false, env).unwrap();
        let told = |mounts: bool, program: &str, more: &str| {
            let text = format!(
                "[server.x]\ntransport = \"stdio\"\ncommand = [\"{}\", \"{{state_dir}}/x\"]\n{more}",
                home.join(program).display()
            );
            let config = crate::logic::config::parse(&text, "mcpsup.toml").unwrap();
            let found = named((&super::all(&places, false), mounts), &places, &config);
            let of_one = |(server, all): (&ServerName, &BTreeSet<Unseen>)| {
                all.iter().map(|one| one.note(server)).collect::<Vec<_>>()
            };
            found.iter().flat_map(of_one).collect::<Vec<_>>()
        };
        let note = |path: &str| {
            let (path, dir) = (home.join(path), dir.display());
            format!(
                "not seen by servers: {}, which server \"x\" names, for nothing in {dir} is",
                path.display()
            )
        };
        for mounts in [true, false] {
            for path in [
                ".config/mcpsup/own.py",
                ".config/mcpsup/gone.py",
                "tools/link.py",
                "tools/../.config/mcpsup/own.py",
            ] {
                assert_eq!(told(mounts, path, ""), [note(path)], "{path}, {mounts}");
            }
            for path in [
                "tools/tool.py",
                ".local/state/mcpsup/instances/alice/x/tool",
                ".config/mcpsup-tools/tool.py",
            ] {
                assert_eq!(told(mounts, path, ""), [""; 0], "{path}, {mounts}");
            }
            let start = format!("working_dir = \"{}/{{user}}\"", dir.display());
            assert_eq!(told(mounts, "tools/tool.py", &start), [note(".config/mcpsup/")]);
        }
        // A mount covers the link, too; without one the kernel asks what it leads to.
        assert_eq!(told(true, ".config/mcpsup/tools/tool.py", ""), [note(".config/mcpsup/tools/tool.py")]);
        assert_eq!(told(false, ".config/mcpsup/tools/tool.py", ""), [""; 0]);
    }

    #[test]
    fn nothing_below_etc_is_hidden_from_servers_of_an_ordinary_user_whose_own_is_elsewhere() {
        let places = Places::find(Some("/srv/hers/mcpsup.toml".as_ref()), false, |_| None).unwrap();
        let hidden = super::all(&places, false);
        assert!(!hidden.iter().any(|place| place.starts_with("/etc")), "{hidden:?}");
        assert!(OTHERS.iter().all(|place| hidden.contains(&place.into())));
    }
}
