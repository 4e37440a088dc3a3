//! The REST API where hosts come in: permissions of what runs, opening and closing servers, desktops that were started by
//! hand, and what would become of a session.

use std::collections::BTreeSet;

use e2e::Stand;
use e2e::eventually;
use e2e::rest::LoggedIn;
use e2e::rounds;
use e2e::seconds;
use e2e::session::Sessions;
use e2e::unique;
use kube::ResourceExt;
use kube::api::DeleteParams;
use kube::api::Patch;
use kube::api::PatchParams;
use serde_json::Value;
use serde_json::json;

/// A namespace with a client of this kind.
async fn tenant(stand: &Stand, word: &str, spec: Value) -> (Sessions, LoggedIn) {
    let sessions = stand.namespace(word).await;
    let client = stand.rest_client(&sessions.namespace, spec).await;
    (sessions, client.log_in().await.expect("the client logs in"))
}

fn desktop(owner: &str) -> Value {
    json!({"Name": "desk", "Owner": owner, "Type": "VIRTUAL"})
}

/// One that only this server fits.
fn desktop_on(server_id: &str) -> Value {
    let mut item = desktop("ann");
    item["Requirements"] = json!(format!("server:Id = '{server_id}'"));
    item
}

/// Name and id of a server that runs virtual sessions.
async fn host(stand: &Stand) -> (String, String) {
    // A row of the fixed mix with virtual sessions only.
    let name = stand.server(1);
    let server = stand.servers().get(&name).await.expect("it is there");
    (name, server.uid().expect("a server has a uid"))
}

/// Availability and its reason, as one word.
async fn availability(rest: &LoggedIn, id: &str) -> String {
    let server = rest.describe_server(id).await.expect("the server is listed");
    let word = |name: &str| server[name].as_str().unwrap_or_default().to_owned();
    format!("{} {}", word("Availability"), word("UnavailabilityReason")).trim().to_owned()
}

fn failure(list: &str, request: &Value, code: &str, reason: &str) -> Vec<Value> {
    vec![json!({list: request, "FailureCode": code, "FailureReason": reason})]
}

#[tokio::test]
async fn permissions_reach_the_host_without_a_new_desktop() {
    let stand = Stand::fake().await;
    let (sessions, rest) = tenant(&stand, "permissions", json!({})).await;
    let id = rest.create(desktop("ann")).await;
    rest.until_state(&id, "READY").await;
    for file in ["[permissions]\n%owner% allow builtin\nbob allow display", "[permissions]\n%owner% allow display"] {
        rest.permit(&id, "ann", file).await;
        eventually("the host to have the permissions", seconds(10), async || {
            let now = stand.fake_host().session(&id).await.ok_or("gone")?;
            if now["permissions"] == file { Ok(()) } else { Err(now.to_string()) }
        })
        .await;
    }
    assert_eq!(stand.fake_host().history().await[&id].creates, 1);
    let session = rest.describe(&id).await.expect("it is listed");
    assert_eq!(session["State"], "READY", "{session}");
    rest.delete(&id, "ann").await;
    rest.until_gone(&id).await;
    sessions.delete_namespace().await;
}

