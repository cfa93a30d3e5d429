//! Lines that come whole, late, too long or not at all.

use std::io::{Read, Write};
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

fn lines(cut: bool, longest: usize, chunks: &[&[u8]]) -> Vec<String> {
    let mut lines = Lines { is_cut: cut, ..Lines::default() };
    let mut said = Vec::new();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    for chunk in chunks {
        // The rest after each line is for later, and nothing of it is lost.
        let mut rest = *chunk;
        while !rest.is_empty() {
            let taken = lines.feed(rest, longest, &mut |line| {
                said.push(match line {
                    Line::Read { line, is_whole: true } => text(line),
                    Line::Read { line, is_whole: false } => format!("?{}", text(line)),
                    Line::TooLong { head, tail } => format!("!{}…{}", text(head), text(tail)),
                });
                More::NotNow
            });
            assert!(taken > 0);
            rest = &rest[taken..];
        }
        assert!(lines.part.capacity() <= 2 * longest.max(SHOWN), "{}", lines.part.capacity());
    }
    said
}

#[test]
fn lines_come_whole_however_they_are_cut() {
    let text = b"{\"a\":1}\r\n\n  \nb\nccc\n";
    for size in 1..text.len() {
        let chunks: Vec<&[u8]> = text.chunks(size).collect();
        assert_eq!(lines(false, 100, &chunks), ["{\"a\":1}", "b", "ccc"], "{size}");
    }
}

#[test]
fn the_first_line_after_a_daemons_death_may_have_lost_its_beginning() {
    assert_eq!(lines(true, 100, &[b"d}\n{}\n"]), ["?d}", "{}"]);
    assert_eq!(lines(true, 100, &[b"\n{}\n"]), ["{}"]);
}

#[test]
fn a_line_that_is_too_long_is_told_by_its_ends_and_the_next_is_read() {
    let long = format!("{}{}", "a".repeat(1000), "z".repeat(1000));
    let text = format!("one\n{long}\ntwo\n");
    let expected = format!("!{}…{}", "a".repeat(SHOWN), "z".repeat(SHOWN));
    for size in [1, 7, 255, 256, 257, 1999, 5000] {
        let chunks: Vec<&[u8]> = text.as_bytes().chunks(size).collect();
        assert_eq!(lines(false, 1999, &chunks), ["one", &*expected, "two"], "{size}");
        assert_eq!(lines(false, 2000, &chunks), ["one", &*long, "two"], "{size}");
    }
    // Shorter than what is shown of either end.
    assert_eq!(lines(false, 2, &[b"abc", b"d\nx\n"]), ["!abcd…abcd", "x"]);
}

struct World {
    dir: tempfile::TempDir,
    /// Both ends, as a process has them.
    process: File,
    deaf: Arc<AtomicUsize>,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        nix::unistd::mkfifo(&dir.path().join("in"), nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
        let process = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(nix::libc::O_NONBLOCK)
            .open(dir.path().join("in"))
            .unwrap();
        Self { dir, process, deaf: Arc::default() }
    }

    fn marker(&self) -> PathBuf {
        self.dir.path().join("half")
    }

    fn wire(&self) -> Arc<Wire> {
        let deaf = Arc::clone(&self.deaf);
        let deaf = Box::new(move || {
            deaf.fetch_add(1, Ordering::Relaxed);
        });
        Wire::open(&self.dir.path().join("in"), self.marker(), deaf).unwrap()
    }

    /// What the process can read now.
    fn read(&mut self) -> Vec<u8> {
        let mut all = vec![0; 2 << 20];
        let mut count = 0;
        while let Ok(more) = self.process.read(&mut all[count..]) {
            count += more;
        }
        all.truncate(count);
        all
    }
}

#[tokio::test]
async fn a_message_is_there_at_once_and_leaves_no_mark() {
    let mut world = World::new();
    let wire = world.wire();
    wire.send(b"hello\n".to_vec()).unwrap();
    wire.send(vec![b'x'; 20_000]).unwrap();
    assert!(!world.marker().exists());
    assert_eq!(world.read().len(), 20_006);
    assert!(!wire.out().is_flushing, "nothing waits for an idle process");
}

