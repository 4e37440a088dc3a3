//! Made-up hosts, for tests of scale and faults. Never for production.
//!
//! The sessions live in a **process of its own**, `fake-host` ([`serve`]): like those of a real host they outlive the
//! agent, which talks to it over a Unix socket. One such process holds the hosts of many servers and can be told to fail,
//! refuse, hang or lose an answer, to end a session or to restart a host; and a checker reads there what is true
//! ([`api`]). Killing the process is a restart of all its hosts. What a host is comes from a fleet file, or without one
//! from a fixed mix ([`fleet`]).

pub mod api;
mod fleet;
mod host;
mod http;
mod picture;
pub mod serve;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::Backend;
use super::BackendError;
use super::CreateError;
use super::Description;
use super::HostSession;
use super::Order;
use super::ScreenshotRequest;
pub use fleet::Fleet;
pub use fleet::FleetError;

/// Wait before a host that does not answer is asked again.
const RETRY: Duration = Duration::from_millis(200);

/// The host of one server, as its agent reaches it.
pub struct Fake {
    server: String,
    connection: Arc<http::Connection>,
    changes: watch::Receiver<u64>,
    listener: JoinHandle<()>,
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

impl Fake {
    /// The host of `server` in the `fake-host` that listens at `socket`. It need not run yet.
    pub fn new(socket: &Path, server: &str) -> Self {
        let connection = Arc::new(http::Connection::new(socket));
        let (sender, changes) = watch::channel(0);
        let listener = tokio::spawn(listen(connection.clone(), server.to_owned(), sender));
        Self { server: server.to_owned(), connection, changes, listener }
    }

    fn path(&self, rest: &str) -> String {
        format!("/v1/servers/{}{rest}", http::escaped(&self.server))
    }

