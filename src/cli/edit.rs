//! `mcpsup edit`: the caller's editor on a copy, put in place only if it is right.
//!
//! The copy lies in memory-backed storage (a tmpfs, as the kernel says of the directory itself), in a
//! directory of its own (editors leave swap files and backups beside what they edit, and what they
//! put into TMPDIR goes there as well), and goes when we end, whatever happens. A sealed file is
//! opened for it and sealed again, so what it says is never on a disk.

use std::borrow::Cow;
use std::io::{self, IsTerminal};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use clap_complete::ArgValueCompleter;
use serde::Serialize;
use zeroize::Zeroizing;

use super::Outcome;
use super::add::tell;
use super::check::{examine_file, shown};
use super::names;
use super::session::Session;
use crate::model::file::{Seal, SecretBytes};
use crate::model::{Problem, UserName};
use crate::system::envdir::names_of;
use crate::system::envdir::rewrite::{Draft, NotPut};
use crate::system::seal::Keeper;
use crate::system::trust::{self, Distrust};
use crate::system::{account, files, terminal};

/// Whose.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Whose file
    #[arg(value_name = "USER", add = ArgValueCompleter::new(names::users))]
    pub user: UserName,
    /// Print what was done as JSON: {"user", "file", "changed", "problems"}
    #[arg(long)]
    pub json: bool,
}

/// What was done.
#[derive(Debug, Serialize)]
struct Edited<'a> {
    user: &'a UserName,
    file: Cow<'a, str>,
    changed: bool,
    /// Why not, if that is why.
    problems: Vec<Problem>,
}

/// Largest env file in bytes.
const LARGEST: usize = 1024 * 1024;

/// Does it.
///
/// # Errors
///
/// When there is no such file, no place in memory, no editor, or the file changed meanwhile.
pub fn run(args: &Args, session: &Session) -> anyhow::Result<Outcome> {
    let places = &session.places;
    let original = Original::open(&places.env_dir, &args.user)?;
    let (name, path) = (original.name(), original.path());
    let keeper = Keeper::of(places);
    let seal = Seal::of(name);
    let refused = |why: String| anyhow!("{} {why}", path.display());
    let before = match seal {
        Some(seal) => keeper.open(seal, &args.user, original.bytes()).map_err(refused)?,
        None => original.bytes().clone(),
    };
    let editor = ["VISUAL", "EDITOR"].into_iter().find_map(|name| session.environment.get(name));
    let editor = editor.map_or_else(|| "vi".into(), |editor| editor.to_string_lossy());
    let patience = terminal::Patience::begin().context("cannot guard the copy")?;
    let desk = Desk::make(session)?;
    if seal.is_some() && terminal::swaps() {
        session.print.aside("this host swaps memory to a disk, and the copy with it if memory runs short");
    }
    // As a plain file is called, for the editor's sake.
    let copy = desk.0.join(format!("{}.env", args.user));
    files::replace(&copy, &before, 0o600)?;
    loop {
        let status = terminal::edit(&editor, &copy).context("cannot start the editor")?;
        if patience.is_over() {
            bail!("nothing is changed: we were asked to end");
        }
        if !status.success() {
            bail!("nothing is changed: the editor ended with {status}");
        }
        let after = Zeroizing::new(files::read_bounded(&copy, LARGEST)?);
        if after == before {
            return say(args, path, false, session);
        }
        let shown = shown(places, name);
        match examine_file(places, &args.user, &shown, &after, original.owner()) {
            Ok(()) => {
                let sealed = match seal {
                    Some(seal) => keeper.close(seal, &args.user, &after).map_err(refused)?.into(),
                    None => after,
                };
                original.put(&sealed)?;
                return say(args, path, true, session);
            }
            Err(problems) => {
                let outcome = tell(&problems, session);
                if !again(session)? {
                    session.print.aside("nothing is changed");
                    if args.json {
                        session.print.json(&Edited::new(args, path, false, problems), false)?;
                    }
                    return Ok(outcome);
                }
            }
        }
    }
}

impl<'a> Edited<'a> {
    fn new(args: &'a Args, path: &'a Path, changed: bool, problems: Vec<Problem>) -> Self {
        Self { user: &args.user, file: path.to_string_lossy(), changed, problems }
    }
}

