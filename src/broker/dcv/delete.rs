//! `DeleteSessions`.

use std::sync::Arc;

use axum::Extension;
use axum::Json;
use axum::extract::State;
use futures::StreamExt;
use futures::stream;

use super::super::App;
use super::super::RequestId;
use super::super::access_log;
use super::super::auth::Caller;
use super::super::body::Items;
use super::super::problem::Problem;
use super::super::store::SessionView;
use super::super::store::StoreError;
use super::NO_SUCH_SESSION;
use super::WRITES_AT_ONCE;
use super::check_items;
use super::failure_reason;
use super::lookup;
use super::lookup::Named;
use crate::api::ApiClient;
use crate::api::session::DesiredState;
use crate::api::session::SessionState;
use crate::wire::DeleteSessionRequestData;
use crate::wire::DeleteSessionSuccessfulResponse;
use crate::wire::DeleteSessionUnsuccessfulResponse;
use crate::wire::DeleteSessionsResponse;

const DONE: &str = "deleted";

/// `POST /deleteSessions`.
pub async fn delete_sessions(
    State(app): State<Arc<App>>,
    Caller(client): Caller,
    Extension(id): Extension<RequestId>,
    Items(requests): Items<DeleteSessionRequestData>,
) -> Result<Json<DeleteSessionsResponse>, Problem> {
    check_items(&requests)?;
    lookup::look_ahead(&app, &client, requests.iter().map(|request| request.session_id.as_deref())).await;
    let mut response = DeleteSessionsResponse { request_id: id.text(), ..DeleteSessionsResponse::default() };
    let mut outcomes = stream::iter(requests)
        .map(|request| async {
            let outcome = delete_one(&app, &client, &request).await;
            (request.session_id, outcome)
        })
        .buffered(WRITES_AT_ONCE);
    while let Some((session_id, outcome)) = outcomes.next().await {
        match outcome {
            Ok(state) => response.successful_list.push(DeleteSessionSuccessfulResponse {
                session_id: session_id.unwrap_or_default(),
                state: state.as_str().to_owned(),
            }),
            Err(failure_reason) => {
                response.unsuccessful_list.push(DeleteSessionUnsuccessfulResponse { session_id, failure_reason });
            }
        }
    }
    access_log::note_failed(response.unsuccessful_list.len());
    Ok(Json(response))
}

async fn delete_one(app: &App, client: &ApiClient, request: &DeleteSessionRequestData) -> Result<SessionState, String> {
    let named = Named::read(request.session_id.as_deref(), request.owner.as_deref())?;
    let view = named.find(app, client, DONE).await?;
    let outcome = match plan(app, &view, request.force.unwrap_or(false)) {
        Plan::Nothing => return Ok(view.session.shown_state()),
        Plan::Delete => app.store.delete(client, &view.session).await,
        Plan::Close(desired_state) => app.store.set_desired_state(client, &view.session, desired_state).await,
    };
    match outcome {
        Ok(()) => Ok(SessionState::Deleting),
        Err(StoreError::NotFound(_)) => Err(NO_SUCH_SESSION.to_owned()),
        Err(error) => Err(failure_reason("session", DONE, &error)),
    }
}

/// What to write.
#[derive(Debug, PartialEq)]
enum Plan {
    Nothing,
    Delete,
    Close(DesiredState),
}

fn plan(app: &App, view: &SessionView, force: bool) -> Plan {
    let session = &view.session;
    let is_kept = app.rules.delete_session_duration_seconds > 0;
    if session.is_finished() {
        // A creation that failed has no retention: its record goes. Nothing in a finished session can be changed.
        return if session.shown_state() == SessionState::Deleted { Plan::Nothing } else { Plan::Delete };
    }
    let wanted = if force { DesiredState::ForceClosed } else { DesiredState::Closed };
    let is_deleted = session.metadata.deletion_timestamp.is_some();
    // A delete waits for the host, so where that is away a forced one is an order to the controller.
    if is_kept || (force && !is_reachable(view)) {
        let is_asked_for = session.spec.desired_state >= wanted || (is_deleted && !force);
        return if is_asked_for { Plan::Nothing } else { Plan::Close(wanted) };
    }
    if is_deleted { Plan::Nothing } else { Plan::Delete }
}

/// Whether nothing stands in the way of an ordinary close.
fn is_reachable(view: &SessionView) -> bool {
    view.session.server_name().is_none() || view.server.as_ref().is_some_and(|view| !view.server.is_silent())
}
