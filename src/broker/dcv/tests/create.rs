//! `CreateSessions`.

use super::*;

#[tokio::test]
async fn a_created_session_is_answered_described_and_described_by_id() {
    let broker = Broker::new(Rules::default()).await;
    broker.put_server("s1", json!({}), json!({}));
    let answer = broker.ask("/createSessions", json!([a_session(json!({"MaxConcurrents": 3}))])).await;
    let session = &answer["SuccessfulList"][0];
    let id = session["Id"].as_str().unwrap();
    let expected = json!({"Id": id, "Name": "My desktop", "Owner": "ann", "Type": "VIRTUAL", "State": "CREATING",
        "StateReason": "Waiting to be placed on a server", "MaxConcurrentClients": 3,
        "CreationTime": "2026-11-21T10:00:00.000Z", "NumOfConnections": 0});
    assert_eq!(*session, expected, "the substate comes from the default of the API server's schema");
    assert_eq!(answer["UnsuccessfulList"], json!([]));
    assert!(uuid::Uuid::try_parse(answer["RequestId"].as_str().unwrap()).is_ok());
    assert_eq!(broker.described().await, std::slice::from_ref(&expected));
    assert_eq!(broker.ask("/describeSessions", json!({"SessionIds": [id]})).await["Sessions"], json!([expected]));

    let client = broker.memory.cache.client("uid-red").unwrap();
    let made = broker.memory.cache.sessions(&client, None, 9, &|_| true)[0].session.as_ref().clone();
    assert!(made.name_any().starts_with("my-desktop-"), "{}", made.name_any());
    assert!(made.has_finalizer());
    assert_eq!(made.labels()["dcv-operator.io/api-client"], "uid-red");
    assert_eq!(made.namespace().as_deref(), Some("red"));
}

#[tokio::test]
async fn a_bad_item_fails_alone_and_is_echoed_as_sent() {
    let broker = Broker::new(Rules::default()).await;
    broker.put_server("s1", json!({}), json!({}));
    let bad = a_session(json!({"Type": "DESKTOP", "MaxConcurrents": -1, "Unknown": 1, "StorageRoot": null}));
    let answer = broker.ask("/createSessions", json!([bad, a_session(json!({}))])).await;
    let failed = json!([{
        "CreateSessionRequestData":
            {"Name": "My desktop", "Owner": "ann", "Type": "DESKTOP", "MaxConcurrentClients": -1},
        "FailureReason": "Type must be CONSOLE or VIRTUAL, not \"DESKTOP\"",
    }]);
    assert_eq!(answer["UnsuccessfulList"], failed);
    assert_eq!(answer["SuccessfulList"].as_array().unwrap().len(), 1);
    assert_eq!(broker.writes(), ["create ann"]);
}

#[tokio::test]
async fn without_room_a_session_fails_and_earlier_items_take_room() {
    let broker = Broker::new(Rules::default()).await;
    broker.put_server("s1", json!({}), json!({}));
    let three = json!([a_session(json!({})), a_session(json!({})), a_session(json!({}))]);
    let answer = broker.ask("/createSessions", three).await;
    assert_eq!(answer["SuccessfulList"].as_array().unwrap().len(), 2);
    assert_eq!(answer["UnsuccessfulList"][0]["FailureReason"], "No DCV server found for the given criteria");
    let again = broker.ask("/createSessions", json!([a_session(json!({}))])).await;
    assert_eq!(again["SuccessfulList"], json!([]), "the two are not seen on the server yet, but promised");
}

