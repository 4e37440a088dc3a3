//! Tenants do not learn of each other: two worlds that differ only in what tenant blue has give tenant red the same answers.
//!
//! Left out of the comparison is what tells of servers that both may use, and is meant to: how many sessions are on them and
//! whether they take more. So the servers here have room for everybody.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use http::Request;
use http_body_util::BodyExt;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::Value;
use serde_json::json;
use tower::ServiceExt;

use super::App;
use super::Rules;
use super::memory::Memory;
use super::memory::NOW;
use super::memory::merge;
use super::memory::now;
use super::memory::ready_on;
use super::router;
use crate::token::KeySet;
use crate::token::Password;

/// Ids that red's sessions have.
const READY: &str = "11111111-1111-4111-8111-111111111111";
const WAITING: &str = "22222222-2222-4222-8222-222222222222";
const OVER: &str = "33333333-3333-4333-8333-333333333333";
/// Ids that only blue's sessions can have, and one of nobody's.
const FOREIGN: [&str; 3] = ["44444444-4444-4444-8444-444444444444", "55555555-5555-4555-8555-555555555555", "console"];
const NOBODYS: &str = "99999999-9999-4999-8999-999999999999";

/// What blue has in one world.
#[derive(Clone, Debug)]
struct Foreign {
    sessions: Vec<ForeignSession>,
    /// Servers that admit only blue, and how many sessions were started there by hand.
    servers: Vec<usize>,
    has_client: bool,
}

#[derive(Clone, Debug)]
struct ForeignSession {
    uid: &'static str,
    /// Hosts may give ids that others have too.
    session_id: Option<&'static str>,
    owner: &'static str,
    state: ForeignState,
}

#[derive(Clone, Copy, Debug)]
enum ForeignState {
    Waiting,
    ReadyOn(&'static str),
    Closing,
    Over,
}

fn foreign_sessions() -> impl Strategy<Value = Vec<ForeignSession>> {
    let state = select(vec![
        ForeignState::Waiting,
        ForeignState::ReadyOn("shared"),
        ForeignState::ReadyOn("blue-0"),
        ForeignState::Closing,
        ForeignState::Over,
    ]);
    let id = select(vec![None, Some(READY), Some(NOBODYS), Some("console")]);
    let session = (id, select(vec!["ann", "bob"]), state);
    vec(session, 0..=2).prop_map(|sessions| {
        let named = FOREIGN.into_iter().zip(sessions);
        named.map(|(uid, (session_id, owner, state))| ForeignSession { uid, session_id, owner, state }).collect()
    })
}

fn foreign() -> impl Strategy<Value = Foreign> {
    (foreign_sessions(), vec(0..3_usize, 0..3), any::<bool>()).prop_map(|(sessions, servers, has_client)| Foreign {
        sessions,
        servers,
        has_client,
    })
}

fn room() -> Value {
    json!({"capacity": {"sessionTypes": ["VIRTUAL"], "maxVirtualSessions": 100, "maxConcurrentSessionsPerUser": -1}})
}

fn over() -> Value {
    json!({"status": {"state": "DELETED", "completionTime": NOW, "conditions": [{"type": "Finished", "status": "True",
        "reason": "Closed", "message": "", "lastTransitionTime": NOW}]}})
}

/// A world with what red has, and with `foreign` beside it.
fn world(foreign: &Foreign) -> Memory {
    let memory = Memory::new();
    let admits = |team: &str| json!({"allowedNamespaces": {"matchLabels": {"team": team}}});
    memory.add_server("shared", json!({}), room());
    memory.add_server("red", admits("red"), room());
    for (number, by_hand) in foreign.servers.iter().enumerate() {
        let by_hand = (0..*by_hand)
            .map(|id| json!({"id": format!("hand-{id}"), "owner": "ann", "type": "VIRTUAL", "origin": "Manual"}));
        let mut status = room();
        merge(&mut status, json!({"otherSessions": by_hand.collect::<Vec<_>>()}));
        memory.add_server(&format!("blue-{number}"), admits("blue"), status);
    }
    memory.add_session(READY, ready_on("shared"));
    memory.add_session(WAITING, json!({"spec": {"enqueueRequest": true}}));
    memory.add_session(OVER, over());
    for session in &foreign.sessions {
        let mut changes = match session.state {
            ForeignState::Waiting => json!({"spec": {"enqueueRequest": true}}),
            ForeignState::ReadyOn(server) => ready_on(server),
            ForeignState::Closing => json!({"spec": {"desiredState": "Closed"}}),
            ForeignState::Over => over(),
        };
        let labels = json!({"dcv-operator.io/api-client": "uid-blue"});
        merge(
            &mut changes,
            json!({"metadata": {"namespace": "blue", "labels": labels}, "spec": {"owner": session.owner}}),
        );
        if let Some(id) = session.session_id {
            merge(&mut changes, json!({"status": {"sessionId": id}}));
        }
        memory.add_session(session.uid, changes);
    }
    memory
}

/// Red's way into a world.
struct Red {
    router: Router,
    token: String,
}

fn client(name: &str, password: &Password) -> crate::api::ApiClient {
    let ready =
        json!({"type": "Ready", "status": "True", "reason": "Accepted", "message": "", "lastTransitionTime": NOW});
    serde_json::from_value(json!({
        "apiVersion": "dcv-operator.io/v1alpha1", "kind": "ApiClient",
        "metadata": {"name": name, "namespace": name, "uid": format!("uid-{name}")},
        "spec": {"credentials": [{"hash": password.hash()}], "manageServers": true},
        "status": {"conditions": [ready]},
    }))
    .unwrap()
}

impl Red {
    async fn enter(foreign: &Foreign, keys: &KeySet, password: &Password) -> Self {
        let memory = world(foreign);
        for kind in crate::token::Kind::ALL {
            memory.cache.set_keys(kind, super::Keys::new(keys.clone()));
        }
        memory.put_client(client("red", password));
        if foreign.has_client {
            memory.put_client(client("blue", &Password::generate()));
        }
        let app = App::plain(Arc::new(memory), Rules::default(), now);
        let mut red = Self { router: router(Arc::new(app)), token: String::new() };
        let log_in = "/oauth2/token?grant_type=client_credentials";
        let basic = {
            use base64::Engine;
            base64::engine::general_purpose::STANDARD.encode(format!("uid-red:{}", password.reveal()))
        };
        let (_, answer) = red.call("POST", log_in, &format!("Basic {basic}"), Value::Null).await;
        red.token = answer["access_token"].as_str().expect("a token").to_owned();
        red
    }

