//! Who may give a client of the REST API rights beyond its namespace.

use k8s_openapi::api::rbac::v1::ClusterRole;
use k8s_openapi::api::rbac::v1::ClusterRoleBinding;
use k8s_openapi::api::rbac::v1::Role;
use k8s_openapi::api::rbac::v1::RoleBinding;
use kube::Api;
use kube::Client;
use kube::api::DeleteParams;
use kube::api::Patch;
use kube::api::PostParams;
use serde_json::Value;
use serde_json::json;

use crate::cluster::Verdict;
use crate::cluster::Verdict::Allowed;
use crate::cluster::Verdict::Refused;
use crate::cluster::Verdicts;
use crate::cluster::api_clients;
use crate::cluster::bearer;
use crate::cluster::dry_create;
use crate::cluster::dry_patch;
use crate::cluster::eventually;
use crate::cluster::in_namespace;
use crate::cluster::make_account;
use crate::cluster::object;
use crate::cluster::request_token;

const EVERYWHERE: Verdict = Refused("with the verb all-namespaces on apiclients in the whole cluster");
const SERVERS: Verdict = Refused("with the verb manage-servers on apiclients in the whole cluster");

/// Binds `role` in the namespace to its account `person`.
pub async fn bind(admin: &Client, namespace: &str, person: &str, role_kind: &str, role: &str) {
    let binding = json!({
        "metadata": {"name": format!("{person}-{role}")},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": role_kind, "name": role},
        "subjects": [{"kind": "ServiceAccount", "namespace": namespace, "name": person}],
    });
    let bindings = Api::<RoleBinding>::namespaced(admin.clone(), namespace);
    bindings.create(&PostParams::default(), &serde_json::from_value(binding).unwrap()).await.unwrap();
}

async fn person(admin: &Client, namespace: &str, name: &str) -> Client {
    make_account(admin, namespace, name).await;
    bearer(&request_token(admin, namespace, name, None, None).await.unwrap()).await
}

async fn create(client: &Client, namespace: &str, spec: Value) -> kube::Result<kube::api::DynamicObject> {
    api_clients(client, namespace).create(&dry_create(), &object("ApiClient", "new", spec)).await
}

#[tokio::test]
#[ignore = "needs an API server"]
async fn rights_beyond_the_namespace_take_a_verb_in_the_whole_cluster() {
    in_namespace("client-rights", async |admin, namespace| {
        for (name, spec) in [
            ("plain", json!({})),
            ("everywhere", json!({"allNamespaces": true})),
            ("servers", json!({"manageServers": true})),
        ] {
            let stored = object("ApiClient", name, spec);
            api_clients(&admin, &namespace).create(&PostParams::default(), &stored).await.unwrap();
        }
        // The built-in admin of a namespace, by the aggregated role; and one with every verb on everything in it.
        let usual = person(&admin, &namespace, "usual").await;
        bind(&admin, &namespace, "usual", "ClusterRole", "admin").await;
        let all =
            json!({"metadata": {"name": "all"}, "rules": [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]});
        let roles = Api::<Role>::namespaced(admin.clone(), &namespace);
        roles.create(&PostParams::default(), &serde_json::from_value(all).unwrap()).await.unwrap();
        let mighty = person(&admin, &namespace, "mighty").await;
        bind(&admin, &namespace, "mighty", "Role", "all").await;
        for client in [&usual, &mighty] {
            eventually("the rights are known", async || create(client, &namespace, json!({})).await.is_ok()).await;
        }

        let mut verdicts = Verdicts::default();
        let hash = json!([{"hash": format!("sha256:{}", "a".repeat(64))}]);
        for (who, client) in [("admin", &usual), ("owner", &mighty)] {
            let created = [
                (json!({"credentials": hash}), Allowed),
                (json!({"allNamespaces": false, "manageServers": false}), Allowed),
                (json!({"allNamespaces": true}), EVERYWHERE),
                (json!({"manageServers": true}), SERVERS),
            ];
            for (spec, verdict) in created {
                let case = format!("{who} of the namespace creates {spec}");
                verdicts.judge(case, create(client, &namespace, spec).await, verdict);
            }
            let changed = [
                ("plain", json!({"spec": {"credentials": hash}}), Allowed),
                ("plain", json!({"spec": {"allNamespaces": true}}), EVERYWHERE),
                ("plain", json!({"spec": {"manageServers": true}}), SERVERS),
                // A credential of one's own would be a way to the right.
                ("everywhere", json!({"spec": {"credentials": hash}}), EVERYWHERE),
                ("servers", json!({"spec": {"credentials": hash}}), SERVERS),
                ("everywhere", json!({"spec": {"allNamespaces": false}}), Allowed),
                ("everywhere", json!({"metadata": {"labels": {"a": "b"}}}), Allowed),
            ];
            for (name, change, verdict) in changed {
                let case = format!("{who} of the namespace changes {name}: {change}");
                let patch = Patch::Merge(&change);
                verdicts.judge(case, api_clients(client, &namespace).patch(name, &dry_patch(), &patch).await, verdict);
            }
        }
        verdicts.finish();

        let verbs = json!([{"apiGroups": ["dcv-operator.io"], "resources": ["apiclients"],
            "verbs": ["all-namespaces", "manage-servers"]}]);
        let role = json!({"metadata": {"name": namespace}, "rules": verbs});
        let roles = Api::<ClusterRole>::all(admin.clone());
        roles.create(&PostParams::default(), &serde_json::from_value(role).unwrap()).await.unwrap();
        let binding = json!({
            "metadata": {"name": namespace},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": namespace},
            "subjects": [{"kind": "ServiceAccount", "namespace": namespace, "name": "usual"}],
        });
        let bindings = Api::<ClusterRoleBinding>::all(admin.clone());
        bindings.create(&PostParams::default(), &serde_json::from_value(binding).unwrap()).await.unwrap();
        eventually("with the verbs it is allowed", async || {
            create(&usual, &namespace, json!({"allNamespaces": true, "manageServers": true})).await.is_ok()
        })
        .await;
        bindings.delete(&namespace, &DeleteParams::default()).await.unwrap();
        roles.delete(&namespace, &DeleteParams::default()).await.unwrap();
    })
    .await;
}
