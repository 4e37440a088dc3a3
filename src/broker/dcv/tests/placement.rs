//! `OpenServers` and `CloseServers`.

use super::*;

/// A client that may open and close servers.
async fn manager() -> Broker {
    let mut broker = Broker::new(Rules::default()).await;
    broker.token = broker.log_in("red", json!({"manageServers": true})).await;
    broker
}

async fn availability(broker: &Broker, id: &str) -> Value {
    let answer = broker.ask("/describeServers", json!({"ServerIds": [id]})).await;
    let server = &answer["Servers"][0];
    json!([server["Availability"], server["UnavailabilityReason"]])
}

fn not_found(list: &str, request: Value) -> Value {
    json!({list: request, "FailureCode": "DCV_SERVER_NOT_FOUND", "FailureReason": "Dcv server not found."})
}

#[tokio::test]
async fn servers_are_closed_and_opened_and_that_shows_at_once() {
    let broker = manager().await;
    broker.put_server("s1", json!({}), json!({}));
    let closed = json!(["UNAVAILABLE", "SERVER_CLOSED"]);
    for _ in 0..2 {
        let answer = broker.ask("/closeServers", json!([{"ServerId": "uid-s1"}])).await;
        assert_eq!(answer["SuccessfulList"], json!([{"ServerId": "uid-s1"}]), "closing a closed one too");
        assert_eq!(answer["UnsuccessfulList"], json!([]));
        assert!(uuid::Uuid::try_parse(answer["RequestId"].as_str().unwrap()).is_ok());
        assert_eq!(availability(&broker, "uid-s1").await, closed);
    }
    let answer = broker.ask("/createSessions", json!([a_session(json!({}))])).await;
    assert_eq!(answer["UnsuccessfulList"][0]["FailureReason"], "No DCV server found for the given criteria");
    for _ in 0..2 {
        let answer = broker.ask("/openServers", json!([{"ServerId": "uid-s1"}])).await;
        assert_eq!(answer["SuccessfulList"], json!([{"ServerId": "uid-s1"}]), "opening an open one too");
        assert_eq!(availability(&broker, "uid-s1").await, json!(["AVAILABLE", null]));
    }
    let answer = broker.ask("/createSessions", json!([a_session(json!({}))])).await;
    assert_eq!(answer["SuccessfulList"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn without_force_whatever_is_on_a_server_keeps_it_open() {
    let broker = manager().await;
    let other =
        |origin: &str| json!({"otherSessions": [{"id": "x", "owner": "bob", "type": "VIRTUAL", "origin": origin}]});
    broker.put_server("manual", json!({}), other("Manual"));
    broker.put_server("unclaimed", json!({}), other("Unclaimed"));
    broker.put_server("foreign", json!({}), json!({}));
    let mut foreign = ready_on("foreign");
    merge(&mut foreign, json!({"metadata": {"namespace": "blue"}}));
    broker.put_session("a", foreign);
    broker.put_server("over", json!({}), json!({}));
    let mut over = ready_on("over");
    merge(&mut over, finished("DELETED", "Closed", NOW));
    broker.put_session("b", over);
    broker.put_server("promised", json!({}), json!({}));
    let requirements = json!({"Requirements": "tag:pool = 'promised'"});
    let made = broker.ask("/createSessions", json!([a_session(requirements)])).await;
    assert_eq!(made["SuccessfulList"].as_array().unwrap().len(), 1);

    let names = ["manual", "unclaimed", "foreign", "promised", "over"];
    let requests: Vec<_> = names.iter().map(|name| json!({"ServerId": format!("uid-{name}")})).collect();
    let answer = broker.ask("/closeServers", json!(requests)).await;
    assert_eq!(answer["SuccessfulList"], json!([{"ServerId": "uid-over"}]));
    let failed: Vec<_> = requests[..4]
        .iter()
        .map(|request| {
            json!({"CloseServerRequestData": request, "FailureCode": "DCV_SERVER_HAS_SESSIONS",
                "FailureReason": "Dcv server has running sessions."})
        })
        .collect();
    assert_eq!(answer["UnsuccessfulList"], json!(failed));
    assert_eq!(availability(&broker, "uid-foreign").await, json!(["AVAILABLE", null]));

    let forced: Vec<_> = names.iter().map(|name| json!({"ServerId": format!("uid-{name}"), "Force": true})).collect();
    let answer = broker.ask("/closeServers", json!(forced)).await;
    assert_eq!(answer["SuccessfulList"].as_array().unwrap().len(), 5);
    assert_eq!(availability(&broker, "uid-foreign").await, json!(["UNAVAILABLE", "SERVER_CLOSED"]));
}

#[tokio::test]
async fn what_fails_is_echoed_as_sent() {
    let broker = manager().await;
    broker.put_server("blue", json!({"allowedNamespaces": {"matchLabels": {"team": "blue"}}}), json!({}));
    let lost = json!({"conditions": [{"type": "AgentConnected", "status": "False", "reason": "LeaseExpired",
        "message": "", "lastTransitionTime": "2026-11-21T09:00:00Z"}]});
    broker.put_server("lost", json!({}), lost);
    let requests = [
        json!({"ServerId": "none"}),
        json!({"ServerId": "uid-blue", "Force": true}),
        json!({"ServerId": "uid-lost", "Force": false}),
        json!({"Force": null}),
    ];
    let invalid =
        |list: &str| json!({list: {}, "FailureCode": "INVALID_REQUEST", "FailureReason": "ServerId is required."});
    let answer = broker.ask("/closeServers", json!(requests)).await;
    let field = "CloseServerRequestData";
    let echoed: Vec<_> = requests[..3].iter().map(|request| not_found(field, request.clone())).collect();
    assert_eq!(answer["UnsuccessfulList"], json!([echoed[0], echoed[1], echoed[2], invalid(field)]));
    let answer = broker.ask("/openServers", json!([requests[0], requests[1], {}])).await;
    let field = "OpenServerRequestData";
    let blue = not_found(field, json!({"ServerId": "uid-blue"}));
    assert_eq!(answer["UnsuccessfulList"], json!([not_found(field, requests[0].clone()), blue, invalid(field)]));
    assert_eq!(answer["SuccessfulList"], json!([]));
    assert_eq!(broker.writes(), Vec::<String>::new());
}

#[tokio::test]
async fn who_may_not_manage_servers_is_told_so_and_nothing_of_them() {
    let mut broker = Broker::new(Rules::default()).await;
    broker.token = broker.log_in("red", json!({"allNamespaces": true})).await;
    broker.put_server("s1", json!({}), json!({}));
    let requests = json!([{"ServerId": "uid-s1"}, {"ServerId": "none"}]);
    for path in ["/openServers", "/closeServers"] {
        let answer = broker.ask(path, requests.clone()).await;
        assert_eq!(answer["SuccessfulList"], json!([]));
        for failed in answer["UnsuccessfulList"].as_array().unwrap() {
            assert_eq!(failed["FailureCode"], "CLIENT_NOT_AUTHORIZED");
            assert_eq!(failed["FailureReason"], "The client may not open and close servers.");
        }
    }
    assert_eq!(broker.writes(), Vec::<String>::new());
}
