//! Random requirements and hosts: what the language says equals a second, simple reading of its rules.

use proptest::prelude::*;
use proptest::sample::select;

use super::Dialect;
use super::Host;
use super::Property;
use super::Reported;
use super::Requirement;
use super::parse;

/// What was meant, before it was text.
#[derive(Clone, Debug)]
enum Meant {
    And(Box<Meant>, Box<Meant>),
    Or(Box<Meant>, Box<Meant>),
    Not(Box<Meant>),
    /// Needless parentheses.
    Grouped(Box<Meant>),
    Term {
        key: &'static str,
        operator: &'static str,
        value: &'static str,
        quoted: bool,
    },
}

/// How it is written.
#[derive(Clone, Copy, Debug)]
struct Hand {
    and: &'static str,
    or: &'static str,
    not: &'static str,
    blank: &'static str,
}

const KEYS: [&str; 9] = [
    "tag:a",
    "tag:dcv:b-1",
    "label:zone",
    "label:'example.com/a.b'",
    "server:Id",
    "server:Host.Os.Version",
    "server:Host.Memory.TotalBytes",
    "server:Host.Gpus.ModelName",
    "server:Host.Gpus.Vendor",
];
const OPERATORS: [&str; 7] = ["=", "!=", ":=", ">", ">=", "<", "<="];
const TEXTS: [&str; 12] = ["", "a", "A", "ab", "it's", "x\ny", "é", "1e999", "4.", "inf", "NaN", " 4"];
const NUMBERS: [&str; 10] = ["4", "4.0", "04", "0", "-0", "+5", "4e1", "40", "0.5", "-1.5E-2"];

impl Meant {
    fn text(&self, hand: Hand) -> String {
        let mut text = String::new();
        self.write(hand, &mut text);
        text
    }

    /// Makes every term one of `to`.
    fn rename(&mut self, to: &'static str) {
        match self {
            Meant::And(left, right) | Meant::Or(left, right) => {
                left.rename(to);
                right.rename(to);
            }
            Meant::Not(inner) | Meant::Grouped(inner) => inner.rename(to),
            Meant::Term { key, .. } => *key = to,
        }
    }

    fn write(&self, hand: Hand, out: &mut String) {
        let join = |out: &mut String, left: &Meant, word: &str, right: &Meant, in_and: bool| {
            left.write_part(hand, out, in_and && matches!(left, Meant::Or(..)));
            // Two words would grow together only when there is no blank; a key may follow a word directly.
            out.push_str(hand.blank);
            out.push_str(word);
            out.push_str(hand.blank);
            right.write_part(hand, out, in_and && matches!(right, Meant::Or(..)));
        };
        match self {
            Meant::And(left, right) => join(out, left, hand.and, right, true),
            Meant::Or(left, right) => join(out, left, hand.or, right, false),
            Meant::Not(inner) => {
                out.push_str(hand.not);
                out.push_str(hand.blank);
                inner.write_part(hand, out, !matches!(**inner, Meant::Term { .. } | Meant::Grouped(_)));
            }
            Meant::Grouped(inner) => inner.write_part(hand, out, true),
            Meant::Term { key, operator, value, quoted } => {
                let value = if *quoted { format!("'{}'", value.replace('\'', "''")) } else { (*value).into() };
                out.push_str(&[*key, *operator, value.as_str()].join(hand.blank));
            }
        }
    }

    fn write_part(&self, hand: Hand, out: &mut String, in_parentheses: bool) {
        if in_parentheses {
            out.push('(');
        }
        self.write(hand, out);
        if in_parentheses {
            out.push(')');
        }
    }

    fn holds(&self, host: &Host) -> bool {
        match self {
            Meant::And(left, right) => left.holds(host) && right.holds(host),
            Meant::Or(left, right) => left.holds(host) || right.holds(host),
            Meant::Not(inner) => !inner.holds(host),
            Meant::Grouped(inner) => inner.holds(host),
            Meant::Term { key, operator, value, quoted } => {
                reported(host, key).iter().any(|reported| term_holds(reported, operator, value, *quoted))
            }
        }
    }
}

/// Every value that `host` has for `key`.
fn reported(host: &Host, key: &str) -> Vec<Reported> {
    let text = |text: Option<&String>| text.map(|text| vec![Reported::Text(text.clone())]).unwrap_or_default();
    match key.split_once(':').unwrap() {
        ("tag", name) => text(host.tags.get(name)),
        ("label", name) => text(host.labels.get(name.trim_matches('\''))),
        (_, name) => match host.properties.get(&Property::from_name(name).unwrap()) {
            None => Vec::new(),
            Some(Reported::Texts(texts)) => texts.iter().cloned().map(Reported::Text).collect(),
            Some(one) => vec![one.clone()],
        },
    }
}

