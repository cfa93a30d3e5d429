//! The laws, by name, and what breaking one looks like.

use std::fmt;

use crate::stage::Ms;

/// What holds in every world.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Law {
    /// At most one process per instance.
    OneProcess,
    /// At most one user per port.
    OneUserPerPort,
    /// An unwanted instance is never started, and a wanted one as nothing but what is wanted.
    UnwantedIsNotStarted,
    /// Never a start while anything of the former run is alive.
    GoneBeforeStart,
    /// No kill while the leader is alive before the grace is over.
    Grace,
    /// The wait after the n-th crash is exactly what the rule says.
    Wait,
    /// "Up" only for a run that answered.
    UpAnswered,
    /// What was said once is not said again; `drive` twice at one moment says nothing new.
    SaidOnce,
    /// After `drive` every deadline lies in the future.
    DeadlineAhead,
    /// No deadline stands without an instance that waits for it, and none that waits lacks it.
    DeadlineOwned,
    /// A run that is wanted is not stopped, unless it was not ready in time; and by its signal.
    StopHasCause,
    /// What can be done now is not left for later.
    Prompt,
    /// Once faults stop, running equals wanted in bounded steps.
    Progress,
    /// One user's fate is independent of the others'.
    Independence,
    /// What is shown is what is.
    MapIsTruth,
    /// A manual restart changes the run exactly once.
    RestartOnce,
    /// Nothing is started after `close`.
    ClosedStartsNothing,
    /// Everything ends after `close`.
    CloseEndsAll,
    /// `Keep` never starts anything and stops nothing.
    Keep,
    /// A hold ends what runs, starts nothing, and outlives the daemon.
    Hold,
    /// An adopted run goes on if its spec is wanted, and is replaced or stopped once if not.
    Adoption,
    /// Run numbers are never reused.
    RunIsNew,
}

/// Every law.
#[rustfmt::skip]
pub(crate) const ALL: [Law; 22] = [
    Law::OneProcess,
    Law::OneUserPerPort,
    Law::UnwantedIsNotStarted,
    Law::GoneBeforeStart,
    Law::Grace,
    Law::Wait,
    Law::UpAnswered,
    Law::SaidOnce,
    Law::DeadlineAhead,
    Law::DeadlineOwned,
    Law::StopHasCause,
    Law::Prompt,
    Law::Progress,
    Law::Independence,
    Law::MapIsTruth,
    Law::RestartOnce,
    Law::ClosedStartsNothing,
    Law::CloseEndsAll,
    Law::Keep,
    Law::Hold,
    Law::Adoption,
    Law::RunIsNew,
];

/// The laws that are looked at: all, or one alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Laws {
    All,
    Only(Law),
}

/// A law that was broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Broken {
    pub(crate) law: Law,
    pub(crate) at: Ms,
    pub(crate) what: String,
}

pub(crate) type Checked = Result<(), Broken>;

impl Laws {
    /// Says that a law is broken, if it is looked at.
    pub(crate) fn broken(self, law: Law, at: Ms, what: fmt::Arguments<'_>) -> Checked {
        if self == Self::All || self == Self::Only(law) {
            Err(Broken { law, at, what: what.to_string() })
        } else {
            Ok(())
        }
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} at {} ms: {}", self.law, self.at, self.what)
    }
}
