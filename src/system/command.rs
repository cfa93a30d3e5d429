//! A program that is asked one thing on its stdin, and answers with a line.

use std::io::{BufRead, BufReader, Read, Write};
use std::sync::mpsc;
use std::time::Duration;

use super::cause::plain;
use super::clock;
use super::tool::{Environment, Tool, last_line};

/// The longest answer that is read, in bytes.
const LONGEST: u64 = 16 * 1024 * 1024;
/// How long a program has to end once it has answered.
const FAREWELL: Duration = Duration::from_secs(3);

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
    let mut tool = Tool::start(program, args, Environment::Ours)?;
    let pipes = (tool.child.stdin.take(), tool.child.stdout.take(), tool.child.stderr.take());
    let (Some(mut stdin), Some(out), Some(err)) = pipes else {
        return Err(format!("cannot speak with {program}"));
    };
    let answer = beside(move || {
        let mut line = String::new();
        BufReader::new(out.take(LONGEST)).read_line(&mut line).map(|_| line)
    });
    let complaint = beside(move || {
        let mut words = Vec::new();
        err.take(4096).read_to_end(&mut words).map(|_| words)
    });
    // One that has ended already says why on stderr.
    stdin.write_all(format!("{question}\n").as_bytes()).unwrap_or_default();
    let answer = answer.recv_timeout(limit);
    drop(stdin);
    let is_answered = matches!(&answer, Ok(Ok(line)) if !line.trim().is_empty());
    // One that answers ends by itself when it hears no more, and says farewell where it has to; one
    // that closed its output is about to.
    let patience = if answer.is_ok() { FAREWELL } else { Duration::ZERO };
    tool.end(clock::now() + patience).map_err(|error| plain(&error))?;
    match answer {
        Ok(Ok(line)) if is_answered => Ok(line),
        Ok(Ok(_)) => {
            // What it started may hold the pipe.
            let words = complaint.recv_timeout(FAREWELL).ok().and_then(Result::ok).unwrap_or_default();
            Err(last_line(&words).unwrap_or_else(|| "it ended without a word".to_owned()))
        }
        Ok(Err(error)) => Err(plain(&error)),
        Err(_) => Err(format!("no answer within {} s", limit.as_secs())),
    }
}

/// Does this in a thread, which is left behind if it hangs and ends with the process.
fn beside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> mpsc::Receiver<T> {
    let (done, hears) = mpsc::channel();
    std::thread::spawn(move || {
        // The one who asked may have gone.
        done.send(work()).unwrap_or_default();
    });
    hears
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str, limit: Duration) -> Result<String, String> {
        let words = ["/bin/sh", "-c", script].map(str::to_owned);
        ask(&words, "who are you", limit)
    }

    #[test]
    fn one_that_answers_and_does_not_end_or_ends_and_leaves_its_pipes_to_others_holds_nobody_up() {
        let long = Duration::from_secs(60);
        assert_eq!(sh("read it; echo \"$it?\"", long), Ok("who are you?\n".to_owned()));
        let begun = clock::now();
        assert_eq!(sh("echo me; exec sleep 1000", long), Ok("me\n".to_owned()));
        let left = sh("sleep 20 >/dev/null & echo 'no key' >&2; exec 1>&-; exit 3", long);
        assert_eq!(left, Err("it ended without a word".to_owned()));
        assert_eq!(sh("echo 'no key' >&2; exit 3", long), Err("no key".to_owned()));
        let none = sh("exec sleep 1000", Duration::from_millis(50));
        assert_eq!(none, Err("no answer within 0 s".to_owned()));
        assert!(clock::now().since(begun) < Duration::from_secs(15));
    }
}
