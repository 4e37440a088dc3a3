//! Our definitions take what those of the last release took, and keep the meaning of what is stored.
//!
//! The last release is the newest tag `v*`; before there is one, the definitions are compared with themselves. Defaults are
//! applied at every read and lists are merged by their type, so a change of either changes objects that nobody touches.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use dcv_operator::api;
use serde_json::Value;
use serde_json::json;

/// What was looked at and found to be right all the same: the release it is compared with, and the finding.
const REVIEWED: &[(&str, &str)] = &[];

/// What `new` no longer takes, or takes for something else, as paths with a reason.
fn breaks(old: &Value, new: &Value) -> Vec<String> {
    let mut found = Vec::new();
    for (path, what) in [
        ("/spec/group", "group"),
        ("/spec/scope", "scope"),
        ("/spec/names/kind", "kind"),
        ("/spec/names/plural", "plural"),
    ] {
        if old.pointer(path) != new.pointer(path) {
            found.push(format!("the {what} changed"));
        }
    }
    let short_names = |crd: &Value| set(crd.pointer("/spec/names/shortNames"));
    for name in short_names(old).difference(&short_names(new)) {
        found.push(format!("the short name {name} is gone"));
    }
    let versions = |crd: &Value| crd["spec"]["versions"].as_array().cloned().unwrap_or_default();
    let is_served = |version: &Value| version["served"] == json!(true);
    let new_versions = versions(new);
    for old_version in versions(old).iter().filter(|version| is_served(version)) {
        let name = old_version["name"].as_str().unwrap_or_default();
        match new_versions.iter().find(|version| version["name"] == old_version["name"] && is_served(version)) {
            None => found.push(format!("version {name} is gone")),
            Some(new_version) => {
                compare_versions(name, old_version, new_version, &mut found);
            }
        }
    }
    found
}

fn compare_versions(name: &str, old: &Value, new: &Value, found: &mut Vec<String>) {
    for subresource in keys(&old["subresources"]).difference(&keys(&new["subresources"])) {
        found.push(format!("{name}: the subresource {subresource} is gone"));
    }
    let fields = |version: &Value| -> BTreeSet<String> {
        let fields = version["selectableFields"].as_array().cloned().unwrap_or_default();
        fields.iter().filter_map(|field| field["jsonPath"].as_str().map(str::to_owned)).collect()
    };
    for field in fields(old).difference(&fields(new)) {
        found.push(format!("{name}: {field} can no longer be selected by"));
    }
    compare(name, &old["schema"]["openAPIV3Schema"], &new["schema"]["openAPIV3Schema"], found);
}

/// Compares two schemas of the same place.
fn compare(path: &str, old: &Value, new: &Value, found: &mut Vec<String>) {
    for word in [
        "type",
        "format",
        "pattern",
        "default",
        "x-kubernetes-list-type",
        "x-kubernetes-list-map-keys",
        "x-kubernetes-map-type",
    ] {
        if old.get(word) != new.get(word) && !(word == "format" || word == "pattern") {
            found.push(format!("{path}: {word} changed from {} to {}", text(old, word), text(new, word)));
        } else if new.get(word).is_some_and(|value| old.get(word) != Some(value)) {
            found.push(format!("{path}: {word} is narrower"));
        }
    }
    for (word, is_narrower) in BOUNDS {
        let number = |schema: &Value| schema.get(word).and_then(Value::as_f64);
        match (number(old), number(new)) {
            (None, Some(_)) => found.push(format!("{path}: {word} is new")),
            (Some(before), Some(now)) if is_narrower(before, now) => {
                found.push(format!("{path}: {word} went from {before} to {now}"));
            }
            _ => {}
        }
    }
    compare_choices(path, old, new, found);
    for name in set(new.get("required")).difference(&set(old.get("required"))) {
        found.push(format!("{path}: {name} is now required"));
    }
    let (before, now) = (&old["properties"], &new["properties"]);
    for name in keys(before) {
        match now.get(&name) {
            None => found.push(format!("{path}.{name} is gone")),
            Some(now) => compare(&format!("{path}.{name}"), &before[&name], now, found),
        }
    }
    for (word, sign) in [("items", "[]"), ("additionalProperties", "{}")] {
        match (old.get(word).filter(|it| it.is_object()), new.get(word).filter(|it| it.is_object())) {
            (Some(old), Some(new)) => compare(&format!("{path}{sign}"), old, new, found),
            (Some(_), None) => found.push(format!("{path}: {word} is gone")),
            _ => {}
        }
    }
}

