//! The `DcvSession` kind: one remote desktop.
//!
//! Shapes and accessors only. Who may write which part, and when, is said at each type.

use jiff::SignedDuration;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::CustomResource;
use kube::KubeSchema;
use kube::ResourceExt;
use serde::Deserialize;
use serde::Serialize;

use super::conditions;
use super::conditions::SessionCondition;
use super::names::SESSION_FINALIZER;
use super::names::TRACEPARENT;
use super::schema;

/// A remote desktop requested for one owner.
///
/// The controller binds it to a `DcvServer`; the agent there creates it. `spec` belongs to the user, we never write it.
/// `status` is the controller's until the bind and the named agent's after it.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "dcv-operator.io",
    version = "v1alpha1",
    kind = "DcvSession",
    plural = "dcvsessions",
    shortname = "dcvs",
    category = "dcv",
    namespaced,
    status = "DcvSessionStatus",
    derive = "PartialEq",
    doc = "A remote desktop requested for one owner. The controller binds it to a DcvServer, whose agent creates it.",
    selectable = ".status.serverName",
    selectable = ".spec.owner",
    selectable = ".status.state",
    printcolumn(name = "State", type_ = "string", json_path = ".status.state"),
    printcolumn(name = "Owner", type_ = "string", json_path = ".spec.owner"),
    printcolumn(name = "Server", type_ = "string", json_path = ".status.serverName"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.stateReason"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status",
        priority = 1
    ),
    printcolumn(name = "Substate", type_ = "string", json_path = ".status.substate", priority = 1),
    printcolumn(name = "Type", type_ = "string", json_path = ".spec.type", priority = 1),
    printcolumn(
        name = "Connections",
        type_ = "integer",
        json_path = ".status.numOfConnections",
        priority = 1,
        format = "int32"
    ),
    printcolumn(name = "Address", type_ = "string", json_path = ".status.server.ip", priority = 1),
    validation = Rule::new(finished_is_frozen())
        .message("a finished session may not be changed, except for ttlSecondsAfterFinished")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.autorunFileArguments) || has(self.autorunFile)")
        .message("autorunFileArguments may not be set when autorunFile is absent"),
    validation = Rule::new("self.type != 'CONSOLE' || !has(self.initFile)")
        .message("initFile may not be set when type is CONSOLE"),
    validation = Rule::new("self.type != 'CONSOLE' || !has(self.dcvGlEnabled)")
        .message("dcvGlEnabled may not be set when type is CONSOLE"),
    validation = Rule::new("self.type != 'CONSOLE' || !has(self.autorunFileArguments)")
        .message("autorunFileArguments may not be set when type is CONSOLE"),
    validation = Rule::new("has(self.requirements) == has(oldSelf.requirements)")
        .message("requirements is immutable"),
    validation = Rule::new("has(self.serverSelector) == has(oldSelf.serverSelector)")
        .message("serverSelector is immutable"),
    validation = Rule::new("has(self.initFile) == has(oldSelf.initFile)").message("initFile is immutable"),
    validation = Rule::new("has(self.autorunFile) == has(oldSelf.autorunFile)").message("autorunFile is immutable"),
    validation = Rule::new("has(self.autorunFileArguments) == has(oldSelf.autorunFileArguments)")
        .message("autorunFileArguments is immutable"),
    validation = Rule::new("has(self.maxConcurrentClients) == has(oldSelf.maxConcurrentClients)")
        .message("maxConcurrentClients is immutable"),
    validation = Rule::new("has(self.dcvGlEnabled) == has(oldSelf.dcvGlEnabled)")
        .message("dcvGlEnabled is immutable"),
    validation = Rule::new("has(self.storageRoot) == has(oldSelf.storageRoot)").message("storageRoot is immutable"),
    validation = Rule::new("has(self.adopt) == has(oldSelf.adopt)").message("adopt is immutable"),
    validation = Rule::new(
        "oldSelf.desiredState == 'Running' || self.desiredState == 'ForceClosed' \
         || self.desiredState == oldSelf.desiredState"
    )
    .message("desiredState must only move forward: Running, Closed, ForceClosed")
)]
pub struct DcvSessionSpec {
    /// Name shown to people. Need not be unique. At most 256 characters. Absent: the object's name. Can be changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub display_name: Option<String>,

