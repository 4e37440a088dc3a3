//! The rules themselves, one by one.
//!
//! Plain data with a sentence each, so that they can be read, printed and held against what is installed. They were written
//! from what each party needs, and nothing here may be changed because an API server answers otherwise.

use super::super::actor::Actor;
use super::super::case::Change;
use super::super::case::Object;
use super::super::case::Place;
use super::super::case::Resource;
use super::super::case::Verb;
use super::Rule;

const AGENTS: &[Actor] = &[Actor::PodAgent, Actor::HostAgent, Actor::UnlimitedPodAgent, Actor::UnlimitedHostAgent];
const READ: &[Verb] = &[Verb::Get, Verb::List, Verb::Watch];
const WRITE: &[Verb] = &[Verb::Update, Verb::Patch];
const METADATA: &[Change] = &[
    Change::Label,
    Change::Annotation,
    Change::RequestId,
    Change::Owner,
    Change::AddFinalizer,
    Change::TakeOurFinalizer,
    Change::TakeForeignFinalizer,
];
/// What a new session may have.
const NEW_SESSION: &[Change] = &[
    Change::Nothing,
    Change::Label,
    Change::Annotation,
    Change::RequestId,
    Change::Owner,
    Change::AddFinalizer,
    Change::Spec,
    Change::Close,
];

/// What a rule is that says nothing.
const ANY: Rule = Rule {
    name: "",
    sentence: "",
    who: &[],
    verbs: &[],
    resources: &[],
    own: false,
    places: &[],
    objects: &[],
    changes: &[],
};

