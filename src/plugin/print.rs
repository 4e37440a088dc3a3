//! Data as text.

use serde::Serialize;
use serde_json::ser::PrettyFormatter;
use serde_json::ser::Serializer;

use super::error::Error;

/// As JSON with kubectl's own indentation, and with a line end.
pub(super) fn json(value: &impl Serialize) -> Result<String, Error> {
    let mut text = Vec::new();
    let mut serializer = Serializer::with_formatter(&mut text, PrettyFormatter::with_indent(b"    "));
    value.serialize(&mut serializer).map_err(kube::Error::SerdeError)?;
    text.push(b'\n');
    Ok(String::from_utf8(text).expect("JSON is text"))
}

/// As YAML.
pub(super) fn yaml(value: &impl Serialize) -> Result<String, Error> {
    serde_saphyr::to_string(value).map_err(Error::Yaml)
}
