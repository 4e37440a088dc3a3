//! What a session asks of a server.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::hash::Hasher;
use std::sync::Arc;
use std::sync::LazyLock;
use std::sync::Mutex;
use std::sync::PoisonError;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::core::ParseExpressionError;
use kube::core::Selector;
use kube::core::SelectorExt;

use crate::api::DcvSessionSpec;
use crate::api::session::PlacementPolicy;
use crate::api::session::SessionType;
use crate::requirement::Dialect;
use crate::requirement::ParseError;
use crate::requirement::Property;
use crate::requirement::Requirement;

/// What a session asks of a server.
#[derive(Clone, Debug)]
pub struct Request {
    /// Namespace of the session.
    pub namespace: String,
    /// Labels of that namespace.
    pub namespace_labels: BTreeMap<String, String>,
    /// Owner of the desktop.
    pub owner: String,
    /// What it asks whoever it is for.
    pub wants: Arc<Wants>,
    /// The session's own policy.
    pub policy: Option<PlacementPolicy>,
    /// Whether it asks for what only virtual sessions have.
    pub virtual_only: bool,
    /// Servers that are taken only when no other fits: those where it failed before.
    pub avoid: Vec<String>,
}

/// What a session asks of a server whoever it is for. Equal for most of the sessions that wait together.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Wants {
    /// Kind of session.
    pub type_: SessionType,
    /// The expression the server must meet.
    pub requirement: Option<Arc<Requirement>>,
    /// Labels the server must carry.
    pub selector: Labels,
    /// Whether a program is to be run in the session.
    pub autorun: bool,
    /// Whether the desktop is to have the host's GPU for OpenGL.
    pub gl: bool,
}

impl Wants {
    /// Whether the requirement asks for one of these.
    pub(super) fn asks_for_any(&self, properties: &[Property]) -> bool {
        self.requirement.iter().any(|it| properties.iter().any(|property| it.asks_for(*property)))
    }

    /// The clause of this index in words.
    pub(super) fn clause(&self, index: usize) -> String {
        let clause = self.requirement.as_ref().and_then(|it| it.clauses().get(index));
        clause.map(ToString::to_string).unwrap_or_default()
    }
}

/// A label selector that can be compared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Labels {
    selector: Selector,
    text: String,
}

impl Labels {
    /// Whether it selects what carries these labels.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.selector.matches(labels)
    }

    /// Whether it selects everything.
    pub fn is_empty(&self) -> bool {
        self.selector.selects_all()
    }
}

impl Hash for Labels {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.text.hash(state);
    }
}

impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl TryFrom<LabelSelector> for Labels {
    type Error = ParseExpressionError;

    fn try_from(selector: LabelSelector) -> Result<Self, Self::Error> {
        let selector = Selector::try_from(selector)?;
        Ok(Self { text: selector.to_string(), selector })
    }
}

/// Why a session can be placed nowhere, whatever the servers are like.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Unplaceable {
    /// The requirement is not well-formed.
    #[error(transparent)]
    Requirements(#[from] ParseError),
    /// The selector makes no sense.
    #[error("serverSelector is invalid: {0}")]
    Selector(String),
    /// It asks for what console sessions do not have.
    #[error("{0} may not be set when type is CONSOLE")]
    Console(&'static str),
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
        dialect: Dialect,
    ) -> Result<Self, Unplaceable> {
        let virtual_only = virtual_only(spec);
        if let Some(field) = virtual_only.filter(|_| spec.type_ == SessionType::Console) {
            return Err(Unplaceable::Console(field));
        }
        let selector = spec.server_selector.clone().unwrap_or_default();
        let wants = Wants {
            type_: spec.type_,
            requirement: parsed(spec.requirements.as_deref().unwrap_or_default(), dialect)?,
            selector: selector.try_into().map_err(|error| Unplaceable::Selector(format!("{error}")))?,
            autorun: spec.autorun_file.is_some(),
            gl: spec.dcv_gl_enabled == Some(true),
        };
        Ok(Self {
            namespace: namespace.to_owned(),
            namespace_labels: namespace_labels.clone(),
            owner: spec.owner.clone(),
            wants: Arc::new(wants),
            policy: spec.placement_policy,
            virtual_only: virtual_only.is_some(),
            avoid: Vec::new(),
        })
    }
}

/// A field that is set and means something in virtual sessions only. Source: the page on creating sessions of the DCV
/// Session Manager Developer Guide.
fn virtual_only(spec: &DcvSessionSpec) -> Option<&'static str> {
    let fields = [
        ("initFile", spec.init_file.is_some()),
        ("dcvGlEnabled", spec.dcv_gl_enabled.is_some()),
        ("autorunFileArguments", !spec.autorun_file_arguments.is_empty()),
    ];
    fields.into_iter().find_map(|(field, is_set)| is_set.then_some(field))
}

/// Texts parsed lately, and whether only what is documented was allowed in them.
type Parsed = HashMap<(String, bool), Result<Option<Arc<Requirement>>, ParseError>>;

/// Most texts remembered.
const PARSED_MAX: usize = 4096;

/// As [`Requirement::parse`], once per text: sessions with the same requirement share it.
fn parsed(text: &str, dialect: Dialect) -> Result<Option<Arc<Requirement>>, ParseError> {
    static PARSED: LazyLock<Mutex<Parsed>> = LazyLock::new(Mutex::default);
    if text.is_empty() {
        return Ok(None);
    }
    // A panic elsewhere cannot leave half an entry.
    let mut known = PARSED.lock().unwrap_or_else(PoisonError::into_inner);
    if known.len() >= PARSED_MAX {
        known.clear();
    }
    let parse = || Requirement::parse(text, dialect).map(|requirement| requirement.map(Arc::new));
    known.entry((text.to_owned(), dialect == Dialect::Documented)).or_insert_with(parse).clone()
}
