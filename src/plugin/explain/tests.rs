//! `explain` against an API server that answers as told.

use std::collections::BTreeSet;
use std::fs;

use serde_json::Value;
use serde_json::json;

use super::super::args::Subject as Asked;
use super::super::error::words;
use super::super::mock;
use super::*;

/// Three servers: `big` and `small` of pool render with room for two and one, `office` closed.
fn servers() -> Vec<Value> {
    let server = |name: &str, pool: &str, room: i32| {
        json!({"apiVersion": "dcv-operator.io/v1alpha1", "kind": "DcvServer", "metadata": {"name": name, "uid": name},
            "spec": {}, "status": {
                "availability": "AVAILABLE", "tags": {"pool": pool}, "host": {"os": {"family": "linux"}},
                "virtualSessionCount": 0, "consoleSessionCount": 0,
                "capacity": {"sessionTypes": ["VIRTUAL"], "maxVirtualSessions": room, "maxConcurrentSessionsPerUser": 2}}})
    };
    let mut office = server("office", "office", 9);
    office["spec"] = json!({"placement": "Closed"});
    vec![server("big", "render", 2), server("small", "render", 1), office]
}

fn session(name: &str, spec: &Value, status: &Value) -> Value {
    let mut whole = json!({"owner": "ann", "type": "VIRTUAL"});
    whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    json!({"apiVersion": "dcv-operator.io/v1alpha1", "kind": "DcvSession",
        "metadata": {"name": name, "namespace": "red", "uid": name}, "spec": whole, "status": status})
}

/// A cluster, and what the person who asks may not do there.
#[derive(Clone, Default)]
struct Cluster {
    servers: Vec<Value>,
    sessions: Vec<Value>,
    forbidden: BTreeSet<&'static str>,
}

const API: &str = "/apis/dcv-operator.io/v1alpha1";

impl Cluster {
    fn new() -> Self {
        Self { servers: servers(), ..Self::default() }
    }

    fn without(mut self, paths: &[&'static str]) -> Self {
        self.forbidden.extend(paths);
        self
    }

    fn answer(&self, method: &str, path: &str) -> (u16, Value) {
        assert_eq!(method, "GET", "nothing is written");
        let path = path.trim_start_matches(API);
        let status = |code: u16, reason: &str, message: &str| {
            (code, json!({"kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": message}))
        };
        if self.forbidden.contains(path) {
            return status(403, "Forbidden", &format!("you cannot read {path}"));
        }
        let list = |items: &[Value]| (200, json!({"kind": "List", "metadata": {}, "items": items}));
        match path {
            "/dcvservers" => list(&self.servers),
            "/dcvsessions" => list(&self.sessions),
            "/namespaces/red/dcvsessions" => {
                let of_red = self.sessions.iter().filter(|it| it["metadata"]["namespace"] == "red");
                list(&of_red.cloned().collect::<Vec<_>>())
            }
            "/api/v1/namespaces/red" => (200, json!({"metadata": {"name": "red"}})),
            _ => {
                let name = path.strip_prefix("/namespaces/red/dcvsessions/");
                let found = self.sessions.iter().find(|it| it["metadata"]["name"].as_str() == name);
                found.map_or_else(|| status(404, "NotFound", &format!("no {path}")), |found| (200, found.clone()))
            }
        }
    }

    async fn ask(&self, subject: Asked, output: TextFormat) -> Result<Answer, String> {
        let cluster = self.clone();
        let client = mock::client(move |method, path, _| cluster.answer(method, path));
        let answer = explain(client, "red", &Question { subject, output }).await;
        answer.map_err(|error| words(&error))
    }

    async fn of_session(&self, name: &str) -> Answer {
        let subject = Asked { session: Some(name.into()), ..Asked::default() };
        self.ask(subject, TextFormat::Text).await.unwrap()
    }

    async fn of_manifest(&self, text: &str, output: TextFormat) -> Result<Answer, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), text).unwrap();
        self.ask(Asked { filename: vec![file.path().to_owned()], ..Asked::default() }, output).await
    }
}

fn manifest(requirements: &str) -> String {
    let spec = json!({"requirements": requirements});
    let mut session = session("a", &spec, &json!({}));
    session.as_object_mut().unwrap().remove("status");
    session.to_string() + "\n---\n"
}

#[tokio::test]
async fn a_manifest_that_fits_is_told_its_server() {
    let answer = Cluster::new().of_manifest(&manifest("tag:pool = 'render'"), TextFormat::Text).await.unwrap();
    let text = "red/a: not applied\n2 of 3 servers fit: 1 closed\nIt would get server big now.\n";
    assert_eq!(answer, Answer { data: text.into(), ..Answer::default() });
}

#[tokio::test]
async fn manifests_take_their_places_one_after_the_other() {
    let answer =
        Cluster::new().of_manifest(&manifest("tag:pool = 'render'").repeat(4), TextFormat::Json).await.unwrap();
    let data: Value = serde_json::from_str(&answer.data).unwrap();
    let of = |item: &Value| (item["fits"].clone(), item["report"]["serverName"].clone());
    let seen: Vec<_> = data["items"].as_array().unwrap().iter().map(of).collect();
    let fits = |server: &str| (json!(true), json!(server));
    assert_eq!(seen, [fits("big"), fits("small"), fits("big"), (json!(false), Value::Null)]);
    assert_eq!(data["items"][3]["report"]["summary"], "0 of 3 servers fit: 2 full, 1 closed");
    assert!(answer.is_no);
}

