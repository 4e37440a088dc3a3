//! Requirements that no host can meet. That none is called so wrongly is shown on random hosts in `naive`.

use super::parse;

/// What is said about `text`.
fn said(text: &str) -> Option<String> {
    parse(text).contradiction().map(|contradiction| contradiction.to_string())
}

#[test]
fn contradictions_are_found() {
    for text in [
        "tag:a = '1' and tag:a = '2'",
        "tag:a = 1 and tag:a = 2",
        "tag:a = '1' and tag:a = 2",
        "server:Host.Os.Family = 'linux' and tag:b = 1 and server:Host.Os.Family = 'windows'",
        "tag:a = '1' and tag:a != '1'",
        "tag:a != 4 and tag:a = 4.0",
        "tag:a = 'red' and tag:a := 'blue'",
        "tag:a = 'red' and tag:a > 3",
        "tag:a = 5 and tag:a > 5",
        "tag:a > 5 and tag:a < 5",
        "tag:a < 5 and tag:a >= 5",
        "tag:a > 8 and tag:a <= 4",
        "tag:a > 'many'",
        "tag:a > 'many' or tag:b < 'few'",
        "tag:a = 1 and (tag:a = 2 or tag:a = 3)",
        "tag:a = 1 and not tag:a = 1",
        "(tag:a = 1 or tag:b = 2) and not (tag:a = 1 or tag:b = 2)",
        "(tag:a = 1 and tag:a = 2) or tag:b > 'x'",
        "server:Host.Gpus.ModelName > 'A10'",
    ] {
        assert!(said(text).is_some(), "{text}");
    }
}

#[test]
fn what_some_host_could_meet_is_no_contradiction() {
    for text in [
        "tag:a = '4' and tag:a = 4",
        "tag:a = 4 and tag:a = 4.0",
        "server:Host.CpuInfo.NumberOfCpus = '4' and server:Host.CpuInfo.NumberOfCpus = '4.0'",
        "tag:a = 4 and tag:a != '4'",
        "tag:a >= 5 and tag:a <= 5",
        "tag:a > 4 and tag:a < 5",
        "tag:a = 'red' and tag:a := 'e'",
        "tag:a = 4 and tag:a := '.0'",
        "tag:a = '1' and tag:b = '2'",
        "tag:a = '1' and label:a = '2'",
        "tag:a = '1' or tag:a = '2'",
        "tag:b = 2 or tag:a = 1 and tag:a = 2",
        "not tag:a = '1' and tag:a != '1'",
        "server:Host.Gpus.ModelName = 'A10' and server:Host.Gpus.ModelName = 'T4'",
        "server:Host.Gpus.ModelName = 'A10' and server:Host.Gpus.ModelName != 'A10'",
    ] {
        assert_eq!(said(text), None, "{text}");
    }
}

#[test]
fn the_clauses_that_contradict_each_other_are_named() {
    assert_eq!(
        said("tag:b = 1 and tag:a = '1' and server:Id := 'x' and tag:a = '2'").unwrap(),
        "no host can ever meet both `tag:a = '1'` and `tag:a = '2'`"
    );
    assert_eq!(
        said("tag:b = 1 and server:Host.CpuInfo.NumberOfCpus > 'many'").unwrap(),
        "no host can ever meet `server:Host.CpuInfo.NumberOfCpus > 'many'`"
    );
}
