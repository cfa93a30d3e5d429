//! The state machine in sentences: each state of an instance, and what each fact or change of mind
//! does to it. Said through the fleet, as the daemon does.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use mcpsup::logic::fleet::{Effect, Fleet};
use mcpsup::logic::instance::{Cause, Fact, Instance, Origin, State, Want};
use mcpsup::model::{Exit, InstanceId, RunId, Spec};

use crate::stage::{Ms, Times, instance, moment, plan, spec};

/// Ready within 100 ms, grace 50 ms, waits 10, 20, 40 … 60 ms, stable after 200 ms.
const TIMES: Times = (100, 15, 50, 10, 60, 200);

/// One instance and the clock.
struct Story {
    fleet: Fleet,
    id: InstanceId,
    now: Ms,
}

fn version(version: usize) -> Arc<Spec> {
    Arc::new(spec(0, 0, version, TIMES))
}

fn exit() -> Fact {
    Fact::Exited(Exit::Status(1))
}

impl Story {
    fn new() -> Self {
        Self { fleet: Fleet::new(RunId(1), BTreeSet::new()), id: instance("alice"), now: 0 }
    }

    fn starting() -> Self {
        let mut story = Self::new();
        assert_eq!(story.wants(Want::Always(version(0))), ["start 1 v0"]);
        story
    }

    fn up() -> Self {
        let mut story = Self::starting();
        assert!(story.hears(1, Fact::Ready).is_empty());
        story
    }

    /// Up, and asked to end by a hold.
    fn stopping() -> Self {
        let mut story = Self::up();
        assert_eq!(story.held(), ["stop 1"]);
        story
    }

    /// Its leader died by itself; its children are being killed.
    fn killing() -> Self {
        let mut story = Self::up();
        assert_eq!(story.hears(1, exit()), ["kill 1"]);
        story
    }

    /// Crashed twice: the second wait is 10 ms.
    fn cooling() -> Self {
        let mut story = Self::killing();
        assert_eq!(story.hears(1, Fact::Gone), ["start 2 v0"]);
        assert_eq!(story.hears(2, exit()), ["kill 2"]);
        assert!(story.hears(2, Fact::Gone).is_empty());
        story
    }

    /// Found alive by a new daemon that has not read the files yet.
    fn adopted() -> Self {
        let mut story = Self::new();
        let origin = Origin { spec: version(0).id, plan: plan(TIMES) };
        story.fleet.adopt(&story.id, RunId(7), origin, moment(0));
        assert!(story.driven().is_empty());
        story
    }

    fn driven(&mut self) -> Vec<String> {
        let (effects, _) = self.fleet.drive(moment(self.now));
        let said = |effect: &Effect| match effect {
            Effect::Start { run, spec, .. } => format!("start {run} v{}", spec.id.0[2]),
            Effect::Stop { run, .. } => format!("stop {run}"),
            Effect::Kill { run } => format!("kill {run}"),
        };
        effects.iter().map(said).collect()
    }

    fn hears(&mut self, run: u64, fact: Fact) -> Vec<String> {
        self.fleet.observe(RunId(run), fact);
        self.driven()
    }

    fn wants(&mut self, want: Want) -> Vec<String> {
        self.fleet.want(BTreeMap::from([(self.id.clone(), want)]), moment(self.now));
        self.driven()
    }

    fn file_is_deleted(&mut self) -> Vec<String> {
        self.fleet.want(BTreeMap::new(), moment(self.now));
        self.driven()
    }

    fn held(&mut self) -> Vec<String> {
        self.fleet.hold(&self.id);
        self.driven()
    }

    fn released(&mut self) -> Vec<String> {
        self.fleet.release(&self.id);
        self.driven()
    }

    fn restarted(&mut self) -> Vec<String> {
        self.fleet.renew(&self.id);
        self.driven()
    }

    fn after(&mut self, wait: Ms) -> Vec<String> {
        self.now += wait;
        self.driven()
    }

    fn instance(&self) -> &Instance {
        self.fleet.get(&self.id).expect("alice is known")
    }

    fn is(&self, name: &str) -> bool {
        let state = match self.instance().state() {
            State::Down => "down",
            State::Starting { .. } => "starting",
            State::Up { .. } => "up",
            State::Stopping { .. } => "stopping",
            State::Killing { .. } => "killing",
            State::Cooling { .. } => "cooling",
        };
        state == name
    }

    fn deadline(&self) -> Option<Ms> {
        let at = self.fleet.deadline()?.since_boot();
        Some(u64::try_from(at.as_millis()).expect("soon"))
    }
}

