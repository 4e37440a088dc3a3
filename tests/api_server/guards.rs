//! The policies that do not concern agents: owners, adoption, our own components, public keys and our definitions.

use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Api;
use kube::api::DeleteParams;
use kube::api::ListParams;
use kube::api::Patch;
use kube::api::PatchParams;
use kube::api::PostParams;
use serde_json::Value;
use serde_json::json;

use crate::cluster::SYSTEM;
use crate::cluster::Verdict::Allowed;
use crate::cluster::Verdict::Refused;
use crate::cluster::Verdicts;
use crate::cluster::admin;
use crate::cluster::bearer;
use crate::cluster::dry_create;
use crate::cluster::dry_delete;
use crate::cluster::dry_patch;
use crate::cluster::eventually;
use crate::cluster::in_namespace;
use crate::cluster::make_account;
use crate::cluster::object;
use crate::cluster::request_token;
use crate::cluster::servers;
use crate::cluster::sessions;
use crate::cluster::unique;
use crate::cluster::with;
use crate::schema::smallest_session;

/// A client that is one of our components.
async fn component(name: &str) -> kube::Client {
    bearer(&request_token(&admin().await, SYSTEM, name, None, None).await.unwrap()).await
}

#[tokio::test]
#[ignore = "needs an API server"]
async fn a_namespace_can_limit_the_owners_of_its_sessions() {
    in_namespace("owners", async |client, namespace| {
        let namespaces = Api::<Namespace>::all(client.clone());
        let api = sessions(&client, &namespace);
        let create = async |owner: &str| {
            let session = object("DcvSession", "a", with(smallest_session(), &json!({"owner": owner})));
            api.create(&dry_create(), &session).await
        };
        let refused = Refused("must match the namespace's annotation dcv-operator.io/owner-pattern: ");
        let cases: [(Option<&str>, &[(&str, _)]); 4] = [
            (None, &[("ann", Allowed), ("bob", Allowed)]),
            (
                Some("ann|team-a-.*"),
                &[("ann", Allowed), ("team-a-1", Allowed), ("bob", refused), ("joann", refused), ("anne", refused)],
            ),
            (Some("DOMAIN\\\\[a-z]+"), &[("DOMAIN\\eve", Allowed), ("eve", refused)]),
            // Nobody passes a pattern that cannot be read, rather than everybody.
            (Some("ann|("), &[("ann", Refused("dcv-operator-session-owners"))]),
        ];
        let mut verdicts = Verdicts::default();
        for (pattern, owners) in cases {
            let patch = Patch::Merge(json!({"metadata": {"annotations": {"dcv-operator.io/owner-pattern": pattern}}}));
            namespaces.patch(&namespace, &PatchParams::default(), &patch).await.unwrap();
            // The policy reads the namespace from a cache.
            if pattern.is_some() {
                let said = |error: kube::Error| error.to_string().contains("dcv-operator-session-owners");
                let current = pattern.unwrap_or_default();
                eventually("the pattern is known", async || {
                    let error = create("nobody at all").await.err();
                    error.is_some_and(|error| {
                        error.to_string().contains(current) || current.contains('(') && said(error)
                    })
                })
                .await;
            }
            for (owner, verdict) in owners {
                verdicts.judge(format!("{owner} under {pattern:?}"), create(owner).await, *verdict);
            }
        }
        verdicts.finish();
    })
    .await;
}

