//! Alerts and dashboards look at metrics that there are, and each alert has its page.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::path::PathBuf;

use regex::Regex;
use serde_json::Value;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

fn files(folder: &str, extension: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(root().join(folder)).unwrap().map(|entry| entry.unwrap().path());
    let found: Vec<_> = entries.filter(|path| path.extension().is_some_and(|it| it == extension)).collect();
    assert!(!found.is_empty(), "there is no .{extension} in {folder}");
    found
}

/// The metrics of the page, with the type of each.
fn documented() -> BTreeMap<String, String> {
    let page = fs::read_to_string(root().join("docs/metrics.md")).unwrap();
    let section = page.split("\n## ").find(|section| section.starts_with("Metrics\n")).unwrap();
    let rows = section.lines().filter(|line| line.starts_with("| `"));
    let cell = |row: &str, number: usize| row.split('|').nth(number).unwrap().trim().trim_matches('`').to_owned();
    rows.map(|row| (cell(row, 1), cell(row, 2))).collect()
}

/// The metrics that a query looks at: its words with an underscore, without labels, texts and the language's own.
fn metrics(query: &str) -> BTreeSet<String> {
    let query = Regex::new(r#""[^"]*""#).unwrap().replace_all(query, "");
    let query = Regex::new(r"\{[^}]*\}|\b(by|on)\s*\([^)]*\)|\$\w+|\$\{\w+\}").unwrap().replace_all(&query, " ");
    let words = Regex::new(r"[a-z][a-z0-9]*_[a-z0-9_]+").unwrap();
    let own = ["group_left", "histogram_quantile", "label_values"];
    words.find_iter(&query).map(|word| word.as_str().to_owned()).filter(|word| !own.contains(&word.as_str())).collect()
}

fn check(place: &str, query: &str, documented: &BTreeMap<String, String>) {
    let found = metrics(query);
    assert!(!found.is_empty(), "{place} looks at no metric: {query}");
    for metric in found {
        let parts = ["_bucket", "_count", "_sum"].iter().filter_map(|part| metric.strip_suffix(part));
        let is_histogram = parts.map(|base| documented.get(base)).any(|kind| kind.is_some_and(|it| it == "histogram"));
        let is_plain = documented.get(&metric).is_some_and(|kind| kind != "histogram");
        assert!(is_histogram || is_plain, "{place} looks at {metric}, which docs/metrics.md does not list");
    }
}

/// What can be set of each alert, `metrics.prometheusRule.alerts` in the chart's values.
fn alert_values() -> serde_json::Map<String, Value> {
    let text = fs::read_to_string(root().join("charts/dcv-operator/values.yaml")).unwrap();
    let values: Value = serde_saphyr::from_str(&text).unwrap();
    values["metrics"]["prometheusRule"]["alerts"].as_object().unwrap().clone()
}

/// Every alert: its name, and the rule.
fn alerts() -> Vec<(String, Value)> {
    let mut alerts = Vec::new();
    for file in files("charts/dcv-operator/files/alerts", "yaml") {
        let text = fs::read_to_string(file).unwrap();
        let rules: Value = serde_saphyr::from_str(&text).unwrap();
        for group in rules["groups"].as_array().unwrap() {
            for rule in group["rules"].as_array().unwrap() {
                alerts.push((rule["alert"].as_str().unwrap().to_owned(), rule.clone()));
            }
        }
    }
    alerts
}

#[test]
fn alerts_look_at_metrics_that_there_are_and_say_what_people_need() {
    let (documented, values) = (documented(), alert_values());
    for (name, rule) in alerts() {
        check(&name, rule["expr"].as_str().unwrap(), &documented);
        assert!(name.starts_with("Dcv"), "{name}");
        let severity = values[&name]["severity"].as_str();
        assert!(matches!(severity, Some("critical" | "warning" | "info")), "{name}: {severity:?}");
        for key in ["summary", "description"] {
            assert!(rule["annotations"][key].as_str().is_some_and(|text| !text.is_empty()), "{name} has no {key}");
        }
    }
}

#[test]
fn each_value_of_an_alert_has_its_place_in_the_rule_and_each_place_a_value() {
    let mut values = alert_values();
    let place = Regex::new(r"\$\{(\w+)\}").unwrap();
    for (name, rule) in alerts() {
        let mut of_alert = values.remove(&name).unwrap_or_else(|| panic!("nothing of {name} can be set"));
        let of_alert = of_alert.as_object_mut().unwrap();
        assert_eq!(of_alert.remove("enabled"), Some(Value::Bool(true)), "{name}");
        assert_eq!(of_alert.remove("labels"), Some(Value::Object(serde_json::Map::new())), "{name}");
        let text = rule.to_string();
        let places: BTreeSet<_> = place.captures_iter(&text).map(|found| found[1].to_owned()).collect();
        assert_eq!(places, of_alert.keys().cloned().collect(), "{name}");
        assert_eq!((&rule["for"], &rule["labels"]["severity"]), (&"${for}".into(), &"${severity}".into()), "{name}");
    }
    assert_eq!(values.keys().collect::<Vec<_>>(), Vec::<&String>::new(), "no such alerts");
}

#[test]
fn each_alert_has_its_runbook_and_its_tests_and_each_runbook_its_alert() {
    let names = alerts().into_iter().map(|(name, rule)| {
        let url = rule["annotations"]["runbook_url"].as_str().unwrap_or_default().to_owned();
        assert!(url.starts_with("https://") && url.ends_with(&format!("/docs/runbooks/{name}")), "{name}: {url}");
        name
    });
    let names: BTreeSet<String> = names.collect();
    let pages: BTreeSet<String> = files("docs/runbooks", "md")
        .into_iter()
        .map(|path| {
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            let text = fs::read_to_string(&path).unwrap();
            assert!(text.starts_with(&format!("# {name}\n")) && text.contains("## What to do"), "{}", path.display());
            name
        })
        .collect();
    assert_eq!(names, pages);
    let tests = files("charts/dcv-operator/files/alerts/tests", "yaml");
    let tests: String = tests.into_iter().map(|path| fs::read_to_string(path).unwrap()).collect();
    for name in names {
        assert!(tests.contains(&format!("{{alertname=\"{name}\"")), "no test has {name} fire");
    }
}

#[test]
fn dashboards_look_at_metrics_that_there_are() {
    let documented = documented();
    for file in files("charts/dcv-operator/files/dashboards", "json") {
        let dashboard: Value = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
        assert!(["uid", "title", "schemaVersion", "templating"].iter().all(|key| !dashboard[key].is_null()));
        let mut ids = BTreeSet::new();
        let mut places = Vec::new();
        for panel in dashboard["panels"].as_array().unwrap() {
            let title = panel["title"].as_str().unwrap();
            assert!(ids.insert(panel["id"].as_u64().unwrap()), "{title}: its id is another panel's");
            let at = |key: &str| panel["gridPos"][key].as_u64().unwrap();
            let place = [at("x"), at("y"), at("x") + at("w"), at("y") + at("h")];
            let meets = |other: &&[u64; 4]| {
                place[0] < other[2] && other[0] < place[2] && place[1] < other[3] && other[1] < place[3]
            };
            assert!(place[2] <= 24 && places.iter().find(meets).is_none(), "{title} lies on another panel");
            places.push(place);
            for target in panel["targets"].as_array().into_iter().flatten() {
                check(title, target["expr"].as_str().unwrap(), &documented);
            }
        }
        for variable in dashboard["templating"]["list"].as_array().unwrap() {
            if variable["type"] == "query" {
                check("a variable", variable["definition"].as_str().unwrap().split(',').next().unwrap(), &documented);
            }
        }
    }
}

#[test]
fn the_metrics_of_a_query_are_found_among_everything_else() {
    let query = r#"histogram_quantile(0.9, sum by (le, a_b) (rate(dcv_a_seconds_bucket{x_y="dcv_no",namespace=~"$name_space"}[5m])
        * on (job_x) group_left () max by (job) (dcv_build_info)))"#;
    assert_eq!(metrics(query), BTreeSet::from(["dcv_a_seconds_bucket".to_owned(), "dcv_build_info".to_owned()]));
}
