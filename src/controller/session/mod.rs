//! Sessions that are bound, closing or finished.
//!
//! Waiting ones are the placer's business, running ones their agent's. Invariant: `decide` never performs I/O.

mod act;
pub mod decide;
pub mod draft;
mod observe;

use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use futures::StreamExt;
use futures::stream;
use kube::ResourceExt;
use kube::runtime::Controller;
use kube::runtime::controller::Action;
use kube::runtime::controller::Config;
use kube::runtime::reflector::ObjectRef;
use tracing::instrument;

use super::Context;
use crate::api::DcvSession;
use crate::cluster::Cache;
use crate::cluster::Change;
use crate::cluster::Error;

/// Passes at the same time. Each is a decision and at most one write.
pub(super) const CONCURRENCY: u16 = 16;

/// One pass over one session: look, decide, write. Safe to repeat and to stop anywhere.
#[instrument(skip_all, fields(session = %decide::describe(&session)))]
async fn reconcile(session: Arc<DcvSession>, context: Arc<Context>) -> Result<Action, Error> {
    let object = (session.metadata.namespace.as_deref(), session.metadata.name.as_deref().unwrap_or_default());
    context.metrics.pass("session", object, pass(&session, &context)).await
}

async fn pass(session: &DcvSession, context: &Context) -> Result<Action, Error> {
    let world = observe::observe(context, session);
    let plan = decide::decide(session, &world);
    let wait = act::act(context, session, &plan).await?;
    Ok(wait.map_or_else(Action::await_change, Action::requeue))
}

/// Runs for as long as we lead.
pub(super) async fn run(context: Arc<Context>) {
    let (caches, metrics) = (&context.caches, context.metrics.clone());
    let sessions = caches.sessions.clone();
    Controller::for_stream(stream::pending(), sessions.store().clone())
        .reconcile_on(metrics.queued("session", sessions.references()))
        // A server that falls silent or comes back, and one that is deleted.
        .reconcile_on(metrics.queued("session", on_servers(sessions.clone(), context.liveness.changes())))
        .reconcile_on(metrics.queued("session", on_servers(sessions.clone(), deleted_servers(&context))))
        // A Node that is deleted or tainted as out of service.
        .reconcile_on(metrics.queued("session", on_servers(sessions.clone(), dead_nodes(&context))))
        .with_config(Config::default().concurrency(CONCURRENCY))
        .run(reconcile, retry, Arc::clone(&context))
        .for_each(|result| metrics.passed("session", result))
        .await;
}

#[expect(clippy::needless_pass_by_value, reason = "the signature is the runtime's")]
fn retry(session: Arc<DcvSession>, error: &Error, context: Arc<Context>) -> Action {
    context.failed("session", &decide::describe(&session), error)
}

/// The sessions bound to the servers of these names.
fn on_servers(
    sessions: Cache<DcvSession>,
    names: impl Stream<Item = Vec<String>> + Send + 'static,
) -> impl Stream<Item = ObjectRef<DcvSession>> + Send + 'static {
    names.filter(|names| std::future::ready(!names.is_empty())).flat_map(move |names| {
        let bound = |session: &DcvSession| session.server_name().is_some_and(|name| names.iter().any(|it| it == name));
        let found = sessions.store().state_filter(bound);
        stream::iter(found.into_iter().map(|session| ObjectRef::from_obj(session.as_ref())))
    })
}

fn deleted_servers(context: &Context) -> impl Stream<Item = Vec<String>> + Send + 'static {
    let liveness = Arc::clone(&context.liveness);
    context.caches.servers.subscribe().map(move |change| match change {
        Change::Deleted(server) => vec![server.name_any()],
        Change::Applied(_) => Vec::new(),
        // A deletion may have been missed, and proves something of silent servers only.
        Change::Listed => liveness.silent(),
    })
}

fn dead_nodes(context: &Context) -> impl Stream<Item = Vec<String>> + Send + 'static {
    let (liveness, nodes) = (Arc::clone(&context.liveness), context.caches.nodes.clone());
    context.caches.nodes.subscribe().map(move |change| match change {
        Change::Deleted(node) => vec![node.name_any()],
        Change::Applied(node) if observe::is_out_of_service(&node) => vec![node.name_any()],
        Change::Applied(_) => Vec::new(),
        Change::Listed => {
            let tainted = nodes.store().state_filter(observe::is_out_of_service);
            liveness.silent().into_iter().chain(tainted.iter().map(|node| node.name_any())).collect()
        }
    })
}

/// When a session that was turned away by a rate limit tries again: spread, so that they do not come all at once.
fn turn(session: &DcvSession) -> Duration {
    let spread =
        session.uid().unwrap_or_default().bytes().fold(0_u64, |sum, byte| sum.wrapping_mul(31) + u64::from(byte));
    Duration::from_millis(1000 + spread % 4000)
}

#[cfg(test)]
mod tests;
