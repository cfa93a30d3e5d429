//! `mcpsup start`, `stop`, `restart`: asks, then watches until it is so.

use std::collections::BTreeMap;
use std::time::Duration;

use clap_complete::ArgValueCompleter;
use serde::Serialize;

use super::Outcome;
use super::names;
use super::progress::{Goal, Verdict, is_down, judge};
use super::session::Session;
use super::who::{Wait, Who, target};
use crate::control::client::Client;
use crate::control::protocol::{Accepted, Meant, Target};
use crate::model::UserName;
use crate::model::status::{InstanceStatus, StateName, StatusReport};
use crate::system::clock;

/// Which of the three.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deed {
    /// `mcpsup start`
    Start,
    /// `mcpsup stop`
    Stop,
    /// `mcpsup restart`
    Restart,
}

/// Whom, and how long to wait.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Whom it is about; an ordinary user may leave it out and means themself
    #[arg(value_name = "USER[/SERVER]", add = ArgValueCompleter::new(names::instances))]
    pub who: Option<Who>,
    /// Every instance of every user
    #[arg(long, conflicts_with = "who")]
    pub all: bool,
    #[command(flatten)]
    wait: Wait,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
}

/// What became of one instance.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Done {
    /// Whose.
    pub user: String,
    /// Which.
    pub server: String,
    /// It is as asked.
    pub ok: bool,
    /// What it is; `None` if it is not there any more.
    pub state: Option<StateName>,
    /// Its door.
    pub port: Option<u16>,
    /// From the request to the verdict.
    pub seconds: f64,
    /// The same for people.
    pub message: String,
}

/// Does it.
///
/// # Errors
///
/// When the daemon cannot be reached or refuses.
pub fn run(deed: Deed, args: &Args, session: &Session) -> anyhow::Result<Outcome> {
    let client = session.client()?;
    let target = target(args.who.as_ref(), args.all);
    // Only this tells whether what is down was stopped by us. A refusal comes again below.
    let before = client.status(&target, None).map(|report| report.instances).unwrap_or_default();
    let begun = clock::now();
    let accepted = match deed {
        Deed::Start => client.start(&target)?,
        Deed::Stop => client.stop(&target)?,
        Deed::Restart => client.restart(&target)?,
    };
    if args.wait.no_wait {
        if args.json {
            session.print.json(&accepted, false)?;
        }
        return Ok(Outcome::Done);
    }
    let goal = match deed {
        Deed::Start => Goal::Up,
        Deed::Stop => Goal::Down,
        Deed::Restart => Goal::Anew,
    };
    let mut watch =
        Watch { goal, begun, timeout: args.wait.timeout, quiet: args.json, before, done: Vec::new() };
    watch.follow(&client, &target, accepted, session)?;
    if args.json {
        session.print.json(&watch.done, false)?;
    } else if watch.done.is_empty() {
        session.print.aside("nobody is meant: there is no instance");
    }
    Ok(watch.outcome())
}

/// Waits until the servers of `user`, whose file was just written, are up, and says where, unless
/// `quiet`.
///
/// # Errors
///
/// When the daemon breaks off.
pub fn await_up(
    client: &Client,
    user: &UserName,
    quiet: bool,
    session: &Session,
) -> anyhow::Result<Vec<Done>> {
    let begun = clock::now();
    let timeout = Duration::from_secs(60);
    // It would look by itself; this way at once.
    client.reload()?;
    let everybody = Target::default();
    let mut report = client.status(&everybody, None)?;
    let meant = loop {
        // No run counts as one before: whichever is up is up with this file.
        let theirs = report.instances.iter().filter(|now| now.user == *user);
        let meant: Vec<Meant> = theirs
            .map(|now| Meant { user: now.user.clone(), server: now.server.clone(), run: None })
            .collect();
        if !meant.is_empty() {
            break meant;
        }
        let spent = clock::now().since(begun);
        if spent >= timeout {
            anyhow::bail!("the daemon has not seen the file of {user}; see mcpsup status");
        }
        session.print.progress(&format!("{user}: waiting for the daemon to see the file"));
        report = client.status(&everybody, Some((report.generation, timeout.saturating_sub(spent))))?;
    };
    let accepted = Accepted { generation: report.generation, instances: meant, ..Accepted::default() };
    follow_up(client, &everybody, accepted, (quiet, timeout), session)
}

/// Waits until what was accepted is up, and says where, unless `quiet`.
///
/// # Errors
///
/// When the daemon breaks off.
pub fn follow_up(
    client: &Client,
    target: &Target,
    accepted: Accepted,
    (quiet, timeout): (bool, Duration),
    session: &Session,
) -> anyhow::Result<Vec<Done>> {
    let begun = clock::now();
    let mut watch = Watch { goal: Goal::Up, begun, timeout, quiet, before: Vec::new(), done: Vec::new() };
    watch.follow(client, target, accepted, session)?;
    Ok(watch.done)
}

/// Instances on their way.
struct Watch {
    goal: Goal,
    begun: crate::model::Moment,
    timeout: Duration,
    quiet: bool,
    /// What was, when the request went out.
    before: Vec<InstanceStatus>,
    done: Vec<Done>,
}

impl Watch {
    fn outcome(&self) -> Outcome {
        if self.done.iter().all(|done| done.ok) { Outcome::Done } else { Outcome::Failed }
    }

