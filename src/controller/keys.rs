//! The signing keys: three Secrets of private halves, one `ConfigMap` of the public ones.
//!
//! What is to be in them follows from the keys, the time and the settings; this part reads and writes. Invariant: a key
//! is published before it can sign. Keys are never logged.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::Client;
use kube::ResourceExt;
use kube::api::ObjectMeta;
use kube::api::PostParams;
use kube::runtime::watcher;

use super::Context;
use super::metrics::Outcome;
use crate::api::names;
use crate::cluster;
use crate::cluster::Error;
use crate::token::KEYS_ENTRY;
use crate::token::KeySet;
use crate::token::Kind;
use crate::token::Renewal;
use crate::token::Rotation;

/// How often keys are looked at. A Secret that somebody deleted is made anew within this time.
const PERIOD: Duration = Duration::from_mins(1);
/// How soon after a failure.
const RETRY: Duration = Duration::from_secs(5);

/// Runs for as long as we lead.
pub(super) async fn run(context: Arc<Context>) {
    let keeper = Keeper::new(&context.client, &context.settings.namespace);
    let (_, changes) = cluster::watch::<ConfigMap>(
        Api::namespaced(context.client.clone(), &context.settings.namespace),
        watcher::Config::default().fields(&format!("metadata.name={}", names::PUBLIC_KEYS)),
    );
    let mut changes = changes.boxed();
    loop {
        let pause = match keeper.pass((context.clock)(), context.settings.rotation).await {
            Ok(rotations) => {
                for (kind, time) in rotations {
                    context.metrics.key(kind.secret_name(), time);
                }
                context.metrics.reconciled("keys", Outcome::RequeueAfter);
                PERIOD
            }
            Err(error) => {
                context.failed("keys", names::PUBLIC_KEYS, &error);
                RETRY
            }
        };
        // Somebody may ask for new keys. A change of our own makes one pass that finds nothing to do.
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            Some(_) = changes.next() => {}
        }
    }
}

struct Keeper {
    secrets: Api<Secret>,
    config_maps: Api<ConfigMap>,
}

impl Keeper {
    fn new(client: &Client, namespace: &str) -> Self {
        Self {
            secrets: Api::namespaced(client.clone(), namespace),
            config_maps: Api::namespaced(client.clone(), namespace),
        }
    }

    /// Makes keys and publication what they should be at `now`.
    /// Returns when the next key of each kind is to follow.
    async fn pass(&self, now: Timestamp, rotation: Rotation) -> Result<Vec<(Kind, Timestamp)>, Error> {
        let published = self.published().await?;
        let renewal = published.as_ref().and_then(requested);
        let mut changed = Vec::new();
        let mut rotations = Vec::new();
        let mut entries = BTreeMap::new();
        for kind in Kind::ALL {
            let name = kind.secret_name();
            let secret = self.secrets.get_opt(name).await.map_err(Error::api("read", format!("Secret {name}")))?;
            let keys = secret.as_ref().and_then(|secret| parsed(kind, secret)).unwrap_or_default();
            let renewed = match &renewal {
                Some(renewal) if renewal.kinds.contains(&kind) => keys.renewed(now, renewal.old_keys),
                _ => keys.clone(),
            };
            let wanted = renewed.rotated(now, rotation);
            rotations.extend(wanted.signer(now).map(|signer| (kind, signer.signs_from + rotation.period)));
            let public = serde_json::to_string(&wanted.public()).expect("public keys are plain data");
            entries.insert(kind.public_entry().to_owned(), public);
            if wanted != keys {
                changed.push((kind, secret, wanted));
            }
        }
        // First the public halves: no broker may sign with a key that a verifier has not had time to see.
        let published = self.publish(published, entries).await?;
        for (kind, secret, keys) in changed {
            self.store(kind, secret, &keys).await?;
        }
        match renewal {
            // Last: if we end before, it is done again, which does no harm.
            Some(renewal) => self.answer(published, &renewal).await.map(|()| rotations),
            None => Ok(rotations),
        }
    }

    async fn published(&self) -> Result<Option<ConfigMap>, Error> {
        self.config_maps.get_opt(names::PUBLIC_KEYS).await.map_err(Error::api("read", object()))
    }

