//! What is in the log after a day's work, and what is not.

use std::io;
use std::sync::Mutex;

use axum::Router;
use axum::body::Body;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http_body_util::BodyExt;
use serde_json::Value;
use serde_json::json;
use tower::ServiceExt;
use tracing_subscriber::fmt::MakeWriter;

use super::super::App;
use super::super::memory::Memory;
use super::super::memory::now;
use super::super::memory::ready_on;
use super::super::router;
use super::*;
use crate::token::Password;

/// Where lines go.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Lines {
    type Writer = Self;
    fn make_writer(&self) -> Self {
        self.clone()
    }
}

impl Lines {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }

    /// The fields of the lines of a target, and the id of the request beside them.
    fn of(&self, target: &str) -> Vec<Value> {
        let lines = self.text().lines().map(|line| serde_json::from_str::<Value>(line).unwrap()).collect::<Vec<_>>();
        let of_target = lines.into_iter().filter(|line| line["target"] == target);
        of_target
            .map(|mut line| {
                line["fields"]["request_id"] = line["span"]["request_id"].clone();
                line["fields"].clone()
            })
            .collect()
    }
}

/// For as long as the guard and the other subscriber live, keeps the lines of this thread.
///
/// While there is one subscriber, tracing takes it for the subscriber of all threads: a place that another test logs from first
/// would be asked for by that thread's subscriber, which is none, and be silent for this one too. So there are two.
fn keep_lines() -> (Lines, (tracing::subscriber::DefaultGuard, tracing::Dispatch)) {
    let lines = Lines::default();
    let subscriber =
        tracing_subscriber::fmt().json().with_max_level(tracing::Level::TRACE).with_writer(lines.clone()).finish();
    let guard = tracing::subscriber::set_default(subscriber);
    (lines, (guard, tracing::Dispatch::new(tracing_subscriber::registry())))
}

async fn send(router: &Router, method: &str, path: &str, authorization: &str, body: &str) -> (u16, String, Value) {
    let mut request = Request::builder().method(method).uri(path);
    if !authorization.is_empty() {
        request = request.header("authorization", authorization);
    }
    let response = router.clone().oneshot(request.body(Body::from(body.to_owned())).unwrap()).await.unwrap();
    let id = response.headers()["x-request-id"].to_str().unwrap().to_owned();
    let status = response.status().as_u16();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    (status, id, serde_json::from_slice(&bytes).unwrap())
}

