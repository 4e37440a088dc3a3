//! The health server: `/livez`, `/readyz` and `/metrics`, plain HTTP.
//!
//! Live means that the process turns; ready means what the role says, usually that its caches are filled.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::response::Response;
use axum::routing::get;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::sync::watch;

/// Serves health and metrics until it is dropped.
///
/// # Errors
/// When `address` cannot be listened on.
pub async fn serve(address: SocketAddr, ready: watch::Receiver<bool>, registry: Arc<Registry>) -> io::Result<()> {
    let listener = TcpListener::bind(address).await?;
    tracing::info!(address = %listener.local_addr()?, "Serving health and metrics");
    axum::serve(listener, router(ready, registry)).await
}

#[derive(Clone)]
struct Shared {
    ready: watch::Receiver<bool>,
    registry: Arc<Registry>,
}

/// The routes, for tests and for roles that serve them beside their own.
pub fn router(ready: watch::Receiver<bool>, registry: Arc<Registry>) -> Router {
    Router::new()
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(readiness))
        .route("/metrics", get(metrics))
        .with_state(Shared { ready, registry })
}

async fn readiness(State(shared): State<Shared>) -> (StatusCode, &'static str) {
    if *shared.ready.borrow() { (StatusCode::OK, "ok\n") } else { (StatusCode::SERVICE_UNAVAILABLE, "not ready\n") }
}

async fn metrics(State(shared): State<Shared>) -> Response {
    let mut text = String::new();
    match encode(&mut text, &shared.registry) {
        Ok(()) => {
            ([(CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text).into_response()
        }
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
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

    async fn ask(router: &Router, path: &str) -> (StatusCode, String) {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let response = router.clone().oneshot(request).await.unwrap();
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn live_at_once_ready_when_told_and_metrics_as_text() {
        let mut registry = Registry::default();
        let counter: Counter = Counter::default();
        registry.register("things", "Things", counter.clone());
        counter.inc();
        let (tell, ready) = watch::channel(false);
        let router = router(ready, Arc::new(registry));
        assert_eq!(ask(&router, "/livez").await.0, StatusCode::OK);
        assert_eq!(ask(&router, "/readyz").await.0, StatusCode::SERVICE_UNAVAILABLE);
        tell.send(true).unwrap();
        assert_eq!(ask(&router, "/readyz").await.0, StatusCode::OK);
        assert!(ask(&router, "/metrics").await.1.contains("things_total 1"));
    }
}
