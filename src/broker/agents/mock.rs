//! Agents without sockets, for tests: they answer as they are told, and count.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use http::StatusCode;

use super::Address;
use super::Call;
use super::CallError;
use super::Transport;

/// What an agent answers.
#[derive(Clone, Debug)]
pub enum Reply {
    /// With these bytes.
    Bytes(Vec<u8>),
    /// With this status.
    Status(u16),
    /// Nobody listens.
    Gone,
    /// Nothing, ever.
    Never,
}

/// Agents, by the uid of their server. Clones are the same.
#[derive(Clone, Default)]
pub struct Mock(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    replies: HashMap<String, Reply>,
    now: HashMap<String, usize>,
    most: HashMap<String, usize>,
    calls: Vec<(Address, Call)>,
}

/// Counts a call that ends, however it does.
struct Running(Mock, String);

impl Drop for Running {
    fn drop(&mut self) {
        *self.0.0.lock().unwrap().now.get_mut(&self.1).unwrap() -= 1;
    }
}

impl Mock {
    /// What the agent of `server` answers from now on. By default nothing but a 200.
    pub fn set(&self, server: &str, reply: Reply) {
        self.0.lock().unwrap().replies.insert(server.to_owned(), reply);
    }

    /// The most calls that the agent of `server` had at once.
    pub fn most(&self, server: &str) -> usize {
        self.0.lock().unwrap().most.get(server).copied().unwrap_or(0)
    }

    /// All calls so far.
    pub fn calls(&self) -> usize {
        self.0.lock().unwrap().calls.len()
    }

    /// The last call.
    pub fn last(&self) -> (Address, Call) {
        self.0.lock().unwrap().calls.last().cloned().unwrap()
    }

    fn begin(&self, address: &Address, call: Call) -> (Running, Reply) {
        let mut state = self.0.lock().unwrap();
        let server = &address.server_uid;
        let now = state.now.entry(server.clone()).or_default();
        *now += 1;
        let now = *now;
        let most = state.most.entry(server.clone()).or_default();
        *most = now.max(*most);
        state.calls.push((address.clone(), call));
        let reply = state.replies.get(server).cloned().unwrap_or(Reply::Bytes(Vec::new()));
        (Running(self.clone(), server.clone()), reply)
    }
}

impl Transport for Mock {
    fn post<'a>(&'a self, address: &'a Address, call: Call) -> BoxFuture<'a, Result<Bytes, CallError>> {
        async move {
            let (_running, reply) = self.begin(address, call);
            // Long enough for others to come.
            tokio::time::sleep(Duration::from_millis(2)).await;
            match reply {
                Reply::Bytes(bytes) => Ok(bytes.into()),
                Reply::Status(status) => Err(CallError::Refused {
                    status: StatusCode::from_u16(status).unwrap(),
                    text: "secret words of the host".to_owned(),
                }),
                Reply::Gone => Err(CallError::Unreachable("connection refused".into())),
                Reply::Never => std::future::pending().await,
            }
        }
        .boxed()
    }
}
