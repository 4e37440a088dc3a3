//! What a session asks of a server.

use std::collections::BTreeMap;

use kube::core::Selector;

use crate::api::DcvSessionSpec;
use crate::api::session::PlacementPolicy;
use crate::api::session::SessionType;

/// What a session asks of a server.
#[derive(Clone, Debug)]
pub struct Request {
    /// Namespace of the session.
    pub namespace: String,
    /// Labels of that namespace.
    pub namespace_labels: BTreeMap<String, String>,
    /// Owner of the desktop.
    pub owner: String,
    /// Kind of session.
    pub type_: SessionType,
    /// Labels the server must carry.
    pub selector: Selector,
    /// The session's own policy.
    pub policy: Option<PlacementPolicy>,
    /// Whether a program is to be run in the session.
    pub autorun: bool,
    /// Servers that are taken only when no other fits: those where it failed before.
    pub avoid: Vec<String>,
}

/// Why a session can be placed nowhere, whatever the servers are like.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unplaceable {
    /// The requirement cannot be honoured, so it must not be ignored.
    #[error("requirements are not supported by this version")]
    Requirements,
    /// The selector makes no sense.
    #[error("serverSelector is invalid: {0}")]
    Selector(String),
}

impl Request {
    /// What the session of `namespace` asks. A namespace without labels stands for one that is not known (yet).
    ///
    /// # Errors
    /// When no server could ever fit.
    pub fn of(
        spec: &DcvSessionSpec,
        namespace: &str,
        namespace_labels: &BTreeMap<String, String>,
    ) -> Result<Self, Unplaceable> {
        if spec.requirements.as_deref().is_some_and(|text| !text.trim().is_empty()) {
            return Err(Unplaceable::Requirements);
        }
        let selector = spec.server_selector.clone().unwrap_or_default();
        Ok(Self {
            namespace: namespace.to_owned(),
            namespace_labels: namespace_labels.clone(),
            owner: spec.owner.clone(),
            type_: spec.type_,
            selector: selector.try_into().map_err(|error| Unplaceable::Selector(format!("{error}")))?,
            policy: spec.placement_policy,
            autorun: spec.autorun_file.is_some(),
            avoid: Vec::new(),
        })
    }

    /// Equal for requests that the same servers fit.
    pub fn class(&self) -> String {
        let selector = self.selector.to_string();
        let Self { namespace, owner, type_, autorun, .. } = self;
        format!("{namespace}\u{0}{owner}\u{0}{}\u{0}{autorun}\u{0}{selector}", type_.as_str())
    }
}
