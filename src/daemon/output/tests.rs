//! What is written into a log, and what is not.

use super::*;
use crate::model::Secret;
use crate::system::logfile;

fn spec(secrets: &[&str]) -> Arc<Spec> {
    let secrets = secrets.iter().map(|secret| Secret::new(*secret)).collect();
    Arc::new(Spec { secrets, ..Spec::example() })
}

fn at(millis: u64) -> Moment {
    Moment::from_boot(Duration::from_secs(1000) + Duration::from_millis(millis))
}

struct World {
    sink: Sink,
    _dir: tempfile::TempDir,
}

impl World {
    fn new(max_rate: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let limits = logfile::Limits { max_size: 1 << 20, keep: 1 };
        let log = LogFile::new(dir.path().join("notes.log"), limits);
        Self { sink: Sink::new(log, max_rate), _dir: dir }
    }

    fn log(&mut self) -> String {
        std::fs::read_to_string(self.sink.log().path()).unwrap()
    }
}

#[test]
fn a_secret_is_redacted_across_reads_and_a_held_tail_comes_with_the_end() {
    let mut world = World::new(1 << 20);
    world.sink.started(RunId(17), spec(&["sk-live-0123456789"]));
    world.sink.take(at(0), b"key sk-live-01");
    world.sink.take(at(5000), b"23456789\nsk-li");
    assert_eq!(world.log(), "mcpsup: run 17 started\nkey [redacted]\n");
    world.sink.end();
    world.sink.started(RunId(18), spec(&[]));
    world.sink.take(at(5000), b"ve\n");
    assert_eq!(world.log(), "mcpsup: run 17 started\nkey [redacted]\nsk-li\nmcpsup: run 18 started\nve\n");
}

#[test]
fn the_output_of_a_run_whose_secrets_are_unknown_is_counted_until_they_are_known() {
    let mut world = World::new(1 << 20);
    world.sink.found(RunId(3));
    world.sink.take(at(0), &[b'x'; 500]);
    world.sink.take(at(0), b"key sk-live-");
    world.sink.known(spec(&["sk-live-0123456789"]));
    world.sink.take(at(0), b"0123456789\nkey sk-live-0123456789\n");
    assert_eq!(
        world.log(),
        "mcpsup: run 3 found again\n\
         mcpsup: 512 bytes of output not shown: the secret values of this run are not known\n\
         mcpsup: 11 bytes of output not shown: they may be the end of a secret value\n\
         key [redacted]\n"
    );
}

#[test]
fn a_line_that_was_no_message_is_redacted_by_itself_between_two_reads_of_the_rest() {
    let mut world = World::new(1 << 20);
    world.sink.started(RunId(1), spec(&["sk-live-0123456789"]));
    world.sink.take(at(0), b"key sk-live-01");
    world.sink.take_line(at(0), b"debug: sk-live-0123456789", true);
    world.sink.take(at(0), b"23456789\n");
    world.sink.take_line(at(0), b"23456789 and more", false);
    world.sink.take_line(at(0), b"sk-live-0123456789", true);
    let log = world.log();
    assert!(!log.contains("0123") && !log.contains("6789"), "{log}");
    assert!(log.contains("debug: [redacted]\n"), "{log}");
    assert!(log.contains("18 bytes of output not shown: they may be the end of a secret value"), "{log}");
    assert!(log.ends_with("[redacted]\n"), "{log}");
    world.sink.found(RunId(2));
    world.sink.take_line(at(0), b"sk-live-0123456789", true);
    world.sink.rest();
    assert!(
        world.log().ends_with("19 bytes of output not shown: the secret values of this run are not known\n")
    );
}

