//! Reads the end of a log, and what is written to it later, over rotations.
//!
//! It holds a few open files and one piece in memory, however long the log is. It does not wait:
//! [`Tail::read`] says when there is nothing more *now*, and whoever calls knows the bell that
//! rings for more.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;

use super::logfile::rotated;

/// Bytes per [`Tail::read`], and per look backwards.
const PIECE: usize = 64 * 1024;

/// Rotated files are `.1`, `.2`, … up to here.
const OLDEST: u32 = 999;

/// A place in a log that moves forward.
#[derive(Debug)]
pub struct Tail {
    path: PathBuf,
    /// Oldest first. The last one stays when it has been read: it may grow.
    open: VecDeque<Opened>,
}

#[derive(Debug)]
struct Opened {
    file: File,
    /// Device and inode; stays unique as long as the file is open.
    id: (u64, u64),
}

impl Tail {
    /// Begins `lines` lines before the end of the log at `path`; older files count if the current
    /// one has fewer. A log that is not there yet is empty.
    ///
    /// # Errors
    ///
    /// When a file that is there cannot be opened or read.
    pub fn open(path: &Path, lines: usize) -> io::Result<Self> {
        let mut tail = Self { path: path.to_path_buf(), open: VecDeque::new() };
        let mut missing = lines;
        for index in 0..=OLDEST {
            let Some(mut opened) = open_numbered(path, index)? else {
                // Between the two renames of a rotation there is no current file.
                if index == 0 {
                    continue;
                }
                break;
            };
            // The log was rotated since we opened its first file.
            if tail.open.front().is_some_and(|newer| newer.id == opened.id) {
                continue;
            }
            missing -= go_back(&mut opened.file, missing)?;
            tail.open.push_front(opened);
            if missing == 0 {
                break;
            }
        }
        Ok(tail)
    }

    /// The next piece, at most 64 KiB; `None` if everything written so far has been read.
    ///
    /// # Errors
    ///
    /// When a file cannot be opened or read.
    pub fn read(&mut self) -> io::Result<Option<Vec<u8>>> {
        loop {
            if let Some(oldest) = self.open.front_mut() {
                let mut piece = vec![0; PIECE];
                let count = oldest.file.read(&mut piece)?;
                if count > 0 {
                    piece.truncate(count);
                    return Ok(Some(piece));
                }
            }
            if self.open.len() > 1 {
                self.open.pop_front();
                continue;
            }
            // If ours was rotated away it is read once more, to the end it has now, before the
            // next one is begun.
            let newer = self.newer()?;
            if newer.is_empty() {
                return Ok(None);
            }
            self.open.extend(newer);
        }
    }

    /// The files that came after the newest we have open, oldest first.
    fn newer(&self) -> io::Result<Vec<Opened>> {
        let mut found: Vec<Opened> = Vec::new();
        for index in 0..=OLDEST {
            let Some(opened) = open_numbered(&self.path, index)? else {
                if index == 0 {
                    continue;
                }
                break;
            };
            if self.open.back().is_some_and(|ours| ours.id == opened.id) {
                break;
            }
            if found.last().is_none_or(|newer| newer.id != opened.id) {
                found.push(opened);
            }
            // Nothing was there before: what is there now is new, what is older was not asked for.
            if self.open.is_empty() {
                break;
            }
        }
        found.reverse();
        Ok(found)
    }
}

