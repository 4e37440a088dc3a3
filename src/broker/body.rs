//! Request bodies: JSON whatever the content type says, with our own errors.

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::FromRequest;
use axum::extract::Request;
use axum::extract::rejection::BytesRejection;
use axum::extract::rejection::FailedToBufferBody;
use http_body::Body;
use serde::de::DeserializeOwned;
use serde_json::Map;
use serde_json::Value;

use super::BODY_MAX_BYTES;
use super::access_log;
use super::problem::Problem;

/// The objects of a list, which must be there.
pub struct Items<T>(pub Vec<T>);

/// An object that may be absent, empty or `null`.
pub struct OptionalObject<T>(pub T);

/// Longest time for the body of a request: whoever sends one slowly keeps a connection and what has come of it.
const READ_TIMEOUT: Duration = Duration::from_secs(20);

/// What `reading` a body gives, if that does not take too long.
pub async fn in_time<T>(reading: impl Future<Output = T>) -> Result<T, Problem> {
    tokio::time::timeout(READ_TIMEOUT, reading).await.map_err(|_| Problem::Slow)
}

async fn read<S: Send + Sync>(request: Request, state: &S) -> Result<Bytes, Problem> {
    // What is announced need not be waited for.
    if request.body().size_hint().lower() > BODY_MAX_BYTES as u64 {
        return Err(Problem::TooLarge);
    }
    in_time(Bytes::from_request(request, state)).await?.map_err(|rejection| match rejection {
        BytesRejection::FailedToBufferBody(FailedToBufferBody::LengthLimitError(_)) => Problem::TooLarge,
        _ => Problem::Invalid("Invalid input: the body could not be read".to_owned()),
    })
}

// The errors of the parser name types and places, nothing of ours.
#[expect(clippy::needless_pass_by_value, reason = "as map_err wants it")]
fn invalid(error: serde_json::Error) -> Problem {
    Problem::Invalid(format!("Invalid input: {error}"))
}

/// By way of a map: a derived struct would take a list of its values as well.
fn object<T: DeserializeOwned>(object: Map<String, Value>) -> Result<T, Problem> {
    serde_json::from_value(Value::Object(object)).map_err(invalid)
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Items<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let bytes = read(request, state).await?;
        if bytes.is_empty() {
            return Err(Problem::Invalid("Invalid input: the body is missing".to_owned()));
        }
        let items: Vec<_> = serde_json::from_slice(&bytes).map_err(invalid)?;
        access_log::note_items(items.len());
        items.into_iter().map(object).collect::<Result<_, _>>().map(Self)
    }
}

impl<T: DeserializeOwned + Default, S: Send + Sync> FromRequest<S> for OptionalObject<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let bytes = read(request, state).await?;
        if bytes.trim_ascii().is_empty() {
            return Ok(Self(T::default()));
        }
        let body: Option<_> = serde_json::from_slice(&bytes).map_err(invalid)?;
        body.map_or_else(|| Ok(T::default()), object).map(Self)
    }
}
