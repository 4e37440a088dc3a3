//! The `DcvServer` kind: one host that runs sessions.

use std::collections::BTreeMap;

use jiff::SignedDuration;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::CustomResource;
use kube::KubeSchema;
use serde::Deserialize;
use serde::Serialize;

use super::conditions;
use super::conditions::ServerCondition;
use super::names;
use super::schema;
use super::session::SessionType;

/// A host that runs sessions.
///
/// Its agent creates it with an empty spec and reports its status; administrators write the spec.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "dcv-operator.io",
    version = "v1alpha1",
    kind = "DcvServer",
    plural = "dcvservers",
    shortname = "dcvsv",
    category = "dcv",
    status = "DcvServerStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "A host that runs sessions. Its agent creates and reports it; administrators write its spec.",
    printcolumn(name = "Availability", type_ = "string", json_path = ".status.availability"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.unavailabilityReason"),
    printcolumn(name = "Virtual", type_ = "integer", json_path = ".status.virtualSessionCount", format = "int32"),
    printcolumn(name = "Console", type_ = "integer", json_path = ".status.consoleSessionCount", format = "int32"),
    printcolumn(name = "Address", type_ = "string", json_path = ".status.ip"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status",
        priority = 1
    ),
    printcolumn(name = "Placement", type_ = "string", json_path = ".spec.placement", priority = 1),
    printcolumn(name = "OS", type_ = "string", json_path = ".status.host.os.name", priority = 1),
    printcolumn(name = "Backend", type_ = "string", json_path = ".status.backend", priority = 1),
    printcolumn(name = "Agent", type_ = "string", json_path = ".status.agent.version", priority = 1)
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.drainGraceSeconds) || (has(self.placement) && self.placement == 'Draining')")
        .message("drainGraceSeconds may not be set when placement is not Draining")
)]
pub struct DcvServerSpec {
    /// Open: takes new sessions. Closed: takes none, running ones stay. Draining: as Closed, and sessions end after
    /// `drainGraceSeconds`. Absent: Open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placement: Option<Placement>,
    /// Seconds from the start of draining until sessions are ended, 0 to 31536000. Absent: they are never ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 31_536_000))]
    pub drain_grace_seconds: Option<i32>,
    /// Ids from `status.otherSessions` that the agent is to end. At most 100.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), inner(length(min = 1, max = 256)), extend("x-kubernetes-list-type" = "set"))]
    pub end_sessions: Vec<String>,
    /// Which namespaces' sessions may be placed here, by the namespaces' labels. Absent: all, or none where the agent or
    /// controller is set to close new servers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::label_selector")]
    pub allowed_namespaces: Option<LabelSelector>,
    /// Limits that replace the host's own. Absent: the host's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<Limits>,
}

/// Whether a server takes sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[expect(missing_docs, reason = "the field's documentation says what each value means")]
pub enum Placement {
    Open,
    Closed,
    Draining,
}

/// Limits of a server.
#[derive(KubeSchema, Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Limits {
    /// Most virtual sessions at once, -1 to 100000; -1: no limit, 0: none. Absent: the host's own limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = -1, max = 100_000))]
    pub max_virtual_sessions: Option<i32>,
    /// Most virtual sessions of one owner at once, -1 to 100000; -1: no limit. Absent: the host's own limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = -1, max = 100_000))]
    pub max_concurrent_sessions_per_user: Option<i32>,
}

/// What the agent reports of its host. Written by the agent; while it is unreachable the controller writes
/// `availability` and the conditions AgentConnected and Ready, and nothing else.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("default" = schema::server_status_default()))]
pub struct DcvServerStatus {
    /// AVAILABLE: takes sessions. UNAVAILABLE: `unavailabilityReason` says why not.
    #[serde(default)]
    pub availability: Availability,
    /// Why the server takes no sessions; absent while AVAILABLE.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unavailability_reason: Option<UnavailabilityReason>,
    /// Ready, AgentConnected, BackendHealthy, LicenseValid, TagsValid, HostConfigured, Draining; Reconciling and Stalled
    /// while they are true.
    #[serde(default)]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
    /// The `metadata.generation` this status was computed from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub observed_generation: Option<i64>,
    /// What runs the sessions: dcv, vnc or fake.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 32))]
    pub backend: String,
    /// Version of the desktop server, such as `2024.0.17979`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 128))]
    pub version: String,
    /// Name of the host as it calls itself.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 253))]
    pub hostname: String,
    /// Address clients reach the host by.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 64))]
    pub ip: String,
    /// Full name of the host, or where nobody knows one the name it calls itself by.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 253))]
    pub default_dns_name: String,
    /// Port clients reach sessions by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65_535))]
    pub port: Option<i32>,
    /// Path of the web client, starting with `/`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 1024))]
    pub web_url_path: String,
    /// Every address, port and protocol the server listens on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "atomic"))]
    pub endpoints: Vec<Endpoint>,
    /// Facts of the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<Host>,
    /// Tags of the host, from its tag files, and the built-in ones that start with `dcv:`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::tags")]
    pub tags: BTreeMap<String, String>,
    /// What the server can hold, after the limits of the spec.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capacity: Option<Capacity>,
    /// Console sessions on the host, of every origin. Written at most every 30 seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub console_session_count: Option<i32>,
    /// Virtual sessions on the host, of every origin. Written at most every 30 seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub virtual_session_count: Option<i32>,
    /// Sessions on the host without an object here: started by hand, or unclaimed. Counted as occupied, never ended
    /// unless `spec.endSessions` names them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 500))]
    #[x_kube(merge_strategy = kube::core::ListMerge::Map(vec!["id".into()]))]
    pub other_sessions: Vec<OtherSession>,
    /// How brokers reach the agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<Agent>,
    /// Id of the host's current boot. A new one proves that no earlier session lives.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 64))]
    pub boot_id: String,
}

