//! Sessions as kubectl makes them, in one namespace.

use std::fmt::Display;
use std::time::Duration;

use dcv_operator::api::conditions;
use dcv_operator::api::conditions::SessionCondition;
use dcv_operator::api::session::DcvSession;
use dcv_operator::api::session::SessionState;
use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use kube::Client;
use kube::api::DeleteParams;
use kube::api::Patch;
use kube::api::PatchParams;
use kube::api::PostParams;
use kube::runtime::wait::await_condition;
use serde_json::Value;
use serde_json::json;

use crate::seconds;

/// The sessions of one namespace.
pub struct Sessions {
    client: Client,
    /// The namespace.
    pub namespace: String,
    /// Its sessions.
    pub api: Api<DcvSession>,
}

/// A `DcvSession` with `spec`. The owner is ann and the type VIRTUAL unless `spec` says otherwise.
pub fn manifest(name: &str, spec: &Value) -> DcvSession {
    let mut object = json!({
        "apiVersion": "dcv-operator.io/v1alpha1", "kind": "DcvSession", "metadata": {"name": name},
        "spec": {"owner": "ann", "type": "VIRTUAL"},
    });
    for (key, value) in spec.as_object().expect("a spec is an object") {
        object["spec"][key] = value.clone();
    }
    serde_json::from_value(object).expect("the spec of a session")
}

impl Sessions {
    /// Those of a namespace that is there.
    pub fn new(client: Client, namespace: &str) -> Self {
        let api = Api::namespaced(client.clone(), namespace);
        Self { client, namespace: namespace.to_owned(), api }
    }

    /// Creates a session.
    pub async fn create(&self, name: &str, spec: &Value) -> DcvSession {
        let object = manifest(name, spec);
        let made = self.api.create(&PostParams::default(), &object).await;
        made.unwrap_or_else(|error| panic!("{name} was not created: {error}"))
    }

    /// Waits until the session is as `wanted` says, for at most 30 s, and returns it.
    pub async fn until(&self, name: &str, what: impl Display, wanted: impl Fn(&DcvSession) -> bool) -> DcvSession {
        self.until_within(name, seconds(30), what, wanted).await
    }

    /// Waits until the session is as `wanted` says, and returns it.
    pub async fn until_within(
        &self,
        name: &str,
        limit: Duration,
        what: impl Display,
        wanted: impl Fn(&DcvSession) -> bool,
    ) -> DcvSession {
        let found = |session: Option<&DcvSession>| session.is_some_and(&wanted);
        let watch = await_condition(self.api.clone(), name, found);
        let Ok(session) = tokio::time::timeout(limit, watch).await else {
            let last = self.api.get_opt(name).await;
            panic!("{name} is not {what} after {limit:?}: {last:#?}");
        };
        session.expect("sessions can be watched").expect("it was found")
    }

    /// Waits until the session is READY.
    pub async fn until_ready(&self, name: &str) -> DcvSession {
        self.until(name, "READY", is_ready).await
    }

    /// Waits until the session has finished.
    pub async fn until_finished(&self, name: &str) -> DcvSession {
        self.until(name, "finished", DcvSession::is_finished).await
    }

    /// Deletes the session and waits until it is gone.
    pub async fn delete(&self, name: &str) {
        let session = self.api.get(name).await.unwrap_or_else(|error| panic!("{name} cannot be read: {error}"));
        self.api.delete(name, &DeleteParams::default()).await.expect("a session can be deleted");
        self.until_gone(&session).await;
    }

    /// Waits until the object is gone.
    pub async fn until_gone(&self, session: &DcvSession) {
        let name = session.metadata.name.as_deref().expect("a session has a name");
        let gone = |now: Option<&DcvSession>| now.is_none_or(|now| now.metadata.uid != session.metadata.uid);
        let watch = await_condition(self.api.clone(), name, gone);
        let gone = tokio::time::timeout(seconds(30), watch).await.is_ok();
        assert!(gone, "{name} is not gone after 30 s: {:#?}", self.api.get_opt(name).await);
    }

    /// Patches the spec.
    pub async fn patch(&self, name: &str, spec: &Value) -> DcvSession {
        let patch = Patch::Merge(json!({"spec": spec}));
        let patched = self.api.patch(name, &PatchParams::default(), &patch).await;
        patched.unwrap_or_else(|error| panic!("{name} cannot be patched: {error}"))
    }

    /// Has the namespace deleted, with all in it. Its end is not waited for.
    pub async fn delete_namespace(self) {
        let api = Api::<Namespace>::all(self.client);
        api.delete(&self.namespace, &DeleteParams::default()).await.expect("an administrator deletes namespaces");
    }
}

/// Whether the state and the condition both say READY.
pub fn is_ready(session: &DcvSession) -> bool {
    state(session) == SessionState::Ready && conditions::is_true(session.conditions(), SessionCondition::Ready)
}

/// The state in the object.
pub fn state(session: &DcvSession) -> SessionState {
    session.status.as_ref().map(|status| status.state).unwrap_or_default()
}

/// `status.stateReason`, empty when there is none.
pub fn state_reason(session: &DcvSession) -> &str {
    session.status.as_ref().and_then(|status| status.state_reason.as_deref()).unwrap_or_default()
}

/// Status and reason of a condition, such as `True/Bound`; empty when it is absent.
pub fn condition(session: &DcvSession, type_: &str) -> String {
    let found = session.conditions().iter().find(|condition| condition.type_ == type_);
    found.map(|condition| format!("{}/{}", condition.status, condition.reason)).unwrap_or_default()
}
