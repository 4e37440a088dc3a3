//! Carries a plan for a server out: at most one write.

use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use kube::ResourceExt;
use kube::api::DeleteParams;
use kube::api::Patch;
use kube::api::PatchParams;
use kube::api::Preconditions;
use serde_json::json;

use super::decide::Plan;
use super::decide::Step;
use crate::api::DcvServer;
use crate::api::names;
use crate::cluster;
use crate::cluster::Error;
use crate::controller::Context;

pub(super) async fn act(context: &Context, server: &DcvServer, plan: &Plan) -> Result<(), Error> {
    let api: Api<DcvServer> = Api::all(context.client.clone());
    let name = server.name_any();
    let object = || format!("DcvServer {name}");
    let result = match &plan.step {
        Step::Nothing => Ok(()),
        Step::Labels(labels) => {
            let metadata = json!({"uid": server.uid(), "resourceVersion": server.resource_version(), "labels": labels});
            let params = PatchParams { field_manager: Some(names::CONTROLLER.to_owned()), ..PatchParams::default() };
            let patch = Patch::Merge(json!({ "metadata": metadata }));
            api.patch(&name, &params, &patch).await.map(drop).map_err(Error::api("label", object()))
        }
        Step::Status(status) => {
            let old = server.status.clone().unwrap_or_default();
            let Some(patch) = cluster::merge_patch(&old, status) else { return Ok(()) };
            cluster::patch_status(&api, server, names::CONTROLLER, &patch).await.map(drop)
        }
        Step::Purge => {
            tracing::info!(server = name, "Removing a server that has been unreachable for long");
            // The version as well as the uid: an agent that comes back at the last moment keeps its server.
            let exactly = Preconditions { uid: server.uid(), resource_version: server.resource_version() };
            let params = DeleteParams::default().preconditions(exactly);
            let purged = api.delete(&name, &params).await.map_err(Error::api("delete", object()));
            // Its Lease says nothing any more; an agent that comes back makes both anew.
            if purged.is_ok() {
                let leases: Api<Lease> = Api::namespaced(context.client.clone(), &context.settings.namespace);
                let _ = leases.delete(&name, &DeleteParams::default()).await;
            }
            purged.map(drop)
        }
    };
    match result {
        Err(error) if !error.is_not_found() => Err(error),
        _ => Ok(()),
    }
}
