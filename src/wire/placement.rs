//! Opening and closing servers.

use schemars::JsonSchema;
use serde::Deserialize;
use serde::Serialize;

/// A server to open. Serializes to exactly what was sent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct OpenServerRequestData {
    /// Its id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_id: Option<String>,
}

/// A server that is open.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct OpenServerSuccessfulResponse {
    /// Its id.
    pub server_id: String,
}

/// A server that is not opened.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct OpenServerUnsuccessfulResponse {
    /// The request.
    pub open_server_request_data: OpenServerRequestData,
    /// Why not, in a word.
    pub failure_code: String,
    /// Why not.
    pub failure_reason: String,
}

/// What became of each server to open.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct OpenServersResponse {
    /// Id of the call.
    pub request_id: String,
    /// Those that are open.
    pub successful_list: Vec<OpenServerSuccessfulResponse>,
    /// Those that are not opened.
    pub unsuccessful_list: Vec<OpenServerUnsuccessfulResponse>,
}

/// A server to close. Serializes to exactly what was sent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct CloseServerRequestData {
    /// Its id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_id: Option<String>,
    /// Whether it is closed although sessions run on it; they go on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub force: Option<bool>,
}

/// A server that is closed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct CloseServerSuccessfulResponse {
    /// Its id.
    pub server_id: String,
}

/// A server that is not closed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct CloseServerUnsuccessfulResponse {
    /// The request.
    pub close_server_request_data: CloseServerRequestData,
    /// Why not, in a word.
    pub failure_code: String,
    /// Why not.
    pub failure_reason: String,
}

/// What became of each server to close.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct CloseServersResponse {
    /// Id of the call.
    pub request_id: String,
    /// Those that are closed.
    pub successful_list: Vec<CloseServerSuccessfulResponse>,
    /// Those that are not.
    pub unsuccessful_list: Vec<CloseServerUnsuccessfulResponse>,
}