#[tokio::test]
async fn every_request_has_a_line_and_no_line_has_a_secret_a_path_or_a_person() {
    let (lines, _guard) = keep_lines();
    let memory = Arc::new(Memory::new());
    let password = Password::generate();
    let client = json!({
        "apiVersion": "dcv-operator.io/v1alpha1", "kind": "ApiClient",
        "metadata": {"name": "portal", "namespace": "red", "uid": "uid-red"},
        "spec": {"clientId": "the-portal", "credentials": [{"hash": password.hash()}]},
        "status": {"conditions": [{"type": "Ready", "status": "True", "reason": "Accepted", "message": "",
            "lastTransitionTime": "2026-11-21T10:00:00Z"}]},
    });
    memory.put_client(serde_json::from_value(client).unwrap());
    memory.add_server("s1", json!({}), json!({}));
    memory.add_session("7f8a2c1e-0000-4000-8000-000000000001", ready_on("s1"));
    let router = router(Arc::new(App::plain(memory, Rules::default(), now)));
    let token_path = "/oauth2/token?grant_type=client_credentials&client_secret=in-the-query";
    let basic = |id: &str, password: &str| format!("Basic {}", STANDARD.encode(format!("{id}:{password}")));
    // Id and password the wrong way round, which happens.
    assert_eq!(send(&router, "POST", token_path, &basic(password.reveal(), "the-portal"), "").await.0, 401);
    assert_eq!(send(&router, "POST", token_path, &basic("the-portal", "guessed-password"), "").await.0, 401);
    let (_, _, answer) = send(&router, "POST", token_path, &basic("the-portal", password.reveal()), "").await;
    let token = answer["access_token"].as_str().unwrap_or_else(|| panic!("{answer}"));
    let bearer = format!("Bearer {token}");
    let permissions = "[groups]\nthe-permissions-text=user:zoe";
    let item = json!({"Name": "a", "Owner": "zoe", "Type": "VIRTUAL", "PermissionsFile": STANDARD.encode(permissions)});
    let bad = json!({"Name": "a", "Owner": "zoe", "Type": "NEITHER"});
    let items = json!([item, bad]).to_string();
    let (status, create_id, created) = send(&router, "POST", "/createSessions", &bearer, &items).await;
    assert_eq!((status, created["SuccessfulList"].as_array().unwrap().len()), (200, 1), "{created}");
    let path = "/sessionConnectionData/7f8a2c1e-0000-4000-8000-000000000001/zoe";
    let (_, _, data) = send(&router, "GET", path, &bearer, "").await;
    let connection_token = data["ConnectionToken"].as_str().unwrap_or_else(|| panic!("{data}"));
    assert_eq!(send(&router, "POST", "/describeSessions", "Bearer the.bad.token", "").await.0, 401);
    assert_eq!(send(&router, "GET", "/no/such/zoe", "", "").await.0, 404);
    assert_eq!(send(&router, "GET", "/health", "", "").await.0, 200);

    let text = lines.text();
    for secret in [
        password.reveal(),
        "guessed-password",
        "in-the-query",
        token,
        token.rsplit('.').next().unwrap(),
        connection_token,
        connection_token.rsplit('.').next().unwrap(),
        "the.bad.token",
        "the-permissions-text",
        &STANDARD.encode(permissions),
        "zoe",
    ] {
        assert!(!text.contains(secret), "{secret} is in the log:\n{text}");
    }
    let access = lines.of("access");
    let brief: Vec<_> = access
        .iter()
        .map(|line| json!([line["operation"], line["status"], line["client"], line["items"], line["failed"]]))
        .collect();
    let client = "red/portal";
    let expected = [
        json!(["/oauth2/token", 401, null, null, null]),
        json!(["/oauth2/token", 401, null, null, null]),
        json!(["/oauth2/token", 200, client, null, null]),
        json!(["/createSessions", 200, client, 2, 1]),
        json!(["/sessionConnectionData/{session_id}/{user}", 200, client, null, null]),
        json!(["/describeSessions", 401, null, null, null]),
        json!(["none", 404, null, null, null]),
        json!(["/health", 200, null, null, null]),
    ];
    assert_eq!(brief, expected);
    let created = &access[3];
    assert_eq!((&created["request_id"], &created["client_uid"]), (&json!(create_id), &json!("uid-red")));
    assert!(created["milliseconds"].is_u64() && created["peer"].is_string(), "{created}");
}

#[tokio::test]
async fn a_change_has_a_line_with_its_object_client_and_request() {
    let (lines, _guard) = keep_lines();
    let session: crate::api::DcvSession = serde_json::from_value(json!({
        "apiVersion": "dcv-operator.io/v1alpha1", "kind": "DcvSession",
        "metadata": {"name": "a", "namespace": "red", "uid": "u"}, "spec": {"owner": "eve", "type": "VIRTUAL"},
    }))
    .unwrap();
    audit("session deleted", &session);
    let client: ApiClient = serde_json::from_value(json!({
        "apiVersion": "dcv-operator.io/v1alpha1", "kind": "ApiClient",
        "metadata": {"name": "portal", "namespace": "red", "uid": "c"}, "spec": {},
    }))
    .unwrap();
    let route = axum::routing::post(async move || {
        note_client(&client);
        audit("session created", &session);
        request_id().unwrap()
    });
    let rules = Arc::new(Rules::default());
    let log = axum::middleware::from_fn(move |request: Request, next: Next| serve(request, next, Arc::clone(&rules)));
    let router = Router::new().route("/", route).layer(log);
    let response = router.oneshot(Request::post("/").body(Body::empty()).unwrap()).await.unwrap();
    let id = response.headers()["x-request-id"].to_str().unwrap().to_owned();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(body, id.as_bytes(), "which objects are annotated with");
    let expected = [
        json!({"message": "session deleted", "object": "red/a", "uid": "u", "request_id": null}),
        json!({"message": "session created", "object": "red/a", "uid": "u", "client": "red/portal", "request_id": id}),
    ];
    assert_eq!(lines.of("audit"), expected);
    assert_eq!(request_id(), None, "outside a request there is none");
}
