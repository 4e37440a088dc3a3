//! A cluster in memory, for tests: the real caches, and writes that show at once.

#![expect(clippy::needless_pass_by_value, reason = "JSON written at the call reads best without a reference")]

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use futures::FutureExt;
use futures::future::BoxFuture;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use serde_json::Value;
use serde_json::json;

use super::availability::Load;
use super::cache::Cache;
use super::cache::Change;
use super::cache::tenant;
use super::promise::Reservation;
use super::promise::Shortage;
use super::store::Keys;
use super::store::Located;
use super::store::OtherView;
use super::store::Position;
use super::store::ServerView;
use super::store::SessionView;
use super::store::Store;
use super::store::StoreError;
use super::trial::Trial;
use crate::api::ApiClient;
use crate::api::DcvServer;
use crate::api::DcvSession;
use crate::api::server::Placement;
use crate::api::session::DesiredState;
use crate::token::KeySet;
use crate::token::Kind;

/// The time.
pub const NOW: &str = "2026-11-21T10:00:00Z";

/// The time.
pub fn now() -> Timestamp {
    NOW.parse().unwrap()
}

/// A cluster that obeys at once.
pub struct Memory {
    pub cache: Cache,
    version: AtomicU64,
    /// What was asked of it.
    pub writes: Mutex<Vec<String>>,
    /// What it answers to creates instead.
    pub refusal: Mutex<Option<StoreError>>,
    /// A client that only a fresh look shows.
    pub late_client: Mutex<Option<ApiClient>>,
}

impl Memory {
    /// Knows nothing yet.
    pub fn starting() -> Self {
        Self {
            cache: Cache::default(),
            version: AtomicU64::new(100),
            writes: Mutex::default(),
            refusal: Mutex::default(),
            late_client: Mutex::default(),
        }
    }

    /// Ready, and empty but for the namespaces red and blue.
    pub fn new() -> Self {
        let memory = Self::starting();
        let mut world = memory.cache.write();
        world.apply_session(Change::ListBegins);
        world.apply_server(Change::ListBegins);
        world.clients.apply(Change::ListBegins);
        world.namespaces.apply(Change::ListBegins);
        for (name, team) in [("red", "red"), ("blue", "blue")] {
            let namespace = json!({"metadata": {"name": name, "uid": name, "labels": {"team": team}}});
            world.namespaces.apply(Change::Listed(serde_json::from_value(namespace).unwrap()));
        }
        world.apply_session(Change::ListEnds);
        world.apply_server(Change::ListEnds);
        world.clients.apply(Change::ListEnds);
        world.namespaces.apply(Change::ListEnds);
        drop(world);
        for kind in Kind::ALL {
            memory.cache.set_keys(kind, Keys::new(KeySet::generate(now())));
        }
        memory
    }

    pub fn next_version(&self) -> String {
        self.version.fetch_add(1, Ordering::SeqCst).to_string()
    }

    pub fn put_session(&self, mut session: DcvSession) {
        session.metadata.resource_version = Some(self.next_version());
        self.cache.write().apply_session(Change::Put(session));
    }

    pub fn put_client(&self, mut client: ApiClient) {
        client.metadata.resource_version = Some(self.next_version());
        self.cache.write().clients.apply(Change::Put(client));
    }

    fn note(&self, write: String) {
        self.writes.lock().unwrap().push(write);
    }

    /// A server with room for two desktops, changed as `spec` and `status` say.
    pub fn add_server(&self, name: &str, spec: Value, status: Value) {
        let mut whole = json!({
            "availability": "AVAILABLE", "ip": "10.0.0.1", "port": 8444, "webUrlPath": "/", "hostname": name,
            "capacity": {"sessionTypes": ["VIRTUAL"], "maxVirtualSessions": 2, "maxConcurrentSessionsPerUser": -1},
            "host": {"os": {"family": "linux"}}, "tags": {"pool": name},
        });
        whole.as_object_mut().unwrap().extend(status.as_object().unwrap().clone());
        let server = json!({
            "apiVersion": "dcv-operator.io/v1alpha1", "kind": "DcvServer",
            "metadata": {"name": name, "uid": format!("uid-{name}"), "creationTimestamp": NOW,
                "resourceVersion": self.next_version()},
            "spec": spec, "status": whole,
        });
        self.cache.write().apply_server(Change::Put(serde_json::from_value(server).unwrap()));
    }

    fn put_placement(&self, server: &DcvServer, placement: Option<Placement>) {
        let mut server = server.clone();
        server.spec.placement = placement;
        server.metadata.resource_version = Some(self.next_version());
        self.cache.assume_server(server);
    }

    /// A session of namespace red, owned by ann.
    pub fn add_session(&self, uid: &str, changes: Value) {
        let mut session = json!({
            "apiVersion": "dcv-operator.io/v1alpha1", "kind": "DcvSession",
            "metadata": {"name": uid, "namespace": "red", "uid": uid, "creationTimestamp": NOW},
            "spec": {"owner": "ann", "type": "VIRTUAL"},
        });
        merge(&mut session, changes);
        self.put_session(serde_json::from_value(session).unwrap());
    }
}

