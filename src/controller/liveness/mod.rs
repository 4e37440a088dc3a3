//! Which servers' agents are silent.
//!
//! A server is silent when its Lease has not changed for a while on a clock that runs only while our own renewals
//! succeed, and a read from the API server confirms it. When many fall silent at once, that is rather an outage of ours,
//! and nothing is concluded for a bounded time. This part feeds the judge and tells everybody; it concludes nothing.

mod judge;

use std::collections::HashMap;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use arc_swap::ArcSwap;
use futures::Stream;
use futures::future;
use futures::stream;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::Api;
use kube::ResourceExt;
use tokio::sync::broadcast;
use tokio::sync::watch;

use super::Context;
use super::events;
use crate::api::conditions::Reason;
use crate::api::names::LEADER_LEASE;

pub use judge::Lapse;
pub use judge::Limits;

use judge::Judge;

/// How often Leases are looked at.
const TICK: Duration = Duration::from_secs(1);
/// Reads that confirm silence, each tick at most.
const READS: usize = 20;
/// How long such a read may take.
const READ_TIMEOUT: Duration = Duration::from_secs(3);
/// Changes a slow reader may be behind before it is told of every silent server.
const CHANGES_KEPT: usize = 256;

/// What is known of silent servers, for everybody.
pub struct Liveness {
    lapses: ArcSwap<HashMap<String, Lapse>>,
    changed: broadcast::Sender<Vec<String>>,
}

impl Default for Liveness {
    fn default() -> Self {
        Self { lapses: ArcSwap::default(), changed: broadcast::channel(CHANGES_KEPT).0 }
    }
}

impl Liveness {
    /// What is known of this server's silence.
    pub fn lapse(&self, server: &str) -> Option<Lapse> {
        self.lapses.load().get(server).copied()
    }

    /// Names of all silent servers.
    pub fn silent(&self) -> Vec<String> {
        self.lapses.load().keys().cloned().collect()
    }

    /// Names of servers of which something else is known than before.
    pub fn changes(self: &Arc<Self>) -> impl Stream<Item = Vec<String>> + Send + 'static {
        let this = Arc::clone(self);
        stream::unfold((this, self.changed.subscribe()), |(this, mut changed)| async move {
            let names = match changed.recv().await {
                Ok(names) => names,
                Err(broadcast::error::RecvError::Lagged(_)) => this.silent(),
                Err(broadcast::error::RecvError::Closed) => return None,
            };
            Some((names, (this, changed)))
        })
    }

    /// Publishes what is known now.
    pub(super) fn publish(&self, lapses: HashMap<String, Lapse>) {
        let before = self.lapses.load_full();
        let differs = |name: &&String| before.get(*name) != lapses.get(*name);
        let names: HashSet<&String> = before.keys().chain(lapses.keys()).filter(differs).collect();
        let names = names.into_iter().cloned().collect();
        self.lapses.store(Arc::new(lapses));
        self.tell(names);
    }

    /// Tells everybody that something else is known of these servers.
    fn tell(&self, names: Vec<String>) {
        if !names.is_empty() {
            // Nobody listens at the beginning of a term.
            let _ = self.changed.send(names);
        }
    }
}

/// Runs for as long as we lead. `leading` is the time of our last renewal.
pub(super) async fn run(context: Arc<Context>, leading: watch::Receiver<Option<Instant>>) {
    let api: Api<Lease> = Api::namespaced(context.client.clone(), &context.settings.namespace);
    let mut judge = Judge::new(context.settings.liveness);
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut holding = false;
    let mut known = HashSet::new();
    loop {
        ticks.tick().await;
        let names = servers(&context);
        if context.settings.scope.is_limited() {
            // A server is ours from when its Lease is seen, of which nobody else hears.
            context.liveness.tell(names.difference(&known).cloned().collect());
            known.clone_from(&names);
        }
        let versions: HashMap<String, String> =
            context.caches.leases.all().iter().filter_map(|lease| version(lease)).collect();
        let leases = names.iter().map(|name| (name.as_str(), versions.get(name).map(String::as_str)));
        let renewed = *leading.borrow();
        let mut unconfirmed = judge.tick(Instant::now(), (context.clock)(), renewed, leases);
        unconfirmed.truncate(READS);
        let reads = unconfirmed.into_iter().map(|name| read(&api, name));
        for (name, version) in future::join_all(reads).await.into_iter().flatten() {
            judge.confirm(&name, version.as_deref(), (context.clock)());
        }
        context.liveness.publish(judge.lapses());
        if judge.is_holding() != holding {
            holding = judge.is_holding();
            context.metrics.holding(holding);
            tell(&context, holding).await;
        }
    }
}

/// Every server of ours that has an object, or a session that was bound to it.
fn servers(context: &Context) -> HashSet<String> {
    let mut objects = context.caches.servers.all();
    objects.retain(|server| context.knows(&server.name_any()));
    let bound = context.caches.sessions.store().state_filter(|session| session.server_name().is_some());
    let bound = bound.iter().filter_map(|session| session.server_name()).map(str::to_owned);
    objects.iter().map(|server| server.name_any()).chain(bound).collect()
}

fn version(lease: &Lease) -> Option<(String, String)> {
    Some((lease.name_any(), lease.resource_version()?))
}

/// Reads a Lease from the API server itself. `None` when there was no answer, so that nothing is concluded.
async fn read(api: &Api<Lease>, name: String) -> Option<(String, Option<String>)> {
    let answer = tokio::time::timeout(READ_TIMEOUT, api.get_opt(&name)).await;
    match answer {
        Ok(Ok(lease)) => Some((name, lease.and_then(|lease| lease.resource_version()))),
        Ok(Err(error)) => {
            tracing::warn!(server = name, error = &error as &dyn std::error::Error, "Lease not read");
            None
        }
        Err(_) => None,
    }
}

async fn tell(context: &Context, holding: bool) {
    if !holding {
        tracing::warn!("Concluding again which servers are unreachable");
        return;
    }
    tracing::error!("Many servers fell silent at once: concluding nothing for a while");
    let lease = ObjectReference {
        api_version: Some("coordination.k8s.io/v1".to_owned()),
        kind: Some("Lease".to_owned()),
        name: Some(LEADER_LEASE.to_owned()),
        namespace: Some(context.settings.namespace.clone()),
        ..ObjectReference::default()
    };
    let note = "many servers fell silent at once; none of their sessions is called UNKNOWN for a while";
    events::tell(context, &lease, "JudgeServers", Reason::ServerUnreachable, note).await;
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;
    use jiff::Timestamp;

    use super::*;

    #[tokio::test]
    async fn only_servers_of_which_something_changed_are_told() {
        let liveness = Arc::new(Liveness::default());
        let mut changes = Box::pin(liveness.changes());
        let lapse = |judged| Lapse { since: Timestamp::UNIX_EPOCH, held: false, judged };
        let map = |list: &[(&str, bool)]| list.iter().map(|(name, it)| ((*name).to_owned(), lapse(*it))).collect();
        liveness.publish(map(&[("a", false), ("b", false)]));
        liveness.publish(map(&[("a", true), ("b", false)]));
        liveness.publish(map(&[("a", true), ("b", false)]));
        liveness.publish(map(&[("a", true)]));
        let mut told = Vec::new();
        for _ in 0..3 {
            let mut names = changes.next().await.unwrap();
            names.sort();
            told.push(names);
        }
        assert_eq!(told, [vec!["a", "b"], vec!["a"], vec!["b"]]);
        assert_eq!(liveness.lapse("a"), Some(lapse(true)));
        assert_eq!(liveness.lapse("b"), None);
    }
}
