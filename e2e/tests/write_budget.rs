//! What a session costs the API server: each write of a hundred lives, counted in its audit log.

use std::collections::BTreeMap;

use e2e::Stand;
use e2e::audit::Audit;
use e2e::eventually;
use e2e::seconds;
use serde_json::json;

const LIVES: usize = 100;

/// One write of a life: verb, resource, whose.
type Step = (&'static str, &'static str, &'static str);

const BY_REST: [Step; 5] = [
    ("create", "dcvsessions", "dcv-broker"),
    ("patch", "dcvsessions/status", "dcv-controller"),
    ("patch", "dcvsessions/status", "dcv-agent"), // READY
    ("delete", "dcvsessions", "dcv-broker"),
    ("patch", "dcvsessions", "dcv-agent"),
];

const BY_KUBECTL: [Step; 6] = [
    ("create", "dcvsessions", "user"),
    ("patch", "dcvsessions", "dcv-controller"),
    ("patch", "dcvsessions/status", "dcv-controller"),
    ("patch", "dcvsessions/status", "dcv-agent"), // READY
    ("delete", "dcvsessions", "user"),
    ("patch", "dcvsessions", "dcv-agent"),
];

/// Every session of `namespace` was written exactly so, each write took at its first try, and nobody wrote an event.
async fn assert_lives(audit: &Audit, namespace: &str, expected: &[Step]) {
    // The log is written behind the answers.
    eventually("the audit log to be complete", seconds(10), async || {
        let count = audit.writes_of("dcvsessions", namespace).len();
        if count >= LIVES * expected.len() { Ok(()) } else { Err(format!("{count} writes")) }
    })
    .await;
    // A write too many would come late; there is nothing to await for it.
    tokio::time::sleep(seconds(2)).await;
    let mut lives: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for write in audit.writes_of("dcvsessions", namespace) {
        let agent = if write.agent.starts_with("dcv-") { &write.agent } else { "user" };
        let code = if write.code < 300 { String::new() } else { format!(" -> {}", write.code) };
        lives.entry(write.name).or_default().push(format!("{} {} by {agent}{code}", write.verb, write.resource));
    }
    let expected: Vec<_> =
        expected.iter().map(|(verb, resource, agent)| format!("{verb} {resource} by {agent}")).collect();
    assert_eq!(lives.len(), LIVES);
    for (name, writes) in lives {
        assert_eq!(writes, expected, "of {name}");
    }
    assert_eq!(audit.writes_of("events", namespace), Vec::new());
}

#[tokio::test]
async fn a_life_by_rest_costs_three_writes_to_ready_and_five_in_all() {
    let stand = Stand::fake().await;
    let sessions = stand.namespace("budget-rest").await;
    let rest = stand.rest_client(&sessions.namespace, json!({})).await.log_in().await.expect("the client logs in");
    let audit = stand.audit();
    for number in 0..LIVES {
        let id = rest.create(json!({"Name": format!("life {number}"), "Owner": "ann", "Type": "VIRTUAL"})).await;
        rest.until_state(&id, "READY").await;
        rest.delete(&id, "ann").await;
        rest.until_gone(&id).await;
    }
    assert_lives(&audit, &sessions.namespace, &BY_REST).await;
    sessions.delete_namespace().await;
}

#[tokio::test]
async fn a_life_by_kubectl_costs_four_writes_to_ready_and_six_in_all() {
    let stand = Stand::fake().await;
    let sessions = stand.namespace("budget-kubectl").await;
    let audit = stand.audit();
    for number in 0..LIVES {
        let name = format!("life-{number}");
        sessions.create(&name, &json!({})).await;
        sessions.until_ready(&name).await;
        sessions.delete(&name).await;
    }
    assert_lives(&audit, &sessions.namespace, &BY_KUBECTL).await;
    sessions.delete_namespace().await;
}
