//! What to say about a fault, near misses and their right spelling among it.

use super::Dialect;
use super::ParseError;
use super::parse::Fault;

/// The error for `fault` at the byte `offset` of `text`.
pub(super) fn explain(text: &str, offset: usize, fault: Fault, _dialect: Dialect) -> ParseError {
    ParseError::new(text, offset..offset, format!("{fault:?}"))
}
