//! Carries out a plan: each action a task of its own, so that no session waits for another.
//!
//! The loop takes the results and looks again; nothing is decided here. Invariant: no call is made once the Lease is too
//! old for the agent to write.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use kube::Api;
use kube::Client;
use kube::ResourceExt;
use kube::api::Patch;
use kube::api::PatchParams;
use serde_json::Value;
use serde_json::json;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::backend::Backend;
use super::backend::CreateError;
use super::backend::Order;
use super::decide::HostAction;
use super::decide::Plan;
use super::decide::Write;
use super::fault;
use super::fault::Point;
use super::ledger::Creating;
use super::ledger::Ledger;
use super::metrics;
use super::settings::Settings;
use crate::api::DcvServer;
use crate::api::DcvServerStatus;
use crate::api::DcvSession;
use crate::api::DcvSessionStatus;
use crate::api::conditions;
use crate::api::conditions::SessionCondition;
use crate::api::names;
use crate::api::session::SessionType;
use crate::cluster::Error;
use crate::cluster::lease::SERVER_LEASE_TTL;
use crate::cluster::lease::ServerLease;
use crate::cluster::merge_patch;
use crate::telemetry::traces::Step;

/// Longest time one close or change of permissions may take before it is tried anew.
const HOST_TIMEOUT: Duration = Duration::from_mins(1);
/// Wait between two closes after a create that took too long.
const CLEAR_RETRY: Duration = Duration::from_secs(1);
/// Longest wait before a refused write is tried again.
const MAX_WRITE_BACKOFF: Duration = Duration::from_secs(30);
/// Key of the server's own status among the writes.
const SERVER: &str = "server";

/// A task's result.
#[derive(Debug)]
pub enum Done {
    /// A create ended; `None`: it was cut short.
    Created {
        /// Id on the host.
        id: String,
        /// Permissions it was created with.
        permissions: Option<String>,
        /// What the host said.
        result: Option<Result<(), CreateError>>,
    },
    /// A close ended.
    Closed {
        /// Id on the host.
        id: String,
        /// What the host said.
        result: Result<(), String>,
    },
    /// The host was to note an announcement.
    Announced {
        /// Id on the host.
        id: String,
        /// Whether it has.
        is_noted: bool,
    },
    /// A change of permissions ended.
    Permitted {
        /// Id on the host.
        id: String,
        /// The text.
        text: Option<String>,
        /// What the host said.
        result: Result<(), String>,
    },
    /// A write to a session ended.
    Written {
        /// Uid of the session.
        uid: String,
        /// The version it was made from.
        version: Option<String>,
        /// What is known now.
        outcome: Outcome<DcvSession>,
    },
    /// A write to our server ended.
    ServerWritten {
        /// The version it was made from.
        version: Option<String>,
        /// What is known now.
        outcome: Outcome<DcvServer>,
    },
}

/// What a write taught us.
#[derive(Debug)]
pub enum Outcome<K> {
    /// It was done; the object now, `None`: it is gone.
    Done(Option<Arc<K>>),
    /// It was not, as the object is not what we thought; the object now.
    Changed(Option<Arc<K>>),
    /// It was refused, and the object is as we thought, or nothing is known.
    Failed,
}

/// The tasks under way.
pub struct Hands<B> {
    backend: Arc<B>,
    client: Client,
    lease: ServerLease,
    settings: Arc<Settings>,
    tasks: JoinSet<Done>,
    creates: BTreeMap<String, CancellationToken>,
    writing: BTreeSet<String>,
    /// Writes that failed: how often, and when to try again.
    failures: BTreeMap<String, (u32, Instant)>,
}

impl<B: Backend> Hands<B> {
    /// Nothing under way.
    pub fn new(backend: Arc<B>, client: Client, lease: ServerLease, settings: Arc<Settings>) -> Self {
        Self {
            backend,
            client,
            lease,
            settings,
            tasks: JoinSet::new(),
            creates: BTreeMap::new(),
            writing: BTreeSet::new(),
            failures: BTreeMap::new(),
        }
    }

