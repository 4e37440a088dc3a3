//! What browsers get: the page of a session, its files, and the WebSocket of its desktop.
//!
//! Each request for a session is checked against its token, which comes in the address the first time and in a cookie for
//! this session only afterwards. Addresses are never logged, as tokens are in them. Who is not let in learns no more than
//! that.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::LazyLock;
use std::time::Instant;

use axum::Router;
use axum::extract::ConnectInfo;
use axum::extract::Path;
use axum::extract::Query;
use axum::extract::Request;
use axum::extract::State;
use axum::extract::ws::WebSocketUpgrade;
use axum::http::HeaderMap;
use axum::http::HeaderName;
use axum::http::HeaderValue;
use axum::http::StatusCode;
use axum::http::Uri;
use axum::http::header;
use axum::middleware;
use axum::middleware::Next;
use axum::response::Html;
use axum::response::IntoResponse;
use axum::response::Response;
use axum::routing::get;
use include_dir::Dir;
use include_dir::include_dir;
use serde::Deserialize;
use sha2::Digest;
use sha2::Sha256;

use super::Inner;
use super::proxy;
use super::proxy::End;
use super::proxy::Traffic;
use super::rfb::MESSAGE_BYTES_MAX;
use super::session::Session;
use super::state::is_id;
use crate::agent::gate;
use crate::permissions::Features;

/// Our page and noVNC, unmodified, with its licences.
static WEB: Dir<'static> = include_dir!("$CARGO_MANIFEST_DIR/src/agent/backend/vnc/web");

/// Name of the cookie. Its path keeps the cookies of sessions apart.
const COOKIE: &str = "dcv-token";
/// Where nothing but ourselves is loaded from or connected to, and nobody puts us into a frame.
const CONTENT_SECURITY_POLICY: &str = "default-src 'self'; img-src 'self' data: blob:; style-src 'self' 'unsafe-inline'; \
    connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'; object-src 'none'";

/// Name of this version of the files, so that browsers may keep them for ever.
static VERSION: LazyLock<String> = LazyLock::new(|| {
    let mut hash = Sha256::new();
    add_files(&WEB, &mut hash);
    hex::encode(&hash.finalize()[..8])
});

/// The page, with the addresses of its files.
static PAGE: LazyLock<String> = LazyLock::new(|| {
    let page = WEB.get_file("index.html").and_then(|file| file.contents_utf8()).unwrap_or_default();
    page.replace("{version}", &VERSION)
});

fn add_files(folder: &Dir<'_>, hash: &mut Sha256) {
    for file in folder.files() {
        hash.update(file.path().as_os_str().as_encoded_bytes());
        hash.update(file.contents());
    }
    for inner in folder.dirs() {
        add_files(inner, hash);
    }
}

/// Everything the backend serves.
pub(super) fn router(inner: Arc<Inner>) -> Router {
    Router::new()
        .route("/", get(root))
        .route("/s/{id}/", get(page))
        .route("/s/{id}/ws", get(websocket))
        .route("/assets/{version}/{*path}", get(asset))
        .layer(middleware::from_fn(protect))
        .with_state(inner)
}

