//! The agent: runs the sessions that are bound to its server, through a backend.
//!
//! Read `decide` first. This file is wiring: what is watched, what wakes the agent, and the pass that reads, decides and
//! acts. Every part may die at any moment; the API server and the host hold all that matters.

mod act;
mod answers;
pub mod backend;
mod calls;
pub mod check;
mod command;
mod dcv_conf;
pub mod decide;
pub mod fault;
pub mod gate;
pub mod host;
pub mod https;
pub mod init;
pub mod ledger;
mod lock;
pub mod metrics;
#[cfg(test)]
mod mock;
mod own_facts;
mod report;
mod room;
mod server;
mod settings;
mod spec;
pub mod tags;
mod token_file;
mod verifier;
mod view;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use kube::Client;
use kube::ResourceExt;
use kube::runtime::reflector::Store;
use kube::runtime::watcher;
use tokio::sync::Notify;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::api::DcvServer;
use crate::api::DcvSession;
use crate::api::conditions;
use crate::api::conditions::SessionCondition;
use crate::api::names;
use crate::api::server::SessionOrigin;
use crate::cluster;
use crate::cluster::Change;
use crate::cluster::Source;
use crate::cluster::lease::ServerLease;
use act::Done;
use act::Hands;
use act::Outcome;
use answers::Answers;
use backend::Backend;
use backend::HostSession;
use decide::Me;
use decide::Plan;
use decide::Stranger;
use decide::World;
use ledger::Ledger;
use own_facts::OwnFacts;
use own_facts::own_address;
use server::Facts;

pub use decide::OrphanPolicy;
pub use host::HostSettings;
pub use lock::Lock;
pub use settings::Settings;
pub use settings::VerifierSettings;
pub use view::Watched;

/// Longest time the host may take to say what it runs, or what it is.
const LOOK_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest time to find out what became of an object.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);
/// Wait before what failed is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// Entry of the answers about our own server.
const SERVER: &str = "server";

