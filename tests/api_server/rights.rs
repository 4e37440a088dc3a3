//! What RBAC lets each component and each person do, and what not, as the API server judges it.

use k8s_openapi::api::authorization::v1::ResourceAttributes;
use k8s_openapi::api::authorization::v1::SubjectAccessReview;
use k8s_openapi::api::authorization::v1::SubjectAccessReviewSpec;
use kube::Api;
use kube::Client;
use kube::api::PostParams;

use crate::cluster::HOSTS;
use crate::cluster::SYSTEM;
use crate::cluster::admin;
use crate::cluster::bearer;
use crate::cluster::eventually;
use crate::cluster::in_namespace;
use crate::cluster::make_account;
use crate::cluster::request_token;

const CONTROLLER: &str = "dcv-system:dcv-controller";
const BROKER: &str = "dcv-system:dcv-broker";
const AGENT: &str = "dcv-system:dcv-agent";
const HOST: &str = "dcv-hosts:host-1";

const OURS: &str = "dcv-operator.io";
const EVERY_NAMESPACE: &str = "";

/// Asks whether an account, `namespace:name`, may do this. `resource` is `plural.group`, with `/subresource` after the plural
/// and `:name` at the end.
async fn may(client: &Client, account: &str, verb: &str, resource: &str, namespace: &str) -> bool {
    let (resource, name) = resource.split_once(':').map_or((resource, None), |(resource, name)| (resource, Some(name)));
    let (resource, group) = resource.split_once('.').unwrap_or((resource, ""));
    let (resource, subresource) = resource.split_once('/').map_or((resource, None), |(one, two)| (one, Some(two)));
    let account_namespace = account.split(':').next().unwrap();
    let review = SubjectAccessReview {
        spec: SubjectAccessReviewSpec {
            user: Some(format!("system:serviceaccount:{account}")),
            groups: Some(vec![
                "system:authenticated".to_owned(),
                "system:serviceaccounts".to_owned(),
                format!("system:serviceaccounts:{account_namespace}"),
            ]),
            resource_attributes: Some(ResourceAttributes {
                group: Some(group.to_owned()),
                resource: Some(resource.to_owned()),
                subresource: subresource.map(str::to_owned),
                name: name.map(str::to_owned),
                namespace: Some(namespace.to_owned()),
                verb: Some(verb.to_owned()),
                ..ResourceAttributes::default()
            }),
            ..SubjectAccessReviewSpec::default()
        },
        ..SubjectAccessReview::default()
    };
    let answer = Api::<SubjectAccessReview>::all(client.clone()).create(&PostParams::default(), &review).await.unwrap();
    answer.status.unwrap().allowed
}

/// Account, verbs, resource (see [`may`]; `ours:` stands for our group), namespace.
type Rule = (&'static str, &'static str, &'static str, &'static str);

