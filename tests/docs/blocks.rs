//! Each block says what it is; and what is not only shown has a test that reads it, or the reason why none does.

use std::fs;
use std::path::Path;

use crate::manifests;
use crate::markdown::Block;
use crate::markdown::Page;
use crate::root;

/// What is there to be looked at.
const SHOWN: [&str; 2] = ["text", "mermaid"];

/// Blocks without a mark of their own, by page and kind: the test that reads all of them.
const READ_WHOLE: [(&str, &str, &str); 6] = [
    ("docs/fleet.md", "yaml", "src/agent/backend/fake/fleet.rs"),
    ("docs/operations.md", "toml", "src/broker/auth/issuers/config.rs"),
    ("docs/requirements.md", "error", "tests/requirements_page.rs"),
    ("docs/requirements.md", "never", "tests/requirements_page.rs"),
    ("docs/requirements.md", "strict", "tests/requirements_page.rs"),
    // Answers of the blocks before them.
    ("docs/rest-api.md", "json", "e2e/tests/documents.rs"),
];

/// Why a block is not run.
const NOT_RUN: [&str; 3] = ["builds", "host", "foreign"];

/// What is wrong with how a block of this page is claimed.
fn fault(page: &Page, block: &Block) -> Option<String> {
    if block.kind.is_empty() {
        return Some("the fence does not say what it is".to_owned());
    }
    match &block.mark {
        Some(mark) => fault_of_mark(page, block, mark),
        None => fault_without_mark(page, block),
    }
}

fn fault_of_mark(page: &Page, block: &Block, mark: &str) -> Option<String> {
    if let Some(test) = mark.strip_prefix("tested by ") {
        fault_of_test(page, test)
    } else if let Some(reason) = mark.strip_prefix("not run: ") {
        (!NOT_RUN.contains(&reason)).then(|| format!("'{reason}' is no known reason"))
    } else if mark == "values" {
        // `hack/chart` reads them in all pages.
        (block.kind != "yaml").then(|| "values are yaml".to_owned())
    } else if root().join(mark).is_file() {
        fault_of_copy(block, mark)
    } else {
        Some(format!("'{mark}' is no known mark"))
    }
}

fn fault_without_mark(page: &Page, block: &Block) -> Option<String> {
    let of_page = READ_WHOLE.iter().find(|(name, kind, _)| *name == page.name && *kind == block.kind);
    match (of_page, block.kind.as_str()) {
        (Some((_, _, test)), _) => fault_of_test(page, test),
        (None, kind) if SHOWN.contains(&kind) => None,
        (None, "yaml") => manifests::fault(&block.text),
        (None, kind) => Some(format!("no test claims this {kind}")),
    }
}

/// A test that reads a page names it.
fn fault_of_test(page: &Page, test: &str) -> Option<String> {
    match fs::read_to_string(root().join(test)) {
        Ok(source) if source.contains(&page.name) => None,
        Ok(_) => Some(format!("{test} does not name {}", page.name)),
        Err(error) => Some(format!("{test}: {error}")),
    }
}

/// What is a part of a file stands there as it is; lines of another page stand in its blocks.
fn fault_of_copy(block: &Block, file: &str) -> Option<String> {
    if Path::new(file).extension().is_none_or(|kind| kind != "md") {
        let text = fs::read_to_string(root().join(file)).unwrap();
        return (!text.contains(&block.text)).then(|| format!("it is not in {file} like this"));
    }
    let tested: Vec<_> = Page::read(root(), file).blocks().into_iter().filter(is_tested).collect();
    let is_there = |line: &str| tested.iter().any(|tested| tested.text.lines().any(|known| known == line));
    let line = block.text.lines().find(|line| !is_there(line))?;
    Some(format!("no tested block of {file} has the line: {line}"))
}

fn is_tested(block: &Block) -> bool {
    block.mark.as_ref().is_some_and(|mark| mark.starts_with("tested by "))
}

#[test]
fn no_block_escapes() {
    let (mut count, mut faults) = (0, Vec::new());
    for page in Page::all(root()) {
        for block in page.blocks() {
            count += 1;
            faults.extend(fault(&page, &block).map(|fault| format!("{}: {fault}", block.place)));
        }
    }
    assert!(count > 80, "{count}");
    assert!(faults.is_empty(), "docs/development.md says how blocks are marked\n{}", faults.join("\n"));
}

#[test]
fn what_no_test_reads_is_told_with_its_place_and_why() {
    let page = Page::new(
        "docs/new.md",
        "```\n```\n```sh\nrm -rf /\n```\n<!-- not run: boring -->\n```sh\n```\n<!-- tested by tests/docs/none.rs -->\n```sh\n```\n\
         <!-- tested by tests/floors.rs -->\n```sh\n```\n<!-- Containerfile -->\n```dockerfile\nFROM nothing\n```\n<!-- seen -->\n```sh\n```\n\
         ```yaml\nkind: Pod\napiVersion: v1\n```\n<!-- README.md -->\n```sh\nrm -rf /\n```\n<!-- not run: host -->\n```sh\n```\n",
    );
    let faults: Vec<_> = page.blocks().iter().map(|block| fault(&page, block).unwrap_or_default()).collect();
    let expected = [
        "the fence does not say what it is",
        "no test claims this sh",
        "'boring' is no known reason",
        "tests/docs/none.rs: No such file or directory (os error 2)",
        "tests/floors.rs does not name docs/new.md",
        "it is not in Containerfile like this",
        "'seen' is no known mark",
        "no test knows v1 Pod",
        "no tested block of README.md has the line: rm -rf /",
        "",
    ];
    assert_eq!(faults, expected);
}

#[test]
fn the_marks_are_explained() {
    let page = fs::read_to_string(root().join("docs/development.md")).unwrap();
    for mark in ["tested by FILE", "values", "FILE"] {
        assert!(page.contains(&format!("| `<!-- {mark} -->` |")), "{mark}");
    }
    for reason in NOT_RUN {
        assert!(page.contains(&format!("| `<!-- not run: {reason} -->` |")), "{reason}");
    }
}
