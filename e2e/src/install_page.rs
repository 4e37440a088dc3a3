//! What docs/install.md tells readers to type and to write, so that tests do exactly that.

use std::fs;

use crate::stand::root;

/// A section of the page.
pub struct Section(String);

/// The section under this heading of the second level.
pub fn section(heading: &str) -> Section {
    let page = fs::read_to_string(root().join("docs/install.md")).expect("the page is there");
    let (_, rest) = page.split_once(&format!("\n## {heading}\n")).unwrap_or_else(|| panic!("no section {heading}"));
    Section(rest.split("\n## ").next().unwrap_or_default().to_owned())
}

impl Section {
    /// The one line of a shell block that starts so. Names in capitals stand for something.
    pub fn line(&self, start: &str) -> String {
        let lines: Vec<&str> = self.blocks("sh").flat_map(str::lines).filter(|line| line.starts_with(start)).collect();
        let [line] = lines[..] else { panic!("not one line starts with {start}: {lines:?}") };
        line.to_owned()
    }

    /// Its values, the first of them.
    pub fn values(&self) -> &str {
        self.blocks("yaml").next().expect("the section has values")
    }

    fn blocks<'a>(&'a self, language: &str) -> impl Iterator<Item = &'a str> {
        let begin = format!("```{language}\n");
        self.0.split("\n\n").filter_map(move |part| {
            let text = part.split_once(begin.as_str()).map(|(_, rest)| rest.trim_end());
            text.map(|text| text.strip_suffix("```").unwrap_or(text))
        })
    }
}
