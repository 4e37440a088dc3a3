//! Tags of the host, from its tag files.
//!
//! As documented for the Session Manager agent: every `*.toml` file of the folder, in alphabetical order, top-level
//! entries only; of two equal keys the later file's wins. Read once: changes take a restart of the agent.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

/// Longest value of a tag.
const MAX_VALUE: usize = 1024;

/// What is wrong with the tag files.
#[derive(Debug, thiserror::Error)]
pub enum TagsError {
    /// A file or the folder cannot be read.
    #[error("failed to read tags from {path}")]
    Read {
        /// Which.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file is not TOML.
    #[error("failed to parse tags in {path}")]
    Parse {
        /// Which.
        path: String,
        /// Why.
        #[source]
        source: Box<toml::de::Error>,
    },
}

/// Reads the tags of a folder. No folder: no tags.
///
/// # Errors
/// The first file that cannot be read or parsed: half the tags would place sessions wrongly.
pub fn read(folder: &Path) -> Result<BTreeMap<String, String>, TagsError> {
    let fault = |path: &Path| {
        let path = path.display().to_string();
        move |source| TagsError::Read { path, source }
    };
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        other => other.map_err(fault(folder))?,
    };
    let mut paths =
        entries.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<Vec<_>>>().map_err(fault(folder))?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    paths.sort();
    let mut tags = BTreeMap::new();
    for path in paths {
        let text = fs::read_to_string(&path).map_err(fault(&path))?;
        let parsed = parse(&text)
            .map_err(|source| TagsError::Parse { path: path.display().to_string(), source: Box::new(source) })?;
        tags.extend(parsed);
    }
    Ok(tags)
}

/// Values are text on the wire; numbers and booleans become theirs, tables and lists are no tags.
fn parse(text: &str) -> Result<BTreeMap<String, String>, toml::de::Error> {
    let table: toml::Table = toml::from_str(text)?;
    let entries = table.into_iter().filter_map(|(key, value)| {
        let value = match value {
            toml::Value::String(text) => text,
            toml::Value::Integer(number) => number.to_string(),
            toml::Value::Float(number) => number.to_string(),
            toml::Value::Boolean(value) => value.to_string(),
            toml::Value::Datetime(time) => time.to_string(),
            toml::Value::Array(_) | toml::Value::Table(_) => return None,
        };
        Some((key, value.chars().take(MAX_VALUE).collect()))
    });
    Ok(entries.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_files_win_and_other_files_are_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("b.toml"), "pool = \"render\"\ncores = 8\n").unwrap();
        fs::write(folder.path().join("a.toml"), "pool = \"office\"\nsite = \"paris\"\n[more]\nx = 1\n").unwrap();
        fs::write(folder.path().join("c.txt"), "pool = \"none\"\n").unwrap();
        let expected = [("cores", "8"), ("pool", "render"), ("site", "paris")];
        assert_eq!(read(folder.path()).unwrap(), expected.map(|(k, v)| (k.to_owned(), v.to_owned())).into());
        assert_eq!(read(&folder.path().join("nowhere")).unwrap(), BTreeMap::new());
    }

    #[test]
    fn a_broken_file_is_named() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a.toml"), "pool = \n").unwrap();
        assert!(read(folder.path()).unwrap_err().to_string().ends_with("a.toml"));
    }
}
