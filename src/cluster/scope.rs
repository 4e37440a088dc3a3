//! Which namespaces an installation is for, and what is listed for them.
//!
//! With all of them a kind is one list of the whole cluster. With some, each is listed by itself, so that no right on the
//! others is needed; then only servers whose Lease is in our namespace are ours, as another installation may have others.

use std::collections::BTreeSet;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use kube::Client;
use kube::Resource;
use kube::core::DeserializeGuard;
use kube::runtime::watcher;

/// What is watched: a list of objects, and which of them.
pub type Source<K> = (Api<DeserializeGuard<K>>, watcher::Config);

/// Which namespaces an installation is for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Scope {
    /// All of them.
    #[default]
    All,
    /// These.
    Namespaces(BTreeSet<String>),
}

impl Scope {
    /// These namespaces; all where there are none.
    pub fn of(namespaces: impl IntoIterator<Item = String>) -> Self {
        let namespaces: BTreeSet<String> = namespaces.into_iter().collect();
        if namespaces.is_empty() { Self::All } else { Self::Namespaces(namespaces) }
    }

    /// Whether objects of this namespace are ours.
    pub fn covers(&self, namespace: &str) -> bool {
        match self {
            Self::All => true,
            Self::Namespaces(namespaces) => namespaces.contains(namespace),
        }
    }

    /// Whether there may be others beside us.
    pub fn is_limited(&self) -> bool {
        *self != Self::All
    }

    /// Where our objects of a kind are listed.
    pub fn apis<K>(&self, client: &Client) -> Vec<Api<K>>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        match self {
            Self::All => vec![Api::all(client.clone())],
            Self::Namespaces(namespaces) => {
                namespaces.iter().map(|namespace| Api::namespaced(client.clone(), namespace)).collect()
            }
        }
    }

    /// What is watched of a kind, as `config` selects.
    pub fn sources<K>(&self, client: &Client, config: &watcher::Config) -> Vec<Source<K>>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        self.apis(client).into_iter().map(|api| (api, config.clone())).collect()
    }

    /// What is watched of our namespaces themselves: each by its name, as a right may be on names.
    pub fn namespaces(&self, client: &Client) -> Vec<Source<Namespace>> {
        let named = |name: &String| watcher::Config::default().fields(&format!("metadata.name={name}"));
        let configs = match self {
            Self::All => vec![watcher::Config::default()],
            Self::Namespaces(namespaces) => namespaces.iter().map(named).collect(),
        };
        configs.into_iter().map(|config| (Api::all(client.clone()), config)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_namespaces_are_all_of_them() {
        let scope = Scope::of([]);
        assert!(scope.covers("a") && !scope.is_limited());
        let scope = Scope::of(["a".to_owned(), "b".to_owned(), "a".to_owned()]);
        assert!(scope.covers("b") && !scope.covers("c") && scope.is_limited());
    }
}
