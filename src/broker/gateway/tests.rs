//! The resolver as gateways see it.

use axum::body::Body;
use http::Request;
use http_body_util::BodyExt;
use serde_json::Value;
use serde_json::json;
use tower::ServiceExt;

use super::super::Rules;
use super::super::memory::Memory;
use super::super::memory::merge;
use super::super::memory::now;
use super::super::memory::ready_on;
use super::*;

const ID: &str = "7f8a2c1e-0000-4000-8000-000000000001";

/// A READY session on `s1`, changed as told, and that server, changed as told.
fn cluster(session: Value, server: Value) -> Arc<Memory> {
    let memory = Memory::new();
    let mut status = json!({"defaultDnsName": "s1.example"});
    merge(&mut status, server);
    memory.add_server("s1", json!({}), status);
    let mut ready = ready_on("s1");
    merge(&mut ready, session);
    memory.add_session(ID, ready);
    Arc::new(memory)
}

async fn send(memory: &Arc<Memory>, names: DnsNames, request: http::request::Builder) -> (u16, Value) {
    let app = Arc::new(App::plain(Arc::clone(memory) as _, Rules::default(), now));
    let request = request.body(Body::empty()).unwrap();
    let response = router(app, Arc::new(names)).oneshot(request).await.unwrap();
    let status = response.status().as_u16();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&bytes).unwrap())
}

async fn resolve(memory: &Arc<Memory>, query: &str) -> (u16, Value) {
    send(memory, DnsNames::default(), Request::post(format!("/resolveSession?{query}"))).await
}

async fn resolve_id(memory: &Arc<Memory>, transport: &str) -> (u16, Value) {
    resolve(memory, &format!("sessionId={ID}&transport={transport}&clientIpAddress=2001:db8::1")).await
}

fn no_destination() -> (u16, Value) {
    (404, json!({"error": "No destination for this session"}))
}

#[tokio::test]
async fn a_ready_session_is_resolved_to_name_port_and_path_of_its_server() {
    let memory = cluster(json!({}), json!({}));
    let expected = json!({"SessionId": ID, "TransportProtocol": "HTTP", "DcvServerEndpoint": "s1.example",
        "Port": 8444, "WebUrlPath": "/"});
    assert_eq!(resolve_id(&memory, "HTTP").await, (200, expected.clone()));
    assert_eq!(resolve(&memory, &format!("sessionId={ID}&transport=HTTP")).await, (200, expected));
}

#[tokio::test]
async fn the_endpoint_of_the_transport_is_answered_and_without_one_for_quic_nothing() {
    let without = cluster(json!({}), json!({}));
    assert_eq!(resolve_id(&without, "QUIC").await, no_destination());
    let endpoints = json!([
        {"ipAddress": "10.0.0.1", "port": 8445, "webUrlPath": "/dcv/", "protocol": "HTTP"},
        {"ipAddress": "10.0.0.1", "port": 8446, "protocol": "QUIC"},
    ]);
    let with = cluster(json!({"status": {"server": {"endpoints": endpoints}}}), json!({}));
    for (transport, port, path) in [("HTTP", 8445, "/dcv/"), ("QUIC", 8446, "/")] {
        let expected = json!({"SessionId": ID, "TransportProtocol": transport, "DcvServerEndpoint": "s1.example",
            "Port": port, "WebUrlPath": path});
        assert_eq!(resolve_id(&with, transport).await, (200, expected));
    }
}

#[tokio::test]
async fn a_mapped_name_goes_before_the_servers_own_and_the_address_is_the_last_resort() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let mapping = json!([{"ServerIdType": "Id", "ServerId": "uid-s1", "DnsNames": {"InternalDnsName": "inside"}}]);
    std::fs::write(file.path(), mapping.to_string()).unwrap();
    let mapped = DnsNames::load(Some(file.path().to_owned())).await.unwrap();
    let nameless = cluster(json!({}), json!({"defaultDnsName": ""}));
    for (names, memory, expected) in
        [(mapped, &cluster(json!({}), json!({})), "inside"), (DnsNames::default(), &nameless, "10.0.0.1")]
    {
        let request = Request::post(format!("/resolveSession?sessionId={ID}&transport=HTTP"));
        assert_eq!(send(memory, names, request).await.1["DcvServerEndpoint"], expected);
    }
}

#[tokio::test]
async fn only_a_ready_session_that_nobody_ends_on_a_server_that_answers_is_resolved() {
    let silent = json!({"conditions": [{"type": "AgentConnected", "status": "False", "reason": "LeaseExpired",
        "message": "", "lastTransitionTime": "2026-11-21T10:00:00Z"}]});
    for (session, server) in [
        (json!({"status": {"state": "CREATING", "conditions": []}}), json!({})),
        (json!({"status": {"state": "UNKNOWN"}}), json!({})),
        (json!({"status": {"state": "DELETED"}}), json!({})),
        (json!({"status": {"serverName": "s9"}}), json!({})),
        (json!({"spec": {"desiredState": "Closed"}}), json!({})),
        (json!({"metadata": {"deletionTimestamp": "2026-11-21T10:00:00Z"}}), json!({})),
        (json!({}), silent),
    ] {
        let memory = cluster(session.clone(), server);
        assert_eq!(resolve_id(&memory, "HTTP").await, no_destination(), "{session}");
    }
    let memory = cluster(json!({}), json!({}));
    assert_eq!(resolve(&memory, "sessionId=other&transport=HTTP").await, no_destination());
}

#[tokio::test]
async fn an_id_that_two_open_sessions_have_is_not_resolved() {
    let same_id = json!({"status": {"sessionId": "console"}});
    let memory = cluster(same_id.clone(), json!({}));
    assert_eq!(resolve(&memory, "sessionId=console&transport=HTTP").await.0, 200);
    let mut second = ready_on("s1");
    merge(&mut second, same_id);
    memory.add_session("second", second);
    assert_eq!(resolve(&memory, "sessionId=console&transport=HTTP").await, no_destination());
}

#[tokio::test]
async fn a_missing_session_or_an_unknown_transport_is_a_bad_request() {
    let memory = cluster(json!({}), json!({}));
    for (query, text) in [
        ("transport=HTTP", "Missing sessionId parameter"),
        ("sessionId=&transport=HTTP", "Missing sessionId parameter"),
        ("sessionId=a", "Missing transport parameter"),
        ("sessionId=a&transport=http", "Invalid transport parameter"),
        ("sessionId=a&transport=", "Invalid transport parameter"),
        ("sessionId=a&sessionId=b&transport=HTTP", "Invalid parameters"),
    ] {
        assert_eq!(resolve(&memory, query).await, (400, json!({"error": text})), "{query}");
    }
    let wrong_method = send(&memory, DnsNames::default(), Request::get("/resolveSession?sessionId=a")).await;
    assert_eq!(wrong_method.0, 405);
    assert_eq!(send(&memory, DnsNames::default(), Request::post("/createSessions")).await.0, 404);
    assert_eq!(send(&memory, DnsNames::default(), Request::get("/health")).await.0, 200);
    assert_eq!(resolve_id(&Arc::new(Memory::starting()), "HTTP").await.0, 503);
}
