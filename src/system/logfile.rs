//! One instance's log file: bounded in size and number, and never a reason to wait.
//!
//! What a run writes is kept byte for byte: no time stamps, no prefixes, for the lines are the
//! server's own. Lines that begin with `mcpsup: ` are ours: where a run begins, and what is missing. The
//! server's own that begin so get a bar: `mcpsup:| `.
//!
//! The file is opened by the first write and closed by [`LogFile::close`], so an instance that says
//! nothing holds no descriptor. When it cannot be written (disk full, directory gone), what was to
//! be written is dropped and counted, and the next write that succeeds says how much that was. A
//! run is never stopped or slowed because of its log.
//!
//! Nothing here knows what a secret is: `daemon::output` takes those out before.

use std::ffi::OsString;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use nix::libc::{O_CLOEXEC, O_NOFOLLOW, O_NONBLOCK};
use tokio::sync::watch;

use crate::model::InstanceId;
use crate::system::cause::plain;

/// Where the log of an instance is: `LOGS/USER/SERVER.log`.
#[must_use]
pub fn path_of(logs: &Path, instance: &InstanceId) -> PathBuf {
    logs.join(instance.user.as_str()).join(format!("{}.log", instance.server))
}

/// The `number`th rotated file beside `log`; 1 is the newest.
#[must_use]
pub fn rotated(log: &Path, number: u32) -> PathBuf {
    let mut name = OsString::from(log.as_os_str());
    name.push(format!(".{number}"));
    name.into()
}

/// How much is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// A file that would become larger than this many bytes is rotated first.
    pub max_size: u64,
    /// How many rotated files are kept, as `.1` (the newest) to `.keep`. With 0 a full file is
    /// begun anew.
    pub keep: u32,
}

/// The log of one instance.
///
/// It belongs to the daemon: mode 0600, in a directory of mode 0700. A symbolic link in its place
/// is not followed, and what is not a regular file is not written.
#[derive(Debug)]
pub struct LogFile {
    path: Box<Path>,
    limits: Limits,
    // Boxed, as most are silent.
    open: Option<Box<Open>>,
    lost: Option<Box<Lost>>,
    bell: Option<Box<watch::Sender<u64>>>,
}

#[derive(Debug)]
struct Open {
    file: File,
    size: u64,
    /// False after bytes that did not end a line.
    at_line_start: bool,
    /// How many bytes of [`OURS`] the line that has begun is so far; `None` if it is not like that.
    like_ours: Option<u8>,
}

/// How a line of ours begins, and what stands before the last byte of that in a line of the server's own.
const OURS: &[u8] = b"mcpsup: ";
const NOT_OURS: &[u8] = b"|";

/// What could not be written since the last write that succeeded.
#[derive(Debug)]
struct Lost {
    bytes: u64,
    /// Why the first of them was lost.
    cause: io::Error,
}

