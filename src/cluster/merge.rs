//! Several watches of one kind as if they were one.
//!
//! Invariant: who reads the events sees one list, complete before its end is said, and then changes; whichever of the
//! watches begins anew, what is gone meanwhile is told as deleted.

use std::collections::HashMap;
use std::fmt::Debug;

use futures::Stream;
use futures::StreamExt;
use futures::stream;
use kube::Resource;
use kube::ResourceExt;
use kube::core::DeserializeGuard;
use kube::runtime::WatchStreamExt;
use kube::runtime::utils::Backoff;
use kube::runtime::watcher;
use kube::runtime::watcher::Event;
use serde::de::DeserializeOwned;

use super::scope::Source;
use crate::telemetry::watches;

/// The events of all `sources`, each with pauses of its own after failures. Their watches are followed for as long as the
/// stream is there: one that falls silent makes the role unready.
///
/// A namespace that we may not list has none of our objects as far as we are concerned: one that is deleted loses the
/// Role that gave us the right, and the others must not wait for it. To say so is a word of the API server's as well: it
/// is not silent.
pub fn events<K, B>(
    mut sources: Vec<Source<K>>,
    pauses: fn() -> B,
) -> impl Stream<Item = Result<Event<DeserializeGuard<K>>, watcher::Error>> + Send + 'static
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
    B: Backoff + Send + Sync + 'static,
{
    let follow = |(api, config): &Source<K>| watches::follow(api.resource_url(), config.field_selector.as_deref());
    if sources.len() == 1
        && let Some(source) = sources.pop()
    {
        let following = follow(&source);
        let followed = move |_: &_| {
            let _ = &following;
        };
        return watcher(source.0, source.1).backoff(pauses()).inspect(followed).left_stream();
    }
    let mut merged = Merged::new(sources.len());
    let watches = sources.into_iter().enumerate().map(|(number, source)| {
        let following = follow(&source);
        let events = watcher(source.0, source.1).backoff(pauses()).map(move |event| (number, event));
        events
            .inspect(move |(_, event)| {
                if is_refused(event) {
                    following.hear();
                }
            })
            .boxed()
    });
    let events = stream::select_all(watches).flat_map(move |(number, event)| stream::iter(merged.take(number, event)));
    events.right_stream()
}

/// Namespace and name.
type Key = (Option<String>, String);

/// What one of the watches has told.
struct Part<K> {
    known: HashMap<Key, K>,
    /// What a list that is on its way has told so far.
    list: HashMap<Key, K>,
    is_listed: bool,
}

/// What all of them have told.
struct Merged<K> {
    parts: Vec<Part<K>>,
    /// Whether the end of the first list was said.
    is_whole: bool,
}

impl<K: Resource<DynamicType = ()> + Clone> Merged<K> {
    fn new(count: usize) -> Self {
        let part = |_| Part { known: HashMap::new(), list: HashMap::new(), is_listed: false };
        Self { parts: (0..count).map(part).collect(), is_whole: false }
    }

    /// What readers are told when the watch of this number tells `event`.
    fn take(
        &mut self,
        number: usize,
        event: Result<Event<K>, watcher::Error>,
    ) -> Vec<Result<Event<K>, watcher::Error>> {
        let part = &mut self.parts[number];
        match event {
            Ok(Event::Init) => {
                part.list.clear();
                Vec::new()
            }
            Ok(Event::InitApply(object)) => {
                part.list.insert(key(&object), object);
                Vec::new()
            }
            Ok(Event::InitDone) => self.listed(number),
            Ok(Event::Apply(object)) => {
                part.known.insert(key(&object), object.clone());
                self.change(Event::Apply(object))
            }
            Ok(Event::Delete(object)) => {
                part.known.remove(&key(&object));
                self.change(Event::Delete(object))
            }
            Err(error) => {
                let mut told = vec![Err(error)];
                if !part.is_listed && is_withheld(&told[0]) {
                    part.list.clear();
                    told.extend(self.listed(number));
                }
                told
            }
        }
    }

    /// Before the first list is whole, a change is part of it.
    fn change(&self, event: Event<K>) -> Vec<Result<Event<K>, watcher::Error>> {
        if self.is_whole { vec![Ok(event)] } else { Vec::new() }
    }

    /// Takes the list of one watch for what there is.
    fn listed(&mut self, number: usize) -> Vec<Result<Event<K>, watcher::Error>> {
        let part = &mut self.parts[number];
        part.is_listed = true;
        let new = std::mem::take(&mut part.list);
        let old = std::mem::replace(&mut part.known, new);
        if self.is_whole {
            let known = &self.parts[number].known;
            let gone =
                old.into_iter().filter(|(key, _)| !known.contains_key(key)).map(|(_, object)| Event::Delete(object));
            return gone.chain(known.values().cloned().map(Event::Apply)).map(Ok).collect();
        }
        if !self.parts.iter().all(|part| part.is_listed) {
            return Vec::new();
        }
        self.is_whole = true;
        let all = self.parts.iter().flat_map(|part| part.known.values().cloned()).map(Event::InitApply);
        std::iter::once(Event::Init).chain(all).chain([Event::InitDone]).map(Ok).collect()
    }
}

fn key<K: Resource<DynamicType = ()>>(object: &K) -> Key {
    (object.namespace(), object.name_any())
}

/// Whether the API server says that the list is not for us.
fn is_withheld<T>(told: &Result<T, watcher::Error>) -> bool {
    matches!(told, Err(watcher::Error::InitialListFailed(kube::Error::Api(status))) if status.is_forbidden())
}

