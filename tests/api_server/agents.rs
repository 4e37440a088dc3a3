//! The attack matrix: what an agent can do with its token to its own server, and what to everything else.
//!
//! The same matrix runs for a host outside the cluster, for the account of the pods bound to a pod and to a Node, and for a
//! host that RBAC lets do everything: there the policies stand alone.

use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use kube::Client;
use kube::api::ApiResource;
use kube::api::DeleteParams;
use kube::api::DynamicObject;
use kube::api::ListParams;
use kube::api::Patch;
use kube::api::PatchParams;
use kube::api::PostParams;
use kube::api::TypeMeta;
use serde_json::Value;
use serde_json::json;

use crate::cluster::HOSTS;
use crate::cluster::SYSTEM;
use crate::cluster::Verdict;
use crate::cluster::Verdict::Allowed;
use crate::cluster::Verdict::Refused;
use crate::cluster::Verdicts;
use crate::cluster::bearer;
use crate::cluster::dry_create;
use crate::cluster::dry_delete;
use crate::cluster::dry_patch;
use crate::cluster::from;
use crate::cluster::in_namespace;
use crate::cluster::make_account;
use crate::cluster::object;
use crate::cluster::request_token;
use crate::cluster::servers;
use crate::cluster::sessions;
use crate::cluster::unique;
use crate::cluster::write_status;
use crate::schema::smallest_session;

const FINALIZER: &str = "dcv-operator.io/session-cleanup";
const FOREIGN_FINALIZER: &str = "example.com/keep";

const ANOTHERS_SERVER: Verdict = Refused("does not belong to the agent of");
const NOT_BOUND: Verdict = Refused("this session is not bound to the agent's server");
const MOVED: Verdict = Refused("an agent may not move a session to or from a server");
const NOT_EMPTY: Verdict = Refused("an agent creates its server with an empty spec");
const ANOTHERS_LEASE: Verdict = Refused("this Lease belongs to another server");
const ID_OR_MEMORY: Verdict = Refused("an agent may not change sessionId, retries and attempts of a session");
const SPEC_OR_LABELS: Verdict = Refused("an agent may not change spec, labels, annotations and owners of a session");
const ITS_FINALIZER: Verdict = Refused("an agent takes only its own finalizer");

/// An agent, and one it must not harm.
struct Agent {
    client: Client,
    /// The server it is the agent of.
    me: String,
    /// The server of another agent.
    other: String,
    /// Whether RBAC refuses what no agent needs; else only policies do.
    limited_by_rbac: bool,
}

impl Agent {
    /// What happens to a request that no agent ever makes: RBAC refuses it, and without RBAC the policy.
    fn never(&self, policy: Verdict) -> Verdict {
        if self.limited_by_rbac { Refused("is forbidden: User") } else { policy }
    }
}

fn leases(client: &Client, namespace: &str) -> Api<DynamicObject> {
    Api::namespaced_with(client.clone(), namespace, &ApiResource::erase::<Lease>(&()))
}

fn lease(name: &str) -> DynamicObject {
    let mut lease = from(json!({"metadata": {"name": name}, "spec": {"holderIdentity": name}}));
    lease.types = Some(TypeMeta { api_version: "coordination.k8s.io/v1".into(), kind: "Lease".into() });
    lease
}

