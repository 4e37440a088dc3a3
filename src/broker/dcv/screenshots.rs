//! `GetSessionScreenshots`.
//!
//! The only call that asks agents. All items are under way at once, each within the limits of `agents`; whatever an agent
//! does, it is the failure of its items.

use std::io::Cursor;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use axum::Extension;
use axum::Json;
use axum::extract::State;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures::future::join_all;
use image::ImageReader;
use uuid::Uuid;

use super::super::App;
use super::super::RequestId;
use super::super::Rules;
use super::super::access_log;
use super::super::agents::Address;
use super::super::agents::Call;
use super::super::agents::CallError;
use super::super::auth::Caller;
use super::super::body::Items;
use super::super::problem::Problem;
use super::super::store::SessionView;
use super::check_items;
use super::is_shown;
use crate::api::ApiClient;
use crate::api::session::SessionState;
use crate::token::AgentClaims;
use crate::token::Kind;
use crate::token::agent::Action;
use crate::token::agent::ImageFormat;
use crate::token::agent::SCREENSHOT_PATH;
use crate::token::agent::ScreenshotOrder;
use crate::wire::GetSessionScreenshotRequestData;
use crate::wire::GetSessionScreenshotSuccessfulResponse;
use crate::wire::GetSessionScreenshotUnsuccessfulResponse;
use crate::wire::GetSessionScreenshotsResponse;
use crate::wire::SessionScreenshot;
use crate::wire::SessionScreenshotImage;

/// Text for a session that does not exist, or not for this client, as documented for this call.
const NOT_FOUND: &str = "Dcv session not found.";
const UNREACHABLE: &str = "The agent of the session's server cannot be reached";
const LATE: &str = "The screenshot was not taken in time, try again";
const NOT_TAKEN: &str = "The screenshot could not be taken, try again";
const NO_IMAGE: &str = "The agent of the session's server did not send an image";
const TOO_MUCH: &str = "The screenshots of this call are too large together: ask for fewer or smaller ones";

/// Seconds a token for an agent lives: longer than its call may wait, and little more.
const TOKEN_LIFETIME_SECONDS: i64 = 60;

/// Largest image, in bytes: a screen of 4K that does not compress well.
const IMAGE_MAX_BYTES: usize = 16 << 20;

/// What an image may be larger than its bare pixels, in bytes.
const IMAGE_HEAD_BYTES: usize = 64 << 10;

/// Largest sum of the images of one answer, in bytes; they are a third larger on the wire.
const ANSWER_MAX_BYTES: usize = 32 << 20;

/// `POST /getSessionScreenshots`.
pub async fn session_screenshots(
    State(app): State<Arc<App>>,
    Caller(client): Caller,
    Extension(id): Extension<RequestId>,
    Items(requests): Items<GetSessionScreenshotRequestData>,
) -> Result<Json<GetSessionScreenshotsResponse>, Problem> {
    check_items(&requests)?;
    let left = AtomicUsize::new(ANSWER_MAX_BYTES);
    let outcomes = join_all(requests.iter().map(|request| take(&app, &client, request, &left))).await;
    let mut response = GetSessionScreenshotsResponse { request_id: id.text(), ..Default::default() };
    for (request, outcome) in requests.into_iter().zip(outcomes) {
        match outcome {
            Ok(session_screenshot) => {
                response.successful_list.push(GetSessionScreenshotSuccessfulResponse { session_screenshot });
            }
            Err(failure_reason) => response.unsuccessful_list.push(GetSessionScreenshotUnsuccessfulResponse {
                get_session_screenshot_request_data: request,
                failure_reason,
            }),
        }
    }
    access_log::note_failed(response.unsuccessful_list.len());
    Ok(Json(response))
}

/// Takes the picture of one session. `left` is what the answer still has room for, in bytes.
async fn take(
    app: &App,
    client: &ApiClient,
    request: &GetSessionScreenshotRequestData,
    left: &AtomicUsize,
) -> Result<SessionScreenshot, String> {
    let id = request.session_id.as_ref().filter(|id| !id.is_empty()).ok_or("SessionId is required")?;
    let order = order(request, &app.rules)?;
    let view = find(app, client, id).await?;
    let address = reach(&view)?;
    let call = Call {
        path: SCREENSHOT_PATH,
        token: app.sign(&claims(app, client, &view, &address)).map_err(|problem| fault(&view, &problem))?,
        body: serde_json::to_vec(&order).expect("an order is plain data"),
        answer_max_bytes: answer_max_bytes(&order),
    };
    let image = app.agents.call(&address, call).await.map_err(|error| failure(&view, &error))?;
    if !is_image(&image, &order) {
        tracing::warn!(server = view.session.server_name(), "an agent sent something else than the image");
        return Err(NO_IMAGE.to_owned());
    }
    left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(image.len()))
        .map_err(|_| TOO_MUCH)?;
    let image = SessionScreenshotImage {
        format: order.format.as_str().to_owned(),
        data: STANDARD.encode(&image),
        creation_time: Some((app.now)()),
        // A session has one picture, whatever screens it has.
        primary: true,
    };
    Ok(SessionScreenshot { session_id: id.clone(), images: vec![image] })
}

