//! Is it as asked yet? A decision from two looks at one instance; asking and waiting is
//! [`steer`](super::steer)'s.

use crate::control::protocol::Meant;
use crate::model::RunId;
use crate::model::status::{InstanceStatus, StateName, ordinal};

/// What was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Goal {
    /// It answers.
    Up,
    /// Nothing of it runs.
    Down,
    /// Another run than before answers.
    Anew,
}

/// What is to be said of an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Neither so nor impossible.
    Waiting,
    /// It is as asked.
    Reached,
    /// It was so before.
    Already,
    /// It will not be so, or not by itself; why, for people.
    Failed(String),
}

/// Judges an instance as it is `now` (`None`: it is not there any more) against its run when the
/// request came. `name` is what its user calls it.
#[must_use]
pub fn judge(goal: Goal, meant: &Meant, now: Option<&InstanceStatus>, name: &str) -> Verdict {
    let Some(now) = now else {
        return match goal {
            Goal::Down => Verdict::Reached,
            Goal::Up | Goal::Anew => Verdict::Failed(format!("{name}: is not configured any more")),
        };
    };
    match goal {
        Goal::Down => judge_down(meant.run, now),
        Goal::Up => judge_up(meant.run, false, now, name),
        Goal::Anew => judge_up(meant.run, true, now, name),
    }
}

fn judge_down(before: Option<RunId>, now: &InstanceStatus) -> Verdict {
    match (is_down(now), before) {
        (false, _) => Verdict::Waiting,
        (true, Some(_)) => Verdict::Reached,
        (true, None) => Verdict::Already,
    }
}

/// True if nothing of it runs, nor will by itself.
#[must_use]
pub fn is_down(now: &InstanceStatus) -> bool {
    match now.state {
        // Refused and gone are also said of what still runs its last good version.
        StateName::Stopped | StateName::Disabled | StateName::Refused | StateName::Gone => now.pid.is_none(),
        StateName::Down
        | StateName::Starting
        | StateName::Up
        | StateName::Stopping
        | StateName::Killing
        | StateName::Cooling => false,
    }
}

fn judge_up(before: Option<RunId>, anew: bool, now: &InstanceStatus, name: &str) -> Verdict {
    let is_later = now.run > before;
    match now.state {
        StateName::Up if is_later => Verdict::Reached,
        StateName::Up if !anew => Verdict::Already,
        // A try that began before the request says nothing about the request.
        StateName::Cooling if is_later => Verdict::Failed(crashed(now, name)),
        StateName::Up
        | StateName::Cooling
        | StateName::Down
        | StateName::Starting
        | StateName::Stopping
        | StateName::Killing => Verdict::Waiting,
        StateName::Refused => Verdict::Failed(format!("{name}: refused: {}", reason(now))),
        StateName::Disabled => {
            let why = "MCPSUP_ENABLED=false stands in the env file, or MCPSUP_SERVERS does not name it";
            Verdict::Failed(format!("{name}: disabled; {why} (mcpsup enable {})", now.server))
        }
        StateName::Gone => {
            Verdict::Failed(format!("{name}: there is no env file; mcpsup add {} makes one", now.user))
        }
        StateName::Stopped => Verdict::Failed(format!("{name}: stopped; mcpsup start {name} starts it")),
    }
}

/// Why it is not up, in a line.
#[must_use]
pub fn reason(now: &InstanceStatus) -> String {
    match (now.problems.first(), &now.note) {
        (Some(problem), _) => problem.to_string(),
        (None, Some(note)) => note.clone(),
        (None, None) => "no reason is given".to_owned(),
    }
}

fn crashed(now: &InstanceStatus, name: &str) -> String {
    let owner = match name.split_once('/') {
        Some((user, server)) => format!("{user}'s {server}"),
        None => format!("{name}'s server"),
    };
    let how = now.last_exit.as_deref().unwrap_or("ended");
    let again = match now.strikes {
        0 | 1 => String::new(),
        strikes => format!(" ({} time in a row)", ordinal(strikes)),
    };
    let next = now.next_try_seconds.map(|seconds| format!("; next try in {seconds} s"));
    let next = next.unwrap_or_default();
    format!("{owner} {how}{again}{next}; see mcpsup logs {name}")
}

