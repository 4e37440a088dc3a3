//! An API server made of one closure, for tests of calls: method, path with query, body; status, answer.

use std::sync::Arc;
use std::sync::Mutex;

use bytes::Bytes;
use http::Request;
use http::Response;
use http_body_util::Full;
use kube::Client;
use serde_json::Value;

/// Status of an answer that is lost: the call fails without a word.
pub const LOST: u16 = 0;
/// Status of an answer that never comes, as of a watch in which nothing happens.
pub const NEVER: u16 = 1;

/// A client whose calls are answered by `answer`.
pub fn client(answer: impl FnMut(&str, &str, &Value) -> (u16, Value) + Send + 'static) -> Client {
    let answer = Arc::new(Mutex::new(answer));
    let service = tower::service_fn(move |request: Request<kube::client::Body>| {
        let answer = Arc::clone(&answer);
        async move {
            let (parts, body) = request.into_parts();
            let body = serde_json::from_slice(&body.collect_bytes().await?).unwrap_or(Value::Null);
            let (code, value) = answer.lock().unwrap()(parts.method.as_str(), &parts.uri.to_string(), &body);
            match code {
                LOST => return Err(tower::BoxError::from("the connection broke")),
                NEVER => std::future::pending().await,
                _ => {}
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
