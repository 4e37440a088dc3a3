//! What the definitions refuse at creation: bounds, words, patterns and rules, each with its message.

use serde_json::Value;
use serde_json::json;

use crate::cluster::Verdict::Allowed;
use crate::cluster::Verdict::Refused;
use crate::cluster::Verdicts;
use crate::cluster::admin;
use crate::cluster::api_clients;
use crate::cluster::dry_create;
use crate::cluster::in_namespace;
use crate::cluster::kubectl;
use crate::cluster::object;
use crate::cluster::servers;
use crate::cluster::sessions;
use crate::cluster::text;
use crate::cluster::with;

/// The least a session needs.
pub fn smallest_session() -> Value {
    json!({"owner": "ann", "type": "VIRTUAL"})
}

fn text_of(length: usize) -> String {
    "x".repeat(length)
}

fn list_of(length: usize) -> Vec<String> {
    (0..length).map(|number| number.to_string()).collect()
}

const YEAR: i64 = 31_536_000;

#[tokio::test]
#[ignore = "needs an API server"]
async fn a_session_with_a_wrong_spec_is_refused_with_a_reason() {
    let selector = |expression: Value| json!({"serverSelector": {"matchExpressions": [expression]}});
    let labels: Value = list_of(65).into_iter().map(|key| (key, json!("a"))).collect::<serde_json::Map<_, _>>().into();
    let refused = [
        (json!({"owner": null}), "spec.owner: Required value"),
        (json!({"owner": ""}), "spec.owner in body should be at least 1 chars long"),
        (json!({"owner": text_of(257)}), "Too long: may not be more than 256"),
        (json!({"owner": "-x"}), "spec.owner in body should match"),
        (json!({"owner": "a\nb"}), "spec.owner in body should match"),
        (json!({"owner": "\u{7f}"}), "spec.owner in body should match"),
        (json!({"type": null}), "spec.type: Required value"),
        (json!({"type": "SHARED"}), "Unsupported value: \"SHARED\": supported values: \"CONSOLE\", \"VIRTUAL\""),
        (json!({"type": "virtual"}), "Unsupported value: \"virtual\""),
        (json!({"displayName": ""}), "spec.displayName in body should be at least 1 chars long"),
        (json!({"displayName": text_of(257)}), "Too long: may not be more than 256"),
        (json!({"requirements": text_of(4097)}), "Too long: may not be more than 4096"),
        (selector(json!({"key": "a", "operator": "Near"})), "Unsupported value: \"Near\""),
        (selector(json!({"operator": "Exists"})), "key: Required value"),
        (json!({"serverSelector": {"matchLabels": {"a": text_of(64)}}}), "Too long: may not be more than 63"),
        (json!({"serverSelector": {"matchLabels": labels}}), "Too many: 65: must have at most 64 items"),
        (json!({"initFile": ""}), "spec.initFile in body should be at least 1 chars long"),
        (json!({"initFile": text_of(1025)}), "Too long: may not be more than 1024"),
        (json!({"initFile": "/bin/sh"}), "initFile must be a relative path without .."),
        (json!({"initFile": "a/../../b"}), "initFile must be a relative path without .."),
        (json!({"initFile": ".."}), "initFile must be a relative path without .."),
        (json!({"autorunFile": "/bin/sh"}), "autorunFile must be a relative path without .."),
        (json!({"autorunFile": "../a"}), "autorunFile must be a relative path without .."),
        (json!({"autorunFileArguments": ["a"]}), "autorunFileArguments may not be set when autorunFile is absent"),
        (json!({"autorunFile": "a", "autorunFileArguments": list_of(201)}), "must have at most 200 items"),
        (json!({"autorunFile": "a", "autorunFileArguments": [text_of(4097)]}), "Too long: may not be more than 4096"),
        (json!({"maxConcurrentClients": -1}), "should be greater than or equal to 1"),
        (json!({"maxConcurrentClients": 0}), "should be greater than or equal to 1"),
        (json!({"maxConcurrentClients": 10_001}), "should be less than or equal to 10000"),
        (json!({"dcvGlEnabled": "yes"}), "must be of type boolean"),
        (json!({"permissions": text_of(65_537)}), "Too long: may not be more than 65536"),
        (json!({"storageRoot": ""}), "spec.storageRoot in body should be at least 1 chars long"),
        (json!({"storageRoot": text_of(1025)}), "Too long: may not be more than 1024"),
        (json!({"priority": 1_000_001}), "should be less than or equal to 1000000"),
        (json!({"priority": -1_000_001}), "should be greater than or equal to -1000000"),
        (json!({"placementPolicy": "Random"}), "supported values: \"Spread\", \"Pack\""),
        (json!({"queueTimeoutSeconds": 0}), "should be greater than or equal to 1"),
        (json!({"queueTimeoutSeconds": YEAR + 1}), "should be less than or equal to 31536000"),
        (json!({"desiredState": "Paused"}), "supported values: \"Running\", \"Closed\", \"ForceClosed\""),
        (
            json!({"restartPolicy": "Maybe"}),
            "supported values: \"Never\", \"OnServerLoss\", \"OnUnreachable\", \"Always\"",
        ),
        (json!({"maxDurationSeconds": 59}), "should be greater than or equal to 60"),
        (json!({"maxDurationSeconds": YEAR + 1}), "should be less than or equal to 31536000"),
        (json!({"disconnectTimeoutSeconds": 59}), "should be greater than or equal to 60"),
        (json!({"ttlSecondsAfterFinished": -1}), "should be greater than or equal to 0"),
        (json!({"ttlSecondsAfterFinished": YEAR + 1}), "should be less than or equal to 31536000"),
        (json!({"tokensValidFrom": "yesterday"}), "must be of type date-time"),
        (json!({"adopt": {"serverName": "a"}}), "spec.adopt.sessionId: Required value"),
        (json!({"adopt": {"serverName": "", "sessionId": "b"}}), "should be at least 1 chars long"),
        (json!({"type": "CONSOLE", "initFile": "a"}), "initFile may not be set when type is CONSOLE"),
        (json!({"type": "CONSOLE", "dcvGlEnabled": true}), "dcvGlEnabled may not be set when type is CONSOLE"),
        (
            json!({"type": "CONSOLE", "autorunFile": "a", "autorunFileArguments": ["b"]}),
            "autorunFileArguments may not be set when type is CONSOLE",
        ),
    ];
    let allowed = [
        json!({}),
        json!({"owner": "DOMAIN\\eve"}),
        json!({"owner": "an owner 1890"}),
        json!({"owner": text_of(256)}),
        json!({"displayName": text_of(256), "requirements": text_of(4096), "permissions": text_of(65_536)}),
        json!({"requirements": "", "permissions": ""}),
        json!({"initFile": "desks/..a/b..", "autorunFile": text_of(1024), "storageRoot": "%home%/files"}),
        json!({"autorunFile": "a", "autorunFileArguments": vec![text_of(4096); 200]}),
        json!({"maxConcurrentClients": 10_000, "priority": -1_000_000, "queueTimeoutSeconds": YEAR}),
        json!({"maxDurationSeconds": 60, "disconnectTimeoutSeconds": YEAR, "ttlSecondsAfterFinished": 0}),
        json!({"placementPolicy": "Pack", "restartPolicy": "OnUnreachable", "desiredState": "Closed"}),
        json!({"tokensValidFrom": "2026-11-24T12:00:00.5Z", "adopt": {"serverName": "host-1", "sessionId": "a"}}),
        json!({"type": "CONSOLE", "autorunFile": "a"}),
        selector(json!({"key": "gpu", "operator": "In", "values": ["a", "b"]})),
    ];
    in_namespace("session-schema", async |client, namespace| {
        let api = sessions(&client, &namespace);
        let mut verdicts = Verdicts::default();
        for (change, part) in refused {
            let session = object("DcvSession", "a", with(smallest_session(), &change));
            verdicts.judge(short(&change), api.create(&dry_create(), &session).await, Refused(part));
        }
        for change in allowed {
            let session = object("DcvSession", "a", with(smallest_session(), &change));
            verdicts.judge(short(&change), api.create(&dry_create(), &session).await, Allowed);
        }
        verdicts.finish();
    })
    .await;
}

