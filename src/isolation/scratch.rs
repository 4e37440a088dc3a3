//! The few objects that writes need to be judged, made before and taken away after. Nothing else is ever written.
//!
//! All carry one label, with the run's id. They are in nobody's way: no server has the label that the sessions demand, the
//! servers are closed and nobody runs them, the clients are suspended and have no password, the accounts no token.

use http::Method;
use kube::Client;
use serde_json::Value;
use serde_json::json;

use super::Error;
use super::Installation;
use super::actor::Actor;
use super::case::Object;
use super::case::Place;
use super::case::Resource;
use super::case::Target;
use super::change;
use super::request;
use super::request::Layout;
use super::request::collection;
use crate::api::names;

/// Label of every scratch object; its value is the run's id.
pub const LABEL: &str = "dcv-operator.io/verify-isolation";

/// Kinds with scratch objects outside the scratch namespaces, in the order in which they are taken away. Sessions first, as
/// a server that goes would be the end of those bound to it.
const KINDS: [(Resource, Place); 8] = [
    (Resource::Sessions, Place::Cluster),
    (Resource::ClusterRoleBindings, Place::Cluster),
    (Resource::Namespaces, Place::Cluster),
    (Resource::Servers, Place::Cluster),
    (Resource::Leases, Place::Release),
    (Resource::Secrets, Place::Hosts),
    (Resource::ServiceAccounts, Place::Hosts),
    (Resource::Clients, Place::Cluster),
];

/// The scratch objects of one run.
pub struct Scratch {
    client: Client,
    layout: Layout,
}

impl Scratch {
    /// Those of the run `id`; nothing is made yet.
    pub fn new(client: Client, installation: Installation, id: String) -> Self {
        Self { client, layout: Layout { installation, id } }
    }

    /// With whom the API server is talked to.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Where things are.
    pub(super) fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Makes them.
    ///
    /// # Errors
    /// When one cannot be made. What was made stays until [`Scratch::remove`].
    pub async fn make(&self) -> Result<(), Error> {
        for place in [Place::Tenant, Place::OtherTenant] {
            let annotations = json!({names::OWNER_PATTERN: change::OWNER_PATTERN});
            let namespace = self.labelled("v1", "Namespace", &self.layout.namespace(place), json!({}));
            let namespace = merged(namespace, &json!({"metadata": {"annotations": annotations}}));
            self.create(Resource::Namespaces, Place::Cluster, &namespace).await?;
        }
        self.make_people().await?;
        self.make_hosts().await?;
        self.make_servers().await?;
        self.make_clients().await?;
        self.make_sessions().await
    }

    /// Takes them away.
    ///
    /// # Errors
    /// When one cannot be; the others are gone all the same.
    pub async fn remove(&self) -> Result<(), Error> {
        remove(&self.client, &self.layout.installation, &self.layout.selector()).await
    }

    /// The roles of people in the tenant's namespace, and of one in the cluster.
    async fn make_people(&self) -> Result<(), Error> {
        let Installation { view_role, edit_role, admin_role, .. } = &self.layout.installation;
        for (actor, role) in
            [(Actor::TenantViewer, view_role), (Actor::TenantUser, edit_role), (Actor::TenantAdmin, admin_role)]
        {
            let binding = self.binding("RoleBinding", role, role, actor);
            self.create(Resource::RoleBindings, Place::Tenant, &binding).await?;
        }
        let name = format!("dcv-verify-{}", self.layout.id);
        let binding = self.binding("ClusterRoleBinding", &name, view_role, Actor::ClusterViewer);
        self.create(Resource::ClusterRoleBindings, Place::Cluster, &binding).await
    }

