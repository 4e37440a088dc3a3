//! The documented contract of the REST API, seen from outside: operations, fields, spellings, errors and pages.
//!
//! What an answer may hold at all is judged by the harness, for every answer of every test (`e2e::contract`).

use std::collections::BTreeSet;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use e2e::Stand;
use e2e::eventually;
use e2e::rest::Answer;
use e2e::rest::LoggedIn;
use e2e::seconds;
use e2e::session::Sessions;
use reqwest::Method;
use serde_json::Value;
use serde_json::json;

const UNKNOWN_SESSION: &str = "The requested dcvSession does not exist";
const NO_SERVER: &str = "No DCV server found for the given criteria";

/// Operations whose body is a list.
const LISTS: [(Method, &str); 2] = [(Method::POST, "/createSessions"), (Method::POST, "/deleteSessions")];

/// A tenant: a namespace with a client.
async fn tenant(stand: &Stand, word: &str) -> (Sessions, LoggedIn) {
    let sessions = stand.namespace(word).await;
    let client = stand.rest_client(&sessions.namespace, json!({})).await;
    (sessions, client.log_in().await.expect("the client logs in"))
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text"))
}

fn ids(list: &[Value]) -> Vec<String> {
    list.iter().map(|object| text(&object["Id"]).to_owned()).collect()
}

/// The answer without its id, which the harness has looked at.
fn without_id(answer: Answer) -> Value {
    assert_eq!(answer.status, 200, "{answer:?}");
    let mut body = answer.body;
    body.as_object_mut().expect("an object").remove("RequestId").expect("every answer has an id");
    body
}

/// The one item of `createSessions` that failed, and why.
async fn refusal(rest: &LoggedIn, item: &Value) -> (Value, String) {
    let answer = rest.post("/createSessions", &json!([item])).await;
    assert_eq!((answer.status, answer.successful().len()), (200, 0), "{item}: {answer:?}");
    let [failed] = &answer.unsuccessful()[..] else { panic!("{item}: {answer:?}") };
    (failed["CreateSessionRequestData"].clone(), text(&failed["FailureReason"]).to_owned())
}