#[tokio::test]
async fn a_server_is_closed_for_new_sessions_and_opened_again() {
    let stand = Stand::fake().await;
    let (sessions, rest) = tenant(&stand, "placement", json!({"manageServers": true})).await;
    let (other_sessions, other) = tenant(&stand, "placement-other", json!({})).await;
    let (name, server) = host(&stand).await;
    // Sessions of whatever tenant keep it open.
    let id = other.create(desktop_on(&server)).await;
    other.until_state(&id, "READY").await;
    let plain = json!({"ServerId": server});
    let answer = rest.post("/closeServers", &json!([plain])).await;
    let expected =
        failure("CloseServerRequestData", &plain, "DCV_SERVER_HAS_SESSIONS", "Dcv server has running sessions.");
    assert_eq!((answer.status, answer.unsuccessful()), (200, &expected));
    assert_eq!(availability(&rest, &server).await, "AVAILABLE");

    let urls = stand.broker_urls();
    let [one, two] = [rest.at(&urls[0]), rest.at(&urls[1])];
    let forced = json!([{"ServerId": server, "Force": true}]);
    for _ in 0..2 {
        let answer = one.post("/closeServers", &forced).await;
        assert_eq!(answer.successful(), &vec![plain.clone()], "{answer:?}");
        assert_eq!(availability(&one, &server).await, "UNAVAILABLE SERVER_CLOSED", "the replica that answered");
    }
    let refused = one.post("/createSessions", &json!([desktop_on(&server)])).await;
    assert_eq!(refused.unsuccessful()[0]["FailureReason"], "No DCV server found for the given criteria");
    eventually("the other replica to know", seconds(1), async || {
        let now = availability(&two, &server).await;
        if now == "UNAVAILABLE SERVER_CLOSED" { Ok(()) } else { Err(now) }
    })
    .await;
    let session = other.describe(&id).await.expect("it is listed");
    assert_eq!(session["State"], "READY", "what runs goes on: {session}");
    other.delete(&id, "ann").await;
    other.until_gone(&id).await;
    eventually("the server to be empty, which closes it as it is closed", seconds(10), async || {
        let answer = two.post("/closeServers", &json!([plain])).await;
        if answer.successful().len() == 1 { Ok(()) } else { Err(format!("{answer:?}")) }
    })
    .await;

    for _ in 0..2 {
        let answer = two.post("/openServers", &json!([plain])).await;
        assert_eq!(answer.successful(), &vec![plain.clone()], "{answer:?}");
        assert_eq!(availability(&two, &server).await, "AVAILABLE");
    }
    let id = two.create(desktop_on(&server)).await;
    two.until_state(&id, "READY").await;
    two.delete(&id, "ann").await;

    // One that is drained is closed, stays drained when it is closed, and forgets its grace period when it is opened.
    let drain = json!({"placement": "Draining", "drainGraceSeconds": 3600});
    stand.patch_servers(|server| if server == name { drain.clone() } else { json!({}) }).await;
    rest.post("/closeServers", &forced).await;
    let spec = stand.servers().get(&name).await.expect("it is there").spec;
    assert_eq!(serde_json::to_value(&spec).expect("a spec is JSON"), drain);
    let answer = rest.post("/openServers", &json!([plain])).await;
    assert_eq!(answer.successful().len(), 1, "{answer:?}");
    let spec = stand.servers().get(&name).await.expect("it is there").spec;
    assert_eq!(serde_json::to_value(&spec).expect("a spec is JSON"), json!({}));

    let unknown = json!({"ServerId": uuid::Uuid::new_v4().to_string()});
    for (path, list) in [("/openServers", "OpenServerRequestData"), ("/closeServers", "CloseServerRequestData")] {
        let answer = rest.post(path, &json!([unknown])).await;
        let expected = failure(list, &unknown, "DCV_SERVER_NOT_FOUND", "Dcv server not found.");
        assert_eq!((answer.status, answer.unsuccessful()), (200, &expected));
        let answer = other.post(path, &json!([plain])).await;
        let expected = failure(list, &plain, "CLIENT_NOT_AUTHORIZED", "The client may not open and close servers.");
        assert_eq!((answer.status, answer.unsuccessful()), (200, &expected));
    }
    sessions.delete_namespace().await;
    other_sessions.delete_namespace().await;
}

#[tokio::test]
async fn a_server_that_is_closed_because_it_is_empty_is_empty_and_stays_so() {
    let stand = Stand::fake().await;
    let (sessions, rest) = tenant(&stand, "race", json!({"manageServers": true})).await;
    let (name, server) = host(&stand).await;
    let urls = stand.broker_urls();
    let [one, two] = [rest.at(&urls[0]), rest.at(&urls[1])];
    let (close, open) = (json!([{"ServerId": server}]), json!([{"ServerId": server}]));
    let create = json!([desktop_on(&server)]);
    let (mut closed, mut kept) = (0, 0);
    for _ in 0..rounds(20) {
        let (made, answer) = tokio::join!(one.post("/createSessions", &create), two.post("/closeServers", &close));
        let is_closed = !answer.successful().is_empty();
        let made: Vec<_> = made.successful().iter().map(|it| it["Id"].as_str().expect("an id").to_owned()).collect();
        for id in &made {
            // It gets the server, or fails because that is closed.
            let session = eventually("the session to be settled", seconds(30), async || {
                let session = one.describe(id).await.ok_or("gone")?;
                if session["State"] == "CREATING" { Err(session.to_string()) } else { Ok(session) }
            })
            .await;
            assert!(!(is_closed && session["State"] == "READY"), "{answer:?} {session}");
            let on_host = stand.fake_host().session(id).await;
            assert_eq!(on_host.is_some(), session["State"] == "READY", "{session} {on_host:?}");
            one.post("/deleteSessions", &json!([{"SessionId": id, "Owner": "ann"}])).await;
            one.until_gone(id).await;
        }
        if is_closed {
            closed += 1;
            assert!(!stand.fake_host().sessions().await.values().any(|host| *host == name));
        } else {
            kept += 1;
            assert_eq!(answer.unsuccessful()[0]["FailureCode"], "DCV_SERVER_HAS_SESSIONS", "{answer:?}");
        }
        two.post("/openServers", &open).await;
        for broker in [&one, &two] {
            eventually("the server to be open and empty", seconds(10), async || {
                let now = broker.describe_server(&server).await.unwrap_or_default();
                let is_so = now["Availability"] == "AVAILABLE" && now["VirtualSessionCount"] == 0;
                if is_so { Ok(()) } else { Err(now.to_string()) }
            })
            .await;
        }
    }
    println!("closed {closed} times, kept open {kept} times");
    sessions.delete_namespace().await;
}

