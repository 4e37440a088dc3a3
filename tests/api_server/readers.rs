//! What readers see: defaults from birth, fields to select by, columns, explanations, and what tools take for progress.

use std::collections::BTreeMap;
use std::pin::pin;

use dcv_operator::api::ApiClient;
use dcv_operator::api::ApiClientSpec;
use dcv_operator::api::DcvServer;
use dcv_operator::api::DcvServerSpec;
use dcv_operator::api::crds;
use futures::TryStreamExt;
use http::Request;
use kube::Client;
use kube::api::ListParams;
use kube::api::PostParams;
use kube::api::WatchEvent;
use kube::api::WatchParams;
use serde_json::Value;
use serde_json::json;

use crate::cluster::admin;
use crate::cluster::in_namespace;
use crate::cluster::kubectl;
use crate::cluster::object;
use crate::cluster::sessions;
use crate::cluster::text;
use crate::cluster::unique;
use crate::cluster::write_status;
use crate::schema::smallest_session;

const EPOCH: &str = "1970-01-01T00:00:00Z";

fn pending() -> Value {
    json!([
        {"type": "Ready", "status": "Unknown", "reason": "Pending", "message": "", "lastTransitionTime": EPOCH},
        {"type": "Reconciling", "status": "True", "reason": "Pending", "message": "", "lastTransitionTime": EPOCH},
    ])
}

#[tokio::test]
#[ignore = "needs an API server"]
async fn a_new_session_is_in_progress_in_the_answer_in_a_get_and_in_a_watch() {
    in_namespace("defaults", async |client, namespace| {
        let api = sessions(&client, &namespace);
        let parameters = WatchParams::default().timeout(30);
        let mut watch = pin!(api.watch(&parameters, "0").await.unwrap());
        let posted = api.create(&PostParams::default(), &object("DcvSession", "a", smallest_session())).await.unwrap();
        let got = api.get("a").await.unwrap();
        let watched = loop {
            if let WatchEvent::Added(session) = watch.try_next().await.unwrap().expect("the watch goes on") {
                break session;
            }
        };
        let status = json!({
            "state": "CREATING", "substate": "SESSION_PLACING", "lastTransitionTime": EPOCH, "conditions": pending(),
        });
        let spec = json!({
            "owner": "ann", "type": "VIRTUAL", "enqueueRequest": true, "disableRetryOnFailure": false, "priority": 0,
            "desiredState": "Running", "restartPolicy": "Never",
        });
        for (how, session) in [("POST", posted), ("GET", got), ("watch", watched)] {
            assert_eq!(session.data["status"], status, "{how}");
            assert_eq!(session.data["spec"], spec, "{how}");
            assert_eq!(kstatus(&serde_json::to_value(&session).unwrap()), "InProgress", "{how}");
        }
    })
    .await;
}

#[tokio::test]
#[ignore = "needs an API server"]
async fn a_new_server_and_a_new_client_are_in_progress_too() {
    let client = admin().await;
    let dry = crate::cluster::dry_create();
    let server = DcvServer::new(&unique("test-new"), DcvServerSpec::default());
    let server = kube::Api::<DcvServer>::all(client.clone()).create(&dry, &server).await.unwrap();
    let server = serde_json::to_value(server).unwrap();
    assert_eq!(server["spec"], json!({}), "a default in the spec would make the agent's create look like a setting");
    assert_eq!(
        server["status"],
        json!({"availability": "UNAVAILABLE", "unavailabilityReason": "UNKNOWN", "conditions": pending()})
    );
    let api_client = ApiClient::new("a", serde_json::from_value::<ApiClientSpec>(json!({})).unwrap());
    let api_client = kube::Api::<ApiClient>::namespaced(client, "default").create(&dry, &api_client).await.unwrap();
    let api_client = serde_json::to_value(api_client).unwrap();
    assert_eq!(api_client["status"], json!({"conditions": pending()}));
    for object in [server, api_client] {
        assert_eq!(kstatus(&object), "InProgress");
    }
}

/// What kstatus (Flux, Helm, kpt) takes an object for. Source: the table of its documentation, in its order.
fn kstatus(object: &Value) -> &'static str {
    if object["metadata"].get("deletionTimestamp").is_some() {
        return "Terminating";
    }
    let observed = object["status"]["observedGeneration"].as_i64();
    if observed.is_some() && observed != object["metadata"]["generation"].as_i64() {
        return "InProgress";
    }
    let conditions = object["status"]["conditions"].as_array();
    let status_of = |name: &str| conditions?.iter().find(|condition| condition["type"] == name)?["status"].as_str();
    match (status_of("Reconciling"), status_of("Stalled"), status_of("Ready")) {
        (Some("True"), _, _) => "InProgress",
        (_, Some("True"), _) => "Failed",
        (_, _, Some("False" | "Unknown")) => "InProgress",
        _ => "Current",
    }
}