    async fn publish(&self, stored: Option<ConfigMap>, entries: BTreeMap<String, String>) -> Result<ConfigMap, Error> {
        match stored {
            Some(stored) if stored.data.as_ref() == Some(&entries) => Ok(stored),
            Some(stored) => self.replace(ConfigMap { data: Some(entries), ..stored }).await,
            None => {
                let config_map =
                    ConfigMap { metadata: named(names::PUBLIC_KEYS), data: Some(entries), ..ConfigMap::default() };
                let write = self.config_maps.create(&PostParams::default(), &config_map).await;
                write.map_err(Error::api("create", object()))
            }
        }
    }

    async fn replace(&self, config_map: ConfigMap) -> Result<ConfigMap, Error> {
        let write = self.config_maps.replace(names::PUBLIC_KEYS, &PostParams::default(), &config_map).await;
        write.map_err(Error::api("update", object()))
    }

    /// Says that a request is done.
    async fn answer(&self, mut published: ConfigMap, renewal: &Renewal) -> Result<(), Error> {
        tracing::info!(request = %renewal, "Renewed signing keys");
        published.annotations_mut().insert(names::RENEWED_KEYS.to_owned(), renewal.id.clone());
        self.replace(published).await.map(drop)
    }

    /// Refused when another process has written meanwhile; the next pass publishes what that one has made.
    async fn store(&self, kind: Kind, secret: Option<Secret>, keys: &KeySet) -> Result<(), Error> {
        let name = kind.secret_name();
        let object = || format!("Secret {name}");
        let text = ByteString(serde_json::to_vec(keys).expect("keys are plain data"));
        tracing::info!(secret = name, keys = keys.keys.len(), "Storing signing keys");
        let params = PostParams::default();
        if let Some(mut secret) = secret {
            secret.data.get_or_insert_default().insert(KEYS_ENTRY.to_owned(), text);
            self.secrets.replace(name, &params, &secret).await.map(drop).map_err(Error::api("update", object()))
        } else {
            let data = Some(BTreeMap::from([(KEYS_ENTRY.to_owned(), text)]));
            let secret = Secret { metadata: named(name), data, ..Secret::default() };
            self.secrets.create(&params, &secret).await.map(drop).map_err(Error::api("create", object()))
        }
    }
}

fn object() -> String {
    format!("ConfigMap {}", names::PUBLIC_KEYS)
}

/// The new keys that somebody has asked for and not got yet.
fn requested(published: &ConfigMap) -> Option<Renewal> {
    let annotations = published.annotations();
    let text = annotations.get(names::RENEW_KEYS)?;
    match text.parse::<Renewal>() {
        Ok(renewal) => Some(renewal).filter(|renewal| annotations.get(names::RENEWED_KEYS) != Some(&renewal.id)),
        Err(error) => {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(annotation = names::RENEW_KEYS, error, "A request for new keys is not understood");
            None
        }
    }
}

/// The keys of a Secret; none, with a warning, when it holds something else: new ones are better than none that work.
fn parsed(kind: Kind, secret: &Secret) -> Option<KeySet> {
    let text = secret.data.as_ref()?.get(KEYS_ENTRY)?;
    let keys = KeySet::parse(&text.0).ok();
    if keys.is_none() {
        tracing::error!(secret = kind.secret_name(), "Signing keys are unreadable and are made anew");
    }
    keys
}

