//! A repeated createSessions makes no second desktop, whatever is lost on the way.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;
use std::time::Duration;

use e2e::Stand;
use e2e::eventually;
use e2e::rest::LoggedIn;
use e2e::rounds;
use e2e::seconds;
use futures::StreamExt;
use futures::stream;
use kube::api::ListParams;
use serde_json::Value;
use serde_json::json;

const KEYS: u32 = 250;
/// Calls with each key.
const CALLS: u32 = 10;
const AT_ONCE: usize = 16;
/// A broker answers most calls within this time, and many not.
const PATIENCE_MAX_MS: u128 = 40;

/// Waits for ever: what is counted here is objects, not desktops.
fn item(name: &str) -> Value {
    json!({"Name": name, "Owner": "ann", "Type": "VIRTUAL", "EnqueueRequest": true, "Requirements": "tag:nowhere = 'x'"})
}

fn made(answer: &e2e::rest::Answer) -> Option<String> {
    (answer.status == 200).then(|| answer.body["SuccessfulList"][0]["Id"].as_str().map(str::to_owned))?
}

/// How the calls go.
#[derive(Default)]
struct Progress {
    begun: AtomicU32,
    lost: AtomicU32,
}

/// Calls again and again with one key, gives up on most answers, and returns every id it was told.
async fn call_often(brokers: &[LoggedIn], key: &str, progress: &Progress) -> BTreeSet<String> {
    let body = json!([item(key)]);
    let mut told = BTreeSet::new();
    for _ in 0..CALLS {
        let random = uuid::Uuid::new_v4().as_u128();
        let patience = Duration::from_millis((random % PATIENCE_MAX_MS).try_into().expect("a small number"));
        let broker = &brokers[usize::from(random & (1 << 100) == 0)];
        progress.begun.fetch_add(1, Ordering::Relaxed);
        // The call is cut off where it is, perhaps after the object was made.
        let call = tokio::time::timeout(patience, broker.try_post_with_key("/createSessions", &body, key)).await;
        let answer = call.ok().and_then(Result::ok);
        progress.lost.fetch_add(answer.is_none().into(), Ordering::Relaxed);
        told.extend(answer.as_ref().and_then(made));
    }
    let last = eventually("an answer", seconds(30), async || {
        let answer = brokers[0].try_post_with_key("/createSessions", &body, key).await;
        let answer = answer.map_err(|error| error.to_string())?;
        made(&answer).ok_or_else(|| format!("{answer:?}"))
    })
    .await;
    told.insert(last);
    told
}

#[tokio::test]
async fn calls_with_lost_answers_make_as_many_sessions_as_there_are_keys() {
    let stand = Stand::fake().await;
    for _ in 0..rounds(1) {
        let sessions = stand.namespace("keys").await;
        let client =
            stand.rest_client(&sessions.namespace, json!({})).await.log_in().await.expect("the client logs in");
        let brokers: Vec<_> = stand.broker_urls().iter().map(|url| client.at(url)).collect();
        let keys: Vec<_> = (0..KEYS).map(|number| format!("key {number}")).collect();
        let progress = Progress::default();
        let calls = stream::iter(&keys).map(|key| call_often(&brokers, key, &progress)).buffer_unordered(AT_ONCE);
        let kills = async {
            for (quarter, broker) in (1..).zip(["broker-2", "broker-1", "broker-2"]) {
                eventually("calls to be made", seconds(120), async || {
                    let begun = progress.begun.load(Ordering::Relaxed);
                    if begun >= quarter * KEYS * CALLS / 4 { Ok(()) } else { Err(format!("{begun} are")) }
                })
                .await;
                stand.role(broker).kill_and_restart().await;
            }
        };
        let (told, ()) = tokio::join!(calls.collect::<Vec<_>>(), kills);
        let lost = progress.lost.into_inner();
        assert!(lost >= KEYS, "only {lost} of {} answers were lost", KEYS * CALLS);
        let objects = sessions.api.list(&ListParams::default()).await.expect("sessions can be listed").items;
        let by_name: BTreeMap<_, _> = objects
            .iter()
            .map(|object| (object.spec.display_name.clone().unwrap_or_default(), object.id().to_owned()))
            .collect();
        assert_eq!(objects.len(), keys.len(), "one session for each key");
        assert_eq!(by_name.len(), keys.len());
        let ids: BTreeSet<_> = by_name.into_values().collect();
        assert!(told.iter().all(|told| told.len() == 1), "one id for each key, whoever answers: {told:?}");
        assert_eq!(told.into_iter().flatten().collect::<BTreeSet<_>>(), ids);

        let other = json!([item("another request"), item("and one more")]);
        let answer =
            brokers[1].try_post_with_key("/createSessions", &other, &keys[0]).await.expect("the broker answers");
        assert_eq!((answer.status, answer.error()), (400, "The Idempotency-Key was used with another request"));
        let left = sessions.api.list(&ListParams::default()).await.expect("sessions can be listed").items.len();
        assert_eq!(left, keys.len(), "nothing of a refused call is made");
        sessions.delete_namespace().await;
    }
}
