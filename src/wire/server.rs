//! Servers and what is said of their hosts.

use schemars::JsonSchema;
use serde::Deserialize;
use serde::Serialize;

/// A key and its value: a tag, or a filter.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct KeyValuePair {
    /// The key.
    pub key: String,
    /// The value.
    pub value: String,
}

/// A host that runs sessions.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct Server {
    /// Id of the server; absent where the client may not know it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip: Option<String>,
    /// Name the host has for itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// DNS name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_dns_name: Option<String>,
    /// Port, as text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<String>,
    /// Every address, port and protocol.
    pub endpoints: Vec<Endpoint>,
    /// Path of the web client.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub web_url_path: Option<String>,
    /// Version of the desktop server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Version of the agent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_manager_agent_version: Option<String>,
    /// `AVAILABLE` or `UNAVAILABLE`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub availability: Option<String>,
    /// Why it is unavailable.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unavailability_reason: Option<String>,
    /// Console sessions on the host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub console_session_count: Option<i32>,
    /// Virtual sessions on the host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub virtual_session_count: Option<i32>,
    /// Facts of the host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<Host>,
    /// Tags.
    pub tags: Vec<KeyValuePair>,
}

/// An address clients can reach a server by.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct Endpoint {
    /// Address.
    pub ip_address: String,
    /// Port.
    #[schemars(schema_with = "super::integer")]
    pub port: i32,
    /// Path of the web client; absent for `QUIC`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub web_url_path: Option<String>,
    /// `HTTP` or `QUIC`.
    pub protocol: String,
}

/// Facts of a host.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct Host {
    /// Operating system.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub os: Option<Os>,
    /// Main memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<Memory>,
    /// Swap space.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub swap: Option<Swap>,
    /// EC2 facts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aws: Option<Aws>,
    /// Processors.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_info: Option<CpuInfo>,
    /// Load averages.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_load_average: Option<CpuLoadAverage>,
    /// Graphics cards.
    pub gpus: Vec<Gpu>,
    /// Accounts that are logged in.
    pub logged_in_users: Vec<LoggedInUser>,
}

/// Operating system of a host.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct Os {
    /// `linux`, `windows` or `macos`.
    pub family: String,
    /// Name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Kernel release; Linux only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kernel_version: Option<String>,
    /// Build number; Windows only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub build_number: Option<String>,
}

/// Main memory.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct Memory {
    /// All there is, in bytes.
    pub total_bytes: i64,
    /// What is in use, in bytes.
    pub used_bytes: i64,
}

/// Swap space.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct Swap {
    /// All there is, in bytes.
    pub total_bytes: i64,
    /// What is in use, in bytes.
    pub used_bytes: i64,
}

/// Processors.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct CpuInfo {
    /// Vendor.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vendor: Option<String>,
    /// Model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model_name: Option<String>,
    /// Architecture.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub architecture: Option<String>,
    /// Number of processors.
    #[schemars(schema_with = "super::integer")]
    pub number_of_cpus: i32,
    /// Physical cores of each.
    #[schemars(schema_with = "super::integer")]
    pub physical_cores_per_cpu: i32,
}

/// Load averages.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct CpuLoadAverage {
    /// Over one minute.
    pub one_minute: f32,
    /// Over five minutes.
    pub five_minutes: f32,
    /// Over fifteen minutes.
    pub fifteen_minutes: f32,
}

/// A graphics card.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct Gpu {
    /// Vendor.
    pub vendor: String,
    /// Model.
    pub model_name: String,
}

/// An account that is logged in.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct LoggedInUser {
    /// Its name.
    pub username: String,
}

/// EC2 facts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct Aws {
    /// Region.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// Instance type.
    #[serde(rename = "EC2InstanceType", skip_serializing_if = "Option::is_none")]
    pub ec2_instance_type: Option<String>,
    /// Instance id.
    #[serde(rename = "EC2InstanceId", skip_serializing_if = "Option::is_none")]
    pub ec2_instance_id: Option<String>,
    /// Image id.
    #[serde(rename = "EC2ImageId", skip_serializing_if = "Option::is_none")]
    pub ec2_image_id: Option<String>,
}

/// Which servers to describe. Everything may be absent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct DescribeServersRequestData {
    /// Only these; none: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_ids: Option<Vec<String>>,
    /// Most servers in the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "super::integer")]
    pub max_results: Option<i64>,
    /// From the answer before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_token: Option<String>,
}

/// A page of servers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct DescribeServersResponse {
    /// Id of the call.
    pub request_id: String,
    /// The servers.
    pub servers: Vec<Server>,
    /// Where the next page starts; absent at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_token: Option<String>,
}
