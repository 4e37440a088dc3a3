//! A made-up API server for tests: every call goes to a closure and is noted.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::Mutex;

use http::Request;
use http::Response;
use http_body_util::Full;
use jiff::Timestamp;
use kube::Client;
use serde_json::Value;
use serde_json::json;

/// A call that was made.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    pub method: String,
    pub path: String,
    pub body: Value,
}

/// The calls made so far.
#[derive(Clone, Default)]
pub struct Calls(Arc<Mutex<Vec<Call>>>);

impl Calls {
    pub fn take(&self) -> Vec<Call> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}

/// A client whose calls `answer` answers with a status and a body.
pub fn client(mut answer: impl FnMut(&str, &str, &Value) -> (u16, Value) + Send + 'static) -> (Client, Calls) {
    let calls = Calls::default();
    let noted = calls.clone();
    let answer = Arc::new(Mutex::new(move |method: &str, path: &str, body: &Value| answer(method, path, body)));
    let service = tower::service_fn(move |request: Request<kube::client::Body>| {
        let answer = answer.clone();
        let noted = noted.clone();
        async move {
            let (parts, body) = request.into_parts();
            let bytes = body.collect_bytes().await.unwrap();
            let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
            let (method, path) = (parts.method.to_string(), parts.uri.to_string());
            let (code, answer) = answer.lock().unwrap()(&method, &path, &body);
            noted.0.lock().unwrap().push(Call { method, path, body });
            let bytes = serde_json::to_vec(&answer).unwrap();
            Ok::<_, Infallible>(Response::builder().status(code).body(Full::<bytes::Bytes>::from(bytes)).unwrap())
        }
    });
    (Client::new(service, "default"), calls)
}

/// The body of a failure.
pub fn failure(code: u16) -> Value {
    let reason = match code {
        404 => "NotFound",
        409 => "Conflict",
        422 => "Invalid",
        403 => "Forbidden",
        _ => "InternalError",
    };
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": "no", "reason": reason, "code": code})
}

/// A clock that stands still.
pub fn clock() -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap()
}
