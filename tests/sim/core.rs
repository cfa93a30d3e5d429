//! The core as the simulator calls it: the real fleet, or one with a planted bug (`bugs`).

use std::collections::{BTreeMap, BTreeSet};

use mcpsup::logic::fleet::{Effect, Fleet};
use mcpsup::logic::instance::{Fact, Instance, Origin, State, Want};
use mcpsup::model::{InstanceId, Moment, RunId, Whom};

/// What is shown of one instance.
pub(crate) struct View {
    pub(crate) state: State,
    pub(crate) strikes: u32,
    pub(crate) last_run: Option<RunId>,
    pub(crate) deadline: Option<Moment>,
}

/// The fleet's public face.
pub(crate) trait Core {
    fn want(&mut self, wants: BTreeMap<InstanceId, Want>, now: Moment);
    /// The same, where only what is wanted of `whom` is not what it was.
    fn want_of(&mut self, whom: &Whom, wants: BTreeMap<InstanceId, Want>, now: Moment);
    fn hold(&mut self, id: &InstanceId);
    fn release(&mut self, id: &InstanceId);
    fn renew(&mut self, id: &InstanceId);
    fn close(&mut self);
    fn forget(&mut self, id: &InstanceId);
    fn observe(&mut self, run: RunId, fact: Fact);
    fn adopt(&mut self, id: &InstanceId, run: RunId, origin: Origin, now: Moment);
    fn drive(&mut self, now: Moment) -> Vec<Effect>;
    fn deadline(&self) -> Option<Moment>;
    fn view(&self, id: &InstanceId, now: Moment) -> Option<View>;
    /// True if nothing of the instance can be alive, so that its port may be given away.
    fn is_free(&self, id: &InstanceId) -> bool;
    fn is_busy(&self) -> bool;
    fn holds(&self) -> BTreeSet<InstanceId>;
}

impl Core for Fleet {
    fn want(&mut self, wants: BTreeMap<InstanceId, Want>, now: Moment) {
        Fleet::want(self, wants, now);
    }

    fn want_of(&mut self, whom: &Whom, mut wants: BTreeMap<InstanceId, Want>, now: Moment) {
        wants.retain(|id, _| whom.has(&id.user));
        Fleet::want_of(self, whom, wants, now);
    }

    fn hold(&mut self, id: &InstanceId) {
        Fleet::hold(self, id);
    }

    fn release(&mut self, id: &InstanceId) {
        Fleet::release(self, id);
    }

    fn renew(&mut self, id: &InstanceId) {
        Fleet::renew(self, id);
    }

    fn close(&mut self) {
        Fleet::close(self);
    }

    fn forget(&mut self, id: &InstanceId) {
        Fleet::forget(self, id);
    }

    fn observe(&mut self, run: RunId, fact: Fact) {
        Fleet::observe(self, run, fact);
    }

    fn adopt(&mut self, id: &InstanceId, run: RunId, origin: Origin, now: Moment) {
        Fleet::adopt(self, id, run, origin, now);
    }

    fn drive(&mut self, now: Moment) -> Vec<Effect> {
        Fleet::drive(self, now).0
    }

    fn deadline(&self) -> Option<Moment> {
        Fleet::deadline(self)
    }

    fn view(&self, id: &InstanceId, now: Moment) -> Option<View> {
        self.get(id).map(|instance| View {
            state: instance.state(),
            strikes: instance.strikes(now),
            last_run: instance.last_run(),
            deadline: instance.deadline(),
        })
    }

    fn is_free(&self, id: &InstanceId) -> bool {
        self.get(id).and_then(Instance::current).is_none()
    }

    fn is_busy(&self) -> bool {
        Fleet::is_busy(self)
    }

    fn holds(&self) -> BTreeSet<InstanceId> {
        Fleet::holds(self).clone()
    }
}
