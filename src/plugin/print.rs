//! Data as text.

use serde::Serialize;

use super::error::Error;

/// As JSON, with a line end.
pub(super) fn json(value: &impl Serialize) -> Result<String, Error> {
    let text = serde_json::to_string_pretty(value).map_err(kube::Error::SerdeError)?;
    Ok(text + "\n")
}

/// As YAML.
pub(super) fn yaml(value: &impl Serialize) -> Result<String, Error> {
    serde_saphyr::to_string(value).map_err(Error::Yaml)
}