#[tokio::test]
async fn sessions_are_created_described_connected_to_and_deleted_as_in_the_guides_examples() {
    let stand = Stand::fake().await;
    let (sessions, rest) = tenant(&stand, "guide").await;
    let on_linux = "server:Host.Os.Family = 'linux' and server:Host.Memory.TotalBytes > 1024E6";
    let console = json!({
        "Name": "console", "Owner": "ann", "Type": "CONSOLE", "MaxConcurrentClients": 1,
        "PermissionsFile": "/dcv/permissions.file", "Requirements": "server:Host.Os.Family = 'windows'",
    });
    let plain = json!({
        "Name": "virtual", "Owner": "ann", "Type": "VIRTUAL", "AutorunFile": "myapp.sh", "MaxConcurrentClients": 1,
        "DcvGlEnabled": false, "Requirements": on_linux,
    });
    let full = json!({
        "Name": "virtual", "Owner": "ann", "Type": "VIRTUAL", "InitFilePath": "/dcv/script.sh",
        "AutorunFile": "myapp.sh", "AutorunFileArguments": ["argument1", "argument2"], "MaxConcurrentClients": 1,
        "DcvGlEnabled": false, "Requirements": on_linux, "EnqueueRequest": true, "DisableRetryOnFailure": true,
        "StorageRoot": "/storage/root", "PermissionsFile": STANDARD.encode("[permissions]\n%owner% allow builtin\n"),
    });
    let answer = rest.post("/createSessions", &json!([console, plain, full])).await;
    // The guide's path is no base64; the item fails alone and is echoed.
    let [failed] = &answer.unsuccessful()[..] else { panic!("{answer:?}") };
    assert_eq!(failed["CreateSessionRequestData"], console);
    assert!(text(&failed["FailureReason"]).contains("PermissionsFile"), "{failed}");
    let [plain, full] = &answer.successful()[..] else { panic!("{answer:?}") };
    for made in [plain, full] {
        assert_eq!((text(&made["State"]), text(&made["Substate"])), ("CREATING", "SESSION_PLACING"));
        assert_eq!((text(&made["Name"]), text(&made["Owner"]), text(&made["Type"])), ("virtual", "ann", "VIRTUAL"));
        assert_eq!(made["MaxConcurrentClients"], 1);
        assert!(uuid::Uuid::parse_str(text(&made["Id"])).is_ok(), "{made}");
    }
    let ready = rest.until_state(text(&full["Id"]), "READY").await;
    rest.until_state(text(&plain["Id"]), "READY").await;
    assert_eq!(text(&ready["StorageRoot"]), "/storage/root");

    let request = json!({"SessionIds": [full["Id"]], "Filters": [
        {"Key": "tag:dcv:os-family", "Value": "linux"}, {"Key": "owner", "Value": "ann"},
    ]});
    assert_eq!(without_id(rest.post("/describeSessions", &request).await), json!({"Sessions": [ready]}));
    let server = text(&ready["Server"]["Id"]);
    let request = json!({"ServerIds": [server], "MaxResults": 1, "NextToken": null});
    let servers = rest.post("/describeServers", &request).await;
    let [server] = &servers.list("Servers")[..] else { panic!("{servers:?}") };
    for field in ["Id", "Ip", "Hostname", "DefaultDnsName", "Port", "WebUrlPath", "Endpoints", "Tags"] {
        assert_eq!(ready["Server"][field], server[field], "{field}");
    }
    assert_eq!(server["Host"]["Os"]["Family"], "linux");

    let data = rest.connection_data(text(&full["Id"]), "DOMAIN%5Cbob").await;
    assert_eq!(data.body["Session"], ready, "{data:?}");
    let token: Vec<_> = text(&data.body["ConnectionToken"]).split('.').collect();
    let payload = URL_SAFE_NO_PAD.decode(token[1]).expect("the claims are base64");
    let claims: Value = serde_json::from_slice(&payload).expect("the claims are JSON");
    assert_eq!(claims["dcvSessionId"], full["Id"]);
    assert_eq!((text(&claims["dcvSessionOwner"]), text(&claims["dcvSessionUser"])), ("ann", "DOMAIN\\bob"));
    let life = claims["exp"].as_i64().zip(claims["iat"].as_i64()).map(|(end, begin)| end - begin);
    assert_eq!(life, Some(3600), "{claims}");

    let request = json!([
        {"SessionId": plain["Id"], "Owner": "ann", "Force": true}, {"SessionId": full["Id"], "Owner": "ann"},
    ]);
    let expected = json!({
        "SuccessfulList": [
            {"SessionId": plain["Id"], "State": "DELETING"}, {"SessionId": full["Id"], "State": "DELETING"},
        ],
        "UnsuccessfulList": [],
    });
    assert_eq!(without_id(rest.post("/deleteSessions", &request).await), expected);
    rest.until_gone(text(&full["Id"])).await;
    sessions.delete_namespace().await;
}

#[tokio::test]
async fn nothing_asked_for_is_answered_with_empty_lists() {
    let stand = Stand::fake().await;
    let (sessions, rest) = tenant(&stand, "empty").await;
    assert_eq!(without_id(rest.post("/describeSessions", &json!({})).await), json!({"Sessions": []}));
    let nobody = json!({"ServerIds": [uuid::Uuid::new_v4().to_string()]});
    assert_eq!(without_id(rest.post("/describeServers", &nobody).await), json!({"Servers": []}));
    for (method, path) in LISTS {
        let answer = rest.send(method, path, "[]").await;
        assert_eq!(without_id(answer), json!({"SuccessfulList": [], "UnsuccessfulList": []}), "{path}");
    }
    sessions.delete_namespace().await;
}

