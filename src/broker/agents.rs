//! Calls of agents: how many at once, and for how long.
//!
//! Invariant: an agent that is slow, gone or somebody else costs those who ask about its sessions some time, and nobody else
//! anything: it has a lane of its own, and only who has a place in it takes one of the broker's.

mod https;

use std::collections::HashMap;
use std::error::Error;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use http::StatusCode;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::Semaphore;

use self::https::Https;
use crate::api::DcvServer;

/// How many calls are made, and how long they may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Calls to one agent at once; more wait.
    pub to_one_agent: usize,
    /// Calls at once. Many times the above: agents that hang hold their own places only.
    pub in_all: usize,
    /// Longest time of a call.
    pub call: Duration,
    /// Longest time of a call and the wait for it.
    pub patience: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { to_one_agent: 5, in_all: 100, call: Duration::from_secs(10), patience: Duration::from_secs(20) }
    }
}

/// How an agent is reached, and what it is known by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// Uid of its `DcvServer`.
    pub server_uid: String,
    /// Base URL.
    pub url: String,
    /// SHA-256 of its certificate in lower-case hexadecimal.
    pub fingerprint: String,
}

impl Address {
    /// Where the agent of `server` is, if it has said so.
    pub fn of(server: &DcvServer) -> Option<Self> {
        let agent = server.status.as_ref()?.agent.as_ref()?;
        Some(Self {
            server_uid: server.metadata.uid.clone()?,
            url: agent.url.clone(),
            fingerprint: agent.certificate_fingerprint.clone(),
        })
    }
}

/// One call.
#[derive(Clone, Debug)]
pub struct Call {
    /// Path below the agent's base URL.
    pub path: &'static str,
    /// Token for this agent.
    pub token: String,
    /// Body, JSON.
    pub body: Vec<u8>,
    /// Largest answer worth reading.
    pub answer_max_bytes: usize,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// Nobody listens there, or somebody else than the agent.
    #[error("the agent cannot be reached")]
    Unreachable(#[source] Box<dyn Error + Send + Sync>),
    /// It took too long.
    #[error("the agent did not answer in time")]
    Late,
    /// The agent refused, or could not do it.
    #[error("the agent answered {status} {text}")]
    Refused {
        /// Its status.
        status: StatusCode,
        /// Its words.
        text: String,
    },
    /// The answer broke off, or is too large.
    #[error("the agent's answer cannot be read")]
    Unreadable(#[source] Box<dyn Error + Send + Sync>),
}

/// What carries calls: HTTPS, or in tests nothing.
pub trait Transport: Send + Sync + 'static {
    /// Posts to the agent, and to nobody else, and returns the body of a 200. Takes no longer than it is polled.
    fn post<'a>(&'a self, address: &'a Address, call: Call) -> BoxFuture<'a, Result<Bytes, CallError>>;
}

/// Calls of agents, for the whole broker.
pub struct Agents {
    transport: Box<dyn Transport>,
    limits: Limits,
    /// Places of the agents that are called now.
    lanes: Mutex<HashMap<String, Arc<Semaphore>>>,
    places: Semaphore,
}

impl Default for Agents {
    /// Over HTTPS. Connects when there is something to ask.
    fn default() -> Self {
        Self::new(Https::default(), Limits::default())
    }
}

impl Agents {
    /// Calls over `transport`.
    pub fn new(transport: impl Transport, limits: Limits) -> Self {
        Self { transport: Box::new(transport), limits, lanes: Mutex::default(), places: Semaphore::new(limits.in_all) }
    }

    /// Calls an agent, once it is its turn.
    ///
    /// # Errors
    /// Why there is no answer. Always within the limits' patience.
    pub async fn call(&self, address: &Address, call: Call) -> Result<Bytes, CallError> {
        let in_turn = async {
            let _lane = self.enter(&address.server_uid).await;
            let _place = self.places.acquire().await.expect("nobody closes it");
            let called = tokio::time::timeout(self.limits.call, self.transport.post(address, call)).await;
            called.unwrap_or(Err(CallError::Late))
        };
        tokio::time::timeout(self.limits.patience, in_turn).await.unwrap_or(Err(CallError::Late))
    }

    /// A place in the lane of an agent.
    async fn enter(&self, server_uid: &str) -> OwnedSemaphorePermit {
        let lane = {
            let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
            // A lane that only the map knows is empty.
            lanes.retain(|_, lane| Arc::strong_count(lane) > 1);
            let new = || Arc::new(Semaphore::new(self.limits.to_one_agent));
            Arc::clone(lanes.entry(server_uid.to_owned()).or_insert_with(new))
        };
        lane.acquire_owned().await.expect("nobody closes it")
    }
}

#[cfg(test)]
pub mod mock;

#[cfg(test)]
mod tests {
    use super::mock::Mock;
    use super::mock::Reply;
    use super::*;

    fn address(server: &str) -> Address {
        Address { server_uid: server.into(), url: "https://10.0.0.1:8444".into(), fingerprint: String::new() }
    }

    fn a_call() -> Call {
        Call { path: "/", token: String::new(), body: Vec::new(), answer_max_bytes: 10 }
    }

    #[tokio::test]
    async fn five_at_once_to_one_agent_whoever_asks() {
        let mock = Mock::default();
        let agents = Arc::new(Agents::new(mock.clone(), Limits::default()));
        let calls = (0..60).map(|number| {
            let agents = Arc::clone(&agents);
            // Tasks of their own, as requests of different clients are.
            tokio::spawn(async move { agents.call(&address(["a", "b"][number % 2]), a_call()).await.map(drop) })
        });
        let outcomes = futures::future::join_all(calls.collect::<Vec<_>>()).await;
        assert!(outcomes.into_iter().all(|outcome| outcome.unwrap().is_ok()));
        assert_eq!((mock.most("a"), mock.most("b")), (5, 5));
        assert_eq!(mock.calls(), 60);
        agents.call(&address("c"), a_call()).await.unwrap();
        assert_eq!(agents.lanes.lock().unwrap().len(), 1, "lanes that are empty are not kept");
    }

    #[tokio::test]
    async fn agents_that_hang_end_their_own_calls_and_hold_up_no_others() {
        let mock = Mock::default();
        mock.set("a", Reply::Never);
        let limits = Limits {
            to_one_agent: 2,
            in_all: 4,
            call: Duration::from_millis(100),
            patience: Duration::from_millis(250),
        };
        let agents = Agents::new(mock.clone(), limits);
        let hanging = futures::future::join_all((0..20).map(|_| async {
            let begun = tokio::time::Instant::now();
            assert!(matches!(agents.call(&address("a"), a_call()).await, Err(CallError::Late)));
            begun.elapsed()
        }));
        let others = async {
            for _ in 0..20 {
                agents.call(&address("b"), a_call()).await.unwrap();
            }
        };
        let (elapsed, ()) = tokio::join!(hanging, others);
        let longest = elapsed.into_iter().max().unwrap();
        assert!(longest < Duration::from_secs(2), "{longest:?}");
        assert_eq!(mock.most("a"), 2);
    }
}