/// The documented availabilities.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
#[expect(missing_docs, reason = "the field's documentation says what each value means")]
pub enum Availability {
    Available,
    #[default]
    Unavailable,
}

impl Availability {
    /// The documented word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Available => "AVAILABLE",
            Self::Unavailable => "UNAVAILABLE",
        }
    }
}

/// The documented reasons, in the order in which one wins when several hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[expect(missing_docs, reason = "the documented words")]
pub enum UnavailabilityReason {
    UnreachableAgent,
    ServerClosed,
    UnhealthyDcvServer,
    ExistingLoggedInUser,
    ServerFull,
    Unknown,
}

impl UnavailabilityReason {
    /// The documented word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::UnreachableAgent => "UNREACHABLE_AGENT",
            Self::ServerClosed => "SERVER_CLOSED",
            Self::UnhealthyDcvServer => "UNHEALTHY_DCV_SERVER",
            Self::ExistingLoggedInUser => "EXISTING_LOGGED_IN_USER",
            Self::ServerFull => "SERVER_FULL",
            Self::Unknown => "UNKNOWN",
        }
    }
}

/// An address clients can reach the server by.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Endpoint {
    /// Address.
    #[schemars(length(max = 64))]
    pub ip_address: String,
    /// Port.
    #[schemars(range(min = 1, max = 65_535))]
    pub port: i32,
    /// Path of the web client; absent for QUIC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub web_url_path: Option<String>,
    /// HTTP (over TLS) or QUIC.
    pub protocol: Protocol,
}

/// The documented transports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
#[expect(missing_docs, reason = "the field's documentation says what each value means")]
pub enum Protocol {
    Http,
    Quic,
}

impl Protocol {
    /// The documented word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "HTTP",
            Self::Quic => "QUIC",
        }
    }
}

/// Facts of a host.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Host {
    /// Operating system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub os: Option<Os>,
    /// Main memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<Memory>,
    /// Swap space.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub swap: Option<Memory>,
    /// EC2 facts, on EC2 only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aws: Option<Aws>,
    /// Processors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_info: Option<CpuInfo>,
    /// Load averages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_load_average: Option<CpuLoadAverage>,
    /// Graphics cards.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "atomic"))]
    pub gpus: Vec<Gpu>,
    /// Accounts logged in, at most 256.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(max = 256)), extend("x-kubernetes-list-type" = "atomic"))]
    pub logged_in_users: Vec<String>,
}

/// Operating system of a host.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Os {
    /// linux, windows or macos.
    #[schemars(length(max = 32))]
    pub family: String,
    /// Name, such as `Debian GNU/Linux`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 128))]
    pub name: String,
    /// Version, such as `12`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 128))]
    pub version: String,
    /// Kernel release; Linux only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub kernel_version: Option<String>,
    /// Build number; Windows only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub build_number: Option<String>,
}

/// Memory in bytes.
#[derive(KubeSchema, Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Memory {
    /// All there is, in bytes.
    #[schemars(range(min = 0))]
    pub total_bytes: i64,
    /// What is in use, in bytes.
    #[schemars(range(min = 0))]
    pub used_bytes: i64,
}

/// EC2 facts.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Aws {
    /// Region.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 64))]
    pub region: String,
    /// Instance type, such as `g4dn.xlarge`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 64))]
    pub ec2_instance_type: String,
    /// Instance id.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 64))]
    pub ec2_instance_id: String,
    /// Image id.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 64))]
    pub ec2_image_id: String,
}

/// Processors of a host.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CpuInfo {
    /// Vendor, such as `GenuineIntel`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 128))]
    pub vendor: String,
    /// Model, such as `Intel(R) Xeon(R) Platinum 8259CL CPU @ 2.50GHz`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 256))]
    pub model_name: String,
    /// Architecture, such as `x86_64`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 64))]
    pub architecture: String,
    /// Number of processors, as in sockets.
    #[schemars(range(min = 0))]
    pub number_of_cpus: i32,
    /// Physical cores of each.
    #[schemars(range(min = 0))]
    pub physical_cores_per_cpu: i32,
}