#[expect(clippy::float_cmp, reason = "equal numbers are meant, not close ones")]
fn term_holds(reported: &Reported, operator: &str, value: &str, quoted: bool) -> bool {
    let (text, number) = match reported {
        Reported::Number(0.0) => ("0".to_owned(), Some(0.0)),
        Reported::Number(number) => (format!("{number}"), Some(*number)),
        Reported::Text(text) => (text.clone(), number_in(text)),
        Reported::Texts(_) => unreachable!("taken apart by `reported`"),
    };
    let both = number.zip(number_in(value));
    let are_texts = quoted && matches!(reported, Reported::Text(_));
    let equal = if are_texts { text == value } else { both.is_some_and(|(left, right)| left == right) };
    match operator {
        "=" => equal,
        "!=" => !equal,
        ":=" => text.contains(value),
        ">" => both.is_some_and(|(left, right)| left > right),
        ">=" => both.is_some_and(|(left, right)| left >= right),
        "<" => both.is_some_and(|(left, right)| left < right),
        "<=" => both.is_some_and(|(left, right)| left <= right),
        other => unreachable!("{other}"),
    }
}

/// The number that `text` is, by taking it apart.
fn number_in(text: &str) -> Option<f64> {
    let is_digits = |part: &str| !part.is_empty() && part.chars().all(|c| c.is_ascii_digit());
    let unsigned = |part: &str| part.strip_prefix(['+', '-']).unwrap_or(part).to_owned();
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let mantissa = unsigned(mantissa);
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((&mantissa, "0"));
    let is_number = is_digits(whole) && is_digits(fraction) && is_digits(&unsigned(exponent));
    is_number.then(|| text.parse().unwrap()).filter(|number: &f64| number.is_finite())
}

fn term() -> impl Strategy<Value = Meant> {
    let quoted = (select(OPERATORS.as_slice()), prop_oneof![select(TEXTS.as_slice()), select(NUMBERS.as_slice())])
        .prop_map(|(operator, value)| (operator, value, true));
    let unquoted = (select(OPERATORS.as_slice()), select(NUMBERS.as_slice()))
        .prop_filter("a number after := is an error", |(operator, _)| *operator != ":=")
        .prop_map(|(operator, value)| (operator, value, false));
    (select(KEYS.as_slice()), prop_oneof![quoted, unquoted]).prop_map(|(key, (operator, value, quoted))| Meant::Term {
        key,
        operator,
        value,
        quoted,
    })
}

fn meant() -> impl Strategy<Value = Meant> {
    term().prop_recursive(6, 40, 2, |inner| {
        let pair = (inner.clone(), inner.clone());
        prop_oneof![
            3 => pair.clone().prop_map(|(left, right)| Meant::And(left.into(), right.into())),
            3 => pair.prop_map(|(left, right)| Meant::Or(left.into(), right.into())),
            2 => inner.clone().prop_map(|inner| Meant::Not(inner.into())),
            1 => inner.prop_map(|inner| Meant::Grouped(inner.into())),
        ]
    })
}

/// Many terms of few keys, so that some contradict each other.
fn crowded() -> impl Strategy<Value = (String, Meant)> {
    let key = select(vec!["tag:a", "server:Host.Memory.TotalBytes", "server:Host.Gpus.Vendor"]);
    let join = |parts: Vec<Meant>, join: fn(Box<Meant>, Box<Meant>) -> Meant| {
        parts.into_iter().reduce(|left, right| join(left.into(), right.into())).expect("at least one")
    };
    let part = (prop::collection::vec(term(), 1..3), any::<bool>()).prop_map(move |(terms, negated)| {
        let any = join(terms, Meant::Or);
        if negated { Meant::Not(any.into()) } else { any }
    });
    (key, prop::collection::vec(part, 1..4), hand()).prop_map(move |(key, parts, hand)| {
        let mut meant = join(parts, Meant::And);
        meant.rename(key);
        (meant.text(hand), meant)
    })
}

fn hand() -> impl Strategy<Value = Hand> {
    let lower = Hand { and: "and", or: "or", not: "not", blank: " " };
    let upper = Hand { and: "AND", or: "OR", not: "NOT", blank: "\r\n\t" };
    let mixed = Hand { and: "aND", or: "Or", not: "noT", blank: "" };
    select(vec![lower, upper, mixed])
}

/// A text and what it means.
fn written() -> impl Strategy<Value = (String, Meant)> {
    (meant(), hand()).prop_map(|(meant, hand)| (meant.text(hand), meant))
}