#[tokio::test]
async fn desktops_started_by_hand_are_described_to_clients_of_all_namespaces() {
    let stand = Stand::fake().await;
    let (sessions, rest) = tenant(&stand, "hand", json!({})).await;
    let whole = stand.rest_client(&sessions.namespace, json!({"allNamespaces": true, "manageServers": true})).await;
    let whole = whole.log_in().await.expect("the client logs in");
    let (name, server) = host(&stand).await;
    let by_hand = unique("by-hand");
    stand.fake_host().start_by_hand(&name, &by_hand, "cid").await;
    let session = whole.until_state(&by_hand, "READY").await;
    let shown = json!([session["Name"], session["Owner"], session["Type"], session["Server"]["Id"]]);
    assert_eq!(shown, json!(["", "cid", "VIRTUAL", server]), "{session}");
    assert!(session["CreationTime"].as_str().is_some_and(|time| time.ends_with('Z')), "{session}");
    let filters = json!({"Filters": [{"Key": "owner", "Value": "cid"}]});
    assert_eq!(whole.post("/describeSessions", &filters).await.list("Sessions").len(), 1);
    assert_eq!(rest.describe(&by_hand).await, None, "a tenant does not see it");
    let server_shown = rest.describe_server(&server).await.expect("it is listed");
    assert_eq!(server_shown["VirtualSessionCount"], 1, "but it counts");
    let answer = whole.post("/closeServers", &json!([{"ServerId": server}])).await;
    assert_eq!(answer.unsuccessful()[0]["FailureCode"], "DCV_SERVER_HAS_SESSIONS");

    let item = json!([{"SessionId": by_hand, "Owner": "cid", "Force": true}]);
    let reason = async |rest: &LoggedIn| {
        let answer = rest.post("/deleteSessions", &item).await;
        answer.unsuccessful()[0]["FailureReason"].as_str().expect("a reason").to_owned()
    };
    assert!(reason(&whole).await.contains("without a record here"));
    assert_eq!(reason(&rest).await, "The requested dcvSession does not exist");
    let answer = whole.connection_data(&by_hand, "cid").await;
    assert_eq!(answer.status, 400, "{answer:?}");
    assert!(stand.fake_host().sessions().await.contains_key(&by_hand), "it was not touched");

    // One that has lost its object is not READY again, and says what it is.
    let id = rest.create(desktop("ann")).await;
    rest.until_state(&id, "READY").await;
    eventually("the host to know that people know of it", seconds(10), async || {
        let now = stand.fake_host().session(&id).await.ok_or("gone")?;
        if now["announced"] == true { Ok(()) } else { Err(now.to_string()) }
    })
    .await;
    let object = stand.all_sessions().await.into_iter().find(|session| session.id() == id);
    let object = object.expect("the session is an object").name_any();
    let bare = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    sessions.api.patch(&object, &PatchParams::default(), &bare).await.expect("an administrator changes sessions");
    sessions.api.delete(&object, &DeleteParams::default()).await.expect("an administrator deletes sessions");
    let unclaimed = whole.until_state(&id, "UNKNOWN").await;
    assert_eq!(unclaimed["Name"], object, "{unclaimed}");
    assert!(unclaimed["StateReason"].as_str().is_some_and(|text| text.contains("still runs")), "{unclaimed}");
    rest.until_gone(&id).await;
    let all = whole.post("/describeSessions", &json!({})).await;
    let listed: BTreeSet<_> = all.list("Sessions").iter().map(|it| it["Id"].as_str().expect("an id")).collect();
    assert_eq!(listed, BTreeSet::from([by_hand.as_str(), id.as_str()]));
    stand.fake_host().clear().await;
    whole.until_gone(&by_hand).await;
    whole.until_gone(&id).await;
    sessions.delete_namespace().await;
}

