//! When a comparison holds: each row of the table in `docs/requirements.md` is a test here.

use super::Host;
use super::Property;
use super::Property::HostCpuInfoNumberOfCpus;
use super::Property::HostGpusModelName;
use super::Property::HostMemoryTotalBytes;
use super::Property::HostOsVersion;
use super::parse;

/// Whether each text is met by `host`.
#[track_caller]
fn check(host: &Host, expected: &[(&str, bool)]) {
    for (text, meets) in expected {
        assert_eq!(host.meets(text), *meets, "{text}");
    }
}

fn tagged(value: &str) -> Host {
    Host::default().tag("a", value)
}

#[test]
fn texts_are_compared_letter_by_letter() {
    check(
        &tagged("Red"),
        &[
            ("tag:a = 'Red'", true),
            ("tag:a = 'red'", false),
            ("tag:a = 'Red '", false),
            ("tag:a != 'Red'", false),
            ("tag:a != 'red'", true),
        ],
    );
    check(&tagged("4"), &[("tag:a = '4'", true), ("tag:a = '4.0'", false), ("tag:a != '4.0'", true)]);
    let host = Host::default().text(HostOsVersion, "22.10");
    check(&host, &[("server:Host.Os.Version = '22.10'", true), ("server:Host.Os.Version = '22.1'", false)]);
}

#[test]
fn long_identifiers_in_quotes_are_not_taken_for_numbers() {
    check(
        &tagged("10000000000000000001"),
        &[("tag:a = '10000000000000000000'", false), ("tag:a = '10000000000000000001'", true)],
    );
}

#[test]
fn an_unquoted_number_is_compared_by_value() {
    for value in ["4", "4.0", "04", "+4", "40e-1"] {
        check(&tagged(value), &[("tag:a = 4", true), ("tag:a = 4.00", true), ("tag:a != 4", false)]);
    }
    for value in ["four", "", "4 ", "0x4", "4."] {
        check(&tagged(value), &[("tag:a = 4", false), ("tag:a != 4", true)]);
    }
}

#[test]
fn a_number_of_the_host_is_compared_by_value_with_quotes_and_without() {
    let host = Host::default().number(HostCpuInfoNumberOfCpus, 4.0);
    check(
        &host,
        &[
            ("server:Host.CpuInfo.NumberOfCpus = 4", true),
            ("server:Host.CpuInfo.NumberOfCpus = '4'", true),
            ("server:Host.CpuInfo.NumberOfCpus = '4.0'", true),
            ("server:Host.CpuInfo.NumberOfCpus = 'four'", false),
            ("server:Host.CpuInfo.NumberOfCpus != 'four'", true),
            ("server:Host.CpuInfo.NumberOfCpus != '4'", false),
        ],
    );
}

#[test]
fn orderings_compare_numbers() {
    for host in [tagged("10"), tagged("1e1")] {
        check(
            &host,
            &[
                ("tag:a > 9", true),
                ("tag:a > '9'", true),
                ("tag:a > 10", false),
                ("tag:a >= 10", true),
                ("tag:a < 10", false),
                ("tag:a <= 10", true),
                ("tag:a < 10.5", true),
                ("tag:a > -1e3", true),
            ],
        );
    }
}

#[test]
fn orderings_are_false_when_a_side_is_no_number() {
    for operator in ["<", "<=", ">", ">="] {
        check(&tagged("abc"), &[(&format!("tag:a {operator} 1"), false), (&format!("tag:a {operator} 'abc'"), false)]);
        check(&tagged("1"), &[(&format!("tag:a {operator} 'abc'"), false), (&format!("tag:a {operator} ''"), false)]);
    }
}

#[test]
fn contains_asks_for_a_part_of_the_text() {
    check(
        &tagged("dark red"),
        &[
            ("tag:a := 'red'", true),
            ("tag:a := 'Red'", false),
            ("tag:a := 'dark red'", true),
            ("tag:a := 'dark red!'", false),
            ("tag:a := ''", true),
        ],
    );
    check(&Host::default(), &[("tag:a := ''", false)]);
}

#[test]
fn contains_sees_a_number_as_plain_digits() {
    let text_of = |number: f64, text: &str| {
        let host = Host::default().number(HostMemoryTotalBytes, number);
        // Whole, as no longer text is contained either.
        let is = |text: &str| host.meets(&format!("server:Host.Memory.TotalBytes := '{text}'"));
        assert!(is(text) && !is(&format!("0{text}")) && !is(&format!("{text}.")), "{number} is not {text}");
    };
    text_of(4.0, "4");
    text_of(2.5, "2.5");
    text_of(1024e6, "1024000000");
    text_of(9_007_199_254_740_992.0, "9007199254740992");
    text_of(0.000_001, "0.000001");
    text_of(-0.0, "0");
    text_of(1e300, &format!("{}", 1e300));
    text_of(-f64::MIN_POSITIVE, &format!("{}", -f64::MIN_POSITIVE));
    text_of(5e-324, &format!("{}", 5e-324));
}

