//! Long answers.

use axum::body::Body;
use axum::response::IntoResponse;
use axum::response::Response;
use http::HeaderValue;
use http::header::CONTENT_TYPE;
use serde::Serialize;

use super::problem::Problem;

/// Room for one server, in bytes: what most take with a few tags.
const ITEM_BYTES: usize = 1024;

/// `answer`, which lists `items` objects, as JSON: written at once into room enough, where `axum::Json` starts with little
/// and copies what is there each time that it wants more.
///
/// # Errors
/// When it is no JSON, which no wire type is.
pub fn list(answer: &impl Serialize, items: usize) -> Result<Response, Problem> {
    let mut text = Vec::with_capacity(ITEM_BYTES * (items + 1));
    json(serde_json::to_writer(&mut text, answer).map(|()| text))
}

/// An answer that is written already.
///
/// # Errors
/// When that failed.
pub fn json(text: serde_json::Result<Vec<u8>>) -> Result<Response, Problem> {
    let text = text.map_err(|error| Problem::Internal(Box::new(error)))?;
    Ok(([(CONTENT_TYPE, HeaderValue::from_static("application/json"))], Body::from(text)).into_response())
}
