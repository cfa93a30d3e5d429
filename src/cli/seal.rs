//! `mcpsup seal`: a user's env file becomes a sealed one.
//!
//! The sealed file is on the disk, and was opened again, before the plain one goes. That is
//! overwritten first, which is all that can be done: what a disk or a backup kept of it is not.

use anyhow::{Context, anyhow, bail};
use clap::ValueEnum;
use clap_complete::ArgValueCompleter;
use serde::Serialize;

use super::Outcome;
use super::add::tell;
use super::check::{examine_file, shown};
use super::names;
use super::session::Session;
use crate::model::UserName;
use crate::model::file::Seal;
use crate::system::envdir::rewrite::Draft;
use crate::system::envdir::sealed_name;
use crate::system::seal::Keeper;
use crate::system::{account, files};

/// Whose, and how.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Whose file
    #[arg(value_name = "USER", add = ArgValueCompleter::new(names::users))]
    user: UserName,
    /// By what; left out: systemd-creds where it is, else age
    #[arg(long, value_name = "TOOL")]
    with: Option<With>,
    /// Print what was done as JSON: {"user", "sealed", "removed"}
    #[arg(long)]
    json: bool,
}

/// What seals.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum With {
    /// With this host's own key, as USER.env.cred
    SystemdCreds,
    /// With a key in the state directory, as USER.env.age
    Age,
}

/// What was done.
#[derive(Debug, Serialize)]
struct Told<'a> {
    user: &'a UserName,
    sealed: String,
    removed: String,
}

/// Does it.
///
/// # Errors
///
/// When there is no plain file, it is wrong, or it cannot be sealed; it is then as it was.
pub fn run(args: &Args, session: &Session) -> anyhow::Result<Outcome> {
    let (user, env_dir) = (&args.user, &session.places.env_dir);
    // Said with its cause, which says whose it is to do.
    if let Err(error) = std::fs::read_dir(env_dir)
        && error.kind() == std::io::ErrorKind::PermissionDenied
    {
        return Err(error).with_context(|| format!("cannot seal the file of {user}"));
    }
    let own_uid = |user: &UserName| account::uid_of(user.as_str());
    let draft = Draft::open(env_dir, user, &own_uid)
        .map_err(|why| anyhow!("cannot seal the file of {user}: {why}"))?;
    let Some(draft) = draft else {
        bail!("cannot seal the file of {user}: there is none; mcpsup add {user} makes one");
    };
    if draft.seal().is_some() {
        bail!("cannot seal the file of {user}: env.d/{} is sealed already", draft.name());
    }
    let file = draft.file();
    if let Err(problems) = examine_file(
        &session.places,
        user,
        &shown(&session.places, draft.name()),
        &file.bytes,
        file.owner_uid,
    ) {
        session.print.aside("nothing is sealed:");
        return Ok(tell(&problems, session));
    }
    let keeper = Keeper::of(&session.places);
    let refused = |why: String| anyhow!("env.d/{} {why}", draft.name());
    let seal = match args.with {
        Some(With::SystemdCreds) => Seal::Creds,
        Some(With::Age) => Seal::Age,
        None => keeper.usual().map_err(|why| refused(format!("cannot be sealed: {why}")))?,
    };
    let had_key = keeper.own_key().is_some();
    let sealed = keeper.close(seal, user, &file.bytes).map_err(refused)?;
    if let Some(key) = keeper.own_key().filter(|_| !had_key) {
        session.print.aside(&format!("made the key {}, which opens what it seals", key.display()));
    }
    let path = env_dir.join(sealed_name(user, seal));
    files::replace_durably(&path, &sealed, 0o600)?;
    std::os::unix::fs::lchown(&path, Some(file.owner_uid), None)
        .with_context(|| format!("cannot give {} to its owner", path.display()))?;
    let plain = env_dir.join(draft.name());
    if let Err(why) = draft.shred() {
        // Two files would be a problem for the daemon; the one that is known to be good stays.
        files::remove(&path)?;
        bail!("nothing is sealed: {} cannot be removed: {why}", plain.display());
    }
    let (sealed, removed) = (path.display().to_string(), plain.display().to_string());
    if args.json {
        session.print.json(&Told { user, sealed, removed }, false)?;
    } else {
        session.print.line(&format!("sealed {sealed}; {removed} is removed"))?;
        session.print.aside(
            "what backups and the disk's own copies kept of the plain file is not undone; where that matters, get new credentials",
        );
    }
    Ok(Outcome::Done)
}