/// Whether the second of two bounds is narrower than the first.
type IsNarrower = fn(f64, f64) -> bool;

const BOUNDS: [(&str, IsNarrower); 8] = [
    ("maxLength", |before, now| now < before),
    ("maxItems", |before, now| now < before),
    ("maxProperties", |before, now| now < before),
    ("maximum", |before, now| now < before),
    ("minLength", |before, now| now > before),
    ("minItems", |before, now| now > before),
    ("minProperties", |before, now| now > before),
    ("minimum", |before, now| now > before),
];

/// What is said by lists: words that are allowed, rules that must hold.
fn compare_choices(path: &str, old: &Value, new: &Value, found: &mut Vec<String>) {
    match (old.get("enum"), new.get("enum")) {
        (None, Some(_)) => found.push(format!("{path}: only some words are allowed now")),
        (before, Some(now)) => {
            found.extend(
                set(before).difference(&set(Some(now))).map(|word| format!("{path}: {word} is not allowed any more")),
            );
        }
        _ => {}
    }
    let rules = |schema: &Value| -> BTreeSet<String> {
        let rules = schema["x-kubernetes-validations"].as_array().cloned().unwrap_or_default();
        rules.iter().filter_map(|rule| rule["rule"].as_str().map(str::to_owned)).collect()
    };
    for rule in rules(new).difference(&rules(old)) {
        found.push(format!("{path}: a rule is new: {rule}"));
    }
}

fn text(schema: &Value, word: &str) -> String {
    schema.get(word).map_or_else(|| "none".to_owned(), ToString::to_string)
}

fn keys(object: &Value) -> BTreeSet<String> {
    object.as_object().into_iter().flatten().map(|(key, _)| key.clone()).collect()
}

fn set(list: Option<&Value>) -> BTreeSet<String> {
    let list = list.and_then(Value::as_array).cloned().unwrap_or_default();
    list.iter().map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned)).collect()
}

/// What git says in this work tree; none where it is no work tree, or there is no such thing.
fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).current_dir(env!("CARGO_MANIFEST_DIR")).output().ok()?;
    output.status.success().then(|| String::from_utf8(output.stdout).ok())?
}

fn last_release() -> Option<String> {
    let tags = git(&["tag", "--list", "v*", "--sort=-version:refname"])?;
    tags.lines().next().map(str::to_owned)
}

#[test]
fn what_the_last_release_took_is_taken() {
    let release = last_release();
    let mut found = Vec::new();
    for (file, text) in api::crd_files().unwrap() {
        let path = Path::new("crds").join(&file);
        let before = match &release {
            // A kind that is new has nothing to keep.
            Some(tag) => git(&["show", &format!("{tag}:{}", path.display())]),
            None => std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(&path)).ok(),
        };
        let Some(before) = before else { continue };
        let (before, now): (Value, Value) =
            (serde_saphyr::from_str(&before).unwrap(), serde_saphyr::from_str(&text).unwrap());
        found.extend(breaks(&before, &now).into_iter().map(|what| format!("{file}: {what}")));
    }
    let is_reviewed =
        |what: &String| REVIEWED.iter().any(|(tag, reviewed)| release.as_deref() == Some(*tag) && reviewed == what);
    found.retain(|what| !is_reviewed(what));
    assert_eq!(found, Vec::<String>::new(), "compared with {}", release.as_deref().unwrap_or("itself"));
}

#[test]
fn no_kind_of_the_last_release_is_gone() {
    let Some(tag) = last_release() else { return };
    let files = git(&["ls-tree", "--name-only", &tag, "crds/"]).unwrap_or_default();
    let now: BTreeSet<String> = api::crd_files().unwrap().into_iter().map(|(file, _)| format!("crds/{file}")).collect();
    let gone: Vec<&str> = files.lines().filter(|file| !now.contains(*file)).collect();
    assert_eq!(gone, Vec::<&str>::new());
}

/// A definition with this schema for `spec`.
fn crd(spec: &Value) -> Value {
    let schema = json!({"type": "object", "properties": {"spec": spec}});
    json!({"spec": {
        "group": "g", "scope": "Namespaced", "names": {"kind": "K", "plural": "ks", "shortNames": ["k"]},
        "versions": [{
            "name": "v1", "served": true, "subresources": {"status": {}},
            "selectableFields": [{"jsonPath": ".spec.a"}],
            "schema": {"openAPIV3Schema": schema},
        }],
    }})
}

fn changes(old: &Value, new: &Value) -> Vec<String> {
    breaks(&crd(old), &crd(new))
}