    fn binding(&self, kind: &str, name: &str, role: &str, actor: Actor) -> Value {
        let group = "rbac.authorization.k8s.io";
        let user = actor.identity(&self.layout.installation, &self.layout.id).user;
        let binding = json!({
            "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": role},
            "subjects": [{"apiGroup": group, "kind": "User", "name": user}],
        });
        merged(self.labelled("rbac.authorization.k8s.io/v1", kind, name, json!({})), &binding)
    }

    /// Accounts of hosts, each with the Secret of its name that its tokens are bound to.
    async fn make_hosts(&self) -> Result<(), Error> {
        if !self.layout.installation.has_hosts {
            return Ok(());
        }
        for object in [Object::OfNode, Object::OfHost, Object::OfOtherHost] {
            let name = self.layout.name(object);
            let account = self.labelled("v1", "ServiceAccount", &name, json!({}));
            let account = merged(account, &json!({"automountServiceAccountToken": false}));
            self.create(Resource::ServiceAccounts, Place::Hosts, &account).await?;
            self.create(Resource::Secrets, Place::Hosts, &self.labelled("v1", "Secret", &name, json!({}))).await?;
        }
        Ok(())
    }

    async fn make_servers(&self) -> Result<(), Error> {
        for object in [Object::OfNode, Object::OfHost] {
            let server = self.object(Resource::Servers, Place::Cluster, object, &json!({"placement": "Closed"}));
            self.create(Resource::Servers, Place::Cluster, &server).await?;
            let lease = self.object(Resource::Leases, Place::Release, object, &json!({"holderIdentity": "nobody"}));
            self.create(Resource::Leases, Place::Release, &lease).await?;
        }
        Ok(())
    }

    async fn make_clients(&self) -> Result<(), Error> {
        for (place, object, spec) in [
            (Place::Tenant, Object::Plain, json!({})),
            (Place::Tenant, Object::Everywhere, json!({"allNamespaces": true})),
            (Place::Tenant, Object::Manager, json!({"manageServers": true})),
            (Place::OtherTenant, Object::Plain, json!({})),
        ] {
            let client = self.object(Resource::Clients, place, object, &spec);
            self.create(Resource::Clients, place, &client).await?;
        }
        Ok(())
    }

    async fn make_sessions(&self) -> Result<(), Error> {
        let closing = [Object::ClosingOnNode, Object::ClosingOnHost];
        let finalizers = json!({"metadata": {"finalizers": [names::SESSION_FINALIZER, change::FOREIGN_FINALIZER]}});
        for (place, object, server) in [
            (Place::Tenant, Object::OnNode, Some(Object::OfNode)),
            (Place::Tenant, Object::ClosingOnNode, Some(Object::OfNode)),
            (Place::Tenant, Object::OnHost, Some(Object::OfHost)),
            (Place::Tenant, Object::ClosingOnHost, Some(Object::OfHost)),
            (Place::Tenant, Object::Waiting, None),
            (Place::OtherTenant, Object::Waiting, None),
        ] {
            let session = merged(self.object(Resource::Sessions, place, object, &json!({})), &finalizers);
            self.create(Resource::Sessions, place, &session).await?;
            let target = Target { resource: Resource::SessionStatus, place, object };
            let name = self.layout.name(object);
            if let Some(server) = server {
                let server = self.layout.name(server);
                let status = json!({"status": {"serverName": server, "sessionId": name, "attempt": 2, "retries": 1,
                    "attempts": change::past_attempts(&server)}});
                self.call("bind", Method::PATCH, &self.layout.path(target, &name), &status).await?;
            }
            if closing.contains(&object) {
                let path = self.layout.path(Target { resource: Resource::Sessions, ..target }, &name);
                self.call("delete", Method::DELETE, &path, &json!({})).await?;
            }
        }
        Ok(())
    }

    fn object(&self, resource: Resource, place: Place, object: Object, spec: &Value) -> Value {
        let new = self.layout.new_object(Target { resource, place, object });
        merged(new, &json!({"metadata": {"labels": {LABEL: self.layout.id}}, "spec": spec}))
    }

    fn labelled(&self, api_version: &str, kind: &str, name: &str, rest: Value) -> Value {
        let metadata = json!({"name": name, "labels": {LABEL: self.layout.id}});
        merged(rest, &json!({"apiVersion": api_version, "kind": kind, "metadata": metadata}))
    }

    async fn create(&self, resource: Resource, place: Place, object: &Value) -> Result<(), Error> {
        let path = collection(resource, &self.layout.namespace(place));
        self.call("create", Method::POST, &path, object).await
    }

    async fn call(&self, action: &'static str, method: Method, path: &str, body: &Value) -> Result<(), Error> {
        self.client.request::<Value>(request::own(method, path, body)).await.map(drop).map_err(Error::api(action, path))
    }
}

/// Takes away what earlier runs left when they could not end as they should.
///
/// # Errors
/// When something cannot be taken away; the rest is gone all the same.
pub async fn remove_leftovers(client: &Client, installation: &Installation) -> Result<(), Error> {
    remove(client, installation, LABEL).await
}

async fn remove(client: &Client, installation: &Installation, selector: &str) -> Result<(), Error> {
    let layout = Layout { installation: installation.clone(), id: String::new() };
    let mut outcome = Ok(());
    for (resource, place) in KINDS {
        if place == Place::Hosts && !installation.has_hosts {
            continue;
        }
        let path = collection(resource, &layout.namespace(place));
        if let Err(error) = remove_kind(client, resource, &path, selector).await {
            outcome = outcome.and(Err(error));
        }
    }
    outcome
}

async fn remove_kind(client: &Client, resource: Resource, path: &str, selector: &str) -> Result<(), Error> {
    let query = format!("{path}?labelSelector={selector}");
    let list: Value =
        client.request(request::own(Method::GET, &query, &Value::Null)).await.map_err(Error::api("list", path))?;
    for object in list["items"].as_array().into_iter().flatten() {
        let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default();
        let object_path = format!("{}/{}", collection(resource, text("namespace")), text("name"));
        if resource == Resource::Sessions {
            // Nobody else takes the foreign finalizer.
            let bare = json!({"metadata": {"finalizers": null}});
            gone(client.request(request::own(Method::PATCH, &object_path, &bare)).await, "release", &object_path)?;
        }
        gone(client.request(request::own(Method::DELETE, &object_path, &json!({}))).await, "delete", &object_path)?;
    }
    Ok(())
}

/// That something is not there any more is what was wanted.
fn gone(answer: kube::Result<Value>, action: &'static str, path: &str) -> Result<(), Error> {
    match answer {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        answer => answer.map(drop).map_err(Error::api(action, path)),
    }
}

/// `base` with the fields of `more`, lists whole.
fn merged(mut base: Value, more: &Value) -> Value {
    if let (Value::Object(fields), Value::Object(more)) = (&mut base, more) {
        for (key, value) in more {
            let old = fields.remove(key).unwrap_or(Value::Null);
            fields.insert(key.clone(), if old.is_object() { merged(old, value) } else { value.clone() });
        }
        base
    } else {
        more.clone()
    }
}