async fn attack_servers(agent: &Agent, verdicts: &mut Verdicts) {
    let Agent { client, me, other, .. } = agent;
    let api = servers(client);
    let create = async |name: &str, metadata: Value, spec: Value| {
        let mut server = object("DcvServer", name, spec);
        server.metadata = serde_json::from_value(crate::cluster::with(json!({"name": name}), &metadata)).unwrap();
        api.create(&dry_create(), &server).await
    };
    let owners = json!([{"apiVersion": "v1", "kind": "Node", "name": "a", "uid": "b"}]);
    let created = [
        (me, json!({}), json!({}), Allowed),
        (other, json!({}), json!({}), ANOTHERS_SERVER),
        (me, json!({}), json!({"placement": "Open"}), NOT_EMPTY),
        (me, json!({}), json!({"limits": {}}), NOT_EMPTY),
        (me, json!({}), json!({"allowedNamespaces": {}}), NOT_EMPTY),
        (me, json!({}), json!({"endSessions": ["a"]}), NOT_EMPTY),
        (me, json!({"labels": {"team": "a"}}), json!({}), NOT_EMPTY),
        (me, json!({"annotations": {"a": "b"}}), json!({}), NOT_EMPTY),
        (me, json!({"finalizers": [FOREIGN_FINALIZER]}), json!({}), NOT_EMPTY),
        (me, json!({"ownerReferences": owners}), json!({}), NOT_EMPTY),
    ];
    for (name, metadata, spec, verdict) in created {
        let case = format!("{me} creates the server {name} with {metadata} {spec}");
        verdicts.judge(case, create(name, metadata, spec).await, verdict);
    }

    for name in [me, other] {
        servers(&crate::cluster::admin().await)
            .create(&PostParams::default(), &object("DcvServer", name, json!({})))
            .await
            .unwrap();
    }
    for (name, verdict) in [(me, Allowed), (other, ANOTHERS_SERVER)] {
        let report = Patch::Merge(json!({"status": {"availability": "AVAILABLE", "unavailabilityReason": null}}));
        verdicts.judge(format!("{me} reports {name}"), api.patch_status(name, &dry_patch(), &report).await, verdict);
        let applied =
            json!({"apiVersion": "dcv-operator.io/v1alpha1", "kind": "DcvServer", "status": {"backend": "vnc"}});
        let apply = PatchParams { dry_run: true, ..PatchParams::apply("dcv-agent").force() };
        let result = api.patch_status(name, &apply, &Patch::Apply(applied)).await;
        verdicts.judge(format!("{me} applies the status of {name}"), result, verdict);
    }
    // Through the status nothing else changes.
    let sneaky =
        json!({"metadata": {"labels": {"team": "a"}}, "spec": {"placement": "Open"}, "status": {"backend": "vnc"}});
    let result = api.patch_status(me, &dry_patch(), &Patch::Merge(sneaky)).await;
    let untouched =
        result.as_ref().is_ok_and(|server| server.metadata.labels.is_none() && server.data["spec"] == json!({}));
    assert!(untouched, "{me} changed spec or labels through the status: {result:?}");
    for (change, name) in [
        (json!({"spec": {"placement": "Open"}}), me),
        (json!({"metadata": {"labels": {"team": "a"}}}), me),
        (json!({"spec": {"placement": "Closed"}}), other),
    ] {
        let policy =
            if name == me { Refused("an agent writes only the status of its server") } else { ANOTHERS_SERVER };
        let result = api.patch(name, &dry_patch(), &Patch::Merge(&change)).await;
        verdicts.judge(format!("{me} changes {name}: {change}"), result, agent.never(policy));
    }
    let deleted = [(me, Refused("an agent deletes no server")), (other, ANOTHERS_SERVER)];
    for (name, policy) in deleted {
        verdicts.judge(format!("{me} deletes {name}"), api.delete(name, &dry_delete()).await, agent.never(policy));
    }
    let all = api.delete_collection(&dry_delete(), &ListParams::default()).await;
    verdicts.judge(format!("{me} deletes every server"), all, agent.never(Refused("")));
}

async fn attack_leases(agent: &Agent, verdicts: &mut Verdicts) {
    let Agent { client, me, other, .. } = agent;
    let api = leases(client, SYSTEM);
    let renew = Patch::Merge(json!({"spec": {"holderIdentity": "a"}}));
    for (name, verdict) in
        [(me.as_str(), Allowed), (other.as_str(), ANOTHERS_LEASE), ("dcv-operator-controller", ANOTHERS_LEASE)]
    {
        verdicts.judge(
            format!("{me} creates the Lease {name}"),
            api.create(&dry_create(), &lease(name)).await,
            verdict,
        );
    }
    let admin = leases(&crate::cluster::admin().await, SYSTEM);
    for name in [me, other] {
        admin.create(&PostParams::default(), &lease(name)).await.unwrap();
    }
    for (name, verdict) in [(me, Allowed), (other, ANOTHERS_LEASE)] {
        verdicts.judge(format!("{me} renews the Lease {name}"), api.patch(name, &dry_patch(), &renew).await, verdict);
    }
    let gone = api.delete(me, &dry_delete()).await;
    verdicts.judge(format!("{me} deletes its Lease"), gone, agent.never(Refused("an agent deletes no Lease")));
    let elsewhere = leases(client, "default").create(&dry_create(), &lease(me)).await;
    verdicts.judge(format!("{me} creates a Lease elsewhere"), elsewhere, agent.never(ANOTHERS_LEASE));
    for name in [me, other] {
        admin.delete(name, &DeleteParams::default()).await.unwrap();
    }
}

