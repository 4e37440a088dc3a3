//! `kill -9` of controller, agent and brokers under a stream of creates and deletes on twenty made-up hosts, whose own
//! memory tells what really happened there.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::time::Duration;

use dcv_operator::api::session::DcvSession;
use e2e::Stand;
use e2e::eventually;
use e2e::rest::LoggedIn;
use e2e::seconds;
use e2e::session::Sessions;
use e2e::session::is_ready;
use futures::future::join_all;
use kube::ResourceExt;
use kube::api::DeleteParams;
use rand::Rng;
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::json;

/// Sessions of one round.
const LIVES: u64 = 50;

/// What one session of a round does.
#[derive(Clone, Copy, Debug)]
struct Life {
    owner: &'static str,
    /// When it is created.
    begin: Duration,
    /// When it is deleted, counted from its creation or, if so, from its readiness; absent: it stays.
    end: Option<(bool, Duration)>,
}

fn up_to(chance: &mut StdRng, milliseconds: u64) -> Duration {
    Duration::from_millis(chance.random_range(0..=milliseconds))
}

fn life(chance: &mut StdRng) -> Life {
    let begin = up_to(chance, 1000);
    let end = match chance.random_range(0..3) {
        0 => None,
        1 => Some((false, up_to(chance, 150))),
        _ => Some((true, up_to(chance, 300))),
    };
    Life { owner: if chance.random() { "ann" } else { "bob" }, begin, end }
}

/// Goes through `life`; the session when it stays.
async fn live(sessions: &Sessions, name: String, life: Life) -> Option<DcvSession> {
    tokio::time::sleep(life.begin).await;
    let made = sessions.create(&name, &json!({"owner": life.owner})).await;
    let Some((is_from_ready, delay)) = life.end else {
        return Some(sessions.until_ready(&name).await);
    };
    if is_from_ready {
        sessions.until_ready(&name).await;
    }
    tokio::time::sleep(delay).await;
    sessions.api.delete(&name, &DeleteParams::default()).await.expect("a session can be deleted");
    sessions.until_gone(&made).await;
    None
}

/// The hosts hold exactly `sessions`, each on its server, and never made one twice.
async fn assert_hosts_hold(stand: &Stand, sessions: &[DcvSession]) {
    let expected: BTreeMap<_, _> = sessions
        .iter()
        .map(|session| (session.id().to_owned(), session.server_name().unwrap_or_default().to_owned()))
        .collect();
    eventually("the hosts to hold what the objects say", seconds(10), async || {
        let held = stand.fake_host().sessions().await;
        if held == expected { Ok(()) } else { Err(format!("{held:?} instead of {expected:?}")) }
    })
    .await;
    let twice = stand.fake_host().created_twice().await;
    assert_eq!(twice, BTreeSet::new(), "created more than once");
}

/// Rounds of lives in which the process of `role` is killed and comes back.
async fn rounds(role: &str, seed: u64, count: u32) {
    let stand = Stand::fake().await;
    let sessions = stand.namespace("fleet").await;
    let mut chance = StdRng::seed_from_u64(seed);
    // So that many creates and closes are under way at once.
    stand.fake_host().set_latency(100, 50).await;
    for round in 0..e2e::rounds(count) {
        let lives: Vec<_> = (0..LIVES).map(|_| life(&mut chance)).collect();
        let (delay, pause) = (up_to(&mut chance, 1200), up_to(&mut chance, 400));
        eprintln!("round {round}: {role} is killed after {delay:?} and comes back {pause:?} later");
        let lives = lives
            .into_iter()
            .enumerate()
            .map(|(number, life)| live(&sessions, format!("round-{round}-{number}"), life));
        let fault = async {
            tokio::time::sleep(delay).await;
            let killed = stand.role(role).kill().await;
            let hit = stand.all_sessions().await;
            let closing = hit.iter().filter(|session| session.is_closing()).count();
            let ready = hit.iter().filter(|session| is_ready(session) && !session.is_closing()).count();
            eprintln!("round {round}: {} creating, {ready} ready, {closing} closing", hit.len() - ready - closing);
            tokio::time::sleep(pause).await;
            killed.restart().await;
        };
        let (staying, ()) = tokio::join!(join_all(lives), fault);
        let staying: Vec<_> = staying.into_iter().flatten().collect();
        for session in &staying {
            let now = sessions.api.get(&session.name_any()).await.expect("a session that nobody deleted is there");
            assert!(is_ready(&now) && now.attempt() == 1, "{:?}", now.status);
        }
        assert_eq!(stand.all_sessions().await.len(), staying.len());
        assert_hosts_hold(&stand, &staying).await;
        join_all(staying.iter().map(async |session| sessions.delete(&session.name_any()).await)).await;
        assert_hosts_hold(&stand, &[]).await;
    }
    stand.fake_host().set_latency(0, 0).await;
    sessions.delete_namespace().await;
}

