//! How fast 10,000 sessions become READY on 1,000 made-up servers, beside what the API server takes at most, and what their
//! controller needs; prints JSON.
//!
//! Everything runs on the same processors: the API server with etcd, controller, broker, the agents of all servers, and this
//! program. `raw_writes_per_second` are the writes of such sessions by one client, with all of ours dead;
//! `all_writes_per_second` are those of sessions with the Leases and reports of the servers, which go on meanwhile.

#![expect(clippy::cast_precision_loss, reason = "figures for people")]

use std::collections::BTreeSet;
use std::time::Duration;
use std::time::Instant;

use dcv_operator::api::session::DcvSession;
use e2e::Stand;
use e2e::api_server;
use e2e::host::processor_percent;
use e2e::host::processor_seconds;
use e2e::host::resident_mib;
use e2e::rest::LoggedIn;
use e2e::seconds;
use e2e::session::Sessions;
use e2e::session::is_ready;
use e2e::session::manifest;
use futures::StreamExt;
use futures::stream;
use kube::ResourceExt;
use kube::api::ListParams;
use kube::api::Patch;
use kube::api::PatchParams;
use kube::api::PostParams;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher;
use serde_json::Value;
use serde_json::json;

const SESSIONS: usize = 10_000;
/// Items of one call: answered in time by an API server that has all else to do.
const ITEMS: usize = 100;
/// How often to say how far it is.
const STEP: usize = 1_000;
/// Sessions of the comparison, and how many are written at once.
const RAW: usize = 2_000;
const WRITES_AT_ONCE: usize = 32;
/// A session is created, bound and READY: what it costs the API server when it comes by REST.
const WRITES_OF_A_SESSION: usize = 3;
/// How long the controller is looked at while nothing happens.
const REST: Duration = seconds(30);

/// Asks for so many sessions that wait where they must.
async fn create(rest: &LoggedIn, count: usize) {
    for call in 0..count / ITEMS {
        let item = |number: usize| {
            let number = call * ITEMS + number;
            json!({"Name": format!("desk {number}"), "Owner": format!("user-{}", number % 500), "Type": "VIRTUAL", "EnqueueRequest": true})
        };
        let items: Vec<_> = (0..ITEMS).map(item).collect();
        let answer = rest.post("/createSessions", &json!(items)).await;
        assert_eq!(answer.successful().len(), ITEMS, "{:?}", answer.unsuccessful().first());
    }
}

/// Writes that the API server has taken, of whatever and by whomever: Leases of hosts, what servers report, and sessions.
async fn writes(stand: &Stand) -> f64 {
    let is_write =
        |labels: &str| ["POST", "PUT", "PATCH"].iter().any(|verb| labels.contains(&format!("verb=\"{verb}\"")));
    api_server::requests(&stand.client(), is_write).await as f64
}

/// Returns once `count` sessions have been seen READY.
async fn until_ready(sessions: &Sessions, count: usize) {
    let versions = watcher(sessions.api.clone(), watcher::Config::default()).default_backoff().applied_objects();
    // A watch that breaks begins anew.
    let mut versions = versions.filter_map(async |version| version.ok()).boxed();
    let mut ready = BTreeSet::new();
    while ready.len() < count {
        let session = versions.next().await.expect("a watch does not end");
        if is_ready(&session) && ready.insert(session.name_any()) && ready.len().is_multiple_of(STEP) {
            eprintln!("{} of {count} sessions READY", ready.len());
        }
    }
}

/// What is written of a session until it is READY, by somebody with nothing else to do.
async fn write_one(sessions: &Sessions, name: &str, bound: &Value, ready: &Value) {
    let object = manifest(name, &json!({}));
    sessions.api.create(&PostParams::default(), &object).await.expect("it can be created");
    for status in [bound, ready] {
        let patch = Patch::Merge(json!({"status": status}));
        sessions.api.patch_status(name, &PatchParams::default(), &patch).await.expect("it can be written");
    }
}

/// Writes a second of sessions like `example`, whose status is written in two steps.
async fn raw_writes_per_second(sessions: &Sessions, example: &DcvSession) -> f64 {
    let ready = serde_json::to_value(&example.status).expect("a status is plain data");
    let mut bound = ready.clone();
    bound["state"] = json!("CREATING");
    let start = Instant::now();
    stream::iter(0..RAW)
        .for_each_concurrent(WRITES_AT_ONCE, async |number| {
            write_one(sessions, &format!("raw-{number}"), &bound, &ready).await;
        })
        .await;
    (RAW * WRITES_OF_A_SESSION) as f64 / start.elapsed().as_secs_f64()
}

async fn measure() -> Value {
    let stand = Stand::bench_fleet().await;
    let sessions = stand.namespace("bench").await;
    let client = stand.rest_client(&sessions.namespace, json!({})).await;
    let rest = client.log_in().await.expect("the client logs in");
    let controller = stand.role("controller-1").pid();

    let (start, written, processor) = (Instant::now(), writes(&stand).await, processor_seconds(controller));
    tokio::join!(create(&rest, SESSIONS), until_ready(&sessions, SESSIONS));
    let processor_ms = (processor_seconds(controller) - processor) * 1e3 / SESSIONS as f64;
    let all_writes = (writes(&stand).await - written) / start.elapsed().as_secs_f64();
    let ready = SESSIONS as f64 / start.elapsed().as_secs_f64();
    let rest_percent = processor_percent(controller, REST).await;
    let rss = resident_mib(controller);

    let all = sessions.api.list(&ListParams::default().limit(1)).await.expect("sessions can be listed").items;
    stand.kill_roles().await;
    let alone = stand.namespace("raw").await;
    let raw = raw_writes_per_second(&alone, &all[0]).await;
    stand.down().await;
    let rounded = |figure: f64| (figure * 1000.0).round() / 1000.0;
    json!({
        "ready_per_second": rounded(ready),
        "raw_writes_per_second": rounded(raw),
        "all_writes_per_second": rounded(all_writes),
        "session_writes_to_raw": rounded(ready * WRITES_OF_A_SESSION as f64 / raw),
        "all_writes_to_raw": rounded(all_writes / raw),
        "controller_processor_ms_per_session": rounded(processor_ms),
        "controller_rest_percent": rounded(rest_percent),
        "controller_rss_mib": rounded(rss),
    })
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    println!("{}", runtime.block_on(measure()));
    runtime.shutdown_timeout(Duration::from_secs(1));
}