#[tokio::test]
#[ignore = "needs an API server"]
async fn a_server_with_a_wrong_spec_is_refused_with_a_reason() {
    let client = admin().await;
    let api = servers(&client);
    let grace = "drainGraceSeconds may not be set when placement is not Draining";
    let cases = [
        (json!({}), Allowed),
        (json!({"placement": "Draining", "drainGraceSeconds": 0}), Allowed),
        (json!({"limits": {"maxVirtualSessions": -1, "maxConcurrentSessionsPerUser": 100_000}}), Allowed),
        (json!({"allowedNamespaces": {}, "endSessions": list_of(100)}), Allowed),
        (json!({"placement": "Shut"}), Refused("supported values: \"Open\", \"Closed\", \"Draining\"")),
        (json!({"drainGraceSeconds": 5}), Refused(grace)),
        (json!({"placement": "Closed", "drainGraceSeconds": 5}), Refused(grace)),
        (json!({"placement": "Draining", "drainGraceSeconds": -1}), Refused("should be greater than or equal to 0")),
        (json!({"placement": "Draining", "drainGraceSeconds": YEAR + 1}), Refused("less than or equal to 31536000")),
        (json!({"endSessions": ["a", "a"]}), Refused("Duplicate value: \"a\"")),
        (json!({"endSessions": [""]}), Refused("should be at least 1 chars long")),
        (json!({"endSessions": [text_of(257)]}), Refused("Too long: may not be more than 256")),
        (json!({"endSessions": list_of(101)}), Refused("must have at most 100 items")),
        (json!({"limits": {"maxVirtualSessions": -2}}), Refused("should be greater than or equal to -1")),
        (
            json!({"limits": {"maxConcurrentSessionsPerUser": 100_001}}),
            Refused("should be less than or equal to 100000"),
        ),
        (
            json!({"allowedNamespaces": {"matchExpressions": [{"key": "a", "operator": "=="}]}}),
            Refused("Unsupported value"),
        ),
    ];
    let mut verdicts = Verdicts::default();
    for (spec, verdict) in cases {
        let server = object("DcvServer", "test-schema", spec.clone());
        verdicts.judge(short(&spec), api.create(&dry_create(), &server).await, verdict);
    }
    verdicts.finish();
}

