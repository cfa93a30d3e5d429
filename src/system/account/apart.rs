//! The name service at arm's length: a process of our own asks it, and ends when nobody asks any more.
//!
//! What answers is whatever `nsswitch.conf` names, and it moves in with whoever asks: libraries that are
//! never unloaded, half a megabyte on a usual host, and another's code in the process that holds
//! everybody's credentials. And it takes its time where it is a directory at the other end of a slow line.
//!
//! So the daemon has the hidden verb `accounts` ask: over pipes that nobody else has, in ten seconds at
//! most, and after a silence not again for a while. It gets a name or a number and hears no secret.
//! Everybody else asks for themselves.

use std::io::{self, Write};
use std::process::{ChildStdin, ChildStdout, ExitCode};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::service;
use crate::model::Moment;
use crate::system::cause::plain;
use crate::system::orders::{read, write};
use crate::system::tool::{Environment, Tool, wait};
use crate::system::{clock, launch};

/// A name service that says nothing for so long hangs.
const ANSWERS_WITHIN: Duration = Duration::from_secs(10);
/// So long it is left alone then: the daemon waits for each answer, and may have a thousand questions.
const LEFT_ALONE: Duration = Duration::from_secs(30);
/// Nobody has asked for so long, so that nobody will soon. To be there already when users are added one
/// after another saves each of them 2 ms; to be there always would cost half a megabyte.
const ENDS_AFTER: Duration = Duration::from_secs(10);
/// It waits for a question, so that it ends at once when there will be none.
const GONE_WITHIN: Duration = Duration::from_secs(2);

/// What the name service is asked. Each kind has an answer of its own type.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Question {
    /// [`service::find`]
    Find(String),
    /// [`service::name_of`]
    NameOf(u32),
    /// [`service::named`]
    Named(u32),
    /// [`service::is_group_of`]
    IsGroupOf(u32, u32),
    /// [`service::is_member`]
    IsMember(u32, u32, String),
    /// [`service::groups_of`]
    GroupsOf(String, u32),
}

/// Who asks for this process, if it does not ask for itself.
static ASKING: Mutex<Option<Asking>> = Mutex::new(None);

fn asking() -> MutexGuard<'static, Option<Asking>> {
    ASKING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// From now on another process asks for this one. To be called by the daemon, before it asks anything.
pub fn begin() {
    asking().get_or_insert_with(|| Asking::by(start));
}

/// Ends the process that asks, if nobody has asked for a while. Waits for nobody who asks just now.
pub fn rest(now: Moment) {
    if let Ok(mut asking) = ASKING.try_lock()
        && let Some(asking) = &mut *asking
        && asking.ends_at().is_some_and(|at| at <= now)
    {
        asking.end();
    }
}

/// Ends the process that asks, if there is one and nobody waits for it. To be called when a burst of
/// changes is over, and when this process ends: what is left of it ends by itself then.
pub fn end() {
    if let Ok(mut asking) = ASKING.try_lock()
        && let Some(asking) = &mut *asking
    {
        asking.end();
    }
}

/// When to call [`rest`]; none while somebody asks. Whoever asks for a client does so before the loop hears
/// of the client, and looks here again.
#[must_use]
pub fn rests_at() -> Option<Moment> {
    ASKING.try_lock().ok()?.as_ref().and_then(Asking::ends_at)
}

/// What another process says; none if this one is to ask for itself.
pub(super) fn ask<T: DeserializeOwned>(question: impl FnOnce() -> Question) -> Option<Result<T, String>> {
    asking().as_mut().map(|asking| asking.ask(&question()))
}

