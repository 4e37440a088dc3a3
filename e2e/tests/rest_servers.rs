//! The REST API where hosts come in: permissions of what runs.

use e2e::Stand;
use e2e::eventually;
use e2e::rest::LoggedIn;
use e2e::seconds;
use e2e::session::Sessions;
use serde_json::Value;
use serde_json::json;

/// A namespace with a client of this kind.
async fn tenant(stand: &Stand, word: &str, spec: Value) -> (Sessions, LoggedIn) {
    let sessions = stand.namespace(word).await;
    let client = stand.rest_client(&sessions.namespace, spec).await;
    (sessions, client.log_in().await.expect("the client logs in"))
}

fn desktop(owner: &str) -> Value {
    json!({"Name": "desk", "Owner": owner, "Type": "VIRTUAL"})
}

#[tokio::test]
async fn permissions_reach_the_host_without_a_new_desktop() {
    let stand = Stand::fake().await;
    let (sessions, rest) = tenant(&stand, "permissions", json!({})).await;
    let id = rest.create(desktop("ann")).await;
    rest.until_state(&id, "READY").await;
    for file in ["[permissions]\n%owner% allow builtin\nbob allow display", "[permissions]\n%owner% allow display"] {
        rest.permit(&id, "ann", file).await;
        eventually("the host to have the permissions", seconds(10), async || {
            let now = stand.fake_host().session(&id).await.ok_or("gone")?;
            if now["permissions"] == file { Ok(()) } else { Err(now.to_string()) }
        })
        .await;
    }
    assert_eq!(stand.fake_host().history().await[&id].creates, 1);
    let session = rest.describe(&id).await.expect("it is listed");
    assert_eq!(session["State"], "READY", "{session}");
    rest.delete(&id, "ann").await;
    rest.until_gone(&id).await;
    sessions.delete_namespace().await;
}

#[tokio::test]
async fn whatever_is_not_ready_says_why() {
    let stand = Stand::fake().await;
    let (sessions, rest) = tenant(&stand, "reasons", json!({})).await;
    stand.fake_host().set_latency(300, 300).await;
    let mut waiting = desktop("ann");
    waiting["EnqueueRequest"] = json!(true);
    waiting["Requirements"] = json!("tag:pool = 'cad'");
    let answer = rest.post("/createSessions", &json!([desktop("ann"), waiting])).await;
    let ids: Vec<_> = answer.successful().iter().map(|it| it["Id"].as_str().expect("an id").to_owned()).collect();
    assert_eq!(ids.len(), 2, "{answer:?}");
    let check = |session: &Value| {
        let reason = session["StateReason"].as_str().unwrap_or_default();
        assert_eq!(reason.is_empty(), session["State"] == "READY", "{session}");
    };
    answer.successful().iter().for_each(check);
    eventually("one to be READY and one to know why not", seconds(20), async || {
        let (one, two) = (rest.describe(&ids[0]).await.ok_or("gone")?, rest.describe(&ids[1]).await.ok_or("gone")?);
        check(&one);
        check(&two);
        let told = two["StateReason"].as_str().is_some_and(|text| text.starts_with("0 of 20 servers fit"));
        if one["State"] == "READY" && told { Ok(()) } else { Err(format!("{one} {two}")) }
    })
    .await;
    rest.delete(&ids[0], "ann").await;
    eventually("it to be gone", seconds(20), async || match rest.describe(&ids[0]).await {
        None => Ok(()),
        Some(session) => {
            check(&session);
            Err(session.to_string())
        }
    })
    .await;
    stand.fake_host().set_latency(0, 0).await;
    sessions.delete_namespace().await;
}
