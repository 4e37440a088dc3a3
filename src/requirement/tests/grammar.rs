//! What is accepted, and its canonical text.

use super::Dialect;
use super::Property;
use super::Requirement;
use super::error;
use super::parse;

/// The first of each pair is read and prints as the second.
#[track_caller]
fn prints(pairs: &[(&str, &str)]) {
    for (text, canonical) in pairs {
        assert_eq!(parse(text).to_string(), *canonical, "of {text:?}");
        assert_eq!(parse(canonical), parse(text));
    }
}

#[test]
fn texts_that_known_clients_send_are_read() {
    for text in [
        "tag:test = 1",
        "tag:color = 'pink' and (server:Host.Os.Family = 'windows' or tag:color := 'red')",
        "server:Host.Aws.Ec2InstanceType := 't2' and server:Host.CpuInfo.NumberOfCpus >= 2",
        "server:Host.Os.Family = 'linux' and (server:Host.CpuInfo.NumberOfCpus = 4 or server:Host.CpuInfo.NumberOfCpus = 8)",
        "server:Id = 'ip-10-0-0-1'",
        "server:Host.Aws.Ec2InstanceId = 'i-1'",
        "server:Host.Memory.TotalBytes > 1024E6",
    ] {
        assert_eq!(parse(text).to_string(), text);
        assert!(Requirement::parse(text, Dialect::Documented).unwrap().is_some(), "{text}");
    }
    prints(&[("tag:idea_session_id='abc'", "tag:idea_session_id = 'abc'")]);
}

#[test]
fn nothing_is_required_by_a_blank_text() {
    for text in ["", " ", "\t\r\n  ", "\u{a0}"] {
        assert_eq!(Requirement::parse(text, Dialect::Documented), Ok(None), "{text:?}");
    }
}

#[test]
fn not_binds_closest_then_and_then_or() {
    prints(&[
        ("not tag:a=1 and tag:b=2 or tag:c=3", "not tag:a = 1 and tag:b = 2 or tag:c = 3"),
        ("((not (tag:a=1)) and tag:b=2) or tag:c=3", "not tag:a = 1 and tag:b = 2 or tag:c = 3"),
        ("not (tag:a=1 and tag:b=2)", "not (tag:a = 1 and tag:b = 2)"),
        ("tag:a=1 and (tag:b=2 or tag:c=3)", "tag:a = 1 and (tag:b = 2 or tag:c = 3)"),
        ("(tag:a=1 and tag:b=2) or (tag:c=3)", "tag:a = 1 and tag:b = 2 or tag:c = 3"),
    ]);
}

#[test]
fn parts_joined_by_one_word_are_one_list() {
    prints(&[
        ("tag:a=1 and (tag:b=2 and (tag:c=3 and tag:d=4))", "tag:a = 1 and tag:b = 2 and tag:c = 3 and tag:d = 4"),
        ("(tag:a=1 or tag:b=2) or (tag:c=3)", "tag:a = 1 or tag:b = 2 or tag:c = 3"),
    ]);
}

#[test]
fn words_take_any_letter_case() {
    prints(&[("NOT tag:a=1 And tag:b=2 oR tag:c=3", "not tag:a = 1 and tag:b = 2 or tag:c = 3")]);
}

#[test]
fn blanks_are_needed_nowhere_and_allowed_between_all_tokens() {
    prints(&[
        ("tag:a='1'and(tag:b!=2)or not(tag:c:='x')", "tag:a = '1' and tag:b != 2 or not tag:c := 'x'"),
        ("tag:a=1andtag:b=2", "tag:a = 1 and tag:b = 2"),
        (" ( tag:a \t:=\r\n 'x' ) \n", "tag:a := 'x'"),
    ]);
}

#[test]
fn a_second_not_needs_parentheses() {
    prints(&[("not (not tag:a = 1)", "not (not tag:a = 1)")]);
    assert!(error("not not tag:a = 1").contains("`not (not …)`"));
}

#[test]
fn every_operator_is_read() {
    for operator in ["=", "!=", ":=", ">", ">=", "<", "<="] {
        prints(&[(&format!("tag:a{operator}'4'"), &format!("tag:a {operator} '4'"))]);
    }
}

#[test]
fn every_property_is_read_by_its_name() {
    assert_eq!(Property::ALL.iter().filter(|property| property.is_documented()).count(), 25);
    for property in Property::ALL {
        let text = format!("server:{} = 'x'", property.name());
        assert_eq!(parse(&text).to_string(), text);
    }
}

#[test]
fn quotes_inside_strings_are_doubled_and_nothing_else_is_special() {
    prints(&[
        ("tag:a = 'o''neil'", "tag:a = 'o''neil'"),
        ("tag:a = ''", "tag:a = ''"),
        ("tag:a = ''''", "tag:a = ''''"),
        ("tag:a = 'two\nlines \\ \" é 漢'", "tag:a = 'two\nlines \\ \" é 漢'"),
    ]);
}