/// The hidden verb `accounts`: answers what comes on its standard input until that ends.
#[must_use]
pub fn main() -> ExitCode {
    let done = launch::stand_alone().and_then(|()| answer(&mut io::stdin().lock(), &mut io::stdout().lock()));
    if done.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Answers until nobody asks any more.
fn answer(questions: &mut impl io::Read, answers: &mut impl Write) -> io::Result<()> {
    loop {
        let question = match read(questions) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            question => question?,
        };
        match question {
            Question::Find(name) => write(answers, &service::find(&name)),
            Question::NameOf(uid) => write(answers, &service::name_of(uid)),
            Question::Named(id) => write(answers, &service::named(id)),
            Question::IsGroupOf(gid, uid) => write(answers, &service::is_group_of(gid, uid)),
            Question::IsMember(uid, gid, group) => write(answers, &service::is_member(uid, gid, &group)),
            Question::GroupsOf(name, gid) => write(answers, &service::groups_of(&name, gid)),
        }?;
        answers.flush()?;
    }
}

/// The process that asks, when there is one.
struct Asking {
    start: fn() -> Result<Asker, String>,
    asker: Option<Asker>,
    /// When it was asked last.
    asked: Moment,
    within: Duration,
    /// The name service is left alone until then, because it did not answer.
    silent: Option<Moment>,
}

/// A process, and the way to it and back.
struct Asker {
    tool: Tool,
    questions: ChildStdin,
    answers: ChildStdout,
}

fn start() -> Result<Asker, String> {
    asker("/proc/self/exe", &["accounts"])
}

fn asker(program: &str, args: &[&str]) -> Result<Asker, String> {
    let mut tool = Tool::start(program, args, Environment::Ours)?;
    match (tool.child.stdin.take(), tool.child.stdout.take()) {
        (Some(questions), Some(answers)) => Ok(Asker { tool, questions, answers }),
        (None, _) | (_, None) => Err("it cannot be spoken with".to_owned()),
    }
}

impl Asking {
    fn by(start: fn() -> Result<Asker, String>) -> Self {
        Self {
            start,
            asker: None,
            asked: Moment::from_boot(Duration::ZERO),
            within: ANSWERS_WITHIN,
            silent: None,
        }
    }

    fn ends_at(&self) -> Option<Moment> {
        self.asker.is_some().then(|| self.asked + ENDS_AFTER)
    }

    fn ask<T: DeserializeOwned>(&mut self, question: &Question) -> Result<T, String> {
        let now = clock::now();
        self.asked = now;
        let within = self.within;
        let late = || format!("the name service did not answer within {} s", within.as_secs());
        if self.silent.is_some_and(|until| now < until) {
            return Err(late());
        }
        // One that somebody has ended is seen to be gone when it is asked.
        let is_fresh = self.asker.is_none();
        match self.try_ask(question, now + within) {
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                self.silent = Some(clock::now() + LEFT_ALONE);
                Err(late())
            }
            Err(_) if !is_fresh => self.try_ask(question, now + within).map_err(|error| plain(&error)),
            done => done.map_err(|error| plain(&error)),
        }
    }

    fn try_ask<T: DeserializeOwned>(&mut self, question: &Question, until: Moment) -> io::Result<T> {
        let mut asker = match self.asker.take() {
            Some(asker) => asker,
            None => (self.start)().map_err(io::Error::other)?,
        };
        let answered = asker.ask(question, until);
        if answered.is_ok() {
            self.asker = Some(asker);
        } else {
            asker.give_up();
        }
        answered
    }

    fn end(&mut self) {
        if let Some(Asker { tool, questions, .. }) = self.asker.take() {
            drop(questions);
            if let Err(error) = tool.end(clock::now() + GONE_WITHIN) {
                tracing::debug!(%error, "cannot wait for the process that asks for accounts");
            }
        }
    }
}

impl Asker {
    fn ask<T: DeserializeOwned>(&mut self, question: &Question, until: Moment) -> io::Result<T> {
        write(&mut self.questions, question)?;
        // What is said is said in one piece: an answer that has begun is there.
        if !wait(&mut [PollFd::new(&self.answers, PollFlags::IN)], until)? {
            return Err(io::ErrorKind::TimedOut.into());
        }
        read(&mut self.answers)
    }

