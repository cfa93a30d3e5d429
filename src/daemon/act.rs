//! Doing what the core says. Nothing here waits; what comes of it is heard of as an event.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::task::AbortHandle;

use super::Daemon;
use super::event::Ready;
use crate::door::bridge::Bridge;
use crate::logic::fleet::Effect;
use crate::logic::instance::Want;
use crate::model::config::Probe;
use crate::model::spec::Home;
use crate::model::{Exit, InstanceId, Moment, RunId, Spec};
use crate::system::probe::{self, Listening};
use crate::system::process::{News, What};
use crate::system::socket::Address;
use crate::system::{account, failpoint, files, socket};

/// Why a stdio run is not ready yet.
const UNANSWERED: &str = "it has not answered initialize or server/discover";

/// What the daemon knows of a run beside the core.
pub(super) struct Current {
    pub(super) instance: InstanceId,
    /// Whom its process runs as.
    pub(super) uid: u32,
    /// Where its process was told to listen; nowhere for stdio.
    pub(super) backend: Option<Address>,
    /// Where it listens, once it answered there.
    pub(super) listening: Option<Listening>,
    /// Said by its probe; not there while none asks.
    not_ready: Option<Arc<Mutex<String>>>,
    probe: Option<AbortHandle>,
    /// What speaks with it, if it is a stdio run.
    pub(super) bridge: Option<Arc<Bridge>>,
}

impl Current {
    /// With where it is to listen, and as whom it runs.
    pub(super) fn new(
        instance: InstanceId,
        (backend, uid): (Option<Address>, u32),
        bridge: Option<Arc<Bridge>>,
    ) -> Self {
        let not_ready = bridge.is_some().then(|| Arc::new(Mutex::new(UNANSWERED.to_owned())));
        Self { instance, uid, backend, listening: None, not_ready, probe: None, bridge }
    }

