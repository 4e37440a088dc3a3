//! One question of the matrix: who, which verb, which object, which change.

use std::fmt;

use serde::Serialize;
use serde::Serializer;

use super::actor::Actor;
use super::actor::Server;

/// What is done to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verb {
    /// Read one.
    Get,
    /// Read all.
    List,
    /// Be told of changes.
    Watch,
    /// Make one; of a token: ask for it; of `pods/exec`: run something.
    Create,
    /// Replace one.
    Update,
    /// Change a part of one.
    Patch,
    /// Delete one.
    Delete,
    /// Delete all.
    DeleteCollection,
    /// Act as somebody else.
    Impersonate,
    /// Give a role out that one does not have.
    Bind,
    /// Put more into a role than one may do.
    Escalate,
    /// Take over a desktop that already runs.
    Adopt,
    /// Write a client that reaches beyond its namespace.
    #[serde(rename = "all-namespaces")]
    AllNamespaces,
    /// Write a client that opens and closes servers.
    #[serde(rename = "manage-servers")]
    ManageServers,
}

impl Verb {
    /// As RBAC calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::List => "list",
            Self::Watch => "watch",
            Self::Create => "create",
            Self::Update => "update",
            Self::Patch => "patch",
            Self::Delete => "delete",
            Self::DeleteCollection => "deletecollection",
            Self::Impersonate => "impersonate",
            Self::Bind => "bind",
            Self::Escalate => "escalate",
            Self::Adopt => "adopt",
            Self::AllNamespaces => "all-namespaces",
            Self::ManageServers => "manage-servers",
        }
    }
}

macro_rules! resources {
    ($($name:ident: $group:literal $plural:literal $subresource:literal $namespaced:literal,)*) => {
        /// A kind of object, or a part of it with rights of its own.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[expect(missing_docs, reason = "each is the resource of its name")]
        pub enum Resource { $($name,)* }

        impl Resource {
            /// API group, plural, subresource (or nothing), and whether it lives in a namespace.
            fn parts(self) -> (&'static str, &'static str, &'static str, bool) {
                match self { $(Self::$name => ($group, $plural, $subresource, $namespaced),)* }
            }
        }
    };
}

resources! {
    Sessions: "dcv-operator.io" "dcvsessions" "" true,
    SessionStatus: "dcv-operator.io" "dcvsessions" "status" true,
    SessionFinalizers: "dcv-operator.io" "dcvsessions" "finalizers" true,
    Servers: "dcv-operator.io" "dcvservers" "" false,
    ServerStatus: "dcv-operator.io" "dcvservers" "status" false,
    ServerFinalizers: "dcv-operator.io" "dcvservers" "finalizers" false,
    Clients: "dcv-operator.io" "apiclients" "" true,
    ClientStatus: "dcv-operator.io" "apiclients" "status" true,
    ClientFinalizers: "dcv-operator.io" "apiclients" "finalizers" true,
    Leases: "coordination.k8s.io" "leases" "" true,
    ConfigMaps: "" "configmaps" "" true,
    Secrets: "" "secrets" "" true,
    ServiceAccounts: "" "serviceaccounts" "" true,
    Tokens: "" "serviceaccounts" "token" true,
    Pods: "" "pods" "" true,
    PodStatus: "" "pods" "status" true,
    PodExec: "" "pods" "exec" true,
    PodAttach: "" "pods" "attach" true,
    PodPortForward: "" "pods" "portforward" true,
    PodLog: "" "pods" "log" true,
    PodEphemeralContainers: "" "pods" "ephemeralcontainers" true,
    DaemonSets: "apps" "daemonsets" "" true,
    Events: "events.k8s.io" "events" "" true,
    OldEvents: "" "events" "" true,
    Nodes: "" "nodes" "" false,
    NodeStatus: "" "nodes" "status" false,
    NodeProxy: "" "nodes" "proxy" false,
    Namespaces: "" "namespaces" "" false,
    NamespaceStatus: "" "namespaces" "status" false,
    NamespaceFinalize: "" "namespaces" "finalize" false,
    Definitions: "apiextensions.k8s.io" "customresourcedefinitions" "" false,
    DefinitionStatus: "apiextensions.k8s.io" "customresourcedefinitions" "status" false,
    Policies: "admissionregistration.k8s.io" "validatingadmissionpolicies" "" false,
    PolicyBindings: "admissionregistration.k8s.io" "validatingadmissionpolicybindings" "" false,
    MutatingWebhooks: "admissionregistration.k8s.io" "mutatingwebhookconfigurations" "" false,
    Roles: "rbac.authorization.k8s.io" "roles" "" true,
    RoleBindings: "rbac.authorization.k8s.io" "rolebindings" "" true,
    ClusterRoles: "rbac.authorization.k8s.io" "clusterroles" "" false,
    ClusterRoleBindings: "rbac.authorization.k8s.io" "clusterrolebindings" "" false,
    Users: "" "users" "" false,
    Groups: "" "groups" "" false,
    NodeNames: "authentication.k8s.io" "userextras" "authentication.kubernetes.io/node-name" false,
}