#[tokio::test]
#[ignore = "needs an API server"]
async fn sessions_are_selected_by_server_owner_and_state() {
    in_namespace("selectable", async |client, namespace| {
        let api = sessions(&client, &namespace);
        for (name, owner, server) in [("a", "ann", Some("host-1")), ("b", "ann", None), ("c", "bob", Some("host-2"))] {
            let session = object("DcvSession", name, json!({"owner": owner, "type": "VIRTUAL"}));
            api.create(&PostParams::default(), &session).await.unwrap();
            if let Some(server) = server {
                write_status(&api, name, json!({"serverName": server, "state": "READY", "substate": null}))
                    .await
                    .unwrap();
            }
        }
        let selected = async |selector: &str| -> Vec<String> {
            let found = api.list(&ListParams::default().fields(selector)).await.unwrap();
            found.into_iter().map(|session| session.metadata.name.unwrap()).collect()
        };
        assert_eq!(selected("status.serverName=host-1").await, ["a"]);
        assert_eq!(selected("spec.owner=ann").await, ["a", "b"]);
        assert_eq!(selected("status.state=READY").await, ["a", "c"]);
        // A fresh one is found by the state that only its default says.
        assert_eq!(selected("status.state=CREATING").await, ["b"]);
        assert_eq!(selected("spec.owner=ann,status.state=READY").await, ["a"]);
        let undeclared = api.list(&ListParams::default().fields("spec.type=VIRTUAL")).await.unwrap_err();
        assert!(undeclared.to_string().contains("field label not supported"), "{undeclared}");
    })
    .await;
}

/// The table that kubectl prints: columns with their priorities, and the first row.
async fn table(client: &Client, path: &str) -> (Vec<(String, i64)>, Vec<Value>) {
    let request =
        Request::get(path).header("Accept", "application/json;as=Table;v=v1;g=meta.k8s.io").body(Vec::new()).unwrap();
    let table: Value = client.request(request).await.unwrap();
    let column = |column: &Value| (column["name"].as_str().unwrap().to_owned(), column["priority"].as_i64().unwrap());
    let columns = table["columnDefinitions"].as_array().unwrap().iter().map(column).collect();
    (columns, table["rows"][0]["cells"].as_array().unwrap().clone())
}

fn columns(default: &[&str], wide: &[&str]) -> Vec<(String, i64)> {
    let with = |names: &[&str], priority| names.iter().map(|name| ((*name).to_owned(), priority)).collect::<Vec<_>>();
    [with(&["Name"], 0), with(default, 0), with(wide, 1)].concat()
}

/// Every cell but the age, which moves.
fn without_age(mut cells: Vec<Value>, at: usize) -> Vec<Value> {
    assert!(cells[at].as_str().unwrap().ends_with(['s', 'm']), "an age: {}", cells[at]);
    cells.remove(at);
    cells
}

#[tokio::test]
#[ignore = "needs an API server"]
async fn kubectl_get_shows_what_one_wants_to_know() {
    in_namespace("columns", async |client, namespace| {
        let ready = json!([{"type": "Ready", "status": "True", "reason": "AcceptingClients", "message": "",
            "lastTransitionTime": EPOCH}]);
        let api = sessions(&client, &namespace);
        api.create(&PostParams::default(), &object("DcvSession", "a", smallest_session())).await.unwrap();
        let server = json!({"ip": "10.0.0.1", "port": 8444, "webUrlPath": "/"});
        let status = json!({"state": "CREATING", "substate": "PENDING_PREPARATION", "stateReason": "because",
            "serverName": "host-1", "server": server, "numOfConnections": 2, "conditions": ready});
        write_status(&api, "a", status).await.unwrap();
        let path = format!("/apis/dcv-operator.io/v1alpha1/namespaces/{namespace}/dcvsessions");
        let (names, cells) = table(&client, &path).await;
        let wide = ["Ready", "Substate", "Type", "Connections", "Address"];
        assert_eq!(names, columns(&["State", "Owner", "Server", "Reason", "Age"], &wide));
        let expected = json!([
            "a",
            "CREATING",
            "ann",
            "host-1",
            "because",
            "True",
            "PENDING_PREPARATION",
            "VIRTUAL",
            2,
            "10.0.0.1"
        ]);
        assert_eq!(json!(without_age(cells, 5)), expected);

        let api = crate::cluster::api_clients(&client, &namespace);
        let spec = json!({"displayName": "A portal", "manageServers": true});
        api.create(&PostParams::default(), &object("ApiClient", "a", spec)).await.unwrap();
        write_status(&api, "a", json!({"clientId": "id", "conditions": ready})).await.unwrap();
        let path = format!("/apis/dcv-operator.io/v1alpha1/namespaces/{namespace}/apiclients");
        let (names, cells) = table(&client, &path).await;
        let wide = ["Suspended", "All-Namespaces", "Manage-Servers"];
        assert_eq!(names, columns(&["Client-Id", "Display-Name", "Ready", "Reason", "Age"], &wide));
        let expected = json!(["a", "id", "A portal", "True", "AcceptingClients", false, false, true]);
        assert_eq!(json!(without_age(cells, 5)), expected);

        let api = crate::cluster::servers(&client);
        let name = unique("test-columns");
        api.create(&PostParams::default(), &object("DcvServer", &name, json!({"placement": "Closed"}))).await.unwrap();
        let agent = json!({"url": "https://10.0.0.1:8444", "certificateFingerprint": "", "version": "0.1.0"});
        let status = json!({"availability": "UNAVAILABLE", "unavailabilityReason": "SERVER_CLOSED", "ip": "10.0.0.1",
            "virtualSessionCount": 3, "consoleSessionCount": 0, "backend": "vnc", "agent": agent,
            "host": {"os": {"family": "linux", "name": "Debian"}}, "conditions": ready});
        write_status(&api, &name, status).await.unwrap();
        let path = format!("/apis/dcv-operator.io/v1alpha1/dcvservers?fieldSelector=metadata.name%3D{name}");
        let (names, cells) = table(&client, &path).await;
        api.delete(&name, &kube::api::DeleteParams::default()).await.unwrap();
        let wide = ["Ready", "Placement", "OS", "Backend", "Agent"];
        assert_eq!(names, columns(&["Availability", "Reason", "Virtual", "Console", "Address", "Age"], &wide));
        let expected =
            json!([name, "UNAVAILABLE", "SERVER_CLOSED", 3, 0, "10.0.0.1", "True", "Closed", "Debian", "vnc", "0.1.0"]);
        assert_eq!(json!(without_age(cells, 6)), expected);
    })
    .await;
}

