//! An API server made of one closure, for tests of calls: method, path with query, body; status, answer.

use std::sync::Arc;
use std::sync::Mutex;

use bytes::Bytes;
use http::Request;
use http::Response;
use http_body_util::Full;
use kube::Client;
use serde_json::Value;

/// A client whose calls are answered by `answer`. An answer of status 0 is a lost one: the call fails without a word.
pub fn client(answer: impl FnMut(&str, &str, &Value) -> (u16, Value) + Send + 'static) -> Client {
    let answer = Arc::new(Mutex::new(answer));
    let service = tower::service_fn(move |request: Request<kube::client::Body>| {
        let answer = Arc::clone(&answer);
        async move {
            let (parts, body) = request.into_parts();
            let body = serde_json::from_slice(&body.collect_bytes().await?).unwrap_or(Value::Null);
            let (code, value) = answer.lock().unwrap()(parts.method.as_str(), &parts.uri.to_string(), &body);
            if code == 0 {
                return Err(tower::BoxError::from("the connection broke"));
            }
            let body = Full::<Bytes>::from(serde_json::to_vec(&value)?);
            Ok(Response::builder().status(code).body(body)?)
        }
    });
    Client::new(service, "default")
}

/// The body of a refusal.
pub fn failure(code: u16, reason: &str) -> Value {
    serde_json::json!({
        "apiVersion": "v1", "kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": reason,
    })
}
