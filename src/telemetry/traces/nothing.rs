//! What a build without the feature `otel` has.

use super::Error;

/// Exports nothing.
#[derive(Debug)]
pub struct Exporter;

impl Exporter {
    #[expect(clippy::unnecessary_wraps, reason = "with the feature it can fail")]
    pub(super) fn start(_service: &'static str) -> Result<Self, Error> {
        Ok(Self)
    }
}

#[derive(Debug)]
pub(super) struct Span;

#[expect(clippy::unused_self, reason = "as with the feature")]
impl Span {
    pub(super) fn server(_name: impl FnOnce() -> String, _traceparent: Option<&str>) -> Self {
        Self
    }

    pub(super) fn inner(_name: &'static str, _traceparent: Option<&str>) -> Self {
        Self
    }

    pub(super) fn traceparent(&self) -> Option<String> {
        None
    }

    pub(super) fn note(&mut self, _key: &'static str, _value: &str) {}

    pub(super) fn count(&mut self, _key: &'static str, _value: i64) {}

    pub(super) fn fail(&mut self, _why: &'static str) {}
}