#[tokio::test]
async fn a_process_that_does_not_read_backs_up_and_gets_everything_in_order_when_it_does() {
    let mut world = World::new();
    let wire = world.wire();
    let mut sent = Vec::new();
    loop {
        let mut line = vec![b'a' + u8::try_from(sent.len() % 26).unwrap(); 9_999];
        line.push(b'\n');
        match wire.send(line.clone()) {
            Ok(()) => sent.extend(line),
            Err(back) => {
                assert_eq!(back, line);
                break;
            }
        }
    }
    assert!((QUEUE..QUEUE + (128 << 10)).contains(&sent.len()), "{}", sent.len());
    assert!(!wire.has_room() && world.marker().exists());
    let mut read = Vec::new();
    while read.len() < sent.len() {
        read.extend(world.read());
        tokio::task::yield_now().await;
    }
    wire.room().await;
    assert!(read == sent, "in order, nothing twice");
    while wire.out().is_flushing {
        tokio::task::yield_now().await;
    }
    assert!(!world.marker().exists());
}

#[tokio::test]
async fn a_line_that_a_dead_daemon_left_half_said_is_ended_first() {
    let mut world = World::new();
    // As much as fits, then the daemon dies.
    let wire = world.wire();
    wire.send(vec![b'x'; 100_000]).unwrap();
    assert!(world.marker().exists());
    wire.close();
    let wire = world.wire();
    wire.send(b"hello\n".to_vec()).unwrap();
    let mut read = world.read();
    while wire.out().is_flushing || world.marker().exists() {
        tokio::task::yield_now().await;
        read.extend(world.read());
    }
    read.extend(world.read());
    let text = String::from_utf8(read).unwrap();
    let (half, rest) = text.split_once('\n').unwrap();
    assert!(half.len() < 100_000 && half.bytes().all(|byte| byte == b'x'));
    assert_eq!(rest, "hello\n");
    assert!(!world.marker().exists());
}

#[tokio::test]
async fn a_process_that_has_closed_its_standard_input_is_said_to_be_deaf_once() {
    let world = World::new();
    let wire = world.wire();
    wire.send(vec![b'x'; 100_000]).unwrap();
    let World { dir: _dir, process, deaf } = world;
    drop(process);
    while deaf.load(Ordering::Relaxed) == 0 {
        tokio::task::yield_now().await;
    }
    wire.room().await;
    wire.send(b"hello\n".to_vec()).unwrap();
    assert_eq!(deaf.load(Ordering::Relaxed), 1);
}

#[test]
fn what_is_no_fifo_of_ours_is_not_opened() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("in");
    File::create(&path).unwrap().write_all(b"x").unwrap();
    assert!(open(&path, true).is_err() && open(&path, false).is_err());
    std::os::unix::fs::symlink(&path, dir.path().join("link")).unwrap();
    assert!(open(&dir.path().join("link"), false).is_err());
}

/// Hears lines, and keeps them.
#[derive(Default)]
struct Hearer(Mutex<Vec<String>>);

impl Talk for Hearer {
    fn begin(&self, _: Arc<Wire>) {}
    fn longest(&self) -> usize {
        100
    }
    fn line(&self, line: &[u8]) -> bool {
        self.0.lock().unwrap().push(String::from_utf8(line.to_vec()).unwrap());
        true
    }
    fn too_long(&self, _: &[u8], _: &[u8]) {}
    fn end(&self) {}
}

#[tokio::test]
async fn however_many_lines_one_read_holds_others_have_their_turn_between_them() {
    let mut world = World::new();
    let (talk, hub) = (Arc::new(Hearer::default()), crate::system::ready::Hub::new().unwrap());
    let output = hub.add(open(&world.dir.path().join("in"), false).unwrap()).unwrap();
    let (lines, rest) = (Lines::default(), Vec::new());
    // A turn is over after one line.
    let mut ear = Ear { output, lines, rest, turn: Duration::ZERO, talk: talk.clone(), wire: world.wire() };
    world.process.write_all(b"a\nb\n\n{}\nunfin").unwrap();
    let (mut buffer, mut turns) = (vec![0; 1 << 16], Vec::new());
    while talk.0.lock().unwrap().len() < 3 {
        turns.push(ear.try_read(&mut buffer, &mut |_, _| ()).unwrap());
    }
    assert_eq!(turns, [2, 2, 4]);
    assert_eq!(ear.try_read(&mut buffer, &mut |_, _| ()).unwrap(), 5, "what is left is no line yet");
    world.process.write_all(b"ished\n").unwrap();
    assert_eq!(ear.try_read(&mut buffer, &mut |_, _| ()).unwrap(), 6);
    assert_eq!(*talk.0.lock().unwrap(), ["a", "b", "{}", "unfinished"]);
    assert_eq!(ear.rest.capacity(), 0);
}