#[tokio::test]
async fn a_refused_create_gives_its_place_back_and_hides_our_faults() {
    let broker = Broker::new(Rules::default()).await;
    broker.put_server("s1", json!({"limits": {"maxVirtualSessions": 1}}), json!({}));
    let refuse = async |refusal: StoreError| {
        *broker.memory.refusal.lock().unwrap() = Some(refusal);
        let answer = broker.ask("/createSessions", json!([a_session(json!({}))])).await;
        answer["UnsuccessfulList"][0]["FailureReason"].as_str().unwrap().to_owned()
    };
    assert_eq!(refuse(StoreError::Refused("owner must match ^a".into())).await, "owner must match ^a");
    assert_eq!(refuse(StoreError::Late("secret host 10.0.0.9")).await, "The session could not be created, try again");
    let answer = broker.ask("/createSessions", json!([a_session(json!({}))])).await;
    assert_eq!(answer["SuccessfulList"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn enqueued_sessions_wait_up_to_the_size_of_the_queue() {
    let broker = Broker::new(Rules { create_sessions_queue_max_size: 1, ..Rules::default() }).await;
    let request = json!([a_session(json!({"EnqueueRequest": true}))]);
    let answer = broker.ask("/createSessions", request.clone()).await;
    assert_eq!(answer["SuccessfulList"].as_array().unwrap().len(), 1);
    let answer = broker.ask("/createSessions", request.clone()).await;
    assert_eq!(answer["UnsuccessfulList"][0]["FailureReason"], "The queue of waiting requests is full");
    broker.put_server("s1", json!({}), json!({}));
    let answer = broker.ask("/createSessions", request).await;
    assert_eq!(answer["SuccessfulList"].as_array().unwrap().len(), 1, "it does not have to wait");
}

#[tokio::test]
async fn items_of_one_call_count_in_the_queue_of_their_tenant() {
    let broker = Broker::new(Rules { create_sessions_queue_max_size: 3, ..Rules::default() }).await;
    let waiting = || a_session(json!({"EnqueueRequest": true}));
    let create = async |items: Vec<Value>| {
        let answer = broker.ask("/createSessions", items.into()).await;
        let count = |list: &str| answer[list].as_array().unwrap().len();
        (count("SuccessfulList"), count("UnsuccessfulList"))
    };
    *broker.memory.refusal.lock().unwrap() = Some(StoreError::Refused("no".into()));
    assert_eq!(create(vec![waiting()]).await, (0, 1), "what is refused takes no place in the queue");
    broker
        .put_session("other", json!({"metadata": {"namespace": "blue", "labels": {names::CLIENT_LABEL: "uid-blue"}}}));
    broker.put_session("manifest", json!({}));
    assert_eq!(create(vec![waiting(), waiting(), waiting(), waiting()]).await, (3, 1));
    assert_eq!(create(vec![waiting()]).await, (0, 1));
}

#[tokio::test]
async fn a_repeated_call_with_a_key_makes_no_second_session() {
    let broker = Broker::new(Rules::default()).await;
    broker.put_server("s1", json!({"limits": {"maxVirtualSessions": 1}}), json!({}));
    let send = async |key: &str, changes: Value| {
        let request = Request::post("/createSessions").header("Idempotency-Key", key);
        broker.send(request, &json!([a_session(changes)]).to_string()).await
    };
    let (_, first) = send("k", json!({})).await;
    let (_, second) = send("k", json!({})).await;
    assert_eq!(first["SuccessfulList"][0]["Id"], second["SuccessfulList"][0]["Id"]);
    assert!(first["SuccessfulList"][0]["Id"].is_string());
    let refusal = error("The Idempotency-Key was used with another request");
    assert_eq!(send("k", json!({"Name": "other"})).await, (StatusCode::BAD_REQUEST, refusal));
    assert_eq!(broker.writes(), ["create ann"]);
    assert_eq!(send("", json!({})).await.0, 400);
    assert_eq!(send(&"k".repeat(256), json!({})).await.0, 400);
}

#[tokio::test]
async fn a_thousand_items_for_three_free_places_give_three_sessions() {
    let broker = Broker::new(Rules::default()).await;
    broker.put_server("s1", json!({"limits": {"maxVirtualSessions": 2}}), json!({}));
    broker.put_server("s2", json!({"limits": {"maxVirtualSessions": 3}}), json!({}));
    for id in ["a", "b"] {
        broker.put_session(id, ready_on("s2"));
    }
    let items: Vec<_> = (0..1000).map(|number| a_session(json!({"Name": number.to_string()}))).collect();
    let answer = broker.ask("/createSessions", json!(items)).await;
    let names = |list: &str, name: fn(&Value) -> &Value| -> Vec<_> {
        answer[list].as_array().unwrap().iter().map(|item| name(item).as_str().unwrap().to_owned()).collect()
    };
    let made = names("SuccessfulList", |item| &item["Name"]);
    assert_eq!(made, ["0", "1", "2"], "who asks first is served");
    let refused = names("UnsuccessfulList", |item| &item["CreateSessionRequestData"]["Name"]);
    assert_eq!(refused.len(), 997);
    assert_eq!(answer["UnsuccessfulList"][0]["FailureReason"], "No DCV server found for the given criteria");
    assert!(broker.post("/createSessions", json!(vec![a_session(json!({})); 1001])).await.0 == 400);
}
