//! Selections by labels, as kubectl's `-l` writes them and objects have them.
//!
//! Source: "Labels and Selectors" in the Kubernetes documentation.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelectorRequirement;

/// Reads `a=b,c!=d,e,!f,g in (h,i),j notin (k)`.
pub(super) fn selector(text: &str) -> Result<LabelSelector, String> {
    let mut labels = BTreeMap::new();
    let mut expressions = Vec::new();
    for part in parts(text) {
        match requirement(part.trim()).ok_or_else(|| format!("'{}' selects no labels; such as gpu=a10", part.trim()))? {
            Part::Equal(key, value) => {
                if let Some(other) = labels.insert(key.clone(), value.clone())
                    && other != value
                {
                    return Err(format!("the label {key} cannot be {other} and {value}"));
                }
            }
            Part::Other(requirement) => expressions.push(requirement),
        }
    }
    Ok(LabelSelector {
        match_labels: Some(labels).filter(|labels| !labels.is_empty()),
        match_expressions: Some(expressions).filter(|expressions| !expressions.is_empty()),
    })
}

enum Part {
    Equal(String, String),
    Other(LabelSelectorRequirement),
}

/// The parts between commas that are not in parentheses.
fn parts(text: &str) -> Vec<&str> {
    let mut depth = 0;
    let is_end = |c: char| {
        depth += i32::from(c == '(') - i32::from(c == ')');
        c == ',' && depth == 0
    };
    text.split(is_end).collect()
}

fn requirement(part: &str) -> Option<Part> {
    let other = |key: &str, operator: &str, values: Option<Vec<String>>| {
        let key = key.trim();
        let is_key = !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || "-_./".contains(c));
        let operator = operator.to_owned();
        is_key.then(|| LabelSelectorRequirement { key: key.to_owned(), operator, values })
    };
    if let Some((key, value)) = part.split_once("!=") {
        return other(key, "NotIn", Some(vec![value.trim().to_owned()])).map(Part::Other);
    }
    if let Some((key, value)) = part.split_once('=') {
        let value = value.strip_prefix('=').unwrap_or(value).trim();
        return other(key, "In", None).map(|it| Part::Equal(it.key, value.to_owned()));
    }
    if let Some(key) = part.strip_prefix('!') {
        return other(key, "DoesNotExist", None).map(Part::Other);
    }
    if let Some((head, values)) = part.split_once('(') {
        let values = values.trim_end().strip_suffix(')')?;
        let values: Vec<_> = values.split(',').map(|value| value.trim().to_owned()).collect();
        let (key, word) = head.trim().rsplit_once(char::is_whitespace)?;
        let operator = match word {
            "in" => "In",
            "notin" => "NotIn",
            _ => return None,
        };
        return other(key, operator, Some(values)).map(Part::Other);
    }
    other(part, "Exists", None).map(Part::Other)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_form_of_kubectl_is_read() {
        let read = serde_json::to_value(selector("a=b, c==d,e!=f,g/h,!i,j in (k, l),m notin (n)").unwrap()).unwrap();
        let one = |key: &str, operator: &str, values: &[&str]| match values {
            [] => json!({"key": key, "operator": operator}),
            values => json!({"key": key, "operator": operator, "values": values}),
        };
        let expected = json!({"matchLabels": {"a": "b", "c": "d"}, "matchExpressions": [
            one("e", "NotIn", &["f"]), one("g/h", "Exists", &[]), one("i", "DoesNotExist", &[]),
            one("j", "In", &["k", "l"]), one("m", "NotIn", &["n"])]});
        assert_eq!(read, expected);
        for wrong in ["", "a=b,", "=b", "a b", "a in (b", "a within (b)", "a=b,a=c"] {
            assert!(selector(wrong).is_err(), "{wrong}");
        }
    }
}
