//! Writes of what changes on something that runs: permissions of a session, and whether a server takes sessions.

use std::time::Duration;

use kube::Api;
use kube::ResourceExt;
use kube::api::ListParams;
use kube::api::Patch;
use kube::api::PatchParams;
use kube::api::PostParams;
use serde_json::Value;
use serde_json::json;
use tokio::time::Instant;

use super::super::access_log;
use super::super::cache::occupied;
use super::super::cache::tenant;
use super::super::store::StoreError;
use super::KubeStore;
use super::failed;
use super::note_request;
use super::words;
use crate::api::ApiClient;
use crate::api::DcvServer;
use crate::api::DcvSession;
use crate::api::names;
use crate::api::server::Placement;

/// How often a change of a server is tried anew that somebody else's write came before. Its agent writes every few
/// seconds at most.
const CHANGE_ATTEMPTS: usize = 5;

/// Longest wait for the agent of a server to say that it knows the server is closed.
const NOTICE_TIMEOUT: Duration = Duration::from_millis(if cfg!(test) { 50 } else { 2000 });

/// How often that is looked for, in the cache.
const NOTICE_INTERVAL: Duration = Duration::from_millis(10);

fn by_broker() -> PatchParams {
    PatchParams { field_manager: Some(names::BROKER.to_owned()), ..PatchParams::default() }
}

impl KubeStore {
    /// Replaces the permissions of a session.
    pub(super) async fn permit(&self, session: &DcvSession, text: &str) -> Result<(), StoreError> {
        let (namespace, name) = (session.namespace().unwrap_or_default(), session.name_any());
        // The uid keeps them from a later session of the same name.
        let mut patch = json!({"metadata": {"uid": session.metadata.uid}, "spec": {"permissions": text}});
        note_request(&mut patch);
        let patched = match self.sessions_of(&namespace).patch(&name, &by_broker(), &Patch::Merge(&patch)).await {
            Err(kube::Error::Api(status)) if status.is_invalid() => {
                let is_over = self.fetch(&namespace, &name).await?.is_some_and(|now| now.is_finished());
                let text = if is_over { "The session has ended meanwhile".to_owned() } else { words(&status) };
                return Err(StoreError::Refused(text));
            }
            patched => patched.map_err(|error| self.failed_write("change the permissions of", session, error))?,
        };
        access_log::audit("session permissions changed", &patched);
        self.cache.assume_session(patched);
        Ok(())
    }

    /// Asks the API server whether it would take a session. Nothing is made.
    pub(super) async fn try_make(&self, client: &ApiClient, mut session: DcvSession) -> Result<(), StoreError> {
        let (namespace, name) = (tenant(client), session.name_any());
        session.metadata.namespace = Some(namespace.to_owned());
        let field_manager = Some(names::BROKER.to_owned());
        let parameters = PostParams { dry_run: true, field_manager };
        let outcome = self.sessions_of(namespace).create(&parameters, &session).await;
        outcome.map(drop).map_err(|error| failed("check", format!("session {namespace}/{name}"), error))
    }

    /// Has a server take sessions. The spec is then as if it had never been closed, so that a server nobody uses or
    /// configures is still one to the controller.
    pub(super) async fn open(&self, server: &DcvServer) -> Result<(), StoreError> {
        let open = |now: &DcvServer| (!now.is_open()).then(|| json!({"placement": null, "drainGraceSeconds": null}));
        self.change_server(server, open).await.map(drop)
    }

    /// Has a server take no more sessions, unless without `force` something is on it. Whether it is closed then.
    ///
    /// That nothing is on it is looked at again once its agent has said that it knows the server is closed: from then on
    /// the agent refuses whatever the controller has bound meanwhile, and what it had begun before was bound, so a list
    /// shows it. Should there be something after all, the server is opened again. Whoever hears that an empty server is
    /// closed can switch it off.
    pub(super) async fn close(&self, server: &DcvServer, force: bool) -> Result<bool, StoreError> {
        if !force && self.cache.sessions_on(&server.name_any()) > 0 {
            return Ok(false);
        }
        // A drained one stays that: it is closed, and its sessions end in their time.
        let close = |now: &DcvServer| now.is_open().then(|| json!({"placement": Placement::Closed}));
        let (before, closed) = self.change_server(server, close).await?;
        if force {
            return Ok(true);
        }
        self.await_notice(&closed).await;
        let outcome = self.is_vacant(&closed).await;
        if before.is_open() && !matches!(outcome, Ok(true)) {
            let is_ours = |now: &DcvServer| now.metadata.generation == closed.metadata.generation;
            let placement = before.spec.placement;
            let undo = |now: &DcvServer| is_ours(now).then(|| json!({"placement": placement}));
            self.change_server(server, undo).await?;
        }
        outcome
    }

    /// Changes the spec of a server to what `change` makes of it as it is now; `None` leaves it. Returns it as it was and
    /// as it is.
    async fn change_server(
        &self,
        server: &DcvServer,
        change: impl Fn(&DcvServer) -> Option<Value>,
    ) -> Result<(DcvServer, DcvServer), StoreError> {
        let api = Api::<DcvServer>::all(self.client.clone());
        let name = server.name_any();
        for _ in 0..CHANGE_ATTEMPTS {
            let found = api.get_opt(&name).await.map_err(|error| failed("read", format!("server {name}"), error))?;
            let before = found.filter(|now| now.metadata.uid == server.metadata.uid);
            let before = before.ok_or_else(|| StoreError::NotFound(format!("server {name}")))?;
            let Some(spec) = change(&before) else {
                self.cache.assume_server(before.clone());
                return Ok((before.clone(), before));
            };
            let mut patch = json!({"metadata": {"resourceVersion": before.metadata.resource_version}, "spec": spec});
            note_request(&mut patch);
            match api.patch(&name, &by_broker(), &Patch::Merge(&patch)).await {
                Ok(after) => {
                    access_log::audit(if after.is_open() { "server opened" } else { "server closed" }, &after);
                    self.cache.assume_server(after.clone());
                    return Ok((before, after));
                }
                Err(kube::Error::Api(status)) if status.is_conflict() => {}
                Err(error) => return Err(failed("change", format!("server {name}"), error)),
            }
        }
        Err(StoreError::Late("a change of a server that others keep changing"))
    }

    /// Waits until the agent of a server has reported for this version of its spec. One that is silent begins nothing, and
    /// one that takes longer is told of nothing new: the controller knows by then.
    async fn await_notice(&self, server: &DcvServer) {
        let end = Instant::now() + NOTICE_TIMEOUT;
        let is_noticed = || {
            let now = self.cache.server(&server.uid().unwrap_or_default());
            now.is_none_or(|now| {
                let seen = now.status.as_ref().and_then(|status| status.observed_generation);
                now.is_silent() || seen >= server.metadata.generation
            })
        };
        while !is_noticed() && Instant::now() < end {
            tokio::time::sleep(NOTICE_INTERVAL).await;
        }
    }

    /// Whether nothing is on a server: as the API server knows it now, and nothing started by hand, unclaimed or promised.
    async fn is_vacant(&self, server: &DcvServer) -> Result<bool, StoreError> {
        let name = server.name_any();
        let there = ListParams::default().fields(&format!("status.serverName={name}"));
        let sessions = Api::<DcvSession>::all(self.client.clone()).list(&there).await;
        let sessions = sessions.map_err(|error| failed("list sessions of", format!("server {name}"), error))?;
        for session in sessions.items.into_iter().filter(|session| occupied(session).is_some()) {
            self.cache.assume_session(session);
        }
        Ok(self.cache.sessions_on(&name) == 0)
    }
}