    /// Account on the host that the desktop belongs to. Must be 1 to 256 characters, must not start with `-` and must
    /// not contain control characters. Immutable.
    #[schemars(length(min = 1, max = 256), regex(pattern = r"^[^\p{Cc}-][^\p{Cc}]*$"))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("owner is immutable"))]
    pub owner: String,

    /// VIRTUAL: a desktop of its own, many on one server, Linux only. CONSOLE: the one screen of the machine. Immutable.
    #[serde(rename = "type")]
    #[x_kube(validation = Rule::new("self == oldSelf").message("type is immutable"))]
    pub type_: SessionType,

    /// Expression the server must meet, such as `tag:pool = 'render'`. At most 4096 characters. Absent or empty: any
    /// server. Immutable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("requirements is immutable"))]
    pub requirements: Option<String>,

    /// Labels the `DcvServer` must carry, beside `requirements`. Absent or empty: any server. Immutable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::label_selector")]
    #[x_kube(validation = Rule::new("self == oldSelf").message("serverSelector is immutable"))]
    pub server_selector: Option<LabelSelector>,

    /// Program that starts the desktop and ends the session with its end. A path below the host's init folder: must be
    /// relative and must not contain `..`. VIRTUAL only. Absent: the host's own desktop. Immutable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    #[x_kube(
        validation = Rule::new("!self.startsWith('/') && !self.split('/').exists(part, part == '..')")
            .message("initFile must be a relative path without .."),
        validation = Rule::new("self == oldSelf").message("initFile is immutable")
    )]
    pub init_file: Option<String>,

    /// Program started once inside the new session; its end does not end the session. A path below the host's autorun
    /// folder: must be relative and must not contain `..`. Absent: none. Immutable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    #[x_kube(
        validation = Rule::new("!self.startsWith('/') && !self.split('/').exists(part, part == '..')")
            .message("autorunFile must be a relative path without .."),
        validation = Rule::new("self == oldSelf").message("autorunFile is immutable")
    )]
    pub autorun_file: Option<String>,

    /// Arguments for `autorunFile`, in order. At most 200 of at most 4096 characters. VIRTUAL only. Immutable.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 200), inner(length(max = 4096)), extend("x-kubernetes-list-type" = "atomic"))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("autorunFileArguments is immutable"))]
    pub autorun_file_arguments: Vec<String>,

    /// Most clients connected at once, 1 to 10000. A further client is refused. Absent: no limit. Immutable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("maxConcurrentClients is immutable"))]
    pub max_concurrent_clients: Option<i32>,

    /// Whether the desktop gets the host's GPU for OpenGL. VIRTUAL only. Absent: the host's default. Immutable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("self == oldSelf").message("dcvGlEnabled is immutable"))]
    pub dcv_gl_enabled: Option<bool>,

    /// Text of the permissions file: who may connect and what each may do. At most 65536 characters. Not secret: anyone
    /// who may read sessions reads it. Absent: only the owner, with every feature. Can be changed on a running session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 65_536))]
    pub permissions: Option<String>,

    /// Folder on the host that clients may store files in; `%home%` stands for the owner's home. At most 1024
    /// characters. Absent: no file storage. Immutable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("storageRoot is immutable"))]
    pub storage_root: Option<String>,

    /// Whether the session waits for room when no server fits now. false: it fails at once. Default true.
    #[serde(default = "default_true")]
    pub enqueue_request: bool,

    /// Whether a failure on a host is final. false: another host is tried, as often as the controller is set to.
    /// Default false.
    #[serde(default)]
    pub disable_retry_on_failure: bool,

    /// Waiting sessions of a higher priority are placed first. -1000000 to 1000000, default 0. Never ends a session.
    #[serde(default)]
    #[schemars(range(min = -1_000_000, max = 1_000_000))]
    pub priority: i32,

    /// Spread: the fitting server with the fewest sessions. Pack: the one with the most. Absent: as the controller is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placement_policy: Option<PlacementPolicy>,

    /// Seconds the session may wait for a server before it fails, 1 to 31536000. Absent: for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 31_536_000))]
    pub queue_timeout_seconds: Option<i32>,

    /// Running: keep it. Closed: close it and keep the object. ForceClosed: as Closed, and do not wait for an
    /// unreachable server. Moves only forward. Default Running.
    #[serde(default)]
    pub desired_state: DesiredState,

    /// What happens when the desktop is lost. Never: the session ends. OnServerLoss: it is placed again once the
    /// server is proved dead. OnUnreachable: also when the server is only unreachable, so **two instances may run**.
    /// Always: as OnServerLoss, and also when the desktop ended by itself. Default Never.
    #[serde(default)]
    pub restart_policy: RestartPolicy,

    /// Seconds from the session's readiness until it is closed, 60 to 31536000. Absent: no limit. Can be changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 60, max = 31_536_000))]
    pub max_duration_seconds: Option<i32>,

    /// Seconds after the last client left until the session is closed, 60 to 31536000. Absent: never. Can be changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 60, max = 31_536_000))]
    pub disconnect_timeout_seconds: Option<i32>,

    /// Seconds a finished session is kept before it is deleted, 0 to 31536000. Absent: for ever, which is what GitOps
    /// needs. Can be changed, also on a finished session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 31_536_000))]
    pub ttl_seconds_after_finished: Option<i32>,

    /// Connection tokens issued before this time are refused. Set it to now to revoke them. Absent: none is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub tokens_valid_from: Option<Time>,

    /// A desktop that already runs on a host, to be taken over instead of creating one. Its owner must be the same.
    /// Immutable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("self == oldSelf").message("adopt is immutable"))]
    pub adopt: Option<Adopt>,
}