    /// Begins everything in the plan that is not under way.
    pub fn begin(&mut self, plan: &mut Plan, ledger: &mut Ledger) {
        let now = Instant::now();
        self.failures.retain(|_, (_, due)| *due + MAX_WRITE_BACKOFF > now); // nobody tries those again
        for action in plan.host.drain(..) {
            match action {
                HostAction::Create(order) => self.create(*order, ledger),
                HostAction::Announce(id) => self.announce(id, ledger),
                HostAction::Close(id) => self.close(id, ledger),
                HostAction::SetPermissions { id, text } => self.set_permissions(id, text, ledger),
            }
        }
        for write in plan.writes.drain(..) {
            let uid = write.session.uid().unwrap_or_default();
            if self.may_write(&uid) {
                let (api, lease) = (self.sessions(&write.session), self.lease.clone());
                let version = write.session.resource_version();
                self.tasks.spawn(async move {
                    let outcome = write_session(&api, &lease, &write).await;
                    Done::Written { uid, version, outcome }
                });
            }
        }
        for session in plan.releases.drain(..) {
            let uid = session.uid().unwrap_or_default();
            if self.may_write(&uid) {
                let (api, lease) = (self.sessions(&session), self.lease.clone());
                let version = session.resource_version();
                self.tasks.spawn(async move {
                    let outcome = release(&api, &lease, &session).await;
                    Done::Written { uid, version, outcome }
                });
            }
        }
    }

    /// Writes the status of our own server. Returns whether the write was begun.
    pub fn write_server(&mut self, server: &Arc<DcvServer>, status: &DcvServerStatus) -> bool {
        let Some(patch) = merge_patch(&server.status, &Some(status)) else { return false };
        if !self.may_write(SERVER) {
            return false;
        }
        let (api, lease, server) = (Api::all(self.client.clone()), self.lease.clone(), server.clone());
        self.tasks.spawn(async move {
            let patch = json!({"metadata": {"resourceVersion": server.resource_version()}, "status": patch});
            let outcome = patch_status(&api, &lease, &server, &patch).await;
            Done::ServerWritten { version: server.resource_version(), outcome }
        });
        true
    }

    /// The next result. Never returns while nothing is under way.
    pub async fn next(&mut self) -> Done {
        loop {
            match self.tasks.join_next().await {
                Some(Ok(done)) => return self.noted(done),
                // A bug in a backend: better to start anew from what host and API server hold than to go on.
                Some(Err(error)) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                Some(Err(_)) => {}
                None => std::future::pending::<()>().await,
            }
        }
    }

    /// When the next failed write is due again.
    pub fn next_retry(&self) -> Option<Instant> {
        let now = Instant::now();
        self.failures.values().map(|(_, due)| *due).filter(|due| *due > now).min()
    }

    fn noted(&mut self, done: Done) -> Done {
        let (key, failed) = match &done {
            Done::Created { id, .. } => {
                self.creates.remove(id);
                return done;
            }
            Done::Closed { .. } | Done::Announced { .. } | Done::Permitted { .. } => return done,
            Done::Written { uid, outcome, .. } => (uid.as_str(), matches!(outcome, Outcome::Failed)),
            Done::ServerWritten { outcome, .. } => (SERVER, matches!(outcome, Outcome::Failed)),
        };
        self.writing.remove(key);
        if failed {
            let (count, _) = self.failures.get(key).copied().unwrap_or((0, Instant::now()));
            let wait = (Duration::from_millis(500) * (1 << count.min(6))).min(MAX_WRITE_BACKOFF);
            self.failures.insert(key.to_owned(), (count + 1, Instant::now() + wait));
        } else {
            self.failures.remove(key);
        }
        done
    }

    /// Whether no write of this key is under way or to be waited for; if so, one is now.
    fn may_write(&mut self, key: &str) -> bool {
        let must_wait = self.failures.get(key).is_some_and(|(_, due)| *due > Instant::now());
        !must_wait && self.writing.insert(key.to_owned())
    }

    fn sessions(&self, session: &DcvSession) -> Api<DcvSession> {
        Api::namespaced(self.client.clone(), &session.namespace().unwrap_or_default())
    }

    fn create(&mut self, order: Order, ledger: &mut Ledger) {
        tracing::info!(session = order.id, owner = order.owner, attempt = order.marker.attempt, "creating");
        let creating = Creating {
            uid: order.marker.uid.clone(),
            attempt: order.marker.attempt,
            owner: order.owner.clone(),
            is_virtual: order.type_ == SessionType::Virtual,
            cancelled: false,
        };
        ledger.creating.insert(order.id.clone(), creating);
        let cancel = CancellationToken::new();
        self.creates.insert(order.id.clone(), cancel.clone());
        let (backend, limit) = (self.backend.clone(), self.settings.create_timeout);
        self.tasks.spawn(async move {
            let step = Step::of(order.traceparent.as_deref(), "create").note("dcv.session", &order.marker.name);
            let mut step = step.count("dcv.attempt", order.marker.attempt.into());
            let result = tokio::select! {
                biased;
                () = cancel.cancelled() => None,
                result = metrics::measured("create", create_within(backend.as_ref(), &order, limit)) => Some(result),
            };
            if let Some(Err(error)) = &result {
                tracing::warn!(session = order.id, %error, "not created");
            }
            if !matches!(result, Some(Ok(()))) {
                step.fail("not created");
            }
            drop(step);
            Done::Created { id: order.id, permissions: order.permissions, result }
        });
    }

