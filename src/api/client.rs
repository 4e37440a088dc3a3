//! The `ApiClient` kind: a client of the REST API.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::CustomResource;
use kube::KubeSchema;
use kube::ResourceExt;
use serde::Deserialize;
use serde::Serialize;

use super::schema;

/// A client of the REST API. Its namespace is its tenant: the sessions it makes live there, and it sees no others.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "dcv-operator.io",
    version = "v1alpha1",
    kind = "ApiClient",
    plural = "apiclients",
    shortname = "dcvclient",
    category = "dcv",
    namespaced,
    status = "ApiClientStatus",
    derive = "PartialEq",
    doc = "A client of the REST API. Its namespace is its tenant: it makes sessions there and sees no others.",
    printcolumn(name = "Client-Id", type_ = "string", json_path = ".status.clientId"),
    printcolumn(name = "Display-Name", type_ = "string", json_path = ".spec.displayName"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Suspended", type_ = "boolean", json_path = ".spec.suspended", priority = 1),
    printcolumn(name = "All-Namespaces", type_ = "boolean", json_path = ".spec.allNamespaces", priority = 1),
    printcolumn(name = "Manage-Servers", type_ = "boolean", json_path = ".spec.manageServers", priority = 1)
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.clientId) == has(oldSelf.clientId)").message("clientId is immutable")
)]
pub struct ApiClientSpec {
    /// Name shown to people. At most 256 characters. Absent: the object's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub display_name: Option<String>,
    /// Id the client logs in with: 1 to 128 letters, digits, `.`, `_` or `-`. Absent: the object's uid. Immutable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128), regex(pattern = r"^[A-Za-z0-9._-]+$"))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("clientId is immutable"))]
    pub client_id: Option<String>,
    /// Passwords that are accepted, as hashes. At most 4, so that an old and a new one can overlap. None: nobody can log
    /// in.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4))]
    #[x_kube(merge_strategy = kube::core::ListMerge::Map(vec!["hash".into()]))]
    pub credentials: Vec<Credential>,
    /// Whether the client is shut out, tokens already issued included. Default false.
    #[serde(default)]
    pub suspended: bool,
    /// Seconds its access tokens live, 60 to 86400. Absent: as the broker is set, 3600 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 60, max = 86_400))]
    pub token_lifetime_seconds: Option<i32>,
    /// Whether the client sees and changes sessions of every namespace. Setting it takes the verb `all-namespaces` on
    /// `apiclients`. Default false.
    #[serde(default)]
    pub all_namespaces: bool,
    /// Whether the client may open and close servers. Setting it takes the verb `manage-servers` on `apiclients`.
    /// Default false.
    #[serde(default)]
    pub manage_servers: bool,
}

/// The hash of one password.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Credential {
    /// `sha256:` and the SHA-256 of the password in lower-case hexadecimal. The password must be random, at least 128
    /// bits: the hash is not salted.
    #[schemars(length(max = 71), regex(pattern = r"^sha256:[0-9a-f]{64}$"))]
    pub hash: String,
    /// The password is refused from this time on. Absent: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub expire_time: Option<Time>,
}

/// Whether the client is accepted. Written by the controller.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("default" = schema::client_status_default()))]
pub struct ApiClientStatus {
    /// Id the client logs in with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub client_id: Option<String>,
    /// Ready; Reconciling and Stalled while they are true.
    #[serde(default)]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
    /// The `metadata.generation` this status was computed from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub observed_generation: Option<i64>,
}

impl ApiClient {
    /// Id the client logs in with: `spec.clientId`, else the uid.
    pub fn client_id(&self) -> String {
        self.spec.client_id.clone().or_else(|| self.uid()).unwrap_or_default()
    }
}
