//! The requests of the matrix, as bytes.
//!
//! Invariant: what is asked in another's name changes nothing: [`dry_run`] is the one function that writes the headers that
//! say for whom, and it always asks for a dry run.

use http::Method;
use http::Request;
use http::header::CONTENT_TYPE;
use k8s_openapi::api::authorization::v1::ResourceAttributes;
use serde_json::Value;
use serde_json::json;

use super::Installation;
use super::actor;
use super::actor::Identity;
use super::actor::NODE_NAME;
use super::actor::Server;
use super::case::Case;
use super::case::Change;
use super::case::Object;
use super::case::Place;
use super::case::Resource;
use super::case::Target;
use super::case::Verb;
use super::change;
use super::scratch::LABEL;
use crate::api::names;

/// Seconds of an hour, and of two days: more than a host may ask for.
const HOUR: u32 = 3600;
const TWO_DAYS: u32 = 2 * 86_400;

/// Where things are in this run.
#[derive(Clone, Debug)]
pub struct Layout {
    /// What is called how in this cluster.
    pub installation: Installation,
    /// What the names of this run's scratch objects have in common.
    pub id: String,
}

impl Layout {
    /// The namespace of a place; empty: none.
    pub fn namespace(&self, place: Place) -> String {
        match place {
            Place::Cluster => String::new(),
            Place::Release => self.installation.namespace.clone(),
            Place::Hosts => self.installation.hosts_namespace.clone(),
            Place::Tenant => format!("dcv-verify-{}", self.id),
            Place::OtherTenant => format!("dcv-verify-{}-other", self.id),
        }
    }

    /// Name of an object; empty: of none.
    pub fn name(&self, object: Object) -> String {
        match object {
            Object::All => String::new(),
            Object::New | Object::Any => format!("dcv-verify-{}-any", self.id),
            Object::OfNode => actor::node_server(&self.id),
            Object::OfHost => actor::host_server(&self.id),
            Object::OfOtherHost => format!("{}-other", actor::host_server(&self.id)),
            Object::OnNode => "on-node".into(),
            Object::ClosingOnNode => "closing-on-node".into(),
            Object::OnHost => "on-host".into(),
            Object::ClosingOnHost => "closing-on-host".into(),
            Object::Waiting => "waiting".into(),
            Object::Plain => "plain".into(),
            Object::Everywhere => "everywhere".into(),
            Object::Manager => "manager".into(),
            Object::Leader => names::LEADER_LEASE.into(),
            Object::AccessKeys => "dcv-access-token-keys".into(),
            Object::ConnectionKeys => "dcv-connection-token-keys".into(),
            Object::AgentKeys => "dcv-agent-token-keys".into(),
            Object::PublicKeys => names::PUBLIC_KEYS.into(),
            Object::BrokerCertificate => names::BROKER_CERTIFICATE.into(),
            Object::BrokerAuthority => names::BROKER_AUTHORITY.into(),
            Object::ControllerAccount => self.installation.controller.clone(),
            Object::SessionDefinition => format!("dcvsessions.{}", names::GROUP),
            Object::ServerDefinition => format!("dcvservers.{}", names::GROUP),
            Object::ClientDefinition => format!("apiclients.{}", names::GROUP),
            Object::Masters => actor::MASTERS.into(),
        }
    }

    /// The server of the actor of a case, where it has one.
    pub fn own_server(&self, case: Case) -> Option<String> {
        case.actor.server().map(|server| match server {
            Server::Node => actor::node_server(&self.id),
            Server::Host => actor::host_server(&self.id),
        })
    }

    /// What selects the scratch objects of this run.
    pub fn selector(&self) -> String {
        format!("{LABEL}={}", self.id)
    }

    /// Path of an object, of its part, or of all of its kind when `name` is empty.
    pub fn path(&self, target: Target, name: &str) -> String {
        let Target { resource, place, .. } = target;
        let mut path = collection(resource, &self.namespace(place));
        if !name.is_empty() {
            path = format!("{path}/{name}");
            if !resource.subresource().is_empty() {
                path = format!("{path}/{}", resource.subresource());
            }
        }
        path
    }

