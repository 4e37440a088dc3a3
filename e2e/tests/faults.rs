//! `kill -9` of every part, at rest and at random moments of creating and closing, on a real host: desktops that should live
//! do, nothing is there twice, nothing is left over.

use std::time::Duration;

use dcv_operator::api::session::DcvSession;
use dcv_operator::api::session::SessionState;
use e2e::Stand;
use e2e::eventually;
use e2e::host;
use e2e::host::Process;
use e2e::role::Role;
use e2e::seconds;
use e2e::session::Sessions;
use e2e::session::condition;
use e2e::session::is_ready;
use e2e::session::state;
use e2e::session::state_reason;
use kube::api::DeleteParams;
use rand::Rng;
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::json;

/// What is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Agent,
    Controller,
    Broker,
    SessionHost,
    XServer,
}

impl Part {
    /// The role, when it is one of ours that `hack/up` starts.
    fn role(self, stand: &Stand) -> Option<Role> {
        match self {
            Self::Agent => Some(stand.role("agent-1")),
            Self::Controller => Some(stand.role("controller-1")),
            Self::Broker => Some(stand.role("broker-1")),
            Self::SessionHost | Self::XServer => None,
        }
    }

    /// The process of the session `id`, when it is one of a session.
    fn process(self, id: &str) -> Option<Process> {
        match self {
            Self::SessionHost => host::session_hosts_of(id).into_iter().next(),
            Self::XServer => host::x_servers_of(id).into_iter().next(),
            Self::Agent | Self::Controller | Self::Broker => None,
        }
    }
}

/// At most this many milliseconds, from the test's own source of chance.
fn up_to(chance: &mut StdRng, milliseconds: u64) -> Duration {
    Duration::from_millis(chance.random_range(0..=milliseconds))
}

