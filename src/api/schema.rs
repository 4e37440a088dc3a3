//! Parts of the schemas that the derive cannot express, and the pass that makes them what the API server wants.

use schemars::Schema;
use schemars::SchemaGenerator;
use schemars::json_schema;
use serde_json::Value;
use serde_json::json;

/// A time as RFC 3339 text.
pub fn time(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "format": "date-time", "maxLength": 64})
}

/// A label selector with bounds, so that rules over it have a bounded cost.
pub fn label_selector(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "x-kubernetes-map-type": "atomic",
        "properties": {
            "matchLabels": {
                "description": "Labels that must have exactly these values. At most 64.",
                "type": "object",
                "maxProperties": 64,
                "additionalProperties": {"type": "string", "maxLength": 63},
            },
            "matchExpressions": {
                "description": "Conditions on labels, which must all hold. At most 64.",
                "type": "array",
                "maxItems": 64,
                "x-kubernetes-list-type": "atomic",
                "items": {
                    "type": "object",
                    "required": ["key", "operator"],
                    "properties": {
                        "key": {"description": "The label.", "type": "string", "maxLength": 317},
                        "operator": {
                            "description": "How the label's value relates to `values`.",
                            "type": "string",
                            "enum": ["In", "NotIn", "Exists", "DoesNotExist"],
                        },
                        "values": {
                            "description": "Values for In and NotIn. At most 64.",
                            "type": "array",
                            "maxItems": 64,
                            "x-kubernetes-list-type": "atomic",
                            "items": {"type": "string", "maxLength": 63},
                        },
                    },
                },
            },
        },
    })
}

/// Conditions, with the bounds of the API machinery's own type, which its generated schema leaves out. Without them a
/// rule over conditions is refused as too costly.
pub fn conditions(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 16,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
        "items": {
            "type": "object",
            "required": ["type", "status", "reason", "message", "lastTransitionTime"],
            "properties": {
                "type": {
                    "description": "What is observed.",
                    "type": "string",
                    "maxLength": 316,
                    "pattern": r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])$",
                },
                "status": {
                    "description": "Whether it holds.",
                    "type": "string",
                    "enum": ["True", "False", "Unknown"],
                },
                "reason": {
                    "description": "Why, as one word for programs.",
                    "type": "string",
                    "minLength": 1,
                    "maxLength": 1024,
                    "pattern": r"^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$",
                },
                "message": {"description": "Why, for people.", "type": "string", "maxLength": 32768},
                "lastTransitionTime": {
                    "description": "When status changed last.",
                    "type": "string",
                    "format": "date-time",
                    "maxLength": 64,
                },
                "observedGeneration": {
                    "description": "The metadata.generation this condition was computed from.",
                    "type": "integer",
                    "format": "int64",
                    "minimum": 0,
                },
            },
        },
    })
}

/// Tags of a server.
pub fn tags(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 256,
        "x-kubernetes-map-type": "granular",
        "additionalProperties": {"type": "string", "maxLength": 1024},
    })
}

/// What a session's status is before anyone wrote it. It may never change within a version: the API server applies it
/// to stored objects too.
pub fn session_status_default() -> Value {
    json!({
        "state": "CREATING",
        "substate": "SESSION_PLACING",
        "lastTransitionTime": EPOCH,
        "conditions": pending_conditions(),
    })
}

/// What a server's status is before its agent wrote it.
pub fn server_status_default() -> Value {
    json!({"availability": "UNAVAILABLE", "unavailabilityReason": "UNKNOWN", "conditions": pending_conditions()})
}

/// What a client's status is before the controller wrote it.
pub fn client_status_default() -> Value {
    json!({"conditions": pending_conditions()})
}

const EPOCH: &str = "1970-01-01T00:00:00Z";

/// Tools see "in progress" from birth: without `Reconciling` a fresh object would count as done.
fn pending_conditions() -> Value {
    json!([
        {"type": "Ready", "status": "Unknown", "reason": "Pending", "message": "", "lastTransitionTime": EPOCH},
        {"type": "Reconciling", "status": "True", "reason": "Pending", "message": "", "lastTransitionTime": EPOCH},
    ])
}

/// Makes a generated schema what our objects promise: nothing is `nullable`, and no integer has a format that the API
/// server does not know.
pub fn tidy(schema: &mut Value) {
    match schema {
        Value::Object(map) => {
            map.remove("nullable");
            if map.get("format").is_some_and(|format| format == "uint32" || format == "uint64") {
                map.remove("format");
            }
            map.values_mut().for_each(tidy);
        }
        Value::Array(list) => list.iter_mut().for_each(tidy),
        _ => {}
    }
}

/// Every place of a schema that breaks our own rules: a list without a list type, text, list or map without a bound, a
/// property without a description.
pub fn faults(schema: &Value) -> Vec<String> {
    let mut found = Vec::new();
    walk(schema, "", &mut found);
    found
}

fn walk(node: &Value, path: &str, found: &mut Vec<String>) {
    match node["type"].as_str() {
        Some("array") => {
            if node.get("x-kubernetes-list-type").is_none() {
                found.push(format!("{path}: no list type"));
            }
            if node.get("maxItems").is_none() {
                found.push(format!("{path}: no maxItems"));
            }
            walk(&node["items"], &format!("{path}[]"), found);
        }
        Some("object") => {
            if let Some(values) = node.get("additionalProperties") {
                if node.get("maxProperties").is_none() {
                    found.push(format!("{path}: no maxProperties"));
                }
                walk(values, &format!("{path}{{}}"), found);
            }
            for (name, property) in node["properties"].as_object().into_iter().flatten() {
                let path = format!("{path}.{name}");
                if property.get("description").is_none() {
                    found.push(format!("{path}: no description"));
                }
                walk(property, &path, found);
            }
        }
        Some("string") if node.get("maxLength").is_none() && node.get("enum").is_none() => {
            found.push(format!("{path}: no maxLength"));
        }
        _ => {}
    }
}