/// All of them.
pub const RULES: &[Rule] = &[
    Rule {
        name: "agent-reads",
        sentence: "An agent reads every session, server and namespace: RBAC cannot tell them apart.",
        who: AGENTS,
        verbs: READ,
        resources: &[Resource::Sessions, Resource::Servers, Resource::Namespaces],
        ..ANY
    },
    Rule {
        name: "agent-reads-keys",
        sentence: "An agent reads the public keys of the release, and no other ConfigMap.",
        who: AGENTS,
        verbs: READ,
        resources: &[Resource::ConfigMaps],
        places: &[Place::Release],
        objects: &[Object::PublicKeys],
        ..ANY
    },
    Rule {
        name: "agent-registers",
        sentence: "An agent creates its own server, with an empty spec and nothing in its metadata but the name.",
        who: AGENTS,
        verbs: &[Verb::Create],
        resources: &[Resource::Servers],
        own: true,
        changes: &[Change::Nothing],
        ..ANY
    },
    Rule {
        name: "agent-reports-server",
        sentence: "An agent writes the status of its own server.",
        who: AGENTS,
        verbs: WRITE,
        resources: &[Resource::ServerStatus],
        own: true,
        changes: &[Change::Report],
        ..ANY
    },
    Rule {
        name: "agent-reports-session",
        sentence: "An agent writes the status of sessions bound to its own server, but not where they are bound, their \
            attempt, id, retries and past attempts.",
        who: AGENTS,
        verbs: WRITE,
        resources: &[Resource::SessionStatus],
        own: true,
        changes: &[Change::Report],
        ..ANY
    },
    Rule {
        name: "agent-lets-go",
        sentence: "An agent takes our finalizer, and no other, from a session bound to its own server that is being deleted.",
        who: AGENTS,
        verbs: WRITE,
        resources: &[Resource::Sessions],
        objects: &[Object::ClosingOnNode, Object::ClosingOnHost],
        own: true,
        changes: &[Change::TakeOurFinalizer],
        ..ANY
    },
    Rule {
        name: "agent-lease",
        sentence: "An agent creates and renews the Lease of its own server, in the release namespace.",
        who: AGENTS,
        verbs: &[Verb::Create, Verb::Update, Verb::Patch],
        resources: &[Resource::Leases],
        own: true,
        places: &[Place::Release],
        ..ANY
    },
    Rule {
        name: "agent-looks-at-leases",
        sentence: "An agent reads any Lease of the release namespace by its name: it says who is alive and no more.",
        who: AGENTS,
        verbs: &[Verb::Get],
        resources: &[Resource::Leases],
        places: &[Place::Release],
        ..ANY
    },
    Rule {
        name: "host-renews",
        sentence: "A host outside the cluster asks for tokens of its own account, for at most a day, bound to the Secret of \
            its name.",
        who: &[Actor::HostAgent, Actor::UnlimitedHostAgent],
        verbs: &[Verb::Create],
        resources: &[Resource::Tokens],
        own: true,
        places: &[Place::Hosts],
        changes: &[Change::Hour],
        ..ANY
    },
    Rule {
        name: "broker-reads",
        sentence: "The broker reads every session, server, client and namespace.",
        who: &[Actor::Broker],
        verbs: READ,
        resources: &[Resource::Sessions, Resource::Servers, Resource::Clients, Resource::Namespaces],
        ..ANY
    },
    Rule {
        name: "broker-reads-keys",
        sentence: "The broker reads the signing keys and the public keys, by name.",
        who: &[Actor::Broker],
        verbs: READ,
        resources: &[Resource::Secrets, Resource::ConfigMaps],
        places: &[Place::Release],
        objects: &[Object::AccessKeys, Object::ConnectionKeys, Object::AgentKeys, Object::PublicKeys],
        ..ANY
    },
    Rule {
        name: "broker-creates",
        sentence: "The broker creates sessions in every namespace, for owners that the namespace lets in, and never to take \
            over a desktop.",
        who: &[Actor::Broker],
        verbs: &[Verb::Create],
        resources: &[Resource::Sessions],
        changes: NEW_SESSION,
        ..ANY
    },
    Rule {
        name: "broker-changes",
        sentence: "The broker changes spec, labels and annotations of sessions and deletes them, but leaves finalizers and \
            owners alone.",
        who: &[Actor::Broker],
        verbs: &[Verb::Update, Verb::Patch, Verb::Delete],
        resources: &[Resource::Sessions],
        changes: &[Change::Nothing, Change::Spec, Change::Close, Change::Label, Change::Annotation, Change::RequestId],
        ..ANY
    },
    Rule {
        name: "broker-opens-servers",
        sentence: "The broker opens and closes servers, and notes for which request; nothing else of a server is its business.",
        who: &[Actor::Broker],
        verbs: WRITE,
        resources: &[Resource::Servers],
        changes: &[Change::Placement, Change::RequestId],
        ..ANY
    },
    Rule {
        name: "controller-reads",
        sentence: "The controller reads every session, server, client, namespace and node.",
        who: &[Actor::Controller],
        verbs: READ,
        resources: &[Resource::Sessions, Resource::Servers, Resource::Clients, Resource::Namespaces, Resource::Nodes],
        ..ANY
    },
    Rule {
        name: "controller-reads-own",
        sentence: "The controller reads the Leases and pods of its own namespace.",
        who: &[Actor::Controller],
        verbs: READ,
        resources: &[Resource::Leases, Resource::Pods],
        places: &[Place::Release],
        ..ANY
    },
    Rule {
        name: "controller-keeps-objects",
        sentence: "The controller writes the metadata of sessions and servers and deletes them, but never a spec.",
        who: &[Actor::Controller],
        verbs: WRITE,
        resources: &[Resource::Sessions, Resource::Servers],
        changes: METADATA,
        ..ANY
    },
    Rule {
        name: "controller-deletes",
        sentence: "The controller deletes sessions whose time is over and servers nobody has heard of, one by one.",
        who: &[Actor::Controller],
        verbs: &[Verb::Delete],
        resources: &[Resource::Sessions, Resource::Servers],
        ..ANY
    },
    Rule {
        name: "controller-status",
        sentence: "The controller writes the status of sessions, servers and clients.",
        who: &[Actor::Controller],
        verbs: WRITE,
        resources: &[Resource::SessionStatus, Resource::ServerStatus, Resource::ClientStatus],
        changes: &[
            Change::Report,
            Change::Move,
            Change::Unbind,
            Change::Attempt,
            Change::SessionId,
            Change::Retries,
            Change::Attempts,
        ],
        ..ANY
    },
    Rule {
        name: "controller-events",
        sentence: "The controller writes events.",
        who: &[Actor::Controller],
        verbs: &[Verb::Create, Verb::Patch],
        resources: &[Resource::Events],
        ..ANY
    },
    Rule {
        name: "controller-leads",
        sentence: "The controller renews the Lease of its leader, and no other.",
        who: &[Actor::Controller],
        verbs: WRITE,
        resources: &[Resource::Leases],
        places: &[Place::Release],
        objects: &[Object::Leader],
        ..ANY
    },
    Rule {
        name: "controller-leases",
        sentence: "The controller deletes the Leases of servers that are gone.",
        who: &[Actor::Controller],
        verbs: &[Verb::Delete],
        resources: &[Resource::Leases],
        places: &[Place::Release],
        ..ANY
    },
    Rule {
        name: "controller-creates",
        sentence: "The controller creates what it keeps in its namespace: the leader's Lease, signing keys, public keys, and the \
            brokers' certificate; by these names, and no Secret that would be filled with a token.",
        who: &[Actor::Controller],
        verbs: &[Verb::Create],
        resources: &[Resource::Leases, Resource::Secrets, Resource::ConfigMaps],
        places: &[Place::Release],
        objects: &[
            Object::Leader,
            Object::AccessKeys,
            Object::ConnectionKeys,
            Object::AgentKeys,
            Object::PublicKeys,
            Object::BrokerCertificate,
            Object::BrokerAuthority,
        ],
        changes: &[Change::Nothing, Change::Data, Change::Renew],
        ..ANY
    },
    Rule {
        name: "controller-certificate",
        sentence: "The controller reads and replaces the brokers' certificate and what signs it, by name.",
        who: &[Actor::Controller],
        verbs: &[Verb::Get, Verb::Update],
        resources: &[Resource::Secrets],
        places: &[Place::Release],
        objects: &[Object::BrokerCertificate, Object::BrokerAuthority],
        ..ANY
    },
    Rule {
        name: "controller-keeps-keys",
        sentence: "The controller reads and writes the signing keys and the public keys, by name.",
        who: &[Actor::Controller],
        verbs: &[Verb::Get, Verb::List, Verb::Watch, Verb::Update, Verb::Patch],
        resources: &[Resource::Secrets, Resource::ConfigMaps],
        places: &[Place::Release],
        objects: &[Object::AccessKeys, Object::ConnectionKeys, Object::AgentKeys, Object::PublicKeys],
        ..ANY
    },
    Rule {
        name: "tenant-reads",
        sentence: "Who has view, edit or admin in a namespace reads the sessions and clients there.",
        who: &[Actor::TenantViewer, Actor::TenantUser, Actor::TenantAdmin],
        verbs: READ,
        resources: &[Resource::Sessions, Resource::Clients],
        own: true,
        ..ANY
    },
    Rule {
        name: "cluster-reads",
        sentence: "Who has view in the whole cluster reads every session, server and client.",
        who: &[Actor::ClusterViewer],
        verbs: READ,
        resources: &[Resource::Sessions, Resource::Servers, Resource::Clients],
        ..ANY
    },
    Rule {
        name: "tenant-creates",
        sentence: "Who has edit or admin in a namespace creates sessions there, for owners that the namespace lets in, and not \
            to take over a desktop.",
        who: &[Actor::TenantUser, Actor::TenantAdmin],
        verbs: &[Verb::Create],
        resources: &[Resource::Sessions],
        own: true,
        changes: NEW_SESSION,
        ..ANY
    },
    Rule {
        name: "tenant-changes",
        sentence: "They change spec and metadata of the sessions there and delete them, one or all; the status is not theirs.",
        who: &[Actor::TenantUser, Actor::TenantAdmin],
        verbs: &[Verb::Update, Verb::Patch, Verb::Delete, Verb::DeleteCollection],
        resources: &[Resource::Sessions],
        own: true,
        changes: &[
            Change::Nothing,
            Change::Spec,
            Change::Close,
            Change::Label,
            Change::Annotation,
            Change::RequestId,
            Change::Owner,
            Change::AddFinalizer,
            Change::TakeOurFinalizer,
            Change::TakeForeignFinalizer,
        ],
        ..ANY
    },
    Rule {
        name: "admin-clients",
        sentence: "Who has admin in a namespace writes clients there that reach no further than the namespace.",
        who: &[Actor::TenantAdmin],
        verbs: &[Verb::Create, Verb::Update, Verb::Patch],
        resources: &[Resource::Clients],
        own: true,
        objects: &[Object::New, Object::Plain],
        changes: &[
            Change::Nothing,
            Change::Spec,
            Change::Credential,
            Change::Label,
            Change::Annotation,
            Change::Owner,
            Change::AddFinalizer,
        ],
        ..ANY
    },
    Rule {
        name: "admin-far-clients",
        sentence: "Of clients that reach further they change the metadata; a new password would be a new holder of the right.",
        who: &[Actor::TenantAdmin],
        verbs: WRITE,
        resources: &[Resource::Clients],
        own: true,
        objects: &[Object::Everywhere, Object::Manager],
        changes: &[Change::Label, Change::Annotation, Change::Owner, Change::AddFinalizer],
        ..ANY
    },
    Rule {
        name: "admin-deletes-clients",
        sentence: "They delete any client there, one or all.",
        who: &[Actor::TenantAdmin],
        verbs: &[Verb::Delete, Verb::DeleteCollection],
        resources: &[Resource::Clients],
        own: true,
        ..ANY
    },
    Rule {
        name: "cluster-admin-writes",
        sentence: "An administrator of the cluster writes spec and metadata of sessions, servers and clients, for owners that \
            the namespace lets in.",
        who: &[Actor::ClusterAdmin],
        resources: &[Resource::Sessions, Resource::Servers, Resource::Clients],
        changes: &[
            Change::Nothing,
            Change::Label,
            Change::Annotation,
            Change::RequestId,
            Change::Owner,
            Change::AddFinalizer,
            Change::TakeOurFinalizer,
            Change::TakeForeignFinalizer,
            Change::Spec,
            Change::Close,
            Change::Adopt,
            Change::Placement,
            Change::EndSessions,
            Change::AllowedNamespaces,
            Change::Limits,
            Change::Credential,
            Change::AllNamespaces,
            Change::ManageServers,
        ],
        ..ANY
    },
    Rule {
        name: "cluster-admin-status",
        sentence: "An administrator of the cluster may write any status, as a last resort.",
        who: &[Actor::ClusterAdmin],
        resources: &[Resource::SessionStatus, Resource::ServerStatus, Resource::ClientStatus],
        changes: &[
            Change::Report,
            Change::Move,
            Change::Unbind,
            Change::Attempt,
            Change::SessionId,
            Change::Retries,
            Change::Attempts,
        ],
        ..ANY
    },
    Rule {
        name: "cluster-admin-leases",
        sentence: "An administrator of the cluster may write any Lease.",
        who: &[Actor::ClusterAdmin],
        resources: &[Resource::Leases],
        ..ANY
    },
    Rule {
        name: "keys-on-request",
        sentence: "Who may write ConfigMaps of the release namespace asks for new keys by an annotation; only the controller \
            writes the public keys.",
        who: &[Actor::ClusterAdmin],
        verbs: WRITE,
        resources: &[Resource::ConfigMaps],
        places: &[Place::Release],
        objects: &[Object::PublicKeys],
        changes: &[Change::RenewKeys],
        ..ANY
    },
];

