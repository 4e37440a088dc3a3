//! Metrics of the controller, under the names stock dashboards know.
//!
//! Only the leader measures its work: what is counted of sessions and servers is counted by one process at a time.

mod lives;
mod queue;

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::time::Duration;
use std::time::Instant;

use futures::FutureExt;
use futures::StreamExt;
use kube::runtime::controller::Action;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::Caches;
use super::Context;
use crate::api::conditions;
use crate::api::conditions::ServerCondition;
use crate::api::names;
use crate::api::server::Availability;
use crate::api::session::SessionState;
use crate::api::session::SessionType;
use crate::cluster::Change;
use crate::cluster::Error;
use crate::cluster::Retry;
use crate::telemetry::metrics;
use crate::telemetry::metrics::Labels;

use lives::Lives;
use lives::Sight;
use queue::Queue;

const STATES: [SessionState; 5] =
    [SessionState::Creating, SessionState::Ready, SessionState::Deleting, SessionState::Deleted, SessionState::Unknown];
const TYPES: [SessionType; 2] = [SessionType::Console, SessionType::Virtual];

/// The controllers that have a queue, and how many passes each makes at the same time.
const QUEUES: [(&str, u16); 3] = [
    ("session", super::session::CONCURRENCY),
    ("server", super::server::CONCURRENCY),
    ("client", super::client::CONCURRENCY),
];

/// Bounds in seconds of the time until a session accepts clients: a fake desktop takes milliseconds, a session that waits
/// for a server an hour.
const READY_SECONDS: [f64; 14] = [0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 600.0, 3600.0];

/// How a pass ended.
#[derive(Clone, Copy, Debug)]
pub enum Outcome {
    /// Nothing more to do until something changes.
    Success,
    /// It looks again at a certain time.
    RequeueAfter,
}

/// The metrics, shared by every task.
#[derive(Clone)]
pub struct Metrics {
    passes: Family<Labels<2>, Counter>,
    errors: Family<Labels<1>, Counter>,
    terminal_errors: Family<Labels<1>, Counter>,
    panics: Family<Labels<1>, Counter>,
    pass_seconds: Family<Labels<1>, Histogram>,
    max_passes: Family<Labels<1>, Gauge>,
    adds: Family<Labels<2>, Counter>,
    retries: Family<Labels<2>, Counter>,
    queue_seconds: Family<Labels<2>, Histogram>,
    work_seconds: Family<Labels<2>, Histogram>,
    queues: Arc<[Queue]>,
    leading: Family<Labels<1>, Gauge>,
    sessions: Family<Labels<2>, Gauge>,
    ready_seconds: Family<Labels<1>, Histogram>,
    over: Family<Labels<1>, Counter>,
    servers: Family<Labels<2>, Gauge>,
    agents: Gauge<i64, AtomicI64>,
    licenses: Family<Labels<1>, Gauge>,
    binds: Family<Labels<1>, Counter>,
    waiting: Gauge<i64, AtomicI64>,
    decision_seconds: Histogram,
    holding: Gauge<i64, AtomicI64>,
    key_times: Family<Labels<1>, Gauge>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            passes: Family::default(),
            errors: Family::default(),
            terminal_errors: Family::default(),
            panics: Family::default(),
            pass_seconds: metrics::fast(),
            max_passes: Family::default(),
            adds: Family::default(),
            retries: Family::default(),
            queue_seconds: metrics::fast(),
            work_seconds: metrics::fast(),
            queues: QUEUES.map(|(name, _)| Queue::new(name)).into(),
            leading: Family::default(),
            sessions: Family::default(),
            ready_seconds: Family::new_with_constructor(|| Histogram::new(READY_SECONDS)),
            over: Family::default(),
            servers: Family::default(),
            agents: Gauge::default(),
            licenses: Family::default(),
            binds: Family::default(),
            waiting: Gauge::default(),
            decision_seconds: Histogram::new([0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0]),
            holding: Gauge::default(),
            key_times: Family::default(),
        }
    }
}

impl Metrics {
    /// The metrics, and the registry they are scraped from.
    pub fn registered() -> (Self, Arc<Registry>) {
        let metrics = Self::default();
        let mut registry = metrics::registry();
        metrics.register(&mut registry);
        metrics.begin();
        (metrics, Arc::new(registry))
    }

