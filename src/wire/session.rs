//! Sessions: describing, deleting and connecting to them.

use std::borrow::Cow;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::Deserialize;
use serde::Serialize;

use super::server::KeyValuePair;
use super::server::Server;

/// A remote desktop.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct Session<'a> {
    /// Id of the session, also on its host; absent while there is none.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub id: Cow<'a, str>,
    /// Name for people.
    pub name: Cow<'a, str>,
    /// Account it belongs to.
    pub owner: Cow<'a, str>,
    /// `CONSOLE` or `VIRTUAL`.
    #[serde(rename = "Type")]
    pub type_: Cow<'a, str>,
    /// Most clients at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_concurrent_clients: Option<i64>,
    /// `CREATING`, `READY`, `DELETING`, `DELETED` or `UNKNOWN`.
    pub state: Cow<'a, str>,
    /// `SESSION_PLACING` or `PENDING_PREPARATION`, while `CREATING`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub substate: Option<Cow<'a, str>>,
    /// Why it is in this state.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state_reason: Option<Cow<'a, str>>,
    /// When it was asked for.
    #[serde(with = "super::time", skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "super::date_time")]
    pub creation_time: Option<Timestamp>,
    /// When a client left last; absent when none has.
    #[serde(with = "super::time", skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "super::date_time")]
    pub last_disconnection_time: Option<Timestamp>,
    /// Clients connected now.
    pub num_of_connections: i64,
    /// Folder for file storage.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage_root: Option<Cow<'a, str>>,
    /// Where it runs; absent until placed. Last, so that lists can add it to what is written of the rest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<Server<'a>>,
}

/// Which sessions to describe. Everything may be absent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct DescribeSessionsRequestData {
    /// Only these; none: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_ids: Option<Vec<String>>,
    /// Only those that meet all of these.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filters: Option<Vec<KeyValuePair<'static>>>,
    /// Most sessions in the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "super::integer")]
    pub max_results: Option<i64>,
    /// From the answer before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_token: Option<String>,
}

/// A page of sessions.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct DescribeSessionsResponse<'a> {
    /// Id of the call.
    pub request_id: String,
    /// The sessions.
    pub sessions: Vec<Session<'a>>,
    /// Where the next page starts; absent at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_token: Option<String>,
}

/// A session to delete.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct DeleteSessionRequestData {
    /// Its id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_id: Option<String>,
    /// Its owner.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// Whether its record ends even if its host cannot be reached.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub force: Option<bool>,
}

/// A session that is being deleted.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct DeleteSessionSuccessfulResponse {
    /// Its id.
    pub session_id: String,
    /// `DELETING`.
    pub state: String,
}

/// A session that is not deleted.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct DeleteSessionUnsuccessfulResponse {
    /// The id that was given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_id: Option<String>,
    /// Why not.
    pub failure_reason: String,
}

/// What became of each session to delete.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct DeleteSessionsResponse {
    /// Id of the call.
    pub request_id: String,
    /// Those that are being deleted.
    pub successful_list: Vec<DeleteSessionSuccessfulResponse>,
    /// Those that are not.
    pub unsuccessful_list: Vec<DeleteSessionUnsuccessfulResponse>,
}

/// What a person needs to connect.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct GetSessionConnectionDataResponse<'a> {
    /// The session.
    pub session: Session<'a>,
    /// Token that lets the person in.
    pub connection_token: String,
}