    fn announce(&mut self, id: String, ledger: &mut Ledger) {
        ledger.announcing.insert(id.clone(), None);
        let backend = self.backend.clone();
        self.tasks.spawn(async move {
            let result = metrics::measured("announce", within(HOST_TIMEOUT, backend.announce(&id))).await;
            if let Err(error) = &result {
                tracing::warn!(session = id, error, "the host has not noted that people know of the session");
            }
            Done::Announced { id, is_noted: result.is_ok() }
        });
    }

    /// What is being created stops first: its end is told, and the next pass closes what it left.
    fn close(&mut self, id: String, ledger: &mut Ledger) {
        if let (Some(cancel), Some(creating)) = (self.creates.get(&id), ledger.creating.get_mut(&id)) {
            creating.cancelled = true;
            return cancel.cancel();
        }
        tracing::info!(session = id, "closing");
        ledger.close_began(&id, self.settings.now());
        let backend = self.backend.clone();
        self.tasks.spawn(async move {
            let result = metrics::measured("close", within(HOST_TIMEOUT, backend.close(&id))).await;
            if let Err(error) = &result {
                tracing::warn!(session = id, error, "not closed");
            }
            Done::Closed { id, result }
        });
    }

    fn set_permissions(&mut self, id: String, text: Option<String>, ledger: &mut Ledger) {
        ledger.permitting.insert(id.clone());
        let backend = self.backend.clone();
        self.tasks.spawn(async move {
            let change = within(HOST_TIMEOUT, backend.set_permissions(&id, text.as_deref()));
            let result = metrics::measured("set_permissions", change).await;
            Done::Permitted { id, text, result }
        });
    }
}

/// Creates a session, or leaves nothing of it. A host that cannot be cleared keeps this waiting: as long as something may
/// run there, nobody may be told that it failed.
async fn create_within<B: Backend>(backend: &B, order: &Order, limit: Duration) -> Result<(), CreateError> {
    if let Ok(result) = tokio::time::timeout(limit, backend.create(order)).await {
        return result;
    }
    while let Err(error) = within(HOST_TIMEOUT, backend.close(&order.id)).await {
        tracing::warn!(session = order.id, error, "not cleared after a create that took too long");
        tokio::time::sleep(CLEAR_RETRY).await;
    }
    Err(CreateError::Failed(format!("the session did not accept clients within {} seconds", limit.as_secs())))
}

async fn within<E: Display>(limit: Duration, call: impl Future<Output = Result<(), E>>) -> Result<(), String> {
    match tokio::time::timeout(limit, call).await {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(_) => Err(format!("the host did not answer within {} seconds", limit.as_secs())),
    }
}

async fn write_session(api: &Api<DcvSession>, lease: &ServerLease, write: &Write) -> Outcome<DcvSession> {
    let session = &write.session;
    let Some(patch) = status_patch(session, &write.status) else {
        return Outcome::Done(Some(session.clone()));
    };
    let traceparent = session.traceparent().filter(|_| tells_ready(session, &write.status));
    let mut step = Step::of(traceparent, "tell READY").note("dcv.session", &session.name_any());
    fault::reach(Point::StatusDue);
    let outcome = patch_status(api, lease, session, &patch).await;
    fault::reach(Point::StatusWritten);
    if !matches!(outcome, Outcome::Done(_)) {
        step.fail("not told");
    }
    outcome
}

/// Whether with `status` the session accepts clients, and did not before.
fn tells_ready(session: &DcvSession, status: &DcvSessionStatus) -> bool {
    let is_ready = |conditions| conditions::is_true(conditions, SessionCondition::Ready);
    is_ready(&status.conditions) && !is_ready(session.conditions())
}

async fn patch_status<K>(api: &Api<K>, lease: &ServerLease, object: &Arc<K>, patch: &Value) -> Outcome<K>
where
    K: kube::Resource<DynamicType = ()> + Clone + serde::de::DeserializeOwned + std::fmt::Debug,
{
    let (name, parameters, patch) = (object.name_any(), parameters(), Patch::Merge(patch));
    settle(api, lease, object, "report the status of", api.patch_status(&name, &parameters, &patch)).await
}

