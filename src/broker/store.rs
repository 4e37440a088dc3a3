//! The seam between handlers and the cluster.
//!
//! Every lookup takes the client, so that no handler can forget the tenant: a client sees the sessions of its own
//! namespace, with `allNamespaces` those of all, and the servers that admit its namespace.

use std::sync::Arc;
use std::sync::OnceLock;

use futures::future::BoxFuture;
use jiff::Timestamp;
use jsonwebtoken::jwk::JwkSet;
use serde_json::value::RawValue;

use super::availability::Load;
use super::promise::Reservation;
use super::promise::Shortage;
use super::trial::Trial;
use crate::api::ApiClient;
use crate::api::DcvServer;
use crate::api::DcvSession;
use crate::api::server::OtherSession;
use crate::api::session::DesiredState;
use crate::token::KeySet;
use crate::token::Kind;

/// The keys of one kind of token.
pub struct Keys {
    /// With the private halves.
    pub private: KeySet,
    /// The public halves.
    pub public: JwkSet,
}

impl Keys {
    /// A set with its public halves.
    pub fn new(private: KeySet) -> Self {
        Self { public: private.public(), private }
    }
}

/// Where an object stands in every list: by creation, then uid.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// When it was created.
    pub created: Timestamp,
    /// Its uid.
    pub uid: String,
}

impl Position {
    /// The position of an object.
    pub fn of<K: kube::Resource>(object: &K) -> Self {
        let meta = object.meta();
        Self {
            created: meta.creation_timestamp.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0),
            uid: meta.uid.clone().unwrap_or_default(),
        }
    }
}

/// A server, as a client sees it.
#[derive(Clone)]
pub struct ServerView {
    /// The server.
    pub server: Arc<DcvServer>,
    /// Whether the client may see it in lists.
    pub is_visible: bool,
    /// What is shown of it with its sessions.
    pub place: Arc<Place>,
}

/// What is shown of a server with each of its sessions, as JSON: written once for each state of it, by who first needs it.
pub type Place = OnceLock<Box<RawValue>>;

/// A session, and the server it is on.
#[derive(Clone)]
pub struct SessionView {
    /// The session.
    pub session: Arc<DcvSession>,
    /// Its server, once it is bound to one that exists.
    pub server: Option<ServerView>,
    /// What lists show of it by itself.
    pub own: Arc<Own>,
}

/// What lists show of a session by itself: its JSON object without the closing brace, written once for each state of it, by
/// who first needs it.
pub type Own = OnceLock<Box<str>>;

/// A desktop on a host that no object stands for, and its server.
#[derive(Clone)]
pub struct OtherView {
    /// What the host says of it.
    pub session: OtherSession,
    /// Its server.
    pub server: ServerView,
    /// Where it stands among the sessions of the client.
    pub position: Position,
}

/// A session of any tenant, and the server it is on, once it is bound to one that exists.
#[derive(Clone)]
pub struct Located {
    /// The session.
    pub session: Arc<DcvSession>,
    /// Its server.
    pub server: Option<Arc<DcvServer>>,
}

/// Why the cluster did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The object does not exist.
    #[error("{0} does not exist")]
    NotFound(String),
    /// The API server refuses the object; its words, fit for the client.
    #[error("{0}")]
    Refused(String),
    /// The call failed.
    #[error("failed to {action} {object}")]
    Api {
        /// What we were doing.
        action: &'static str,
        /// To which object.
        object: String,
        /// What went wrong.
        #[source]
        source: Box<kube::Error>,
    },
    /// The API server did not answer in time.
    #[error("no answer in time to {0}")]
    Late(&'static str),
}

