//! Clients of the REST API: says whether each is accepted.
//!
//! Whether a client may log in is checked by brokers on each request; this only reports. Invariant: `decide` never
//! performs I/O.

mod act;
mod decide;
mod observe;

use std::sync::Arc;

use futures::StreamExt;
use futures::stream;
use kube::ResourceExt;
use kube::runtime::Controller;
use kube::runtime::controller::Action;
use kube::runtime::controller::Config;
use kube::runtime::reflector::ObjectRef;
use tracing::instrument;

use super::Context;
use crate::api::ApiClient;
use crate::cluster::Cache;
use crate::cluster::Change;
use crate::cluster::Error;

/// Passes at the same time.
pub(super) const CONCURRENCY: u16 = 4;

/// One pass over one client: look, decide, write. Safe to repeat and to stop anywhere.
#[instrument(skip_all, fields(client = %describe(&client)))]
async fn reconcile(client: Arc<ApiClient>, context: Arc<Context>) -> Result<Action, Error> {
    let object = (client.metadata.namespace.as_deref(), client.metadata.name.as_deref().unwrap_or_default());
    context.metrics.pass("client", object, pass(&client, &context)).await
}

async fn pass(client: &ApiClient, context: &Context) -> Result<Action, Error> {
    let world = observe::observe(context, client);
    let plan = decide::decide(client, &world);
    act::act(context, client, &plan).await?;
    Ok(plan.requeue_after.map_or_else(Action::await_change, Action::requeue))
}

/// Runs for as long as we lead.
pub(super) async fn run(context: Arc<Context>) {
    let (clients, metrics) = (&context.caches.clients, context.metrics.clone());
    Controller::for_stream(stream::pending(), clients.store().clone())
        .reconcile_on(metrics.queued("client", clients.references()))
        // A client that comes or goes decides who else may have its id.
        .reconcile_on(metrics.queued("client", namesakes(clients)))
        .with_config(Config::default().concurrency(CONCURRENCY))
        .run(reconcile, retry, Arc::clone(&context))
        .for_each(|result| metrics.passed("client", result))
        .await;
}

#[expect(clippy::needless_pass_by_value, reason = "the signature is the runtime's")]
fn retry(client: Arc<ApiClient>, error: &Error, context: Arc<Context>) -> Action {
    context.failed("client", &describe(&client), error)
}

fn namesakes(clients: &Cache<ApiClient>) -> impl futures::Stream<Item = ObjectRef<ApiClient>> + Send + 'static {
    let store = clients.store().clone();
    clients.subscribe().flat_map(move |change| {
        let found = match change {
            Change::Applied(client) | Change::Deleted(client) => {
                let id = client.client_id();
                store.state_filter(|other| other.uid() != client.uid() && other.client_id() == id)
            }
            Change::Listed => Vec::new(),
        };
        stream::iter(found.into_iter().map(|client| ObjectRef::from_obj(client.as_ref())))
    })
}

fn describe(client: &ApiClient) -> String {
    format!("{}/{}", client.namespace().unwrap_or_default(), client.name_any())
}
