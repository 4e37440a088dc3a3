//! Requests that schemathesis makes up from the served API file, good ones and bad ones: none is answered with a fault
//! of ours, or with a field that the file does not name.

use std::fs;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use e2e::Stand;
use e2e::clients;
use e2e::rounds;
use e2e::seconds;
use serde_json::Value;
use serde_json::json;

/// The file as it is, but closed: no object may have more than it names, and every other status is an error of the one
/// documented form.
fn closed(mut file: Value) -> Value {
    let schemas = file["components"]["schemas"].as_object_mut().expect("the file has schemas");
    for schema in schemas.values_mut() {
        schema["additionalProperties"] = json!(false);
    }
    let error = json!({
        "type": "object", "required": ["error"], "additionalProperties": false,
        "properties": {"error": {"type": "string", "minLength": 1}},
    });
    for operation in operations(&mut file) {
        let content = json!({"application/json": {"schema": error}});
        operation["responses"]["default"] = json!({"description": "Not done", "content": content});
    }
    file
}

fn operations(file: &mut Value) -> impl Iterator<Item = &mut Value> {
    let paths = file["paths"].as_object_mut().expect("the file has paths");
    paths.values_mut().flat_map(|path| path.as_object_mut().expect("a path has methods").values_mut())
}

/// What is there to be asked for, as random text would never meet it.
struct Real {
    session: String,
    /// May be deleted.
    other_session: String,
    server: String,
}

/// Has every second request name what is there and say what is right. The schemas of answers stay as they are: requests
/// get copies of their own.
fn aimed(mut file: Value, real: &Real) -> Value {
    let schemas = file["components"]["schemas"].clone();
    for operation in operations(&mut file) {
        if let Some(schema) = operation.pointer_mut("/parameters/0/schema") {
            *schema = one_of(&real.session);
        }
        let deletes = operation["operationId"] == "deleteSessions";
        let session = if deletes { &real.other_session } else { &real.session };
        let Some(body) = operation.pointer_mut("/requestBody/content/application~1json/schema") else { continue };
        let item = if body.get("items").is_some() { &mut body["items"] } else { body };
        let name =
            item["$ref"].as_str().and_then(|path| path.rsplit('/').next()).expect("requests are of named schemas");
        *item = json!({"anyOf": [aimed_schema(&schemas[name], session, &real.server), item]});
    }
    file
}

fn aimed_schema(schema: &Value, session: &str, server: &str) -> Value {
    let mut aimed = schema.clone();
    let mut required = Vec::new();
    for (property, schema) in aimed["properties"].as_object_mut().expect("an object") {
        if ["Name", "Owner", "Type", "SessionId", "ServerId"].contains(&property.as_str()) {
            required.push(property.clone());
        }
        match property.as_str() {
            "SessionId" => *schema = one_of(session),
            "ServerId" => *schema = one_of(server),
            "SessionIds" => schema["items"] = one_of(session),
            "ServerIds" => schema["items"] = one_of(server),
            "Name" => schema["minLength"] = json!(1),
            "Owner" => schema["enum"] = json!(["ann", "bob", "cid"]),
            "Type" => schema["enum"] = json!(["CONSOLE", "VIRTUAL"]),
            "Requirements" => schema["enum"] = json!(["", "tag:pool = 'office'", "tag:pool = 'nowhere'"]),
            "InitFilePath" | "InitFile" | "AutorunFile" => schema["enum"] = json!(["myapp.sh"]),
            "PermissionsFile" => schema["enum"] = json!([STANDARD.encode("[permissions]\n%owner% allow builtin\n")]),
            "MaxConcurrentClients" => schema["minimum"] = json!(1),
            _ => {}
        }
    }
    aimed["required"] = json!(required);
    aimed
}

fn one_of(real: &str) -> Value {
    json!({"type": "string", "enum": [real, uuid::Uuid::nil().to_string()]})
}

#[tokio::test]
async fn made_up_requests_find_no_fault_and_no_field_that_the_api_file_does_not_name() {
    let stand = Stand::fake().await;
    let sessions = stand.namespace("schemathesis").await;
    let client = stand.rest_client(&sessions.namespace, json!({"manageServers": true})).await;
    let rest = client.log_in().await.expect("the client logs in");
    let desktop = json!({"Name": "real", "Owner": "ann", "Type": "VIRTUAL"});
    let session = rest.create(desktop.clone()).await;
    let other_session = rest.create(desktop).await;
    let ready = rest.until_state(&session, "READY").await;
    let server = ready["Server"]["Id"].as_str().expect("it has a server").to_owned();

    let (_, _, text) = client.text("/dcv-session-manager-api.yaml").await;
    let file = serde_saphyr::from_str(&text).expect("the API file is YAML");
    let file = aimed(closed(file), &Real { session, other_session, server });
    let folder = clients::scratch("schemathesis");
    let path = folder.join("api.json");
    fs::write(&path, file.to_string()).expect("the file can be written");

    let time = rounds(45);
    let mut schemathesis = clients::python("schemathesis");
    schemathesis
        .current_dir(&folder)
        .args(["--no-color", "run"])
        .arg(&path)
        .args(["--url", stand.setting("BROKER_URL"), "--tls-verify", stand.setting("BROKER_CA")])
        .args(["--header", &format!("Authorization: Bearer {}", rest.token())])
        .args(["--generation-with-security-parameters", "false"])
        .args(["--checks", "not_a_server_error,response_schema_conformance"])
        .args(["--phases", "coverage,fuzzing", "--max-time", &time.to_string(), "--seed", "1"])
        .args(["--generation-database", "none", "--suppress-health-check", "all", "--continue-on-failure"])
        .args(["--output-truncate", "false"]);
    let report = clients::run("schemathesis", seconds(120 + u64::from(time) * 2), schemathesis).await;
    eprintln!("{}", report.lines().find(|line| line.contains("generated")).unwrap_or_default().trim());
    // Refusals alone would have proved nothing.
    let made = rest.post("/describeSessions", &json!({})).await;
    assert!(made.list("Sessions").len() > 2, "no session was created by what was made up: {report}");
    sessions.delete_namespace().await;
    stand.open_all_servers().await;
}
