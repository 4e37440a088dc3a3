//! Creating sessions.

use schemars::JsonSchema;
use serde::Deserialize;
use serde::Deserializer;
use serde::Serialize;

use super::session::Session;

/// A session to create. Serializes to exactly what was sent, in the API file's spelling.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct CreateSessionRequestData {
    /// Name for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Account it belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// `CONSOLE` or `VIRTUAL`.
    #[serde(rename = "Type", skip_serializing_if = "Option::is_none")]
    pub type_: Option<String>,
    /// Whether OpenGL runs on the host's GPU.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dcv_gl_enabled: Option<bool>,
    /// Most clients at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_concurrent_clients: Option<i64>,
    /// Deprecated: `InitFile`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub init_file_path: Option<String>,
    /// Program that starts the desktop.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub init_file: Option<String>,
    /// Program started inside the session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub autorun_file: Option<String>,
    /// Its arguments.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub autorun_file_arguments: Option<Vec<String>>,
    /// Base64 of the permissions file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub permissions_file: Option<String>,
    /// Expression the server must meet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requirements: Option<String>,
    /// Whether to wait when no server fits now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enqueue_request: Option<bool>,
    /// Whether a failure on a host is final.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disable_retry_on_failure: Option<bool>,
    /// Folder for file storage.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage_root: Option<String>,
}

/// A request as clients spell it. Not aliases of serde: those refuse a request that has both spellings.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Sent {
    name: Option<String>,
    owner: Option<String>,
    #[serde(rename = "Type")]
    type_: Option<String>,
    dcv_gl_enabled: Option<bool>,
    #[serde(rename = "DcvGLEnabled")]
    dcv_gl_enabled_alias: Option<bool>,
    max_concurrent_clients: Option<i64>,
    #[serde(rename = "MaxConcurrents")]
    max_concurrent_clients_alias: Option<i64>,
    init_file_path: Option<String>,
    init_file: Option<String>,
    autorun_file: Option<String>,
    autorun_file_arguments: Option<Vec<String>>,
    permissions_file: Option<String>,
    #[serde(rename = "PermissionFile")]
    permissions_file_alias: Option<String>,
    requirements: Option<String>,
    enqueue_request: Option<bool>,
    disable_retry_on_failure: Option<bool>,
    storage_root: Option<String>,
}

// By hand: with `#[serde(from)]` the schema would be that of `Sent`.
impl<'de> Deserialize<'de> for CreateSessionRequestData {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Sent::deserialize(deserializer).map(Self::from)
    }
}

impl From<Sent> for CreateSessionRequestData {
    fn from(sent: Sent) -> Self {
        Self {
            name: sent.name,
            owner: sent.owner,
            type_: sent.type_,
            dcv_gl_enabled: sent.dcv_gl_enabled.or(sent.dcv_gl_enabled_alias),
            max_concurrent_clients: sent.max_concurrent_clients.or(sent.max_concurrent_clients_alias),
            init_file_path: sent.init_file_path,
            init_file: sent.init_file,
            autorun_file: sent.autorun_file,
            autorun_file_arguments: sent.autorun_file_arguments,
            permissions_file: sent.permissions_file.or(sent.permissions_file_alias),
            requirements: sent.requirements,
            enqueue_request: sent.enqueue_request,
            disable_retry_on_failure: sent.disable_retry_on_failure,
            storage_root: sent.storage_root,
        }
    }
}

/// A request that failed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct UnsuccessfulCreateSessionRequestData {
    /// The request.
    pub create_session_request_data: CreateSessionRequestData,
    /// Why it failed.
    pub failure_reason: String,
}

/// What became of each request.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct CreateSessionsResponse<'a> {
    /// Id of the call.
    pub request_id: String,
    /// Sessions that were accepted.
    pub successful_list: Vec<Session<'a>>,
    /// Requests that failed.
    pub unsuccessful_list: Vec<UnsuccessfulCreateSessionRequestData>,
}

#[cfg(test)]
mod tests {
    use serde_json::Value;
    use serde_json::json;

    use super::*;

    fn echo(sent: Value) -> Value {
        serde_json::to_value(serde_json::from_value::<CreateSessionRequestData>(sent).unwrap()).unwrap()
    }

    #[test]
    fn a_request_is_echoed_as_sent_in_the_files_spelling() {
        for (sent, echoed) in [
            (json!({}), json!({})),
            (json!({"Name": null, "Unknown": [1]}), json!({})),
            (json!({"EnqueueRequest": false}), json!({"EnqueueRequest": false})),
            (json!({"AutorunFileArguments": []}), json!({"AutorunFileArguments": []})),
            (
                json!({"MaxConcurrents": 3, "DcvGLEnabled": true, "PermissionFile": "YQ==", "InitFilePath": "/a"}),
                json!({"MaxConcurrentClients": 3, "DcvGlEnabled": true, "PermissionsFile": "YQ==", "InitFilePath": "/a"}),
            ),
            (json!({"MaxConcurrents": 3, "MaxConcurrentClients": 4}), json!({"MaxConcurrentClients": 4})),
            (json!({"DcvGLEnabled": true, "DcvGlEnabled": false}), json!({"DcvGlEnabled": false})),
            (json!({"PermissionFile": "a", "PermissionsFile": null}), json!({"PermissionsFile": "a"})),
        ] {
            assert_eq!(echo(sent.clone()), echoed, "of {sent}");
        }
    }

    #[test]
    fn a_wrong_type_is_no_request() {
        for sent in [json!({"Name": 1}), json!({"AutorunFileArguments": [null]}), json!({"MaxConcurrentClients": "3"})]
        {
            assert!(serde_json::from_value::<CreateSessionRequestData>(sent.clone()).is_err(), "{sent}");
        }
    }
}