/// Sessions in every relation to the agent: `mine`, `closing` (mine, being deleted), `theirs`, `waiting`.
async fn make_sessions(admin: &Client, namespace: &str, agent: &Agent) {
    let api = sessions(admin, namespace);
    for (name, server) in
        [("mine", Some(&agent.me)), ("closing", Some(&agent.me)), ("theirs", Some(&agent.other)), ("waiting", None)]
    {
        let mut session = object("DcvSession", name, smallest_session());
        session.metadata.finalizers = Some(vec![FINALIZER.to_owned(), FOREIGN_FINALIZER.to_owned()]);
        api.create(&PostParams::default(), &session).await.unwrap();
        if let Some(server) = server {
            let bound = json!({"serverName": server, "sessionId": name, "attempt": 2, "retries": 1,
                "attempts": [{"serverName": "a", "time": "2026-01-01T00:00:00Z", "reason": "Failed"}]});
            write_status(&api, name, bound).await.unwrap();
        }
    }
    api.delete("closing", &DeleteParams::default()).await.unwrap();
}

async fn attack_statuses(agent: &Agent, namespace: &str, verdicts: &mut Verdicts) {
    let Agent { client, me, other, .. } = agent;
    let api = sessions(client, namespace);
    let ready = json!({"serverName": me, "attempt": 2, "state": "READY", "substate": null, "numOfConnections": 0});
    let cases = [
        ("mine", json!({"serverName": me, "attempt": 2, "state": "READY", "substate": null}), Allowed),
        ("closing", json!({"serverName": me, "attempt": 2, "state": "DELETING"}), Allowed),
        ("mine", json!({"serverName": me, "attempt": 2, "serverUid": "new"}), Allowed),
        ("theirs", ready.clone(), NOT_BOUND),
        ("theirs", json!({"serverName": me}), NOT_BOUND),
        ("theirs", json!({"state": "DELETED"}), NOT_BOUND),
        ("waiting", ready, NOT_BOUND),
        ("waiting", json!({"serverName": me, "attempt": 1}), NOT_BOUND),
        ("mine", json!({"serverName": other}), MOVED),
        ("mine", json!({"serverName": null}), MOVED),
        ("mine", json!({"serverName": ""}), MOVED),
        ("mine", json!({"serverName": me, "attempt": 1}), Refused("attempt may not decrease")),
        ("mine", json!({"serverName": me, "attempt": null}), Refused("attempt may not decrease")),
        ("mine", json!({"serverName": me, "attempt": 3}), Refused("an agent may not answer for another attempt")),
        ("mine", json!({"sessionId": "theirs"}), ID_OR_MEMORY),
        ("mine", json!({"sessionId": null}), ID_OR_MEMORY),
        ("mine", json!({"retries": 0}), ID_OR_MEMORY),
        ("mine", json!({"attempts": null}), ID_OR_MEMORY),
    ];
    for (name, status, verdict) in cases {
        let result = api.patch_status(name, &dry_patch(), &Patch::Merge(json!({"status": status}))).await;
        verdicts.judge(format!("{me} writes the status of {name}: {status}"), result, verdict);
    }
    // A whole replace and an apply are the same to the policies.
    let mut whole = api.get("waiting").await.unwrap();
    whole.data["status"]["serverName"] = json!(me);
    let result = api.replace_status("waiting", &dry_create(), &whole).await;
    verdicts.judge(format!("{me} replaces the status of waiting"), result, NOT_BOUND);
    let applied = json!({"apiVersion": "dcv-operator.io/v1alpha1", "kind": "DcvSession", "status": {"serverName": me}});
    let apply = PatchParams { dry_run: true, ..PatchParams::apply("dcv-agent").force() };
    verdicts.judge(
        format!("{me} applies the status of theirs"),
        api.patch_status("theirs", &apply, &Patch::Apply(applied)).await,
        NOT_BOUND,
    );
}

