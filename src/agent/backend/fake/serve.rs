//! The `fake-host` process: [`super::api`] over HTTP on a Unix socket.

use std::collections::BTreeMap;
use std::fs;
use std::future::pending;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::time::Duration;

use axum::Json;
use axum::Router;
use axum::extract::Path as Segments;
use axum::extract::Query;
use axum::extract::State as Shared;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::response::Response;
use axum::routing::get;
use axum::routing::post;
use axum::routing::put;
use serde::Deserialize;
use tokio::net::UnixListener;
use tokio::sync::watch;

use super::api;
use super::api::Call;
use super::api::Fault;
use super::api::State;
use super::api::What;
use super::fleet::Fleet;
use super::host::Denied;
use super::host::World;
use super::picture;
use crate::agent::backend::Order;
use crate::agent::backend::ScreenshotRequest;
use crate::cluster::Clock;

/// How long a request for changes waits.
const LONG_POLL: Duration = Duration::from_mins(1);

/// A `fake-host` that listens.
pub struct Server {
    listener: UnixListener,
    app: Router,
}

impl Server {
    /// Listens at `socket`; one that an earlier process left there is replaced.
    ///
    /// # Errors
    /// When the socket cannot be made.
    pub fn bind(socket: &Path, fleet: Fleet, clock: Clock) -> io::Result<Self> {
        match fs::remove_file(socket) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(socket)?;
        let hosts = Hosts { world: Arc::new(Mutex::new(World::new(fleet))), clock };
        Ok(Self { listener, app: router(hosts) })
    }

    /// Serves for ever.
    pub async fn run(self) {
        if let Err(error) = axum::serve(self.listener, self.app).await {
            tracing::error!(%error, "the socket cannot be served");
        }
    }
}

#[derive(Clone)]
struct Hosts {
    world: Arc<Mutex<World>>,
    clock: Clock,
}

impl Hosts {
    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().expect("nothing panics under the lock")
    }
}

fn router(hosts: Hosts) -> Router {
    Router::new()
        .route("/v1/sessions", get(all))
        .route("/v1/history", get(history))
        .route("/v1/servers/{server}", get(describe))
        .route("/v1/servers/{server}/sessions", get(list))
        .route("/v1/servers/{server}/changes", get(changes))
        .route("/v1/servers/{server}/faults", post(add_fault))
        .route("/v1/servers/{server}/latency", put(set_latency))
        .route("/v1/servers/{server}/health", put(set_health))
        .route("/v1/servers/{server}/users", put(set_users))
        .route("/v1/servers/{server}/restart", post(restart))
        .route("/v1/servers/{server}/sessions/{id}", put(create).delete(close))
        .route("/v1/servers/{server}/sessions/{id}/announced", put(announce))
        .route("/v1/servers/{server}/sessions/{id}/permissions", put(set_permissions))
        .route("/v1/servers/{server}/sessions/{id}/screenshot", post(screenshot))
        .route("/v1/servers/{server}/sessions/{id}/end", post(end))
        .route("/v1/servers/{server}/sessions/{id}/connections", put(connect))
        .route("/v1/servers/{server}/sessions/{id}/manual", post(start_by_hand))
        .with_state(hosts)
}

type Session = Segments<(String, String)>;

fn done() -> Response {
    Json(()).into_response()
}

fn answer(status: u16, text: impl Into<String>) -> Response {
    let status = StatusCode::from_u16(status).expect("our own numbers are statuses");
    (status, text.into()).into_response()
}

fn done_if(found: bool) -> Response {
    if found { done() } else { answer(404, "no such session") }
}

async fn all(Shared(hosts): Shared<Hosts>) -> Json<BTreeMap<String, Vec<api::Session>>> {
    Json(hosts.world().all())
}

async fn history(Shared(hosts): Shared<Hosts>) -> Json<BTreeMap<String, api::History>> {
    Json(hosts.world().history().clone())
}

async fn describe(Shared(hosts): Shared<Hosts>, Segments(server): Segments<String>) -> Json<api::Host> {
    Json(hosts.world().host(&server).is.clone())
}

async fn list(Shared(hosts): Shared<Hosts>, Segments(server): Segments<String>) -> Json<Vec<api::Session>> {
    Json(hosts.world().host(&server).list())
}

#[derive(Deserialize)]
struct After {
    after: Option<u64>,
}

async fn changes(
    Shared(hosts): Shared<Hosts>,
    Segments(server): Segments<String>,
    Query(After { after }): Query<After>,
) -> Json<api::Version> {
    let mut versions = hosts.world().host(&server).version.subscribe();
    let _ = tokio::time::timeout(LONG_POLL, versions.wait_for(|version| Some(*version) != after)).await;
    let version = *versions.borrow();
    Json(api::Version { version })
}