#[test]
fn what_is_wider_or_new_breaks_nothing() {
    for (old, new) in [
        (json!({"type": "string"}), json!({"type": "string", "description": "said"})),
        (json!({"type": "object"}), json!({"type": "object", "properties": {"a": {"type": "string", "default": "x"}}})),
        (json!({"type": "string", "enum": ["A"]}), json!({"type": "string", "enum": ["A", "B"]})),
        (json!({"type": "string", "enum": ["A"]}), json!({"type": "string"})),
        (json!({"type": "string", "maxLength": 5, "pattern": "a"}), json!({"type": "string", "maxLength": 6})),
        (json!({"type": "integer", "minimum": 5}), json!({"type": "integer", "minimum": 4})),
        (json!({"type": "object", "required": ["a"]}), json!({"type": "object"})),
        (
            json!({"type": "object", "x-kubernetes-validations": [{"rule": "true", "message": "a"}]}),
            json!({"type": "object", "x-kubernetes-validations": [{"rule": "true", "message": "b"}]}),
        ),
    ] {
        assert_eq!(changes(&old, &new), Vec::<String>::new(), "{old} {new}");
    }
}

#[test]
fn what_is_gone_narrower_required_or_means_something_else_is_found() {
    let list = |kind: &str| json!({"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": kind});
    for (old, new, expected) in [
        (json!({"properties": {"a": {}}}), json!({"properties": {}}), "v1.spec.a is gone"),
        (json!({"type": "string"}), json!({"type": "integer"}), "v1.spec: type changed from \"string\" to \"integer\""),
        (json!({"maxLength": 5}), json!({"maxLength": 4}), "v1.spec: maxLength went from 5 to 4"),
        (json!({}), json!({"maxItems": 4}), "v1.spec: maxItems is new"),
        (json!({"minimum": 1}), json!({"minimum": 2}), "v1.spec: minimum went from 1 to 2"),
        (json!({"enum": ["A", "B"]}), json!({"enum": ["A"]}), "v1.spec: B is not allowed any more"),
        (json!({}), json!({"enum": ["A"]}), "v1.spec: only some words are allowed now"),
        (json!({"pattern": "a"}), json!({"pattern": "b"}), "v1.spec: pattern is narrower"),
        (json!({}), json!({"format": "date-time"}), "v1.spec: format is narrower"),
        (json!({}), json!({"required": ["a"]}), "v1.spec: a is now required"),
        (json!({"default": 1}), json!({"default": 2}), "v1.spec: default changed from 1 to 2"),
        (json!({"default": 1}), json!({}), "v1.spec: default changed from 1 to none"),
        (json!({}), json!({"default": 1}), "v1.spec: default changed from none to 1"),
        (list("set"), list("atomic"), "v1.spec: x-kubernetes-list-type changed from \"set\" to \"atomic\""),
        (json!({}), json!({"x-kubernetes-validations": [{"rule": "self > 1"}]}), "v1.spec: a rule is new: self > 1"),
        (
            json!({"items": {"maxLength": 5}}),
            json!({"items": {"maxLength": 4}}),
            "v1.spec[]: maxLength went from 5 to 4",
        ),
        (
            json!({"additionalProperties": {"maxLength": 5}}),
            json!({"additionalProperties": {"maxLength": 4}}),
            "v1.spec{}: maxLength went from 5 to 4",
        ),
    ] {
        assert_eq!(changes(&old, &new), [expected]);
    }
}

#[test]
fn versions_names_subresources_and_selectable_fields_stay() {
    let old = crd(&json!({"type": "object"}));
    let changed = |pointer: &str, value: Value| {
        let mut new = old.clone();
        *new.pointer_mut(pointer).unwrap() = value;
        breaks(&old, &new)
    };
    assert_eq!(changed("/spec/versions/0/served", json!(false)), ["version v1 is gone"]);
    assert_eq!(changed("/spec/versions", json!([])), ["version v1 is gone"]);
    assert_eq!(changed("/spec/scope", json!("Cluster")), ["the scope changed"]);
    assert_eq!(changed("/spec/names/kind", json!("L")), ["the kind changed"]);
    assert_eq!(changed("/spec/names/shortNames", json!([])), ["the short name k is gone"]);
    assert_eq!(changed("/spec/versions/0/subresources", json!({})), ["v1: the subresource status is gone"]);
    assert_eq!(changed("/spec/versions/0/selectableFields", json!([])), ["v1: .spec.a can no longer be selected by"]);
    assert_eq!(breaks(&old, &old), Vec::<String>::new());
}