async fn attack_sessions(agent: &Agent, namespace: &str, verdicts: &mut Verdicts) {
    let Agent { client, me, .. } = agent;
    let api = sessions(client, namespace);
    let owners = json!([{"apiVersion": "v1", "kind": "Node", "name": "a", "uid": "b"}]);
    let cases = [
        ("mine", json!({"spec": {"displayName": "a"}}), SPEC_OR_LABELS),
        ("mine", json!({"spec": {"permissions": "a"}}), SPEC_OR_LABELS),
        ("mine", json!({"metadata": {"labels": {"a": "b"}}}), SPEC_OR_LABELS),
        ("mine", json!({"metadata": {"annotations": {"a": "b"}}}), SPEC_OR_LABELS),
        ("mine", json!({"metadata": {"ownerReferences": owners}}), SPEC_OR_LABELS),
        ("mine", json!({"metadata": {"finalizers": [FINALIZER, FOREIGN_FINALIZER, "a.example.com/b"]}}), ITS_FINALIZER),
        ("mine", json!({"metadata": {"finalizers": [FINALIZER]}}), ITS_FINALIZER),
        ("mine", json!({"metadata": {"finalizers": [FOREIGN_FINALIZER]}}), ITS_FINALIZER),
        ("mine", json!({"metadata": {"finalizers": null}}), ITS_FINALIZER),
        ("closing", json!({"metadata": {"finalizers": [FINALIZER]}}), ITS_FINALIZER),
        ("closing", json!({"metadata": {"finalizers": null}}), ITS_FINALIZER),
        ("closing", json!({"spec": {"displayName": "a"}}), SPEC_OR_LABELS),
        ("closing", json!({"metadata": {"finalizers": [FOREIGN_FINALIZER]}}), Allowed),
        ("theirs", json!({"spec": {"displayName": "a"}}), NOT_BOUND),
        ("theirs", json!({"metadata": {"finalizers": null}}), NOT_BOUND),
        ("waiting", json!({"metadata": {"labels": {"a": "b"}}}), NOT_BOUND),
    ];
    for (name, change, verdict) in cases {
        let result = api.patch(name, &dry_patch(), &Patch::Merge(&change)).await;
        verdicts.judge(format!("{me} changes {name}: {change}"), result, verdict);
    }
    let policy = Refused("an agent deletes no sessions");
    for (name, policy) in [("mine", policy), ("theirs", NOT_BOUND), ("waiting", NOT_BOUND)] {
        verdicts.judge(format!("{me} deletes {name}"), api.delete(name, &dry_delete()).await, agent.never(policy));
    }
    let all = api.delete_collection(&dry_delete(), &ListParams::default()).await;
    verdicts.judge(format!("{me} deletes every session"), all, agent.never(Refused("")));
    let created = api.create(&dry_create(), &object("DcvSession", "new", smallest_session())).await;
    verdicts.judge(format!("{me} creates a session"), created, agent.never(Refused("an agent creates no sessions")));
    // Reading is what it lives on.
    verdicts.judge(format!("{me} lists sessions"), api.list(&ListParams::default()).await, Allowed);
}

async fn run_matrix(agent: Agent) {
    in_namespace("agent", async |admin, namespace| {
        let mut verdicts = Verdicts::default();
        make_sessions(&admin, &namespace, &agent).await;
        attack_servers(&agent, &mut verdicts).await;
        attack_leases(&agent, &mut verdicts).await;
        attack_statuses(&agent, &namespace, &mut verdicts).await;
        attack_sessions(&agent, &namespace, &mut verdicts).await;
        // The real thing, not a dry run: its own finalizer goes, once.
        let taken = Patch::Merge(json!({"metadata": {"finalizers": [FOREIGN_FINALIZER]}}));
        sessions(&agent.client, &namespace).patch("closing", &PatchParams::default(), &taken).await.unwrap();
        // So that the namespace can go.
        let api = sessions(&admin, &namespace);
        for session in ["mine", "closing", "theirs", "waiting"] {
            let none = Patch::Merge(json!({"metadata": {"finalizers": null}}));
            api.patch(session, &PatchParams::default(), &none).await.unwrap();
        }
        for server in [&agent.me, &agent.other] {
            servers(&admin).delete(server, &DeleteParams::default()).await.unwrap();
        }
        verdicts.finish();
    })
    .await;
}

/// The agent of a host outside the cluster, with an account of its own.
async fn host() -> Agent {
    let admin = crate::cluster::admin().await;
    let me = unique("host-test");
    make_account(&admin, HOSTS, &me).await;
    let token = request_token(&admin, HOSTS, &me, Some(("Secret", &me)), None).await.unwrap();
    Agent { client: bearer(&token).await, me, other: unique("host-other"), limited_by_rbac: true }
}

#[tokio::test]
#[ignore = "needs an API server"]
async fn a_host_outside_the_cluster_is_kept_to_its_server() {
    let agent = host().await;
    let me = agent.me.clone();
    run_matrix(agent).await;
    crate::tokens::remove_account(&me).await;
}

