//! What the tests of the matrix share: one of them at a time, scratch objects, and what a running controller makes.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::panic::resume_unwind;

use dcv_operator::isolation::Installation;
use dcv_operator::isolation::Matrix;
use dcv_operator::isolation::Scratch;
use futures::FutureExt;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::Client;
use kube::api::Patch;
use kube::api::PatchParams;
use serde_json::json;
use tokio::sync::Mutex;
use tokio::sync::MutexGuard;

use crate::cluster::SYSTEM;
use crate::cluster::admin;
use crate::cluster::bearer;
use crate::cluster::request_token;
use crate::cluster::unique;

/// Questions at once.
const PARALLEL: usize = 16;

/// A client with every right, while no other test of this program runs.
pub async fn alone() -> (Client, MutexGuard<'static, ()>) {
    static ALONE: Mutex<()> = Mutex::const_new(());
    let guard = ALONE.lock().await;
    let client = admin().await;
    make_what_a_controller_makes(&client).await;
    (client, guard)
}

/// The leader's Lease and the public keys, so that no case is left out.
async fn make_what_a_controller_makes(admin: &Client) {
    let controller = bearer(&request_token(admin, SYSTEM, "dcv-controller", None, None).await.unwrap()).await;
    let force = PatchParams::apply("test").force();
    let name = "dcv-operator-controller";
    let lease = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": name}});
    let leases = Api::<Lease>::namespaced(controller.clone(), SYSTEM);
    leases.patch(name, &force, &Patch::Apply(lease)).await.unwrap();
    let name = "dcv-public-keys";
    let keys = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"test": "a"}});
    let maps = Api::<ConfigMap>::namespaced(controller, SYSTEM);
    maps.patch(name, &force, &Patch::Apply(keys)).await.unwrap();
}

/// Runs `body` with scratch objects, which go with it.
pub async fn with_matrix<F: Future<Output = ()>>(client: Client, body: impl FnOnce(Matrix) -> F) {
    let scratch = Scratch::new(client, Installation::default(), unique("t"));
    scratch.make().await.unwrap();
    let outcome = AssertUnwindSafe(body(Matrix::new(&scratch, PARALLEL))).catch_unwind().await;
    scratch.remove().await.unwrap();
    if let Err(panic) = outcome {
        resume_unwind(panic);
    }
}
