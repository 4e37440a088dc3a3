//! What a page of the documentation has besides prose: fenced blocks, each with the mark before it, and code in the text.
//!
//! `docs/development.md` says what the marks mean. The end-to-end tests read pages by this file too.

use std::fs;
use std::path::Path;

/// A page.
#[derive(Clone, Debug)]
pub struct Page {
    /// Its path from the top of the work tree.
    pub name: String,
    text: String,
}

/// A fenced block.
#[derive(Clone, Debug, PartialEq)]
pub struct Block {
    /// Page and line of its fence.
    pub place: String,
    /// What the comment on the line before says.
    pub mark: Option<String>,
    /// The word behind its fence.
    pub kind: String,
    /// What is in it, without the indentation of its fence.
    pub text: String,
}

/// Code in the text of a page.
#[derive(Clone, Debug, PartialEq)]
pub struct Code {
    /// Page and line.
    pub place: String,
    /// What is between the backticks, on one line.
    pub text: String,
}

impl Page {
    /// The page `name` of the work tree `root`.
    ///
    /// # Panics
    /// When there is none.
    pub fn read(root: &Path, name: &str) -> Self {
        let text = fs::read_to_string(root.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        Self::new(name, &text)
    }

    /// A page of this text.
    pub fn new(name: &str, text: &str) -> Self {
        Self { name: name.to_owned(), text: text.to_owned() }
    }

    /// Every page that people read.
    ///
    /// # Panics
    /// When a folder cannot be read.
    pub fn all(root: &Path) -> Vec<Self> {
        let mut names = vec!["README.md".to_owned()];
        for folder in ["docs", "docs/runbooks", "contrib", "charts/dcv-operator", "charts/dcv-operator-crds"] {
            let entries = fs::read_dir(root.join(folder)).unwrap_or_else(|error| panic!("{folder}: {error}"));
            let files = entries.map(|entry| entry.expect("the folder can be read").path());
            let pages = files.filter(|path| path.extension().is_some_and(|kind| kind == "md"));
            let file_names = pages.filter_map(|path| Some(path.file_name()?.to_str()?.to_owned()));
            names.extend(file_names.map(|name| format!("{folder}/{name}")));
        }
        names.sort();
        names.iter().map(|name| Self::read(root, name)).collect()
    }

    /// Its fenced blocks, in order.
    ///
    /// # Panics
    /// When one has no end.
    pub fn blocks(&self) -> Vec<Block> {
        let mut blocks = Vec::new();
        let (mut lines, mut before) = (self.text.lines().enumerate(), "");
        while let Some((number, line)) = lines.next() {
            if let Some(kind) = line.trim_start().strip_prefix("```") {
                let indentation = line.len() - line.trim_start().len();
                let place = format!("{}:{}", self.name, number + 1);
                let mut text = String::new();
                loop {
                    let (_, line) = lines.next().unwrap_or_else(|| panic!("{place}: a block without an end"));
                    if line.trim() == "```" {
                        break;
                    }
                    text.push_str(line.get(indentation..).unwrap_or_default());
                    text.push('\n');
                }
                blocks.push(Block { place, mark: mark(before), kind: kind.trim().to_owned(), text });
            }
            before = line;
        }
        blocks
    }

    /// The code in its text, outside of blocks.
    pub fn code(&self) -> Vec<Code> {
        let mut is_prose = true;
        let prose = self.text.lines().map(|line| {
            let is_fence = line.trim_start().starts_with("```");
            is_prose ^= is_fence;
            if is_prose && !is_fence { line } else { "" }
        });
        let prose = prose.collect::<Vec<_>>().join("\n");
        let (mut line, mut found) = (1, Vec::new());
        for (number, part) in prose.split('`').enumerate() {
            if number % 2 == 1 {
                let place = format!("{}:{line}", self.name);
                found.push(Code { place, text: part.split_whitespace().collect::<Vec<_>>().join(" ") });
            }
            line += part.matches('\n').count();
        }
        found
    }
}

/// What a line says that is a comment and nothing else.
fn mark(line: &str) -> Option<String> {
    Some(line.trim().strip_prefix("<!--")?.strip_suffix("-->")?.trim().to_owned())
}
