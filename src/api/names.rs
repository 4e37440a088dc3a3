//! Names that several components must agree on.

/// API group of all our kinds.
pub const GROUP: &str = "dcv-operator.io";
/// Version of all our kinds.
pub const VERSION: &str = "v1alpha1";

/// Holds a session until its desktop is known to be gone. Added by the broker at creation or by the controller before
/// the bind, removed by the agent, or by the controller where no host can hold the desktop.
pub const SESSION_FINALIZER: &str = "dcv-operator.io/session-cleanup";

/// Field manager and `User-Agent` of the controller.
pub const CONTROLLER: &str = "dcv-controller";
/// Field manager and `User-Agent` of agents.
pub const AGENT: &str = "dcv-agent";
/// Field manager and `User-Agent` of brokers.
pub const BROKER: &str = "dcv-broker";
/// Field manager and `User-Agent` of the kubectl plugin.
pub const PLUGIN: &str = "kubectl-dcv";
/// `User-Agent` of the attack matrix.
pub const VERIFIER: &str = "dcv-verify-isolation";

/// Lease of the controller's leader, in the release namespace. Not a valid name of a server that an agent could own:
/// agents own a Lease of their server's name, and a policy keeps them to it.
pub const LEADER_LEASE: &str = "dcv-operator-controller";

/// Namespace of the `ServiceAccount`s of hosts outside the cluster, each named like its server.
pub const HOSTS_NAMESPACE: &str = "dcv-hosts";
/// What the name of a server outside the cluster starts with, so that none can own a Node's server.
pub const HOST_PREFIX: &str = "host-";

/// `ConfigMap` of the release namespace with the public keys of every kind of token, one JWK set a kind under
/// [`crate::token::Kind::public_entry`]. Written by the controller only.
pub const PUBLIC_KEYS: &str = "dcv-public-keys";

/// Annotation of that `ConfigMap` by which new keys are asked for: a [`crate::token::Renewal`]. Who may patch it may ask.
pub const RENEW_KEYS: &str = "dcv-operator.io/renew-keys";
/// Annotation of it with the id of the last request that was done.
pub const RENEWED_KEYS: &str = "dcv-operator.io/renewed-keys";

/// Secret of the release namespace with the brokers' certificate, where the controller makes it.
pub const BROKER_CERTIFICATE: &str = "dcv-broker-certificate";
/// Secret of the release namespace with the authority that signs it.
pub const BROKER_AUTHORITY: &str = "dcv-broker-authority";
/// Annotation of that certificate: what it is good for.
pub const CERTIFICATE_NAMES: &str = "dcv-operator.io/certificate-names";
/// Annotation of that certificate: when it is to be made anew.
pub const RENEW_TIME: &str = "dcv-operator.io/renew-time";

/// Annotation on what a broker makes or changes: the id of the request, as in its log.
pub const REQUEST_ID: &str = "dcv-operator.io/request-id";
/// Annotation on a session: the trace that its making is part of, as the header `traceparent` of the W3C. From a broker that
/// exports traces, or from whoever else made the session.
pub const TRACEPARENT: &str = "dcv-operator.io/traceparent";
/// Label on what the broker makes: the uid of the `ApiClient` it was made for.
pub const CLIENT_LABEL: &str = "dcv-operator.io/api-client";
/// Annotation on what the broker makes: digest of the request under an `Idempotency-Key`.
pub const REQUEST_DIGEST: &str = "dcv-operator.io/request-digest";
/// Annotation of a namespace: regular expression that owners of its sessions must match, by admission policy.
pub const OWNER_PATTERN: &str = "dcv-operator.io/owner-pattern";
/// Annotation of a custom resource definition: `"true"` lets it be deleted, with every object of its kind.
pub const ALLOW_DELETION: &str = "dcv-operator.io/allow-deletion";
/// Label of a server whose Node is cordoned, by the controller: it takes no sessions.
pub const CORDONED: &str = "dcv-operator.io/cordoned";
/// Label of a server, by the controller: the namespace of the installation that its Lease is in, where there may be several.
pub const INSTALLATION: &str = "dcv-operator.io/installation";
/// Annotation of a Node's server: the boot id that was seen last. Labels of servers are copies of the Node's.
pub const NODE_LABEL_PREFIX: &str = "dcv-operator.io/";