/// Why an agent cannot run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The lock of the server cannot be taken.
    #[error("failed to lock {folder}")]
    Lock {
        /// Folder of the lock.
        folder: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The HTTPS server cannot run.
    #[error("failed to start the HTTPS server")]
    Https(#[from] https::HttpsError),
    /// There is no address to tell.
    #[error("failed to find the host's address")]
    Address(#[from] host::AddressError),
}

/// Takes the lock of the server. While another agent of it runs on this host, this waits.
///
/// # Errors
/// When the lock's file cannot be made.
pub async fn acquire_lock(settings: &Settings) -> Result<Lock, Error> {
    let folder = settings.server_folder();
    lock::acquire(&folder).await.map_err(|source| Error::Lock { folder, source })
}

/// Runs the agent of one server for ever. Ends no session when it is dropped.
///
/// `view` is what the gate looks at; a backend that serves desktops itself was made with the same one, under the lock, as
/// opening a backend may already adopt what runs.
///
/// # Errors
/// When the host does not let it start. Failures of the API server are waited out.
pub async fn run<B: Backend>(
    settings: Settings,
    client: Client,
    backend: B,
    view: Arc<Watched>,
    _lock: Lock,
) -> Result<(), Error> {
    let settings = Arc::new(settings);
    let mut facts = Facts { backend: B::NAME, ..Facts::default() };
    let listen = settings.https_address;
    let own = own_address(&settings)?;
    let names = vec![settings.server_name.clone(), "localhost".into(), "127.0.0.1".into(), own.to_string()];
    let identity = https::Identity::load_or_make(&settings.server_folder(), names)?;
    let backend = Arc::new(backend);
    let routes = backend.routes().merge(calls::router(backend.clone(), view.clone()));
    let serving = https::serve(listen, &identity, routes, view.clone()).await?;
    let _verifying = match &settings.verifier {
        Some(settings) => Some(verifier::serve(settings, view.clone()).await?),
        None => None,
    };
    facts.ip = own.to_string();
    facts.port = serving.address.port().into();
    facts.agent = crate::api::server::Agent {
        url: format!("https://{}", std::net::SocketAddr::new(own, serving.address.port())),
        certificate_fingerprint: identity.fingerprint.clone(),
        version: env!("CARGO_PKG_VERSION").into(),
        clock_skew_seconds: None,
    };

    let mut tasks = JoinSet::new();
    let own_facts = OwnFacts::follow(&settings, own, &mut tasks).await;
    if let Some(path) = settings.kubeconfig.as_deref().and_then(token_file::of_kubeconfig) {
        tasks.spawn(token_file::keep(client.clone(), path, settings.clock));
    }
    let (mut lease, renewing) = ServerLease::new(
        Api::namespaced(client.clone(), &settings.namespace),
        &settings.server_name,
        &settings.server_name,
        settings.clock,
    );
    tasks.spawn(renewing);
    while !lease.is_current() {
        lease.renewed().await;
    }

    let changed = Arc::new(Notify::new());
    let mut fact_changes = own_facts.clone();
    let mut agent = Agent::start(settings, client, backend, lease.clone(), view, facts, &changed, &mut tasks).await;
    agent.own_facts = Some(own_facts);
    let mut host_changes = agent.backend.changes();
    tracing::info!(server = agent.me.server_name, address = %serving.address, "agent runs");
    loop {
        let wake = agent.pass().await;
        tokio::select! {
            done = agent.hands.next() => agent.take(done),
            () = changed.notified() => {}
            Ok(()) = host_changes.changed() => {}
            () = fact_changes.changed() => {}
            () = lease.renewed(), if !agent.was_current => {}
            () = tokio::time::sleep_until(wake) => {}
        }
    }
}

/// Watches one kind for as long as `tasks` lives. `hear` hears of each change before the agent is woken.
fn follow<K>(
    sources: Vec<Source<K>>,
    changed: &Arc<Notify>,
    tasks: &mut JoinSet<()>,
    hear: impl Fn(&Change<K>) + Send + 'static,
) -> Store<K>
where
    K: kube::Resource<DynamicType = ()> + Clone + serde::de::DeserializeOwned + std::fmt::Debug + Send + Sync + 'static,
{
    let (store, events) = cluster::watch_all::<K>(sources);
    let changed = changed.clone();
    tasks.spawn(events.for_each(move |change| {
        hear(&change);
        changed.notify_one();
        std::future::ready(())
    }));
    store
}

/// One agent at work.
struct Agent<B> {
    settings: Arc<Settings>,
    backend: Arc<B>,
    client: Client,
    lease: ServerLease,
    view: Arc<Watched>,
    sessions: Store<DcvSession>,
    /// Uids of objects that were torn off their desktops.
    torn_off: mpsc::UnboundedReceiver<String>,
    servers: Store<DcvServer>,
    keys: Store<ConfigMap>,
    /// Version of the published keys that the view has.
    keys_version: Option<String>,
    hands: Hands<B>,
    ledger: Ledger,
    session_answers: Answers<DcvSession>,
    server_answers: Answers<DcvServer>,
    me: Me,
    facts: Facts,
    /// What is read of the host by tasks of its own.
    own_facts: Option<OwnFacts>,
    described: Option<Instant>,
    /// What became of objects that sessions here were made for, and when to ask again; by uid.
    strangers: BTreeMap<String, (Stranger, Instant)>,
    /// Whether what became of some could not be found out.
    has_unknown_strangers: bool,
    /// When our server's status was written last.
    server_written: Option<Instant>,
    /// The last plan's view of the host, for when it does not answer.
    counts: Plan,
    was_current: bool,
}

impl<B: Backend> Agent<B> {
    /// Waits until everything that has to be known before the first pass is known.
    async fn start(
        settings: Arc<Settings>,
        client: Client,
        backend: Arc<B>,
        lease: ServerLease,
        view: Arc<Watched>,
        facts: Facts,
        changed: &Arc<Notify>,
        tasks: &mut JoinSet<()>,
    ) -> Self {
        let server_name = settings.server_name.clone();
        let me =
            Me { server_name: server_name.clone(), cluster_uid: cluster::fetch_uid(&client).await, ..Me::default() };
        // A change of a bound session, also its leaving us.
        let bound = watcher::Config::default().fields(&format!("status.serverName={server_name}"));
        let bound = settings.scope.sources(&client, &bound);
        let (torn, torn_off) = mpsc::unbounded_channel();
        let sessions = follow(bound, changed, tasks, move |change| {
            if let Change::Deleted(session) = change
                && decide::was_torn_off(session)
            {
                // Nobody hears it only when the agent is ending.
                let _ = torn.send(session.uid().unwrap_or_default());
            }
        });
        // A change of what administrators want of this server, or its deletion.
        let named = |name: &str| watcher::Config::default().fields(&format!("metadata.name={name}"));
        let servers = vec![(Api::all(client.clone()), named(&server_name))];
        let servers = follow(servers, changed, tasks, |_| {});
        // New keys.
        let keys = vec![(Api::namespaced(client.clone(), &settings.namespace), named(names::PUBLIC_KEYS))];
        let keys = follow(keys, changed, tasks, |_| {});
        // Before any of the host is touched, the API server has said what belongs to us. The watches outlive this agent.
        let _ = sessions.wait_until_ready().await;
        let _ = servers.wait_until_ready().await;
        let hands = Hands::new(backend.clone(), client.clone(), lease.clone(), settings.clone());
        Self {
            settings,
            backend,
            client,
            lease,
            view,
            sessions,
            torn_off,
            servers,
            keys,
            keys_version: None,
            hands,
            ledger: Ledger::default(),
            session_answers: Answers::default(),
            server_answers: Answers::default(),
            me,
            facts,
            own_facts: None,
            described: None,
            strangers: BTreeMap::new(),
            has_unknown_strangers: false,
            server_written: None,
            counts: Plan::default(),
            was_current: true,
        }
    }

    /// One pass: look, decide, act. Returns when to look again at the latest.
    async fn pass(&mut self) -> Instant {
        let now = self.settings.now();
        let soon = Instant::now() + RETRY;
        let sessions = self.bound_sessions();
        self.view.set_sessions(&sessions);
        self.take_keys();
        // An agent that may not write does not touch the host either: what it knows may be old.
        self.was_current = self.lease.is_current();
        metrics::noted_lease(&self.me.server_name, &self.lease, now);
        if !self.was_current {
            return soon;
        }
        let Some(server) = self.own_server().await else { return soon };
        self.me.server_uid = server.uid().unwrap_or_default();
        self.view.set_server_uid(&self.me.server_uid);

        if let Some(own_facts) = &mut self.own_facts {
            own_facts.take_tags(&server, &mut self.facts);
        }
        let host = match self.look_at_host(&sessions).await {
            Ok(host) => host,
            Err(message) => {
                metrics::looked(&self.me.server_name, None, false);
                self.facts.unhealthy = Some(message);
                self.report_server(&server, now);
                return soon;
            }
        };
        if let Some(own_facts) = &self.own_facts {
            own_facts.add_to(&server, &mut self.facts);
        }
        metrics::looked(&self.me.server_name, Some(host.len()), self.facts.unhealthy.is_none());
        let strangers = self.look_at_strangers(&host, &sessions).await;
        let namespaces = self.look_at_namespaces(&server, &sessions).await;
        let is_untold = |uid: &str, attempt| {
            sessions.iter().any(|session| session.uid().as_deref() == Some(uid) && session.attempt() == attempt)
        };
        while let Ok(uid) = self.torn_off.try_recv() {
            self.ledger.torn_off.insert(uid);
        }
        self.ledger.retain(is_untold, |id| host.iter().any(|instance| instance.id == id));
        let is_in_use = self.facts.has_user_at_console(room::Room::counts(&host).1);
        let in_use = is_in_use.then_some("somebody is logged in at the host's own screen");
        let mut plan = decide::decide(&World {
            now,
            me: &self.me,
            server: &server,
            capacity: &self.facts.capacity,
            unhealthy: self.facts.unhealthy.as_deref().or(in_use),
            address: &self.facts.address(),
            owner_pattern: self.settings.owner_pattern.as_ref(),
            orphan_policy: self.settings.orphan_policy,
            sessions: &sessions,
            host: &host,
            strangers: &strangers,
            namespaces: &namespaces,
            ledger: &self.ledger,
        });
        let unclaimed = plan.other_sessions.iter().filter(|other| other.origin == SessionOrigin::Unclaimed);
        self.ledger.unclaimed_are(unclaimed.map(|other| other.id.as_str()), now);
        self.hands.begin(&mut plan, &mut self.ledger);
        let look_again = plan.look_again;
        self.counts = plan;
        self.report_server(&server, now);
        self.view.set_ready();
        self.wake_time(now, look_again)
    }

    /// Takes a result in, and all others that are there: one look serves them all.
    fn take(&mut self, done: Done) {
        let mut next = Some(done);
        while let Some(done) = next {
            self.take_one(done);
            next = futures::FutureExt::now_or_never(self.hands.next());
        }
    }

    fn take_one(&mut self, done: Done) {
        let now = self.settings.now();
        match done {
            Done::Created { id, permissions, result } => self.ledger.create_ended(&id, permissions, result, now),
            Done::Closed { id, result } => self.ledger.close_ended(&id, result, now),
            Done::Permitted { id, text, result } => self.ledger.permissions_ended(&id, text, result, now),
            Done::Announced { id, is_noted } => self.ledger.announcement_ended(&id, is_noted, now),
            Done::Written { uid, version, outcome: Outcome::Done(object) | Outcome::Changed(object) } => {
                self.session_answers.put(&uid, version, object);
            }
            Done::ServerWritten { version, outcome: Outcome::Done(object) } => {
                self.server_answers.put(SERVER, version, object);
            }
            Done::ServerWritten { version, outcome: Outcome::Changed(object) } => {
                self.server_answers.put(SERVER, version, object);
                self.server_written = None;
            }
            Done::ServerWritten { outcome: Outcome::Failed, .. } => self.server_written = None,
            Done::Written { outcome: Outcome::Failed, .. } => {}
        }
    }

    /// The objects bound to us, as new as we know them.
    fn bound_sessions(&mut self) -> Vec<Arc<DcvSession>> {
        let watched = self.sessions.state();
        let key = |session: &DcvSession| session.uid().unwrap_or_default();
        let answers = &mut self.session_answers;
        answers.retain(|uid| watched.iter().any(|session| key(session) == uid));
        let newest = watched.into_iter().filter_map(|session| answers.newer(&key(&session), Some(session)));
        newest.filter(|session| session.server_name() == Some(&self.me.server_name)).collect()
    }

    /// Our own object. One that somebody deleted is made anew.
    async fn own_server(&mut self) -> Option<Arc<DcvServer>> {
        let watched = self.servers.state().into_iter().next();
        if let Some(server) = self.server_answers.newer(SERVER, watched) {
            return Some(server);
        }
        let registered = server::register(&Api::all(self.client.clone()), &self.me.server_name).await;
        match registered {
            Ok(server) => {
                tracing::info!(server = self.me.server_name, "registered");
                let server = Arc::new(server);
                self.server_answers.put(SERVER, None, Some(server.clone()));
                self.server_written = None;
                Some(server)
            }
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "not registered");
                None
            }
        }
    }

    fn take_keys(&mut self) {
        if let Some(published) = self.keys.state().first()
            && published.resource_version() != self.keys_version
        {
            self.keys_version = published.resource_version();
            self.view.set_keys(published);
        }
    }

    /// What the host runs; and now and then what it is.
    async fn look_at_host(&mut self, sessions: &[Arc<DcvSession>]) -> Result<Vec<HostSession>, String> {
        let silent = |_| format!("the host did not answer within {} seconds", LOOK_TIMEOUT.as_secs());
        let listed = tokio::time::timeout(LOOK_TIMEOUT, self.backend.list()).await.map_err(silent)?;
        let host = listed.map_err(|error| error.to_string())?;
        // A session that has vanished may have gone with a restart of the host: ask after the list, so that an old list is
        // judged by a new boot id, never the other way round.
        let has_vanished = sessions.iter().any(|session| {
            conditions::is_true(session.conditions(), SessionCondition::Created)
                && !session.is_finished()
                && !host.iter().any(|instance| instance.id == session.id())
        });
        let is_due = self.described.is_none_or(|described| described.elapsed() >= self.settings.update_interval);
        if has_vanished || is_due || self.facts.unhealthy.is_some() {
            let described = tokio::time::timeout(LOOK_TIMEOUT, self.backend.describe()).await.map_err(silent)?;
            let description = described.map_err(|error| error.to_string())?;
            self.described = Some(Instant::now());
            self.take_description(description).await;
        }
        Ok(host)
    }

    async fn take_description(&mut self, description: backend::Description) {
        let facts = &mut self.facts;
        if let Some(host) = &description.host {
            facts.host = host.clone();
            facts.hostname.clone_from(&self.me.server_name);
        }
        if description.host.is_none() || description.boot_id.is_none() {
            let root = self.settings.host.root.clone();
            let machine = tokio::task::spawn_blocking(move || host::read(&root)).await.unwrap_or_default();
            if description.host.is_none() {
                facts.host = machine.host;
                facts.hostname = machine.hostname;
            }
            self.me.boot_id = machine.boot_id;
        }
        if let Some(boot_id) = &description.boot_id {
            self.me.boot_id.clone_from(boot_id);
        }
        facts.capacity = description.capacity.clone();
        if let Some(limit) = self.settings.max_virtual_sessions {
            facts.capacity.max_virtual_sessions = room::tighter(limit, facts.capacity.max_virtual_sessions);
        }
        if let Some(limit) = self.settings.max_concurrent_sessions_per_user {
            let own = facts.capacity.max_concurrent_sessions_per_user;
            facts.capacity.max_concurrent_sessions_per_user = room::tighter(limit, own);
        }
        facts.unhealthy.clone_from(&description.unhealthy);
        facts.description = description;
    }

    /// Asks what became of the objects that sessions on the host were made for. What cannot be found out is left out.
    async fn look_at_strangers(
        &mut self,
        host: &[HostSession],
        sessions: &[Arc<DcvSession>],
    ) -> BTreeMap<String, Stranger> {
        let markers = decide::unbound_markers(host, sessions);
        self.strangers.retain(|uid, _| markers.iter().any(|marker| marker.uid == *uid));
        self.has_unknown_strangers = false;
        for marker in markers {
            if self.strangers.get(&marker.uid).is_some_and(|(_, due)| *due > Instant::now()) {
                continue;
            }
            let objects: Api<DcvSession> = Api::namespaced(self.client.clone(), &marker.namespace);
            let Ok(Ok(object)) = tokio::time::timeout(LOOKUP_TIMEOUT, objects.get_opt(&marker.name)).await else {
                self.strangers.remove(&marker.uid);
                self.has_unknown_strangers = true;
                break; // the others would not be answered either
            };
            let stranger = decide::stranger(object.as_ref(), &marker.uid, &self.me.server_name);
            let patience = match stranger {
                Stranger::Gone | Stranger::Elsewhere => Duration::from_mins(1),
                Stranger::Waiting => Duration::from_secs(5),
                Stranger::Ours => RETRY,
            };
            self.strangers.insert(marker.uid.clone(), (stranger, Instant::now() + patience));
        }
        self.strangers.iter().map(|(uid, (stranger, _))| (uid.clone(), *stranger)).collect()
    }

    /// Labels of the namespaces that matter for a server that admits only some. What cannot be read is not admitted yet:
    /// the session waits for the next pass rather than be refused for a lost answer.
    async fn look_at_namespaces(
        &self,
        server: &DcvServer,
        sessions: &[Arc<DcvSession>],
    ) -> BTreeMap<String, BTreeMap<String, String>> {
        let mut labels = BTreeMap::new();
        if server.spec.allowed_namespaces.is_none() {
            return labels;
        }
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        for name in decide::waiting_namespaces(sessions) {
            if let Ok(Ok(namespace)) = tokio::time::timeout(LOOKUP_TIMEOUT, namespaces.get(&name)).await {
                labels.insert(name, namespace.metadata.labels.unwrap_or_default());
            }
        }
        labels
    }

    fn report_server(&mut self, server: &Arc<DcvServer>, now: Timestamp) {
        let told = server.status.as_ref();
        let keeps_boot = self.counts.is_unsettled || self.described.is_none();
        self.facts.boot_id = if keeps_boot {
            told.map(|status| status.boot_id.clone()).unwrap_or_default()
        } else {
            self.me.boot_id.clone()
        };
        self.facts.agent.clock_skew_seconds = self.lease.clock_skew_seconds();
        let status = server::status(server, &self.facts, &self.counts, now);
        let since = self.server_written.map(|written| written.elapsed());
        if server::is_due(&told.cloned().unwrap_or_default(), &status, since)
            && self.hands.write_server(server, &status)
        {
            self.server_written = Some(Instant::now());
        }
    }

    fn wake_time(&self, now: Timestamp, look_again: Option<Timestamp>) -> Instant {
        let mut wake = Instant::now() + self.settings.update_interval.min(server::QUIET_INTERVAL);
        let mut no_later_than = |time: Instant| wake = wake.min(time);
        if let Some(time) = look_again {
            // Whole seconds: one later is surely past it.
            let seconds = u64::try_from(time.as_second() - now.as_second()).unwrap_or(0);
            no_later_than(Instant::now() + Duration::from_secs(seconds));
        }
        if let Some(retry) = self.hands.next_retry() {
            no_later_than(retry.into());
        }
        if self.has_unknown_strangers {
            no_later_than(Instant::now() + RETRY);
        }
        if let Some(due) = self.strangers.values().map(|(_, due)| *due).min() {
            no_later_than(due);
        }
        wake.max(Instant::now() + Duration::from_millis(50))
    }
}
