//! What holds the processes of a run together on this host, so that all of them can be ended.

use std::io;
use std::path::Path;

use super::cgroup::Root;
use super::process::Held;
use crate::model::cage::{Ground, Tree, Tried};
use crate::model::config::Limits;

/// What holds the processes of a run together on this host.
#[derive(Debug, Clone)]
pub enum Containment {
    /// A cgroup per run below this one.
    Cgroup(Root),
    /// A pid namespace per run.
    Namespace,
    /// A session per run.
    Session,
}

impl Containment {
    /// Which of the limits asked for cannot be kept here, by name.
    #[must_use]
    pub fn lacks(&self, limits: &Limits) -> Vec<&'static str> {
        match self {
            Self::Cgroup(root) => root.lacks(limits),
            Self::Namespace | Self::Session => limits.of_groups().map(|(name, _)| name).collect(),
        }
    }
}

/// The word for `status -v`.
#[must_use]
pub const fn word(tree: Tree) -> &'static str {
    match tree {
        Tree::Cgroup => "cgroup",
        Tree::PidNamespace => "pid namespace",
        Tree::Session => "session (best effort)",
    }
}

impl From<&Containment> for Tree {
    fn from(containment: &Containment) -> Self {
        match containment {
            Containment::Cgroup(_) => Self::Cgroup,
            Containment::Namespace => Self::PidNamespace,
            Containment::Session => Self::Session,
        }
    }
}

impl From<&Held> for Tree {
    fn from(held: &Held) -> Self {
        match held {
            Held::Cgroup(_) => Self::Cgroup,
            Held::Namespace => Self::PidNamespace,
            Held::Session => Self::Session,
        }
    }
}

/// Chooses what holds runs together: what is asked for, or the best there is.
///
/// # Errors
///
/// When what is asked for cannot be had here.
pub fn choose(
    asked: crate::model::config::Containment,
    cgroup_root: Option<&Path>,
    daemon: &str,
    ground: &Ground,
) -> io::Result<Containment> {
    use crate::model::config::Containment as Asked;
    match asked {
        Asked::Session => Ok(Containment::Session),
        Asked::PidNamespace => {
            if let Tried::Fails(why) = &ground.pids {
                return Err(io::Error::new(
                    io::ErrorKind::PermissionDenied,
                    format!(
                        "a pid namespace cannot be had here: {why}; run the daemon as root, or set \
                         containment = \"auto\" in mcpsup.toml"
                    ),
                ));
            }
            Ok(Containment::Namespace)
        }
        Asked::Cgroup => Root::open(cgroup_root, daemon).map(Containment::Cgroup),
        Asked::Auto => match Root::open(cgroup_root, daemon) {
            Ok(root) => Ok(Containment::Cgroup(root)),
            // A namespace costs each run a process of ours; who has the privilege for one and no
            // cgroup may ask for it.
            Err(_) if ground.through_user && ground.pids.works() => Ok(Containment::Namespace),
            Err(error) => {
                tracing::debug!(%error, "no cgroups here");
                Ok(Containment::Session)
            }
        },
    }
}
