//! The session resolver: connection gateways ask where a session is.
//!
//! It opens nothing: the token goes through the gateway to the desktop server, which has it verified. So it has no
//! clients and tenants; who may ask is the network's business, or mutual TLS's.
//!
//! Source: "Setting up a Session Resolver" in the Amazon DCV Connection Gateway Administrator Guide.

mod names;

use std::sync::Arc;

use axum::Json;
use axum::Router;
use axum::extract::FromRef;
use axum::extract::Query;
use axum::extract::State;
use axum::extract::rejection::QueryRejection;
use axum::routing::get;
use axum::routing::post;
use serde::Deserialize;
use serde::Serialize;

pub use self::names::DnsNames;
pub use self::names::Error;

use super::App;
use super::guarded;
use super::health;
use super::problem::Problem;
use super::store::Located;
use crate::api::DcvServer;
use crate::api::server::Protocol;
use crate::api::session::SessionServer;
use crate::api::session::SessionState;

/// Requests have no body.
const BODY_MAX_BYTES: usize = 4096;

#[derive(Clone)]
struct Resolver {
    app: Arc<App>,
    names: Arc<DnsNames>,
}

impl FromRef<Resolver> for Arc<App> {
    fn from_ref(resolver: &Resolver) -> Self {
        Arc::clone(&resolver.app)
    }
}

/// Everything served to gateways.
pub fn router(app: Arc<App>, names: Arc<DnsNames>) -> Router {
    let routes = Router::new().route("/health", get(health)).route("/resolveSession", post(resolve_session));
    guarded(routes, BODY_MAX_BYTES, &app.rules).with_state(Resolver { app, names })
}

/// The documented parameters. `clientIpAddress` may be a balancer's: nothing is decided by it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Parameters {
    session_id: Option<String>,
    transport: Option<String>,
}

/// Where a gateway is to connect to.
#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Destination {
    session_id: String,
    transport_protocol: &'static str,
    dcv_server_endpoint: String,
    port: i32,
    web_url_path: String,
}

/// `POST /resolveSession`, with its parameters in the query.
async fn resolve_session(
    State(Resolver { app, names }): State<Resolver>,
    parameters: Result<Query<Parameters>, QueryRejection>,
) -> Result<Json<Destination>, Problem> {
    let invalid = |text: &str| Problem::Invalid(text.to_owned());
    let Query(parameters) = parameters.map_err(|_| invalid("Invalid parameters"))?;
    let session_id =
        parameters.session_id.filter(|id| !id.is_empty()).ok_or_else(|| invalid("Missing sessionId parameter"))?;
    let transport = match parameters.transport.as_deref() {
        Some("HTTP") => Protocol::Http,
        Some("QUIC") => Protocol::Quic,
        Some(_) => return Err(invalid("Invalid transport parameter")),
        None => return Err(invalid("Missing transport parameter")),
    };
    if !app.store.is_ready() {
        return Err(Problem::Starting);
    }
    let found = app.store.locate(&session_id).await?;
    destination(session_id, transport, &found, &names).map(Json).ok_or(Problem::NoDestination)
}

/// Where the session of this id is reached. Nowhere: it is not READY, its server is silent, it has no such transport,
/// or several sessions that can be connected to have the id, so that a token could end at the wrong host.
fn destination(session_id: String, transport: Protocol, found: &[Located], names: &DnsNames) -> Option<Destination> {
    let mut open = found.iter().filter_map(reached);
    let (server, address) = open.next().filter(|_| open.next().is_none())?;
    let (port, path) = endpoint(address, transport)?;
    Some(Destination {
        session_id,
        transport_protocol: transport.as_str(),
        dcv_server_endpoint: names.of(server).unwrap_or_else(|| address.ip.clone()),
        port,
        web_url_path: path.to_owned(),
    })
}

/// Server and address of a session that can be connected to now.
fn reached(located: &Located) -> Option<(&DcvServer, &SessionServer)> {
    let server = located.server.as_deref()?;
    if server.is_silent() || !located.session.is_open() || located.session.shown_state() != SessionState::Ready {
        return None;
    }
    Some((server, located.session.status.as_ref()?.server.as_ref()?))
}

/// Port and path for a transport. Only HTTP needs no endpoint of its own: it is what the address itself is for.
fn endpoint(address: &SessionServer, transport: Protocol) -> Option<(i32, &str)> {
    match address.endpoints.iter().find(|endpoint| endpoint.protocol == transport) {
        Some(found) => Some((found.port, found.web_url_path.as_ref().unwrap_or(&address.web_url_path))),
        None => (transport == Protocol::Http).then_some((address.port, &address.web_url_path)),
    }
}

#[cfg(test)]
mod tests;
