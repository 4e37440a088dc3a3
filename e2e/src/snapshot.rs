//! Objects of the API server as files of the work tree: made comparable, and compared or, with `E2E_REFRESH=1`, written anew.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use regex::Captures;
use regex::Regex;
use serde_json::Value;

/// What every time becomes, except the one that stands for never.
const TIME: &str = "2026-01-01T00:00:00Z";
const NEVER: &str = "1970-01-01T00:00:00Z";

/// `object` without what is another in each run: ids, times, ports, versions; and with `names` in place of the run's own.
pub fn comparable(object: &Value, names: &[(&str, &str)]) -> Value {
    let mut object = object.clone();
    if let Some(metadata) = object["metadata"].as_object_mut() {
        metadata.remove("managedFields");
        metadata.insert("resourceVersion".into(), "1000".into());
    }
    if let Some(version) = object.pointer_mut("/status/agent/version") {
        *version = "0.1.0".into();
    }
    if let Some(version) = object.pointer_mut("/status/version") {
        *version = "0.1.0".into();
    }
    let mut text = object.to_string();
    for (from, to) in names {
        text = text.replace(from, to);
    }
    let pattern = |pattern: &str| Regex::new(pattern).expect("our patterns are well-formed");
    let mut ids = BTreeMap::new();
    let text = pattern(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}").replace_all(&text, |found: &Captures<'_>| {
        let next = ids.len() + 1;
        format!("00000000-0000-4000-8000-{:012}", ids.entry(found[0].to_owned()).or_insert(next))
    });
    let text = pattern(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")
        .replace_all(&text, |found: &Captures<'_>| if &found[0] == NEVER { NEVER } else { TIME }.to_owned());
    let text = pattern("[0-9a-f]{64}").replace_all(&text, "0".repeat(64));
    let text = pattern(r"127\.0\.0\.1:\d+").replace_all(&text, "127.0.0.1:8444");
    let text = pattern(r#""port":\d+"#).replace_all(&text, r#""port":8444"#);
    serde_json::from_str(&text).expect("it is still an object")
}

/// Compares a file with what it should hold, or writes that: what differs, in words.
pub fn difference(file: &Path, object: &Value) -> Option<String> {
    let text = serde_saphyr::to_string(object).expect("an object is plain data");
    if crate::is_refreshing() {
        fs::create_dir_all(file.parent().expect("it is in a folder")).expect("the folder can be made");
        fs::write(file, text).expect("the file can be written");
        return None;
    }
    let old = fs::read_to_string(file).unwrap_or_default();
    (old != text).then(|| {
        let (old, new): (Vec<_>, Vec<_>) = (old.lines().collect(), text.lines().collect());
        let only = |these: &[&str], those: &[&str], sign: &str| -> String {
            let lines = these.iter().filter(|line| !those.contains(line));
            lines.flat_map(|line| ["\n    ", sign, " ", *line]).collect()
        };
        format!(
            "{} is another (E2E_REFRESH=1 writes it):{}{}",
            file.display(),
            only(&old, &new, "-"),
            only(&new, &old, "+")
        )
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_differs_from_run_to_run_is_levelled() {
        let (one, other) = ("0b1c7f0e-5f43-4c34-9a3e-0d6f2f2c9f11", "0b1c7f0e-5f43-4c34-9a3e-0d6f2f2c9f12");
        let object = json!({
            "metadata": {"uid": one, "namespace": "e2e-x-1", "resourceVersion": "7", "managedFields": []},
            "status": {"sessionId": one, "serverUid": other, "since": "2026-05-06T07:08:09Z", "never": NEVER,
                "message": "server host-e2e-fake-1, silent since 2026-05-06T07:08:09Z", "port": 12345,
                "agent": {"version": "9.9.9", "url": "https://127.0.0.1:2222"}},
        });
        let id = |number| format!("00000000-0000-4000-8000-00000000000{number}");
        let found = comparable(&object, &[("e2e-x-1", "team-a"), ("host-e2e-fake-", "host-")]);
        // Ids are numbered as they come, and keys are sorted.
        let expected = json!({
            "metadata": {"uid": id(1), "namespace": "team-a", "resourceVersion": "1000"},
            "status": {"sessionId": id(1), "serverUid": id(2), "since": TIME, "never": NEVER,
                "message": format!("server host-1, silent since {TIME}"), "port": 8444,
                "agent": {"version": "0.1.0", "url": "https://127.0.0.1:8444"}},
        });
        assert_eq!(found, expected);
    }
}