    /// Why it is not ready yet, as the probe found last; empty if it has found nothing.
    pub(super) fn not_ready(&self) -> String {
        let why = self.not_ready.as_ref();
        why.map_or_else(String::new, |why| why.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    /// Nobody asks any more, because it has answered.
    pub(super) fn forget_probe(&mut self) {
        (self.not_ready, self.probe) = (None, None);
    }

    pub(super) fn end_probe(&mut self) {
        if let Some(probe) = self.probe.take() {
            probe.abort();
        }
    }
}

impl Daemon {
    pub(super) fn act(&mut self, effect: Effect, now: Moment) {
        match effect {
            Effect::Start { instance, run, spec } => self.start_run(&instance, run, spec),
            Effect::Stop { run, signal } => {
                if let Some(current) = self.current.get_mut(&run) {
                    current.end_probe();
                    let why = current.not_ready();
                    let said = self.trouble.get(&current.instance).is_some_and(|(of, _)| *of == run);
                    if !why.is_empty() && !said {
                        let why = format!("was not ready in time: {why}");
                        self.trouble.insert(current.instance.clone(), (run, why));
                    }
                }
                self.stop_run(run, signal, now);
                failpoint::pass("stop.signalled");
            }
            Effect::Kill { run } => {
                self.draining.remove(&run);
                if self.processes.knows(run) {
                    self.processes.kill(run, now);
                    failpoint::pass("stop.killed");
                } else {
                    // It never began, so there is nothing to kill.
                    self.tell(run, What::Gone);
                }
            }
        }
    }

    fn start_run(&mut self, instance: &InstanceId, run: RunId, spec: Arc<Spec>) {
        failpoint::pass("spawn.asked");
        if let Err(error) = self.store.reserve(run) {
            return self.not_started(run, super::store::chain(&error));
        }
        if let Some(account) = spec.account.as_ref().filter(|account| account.is_reserved)
            && let Err(error) = self.store.keep_uid(account.uid, &mut self.uids)
        {
            return self.not_started(run, super::store::chain(&error));
        }
        failpoint::pass("spawn.reserved");
        if let Some((_, older)) = self.older.iter().find(|(id, _)| id == instance) {
            return self.not_started(run, format!("its earlier run {older} is still being killed"));
        }
        // Nothing of ours is alive here, so whoever listens there is a stranger.
        if let Some((port, stranger)) = spec.backend.and_then(|port| Some((port, stranger_at(port)?))) {
            tracing::warn!(user = %instance.user, server = %instance.server, port, holder = stranger, "backend port taken");
            let mend = if self.give_another_backend(instance, port) {
                "it gets another"
            } else {
                "no other is free; end that, or widen [ports] backend_range in mcpsup.toml"
            };
            return self.not_started(run, format!("its port {port} is held by {stranger}; {mend}"));
        }
        let is_stdio = spec.stdio().is_some();
        let talk = self.bridges.partner(instance, run, None).filter(|_| is_stdio);
        let bridge = self.bridges.get(instance).filter(|_| is_stdio).cloned();
        let uid = spec.account.as_ref().map_or_else(account::own_uid, |account| account.uid);
        let home = Home::of(instance, &self.places.state, &self.places.runtime);
        let backend = backend(spec.backend, spec.socket(&home));
        if let Some(Address::Unix(path)) = &backend
            && let Err(error) = files::remove(path)
        {
            tracing::warn!(error = super::store::chain(&error), "an earlier run's socket is in the way");
        }
        let current = Current::new(instance.clone(), (backend, uid), bridge);
        self.current.insert(run, Box::new(current));
        let sink = self.sink_for(instance, run, &spec);
        self.processes.start(run, instance, spec, sink, talk.map(|talk| talk as _));
    }

    /// False if there is none: then the instance keeps its port, and its next tries wait longer
    /// and longer.
    fn give_another_backend(&mut self, instance: &InstanceId, taken: u16) -> bool {
        // None that anybody listens on: another port is another spec, which is tried at once, so
        // whoever holds them all would keep us going from one to the next for ever.
        let listening = socket::everywhere().unwrap_or_else(|error| {
            tracing::warn!(%error, "cannot ask the kernel who listens");
            Vec::new()
        });
        let mut avoid: BTreeSet<u16> = listening.iter().map(|one| one.addr.port()).collect();
        avoid.insert(taken);
        let has_moved = loop {
            match self.ports.move_backend(&self.config.ports, instance, &avoid) {
                // Bound, and nobody listens: it is in no table.
                Some(port) if socket::is_kept(port) => avoid.insert(port),
                moved => break moved.is_some(),
            };
        };
        if has_moved {
            self.save_ports();
            self.moved.insert(instance.user.clone());
        }
        has_moved
    }

    fn not_started(&self, run: RunId, why: String) {
        self.tell(run, What::Exited(Exit::NotStarted(why)));
    }

    fn tell(&self, run: RunId, what: What) {
        if self.sources.tell.send(News { run, what }).is_err() {
            tracing::debug!(run = run.0, "news after the end of the loop");
        }
    }

    /// Asks the run whether it is ready, until it is or somebody ends the asking.
    pub(super) fn begin_probe(&mut self, run: RunId) {
        let Some(look) = self.processes.look(run) else { return };
        let Some(current) = self.current.get_mut(&run) else { return };
        let (probe, path) =
            match self.fleet.get(&current.instance).map(crate::logic::instance::Instance::wanted) {
                Some(Want::Always(spec)) => (spec.server.ready.probe.clone(), spec.server.path.clone()),
                // Nobody knows any more how it wants to be asked.
                Some(Want::Keep | Want::Never) | None => (Probe::Tcp, String::new()),
            };
        // A stdio process says so itself.
        let Some(address) = current.backend.clone() else { return };
        let not_ready = Arc::<Mutex<String>>::default();
        current.not_ready = Some(Arc::clone(&not_ready));
        let say = self.sources.say_ready.clone();
        let task = tokio::spawn(async move {
            let say_why = |why| *not_ready.lock().unwrap_or_else(PoisonError::into_inner) = why;
            let listening = probe::until_ready(&probe, &address, &path, || look.pids(), say_why).await;
            if say.send(Ready { run, listening }).await.is_err() {
                tracing::debug!(run = run.0, "ready after the end of the loop");
            }
        });
        current.probe = Some(task.abort_handle());
    }
}

/// Where a process listens that was told to.
pub(super) fn backend(port: Option<u16>, socket: Option<PathBuf>) -> Option<Address> {
    let on_port = |port| Address::Tcp(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port));
    port.map(on_port).or_else(|| Some(Address::Unix(socket?.into())))
}

/// Who has a backend port that should be free.
fn stranger_at(port: u16) -> Option<String> {
    let address = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
    match socket::listener_at(address).ok()? {
        Some(listener) => Some(socket::holder_of(&listener).to_string()),
        None => socket::is_kept(port).then(|| "somebody who does not listen there".to_owned()),
    }
}