    async fn call(&self, method: &str, path: &str, authorization: &str, body: Value) -> (u16, Value) {
        let body = if body.is_null() { Body::empty() } else { Body::from(body.to_string()) };
        let request = Request::builder().method(method).uri(path).header("authorization", authorization);
        let response = self.router.clone().oneshot(request.body(body).unwrap()).await.unwrap();
        let status = response.status().as_u16();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&bytes).unwrap_or_else(|_| panic!("not JSON: {bytes:?}")))
    }

    /// The answer, without what differs from call to call and what is meant to tell of others.
    async fn ask(&self, method: &str, path: &str, body: Value) -> (u16, Value) {
        let (status, mut answer) = self.call(method, path, &format!("Bearer {}", self.token), body).await;
        blank(&mut answer);
        (status, answer)
    }

    /// Every page of a list, each of one object.
    async fn pages(&self, path: &str) -> Vec<Value> {
        let (mut pages, mut question) = (Vec::new(), json!({"MaxResults": 1}));
        loop {
            let (status, page) = self.ask("POST", path, question.clone()).await;
            assert_eq!(status, 200, "{page}");
            let next = page.get("NextToken").cloned();
            pages.push(page);
            let Some(next) = next else { return pages };
            question["NextToken"] = next;
        }
    }
}

const BLANKED: [&str; 7] = [
    "RequestId",
    "ConnectionToken",
    "CreationTime",
    "ConsoleSessionCount",
    "VirtualSessionCount",
    "Availability",
    "UnavailabilityReason",
];

fn blank(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|key, _| !BLANKED.contains(&key.as_str()));
            fields.values_mut().for_each(blank);
        }
        Value::Array(items) => items.iter_mut().for_each(blank),
        Value::String(text) => {
            let known = [READY, WAITING, OVER, NOBODYS].iter().chain(&FOREIGN).any(|id| id == text);
            if !known && uuid::Uuid::try_parse(text).is_ok() {
                *text = "of a new session".to_owned();
            }
        }
        _ => {}
    }
}

