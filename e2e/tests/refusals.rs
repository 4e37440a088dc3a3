//! What a host cannot take: which sessions are tried elsewhere, and which end at once.

use e2e::Stand;
use e2e::seconds;
use e2e::session::condition;
use e2e::session::state_reason;
use serde_json::json;

fn attempts(session: &dcv_operator::api::session::DcvSession) -> Vec<(String, String)> {
    let attempts = session.status.as_ref().map_or(&[][..], |status| &status.attempts);
    attempts.iter().map(|attempt| (attempt.server_name.clone(), attempt.reason.clone())).collect()
}

#[tokio::test]
async fn what_no_host_can_run_ends_on_the_first() {
    let stand = Stand::fake().await;
    let sessions = stand.namespace("invalid").await;
    for (name, spec, reason) in [
        (
            "permissions",
            json!({"permissions": "[permissions]\nbob allow flying"}),
            "permissions: line 2: unknown feature or alias \"flying\"",
        ),
        (
            "import",
            json!({"permissions": "#import base.perm"}),
            "permissions: line 1: #import is not possible in a text that is given inline",
        ),
        (
            "storage",
            json!({"storageRoot": "files"}),
            "storageRoot \"files\" must be an absolute path, or start with %home%",
        ),
    ] {
        let created = sessions.create(name, &spec).await;
        let over = sessions.until_finished(name).await;
        assert_eq!(condition(&over, "Finished"), "True/Failed", "{:?}", over.status);
        assert_eq!(condition(&over, "Stalled"), "True/InvalidSession");
        assert_eq!(condition(&over, "Created"), "False/InvalidSession");
        assert_eq!(state_reason(&over), reason);
        assert_eq!(attempts(&over).len(), 1, "it is tried nowhere else");
        let id = if created.id().is_empty() { over.id() } else { created.id() };
        assert!(!stand.fake_host().history().await.contains_key(id), "nothing was begun");
    }
    sessions.delete_namespace().await;
}

#[tokio::test]
async fn what_one_host_does_not_know_is_tried_on_others_and_then_ends() {
    let stand = Stand::fake().await;
    let sessions = stand.namespace("unknown-owner").await;
    sessions.create("desk", &json!({"owner": "nobody-here"})).await;
    let over = sessions.until_finished("desk").await;
    assert_eq!(condition(&over, "Stalled"), "True/RetriesExhausted");
    assert!(state_reason(&over).starts_with("Specified user is not a local user"), "{}", state_reason(&over));
    let tried = attempts(&over);
    assert_eq!(tried.iter().map(|(_, reason)| reason.as_str()).collect::<Vec<_>>(), ["Refused"; 3]);
    let servers: std::collections::BTreeSet<_> = tried.into_iter().map(|(server, _)| server).collect();
    assert_eq!(servers.len(), 3, "each time another host");
    sessions.delete_namespace().await;
}

/// What the controller could not know when it chose: the agent says no, and another host is found.
#[tokio::test]
async fn a_session_whose_server_was_closed_or_filled_meanwhile_goes_to_another() {
    let stand = Stand::fake().await;
    let sessions = stand.namespace("meanwhile").await;
    for (name, change, reason) in [
        ("closed", json!({"placement": "Closed"}), "the server is closed"),
        (
            "full",
            json!({"limits": {"maxVirtualSessions": 0}}),
            "the host already has 0 virtual sessions, which is its limit",
        ),
        (
            "not-ours",
            json!({"allowedNamespaces": {"matchLabels": {"team": "another"}}}),
            "the server is not for namespace",
        ),
    ] {
        // With the agents away the controller binds, and the server can be changed before anybody begins.
        let agent = stand.role("agent-1").kill().await;
        sessions.create(name, &json!({})).await;
        let bound = sessions.until(name, "bound", |session| session.server_name().is_some()).await;
        let first = bound.server_name().expect("it is bound").to_owned();
        stand.patch_servers(|server| if server == first { change.clone() } else { json!({}) }).await;
        agent.restart().await;
        let ready = sessions.until_within(name, seconds(60), "READY", e2e::session::is_ready).await;
        assert_ne!(ready.server_name(), Some(first.as_str()));
        let tried = attempts(&ready);
        assert_eq!(tried, [(first.clone(), "Refused".to_owned())]);
        let words = &ready.status.as_ref().expect("it has one").attempts[0].message;
        assert!(words.starts_with(reason), "{words}");
        sessions.delete(name).await;
        stand.open_all_servers().await;
    }
    sessions.delete_namespace().await;
}
