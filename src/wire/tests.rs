//! The API file and the types beside it are both what the tables here say, which were written by hand.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::Value;
use serde_json::json;

use super::*;

/// Method, path, operationId, tag, request, answer. `?` ends a request that may be absent, `[` starts a list, `-` is
/// none; `!` ends the answer of an operation that names the status 400.
const OPERATIONS: &str = "
    post /describeSessions describeSessions sessions DescribeSessionsRequestData? DescribeSessionsResponse
    post /describeServers describeServers servers DescribeServersRequestData? DescribeServersResponse
    post /createSessions createSessions sessions [CreateSessionRequestData CreateSessionsResponse!
    post /deleteSessions deleteSessions sessions [DeleteSessionRequestData DeleteSessionsResponse!
    put /sessionPermissions updateSessionPermissions sessionPermissions \
        [UpdateSessionPermissionsRequestData UpdateSessionPermissionsResponse!
    get /sessionConnectionData/{sessionId}/{user} GetSessionConnectionData GetSessionConnectionData \
        - GetSessionConnectionDataResponse!
    post /getSessionScreenshots getSessionScreenshots sessions \
        [GetSessionScreenshotRequestData GetSessionScreenshotsResponse!
    post /openServers openServers servers [OpenServerRequestData OpenServersResponse!
    post /closeServers closeServers servers [CloseServerRequestData CloseServersResponse!";

/// Every schema, in the order of the file: name, then properties. A name alone is a string; `int64` and the like are
/// formats; `-> X` refers, `[X]` is a list, of strings when empty. What stands in parentheses is said of the property
/// beside its type.
const SCHEMAS: &str = "
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
    CreateSessionRequestData: Name, Owner, Type, DcvGlEnabled boolean, MaxConcurrentClients int64, \
        InitFilePath (deprecated), InitFile, AutorunFile, AutorunFileArguments [], PermissionsFile, Requirements, \
        EnqueueRequest boolean, DisableRetryOnFailure boolean, StorageRoot
    UnsuccessfulCreateSessionRequestData: CreateSessionRequestData -> CreateSessionRequestData, FailureReason
    CreateSessionsResponse: RequestId, SuccessfulList [Session], \
        UnsuccessfulList [UnsuccessfulCreateSessionRequestData]
    DeleteSessionSuccessfulResponse: SessionId, State
    DeleteSessionUnsuccessfulResponse: SessionId, FailureReason
    UpdateSessionPermissionsSuccessfulResponse: SessionId
    UpdateSessionPermissionsUnsuccessfulResponse: SessionId, FailureReason
    DeleteSessionsResponse: RequestId, SuccessfulList [DeleteSessionSuccessfulResponse], \
        UnsuccessfulList [DeleteSessionUnsuccessfulResponse]
    DeleteSessionRequestData: SessionId, Owner, Force boolean (default false)
    UpdateSessionPermissionsRequestData: SessionId, Owner, PermissionsFile
    UpdateSessionPermissionsResponse: RequestId, SuccessfulList [UpdateSessionPermissionsSuccessfulResponse], \
        UnsuccessfulList [UpdateSessionPermissionsUnsuccessfulResponse]
    GetSessionConnectionDataResponse: Session -> Session, ConnectionToken
    GetSessionScreenshotRequestData: SessionId, MaxWidth int64 (nullable), MaxHeight int64 (nullable)
    GetSessionScreenshotsResponse: RequestId, SuccessfulList [GetSessionScreenshotSuccessfulResponse], \
        UnsuccessfulList [GetSessionScreenshotUnsuccessfulResponse]
    GetSessionScreenshotSuccessfulResponse: SessionScreenshot -> SessionScreenshot
    SessionScreenshot: SessionId, Images [SessionScreenshotImage]
    SessionScreenshotImage: Format, Data, CreationTime date-time, Primary boolean
    GetSessionScreenshotUnsuccessfulResponse: \
        GetSessionScreenshotRequestData -> GetSessionScreenshotRequestData, FailureReason
    OpenServerRequestData: ServerId
    OpenServersResponse: RequestId, SuccessfulList [OpenServerSuccessfulResponse], \
        UnsuccessfulList [OpenServerUnsuccessfulResponse]
    OpenServerSuccessfulResponse: ServerId
    OpenServerUnsuccessfulResponse: OpenServerRequestData -> OpenServerRequestData, FailureCode, FailureReason
    CloseServerRequestData: ServerId, Force boolean
    CloseServersResponse: RequestId, SuccessfulList [CloseServerSuccessfulResponse], \
        UnsuccessfulList [CloseServerUnsuccessfulResponse]
    CloseServerSuccessfulResponse: ServerId
    CloseServerUnsuccessfulResponse: CloseServerRequestData -> CloseServerRequestData, FailureCode, FailureReason";

fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

fn list_of(items: &Value) -> Value {
    json!({"type": "array", "items": items})
}

/// A property of the table, such as `MaxWidth int64 (nullable)`.
fn property(text: &str) -> (String, Value) {
    let (text, remark) = text.trim().split_once(" (").unwrap_or((text.trim(), ""));
    let (name, kind) = text.split_once(' ').unwrap_or((text, ""));
    let mut schema = match kind {
        "" => json!({"type": "string"}),
        "boolean" | "integer" => json!({"type": kind}),
        "int32" | "int64" => json!({"type": "integer", "format": kind}),
        "float" => json!({"type": "number", "format": "float"}),
        "date-time" => json!({"type": "string", "format": "date-time"}),
        "[]" => list_of(&json!({"type": "string"})),
        list if list.starts_with('[') => list_of(&reference(list.trim_matches(['[', ']']))),
        target => reference(target.strip_prefix("-> ").unwrap()),
    };
    match remark {
        "" => {}
        "deprecated)" => schema["deprecated"] = json!(true),
        "nullable)" => schema["nullable"] = json!(true),
        "default false)" => schema["default"] = json!(false),
        other => panic!("({other} is not known"),
    }
    (name.to_owned(), schema)
}

type Properties = Vec<(String, Value)>;

/// The table of schemas, in its order.
fn documented() -> Vec<(String, Properties)> {
    let schemas = SCHEMAS.lines().filter_map(|line| line.split_once(':'));
    schemas.map(|(name, properties)| (name.trim().to_owned(), properties.split(',').map(property).collect())).collect()
}

/// The table of operations, as `paths` of the file.
fn documented_paths() -> Value {
    let mut paths = json!({});
    for line in OPERATIONS.lines().filter(|line| !line.is_empty()) {
        let columns: Vec<_> = line.split_whitespace().collect();
        let [method, path, id, tag, request, answer] = columns[..] else { panic!("{line}") };
        let mut operation = json!({"tags": [tag], "operationId": id, "responses": responses(answer)});
        if request == "-" {
            operation["parameters"] = json!([path_parameter("sessionId"), path_parameter("user")]);
        } else {
            operation["requestBody"] = request_body(request);
        }
        paths[path][method] = operation;
    }
    paths
}

fn json_content(schema: &Value) -> Value {
    json!({"application/json": {"schema": schema}})
}

fn request_body(column: &str) -> Value {
    if let Some(name) = column.strip_suffix('?') {
        return json!({"content": json_content(&reference(name))});
    }
    let items = reference(column.strip_prefix('[').unwrap());
    json!({"required": true, "content": json_content(&list_of(&items))})
}

fn path_parameter(name: &str) -> Value {
    json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}})
}

fn responses(column: &str) -> Value {
    let good = |name| json!({"content": json_content(&reference(name))});
    match column.strip_suffix('!') {
        Some(name) => json!({"200": good(name), "400": {}}),
        None => json!({"200": good(column)}),
    }
}

/// `value` without the texts, which are free.
fn without_texts(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let kept = map.into_iter().filter(|(key, _)| key != "description" && key != "summary");
            kept.map(|(key, value)| (key, without_texts(value))).collect()
        }
        Value::Array(values) => values.into_iter().map(without_texts).collect(),
        other => other,
    }
}

/// Names in the file that are indented by `depth` below `components.schemas`.
fn names(depth: usize) -> Vec<&'static str> {
    let schemas = API_FILE.split_once("\n  schemas:\n").expect("the file has schemas").1;
    let indented = schemas.lines().filter(|line| line.len() - line.trim_start().len() == depth);
    indented.map(|line| line.split_once(':').expect("a key").0.trim()).collect()
}

