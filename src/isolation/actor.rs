//! Who asks: the parties of the matrix, and the identity the API server sees for each.

use std::fmt;

use serde::Serialize;

use super::Installation;
use super::case::Place;
use crate::api::names::LEADER_LEASE;

/// What the API server adds to a token that is bound to a pod: the pod's node.
pub const NODE_NAME: &str = "authentication.kubernetes.io/node-name";
/// The group that RBAC lets do everything.
pub const MASTERS: &str = "system:masters";

/// A party of the matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Actor {
    /// Whoever holds the token of the agent in a pod on one node.
    PodAgent,
    /// The agent of a host outside the cluster.
    HostAgent,
    /// The agent in a pod, were RBAC to let it do everything: only policies are left.
    UnlimitedPodAgent,
    /// The agent of a host, were RBAC to let it do everything.
    UnlimitedHostAgent,
    /// The agents' account with a token that is not bound to a pod on a node.
    UnboundAgent,
    /// An account of the hosts' namespace that is called as a Node's server is, without the prefix.
    UnprefixedHost,
    /// The agent in a pod on a node that is called as the Lease of the controller's leader is.
    LeaderNodeAgent,
    /// The broker.
    Broker,
    /// The controller.
    Controller,
    /// A person with the role view in one namespace.
    TenantViewer,
    /// A person with the role edit in one namespace.
    TenantUser,
    /// A person with the role admin in one namespace.
    TenantAdmin,
    /// A person with the role view in the whole cluster.
    ClusterViewer,
    /// An administrator of the cluster, who may do everything: only policies are left.
    ClusterAdmin,
    /// Somebody who can log in, with no role.
    Nobody,
}

/// Whose server an agent runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Server {
    /// That of the agent in a pod.
    Node,
    /// That of the agent outside the cluster.
    Host,
}

/// What the API server sees of a caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Name of the user.
    pub user: String,
    /// Groups of the user.
    pub groups: Vec<String>,
    /// Node of the pod that the token is bound to.
    pub node: Option<String>,
}

impl Actor {
    /// All of them, in the order of the report.
    pub const ALL: [Self; 15] = [
        Self::PodAgent,
        Self::HostAgent,
        Self::UnlimitedPodAgent,
        Self::UnlimitedHostAgent,
        Self::UnboundAgent,
        Self::UnprefixedHost,
        Self::LeaderNodeAgent,
        Self::Broker,
        Self::Controller,
        Self::TenantViewer,
        Self::TenantUser,
        Self::TenantAdmin,
        Self::ClusterViewer,
        Self::ClusterAdmin,
        Self::Nobody,
    ];