/// What red asks, with red's own ids, blue's and nobody's.
fn questions() -> Vec<(&'static str, String, Value)> {
    let ids: Vec<_> = [READY, WAITING, OVER, NOBODYS].into_iter().chain(FOREIGN).collect();
    let session = |changes: Value| {
        let mut session = json!({"Name": "mine", "Owner": "ann", "Type": "VIRTUAL"});
        merge(&mut session, changes);
        session
    };
    let each = |item: fn(&str) -> Value| ids.iter().map(|id| item(id)).collect::<Vec<_>>();
    let servers: Vec<_> = ["shared", "red", "blue-0", "blue-1", "none"]
        .iter()
        .map(|name| json!({"ServerId": format!("uid-{name}")}))
        .collect();
    let server_ids: Vec<_> = servers.iter().map(|server| server["ServerId"].clone()).collect();
    let by_owner = json!({"Filters": [{"Key": "owner", "Value": "bob"}]});
    let by_tag = json!({"Filters": [{"Key": "tag:pool", "Value": "blue-0"}]});
    let creates = json!([
        session(json!({})),
        session(json!({"Requirements": "tag:pool = 'blue-0'"})),
        session(json!({"Requirements": "tag:pool = 'blue-0'", "EnqueueRequest": true})),
        session(json!({"Requirements": "tag:pool = blue"})),
        session(json!({"Type": "CONSOLE"})),
    ]);
    let permissions = |id: &str| json!({"SessionId": id, "Owner": "ann", "PermissionsFile": "W3Blcm1pc3Npb25zXQo="});
    let mut questions = vec![
        ("POST", "/describeSessions".to_owned(), Value::Null),
        ("POST", "/describeSessions".to_owned(), by_owner),
        ("POST", "/describeSessions".to_owned(), by_tag),
        ("POST", "/describeSessions".to_owned(), json!({"SessionIds": ids})),
        ("POST", "/describeServers".to_owned(), Value::Null),
        ("POST", "/describeServers".to_owned(), json!({"ServerIds": server_ids})),
        ("POST", "/createSessions?dryRun=true".to_owned(), creates.clone()),
        ("POST", "/createSessions".to_owned(), creates),
        ("POST", "/getSessionScreenshots".to_owned(), each(|id| json!({"SessionId": id})).into()),
        ("PUT", "/sessionPermissions".to_owned(), ids.iter().map(|id| permissions(id)).collect::<Vec<_>>().into()),
        ("POST", "/closeServers".to_owned(), json!(servers)),
        ("POST", "/openServers".to_owned(), json!(servers)),
    ];
    let paths = ids.iter().map(|id| format!("/sessionConnectionData/{id}/ann"));
    questions.extend(paths.map(|path| ("GET", path, Value::Null)));
    let deletes = [
        each(|id| json!({"SessionId": id, "Owner": "bob"})),
        each(|id| json!({"SessionId": id, "Owner": "ann"})),
        each(|id| json!({"SessionId": id, "Owner": "ann", "Force": true})),
    ];
    questions.extend(deletes.map(|items| ("POST", "/deleteSessions".to_owned(), items.into())));
    questions.push(("POST", "/describeSessions".to_owned(), Value::Null));
    questions
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    #[test]
    fn what_a_tenant_has_changes_no_answer_to_another(one in foreign(), other in foreign()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let (keys, password) = (KeySet::generate(now()), Password::generate());
        runtime.block_on(async {
            let (one, other) = (Red::enter(&one, &keys, &password).await, Red::enter(&other, &keys, &password).await);
            for path in ["/describeSessions", "/describeServers"] {
                prop_assert_eq!(one.pages(path).await, other.pages(path).await, "{}", path);
            }
            for (method, path, body) in questions() {
                let (mine, theirs) =
                    (one.ask(method, &path, body.clone()).await, other.ask(method, &path, body.clone()).await);
                prop_assert_eq!(mine, theirs, "{} {} {}", method, path, body);
            }
            Ok(())
        })?;
    }
}