impl Resource {
    /// Its API group.
    pub fn group(self) -> &'static str {
        self.parts().0
    }

    /// Its name without subresource.
    pub fn plural(self) -> &'static str {
        self.parts().1
    }

    /// The part of the object that is meant, or nothing.
    pub fn subresource(self) -> &'static str {
        self.parts().2
    }

    /// Whether it lives in a namespace.
    pub fn is_namespaced(self) -> bool {
        self.parts().3
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (group, plural, subresource, _) = self.parts();
        f.write_str(plural)?;
        // There are two kinds of this name.
        if *self == Self::Events {
            write!(f, ".{group}")?;
        }
        if subresource.is_empty() { Ok(()) } else { write!(f, "/{subresource}") }
    }
}

impl Serialize for Resource {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Where an object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Place {
    /// In no namespace.
    Cluster,
    /// Namespace of the controller and the brokers.
    Release,
    /// Namespace of the hosts' accounts.
    Hosts,
    /// The scratch namespace in which the tenants have their roles.
    Tenant,
    /// Another scratch namespace.
    OtherTenant,
}

impl Place {
    fn name(self) -> &'static str {
        match self {
            Self::Cluster => "",
            Self::Release => " in the release namespace",
            Self::Hosts => " in the hosts' namespace",
            Self::Tenant => " in the tenant's namespace",
            Self::OtherTenant => " in another namespace",
        }
    }
}

/// Which object is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Object {
    /// All there are.
    All,
    /// One that is not there yet.
    New,
    /// Some object; it need not be there.
    Any,
    /// The one named like the server of the agent in a pod.
    OfNode,
    /// The one named like the server of the agent outside the cluster.
    OfHost,
    /// The one named like another server outside the cluster.
    OfOtherHost,
    /// A session bound to the Node's server.
    OnNode,
    /// A session bound to the Node's server that is being deleted.
    ClosingOnNode,
    /// A session bound to the host's server.
    OnHost,
    /// A session bound to the host's server that is being deleted.
    ClosingOnHost,
    /// A session bound to no server.
    Waiting,
    /// A client without rights beyond its namespace.
    Plain,
    /// A client with `allNamespaces`.
    Everywhere,
    /// A client with `manageServers`.
    Manager,
    /// The Lease of the controller's leader.
    Leader,
    /// The signing keys of access tokens.
    AccessKeys,
    /// The signing keys of connection tokens.
    ConnectionKeys,
    /// The signing keys of the tokens brokers show to agents.
    AgentKeys,
    /// The public keys.
    PublicKeys,
    /// The certificate of the brokers.
    BrokerCertificate,
    /// What signs the certificate of the brokers.
    BrokerAuthority,
    /// The account of the controller.
    ControllerAccount,
    /// The definition of sessions.
    SessionDefinition,
    /// The definition of servers.
    ServerDefinition,
    /// The definition of clients.
    ClientDefinition,
    /// The group that may do everything.
    Masters,
}