impl Store for Memory {
    fn is_ready(&self) -> bool {
        self.cache.is_ready()
    }
    fn keys(&self, kind: Kind) -> Option<Arc<Keys>> {
        self.cache.keys(kind)
    }
    fn client(&self, uid: &str) -> Option<Arc<ApiClient>> {
        self.cache.client(uid)
    }
    fn client_by_id(&self, client_id: &str) -> Option<Arc<ApiClient>> {
        self.cache.client_by_id(client_id)
    }
    fn refresh_clients<'a>(&'a self, _namespace: &'a str) -> BoxFuture<'a, ()> {
        if let Some(client) = self.late_client.lock().unwrap().take() {
            self.put_client(client);
        }
        std::future::ready(()).boxed()
    }
    fn sessions(
        &self,
        client: &ApiClient,
        after: Option<&Position>,
        limit: usize,
        keep: &dyn Fn(&SessionView) -> bool,
    ) -> Vec<SessionView> {
        self.cache.sessions(client, after, limit, keep)
    }
    fn find_sessions<'a>(
        &'a self,
        client: &'a ApiClient,
        ids: &'a [String],
    ) -> BoxFuture<'a, Result<Vec<SessionView>, StoreError>> {
        let found = ids.iter().flat_map(|id| self.cache.sessions_of_id(client, id)).collect();
        std::future::ready(Ok(found)).boxed()
    }
    fn locate<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<Vec<Located>, StoreError>> {
        std::future::ready(Ok(self.cache.locate(id))).boxed()
    }
    fn session_named<'a>(
        &'a self,
        client: &'a ApiClient,
        name: &'a str,
    ) -> BoxFuture<'a, Result<Option<Arc<DcvSession>>, StoreError>> {
        std::future::ready(Ok(self.cache.session_named(client, name))).boxed()
    }
    fn servers(&self, client: &ApiClient) -> Vec<ServerView> {
        self.cache.servers(client)
    }
    fn load(&self, server: &DcvServer) -> Load {
        self.cache.load(server)
    }
    fn others(&self, client: &ApiClient, ids: &[String]) -> Vec<OtherView> {
        self.cache.others(client, ids)
    }
    fn trial(&self, client: &ApiClient) -> Trial {
        self.cache.trial(client)
    }
    fn rehearse<'a>(&'a self, _: &'a ApiClient, _: DcvSession) -> BoxFuture<'a, Result<(), StoreError>> {
        std::future::ready(self.refusal.lock().unwrap().take().map_or(Ok(()), Err)).boxed()
    }
    fn reserve(&self, client: &ApiClient, session: &DcvSession, queue_size: usize) -> Result<Reservation, Shortage> {
        self.cache.reserve(client, session, queue_size)
    }
    fn create<'a>(
        &'a self,
        client: &'a ApiClient,
        mut session: DcvSession,
    ) -> BoxFuture<'a, Result<Arc<DcvSession>, StoreError>> {
        if let Some(refusal) = self.refusal.lock().unwrap().take() {
            return std::future::ready(Err(refusal)).boxed();
        }
        self.note(format!("create {}", session.spec.owner));
        session.metadata.namespace = Some(tenant(client).to_owned());
        session.metadata.uid = Some(uuid::Uuid::new_v4().to_string());
        session.metadata.creation_timestamp = Some(Time(now()));
        session.metadata.resource_version = Some(self.next_version());
        std::future::ready(Ok(self.cache.assume_session(session))).boxed()
    }
    fn set_desired_state<'a>(
        &'a self,
        _client: &'a ApiClient,
        session: &'a DcvSession,
        desired_state: DesiredState,
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        self.note(format!("{desired_state:?} {}", session.name_any()));
        let mut session = session.clone();
        session.spec.desired_state = desired_state;
        self.put_session(session);
        std::future::ready(Ok(())).boxed()
    }
    fn delete<'a>(&'a self, _client: &'a ApiClient, session: &'a DcvSession) -> BoxFuture<'a, Result<(), StoreError>> {
        self.note(format!("delete {}", session.name_any()));
        self.cache.assume_session_gone(session);
        std::future::ready(Ok(())).boxed()
    }
    fn set_permissions<'a>(
        &'a self,
        _client: &'a ApiClient,
        session: &'a DcvSession,
        text: &'a str,
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        if let Some(refusal) = self.refusal.lock().unwrap().take() {
            return std::future::ready(Err(refusal)).boxed();
        }
        self.note(format!("permit {} {text}", session.name_any()));
        let mut session = session.clone();
        session.spec.permissions = Some(text.to_owned());
        self.put_session(session);
        std::future::ready(Ok(())).boxed()
    }
    fn open_server<'a>(&'a self, _: &'a ApiClient, server: &'a DcvServer) -> BoxFuture<'a, Result<(), StoreError>> {
        self.note(format!("open {}", server.name_any()));
        self.put_placement(server, None);
        std::future::ready(Ok(())).boxed()
    }
    fn close_server<'a>(
        &'a self,
        _: &'a ApiClient,
        server: &'a DcvServer,
        force: bool,
    ) -> BoxFuture<'a, Result<bool, StoreError>> {
        let is_closed = force || self.cache.sessions_on(&server.name_any()) == 0;
        if is_closed {
            self.note(format!("close {}", server.name_any()));
            self.put_placement(server, Some(Placement::Closed));
        }
        std::future::ready(Ok(is_closed)).boxed()
    }
}

/// What makes a session READY on `server`.
pub fn ready_on(server: &str) -> Value {
    json!({"status": {"state": "READY", "serverName": server, "serverUid": format!("uid-{server}"), "attempt": 1,
        "server": {"ip": "10.0.0.1", "port": 8444, "webUrlPath": "/", "endpoints": []},
        "conditions": [{"type": "Created", "status": "True", "reason": "Created", "message": "",
            "lastTransitionTime": NOW}, {"type": "Ready", "status": "True", "reason": "AcceptingClients", "message": "",
            "lastTransitionTime": NOW}]}})
}

/// Puts `changes` into an object, level by level.
pub fn merge(into: &mut Value, changes: Value) {
    match (into, changes) {
        (Value::Object(into), Value::Object(changes)) => {
            changes.into_iter().for_each(|(key, value)| merge(into.entry(key).or_insert(Value::Null), value));
        }
        (into, changes) => *into = changes,
    }
}