/// Load averages, as three decimal numbers.
#[derive(KubeSchema, Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CpuLoadAverage {
    /// Over one minute.
    #[schemars(range(min = 0.0))]
    pub one_minute: f64,
    /// Over five minutes.
    #[schemars(range(min = 0.0))]
    pub five_minutes: f64,
    /// Over fifteen minutes.
    #[schemars(range(min = 0.0))]
    pub fifteen_minutes: f64,
}

/// A graphics card.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Gpu {
    /// Vendor.
    #[schemars(length(max = 128))]
    pub vendor: String,
    /// Model.
    #[schemars(length(max = 256))]
    pub model_name: String,
}

/// What a server can hold.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Capacity {
    /// Kinds of session the host can run.
    #[serde(default)]
    #[schemars(length(max = 2), extend("x-kubernetes-list-type" = "atomic"))]
    pub session_types: Vec<SessionType>,
    /// Most virtual sessions at once; -1: no limit.
    #[schemars(range(min = -1, max = 100_000))]
    pub max_virtual_sessions: i32,
    /// Most virtual sessions of one owner at once; -1: no limit.
    #[schemars(range(min = -1, max = 100_000))]
    pub max_concurrent_sessions_per_user: i32,
    /// Whether virtual sessions can use the host's GPU for OpenGL.
    #[serde(default)]
    pub gl: bool,
}

/// A session on the host that no object here stands for.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OtherSession {
    /// Its id on the host.
    #[schemars(length(min = 1, max = 256))]
    pub id: String,
    /// Its owner.
    #[schemars(length(max = 256))]
    pub owner: String,
    /// Its kind.
    #[serde(rename = "type")]
    pub type_: SessionType,
    /// Manual: started by hand on the host. Unclaimed: made by us for an object that is gone.
    pub origin: SessionOrigin,
    /// Namespace of the object it was made for; Unclaimed only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub namespace: Option<String>,
    /// Name of the object it was made for; Unclaimed only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub session_name: Option<String>,
    /// When it was created.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub creation_time: Option<Time>,
    /// Clients connected to it.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub num_of_connections: i32,
}

/// Where a session without an object comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[expect(missing_docs, reason = "the field's documentation says what each value means")]
pub enum SessionOrigin {
    Manual,
    Unclaimed,
}

/// How brokers reach an agent.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Agent {
    /// Base URL of its HTTPS server.
    #[schemars(length(max = 512))]
    pub url: String,
    /// SHA-256 of its certificate in lower-case hexadecimal, which brokers pin.
    #[schemars(length(max = 128))]
    pub certificate_fingerprint: String,
    /// Version of the agent.
    #[schemars(length(max = 64))]
    pub version: String,
    /// Seconds the host's clock is ahead of the API server's, negative when behind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock_skew_seconds: Option<i32>,
}

impl DcvServer {
    /// Whether the administrator lets it take sessions. Its Node may be cordoned all the same.
    pub fn is_open(&self) -> bool {
        matches!(self.spec.placement, None | Some(Placement::Open))
    }

    /// Whether its Node is cordoned, as the controller has noted on it.
    pub fn is_cordoned(&self) -> bool {
        self.metadata.labels.as_ref().is_some_and(|labels| labels.contains_key(names::CORDONED))
    }

    /// When draining ends the sessions on it; `None`: never, or it is not being drained. Until its agent has noted the
    /// start, draining starts now.
    pub fn drain_end(&self, now: Timestamp) -> Option<Timestamp> {
        let grace = self.spec.drain_grace_seconds?;
        if self.spec.placement != Some(Placement::Draining) {
            return None;
        }
        let since = conditions::find(self.conditions(), ServerCondition::Draining)
            .filter(|condition| condition.status == "True")
            .map_or(now, |condition| condition.last_transition_time.0);
        Some(since + SignedDuration::from_secs(grace.into()))
    }

    /// Conditions of the status, none without a status.
    pub fn conditions(&self) -> &[Condition] {
        self.status.as_ref().map_or(&[], |status| status.conditions.as_slice())
    }

    /// Whether the controller has found that its agent does not answer.
    pub fn is_silent(&self) -> bool {
        conditions::find(self.conditions(), ServerCondition::AgentConnected).is_some_and(|it| it.status == "False")
    }

    /// The limits in force: the administrator's where given, else the host's own as reported.
    pub fn limits(&self) -> Limits {
        let capacity = self.status.as_ref().and_then(|status| status.capacity.as_ref());
        let over = self.spec.limits.unwrap_or_default();
        Limits {
            max_virtual_sessions: over.max_virtual_sessions.or(capacity.map(|c| c.max_virtual_sessions)),
            max_concurrent_sessions_per_user: over
                .max_concurrent_sessions_per_user
                .or(capacity.map(|c| c.max_concurrent_sessions_per_user)),
        }
    }
}