#[test]
fn short_lines_that_are_no_messages_share_one_redactor_and_count_as_longer_ones() {
    let mut world = World::new(64 << 10);
    world.sink.started(RunId(1), spec(&["sk-live-0123456789"]));
    let made = |sink: &Sink| match &sink.shown {
        Shown::Without(_, Redactors { lines: Some(redactor), .. }) => std::ptr::from_ref(&**redactor),
        Shown::Without(..) | Shown::Nothing => std::ptr::null(),
    };
    world.sink.take_line(at(0), b"x", true);
    let first = made(&world.sink);
    assert!(!first.is_null());
    for _ in 0..30_000 {
        world.sink.take_line(at(0), b"x", true);
    }
    assert_eq!(made(&world.sink), first);
    // What one line was cut off is nothing to the next.
    world.sink.take_line(at(9000), b"sk-live-01", true);
    world.sink.take_line(at(9000), b"23456789", true);
    let log = world.log();
    assert_eq!(log.matches("x\n").count(), 1024, "256 KiB at once, of lines that count as 256 bytes");
    assert!(log.contains("mcpsup: dropped 57954 bytes (over 64K/s)\nsk-live-01\n23456789\n"), "{log}");
}

#[test]
fn a_line_that_would_take_long_to_look_through_is_not_shown() {
    let mut world = World::new(4 << 20);
    world.sink.started(RunId(1), spec(&["sk-live-0123456789"]));
    world.sink.take_line(at(0), &vec![b'x'; (64 << 10) + 1], true);
    world.sink.take_line(at(0), b"short", true);
    let told = "65538 bytes of output not shown: a line that is no message and longer than 64K";
    assert_eq!(world.log(), format!("mcpsup: run 1 started\nmcpsup: {told}\nshort\n"));
}

#[test]
fn a_flood_is_cut_to_its_rate_in_few_gaps_and_no_piece_of_a_secret_escapes_at_one() {
    let mut world = World::new(1024);
    world.sink.started(RunId(1), spec(&["sk-live-0123456789"]));
    let line = b"abc sk-live-0123456789 xyz\n".repeat(10);
    for step in 0..1000 {
        for piece in line.chunks(7) {
            world.sink.take(at(step * 10), piece);
        }
    }
    world.sink.end();
    let log = world.log();
    let written = log.len();
    assert!((9 * 1024..18 * 1024).contains(&written), "ten seconds and the burst: {written}");
    let gaps = log.matches("(over 1K/s)").count();
    assert!((5..=12).contains(&gaps), "{gaps}");
    assert!(!log.contains("0123") && !log.contains("sk-l"), "{log}");
    for line in log.lines() {
        let ours = line.starts_with("mcpsup: ");
        assert!(ours || "abc [redacted] xyz".starts_with(line), "{line}");
    }
}

#[test]
fn what_a_flood_lost_is_counted_exactly() {
    let mut world = World::new(10);
    world.sink.started(RunId(1), spec(&[]));
    world.sink.take(at(0), &[b'x'; 100]);
    world.sink.take(at(1000), b"tail\nnew\n");
    assert_eq!(
        world.log(),
        format!("mcpsup: run 1 started\n{}\nmcpsup: dropped 65 bytes (over 10/s)\nnew\n", "x".repeat(40))
    );
}

#[test]
fn a_slow_writer_is_never_cut() {
    let mut world = World::new(10);
    world.sink.started(RunId(1), spec(&[]));
    for step in 0..300 {
        world.sink.take(at(step * 100), b"x");
    }
    world.sink.end();
    assert!(world.log().ends_with(&"x".repeat(300)));
}

#[test]
fn a_quiet_instance_holds_no_descriptor_and_no_redactor() {
    let mut world = World::new(1 << 20);
    world.sink.started(RunId(1), spec(&["sk-live-0123456789"]));
    world.sink.take(at(0), b"hello\n");
    world.sink.take_line(at(0), b"and", true);
    assert!(world.sink.is_awake());
    world.sink.rest();
    assert!(!world.sink.is_awake());
    assert!(matches!(world.sink.shown, Shown::Without(_, Redactors { stream: None, lines: None })));
    world.sink.take(at(0), b"sk-live");
    world.sink.rest();
    world.sink.take(at(0), b"-0123456789\n");
    assert_eq!(world.log(), "mcpsup: run 1 started\nhello\nand\n[redacted]\n");
    assert!(size_of::<Sink>() <= 200, "{}", size_of::<Sink>());
}

#[test]
fn sizes_are_said_as_the_configuration_has_them() {
    assert_eq!([4 << 20, 1 << 30, 1536, 1000].map(size), ["4M", "1G", "1536", "1000"]);
}
