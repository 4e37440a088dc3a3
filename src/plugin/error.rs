//! What can go wrong, in the words kubectl has for it.

use std::error::Error as StdError;
use std::fmt::Write;
use std::io;

use kube::core::Status;

/// What stopped a command.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("cannot start")]
    Runtime(#[source] io::Error),
    #[error("cannot read the kubeconfig")]
    Kubeconfig(#[source] Box<kube::config::KubeconfigError>),
    #[error("found no cluster to connect to")]
    InferConfig(#[source] Box<kube::config::InferConfigError>),
    #[error("cannot use the kubeconfig")]
    Client(#[source] Box<kube::Error>),
    #[error("Unable to connect to the server")]
    Request(#[source] Box<kube::Error>),
    #[error("no client with id \"{client_id}\" in namespace \"{namespace}\"")]
    NoSuchId { client_id: String, namespace: String },
    #[error("{command} needs the right to {right}")]
    Right { command: &'static str, right: String, status: Box<Status> },
    #[error("{}", status_words(status))]
    Hint { status: Box<Status>, hint: String },
    #[error("the API server tells no version of the list, so it cannot be followed")]
    NoVersion,
    #[error("{server} is not Draining any more: somebody has opened or closed it meanwhile")]
    DrainTakenBack { server: String },
    #[error("not all of them are over after that time; they are still closing")]
    NotOver,
    #[error("{} on {server} after that time; it stays Draining", counted(*.left))]
    NotDrained { server: String, left: usize },
    #[error("server {server} tells of no session {id} that no DcvSession stands for; see status.otherSessions")]
    NoOtherSession { server: String, id: String },
    #[error("{} on {server} after that time; the request is taken back", counted(*.left))]
    NotEnded { server: String, left: usize },
    #[error("interrupted")]
    Interrupted,
    /// The usual end of what goes on for ever.
    #[error("stopped")]
    Stopped,
    /// In words of its own.
    #[error("{0}")]
    Told(String),
    #[error("cannot read {file}")]
    Read { file: String, source: io::Error },
    #[error("cannot read {file}")]
    Manifest { file: String, source: Box<serde_saphyr::Error> },
    #[error("{file}: document {number} is no DcvSession")]
    Document { file: String, number: usize, source: serde_json::Error },
    #[error("no DcvSession in {0}")]
    NoSession(String),
    #[error("the controller has not made new keys yet; it will when it runs")]
    NoNewKeys,
    #[error("cannot print")]
    Output(#[source] io::Error),
    #[error("cannot write YAML")]
    Yaml(#[source] serde_saphyr::ser::Error),
}

impl From<kube::Error> for Error {
    fn from(source: kube::Error) -> Self {
        Self::Request(Box::new(source))
    }
}

impl Error {
    /// What the program exits with.
    pub(super) fn exit_code(&self) -> u8 {
        // As shells say that a program was ended by SIGINT.
        if matches!(self, Self::Interrupted | Self::Stopped) { 130 } else { 1 }
    }
}

/// An answer of the API server to `command`, which needs `right`.
pub(super) fn needs(command: &'static str, right: impl Into<String>, error: kube::Error) -> Error {
    match error {
        kube::Error::Api(status) if status.is_forbidden() => Error::Right { command, right: right.into(), status },
        error => error.into(),
    }
}

/// How many sessions are still there.
fn counted(left: usize) -> String {
    match left {
        1 => "1 session is still".to_owned(),
        left => format!("{left} sessions are still"),
    }
}

/// The error as one text for stderr, without a line end.
pub(super) fn words(error: &Error) -> String {
    match error {
        Error::Request(source) => match source.as_ref() {
            kube::Error::Api(status) => status_words(status),
            other => format!("{error}: {}", causes(other)),
        },
        Error::NoSuchId { .. }
        | Error::NoSession(_)
        | Error::NoNewKeys
        | Error::NotDrained { .. }
        | Error::NoOtherSession { .. }
        | Error::NotEnded { .. }
        | Error::NoVersion
        | Error::DrainTakenBack { .. }
        | Error::NotOver
        | Error::Told(_)
        | Error::Interrupted => format!("error: {error}"),
        Error::Stopped => String::new(),
        Error::Hint { hint, .. } => format!("{error}; {hint}"),
        Error::Right { status, .. } => format!("error: {error}: {}", status.message),
        Error::Runtime(source) | Error::Output(source) | Error::Read { source, .. } => {
            format!("error: {error}: {source}")
        }
        // It starts with that word itself.
        Error::Manifest { source, .. } => {
            format!("error: {error}: {}", source.to_string().trim_start_matches("error: "))
        }
        Error::Document { source, .. } => format!("error: {error}: {source}"),
        Error::Kubeconfig(source) => format!("error: {error}: {}", causes(source.as_ref())),
        Error::InferConfig(source) => format!("error: {error}: {}", causes(source.as_ref())),
        Error::Client(source) => format!("error: {error}: {}", causes(source.as_ref())),
        Error::Yaml(source) => format!("error: {error}: {source}"),
    }
}

/// The chain of causes, leaving out what has been said already.
pub(super) fn causes(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            let _ = write!(text, ": {cause_text}");
        }
        next = cause.source();
    }
    text
}

// Source: `StandardErrorMessage` and `checkErr` in k8s.io/kubectl/pkg/cmd/util/helpers.go.
fn status_words(status: &Status) -> String {
    let reason = status.reason.as_str();
    match (reason, &status.details) {
        ("Unauthorized", _) => format!("error: You must be logged in to the server ({})", status.message),
        ("Invalid", Some(details)) if !details.causes.is_empty() => {
            let causes: Vec<_> =
                details.causes.iter().map(|cause| format!("{}: {}", cause.field, cause.message)).collect();
            let subject = format!("The {} \"{}\" is invalid: ", details.kind, details.name);
            match causes.as_slice() {
                [one] => subject + one,
                many => many.iter().fold(subject, |text, cause| text + "\n* " + cause),
            }
        }
        ("", _) => format!("Error from server: {}", status.message),
        _ => format!("Error from server ({reason}): {}", status.message),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;
    use serde_json::json;

    use super::*;

    fn of(status: Value) -> String {
        words(&kube::Error::Api(Box::new(serde_json::from_value(status).unwrap())).into())
    }

    #[test]
    fn errors_of_the_server_have_kubectls_words() {
        assert_eq!(
            of(json!({"reason": "NotFound", "code": 404, "message": "apiclients.dcv-operator.io \"a\" not found"})),
            "Error from server (NotFound): apiclients.dcv-operator.io \"a\" not found"
        );
        assert_eq!(of(json!({"code": 500, "message": "etcd"})), "Error from server: etcd");
        assert_eq!(
            of(json!({"reason": "Unauthorized", "code": 401, "message": "Unauthorized"})),
            "error: You must be logged in to the server (Unauthorized)"
        );
        let one = json!({"field": "spec.clientId", "message": "too long"});
        let invalid = |causes: Value| {
            let details = json!({"kind": "ApiClient", "name": "a", "causes": causes});
            of(json!({"reason": "Invalid", "code": 422, "message": "…", "details": details}))
        };
        assert_eq!(invalid(json!([one])), "The ApiClient \"a\" is invalid: spec.clientId: too long");
        assert_eq!(
            invalid(json!([one, {"field": "spec.b", "message": "c"}])),
            "The ApiClient \"a\" is invalid: \n* spec.clientId: too long\n* spec.b: c"
        );
    }

    #[test]
    fn other_errors_name_each_cause_once() {
        let refused = kube::Error::Service(Box::new(io::Error::from(io::ErrorKind::ConnectionRefused)));
        assert_eq!(words(&refused.into()), "Unable to connect to the server: ServiceError: connection refused");
        let missing = Error::NoSuchId { client_id: "x".into(), namespace: "n".into() };
        assert_eq!(words(&missing), "error: no client with id \"x\" in namespace \"n\"");
    }
}
