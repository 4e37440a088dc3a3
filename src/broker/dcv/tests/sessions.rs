//! `DescribeSessions`.

use super::*;

#[tokio::test]
async fn sessions_are_listed_with_their_server_by_filter_and_page() {
    let broker = Broker::new(Rules::default()).await;
    broker.put_server("s1", json!({}), json!({}));
    broker.put_server("s2", json!({"allowedNamespaces": {"matchLabels": {"team": "blue"}}}), json!({}));
    broker.put_session("a", ready_on("s1"));
    let mut early = ready_on("s2");
    merge(&mut early, json!({"metadata": {"creationTimestamp": "2026-11-21T09:00:00Z"}, "spec": {"owner": "bob"}}));
    broker.put_session("b", early);
    broker.put_session("c", json!({}));

    let sessions = broker.described().await;
    assert_eq!(ids(&sessions), ["b", "a", "c"]);
    let address = json!({"Ip": "10.0.0.1", "Port": "8444", "WebUrlPath": "/", "Endpoints": []});
    let mut s1 = address.clone();
    merge(&mut s1, json!({"Id": "uid-s1", "Hostname": "s1", "Tags": [{"Key": "pool", "Value": "s1"}]}));
    assert_eq!(sessions[1]["Server"], s1);
    let mut s2 = address;
    merge(&mut s2, json!({"Hostname": "s2", "Tags": [{"Key": "pool", "Value": "s2"}]}));
    assert_eq!(sessions[0]["Server"], s2, "describeServers does not know this one, so it has no id");
    assert_eq!(sessions[2].get("Server"), None);

    let filter = |key: &str, value: &str| json!({"Key": key, "Value": value});
    for (request, expected) in [
        (json!({"Filters": [filter("owner", "ann")]}), vec!["a", "c"]),
        (json!({"Filters": [filter("tag:pool", "s1")]}), vec!["a"]),
        (json!({"Filters": [filter("tag:pool", "s1"), filter("owner", "bob")]}), vec![]),
        (json!({"Filters": [filter("owner", "ann"), filter("owner", "bob")]}), vec![]),
        (json!({"SessionIds": ["c", "a", "x", "a"]}), vec!["a", "c"]),
        (json!({"SessionIds": ["c", "a"], "Filters": [filter("tag:pool", "s1")]}), vec!["a"]),
    ] {
        let answer = broker.ask("/describeSessions", request.clone()).await;
        assert_eq!(ids(answer["Sessions"].as_array().unwrap()), expected, "{request}");
        assert_eq!(answer.get("NextToken"), None);
    }

    let mut request = json!({"MaxResults": 2});
    let first = broker.ask("/describeSessions", request.clone()).await;
    assert_eq!(ids(first["Sessions"].as_array().unwrap()), ["b", "a"]);
    request["NextToken"] = first["NextToken"].clone();
    broker.put_session("a0", json!({"metadata": {"creationTimestamp": "2026-11-21T09:30:00Z"}}));
    let second = broker.ask("/describeSessions", request.clone()).await;
    assert_eq!(ids(second["Sessions"].as_array().unwrap()), ["c"], "what comes in before the page does not move it");
    assert_eq!(second.get("NextToken"), None);
    request["Filters"] = json!([filter("owner", "ann")]);
    assert_eq!(broker.post("/describeSessions", request).await.0, 400, "the token is of another query");
    let by_id = json!({"SessionIds": ["c", "a", "b"], "MaxResults": 2});
    let first = broker.ask("/describeSessions", by_id.clone()).await;
    let mut rest = by_id;
    rest["NextToken"] = first["NextToken"].clone();
    assert_eq!(ids(broker.ask("/describeSessions", rest).await["Sessions"].as_array().unwrap()), ["c"]);
}

#[tokio::test]
async fn states_are_shown_as_documented() {
    let broker = Broker::new(Rules::default()).await;
    let creating = json!({"status": {"state": "CREATING", "substate": "PENDING_PREPARATION", "conditions": []}});
    let mut closing = creating.clone();
    merge(&mut closing, json!({"spec": {"desiredState": "Closed"}}));
    let mut removed = finished("UNKNOWN", "Failed", NOW);
    merge(&mut removed, json!({"metadata": {"deletionTimestamp": NOW}}));
    let mut failed = finished("UNKNOWN", "Failed", "2020-01-01T00:00:00Z");
    merge(&mut failed, json!({"status": {"stateReason": "no"}}));
    broker.put_session("a", creating);
    broker.put_session("b", closing);
    broker.put_session("c", finished("DELETED", "Closed", "2026-11-21T09:00:01Z"));
    broker.put_session("d", finished("DELETED", "Closed", "2026-11-21T09:00:00Z"));
    broker.put_session("e", failed);
    broker.put_session("f", removed);
    let shown: Vec<_> = broker
        .described()
        .await
        .iter()
        .map(|session| json!([session["Id"], session["State"], session["Substate"], session["StateReason"]]))
        .collect();
    let expected = [
        json!(["a", "CREATING", "PENDING_PREPARATION", "Waiting to be placed on a server"]),
        json!(["b", "DELETING", null, "Being closed as asked"]),
        json!(["c", "DELETED", null, "Closed as asked"]),
        json!(["e", "UNKNOWN", null, "no"]),
    ];
    assert_eq!(shown, expected, "deleted ones for the retention time, those being removed not at all");
}

#[tokio::test]
async fn sessions_of_a_server_that_stays_away_are_hidden_where_the_setting_says_so() {
    let mut away = ready_on("s1");
    merge(
        &mut away,
        json!({"status": {"state": "UNKNOWN", "conditions": [{"type": "Ready", "status": "Unknown",
        "reason": "ServerUnreachable", "message": "", "lastTransitionTime": "2026-11-21T09:58:00Z"}]}}),
    );
    for (setting, shown) in [(None, 1), (Some(121), 1), (Some(119), 0)] {
        let rules = Rules { seconds_before_deleting_sessions_unreachable_server: setting, ..Rules::default() };
        let broker = Broker::new(rules).await;
        broker.put_session("a", away.clone());
        assert_eq!(broker.described().await.len(), shown, "{setting:?}");
        broker.put_session("a", ready_on("s1"));
        assert_eq!(broker.described().await.len(), 1, "it is back");
    }
}
