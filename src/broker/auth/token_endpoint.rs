//! Who calls: the token endpoint, and the check of its tokens on every request.
//!
//! A token is only as good as its client at the moment of the call: a client that is suspended or gone, or a credential
//! that was taken away or has expired, ends it at once.

use std::sync::Arc;
use std::time::Duration;

use axum::Form;
use axum::Json;
use axum::extract::FromRequest;
use axum::extract::FromRequestParts;
use axum::extract::Query;
use axum::extract::Request;
use axum::extract::State;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use http::HeaderValue;
use http::header::AUTHORIZATION;
use http::header::CONTENT_TYPE;
use http::request::Parts;
use jiff::Timestamp;
use serde::Deserialize;
use uuid::Uuid;

use super::App;
use super::cache::is_accepted;
use super::cache::tenant;
use super::problem::Problem;
use crate::api::ApiClient;
use crate::token;
use crate::token::AccessClaims;
use crate::token::Kind;
use crate::token::TokenError;
use crate::wire::TokenResponse;

/// Seconds an access token lives when its client does not say.
const TOKEN_LIFETIME_SECONDS: i32 = 3600;

/// Time until a failed login is looked at once more and answered: a client that was registered just now may be on its
/// way to this replica, and guessing takes longer.
const FAILED_LOGIN_DELAY: Duration = Duration::from_millis(250);

/// Age in seconds below which a token may be ahead of this replica's caches, so that its client is read anew.
const FRESH_TOKEN_SECONDS: i64 = 10;

const FORM: &str = "application/x-www-form-urlencoded";

/// Parameters of the token endpoint.
#[derive(Default, Deserialize)]
struct TokenParameters {
    grant_type: Option<String>,
    client_id: Option<String>,
    client_secret: Option<String>,
}

/// `POST /oauth2/token`: the client-credentials grant of RFC 6749, with its parameters in the query or in the body.
pub async fn issue_token(State(app): State<Arc<App>>, request: Request) -> Result<Json<TokenResponse>, Problem> {
    if !app.store.is_ready() {
        return Err(Problem::Starting);
    }
    let Query(query) =
        Query::<TokenParameters>::try_from_uri(request.uri()).map_err(|_| Problem::InvalidTokenRequest)?;
    let basic = basic_credentials(request.headers())?;
    let form = read_form(request).await?;
    match form.grant_type.or(query.grant_type).as_deref() {
        Some("client_credentials") => {}
        Some(_) => return Err(Problem::UnsupportedGrantType),
        None => return Err(Problem::InvalidTokenRequest),
    }
    let (client_id, password) = match (basic, form.client_id.zip(form.client_secret)) {
        (Some(basic), None) => basic,
        (None, Some(posted)) => posted,
        // More than one way at once is forbidden by RFC 6749, section 2.3.
        (Some(_), Some(_)) => return Err(Problem::InvalidTokenRequest),
        (None, None) => return Err(Problem::InvalidClient),
    };
    let mut accepted = log_in(&app, &client_id, &password);
    if accepted.is_none() {
        tokio::time::sleep(FAILED_LOGIN_DELAY).await;
        accepted = log_in(&app, &client_id, &password);
    }
    let Some((client, credential)) = accepted else {
        tracing::info!(client_id = %client_id.escape_debug(), "login refused");
        return Err(Problem::InvalidClient);
    };
    sign(&app, &client, client_id, credential).map(Json)
}

fn sign(app: &App, client: &ApiClient, client_id: String, credential: String) -> Result<TokenResponse, Problem> {
    let now = (app.now)();
    let expires_in = i64::from(client.spec.token_lifetime_seconds.unwrap_or(TOKEN_LIFETIME_SECONDS));
    let claims = AccessClaims {
        sub: client.metadata.uid.clone().unwrap_or_default(),
        client_id,
        namespace: tenant(client).to_owned(),
        credential,
        iat: now.as_second(),
        exp: now.as_second() + expires_in,
        jti: Uuid::new_v4().to_string(),
        aud: Kind::Access.audience().to_owned(),
    };
    let access_token = app.sign(&claims)?;
    Ok(TokenResponse { access_token, token_type: "Bearer".to_owned(), expires_in })
}

