//! Tags of the host, from its tag files.
//!
//! As documented for the Session Manager agent: every `*.toml` file of the folder, in alphabetical order, top-level
//! entries only; of two equal keys the later file's wins. Unlike that one, this agent needs no restart to notice a change
//! ([`follow`]). All files or none: half the tags would place sessions wrongly.

mod watch;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

pub use watch::Tags;
pub use watch::follow;

/// Longest value of a tag.
const MAX_VALUE: usize = 1024;
/// Longest key of a tag that is ours.
const MAX_KEY: usize = 256;
/// Most tags of the files: the schema takes 256 with the built-in ones.
const MAX_TAGS: usize = 240;
/// What keys of built-in tags start with.
pub const BUILT_IN: &str = "dcv:";

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
    #[error("failed to parse tags in {path}, line {line}")]
    Parse {
        /// Which.
        path: String,
        /// Where in it.
        line: usize,
        /// Why.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// A key is not one that a tag can have.
    #[error("{path} has the tag {key}: {reason}")]
    Key {
        /// Which file.
        path: String,
        /// Which key.
        key: String,
        /// Why not.
        reason: &'static str,
    },
    /// More than a server can have.
    #[error("{folder} has {count} tags: a server has at most {MAX_TAGS}")]
    TooMany {
        /// Which folder.
        folder: String,
        /// How many.
        count: usize,
    },
}

impl TagsError {
    /// The fault with its causes in one line, for people who look at the server.
    pub fn in_full(&self) -> String {
        match self {
            Self::Read { source, .. } => format!("{self}: {source}"),
            Self::Parse { source, .. } => format!("{self}: {}", source.message()),
            Self::Key { .. } | Self::TooMany { .. } => self.to_string(),
        }
    }
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
        let shown = || path.display().to_string();
        let parsed = parse(&text).map_err(|source| {
            let start = source.span().map_or(0, |span| span.start);
            let line = text.bytes().take(start).filter(|byte| *byte == b'\n').count() + 1;
            TagsError::Parse { path: shown(), line, source: Box::new(source) }
        })?;
        if let Some((key, reason)) = parsed.keys().find_map(|key| Some((key, fault_of_key(key)?))) {
            let key = key.chars().take(MAX_KEY).collect();
            return Err(TagsError::Key { path: shown(), key, reason });
        }
        tags.extend(parsed);
    }
    if tags.len() > MAX_TAGS {
        return Err(TagsError::TooMany { folder: folder.display().to_string(), count: tags.len() });
    }
    Ok(tags)
}

/// Why a key cannot be a tag's. Whether a requirement can name it is another matter: clients may read it all the same.
fn fault_of_key(key: &str) -> Option<&'static str> {
    if key.starts_with(BUILT_IN) {
        Some("tags that start with dcv: are built in")
    } else if key.is_empty() || key.chars().count() > MAX_KEY || key.contains(char::is_control) {
        Some("a key is 1 to 256 characters, none of them a control character")
    } else {
        None
    }
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
    fn what_is_wrong_is_named_with_its_place() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.toml");
        let many = (0..=MAX_TAGS).map(|number| format!("t{number} = 1")).collect::<Vec<_>>().join("\n");
        for (text, expected) in [
            ("ok = 1\npool = \n", "/a.toml, line 2: "),
            ("a = 1\na = 2\n", "/a.toml, line 2: duplicate key"),
            (
                "\"dcv:os-family\" = \"x\"\n",
                "/a.toml has the tag dcv:os-family: tags that start with dcv: are built in",
            ),
            ("\"\" = 1\n", "/a.toml has the tag : a key is 1 to 256 characters, none of them a control character"),
            (many.as_str(), " has 241 tags: a server has at most 240"),
        ] {
            fs::write(&file, text).unwrap();
            let fault = read(folder.path()).unwrap_err().in_full();
            assert!(fault.contains(expected), "{fault}");
        }
        fs::remove_file(&file).unwrap();
        fs::create_dir(&file).unwrap();
        assert!(read(folder.path()).unwrap_err().in_full().contains("Is a directory"));
    }
}
