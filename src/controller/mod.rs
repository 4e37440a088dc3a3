//! The controller: places sessions, watches over servers, keeps the signing keys, ends and cleans up.
//!
//! Three reconcilers, one placing task, one judge of liveness; all of them run only while this process leads. A leader
//! that loses its Lease drops every task at once and goes on as a follower, with its caches warm: no supervisor is needed
//! to restart it, and what a task had in memory is gone with it, so nothing of an old term can act in a new one. Invariant:
//! whatever is written is guarded by the version it was decided on, so two leaders can only waste work.

mod adoption;
mod certificate;
mod client;
mod events;
mod keys;
mod liveness;
mod metrics;
mod placer;
pub mod placing;
mod server;
pub mod session;
mod waiting;

use std::collections::HashSet;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;
use std::time::Instant;

use jiff::SignedDuration;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::Client;
use kube::ResourceExt;
use kube::runtime::controller::Action;
use kube::runtime::watcher;
use tokio::signal::unix::SignalKind;
use tokio::signal::unix::signal;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::api::ApiClient;
use crate::api::DcvServer;
use crate::api::DcvSession;
use crate::api::names;
use crate::api::session::PlacementPolicy;
use crate::cluster;
use crate::cluster::Cache;
use crate::cluster::Clock;
use crate::cluster::Retry;
use crate::cluster::Scope;
use crate::cluster::events::Events;
use crate::cluster::lease;
use crate::placement::NewServers;
use crate::requirement::Dialect;
use crate::telemetry::health;
use crate::token::Rotation;

pub use certificate::CertificateSettings;
pub use liveness::Limits as LivenessLimits;
pub use server::LabelRule;

/// How the controller behaves.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Namespace of the Leases, keys and Secrets.
    pub namespace: String,
    /// Whose sessions and clients are ours.
    pub scope: Scope,
    /// Name of this process among its like: the pod's, or the host's.
    pub instance: String,
    /// Where health and metrics are served.
    pub health_address: SocketAddr,
    /// Policy of sessions that name none.
    pub placement_policy: PlacementPolicy,
    /// Which namespaces a server without `allowedNamespaces` admits.
    pub new_servers: NewServers,
    /// How much of the requirement language is allowed.
    pub dialect: Dialect,
    /// How often a session that failed on a host is tried again.
    pub retries: u32,
    /// How long a delete waits for an unreachable agent.
    pub delete_timeout: SignedDuration,
    /// When servers are unreachable and sessions unknown.
    pub liveness: LivenessLimits,
    /// How long an unreachable server that nobody uses is kept.
    pub purge_after: SignedDuration,
    /// Which labels of a Node its server gets.
    pub copied_node_labels: Vec<LabelRule>,
    /// How signing keys follow each other.
    pub rotation: Rotation,
    /// The brokers' certificate, if the controller is to make it.
    pub broker_certificate: Option<CertificateSettings>,
    /// Life of the leader's Lease.
    pub leader_ttl: Duration,
    /// Where the time comes from.
    pub clock: Clock,
}

