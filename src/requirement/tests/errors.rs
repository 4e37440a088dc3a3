//! What is said about texts that are no requirement.

use super::Dialect;
use super::Requirement;
use super::error;

/// Each text gives an error about the character with this number, from 1, that says these things.
#[track_caller]
fn says(rows: &[(&str, usize, &str)]) {
    for (text, character, message) in rows {
        let expected = format!("requirements: at character {character}: {message}");
        assert_eq!(error(text), expected, "of {text:?}");
    }
}

#[test]
fn the_texts_that_clients_know_are_said() {
    says(&[
        ("server:test='test'", 8, "Server property server:test not found"),
        ("server:Ip = '10.0.0.1'", 8, "Server property server:Ip not found"),
        ("tag:test := 1", 13, "Unexpected CONTAINS operator with a number: write `:= '1'`"),
        ("server:Id := -1.5E3", 14, "Unexpected CONTAINS operator with a number: write `:= '-1.5E3'`"),
        // The published grammar takes these words for a key, which then names nothing.
        ("or = 'x'", 1, "Expected one of tag or server property, found `or`; a comparison is missing before it"),
        ("= 'x'", 1, "Expected one of tag or server property, found `=`"),
        ("()", 2, "Expected one of tag or server property, found `)`"),
        ("tag:a = 1 and", 14, "Expected one of tag or server property, found the end"),
    ]);
}

#[test]
fn a_property_that_is_not_there_is_answered_with_the_nearest() {
    for (written, meant) in [
        ("Host.Aws.EC2InstanceId", "Host.Aws.Ec2InstanceId"),
        ("Host.CpuInfo.PhysicalCorePerCpu", "Host.CpuInfo.PhysicalCoresPerCpu"),
        ("host.os.family", "Host.Os.Family"),
        ("Os.Family", "Host.Os.Family"),
        ("NumberOfCpus", "Host.CpuInfo.NumberOfCpus"),
        ("Host.Memory.TotalByte", "Host.Memory.TotalBytes"),
        ("Host.Gpu.Count", "Host.Gpus.Count"),
        ("Host.Os.Family.", "Host.Os.Family"),
        ("Host.Os-Family", "Host.Os.Family"),
    ] {
        let message = format!("Server property server:{written} not found; did you mean `server:{meant}`?");
        says(&[(&format!("server:{written} = 'x'"), 8, &message)]);
    }
    let strict = Requirement::parse("server:Host.Gpu.Count > 0", Dialect::Documented).unwrap_err();
    assert_eq!(strict.message(), "Server property server:Host.Gpu.Count not found");
}

#[test]
fn a_key_without_prefix_is_answered_with_one() {
    let row = |text: &'static str, found: &str, right: &str| {
        let message = format!("Expected one of tag or server property, found `{found}`; did you mean `{right}`?");
        says(&[(text, 1, &message)]);
    };
    row("ram_gb = '4'", "ram_gb", "tag:ram_gb");
    row("Host.Os.Family = 'linux'", "Host.Os.Family", "server:Host.Os.Family");
    row("Hostname='x'", "Hostname", "server:Hostname");
    row("nvidia.com/gpu.count = 1", "nvidia.com/gpu.count", "label:'nvidia.com/gpu.count'");
    row("nothing = 1", "nothing", "tag:nothing");
    row("TAG:a = 1", "TAG:a", "tag:a");
    row("Servers:Id = 'x'", "Servers:Id", "server:Id");
    row("labels:zone = 'x'", "labels:zone", "label:zone");
}

#[test]
fn a_blank_around_the_colon_is_pointed_out() {
    says(&[
        (
            "tag: pool = 'x'",
            5,
            "expected the name of a tag, which starts with a letter or `_`, found a blank; \
             no blank may stand after the colon: write `tag:pool`",
        ),
        (
            "server: Id = 'x'",
            8,
            "expected the name of a property, found a blank; no blank may stand after the colon: write `server:Id`",
        ),
        (
            "tag :pool = 'x'",
            1,
            "Expected one of tag or server property, found `tag`; no blank may stand before the colon of `tag:`",
        ),
    ]);
}