    fn follow(
        &mut self,
        client: &Client,
        target: &Target,
        accepted: Accepted,
        session: &Session,
    ) -> anyhow::Result<()> {
        let mut open = accepted.instances;
        let all = open.len();
        let names = labels(&open);
        let name = |meant: &Meant| label(&names, meant);
        let mut report = client.status(target, None)?;
        loop {
            let mut waiting = Vec::new();
            for meant in open {
                let now = find(&report, &meant);
                match judge(self.goal, &meant, now, &name(&meant)) {
                    Verdict::Waiting => waiting.push(meant),
                    Verdict::Reached if self.was_so(&meant) => {
                        self.say(&meant, now, &name(&meant), "already ", session)?;
                    }
                    Verdict::Reached => self.say(&meant, now, &name(&meant), "", session)?,
                    Verdict::Already => self.say(&meant, now, &name(&meant), "already ", session)?,
                    Verdict::Failed(why) => self.finish(&meant, now, false, why, session)?,
                }
            }
            open = waiting;
            let Some(first) = open.first() else { return Ok(()) };
            let spent = clock::now().since(self.begun);
            if spent >= self.timeout {
                break;
            }
            let state = find(&report, first).map_or(StateName::Down, |now| now.state);
            session.print.progress(&match all {
                1 => format!("{}: {state} for {:.0} s", name(first), spent.as_secs_f64()),
                _ => format!("{} of {all} done; {}: {state}", all - open.len(), name(first)),
            });
            // A clock that stands still looks like a program that does.
            let tick = if session.print.shows_progress() { 1 } else { 60 };
            let left = self.timeout.saturating_sub(spent);
            let wait = left.min(Duration::from_secs(tick));
            report = client.status(target, Some((report.generation, wait)))?;
        }
        for meant in &open {
            let now = find(&report, meant);
            let (name, state) = (name(meant), now.map_or(StateName::Down, |now| now.state));
            let why =
                format!("{name}: still {state} after {} s; see mcpsup logs {name}", self.timeout.as_secs());
            self.finish(meant, now, false, why, session)?;
        }
        Ok(())
    }

    /// True if it was down before it was asked to be.
    fn was_so(&self, meant: &Meant) -> bool {
        let before = self.before.iter().find(|was| was.user == meant.user && was.server == meant.server);
        self.goal == Goal::Down && before.is_some_and(is_down)
    }

    fn say(
        &mut self,
        meant: &Meant,
        now: Option<&InstanceStatus>,
        name: &str,
        already: &str,
        session: &Session,
    ) -> anyhow::Result<()> {
        let seconds = clock::now().since(self.begun).as_secs_f64();
        let port = now.and_then(|now| now.port);
        let what = match (self.goal, port) {
            (Goal::Down, _) => "stopped".to_owned(),
            (Goal::Up | Goal::Anew, Some(port)) => format!("up on {port}"),
            (Goal::Up | Goal::Anew, None) => "up".to_owned(),
        };
        let took = match (already, seconds) {
            ("", ..0.1) => format!(" in {seconds:.2} s"),
            ("", _) => format!(" in {seconds:.1} s"),
            _ => String::new(),
        };
        self.finish(meant, now, true, format!("{name}: {already}{what}{took}"), session)?;
        // It may be up and of no use yet: its port is somebody else's, or it runs by an older file.
        if self.goal != Goal::Down && !self.quiet {
            for problem in now.into_iter().flat_map(|now| &now.problems) {
                session.print.aside(&format!("{name}: {problem}"));
            }
        }
        Ok(())
    }

    fn finish(
        &mut self,
        meant: &Meant,
        now: Option<&InstanceStatus>,
        ok: bool,
        message: String,
        session: &Session,
    ) -> anyhow::Result<()> {
        match (self.quiet, ok) {
            (true, _) => {}
            (false, true) => session.print.line(&message)?,
            (false, false) => session.print.aside(&message),
        }
        let millis = clock::now().since(self.begun).as_millis();
        self.done.push(Done {
            user: meant.user.to_string(),
            server: meant.server.to_string(),
            ok,
            state: now.map(|now| now.state),
            port: now.and_then(|now| now.port),
            seconds: Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX)).as_secs_f64(),
            message,
        });
        Ok(())
    }
}

fn find<'a>(report: &'a StatusReport, meant: &Meant) -> Option<&'a InstanceStatus> {
    let is_meant = |now: &&InstanceStatus| now.user == meant.user && now.server == meant.server;
    report.instances.iter().find(is_meant)
}

/// How many of each user's are meant.
fn labels(meant: &[Meant]) -> BTreeMap<UserName, usize> {
    let mut counts = BTreeMap::new();
    for one in meant {
        *counts.entry(one.user.clone()).or_default() += 1;
    }
    counts
}

/// The user's name where that is enough.
fn label(counts: &BTreeMap<UserName, usize>, meant: &Meant) -> String {
    if counts.get(&meant.user).is_some_and(|count| *count > 1) {
        format!("{}/{}", meant.user, meant.server)
    } else {
        meant.user.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_named_only_where_there_are_several() {
        let meant = |user: &str, server: &str| Meant {
            user: user.parse().unwrap(),
            server: server.parse().unwrap(),
            run: None,
        };
        let all = [meant("alice", "a"), meant("alice", "b"), meant("bob", "a")];
        let counts = labels(&all);
        assert_eq!(all.each_ref().map(|one| label(&counts, one)), ["alice/a", "alice/b", "bob"]);
    }
}
