//! What the definitions refuse at updates: what a session is may not change, and some things move only forward.

use kube::Api;
use kube::api::DynamicObject;
use kube::api::Patch;
use kube::api::PostParams;
use serde_json::Value;
use serde_json::json;

use crate::cluster::Verdict::Allowed;
use crate::cluster::Verdict::Refused;
use crate::cluster::Verdicts;
use crate::cluster::admin;
use crate::cluster::api_clients;
use crate::cluster::dry_patch;
use crate::cluster::in_namespace;
use crate::cluster::object;
use crate::cluster::servers;
use crate::cluster::sessions;
use crate::cluster::unique;
use crate::cluster::write_status;
use crate::schema::smallest_session;

/// Each immutable field with a value, another one, and the message.
fn immutable() -> [(&'static str, Value, Value, &'static str); 12] {
    [
        ("owner", json!("ann"), json!("bob"), "owner is immutable"),
        ("type", json!("VIRTUAL"), json!("CONSOLE"), "type is immutable"),
        ("requirements", json!("tag:a = 'b'"), json!(""), "requirements is immutable"),
        (
            "serverSelector",
            json!({"matchLabels": {"a": "b"}}),
            json!({"matchLabels": {"a": "c"}}),
            "serverSelector is immutable",
        ),
        ("initFile", json!("a"), json!("b"), "initFile is immutable"),
        ("autorunFile", json!("a"), json!("b"), "autorunFile is immutable"),
        ("autorunFileArguments", json!(["a", "b"]), json!(["b", "a"]), "autorunFileArguments is immutable"),
        ("maxConcurrentClients", json!(2), json!(3), "maxConcurrentClients is immutable"),
        ("dcvGlEnabled", json!(true), json!(false), "dcvGlEnabled is immutable"),
        ("storageRoot", json!("%home%"), json!("/tmp"), "storageRoot is immutable"),
        (
            "adopt",
            json!({"serverName": "a", "sessionId": "b"}),
            json!({"serverName": "a", "sessionId": "c"}),
            "adopt is immutable",
        ),
        ("enqueueRequest", json!(true), json!(false), ""),
    ]
}

