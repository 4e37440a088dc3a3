//! `UpdateSessionPermissions`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::*;

const VIEW: &str = "[permissions]\n%owner% allow builtin\nbob allow display";

fn file(text: &str) -> String {
    STANDARD.encode(text)
}

fn update(id: &str, text: &str) -> Value {
    json!({"SessionId": id, "Owner": "ann", "PermissionsFile": file(text)})
}

#[tokio::test]
async fn permissions_are_replaced_and_each_failure_is_told_by_itself() {
    let broker = Broker::new(Rules::default()).await;
    broker.put_server("s1", json!({}), json!({}));
    broker.put_session("a", ready_on("s1"));
    broker.put_session("waiting", json!({}));
    let mut closing = ready_on("s1");
    merge(&mut closing, json!({"spec": {"desiredState": "Closed"}}));
    broker.put_session("closing", closing);
    broker.put_session("over", finished("DELETED", "Closed", NOW));
    let mut other = ready_on("s1");
    merge(&mut other, json!({"metadata": {"namespace": "blue"}}));
    broker.put_session("other", other);
    let mut alias = update("waiting", "");
    merge(&mut alias, json!({"PermissionFile": file(VIEW), "PermissionsFile": null}));
    let with = |changes: Value| {
        let mut item = update("a", VIEW);
        merge(&mut item, changes);
        item
    };
    let answer = broker
        .put(
            "/sessionPermissions",
            json!([
                update("a", VIEW),
                alias,
                with(json!({"Owner": "bob"})),
                with(json!({"Owner": null})),
                with(json!({"SessionId": ""})),
                with(json!({"PermissionsFile": ""})),
                with(json!({"PermissionsFile": "/dcv/permissions.file"})),
                update("a", "[permissions]\nbob may fly"),
                update("none", VIEW),
                update("other", VIEW),
                update("closing", VIEW),
                update("over", VIEW),
            ]),
        )
        .await;
    assert_eq!(answer["SuccessfulList"], json!([{"SessionId": "a"}, {"SessionId": "waiting"}]));
    let failed = |id: &str, reason: &str| json!({"SessionId": id, "FailureReason": reason});
    let no_such = "The requested dcvSession does not exist";
    let expected = json!([
        failed("a", "Owner does not match the owner of the session"),
        failed("a", "Owner is required"),
        failed("", "SessionId is required"),
        failed("a", "PermissionsFile is required"),
        failed("a", "PermissionsFile must be the base64 of the file's text, not a path"),
        failed("a", "PermissionsFile: line 2: expected an actor, then allow, disallow or deny"),
        failed("none", no_such),
        failed("other", no_such),
        failed("closing", "The session is being deleted"),
        failed("over", "The session is over, nobody can connect to it any more"),
    ]);
    assert_eq!(answer["UnsuccessfulList"], expected);
    assert!(uuid::Uuid::try_parse(answer["RequestId"].as_str().unwrap()).is_ok());
    let mut writes = broker.writes();
    writes.sort();
    assert_eq!(writes, [format!("permit a {VIEW}"), format!("permit waiting {VIEW}")]);
}

#[tokio::test]
async fn of_two_files_for_one_session_the_later_one_counts() {
    let broker = Broker::new(Rules::default()).await;
    broker.put_session("a", json!({}));
    let texts: Vec<_> = (0..20).map(|number| format!("# {number}\n")).collect();
    let items: Vec<_> = texts.iter().map(|text| update("a", text)).collect();
    broker.put("/sessionPermissions", json!(items)).await;
    let expected: Vec<_> = texts.iter().map(|text| format!("permit a {text}")).collect();
    assert_eq!(broker.writes(), expected);
}

#[tokio::test]
async fn the_clusters_refusal_is_told_and_our_faults_are_not() {
    let broker = Broker::new(Rules::default()).await;
    broker.put_session("a", json!({}));
    for (refusal, reason) in [
        (StoreError::Refused("The session has ended meanwhile".into()), "The session has ended meanwhile"),
        (StoreError::NotFound("session red/a".into()), "The requested dcvSession does not exist"),
        (StoreError::Late("secret host 10.0.0.9"), "The session could not be changed, try again"),
    ] {
        *broker.memory.refusal.lock().unwrap() = Some(refusal);
        let answer = broker.put("/sessionPermissions", json!([update("a", VIEW)])).await;
        assert_eq!(answer["UnsuccessfulList"], json!([{"SessionId": "a", "FailureReason": reason}]));
    }
}
