//! Pictures of sessions' screens.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::Deserialize;
use serde::Serialize;

/// A session to take a picture of. Serializes to what was sent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct GetSessionScreenshotRequestData {
    /// Its id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_id: Option<String>,
    /// Most pixels in width.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_width: Option<i64>,
    /// Most pixels in height.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_height: Option<i64>,
}

/// One picture.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct SessionScreenshotImage {
    /// `png` or `jpeg`.
    pub format: String,
    /// Base64 of the image.
    pub data: String,
    /// When it was taken.
    #[serde(with = "super::time", skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "super::date_time")]
    pub creation_time: Option<Timestamp>,
    /// Whether it is of the session's first screen: exactly one is.
    pub primary: bool,
}

/// The pictures of one session.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct SessionScreenshot {
    /// Id of the session.
    pub session_id: String,
    /// Its pictures.
    pub images: Vec<SessionScreenshotImage>,
}

/// A request that was done.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct GetSessionScreenshotSuccessfulResponse {
    /// What was taken.
    pub session_screenshot: SessionScreenshot,
}

/// A request that failed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct GetSessionScreenshotUnsuccessfulResponse {
    /// The request.
    pub get_session_screenshot_request_data: GetSessionScreenshotRequestData,
    /// Why it failed.
    pub failure_reason: String,
}

/// What became of each request.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct GetSessionScreenshotsResponse {
    /// Id of the call.
    pub request_id: String,
    /// Those that were done.
    pub successful_list: Vec<GetSessionScreenshotSuccessfulResponse>,
    /// Those that failed.
    pub unsuccessful_list: Vec<GetSessionScreenshotUnsuccessfulResponse>,
}
