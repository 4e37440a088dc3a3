//! `GetSessionConnectionData`.

use std::sync::Arc;

use axum::Json;
use axum::extract::Path;
use axum::extract::State;
use axum::extract::rejection::PathRejection;
use axum::response::IntoResponse;
use axum::response::Response;
use uuid::Uuid;

use super::super::App;
use super::super::auth::Caller;
use super::super::problem::Problem;
use super::NO_SUCH_SESSION;
use super::convert;
use super::is_shown;
use super::lookup;
use crate::api::ApiClient;
use crate::api::DcvSession;
use crate::api::session::SessionState;
use crate::token::ConnectionClaims;
use crate::token::Kind;
use crate::wire::GetSessionConnectionDataResponse;

/// Text for a desktop that is listed but that no object here stands for: a verifier would not know the session of a token.
const UNMANAGED: &str = "The session runs on its host without a record here, so no token opens it";

/// Longest name of a person, in characters.
const USER_MAX_CHARACTERS: usize = 256;

/// `GET /sessionConnectionData/{sessionId}/{user}`: a new token for one person and one session. What the person may do
/// there is the session's permissions' business.
pub async fn session_connection_data(
    State(app): State<Arc<App>>,
    Caller(client): Caller,
    path: Result<Path<(String, String)>, PathRejection>,
) -> Result<Response, Problem> {
    let Path((session_id, user)) =
        path.map_err(|_| Problem::Invalid("Invalid input: the path is not percent-encoded UTF-8".to_owned()))?;
    if user.chars().any(char::is_control) || user.chars().count() > USER_MAX_CHARACTERS {
        return Err(Problem::Invalid("Invalid input: the user is too long or has control characters".to_owned()));
    }
    let now = (app.now)();
    let ids = [session_id];
    let [session_id] = &ids;
    let mut found = app.store.find_sessions(&client, &ids).await?;
    found.retain(|view| is_shown(&view.session, &app.rules, now));
    // Hosts may give the same id; then the one that can be connected to is meant.
    let Some(view) = found.iter().find(|view| is_connectable(&view.session)).or(found.first()) else {
        let is_unmanaged = !lookup::others(&app, &client, &ids).is_empty();
        return Err(Problem::Invalid(if is_unmanaged { UNMANAGED } else { NO_SUCH_SESSION }.to_owned()));
    };
    if !is_connectable(&view.session) {
        return Err(Problem::Invalid(format!("Session {session_id} is neither in READY nor in UNKNOWN state")));
    }
    let connection_token = app.sign(&claims(&app, &client, &view.session, user))?;
    let session = convert::session(view, &app.rules, now);
    Ok(Json(GetSessionConnectionDataResponse { session, connection_token }).into_response())
}

/// READY, or UNKNOWN because its server cannot be reached; not a creation that failed. One that never was READY has no
/// address.
fn is_connectable(session: &DcvSession) -> bool {
    let has_address = session.status.as_ref().is_some_and(|status| status.server.is_some());
    has_address
        && !session.is_finished()
        && matches!(session.shown_state(), SessionState::Ready | SessionState::Unknown)
}

fn claims(app: &App, client: &ApiClient, session: &DcvSession, user: String) -> ConnectionClaims {
    let iat = (app.now)().as_second();
    let server_uid = session.status.as_ref().and_then(|status| status.server_uid.clone());
    ConnectionClaims {
        session_id: session.id().to_owned(),
        session_owner: session.spec.owner.clone(),
        session_user: user,
        server_uid: server_uid.unwrap_or_default(),
        attempt: session.attempt(),
        client_uid: client.metadata.uid.clone(),
        iat,
        exp: iat + i64::from(app.rules.connect_session_token_duration_minutes) * 60,
        jti: Uuid::new_v4().to_string(),
        aud: Kind::Connection.audience().to_owned(),
    }
}
