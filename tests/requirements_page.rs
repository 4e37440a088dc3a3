//! Every example of `docs/requirements.md` is what the page says it is.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use dcv_operator::requirement::Dialect;
use dcv_operator::requirement::Facts;
use dcv_operator::requirement::Property;
use dcv_operator::requirement::Requirement;
use dcv_operator::requirement::Value;

/// The server of the page: each key and what it says.
#[derive(Default)]
struct Server {
    texts: BTreeMap<String, Vec<String>>,
    numbers: BTreeMap<String, f64>,
}

impl Server {
    /// Reads the tables of keys, kinds and values.
    fn of(page: &str) -> Self {
        let mut server = Self::default();
        for row in rows(page) {
            let [key, kind, value] = &row[..] else { continue };
            let (key, values) = (code(key).join(""), code(value));
            match kind.split(',').next() {
                Some("text" | "texts") => drop(server.texts.insert(key, values)),
                Some("number") => drop(server.numbers.insert(key, values[0].parse().unwrap())),
                _ => {}
            }
        }
        server
    }

    fn text(&self, key: &str) -> Option<&str> {
        self.texts.get(key)?.first().map(String::as_str)
    }
}

impl Facts for Server {
    fn tag(&self, key: &str) -> Option<&str> {
        self.text(&format!("tag:{key}"))
    }

    fn label(&self, key: &str) -> Option<&str> {
        self.text(&format!("label:{key}")).or_else(|| self.text(&format!("label:'{key}'")))
    }

    fn property(&self, property: Property) -> Option<Value<'_>> {
        let key = format!("server:{}", property.name());
        if property.is_multiple() {
            return self.texts.get(&key).map(|texts| Value::Texts(texts));
        }
        self.numbers.get(&key).map(|number| Value::Number(*number)).or_else(|| self.text(&key).map(Value::Text))
    }
}

fn page() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/requirements.md")).unwrap()
}

/// The cells of each row of each table.
fn rows(page: &str) -> Vec<Vec<String>> {
    let cells = |line: &str| line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect();
    page.lines().filter(|line| line.starts_with('|')).map(cells).collect()
}

/// What stands between backticks.
fn code(cell: &str) -> Vec<String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// What stands in the fenced blocks of this kind.
fn blocks(page: &str, kind: &str) -> Vec<String> {
    let open = format!("\n```{kind}\n");
    page.split(&open).skip(1).map(|rest| rest.split("\n```").next().unwrap().to_owned()).collect()
}

fn parse(text: &str) -> Requirement {
    Requirement::parse(text, Dialect::Extended).unwrap_or_else(|error| panic!("{error:#}")).expect("a requirement")
}

/// The text that a block shows below its message.
fn shown(block: &str) -> &str {
    block.lines().nth(1).and_then(|line| line.strip_prefix("  ")).unwrap_or_else(|| panic!("no text in {block}"))
}

#[test]
fn the_examples_are_true_and_false_as_written() {
    let page = page();
    let server = Server::of(&page);
    let mut seen = 0;
    for row in rows(&page) {
        let [.., example, here] = &row[..] else { continue };
        if here == "true" || here == "false" {
            let text = code(example).join("");
            assert_eq!(parse(&text).matches(&server).to_string(), *here, "{text}");
            seen += 1;
        }
    }
    assert!(seen > 40, "only {seen} examples found");
}

#[test]
fn the_table_has_every_property_once() {
    let page = page();
    let listed: Vec<_> = rows(&page)
        .into_iter()
        .filter_map(|row| Some((code(&row[0]).first()?.strip_prefix("server:")?.to_owned(), row[1].ends_with("ours"))))
        .filter(|(name, _)| name != "NAME" && !name.contains(' '))
        .collect();
    for property in Property::ALL {
        let here: Vec<_> = listed.iter().filter(|(name, _)| name == property.name()).collect();
        assert_eq!(here, [&(property.name().to_owned(), !property.is_documented())], "{property:?}");
    }
    assert_eq!(listed.len(), Property::ALL.len());
}

#[test]
fn the_errors_are_those_one_gets() {
    let page = page();
    for (kind, dialect) in [("error", Dialect::Extended), ("strict", Dialect::Documented)] {
        let blocks = blocks(&page, kind);
        assert!(!blocks.is_empty());
        for block in blocks {
            let error = Requirement::parse(shown(&block), dialect).expect_err(&block);
            assert_eq!(format!("{error:#}"), block);
        }
    }
}

#[test]
fn what_no_server_can_meet_is_called_so() {
    let blocks = blocks(&page(), "never");
    assert!(!blocks.is_empty());
    for block in blocks {
        let requirement = parse(shown(&block));
        let contradiction = requirement.contradiction().unwrap_or_else(|| panic!("none found in {block}"));
        assert_eq!(Some(contradiction.to_string().as_str()), block.lines().next());
    }
}

#[test]
fn the_manifest_and_the_request_can_be_placed_on_the_server() {
    let page = page();
    let server = Server::of(&page);
    let manifest: serde_json::Value = serde_saphyr::from_str(&blocks(&page, "yaml")[0]).unwrap();
    let request: serde_json::Value = serde_json::from_str(&blocks(&page, "json")[0]).unwrap();
    for requirement in [&manifest["spec"]["requirements"], &request[0]["Requirements"]] {
        assert!(parse(requirement.as_str().unwrap()).matches(&server), "{requirement}");
    }
}
