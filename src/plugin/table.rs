//! Tables as the API server draws them, so that they show what `kubectl get` shows.

use serde::Deserialize;
use serde_json::Value;

/// What to ask for to get a table instead of a list.
pub(super) const ACCEPT: &str = "application/json;as=Table;v=v1;g=meta.k8s.io";

/// A list as the API server shows it to people.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Table {
    column_definitions: Vec<Column>,
    #[serde(default)]
    pub rows: Vec<Row>,
}

#[derive(Deserialize)]
struct Column {
    name: String,
    /// 0: always shown, more: in the wide view.
    priority: i32,
}

#[derive(Deserialize)]
pub(super) struct Row {
    cells: Vec<Value>,
    #[serde(default)]
    object: Value,
}

impl Table {
    /// The lines of the table, columns aligned.
    pub fn render(&self, wide: bool, with_namespace: bool) -> String {
        let shown: Vec<usize> = (0..self.column_definitions.len())
            .filter(|at| wide || self.column_definitions[*at].priority == 0)
            .collect();
        let line = |first: String, cell: &dyn Fn(usize) -> String| -> Vec<String> {
            with_namespace.then_some(first).into_iter().chain(shown.iter().map(|at| cell(*at))).collect()
        };
        let mut lines = vec![line("NAMESPACE".into(), &|at| self.column_definitions[at].name.to_uppercase())];
        for row in &self.rows {
            let namespace = row.object["metadata"]["namespace"].as_str().unwrap_or_default();
            lines.push(line(namespace.to_owned(), &|at| text(row.cells.get(at).unwrap_or(&Value::Null))));
        }
        aligned(&lines)
    }
}

/// A cell as kubectl prints it.
fn text(cell: &Value) -> String {
    match cell {
        Value::Null => "<none>".to_owned(),
        // A cell is one line; the rest of a longer text is in the object.
        Value::String(text) => text.split(['\n', '\r', '\u{1b}']).next().unwrap_or_default().to_owned(),
        other => other.to_string(),
    }
}

/// The lines, columns aligned.
pub(super) fn aligned(lines: &[Vec<String>]) -> String {
    let columns = lines.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| lines.iter().filter_map(|line| line.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let mut out = String::new();
    for line in lines {
        let padded: Vec<_> = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        out += padded.join("   ").trim_end();
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_table_is_aligned_and_wide_only_on_demand() {
        let table: Table = serde_json::from_value(json!({
            "columnDefinitions": [{"name": "Name", "priority": 0}, {"name": "Client-Id", "priority": 0}, {"name": "Suspended", "priority": 1}],
            "rows": [
                {"cells": ["portal", "id\nrest", false], "object": {"metadata": {"namespace": "team-a"}}},
                {"cells": ["b", null, true], "object": {"metadata": {"namespace": "b"}}},
            ],
        }))
        .unwrap();
        assert_eq!(table.render(false, false), "NAME     CLIENT-ID\nportal   id\nb        <none>\n");
        assert_eq!(
            table.render(true, true),
            "NAMESPACE   NAME     CLIENT-ID   SUSPENDED\n\
             team-a      portal   id          false\n\
             b           b        <none>      true\n"
        );
    }
}
