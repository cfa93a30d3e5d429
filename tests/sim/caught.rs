//! Which law catches which planted bug: by name, within a bounded number of worlds.

use crate::bugs::{Bug, Buggy};
use crate::laws::{ALL, Law, Laws};
use crate::stage::Stage;
use crate::world::Case;
use crate::{judge, seed_of};

/// How many worlds a bug may live through.
const WORLDS: u64 = 300;

/// The law that a fleet with this bug breaks first, of those looked at.
fn caught(bug: Bug, laws: Laws) -> Option<Law> {
    let stage = Stage::new();
    let boot = |next_run, holds| Buggy::new(bug, next_run, holds);
    (0..WORLDS).find_map(|world| {
        let case = Case::whole(seed_of(1, world));
        judge(&stage, &boot, case, laws).err().map(|broken| broken.law)
    })
}

macro_rules! planted {
    ($($name:ident: $bug:ident, $law:ident;)*) => {
        $(
            #[test]
            fn $name() {
                assert_eq!(caught(Bug::$bug, Laws::All), Some(Law::$law));
                // Not by luck of the order in which laws are looked at.
                assert_eq!(caught(Bug::$bug, Laws::Only(Law::$law)), Some(Law::$law));
            }
        )*

        /// The laws that are the first to catch something.
        const FIRST: &[Law] = &[$(Law::$law),*];
    };
}

planted! {
    kills_without_grace_is_caught_as_grace: KillsWithoutGrace, Grace;
    believes_stale_exit_is_caught_as_grace: BelievesStaleExit, Grace;
    starts_twice_is_caught_as_one_process: StartsTwice, OneProcess;
    starts_before_gone_is_caught_as_gone_before_start: StartsBeforeGone, GoneBeforeStart;
    frees_ports_too_soon_is_caught_as_one_user_per_port: FreesPortsTooSoon, OneUserPerPort;
    uses_ones_port_for_another_is_caught_as_one_user_per_port: UsesOnesPortForAnother, OneUserPerPort;
    starts_what_is_not_wanted_is_caught_as_unwanted_is_not_started: StartsWhatIsNotWanted, UnwantedIsNotStarted;
    starts_the_old_spec_is_caught_as_unwanted_is_not_started: StartsTheOldSpec, UnwantedIsNotStarted;
    ignores_holds_is_caught_as_hold: IgnoresHolds, Hold;
    loses_holds_on_restart_is_caught_as_hold: LosesHoldsOnRestart, Hold;
    stays_held_is_caught_as_prompt: StaysHeld, Prompt;
    starts_on_keep_is_caught_as_keep: StartsOnKeep, Keep;
    stops_on_keep_is_caught_as_keep: StopsOnKeep, Keep;
    believes_stale_ready_is_caught_as_up_answered: BelievesStaleReady, UpAnswered;
    up_without_answer_is_caught_as_up_answered: UpWithoutAnswer, UpAnswered;
    waits_too_long_is_caught_as_wait: WaitsTooLong, Wait;
    waits_too_short_is_caught_as_wait: WaitsTooShort, Wait;
    never_forgives_strikes_is_caught_as_wait: NeverForgivesStrikes, Wait;
    drops_gone_is_caught_as_prompt: DropsGone, Prompt;
    drops_exit_is_caught_as_prompt: DropsExit, Prompt;
    drops_sickness_is_caught_as_prompt: DropsSickness, Prompt;
    believes_stale_sickness_is_caught_as_stop_has_cause: BelievesStaleSickness, StopHasCause;
    gives_up_after_five_is_caught_as_prompt: GivesUpAfterFive, Prompt;
    leaks_a_deadline_is_caught_as_deadline_ahead: LeaksADeadline, DeadlineAhead;
    loses_a_deadline_is_caught_as_deadline_owned: LosesADeadline, DeadlineOwned;
    leaves_a_deadline_behind_is_caught_as_deadline_owned: LeavesADeadlineBehind, DeadlineOwned;
    restarts_everybody_is_caught_as_stop_has_cause: RestartsEverybody, StopHasCause;
    stops_by_another_signal_is_caught_as_stop_has_cause: StopsByAnotherSignal, StopHasCause;
    adoption_forgets_the_run_is_caught_as_map_is_truth: AdoptionForgetsTheRun, MapIsTruth;
    shows_killing_as_down_is_caught_as_map_is_truth: ShowsKillingAsDown, MapIsTruth;
    adoption_restarts_is_caught_as_adoption: AdoptionRestarts, Adoption;
    restarts_twice_is_caught_as_restart_once: RestartsTwice, RestartOnce;
    ignores_restart_is_caught_as_restart_once: IgnoresRestart, RestartOnce;
    repeats_stops_is_caught_as_said_once: RepeatsStops, SaidOnce;
    repeats_kills_is_caught_as_said_once: RepeatsKills, SaidOnce;
    one_at_a_time_is_caught_as_said_once: OneAtATime, SaidOnce;
    reuses_runs_is_caught_as_run_is_new: ReusesRuns, RunIsNew;
    starts_after_close_is_caught_as_closed_starts_nothing: StartsAfterClose, ClosedStartsNothing;
    closes_nobody_is_caught_as_close_ends_all: ClosesNobody, CloseEndsAll;
}

/// Laws that see what others see earlier, looked at alone.
const ALONE: &[(Bug, Law)] = &[
    (Bug::GivesUpAfterFive, Law::Progress),
    (Bug::LosesADeadline, Law::Progress),
    (Bug::RestartsEverybody, Law::Independence),
    (Bug::OneAtATime, Law::Independence),
    (Bug::AdoptionForgetsTheRun, Law::OneProcess),
    (Bug::AdoptionForgetsTheRun, Law::GoneBeforeStart),
    (Bug::StartsAfterClose, Law::CloseEndsAll),
    (Bug::StartsBeforeGone, Law::MapIsTruth),
    (Bug::WaitsTooLong, Law::Prompt),
];

#[test]
fn laws_that_overlap_catch_their_bugs_alone_too() {
    for (bug, law) in ALONE {
        assert_eq!(caught(*bug, Laws::Only(*law)), Some(*law), "{bug:?}");
    }
}

#[test]
fn every_law_catches_some_planted_bug() {
    for law in ALL {
        let claimed = FIRST.contains(&law) || ALONE.iter().any(|(_, alone)| *alone == law);
        assert!(claimed, "no planted bug is caught by {law:?}");
    }
}
