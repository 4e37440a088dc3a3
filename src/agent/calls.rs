//! What brokers ask of the agent, on its HTTPS server: pictures of sessions' screens.
//!
//! Each call carries a token that names the server, the session and its bind, and nothing else gets an answer. Runs beside
//! the agent's loop and shares only what the gate looks at.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::extract::FromRequestParts;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::http::HeaderMap;
use axum::http::StatusCode;
use axum::http::header;
use axum::http::request::Parts;
use axum::response::IntoResponse;
use axum::response::Response;
use axum::routing::post;
use tokio::sync::Semaphore;

use super::backend::Backend;
use super::backend::BackendError;
use super::backend::ImageFormat;
use super::backend::ScreenshotRequest;
use super::gate;
use super::gate::View;
use crate::token::AgentClaims;
use crate::token::agent;
use crate::token::agent::Action;
use crate::token::agent::Refusal;
use crate::token::agent::SCREENSHOT_PATH;
use crate::token::agent::ScreenshotOrder;

/// Pictures taken at once; more wait. As many as one broker asks for at once.
const AT_ONCE: usize = 5;

/// Longest time until a call is answered, waiting included. Less than brokers wait, so that they hear why.
const TIMEOUT: Duration = Duration::from_secs(8);

/// Largest body worth reading: two numbers and a word.
const BODY_MAX_BYTES: usize = 1024;

/// What every call works with.
struct Calls<B> {
    backend: Arc<B>,
    view: Arc<dyn View>,
    places: Semaphore,
    timeout: Duration,
}

/// Everything brokers ask for.
pub fn router<B: Backend>(backend: Arc<B>, view: Arc<dyn View>) -> Router {
    answering_within(TIMEOUT, backend, view)
}

fn answering_within<B: Backend>(timeout: Duration, backend: Arc<B>, view: Arc<dyn View>) -> Router {
    Router::new()
        .route(SCREENSHOT_PATH, post(screenshot::<B>))
        .layer(DefaultBodyLimit::max(BODY_MAX_BYTES))
        .with_state(Arc::new(Calls { backend, view, places: Semaphore::new(AT_ONCE), timeout }))
}

/// A broker, and what its token allows. Checked before anything else of the request is read.
struct Broker(AgentClaims);

impl<B: Backend> FromRequestParts<Arc<Calls<B>>> for Broker {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, calls: &Arc<Calls<B>>) -> Result<Self, Response> {
        let admitted = bearer(&parts.headers).and_then(|token| gate::admit_broker(calls.view.as_ref(), token));
        admitted.map(Self).map_err(|refusal| {
            tracing::info!(%refusal, "a call was refused");
            (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, "Bearer")]).into_response()
        })
    }
}

fn bearer(headers: &HeaderMap) -> Result<&str, Refusal> {
    let value = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    value.and_then(|value| value.strip_prefix("Bearer ")).ok_or(Refusal::Missing)
}

/// `POST /agent/screenshot`. 404: not a session of ours, or not any more. 503, and why: no picture could be taken.
async fn screenshot<B: Backend>(
    State(calls): State<Arc<Calls<B>>>,
    Broker(claims): Broker,
    order: Result<Json<ScreenshotOrder>, JsonRejection>,
) -> Response {
    let Action::Screenshot = claims.action;
    let Ok(Json(order)) = order else { return StatusCode::BAD_REQUEST.into_response() };
    if !gate::is_current(calls.view.as_ref(), &claims) {
        return StatusCode::NOT_FOUND.into_response();
    }
    match tokio::time::timeout(calls.timeout, calls.take(&claims.session_id, order)).await {
        Ok(Ok(picture)) => {
            let headers = [(header::CONTENT_TYPE, order.format.content_type()), (header::CACHE_CONTROL, "no-store")];
            (headers, picture).into_response()
        }
        Ok(Err(error)) => unavailable(&claims.session_id, &error.to_string()),
        Err(_) => unavailable(&claims.session_id, "the host did not take the picture in time"),
    }
}

fn unavailable(session: &str, why: &str) -> Response {
    tracing::info!(session, why, "no screenshot");
    (StatusCode::SERVICE_UNAVAILABLE, why.to_owned()).into_response()
}

impl<B: Backend> Calls<B> {
    async fn take(&self, session_id: &str, order: ScreenshotOrder) -> Result<Vec<u8>, BackendError> {
        let _place = self.places.acquire().await.expect("nobody closes it");
        let format = match order.format {
            agent::ImageFormat::Png => ImageFormat::Png,
            agent::ImageFormat::Jpeg => ImageFormat::Jpeg,
        };
        let request = ScreenshotRequest { max_width: order.max_width, max_height: order.max_height, format };
        self.backend.screenshot(session_id, request).await
    }
}

#[cfg(test)]
mod tests;
