//! The attack matrix: who may do what to what, asked of a real API server.
//!
//! [`rules`] says in a few sentences what each party may do; whatever no rule allows must be refused. [`generate`] makes the
//! cases from lists of parties, verbs, objects and changes, and does not look at the rules. [`judge`] asks the API server,
//! as the party and without changing anything: writes that our policies guard are sent as dry runs, all else is a question
//! to the authorizer. [`scratch`] makes the few objects that such writes need and takes them away again.
//!
//! Invariant: every request in another's name is a dry run, see [`request`].

pub mod actor;
pub mod case;
mod change;
pub mod generate;
mod judge;
mod preflight;
mod report;
mod request;
pub mod rules;
mod scratch;

pub use judge::Matrix;
pub use judge::Outcome;
pub use judge::Refuser;
pub use judge::Verdict;
pub use preflight::check_rights;
pub use report::Report;
pub use scratch::LABEL;
pub use scratch::Scratch;
pub use scratch::remove_leftovers;

use crate::api::names;

/// What is installed, and how its namespaces, accounts and roles are called.
#[derive(Clone, Debug)]
pub struct Installation {
    /// Namespace of the controller and the brokers, with keys and Leases.
    pub namespace: String,
    /// Namespace of the agents' pods.
    pub agent_namespace: String,
    /// Namespace of the accounts of hosts outside the cluster.
    pub hosts_namespace: String,
    /// The controller's account.
    pub controller: String,
    /// The brokers' account.
    pub broker: String,
    /// The account of agents in pods.
    pub agent: String,
    /// Role of people who look at what is in a namespace.
    pub view_role: String,
    /// Role of people who work in a namespace.
    pub edit_role: String,
    /// Role of people who own a namespace.
    pub admin_role: String,
    /// Whether every namespace is watched. Else the scratch namespaces are taken to be among those that are not.
    pub watches_everything: bool,
    /// Whether there are accounts of hosts outside the cluster.
    pub has_hosts: bool,
    /// Whether the controller keeps the brokers' certificate.
    pub keeps_certificate: bool,
}

impl Default for Installation {
    fn default() -> Self {
        Self {
            namespace: "dcv-system".into(),
            agent_namespace: "dcv-system".into(),
            hosts_namespace: names::HOSTS_NAMESPACE.into(),
            controller: names::CONTROLLER.into(),
            broker: names::BROKER.into(),
            agent: names::AGENT.into(),
            view_role: "view".into(),
            edit_role: "edit".into(),
            admin_role: "admin".into(),
            watches_everything: true,
            has_hosts: true,
            keeps_certificate: true,
        }
    }
}

/// What can stop the matrix.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The caller may not do what it takes.
    #[error("verify-isolation needs more rights than this account has:\n  {}", .0.join("\n  "))]
    Rights(Vec<String>),
    /// A call in the caller's own name failed.
    #[error("failed to {action} {object}")]
    Api {
        /// What was being done.
        action: &'static str,
        /// To which object.
        object: String,
        /// The cause.
        #[source]
        source: Box<kube::Error>,
    },
    /// The roles of the made-up people did not come into force.
    #[error("the API server does not know the scratch role bindings after {0} seconds")]
    Roles(u64),
}

impl Error {
    /// For `map_err`: says what was being done to which object.
    fn api(action: &'static str, object: impl Into<String>) -> impl FnOnce(kube::Error) -> Self {
        let object = object.into();
        move |source| Self::Api { action, object, source: Box::new(source) }
    }
}