impl Object {
    /// The server an object belongs to.
    pub fn server(self) -> Option<Server> {
        match self {
            Self::OfNode | Self::OnNode | Self::ClosingOnNode => Some(Server::Node),
            Self::OfHost | Self::OnHost | Self::ClosingOnHost => Some(Server::Host),
            _ => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::New => "a new one",
            Self::Any => "any",
            Self::OfNode => "the Node's",
            Self::OfHost => "the host's",
            Self::OfOtherHost => "another host's",
            Self::OnNode => "bound to the Node",
            Self::ClosingOnNode => "closing on the Node",
            Self::OnHost => "bound to the host",
            Self::ClosingOnHost => "closing on the host",
            Self::Waiting => "bound to no server",
            Self::Plain => "a plain one",
            Self::Everywhere => "one with allNamespaces",
            Self::Manager => "one with manageServers",
            Self::Leader => "dcv-operator-controller",
            Self::AccessKeys => "dcv-access-token-keys",
            Self::ConnectionKeys => "dcv-connection-token-keys",
            Self::AgentKeys => "dcv-agent-token-keys",
            Self::PublicKeys => "dcv-public-keys",
            Self::BrokerCertificate => "dcv-broker-certificate",
            Self::BrokerAuthority => "dcv-broker-authority",
            Self::ControllerAccount => "the controller's",
            Self::SessionDefinition => "dcvsessions.dcv-operator.io",
            Self::ServerDefinition => "dcvservers.dcv-operator.io",
            Self::ClientDefinition => "apiclients.dcv-operator.io",
            Self::Masters => "system:masters",
        }
    }
}

/// What a write changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Change {
    /// Reads, deletions, and creations of the least there can be.
    Nothing,
    /// A label.
    Label,
    /// An annotation that means nothing to us.
    Annotation,
    /// The annotation that says which request a change is of.
    RequestId,
    /// The annotation that asks for new keys.
    RenewKeys,
    /// An owner reference.
    Owner,
    /// A finalizer more, of somebody else.
    AddFinalizer,
    /// Our finalizer less.
    TakeOurFinalizer,
    /// Somebody else's finalizer less.
    TakeForeignFinalizer,
    /// A session's name for people.
    Spec,
    /// A session is to be closed.
    Close,
    /// A session's owner is one that the namespace does not let in.
    WrongOwner,
    /// A session that takes over a desktop.
    Adopt,
    /// A session's count of connections; a server's version; a client's id; some status.
    Report,
    /// The session is bound to a third server.
    Move,
    /// The session is bound to no server.
    Unbind,
    /// The session is bound to the actor's own server.
    Claim,
    /// Another attempt.
    Attempt,
    /// Another id.
    SessionId,
    /// Another count of retries.
    Retries,
    /// Another memory of attempts.
    Attempts,
    /// Whether a server takes sessions.
    Placement,
    /// The desktops that a server is to end.
    EndSessions,
    /// The namespaces that a server takes sessions of.
    AllowedNamespaces,
    /// The limits of a server.
    Limits,
    /// One more password of a client.
    Credential,
    /// A client that reaches every namespace.
    AllNamespaces,
    /// A client that opens and closes servers.
    ManageServers,
    /// The holder of a Lease.
    Renew,
    /// What a `ConfigMap` holds.
    Data,
    /// A Secret that Kubernetes fills with a token of the brokers' account.
    AccountToken,
    /// A token for an hour, bound to the Secret of its account's name.
    Hour,
    /// A token for more than a day.
    TwoDays,
    /// A token that is bound to nothing.
    Unbound,
    /// A token that is bound to another account's Secret.
    BoundToAnother,
}

impl Change {
    fn name(self) -> &'static str {
        match self {
            Self::Nothing => "",
            Self::Label => "a label",
            Self::Annotation => "an annotation",
            Self::RequestId => "the annotation request-id",
            Self::RenewKeys => "the annotation renew-keys",
            Self::Owner => "an owner reference",
            Self::AddFinalizer => "one finalizer more",
            Self::TakeOurFinalizer => "without our finalizer",
            Self::TakeForeignFinalizer => "without a foreign finalizer",
            Self::Spec => "the displayName",
            Self::Close => "the desired state",
            Self::WrongOwner => "an owner outside the pattern",
            Self::Adopt => "adopt",
            Self::Report => "the status",
            Self::Move => "bound to a third server",
            Self::Unbind => "bound to no server",
            Self::Claim => "bound to the own server",
            Self::Attempt => "another attempt",
            Self::SessionId => "another session id",
            Self::Retries => "another count of retries",
            Self::Attempts => "other attempts",
            Self::Placement => "placement",
            Self::EndSessions => "endSessions",
            Self::AllowedNamespaces => "allowedNamespaces",
            Self::Limits => "limits",
            Self::Credential => "a credential",
            Self::AllNamespaces => "allNamespaces",
            Self::ManageServers => "manageServers",
            Self::Renew => "the holder",
            Self::Data => "the data",
            Self::AccountToken => "to be filled with a token",
            Self::Hour => "an hour, bound to its Secret",
            Self::TwoDays => "two days",
            Self::Unbound => "bound to nothing",
            Self::BoundToAnother => "bound to another Secret",
        }
    }
}

