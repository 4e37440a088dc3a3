//! With the feature `otel`: one trace tells how a session came from the REST call to READY.
//!
//! Ignored by default: it brings everything up, by `hack/up` with the programs that were built for this test.
//! `hack/test` runs it.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::routing::post;
use dcv_operator::telemetry::traces;
use dcv_operator::telemetry::traces::Step;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as AnyValue;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use serde_json::Value;
use serde_json::json;

const NAME: &str = "e2e-traces";

/// The caller's own trace and step.
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CALLER: &str = "b7ad6b7169203331";

/// What the permissions of the session say, and no trace may.
const PERMISSIONS: &str = "[permissions]\n%owner% allow builtin\n# not-for-collectors";

/// What a collector was sent: whole bodies.
type Sent = Arc<Mutex<Vec<Bytes>>>;

/// A collector, and its address.
async fn collector() -> (Sent, String) {
    let sent = Sent::default();
    let keep = Arc::clone(&sent);
    let routes = Router::new().route(
        "/v1/traces",
        post(async move |body: Bytes| {
            keep.lock().unwrap().push(body);
            ([("content-type", "application/x-protobuf")], "")
        }),
    );
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, routes).await });
    (sent, address)
}

/// Every span that was sent, with the service it is of.
fn spans(sent: &Sent) -> Vec<(String, Span)> {
    let mut spans = Vec::new();
    for body in &*sent.lock().unwrap() {
        let request = ExportTraceServiceRequest::decode(body.clone()).unwrap();
        for of_resource in request.resource_spans {
            let attributes = of_resource.resource.unwrap().attributes;
            let service = attributes.into_iter().find(|attribute| attribute.key == "service.name").unwrap();
            let Some(AnyValue::StringValue(service)) = service.value.unwrap().value else { panic!("no name") };
            let of_scopes = of_resource.scope_spans.into_iter().flat_map(|of_scope| of_scope.spans);
            spans.extend(of_scopes.map(|span| (service.clone(), span)));
        }
    }
    spans
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn hack(script: &str, args: &[&str], endpoint: &str) {
    let status = Command::new(root().join("hack").join(script))
        .args(["--name", NAME])
        .args(args)
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
        .env("OTEL_BSP_SCHEDULE_DELAY", "100")
        .status()
        .unwrap();
    assert!(status.success(), "hack/{script} failed");
}

/// Everything, whose traces go to `endpoint`. It is gone when this is dropped.
struct Stand {
    settings: BTreeMap<String, String>,
    http: reqwest::Client,
}

impl Drop for Stand {
    fn drop(&mut self) {
        hack("down", &["--wipe"], "");
    }
}

impl Stand {
    fn up(endpoint: &str) -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        hack("down", &["--wipe"], "");
        hack("up", &["--built", "--backend", "fake"], endpoint);
        let text = fs::read_to_string(root().join("target/dev").join(NAME).join("env")).unwrap();
        let settings = text.lines().filter_map(|line| line.split_once('='));
        let settings: BTreeMap<_, _> = settings.map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        let ca = reqwest::Certificate::from_pem(&fs::read(&settings["BROKER_CA"]).unwrap()).unwrap();
        Self { settings, http: reqwest::Client::builder().tls_certs_only([ca]).build().unwrap() }
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.settings["BROKER_URL"])
    }

    async fn token(&self) -> String {
        let request = self
            .http
            .post(self.url("/oauth2/token?grant_type=client_credentials"))
            .basic_auth(&self.settings["CLIENT_ID"], Some(&self.settings["CLIENT_SECRET"]));
        let answer: Value = request.send().await.unwrap().json().await.unwrap();
        answer["access_token"].as_str().unwrap().to_owned()
    }

    async fn call(&self, token: &str, path: &str, traceparent: &str, body: &Value) -> Value {
        let request = self.http.post(self.url(path)).bearer_auth(token).header("traceparent", traceparent).json(body);
        request.send().await.unwrap().json().await.unwrap()
    }
}

/// The value of the first `Some`, awaited.
async fn eventually<T>(what: &str, found: impl AsyncFn() -> Option<T>) -> T {
    let waited = async {
        loop {
            if let Some(found) = found().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), waited).await.unwrap_or_else(|_| panic!("{what}"))
}

