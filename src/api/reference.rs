//! The reference of our kinds for people, made of the same definitions that the API server gets.

use std::fmt;
use std::fmt::Write;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::Value;

const HEAD: &str = "\
# API reference

Every field of every kind, as `kubectl explain` tells them, written by `hack/generate` from the definitions in `crds/`.
What the fields are for, with examples, is in the [README](../README.md) and in [sessions](sessions.md).
";

/// One page of Markdown about `crds`: for each its names, columns and fields.
pub fn markdown(crds: &[CustomResourceDefinition]) -> String {
    let mut text = HEAD.to_owned();
    for crd in crds {
        let value = serde_json::to_value(crd).expect("a definition is plain data");
        kind(&mut text, &value).expect("text takes all that is written");
    }
    text
}

fn kind(text: &mut String, crd: &Value) -> fmt::Result {
    let spec = &crd["spec"];
    let names = &spec["names"];
    let version = &spec["versions"][0];
    let schema = &version["schema"]["openAPIV3Schema"];
    writeln!(text, "\n## {}\n\n{}\n", word(&names["kind"]), words(&schema["description"]))?;
    let short: Vec<_> = list(&names["shortNames"]).map(word).collect();
    let scope = if spec["scope"] == "Namespaced" { "in a namespace" } else { "of the whole cluster" };
    writeln!(text, "`apiVersion: {}/{}`, {scope}.", word(&spec["group"]), word(&version["name"]))?;
    writeln!(text, "With kubectl: `{}`, in short `{}`.", word(&names["plural"]), short.join("`, `"))?;
    writeln!(text, "\n| Column | Shown by `-o wide` only | Is |\n|---|---|---|")?;
    for column in list(&version["additionalPrinterColumns"]) {
        let wide = if column["priority"].as_i64().unwrap_or(0) > 0 { "yes" } else { "" };
        writeln!(text, "| {} | {wide} | `{}` |", word(&column["name"]), cell(word(&column["jsonPath"])))?;
    }
    let selectable: Vec<_> = list(&version["selectableFields"]).map(|field| word(&field["jsonPath"])).collect();
    if !selectable.is_empty() {
        let fields: Vec<_> = selectable.iter().map(|path| format!("`{}`", path.trim_start_matches('.'))).collect();
        writeln!(text, "\n`--field-selector` knows {}.", fields.join(", "))?;
    }
    for part in ["spec", "status"] {
        writeln!(text, "\n### {} {part}\n\n| Field | Type | Meaning |\n|---|---|---|", word(&names["kind"]))?;
        fields(text, part, &schema["properties"][part])?;
    }
    Ok(())
}

/// A row for each field below `schema`, depth first.
fn fields(text: &mut String, path: &str, schema: &Value) -> fmt::Result {
    let required: Vec<_> = list(&schema["required"]).map(word).collect();
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}.{name}");
        let must = if required.contains(&name.as_str()) { ", required" } else { "" };
        writeln!(text, "| `{path}` | {}{must} | {} |", type_of(field), cell(&meaning(field)))?;
        match field["type"].as_str() {
            Some("array") => fields(text, &format!("{path}[]"), &field["items"])?,
            _ => fields(text, &path, field)?,
        }
    }
    Ok(())
}

fn type_of(field: &Value) -> String {
    match (field["type"].as_str(), field["format"].as_str()) {
        (Some("array"), _) => format!("list of {}", type_of(&field["items"])),
        (Some("object"), _) if field["additionalProperties"].is_object() => {
            format!("map to {}", type_of(&field["additionalProperties"]))
        }
        (Some("string"), Some("date-time")) => "time".to_owned(),
        (Some(name), _) => name.to_owned(),
        (None, _) if field["x-kubernetes-int-or-string"] == true => "integer or string".to_owned(),
        (None, _) => "any".to_owned(),
    }
}

/// The description, and what the schema says beyond it.
fn meaning(field: &Value) -> String {
    let mut parts = vec![words(&field["description"])];
    let allowed: Vec<_> = list(&field["enum"]).map(|value| format!("`{}`", word(value))).collect();
    if !allowed.is_empty() {
        parts.push(format!("One of {}.", allowed.join(", ")));
    }
    if !field["default"].is_null() && !parts[0].contains("Default ") {
        parts.push(format!("Default: `{}`.", field["default"]));
    }
    let rules = list(&field["x-kubernetes-validations"]).filter_map(|rule| rule["message"].as_str());
    parts.extend(rules.map(|message| format!("Rule: {message}.")));
    parts.retain(|part| !part.is_empty());
    parts.join(" ")
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn word(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// Text of several lines as one.
fn words(value: &Value) -> String {
    word(value).split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Text that does not end its cell of a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_field_has_a_row_with_its_type_bounds_and_rules_and_so_have_those_below() {
        let schema = json!({"required": ["mode"], "properties": {
            "mode": {"type": "string", "enum": ["A", "B"], "default": "A", "description": "One\n of | two."},
            "list": {"type": "array", "items": {"type": "object", "properties": {
                "at": {"type": "string", "format": "date-time", "x-kubernetes-validations": [{"message": "only forward"}]},
            }}},
            "labels": {"type": "object", "additionalProperties": {"type": "string"}},
        }});
        let mut text = String::new();
        fields(&mut text, "spec", &schema).unwrap();
        let expected = [
            "| `spec.labels` | map to string |  |",
            "| `spec.list[].at` | time | Rule: only forward. |",
            "| `spec.list` | list of object |  |",
            "| `spec.mode` | string, required | One of \\| two. One of `A`, `B`. Default: `\"A\"`. |",
        ];
        let mut rows: Vec<_> = text.lines().collect();
        rows.sort_unstable();
        assert_eq!(rows, expected);
    }
}
