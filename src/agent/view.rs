//! What the gate looks at, kept current by the agent's loop.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use arc_swap::ArcSwap;
use jiff::Timestamp;
use jsonwebtoken::jwk::JwkSet;
use k8s_openapi::api::core::v1::ConfigMap;

use super::gate::View;
use crate::api::DcvSession;
use crate::cluster::Clock;
use crate::token::Kind;

/// The agent's own picture of keys and sessions. Shared by its loop, which writes it, and by what serves clients.
pub struct Watched {
    keys: ArcSwap<JwkSet>,
    agent_keys: ArcSwap<JwkSet>,
    sessions: ArcSwap<BTreeMap<String, Arc<DcvSession>>>,
    server_uid: ArcSwap<String>,
    ready: AtomicBool,
    clock: Clock,
}

impl Watched {
    /// Knows nothing yet, so lets nobody in.
    pub fn new(clock: Clock) -> Self {
        Self {
            keys: ArcSwap::from_pointee(JwkSet { keys: Vec::new() }),
            agent_keys: ArcSwap::from_pointee(JwkSet { keys: Vec::new() }),
            sessions: ArcSwap::default(),
            server_uid: ArcSwap::default(),
            ready: AtomicBool::new(false),
            clock,
        }
    }

    /// Whether the agent has completed a pass.
    pub fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Relaxed)
    }

    /// The agent has completed a pass.
    pub(super) fn set_ready(&self) {
        self.ready.store(true, Ordering::Relaxed);
    }

    /// Takes the keys of what agents verify from the published ones. What cannot be read leaves the earlier keys.
    pub fn set_keys(&self, published: &ConfigMap) {
        for (kind, slot) in [(Kind::Connection, &self.keys), (Kind::Agent, &self.agent_keys)] {
            let entry = kind.public_entry();
            let Some(text) = published.data.as_ref().and_then(|data| data.get(entry)) else {
                tracing::warn!(entry, "published keys are missing");
                continue;
            };
            match serde_json::from_str::<JwkSet>(text) {
                Ok(keys) => slot.store(Arc::new(keys)),
                Err(error) => tracing::warn!(entry, %error, "published keys cannot be read"),
            }
        }
    }

    /// Replaces the sessions that are bound to this server.
    pub fn set_sessions(&self, sessions: &[Arc<DcvSession>]) {
        let by_id = sessions.iter().map(|session| (session.id().to_owned(), session.clone())).collect();
        self.sessions.store(Arc::new(by_id));
    }

    /// Replaces the uid of this server.
    pub fn set_server_uid(&self, uid: &str) {
        if **self.server_uid.load() != uid {
            self.server_uid.store(Arc::new(uid.to_owned()));
        }
    }
}

impl View for Watched {
    fn keys(&self) -> Arc<JwkSet> {
        self.keys.load_full()
    }

    fn agent_keys(&self) -> Arc<JwkSet> {
        self.agent_keys.load_full()
    }

    fn session(&self, id: &str) -> Option<Arc<DcvSession>> {
        self.sessions.load().get(id).cloned()
    }

    fn server_uid(&self) -> String {
        self.server_uid.load().as_ref().clone()
    }

    fn now(&self) -> Timestamp {
        (self.clock)()
    }

    fn is_whole(&self) -> bool {
        self.is_ready() && !self.keys.load().keys.is_empty()
    }
}
