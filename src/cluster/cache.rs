//! Watches that keep a local copy current.
//!
//! Each watch has its own back-off and never ends: a watch that fails is retried, and what cannot be read is skipped with
//! a warning, so that one bad object does not stall its kind.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use futures::StreamExt;
use futures::TryStreamExt;
use futures::stream;
use kube::Api;
use kube::Resource;
use kube::ResourceExt;
use kube::core::DeserializeGuard;
use kube::runtime::WatchStreamExt;
use kube::runtime::reflector;
use kube::runtime::reflector::Store;
use kube::runtime::utils::Backoff;
use kube::runtime::watcher;
use kube::runtime::watcher::Event;
use serde::de::DeserializeOwned;
use tokio::sync::broadcast;
use tokio::sync::watch;

use super::merge;
use super::scope::Source;

/// First and longest pause of a watch that fails. Longer ones, such as the runtime's own of 30 seconds, would leave a
/// component deaf for as long after an outage of a few seconds.
const PAUSES: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(8)];

/// Pauses that double, each shortened at random by up to a half so that many watches do not come back at once.
#[derive(Default)]
struct Pauses {
    failures: u32,
}

impl Iterator for Pauses {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let [first, longest] = PAUSES;
        let pause = (first * 2_u32.saturating_pow(self.failures.min(16))).min(longest);
        self.failures += 1;
        Some(pause.mul_f64(rand::random_range(0.5..=1.0)))
    }
}

impl Backoff for Pauses {
    fn reset(&mut self) {
        self.failures = 0;
    }
}

/// What happened to a local copy. The copy is already current when the change is seen.
#[derive(Debug)]
pub enum Change<K> {
    /// An object is new or changed.
    Applied(Arc<K>),
    /// An object is gone; this is how it was last seen.
    Deleted(Arc<K>),
    /// Everything was listed anew: what is not in the copy is gone, and any object may have changed.
    Listed,
}

impl<K> Clone for Change<K> {
    fn clone(&self) -> Self {
        match self {
            Self::Applied(object) => Self::Applied(Arc::clone(object)),
            Self::Deleted(object) => Self::Deleted(Arc::clone(object)),
            Self::Listed => Self::Listed,
        }
    }
}

/// A local copy of what `api` lists, and the changes to it. The stream must be polled for the copy to be kept current;
/// it never ends. Wait for `Store::wait_until_ready`, or the first [`Change::Listed`], before deciding on the copy.
///
/// The guard in the type of `api` costs callers nothing: `watch::<DcvSession>(Api::all(client), config)`.
pub fn watch<K>(
    api: Api<DeserializeGuard<K>>,
    config: watcher::Config,
) -> (Store<K>, impl Stream<Item = Change<K>> + Send + 'static)
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
{
    watch_all(vec![(api, config)])
}

/// As [`watch`], of several lists as if they were one.
pub fn watch_all<K>(sources: Vec<Source<K>>) -> (Store<K>, impl Stream<Item = Change<K>> + Send + 'static)
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
{
    let (store, writer) = reflector::store();
    let changes = merge::events(sources, Pauses::default)
        .try_filter_map(|event| async move { Ok(readable(event)) })
        .reflect(writer)
        .filter_map(|event| async move { told(event) });
    (store, changes)
}

/// The change that an event is for those who look at the copy.
fn told<K: Resource<DynamicType = ()>>(event: watcher::Result<Event<K>>) -> Option<Change<K>> {
    match event {
        Ok(Event::Apply(object)) => Some(Change::Applied(Arc::new(object))),
        Ok(Event::Delete(object)) => Some(Change::Deleted(Arc::new(object))),
        Ok(Event::InitDone) => Some(Change::Listed),
        Ok(Event::Init | Event::InitApply(_)) => None,
        Err(error) => {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(kind = %K::kind(&()), error, "Watch failed, trying again");
            None
        }
    }
}

/// The event without objects that cannot be read.
fn readable<K: Resource<DynamicType = ()>>(event: Event<DeserializeGuard<K>>) -> Option<Event<K>> {
    let object = |guarded: DeserializeGuard<K>| match guarded.0 {
        Ok(mut object) => {
            object.meta_mut().managed_fields = None;
            Some(object)
        }
        Err(invalid) => {
            let namespace = invalid.metadata.namespace.as_deref().unwrap_or_default();
            let name = invalid.metadata.name.as_deref().unwrap_or_default();
            tracing::warn!(kind = %K::kind(&()), namespace, name, err = %invalid.error, "Skipped an unreadable object");
            None
        }
    };
    match event {
        Event::Apply(guarded) => object(guarded).map(Event::Apply),
        Event::Delete(guarded) => object(guarded).map(Event::Delete),
        Event::InitApply(guarded) => object(guarded).map(Event::InitApply),
        Event::Init => Some(Event::Init),
        Event::InitDone => Some(Event::InitDone),
    }
}

/// How many changes a slow reader may be behind before it is told to read everything.
const CHANGES_KEPT: usize = 8192;

/// A local copy that several tasks read and are told about. Cheap to clone.
pub struct Cache<K>
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    store: Store<K>,
    changes: broadcast::Sender<Change<K>>,
    /// Whether the copy was filled. Not the store's own word for it: of several who wait for that, it wakes only the last.
    is_filled: watch::Receiver<bool>,
}

impl<K> Clone for Cache<K>
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    fn clone(&self) -> Self {
        Self { store: self.store.clone(), changes: self.changes.clone(), is_filled: self.is_filled.clone() }
    }
}

impl<K> Cache<K>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
{
    /// The copy, and the work that keeps it current for as long as it is polled.
    pub fn new(
        api: Api<DeserializeGuard<K>>,
        config: watcher::Config,
    ) -> (Self, impl Future<Output = ()> + Send + 'static) {
        Self::of(vec![(api, config)])
    }