/// Headers that every answer has.
async fn protect(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let fixed = [
        (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ];
    for (name, value) in fixed {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    let caching = HeaderValue::from_static("no-store");
    response.headers_mut().entry(header::CACHE_CONTROL).or_insert(caching);
    response
}

/// Why a request is answered with no more than a status.
enum Turned {
    /// No token.
    Away,
    /// A token that does not let in here.
    Back,
    /// A token of which it is not known yet whether it does: the agent has just started.
    Later,
}

impl IntoResponse for Turned {
    fn into_response(self) -> Response {
        let (status, title, text) = match self {
            Self::Away => (StatusCode::UNAUTHORIZED, "No access", "Open the session with the link you were given."),
            Self::Back => {
                (StatusCode::FORBIDDEN, "No access", "This link is no longer valid, or it is for another session.")
            }
            Self::Later => (
                StatusCode::SERVICE_UNAVAILABLE,
                "One moment",
                "The server is starting. This page tries again by itself.",
            ),
        };
        let body = format!(
            "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>{title}</title>\
             <link rel=\"stylesheet\" href=\"/assets/{}/style.css\">\
             <body><main class=\"card\"><h1>{title}</h1><p>{text}</p></main></body></html>",
            *VERSION
        );
        if status == StatusCode::SERVICE_UNAVAILABLE {
            return (status, [(header::RETRY_AFTER, "2"), (header::REFRESH, "2")], Html(body)).into_response();
        }
        (status, Html(body)).into_response()
    }
}

/// A token in the address. As the documented URL names it.
#[derive(Deserialize)]
struct Address {
    #[serde(rename = "authToken")]
    token: Option<String>,
}

/// Somebody a token lets into a session.
struct Visitor {
    user: String,
    id: String,
}

/// Checks `token`, for the session `id` or whichever it is for.
fn check(inner: &Inner, token: &str, id: Option<&str>) -> Result<Visitor, Turned> {
    match gate::admit(&*inner.view, token, id) {
        Ok(claims) => Ok(Visitor { user: claims.session_user, id: claims.session_id }),
        Err(denial) => {
            tracing::info!(session = id, reason = %denial, "a connection token was refused");
            Err(if inner.view.is_whole() { Turned::Back } else { Turned::Later })
        }
    }
}

/// The token of a request: of the address, of an `Authorization` header, of the cookie.
fn find_token<'a>(address: &'a Address, headers: &'a HeaderMap) -> Option<&'a str> {
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let bearer = || text(header::AUTHORIZATION)?.strip_prefix("Bearer ").map(str::trim);
    let cookie = || {
        let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
        cookies.flat_map(|value| value.split(';')).find_map(|pair| pair.trim().strip_prefix(COOKIE)?.strip_prefix('='))
    };
    address.token.as_deref().or_else(bearer).or_else(cookie)
}

/// The documented address. What is behind its `#` does not reach us: the session is the token's.
async fn root(State(inner): State<Arc<Inner>>, Query(address): Query<Address>) -> Result<Response, Turned> {
    let token = address.token.as_deref().ok_or(Turned::Away)?;
    let visitor = check(&inner, token, None)?;
    enter(&visitor, token)
}

/// To the page of the session, with the token in a cookie instead of the address.
fn enter(visitor: &Visitor, token: &str) -> Result<Response, Turned> {
    if !is_id(&visitor.id) {
        return Err(Turned::Back);
    }
    let path = format!("/s/{}/", visitor.id);
    // `Lax`: a link on a portal's page makes the redirect one between sites, on which `Strict` cookies are held back.
    let cookie = format!("{COOKIE}={token}; Path={path}; HttpOnly; Secure; SameSite=Lax");
    let cookie = HeaderValue::try_from(cookie).map_err(|_| Turned::Back)?;
    let location = HeaderValue::try_from(path).map_err(|_| Turned::Back)?;
    Ok((StatusCode::SEE_OTHER, [(header::SET_COOKIE, cookie), (header::LOCATION, location)]).into_response())
}

async fn page(
    State(inner): State<Arc<Inner>>,
    Path(id): Path<String>,
    Query(address): Query<Address>,
    headers: HeaderMap,
) -> Result<Response, Turned> {
    let token = find_token(&address, &headers).ok_or(Turned::Away)?;
    let visitor = check(&inner, token, Some(&id))?;
    if address.token.is_some() {
        return enter(&visitor, token);
    }
    if let Some(session) = inner.session(&id)
        && !inner.features(&session, &visitor.user).await.contains(Features::DISPLAY)
    {
        return Err(Turned::Back);
    }
    Ok(Html(PAGE.as_str()).into_response())
}

async fn websocket(
    State(inner): State<Arc<Inner>>,
    Path(id): Path<String>,
    Query(address): Query<Address>,
    uri: Uri,
    headers: HeaderMap,
    peer: Option<axum::Extension<ConnectInfo<SocketAddr>>>,
    upgrade: WebSocketUpgrade,
) -> Result<Response, Turned> {
    if !is_own_origin(&headers, &uri) {
        return Err(Turned::Back);
    }
    let token = find_token(&address, &headers).ok_or(Turned::Away)?;
    let visitor = check(&inner, token, Some(&id))?;
    let session = inner.session(&id);
    let from = peer.map(|peer| peer.0.0);
    let upgrade = upgrade.protocols(["binary"]).max_message_size(MESSAGE_BYTES_MAX + 1024);
    Ok(upgrade.max_frame_size(MESSAGE_BYTES_MAX + 1024).on_upgrade(move |socket| async move {
        match session {
            Some(session) => connect(&inner, &session, &visitor.user, from, socket).await,
            // Known to the cluster, but no longer on this host.
            None => proxy::refuse(socket, End::SessionEnded).await,
        }
    }))
}

/// One client's visit, from the upgrade to its end.
async fn connect(
    inner: &Arc<Inner>,
    session: &Arc<Session>,
    user: &str,
    from: Option<SocketAddr>,
    socket: axum::extract::ws::WebSocket,
) {
    if !inner.features(session, user).await.contains(Features::DISPLAY) {
        return proxy::refuse(socket, End::NotPermitted).await;
    }
    let most = session.state().order.max_concurrent_clients;
    let admitted = session.table().admit(user, most);
    let (number, access) = match admitted {
        Ok(admitted) => admitted,
        Err(end) => return proxy::refuse(socket, end).await,
    };
    let visit = Visit { inner, session, number };
    session.note_connections(None);
    inner.bump();
    tracing::info!(session = session.id, user, from = from.map(|from| from.to_string()), "client connected");
    // Only now: a change of the permissions since the first look has not found this connection in the table.
    inner.refresh(session, number, user).await;
    let (began, traffic) = (Instant::now(), Traffic::default());
    match session.connect_desktop().await {
        Ok(desktop) => proxy::carry(socket, desktop, &traffic, access, inner.stop.clone().cancelled_owned()).await,
        Err(error) => {
            tracing::warn!(session = session.id, error = %error, "the desktop could not be reached");
            let end = if session.is_ended() { End::SessionEnded } else { End::Desktop("the desktop does not answer") };
            proxy::refuse(socket, end).await;
        }
    }
    drop(visit);
    let ((to_client, to_desktop), seconds) = (traffic.bytes(), began.elapsed().as_secs());
    tracing::info!(session = session.id, user, seconds, to_client, to_desktop, "client disconnected");
}

/// Counts a client for as long as it is connected, however that ends.
struct Visit<'a> {
    inner: &'a Inner,
    session: &'a Session,
    number: u64,
}

impl Drop for Visit<'_> {
    fn drop(&mut self) {
        self.session.table().leave(self.number);
        if !self.inner.stop.is_cancelled() {
            self.session.note_connections(Some(self.inner.view.now()));
        }
        self.inner.bump();
    }
}

/// Whether a request comes from a page of ours, or from no page at all: browsers always say.
fn is_own_origin(headers: &HeaderMap, uri: &Uri) -> bool {
    let Some(origin) = headers.get(header::ORIGIN) else { return true };
    let host =
        headers.get(header::HOST).and_then(|host| host.to_str().ok()).or_else(|| Some(uri.authority()?.as_str()));
    let origin = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
    match (origin, host) {
        (Some((_, origin)), Some(host)) => origin.eq_ignore_ascii_case(host),
        _ => false,
    }
}

async fn asset(Path((version, path)): Path<(String, String)>) -> Response {
    let file = (version == *VERSION).then(|| WEB.get_file(&path)).flatten();
    let Some(file) = file else { return StatusCode::NOT_FOUND.into_response() };
    let kind = match path.rsplit_once('.').map(|(_, extension)| extension) {
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        Some("html") => "text/html; charset=utf-8",
        Some("json") => "application/json",
        _ => "text/plain; charset=utf-8",
    };
    let headers = [(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, "public, max-age=31536000, immutable")];
    (headers, file.contents()).into_response()
}
