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