#[test]
fn down_starts_when_wanted_and_only_then() {
    let mut story = Story::new();
    assert!(story.wants(Want::Keep).is_empty());
    assert!(story.wants(Want::Never).is_empty());
    assert!(story.is("down"));
    assert_eq!(story.deadline(), None);
    assert_eq!(story.wants(Want::Always(version(0))), ["start 1 v0"]);
}

#[test]
fn down_and_held_is_not_started_until_it_is_released() {
    let mut story = Story::new();
    assert!(story.held().is_empty());
    assert!(story.wants(Want::Always(version(0))).is_empty());
    assert_eq!(story.released(), ["start 1 v0"]);
}

#[test]
fn a_manual_restart_of_what_is_held_starts_it() {
    let mut story = Story::stopping();
    assert_eq!(story.hears(1, exit()), ["kill 1"]);
    assert!(story.hears(1, Fact::Gone).is_empty());
    assert_eq!(story.restarted(), ["start 2 v0"]);
    assert!(story.fleet.holds().is_empty());
}

#[test]
fn starting_is_up_when_it_answers() {
    let mut story = Story::starting();
    assert_eq!(story.deadline(), Some(100));
    assert!(story.hears(1, Fact::Ready).is_empty());
    assert!(story.is("up"));
    assert_eq!(story.deadline(), None);
}

#[test]
fn starting_that_exits_is_swept_and_tried_again_at_once() {
    let mut story = Story::starting();
    assert_eq!(story.hears(1, exit()), ["kill 1"]);
    assert_eq!(story.hears(1, Fact::Gone), ["start 2 v0"]);
}

#[test]
fn what_could_not_be_started_goes_the_way_of_a_crash() {
    let mut story = Story::starting();
    let fact = Fact::Exited(Exit::NotStarted("cannot find the program".into()));
    assert_eq!(story.hears(1, fact.clone()), ["kill 1"]);
    assert_eq!(story.hears(1, Fact::Gone), ["start 2 v0"]);
    assert_eq!(story.hears(2, fact), ["kill 2"]);
    assert!(story.hears(2, Fact::Gone).is_empty());
    assert!(story.is("cooling"));
}

#[test]
fn starting_that_is_not_ready_in_time_is_stopped_as_a_strike() {
    let mut story = Story::starting();
    assert!(story.after(99).is_empty());
    assert_eq!(story.after(1), ["stop 1"]);
    assert!(matches!(story.instance().state(), State::Stopping { cause: Cause::NotReady, .. }));
    assert_eq!(story.hears(1, exit()), ["kill 1"]);
    assert_eq!(story.hears(1, Fact::Gone), ["start 2 v0"]);
    assert_eq!(story.instance().strikes(moment(story.now)), 1);
}

#[test]
fn an_answer_at_the_last_moment_counts() {
    let mut story = Story::starting();
    story.now = 100;
    assert!(story.hears(1, Fact::Ready).is_empty());
    assert!(story.is("up"));
}

#[test]
fn starting_is_stopped_by_a_change_of_mind() {
    assert_eq!(Story::starting().wants(Want::Never), ["stop 1"]);
    assert_eq!(Story::starting().wants(Want::Always(version(1))), ["stop 1"]);
    assert_eq!(Story::starting().held(), ["stop 1"]);
    assert_eq!(Story::starting().restarted(), ["stop 1"]);
    assert_eq!(Story::starting().file_is_deleted(), ["stop 1"]);
}

#[test]
fn up_that_exits_is_swept_before_the_next_starts() {
    let mut story = Story::up();
    assert_eq!(story.hears(1, exit()), ["kill 1"]);
    assert!(story.after(100_000).is_empty());
    assert!(story.is("killing"));
    assert_eq!(story.hears(1, Fact::Gone), ["start 2 v0"]);
}

#[test]
fn up_is_left_alone_while_the_same_is_wanted() {
    let mut story = Story::up();
    assert!(story.wants(Want::Always(version(0))).is_empty());
    assert!(story.wants(Want::Keep).is_empty());
    assert!(story.hears(1, Fact::Ready).is_empty());
    assert!(story.after(100_000).is_empty());
    assert!(story.is("up"));
}

#[test]
fn up_is_replaced_once_when_its_spec_changes() {
    let mut story = Story::up();
    assert_eq!(story.wants(Want::Always(version(1))), ["stop 1"]);
    assert!(story.wants(Want::Always(version(2))).is_empty());
    assert_eq!(story.hears(1, exit()), ["kill 1"]);
    assert_eq!(story.hears(1, Fact::Gone), ["start 2 v2"]);
}