fn say(args: &Args, path: &Path, changed: bool, session: &Session) -> anyhow::Result<Outcome> {
    if args.json {
        session.print.json(&Edited::new(args, path, changed, Vec::new()), false)?;
    } else if changed {
        session.print.line(&format!("saved {}", path.display()))?;
    } else {
        session.print.line("nothing is changed")?;
    }
    Ok(Outcome::Done)
}

/// The file that is edited.
enum Original {
    /// It lies in env.d itself.
    There(Draft, PathBuf),
    /// A link leads to it.
    Linked { name: String, path: PathBuf, bytes: SecretBytes, owner: u32 },
}

impl Original {
    fn open(env_dir: &Path, user: &UserName) -> anyhow::Result<Self> {
        for name in names_of(user) {
            let link = env_dir.join(&name);
            if std::fs::symlink_metadata(&link).is_ok_and(|meta| meta.is_symlink()) {
                // Under the daemon's own rules: who owns a directory out there could lead us to anybody's file.
                let cannot = |why: Distrust| anyhow!("cannot edit {}: it {why}", link.display());
                let dir = std::fs::File::open(env_dir)
                    .with_context(|| format!("cannot open {}", env_dir.display()))?;
                trust::locate_beneath(&dir, env_dir, &name).map_err(cannot)?;
                let path = std::fs::canonicalize(&link)
                    .with_context(|| format!("cannot read {}", link.display()))?;
                let bytes = SecretBytes::new(files::read_bounded(&path, LARGEST)?);
                let owner = std::fs::metadata(&path)?.uid();
                return Ok(Self::Linked { name, path, bytes, owner });
            }
        }
        let draft = Draft::open(env_dir, user, &|user| account::uid_of(user.as_str()));
        let Some(draft) = draft.map_err(|why| anyhow!("cannot edit the file of {user}: {why}"))? else {
            bail!("cannot edit the file of {user}: there is none; mcpsup add {user} makes one");
        };
        let path = env_dir.join(draft.name());
        Ok(Self::There(draft, path))
    }

    /// What it is called in env.d.
    fn name(&self) -> &str {
        match self {
            Self::There(draft, _) => draft.name(),
            Self::Linked { name, .. } => name,
        }
    }

    /// Where it really is.
    fn path(&self) -> &Path {
        let (Self::There(_, path) | Self::Linked { path, .. }) = self;
        path
    }

    fn bytes(&self) -> &SecretBytes {
        match self {
            Self::There(draft, _) => &draft.file().bytes,
            Self::Linked { bytes, .. } => bytes,
        }
    }

    fn owner(&self) -> u32 {
        match self {
            Self::There(draft, _) => draft.file().owner_uid,
            Self::Linked { owner, .. } => *owner,
        }
    }

    /// Replaces it unless somebody else did meanwhile; its owner and mode stay.
    fn put(&self, after: &[u8]) -> anyhow::Result<()> {
        match self {
            Self::There(draft, path) => {
                draft.put(after).map_err(|why| anyhow!("nothing is changed in {}: {why}", path.display()))
            }
            Self::Linked { path, bytes, .. } => put(path, bytes, after),
        }
    }
}

/// Replaces what a link leads to, wherever that is: between the look and the deed there is a moment.
fn put(path: &Path, before: &[u8], after: &[u8]) -> anyhow::Result<()> {
    let now = Zeroizing::new(files::read_bounded(path, LARGEST)?);
    if *now != *before {
        bail!("nothing is changed in {}: {}", path.display(), NotPut::Changed);
    }
    let meta = std::fs::metadata(path).with_context(|| format!("cannot read {}", path.display()))?;
    files::replace_durably(path, after, meta.mode() & 0o700)?;
    let new = std::fs::metadata(path)?;
    if (new.uid(), new.gid()) != (meta.uid(), meta.gid()) {
        std::os::unix::fs::lchown(path, Some(meta.uid()), Some(meta.gid()))
            .with_context(|| format!("cannot give {} back to its owner", path.display()))?;
    }
    Ok(())
}

