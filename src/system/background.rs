//! Starting the daemon for somebody who goes on with something else: by systemd, or by ourselves.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::event::{Timespec, poll};
use rustix::io::Errno;

use super::tool::{self, Environment};
use super::{account, clock, files, survey};

/// How long a daemon may take to answer: it tries what this host keeps apart, and waits a second for
/// files that are being saved.
const PATIENCE: Duration = Duration::from_secs(20);

/// True if systemd would run the daemon of these files: root's own, with the unit installed.
#[must_use]
pub fn is_by_systemd(is_elsewhere: bool) -> bool {
    let is_loaded = || survey::unit("mcpsup.service").is_some_and(|unit| unit.load == "loaded");
    account::own_uid() == 0 && !is_elsewhere && is_loaded()
}

/// Starts the daemon, of `config` if one is named, and waits until it is heard at `control`; what was
/// done, for people. What it says goes to `daemon.log` in `logs`, where no systemd takes it.
///
/// # Errors
///
/// When it cannot be started, or is not heard in time.
pub fn start_daemon(config: Option<&Path>, logs: &Path, control: &Path) -> io::Result<String> {
    if is_by_systemd(config.is_some()) {
        tool::run("systemctl", &["enable", "--now", "mcpsup"], Environment::Ours, b"", 64 * 1024, PATIENCE)
            .map_err(|why| io::Error::other(format!("cannot start the daemon: {why}")))?;
        return heard(control, None).map(|()| "started mcpsup.service, now and after each boot".to_owned());
    }
    files::make_dir(logs, 0o700).map_err(|error| io::Error::other(error.to_string()))?;
    let path = logs.join("daemon.log");
    let log = OpenOptions::new().create(true).append(true).mode(0o600).open(&path)?;
    #[expect(clippy::disallowed_methods, reason = "the daemon itself, which is no server")]
    let mut command = Command::new(std::env::current_exe()?);
    if let Some(config) = config {
        command.arg("--config").arg(config);
    }
    // A group of its own: Ctrl-C at this terminal is not meant for it.
    command.arg("daemon").process_group(0).current_dir("/");
    let mut child =
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn().map_err(|error| {
            io::Error::other(format!("cannot start the daemon: {}", super::cause::plain(&error)))
        })?;
    heard(control, Some(&mut child))
        .map_err(|error| io::Error::other(format!("{error}; what it said is in {}", path.display())))?;
    Ok(format!("started the daemon (pid {}), whose log is {}", child.id(), path.display()))
}

/// Waits until somebody listens, or `child` has ended.
fn heard(control: &Path, mut child: Option<&mut std::process::Child>) -> io::Result<()> {
    let until = clock::now() + PATIENCE;
    loop {
        if UnixStream::connect(control).is_ok() {
            return Ok(());
        }
        if let Some(status) = child.as_mut().map(|child| child.try_wait()).transpose()?.flatten() {
            return Err(io::Error::other(format!("the daemon ended at once: {status}")));
        }
        if until.since(clock::now()).is_zero() {
            return Err(io::Error::other("the daemon does not answer"));
        }
        // Nothing tells when a socket appears; its directory may not be there yet.
        let pause = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
        match poll(&mut [], Some(&pause)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}