/// What to ask for. Each size that is absent is the setting's; the screen's own size bounds it in any case.
fn order(request: &GetSessionScreenshotRequestData, rules: &Rules) -> Result<ScreenshotOrder, String> {
    let size = |name, given: Option<i64>, usual| match given {
        None => Ok(usual),
        Some(given) if given > 0 => Ok(u32::try_from(given).unwrap_or(u32::MAX)),
        Some(_) => Err(format!("{name} must be greater than 0")),
    };
    Ok(ScreenshotOrder {
        max_width: size("MaxWidth", request.max_width, rules.session_screenshot_max_width)?,
        max_height: size("MaxHeight", request.max_height, rules.session_screenshot_max_height)?,
        format: rules.session_screenshot_format,
    })
}

/// The client's READY session of this id.
async fn find(app: &App, client: &ApiClient, id: &str) -> Result<SessionView, String> {
    let found = app.store.find_sessions(client, &[id.to_owned()]).await.map_err(|error| {
        tracing::error!(error = &error as &dyn std::error::Error, "a session was not looked up");
        NOT_TAKEN
    })?;
    let now = (app.now)();
    let mut shown: Vec<_> = found.into_iter().filter(|view| is_shown(&view.session, &app.rules, now)).collect();
    // Hosts may give the same id; then the one that has a screen is meant.
    let is_ready = |view: &SessionView| view.session.shown_state() == SessionState::Ready;
    let ready = shown.iter().position(is_ready);
    match ready.map(|ready| shown.swap_remove(ready)) {
        Some(view) => Ok(view),
        None if shown.is_empty() => Err(NOT_FOUND.to_owned()),
        None => Err(format!("Session {id} is not in READY state")),
    }
}

/// Where the agent of the session's server is. One that is known to be silent is not tried.
fn reach(view: &SessionView) -> Result<Address, String> {
    let server = view.server.as_ref().map(|view| &view.server).filter(|server| !server.is_silent());
    server.and_then(|server| Address::of(server)).ok_or_else(|| UNREACHABLE.to_owned())
}

fn claims(app: &App, client: &ApiClient, view: &SessionView, address: &Address) -> AgentClaims {
    let iat = (app.now)().as_second();
    AgentClaims {
        action: Action::Screenshot,
        server_uid: address.server_uid.clone(),
        session_id: view.session.id().to_owned(),
        attempt: view.session.attempt(),
        client_uid: client.metadata.uid.clone().unwrap_or_default(),
        iat,
        exp: iat + TOKEN_LIFETIME_SECONDS,
        jti: Uuid::new_v4().to_string(),
        aud: Kind::Agent.audience().to_owned(),
    }
}

/// No image that was asked for is larger, so that a small one costs little memory whatever an agent sends.
fn answer_max_bytes(order: &ScreenshotOrder) -> usize {
    let pixels = u64::from(order.max_width).saturating_mul(order.max_height.into());
    let bare = usize::try_from(pixels.saturating_mul(4)).unwrap_or(usize::MAX);
    bare.saturating_add(IMAGE_HEAD_BYTES).min(IMAGE_MAX_BYTES)
}

/// Whether its head says that it is an image of the format and no larger than asked for.
fn is_image(bytes: &[u8], order: &ScreenshotOrder) -> bool {
    let format = match order.format {
        ImageFormat::Png => image::ImageFormat::Png,
        ImageFormat::Jpeg => image::ImageFormat::Jpeg,
    };
    let size = ImageReader::with_format(Cursor::new(bytes), format).into_dimensions();
    size.is_ok_and(|(width, height)| width <= order.max_width && height <= order.max_height)
}

/// What the client is told. The words of agents and the reasons of connections name our network and its hosts: the log's.
fn failure(view: &SessionView, error: &CallError) -> String {
    let server = view.session.server_name();
    tracing::warn!(server, session = view.session.id(), error = error as &dyn std::error::Error, "no screenshot");
    match error {
        CallError::Unreachable(_) => UNREACHABLE,
        CallError::Late => LATE,
        CallError::Refused { .. } => NOT_TAKEN,
        CallError::Unreadable(_) => NO_IMAGE,
    }
    .to_owned()
}

fn fault(view: &SessionView, problem: &Problem) -> String {
    tracing::error!(session = view.session.id(), ?problem, "a call of an agent was not signed");
    NOT_TAKEN.to_owned()
}

#[cfg(test)]
mod tests;
