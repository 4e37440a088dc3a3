#![expect(clippy::type_complexity, reason = "tables read best as they are")]

use std::collections::HashMap;
use std::sync::Mutex;

use serde_json::Value;
use serde_json::json;

use super::*;
use crate::cluster::mock;
use crate::requirement::Dialect;
use crate::requirement::Requirement;

fn now() -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap()
}

/// An API server with the objects of one test. Watches never speak: what the placer writes, it knows by the answers.
#[derive(Default)]
struct Server {
    /// By path.
    objects: HashMap<String, Value>,
    /// Writes and single reads, in order.
    calls: Vec<String>,
    /// Statuses of the next answers to binds; `true`: and the call is carried out all the same.
    binds: Vec<(u16, bool)>,
    version: u64,
}

const SESSIONS: &str = "/apis/dcv-operator.io/v1alpha1/namespaces/team/dcvsessions";

impl Server {
    fn add(&mut self, path: &str, mut object: Value) {
        self.version += 1;
        object["metadata"]["resourceVersion"] = self.version.to_string().into();
        self.objects.insert(path.to_owned(), object);
    }

    fn session(&mut self, name: &str, finalizers: &Value, spec: &Value) {
        let mut all = json!({"owner": "ann", "type": "VIRTUAL"});
        all.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        self.add(
            &format!("{SESSIONS}/{name}"),
            json!({
                "apiVersion": "dcv-operator.io/v1alpha1", "kind": "DcvSession", "spec": all,
                "metadata": {"name": name, "namespace": "team", "uid": format!("uid-{name}"), "generation": 1,
                    "finalizers": finalizers, "creationTimestamp": "2026-01-01T00:00:00Z"},
                "status": crate::api::schema::session_status_default(),
            }),
        );
    }

    fn server(&mut self, name: &str, room: i32) {
        self.add(
            &format!("/apis/dcv-operator.io/v1alpha1/dcvservers/{name}"),
            json!({
                "apiVersion": "dcv-operator.io/v1alpha1", "kind": "DcvServer", "spec": {},
                "metadata": {"name": name, "uid": format!("uid-{name}")},
                "status": {"availability": "AVAILABLE", "capacity": {
                    "sessionTypes": ["VIRTUAL"], "maxVirtualSessions": room, "maxConcurrentSessionsPerUser": -1}},
            }),
        );
    }

    fn answer(&mut self, method: &str, uri: &str, body: &Value) -> (u16, Value) {
        let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
        if query.contains("watch=") {
            return (mock::NEVER, Value::Null);
        }
        if method == "GET" && !self.objects.contains_key(path) && !path.starts_with(SESSIONS) {
            return (200, self.list(path.rsplit('/').next().unwrap()));
        }
        let (path, part) = path.strip_suffix("/status").map_or((path, ""), |path| (path, "/status"));
        let name = path.rsplit('/').next().unwrap();
        self.calls.push(format!("{method} {name}{part}"));
        if !self.objects.contains_key(path) {
            return (404, mock::failure(404, "NotFound"));
        }
        let bind = method == "PATCH" && body["status"]["serverName"].is_string();
        let (code, lands) = if bind && !self.binds.is_empty() { self.binds.remove(0) } else { (200, true) };
        let stored = &self.objects[path];
        if method == "GET" {
            return (200, stored.clone());
        }
        if lands {
            if body["metadata"]["resourceVersion"] != stored["metadata"]["resourceVersion"] {
                return (409, mock::failure(409, "Conflict"));
            }
            let mut object = stored.clone();
            merge(&mut object, body);
            self.add(path, object);
        }
        if code == 200 { (200, self.objects[path].clone()) } else { (code, mock::failure(code, "Failed")) }
    }

    fn list(&self, plural: &str) -> Value {
        let end = |path: &str| path.rsplit('/').nth(1).map(str::to_owned);
        let items: Vec<&Value> = self
            .objects
            .iter()
            .filter(|(path, _)| end(path).as_deref() == Some(plural))
            .map(|(_, object)| object)
            .collect();
        json!({"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": "1"}, "items": items})
    }
}

fn merge(into: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *into = patch.clone();
        return;
    };
    if !into.is_object() {
        *into = json!({});
    }
    for (key, value) in patch {
        if value.is_null() {
            into.as_object_mut().unwrap().remove(key);
        } else {
            merge(&mut into[key], value);
        }
    }
}

/// Lets the placer work on the objects until nothing more happens for a while.
async fn run(prepare: impl FnOnce(&mut Server)) -> Arc<Mutex<Server>> {
    let mut server = Server::default();
    server.add(
        "/api/v1/namespaces/team",
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "team", "uid": "n"}}),
    );
    prepare(&mut server);
    let server = Arc::new(Mutex::new(server));
    let (context, mut tasks) = Context::test(&client(&server), now);
    context.caches.ready().await;
    tasks.spawn(async move {
        super::run(context).await;
        Ok(())
    });
    let mut calls = usize::MAX;
    while calls != server.lock().unwrap().calls.len() {
        calls = server.lock().unwrap().calls.len();
        tokio::time::sleep(Duration::from_millis(400)).await;
    }
    server
}

fn client(server: &Arc<Mutex<Server>>) -> kube::Client {
    let server = Arc::clone(server);
    mock::client(move |method, uri, body| server.lock().unwrap().answer(method, uri, body))
}

fn status(server: &Arc<Mutex<Server>>, name: &str) -> Value {
    server.lock().unwrap().objects[&format!("{SESSIONS}/{name}")]["status"].clone()
}

fn calls(server: &Arc<Mutex<Server>>) -> Vec<String> {
    server.lock().unwrap().calls.clone()
}

