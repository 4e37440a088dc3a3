//! What `fake-host` says and understands, as JSON over HTTP on its Unix socket.
//!
//! For agents:
//!
//! | Request | Does |
//! |---|---|
//! | `GET /v1/servers/{server}` | what the host is: [`Host`] |
//! | `GET /v1/servers/{server}/sessions` | what it runs: list of [`Session`] |
//! | `PUT /v1/servers/{server}/sessions/{id}` | creates, body an order; 200, [`REFUSED`] or [`FAILED`] with the reason |
//! | `DELETE /v1/servers/{server}/sessions/{id}` | closes |
//! | `PUT /v1/servers/{server}/sessions/{id}/announced` | notes that people know of it |
//! | `PUT /v1/servers/{server}/sessions/{id}/permissions` | [`Permissions`] |
//! | `POST /v1/servers/{server}/sessions/{id}/screenshot` | body a screenshot request; the image |
//! | `GET /v1/servers/{server}/changes?after=N` | waits up to a minute until the version is not N: [`Version`] |
//!
//! For tests and checkers, with `curl --unix-socket SOCKET http://host/…`:
//!
//! | Request | Does |
//! |---|---|
//! | `GET /v1/sessions` | every session of every server, as `{server: [session…]}` |
//! | `GET /v1/history` | by id: creates, closes, ends, instances now and the most at once: [`History`] |
//! | `POST /v1/servers/{server}/faults` | [`Fault`]: what goes wrong with the next creates or closes |
//! | `PUT /v1/servers/{server}/latency` | [`Latency`] |
//! | `PUT /v1/servers/{server}/health` | [`Health`]: the host is unhealthy for this reason, or `null` |
//! | `PUT /v1/servers/{server}/users` | [`Users`]: who is logged in at its screen |
//! | `POST /v1/servers/{server}/sessions/{id}/end` | [`End`]: the session ends by itself |
//! | `PUT /v1/servers/{server}/sessions/{id}/connections` | [`Connections`] |
//! | `POST /v1/servers/{server}/sessions/{id}/manual` | [`Manual`]: somebody starts a session by hand |
//! | `POST /v1/servers/{server}/restart` | the host restarts: no sessions, another boot id |

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Deserialize;
use serde::Serialize;

use crate::agent::backend::HostSession;
use crate::agent::backend::Marker;
use crate::agent::backend::Phase;
use crate::api::server::Capacity;
use crate::api::session::SessionType;

/// Status of an answer to a create that the host refuses.
pub const REFUSED: u16 = 422;
/// Status of an answer to a create, a close or another call that failed.
pub const FAILED: u16 = 500;
/// Status that stands for an answer that was lost.
pub const LOST: u16 = 503;

/// What a host is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Host {
    /// What it can hold.
    pub capacity: Capacity,
    /// Its facts.
    pub host: crate::api::server::Host,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
    /// Id of its boot.
    pub boot_id: String,
    /// Why it can create no sessions; absent: it can.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unhealthy: Option<String>,
}

/// A session on a host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Session {
    /// Its id.
    pub id: String,
    /// Its owner.
    pub owner: String,
    /// Its kind.
    #[serde(rename = "type")]
    pub type_: SessionType,
    /// Whose it is; absent: started by hand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub marker: Option<Marker>,
    /// How far it is.
    pub phase: State,
    /// Whether people are known to know of it.
    pub announced: bool,
    /// Why it ended.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Clients connected now.
    pub num_of_connections: i32,
    /// When a client left last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_disconnection_time: Option<Timestamp>,
    /// When it was created.
    pub creation_time: Timestamp,
    /// Its permissions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub permissions: Option<String>,
    /// The autorun program and its arguments.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub autorun: Vec<String>,
}

/// How far a session is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum State {
    /// Being created.
    Preparing,
    /// Accepts clients.
    Running,
    /// Over.
    Ended,
}

impl From<Session> for HostSession {
    fn from(session: Session) -> Self {
        Self {
            phase: match session.phase {
                State::Preparing => Phase::Preparing,
                State::Running => Phase::Running,
                State::Ended => Phase::Ended(session.reason),
            },
            id: session.id,
            owner: session.owner,
            type_: session.type_,
            marker: session.marker,
            announced: session.announced,
            num_of_connections: session.num_of_connections,
            last_disconnection_time: session.last_disconnection_time,
            creation_time: Some(session.creation_time),
        }
    }
}

/// Permissions to set; absent: only the owner, with everything.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Permissions {
    /// Text of the permissions file.
    pub text: Option<String>,
}

/// How often a host has changed by itself.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Version {
    /// A number that is another after each change.
    pub version: u64,
}

/// What happened to one id on all hosts together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// How often an instance was begun.
    pub creates: u32,
    /// How often one was closed.
    pub closes: u32,
    /// How often one ended by itself or with its host.
    pub ends: u32,
    /// Instances that live now.
    pub now: u32,
    /// The most that ever lived at once; above 1 something went wrong.
    pub most: u32,
}

/// What goes wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// With which calls.
    pub on: Call,
    /// How.
    pub what: What,
    /// How many calls; 1 by default.
    #[serde(default = "once")]
    pub times: u32,
    /// What the host says.
    #[serde(default = "because")]
    pub reason: String,
}

fn once() -> u32 {
    1
}

fn because() -> String {
    "as told".into()
}

/// A kind of call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Call {
    /// Creating a session.
    Create,
    /// Closing one.
    Close,
}

/// How a call goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum What {
    /// It fails; after a create nothing is left.
    Fail,
    /// The host refuses; for a close the same as a failure.
    Refuse,
    /// There is never an answer; a create leaves a session that never accepts clients.
    Hang,
    /// It is done and the answer is lost.
    Lose,
}

/// How long calls take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Latency {
    /// Until a session accepts clients.
    pub create_milliseconds: u64,
    /// Until it is closed.
    pub close_milliseconds: u64,
}

/// Whether a host is well.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Health {
    /// Why not.
    pub unhealthy: Option<String>,
}

/// Who is logged in at a host's own screen.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Users {
    /// Their names.
    pub logged_in_users: Vec<String>,
}

/// A session ends by itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct End {
    /// Why.
    pub reason: String,
    /// Whether the host forgets it at once, as some do.
    #[serde(default)]
    pub forget: bool,
}

/// How many clients are connected.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Connections {
    /// How many.
    pub number: i32,
}

/// A session that somebody starts by hand.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Manual {
    /// Its owner.
    pub owner: String,
    /// Its kind.
    #[serde(rename = "type")]
    pub type_: SessionType,
}
