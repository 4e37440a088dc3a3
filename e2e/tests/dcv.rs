//! From a REST call to a client that a DCV server lets in, and what lives on when the agent does not.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use dcv_operator::api::server::SessionOrigin;
use e2e::Stand;
use e2e::dcv_client::DcvClient;
use e2e::eventually;
use e2e::host;
use e2e::seconds;
use e2e::session::Sessions;
use e2e::session::is_ready;
use serde_json::json;

async fn until_connections(sessions: &Sessions, name: &str, number: i32) {
    sessions
        .until(name, format!("used by {number} clients"), |session| {
            session.status.as_ref().is_some_and(|status| status.num_of_connections == Some(number))
        })
        .await;
}

#[tokio::test]
async fn who_has_a_token_from_the_broker_is_let_in_by_the_server_and_nobody_else() {
    let stand = Stand::dcv().await;
    let server = stand.dcv_server(1);
    let sessions = stand.namespace("dcv").await;
    let rest = stand.rest_client(&sessions.namespace, json!({})).await.log_in().await.expect("the client logs in");
    let permissions = STANDARD.encode("[permissions]\n%owner% allow builtin\ncid allow display\n");
    let ask = |name: &str, owner: &str| {
        json!({"Name": name, "Owner": owner, "Type": "VIRTUAL", "AutorunFile": "script.sh", "StorageRoot": "%home%",
            "PermissionsFile": permissions, "MaxConcurrentClients": 2})
    };
    let id = rest.create(ask("one", "ann")).await;
    let other = rest.create(ask("two", "bob")).await;
    for id in [&id, &other] {
        rest.until_state(id, "READY").await;
    }
    let mut known = server.ids();
    known.sort();
    let mut expected = [id.clone(), other.clone()];
    expected.sort();
    assert_eq!(known, expected);

    let url = rest.connection_url(&id, "ann").await;
    let ann = DcvClient::open(&url);
    assert_eq!(ann.said, "yes, user ann");
    let name = name_of(&stand, &id).await;
    until_connections(&sessions, &name, 1).await;
    let cid = DcvClient::open(&rest.connection_url(&id, "cid").await);
    assert_eq!(cid.said, "yes, user cid", "the session's permissions let him in");
    until_connections(&sessions, &name, 2).await;
    let full = DcvClient::open(&url);
    assert_eq!(full.said, "no: The session has as many clients as it may");
    drop(full);
    drop(cid);
    drop(ann);
    until_connections(&sessions, &name, 0).await;
    let left = sessions.api.get(&name).await.expect("it is there").status.expect("it has a status");
    assert!(left.last_disconnection_time.is_some(), "{left:?}");

    let (token, _) = url.split_once('#').expect("the documented form");
    let (signed, _) = token.rsplit_once('.').expect("a token has a signature");
    for (url, said) in [
        (format!("{token}#{other}"), "no: token is for another session"),
        (format!("{signed}.AAAA#{id}"), "no: bad signature"),
        (rest.connection_url(&id, "bob").await, "no: bob has no permission to see this session"),
        (format!("{token}#nowhere"), "no: The sessionId nowhere is not available"),
    ] {
        let client = DcvClient::open(&url);
        assert_eq!(client.said, said);
        drop(client);
    }
    rest.delete(&id, "ann").await;
    rest.until_state(&id, "DELETED").await;
    let client = DcvClient::open(&url);
    assert_eq!(client.said, format!("no: The sessionId {id} is not available"));
    drop(client);
    sessions.delete_namespace().await;
    eventually("the server to be empty", seconds(30), async || {
        let ids = server.ids();
        if ids.is_empty() { Ok(()) } else { Err(format!("{ids:?}")) }
    })
    .await;
}

/// Name of the session of this id.
async fn name_of(stand: &Stand, id: &str) -> String {
    let all = stand.all_sessions().await;
    let session = all.into_iter().find(|session| session.id() == id).expect("the session is an object");
    session.metadata.name.expect("it has a name")
}

#[tokio::test]
async fn a_killed_agent_ends_no_session_and_the_next_one_knows_them_all() {
    let stand = Stand::dcv().await;
    let server = stand.dcv_server(1);
    let sessions = stand.namespace("dcv-kill").await;
    let rest = stand.rest_client(&sessions.namespace, json!({})).await.log_in().await.expect("the client logs in");
    sessions.create("before", &json!({})).await;
    let id = sessions.until_ready("before").await.id().to_owned();
    let ann = DcvClient::open(&rest.connection_url(&id, "ann").await);
    assert_eq!(ann.said, "yes, user ann");
    until_connections(&sessions, "before", 1).await;

    // Killed in the middle of a create, of which the server has heard.
    server.order(&json!({"fault": {"on": "create-session", "what": "lose"}}));
    let during = sessions.create("during", &json!({})).await.id().to_owned();
    eventually("the server to hear of it", seconds(30), async || {
        if server.ids().contains(&during) { Ok(()) } else { Err("not yet".into()) }
    })
    .await;
    let killed = stand.role("agent-1").kill().await;
    drop(ann);
    let ended = sessions.create("ended", &json!({})).await.id().to_owned();
    killed.restart().await;
    let known =
        [sessions.until_ready("before").await.id().to_owned(), sessions.until_ready("during").await.id().to_owned()];
    assert_eq!(known, [id.clone(), during.clone()], "they are the same sessions");
    until_connections(&sessions, "before", 0).await;
    sessions.until_ready("ended").await;
    let creates = server.history().into_iter().filter(|words| words[0] == "create-session" && words.contains(&during));
    assert_eq!(creates.count(), 1, "nothing is created twice");

    // One ends by itself while the agent is away.
    let killed = stand.role("agent-1").kill().await;
    server.order(&json!({"end": ended}));
    killed.restart().await;
    let over = sessions.until_finished("ended").await;
    assert_eq!(e2e::session::condition(&over, "Finished"), "True/EndedOnHost");
    for name in ["before", "during"] {
        assert!(is_ready(&sessions.api.get(name).await.expect("it is there")), "{name}");
        sessions.delete(name).await;
    }
    assert_eq!(server.ids(), [""; 0]);
    sessions.delete_namespace().await;
}

