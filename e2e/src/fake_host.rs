//! The memory of the made-up hosts: what really runs there and ran, whatever the objects say.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::path::Path;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_json::json;

use crate::seconds;

/// A `fake-host` process.
pub struct FakeHost(reqwest::Client);

/// What happened to one id on all hosts together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct History {
    /// How often an instance was begun.
    pub creates: u32,
    /// Instances that live now.
    pub now: u32,
    /// The most that ever lived at once.
    pub most: u32,
}

impl FakeHost {
    pub(crate) fn new(socket: &Path) -> Self {
        let client = reqwest::Client::builder().unix_socket(socket).timeout(seconds(10)).build();
        Self(client.expect("a client of a socket"))
    }

    /// The server each living session is on, by id.
    pub async fn sessions(&self) -> BTreeMap<String, String> {
        let all: BTreeMap<String, Vec<Value>> = self.ask("/v1/sessions").await;
        let mut found = BTreeMap::new();
        for (server, sessions) in all {
            for session in sessions {
                let id = session["id"].as_str().expect("a session has an id").to_owned();
                if let Some(other) = found.insert(id.clone(), server.clone()) {
                    panic!("{id} is on {server} and on {other}");
                }
            }
        }
        found
    }

    /// What happened to each id since the process began.
    pub async fn history(&self) -> BTreeMap<String, History> {
        self.ask("/v1/history").await
    }

    /// Ids of which more than one instance was ever begun.
    pub async fn created_twice(&self) -> BTreeSet<String> {
        let history = self.history().await;
        history.into_iter().filter(|(_, past)| past.creates > 1 || past.most > 1).map(|(id, _)| id).collect()
    }

    /// Lets each host take this long to create and to close a session.
    pub async fn set_latency(&self, create_milliseconds: u64, close_milliseconds: u64) {
        let servers: BTreeMap<String, Value> = self.ask("/v1/sessions").await;
        let latency = json!({"createMilliseconds": create_milliseconds, "closeMilliseconds": close_milliseconds});
        for server in servers.keys() {
            let url = format!("http://fake-host/v1/servers/{server}/latency");
            let answer = self.0.put(url).json(&latency).send().await.expect("the fake host answers");
            assert!(answer.status().is_success(), "{answer:?}");
        }
    }

    /// All that is known of a living session.
    pub async fn session(&self, id: &str) -> Option<Value> {
        let all: BTreeMap<String, Vec<Value>> = self.ask("/v1/sessions").await;
        all.into_values().flatten().find(|session| session["id"] == id)
    }

    /// Starts a virtual session by hand, as somebody on the host would.
    pub async fn start_by_hand(&self, server: &str, id: &str, owner: &str) {
        let url = format!("http://fake-host/v1/servers/{server}/sessions/{id}/manual");
        let body = json!({"owner": owner, "type": "VIRTUAL"});
        let answer = self.0.post(url).json(&body).send().await.expect("the fake host answers");
        assert!(answer.status().is_success(), "{answer:?}");
    }

    /// Lets `number` clients be connected to a session.
    pub async fn set_connections(&self, id: &str, number: u32) {
        let sessions = self.sessions().await;
        let server = sessions.get(id).unwrap_or_else(|| panic!("{id} does not run"));
        let url = format!("http://fake-host/v1/servers/{server}/sessions/{id}/connections");
        let answer = self.0.put(url).json(&json!({"number": number})).send().await.expect("the fake host answers");
        assert!(answer.status().is_success(), "{answer:?}");
    }

    /// Lets a session end by itself.
    pub async fn end(&self, id: &str, reason: &str) {
        let sessions = self.sessions().await;
        let server = sessions.get(id).unwrap_or_else(|| panic!("{id} does not run"));
        self.tell(reqwest::Method::POST, &format!("{server}/sessions/{id}/end"), &json!({"reason": reason})).await;
    }

    /// Lets the next create on `server` fail.
    pub async fn fail_next_create(&self, server: &str, reason: &str) {
        let fault = json!({"on": "create", "what": "fail", "reason": reason});
        self.tell(reqwest::Method::POST, &format!("{server}/faults"), &fault).await;
    }

    /// Makes a host ill, or well.
    pub async fn set_health(&self, server: &str, unhealthy: Option<&str>) {
        self.tell(reqwest::Method::PUT, &format!("{server}/health"), &json!({"unhealthy": unhealthy})).await;
    }

    /// Restarts a host: all its sessions are gone.
    pub async fn restart(&self, server: &str) {
        self.tell(reqwest::Method::POST, &format!("{server}/restart"), &Value::Null).await;
    }

    async fn tell(&self, method: reqwest::Method, path: &str, body: &Value) {
        let request = self.0.request(method, format!("http://fake-host/v1/servers/{path}")).json(body);
        let answer = request.send().await.expect("the fake host answers");
        assert!(answer.status().is_success(), "{answer:?}");
    }

    /// Closes every session, behind the agents' backs.
    pub async fn clear(&self) {
        for (id, server) in self.sessions().await {
            let url = format!("http://fake-host/v1/servers/{server}/sessions/{id}");
            let answer = self.0.delete(url).send().await.expect("the fake host answers");
            assert!(answer.status().is_success(), "{answer:?}");
        }
    }

    async fn ask<T: DeserializeOwned>(&self, path: &str) -> T {
        let answer = self.0.get(format!("http://fake-host{path}")).send().await.expect("the fake host answers");
        let text = answer.text().await.expect("its answers are text");
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{path} answered {text}: {error}"))
    }
}