/// On a finished session every field that is not immutable anyway, except `ttlSecondsAfterFinished`, must stay.
fn finished_is_frozen() -> String {
    const DEFAULTED: [&str; 5] =
        ["enqueueRequest", "disableRetryOnFailure", "priority", "desiredState", "restartPolicy"];
    const OPTIONAL: [&str; 7] = [
        "displayName",
        "permissions",
        "placementPolicy",
        "queueTimeoutSeconds",
        "maxDurationSeconds",
        "disconnectTimeoutSeconds",
        "tokensValidFrom",
    ];
    let defaulted = DEFAULTED.map(|field| format!("self.spec.{field} == oldSelf.spec.{field}"));
    // Comparing optional values (`.?field`) counts as unbounded and is refused as too costly.
    let optional = OPTIONAL.map(|field| {
        format!(
            "has(self.spec.{field}) == has(oldSelf.spec.{field}) \
             && (!has(self.spec.{field}) || self.spec.{field} == oldSelf.spec.{field})"
        )
    });
    format!(
        "!has(oldSelf.status) || !has(oldSelf.status.conditions) \
         || !oldSelf.status.conditions.exists(c, c.type == 'Finished' && c.status == 'True') || ({} && {})",
        defaulted.join(" && "),
        optional.join(" && ")
    )
}

fn default_true() -> bool {
    true
}

/// The documented kinds of session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
#[expect(missing_docs, reason = "the field's documentation says what each value means")]
pub enum SessionType {
    Console,
    Virtual,
}

impl SessionType {
    /// The documented word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Console => "CONSOLE",
            Self::Virtual => "VIRTUAL",
        }
    }
}

/// How to choose among the servers that fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[expect(missing_docs, reason = "the field's documentation says what each value means")]
pub enum PlacementPolicy {
    Spread,
    Pack,
}

/// What the user wants of a session. Ordered: it moves only forward.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema)]
#[expect(missing_docs, reason = "the field's documentation says what each value means")]
pub enum DesiredState {
    #[default]
    Running,
    Closed,
    ForceClosed,
}

