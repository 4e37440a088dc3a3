//! `crds/` and the reference hold what `src/api` says, and nothing else.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

#[test]
fn committed_definitions_are_the_generated_ones() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("crds");
    let committed: BTreeMap<String, String> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read_to_string(&path).unwrap())
        })
        .collect();
    let generated: BTreeMap<String, String> = dcv_operator::api::crd_files().unwrap().into_iter().collect();
    let names = |files: &BTreeMap<String, String>| files.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&committed), names(&generated), "files in crds/; run hack/generate");
    for (name, text) in &generated {
        let differs = committed[name].lines().zip(text.lines()).position(|(old, new)| old != new);
        assert!(committed[name] == *text, "crds/{name} is stale from line {differs:?}; run hack/generate");
    }
}

#[test]
fn the_committed_reference_is_the_generated_one() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/api-reference.md");
    let committed = fs::read_to_string(path).unwrap();
    let generated = dcv_operator::api::reference::markdown(&dcv_operator::api::crds());
    assert!(committed == generated, "docs/api-reference.md is stale; run hack/generate");
}