#[tokio::test]
#[ignore = "needs an API server"]
async fn a_client_with_a_wrong_spec_is_refused_with_a_reason() {
    let hash = |digit: &str| json!({"hash": format!("sha256:{}", digit.repeat(64))});
    let pattern = "should match '^sha256:[0-9a-f]{64}$'";
    let five: Vec<_> = ["1", "2", "3", "4", "5"].into_iter().map(hash).collect();
    let cases = [
        (json!({}), Allowed),
        (json!({"credentials": five[..4]}), Allowed),
        (json!({"clientId": "a.B_c-9", "tokenLifetimeSeconds": 60, "displayName": "A portal"}), Allowed),
        (json!({"clientId": ""}), Refused("should be at least 1 chars long")),
        (json!({"clientId": text_of(129)}), Refused("Too long: may not be more than 128")),
        (json!({"clientId": "a b"}), Refused("should match '^[A-Za-z0-9._-]+$'")),
        (json!({"clientId": "a:b"}), Refused("should match '^[A-Za-z0-9._-]+$'")),
        (json!({"displayName": ""}), Refused("should be at least 1 chars long")),
        (json!({"credentials": five}), Refused("must have at most 4 items")),
        (json!({"credentials": [hash("a"), hash("a")]}), Refused("Duplicate value")),
        (json!({"credentials": [{}]}), Refused("hash: Required value")),
        (json!({"credentials": [hash("A")]}), Refused(pattern)),
        (json!({"credentials": [{"hash": "secret"}]}), Refused(pattern)),
        (
            json!({"credentials": [{"hash": five[0]["hash"], "expireTime": "soon"}]}),
            Refused("must be of type date-time"),
        ),
        (json!({"tokenLifetimeSeconds": 59}), Refused("should be greater than or equal to 60")),
        (json!({"tokenLifetimeSeconds": 86_401}), Refused("should be less than or equal to 86400")),
        (json!({"suspended": "yes"}), Refused("must be of type boolean")),
    ];
    in_namespace("client-schema", async |client, namespace| {
        let api = api_clients(&client, &namespace);
        let mut verdicts = Verdicts::default();
        for (spec, verdict) in cases {
            let api_client = object("ApiClient", "a", spec.clone());
            verdicts.judge(short(&spec), api.create(&dry_create(), &api_client).await, verdict);
        }
        verdicts.finish();
    })
    .await;
}

#[tokio::test]
#[ignore = "needs an API server"]
async fn manifests_are_accepted_without_warnings_and_policies_check_their_types() {
    admin().await;
    for folder in ["crds", "config/rbac", "config/policy", "config/flow-control"] {
        let applied = kubectl(&format!("apply --server-side --force-conflicts -f {folder}"));
        assert!(applied.status.success() && applied.stderr.is_empty(), "{}", text(&applied));
    }
    for folder in ["config/samples", "config/samples/admin"] {
        let applied = kubectl(&format!("apply --dry-run=server --validate=strict -f {folder}"));
        assert!(applied.status.success() && applied.stderr.is_empty(), "{}", text(&applied));
    }
    let crds: Value = serde_json::from_slice(&kubectl("get -f crds -o json").stdout).unwrap();
    for crd in crds["items"].as_array().unwrap() {
        let conditions = crd["status"]["conditions"].as_array().unwrap();
        let unstructured = conditions.iter().find(|condition| condition["type"] == "NonStructuralSchema");
        assert_eq!(unstructured, None);
    }
    crate::cluster::eventually("policies are checked", async || {
        let policies: Value = serde_json::from_slice(
            &kubectl("get validatingadmissionpolicies -l app.kubernetes.io/part-of=dcv-operator -o json").stdout,
        )
        .unwrap();
        let policies = policies["items"].as_array().unwrap();
        assert_eq!(policies.len(), std::fs::read_dir("config/policy").unwrap().count());
        for policy in policies {
            assert_eq!(
                policy["status"]["typeChecking"]["expressionWarnings"],
                Value::Null,
                "{}",
                policy["metadata"]["name"]
            );
        }
        policies.iter().all(|policy| {
            policy["status"]["observedGeneration"] == policy["metadata"]["generation"]
                && policy["status"]["typeChecking"].is_object()
        })
    })
    .await;
}

/// A value as the name of a case.
fn short(value: &Value) -> String {
    value.to_string().chars().take(100).collect()
}
