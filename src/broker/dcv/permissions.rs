//! `UpdateSessionPermissions`.

use std::sync::Arc;

use axum::Extension;
use axum::Json;
use axum::extract::State;

use super::super::App;
use super::super::RequestId;
use super::super::access_log;
use super::super::auth::Caller;
use super::super::body::Items;
use super::super::problem::Problem;
use super::super::store::StoreError;
use super::NO_SUCH_SESSION;
use super::check;
use super::check_items;
use super::failure_reason;
use super::in_turn;
use super::lookup;
use super::lookup::Named;
use crate::api::ApiClient;
use crate::wire::UpdateSessionPermissionsRequestData;
use crate::wire::UpdateSessionPermissionsResponse;
use crate::wire::UpdateSessionPermissionsSuccessfulResponse;
use crate::wire::UpdateSessionPermissionsUnsuccessfulResponse;

const DONE: &str = "changed";
const OVER: &str = "The session is over, nobody can connect to it any more";
const CLOSING: &str = "The session is being deleted";

/// `PUT /sessionPermissions`: the file replaces the session's. Success means that it is the wanted one; the agent of the
/// session's server sees to it, on connected clients too.
pub async fn update_session_permissions(
    State(app): State<Arc<App>>,
    Caller(client): Caller,
    Extension(id): Extension<RequestId>,
    Items(requests): Items<UpdateSessionPermissionsRequestData>,
) -> Result<Json<UpdateSessionPermissionsResponse>, Problem> {
    check_items(&requests)?;
    lookup::look_ahead(&app, &client, requests.iter().map(|request| request.session_id.as_deref())).await;
    let session_id = |request: &UpdateSessionPermissionsRequestData| request.session_id.clone();
    let outcomes = in_turn(requests, session_id, |request| async {
        let outcome = update_one(&app, &client, &request).await;
        (request.session_id, outcome)
    });
    let mut response =
        UpdateSessionPermissionsResponse { request_id: id.text(), ..UpdateSessionPermissionsResponse::default() };
    for (session_id, outcome) in outcomes.await {
        match outcome {
            Ok(()) => response
                .successful_list
                .push(UpdateSessionPermissionsSuccessfulResponse { session_id: session_id.unwrap_or_default() }),
            Err(failure_reason) => response
                .unsuccessful_list
                .push(UpdateSessionPermissionsUnsuccessfulResponse { session_id, failure_reason }),
        }
    }
    access_log::note_failed(response.unsuccessful_list.len());
    Ok(Json(response))
}

async fn update_one(
    app: &App,
    client: &ApiClient,
    request: &UpdateSessionPermissionsRequestData,
) -> Result<(), String> {
    let named = Named::read(request.session_id.as_deref(), request.owner.as_deref())?;
    let text = check::permissions(request.permissions_file.as_deref())?.ok_or("PermissionsFile is required")?;
    let session = named.find(app, client, DONE).await?.session;
    if session.is_finished() {
        return Err(OVER.to_owned());
    }
    if session.is_closing() {
        return Err(CLOSING.to_owned());
    }
    // Also where it seems to be so already: another replica may have changed it a moment ago.
    match app.store.set_permissions(client, &session, &text).await {
        Ok(()) => Ok(()),
        Err(StoreError::NotFound(_)) => Err(NO_SUCH_SESSION.to_owned()),
        Err(error) => Err(failure_reason("session", DONE, &error)),
    }
}