/// Reads from caches, writes to the API server; what was written is read at once.
pub trait Store: Send + Sync + 'static {
    /// Whether all caches are filled and keys are there.
    fn is_ready(&self) -> bool;

    /// The keys of a kind of token.
    fn keys(&self, kind: Kind) -> Option<Arc<Keys>>;

    /// The client of this uid.
    fn client(&self, uid: &str) -> Option<Arc<ApiClient>>;

    /// The client that logs in with this id; an accepted one before any other.
    fn client_by_id(&self, client_id: &str) -> Option<Arc<ApiClient>>;

    /// Reads the clients of a namespace anew, for one that another replica knows already.
    fn refresh_clients<'a>(&'a self, namespace: &'a str) -> BoxFuture<'a, ()>;

    /// Up to `limit` sessions of the client behind `after` that `keep` wants, in order.
    fn sessions(
        &self,
        client: &ApiClient,
        after: Option<&Position>,
        limit: usize,
        keep: &dyn Fn(&SessionView) -> bool,
    ) -> Vec<SessionView>;

    /// The client's sessions of these ids, in no order. Before an id is taken for unknown, the API server is asked.
    fn find_sessions<'a>(
        &'a self,
        client: &'a ApiClient,
        ids: &'a [String],
    ) -> BoxFuture<'a, Result<Vec<SessionView>, StoreError>>;

    /// The sessions of this id, of all tenants: for desktop servers and gateways, which are nobody's clients. Before the
    /// id is taken for unknown, the API server is asked.
    fn locate<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<Vec<Located>, StoreError>>;

    /// The client's session of this object name, in its own namespace, asked from the API server when not in the cache.
    fn session_named<'a>(
        &'a self,
        client: &'a ApiClient,
        name: &'a str,
    ) -> BoxFuture<'a, Result<Option<Arc<DcvSession>>, StoreError>>;

    /// The servers the client may see, in order.
    fn servers(&self, client: &ApiClient) -> Vec<ServerView>;

    /// The sessions on a server, of all tenants.
    fn load(&self, server: &DcvServer) -> Load;

    /// The desktops of these ids that no object stands for, of all ids when there is none here, in order. Only a client of
    /// all namespaces sees any.
    fn others(&self, client: &ApiClient, ids: &[String]) -> Vec<OtherView>;

    /// A place for `session` of this client: on a server if one fits now, else in the queue, if the session may wait and
    /// fewer than `queue_size` made by brokers do.
    fn reserve(&self, client: &ApiClient, session: &DcvSession, queue_size: usize) -> Result<Reservation, Shortage>;

    /// Everything as it is now, to try in what would become of sessions of this client.
    fn trial(&self, client: &ApiClient) -> Trial;

    /// Asks whether a session would be made in the client's namespace, and makes none.
    fn rehearse<'a>(&'a self, client: &'a ApiClient, session: DcvSession) -> BoxFuture<'a, Result<(), StoreError>>;

    /// Makes a session in the client's namespace. One of the same name that exists already is returned instead.
    fn create<'a>(
        &'a self,
        client: &'a ApiClient,
        session: DcvSession,
    ) -> BoxFuture<'a, Result<Arc<DcvSession>, StoreError>>;

    /// Asks for a session's end, keeping the object.
    fn set_desired_state<'a>(
        &'a self,
        client: &'a ApiClient,
        session: &'a DcvSession,
        desired_state: DesiredState,
    ) -> BoxFuture<'a, Result<(), StoreError>>;

    /// Deletes a session's object.
    fn delete<'a>(&'a self, client: &'a ApiClient, session: &'a DcvSession) -> BoxFuture<'a, Result<(), StoreError>>;

    /// Replaces the text of a session's permissions.
    fn set_permissions<'a>(
        &'a self,
        client: &'a ApiClient,
        session: &'a DcvSession,
        text: &'a str,
    ) -> BoxFuture<'a, Result<(), StoreError>>;

    /// Has a server take new sessions, drained or closed as it may be.
    fn open_server<'a>(&'a self, client: &'a ApiClient, server: &'a DcvServer)
    -> BoxFuture<'a, Result<(), StoreError>>;

    /// Has a server take no new sessions; one that is being drained is left to that. Without `force` only if nothing is on
    /// it, of any tenant, by hand, unclaimed or promised. Whether it is closed now.
    fn close_server<'a>(
        &'a self,
        client: &'a ApiClient,
        server: &'a DcvServer,
        force: bool,
    ) -> BoxFuture<'a, Result<bool, StoreError>>;
}