const GRANTED: &[Rule] = &[
    (CONTROLLER, "get list watch patch update delete", "dcvsessions.dcv-operator.io", EVERY_NAMESPACE),
    (CONTROLLER, "patch update", "dcvsessions/status.dcv-operator.io", EVERY_NAMESPACE),
    (CONTROLLER, "get list watch patch update delete", "dcvservers.dcv-operator.io", EVERY_NAMESPACE),
    (CONTROLLER, "patch update", "dcvservers/status.dcv-operator.io", EVERY_NAMESPACE),
    (CONTROLLER, "get list watch", "apiclients.dcv-operator.io", EVERY_NAMESPACE),
    (CONTROLLER, "patch update", "apiclients/status.dcv-operator.io", EVERY_NAMESPACE),
    (CONTROLLER, "get list watch", "namespaces", EVERY_NAMESPACE),
    (CONTROLLER, "get list watch", "nodes", EVERY_NAMESPACE),
    (CONTROLLER, "create patch", "events.events.k8s.io", "default"),
    (CONTROLLER, "get list watch", "leases.coordination.k8s.io:host-1", SYSTEM),
    (CONTROLLER, "get patch update", "leases.coordination.k8s.io:dcv-operator-controller", SYSTEM),
    (CONTROLLER, "create", "leases.coordination.k8s.io", SYSTEM),
    (CONTROLLER, "create", "secrets", SYSTEM),
    (CONTROLLER, "get list watch patch update", "secrets:dcv-access-token-keys", SYSTEM),
    (CONTROLLER, "get list watch patch update", "secrets:dcv-connection-token-keys", SYSTEM),
    (CONTROLLER, "get list watch patch update", "secrets:dcv-agent-token-keys", SYSTEM),
    (CONTROLLER, "create", "configmaps", SYSTEM),
    (CONTROLLER, "get list watch patch update", "configmaps:dcv-public-keys", SYSTEM),
    (CONTROLLER, "get list watch", "pods", SYSTEM),
    (BROKER, "get list watch create patch update delete", "dcvsessions.dcv-operator.io", EVERY_NAMESPACE),
    (BROKER, "get list watch patch update", "dcvservers.dcv-operator.io", EVERY_NAMESPACE),
    (BROKER, "get list watch", "apiclients.dcv-operator.io", EVERY_NAMESPACE),
    (BROKER, "get list watch", "namespaces", EVERY_NAMESPACE),
    (BROKER, "get list watch", "secrets:dcv-access-token-keys", SYSTEM),
    (BROKER, "get list watch", "secrets:dcv-connection-token-keys", SYSTEM),
    (BROKER, "get list watch", "secrets:dcv-agent-token-keys", SYSTEM),
    (BROKER, "get list watch", "configmaps:dcv-public-keys", SYSTEM),
    (AGENT, "get list watch patch update", "dcvsessions.dcv-operator.io", EVERY_NAMESPACE),
    (AGENT, "patch update", "dcvsessions/status.dcv-operator.io", EVERY_NAMESPACE),
    (AGENT, "get list watch create", "dcvservers.dcv-operator.io", EVERY_NAMESPACE),
    (AGENT, "patch update", "dcvservers/status.dcv-operator.io", EVERY_NAMESPACE),
    (AGENT, "get list watch", "namespaces", EVERY_NAMESPACE),
    (AGENT, "get create patch update", "leases.coordination.k8s.io:host-1", SYSTEM),
    (AGENT, "get list watch", "configmaps:dcv-public-keys", SYSTEM),
    (HOST, "get list watch patch update", "dcvsessions.dcv-operator.io", EVERY_NAMESPACE),
    (HOST, "get list watch create", "dcvservers.dcv-operator.io", EVERY_NAMESPACE),
    (HOST, "get create patch update", "leases.coordination.k8s.io:host-1", SYSTEM),
    (HOST, "get list watch", "configmaps:dcv-public-keys", SYSTEM),
    (HOST, "create", "serviceaccounts/token:host-1", HOSTS),
];

const DENIED: &[Rule] = &[
    (CONTROLLER, "create deletecollection", "dcvsessions.dcv-operator.io", EVERY_NAMESPACE),
    (CONTROLLER, "create", "dcvservers.dcv-operator.io", EVERY_NAMESPACE),
    (CONTROLLER, "create patch update delete", "apiclients.dcv-operator.io", EVERY_NAMESPACE),
    (CONTROLLER, "get list watch create", "secrets", "default"),
    (CONTROLLER, "get list watch delete", "secrets", SYSTEM),
    (CONTROLLER, "delete", "secrets:dcv-access-token-keys", SYSTEM),
    (CONTROLLER, "patch update", "leases.coordination.k8s.io:host-1", SYSTEM),
    (CONTROLLER, "patch update", "configmaps", SYSTEM),
    (CONTROLLER, "create", "serviceaccounts/token", SYSTEM),
    (BROKER, "patch update", "dcvsessions/status.dcv-operator.io", EVERY_NAMESPACE),
    (BROKER, "patch update", "dcvservers/status.dcv-operator.io", EVERY_NAMESPACE),
    (BROKER, "create delete", "dcvservers.dcv-operator.io", EVERY_NAMESPACE),
    (BROKER, "create patch update delete", "apiclients.dcv-operator.io", EVERY_NAMESPACE),
    (BROKER, "adopt", "dcvservers.dcv-operator.io", EVERY_NAMESPACE),
    (BROKER, "get list watch", "secrets", SYSTEM),
    (BROKER, "get list watch", "secrets", "default"),
    (BROKER, "patch update", "secrets:dcv-access-token-keys", SYSTEM),
    (BROKER, "patch update", "configmaps:dcv-public-keys", SYSTEM),
    (BROKER, "create patch update", "leases.coordination.k8s.io", SYSTEM),
    (AGENT, "create delete deletecollection", "dcvsessions.dcv-operator.io", EVERY_NAMESPACE),
    (AGENT, "patch update delete deletecollection", "dcvservers.dcv-operator.io", EVERY_NAMESPACE),
    (AGENT, "get list watch", "apiclients.dcv-operator.io", EVERY_NAMESPACE),
    (AGENT, "get list watch", "secrets:dcv-access-token-keys", SYSTEM),
    (AGENT, "list watch delete", "leases.coordination.k8s.io", SYSTEM),
    (AGENT, "create patch update", "leases.coordination.k8s.io", "kube-system"),
    (AGENT, "create patch update", "configmaps:dcv-public-keys", SYSTEM),
    (AGENT, "create", "events.events.k8s.io", "default"),
    (AGENT, "get list", "nodes", EVERY_NAMESPACE),
    (AGENT, "get list create", "pods", SYSTEM),
    (AGENT, "create", "serviceaccounts/token", SYSTEM),
    (AGENT, "create", "serviceaccounts/token", HOSTS),
    (AGENT, "impersonate", "users", EVERY_NAMESPACE),
    (HOST, "create", "serviceaccounts/token", SYSTEM),
    (HOST, "get list create delete", "secrets", HOSTS),
    (HOST, "create get", "serviceaccounts", HOSTS),
    (HOST, "create", "pods", HOSTS),
    (HOST, "get list watch", "secrets:dcv-access-token-keys", SYSTEM),
];

