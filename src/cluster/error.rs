//! What can go wrong with the API server, and what helps.

use std::path::PathBuf;

/// A call or a connection that failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file that says where the API server is cannot be used.
    #[error("failed to read kubeconfig {path}")]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: Box<kube::config::KubeconfigError>,
    },
    /// Neither a kubeconfig nor a pod's account was found.
    #[error("found no API server to connect to")]
    NoCluster(#[source] Box<kube::config::InferConfigError>),
    /// The client could not be built from its configuration.
    #[error("failed to set up the API client")]
    Client(#[source] Box<kube::Error>),
    /// A call failed.
    #[error("failed to {action} {object}")]
    Api {
        /// What was being done, as a verb.
        action: &'static str,
        /// Kind and name.
        object: String,
        /// The cause.
        #[source]
        source: Box<kube::Error>,
    },
}

/// What helps after a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// Only a new version of the object.
    OnChange,
    /// Looking again: our cache was behind.
    Soon,
    /// Waiting longer each time.
    Backoff,
}

impl Error {
    /// For `map_err`: says what was being done to which object.
    pub fn api(action: &'static str, object: impl Into<String>) -> impl FnOnce(kube::Error) -> Self {
        let object = object.into();
        move |source| Self::Api { action, object, source: Box::new(source) }
    }

    /// Whether the API server does not know who we are: our token has ended, or was revoked.
    pub fn is_unauthorized(&self) -> bool {
        self.status().is_some_and(|status| status.code == 401)
    }

    /// The answer of the API server, where it gave one.
    pub fn status(&self) -> Option<&kube::core::Status> {
        match self {
            Self::Api { source, .. } => match source.as_ref() {
                kube::Error::Api(status) => Some(status),
                _ => None,
            },
            _ => None,
        }
    }

    /// Whether the object is not there.
    pub fn is_not_found(&self) -> bool {
        self.status().is_some_and(|status| status.code == 404)
    }

    /// Whether the object changed since it was read, or is already there.
    pub fn is_conflict(&self) -> bool {
        self.status().is_some_and(|status| status.code == 409)
    }

    /// Whether the API server said for sure that it did not do it. Not so for a lost answer, an error on its side, or a
    /// conflict: the client repeats calls, so the conflict can be with our own success, and "too many requests" can be
    /// the answer to a repetition.
    pub fn is_refusal(&self) -> bool {
        self.status().is_some_and(|status| (400..500).contains(&status.code) && ![409, 429].contains(&status.code))
    }

    /// What helps.
    pub fn retry(&self) -> Retry {
        match self.status().map(|status| status.code) {
            Some(400 | 404 | 410 | 422) => Retry::OnChange,
            Some(409) => Retry::Soon,
            _ => Retry::Backoff,
        }
    }

    /// A closed set of words for a metric's label.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Kubeconfig { .. } | Self::NoCluster(_) | Self::Client(_) => "client",
            Self::Api { .. } => match self.status().map(|status| status.code) {
                Some(403) => "forbidden",
                Some(404) => "not_found",
                Some(409) => "conflict",
                Some(422) => "invalid",
                Some(_) => "api",
                None => "no_answer",
            },
        }
    }
}