/// What the rules do not allow where some namespaces only are watched, in a namespace that is not among them.
pub const UNWATCHED: &[Rule] = &[
    Rule {
        name: "unwatched-agent",
        sentence: "Where some namespaces only are watched, agents cannot list the sessions of others and do not see the \
            namespaces; single sessions they read by name.",
        who: &[Actor::PodAgent, Actor::HostAgent],
        verbs: &[Verb::List, Verb::Watch],
        resources: &[Resource::Sessions],
        ..ANY
    },
    Rule {
        name: "unwatched-namespaces",
        sentence: "Where some namespaces only are watched, agents, broker and controller see no other namespace.",
        who: &[Actor::PodAgent, Actor::HostAgent, Actor::Broker, Actor::Controller],
        verbs: READ,
        resources: &[Resource::Namespaces],
        ..ANY
    },
    Rule {
        name: "unwatched-broker",
        sentence: "Where some namespaces only are watched, the broker has no right on sessions and clients of others.",
        who: &[Actor::Broker],
        resources: &[Resource::Sessions, Resource::Clients],
        ..ANY
    },
    Rule {
        name: "unwatched-controller",
        sentence: "Where some namespaces only are watched, the controller cannot list or delete the sessions of others.",
        who: &[Actor::Controller],
        verbs: &[Verb::List, Verb::Watch, Verb::Delete],
        resources: &[Resource::Sessions],
        ..ANY
    },
    Rule {
        name: "unwatched-clients",
        sentence: "Where some namespaces only are watched, the controller reads no clients of others.",
        who: &[Actor::Controller],
        verbs: READ,
        resources: &[Resource::Clients],
        ..ANY
    },
];

/// What stands below the rules.
pub const REST: &str = "Whatever no rule allows is refused: to everybody the deletion of our definitions; to all but \
    administrators every other Secret, token, pod, node, role, policy and definition, and acting as somebody else.";
