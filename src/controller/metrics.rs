//! Metrics of the controller, under the names stock dashboards know.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::Caches;
use crate::api::names;
use crate::api::session::SessionState;

const STATES: [SessionState; 5] =
    [SessionState::Creating, SessionState::Ready, SessionState::Deleting, SessionState::Deleted, SessionState::Unknown];

type Labels = [(&'static str, &'static str); 2];
type OneLabel = [(&'static str, &'static str); 1];

/// How a pass ended.
#[derive(Clone, Copy, Debug)]
pub enum Outcome {
    /// Nothing more to do until something changes.
    Success,
    /// It looks again at a certain time.
    RequeueAfter,
}

/// The metrics, shared by every task.
#[derive(Clone, Default)]
pub struct Metrics {
    passes: Family<Labels, Counter>,
    errors: Family<OneLabel, Counter>,
    leading: Family<OneLabel, Gauge>,
    sessions: Family<OneLabel, Gauge>,
    binds: Family<OneLabel, Counter>,
    waiting: Gauge<i64, AtomicI64>,
    holding: Gauge<i64, AtomicI64>,
}

impl Metrics {
    /// The metrics, and the registry they are scraped from.
    pub fn registered() -> (Self, Arc<Registry>) {
        let metrics = Self::default();
        let mut registry = Registry::default();
        let Self { passes, errors, leading, sessions, binds, waiting, holding } = metrics.clone();
        registry.register("controller_runtime_reconcile", "Passes by controller and result", passes);
        registry.register("controller_runtime_reconcile_errors", "Passes that failed", errors);
        registry.register("leader_election_master_status", "Whether this process leads", leading);
        registry.register("dcv_sessions", "Sessions by state, as the leader sees them", sessions);
        registry.register("dcv_placement_binds", "Binds by result", binds);
        registry.register("dcv_placement_waiting_sessions", "Sessions without a server", waiting);
        registry.register("dcv_liveness_held", "Whether silent servers are not called so, as there are many", holding);
        metrics.lead(false);
        (metrics, Arc::new(registry))
    }

    /// Counts a pass.
    pub fn reconciled(&self, controller: &'static str, outcome: Outcome) {
        let result = match outcome {
            Outcome::Success => "success",
            Outcome::RequeueAfter => "requeue_after",
        };
        self.passes.get_or_create(&[("controller", controller), ("result", result)]).inc();
    }

    /// Counts a pass that failed.
    pub fn failed(&self, controller: &'static str) {
        self.passes.get_or_create(&[("controller", controller), ("result", "error")]).inc();
        self.errors.get_or_create(&[("controller", controller)]).inc();
    }

    /// Whether we lead.
    pub fn lead(&self, leading: bool) {
        self.leading.get_or_create(&[("name", names::LEADER_LEASE)]).set(i64::from(leading));
    }

    /// Whether conclusions are held back.
    pub fn holding(&self, holding: bool) {
        self.holding.set(i64::from(holding));
    }

    /// Counts a bind.
    pub fn bound(&self, result: &'static str) {
        self.binds.get_or_create(&[("result", result)]).inc();
    }

    /// How many sessions wait.
    pub fn waiting(&self, sessions: usize) {
        self.waiting.set(i64::try_from(sessions).unwrap_or(i64::MAX));
    }

    /// Counts the sessions of a cache.
    pub fn count(&self, caches: &Caches) {
        let mut counts: HashMap<SessionState, i64> = HashMap::new();
        for session in caches.sessions.all() {
            *counts.entry(session.shown_state()).or_default() += 1;
        }
        for state in STATES {
            let count = counts.get(&state).copied().unwrap_or(0);
            self.sessions.get_or_create(&[("state", state.as_str())]).set(count);
        }
    }
}