/// Whether the API server says that the list or the watch is not for us.
fn is_refused<T>(told: &Result<T, watcher::Error>) -> bool {
    is_withheld(told)
        || matches!(told, Err(watcher::Error::WatchStartFailed(kube::Error::Api(status))) if status.is_forbidden())
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::Api;
    use kube::core::Status;
    use kube::runtime::watcher::DefaultBackoff;
    use serde_json::json;

    use super::*;
    use crate::cluster::mock;

    fn object(name: &str, version: &str) -> ConfigMap {
        let (namespace, _) = name.split_once('-').unwrap();
        let metadata = json!({"namespace": namespace, "name": name, "resourceVersion": version});
        serde_json::from_value(json!({"metadata": metadata})).unwrap()
    }

    /// Events as words: `init`, `+a-1` in a list, `done`, `a-1` changed, `-a-1` gone, `!` an error.
    fn words(told: Vec<Result<Event<ConfigMap>, watcher::Error>>) -> String {
        let word = |event: Result<Event<ConfigMap>, watcher::Error>| match event {
            Ok(Event::Init) => "init".to_owned(),
            Ok(Event::InitApply(object)) => format!("+{}", object.name_any()),
            Ok(Event::InitDone) => "done".to_owned(),
            Ok(Event::Apply(object)) => object.name_any(),
            Ok(Event::Delete(object)) => format!("-{}", object.name_any()),
            Err(_) => "!".to_owned(),
        };
        let mut words: Vec<String> = told.into_iter().map(word).collect();
        // The order within a list is nobody's concern.
        let rank = |word: &str| ["!", "init", "-", "+", ""].iter().position(|begin| word.starts_with(begin));
        words.sort_by_key(|word| (word == "done", rank(word), word.clone()));
        words.join(" ")
    }

    #[tokio::test]
    async fn a_namespace_that_is_not_for_us_is_not_called_silent() {
        let client = mock::client(|_, uri, _| match uri {
            uri if uri.contains("/namespaces/refused/") => (403, mock::failure(403, "Forbidden")),
            uri if uri.contains("watch=") => (mock::NEVER, json!(null)),
            _ => (200, json!({"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": "1"}, "items": []})),
        });
        let api = |namespace| Api::<DeserializeGuard<ConfigMap>>::namespaced(client.clone(), namespace);
        let sources = ["refused", "given"].map(|namespace| (api(namespace), watcher::Config::default())).to_vec();
        let [refused, given] = ["refused", "given"].map(|namespace| api(namespace).resource_url().to_owned());
        let mut events = Box::pin(events(sources, DefaultBackoff::default));
        let silence = |path: &str| watches::find(path, None).unwrap().silence();
        assert!(silence(&given) <= silence(&refused), "it was followed later");
        while !matches!(events.next().await, Some(Ok(Event::InitDone))) {}
        assert!(silence(&refused) < silence(&given), "it was heard of since");
    }

    struct Test(Merged<ConfigMap>);

    impl Test {
        fn list(&mut self, number: usize, names: &[&str]) -> String {
            let mut told = self.0.take(number, Ok(Event::Init));
            for name in names {
                told.extend(self.0.take(number, Ok(Event::InitApply(object(name, "1")))));
            }
            told.extend(self.0.take(number, Ok(Event::InitDone)));
            words(told)
        }

        fn fail(&mut self, number: usize, code: u16) -> String {
            let status = Status { code, reason: "Forbidden".into(), ..Status::default() };
            let status = if code == 403 { status } else { Status { reason: "InternalError".into(), ..status } };
            let error = watcher::Error::InitialListFailed(kube::Error::Api(Box::new(status)));
            words(self.0.take(number, Err(error)))
        }
    }

    #[test]
    fn the_list_is_whole_before_its_end_is_said() {
        let mut test = Test(Merged::new(2));
        assert_eq!(test.list(0, &["a-1", "a-2"]), "");
        assert_eq!(words(test.0.take(0, Ok(Event::Apply(object("a-3", "2"))))), "");
        assert_eq!(words(test.0.take(0, Ok(Event::Delete(object("a-1", "2"))))), "");
        assert_eq!(test.list(1, &["b-1"]), "init +a-2 +a-3 +b-1 done");
        assert_eq!(words(test.0.take(1, Ok(Event::Apply(object("b-2", "3"))))), "b-2");
    }

    #[test]
    fn what_is_gone_after_a_new_list_is_told_as_deleted_and_other_namespaces_stay() {
        let mut test = Test(Merged::new(2));
        test.list(0, &["a-1", "a-2"]);
        test.list(1, &["b-1"]);
        assert_eq!(test.list(0, &["a-2", "a-3"]), "-a-1 a-2 a-3");
        assert_eq!(words(test.0.take(1, Ok(Event::Delete(object("b-1", "4"))))), "-b-1");
    }

    #[test]
    fn a_namespace_that_is_not_for_us_keeps_nobody_waiting_and_an_outage_does() {
        let mut test = Test(Merged::new(2));
        assert_eq!(test.list(0, &["a-1"]), "");
        assert_eq!(test.fail(1, 500), "!");
        assert_eq!(test.fail(1, 403), "! init +a-1 done");
        assert_eq!(test.fail(1, 403), "!");
        assert_eq!(test.list(1, &["b-1"]), "b-1");
    }
}
