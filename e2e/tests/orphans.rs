//! Desktops that lost their objects or their server for a while: with `--orphan-policy CloseWhenIdle` those end that nobody can
//! miss, and an object that is still there finds its desktop by its uid.

use std::time::Instant;

use dcv_operator::api::server::Availability;
use dcv_operator::api::session::DcvSession;
use e2e::Stand;
use e2e::eventually;
use e2e::host;
use e2e::seconds;
use e2e::session::Sessions;
use e2e::session::state_reason;
use kube::ResourceExt;
use kube::api::DeleteParams;
use kube::api::Patch;
use kube::api::PatchParams;
use serde_json::json;

/// The least that can be set.
const CLOSE_WHEN_IDLE: [&str; 4] = ["--orphan-policy", "CloseWhenIdle", "--orphan-idle-seconds", "60"];

/// So that a silent server is known to be so soon.
const SHORT: [&str; 4] = ["--server-lease-timeout-seconds", "15", "--sessions-unknown-after-seconds", "1"];

/// A READY session that its host knows to have been announced.
async fn announced(stand: &Stand, sessions: &Sessions, name: &str) -> DcvSession {
    sessions.create(name, &json!({})).await;
    let session = sessions.until_ready(name).await;
    eventually("the host to know that people know of it", seconds(20), async || {
        let told = stand.fake_host().session(session.id()).await.expect("it runs");
        if told["announced"] == true { Ok(()) } else { Err(told.to_string()) }
    })
    .await;
    session
}

/// Takes an object away without its agent.
async fn strip(sessions: &Sessions, session: &DcvSession) {
    let name = session.metadata.name.as_deref().expect("it has a name");
    let bare = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    sessions.api.patch(name, &PatchParams::default(), &bare).await.expect("an administrator does so");
    sessions.api.delete(name, &DeleteParams::default()).await.expect("an administrator does so");
    sessions.until_gone(session).await;
}

#[tokio::test]
async fn where_it_is_asked_for_desktops_end_that_nobody_has_an_object_of_and_nobody_uses() {
    let stand = Stand::fake().await;
    let (host, sessions) = (stand.fake_host(), stand.namespace("orphans").await);
    let idle = announced(&stand, &sessions, "idle").await;
    let used = announced(&stand, &sessions, "used").await;
    let owned = announced(&stand, &sessions, "owned").await;
    host.set_connections(used.id(), 1).await;
    host.start_by_hand(&stand.server(2), "by-hand", "ann").await;
    let agent = stand.role("agent-1").kill().await;
    strip(&sessions, &idle).await;
    strip(&sessions, &used).await;

    let begun = Instant::now();
    let agent = agent.restart_with(&CLOSE_WHEN_IDLE).await;
    eventually("the idle desktop to be closed", seconds(100), async || {
        if host.sessions().await.contains_key(idle.id()) { Err("it runs".to_owned()) } else { Ok(()) }
    })
    .await;
    // An agent's times are whole seconds.
    assert!(begun.elapsed() >= seconds(59), "it was there to be taken over for only {:?}", begun.elapsed());
    // The last client leaves: from now on the time counts anew.
    host.set_connections(used.id(), 0).await;
    eventually("the agent to tell of that", seconds(60), async || {
        let server =
            stand.servers().get(used.server_name().expect("it had one")).await.map_err(|error| error.to_string())?;
        let others = server.status.map(|status| status.other_sessions).unwrap_or_default();
        let is_told = others.iter().any(|other| other.id == used.id() && other.num_of_connections == 0);
        if is_told { Ok(()) } else { Err(format!("{others:?}")) }
    })
    .await;
    let alive = host.sessions().await;
    for id in [used.id(), owned.id(), "by-hand"] {
        assert!(alive.contains_key(id), "{id} was closed: {alive:?}");
    }
    assert_eq!(sessions.until_ready("owned").await.id(), owned.id());
    agent.kill().await.restart_without(&CLOSE_WHEN_IDLE).await;
    sessions.delete_namespace().await;
}

#[tokio::test]
async fn a_session_whose_server_was_given_up_finds_its_desktop_there_when_it_comes_back() {
    let stand = Stand::vnc().await;
    let controller = stand.role("controller-1").kill().await.restart_with(&SHORT).await;
    let sessions = stand.namespace("found").await;
    sessions.create("desk", &json!({"restartPolicy": "OnServerLoss"})).await;
    let session = sessions.until_ready("desk").await;
    let desktop = host::x_servers_of(session.id());
    assert_eq!(desktop.len(), 1);

    let agent = stand.role("agent-1").kill().await;
    let server = stand.server(1);
    eventually("the server to be known as unreachable", seconds(60), async || {
        let server = stand.servers().get(&server).await.map_err(|error| error.to_string())?;
        let availability = server.status.map(|status| status.availability);
        if availability == Some(Availability::Unavailable) { Ok(()) } else { Err(format!("{availability:?}")) }
    })
    .await;
    // An administrator says that the host is gone for good, and is wrong.
    stand.servers().delete(&server, &DeleteParams::default()).await.expect("an administrator deletes servers");
    sessions.until("desk", "waiting for another server", |session| session.server_name().is_none()).await;
    agent.restart().await;
    let found =
        sessions.until("desk", "READY again", |session| e2e::session::is_ready(session) && session.attempt() == 2);
    let found = found.await;
    assert_eq!((found.uid(), found.id()), (session.uid(), session.id()), "{}", state_reason(&found));
    assert_eq!(host::x_servers_of(session.id()), desktop, "it is another desktop, or a second one");
    sessions.delete("desk").await;
    sessions.until_gone(&found).await;
    assert_eq!(host::remains_of(&server, session.id()), Vec::<String>::new());
    controller.kill().await.restart_without(&SHORT).await;
    sessions.delete_namespace().await;
}
