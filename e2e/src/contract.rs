//! What a broker may answer, by a schema that was written by hand: `contract.yaml`. Every answer of the REST API that
//! tests get is judged by it.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use boon::Compiler;
use boon::SchemaIndex;
use boon::Schemas;
use serde_json::Value;

/// The contract, compiled: by the names of its definitions.
struct Contract {
    schemas: Schemas,
    definitions: BTreeMap<String, SchemaIndex>,
}

static CONTRACT: LazyLock<Contract> = LazyLock::new(|| {
    const PLACE: &str = "contract:contract.yaml";
    let schema: Value = serde_saphyr::from_str(include_str!("../contract.yaml")).expect("contract.yaml is YAML");
    let names: Vec<_> = schema["$defs"].as_object().expect("it has definitions").keys().cloned().collect();
    let (mut compiler, mut schemas) = (Compiler::new(), Schemas::new());
    compiler.enable_format_assertions();
    compiler.add_resource(PLACE, schema).expect("the place is a URL");
    let compile = |name: String| {
        let definition = compiler.compile(&format!("{PLACE}#/$defs/{name}"), &mut schemas);
        (name, definition.unwrap_or_else(|error| panic!("contract.yaml is no JSON Schema: {error:#}")))
    };
    let definitions = names.into_iter().map(compile).collect();
    Contract { schemas, definitions }
});

/// What of the contract an answer must meet: its name there, or `None` where nothing is said.
fn rule(path: &str, status: u16) -> Option<&str> {
    let operation = path.trim_start_matches('/').split(['/', '?']).next().unwrap_or_default();
    match operation {
        _ if status != 200 => Some("Error"),
        "oauth2" => Some("Token"),
        "health" | "dcv-session-manager-api.yaml" => None,
        "createSessions" if path.ends_with("?dryRun=true") => Some("createSessionsDryRun"),
        operation => Some(operation),
    }
}

/// What is wrong with an answer.
fn fault(path: &str, status: u16, body: &str) -> Option<String> {
    let rule = rule(path, status)?;
    let Some(definition) = CONTRACT.definitions.get(rule) else {
        return Some(format!("no operation of the contract is there, and it answered {status}"));
    };
    match serde_json::from_str::<Value>(body) {
        Ok(body) => CONTRACT.schemas.validate(&body, *definition).err().map(|error| error.to_string()),
        Err(error) => Some(format!("it is no JSON: {error}")),
    }
}

/// Judges the answer to a request of `path`, which includes its query.
///
/// # Panics
/// When it is not as documented.
pub fn check(path: &str, status: u16, body: &str) {
    if let Some(fault) = fault(path, status, body) {
        panic!("{path} answered {status} {body}\nwhich breaks the contract: {fault}");
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn session(changes: &Value) -> Value {
        let mut session = json!({
            "Id": "0b0c6f8e-6b9c-4d4e-8b54-5d3c5a1c3b1a", "Name": "n", "Owner": "ann", "Type": "VIRTUAL",
            "State": "READY", "CreationTime": "2020-10-06T10:15:31.633Z", "NumOfConnections": 0,
            "Server": {
                "Id": "1b0c6f8e-6b9c-4d4e-8b54-5d3c5a1c3b1a", "Ip": "192.0.2.1", "Hostname": "h", "Port": "8443",
                "WebUrlPath": "/", "Tags": [{"Key": "dcv:os-family", "Value": "linux"}],
                "Endpoints": [
                    {"IpAddress": "192.0.2.1", "Port": 8443, "WebUrlPath": "/", "Protocol": "HTTP"},
                    {"IpAddress": "192.0.2.1", "Port": 8443, "Protocol": "QUIC"},
                ],
            },
        });
        json_patch(&mut session, changes);
        session
    }

    /// A merge patch: null takes away.
    fn json_patch(target: &mut Value, patch: &Value) {
        let Value::Object(changes) = patch else { return target.clone_from(patch) };
        for (key, change) in changes {
            if change.is_null() {
                target.as_object_mut().unwrap().remove(key);
            } else {
                json_patch(&mut target[key], change);
            }
        }
    }

    fn described(session: &Value) -> Option<String> {
        let body = json!({"RequestId": "2b0c6f8e-6b9c-4d4e-8b54-5d3c5a1c3b1a", "Sessions": [session]});
        fault("/describeSessions", 200, &body.to_string())
    }

    #[test]
    fn what_is_documented_is_accepted() {
        for changes in [
            json!({}),
            json!({"LastDisconnectionTime": "2020-10-06T10:15:31.633Z", "StorageRoot": "s", "MaxConcurrentClients": 1}),
            json!({"State": "CREATING", "Substate": "SESSION_PLACING", "Server": null}),
            json!({"State": "CREATING", "Substate": "PENDING_PREPARATION"}),
            json!({"State": "DELETED", "Server": null}),
            json!({"State": "UNKNOWN", "StateReason": "the agent is silent"}),
        ] {
            assert_eq!(described(&session(&changes)), None, "{changes}");
        }
        assert!(
            fault(
                "/oauth2/token?grant_type=x",
                200,
                r#"{"access_token":"a.b.c","token_type":"Bearer","expires_in":1}"#
            )
            .is_none()
        );
        assert!(fault("/anything", 404, r#"{"error":"Not found"}"#).is_none());
        assert!(fault("/health", 200, "").is_none());
    }

    #[test]
    fn what_is_not_documented_is_a_fault() {
        for changes in [
            json!({"Ours": 1}),
            json!({"Id": ""}),
            json!({"Owner": null}),
            json!({"NumOfConnections": null}),
            json!({"StateReason": ""}),
            json!({"Substate": "SESSION_PLACING"}),
            json!({"State": "CREATING"}),
            json!({"State": "CREATING", "Substate": "SESSION_PLACING"}),
            json!({"State": "Ready"}),
            json!({"State": "UNKNOWN"}),
            json!({"CreationTime": "2020-10-06T10:15:31Z"}),
            json!({"CreationTime": "2020-10-06T10:15:31.633+00:00"}),
            json!({"CreationTime": "2020-13-06T10:15:31.633Z"}),
            json!({"Server": null}),
            json!({"Server": {"Port": 8443}}),
            json!({"Server": {"Ip": null}}),
            json!({"Server": {"Tags": null}}),
            json!({"Server": {"Host": {}}}),
        ] {
            assert_ne!(described(&session(&changes)), None, "{changes}");
        }
        for (path, status, body) in [
            ("/describeSessions", 200, r#"{"Sessions":[]}"#),
            ("/describeSessions", 200, r#"{"RequestId":"2b0c6f8e-6b9c-4d4e-8b54-5d3c5a1c3b1a"}"#),
            (
                "/describeSessions",
                200,
                r#"{"RequestId":"2b0c6f8e-6b9c-4d4e-8b54-5d3c5a1c3b1a","Sessions":[],"NextToken":""}"#,
            ),
            ("/describeSessions", 400, r#"{"error":""}"#),
            ("/describeSessions", 400, r#"{"error":"a","message":"b"}"#),
            ("/describeSessions", 400, "Bad request"),
            ("/nothing", 200, "{}"),
        ] {
            assert_ne!(fault(path, status, body), None, "{path} {body}");
        }
    }
}