/// What happens when the desktop is lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[expect(missing_docs, reason = "the field's documentation says what each value means")]
pub enum RestartPolicy {
    #[default]
    Never,
    OnServerLoss,
    OnUnreachable,
    Always,
}

/// Names a desktop that already runs on a host.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Adopt {
    /// Name of the `DcvServer` it runs on.
    #[schemars(length(min = 1, max = 253))]
    pub server_name: String,
    /// Its id there, as in `status.otherSessions` of that server.
    #[schemars(length(min = 1, max = 256))]
    pub session_id: String,
}

/// What is known of a session. Until the bind the controller writes it, afterwards the agent of `serverName`; the
/// controller again only for an unreachable or dead server and for time limits.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("default" = schema::session_status_default()))]
#[x_kube(
    validation = Rule::new("!has(oldSelf.attempt) || (has(self.attempt) && self.attempt >= oldSelf.attempt)")
        .message("attempt may not decrease")
)]
pub struct DcvSessionStatus {
    /// CREATING: being placed or prepared. READY: accepts clients. DELETING: being closed. DELETED: over. UNKNOWN: its
    /// server cannot be reached, or it failed; `stateReason` says which.
    #[serde(default)]
    pub state: SessionState,
    /// While CREATING. SESSION_PLACING: waits for a server. PENDING_PREPARATION: has one, and is being created there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub substate: Option<SessionSubstate>,
    /// Why the session is in this state, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub state_reason: Option<String>,
    /// Scheduled, Created, Ready, Finished; Reconciling and Stalled while they are true.
    #[serde(default)]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
    /// The `metadata.generation` this status was computed from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub observed_generation: Option<i64>,
    /// When `state` changed last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub last_transition_time: Option<Time>,
    /// Name of the `DcvServer` the session is bound to. Absent: not bound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub server_name: Option<String>,
    /// Uid of that `DcvServer`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub server_uid: Option<String>,
    /// The session's id on the host, and in the REST API. Absent: the object's uid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub session_id: Option<String>,
    /// How often the session was bound. Never decreases.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub attempt: Option<i32>,
    /// How many of the binds since it was new, or ran last, were retries after a failure on a host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub retries: Option<i32>,
    /// The last five attempts that did not last, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 5), extend("x-kubernetes-list-type" = "atomic"))]
    pub attempts: Vec<Attempt>,
    /// Where clients reach the session. Present once it was READY.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<SessionServer>,
    /// Clients connected now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub num_of_connections: Option<i32>,
    /// When a client left last. Absent: none has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub last_disconnection_time: Option<Time>,
    /// When the session finished. `ttlSecondsAfterFinished` counts from it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub completion_time: Option<Time>,
}

/// The documented states.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
#[expect(missing_docs, reason = "the field's documentation says what each value means")]
pub enum SessionState {
    #[default]
    Creating,
    Ready,
    Deleting,
    Deleted,
    Unknown,
}

impl SessionState {
    /// The documented word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Creating => "CREATING",
            Self::Ready => "READY",
            Self::Deleting => "DELETING",
            Self::Deleted => "DELETED",
            Self::Unknown => "UNKNOWN",
        }
    }
}

/// The documented substates of CREATING.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[expect(missing_docs, reason = "the field's documentation says what each value means")]
pub enum SessionSubstate {
    SessionPlacing,
    PendingPreparation,
}

impl SessionSubstate {
    /// The documented word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SessionPlacing => "SESSION_PLACING",
            Self::PendingPreparation => "PENDING_PREPARATION",
        }
    }
}

/// One bind that did not last.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Attempt {
    /// Name of the `DcvServer`.
    #[schemars(length(max = 253))]
    pub server_name: String,
    /// When it was given up.
    #[schemars(schema_with = "schema::time")]
    pub time: Time,
    /// Reason of the condition it ended with: Refused, Failed, InvalidSession, Ended, ServerLost.
    #[schemars(length(max = 128))]
    pub reason: String,
    /// The host's words.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 4096))]
    pub message: String,
}

