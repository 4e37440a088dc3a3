//! What the broker knows of the cluster, in memory.
//!
//! Fed by watches and by this replica's own writes; answers every read of a request. Talks to nobody.

mod index;
mod mirror;
mod others;

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::PoisonError;
use std::sync::RwLock;
use std::sync::RwLockReadGuard;
use std::sync::RwLockWriteGuard;
use std::time::Instant;

use arc_swap::ArcSwapOption;
use k8s_openapi::api::core::v1::Namespace;
use kube::ResourceExt;

use self::index::ClientIndex;
use self::index::NamespaceIndex;
use self::index::ServerIndex;
use self::index::SessionIndex;
use super::availability;
use super::availability::Load;
use super::promise::Promises;
use super::promise::Reservation;
use super::promise::Shortage;
use super::store::Keys;
use super::store::Located;
use super::store::OtherView;
use super::store::Own;
use super::store::Position;
use super::store::ServerView;
use super::store::SessionView;
use super::trial::Trial;
use crate::api::ApiClient;
use crate::api::DcvServer;
use crate::api::DcvSession;
use crate::api::conditions;
use crate::api::conditions::ClientCondition;
use crate::api::conditions::Reason;
use crate::token::Kind;

pub use self::index::occupied;
pub use self::mirror::Change;
use self::mirror::Mirror;
use self::mirror::Touched;
pub use self::mirror::version;

/// The copies of all kinds, under one lock: an answer joins them as they were at one moment.
#[derive(Default)]
pub struct World {
    sessions: Mirror<DcvSession, SessionIndex>,
    servers: Mirror<DcvServer, ServerIndex>,
    promises: Promises,
    /// Clients of all namespaces.
    pub clients: Mirror<ApiClient, ClientIndex>,
    /// Namespaces, for their labels.
    pub namespaces: Mirror<Namespace, NamespaceIndex>,
}

/// What the broker knows.
#[derive(Default)]
pub struct Cache {
    world: RwLock<World>,
    access_keys: ArcSwapOption<Keys>,
    connection_keys: ArcSwapOption<Keys>,
    agent_keys: ArcSwapOption<Keys>,
}

/// The namespace of a client: its tenant.
pub fn tenant(client: &ApiClient) -> &str {
    client.metadata.namespace.as_deref().unwrap_or_default()
}

/// Whether the controller has accepted a client.
pub fn is_accepted(client: &ApiClient) -> bool {
    client
        .status
        .as_ref()
        .is_some_and(|status| conditions::is(&status.conditions, ClientCondition::Ready, Some(true), Reason::Accepted))
}

fn sees(client: &ApiClient, session: &DcvSession) -> bool {
    client.spec.all_namespaces || session.metadata.namespace.as_deref() == Some(tenant(client))
}

impl World {
    fn labels(&self, namespace: &str) -> BTreeMap<String, String> {
        self.namespaces.index.labels(namespace).cloned().unwrap_or_default()
    }

    /// A server as a client sees it whose namespace has these labels.
    fn server_view(
        &self,
        client: &ApiClient,
        labels: &BTreeMap<String, String>,
        server: &Arc<DcvServer>,
    ) -> ServerView {
        ServerView {
            is_visible: client.spec.all_namespaces || availability::admits(server, labels),
            place: self.servers.index.place(server),
            server: Arc::clone(server),
        }
    }

    fn load(&self, server: &DcvServer) -> Load {
        Load::of(server, self.sessions.index.on_server(server.metadata.name.as_deref().unwrap_or_default()))
    }

    /// Takes the watch's word on sessions.
    pub fn apply_session(&mut self, change: Change<DcvSession>) {
        self.sessions.apply(change);
        self.count_sessions();
    }

    /// Takes the watch's word on servers.
    pub fn apply_server(&mut self, change: Change<DcvServer>) {
        self.servers.apply(change);
        self.count_servers();
    }

    fn count_servers(&self) {
        let exists = |name: &str| self.servers.index.named(name).is_some();
        match self.servers.touched() {
            Touched::All => self.promises.see_servers(self.servers.all().map(AsRef::as_ref), exists),
            Touched::Some(uids) if uids.is_empty() => {}
            Touched::Some(uids) => {
                let servers = uids.iter().filter_map(|uid| self.servers.get(uid));
                self.promises.see_servers(servers.map(AsRef::as_ref), exists);
            }
        }
    }

