//! The broker's answer, easier to read.

/// `json` with line breaks and indentation, and nothing else changed: order, numbers and texts are the broker's. It must
/// be well-formed.
pub fn pretty(json: &str) -> String {
    let mut out = String::with_capacity(json.len() * 2);
    let mut depth = 0;
    let mut last = ' ';
    let (mut is_in_text, mut is_escaped) = (false, false);
    for c in json.chars() {
        if is_in_text {
            out.push(c);
            (is_in_text, is_escaped) = (is_escaped || c != '"', !is_escaped && c == '\\');
            continue;
        }
        if c.is_ascii_whitespace() {
            continue;
        }
        let (is_closing, is_empty) = (matches!(c, '}' | ']'), matches!(last, '{' | '['));
        if is_closing {
            depth -= 1;
        }
        if last == ',' || is_closing != is_empty {
            break_line(&mut out, depth);
        }
        out.push(c);
        match c {
            '{' | '[' => depth += 1,
            ':' => out.push(' '),
            '"' => is_in_text = true,
            _ => {}
        }
        last = c;
    }
    out.push('\n');
    out
}

fn break_line(out: &mut String, depth: usize) {
    out.push('\n');
    out.extend(std::iter::repeat_n("  ", depth));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    #[test]
    fn order_and_numbers_are_left_alone() {
        let json = r#"{"b":[1.50,{}],"a":"x, {\"y\\","c":[ ],"d":null}"#;
        let expected =
            "{\n  \"b\": [\n    1.50,\n    {}\n  ],\n  \"a\": \"x, {\\\"y\\\\\",\n  \"c\": [],\n  \"d\": null\n}\n";
        assert_eq!(pretty(json), expected);
        assert_eq!(pretty(expected), expected, "again");
    }

    fn values() -> impl Strategy<Value = Value> {
        let plain = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        plain.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map(any::<String>(), inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn it_looks_as_serde_writes_it(value in values()) {
            prop_assert_eq!(pretty(&value.to_string()), serde_json::to_string_pretty(&value).unwrap() + "\n");
        }
    }
}
