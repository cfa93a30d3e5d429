//! What holds the processes of a run together on this host, so that all of them can be ended.

use std::io;
use std::path::Path;

use super::cgroup::Root;

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
    /// The word for `status -v`.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Cgroup(_) => "cgroup",
            Self::Namespace => "pid namespace",
            Self::Session => "session (best effort)",
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
) -> io::Result<Containment> {
    use crate::model::config::Containment as Asked;
    match asked {
        Asked::Session => Ok(Containment::Session),
        Asked::PidNamespace => {
            let status = std::fs::read_to_string("/proc/self/status")?;
            if !may_make_namespaces(&status) {
                return Err(io::Error::new(
                    io::ErrorKind::PermissionDenied,
                    "pid-namespace takes the capability CAP_SYS_ADMIN; run the daemon as root, or set \
                     containment = \"auto\" in mcpsup.toml",
                ));
            }
            Ok(Containment::Namespace)
        }
        Asked::Cgroup => Root::open(cgroup_root, daemon).map(Containment::Cgroup),
        Asked::Auto => match Root::open(cgroup_root, daemon) {
            Ok(root) => Ok(Containment::Cgroup(root)),
            Err(error) => {
                tracing::debug!(%error, "no cgroups here");
                Ok(Containment::Session)
            }
        },
    }
}

/// True if `proc_pid_status(5)` shows `CAP_SYS_ADMIN` (bit 21, capabilities(7)) as effective.
fn may_make_namespaces(status: &str) -> bool {
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let bits = effective.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok());
    bits.is_some_and(|bits| bits & (1 << 21) != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn namespaces_take_an_effective_capability_and_no_other_kind() {
        assert!(may_make_namespaces("Name:\tx\nCapEff:\t000001ffffffffff\n"));
        assert!(may_make_namespaces("CapEff:\t0000000000200000\n"));
        assert!(!may_make_namespaces("CapEff:\t00000000a80425fb\n"));
        assert!(!may_make_namespaces("CapPrm:\t000001ffffffffff\nCapEff:\t0000000000000000\n"));
        assert!(!may_make_namespaces("CapEff:\tmuch\n"));
        assert!(!may_make_namespaces(""));
    }
}