#[test]
fn a_comparison_on_what_is_not_reported_is_false() {
    for operator in ["=", "!=", ":=", ">", ">=", "<", "<="] {
        for key in ["tag:a", "label:a", "server:Id", "server:Host.Memory.TotalBytes", "server:Host.Gpus.ModelName"] {
            let term = format!("{key} {operator} '1'");
            check(&Host::default(), &[(&term, false), (&format!("not {term}"), true)]);
        }
    }
}

#[test]
fn a_number_that_is_not_finite_counts_as_not_reported() {
    for number in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let host = Host::default().number(HostMemoryTotalBytes, number);
        for operator in ["=", "!=", ":=", ">", ">=", "<", "<="] {
            check(&host, &[(&format!("server:Host.Memory.TotalBytes {operator} '1'"), false)]);
        }
    }
    check(&tagged("NaN"), &[("tag:a = 'NaN'", true), ("tag:a < 1", false), ("tag:a != 1", true)]);
    check(&tagged("1e999"), &[("tag:a > 1", false), ("tag:a = '1e999'", true)]);
}

#[test]
fn bytes_are_exact_up_to_two_to_the_53() {
    let host = Host::default().number(HostMemoryTotalBytes, 9_007_199_254_740_991.0);
    check(
        &host,
        &[
            ("server:Host.Memory.TotalBytes = 9007199254740991", true),
            ("server:Host.Memory.TotalBytes = 9007199254740990", false),
            ("server:Host.Memory.TotalBytes < 9007199254740992", true),
        ],
    );
    let host = Host::default().number(HostMemoryTotalBytes, 1_024_000_000.0);
    check(
        &host,
        &[("server:Host.Memory.TotalBytes = 1024E6", true), ("server:Host.Memory.TotalBytes > 1024E6", false)],
    );
}

#[test]
fn one_of_several_graphics_cards_is_enough() {
    let host = Host::default().texts(HostGpusModelName, &["NVIDIA A10", "NVIDIA T4"]);
    check(
        &host,
        &[
            ("server:Host.Gpus.ModelName = 'NVIDIA A10'", true),
            ("server:Host.Gpus.ModelName = 'NVIDIA T4'", true),
            ("server:Host.Gpus.ModelName = 'NVIDIA A10' and server:Host.Gpus.ModelName = 'NVIDIA T4'", true),
            ("server:Host.Gpus.ModelName := 'L40'", false),
            // There is one that is no A10, and it is not so that there is no A10.
            ("server:Host.Gpus.ModelName != 'NVIDIA A10'", true),
            ("not server:Host.Gpus.ModelName = 'NVIDIA A10'", false),
        ],
    );
    let none = Host::default().texts(HostGpusModelName, &[]);
    check(&none, &[("server:Host.Gpus.ModelName := ''", false), ("server:Host.Gpus.ModelName != 'x'", false)]);
}

#[test]
fn and_or_and_not_mean_what_they_say() {
    let host = tagged("x").label("zone", "eu").label("example.com/a", "1");
    check(
        &host,
        &[
            ("tag:a = 'x' and label:zone = 'eu'", true),
            ("tag:a = 'x' and label:zone = 'us'", false),
            ("tag:a = 'y' or label:zone = 'eu'", true),
            ("tag:a = 'y' or label:zone = 'us'", false),
            ("not tag:a = 'x'", false),
            ("not (not tag:a = 'x')", true),
            ("tag:a = 'x' or tag:a = 'y' and tag:a = 'z'", true),
            ("(tag:a = 'x' or tag:a = 'y') and tag:a = 'z'", false),
            ("label:'example.com/a' = 1", true),
        ],
    );
}

#[test]
fn the_first_false_clause_refutes() {
    let requirement = parse("tag:a = 'x' and server:Id = 'one' and (tag:b = 1 or tag:c = 1)");
    let met = tagged("x").text(Property::Id, "one").tag("c", "1");
    assert_eq!(requirement.refuted_by(&met), None);
    assert_eq!(requirement.refuted_by(&tagged("y")), Some(0));
    assert_eq!(requirement.refuted_by(&tagged("x")), Some(1));
    assert_eq!(requirement.refuted_by(&tagged("x").text(Property::Id, "one")), Some(2));
}
