//! What GitOps tools make of our objects in every situation: the table in `docs/gitops.md`, the scripts for Argo CD, the
//! expressions for Flux and the rules of kstatus say the same.
//!
//! The objects are in `contrib/argocd`, in the layout in which Argo CD keeps such scripts. They are those of a real API
//! server: `e2e/tests/health.rs` brings objects into each situation and compares.

mod argocd;
mod flux;
mod kstatus;

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::path::PathBuf;

use argocd::Health;
use flux::Expressions;
use kstatus::Status;
use serde::Deserialize;
use serde_json::Value;
use serde_json::json;

const KINDS: [&str; 3] = ["DcvSession", "DcvServer", "ApiClient"];

/// A row of the page's tables.
struct Row {
    name: String,
    kstatus: Status,
    argocd: String,
}

/// `health_test.yaml`, as Argo CD's own tests read it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Cases {
    tests: Vec<Case>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Case {
    health_status: Health,
    input_path: String,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn folder(kind: &str) -> PathBuf {
    root().join("contrib/argocd/resource_customizations/dcv-operator.io").join(kind)
}

fn script(kind: &str) -> PathBuf {
    folder(kind).join("health.lua")
}

/// The objects of a kind by their situation.
fn objects(kind: &str) -> BTreeMap<String, Value> {
    let files = fs::read_dir(folder(kind).join("testdata")).unwrap();
    files
        .map(|file| {
            let path = file.unwrap().path();
            let object = serde_saphyr::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
            (path.file_stem().unwrap().to_str().unwrap().to_owned(), object)
        })
        .collect()
}

/// The page's table for a kind.
fn rows(kind: &str) -> Vec<Row> {
    let page = read("docs/gitops.md");
    let (_, rest) = page.split_once(&format!("\n### {kind}\n")).unwrap_or_else(|| panic!("no table of {kind}"));
    let lines = rest.split("\n#").next().unwrap().lines().filter_map(|line| line.strip_prefix("| `"));
    lines
        .map(|line| {
            let cells: Vec<_> = line.split(" | ").map(|cell| cell.trim_end_matches([' ', '|', '`'])).collect();
            let [name, _, kstatus, argocd, _] = cells[..] else { panic!("a row has five cells: {line}") };
            let kstatus = match kstatus {
                "InProgress" => Status::InProgress,
                "Failed" => Status::Failed,
                "Current" => Status::Current,
                "Terminating" => Status::Terminating,
                other => panic!("{name} is {other}"),
            };
            Row { name: name.to_owned(), kstatus, argocd: argocd.to_owned() }
        })
        .collect()
}

fn documents(path: &str) -> Vec<Value> {
    read(path).split("\n---\n").map(|text| serde_saphyr::from_str(text).unwrap()).collect()
}

fn expressions(kind: &str) -> Expressions {
    let documents = documents("contrib/flux/desktops.yaml");
    let list = documents.iter().find_map(|document| document["spec"].get("healthCheckExprs")).unwrap();
    let list: Vec<Expressions> = serde_json::from_value(list.clone()).unwrap();
    let found = list.into_iter().find(|entry| entry.kind == kind).unwrap_or_else(|| panic!("nothing for {kind}"));
    assert_eq!(found.api_version, "dcv-operator.io/v1alpha1");
    found
}

/// What Flux can say: it knows no fourth word.
fn in_flux(status: Status) -> Status {
    if status == Status::Terminating { Status::InProgress } else { status }
}

/// What Argo CD calls it.
fn in_argocd(status: Status) -> &'static str {
    match status {
        Status::InProgress | Status::Terminating => "Progressing",
        Status::Failed => "Degraded",
        Status::Current => "Healthy",
    }
}

#[test]
fn every_situation_has_an_object_a_row_of_the_page_and_a_case_for_argo_cd() {
    for kind in KINDS {
        let objects: BTreeSet<_> = objects(kind).into_keys().collect();
        let rows: Vec<_> = rows(kind).into_iter().map(|row| row.name).collect();
        assert_eq!(rows.len(), objects.len(), "a row for each object of {kind}");
        assert_eq!(rows.into_iter().collect::<BTreeSet<_>>(), objects, "of {kind}");
        let cases: Cases =
            serde_saphyr::from_str(&fs::read_to_string(folder(kind).join("health_test.yaml")).unwrap()).unwrap();
        let cases: BTreeSet<_> = cases.tests.into_iter().map(|case| case.input_path).collect();
        assert_eq!(cases, objects.iter().map(|name| format!("testdata/{name}.yaml")).collect(), "of {kind}");
    }
}

#[test]
fn kstatus_and_flux_say_what_the_page_says() {
    for kind in KINDS {
        let (objects, expressions) = (objects(kind), expressions(kind));
        for Row { name, kstatus, .. } in rows(kind) {
            let object = &objects[&name];
            assert_eq!(kstatus::status(object), kstatus, "{kind} {name}");
            assert_eq!(expressions.status(object), in_flux(kstatus), "{kind} {name} in Flux");
        }
    }
}

