//! Access tokens of our own, and the clients they were given to.
//!
//! A token is only as good as its client at the moment of the call: a client that is suspended or gone, or a credential
//! that was taken away or has expired, ends it at once.

use std::sync::Arc;

use jiff::Timestamp;

use super::super::App;
use super::super::cache::is_accepted;
use super::super::problem::Problem;
use super::EXPIRED_TOKEN;
use super::INVALID_TOKEN;
use crate::api::ApiClient;
use crate::token;
use crate::token::AccessClaims;
use crate::token::Kind;
use crate::token::TokenError;

/// Age in seconds below which a token may be ahead of this replica's caches, so that its client is read anew.
const FRESH_TOKEN_SECONDS: i64 = 10;

/// Whether the token names a key of ours.
pub fn is_signed_by_us(app: &App, token: &str) -> bool {
    let key = jsonwebtoken::decode_header(token).ok().and_then(|header| header.kid);
    app.store.keys(Kind::Access).zip(key).is_some_and(|(keys, key)| keys.public.find(&key).is_some())
}

/// The client that a token was given to.
pub async fn identify(app: &App, token: &str, now: Timestamp) -> Result<Arc<ApiClient>, Problem> {
    let claims = verify(app, token, now)?;
    let client = match admit(app, &claims, now) {
        Err(_) if now.as_second() - claims.iat < FRESH_TOKEN_SECONDS => {
            app.store.refresh_clients(&claims.namespace).await;
            admit(app, &claims, now)
        }
        admitted => admitted,
    };
    client.map_err(Problem::Unauthorized)
}

fn verify(app: &App, token: &str, now: Timestamp) -> Result<Arc<AccessClaims>, Problem> {
    let keys = app.store.keys(Kind::Access).ok_or(Problem::Starting)?;
    let verify = || {
        let claims = token::verify::<AccessClaims>(token, &keys.public, now)?;
        token::verify_issued(claims.iat, now).map(|()| claims)
    };
    app.verified.claims(token, &keys, now, verify).map_err(|error| {
        Problem::Unauthorized(match error {
            TokenError::Expired => EXPIRED_TOKEN,
            _ => INVALID_TOKEN,
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

/// Hashes of the passwords that are accepted now.
pub fn valid_credentials(client: &ApiClient, now: Timestamp) -> impl Iterator<Item = &str> {
    let credentials = client.spec.credentials.iter();
    credentials
        .filter(move |credential| credential.expire_time.as_ref().is_none_or(|end| now < end.0))
        .map(|credential| credential.hash.as_str())
}

/// Why a client may do nothing now.
pub fn refusal(client: &ApiClient) -> Option<&'static str> {
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