    /// The least there can be of a kind.
    pub fn new_object(&self, target: Target) -> Value {
        let Target { resource, place, object } = target;
        let mut metadata = json!({"name": self.name(object)});
        if resource.is_namespaced() {
            metadata["namespace"] = json!(self.namespace(place));
        }
        let typed = |api_version: &str, kind: &str, spec: Value| json!({"apiVersion": api_version, "kind": kind, "metadata": metadata, "spec": spec});
        let ours = format!("{}/{}", names::GROUP, names::VERSION);
        match resource {
            Resource::Servers => typed(&ours, "DcvServer", json!({})),
            Resource::Clients => typed(&ours, "ApiClient", json!({"suspended": true})),
            Resource::Leases => typed("coordination.k8s.io/v1", "Lease", json!({})),
            Resource::ConfigMaps => json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata}),
            Resource::Secrets => json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata}),
            // No server has the label, so the session waits.
            _ => typed(
                &ours,
                "DcvSession",
                json!({"owner": "ann", "type": "VIRTUAL", "serverSelector": {"matchLabels": {LABEL: self.id}}}),
            ),
        }
    }

    /// What is asked for a token.
    pub fn token_request(&self, case: Case) -> Value {
        let account = self.name(case.target.object);
        let secret = if case.change == Change::BoundToAnother { self.other_account(&account) } else { account };
        let seconds = if case.change == Change::TwoDays { TWO_DAYS } else { HOUR };
        let mut spec = json!({"audiences": [], "expirationSeconds": seconds});
        if case.change != Change::Unbound {
            spec["boundObjectRef"] = json!({"apiVersion": "v1", "kind": "Secret", "name": secret});
        }
        json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec})
    }

    fn other_account(&self, account: &str) -> String {
        let (host, other) = (self.name(Object::OfHost), self.name(Object::OfOtherHost));
        if account == other { host } else { other }
    }

    /// What the authorizer is asked.
    pub fn attributes(&self, case: Case) -> ResourceAttributes {
        let Target { resource, place, object } = case.target;
        // Requests of these kinds name no object.
        let names_none =
            matches!(case.verb, Verb::Create | Verb::DeleteCollection) && resource.subresource().is_empty();
        let lists_any = matches!(case.verb, Verb::List | Verb::Watch) && object == Object::Any;
        let name = if names_none || lists_any { String::new() } else { self.name(object) };
        let filled = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        ResourceAttributes {
            group: filled(resource.group()),
            resource: Some(resource.plural().to_owned()),
            subresource: filled(resource.subresource()),
            namespace: filled(&self.namespace(place)),
            name: filled(&name),
            verb: Some(case.verb.name().to_owned()),
            ..ResourceAttributes::default()
        }
    }

    /// The write of a case, as a dry run in the actor's name. `stored` is the object as it is, where the write needs one.
    pub fn dry_run(&self, case: Case, stored: Option<&Value>) -> Request<Vec<u8>> {
        let Case { verb, target, .. } = case;
        let name = self.name(target.object);
        let own_server = self.own_server(case);
        let mut object = stored.cloned().unwrap_or_else(|| self.new_object(target));
        let before = object.clone();
        change::apply(case.change, target.resource, own_server.as_deref(), &mut object);
        let identity = case.actor.identity(&self.installation, &self.id);
        let (method, path, body) = match verb {
            Verb::Create if target.resource == Resource::Tokens => {
                (Method::POST, self.path(target, &name), self.token_request(case))
            }
            Verb::Create => (Method::POST, self.path(target, ""), object),
            Verb::Update => (Method::PUT, self.path(target, &name), object),
            Verb::Patch => (Method::PATCH, self.path(target, &name), change::difference(&before, &object)),
            Verb::DeleteCollection => {
                let selector = match target.object {
                    // Never more than what is meant, even where a dry run were none.
                    Object::All => format!("labelSelector={}", self.selector()),
                    _ => format!("fieldSelector=metadata.name={name}"),
                };
                (Method::DELETE, format!("{}?{selector}", self.path(target, "")), delete_options())
            }
            _ => (Method::DELETE, self.path(target, &name), delete_options()),
        };
        dry_run(&identity, method, &path, &body)
    }
}