impl LogFile {
    /// A log that is, or will be, at `path`; nothing is opened or made yet.
    #[must_use]
    pub fn new(path: impl Into<Box<Path>>, limits: Limits) -> Self {
        Self { path: path.into(), limits, open: None, lost: None, bell: None }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Applies other limits from the next write on.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// Appends bytes as they are. What cannot be written is dropped and counted.
    pub fn write(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let mut rest = bytes;
        if let Err(cause) = self.confess().and_then(|()| self.append(&mut rest, false)) {
            self.lose(rest.len(), cause);
        }
        self.ring();
    }

    /// Appends `mcpsup: TEXT` as a line of its own. `text` is for people and holds no secret.
    pub fn note(&mut self, text: &str) {
        self.write_note(text).unwrap_or_else(|cause| self.lose(0, cause));
        self.ring();
    }

    /// How many bytes were dropped since the last write that succeeded, and why the first was.
    #[cfg(test)]
    fn lost(&self) -> Option<(u64, &io::Error)> {
        self.lost.as_deref().map(|lost| (lost.bytes, &lost.cause))
    }

    /// Gives the descriptor back until the next write. Says what was lost, if that can be done now.
    pub fn close(&mut self) {
        if let Err(cause) = self.confess() {
            self.lose(0, cause);
        }
        self.open = None;
        self.bell.take_if(|bell| bell.is_closed());
    }

    /// True while it holds a descriptor.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Rings when something was written; the number means nothing but "again".
    pub fn bell(&mut self) -> watch::Receiver<u64> {
        self.bell.get_or_insert_with(|| Box::new(watch::Sender::new(0))).subscribe()
    }

    fn ring(&mut self) {
        self.bell.take_if(|bell| bell.is_closed());
        if let Some(bell) = &self.bell {
            bell.send_modify(|rung| *rung = rung.wrapping_add(1));
        }
    }

    fn lose(&mut self, bytes: usize, cause: io::Error) {
        // Whatever was wrong may be mended by opening it again: a directory that came back.
        self.open = None;
        let lost = self.lost.get_or_insert_with(|| Box::new(Lost { bytes: 0, cause }));
        lost.bytes = lost.bytes.saturating_add(bytes as u64);
    }

    /// Says what was lost, if something was.
    fn confess(&mut self) -> io::Result<()> {
        self.lost.take_if(|lost| lost.bytes == 0);
        let Some(lost) = self.lost.as_deref() else {
            return Ok(());
        };
        let text = format!("{} bytes of output were lost: {}", lost.bytes, plain(&lost.cause));
        self.write_note(&text)?;
        self.lost = None;
        Ok(())
    }

    fn write_note(&mut self, text: &str) -> io::Result<()> {
        let start = if self.opened()?.at_line_start { "" } else { "\n" };
        let line = format!("{start}mcpsup: {text}\n");
        self.append(&mut line.as_bytes(), true)
    }

    /// Writes all of `rest`, over as many files as it takes, and takes from it what was written.
    ///
    /// What is not `ours` does not look so afterwards.
    fn append(&mut self, rest: &mut &[u8], ours: bool) -> io::Result<()> {
        let max_size = self.limits.max_size.max(1);
        while !rest.is_empty() {
            let open = self.opened()?;
            let room = usize::try_from(max_size.saturating_sub(open.size)).unwrap_or(usize::MAX);
            let fits = fitting(rest, room, open.at_line_start && open.size > 0);
            if fits == 0 {
                self.rotate()?;
                continue;
            }
            let honest = if ours { fits } else { open.honest(&rest[..fits]) };
            if honest == 0 {
                open.put(NOT_OURS)?;
                continue;
            }
            let written = open.put(&rest[..honest])?;
            *rest = &rest[written..];
        }
        Ok(())
    }

    fn opened(&mut self) -> io::Result<&mut Open> {
        let open = match self.open.take() {
            Some(open) => open,
            None => Box::new(Open::new(&self.path)?),
        };
        Ok(self.open.insert(open))
    }

    fn rotate(&mut self) -> io::Result<()> {
        self.open = None;
        if self.limits.keep == 0 {
            return unless_missing(std::fs::remove_file(&self.path));
        }
        for number in (1..self.limits.keep).rev() {
            unless_missing(std::fs::rename(rotated(&self.path, number), rotated(&self.path, number + 1)))?;
        }
        unless_missing(std::fs::rename(&self.path, rotated(&self.path, 1)))
    }
}

/// Somebody may have tidied up meanwhile.
fn unless_missing(outcome: io::Result<()>) -> io::Result<()> {
    match outcome {
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(()),
        outcome => outcome,
    }
}

impl Open {
    fn new(path: &Path) -> io::Result<Self> {
        match Self::in_directory(path) {
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => {
                let dir = path.parent().unwrap_or(Path::new("/"));
                DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
                Self::in_directory(path)
            }
            outcome => outcome,
        }
    }

