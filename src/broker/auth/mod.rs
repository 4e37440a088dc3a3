//! Who calls: the token endpoint, and the check of a token on every request.
//!
//! Whatever a caller shows, what comes out is an `ApiClient`: one that is an object of the cluster, for tokens of our
//! own; one that is made up for the request, for tokens of another authorization server and where no token is needed.
//! So there is one rule of tenants for all, and no handler knows the difference.

mod anyone;
pub mod issuers;
mod own;
mod token_endpoint;
mod verified;

use std::sync::Arc;

use axum::extract::FromRequestParts;
use http::HeaderMap;
use http::HeaderValue;
use http::header::AUTHORIZATION;
use http::request::Parts;
use kube::core::ObjectMeta;
use sha2::Digest;
use sha2::Sha256;

pub use self::token_endpoint::issue_token;
pub use self::verified::Verified;

use super::App;
use super::access_log;
use super::limits::Source;
use super::limits::caller_address;
use super::problem::Problem;
use crate::api::ApiClient;
use crate::api::ApiClientSpec;

const INVALID_TOKEN: &str = "Invalid access token";
const EXPIRED_TOKEN: &str = "The access token has expired";

/// The client that makes a request.
pub struct Caller(pub Arc<ApiClient>);

impl FromRequestParts<Arc<App>> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Problem> {
        if !app.store.is_ready() {
            return Err(Problem::Starting);
        }
        let identified = identify(app, &parts.headers).await;
        // Who proves to be a client is counted as that client, and so is not held up by others at the same address.
        let source = match &identified {
            Ok(client) if app.rules.no_authorization_namespace.is_none() => Source::of_client(client),
            _ => Source::of_address(caller_address(&parts.headers, &parts.extensions, &app.rules)),
        };
        app.limits.admit(source, (app.now)()).map_err(Problem::TooMany)?;
        let client = identified?;
        access_log::note_client(&client);
        Ok(Self(client))
    }
}

async fn identify(app: &App, headers: &HeaderMap) -> Result<Arc<ApiClient>, Problem> {
    if let Some(namespace) = &app.rules.no_authorization_namespace {
        return Ok(Arc::new(anyone::client(namespace)));
    }
    let header = headers.get(AUTHORIZATION).ok_or(Problem::Unauthorized("No authorization header"))?;
    let token = scheme(header, "Bearer").ok_or(Problem::Unauthorized("Invalid authorization header"))?;
    let now = (app.now)();
    let is_own = app.rules.enable_authorization_server && (app.issuers.is_empty() || own::is_signed_by_us(app, token));
    if is_own {
        own::identify(app, token, now).await
    } else {
        app.issuers.identify(token, now).await.map(Arc::new).map_err(Problem::Unauthorized)
    }
}

/// What follows the name of the scheme, whose case does not matter.
fn scheme<'a>(header: &'a HeaderValue, name: &str) -> Option<&'a str> {
    let (scheme, rest) = header.to_str().ok()?.trim().split_once(' ')?;
    scheme.eq_ignore_ascii_case(name).then(|| rest.trim())
}

/// A client that is no object of the cluster: of the tenant `namespace`, with the same uid each time its `parts` are the
/// same.
fn made_up(name: &str, namespace: &str, parts: &[&str]) -> ApiClient {
    let digest = Sha256::digest(serde_json::to_vec(parts).unwrap_or_default());
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    ApiClient {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some(namespace.to_owned()),
            // Of version 8, so that no object of the cluster has it.
            uid: Some(uuid::Builder::from_custom_bytes(bytes).into_uuid().to_string()),
            ..ObjectMeta::default()
        },
        spec: ApiClientSpec {
            display_name: None,
            client_id: None,
            credentials: Vec::new(),
            suspended: false,
            token_lifetime_seconds: None,
            all_namespaces: false,
            manage_servers: false,
        },
        status: None,
    }
}

#[cfg(test)]
mod tests;