/// What ends the controller.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Health cannot be served.
    #[error("failed to serve health on {address}")]
    Health {
        /// Where.
        address: SocketAddr,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The process cannot be told to stop.
    #[error("failed to listen for signals")]
    Signals(#[source] io::Error),
    /// A task that runs for the life of the process ended.
    #[error("a task of the controller ended unexpectedly")]
    Task(#[source] tokio::task::JoinError),
}

/// Local copies of what decisions look at.
#[derive(Clone)]
pub struct Caches {
    sessions: Cache<DcvSession>,
    servers: Cache<DcvServer>,
    clients: Cache<ApiClient>,
    namespaces: Cache<Namespace>,
    nodes: Cache<Node>,
    leases: Cache<Lease>,
}

impl Caches {
    /// The copies, kept current by `tasks`.
    fn start(client: &Client, namespace: &str, scope: &Scope, tasks: &mut JoinSet<Result<(), Error>>) -> Self {
        let all = watcher::Config::default();
        macro_rules! cache {
            ($sources:expr) => {{
                let (cache, work) = Cache::of($sources);
                tasks.spawn(async move {
                    work.await;
                    Ok(())
                });
                cache
            }};
        }
        Self {
            sessions: cache!(scope.sources(client, &all)),
            servers: cache!(vec![(Api::all(client.clone()), all.clone())]),
            clients: cache!(scope.sources(client, &all)),
            namespaces: cache!(scope.namespaces(client)),
            nodes: cache!(vec![(Api::all(client.clone()), all.clone())]),
            leases: cache!(vec![(Api::namespaced(client.clone(), namespace), all.clone())]),
        }
    }

    async fn ready(&self) {
        let Self { sessions, servers, clients, namespaces, nodes, leases } = self;
        tokio::join!(
            sessions.ready(),
            servers.ready(),
            clients.ready(),
            namespaces.ready(),
            nodes.ready(),
            leases.ready()
        );
    }
}

/// What every task of one term shares.
pub struct Context {
    client: Client,
    settings: Settings,
    caches: Caches,
    liveness: Arc<liveness::Liveness>,
    events: Events,
    metrics: metrics::Metrics,
    /// Bounds the writes that call sessions unknown.
    unknown_pace: Pace,
    /// Sessions of whose end people were told.
    told: Mutex<HashSet<String>>,
    clock: Clock,
}

/// More than can end within the time in which their end is news; then the memory begins anew.
const TOLD_LIMIT: usize = 50_000;

impl Context {
    /// Whether a server is ours: where another installation may have its own, one whose Lease is in our namespace.
    fn knows(&self, server: &str) -> bool {
        let Settings { scope, namespace, .. } = &self.settings;
        !scope.is_limited() || self.caches.leases.find(namespace, server).is_some()
    }

    /// Whether people are yet to be told of the end of this session; from now on they are not.
    fn tell_once(&self, session: &DcvSession) -> bool {
        let mut told = self.told.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if told.len() >= TOLD_LIMIT {
            told.clear();
        }
        told.insert(session.uid().unwrap_or_default())
    }

    /// What to do after a pass that failed; the one place where that is logged.
    fn failed(&self, controller: &'static str, object: &str, error: &cluster::Error) -> Action {
        self.metrics.failed(controller, error.retry());
        let err = error as &dyn std::error::Error;
        match error.retry() {
            Retry::Soon => {
                tracing::debug!(controller, object, error = err, "Pass overtaken by a change");
                Action::requeue(Duration::from_millis(200))
            }
            Retry::OnChange => {
                tracing::warn!(controller, object, error = err, "Pass failed until the object changes");
                // Not for ever: what refuses it, such as a policy, can change as well.
                Action::requeue(Duration::from_mins(5))
            }
            Retry::Backoff => {
                tracing::warn!(controller, object, error = err, "Pass failed, trying again");
                Action::requeue(Duration::from_secs(5))
            }
        }
    }
}

/// Writes a second that call sessions unknown.
const UNKNOWN_WRITES_A_SECOND: u32 = 20;

/// Lets a bounded number of things through in each second.
struct Pace {
    /// The start of the current second, and how many it has let through.
    second: Mutex<(Instant, u32)>,
}

impl Pace {
    fn new() -> Self {
        Self { second: Mutex::new((Instant::now(), 0)) }
    }

    fn take(&self) -> bool {
        let mut second = self.second.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if second.0.elapsed() >= Duration::from_secs(1) {
            *second = (Instant::now(), 0);
        }
        second.1 += 1;
        second.1 <= UNKNOWN_WRITES_A_SECOND
    }
}

/// Runs the controller until it is told to stop.
///
/// # Errors
/// What makes it impossible to go on.
pub async fn run(settings: Settings, client: Client) -> Result<(), Error> {
    let (metrics, registry) = metrics::Metrics::registered();
    let mut tasks = JoinSet::new();
    let caches = Caches::start(&client, &settings.namespace, &settings.scope, &mut tasks);
    let (ready, is_ready) = watch::channel(false);
    let stop = CancellationToken::new();
    let (filled, stopping) = (ready.clone(), stop.clone());
    let address = settings.health_address;
    tasks.spawn(async move {
        health::serve(address, is_ready, registry).await.map_err(|source| Error::Health { address, source })
    });
    tasks.spawn({
        let caches = caches.clone();
        async move {
            caches.ready().await;
            tracing::info!("Caches are filled");
            // Followers too: a rollout waits for them.
            if !stopping.is_cancelled() {
                filled.send_replace(true);
            }
            std::future::pending().await
        }
    });

    let (leading, is_leading) = watch::channel(None);
    let candidacy = lease::Candidacy {
        api: Api::namespaced(client.clone(), &settings.namespace),
        name: names::LEADER_LEASE.to_owned(),
        // Unique for each life: a process that is restarted must not take its own old record for a term of its own.
        identity: format!("{}_{}", settings.instance, uuid::Uuid::new_v4()),
        ttl: settings.leader_ttl,
        clock: settings.clock,
    };
    let campaign = tokio::spawn(candidacy.run(leading, stop.clone()));

    let mut terminate = signal(SignalKind::terminate()).map_err(Error::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Error::Signals)?;
    let ended = tokio::select! {
        () = terms(&settings, &client, &caches, &metrics, is_leading) => Ok(()),
        ended = tasks.join_next() => match ended {
            Some(Ok(Ok(()))) | None => Ok(()),
            Some(Ok(Err(error))) => Err(error),
            Some(Err(error)) => Err(Error::Task(error)),
        },
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
    };
    // Before the Lease is given up, which may take a moment.
    ready.send_replace(false);
    tracing::info!("Stopping");
    // The term is dropped by now, so the Lease can be given up.
    stop.cancel();
    campaign.await.map_err(Error::Task)?;
    ended
}

/// Acts in each term from its beginning to its end.
async fn terms(
    settings: &Settings,
    client: &Client,
    caches: &Caches,
    metrics: &metrics::Metrics,
    mut leading: watch::Receiver<Option<Instant>>,
) {
    loop {
        if leading.wait_for(Option::is_some).await.is_err() {
            return;
        }
        tracing::info!("Leading");
        metrics.lead(true);
        let context = Arc::new(Context {
            client: client.clone(),
            settings: settings.clone(),
            caches: caches.clone(),
            liveness: Arc::default(),
            events: Events::new(client.clone(), names::CONTROLLER, &settings.instance),
            metrics: metrics.clone(),
            unknown_pace: Pace::new(),
            told: Mutex::default(),
            clock: settings.clock,
        });
        let mut over = leading.clone();
        tokio::select! {
            () = term(&context, leading.clone()) => {}
            _ = over.wait_for(Option::is_none) => {}
        }
        tracing::warn!("Not leading any more");
        metrics.lead(false);
    }
}

/// One term. Dropping it stops everything: each task is owned by it.
async fn term(context: &Arc<Context>, leading: watch::Receiver<Option<Instant>>) {
    context.caches.ready().await;
    let mut tasks = JoinSet::new();
    tasks.spawn(session::run(Arc::clone(context)));
    tasks.spawn(server::run(Arc::clone(context)));
    tasks.spawn(client::run(Arc::clone(context)));
    tasks.spawn(placer::run(Arc::clone(context)));
    tasks.spawn(keys::run(Arc::clone(context)));
    tasks.spawn(certificate::run(Arc::clone(context)));
    tasks.spawn(liveness::run(Arc::clone(context), leading));
    tasks.spawn(count(Arc::clone(context)));
    tasks.spawn(metrics::follow(Arc::clone(context)));
    // None of them ends but by a fault; then the term begins anew, for none may be missing.
    if let Some(Err(error)) = tasks.join_next().await {
        tracing::error!(error = &error as &dyn std::error::Error, "A task of the term ended");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

async fn count(context: Arc<Context>) {
    loop {
        context.metrics.count(&context.caches);
        tokio::time::sleep(Duration::from_secs(10)).await;
    }
}

#[cfg(test)]
impl Context {
    /// A context over `client`, and the work that fills its caches.
    fn test(client: &Client, clock: Clock) -> (Arc<Self>, JoinSet<Result<(), Error>>) {
        let settings = Settings {
            namespace: "dcv-system".into(),
            scope: Scope::All,
            instance: "test".into(),
            health_address: ([127, 0, 0, 1], 0).into(),
            placement_policy: PlacementPolicy::Spread,
            new_servers: NewServers::Open,
            dialect: Dialect::Extended,
            retries: 2,
            delete_timeout: SignedDuration::from_mins(10),
            liveness: LivenessLimits {
                lease: Duration::from_secs(40),
                unknown_after: Duration::from_secs(20),
                hold: Duration::from_mins(10),
            },
            purge_after: SignedDuration::from_mins(30),
            copied_node_labels: Vec::new(),
            rotation: Rotation {
                period: SignedDuration::from_hours(24 * 30),
                lead: SignedDuration::from_hours(24),
                token_lifetime: SignedDuration::from_hours(24),
            },
            broker_certificate: None,
            leader_ttl: lease::LEADER_TTL,
            clock,
        };
        let mut tasks = JoinSet::new();
        let caches = Caches::start(client, &settings.namespace, &settings.scope, &mut tasks);
        let context = Self {
            client: client.clone(),
            settings,
            caches,
            liveness: Arc::default(),
            events: Events::new(client.clone(), names::CONTROLLER, "test"),
            metrics: metrics::Metrics::default(),
            unknown_pace: Pace::new(),
            told: Mutex::default(),
            clock,
        };
        (Arc::new(context), tasks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_than_so_many_pass_in_a_second() {
        let pace = Pace::new();
        assert_eq!((0..100).filter(|_| pace.take()).count(), 20);
    }
}
