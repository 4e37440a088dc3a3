//! The API server's audit log: which writes were made, and by whom.

use std::fs::File;
use std::io::Read;
use std::io::Seek;
use std::io::SeekFrom;
use std::path::PathBuf;

use jiff::Timestamp;
use serde::Deserialize;

/// The log, from a place in it on.
pub struct Audit {
    file: PathBuf,
    begin: u64,
}

/// One write, answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// create, update, patch, delete.
    pub verb: String,
    /// Plural of the kind, with the subresource: `dcvsessions/status`.
    pub resource: String,
    /// Namespace of the object; empty for a cluster's.
    pub namespace: String,
    /// Name of the object; empty where the server chose it.
    pub name: String,
    /// First word of the client's name.
    pub agent: String,
    /// HTTP status of the answer.
    pub code: u16,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Event {
    stage: String,
    request_received_timestamp: Timestamp,
    verb: String,
    #[serde(default)]
    user_agent: String,
    object_ref: Option<ObjectRef>,
    response_status: Option<ResponseStatus>,
}

#[derive(Deserialize)]
struct ObjectRef {
    resource: String,
    #[serde(default)]
    subresource: String,
    #[serde(default)]
    namespace: String,
    #[serde(default)]
    name: String,
}

#[derive(Deserialize)]
struct ResponseStatus {
    code: u16,
}

impl Audit {
    /// What is written from now on.
    pub(crate) fn new(file: PathBuf) -> Self {
        let begin = file.metadata().map_or(0, |metadata| metadata.len());
        Self { file, begin }
    }

    /// Every write since this value was made, in the order in which they came. The log has them in the order in which it was
    /// told of their ends, and that of a write can come after what others did about it.
    pub fn writes(&self) -> Vec<Write> {
        let mut text = String::new();
        let mut file = File::open(&self.file).expect("the API server writes an audit log");
        file.seek(SeekFrom::Start(self.begin)).expect("the log can be sought");
        file.read_to_string(&mut text).expect("the log is text");
        // The last line may be half written.
        let whole = text.rfind('\n').map_or("", |end| &text[..=end]);
        let mut writes: Vec<_> = whole.lines().filter_map(read_event).collect();
        writes.sort_by_key(|(received, _)| *received);
        writes.into_iter().map(|(_, write)| write).collect()
    }

    /// The writes of `resource` with its subresources in `namespace`.
    pub fn writes_of(&self, resource: &str, namespace: &str) -> Vec<Write> {
        let mut writes = self.writes();
        writes.retain(|write| write.namespace == namespace && write.resource.split('/').next() == Some(resource));
        writes
    }
}

/// A write, and when it came.
fn read_event(line: &str) -> Option<(Timestamp, Write)> {
    let event: Event = serde_json::from_str(line).expect("each line of the log is an event");
    let object = event.object_ref?;
    // A panic of the server has its own stage; long-running requests have two.
    if event.stage != "ResponseComplete" {
        return None;
    }
    let write = Write {
        verb: event.verb,
        resource: if object.subresource.is_empty() {
            object.resource
        } else {
            format!("{}/{}", object.resource, object.subresource)
        },
        namespace: object.namespace,
        name: object.name,
        agent: event.user_agent.split(['/', ' ']).next().unwrap_or_default().to_owned(),
        code: event.response_status.map_or(0, |status| status.code),
    };
    Some((event.request_received_timestamp, write))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_log_is_read() {
        let line = r#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"Metadata","auditID":"a","stage":"ResponseComplete",
            "requestURI":"/apis/dcv-operator.io/v1alpha1/namespaces/n/dcvsessions/s/status","verb":"patch","user":{"username":"u"},
            "userAgent":"dcv-agent/0.1.0 (linux)","objectRef":{"resource":"dcvsessions","namespace":"n","name":"s","subresource":"status"},
            "responseStatus":{"metadata":{},"code":200},"requestReceivedTimestamp":"2026-01-01T00:00:00.000001Z"}"#;
        let expected = Write {
            verb: "patch".into(),
            resource: "dcvsessions/status".into(),
            namespace: "n".into(),
            name: "s".into(),
            agent: "dcv-agent".into(),
            code: 200,
        };
        let received = "2026-01-01T00:00:00.000001Z".parse().expect("a time");
        assert_eq!(read_event(line), Some((received, expected)));
        assert_eq!(read_event(&line.replace("ResponseComplete", "Panic")), None);
    }
}
