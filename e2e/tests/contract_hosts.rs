//! The documented contract of the calls that reach a host: permissions, screenshots, and opening and closing servers.
//!
//! As in `contract.rs`, what an answer may hold at all is judged by the harness.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use e2e::Stand;
use e2e::rest::Answer;
use e2e::rest::LoggedIn;
use e2e::session::Sessions;
use reqwest::Method;
use serde_json::Value;
use serde_json::json;

const UNKNOWN_SESSION: &str = "The requested dcvSession does not exist";

/// Each operation, and what names its object.
const OPERATIONS: [(Method, &str); 4] = [
    (Method::PUT, "/sessionPermissions"),
    (Method::POST, "/getSessionScreenshots"),
    (Method::POST, "/openServers"),
    (Method::POST, "/closeServers"),
];

/// A tenant whose client may open and close servers.
async fn tenant(stand: &Stand, word: &str) -> (Sessions, LoggedIn) {
    let sessions = stand.namespace(word).await;
    let client = stand.rest_client(&sessions.namespace, json!({"manageServers": true})).await;
    (sessions, client.log_in().await.expect("the client logs in"))
}

async fn ready_session(rest: &LoggedIn) -> Value {
    let id = rest.create(json!({"Name": "n", "Owner": "ann", "Type": "VIRTUAL"})).await;
    rest.until_state(&id, "READY").await
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text"))
}

fn unknown() -> String {
    uuid::Uuid::new_v4().to_string()
}

/// Sends a list of items to an operation, which must take it.
async fn call(rest: &LoggedIn, (method, path): (Method, &str), items: &Value) -> Answer {
    let answer = rest.send(method, path, &items.to_string()).await;
    assert_eq!(answer.status, 200, "{items}: {answer:?}");
    answer
}