    fn register(&self, to: &mut Registry) {
        let Self {
            passes,
            errors,
            terminal_errors,
            panics,
            pass_seconds,
            max_passes,
            adds,
            retries,
            queue_seconds,
            work_seconds,
            queues,
            leading,
            sessions,
            ready_seconds,
            over,
            servers,
            agents,
            licenses,
            binds,
            waiting,
            decision_seconds,
            holding,
            key_times,
        } = self.clone();
        to.register_collector(Box::new(queue::Scraped(queues)));
        to.register("controller_runtime_reconcile", "Passes by controller and result", passes);
        to.register("controller_runtime_reconcile_errors", "Passes that failed", errors);
        to.register(
            "controller_runtime_terminal_reconcile_errors",
            "Passes that failed until the object changes",
            terminal_errors,
        );
        to.register("controller_runtime_reconcile_panics", "Passes that ended by a fault of ours", panics);
        to.register("controller_runtime_reconcile_time_seconds", "Time of a pass", pass_seconds);
        to.register("controller_runtime_max_concurrent_reconciles", "Most passes at the same time", max_passes);
        to.register("workqueue_adds", "Objects that were to be looked at", adds);
        to.register("workqueue_retries", "Objects that are to be looked at again after a failure", retries);
        to.register("workqueue_queue_duration_seconds", "Time that an object waits for its pass", queue_seconds);
        to.register("workqueue_work_duration_seconds", "Time of a pass", work_seconds);
        to.register("leader_election_master_status", "Whether this process leads", leading);
        to.register("dcv_sessions", "Sessions by state and type, as the leader sees them", sessions);
        to.register(
            "dcv_session_time_to_ready_seconds",
            "Time from the making of a session until it accepts clients for the first time",
            ready_seconds,
        );
        to.register("dcv_sessions_ended", "Sessions that ended, by reason", over);
        to.register("dcv_servers", "Servers by availability and reason, as the leader sees them", servers);
        to.register("dcv_agents_connected", "Servers whose agent renews its Lease", agents);
        to.register("dcv_server_licenses", "Servers by what they say of their licence", licenses);
        to.register("dcv_placement_binds", "Binds by result", binds);
        to.register("dcv_placement_waiting_sessions", "Sessions without a server", waiting);
        to.register("dcv_placement_decision_seconds", "Time of one look at all waiting sessions", decision_seconds);
        to.register("dcv_liveness_held", "Whether silent servers are not called so, as there are many", holding);
        to.register(
            "dcv_signing_key_rotation_timestamp_seconds",
            "When the next signing key is to follow, Unix time",
            key_times,
        );
    }

    /// Makes what is known from the start visible, so that a rate of it has a beginning.
    fn begin(&self) {
        self.lead(false);
        for (name, concurrency) in QUEUES {
            self.max_passes.get_or_create(&[("controller", name)]).set(concurrency.into());
            for result in ["success", "error", "requeue", "requeue_after"] {
                drop(self.passes.get_or_create(&[("controller", name), ("result", result)]));
            }
            for family in [&self.errors, &self.terminal_errors, &self.panics] {
                drop(family.get_or_create(&[("controller", name)]));
            }
            drop(self.pass_seconds.get_or_create(&[("controller", name)]));
            let both = [("name", name), ("controller", name)];
            drop(self.adds.get_or_create(&both));
            drop(self.retries.get_or_create(&both));
            drop(self.queue_seconds.get_or_create(&both));
            drop(self.work_seconds.get_or_create(&both));
        }
        for reason in lives::REASONS {
            drop(self.over.get_or_create(&[("reason", reason)]));
        }
        for type_ in TYPES {
            drop(self.ready_seconds.get_or_create(&[("type", type_.as_str())]));
        }
        for result in ["bound", "not_bound"] {
            drop(self.binds.get_or_create(&[("result", result)]));
        }
    }

    /// The queue of this controller.
    fn queue(&self, controller: &str) -> &Queue {
        let place = QUEUES.iter().position(|(name, _)| *name == controller).expect("every controller has a queue");
        &self.queues[place]
    }

    fn added(&self, controller: &'static str) {
        self.adds.get_or_create(&[("name", controller), ("controller", controller)]).inc();
    }