#[test]
fn names_that_are_none_are_pointed_out() {
    let rule = "names of tags have letters, digits and `_` only; after `dcv:` also `-`";
    says(&[
        ("tag:a=1 and tag:cost-center='x'", 13, &format!("`tag:cost-center` cannot be a tag: {rule}")),
        ("tag:cost.center = 'x'", 1, &format!("`tag:cost.center` cannot be a tag: {rule}")),
        ("label:nvidia.com/gpu = 'x'", 1, "this name needs quotes: write `label:'nvidia.com/gpu'`"),
        (
            "tag:'a' = 'x'",
            5,
            "expected the name of a tag, which starts with a letter or `_`, found `'a'`; names of tags are not quoted",
        ),
        (
            "label:'a b' = 'x'",
            7,
            "expected the name of a Kubernetes label, as in `label:zone` or `label:'example.com/zone'`, found `'a b'`",
        ),
        ("tag:", 5, "expected the name of a tag, which starts with a letter or `_`, found the end"),
        ("server:", 8, "expected the name of a property, found the end"),
    ]);
}

#[test]
fn operators_of_other_languages_are_answered_with_ours() {
    for (written, meant) in [
        ("==", "="),
        ("=>", ">="),
        ("=<", "<="),
        ("<>", "!="),
        ("=~", ":="),
        ("~", ":="),
        ("like", ":="),
        ("contains", ":="),
        ("is", "="),
        (":", "="),
        ("!", "!="),
    ] {
        let message = format!("expected one of `=` `!=` `:=` `>` `>=` `<` `<=`, found `{written}`; write `{meant}`");
        says(&[(&format!("tag:a {written} 'x'"), 7, &message)]);
    }
    let many = "compare with each value, and join the comparisons by `or`";
    says(&[
        ("!tag:a = 'x'", 1, "Expected one of tag or server property, found `!`; write `not` for `!`"),
        ("tag:a = 'x' && tag:b = 1", 13, "expected `and`, `or` or the end, found `&&`; write `and`"),
        ("tag:a = 'x' || tag:b = 1", 13, "expected `and`, `or` or the end, found `||`; write `or`"),
        ("(tag:a = 'x', tag:b = 1)", 13, "expected `and`, `or` or `)`, found `,`; write `and`"),
        ("tag:a in ('x', 'y')", 7, &format!("expected one of `=` `!=` `:=` `>` `>=` `<` `<=`, found `in`; {many}")),
        ("tag:a = ('x' or 'y')", 9, &format!("expected a quoted string or a number, found `(`; {many}")),
        (
            "tag:a = 'x' or 'y'",
            16,
            "Expected one of tag or server property, found `'y'`; \
             each comparison has its key first: `tag:pool = 'a' or tag:pool = 'b'`",
        ),
    ]);
}

#[test]
fn a_key_alone_is_answered_with_the_question_that_was_meant() {
    let expected = "expected one of `=` `!=` `:=` `>` `>=` `<` `<=`";
    let hint = "to ask whether it is there at all, write `:= ''`";
    says(&[
        ("tag:a", 6, &format!("{expected}, found the end; {hint}")),
        ("tag:a and tag:b = 1", 7, &format!("{expected}, found `and`; {hint}")),
        ("not (tag:a)", 11, &format!("{expected}, found `)`; {hint}")),
    ]);
}

#[test]
fn values_without_the_right_quotes_are_answered_with_them() {
    let expected = "expected a quoted string or a number";
    says(&[
        ("server:Host.Os.Family = linux", 25, &format!("{expected}, found `linux`; did you mean `'linux'`?")),
        ("tag:a = -x", 9, &format!("{expected}, found `-x`; did you mean `'-x'`?")),
        ("tag:a := x", 10, "expected a quoted string, found `x`; did you mean `'x'`?"),
        ("tag:a = \"x y\"", 9, &format!("{expected}, found `\"x y\"`; strings stand in single quotes: write `'x y'`")),
        (
            "tag:a = \"it's\"",
            9,
            &format!("{expected}, found `\"it's\"`; strings stand in single quotes: write `'it''s'`"),
        ),
        ("tag:a = “x”", 9, &format!("{expected}, found `“x”`; strings stand in single quotes: write `'x'`")),
        ("tag:a = ‘x’", 9, &format!("{expected}, found `‘x’`; strings stand in single quotes: write `'x'`")),
        ("tag:a = tag:b", 9, &format!("{expected}, found `tag:b`; a key cannot be compared with another key")),
        ("tag:a = and", 9, &format!("{expected}, found `and`")),
        ("tag:a =", 8, &format!("{expected}, found the end")),
        ("tag:a = 'x", 9, "this string has no closing `'`; a quote inside a string is doubled: `'it''s'`"),
        (
            "tag:a = 'it's'",
            13,
            "expected `and`, `or` or the end, found `s`; a quote inside a string is doubled: `'it''s'`",
        ),
        (
            "\"tag:a = 'x'\"",
            1,
            "Expected one of tag or server property, found `\"tag:a = 'x'\"`; the requirement itself stands in no quotes",
        ),
    ]);
}

