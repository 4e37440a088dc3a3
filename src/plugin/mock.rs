//! An API server that answers as a test says.

use std::sync::Arc;
use std::sync::Mutex;

use http::Response;
use http_body_util::BodyExt;
use kube::Client;
use kube::client::Body;
use serde_json::Value;
use serde_json::json;

/// The status of a call that is never answered.
pub(super) const NEVER: u16 = 0;

/// What is asked of the API server.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Call {
    pub method: String,
    pub path: String,
    /// As it was sent, so encoded.
    pub query: String,
    pub body: Value,
}

/// What the API server says: text that is JSON, or for a watch several lines of it.
pub(super) trait Said: Send {
    fn text(self) -> String;
}

impl Said for Value {
    fn text(self) -> String {
        self.to_string()
    }
}

impl Said for String {
    fn text(self) -> String {
        self
    }
}

/// A client whose calls `answer` gets, and answers with status and body.
pub(super) fn full_client<S: Said>(answer: impl FnMut(&Call) -> (u16, S) + Send + 'static) -> Client {
    let answer = Arc::new(Mutex::new(answer));
    let service = tower::service_fn(move |request: http::Request<Body>| {
        let answer = Arc::clone(&answer);
        async move {
            let (head, body) = request.into_parts();
            let call = Call {
                method: head.method.to_string(),
                path: head.uri.path().to_owned(),
                query: head.uri.query().unwrap_or_default().to_owned(),
                body: serde_json::from_slice(&body.collect().await?.to_bytes()).unwrap_or(Value::Null),
            };
            let (code, answer) = answer.lock().unwrap()(&call);
            if code == NEVER {
                return std::future::pending().await;
            }
            let answer = Body::from(answer.text().into_bytes());
            Ok::<_, tower::BoxError>(Response::builder().status(code).body(answer).unwrap())
        }
    });
    Client::new(service, "default")
}

/// A client whose calls `answer` gets as method, path and body, and answers with status and body.
pub(super) fn client(mut answer: impl FnMut(&str, &str, Value) -> (u16, Value) + Send + 'static) -> Client {
    full_client(move |call| answer(&call.method, &call.path, call.body.clone()))
}

/// An API server with one object, which takes patches of its spec without a conflict; and the patches.
pub(super) fn server(object: Value) -> (Client, Arc<Mutex<Vec<Value>>>) {
    let patches: Arc<Mutex<Vec<Value>>> = Arc::default();
    let seen = Arc::clone(&patches);
    let client = client(move |method, _, body| {
        let mut object = object.clone();
        if method == "PATCH" {
            merge(&mut object["spec"], &body["spec"]);
            seen.lock().unwrap().push(body);
        }
        (200, object)
    });
    (client, patches)
}

/// A merge patch, as the API server takes it.
pub(super) fn merge(into: &mut Value, changes: &Value) {
    for (key, value) in changes.as_object().into_iter().flatten() {
        if value.is_null() {
            into.as_object_mut().unwrap().remove(key);
        } else if value.is_object() && into[key].is_object() {
            merge(&mut into[key], value);
        } else {
            into[key] = value.clone();
        }
    }
}

fn failure(code: u16, reason: &str, message: &str) -> (u16, Value) {
    (code, json!({"kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": message}))
}

/// What the API server says when there is no such object.
pub(super) fn not_found(message: &str) -> (u16, Value) {
    failure(404, "NotFound", message)
}

/// What it says to who may not.
pub(super) fn forbidden(message: &str) -> (u16, Value) {
    failure(403, "Forbidden", message)
}

/// What it says when there is one already.
pub(super) fn already_exists(message: &str) -> (u16, Value) {
    failure(409, "AlreadyExists", message)
}

/// What it says when somebody else was faster.
pub(super) fn conflict() -> (u16, Value) {
    failure(409, "Conflict", "the object has been modified")
}

/// A list as the API server gives it.
pub(super) fn list(items: &[Value]) -> (u16, Value) {
    (200, json!({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": "1"}, "items": items}))
}