#[test]
fn argo_cd_says_what_the_page_and_its_own_cases_say() {
    for kind in KINDS {
        let objects = objects(kind);
        let rows: BTreeMap<_, _> = rows(kind).into_iter().map(|row| (row.name, row.argocd)).collect();
        let cases: Cases =
            serde_saphyr::from_str(&fs::read_to_string(folder(kind).join("health_test.yaml")).unwrap()).unwrap();
        let name = |case: &Case| case.input_path.replace("testdata/", "").replace(".yaml", "");
        let found =
            argocd::health(&script(kind), &cases.tests.iter().map(|case| &objects[&name(case)]).collect::<Vec<_>>());
        let found: Vec<_> = cases.tests.iter().map(name).zip(found).collect();
        let expected = cases.tests.iter().map(|case| (name(case), case.health_status.clone()));
        assert_eq!(found, expected.collect::<Vec<_>>(), "{kind}");
        for (name, health) in found {
            assert_eq!(health.status, rows[&name], "{kind} {name}");
        }
    }
}

/// Every reason with which a session ends, or stalls, is in one of the objects, so that a new one is not forgotten.
#[test]
fn every_end_of_a_session_is_among_the_objects() {
    let objects = objects("DcvSession");
    let reasons = |type_: &str, status: &str| -> BTreeSet<_> {
        let all = objects.values().flat_map(|object| object["status"]["conditions"].as_array().unwrap());
        let found = all.filter(|condition| condition["type"] == type_ && condition["status"] == status);
        found.map(|condition| condition["reason"].as_str().unwrap().to_owned()).collect()
    };
    let page = read("docs/sessions.md");
    for type_ in ["Scheduled", "Created", "Ready", "Finished", "Stalled"] {
        let row = page.lines().find_map(|line| line.strip_prefix(&format!("| {type_} | "))).unwrap();
        let (on_true, rest) = row.split_once(" | ").unwrap();
        let (on_false, on_unknown) = rest.split_once("; Unknown: ").unwrap_or((rest, ""));
        for (status, documented) in [("True", on_true), ("False", on_false), ("Unknown", on_unknown)] {
            // A remark in parentheses explains the word before it.
            let words = documented.split([',', '(', ')', '|']).map(str::trim);
            let words = words.filter(|word| !word.is_empty() && !word.contains(' '));
            let words: BTreeSet<_> = words.map(str::to_owned).collect();
            assert_eq!(reasons(type_, status), words, "{type_}={status}");
        }
    }
}

/// An object with these conditions, each with the status or absent.
fn object(kind: &str, observed: Option<i64>, deleted: bool, conditions: &[(&str, Option<&str>)]) -> Value {
    let conditions: Vec<_> = conditions
        .iter()
        .filter_map(|(type_, status)| {
            let status = (*status)?;
            Some(json!({"type": type_, "status": status, "reason": "Why", "message": "", "observedGeneration": 2}))
        })
        .collect();
    let mut object = json!({
        "apiVersion": "dcv-operator.io/v1alpha1", "kind": kind, "metadata": {"name": "a", "generation": 2}, "spec": {},
        "status": {"conditions": conditions},
    });
    if let Some(observed) = observed {
        object["status"]["observedGeneration"] = observed.into();
    }
    if deleted {
        object["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
    }
    object
}

/// Not only in the situations there are: whatever a later version writes, the three go by the same rules.
#[test]
fn the_three_agree_on_every_combination_of_conditions() {
    let always = [None, Some("True"), Some("False"), Some("Unknown")];
    let abnormal = [None, Some("True")];
    for kind in KINDS {
        let mut all = Vec::new();
        for (ready, reconciling) in always.into_iter().flat_map(|ready| abnormal.map(|it| (ready, it))) {
            for (stalled, finished) in abnormal.into_iter().flat_map(|stalled| abnormal.map(|it| (stalled, it))) {
                // Without either nobody can tell, and kstatus guesses.
                let finished = finished.filter(|_| kind == "DcvSession");
                if ready.is_none() && finished.is_none() || ready.is_some() && finished.is_some() {
                    continue;
                }
                for (observed, deleted) in [(None, false), (Some(1), false), (Some(2), false), (Some(2), true)] {
                    let conditions =
                        [("Finished", finished), ("Ready", ready), ("Reconciling", reconciling), ("Stalled", stalled)];
                    all.push(object(kind, observed, deleted, &conditions));
                }
            }
        }
        let expressions = expressions(kind);
        let argocd = argocd::health(&script(kind), &all.iter().collect::<Vec<_>>());
        assert_eq!(argocd.len(), all.len());
        for (object, argocd) in all.iter().zip(argocd) {
            let status = kstatus::status(object);
            assert_eq!(expressions.status(object), in_flux(status), "{object:#}");
            assert_eq!(argocd.status, in_argocd(status), "{object:#}");
        }
    }
}

#[test]
fn the_scripts_to_install_are_those_that_are_tested() {
    let config = documents("contrib/argocd/argocd-cm.yaml").remove(0);
    let expected: serde_json::Map<_, _> = KINDS
        .iter()
        .map(|kind| {
            let key = format!("resource.customizations.health.dcv-operator.io_{kind}");
            (key, fs::read_to_string(script(kind)).unwrap().into())
        })
        .collect();
    assert_eq!(config["data"], Value::Object(expected));
}

/// The page shows whole files, so that a reader sees all and the tests use what he copies.
#[test]
fn the_manifests_on_the_page_are_those_of_contrib() {
    let page = read("docs/gitops.md");
    for file in ["contrib/flux/desktops.yaml", "contrib/argocd/application.yaml"] {
        let (_, rest) = page.split_once(&format!("<!-- {file} -->\n```yaml\n")).unwrap_or_else(|| panic!("no {file}"));
        assert_eq!(rest.split("```\n").next().unwrap(), read(file), "{file}");
    }
}
