//! The command line: one file per verb.
//!
//! [`args`] says what can be said, [`session`] reads the environment once, [`print`](mod@print) is the only
//! place that prints. A verb answers with an [`Outcome`] or an error; here that becomes the exit
//! status of PRODUCT §5.
//!
//! Shared by verbs: `who` (whose), `names` (a shell completes), `table`, `progress`, and `tame` for what servers
//! say; `steer` is start, stop and restart, `wish` is set, unset, enable and disable.

use std::ffi::OsString;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::process::ExitCode;

use anyhow::Context;
use clap::{CommandFactory, Parser};

use crate::control::client::ClientError;
use crate::control::protocol::RefusalKind;
use crate::system::{account, files, memory};

pub mod add;
pub mod args;
pub mod check;
pub mod client;
pub mod completions;
pub mod connect;
pub mod daemon;
pub mod doctor;
pub mod edit;
pub mod headers;
pub mod init;
pub mod logs;
pub mod man;
pub mod names;
pub mod ports;
pub mod print;
pub mod progress;
pub mod reload;
pub mod remove;
pub mod seal;
pub mod session;
pub mod status;
pub mod steer;
pub mod table;
pub mod tame;
pub mod who;
pub mod wish;

use args::{Cli, Verb};
use print::Print;
use session::{Environment, Session};

/// How a verb ended that was not stopped by an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Exit status 0.
    Done,
    /// Exit status 1; what failed has been said.
    Failed,
}

/// The verb cannot mean anything: exit status 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct WrongUse(pub String);

/// Does what the command line says.
#[must_use]
pub fn main() -> ExitCode {
    let words: Vec<OsString> = std::env::args_os().collect();
    if let Some(cli) = Cli::plain_daemon(&words) {
        return run(&cli);
    }
    // A shell that completes a line runs us with this variable set, and wants nothing else.
    let here = std::env::current_dir().ok();
    match completions::engine(Cli::command).try_complete(words.clone(), here.as_deref()) {
        Ok(false) => {}
        Ok(true) => return ExitCode::SUCCESS,
        Err(error) => return wrong_use(&error),
    }
    match Cli::try_parse_from(words) {
        Ok(cli) => run(&cli),
        Err(error) => wrong_use(&error),
    }
}

/// clap's own words; help and version are no error.
fn wrong_use(error: &clap::Error) -> ExitCode {
    match error.print() {
        Ok(()) => ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2)),
        Err(_) => ExitCode::FAILURE,
    }
}

fn run(cli: &Cli) -> ExitCode {
    match ended(cli) {
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::Failed) => ExitCode::FAILURE,
        // Whoever read our output has enough of it: `mcpsup status | head -1`.
        Err(error) if is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            Print::error(&error);
            ExitCode::from(status_of(&error))
        }
    }
}

fn ended(cli: &Cli) -> anyhow::Result<Outcome> {
    let environment = Environment::read();
    let print = Print::new(&environment);
    // These ask nothing of the host, and are also run where a package is built.
    if let Verb::Completions(args) = &cli.verb {
        return completions::run(args, &print);
    }
    if let Verb::Man(args) = &cli.verb {
        return man::run(args, &print);
    }
    // What is typed or sealed here is as secret as what the daemon has; so are an editor's copies of it.
    if let Err(error) = memory::forbid_cores() {
        print.aside(&format!("cannot forbid core dumps: {error}"));
    }
    let session = Session::new(cli.config.as_deref(), environment, print)?;
    let result = may_write(&cli.verb, &session).and_then(|()| dispatch(&cli.verb, &session));
    session.print.clear_progress();
    result.map_err(|error| {
        if io_kind(&error) == Some(io::ErrorKind::PermissionDenied) && writes_env_d(&cli.verb, &session) {
            return error.context(
                "only root writes into env.d here (sudo); a declared credential is changed through the daemon, by mcpsup set and unset",
            );
        }
        error
    })
}

/// Refuses, before anything is asked for, what would be refused once it was typed.
fn may_write(verb: &Verb, session: &Session) -> anyhow::Result<()> {
    if !writes_env_d(verb, session) {
        return Ok(());
    }
    let dir = &session.places.env_dir;
    match files::may_write_in(dir) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            Err(error).with_context(|| format!("cannot write into {}", dir.display()))
        }
        // What else is wrong with it, the verb says.
        Ok(()) | Err(_) => Ok(()),
    }
}

/// True if the verb writes into an env.d that is somebody else's: members of the group mcpsup may do the
/// rest.
fn writes_env_d(verb: &Verb, session: &Session) -> bool {
    let writes = matches!(verb, Verb::Add(_) | Verb::Edit(_) | Verb::Seal(_) | Verb::Remove(_));
    let owner = std::fs::metadata(&session.places.env_dir).map(|meta| meta.uid()).ok();
    writes && owner != Some(account::own_uid())
}

