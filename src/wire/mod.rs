//! The wire types of Session Manager's REST API, version 2023.0.
//!
//! Names, types and order of the properties are those of the published API file; nothing is added, because generated
//! clients refuse what the file does not name. No rule about values is here: see `broker`.
//!
//! What is not known is left out, never `null`; lists of answers are there when empty. Requests take `null` for absent,
//! ignore unknown properties and accept the spellings that the guide and its clients use beside the file's.

mod create;
mod permissions;
mod placement;
mod screenshot;
mod server;
mod session;

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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use schemars::JsonSchema;
    use schemars::SchemaGenerator;
    use schemars::generate::SchemaSettings;
    use serde_json::Value;
    use serde_json::json;

    use super::*;

    /// The API file's schemas that the types here stand for: name, then properties in the order of the file. A name
    /// alone is a string; `int64` and the like are formats; `-> X` refers, `[X]` is a list, of strings when empty.
    const API_FILE: &str = "
        KeyValuePair: Key, Value
        Server: Id, Ip, Hostname, DefaultDnsName, Port, Endpoints [Endpoint], WebUrlPath, Version, \
            SessionManagerAgentVersion, Availability, UnavailabilityReason, ConsoleSessionCount int32, \
            VirtualSessionCount int32, Host -> Host, Tags [KeyValuePair]
        Endpoint: IpAddress, Port integer, WebUrlPath, Protocol
        Host: Os -> Os, Memory -> Memory, Swap -> Swap, Aws -> Aws, CpuInfo -> CpuInfo, \
            CpuLoadAverage -> CpuLoadAverage, Gpus [Gpu], LoggedInUsers [LoggedInUser]
        Os: Family, Name, Version, KernelVersion, BuildNumber
        Memory: TotalBytes int64, UsedBytes int64
        Swap: TotalBytes int64, UsedBytes int64
        CpuInfo: Vendor, ModelName, Architecture, NumberOfCpus integer, PhysicalCoresPerCpu integer
        CpuLoadAverage: OneMinute float, FiveMinutes float, FifteenMinutes float
        Gpu: Vendor, ModelName
        LoggedInUser: Username
        Aws: Region, EC2InstanceType, EC2InstanceId, EC2ImageId
        Session: Id, Name, Owner, Server -> Server, Type, MaxConcurrentClients int64, State, Substate, StateReason, \
            CreationTime date-time, LastDisconnectionTime date-time, NumOfConnections int64, StorageRoot
        DescribeSessionsRequestData: SessionIds [], Filters [KeyValuePair], MaxResults integer, NextToken
        DescribeSessionsResponse: RequestId, Sessions [Session], NextToken
        DescribeServersRequestData: ServerIds [], MaxResults integer, NextToken
        DescribeServersResponse: RequestId, Servers [Server], NextToken
        CreateSessionRequestData: Name, Owner, Type, DcvGlEnabled boolean, MaxConcurrentClients int64, InitFilePath, \
            InitFile, AutorunFile, AutorunFileArguments [], PermissionsFile, Requirements, EnqueueRequest boolean, \
            DisableRetryOnFailure boolean, StorageRoot
        UnsuccessfulCreateSessionRequestData: CreateSessionRequestData -> CreateSessionRequestData, FailureReason
        CreateSessionsResponse: RequestId, SuccessfulList [Session], \
            UnsuccessfulList [UnsuccessfulCreateSessionRequestData]
        DeleteSessionSuccessfulResponse: SessionId, State
        DeleteSessionUnsuccessfulResponse: SessionId, FailureReason
        DeleteSessionsResponse: RequestId, SuccessfulList [DeleteSessionSuccessfulResponse], \
            UnsuccessfulList [DeleteSessionUnsuccessfulResponse]
        DeleteSessionRequestData: SessionId, Owner, Force boolean
        UpdateSessionPermissionsRequestData: SessionId, Owner, PermissionsFile
        UpdateSessionPermissionsSuccessfulResponse: SessionId
        UpdateSessionPermissionsUnsuccessfulResponse: SessionId, FailureReason
        UpdateSessionPermissionsResponse: RequestId, SuccessfulList [UpdateSessionPermissionsSuccessfulResponse], \
            UnsuccessfulList [UpdateSessionPermissionsUnsuccessfulResponse]
        OpenServerRequestData: ServerId
        OpenServerSuccessfulResponse: ServerId
        OpenServerUnsuccessfulResponse: OpenServerRequestData -> OpenServerRequestData, FailureCode, FailureReason
        OpenServersResponse: RequestId, SuccessfulList [OpenServerSuccessfulResponse], \
            UnsuccessfulList [OpenServerUnsuccessfulResponse]
        CloseServerRequestData: ServerId, Force boolean
        CloseServerSuccessfulResponse: ServerId
        CloseServerUnsuccessfulResponse: CloseServerRequestData -> CloseServerRequestData, FailureCode, FailureReason
        CloseServersResponse: RequestId, SuccessfulList [CloseServerSuccessfulResponse], \
            UnsuccessfulList [CloseServerUnsuccessfulResponse]
        GetSessionScreenshotRequestData: SessionId, MaxWidth int64, MaxHeight int64
        GetSessionScreenshotsResponse: RequestId, SuccessfulList [GetSessionScreenshotSuccessfulResponse], \
            UnsuccessfulList [GetSessionScreenshotUnsuccessfulResponse]
        GetSessionScreenshotSuccessfulResponse: SessionScreenshot -> SessionScreenshot
        SessionScreenshot: SessionId, Images [SessionScreenshotImage]
        SessionScreenshotImage: Format, Data, CreationTime date-time, Primary boolean
        GetSessionScreenshotUnsuccessfulResponse: \
            GetSessionScreenshotRequestData -> GetSessionScreenshotRequestData, FailureReason
        GetSessionConnectionDataResponse: Session -> Session, ConnectionToken";

    fn documented() -> BTreeMap<String, Vec<(String, Value)>> {
        let reference = |name: &str| json!({"$ref": format!("#/components/schemas/{name}")});
        let property = |text: &str| {
            let (name, rest) = text.trim().split_once(' ').unwrap_or((text.trim(), ""));
            let schema = match rest.trim() {
                "" => json!({"type": "string"}),
                "boolean" | "integer" => json!({"type": rest}),
                "int32" | "int64" => json!({"type": "integer", "format": rest}),
                "float" => json!({"type": "number", "format": "float"}),
                "date-time" => json!({"type": "string", "format": "date-time"}),
                "[]" => json!({"type": "array", "items": {"type": "string"}}),
                list if list.starts_with('[') => {
                    json!({"type": "array", "items": reference(list.trim_matches(['[', ']']))})
                }
                target => reference(target.strip_prefix("-> ").unwrap()),
            };
            (name.to_owned(), schema)
        };
        API_FILE
            .lines()
            .filter_map(|line| line.split_once(':'))
            .map(|(name, properties)| (name.trim().to_owned(), properties.split(',').map(property).collect()))
            .collect()
    }

    /// What the file does not say is no part of the comparison: descriptions, defaults, nullability, bounds.
    fn bare(schema: &Value) -> Value {
        if let Some(target) = schema.get("$ref") {
            return json!({"$ref": target});
        }
        if let Some(parts) = schema.get("anyOf").or(schema.get("allOf")).and_then(Value::as_array) {
            return bare(&parts[0]);
        }
        let mut bare_schema = serde_json::Map::new();
        for key in ["type", "format"] {
            if let Some(value) = schema.get(key) {
                bare_schema.insert(key.to_owned(), value.clone());
            }
        }
        if let Some(items) = schema.get("items") {
            bare_schema.insert("items".to_owned(), bare(items));
        }
        Value::Object(bare_schema)
    }

    fn add<T: JsonSchema>(generator: &mut SchemaGenerator) {
        generator.subschema_for::<T>();
    }

    #[test]
    fn wire_types_are_those_of_the_api_file() {
        let mut generator = SchemaSettings::openapi3().into_generator();
        add::<DescribeSessionsRequestData>(&mut generator);
        add::<DescribeSessionsResponse>(&mut generator);
        add::<DescribeServersRequestData>(&mut generator);
        add::<DescribeServersResponse>(&mut generator);
        add::<CreateSessionRequestData>(&mut generator);
        add::<CreateSessionsResponse>(&mut generator);
        add::<DeleteSessionRequestData>(&mut generator);
        add::<DeleteSessionsResponse>(&mut generator);
        add::<UpdateSessionPermissionsRequestData>(&mut generator);
        add::<UpdateSessionPermissionsResponse>(&mut generator);
        add::<OpenServerRequestData>(&mut generator);
        add::<OpenServersResponse>(&mut generator);
        add::<CloseServerRequestData>(&mut generator);
        add::<CloseServersResponse>(&mut generator);
        add::<GetSessionScreenshotRequestData>(&mut generator);
        add::<GetSessionScreenshotsResponse>(&mut generator);
        add::<GetSessionConnectionDataResponse>(&mut generator);
        let ours: BTreeMap<_, _> = generator
            .take_definitions(true)
            .iter()
            .map(|(name, schema)| {
                assert_eq!(schema["type"], "object", "{name}");
                let properties = schema["properties"].as_object().unwrap();
                let mut listed: Vec<_> = properties.iter().map(|(key, value)| (key.clone(), bare(value))).collect();
                listed.sort_by(|a, b| a.0.cmp(&b.0));
                (name.clone(), listed)
            })
            .collect();
        let mut documented = documented();
        for properties in documented.values_mut() {
            properties.sort_by(|a, b| a.0.cmp(&b.0));
        }
        assert_eq!(ours, documented);
    }

    #[test]
    fn an_empty_answer_has_its_lists_and_numbers_and_nothing_else() {
        assert_eq!(
            serde_json::to_value(DescribeSessionsResponse::default()).unwrap(),
            json!({"RequestId": "", "Sessions": []})
        );
        assert_eq!(
            serde_json::to_value(Session::default()).unwrap(),
            json!({"Name": "", "Owner": "", "Type": "", "State": "", "NumOfConnections": 0})
        );
        assert_eq!(serde_json::to_value(Server::default()).unwrap(), json!({"Endpoints": [], "Tags": []}));
        assert_eq!(serde_json::to_value(Host::default()).unwrap(), json!({"Gpus": [], "LoggedInUsers": []}));
    }

    #[test]
    fn times_carry_milliseconds_and_an_offset() {
        let session =
            Session { creation_time: Some("2020-10-06T10:15:31.633Z".parse().unwrap()), ..Session::default() };
        assert_eq!(serde_json::to_value(&session).unwrap()["CreationTime"], "2020-10-06T10:15:31.633Z");
        let whole = Session { creation_time: Some("2020-10-06T10:15:31Z".parse().unwrap()), ..Session::default() };
        assert_eq!(serde_json::to_value(&whole).unwrap()["CreationTime"], "2020-10-06T10:15:31.000Z");
        let text = serde_json::to_string(&session).unwrap();
        assert_eq!(serde_json::from_str::<Session>(&text).unwrap(), session);
    }
}
