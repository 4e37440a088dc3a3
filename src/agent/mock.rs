//! The made-up API server of `cluster`, with every call noted.

use std::sync::Arc;
use std::sync::Mutex;

use jiff::Timestamp;
use kube::Client;
use serde_json::Value;

use crate::cluster::mock;

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
    let client = mock::client(move |method, path, body| {
        noted.0.lock().unwrap().push(Call { method: method.into(), path: path.into(), body: body.clone() });
        answer(method, path, body)
    });
    (client, calls)
}

/// The body of a refusal.
pub fn failure(code: u16) -> Value {
    let reason = match code {
        403 => "Forbidden",
        404 => "NotFound",
        409 => "Conflict",
        422 => "Invalid",
        _ => "InternalError",
    };
    mock::failure(code, reason)
}

/// A clock that stands still.
pub fn clock() -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap()
}
