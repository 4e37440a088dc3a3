//! Several brokers behind one address: they answer as one, and what one of them has answered outlives it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;

use e2e::Stand;
use e2e::eventually;
use e2e::rest::Answer;
use e2e::rest::LoggedIn;
use e2e::rounds;
use e2e::seconds;
use e2e::session::Sessions;
use serde_json::Value;
use serde_json::json;

/// Clients that create and delete while brokers are killed.
const WORKERS: usize = 4;

/// How many sessions each of them has at most.
const SESSIONS_MAX: usize = 6;

const ANSWERS_BETWEEN_KILLS: usize = 20;

async fn tenant(stand: &Stand, word: &str) -> (Sessions, LoggedIn) {
    let sessions = stand.namespace(word).await;
    let client = stand.rest_client(&sessions.namespace, json!({})).await;
    (sessions, client.log_in().await.expect("the client logs in"))
}

fn desktop(owner: &str) -> Value {
    json!({"Name": "behind one address", "Owner": owner, "Type": "VIRTUAL"})
}

fn id(object: &Value) -> String {
    object["Id"].as_str().expect("an id").to_owned()
}

#[tokio::test]
async fn two_replicas_behind_one_address_behave_as_one() {
    let stand = Stand::fake().await;
    let (sessions, rest) = tenant(&stand, "one-address").await;
    // The balancer sends each call to the broker that did not get the last one.
    let mut kept = Vec::new();
    for number in 0..12 {
        let id = rest.create(desktop("ann")).await;
        assert!(rest.describe(&id).await.is_some(), "an id that was given out is known to both");
        // Not by id it may take a moment, which is bounded.
        eventually("the session in the list of both", seconds(1), async || {
            for _ in 0..2 {
                let all = rest.post("/describeSessions", &json!({})).await;
                if !all.list("Sessions").iter().any(|session| session["Id"] == *id) {
                    return Err(format!("{all:?}"));
                }
            }
            Ok(())
        })
        .await;
        let ready = rest.until_state(&id, "READY").await;
        // The one that has not seen it READY yet says so within a second.
        eventually("both to say READY", seconds(1), async || {
            for _ in 0..2 {
                if rest.describe(&id).await.as_ref() != Some(&ready) {
                    return Err("not yet".to_owned());
                }
            }
            Ok(())
        })
        .await;
        if number % 2 == 0 {
            kept.push(id);
            continue;
        }
        rest.delete(&id, "ann").await;
        eventually("neither to say READY", seconds(1), async || {
            for _ in 0..2 {
                if let Some(session) = rest.describe(&id).await.filter(|session| session["State"] == "READY") {
                    return Err(session.to_string());
                }
            }
            Ok(())
        })
        .await;
    }
    // A walk through pages meets both, too.
    let mut seen = Vec::new();
    let mut request = json!({"MaxResults": 1, "SessionIds": kept});
    loop {
        let page = rest.post("/describeSessions", &request).await;
        seen.extend(page.list("Sessions").iter().map(id));
        let Some(token) = page.body.get("NextToken") else { break };
        request["NextToken"] = token.clone();
    }
    assert_eq!(seen.iter().collect::<BTreeSet<_>>(), kept.iter().collect::<BTreeSet<_>>());
    assert_eq!(seen.len(), kept.len());
    sessions.delete_namespace().await;
}

/// What the test and its workers tell each other.
#[derive(Default)]
struct Load {
    is_over: AtomicBool,
    answered: AtomicUsize,
}

/// What a worker was told.
#[derive(Debug, Default)]
struct Told {
    /// Created, and no delete was tried.
    created: BTreeSet<String>,
    /// A delete was accepted.
    deleted: BTreeSet<String>,
    /// Requests without an answer. A delete among them may have been done or not.
    unanswered: usize,
}

/// The answer, if there is one. A connection that breaks is none, nor is a broker that says it has just started.
async fn attempt(rest: &LoggedIn, load: &Load, path: &str, request: &Value) -> Option<Answer> {
    match rest.try_post(path, request).await {
        Ok(answer) if answer.status == 200 => {
            load.answered.fetch_add(1, Ordering::Relaxed);
            Some(answer)
        }
        Ok(answer) if answer.status != 503 => panic!("{answer:?}"),
        _ => {
            tokio::time::sleep(Duration::from_millis(50)).await;
            None
        }
    }
}

/// Creates and deletes until told to stop.
async fn work(rest: LoggedIn, owner: String, load: Arc<Load>) -> Told {
    let mut told = Told::default();
    while !load.is_over.load(Ordering::Relaxed) {
        match attempt(&rest, &load, "/createSessions", &json!([desktop(&owner)])).await {
            Some(answer) => {
                let made = answer.successful().first().unwrap_or_else(|| panic!("there is room: {answer:?}"));
                told.created.insert(id(made));
            }
            None => told.unanswered += 1,
        }
        if told.created.len() < SESSIONS_MAX {
            continue;
        }
        let one = told.created.pop_first().expect("it has some");
        match attempt(&rest, &load, "/deleteSessions", &json!([{"SessionId": one, "Owner": owner}])).await {
            Some(answer) => {
                assert_eq!(answer.unsuccessful(), &Vec::<Value>::new(), "{one} was created");
                told.deleted.insert(one);
            }
            None => told.unanswered += 1,
        }
    }
    told
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn brokers_killed_under_load_lose_nothing_that_was_answered() {
    let stand = Stand::fake().await;
    let (sessions, rest) = tenant(&stand, "killed-brokers").await;
    let load = Arc::new(Load::default());
    let workers: Vec<_> = (0..WORKERS)
        .map(|number| tokio::spawn(work(rest.clone(), format!("owner{number}"), Arc::clone(&load))))
        .collect();
    let urls = stand.broker_urls();
    for round in 0..rounds(4) {
        let before = load.answered.load(Ordering::Relaxed);
        eventually("the load to go on", seconds(30), async || {
            let answered = load.answered.load(Ordering::Relaxed) - before;
            if answered >= ANSWERS_BETWEEN_KILLS { Ok(()) } else { Err(format!("{answered} answers")) }
        })
        .await;
        let number = usize::try_from(round).expect("a small number") % urls.len();
        stand.role(&format!("broker-{}", number + 1)).kill_and_restart().await;
        eventually("the killed broker to be back", seconds(20), async || {
            let answer = rest.at(&urls[number]).try_post("/describeServers", &json!({"MaxResults": 1})).await;
            let answer = answer.map_err(|error| error.to_string())?;
            if answer.status == 200 { Ok(()) } else { Err(format!("{answer:?}")) }
        })
        .await;
    }
    load.is_over.store(true, Ordering::Relaxed);
    let mut told = Told::default();
    for worker in workers {
        let Told { created, deleted, unanswered } = worker.await.expect("a worker judges what it is told");
        told.created.extend(created);
        told.deleted.extend(deleted);
        told.unanswered += unanswered;
    }
    let Told { created, deleted, unanswered } = told;
    eprintln!("{} sessions stay, {} were deleted, {unanswered} requests had no answer", created.len(), deleted.len());
    assert!(!created.is_empty() && !deleted.is_empty());
    for url in &urls {
        let rest = rest.at(url);
        for id in &created {
            rest.until_state(id, "READY").await;
        }
        for id in &deleted {
            rest.until_gone(id).await;
        }
    }
    let twice = stand.fake_host().created_twice().await;
    assert!(twice.is_disjoint(&created) && twice.is_disjoint(&deleted), "{twice:?}");
    sessions.delete_namespace().await;
}
