//! `OpenServers` and `CloseServers`.
//!
//! Both concern only whether a server takes new sessions. What runs there goes on.

use std::collections::HashMap;
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
use super::check_items;
use super::convert;
use super::failure_reason;
use super::in_turn;
use crate::api::ApiClient;
use crate::api::DcvServer;
use crate::wire::CloseServerRequestData;
use crate::wire::CloseServerSuccessfulResponse;
use crate::wire::CloseServerUnsuccessfulResponse;
use crate::wire::CloseServersResponse;
use crate::wire::OpenServerRequestData;
use crate::wire::OpenServerSuccessfulResponse;
use crate::wire::OpenServerUnsuccessfulResponse;
use crate::wire::OpenServersResponse;

/// Why a server is not opened or closed: a code for programs, a text for people.
struct Failure {
    code: &'static str,
    reason: String,
}

impl Failure {
    fn new(code: &'static str, reason: &str) -> Self {
        Self { code, reason: reason.to_owned() }
    }

    /// In the documented words.
    fn not_found() -> Self {
        Self::new("DCV_SERVER_NOT_FOUND", "Dcv server not found.")
    }

    fn has_sessions() -> Self {
        Self::new("DCV_SERVER_HAS_SESSIONS", "Dcv server has running sessions.")
    }

    fn of(error: &StoreError, done: &str) -> Self {
        let code = match error {
            StoreError::NotFound(_) => return Self::not_found(),
            StoreError::Refused(_) => "REQUEST_REFUSED",
            _ => "INTERNAL_ERROR",
        };
        Self { code, reason: failure_reason("server", done, error) }
    }
}

/// `POST /openServers`: the servers take new sessions. One that is open already stays so.
pub async fn open_servers(
    State(app): State<Arc<App>>,
    Caller(client): Caller,
    Extension(id): Extension<RequestId>,
    Items(requests): Items<OpenServerRequestData>,
) -> Result<Json<OpenServersResponse>, Problem> {
    check_items(&requests)?;
    let reach = Reach::of(&app, &client);
    let server_id = |request: &OpenServerRequestData| request.server_id.clone();
    let outcomes = in_turn(requests, server_id, |request| async {
        let outcome = open_one(&app, &client, &reach, &request).await;
        (request, outcome)
    });
    let mut response = OpenServersResponse { request_id: id.text(), ..OpenServersResponse::default() };
    for (request, outcome) in outcomes.await {
        match outcome {
            Ok(()) => response
                .successful_list
                .push(OpenServerSuccessfulResponse { server_id: request.server_id.unwrap_or_default() }),
            Err(failure) => response.unsuccessful_list.push(OpenServerUnsuccessfulResponse {
                open_server_request_data: request,
                failure_code: failure.code.to_owned(),
                failure_reason: failure.reason,
            }),
        }
    }
    access_log::note_failed(response.unsuccessful_list.len());
    Ok(Json(response))
}

/// `POST /closeServers`: the servers take no new sessions. Without `Force` only those on which nothing is.
pub async fn close_servers(
    State(app): State<Arc<App>>,
    Caller(client): Caller,
    Extension(id): Extension<RequestId>,
    Items(requests): Items<CloseServerRequestData>,
) -> Result<Json<CloseServersResponse>, Problem> {
    check_items(&requests)?;
    let reach = Reach::of(&app, &client);
    let server_id = |request: &CloseServerRequestData| request.server_id.clone();
    let outcomes = in_turn(requests, server_id, |request| async {
        let outcome = close_one(&app, &client, &reach, &request).await;
        (request, outcome)
    });
    let mut response = CloseServersResponse { request_id: id.text(), ..CloseServersResponse::default() };
    for (request, outcome) in outcomes.await {
        match outcome {
            Ok(()) => response
                .successful_list
                .push(CloseServerSuccessfulResponse { server_id: request.server_id.unwrap_or_default() }),
            Err(failure) => response.unsuccessful_list.push(CloseServerUnsuccessfulResponse {
                close_server_request_data: request,
                failure_code: failure.code.to_owned(),
                failure_reason: failure.reason,
            }),
        }
    }
    access_log::note_failed(response.unsuccessful_list.len());
    Ok(Json(response))
}

/// The servers a client may open and close: those it is shown, by id. `None`: it may not.
struct Reach(Option<HashMap<String, Arc<DcvServer>>>);

impl Reach {
    fn of(app: &App, client: &ApiClient) -> Self {
        if !client.spec.manage_servers {
            return Self(None);
        }
        let now = (app.now)();
        let shown = app.store.servers(client).into_iter().filter(|view| convert::is_listed(view, &app.rules, now));
        Self(Some(shown.filter_map(|view| Some((view.server.metadata.uid.clone()?, view.server))).collect()))
    }

    /// A client that may not manage servers is not told which there are.
    fn find(&self, id: Option<&str>) -> Result<&DcvServer, Failure> {
        let Self(Some(servers)) = self else {
            return Err(Failure::new("CLIENT_NOT_AUTHORIZED", "The client may not open and close servers."));
        };
        let id = id.filter(|id| !id.is_empty());
        let id = id.ok_or_else(|| Failure::new("INVALID_REQUEST", "ServerId is required."))?;
        servers.get(id).map(AsRef::as_ref).ok_or_else(Failure::not_found)
    }
}

async fn open_one(
    app: &App,
    client: &ApiClient,
    reach: &Reach,
    request: &OpenServerRequestData,
) -> Result<(), Failure> {
    let server = reach.find(request.server_id.as_deref())?;
    app.store.open_server(client, server).await.map_err(|error| Failure::of(&error, "opened"))
}

async fn close_one(
    app: &App,
    client: &ApiClient,
    reach: &Reach,
    request: &CloseServerRequestData,
) -> Result<(), Failure> {
    let server = reach.find(request.server_id.as_deref())?;
    let closed = app.store.close_server(client, server, request.force.unwrap_or(false)).await;
    let is_closed = closed.map_err(|error| Failure::of(&error, "closed"))?;
    if is_closed { Ok(()) } else { Err(Failure::has_sessions()) }
}