/// The current file for 0, a rotated one else; `None` if there is none.
fn open_numbered(path: &Path, index: u32) -> io::Result<Option<Opened>> {
    let name = if index > 0 { rotated(path, index) } else { path.to_owned() };
    let flags = (OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits();
    match OpenOptions::new().read(true).custom_flags(flags).open(name) {
        Ok(file) => {
            let meta = file.metadata()?;
            Ok(Some(Opened { file, id: (meta.dev(), meta.ino()) }))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Moves to the beginning of the `lines`-th line from the end, or to the beginning of the file;
/// says how many lines that is.
fn go_back(file: &mut File, lines: usize) -> io::Result<usize> {
    let end = file.seek(SeekFrom::End(0))?;
    if lines == 0 || end == 0 {
        return Ok(0);
    }
    let mut found = 0;
    let mut start = end;
    let mut piece = vec![0; PIECE];
    while start > 0 {
        let count = usize::try_from(start).unwrap_or(usize::MAX).min(PIECE);
        start -= count as u64;
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(&mut piece[..count])?;
        for at in (0..count).rev().filter(|at| piece[*at] == b'\n') {
            let after = start + at as u64 + 1;
            // The last line's own end does not begin another.
            if after == end {
                continue;
            }
            found += 1;
            if found == lines {
                file.seek(SeekFrom::Start(after))?;
                return Ok(found);
            }
        }
    }
    file.seek(SeekFrom::Start(0))?;
    Ok(found + 1)
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests write small files")]
mod tests {
    use super::*;
    use std::fs;
    use std::io::Write;

    fn all(tail: &mut Tail) -> String {
        let mut bytes = Vec::new();
        while let Some(piece) = tail.read().unwrap() {
            bytes.extend(piece);
        }
        String::from_utf8(bytes).unwrap()
    }

    fn append(path: &Path, text: &str) {
        let mut file = OpenOptions::new().create(true).append(true).open(path).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    fn rotate(path: &Path, keep: u32) {
        let name = |index: u32| PathBuf::from(format!("{}.{index}", path.display()));
        for index in (1..keep).rev() {
            if name(index).exists() {
                fs::rename(name(index), name(index + 1)).unwrap();
            }
        }
        fs::rename(path, name(1)).unwrap();
    }

    #[test]
    fn the_last_lines_are_found_in_the_current_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.log");
        append(&path, "one\ntwo\nthree\n");
        assert_eq!(all(&mut Tail::open(&path, 2).unwrap()), "two\nthree\n");
        assert_eq!(all(&mut Tail::open(&path, 0).unwrap()), "");
        assert_eq!(all(&mut Tail::open(&path, 99).unwrap()), "one\ntwo\nthree\n");
        append(&path, "unfinished");
        assert_eq!(all(&mut Tail::open(&path, 2).unwrap()), "three\nunfinished");
    }

    #[test]
    fn lines_are_taken_from_rotated_files_when_the_current_one_has_too_few() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.log");
        append(&path, "one\ntwo\n");
        rotate(&path, 3);
        append(&path, "three\n");
        rotate(&path, 3);
        append(&path, "four\n");
        assert_eq!(all(&mut Tail::open(&path, 3).unwrap()), "two\nthree\nfour\n");
        assert_eq!(all(&mut Tail::open(&path, 1).unwrap()), "four\n");
    }

    #[test]
    fn a_line_longer_than_a_piece_is_one_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.log");
        let long = "x".repeat(3 * PIECE + 17);
        append(&path, &format!("short\n{long}\nlast\n"));
        assert_eq!(all(&mut Tail::open(&path, 2).unwrap()), format!("{long}\nlast\n"));
    }

    #[test]
    fn following_goes_on_over_two_rotations_without_losing_a_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.log");
        append(&path, "one\n");
        let mut tail = Tail::open(&path, 0).unwrap();
        assert_eq!(all(&mut tail), "");
        append(&path, "two\n");
        rotate(&path, 3);
        append(&path, "three\n");
        rotate(&path, 3);
        append(&path, "four\n");
        assert_eq!(all(&mut tail), "two\nthree\nfour\n");
        append(&path, "five\n");
        assert_eq!(all(&mut tail), "five\n");
    }

    #[test]
    fn a_log_that_is_not_there_yet_is_followed_from_its_first_byte() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.log");
        let mut tail = Tail::open(&path, 10).unwrap();
        assert_eq!(all(&mut tail), "");
        append(&path, "one\n");
        assert_eq!(all(&mut tail), "one\n");
    }

    #[test]
    fn a_symlink_is_not_a_log() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.log");
        fs::write(dir.path().join("secret"), "x\n").unwrap();
        std::os::unix::fs::symlink(dir.path().join("secret"), &path).unwrap();
        assert!(Tail::open(&path, 10).is_err());
    }
}
