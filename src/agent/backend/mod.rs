//! What an agent drives: the desktop server of its host.
//!
//! A backend knows the host and nothing of Kubernetes. Everything above this trait works the same with each of them, and
//! one shared contract test runs against each.

mod account;
pub mod contract;
pub mod dcv;
pub mod fake;
pub(in crate::agent) mod files;
pub mod vnc;

use std::future::Future;

use axum::Router;
use jiff::Timestamp;
use serde::Deserialize;
use serde::Serialize;
use tokio::sync::watch;

use crate::api::server::Capacity;
use crate::api::server::Endpoint;
use crate::api::server::Host;
use crate::api::session::SessionType;

pub(in crate::agent) use account::check_name;
pub use account::owner_pattern;

/// What the agent writes beside a session on the host, so that whoever finds it knows whose it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Marker {
    /// Uid of the cluster: that of its `kube-system` namespace.
    pub cluster_uid: String,
    /// Namespace of the `DcvSession`.
    pub namespace: String,
    /// Name of the `DcvSession`.
    pub name: String,
    /// Uid of the `DcvSession`.
    pub uid: String,
    /// Attempt of the `DcvSession` it was created for.
    pub attempt: i32,
    /// Owner of the session.
    pub owner: String,
    /// Boot id of the host when it was created.
    pub boot_id: String,
}

/// A session to create.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Order {
    /// Id it gets on the host.
    pub id: String,
    /// Whose it is.
    pub marker: Marker,
    /// Kind of session.
    #[serde(rename = "type")]
    pub type_: SessionType,
    /// Name shown to people.
    pub display_name: String,
    /// Account it belongs to and, for virtual sessions, runs as.
    pub owner: String,
    /// Path below the init folder.
    pub init_file: Option<String>,
    /// Path below the autorun folder.
    pub autorun_file: Option<String>,
    /// Arguments of the autorun program.
    pub autorun_file_arguments: Vec<String>,
    /// Most clients at once; absent: no limit.
    pub max_concurrent_clients: Option<i32>,
    /// OpenGL on the GPU; absent: the host's default.
    pub dcv_gl_enabled: Option<bool>,
    /// Text of the permissions file; absent: only the owner, with everything.
    pub permissions: Option<String>,
    /// Folder for file storage, `%home%` not yet replaced.
    pub storage_root: Option<String>,
    /// The trace that its creation is part of.
    pub traceparent: Option<String>,
}

/// A session that the host has.
#[derive(Clone, Debug, PartialEq)]
pub struct HostSession {
    /// Id on the host.
    pub id: String,
    /// Its owner.
    pub owner: String,
    /// Its kind.
    pub type_: SessionType,
    /// Whose it is; absent: started by hand.
    pub marker: Option<Marker>,
    /// How far it is.
    pub phase: Phase,
    /// Whether people are known to know of it: [`Backend::announce`] was called, or somebody else than an agent started it.
    pub announced: bool,
    /// Clients connected now.
    pub num_of_connections: i32,
    /// When a client left last.
    pub last_disconnection_time: Option<Timestamp>,
    /// When it was created.
    pub creation_time: Option<Timestamp>,
}

/// How far a session on the host is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Being created; does not accept clients yet.
    Preparing,
    /// Accepts clients.
    Running,
    /// Over, nothing of it runs; kept so that the reason is told. `close` forgets it.
    Ended(String),
}

/// Why a session was not created. Nothing of it is left on the host.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CreateError {
    /// The host will not run this session, now or later: another may.
    #[error("{0}")]
    Refused(String),
    /// The host tried and failed.
    #[error("{0}")]
    Failed(String),
}

/// The desktop server could not be asked. Never to be read as "the session is gone".
#[derive(Debug, thiserror::Error)]
#[error("failed to {action}: {message}")]
pub struct BackendError {
    /// What was tried.
    pub action: &'static str,
    /// What the host said.
    pub message: String,
}

/// What a backend tells of itself and of the host.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Description {
    /// Version of the desktop server.
    pub version: String,
    /// What the host can hold.
    pub capacity: Capacity,
    /// Where clients reach sessions, when the desktop server itself listens; empty: the agent's own HTTPS server does. One
    /// without an address has the host's.
    pub endpoints: Vec<Endpoint>,
    /// Facts that replace the ones read from the host the agent runs on; for hosts that are made up.
    pub host: Option<Host>,
    /// Id of the host's boot, where the host is not the machine the agent runs on; absent: that machine's.
    pub boot_id: Option<String>,
    /// Tags beside those of the tag files.
    pub tags: std::collections::BTreeMap<String, String>,
    /// Why no session can be created now; absent: it can.
    pub unhealthy: Option<String>,
    /// How it is with the desktop server's licence.
    pub license: License,
}

/// What is known of a desktop server's licence.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum License {
    /// It needs none.
    #[default]
    NotRequired,
    /// Nothing has told yet.
    Unknown,
    /// Its sessions have theirs.
    Valid,
    /// What is wrong.
    Faulty(String),
}

/// Format of a screenshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ImageFormat {
    /// PNG.
    Png,
    /// JPEG.
    Jpeg,
}

/// A screenshot to take. Never larger than the screen; the ratio is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScreenshotRequest {
    /// Most pixels in width.
    pub max_width: u32,
    /// Most pixels in height.
    pub max_height: u32,
    /// Format of the answer.
    pub format: ImageFormat,
}

/// The desktop server of one host.
///
/// Calls may be repeated and may be cut off anywhere, by a kill too; after a restart `list` tells what is there.
pub trait Backend: Send + Sync + 'static {
    /// Word for `DcvServer.status.backend`.
    const NAME: &'static str;

    /// What the host can do. Cheap enough for every heartbeat.
    fn describe(&self) -> impl Future<Output = Result<Description, BackendError>> + Send;

    /// Every session on the host, ours or not.
    fn list(&self) -> impl Future<Output = Result<Vec<HostSession>, BackendError>> + Send;

    /// Creates a session and returns once it accepts clients. The marker is on the host before anything else is. After
    /// an error nothing of it is left. A session of this id that runs already is success.
    fn create(&self, order: &Order) -> impl Future<Output = Result<(), CreateError>> + Send;

    /// Notes on the host that the session was told READY: people know of it. Lasts as long as the session does, agents that
    /// come and go included.
    fn announce(&self, id: &str) -> impl Future<Output = Result<(), BackendError>> + Send;

    /// Closes a session and returns once nothing of it is left. A session that is not there is success.
    fn close(&self, id: &str) -> impl Future<Output = Result<(), BackendError>> + Send;

    /// Replaces the permissions of a running session; `None`: only the owner, with everything. Acts on connected
    /// clients at once.
    fn set_permissions(&self, id: &str, text: Option<&str>) -> impl Future<Output = Result<(), BackendError>> + Send;

    /// A picture of a running session's screen, encoded.
    fn screenshot(
        &self,
        id: &str,
        request: ScreenshotRequest,
    ) -> impl Future<Output = Result<Vec<u8>, BackendError>> + Send;

    /// Changes whenever `list` would answer differently by itself: a session ended, a client came or left.
    fn changes(&self) -> watch::Receiver<u64>;

    /// What the agent's HTTPS server serves for this backend beside its own paths.
    fn routes(&self) -> Router {
        Router::new()
    }
}
