//! The REST API as clients use it: tenants, documented texts, filters, pages, and brokers that come and go.

use std::collections::BTreeSet;

use dcv_operator::api::session::SessionType;
use e2e::Stand;
use e2e::eventually;
use e2e::rest::LoggedIn;
use e2e::seconds;
use e2e::session::Sessions;
use e2e::session::condition;
use e2e::session::state_reason;
use kube::ResourceExt;
use kube::api::ListParams;
use reqwest::Method;
use serde_json::Value;
use serde_json::json;

/// A tenant: a namespace with a client.
async fn tenant(stand: &Stand, word: &str) -> (Sessions, LoggedIn) {
    let sessions = stand.namespace(word).await;
    let client = stand.rest_client(&sessions.namespace, json!({})).await;
    (sessions, client.log_in().await.expect("the client logs in"))
}

fn desktop(name: &str, owner: &str) -> Value {
    json!({"Name": name, "Owner": owner, "Type": "VIRTUAL"})
}

/// The ids in describeSessions for this request.
async fn described(rest: &LoggedIn, request: &Value) -> BTreeSet<String> {
    let answer = rest.post("/describeSessions", request).await;
    assert_eq!(answer.status, 200, "{request}: {answer:?}");
    answer.list("Sessions").iter().map(|session| session["Id"].as_str().expect("an id").to_owned()).collect()
}

#[tokio::test]
async fn a_client_sees_and_touches_only_sessions_of_its_namespace() {
    const UNKNOWN: &str = "The requested dcvSession does not exist";
    let stand = Stand::fake().await;
    let (one_sessions, one) = tenant(&stand, "tenant-one").await;
    let (two_sessions, two) = tenant(&stand, "tenant-two").await;
    let id = one.create(desktop("mine", "ann")).await;
    let ready = one.until_state(&id, "READY").await;
    assert_eq!(two.describe(&id).await, None);
    assert_eq!(described(&two, &json!({})).await, BTreeSet::new());
    assert_eq!(described(&one, &json!({})).await, BTreeSet::from([id.clone()]));
    for force in [false, true] {
        let answer = two.post("/deleteSessions", &json!([{"SessionId": id, "Owner": "ann", "Force": force}])).await;
        assert_eq!(answer.unsuccessful(), &vec![json!({"SessionId": id, "FailureReason": UNKNOWN})]);
    }
    let answer = two.connection_data(&id, "ann").await;
    assert_eq!((answer.status, answer.error()), (400, UNKNOWN));
    assert_eq!(one.describe(&id).await, Some(ready));

    let wrong_owner = one.post("/deleteSessions", &json!([{"SessionId": id, "Owner": "bob"}])).await;
    let reason = wrong_owner.unsuccessful()[0]["FailureReason"].as_str().expect("a reason");
    assert_ne!(reason, UNKNOWN, "clients take this text for success");
    assert!(reason.contains("Owner"), "{reason}");

    let whole = stand.rest_client(&two_sessions.namespace, json!({"allNamespaces": true})).await;
    let whole = whole.log_in().await.expect("the client logs in");
    assert_eq!(described(&whole, &json!({})).await, BTreeSet::from([id]));
    one_sessions.delete_namespace().await;
    two_sessions.delete_namespace().await;
}

#[tokio::test]
async fn what_does_not_exist_is_told_in_the_documented_words() {
    let stand = Stand::fake().await;
    let (sessions, rest) = tenant(&stand, "words").await;
    let id = uuid::Uuid::new_v4().to_string();
    let answer = rest.post("/deleteSessions", &json!([{"SessionId": id, "Owner": "ann"}])).await;
    let expected = json!({"SessionId": id, "FailureReason": "The requested dcvSession does not exist"});
    assert_eq!((answer.status, answer.unsuccessful()), (200, &vec![expected]));
    let answer = rest.connection_data(&id, "ann").await;
    assert_eq!((answer.status, answer.error()), (400, "The requested dcvSession does not exist"));
    assert_eq!(rest.describe(&id).await, None);
    let answer = rest.post("/describeServers", &json!({"ServerIds": [id]})).await;
    assert_eq!((answer.status, answer.list("Servers")), (200, &Vec::new()));
    let answer = rest.post("/createSessions", &json!({"Name": "no list"})).await;
    assert_eq!(answer.status, 400, "{answer:?}");
    assert!(!answer.error().is_empty());
    let health = stand.rest().call_without_token(Method::GET, "/health").await;
    assert_eq!(health.status, 200, "{health:?}");
    sessions.delete_namespace().await;
}