#[test]
fn numbers_are_kept_as_written() {
    for number in ["0", "007", "-1", "+1", "1.50", "1024E6", "1e-3", "2.5E+10"] {
        prints(&[(&format!("tag:a={number}"), &format!("tag:a = {number}"))]);
    }
}

#[test]
fn an_exponent_needs_digits_and_a_point_needs_them_on_both_sides() {
    for number in ["1.", ".5", "1e", "1e+", "1.e5", "+", "0x10", "inf", "NaN", "1_000", "1,5"] {
        error(&format!("tag:a = {number}"));
    }
}

#[test]
fn hyphens_are_for_tags_that_start_with_dcv() {
    prints(&[
        ("tag:dcv:os-name_2 = 'x'", "tag:dcv:os-name_2 = 'x'"),
        ("tag:dcv:7='x'", "tag:dcv:7 = 'x'"),
        ("tag:dcv:='x'", "tag:dcv := 'x'"),
        ("tag:dcv = 'x'", "tag:dcv = 'x'"),
        ("tag:_a1 = 'x'", "tag:_a1 = 'x'"),
    ]);
    for text in ["tag:a-b = 'x'", "tag:a.b = 'x'", "tag:a:b = 'x'", "tag:1a = 'x'", "tag:dcv:a.b = 'x'"] {
        error(text);
    }
}

#[test]
fn words_may_be_names() {
    prints(&[("tag:not = 'x' and tag:and = 'y'", "tag:not = 'x' and tag:and = 'y'")]);
}

#[test]
fn labels_are_quoted_when_their_name_is_more_than_a_word() {
    prints(&[
        ("label:zone = 'a'", "label:zone = 'a'"),
        ("label:'zone' = 'a'", "label:zone = 'a'"),
        ("label:gpu-type = 'a'", "label:gpu-type = 'a'"),
        ("label:'nvidia.com/gpu.product' = 'A10'", "label:'nvidia.com/gpu.product' = 'A10'"),
    ]);
    for name in ["''", "'a b'", "'/a'", "'a/'", "'-a'", "'a/b/c'", "-a", &format!("'{}'", "a".repeat(64))] {
        error(&format!("label:{name} = 'x'"));
    }
    parse(&format!("label:'{}/{}' = 'x'", "a".repeat(253), "b".repeat(63)));
}

#[test]
fn the_documented_dialect_has_no_more_than_is_documented() {
    for text in ["server:Host.Gpus.Count > 0", "server:VirtualSessionCount < 3", "label:zone = 'a'"] {
        parse(text);
        let error = Requirement::parse(text, Dialect::Documented).unwrap_err().to_string();
        assert!(error.contains("`strict-requirements`"), "{error}");
    }
}

#[test]
fn clauses_are_the_parts_of_the_outermost_and() {
    let clauses = |text| parse(text).clauses().iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(clauses("tag:a=1"), ["tag:a = 1"]);
    assert_eq!(clauses("tag:a=1 or tag:b=2"), ["tag:a = 1 or tag:b = 2"]);
    assert_eq!(
        clauses("tag:a=1 and (tag:b=2 or tag:c=3) and (not tag:d=4 and tag:e=5)"),
        ["tag:a = 1", "tag:b = 2 or tag:c = 3", "not tag:d = 4", "tag:e = 5"]
    );
}

#[test]
fn length_is_bounded_in_characters() {
    let of_length = |characters: usize| format!("tag:a = '{}'", "é".repeat(characters - 10));
    parse(&of_length(4096));
    assert!(error(&of_length(4097)).contains("at character 4097: longer than 4096 characters"));
}

#[test]
fn depth_is_bounded() {
    let nested = |depth: usize| format!("{}tag:a=1{}", "(".repeat(depth), ")".repeat(depth));
    let negated = |depth: usize| format!("{}tag:a=1{}", "not (".repeat(depth), ")".repeat(depth));
    parse(&nested(64));
    parse(&negated(64));
    assert!(error(&nested(65)).contains("at character 65: more than 64 nested parentheses"));
    assert!(error(&negated(65)).contains("more than 64 nested parentheses"));
    error(&"(".repeat(100_000));
    error(&"not (".repeat(100_000));
    error(&"not ".repeat(1000));
    error(&format!("tag:a = {}", "+".repeat(4000)));
}

#[test]
fn the_number_of_comparisons_is_bounded() {
    let terms = |count: usize| vec!["tag:a=1"; count].join(" or ");
    parse(&terms(256));
    assert!(error(&terms(257)).contains("more than 256 comparisons"));
}