/// Which object of which kind, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Target {
    /// Kind, or part of it.
    pub resource: Resource,
    /// Namespace.
    pub place: Place,
    /// Which one.
    pub object: Object,
}

/// One question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Case {
    /// Who asks.
    pub actor: Actor,
    /// What is to be done.
    pub verb: Verb,
    /// To what.
    #[serde(flatten)]
    pub target: Target,
    /// What is written.
    pub change: Change,
}

impl Case {
    /// Whether the object is the actor's own: of its server, or in its namespace.
    pub fn is_own(&self) -> bool {
        match self.actor.server() {
            Some(server) => self.target.object.server() == Some(server),
            None => self.actor.home() == Some(self.target.place),
        }
    }

    /// Whether the case is tried as a dry run: a write that our policies guard. All else is asked of the authorizer, which
    /// needs no object, and shows nobody a Secret.
    pub fn is_dry_run(&self) -> bool {
        let Target { resource, place, object } = self.target;
        let changes = matches!(self.verb, Verb::Create | Verb::Update | Verb::Patch);
        let deletes = matches!(self.verb, Verb::Delete | Verb::DeleteCollection);
        match resource {
            Resource::Sessions
            | Resource::SessionStatus
            | Resource::Servers
            | Resource::ServerStatus
            | Resource::Clients
            | Resource::ClientStatus
            | Resource::Leases => (changes || deletes) && object != Object::Any,
            // What the controller creates is guarded; what of it is there is asked for by name.
            Resource::ConfigMaps | Resource::Secrets
                if self.verb == Verb::Create && self.actor == Actor::Controller =>
            {
                place == Place::Release
            }
            Resource::ConfigMaps => changes && object == Object::PublicKeys,
            Resource::Tokens => place == Place::Hosts,
            Resource::Definitions => deletes && self.actor == Actor::ClusterAdmin,
            _ => false,
        }
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { actor, verb, target: Target { resource, place, object }, change } = self;
        write!(f, "{actor}: {} {resource}, {}{}", verb.name(), object.name(), place.name())?;
        if *change == Change::Nothing { Ok(()) } else { write!(f, ": {}", change.name()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_case_reads_like_a_sentence() {
        let target = Target { resource: Resource::SessionStatus, place: Place::Tenant, object: Object::OnHost };
        let case = Case { actor: Actor::PodAgent, verb: Verb::Patch, target, change: Change::Claim };
        assert_eq!(
            case.to_string(),
            "agent in a pod: patch dcvsessions/status, bound to the host in the tenant's namespace: bound to the own server"
        );
    }

    #[test]
    fn what_is_own_follows_the_server_of_agents_and_the_namespace_of_people() {
        let own = |actor, place, object| {
            let target = Target { resource: Resource::Sessions, place, object };
            Case { actor, verb: Verb::Get, target, change: Change::Nothing }.is_own()
        };
        assert!(own(Actor::PodAgent, Place::Tenant, Object::OnNode));
        assert!(!own(Actor::PodAgent, Place::Tenant, Object::OnHost));
        assert!(!own(Actor::UnprefixedHost, Place::Tenant, Object::OnNode));
        assert!(own(Actor::TenantUser, Place::Tenant, Object::Waiting));
        assert!(!own(Actor::TenantUser, Place::OtherTenant, Object::Waiting));
        assert!(!own(Actor::Nobody, Place::Tenant, Object::Waiting));
    }
}
