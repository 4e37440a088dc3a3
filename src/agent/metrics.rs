//! What agents measure of their servers and of what they do there.
//!
//! Kept for the process: a process serves one server, and a hundred made-up ones in tests.

use std::sync::LazyLock;
use std::time::Instant;

use jiff::Timestamp;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::cluster::lease::ServerLease;
use crate::telemetry::metrics;
use crate::telemetry::metrics::Labels;

/// Bounds in seconds: a made-up desktop takes milliseconds, the create limit is two minutes.
const SECONDS: [f64; 11] = [0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0];

type OfServer = [(&'static str, String); 1];

struct Measured {
    actions: Family<Labels<2>, Histogram>,
    sessions: Family<OfServer, Gauge>,
    healthy: Family<OfServer, Gauge>,
    renewed: Family<OfServer, Gauge>,
}

static MEASURED: LazyLock<Measured> = LazyLock::new(|| Measured {
    actions: Family::new_with_constructor(|| Histogram::new(SECONDS)),
    sessions: Family::default(),
    healthy: Family::default(),
    renewed: Family::default(),
});

/// The registry of an agent.
pub fn registry() -> Registry {
    let mut registry = metrics::registry();
    let Measured { actions, sessions, healthy, renewed } = &*MEASURED;
    registry.register("dcv_agent_action_duration_seconds", "Time of what is done on the host", actions.clone());
    registry.register("dcv_agent_host_sessions", "Sessions on the host, others' too", sessions.clone());
    registry.register("dcv_agent_backend_healthy", "Whether the desktop server answers and is well", healthy.clone());
    registry.register(
        "dcv_agent_lease_renewed_timestamp_seconds",
        "When the server's Lease was renewed, Unix time",
        renewed.clone(),
    );
    registry
}

/// Measures something that is done on the host.
pub async fn measured<T, E>(action: &'static str, work: impl Future<Output = Result<T, E>>) -> Result<T, E> {
    let begun = Instant::now();
    let done = work.await;
    let result = if done.is_ok() { "success" } else { "error" };
    let labels = [("action", action), ("result", result)];
    MEASURED.actions.get_or_create(&labels).observe(begun.elapsed().as_secs_f64());
    done
}

/// How many sessions the host runs; `None`: it did not say. `is_healthy`: as the server's status has it.
pub fn looked(server: &str, sessions: Option<usize>, is_healthy: bool) {
    let labels = [("server", server.to_owned())];
    if let Some(sessions) = sessions {
        MEASURED.sessions.get_or_create(&labels).set(i64::try_from(sessions).unwrap_or(i64::MAX));
    }
    MEASURED.healthy.get_or_create(&labels).set(i64::from(is_healthy));
}

/// Notes how old the server's Lease is.
pub fn noted_lease(server: &str, lease: &ServerLease, now: Timestamp) {
    let Some(renewed) = lease.last_renewed() else { return };
    let age = i64::try_from(renewed.elapsed().as_secs()).unwrap_or(i64::MAX);
    let labels = [("server", server.to_owned())];
    MEASURED.renewed.get_or_create(&labels).set(now.as_second().saturating_sub(age));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_page_lists_what_an_agent_serves() {
        measured("test-page", async { Ok::<(), ()>(()) }).await.unwrap();
        looked("metrics-2", Some(0), true);
        MEASURED.renewed.get_or_create(&[("server", "metrics-2".to_owned())]).set(1);
        crate::telemetry::page::check("agent", &registry());
    }

    #[tokio::test]
    async fn what_is_done_on_the_host_is_measured_by_its_end() {
        measured("test", async { Ok::<(), ()>(()) }).await.unwrap();
        measured("test", async { Err::<(), ()>(()) }).await.unwrap_err();
        looked("metrics-1", Some(3), true);
        looked("metrics-1", None, false);
        let text = metrics::text(&registry()).unwrap();
        for line in [
            "dcv_agent_action_duration_seconds_count{action=\"test\",result=\"success\"} 1",
            "dcv_agent_action_duration_seconds_count{action=\"test\",result=\"error\"} 1",
            "dcv_agent_host_sessions{server=\"metrics-1\"} 3",
            "dcv_agent_backend_healthy{server=\"metrics-1\"} 0",
        ] {
            assert!(text.lines().any(|it| it == line), "{line}\n{text}");
        }
    }
}
