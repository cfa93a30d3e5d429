//! A program that is asked one thing on its stdin, and answers with a line.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use super::cause::plain;

/// The longest answer that is read, in bytes.
const LONGEST: u64 = 16 * 1024 * 1024;

/// Starts a program (the first word, with the others for arguments), says `question` to it, and
/// gives the first line it answers. The program, which has to end when its stdin does, has our environment, for it is
/// what our caller's client would start.
///
/// # Errors
///
/// When it cannot be started, ends without a word, or says nothing in time; for people, with what
/// it wrote to stderr.
pub fn ask(words: &[String], question: &str, limit: Duration) -> Result<String, String> {
    let (program, args) = words.split_first().ok_or("there is no program")?;
    #[expect(clippy::disallowed_methods, reason = "this is what starts a client's command for it")]
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| format!("cannot start {program}: {}", plain(&error)))?;
    let (Some(mut stdin), Some(out), Some(mut err)) =
        (child.stdin.take(), child.stdout.take(), child.stderr.take())
    else {
        return Err(format!("cannot speak with {program}"));
    };
    let (said, hears) = mpsc::channel();
    std::thread::spawn(move || {
        let mut line = String::new();
        let read = BufReader::new(out.take(LONGEST)).read_line(&mut line);
        // The one who asked may have gone.
        said.send(read.map(|_| line)).unwrap_or_default();
    });
    // One that has ended already says why on stderr.
    stdin.write_all(format!("{question}\n").as_bytes()).unwrap_or_default();
    let answer = hears.recv_timeout(limit);
    drop(stdin);
    let is_answered = matches!(&answer, Ok(Ok(line)) if !line.trim().is_empty());
    if !is_answered && answer.is_ok() {
        let mut words = String::new();
        err.by_ref().take(4096).read_to_string(&mut words).unwrap_or_default();
        child.wait().map_err(|error| plain(&error))?;
        return Err(words.lines().last().unwrap_or("it ended without a word").to_owned());
    }
    // One that answers ends by itself when it hears no more, and says farewell where it has to.
    let killed = if is_answered { Ok(()) } else { child.kill() };
    killed.and_then(|()| child.wait()).map_err(|error| plain(&error))?;
    match answer {
        Ok(Ok(line)) => Ok(line),
        Ok(Err(error)) => Err(plain(&error)),
        Err(_) => Err(format!("no answer within {} s", limit.as_secs())),
    }
}