#[tokio::test]
async fn calls_that_reach_hosts_take_lists_and_nothing_else() {
    let stand = Stand::fake().await;
    let (sessions, rest) = tenant(&stand, "host-structure").await;
    for (method, path) in OPERATIONS {
        let answer = call(&rest, (method.clone(), path), &json!([])).await;
        assert_eq!((answer.successful().len(), answer.unsuccessful().len()), (0, 0), "{path}");
        for body in ["", "null", "{}", "[", "[1]", "[null]", r#"[{"SessionId": 1, "ServerId": 1}]"#] {
            let answer = rest.send(method.clone(), path, body).await;
            assert_eq!(answer.status, 400, "{path} {body}: {answer:?}");
        }
        let answer = stand.rest().call_without_token(method, path).await;
        assert_eq!((answer.status, answer.error()), (401, "No authorization header"), "{path}");
        assert_eq!(rest.send(Method::DELETE, path, "").await.status, 405, "{path}");
    }
    for (operation, body) in [
        ((Method::POST, "/getSessionScreenshots"), r#"[{"MaxWidth": "1"}]"#),
        ((Method::POST, "/getSessionScreenshots"), r#"[{"MaxHeight": 1.5}]"#),
        ((Method::POST, "/closeServers"), r#"[{"Force": "false"}]"#),
        ((Method::PUT, "/sessionPermissions"), r#"[{"PermissionsFile": 1}]"#),
    ] {
        assert_eq!(rest.send(operation.0, operation.1, body).await.status, 400, "{body}");
    }
    sessions.delete_namespace().await;
}

#[tokio::test]
async fn permissions_are_updated_as_in_the_guides_example_and_refused_by_item() {
    let stand = Stand::fake().await;
    let (sessions, rest) = tenant(&stand, "host-permissions").await;
    let session = ready_session(&rest).await;
    let id = text(&session["Id"]);
    let file = STANDARD.encode("[permissions]\n%owner% allow builtin\n");
    let absent = unknown();
    let items = json!([
        {"SessionId": id, "Owner": "ann", "PermissionsFile": file, "New": 1},
        {"SessionId": id, "Owner": "ann", "PermissionFile": file},
        {"SessionId": absent, "Owner": "ann", "PermissionsFile": file},
        {"SessionId": id, "Owner": "bob", "PermissionsFile": file},
        {"SessionId": id, "Owner": "ann", "PermissionsFile": "/dcv/permissions.file"},
        {"SessionId": id, "Owner": "ann", "PermissionsFile": null},
        {"SessionId": id, "PermissionsFile": file},
        {"Owner": "ann", "PermissionsFile": file},
    ]);
    let answer = call(&rest, (Method::PUT, "/sessionPermissions"), &items).await;
    assert_eq!(answer.successful(), &vec![json!({"SessionId": id}); 2]);
    let [absent_item, not_theirs, path, no_file, no_owner, no_id] = &answer.unsuccessful()[..] else {
        panic!("{answer:?}")
    };
    assert_eq!(absent_item, &json!({"SessionId": absent, "FailureReason": UNKNOWN_SESSION}));
    assert_ne!(text(&not_theirs["FailureReason"]), UNKNOWN_SESSION);
    for (item, field) in [
        (not_theirs, "Owner"),
        (path, "PermissionsFile"),
        (no_file, "PermissionsFile"),
        (no_owner, "Owner"),
        (no_id, "SessionId"),
    ] {
        assert!(text(&item["FailureReason"]).contains(field), "{item}");
    }
    assert_eq!(no_id.get("SessionId"), None, "what was not sent is not echoed");
    sessions.delete_namespace().await;
}

#[tokio::test]
async fn screenshots_are_of_the_documented_form_and_size() {
    let stand = Stand::fake().await;
    let (sessions, rest) = tenant(&stand, "host-screenshots").await;
    let session = ready_session(&rest).await;
    let id = text(&session["Id"]);
    let absent = unknown();
    let items = json!([
        {"SessionId": id},
        {"SessionId": id, "MaxWidth": null, "MaxHeight": null, "New": 1},
        {"SessionId": id, "MaxWidth": 40, "MaxHeight": 30},
        {"SessionId": id, "MaxWidth": 0},
        {"SessionId": id, "MaxHeight": -1},
        {"SessionId": absent, "MaxWidth": null},
        {},
    ]);
    let answer = call(&rest, (Method::POST, "/getSessionScreenshots"), &items).await;
    let sizes: Vec<_> = answer.successful().iter().map(|item| size(&item["SessionScreenshot"], id)).collect();
    let [usual, also_usual, small] = sizes[..] else { panic!("{answer:?}") };
    assert_eq!(usual, also_usual, "null is absent");
    assert!(usual.0 <= 160 && usual.1 <= 100, "{usual:?}");
    assert!(small.0 <= 40 && small.1 <= 30, "{small:?}");
    let [no_width, no_height, not_there, no_id] = &answer.unsuccessful()[..] else { panic!("{answer:?}") };
    for (item, request, field) in [
        (no_width, json!({"SessionId": id, "MaxWidth": 0}), "MaxWidth"),
        (no_height, json!({"SessionId": id, "MaxHeight": -1}), "MaxHeight"),
        (no_id, json!({}), "SessionId"),
    ] {
        assert_eq!(item["GetSessionScreenshotRequestData"], request);
        assert!(text(&item["FailureReason"]).contains(field), "{item}");
    }
    let expected = json!({
        "GetSessionScreenshotRequestData": {"SessionId": absent}, "FailureReason": "Dcv session not found.",
    });
    assert_eq!(not_there, &expected);
    sessions.delete_namespace().await;
}

/// Width and height of the one picture, of which the head is read: a PNG, as by default.
fn size(screenshot: &Value, id: &str) -> (u32, u32) {
    assert_eq!(text(&screenshot["SessionId"]), id);
    let [image] = &screenshot["Images"].as_array().expect("images")[..] else { panic!("{screenshot}") };
    assert_eq!((text(&image["Format"]), &image["Primary"]), ("png", &json!(true)));
    let data = STANDARD.decode(text(&image["Data"])).expect("base64");
    assert_eq!(&data[..8], b"\x89PNG\r\n\x1a\n");
    let number = |at: usize| u32::from_be_bytes(data[at..at + 4].try_into().expect("four bytes"));
    (number(16), number(20))
}

#[tokio::test]
async fn servers_are_closed_and_opened_as_in_the_guides_examples() {
    let stand = Stand::fake().await;
    let (sessions, rest) = tenant(&stand, "host-servers").await;
    let session = ready_session(&rest).await;
    let server = text(&session["Server"]["Id"]);
    let absent = unknown();
    let close = (Method::POST, "/closeServers");
    let items =
        json!([{"ServerId": server}, {"ServerId": server, "Force": false}, {"ServerId": absent, "Force": true}, {}]);
    let answer = call(&rest, close.clone(), &items).await;
    let [first, second, not_there, no_id] = &answer.unsuccessful()[..] else { panic!("{answer:?}") };
    assert_eq!(first["CloseServerRequestData"], json!({"ServerId": server}), "an unsent Force stays absent");
    assert_eq!(second["CloseServerRequestData"], json!({"ServerId": server, "Force": false}));
    assert_eq!(first["FailureCode"], "DCV_SERVER_HAS_SESSIONS");
    let not_found = |request: &str, item: Value| {
        let reason = "Dcv server not found.";
        json!({request: item, "FailureCode": "DCV_SERVER_NOT_FOUND", "FailureReason": reason})
    };
    assert_eq!(not_there, &not_found("CloseServerRequestData", json!({"ServerId": absent, "Force": true})));
    assert_eq!(no_id["CloseServerRequestData"], json!({}));
    let still = rest.post("/describeServers", &json!({"ServerIds": [server]})).await;
    assert_eq!(still.list("Servers")[0]["Availability"], "AVAILABLE");

    let done = vec![json!({"ServerId": server})];
    for _ in 0..2 {
        let answer = call(&rest, close.clone(), &json!([{"ServerId": server, "Force": true}])).await;
        assert_eq!((answer.successful(), answer.unsuccessful().len()), (&done, 0), "closed twice is closed");
    }
    assert_eq!(rest.describe(text(&session["Id"])).await.expect("it is there")["State"], "READY", "it goes on running");
    let open = (Method::POST, "/openServers");
    for _ in 0..2 {
        let answer = call(&rest, open.clone(), &json!([{"ServerId": server}, {"ServerId": absent}])).await;
        assert_eq!(answer.successful(), &done, "opened twice is open");
        assert_eq!(answer.unsuccessful(), &vec![not_found("OpenServerRequestData", json!({"ServerId": absent}))]);
    }
    sessions.delete_namespace().await;
}