#[tokio::test]
#[ignore = "needs an API server"]
async fn taking_over_a_desktop_takes_the_verb_adopt_on_its_server() {
    in_namespace("adoption", async |admin, namespace| {
        make_account(&admin, &namespace, "user").await;
        let client = bearer(&request_token(&admin, &namespace, "user", None, None).await.unwrap()).await;
        crate::clients::bind(&admin, &namespace, "user", "ClusterRole", "edit").await;
        let create = async |spec: Value| {
            let session = object("DcvSession", "a", with(smallest_session(), &spec));
            sessions(&client, &namespace).create(&dry_create(), &session).await
        };
        eventually("the rights are known", async || create(json!({})).await.is_ok()).await;
        let adopt = |server: &str| json!({"adopt": {"serverName": server, "sessionId": "a"}});
        let refused = Refused("adopt may only be set by those with the verb adopt on the dcvservers object it names");
        let mut verdicts = Verdicts::default();
        verdicts.judge("without the verb", create(adopt("host-1")).await, refused);

        let verbs = json!([{"apiGroups": ["dcv-operator.io"], "resources": ["dcvservers"], "resourceNames": ["host-1"],
            "verbs": ["adopt"]}]);
        let role = json!({"metadata": {"name": namespace}, "rules": verbs});
        let roles = Api::<k8s_openapi::api::rbac::v1::ClusterRole>::all(admin.clone());
        roles.create(&PostParams::default(), &serde_json::from_value(role).unwrap()).await.unwrap();
        let binding = json!({
            "metadata": {"name": namespace},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": namespace},
            "subjects": [{"kind": "ServiceAccount", "namespace": namespace, "name": "user"}],
        });
        let bindings = Api::<k8s_openapi::api::rbac::v1::ClusterRoleBinding>::all(admin.clone());
        bindings.create(&PostParams::default(), &serde_json::from_value(binding).unwrap()).await.unwrap();
        eventually("with the verb it is allowed", async || create(adopt("host-1")).await.is_ok()).await;
        verdicts.judge("on another server", create(adopt("host-2")).await, refused);
        bindings.delete(&namespace, &DeleteParams::default()).await.unwrap();
        roles.delete(&namespace, &DeleteParams::default()).await.unwrap();
        verdicts.finish();
    })
    .await;
}

#[tokio::test]
#[ignore = "needs an API server"]
async fn our_components_change_only_what_is_theirs() {
    in_namespace("components", async |admin, namespace| {
        let (controller, broker) = (component("dcv-controller").await, component("dcv-broker").await);
        let mut session = object("DcvSession", "a", smallest_session());
        session.metadata.finalizers = Some(vec!["dcv-operator.io/session-cleanup".to_owned()]);
        sessions(&admin, &namespace).create(&PostParams::default(), &session).await.unwrap();
        let server = unique("test-components");
        let spec = json!({"placement": "Draining", "drainGraceSeconds": 60, "limits": {"maxVirtualSessions": 1}});
        let mut stored = object("DcvServer", &server, spec);
        let annotations = [("ours", "a"), ("dcv-operator.io/request-id", "a")];
        stored.metadata.annotations = Some(annotations.map(|(key, value)| (key.to_owned(), value.to_owned())).into());
        servers(&admin).create(&PostParams::default(), &stored).await.unwrap();
        let only_annotation = Refused("the broker may change only its own annotation of a server");
        let no_spec = Refused("the controller may not change a spec");
        let only_placement = Refused("the broker may change only placement and drainGraceSeconds of a server");
        let no_finalizers = Refused("the broker may not change finalizers and owners of a session");
        let no_right = Refused("is forbidden: User");
        let mut verdicts = Verdicts::default();
        let on_sessions = [
            ("controller", &controller, json!({"metadata": {"finalizers": []}}), Allowed),
            ("controller", &controller, json!({"spec": {"displayName": "a"}}), no_spec),
            ("controller", &controller, json!({"spec": {"desiredState": "Closed"}}), no_spec),
            ("broker", &broker, json!({"spec": {"desiredState": "Closed", "permissions": "a"}}), Allowed),
            ("broker", &broker, json!({"metadata": {"finalizers": []}}), no_finalizers),
            ("broker", &broker, json!({"metadata": {"annotations": {"dcv-operator.io/request-id": "a"}}}), Allowed),
        ];
        for (who, client, change, verdict) in on_sessions {
            let result = sessions(client, &namespace).patch("a", &dry_patch(), &Patch::Merge(&change)).await;
            verdicts.judge(format!("{who} changes a session: {change}"), result, verdict);
        }
        let on_servers = [
            ("controller", &controller, json!({"metadata": {"labels": {"gpu": "a10"}}}), Allowed),
            ("controller", &controller, json!({"spec": {"placement": "Open", "drainGraceSeconds": null}}), no_spec),
            ("broker", &broker, json!({"spec": {"placement": "Closed", "drainGraceSeconds": null}}), Allowed),
            ("broker", &broker, json!({"spec": {"placement": null, "drainGraceSeconds": null}}), Allowed),
            ("broker", &broker, json!({"spec": {"limits": null}}), only_placement),
            ("broker", &broker, json!({"spec": {"endSessions": ["a"]}}), only_placement),
            ("broker", &broker, json!({"spec": {"allowedNamespaces": {}}}), only_placement),
            ("broker", &broker, json!({"metadata": {"labels": {"gpu": "a10"}}}), only_placement),
            (
                "broker",
                &broker,
                json!({"spec": {"placement": "Closed", "drainGraceSeconds": null},
                    "metadata": {"annotations": {"dcv-operator.io/request-id": "b"}}}),
                Allowed,
            ),
            ("broker", &broker, json!({"metadata": {"annotations": {"other": "b"}}}), only_annotation),
            ("broker", &broker, json!({"metadata": {"annotations": {"ours": "b"}}}), only_annotation),
            ("broker", &broker, json!({"metadata": {"annotations": null}}), only_annotation),
            ("broker", &broker, json!({"metadata": {"annotations": {"dcv-operator.io/request-id": null}}}), Allowed),
        ];
        for (who, client, change, verdict) in on_servers {
            let result = servers(client).patch(&server, &dry_patch(), &Patch::Merge(&change)).await;
            verdicts.judge(format!("{who} changes a server: {change}"), result, verdict);
        }
        let status = Patch::Merge(json!({"status": {"stateReason": "a"}}));
        let reported = sessions(&controller, &namespace).patch_status("a", &dry_patch(), &status).await;
        verdicts.judge("controller writes a session's status", reported, Allowed);
        let reported = sessions(&broker, &namespace).patch_status("a", &dry_patch(), &status).await;
        verdicts.judge("broker writes a session's status", reported, no_right);
        let created =
            sessions(&broker, &namespace).create(&dry_create(), &object("DcvSession", "b", smallest_session())).await;
        verdicts.judge("broker creates a session", created, Allowed);
        let created = sessions(&controller, &namespace)
            .create(&dry_create(), &object("DcvSession", "b", smallest_session()))
            .await;
        verdicts.judge("controller creates a session", created, no_right);
        servers(&admin).delete(&server, &DeleteParams::default()).await.unwrap();
        sessions(&admin, &namespace)
            .patch("a", &PatchParams::default(), &Patch::Merge(json!({"metadata": {"finalizers": null}})))
            .await
            .unwrap();
        verdicts.finish();
    })
    .await;
}

