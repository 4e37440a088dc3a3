//! The signing keys: three Secrets of private halves, one `ConfigMap` of the public ones.
//!
//! What is to be in them follows from the keys, the time and the settings; this part reads and writes. Invariant: a key
//! is published before it can sign. Keys are never logged.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::Client;
use kube::api::ObjectMeta;
use kube::api::PostParams;

use super::Context;
use super::metrics::Outcome;
use crate::api::names;
use crate::cluster::Error;
use crate::token::KEYS_ENTRY;
use crate::token::KeySet;
use crate::token::Kind;
use crate::token::Rotation;

/// How often keys are looked at. A Secret that somebody deleted is made anew within this time.
const PERIOD: Duration = Duration::from_mins(1);
/// How soon after a failure.
const RETRY: Duration = Duration::from_secs(5);

/// Runs for as long as we lead.
pub(super) async fn run(context: Arc<Context>) {
    let keeper = Keeper::new(&context.client, &context.settings.namespace);
    loop {
        let pause = match keeper.pass((context.clock)(), context.settings.rotation).await {
            Ok(()) => {
                context.metrics.reconciled("keys", Outcome::RequeueAfter);
                PERIOD
            }
            Err(error) => {
                context.failed("keys", names::PUBLIC_KEYS, &error);
                RETRY
            }
        };
        tokio::time::sleep(pause).await;
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
    async fn pass(&self, now: jiff::Timestamp, rotation: Rotation) -> Result<(), Error> {
        let mut changed = Vec::new();
        let mut entries = BTreeMap::new();
        for kind in Kind::ALL {
            let name = kind.secret_name();
            let secret = self.secrets.get_opt(name).await.map_err(Error::api("read", format!("Secret {name}")))?;
            let keys = secret.as_ref().and_then(|secret| parsed(kind, secret)).unwrap_or_default();
            let wanted = keys.rotated(now, rotation);
            let public = serde_json::to_string(&wanted.public()).expect("public keys are plain data");
            entries.insert(kind.public_entry().to_owned(), public);
            if wanted != keys {
                changed.push((kind, secret, wanted));
            }
        }
        // First the public halves: no broker may sign with a key that a verifier has not had time to see.
        self.publish(entries).await?;
        for (kind, secret, keys) in changed {
            self.store(kind, secret, &keys).await?;
        }
        Ok(())
    }

    async fn publish(&self, entries: BTreeMap<String, String>) -> Result<(), Error> {
        let object = || format!("ConfigMap {}", names::PUBLIC_KEYS);
        let stored = self.config_maps.get_opt(names::PUBLIC_KEYS).await.map_err(Error::api("read", object()))?;
        match stored {
            Some(stored) if stored.data.as_ref() == Some(&entries) => Ok(()),
            Some(mut stored) => {
                stored.data = Some(entries);
                let write = self.config_maps.replace(names::PUBLIC_KEYS, &PostParams::default(), &stored).await;
                write.map(drop).map_err(Error::api("update", object()))
            }
            None => {
                let config_map =
                    ConfigMap { metadata: named(names::PUBLIC_KEYS), data: Some(entries), ..ConfigMap::default() };
                let write = self.config_maps.create(&PostParams::default(), &config_map).await;
                write.map(drop).map_err(Error::api("create", object()))
            }
        }
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
    use jiff::Timestamp;
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

    #[tokio::test]
    async fn keys_are_published_before_they_are_stored_and_then_left_alone() {
        let objects: Arc<Mutex<HashMap<String, Value>>> = Arc::default();
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
        let keeper = Keeper::new(&client, "ns");
        keeper.pass(day(0), ROTATION).await.unwrap();
        let secrets = Kind::ALL.map(|kind| format!("POST {}", kind.secret_name()));
        let mut expected = vec![format!("POST {}", names::PUBLIC_KEYS)];
        expected.extend(secrets);
        assert_eq!(std::mem::take(&mut *writes.lock().unwrap()), expected);
        let published = |kind: Kind| {
            let text = objects.lock().unwrap()[names::PUBLIC_KEYS]["data"][kind.public_entry()].clone();
            serde_json::from_str::<Value>(text.as_str().unwrap()).unwrap()["keys"].as_array().unwrap().len()
        };
        assert_eq!(Kind::ALL.map(published), [1, 1, 1]);
        keeper.pass(day(28), ROTATION).await.unwrap();
        assert_eq!(*writes.lock().unwrap(), Vec::<String>::new());
        keeper.pass(day(29), ROTATION).await.unwrap();
        assert_eq!(Kind::ALL.map(published), [2, 2, 2]);
        assert_eq!(writes.lock().unwrap()[0], format!("PUT {}", names::PUBLIC_KEYS));
        assert_eq!(writes.lock().unwrap().len(), 4);
    }
}
