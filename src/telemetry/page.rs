//! Compares a scrape with `docs/metrics.md`, for the tests of each role.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::registry::Registry;

use super::metrics;
use super::watches;

/// Type and labels of each metric.
type Metrics = BTreeMap<String, (String, BTreeSet<String>)>;

/// Fails unless what `registry` serves and what the page lists for `role` are the same, with types and labels. Everything
/// in it must have a value: what has none is not served.
pub fn check(role: &str, registry: &Registry) {
    let _following = watches::follow("/apis/a/v1/things", None);
    metrics::called("GET", &Arc::from("localhost"), Some(200), Duration::from_millis(1));
    if role != "controller" {
        let rcgen::CertifiedKey { cert, .. } = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        metrics::note_certificate("test", cert.pem().as_bytes());
    }
    let mut served = served(&metrics::text(registry).unwrap());
    if role == "controller" {
        // Tests of other roles run in this process.
        served.remove("dcv_certificate_expiry_timestamp_seconds");
    }
    assert_eq!(served, listed(role), "what is served (left) and what docs/metrics.md says (right)");
}

/// What a scrape has.
fn served(text: &str) -> Metrics {
    let mut found = Metrics::new();
    for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let (family, kind) = line.split_once(' ').unwrap();
        let (suffix, sample) = match kind {
            "counter" => ("_total", "_total"),
            "histogram" => ("", "_count"),
            "info" => ("_info", "_info"),
            _ => ("", ""),
        };
        let sample = format!("{family}{sample}");
        let is_sample = |line: &&str| line.strip_prefix(&sample).is_some_and(|rest| rest.starts_with(['{', ' ']));
        let line = text.lines().find(is_sample).unwrap_or_else(|| panic!("{family} has no value"));
        // No label's value of ours has a comma or an equals sign.
        let labels = line.split_once('{').map_or("", |(_, rest)| rest.split_once("} ").unwrap().0);
        let labels = labels.split(',').filter_map(|label| label.split_once('=')).map(|(name, _)| name.to_owned());
        found.insert(format!("{family}{suffix}"), (kind.to_owned(), labels.collect()));
    }
    found
}

/// What the page lists for a role.
fn listed(role: &str) -> Metrics {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/metrics.md")).unwrap();
    let section = page.split("\n## ").find(|section| section.starts_with("Metrics\n")).unwrap();
    let rows = section.lines().filter(|line| line.starts_with("| `"));
    let cells = rows.map(|row| row.split('|').skip(1).map(str::trim).collect::<Vec<_>>());
    cells
        .filter(|cells| cells[3].split(' ').any(|of| of == role))
        .map(|cells| {
            assert!(matches!(cells[4], "stable" | "alpha") && !cells[5].is_empty(), "{cells:?}");
            let labels = cells[2].split(' ').filter(|label| !label.is_empty());
            let labels = labels.map(|label| label.trim_matches('`').to_owned()).collect();
            (cells[0].trim_matches('`').to_owned(), (cells[1].to_owned(), labels))
        })
        .collect()
}