fn host() -> impl Strategy<Value = Host> {
    let text = || prop_oneof![select(TEXTS.as_slice()), select(NUMBERS.as_slice())].prop_map(str::to_owned);
    let number = || select(vec![0.0, -0.0, 4.0, 40.0, 0.5, -0.015, 1e300]).prop_map(Reported::Number);
    let one = || prop::option::of(prop_oneof![text().prop_map(Reported::Text), number()]);
    let many = || prop::option::of(prop::collection::vec(text(), 0..3).prop_map(Reported::Texts));
    let texts =
        (prop::option::of(text()), prop::option::of(text()), prop::option::of(text()), prop::option::of(text()));
    (texts, (one(), one(), one()), (many(), many())).prop_map(|((a, b, zone, label), ones, many)| {
        let named = |pairs: [(&str, Option<String>); 2]| {
            pairs.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect()
        };
        let properties = [
            (Property::Id, ones.0),
            (Property::HostOsVersion, ones.1),
            (Property::HostMemoryTotalBytes, ones.2),
            (Property::HostGpusModelName, many.0),
            (Property::HostGpusVendor, many.1),
        ];
        Host {
            tags: named([("a", a), ("dcv:b-1", b)]),
            labels: named([("zone", zone), ("example.com/a.b", label)]),
            properties: properties.into_iter().filter_map(|(property, value)| Some((property, value?))).collect(),
        }
    })
}

/// A text made of pieces of the language in any order.
fn pieces() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        select(KEYS.as_slice()),
        select(OPERATORS.as_slice()),
        select(NUMBERS.as_slice()),
        select(vec![
            "and",
            "OR",
            "not",
            "(",
            ")",
            "'",
            "'a'",
            "''",
            " ",
            "\n",
            "tag:",
            "server:",
            "label:",
            "label:'",
            ".",
            "-",
            "\"",
            "“",
            "é",
            "&&",
            "==",
            "!",
            ":",
            "1e999",
            "Host.Os.Family",
            "\0",
        ]),
    ];
    prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

/// What holds for every text.
fn check_text(text: &str) {
    match Requirement::parse(text, Dialect::Extended) {
        Ok(None) => assert!(text.trim().is_empty()),
        Ok(Some(requirement)) => {
            let canonical = requirement.to_string();
            assert_eq!(parse(&canonical), requirement, "{canonical:?}");
            assert_eq!(parse(&canonical).to_string(), canonical);
        }
        Err(error) => {
            assert!(text.is_char_boundary(error.offset()), "{error}");
            assert_eq!(error.to_string().lines().count(), 1, "{error}");
            assert!(error.to_string().chars().count() < 300, "{error}");
            assert!(format!("{error:#}").chars().count() < 600, "{error:#}");
        }
    }
    if let Ok(documented) = Requirement::parse(text, Dialect::Documented) {
        assert_eq!(Requirement::parse(text, Dialect::Extended), Ok(documented));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn it_holds_when_the_simple_reading_does((text, meant) in written(), hosts in prop::collection::vec(host(), 8)) {
        let requirement = parse(&text);
        for host in &hosts {
            prop_assert_eq!(requirement.matches(host), meant.holds(host), "{} for {:?}", text, host);
            let refuted_by = requirement.refuted_by(host);
            prop_assert_eq!(refuted_by.is_none(), meant.holds(host));
            prop_assert!(refuted_by.is_none_or(|index| !requirement.clauses()[index].matches(host)));
        }
    }

    #[test]
    fn what_is_printed_reads_back_the_same((text, _) in written()) {
        let requirement = parse(&text);
        prop_assert_eq!(&parse(&requirement.to_string()), &requirement);
    }

    #[test]
    fn clauses_joined_by_and_are_the_requirement((text, _) in written()) {
        let requirement = parse(&text);
        let parts: Vec<_> = requirement.clauses().iter().map(|clause| format!("({clause})")).collect();
        prop_assert_eq!(parse(&parts.join(" and ")), requirement);
    }

    #[test]
    fn what_contradicts_itself_is_met_by_no_host((text, meant) in crowded(), hosts in prop::collection::vec(host(), 8)) {
        if let Some(contradiction) = parse(&text).contradiction() {
            for host in &hosts {
                prop_assert!(!meant.holds(host), "{}: {} for {:?}", text, contradiction, host);
            }
        }
    }

    #[test]
    fn any_text_is_answered(text in "\\PC*") {
        check_text(&text);
    }

    #[test]
    fn any_order_of_pieces_is_answered(text in pieces()) {
        check_text(&text);
    }

    #[test]
    fn a_damaged_requirement_is_answered((text, _) in written(), at in any::<prop::sample::Index>(), put in ".{0,3}", long in 0usize..4) {
        let mut characters: Vec<char> = text.chars().collect();
        let at = at.index(characters.len());
        let end = (at + long).min(characters.len());
        characters.splice(at..end, put.chars());
        check_text(&characters.into_iter().collect::<String>());
    }
}
