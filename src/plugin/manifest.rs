//! Sessions from files.
//!
//! Their text is kept as it is beside what we make of it, so that what is sent somewhere is what somebody wrote.

use std::fs;
use std::io;
use std::path::Path;
use std::path::PathBuf;

use serde_json::Value;

use super::error::Error;
use crate::api::DcvSession;

/// A session of a file.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Manifest {
    /// Its namespace: its own, or that of the command.
    pub namespace: String,
    /// As it is understood.
    pub session: DcvSession,
    /// As it is written.
    pub object: Value,
}

/// What was found in files.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Manifests {
    /// The sessions, in order.
    pub sessions: Vec<Manifest>,
    /// What else there was to say.
    pub remarks: Vec<String>,
}

/// The sessions of all documents of `files`; those that name no namespace are of `namespace`.
pub(super) fn read(files: &[PathBuf], namespace: &str) -> Result<Manifests, Error> {
    let mut found = Manifests::default();
    for path in files {
        let file = name_of(path);
        let text = text_of(path).map_err(|source| Error::Read { file: file.clone(), source })?;
        found.add(&file, &text, namespace)?;
    }
    if found.sessions.is_empty() {
        let names: Vec<_> = files.iter().map(|path| name_of(path)).collect();
        return Err(Error::NoSession(names.join(", ")));
    }
    Ok(found)
}

/// What stands for standard input.
const STDIN: &str = "-";

fn text_of(path: &Path) -> io::Result<String> {
    if path == Path::new(STDIN) { io::read_to_string(io::stdin()) } else { fs::read_to_string(path) }
}

fn name_of(path: &Path) -> String {
    if path == Path::new(STDIN) { "standard input".to_owned() } else { path.display().to_string() }
}

impl Manifests {
    /// Adds the sessions of `text`, YAML or JSON.
    fn add(&mut self, file: &str, text: &str, namespace: &str) -> Result<(), Error> {
        let documents: Vec<Value> = serde_saphyr::from_multiple(text)
            .map_err(|source| Error::Manifest { file: file.to_owned(), source: Box::new(source) })?;
        for (at, document) in documents.into_iter().enumerate() {
            for object in objects(document) {
                self.add_object(object, namespace).map_err(|source| Error::Document {
                    file: file.to_owned(),
                    number: at + 1,
                    source,
                })?;
            }
        }
        Ok(())
    }

    fn add_object(&mut self, object: Value, namespace: &str) -> Result<(), serde_json::Error> {
        // The version is left to the API server: there is one.
        if object["kind"] != "DcvSession" {
            let word = |value: &Value| value.as_str().unwrap_or("unnamed").to_owned();
            self.remarks.push(format!("left out: {} {}", word(&object["kind"]), word(&object["metadata"]["name"])));
            return Ok(());
        }
        let session: DcvSession = serde_json::from_value(object.clone())?;
        let namespace = session.metadata.namespace.clone().unwrap_or_else(|| namespace.to_owned());
        self.sessions.push(Manifest { namespace, session, object });
        Ok(())
    }
}

/// The objects of a document: none of an empty one, those of a list, else itself.
fn objects(document: Value) -> Vec<Value> {
    match document {
        Value::Null => Vec::new(),
        Value::Object(mut object) if object.get("kind").and_then(Value::as_str).is_some_and(is_list) => {
            match object.remove("items") {
                Some(Value::Array(items)) => items,
                _ => Vec::new(),
            }
        }
        other => vec![other],
    }
}

fn is_list(kind: &str) -> bool {
    kind == "List" || kind == "DcvSessionList"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::error::words;

    fn read_text(text: &str) -> Result<Manifests, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), text).unwrap();
        let name = file.path().display().to_string();
        read(&[file.path().to_owned()], "here").map_err(|error| words(&error).replace(&name, "FILE"))
    }

    const SESSION: &str = "kind: DcvSession\napiVersion: dcv-operator.io/v1alpha1\nspec: {owner: ann, type: VIRTUAL}\n";

    #[test]
    fn sessions_of_all_documents_and_lists_are_found_and_the_rest_is_named() {
        let named = "kind: DcvSession\napiVersion: dcv-operator.io/v1alpha1\nmetadata: {name: b, namespace: there}\n\
                     spec: {owner: bob, type: CONSOLE}\n";
        let list = "{\"kind\": \"List\", \"items\": [{\"kind\": \"DcvSession\", \"apiVersion\": \
                    \"dcv-operator.io/v1alpha1\", \"metadata\": {}, \"spec\": {\"owner\": \"cid\", \"type\": \"VIRTUAL\"}}]}";
        let other = "kind: Namespace\nmetadata: {name: other}\n";
        let text =
            format!("---\n{SESSION}metadata: {{name: a}}\n---\n# nothing\n---\n{named}---\n{other}---\n{list}\n");
        let found = read_text(&text).unwrap();
        let seen: Vec<_> =
            found.sessions.iter().map(|it| (it.namespace.as_str(), it.session.spec.owner.as_str())).collect();
        assert_eq!(seen, [("here", "ann"), ("there", "bob"), ("here", "cid")]);
        assert_eq!(found.remarks, ["left out: Namespace other"]);
    }

    #[test]
    fn what_is_no_session_is_an_error_that_says_where() {
        let wrong = |text: &str| read_text(text).unwrap_err();
        assert_eq!(wrong(""), "error: no DcvSession in FILE");
        assert_eq!(wrong("kind: Pod\n"), "error: no DcvSession in FILE");
        let text = format!("{SESSION}metadata: {{}}\n---\n{}metadata: {{}}\n", SESSION.replace("VIRTUAL", "virtual"));
        let expected =
            "error: FILE: document 2 is no DcvSession: unknown variant `virtual`, expected `CONSOLE` or `VIRTUAL`";
        assert_eq!(wrong(&text), expected);
        let broken = wrong("kind: DcvSession\nspec: {owner: ann\n");
        assert!(broken.starts_with("error: cannot read FILE: line 2 ") && broken.contains('^'), "{broken}");
        let absent = words(&read(&["/nonexistent".into()], "here").unwrap_err());
        assert!(absent.starts_with("error: cannot read /nonexistent: No such file"), "{absent}");
    }
}