fn attribute(span: &Span, key: &str) -> String {
    let found = span.attributes.iter().find(|attribute| attribute.key == key).unwrap_or_else(|| panic!("no {key}"));
    match found.value.as_ref().unwrap().value.as_ref().unwrap() {
        AnyValue::StringValue(text) => text.clone(),
        AnyValue::IntValue(number) => number.to_string(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn without_an_endpoint_nothing_is_exported_and_nothing_handed_on() {
    let _exporter = traces::export("nobody").unwrap();
    let line = format!("00-{TRACE}-{CALLER}-01");
    assert_eq!(Step::request(|| panic!("nobody asks"), Some(&line)).traceparent(), None);
    assert_eq!(Step::of(Some(&line), "a").traceparent(), None);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs an API server"]
async fn a_session_made_by_rest_leaves_one_trace_from_the_call_to_ready() {
    let (sent, endpoint) = collector().await;
    let stand = Stand::up(&endpoint);
    let token = stand.token().await;
    let caller = format!("00-{TRACE}-{CALLER}-01");
    let item = json!({"Name": "traced", "Owner": "ann", "Type": "VIRTUAL", "PermissionsFile": base64(PERMISSIONS)});
    let created = stand.call(&token, "/createSessions", &caller, &json!([item])).await;
    let id = created["SuccessfulList"][0]["Id"].as_str().unwrap_or_else(|| panic!("{created}")).to_owned();
    eventually("the session to be READY", async || {
        let shown = stand.call(&token, "/describeSessions", "00-none-of-ours-01", &json!({"SessionIds": [id]})).await;
        (shown["Sessions"][0]["State"] == "READY").then_some(())
    })
    .await;

    let mine = |span: &Span| hex::encode(&span.trace_id) == TRACE;
    let found = eventually("the four steps", async || {
        let mut found: Vec<_> = spans(&sent).into_iter().filter(|(_, span)| mine(span)).collect();
        found.sort_by_key(|(_, span)| span.start_time_unix_nano);
        (found.len() >= 4).then_some(found)
    })
    .await;
    let told: Vec<_> = found.iter().map(|(service, span)| (service.as_str(), span.name.as_str())).collect();
    let expected = [
        ("dcv-broker", "POST /createSessions"),
        ("dcv-controller", "bind"),
        ("dcv-agent", "create"),
        ("dcv-agent", "tell READY"),
    ];
    assert_eq!(told, expected, "in the order in which they began");
    let request = &found[0].1;
    assert_eq!(hex::encode(&request.parent_span_id), CALLER);
    assert_eq!(attribute(request, "dcv.request_id"), created["RequestId"]);
    assert_eq!(attribute(request, "http.response.status_code"), "200");
    for (_, span) in &found[1..] {
        assert_eq!(span.parent_span_id, request.span_id, "{}", span.name);
        assert!(span.end_time_unix_nano >= span.start_time_unix_nano, "{}", span.name);
        assert_eq!(attribute(span, "dcv.session"), attribute(&found[1].1, "dcv.session"), "{}", span.name);
        // Not set: nothing failed.
        assert_eq!(span.status.as_ref().map_or(0, |status| status.code), 0, "{}", span.name);
    }
    assert_eq!(attribute(&found[1].1, "dcv.server"), format!("host-{NAME}-1"));
    assert_eq!(attribute(&found[2].1, "dcv.attempt"), "1");

    // A header that is no trace begins one, and breaks no call.
    let others: Vec<_> = spans(&sent).into_iter().filter(|(_, span)| span.name == "POST /describeSessions").collect();
    assert!(!others.is_empty() && others.iter().all(|(_, span)| !mine(span) && span.parent_span_id.is_empty()));

    // Neither what lets in nor what is allowed, nor polls of health.
    let everything: Vec<u8> = sent.lock().unwrap().concat();
    for secret in [&token, &stand.settings["CLIENT_SECRET"], "not-for-collectors", "/health"] {
        let is_there = everything.windows(secret.len()).any(|part| part == secret.as_bytes());
        assert!(!is_there, "a collector was told {secret}");
    }
}

fn base64(text: &str) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(text)
}