#[tokio::test]
async fn requests_are_read_in_every_spelling_and_echoed_as_sent_in_that_of_the_api_file() {
    let stand = Stand::fake().await;
    let (sessions, rest) = tenant(&stand, "spellings").await;
    // No such type, so each fails and is echoed.
    for (sent, echoed) in [
        (json!({}), json!({})),
        (json!({"Name": null, "InitFile": null, "AutorunFileArguments": null}), json!({})),
        (
            json!({"EnqueueRequest": false, "AutorunFileArguments": []}),
            json!({"EnqueueRequest": false, "AutorunFileArguments": []}),
        ),
        (json!({"Name": "", "Requirements": ""}), json!({"Name": "", "Requirements": ""})),
        (json!({"Unknown": {"x": [1]}, "name": "lower"}), json!({})),
        (
            json!({"MaxConcurrents": 3, "DcvGLEnabled": true, "PermissionFile": "YQ==", "InitFilePath": "/a"}),
            json!({"MaxConcurrentClients": 3, "DcvGlEnabled": true, "PermissionsFile": "YQ==", "InitFilePath": "/a"}),
        ),
        (json!({"MaxConcurrents": 3, "MaxConcurrentClients": 4}), json!({"MaxConcurrentClients": 4})),
        (json!({"InitFilePath": "/a", "InitFile": "b"}), json!({"InitFilePath": "/a", "InitFile": "b"})),
    ] {
        let typed = |item: &Value| {
            let mut item = item.clone();
            item["Type"] = json!("NONE");
            item
        };
        let (echo, _) = refusal(&rest, &typed(&sent)).await;
        assert_eq!(echo, typed(&echoed), "of {sent}");
    }
    let file = STANDARD.encode("[permissions]\n%owner% allow builtin\n");
    // An alias means what the name means.
    for (item, field, value) in [
        (json!({"MaxConcurrents": 3}), "MaxConcurrentClients", json!(3)),
        (json!({"MaxConcurrents": 3, "MaxConcurrentClients": 4}), "MaxConcurrentClients", json!(4)),
        (json!({"Type": "virtual"}), "Type", json!("VIRTUAL")),
        (json!({"Type": "Virtual", "StorageRoot": "%home%/x"}), "StorageRoot", json!("%home%/x")),
        (json!({"DcvGLEnabled": true, "PermissionFile": file, "InitFilePath": "/dcv/script.sh"}), "Name", json!("n")),
    ] {
        let mut whole = json!({"Name": "n", "Owner": "ann", "Type": "VIRTUAL"});
        whole.as_object_mut().expect("an object").extend(item.as_object().expect("an object").clone());
        let answer = rest.post("/createSessions", &json!([whole])).await;
        let [made] = &answer.successful()[..] else { panic!("{whole}: {answer:?}") };
        assert_eq!(made[field], value, "{whole}");
    }
    let all = rest.post("/describeSessions", &json!({"Unknown": 1, "SessionIds": null, "Filters": []})).await;
    let spellings = stand.all_sessions().await;
    assert_eq!((all.list("Sessions").len(), spellings.len()), (5, 5));
    let of_aliases = spellings.iter().find(|session| session.spec.permissions.is_some()).expect("it was read");
    assert_eq!(of_aliases.spec.dcv_gl_enabled, Some(true));
    assert_eq!(of_aliases.spec.init_file.as_deref(), Some("dcv/script.sh"));
    let id = &all.list("Sessions")[0]["Id"];
    let deleted =
        rest.post("/deleteSessions", &json!([{"SessionId": id, "Owner": "ann", "Force": null, "New": 1}])).await;
    assert_eq!(deleted.successful(), &vec![json!({"SessionId": id, "State": "DELETING"})]);
    sessions.delete_namespace().await;
}