    fn in_directory(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .mode(0o600)
            // A FIFO in its place must not make us wait for a reader.
            .custom_flags(O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK)
            .open(path)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::other("it is not a regular file"));
        }
        if metadata.permissions().mode() & 0o7777 != 0o600 {
            file.set_permissions(std::fs::Permissions::from_mode(0o600))?;
        }
        let size = metadata.len();
        // A line may have begun before the file was opened.
        let mut last = [b'\n'; OURS.len()];
        let known = usize::try_from(size).map_or(last.len(), |size| size.min(last.len()));
        file.read_exact_at(&mut last[OURS.len() - known..], size - known as u64)?;
        let like_ours = like_ours(Some(0), &last);
        Ok(Self { file, size, at_line_start: last.last() == Some(&b'\n'), like_ours })
    }

    /// Appends some of `bytes`; how many.
    fn put(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        let Some(last) = written.checked_sub(1) else { return Err(io::ErrorKind::WriteZero.into()) };
        self.size += written as u64;
        self.at_line_start = bytes[last] == b'\n';
        self.like_ours = like_ours(self.like_ours, &bytes[..written]);
        Ok(written)
    }

    /// How many of `bytes` can be appended before a line would begin like one of ours.
    fn honest(&self, bytes: &[u8]) -> usize {
        let mut like = self.like_ours;
        let forged = bytes.iter().position(|byte| {
            like = like_ours(like, std::slice::from_ref(byte));
            like.is_some_and(|count| usize::from(count) == OURS.len())
        });
        forged.unwrap_or(bytes.len())
    }
}

/// How many bytes of [`OURS`] a line is after `bytes`, if it was `before` so many.
fn like_ours(before: Option<u8>, bytes: &[u8]) -> Option<u8> {
    bytes.iter().fold(before, |like, byte| match like {
        _ if *byte == b'\n' => Some(0),
        Some(count) if OURS.get(usize::from(count)) == Some(byte) => Some(count + 1),
        Some(_) | None => None,
    })
}

