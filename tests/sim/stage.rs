//! The names and specs that every world uses, made once.
//!
//! A seat is a place at the table: one port, and two users who may have it one after the other.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use mcpsup::model::cage::Allow;
use mcpsup::model::config::{Access, Limits, Probe, Ready, Server, Transport};
use mcpsup::model::spec::Plan;
use mcpsup::model::{InstanceId, Moment, SessionName, Spec, SpecId};

pub(crate) const SEATS: usize = 4;
pub(crate) const TENANTS: usize = 2;
pub(crate) const VERSIONS: usize = 3;

/// Milliseconds since the world's machine started.
pub(crate) type Ms = u64;

pub(crate) fn moment(at: Ms) -> Moment {
    Moment::from_boot(Duration::from_millis(at))
}

/// A spec's times: ready timeout, signal, grace, first wait, longest wait, stable stretch.
pub(crate) type Times = (Ms, i32, Ms, Ms, Ms, Ms);

const TIMES: [Times; 5] = [
    (30, 15, 10, 3, 20, 25),
    (15, 2, 20, 1, 64, 40),
    (40, 15, 0, 10, 10, 15),
    (20, 15, 5, 7, 100, 30),
    (5, 10, 8, 2, 30, 10),
];

pub(crate) struct Stage {
    ids: Vec<InstanceId>,
    specs: Vec<Arc<Spec>>,
}

impl Stage {
    pub(crate) fn new() -> Self {
        let mut ids = Vec::new();
        let mut specs = Vec::new();
        for seat in 0..SEATS {
            for tenant in 0..TENANTS {
                let id = instance(&format!("u{seat}{tenant}"));
                // Every other seat is a session's; what is said of one is said of its instance.
                ids.push(if seat % 2 == 1 { id.session(SessionName::new(7)) } else { id });
                for version in 0..VERSIONS {
                    specs.push(Arc::new(spec(seat, tenant, version, times(seat, version))));
                }
            }
        }
        Self { ids, specs }
    }

    pub(crate) fn id(&self, seat: usize, tenant: usize) -> &InstanceId {
        &self.ids[seat * TENANTS + tenant]
    }

    pub(crate) fn spec(&self, seat: usize, tenant: usize, version: usize) -> &Arc<Spec> {
        &self.specs[(seat * TENANTS + tenant) * VERSIONS + version]
    }

    /// Which seat and tenant this is.
    pub(crate) fn find(&self, id: &InstanceId) -> Option<(usize, usize)> {
        let place = self.ids.iter().position(|known| known == id)?;
        Some((place / TENANTS, place % TENANTS))
    }
}

pub(crate) fn instance(user: &str) -> InstanceId {
    InstanceId::new(user.parse().expect("a name"), "s".parse().expect("a name"))
}

pub(crate) fn times(seat: usize, version: usize) -> Times {
    TIMES[(seat * 2 + version) % TIMES.len()]
}

pub(crate) fn port(seat: usize) -> u16 {
    4000 + u16::try_from(seat).expect("few seats")
}

pub(crate) fn plan((ready, signal, grace, first_wait, max_wait, stable): Times) -> Plan {
    Plan {
        ready_timeout_ms: ready,
        stop_signal: signal,
        stop_grace_ms: grace,
        first_wait_ms: first_wait,
        max_wait_ms: max_wait,
        stable_ms: stable,
    }
}

/// A spec of which nothing matters but its digest, its times and its port.
pub(crate) fn spec(seat: usize, tenant: usize, version: usize, times: Times) -> Spec {
    let mut digest = [0; 32];
    for (byte, part) in digest.iter_mut().zip([seat, tenant, version]) {
        *byte = u8::try_from(part).expect("few of them");
    }
    Spec {
        id: SpecId(digest),
        server: Arc::new(server(plan(times))),
        program: Arc::default(),
        args: Box::default(),
        env: Box::default(),
        working_dir: None,
        account: None,
        cage: Arc::default(),
        backend: Some(port(seat)),
        secrets: Box::default(),
    }
}

fn server(plan: Plan) -> Server {
    Server {
        command: Vec::new(),
        transport: Transport::Http,
        env: BTreeMap::new(),
        for_all: true,
        credentials: BTreeMap::new(),
        port_env: None,
        path: String::new(),
        working_dir: None,
        access: Access::Owner,
        secrets_in_argv: false,
        ready: Ready { probe: Probe::Tcp, timeout: plan.ready_timeout() },
        stop: plan.stop(),
        restart: plan.restart(),
        limits: Limits::default(),
        allow: Allow::default(),
    }
}
