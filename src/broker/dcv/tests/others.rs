//! Desktops on hosts that no object stands for.

use super::*;

const TIME: &str = "2026-11-21T09:30:00Z";

fn manual(id: &str) -> Value {
    json!({"id": id, "owner": "bob", "type": "CONSOLE", "origin": "Manual", "creationTime": TIME, "numOfConnections": 2})
}

fn unclaimed(id: &str) -> Value {
    json!({"id": id, "owner": "ann", "type": "VIRTUAL", "origin": "Unclaimed", "creationTime": TIME,
        "namespace": "red", "sessionName": "desk"})
}

/// A client of all namespaces.
async fn whole() -> Broker {
    let mut broker = Broker::new(Rules::default()).await;
    broker.token = broker.log_in("red", json!({"allNamespaces": true})).await;
    broker
}

#[tokio::test]
async fn one_started_by_hand_is_described_to_clients_of_all_namespaces_only() {
    let mut broker = whole().await;
    broker.put_server("s1", json!({}), json!({"otherSessions": [manual("console")]}));
    let expected = json!({"Id": "console", "Name": "", "Owner": "bob", "Type": "CONSOLE", "State": "READY",
        "CreationTime": "2026-11-21T09:30:00.000Z", "NumOfConnections": 2,
        "Server": {"Id": "uid-s1", "Ip": "10.0.0.1", "Hostname": "s1", "Port": "8444", "Endpoints": [],
            "WebUrlPath": "/", "Tags": [{"Key": "pool", "Value": "s1"}]}});
    assert_eq!(broker.described().await, [expected]);
    let by_id = json!({"SessionIds": ["console"]});
    assert_eq!(broker.ask("/describeSessions", by_id.clone()).await["Sessions"].as_array().unwrap().len(), 1);
    broker.token = broker.log_in("blue", json!({"manageServers": true})).await;
    assert_eq!(broker.described().await, Vec::<Value>::new());
    assert_eq!(broker.ask("/describeSessions", by_id).await["Sessions"], json!([]));
}

#[tokio::test]
async fn filters_ids_and_pages_work_over_ours_and_theirs_alike() {
    let broker = whole().await;
    let console = |name: &str| {
        broker.put_server(name, json!({}), json!({"otherSessions": [manual("console")]}));
    };
    console("s2");
    console("s1");
    let created = |time: &str| {
        let mut session = ready_on("s1");
        merge(&mut session, json!({"metadata": {"creationTimestamp": time}}));
        session
    };
    broker.put_session("early", created("2026-11-21T09:00:00Z"));
    broker.put_session("late", created("2026-11-21T09:45:00Z"));
    let listed = |answer: &Value| -> Vec<String> {
        let sessions = answer["Sessions"].as_array().unwrap();
        sessions
            .iter()
            .map(|it| format!("{} {}", it["Id"].as_str().unwrap(), it["Server"]["Hostname"].as_str().unwrap()))
            .collect()
    };
    let all = ["early s1", "console s1", "console s2", "late s1"];
    let filter = |key: &str, value: &str| json!([{"Key": key, "Value": value}]);
    for (request, expected) in [
        (json!({}), &all[..]),
        (json!({"Filters": filter("owner", "bob")}), &all[1..3]),
        (json!({"Filters": filter("tag:pool", "s2")}), &all[2..3]),
        (json!({"SessionIds": ["late", "console", "none"]}), &all[1..]),
        (json!({"SessionIds": ["console"], "Filters": filter("tag:pool", "s1")}), &all[1..2]),
    ] {
        for size in 1..=4 {
            let (mut seen, mut request) = (Vec::new(), request.clone());
            request["MaxResults"] = json!(size);
            loop {
                let answer = broker.ask("/describeSessions", request.clone()).await;
                seen.extend(listed(&answer));
                match answer.get("NextToken") {
                    Some(token) => request["NextToken"] = token.clone(),
                    None => break,
                }
            }
            assert_eq!(seen, expected, "{request}");
        }
    }
    broker.put_server("s2", json!({}), json!({"otherSessions": []}));
    assert_eq!(listed(&broker.ask("/describeSessions", json!({})).await), ["early s1", "console s1", "late s1"]);
}

#[tokio::test]
async fn one_that_was_ours_is_not_ready_again_and_says_why() {
    let broker = whole().await;
    broker.put_server("s1", json!({}), json!({"otherSessions": [unclaimed("u1")]}));
    let session = &broker.described().await[0];
    assert_eq!(
        (&session["Id"], &session["Name"], &session["State"]),
        (&json!("u1"), &json!("desk"), &json!("UNKNOWN"))
    );
    assert!(session["StateReason"].as_str().unwrap().contains("still runs on the host"), "{session}");
    // Its object is there after all: it waits to be bound to it again, and speaks for it.
    broker.put_session("u1", json!({}));
    let sessions = broker.described().await;
    assert_eq!((sessions.len(), &sessions[0]["State"]), (1, &json!("CREATING")));
    let mut taken_over = ready_on("s1");
    merge(&mut taken_over, json!({"status": {"sessionId": "console"}}));
    broker.put_session("u1", taken_over);
    broker.put_server("s1", json!({}), json!({"otherSessions": [manual("console")]}));
    assert_eq!(ids(&broker.described().await), ["console"], "the report is older than the takeover");
}

#[tokio::test]
async fn nothing_can_be_asked_of_them_and_that_is_said() {
    let mut broker = whole().await;
    broker.put_server("s1", json!({}), json!({"otherSessions": [manual("console")]}));
    let answers = async |broker: &Broker| {
        let item = json!([{"SessionId": "console", "Owner": "bob", "Force": true, "PermissionsFile": "IyBhCg=="}]);
        let deleted = broker.ask("/deleteSessions", item.clone()).await;
        let permitted = broker.put("/sessionPermissions", item).await;
        let (status, connection) = broker.get("/sessionConnectionData/console/bob").await;
        assert_eq!((status, deleted["SuccessfulList"].clone()), (StatusCode::BAD_REQUEST, json!([])));
        let reason = |answer: &Value| answer["UnsuccessfulList"][0]["FailureReason"].as_str().unwrap().to_owned();
        [reason(&deleted), reason(&permitted), connection["error"].as_str().unwrap().to_owned()]
    };
    let [deleted, permitted, connection] = answers(&broker).await;
    assert_eq!(deleted, "The session runs on its host without a record here, so this API cannot change it");
    assert_eq!(permitted, deleted);
    assert_eq!(connection, "The session runs on its host without a record here, so no token opens it");
    broker.token = broker.log_in("red", json!({})).await;
    assert_eq!(answers(&broker).await, ["The requested dcvSession does not exist"; 3], "who may not know of it");
    assert_eq!(broker.writes(), Vec::<String>::new());
}

#[tokio::test]
async fn on_a_silent_server_their_state_is_unknown_and_on_a_lost_one_they_are_not_listed() {
    let broker = whole().await;
    let silent = |since: &str| {
        json!({"otherSessions": [manual("console")], "conditions": [{"type": "AgentConnected", "status": "False",
            "reason": "LeaseExpired", "message": "", "lastTransitionTime": since}]})
    };
    broker.put_server("s1", json!({}), silent("2026-11-21T09:59:00Z"));
    let session = &broker.described().await[0];
    assert_eq!((&session["State"], &session["StateReason"]), (&json!("UNKNOWN"), &json!("Its server does not answer")));
    broker.put_server("s1", json!({}), silent("2026-11-21T09:00:00Z"));
    assert_eq!(broker.described().await, Vec::<Value>::new());
}
