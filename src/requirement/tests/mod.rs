//! What the tests share: hosts that say what they are told.

mod contradiction;
mod errors;
mod evaluation;
mod grammar;
mod naive;
mod nearest;

use std::collections::BTreeMap;

use super::Dialect;
use super::Facts;
use super::Property;
use super::Requirement;
use super::Value;

/// A host that reports what is put in.
#[derive(Clone, Debug, Default)]
struct Host {
    tags: BTreeMap<String, String>,
    labels: BTreeMap<String, String>,
    properties: BTreeMap<Property, Reported>,
}

#[derive(Clone, Debug)]
enum Reported {
    Text(String),
    Number(f64),
    Texts(Vec<String>),
}

impl Host {
    fn tag(mut self, key: &str, value: &str) -> Self {
        self.tags.insert(key.into(), value.into());
        self
    }

    fn label(mut self, key: &str, value: &str) -> Self {
        self.labels.insert(key.into(), value.into());
        self
    }

    fn text(mut self, property: Property, value: &str) -> Self {
        self.properties.insert(property, Reported::Text(value.into()));
        self
    }

    fn number(mut self, property: Property, value: f64) -> Self {
        self.properties.insert(property, Reported::Number(value));
        self
    }

    fn texts(mut self, property: Property, values: &[&str]) -> Self {
        self.properties.insert(property, Reported::Texts(values.iter().map(ToString::to_string).collect()));
        self
    }

    fn meets(&self, text: &str) -> bool {
        parse(text).matches(self)
    }
}

impl Facts for Host {
    fn tag(&self, key: &str) -> Option<&str> {
        self.tags.get(key).map(String::as_str)
    }

    fn label(&self, key: &str) -> Option<&str> {
        self.labels.get(key).map(String::as_str)
    }

    fn property(&self, property: Property) -> Option<Value<'_>> {
        self.properties.get(&property).map(|reported| match reported {
            Reported::Text(text) => Value::Text(text),
            Reported::Number(number) => Value::Number(*number),
            Reported::Texts(texts) => Value::Texts(texts),
        })
    }
}

/// The requirement that `text` is.
fn parse(text: &str) -> Requirement {
    match Requirement::parse(text, Dialect::Extended) {
        Ok(requirement) => requirement.unwrap_or_else(|| panic!("{text:?} requires nothing")),
        Err(error) => panic!("{error:#}"),
    }
}

/// The error that `text` gives, in one line.
fn error(text: &str) -> String {
    Requirement::parse(text, Dialect::Extended).expect_err(text).to_string()
}
