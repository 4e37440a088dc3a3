//! `GetSessionConnectionData`.

use super::*;

#[tokio::test]
async fn connection_data_holds_a_token_for_this_person_session_and_instance() {
    let broker = Broker::new(Rules { connect_session_token_duration_minutes: 5, ..Rules::default() }).await;
    broker.put_server("s1", json!({}), json!({}));
    broker.put_session("a", ready_on("s1"));
    let (status, answer) = broker.get("/sessionConnectionData/a/DOMAIN%5Ceve%20x").await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(answer.get("RequestId"), None);
    assert_eq!(answer["Session"]["Server"]["Ip"], "10.0.0.1");
    let token = answer["ConnectionToken"].as_str().unwrap();
    let keys = broker.memory.cache.keys(Kind::Connection).unwrap();
    let claims: ConnectionClaims = token::verify(token, &keys.public, now()).unwrap();
    let seconds = now().as_second();
    let expected = ConnectionClaims {
        session_id: "a".into(),
        session_owner: "ann".into(),
        session_user: "DOMAIN\\eve x".into(),
        server_uid: "uid-s1".into(),
        attempt: 1,
        client_uid: Some("uid-red".into()),
        iat: seconds,
        exp: seconds + 300,
        jti: claims.jti.clone(),
        aud: Kind::Connection.audience().into(),
    };
    assert_eq!(claims, expected);
    let again = broker.get("/sessionConnectionData/a/ann").await.1;
    assert_ne!(again["ConnectionToken"], answer["ConnectionToken"]);
}

#[tokio::test]
async fn connection_data_is_refused_unless_the_session_can_be_reached_or_may_be_again() {
    let broker = Broker::new(Rules::default()).await;
    broker.put_server("s1", json!({}), json!({}));
    let mut unreachable = ready_on("s1");
    merge(&mut unreachable, json!({"status": {"state": "UNKNOWN", "conditions": []}}));
    let mut closing = ready_on("s1");
    merge(&mut closing, json!({"spec": {"desiredState": "Closed"}}));
    let mut failed = ready_on("s1");
    merge(&mut failed, finished("UNKNOWN", "Failed", NOW));
    broker.put_session("unreachable", unreachable);
    broker.put_session("closing", closing);
    broker.put_session("failed", failed);
    broker.put_session("creating", json!({}));
    broker.put_session("over", finished("DELETED", "Closed", NOW));
    assert_eq!(broker.get("/sessionConnectionData/unreachable/ann").await.0, 200);
    for id in ["closing", "failed", "creating", "over"] {
        let text = format!("Session {id} is neither in READY nor in UNKNOWN state");
        let expected = (StatusCode::BAD_REQUEST, error(&text));
        assert_eq!(broker.get(&format!("/sessionConnectionData/{id}/ann")).await, expected);
    }
    let unknown = (StatusCode::BAD_REQUEST, error("The requested dcvSession does not exist"));
    assert_eq!(broker.get("/sessionConnectionData/none/ann").await, unknown);
    for path in ["/sessionConnectionData/unreachable/%FF", "/sessionConnectionData/unreachable/a%0Ab"] {
        assert_eq!(broker.get(path).await.0, 400, "{path}");
    }
}