    /// Kills it, and waits elsewhere: what it waits for may not let it go.
    fn give_up(self) {
        let Self { tool, .. } = self;
        std::thread::spawn(move || tool.end(clock::now()).map(drop));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::model::spec::Account;

    /// What has its length in front and is said with `printf`.
    const NOBODY: &str = r"printf '\000\000\000\004null'";

    fn sh(script: &str) -> Result<Asker, String> {
        asker("/bin/sh", &["-c", script])
    }

    fn name_of(asking: &mut Asking, uid: u32) -> Result<Option<String>, String> {
        asking.ask(&Question::NameOf(uid))
    }

    #[test]
    fn what_another_process_says_is_what_this_one_would_find() {
        let mut questions = Vec::new();
        let root = service::find("root");
        assert!(matches!(&root, Ok(Some(account)) if account.uid == 0), "{root:?}");
        for question in [
            Question::Find("root".to_owned()),
            Question::Find("nobody of this name".to_owned()),
            Question::NameOf(0),
            Question::Named(0),
            Question::IsGroupOf(0, 0),
            Question::IsMember(0, 0, "root".to_owned()),
            Question::GroupsOf("root".to_owned(), 0),
        ] {
            write(&mut questions, &question).unwrap();
        }
        let mut answers = Vec::new();
        answer(&mut &questions[..], &mut answers).unwrap();
        let said = &mut &answers[..];
        assert_eq!(read::<Result<Option<Account>, String>>(said).unwrap(), root);
        assert_eq!(read::<Result<Option<Account>, String>>(said).unwrap(), Ok(None));
        assert_eq!(read::<Option<String>>(said).unwrap(), service::name_of(0));
        assert_eq!(read::<Result<Option<String>, String>>(said).unwrap(), service::named(0));
        assert_eq!(read::<bool>(said).unwrap(), service::is_group_of(0, 0));
        assert!(read::<bool>(said).unwrap());
        assert_eq!(read::<Vec<u32>>(said).unwrap(), service::groups_of("root", 0));
        assert!(said.is_empty());
    }

    #[test]
    fn one_that_has_ended_is_replaced_and_one_that_cannot_be_had_is_no_answer() {
        // Each answers once.
        let mut asking = Asking::by(|| sh(&format!("head -c 1 >/dev/null; {NOBODY}")));
        for _ in 0..3 {
            assert_eq!(name_of(&mut asking, 0), Ok(None));
        }
        let mut asking = Asking::by(|| sh("exit 1"));
        let ended = name_of(&mut asking, 0);
        assert!(ended.is_err(), "{ended:?}");
        let mut asking = Asking::by(|| asker("/no/such/program", &[]));
        let missing = name_of(&mut asking, 0);
        assert_eq!(missing, Err("cannot start /no/such/program: no such file or directory".to_owned()));
    }

    #[test]
    fn one_that_does_not_answer_is_not_waited_for_twice() {
        static STARTED: AtomicUsize = AtomicUsize::new(0);
        let mut asking = Asking::by(|| {
            STARTED.fetch_add(1, Ordering::Relaxed);
            sh("exec sleep 1000")
        });
        asking.within = Duration::from_millis(20);
        for _ in 0..3 {
            let late = name_of(&mut asking, 0).unwrap_err();
            assert!(late.starts_with("the name service did not answer within"), "{late}");
        }
        assert_eq!(STARTED.load(Ordering::Relaxed), 1);
        asking.silent = None;
        assert!(name_of(&mut asking, 0).is_err());
        assert_eq!(STARTED.load(Ordering::Relaxed), 2, "later it is asked again");
    }

    #[test]
    fn it_ends_when_nobody_has_asked_for_a_while() {
        let mut asking = Asking::by(|| sh(&format!("head -c 1 >/dev/null; {NOBODY}; cat >/dev/null")));
        assert_eq!(asking.ends_at(), None);
        let before = clock::now();
        assert_eq!(name_of(&mut asking, 0), Ok(None));
        assert!(asking.ends_at().is_some_and(|at| at >= before + ENDS_AFTER));
        asking.end();
        assert_eq!(asking.ends_at(), None);
    }
}