/// Begins the session and answers when it accepts clients. It comes about also when nobody waits for the answer any more,
/// as on a real host.
async fn create(Shared(hosts): Shared<Hosts>, Segments((server, id)): Session, Json(order): Json<Order>) -> Response {
    let fault = hosts.world().host(&server).next_fault(Call::Create);
    if let Some(Fault { what: What::Refuse, reason, .. }) = &fault {
        return answer(api::REFUSED, reason);
    }
    let (begun, latency, watched) = {
        let mut world = hosts.world();
        let begun = world.begin(&server, &order, (hosts.clock)());
        let host = world.host(&server);
        (begun, host.latency, host.any.subscribe())
    };
    let number = match begun {
        Ok(number) => number,
        Err(Denied::Refused(reason)) => return answer(api::REFUSED, reason),
        Err(Denied::Failed(reason)) => return answer(api::FAILED, reason),
    };
    let pause = Duration::from_millis(latency.create_milliseconds);
    match fault {
        Some(Fault { what: What::Hang, .. }) => return pending().await,
        Some(Fault { what: What::Fail, reason, .. }) => {
            tokio::time::sleep(pause).await;
            hosts.world().close(&server, &id);
            return answer(api::FAILED, reason);
        }
        _ => {}
    }
    if pause.is_zero() {
        hosts.world().run(&server, &id, number);
    } else {
        let (hosts, server, id) = (hosts.clone(), server.clone(), id.clone());
        tokio::spawn(async move {
            tokio::time::sleep(pause).await;
            hosts.world().run(&server, &id, number);
        });
    }
    match settled(&hosts, &server, &id, number, watched).await {
        Some(State::Running) if fault.is_some() => answer(api::LOST, "the answer is lost"),
        Some(State::Running) => done(),
        _ => answer(api::FAILED, "the session was gone before it accepted clients"),
    }
}

/// Waits until an instance is no longer being prepared.
async fn settled(
    hosts: &Hosts,
    server: &str,
    id: &str,
    number: u64,
    mut watched: watch::Receiver<u64>,
) -> Option<State> {
    loop {
        watched.mark_unchanged();
        let phase = hosts.world().host(server).phase(id, number);
        if phase != Some(State::Preparing) || watched.changed().await.is_err() {
            return phase;
        }
    }
}

async fn close(Shared(hosts): Shared<Hosts>, Segments((server, id)): Session) -> Response {
    let (fault, latency) = {
        let mut world = hosts.world();
        let host = world.host(&server);
        (host.next_fault(Call::Close), host.latency)
    };
    tokio::time::sleep(Duration::from_millis(latency.close_milliseconds)).await;
    match fault {
        Some(Fault { what: What::Fail | What::Refuse, reason, .. }) => answer(api::FAILED, reason),
        Some(Fault { what: What::Hang, .. }) => pending().await,
        Some(Fault { what: What::Lose, .. }) => {
            hosts.world().close(&server, &id);
            answer(api::LOST, "the answer is lost")
        }
        None => {
            hosts.world().close(&server, &id);
            done()
        }
    }
}

async fn announce(Shared(hosts): Shared<Hosts>, Segments((server, id)): Session) -> Response {
    let mut world = hosts.world();
    done_if(world.host(&server).session(&id).map(|session| session.announced = true).is_some())
}

async fn set_permissions(
    Shared(hosts): Shared<Hosts>,
    Segments((server, id)): Session,
    Json(permissions): Json<api::Permissions>,
) -> Response {
    let mut world = hosts.world();
    let session = world.host(&server).session(&id);
    done_if(session.map(|session| session.permissions = permissions.text).is_some())
}

async fn screenshot(
    Shared(hosts): Shared<Hosts>,
    Segments((server, id)): Session,
    Json(request): Json<ScreenshotRequest>,
) -> Response {
    let is_running = hosts.world().host(&server).session(&id).is_some_and(|session| session.phase == State::Running);
    if !is_running {
        return answer(404, "no such session");
    }
    match tokio::task::spawn_blocking(move || picture::take(&id, request)).await {
        Ok(Ok(bytes)) => bytes.into_response(),
        Ok(Err(error)) => answer(api::FAILED, error.to_string()),
        Err(error) => answer(api::FAILED, error.to_string()),
    }
}

async fn add_fault(
    Shared(hosts): Shared<Hosts>,
    Segments(server): Segments<String>,
    Json(fault): Json<Fault>,
) -> Response {
    hosts.world().host(&server).add_fault(fault);
    done()
}

async fn set_latency(
    Shared(hosts): Shared<Hosts>,
    Segments(server): Segments<String>,
    Json(latency): Json<api::Latency>,
) -> Response {
    hosts.world().host(&server).latency = latency;
    done()
}

async fn set_health(
    Shared(hosts): Shared<Hosts>,
    Segments(server): Segments<String>,
    Json(health): Json<api::Health>,
) -> Response {
    let mut world = hosts.world();
    let host = world.host(&server);
    host.is.unhealthy = health.unhealthy;
    host.changed();
    done()
}

async fn set_users(
    Shared(hosts): Shared<Hosts>,
    Segments(server): Segments<String>,
    Json(users): Json<api::Users>,
) -> Response {
    let mut world = hosts.world();
    let host = world.host(&server);
    host.is.host.logged_in_users = users.logged_in_users;
    host.changed();
    done()
}

async fn restart(Shared(hosts): Shared<Hosts>, Segments(server): Segments<String>) -> Response {
    hosts.world().restart(&server);
    done()
}

async fn end(Shared(hosts): Shared<Hosts>, Segments((server, id)): Session, Json(end): Json<api::End>) -> Response {
    done_if(hosts.world().end(&server, &id, &end.reason, end.forget))
}

async fn connect(
    Shared(hosts): Shared<Hosts>,
    Segments((server, id)): Session,
    Json(connections): Json<api::Connections>,
) -> Response {
    let now = (hosts.clock)();
    done_if(hosts.world().host(&server).connect(&id, connections.number, now))
}

async fn start_by_hand(
    Shared(hosts): Shared<Hosts>,
    Segments((server, id)): Session,
    Json(manual): Json<api::Manual>,
) -> Response {
    let now = (hosts.clock)();
    hosts.world().start_by_hand(&server, &id, manual, now);
    done()
}