#[test]
fn the_api_file_says_what_the_tables_say_and_nothing_else() {
    let file: Value = serde_saphyr::from_str(API_FILE).unwrap();
    let schemas: serde_json::Map<_, _> = documented()
        .into_iter()
        .map(|(name, properties)| {
            let properties: serde_json::Map<_, _> = properties.into_iter().collect();
            (name, json!({"type": "object", "properties": properties}))
        })
        .collect();
    let expected = json!({
        "openapi": "3.0.3",
        "info": {"title": "DCV Session Manager", "version": "2023.0"},
        "security": [{"bearerAuth": []}],
        "paths": documented_paths(),
        "components": {"securitySchemes": {"bearerAuth": {"type": "http", "scheme": "bearer"}}, "schemas": schemas},
    });
    assert_eq!(without_texts(file), expected);
}

#[test]
fn schemas_and_properties_are_in_the_documented_order() {
    let documented = documented();
    let schemas: Vec<_> = documented.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names(4), schemas);
    let properties: Vec<_> = documented.iter().flat_map(|(_, properties)| properties).map(|(name, _)| name).collect();
    assert_eq!(names(8), properties);
}

/// What types cannot say is no part of the comparison: descriptions, defaults, nullability, bounds.
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

fn sorted<'a>(properties: impl IntoIterator<Item = (&'a String, &'a Value)>) -> Properties {
    let mut sorted: Vec<_> = properties.into_iter().map(|(name, schema)| (name.clone(), bare(schema))).collect();
    sorted.sort_by(|a, b| a.0.cmp(&b.0));
    sorted
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
    add::<GetSessionConnectionDataResponse>(&mut generator);
    add::<GetSessionScreenshotRequestData>(&mut generator);
    add::<GetSessionScreenshotsResponse>(&mut generator);
    add::<OpenServerRequestData>(&mut generator);
    add::<OpenServersResponse>(&mut generator);
    add::<CloseServerRequestData>(&mut generator);
    add::<CloseServersResponse>(&mut generator);
    let ours: BTreeMap<_, _> = generator
        .take_definitions(true)
        .iter()
        .map(|(name, schema)| {
            assert_eq!(schema["type"], "object", "{name}");
            (name.clone(), sorted(schema["properties"].as_object().unwrap()))
        })
        .collect();
    let documented: BTreeMap<_, _> = documented()
        .into_iter()
        .map(|(name, properties)| (name, sorted(properties.iter().map(|(name, schema)| (name, schema)))))
        .collect();
    assert_eq!(ours, documented);
}

