//! The share of the API server that renewals of Leases have.

use http::Request;
use k8s_openapi::api::flowcontrol::v1::FlowSchema;
use kube::Api;
use kube::Client;
use kube::ResourceExt;
use kube::client::Body;

use crate::cluster::HOSTS;
use crate::cluster::SYSTEM;
use crate::cluster::admin;
use crate::cluster::eventually;

/// The `FlowSchema` by which a request of a `ServiceAccount` comes in, as the API server says.
async fn flow(client: &Client, (namespace, account): (&str, &str), path: &str) -> String {
    let request = Request::get(path)
        .header("Impersonate-User", format!("system:serviceaccount:{namespace}:{account}"))
        .header("Impersonate-Group", format!("system:serviceaccounts:{namespace}"))
        .header("Impersonate-Group", "system:authenticated")
        .body(Body::empty())
        .unwrap();
    let response = client.send(request).await.unwrap();
    response.headers()["x-kubernetes-pf-flowschema-uid"].to_str().unwrap().to_owned()
}

#[tokio::test]
#[ignore = "needs an API server"]
async fn renewals_of_leases_wait_behind_nothing_else() {
    let client = admin().await;
    let schema = Api::<FlowSchema>::all(client.clone()).get("dcv-operator-agent-leases").await.unwrap();
    let own = schema.uid().unwrap();
    let leases = format!("/apis/coordination.k8s.io/v1/namespaces/{SYSTEM}/leases");
    for account in [(SYSTEM, "dcv-agent"), (SYSTEM, "dcv-controller"), (HOSTS, "host-a")] {
        eventually("a FlowSchema counts some time after it is stored", async || {
            flow(&client, account, &format!("{leases}/a")).await == own
        })
        .await;
        assert_ne!(flow(&client, account, "/apis/dcv-operator.io/v1alpha1/dcvservers").await, own, "{account:?}");
        assert_ne!(flow(&client, account, &leases.replace(SYSTEM, "kube-system")).await, own, "{account:?}");
    }
    assert_ne!(flow(&client, (SYSTEM, "dcv-broker"), &format!("{leases}/a")).await, own, "brokers have no Lease");
}
