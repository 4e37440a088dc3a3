//! Writes a client's status when it differs.

use kube::Api;
use kube::ResourceExt;

use super::decide::Plan;
use crate::api::ApiClient;
use crate::api::names;
use crate::cluster;
use crate::cluster::Error;
use crate::controller::Context;

pub(super) async fn act(context: &Context, client: &ApiClient, plan: &Plan) -> Result<(), Error> {
    let old = client.status.clone().unwrap_or_default();
    let Some(patch) = cluster::merge_patch(&old, &plan.status) else { return Ok(()) };
    let api = Api::namespaced(context.client.clone(), &client.namespace().unwrap_or_default());
    match cluster::patch_status(&api, client, names::CONTROLLER, &patch).await {
        Err(error) if !error.is_not_found() => Err(error),
        _ => Ok(()),
    }
}
