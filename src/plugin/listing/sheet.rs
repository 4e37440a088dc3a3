//! A table that grows: its titles once, and columns that stay where they are.

use kube::ResourceExt;
use kube::api::DynamicObject;

use super::Column;
use super::Shown;
use crate::plugin::args::ListFormat;

/// Blanks between columns.
const GAP: &str = "   ";

/// A table, as far as it has been printed.
pub(super) struct Sheet {
    columns: &'static [Column],
    /// Indices of those that are shown.
    visible: Vec<usize>,
    with_namespace: bool,
    has_titles: bool,
    widths: Vec<usize>,
}

impl Sheet {
    pub(super) fn new(columns: &'static [Column], shown: &Shown, with_namespace: bool) -> Self {
        let is_wide = shown.output == Some(ListFormat::Wide);
        let visible = (0..columns.len()).filter(|at| is_wide || !columns[*at].is_wide).collect();
        Self { columns, visible, with_namespace, has_titles: !shown.no_headers, widths: Vec::new() }
    }

    /// The next lines, with the titles before the first. The cells are those of all columns.
    pub(super) fn block(&mut self, rows: &[(&DynamicObject, Vec<String>)]) -> String {
        let mut lines = Vec::new();
        if std::mem::take(&mut self.has_titles) {
            let titles = self.visible.iter().map(|at| self.columns[*at].title.to_owned());
            lines.push(self.with_namespace.then(|| "NAMESPACE".to_owned()).into_iter().chain(titles).collect());
        }
        for (object, cells) in rows {
            let namespace = self.with_namespace.then(|| object.namespace().unwrap_or_default());
            let cells = self.visible.iter().map(|at| one_line(cells.get(*at).map_or("", String::as_str)));
            lines.push(namespace.into_iter().chain(cells).collect::<Vec<_>>());
        }
        for line in &lines {
            self.widths.resize(self.widths.len().max(line.len()), 0);
            for (width, cell) in self.widths.iter_mut().zip(line) {
                *width = (*width).max(cell.chars().count());
            }
        }
        lines.iter().map(|line| self.line(line)).collect()
    }

    fn line(&self, cells: &[String]) -> String {
        let padded: Vec<_> = cells.iter().zip(&self.widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        format!("{}\n", padded.join(GAP).trim_end())
    }

    /// Whether two rows say the same, but for what time alone changes.
    pub(super) fn is_same(&self, one: &[String], other: &[String]) -> bool {
        self.visible.iter().filter(|at| !self.columns[**at].is_clock).all(|at| one.get(*at) == other.get(*at))
    }
}

/// A cell is one line; the rest of a longer text is in the object. What a terminal would obey is not sent to it.
fn one_line(text: &str) -> String {
    let line = text.split(['\n', '\r']).next().unwrap_or_default();
    let line: String = line.chars().filter(|c| !c.is_control()).collect();
    if line.is_empty() { "<none>".to_owned() } else { line }
}