async fn wrong(client: &Client, rules: &[Rule], expected: bool) -> Vec<String> {
    let mut found = Vec::new();
    for (account, verbs, resource, namespace) in rules {
        for verb in verbs.split(' ') {
            if may(client, account, verb, resource, namespace).await != expected {
                found.push(format!("{account} {verb} {resource} in '{namespace}' should be {expected}"));
            }
        }
    }
    found
}

#[tokio::test]
#[ignore = "needs an API server"]
async fn each_component_has_the_rights_it_needs_and_no_others() {
    let client = admin().await;
    let found = [wrong(&client, GRANTED, true).await, wrong(&client, DENIED, false).await].concat();
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

#[tokio::test]
#[ignore = "needs an API server"]
async fn signing_keys_are_watched_by_name() {
    // A right on names holds for a list or watch only when it selects the name.
    let admin = admin().await;
    let broker = bearer(&request_token(&admin, SYSTEM, "dcv-broker", None, None).await.unwrap()).await;
    let secrets = Api::<k8s_openapi::api::core::v1::Secret>::namespaced(broker, SYSTEM);
    let named = kube::api::ListParams::default().fields("metadata.name=dcv-access-token-keys");
    secrets.list(&named).await.unwrap();
    let parameters = kube::api::WatchParams::default().fields("metadata.name=dcv-access-token-keys").timeout(1);
    secrets.watch(&parameters, "0").await.map(drop).unwrap();
    secrets.list(&kube::api::ListParams::default()).await.unwrap_err();
}

#[tokio::test]
#[ignore = "needs an API server"]
async fn people_get_our_kinds_with_the_roles_they_have_anyway() {
    in_namespace("people", async |client, namespace| {
        let account = |role: &str| format!("{namespace}:{role}");
        for role in ["view", "edit", "admin"] {
            make_account(&client, &namespace, role).await;
            crate::clients::bind(&client, &namespace, role, "ClusterRole", role).await;
        }
        let sessions = format!("dcvsessions.{OURS}");
        let clients = format!("apiclients.{OURS}");
        eventually("the roles are aggregated", async || {
            may(&client, &account("admin"), "create", &clients, &namespace).await
        })
        .await;
        let reads = ["get", "list", "watch"];
        let writes = ["create", "patch", "update", "delete", "deletecollection"];
        let mut wrong = Vec::new();
        for role in ["view", "edit", "admin"] {
            for (resource, may_write) in [(&sessions, role != "view"), (&clients, role == "admin")] {
                let verbs = reads.map(|verb| (verb, true)).into_iter().chain(writes.map(|verb| (verb, may_write)));
                for (verb, expected) in verbs {
                    if may(&client, &account(role), verb, resource, &namespace).await != expected {
                        wrong.push(format!("{role} {verb} {resource} should be {expected}"));
                    }
                }
            }
            for resource in ["dcvsessions/status.dcv-operator.io", "apiclients/status.dcv-operator.io"] {
                for verb in ["patch", "update"] {
                    if may(&client, &account(role), verb, resource, &namespace).await {
                        wrong.push(format!("{role} {verb} {resource} should be denied"));
                    }
                }
            }
            for verb in ["all-namespaces", "manage-servers"] {
                if may(&client, &account(role), verb, &clients, &namespace).await {
                    wrong.push(format!("{role} {verb} {clients} should be denied"));
                }
            }
            if may(&client, &account(role), "patch", "dcvservers.dcv-operator.io", EVERY_NAMESPACE).await {
                wrong.push(format!("{role} patches servers"));
            }
        }
        assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    })
    .await;
}