    fn session_path(&self, id: &str, rest: &str) -> String {
        self.path(&format!("/sessions/{}{rest}", http::escaped(id)))
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        action: &'static str,
        method: &str,
        path: &str,
        body: Option<&(impl Serialize + Sync)>,
    ) -> Result<T, BackendError> {
        let fault = |message: String| BackendError { action, message };
        let body = body.map(|body| serde_json::to_vec(body).expect("our bodies are plain data"));
        let answer = self.connection.call(method, path, body.as_deref()).await.map_err(|e| fault(e.to_string()))?;
        if answer.status != 200 {
            return Err(fault(answer.text()));
        }
        serde_json::from_slice(&answer.body).map_err(|error| fault(error.to_string()))
    }
}

/// No body.
const NOTHING: Option<&()> = None;

/// Tells of each change of the host, and of its coming back.
async fn listen(connection: Arc<http::Connection>, server: String, changes: watch::Sender<u64>) {
    let mut seen: Option<u64> = None;
    loop {
        let after = seen.map_or(String::new(), |seen| format!("?after={seen}"));
        let path = format!("/v1/servers/{}/changes{after}", http::escaped(&server));
        let version = match connection.call("GET", &path, None).await {
            Ok(answer) if answer.status == 200 => serde_json::from_slice::<api::Version>(&answer.body).ok(),
            _ => None,
        };
        match version {
            Some(api::Version { version }) if seen == Some(version) => {}
            Some(api::Version { version }) => {
                seen = Some(version);
                changes.send_modify(|count| *count += 1);
            }
            None => {
                if seen.take().is_some() {
                    changes.send_modify(|count| *count += 1); // it is gone, which is a change too
                }
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

impl Backend for Fake {
    const NAME: &'static str = "fake";

    async fn describe(&self) -> Result<Description, BackendError> {
        let host: api::Host = self.ask("describe the host", "GET", &self.path(""), NOTHING).await?;
        Ok(Description {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            capacity: host.capacity,
            endpoints: Vec::new(),
            host: Some(host.host),
            boot_id: Some(host.boot_id),
            tags: host.tags,
            unhealthy: host.unhealthy,
            ..Description::default()
        })
    }

    async fn list(&self) -> Result<Vec<HostSession>, BackendError> {
        let sessions: Vec<api::Session> = self.ask("list sessions", "GET", &self.path("/sessions"), NOTHING).await?;
        Ok(sessions.into_iter().map(HostSession::from).collect())
    }

    /// A lost answer says nothing, so it asks again until there is one: creating is safe to repeat.
    async fn create(&self, order: &Order) -> Result<(), CreateError> {
        let body = serde_json::to_vec(order).expect("an order is plain data");
        let path = self.session_path(&order.id, "");
        loop {
            match self.connection.call("PUT", &path, Some(&body)).await {
                Ok(answer) if answer.status == 200 => return Ok(()),
                Ok(answer) if answer.status == api::REFUSED => return Err(CreateError::Refused(answer.text())),
                Ok(answer) if answer.status == api::FAILED => return Err(CreateError::Failed(answer.text())),
                Ok(_) | Err(_) => tokio::time::sleep(RETRY).await,
            }
        }
    }

    async fn announce(&self, id: &str) -> Result<(), BackendError> {
        self.ask("note the announcement", "PUT", &self.session_path(id, "/announced"), NOTHING).await
    }

    async fn close(&self, id: &str) -> Result<(), BackendError> {
        self.ask("close the session", "DELETE", &self.session_path(id, ""), NOTHING).await
    }

    async fn set_permissions(&self, id: &str, text: Option<&str>) -> Result<(), BackendError> {
        let body = api::Permissions { text: text.map(str::to_owned) };
        self.ask("set the permissions", "PUT", &self.session_path(id, "/permissions"), Some(&body)).await
    }

    async fn screenshot(&self, id: &str, request: ScreenshotRequest) -> Result<Vec<u8>, BackendError> {
        let action = "take a screenshot";
        let path = self.session_path(id, "/screenshot");
        let body = serde_json::to_vec(&request).expect("a request is plain data");
        let answer = self.connection.call("POST", &path, Some(&body)).await;
        let answer = answer.map_err(|error| BackendError { action, message: error.to_string() })?;
        if answer.status == 200 { Ok(answer.body) } else { Err(BackendError { action, message: answer.text() }) }
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.changes.clone()
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use jiff::Timestamp;
    use tempfile::TempDir;

    use super::*;
    use crate::agent::backend::Phase;
    use crate::agent::backend::contract;
    use crate::agent::mock;

    /// A `fake-host` in this process, and a client of its server `host-test-1`.
    fn host() -> (TempDir, PathBuf, Fake) {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("fake.sock");
        let serving = serve::Server::bind(&socket, Fleet::default(), mock::clock).unwrap();
        tokio::spawn(serving.run());
        let fake = Fake::new(&socket, "host-test-1");
        (folder, socket, fake)
    }

    async fn tell(socket: &Path, method: &str, path: &str, body: serde_json::Value) -> serde_json::Value {
        let body = serde_json::to_vec(&body).unwrap();
        let answer = http::Connection::new(socket).call(method, path, Some(&body)).await.unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
        serde_json::from_slice(&answer.body).unwrap()
    }

    #[tokio::test]
    async fn the_contract_holds() {
        let (_folder, socket, fake) = host();
        let fixture = contract::Fixture {
            backend: &fake,
            owner: "ann".into(),
            refused_owner: "nobody-here".into(),
            init_file: None,
        };
        contract::holds(&fixture, async |id: &str| {
            let path = format!("/v1/servers/host-test-1/sessions/{id}/end");
            tell(&socket, "POST", &path, serde_json::json!({"reason": "the desktop ended"})).await;
        })
        .await;
    }

    #[tokio::test]
    async fn faults_happen_as_often_as_asked() {
        let (_folder, socket, fake) = host();
        let order = contract::order("a", "ann");
        let faults = "/v1/servers/host-test-1/faults";
        let fault = |on: &str, what: &str| serde_json::json!({"on": on, "what": what, "reason": "no licence"});
        tell(&socket, "POST", faults, fault("create", "refuse")).await;
        assert_eq!(fake.create(&order).await, Err(CreateError::Refused("no licence".into())));
        tell(&socket, "POST", faults, fault("create", "fail")).await;
        assert_eq!(fake.create(&order).await, Err(CreateError::Failed("no licence".into())));
        assert_eq!(fake.list().await.unwrap(), []);
        tell(&socket, "POST", faults, fault("create", "lose")).await;
        assert_eq!(fake.create(&order).await, Ok(()), "it asks again");
        tell(&socket, "POST", faults, fault("close", "fail")).await;
        assert_eq!(fake.close("a").await.unwrap_err().message, "no licence");
        fake.close("a").await.unwrap();
        let history = tell(&socket, "GET", "/v1/history", serde_json::Value::Null).await;
        let expected = serde_json::json!({"creates": 2, "closes": 2, "ends": 0, "now": 0, "most": 1});
        assert_eq!(history["a"], expected, "what failed had begun too");
    }

    #[tokio::test]
    async fn a_create_that_hangs_is_cleared_by_a_close() {
        let (_folder, socket, fake) = host();
        let fault = serde_json::json!({"on": "create", "what": "hang"});
        tell(&socket, "POST", "/v1/servers/host-test-1/faults", fault).await;
        let order = contract::order("a", "ann");
        assert!(tokio::time::timeout(Duration::from_millis(200), fake.create(&order)).await.is_err());
        assert_eq!(fake.list().await.unwrap()[0].phase, Phase::Preparing);
        fake.close("a").await.unwrap();
        assert_eq!(fake.list().await.unwrap(), []);
        assert_eq!(fake.create(&order).await, Ok(()));
    }

    #[tokio::test]
    async fn a_restarted_host_has_another_boot_and_no_sessions() {
        let (_folder, socket, fake) = host();
        fake.create(&contract::order("a", "ann")).await.unwrap();
        let before = fake.describe().await.unwrap().boot_id;
        let mut changes = fake.changes();
        changes.wait_for(|count| *count > 0).await.unwrap();
        changes.mark_unchanged();
        tell(&socket, "POST", "/v1/servers/host-test-1/restart", serde_json::Value::Null).await;
        changes.changed().await.unwrap();
        assert_ne!(fake.describe().await.unwrap().boot_id, before);
        assert_eq!(fake.list().await.unwrap(), []);
    }

    #[tokio::test]
    async fn connections_are_counted_and_the_last_leaving_is_noted() {
        let (_folder, socket, fake) = host();
        fake.create(&contract::order("a", "ann")).await.unwrap();
        let connections = "/v1/servers/host-test-1/sessions/a/connections";
        tell(&socket, "PUT", connections, serde_json::json!({"number": 2})).await;
        let session = fake.list().await.unwrap().remove(0);
        assert_eq!((session.num_of_connections, session.last_disconnection_time), (2, None));
        tell(&socket, "PUT", connections, serde_json::json!({"number": 1})).await;
        let session = fake.list().await.unwrap().remove(0);
        let now: Timestamp = mock::clock();
        assert_eq!((session.num_of_connections, session.last_disconnection_time), (1, Some(now)));
    }
}
