//! The health server: `/livez`, `/readyz`, `/metrics` and `/loglevel`, plain HTTP.
//!
//! Live means that the process turns; ready means what the role says, usually that its caches are filled, and that its
//! watches are heard of. What is logged is told and changed only from the machine or pod itself: the port is open to
//! whoever scrapes, and who can make a process log everything can fill its disk.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use axum::extract::DefaultBodyLimit;
use axum::extract::Request;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::middleware;
use axum::middleware::Next;
use axum::response::IntoResponse;
use axum::response::Response;
use axum::routing::get;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::logs;
use super::metrics;
use super::watches;

/// Longest filter of the log.
const LEVEL_MAX_BYTES: usize = 4096;

/// Serves health and metrics until it is dropped.
///
/// # Errors
/// When `address` cannot be listened on.
pub async fn serve(address: SocketAddr, ready: watch::Receiver<bool>, registry: Arc<Registry>) -> io::Result<()> {
    let listener = TcpListener::bind(address).await?;
    tracing::info!(address = %listener.local_addr()?, "Serving health and metrics");
    let routes = router(ready, registry, watches::DEAF_AFTER);
    axum::serve(listener, routes.into_make_service_with_connect_info::<SocketAddr>()).await
}

#[derive(Clone)]
struct Shared {
    ready: watch::Receiver<bool>,
    registry: Arc<Registry>,
    deaf_after: Duration,
}

/// The routes. A process one of whose watches is silent for `deaf_after` is not ready.
pub fn router(ready: watch::Receiver<bool>, registry: Arc<Registry>, deaf_after: Duration) -> Router {
    let level = get(level).put(set_level).layer(DefaultBodyLimit::max(LEVEL_MAX_BYTES));
    Router::new()
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(readiness))
        .route("/metrics", get(scrape))
        .route("/loglevel", level.layer(middleware::from_fn(only_from_here)))
        .with_state(Shared { ready, registry, deaf_after })
}

async fn readiness(State(shared): State<Shared>) -> (StatusCode, String) {
    if !*shared.ready.borrow() {
        return (StatusCode::SERVICE_UNAVAILABLE, "not ready\n".to_owned());
    }
    let deaf = watches::deaf(shared.deaf_after);
    if deaf.is_empty() {
        return (StatusCode::OK, "ok\n".to_owned());
    }
    let words = deaf.iter().map(|(resource, silence)| {
        format!("not ready: nothing was heard of {resource} for {} seconds\n", silence.as_secs())
    });
    (StatusCode::SERVICE_UNAVAILABLE, words.collect())
}

async fn scrape(State(shared): State<Shared>) -> Response {
    match metrics::text(&shared.registry) {
        Ok(text) => {
            ([(CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text).into_response()
        }
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// Lets requests through that come from this machine, in a pod from the pod itself, as those of `kubectl port-forward` do.
async fn only_from_here(request: Request, next: Next) -> Response {
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>();
    if peer.is_some_and(|ConnectInfo(peer)| peer.ip().to_canonical().is_loopback()) {
        return next.run(request).await;
    }
    (StatusCode::FORBIDDEN, "only from the machine or pod itself\n").into_response()
}

async fn level() -> String {
    format!("{}\n", logs::level().unwrap_or_default())
}

async fn set_level(level: String) -> (StatusCode, String) {
    let level = level.trim();
    match logs::set_level(level) {
        Ok(()) => {
            tracing::warn!(filter = level, "Log level changed");
            (StatusCode::OK, format!("{level}\n"))
        }
        Err(error) => (StatusCode::BAD_REQUEST, format!("{error}\n")),
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::Request;
    use http_body_util::BodyExt;
    use prometheus_client::metrics::counter::Counter;
    use tower::ServiceExt;

    use super::*;

    async fn send(router: &Router, mut request: Request<Body>, peer: &str) -> (StatusCode, String) {
        let peer: SocketAddr = peer.parse().unwrap();
        request.extensions_mut().insert(ConnectInfo(peer));
        let response = router.clone().oneshot(request).await.unwrap();
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    async fn ask(router: &Router, path: &str) -> (StatusCode, String) {
        send(router, Request::get(path).body(Body::empty()).unwrap(), "192.0.2.1:4000").await
    }

    #[tokio::test]
    async fn live_at_once_ready_when_told_and_metrics_as_text() {
        let mut registry = Registry::default();
        let counter: Counter = Counter::default();
        registry.register("things", "Things", counter.clone());
        counter.inc();
        let (tell, ready) = watch::channel(false);
        let router = router(ready, Arc::new(registry), Duration::MAX);
        assert_eq!(ask(&router, "/livez").await.0, StatusCode::OK);
        assert_eq!(ask(&router, "/readyz").await.0, StatusCode::SERVICE_UNAVAILABLE);
        tell.send(true).unwrap();
        assert_eq!(ask(&router, "/readyz").await.0, StatusCode::OK);
        assert!(ask(&router, "/metrics").await.1.contains("things_total 1"));
        tell.send(false).unwrap();
        assert_eq!(ask(&router, "/readyz").await.0, StatusCode::SERVICE_UNAVAILABLE);
    }

    #[tokio::test]
    async fn a_silent_watch_makes_a_process_unready_and_the_answer_names_it() {
        let _following = watches::follow("/apis/a/v1/quietthings", None);
        let (_tell, ready) = watch::channel(true);
        let router = router(ready, Arc::default(), Duration::ZERO);
        let (status, text) = ask(&router, "/readyz").await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(text.contains("nothing was heard of quietthings for 0 seconds"), "{text}");
        assert_eq!(ask(&router, "/livez").await.0, StatusCode::OK, "a restart would mend nothing");
    }

    #[tokio::test]
    async fn the_log_level_is_for_this_machine_only() {
        let (_tell, ready) = watch::channel(true);
        let router = router(ready, Arc::default(), Duration::MAX);
        let put = |level: &str| Request::put("/loglevel").body(Body::from(level.to_owned())).unwrap();
        assert_eq!(ask(&router, "/loglevel").await.0, StatusCode::FORBIDDEN);
        assert_eq!(send(&router, put("debug"), "192.0.2.1:4000").await.0, StatusCode::FORBIDDEN);
        for here in ["127.0.0.1:4000", "[::1]:4000", "[::ffff:127.0.0.1]:4000"] {
            // No test starts logging, so a level that parses is refused as well, for another reason.
            let (status, text) = send(&router, put("debug"), here).await;
            assert_eq!((status, text.as_str()), (StatusCode::BAD_REQUEST, "logging was not started\n"));
        }
    }
}
