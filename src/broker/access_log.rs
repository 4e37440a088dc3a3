//! What is written down of requests: a line for each, and one for each change they make.
//!
//! What a request is known by while it is served is kept beside its task, as its span is, so that no call has to hand it
//! on. Neither path nor query nor any header is written: paths name people, headers hold tokens.

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::extract::MatchedPath;
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use http::HeaderValue;
use http::StatusCode;
use http::header::CACHE_CONTROL;
use kube::Resource;
use kube::ResourceExt;
use tokio::time::Instant;
use tracing::Instrument;
use uuid::Uuid;

use super::REQUEST_ID;
use super::RequestId;
use super::Rules;
use super::limits::caller_address;
use super::metrics;
use crate::api::ApiClient;
use crate::telemetry::metrics::method_label;
use crate::telemetry::traces::Step;

/// Header of callers that have a trace of their own.
const TRACEPARENT: &str = "traceparent";

/// Path that balancers poll: its lines are only for those who look for them.
const HEALTH: &str = "/health";

tokio::task_local! {
    static SERVED: Arc<Served>;
}

/// What is known of a request while it is served.
#[derive(Debug)]
struct Served {
    id: RequestId,
    traceparent: Option<String>,
    client: OnceLock<Client>,
    items: OnceLock<usize>,
    failed: AtomicUsize,
}

/// Whose request it is.
#[derive(Debug)]
struct Client {
    /// Namespace and name.
    name: String,
    uid: String,
}

/// Notes whose request is being served.
pub fn note_client(client: &ApiClient) {
    let known = Client { name: full_name(client), uid: client.uid().unwrap_or_default() };
    with_served(|served| {
        // There is one client a request.
        let _ = served.client.set(known);
    });
}

/// Notes how many items the request has.
pub fn note_items(count: usize) {
    with_served(|served| {
        let _ = served.items.set(count);
    });
}

/// Notes how many of its items have failed.
pub fn note_failed(count: usize) {
    with_served(|served| served.failed.store(count, Ordering::Relaxed));
}

/// Id of the request being served, for what it changes.
pub fn request_id() -> Option<String> {
    SERVED.try_with(|served| served.id.text()).ok()
}

/// By which what the request being served makes continues its trace.
pub fn traceparent() -> Option<String> {
    SERVED.try_with(|served| served.traceparent.clone()).ok().flatten()
}

/// Writes down a change that the request being served has made. The line has the request's id by its span.
pub fn audit<K: Resource<DynamicType = ()>>(change: &'static str, object: &K) {
    let client = SERVED.try_with(|served| served.client.get().map(|client| client.name.clone())).ok().flatten();
    let (object, uid) = (full_name(object), object.meta().uid.clone());
    tracing::info!(target: "audit", client, object, uid, "{change}");
}

fn with_served(note: impl FnOnce(&Served)) {
    // Outside a request, as in tests of parts, there is nothing to note it for.
    let _ = SERVED.try_with(|served| note(served));
}

fn full_name<K: Resource>(object: &K) -> String {
    match object.namespace() {
        Some(namespace) => format!("{namespace}/{}", object.name_any()),
        None => object.name_any(),
    }
}

/// Serves a request: gives it its id, and writes its line. No answer may be kept by a cache: many hold tokens, all are of
/// the moment.
pub async fn serve(mut request: Request, next: Next, rules: Arc<Rules>) -> Response {
    let id = RequestId(Uuid::new_v4());
    let span = tracing::info_span!("request", request_id = %id.0, method = %request.method());
    let method = request.method().clone();
    request.extensions_mut().insert(id);
    let operation = request.extensions().get::<MatchedPath>().cloned();
    let peer = caller_address(request.headers(), request.extensions(), &rules);
    let step = step(&request, operation.as_ref().map(MatchedPath::as_str)).note("dcv.request_id", &id.text());
    let served = Arc::new(Served {
        id,
        traceparent: step.traceparent(),
        client: OnceLock::new(),
        items: OnceLock::new(),
        failed: AtomicUsize::new(0),
    });
    let begun = Instant::now();
    let answering = SERVED.scope(Arc::clone(&served), next.run(request));
    let mut response = answering.instrument(span.clone()).await;
    let took = begun.elapsed();
    drop(step.count("http.response.status_code", response.status().as_u16().into()));
    metrics::answered(operation.as_ref().map(MatchedPath::as_str), &method, response.status(), took);
    let line = Line { operation: operation.as_ref().map(MatchedPath::as_str), peer: peer.to_string(), took };
    span.in_scope(|| line.write(&served, response.status()));
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Ok(value) = HeaderValue::try_from(id.text()) {
        headers.insert(REQUEST_ID, value);
    }
    response
}

/// The step of a trace that serving the request is, by its route. Polls of health are none.
fn step(request: &Request, operation: Option<&str>) -> Step {
    if operation == Some(HEALTH) {
        return Step::of(None, HEALTH);
    }
    let traceparent = request.headers().get(TRACEPARENT).and_then(|line| line.to_str().ok());
    let name = || format!("{} {}", method_label(request.method()), operation.unwrap_or("none"));
    Step::request(name, traceparent)
}

/// What the line of a request says beside what was noted.
struct Line<'a> {
    /// The route, not the path.
    operation: Option<&'a str>,
    peer: String,
    took: Duration,
}

impl Line<'_> {
    fn write(&self, served: &Served, status: StatusCode) {
        let client = served.client.get();
        let (client_uid, client) =
            (client.map(|client| client.uid.as_str()), client.map(|client| client.name.as_str()));
        let items = served.items.get();
        let failed = items.map(|_| served.failed.load(Ordering::Relaxed));
        let (operation, status) = (self.operation.unwrap_or("none"), status.as_u16());
        let peer = self.peer.as_str();
        let milliseconds = u64::try_from(self.took.as_millis()).unwrap_or(u64::MAX);
        // The level is part of what is compiled for a place in the source, so there are two.
        macro_rules! write {
            ($level:ident) => {
                tracing::$level!(
                    target: "access", client, client_uid, operation, items, failed, status, milliseconds, peer, "served"
                )
            };
        }
        if operation == HEALTH { write!(debug) } else { write!(info) }
    }
}

#[cfg(test)]
mod tests;