    /// As [`Self::new`], of several lists as if they were one.
    pub fn of(sources: Vec<Source<K>>) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (store, stream) = watch_all(sources);
        let (changes, _) = broadcast::channel(CHANGES_KEPT);
        let (filled, is_filled) = watch::channel(false);
        let cache = Self { store, changes: changes.clone(), is_filled };
        let work = stream.for_each(move |change| {
            if matches!(change, Change::Listed) {
                filled.send_replace(true);
            }
            // Nobody listens between two terms of a leader.
            let _ = changes.send(change);
            std::future::ready(())
        });
        (cache, work)
    }

    /// The copy.
    pub fn store(&self) -> &Store<K> {
        &self.store
    }

    /// All objects of the copy.
    pub fn all(&self) -> Vec<Arc<K>> {
        self.store.state()
    }

    /// The object of this name; `namespace` is ignored for kinds without one.
    pub fn find(&self, namespace: &str, name: &str) -> Option<Arc<K>> {
        let reference = reflector::ObjectRef::new(name);
        let reference = if namespace.is_empty() { reference } else { reference.within(namespace) };
        self.store.get(&reference)
    }

    /// Changes from now on, beginning with [`Change::Listed`]; a reader that falls behind is told that again.
    pub fn subscribe(&self) -> impl Stream<Item = Change<K>> + Send + use<K> {
        let changes = stream::unfold(self.changes.subscribe(), |mut receiver| async move {
            match receiver.recv().await {
                Ok(change) => Some((change, receiver)),
                Err(broadcast::error::RecvError::Lagged(_)) => Some((Change::Listed, receiver)),
                Err(broadcast::error::RecvError::Closed) => None,
            }
        });
        stream::once(async { Change::Listed }).chain(changes)
    }

    /// References to changed objects, beginning with all of them.
    pub fn references(&self) -> impl Stream<Item = reflector::ObjectRef<K>> + Send + use<K> {
        let store = self.store.clone();
        self.subscribe().flat_map(move |change| {
            let objects = match change {
                Change::Applied(object) | Change::Deleted(object) => vec![object],
                Change::Listed => store.state(),
            };
            stream::iter(objects.into_iter().map(|object| reflector::ObjectRef::from_obj(object.as_ref())))
        })
    }

    /// Returns when the copy was filled for the first time.
    pub async fn ready(&self) {
        if self.is_filled.clone().wait_for(|is_filled| *is_filled).await.is_err() {
            // Its work was dropped: it will never be.
            std::future::pending::<()>().await;
        }
    }
}

/// `namespace/name`, or the name alone, for logs and errors.
pub(super) fn describe<K: Resource<DynamicType = ()>>(object: &K) -> String {
    match object.namespace() {
        Some(namespace) => format!("{} {namespace}/{}", K::kind(&()), object.name_any()),
        None => format!("{} {}", K::kind(&()), object.name_any()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::Mutex;

    use k8s_openapi::api::core::v1::ConfigMap;
    use serde_json::json;

    use super::*;
    use crate::cluster::mock;

    #[test]
    fn pauses_grow_to_a_bound_and_begin_anew() {
        let mut pauses = Pauses::default();
        let seen: Vec<Duration> = pauses.by_ref().take(40).collect();
        assert!(seen[0] <= PAUSES[0] && seen[0] >= PAUSES[0] / 2);
        assert!(seen[39] <= PAUSES[1] && seen[39] >= PAUSES[1] / 2);
        pauses.reset();
        assert!(pauses.next().is_some_and(|pause| pause <= PAUSES[0]));
    }

    #[tokio::test]
    async fn all_who_wait_for_a_copy_to_be_filled_are_woken() {
        let client = mock::client(|_, uri, _| {
            if uri.contains("watch=") {
                return (mock::NEVER, json!(null));
            }
            (200, json!({"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": "1"}, "items": []}))
        });
        let (cache, work) = Cache::<ConfigMap>::new(Api::all(client), watcher::Config::default());
        // They are all waiting before anything is listed.
        let wait = || {
            let cache = cache.clone();
            tokio::spawn(async move { cache.ready().await })
        };
        let waiting = [wait(), wait(), wait()];
        tokio::task::yield_now().await;
        let task = tokio::spawn(work);
        let all = futures::future::join_all(waiting);
        tokio::time::timeout(Duration::from_secs(20), all).await.expect("nobody is forgotten");
        task.abort();
    }

    #[tokio::test]
    async fn one_unreadable_object_does_not_hide_the_others() {
        let failures = Arc::new(Mutex::new(1));
        let client = mock::client(move |_, uri, _| {
            if uri.contains("watch=") {
                return (mock::NEVER, json!(null));
            }
            let mut failures = failures.lock().unwrap();
            if *failures > 0 {
                *failures -= 1;
                return (500, mock::failure(500, "InternalError"));
            }
            let items = json!([
                {"metadata": {"name": "good", "namespace": "ns", "managedFields": [{"manager": "x"}]}, "data": {"a": "b"}},
                {"metadata": {"name": "bad", "namespace": "ns"}, "data": "not a map"},
            ]);
            (200, json!({"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": "1"}, "items": items}))
        });
        let (cache, work) = Cache::<ConfigMap>::new(Api::all(client), watcher::Config::default());
        let mut references = Box::pin(cache.references());
        let task = tokio::spawn(work);
        cache.ready().await;
        assert_eq!(references.next().await.unwrap().name, "good");
        let found = cache.find("ns", "good").unwrap();
        assert_eq!((found.metadata.managed_fields.clone(), cache.all().len()), (None, 1));
        task.abort();
    }
}
