//! Servers: says that one is unreachable, copies its Node's labels, removes what has been gone for long.
//!
//! Everything else of a server is its agent's. Invariant: `decide` never performs I/O.

mod act;
mod decide;
mod observe;

use std::sync::Arc;

use futures::StreamExt;
use futures::stream;
use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt;
use kube::runtime::Controller;
use kube::runtime::controller::Action;
use kube::runtime::controller::Config;
use kube::runtime::reflector::ObjectRef;
use tracing::instrument;

use super::Context;
use crate::api::DcvServer;
use crate::cluster::Cache;
use crate::cluster::Change;
use crate::cluster::Error;

pub use decide::LabelRule;

/// Passes at the same time.
pub(super) const CONCURRENCY: u16 = 8;

/// One pass over one server: look, decide, write. Safe to repeat and to stop anywhere.
#[instrument(skip_all, fields(server = %server.name_any()))]
async fn reconcile(server: Arc<DcvServer>, context: Arc<Context>) -> Result<Action, Error> {
    if !context.knows(&server.name_any()) {
        return Ok(Action::await_change());
    }
    context.metrics.pass("server", (None, &server.name_any()), pass(&server, &context)).await
}

async fn pass(server: &DcvServer, context: &Context) -> Result<Action, Error> {
    let world = observe::observe(context, server);
    let plan = decide::decide(server, &world);
    act::act(context, server, &plan).await?;
    Ok(plan.requeue_after.map_or_else(Action::await_change, Action::requeue))
}

/// Runs for as long as we lead.
pub(super) async fn run(context: Arc<Context>) {
    let (caches, metrics) = (&context.caches, context.metrics.clone());
    Controller::for_stream(stream::pending(), caches.servers.store().clone())
        .reconcile_on(metrics.queued("server", caches.servers.references()))
        // The Node of the same name: its labels.
        .reconcile_on(metrics.queued("server", nodes(&caches.nodes)))
        // A server that falls silent or comes back.
        .reconcile_on(metrics.queued(
            "server",
            context.liveness.changes().flat_map(|names| stream::iter(names.into_iter().map(|it| ObjectRef::new(&it)))),
        ))
        .with_config(Config::default().concurrency(CONCURRENCY))
        .run(reconcile, retry, Arc::clone(&context))
        .for_each(|result| metrics.passed("server", result))
        .await;
}

#[expect(clippy::needless_pass_by_value, reason = "the signature is the runtime's")]
fn retry(server: Arc<DcvServer>, error: &Error, context: Arc<Context>) -> Action {
    context.failed("server", &server.name_any(), error)
}

fn nodes(nodes: &Cache<Node>) -> impl futures::Stream<Item = ObjectRef<DcvServer>> + Send + 'static {
    nodes.subscribe().filter_map(async |change| match change {
        Change::Applied(node) | Change::Deleted(node) => Some(ObjectRef::new(&node.name_any())),
        // Every server is looked at when Nodes are listed anew only if its own watch is too; labels can wait until then.
        Change::Listed => None,
    })
}