/// Kills `part` after `delay`, tells how far the session was, and starts the part again after `pause` where it is not one of
/// the session. Those are waited for before the delay; `None`: it never came, or was gone.
async fn kill(
    stand: &Stand,
    sessions: &Sessions,
    part: Part,
    name: &str,
    delay: Duration,
    pause: Duration,
) -> Option<Process> {
    let tell = async || {
        let hit = sessions.api.get_opt(name).await.expect("the API server answers");
        eprintln!("{name}: killed after {delay:?}, when it was {}", hit.as_ref().map_or("not there".into(), stage));
    };
    if let Some(role) = part.role(stand) {
        tokio::time::sleep(delay).await;
        let killed = role.kill().await;
        tell().await;
        tokio::time::sleep(pause).await;
        killed.restart().await;
        return None;
    }
    let id = sessions.api.get_opt(name).await.expect("the API server answers")?.id().to_owned();
    for _ in 0..500 {
        if part.process(&id).is_some() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    tokio::time::sleep(delay).await;
    let process = part.process(&id)?;
    host::kill(&process);
    tell().await;
    Some(process)
}

/// How far a session is, in a few words.
fn stage(session: &DcvSession) -> String {
    let closing = if session.is_closing() { ", closing" } else { "" };
    let substate = session.status.as_ref().and_then(|status| status.substate);
    format!("{:?} {substate:?} {}{closing}", state(session), condition(session, "Created"))
}

/// Waits until nothing of the session is left on the host.
async fn until_nothing_is_left(stand: &Stand, id: &str) {
    eventually(&format!("nothing of {id} to be left"), seconds(15), async || {
        let remains = host::remains_of(&stand.server(1), id);
        if remains.is_empty() { Ok(()) } else { Err(format!("{remains:#?}")) }
    })
    .await;
}

/// The one X server of a session that should have one.
fn x_server(id: &str) -> Process {
    let servers = host::x_servers_of(id);
    assert_eq!(servers.len(), 1, "X servers of {id}: {servers:?}");
    servers.into_iter().next().expect("there is one")
}

/// A session that goes through everything, so everybody is up again.
async fn assert_it_works(sessions: &Sessions) {
    sessions.create("probe", &json!({})).await;
    sessions.until_ready("probe").await;
    sessions.delete("probe").await;
}

#[tokio::test]
async fn desktops_do_not_notice_that_agent_controller_and_broker_were_killed() {
    let stand = Stand::vnc().await;
    let sessions = stand.namespace("rest").await;
    let rest = stand.rest_client(&sessions.namespace, json!({})).await.log_in().await.expect("the client logs in");
    let mut before = Vec::new();
    for number in 0..3 {
        let name = format!("desk-{number}");
        sessions.create(&name, &json!({})).await;
        let session = sessions.until_ready(&name).await;
        before.push((name, x_server(session.id()), session));
    }
    let mut killed = Vec::new();
    for role in ["agent-1", "controller-1", "broker-1"] {
        killed.push(stand.role(role).kill().await);
    }
    for (name, server, _) in &before {
        assert!(host::is_alive(server.pid), "the desktop of {name} ended with our parts");
    }
    for role in killed {
        role.restart().await;
    }
    assert_it_works(&sessions).await;
    for (name, server, session) in &before {
        let after = sessions.api.get(name).await.expect("the session is there");
        assert_eq!(&after, session, "{name} was written although nothing happened to it");
        assert_eq!(&x_server(session.id()), server, "the desktop of {name} is another one");
    }
    let known = eventually("the broker to be back", seconds(20), async || {
        let answer = rest.try_post("/describeSessions", &json!({})).await.map_err(|error| error.to_string())?;
        if answer.status == 200 { Ok(answer) } else { Err(format!("{answer:?}")) }
    })
    .await;
    assert_eq!(known.list("Sessions").len(), 3);
    for (name, _, session) in &before {
        sessions.delete(name).await;
        until_nothing_is_left(&stand, session.id()).await;
    }
    sessions.delete_namespace().await;
}

#[tokio::test]
async fn a_second_agent_of_a_server_waits_until_the_first_has_gone() {
    let stand = Stand::vnc().await;
    let sessions = stand.namespace("second").await;
    sessions.create("desk", &json!({})).await;
    let before = sessions.until_ready("desk").await;
    let server = x_server(before.id());
    let first = stand.role("agent-1");
    let second = first.start_twin("agent-2", &[("--health-address", "127.0.0.1:0")]).await;
    eventually("the second to say that it waits", seconds(20), async || {
        let log = second.log();
        let says = log.contains("another agent of this server runs") && log.contains(&first.pid().to_string());
        if says { Ok(()) } else { Err(log) }
    })
    .await;
    // The first is not disturbed, and the second does nothing of its own.
    assert_it_works(&sessions).await;
    assert!(host::is_alive(second.pid()));
    assert!(!second.log().contains("agent runs"), "{}", second.log());

    let first = first.kill().await;
    eventually("the second to take over", seconds(20), async || {
        if second.log().contains("agent runs") { Ok(()) } else { Err(second.log()) }
    })
    .await;
    assert_it_works(&sessions).await;
    let after = sessions.api.get("desk").await.expect("the session is there");
    assert_eq!((after.id(), after.attempt(), state(&after)), (before.id(), 1, SessionState::Ready));
    assert_eq!(x_server(before.id()), server);
    second.kill().await.forget();
    first.restart().await;
    sessions.delete("desk").await;
    until_nothing_is_left(&stand, before.id()).await;
    sessions.delete_namespace().await;
}

#[tokio::test]
async fn a_desktop_that_lost_its_x_server_or_its_session_host_is_over_and_leaves_nothing() {
    let stand = Stand::vnc().await;
    let sessions = stand.namespace("lost").await;
    for (name, part) in [("x", Part::XServer), ("host", Part::SessionHost)] {
        // The terminal, and what it started, must go too.
        sessions.create(name, &json!({"autorunFile": "script.sh"})).await;
        let session = sessions.until_ready(name).await;
        host::kill(&part.process(session.id()).unwrap_or_else(|| panic!("no {part:?} of {name}")));
        let over = sessions.until_finished(name).await;
        assert_eq!(state(&over), SessionState::Deleted);
        assert_eq!(condition(&over, "Finished"), "True/EndedOnHost");
        assert_eq!((condition(&over, "Ready"), condition(&over, "Stalled")), (String::new(), String::new()));
        assert!(!state_reason(&over).is_empty(), "{:?}", over.status);
        until_nothing_is_left(&stand, session.id()).await;
        sessions.delete(name).await;
    }
    sessions.delete_namespace().await;
}

#[tokio::test]
async fn a_desktop_that_ended_while_the_agent_was_dead_is_over_and_leaves_nothing() {
    let stand = Stand::vnc().await;
    let sessions = stand.namespace("unseen").await;
    for name in ["x", "host"] {
        sessions.create(name, &json!({"autorunFile": "script.sh"})).await;
    }
    let mut ids = Vec::new();
    for name in ["x", "host"] {
        ids.push(sessions.until_ready(name).await.id().to_owned());
    }
    let killed = stand.role("agent-1").kill().await;
    for (id, part) in ids.iter().zip([Part::XServer, Part::SessionHost]) {
        let process = part.process(id).unwrap_or_else(|| panic!("no {part:?}"));
        host::kill(&process);
        eventually("it to be dead", seconds(5), async || {
            if host::is_alive(process.pid) { Err(process.command.clone()) } else { Ok(()) }
        })
        .await;
    }
    killed.restart().await;
    for (name, id) in ["x", "host"].into_iter().zip(&ids) {
        let over = sessions.until_finished(name).await;
        assert_eq!(condition(&over, "Finished"), "True/EndedOnHost", "{name}: {:?}", over.status);
        until_nothing_is_left(&stand, id).await;
    }
    sessions.delete_namespace().await;
}

/// Waits until the session is READY with one whole desktop, without the killed process, or has finished.
async fn until_settled(sessions: &Sessions, name: &str, killed: Option<&Process>) -> DcvSession {
    eventually(&format!("{name} to be READY or over"), seconds(45), async || {
        let session = sessions.api.get(name).await.map_err(|error| error.to_string())?;
        let (servers, hosts) = (host::x_servers_of(session.id()), host::session_hosts_of(session.id()));
        assert!(servers.len() <= 1, "two desktops of {name}: {servers:?}");
        let is_whole = servers.len() == 1 && !hosts.is_empty() && killed.is_none_or(|dead| !host::is_alive(dead.pid));
        if session.is_finished() || is_ready(&session) && is_whole {
            Ok(session)
        } else {
            Err(format!("{:?} {servers:?} {hosts:?}", session.status))
        }
    })
    .await
}

#[tokio::test]
async fn a_create_survives_a_kill_at_any_moment() {
    let stand = Stand::vnc().await;
    let sessions = stand.namespace("create").await;
    let mut chance = StdRng::seed_from_u64(1);
    for (part, rounds, within) in
        // How many rounds, and within how many milliseconds the part does its share of a create.
        [
            (Part::Agent, 4, 220),
            (Part::Controller, 3, 40),
            (Part::Broker, 1, 40),
            (Part::SessionHost, 2, 120),
            (Part::XServer, 2, 60),
        ]
    {
        for round in 0..e2e::rounds(rounds) {
            let name = format!("{part:?}-{round}").to_lowercase();
            let (delay, pause) = (up_to(&mut chance, within), up_to(&mut chance, 300));
            let created = async { sessions.create(&name, &json!({"autorunFile": "script.sh"})).await.id().to_owned() };
            let (id, killed) = if part.role(&stand).is_some() {
                tokio::join!(created, kill(&stand, &sessions, part, &name, delay, pause))
            } else {
                (created.await, kill(&stand, &sessions, part, &name, delay, pause).await)
            };
            let session = until_settled(&sessions, &name, killed.as_ref()).await;
            let what = format!("{name}, killed after {delay:?}, back after {pause:?}: {:?}", session.status);
            if part.role(&stand).is_some() {
                assert!(is_ready(&session), "{what}");
                assert_eq!(session.attempt(), 1, "{what}");
            } else if session.is_finished() {
                assert_eq!(condition(&session, "Finished"), "True/EndedOnHost", "{what}");
                until_nothing_is_left(&stand, &id).await;
            }
            sessions.delete(&name).await;
            until_nothing_is_left(&stand, &id).await;
        }
    }
    sessions.delete_namespace().await;
}

#[tokio::test]
async fn a_close_survives_a_kill_at_any_moment() {
    let stand = Stand::vnc().await;
    let sessions = stand.namespace("close").await;
    let mut chance = StdRng::seed_from_u64(2);
    for (part, rounds, within) in
        [(Part::Agent, 4, 150), (Part::Controller, 1, 80), (Part::SessionHost, 2, 60), (Part::XServer, 2, 20)]
    {
        for round in 0..e2e::rounds(rounds) {
            let name = format!("{part:?}-{round}").to_lowercase();
            sessions.create(&name, &json!({"autorunFile": "script.sh"})).await;
            let session = sessions.until_ready(&name).await;
            let id = session.id();
            let (delay, pause) = (up_to(&mut chance, within), up_to(&mut chance, 300));
            let deleted = async { sessions.api.delete(&name, &DeleteParams::default()).await };
            let (deleted, _) = tokio::join!(deleted, kill(&stand, &sessions, part, &name, delay, pause));
            deleted.expect("a session can be deleted");
            sessions.until_gone(&session).await;
            until_nothing_is_left(&stand, id).await;
        }
    }
    sessions.delete_namespace().await;
}

#[tokio::test]
async fn a_server_that_does_not_answer_costs_no_desktop_and_comes_back_as_it_was() {
    let stand = Stand::vnc().await;
    let sessions = stand.namespace("away").await;
    sessions.create("desk", &json!({})).await;
    let before = sessions.until_ready("desk").await;
    let server = x_server(before.id());
    // The documented times, shorter.
    let controller = stand.role("controller-1").kill().await;
    let short = ["--server-lease-timeout-seconds", "15", "--sessions-unknown-after-seconds", "3"];
    controller.restart_with(&short).await;
    let agent = stand.role("agent-1").kill().await;
    let unknown = sessions.until_within("desk", seconds(60), "UNKNOWN", |session| {
        state(session) == SessionState::Unknown && condition(session, "Ready") == "Unknown/ServerUnreachable"
    });
    let unknown = unknown.await;
    assert!(!state_reason(&unknown).is_empty() && !unknown.is_finished(), "{:?}", unknown.status);
    let rest = stand.rest().log_in().await.expect("the client of hack/up logs in");
    let shown = rest.post("/describeServers", &json!({})).await;
    let shown = &shown.list("Servers")[0];
    assert_eq!(
        (&shown["Availability"], &shown["UnavailabilityReason"]),
        (&json!("UNAVAILABLE"), &json!("UNREACHABLE_AGENT"))
    );
    assert!(host::is_alive(server.pid));

    agent.restart().await;
    let after = sessions.until_ready("desk").await;
    assert_eq!((after.id(), after.attempt()), (before.id(), 1));
    assert_eq!(x_server(before.id()), server);
    stand.role("controller-1").kill().await.restart_without(&short).await;
    assert_it_works(&sessions).await;
    sessions.delete_namespace().await;
}
