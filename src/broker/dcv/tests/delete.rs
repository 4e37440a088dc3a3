//! `DeleteSessions`, and whose sessions a client may touch.

use super::*;

#[tokio::test]
async fn a_client_sees_and_touches_only_its_own_namespace() {
    let mut broker = Broker::new(Rules::default()).await;
    broker.put_server("s1", json!({}), json!({}));
    broker.put_session("mine", ready_on("s1"));
    let mut other = ready_on("s1");
    merge(&mut other, json!({"metadata": {"namespace": "blue"}}));
    broker.put_session("other", other);
    assert_eq!(ids(&broker.described().await), ["mine"]);
    assert_eq!(broker.ask("/describeSessions", json!({"SessionIds": ["other"]})).await["Sessions"], json!([]));
    let delete = json!([{"SessionId": "other", "Owner": "ann"}]);
    let failed = json!([{"SessionId": "other", "FailureReason": "The requested dcvSession does not exist"}]);
    assert_eq!(broker.ask("/deleteSessions", delete.clone()).await["UnsuccessfulList"], failed);
    let unknown = (StatusCode::BAD_REQUEST, error("The requested dcvSession does not exist"));
    assert_eq!(broker.get("/sessionConnectionData/other/ann").await, unknown);
    assert_eq!(broker.writes(), Vec::<String>::new());

    broker.token = broker.log_in("blue", json!({"allNamespaces": true})).await;
    assert_eq!(ids(&broker.described().await), ["mine", "other"]);
    assert_eq!(broker.ask("/deleteSessions", delete).await["SuccessfulList"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn deleting_asks_for_the_end_and_keeps_the_record_for_the_retention() {
    let broker = Broker::new(Rules::default()).await;
    broker.put_server("s1", json!({}), json!({}));
    for uid in ["a", "b", "c"] {
        broker.put_session(uid, ready_on("s1"));
    }
    broker.put_session("over", finished("DELETED", "Closed", NOW));
    broker.put_session("failed", finished("UNKNOWN", "Failed", NOW));
    let answer = broker
        .ask(
            "/deleteSessions",
            json!([
                {"SessionId": "a", "Owner": "ann"},
                {"SessionId": "a", "Owner": "ann"},
                {"SessionId": "b", "Owner": "ann", "Force": true},
                {"SessionId": "c", "Owner": "bob"},
                {"SessionId": "c"},
                {"Owner": "ann"},
                {"SessionId": "none", "Owner": "ann"},
                {"SessionId": "over", "Owner": "ann"},
                {"SessionId": "failed", "Owner": "ann", "Force": null},
            ]),
        )
        .await;
    let deleting = |id: &str| json!({"SessionId": id, "State": "DELETING"});
    let over = json!({"SessionId": "over", "State": "DELETED"});
    let accepted = [deleting("a"), deleting("a"), deleting("b"), over, deleting("failed")];
    assert_eq!(answer["SuccessfulList"], json!(accepted));
    let failed = json!([
        {"SessionId": "c", "FailureReason": "Owner does not match the owner of the session"},
        {"SessionId": "c", "FailureReason": "Owner is required"},
        {"FailureReason": "SessionId is required"},
        {"SessionId": "none", "FailureReason": "The requested dcvSession does not exist"},
    ]);
    assert_eq!(answer["UnsuccessfulList"], failed);
    assert_eq!(broker.writes(), ["Closed a", "ForceClosed b", "delete failed"]);
    let states: BTreeMap<_, _> = broker
        .described()
        .await
        .iter()
        .map(|session| (session["Id"].as_str().unwrap().to_owned(), session["State"].clone()))
        .collect();
    let expected = [("a", "DELETING"), ("b", "DELETING"), ("c", "READY"), ("over", "DELETED")];
    assert_eq!(states, expected.map(|(id, state)| (id.to_owned(), json!(state))).into());
    broker.ask("/deleteSessions", json!([{"SessionId": "a", "Owner": "ann", "Force": true}])).await;
    assert_eq!(broker.writes(), ["ForceClosed a"], "a forced delete goes further than the one before");
}

#[tokio::test]
async fn without_retention_the_object_is_deleted_unless_force_must_not_wait() {
    let broker = Broker::new(Rules { delete_session_duration_seconds: 0, ..Rules::default() }).await;
    let lapsed = json!({"conditions": [{"type": "AgentConnected", "status": "False", "reason": "LeaseExpired",
        "message": "", "lastTransitionTime": NOW}]});
    broker.put_server("up", json!({}), json!({}));
    broker.put_server("down", json!({}), lapsed);
    let mut leaving = ready_on("down");
    merge(&mut leaving, json!({"metadata": {"deletionTimestamp": NOW}}));
    broker.put_session("leaving", leaving);
    for (uid, server) in [("a", "up"), ("b", "up"), ("c", "down"), ("d", "down"), ("e", "purged")] {
        broker.put_session(uid, ready_on(server));
    }
    let delete = |id: &str, force: bool| json!({"SessionId": id, "Owner": "ann", "Force": force});
    let requests = [delete("a", false), delete("b", true), delete("c", false), delete("d", true), delete("e", true)];
    let answer = broker.ask("/deleteSessions", json!(requests)).await;
    assert_eq!(answer["UnsuccessfulList"], json!([]));
    assert_eq!(broker.writes(), ["delete a", "delete b", "delete c", "ForceClosed d", "ForceClosed e"]);
    broker.ask("/deleteSessions", json!([delete("leaving", false)])).await;
    assert_eq!(broker.writes(), Vec::<String>::new());
    broker.ask("/deleteSessions", json!([delete("leaving", true)])).await;
    assert_eq!(broker.writes(), ["ForceClosed leaving"]);
    broker.put_session("over", finished("DELETED", "Closed", NOW));
    assert_eq!(broker.ask("/describeSessions", json!({"SessionIds": ["over"]})).await["Sessions"], json!([]));
}