#[tokio::test]
async fn a_session_by_hand_is_described_and_counted_and_ends_by_hand() {
    let stand = Stand::dcv().await;
    let double = stand.dcv_server(1);
    let by_hand = e2e::unique("by-hand");
    double.dcv(&["create-session", "--type=virtual", "--owner=bob", "--user=bob", "--name=Build", &by_hand]);
    let name = stand.server(1);
    let status = async || {
        let server = stand.servers().get(&name).await.expect("the server is an object");
        server.status.expect("it has a status")
    };
    let told = eventually("the session to be told of", seconds(60), async || {
        let status = status().await;
        status.other_sessions.iter().find(|other| other.id == by_hand).cloned().ok_or(format!("{status:?}"))
    })
    .await;
    assert_eq!((told.owner.as_str(), told.origin), ("bob", SessionOrigin::Manual));
    eventually("it to be counted", seconds(60), async || {
        let count = status().await.virtual_session_count;
        if count == Some(1) { Ok(()) } else { Err(format!("{count:?}")) }
    })
    .await;
    let rest = stand.rest().log_in().await.expect("the client of hack/up logs in");
    let described = stand.servers().get(&name).await.expect("it is there");
    let uid = described.metadata.uid.expect("it has a uid");
    let server = rest.describe_server(&uid).await.expect("the server is described");
    assert_eq!(server["VirtualSessionCount"], json!(1), "{server}");

    // Its agent comes and goes; nobody ends it.
    stand.role("agent-1").kill_and_restart().await;
    eventually("the agent to be back", seconds(60), async || {
        let told = status().await.other_sessions;
        if told.iter().any(|other| other.id == by_hand) { Ok(()) } else { Err(format!("{told:?}")) }
    })
    .await;
    assert_eq!(double.ids(), std::slice::from_ref(&by_hand));
    double.dcv(&["close-session", &by_hand]);
    eventually("it to be gone", seconds(60), async || {
        let told = status().await.other_sessions;
        if told.is_empty() { Ok(()) } else { Err(format!("{told:?}")) }
    })
    .await;
}

#[tokio::test]
async fn a_server_that_is_away_is_unhealthy_and_says_why_and_its_sessions_end_with_it() {
    let stand = Stand::dcv().await;
    let double = stand.dcv_server(1);
    let sessions = stand.namespace("dcv-away").await;
    sessions.create("desk", &json!({})).await;
    sessions.until_ready("desk").await;
    let words = async || {
        let server = stand.servers().get(&stand.server(1)).await.expect("the server is an object");
        let conditions = server.status.expect("it has a status").conditions;
        let healthy = conditions.into_iter().find(|condition| condition.type_ == "BackendHealthy");
        healthy.map(|condition| format!("{}: {}", condition.status, condition.message)).unwrap_or_default()
    };
    double
        .order(&json!({"fault": {"on": "list-sessions", "what": "fail", "text": "No DCV server found", "times": 20}}));
    eventually("the server to be unhealthy", seconds(60), async || {
        let words = words().await;
        if words.starts_with("False: ") && words.contains("No DCV server found") { Ok(()) } else { Err(words) }
    })
    .await;
    assert!(is_ready(&sessions.api.get("desk").await.expect("it is there")), "nobody knows that it has ended");
    eventually("the server to be well", seconds(60), async || {
        let words = words().await;
        if words.starts_with("True: ") { Ok(()) } else { Err(words) }
    })
    .await;
    assert!(is_ready(&sessions.api.get("desk").await.expect("it is there")));

    host::signal(stand.role("dcv-server-1").pid(), nix::sys::signal::Signal::SIGKILL);
    eventually("the server to be unhealthy", seconds(60), async || {
        let words = words().await;
        if words.starts_with("False: ") { Ok(()) } else { Err(words) }
    })
    .await;
    stand.restart().await;
    let over = sessions.until_finished("desk").await;
    assert_eq!(e2e::session::condition(&over, "Finished"), "True/EndedOnHost");
    sessions.delete_namespace().await;
}
