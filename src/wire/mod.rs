//! The wire types of Session Manager's REST API, version 2023.0.
//!
//! Names, types and order of the properties are those of the published API file; nothing is added, because generated
//! clients refuse what the file does not name. No rule about values is here: see `broker`.
//!
//! Answers borrow from the objects they describe: a page has a thousand of them.
//!
//! What is not known is left out, never `null`; lists of answers are there when empty. Requests take `null` for absent,
//! ignore unknown properties and accept the spellings that the guide and its clients use beside the file's.

mod create;
mod permissions;
mod placement;
mod screenshot;
mod server;
mod session;
#[cfg(test)]
mod tests;

use schemars::Schema;
use schemars::SchemaGenerator;
use schemars::json_schema;

pub use create::CreateSessionRequestData;
pub use create::CreateSessionsResponse;
pub use create::UnsuccessfulCreateSessionRequestData;
pub use permissions::UpdateSessionPermissionsRequestData;
pub use permissions::UpdateSessionPermissionsResponse;
pub use permissions::UpdateSessionPermissionsSuccessfulResponse;
pub use permissions::UpdateSessionPermissionsUnsuccessfulResponse;
pub use placement::CloseServerRequestData;
pub use placement::CloseServerSuccessfulResponse;
pub use placement::CloseServerUnsuccessfulResponse;
pub use placement::CloseServersResponse;
pub use placement::OpenServerRequestData;
pub use placement::OpenServerSuccessfulResponse;
pub use placement::OpenServerUnsuccessfulResponse;
pub use placement::OpenServersResponse;
pub use screenshot::GetSessionScreenshotRequestData;
pub use screenshot::GetSessionScreenshotSuccessfulResponse;
pub use screenshot::GetSessionScreenshotUnsuccessfulResponse;
pub use screenshot::GetSessionScreenshotsResponse;
pub use screenshot::SessionScreenshot;
pub use screenshot::SessionScreenshotImage;
pub use server::Aws;
pub use server::CpuInfo;
pub use server::CpuLoadAverage;
pub use server::DescribeServersRequestData;
pub use server::DescribeServersResponse;
pub use server::Endpoint;
pub use server::Gpu;
pub use server::Host;
pub use server::KeyValuePair;
pub use server::LoggedInUser;
pub use server::Memory;
pub use server::Os;
pub use server::Server;
pub use server::Swap;
pub use session::DeleteSessionRequestData;
pub use session::DeleteSessionSuccessfulResponse;
pub use session::DeleteSessionUnsuccessfulResponse;
pub use session::DeleteSessionsResponse;
pub use session::DescribeSessionsRequestData;
pub use session::DescribeSessionsResponse;
pub use session::GetSessionConnectionDataResponse;
pub use session::Session;

/// The API file, from which clients are generated.
pub const API_FILE: &str = include_str!("dcv-session-manager-api.yaml");

/// Answer of the token endpoint, and not of the API file: RFC 6749, section 5.1.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct TokenResponse {
    /// The token.
    pub access_token: String,
    /// `Bearer`.
    pub token_type: String,
    /// Seconds it lives.
    pub expires_in: i64,
}

/// Body of every answer that is not 200, as the guide shows it.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct ErrorResponse {
    /// What is wrong.
    pub error: String,
}

/// An integer to which the API file gives no format.
fn integer(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "integer"})
}

/// A time as RFC 3339 text.
fn date_time(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "format": "date-time"})
}

/// Times as the guide shows them: UTC, with milliseconds.
mod time {
    use jiff::Timestamp;
    use serde::Deserialize;
    use serde::Deserializer;
    use serde::Serializer;

    #[expect(clippy::ref_option, reason = "serde calls it so")]
    pub(super) fn serialize<S: Serializer>(time: &Option<Timestamp>, serializer: S) -> Result<S::Ok, S::Error> {
        match time {
            Some(time) => serializer.collect_str(&format_args!("{time:.3}")),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Timestamp>, D::Error> {
        Option::deserialize(deserializer)
    }
}