fn dispatch(verb: &Verb, session: &Session) -> anyhow::Result<Outcome> {
    match verb {
        Verb::Daemon => daemon::run(session),
        Verb::Init(args) => init::run(args, session),
        Verb::Check(args) => check::run(args, session),
        Verb::Doctor(args) => doctor::run(args, session),
        Verb::Start(args) => steer::run(steer::Deed::Start, args, session),
        Verb::Stop(args) => steer::run(steer::Deed::Stop, args, session),
        Verb::Restart(args) => steer::run(steer::Deed::Restart, args, session),
        Verb::Status(args) => status::run(args, session),
        Verb::Logs(args) => logs::run(args, session),
        Verb::Add(args) => add::run(args, session),
        Verb::Edit(args) => edit::run(args, session),
        Verb::Remove(args) => remove::run(args, session),
        Verb::Ports(args) => ports::run(args, session),
        Verb::Client(args) => client::run(args, session),
        Verb::Connect(args) => connect::run(args, session),
        Verb::Headers(args) => headers::run(args, session),
        Verb::Set(args) => wish::set(args, session),
        Verb::Unset(args) => wish::unset(args, session),
        Verb::Enable(args) => wish::enable(args, session),
        Verb::Disable(args) => wish::disable(args, session),
        Verb::Seal(args) => seal::run(args, session),
        Verb::Reload(args) => reload::run(args, session),
        Verb::Completions(args) => completions::run(args, &session.print),
        Verb::Man(args) => man::run(args, &session.print),
    }
}

fn io_kind(error: &anyhow::Error) -> Option<io::ErrorKind> {
    error.chain().find_map(|cause| match cause.downcast_ref::<ClientError>() {
        Some(ClientError::Unreachable { cause, .. } | ClientError::Output(cause)) => Some(cause.kind()),
        Some(ClientError::Refused(_) | ClientError::Broken { .. }) => None,
        None => cause.downcast_ref::<io::Error>().map(io::Error::kind),
    })
}

fn is_closed_pipe(error: &anyhow::Error) -> bool {
    io_kind(error) == Some(io::ErrorKind::BrokenPipe)
}

/// The exit status of PRODUCT §5.
fn status_of(error: &anyhow::Error) -> u8 {
    const FAILED: u8 = 1;
    const WRONG_USE: u8 = 2;
    const NO_DAEMON: u8 = 3;
    const NOT_PERMITTED: u8 = 4;
    if error.is::<WrongUse>() {
        return WRONG_USE;
    }
    if io_kind(error) == Some(io::ErrorKind::PermissionDenied) {
        return NOT_PERMITTED;
    }
    match error.downcast_ref::<ClientError>() {
        Some(ClientError::Unreachable { .. }) => NO_DAEMON,
        Some(ClientError::Refused(refusal)) => match refusal.kind {
            RefusalKind::WrongUse => WRONG_USE,
            RefusalKind::NotPermitted => NOT_PERMITTED,
            RefusalKind::Unknown | RefusalKind::Failed => FAILED,
        },
        Some(ClientError::Broken { .. } | ClientError::Output(_)) | None => FAILED,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::protocol::Refusal;

    fn unreachable(kind: io::ErrorKind) -> anyhow::Error {
        ClientError::Unreachable { path: "/run/mcpsup/control.sock".into(), cause: kind.into() }.into()
    }

    fn refused(kind: RefusalKind) -> anyhow::Error {
        ClientError::from(Refusal { kind, text: "no".to_owned() }).into()
    }

    #[test]
    fn the_exit_status_says_what_can_be_done_about_it() {
        assert_eq!(status_of(&unreachable(io::ErrorKind::ConnectionRefused)), 3);
        assert_eq!(status_of(&unreachable(io::ErrorKind::NotFound)), 3);
        assert_eq!(status_of(&unreachable(io::ErrorKind::PermissionDenied)), 4);
        assert_eq!(status_of(&refused(RefusalKind::NotPermitted)), 4);
        assert_eq!(status_of(&refused(RefusalKind::WrongUse)), 2);
        assert_eq!(status_of(&refused(RefusalKind::Unknown)), 1);
        assert_eq!(status_of(&WrongUse("x".to_owned()).into()), 2);
        assert_eq!(status_of(&anyhow::anyhow!("x")), 1);
        let denied = anyhow::Error::from(io::Error::from(io::ErrorKind::PermissionDenied));
        assert_eq!(status_of(&denied.context("cannot write x")), 4);
    }

    #[test]
    fn a_reader_who_has_enough_is_no_error() {
        let closed = ClientError::Output(io::ErrorKind::BrokenPipe.into());
        assert!(is_closed_pipe(&closed.into()));
        assert!(!is_closed_pipe(&anyhow::anyhow!("x")));
    }
}