#[test]
fn a_manual_restart_changes_the_run_once_without_a_wait() {
    let mut story = Story::up();
    assert_eq!(story.restarted(), ["stop 1"]);
    assert!(story.restarted().is_empty());
    assert_eq!(story.hears(1, exit()), ["kill 1"]);
    assert_eq!(story.hears(1, Fact::Gone), ["start 2 v0"]);
    assert!(story.hears(2, Fact::Ready).is_empty());
    assert!(story.after(100_000).is_empty());
    assert!(story.is("up"));
}

#[test]
fn stopping_that_exits_is_swept_at_once() {
    let mut story = Story::stopping();
    assert_eq!(story.deadline(), Some(50));
    assert_eq!(story.hears(1, exit()), ["kill 1"]);
    assert_eq!(story.deadline(), None);
    assert!(story.hears(1, Fact::Gone).is_empty());
    assert!(story.is("down"));
}

#[test]
fn stopping_is_killed_when_its_grace_is_over_and_not_before() {
    let mut story = Story::stopping();
    assert!(story.after(49).is_empty());
    assert_eq!(story.after(1), ["kill 1"]);
    assert!(story.after(1).is_empty());
}

#[test]
fn stopping_ends_though_it_is_wanted_again_and_then_starts() {
    let mut story = Story::stopping();
    assert!(story.released().is_empty());
    assert_eq!(story.hears(1, exit()), ["kill 1"]);
    assert_eq!(story.hears(1, Fact::Gone), ["start 2 v0"]);
}

#[test]
fn killing_waits_for_nothing_but_the_last_process() {
    let mut story = Story::killing();
    assert_eq!(story.deadline(), None);
    assert!(story.hears(1, Fact::Ready).is_empty());
    assert!(story.hears(1, exit()).is_empty());
    assert!(story.wants(Want::Always(version(1))).is_empty());
    assert!(story.restarted().is_empty());
    assert!(story.after(1_000_000).is_empty());
    assert!(story.is("killing"));
}

#[test]
fn a_restart_while_a_crash_is_swept_does_not_wait() {
    let mut story = Story::cooling();
    assert_eq!(story.after(10), ["start 3 v0"]);
    assert_eq!(story.hears(3, exit()), ["kill 3"]);
    assert!(story.restarted().is_empty());
    assert_eq!(story.hears(3, Fact::Gone), ["start 4 v0"]);
}

#[test]
fn a_new_spec_does_not_pay_for_the_strikes_of_the_old() {
    let mut story = Story::killing();
    assert!(story.wants(Want::Always(version(1))).is_empty());
    assert_eq!(story.hears(1, Fact::Gone), ["start 2 v1"]);
    assert_eq!(story.instance().strikes(moment(story.now)), 0);
}

#[test]
fn cooling_waits_exactly_as_long_as_the_rule_says() {
    let mut story = Story::cooling();
    let mut run = 2;
    for wait in [10, 20, 40, 60, 60] {
        assert_eq!(story.deadline(), Some(story.now + wait));
        assert!(story.after(wait - 1).is_empty());
        run += 1;
        assert_eq!(story.after(1), [format!("start {run} v0")]);
        assert_eq!(story.hears(run, exit()), [format!("kill {run}")]);
        assert!(story.hears(run, Fact::Gone).is_empty());
    }
}

#[test]
fn a_stable_stretch_settles_the_account() {
    let mut story = Story::cooling();
    assert_eq!(story.after(10), ["start 3 v0"]);
    assert!(story.hears(3, Fact::Ready).is_empty());
    assert!(story.after(200).is_empty());
    assert_eq!(story.hears(3, exit()), ["kill 3"]);
    assert_eq!(story.hears(3, Fact::Gone), ["start 4 v0"]);
    assert_eq!(story.instance().strikes(moment(story.now)), 1);
}

#[test]
fn cooling_is_tried_at_once_when_asked_or_when_something_else_is_wanted() {
    assert_eq!(Story::cooling().wants(Want::Always(version(1))), ["start 3 v1"]);
    assert_eq!(Story::cooling().restarted(), ["start 3 v0"]);
    assert_eq!(Story::cooling().released(), ["start 3 v0"]);
}

#[test]
fn cooling_forgets_its_wait_and_its_strikes_when_it_is_not_wanted() {
    let mut story = Story::cooling();
    assert!(story.held().is_empty());
    assert!(story.is("down"));
    assert_eq!(story.deadline(), None);
    assert_eq!(story.released(), ["start 3 v0"]);
    assert_eq!(story.instance().strikes(moment(story.now)), 0);
}