#[tokio::test]
async fn three_asked_for_with_one_place_left_give_one_session_and_two_reasons() {
    let stand = Stand::fake().await;
    let (sessions, rest) = tenant(&stand, "places").await;
    let servers = stand.servers().list(&ListParams::default()).await.expect("servers can be listed");
    let open = servers.iter().find(|server| {
        let capacity = server.status.as_ref().and_then(|status| status.capacity.as_ref());
        capacity.is_some_and(|capacity| capacity.session_types.contains(&SessionType::Virtual))
    });
    let open = open.expect("the mix has servers for virtual sessions").name_any();
    stand
        .patch_servers(|name| {
            if name == open { json!({"limits": {"maxVirtualSessions": 1}}) } else { json!({"placement": "Closed"}) }
        })
        .await;
    eventually("one server to be open", seconds(20), async || {
        let answer = rest.post("/describeServers", &json!({})).await;
        let count = answer.list("Servers").iter().filter(|server| server["Availability"] == "AVAILABLE").count();
        if count == 1 { Ok(()) } else { Err(format!("{count} are")) }
    })
    .await;

    let items: Vec<_> = ["ann", "bob", "cid"].iter().map(|owner| desktop("one of three", owner)).collect();
    let answer = rest.post("/createSessions", &json!(items)).await;
    assert_eq!((answer.successful().len(), answer.unsuccessful().len()), (1, 2), "{answer:?}");
    for failed in answer.unsuccessful() {
        assert_eq!(failed["FailureReason"], "No DCV server found for the given criteria", "{failed}");
        assert!(items.contains(&failed["CreateSessionRequestData"]), "{failed}");
    }
    let first = answer.successful()[0]["Id"].as_str().expect("an id").to_owned();
    rest.until_state(&first, "READY").await;

    // One that may wait does so, says why, and gets the place when it is free.
    let mut waiting = desktop("waits", "dan");
    waiting["EnqueueRequest"] = json!(true);
    let second = rest.create(waiting).await;
    let object = stand.all_sessions().await.into_iter().find(|session| session.id() == second);
    let name = object.expect("the session is an object").name_any();
    let object = sessions.until(&name, "told why it waits", |session| !state_reason(session).is_empty()).await;
    assert!(state_reason(&object).starts_with("0 of 20 servers fit: "), "{:?}", object.status);
    assert_eq!(condition(&object, "Scheduled"), "False/NoServerFits");
    let shown = rest.describe(&second).await.expect("it is listed");
    assert_eq!((&shown["State"], &shown["Substate"]), (&json!("CREATING"), &json!("SESSION_PLACING")));
    let owner = answer.successful()[0]["Owner"].as_str().expect("an owner");
    rest.delete(&first, owner).await;
    rest.until_state(&second, "READY").await;
    stand.open_all_servers().await;
    sessions.delete_namespace().await;
}