    /// Measures a pass over the object of this namespace and name.
    pub async fn pass(
        &self,
        controller: &'static str,
        (namespace, name): (Option<&str>, &str),
        pass: impl Future<Output = Result<Action, Error>>,
    ) -> Result<Action, Error> {
        let queue = self.queue(controller);
        let both = [("name", controller), ("controller", controller)];
        let (number, waited) = queue.begin(&queue::key(namespace, name), Instant::now());
        if waited.is_none() {
            // Due by the clock: it joined and left the queue in one.
            self.added(controller);
        }
        self.queue_seconds.get_or_create(&both).observe(waited.unwrap_or_default().as_secs_f64());
        let result = AssertUnwindSafe(pass).catch_unwind().await;
        let took = queue.end(number, Instant::now()).as_secs_f64();
        self.work_seconds.get_or_create(&both).observe(took);
        self.pass_seconds.get_or_create(&[("controller", controller)]).observe(took);
        let result = result.unwrap_or_else(|panic| {
            self.panics.get_or_create(&[("controller", controller)]).inc();
            resume_unwind(panic)
        });
        if let Ok(action) = &result {
            let is_over = *action == Action::await_change();
            self.reconciled(controller, if is_over { Outcome::Success } else { Outcome::RequeueAfter });
        }
        result
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
    pub fn failed(&self, controller: &'static str, retry: Retry) {
        self.passes.get_or_create(&[("controller", controller), ("result", "error")]).inc();
        self.errors.get_or_create(&[("controller", controller)]).inc();
        if retry == Retry::OnChange {
            self.terminal_errors.get_or_create(&[("controller", controller)]).inc();
        }
        if QUEUES.iter().any(|(name, _)| *name == controller) {
            self.retries.get_or_create(&[("name", controller), ("controller", controller)]).inc();
        }
    }

    /// Whether we lead. What was counted by a leader is not true any more when it is none.
    pub fn lead(&self, leading: bool) {
        self.leading.get_or_create(&[("name", names::LEADER_LEASE)]).set(i64::from(leading));
        self.queues.iter().for_each(Queue::clear);
        if !leading {
            self.holding(false);
            self.waiting(0);
            self.agents.set(0);
            self.sessions.clear();
            self.servers.clear();
            self.licenses.clear();
            self.key_times.clear();
        }
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
        self.waiting.set(whole(sessions));
    }

    /// How long one look at all waiting sessions took.
    pub fn decided(&self, took: Duration) {
        self.decision_seconds.observe(took.as_secs_f64());
    }

    /// When the next key of a kind is to follow the one that signs.
    pub fn key(&self, kind: &'static str, rotation: jiff::Timestamp) {
        self.key_times.get_or_create(&[("kind", kind)]).set(rotation.as_second());
    }

    /// Counts what is in the caches.
    pub fn count(&self, caches: &Caches) {
        let mut sessions: HashMap<Labels<2>, i64> = HashMap::new();
        for state in STATES {
            for type_ in TYPES {
                sessions.insert([("state", state.as_str()), ("type", type_.as_str())], 0);
            }
        }
        for session in caches.sessions.all() {
            let labels = [("state", session.shown_state().as_str()), ("type", session.spec.type_.as_str())];
            *sessions.entry(labels).or_default() += 1;
        }
        publish(&self.sessions, sessions);
        let mut servers: HashMap<Labels<2>, i64> = HashMap::new();
        let mut licenses: HashMap<Labels<1>, i64> = HashMap::new();
        servers.insert([("availability", Availability::Available.as_str()), ("reason", "")], 0);
        for status in ["valid", "not_required", "invalid", "unknown"] {
            licenses.insert([("status", status)], 0);
        }
        let mut agents = 0;
        for server in caches.servers.all() {
            let status = server.status.as_ref();
            let availability = status.map(|status| status.availability).unwrap_or_default().as_str();
            let reason = status.and_then(|status| status.unavailability_reason).map_or("", |reason| reason.as_str());
            *servers.entry([("availability", availability), ("reason", reason)]).or_default() += 1;
            let license = match conditions::find(server.conditions(), ServerCondition::LicenseValid) {
                Some(it) if it.status == "True" && it.reason == "NotRequired" => "not_required",
                Some(it) if it.status == "True" => "valid",
                Some(it) if it.status == "False" => "invalid",
                _ => "unknown",
            };
            *licenses.entry([("status", license)]).or_default() += 1;
            agents += usize::from(conditions::is_true(server.conditions(), ServerCondition::AgentConnected));
        }
        publish(&self.servers, servers);
        publish(&self.licenses, licenses);
        self.agents.set(whole(agents));
    }

    fn see(&self, sights: Vec<Sight>) {
        for sight in sights {
            match sight {
                Sight::Ready(type_, took) => {
                    self.ready_seconds.get_or_create(&[("type", type_.as_str())]).observe(took.as_secs_f64());
                }
                Sight::Over(reason) => drop(self.over.get_or_create(&[("reason", reason)]).inc()),
            }
        }
    }
}

/// Puts the counts in place of the old ones.
fn publish<const N: usize>(family: &Family<Labels<N>, Gauge>, counts: HashMap<Labels<N>, i64>) {
    // Values that occur no more are no zeros but gone, as those who sum up do not see a difference.
    family.clear();
    for (labels, count) in counts {
        family.get_or_create(&labels).set(count);
    }
}

fn whole(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// Watches sessions become ready and end, for as long as we lead.
pub async fn follow(context: Arc<Context>) {
    let mut lives = Lives::default();
    let sessions = context.caches.sessions.clone();
    let mut changes = Box::pin(sessions.subscribe());
    while let Some(change) = changes.next().await {
        let (now, wall) = (Instant::now(), (context.clock)());
        context.metrics.see(match change {
            Change::Applied(session) => lives.applied(&session, now, wall),
            Change::Deleted(session) => lives.deleted(session.metadata.uid.as_deref().unwrap_or_default()),
            Change::Listed => lives.listed(&sessions.all(), now, wall),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scrape(registry: &Registry) -> String {
        metrics::text(registry).unwrap()
    }

    #[tokio::test]
    async fn a_pass_is_counted_by_how_it_ends() {
        let (metrics, registry) = Metrics::registered();
        let object = (Some("ns"), "a");
        let done = async || Ok(Action::await_change());
        metrics.pass("session", object, done()).await.unwrap();
        let later = async || Ok(Action::requeue(Duration::from_secs(1)));
        metrics.pass("session", object, later()).await.unwrap();
        metrics.failed("session", Retry::OnChange);
        let panicking = AssertUnwindSafe(metrics.pass("session", object, async { panic!("a fault of ours") }));
        assert!(panicking.catch_unwind().await.is_err());
        let text = scrape(&registry);
        for line in [
            "controller_runtime_reconcile_total{controller=\"session\",result=\"success\"} 1",
            "controller_runtime_reconcile_total{controller=\"session\",result=\"requeue_after\"} 1",
            "controller_runtime_reconcile_total{controller=\"session\",result=\"error\"} 1",
            "controller_runtime_terminal_reconcile_errors_total{controller=\"session\"} 1",
            "controller_runtime_reconcile_panics_total{controller=\"session\"} 1",
            "controller_runtime_reconcile_time_seconds_count{controller=\"session\"} 3",
            "controller_runtime_active_workers{controller=\"session\"} 0.0",
            "workqueue_adds_total{name=\"session\",controller=\"session\"} 3",
            "workqueue_retries_total{name=\"session\",controller=\"session\"} 1",
            "workqueue_depth{name=\"session\",controller=\"session\"} 0.0",
        ] {
            assert!(text.lines().any(|it| it == line), "{line}\n{text}");
        }
    }

    #[tokio::test]
    async fn the_page_lists_what_a_controller_serves() {
        let (context, _tasks) =
            Context::test(&crate::cluster::mock::client(|_, _, _| (500, serde_json::json!(null))), || {
                jiff::Timestamp::UNIX_EPOCH
            });
        let (metrics, registry) = Metrics::registered();
        metrics.count(&context.caches);
        metrics.key("dcv-access-token-keys", jiff::Timestamp::UNIX_EPOCH);
        crate::telemetry::page::check("controller", &registry);
    }

    #[test]
    fn one_that_leads_no_more_says_nothing_of_sessions() {
        let (metrics, registry) = Metrics::registered();
        metrics.lead(true);
        metrics.key("AccessToken", jiff::Timestamp::UNIX_EPOCH);
        metrics.holding(true);
        metrics.lead(false);
        let text = scrape(&registry);
        assert!(!text.contains("dcv_signing_key_rotation_timestamp_seconds{"), "{text}");
        assert!(text.contains("dcv_liveness_held 0\n"));
    }
}