    fn count_sessions(&self) {
        match self.sessions.touched() {
            Touched::All => self
                .promises
                .see_sessions(self.sessions.all().map(AsRef::as_ref), |uid| self.sessions.get(uid).is_some()),
            Touched::Some(uids) => {
                for uid in uids {
                    self.promises.see_session(uid, self.sessions.get(uid).map(AsRef::as_ref));
                }
            }
        }
    }

    /// Whether a session stands for the desktop of this id on a server: a report of that may be older than its bind, or
    /// of what waits to be bound there again.
    fn is_spoken_for(&self, id: &str, server: &str) -> bool {
        let mut sessions = self.sessions.index.with_id(id).iter().filter(|session| !session.is_finished());
        sessions.any(|session| session.server_name().is_none_or(|name| name == server))
    }

    fn session_view(
        &self,
        client: &ApiClient,
        labels: &BTreeMap<String, String>,
        session: &Arc<DcvSession>,
        own: Arc<Own>,
    ) -> SessionView {
        let server = session.server_name().and_then(|name| self.servers.index.named(name));
        SessionView {
            server: server.map(|server| self.server_view(client, labels, server)),
            session: Arc::clone(session),
            own,
        }
    }
}

impl Cache {
    fn read(&self) -> RwLockReadGuard<'_, World> {
        self.world.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The copies, to be changed.
    pub fn write(&self) -> RwLockWriteGuard<'_, World> {
        self.world.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes new keys of a kind.
    pub fn set_keys(&self, kind: Kind, keys: Keys) {
        self.key_slot(kind).store(Some(Arc::new(keys)));
    }

    fn key_slot(&self, kind: Kind) -> &ArcSwapOption<Keys> {
        match kind {
            Kind::Access => &self.access_keys,
            Kind::Connection => &self.connection_keys,
            Kind::Agent => &self.agent_keys,
        }
    }

    /// The keys of a kind.
    pub fn keys(&self, kind: Kind) -> Option<Arc<Keys>> {
        self.key_slot(kind).load_full()
    }

    /// Whether every copy is filled and the keys are there.
    pub fn is_ready(&self) -> bool {
        let world = self.read();
        world.sessions.is_filled()
            && world.servers.is_filled()
            && world.clients.is_filled()
            && world.namespaces.is_filled()
            && Kind::ALL.iter().all(|kind| self.keys(*kind).is_some())
    }

    /// The client of this uid.
    pub fn client(&self, uid: &str) -> Option<Arc<ApiClient>> {
        self.read().clients.get(uid).cloned()
    }

    /// The client that logs in with this id.
    pub fn client_by_id(&self, client_id: &str) -> Option<Arc<ApiClient>> {
        let world = self.read();
        let clients = world.clients.index.with_id(client_id);
        clients.iter().find(|client| is_accepted(client)).or(clients.first()).cloned()
    }

    /// Up to `limit` sessions behind `after` that `keep` wants.
    pub fn sessions(
        &self,
        client: &ApiClient,
        after: Option<&Position>,
        limit: usize,
        keep: &dyn Fn(&SessionView) -> bool,
    ) -> Vec<SessionView> {
        let world = self.read();
        let labels = world.labels(tenant(client));
        let from = after.map_or(Bound::Unbounded, |after| Bound::Excluded(after.clone()));
        let sessions = world.sessions.index.ordered.range((from, Bound::Unbounded));
        sessions
            .filter(|(_, (session, _))| sees(client, session))
            .map(|(_, (session, own))| world.session_view(client, &labels, session, Arc::clone(own)))
            .filter(keep)
            .take(limit)
            .collect()
    }

    /// The client's sessions of an id.
    pub fn sessions_of_id(&self, client: &ApiClient, id: &str) -> Vec<SessionView> {
        let world = self.read();
        let labels = world.labels(tenant(client));
        let sessions = world.sessions.index.with_id(id).iter();
        sessions
            .filter(|session| sees(client, session))
            .map(|session| world.session_view(client, &labels, session, Arc::default()))
            .collect()
    }