/// Path of all objects of a kind in a namespace; in an empty one: of the cluster.
pub fn collection(resource: Resource, namespace: &str) -> String {
    let root = match resource.group() {
        "" => "/api/v1".to_owned(),
        names::GROUP => format!("/apis/{}/{}", names::GROUP, names::VERSION),
        group => format!("/apis/{group}/v1"),
    };
    let within = if namespace.is_empty() { String::new() } else { format!("/namespaces/{namespace}") };
    format!("{root}{within}/{}", resource.plural())
}

/// A request in the caller's own name.
pub fn own(method: Method, path: &str, body: &Value) -> Request<Vec<u8>> {
    let kind = if method == Method::PATCH { "application/merge-patch+json" } else { "application/json" };
    let body = if method == Method::GET { Vec::new() } else { body.to_string().into_bytes() };
    let request = Request::builder().method(method).uri(path).header(CONTENT_TYPE, kind);
    request.body(body).expect("paths are made of valid names")
}

/// What a deletion carries: the API server reads its options from the body.
fn delete_options() -> Value {
    json!({"apiVersion": "v1", "kind": "DeleteOptions", "dryRun": ["All"]})
}

/// A request in somebody's name that changes nothing.
fn dry_run(identity: &Identity, method: Method, path: &str, body: &Value) -> Request<Vec<u8>> {
    let joined = if path.contains('?') { '&' } else { '?' };
    let mut request = own(method, &format!("{path}{joined}dryRun=All"), body);
    let headers = request.headers_mut();
    let value = |text: &str| text.parse().expect("names are plain ASCII");
    headers.insert("impersonate-user", value(&identity.user));
    for group in &identity.groups {
        headers.append("impersonate-group", value(group));
    }
    if let Some(node) = &identity.node {
        let name = format!("impersonate-extra-{}", NODE_NAME.replace('/', "%2f"));
        let name: http::HeaderName = name.parse().expect("percent signs may stand in names of headers");
        headers.insert(name, value(node));
    }
    request
}

#[cfg(test)]
mod tests {
    use super::super::generate;
    use super::*;

    fn layout() -> Layout {
        Layout { installation: Installation::default(), id: "1".into() }
    }

    fn writes() -> impl Iterator<Item = Case> {
        generate::cases(&Installation::default()).into_iter().filter(Case::is_dry_run)
    }

    #[test]
    fn every_write_in_anothers_name_is_a_dry_run() {
        for case in writes() {
            let request = layout().dry_run(case, None);
            assert!(request.uri().query().unwrap().contains("dryRun=All"), "{case}");
            let is_deletion = request.method() == Method::DELETE;
            let body: Value = serde_json::from_slice(request.body()).unwrap();
            assert!(!is_deletion || body["dryRun"] == json!(["All"]), "{case}");
            assert!(request.headers().contains_key("impersonate-user"), "{case}");
        }
    }

    #[test]
    fn a_collection_is_deleted_within_what_this_run_made() {
        for case in writes().filter(|case| case.verb == Verb::DeleteCollection) {
            let request = layout().dry_run(case, None);
            let query = request.uri().query().unwrap();
            assert!(query.starts_with("labelSelector=") || query.starts_with("fieldSelector=metadata.name="), "{case}");
        }
    }

    #[test]
    fn tokens_are_asked_for_of_made_up_accounts_only() {
        for case in writes().filter(|case| case.target.resource == Resource::Tokens) {
            assert!(layout().dry_run(case, None).uri().path().contains("dcv-verify-1"), "{case}");
        }
    }

    #[test]
    fn the_node_of_a_token_is_sent_as_the_api_server_names_it() {
        let target = Target { resource: Resource::SessionStatus, place: Place::Tenant, object: Object::OnNode };
        let case = Case { actor: actor::Actor::PodAgent, verb: Verb::Patch, target, change: Change::Report };
        let request = layout().dry_run(case, Some(&json!({"status": {"serverName": "a"}})));
        let path = "/apis/dcv-operator.io/v1alpha1/namespaces/dcv-verify-1/dcvsessions/on-node/status?dryRun=All";
        assert_eq!(request.uri(), path);
        assert_eq!(request.headers()["impersonate-extra-authentication.kubernetes.io%2fnode-name"], "dcv-verify-1");
        assert_eq!(request.headers().get_all("impersonate-group").iter().count(), 3);
        assert_eq!(request.body(), br#"{"status":{"numOfConnections":7}}"#);
    }
}
