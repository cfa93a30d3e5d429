//! Every instance's output: which sink it goes to, and which secret values are taken out of it.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::Daemon;
use super::output::Sink;
use crate::logic::instance::{State, Want};
use crate::model::{InstanceId, Moment, RunId, Spec};
use crate::system::logfile::{self, LogFile};
use crate::system::process::Output;

/// An instance's sink, between the loop and the task of its run.
#[derive(Debug)]
pub(super) struct SharedSink(Mutex<Sink>);

impl SharedSink {
    fn lock(&self) -> MutexGuard<'_, Sink> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Output for SharedSink {
    fn take(&self, now: Moment, bytes: &[u8]) -> bool {
        let mut sink = self.lock();
        sink.take(now, bytes);
        sink.is_flooded()
    }

    fn take_line(&self, now: Moment, line: &[u8], is_whole: bool) -> bool {
        let mut sink = self.lock();
        sink.take_line(now, line, is_whole);
        sink.is_flooded()
    }

    fn rest(&self) {
        self.lock().rest();
    }

    fn end(&self) {
        let mut sink = self.lock();
        sink.end();
        sink.rest();
    }
}

/// For a run whose output would mix with that of another.
pub(super) struct Nowhere;

impl Output for Nowhere {
    fn take(&self, _: Moment, _: &[u8]) -> bool {
        false
    }

    fn take_line(&self, _: Moment, _: &[u8], _: bool) -> bool {
        false
    }

    fn rest(&self) {}

    fn end(&self) {}
}

impl Daemon {
    /// The sink of an instance whose run begins.
    pub(super) fn sink_for(&mut self, id: &InstanceId, run: RunId, spec: &Arc<Spec>) -> Arc<SharedSink> {
        let shared = self.sink(id);
        let mut sink = shared.lock();
        sink.started(run, Arc::clone(spec));
        // Most servers are silent: none holds its log open before it speaks.
        sink.rest();
        drop(sink);
        shared
    }

    /// The sink of an instance whose run was found again. What it says is counted until its
    /// secret values are known.
    pub(super) fn sink_found(&mut self, id: &InstanceId, run: RunId) -> Arc<SharedSink> {
        let shared = self.sink(id);
        let mut sink = shared.lock();
        sink.found(run);
        sink.rest();
        drop(sink);
        self.unknown.push(run);
        shared
    }

    fn sink(&mut self, id: &InstanceId) -> Arc<SharedSink> {
        if let Some(sink) = self.sinks.get(id) {
            return Arc::clone(sink);
        }
        let log = LogFile::new(self.log_path(id), self.log_limits());
        let sink = Arc::new(SharedSink(Mutex::new(Sink::new(log, self.config.log.max_rate))));
        self.sinks.insert(id.clone(), Arc::clone(&sink));
        sink
    }

    /// Tells the sinks of adopted runs what must not be shown, where what is wanted now is what
    /// the run was started with.
    pub(super) fn know_secrets(&mut self) {
        let (fleet, sinks) = (&self.fleet, &self.sinks);
        self.unknown.retain(|run| {
            let Some(id) = fleet.instance_of(*run) else { return false };
            let (Some(instance), Some(sink)) = (fleet.get(id), sinks.get(id)) else { return false };
            let origin = match instance.state() {
                State::Starting { origin, .. } | State::Up { origin, .. } => origin,
                State::Stopping { .. } | State::Killing { .. } | State::Cooling { .. } | State::Down => {
                    return false;
                }
            };
            match instance.wanted() {
                Want::Always(spec) if spec.id == origin.spec => {
                    sink.lock().known(Arc::clone(spec));
                    false
                }
                Want::Always(_) | Want::Keep | Want::Never => true,
            }
        });
    }

    /// The settings of `[log]` reach the logs that are there.
    pub(super) fn configure_sinks(&self) {
        for sink in self.sinks.values() {
            let mut sink = sink.lock();
            sink.set_max_rate(self.config.log.max_rate);
            sink.log().set_limits(self.log_limits());
        }
    }

    fn log_limits(&self) -> logfile::Limits {
        logfile::Limits { max_size: self.config.log.max_size, keep: self.config.log.keep }
    }

    pub(super) fn log_path(&self, id: &InstanceId) -> PathBuf {
        logfile::path_of(&self.places.logs, id)
    }

    /// Rings when something is written to the instance's log.
    pub(super) fn bell(&mut self, id: &InstanceId) -> watch::Receiver<u64> {
        self.sink(id).lock().log().bell()
    }
}
