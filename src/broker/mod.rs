//! The broker: Session Manager's REST API over the cluster's objects.
//!
//! Beside it, on ports of their own, the verifier of connection tokens and the session resolver of gateways. Stateless:
//! any number of replicas serve the same answers, from caches, and write straight to the API server. It places nothing
//! and runs nothing. No type of the cluster reaches a client, no wire type reaches the cluster.

mod access_log;
mod agents;
mod answer;
mod auth;
mod availability;
mod body;
mod cache;
mod connections;
mod dcv;
mod gateway;
#[cfg(test)]
mod isolation;
mod kube_store;
mod limits;
#[cfg(test)]
mod memory;
mod metrics;
mod problem;
mod promise;
mod serve;
mod store;
mod tls;
mod trial;
mod verifier;

use std::any::Any;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::extract::Request;
use axum::extract::State;
use axum::middleware;
use axum::middleware::Next;
use axum::response::IntoResponse;
use axum::response::Response;
use axum::routing::get;
use axum::routing::post;
use http::HeaderName;
use http::header::CONTENT_TYPE;
use jiff::Timestamp;
use serde_json::Value;
use serde_json::json;
use tower::ServiceBuilder;
use tower_http::catch_panic::CatchPanicLayer;
use uuid::Uuid;

use self::auth::Verified;
use self::auth::issuers::Issuers;
use self::limits::Limits;
pub use self::problem::Problem;
pub use self::serve::Error;
pub use self::serve::run;
pub use self::store::Keys;
pub use self::store::Store;

use self::agents::Agents;
use crate::cluster::Scope;
use crate::requirement::Dialect;
use crate::token;
use crate::token::Claims;
use crate::token::agent::ImageFormat;
use crate::wire;

/// What a broker is told when it starts.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where the REST API is served; port 0: any free one, which the log names.
    pub api_address: SocketAddr,
    /// Where desktop servers have tokens verified.
    pub verifier_address: SocketAddr,
    /// What gateways are served, if they are.
    pub gateway: Option<GatewaySettings>,
    /// Where the certificate comes from.
    pub tls: Tls,
    /// Where health and metrics are served.
    pub health_address: SocketAddr,
    /// The release namespace, which holds the signing keys.
    pub namespace: String,
    /// Whose sessions and clients are ours.
    pub scope: Scope,
    /// Other authorization servers whose tokens are accepted, as a file names them.
    pub authorization_servers: Option<PathBuf>,
    /// Most connections of each port.
    pub max_connections: usize,
    /// What the API allows and how long things last.
    pub rules: Rules,
}

/// What gateways are served.
#[derive(Clone, Debug)]
pub struct GatewaySettings {
    /// Where they ask for the server of a session.
    pub address: SocketAddr,
    /// Authorities in PEM, one of which must have signed their certificates. Absent: they need none.
    pub client_authorities: Option<PathBuf>,
    /// Names of servers that go before those they report, in the documented JSON form.
    pub dns_names: Option<PathBuf>,
}

/// Where the certificate comes from.
#[derive(Clone, Debug)]
pub enum Tls {
    /// PEM files, read again when they change.
    Files {
        /// Certificate chain.
        certificate: PathBuf,
        /// Private key.
        key: PathBuf,
    },
    /// Made at the start, for this machine.
    SelfMade {
        /// Where to write the certificate of its authority.
        ca_out: Option<PathBuf>,
    },
}

/// What the API allows and how long things last: the documented settings.
#[derive(Clone, Debug, PartialEq)]
pub struct Rules {
    /// Minutes a connection token lives.
    pub connect_session_token_duration_minutes: u32,
    /// Seconds a deleted session is still listed. 0: its object is deleted with it.
    pub delete_session_duration_seconds: u32,
    /// How many sessions of one namespace may wait in its queue.
    pub create_sessions_queue_max_size: usize,
    /// Seconds a session may wait there.
    pub create_sessions_queue_max_time_seconds: u32,
    /// Most arguments of an autorun file.
    pub autorun_file_arguments_max_size: usize,
    /// Most characters of each.
    pub autorun_file_arguments_max_argument_length: usize,
    /// Most pixels in width of a screenshot whose caller does not say.
    pub session_screenshot_max_width: u32,
    /// Most pixels in height of a screenshot whose caller does not say.
    pub session_screenshot_max_height: u32,
    /// Format of screenshots.
    pub session_screenshot_format: ImageFormat,
    /// How much of the requirement language is allowed.
    pub dialect: Dialect,
    /// Whether the broker issues access tokens, and accepts those.
    pub enable_authorization_server: bool,
    /// The tenant of every caller where calls need no token. Absent: they need one.
    pub no_authorization_namespace: Option<String>,
    /// Most requests of one client in a second, and of one address those that prove to be no client's.
    pub max_api_requests_per_second: u32,
    /// Whether a request comes from where the last entry of its `X-Forwarded-For` says.
    pub enable_throttling_forwarded_for_header: bool,
    /// Seconds after which an unreachable server is listed no more.
    pub seconds_before_deleting_unreachable_dcv_server: u32,
    /// Seconds after which the sessions of an unreachable server are listed no more. Absent: they stay.
    pub seconds_before_deleting_sessions_unreachable_server: Option<u32>,
    /// Whether the API file is served.
    pub enable_api_yaml: bool,
}