    /// In words.
    pub fn name(self) -> &'static str {
        match self {
            Self::PodAgent => "agent in a pod",
            Self::HostAgent => "agent of a host outside the cluster",
            Self::UnlimitedPodAgent => "agent in a pod, with every right",
            Self::UnlimitedHostAgent => "agent of a host, with every right",
            Self::UnboundAgent => "agent whose token names no node",
            Self::UnprefixedHost => "host account named like a Node",
            Self::LeaderNodeAgent => "agent on a Node named like the leader's Lease",
            Self::Broker => "broker",
            Self::Controller => "controller",
            Self::TenantViewer => "view of a namespace",
            Self::TenantUser => "edit of a namespace",
            Self::TenantAdmin => "admin of a namespace",
            Self::ClusterViewer => "view of the cluster",
            Self::ClusterAdmin => "administrator of the cluster",
            Self::Nobody => "anybody who can log in",
        }
    }

    /// The server whose agent it is.
    pub fn server(self) -> Option<Server> {
        match self {
            Self::PodAgent | Self::UnlimitedPodAgent => Some(Server::Node),
            Self::HostAgent | Self::UnlimitedHostAgent => Some(Server::Host),
            _ => None,
        }
    }

    /// The namespace it is at home in.
    pub fn home(self) -> Option<Place> {
        match self {
            Self::TenantViewer | Self::TenantUser | Self::TenantAdmin => Some(Place::Tenant),
            Self::Broker | Self::Controller => Some(Place::Release),
            _ => None,
        }
    }

    /// What the API server sees of it.
    pub fn identity(self, installation: &Installation, id: &str) -> Identity {
        let Installation { namespace, agent_namespace, hosts_namespace, controller, broker, agent, .. } = installation;
        let node = node_server(id);
        let mut identity = match self {
            Self::PodAgent | Self::UnlimitedPodAgent => account(agent_namespace, agent, Some(node)),
            Self::LeaderNodeAgent => account(agent_namespace, agent, Some(LEADER_LEASE.into())),
            Self::UnboundAgent => account(agent_namespace, agent, None),
            Self::HostAgent | Self::UnlimitedHostAgent => account(hosts_namespace, &host_server(id), None),
            Self::UnprefixedHost => account(hosts_namespace, &node, None),
            Self::Broker => account(namespace, broker, None),
            Self::Controller => account(namespace, controller, None),
            Self::TenantViewer => person(id, "viewer"),
            Self::TenantUser => person(id, "user"),
            Self::TenantAdmin => person(id, "admin"),
            Self::ClusterViewer => person(id, "cluster-viewer"),
            Self::ClusterAdmin => person(id, "cluster-admin"),
            Self::Nobody => person(id, "nobody"),
        };
        if matches!(self, Self::UnlimitedPodAgent | Self::UnlimitedHostAgent | Self::ClusterAdmin) {
            identity.groups.push(MASTERS.into());
        }
        identity
    }
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Name of the server of the agent in a pod, and of its node.
pub fn node_server(id: &str) -> String {
    format!("dcv-verify-{id}")
}

/// Name of the server of the host outside the cluster, and of its account.
pub fn host_server(id: &str) -> String {
    format!("host-dcv-verify-{id}")
}

fn account(namespace: &str, name: &str, node: Option<String>) -> Identity {
    let groups = ["system:authenticated", "system:serviceaccounts"].map(str::to_owned);
    Identity {
        user: format!("system:serviceaccount:{namespace}:{name}"),
        groups: groups.into_iter().chain([format!("system:serviceaccounts:{namespace}")]).collect(),
        node,
    }
}

fn person(id: &str, name: &str) -> Identity {
    Identity { user: format!("dcv-verify-{id}-{name}"), groups: vec!["system:authenticated".into()], node: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_in_a_pod_is_seen_with_its_node_and_a_host_with_its_account() {
        let names = Installation::default();
        let pod = Actor::PodAgent.identity(&names, "1");
        assert_eq!(
            (pod.user.as_str(), pod.node.as_deref()),
            ("system:serviceaccount:dcv-system:dcv-agent", Some("dcv-verify-1"))
        );
        assert_eq!(pod.groups, ["system:authenticated", "system:serviceaccounts", "system:serviceaccounts:dcv-system"]);
        let host = Actor::HostAgent.identity(&names, "1");
        assert_eq!((host.user.as_str(), host.node), ("system:serviceaccount:dcv-hosts:host-dcv-verify-1", None));
    }

    #[test]
    fn only_those_with_every_right_are_masters() {
        let masters: Vec<_> = Actor::ALL
            .into_iter()
            .filter(|actor| actor.identity(&Installation::default(), "1").groups.contains(&MASTERS.to_owned()))
            .collect();
        assert_eq!(masters, [Actor::UnlimitedPodAgent, Actor::UnlimitedHostAgent, Actor::ClusterAdmin]);
    }

    #[test]
    fn names_are_of_the_release() {
        let names = Installation { namespace: "desktops".into(), broker: "b".into(), ..Installation::default() };
        assert_eq!(Actor::Broker.identity(&names, "1").user, "system:serviceaccount:desktops:b");
    }
}