/// Each field that may change on a running session, with two values.
fn mutable() -> [(&'static str, Value, Value); 11] {
    [
        ("displayName", json!("a"), json!("b")),
        ("permissions", json!("a"), json!("b")),
        ("disableRetryOnFailure", json!(false), json!(true)),
        ("priority", json!(1), json!(2)),
        ("placementPolicy", json!("Spread"), json!("Pack")),
        ("queueTimeoutSeconds", json!(1), json!(2)),
        ("restartPolicy", json!("Never"), json!("Always")),
        ("maxDurationSeconds", json!(60), json!(61)),
        ("disconnectTimeoutSeconds", json!(60), json!(61)),
        ("tokensValidFrom", json!("2026-01-01T00:00:00Z"), json!("2026-01-02T00:00:00Z")),
        ("ttlSecondsAfterFinished", json!(60), json!(61)),
    ]
}

/// A session with every field set.
fn full_spec() -> Value {
    let immutable = immutable().into_iter().map(|(field, value, _, _)| (field.to_owned(), value));
    let mutable = mutable().into_iter().map(|(field, value, _)| (field.to_owned(), value));
    immutable.chain(mutable).collect::<serde_json::Map<_, _>>().into()
}

async fn make(api: &Api<DynamicObject>, object: &DynamicObject) {
    api.create(&PostParams::default(), object).await.unwrap();
}

/// Tries a change of the spec without making it.
async fn try_spec(api: &Api<DynamicObject>, name: &str, spec: Value) -> kube::Result<DynamicObject> {
    api.patch(name, &dry_patch(), &Patch::Merge(json!({"spec": spec}))).await
}

#[tokio::test]
#[ignore = "needs an API server"]
async fn what_a_session_is_can_be_neither_changed_nor_removed_nor_added() {
    in_namespace("immutable", async |client, namespace| {
        let api = sessions(&client, &namespace);
        make(&api, &object("DcvSession", "full", full_spec())).await;
        // With a program to start, so that its arguments can be added alone.
        make(&api, &object("DcvSession", "small", smallest_session())).await;
        let mut verdicts = Verdicts::default();
        for (field, value, other, message) in immutable() {
            if message.is_empty() {
                verdicts.judge(field, try_spec(&api, "full", json!({field: other})).await, Allowed);
                continue;
            }
            let required = ["owner", "type"].contains(&field);
            verdicts.judge(
                format!("{field} changed"),
                try_spec(&api, "full", json!({field: other})).await,
                Refused(message),
            );
            let message_on_removal = if required { "Required value" } else { message };
            verdicts.judge(
                format!("{field} removed"),
                try_spec(&api, "full", json!({field: null})).await,
                Refused(message_on_removal),
            );
            if !required {
                verdicts.judge(
                    format!("{field} added"),
                    try_spec(&api, "small", json!({field: value})).await,
                    Refused(message),
                );
            }
        }
        for (field, value, other) in mutable() {
            verdicts.judge(format!("{field} changed"), try_spec(&api, "full", json!({field: other})).await, Allowed);
            verdicts.judge(format!("{field} removed"), try_spec(&api, "full", json!({field: null})).await, Allowed);
            verdicts.judge(format!("{field} added"), try_spec(&api, "small", json!({field: value})).await, Allowed);
        }
        verdicts.finish();
    })
    .await;
}

#[tokio::test]
#[ignore = "needs an API server"]
async fn the_desired_state_moves_only_forward() {
    let forward = "desiredState must only move forward: Running, Closed, ForceClosed";
    let cases = [
        ("Running", "Closed", Allowed),
        ("Running", "ForceClosed", Allowed),
        ("Closed", "ForceClosed", Allowed),
        ("Closed", "Closed", Allowed),
        ("Closed", "Running", Refused(forward)),
        ("ForceClosed", "Closed", Refused(forward)),
        ("ForceClosed", "Running", Refused(forward)),
    ];
    in_namespace("desired-state", async |client, namespace| {
        let api = sessions(&client, &namespace);
        let mut verdicts = Verdicts::default();
        for state in ["Running", "Closed", "ForceClosed"] {
            let spec = json!({"owner": "ann", "type": "VIRTUAL", "desiredState": state});
            make(&api, &object("DcvSession", &state.to_lowercase(), spec)).await;
        }
        for (old, new, verdict) in cases {
            let result = try_spec(&api, &old.to_lowercase(), json!({"desiredState": new})).await;
            verdicts.judge(format!("{old} to {new}"), result, verdict);
        }
        // Removed, it is Running again by the default.
        verdicts.judge("removed", try_spec(&api, "closed", json!({"desiredState": null})).await, Refused(forward));
        verdicts.finish();
    })
    .await;
}

#[tokio::test]
#[ignore = "needs an API server"]
async fn a_finished_session_keeps_its_spec_except_for_its_time_to_live() {
    let frozen = "a finished session may not be changed, except for ttlSecondsAfterFinished";
    in_namespace("finished", async |client, namespace| {
        let api = sessions(&client, &namespace);
        let finished = json!({"type": "Finished", "status": "True", "reason": "Closed", "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z"});
        for (name, spec) in [("full", full_spec()), ("small", smallest_session())] {
            make(&api, &object("DcvSession", name, spec)).await;
            write_status(&api, name, json!({"state": "DELETED", "substate": null, "conditions": [finished]}))
                .await
                .unwrap();
        }
        let mut verdicts = Verdicts::default();
        let fields = mutable().into_iter().chain([
            ("enqueueRequest", json!(true), json!(false)),
            ("desiredState", json!("Running"), json!("Closed")),
        ]);
        for (field, value, other) in fields {
            let verdict = if field == "ttlSecondsAfterFinished" { Allowed } else { Refused(frozen) };
            verdicts.judge(format!("{field} changed"), try_spec(&api, "full", json!({field: other})).await, verdict);
            let defaulted = ["disableRetryOnFailure", "restartPolicy", "enqueueRequest", "desiredState"];
            if !defaulted.contains(&field) {
                verdicts.judge(format!("{field} removed"), try_spec(&api, "full", json!({field: null})).await, verdict);
                verdicts.judge(format!("{field} added"), try_spec(&api, "small", json!({field: value})).await, verdict);
            }
        }
        // It is still an object: labels, status and its end stay possible.
        let label = Patch::Merge(json!({"metadata": {"labels": {"a": "b"}}}));
        verdicts.judge("labels", api.patch("full", &dry_patch(), &label).await, Allowed);
        verdicts.judge("status", write_status(&api, "full", json!({"observedGeneration": 2})).await, Allowed);
        verdicts.finish();
    })
    .await;
}

#[tokio::test]
#[ignore = "needs an API server"]
async fn a_status_with_wrong_values_is_refused_and_attempts_never_decrease() {
    let fewer = "attempt may not decrease";
    let condition = |name: &str| json!({"type": name, "status": "True", "reason": "A", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"});
    let seventeen: Vec<_> = (0..17).map(|number| condition(&format!("C{number}"))).collect();
    let attempt = json!({"serverName": "a", "time": "2026-01-01T00:00:00Z", "reason": "Failed"});
    let cases = [
        (json!({"attempt": 2}), Allowed),
        (json!({"attempt": 3}), Allowed),
        (json!({"attempt": 1}), Refused(fewer)),
        (json!({"attempt": null}), Refused(fewer)),
        (json!({"attempt": -1}), Refused("should be greater than or equal to 0")),
        (json!({"state": "RUNNING"}), Refused("Unsupported value: \"RUNNING\"")),
        (json!({"substate": "WAITING"}), Refused("Unsupported value: \"WAITING\"")),
        (json!({"conditions": [condition("Ready"), condition("Ready")]}), Refused("Duplicate value")),
        (json!({"conditions": seventeen}), Refused("must have at most 16 items")),
        (json!({"conditions": [{"type": "Ready", "status": "Maybe"}]}), Refused("Unsupported value: \"Maybe\"")),
        (json!({"attempts": vec![attempt; 6]}), Refused("must have at most 5 items")),
        (json!({"server": {"ip": "10.0.0.1", "port": 0, "webUrlPath": "/"}}), Refused("greater than or equal to 1")),
        (json!({"server": {"ip": "10.0.0.1", "port": 8443}}), Refused("webUrlPath: Required value")),
        (json!({"numOfConnections": -1}), Refused("should be greater than or equal to 0")),
    ];
    in_namespace("status", async |client, namespace| {
        let api = sessions(&client, &namespace);
        make(&api, &object("DcvSession", "a", smallest_session())).await;
        write_status(&api, "a", json!({"attempt": 2})).await.unwrap();
        let mut verdicts = Verdicts::default();
        for (status, verdict) in cases {
            let patch = Patch::Merge(json!({"status": status}));
            verdicts.judge(&status, api.patch_status("a", &dry_patch(), &patch).await, verdict);
        }
        let without = Patch::Merge(json!({"status": null}));
        verdicts.judge("no status", api.patch_status("a", &dry_patch(), &without).await, Refused(fewer));
        verdicts.finish();
    })
    .await;
}

#[tokio::test]
#[ignore = "needs an API server"]
async fn a_servers_status_with_wrong_values_is_refused() {
    let other = json!({"id": "a", "owner": "ann", "type": "VIRTUAL", "origin": "Manual"});
    let cases = [
        (json!({"availability": "AVAILABLE", "unavailabilityReason": null}), Allowed),
        (json!({"otherSessions": [other]}), Allowed),
        (json!({"availability": "BUSY"}), Refused("Unsupported value: \"BUSY\"")),
        (json!({"unavailabilityReason": "TIRED"}), Refused("Unsupported value: \"TIRED\"")),
        (json!({"otherSessions": [other, other]}), Refused("Duplicate value")),
        (json!({"otherSessions": [with_origin(&other)]}), Refused("supported values: \"Manual\", \"Unclaimed\"")),
        (json!({"port": 65_536}), Refused("should be less than or equal to 65535")),
        (json!({"endpoints": [{"ipAddress": "::1", "port": 1, "protocol": "TCP"}]}), Refused("\"HTTP\", \"QUIC\"")),
        (json!({"virtualSessionCount": -1}), Refused("should be greater than or equal to 0")),
        (json!({"host": {"memory": {"totalBytes": -1, "usedBytes": 0}}}), Refused("greater than or equal to 0")),
    ];
    let client = admin().await;
    let api = servers(&client);
    let name = unique("test-status");
    make(&api, &object("DcvServer", &name, json!({}))).await;
    let mut verdicts = Verdicts::default();
    for (status, verdict) in cases {
        let patch = Patch::Merge(json!({"status": status}));
        verdicts.judge(&status, api.patch_status(&name, &dry_patch(), &patch).await, verdict);
    }
    api.delete(&name, &kube::api::DeleteParams::default()).await.unwrap();
    verdicts.finish();
}

fn with_origin(other: &Value) -> Value {
    crate::cluster::with(other.clone(), &json!({"origin": "Elsewhere"}))
}

#[tokio::test]
#[ignore = "needs an API server"]
async fn the_id_of_a_client_can_be_neither_changed_nor_removed_nor_added() {
    let message = "clientId is immutable";
    in_namespace("client-id", async |client, namespace| {
        let api = api_clients(&client, &namespace);
        make(&api, &object("ApiClient", "named", json!({"clientId": "a"}))).await;
        make(&api, &object("ApiClient", "unnamed", json!({}))).await;
        let mut verdicts = Verdicts::default();
        verdicts.judge("changed", try_spec(&api, "named", json!({"clientId": "b"})).await, Refused(message));
        verdicts.judge("removed", try_spec(&api, "named", json!({"clientId": null})).await, Refused(message));
        verdicts.judge("added", try_spec(&api, "unnamed", json!({"clientId": "b"})).await, Refused(message));
        verdicts.judge("other fields", try_spec(&api, "named", json!({"suspended": true})).await, Allowed);
        verdicts.finish();
    })
    .await;
}