#[test]
fn a_late_fact_about_an_old_run_is_ignored() {
    let mut story = Story::killing();
    assert_eq!(story.hears(1, Fact::Gone), ["start 2 v0"]);
    for fact in [Fact::Ready, exit(), Fact::Gone] {
        assert!(story.hears(1, fact).is_empty());
        assert!(story.is("starting"));
    }
}

#[test]
fn gone_says_that_the_leader_is_gone_too() {
    let mut story = Story::up();
    assert_eq!(story.hears(1, Fact::Gone), ["kill 1", "start 2 v0"]);
}

#[test]
fn keep_stops_nothing_and_starts_nothing() {
    let mut story = Story::starting();
    assert!(story.wants(Want::Keep).is_empty());
    assert_eq!(story.deadline(), None);
    assert!(story.after(100_000).is_empty());
    assert!(story.restarted().is_empty());
    assert!(story.is("starting"));
    assert_eq!(story.hears(1, exit()), ["kill 1"]);
    assert!(story.hears(1, Fact::Gone).is_empty());
    assert!(story.is("down"));
}

#[test]
fn an_adopted_run_goes_on_if_the_same_is_wanted() {
    let mut story = Story::adopted();
    assert!(story.wants(Want::Always(version(0))).is_empty());
    assert!(story.hears(7, Fact::Ready).is_empty());
    assert!(story.is("up"));
}

#[test]
fn an_adopted_run_is_replaced_if_its_spec_changed_and_its_number_is_not_used_again() {
    let mut story = Story::adopted();
    assert_eq!(story.wants(Want::Always(version(1))), ["stop 7"]);
    assert_eq!(story.hears(7, exit()), ["kill 7"]);
    assert_eq!(story.hears(7, Fact::Gone), ["start 8 v1"]);
}

#[test]
fn an_adopted_run_is_stopped_if_its_file_is_gone() {
    assert_eq!(Story::adopted().file_is_deleted(), ["stop 7"]);
}

#[test]
fn a_command_before_the_files_are_read_does_not_end_an_adopted_run() {
    assert!(Story::adopted().released().is_empty());
    assert!(Story::adopted().restarted().is_empty());
}

#[test]
fn a_held_instance_that_is_adopted_is_stopped() {
    let id = instance("alice");
    let mut fleet = Fleet::new(RunId(1), BTreeSet::from([id.clone()]));
    fleet.adopt(&id, RunId(7), Origin { spec: version(0).id, plan: plan(TIMES) }, moment(0));
    let (effects, _) = fleet.drive(moment(0));
    assert_eq!(effects, [Effect::Stop { run: RunId(7), signal: 15 }]);
}

#[test]
fn who_is_not_named_any_more_is_dropped_once_nothing_of_theirs_is_alive() {
    let mut story = Story::up();
    assert_eq!(story.file_is_deleted(), ["stop 1"]);
    assert_eq!(story.hears(1, exit()), ["kill 1"]);
    assert!(story.fleet.get(&story.id).is_some());
    assert!(story.hears(1, Fact::Gone).is_empty());
    assert!(story.fleet.get(&story.id).is_none() && !story.fleet.is_busy());
    assert!(story.fleet.drive(moment(story.now)).1.is_empty(), "said once");
}

#[test]
fn who_is_held_or_named_though_not_wanted_is_not_dropped() {
    let mut story = Story::new();
    story.wants(Want::Never);
    assert!(story.is("down"));
    story.held();
    story.file_is_deleted();
    assert!(story.fleet.get(&story.id).is_some());
    story.released();
    assert!(story.fleet.get(&story.id).is_none());
}

#[test]
fn a_removed_user_leaves_no_hold_behind_even_if_nothing_of_theirs_was_seen() {
    let id = instance("alice");
    let mut fleet = Fleet::new(RunId(1), BTreeSet::from([id.clone()]));
    fleet.forget(&id);
    assert!(fleet.holds().is_empty());
}

#[test]
fn after_close_everything_ends_and_nothing_starts() {
    let mut story = Story::up();
    story.fleet.close();
    assert_eq!(story.driven(), ["stop 1"]);
    assert!(story.wants(Want::Always(version(1))).is_empty());
    assert!(story.restarted().is_empty());
    assert_eq!(story.hears(1, exit()), ["kill 1"]);
    assert!(story.hears(1, Fact::Gone).is_empty());
    assert!(story.is("down"));
    assert!(!story.fleet.is_busy());
}
