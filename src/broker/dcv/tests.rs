//! The API as clients see it, without sockets and without a cluster: a store in memory over the real caches.

#![expect(clippy::needless_pass_by_value, reason = "JSON written at the call reads best without a reference")]

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use http::Request;
use http::StatusCode;
use http_body_util::BodyExt;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use serde_json::Value;
use serde_json::json;
use tower::ServiceExt;

use super::super::App;
use super::super::Rules;
use super::super::agents::Agents;
use super::super::cache::Change;
use super::super::memory::Memory;
use super::super::memory::NOW;
use super::super::memory::merge;
use super::super::memory::now;
use super::super::memory::ready_on;
use super::super::router;
use super::super::store::StoreError;
use crate::api::ApiClient;
use crate::api::names;
use crate::token;
use crate::token::AccessClaims;
use crate::token::ConnectionClaims;
use crate::token::KeySet;
use crate::token::Kind;
use crate::token::Password;

/// A broker with the client `red` (of namespace red) and its access token.
pub(super) struct Broker {
    pub memory: Arc<Memory>,
    router: Router,
    token: String,
}

fn client(name: &str, password: &Password, spec: Value) -> ApiClient {
    let mut whole = json!({"credentials": [{"hash": password.hash()}]});
    whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    serde_json::from_value(json!({
        "apiVersion": "dcv-operator.io/v1alpha1", "kind": "ApiClient",
        "metadata": {"name": name, "namespace": name, "uid": format!("uid-{name}")},
        "spec": whole,
        "status": {"conditions": [{"type": "Ready", "status": "True", "reason": "Accepted", "message": "",
            "lastTransitionTime": NOW}]},
    }))
    .unwrap()
}

fn start(rules: Rules) -> (Arc<Memory>, Router) {
    start_with(rules, Agents::default())
}

fn start_with(rules: Rules, agents: Agents) -> (Arc<Memory>, Router) {
    let memory = Arc::new(Memory::new());
    let app = App { store: Arc::clone(&memory) as _, agents, rules, now };
    (memory, router(Arc::new(app)))
}

impl Broker {
    async fn new(rules: Rules) -> Self {
        Self::with_agents(rules, Agents::default()).await
    }

    /// With agents that answer.
    pub async fn with_agents(rules: Rules, agents: Agents) -> Self {
        let (memory, router) = start_with(rules, agents);
        let mut broker = Self { memory, router, token: String::new() };
        broker.token = broker.log_in("red", json!({})).await;
        broker
    }

    async fn log_in(&self, name: &str, spec: Value) -> String {
        let password = Password::generate();
        self.memory.put_client(client(name, &password, spec));
        let credentials = basic(&format!("uid-{name}"), password.reveal());
        let request = Request::post("/oauth2/token?grant_type=client_credentials").header("authorization", credentials);
        let (status, body) = call(&self.router, request.body(Body::empty()).unwrap()).await;
        assert_eq!(status, 200, "{body}");
        body["access_token"].as_str().unwrap().to_owned()
    }

    async fn send(&self, request: http::request::Builder, body: &str) -> (StatusCode, Value) {
        let request = request.header("authorization", format!("Bearer {}", self.token));
        call(&self.router, request.body(Body::from(body.to_owned())).unwrap()).await
    }

    async fn post(&self, path: &str, body: Value) -> (StatusCode, Value) {
        self.send(Request::post(path), &body.to_string()).await
    }

    /// A call that must succeed.
    pub async fn ask(&self, path: &str, body: Value) -> Value {
        let (status, answer) = self.post(path, body).await;
        assert_eq!(status, 200, "{answer}");
        answer
    }

    async fn get(&self, path: &str) -> (StatusCode, Value) {
        self.send(Request::get(path), "").await
    }

    async fn described(&self) -> Vec<Value> {
        self.ask("/describeSessions", json!({})).await["Sessions"].as_array().unwrap().clone()
    }

    pub fn put_server(&self, name: &str, spec: Value, status: Value) {
        self.memory.add_server(name, spec, status);
    }

    pub fn put_session(&self, uid: &str, changes: Value) {
        self.memory.add_session(uid, changes);
    }

    fn writes(&self) -> Vec<String> {
        std::mem::take(&mut self.memory.writes.lock().unwrap())
    }
}

fn basic(id: &str, password: &str) -> String {
    use base64::Engine;
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("{id}:{password}")))
}

async fn call(router: &Router, request: Request<Body>) -> (StatusCode, Value) {
    let response = router.clone().oneshot(request).await.unwrap();
    assert_eq!(response.headers()["cache-control"], "no-store");
    assert!(response.headers().contains_key("x-request-id"));
    let status = response.status();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&bytes).unwrap_or_else(|_| panic!("not JSON: {bytes:?}")))
}

fn finished(state: &str, reason: &str, completed: &str) -> Value {
    json!({"status": {"state": state, "completionTime": completed, "conditions": [{"type": "Finished", "status": "True",
        "reason": reason, "message": "", "lastTransitionTime": NOW}]}})
}

fn error(text: &str) -> Value {
    json!({"error": text})
}

fn ids(sessions: &[Value]) -> Vec<&str> {
    sessions.iter().map(|session| session["Id"].as_str().unwrap()).collect()
}

