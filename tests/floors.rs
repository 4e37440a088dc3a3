//! The floors of `src/`: a module uses only what lies below it, so the roles meet in API objects and nowhere else.
//!
//! Reads source text. It relies on one `use crate::…` per line, which it demands as well.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::path::PathBuf;

/// Each module and what it may use.
const FLOORS: [(&str, &[&str]); 15] = [
    ("api", &[]),
    ("requirement", &[]),
    ("permissions", &[]),
    ("wire", &[]),
    ("token", &[]),
    ("telemetry", &[]),
    ("placement", &["api", "requirement"]),
    ("cluster", &["api", "telemetry"]),
    ("controller", &["api", "requirement", "permissions", "token", "telemetry", "placement", "cluster"]),
    ("broker", &["api", "requirement", "permissions", "wire", "token", "telemetry", "placement", "cluster"]),
    ("agent", &["api", "requirement", "permissions", "token", "cluster", "telemetry"]),
    ("plugin", &["api", "requirement", "permissions", "wire", "token", "placement", "cluster"]),
    ("isolation", &["api", "cluster"]),
    ("cli", EVERYTHING),
    ("main", EVERYTHING),
];
const EVERYTHING: &[&str] = &["*"];

/// What a file of `src/` breaks, one sentence each. `path` is relative to `src/`, as in `agent/backend/mod.rs`.
fn faults(path: &str, text: &str) -> Vec<String> {
    let modules = module_path(path);
    let Some((top, allowed)) = FLOORS.iter().find(|(name, _)| modules.first() == Some(name)) else {
        return vec![format!("{path}: is on no floor")];
    };
    let mut found = Vec::new();
    // Inside an inline module `super` is one less far up.
    let mut inline = 0;
    for (number, line) in text.lines().enumerate() {
        let code = code_of(line);
        let place = format!("{path}:{}", number + 1);
        if code.starts_with("mod ") && code.ends_with('{') {
            inline = 1;
        }
        if code.contains("use crate::") && code.contains('{') {
            found.push(format!("{place}: several items in one `use crate::`"));
        }
        for target in names_after(code, "crate::") {
            if target != *top && !allowed.contains(&target) && *allowed != EVERYTHING {
                found.push(format!("{place}: {top} uses {target}"));
            }
        }
        if code.contains(&"super::".repeat(modules.len() + inline)) {
            found.push(format!("{place}: `super` leads out of {top}"));
        }
    }
    found
}

/// Names of the modules a file is, from the top: `agent/backend/mod.rs` is `agent`, `backend`.
fn module_path(path: &str) -> Vec<&str> {
    let path = path.strip_suffix(".rs").unwrap_or(path);
    path.strip_suffix("/mod").unwrap_or(path).split('/').collect()
}

/// The line without blanks around it and without a comment.
fn code_of(line: &str) -> &str {
    let line = line.trim();
    if line.starts_with("//") { "" } else { line.split(" // ").next().unwrap_or_default() }
}

/// The first path segment after each `prefix` in `code`.
fn names_after<'a>(code: &'a str, prefix: &str) -> Vec<&'a str> {
    code.match_indices(prefix)
        .filter(|(at, _)| !code[..*at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '$'))
        .filter_map(|(at, _)| code[at + prefix.len()..].split(|c: char| !c.is_alphanumeric() && c != '_').next())
        .collect()
}

fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn modules_use_only_what_lies_below_them() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    rust_files(&src, &mut files);
    files.sort();
    let mut found = Vec::new();
    for file in files {
        let path = file.strip_prefix(&src).unwrap().to_str().unwrap();
        // The library's root only lists the modules; the binaries only call it.
        if path != "lib.rs" && !path.starts_with("bin/") {
            found.extend(faults(path, &fs::read_to_string(&file).unwrap()));
        }
    }
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

#[test]
fn every_module_of_the_library_has_a_floor() {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs")).unwrap();
    let modules = text.lines().filter_map(|line| code_of(line).strip_prefix("pub mod ")?.strip_suffix(';'));
    let floors: BTreeSet<_> = FLOORS.iter().map(|(name, _)| *name).collect();
    let without: Vec<_> = modules.filter(|name| !floors.contains(name)).collect();
    assert_eq!(without, Vec::<&str>::new());
}

#[test]
fn a_wrong_edge_is_found_in_whatever_form() {
    let none = Vec::<String>::new();
    assert_eq!(faults("agent/decide.rs", "use crate::api::DcvSession;\n/// As [`crate::broker`].\n"), none);
    assert_eq!(faults("agent/decide.rs", "let a = 1; // not crate::broker::run()\n"), none);
    assert_eq!(faults("agent/backend/mod.rs", "use super::gate;\nmod tests {\n    use super::super::gate;\n"), none);
    assert_eq!(faults("cli/mod.rs", "use crate::broker::run;\n"), none);
    assert_eq!(faults("agent/decide.rs", "use crate::broker::run;\n"), ["agent/decide.rs:1: agent uses broker"]);
    assert_eq!(faults("api/mod.rs", "\nlet key = crate::token::sign();\n"), ["api/mod.rs:2: api uses token"]);
    assert_eq!(faults("api/mod.rs", "use crate::api::{A, B};\n"), ["api/mod.rs:1: several items in one `use crate::`"]);
    assert_eq!(
        faults("agent/backend/mod.rs", "use super::super::broker;\n"),
        ["agent/backend/mod.rs:1: `super` leads out of agent"]
    );
    assert_eq!(faults("helpers/mod.rs", ""), ["helpers/mod.rs: is on no floor"]);
}