#[tokio::test]
#[ignore = "needs an API server"]
async fn only_the_controller_writes_the_public_keys() {
    let only = Refused("only the controller writes the ConfigMap of public keys");
    let config_map = |name: &str| -> ConfigMap { serde_json::from_value(json!({"metadata": {"name": name}})).unwrap() };
    let maps = |client: &kube::Client, namespace: &str| Api::<ConfigMap>::namespaced(client.clone(), namespace);
    let (admin, controller) = (admin().await, component("dcv-controller").await);
    let change = Patch::Apply(
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "dcv-public-keys"}, "data": {"access.jwks.json": "{}"}}),
    );
    let apply = PatchParams { dry_run: true, ..PatchParams::apply("test").force() };
    let mut verdicts = Verdicts::default();
    // An apply creates what is not there, and another test instance may have it there already.
    let mine = maps(&controller, SYSTEM).patch("dcv-public-keys", &apply, &change).await;
    verdicts.judge("controller", mine, Allowed);
    let theirs = maps(&admin, SYSTEM).patch("dcv-public-keys", &apply, &change).await;
    verdicts.judge("an administrator", theirs, only);
    let created = maps(&admin, SYSTEM).create(&dry_create(), &config_map("dcv-public-keys")).await;
    verdicts.judge("an administrator creates it", created, only);
    let other = maps(&admin, SYSTEM).create(&dry_create(), &config_map("another")).await;
    verdicts.judge("another ConfigMap", other, Allowed);
    let elsewhere = maps(&admin, "default").create(&dry_create(), &config_map("dcv-public-keys")).await;
    verdicts.judge("one of that name elsewhere", elsewhere, Allowed);
    verdicts.finish();
}