fn named(name: &str) -> ObjectMeta {
    ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::Mutex;

    use jiff::SignedDuration;
    use serde_json::Value;

    use super::*;
    use crate::cluster::mock;

    const ROTATION: Rotation = Rotation {
        period: SignedDuration::from_hours(24 * 30),
        lead: SignedDuration::from_hours(24),
        token_lifetime: SignedDuration::from_hours(24 * 7),
    };

    fn day(day: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + day * 86_400).unwrap()
    }

    type Objects = Arc<Mutex<HashMap<String, Value>>>;

    /// A keeper over a cluster in memory, what is in that, and what was written.
    fn start() -> (Keeper, Objects, Arc<Mutex<Vec<String>>>) {
        let objects: Objects = Arc::default();
        let writes: Arc<Mutex<Vec<String>>> = Arc::default();
        let (store, log) = (Arc::clone(&objects), Arc::clone(&writes));
        let client = mock::client(move |method, path, body| {
            let name = body["metadata"]["name"].as_str().or(path.trim_end_matches('?').rsplit('/').next());
            let name = name.unwrap().to_owned();
            if method == "GET" {
                return match store.lock().unwrap().get(&name) {
                    Some(object) => (200, object.clone()),
                    None => (404, mock::failure(404, "NotFound")),
                };
            }
            log.lock().unwrap().push(format!("{method} {name}"));
            store.lock().unwrap().insert(name, body.clone());
            (200, body.clone())
        });
        (Keeper::new(&client, "ns"), objects, writes)
    }

    fn published(objects: &Objects, kind: Kind) -> Vec<Value> {
        let text = objects.lock().unwrap()[names::PUBLIC_KEYS]["data"][kind.public_entry()].clone();
        serde_json::from_str::<Value>(text.as_str().unwrap()).unwrap()["keys"].as_array().unwrap().clone()
    }

    #[tokio::test]
    async fn keys_are_published_before_they_are_stored_and_then_left_alone() {
        let (keeper, objects, writes) = start();
        keeper.pass(day(0), ROTATION).await.unwrap();
        let secrets = Kind::ALL.map(|kind| format!("POST {}", kind.secret_name()));
        let mut expected = vec![format!("POST {}", names::PUBLIC_KEYS)];
        expected.extend(secrets);
        assert_eq!(std::mem::take(&mut *writes.lock().unwrap()), expected);
        let published = |kind: Kind| published(&objects, kind).len();
        assert_eq!(Kind::ALL.map(published), [1, 1, 1]);
        keeper.pass(day(28), ROTATION).await.unwrap();
        assert_eq!(*writes.lock().unwrap(), Vec::<String>::new());
        keeper.pass(day(29), ROTATION).await.unwrap();
        assert_eq!(Kind::ALL.map(published), [2, 2, 2]);
        assert_eq!(writes.lock().unwrap()[0], format!("PUT {}", names::PUBLIC_KEYS));
        assert_eq!(writes.lock().unwrap().len(), 4);
    }
    #[tokio::test]
    async fn keys_that_are_asked_for_are_made_once_and_the_request_is_answered_last() {
        let (keeper, objects, writes) = start();
        keeper.pass(day(0), ROTATION).await.unwrap();
        let ask = |text: &str| {
            let mut objects = objects.lock().unwrap();
            objects.get_mut(names::PUBLIC_KEYS).unwrap()["metadata"]["annotations"][names::RENEW_KEYS] = text.into();
        };
        let first = Kind::ALL.map(|kind| published(&objects, kind));
        writes.lock().unwrap().clear();
        ask("one access keep");
        keeper.pass(day(1), ROTATION).await.unwrap();
        let config_map = format!("PUT {}", names::PUBLIC_KEYS);
        let secret = format!("PUT {}", Kind::Access.secret_name());
        assert_eq!(*writes.lock().unwrap(), [config_map.clone(), secret, config_map]);
        assert_eq!(published(&objects, Kind::Access).len(), 2);
        assert_eq!(published(&objects, Kind::Connection), first[1]);
        let answered = objects.lock().unwrap()[names::PUBLIC_KEYS]["metadata"]["annotations"].clone();
        assert_eq!(answered[names::RENEWED_KEYS], "one");
        writes.lock().unwrap().clear();
        keeper.pass(day(1), ROTATION).await.unwrap();
        ask("nonsense");
        keeper.pass(day(1), ROTATION).await.unwrap();
        assert!(writes.lock().unwrap().is_empty());
        ask("two access,connection revoke");
        keeper.pass(day(1), ROTATION).await.unwrap();
        let after = Kind::ALL.map(|kind| published(&objects, kind));
        assert_eq!(after.each_ref().map(Vec::len), [1, 1, 1]);
        assert!(after[0] != first[0] && after[1] != first[1] && after[2] == first[2]);
    }
}
