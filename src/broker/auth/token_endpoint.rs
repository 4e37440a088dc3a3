//! The token endpoint: access tokens for the credentials of clients.

use std::sync::Arc;
use std::time::Duration;

use axum::Form;
use axum::Json;
use axum::extract::FromRequest;
use axum::extract::Query;
use axum::extract::Request;
use axum::extract::State;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use http::HeaderValue;
use http::header::AUTHORIZATION;
use http::header::CONTENT_TYPE;
use serde::Deserialize;
use uuid::Uuid;

use super::super::App;
use super::super::access_log;
use super::super::body::in_time;
use super::super::cache::tenant;
use super::super::limits::Source;
use super::super::limits::caller_address;
use super::super::problem::Problem;
use super::own::refusal;
use super::own::valid_credentials;
use super::scheme;
use crate::api::ApiClient;
use crate::token;
use crate::token::AccessClaims;
use crate::token::Kind;
use crate::wire::TokenResponse;

/// Seconds an access token lives when its client does not say.
const TOKEN_LIFETIME_SECONDS: i32 = 3600;

/// Time until a failed login is looked at once more and answered: a client that was registered just now may be on its
/// way to this replica, and guessing takes longer.
const FAILED_LOGIN_DELAY: Duration = Duration::from_millis(250);

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
    if !app.rules.enable_authorization_server {
        return Err(Problem::NoTokens);
    }
    if !app.store.is_ready() {
        return Err(Problem::Starting);
    }
    let address = caller_address(request.headers(), request.extensions(), &app.rules);
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
    // As on every call: who is no client is counted by address. Before the wait, so that few wait at once.
    let source = match &accepted {
        Some((client, _)) => Source::of_client(client),
        None => Source::of_address(address),
    };
    app.limits.admit(source, (app.now)()).map_err(Problem::TooMany)?;
    if accepted.is_none() {
        tokio::time::sleep(FAILED_LOGIN_DELAY).await;
        accepted = log_in(&app, &client_id, &password);
    }
    let Some((client, credential)) = accepted else {
        // What is no id of a client may be a password, in the wrong place.
        let known = app.store.client_by_id(&client_id).map(|_| client_id);
        tracing::info!(client_id = known, "login refused");
        return Err(Problem::InvalidClient);
    };
    access_log::note_client(&client);
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

/// The credentials of a `Basic` header, if there is one.
fn basic_credentials(headers: &HeaderMap) -> Result<Option<(String, String)>, Problem> {
    let Some(header) = headers.get(AUTHORIZATION) else { return Ok(None) };
    let encoded = scheme(header, "Basic").ok_or(Problem::InvalidClient)?;
    let text = STANDARD.decode(encoded).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let (id, password) = text.as_deref().and_then(|text| text.split_once(':')).ok_or(Problem::InvalidClient)?;
    Ok(Some((id.to_owned(), password.to_owned())))
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
    let form = in_time(Form::<TokenParameters>::from_request(request, &())).await?;
    form.map(|Form(parameters)| parameters).map_err(|_| Problem::InvalidTokenRequest)
}