#[tokio::test]
async fn a_request_that_is_not_of_the_documented_form_is_bad_input_as_a_whole() {
    let stand = Stand::fake().await;
    let (sessions, rest) = tenant(&stand, "structure").await;
    let wrong_lists = ["", "null", "{}", "[", "\"x\"", "[1]", "[null]", "[[]]", "[{\"SessionId\": 1, \"Name\": 1}]"];
    for (method, path) in LISTS {
        for body in wrong_lists {
            let answer = rest.send(method.clone(), path, body).await;
            assert_eq!(answer.status, 400, "{path} {body}: {answer:?}");
        }
    }
    for body in [
        r#"[{"MaxConcurrentClients": "3"}]"#,
        r#"[{"AutorunFileArguments": [null]}]"#,
        r#"[{"EnqueueRequest": "true"}]"#,
        r#"[{"MaxConcurrentClients": 1.5}]"#,
    ] {
        let answer = rest.send(Method::POST, "/createSessions", body).await;
        assert_eq!(answer.status, 400, "{body}: {answer:?}");
    }
    let uuid = uuid::Uuid::new_v4();
    for (path, list) in [("/describeSessions", "SessionIds"), ("/describeServers", "ServerIds")] {
        for good in ["", "null", "{}", "{\"Unknown\": 1}", &format!("{{\"{list}\": [\"{uuid}\"]}}")] {
            let answer = rest.send(Method::POST, path, good).await;
            assert_eq!(answer.status, 200, "{path} {good}: {answer:?}");
        }
        assert_eq!(rest.request_without_body(path).await.status, 200, "{path}");
        for bad in ["[]", "[", "1", "{\"MaxResults\": \"1\"}", "{\"MaxResults\": 1.5}", "{\"NextToken\": 1}"] {
            let answer = rest.send(Method::POST, path, bad).await;
            assert_eq!(answer.status, 400, "{path} {bad}: {answer:?}");
        }
        for ids in ["\"x\"", "[null]", "[1]", "{}"] {
            let answer = rest.send(Method::POST, path, &format!("{{\"{list}\": {ids}}}")).await;
            assert_eq!(answer.status, 400, "{path} {ids}: {answer:?}");
        }
    }
    for filters in
        [r#"[{"Key": "colour", "Value": "red"}]"#, r#"[{"Key": "tag:", "Value": ""}]"#, "[null]", "[1]", "{}"]
    {
        let answer = rest.send(Method::POST, "/describeSessions", &format!("{{\"Filters\": {filters}}}")).await;
        assert_eq!(answer.status, 400, "{filters}: {answer:?}");
    }
    for (method, path, status) in [
        (Method::GET, "/createSessions", 405),
        (Method::PUT, "/describeSessions", 405),
        (Method::POST, "/sessionConnectionData/a/b", 405),
        (Method::POST, "/createsessions", 404),
        (Method::GET, "/", 404),
        (Method::GET, "/sessionConnectionData/a", 404),
    ] {
        let answer = rest.send(method, path, "").await;
        assert_eq!(answer.status, status, "{path}: {answer:?}");
    }
    assert_eq!(stand.all_sessions().await, Vec::new());
    sessions.delete_namespace().await;
}

#[tokio::test]
async fn items_that_cannot_be_done_fail_in_the_documented_words() {
    let stand = Stand::fake().await;
    let (sessions, rest) = tenant(&stand, "reasons").await;
    for (changes, reason) in [
        (json!({"Name": null}), "Name"),
        (json!({"Owner": null}), "Owner"),
        (json!({"Type": null}), "Type"),
        (json!({"Type": "DESKTOP"}), "Type"),
        (json!({"Requirements": "tag:pool = 'nowhere'"}), NO_SERVER),
        (json!({"Requirements": "server:NoSuch = 'x'"}), "Server property server:NoSuch not found"),
        (
            json!({"Requirements": "server:Host.Aws.EC2InstanceId = 'i'"}),
            "Server property server:Host.Aws.EC2InstanceId not found",
        ),
        (json!({"Requirements": "server:Host.Aws.EC2InstanceId = 'i'"}), "server:Host.Aws.Ec2InstanceId"),
        (json!({"Requirements": "tag:pool := 1"}), "Unexpected CONTAINS operator"),
        (json!({"Requirements": "pool = 'office'"}), "tag"),
        (json!({"InitFile": "/a"}), "InitFile"),
        (json!({"InitFile": "a/../../b"}), "InitFile"),
        (json!({"AutorunFile": "/a"}), "AutorunFile"),
        (json!({"AutorunFileArguments": ["a"]}), "AutorunFile"),
        (json!({"AutorunFile": "a", "AutorunFileArguments": vec!["a"; 51]}), "AutorunFileArguments"),
        (json!({"AutorunFile": "a", "AutorunFileArguments": ["a".repeat(151)]}), "AutorunFileArguments"),
        (json!({"Type": "CONSOLE", "InitFile": "a"}), "InitFile"),
        (json!({"Type": "CONSOLE", "DcvGlEnabled": true}), "DcvGlEnabled"),
        (json!({"MaxConcurrentClients": 0}), "MaxConcurrentClients"),
        (json!({"PermissionsFile": "/dcv/permissions.file"}), "PermissionsFile"),
    ] {
        let mut item = json!({"Name": "n", "Owner": "ann", "Type": "VIRTUAL"});
        item.as_object_mut().expect("an object").extend(changes.as_object().expect("an object").clone());
        let (_, text) = refusal(&rest, &item).await;
        assert!(text.contains(reason), "{changes}: {text}");
    }
    // A console autorun file is for Windows: no Linux server suits it.
    let console = json!({
        "Name": "n", "Owner": "ann", "Type": "CONSOLE", "AutorunFile": "a",
        "Requirements": "server:Host.Os.Family = 'linux'",
    });
    assert!(refusal(&rest, &console).await.1.contains(NO_SERVER));
    assert_eq!(stand.all_sessions().await, Vec::new());

    let id = rest.create(json!({"Name": "n", "Owner": "ann", "Type": "VIRTUAL"})).await;
    let delete = |id: &str, owner: &str| json!({"SessionId": id, "Owner": owner});
    let unknown = uuid::Uuid::new_v4().to_string();
    let requests = json!([delete(&unknown, "ann"), delete(&id, "bob"), {"Owner": "ann"}, {"SessionId": id}]);
    let answer = rest.post("/deleteSessions", &requests).await;
    let [absent, not_theirs, no_id, no_owner] = &answer.unsuccessful()[..] else { panic!("{answer:?}") };
    assert_eq!(absent, &json!({"SessionId": unknown, "FailureReason": UNKNOWN_SESSION}));
    assert_ne!(text(&not_theirs["FailureReason"]), UNKNOWN_SESSION, "clients take this text for success");
    assert!(text(&not_theirs["FailureReason"]).contains("Owner"), "{not_theirs}");
    assert!(text(&no_id["FailureReason"]).contains("SessionId"), "{no_id}");
    assert!(text(&no_owner["FailureReason"]).contains("Owner"), "{no_owner}");
    assert!(no_id.get("SessionId").is_none(), "what was not sent is not echoed: {no_id}");

    let answer = rest.connection_data(&unknown, "ann").await;
    assert_eq!((answer.status, answer.error()), (400, UNKNOWN_SESSION));
    let waiting = json!({
        "Name": "n", "Owner": "ann", "Type": "VIRTUAL", "Requirements": "tag:pool = 'nowhere'", "EnqueueRequest": true,
    });
    let waiting = rest.create(waiting).await;
    let answer = rest.connection_data(&waiting, "ann").await;
    assert_eq!(answer.status, 400, "{answer:?}");
    assert!(answer.error().contains("neither in READY"), "{answer:?}");
    sessions.delete_namespace().await;
}

#[tokio::test]
async fn connections_and_their_end_are_told_with_numbers_and_times() {
    let stand = Stand::fake().await;
    let (sessions, rest) = tenant(&stand, "connections").await;
    let id = rest.create(json!({"Name": "n", "Owner": "ann", "Type": "VIRTUAL"})).await;
    let before = rest.until_state(&id, "READY").await;
    assert_eq!(before["NumOfConnections"], 0);
    assert_eq!(before.get("LastDisconnectionTime"), None, "nobody was ever connected");
    let described = async |number: u32| {
        stand.fake_host().set_connections(&id, number).await;
        eventually("the number of connections", seconds(60), async || {
            let session = rest.describe(&id).await.ok_or("it is gone")?;
            if session["NumOfConnections"] == number { Ok(session) } else { Err(session.to_string()) }
        })
        .await
    };
    described(2).await;
    let after = described(0).await;
    let begin = text(&before["CreationTime"]);
    let end = text(&after["LastDisconnectionTime"]);
    assert!(begin <= end, "{after}");
    sessions.delete_namespace().await;
}

/// Every id that `path` lists, page by page, with what happens behind a page.
async fn walk(
    rest: &LoggedIn,
    path: &str,
    list: &str,
    size: usize,
    mut between: impl AsyncFnMut(),
) -> Vec<Vec<String>> {
    let mut request = json!({"MaxResults": size});
    let mut pages = Vec::new();
    loop {
        let page = rest.post(path, &request).await;
        assert_eq!(page.status, 200, "{page:?}");
        pages.push(ids(page.list(list)));
        let Some(token) = page.body.get("NextToken") else { return pages };
        request["NextToken"] = token.clone();
        between().await;
    }
}

#[tokio::test]
async fn pages_cover_everything_once_whatever_changes_meanwhile() {
    let stand = Stand::fake().await;
    let (sessions, rest) = tenant(&stand, "pages").await;
    let desktop = |owner: &str| json!({"Name": "n", "Owner": owner, "Type": "VIRTUAL"});
    let items: Vec<_> = ["ann", "bob", "ann", "bob", "ann", "bob", "ann"].into_iter().map(desktop).collect();
    let answer = rest.post("/createSessions", &json!(items)).await;
    let made: BTreeSet<_> = ids(answer.successful()).into_iter().collect();
    assert_eq!(made.len(), 7, "{answer:?}");
    for url in stand.broker_urls() {
        eventually("every broker to list them", seconds(5), async || {
            let listed = rest.at(&url).post("/describeSessions", &json!({})).await.list("Sessions").len();
            if listed == made.len() { Ok(()) } else { Err(format!("{listed}")) }
        })
        .await;
    }
    for (size, lengths) in [(1, vec![1; 7]), (2, vec![2, 2, 2, 1]), (6, vec![6, 1]), (7, vec![7]), (1000, vec![7])] {
        let pages = walk(&rest, "/describeSessions", "Sessions", size, async || {}).await;
        assert_eq!(pages.iter().map(Vec::len).collect::<Vec<_>>(), lengths, "no empty page at the end");
        assert_eq!(pages.concat().into_iter().collect::<BTreeSet<_>>(), made);
    }
    let servers = walk(&rest, "/describeServers", "Servers", 7, async || {}).await;
    assert_eq!(servers.iter().map(Vec::len).collect::<Vec<_>>(), [7, 7, 6]);
    assert_eq!(servers.concat().into_iter().collect::<BTreeSet<_>>().len(), 20);

    // What stays is listed once, though others come and go between two pages.
    let order = walk(&rest, "/describeSessions", "Sessions", 1000, async || {}).await.concat();
    let mut step = 0;
    let pages = walk(&rest, "/describeSessions", "Sessions", 2, async || {
        step += 1;
        if step == 1 {
            // The one that the token stands on, and one that was not listed yet.
            for gone in [1, 4] {
                let owner = text(&rest.describe(&order[gone]).await.expect("it is there")["Owner"]).to_owned();
                rest.delete(&order[gone], &owner).await;
                rest.until_gone(&order[gone]).await;
            }
            rest.create(desktop("cid")).await;
        }
    })
    .await
    .concat();
    let stayed: Vec<_> = [0, 2, 3, 5, 6].into_iter().map(|number| &order[number]).collect();
    let seen: Vec<_> = pages.iter().filter(|id| stayed.contains(id)).collect();
    assert_eq!(seen, stayed);
    sessions.delete_namespace().await;
}

#[tokio::test]
async fn a_page_token_is_good_for_its_own_query_only() {
    let stand = Stand::fake().await;
    let (sessions, rest) = tenant(&stand, "page-tokens").await;
    let (other_sessions, other) = tenant(&stand, "page-tokens-other").await;
    let desktop = json!({"Name": "n", "Owner": "ann", "Type": "VIRTUAL"});
    for rest in [&rest, &other] {
        let answer = rest.post("/createSessions", &json!([desktop, desktop, desktop])).await;
        assert_eq!(answer.successful().len(), 3, "{answer:?}");
    }
    let ann = json!([{"Key": "owner", "Value": "ann"}]);
    let first = rest.post("/describeSessions", &json!({"MaxResults": 1, "Filters": ann})).await;
    let token = &first.body["NextToken"];
    let next = rest.post("/describeSessions", &json!({"MaxResults": 2, "Filters": ann, "NextToken": token})).await;
    assert_eq!((next.list("Sessions").len(), next.body.get("NextToken")), (2, None));
    let servers = rest.post("/describeServers", &json!({"MaxResults": 1})).await;
    let server_token = &servers.body["NextToken"];
    for (rest, path, request) in [
        (&rest, "/describeSessions", json!({"NextToken": token})),
        (&rest, "/describeSessions", json!({"NextToken": token, "Filters": [{"Key": "owner", "Value": "bob"}]})),
        (&rest, "/describeSessions", json!({"NextToken": token, "Filters": ann, "SessionIds": [uuid::Uuid::new_v4()]})),
        (&rest, "/describeSessions", json!({"NextToken": server_token})),
        (&rest, "/describeServers", json!({"NextToken": token})),
        (&rest, "/describeServers", json!({"NextToken": "nonsense"})),
        (&rest, "/describeSessions", json!({"MaxResults": 0})),
        (&rest, "/describeSessions", json!({"MaxResults": 1001})),
        (&rest, "/describeServers", json!({"MaxResults": -1})),
        (&rest, "/describeServers", json!({"MaxResults": 1001})),
        (&other, "/describeSessions", json!({"NextToken": token, "Filters": ann})),
    ] {
        let answer = rest.post(path, &request).await;
        assert_eq!(answer.status, 400, "{path} {request}: {answer:?}");
    }
    sessions.delete_namespace().await;
    other_sessions.delete_namespace().await;
}

#[tokio::test]
async fn the_api_file_and_health_need_no_token_and_everything_else_does() {
    let stand = Stand::fake().await;
    let rest = stand.rest();
    let (status, type_, file) = rest.text("/dcv-session-manager-api.yaml").await;
    assert_eq!((status, type_.as_str()), (200, "application/yaml"));
    assert_eq!(file, dcv_operator::wire::API_FILE);
    assert_eq!(rest.call_without_token(Method::GET, "/health").await.status, 200);
    let no_token = json!({"error": "No authorization header"});
    for (method, path) in [
        (Method::POST, "/describeSessions"),
        (Method::POST, "/describeServers"),
        (Method::POST, "/createSessions"),
        (Method::POST, "/deleteSessions"),
        (Method::GET, "/sessionConnectionData/aSession/aOwner"),
    ] {
        let answer = rest.call_without_token(method, path).await;
        assert_eq!((answer.status, &answer.body), (401, &no_token), "{path}");
    }
}