#[tokio::test]
#[ignore = "needs an API server"]
async fn policies_hold_where_rbac_forgot_to() {
    let agent = host().await;
    let admin = crate::cluster::admin().await;
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": agent.me},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"kind": "ServiceAccount", "namespace": HOSTS, "name": agent.me}],
    });
    let bindings = Api::<k8s_openapi::api::rbac::v1::ClusterRoleBinding>::all(admin);
    bindings.create(&PostParams::default(), &serde_json::from_value(binding).unwrap()).await.unwrap();
    crate::cluster::eventually("the binding is known", async || {
        Api::<k8s_openapi::api::core::v1::Secret>::all(agent.client.clone()).list(&ListParams::default()).await.is_ok()
    })
    .await;
    let me = agent.me.clone();
    run_matrix(Agent { limited_by_rbac: false, ..agent }).await;
    bindings.delete(&me, &DeleteParams::default()).await.unwrap();
    crate::tokens::remove_account(&me).await;
}

/// A Node and a pod on it that runs as the account of the agents' pods; nothing runs either.
async fn make_node_and_pod(admin: &Client, node: &str) {
    let object = json!({"metadata": {"name": node}});
    let nodes = Api::<k8s_openapi::api::core::v1::Node>::all(admin.clone());
    nodes.create(&PostParams::default(), &serde_json::from_value(object).unwrap()).await.unwrap();
    let pod = json!({
        "metadata": {"name": node},
        "spec": {
            "nodeName": node, "serviceAccountName": "dcv-agent", "automountServiceAccountToken": false,
            "containers": [{"name": "agent", "image": "none"}],
        },
    });
    let pods = Api::<k8s_openapi::api::core::v1::Pod>::namespaced(admin.clone(), SYSTEM);
    pods.create(&PostParams::default(), &serde_json::from_value(pod).unwrap()).await.unwrap();
}

#[tokio::test]
#[ignore = "needs an API server"]
async fn an_agent_of_the_daemon_set_is_kept_to_its_node() {
    let admin = crate::cluster::admin().await;
    for kind in ["Pod", "Node"] {
        let node = unique("node");
        make_node_and_pod(&admin, &node).await;
        let token = request_token(&admin, SYSTEM, "dcv-agent", Some((kind, &node)), None).await.unwrap();
        let client = bearer(&token).await;
        run_matrix(Agent { client, me: node.clone(), other: unique("node"), limited_by_rbac: true }).await;
        let now = DeleteParams::default().grace_period(0);
        let pods = Api::<k8s_openapi::api::core::v1::Pod>::namespaced(admin.clone(), SYSTEM);
        pods.delete(&node, &now).await.unwrap();
        Api::<k8s_openapi::api::core::v1::Node>::all(admin.clone()).delete(&node, &now).await.unwrap();
    }
}

#[tokio::test]
#[ignore = "needs an API server"]
async fn a_token_that_names_no_server_writes_nothing() {
    let admin = crate::cluster::admin().await;
    let nameless = Refused("the token names no server");
    let mut verdicts = Verdicts::default();
    // Accounts of hosts whose name is not a server's own: the default one, and one that would own a Node's server.
    let account = unique("node");
    make_account(&admin, HOSTS, &account).await;
    for (namespace, name) in [(SYSTEM, "dcv-agent"), (HOSTS, "default"), (HOSTS, account.as_str())] {
        let client = bearer(&request_token(&admin, namespace, name, None, None).await.unwrap()).await;
        let created = servers(&client).create(&dry_create(), &object("DcvServer", name, json!({}))).await;
        verdicts.judge(format!("{namespace}/{name} creates a server"), created, nameless);
        let created = leases(&client, SYSTEM).create(&dry_create(), &lease(name)).await;
        verdicts.judge(format!("{namespace}/{name} creates a Lease"), created, nameless);
    }
    in_namespace("nameless", async |admin, namespace| {
        let client = bearer(&request_token(&admin, SYSTEM, "dcv-agent", None, None).await.unwrap()).await;
        sessions(&admin, &namespace)
            .create(&PostParams::default(), &object("DcvSession", "a", smallest_session()))
            .await
            .unwrap();
        // Unbound is not "bound to nobody's server, hence nobody's agent".
        let patch = Patch::Merge(json!({"status": {"state": "DELETED"}}));
        let result = sessions(&client, &namespace).patch_status("a", &dry_patch(), &patch).await;
        verdicts.judge("dcv-agent writes the status of a waiting session", result, nameless);
        verdicts.finish();
    })
    .await;
    crate::tokens::remove_account(&account).await;
}