#[tokio::test]
#[ignore = "needs an API server"]
async fn new_keys_are_asked_for_by_an_annotation_that_changes_nothing_else() {
    let only = Refused("only the controller writes the ConfigMap of public keys");
    let maps = |client: &kube::Client| Api::<ConfigMap>::namespaced(client.clone(), SYSTEM);
    let (admin, controller) = (admin().await, component("dcv-controller").await);
    let stored = json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"access.jwks.json": "[]"},
        "metadata": {"name": "dcv-public-keys", "annotations": {"ours": "a"}}});
    let force = PatchParams::apply("test").force();
    maps(&controller).patch("dcv-public-keys", &force, &Patch::Apply(stored)).await.unwrap();
    let mut verdicts = Verdicts::default();
    let asked = |value: &str| json!({"dcv-operator.io/renew-keys": value});
    for (change, verdict) in [
        (json!({"metadata": {"annotations": asked("1 access keep")}}), Allowed),
        (json!({"metadata": {"annotations": {"dcv-operator.io/renewed-keys": "1"}}}), only),
        (json!({"metadata": {"annotations": {"ours": "b"}}}), only),
        (json!({"metadata": {"annotations": {"ours": null}}}), only),
        (json!({"metadata": {"annotations": asked("2 access keep")}, "data": {"access.jwks.json": "{}"}}), only),
        (json!({"metadata": {"annotations": asked("2 access keep")}, "data": {"more": "x"}}), only),
        (json!({"metadata": {"annotations": asked("2 access keep")}, "binaryData": {"more": "eA=="}}), only),
        (json!({"immutable": true}), only),
        (json!({"metadata": {"labels": {"a": "b"}}}), only),
        (json!({"metadata": {"finalizers": ["example.com/keep"]}}), only),
        (
            json!({"metadata": {"ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "a", "uid": "b"}]}}),
            only,
        ),
    ] {
        let result = maps(&admin).patch("dcv-public-keys", &dry_patch(), &Patch::Merge(&change)).await;
        verdicts.judge(format!("an administrator changes the public keys: {change}"), result, verdict);
    }
    // Without annotations there is nothing to compare with.
    let bare = json!({"metadata": {"annotations": null}});
    maps(&controller).patch("dcv-public-keys", &PatchParams::default(), &Patch::Merge(bare)).await.unwrap();
    let first = json!({"metadata": {"annotations": asked("1 access keep")}});
    let result = maps(&admin).patch("dcv-public-keys", &dry_patch(), &Patch::Merge(&first)).await;
    verdicts.judge("the first annotation", result, Allowed);
    verdicts.finish();
}

fn definition(plural: &str, label: &str) -> CustomResourceDefinition {
    serde_json::from_value(json!({
        "metadata": {"name": format!("{plural}.dcv-operator.io"), "labels": {"test": label}},
        "spec": {
            "group": "dcv-operator.io", "scope": "Namespaced", "names": {"plural": plural, "kind": plural},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object"}}}],
        },
    }))
    .unwrap()
}

#[tokio::test]
#[ignore = "needs an API server"]
async fn our_definitions_are_not_deleted_by_mistake() {
    let client = admin().await;
    let api = Api::<CustomResourceDefinition>::all(client);
    let refused = Refused("deleting this definition would end every desktop");
    let mut verdicts = Verdicts::default();
    for plural in ["dcvsessions", "dcvservers", "apiclients"] {
        let result = api.delete(&format!("{plural}.dcv-operator.io"), &dry_delete()).await;
        verdicts.judge(format!("delete {plural}"), result, refused);
    }
    // One of our group that nobody misses, to see it deleted in the end.
    let plural = unique("test").replace('-', "");
    let name = format!("{plural}.dcv-operator.io");
    api.create(&PostParams::default(), &definition(&plural, &plural)).await.unwrap();
    let now = DeleteParams::default();
    verdicts.judge("delete", api.delete(&name, &now).await, refused);
    let labelled = ListParams::default().labels(&format!("test={plural}"));
    verdicts.judge("delete the collection", api.delete_collection(&now, &labelled).await, refused);
    for (value, verdict) in [("yes", refused), ("true", Allowed)] {
        let annotated = Patch::Merge(json!({"metadata": {"annotations": {"dcv-operator.io/allow-deletion": value}}}));
        api.patch(&name, &PatchParams::default(), &annotated).await.unwrap();
        verdicts.judge(format!("delete with the annotation {value}"), api.delete(&name, &now).await, verdict);
    }
    verdicts.finish();
}