impl Default for Rules {
    /// The documented defaults.
    fn default() -> Self {
        Self {
            connect_session_token_duration_minutes: 60,
            delete_session_duration_seconds: 3600,
            create_sessions_queue_max_size: 1000,
            create_sessions_queue_max_time_seconds: 1800,
            autorun_file_arguments_max_size: 50,
            autorun_file_arguments_max_argument_length: 150,
            session_screenshot_max_width: 160,
            session_screenshot_max_height: 100,
            session_screenshot_format: ImageFormat::Png,
            dialect: Dialect::Extended,
            enable_authorization_server: true,
            no_authorization_namespace: None,
            max_api_requests_per_second: 1000,
            enable_throttling_forwarded_for_header: false,
            seconds_before_deleting_unreachable_dcv_server: 1800,
            seconds_before_deleting_sessions_unreachable_server: None,
            enable_api_yaml: true,
        }
    }
}

/// What every handler works with.
pub struct App {
    /// The cluster.
    pub store: Arc<dyn Store>,
    /// The agents, as far as they are called.
    pub agents: Agents,
    /// What the API allows.
    pub rules: Rules,
    /// The clock.
    pub now: fn() -> Timestamp,
    /// Other authorization servers whose tokens are accepted.
    issuers: Arc<Issuers>,
    /// Access tokens that were found good before.
    verified: Verified,
    /// How many requests callers may still make.
    limits: Limits,
}

impl App {
    /// What handlers of these work with.
    pub fn new(store: Arc<dyn Store>, rules: Rules, issuers: Arc<Issuers>, now: fn() -> Timestamp) -> Self {
        let limits = Limits::new(rules.max_api_requests_per_second);
        Self { store, agents: Agents::default(), rules, now, issuers, verified: Verified::default(), limits }
    }

    /// With tokens of our own only.
    #[cfg(test)]
    pub fn plain(store: Arc<dyn Store>, rules: Rules, now: fn() -> Timestamp) -> Self {
        Self::new(store, rules, Arc::default(), now)
    }

    /// Signs claims with the current key of their kind.
    fn sign<C: Claims>(&self, claims: &C) -> Result<String, Problem> {
        let keys = self.store.keys(C::KIND).ok_or(Problem::Starting)?;
        let signer = keys.private.signer((self.now)()).ok_or(Problem::Starting)?;
        token::sign(claims, signer).map_err(|error| Problem::Internal(Box::new(error)))
    }
}

/// Largest body of the API, in bytes: some forty requests with the longest permissions file each.
const BODY_MAX_BYTES: usize = 4 << 20;

/// Longest time until a request is answered.
const REQUEST_TIMEOUT: Duration = Duration::from_mins(1);

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Id of a request: in its answer, in a header of every answer, and in the log.
#[derive(Clone, Copy, Debug)]
pub struct RequestId(Uuid);

impl RequestId {
    /// The id as text.
    fn text(self) -> String {
        self.0.to_string()
    }
}

/// Everything served to clients of the API.
pub fn router(app: Arc<App>) -> Router {
    let mut routes = Router::new()
        .route("/health", get(health))
        .route("/oauth2/token", post(auth::issue_token))
        .merge(dcv::routes());
    if app.rules.enable_api_yaml {
        routes = routes.route("/dcv-session-manager-api.yaml", get(api_file));
    }
    guarded(routes, BODY_MAX_BYTES, &app.rules).with_state(app)
}

/// `routes` with what holds for every request of every port: an id, its line in the log, limits, and our errors.
fn guarded<S: Clone + Send + Sync + 'static>(routes: Router<S>, body_max_bytes: usize, rules: &Rules) -> Router<S> {
    let rules = Arc::new(rules.clone());
    let log = move |request: Request, next: Next| access_log::serve(request, next, Arc::clone(&rules));
    routes.fallback(async || Problem::NoSuchPath).method_not_allowed_fallback(async || Problem::NoSuchMethod).layer(
        ServiceBuilder::new()
            .layer(middleware::from_fn(log))
            .layer(CatchPanicLayer::custom(after_panic))
            .layer(middleware::from_fn(limit_time))
            .layer(DefaultBodyLimit::max(body_max_bytes)),
    )
}

/// `GET /health`: what load balancers poll, without a token.
async fn health(State(app): State<Arc<App>>) -> Result<Json<Value>, Problem> {
    if app.store.is_ready() { Ok(Json(json!({"status": "ok"}))) } else { Err(Problem::Starting) }
}

/// `GET /dcv-session-manager-api.yaml`: what clients are generated from, without a token, as generators have none.
async fn api_file() -> ([(HeaderName, &'static str); 1], &'static str) {
    ([(CONTENT_TYPE, "application/yaml")], wire::API_FILE)
}

async fn limit_time(request: Request, next: Next) -> Response {
    tokio::time::timeout(REQUEST_TIMEOUT, next.run(request)).await.unwrap_or_else(|_| Problem::Late.into_response())
}

fn after_panic(panic: Box<dyn Any + Send + 'static>) -> Response {
    let text = panic
        .downcast::<String>()
        .map(|text| *text)
        .or_else(|panic| panic.downcast::<&str>().map(|text| (*text).to_owned()));
    Problem::Internal(text.unwrap_or_else(|_| "panic".to_owned()).into()).into_response()
}
