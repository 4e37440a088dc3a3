//! The API as clients see it, without sockets and without a cluster: a store in memory over the real caches.

#![expect(clippy::needless_pass_by_value, reason = "JSON written at the call reads best without a reference")]

mod connection;
mod create;
mod delete;
mod dry_run;
mod others;
mod permissions;
mod placement;
mod requests;
mod servers;
mod sessions;

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
use crate::wire::API_FILE;

/// A broker with the client `red` (of namespace red) and its access token.
pub(super) struct Broker {
    pub memory: Arc<Memory>,
    pub router: Router,
    pub token: String,
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
    let app = App { agents, ..App::plain(Arc::clone(&memory) as _, rules, now) };
    (memory, router(Arc::new(app)))
}

impl Broker {
    pub async fn new(rules: Rules) -> Self {
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

    async fn put(&self, path: &str, body: Value) -> Value {
        let (status, answer) = self.send(Request::put(path), &body.to_string()).await;
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

pub(super) async fn call(router: &Router, request: Request<Body>) -> (StatusCode, Value) {
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