async fn release(api: &Api<DcvSession>, lease: &ServerLease, session: &Arc<DcvSession>) -> Outcome<DcvSession> {
    let Some(patch) = release_patch(session) else {
        return Outcome::Done(Some(session.clone()));
    };
    let patch: Patch<Value> = Patch::Json(serde_json::from_value(patch).expect("it is written as a JSON patch"));
    let name = session.name_any();
    let parameters = parameters();
    fault::reach(Point::ReleaseDue);
    let outcome = settle(api, lease, session, "remove our finalizer from", api.patch(&name, &parameters, &patch)).await;
    match outcome {
        // With its last finalizer the object goes; what is answered is how it was, under the version it had.
        Outcome::Done(Some(session)) if session.finalizers().is_empty() => Outcome::Done(None),
        outcome => outcome,
    }
}

/// The merge patch that makes the stored status `status`. It always names server and attempt, which the admission policy
/// compares with the stored ones; all but mere counters also hold only for the version they were computed from.
fn status_patch(session: &DcvSession, status: &DcvSessionStatus) -> Option<Value> {
    let mut patch = merge_patch(&session.status, &Some(status))?;
    let is_counters = patch
        .as_object()
        .is_some_and(|fields| fields.keys().all(|key| key == "numOfConnections" || key == "lastDisconnectionTime"));
    patch["serverName"] = json!(status.server_name);
    patch["attempt"] = json!(status.attempt);
    let metadata = if is_counters {
        json!({"uid": session.uid()})
    } else {
        json!({"resourceVersion": session.resource_version()})
    };
    Some(json!({"metadata": metadata, "status": patch}))
}

/// The JSON patch that takes exactly our finalizer off, and only while everything else is as we saw it.
fn release_patch(session: &DcvSession) -> Option<Value> {
    let finalizers = session.finalizers();
    let index = finalizers.iter().position(|finalizer| finalizer == names::SESSION_FINALIZER)?;
    Some(json!([
        {"op": "test", "path": "/metadata/uid", "value": session.uid()},
        {"op": "test", "path": "/metadata/finalizers", "value": finalizers},
        {"op": "remove", "path": format!("/metadata/finalizers/{index}")},
    ]))
}

/// Makes a call while the Lease lets us, and finds out what it means.
async fn settle<K>(
    api: &Api<K>,
    lease: &ServerLease,
    object: &Arc<K>,
    action: &'static str,
    call: impl Future<Output = kube::Result<K>>,
) -> Outcome<K>
where
    K: kube::Resource<DynamicType = ()> + Clone + serde::de::DeserializeOwned + std::fmt::Debug,
{
    let name = object.name_any();
    let deadline = lease.last_renewed().map(|renewed| renewed + SERVER_LEASE_TTL * 2 / 3);
    let Some(deadline) = deadline.filter(|deadline| *deadline > Instant::now()) else { return Outcome::Failed };
    let error = match tokio::time::timeout_at(deadline.into(), call).await {
        Ok(Ok(mut changed)) => {
            changed.meta_mut().managed_fields = None;
            return Outcome::Done(Some(Arc::new(changed)));
        }
        Ok(Err(error)) => Error::api(action, format!("{} {name}", K::kind(&())))(error),
        Err(_) => {
            tracing::warn!(name, action, "no answer while we may write");
            return Outcome::Failed;
        }
    };
    if error.is_not_found() {
        return Outcome::Done(None);
    }
    if !error.is_conflict() && !error.is_refusal() {
        tracing::warn!(error = &error as &dyn std::error::Error, "no answer to a write");
        return Outcome::Failed;
    }
    // Somebody was faster, or it is no longer ours: look again.
    match api.get_opt(&name).await {
        Ok(now) => {
            let now = now.filter(|now| now.uid() == object.uid());
            if now.as_ref().is_some_and(|now| now.resource_version() == object.resource_version()) {
                tracing::warn!(error = &error as &dyn std::error::Error, "a write was refused");
                return Outcome::Failed;
            }
            tracing::debug!(error = &error as &dyn std::error::Error, "a write came too late");
            Outcome::Changed(now.map(Arc::new))
        }
        Err(_) => Outcome::Failed,
    }
}

fn parameters() -> PatchParams {
    PatchParams { field_manager: Some(names::AGENT.to_owned()), ..PatchParams::default() }
}

#[cfg(test)]
mod tests;