fn again(session: &Session) -> anyhow::Result<bool> {
    if !io::stdin().is_terminal() {
        return Ok(false);
    }
    session.print.ask("edit again? [Y/n] ");
    // Not read_line: Ctrl-C is caught since the editor was started, and must mean no here.
    let answer = terminal::read_hidden().context("cannot read from the terminal")?;
    session.print.answered();
    Ok(answer.is_some_and(|answer| !answer.reveal().trim_start().to_lowercase().starts_with('n')))
}

/// A directory of ours in memory; gone with everything in it when dropped.
struct Desk(PathBuf);

impl Desk {
    fn make(session: &Session) -> anyhow::Result<Self> {
        let own = session.environment.get("XDG_RUNTIME_DIR").map(PathBuf::from);
        // After `su` it may be another user's, who could put another directory in ours' place.
        let us = account::own_uid();
        let own = own
            .filter(|dir| std::fs::symlink_metadata(dir).is_ok_and(|meta| meta.is_dir() && meta.uid() == us));
        let places = own.into_iter().chain(["/run".into(), "/dev/shm".into()]);
        for place in places.filter(|place| terminal::is_in_memory(place)) {
            for number in 0..16 {
                let dir = place.join(format!("mcpsup-edit-{}-{number}", std::process::id()));
                // Fails if it is there, whoever made it: /dev/shm is everybody's.
                match std::fs::DirBuilder::new().mode(0o700).create(&dir) {
                    Ok(()) => return Ok(Self(dir)),
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                    Err(_) => break,
                }
            }
        }
        bail!(
            "cannot edit a copy: none of $XDG_RUNTIME_DIR, /run, /dev/shm is memory (tmpfs) that \
             we may write to"
        )
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            tracing::error!(%error, dir = %self.0.display(), "copy not removed");
        }
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests write small files")]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_file_that_somebody_else_changed_is_left_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("alice.env");
        std::fs::write(&path, "A=theirs\n").unwrap();
        assert!(put(&path, b"A=old\n", b"A=mine\n").is_err());
        assert_eq!(std::fs::read(&path).unwrap(), b"A=theirs\n");
    }

    #[test]
    fn a_file_that_somebody_else_put_there_is_theirs_though_it_says_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let save = |name: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, "A=old\n").unwrap();
            std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
            path
        };
        let path = save("alice.env");
        let original = Original::open(dir.path(), &"alice".parse().unwrap()).unwrap();
        std::fs::rename(save("another"), &path).unwrap();
        let said = original.put(b"A=mine\n").unwrap_err().to_string();
        assert!(said.ends_with("alice.env: it was changed by somebody else meanwhile"), "{said}");
        assert_eq!(std::fs::read(&path).unwrap(), b"A=old\n");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_link_out_of_env_d_is_not_edited_and_one_within_is() {
        let dir = tempfile::tempdir().unwrap();
        let env_dir = dir.path().join("env.d");
        std::fs::create_dir_all(env_dir.join("..data")).unwrap();
        for file in [dir.path().join("alice.env"), env_dir.join("..data/bob.env")] {
            std::fs::write(file, "A=1\n").unwrap();
        }
        std::os::unix::fs::symlink("../alice.env", env_dir.join("alice.env")).unwrap();
        std::os::unix::fs::symlink("..data/bob.env", env_dir.join("bob.env")).unwrap();
        // Out, and in again.
        std::fs::remove_file(dir.path().join("alice.env")).unwrap();
        std::os::unix::fs::symlink("env.d/bob.env", dir.path().join("alice.env")).unwrap();
        let said = Original::open(&env_dir, &"alice".parse().unwrap()).err().unwrap().to_string();
        assert!(said.ends_with("leads out of its directory; put the file itself there"), "{said}");
        assert!(Original::open(&env_dir, &"bob".parse().unwrap()).is_ok());
    }

    #[test]
    fn what_is_put_in_place_is_nobody_elses_to_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("alice.env");
        std::fs::write(&path, "A=old\n").unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
        put(&path, b"A=old\n", b"A=new\n").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"A=new\n");
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    }

    #[test]
    fn the_copy_goes_with_everything_an_editor_left_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let desk = dir.path().join("desk");
        std::fs::create_dir(&desk).unwrap();
        let guard = Desk(desk.clone());
        std::fs::write(desk.join(".alice.env.swp"), "secret").unwrap();
        drop(guard);
        assert!(!desk.exists());
    }
}