/// What stands in the NOTE column: what the daemon says, or what is wrong.
#[must_use]
pub fn note(now: &InstanceStatus) -> String {
    match (&now.note, now.problems.first()) {
        (Some(note), _) => note.clone(),
        (None, Some(problem)) => problem.to_string(),
        (None, None) => String::new(),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::model::Problem;

    /// Alice's notes in `state`, run 7.
    pub(crate) fn notes(state: StateName) -> InstanceStatus {
        InstanceStatus {
            user: "alice".parse().unwrap(),
            server: "notes".parse().unwrap(),
            state,
            port: Some(3456),
            url: Some("http://127.0.0.1:3456/mcp".to_owned()),
            run: Some(RunId(7)),
            pid: None,
            since: "2026-11-21T09:00:00Z".to_owned(),
            for_seconds: 3,
            strikes: 0,
            next_try_seconds: None,
            last_exit: None,
            note: None,
            problems: vec![],
            containment: None,
            runs_as: None,
            sessions: None,
            not_passed_on: None,
            session_runs: vec![],
        }
    }

    fn judged(goal: Goal, before: Option<u64>, now: &InstanceStatus) -> Verdict {
        let meant = Meant { user: now.user.clone(), server: now.server.clone(), run: before.map(RunId) };
        judge(goal, &meant, Some(now), "alice")
    }

    #[test]
    fn a_start_is_done_when_it_is_up() {
        let up = notes(StateName::Up);
        assert_eq!(judged(Goal::Up, None, &up), Verdict::Reached);
        assert_eq!(judged(Goal::Up, Some(6), &up), Verdict::Reached);
        assert_eq!(judged(Goal::Up, Some(7), &up), Verdict::Already);
        assert_eq!(judged(Goal::Up, Some(7), &notes(StateName::Starting)), Verdict::Waiting);
    }

    #[test]
    fn a_restart_is_done_when_a_later_run_is_up() {
        let up = notes(StateName::Up);
        assert_eq!(judged(Goal::Anew, Some(7), &up), Verdict::Waiting);
        assert_eq!(judged(Goal::Anew, Some(6), &up), Verdict::Reached);
        assert_eq!(judged(Goal::Anew, None, &up), Verdict::Reached);
    }

    #[test]
    fn only_a_try_after_the_request_can_fail_it() {
        let mut cooling = notes(StateName::Cooling);
        cooling.last_exit = Some("exited with status 1 after 0.4 s".to_owned());
        cooling.strikes = 3;
        cooling.next_try_seconds = Some(2);
        assert_eq!(judged(Goal::Up, Some(7), &cooling), Verdict::Waiting);
        let expected = "alice's server exited with status 1 after 0.4 s (3rd time in a row); \
                        next try in 2 s; see mcpsup logs alice";
        assert_eq!(judged(Goal::Up, Some(6), &cooling), Verdict::Failed(expected.to_owned()));
        assert_eq!(judged(Goal::Anew, Some(6), &cooling), Verdict::Failed(expected.to_owned()));
        assert_eq!(judged(Goal::Down, Some(6), &cooling), Verdict::Waiting);
    }

    #[test]
    fn what_is_refused_says_file_line_and_mend() {
        let mut refused = notes(StateName::Refused);
        refused.problems = vec![Problem::new("env.d/alice.env", "expected NAME=value").at_line(7)];
        let expected = "alice: refused: env.d/alice.env:7: expected NAME=value";
        assert_eq!(judged(Goal::Up, None, &refused), Verdict::Failed(expected.to_owned()));
    }

    #[test]
    fn a_stop_is_done_when_nothing_runs() {
        for state in [StateName::Stopped, StateName::Gone, StateName::Disabled, StateName::Refused] {
            let mut now = notes(state);
            assert_eq!(judged(Goal::Down, Some(7), &now), Verdict::Reached, "{state}");
            now.pid = Some(4711);
            assert_eq!(judged(Goal::Down, Some(7), &now), Verdict::Waiting, "{state}");
        }
        for state in [StateName::Up, StateName::Stopping, StateName::Killing, StateName::Down] {
            assert_eq!(judged(Goal::Down, Some(7), &notes(state)), Verdict::Waiting, "{state}");
        }
    }

    #[test]
    fn what_has_gone_is_down_and_never_up() {
        let now = notes(StateName::Up);
        let meant = Meant { user: now.user, server: now.server, run: None };
        assert_eq!(judge(Goal::Down, &meant, None, "alice"), Verdict::Reached);
        assert!(matches!(judge(Goal::Up, &meant, None, "alice"), Verdict::Failed(_)));
    }

    #[test]
    fn the_note_is_the_daemons_or_else_what_is_wrong() {
        let mut now = notes(StateName::Up);
        assert_eq!(note(&now), "");
        now.problems = vec![Problem::new("env.d/alice.env", "expected NAME=value").at_line(7)];
        assert_eq!(note(&now), "env.d/alice.env:7: expected NAME=value");
        now.note = Some("exited with status 1; next try in 4 s".to_owned());
        assert_eq!(note(&now), "exited with status 1; next try in 4 s");
    }
}