#[tokio::test]
async fn killed_agents_lose_nothing_and_make_nothing_twice() {
    rounds("agent-1", 11, 5).await;
}

#[tokio::test]
async fn a_killed_controller_loses_nothing_and_makes_nothing_twice() {
    rounds("controller-1", 12, 3).await;
}

/// Creates sessions one after the other, as a portal does that tries again when it hears nothing; the ids it heard of.
async fn create_by_rest(rest: &LoggedIn, count: usize) -> BTreeSet<String> {
    let mut ids = BTreeSet::new();
    for number in 0..count {
        let item = json!([{"Name": format!("portal {number}"), "Owner": "ann", "Type": "VIRTUAL"}]);
        if let Ok(answer) = rest.try_post("/createSessions", &item).await
            && answer.status == 200
        {
            assert_eq!(answer.unsuccessful().len(), 0, "{answer:?}");
            ids.insert(answer.successful()[0]["Id"].as_str().expect("an id").to_owned());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    ids
}

#[tokio::test]
async fn a_killed_broker_breaks_no_promise_and_leaves_no_half_made_session() {
    let stand = Stand::fake().await;
    let sessions = stand.namespace("promises").await;
    let rest = stand.rest_client(&sessions.namespace, json!({})).await.log_in().await.expect("the client logs in");
    let mut chance = StdRng::seed_from_u64(13);
    for role in ["broker-1", "broker-2", "broker-1"] {
        let fault = async {
            tokio::time::sleep(up_to(&mut chance, 600)).await;
            let killed = stand.role(role).kill().await;
            tokio::time::sleep(up_to(&mut chance, 600)).await;
            killed.restart().await;
        };
        let (promised, ()) = tokio::join!(create_by_rest(&rest, 20), fault);
        assert!(promised.len() >= 10, "the other broker took over only {}", promised.len());
        // Also the ones whose answer was lost are whole.
        let made = eventually("every session to be READY", seconds(20), async || {
            let made = stand.all_sessions().await;
            match made.iter().find(|session| !is_ready(session)) {
                None => Ok(made),
                Some(session) => Err(format!("{:?}", session.status)),
            }
        })
        .await;
        let ids = e2e::stand::ids(&made);
        assert!(promised.is_subset(&ids), "{promised:?} are not all in {ids:?}");
        assert_hosts_hold(&stand, &made).await;
        for url in stand.broker_urls() {
            let listed = eventually("both brokers to answer", seconds(20), async || {
                let answer = rest.at(&url).try_post("/describeSessions", &json!({})).await;
                let answer = answer.map_err(|error| error.to_string())?;
                if answer.status == 200 { Ok(answer) } else { Err(format!("{answer:?}")) }
            })
            .await;
            let listed =
                listed.list("Sessions").iter().map(|session| session["Id"].as_str().expect("an id").to_owned());
            assert_eq!(listed.collect::<BTreeSet<_>>(), ids, "at {url}");
        }
        for id in &ids {
            rest.delete(id, "ann").await;
        }
        join_all(made.iter().map(async |session| sessions.until_gone(session).await)).await;
        assert_hosts_hold(&stand, &[]).await;
    }
    sessions.delete_namespace().await;
}

/// A session without what an agent rightly writes when it listens elsewhere after a restart, as those of made-up hosts do.
fn what_lasts(mut session: DcvSession) -> DcvSession {
    session.metadata.resource_version = None;
    session.metadata.managed_fields = None;
    session.status.get_or_insert_default().server = None;
    session
}

#[tokio::test]
async fn everything_of_ours_killed_at_rest_is_as_it_was_within_seconds() {
    let stand = Stand::fake().await;
    let sessions = stand.namespace("at-rest").await;
    let mut before = Vec::new();
    for number in 0..20 {
        sessions.create(&format!("desk-{number}"), &json!({})).await;
    }
    for number in 0..20 {
        before.push(sessions.until_ready(&format!("desk-{number}")).await);
    }
    let mut killed = Vec::new();
    for role in ["agent-1", "controller-1", "broker-1", "broker-2", "balancer-1"] {
        killed.push(stand.role(role).kill().await);
    }
    assert_hosts_hold(&stand, &before).await;
    for role in killed {
        role.restart().await;
    }
    sessions.create("probe", &json!({})).await;
    sessions.until_ready("probe").await;
    sessions.delete("probe").await;
    for session in &before {
        let now = sessions.api.get(&session.name_any()).await.expect("a session that nobody deleted is there");
        assert_eq!(what_lasts(now), what_lasts(session.clone()), "it changed although nothing happened to it");
    }
    assert_hosts_hold(&stand, &before).await;
    sessions.delete_namespace().await;
}