#[tokio::test]
async fn sessions_are_found_by_id_owner_and_tag_and_listed_in_pages() {
    let stand = Stand::fake().await;
    let (sessions, rest) = tenant(&stand, "filters").await;
    let mut ids = Vec::new();
    for (number, owner) in ["ann", "bob", "ann", "bob", "ann"].iter().enumerate() {
        ids.push(rest.create(desktop(&format!("session {number}"), owner)).await);
    }
    for id in &ids {
        rest.until_state(id, "READY").await;
    }
    let some = |numbers: &[usize]| numbers.iter().map(|number| ids[*number].clone()).collect::<BTreeSet<_>>();
    let all = some(&[0, 1, 2, 3, 4]);
    let owner = |name: &str| json!({"Key": "owner", "Value": name});
    let linux = json!({"Key": "tag:dcv:os-family", "Value": "linux"});
    for (request, expected) in [
        (json!({}), all.clone()),
        (json!({"SessionIds": [], "Filters": []}), all.clone()),
        (json!({"SessionIds": null, "Filters": null}), all.clone()),
        (json!({"Filters": [owner("ann")]}), some(&[0, 2, 4])),
        (json!({"Filters": [owner("ann"), owner("bob")]}), some(&[])),
        (json!({"Filters": [owner("ann")], "SessionIds": [ids[0], ids[1]]}), some(&[0])),
        (json!({"Filters": [owner("bob"), linux]}), some(&[1, 3])),
        (json!({"Filters": [{"Key": "tag:no-such", "Value": "x"}]}), some(&[])),
        (json!({"SessionIds": [ids[3], uuid::Uuid::new_v4().to_string()]}), some(&[3])),
    ] {
        assert_eq!(described(&rest, &request).await, expected, "{request}");
    }
    let bodiless = rest.request_without_body("/describeSessions").await;
    assert_eq!(bodiless.list("Sessions").len(), 5, "{bodiless:?}");

    let mut seen = Vec::new();
    let mut request = json!({"MaxResults": 2});
    loop {
        let page = rest.post("/describeSessions", &request).await;
        seen.extend(page.list("Sessions").iter().map(|session| session["Id"].as_str().expect("an id").to_owned()));
        match page.body.get("NextToken") {
            Some(token) => request["NextToken"] = token.clone(),
            None => break,
        }
    }
    assert_eq!((seen.len(), seen.into_iter().collect::<BTreeSet<_>>()), (5, all));
    for request in [
        json!({"MaxResults": 0}),
        json!({"MaxResults": 1001}),
        json!({"NextToken": "nonsense"}),
        json!({"SessionIds": [null]}),
        json!({"Filters": [{"Key": "colour", "Value": "red"}]}),
    ] {
        let answer = rest.post("/describeSessions", &request).await;
        assert_eq!(answer.status, 400, "{request}: {answer:?}");
        assert!(!answer.error().is_empty());
    }
    let servers = rest.post("/describeServers", &json!({})).await;
    assert_eq!(servers.list("Servers").len(), 20);
    let counted: i64 =
        servers.list("Servers").iter().map(|server| server["VirtualSessionCount"].as_i64().expect("a count")).sum();
    assert_eq!(counted, 5, "counts are of now, not of the last report");
    sessions.delete_namespace().await;
}

#[tokio::test]
async fn a_session_with_requirements_is_placed_by_them_or_refused_in_the_same_words_everywhere() {
    let stand = Stand::fake().await;
    let (sessions, rest) = tenant(&stand, "requirements").await;
    let picky = |requirements: &str| {
        let mut item = desktop("picky", "ann");
        item["Requirements"] = json!(requirements);
        item
    };
    // Every eighth of the made-up servers.
    let id = rest.create(picky("server:Host.Os.Version = '12'")).await;
    rest.until_state(&id, "READY").await;
    let placed = stand.all_sessions().await.into_iter().find(|session| session.id() == id).expect("it is there");
    let server = stand.servers().get(placed.server_name().expect("it has one")).await.expect("it is there");
    let os = server.status.and_then(|status| status.host?.os).expect("it has reported its facts");
    assert_eq!((os.name.as_str(), os.version.as_str()), ("Debian GNU/Linux", "12"));
    rest.delete(&id, "ann").await;

    let refusal = async |requirements: &str| {
        let answer = rest.post("/createSessions", &json!([picky(requirements)])).await;
        assert_eq!((answer.status, answer.successful().len()), (200, 0), "{answer:?}");
        answer.unsuccessful()[0]["FailureReason"].as_str().expect("a reason").to_owned()
    };
    let nowhere = refusal("server:Host.Os.Name = 'Plan 9'").await;
    assert!(nowhere.starts_with("No DCV server found"), "{nowhere}");

    let unquoted = "tag:pool = render";
    let reason = refusal(unquoted).await;
    assert!(reason.contains("at character 12") && reason.contains("'render'"), "{reason}");
    sessions.create("picky", &json!({"requirements": unquoted})).await;
    let session = sessions.until_finished("picky").await;
    assert_eq!(state_reason(&session), reason);
    assert_eq!(condition(&session, "Finished"), "True/Failed");
    assert_eq!(condition(&session, "Stalled"), "True/InvalidRequirements");
    assert_eq!(session.server_name(), None);
    sessions.delete_namespace().await;
}