#[test]
fn an_empty_answer_has_its_lists_and_numbers_and_nothing_else() {
    assert_eq!(
        serde_json::to_value(<DescribeSessionsResponse<'_>>::default()).unwrap(),
        json!({"RequestId": "", "Sessions": []})
    );
    assert_eq!(
        serde_json::to_value(<Session<'_>>::default()).unwrap(),
        json!({"Name": "", "Owner": "", "Type": "", "State": "", "NumOfConnections": 0})
    );
    assert_eq!(serde_json::to_value(Server::default()).unwrap(), json!({"Endpoints": [], "Tags": []}));
    assert_eq!(serde_json::to_value(Host::default()).unwrap(), json!({"Gpus": [], "LoggedInUsers": []}));
}

#[test]
fn times_carry_milliseconds_and_an_offset() {
    let session =
        Session { creation_time: Some("2020-10-06T10:15:31.633Z".parse().unwrap()), ..<Session<'_>>::default() };
    assert_eq!(serde_json::to_value(&session).unwrap()["CreationTime"], "2020-10-06T10:15:31.633Z");
    let whole = Session { creation_time: Some("2020-10-06T10:15:31Z".parse().unwrap()), ..<Session<'_>>::default() };
    assert_eq!(serde_json::to_value(&whole).unwrap()["CreationTime"], "2020-10-06T10:15:31.000Z");
    let text = serde_json::to_string(&session).unwrap();
    assert_eq!(serde_json::from_str::<Session>(&text).unwrap(), session);
}