fn held() -> Value {
    json!([names::SESSION_FINALIZER])
}

#[tokio::test]
async fn a_session_of_the_broker_costs_one_write_and_one_of_kubectl_two() {
    let server = run(|it| {
        it.server("s", 5);
        it.session("a", &held(), &json!({}));
    })
    .await;
    assert_eq!(calls(&server), ["PATCH a/status"]);
    assert_eq!(
        (status(&server, "a")["serverName"].as_str(), status(&server, "a")["attempt"].as_i64()),
        (Some("s"), Some(1))
    );

    let server = run(|it| {
        it.server("s", 5);
        it.session("a", &json!(["other/finalizer"]), &json!({}));
    })
    .await;
    assert_eq!(calls(&server), ["PATCH a", "PATCH a/status"]);
    let finalizers = server.lock().unwrap().objects[&format!("{SESSIONS}/a")]["metadata"]["finalizers"].clone();
    assert_eq!(finalizers, json!(["other/finalizer", names::SESSION_FINALIZER]));
}

#[tokio::test]
async fn a_conflict_or_a_lost_answer_is_settled_by_a_read() {
    let cases: [(&str, Vec<(u16, bool)>, &[&str]); 4] = [
        ("lost, but done", vec![(mock::LOST, true)], &["PATCH a/status", "GET a"]),
        ("a conflict with our own success", vec![(409, true)], &["PATCH a/status", "GET a"]),
        ("lost, and not done", vec![(mock::LOST, false)], &["PATCH a/status", "GET a", "PATCH a/status"]),
        ("an error of the server", vec![(500, false)], &["PATCH a/status", "GET a", "PATCH a/status"]),
    ];
    for (case, binds, expected) in cases {
        let server = run(|it| {
            it.server("s", 1);
            it.session("a", &held(), &json!({}));
            it.binds = binds;
        })
        .await;
        assert_eq!(calls(&server), expected, "{case}");
        assert_eq!(status(&server, "a")["attempt"], 1, "{case}");
    }
}

#[tokio::test]
async fn a_refused_bind_gives_its_place_to_the_next() {
    let server = run(|it| {
        it.server("s", 1);
        it.session("a", &held(), &json!({"priority": 1}));
        it.session("b", &held(), &json!({}));
        it.binds = vec![(403, false)];
    })
    .await;
    assert_eq!(status(&server, "b")["serverName"], "s");
    assert_eq!(status(&server, "a")["serverName"], Value::Null);
}

#[tokio::test]
async fn the_first_in_the_line_gets_the_place_and_the_others_are_told_why_once() {
    let server = run(|it| {
        it.server("s", 1);
        it.session("a", &held(), &json!({}));
        it.session("b", &held(), &json!({}));
        it.session("c", &held(), &json!({"priority": 9}));
    })
    .await;
    assert_eq!(status(&server, "c")["serverName"], "s");
    for name in ["a", "b"] {
        assert_eq!(status(&server, name)["stateReason"], "0 of 1 servers fit: 1 full");
    }
    let mut calls = calls(&server);
    calls.sort();
    assert_eq!(calls, ["PATCH a/status", "PATCH b/status", "PATCH c/status"]);
}

#[tokio::test]
async fn what_cannot_be_placed_fails_with_a_reason_and_an_event() {
    let server = run(|it| {
        it.server("s", 0);
        it.session("a", &held(), &json!({"requirements": "server:Memory > 1"}));
        it.session("b", &held(), &json!({"enqueueRequest": false}));
    })
    .await;
    let reason = |name: &str| {
        let status = status(&server, name);
        let conditions = status["conditions"].as_array().unwrap().clone();
        let stalled = conditions.iter().find(|it| it["type"] == "Stalled").unwrap().clone();
        (status["state"].clone(), stalled["reason"].clone(), status["stateReason"].clone())
    };
    let error = Requirement::parse("server:Memory > 1", Dialect::Extended).unwrap_err();
    assert_eq!(reason("a"), ("UNKNOWN".into(), "InvalidRequirements".into(), error.to_string().into()));
    let text = "No DCV server found for the given criteria: 0 of 1 servers fit: 1 full";
    assert_eq!(reason("b"), ("UNKNOWN".into(), "NoServerFits".into(), text.into()));
    let events = calls(&server).iter().filter(|call| call.starts_with("POST")).count();
    assert_eq!(events, 2);
}

#[tokio::test]
async fn a_desktop_that_is_there_is_taken_over_even_on_a_full_server() {
    let server = run(|it| {
        it.server("s", 0);
        let path = "/apis/dcv-operator.io/v1alpha1/dcvservers/s";
        it.objects.get_mut(path).unwrap()["status"]["otherSessions"] = json!([
            {"id": "hand", "owner": "ann", "type": "VIRTUAL", "origin": "Manual"},
            {"id": "uid-b", "owner": "ann", "type": "VIRTUAL", "origin": "Unclaimed", "namespace": "team", "sessionName": "b"},
        ]);
        it.session("a", &held(), &json!({"adopt": {"serverName": "s", "sessionId": "hand"}}));
        it.session("b", &held(), &json!({}));
        it.session("c", &held(), &json!({"adopt": {"serverName": "s", "sessionId": "none"}}));
    })
    .await;
    let bound = |name: &str| {
        let status = status(&server, name);
        (status["serverName"].clone(), status["sessionId"].clone())
    };
    assert_eq!(bound("a"), ("s".into(), "hand".into()));
    assert_eq!(bound("b"), ("s".into(), "uid-b".into()));
    assert_eq!(bound("c"), (Value::Null, Value::Null));
    assert_eq!(status(&server, "c")["stateReason"], "server s reports no session none without an object");
}
