//! Servers and what is said of their hosts.

use std::borrow::Cow;

use schemars::JsonSchema;
use serde::Deserialize;
use serde::Serialize;

/// A key and its value: a tag, or a filter.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct KeyValuePair<'a> {
    /// The key.
    pub key: Cow<'a, str>,
    /// The value.
    pub value: Cow<'a, str>,
}

/// A host that runs sessions.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct Server<'a> {
    /// Id of the server; absent where the client may not know it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<Cow<'a, str>>,
    /// Address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip: Option<Cow<'a, str>>,
    /// Name the host has for itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<Cow<'a, str>>,
    /// DNS name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_dns_name: Option<Cow<'a, str>>,
    /// Port, as text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<Cow<'a, str>>,
    /// Every address, port and protocol.
    pub endpoints: Vec<Endpoint<'a>>,
    /// Path of the web client.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub web_url_path: Option<Cow<'a, str>>,
    /// Version of the desktop server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<Cow<'a, str>>,
    /// Version of the agent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_manager_agent_version: Option<Cow<'a, str>>,
    /// `AVAILABLE` or `UNAVAILABLE`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub availability: Option<Cow<'a, str>>,
    /// Why it is unavailable.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unavailability_reason: Option<Cow<'a, str>>,
    /// Console sessions on the host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub console_session_count: Option<i32>,
    /// Virtual sessions on the host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub virtual_session_count: Option<i32>,
    /// Facts of the host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<Host<'a>>,
    /// Tags.
    pub tags: Vec<KeyValuePair<'a>>,
}

/// An address clients can reach a server by.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct Endpoint<'a> {
    /// Address.
    pub ip_address: Cow<'a, str>,
    /// Port.
    #[schemars(schema_with = "super::integer")]
    pub port: i32,
    /// Path of the web client; absent for `QUIC`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub web_url_path: Option<Cow<'a, str>>,
    /// `HTTP` or `QUIC`.
    pub protocol: Cow<'a, str>,
}

/// Facts of a host.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct Host<'a> {
    /// Operating system.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub os: Option<Os<'a>>,
    /// Main memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<Memory>,
    /// Swap space.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub swap: Option<Swap>,
    /// EC2 facts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aws: Option<Aws<'a>>,
    /// Processors.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_info: Option<CpuInfo<'a>>,
    /// Load averages.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_load_average: Option<CpuLoadAverage>,
    /// Graphics cards.
    pub gpus: Vec<Gpu<'a>>,
    /// Accounts that are logged in.
    pub logged_in_users: Vec<LoggedInUser<'a>>,
}

/// Operating system of a host.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct Os<'a> {
    /// `linux`, `windows` or `macos`.
    pub family: Cow<'a, str>,
    /// Name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<Cow<'a, str>>,
    /// Version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<Cow<'a, str>>,
    /// Kernel release; Linux only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kernel_version: Option<Cow<'a, str>>,
    /// Build number; Windows only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub build_number: Option<Cow<'a, str>>,
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
pub struct CpuInfo<'a> {
    /// Vendor.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vendor: Option<Cow<'a, str>>,
    /// Model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model_name: Option<Cow<'a, str>>,
    /// Architecture.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub architecture: Option<Cow<'a, str>>,
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
pub struct Gpu<'a> {
    /// Vendor.
    pub vendor: Cow<'a, str>,
    /// Model.
    pub model_name: Cow<'a, str>,
}

/// An account that is logged in.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct LoggedInUser<'a> {
    /// Its name.
    pub username: Cow<'a, str>,
}

/// EC2 facts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct Aws<'a> {
    /// Region.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region: Option<Cow<'a, str>>,
    /// Instance type.
    #[serde(rename = "EC2InstanceType", skip_serializing_if = "Option::is_none")]
    pub ec2_instance_type: Option<Cow<'a, str>>,
    /// Instance id.
    #[serde(rename = "EC2InstanceId", skip_serializing_if = "Option::is_none")]
    pub ec2_instance_id: Option<Cow<'a, str>>,
    /// Image id.
    #[serde(rename = "EC2ImageId", skip_serializing_if = "Option::is_none")]
    pub ec2_image_id: Option<Cow<'a, str>>,
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
pub struct DescribeServersResponse<'a> {
    /// Id of the call.
    pub request_id: String,
    /// The servers.
    pub servers: Vec<Server<'a>>,
    /// Where the next page starts; absent at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_token: Option<String>,
}