    /// The sessions of an id, of all tenants.
    pub fn locate(&self, id: &str) -> Vec<Located> {
        let world = self.read();
        let server = |session: &DcvSession| world.servers.index.named(session.server_name()?).cloned();
        let sessions = world.sessions.index.with_id(id).iter();
        sessions.map(|session| Located { server: server(session), session: Arc::clone(session) }).collect()
    }

    /// Whether an id may belong to a session that the cache does not show yet.
    pub fn may_be_new(&self, id: &str) -> bool {
        // Only uids are given out before a session is seen; other ids come from hosts.
        uuid::Uuid::try_parse(id).is_ok() && {
            let world = self.read();
            !world.sessions.has_ended(id) && world.sessions.get(id).is_none()
        }
    }

    /// The client's session of an object name.
    pub fn session_named(&self, client: &ApiClient, name: &str) -> Option<Arc<DcvSession>> {
        self.read().sessions.index.named(tenant(client), name).cloned()
    }

    /// The sessions on a server.
    pub fn load(&self, server: &DcvServer) -> Load {
        self.read().load(server)
    }

    /// The servers the client may see, in order.
    pub fn servers(&self, client: &ApiClient) -> Vec<ServerView> {
        let world = self.read();
        let labels = world.labels(tenant(client));
        let servers = world.servers.index.ordered.values();
        servers.map(|server| world.server_view(client, &labels, server)).filter(|view| view.is_visible).collect()
    }

    /// The server of this uid.
    pub fn server(&self, uid: &str) -> Option<Arc<DcvServer>> {
        self.read().servers.get(uid).cloned()
    }

    /// How many sessions are on a server, of all tenants and origins, those promised to it included.
    pub fn sessions_on(&self, server: &str) -> u32 {
        self.read().promises.sessions_on(server, Instant::now())
    }

    /// The desktops that no object stands for, of these ids or, without any, of all.
    pub fn others(&self, client: &ApiClient, ids: &[String]) -> Vec<OtherView> {
        if !client.spec.all_namespaces {
            return Vec::new();
        }
        let world = self.read();
        let labels = world.labels(tenant(client));
        let others = world.servers.index.others.of_ids(ids);
        others
            .filter(|(_, other)| !world.is_spoken_for(&other.session.id, &other.server.name_any()))
            .map(|(position, other)| OtherView {
                session: other.session.clone(),
                server: world.server_view(client, &labels, &other.server),
                position: position.clone(),
            })
            .collect()
    }

    /// A place for a session of the client.
    pub fn reserve(
        &self,
        client: &ApiClient,
        session: &DcvSession,
        queue_size: usize,
    ) -> Result<Reservation, Shortage> {
        let world = self.read();
        let labels = world.labels(tenant(client));
        world.promises.reserve(session, tenant(client), &labels, queue_size, Instant::now())
    }

    /// All of it as it is now, to try sessions of the client in.
    pub fn trial(&self, client: &ApiClient) -> Trial {
        // Copying takes a while with many sessions: nobody waits for it but who promises.
        let (promises, labels) = {
            let world = self.read();
            (world.promises.clone(), world.labels(tenant(client)))
        };
        promises.trial(tenant(client), labels, Instant::now())
    }

    /// Remembers that nobody has these ids.
    pub fn note_unknown<'a>(&self, ids: impl Iterator<Item = &'a str>) {
        let mut world = self.write();
        ids.for_each(|id| world.sessions.note_unknown(id));
    }

    /// Shows a session that the API server has answered with.
    pub fn assume_session(&self, session: DcvSession) -> Arc<DcvSession> {
        let mut world = self.write();
        let session = world.sessions.assume(session);
        world.count_sessions();
        session
    }

    /// Shows a server that the API server has answered with.
    pub fn assume_server(&self, server: DcvServer) {
        let mut world = self.write();
        world.servers.assume(server);
        world.count_servers();
    }

    /// Shows that a session is gone.
    pub fn assume_session_gone(&self, session: &DcvSession) {
        let mut world = self.write();
        world.sessions.assume_gone(&session.uid().unwrap_or_default());
        world.count_sessions();
    }
}
