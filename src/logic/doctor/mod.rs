//! What is wrong, and what mends it: diagnoses over facts that [`survey`](crate::model::survey) holds.
//!
//! What the files say is judged elsewhere, as the daemon judges it, and comes here as
//! [`Problem`](crate::model::Problem)s ([`problem`]). Here is added what only a host can show: the
//! [program](needs) and the way to it, the daemon's own [directories and limits](host), and how a
//! [server] ends. Each of these is one function with one finding in its place; nothing is
//! looked at here, and nothing is mended.

pub mod host;
pub mod needs;
pub mod problem;
pub mod server;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use crate::model::finding::{Code, Finding, Mend};
use crate::model::survey::{Identity, Kind, Step, Way};
use crate::model::{ServerName, UserName, shell};

/// Who asks, and where what is to be mended lies.
#[derive(Debug, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own about who asks")]
pub struct Asker {
    /// How this program is called so that it asks the same daemon: `mcpsup --config FILE`.
    pub mcpsup: String,
    /// That names mcpsup.toml, so everything lies beside it.
    pub names_config: bool,
    /// mcpsup.toml, as a shell takes it.
    pub config: String,
    /// The directory of env files.
    pub env_dir: PathBuf,
    /// The state directory.
    pub state: PathBuf,
    /// They may change those files; else every mend is one that they may do themselves, or somebody
    /// to ask.
    pub administers: bool,
    /// Their uid.
    pub uid: u32,
    /// systemd runs this host and would run the daemon.
    pub by_systemd: bool,
    /// A daemon answers, so what goes through it can be done.
    pub is_answered: bool,
    /// What else than modes may deny something here: `selinux`, `apparmor`.
    pub keepers: Vec<String>,
}

impl Asker {
    /// A command of ours.
    #[must_use]
    pub fn ours(&self, words: &str) -> Mend {
        Mend::Run(format!("{} {words}", self.mcpsup))
    }

    /// A change of one server's table.
    #[must_use]
    pub fn in_table(&self, server: &ServerName, so: impl AsRef<str>) -> Mend {
        let so = format!("in [server.{server}] {}", so.as_ref());
        self.for_administrators(Mend::Edit { file: self.config.clone(), so })
    }

    /// A mend that takes an administrator: for anybody else, whom to ask for it.
    #[must_use]
    pub fn for_administrators(&self, mend: Mend) -> Mend {
        match mend {
            mend if self.administers => mend,
            Mend::Run(command) => Mend::Do(format!("ask an administrator of this host to run: {command}")),
            Mend::Edit { file, so } => {
                Mend::Do(format!("ask an administrator of this host to edit {file}: {so}"))
            }
            Mend::Do(what) => Mend::Do(format!("ask an administrator of this host: {what}")),
        }
    }

    /// The daemon is to be started.
    #[must_use]
    pub fn start_daemon(&self) -> Mend {
        self.for_administrators(if self.by_systemd {
            Mend::Run("systemctl start mcpsup".to_owned())
        } else {
            self.ours("daemon")
        })
    }

    /// The daemon is to be ended, its servers kept, and another started.
    #[must_use]
    pub fn restart_daemon(&self, pid: Option<u32>) -> Mend {
        self.for_administrators(match pid {
            _ if self.by_systemd => Mend::Run("systemctl restart mcpsup".to_owned()),
            // SIGUSR2 ends the daemon alone: its servers go on and are found again.
            Some(pid) => Mend::Run(format!("kill -USR2 {pid}; {} daemon", self.mcpsup)),
            None => Mend::Do("end the daemon with SIGUSR2, and start it again".to_owned()),
        })
    }
}

/// What [`Identity`] wants of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wish {
    Read = 4,
    Pass = 1,
}

/// True if the modes let somebody (acl(5) aside): root's rights are not counted, for servers have
/// none.
pub(super) fn lets(step: &Step, who: &Identity, wish: Wish) -> bool {
    step.mode >> shift(step, who) & wish as u32 != 0
}

/// Which of the three classes of a mode somebody is in, as bits to shift it by.
fn shift(step: &Step, who: &Identity) -> u32 {
    match () {
        () if who.uid == step.uid => 6,
        () if who.gids.contains(&step.gid) => 3,
        () => 0,
    }
}