/// Every path of a schema below `path`, as kubectl explain takes it, with its description.
fn fields(schema: &Value, path: &str, found: &mut BTreeMap<String, String>) {
    let schema = if schema["type"] == "array" { &schema["items"] } else { schema };
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}.{name}");
        found.insert(path.clone(), property["description"].as_str().unwrap_or_default().to_owned());
        fields(property, &path, found);
    }
}

#[tokio::test]
#[ignore = "needs an API server"]
async fn kubectl_explains_every_field() {
    let client = admin().await;
    let published: Value = client
        .request(Request::get("/openapi/v3/apis/dcv-operator.io/v1alpha1").body(Vec::new()).unwrap())
        .await
        .unwrap();
    for crd in crds() {
        let names = &crd.spec.names;
        let of_kind = |schema: &&Value| schema["x-kubernetes-group-version-kind"][0]["kind"] == names.kind.as_str();
        let schema = published["components"]["schemas"].as_object().unwrap().values().find(of_kind).unwrap();
        let mut found = BTreeMap::new();
        for part in ["spec", "status"] {
            fields(&schema["properties"][part], part, &mut found);
        }
        assert!(found.len() > 5, "{}: {} fields", names.kind, found.len());
        let without: Vec<_> = found.iter().filter(|(_, text)| text.is_empty()).map(|(path, _)| path).collect();
        assert_eq!(without, Vec::<&String>::new(), "{}: fields without a description", names.kind);

        // What kubectl makes of it: the whole tree at once, and the deepest field of each kind.
        let tree = kubectl(&format!("explain {} --recursive", names.plural));
        assert!(tree.status.success(), "{}", text(&tree));
        let tree = text(&tree);
        for path in found.keys() {
            let name = path.rsplit('.').next().unwrap();
            assert!(tree.lines().any(|line| line.trim_start().starts_with(&format!("{name}\t"))), "{path} in:\n{tree}");
        }
        let deepest = found.keys().max_by_key(|path| path.matches('.').count()).unwrap();
        let explained = text(&kubectl(&format!("explain {}.{deepest}", names.singular.as_deref().unwrap())));
        let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(words(&explained).contains(&words(&found[deepest])), "{deepest}: {explained}");
    }
    let owner = text(&kubectl("explain dcvsession.spec.owner"));
    assert!(owner.contains("FIELD: owner <string>") && owner.contains("Account on the host"), "{owner}");
}

#[test]
fn kstatus_of_ended_failed_and_waiting_sessions() {
    let condition = |name: &str, status: &str| json!({"type": name, "status": status});
    let object = |conditions: Value, observed: i64| json!({"metadata": {"generation": 2}, "status": {"observedGeneration": observed, "conditions": conditions}});
    assert_eq!(kstatus(&object(json!([condition("Ready", "True")]), 2)), "Current");
    assert_eq!(kstatus(&object(json!([condition("Ready", "True")]), 1)), "InProgress");
    assert_eq!(kstatus(&object(json!([condition("Finished", "True")]), 2)), "Current");
    assert_eq!(kstatus(&object(json!([condition("Finished", "True"), condition("Stalled", "True")]), 2)), "Failed");
    assert_eq!(kstatus(&object(json!([condition("Ready", "False")]), 2)), "InProgress");
    assert_eq!(kstatus(&json!({"metadata": {"deletionTimestamp": EPOCH}})), "Terminating");
}