/// The client and the hash of its credential. The password is hashed for unknown clients too.
fn log_in(app: &App, client_id: &str, password: &str) -> Option<(Arc<ApiClient>, String)> {
    let now = (app.now)();
    let client = app.store.client_by_id(client_id);
    let hashes = client.iter().flat_map(|client| valid_credentials(client, now));
    let hash = token::verify_password(password, hashes)?.to_owned();
    client.filter(|client| refusal(client).is_none()).map(|client| (client, hash))
}

fn valid_credentials(client: &ApiClient, now: Timestamp) -> impl Iterator<Item = &str> {
    let credentials = client.spec.credentials.iter();
    credentials
        .filter(move |credential| credential.expire_time.as_ref().is_none_or(|end| now < end.0))
        .map(|credential| credential.hash.as_str())
}

/// Why a client may do nothing now.
fn refusal(client: &ApiClient) -> Option<&'static str> {
    if client.metadata.deletion_timestamp.is_some() {
        Some("The client no longer exists")
    } else if client.spec.suspended {
        Some("The client is suspended")
    } else if !is_accepted(client) {
        Some("The client is not accepted")
    } else {
        None
    }
}

/// The credentials of a `Basic` header, if there is one.
fn basic_credentials(headers: &HeaderMap) -> Result<Option<(String, String)>, Problem> {
    let Some(header) = headers.get(AUTHORIZATION) else { return Ok(None) };
    let encoded = scheme(header, "Basic").ok_or(Problem::InvalidClient)?;
    let text = STANDARD.decode(encoded).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let (id, password) = text.as_deref().and_then(|text| text.split_once(':')).ok_or(Problem::InvalidClient)?;
    Ok(Some((id.to_owned(), password.to_owned())))
}

/// What follows the name of the scheme, whose case does not matter.
fn scheme<'a>(header: &'a HeaderValue, name: &str) -> Option<&'a str> {
    let (scheme, rest) = header.to_str().ok()?.trim().split_once(' ')?;
    scheme.eq_ignore_ascii_case(name).then(|| rest.trim())
}

/// The parameters of the body. Clients send neither body nor content type when all is in the query.
async fn read_form(mut request: Request) -> Result<TokenParameters, Problem> {
    let headers = request.headers_mut();
    let is_form = headers.get(CONTENT_TYPE).is_none_or(|type_| {
        type_.to_str().is_ok_and(|type_| type_.trim_start().to_ascii_lowercase().starts_with(FORM))
    });
    if !is_form {
        return Ok(TokenParameters::default());
    }
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(FORM));
    let form = Form::<TokenParameters>::from_request(request, &()).await;
    form.map(|Form(parameters)| parameters).map_err(|_| Problem::InvalidTokenRequest)
}

/// The client that makes a request.
pub struct Caller(pub Arc<ApiClient>);

impl FromRequestParts<Arc<App>> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Problem> {
        if !app.store.is_ready() {
            return Err(Problem::Starting);
        }
        let header = parts.headers.get(AUTHORIZATION).ok_or(Problem::Unauthorized("No authorization header"))?;
        let token = scheme(header, "Bearer").ok_or(Problem::Unauthorized("Invalid authorization header"))?;
        let now = (app.now)();
        let claims = verify(app, token, now)?;
        let client = match admit(app, &claims, now) {
            Err(_) if now.as_second() - claims.iat < FRESH_TOKEN_SECONDS => {
                app.store.refresh_clients(&claims.namespace).await;
                admit(app, &claims, now)
            }
            admitted => admitted,
        };
        client.map(Self).map_err(Problem::Unauthorized)
    }
}

fn verify(app: &App, token: &str, now: Timestamp) -> Result<AccessClaims, Problem> {
    let keys = app.store.keys(Kind::Access).ok_or(Problem::Starting)?;
    let claims = token::verify::<AccessClaims>(token, &keys.public, now)
        .and_then(|claims| token::verify_issued(claims.iat, now).map(|()| claims));
    claims.map_err(|error| {
        Problem::Unauthorized(match error {
            TokenError::Expired => "The access token has expired",
            _ => "Invalid access token",
        })
    })
}

fn admit(app: &App, claims: &AccessClaims, now: Timestamp) -> Result<Arc<ApiClient>, &'static str> {
    let client = app.store.client(&claims.sub).ok_or("The client no longer exists")?;
    if let Some(refusal) = refusal(&client) {
        return Err(refusal);
    }
    if !valid_credentials(&client, now).any(|hash| hash == claims.credential) {
        return Err("The credential of the access token is no longer valid");
    }
    Ok(client)
}
