//! `CreateSessions` with `?dryRun=true`.

use super::*;

const PATH: &str = "/createSessions?dryRun=true";

fn reasons(answer: &Value) -> Vec<&str> {
    let list = answer["UnsuccessfulList"].as_array().unwrap();
    list.iter().map(|failed| failed["FailureReason"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn an_item_that_fits_is_told_its_server_and_has_no_id() {
    let broker = Broker::new(Rules::default()).await;
    broker.put_server("s1", json!({}), json!({}));
    broker.put_server("s2", json!({"placement": "Closed"}), json!({}));
    let answer = broker.ask(PATH, json!([a_session(json!({}))])).await;
    let expected = json!([{
        "Name": "My desktop", "Owner": "ann", "Type": "VIRTUAL", "State": "CREATING", "Substate": "SESSION_PLACING",
        "StateReason": "Dry run, nothing was created. 1 of 2 servers fit: 1 closed\nIt would get server s1 now.",
        "NumOfConnections": 0,
        "Server": {"Id": "uid-s1", "Ip": "10.0.0.1", "Hostname": "s1", "Port": "8444", "Endpoints": [],
            "WebUrlPath": "/", "Tags": [{"Key": "pool", "Value": "s1"}]},
    }]);
    assert_eq!(answer["SuccessfulList"], expected);
    assert_eq!(answer["UnsuccessfulList"], json!([]));
    assert_eq!(broker.writes(), Vec::<String>::new());
    assert_eq!(broker.described().await, Vec::<Value>::new());
}

#[tokio::test]
async fn earlier_items_count_and_nothing_is_held_afterwards() {
    let broker = Broker::new(Rules { create_sessions_queue_max_size: 1, ..Rules::default() }).await;
    broker.put_server("s1", json!({}), json!({}));
    let waiting = || a_session(json!({"EnqueueRequest": true}));
    let three = json!([a_session(json!({})), a_session(json!({})), a_session(json!({})), waiting(), waiting()]);
    for _ in 0..2 {
        let answer = broker.ask(PATH, three.clone()).await;
        let accepted = answer["SuccessfulList"].as_array().unwrap();
        let said = "Dry run, nothing was created. It would wait for a server. 0 of 1 servers fit: 1 full\n\
            To get the one server: wait until a session on it ends";
        assert_eq!((accepted.len(), &accepted[2]["StateReason"]), (3, &json!(said)));
        assert_eq!(accepted[2].get("Server"), None);
        let why = "0 of 1 servers fit: 1 full\nTo get the one server: wait until a session on it ends";
        let refused = [
            format!("No DCV server found for the given criteria: {why}"),
            format!("The queue of waiting requests is full: {why}"),
        ];
        assert_eq!(reasons(&answer), refused);
        assert_eq!(answer["UnsuccessfulList"][0]["CreateSessionRequestData"], a_session(json!({})));
    }
    let two = json!([a_session(json!({})), a_session(json!({}))]);
    assert_eq!(broker.ask("/createSessions", two).await["SuccessfulList"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn the_least_change_that_would_help_is_told_of_servers_the_client_may_use_only() {
    let broker = Broker::new(Rules::default()).await;
    broker.put_server("render", json!({}), json!({}));
    broker.put_server("secret", json!({"allowedNamespaces": {"matchLabels": {"team": "blue"}}}), json!({}));
    let item = a_session(json!({"Requirements": "tag:pool = 'secret'"}));
    let answer = broker.ask(PATH, json!([item])).await;
    let reason = reasons(&answer)[0];
    let expected = "No DCV server found for the given criteria: 0 of 1 servers fit: 1 lacks tag:pool = 'secret'";
    assert!(reason.starts_with(expected), "{reason}");
    let help = "\nTo get the one server: require tag:pool = 'render' instead of tag:pool = 'secret'";
    assert!(reason.contains(help), "{reason}");
}

#[tokio::test]
async fn what_a_real_call_would_refuse_is_refused_in_the_same_words() {
    let broker = Broker::new(Rules::default()).await;
    broker.put_server("s1", json!({}), json!({}));
    let answer = broker.ask(PATH, json!([a_session(json!({"Type": "DESKTOP"}))])).await;
    assert_eq!(reasons(&answer), ["Type must be CONSOLE or VIRTUAL, not \"DESKTOP\""]);
    *broker.memory.refusal.lock().unwrap() = Some(StoreError::Refused("owner must match ^a".into()));
    let answer = broker.ask(PATH, json!([a_session(json!({}))])).await;
    assert_eq!(reasons(&answer), ["owner must match ^a"], "what admission says");
}

#[tokio::test]
async fn only_true_makes_a_dry_run_and_only_false_does_not() {
    let broker = Broker::new(Rules::default()).await;
    broker.put_server("s1", json!({}), json!({}));
    let body = json!([a_session(json!({}))]);
    for value in ["", "1", "yes", "True", "TRUE", "true&dryRun=false", "%FF"] {
        let (status, answer) = broker.post(&format!("/createSessions?dryRun={value}"), body.clone()).await;
        assert_eq!((status.as_u16(), answer), (400, error("Invalid input: dryRun must be true or false")), "{value}");
    }
    assert_eq!(broker.writes(), Vec::<String>::new());
    for path in ["/createSessions?dryRun=false", "/createSessions?other=1"] {
        broker.ask(path, body.clone()).await;
        assert_eq!(broker.writes(), ["create ann"], "{path}");
    }
}
