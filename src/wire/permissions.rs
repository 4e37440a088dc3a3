//! Changing who may do what in sessions.

use schemars::JsonSchema;
use serde::Deserialize;
use serde::Deserializer;
use serde::Serialize;

/// The permissions a session is to have. Serializes to exactly what was sent, in the API file's spelling.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct UpdateSessionPermissionsRequestData {
    /// Id of the session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_id: Option<String>,
    /// Its owner.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// Base64 of the permissions file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub permissions_file: Option<String>,
}

/// A request as clients spell it. Not an alias of serde: that refuses a request that has both spellings.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Sent {
    session_id: Option<String>,
    owner: Option<String>,
    permissions_file: Option<String>,
    #[serde(rename = "PermissionFile")]
    permissions_file_alias: Option<String>,
}

// By hand: with `#[serde(from)]` the schema would be that of `Sent`.
impl<'de> Deserialize<'de> for UpdateSessionPermissionsRequestData {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let sent = Sent::deserialize(deserializer)?;
        Ok(Self {
            session_id: sent.session_id,
            owner: sent.owner,
            permissions_file: sent.permissions_file.or(sent.permissions_file_alias),
        })
    }
}

/// A session whose permissions are changed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct UpdateSessionPermissionsSuccessfulResponse {
    /// Its id.
    pub session_id: String,
}

/// A session whose permissions stay.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct UpdateSessionPermissionsUnsuccessfulResponse {
    /// The id that was given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_id: Option<String>,
    /// Why they stay.
    pub failure_reason: String,
}

/// What became of each request.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct UpdateSessionPermissionsResponse {
    /// Id of the call.
    pub request_id: String,
    /// Sessions whose permissions are changed.
    pub successful_list: Vec<UpdateSessionPermissionsSuccessfulResponse>,
    /// Requests that failed.
    pub unsuccessful_list: Vec<UpdateSessionPermissionsUnsuccessfulResponse>,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_files_spelling_wins_over_the_guides() {
        for (sent, read) in [
            (json!({"PermissionFile": "a"}), Some("a")),
            (json!({"PermissionFile": "a", "PermissionsFile": "b"}), Some("b")),
            (json!({"PermissionFile": "a", "PermissionsFile": null}), Some("a")),
            (json!({"SessionId": null, "Owner": null, "Unknown": [1]}), None),
        ] {
            let request: UpdateSessionPermissionsRequestData = serde_json::from_value(sent.clone()).unwrap();
            assert_eq!(request.permissions_file.as_deref(), read, "of {sent}");
        }
    }
}
