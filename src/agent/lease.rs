//! The Lease by which the controller knows that this agent lives, and by which the agent knows that it may write.
//!
//! Invariant: [`OwnLease::is_fresh`] turns false before anyone else may conclude that the agent is gone.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::coordination::v1::LeaseSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::Api;
use kube::Client;
use kube::api::ObjectMeta;
use kube::api::Patch;
use kube::api::PatchParams;
use kube::api::PostParams;
use tokio::sync::watch;
use tokio::time::Instant;

use super::settings::Clock;
use crate::api::names;

/// Seconds the Lease is good for. The controller takes a server for unreachable after as many without a change.
pub const DURATION_SECONDS: i32 = 40;
/// How often it is renewed.
pub const RENEW_EVERY: Duration = Duration::from_secs(10);
/// How soon a failed renewal is tried again.
const RETRY: Duration = Duration::from_secs(2);
/// How long after the start of a renewal the agent may write: two thirds of the duration.
const FRESH: Duration = Duration::from_millis(26_666);

/// The Lease of one server, in the release namespace, named like the server.
pub struct OwnLease {
    api: Api<Lease>,
    name: String,
    holder: String,
    clock: Clock,
    renewed: watch::Sender<Option<Instant>>,
}

impl OwnLease {
    /// A Lease that has not been renewed yet.
    pub fn new(client: Client, namespace: &str, name: &str, holder: &str, clock: Clock) -> Self {
        Self {
            api: Api::namespaced(client, namespace),
            name: name.to_owned(),
            holder: holder.to_owned(),
            clock,
            renewed: watch::Sender::new(None),
        }
    }

    /// Renews it for ever.
    pub async fn keep(&self) {
        loop {
            let started = Instant::now();
            let wait = match tokio::time::timeout(RENEW_EVERY, self.renew()).await {
                Ok(Ok(())) => {
                    // From the start of the call: the controller may have seen the renewal that early.
                    self.renewed.send_replace(Some(started));
                    RENEW_EVERY
                }
                Ok(Err(error)) => {
                    tracing::warn!(lease = self.name, error = &error as &dyn std::error::Error, "lease not renewed");
                    RETRY
                }
                Err(_) => {
                    tracing::warn!(lease = self.name, "lease not renewed in time");
                    RETRY
                }
            };
            tokio::time::sleep_until(started + wait).await;
        }
    }

    async fn renew(&self) -> kube::Result<()> {
        let now = MicroTime((self.clock)());
        let mut spec = LeaseSpec {
            holder_identity: Some(self.holder.clone()),
            lease_duration_seconds: Some(DURATION_SECONDS),
            renew_time: Some(now.clone()),
            ..LeaseSpec::default()
        };
        let patch = Patch::Merge(serde_json::json!({ "spec": spec }));
        match self.api.patch(&self.name, &PatchParams::default(), &patch).await {
            Err(kube::Error::Api(status)) if status.is_not_found() => {}
            other => return other.map(drop),
        }
        spec.acquire_time = Some(now);
        let metadata = ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() };
        let parameters = PostParams { field_manager: Some(names::AGENT.to_owned()), ..PostParams::default() };
        self.api.create(&parameters, &Lease { metadata, spec: Some(spec) }).await.map(drop)
    }

    /// Until when the agent may write; `None`: not yet.
    pub fn fresh_until(&self) -> Option<Instant> {
        self.renewed.borrow().map(|renewed| renewed + FRESH)
    }

    /// Whether the agent may write now.
    pub fn is_fresh(&self) -> bool {
        self.fresh_until().is_some_and(|until| Instant::now() < until)
    }

    /// Changes with each renewal.
    pub fn renewals(&self) -> watch::Receiver<Option<Instant>> {
        self.renewed.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;
    use std::sync::atomic::Ordering;

    use serde_json::json;

    use super::*;
    use crate::agent::mock;

    #[tokio::test(start_paused = true)]
    async fn writing_ends_before_anyone_may_take_the_agent_for_gone() {
        let is_up = Arc::new(AtomicBool::new(true));
        let up = is_up.clone();
        let (client, _) = mock::client(move |_, _, _| {
            if up.load(Ordering::Relaxed) { (200, json!({"metadata": {"name": "a"}})) } else { (500, mock::failure(500)) }
        });
        let lease = Arc::new(OwnLease::new(client, "ns", "a", "a", mock::clock));
        assert!(!lease.is_fresh(), "not before the first renewal");
        let keeper = lease.clone();
        tokio::spawn(async move { keeper.keep().await });
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert!(lease.is_fresh());
        is_up.store(false, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_secs(27)).await;
        assert!(!lease.is_fresh());
        is_up.store(true, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert!(lease.is_fresh());
    }

    #[tokio::test]
    async fn a_lease_that_is_not_there_is_created() {
        let (client, calls) = mock::client(|method, _, _| match method {
            "PATCH" => (404, mock::failure(404)),
            _ => (201, json!({"metadata": {"name": "host-1"}})),
        });
        OwnLease::new(client, "dcv-system", "host-1", "host-1", mock::clock).renew().await.unwrap();
        let calls = calls.take();
        assert_eq!(calls.iter().map(|call| call.method.as_str()).collect::<Vec<_>>(), ["PATCH", "POST"]);
        assert_eq!(calls[1].body["metadata"], json!({"name": "host-1"}));
        assert_eq!(calls[1].body["spec"]["leaseDurationSeconds"], 40);
    }
}
