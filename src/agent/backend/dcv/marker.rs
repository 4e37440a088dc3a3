//! What the agent keeps on the host of each session it made: one file, written before the session is.
//!
//! Only root can read or make them, so whoever finds one knows that an agent did. They lie where a restart of the host
//! clears them, as it clears the sessions. A file is replaced whole; what cannot be understood is left alone.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;

use jiff::Timestamp;
use serde::Deserialize;
use serde::Serialize;

use crate::agent::backend::Marker;
use crate::api::session::SessionType;

/// Longest id of a session we make; ours are UUIDs of 36.
const ID_BYTES_MAX: usize = 128;
const EXTENSION: &str = "json";

/// Whether an id can be the name of a file and is no option of a command.
pub(super) fn is_id(id: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_' || byte == b'.';
    (1..=ID_BYTES_MAX).contains(&id.len()) && id.bytes().all(plain) && id.as_bytes()[0].is_ascii_alphanumeric()
}

/// The file of one session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Note {
    /// Whose it is.
    pub marker: Marker,
    /// Its kind.
    #[serde(rename = "type")]
    pub type_: SessionType,
    /// When it was ordered.
    pub creation_time: Timestamp,
    /// How far it is.
    pub stage: Stage,
    /// Whether people are known to know of it.
    pub announced: bool,
}

/// How far a session is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Stage {
    /// The server may have been told to create it, or be about to be.
    Creating,
    /// It was there and stayed.
    Created,
    /// It was seen to be over, for this reason.
    Ended(String),
}

/// The folder of all of them.
#[derive(Clone, Debug)]
pub(super) struct Notes {
    folder: PathBuf,
}

impl Notes {
    /// The notes in `folder`, which is made if need be, for root alone.
    pub fn open(folder: &Path) -> io::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?;
        Ok(Self { folder: folder.to_owned() })
    }

    /// Every note, by id.
    pub fn all(&self) -> io::Result<BTreeMap<String, Note>> {
        let mut notes = BTreeMap::new();
        for entry in fs::read_dir(&self.folder)? {
            let path = entry?.path();
            if path.extension().is_none_or(|extension| extension != EXTENSION) {
                continue;
            }
            let Some(id) = path.file_stem().and_then(|stem| stem.to_str()).filter(|id| is_id(id)) else { continue };
            match self.read(id) {
                Ok(Some(note)) => {
                    notes.insert(id.to_owned(), note);
                }
                Ok(None) => {} // gone since
                Err(error) => tracing::warn!(session = id, %error, "left alone: its marker is not understood"),
            }
        }
        Ok(notes)
    }

    /// The note of one session.
    pub fn read(&self, id: &str) -> io::Result<Option<Note>> {
        if !is_id(id) {
            return Ok(None);
        }
        match fs::read(self.path(id)) {
            Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(io::Error::other),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes the note of one session, whole or not at all.
    pub fn write(&self, id: &str, note: &Note) -> io::Result<()> {
        let path = self.path(id);
        let part = path.with_extension("part");
        let bytes = serde_json::to_vec_pretty(note).map_err(io::Error::other)?;
        match fs::remove_file(&part) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = fs::File::options().write(true).create_new(true).mode(0o600).open(&part)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        fs::rename(&part, &path)
    }

    /// Changes the note of one session, if there is one. Returns whether there is.
    pub fn update(&self, id: &str, change: impl FnOnce(&mut Note)) -> io::Result<bool> {
        let Some(mut note) = self.read(id)? else { return Ok(false) };
        let before = note.clone();
        change(&mut note);
        if note != before {
            self.write(id, &note)?;
        }
        Ok(true)
    }

    /// Forgets a session.
    pub fn remove(&self, id: &str) -> io::Result<()> {
        if !is_id(id) {
            return Ok(());
        }
        match fs::remove_file(self.path(id)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    fn path(&self, id: &str) -> PathBuf {
        // Not `with_extension`, which would cut an id with a dot in it.
        self.folder.join(format!("{id}.{EXTENSION}"))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;
    use crate::agent::backend::contract;

    fn note() -> Note {
        Note {
            marker: contract::order("a", "ann").marker,
            type_: SessionType::Virtual,
            creation_time: "2027-01-01T00:00:00Z".parse().unwrap(),
            stage: Stage::Creating,
            announced: false,
        }
    }

    #[test]
    fn notes_are_for_root_alone_and_survive_their_writer() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("dcv");
        let notes = Notes::open(&folder).unwrap();
        notes.write("a.b", &note()).unwrap();
        assert_eq!(fs::metadata(&folder).unwrap().mode() & 0o777, 0o700);
        assert_eq!(fs::metadata(folder.join("a.b.json")).unwrap().mode() & 0o777, 0o600);
        assert!(notes.update("a.b", |note| note.stage = Stage::Ended("over".into())).unwrap());
        let again = Notes::open(&folder).unwrap();
        let expected = Note { stage: Stage::Ended("over".into()), ..note() };
        assert_eq!(again.all().unwrap(), BTreeMap::from([("a.b".to_owned(), expected)]));
        again.remove("a.b").unwrap();
        again.remove("a.b").unwrap();
        assert_eq!(again.all().unwrap(), BTreeMap::new());
        assert!(!again.update("a.b", |note| note.announced = true).unwrap());
    }

    #[test]
    fn what_is_not_understood_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let notes = Notes::open(folder.path()).unwrap();
        for name in ["broken.json", "-x.json", "lock", "half.part"] {
            fs::write(folder.path().join(name), "{").unwrap();
        }
        notes.write("half", &note()).unwrap();
        assert_eq!(notes.all().unwrap().keys().collect::<Vec<_>>(), ["half"]);
        assert!(notes.read("broken").is_err());
        for name in ["broken.json", "-x.json", "lock"] {
            assert!(folder.path().join(name).exists(), "{name}");
        }
    }

    #[test]
    fn ids_are_names_of_files_and_no_options() {
        for good in ["4f6e2b8a-3a51-4c58-9d5e-0c1b1f7a9f10", "a", "a.b_c-d"] {
            assert!(is_id(good), "{good}");
        }
        let long = "a".repeat(129);
        for bad in ["", "-a", ".a", "a/b", "a b", "a\n", "ö", &long] {
            assert!(!is_id(bad), "{bad}");
        }
    }
}
