//! A client's configuration file: read, changed whole, and never without a copy of what it was.
//!
//! Only a file of the caller's own is changed: replacing gives it to whoever replaces it, and
//! root has no business following links in somebody's home. What is in the file is not looked at
//! here.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use crate::system::files;

/// Largest file in bytes; Claude Code keeps its history in one.
pub(super) const LARGEST: usize = 64 * 1024 * 1024;

/// What came of an edit.
pub(super) struct Done {
    /// False if the file said all that already.
    pub(super) changed: bool,
    /// Where the file is as it was before.
    pub(super) backup: Option<PathBuf>,
}

/// The first file that exists, or else the first.
pub(super) fn to_write(candidates: &[PathBuf]) -> PathBuf {
    let there = candidates.iter().find(|path| path.exists()).or(candidates.first());
    there.cloned().unwrap_or_default()
}

/// A file's text; `None` if there is no such file.
pub(super) fn read(path: &Path) -> anyhow::Result<Option<String>> {
    let bytes = match files::read_bounded(path, LARGEST) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    // The error would quote the bytes.
    match String::from_utf8(bytes) {
        Ok(text) => Ok(Some(text)),
        Err(error) => {
            bail!("cannot read {}: byte {} is not UTF-8", path.display(), error.utf8_error().valid_up_to())
        }
    }
}

/// Replaces the file by what `change` makes of its text (of an empty one if there is none yet).
/// A link is followed: what it points at is replaced.
pub(super) fn edit(
    path: &Path,
    uid: u32,
    change: impl Fn(&str) -> anyhow::Result<String>,
) -> anyhow::Result<Done> {
    if uid == 0 {
        only_roots_way(path)?;
    }
    let Some(text) = read(path)? else {
        if path.is_symlink() {
            bail!("cannot write {}: it is a link to nothing", path.display());
        }
        let new = change("")?;
        create(path, &new)?;
        return Ok(Done { changed: true, backup: None });
    };
    let new = change(&text)?;
    if new == text {
        return Ok(Done { changed: false, backup: None });
    }
    let target = fs::canonicalize(path).with_context(|| format!("cannot find {}", path.display()))?;
    let is = fs::metadata(&target).with_context(|| format!("cannot read {}", target.display()))?;
    if is.uid() != uid {
        bail!("cannot write {}: it belongs to uid {}; run this as that user", target.display(), is.uid());
    }
    let backup = back_up(&target, text.as_bytes(), is.mode() & 0o777)
        .with_context(|| format!("cannot keep a backup of {}", target.display()))?;
    // Some clients write their file all the time; what they wrote meanwhile must not be lost.
    if read(&target)?.as_deref() != Some(text.as_str()) {
        bail!("cannot write {}: it changed meanwhile; try again", target.display());
    }
    files::replace(&target, new.as_bytes(), is.mode() & 0o777)?;
    Ok(Done { changed: true, backup: Some(backup) })
}

/// Whoever owns a directory or a link on the way can lead root to another file than the one that
/// was looked at. (In somebody's home a new file would be root's, and of no use to them either.)
fn only_roots_way(path: &Path) -> anyhow::Result<()> {
    let path = std::path::absolute(path).with_context(|| format!("cannot find {}", path.display()))?;
    for step in path.ancestors().skip(1).chain([path.as_path()]) {
        let owner = fs::symlink_metadata(step).map_or(0, |meta| meta.uid());
        if owner != 0 {
            bail!(
                "cannot write {}: {} belongs to uid {owner}; run this as that user",
                path.display(),
                step.display()
            );
        }
    }
    Ok(())
}

fn create(path: &Path, text: &str) -> anyhow::Result<()> {
    if let Some(dir) = path.parent() {
        files::make_way(dir)?;
    }
    Ok(files::replace(path, text.as_bytes(), 0o600)?)
}

/// Keeps what the file is now under a name that nothing has yet.
fn back_up(target: &Path, text: &[u8], mode: u32) -> io::Result<PathBuf> {
    for number in 0_u32.. {
        let mut name = target.as_os_str().to_owned();
        name.push(".bak-mcpsup");
        if number > 0 {
            name.push(format!(".{number}"));
        }
        let backup = PathBuf::from(name);
        // The same file under a second name: whole at once, same owner, same mode.
        let kept = fs::hard_link(target, &backup).or_else(|error| {
            if error.kind() == io::ErrorKind::AlreadyExists {
                return Err(error);
            }
            // A file system without hard links.
            let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&backup)?;
            file.write_all(text)?;
            file.sync_all()
        });
        match kept {
            Ok(()) => return Ok(backup),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}
