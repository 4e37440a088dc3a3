//! What holds for every request: paths, tokens, clients and bodies.

use super::*;

#[tokio::test]
async fn health_and_unknown_paths_need_no_token_and_answer_json() {
    let (_, router) = start(Rules::default());
    let request = |method: &str, path: &str| Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
    assert_eq!(call(&router, request("GET", "/health")).await, (StatusCode::OK, json!({"status": "ok"})));
    let not_found = (StatusCode::NOT_FOUND, error("Not found"));
    assert_eq!(call(&router, request("GET", "/nothing")).await, not_found);
    let not_allowed = (StatusCode::METHOD_NOT_ALLOWED, error("Method not allowed"));
    assert_eq!(call(&router, request("GET", "/createSessions")).await, not_allowed);
}

#[tokio::test]
async fn the_api_file_is_served_without_a_token_unless_it_is_switched_off() {
    for enable_api_yaml in [true, false] {
        let (_, router) = start(Rules { enable_api_yaml, ..Rules::default() });
        let request = Request::get("/dcv-session-manager-api.yaml").body(Body::empty()).unwrap();
        let response = router.oneshot(request).await.unwrap();
        let (head, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        if enable_api_yaml {
            assert_eq!(head.status, StatusCode::OK);
            assert_eq!(head.headers["content-type"], "application/yaml");
            assert_eq!(body, API_FILE);
        } else {
            assert_eq!(head.status, StatusCode::NOT_FOUND);
        }
    }
}

#[tokio::test]
async fn a_broker_that_is_starting_says_so() {
    let memory = Memory::starting();
    let router = router(Arc::new(App::plain(Arc::new(memory), Rules::default(), now)));
    for (method, path) in [("GET", "/health"), ("POST", "/describeSessions"), ("POST", "/oauth2/token")] {
        let request = Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
        let expected = (StatusCode::SERVICE_UNAVAILABLE, error("The broker is starting, try again"));
        assert_eq!(call(&router, request).await, expected, "{path}");
    }
}

#[tokio::test]
async fn tokens_are_given_for_credentials_in_header_or_body() {
    let (memory, router) = start(Rules::default());
    let password = Password::generate();
    memory.put_client(client("red", &password, json!({"clientId": "portal", "tokenLifetimeSeconds": 600})));
    let good = basic("portal", password.reveal());
    let posted = format!("client_id=portal&client_secret={}", password.reveal());
    let query = "/oauth2/token?grant_type=client_credentials";
    let form = "application/x-www-form-urlencoded";
    let granted = |body: &Value| body["token_type"] == "Bearer" && body["expires_in"] == 600;
    for (path, authorization, type_, body, expected) in [
        (query, Some(&good), None, "", Ok(())),
        (query, Some(&good), Some(form), "", Ok(())),
        (query, Some(&good), Some("application/json"), "{}", Ok(())),
        (&format!("{query}&scope=a%2Fb"), Some(&good), None, "", Ok(())),
        ("/oauth2/token", Some(&good), Some(form), "grant_type=client_credentials", Ok(())),
        (query, None, Some(form), posted.as_str(), Ok(())),
        (query, Some(&good), Some(form), posted.as_str(), Err((400, "invalid_request"))),
        ("/oauth2/token", Some(&good), None, "", Err((400, "invalid_request"))),
        ("/oauth2/token?grant_type=password", Some(&good), None, "", Err((400, "unsupported_grant_type"))),
        (query, None, None, "", Err((401, "invalid_client"))),
        (query, Some(&basic("portal", "wrong")), None, "", Err((401, "invalid_client"))),
        (query, Some(&basic("nobody", password.reveal())), None, "", Err((401, "invalid_client"))),
        (query, Some(&"Bearer x".to_owned()), None, "", Err((401, "invalid_client"))),
        (query, Some(&"Basic !".to_owned()), None, "", Err((401, "invalid_client"))),
    ] {
        let mut request = Request::post(path);
        request = authorization.into_iter().fold(request, |request, value| request.header("authorization", value));
        request = type_.into_iter().fold(request, |request, value| request.header("content-type", value));
        let (status, answer) = call(&router, request.body(Body::from(body.to_owned())).unwrap()).await;
        match expected {
            Ok(()) => assert!(status == 200 && granted(&answer), "{path} {answer}"),
            Err((code, word)) => assert_eq!((status.as_u16(), answer), (code, error(word)), "{path}"),
        }
    }
}

#[tokio::test]
async fn a_client_that_may_not_log_in_gets_no_token() {
    let (memory, router) = start(Rules::default());
    let password = Password::generate();
    let good = || client("red", &password, json!({}));
    let with = |changes: Value| {
        let mut value = serde_json::to_value(good()).unwrap();
        merge(&mut value, changes);
        serde_json::from_value::<ApiClient>(value).unwrap()
    };
    let hash = password.hash();
    for (refused, why) in [
        (with(json!({"spec": {"suspended": true}})), "suspended"),
        (with(json!({"spec": {"credentials": []}})), "no credential"),
        (with(json!({"spec": {"credentials": [{"hash": hash, "expireTime": NOW}]}})), "expired"),
        (with(json!({"status": {"conditions": []}})), "not accepted"),
        (with(json!({"metadata": {"deletionTimestamp": NOW}})), "deleted"),
    ] {
        memory.put_client(refused);
        let request = Request::post("/oauth2/token?grant_type=client_credentials")
            .header("authorization", basic("uid-red", password.reveal()));
        let (status, answer) = call(&router, request.body(Body::empty()).unwrap()).await;
        assert_eq!((status, answer), (StatusCode::UNAUTHORIZED, error("invalid_client")), "{why}");
    }
}

#[tokio::test]
async fn every_call_needs_a_token_of_the_right_kind() {
    let mut broker = Broker::new(Rules::default()).await;
    let sign = |iat: i64, exp: i64, uid: &str, keys: &KeySet| {
        let claims = AccessClaims {
            sub: uid.into(),
            client_id: uid.into(),
            namespace: "red".into(),
            credential: "sha256:none".into(),
            iat,
            exp,
            jti: "j".into(),
            aud: Kind::Access.audience().into(),
        };
        token::sign(&claims, keys.signer(now()).unwrap()).unwrap()
    };
    let keys = &broker.memory.cache.keys(Kind::Access).unwrap().private.clone();
    let seconds = now().as_second();
    let connection = ConnectionClaims {
        session_id: "s".into(),
        session_owner: "ann".into(),
        session_user: "ann".into(),
        server_uid: "u".into(),
        attempt: 1,
        client_uid: None,
        iat: seconds,
        exp: seconds + 60,
        jti: "j".into(),
        aud: Kind::Connection.audience().into(),
    };
    let connection_keys = &broker.memory.cache.keys(Kind::Connection).unwrap().private.clone();
    let paths = [
        ("POST", "/createSessions"),
        ("POST", "/describeSessions"),
        ("POST", "/describeServers"),
        ("POST", "/deleteSessions"),
        ("PUT", "/sessionPermissions"),
        ("POST", "/openServers"),
        ("POST", "/closeServers"),
        ("POST", "/getSessionScreenshots"),
        ("GET", "/sessionConnectionData/aSession/aOwner"),
    ];
    for (method, path) in paths {
        let request = Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
        let expected = (StatusCode::UNAUTHORIZED, error("No authorization header"));
        assert_eq!(call(&broker.router, request).await, expected, "{path}");
    }
    let invalid = "Invalid access token";
    for (token, text) in [
        ("nonsense".to_owned(), invalid),
        (token::sign(&connection, connection_keys.signer(now()).unwrap()).unwrap(), invalid),
        (token::sign(&connection, keys.signer(now()).unwrap()).unwrap(), invalid),
        (sign(seconds, seconds + 60, "uid-red", connection_keys), invalid),
        (sign(seconds + 600, seconds + 6000, "uid-red", keys), invalid),
        (sign(seconds - 60, seconds, "uid-red", keys), "The access token has expired"),
        (sign(seconds, seconds + 60, "uid-gone", keys), "The client no longer exists"),
        (sign(seconds, seconds + 60, "uid-red", keys), "The credential of the access token is no longer valid"),
    ] {
        broker.token = token;
        let expected = (StatusCode::UNAUTHORIZED, error(text));
        assert_eq!(broker.post("/describeSessions", json!({})).await, expected);
    }
    let request = Request::post("/describeSessions").header("authorization", basic("a", "b"));
    let (status, answer) = call(&broker.router, request.body(Body::empty()).unwrap()).await;
    assert_eq!((status, answer), (StatusCode::UNAUTHORIZED, error("Invalid authorization header")));
}

#[tokio::test]
async fn what_happens_to_a_client_acts_at_once_on_its_tokens() {
    let broker = Broker::new(Rules::default()).await;
    let good = broker.memory.cache.client("uid-red").unwrap().as_ref().clone();
    assert_eq!(broker.post("/describeSessions", json!({})).await.0, 200);
    let check = async |client: ApiClient, text: &str| {
        broker.memory.put_client(client);
        let expected = (StatusCode::UNAUTHORIZED, error(text));
        assert_eq!(broker.post("/describeSessions", json!({})).await, expected);
        broker.memory.put_client(good.clone());
        assert_eq!(broker.post("/describeSessions", json!({})).await.0, 200);
    };
    let mut suspended = good.clone();
    suspended.spec.suspended = true;
    check(suspended, "The client is suspended").await;
    let mut expired = good.clone();
    expired.spec.credentials[0].expire_time = Some(Time(now()));
    check(expired, "The credential of the access token is no longer valid").await;
    let mut rotated = good.clone();
    rotated.spec.credentials[0].hash = Password::generate().hash();
    check(rotated, "The credential of the access token is no longer valid").await;
    let mut unaccepted = good.clone();
    unaccepted.status = None;
    check(unaccepted, "The client is not accepted").await;
    broker.memory.cache.write().clients.apply(Change::Gone { uid: "uid-red".into(), version: 9999 });
    let expected = (StatusCode::UNAUTHORIZED, error("The client no longer exists"));
    assert_eq!(broker.post("/describeSessions", json!({})).await, expected);
    // Another replica has issued the token a moment ago, and this one has not seen the client yet.
    *broker.memory.late_client.lock().unwrap() = Some(good);
    assert_eq!(broker.post("/describeSessions", json!({})).await.0, 200);
}

#[tokio::test]
async fn structural_errors_are_refused_as_a_whole() {
    let broker = Broker::new(Rules::default()).await;
    for (path, body) in [
        ("/createSessions", ""),
        ("/createSessions", "{"),
        ("/createSessions", "{}"),
        ("/createSessions", "null"),
        ("/createSessions", "[1]"),
        ("/createSessions", "[[\"a\", \"ann\", \"VIRTUAL\"]]"),
        ("/createSessions", "[{\"Name\": 1}]"),
        ("/deleteSessions", "[{\"Force\": \"true\"}]"),
        ("/openServers", "{\"ServerId\": \"x\"}"),
        ("/openServers", "[{\"ServerId\": 1}]"),
        ("/closeServers", ""),
        ("/closeServers", "[{\"ServerId\": \"x\", \"Force\": \"true\"}]"),
        ("/getSessionScreenshots", ""),
        ("/getSessionScreenshots", "{}"),
        ("/getSessionScreenshots", "[null]"),
        ("/getSessionScreenshots", "[{\"SessionId\": 1}]"),
        ("/getSessionScreenshots", "[{\"SessionId\": \"a\", \"MaxWidth\": 1.5}]"),
        ("/getSessionScreenshots", "[{\"SessionId\": \"a\", \"MaxHeight\": \"1\"}]"),
        ("/describeSessions", "[]"),
        ("/describeSessions", "{\"SessionIds\": [null]}"),
        ("/describeSessions", "{\"MaxResults\": 0}"),
        ("/describeSessions", "{\"MaxResults\": 1001}"),
        ("/describeSessions", "{\"NextToken\": \"x\"}"),
        ("/describeSessions", "{\"Filters\": [{\"Key\": \"name\", \"Value\": \"x\"}]}"),
        ("/describeSessions", "{\"Filters\": [{\"Key\": \"tag:\", \"Value\": \"x\"}]}"),
        ("/describeServers", "{\"ServerIds\": \"x\"}"),
        ("/describeServers", "{\"MaxResults\": -1}"),
    ] {
        let (status, answer) = broker.send(Request::post(path), body).await;
        assert_eq!(status, 400, "{path} {body}");
        assert!(answer["error"].is_string(), "{path} {body} {answer}");
    }
    let many = vec![json!({}); 1001];
    for path in ["/deleteSessions", "/openServers", "/closeServers"] {
        assert_eq!(broker.post(path, json!(many)).await.0, 400, "{path}");
    }
    for body in ["", "{}", "[{\"PermissionsFile\": 1}]", &json!(many).to_string()] {
        assert_eq!(broker.send(Request::put("/sessionPermissions"), body).await.0, 400, "{body}");
    }
    assert_eq!(broker.post("/getSessionScreenshots", json!(many)).await.0, 400);
    let (status, answer) = broker.send(Request::post("/createSessions"), &" ".repeat(5 << 20)).await;
    assert_eq!((status, answer), (StatusCode::PAYLOAD_TOO_LARGE, error("The request is too large")));
    for body in ["", "null", "{}", "{\"SessionIds\": [], \"Filters\": [], \"NextToken\": null, \"New\": 1}"] {
        assert_eq!(broker.send(Request::post("/describeSessions"), body).await.0, 200, "{body}");
    }
}