fn a_session(changes: Value) -> Value {
    let mut request = json!({"Name": "My desktop", "Owner": "ann", "Type": "VIRTUAL"});
    merge(&mut request, changes);
    request
}

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
async fn a_broker_that_is_starting_says_so() {
    let memory = Memory::starting();
    let router =
        router(Arc::new(App { store: Arc::new(memory), agents: Agents::default(), rules: Rules::default(), now }));
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
async fn a_created_session_is_answered_described_and_described_by_id() {
    let broker = Broker::new(Rules::default()).await;
    broker.put_server("s1", json!({}), json!({}));
    let answer = broker.ask("/createSessions", json!([a_session(json!({"MaxConcurrents": 3}))])).await;
    let session = &answer["SuccessfulList"][0];
    let id = session["Id"].as_str().unwrap();
    let expected = json!({"Id": id, "Name": "My desktop", "Owner": "ann", "Type": "VIRTUAL", "State": "CREATING",
        "MaxConcurrentClients": 3, "CreationTime": "2026-11-21T10:00:00.000Z", "NumOfConnections": 0});
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
    assert_eq!(broker.post("/deleteSessions", json!(many)).await.0, 400);
    assert_eq!(broker.post("/getSessionScreenshots", json!(many)).await.0, 400);
    let (status, answer) = broker.send(Request::post("/createSessions"), &" ".repeat(5 << 20)).await;
    assert_eq!((status, answer), (StatusCode::PAYLOAD_TOO_LARGE, error("The request is too large")));
    for body in ["", "null", "{}", "{\"SessionIds\": [], \"Filters\": [], \"NextToken\": null, \"New\": 1}"] {
        assert_eq!(broker.send(Request::post("/describeSessions"), body).await.0, 200, "{body}");
    }
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
        json!(["a", "CREATING", "PENDING_PREPARATION", null]),
        json!(["b", "DELETING", null, null]),
        json!(["c", "DELETED", null, null]),
        json!(["e", "UNKNOWN", null, "no"]),
    ];
    assert_eq!(shown, expected, "deleted ones for the retention time, those being removed not at all");
}

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

#[tokio::test]
async fn servers_are_those_the_client_may_use_with_counts_of_all_tenants() {
    let mut broker = Broker::new(Rules::default()).await;
    let other = json!({"id": "console", "owner": "bob", "type": "VIRTUAL", "origin": "Manual"});
    broker.put_server(
        "s1",
        json!({}),
        json!({"virtualSessionCount": 0, "otherSessions": [other],
        "host": {"os": {"family": "linux"}, "aws": {"region": "eu", "ec2InstanceType": "t2"},
            "loggedInUsers": ["bob"], "cpuLoadAverage": {"oneMinute": 0.1, "fiveMinutes": 1, "fifteenMinutes": 2.5}}}),
    );
    broker.put_server("s2", json!({"allowedNamespaces": {"matchLabels": {"team": "blue"}}}), json!({}));
    let lost = json!({"availability": "UNAVAILABLE", "unavailabilityReason": "UNREACHABLE_AGENT",
        "conditions": [{"type": "AgentConnected", "status": "False", "reason": "LeaseExpired", "message": "",
            "lastTransitionTime": "2026-11-21T09:00:00Z"}]});
    broker.put_server("s3", json!({}), lost);
    let mut foreign = ready_on("s1");
    merge(&mut foreign, json!({"metadata": {"namespace": "blue"}}));
    broker.put_session("a", foreign);

    let answer = broker.ask("/describeServers", json!({})).await;
    let expected = json!([{
        "Id": "uid-s1", "Ip": "10.0.0.1", "Hostname": "s1", "Port": "8444", "Endpoints": [], "WebUrlPath": "/",
        "Availability": "UNAVAILABLE", "UnavailabilityReason": "SERVER_FULL",
        "ConsoleSessionCount": 0, "VirtualSessionCount": 2,
        "Host": {"Os": {"Family": "linux"}, "Aws": {"Region": "eu", "EC2InstanceType": "t2"},
            "CpuLoadAverage": {"OneMinute": 0.1, "FiveMinutes": 1.0, "FifteenMinutes": 2.5},
            "Gpus": [], "LoggedInUsers": [{"Username": "bob"}]},
        "Tags": [{"Key": "pool", "Value": "s1"}],
    }]);
    // Compared as text: the wire's floats are short ones.
    assert_eq!(answer["Servers"].to_string(), expected.to_string());
    assert!(answer["RequestId"].is_string());

    let names = |answer: &Value| -> Vec<String> {
        let servers = answer["Servers"].as_array().unwrap();
        servers.iter().map(|server| server["Hostname"].as_str().unwrap().to_owned()).collect()
    };
    broker.token = broker.log_in("blue", json!({})).await;
    assert_eq!(names(&broker.ask("/describeServers", json!({"ServerIds": []})).await), ["s1", "s2"]);
    let wanted = json!({"ServerIds": ["uid-s2", "x"]});
    assert_eq!(names(&broker.ask("/describeServers", wanted).await), ["s2"]);
    let first = broker.ask("/describeServers", json!({"MaxResults": 1})).await;
    assert_eq!(names(&first), ["s1"]);
    let rest = json!({"MaxResults": 1, "NextToken": first["NextToken"]});
    let second = broker.ask("/describeServers", rest).await;
    assert_eq!((names(&second), second.get("NextToken")), (vec!["s2".to_owned()], None));
}
