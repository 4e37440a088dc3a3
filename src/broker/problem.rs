//! Why a request as a whole is not answered: status, body and log level, in one `match`.
//!
//! Every body is `{"error": text}`, the one shape the guide shows. What is our fault hides its cause from the caller and
//! is logged, in the span that carries the request's id.

use std::error::Error;
use std::time::Duration;

use axum::Json;
use axum::response::IntoResponse;
use axum::response::Response;
use http::HeaderValue;
use http::StatusCode;
use http::header::RETRY_AFTER;
use http::header::WWW_AUTHENTICATE;

use super::store::StoreError;
use crate::wire::ErrorResponse;

/// Why a request is not answered.
#[derive(Debug)]
pub enum Problem {
    /// The input is wrong; the text says how.
    Invalid(String),
    /// No token, or one that is not accepted.
    Unauthorized(&'static str),
    /// The token endpoint does not know these credentials: RFC 6749, section 5.2.
    InvalidClient,
    /// The token endpoint cannot read the request.
    InvalidTokenRequest,
    /// The token endpoint has only one grant.
    UnsupportedGrantType,
    /// The broker gives out no tokens.
    NoTokens,
    /// Too many requests; for so long there is no room for another.
    TooMany(Duration),
    /// The body of the request came too slowly.
    Slow,
    /// No such path.
    NoSuchPath,
    /// No session of that id can be connected to.
    NoDestination,
    /// No such method on this path.
    NoSuchMethod,
    /// The body is too large.
    TooLarge,
    /// The caches are not filled yet.
    Starting,
    /// The request took too long.
    Late,
    /// The cluster could not be asked.
    Cluster(StoreError),
    /// A fault of ours.
    Internal(Box<dyn Error + Send + Sync>),
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        const UNREACHABLE: &str = "The cluster cannot be reached, try again";
        let (status, text, challenge) = match &self {
            Self::Invalid(text) => (StatusCode::BAD_REQUEST, text.as_str(), None),
            Self::Unauthorized(text) => (StatusCode::UNAUTHORIZED, *text, Some("Bearer")),
            Self::InvalidClient => (StatusCode::UNAUTHORIZED, "invalid_client", Some("Basic realm=\"dcv-operator\"")),
            Self::InvalidTokenRequest => (StatusCode::BAD_REQUEST, "invalid_request", None),
            Self::UnsupportedGrantType => (StatusCode::BAD_REQUEST, "unsupported_grant_type", None),
            Self::NoTokens => (StatusCode::NOT_FOUND, "This broker issues no access tokens", None),
            Self::TooMany(_) => (StatusCode::TOO_MANY_REQUESTS, "Too many requests, try again later", None),
            Self::Slow => (StatusCode::REQUEST_TIMEOUT, "The body of the request took too long", None),
            Self::NoSuchPath => (StatusCode::NOT_FOUND, "Not found", None),
            Self::NoDestination => (StatusCode::NOT_FOUND, "No destination for this session", None),
            Self::NoSuchMethod => (StatusCode::METHOD_NOT_ALLOWED, "Method not allowed", None),
            Self::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "The request is too large", None),
            Self::Starting => (StatusCode::SERVICE_UNAVAILABLE, "The broker is starting, try again", None),
            Self::Late => {
                tracing::warn!("the request took too long");
                (StatusCode::SERVICE_UNAVAILABLE, "The request took too long, try again", None)
            }
            Self::Cluster(error) => {
                tracing::error!(error = error as &dyn Error, "the cluster did not answer");
                (StatusCode::SERVICE_UNAVAILABLE, UNREACHABLE, None)
            }
            Self::Internal(error) => {
                tracing::error!(error = error.as_ref() as &dyn Error, "the request failed");
                (StatusCode::INTERNAL_SERVER_ERROR, "Internal error", None)
            }
        };
        let mut response = (status, Json(ErrorResponse { error: text.to_owned() })).into_response();
        if let Some(challenge) = challenge {
            response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        if let Self::TooMany(wait) = self {
            // In whole seconds, and not too soon.
            response.headers_mut().insert(RETRY_AFTER, (wait.as_secs() + 1).into());
        }
        response
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        Self::Cluster(error)
    }
}