/// Where clients reach a session.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SessionServer {
    /// Address of the host.
    #[schemars(length(max = 64))]
    pub ip: String,
    /// Port for HTTPS and WebSocket.
    #[schemars(range(min = 1, max = 65_535))]
    pub port: i32,
    /// Path of the web client, starting with `/`.
    #[schemars(length(max = 1024))]
    pub web_url_path: String,
    /// Every address, port and protocol the server listens on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "atomic"))]
    pub endpoints: Vec<super::server::Endpoint>,
}

impl DcvSession {
    /// Name of the server the session is bound to.
    pub fn server_name(&self) -> Option<&str> {
        self.status.as_ref()?.server_name.as_deref()
    }

    /// The number of the current bind, 0 before the first.
    pub fn attempt(&self) -> i32 {
        self.status.as_ref().and_then(|status| status.attempt).unwrap_or(0)
    }

    /// The trace that its making is part of.
    pub fn traceparent(&self) -> Option<&str> {
        self.annotations().get(TRACEPARENT).map(String::as_str)
    }

    /// The id on the host and in the REST API: `status.sessionId`, else the uid.
    pub fn id(&self) -> &str {
        let id = self.status.as_ref().and_then(|status| status.session_id.as_deref());
        id.or(self.metadata.uid.as_deref()).unwrap_or_default()
    }

    /// Conditions of the status, none without a status.
    pub fn conditions(&self) -> &[Condition] {
        self.status.as_ref().map_or(&[], |status| status.conditions.as_slice())
    }

    /// Whether the session is over for good.
    pub fn is_finished(&self) -> bool {
        conditions::is_true(self.conditions(), SessionCondition::Finished)
    }

    /// Whether somebody asked for its end, by a delete or by `desiredState`.
    pub fn is_closing(&self) -> bool {
        self.metadata.deletion_timestamp.is_some() || self.spec.desired_state != DesiredState::Running
    }

    /// Whether its desktop lets clients in: it was READY in this attempt, is not over, and nobody asked for its end. So
    /// also when its server cannot be reached by us: the desktop may well be.
    pub fn is_open(&self) -> bool {
        conditions::is_true(self.conditions(), SessionCondition::Created) && !self.is_closing() && !self.is_finished()
    }

    /// Since when it has been accepting clients on this bind, whatever became of its server meanwhile.
    pub fn created_time(&self) -> Option<Timestamp> {
        let created = conditions::find(self.conditions(), SessionCondition::Created)?;
        (created.status == "True").then_some(created.last_transition_time.0)
    }

    /// When limits of its spec end it, and what is said then, while it runs with so many clients of which the last left
    /// then.
    pub fn time_limits(&self, connections: i32, left: Option<Timestamp>) -> Vec<(Timestamp, &'static str)> {
        let after = |start: Timestamp, seconds: i32| start + SignedDuration::from_secs(seconds.into());
        let longest = self.created_time().zip(self.spec.max_duration_seconds);
        let alone = left.filter(|_| connections == 0).zip(self.spec.disconnect_timeout_seconds);
        let longest = longest.map(|(created, limit)| (after(created, limit), "it reached its longest duration"));
        let alone = alone.map(|(left, limit)| (after(left, limit), "nobody was connected for its longest time"));
        longest.into_iter().chain(alone).collect()
    }

    /// Whether our finalizer still holds the object.
    pub fn has_finalizer(&self) -> bool {
        self.finalizers().iter().any(|finalizer| finalizer == SESSION_FINALIZER)
    }

    /// The name shown to people: `displayName`, else the object's name.
    pub fn display_name(&self) -> String {
        self.spec.display_name.clone().unwrap_or_else(|| self.name_any())
    }

    /// The state shown to readers: DELETING is derived, as the agent writes it only when closing takes long.
    pub fn shown_state(&self) -> SessionState {
        let state = self.status.as_ref().map(|status| status.state).unwrap_or_default();
        if self.is_closing() && !self.is_finished() { SessionState::Deleting } else { state }
    }
}
