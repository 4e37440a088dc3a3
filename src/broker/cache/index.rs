//! Ways to find the objects of each copy that requests need.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Namespace;
use kube::ResourceExt;

use super::super::store::Own;
use super::super::store::Place;
use super::super::store::Position;
use super::mirror::Index;
use super::others::Others;
use crate::api::ApiClient;
use crate::api::DcvServer;
use crate::api::DcvSession;
use crate::api::conditions;
use crate::api::conditions::Reason;
use crate::api::conditions::SessionCondition;

/// Objects under a key that need not be unique.
struct Groups<K>(HashMap<String, Vec<Arc<K>>>);

impl<K> Default for Groups<K> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K> Groups<K> {
    fn insert(&mut self, key: String, object: &Arc<K>) {
        self.0.entry(key).or_default().push(Arc::clone(object));
    }

    fn remove(&mut self, key: &str, object: &Arc<K>) {
        if let Some(group) = self.0.get_mut(key) {
            group.retain(|member| !Arc::ptr_eq(member, object));
            if group.is_empty() {
                self.0.remove(key);
            }
        }
    }

    fn get(&self, key: &str) -> &[Arc<K>] {
        self.0.get(key).map_or(&[], Vec::as_slice)
    }
}

/// Sessions by position, id, name and server.
#[derive(Default)]
pub struct SessionIndex {
    /// All, in order, and what lists show of each by itself.
    pub ordered: BTreeMap<Position, (Arc<DcvSession>, Arc<Own>)>,
    by_id: Groups<DcvSession>,
    by_name: Groups<DcvSession>,
    on_server: Groups<DcvSession>,
}

/// A slash is in no name.
fn full_name(namespace: &str, name: &str) -> String {
    format!("{namespace}/{name}")
}

fn name_of(session: &DcvSession) -> String {
    full_name(session.metadata.namespace.as_deref().unwrap_or_default(), &session.name_any())
}

/// The server whose room the session takes: while it is not finished, and after a forced close until its agent has seen
/// to it.
pub fn occupied(session: &DcvSession) -> Option<&str> {
    let is_forced = conditions::is(session.conditions(), SessionCondition::Finished, Some(true), Reason::ForceClosed);
    session.server_name().filter(|_| !session.is_finished() || (is_forced && session.has_finalizer()))
}

impl Index<DcvSession> for SessionIndex {
    fn insert(&mut self, session: &Arc<DcvSession>) {
        self.ordered.insert(Position::of(session.as_ref()), (Arc::clone(session), Arc::default()));
        self.by_id.insert(session.id().to_owned(), session);
        self.by_name.insert(name_of(session), session);
        if let Some(server) = occupied(session) {
            self.on_server.insert(server.to_owned(), session);
        }
    }

    fn remove(&mut self, session: &Arc<DcvSession>) {
        self.ordered.remove(&Position::of(session.as_ref()));
        self.by_id.remove(session.id(), session);
        self.by_name.remove(&name_of(session), session);
        if let Some(server) = occupied(session) {
            self.on_server.remove(server, session);
        }
    }
}

impl SessionIndex {
    /// The sessions of an id.
    pub fn with_id(&self, id: &str) -> &[Arc<DcvSession>] {
        self.by_id.get(id)
    }

    /// The session of an object name.
    pub fn named(&self, namespace: &str, name: &str) -> Option<&Arc<DcvSession>> {
        self.by_name.get(&full_name(namespace, name)).last()
    }

    /// The sessions that take room on a server.
    pub fn on_server(&self, server: &str) -> impl Iterator<Item = &DcvSession> {
        self.on_server.get(server).iter().map(AsRef::as_ref)
    }
}

/// Servers by position and name, and the desktops on them that no object stands for.
#[derive(Default)]
pub struct ServerIndex {
    /// All, in order.
    pub ordered: BTreeMap<Position, Arc<DcvServer>>,
    /// What they report besides our sessions.
    pub others: Others,
    by_name: Groups<DcvServer>,
    /// What is shown of each with its sessions, by uid.
    places: HashMap<String, Arc<Place>>,
}

impl Index<DcvServer> for ServerIndex {
    fn insert(&mut self, server: &Arc<DcvServer>) {
        self.ordered.insert(Position::of(server.as_ref()), Arc::clone(server));
        self.by_name.insert(server.name_any(), server);
        self.places.insert(server.uid().unwrap_or_default(), Arc::default());
        self.others.insert(server);
    }

    fn remove(&mut self, server: &Arc<DcvServer>) {
        self.ordered.remove(&Position::of(server.as_ref()));
        self.by_name.remove(&server.name_any(), server);
        self.places.remove(&server.uid().unwrap_or_default());
        self.others.remove(server);
    }
}

impl ServerIndex {
    /// The server of a name.
    pub fn named(&self, name: &str) -> Option<&Arc<DcvServer>> {
        self.by_name.get(name).last()
    }

    /// What is shown of a server with its sessions.
    pub fn place(&self, server: &DcvServer) -> Arc<Place> {
        let uid = server.metadata.uid.as_deref().unwrap_or_default();
        self.places.get(uid).map(Arc::clone).unwrap_or_default()
    }
}

/// Clients by the id they log in with.
#[derive(Default)]
pub struct ClientIndex(Groups<ApiClient>);

impl Index<ApiClient> for ClientIndex {
    fn insert(&mut self, client: &Arc<ApiClient>) {
        self.0.insert(client.client_id(), client);
    }

    fn remove(&mut self, client: &Arc<ApiClient>) {
        self.0.remove(&client.client_id(), client);
    }
}

impl ClientIndex {
    /// The clients of an id: two may claim it until the controller has decided.
    pub fn with_id(&self, id: &str) -> &[Arc<ApiClient>] {
        self.0.get(id)
    }
}

/// Namespaces by name.
#[derive(Default)]
pub struct NamespaceIndex(Groups<Namespace>);

impl Index<Namespace> for NamespaceIndex {
    fn insert(&mut self, namespace: &Arc<Namespace>) {
        self.0.insert(namespace.name_any(), namespace);
    }

    fn remove(&mut self, namespace: &Arc<Namespace>) {
        self.0.remove(&namespace.name_any(), namespace);
    }
}

impl NamespaceIndex {
    /// Labels of a namespace.
    pub fn labels(&self, name: &str) -> Option<&BTreeMap<String, String>> {
        self.0.get(name).last().map(|namespace| namespace.labels())
    }
}
