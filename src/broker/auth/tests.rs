//! Limits as callers meet them.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures::stream;
use http::Request;
use http::header::HeaderMap;
use http_body_util::BodyExt;
use serde_json::Value;
use serde_json::json;
use tower::ServiceExt;

use super::super::App;
use super::super::Rules;
use super::super::memory::Memory;
use super::super::memory::now;
use super::super::router;
use crate::token::Password;

const TOKEN: &str = "/oauth2/token?grant_type=client_credentials";

struct Broker {
    router: Router,
    password: Password,
}

impl Broker {
    /// With the clients red and blue, who have the same password.
    fn new(rules: Rules) -> Self {
        let (memory, password) = (Memory::new(), Password::generate());
        for name in ["red", "blue"] {
            let client = json!({
                "apiVersion": "dcv-operator.io/v1alpha1", "kind": "ApiClient",
                "metadata": {"name": name, "namespace": name, "uid": format!("uid-{name}")},
                "spec": {"credentials": [{"hash": password.hash()}]},
                "status": {"conditions": [{"type": "Ready", "status": "True", "reason": "Accepted", "message": "",
                    "lastTransitionTime": "2026-11-21T10:00:00Z"}]},
            });
            memory.put_client(serde_json::from_value(client).unwrap());
        }
        Self { router: router(Arc::new(App::plain(Arc::new(memory), rules, now))), password }
    }

    async fn send(&self, from: &str, request: http::request::Builder) -> (u16, HeaderMap, Value) {
        let peer: SocketAddr = format!("{from}:1").parse().unwrap();
        let request = request.extension(ConnectInfo(peer)).body(Body::empty()).unwrap();
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        (status, headers, serde_json::from_slice(&bytes).unwrap())
    }

    async fn log_in(&self, from: &str, name: &str, password: &str) -> (u16, HeaderMap, Value) {
        let basic = format!("Basic {}", STANDARD.encode(format!("uid-{name}:{password}")));
        self.send(from, Request::post(TOKEN).header("authorization", basic)).await
    }

