//! An API server that answers as a test says.

use std::sync::Arc;
use std::sync::Mutex;

use http::Response;
use http_body_util::BodyExt;
use kube::Client;
use kube::client::Body;
use serde_json::Value;

/// A client whose calls `answer` gets as method, path and body, and answers with status and body.
pub(super) fn client(answer: impl FnMut(&str, &str, Value) -> (u16, Value) + Send + 'static) -> Client {
    let answer = Arc::new(Mutex::new(answer));
    let service = tower::service_fn(move |request: http::Request<Body>| {
        let answer = Arc::clone(&answer);
        async move {
            let (head, body) = request.into_parts();
            let body = serde_json::from_slice(&body.collect().await?.to_bytes()).unwrap_or(Value::Null);
            let (code, answer) = answer.lock().unwrap()(head.method.as_str(), head.uri.path(), body);
            let answer = Body::from(serde_json::to_vec(&answer)?);
            Ok::<_, tower::BoxError>(Response::builder().status(code).body(answer).unwrap())
        }
    });
    Client::new(service, "default")
}