/// The letter of `chmod` for somebody's class.
fn class(step: &Step, who: &Identity) -> char {
    match shift(step, who) {
        6 => 'u',
        3 => 'g',
        _ => 'o',
    }
}

/// The first directory on the way that is closed to somebody, and what opens it.
pub(super) fn closed_on(way: &Way, who: &Identity) -> Option<Finding> {
    // The end itself may be a directory to be entered: it is one of them.
    let mut dirs = way.steps.iter().filter(|step| step.kind == Kind::Directory);
    let closed = dirs.find(|step| !lets(step, who, Wish::Pass))?;
    let shown = shell_word(&closed.path);
    let wrong = format!(
        "{} cannot be reached as {}: {shown} is closed to it (mode {:04o})",
        way.path.display(),
        who.name,
        closed.mode
    );
    let mend = if closed.path == Path::new("/root") {
        // Root's own home: what is for others lies elsewhere.
        Mend::Do("put it where others may get to it, below /opt say: /root is root's alone".to_owned())
    } else {
        Mend::Run(format!("chmod {}+x {shown}", class(closed, who)))
    };
    Some(Finding::wrong(Code::Way, wrong, mend))
}

/// What says no where the modes say yes.
pub(super) fn denied(path: &Path, way: &Way, asker: &Asker) -> Finding {
    let shown = shell_word(path);
    if way.has_acl {
        let wrong =
            format!("{shown} is denied though its mode allows it: an access control list stands on the way");
        return Finding::wrong(Code::Denied, wrong, Mend::Run(format!("setfacl -b {shown}")));
    }
    let keeper = |name: &str| asker.keepers.iter().any(|keeper| keeper == name);
    let (who, mend) = match () {
        () if keeper("selinux") => ("SELinux", Mend::Run(format!("restorecon -Rv {shown}"))),
        () if keeper("apparmor") => (
            "AppArmor",
            Mend::Do(format!("allow {shown} in the profile that journalctl -k -g apparmor names")),
        ),
        () => (
            "something else (SELinux, AppArmor, a sandbox around this process)",
            Mend::Do(format!("find out what denies {shown}: journalctl -k -g denied")),
        ),
    };
    Finding::wrong(Code::Denied, format!("{shown} is denied though its mode allows it: {who} says no"), mend)
}

/// A path as a shell takes it.
#[must_use]
pub fn shell_word(path: &Path) -> String {
    shell::word(&path.to_string_lossy())
}

/// Findings of one server, each once.
pub(super) fn of_server(
    findings: impl IntoIterator<Item = Finding>,
    user: &UserName,
    server: &ServerName,
) -> Vec<Finding> {
    findings.into_iter().map(|finding| finding.of_server(user, server)).collect()
}

/// What is shown: everything once, what has to be mended first, general things before users'.
#[must_use]
pub fn in_order(findings: Vec<Finding>) -> Vec<Finding> {
    let mut all: Vec<Finding> = Vec::new();
    for finding in findings {
        // One thing that hits every user is told once for each mend.
        let is_told = |told: &Finding| {
            told.code == finding.code && told.mend == finding.mend && told.wrong == finding.wrong
        };
        if !all.iter().any(is_told) {
            all.push(finding);
        }
    }
    let causes: Vec<Finding> = all.iter().filter(|finding| is_cause(finding)).cloned().collect();
    all.retain(|finding| {
        let is_of = |cause: &Finding| cause.user == finding.user && cause.server == finding.server;
        !is_consequence(finding) || !causes.iter().any(is_of)
    });
    all.sort_by(|one, other| {
        (one.weight, &one.user, &one.server).cmp(&(other.weight, &other.user, &other.server))
    });
    all
}

/// A server cannot be started for this.
fn is_cause(finding: &Finding) -> bool {
    finding.server.is_some()
        && matches!(
            finding.code,
            Code::Program
                | Code::NotExecutable
                | Code::Interpreter
                | Code::Argument
                | Code::Package
                | Code::Way
                | Code::WorkingDirectory
                | Code::Directory
        )
}

/// A server that could not be started, or ended: what a cause explains.
fn is_consequence(finding: &Finding) -> bool {
    finding.server.is_some() && matches!(finding.code, Code::Crash | Code::NotReady | Code::Denied)
}