    async fn token(&self, name: &str) -> String {
        let (_, _, answer) = self.log_in("192.0.2.1", name, self.password.reveal()).await;
        answer["access_token"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned()
    }

    async fn describe(&self, from: &str, token: &str) -> u16 {
        let request = Request::post("/describeSessions").header("authorization", format!("Bearer {token}"));
        self.send(from, request).await.0
    }
}

fn limit(requests: u32) -> Rules {
    Rules { max_api_requests_per_second: requests, ..Rules::default() }
}

#[tokio::test]
async fn a_client_that_asks_too_often_waits_and_no_other_one_does() {
    let broker = Broker::new(limit(3));
    let (red, blue) = (broker.token("red").await, broker.token("blue").await);
    assert_eq!([broker.describe("192.0.2.1", &red).await, broker.describe("192.0.2.2", &red).await], [200, 200]);
    let request = Request::post("/describeSessions").header("authorization", format!("Bearer {red}"));
    let (status, headers, answer) = broker.send("192.0.2.3", request).await;
    assert_eq!((status, answer), (429, json!({"error": "Too many requests, try again later"})));
    assert_eq!(headers["retry-after"], "1");
    assert_eq!(broker.describe("192.0.2.1", &blue).await, 200, "at the same address");
    let health = broker.send("192.0.2.1", Request::get("/health")).await;
    assert_eq!(health.0, 200, "balancers ask as often as they like");
}

#[tokio::test]
async fn who_proves_to_be_no_client_is_counted_by_address() {
    let broker = Broker::new(limit(3));
    let red = broker.token("red").await;
    let status = async |from: &str| broker.describe(from, "nonsense").await;
    assert_eq!([status("192.0.2.1").await, status("192.0.2.1").await], [401, 401]);
    assert_eq!(broker.log_in("192.0.2.1", "red", "guess").await.0, 401, "logins and calls count together");
    assert_eq!(status("192.0.2.1").await, 429);
    let (status_code, headers, _) = broker.log_in("192.0.2.1", "red", "guess").await;
    assert_eq!((status_code, headers["retry-after"].to_str().unwrap()), (429, "1"));
    assert_eq!(status("192.0.2.2").await, 401);
    assert_eq!(broker.describe("192.0.2.1", &red).await, 200, "a client behind the same address is not held up");
    assert_eq!(broker.log_in("192.0.2.1", "blue", broker.password.reveal()).await.0, 200);
}

#[tokio::test]
async fn a_forwarded_address_counts_where_told_and_without_authorization_all_do() {
    let forwarded = Rules { enable_throttling_forwarded_for_header: true, ..limit(1) };
    let broker = Broker::new(forwarded);
    let send = async |broker: &Broker, forwarded: &str| {
        broker.send("192.0.2.1", Request::post("/describeSessions").header("x-forwarded-for", forwarded)).await.0
    };
    assert_eq!([send(&broker, "198.51.100.1").await, send(&broker, "198.51.100.1").await], [401, 429]);
    assert_eq!(send(&broker, "198.51.100.1, 198.51.100.2").await, 401);
    assert_eq!(send(&broker, "203.0.113.1, 198.51.100.2").await, 429, "what the caller claims changes nothing");
    let open = Broker::new(Rules { no_authorization_namespace: Some("red".into()), ..limit(1) });
    assert_eq!([send(&open, "198.51.100.1").await, send(&open, "198.51.100.2").await], [200, 429]);
    assert_eq!(open.send("192.0.2.2", Request::post("/describeSessions")).await.0, 200);
}

#[tokio::test]
async fn a_body_that_does_not_come_is_waited_for_only_so_long() {
    let broker = Broker::new(Rules::default());
    let token = broker.token("red").await;
    let bearer = format!("Bearer {token}");
    let send = async |request: http::request::Builder| {
        let body = Body::from_stream(stream::pending::<Result<bytes::Bytes, std::io::Error>>());
        let response = broker.router.clone().oneshot(request.body(body).unwrap()).await.unwrap();
        let status = response.status().as_u16();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice::<Value>(&bytes).unwrap())
    };
    let late = (408, json!({"error": "The body of the request took too long"}));
    let call = send(Request::post("/createSessions").header("authorization", bearer));
    // It takes its time: both at once.
    assert_eq!(futures::join!(call, send(Request::post(TOKEN))), (late.clone(), late));
}
#[tokio::test]
async fn a_thousand_ordinary_sessions_fit_in_one_call() {
    let broker = Broker::new(Rules::default());
    let token = broker.token("red").await;
    let requirement =
        "tag:color = 'pink' and (server:Host.Os.Family = 'linux' or server:Host.Memory.TotalBytes > 1024E6)";
    let item = json!({"Name": "n".repeat(256), "Owner": "o".repeat(64), "Type": "VIRTUAL", "EnqueueRequest": true,
        "Requirements": ([requirement; 6].join(" and ")), "AutorunFile": "myapp.sh",
        "AutorunFileArguments": vec!["a".repeat(60); 20], "StorageRoot": "%home%", "InitFile": "script.sh",
        "PermissionsFile": STANDARD.encode("p".repeat(800))});
    let body = Value::from(vec![item; 1000]).to_string();
    assert!(body.len() > 3_400_000, "{}", body.len());
    let request = Request::post("/createSessions").header("authorization", format!("Bearer {token}"));
    let response = broker.router.clone().oneshot(request.body(Body::from(body)).unwrap()).await.unwrap();
    assert_eq!(response.status(), 200);
    let answer: Value = serde_json::from_slice(&response.into_body().collect().await.unwrap().to_bytes()).unwrap();
    assert_eq!(
        answer["SuccessfulList"].as_array().unwrap().len() + answer["UnsuccessfulList"].as_array().unwrap().len(),
        1000
    );
}

#[test]
fn a_made_up_client_is_the_same_each_time_and_no_other_ones() {
    let uid = |parts: &[&str]| super::made_up("a", "red", parts).metadata.uid.unwrap();
    assert_eq!(uid(&["x", "y"]), uid(&["x", "y"]));
    assert_ne!(uid(&["x", "y"]), uid(&["xy"]));
    assert_eq!(uuid::Uuid::try_parse(&uid(&["x"])).unwrap().get_version_num(), 8);
}