#[tokio::test]
async fn what_stands_in_the_way_and_what_would_help_is_told_as_text_and_data() {
    let text = manifest("tag:pool = 'cad'");
    let answer = Cluster::new().of_manifest(&text, TextFormat::Text).await.unwrap();
    let lines: Vec<_> = answer.data.lines().collect();
    assert!(lines[1].starts_with("0 of 3 servers fit: 2 lack tag:pool = 'cad', 1 closed"), "{lines:?}");
    assert_eq!(lines[2], "To get one of 2 servers: require tag:pool = 'render' instead of tag:pool = 'cad'");
    assert_eq!(lines[3], "To get one of 2 servers: leave out the requirement tag:pool = 'cad'");
    assert!(answer.is_no);
    let answer = Cluster::new().of_manifest(&text, TextFormat::Yaml).await.unwrap();
    let data: Value = serde_saphyr::from_str(&answer.data).unwrap();
    assert_eq!(data["items"][0]["report"]["proposals"][1]["requirements"], "", "what is left of it");
}

#[tokio::test]
async fn a_requirement_that_does_not_parse_is_shown_with_its_place() {
    let answer = Cluster::new().of_manifest(&manifest("tag:pool == 'x'"), TextFormat::Text).await.unwrap();
    let lines: Vec<_> = answer.data.lines().collect();
    assert!(lines[1].starts_with("requirements: at character "), "{lines:?}");
    assert_eq!(lines[2].trim(), "tag:pool == 'x'");
    assert!(lines[3].trim().starts_with('^'), "{lines:?}");
    assert!(answer.is_no);
}

#[tokio::test]
async fn a_waiting_session_is_explained_as_of_now_and_one_with_a_server_is_not_moved() {
    let waiting = json!({"state": "CREATING", "stateReason": "0 of 9 servers fit: 9 full"});
    let ready = json!({"state": "READY", "serverName": "big", "attempt": 1});
    let failed = json!({"state": "UNKNOWN", "stateReason": "no luck", "conditions": [{"type": "Finished",
        "status": "True", "reason": "Failed", "message": "", "lastTransitionTime": "2026-11-21T10:00:00Z"}]});
    let cluster = Cluster {
        sessions: vec![
            session("waits", &json!({}), &waiting),
            session("runs", &json!({}), &ready),
            session("failed", &json!({}), &failed),
            session("closing", &json!({"desiredState": "Closed"}), &waiting),
            session("adopts", &json!({"adopt": {"serverName": "big", "sessionId": "x"}}), &waiting),
        ],
        ..Cluster::new()
    };
    for (name, text, is_no) in [
        ("waits", "red/waits: CREATING\n2 of 3 servers fit: 1 closed\nIt would get server small now.\n", false),
        ("dcvsession.dcv-operator.io/runs", "red/runs: READY on server big\n", false),
        (
            "failed",
            "red/failed: UNKNOWN\nno luck\n2 of 3 servers fit: 1 closed\nIt would get server small now.\n",
            false,
        ),
        ("closing", "red/closing: DELETING\n0 of 9 servers fit: 9 full\n", true),
        ("adopts", "red/adopts: CREATING\nit takes over desktop x of server big, and goes nowhere else\n", true),
    ] {
        let answer = cluster.of_session(name).await;
        assert_eq!((answer.data.as_str(), answer.is_no), (text, is_no), "{name}");
    }
    let absent = Asked { session: Some("absent".into()), ..Asked::default() };
    let error = cluster.ask(absent, TextFormat::Text).await.unwrap_err();
    assert!(error.starts_with("Error from server (NotFound): "), "{error}");
}

#[tokio::test]
async fn a_cordoned_node_takes_nobody() {
    let mut cluster = Cluster::new();
    for server in &mut cluster.servers[..2] {
        server["metadata"]["labels"]["dcv-operator.io/cordoned"] = json!("");
    }
    let answer = cluster.of_manifest(&manifest(""), TextFormat::Text).await.unwrap();
    assert!(answer.data.contains("\n0 of 3 servers fit: 2 cordoned, 1 closed"), "{}", answer.data);
}

#[tokio::test]
async fn without_a_right_that_nothing_stands_in_for_it_is_named() {
    for (path, right) in [("/dcvservers", "list dcvservers"), ("/api/v1/namespaces/red", "get namespaces")] {
        let error = Cluster::new().without(&[path]).of_manifest(&manifest(""), TextFormat::Text).await.unwrap_err();
        assert_eq!(error, format!("error: explain needs the right to {right}: you cannot read {path}"));
    }
}

#[tokio::test]
async fn without_the_right_to_see_all_sessions_servers_are_believed_and_that_is_said() {
    let ready = |server: &str| json!({"state": "READY", "serverName": server, "attempt": 1});
    let mut theirs = session("theirs", &json!({}), &ready("big"));
    theirs["metadata"]["namespace"] = json!("blue");
    let mut cluster = Cluster { sessions: vec![session("ours", &json!({}), &ready("big")), theirs], ..Cluster::new() };
    // Two sessions with an object, of which one may be seen, and one without.
    cluster.servers[0]["status"]["virtualSessionCount"] = json!(3);
    cluster.servers[0]["status"]["capacity"]["maxVirtualSessions"] = json!(3);
    cluster.servers[0]["status"]["otherSessions"] =
        json!([{"id": "console", "owner": "eve", "type": "VIRTUAL", "origin": "Manual", "numOfConnections": 0}]);
    let text = "red/a: not applied\n1 of 3 servers fit: 1 closed, 1 full\nIt would get server small now.\n";
    for forbidden in [&[][..], &["/dcvsessions"], &["/dcvsessions", "/namespaces/red/dcvsessions"]] {
        let answer = cluster.clone().without(forbidden).of_manifest(&manifest(""), TextFormat::Text).await.unwrap();
        assert_eq!(answer.data, text, "{forbidden:?}");
        assert_eq!(answer.talk.contains("you may not list dcvsessions in all namespaces"), !forbidden.is_empty());
    }
}