#[test]
fn numbers_that_are_none_are_answered_with_one() {
    let expected = "expected a quoted string or a number";
    says(&[
        ("tag:a > .5", 9, &format!("{expected}, found `.5`; write `0.5`")),
        ("tag:a > -.5", 9, &format!("{expected}, found `-.5`; write `-0.5`")),
        ("tag:a > 1.", 9, "`1.` is no number; write `1.0`"),
        ("tag:a > +1. or tag:b = 1", 9, "`+1.` is no number; write `+1.0`"),
        ("tag:a > 1.2.3", 9, "`1.2.3` is no number; did you mean `'1.2.3'`?"),
        ("tag:a > 4GB", 9, "`4GB` is no number; did you mean `'4GB'`?"),
        ("tag:a > 1e999", 9, "this number is too large"),
    ]);
}

#[test]
fn parentheses_without_their_like_are_pointed_out() {
    says(&[
        ("tag:test = 1)", 13, "expected `and`, `or` or the end, found `)`; it closes no `(`"),
        (
            "(tag:a = '(' and (tag:test = 1)",
            32,
            "expected `and`, `or` or `)`, found the end; the `(` at character 1 is not closed",
        ),
        (
            "tag:a = 1 tag:b = 2",
            11,
            "expected `and`, `or` or the end, found `tag:b`; comparisons are joined by `and` or `or`",
        ),
    ]);
}

#[test]
fn words_out_of_place_are_pointed_out() {
    says(&[
        (
            "not not tag:a = 1",
            5,
            "Expected one of tag or server property, found `not`; a second `not` needs parentheses: `not (not …)`",
        ),
        (
            "tag:a = 1 and or tag:b = 1",
            15,
            "Expected one of tag or server property, found `or`; a comparison is missing before it",
        ),
        (
            "tag:a = 1 android",
            11,
            "Expected one of tag or server property, found `android`; did you mean `tag:android`?",
        ),
    ]);
}

/// The lines that `{:#}` adds to the message.
#[track_caller]
fn marked(text: &str) -> String {
    let error = Requirement::parse(text, Dialect::Extended).expect_err(text);
    format!("{error:#}").strip_prefix(&format!("{error}\n")).unwrap().to_owned()
}

#[test]
fn the_place_is_marked_below_the_text() {
    assert_eq!(
        marked("server:Host.Os.Family = linux or tag:a = 1"),
        "  server:Host.Os.Family = linux or tag:a = 1\n                          ^^^^^"
    );
    assert_eq!(marked("tag:test = "), "  tag:test =\n             ^");
}

#[test]
fn columns_are_characters_and_offsets_are_bytes() {
    let text = "tag:a = 'é漢' und tag:b = 1";
    assert_eq!(marked(text), "  tag:a = 'é漢' und tag:b = 1\n               ^^^");
    let error = Requirement::parse(text, Dialect::Extended).unwrap_err();
    assert_eq!(&text[error.offset()..error.offset() + 3], "und");
    assert!(error.to_string().contains("at character 14:"), "{error}");
}

#[test]
fn of_several_lines_the_one_with_the_place_is_shown() {
    assert_eq!(marked("tag:a = 1\r\n\tand tag:b = x\r\nand tag:c = 1"), "   and tag:b = x\n               ^");
    assert_eq!(marked("tag:a = 1 and\n"), "\n  ^");
}

#[test]
fn a_long_line_is_cut_around_the_place() {
    let filler = format!("tag:a = '{}'", "é".repeat(200));
    assert_eq!(
        marked(&format!("{filler} and tag:b = x or {filler}")),
        format!("  …{}' and tag:b = x or tag:a = '{}…\n  {:51}^", "é".repeat(36), "é".repeat(36), "")
    );
    let long = format!("tag:a = {}", "x".repeat(300));
    assert_eq!(marked(&long), format!("  tag:a = {}…\n  {:8}{}", "x".repeat(92), "", "^".repeat(92)));
    let message = error(&long);
    assert!(
        message.ends_with(&format!("found `{0}…`; did you mean `'{1}…`?", "x".repeat(40), "x".repeat(39))),
        "{message}"
    );
}