/// How many of `bytes` go into a file with `room` left; 0: it has to be rotated first. A line is
/// cut only if it began in this file (or fits in none).
fn fitting(bytes: &[u8], room: usize, may_begin_anew: bool) -> usize {
    if bytes.len() <= room {
        return bytes.len();
    }
    let lines = bytes[..room].iter().rposition(|&byte| byte == b'\n').map_or(0, |last| last + 1);
    if lines > 0 || may_begin_anew { lines } else { room }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "what a test puts in the way need not be whole")]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    fn log(dir: &Path, max_size: u64, keep: u32) -> LogFile {
        LogFile::new(dir.join("logs/alice/notes.log"), Limits { max_size, keep })
    }

    fn text(path: &Path) -> String {
        fs::read_to_string(path).unwrap()
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn a_log_is_made_by_the_first_write_for_nobody_else_to_read() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = log(dir.path(), 1000, 2);
        log.close();
        assert!(!dir.path().join("logs").exists() && !log.is_open());
        log.write(b"one\n");
        assert_eq!(text(log.path()), "one\n");
        assert_eq!((mode(log.path()), mode(&dir.path().join("logs/alice"))), (0o600, 0o700));
        log.close();
        assert!(!log.is_open());
        log.write(b"two\n");
        assert_eq!(text(log.path()), "one\ntwo\n");
    }

    #[test]
    fn a_log_that_others_could_read_is_closed_to_them() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = log(dir.path(), 1000, 2);
        log.write(b"one\n");
        log.close();
        fs::set_permissions(log.path(), fs::Permissions::from_mode(0o644)).unwrap();
        log.write(b"two\n");
        assert_eq!(mode(log.path()), 0o600);
    }

    #[test]
    fn a_full_log_is_rotated_at_a_line_and_only_so_many_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = log(dir.path(), 10, 2);
        for line in ["a1\n", "a2\n", "a3\n", "b1\nb2\nb", "3\nc1\n", "c2\nc3\nd1\n"] {
            log.write(line.as_bytes());
        }
        assert_eq!(text(log.path()), "d1\n");
        assert_eq!(text(&rotated(log.path(), 1)), "c1\nc2\nc3\n");
        assert_eq!(text(&rotated(log.path(), 2)), "b1\nb2\nb3\n");
        assert!(!rotated(log.path(), 3).exists());
        assert_eq!(mode(&rotated(log.path(), 1)), 0o600);
    }

    #[test]
    fn no_line_of_the_servers_own_looks_like_ours() {
        let dir = tempfile::tempdir().unwrap();
        let forged = b"mcpsup: run 77 killed\n mcpsup: x\nmcpsup:\nmcpsup: \n";
        let shown = "mcpsup:| run 77 killed\n mcpsup: x\nmcpsup:\nmcpsup:| \n";
        for size in 1..=forged.len() {
            let mut log = log(&dir.path().join(size.to_string()), 1000, 2);
            for piece in forged.chunks(size) {
                log.write(piece);
                // What has begun is known when the file is opened again, too.
                log.close();
            }
            assert_eq!(text(log.path()), shown, "{size}");
        }
        // After a line of ours, and at the beginning of a file, a line begins as well.
        let mut log = log(dir.path(), 40, 2);
        log.write(b"half");
        log.note("run 18 started");
        log.write(b"mcpsup: run 19 started\n");
        log.write(b"mcpsup: run 20 started\n");
        assert_eq!(text(&rotated(log.path(), 2)), "half\nmcpsup: run 18 started\n");
        assert_eq!(text(&rotated(log.path(), 1)), "mcpsup:| run 19 started\n");
        assert_eq!(text(log.path()), "mcpsup:| run 20 started\n");
    }

    #[test]
    fn a_line_longer_than_a_file_goes_over_several() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = log(dir.path(), 4, 9);
        log.write(b"0123456789");
        assert_eq!([2, 1].map(|n| text(&rotated(log.path(), n))), ["0123", "4567"]);
        assert_eq!(text(log.path()), "89");
    }

    #[test]
    fn with_nothing_kept_a_full_log_is_begun_anew() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = log(dir.path(), 4, 0);
        log.write(b"one\ntwo\n");
        assert_eq!(text(log.path()), "two\n");
        assert!(!rotated(log.path(), 1).exists());
    }

    #[test]
    fn our_own_lines_stand_alone_even_after_an_unfinished_one() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = log(dir.path(), 1000, 2);
        log.note("run 17 started");
        log.write(b"half");
        log.close();
        log.note("run 18 started");
        assert_eq!(text(log.path()), "mcpsup: run 17 started\nhalf\nmcpsup: run 18 started\n");
    }

    #[test]
    fn what_cannot_be_written_is_counted_and_said_once_it_can() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("logs")).unwrap();
        fs::write(dir.path().join("logs/alice"), "in the way").unwrap();
        let mut log = log(dir.path(), 1000, 2);
        log.write(b"12345");
        log.write(b"6789\n");
        assert_eq!(log.lost().unwrap().0, 10);
        fs::remove_file(dir.path().join("logs/alice")).unwrap();
        log.write(b"again\n");
        assert_eq!(text(log.path()), "mcpsup: 10 bytes of output were lost: not a directory\nagain\n");
        assert!(log.lost().is_none());
    }

    #[test]
    fn links_fifos_and_directories_in_its_place_are_not_written() {
        let dir = tempfile::tempdir().unwrap();
        let victim = dir.path().join("victim");
        fs::write(&victim, "").unwrap();
        fs::create_dir_all(dir.path().join("logs/alice")).unwrap();
        let mut log = log(dir.path(), 1000, 2);
        symlink(&victim, log.path()).unwrap();
        log.write(b"1234\n");
        assert_eq!(text(&victim), "");
        fs::remove_file(log.path()).unwrap();
        nix::unistd::mkfifo(log.path(), nix::sys::stat::Mode::S_IRWXU).unwrap();
        log.write(b"1234\n");
        assert_eq!(log.lost().unwrap().0, 10);
        fs::remove_file(log.path()).unwrap();
        fs::create_dir(log.path()).unwrap();
        log.write(b"1234\n");
        assert_eq!(log.lost().unwrap().0, 15);
    }

    #[test]
    fn the_bell_rings_for_those_who_listen() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = log(dir.path(), 1000, 2);
        let mut heard = log.bell();
        assert!(!heard.has_changed().unwrap());
        log.write(b"x\n");
        assert!(heard.has_changed().unwrap());
        heard.mark_unchanged();
        drop(heard);
        log.close();
        assert!(log.bell.is_none(), "nobody listens");
    }

    #[test]
    fn a_quiet_log_takes_little_memory() {
        assert!(size_of::<LogFile>() <= 80, "{}", size_of::<LogFile>());
    }

    #[test]
    fn every_instance_has_a_path_of_its_own() {
        let id = InstanceId::new("alice".parse().unwrap(), "notes".parse().unwrap());
        let path = path_of(Path::new("/var/log/mcpsup"), &id);
        assert_eq!(path, Path::new("/var/log/mcpsup/alice/notes.log"));
        assert_eq!(rotated(&path, 1), Path::new("/var/log/mcpsup/alice/notes.log.1"));
    }
}