#[tokio::test]
async fn a_dry_run_says_what_explain_says_and_leaves_nothing() {
    let stand = Stand::fake().await;
    let (sessions, rest) = tenant(&stand, "dry-run", json!({})).await;
    let explained = async |requirements: &str| {
        let manifest = json!({
            "apiVersion": "dcv-operator.io/v1alpha1", "kind": "DcvSession", "metadata": {"name": "desk"},
            "spec": {"owner": "ann", "type": "VIRTUAL", "requirements": requirements},
        });
        let text = stand.plugin(&["explain", "-n", &sessions.namespace, "-f", "-"], &manifest.to_string()).await;
        text.split_once('\n').map(|(_, report)| report.trim_end().to_owned()).unwrap_or_default()
    };
    let picky = |requirements: &str| {
        let mut item = desktop("ann");
        item["Requirements"] = json!(requirements);
        item
    };
    let (fits, fails) = ("tag:pool = 'render'", "tag:pool = 'cad' and server:Host.Os.Family = 'linux'");
    let answer = rest.post("/createSessions?dryRun=true", &json!([picky(fails), picky(fits)])).await;
    let (reason, made) = (&answer.unsuccessful()[0]["FailureReason"], &answer.successful()[0]);
    assert_eq!(*reason, format!("No DCV server found for the given criteria: {}", explained(fails).await));
    assert!(reason.as_str().is_some_and(|text| text.contains("\nTo get one of ")), "{reason}");
    assert_eq!(made["StateReason"], format!("Dry run, nothing was created. {}", explained(fits).await));
    assert_eq!((&made["State"], made.get("Id")), (&json!("CREATING"), None));
    let server = rest.describe_server(made["Server"]["Id"].as_str().expect("a server")).await;
    assert_eq!(server.expect("it is listed")["Hostname"], made["Server"]["Hostname"]);
    assert_eq!(stand.all_sessions().await, Vec::new());
    let answer = rest.post("/createSessions?dryRun=maybe", &json!([picky(fits)])).await;
    assert_eq!(answer.status, 400, "{answer:?}");
    assert_eq!(stand.all_sessions().await, Vec::new());
    sessions.delete_namespace().await;
}

#[tokio::test]
async fn whatever_is_not_ready_says_why() {
    let stand = Stand::fake().await;
    let (sessions, rest) = tenant(&stand, "reasons", json!({})).await;
    stand.fake_host().set_latency(300, 300).await;
    let mut waiting = desktop("ann");
    waiting["EnqueueRequest"] = json!(true);
    waiting["Requirements"] = json!("tag:pool = 'cad'");
    let answer = rest.post("/createSessions", &json!([desktop("ann"), waiting])).await;
    let ids: Vec<_> = answer.successful().iter().map(|it| it["Id"].as_str().expect("an id").to_owned()).collect();
    assert_eq!(ids.len(), 2, "{answer:?}");
    let check = |session: &Value| {
        let reason = session["StateReason"].as_str().unwrap_or_default();
        assert_eq!(reason.is_empty(), session["State"] == "READY", "{session}");
    };
    answer.successful().iter().for_each(check);
    eventually("one to be READY and one to know why not", seconds(20), async || {
        let (one, two) = (rest.describe(&ids[0]).await.ok_or("gone")?, rest.describe(&ids[1]).await.ok_or("gone")?);
        check(&one);
        check(&two);
        let told = two["StateReason"].as_str().is_some_and(|text| text.starts_with("0 of 20 servers fit"));
        if one["State"] == "READY" && told { Ok(()) } else { Err(format!("{one} {two}")) }
    })
    .await;
    rest.delete(&ids[0], "ann").await;
    eventually("it to be gone", seconds(20), async || match rest.describe(&ids[0]).await {
        None => Ok(()),
        Some(session) => {
            check(&session);
            Err(session.to_string())
        }
    })
    .await;
    stand.fake_host().set_latency(0, 0).await;
    sessions.delete_namespace().await;
}