#[tokio::test]
async fn tokens_outlive_a_broker_and_every_replica_answers_the_same() {
    let stand = Stand::fake().await;
    let (sessions, rest) = tenant(&stand, "replicas").await;
    let urls = stand.broker_urls();
    let [one, two] = [rest.at(&urls[0]), rest.at(&urls[1])];
    // What one has accepted the other knows at once.
    for number in 0..10 {
        let (writer, reader) = if number % 2 == 0 { (&one, &two) } else { (&two, &one) };
        let id = writer.create(desktop("seen at once", "ann")).await;
        assert!(reader.describe(&id).await.is_some(), "the other replica does not know {id}");
        writer.until_state(&id, "READY").await;
        writer.delete(&id, "ann").await;
        let after = writer.describe(&id).await;
        assert!(after.as_ref().is_none_or(|session| session["State"] != "READY"), "{after:?}");
    }
    let id = one.create(desktop("stays", "ann")).await;
    one.until_state(&id, "READY").await;

    let killed = stand.role("broker-1").kill().await;
    // The balancer notices a dead broker within a second or two, clients try again.
    eventually("the balancer to use the other broker", seconds(10), async || {
        rest.try_post("/describeSessions", &json!({})).await.map_err(|error| error.to_string())
    })
    .await;
    assert!(two.describe(&id).await.is_some());
    killed.restart().await;
    let back = eventually("the killed broker to be back", seconds(20), async || {
        let answer = one.try_post("/describeSessions", &json!({})).await.map_err(|error| error.to_string())?;
        if answer.status == 200 { Ok(answer) } else { Err(format!("{answer:?}")) }
    })
    .await;
    let other = two.post("/describeSessions", &json!({})).await;
    assert_eq!(back.list("Sessions"), other.list("Sessions"));
    let ids = async |broker: &LoggedIn| {
        let answer = broker.post("/describeServers", &json!({})).await;
        answer.list("Servers").iter().map(|server| server["Id"].to_string()).collect::<Vec<_>>()
    };
    assert_eq!(ids(&one).await, ids(&two).await);
    sessions.delete_namespace().await;
}

#[tokio::test]
async fn what_is_deleted_by_rest_is_shown_for_the_time_of_the_setting_and_by_kubectl_not_at_all() {
    const NOT: &str = "--delete-session-duration-seconds=0";
    const SHOWN: &str = "--delete-session-duration-seconds=5";
    let stand = Stand::fake().await;
    let broker = stand.role("broker-1").kill().await.restart_without(&[NOT]).await;
    let broker = broker.kill().await.restart_with(&[SHOWN]).await;
    let (sessions, rest) = tenant(&stand, "retention").await;
    let rest = rest.at(&stand.broker_urls()[0]);
    let by_rest = rest.create(desktop("by REST", "ann")).await;
    let by_kubectl = rest.create(desktop("by kubectl", "ann")).await;
    for id in [&by_rest, &by_kubectl] {
        rest.until_state(id, "READY").await;
    }
    rest.delete(&by_rest, "ann").await;
    let deleted = rest.until_state(&by_rest, "DELETED").await;
    assert!(deleted.get("StateReason").is_some(), "{deleted}");
    let again = rest.post("/deleteSessions", &json!([{"SessionId": by_rest, "Owner": "ann"}])).await;
    assert_eq!(again.successful(), &vec![json!({"SessionId": by_rest, "State": "DELETED"})]);

    let object = stand.all_sessions().await.into_iter().find(|session| session.id() == by_kubectl);
    let name = object.expect("it is there").name_any();
    stand.kubectl(&["delete", "dcvsession", "-n", &sessions.namespace, &name], "").await.expect("it can be deleted");
    assert_eq!(rest.describe(&by_kubectl).await, None, "kubectl has waited until the object was gone");

    rest.until_gone(&by_rest).await;
    let object = stand.all_sessions().await.into_iter().find(|session| session.id() == by_rest);
    assert!(object.expect("its object stays longer").is_finished());
    sessions.delete_namespace().await;
    let broker = broker.kill().await.restart_without(&[SHOWN]).await;
    broker.kill().await.restart_with(&[NOT]).await;
}
