//! Manifests are of kinds that are known, and have only fields that are known; and other files that readers are told to write
//! are what the programs read.

use std::fs;

use dcv_operator::agent::tags;
use dcv_operator::wire::CreateSessionRequestData;
use serde::Deserialize;
use serde_json::Value;
use serde_json::json;

use crate::markdown::Block;
use crate::markdown::Page;
use crate::root;

/// What is wrong with a stream of manifests.
pub fn fault(stream: &str) -> Option<String> {
    let faults: Vec<_> = stream.split("\n---\n").flat_map(faults_of_one).collect();
    (!faults.is_empty()).then(|| faults.join("; "))
}

fn faults_of_one(text: &str) -> Vec<String> {
    let object: Value = match serde_saphyr::from_str(text) {
        Ok(object) => object,
        Err(error) => return vec![error.to_string()],
    };
    let word = |key: &str| object[key].as_str().unwrap_or_default();
    match (word("apiVersion"), word("kind")) {
        ("dcv-operator.io/v1alpha1", kind) => faults_of_ours(kind, &object),
        ("audit.k8s.io/v1", "Policy") => {
            serde_json::from_value::<AuditPolicy>(object).err().map(|error| error.to_string()).into_iter().collect()
        }
        (version, kind) => vec![format!("no test knows {version} {kind}")],
    }
}

/// Compares an object of ours with its definition. The API server's own answer is that of `e2e/tests/documents.rs`.
fn faults_of_ours(kind: &str, object: &Value) -> Vec<String> {
    let Some(definition) = dcv_operator::api::crds().into_iter().find(|crd| crd.spec.names.kind == kind) else {
        return vec![format!("we have no kind {kind}")];
    };
    let definition = serde_json::to_value(definition).unwrap();
    let mut faults = Vec::new();
    let mut object = object.clone();
    // The rest is every kind's.
    object.as_object_mut().unwrap().retain(|key, _| !["apiVersion", "kind", "metadata"].contains(&key.as_str()));
    compare(&definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"], &object, kind, &mut faults);
    faults
}

fn compare(schema: &Value, value: &Value, place: &str, faults: &mut Vec<String>) {
    let is_type = match schema["type"].as_str() {
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("boolean") => value.is_boolean(),
        Some("integer") => value.is_i64(),
        Some("number") => value.is_number(),
        _ => true,
    };
    let is_word = schema["enum"].as_array().is_none_or(|words| words.contains(value));
    if !is_type || !is_word {
        faults.push(format!("{place} cannot be {value}"));
    }
    for entry in value.as_array().into_iter().flatten() {
        compare(&schema["items"], entry, &format!("{place}[]"), faults);
    }
    let Some(fields) = value.as_object() else { return };
    for required in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if !fields.contains_key(required) {
            faults.push(format!("{place} has no {required}"));
        }
    }
    for (key, value) in fields {
        let place = format!("{place}.{key}");
        match (schema["properties"].get(key), schema["additionalProperties"].is_object()) {
            (Some(property), _) => compare(property, value, &place, faults),
            (None, true) => compare(&schema["additionalProperties"], value, &place, faults),
            (None, false) if schema["properties"].is_object() => faults.push(format!("there is no {place}")),
            // Metadata, and what is free.
            (None, false) => {}
        }
    }
}

/// What the API server reads with `--audit-policy-file`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(dead_code, reason = "that it can be read is all")]
struct AuditPolicy {
    api_version: String,
    kind: String,
    #[serde(default)]
    omit_stages: Vec<AuditStage>,
    rules: Vec<AuditRule>,
}

#[derive(Debug, Deserialize)]
enum AuditStage {
    RequestReceived,
    ResponseStarted,
    ResponseComplete,
    Panic,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(dead_code, reason = "that it can be read is all")]
struct AuditRule {
    level: AuditLevel,
    #[serde(default)]
    users: Vec<String>,
    #[serde(default)]
    user_groups: Vec<String>,
    #[serde(default)]
    verbs: Vec<String>,
    #[serde(default)]
    resources: Vec<AuditResources>,
    #[serde(default)]
    namespaces: Vec<String>,
    #[serde(default)]
    omit_stages: Vec<AuditStage>,
}

#[derive(Debug, Deserialize)]
enum AuditLevel {
    None,
    Metadata,
    Request,
    RequestResponse,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(dead_code, reason = "that it can be read is all")]
struct AuditResources {
    group: String,
    #[serde(default)]
    resources: Vec<String>,
    #[serde(default)]
    resource_names: Vec<String>,
}

#[test]
fn a_manifest_with_a_mistake_is_told() {
    let session = "apiVersion: dcv-operator.io/v1alpha1\nkind: DcvSession\nmetadata: {name: a}\nspec: {owner: ann, type: VIRTUAL}\n";
    assert_eq!(fault(session), None);
    assert_eq!(fault(&format!("{session}\n---\n{session}")), None);
    let audit = "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules:\n- level: Metadata\n";
    assert_eq!(fault(audit), None);
    for (text, wanted) in [
        (session.replace("owner", "ownr"), "DcvSession.spec has no owner; there is no DcvSession.spec.ownr"),
        (session.replace("VIRTUAL", "virtual"), "DcvSession.spec.type cannot be \"virtual\""),
        (session.replace("ann", "[ann]"), "DcvSession.spec.owner cannot be [\"ann\"]"),
        (session.replace("DcvSession", "DcvDesk"), "we have no kind DcvDesk"),
        (session.replace("v1alpha1", "v1"), "no test knows dcv-operator.io/v1 DcvSession"),
    ] {
        assert_eq!(fault(&text).as_deref(), Some(wanted));
    }
    assert!(fault(&audit.replace("level", "levels")).unwrap().contains("levels"));
    assert!(fault("a: [").is_some());
}

/// The one block of a page with this mark.
fn block(page: &str, kind: &str) -> Block {
    let blocks = Page::read(root(), page).blocks().into_iter();
    let is_ours =
        |block: &Block| block.kind == kind && block.mark.as_deref() == Some("tested by tests/docs/manifests.rs");
    let found: Vec<_> = blocks.filter(is_ours).collect();
    assert_eq!(found.len(), 1, "{page}");
    found.into_iter().next().unwrap()
}

#[test]
fn the_tags_of_the_page_are_read() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("page.toml"), block("docs/hosts.md", "toml").text).unwrap();
    let tags = tags::read(folder.path()).unwrap();
    assert_eq!(json!(tags), json!({"pool": "render", "cores_reserved": "2"}));
}

#[test]
fn the_request_with_a_requirement_is_what_the_api_takes() {
    let text = block("docs/requirements.md", "json").text;
    let requests: Vec<CreateSessionRequestData> = serde_json::from_str(&text).unwrap();
    // What is not known is left out when it is written again.
    assert_eq!(serde_json::to_value(&requests).unwrap(), serde_json::from_str::<Value>(&text).unwrap());
}
